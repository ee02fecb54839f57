//! The open connections: who, from where, through which door, since when, and how much; and how one of them is closed from outside.
//!
//! ## The table
//! A fixed number of slots of 256 bytes ([`super::slots`]), claimed from the worker's own shard. [`ConnectionTable::open`] takes the door's limit,
//! the address's limit and a slot, in this order, and gives all back if one is refused; a [`ConnectionEntry`] holds all three and gives
//! them back on drop, the slot first. So a connection that is listed is counted, and neither limit is ever exceeded: each of the counts
//! keeps its own promise whatever the others do ([`super::doors`], [`super::admission`]).
//!
//! ## Writing and reading
//! The worker that owns the entry is the only one that writes a slot. What is counted on every message is a plain load and store of a
//! relaxed atomic; what belongs together (identity, addresses, door) changes under a version ([`super::seqlock`]). Opening and closing change the
//! version as well, so that a row is always of one connection. Readers walk the slots that were ever used and hold nobody up.
//!
//! ## Closing from outside
//! An id is `generation << 24 | slot`. [`ConnectionTable::request_close`] notes the generation in the slot and rings for the worker; the
//! worker looks at its bell once a tick and compares the generation with its connection's own, so that a request that comes too late hits
//! nobody else. A slot reaches the end of its 2^40 generations after centuries of a thousand connections a second, each in that same slot.

#[path = "connections/row.rs"]
mod row;

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

pub use self::row::{AgentText, PrincipalKind, Row};
use self::row::{Fields, Identity};
use super::admission::{self, AddressPermit, AdmissionTable, same_network};
use super::doors::{Door, DoorCounts, DoorPermit};
use super::seqlock;
use super::slots::{INDEX_BITS, Slots};
use super::sync::{AtomicU64, Ordering};

/// Slots beyond the doors' limits, a worker: a slot is always found, though others may be claiming and giving back.
#[cfg(not(loom))]
const SLACK: usize = 16;
#[cfg(loom)]
const SLACK: usize = 0;

const REASON_BITS: u32 = 8;
const GENERATION_MASK: u64 = (1 << (64 - INDEX_BITS)) - 1;

/// A connection's name, unique within the process. Written in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

impl ConnectionId {
    fn new(generation: u64, index: usize) -> Self {
        Self(((generation & GENERATION_MASK) << INDEX_BITS) | index as u64)
    }

    /// The number that it is.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    fn generation(self) -> u64 {
        self.0 >> INDEX_BITS
    }

    fn index(self) -> usize {
        usize::try_from(self.0 & ((1 << INDEX_BITS) - 1)).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for ConnectionId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `from_str_radix` would take a sign.
        let digits = if text.starts_with('+') { "" } else { text };
        u64::from_str_radix(digits, 16).map(Self)
    }
}

/// Why a connection is closed from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseReason {
    /// An operator asked for it.
    Admin = 1,
    /// The credential it was opened with is not valid any more.
    Revoked = 2,
    /// Its client's address was blocked.
    Blocked = 3,
}

impl CloseReason {
    /// The name in listings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Revoked => "revoked",
            Self::Blocked => "blocked",
        }
    }

    /// A sentence's end for records and goodbyes.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Admin => "closed by an operator",
            Self::Revoked => "credential revoked",
            Self::Blocked => "address blocked",
        }
    }

    const fn from_u64(value: u64) -> Option<Self> {
        match value {
            1 => Some(Self::Admin),
            2 => Some(Self::Revoked),
            3 => Some(Self::Blocked),
            _ => None,
        }
    }
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The door has as many as it may have.
    #[error("the door has reached its connection limit")]
    Door,
    /// The address has as many as it may have.
    #[error("the address has reached its connection limit")]
    Address,
    /// There is no place to note it in. Only limits that were raised since the start, or more than 16 million connections, lead here.
    #[error("the connection table is full")]
    Full,
}

impl From<admission::Refused> for Refused {
    fn from(refused: admission::Refused) -> Self {
        match refused {
            admission::Refused::Limit => Self::Address,
            admission::Refused::TableFull => Self::Full,
        }
    }
}

/// The id names no connection that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such connection is open")]
pub struct NotOpen;

/// What is known of a connection when it comes.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The door it comes to.
    pub door: Door,
    /// Connections the door may have.
    pub door_limit: u64,
    /// The other end.
    pub peer: SocketAddr,
    /// Connections its address may have, over all doors. `None`: it is not counted, for it is a proxy that speaks for many.
    pub address_limit: Option<u16>,
    /// The worker that accepted it, and will own it.
    pub worker: usize,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// The table. Shared by all threads behind an `Arc`.
#[derive(Debug)]
pub struct ConnectionTable<S = RandomState> {
    slots: Slots,
    /// One bell a worker: not 0 when a close was asked of one of its connections.
    bells: Box<[Bell]>,
    doors: Arc<DoorCounts>,
    admission: Arc<AdmissionTable<S>>,
}

#[derive(Debug)]
#[repr(align(128))]
struct Bell(AtomicU64);

/// A part of the table.
#[derive(Debug)]
pub struct Page {
    /// Connections, in no order that means anything.
    pub rows: Vec<Row>,
    /// Where the next part begins; `None` when this was the last.
    pub next: Option<ConnectionId>,
    /// Connections that were being changed whenever they were looked at, and are not among `rows`.
    pub unread: usize,
}

impl<S: BuildHasher> ConnectionTable<S> {
    /// For `workers` workers, doors that take at most `max_connections` together, and `hasher` for [`AdmissionTable::new`].
    #[must_use]
    pub fn new(doors: Arc<DoorCounts>, max_connections: usize, workers: usize, hasher: S) -> Self {
        let workers = workers.max(1);
        let capacity = max_connections.saturating_add(SLACK.saturating_mul(workers));
        Self {
            slots: Slots::new(capacity, workers),
            bells: (0..workers).map(|_| Bell(AtomicU64::new(0))).collect(),
            doors,
            admission: Arc::new(AdmissionTable::new(max_connections, hasher)),
        }
    }

    /// Takes a connection in, or refuses it and leaves everything as it was.
    ///
    /// A connection that is then refused for its address counts at its door for a moment, in which the last place there can be refused to
    /// another one.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn open(self: &Arc<Self>, arrival: &Arrival) -> Result<ConnectionEntry<S>, Refused> {
        let door = self.doors.try_acquire(arrival.door, arrival.door_limit).ok_or(Refused::Door)?;
        let address =
            arrival.address_limit.map(|limit| self.admission.try_acquire(arrival.peer.ip(), limit)).transpose()?;
        let index = self.slots.claim(arrival.worker).ok_or(Refused::Full)?;
        let fields = self.slots.words(index).map(Fields::of).ok_or(Refused::Full)?;
        let generation = ConnectionId(fields.id.load(Ordering::Relaxed)).generation().wrapping_add(1);
        let id = ConnectionId::new(generation, index);
        fields.open(id.0, arrival);
        let table = Arc::clone(self);
        Ok(ConnectionEntry { table, id, door, address, client: arrival.peer.ip(), one_thread: PhantomData })
    }
}

impl<S> ConnectionTable<S> {
    /// At most `limit` connections that are `wanted`, from `start` on.
    #[must_use]
    pub fn page(&self, start: Option<ConnectionId>, limit: usize, wanted: impl Fn(&Row) -> bool) -> Page {
        let mut page = Page { rows: Vec::new(), next: None, unread: 0 };
        for (index, words) in self.slots.used(start.map_or(0, ConnectionId::index)) {
            match Fields::of(words).read() {
                Some(Some(row)) if wanted(&row) => {
                    if page.rows.len() == limit {
                        page.next = Some(ConnectionId::new(0, index));
                        return page;
                    }
                    page.rows.push(row);
                }
                Some(_) => {}
                None => page.unread += 1,
            }
        }
        page
    }

    /// Asks the connection's worker to close it. Returns what was known of it before. A second request changes nothing: the first reason stays.
    ///
    /// # Errors
    /// [`NotOpen`].
    pub fn request_close(&self, id: ConnectionId, reason: CloseReason) -> Result<Row, NotOpen> {
        let fields = self.slots.words(id.index()).map(Fields::of).ok_or(NotOpen)?;
        let row = fields.read().flatten().filter(|row| row.id == id).ok_or(NotOpen)?;
        note_close(&fields, id, reason)?;
        if let Some(bell) = self.bells.get(usize::from(row.worker) % self.bells.len()) {
            bell.0.store(1, Ordering::Release);
        }
        Ok(row)
    }

    /// Whether a close was asked of one of the worker's connections since it last called this. One load when none was.
    #[must_use]
    pub fn has_rung(&self, worker: usize) -> bool {
        let Some(bell) = self.bells.get(worker % self.bells.len()) else { return false };
        bell.0.load(Ordering::Relaxed) != 0 && bell.0.swap(0, Ordering::AcqRel) != 0
    }

    /// Whether the connection was asked to close. For its worker, while it is open.
    #[must_use]
    pub fn asked_to_close(&self, id: ConnectionId) -> Option<CloseReason> {
        let noted = Fields::of(self.slots.words(id.index())?).close.load(Ordering::Acquire);
        let is_own = noted >> REASON_BITS == id.generation();
        CloseReason::from_u64(noted & ((1 << REASON_BITS) - 1)).filter(|_| is_own)
    }

    /// Connections that an address has open, over all doors.
    #[must_use]
    pub fn admission(&self) -> &AdmissionTable<S> {
        &self.admission
    }
}

/// An open connection's place in the table and in both counts; given back on drop.
///
/// It belongs to one thread: only so are its counters written by plain loads and stores.
#[derive(Debug)]
pub struct ConnectionEntry<S = RandomState> {
    table: Arc<ConnectionTable<S>>,
    id: ConnectionId,
    /// None for a proxy that has not named its client. Before `door`, whose count health tells: a door that is told to be empty holds nothing.
    address: Option<AddressPermit<S>>,
    door: DoorPermit,
    client: IpAddr,
    one_thread: PhantomData<Cell<()>>,
}

impl<S> ConnectionEntry<S> {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The door it counts for.
    #[must_use]
    pub fn door(&self) -> Door {
        self.door.door()
    }

    /// Notes that something happened on it. `now_ms` is in milliseconds since the Unix epoch.
    pub fn touch(&self, now_ms: u64) {
        self.with(|fields| fields.last_activity.store(now_ms, Ordering::Relaxed));
    }

    /// Counts messages and bytes from the client.
    pub fn received(&self, messages: u64, bytes: u64) {
        self.with(|fields| {
            add(fields.messages_in, messages);
            add(fields.bytes_in, bytes);
        });
    }

    /// Counts messages and bytes to the client.
    pub fn sent(&self, messages: u64, bytes: u64) {
        self.with(|fields| {
            add(fields.messages_out, messages);
            add(fields.bytes_out, bytes);
        });
    }

    /// Notes who is on it. An agent's id of more than 128 bytes is cut.
    pub fn identify(&self, principal: PrincipalKind, agent: &str) {
        self.publish(|identity| {
            identity.principal = principal;
            identity.set_agent(agent);
        });
    }

    /// Whether its closing was asked for from outside, and why: what the door says goodbye with.
    #[must_use]
    pub fn asked_to_close(&self) -> Option<CloseReason> {
        self.table.asked_to_close(self.id)
    }

    /// Moves it to another door, as an upgrade to WebSocket does.
    ///
    /// # Errors
    /// [`Refused::Door`] when that has `limit` connections; it then stays where it is.
    pub fn move_to(&mut self, door: Door, limit: u64) -> Result<(), Refused> {
        if !self.door.move_to(door, limit) {
            return Err(Refused::Door);
        }
        self.publish(|identity| identity.door = door);
        Ok(())
    }

    /// Notes the client that a proxy's connection is from now on, which was counted for nobody and still is: what closes a client's connections
    /// finds it.
    pub fn speak_for(&mut self, client: IpAddr) {
        if client != self.client {
            self.client = client;
            self.publish(|identity| identity.client = client);
        }
    }

    fn publish(&self, change: impl FnOnce(&mut Identity)) {
        self.with(|fields| {
            // Nobody else writes it.
            let mut identity = fields.identity();
            change(&mut identity);
            seqlock::write(fields.version, || fields.set_identity(&identity));
        });
    }

    fn with(&self, act: impl FnOnce(&Fields<'_>)) {
        if let Some(words) = self.table.slots.words(self.id.index()) {
            act(&Fields::of(words));
        }
    }
}

impl<S: BuildHasher> ConnectionEntry<S> {
    /// Notes the address that a trusted proxy speaks for, and counts the connection there instead, or nowhere without a limit. The new place is
    /// taken before the old one is given back, so that it always counts somewhere.
    ///
    /// # Errors
    /// [`Refused::Address`] when that address has `limit` connections, [`Refused::Full`] when it cannot be counted; everything then stays as it
    /// was.
    pub fn set_client_ip(&mut self, client: IpAddr, limit: Option<u16>) -> Result<(), Refused> {
        match limit {
            Some(limit) if self.address.is_none() || !same_network(client, self.client) => {
                self.address = Some(self.table.admission.try_acquire(client, limit)?);
            }
            Some(_) => {}
            None => self.address = None,
        }
        self.client = client;
        self.publish(|identity| identity.client = client);
        Ok(())
    }
}

impl<S> Drop for ConnectionEntry<S> {
    fn drop(&mut self) {
        // The slot before the permits, which are dropped after this: what is listed is counted.
        self.with(|fields| fields.close());
        self.table.slots.give_back(self.id.index());
    }
}

/// Notes a request in the slot, only over what stood there when the connection was seen open: a later connection's request is never lost.
fn note_close(fields: &Fields<'_>, id: ConnectionId, reason: CloseReason) -> Result<(), NotOpen> {
    let request = (id.generation() << REASON_BITS) | reason as u64;
    let mut noted = fields.close.load(Ordering::Acquire);
    loop {
        if fields.read_id() != Some(id) {
            return Err(NotOpen);
        }
        if noted >> REASON_BITS == id.generation() {
            return Ok(());
        }
        match fields.close.compare_exchange(noted, request, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Ok(()),
            Err(now) => noted = now,
        }
    }
}

/// Adds to a counter that only this thread writes.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
