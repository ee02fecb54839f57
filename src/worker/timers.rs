//! One timer wheel a worker.
//!
//! A gateway holds ten thousand connections and nearly every one of its deadlines is moved before it falls due: a request
//! arrives, an answer leaves, the idle clock starts anew. So moving a deadline must cost next to nothing, and only its
//! falling due may cost something.
//!
//! A [`Deadline`] is an entry that lives as long as its connection. Setting it stores one number. The wheel has
//! [`BUCKETS`] buckets of [`TICK_MS`] each; an entry stands in the bucket where it is to be *looked at*, which is never
//! later than its deadline. When the wheel reaches the bucket it looks: due, and it acts; not yet, and it moves the entry on. A
//! deadline set to an earlier time than the next look moves the entry at once. A turn of the wheel is 25.6 s, so an entry
//! with a far deadline is looked at some twice a minute.
//!
//! Acting means one of two things, neither of which can lose data: shutting a half of the socket down, so that a pending
//! operation of the runtime *completes* (dropping a pending receive instead may lose what it has read), or waking a task.
//! Resolution is one tick: a deadline is never early and at most about one tick late.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::sys::socket::{Half, shutdown};

/// Milliseconds between two looks at the wheel.
pub(crate) const TICK_MS: u64 = 50;
/// Buckets of the wheel; a power of two.
const BUCKETS: usize = 512;
/// A deadline that never comes.
const NEVER: u64 = u64::MAX;

/// What happens when a deadline falls due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnExpiry {
    /// The pending read ends, so that an answer can still be written.
    EndReading,
    /// Everything pending ends: the connection is cut.
    Cut,
    /// The task that waits in [`Deadline::expired`] is woken.
    Wake,
}

struct Entry {
    fd: RawFd,
    deadline_ms: u64,
    /// The tick at which the wheel looks at this entry next; tells a stale place in a bucket from the true one.
    look_at: u64,
    on_expiry: OnExpiry,
    expired: bool,
    waker: Option<Waker>,
    in_use: bool,
}

struct Wheel {
    entries: Vec<Entry>,
    free: Vec<u32>,
    buckets: Vec<Vec<u32>>,
    /// The first tick that has not been looked at.
    next_tick: u64,
}

/// The timers of one worker. Cheap to clone; not `Send`.
#[derive(Clone)]
pub(crate) struct Timers {
    wheel: Rc<RefCell<Wheel>>,
    now_ms: Rc<Cell<u64>>,
}

impl Timers {
    /// A wheel whose clock stands at 0; [`Timers::advance`] moves it.
    pub(crate) fn new() -> Self {
        let wheel = Wheel {
            entries: Vec::new(),
            free: Vec::new(),
            buckets: (0..BUCKETS).map(|_| Vec::new()).collect(),
            next_tick: 0,
        };
        Self { wheel: Rc::new(RefCell::new(wheel)), now_ms: Rc::new(Cell::new(0)) }
    }

    /// Milliseconds since the worker started, as of the last tick.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// A deadline, not set, for the socket `fd`, which must stay open while the deadline lives. `-1` for no socket.
    pub(crate) fn deadline(&self, fd: RawFd) -> Deadline {
        let mut wheel = self.wheel.borrow_mut();
        let entry = Entry {
            fd,
            deadline_ms: NEVER,
            look_at: NEVER,
            on_expiry: OnExpiry::Cut,
            expired: false,
            waker: None,
            in_use: true,
        };
        let key = match wheel.free.pop() {
            Some(key) => {
                if let Some(slot) = wheel.entries.get_mut(key as usize) {
                    *slot = entry;
                }
                key
            }
            None => {
                let key = u32::try_from(wheel.entries.len()).unwrap_or(u32::MAX);
                wheel.entries.push(entry);
                key
            }
        };
        Deadline { timers: self.clone(), key }
    }

    /// Moves the clock to `now_ms` and acts on all that has fallen due. Returns how many that were.
    pub(crate) fn advance(&self, now_ms: u64) -> usize {
        self.now_ms.set(now_ms);
        let mut due: Vec<Waker> = Vec::new();
        let count = self.wheel.borrow_mut().advance(now_ms, &mut due);
        // Outside the borrow: a waker may run code that sets timers.
        for waker in due {
            waker.wake();
        }
        count
    }
}

impl Wheel {
    fn advance(&mut self, now_ms: u64, wake: &mut Vec<Waker>) -> usize {
        let (tick, turn) = (now_ms / TICK_MS, BUCKETS as u64);
        let mut acted = 0;
        // After a long stop (a suspended machine) one whole turn sees every entry.
        let first = self.next_tick.max(tick.saturating_sub(BUCKETS as u64 - 1));
        for t in first..=tick {
            let Some(bucket) = self.buckets.get_mut(t as usize % BUCKETS) else { continue };
            let mut keys = std::mem::take(bucket);
            keys.retain(|&key| {
                // Catching up over several ticks can meet a place that was taken a moment ago, for the next turn.
                let is_for_a_later_turn = self.entries.get(key as usize).is_some_and(|entry| {
                    entry.in_use && entry.look_at != NEVER && entry.look_at > tick && entry.look_at % turn == t % turn
                });
                if !is_for_a_later_turn {
                    acted += usize::from(self.look(key, tick, now_ms, wake));
                }
                is_for_a_later_turn
            });
            if let Some(bucket) = self.buckets.get_mut(t as usize % BUCKETS) {
                // Gives the allocation back, with what the looks have put there meanwhile.
                keys.append(bucket);
                *bucket = keys;
            }
        }
        self.next_tick = self.next_tick.max(tick + 1);
        acted
    }

    fn look(&mut self, key: u32, tick: u64, now_ms: u64, wake: &mut Vec<Waker>) -> bool {
        let Some(entry) = self.entries.get_mut(key as usize) else { return false };
        if !entry.in_use || entry.look_at > tick {
            return false; // freed, or a stale place: the entry was moved
        }
        entry.look_at = NEVER;
        if entry.deadline_ms == NEVER {
            return false;
        }
        if entry.deadline_ms > now_ms {
            self.place(key, tick + 1);
            return false;
        }
        entry.deadline_ms = NEVER;
        entry.expired = true;
        match entry.on_expiry {
            OnExpiry::EndReading => shutdown(entry.fd, Half::Read),
            OnExpiry::Cut => shutdown(entry.fd, Half::Both),
            OnExpiry::Wake => wake.extend(entry.waker.take()),
        }
        true
    }

    /// Puts an entry where it is looked at next: the tick of its deadline, at least `earliest`, at most one turn ahead.
    fn place(&mut self, key: u32, earliest: u64) {
        let Some(entry) = self.entries.get_mut(key as usize) else { return };
        let at = entry.deadline_ms.div_ceil(TICK_MS).clamp(earliest, earliest + BUCKETS as u64 - 2);
        entry.look_at = at;
        if let Some(bucket) = self.buckets.get_mut(at as usize % BUCKETS) {
            bucket.push(key);
        }
    }
}

/// A connection's deadline. Dropping it takes it off the wheel.
pub(crate) struct Deadline {
    timers: Timers,
    key: u32,
}

impl Deadline {
    /// Falls due `after_ms` from now, in place of whatever was set before.
    pub(crate) fn set(&self, after_ms: u64, on_expiry: OnExpiry) {
        let mut wheel = self.timers.wheel.borrow_mut();
        let next_tick = wheel.next_tick;
        let deadline_ms = self.timers.now_ms.get().saturating_add(after_ms);
        let Some(entry) = wheel.entries.get_mut(self.key as usize) else { return };
        entry.deadline_ms = deadline_ms;
        entry.on_expiry = on_expiry;
        entry.expired = false;
        if entry.look_at == NEVER || deadline_ms.div_ceil(TICK_MS) < entry.look_at {
            wheel.place(self.key, next_tick);
        }
    }

    /// Never falls due until it is set again. What has fallen due stays so.
    pub(crate) fn clear(&self) {
        if let Some(entry) = self.timers.wheel.borrow_mut().entries.get_mut(self.key as usize) {
            entry.deadline_ms = NEVER;
            entry.waker = None;
        }
    }

    /// Whether the deadline that was set last has fallen due.
    pub(crate) fn has_expired(&self) -> bool {
        self.timers.wheel.borrow().entries.get(self.key as usize).is_some_and(|entry| entry.expired)
    }

    /// Ready when the deadline, set with [`OnExpiry::Wake`], has fallen due. Safe to drop.
    pub(crate) fn expired(&self) -> impl Future<Output = ()> + '_ {
        std::future::poll_fn(move |cx| self.poll_expired(cx.waker()))
    }

    /// [`Deadline::expired`], polled.
    pub(crate) fn poll_expired(&self, waker: &Waker) -> Poll<()> {
        let mut wheel = self.timers.wheel.borrow_mut();
        let Some(entry) = wheel.entries.get_mut(self.key as usize) else { return Poll::Ready(()) };
        if entry.expired {
            return Poll::Ready(());
        }
        match &mut entry.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let mut wheel = self.timers.wheel.borrow_mut();
        if let Some(entry) = wheel.entries.get_mut(self.key as usize) {
            entry.in_use = false;
            entry.deadline_ms = NEVER;
            entry.waker = None;
            // A stale place in a bucket may remain; a new owner of the key is then looked at once too often, no more.
            wheel.free.push(self.key);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_deadline_wakes_its_task_once_and_not_early() {
        let timers = Timers::new();
        let deadline = timers.deadline(-1);
        deadline.set(120, OnExpiry::Wake);
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut future = std::pin::pin!(deadline.expired());
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        for now in [50, 100] {
            assert_eq!(timers.advance(now), 0);
        }
        assert_eq!(timers.advance(150), 1);
        assert_eq!(timers.advance(10_000), 0);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    }

    #[test]
    fn a_dropped_deadline_does_not_touch_its_socket() {
        let timers = Timers::new();
        let deadline = timers.deadline(-1);
        deadline.set(10, OnExpiry::Cut);
        drop(deadline);
        assert_eq!(timers.advance(1_000), 0);
        // The key is used again and has a clock of its own.
        let next = timers.deadline(-1);
        next.set(5_000, OnExpiry::Wake);
        assert_eq!(timers.advance(5_900), 0);
        assert_eq!(timers.advance(6_050), 1);
        assert!(next.has_expired());
    }

    proptest! {
        /// Against a plain list: each deadline falls due at the first advance at or after its time, whatever was set before.
        #[test]
        fn agrees_with_a_plain_list(steps in prop::collection::vec((0usize..8, 0u64..70_000, 0u64..4_000), 1..200)) {
            let timers = Timers::new();
            let deadlines: Vec<Deadline> = (0..8).map(|_| timers.deadline(-1)).collect();
            let mut plain = [NEVER; 8];
            let mut now = 0;
            for (which, after, step) in steps {
                deadlines[which].set(after, OnExpiry::Wake);
                plain[which] = now + after;
                now += step;
                timers.advance(now);
                for (i, at) in plain.iter_mut().enumerate() {
                    let expired = deadlines[i].has_expired();
                    if *at != NEVER {
                        // Never early; late by less than two ticks.
                        prop_assert!(!expired || *at <= now, "early");
                        prop_assert!(expired || *at + 2 * TICK_MS > now, "late");
                        if expired { *at = NEVER; }
                    }
                }
            }
        }
    }
}
