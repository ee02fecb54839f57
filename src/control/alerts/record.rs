//! The alerts on disk, so that a restart forgets none: which were raised, and what has become of each at the webhook.
//!
//! One task on the control thread writes what has changed, as soon as it has, several in one write. Nobody waits for it: an alert goes to the webhook
//! beside, so that a disk that hangs holds up no alert that says so. What the disk does not take is tried again; meanwhile at most [`BEHIND`] are
//! remembered, and later ones are logged and not written.
//!
//! Kept are the newest [`KEPT`], and none for longer than [`RETAIN`]. What is still to be delivered is kept in any case.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};

use super::{Alert, AlertKind, Alerts, Delivery, Journal, KEPT, NewAlert, Subject};
use crate::store::alerts::{AlertRow, Kept};
use crate::store::{Store, StoreError};

/// Alerts of which the store does not know all: what the webhook may hold, and as many again.
const BEHIND: usize = 1024;
/// Time between two attempts at a disk that fails.
const RETRY: Duration = Duration::from_secs(2);
/// How long an alert is kept.
const RETAIN: Duration = Duration::from_secs(90 * 24 * 3600);
/// How often what is too old is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// What earlier processes have raised, the newest first. Blocks the thread: for the start.
///
/// # Errors
/// The store's.
pub fn read(store: &Store) -> Result<Vec<Alert>, StoreError> {
    Ok(store.alerts_now()?.into_iter().filter_map(alert).collect())
}

/// Writes alerts down.
pub struct Record {
    store: Store,
    alerts: Alerts,
    journal: Journal,
    behind: Vec<Behind>,
    clock: fn() -> u64,
}

/// An alert that the store does not know, or of which it does not know the end.
struct Behind {
    alert: Arc<Alert>,
    written: Option<Delivery>,
}

impl Record {
    /// Of these alerts. `clock`: milliseconds since the Unix epoch.
    #[must_use]
    pub fn new(store: Store, alerts: Alerts, mut journal: Journal, clock: fn() -> u64) -> Self {
        let left = std::mem::take(&mut journal.left);
        let behind = left.into_iter().map(|alert| Behind { alert, written: Some(Delivery::Pending) }).collect();
        Self { store, alerts, journal, behind, clock }
    }

    /// Writes until `stop` is dropped, and then once more.
    pub async fn keep(mut self, mut stop: oneshot::Receiver<()>) {
        let settled = Arc::clone(&self.journal.settled);
        let mut forget = tokio::time::interval(FORGET_EVERY);
        forget.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry_at = None;
        let mut new = Vec::new();
        loop {
            let room = BEHIND.saturating_sub(self.behind.len());
            let (mut is_last, mut is_due) = (false, false);
            tokio::select! {
                _ = &mut stop => is_last = true,
                _ = self.journal.alerts.recv_many(&mut new, room), if room > 0 => {}
                () = settled.notified() => {}
                _ = forget.tick() => is_due = true,
                () = tokio::time::sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {}
            }
            while is_last && let Ok(alert) = self.journal.alerts.try_recv() {
                new.push(alert);
            }
            self.behind.extend(new.drain(..).map(|alert| Behind { alert, written: None }));
            let written = self.write(is_due).await;
            retry_at = written.is_err().then(|| Instant::now() + RETRY);
            if is_last {
                return;
            }
        }
    }

    /// Brings the store up to date. `is_due`: what is too old is forgotten even if there is nothing new.
    async fn write(&mut self, is_due: bool) -> Result<(), StoreError> {
        let since_ms = (self.clock)().saturating_sub(u64::try_from(RETAIN.as_millis()).unwrap_or(u64::MAX));
        self.alerts.forget_before(since_ms);
        let now: Vec<Delivery> = self.behind.iter().map(|behind| behind.alert.delivery()).collect();
        let changed = self.behind.iter().zip(&now).filter(|(behind, now)| behind.written != Some(**now));
        let rows: Vec<AlertRow> = changed.map(|(behind, now)| row(&behind.alert, *now)).collect();
        if rows.is_empty() && !is_due {
            return Ok(());
        }
        let written = self.store.put_alerts(rows, Kept { newest: KEPT, since_ms }).await;
        if let Err(error) = &written {
            tracing::warn!(%error, "alerts cannot be written down yet");
            return written;
        }
        for (behind, now) in self.behind.iter_mut().zip(now) {
            behind.written = Some(now);
        }
        self.behind.retain(|behind| behind.written == Some(Delivery::Pending));
        written
    }
}

fn row(alert: &Alert, delivery: Delivery) -> AlertRow {
    let NewAlert { kind, subject, details } = &alert.new;
    let (agent, address) = match subject {
        Subject::Agent(id) => (Some(id.clone()), None),
        Subject::Address(ip) => (None, Some(*ip)),
        Subject::Gateway => (None, None),
    };
    AlertRow {
        id: alert.id.clone(),
        raised_ms: alert.at_ms,
        kind: kind.name().to_owned(),
        agent,
        address,
        details: details.clone(),
        delivery: delivery as u8,
    }
}

/// `None`: of a kind that this version does not know.
fn alert(row: AlertRow) -> Option<Alert> {
    let kind = AlertKind::of_name(&row.kind)?;
    let subject = match (row.agent, row.address) {
        (Some(id), _) => Subject::Agent(id),
        (None, Some(ip)) => Subject::Address(ip),
        (None, None) => Subject::Gateway,
    };
    let alert = Alert::new(row.id, row.raised_ms, NewAlert { kind, subject, details: row.details });
    alert.settle(Delivery::ALL.get(usize::from(row.delivery)).copied().unwrap_or(Delivery::None));
    Some(alert)
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
