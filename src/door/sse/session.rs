//! The sessions whose streams a worker holds, and the messages that wait for each.
//!
//! A session's id says where it lives (worker, slot) and carries 128 random bits. The place only finds the candidate; whether it is the
//! one is decided by comparing the random bits and the principal together, in constant time. A session that is unknown, over, or
//! another's is the same to whoever asks.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Poll, Waker};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::inbox::{Handed, Posted};
use crate::bounds;
use crate::settings::secret::same_hash;
use crate::state::lifecycle::CallInFlight;
use crate::sys::socket::{self, Half};

const ID_BYTES: usize = 2 + 4 + 16;

/// The id of a session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionId {
    worker: u16,
    slot: u32,
    secret: [u8; 16],
}

impl SessionId {
    /// Of these parts.
    pub(super) fn of(worker: u16, slot: u32, secret: [u8; 16]) -> Self {
        Self { worker, slot, secret }
    }

    /// The number of the worker that holds it.
    pub(crate) fn worker(&self) -> usize {
        usize::from(self.worker)
    }

    /// As it stands in a URL: 30 characters of base64url.
    pub(crate) fn encode(&self) -> String {
        let parts = [&self.worker.to_be_bytes()[..], &self.slot.to_be_bytes(), &self.secret].concat();
        URL_SAFE_NO_PAD.encode(parts)
    }

    /// Reads what [`SessionId::encode`] writes, in that one spelling.
    pub(crate) fn decode(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; ID_BYTES];
        // Longer than any id: not decoded at all.
        let text = text.get(..ID_BYTES.div_ceil(3) * 4).is_none().then_some(text)?;
        let len = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (worker, rest) = bytes.get(..len)?.split_first_chunk::<2>()?;
        let (slot, rest) = rest.split_first_chunk::<4>()?;
        let secret = rest.try_into().ok()?;
        Some(Self { worker: u16::from_be_bytes(*worker), slot: u32::from_be_bytes(*slot), secret })
    }
}

/// A message that waits, or is being taken up.
pub(super) struct Waiting {
    pub(super) message: Vec<u8>,
    pub(super) received_ns: u64,
    _in_flight: CallInFlight,
}

/// What is posted for one stream.
pub(super) struct Session {
    /// The random bits of the id, then the principal.
    key: [u8; 32],
    /// The stream's socket, while the session is open.
    fd: Cell<RawFd>,
    open: Cell<bool>,
    max_bytes: usize,
    waiting: RefCell<VecDeque<Waiting>>,
    /// Of all that wait and of the one that is being taken up.
    bytes: Cell<usize>,
    taking_up: Cell<bool>,
    /// When something was posted last, or was in flight.
    active_ms: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Session {
    /// The next message, in the order in which they came; `None` when there will be none.
    pub(super) async fn next(&self) -> Option<Waiting> {
        poll_fn(|cx| {
            if let Some(waiting) = self.waiting.borrow_mut().pop_front() {
                self.taking_up.set(true);
                return Poll::Ready(Some(waiting));
            }
            if !self.open.get() {
                return Poll::Ready(None);
            }
            self.wait(cx.waker())
        })
        .await
    }

    /// The message that [`Session::next`] gave has been taken up.
    pub(super) fn taken_up(&self, waiting: &Waiting) {
        self.taking_up.set(false);
        self.bytes.set(self.bytes.get().saturating_sub(waiting.message.len()));
        self.wake();
    }

    /// Ready when nothing waits to be taken up. Safe to drop.
    pub(super) async fn emptied(&self) {
        poll_fn(|cx| if self.is_empty() { Poll::Ready(()) } else { self.wait(cx.waker()) }).await;
    }

    /// Whether nothing waits to be taken up.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty() && !self.taking_up.get()
    }

    /// For how long nothing was posted or in flight.
    pub(super) fn idle_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.active_ms.get())
    }

    /// Something is in flight.
    pub(super) fn note_active(&self, now_ms: u64) {
        self.active_ms.set(now_ms);
    }

    /// Ends the stream from our side: its task sees an end of the connection.
    pub(super) fn hang_up(&self) {
        self.waiting.borrow_mut().clear();
        if self.open.get() {
            socket::shutdown(self.fd.get(), Half::Read);
        }
        self.close();
    }

    fn close(&self) {
        self.open.set(false);
        self.wake();
    }

    fn take(&self, posted: Posted, now_ns: u64, now_ms: u64) -> Handed {
        let mut waiting = self.waiting.borrow_mut();
        let bytes = self.bytes.get().saturating_add(posted.message.len());
        if waiting.len() >= bounds::SSE_POSTED || bytes > self.max_bytes {
            return Handed::Full;
        }
        self.bytes.set(bytes);
        self.active_ms.set(now_ms);
        let Posted { message, in_flight, .. } = posted;
        waiting.push_back(Waiting { message, received_ns: now_ns, _in_flight: in_flight });
        drop(waiting);
        self.wake();
        Handed::Taken
    }

    fn wait<T>(&self, waker: &Waker) -> Poll<T> {
        let mut wakers = self.wakers.borrow_mut();
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
        Poll::Pending
    }

    fn wake(&self) {
        for waker in self.wakers.take() {
            waker.wake();
        }
    }
}

#[derive(Default)]
struct Table {
    slots: RefCell<Vec<Option<Rc<Session>>>>,
    free: RefCell<Vec<u32>>,
}

/// The sessions of one worker. There are at most as many as its door has connections.
#[derive(Default)]
pub(crate) struct Sessions {
    table: Rc<Table>,
}

/// A session's place in the table; it ends when this is dropped.
pub(super) struct Seat {
    table: Rc<Table>,
    slot: u32,
    pub(super) session: Rc<Session>,
}

impl Sessions {
    /// Opens a session of `principal` for the stream on `fd`, which must stay open until [`Seat::close`]. `max_bytes` may wait.
    pub(super) fn open(
        &self,
        worker: usize,
        (secret, principal): ([u8; 16], [u8; 16]),
        fd: RawFd,
        max_bytes: usize,
        now_ms: u64,
    ) -> Option<(Seat, SessionId)> {
        let worker = u16::try_from(worker).ok()?;
        let session = Rc::new(Session {
            key: key(secret, principal),
            fd: Cell::new(fd),
            open: Cell::new(true),
            max_bytes,
            waiting: RefCell::default(),
            bytes: Cell::new(0),
            taking_up: Cell::new(false),
            active_ms: Cell::new(now_ms),
            wakers: RefCell::default(),
        });
        let mut slots = self.table.slots.borrow_mut();
        let freed = self.table.free.borrow_mut().pop();
        let slot = match freed {
            Some(slot) => slot,
            None => {
                slots.push(None);
                u32::try_from(slots.len().checked_sub(1)?).ok()?
            }
        };
        *slots.get_mut(slot as usize)? = Some(session.clone());
        Some((Seat { table: self.table.clone(), slot, session }, SessionId::of(worker, slot, secret)))
    }

    /// Hands a posted message to its session.
    pub(super) fn take(&self, posted: Posted, now_ns: u64, now_ms: u64) -> Handed {
        let slots = self.table.slots.borrow();
        let found = slots.get(posted.session.slot as usize).and_then(Option::as_ref);
        match found.filter(|session| same_hash(&session.key, &key(posted.session.secret, posted.principal))) {
            Some(session) => session.take(posted, now_ns, now_ms),
            None => Handed::Unknown,
        }
    }
}

impl Seat {
    /// The session is over: nothing more is accepted for it. What waits may still be taken up.
    pub(super) fn close(&mut self) {
        let mut slots = self.table.slots.borrow_mut();
        let Some(place) = slots.get_mut(self.slot as usize) else { return };
        if place.as_ref().is_some_and(|session| Rc::ptr_eq(session, &self.session)) {
            *place = None;
            self.table.free.borrow_mut().push(self.slot);
        }
        self.session.close();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.close();
    }
}

fn key(secret: [u8; 16], principal: [u8; 16]) -> [u8; 32] {
    let mut key = [0; 32];
    let (first, second) = key.split_at_mut(16);
    first.copy_from_slice(&secret);
    second.copy_from_slice(&principal);
    key
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
