//! The control plane's side of agents' limits: what operators give and take back.
//!
//! Promises
//! - A change is confirmed when it is on disk, and holds then for the next call on every worker: the [book](LimitBook) that workers look at is
//!   published before the answer.
//! - Changes come one after the other, so that what is in force is what is on disk.
//! - Each change has its line in the audit trail: its place there is taken before anything is done.
//! - A change that was begun is brought to its end, whether or not anybody still waits for its answer.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use arrayvec::ArrayString;
use tokio::sync::Mutex;

use crate::guard::LimitBook;
use crate::guard::limits::MAX_OVERRIDES;
use crate::settings::policy::Limits;
use crate::state::events::{Event, EventKind, EventQueue, Reservation};
use crate::state::rates::RateTable;
use crate::store::limits::Put;
use crate::store::{Store, StoreError};

/// Why limits were not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// The store says no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// As many agents have limits of their own as may have.
    #[error("there are as many agents with limits of their own as there may be: {MAX_OVERRIDES}")]
    TooMany,
    /// The agent was given none.
    #[error("the agent was given no limits")]
    Unknown,
    /// The audit trail has no room.
    #[error("the audit trail has no room")]
    Unrecorded,
}

/// Where it is counted how often something was done.
#[derive(Clone)]
pub struct RateTables {
    /// What reaches the gateway.
    pub traffic: Arc<RateTable>,
    /// Tool calls.
    pub actions: Arc<RateTable>,
}

/// All that changes limits, and sees how much of them is used. Cheap to clone.
#[derive(Clone)]
pub struct GivenLimits {
    store: Store,
    /// What workers look at.
    book: Arc<ArcSwap<LimitBook>>,
    tables: RateTables,
    /// Held for a change.
    changing: Arc<Mutex<()>>,
    events: Arc<EventQueue>,
    clock: fn() -> u64,
}

impl GivenLimits {
    /// `book` is what workers look at; `clock` is in milliseconds since the Unix epoch.
    #[must_use]
    pub fn new(
        store: Store,
        book: Arc<ArcSwap<LimitBook>>,
        tables: RateTables,
        events: Arc<EventQueue>,
        clock: fn() -> u64,
    ) -> Self {
        Self { store, book, tables, changing: Arc::default(), events, clock }
    }

    /// Where it is counted.
    #[must_use]
    pub fn tables(&self) -> &RateTables {
        &self.tables
    }

    /// What is in force.
    #[must_use]
    pub fn book(&self) -> Arc<LimitBook> {
        self.book.load_full()
    }

    /// Gives an agent limits, in place of what it was given before. `from` is the operator's address.
    ///
    /// # Errors
    /// [`LimitsError`]; then all is as it was.
    pub async fn give(&self, agent: String, limits: Limits, from: IpAddr) -> Result<(), LimitsError> {
        let place = self.place()?;
        let this = self.clone();
        to_the_end(async move {
            let _alone = this.changing.lock().await;
            let now_ms = (this.clock)();
            match this.store.put_limits(agent.clone(), limits, now_ms).await? {
                Put::TooMany => return Err(LimitsError::TooMany),
                Put::Done => {}
            }
            this.book.store(Arc::new(this.book.load().with(&agent, limits)));
            let event = Event::new(EventKind::ConfigReloaded, now_ms).with_agent(&agent).with_rule("operator");
            place.commit(event.with_details(format_args!("limits {}, from {from}", shown(&limits))));
            Ok(())
        })
        .await
    }

    /// Takes back what an agent was given.
    ///
    /// # Errors
    /// [`LimitsError`]; then all is as it was.
    pub async fn take_back(&self, agent: String, from: IpAddr) -> Result<(), LimitsError> {
        let place = self.place()?;
        let this = self.clone();
        to_the_end(async move {
            let _alone = this.changing.lock().await;
            if !this.store.forget_limits(agent.clone()).await? {
                return Err(LimitsError::Unknown);
            }
            this.book.store(Arc::new(this.book.load().without(&agent)));
            let event = Event::new(EventKind::ConfigReloaded, (this.clock)()).with_agent(&agent).with_rule("operator");
            place.commit(event.with_details(format_args!("limits taken back, from {from}")));
            Ok(())
        })
        .await
    }

    fn place(&self) -> Result<Reservation, LimitsError> {
        self.events.reserve().map_err(|_| LimitsError::Unrecorded)
    }
}

/// Runs a change in a task of its own: who has asked may go away in the middle of it.
async fn to_the_end(change: impl Future<Output = Result<(), LimitsError>> + Send + 'static) -> Result<(), LimitsError> {
    tokio::spawn(change).await.unwrap_or(Err(LimitsError::Store(StoreError::Stopped)))
}

/// What was given, for the audit trail: short enough for one line.
fn shown(limits: &Limits) -> ArrayString<96> {
    let mut text = ArrayString::new();
    let numbers = [
        ("m", limits.per_minute.map(u64::from)),
        ("h", limits.per_hour.map(u64::from)),
        ("d", limits.per_day.map(u64::from)),
        ("number/d", limits.same_number_per_day.map(u64::from)),
        ("µ$/d", limits.spend_per_day_microusd),
        ("µ$/month", limits.spend_per_month_microusd),
    ];
    for (unit, number) in numbers {
        if let Some(number) = number {
            let comma = if text.is_empty() { "" } else { ", " };
            // What does not fit is cut, as details are.
            let _ = write!(text, "{comma}{number}/{unit}");
        }
    }
    text
}
