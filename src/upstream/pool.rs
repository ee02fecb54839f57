//! The idle connections of one upstream, and what may be thought of it.
//!
//! **What it guards against.** A server may close a kept-alive connection right after an answer, without having said so. A
//! request that reaches its kernel in between is acknowledged and then reset, and nobody can tell that from a call that
//! was carried out. So a connection *rests* after an answer, long enough for such a close to arrive and be seen.
//!
//! **How long.** An upstream is *proven* up to the number of answers after which a connection has been seen to live on. A
//! connection that has carried no more than that rests for [`bounds::UPSTREAM_REST_NS`](crate::bounds::UPSTREAM_REST_NS),
//! one that has carried more for [`bounds::UPSTREAM_TRIAL_NS`](crate::bounds::UPSTREAM_TRIAL_NS), and then proves one more
//! or is found closed. So a server that closes after every k-th answer is found out by a connection that rests, before any other gets
//! there. [`bounds::UPSTREAM_PROOF`](crate::bounds::UPSTREAM_PROOF) answers prove it for good; a close out of the blue undoes all proof for
//! [`bounds::UPSTREAM_DOUBT_NS`](crate::bounds::UPSTREAM_DOUBT_NS).
//!
//! **What that must not cost.** A call that opens a connection for which the pool has no room when it comes back pays for a
//! connect and a close: so while the pool has room, another connection is opened rather than a rest cut short, and where it has none, the oldest
//! proven one is taken without its rest. And many connections that take turns are dearer than few: each has gone cold in the caches of
//! both sides when it is used again. So once an upstream is proven for good nothing rests any more: what came back last is taken
//! first, and connections that the load does not need are left to age.
//!
//! What is left: a proven server that closes without a word at random, or for the first time after more answers; one that does
//! so before, while the pool is used to its limit; or one that takes longer to close than a rest takes. No I/O here and no clock: whether a
//! connection is open, and the time, are told.

use std::collections::VecDeque;

use crate::bounds::{UPSTREAM_DOUBT_NS, UPSTREAM_PROOF, UPSTREAM_REST_NS, UPSTREAM_SUDDEN_NS, UPSTREAM_TRIAL_NS};

/// Idle connections, in the order in which they came back.
pub(crate) struct Pool<C> {
    idle: VecDeque<Idle<C>>,
    max_idle: usize,
    /// Connections have been seen to live on after this many answers.
    proven: u32,
    /// Until then nothing is proven.
    doubted_until_ns: u64,
}

struct Idle<C> {
    connection: C,
    /// How many it has carried.
    answers: u32,
    since_ns: u64,
}

impl<C> Pool<C> {
    /// An empty pool with room for `max_idle`.
    pub(crate) fn new(max_idle: usize) -> Self {
        Self { idle: VecDeque::new(), max_idle, proven: 0, doubted_until_ns: 0 }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.idle.len()
    }

    /// A connection to send on that has not been idle for `limit_ns` and that `is_open`; `None` when a new one is called for.
    /// `busy` is how many others are in use.
    pub(crate) fn take(&mut self, now_ns: u64, limit_ns: u64, busy: usize, is_open: impl Fn(&C) -> bool) -> Option<C> {
        while let Some(one) = self.choose(now_ns, busy) {
            if self.is_usable(&one, now_ns, limit_ns, &is_open) {
                return Some(one.connection);
            }
        }
        None
    }

    /// Of a proven upstream the latest. Else the latest that has rested, so that the busy ones stay warm and the rest ages out; or,
    /// where more connections would find no room, the oldest that is proven.
    fn choose(&mut self, now_ns: u64, busy: usize) -> Option<Idle<C>> {
        if self.is_trusted(now_ns) {
            return self.idle.pop_back();
        }
        let idle_ns = |one: &Idle<C>| now_ns.saturating_sub(one.since_ns);
        let is_proven = |one: &Idle<C>| self.is_proven(one.answers, now_ns);
        let rested = self.idle.partition_point(|one| idle_ns(one) >= UPSTREAM_REST_NS);
        let latest = self.idle.range(..rested).rposition(|one| idle_ns(one) >= UPSTREAM_TRIAL_NS || is_proven(one));
        let has_room = busy + self.idle.len() < self.max_idle;
        let at = match latest {
            None if !has_room => self.idle.iter().position(is_proven),
            latest => latest,
        };
        self.idle.remove(at?)
    }

    /// Whether nothing rests any more: the upstream is proven for good.
    pub(crate) fn is_trusted(&self, now_ns: u64) -> bool {
        self.is_proven(u32::MAX, now_ns)
    }

    /// Whether connections live on after this many answers.
    fn is_proven(&self, answers: u32, now_ns: u64) -> bool {
        now_ns >= self.doubted_until_ns && (answers <= self.proven || self.proven >= UPSTREAM_PROOF)
    }

    /// Looks at an idle connection, and learns from it.
    fn is_usable(&mut self, one: &Idle<C>, now_ns: u64, limit_ns: u64, is_open: impl Fn(&C) -> bool) -> bool {
        let idle_ns = now_ns.saturating_sub(one.since_ns);
        if idle_ns >= limit_ns {
            return false;
        }
        let open = is_open(&one.connection);
        if open && idle_ns >= UPSTREAM_TRIAL_NS {
            self.proven = self.proven.max(one.answers);
        } else if !open && idle_ns < UPSTREAM_SUDDEN_NS {
            self.doubt(now_ns);
        }
        open
    }

    /// Takes back a connection that has carried this many answers; drops one where there is no room.
    pub(crate) fn put(&mut self, connection: C, answers: u32, now_ns: u64) {
        if self.idle.len() >= self.max_idle && !self.make_room(answers, now_ns) {
            return;
        }
        self.idle.push_back(Idle { connection, answers, since_ns: now_ns });
    }

    /// Drops one that has to rest for long, where one that has not comes back. The oldest of those stays: it is the next to prove
    /// one more answer.
    fn make_room(&mut self, answers: u32, now_ns: u64) -> bool {
        let is_on_trial = |one: &Idle<C>| !self.is_proven(one.answers, now_ns);
        if self.proven >= UPSTREAM_PROOF || !self.is_proven(answers, now_ns) {
            return false;
        }
        match (self.idle.iter().position(is_on_trial), self.idle.iter().rposition(is_on_trial)) {
            (Some(oldest), Some(latest)) if oldest != latest => self.idle.remove(latest).is_some(),
            _ => false,
        }
    }

    /// The upstream has closed a connection out of the blue.
    pub(crate) fn doubt(&mut self, now_ns: u64) {
        self.proven = 0;
        self.doubted_until_ns = now_ns.saturating_add(UPSTREAM_DOUBT_NS);
    }

    /// Drops what has been idle for `limit_ns` or is not open any more.
    pub(crate) fn sweep(&mut self, now_ns: u64, limit_ns: u64, is_open: impl Fn(&C) -> bool) {
        let mut idle = std::mem::take(&mut self.idle);
        idle.retain(|one| self.is_usable(one, now_ns, limit_ns, &is_open));
        self.idle = idle;
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
