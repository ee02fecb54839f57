//! Alerts: the one way by which anything tells people that something is wrong.
//!
//! Whoever has an [`Alerts`] may [`raise`](Alerts::raise) one, from any thread but a worker's: it allocates. An alert leaves an `alert` event in the
//! audit trail, moves `ringwall_alerts_total`, is kept for `GET /admin/alerts` (the last [`KEPT`]), is logged, is written down ([`record`]), and goes to the
//! webhook if it is HIGH or CRITICAL ([`webhook`]). Raising never waits: where a queue is full, that is counted and logged.
//!
//! A kind that an outsider can cause as often as he likes has a [quiet time](AlertKind::quiet_ms): while it lasts, the same kind about
//! the same subject is counted and not told again. A restart does not end it.

pub mod record;
pub mod webhook;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc};

use crate::observe::metrics::AlertMetrics;
use crate::state::events::{Event, EventKind, EventQueue, Severity};

/// Alerts that are kept for the admin API: some 300 KiB.
pub const KEPT: usize = 1000;
/// Alerts on their way to the webhook's task, and to the record's.
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

            /// The kind of this name.
            #[must_use]
            pub fn of_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.name() == name)
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
    /// An agent has taken four fifths of what it may spend.
    SpendCapNear = "spend-cap-near", Medium, "Four fifths of a spend cap are taken", quiet 0;
    /// Tools describe themselves otherwise than when they were accepted.
    ToolChanged = "tool-changed", High, "The description of a tool has changed", quiet 0;
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

/// What becomes of an alert at the webhook. The numbers stand in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Delivery {
    /// It is not for the webhook, or there is none.
    None = 0,
    /// It was not taken yet.
    Pending = 1,
    /// It was taken.
    Delivered = 2,
    /// It was not taken, and is not sent again.
    GivenUp = 3,
}

impl Delivery {
    /// Every state there is, by its number.
    pub const ALL: [Delivery; 4] = [Self::None, Self::Pending, Self::Delivered, Self::GivenUp];

    /// Its name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::GivenUp => "given-up",
        }
    }
}

/// An alert that was raised.
#[derive(Debug)]
pub struct Alert {
    /// 24 hexadecimal digits that grow with time.
    pub id: String,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What, with whom, how.
    pub new: NewAlert,
    delivery: AtomicU8,
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
    journal: mpsc::Sender<Arc<Alert>>,
    clock: fn() -> u64,
}

/// What goes to the webhook; its task takes it.
pub struct Outbox {
    alerts: mpsc::Receiver<Arc<Alert>>,
    /// What an earlier process has left, the oldest first.
    left: Vec<Arc<Alert>>,
    /// Rung when the webhook has done with an alert.
    settled: Arc<Notify>,
}

/// What goes into the record; its task takes it.
pub struct Journal {
    alerts: mpsc::Receiver<Arc<Alert>>,
    left: Vec<Arc<Alert>>,
    settled: Arc<Notify>,
}

/// Where alerts go. Whatever is dropped of it gets none.
pub struct Exits {
    /// For the webhook.
    pub outbox: Outbox,
    /// For the record.
    pub journal: Journal,
}

/// Counters of every kind there is.
#[must_use]
pub fn metrics() -> Arc<AlertMetrics> {
    Arc::new(AlertMetrics::of_kinds(AlertKind::ALL.iter().map(|kind| (kind.name(), kind.severity().wire_name()))))
}

impl Outbox {
    /// Nobody takes alerts: those that an earlier process has left are given up.
    pub fn close(mut self) {
        self.alerts.close();
        for alert in self.left {
            tracing::error!(id = alert.id, "an alert was not delivered: ALERT_WEBHOOK_URL is not set any more");
            alert.settle(Delivery::GivenUp);
        }
        while let Ok(alert) = self.alerts.try_recv() {
            alert.settle(Delivery::None);
        }
        self.settled.notify_one();
    }
}

impl Alerts {
    /// None yet. `events` is the audit queue of the threads that are no workers, `clock` milliseconds since the Unix epoch.
    #[must_use]
    pub fn new(events: Arc<EventQueue>, metrics: Arc<AlertMetrics>, clock: fn() -> u64) -> (Self, Exits) {
        Self::with_past(Vec::new(), events, metrics, clock)
    }

    /// With those that earlier processes have raised, the newest first.
    #[must_use]
    pub fn with_past(
        past: Vec<Alert>,
        events: Arc<EventQueue>,
        metrics: Arc<AlertMetrics>,
        clock: fn() -> u64,
    ) -> (Self, Exits) {
        let (outbox, for_webhook) = mpsc::channel(OUTBOX);
        let (journal, for_record) = mpsc::channel(OUTBOX);
        let mut recent: VecDeque<Arc<Alert>> = past.into_iter().map(Arc::new).collect();
        let left: Vec<_> = recent.iter().rev().filter(|alert| alert.delivery() == Delivery::Pending).cloned().collect();
        recent.truncate(KEPT);
        let newest = recent.front().and_then(|alert| u64::from_str_radix(alert.id.get(..16)?, 16).ok());
        let (recent, last) = (ArcSwap::from_pointee(recent), AtomicU64::new(newest.unwrap_or(0)));
        let settled = Arc::<Notify>::default();
        let exits = Exits {
            outbox: Outbox { alerts: for_webhook, left: left.clone(), settled: Arc::clone(&settled) },
            journal: Journal { alerts: for_record, left, settled },
        };
        (Self(Arc::new(Inner { recent, last, events, metrics, outbox, journal, clock })), exits)
    }

    /// Raises an alert. False: the same was raised within its quiet time, and was counted.
    pub fn raise(&self, new: NewAlert) -> bool {
        let inner = &*self.0;
        let now_ms = (inner.clock)();
        if self.is_repeated(&new, now_ms) {
            inner.metrics.repeated.inc();
            return false;
        }
        let alert = Arc::new(Alert::new(self.next_id(now_ms), now_ms, new));
        let kind = alert.new.kind;
        tracing::warn!(id = alert.id, kind = kind.name(), severity = kind.severity().wire_name(), "{}", kind.title());
        inner.metrics.raised(kind.index());
        // A full queue counts what it refuses.
        let _ = inner.events.push(alert.event());
        if alert.delivery() == Delivery::Pending {
            self.send_out(&alert);
        }
        inner.recent.rcu(|recent| {
            let mut recent = VecDeque::clone(recent);
            recent.truncate(KEPT - 1);
            recent.push_front(Arc::clone(&alert));
            recent
        });
        if let Err(mpsc::error::TrySendError::Full(alert)) = inner.journal.try_send(alert) {
            tracing::error!(id = alert.id, "an alert is not written down: too many are waiting");
        }
        true
    }

    /// Puts an alert into the webhook's outbox, if there is a webhook.
    fn send_out(&self, alert: &Arc<Alert>) {
        match self.0.outbox.try_send(Arc::clone(alert)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => alert.settle(Delivery::None),
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.0.metrics.undelivered.inc();
                tracing::error!(id = alert.id, "an alert does not go to the webhook: too many are waiting");
                alert.settle(Delivery::GivenUp);
            }
        }
    }

    /// Forgets those from before this time, but none that is still to be delivered.
    fn forget_before(&self, at_ms: u64) {
        let is_kept = |alert: &Arc<Alert>| alert.at_ms >= at_ms || alert.delivery() == Delivery::Pending;
        if self.0.recent.load().iter().all(is_kept) {
            return;
        }
        self.0.recent.rcu(|recent| {
            let mut recent = VecDeque::clone(recent);
            recent.retain(is_kept);
            recent
        });
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
    /// One that is HIGH or CRITICAL is to be delivered.
    fn new(id: String, at_ms: u64, new: NewAlert) -> Self {
        let delivery = if new.kind.severity() >= Severity::High { Delivery::Pending } else { Delivery::None };
        Self { id, at_ms, new, delivery: AtomicU8::new(delivery as u8) }
    }

    /// What has become of it at the webhook.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        let number = usize::from(self.delivery.load(Ordering::Acquire));
        Delivery::ALL.get(number).copied().unwrap_or(Delivery::None)
    }

    fn settle(&self, delivery: Delivery) {
        self.delivery.store(delivery as u8, Ordering::Release);
    }

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
