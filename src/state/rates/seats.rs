//! Where a key's count stands: buckets of seats, and how a newcomer gets one.
//!
//! A bucket is two cache lines: its *door*, and for each seat a *tag* and a *head* (one word of a window or of a calendar). A key's hash names
//! the one bucket in which it may sit, and the seat that is its home there, if nobody sat in it before. So looking for it costs one line mostly, and two
//! at most, whatever the table holds; both are asked of the memory at once, for where the table is larger than the caches the time of a decision is
//! that of the memory, and `expect` asks it ahead.
//!
//! ## One key, one seat
//! Two threads that bring the same newcomer must not give it two seats, each with a limit of its own. So at any time all newcomers of a bucket contend for
//! one seat: the one that the door names, with a number. A tag carries the low bits of the number under which it was decided. To be seated
//! under number n a thread
//!
//! 1. reads the door (n, seat), and then looks through the bucket: the key is not there;
//! 2. reads the seat's tag. If it carries n, the seat has been decided: the door is moved on to n + 1 and another seat, and everything begins
//!    anew;
//! 3. makes the head blank, by a word that carries n;
//! 4. swaps the tag, from what it has read, for its own with n.
//!
//! Suppose a key were seated under m and then, while it sits there, under n. If n > m, the door moved on from m before the second thread read it, thus
//! after the first one's tag stood there, and the second one found it in step 1. If n < m, the door moved on from n when that seat's tag carried n; so the
//! tag had changed, and the swap failed. If n = m they swapped the same tag, and one of them failed. (Numbers are compared by 12 bits: a thread
//! that slept between two instructions for exactly 4,096 newcomers of its bucket would be fooled.)
//!
//! ## Never another's count
//! A head is used by a compare-and-swap from a word that was read while the tag was the user's: read the tag, the head, the tag again. It is made
//! blank before the tag is changed, and blank words carry their number; so what was read before never matches after. Who finds its own tag and a
//! blank head of a later number is about to lose its seat: it puts that number into its own tag (step 4, for itself), and one of the two
//! succeeds. The loser goes on; nobody waits.
//!
//! ## Who goes
//! The seat that was never used; one that counts nothing; one that has expired; the one that counts least, by powers of two, and of these the one
//! that was used longest ago. A flood of keys that are seen once displaces keys that were seen once. What a bucket forgets is the least that it can,
//! and what had not expired is counted.

use super::super::sync::{AtomicU64, Ordering};
use super::super::window::{self, CELLS, Window};
use super::calendar::{self, Calendar};

/// Words of a bucket: two cache lines.
pub(super) const BUCKET_WORDS: usize = 16;
/// Seats of a bucket.
#[cfg(not(loom))]
pub(super) const SEATS: usize = 7;
/// Few, so that loom can explore all interleavings.
#[cfg(loom)]
pub(super) const SEATS: usize = 2;

/// A seat's tag and head stand side by side, so that they share a cache line. The door is the first word, and the second is spare.
const FIRST_SEAT: usize = 2;

const NUMBER_BITS: u32 = 12;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;
const LIFE_BITS: u32 = 6;
const LIFE_MASK: u64 = (1 << LIFE_BITS) - 1;
const SEAT_BITS: u32 = 3;

/// How a count expires, as its tag says it: after so many milliseconds at most, as a power of two, or with the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// At most 2^this milliseconds; 1 to 30.
    Sliding(u32),
    Calendar(Calendar),
}

const DAY: u64 = 62;
const MONTH: u64 = 63;

impl Life {
    pub(super) fn of(tag: u64) -> Self {
        match (tag >> NUMBER_BITS) & LIFE_MASK {
            DAY => Self::Calendar(Calendar::Day),
            MONTH => Self::Calendar(Calendar::Month),
            power => Self::Sliding(u32::try_from(power).unwrap_or(30).min(30)),
        }
    }

    fn bits(self) -> u64 {
        match self {
            Self::Sliding(power) => u64::from(power.clamp(1, 30)),
            Self::Calendar(Calendar::Day) => DAY,
            Self::Calendar(Calendar::Month) => MONTH,
        }
    }
}

/// The tag of a key without its number, with the lower 46 bits of its hash: never 0 above the number's bits.
pub(super) fn tag(hash: u64, life: Life) -> u64 {
    hash << (NUMBER_BITS + LIFE_BITS) | life.bits() << NUMBER_BITS
}

fn number_of(tag: u64) -> u64 {
    tag & NUMBER_MASK
}

fn numbered(tag: u64, number: u64) -> u64 {
    (tag & !NUMBER_MASK) | (number & NUMBER_MASK)
}

/// The seat in which a newcomer is put if it was never used: where it is looked for first.
#[inline]
fn home(wanted: u64) -> usize {
    ((((wanted >> (NUMBER_BITS + LIFE_BITS)) & u64::from(u32::MAX)) * SEATS as u64) >> 32) as usize
}

/// The head of the tag's seat, its number and its word, if it sits at home.
#[inline]
pub(super) fn at_home(words: &[AtomicU64; BUCKET_WORDS], wanted: u64) -> Option<(&AtomicU64, usize, u64)> {
    at(places(words)?, home(wanted), wanted)
}

/// Likewise, wherever it sits.
#[inline]
pub(super) fn elsewhere(words: &[AtomicU64; BUCKET_WORDS], wanted: u64) -> Option<(&AtomicU64, usize, u64)> {
    let places = places(words)?;
    // Without a branch that depends on where the tag is, because the processor would have to guess it.
    let mut index = SEATS;
    for (number, [tag, _]) in places.iter().enumerate() {
        index = if (tag.load(Ordering::Acquire) ^ wanted) >> NUMBER_BITS == 0 { number } else { index };
    }
    at(places, index, wanted)
}

/// A seat's head, number and word, if it is the tag's. (`read` in short: what is blank is left to it.)
#[inline]
fn at(places: &[[AtomicU64; 2]; SEATS], index: usize, wanted: u64) -> Option<(&AtomicU64, usize, u64)> {
    let [tag, head] = places.get(index)?;
    let tagged = tag.load(Ordering::Acquire);
    let word = head.load(Ordering::Acquire);
    let is_its = (tagged ^ wanted) >> NUMBER_BITS == 0 && tag.load(Ordering::Acquire) == tagged;
    is_its.then_some((head, index, word))
}

#[inline]
fn places(words: &[AtomicU64; BUCKET_WORDS]) -> Option<&[[AtomicU64; 2]; SEATS]> {
    words.get(FIRST_SEAT..)?.as_chunks::<2>().0.first_chunk()
}

/// A bucket with the cells of its seats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket<'a> {
    pub(super) words: &'a [AtomicU64; BUCKET_WORDS],
    pub(super) cells: &'a [[AtomicU64; CELLS]; SEATS],
}

/// A seat that was found under a tag.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat<'a> {
    tag: &'a AtomicU64,
    tagged: u64,
    pub(super) window: Window<'a>,
}

impl Seat<'_> {
    /// The head's word, read while the seat was the tag's. `None`: it is not any more, or may not be soon; look for it anew.
    #[inline]
    pub(super) fn read(self) -> Option<u64> {
        let word = self.window.head.load(Ordering::Acquire);
        if let Some(number) = window::blank_of(word)
            && u64::from(number) & NUMBER_MASK != number_of(self.tagged)
        {
            self.keep(number);
            return None;
        }
        (self.tag.load(Ordering::Acquire) == self.tagged).then_some(word)
    }

    /// Somebody is about to take the seat. It stays with this key if this is quicker.
    #[cold]
    #[inline(never)]
    fn keep(self, number: u32) {
        let kept = numbered(self.tagged, number.into());
        let _ = self.tag.compare_exchange(self.tagged, kept, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// What came of one attempt to seat a newcomer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seated {
    /// Look again: it sits, or something else has changed.
    Again,
    /// As above, and what sat there before, and had not expired, is forgotten.
    InPlaceOfAnother,
}

impl<'a> Bucket<'a> {
    /// The seat of the tag, if it has one.
    #[inline]
    pub(super) fn find(self, wanted: u64) -> Option<Seat<'a>> {
        // Without a branch that depends on where the tag is, because the processor would have to guess it.
        let mut found = 0_u32;
        for (index, [tag, _]) in self.places().iter().enumerate() {
            found |= u32::from((tag.load(Ordering::Acquire) ^ wanted) >> NUMBER_BITS == 0) << index;
        }
        if found == 0 {
            return None;
        }
        let index = found.trailing_zeros() as usize;
        let tag = self.tag(index)?;
        let tagged = tag.load(Ordering::Acquire);
        ((tagged ^ wanted) >> NUMBER_BITS == 0).then_some(Seat { tag, tagged, window: self.window(index)? })
    }

    /// Makes one attempt to seat a key that was not found.
    #[cold]
    #[inline(never)]
    pub(super) fn seat(self, wanted: u64, now_ms: u64) -> Seated {
        self.try_seat(wanted, now_ms).unwrap_or(Seated::Again)
    }

    fn try_seat(self, wanted: u64, now_ms: u64) -> Option<Seated> {
        let door = self.words.first()?;
        let opened = door.load(Ordering::Acquire);
        if self.find(wanted).is_some() {
            return None;
        }
        let (number, index) = (opened >> SEAT_BITS, (opened & ((1 << SEAT_BITS) - 1)) as usize % SEATS);
        let place = self.tag(index)?;
        let tagged = place.load(Ordering::Acquire);
        let (best, best_rank) = self.first_to_go(home(wanted), now_ms)?;
        if number_of(tagged) == number & NUMBER_MASK {
            let next = (number + 1) << SEAT_BITS | best as u64;
            let _ = door.compare_exchange(opened, next, Ordering::AcqRel, Ordering::Relaxed);
            return None;
        }
        let window = self.window(index)?;
        let head = window.head.load(Ordering::Acquire);
        let rank = rank(tagged, head, now_ms);
        if rank.class > best_rank.class {
            // Chosen long ago, and busy by now: it is decided that it stays.
            let _ = place.compare_exchange(tagged, numbered(tagged, number), Ordering::AcqRel, Ordering::Relaxed);
            return None;
        }
        let mut forgotten = false;
        if tagged != 0 || head != 0 {
            let blank = window::blank(number as u32);
            if matches!(Life::of(tagged), Life::Sliding(_)) {
                window.settle(head);
            }
            if head != blank {
                if place.load(Ordering::Acquire) != tagged {
                    return None;
                }
                window.head.compare_exchange(head, blank, Ordering::AcqRel, Ordering::Relaxed).ok()?;
                forgotten = rank.class > EXPIRED;
            }
        }
        let _ = place.compare_exchange(tagged, numbered(wanted, number), Ordering::AcqRel, Ordering::Relaxed);
        Some(if forgotten { Seated::InPlaceOfAnother } else { Seated::Again })
    }

    /// All seats: their tags and windows.
    pub(super) fn seats(self) -> impl Iterator<Item = (u64, Window<'a>)> {
        (0..SEATS).filter_map(move |index| Some((self.tag(index)?.load(Ordering::Acquire), self.window(index)?)))
    }

    /// Of those that rank alike, the newcomer's home.
    fn first_to_go(self, home: usize, now_ms: u64) -> Option<(usize, Rank)> {
        let ranked = self.seats().map(|(tag, window)| rank(tag, window.head.load(Ordering::Acquire), now_ms));
        ranked.enumerate().min_by_key(|(index, rank)| (*rank, *index != home))
    }

    fn places(self) -> &'a [[AtomicU64; 2]] {
        places(self.words).map_or(&[], |places| places)
    }

    fn tag(self, index: usize) -> Option<&'a AtomicU64> {
        self.places().get(index)?.first()
    }

    #[inline]
    fn window(self, index: usize) -> Option<Window<'a>> {
        let [_, head] = self.places().get(index)?;
        Some(Window { head, cells: self.cells.get(index)? })
    }
}

/// How soon a seat is given to another: the lower the sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    class: u32,
    /// Milliseconds until it was used last, counted backwards.
    recency: u32,
}

const NEVER_USED: u32 = 0;
const COUNTS_NOTHING: u32 = 1;
/// The highest class whose count is worth nothing.
const EXPIRED: u32 = 2;

fn rank(tag: u64, head: u64, now_ms: u64) -> Rank {
    let of = |class, age: u32| Rank { class, recency: u32::MAX - age };
    let counting = |count: u64, age| of(EXPIRED + 1 + count.max(1).ilog2(), age);
    if tag == 0 {
        return of(NEVER_USED, 0);
    }
    match (window::blank_of(head), Life::of(tag)) {
        // It has only just been given to its key, or is being taken from it.
        (Some(number), _) if u64::from(number) & NUMBER_MASK == number_of(tag) => counting(1, 0),
        (Some(_), _) => of(COUNTS_NOTHING, 0),
        (None, _) if head == 0 => of(COUNTS_NOTHING, 0),
        (None, Life::Calendar(calendar)) => {
            let (period, count) = calendar::read(head);
            // A count of the calendar is worth more than a window's: it is kept for longer.
            if period < calendar.period(now_ms) { of(EXPIRED, 0) } else { counting(count.saturating_mul(2), 0) }
        }
        (None, Life::Sliding(power)) => {
            let now = now_ms as u32;
            let age = now.wrapping_sub(window::last_used(head).unwrap_or(now));
            // On a clock that went back it was used just now.
            let age = if age.cast_signed() < 0 { 0 } else { age };
            if age >> power > 0 { of(EXPIRED, age) } else { counting(window::weight(head).into(), age) }
        }
    }
}
