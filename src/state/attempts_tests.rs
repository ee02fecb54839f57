#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;

const SPAN: u64 = 900_000;

fn attempts() -> Attempts {
    Attempts::new(RandomState::new())
}

fn ip(n: u32) -> IpAddr {
    IpAddr::V4(n.into())
}

#[test]
fn every_so_manieth_reaches_the_limit_whatever_the_threads_do() {
    let (attempts, reached) = (Arc::new(attempts()), Arc::new(AtomicU64::new(0)));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (attempts, reached) = (Arc::clone(&attempts), Arc::clone(&reached));
            std::thread::spawn(move || {
                for n in 0..10_000 {
                    if attempts.reaches(Deed::Failure, ip(7), 10, SPAN, 1_000_000 + n / 1000) {
                        reached.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(reached.load(Ordering::Relaxed), 4_000, "exactly: none is lost, none counts twice");
    assert!(attempts.is_empty());
}

#[test]
fn deeds_and_addresses_are_apart() {
    let attempts = attempts();
    for deed in Deed::ALL {
        assert!(!attempts.reaches(*deed, ip(1), 2, SPAN, 5));
        assert!(!attempts.reaches(*deed, ip(2), 2, SPAN, 5));
    }
    attempts.forget(Deed::Violation, ip(1));
    assert!(attempts.reaches(Deed::Failure, ip(1), 2, SPAN, 5));
    assert!(!attempts.reaches(Deed::Violation, ip(1), 2, SPAN, 5));
    assert!(attempts.reaches(Deed::Violation, ip(2), 2, SPAN, 5));
    assert!(attempts.reaches(Deed::Failure, ip(9), 1, SPAN, 5), "the first one");
}

#[test]
fn a_flood_of_addresses_is_bounded_and_hides_nobody() {
    let attempts = attempts();
    assert!((0..8).all(|_| !attempts.reaches(Deed::Failure, ip(1), 10, SPAN, 1_000)));
    for n in 0..60_000_u32 {
        attempts.reaches(Deed::Failure, ip(0x0a00_0000 + n), 10, SPAN, 2_000 + u64::from(n) / 1000);
    }
    assert!(attempts.len() <= SHARDS * SHARD_CAPACITY);
    assert!(!attempts.reaches(Deed::Failure, ip(1), 10, SPAN, 3_000), "the ninth");
    assert!(attempts.reaches(Deed::Failure, ip(1), 10, SPAN, 3_000), "who had begun to guess is still known");
    // Whose time is over makes room.
    for n in 0..40_000_u32 {
        attempts.reaches(Deed::Failure, ip(0x0b00_0000 + n), 10, SPAN, 2_100 + SPAN + u64::from(n) / 1000);
    }
    assert!(attempts.len() <= SHARDS * SHARD_CAPACITY);
}

#[test]
fn a_clock_that_goes_back_forgets_nothing_and_keeps_nothing_for_ever() {
    let attempts = attempts();
    let fail = |now_ms| attempts.reaches(Deed::Failure, ip(1), 3, SPAN, now_ms);
    assert!(!fail(10_000_000) && !fail(9_999_000) && fail(9_998_000));
    assert!(!fail(90_000_000) && !fail(90_000_000));
    assert!(!fail(10_000_000) && !fail(10_000_000), "those two lie hours ahead");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Beside a list of exact times: never later than there, and earlier only for deeds that a 64th of the span brings together.
    #[test]
    fn agrees_with_a_list_of_times(pauses in proptest::collection::vec(0_u64..250_000, 1..120), limit in 1_u32..12) {
        let attempts = attempts();
        let (mut exact, mut wide) = (Vec::<u64>::new(), Vec::<u64>::new());
        let mut now_ms = 1_000_000_000;
        for pause in pauses {
            now_ms += pause;
            exact.retain(|at| now_ms - at < SPAN);
            wide.retain(|at| now_ms - at < SPAN + SPAN / GRAIN);
            exact.push(now_ms);
            wide.push(now_ms);
            let reached = attempts.reaches(Deed::Failure, ip(1), limit, SPAN, now_ms);
            prop_assert!(reached || exact.len() < limit as usize);
            prop_assert!(!reached || wide.len() >= limit as usize);
            if reached {
                exact.clear();
                wide.clear();
            }
        }
    }
}
