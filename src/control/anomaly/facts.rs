//! What the detector needs to know, taken from the events that the audit writer formats anyway.
//!
//! Workers do nothing for it. The writer's thread adds up what it sees ([`Tee`]): a look-up in a table for each tool call, failed
//! authentication and issued token, nothing for other events. It hands the sums over through a mailbox with one place
//! ([`Mailbox`]); while the detector has not taken the last ones, it goes on adding. So neither waits for the other, and what lies
//! between them is bounded: [`MAX_KEYS`] agents or addresses of each kind. What finds no place is counted.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use arrayvec::ArrayVec;
use crossbeam_queue::ArrayQueue;

use crate::state::events::{Event, EventKind, ShortText};

/// A window of an agent's actions.
pub const ACTION_WINDOW_MS: u64 = 60_000;
/// In which failed authentications of one address are counted.
pub const FAILURE_WINDOW_MS: u64 = 5 * 60_000;
/// So many in one window are an anomaly: over 10.
pub const FAILURES: usize = 11;
/// In which tokens for one agent are counted.
pub const TOKEN_WINDOW_MS: u64 = 60 * 60_000;
/// So many in one window are an anomaly: over 3.
pub const TOKENS: usize = 4;
/// Agents or addresses of each kind that one hand-over tells apart.
pub const MAX_KEYS: usize = 4096;

/// The newest `N` times that something happened, and whether `N` of them ever fell within one window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latest<const N: usize> {
    /// Ascending.
    at_ms: ArrayVec<u64, N>,
    met_at_ms: Option<u64>,
}

impl<const N: usize> Latest<N> {
    /// Notes one time. `N` times lie within a window if the last is less than `window_ms` after the first.
    pub fn note(&mut self, at_ms: u64, window_ms: u64) {
        let mut place = self.at_ms.partition_point(|seen| *seen <= at_ms);
        if self.at_ms.is_full() {
            if place == 0 {
                return;
            }
            self.at_ms.remove(0);
            place -= 1;
        }
        self.at_ms.insert(place, at_ms);
        if self.is_within(self.newest_ms(), window_ms) {
            self.met_at_ms = self.met_at_ms.max(Some(self.newest_ms()));
        }
    }

    /// Takes over what another has noted.
    pub fn absorb(&mut self, other: &Self, window_ms: u64) {
        other.at_ms.iter().for_each(|at_ms| self.note(*at_ms, window_ms));
        self.met_at_ms = self.met_at_ms.max(other.met_at_ms);
    }

    /// Whether `N` times lie in the window that ends at `now_ms`.
    #[must_use]
    pub fn is_within(&self, now_ms: u64, window_ms: u64) -> bool {
        let first = self.at_ms.first().filter(|_| self.at_ms.is_full());
        first.is_some_and(|first| now_ms.saturating_sub(*first) < window_ms)
    }

    /// Whether `N` times fell within one window since this was asked last.
    pub fn take_met(&mut self) -> bool {
        self.met_at_ms.take().is_some()
    }

    /// The last time.
    #[must_use]
    pub fn newest_ms(&self) -> u64 {
        self.at_ms.last().copied().unwrap_or(0)
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.at_ms.len()
    }

    /// Whether there was none yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at_ms.is_empty()
    }
}

/// What was seen since the last hand-over.
#[derive(Debug, Default)]
pub struct Facts {
    /// Forwarded calls by agent and minute (since the Unix epoch).
    pub actions: HashMap<(ShortText, u64), u64>,
    /// Failed authentications by address, IPv6 by its /64.
    pub failures: HashMap<IpAddr, Latest<FAILURES>>,
    /// Tokens issued, by agent.
    pub tokens: HashMap<ShortText, Latest<TOKENS>>,
    /// Facts about agents and addresses for which there was no place.
    pub overflowed: u64,
}

impl Facts {
    /// Takes note of an event, if it is one that the detector asks for.
    pub fn see(&mut self, event: &Event) {
        match event.kind {
            EventKind::ToolCall if !event.agent.is_empty() => {
                let key = (event.agent, event.at_ms / ACTION_WINDOW_MS);
                if let Some(count) = place(&mut self.actions, key, &mut self.overflowed) {
                    *count += 1;
                }
            }
            EventKind::InvalidAuth => {
                let Some(ip) = event.ip else { return };
                if let Some(latest) = place(&mut self.failures, network_of(ip), &mut self.overflowed) {
                    latest.note(event.at_ms, FAILURE_WINDOW_MS);
                }
            }
            EventKind::TokenIssued if !event.agent.is_empty() => {
                if let Some(latest) = place(&mut self.tokens, event.agent, &mut self.overflowed) {
                    latest.note(event.at_ms, TOKEN_WINDOW_MS);
                }
            }
            _ => {}
        }
    }

    fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.failures.is_empty() && self.tokens.is_empty() && self.overflowed == 0
    }
}

fn place<'t, K: std::hash::Hash + Eq, V: Default>(
    table: &'t mut HashMap<K, V>,
    key: K,
    overflowed: &mut u64,
) -> Option<&'t mut V> {
    if table.len() >= MAX_KEYS && !table.contains_key(&key) {
        *overflowed += 1;
        return None;
    }
    Some(table.entry(key).or_default())
}

/// What an address is watched as: itself for IPv4, the first address of its /64 for IPv6, of which one client has as many as it likes.
#[must_use]
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Where sums lie between the writer and the detector: one place.
#[derive(Debug)]
pub struct Mailbox(ArrayQueue<Facts>);

impl Default for Mailbox {
    fn default() -> Self {
        Self(ArrayQueue::new(1))
    }
}

impl Mailbox {
    /// What was handed over last, once.
    pub fn take(&self) -> Option<Facts> {
        self.0.pop()
    }
}

/// The writer's end.
#[derive(Debug)]
pub struct Tee {
    facts: Facts,
    mailbox: Arc<Mailbox>,
}

impl Tee {
    /// Hands over through `mailbox`.
    #[must_use]
    pub fn new(mailbox: Arc<Mailbox>) -> Self {
        Self { facts: Facts::default(), mailbox }
    }

    /// [`Facts::see`].
    pub fn see(&mut self, event: &Event) {
        self.facts.see(event);
    }

    /// Hands over what was seen, if the last was taken.
    pub fn hand_over(&mut self) {
        if self.facts.is_empty() || !self.mailbox.0.is_empty() {
            return;
        }
        if let Err(facts) = self.mailbox.0.push(std::mem::take(&mut self.facts)) {
            self.facts = facts;
        }
    }
}
