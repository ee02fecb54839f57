//! The control plane's side of pinned tools: what workers have seen is written down and told to people, and operators accept.
//!
//! Promises
//! - What was seen first is on disk soon after it was seen; until then a crash forgets it, and the next sight is the first again. Where the disk
//!   refuses it is tried again each second.
//! - A changed description raises one alert for each description of a tool, and another one only after a restart.
//! - What an operator accepts is on disk before it holds, and has its line in the audit trail.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::alerts::{AlertKind, Alerts, NewAlert, Subject};
use crate::state::events::{Event, EventKind, EventQueue, clip_bytes};
use crate::state::pins::{Book, NotAccepted, Pin, Pins, ToolHash};
use crate::store::pins::StoredPin;
use crate::store::{Store, StoreError};

/// After this long a write that failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// What is written down at the end may take this long.
const LAST_WRITE: Duration = Duration::from_secs(2);
/// Tools that one alert names.
const MAX_NAMED: usize = 5;
/// Rows of one write.
const MAX_ROWS: usize = 1024;

/// Why a description was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The store says no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be.
    #[error("the description cannot be accepted")]
    NotAccepted(NotAccepted),
    /// The audit trail has no room.
    #[error("the audit trail has no room")]
    Unrecorded,
}

/// All that changes pins. Cheap to clone.
#[derive(Clone)]
pub struct ToolPins {
    store: Store,
    pins: Arc<Pins>,
    /// What is on disk. Held for a write, so that what is on disk last is what was put last.
    written: Arc<Mutex<Arc<Book>>>,
    events: Arc<EventQueue>,
    alerts: Alerts,
    clock: fn() -> u64,
}

impl ToolPins {
    /// `pins` is what workers look at; `clock` is in milliseconds since the Unix epoch.
    #[must_use]
    pub fn new(store: Store, pins: Arc<Pins>, events: Arc<EventQueue>, alerts: Alerts, clock: fn() -> u64) -> Self {
        // Nobody has seen anything yet: this is what was read from the store.
        let written = Arc::new(Mutex::new(pins.book()));
        Self { store, pins, written, events, alerts, clock }
    }

    /// What is known.
    #[must_use]
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Writes down what is seen, and raises alerts. Never ends.
    pub async fn keep(self) {
        // What was on disk at the start was told of by the process that saw it.
        let known = self.written.lock().await.clone();
        let key = |(upstream, tool, pin): (&str, &str, &Pin)| (Box::from(upstream), Box::from(tool), pin.seen);
        let mut told: HashSet<_> = known.iter().map(key).collect();
        drop(known);
        loop {
            self.pins.changed().await;
            self.tell(&mut told);
            while let Err(error) = self.write().await {
                tracing::warn!(%error, "what tools say of themselves cannot be written down yet");
                tokio::time::sleep(TRY_AGAIN).await;
            }
        }
    }

    /// Writes down what was seen last, at the end.
    pub async fn write_down_last(&self) {
        if let Ok(Err(error)) = tokio::time::timeout(LAST_WRITE, self.write()).await {
            tracing::warn!(%error, "what tools say of themselves could not be written down");
        }
    }

    async fn write(&self) -> Result<(), StoreError> {
        let mut written = self.written.lock().await;
        let book = self.pins.book();
        let is_new = |(upstream, tool, pin): &(&str, &str, &Pin)| written.get(upstream, tool) != Some(**pin);
        let rows: Vec<StoredPin> = book
            .iter()
            .filter(is_new)
            .map(|(upstream, tool, pin)| (upstream.to_owned(), tool.to_owned(), *pin))
            .collect();
        for part in rows.chunks(MAX_ROWS) {
            self.store.put_pins(part.to_vec()).await?;
        }
        *written = book;
        Ok(())
    }

    /// Raises an alert for what has changed and was not told yet.
    fn tell(&self, told: &mut HashSet<(Box<str>, Box<str>, ToolHash)>) {
        let mut changed: HashMap<String, Vec<String>> = HashMap::new();
        for (upstream, tool, pin) in self.pins.book().iter() {
            let is_changed = self.pins.effective(upstream, tool, *pin).is_changed();
            let key = (Box::from(upstream), Box::from(tool), pin.seen);
            if is_changed && told.insert(key) {
                changed.entry(upstream.to_owned()).or_default().push(tool.to_owned());
            }
        }
        for (upstream, mut tools) in changed {
            tools.sort_unstable();
            let count = tools.len();
            tools.truncate(MAX_NAMED);
            let names: Vec<String> = tools.iter().map(|tool| plain(tool)).collect();
            let details = format!("{count} of upstream {upstream}: {}", names.join(", "));
            self.alerts.raise(NewAlert { kind: AlertKind::ToolChanged, subject: Subject::Gateway, details });
        }
    }

    /// Accepts the description of a tool that was seen last. `from` is the operator's address.
    ///
    /// # Errors
    /// [`PinError`]; then all is as it was.
    pub async fn accept(&self, upstream: String, tool: String, hash: ToolHash, from: IpAddr) -> Result<Pin, PinError> {
        let place = self.events.reserve().map_err(|_| PinError::Unrecorded)?;
        let this = self.clone();
        let accepted = tokio::spawn(async move {
            let _alone = this.written.lock().await;
            let no = PinError::NotAccepted;
            let pin = this.pins.book().get(&upstream, &tool).ok_or(no(NotAccepted::Unknown))?;
            if this.pins.given(&upstream, &tool).is_some() {
                return Err(no(NotAccepted::Given));
            }
            if pin.seen != hash {
                return Err(no(NotAccepted::NotSeen));
            }
            let pin = Pin { accepted: hash, ..pin };
            this.store.put_pins(vec![(upstream.clone(), tool.clone(), pin)]).await?;
            // Another one may have been seen meanwhile: then the book has changed, and is written down again.
            let pin = this.pins.accept(&upstream, &tool, hash).map_err(no)?;
            let event = Event::new(EventKind::ConfigReloaded, (this.clock)()).with_rule("operator");
            let event = event.with_tool(tool.as_bytes());
            place.commit(event.with_details(format_args!("description of {upstream}'s tool accepted, from {from}")));
            Ok(pin)
        });
        accepted.await.unwrap_or(Err(PinError::Store(StoreError::Stopped)))
    }
}

/// A tool's name as it can be shown to people: a server has chosen it.
fn plain(name: &str) -> String {
    let clipped = clip_bytes::<48>(name.as_bytes());
    clipped.chars().map(|c| if c.is_ascii_graphic() && c != '"' { c } else { '?' }).collect()
}
