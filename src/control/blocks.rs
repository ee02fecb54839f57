//! The control plane's side of blocks: what operators block and lift, and what is done about blocks once they hold.
//!
//! Promises
//! - What an operator has asked for holds at once, and is on disk before it is answered. Where the disk refuses, it holds for as long as the
//!   process lives, and the answer says that it is not lasting.
//! - Each change has its line in the audit trail: its place there is taken before anything is done.
//! - An automatic block holds from the failure on that has caused it ([`crate::state::blocks`]). Within [`GATHER`] people are told of it (audit
//!   trail; a lockout is an alert), its client's open connections are asked to close, and it is written down. What cannot be written or told
//!   is tried again each second.
//! - Nobody can block the address that he asks from: a mistyped prefix shall not be the last thing that an operator does.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{Notify, watch};

use super::alerts::{AlertKind, Alerts, NewAlert, Subject};
use super::http::rfc3339;
use crate::state::blocks::view::{MAX_HOSTS, end_of};
use crate::state::blocks::{Block, BlockKind, Blocks, MAX_OPERATORS, Place};
use crate::state::connections::{CloseReason, ConnectionTable};
use crate::state::events::{Event, EventKind, EventQueue, Reservation, Severity};
use crate::state::networks::canonical;
use crate::store::blocks::StoredBlock;
use crate::store::{Store, StoreError};

/// Blocks gather for so long before they are told, closed and written, so that a flood of lockouts costs as much as one.
const GATHER: Duration = Duration::from_millis(50);
/// How often is looked for what has ended, and for what could not be done before.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Rows of one write: what a change that comes behind it waits for.
const WRITE_AT_ONCE: usize = 1_000;

/// Why nothing was blocked or lifted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// It holds, and could not be written down.
    #[error("not on disk: {0}")]
    NotLasting(StoreError),
    /// Operators have blocked as many as they may.
    #[error("there are as many blocks as there may be")]
    TooMany,
    /// The operator's own address would be blocked.
    #[error("the network has the address in it that asks")]
    Own,
    /// Nothing of this name is blocked.
    #[error("this network is not blocked")]
    Unknown,
    /// The audit trail has no room.
    #[error("the audit trail has no room")]
    Unrecorded,
}

/// What an operator wants blocked.
#[derive(Clone, Debug)]
pub struct NewBlock {
    /// Of whom.
    pub network: IpNet,
    /// Why, in an operator's words.
    pub reason: String,
    /// For how long; `None`: until it is lifted.
    pub lifetime: Option<Duration>,
}

/// All that changes blocks on the control plane. Cheap to clone.
#[derive(Clone)]
pub struct Blocking {
    store: Store,
    blocks: Arc<Blocks>,
    connections: Arc<ConnectionTable>,
    events: Arc<EventQueue>,
    alerts: Alerts,
    /// For the control listeners: who is blocked has changed.
    changed: Arc<watch::Sender<()>>,
    clock: fn() -> u64,
}

impl Blocking {
    /// `clock` is in milliseconds since the Unix epoch.
    #[must_use]
    pub fn new(
        store: Store,
        blocks: Arc<Blocks>,
        connections: Arc<ConnectionTable>,
        events: Arc<EventQueue>,
        alerts: Alerts,
        clock: fn() -> u64,
    ) -> Self {
        Self { store, blocks, connections, events, alerts, changed: Arc::new(watch::Sender::new(())), clock }
    }

    /// Who is blocked.
    #[must_use]
    pub fn blocks(&self) -> &Arc<Blocks> {
        &self.blocks
    }

    /// Marked as changed after each change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Blocks a network, in the place of what was said of it before. `from` is the operator's address.
    ///
    /// # Errors
    /// [`BlockError`]. With [`BlockError::NotLasting`] it holds, and not over a restart.
    pub async fn add(&self, new: NewBlock, from: IpAddr) -> Result<Arc<Block>, BlockError> {
        let network = canonical(new.network);
        if network.contains(&from.to_canonical()) {
            return Err(BlockError::Own);
        }
        let now_ms = (self.clock)();
        let view = self.blocks.view();
        let is_new = view.get(network).is_none_or(|old| old.kind != BlockKind::Operator);
        if is_new && view.count(BlockKind::Operator) >= MAX_OPERATORS {
            return Err(BlockError::TooMany);
        }
        let place = self.place()?;
        let lifetime_ms = new.lifetime.map(|lifetime| u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX));
        let until_ms = lifetime_ms.map_or(u64::MAX, |lifetime_ms| now_ms.saturating_add(lifetime_ms));
        let block = Block::new(network, BlockKind::Operator, new.reason.into(), now_ms, until_ms);
        // Told by the line below.
        block.note_told();
        let this = self.clone();
        to_the_end(async move {
            let row = StoredBlock::of(&block);
            if !this.blocks.block(block, now_ms) {
                return Err(BlockError::TooMany);
            }
            let stored = this.store.put_blocks(vec![row]).await;
            let end = end_of(until_ms)
                .map_or_else(|| "until it is lifted".to_owned(), |end| format!("until {}", rfc3339(end)));
            let event = about(network, Event::new(EventKind::BlockedConnection, now_ms)).with_rule("operator");
            place.commit(event.with_details(format_args!("BLOCKED /{} {end}, from {from}", network.prefix_len())));
            stored.map_err(BlockError::NotLasting)?;
            let block = this.blocks.view().get(network).cloned().ok_or(BlockError::Unknown)?;
            block.note_stored();
            Ok(block)
        })
        .await
    }

    /// Lifts the block of exactly this network. `from` is the operator's address.
    ///
    /// # Errors
    /// [`BlockError`]. With [`BlockError::NotLasting`] it is lifted, and comes back with a restart.
    pub async fn lift(&self, network: IpNet, from: IpAddr) -> Result<Arc<Block>, BlockError> {
        let (network, now_ms) = (canonical(network), (self.clock)());
        let place = self.place()?;
        let this = self.clone();
        to_the_end(async move {
            // From memory first: what is written down of it afterwards would come back with a restart.
            let lifted = this.blocks.lift(network);
            let forgotten = this.store.forget_block(network).await;
            // What was lifted before and could not be forgotten is lifted by trying again.
            let was_stored = matches!(forgotten, Ok(true));
            let lifted = match lifted {
                Some(lifted) => lifted,
                None if was_stored => Arc::new(Block::new(network, BlockKind::Operator, "".into(), now_ms, now_ms)),
                None => return Err(BlockError::Unknown),
            };
            let event = about(network, Event::new(EventKind::BlockedConnection, now_ms)).with_rule("operator");
            let (kind, length) = (lifted.kind.name(), network.prefix_len());
            let details = format_args!("block of /{length} ({kind}) lifted, from {from}");
            place.commit(event.with_severity(Severity::Info).with_details(details));
            forgotten.map_err(BlockError::NotLasting)?;
            Ok(lifted)
        })
        .await
    }

    /// Does what is to be done about blocks that hold, and clears away those that have ended; for ever. `changed` is what
    /// [`Blocks::new`] was given to wake.
    pub(super) async fn keep(self, changed: Arc<Notify>) {
        let (mut seen, mut displaced, mut closed_under) = (0, 0, 0);
        loop {
            let woken = tokio::time::timeout(LOOK_EVERY, changed.notified()).await.is_ok();
            if woken {
                tokio::time::sleep(GATHER).await;
            }
            let (generation, now_ms) = (self.blocks.generation(), (self.clock)());
            // Once more a second after the last change: a connection that was let in just before it may have been entered just after.
            if woken || closed_under != generation {
                self.close_connections(now_ms);
                self.changed.send_replace(());
                closed_under = if woken { 0 } else { generation };
            }
            if generation != seen {
                let (told, written) = (self.tell(), self.write_down().await);
                if told && written {
                    seen = generation;
                }
            }
            let now_displaced = self.blocks.view().displaced();
            if now_displaced != displaced {
                tracing::warn!("automatic blocks went before their end: more addresses misbehave than are kept");
            }
            if self.blocks.clear_ended(now_ms) || now_displaced != displaced {
                displaced = now_displaced;
                if let Err(error) = self.store.forget_ended_blocks(now_ms, MAX_HOSTS).await {
                    tracing::debug!(%error, "blocks that have ended are cleared away later");
                }
            }
        }
    }

    /// [`Blocking::write_down`] for the end of the process.
    pub(super) async fn write_down_last(&self) {
        if tokio::time::timeout(Duration::from_secs(2), self.write_down()).await != Ok(true) {
            tracing::warn!("blocks could not be written down: those of the last seconds do not come back");
        }
    }

    /// Asks the open connections of blocked clients to close.
    fn close_connections(&self, now_ms: u64) {
        let is_blocked = |ip| self.blocks.find(ip, Place::Doors, now_ms).is_some();
        let wanted = |row: &crate::state::connections::Row| row.closing.is_none() && is_blocked(row.client);
        for row in self.connections.page(None, usize::MAX, wanted).rows {
            // It may be gone by itself.
            let _ = self.connections.request_close(row.id, CloseReason::Blocked);
        }
    }

    /// Tells people of automatic blocks that they do not know of. False: not of all yet.
    fn tell(&self) -> bool {
        for block in self.blocks.view().iter().filter(|block| !block.is_told()) {
            let Ok(place) = self.events.reserve() else { return false };
            block.note_told();
            let end = rfc3339(block.until_ms);
            tracing::warn!(kind = block.kind.name(), until = end, "an address is blocked: {}", block.reason);
            let kind = if block.kind == BlockKind::Lockout { EventKind::Lockout } else { EventKind::BlockedConnection };
            let event = about(block.network, Event::new(kind, block.since_ms)).with_rule(block.kind.name());
            place.commit(event.with_details(format_args!("BLOCKED until {end}: {}", block.reason)));
            if block.kind == BlockKind::Lockout {
                let details = format!("{}; locked out until {end}", block.reason);
                let subject = Subject::Address(block.network.addr());
                self.alerts.raise(NewAlert { kind: AlertKind::BruteForceLockout, subject, details });
            }
        }
        true
    }

    /// Writes automatic blocks down that are not on disk. False: not all of them.
    async fn write_down(&self) -> bool {
        loop {
            // Asked anew for each write: what was lifted meanwhile is not written.
            let view = self.blocks.view();
            let new: Vec<_> = view.iter().filter(|block| !block.is_stored()).take(WRITE_AT_ONCE).cloned().collect();
            if new.is_empty() {
                return true;
            }
            let rows = new.iter().map(|block| StoredBlock::of(block)).collect();
            if let Err(error) = self.store.put_blocks(rows).await {
                tracing::debug!(%error, "blocks are written down later");
                return false;
            }
            new.iter().for_each(|block| block.note_stored());
        }
    }

    fn place(&self) -> Result<Reservation, BlockError> {
        self.events.reserve().map_err(|_| BlockError::Unrecorded)
    }
}

/// The event with the network's first address on it.
fn about(network: IpNet, event: Event) -> Event {
    event.with_ip(network.addr())
}

/// Runs a change in a task of its own: who has asked may go away in the middle of it.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, BlockError>> + Send + 'static,
) -> Result<T, BlockError> {
    tokio::spawn(change).await.unwrap_or(Err(BlockError::NotLasting(StoreError::Stopped)))
}
