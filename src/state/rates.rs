//! How often each key has done something, and whether it may once more: the one table behind all limits by time.
//!
//! A key is a keyed hash of what is counted (an address, an agent, an agent and a tool, …); together with a [`Span`] it names one count. So a
//! minute, an hour and a day of one agent are one key and three spans, and share nothing.
//!
//! Promises: in no window of the span's length is more than the limit admitted; a caller that stays at or under 63/64 of it is never refused.
//! The limit is an argument of each call: a changed one holds from that call on. Time is an argument too: to a key, a clock that goes
//! back stands still.

#![allow(clippy::disallowed_types, reason = "the plain body, to build upon; it is replaced by words without a lock")]

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use super::admission::network_of;

/// What is counted: a keyed hash. Good for the table that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u128);

/// For how long an admission counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Span {
    /// This many milliseconds from then on, whatever the clock shows.
    Sliding(u32),
    /// Until midnight UTC.
    Day,
    /// Until the first of the next month, UTC.
    Month,
}

/// How many are admitted within a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// At most this many; 0 admits none.
    pub limit: u32,
    /// Of this time.
    pub span: Span,
}

/// What was admitted, to give it back with: once, and so it cannot be copied.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an admission whose call is refused by a later guard is given back"]
pub struct Admitted {
    at_ms: u64,
    cost: u32,
}

/// Why not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What counts now.
    pub current: u64,
    /// The limit.
    pub max: u32,
    /// After this long the same would be admitted, if nothing else is until then. For what never would be (it costs more than the limit): the
    /// whole span.
    pub retry_after_ms: u64,
}

/// How far a key has used its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What counts now.
    pub used: u64,
    /// What would be admitted now.
    pub left: u64,
    /// When nothing counts any more, in epoch milliseconds; now, where nothing does.
    pub resets_at_ms: u64,
}

/// The table. Shared by all threads behind an `Arc`.
#[derive(Debug)]
pub struct RateTable {
    secret: [u8; 16],
    capacity: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    logs: HashMap<(Key, Span), VecDeque<(u64, u32)>>,
    evictions: u64,
}

impl RateTable {
    /// A table for `capacity` counts. `secret` is what nobody outside may know.
    #[must_use]
    pub fn new(capacity: usize, secret: [u8; 16]) -> Self {
        Self { secret, capacity: capacity.max(1), inner: Mutex::default() }
    }

    /// The key of `bytes`. Equal bytes of different kinds are different keys; the kinds are the caller's to number.
    #[must_use]
    pub fn key(&self, kind: u8, bytes: &[u8]) -> Key {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            hasher.write(&self.secret);
            hasher.write(&[salt, kind]);
            hasher.write(bytes);
            hasher.finish()
        };
        Key(u128::from(half(0)) << 64 | u128::from(half(1)))
    }

    /// The key of an address: IPv6 counts by /64, an IPv4-mapped one as IPv4.
    #[must_use]
    pub fn key_of_ip(&self, kind: u8, ip: IpAddr) -> Key {
        let (version, network) = network_of(ip);
        let mut bytes = [version; 9];
        for (byte, of) in bytes.iter_mut().skip(1).zip(network.to_be_bytes()) {
            *byte = of;
        }
        self.key(kind, &bytes)
    }

    /// Charges `cost` to the key if the rule has room for it, all or nothing.
    ///
    /// # Errors
    /// [`Refused`], and nothing is charged.
    pub fn take(&self, key: Key, rule: Rule, cost: u32, now_ms: u64) -> Result<Admitted, Refused> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.make_room(self.capacity, (key, rule.span), now_ms);
        let log = inner.logs.entry((key, rule.span)).or_default();
        let now_ms = now_ms.max(log.back().map_or(0, |last| last.0));
        expire(log, rule.span, now_ms);
        let current: u64 = log.iter().map(|one| u64::from(one.1)).sum();
        let over = (current + u64::from(cost)).saturating_sub(u64::from(rule.limit));
        if over == 0 {
            log.push_back((now_ms, cost));
            return Ok(Admitted { at_ms: now_ms, cost });
        }
        let mut freed = 0;
        let frees = log.iter().find(|one| {
            freed += u64::from(one.1);
            freed >= over
        });
        let retry_at_ms = end_of(rule.span, frees.map_or(now_ms, |one| one.0));
        Err(Refused { current, max: rule.limit, retry_after_ms: retry_at_ms.saturating_sub(now_ms) })
    }

    /// Gives back what [`take`](Self::take) has charged under the same key and span. What counts no longer is not given back twice over.
    pub fn give_back(&self, key: Key, rule: Rule, admitted: Admitted, _now_ms: u64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = inner.logs.get_mut(&(key, rule.span))
            && let Some(at) = log.iter().rposition(|one| *one == (admitted.at_ms, admitted.cost))
        {
            log.remove(at);
        }
    }

    /// How far the key has used its limit. Charges nothing.
    #[must_use]
    pub fn peek(&self, key: Key, rule: Rule, now_ms: u64) -> Usage {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(log) = inner.logs.get_mut(&(key, rule.span)) else {
            return Usage { used: 0, left: u64::from(rule.limit), resets_at_ms: now_ms };
        };
        expire(log, rule.span, now_ms);
        let used: u64 = log.iter().map(|one| u64::from(one.1)).sum();
        let resets_at_ms = log.back().map_or(now_ms, |last| end_of(rule.span, last.0));
        Usage { used, left: u64::from(rule.limit).saturating_sub(used), resets_at_ms }
    }

    /// How many counts had to make room while they still counted.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).evictions
    }
}

impl Inner {
    fn make_room(&mut self, capacity: usize, newcomer: (Key, Span), now_ms: u64) {
        if self.logs.len() < capacity || self.logs.contains_key(&newcomer) {
            return;
        }
        self.logs.retain(|(_, span), log| log.back().is_some_and(|last| end_of(*span, last.0) > now_ms));
        if self.logs.len() >= capacity {
            let oldest = self.logs.iter().min_by_key(|(_, log)| log.back().map(|last| last.0)).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                self.logs.remove(&oldest);
                self.evictions += 1;
            }
        }
    }
}

fn expire(log: &mut VecDeque<(u64, u32)>, span: Span, now_ms: u64) {
    while log.front().is_some_and(|first| end_of(span, first.0) <= now_ms) {
        log.pop_front();
    }
}

/// When what was admitted at `at_ms` counts no longer.
fn end_of(span: Span, at_ms: u64) -> u64 {
    match span {
        Span::Sliding(length_ms) => at_ms.saturating_add(u64::from(length_ms)),
        Span::Day => at_ms.saturating_sub(at_ms % DAY_MS).saturating_add(DAY_MS),
        Span::Month => (month_of(at_ms) + 1..).map(start_of_month).find(|start| *start > at_ms).unwrap_or(u64::MAX),
    }
}

const DAY_MS: u64 = 86_400_000;

/// Months since January 1970 of a moment (Gregorian, UTC).
fn month_of(at_ms: u64) -> u64 {
    // The average month is 30.436875 days long: at most one off, either way.
    let near = (at_ms / DAY_MS) * 1_000_000 / 30_436_875;
    (near.saturating_sub(1)..=near + 1).rev().find(|month| start_of_month(*month) <= at_ms).unwrap_or(0)
}

/// The first moment of the month that is `month` months after January 1970.
fn start_of_month(month: u64) -> u64 {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let (year, month) = (1970 + month / 12, month % 12);
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    // The leap day of this year is over from March on.
    let leaps = leap_days(if month > 1 { year } else { year - 1 }) - leap_days(1969);
    let of_year = usize::try_from(month).ok().and_then(|month| BEFORE.get(month)).copied().unwrap_or(0);
    ((year - 1970) * 365 + leaps + of_year) * DAY_MS
}

#[cfg(test)]
#[path = "rates_tests.rs"]
mod tests;
