//! The audit writer: one thread that turns events into lines on disk.
//!
//! Promises
//! - An event that was queued is on disk (written and fdatasynced) within 100 ms on a disk that takes at most 50 ms for a group, usually
//!   within 30: events gather for [`LINGER`] and are synced as one group. What is pressing, and a queue that is half full, does not
//!   wait. With nothing to write the thread sleeps and costs nothing.
//! - Nothing is lost, doubled or reordered. While the disk refuses, lines wait in memory up to [`MAX_PENDING`], then in their
//!   queues, and when those are full, producers are refused. A group is written whole or cut off again (`files`).
//! - While it cannot write, or a write hangs for [`STUCK_AFTER`], `Lifecycle::audit_healthy` is false, which is what makes
//!   production refuse tool calls; the log says so once a minute. So it is when the thread has ended, however it ended, and nobody
//!   goes on waiting for room that it would make.
//! - Who must not say that something was done before its line is on disk waits for that ([`AuditSignals::on_disk`]).
//! - Lines are numbered and chained over files and restarts (`line`), and a checkpoint in another directory says how far they go
//!   (`checkpoint`). At a start, a stop, and wherever a file is opened, a line of the trail says so.
//!
//! It does not rotate, compress or delete: SIGHUP reopens the file for those who do.

pub mod checkpoint;
pub mod files;
pub mod line;
pub mod page;
mod place;
pub mod pseudonym;
pub mod search;
pub mod trail;
pub mod verify;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use self::checkpoint::CheckpointSync;
use self::files::{DailyFiles, DirError};
use self::line::Formatter;
use self::place::{Beginning, Place};
use self::pseudonym::Pseudonyms;
use super::anomaly::facts::{Mailbox, Tee};
use super::keys::Key;
use crate::observe::metrics::AuditMetrics;
use crate::state::events::{Bell, Event, EventKind, EventQueue};
use crate::state::lifecycle::Lifecycle;

/// How long the writer lets events gather, counted from the time that it last emptied the queues. A sync costs 0.2 ms of CPU
/// however little it syncs, so a short time is paid by every call. An event waits for the group that is being written (W), or as long as this,
/// and then for its own: at most max(W, 25 ms) + W, within 100 ms while W is at most 50.
pub const LINGER: Duration = Duration::from_millis(25);
/// Formatted lines that may wait in memory while the disk refuses, bytes.
pub const MAX_PENDING: usize = 8 << 20;
/// Largest group written and synced at once, bytes.
const MAX_GROUP: usize = 4 << 20;
/// What the writer keeps of its buffer while it has nothing to write.
const IDLE_PENDING: usize = 64 << 10;
/// Pause between attempts while the disk refuses.
const RETRY: Duration = Duration::from_millis(100);
/// How long the writer sleeps at most; it is woken for events.
const SLEEP: Duration = Duration::from_secs(1);
/// A write that takes this long counts as stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(2);
/// How long is waited for a line to be on disk.
const ON_DISK_WITHIN: Duration = Duration::from_secs(2);
/// How often a lasting failure is logged.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Where the lines go.
pub struct AuditConfig {
    /// `AUDIT_DIR`; `None` when `SECURITY_AUDIT_LOG=false`: events are taken and forgotten.
    pub dir: Option<PathBuf>,
    /// `DATA_DIR`, where the checkpoint lies: who can write the trail need not be able to write here.
    pub state_dir: PathBuf,
    /// The chain's key, of [`line::KEY_FILE`]; see [`super::keys`].
    pub key: Key,
    /// The key of [`pseudonym::KEY_FILE`].
    pub pseudonym_key: Key,
    /// Milliseconds since the Unix epoch.
    pub clock: fn() -> u64,
}

/// What the writer shares with the rest of the process.
pub struct AuditShared {
    /// All queues to drain: one a worker and one for the other threads.
    pub queues: Vec<Arc<EventQueue>>,
    /// The bell that all queues ring.
    pub bell: Arc<Bell>,
    /// Where the writer's health is published.
    pub lifecycle: Arc<Lifecycle>,
    /// What it counts.
    pub metrics: Arc<AuditMetrics>,
    /// Where the anomaly detector finds what the writer has seen; `None`: nobody looks.
    pub mailbox: Option<Arc<Mailbox>>,
}

/// Why the writer did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory cannot be used.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The system gives no thread.
    #[error("cannot start the audit writer: {0}")]
    Thread(io::Error),
}

/// Lines that could not be written before the writer had to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes of audit lines could not be written")]
pub struct Unwritten(pub usize);

/// Orders to the writer, and its pulse.
#[derive(Debug, Default)]
struct Control {
    stop: AtomicBool,
    reopen: AtomicBool,
    /// How often it was asked that all that is queued be put on disk.
    wanted: AtomicU64,
    /// When the running write began, milliseconds since `epoch` plus one; 0 when none runs.
    writing_since_ms: AtomicU64,
}

/// A reference to the running writer.
#[derive(Clone, Debug)]
pub struct AuditSignals {
    control: Arc<Control>,
    lifecycle: Arc<Lifecycle>,
    thread: Thread,
    epoch: Instant,
    checkpoint: Option<Arc<CheckpointSync>>,
    /// Up to which of the times that [`Control::wanted`] counts that has happened.
    reached: watch::Receiver<u64>,
}

impl AuditSignals {
    /// Waits until what was queued before is on disk, at most [`ON_DISK_WITHIN`]. Whether it is; it may not be while the disk refuses. Safe to drop.
    pub async fn on_disk(&self) -> bool {
        if !self.lifecycle.audit_healthy() {
            return false;
        }
        let mut reached = self.reached.clone();
        let wanted = self.control.wanted.fetch_add(1, Ordering::AcqRel) + 1;
        self.thread.unpark();
        let is_reached = reached.wait_for(|reached| *reached >= wanted);
        matches!(tokio::time::timeout(ON_DISK_WITHIN, is_reached).await, Ok(Ok(_)))
    }

    /// What has to be synced now and then, by a thread that may wait for a disk. `None` when nothing is recorded.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Arc<CheckpointSync>> {
        self.checkpoint.clone()
    }

    /// Closes the file and opens it again by name, after logrotate moved it.
    pub fn reopen(&self) {
        self.control.reopen.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// Marks the writer unhealthy when its current write hangs; called now and then by the control thread. The writer
    /// itself marks it healthy again.
    pub fn check_pulse(&self) {
        let since = self.control.writing_since_ms.load(Ordering::Acquire);
        let now = millis(self.epoch.elapsed());
        if since != 0 && now.saturating_sub(since) > millis(STUCK_AFTER) && self.lifecycle.set_audit_healthy(false) {
            tracing::error!("the audit log's disk does not answer; tool calls are refused in production");
        }
    }
}

/// The running writer. Dropped, it goes on; [`AuditWriter::stop`] ends it in order.
#[derive(Debug)]
pub struct AuditWriter {
    signals: AuditSignals,
    thread: JoinHandle<Result<(), Unwritten>>,
}

impl AuditWriter {
    /// Claims the directory, finds the chain's end and starts the thread.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: AuditConfig, shared: AuditShared) -> Result<Self, StartError> {
        let files = config.dir.as_deref().map(DailyFiles::claim).transpose()?;
        Self::start_on(files, &config, shared, LINGER)
    }

    fn start_on(
        files: Option<DailyFiles>,
        config: &AuditConfig,
        shared: AuditShared,
        linger: Duration,
    ) -> Result<Self, StartError> {
        let lifecycle = Arc::clone(&shared.lifecycle);
        let writer = Writer::new(files, config, shared, linger)?;
        let control = Arc::clone(&writer.control);
        let epoch = writer.epoch;
        let checkpoint = writer.place.as_ref().map(Place::checkpoint);
        let reached = writer.reached.subscribe();
        let thread =
            thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run()).map_err(StartError::Thread)?;
        let signals = AuditSignals { control, lifecycle, thread: thread.thread().clone(), epoch, checkpoint, reached };
        Ok(Self { signals, thread })
    }

    /// What others may tell it.
    #[must_use]
    pub fn signals(&self) -> AuditSignals {
        self.signals.clone()
    }

    /// Writes and syncs everything that is queued, then ends. Call it when nobody pushes any more.
    ///
    /// # Errors
    /// [`Unwritten`] when the disk refuses; it is tried once more and then given up.
    pub fn stop(self) -> Result<(), Unwritten> {
        self.signals.control.stop.store(true, Ordering::Release);
        self.signals.thread.unpark();
        self.thread.join().unwrap_or(Err(Unwritten(0)))
    }
}

/// What draining the queues came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drained {
    /// They were empty.
    Nothing,
    /// They are empty now.
    Some,
    /// There is no room for more; they may hold more.
    Full,
}

/// What the thread owns.
struct Writer {
    place: Option<Place>,
    formatter: Formatter,
    clock: fn() -> u64,
    shared: AuditShared,
    control: Arc<Control>,
    reached: watch::Sender<u64>,
    epoch: Instant,
    /// Formatted lines that are not on disk yet.
    pending: Vec<u8>,
    /// How many events that is.
    lines: u64,
    /// When the first of them was formatted, milliseconds since the Unix epoch: the day whose file they go to.
    group_ms: u64,
    /// How the trail was taken up; until the first line says it.
    beginning: Option<Beginning>,
    complained: Option<Instant>,
    tee: Option<Tee>,
    /// [`LINGER`], but in tests.
    linger: Duration,
}

/// When the thread ends nobody makes room any more, and nothing can be recorded.
struct End {
    lifecycle: Arc<Lifecycle>,
    queues: Vec<Arc<EventQueue>>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.lifecycle.set_audit_healthy(false);
        if thread::panicking() {
            tracing::error!("the audit writer has failed; tool calls are refused in production");
        }
        self.queues.iter().for_each(|queue| queue.wake_waiting());
    }
}

impl Writer {
    fn new(
        files: Option<DailyFiles>,
        config: &AuditConfig,
        shared: AuditShared,
        linger: Duration,
    ) -> Result<Self, DirError> {
        let opened = files.map(|files| Place::open(files, &config.state_dir, &config.key)).transpose()?;
        let (place, beginning) = opened.unzip();
        let end = beginning.as_ref().map(|beginning| beginning.end.clone()).unwrap_or_default();
        let tee = shared.mailbox.clone().map(Tee::new);
        Ok(Self {
            place,
            formatter: Formatter::new(&config.key, end, Pseudonyms::new(&config.pseudonym_key)),
            clock: config.clock,
            shared,
            control: Arc::default(),
            reached: watch::Sender::new(0),
            epoch: Instant::now(),
            pending: Vec::new(),
            lines: 0,
            group_ms: 0,
            beginning,
            complained: None,
            tee,
            linger,
        })
    }

    fn run(mut self) -> Result<(), Unwritten> {
        let _end = End { lifecycle: Arc::clone(&self.shared.lifecycle), queues: self.shared.queues.clone() };
        self.shared.bell.attend();
        // A group of lines takes a millisecond to write and to sync: where the writer shares a core with a worker, calls go first.
        if let Err(error) = crate::sys::thread::run_as_batch() {
            tracing::debug!(%error, "the audit writer keeps its scheduling policy");
        }
        loop {
            let gathered = Instant::now();
            self.shared.bell.take_hurry();
            let stopping = self.control.stop.load(Ordering::Acquire);
            // What was queued before this was asked for is taken out now.
            let wanted = self.control.wanted.load(Ordering::Acquire);
            let drained = self.drain();
            self.tee.iter_mut().for_each(Tee::hand_over);
            // There is room again; the disk may take its time meanwhile.
            for queue in &self.shared.queues {
                queue.wake_waiting();
            }
            let written = self.flush();
            if written && drained != Drained::Full && *self.reached.borrow() < wanted {
                self.reached.send_replace(wanted);
            }
            if written && self.control.reopen.swap(false, Ordering::AcqRel) {
                self.reopen();
            }
            if stopping && !written {
                return Err(Unwritten(self.pending.len()));
            }
            match drained {
                _ if !written => thread::park_timeout(RETRY),
                Drained::Full => {}
                Drained::Some if stopping => {}
                Drained::Some => self.gather(gathered),
                Drained::Nothing if stopping => return self.close(),
                Drained::Nothing => {
                    // What a burst took is given back.
                    self.pending.shrink_to(IDLE_PENDING);
                    self.sleep();
                    if !self.is_idle() {
                        self.gather(Instant::now());
                    }
                }
            }
        }
    }

    /// Sleeps until someone rings. Looks at everything once more after lying down, so that no ring is missed.
    fn sleep(&self) {
        self.shared.bell.lie_down();
        if self.is_idle() && !self.is_ordered() {
            thread::park_timeout(SLEEP);
        }
        self.shared.bell.get_up();
    }

    /// Lets events gather for [`LINGER`] from `since` on, unless someone is in a hurry.
    fn gather(&self, since: Instant) {
        self.shared.bell.linger();
        while !self.shared.bell.is_hurried() && !self.is_ordered() {
            let left = self.linger.saturating_sub(since.elapsed());
            if left.is_zero() {
                break;
            }
            thread::park_timeout(left);
        }
        self.shared.bell.get_up();
    }

    fn is_idle(&self) -> bool {
        self.shared.queues.iter().all(|queue| queue.is_empty())
    }

    /// Whether there is an order that is to be carried out at once.
    fn is_ordered(&self) -> bool {
        self.control.stop.load(Ordering::Acquire)
            || self.control.reopen.load(Ordering::Acquire)
            || self.control.wanted.load(Ordering::Acquire) > *self.reached.borrow()
    }

    /// Formats what is queued, as far as there is room. Takes from the queues in turn, so that none starves.
    fn drain(&mut self) -> Drained {
        let mut drained = Drained::Nothing;
        loop {
            let mut took = false;
            for queue in &self.shared.queues {
                if self.pending.len() + line::MAX_LINE > self.room() {
                    return Drained::Full;
                }
                let Some(event) = queue.pop() else { continue };
                (took, drained) = (true, Drained::Some);
                if let Some(tee) = &mut self.tee {
                    tee.see(&event);
                }
                if let Some(place) = &self.place {
                    if self.pending.is_empty() {
                        self.group_ms = (self.clock)();
                        let mut marks =
                            Marks { formatter: &mut self.formatter, out: &mut self.pending, at_ms: self.group_ms };
                        marks.group(place, &mut self.beginning);
                    }
                    self.formatter.append(&mut self.pending, &event);
                    self.lines += 1;
                }
            }
            if !took {
                return drained;
            }
        }
    }

    /// Opens the file again, and says so there: a file that was rotated away has a successor at once, which continues it.
    fn reopen(&mut self) {
        let Some(place) = &mut self.place else { return };
        place.reopen();
        self.group_ms = (self.clock)();
        let mut marks = Marks { formatter: &mut self.formatter, out: &mut self.pending, at_ms: self.group_ms };
        marks.group(place, &mut self.beginning);
        self.flush();
    }

    /// Says that the trail ends here in good order, if it has begun.
    fn close(&mut self) -> Result<(), Unwritten> {
        let Some(place) = &self.place else { return Ok(()) };
        let checkpoint = place.checkpoint();
        if self.beginning.is_none() {
            self.group_ms = (self.clock)();
            let mut marks = Marks { formatter: &mut self.formatter, out: &mut self.pending, at_ms: self.group_ms };
            marks.group(place, &mut self.beginning);
            marks.mark("stop", format_args!("stop"));
            if !self.flush() {
                return Err(Unwritten(self.pending.len()));
            }
        }
        if let Err(error) = checkpoint.sync() {
            tracing::warn!(%error, "the audit checkpoint is not durable yet");
        }
        Ok(())
    }

    /// A group while all is well, everything while the disk refuses.
    fn room(&self) -> usize {
        if self.complained.is_some() { MAX_PENDING } else { MAX_GROUP }
    }

    /// Puts what is pending on disk. False: the disk refused, and it is all still pending.
    fn flush(&mut self) -> bool {
        let Some(place) = self.place.as_mut().filter(|_| !self.pending.is_empty()) else {
            return true;
        };
        self.control.writing_since_ms.store(millis(self.epoch.elapsed()).max(1), Ordering::Release);
        let written = place.write(&self.pending, self.group_ms, self.formatter.end());
        self.control.writing_since_ms.store(0, Ordering::Release);
        match written {
            Ok(()) => {
                self.shared.metrics.written.add(self.lines);
                self.shared.metrics.groups.inc();
                self.pending.clear();
                self.lines = 0;
                self.complained = None;
                if self.shared.lifecycle.set_audit_healthy(true) {
                    tracing::info!("the audit log can be written again; nothing was lost");
                }
                true
            }
            Err(error) => {
                self.shared.metrics.errors.inc();
                self.shared.lifecycle.set_audit_healthy(false);
                if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                    tracing::error!(%error, waiting = self.lines, "the audit log cannot be written; it is tried again");
                    self.complained = Some(Instant::now());
                }
                false
            }
        }
    }
}

/// Writes the trail's lines about itself.
struct Marks<'a> {
    formatter: &'a mut Formatter,
    out: &'a mut Vec<u8>,
    at_ms: u64,
}

impl Marks<'_> {
    /// Before the first line of a group: that the trail begins, that it goes on in another file, or nothing.
    fn group(&mut self, place: &Place, beginning: &mut Option<Beginning>) {
        let Some(name) = place.opens(self.at_ms) else { return };
        let Some(beginning) = beginning.take() else {
            return self.mark("file", format_args!("goes on in {name}"));
        };
        match beginning.torn {
            0 => self.mark("start", format_args!("start, in {name}")),
            torn => self.mark("start", format_args!("start, in {name}; {torn} bytes of a torn line were cut off")),
        }
        if let Some(alarm) = beginning.alarm {
            let alert = Event::new(EventKind::Alert, self.at_ms).with_rule("audit-trail");
            self.formatter.append(self.out, &alert.with_details(format_args!("{alarm}")));
        }
    }

    fn mark(&mut self, rule: &'static str, details: std::fmt::Arguments<'_>) {
        let event = Event::new(EventKind::Checkpoint, self.at_ms).with_rule(rule).with_details(details);
        self.formatter.append(self.out, &event);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "audit/writer_tests.rs"]
mod tests;
