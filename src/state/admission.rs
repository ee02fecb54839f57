//! How many connections each address has open: never one over the limit, whatever the threads do.
//!
//! ## The table
//! A fixed array of 64-bit slots, in buckets of [`BUCKET`]. A slot is 0 when free, otherwise `tag << 16 | count`: the
//! upper 48 bits of the address's keyed hash, and its open connections. The hash also names the one bucket in which the
//! address may stand. The hasher's key is secret to the process, so nobody outside can aim at a bucket. A slot whose
//! count returns to 0 becomes free in the same atomic step, so the table holds open connections and nothing else: any
//! number of addresses that come and go leaves nothing behind, and a look-up always costs one bucket (four cache lines).
//!
//! With eight slots for every connection the doors allow, a bucket holds four addresses on average when all connections
//! come from different addresses; that a bucket overflows is then a matter of 10^-19. If it does, the
//! newcomer is refused.
//!
//! ## Why never one over
//! Taking: find the address's slot in the bucket, raise its count by compare-and-swap, *then* sum the counts of all slots
//! with that tag; over the limit, lower it again and refuse. Usually there is one such slot and the compare-and-swap
//! alone has decided. There can be two when threads claimed free slots for the same address at the same moment.
//! Suppose more than the limit were held at once. Each holder raised its count, passed a sequentially consistent fence, and
//! then summed. Take the holder whose fence is the last in the fences' order: every other holder's raise lies before
//! its own fence, so the last one's sum saw all of them (a held slot cannot be freed or change its tag) and was over the
//! limit: it was refused. Contradiction. The price: two first connections of one address that race into different slots can
//! each see the other and both step back; they try again, at most [`ATTEMPTS`] times.
//!
//! IPv6 addresses count by /64, IPv4-mapped ones as IPv4. Two addresses that share 48 bits of tag and a bucket would share
//! their limit; at 100,000 connections the odds of that are under one in 10^9.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use super::sync::{AtomicU64, Ordering, fence, spin_loop};

/// Slots of a bucket.
#[cfg(not(loom))]
pub const BUCKET: usize = 32;
/// Slots of a bucket; few, so that loom can explore all interleavings.
#[cfg(loom)]
pub const BUCKET: usize = 2;

/// How often a taker starts over when it raced with another one for the same address.
#[cfg(not(loom))]
const ATTEMPTS: usize = 16;
#[cfg(loom)]
const ATTEMPTS: usize = 2;

/// The highest limit a slot can count to.
pub const MAX_LIMIT: u16 = u16::MAX - 1;

const COUNT_BITS: u32 = 16;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// Why an address got no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has as many as it may have.
    #[error("the address has reached its connection limit")]
    Limit,
    /// The table has no slot left for it.
    #[error("the connection table is full")]
    TableFull,
}

/// Open connections by address. Shared by all workers behind an `Arc`.
#[derive(Debug)]
pub struct AdmissionTable<S> {
    slots: Box<[AtomicU64]>,
    bucket_mask: u64,
    hasher: S,
}

impl<S: BuildHasher> AdmissionTable<S> {
    /// A table for at most `max_connections` over all doors: eight slots for each, rounded up to a power of two, 8 bytes a
    /// slot. `hasher` must be keyed by a secret of the process; `std::hash::RandomState` is.
    #[must_use]
    pub fn new(max_connections: usize, hasher: S) -> Self {
        #[cfg(not(loom))]
        let buckets = (max_connections.saturating_mul(8) / BUCKET).max(1).next_power_of_two();
        #[cfg(loom)]
        let buckets = max_connections.max(1).next_power_of_two();
        let slots = (0..buckets * BUCKET).map(|_| AtomicU64::new(0)).collect();
        Self { slots, bucket_mask: buckets as u64 - 1, hasher }
    }

    /// Takes one of `limit` connections (1 to [`MAX_LIMIT`], higher is lowered to it) for the address.
    ///
    /// # Errors
    /// [`Refused::Limit`] when it has `limit` open already, [`Refused::TableFull`] when there is no slot for it.
    pub fn try_acquire(self: &Arc<Self>, ip: IpAddr, limit: u16) -> Result<AddressPermit<S>, Refused> {
        let limit = u64::from(limit.min(MAX_LIMIT));
        let (tag, bucket_start) = self.place(ip);
        let bucket = self.slots.get(bucket_start..bucket_start + BUCKET).ok_or(Refused::TableFull)?;
        let mut clashes = 0;
        while clashes < ATTEMPTS {
            // A lost compare-and-swap means that another thread got on; it is not counted.
            let Some(index) = raise(bucket, tag, limit)? else {
                spin_loop();
                continue;
            };
            fence(Ordering::SeqCst);
            if sum(bucket, tag) <= limit {
                return Ok(AddressPermit { table: Arc::clone(self), slot: bucket_start + index });
            }
            if let Some(slot) = bucket.get(index) {
                lower(slot);
            }
            clashes += 1;
            spin_loop();
        }
        Err(Refused::Limit)
    }

    /// Connections the address has open.
    #[must_use]
    pub fn count(&self, ip: IpAddr) -> u64 {
        let (tag, start) = self.place(ip);
        self.slots.get(start..start + BUCKET).map_or(0, |bucket| sum(bucket, tag))
    }

    /// Slots in use, for tests and metrics; walks the table.
    #[must_use]
    pub fn occupied(&self) -> usize {
        self.slots.iter().filter(|slot| slot.load(Ordering::Relaxed) != 0).count()
    }

    /// The address's tag, never 0, and the first slot of its bucket.
    fn place(&self, ip: IpAddr) -> (u64, usize) {
        let hash = self.hasher.hash_one(network_of(ip));
        let tag = (hash >> COUNT_BITS).max(1);
        // The low bits choose the bucket; those over 16 are in the tag as well, which does no harm.
        let bucket = hash & self.bucket_mask;
        (tag, usize::try_from(bucket).unwrap_or(0) * BUCKET)
    }
}

/// Raises the tag's count by one in its slot or in a free one. `None`: the bucket changed under our eyes, look again.
fn raise(bucket: &[AtomicU64], tag: u64, limit: u64) -> Result<Option<usize>, Refused> {
    let mut free = None;
    let mut own = None;
    let mut total = 0;
    for (index, slot) in bucket.iter().enumerate() {
        let word = slot.load(Ordering::Relaxed);
        if word == 0 {
            free = free.or(Some((index, slot, word)));
        } else if word >> COUNT_BITS == tag {
            total += word & COUNT_MASK;
            own = own.or(Some((index, slot, word)));
        }
    }
    if total >= limit {
        return Err(Refused::Limit);
    }
    let (index, slot, word) = own.or(free).ok_or(Refused::TableFull)?;
    let raised = (tag << COUNT_BITS) | ((word & COUNT_MASK) + 1);
    let swapped = slot.compare_exchange(word, raised, Ordering::AcqRel, Ordering::Relaxed);
    Ok(swapped.is_ok().then_some(index))
}

/// All connections of a tag in its bucket.
fn sum(bucket: &[AtomicU64], tag: u64) -> u64 {
    let words = bucket.iter().map(|slot| slot.load(Ordering::Relaxed));
    words.filter(|word| *word != 0 && word >> COUNT_BITS == tag).map(|word| word & COUNT_MASK).sum()
}

/// Lowers a slot that the caller holds one count of; the last count frees it.
fn lower(slot: &AtomicU64) {
    let _ = slot.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
        Some(if word & COUNT_MASK <= 1 { 0 } else { word - 1 })
    });
}

/// What an address counts as: itself for IPv4, its /64 for IPv6.
pub(super) fn network_of(ip: IpAddr) -> (u8, u64) {
    match ip.to_canonical() {
        IpAddr::V4(v4) => (4, u64::from(v4.to_bits())),
        IpAddr::V6(v6) => (6, u64::try_from(v6.to_bits() >> 64).unwrap_or(0)),
    }
}

/// Whether two addresses count as one.
pub(super) fn same_network(one: IpAddr, other: IpAddr) -> bool {
    network_of(one) == network_of(other)
}

/// One connection of an address; given back on drop.
#[derive(Debug)]
pub struct AddressPermit<S> {
    table: Arc<AdmissionTable<S>>,
    slot: usize,
}

impl<S> Drop for AddressPermit<S> {
    fn drop(&mut self) {
        if let Some(slot) = self.table.slots.get(self.slot) {
            lower(slot);
        }
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
