//! What must outlive the process: one SQLite database, `DATA_DIR/ringwall.db`.
//!
//! Promises
//! - A write that was answered with `Ok` is on disk: it survives `kill -9` and a power cut (WAL, `synchronous=FULL`). A write that was answered
//!   with an error has changed nothing, with one exception: [`StoreError::Stopped`] may come after the change was made, when nobody was left
//!   to say so.
//! - Writes that wait together share one transaction and one sync ([`writer`]). Each has a savepoint of its own: one that fails is taken back
//!   and the others stand.
//! - Reads run beside the writes, on a connection that cannot write ([`reader`]), and see everything that was answered before they began.
//! - Both queues are bounded. Who comes to a full one is told at once ([`StoreError::Busy`]); nobody waits for room.
//! - One process has the database ([`open`]). Whoever only reads or copies it, such as `ringwall backup`, may do so beside ([`backup()`]).
//!
//! This folder is the one seam to the database: nobody else names SQLite, so that a fleet's common store can take its place. One file a domain
//! says what can be asked for; the building blocks [`Store::write`] and [`Store::read`] stay within.
//!
//! Nothing on a worker waits for the store but a call that costs money, for its reservation ([`spend`]). What workers must know is published
//! to them in memory.

pub mod alerts;
mod backup;
pub mod blocks;
pub mod credentials;
pub mod limits;
mod open;
pub mod pins;
mod reader;
mod schema;
pub mod sessions;
pub mod spend;
pub mod tokens;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

pub use self::backup::{BackupError, backup};
pub use self::open::{Checking, OpenError};
use self::reader::ReadJob;
pub use self::writer::Pulse;
use self::writer::{Order, Typed, Writer};
use crate::observe::metrics::{StoreMetrics, Waiting};
use crate::state::lifecycle::Lifecycle;

/// Writes that may wait.
const WRITE_QUEUE: usize = 4096;
/// Reads that may wait.
const READ_QUEUE: usize = 256;

/// Why the store did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// As many wait as may wait.
    #[error("the store has too much to do")]
    Busy,
    /// There is no room on the disk.
    #[error("the disk of DATA_DIR is full")]
    Full,
    /// The disk or the file fails.
    #[error("the database fails: {0}")]
    Disk(String),
    /// What was asked for breaks a rule of the database: a fault of the program.
    #[error("the database refuses: {0}")]
    Refused(String),
    /// The store has ended.
    #[error("the store has stopped")]
    Stopped,
}

impl StoreError {
    /// Whether the surroundings are to blame, and every other write is likely to fail as well.
    fn is_outage(&self) -> bool {
        matches!(self, Self::Full | Self::Disk(_))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        match error.sqlite_error_code() {
            Some(Code::DiskFull) => Self::Full,
            Some(
                Code::SystemIoFailure
                | Code::DatabaseCorrupt
                | Code::NotADatabase
                | Code::ReadOnly
                | Code::CannotOpen
                | Code::DatabaseBusy
                | Code::DatabaseLocked
                | Code::PermissionDenied
                | Code::FileLockingProtocolFailed
                | Code::OutOfMemory,
            ) => Self::Disk(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

/// A way to the database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    writes: SyncSender<Order>,
    reads: SyncSender<ReadJob>,
    counts: Arc<StoreMetrics>,
}

/// The threads of an open store. [`StoreThreads::stop`] ends them in order; dropped, they end when the last [`Store`] is dropped.
#[must_use]
pub struct StoreThreads {
    writes: SyncSender<Order>,
    writer: JoinHandle<()>,
    pulse: Pulse,
}

impl Store {
    /// Opens the database of `DATA_DIR`, making or migrating it where that is due, and starts the threads. `lifecycle` learns whether it can be
    /// written.
    ///
    /// # Errors
    /// [`OpenError`]: each says what to do.
    pub fn open(dir: &Path, lifecycle: Arc<Lifecycle>) -> Result<(Self, StoreThreads), OpenError> {
        let (store, threads, checking) = Self::open_and_check(dir, lifecycle)?;
        checking.wait()?;
        Ok((store, threads))
    }

    /// [`Store::open`], without waiting until it is known that the database is whole: what is read meanwhile counts once it is.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_and_check(dir: &Path, lifecycle: Arc<Lifecycle>) -> Result<(Self, StoreThreads, Checking), OpenError> {
        Self::start(open::open(dir, schema::STEPS)?, lifecycle)
    }

    fn start(opened: open::Opened, lifecycle: Arc<Lifecycle>) -> Result<(Self, StoreThreads, Checking), OpenError> {
        let open::Opened { checking, lock, writer, reader } = opened;
        let (writes, orders) = sync_channel(WRITE_QUEUE);
        let (reads, jobs) = sync_channel(READ_QUEUE);
        let counts = Arc::<StoreMetrics>::default();
        let pulse = Pulse::new(lifecycle);
        let writer = Writer::new(writer, orders, Arc::clone(&counts), pulse.clone(), lock);
        let writer = std::thread::Builder::new().name("store".into()).spawn(move || writer.run())?;
        std::thread::Builder::new().name("store-read".into()).spawn(move || reader::run(&reader, &jobs))?;
        let store = Self { writes: writes.clone(), reads, counts };
        Ok((store, StoreThreads { writes, writer, pulse }, checking))
    }

    /// What it has done.
    #[must_use]
    pub fn counts(&self) -> Arc<StoreMetrics> {
        Arc::clone(&self.counts)
    }

    /// Runs `act` in a savepoint of the next transaction; answers when that is on disk. `act` runs once, in the order of the calls, and must not
    /// begin or end transactions. Its error takes back what it has done.
    ///
    /// What is asked for here is done even if the future is dropped.
    ///
    /// # Errors
    /// Its own, and the store's.
    pub(in crate::store) async fn write<T, F>(&self, act: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.submit(Order::Do(Box::new(Typed::new(act, reply))))?;
        answer.await.unwrap_or(Err(StoreError::Stopped))
    }

    /// [`Store::write`] for the start, where nothing runs yet that could wait: blocks the thread.
    ///
    /// # Errors
    /// Its own, and the store's.
    pub(in crate::store) fn write_now<T, F>(&self, act: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.submit(Order::Do(Box::new(Typed::new(act, reply))))?;
        answer.blocking_recv().unwrap_or(Err(StoreError::Stopped))
    }

    /// Queues an order. Never waits.
    ///
    /// # Errors
    /// [`StoreError::Busy`] and [`StoreError::Stopped`].
    fn submit(&self, order: Order) -> Result<(), StoreError> {
        self.counts.waiting_writes.enter();
        self.writes.try_send(order).map_err(|error| self.unsent(&error, &self.counts.waiting_writes))
    }

    /// Runs `look` on a connection that cannot write.
    ///
    /// # Errors
    /// Its own, and the store's.
    pub(in crate::store) async fn read<T, F>(&self, look: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.ask(look)?.await.unwrap_or(Err(StoreError::Stopped))
    }

    /// [`Store::read`] for the start, where nothing runs yet that could wait: blocks the thread.
    ///
    /// # Errors
    /// Its own, and the store's.
    pub(in crate::store) fn read_now<T, F>(&self, look: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.ask(look)?.blocking_recv().unwrap_or(Err(StoreError::Stopped))
    }

    fn ask<T, F>(&self, look: F) -> Result<oneshot::Receiver<Result<T, StoreError>>, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let counts = Arc::clone(&self.counts);
        let job: ReadJob = Box::new(move |conn| {
            // Who does not wait any more needs no answer.
            let found = (!reply.is_closed()).then(|| look(conn));
            counts.waiting_reads.leave(1);
            if let Some(found) = found {
                if found.is_err() {
                    counts.failures.inc();
                }
                let _ = reply.send(found);
            }
        });
        self.counts.waiting_reads.enter();
        self.reads.try_send(job).map_err(|error| self.unsent(&error, &self.counts.waiting_reads))?;
        Ok(answer)
    }

    fn unsent<J>(&self, error: &TrySendError<J>, waiting: &Waiting) -> StoreError {
        waiting.leave(1);
        self.counts.failures.inc();
        match error {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Disconnected(_) => StoreError::Stopped,
        }
    }
}

impl StoreThreads {
    /// What the control thread looks at now and then: whether a write hangs.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Does what is queued, then closes the database. What is asked for later is answered with [`StoreError::Stopped`].
    pub fn stop(self) {
        let _ = self.writes.send(Order::Stop);
        // A panic there was reported by the hook.
        let _ = self.writer.join();
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
