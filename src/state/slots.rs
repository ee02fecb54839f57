//! A fixed number of slots that workers claim and give back, each from its own shard as long as that has any.
//!
//! A shard is a range of the slots with a stack of those that were given back (Treiber's: an index into the slots, and a count that makes the
//! compare-and-swap fail when the stack has changed in between) and a mark up to which slots were ever used. A slot that was never used
//! is never written, so it takes no memory. A worker whose shard is empty takes from the others': connections are not spread evenly,
//! and the limits are the process's.
//!
//! Claiming synchronizes with the giving back that went before it, so a slot passes from one owner to the next with all that was
//! written to it.

use super::sync::{AtomicU64, Ordering};

/// Words of a slot's agent id: 128 bytes, the longest id that the policy file takes.
#[cfg(not(loom))]
pub(super) const AGENT_WORDS: usize = 16;
/// Few, so that loom can explore all interleavings.
#[cfg(loom)]
pub(super) const AGENT_WORDS: usize = 1;

/// Words of a slot: 256 bytes. The first is this module's.
pub(super) const SLOT_WORDS: usize = 16 + AGENT_WORDS;

/// Bits of a slot's index in a connection's id and in a stack's head: 16 million connections.
pub(super) const INDEX_BITS: u32 = 24;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
/// Slots there can be; the index of one more than the last must be told from none.
const MAX_SLOTS: usize = (1 << INDEX_BITS) - 1;

/// How often all shards are looked through before there is none: a slot can be given back behind the looker's back.
const ROUNDS: usize = 4;

/// Slots begin on a border of this many bytes, so that two never share a cache line; lines are fetched in pairs.
const ALIGNMENT: usize = 128;

#[cfg(not(loom))]
use crate::sys::zeroed::zeroed_words;
#[cfg(loom)]
fn zeroed_words(count: usize) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

/// A range of the slots, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    /// `changes << 24 | index + 1` of the slot that was given back last; the low part is 0 when there is none.
    free: AtomicU64,
    /// The first slot that was never used.
    fresh: AtomicU64,
    start: u64,
    end: u64,
}

/// The slots.
#[derive(Debug)]
pub(super) struct Slots {
    words: Box<[AtomicU64]>,
    /// Words before the first slot.
    lead: usize,
    count: usize,
    shards: Box<[Shard]>,
}

impl Slots {
    /// At least `capacity` slots in `shards` shards of one size.
    pub(super) fn new(capacity: usize, shards: usize) -> Self {
        let shards = shards.clamp(1, MAX_SLOTS);
        let each = capacity.div_ceil(shards).clamp(1, MAX_SLOTS / shards);
        let start = |shard: usize| (shard * each) as u64;
        let shard =
            |n| Shard { free: AtomicU64::new(0), fresh: AtomicU64::new(start(n)), start: start(n), end: start(n + 1) };
        let count = each * shards;
        let spare = ALIGNMENT / size_of::<u64>();
        let words = zeroed_words(count * SLOT_WORDS + spare);
        let past_border = words.as_ptr().addr() % ALIGNMENT;
        let lead = (ALIGNMENT - past_border) % ALIGNMENT / size_of::<u64>();
        Self { words, lead, count, shards: (0..shards).map(shard).collect() }
    }

    /// A slot's words.
    pub(super) fn words(&self, index: usize) -> Option<&[AtomicU64; SLOT_WORDS]> {
        let start = index.checked_mul(SLOT_WORDS)?.checked_add(self.lead)?;
        self.words.get(start..)?.first_chunk().filter(|_| index < self.count)
    }

    /// Claims a slot, of shard `home` if it has one. The caller owns it until it gives it back.
    pub(super) fn claim(&self, home: usize) -> Option<usize> {
        let home = home % self.shards.len();
        let (before, own_first) = self.shards.split_at(home);
        let rounds = (0..ROUNDS).flat_map(|_| own_first.iter().chain(before));
        let index = rounds.into_iter().find_map(|shard| self.pop(shard).or_else(|| shard.next_fresh()))?;
        usize::try_from(index).ok()
    }

    /// Gives a claimed slot back to its shard.
    pub(super) fn give_back(&self, index: usize) {
        let (Some(shard), Some(next)) = (self.shard_of(index), self.next(index as u64)) else { return };
        let mut head = shard.free.load(Ordering::Relaxed);
        loop {
            next.store(head & INDEX_MASK, Ordering::Relaxed);
            let pushed = stacked(head, index as u64 + 1);
            match shard.free.compare_exchange(head, pushed, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// The slots that have ever been used, in order, from `first` on.
    pub(super) fn used(&self, first: usize) -> impl Iterator<Item = (usize, &[AtomicU64; SLOT_WORDS])> {
        let used = self.shards.iter().flat_map(|shard| shard.start..shard.fresh.load(Ordering::Acquire).min(shard.end));
        let indexes = used.filter_map(|index| usize::try_from(index).ok()).filter(move |index| *index >= first);
        indexes.filter_map(|index| Some((index, self.words(index)?)))
    }

    fn pop(&self, shard: &Shard) -> Option<u64> {
        let mut head = shard.free.load(Ordering::Acquire);
        loop {
            let index = (head & INDEX_MASK).checked_sub(1)?;
            // Another thread may have taken this slot meanwhile: then this is any number, and the head has changed.
            let below = self.next(index)?.load(Ordering::Relaxed);
            match shard.free.compare_exchange(head, stacked(head, below), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(index),
                Err(now) => head = now,
            }
        }
    }

    fn next(&self, index: u64) -> Option<&AtomicU64> {
        self.words(usize::try_from(index).ok()?)?.first()
    }

    fn shard_of(&self, index: usize) -> Option<&Shard> {
        let each = self.count / self.shards.len();
        self.shards.get(index / each)
    }
}

impl Shard {
    fn next_fresh(&self) -> Option<u64> {
        let take = |fresh: u64| (fresh < self.end).then(|| fresh + 1);
        self.fresh.fetch_update(Ordering::AcqRel, Ordering::Relaxed, take).ok()
    }
}

/// The head of a stack after one more change.
fn stacked(head: u64, top: u64) -> u64 {
    ((head >> INDEX_BITS).wrapping_add(1) << INDEX_BITS) | (top & INDEX_MASK)
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
