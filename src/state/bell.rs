//! How those who record events wake the audit writer, and how seldom.
//!
//! The writer rests in one of two ways. *Asleep* it has nothing to do, and any event wakes it. *Lingering* it lets a group of
//! events gather and rises by itself; only who is in a hurry wakes it. A rest is ended by one waker, and a writer that is awake is
//! woken by nobody, so under load a worker pays one fence and one load an event.
//!
//! No wake is lost. A recorder makes its event visible and then looks how the writer rests; the writer says how it rests and then
//! looks for events and hurry. A fence stands between the two on either side: one of the two sees the other. Loom explores it
//! (`tests/loom`); who is woken, and how, is not known here.

use super::sync::{AtomicU64, Ordering, fence};

const AWAKE: u64 = 0;
const LINGERING: u64 = 1;
const ASLEEP: u64 = 2;

/// What the writer and the recorders know of each other.
#[derive(Debug)]
pub(super) struct Handshake {
    rest: AtomicU64,
    /// 1 from the time that somebody cannot wait until the writer looks.
    hurry: AtomicU64,
}

impl Default for Handshake {
    fn default() -> Self {
        Self { rest: AtomicU64::new(AWAKE), hurry: AtomicU64::new(0) }
    }
}

impl Handshake {
    /// For a recorder whose event is in its queue: whether it must wake the writer.
    pub(super) fn must_wake(&self, hurry: bool) -> bool {
        if hurry {
            // Who takes the hurry finds the event; a store would hide the events of those who were in a hurry before.
            self.hurry.swap(1, Ordering::Release);
        }
        fence(Ordering::SeqCst);
        let rest = self.rest.load(Ordering::Relaxed);
        if rest == AWAKE || (rest == LINGERING && !hurry) {
            return false;
        }
        // Where this fails, another wakes it, or it rests anew and has looked since.
        self.rest.compare_exchange(rest, AWAKE, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The writer is about to rest until somebody is in a hurry, or its time is over.
    pub(super) fn linger(&self) {
        self.rest.store(LINGERING, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The writer is about to rest until there is an event; it must look at the queues once more after this.
    pub(super) fn lie_down(&self) {
        self.rest.store(ASLEEP, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The writer is up again.
    pub(super) fn get_up(&self) {
        self.rest.store(AWAKE, Ordering::Relaxed);
    }

    /// Whether somebody cannot wait.
    pub(super) fn is_hurried(&self) -> bool {
        self.hurry.load(Ordering::Relaxed) != 0
    }

    /// For the writer before it empties the queues: all who were in a hurry until now are served by that.
    pub(super) fn take_hurry(&self) {
        if self.is_hurried() {
            self.hurry.swap(0, Ordering::Acquire);
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    /// How the standard library parks a thread: an `unpark` that comes first is kept.
    #[derive(Default)]
    struct Parker {
        token: Mutex<bool>,
        given: Condvar,
    }

    impl Parker {
        fn park(&self) {
            let mut token = self.token.lock().unwrap();
            while !*token {
                token = self.given.wait(token).unwrap();
            }
            *token = false;
        }

        fn unpark(&self) {
            *self.token.lock().unwrap() = true;
            self.given.notify_one();
        }
    }

    #[derive(Default)]
    struct Shared {
        handshake: Handshake,
        /// How many events wait.
        queue: AtomicU64,
        writer: Parker,
    }

    /// Recorders with one event each, and a writer that takes them all and rests in between as the real one does. Loom reports a
    /// deadlock when it rests for ever.
    fn explore(recorders: u64, hurry: bool) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            let shared = Arc::new(Shared::default());
            let threads: Vec<_> = (0..recorders)
                .map(|_| {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || {
                        shared.queue.fetch_add(1, Ordering::Release);
                        if shared.handshake.must_wake(hurry) {
                            shared.writer.unpark();
                        }
                    })
                })
                .collect();
            let mut taken = 0;
            loop {
                shared.handshake.take_hurry();
                taken += shared.queue.swap(0, Ordering::AcqRel);
                if taken == recorders {
                    break;
                }
                rest(&shared, hurry);
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    fn rest(shared: &Shared, linger: bool) {
        let handshake = &shared.handshake;
        if linger {
            handshake.linger();
        } else {
            handshake.lie_down();
        }
        let found = if linger { handshake.is_hurried() } else { shared.queue.load(Ordering::Relaxed) > 0 };
        if !found {
            shared.writer.park();
        }
        handshake.get_up();
    }

    #[test]
    fn an_event_wakes_a_writer_that_sleeps() {
        explore(1, false);
        explore(2, false);
    }

    #[test]
    fn who_is_in_a_hurry_wakes_a_writer_that_lingers() {
        explore(1, true);
        explore(2, true);
    }

    #[test]
    fn an_event_without_hurry_leaves_a_writer_that_lingers_alone() {
        loom::model(|| {
            let shared = Arc::new(Shared::default());
            shared.handshake.linger();
            let recorder = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || assert!(!shared.handshake.must_wake(false)))
            };
            recorder.join().unwrap();
            assert!(!shared.handshake.is_hurried());
        });
    }
}
