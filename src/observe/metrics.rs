//! What each worker counts, and the sum of all workers as Prometheus text.
//!
//! A [`WorkerMetrics`] is written by its worker alone, with plain loads and stores (a nanosecond each), and read by the
//! control plane when someone scrapes. Label values are bounded by construction: doors, outcomes, status classes, and rule
//! names that are compiled in.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::histogram::Histogram;
use crate::state::events::{EventQueue, Outcome};
use crate::state::lifecycle::{Door, Lifecycle};

mod encode;

/// The media type of [`MetricSources::encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A number that one thread adds to and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds one. Only the owning thread may call this.
    pub fn inc(&self) {
        self.add(1);
    }

    /// The value at some recent moment.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Rule names a worker can tell apart; more count as `other`.
pub const MAX_RULES: usize = 96;

/// Counters by rule name. Names are `&'static`, so their number is bounded by the program's text; no caller can add one.
#[derive(Debug)]
pub struct RuleCounters {
    slots: Box<[(OnceLock<&'static str>, Counter)]>,
    other: Counter,
}

impl Default for RuleCounters {
    fn default() -> Self {
        Self { slots: (0..MAX_RULES).map(|_| Default::default()).collect(), other: Counter::default() }
    }
}

impl RuleCounters {
    /// Counts one refusal by `rule`. Only the owning thread may call this.
    pub fn inc(&self, rule: &'static str) {
        for (name, counter) in &self.slots {
            if *name.get_or_init(|| rule) == rule {
                counter.inc();
                return;
            }
        }
        self.other.inc();
    }

    /// All rules that were counted, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let named = self.slots.iter().map_while(|(name, counter)| Some((*name.get()?, counter.get())));
        let other = Some(("other", self.other.get())).filter(|(_, count)| *count > 0);
        named.chain(other)
    }
}

/// What is counted for each door.
#[derive(Debug, Default)]
pub struct DoorMetrics {
    calls: [Counter; Outcome::ALL.len()],
    /// From the first byte of a call read to the last byte of its answer written.
    pub call_duration: Histogram,
    /// Bytes received from clients.
    pub bytes_in: Counter,
    /// Bytes sent to clients.
    pub bytes_out: Counter,
    /// Connections admitted.
    pub connections_accepted: Counter,
    /// Connections refused: by address, limit or TLS.
    pub connections_refused: Counter,
    /// Connections that have ended.
    pub connections_closed: Counter,
    /// Authentications that failed.
    pub auth_failures: Counter,
}

impl DoorMetrics {
    /// Counts a call that has ended, with its time in nanoseconds.
    pub fn call(&self, outcome: Outcome, duration_ns: u64) {
        if let Some(counter) = self.calls.get(outcome.index()) {
            counter.inc();
        }
        self.call_duration.record(duration_ns);
    }

    /// Calls that ended so.
    #[must_use]
    pub fn calls(&self, outcome: Outcome) -> u64 {
        self.calls.get(outcome.index()).map_or(0, Counter::get)
    }
}

/// What one worker counts. Written by that worker alone; see [`Counter`].
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerMetrics {
    doors: [DoorMetrics; Door::ALL.len()],
    /// HTTP answers by status class, 1xx to 5xx.
    responses: [Counter; 5],
    /// Refusals by rule.
    pub refusals: RuleCounters,
    /// Time spent in guards for a message.
    pub guard_duration: Histogram,
    /// From a call's first byte sent upstream to the first byte of its answer.
    pub upstream_duration: Histogram,
    /// Upstream connections opened.
    pub upstream_connects: Counter,
    /// Calls sent on a connection that was open already.
    pub upstream_reuses: Counter,
    /// Upstream connections that failed or broke.
    pub upstream_errors: Counter,
    /// Calls sent again on a fresh connection.
    pub upstream_retries: Counter,
}

impl WorkerMetrics {
    /// The counters of a door.
    #[must_use]
    pub fn door(&self, door: Door) -> &DoorMetrics {
        let [ws, tcp, http] = &self.doors;
        match door {
            Door::Ws => ws,
            Door::Tcp => tcp,
            Door::Http => http,
        }
    }

    /// Counts an HTTP answer by its status (100 to 599; others are not counted).
    pub fn response(&self, status: u16) {
        let class = usize::from(status / 100).wrapping_sub(1);
        if let Some(counter) = self.responses.get(class) {
            counter.inc();
        }
    }

    /// HTTP answers of a class (1 to 5).
    #[must_use]
    pub fn responses(&self, class: usize) -> u64 {
        self.responses.get(class.wrapping_sub(1)).map_or(0, Counter::get)
    }
}

/// What the audit writer counts; shared with it.
#[derive(Debug, Default)]
pub struct AuditMetrics {
    /// Lines on disk.
    pub written: Counter,
    /// Groups written, each with one fdatasync.
    pub groups: Counter,
    /// Writes or syncs that failed.
    pub errors: Counter,
}

/// A number that several threads add to: for what happens rarely.
#[derive(Debug, Default)]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// The value at some recent moment.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Kinds of alerts that can be told apart; a test holds `control::alerts` to it.
pub const MAX_ALERT_KINDS: usize = 32;

/// What is counted of alerts, their webhook and the anomaly detector; shared with them.
#[derive(Debug, Default)]
pub struct AlertMetrics {
    raised: [SharedCounter; MAX_ALERT_KINDS],
    /// Alerts that were raised again within their quiet time.
    pub repeated: SharedCounter,
    /// Alerts that the webhook has taken.
    pub delivered: SharedCounter,
    /// Tries that the webhook did not take.
    pub failed_tries: SharedCounter,
    /// Alerts for the webhook that were given up.
    pub undelivered: SharedCounter,
    waiting: AtomicU64,
    /// Facts about agents and addresses for which the anomaly detector had no place.
    pub overflowed: SharedCounter,
    cases: AtomicU64,
}

impl AlertMetrics {
    /// Counts an alert by the place of its kind.
    pub fn raised(&self, kind: usize) {
        if let Some(counter) = self.raised.get(kind) {
            counter.inc();
        }
    }

    /// Alerts of a kind.
    #[must_use]
    pub fn count(&self, kind: usize) -> u64 {
        self.raised.get(kind).map_or(0, SharedCounter::get)
    }

    /// Notes how many alerts wait for their next try.
    pub fn set_waiting(&self, waiting: u64) {
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    /// Alerts that wait for their next try.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Notes how many cases are open.
    pub fn set_cases(&self, cases: u64) {
        self.cases.store(cases, Ordering::Relaxed);
    }

    /// Cases of unusual behaviour that go on.
    #[must_use]
    pub fn cases(&self) -> u64 {
        self.cases.load(Ordering::Relaxed)
    }
}

/// Everything `/metrics` tells. Built once, when all workers are known.
#[derive(Debug, Clone)]
pub struct MetricSources {
    /// One a worker.
    pub workers: Vec<Arc<WorkerMetrics>>,
    /// The audit queues, one a worker and one for other threads.
    pub queues: Vec<Arc<EventQueue>>,
    /// The audit writer's counts.
    pub audit: Arc<AuditMetrics>,
    /// What is counted of alerts.
    pub alerts: Arc<AlertMetrics>,
    /// The process's state.
    pub lifecycle: Arc<Lifecycle>,
    /// This program's version.
    pub version: &'static str,
    /// The I/O driver in use: `io_uring` or `epoll`.
    pub driver: &'static str,
}

impl MetricSources {
    /// Encodes everything as OpenMetrics text, which Prometheus reads ([`CONTENT_TYPE`]).
    ///
    /// # Errors
    /// Only if formatting fails, which writing into a `String` does not.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        encode::encode(self)
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
