//! The queue between those who record events and the audit writer.
//!
//! Each worker has an [`EventQueue`] of its own, bounded, which the writer thread drains. A full queue refuses
//! ([`QueueFull`]) and counts; nothing is ever dropped silently. Who must be sure that a later event will find room takes a
//! [`Reservation`] first: a forwarded call, whose outcome line has to be written whatever happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::task::{Poll, Waker};
use std::thread::Thread;

use arc_swap::ArcSwapOption;
use crossbeam_queue::ArrayQueue;

use super::bell::Handshake;
use super::events::Event;

/// Events one queue holds. At 8,192 events of about 400 bytes, 3 MiB a worker. The writer empties it every few dozen milliseconds
/// and once it is half full, so it bridges 40 ms at 100,000 events a second while the disk is busy.
pub const QUEUE_CAPACITY: usize = 8192;

/// The queue has no room: the writer is stuck or far behind. In production the caller refuses the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit queue is full")]
pub struct QueueFull;

/// Wakes the writer thread, see [`super::bell`]. While the writer is awake or lets events gather, ringing costs one fence and one load.
#[derive(Debug, Default)]
pub struct Bell {
    handshake: Handshake,
    thread: ArcSwapOption<Thread>,
}

impl Bell {
    /// The calling thread is the one to wake from now on.
    pub fn attend(&self) {
        self.thread.store(Some(Arc::new(std::thread::current())));
    }

    /// The writer is about to sleep until there is an event; it must look at the queues once more after this.
    pub fn lie_down(&self) {
        self.handshake.lie_down();
    }

    /// The writer is about to let events gather; it must look whether it [is hurried](Bell::is_hurried) after this.
    pub fn linger(&self) {
        self.handshake.linger();
    }

    /// The writer is up again.
    pub fn get_up(&self) {
        self.handshake.get_up();
    }

    /// Whether a queue is filling up, or an event is to be on disk at once.
    #[must_use]
    pub fn is_hurried(&self) -> bool {
        self.handshake.is_hurried()
    }

    /// The writer is about to empty the queues.
    pub fn take_hurry(&self) {
        self.handshake.take_hurry();
    }

    /// An event was queued: wakes the writer if it sleeps; with `hurry` also while it lets events gather.
    fn ring(&self, hurry: bool) {
        if self.handshake.must_wake(hurry)
            && let Some(thread) = &*self.thread.load()
        {
            thread.unpark();
        }
    }
}

/// A bounded queue of events: usually one worker pushes, and the writer pops. More pushing threads are allowed.
#[derive(Debug)]
pub struct EventQueue {
    ring: ArrayQueue<Event>,
    /// Events in the ring plus reservations; never over the capacity, so a reserved push cannot fail.
    taken: AtomicUsize,
    refused: AtomicU64,
    /// Room that plain pushes leave: what strangers can cause without end (failed authentications, refusals) must not
    /// keep calls from being recorded, and so from being made.
    kept_for_reservations: usize,
    bell: Arc<Bell>,
    /// Of those who wait for room.
    waiting: ArrayQueue<Waker>,
}

/// Wakers that a queue keeps; who finds no place does not wait.
const MAX_WAITING: usize = 1024;

impl EventQueue {
    /// A queue of [`QUEUE_CAPACITY`] events whose pushes ring `bell`; a quarter is kept for reservations.
    #[must_use]
    pub fn new(bell: Arc<Bell>) -> Self {
        Self { kept_for_reservations: QUEUE_CAPACITY / 4, ..Self::with_capacity(QUEUE_CAPACITY, bell) }
    }

    /// A queue of `capacity` events (at least 1), none of it kept.
    #[must_use]
    pub fn with_capacity(capacity: usize, bell: Arc<Bell>) -> Self {
        Self {
            ring: ArrayQueue::new(capacity.max(1)),
            taken: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            kept_for_reservations: 0,
            bell,
            waiting: ArrayQueue::new(MAX_WAITING),
        }
    }

    /// Queues an event.
    ///
    /// # Errors
    /// [`QueueFull`] when events and reservations fill the queue; the refusal is counted.
    pub fn push(&self, event: Event) -> Result<(), QueueFull> {
        self.take_room(self.ring.capacity() - self.kept_for_reservations)?;
        self.put(event);
        Ok(())
    }

    /// Keeps room for one event that is to come.
    ///
    /// # Errors
    /// [`QueueFull`] as for [`EventQueue::push`].
    pub fn reserve(self: &Arc<Self>) -> Result<Reservation, QueueFull> {
        self.take_room(self.ring.capacity())?;
        Ok(Reservation { queue: Some(Arc::clone(self)) })
    }

    /// Ready while there is room to spare. For who can wait before it begins what it would have to record: a burst is then slowed down to what
    /// the writer writes, rather than refused. Woken by [`EventQueue::wake_waiting`]. Safe to drop.
    pub fn poll_spare(&self, waker: &Waker) -> Poll<()> {
        if !self.is_crowded() || self.waiting.push(waker.clone()).is_err() {
            return Poll::Ready(());
        }
        // The writer makes room and then looks for who waits; we say that we wait and then look for room. One of the two sees the other.
        fence(Ordering::SeqCst);
        if self.is_crowded() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Wakes those who wait for room; for the writer once it has taken events out, and for who knows that it will not.
    pub fn wake_waiting(&self) {
        fence(Ordering::SeqCst);
        while let Some(waker) = self.waiting.pop() {
            waker.wake();
        }
    }

    /// Whether less than a quarter of the room is left.
    fn is_crowded(&self) -> bool {
        self.taken.load(Ordering::SeqCst) > self.ring.capacity() / 4 * 3
    }

    /// Takes the oldest event out; for the writer.
    pub fn pop(&self) -> Option<Event> {
        let event = self.ring.pop()?;
        self.taken.fetch_sub(1, Ordering::Release);
        Some(event)
    }

    /// How many pushes and reservations were refused since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Events waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    fn take_room(&self, limit: usize) -> Result<(), QueueFull> {
        let taken = self.taken.fetch_update(Ordering::Acquire, Ordering::Relaxed, |n| (n < limit).then_some(n + 1));
        match taken {
            Ok(_) => Ok(()),
            Err(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(QueueFull)
            }
        }
    }

    /// Room was taken before, so the ring has a free cell; `force_push` never has anything to displace.
    fn put(&self, event: Event) {
        let at_once = event.kind.is_pressing();
        if self.ring.force_push(event).is_some() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        self.bell.ring(at_once || self.ring.len() >= self.ring.capacity().div_ceil(2));
    }
}

/// Room for one event. Dropped unused, the room is given back.
#[derive(Debug)]
pub struct Reservation {
    queue: Option<Arc<EventQueue>>,
}

impl Reservation {
    /// Queues the event. Cannot fail.
    pub fn commit(mut self, event: Event) {
        if let Some(queue) = self.queue.take() {
            queue.put(event);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.taken.fetch_sub(1, Ordering::SeqCst);
            // The writer learns nothing of it, so it cannot wake them.
            queue.wake_waiting();
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
