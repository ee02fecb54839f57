//! Unusual behaviour: who does much more than a moment ago, who keeps failing to log in, for whom tokens pile up.
//!
//! | pattern | alert |
//! |---|---|
//! | an agent's actions in one minute, over 3 times those of the minute before | `activity-spike`, MEDIUM |
//! | over 10 failed authentications of an address in 5 minutes | `failed-authentications`, HIGH |
//! | over 3 tokens issued for one agent in 1 hour | `token-burst`, MEDIUM |
//!
//! Actions are forwarded tool calls, counted by whole minutes of the clock; a minute of fewer than [`LEAST_ACTIONS`] counts as that many, so
//! that 1 → 4 is no anomaly and an agent that begins to work may make 30 calls in its first minute. Nothing is compared with a minute
//! that was not watched from its beginning. The other two windows slide, to the millisecond.
//!
//! One alert a case: it begins when its pattern is met, and ends when the pattern has not been met for one window of its own (a minute, 5
//! minutes, an hour). Only then can there be another of the same agent or address.
//!
//! The detector has no clock and does no I/O: [`Detector::absorb`] is told what was seen, [`Detector::tick`] the time. What it
//! remembers is bounded ([`MAX_WATCHED`]); of addresses those with the fewest failures are forgotten first, so that a flood of addresses
//! hides nobody who has begun to guess.

pub mod facts;

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use arrayvec::ArrayVec;

use self::facts::{ACTION_WINDOW_MS, FAILURE_WINDOW_MS, FAILURES, Facts, Latest, TOKEN_WINDOW_MS, TOKENS, network_of};
use super::alerts::{AlertKind, NewAlert, Subject};
use crate::state::events::ShortText;

/// How often the detector looks.
pub const EVERY_MS: u64 = 60_000;
/// The round that `now_ms` belongs to: the detector looks once in each, when a minute of the clock is over and all of it is known.
#[must_use]
pub const fn round(now_ms: u64) -> u64 {
    now_ms.saturating_sub(SETTLED_MS) / EVERY_MS
}

/// An agent's actions may grow to this many times those of the window before.
pub const GROWTH: u64 = 3;
/// What a quiet window counts as at least.
pub const LEAST_ACTIONS: u64 = 10;
/// Agents, and addresses, that are watched at once: about 150 bytes each.
pub const MAX_WATCHED: usize = 16_384;
/// An event is known to the detector this long after it happened at the latest: 100 ms until the writer has it, a second until
/// it is handed over, a second until it is taken.
const SETTLED_MS: u64 = 3_000;
/// Windows that are looked at in one tick, where the process has slept.
const MAX_BEHIND: u64 = 2;

/// What is remembered of agents and addresses.
#[derive(Debug)]
pub struct Detector {
    actions: HashMap<ShortText, Activity>,
    failures: HashMap<IpAddr, Watched<FAILURES>>,
    tokens: HashMap<ShortText, Watched<TOKENS>>,
    /// The first minute that was watched from its beginning.
    watched_from: u64,
    /// The next minute to be looked at.
    next: u64,
    overflowed: u64,
}

/// An agent's calls by minute.
#[derive(Debug, Default)]
struct Activity {
    counts: ArrayVec<(u64, u64), 6>,
    open: bool,
}

/// An address or agent of which times are watched.
#[derive(Debug, Default)]
struct Watched<const N: usize> {
    latest: Latest<N>,
    open: bool,
    met_at_ms: u64,
}

impl Detector {
    /// Begins to watch at `now_ms` (milliseconds since the Unix epoch).
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        let watched_from = now_ms / ACTION_WINDOW_MS + 1;
        Self {
            actions: HashMap::new(),
            failures: HashMap::new(),
            tokens: HashMap::new(),
            watched_from,
            next: watched_from + 1,
            overflowed: 0,
        }
    }

    /// Takes note of what was seen.
    pub fn absorb(&mut self, facts: Facts) {
        self.overflowed += facts.overflowed;
        for ((agent, minute), count) in facts.actions {
            // Its window was looked at already; with SETTLED_MS that takes a clock that was set.
            if minute + 1 < self.next {
                continue;
            }
            match watch(&mut self.actions, agent) {
                Some(activity) => activity.add(minute, count),
                None => self.overflowed += 1,
            }
        }
        let new = facts.failures.keys().filter(|ip| !self.failures.contains_key(*ip)).count();
        self.forget_fewest(new);
        for (ip, latest) in facts.failures {
            match watch(&mut self.failures, network_of(ip)) {
                Some(watched) => watched.latest.absorb(&latest, FAILURE_WINDOW_MS),
                None => self.overflowed += 1,
            }
        }
        for (agent, latest) in facts.tokens {
            match watch(&mut self.tokens, agent) {
                Some(watched) => watched.latest.absorb(&latest, TOKEN_WINDOW_MS),
                None => self.overflowed += 1,
            }
        }
    }

    /// Looks at everything that was seen. What is new about it comes back.
    pub fn tick(&mut self, now_ms: u64) -> Vec<NewAlert> {
        let mut found = Vec::new();
        // The first minute that is not over and settled.
        let open_minute = round(now_ms);
        self.next = self.next.max(open_minute.saturating_sub(MAX_BEHIND)).max(self.watched_from + 1);
        while self.next < open_minute {
            self.compare(self.next, &mut found);
            self.next += 1;
        }
        for (ip, watched) in &mut self.failures {
            if watched.begins(now_ms, FAILURE_WINDOW_MS) {
                let details = "over 10 failed authentications in 5 minutes".to_owned();
                let subject = Subject::Address(*ip);
                found.push(NewAlert { kind: AlertKind::FailedAuthentications, subject, details });
            }
        }
        for (agent, watched) in &mut self.tokens {
            if watched.begins(now_ms, TOKEN_WINDOW_MS) {
                let details = "over 3 tokens issued in 1 hour".to_owned();
                let subject = Subject::Agent(agent.to_string());
                found.push(NewAlert { kind: AlertKind::TokenBurst, subject, details });
            }
        }
        self.failures.retain(|_, watched| watched.is_alive(now_ms, FAILURE_WINDOW_MS));
        self.tokens.retain(|_, watched| watched.is_alive(now_ms, TOKEN_WINDOW_MS));
        found
    }

    /// How many cases are open.
    #[must_use]
    pub fn open_cases(&self) -> usize {
        self.actions.values().filter(|one| one.open).count()
            + self.failures.values().filter(|one| one.open).count()
            + self.tokens.values().filter(|one| one.open).count()
    }

    /// Facts that found no place since the last time that this was asked.
    pub fn take_overflowed(&mut self) -> u64 {
        std::mem::take(&mut self.overflowed)
    }

    /// Compares a minute with the one before, for all agents, and lets go of those that were quiet in both.
    fn compare(&mut self, minute: u64, found: &mut Vec<NewAlert>) {
        self.actions.retain(|agent, activity| {
            let (before, now) = (activity.count(minute - 1), activity.count(minute));
            let spike = now > GROWTH.saturating_mul(before.max(LEAST_ACTIONS));
            if spike && !activity.open {
                let details = format!("{now} actions in one minute, {before} in the minute before");
                let subject = Subject::Agent(agent.to_string());
                found.push(NewAlert { kind: AlertKind::ActivitySpike, subject, details });
            }
            activity.open = spike;
            activity.counts.retain(|(of, _)| *of >= minute);
            !activity.counts.is_empty()
        });
    }

    /// Makes room for `new` addresses.
    fn forget_fewest(&mut self, new: usize) {
        let excess = (self.failures.len() + new).saturating_sub(MAX_WATCHED);
        if excess == 0 {
            return;
        }
        let rank = |watched: &Watched<FAILURES>| (watched.open, watched.latest.len(), watched.latest.newest_ms());
        let mut ranked: Vec<_> = self.failures.iter().map(|(ip, watched)| (rank(watched), *ip)).collect();
        ranked.sort_unstable();
        for (_, ip) in ranked.into_iter().take(excess) {
            self.failures.remove(&ip);
            self.overflowed += 1;
        }
    }
}

fn watch<K: Hash + Eq, V: Default>(table: &mut HashMap<K, V>, key: K) -> Option<&mut V> {
    if table.len() >= MAX_WATCHED && !table.contains_key(&key) {
        return None;
    }
    Some(table.entry(key).or_default())
}

impl Activity {
    fn add(&mut self, minute: u64, count: u64) {
        if let Some((_, so_far)) = self.counts.iter_mut().find(|(of, _)| *of == minute) {
            *so_far += count;
        } else if self.counts.try_push((minute, count)).is_err() {
            // More minutes than can be open: a clock that jumps. The oldest goes.
            self.counts.sort_unstable();
            self.counts.remove(0);
            self.counts.push((minute, count));
        }
    }

    fn count(&self, minute: u64) -> u64 {
        self.counts.iter().find(|(of, _)| *of == minute).map_or(0, |(_, count)| *count)
    }
}

impl<const N: usize> Watched<N> {
    /// Whether a case begins now.
    fn begins(&mut self, now_ms: u64, window_ms: u64) -> bool {
        let was_met = self.latest.take_met();
        if self.latest.is_within(now_ms, window_ms) || was_met {
            self.met_at_ms = now_ms;
            return !std::mem::replace(&mut self.open, true);
        }
        if now_ms.saturating_sub(self.met_at_ms) >= window_ms {
            self.open = false;
        }
        false
    }

    fn is_alive(&self, now_ms: u64, window_ms: u64) -> bool {
        self.open || now_ms.saturating_sub(self.latest.newest_ms()) < window_ms
    }
}

#[cfg(test)]
#[path = "anomaly/anomaly_tests.rs"]
mod tests;
