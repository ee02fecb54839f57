//! What the store counts; shared with its threads and with all who ask something of it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Counter, SharedCounter};

/// What the store has done since it was opened, and what waits for it.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Transactions that were committed, each with one sync. Counted by the thread that writes.
    pub transactions: Counter,
    /// Writes that were committed. Counted by the thread that writes.
    pub writes: Counter,
    /// What was asked for and not done.
    pub failures: SharedCounter,
    /// Writes that were asked for and not answered yet.
    pub waiting_writes: Waiting,
    /// Reads that were asked for and not answered yet.
    pub waiting_reads: Waiting,
}

/// How many wait.
#[derive(Debug, Default)]
pub struct Waiting(AtomicU64);

impl Waiting {
    /// One more waits.
    pub fn enter(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// So many wait no longer.
    pub fn leave(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    /// How many wait at some recent moment.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
