//! The words of a connection's slot, by their names, and a row as a reader gets it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use arrayvec::ArrayString;

use super::super::doors::Door;
use super::super::seqlock;
use super::super::slots::{AGENT_WORDS, SLOT_WORDS};
use super::super::sync::{AtomicU64, Ordering};
use super::{Arrival, CloseReason, ConnectionId, REASON_BITS};

/// Bytes of an agent's id that are kept; the policy file takes none that is longer.
const AGENT_BYTES: usize = AGENT_WORDS * 8;

/// An agent's id.
pub type AgentText = ArrayString<AGENT_BYTES>;

/// Who is on a connection, without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PrincipalKind {
    /// Not known yet.
    Unknown = 0,
    /// Authentication is switched off.
    Anonymous = 1,
    /// `DEMO_MODE`.
    Demo = 2,
    /// The holder of a door's shared token.
    Door = 3,
    /// An agent.
    Agent = 4,
}

impl PrincipalKind {
    const ALL: [Self; 5] = [Self::Unknown, Self::Anonymous, Self::Demo, Self::Door, Self::Agent];

    /// The name in listings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Anonymous => "anonymous",
            Self::Demo => "demo",
            Self::Door => "door",
            Self::Agent => "agent",
        }
    }
}

/// An open connection, as it was at one moment. Counters may be some nanoseconds older or newer than the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub id: ConnectionId,
    /// The door it counts for.
    pub door: Door,
    /// The other end.
    pub peer: SocketAddr,
    /// The client's address: the peer's, or what a trusted proxy says.
    pub client: IpAddr,
    /// Who is on it.
    pub principal: PrincipalKind,
    /// The agent's id; empty if it is none.
    pub agent: AgentText,
    /// The worker that owns it.
    pub worker: u16,
    /// Milliseconds since the Unix epoch.
    pub opened_at_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub last_activity_ms: u64,
    /// Messages from the client.
    pub messages_in: u64,
    /// Messages to the client.
    pub messages_out: u64,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Set when its closing was asked for.
    pub closing: Option<CloseReason>,
}

/// A slot's words. The first belongs to `slots`.
pub(super) struct Fields<'a> {
    /// Of everything but `close`, which other threads write.
    pub(super) version: &'a AtomicU64,
    /// The id of the connection that has the slot, or had it last.
    pub(super) id: &'a AtomicU64,
    /// `generation << 8 | reason` of the last close that was asked for.
    pub(super) close: &'a AtomicU64,
    pub(super) last_activity: &'a AtomicU64,
    pub(super) messages_in: &'a AtomicU64,
    pub(super) messages_out: &'a AtomicU64,
    pub(super) bytes_in: &'a AtomicU64,
    pub(super) bytes_out: &'a AtomicU64,
    opened_at: &'a AtomicU64,
    /// [`Identity::pack`]; 0 when the slot is free.
    packed: &'a AtomicU64,
    peer: [&'a AtomicU64; 2],
    client: [&'a AtomicU64; 2],
    agent: &'a [AtomicU64; AGENT_WORDS],
}

/// What changes as a whole: all of a connection that is no count and no time.
pub(super) struct Identity {
    pub(super) door: Door,
    pub(super) principal: PrincipalKind,
    pub(super) client: IpAddr,
    worker: u16,
    peer: SocketAddr,
    agent: [u8; AGENT_BYTES],
    agent_len: u8,
}

impl<'a> Fields<'a> {
    pub(super) fn of(words: &'a [AtomicU64; SLOT_WORDS]) -> Self {
        let [_next, version, id, close, last_activity, messages_in, messages_out, bytes_in, bytes_out, rest @ ..] =
            words;
        let [opened_at, packed, peer_high, peer_low, client_high, client_low, _spare, agent @ ..] = rest;
        Self {
            version,
            id,
            close,
            last_activity,
            messages_in,
            messages_out,
            bytes_in,
            bytes_out,
            opened_at,
            packed,
            peer: [peer_high, peer_low],
            client: [client_high, client_low],
            agent,
        }
    }

    /// Publishes a new connection. The caller has claimed the slot.
    pub(super) fn open(&self, id: u64, arrival: &Arrival) {
        let identity = Identity {
            door: arrival.door,
            principal: PrincipalKind::Unknown,
            client: arrival.peer.ip(),
            worker: u16::try_from(arrival.worker).unwrap_or(u16::MAX),
            peer: arrival.peer,
            agent: [0; AGENT_BYTES],
            agent_len: 0,
        };
        seqlock::write(self.version, || {
            self.id.store(id, Ordering::Relaxed);
            self.last_activity.store(arrival.now_ms, Ordering::Relaxed);
            self.opened_at.store(arrival.now_ms, Ordering::Relaxed);
            for counter in [self.messages_in, self.messages_out, self.bytes_in, self.bytes_out] {
                counter.store(0, Ordering::Relaxed);
            }
            self.set_identity(&identity);
        });
    }

    /// Withdraws the connection.
    pub(super) fn close(&self) {
        seqlock::write(self.version, || self.packed.store(0, Ordering::Relaxed));
    }

    /// The id of the slot's connection; `None` if it has none, or none that could be read.
    pub(super) fn read_id(&self) -> Option<ConnectionId> {
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let (packed, id) = seqlock::read(self.version, || (load(self.packed), load(self.id)))?;
        (packed != 0).then_some(ConnectionId(id))
    }

    /// The slot's connection at one moment, `Some(None)` if it has none, `None` if it could not be read.
    pub(super) fn read(&self) -> Option<Option<Row>> {
        seqlock::read(self.version, || {
            let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
            if load(self.packed) == 0 {
                return None;
            }
            let id = ConnectionId(load(self.id));
            let close = load(self.close);
            let identity = self.identity();
            Some(Row {
                id,
                door: identity.door,
                peer: identity.peer,
                client: identity.client,
                principal: identity.principal,
                agent: identity.agent(),
                worker: identity.worker,
                opened_at_ms: load(self.opened_at),
                last_activity_ms: load(self.last_activity),
                messages_in: load(self.messages_in),
                messages_out: load(self.messages_out),
                bytes_in: load(self.bytes_in),
                bytes_out: load(self.bytes_out),
                closing: CloseReason::from_u64(close & ((1 << REASON_BITS) - 1))
                    .filter(|_| close >> REASON_BITS == id.generation()),
            })
        })
    }

    /// The identity's words. Whole only for the writer, and for a reader whose version has not changed.
    pub(super) fn identity(&self) -> Identity {
        let [flags, door, principal, agent_len, worker_high, worker_low, port_high, port_low] =
            self.packed.load(Ordering::Relaxed).to_be_bytes();
        debug_assert!(flags <= 1);
        let mut agent = [0; AGENT_BYTES];
        let used = usize::from(agent_len).div_ceil(8);
        for (bytes, word) in agent.chunks_exact_mut(8).zip(self.agent).take(used) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_be_bytes());
        }
        Identity {
            door: Door::ALL.get(usize::from(door)).copied().unwrap_or(Door::Http),
            principal: PrincipalKind::ALL.get(usize::from(principal)).copied().unwrap_or(PrincipalKind::Unknown),
            client: load_ip(self.client),
            worker: u16::from_be_bytes([worker_high, worker_low]),
            peer: SocketAddr::new(load_ip(self.peer), u16::from_be_bytes([port_high, port_low])),
            agent,
            agent_len,
        }
    }

    /// Stores an identity. Only inside a write of the version.
    pub(super) fn set_identity(&self, identity: &Identity) {
        store_ip(self.peer, identity.peer.ip());
        store_ip(self.client, identity.client);
        let used = usize::from(identity.agent_len).div_ceil(8);
        for (bytes, word) in identity.agent.chunks_exact(8).zip(self.agent).take(used) {
            let mut word_bytes = [0; 8];
            word_bytes.copy_from_slice(bytes);
            word.store(u64::from_be_bytes(word_bytes), Ordering::Relaxed);
        }
        self.packed.store(identity.pack(), Ordering::Relaxed);
    }
}

impl Identity {
    /// Never 0: the first byte says that the slot is taken.
    fn pack(&self) -> u64 {
        let [worker_high, worker_low] = self.worker.to_be_bytes();
        let [port_high, port_low] = self.peer.port().to_be_bytes();
        let (door, principal) = (self.door as u8, self.principal as u8);
        u64::from_be_bytes([1, door, principal, self.agent_len, worker_high, worker_low, port_high, port_low])
    }

    pub(super) fn set_agent(&mut self, agent: &str) {
        let end = agent.floor_char_boundary(AGENT_BYTES);
        self.agent = [0; AGENT_BYTES];
        for (to, from) in self.agent.iter_mut().zip(agent.as_bytes().iter().take(end)) {
            *to = *from;
        }
        self.agent_len = u8::try_from(end).unwrap_or(0);
    }

    fn agent(&self) -> AgentText {
        let bytes = self.agent.get(..usize::from(self.agent_len)).unwrap_or_default();
        // A reader that finds half of a new id throws it away: its version has changed.
        std::str::from_utf8(bytes).ok().and_then(|text| AgentText::from(text).ok()).unwrap_or_default()
    }
}

/// An address in two words; IPv4 as its mapped IPv6 address.
fn store_ip([high, low]: [&AtomicU64; 2], ip: IpAddr) {
    let bits = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    high.store((bits >> 64) as u64, Ordering::Relaxed);
    low.store((bits & u128::from(u64::MAX)) as u64, Ordering::Relaxed);
}

fn load_ip([high, low]: [&AtomicU64; 2]) -> IpAddr {
    let bits = u128::from(high.load(Ordering::Relaxed)) << 64 | u128::from(low.load(Ordering::Relaxed));
    IpAddr::V6(Ipv6Addr::from_bits(bits)).to_canonical()
}
