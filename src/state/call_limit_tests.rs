#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;

#[cfg(not(loom))]
mod threads {
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn as_many_as_the_limit_are_given_and_taken_back() {
        let limit = Arc::new(CallLimit::new(3));
        let held: Vec<_> = (0..3).map(|_| CallLimit::try_take(Arc::clone(&limit)).unwrap()).collect();
        assert!(CallLimit::try_take(&*limit).is_none());
        assert_eq!(limit.held(), 3);
        drop(held);
        assert_eq!(limit.held(), 0);
        assert!(CallLimit::try_take(&*limit).is_some());
        assert!(CallLimit::try_take(&CallLimit::new(0)).is_none());
    }

    #[test]
    fn all_kinds_of_holders_share_one_number() {
        let limit = Arc::new(CallLimit::new(3));
        struct Holds(Arc<CallLimit>);
        impl AsRef<CallLimit> for Holds {
            fn as_ref(&self) -> &CallLimit {
                &self.0
            }
        }
        let holds = Rc::new(Holds(Arc::clone(&limit)));
        let (borrowed, by_rc) =
            (CallLimit::try_take(&*limit).unwrap(), CallLimit::try_take(Rc::clone(&holds)).unwrap());
        let by_arc = CallLimit::try_take(Arc::clone(&limit)).unwrap();
        assert!(CallLimit::try_take(holds).is_none());
        drop((borrowed, by_rc));
        assert_eq!(limit.held(), 1);
        drop(by_arc);
        assert_eq!(limit.held(), 0);
    }

    #[test]
    fn threads_never_hold_more_than_the_limit_and_give_all_back() {
        const LIMIT: u64 = 5;
        let limit = Arc::new(CallLimit::new(LIMIT));
        let in_flight = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (limit, in_flight) = (Arc::clone(&limit), Arc::clone(&in_flight));
                std::thread::spawn(move || {
                    let mut taken = 0_u64;
                    for _ in 0..20_000 {
                        let permits: Vec<_> = (0..3).filter_map(|_| CallLimit::try_take(Arc::clone(&limit))).collect();
                        let count = permits.len() as u64;
                        let before = in_flight.fetch_add(count, Ordering::Relaxed);
                        assert!(before + count <= LIMIT, "{before} and {count} more");
                        in_flight.fetch_sub(count, Ordering::Relaxed);
                        taken += count;
                    }
                    taken
                })
            })
            .collect();
        let taken: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert!(taken >= 20_000, "somebody always gets one: {taken}");
        assert_eq!(limit.held(), 0);
    }
}

#[cfg(loom)]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// Threads that each make so many calls, one after the other.
    fn explore(threads: u64, calls_each: u64, limit: u64) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            let calls = Arc::new(CallLimit::new(limit));
            // What the upstream would count.
            let in_flight = Arc::new(AtomicU64::new(0));
            let workers: Vec<_> = (0..threads)
                .map(|_| {
                    let (calls, in_flight) = (Arc::clone(&calls), Arc::clone(&in_flight));
                    thread::spawn(move || {
                        for _ in 0..calls_each {
                            match CallLimit::try_take(Arc::clone(&calls)) {
                                Some(permit) => {
                                    assert!(in_flight.fetch_add(1, Ordering::Relaxed) < limit);
                                    in_flight.fetch_sub(1, Ordering::Relaxed);
                                    drop(permit);
                                }
                                None => assert!(threads > limit, "refused though not all can be held"),
                            }
                        }
                    })
                })
                .collect();
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            assert_eq!(calls.held(), 0);
        });
    }

    #[test]
    fn two_threads_never_hold_two_permits_of_one() {
        explore(2, 2, 1);
    }

    #[test]
    fn three_threads_never_hold_three_permits_of_two() {
        explore(3, 1, 2);
    }

    #[test]
    fn nobody_is_refused_while_there_is_one_for_each() {
        explore(2, 2, 2);
    }
}
