#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "the threads of a test are its own")]

use super::*;
use crate::state::events::EventKind;

fn queue(capacity: usize) -> Arc<EventQueue> {
    Arc::new(EventQueue::with_capacity(capacity, Arc::new(Bell::default())))
}

fn event() -> Event {
    Event::new(EventKind::ToolCall, 1)
}

#[test]
fn a_full_queue_refuses_and_counts_and_keeps_what_it_has() {
    let queue = queue(3);
    for at in 0..3 {
        queue.push(Event::new(EventKind::ToolCall, at)).unwrap();
    }
    assert_eq!(queue.push(event()), Err(QueueFull));
    assert_eq!(queue.reserve().err(), Some(QueueFull));
    assert_eq!(queue.refused(), 2);
    let times: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|event| event.at_ms).collect();
    assert_eq!(times, [0, 1, 2]);
    queue.push(event()).unwrap();
}

#[test]
fn a_reservation_always_finds_its_room() {
    let queue = queue(2);
    let kept = queue.reserve().unwrap();
    queue.push(event()).unwrap();
    assert_eq!(queue.push(event()), Err(QueueFull), "one event and one reservation fill it");
    kept.commit(event());
    assert_eq!(queue.len(), 2);
    while queue.pop().is_some() {}
    drop(queue.reserve().unwrap());
    drop((queue.reserve().unwrap(), queue.reserve().unwrap()));
    queue.push(event()).unwrap();
    queue.push(event()).unwrap();
    assert_eq!(queue.refused(), 1);
}

#[test]
fn nothing_is_lost_or_doubled_between_threads() {
    let queue = queue(64);
    let each = 20_000_u64;
    let producers: Vec<_> = (0..2)
        .map(|_| {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || {
                for at in 0..each {
                    while queue.push(Event::new(EventKind::ToolCall, at)).is_err() {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut seen = 0;
    let mut sum = 0;
    while seen < 2 * each {
        match queue.pop() {
            Some(event) => (seen, sum) = (seen + 1, sum + event.at_ms),
            None => std::thread::yield_now(),
        }
    }
    producers.into_iter().for_each(|producer| producer.join().unwrap());
    assert_eq!(sum, each * (each - 1));
    assert!(queue.is_empty());
}

#[test]
fn who_waits_for_room_is_woken_when_there_is_some() {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let queue = EventQueue::with_capacity(8, Arc::default());
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(count.clone());
    for _ in 0..6 {
        queue.push(Event::new(EventKind::Alert, 0)).unwrap();
    }
    assert!(queue.poll_spare(&waker).is_ready(), "a quarter is left");
    queue.push(Event::new(EventKind::Alert, 0)).unwrap();
    assert!(queue.poll_spare(&waker).is_pending());
    queue.pop().unwrap();
    assert_eq!(count.0.load(Ordering::SeqCst), 0, "the writer wakes when it is done");
    queue.wake_waiting();
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    assert!(queue.poll_spare(&waker).is_ready());
    queue.wake_waiting();
    assert_eq!(count.0.load(Ordering::SeqCst), 1, "who has been woken waits no more");
    let queue = Arc::new(queue);
    let kept = queue.reserve().unwrap();
    assert!(queue.poll_spare(&waker).is_pending());
    drop(kept);
    assert_eq!(count.0.load(Ordering::SeqCst), 2, "room that is given back unused is not the writer's to tell");
}
