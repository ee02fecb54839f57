//! How many connections each door has open: never one over its limit, whatever the threads do.
//!
//! One counter a door, raised by compare-and-swap only while it is below the limit, so there is no moment at which it is above.

use std::sync::Arc;

use super::sync::{AtomicU64, Ordering};

/// A front door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Door {
    /// WebSocket connections of the bridge port.
    Ws = 0,
    /// The line-delimited door.
    Tcp = 1,
    /// HTTP connections of the bridge port.
    Http = 2,
}

impl Door {
    /// Every door, in the order of its index.
    pub const ALL: &'static [Door] = &[Door::Ws, Door::Tcp, Door::Http];

    /// The name in `/health` and in labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Door::Ws => "ws",
            Door::Tcp => "tcp",
            Door::Http => "http",
        }
    }

    /// The position in [`Door::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// A counter on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Padded(AtomicU64);

/// Open connections by door.
#[derive(Debug)]
pub struct DoorCounts {
    ws: Padded,
    tcp: Padded,
    http: Padded,
}

impl Default for DoorCounts {
    fn default() -> Self {
        let zero = || Padded(AtomicU64::new(0));
        Self { ws: zero(), tcp: zero(), http: zero() }
    }
}

impl DoorCounts {
    /// Takes one of a door's `limit` connections, or `None` when all are taken.
    #[must_use]
    pub fn try_acquire(self: &Arc<Self>, door: Door, limit: u64) -> Option<DoorPermit> {
        let raise = |count: u64| (count < limit).then(|| count + 1);
        self.count(door).fetch_update(Ordering::AcqRel, Ordering::Relaxed, raise).ok()?;
        Some(DoorPermit { counts: Arc::clone(self), door })
    }

    /// Connections open on a door.
    #[must_use]
    pub fn open(&self, door: Door) -> u64 {
        self.count(door).load(Ordering::Relaxed)
    }

    fn count(&self, door: Door) -> &AtomicU64 {
        match door {
            Door::Ws => &self.ws.0,
            Door::Tcp => &self.tcp.0,
            Door::Http => &self.http.0,
        }
    }
}

/// One of a door's connections; given back on drop.
#[derive(Debug)]
pub struct DoorPermit {
    counts: Arc<DoorCounts>,
    door: Door,
}

impl DoorPermit {
    /// The door it counts for.
    #[must_use]
    pub fn door(&self) -> Door {
        self.door
    }

    /// Moves the connection to another door, as an upgrade to WebSocket does. It counts at both for a moment, so that it always counts
    /// somewhere. Returns whether it has moved: when `door` has `limit` connections already, it stays where it is.
    #[must_use]
    pub fn move_to(&mut self, door: Door, limit: u64) -> bool {
        let Some(moved) = self.counts.try_acquire(door, limit) else { return false };
        *self = moved;
        true
    }
}

impl Drop for DoorPermit {
    fn drop(&mut self) {
        self.counts.count(self.door).fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(all(test, not(loom)))]
#[path = "doors_tests.rs"]
mod tests;
