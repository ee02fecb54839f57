//! Alerts: the one way by which anything tells people that something is wrong.
//!
//! Whoever has an [`Alerts`] may [`raise`](Alerts::raise) one, from any thread but a worker's: it allocates. An alert leaves an `alert` event in the
//! audit trail, moves `ringwall_alerts_total`, is kept for `GET /admin/alerts` (the last [`KEPT`]), is logged, and goes to the
//! webhook if it is HIGH or CRITICAL ([`webhook`]). Raising never waits: where a queue is full, that is counted and logged.
//!
//! A kind that an outsider can cause as often as he likes has a [quiet time](AlertKind::quiet_ms): while it lasts, the same kind about
//! the same subject is counted and not told again.

pub mod webhook;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::observe::metrics::AlertMetrics;
use crate::state::events::{Event, EventKind, EventQueue, Severity};

/// Alerts that are kept for the admin API: some 300 KiB.
pub const KEPT: usize = 1000;
/// Alerts on their way to the webhook's task.
const OUTBOX: usize = 64;

macro_rules! alert_kinds {
    ($($(#[$doc:meta])* $name:ident = $wire:literal, $severity:ident, $title:literal, quiet $quiet:literal;)*) => {
        /// What is wrong. The names on the wire are part of the contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum AlertKind { $($(#[$doc])* $name,)* }

        impl AlertKind {
            /// Every kind there is.
            pub const ALL: &'static [AlertKind] = &[$(AlertKind::$name,)*];

            /// Its name: the `rule` of the audit line, the `kind` of answers, webhooks and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(AlertKind::$name => $wire,)* }
            }

            /// How serious it is.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(AlertKind::$name => Severity::$severity,)* }
            }

            /// What a person reads first.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(AlertKind::$name => $title,)* }
            }

            /// How long the same about the same subject is not told again, milliseconds. 0: who raises it sees to that.
            #[must_use]
            pub const fn quiet_ms(self) -> u64 {
                match self { $(AlertKind::$name => $quiet * 1000,)* }
            }

            /// The position in [`AlertKind::ALL`].
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

alert_kinds! {
    /// An agent does much more than in the minute before.
    ActivitySpike = "activity-spike", Medium, "An agent does much more than before", quiet 0;
    /// An address keeps failing to authenticate.
    FailedAuthentications = "failed-authentications", High, "Many failed authentications from one address", quiet 0;
    /// Tokens pile up for one agent.
    TokenBurst = "token-burst", Medium, "Many tokens issued for one agent", quiet 0;
    /// A refresh token was used twice: one of its holders has stolen it.
    RefreshReuse = "refresh-reuse", High, "A refresh token was used twice", quiet 300;
    /// An address is locked out after repeated failures.
    BruteForceLockout = "brute-force-lockout", High, "Brute-force lockout", quiet 900;
    /// The audit trail cannot be written.
    AuditUnavailable = "audit-unavailable", Critical, "The audit trail cannot be written", quiet 600;
}

/// Whom an alert is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An agent, by its id.
    Agent(String),
    /// An address; of IPv6 the first of its /64.
    Address(IpAddr),
    /// The gateway itself.
    Gateway,
}

/// An alert that is to be raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAlert {
    /// What is wrong.
    pub kind: AlertKind,
    /// With whom.
    pub subject: Subject,
    /// Numbers and circumstances, for a person. No secret, no address, no name that a client chose: it goes into the audit trail.
    pub details: String,
}

/// An alert that was raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// 24 hexadecimal digits that grow with time.
    pub id: String,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What, with whom, how.
    pub new: NewAlert,
}

/// The alerts of the process. A cheap clone.
#[derive(Clone)]
pub struct Alerts(Arc<Inner>);

struct Inner {
    recent: ArcSwap<VecDeque<Arc<Alert>>>,
    /// The number in the last id.
    last: AtomicU64,
    events: Arc<EventQueue>,
    metrics: Arc<AlertMetrics>,
    outbox: mpsc::Sender<Arc<Alert>>,
    clock: fn() -> u64,
}

/// What goes to the webhook; its task takes it.
pub type Outbox = mpsc::Receiver<Arc<Alert>>;

/// Counters of every kind there is.
#[must_use]
pub fn metrics() -> Arc<AlertMetrics> {
    Arc::new(AlertMetrics::of_kinds(AlertKind::ALL.iter().map(|kind| (kind.name(), kind.severity().wire_name()))))
}

impl Alerts {
    /// None yet. `events` is the audit queue of the threads that are no workers, `clock` milliseconds since the Unix epoch.
    #[must_use]
    pub fn new(events: Arc<EventQueue>, metrics: Arc<AlertMetrics>, clock: fn() -> u64) -> (Self, Outbox) {
        let (outbox, outgoing) = mpsc::channel(OUTBOX);
        let inner = Inner { recent: ArcSwap::default(), last: AtomicU64::new(0), events, metrics, outbox, clock };
        (Self(Arc::new(inner)), outgoing)
    }

    /// Raises an alert. False: the same was raised within its quiet time, and was counted.
    pub fn raise(&self, new: NewAlert) -> bool {
        let inner = &*self.0;
        let now_ms = (inner.clock)();
        if self.is_repeated(&new, now_ms) {
            inner.metrics.repeated.inc();
            return false;
        }
        let alert = Arc::new(Alert { id: self.next_id(now_ms), at_ms: now_ms, new });
        let kind = alert.new.kind;
        tracing::warn!(id = alert.id, kind = kind.name(), severity = kind.severity().wire_name(), "{}", kind.title());
        inner.metrics.raised(kind.index());
        // A full queue counts what it refuses.
        let _ = inner.events.push(alert.event());
        inner.recent.rcu(|recent| {
            let mut recent = VecDeque::clone(recent);
            recent.truncate(KEPT - 1);
            recent.push_front(Arc::clone(&alert));
            recent
        });
        if kind.severity() >= Severity::High
            && let Err(mpsc::error::TrySendError::Full(alert)) = inner.outbox.try_send(alert)
        {
            inner.metrics.undelivered.inc();
            tracing::error!(id = alert.id, "an alert does not go to the webhook: too many are waiting");
        }
        true
    }

    /// The last alerts, newest first.
    #[must_use]
    pub fn recent(&self) -> Arc<VecDeque<Arc<Alert>>> {
        self.0.recent.load_full()
    }

    fn is_repeated(&self, new: &NewAlert, now_ms: u64) -> bool {
        let quiet_ms = new.kind.quiet_ms();
        let same = |alert: &&Arc<Alert>| alert.new.kind == new.kind && alert.new.subject == new.subject;
        let last = self.0.recent.load().iter().find(same).map(|alert| alert.at_ms);
        last.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < quiet_ms)
    }

    /// Later ids are greater, also within a millisecond; the last digits are random, so that no two gateways make the same.
    fn next_id(&self, now_ms: u64) -> String {
        let next = |last: u64| (now_ms << 16).max(last + 1);
        let last = self.0.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        let number = last.map_or(now_ms << 16, next);
        format!("{number:016x}{:08x}", random_u32())
    }
}

/// 0 where the system has no randomness: nothing here depends on it but the spread of retries and ids.
fn random_u32() -> u32 {
    let mut bytes = [0; 4];
    let _ = getrandom::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

impl Alert {
    /// Its line in the audit trail.
    fn event(&self) -> Event {
        let NewAlert { kind, subject, details } = &self.new;
        let event = Event::new(EventKind::Alert, self.at_ms).with_severity(kind.severity()).with_rule(kind.name());
        let event = match subject {
            Subject::Agent(id) => event.with_agent(id),
            Subject::Address(ip) => event.with_ip(*ip),
            Subject::Gateway => event,
        };
        event.with_details(format_args!("{}: {details}", self.id))
    }

    /// It as JSON: in the answers of the admin API and in webhooks.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let NewAlert { kind, subject, details } = &self.new;
        let (agent, address) = match subject {
            Subject::Agent(id) => (Some(id), None),
            Subject::Address(ip) => (None, Some(subject_text(*ip))),
            Subject::Gateway => (None, None),
        };
        serde_json::json!({
            "id": self.id,
            "raisedAt": rfc3339(self.at_ms),
            "kind": kind.name(),
            "severity": kind.severity().wire_name(),
            "title": kind.title(),
            "agent": agent,
            "address": address,
            "details": details,
        })
    }
}

/// An address as alerts name it.
fn subject_text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(_) => ip.to_string(),
        IpAddr::V6(_) => format!("{ip}/64"),
    }
}

fn rfc3339(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", at.unwrap_or_default())
}

#[cfg(test)]
#[path = "alerts/alerts_tests.rs"]
mod tests;
