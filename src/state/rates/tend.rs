//! What the table wants now and then, from one thread: each second, and once before its first use when its words are older than the process.
//!
//! - A window keeps time modulo 49 days. One that has expired is cleared within hours, long before its time could look like another.
//! - A clock that was set back stands still for every window until it has caught up, and for hours everything that was ever admitted would
//!   count. So what was counted under the clock as it was is taken to have happened now: it leaves after its length at the latest, and never too early.
//! - After a clock that leaps by weeks nothing that slides counts any more.

use super::super::sync::{AtomicU64, Ordering};
use super::super::window::{self, Window};
use super::RateTable;
use super::calendar;
use super::seats::{Bucket, Life};

/// A clock that is behind by less is one of another core, or was trimmed.
const BACK_MS: u64 = 10_000;
/// A clock that is so far ahead or behind (12 days) has leapt.
const LEAP_MS: u64 = 1 << 30;
/// In how many parts the table is looked through: one a call.
const PARTS: usize = 4_096;

/// What the clock has done since the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// It has gone on.
    Steady,
    /// It was set back. What counted counts from now.
    Back,
    /// It leapt by weeks. What slides counts no longer.
    Leap,
}

/// When, and how far.
#[derive(Debug, Default)]
pub(super) struct Tended {
    at_ms: AtomicU64,
    next_part: AtomicU64,
}

impl RateTable {
    /// Looks after a part of the table. To be called about each second, by one thread.
    pub fn tend(&self, now_ms: u64) -> Step {
        let before_ms = self.tended.at_ms.swap(now_ms, Ordering::Relaxed);
        let step = step(if before_ms == 0 { now_ms } else { before_ms }, now_ms);
        if step != Step::Steady {
            self.look_after(0..self.buckets, step, now_ms);
            return step;
        }
        let each = self.buckets.div_ceil(PARTS);
        let part = self.tended.next_part.fetch_add(1, Ordering::Relaxed) as usize % PARTS;
        self.look_after(part * each..((part + 1) * each).min(self.buckets), step, now_ms);
        step
    }

    /// Puts words in order that a process has left at `left_ms`, by the same clock: what cannot be is cut off, what has expired is cleared, and the
    /// clock may have been set meanwhile.
    pub fn mend(&self, left_ms: u64, now_ms: u64) -> Step {
        for bucket in (0..self.buckets).filter_map(|index| self.bucket(index)) {
            let sliding = bucket.seats().filter(|(tag, _)| matches!(Life::of(*tag), Life::Sliding(_)));
            sliding.for_each(|(_, window)| window.cut_off_unsound());
        }
        let step = step(left_ms, now_ms);
        // A word may be younger than the note of when the process was there last.
        let step = if step == Step::Steady { Step::Back } else { step };
        self.look_after(0..self.buckets, step, now_ms);
        self.tended.at_ms.store(now_ms, Ordering::Relaxed);
        step
    }

    fn look_after(&self, buckets: std::ops::Range<usize>, step: Step, now_ms: u64) {
        for bucket in buckets.filter_map(|index| self.bucket(index)) {
            look_after(bucket, step, now_ms);
        }
    }
}

fn step(before_ms: u64, now_ms: u64) -> Step {
    if before_ms.abs_diff(now_ms) > LEAP_MS {
        Step::Leap
    } else if now_ms + BACK_MS < before_ms {
        Step::Back
    } else {
        Step::Steady
    }
}

fn look_after(bucket: Bucket<'_>, step: Step, now_ms: u64) {
    for (tag, window) in bucket.seats() {
        let word = window.head.load(Ordering::Acquire);
        match Life::of(tag) {
            Life::Calendar(calendar) => {
                let (period, count) = calendar::read(word);
                let current = calendar.period(now_ms);
                if step != Step::Steady && period > current {
                    let _ = swap(window, word, calendar::word(current, count));
                }
            }
            Life::Sliding(power) => {
                let Some(time) = window::last_used(word) else { continue };
                let age = (now_ms as u32).wrapping_sub(time).cast_signed();
                if step == Step::Leap || age.max(0) >> power > 0 {
                    window.settle(word);
                    let _ = swap(window, word, 0);
                } else if step == Step::Back && age < 0 {
                    window.rewind(now_ms as u32);
                }
            }
        }
    }
}

/// If somebody else was quicker, the word is in use, and in order.
fn swap(window: Window<'_>, word: u64, next: u64) -> bool {
    window.head.compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}
