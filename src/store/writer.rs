//! The thread that writes: whatever waits goes into one transaction, which is committed and synced once.
//!
//! A write is answered only after the commit. Each runs in a savepoint: an error takes back that write alone. Where SQLite has given up the
//! whole transaction (a full disk, a failing one), or the commit fails, all of the group are answered with the error and none has happened.
//!
//! While writes fail for reasons that lie outside (a full disk), `Lifecycle::store_healthy` is false, and every [`PROBE_EVERY`] a write of nothing
//! is tried, so that health is told when the reason is gone. A write that hangs for [`STUCK_AFTER`] counts as failing: [`Pulse::check`].

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::StoreError;
use crate::observe::metrics::StoreMetrics;
use crate::state::lifecycle::Lifecycle;

/// Writes of one transaction: its time is what a late-comer waits.
pub(super) const MAX_GROUP: usize = 512;
/// Time between two attempts while nobody writes and the last write has failed.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// A transaction that takes this long counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// What the thread is told.
pub(super) enum Order {
    /// A write.
    Do(Box<dyn Job>),
    /// End, after what came before.
    Stop,
}

/// A write, its result and who waits for it.
pub(super) trait Job: Send {
    /// Runs it in the savepoint that is open. Its value is kept until [`Job::answer`].
    fn run(&mut self, conn: &Connection) -> Result<(), StoreError>;
    /// Answers: what it came to, unless the transaction has failed.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

/// A [`Job`] out of a closure.
pub(super) struct Typed<F, T> {
    act: Option<F>,
    came_to: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Typed<F, T> {
    pub(super) fn new(act: F, reply: oneshot::Sender<Result<T, StoreError>>) -> Self {
        Self { act: Some(act), came_to: None, reply }
    }
}

impl<F, T> Job for Typed<F, T>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, conn: &Connection) -> Result<(), StoreError> {
        let Some(act) = self.act.take() else { return Ok(()) };
        let result = act(conn);
        let done = result.as_ref().map(|_| ()).map_err(Clone::clone);
        self.came_to = Some(result);
        done
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = match (committed, self.came_to) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(result)) => result,
            // It was not run, and is answered with an error.
            (Ok(()), None) => Err(StoreError::Stopped),
        };
        // Who does not wait any more needs no answer.
        let _ = self.reply.send(result);
    }
}

/// Whether a write hangs, as others see it.
#[derive(Clone)]
pub struct Pulse {
    /// When the running transaction began, milliseconds since `epoch` plus one; 0 when none runs.
    since_ms: Arc<AtomicU64>,
    epoch: Instant,
    lifecycle: Arc<Lifecycle>,
}

impl Pulse {
    pub(super) fn new(lifecycle: Arc<Lifecycle>) -> Self {
        Self { since_ms: Arc::default(), epoch: Instant::now(), lifecycle }
    }

    /// Marks the store unhealthy when its transaction hangs. The writer itself marks it healthy again.
    pub fn check(&self) {
        let since = self.since_ms.load(Ordering::Acquire);
        let now = millis(self.epoch.elapsed());
        if since != 0 && now.saturating_sub(since) > millis(STUCK_AFTER) && self.lifecycle.set_store_healthy(false) {
            tracing::error!("the database's disk does not answer; nothing can be changed");
        }
    }

    fn begin(&self) {
        self.since_ms.store(millis(self.epoch.elapsed()).saturating_add(1), Ordering::Release);
    }

    fn end(&self) {
        self.since_ms.store(0, Ordering::Release);
    }
}

/// What the thread owns.
pub(super) struct Writer {
    conn: Connection,
    orders: Receiver<Order>,
    counts: Arc<StoreMetrics>,
    pulse: Pulse,
    /// The last write has failed for a reason that lies outside.
    failing: bool,
    /// Keeps other processes away for as long as the connection is open: dropped after it.
    _lock: File,
}

/// However the thread ends, nothing can be written any more.
struct End(Arc<Lifecycle>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.set_store_healthy(false);
        if std::thread::panicking() {
            tracing::error!("the store has failed; nothing can be changed");
        }
    }
}

impl Writer {
    pub(super) fn new(
        conn: Connection,
        orders: Receiver<Order>,
        counts: Arc<StoreMetrics>,
        pulse: Pulse,
        lock: File,
    ) -> Self {
        Self { conn, orders, counts, pulse, failing: false, _lock: lock }
    }

    pub(super) fn run(mut self) {
        let _end = End(Arc::clone(&self.pulse.lifecycle));
        self.serve();
        // Whoever opens it next finds one file. What is in the log is as safe.
        let _ = self.conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    /// Until it is told to stop, or nobody is left to tell.
    fn serve(&mut self) {
        loop {
            let order = if self.failing {
                match self.orders.recv_timeout(PROBE_EVERY) {
                    Ok(order) => order,
                    Err(RecvTimeoutError::Timeout) => {
                        self.probe();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            } else {
                let Ok(order) = self.orders.recv() else { return };
                order
            };
            let Order::Do(first) = order else { return };
            let mut group = vec![first];
            let mut stopping = false;
            while group.len() < MAX_GROUP {
                match self.orders.try_recv() {
                    Ok(Order::Do(job)) => group.push(job),
                    Ok(Order::Stop) => {
                        stopping = true;
                        break;
                    }
                    Err(_) => break,
                }
            }
            self.perform(group);
            if stopping {
                return;
            }
        }
    }

    /// Does a group and answers all of it.
    fn perform(&mut self, mut group: Vec<Box<dyn Job>>) {
        self.pulse.begin();
        let (mut done, mut outage) = (0, None);
        let committed = self.transaction(&mut group, &mut done, &mut outage);
        self.pulse.end();
        let all = group.len() as u64;
        match &committed {
            Ok(()) => {
                self.counts.transactions.inc();
                self.counts.writes.add(done);
                self.counts.failures.add(all.saturating_sub(done));
            }
            Err(_) => self.counts.failures.add(all),
        }
        self.counts.waiting_writes.leave(all);
        self.judge(committed.as_ref().err().or(outage.as_ref()));
        for job in group {
            job.answer(committed.clone());
        }
    }

    /// One transaction. `done` counts what stands in it; `outage` is a failure of one write that is likely to hit others.
    fn transaction(
        &self,
        group: &mut [Box<dyn Job>],
        done: &mut u64,
        outage: &mut Option<StoreError>,
    ) -> Result<(), StoreError> {
        let mut whole = || -> Result<(), StoreError> {
            self.conn.execute_batch("BEGIN IMMEDIATE")?;
            for job in group.iter_mut() {
                self.conn.execute_batch("SAVEPOINT one")?;
                match job.run(&self.conn) {
                    Ok(()) => {
                        self.conn.execute_batch("RELEASE one")?;
                        *done += 1;
                    }
                    // SQLite gives up the whole transaction where it cannot go on: then nothing of the group has happened.
                    Err(error) if self.conn.is_autocommit() => return Err(error),
                    Err(error) => {
                        self.conn.execute_batch("ROLLBACK TO one; RELEASE one")?;
                        if error.is_outage() {
                            *outage = Some(error);
                        }
                    }
                }
            }
            self.conn.execute_batch("COMMIT")?;
            Ok(())
        };
        let result = whole();
        if result.is_err() && !self.conn.is_autocommit() {
            let _ = self.conn.execute_batch("ROLLBACK");
        }
        result
    }

    /// A write that changes nothing, to see whether one can be made.
    fn probe(&mut self) {
        self.pulse.begin();
        let version = self.conn.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
        let tried = version.and_then(|version| self.conn.execute_batch(&format!("PRAGMA user_version = {version}")));
        self.pulse.end();
        self.judge(tried.map_err(StoreError::from).as_ref().err());
    }

    /// Publishes whether the store can be written; says so in the log when that has changed.
    fn judge(&mut self, error: Option<&StoreError>) {
        self.failing = error.is_some();
        if !self.pulse.lifecycle.set_store_healthy(error.is_none()) {
            return;
        }
        match error {
            Some(error) => tracing::error!(%error, "the database cannot be written; changes are refused"),
            None => tracing::info!("the database can be written again"),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
