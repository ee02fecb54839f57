//! How often an address has done something that it should not, of late: what leads to automatic blocks.
//!
//! A count can be taken back whole (somebody has shown who it is), and the one that reaches its limit is told so, alone, however many threads
//! count at once. So this is no rate: nothing is admitted or refused here.
//!
//! Each of 1,024 shards is an immutable list behind an `arc-swap`; who counts puts a changed copy in its place, or tries again. That allocates,
//! and may: what is counted here has failed, and costs more than that anyway. A list holds [`SHARD_CAPACITY`] addresses at most, so memory
//! is bounded, and the hash is keyed, so nobody can fill one alone. In a full one goes first whose time is over, then who has done the least:
//! a flood of addresses that fail once each pushes nobody out who has begun to guess.
//!
//! Deeds that lie within a 64th of the span are one entry with the time of the last: a deed may count for a 64th of the span longer than the span,
//! never shorter.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::blocks::view::address_key;

const SHARDS: usize = 1024;
/// Addresses of one shard: 32,768 in all.
const SHARD_CAPACITY: usize = 32;
/// Parts of a span that are told apart.
const GRAIN: u64 = 64;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deed {
    /// An authentication failed.
    Failure,
    /// Likewise at the control listeners, of addresses that stand apart.
    FailureAtControl,
    /// A rate limit refused something.
    Violation,
}

impl Deed {
    /// Every one there is.
    pub const ALL: &'static [Deed] = &[Deed::Failure, Deed::FailureAtControl, Deed::Violation];

    /// So many count of those within a 64th of the span, however many there are. A burst that runs into a limit is one mistake, of
    /// whatever size; to go on is another matter.
    const fn most_at_once(self) -> u32 {
        match self {
            Self::Failure | Self::FailureAtControl => u32::MAX,
            Self::Violation => 20,
        }
    }
}

/// So many deeds, the last of them then (milliseconds since the Unix epoch).
type Times = (u64, u32);

#[derive(Clone, Debug)]
struct Counted {
    who: (Deed, u128),
    times: Arc<[Times]>,
    /// From the last deed on, after this long nothing counts.
    span_ms: u64,
}

impl Counted {
    fn count(&self) -> u64 {
        self.times.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    fn last_ms(&self) -> u64 {
        self.times.last().map_or(0, |(at_ms, _)| *at_ms)
    }

    fn is_over(&self, now_ms: u64) -> bool {
        !counts(self.last_ms(), self.span_ms, now_ms)
    }
}

/// Whether a deed still counts. What lies a whole span ahead was noted by a clock that has been set back since.
fn counts(at_ms: u64, span_ms: u64, now_ms: u64) -> bool {
    now_ms.abs_diff(at_ms) < span_ms
}

/// The counts of all addresses. Shared by all threads.
#[derive(Debug)]
pub struct Attempts {
    shards: Box<[ArcSwap<Vec<Counted>>]>,
    hasher: RandomState,
}

impl Attempts {
    /// None yet. `hasher` is keyed by a secret of the process.
    #[must_use]
    pub fn new(hasher: RandomState) -> Self {
        Self { shards: (0..SHARDS).map(|_| ArcSwap::default()).collect(), hasher }
    }

    /// Counts a deed of an address. True: with this one there are `limit` within `span_ms`, and counting begins anew.
    pub fn reaches(&self, deed: Deed, ip: IpAddr, limit: u32, span_ms: u64, now_ms: u64) -> bool {
        let who = (deed, address_key(ip));
        let Some(shard) = self.shard(who) else { return false };
        let mut reached = false;
        shard.rcu(|list| {
            let mut next = Vec::clone(list);
            let at = next.iter().position(|counted| counted.who == who);
            let before: &[Times] = at.and_then(|at| next.get(at)).map_or(&[], |counted| &counted.times);
            let counted = Counted { who, times: with_one_more(before, deed, span_ms, now_ms), span_ms };
            reached = counted.count() >= u64::from(limit);
            match (at, reached) {
                (Some(at), true) => drop(next.swap_remove(at)),
                (None, true) => {}
                (Some(at), false) => next.get_mut(at).into_iter().for_each(|place| *place = counted.clone()),
                (None, false) => {
                    make_room(&mut next, now_ms);
                    next.push(counted);
                }
            }
            next
        });
        reached
    }

    /// Takes back all that is counted of this deed of an address. One look where nothing is.
    pub fn forget(&self, deed: Deed, ip: IpAddr) {
        let who = (deed, address_key(ip));
        let Some(shard) = self.shard(who) else { return };
        if shard.load().iter().any(|counted| counted.who == who) {
            shard.rcu(|list| list.iter().filter(|counted| counted.who != who).cloned().collect::<Vec<_>>());
        }
    }

    /// Addresses of which something is counted, or was.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.load().len()).sum()
    }

    /// Whether nothing is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, who: (Deed, u128)) -> Option<&ArcSwap<Vec<Counted>>> {
        let [low, high, ..] = self.hasher.hash_one(who).to_le_bytes();
        self.shards.get(usize::from(u16::from_le_bytes([low, high])) % SHARDS)
    }
}

/// What still counts of these deeds, and another one now.
fn with_one_more(before: &[Times], deed: Deed, span_ms: u64, now_ms: u64) -> Arc<[Times]> {
    let mut times: Vec<Times> = before.iter().copied().filter(|(at_ms, _)| counts(*at_ms, span_ms, now_ms)).collect();
    let grain_of = |at_ms: u64| at_ms / (span_ms / GRAIN).max(1);
    // To a count, a clock that goes back stands still.
    let now_ms = times.last().map_or(now_ms, |(last_ms, _)| now_ms.max(*last_ms));
    match times.last_mut().filter(|(last_ms, _)| grain_of(*last_ms) == grain_of(now_ms)) {
        Some(last) => *last = (now_ms, last.1.saturating_add(1).min(deed.most_at_once())),
        None => times.push((now_ms, 1)),
    }
    times.into()
}

/// Leaves a place free.
fn make_room(list: &mut Vec<Counted>, now_ms: u64) {
    if list.len() < SHARD_CAPACITY {
        return;
    }
    list.retain(|counted| !counted.is_over(now_ms));
    while list.len() >= SHARD_CAPACITY {
        let least = list.iter().enumerate().min_by_key(|(_, counted)| (counted.count(), counted.last_ms()));
        let Some((at, _)) = least else { return };
        list.swap_remove(at);
    }
}

#[cfg(test)]
#[path = "attempts_tests.rs"]
mod tests;
