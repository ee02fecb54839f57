//! A sliding window: how many were admitted in the last minute, whichever minute that is.
//!
//! ## The idea
//! The honest way is a log: one time stamp for each admission; an admission is allowed while fewer than the limit N are younger than the
//! length T. Its memory grows with N. A window keeps a log of *groups* instead: up to g = N/64 + 1 admissions in a row share
//! one stamp, that of the last of them. A group counts as a whole until its stamp is T old, so
//!
//! - what is younger than T always counts: it is in a group whose stamp is no older than itself. **Never more than N** are admitted in any
//!   T;
//! - what is older than T may still count, but only in the one group that is half out: groups follow each other in time, so all later ones are
//!   younger than T altogether. Its newest member is younger than T as well, so that at most g - 1 <= N/64 count too long. Who is refused therefore has
//!   more than N - N/64 in the last T, the one that was refused included: **at or under 63/64 nobody is refused**, in whatever rhythm he comes. Up to
//!   N = 63 a group is one admission, and the window is the log itself;
//! - all groups but the last two are full, so at most 64 of them can count: 63 cells, and the one that is being filled;
//! - the next admission is possible in the very millisecond in which the oldest group leaves: **`wait_ms` is exact**.
//!
//! Admissions of one millisecond share a group beyond g, for they leave together anyway. A busy key therefore closes at most
//! one group a millisecond.
//!
//! ## The words
//! The *head*: the stamp of the group that is being filled, how many are in it, and the ring of closed groups as two indexes. The *cells*: of
//! each closed group its stamp, and how many had been admitted up to its end since the ring began, modulo 2^24. What counts is then one
//! subtraction, however many groups there are. A cell that the head names (from `tail` up to `position`, and the one before `tail`) does not
//! change, but for its count of admissions that were given back.
//!
//! ## Many threads
//! Each admission is one compare-and-swap of the head, from a word out of which, with the cells that it names, what counts was reckoned.
//! If it succeeds, the head was the same in between, and so were the cells: the reckoning held at that moment. (What is given back in between makes
//! it too high, never too low.) So admissions have an order, that of the head's changes, and the bounds above hold for it.
//!
//! Closing a group takes three steps, and any thread can do any of them for another: the head is *sealed*, so that the group does not change any
//! more; its cell is written, by compare-and-swap from what was there before the seal, so that late helpers change nothing; the head moves on, with the
//! admission that made it necessary. A group is sealed only when there is a cell for it by the clock of who seals it. Nobody waits for
//! anybody.
//!
//! Giving back looks for the group that the admission was counted in. In the group that is being filled it is one less. In a closed group it is noted in the
//! cell, and then in the head that there are such notes, so that from then on they are summed up.
//!
//! ## Time
//! Milliseconds modulo 2^32, 49 days. To a window a clock that goes back stands still: an admission is stamped with the latest time that was seen. A window
//! must be looked at more often than every 24 days, or be cleared: the table's sweep does that.
//!
//! ## When it refuses early all the same
//! After the limit was raised, until the groups that were made small are gone (at most T); when more admissions of closed groups were given
//! back than cells are spare; by the cost of a single admission, where that is more than one. Then groups are merged, which
//! errs on the side of the limit.

use super::sync::{AtomicU64, Ordering};

/// Cells of a window.
#[cfg(not(loom))]
pub(super) const CELLS: usize = 64;
/// Few, so that loom can explore all interleavings.
#[cfg(loom)]
pub(super) const CELLS: usize = 4;

/// The highest limit of a window; more is lowered to it.
pub const MAX_LIMIT: u32 = 8_000_000;
/// The longest window, in milliseconds: 12 days.
pub const MAX_LENGTH_MS: u32 = 1 << 30;
/// The most that one admission may cost; more is refused.
pub const MAX_COST: u32 = 65_535;

const INDEX_BITS: u32 = CELLS.trailing_zeros();
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
/// Closed groups that can count: one cell is kept free for the next.
const MAX_CLOSED: u32 = INDEX_MASK;

const FILL_BITS: u32 = 17;
const FILL_MAX: u32 = (1 << FILL_BITS) - 1;
const RETURNED_BITS: u32 = 2;
const RETURNED_MASK: u32 = (1 << RETURNED_BITS) - 1;
const SEALED_SHIFT: u32 = RETURNED_BITS;
const TAIL_SHIFT: u32 = SEALED_SHIFT + 1;
const POSITION_SHIFT: u32 = TAIL_SHIFT + INDEX_BITS;
const FILL_SHIFT: u32 = POSITION_SHIFT + INDEX_BITS;
const TIME_SHIFT: u32 = 32;

const SUM_BITS: u32 = 24;
const SUM_MASK: u32 = (1 << SUM_BITS) - 1;
const NOTED_BITS: u32 = 8;
const NOTED_MAX: u32 = (1 << NOTED_BITS) - 1;

// The fields of a head fill it, those of a cell too; a full group of the highest limit fits its field, and what counts its sum.
#[cfg(not(loom))]
const _: () = assert!(FILL_SHIFT + FILL_BITS == TIME_SHIFT);
const _: () = assert!(NOTED_BITS + SUM_BITS == TIME_SHIFT);
const _: () = assert!(MAX_LIMIT / 64 < FILL_MAX && MAX_LIMIT < SUM_MASK);

/// What is asked of a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    /// At most [`MAX_LIMIT`].
    pub(super) limit: u32,
    /// At most [`MAX_LENGTH_MS`].
    pub(super) length_ms: u32,
    pub(super) cost: u32,
    /// Milliseconds of any clock, modulo 2^32.
    pub(super) now: u32,
}

impl Ask {
    /// How many share a stamp.
    fn group(self) -> u32 {
        self.limit / 64 + 1
    }
}

/// Why not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// What counts now.
    pub(super) current: u32,
    /// How long until it would be admitted, if nothing else is.
    pub(super) wait_ms: u32,
}

/// The head's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    /// Of the last admission into the group that is being filled, and the window's clock.
    time: u32,
    /// Admissions in that group.
    fill: u32,
    /// Its cell.
    position: u32,
    /// The cell of the oldest closed group that may count.
    tail: u32,
    /// The group is complete.
    sealed: bool,
    /// Not 0: there may be notes in the cells. Changes with each note, so that none is overlooked.
    returned: u32,
}

impl Head {
    fn of(word: u64) -> Self {
        let low = word as u32;
        Self {
            time: (word >> TIME_SHIFT) as u32,
            fill: (low >> FILL_SHIFT) & FILL_MAX,
            position: (low >> POSITION_SHIFT) & INDEX_MASK,
            tail: (low >> TAIL_SHIFT) & INDEX_MASK,
            sealed: (low >> SEALED_SHIFT) & 1 == 1,
            returned: low & RETURNED_MASK,
        }
    }

    fn word(self) -> u64 {
        let indexes = self.position << POSITION_SHIFT | self.tail << TAIL_SHIFT;
        let low = self.fill << FILL_SHIFT | indexes | u32::from(self.sealed) << SEALED_SHIFT | self.returned;
        u64::from(self.time) << TIME_SHIFT | u64::from(low)
    }

    /// A sealed group has members, so this is no window's: see [`blank`].
    fn is_blank(self) -> bool {
        self.sealed && self.fill == 0
    }

    fn closed(self) -> u32 {
        self.position.wrapping_sub(self.tail) & INDEX_MASK
    }

    /// With the next cell for the group that is being filled, and nothing in it.
    fn moved_on(self, at: u32) -> Self {
        let position = (self.position + 1) & INDEX_MASK;
        Self { time: at, fill: 0, position, sealed: false, ..self }
    }
}

/// The head of a window in which nothing has been counted, and different from all others: of the `version`-th owner of its words.
pub(super) fn blank(version: u32) -> u64 {
    let nothing = Head { time: version, fill: 0, position: 0, tail: 0, sealed: true, returned: 0 };
    nothing.word()
}

/// Whose blank head this is; `None`: it is none.
pub(super) fn blank_of(word: u64) -> Option<u32> {
    let head = Head::of(word);
    head.is_blank().then_some(head.time)
}

/// When the head's window was used last, modulo 2^32; `None`: never.
pub(super) fn last_used(word: u64) -> Option<u32> {
    (word != 0 && !Head::of(word).is_blank()).then(|| Head::of(word).time)
}

/// About how much a window counts, from its head alone.
pub(super) fn weight(word: u64) -> u32 {
    let head = Head::of(word);
    if head.is_blank() { 0 } else { head.fill + head.closed() * 4 }
}

/// A closed group.
#[derive(Clone, Copy, Debug)]
struct Cell {
    time: u32,
    /// Admissions up to its end, modulo 2^24.
    sum: u32,
    /// Of its admissions, how many were given back.
    noted: u32,
}

impl Cell {
    fn of(word: u64) -> Self {
        let low = word as u32;
        Self { time: (word >> TIME_SHIFT) as u32, sum: low >> NOTED_BITS, noted: low & NOTED_MAX }
    }

    fn word(self) -> u64 {
        u64::from(self.time) << TIME_SHIFT | u64::from(self.sum << NOTED_BITS | self.noted)
    }
}

/// Whether `a` is later than `b`, on a clock that goes round.
fn is_later(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// What nearly every admission is: one more in the group that is being filled, while nothing has expired. The head as it is then, and the time of the
/// admission; `None`: it is not that, ask [`Window::take`], which would answer the same.
#[inline]
pub(super) fn one_more<'a>(
    word: u64,
    ask: Ask,
    cells: impl FnOnce() -> Option<&'a [AtomicU64; CELLS]>,
) -> Option<(u64, u32)> {
    let low = word as u32;
    let (time, fill) = ((word >> TIME_SHIFT) as u32, low >> FILL_SHIFT & FILL_MAX);
    let at = if is_later(time, ask.now) { time } else { ask.now };
    let is_plain = low & (RETURNED_MASK | 1 << SEALED_SHIFT) == 0 && fill != 0 && at.wrapping_sub(time) < ask.length_ms;
    let is_open = fill < ask.group() || at == time;
    if !is_plain || !is_open || ask.cost > MAX_COST || fill + ask.cost > FILL_MAX {
        return None;
    }
    let (position, tail) = (low >> POSITION_SHIFT & INDEX_MASK, low >> TAIL_SHIFT & INDEX_MASK);
    let mut used = fill;
    if position != tail {
        let cells = cells()?;
        let cell = |index: u32| Some(Cell::of(cells.get((index & INDEX_MASK) as usize)?.load(Ordering::Acquire)));
        if at.wrapping_sub(cell(tail)?.time) >= ask.length_ms {
            return None;
        }
        used += cell(position.wrapping_sub(1))?.sum.wrapping_sub(cell(tail.wrapping_sub(1))?.sum) & SUM_MASK;
    }
    let next = u64::from(at) << TIME_SHIFT | u64::from(low + (ask.cost << FILL_SHIFT));
    (used + ask.cost <= ask.limit).then_some((next, at))
}

/// A window over its words, wherever they stand.
///
/// Each operation is an *attempt* on a word of the head that the caller has read before. `None`: the head has changed, read it anew and try again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'a> {
    pub(super) head: &'a AtomicU64,
    pub(super) cells: &'a [AtomicU64; CELLS],
}

impl<'a> Window<'a> {
    /// Charges `ask.cost`, or says why not. Returns the time that the admission was counted at.
    pub(super) fn take(self, word: u64, ask: Ask) -> Option<Result<u32, Full>> {
        let old = Head::of(word);
        let at = clock(word, ask.now);
        let head = self.without_expired(word, at, ask.length_ms)?;
        let Some((used, head)) = self.reckon(head) else { return self.refuse(word, head, None, ask) };
        if u64::from(used) + u64::from(ask.cost) > u64::from(ask.limit) || ask.cost > MAX_COST {
            return self.refuse(word, head, Some(used), ask);
        }
        let has_room = head.closed() < MAX_CLOSED;
        let is_open = head.fill < ask.group() || at == head.time || !has_room;
        if !head.sealed && is_open && head.fill + ask.cost <= FILL_MAX {
            let next = Head { time: at, fill: head.fill + ask.cost, ..head };
            return self.swap(word, next).then_some(Ok(at));
        }
        let sealed = Head { sealed: true, ..old };
        if !old.sealed {
            if !has_room {
                return self.refuse(word, head, Some(used), ask);
            }
            if !self.swap(word, sealed) {
                return None;
            }
        }
        self.file(sealed.word(), sealed)?;
        let next = Head { fill: ask.cost, ..head.moved_on(at) };
        self.swap(sealed.word(), next).then_some(Ok(at))
    }

    /// Takes back what [`take`](Self::take) has charged at the time `at`. What counts no longer is left as it is.
    pub(super) fn give_back(self, word: u64, at: u32, ask: Ask) -> Option<()> {
        let old = Head::of(word);
        let now = clock(word, ask.now);
        if word == 0 || old.is_blank() || now.wrapping_sub(at) >= ask.length_ms {
            return Some(());
        }
        let before = |index: u32| self.cell(index.wrapping_sub(1));
        if old.closed() == 0 || is_later(at, before(old.position).time) {
            if !old.sealed {
                let next = Head { fill: old.fill.saturating_sub(ask.cost), ..old };
                return self.swap(word, next).then_some(());
            }
            // Closed for who sealed it; by this clock there may be no cell for it yet, and then it stays charged.
            let head = self.without_expired(word, now, ask.length_ms)?;
            if head.closed() < MAX_CLOSED {
                self.file(word, old)?;
                let _ = self.swap(word, head.moved_on(now));
                return None;
            }
            return Some(());
        }
        let mut index = old.position.wrapping_sub(1) & INDEX_MASK;
        while index != old.tail && !is_later(at, before(index).time) {
            index = index.wrapping_sub(1) & INDEX_MASK;
        }
        let (place, found) = (self.place(index), self.place(index).load(Ordering::Acquire));
        if self.head.load(Ordering::Acquire) != word {
            return None;
        }
        let cell = Cell::of(found);
        let noted = Cell { noted: (cell.noted + ask.cost.min(NOTED_MAX)).min(NOTED_MAX), ..cell };
        place.compare_exchange(found, noted.word(), Ordering::AcqRel, Ordering::Relaxed).ok()?;
        self.tell_of_notes();
        Some(())
    }

    /// What counts, and how long until nothing does.
    pub(super) fn peek(self, word: u64, ask: Ask) -> Option<(u32, u32)> {
        let head = self.without_expired(word, clock(word, ask.now), ask.length_ms)?;
        let used = self.reckon(head).map_or(ask.limit, |reckoned| reckoned.0);
        let until = head.time.wrapping_add(ask.length_ms).wrapping_sub(ask.now);
        (self.head.load(Ordering::Acquire) == word).then_some((used, if used == 0 { 0 } else { until }))
    }

    /// Completes what was begun with a sealed group, so that no helper can come late. For who is about to take the words for another window.
    pub(super) fn settle(self, word: u64) {
        let head = Head::of(word);
        if head.sealed && !head.is_blank() {
            let _ = self.file(word, head);
        }
    }

    /// All that counts is taken to have happened at `now`, which is earlier than it thinks: for a clock that was set back.
    pub(super) fn rewind(self, now: u32) {
        loop {
            let word = self.head.load(Ordering::Acquire);
            let old = Head::of(word);
            if word == 0 || old.is_blank() {
                return;
            }
            let used = self.reckon(old).map_or(FILL_MAX, |reckoned| reckoned.0.min(FILL_MAX));
            if old.sealed && self.file(word, old).is_none() {
                continue;
            }
            let head = if old.sealed { old.moved_on(now) } else { old };
            let next = Head { time: now, fill: used, tail: head.position, returned: 0, ..head };
            if self.swap(word, next) {
                return;
            }
        }
    }

    /// Cuts off closed groups that cannot be: those that would be younger than the next one, or larger than any. For words that were on a disk whose
    /// power failed, where a head can be older than its cells.
    pub(super) fn cut_off_unsound(self) {
        let word = self.head.load(Ordering::Acquire);
        let old = Head::of(word);
        let (mut tail, mut time) = (old.position, old.time);
        while tail != old.tail {
            let (cell, before) = (self.cell(tail.wrapping_sub(1)), self.cell(tail.wrapping_sub(2)));
            let members = cell.sum.wrapping_sub(before.sum) & SUM_MASK;
            if is_later(cell.time, time) || members > FILL_MAX || members < cell.noted {
                break;
            }
            (tail, time) = (tail.wrapping_sub(1) & INDEX_MASK, cell.time);
        }
        if tail != old.tail && !old.is_blank() {
            let _ = self.swap(word, Head { tail, ..old });
        }
    }

    /// The head as of `at`: groups that do not count any more are left out.
    fn without_expired(self, word: u64, at: u32, length_ms: u32) -> Option<Head> {
        let old = Head::of(word);
        let nothing = Head { time: at, fill: 0, sealed: false, returned: 0, ..old };
        if old.is_blank() {
            // Owners begin at different cells, so that no head of one is a head of the next.
            let start = old.time & INDEX_MASK;
            return Some(Head { position: start, tail: start, ..nothing });
        }
        if word == 0 {
            return Some(nothing);
        }
        if at.wrapping_sub(old.time) >= length_ms {
            if old.sealed {
                self.file(word, old)?;
                let head = nothing.moved_on(at);
                return Some(Head { tail: head.position, ..head });
            }
            return Some(Head { tail: old.position, ..nothing });
        }
        let mut tail = old.tail;
        while tail != old.position && at.wrapping_sub(self.cell(tail).time) >= length_ms {
            tail = (tail + 1) & INDEX_MASK;
        }
        Some(Head { tail, ..old })
    }

    /// What counts by this head. `None`: the cell before its tail has been taken for the group that is sealed.
    fn reckon(self, head: Head) -> Option<(u32, Head)> {
        if head.tail == head.position {
            return Some((head.fill, head));
        }
        if head.sealed && head.closed() == MAX_CLOSED {
            return None;
        }
        let newest = self.cell(head.position.wrapping_sub(1));
        let closed = newest.sum.wrapping_sub(self.cell(head.tail.wrapping_sub(1)).sum) & SUM_MASK;
        let used = head.fill + closed;
        if head.returned == 0 {
            return Some((used, head));
        }
        let noted: u32 = self.live(head).map(|index| self.cell(index).noted).sum();
        let returned = if noted == 0 { 0 } else { head.returned };
        Some((used.saturating_sub(noted), Head { returned, ..head }))
    }

    /// A refusal, if the head is still what it was reckoned from. `used` is `None` when all cells count, and the group as well.
    fn refuse(self, word: u64, head: Head, used: Option<u32>, ask: Ask) -> Option<Result<u32, Full>> {
        let current = used.unwrap_or(ask.limit);
        let over = (u64::from(current) + u64::from(ask.cost)).saturating_sub(u64::from(ask.limit));
        let leaves = |time: u32| time.wrapping_add(ask.length_ms).wrapping_sub(ask.now);
        let wait_ms = if ask.cost > ask.limit || ask.cost > MAX_COST {
            ask.length_ms
        } else if used.is_none() {
            leaves(self.cell(head.tail).time)
        } else {
            let mut freed = 0;
            let frees = self.live(head).map(|index| (self.cell(index), self.cell(index.wrapping_sub(1)))).find(
                |(cell, before)| {
                    let members = cell.sum.wrapping_sub(before.sum) & SUM_MASK;
                    freed += u64::from(members.saturating_sub(cell.noted));
                    freed >= over
                },
            );
            leaves(frees.map_or(head.time, |(cell, _)| cell.time))
        };
        (self.head.load(Ordering::Acquire) == word).then_some(Err(Full { current, wait_ms }))
    }

    /// Writes the cell of the sealed group. `None`: the head has moved on.
    fn file(self, word: u64, sealed: Head) -> Option<()> {
        let before = self.cell(sealed.position.wrapping_sub(1));
        let sum = before.sum.wrapping_add(sealed.fill) & SUM_MASK;
        let filed = Cell { time: sealed.time, sum, noted: 0 }.word();
        let place = self.place(sealed.position);
        let found = place.load(Ordering::Acquire);
        // Under this head the cell is as it was before the seal, or filed. If it changes from now on, somebody has filed it.
        if self.head.load(Ordering::Acquire) != word {
            return None;
        }
        if found != filed {
            let _ = place.compare_exchange(found, filed, Ordering::AcqRel, Ordering::Relaxed);
        }
        Some(())
    }

    /// The head says from now on that there are notes.
    fn tell_of_notes(self) {
        loop {
            let word = self.head.load(Ordering::Acquire);
            let head = Head::of(word);
            let returned = if head.returned == RETURNED_MASK { 1 } else { head.returned + 1 };
            if word == 0 || head.is_blank() || self.swap(word, Head { returned, ..head }) {
                return;
            }
        }
    }

    fn swap(self, word: u64, next: Head) -> bool {
        self.head.compare_exchange(word, next.word(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn live(self, head: Head) -> impl Iterator<Item = u32> {
        (0..head.closed()).map(move |n| (head.tail + n) & INDEX_MASK)
    }

    fn cell(self, index: u32) -> Cell {
        Cell::of(self.place(index).load(Ordering::Acquire))
    }

    fn place(self, index: u32) -> &'a AtomicU64 {
        // The mask keeps it within; the head is what the compiler is told in place of a panic.
        self.cells.get((index & INDEX_MASK) as usize).unwrap_or(self.head)
    }
}

/// The later of the window's clock and `now`.
#[inline]
fn clock(word: u64, now: u32) -> u32 {
    match last_used(word) {
        Some(time) if is_later(time, now) => time,
        _ => now,
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
