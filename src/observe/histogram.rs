//! A latency histogram with one writer: a few nanoseconds a record, no lock, readable from any thread.
//!
//! Log-linear: each power of two is split into 16 equal buckets, so a value is known to within 1/16 (6.25 %) from 16 ns
//! to 137 s; below 16 ns it is exact, above [`MAX_NS`] it counts in the last bucket. 544 buckets of 8 bytes: 4.25 KiB.
//!
//! The owner adds with a plain load and store (no locked instruction), which is why there must be one writer only.
//! Readers see every bucket at some recent moment; a snapshot taken during writes may miss the newest values and
//! nothing else.

use std::sync::atomic::{AtomicU64, Ordering};

/// Linear steps within a power of two, as a power of two.
const SUB_BITS: u32 = 4;
const SUB: u64 = 1 << SUB_BITS;
/// The highest power of two that is told apart: 2^36 ns is 68.7 s.
const TOP_BIT: u32 = 36;
/// Number of buckets.
pub const BUCKETS: usize = ((TOP_BIT - SUB_BITS + 2) as usize) << SUB_BITS;
/// The highest value that is told apart from higher ones, nanoseconds (about 137 s).
pub const MAX_NS: u64 = (1 << (TOP_BIT + 1)) - 1;

/// A histogram of durations in nanoseconds, written by one thread.
#[derive(Debug)]
#[repr(align(128))]
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// An empty histogram.
    #[must_use]
    pub fn new() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(), sum_ns: AtomicU64::new(0) }
    }

    /// Records one duration. Only the owning thread may call this: two writers would lose counts.
    pub fn record(&self, duration_ns: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(duration_ns)) {
            bucket.store(bucket.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
        self.sum_ns.store(self.sum_ns.load(Ordering::Relaxed).wrapping_add(duration_ns), Ordering::Relaxed);
    }

    /// Adds this histogram's counts to a snapshot.
    pub fn add_to(&self, snapshot: &mut Snapshot) {
        for (bucket, count) in self.buckets.iter().zip(snapshot.counts.iter_mut()) {
            *count += bucket.load(Ordering::Relaxed);
        }
        snapshot.sum_ns = snapshot.sum_ns.wrapping_add(self.sum_ns.load(Ordering::Relaxed));
    }
}

/// Counts summed over histograms, to be asked for quantiles and buckets.
#[derive(Clone, Debug)]
pub struct Snapshot {
    counts: Vec<u64>,
    sum_ns: u64,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], sum_ns: 0 }
    }
}

impl Snapshot {
    /// All values recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all values, nanoseconds.
    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// The value below or at which a share `q` (0 to 1) of all values lie: the upper end of the bucket that holds it, so
    /// at most 1/16 too high, never too low. `None` when empty.
    #[must_use]
    pub fn quantile_ns(&self, q: f64) -> Option<u64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rank = ((q.clamp(0.0, 1.0) * total as f64).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(upper_bound_of(index));
            }
        }
        Some(MAX_NS)
    }

    /// How many values lie in buckets that end at or below each bound (ascending, nanoseconds), for a cumulative
    /// histogram. A value in a bucket that straddles a bound counts for the next one.
    #[must_use]
    pub fn at_most(&self, bounds_ns: &[u64]) -> Vec<u64> {
        let mut out = Vec::with_capacity(bounds_ns.len());
        let mut buckets = self.counts.iter().enumerate().peekable();
        let mut seen = 0;
        for bound in bounds_ns {
            while let Some((_, count)) = buckets.next_if(|(index, _)| upper_bound_of(*index) <= *bound) {
                seen += count;
            }
            out.push(seen);
        }
        out
    }
}

/// The bucket of a value.
fn bucket_of(value: u64) -> usize {
    let value = value.min(MAX_NS);
    if value < SUB {
        return value as usize;
    }
    let top = 63 - value.leading_zeros();
    let shift = top - SUB_BITS;
    let step = (value >> shift) - SUB;
    ((u64::from(shift) + 1) * SUB + step) as usize
}

/// The highest value of a bucket.
fn upper_bound_of(index: usize) -> u64 {
    let index = index as u64;
    if index < SUB {
        return index;
    }
    let shift = index / SUB - 1;
    let step = index % SUB;
    ((SUB + step + 1) << shift) - 1
}

#[cfg(test)]
#[path = "histogram_tests.rs"]
mod tests;
