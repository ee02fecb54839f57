//! Calls on their way to a tracing backend: sampled by the workers, copied once, made into spans elsewhere.
//!
//! A record has a fixed size and owns no heap. The queue between the workers and the control thread is bounded; what finds no place is dropped and
//! counted, because a trace is for looking at and nothing depends on it.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

use super::events::{Outcome, ShortText};
use super::lifecycle::Door;
use crate::wire::traceparent::TraceParent;

/// Records that wait: about 350 KiB.
pub const CAPACITY: usize = 2048;

/// One request that has ended.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// Who has called, as far as it says so.
    pub parent: Option<TraceParent>,
    /// The door that it came through.
    pub door: Door,
    /// The upstream's number, if it went to one.
    pub upstream: Option<u16>,
    /// The JSON-RPC method, where it is one that MCP knows.
    pub method: &'static str,
    /// The tool that was called, as the client spells it.
    pub tool: ShortText,
    /// How it ended.
    pub outcome: Outcome,
    /// When it ended, milliseconds since the Unix epoch.
    pub ended_at_ms: u64,
    /// How long it took.
    pub duration_ns: u64,
}

/// The queue, and which calls go into it.
#[derive(Debug)]
pub struct CallRecords {
    ring: ArrayQueue<CallRecord>,
    dropped: AtomicU64,
    /// Of 2^64.
    threshold: u64,
}

impl CallRecords {
    /// Takes this share (0 to 1) of all calls.
    #[must_use]
    pub fn new(ratio: f64) -> Self {
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // Saturates: 1 is every call.
        let threshold = (ratio.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        Self { ring: ArrayQueue::new(CAPACITY), dropped: AtomicU64::new(0), threshold }
    }

    /// Whether a call is recorded. With a parent that records, by the trace's id, so that all who go by ids agree; without one by `number`, which differs
    /// from call to call. A parent that does not record is followed.
    #[must_use]
    pub fn samples(&self, parent: Option<&TraceParent>, number: u32) -> bool {
        let place = match parent {
            Some(parent) if !parent.sampled => return false,
            // The right half is the random one (Trace Context, "random-trace-id").
            Some(parent) => (parent.trace_id & u128::from(u64::MAX)) as u64,
            None => u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        self.threshold > 0 && place <= self.threshold
    }

    /// Hands a record over, or drops and counts it.
    pub fn push(&self, record: CallRecord) {
        if self.ring.push(record).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes the oldest out.
    pub fn pop(&self) -> Option<CallRecord> {
        self.ring.pop()
    }

    /// Counts records that were taken out and came nowhere.
    pub fn drop_more(&self, records: u64) {
        self.dropped.fetch_add(records, Ordering::Relaxed);
    }

    /// Records that came nowhere.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Records that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn record() -> CallRecord {
        CallRecord {
            parent: None,
            door: Door::Http,
            upstream: Some(0),
            method: "tools/call",
            tool: ShortText::new(),
            outcome: Outcome::Ok,
            ended_at_ms: 0,
            duration_ns: 0,
        }
    }

    #[test]
    fn what_finds_no_place_is_counted() {
        let records = CallRecords::new(1.0);
        (0..CAPACITY + 3).for_each(|_| records.push(record()));
        assert_eq!((records.len(), records.dropped()), (CAPACITY, 3));
        assert!(records.pop().is_some());
        records.push(record());
        records.drop_more(2);
        assert_eq!((records.len(), records.dropped()), (CAPACITY, 5));
    }

    #[test]
    fn the_ratio_is_kept_with_and_without_a_parent() {
        for (ratio, least, most) in [(0.0, 0, 0), (0.1, 900, 1100), (0.5, 4800, 5200), (1.0, 10_000, 10_000)] {
            let records = CallRecords::new(ratio);
            let alone = (0..10_000).filter(|n| records.samples(None, *n)).count();
            let parent = |n: u32| TraceParent {
                trace_id: (7 << 64) | u128::from(u64::from(n).wrapping_mul(0xd134_2543_de82_ef95)),
                span_id: 1,
                sampled: true,
            };
            let called = (1..=10_000).filter(|n| records.samples(Some(&parent(*n)), 0)).count();
            for count in [alone, called] {
                assert!((least..=most).contains(&count), "{ratio}: {count}");
            }
            assert!(
                !records.samples(Some(&TraceParent { sampled: false, ..parent(0) }), 0),
                "the caller does not record"
            );
        }
    }
}
