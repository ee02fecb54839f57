#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

/// A window with its words.
struct Own {
    head: AtomicU64,
    cells: [AtomicU64; CELLS],
}

impl Own {
    fn new() -> Self {
        // Whatever stood in the cells before means nothing.
        let garbage = |n: usize| AtomicU64::new((n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self { head: AtomicU64::new(blank(7)), cells: std::array::from_fn(garbage) }
    }

    fn attempt<T>(&self, attempt: impl Fn(Window<'_>, u64) -> Option<T>) -> T {
        let window = Window { head: &self.head, cells: &self.cells };
        loop {
            if let Some(done) = attempt(window, self.head.load(Ordering::Acquire)) {
                return done;
            }
        }
    }

    /// By the short way where it leads there, as the table does.
    fn take(&self, ask: Ask) -> Result<u32, Full> {
        self.attempt(|window, word| match one_more(word, ask, || Some(&self.cells)) {
            Some((next, at)) => {
                let swapped = self.head.compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed);
                swapped.is_ok().then_some(Ok(at))
            }
            None => window.take(word, ask),
        })
    }

    fn give_back(&self, at: u32, ask: Ask) {
        self.attempt(|window, word| window.give_back(word, at, ask));
    }

    fn used(&self, ask: Ask) -> u32 {
        self.attempt(|window, word| window.peek(word, ask)).0
    }
}

#[cfg(not(loom))]
mod alone {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::Ordering::SeqCst;

    fn copied(own: &Own) -> Own {
        let copy = |word: &AtomicU64| AtomicU64::new(word.load(Ordering::Relaxed));
        Own { head: copy(&own.head), cells: std::array::from_fn(|n| copy(&own.cells[n])) }
    }

    fn ask(limit: u32, length_ms: u32, now: u32) -> Ask {
        Ask { limit, length_ms, cost: 1, now }
    }

    #[test]
    fn up_to_63_it_is_the_log_itself() {
        let window = Own::new();
        for n in 0..63 {
            assert_eq!(window.take(ask(63, 1_000, 10 * n)), Ok(10 * n));
        }
        assert_eq!(window.take(ask(63, 1_000, 630)), Err(Full { current: 63, wait_ms: 370 }));
        for lap in 1..100 {
            // Each is let in when the one of the lap before leaves, and not a millisecond earlier.
            for at in (0..63).map(|n| 1_000 * lap + 10 * n) {
                assert_eq!(window.take(ask(63, 1_000, at - 1)).unwrap_err().wait_ms, 1);
                assert_eq!(window.take(ask(63, 1_000, at)), Ok(at));
            }
            assert_eq!(window.take(ask(63, 1_000, 1_000 * lap + 621)), Err(Full { current: 63, wait_ms: 379 }));
        }
    }

    #[test]
    fn nothing_costs_nothing_and_too_much_is_never_admitted() {
        let window = Own::new();
        assert_eq!(window.take(ask(0, 50, 0)), Err(Full { current: 0, wait_ms: 50 }));
        let dear = |cost| Ask { cost, ..ask(10, 50, 0) };
        assert_eq!(window.take(dear(11)), Err(Full { current: 0, wait_ms: 50 }));
        assert_eq!(window.take(dear(u32::MAX)), Err(Full { current: 0, wait_ms: 50 }));
        assert_eq!(window.take(Ask { limit: MAX_LIMIT, ..dear(MAX_COST + 1) }).unwrap_err().wait_ms, 50);
        assert_eq!(window.take(dear(10)), Ok(0));
        assert_eq!(window.used(ask(10, 50, 49)), 10);
        assert_eq!(window.used(ask(10, 50, 50)), 0);
    }

    #[test]
    fn a_clock_that_goes_back_stands_still() {
        let window = Own::new();
        assert_eq!(window.take(ask(2, 100, 5_000)), Ok(5_000));
        assert_eq!(window.take(ask(2, 100, 1_000)), Ok(5_000));
        assert_eq!(window.take(ask(2, 100, 1_000)), Err(Full { current: 2, wait_ms: 4_100 }));
        assert_eq!(window.take(ask(2, 100, 5_100)), Ok(5_100));
        assert_eq!(window.take(ask(2, 100, 5_050)), Ok(5_100), "what left has left");
        assert_eq!(window.take(ask(2, 100, 5_050)), Err(Full { current: 2, wait_ms: 150 }));
    }

    #[test]
    fn the_clock_may_go_round() {
        let window = Own::new();
        let start = u32::MAX - 500;
        for n in 0..1_000 {
            assert!(window.take(ask(102, 100, start.wrapping_add(n))).is_ok(), "{n}");
        }
        assert!(window.take(ask(99, 100, start.wrapping_add(999))).is_err());
    }

    #[test]
    fn the_highest_limit_is_reached_exactly() {
        let window = Own::new();
        let dear = |cost, now| Ask { cost, ..ask(MAX_LIMIT, 60_000, now) };
        let mut admitted = 0;
        for now in 0.. {
            match window.take(dear(1_000, now)) {
                Ok(_) => admitted += 1_000,
                Err(full) => {
                    assert_eq!(full, Full { current: MAX_LIMIT, wait_ms: 60_000 - now + 125 });
                    break;
                }
            }
        }
        assert_eq!(admitted, MAX_LIMIT);
    }

    /// What was admitted, and when: the plain truth.
    #[derive(Default)]
    struct Log {
        at: Vec<u32>,
        /// Times of admissions that were given back after the group in which they were.
        late: Vec<u32>,
        last: u32,
    }

    impl Log {
        fn used(&self, at: u32, length_ms: u32) -> u32 {
            self.at.iter().filter(|one| at - **one < length_ms).count() as u32
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Time passes: this many 64ths of the length and milliseconds.
        Pass(u32, u32),
        /// The next clock is this far behind.
        Back(u32),
        /// This many attempts in a row.
        Take(u32),
        /// The one so many before the last is given back.
        Return(usize),
        /// From now on the limit is another one.
        Limit(u32),
    }

    fn steps(with_limits: bool) -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0_u32..3, 0_u32..3).prop_map(|(parts, ms)| Step::Pass(parts, ms)),
            1 => (0_u32..70, 0_u32..3).prop_map(|(parts, ms)| Step::Pass(parts, ms)),
            1 => (1_u32..50).prop_map(Step::Back),
            8 => (1_u32..40).prop_map(Step::Take),
            1 => (0_usize..40).prop_map(Step::Return),
            u32::from(with_limits) => limits().prop_map(Step::Limit),
        ];
        prop::collection::vec(step, 1..200)
    }

    fn limits() -> impl Strategy<Value = u32> {
        prop_oneof![1_u32..10, 10_u32..70, 60_u32..300, 300_u32..2_000]
    }

    /// Runs a schedule beside the log. `strict`: also nobody is refused too early, and the wait is exact.
    fn agrees(mut limit: u32, length_ms: u32, steps: &[Step], strict: bool) -> Result<(), TestCaseError> {
        let (window, mut log, mut now, mut behind) = (Own::new(), Log::default(), 1_000_u32, 0);
        for step in steps {
            match *step {
                Step::Pass(parts, ms) => (now, behind) = (now + parts * length_ms / 64 + ms, 0),
                Step::Back(ms) => behind = ms,
                Step::Limit(new) => limit = new,
                Step::Return(age) => {
                    let Some(index) = log.at.len().checked_sub(age + 1) else { continue };
                    let at = log.at[index];
                    if log.last.max(now - behind) - at >= length_ms {
                        // It counts no longer, unless the clock goes back; and then it counts.
                        continue;
                    }
                    log.at.remove(index);
                    if log.at.get(index).is_some_and(|later| *later != at) {
                        log.late.push(at);
                    }
                    window.give_back(at, ask(limit, length_ms, now - behind));
                }
                Step::Take(times) => {
                    for _ in 0..times {
                        one(&window, &mut log, ask(limit, length_ms, now - behind), strict)?;
                    }
                }
            }
            let at = log.last.max(now - behind);
            let peeked = window.used(ask(limit, length_ms, now - behind));
            prop_assert!(peeked >= log.used(at, length_ms));
        }
        Ok(())
    }

    fn one(window: &Own, log: &mut Log, ask: Ask, strict: bool) -> Result<(), TestCaseError> {
        let now = ask.now.max(log.last);
        let used = log.used(now, ask.length_ms);
        let full = match window.take(ask) {
            Ok(at) => {
                prop_assert_eq!(at, now, "stamped with the latest time");
                prop_assert!(used < ask.limit, "over the limit: {} at {}", used + 1, now);
                log.at.push(at);
                log.last = at;
                return Ok(());
            }
            Err(full) => full,
        };
        prop_assert!(full.current >= used);
        let late = log.late.iter().filter(|at| now - **at < ask.length_ms).count() as u32;
        let spare = (63 * ask.group()).saturating_sub(ask.limit);
        if !strict || late > spare {
            return Ok(());
        }
        prop_assert!(full.current <= used + ask.limit / 64);
        prop_assert!(64 * (used + 1) > 63 * ask.limit, "refused at {} of {}", used + 1, ask.limit);
        let then = |wait_ms: u32| copied(window).take(Ask { now: ask.now + wait_ms, ..ask });
        prop_assert!(full.wait_ms > 0 && then(full.wait_ms - 1).is_err(), "it would have been admitted earlier");
        prop_assert!(then(full.wait_ms).is_ok(), "it is refused at the time that was promised");
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Never more than the limit in any window, never refused at or under 63/64 of it, and the wait is exact.
        #[test]
        fn agrees_with_a_log(limit in limits(), length_ms in prop_oneof![Just(64_u32), 100_u32..5_000, Just(60_000)], steps in steps(false)) {
            agrees(limit, length_ms, &steps, true)?;
        }

        /// A limit that changes holds at once, upwards and downwards.
        #[test]
        fn never_over_a_limit_that_changes(limit in limits(), length_ms in 100_u32..5_000, steps in steps(true)) {
            agrees(limit, length_ms, &steps, false)?;
        }
    }

    /// All cores on one window, at one time: exactly the limit is admitted.
    #[test]
    fn a_rush_admits_exactly_the_limit() {
        for limit in [1, 60, 64, 1_000, 30_000] {
            let window = Own::new();
            let admitted = AtomicU64::new(0);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..limit {
                            admitted.fetch_add(u64::from(window.take(ask(limit, 1_000, 5)).is_ok()), SeqCst);
                        }
                    });
                }
            });
            assert_eq!(admitted.load(SeqCst), u64::from(limit));
        }
    }

    /// All cores on one window while time passes, each with its own idea of it, giving some back: in no window of the length were more than the limit
    /// admitted and kept.
    #[test]
    fn threads_with_clocks_of_their_own_are_never_over() {
        const LENGTH_MS: u32 = 50;
        for limit in [3, 63, 200] {
            let (window, clock) = (Own::new(), AtomicU64::new(1_000));
            let mut kept: Vec<u32> = std::thread::scope(|scope| {
                let work = |seed: u32| {
                    let (window, clock) = (&window, &clock);
                    move || {
                        let (mut random, mut kept) = (seed, Vec::new());
                        for _ in 0..60_000 {
                            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                            if random >> 28 == 0 {
                                clock.fetch_add(1, SeqCst);
                            }
                            let behind = (random >> 20) & 3;
                            let ask = ask(limit, LENGTH_MS, clock.load(SeqCst) as u32 - behind);
                            if let Ok(at) = window.take(ask) {
                                if random >> 30 == 1 { window.give_back(at, ask) } else { kept.push(at) }
                            }
                        }
                        kept
                    }
                };
                let threads: Vec<_> = (1..=4).map(|seed| scope.spawn(work(seed))).collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            });
            kept.sort_unstable();
            assert!(kept.len() > 10 * limit as usize);
            for (first, last) in kept.iter().zip(kept.iter().skip(limit as usize)) {
                assert!(last - first >= LENGTH_MS, "{} within {LENGTH_MS} ms", limit + 1);
            }
        }
    }
}

#[cfg(loom)]
mod interleavings {
    use super::*;
    use loom::sync::Arc;

    const LENGTH_MS: u32 = 10;

    fn at(limit: u32, now: u32) -> Ask {
        Ask { limit, length_ms: LENGTH_MS, cost: 1, now }
    }

    /// Of two that come at different times, one gets the last place.
    #[test]
    fn the_last_place_is_taken_once() {
        loom::model(|| {
            let window = Arc::new(Own::new());
            window.take(at(2, 1)).unwrap();
            let rival = {
                let window = Arc::clone(&window);
                loom::thread::spawn(move || window.take(at(2, 2)).is_ok())
            };
            let own = window.take(at(2, 3)).is_ok();
            assert!(own ^ rival.join().unwrap(), "exactly one");
            assert_eq!(window.used(at(2, 3)), 2);
        });
    }

    /// The ring is full, and the oldest leaves by one clock and not yet by the other: two close the same group, one place is free.
    #[test]
    fn one_leaves_and_one_enters() {
        loom::model(|| {
            let window = Arc::new(Own::new());
            for now in 1..=4 {
                window.take(at(4, now)).unwrap();
            }
            let rival = {
                let window = Arc::clone(&window);
                loom::thread::spawn(move || window.take(at(4, 11)).is_ok())
            };
            let own = window.take(at(4, 10)).is_ok();
            let rival = rival.join().unwrap();
            assert!(rival && !own || own ^ rival, "one place, one admission");
            assert_eq!(window.used(at(4, 11)), 4);
        });
    }

    /// What is given back while its group is closed by another thread is given back once, and the place is free.
    #[test]
    fn given_back_while_its_group_closes() {
        loom::model(|| {
            let window = Arc::new(Own::new());
            let first = window.take(at(2, 1)).unwrap();
            let rival = {
                let window = Arc::clone(&window);
                loom::thread::spawn(move || window.take(at(2, 2)).is_ok())
            };
            window.give_back(first, at(2, 1));
            assert!(rival.join().unwrap());
            assert_eq!(window.used(at(2, 2)), 1);
            assert!(window.take(at(2, 3)).is_ok());
            assert!(window.take(at(2, 3)).is_err());
        });
    }

    /// Two give back admissions of closed groups while nobody else is there: both are seen.
    #[test]
    fn two_notes_are_both_seen() {
        loom::model(|| {
            let window = Arc::new(Own::new());
            for now in 1..=3 {
                window.take(at(3, now)).unwrap();
            }
            let rival = {
                let window = Arc::clone(&window);
                loom::thread::spawn(move || window.give_back(1, at(3, 3)))
            };
            window.give_back(2, at(3, 3));
            rival.join().unwrap();
            assert_eq!(window.used(at(3, 3)), 1);
        });
    }
}
