#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the threads of a test are its own")]

use std::fs;
use std::path::Path;

use super::files::{LogFile, Opener};
use super::*;
use crate::state::events::{Event, EventKind};

fn clock() -> u64 {
    1_795_305_600_000
}

/// Longer than anything takes on a busy machine; only what hangs reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

const NAME: &str = "security-2026-11-22.log";

struct Rig {
    dir: tempfile::TempDir,
    state: tempfile::TempDir,
    queues: Vec<Arc<EventQueue>>,
    lifecycle: Arc<Lifecycle>,
    metrics: Arc<AuditMetrics>,
    bell: Arc<Bell>,
}

impl Rig {
    fn new(queues: usize) -> Self {
        let bell = Arc::new(Bell::default());
        Self {
            dir: tempfile::tempdir().unwrap(),
            state: tempfile::tempdir().unwrap(),
            queues: (0..queues).map(|_| Arc::new(EventQueue::with_capacity(256, Arc::clone(&bell)))).collect(),
            lifecycle: Arc::new(Lifecycle::new(1, Vec::new())),
            metrics: Arc::default(),
            bell,
        }
    }

    fn shared(&self) -> AuditShared {
        AuditShared {
            queues: self.queues.clone(),
            bell: Arc::clone(&self.bell),
            lifecycle: Arc::clone(&self.lifecycle),
            metrics: Arc::clone(&self.metrics),
            mailbox: None,
        }
    }

    fn config(&self) -> AuditConfig {
        AuditConfig {
            dir: Some(self.dir.path().to_path_buf()),
            state_dir: self.state.path().to_path_buf(),
            key: key(),
            pseudonym_key: Key::new([4; 32]),
            clock,
        }
    }

    fn start(&self) -> AuditWriter {
        AuditWriter::start(self.config(), self.shared()).unwrap()
    }

    fn start_on(&self, opener: Opener, linger: Duration) -> AuditWriter {
        let files = DailyFiles::claim_with(self.dir.path(), opener).unwrap();
        AuditWriter::start_on(Some(files), &self.config(), self.shared(), linger).unwrap()
    }

    /// On a disk that is full, of which it knows.
    fn start_full(&self) -> AuditWriter {
        let opener: Opener = Box::new(|_| Ok(Box::new(fs::OpenOptions::new().append(true).open("/dev/full")?)));
        let writer = self.start_on(opener, LINGER);
        self.queues[0].push(event(1)).unwrap();
        until("the fault", || !self.lifecycle.audit_healthy());
        writer
    }

    fn is_noted(&self, seq: u64) -> bool {
        let noted = checkpoint::read(self.state.path(), &key()).unwrap();
        matches!(noted, checkpoint::Noted::At(checkpoint) if checkpoint.end.seq == seq)
    }

    /// What `ringwall audit verify` says, with the checkpoint.
    fn verified(&self) -> Result<verify::Whole, String> {
        let checkpoint = match checkpoint::read(self.state.path(), &key()).unwrap() {
            checkpoint::Noted::At(checkpoint) => Some(checkpoint),
            other => panic!("{other:?}"),
        };
        let expected = verify::Expected { key: &key(), checkpoint, beginning: verify::From::First, anchor: None };
        verify::verify(self.dir.path(), &expected).map_err(|error| error.to_string())
    }

    fn text(&self) -> String {
        fs::read_to_string(self.dir.path().join(NAME)).unwrap_or_default()
    }
}

fn key() -> Key {
    Key::new([3; 32])
}

fn event(n: u64) -> Event {
    Event::new(EventKind::Alert, n)
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A disk that is full while `full` says so: half of what is written fits.
struct Filling {
    file: fs::File,
    full: Arc<AtomicBool>,
}

impl LogFile for Filling {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            self.file.append(&bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.append(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
    fn len(&mut self) -> io::Result<u64> {
        LogFile::len(&mut self.file)
    }
    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.file.cut(len)
    }
}

fn filling(full: &Arc<AtomicBool>) -> Opener {
    let full = Arc::clone(full);
    Box::new(move |path: &Path| {
        let file = fs::OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Box::new(Filling { file, full: Arc::clone(&full) }))
    })
}

/// A file that is the writer's undoing: told to break, it says so, waits for leave, and panics.
struct Breaking {
    file: fs::File,
    stage: Arc<AtomicU64>,
}

const SOUND: u64 = 0;
const TO_BREAK: u64 = 1;
const BREAKING: u64 = 2;
const MAY_BREAK: u64 = 3;

impl LogFile for Breaking {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.stage.load(Ordering::SeqCst) == SOUND {
            return self.file.append(bytes);
        }
        self.stage.store(BREAKING, Ordering::SeqCst);
        until("leave to break", || self.stage.load(Ordering::SeqCst) == MAY_BREAK);
        panic!("a fault of the writer's own");
    }
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
    fn len(&mut self) -> io::Result<u64> {
        LogFile::len(&mut self.file)
    }
    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.file.cut(len)
    }
}

fn breaking(stage: &Arc<AtomicU64>) -> Opener {
    let stage = Arc::clone(stage);
    Box::new(move |path: &Path| {
        let file = fs::OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Box::new(Breaking { file, stage: Arc::clone(&stage) }))
    })
}

/// How many events a trail from its beginning holds, each line checked against the chain. The trail's lines about itself are none.
fn chained(text: &str) -> u64 {
    let mut end = line::ChainEnd::default();
    for line in text.lines() {
        let link = line::Link::of(line.as_bytes()).unwrap();
        assert_eq!((link.seq, link.prev), (end.seq + 1, &end.mac), "{line}");
        end = line::chain_end_of(&key(), line.as_bytes()).unwrap();
    }
    events(text)
}

fn events(text: &str) -> u64 {
    text.lines().filter(|line| !line.contains("\"event\":\"checkpoint\"")).count() as u64
}

#[test]
fn an_event_is_on_disk_within_100_ms() {
    let rig = Rig::new(1);
    let writer = rig.start();
    // Once from deep sleep, once in the middle of business; the best of a few, as the machine may be busy.
    let (mut best, begun) = (Duration::MAX, Instant::now());
    for n in 1.. {
        thread::sleep(Duration::from_millis(if n % 2 == 0 { 30 } else { 1 }));
        let start = Instant::now();
        rig.queues[0].push(event(n)).unwrap();
        until("a line", || events(&rig.text()) == n);
        best = best.min(start.elapsed());
        if n >= 20 && best < Duration::from_millis(100) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "at best {best:?}");
    }
    writer.stop().unwrap();
}

#[test]
fn events_gather_between_groups() {
    let rig = Rig::new(1);
    let writer = rig.start();
    let start = Instant::now();
    for n in 0..100 {
        rig.queues[0].push(event(n)).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    until("all lines", || rig.metrics.written.get() == 100);
    // From the beginning of one group to that of the next passes at least the time to gather, however slow the machine is.
    let most = start.elapsed().as_millis() / LINGER.as_millis() + 1;
    assert!(u128::from(rig.metrics.groups.get()) <= most, "{} groups of {most}", rig.metrics.groups.get());
    writer.stop().unwrap();
}

/// A writer that lets events gather for an hour, after a first one.
fn patient(rig: &Rig) -> AuditWriter {
    patient_on(rig, Box::new(|path| Ok(Box::new(fs::OpenOptions::new().append(true).create(true).open(path)?))))
}

fn patient_on(rig: &Rig, opener: Opener) -> AuditWriter {
    let writer = rig.start_on(opener, Duration::from_secs(3600));
    rig.queues[0].push(pressing(0)).unwrap();
    until("the first line", || rig.metrics.written.get() == 1);
    writer
}

fn pressing(n: u64) -> Event {
    Event::new(EventKind::SpendRecorded, n)
}

#[test]
fn what_is_pressing_takes_the_others_along_at_once() {
    let rig = Rig::new(2);
    let writer = patient(&rig);
    for round in 1..=20 {
        rig.queues[0].push(event(1)).unwrap();
        rig.queues[1].push(pressing(2)).unwrap();
        until("both lines", || rig.metrics.written.get() == 1 + 2 * round);
    }
    rig.queues[0].push(event(3)).unwrap();
    writer.stop().unwrap();
    assert_eq!(chained(&rig.text()), 42, "stopping waits for no group");
}

#[test]
fn a_queue_that_is_half_full_is_emptied_at_once() {
    let rig = Rig::new(2);
    let writer = patient(&rig);
    rig.queues[0].push(event(0)).unwrap();
    (1..128).for_each(|n| rig.queues[1].push(event(n)).unwrap());
    thread::sleep(Duration::from_millis(20));
    assert_eq!(rig.metrics.written.get(), 1, "nothing is urgent yet");
    rig.queues[1].push(event(128)).unwrap();
    until("all lines", || rig.metrics.written.get() == 130);
    writer.stop().unwrap();
}

#[test]
fn a_file_is_reopened_at_once() {
    let rig = Rig::new(1);
    let writer = patient(&rig);
    let rotated = rig.dir.path().join(format!("{NAME}.1"));
    fs::rename(rig.dir.path().join(NAME), &rotated).unwrap();
    rig.queues[0].push(event(2)).unwrap();
    writer.signals().reopen();
    until("the line before it", || rig.metrics.written.get() == 2);
    // Before anything has happened: it says what it continues.
    until("the new file", || rig.is_noted(4));
    assert!(rig.text().contains("\"rule\":\"file\""));
    assert_eq!(rig.verified().unwrap().lines, 4);
    rig.queues[0].push(event(3)).unwrap();
    writer.stop().unwrap();
    assert_eq!(events(&rig.text()), 1);
    assert_eq!(chained(&(fs::read_to_string(rotated).unwrap() + &rig.text())), 3);
    assert_eq!(rig.verified().unwrap().lines, 6);
}

#[test]
fn a_day_has_its_file() {
    static NOW: AtomicU64 = AtomicU64::new(0);
    let rig = Rig::new(1);
    let config = AuditConfig { clock: || NOW.load(Ordering::SeqCst), ..rig.config() };
    let writer = AuditWriter::start(config, rig.shared()).unwrap();
    for day in 0..3_u64 {
        NOW.store(clock() + day * 86_400_000, Ordering::SeqCst);
        rig.queues[0].push(event(day)).unwrap();
        until("the line", || rig.metrics.written.get() == day + 1);
    }
    writer.stop().unwrap();
    let text = |day| fs::read_to_string(rig.dir.path().join(format!("security-2026-11-{day}.log"))).unwrap();
    for (day, begins, ends) in [(22, "start", "alert"), (23, "file", "alert"), (24, "file", "checkpoint")] {
        let text = text(day);
        assert_eq!(events(&text), 1, "{day}");
        assert!(text.lines().next().unwrap().contains(&format!("\"rule\":\"{begins}\"")), "{text}");
        assert!(text.lines().last().unwrap().contains(&format!("\"event\":\"{ends}\"")), "{text}");
    }
    assert_eq!(chained(&[22, 23, 24].map(text).concat()), 3);
    assert_eq!(rig.verified().unwrap().files, 3);
}

#[test]
fn an_end_that_was_cut_off_shows_and_goes_on_showing() {
    for restarts in [0, 1, 3] {
        let rig = Rig::new(1);
        let path = rig.dir.path().join(NAME);
        let writer = rig.start();
        (0..10).for_each(|n| rig.queues[0].push(event(n)).unwrap());
        writer.stop().unwrap();
        assert_eq!(rig.verified().unwrap().lines, 12);
        let text = rig.text();
        let kept: String = text.lines().take(9).map(|line| format!("{line}\n")).collect();
        fs::write(&path, &kept).unwrap();
        for _ in 0..restarts {
            let writer = rig.start();
            rig.queues[0].push(event(1)).unwrap();
            writer.stop().unwrap();
        }
        let fault = rig.verified().unwrap_err();
        assert!(fault.contains("lines 10 to 12"), "{restarts}: {fault}");
        if restarts > 0 {
            let alarms = rig.text().matches("lines 10 to 12 are missing at its end").count();
            assert_eq!(alarms, 1, "said once: {}", rig.text());
        }
    }
}

#[test]
fn a_trail_that_is_gone_altogether_shows() {
    let rig = Rig::new(1);
    for _ in 0..2 {
        let writer = rig.start();
        rig.queues[0].push(event(1)).unwrap();
        writer.stop().unwrap();
        fs::remove_file(rig.dir.path().join(NAME)).unwrap();
        rig.verified().unwrap_err();
    }
}

/// Killed between the group's sync and its note: the checkpoint is behind, and nothing is missing.
#[test]
fn a_checkpoint_that_stayed_behind_is_no_fault() {
    let rig = Rig::new(1);
    let writer = rig.start();
    rig.queues[0].push(event(1)).unwrap();
    until("its checkpoint", || rig.is_noted(2));
    let early = fs::read(rig.state.path().join(checkpoint::FILE)).unwrap();
    writer.stop().unwrap();
    fs::write(rig.state.path().join(checkpoint::FILE), early).unwrap();
    assert_eq!(rig.verified().unwrap().lines, 3);
    let writer = rig.start();
    rig.queues[0].push(event(2)).unwrap();
    writer.stop().unwrap();
    assert_eq!((rig.verified().unwrap().lines, chained(&rig.text())), (6, 2));
}

#[test]
fn a_writer_that_fails_is_noticed_and_nobody_waits_for_it() {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let rig = Rig::new(1);
    let stage = Arc::new(AtomicU64::new(SOUND));
    let writer = patient_on(&rig, breaking(&stage));
    stage.store(TO_BREAK, Ordering::SeqCst);
    rig.queues[0].push(pressing(1)).unwrap();
    until("the write", || stage.load(Ordering::SeqCst) == BREAKING);
    // The writer has woken all who waited, and will never do so again.
    let kept: Vec<_> = (0..250).map(|_| rig.queues[0].reserve().unwrap()).collect();
    let waits = Arc::new(Count(AtomicUsize::new(0)));
    assert!(rig.queues[0].poll_spare(&Waker::from(Arc::clone(&waits))).is_pending());
    assert!(rig.lifecycle.audit_healthy());
    stage.store(MAY_BREAK, Ordering::SeqCst);
    until("the waker", || waits.0.load(Ordering::SeqCst) > 0);
    assert!(!rig.lifecycle.audit_healthy(), "who is woken sees that nothing can be recorded");
    assert_eq!(writer.stop(), Err(Unwritten(0)));
    drop(kept);
}

#[test]
fn stopping_writes_everything_and_the_chain_survives() {
    let rig = Rig::new(3);
    for round in 0..3_u64 {
        let writer = rig.start();
        let producers = rig.queues.iter().cloned().map(|queue| {
            thread::spawn(move || {
                for n in 0..1_000 {
                    while queue.push(event(n)).is_err() {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            })
        });
        let producers: Vec<_> = producers.collect();
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        writer.stop().unwrap();
        assert_eq!(chained(&rig.text()), (round + 1) * 3_000);
    }
    assert_eq!(rig.metrics.written.get(), 9_000);
    assert!(rig.metrics.groups.get() < 4_500, "events are written in groups");
}

#[test]
fn a_full_disk_loses_nothing_and_says_so() {
    let rig = Rig::new(1);
    let full = Arc::new(AtomicBool::new(false));
    let writer = rig.start_on(filling(&full), LINGER);
    rig.queues[0].push(event(1)).unwrap();
    until("the first line", || events(&rig.text()) == 1);
    assert!(rig.lifecycle.audit_healthy());

    full.store(true, Ordering::SeqCst);
    rig.queues[0].push(event(2)).unwrap();
    until("the fault", || !rig.lifecycle.audit_healthy());
    let mut pushed = 2;
    for n in 3..100 {
        rig.queues[0].push(event(n)).unwrap();
        pushed = n;
    }
    until("some retries", || rig.metrics.errors.get() > 2);
    // One may be half-written at the moment.
    until("half-written groups to be cut off again", || events(&rig.text()) == 1);

    full.store(false, Ordering::SeqCst);
    until("recovery", || rig.lifecycle.audit_healthy());
    writer.stop().unwrap();
    assert_eq!(chained(&rig.text()), pushed);
    assert_eq!(rig.queues[0].refused(), 0);
    rig.verified().unwrap();
}

#[test]
fn stopping_with_a_full_disk_says_what_was_lost() {
    let rig = Rig::new(1);
    let writer = rig.start_full();
    assert!(writer.stop().unwrap_err().0 > 100);
}

#[test]
fn a_disk_that_stays_full_bounds_memory_and_then_refuses_producers() {
    let rig = Rig::new(1);
    let opener: Opener = Box::new(|_| Ok(Box::new(fs::OpenOptions::new().append(true).open("/dev/full")?)));
    let files = DailyFiles::claim_with(rig.dir.path(), opener).unwrap();
    let mut writer = Writer::new(Some(files), &rig.config(), rig.shared(), LINGER).unwrap();
    let details = "x".repeat(128);
    let mut pushed = 0;
    while rig.queues[0].push(event(pushed).with_details(format_args!("{details}"))).is_ok() {
        pushed += 1;
        writer.drain();
        assert!(!writer.flush());
        assert!(writer.pending.len() <= MAX_PENDING);
        assert!(pushed < 1_000_000);
    }
    assert!(writer.pending.len() > MAX_PENDING - 2 * line::MAX_LINE);
    assert_eq!(rig.queues[0].refused(), 1);
    assert_eq!(pushed, writer.lines + 256, "every event is in memory or in its queue");
}

fn waited(what: impl Future<Output = bool>) -> bool {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(what)
}

#[test]
fn who_waits_for_the_disk_goes_on_when_all_that_was_queued_is_there() {
    let rig = Rig::new(2);
    // Events that nobody waits for gather for so long that the test would notice.
    let writer = rig.start_on(Box::new(|path| Ok(Box::new(super::files::open_log(path)?))), PATIENCE * 2);
    let mut lines = 0;
    for n in 0..50 {
        let queue = &rig.queues[usize::try_from(n % 2).unwrap()];
        (0..=n % 3).for_each(|_| queue.push(event(n)).unwrap());
        lines += n % 3 + 1;
        assert!(waited(writer.signals().on_disk()));
        assert_eq!(rig.metrics.written.get(), lines);
        assert_eq!(events(&rig.text()), lines);
    }
    writer.stop().unwrap();
    let full = rig.start_full();
    assert!(!waited(full.signals().on_disk()), "the disk refuses");
    full.stop().unwrap_err();
}

#[test]
fn a_hanging_write_is_noticed_and_forgiven() {
    let rig = Rig::new(0);
    let signals = AuditSignals {
        control: Arc::default(),
        lifecycle: Arc::clone(&rig.lifecycle),
        thread: thread::current(),
        epoch: Instant::now().checked_sub(Duration::from_secs(60)).unwrap(),
        checkpoint: None,
        reached: watch::Sender::new(0).subscribe(),
    };
    signals.check_pulse();
    until("a look in time at a write of one second", || {
        let now_ms = u64::try_from(signals.epoch.elapsed().as_millis()).unwrap();
        signals.control.writing_since_ms.store(now_ms - 1_000, Ordering::SeqCst);
        signals.check_pulse();
        let is_noticed = !rig.lifecycle.audit_healthy();
        let looked_ms = u64::try_from(signals.epoch.elapsed().as_millis()).unwrap();
        // This thread may have lost its core in between.
        if is_noticed && looked_ms - now_ms > 500 {
            rig.lifecycle.set_audit_healthy(true);
            return false;
        }
        assert!(!is_noticed, "one second is not long");
        true
    });
    signals.control.writing_since_ms.store(50_000, Ordering::SeqCst);
    signals.check_pulse();
    assert!(!rig.lifecycle.audit_healthy());
}

#[test]
fn switched_off_it_takes_events_and_writes_nothing() {
    let rig = Rig::new(1);
    let config = AuditConfig { dir: None, ..rig.config() };
    let writer = AuditWriter::start(config, rig.shared()).unwrap();
    (0..200).for_each(|n| rig.queues[0].push(event(n)).unwrap());
    until("the queue is taken", || rig.queues[0].is_empty());
    writer.stop().unwrap();
    assert_eq!(rig.metrics.written.get(), 0);
}
