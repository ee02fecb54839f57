#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;

use proptest::prelude::*;

use super::super::line::Formatter;
use super::super::pseudonym::Pseudonyms;
use super::*;
use crate::state::events::{Event, EventKind, Outcome};

fn key() -> Key {
    Key::new([3; 32])
}

/// A trail: its files, each with its lines, newlines included.
#[derive(Clone, Debug)]
struct Trail {
    files: Vec<(String, Vec<Vec<u8>>)>,
    end: ChainEnd,
}

impl Trail {
    /// Files with so many lines each.
    fn of(counts: &[usize]) -> Self {
        Self::under(&key(), counts)
    }

    fn under(key: &Key, counts: &[usize]) -> Self {
        let mut formatter = Formatter::new(key, ChainEnd::default(), Pseudonyms::new(&Key::new([4; 32])));
        let mut n = 0;
        let mut line = |at: usize| {
            n += 1;
            let mut out = Vec::new();
            // As the writer begins a file.
            let kind = if at == 0 { EventKind::Checkpoint } else { EventKind::ToolCall };
            let event = Event::new(kind, 1_795_305_600_000 + n).with_ip([192, 0, 2, 7].into());
            let event = event.with_tool(b"t").with_request_id(n.to_string().as_bytes()).with_call(Outcome::Ok, 200, n);
            formatter.append(&mut out, &event);
            out
        };
        let mut file = |(at, count): (usize, &usize)| {
            // Rotated, then daily: names do not sort as the chain goes.
            let name = if at % 2 == 0 {
                format!("security-2026-11-{}.log", 10 + at)
            } else {
                format!("security-2026-11-{}.log.1", 9 + at)
            };
            (name, (0..*count).map(&mut line).collect())
        };
        let files = counts.iter().enumerate().map(&mut file).collect();
        Self { files, end: formatter.end().clone() }
    }

    /// The place of the nth line of all, from 0: its file, and the line in it.
    fn place(&self, mut n: usize) -> (usize, usize) {
        for (at, (_, lines)) in self.files.iter().enumerate() {
            if n < lines.len() {
                return (at, n);
            }
            n -= lines.len();
        }
        panic!("there are not so many lines")
    }

    fn len(&self) -> usize {
        self.files.iter().map(|(_, lines)| lines.len()).sum()
    }

    fn write(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, lines) in &self.files {
            fs::write(dir.path().join(name), lines.concat()).unwrap();
        }
        dir
    }

    fn verified(&self, end: Option<&ChainEnd>) -> Result<Whole, Fault> {
        verified(self.write().path(), end)
    }
}

fn verified(dir: &Path, end: Option<&ChainEnd>) -> Result<Whole, Fault> {
    let checkpoint = end.map(|end| Checkpoint { end: end.clone(), file: "x".into(), at_ms: 0 });
    verified_as(dir, &Expected { key: &key(), checkpoint, beginning: From::First, anchor: None })
}

fn verified_as(dir: &Path, expected: &Expected<'_>) -> Result<Whole, Fault> {
    match verify(dir, expected) {
        Ok(whole) => Ok(whole),
        Err(VerifyError::Fault(fault)) => Err(fault),
        Err(error) => panic!("{error}"),
    }
}

/// What was found, and where: the file's name and the line in it.
fn found(result: Result<Whole, Fault>) -> (&'static str, String, u64) {
    let fault = result.unwrap_err();
    (fault.kind.name(), fault.file.file_name().unwrap().to_str().unwrap().to_owned(), fault.line)
}

#[test]
fn a_whole_trail_over_rotated_and_compressed_files() {
    let trail = Trail::of(&[3, 4, 0, 5]);
    let whole = trail.verified(Some(&trail.end)).unwrap();
    assert_eq!((whole.first, whole.lines, whole.files, whole.torn, whole.end), (1, 12, 4, None, trail.end.clone()));
    let dir = trail.write();
    let (name, lines) = &trail.files[1];
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(&lines.concat()).unwrap();
    let gz = gz.finish().unwrap();
    let compressed = dir.path().join(format!("{name}.gz"));
    fs::write(&compressed, &gz[..20]).unwrap();
    assert_eq!(
        verified(dir.path(), Some(&trail.end)).unwrap().lines,
        12,
        "it is being written; the plain one is still there"
    );
    fs::remove_file(dir.path().join(name)).unwrap();
    fs::write(&compressed, &gz).unwrap();
    assert_eq!(verified(dir.path(), Some(&trail.end)).unwrap().lines, 12);
    for at in 0..gz.len() {
        // The time in the header means nothing to anybody.
        if (4..10).contains(&at) {
            continue;
        }
        let mut changed = gz.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(&compressed, &changed).unwrap();
        // The last bits of a stream may mean nothing.
        let mut text = Vec::new();
        let is_same =
            flate2::read::MultiGzDecoder::new(&changed[..]).read_to_end(&mut text).is_ok() && text == lines.concat();
        assert_eq!(verified(dir.path(), Some(&trail.end)).is_ok(), is_same, "byte {at}");
    }
}

#[test]
fn files_that_a_wrong_clock_has_mixed_are_one_trail() {
    let trail = Trail::of(&[3, 2, 1, 2, 1]);
    let of = |files: &[usize]| files.iter().flat_map(|at| trail.files[*at].1.clone()).collect::<Vec<_>>();
    let named = |names: [&str; 3], contents: [&[usize]; 3]| Trail {
        files: names.iter().zip(contents).map(|(name, files)| ((*name).to_owned(), of(files))).collect(),
        end: trail.end.clone(),
    };
    let names = ["security-2026-11-21.log", "security-2027-11-22.log", "security-2026-11-20.log"];
    assert_eq!(named(names, [&[0, 2, 4], &[1], &[3]]).verified(Some(&trail.end)).unwrap().lines, 9);
    // A line that is moved to another file is not mixed by a clock.
    let mut moved = named(names, [&[0, 2, 4], &[1], &[3]]);
    let line = moved.files[1].1.pop().unwrap();
    moved.files[0].1.insert(3, line);
    assert_eq!(found(moved.verified(Some(&trail.end))), ("swapped", names[0].to_owned(), 4));
}

#[test]
fn an_empty_directory_is_a_trail_until_something_was_written() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(verified(dir.path(), None).unwrap().lines, 0);
    let end = ChainEnd { seq: 1, ..ChainEnd::default() };
    let fault = verified(dir.path(), Some(&end)).unwrap_err();
    assert_eq!((fault.kind, fault.line), (Kind::Truncated, 0));
}

#[test]
fn every_single_bit_change_is_found() {
    let trail = Trail::of(&[1, 2]);
    let dir = trail.write();
    for (name, lines) in &trail.files {
        let file = fs::OpenOptions::new().write(true).open(dir.path().join(name)).unwrap();
        let whole = lines.concat();
        for at in 0..whole.len() {
            for bit in 0..8 {
                file.write_all_at(&[whole[at] ^ 1 << bit], at as u64).unwrap();
                let fault = verified(dir.path(), Some(&trail.end)).expect_err(&format!("{name}, byte {at}, bit {bit}"));
                // A line's end belongs to the line before and to the one behind it.
                let line = whole[..at].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
                assert_eq!(
                    (fault.file.file_name().unwrap(), fault.line),
                    (name.as_ref(), line),
                    "{fault}, byte {at}, bit {bit}"
                );
            }
            file.write_all_at(&[whole[at]], at as u64).unwrap();
        }
    }
    assert!(verified(dir.path(), Some(&trail.end)).is_ok());
}

#[test]
fn every_truncation_is_found() {
    let trail = Trail::of(&[2, 1, 1]);
    let dir = trail.write();
    for (name, lines) in &trail.files {
        let path = dir.path().join(name);
        let whole = lines.concat();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let fault = verified(dir.path(), Some(&trail.end)).expect_err(name);
            assert!(matches!(fault.kind, Kind::Truncated | Kind::Removed), "{fault}");
        }
        fs::remove_file(&path).unwrap();
        verified(dir.path(), Some(&trail.end)).expect_err(name);
        fs::write(&path, &whole).unwrap();
    }
    assert_eq!(verified(dir.path(), None).unwrap().lines, 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_done_to_a_trail_is_found_and_named(
        counts in proptest::collection::vec(1_usize..6, 1..5),
        deeds in proptest::collection::vec((0_usize..5, any::<proptest::sample::Index>(), any::<proptest::sample::Index>(), any::<u64>()), 8),
    ) {
        let whole = Trail::of(&counts);
        prop_assert!(whole.verified(Some(&whole.end)).is_ok());
        for (deed, one, other, random) in deeds {
            let mut trail = whole.clone();
            let (n, m) = (one.index(whole.len()), other.index(whole.len()));
            let ((file, line), (file_m, line_m)) = (trail.place(n), trail.place(m));
            let is_last_of_file = line + 1 == trail.files[file].1.len();
            let is_last = n + 1 == whole.len();
            let place = |file: usize, line: usize| (whole.files[file].0.clone(), line as u64 + 1);
            // What it is called, and where it may show.
            let (expected, places) = match deed {
                0 => {
                    let byte = usize::try_from(random & 0xffff_ffff).unwrap() % trail.files[file].1[line].len();
                    trail.files[file].1[line][byte] ^= 1 << (random >> 60 & 7);
                    // Where the newline was, the lines are one, or the last is not whole.
                    let is_newline = byte + 1 == whole.files[file].1[line].len();
                    (if is_newline && is_last_of_file { "truncated" } else { "changed" }, vec![place(file, line)])
                }
                1 => {
                    trail.files[file].1.remove(line);
                    let before = n.checked_sub(1).map(|n| whole.place(n)).map(|(file, line)| place(file, line));
                    match before {
                        Some(before) if is_last || is_last_of_file || line == 0 => ("truncated", vec![before]),
                        None if is_last => ("truncated", vec![]),
                        None if is_last_of_file => ("removed", vec![place(file + 1, 0)]),
                        _ => ("removed", vec![place(file, line)]),
                    }
                }
                2 if n != m && whole.files[file].1.len() + whole.files[file_m].1.len() > 2 => {
                    let line = std::mem::take(&mut trail.files[file].1[line]);
                    let line = std::mem::replace(&mut trail.files[file_m].1[line_m], line);
                    let (file, at) = whole.place(n);
                    trail.files[file].1[at] = line;
                    ("swapped", vec![place(file, at), place(file_m, line_m)])
                }
                3 if n > m => {
                    // A line that was there before, once more.
                    let old = trail.files[file_m].1[line_m].clone();
                    trail.files[file].1.insert(line, old);
                    ("inserted", vec![place(file, line), place(file_m, line_m)])
                }
                4 => {
                    let forged = Trail::under(&Key::new([9; 32]), &[n + 1]).files[0].1[n].clone();
                    trail.files[file].1.insert(line + 1, forged);
                    ("inserted", vec![place(file, line + 1)])
                }
                _ => continue,
            };
            let (kind, name, at) = found(trail.verified(Some(&whole.end)));
            prop_assert_eq!(kind, expected, "deed {}, line {} of {:?}", deed, n, counts);
            // Of a swap it may show in any line of the two files.
            let is_there = |(file, line): &(String, u64)| *file == name && (*line == at || deed == 2);
            let is_there = places.is_empty() || places.iter().any(is_there);
            prop_assert!(is_there, "deed {deed}, line {n} of {counts:?}: {name}, {at} and not {places:?}");
        }
    }
}

#[test]
fn another_key_is_named_as_such() {
    let trail = Trail::under(&Key::new([9; 32]), &[2, 3]);
    assert_eq!(found(trail.verified(None)), ("foreign-key", trail.files[0].0.clone(), 1));
}

#[test]
fn a_trail_that_was_written_on_from_an_older_copy_is_forked() {
    // Two trails that part behind their second line: at their third the one opens a file, and the other does not.
    let (old, new) = (Trail::of(&[3, 2]), Trail::of(&[2, 3]));
    assert_eq!(old.files[0].1[..2], new.files[0].1[..]);
    assert_eq!(found(new.verified(Some(&old.end))), ("forked", new.files[1].0.clone(), 3));
    let mut both = new.clone();
    both.files[1].1.splice(1.., [old.files[1].1[0].clone()]);
    assert_eq!(found(both.verified(None)), ("forked", new.files[1].0.clone(), 2));
}

#[test]
fn what_is_being_written_is_no_fault() {
    let trail = Trail::of(&[2, 3]);
    let known = trail.verified(None).unwrap().end;
    let (name, lines) = &trail.files[1];
    let more = &Trail::of(&[2, 3, 2]).files[2].1;
    for len in 0..=more.concat().len() {
        let dir = trail.write();
        fs::write(dir.path().join(name), [lines.concat(), more.concat()[..len].to_vec()].concat()).unwrap();
        let whole = verified(dir.path(), Some(&known)).unwrap();
        let written = more.concat()[..len].iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(whole.lines, 5 + written);
        assert_eq!(whole.torn.is_some(), len > 0 && more.concat()[len - 1] != b'\n');
    }
}

#[test]
fn older_files_may_be_given_away_by_one_who_says_so() {
    let trail = Trail::of(&[3, 4, 5]);
    let dir = trail.write();
    fs::remove_file(dir.path().join(&trail.files[0].0)).unwrap();
    let with = |beginning| {
        let checkpoint = Some(Checkpoint { end: trail.end.clone(), file: "x".into(), at_ms: 0 });
        verified_as(dir.path(), &Expected { key: &key(), checkpoint, beginning, anchor: None })
    };
    let fault = with(From::First).unwrap_err();
    assert_eq!((fault.kind, fault.seq, fault.line), (Kind::Removed, 1, 1));
    for beginning in [From::Line(4), From::Line(9), From::Oldest] {
        let whole = with(beginning).unwrap();
        assert_eq!((whole.first, whole.lines), (4, 9));
    }
    assert_eq!(with(From::Line(3)).unwrap_err().kind, Kind::Removed);
}

#[test]
fn an_anchor_must_be_there() {
    let trail = Trail::of(&[3]);
    let dir = trail.write();
    let with = |anchor| {
        verified_as(
            dir.path(),
            &Expected { key: &key(), checkpoint: None, beginning: From::First, anchor: Some(anchor) },
        )
    };
    assert!(with(trail.end.clone()).is_ok());
    assert_eq!(with(ChainEnd { mac: [b'0'; 64], ..trail.end.clone() }).unwrap_err().kind, Kind::Forked);
    assert_eq!(with(ChainEnd { seq: 4, ..trail.end.clone() }).unwrap_err().kind, Kind::Truncated);
}
