#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the threads of a test are its own")]

use std::os::unix::fs::PermissionsExt;

use super::super::line::Formatter;
use super::super::pseudonym::Pseudonyms;
use super::*;
use crate::state::events::{Event, EventKind};

const DAY: u64 = 86_400_000;
/// 2026-11-22T00:00:00Z
const MIDNIGHT: u64 = 1_795_305_600_000;

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

fn lines(formatter: &mut Formatter, count: u64) -> Vec<u8> {
    let mut out = Vec::new();
    (0..count).for_each(|at| formatter.append(&mut out, &Event::new(EventKind::Alert, at)));
    out
}

fn formatter(key: &Key, end: ChainEnd) -> Formatter {
    Formatter::new(key, end, Pseudonyms::new(&Key::new([2; 32])))
}

#[test]
fn the_day_is_utc_and_the_files_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let audit = dir.path().join("deep/security");
    let mut files = DailyFiles::claim(&audit).unwrap();
    files.write_group(b"a\n", MIDNIGHT - 1).unwrap();
    files.write_group(b"b\n", MIDNIGHT).unwrap();
    files.write_group(b"c\n", MIDNIGHT + DAY - 1).unwrap();
    files.write_group(b"d\n", MIDNIGHT - DAY).unwrap();
    assert_eq!(read(&audit, "security-2026-11-21.log"), "a\nd\n");
    assert_eq!(read(&audit, "security-2026-11-22.log"), "b\nc\n");
    assert_eq!(fs::metadata(&audit).unwrap().permissions().mode() & 0o777, 0o700);
    let file = audit.join("security-2026-11-22.log");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = DailyFiles::claim(dir.path()).unwrap();
    assert!(matches!(DailyFiles::claim(dir.path()), Err(DirError::InUse { .. })));
    drop(first);
    DailyFiles::claim(dir.path()).unwrap();
}

#[test]
fn a_torn_last_line_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new([1; 32]);
    let mut files = DailyFiles::claim(dir.path()).unwrap();
    files.write_group(&lines(&mut formatter(&key, ChainEnd::default()), 3), MIDNIGHT).unwrap();
    drop(files);
    let name = log_name(MIDNIGHT);
    let whole = read(dir.path(), &name);
    // A power cut may leave much, and none of it text.
    for torn in [b"[SECURITY] {\"timest".to_vec(), vec![0; 3 << 20]] {
        fs::write(dir.path().join(&name), [whole.as_bytes(), &torn].concat()).unwrap();
        let files = DailyFiles::claim(dir.path()).unwrap();
        let recovered = files.recover(&key, 3).unwrap();
        assert_eq!((recovered.end.seq, recovered.torn), (3, torn.len() as u64));
        assert_eq!(read(dir.path(), &name), whole);
    }
}

/// The third line was on disk: what stands in its place is no torn line.
#[test]
fn nothing_is_cut_off_when_a_line_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new([1; 32]);
    let whole = lines(&mut formatter(&key, ChainEnd::default()), 3);
    let name = log_name(MIDNIGHT);
    let changed = String::from_utf8(whole).unwrap().trim_end().replace("\"seq\":3", "\"seq\":4");
    fs::write(dir.path().join(&name), &changed).unwrap();
    let recovered = DailyFiles::claim(dir.path()).unwrap().recover(&key, 3).unwrap();
    assert_eq!((recovered.end.seq, recovered.torn), (2, 0));
    assert_eq!(read(dir.path(), &name), format!("{changed}\n"), "no later line is glued to it");
}

/// A crash between a line's last byte and its newline: the line is whole and counts.
#[test]
fn a_whole_line_without_its_newline_counts() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new([1; 32]);
    let whole = lines(&mut formatter(&key, ChainEnd::default()), 2);
    let name = log_name(MIDNIGHT);
    fs::write(dir.path().join(&name), &whole[..whole.len() - 1]).unwrap();
    let recovered = DailyFiles::claim(dir.path()).unwrap().recover(&key, 0).unwrap();
    assert_eq!((recovered.end.seq, recovered.torn), (2, 0));
    assert_eq!(read(dir.path(), &name).into_bytes(), whole);
}

#[test]
fn the_chains_end_may_be_in_a_file_that_was_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new([1; 32]);
    let mut formatter = formatter(&key, ChainEnd::default());
    for name in ["security-2026-11-21.log", "security-2026-11-22.log.1", "security-2026-11-22.log-20261122"] {
        fs::write(dir.path().join(name), lines(&mut formatter, 1)).unwrap();
    }
    fs::write(dir.path().join("security-2026-11-22.log"), "").unwrap();
    fs::write(dir.path().join("security-2026-11-20.log.gz"), "\u{1f}").unwrap();
    assert_eq!(DailyFiles::claim(dir.path()).unwrap().recover(&key, 0).unwrap().end.seq, 3);
    for (name, is_trail) in [
        ("security-2026-11-20.log.1.gz", true),
        ("security-2026-11-20.log-20261120", true),
        ("security-2026-11-20.logs", false),
        ("security-2026-11-20.txt", false),
        (".security-2026-11-20.log", false),
    ] {
        assert_eq!(is_trail_name(name), is_trail, "{name}");
    }
}

#[test]
fn the_chain_goes_on_over_days_and_wrong_clocks() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new([1; 32]);
    let mut files = DailyFiles::claim(dir.path()).unwrap();
    assert_eq!(files.recover(&key, 0).unwrap(), Recovered::default());
    let mut formatter = formatter(&key, ChainEnd::default());
    for (now, seq) in [(MIDNIGHT, 1), (MIDNIGHT + 400 * DAY, 2), (MIDNIGHT + DAY, 3)] {
        files.write_group(&lines(&mut formatter, 1), now).unwrap();
        assert_eq!(files.recover(&key, 0).unwrap().end.seq, seq);
    }
    fs::write(dir.path().join("security-9999-12-31.log"), "foreign\n").unwrap();
    fs::write(dir.path().join("security-notes.txt"), "foreign\n").unwrap();
    assert_eq!(files.recover(&key, 0).unwrap().end.seq, 3);
}

#[test]
fn reopening_finds_a_new_file_after_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = DailyFiles::claim(dir.path()).unwrap();
    files.write_group(b"a\n", MIDNIGHT).unwrap();
    let name = log_name(MIDNIGHT);
    fs::rename(dir.path().join(&name), dir.path().join("old")).unwrap();
    files.write_group(b"b\n", MIDNIGHT).unwrap();
    files.reopen();
    files.write_group(b"c\n", MIDNIGHT).unwrap();
    assert_eq!((read(dir.path(), "old"), read(dir.path(), &name)), ("a\nb\n".into(), "c\n".into()));
}

#[test]
fn a_deleted_file_is_created_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = DailyFiles::claim(dir.path()).unwrap();
    files.write_group(b"a\n", MIDNIGHT).unwrap();
    fs::remove_file(dir.path().join(log_name(MIDNIGHT))).unwrap();
    files.write_group(b"b\n", MIDNIGHT).unwrap();
    assert_eq!(read(dir.path(), &log_name(MIDNIGHT)), "b\n");
}

/// A file that fails on demand, half-way through a write, at the sync, or at the cut.
struct Faulty {
    file: File,
    faults: std::sync::Arc<std::sync::Mutex<Vec<&'static str>>>,
}

impl Faulty {
    fn fails(&self, what: &str) -> bool {
        let mut faults = self.faults.lock().unwrap();
        let due = faults.last() == Some(&what);
        if due {
            faults.pop();
        }
        due
    }
}

impl LogFile for Faulty {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.fails("append") {
            self.file.append(&bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.append(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        if self.fails("sync") { Err(io::Error::from_raw_os_error(libc::EIO)) } else { self.file.sync() }
    }
    fn len(&mut self) -> io::Result<u64> {
        LogFile::len(&mut self.file)
    }
    fn cut(&mut self, len: u64) -> io::Result<()> {
        if self.fails("cut") { Err(io::Error::from_raw_os_error(libc::EIO)) } else { self.file.cut(len) }
    }
}

#[test]
fn a_group_is_written_whole_or_not_at_all() {
    // Faults in the order in which they strike, and how many attempts fail.
    let cases: [(&[&'static str], usize); 5] = [
        (&["append"], 1),
        (&["sync"], 1),
        (&["append", "cut"], 1),
        (&["append", "cut", "cut", "append"], 3),
        (&["sync", "cut", "sync"], 2),
    ];
    for (faults, failures) in cases {
        let dir = tempfile::tempdir().unwrap();
        let list = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let opener: Opener = Box::new({
            let faults = list.clone();
            move |path| Ok(Box::new(Faulty { file: open_log(path)?, faults: faults.clone() }))
        });
        let mut files = DailyFiles::claim_with(dir.path(), opener).unwrap();
        files.write_group(b"first\n", MIDNIGHT).unwrap();
        *list.lock().unwrap() = faults.iter().rev().copied().collect();
        for _ in 0..failures {
            // Even at a day's change the remains are cut off the file they are in.
            files.write_group(b"second\n", MIDNIGHT).unwrap_err();
        }
        files.write_group(b"second\n", MIDNIGHT).unwrap();
        files.write_group(b"third\n", MIDNIGHT).unwrap();
        assert_eq!(read(dir.path(), &log_name(MIDNIGHT)), "first\nsecond\nthird\n", "{faults:?}");
    }
}

/// What a file was told it need not keep, and how long it was then.
type LetGo = std::sync::Arc<std::sync::Mutex<Vec<(u64, u64, u64)>>>;

/// A file that notes what it may let go of.
struct Noted(Faulty, LetGo);

impl LogFile for Noted {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }
    fn len(&mut self) -> io::Result<u64> {
        LogFile::len(&mut self.0)
    }
    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.0.cut(len)
    }
    fn let_go(&mut self, from: u64, to: u64) {
        let len = LogFile::len(&mut self.0).unwrap();
        self.1.lock().unwrap().push((from, to, len));
        self.0.file.let_go(from, to);
    }
}

#[test]
fn what_is_on_disk_is_let_go_of_but_for_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let (gone, faults) = (LetGo::default(), std::sync::Arc::new(std::sync::Mutex::new(Vec::new())));
    let opener: Opener = Box::new({
        let (gone, faults) = (gone.clone(), std::sync::Arc::clone(&faults));
        move |path| Ok(Box::new(Noted(Faulty { file: open_log(path)?, faults: faults.clone() }, gone.clone())))
    });
    let mut files = DailyFiles::claim_with(dir.path(), opener).unwrap();
    let group = |at: u8| [&vec![b'a' + at; 700_000][..], b"\n"].concat();
    for at in 0..12 {
        files.write_group(&group(at), MIDNIGHT).unwrap();
    }
    let seen = std::mem::take(&mut *gone.lock().unwrap());
    assert!(seen.len() >= 2, "{seen:?}");
    let mut before = 0;
    for (from, to, len) in seen {
        assert!(to <= len - KEPT_CACHED && from <= before && to - before >= LET_GO_STEP, "{from} {to} {len}");
        before = to;
    }
    // A group that failed moves nothing, and the next file begins anew.
    *faults.lock().unwrap() = vec!["sync"];
    files.write_group(&vec![b'x'; 9 << 20], MIDNIGHT).unwrap_err();
    assert!(gone.lock().unwrap().is_empty());
    files.write_group(b"y\n", MIDNIGHT + DAY).unwrap();
    assert!(gone.lock().unwrap().is_empty());
    let all: Vec<u8> = (0..12).flat_map(group).collect();
    assert!(fs::read(dir.path().join(log_name(MIDNIGHT))).unwrap() == all, "nothing that was let go of is lost");
}
