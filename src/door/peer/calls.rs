//! The calls that a client has in flight on one connection.
//!
//! Entries are used again, with the memory of their notes, so that a call costs no allocation once a connection has warmed up. A [`CallKey`]
//! carries the generation of its entry: an answer that comes after its call was given up finds nobody.

use std::ops::Range;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::door::spend::Held;
use crate::door::traced::Traced;
use crate::guard::rates::Charged;
use crate::rpc::{Era, Kind, Method};
use crate::state::events::Reservation;
use crate::upstream::link::Link;

/// Names one call of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallKey {
    slot: u32,
    generation: u32,
}

impl CallKey {
    /// As a number that a link gives back.
    pub(super) fn ticket(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.slot)
    }

    /// The key that this number was made of.
    pub(super) fn of(ticket: u64) -> Self {
        let low = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        Self { slot: low(ticket), generation: low(ticket >> 32) }
    }
}

/// What is known of a message that goes on: enough to answer it, record it and count it after its bytes are gone.
pub(super) struct Call {
    pub(super) era: Era,
    pub(super) kind: Kind,
    pub(super) method: Method,
    /// The upstream that it goes to, if it is one.
    pub(super) upstream: Option<usize>,
    /// Whether it becomes a span.
    pub(super) traced: Option<Traced>,
    pub(super) started_ns: u64,
    /// Room in the audit queue for the line that a forwarded tool call leaves.
    pub(super) reservation: Option<Reservation>,
    /// Money that is held for it.
    pub(super) held: Option<Box<Held>>,
    /// What it was counted as.
    pub(super) charged: Charged,
    /// The id's bytes, then the decoded name or URI that it acts on, then the progress token's bytes.
    notes: Vec<u8>,
    id_len: u32,
    name_len: u32,
}

impl Call {
    /// The id as the client wrote it; empty where there is none.
    pub(super) fn id(&self) -> &[u8] {
        self.notes.get(..self.id_len as usize).unwrap_or_default()
    }

    /// What it acts on.
    pub(super) fn name(&self) -> &[u8] {
        self.notes.get(self.name_range()).unwrap_or_default()
    }

    /// The progress token as the client wrote it; empty where there is none.
    pub(super) fn progress_token(&self) -> &[u8] {
        self.notes.get(self.name_range().end..).unwrap_or_default()
    }

    fn name_range(&self) -> Range<usize> {
        self.id_len as usize..(self.id_len as usize).saturating_add(self.name_len as usize)
    }
}

/// What a call is made of, see [`Calls::begin`].
pub(super) struct Begun<'a> {
    pub(super) era: Era,
    pub(super) kind: Kind,
    pub(super) method: Method,
    pub(super) upstream: Option<usize>,
    pub(super) traced: Option<Traced>,
    pub(super) started_ns: u64,
    pub(super) reservation: Option<Reservation>,
    pub(super) held: Option<Box<Held>>,
    pub(super) charged: Charged,
    pub(super) id: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) progress_token: &'a [u8],
}

struct Entry {
    call: Call,
    generation: u32,
    open: bool,
    cancelled: bool,
    /// Of a free one: the next.
    next_free: u32,
    /// The link that carries it, and its number there.
    way: Option<(Rc<Link>, u64)>,
    /// Of the task that carries the call, waiting for a cancellation.
    waker: Option<Waker>,
}

/// The calls of one connection.
#[derive(Default)]
pub(super) struct Calls {
    entries: Vec<Entry>,
    /// The first of the entries that are free, which each name the next; as long as `entries` when none is.
    free: u32,
    open: u32,
    /// Of an entry that is made anew.
    first_generation: u32,
}

impl Calls {
    /// How many are in flight.
    pub(super) fn open(&self) -> usize {
        self.open as usize
    }

    /// Enters a call.
    pub(super) fn begin(&mut self, begun: Begun<'_>) -> CallKey {
        self.open = self.open.saturating_add(1);
        let slot = self.free;
        if self.entries.get(slot as usize).is_none() {
            self.entries.push(Entry {
                call: Call {
                    era: begun.era,
                    kind: begun.kind,
                    method: begun.method,
                    upstream: None,
                    traced: None,
                    started_ns: 0,
                    reservation: None,
                    held: None,
                    charged: Charged::default(),
                    notes: Vec::new(),
                    id_len: 0,
                    name_len: 0,
                },
                generation: self.first_generation,
                open: false,
                cancelled: false,
                way: None,
                waker: None,
                next_free: slot.saturating_add(1),
            });
        }
        let Some(entry) = self.entries.get_mut(slot as usize) else { return CallKey { slot, generation: 0 } };
        self.free = entry.next_free;
        entry.open = true;
        entry.cancelled = false;
        let call = &mut entry.call;
        (call.era, call.kind, call.method) = (begun.era, begun.kind, begun.method);
        (call.upstream, call.traced) = (begun.upstream, begun.traced);
        (call.started_ns, call.reservation) = (begun.started_ns, begun.reservation);
        (call.held, call.charged) = (begun.held, begun.charged);
        call.notes.clear();
        call.notes.extend_from_slice(begun.id);
        call.notes.extend_from_slice(begun.name);
        call.notes.extend_from_slice(begun.progress_token);
        call.id_len = u32::try_from(begun.id.len()).unwrap_or(0);
        call.name_len = u32::try_from(begun.name.len()).unwrap_or(0);
        CallKey { slot, generation: entry.generation }
    }

    /// A call that is in flight.
    pub(super) fn get(&self, key: CallKey) -> Option<&Call> {
        let entry = self.entries.get(key.slot as usize)?;
        (entry.open && entry.generation == key.generation).then_some(&entry.call)
    }

    /// Likewise, to be changed.
    pub(super) fn get_mut(&mut self, key: CallKey) -> Option<&mut Call> {
        let entry = self.entries.get_mut(key.slot as usize)?;
        (entry.open && entry.generation == key.generation).then_some(&mut entry.call)
    }

    /// Takes a call off that has ended; what was noted of it can be read until the next [`Calls::begin`].
    pub(super) fn end(&mut self, key: CallKey) {
        let Some(entry) = self.entries.get_mut(key.slot as usize) else { return };
        if !entry.open || entry.generation != key.generation {
            return;
        }
        entry.open = false;
        entry.generation = entry.generation.wrapping_add(1);
        entry.waker = None;
        entry.way = None;
        entry.call.reservation = None;
        entry.call.held = None;
        // An id may be as long as a message; memory that one such call took is not kept.
        if entry.call.notes.capacity() > 1024 {
            entry.call.notes = Vec::new();
        }
        entry.next_free = std::mem::replace(&mut self.free, key.slot);
        self.open = self.open.saturating_sub(1);
        if self.entries.len() > 64 {
            self.rest();
        }
    }

    /// Notes which link carries a call, and its number there.
    pub(super) fn set_way(&mut self, key: CallKey, link: Rc<Link>, number: u64) {
        if let Some(entry) = self.entries.get_mut(key.slot as usize)
            && entry.open
            && entry.generation == key.generation
        {
            entry.way = Some((link, number));
        }
    }

    /// The link that carries a call, and its number there.
    pub(super) fn way(&self, key: CallKey) -> Option<(&Rc<Link>, u64)> {
        let entry = self.entries.get(key.slot as usize)?;
        let (link, number) = entry.way.as_ref()?;
        (entry.open && entry.generation == key.generation).then_some((link, *number))
    }

    /// The calls that links carry.
    pub(super) fn over_links(&self) -> Vec<(CallKey, Rc<Link>, u64)> {
        let carried = self.entries.iter().enumerate().filter(|(_, entry)| entry.open);
        carried
            .filter_map(|(slot, entry)| {
                let (link, number) = entry.way.as_ref()?;
                let key = CallKey { slot: u32::try_from(slot).ok()?, generation: entry.generation };
                Some((key, link.clone(), *number))
            })
            .collect()
    }

    /// Gives the memory of ended calls back, where none is in flight. Generations go on: what comes late for one of them finds nobody.
    pub(super) fn rest(&mut self) {
        if self.open == 0 {
            let last = self.entries.iter().map(|entry| entry.generation).max();
            self.first_generation = last.map_or(self.first_generation, |last| last.wrapping_add(1));
            (self.entries, self.free) = (Vec::new(), 0);
        }
    }

    /// The request in flight whose id has these bytes.
    pub(super) fn find(&self, id: &[u8]) -> Option<CallKey> {
        let is_it = |entry: &Entry| entry.open && entry.call.kind == Kind::Request && entry.call.id() == id;
        let slot = self.entries.iter().position(is_it)?;
        let generation = self.entries.get(slot)?.generation;
        Some(CallKey { slot: u32::try_from(slot).ok()?, generation })
    }

    /// Asks the task that carries the call to give it up.
    pub(super) fn cancel(&mut self, key: CallKey) {
        if let Some(entry) = self.entries.get_mut(key.slot as usize)
            && entry.open
            && entry.generation == key.generation
        {
            entry.cancelled = true;
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
    }

    /// Asks all tasks to give up: the client has gone.
    pub(super) fn cancel_all(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.open) {
            entry.cancelled = true;
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
    }

    /// Ready when the call was cancelled or has ended.
    pub(super) fn poll_cancelled(&mut self, key: CallKey, waker: &Waker) -> Poll<()> {
        match self.entries.get_mut(key.slot as usize) {
            Some(entry) if entry.open && entry.generation == key.generation && !entry.cancelled => {
                entry.waker = Some(waker.clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::rpc::Revision;

    fn begun<'a>(id: &'a [u8], name: &'a [u8], token: &'a [u8]) -> Begun<'a> {
        Begun {
            era: Era::Legacy(Revision::V2025_11_25),
            kind: Kind::Request,
            method: Method::ToolsCall,
            upstream: Some(0),
            traced: None,
            started_ns: 7,
            reservation: None,
            held: None,
            charged: Charged::default(),
            id,
            name,
            progress_token: token,
        }
    }

    #[test]
    fn a_call_keeps_what_was_noted_of_it_until_it_ends() {
        let mut calls = Calls::default();
        let first = calls.begin(begun(b"1", b"send_sms", b"\"t\""));
        let second = calls.begin(begun(b"\"two\"", b"", b""));
        assert_eq!(calls.open(), 2);
        let call = calls.get(first).unwrap();
        assert_eq!((call.id(), call.name(), call.progress_token()), (&b"1"[..], &b"send_sms"[..], &b"\"t\""[..]));
        assert_eq!(calls.find(b"\"two\""), Some(second));
        assert_eq!(calls.find(b"2"), None);
        calls.end(first);
        assert!(calls.get(first).is_none());
        assert_eq!(calls.open(), 1);
    }

    #[test]
    fn a_late_answer_does_not_find_the_call_that_took_its_place() {
        let mut calls = Calls::default();
        let old = calls.begin(begun(b"1", b"", b""));
        calls.end(old);
        let new = calls.begin(begun(b"2", b"", b""));
        assert_eq!(old.slot, new.slot, "the entry is used again");
        assert!(calls.get(old).is_none());
        calls.end(old);
        assert_eq!(calls.get(new).unwrap().id(), b"2");
    }

    #[test]
    fn a_late_answer_finds_nobody_after_a_rest_either() {
        let mut calls = Calls::default();
        let old = calls.begin(begun(b"1", b"", b""));
        calls.rest();
        assert!(calls.get(old).is_some(), "no rest while a call is in flight");
        calls.end(old);
        calls.rest();
        let new = calls.begin(begun(b"2", b"", b""));
        assert_eq!(old.slot, new.slot);
        assert!(calls.get(old).is_none());
        calls.end(old);
        assert_eq!(calls.get(new).unwrap().id(), b"2");
    }

    #[test]
    fn a_cancelled_call_is_told_once_it_is_looked_at() {
        let mut calls = Calls::default();
        let key = calls.begin(begun(b"1", b"", b""));
        assert!(calls.poll_cancelled(key, Waker::noop()).is_pending());
        calls.cancel(key);
        assert!(calls.poll_cancelled(key, Waker::noop()).is_ready());
        assert!(calls.get(key).is_some(), "the task ends it");
        calls.end(key);
        assert!(calls.poll_cancelled(key, Waker::noop()).is_ready());
    }
}
