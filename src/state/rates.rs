//! How often each key has done something, and whether it may once more: the one table behind all limits by time.
//!
//! A key is a keyed hash of what is counted (an address, an agent, an agent and a tool, …); together with a [`Span`] it names one count. So a
//! minute, an hour and a day of one agent are one key and three spans, and share nothing.
//!
//! Promises:
//! - In no window of a span's length is more than the limit admitted, from any mix of threads; and a caller that stays at or under 63/64
//!   of it is never refused (`window`). A day's or a month's count is exact (`calendar`).
//! - The limit is an argument of each call: a changed one holds from that call on.
//! - Nothing waits, nothing allocates, and every call looks at one bucket (`seats`). The table never grows. What is one key too many
//!   displaces what counts least; that is the one way by which a count is forgotten early, and such are counted.
//! - Nobody outside can aim at a bucket: the hash is SipHash under a secret.
//!
//! Time is an argument. To a key, a clock that goes back stands still.
//!
//! The words stand in memory, or in the pages of a file (`control/counters.rs`), which are the same to the table. There the state is whole after every
//! single write: a process that is killed between two of them leaves nothing that the next one could not go on with.

#[path = "rates/calendar.rs"]
mod calendar;
#[path = "rates/seats.rs"]
mod seats;
#[path = "rates/tend.rs"]
mod tend;

use std::net::IpAddr;

use self::calendar::Calendar;
use self::seats::{BUCKET_WORDS, Bucket, Life, SEATS, Seat, Seated};
use super::admission::network_of;
use super::keyed_hash;
use super::sync::{AtomicU64, Ordering};
use super::window::{self, Ask, CELLS};

#[cfg(not(loom))]
use crate::sys::words::{Words, expect_use};
#[cfg(loom)]
type Words = Box<[AtomicU64]>;
#[cfg(loom)]
fn expect_use(_: &[AtomicU64; BUCKET_WORDS]) {}

pub use super::window::{MAX_COST, MAX_LENGTH_MS, MAX_LIMIT};
pub use tend::Step;

/// Words before the first bucket: a page, for who keeps the table in a file to describe it.
#[cfg(not(loom))]
pub(crate) const PREFACE_WORDS: usize = 512;
#[cfg(loom)]
pub(crate) const PREFACE_WORDS: usize = 0;

/// Seats for each count that the table is for: with a third of them taken, one count in a thousand finds its bucket full and displaces another.
#[cfg(not(loom))]
const SEATS_EACH: usize = 3;
/// All in one bucket.
#[cfg(loom)]
const SEATS_EACH: usize = 2;

/// Attempts of a call to get on, of which each but the last failed because another thread did. Who needs more is refused.
const ATTEMPTS: usize = 100_000;

/// What is counted: a keyed hash. Good for the table that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

/// For how long an admission counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Span {
    /// This many milliseconds from then on, whatever the clock shows; 1 to [`MAX_LENGTH_MS`].
    Sliding(u32),
    /// Until midnight UTC.
    Day,
    /// Until the first of the next month, UTC.
    Month,
}

/// How many are admitted within a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// At most this many; 0 admits none. Of a sliding span at most [`MAX_LIMIT`]; more is lowered to it.
    pub limit: u32,
    /// Of this time.
    pub span: Span,
}

/// What was admitted, to give it back with: once, and so it cannot be copied.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an admission whose call is refused by a later guard is given back"]
pub struct Admitted {
    /// The time that a window counted it at, or the period of a calendar.
    at: u32,
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
    words: Words,
    buckets: usize,
    secret: [u64; 2],
    evictions: Apart,
    tended: tend::Tended,
}

/// On cache lines of its own: it changes in a flood, and what stands beside it is read by every call.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart(AtomicU64);

/// A span as the table sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Sliding(u32),
    Calendar(Calendar),
}

impl Kept {
    fn of(span: Span) -> Self {
        match span {
            Span::Sliding(length_ms) => Self::Sliding(length_ms.clamp(1, MAX_LENGTH_MS)),
            Span::Day => Self::Calendar(Calendar::Day),
            Span::Month => Self::Calendar(Calendar::Month),
        }
    }

    fn life(self) -> Life {
        match self {
            // The number of bits that hold one less: the logarithm, rounded up.
            Self::Sliding(length_ms) => Life::Sliding(u32::BITS - (length_ms - 1).leading_zeros()),
            Self::Calendar(calendar) => Life::Calendar(calendar),
        }
    }

    /// Makes different counts of one key's different spans.
    fn salt(self) -> u64 {
        let number = match self {
            Self::Sliding(length_ms) => u64::from(length_ms),
            Self::Calendar(Calendar::Day) => 1 << 32,
            Self::Calendar(Calendar::Month) => 1 << 33,
        };
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl RateTable {
    /// A table in memory, for `capacity` counts: about 55 bytes each, and up to 1.5 KiB more once it is used in more than one group. `secret` is what nobody
    /// outside may know.
    #[must_use]
    pub fn new(capacity: usize, secret: [u8; 16]) -> Self {
        let count = Self::words_for(capacity);
        #[cfg(not(loom))]
        let words = Words::zeroed(count);
        #[cfg(not(loom))]
        words.expect_random_use(PREFACE_WORDS + buckets_for(capacity) * BUCKET_WORDS);
        #[cfg(loom)]
        let words = (0..count).map(|_| AtomicU64::new(0)).collect();
        Self::over(words, capacity, secret)
    }

    /// Words of a table for `capacity` counts, the preface included.
    pub(crate) fn words_for(capacity: usize) -> usize {
        PREFACE_WORDS + buckets_for(capacity) * (BUCKET_WORDS + SEATS * CELLS)
    }

    /// A table over words that are there, at least [`words_for`](Self::words_for) this capacity. Whatever stands in them, nothing panics; words of a
    /// process that has ended want [`mend`](Self::mend).
    pub(crate) fn over(words: Words, capacity: usize, secret: [u8; 16]) -> Self {
        let [low, high] =
            [0, 8].map(|from| u64::from_le_bytes(std::array::from_fn(|n| secret.get(from + n).copied().unwrap_or(0))));
        Self {
            words,
            buckets: buckets_for(capacity),
            secret: [low, high],
            evictions: Apart::default(),
            tended: tend::Tended::default(),
        }
    }

    /// The words, for who keeps them.
    #[cfg(not(loom))]
    pub(crate) fn words(&self) -> &Words {
        &self.words
    }

    /// The key of `bytes`. Equal bytes of different kinds are different keys; the kinds are the caller's to number.
    #[must_use]
    #[inline]
    pub fn key(&self, kind: u8, bytes: &[u8]) -> Key {
        Key(keyed_hash::hash(self.secret, kind, bytes))
    }

    /// The key of an address: IPv6 counts by /64, an IPv4-mapped one as IPv4.
    #[must_use]
    #[inline]
    pub fn key_of_ip(&self, kind: u8, ip: IpAddr) -> Key {
        Key(match network_of(ip) {
            // Shorter than any other, so no other is equal.
            (4, address) => keyed_hash::hash_of_short(self.secret, address << 8 | u64::from(kind), 5),
            (version, network) => keyed_hash::hash_of_word(self.secret, kind, network, version),
        })
    }

    /// [`take`](Self::take) is asked about this key and span soon: what it looks at may be on its way from memory meanwhile, which takes longer than the
    /// decision itself where many keys are counted. Changes nothing, and may be left out.
    #[inline]
    pub fn expect(&self, key: Key, span: Span) {
        if let Some(words) = self.bucket_words(self.place_of(key, Kept::of(span)).0) {
            expect_use(words);
        }
    }

    /// Charges `cost` (0 to [`MAX_COST`]) to the key if the rule has room for it, all or nothing.
    ///
    /// # Errors
    /// [`Refused`], and nothing is charged.
    #[inline]
    pub fn take(&self, key: Key, rule: Rule, cost: u32, now_ms: u64) -> Result<Admitted, Refused> {
        match Kept::of(rule.span) {
            Kept::Sliding(length_ms) => {
                let ask = ask(rule, length_ms, cost, now_ms);
                match self.one_more(key, ask) {
                    Some(at) => Ok(Admitted { at, cost }),
                    None => self.take_sliding(key, rule, ask, now_ms),
                }
            }
            Kept::Calendar(calendar) => self.take_by_calendar(key, rule, calendar, cost, now_ms),
        }
    }

    /// The short way of nearly all: the key has its seat, mostly at home, and it is one more in a window that has room.
    #[inline]
    fn one_more(&self, key: Key, ask: Ask) -> Option<u32> {
        let (index, tag) = self.place_of(key, Kept::Sliding(ask.length_ms));
        let words = self.bucket_words(index)?;
        // Both lines at once: who does not sit at home may sit in the other one.
        expect_use(words);
        let (head, seat, word) = seats::at_home(words, tag).or_else(|| seats::elsewhere(words, tag))?;
        let cells = || self.bucket(index)?.cells.get(seat);
        let (next, at) = window::one_more(word, ask, cells)?;
        head.compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed).is_ok().then_some(at)
    }

    #[inline(never)]
    fn take_sliding(&self, key: Key, rule: Rule, ask: Ask, now_ms: u64) -> Result<Admitted, Refused> {
        for _ in 0..ATTEMPTS {
            let Some((seat, word)) = self.seat_of(key, Kept::Sliding(ask.length_ms), now_ms) else { continue };
            match seat.window.take(word, ask) {
                Some(Ok(at)) => return Ok(Admitted { at, cost: ask.cost }),
                Some(Err(full)) => return Err(full.of(rule)),
                None => super::sync::spin_loop(),
            }
        }
        Err(Refused { current: 0, max: rule.limit, retry_after_ms: 1 })
    }

    fn take_by_calendar(
        &self,
        key: Key,
        rule: Rule,
        calendar: Calendar,
        cost: u32,
        now_ms: u64,
    ) -> Result<Admitted, Refused> {
        for _ in 0..ATTEMPTS {
            let Some((seat, word)) = self.seat_of(key, Kept::Calendar(calendar), now_ms) else { continue };
            match count(seat, word, rule, calendar, cost, now_ms) {
                Some(counted) => return counted.map(|at| Admitted { at, cost }),
                None => super::sync::spin_loop(),
            }
        }
        Err(Refused { current: 0, max: rule.limit, retry_after_ms: 1 })
    }

    /// Gives back what [`take`](Self::take) has charged under the same key and rule. What counts no longer stays as it is.
    pub fn give_back(&self, key: Key, rule: Rule, admitted: Admitted, now_ms: u64) {
        let kept = Kept::of(rule.span);
        let Admitted { at, cost } = admitted;
        for _ in 0..ATTEMPTS {
            let (bucket, tag) = self.bucket_of(key, kept);
            let Some(seat) = bucket.and_then(|bucket| bucket.find(tag)) else { return };
            let Some(word) = seat.read() else { continue };
            let done = match kept {
                Kept::Sliding(length_ms) => seat.window.give_back(word, at, ask(rule, length_ms, cost, now_ms)),
                Kept::Calendar(_) => {
                    let (period, count) = calendar::read(word);
                    let less = calendar::word(period, count.saturating_sub(cost.into()));
                    if period != u64::from(at) {
                        return;
                    }
                    swap(seat, word, less).then_some(())
                }
            };
            if done.is_some() {
                return;
            }
        }
    }

    /// How far the key has used its limit. Charges nothing.
    #[must_use]
    pub fn peek(&self, key: Key, rule: Rule, now_ms: u64) -> Usage {
        let kept = Kept::of(rule.span);
        let usage = |used: u64, resets_at_ms| Usage { used, left: limit_of(rule).saturating_sub(used), resets_at_ms };
        for _ in 0..ATTEMPTS {
            let (bucket, tag) = self.bucket_of(key, kept);
            let Some(seat) = bucket.and_then(|bucket| bucket.find(tag)) else { break };
            let Some(word) = seat.read() else { continue };
            match kept {
                Kept::Sliding(length_ms) => {
                    let Some((used, until_ms)) = seat.window.peek(word, ask(rule, length_ms, 0, now_ms)) else {
                        continue;
                    };
                    return usage(used.into(), now_ms.saturating_add(until_ms.into()));
                }
                Kept::Calendar(calendar) => {
                    let (period, used) = calendar::current(word, calendar.period(now_ms));
                    return usage(used, if used == 0 { now_ms } else { calendar.end_ms(period) });
                }
            }
        }
        usage(0, now_ms)
    }

    /// How many counts had to make room before they had expired.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.evictions.0.load(Ordering::Relaxed)
    }

    /// The key's seat, which it gets if it has none, and the word of its head. `None`: something has changed meanwhile, look again.
    #[inline]
    fn seat_of(&self, key: Key, kept: Kept, now_ms: u64) -> Option<(Seat<'_>, u64)> {
        let (bucket, tag) = self.bucket_of(key, kept);
        let bucket = bucket?;
        let Some(seat) = bucket.find(tag) else {
            if let Seated::InPlaceOfAnother = bucket.seat(tag, now_ms) {
                self.evictions.0.fetch_add(1, Ordering::Relaxed);
            }
            return None;
        };
        seat.read().map(|word| (seat, word))
    }

    #[inline]
    fn bucket_of(&self, key: Key, kept: Kept) -> (Option<Bucket<'_>>, u64) {
        let (index, tag) = self.place_of(key, kept);
        (self.bucket(index), tag)
    }

    /// The key's bucket and tag.
    #[inline]
    fn place_of(&self, Key(hash): Key, kept: Kept) -> (usize, u64) {
        let hash = hash ^ kept.salt();
        // The upper half of the product: evenly spread over any number of buckets, by the hash's upper bits. The tag has its lower ones.
        let index = (u128::from(hash) * self.buckets as u128) >> 64;
        (index as usize, seats::tag(hash, kept.life()))
    }

    #[inline]
    fn bucket_words(&self, index: usize) -> Option<&[AtomicU64; BUCKET_WORDS]> {
        self.words.get(PREFACE_WORDS + index * BUCKET_WORDS..)?.first_chunk()
    }

    fn bucket(&self, index: usize) -> Option<Bucket<'_>> {
        let words: &[AtomicU64] = &self.words;
        let cells_start = PREFACE_WORDS + self.buckets * BUCKET_WORDS;
        let cells = words.get(cells_start + index * SEATS * CELLS..)?.as_chunks::<CELLS>().0;
        Some(Bucket { words: self.bucket_words(index)?, cells: cells.first_chunk()? })
    }
}

fn buckets_for(capacity: usize) -> usize {
    (capacity.max(1) * SEATS_EACH).div_ceil(SEATS)
}

fn limit_of(rule: Rule) -> u64 {
    match rule.span {
        Span::Sliding(_) => rule.limit.min(MAX_LIMIT).into(),
        Span::Day | Span::Month => rule.limit.into(),
    }
}

fn ask(rule: Rule, length_ms: u32, cost: u32, now_ms: u64) -> Ask {
    Ask { limit: rule.limit.min(MAX_LIMIT), length_ms, cost, now: now_ms as u32 }
}

fn swap(seat: Seat<'_>, word: u64, next: u64) -> bool {
    seat.window.head.compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// Charges a calendar's count. `None`: the word has changed.
fn count(
    seat: Seat<'_>,
    word: u64,
    rule: Rule,
    calendar: Calendar,
    cost: u32,
    now_ms: u64,
) -> Option<Result<u32, Refused>> {
    let (period, used) = calendar::current(word, calendar.period(now_ms));
    let wanted = used + u64::from(cost);
    if wanted > u64::from(rule.limit) || cost > MAX_COST {
        let retry_after_ms = calendar.end_ms(period).saturating_sub(now_ms);
        return Some(Err(Refused { current: used, max: rule.limit, retry_after_ms }));
    }
    // A period is a number of 16 bits.
    swap(seat, word, calendar::word(period, wanted)).then_some(Ok(period as u32))
}

impl window::Full {
    fn of(self, rule: Rule) -> Refused {
        Refused { current: self.current.into(), max: rule.limit, retry_after_ms: self.wait_ms.into() }
    }
}

#[cfg(test)]
#[path = "rates_tests.rs"]
mod tests;
