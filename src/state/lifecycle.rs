//! What the whole process knows about itself: its phase, its open connections, its upstreams.
//!
//! Written by the control plane and the workers, read by everyone, mostly to answer `/health`. All counts are atomics on
//! cache lines of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use super::addresses::Addresses;
use super::call_limit::CallLimit;
pub use super::doors::{Door, DoorCounts};
use super::upstream_credential::CredentialSlot;

/// The stages of the process's life. They only ever advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Settings are read, listeners may be open, upstreams are not known to answer yet.
    Starting = 0,
    /// Serving.
    Ready = 1,
    /// No new work; what is in flight may end.
    Draining = 2,
    /// Everything is to close now.
    Stopped = 3,
}

impl Phase {
    fn from_u8(value: u8) -> Self {
        match value {
            0 => Phase::Starting,
            1 => Phase::Ready,
            2 => Phase::Draining,
            _ => Phase::Stopped,
        }
    }
}

/// The state of an upstream's circuit breaker, as `/health` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BreakerState {
    /// Calls pass.
    Closed = 0,
    /// Calls are refused at once.
    Open = 1,
    /// One probe at a time passes.
    HalfOpen = 2,
}

impl BreakerState {
    /// The name in `/health` and in labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
        }
    }
}

/// What is known of one upstream.
#[derive(Debug)]
pub struct UpstreamState {
    name: Box<str>,
    breaker: AtomicU8,
    reachable: AtomicBool,
    /// Where it is; empty for an upstream that has no address (stdio).
    pub addresses: Addresses,
    /// Its calls in flight, over all transports and threads.
    pub calls: Arc<CallLimit>,
    /// The credential that it is shown.
    pub credential: CredentialSlot,
}

impl UpstreamState {
    /// An upstream that is not known to be reachable, with a closed breaker, and with no bound on its calls.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::with_calls(name, u64::MAX)
    }

    /// Likewise, with at most so many calls in flight.
    #[must_use]
    pub fn with_calls(name: &str, max_in_flight: u64) -> Self {
        Self {
            name: name.into(),
            breaker: AtomicU8::new(BreakerState::Closed as u8),
            reachable: AtomicBool::new(false),
            addresses: Addresses::new(Vec::new()),
            calls: Arc::new(CallLimit::new(max_in_flight)),
            credential: CredentialSlot::default(),
        }
    }

    /// Likewise, with a credential of the vault, without which it is sent nothing.
    #[must_use]
    pub fn with_credential(self) -> Self {
        Self { credential: CredentialSlot::needed(), ..self }
    }

    /// Its name in the settings.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the last probe, or the child process, answered.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed)
    }

    /// Notes a probe's result. Returns whether it changed.
    pub fn set_reachable(&self, reachable: bool) -> bool {
        self.reachable.swap(reachable, Ordering::Relaxed) != reachable
    }

    /// The breaker's state.
    #[must_use]
    pub fn breaker(&self) -> BreakerState {
        match self.breaker.load(Ordering::Relaxed) {
            1 => BreakerState::Open,
            2 => BreakerState::HalfOpen,
            _ => BreakerState::Closed,
        }
    }

    /// Publishes the breaker's state.
    pub fn set_breaker(&self, state: BreakerState) {
        self.breaker.store(state as u8, Ordering::Relaxed);
    }
}

impl AsRef<CallLimit> for UpstreamState {
    fn as_ref(&self) -> &CallLimit {
        &self.calls
    }
}

/// One counter on a cache line of its own (two lines, for the prefetcher's pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicUsize);

/// The process's shared state. One instance, behind an `Arc`.
#[derive(Debug)]
pub struct Lifecycle {
    phase: AtomicU8,
    audit_healthy: AtomicBool,
    store_healthy: AtomicBool,
    /// Of each worker, behind a reference of its own: what workers count by must not be what all of them share.
    in_flight: Box<[Arc<Padded>]>,
    doors: Arc<DoorCounts>,
    upstreams: Box<[Arc<UpstreamState>]>,
}

impl Lifecycle {
    /// A process that starts, with `workers` data-plane threads and these upstreams.
    #[must_use]
    pub fn new(workers: usize, upstreams: Vec<Arc<UpstreamState>>) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Starting as u8),
            audit_healthy: AtomicBool::new(true),
            store_healthy: AtomicBool::new(true),
            in_flight: (0..workers.max(1)).map(|_| Arc::default()).collect(),
            doors: Arc::default(),
            upstreams: upstreams.into_boxed_slice(),
        }
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        Phase::from_u8(self.phase.load(Ordering::Acquire))
    }

    /// Goes on to `phase`. Going back is ignored; returns whether the phase changed.
    pub fn advance(&self, phase: Phase) -> bool {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel) < phase as u8
    }

    /// Whether the audit log can be written. While it cannot, production refuses tool calls.
    #[must_use]
    pub fn audit_healthy(&self) -> bool {
        self.audit_healthy.load(Ordering::Acquire)
    }

    /// Set by the audit writer. Returns whether it changed.
    pub fn set_audit_healthy(&self, healthy: bool) -> bool {
        self.audit_healthy.swap(healthy, Ordering::AcqRel) != healthy
    }

    /// Whether the database can be written.
    #[must_use]
    pub fn store_healthy(&self) -> bool {
        self.store_healthy.load(Ordering::Acquire)
    }

    /// Notes whether the database can be written. Returns whether that changed.
    pub fn set_store_healthy(&self, healthy: bool) -> bool {
        self.store_healthy.swap(healthy, Ordering::AcqRel) != healthy
    }

    /// The upstreams, in the settings' order.
    #[must_use]
    pub fn upstreams(&self) -> &[Arc<UpstreamState>] {
        &self.upstreams
    }

    /// Serving, and at least one upstream reachable.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase() == Phase::Ready && self.upstreams.iter().any(|u| u.is_reachable())
    }

    /// Connections open on a door.
    #[must_use]
    pub fn connections(&self, door: Door) -> u64 {
        self.doors.open(door)
    }

    /// The doors' counts, which the connection table takes its limits from.
    #[must_use]
    pub fn doors(&self) -> &Arc<DoorCounts> {
        &self.doors
    }

    /// Counts a call of `worker` in flight until the guard is dropped; draining waits for these.
    #[must_use]
    pub fn begin_call(&self, worker: usize) -> CallInFlight {
        let count = self.in_flight.get(worker % self.in_flight.len()).map(Arc::clone).unwrap_or_default();
        count.0.fetch_add(1, Ordering::AcqRel);
        CallInFlight { count }
    }

    /// Calls in flight of one worker.
    #[must_use]
    pub fn calls_in_flight_of(&self, worker: usize) -> usize {
        self.in_flight.get(worker).map_or(0, |count| count.0.load(Ordering::Acquire))
    }

    /// Calls in flight, over all workers.
    #[must_use]
    pub fn calls_in_flight(&self) -> usize {
        self.in_flight.iter().map(|count| count.0.load(Ordering::Acquire)).sum()
    }
}

/// A call in flight; see [`Lifecycle::begin_call`].
#[derive(Debug)]
pub struct CallInFlight {
    count: Arc<Padded>,
}

impl Drop for CallInFlight {
    fn drop(&mut self) {
        self.count.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
