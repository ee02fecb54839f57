#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

const NOW_MS: u64 = 1_795_000_000_000;
const MINUTE: Span = Span::Sliding(60_000);

fn rule(limit: u32, span: Span) -> Rule {
    Rule { limit, span }
}

#[cfg(not(loom))]
mod threads {
    use super::*;
    use std::sync::atomic::Ordering::SeqCst;

    fn table() -> RateTable {
        RateTable::new(1_000, [7; 16])
    }

    #[test]
    fn a_limit_slides() {
        let table = table();
        let (key, rule) = (table.key(1, b"a"), rule(3, MINUTE));
        for n in 0..3 {
            assert!(table.take(key, rule, 1, NOW_MS + n * 1_000).is_ok());
        }
        let refused = table.take(key, rule, 1, NOW_MS + 5_000).unwrap_err();
        assert_eq!(refused, Refused { current: 3, max: 3, retry_after_ms: 55_000 });
        assert!(table.take(key, rule, 1, NOW_MS + 59_999).is_err());
        assert!(table.take(key, rule, 1, NOW_MS + 60_000).is_ok());
        assert_eq!(table.take(key, rule, 1, NOW_MS + 60_000).unwrap_err().retry_after_ms, 1_000);
    }

    #[test]
    fn what_is_given_back_was_never_taken() {
        let table = table();
        let (key, rule) = (table.key(1, b"a"), rule(2, MINUTE));
        let first = table.take(key, rule, 1, NOW_MS).unwrap();
        let _kept = table.take(key, rule, 1, NOW_MS + 10).unwrap();
        table.give_back(key, rule, first, NOW_MS + 20);
        assert_eq!(table.peek(key, rule, NOW_MS + 20), Usage { used: 1, left: 1, resets_at_ms: NOW_MS + 60_010 });
        assert!(table.take(key, rule, 1, NOW_MS + 30).is_ok());
        assert_eq!(table.take(key, rule, 1, NOW_MS + 30).unwrap_err().retry_after_ms, 59_980);
    }

    #[test]
    fn kinds_spans_and_bytes_are_counts_of_their_own() {
        let table = table();
        for key in [table.key(1, b"a"), table.key(2, b"a"), table.key(1, b"b")] {
            for span in [Span::Sliding(1_000), MINUTE, Span::Sliding(60_001), Span::Day, Span::Month] {
                assert!(table.take(key, rule(1, span), 1, NOW_MS).is_ok());
                assert!(table.take(key, rule(1, span), 1, NOW_MS).is_err());
            }
        }
        assert_eq!(table.evictions(), 0);
    }

    #[test]
    fn a_day_begins_anew_at_midnight_and_never_twice() {
        let table = table();
        let (key, rule) = (table.key(1, b"a"), rule(3, Span::Day));
        let midnight_ms = 1_795_046_400_000;
        for n in 0..3 {
            assert_eq!(table.take(key, rule, 1, NOW_MS + n).unwrap(), Admitted { at: 20_775, cost: 1 });
        }
        let refused = table.take(key, rule, 1, NOW_MS).unwrap_err();
        assert_eq!(refused, Refused { current: 3, max: 3, retry_after_ms: midnight_ms - NOW_MS });
        assert!(table.take(key, rule, 1, midnight_ms - 1).is_err());
        let taken = table.take(key, rule, 2, midnight_ms).unwrap();
        assert_eq!(
            table.take(key, rule, 2, midnight_ms - 1).unwrap_err().current,
            2,
            "the day before is over for good"
        );
        table.give_back(key, rule, taken, midnight_ms);
        assert_eq!(table.peek(key, rule, midnight_ms), Usage { used: 0, left: 3, resets_at_ms: midnight_ms });
        assert_eq!(table.peek(key, rule, midnight_ms + 5).left, 3);
    }

    #[test]
    fn what_was_taken_yesterday_is_not_given_back_today() {
        let table = table();
        let (key, rule) = (table.key(1, b"a"), rule(9, Span::Day));
        let yesterday = table.take(key, rule, 5, NOW_MS).unwrap();
        let _today = table.take(key, rule, 2, NOW_MS + 86_400_000).unwrap();
        table.give_back(key, rule, yesterday, NOW_MS + 86_400_000);
        assert_eq!(table.peek(key, rule, NOW_MS + 86_400_000).used, 2);
    }

    #[test]
    fn v6_counts_by_64_and_mapped_v4_as_v4() {
        let table = table();
        let key = |ip: &str| table.key_of_ip(1, ip.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
        assert_ne!(key("10.0.0.2"), key("10.0.0.1"));
        assert_ne!(table.key_of_ip(2, "10.0.0.1".parse().unwrap()), key("10.0.0.1"));
    }

    /// As many counts as the table is for find room beside each other, but for a few in crowded buckets.
    #[test]
    fn it_holds_what_it_is_for() {
        let table = RateTable::new(20_000, [7; 16]);
        let keys: Vec<Key> = (0..20_000_u32).map(|n| table.key(1, &n.to_le_bytes())).collect();
        for key in &keys {
            assert!(table.take(*key, rule(1, MINUTE), 1, NOW_MS).is_ok());
        }
        assert!(table.evictions() < 80, "{}", table.evictions());
        let forgotten = keys.iter().filter(|key| table.peek(**key, rule(1, MINUTE), NOW_MS).used == 0).count();
        assert_eq!(forgotten as u64, table.evictions(), "what is forgotten is counted");
        // A minute later all have expired, and displacing them is nothing to count.
        let before = table.evictions();
        for n in 0..200_000_u32 {
            let at_ms = NOW_MS + 70_000 * (1 + u64::from(n) / 5_000);
            assert!(table.take(table.key(2, &n.to_le_bytes()), rule(1, MINUTE), 1, at_ms).is_ok());
        }
        assert_eq!(table.evictions(), before);
    }

    /// Millions of addresses that are seen once, and honest clients among them: what the honest have used stays known, to the last one.
    #[test]
    fn a_flood_displaces_no_busy_key() {
        const HONEST: u32 = 1_000;
        let table = RateTable::new(20_000, [7; 16]);
        let honest: Vec<Key> = (0..HONEST).map(|n| table.key(1, &n.to_le_bytes())).collect();
        let mut rounds = 0;
        for n in 0..600_000_u32 {
            let at_ms = NOW_MS + u64::from(n) / 30;
            let once = table.key_of_ip(2, std::net::Ipv6Addr::from_bits(u128::from(n) << 64).into());
            assert!(table.take(once, rule(60, MINUTE), 1, at_ms).is_ok());
            if n % 30_000 < 2 {
                rounds += 1;
                for key in &honest {
                    assert!(table.take(*key, rule(60, MINUTE), 1, at_ms).is_ok());
                }
            }
        }
        for key in &honest {
            assert_eq!(table.peek(*key, rule(60, MINUTE), NOW_MS + 20_000).used, rounds);
        }
        assert!(table.evictions() > 500_000, "{}", table.evictions());
    }

    /// All cores bring the same newcomers at once, in a table that is much too small: of each at most the limit is admitted between two evictions.
    #[test]
    fn a_newcomer_gets_one_seat_whoever_brings_it() {
        const LIMIT: u32 = 5;
        for round in 0..300_u32 {
            let table = RateTable::new(8, [round as u8; 16]);
            let admitted: Vec<AtomicU64> = (0..6).map(|_| AtomicU64::new(0)).collect();
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for n in 0..60_usize {
                            let key = table.key(1, &[n as u8 % 6]);
                            let taken = table.take(key, rule(LIMIT, MINUTE), 1, NOW_MS);
                            admitted[n % 6].fetch_add(u64::from(taken.is_ok()), SeqCst);
                        }
                    });
                }
            });
            let total: u64 = admitted.iter().map(|one| one.load(SeqCst)).sum();
            if table.evictions() == 0 {
                assert!(admitted.iter().all(|one| one.load(SeqCst) == u64::from(LIMIT)), "round {round}");
            }
            assert!(total <= u64::from(LIMIT) * (6 + table.evictions()), "round {round}");
        }
    }

    /// All cores on one key: exactly the limit, of every span.
    #[test]
    fn a_rush_on_one_key_admits_exactly_the_limit() {
        let table = table();
        for span in [MINUTE, Span::Day, Span::Month] {
            for limit in [1, 63, 1_000, 20_000] {
                let key = table.key(limit as u8, b"rush");
                let admitted = AtomicU64::new(0);
                std::thread::scope(|scope| {
                    for _ in 0..4 {
                        scope.spawn(|| {
                            for n in 0..u64::from(limit) {
                                let taken = table.take(key, rule(limit, span), 1, NOW_MS + n / 50);
                                admitted.fetch_add(u64::from(taken.is_ok()), SeqCst);
                            }
                        });
                    }
                });
                let unused = u64::from(limit) - admitted.load(SeqCst);
                assert!(unused == 0 || span == MINUTE && unused <= 1, "{limit} {span:?}: {unused} unused");
            }
        }
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nobody_out_for_longer_than_the_window() {
        let table = table();
        let (key, minute, day) = (table.key(1, b"a"), rule(100, MINUTE), rule(100, Span::Day));
        assert_eq!(table.tend(NOW_MS), Step::Steady);
        for n in 0..100 {
            assert!(table.take(key, minute, 1, NOW_MS + n).is_ok());
            assert!(table.take(key, day, 1, NOW_MS + n).is_ok());
        }
        let back_ms = NOW_MS - 3 * 86_400_000;
        assert_eq!(table.take(key, minute, 1, back_ms).unwrap_err().current, 100);
        assert_eq!(table.tend(back_ms), Step::Back);
        assert_eq!(table.take(key, minute, 1, back_ms).unwrap_err().retry_after_ms, 60_000);
        assert_eq!(table.take(key, day, 1, back_ms).unwrap_err().current, 100);
        assert!(table.take(key, minute, 1, back_ms + 59_999).is_err());
        assert!(table.take(key, minute, 1, back_ms + 60_000).is_ok());
        assert!(table.take(key, day, 1, back_ms + 86_400_000).is_ok());
    }

    #[test]
    fn what_has_expired_is_cleared_before_its_time_could_look_like_another() {
        let table = table();
        let keys: Vec<Key> = (0..100).map(|n| table.key(1, &[n])).collect();
        for key in &keys {
            assert!(table.take(*key, rule(1, MINUTE), 1, NOW_MS).is_ok());
        }
        for second in 1..=2 * 4_096 {
            assert_eq!(table.tend(NOW_MS + 1_000 * second), Step::Steady);
        }
        // Modulo 2^32 this is 30 seconds before.
        let later_ms = NOW_MS + (1 << 32) - 30_000;
        for key in &keys {
            assert!(table.take(*key, rule(1, MINUTE), 1, later_ms).is_ok());
        }
        assert_eq!(table.tend(later_ms), Step::Leap);
        assert!(keys.iter().all(|key| table.peek(*key, rule(1, MINUTE), later_ms).used == 0));
    }

    proptest::proptest! {
        /// Whatever stands in the words, nothing panics, hangs, or is admitted over the limit once and for all.
        #[test]
        fn any_words_are_mended(seed in proptest::num::u64::ANY, left in 0_u64..1 << 33) {
            let words = Words::zeroed(RateTable::words_for(20));
            let mut random = seed | 1;
            for word in words.iter().skip(PREFACE_WORDS) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                word.store(random, Ordering::Relaxed);
            }
            let table = RateTable::over(words, 20, [7; 16]);
            table.mend(NOW_MS - (1 << 32) + left, NOW_MS);
            for n in 0..50 {
                let key = table.key(1, &[n % 10]);
                for span in [Span::Sliding(1 << n.min(30)), Span::Day, Span::Month] {
                    let Ok(taken) = table.take(key, rule(3, span), 1, NOW_MS) else { continue };
                    proptest::prop_assert!(table.peek(key, rule(3, span), NOW_MS).used <= 3);
                    if n % 3 == 0 {
                        table.give_back(key, rule(3, span), taken, NOW_MS);
                    }
                }
                table.tend(NOW_MS + u64::from(n));
            }
            let fresh = table.key(2, b"fresh");
            let admitted = (0..10).filter(|_| table.take(fresh, rule(3, MINUTE), 1, NOW_MS).is_ok()).count();
            proptest::prop_assert_eq!(admitted, 3);
        }
    }
}

#[cfg(loom)]
mod interleavings {
    use super::*;
    use loom::sync::Arc;

    /// One bucket with two seats.
    fn table() -> Arc<RateTable> {
        Arc::new(RateTable::new(1, [7; 16]))
    }

    /// Two threads bring the same newcomer: it gets one seat, and one admission.
    #[test]
    fn a_newcomer_that_two_bring_gets_one_seat() {
        loom::model(|| {
            let table = table();
            let key = table.key(1, b"a");
            let rival = {
                let table = Arc::clone(&table);
                loom::thread::spawn(move || table.take(key, rule(1, MINUTE), 1, NOW_MS).is_ok())
            };
            let own = table.take(key, rule(1, MINUTE), 1, NOW_MS).is_ok();
            assert!(own ^ rival.join().unwrap(), "exactly one");
            assert_eq!(table.evictions(), 0);
        });
    }

    /// A full bucket: a newcomer takes the seat that is used meanwhile. Neither is charged for the other.
    #[test]
    fn a_seat_that_is_taken_while_it_is_used() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let table = table();
            let keys = [table.key(1, b"a"), table.key(1, b"b"), table.key(1, b"c")];
            let limit = rule(3, Span::Day);
            for _ in 0..2 {
                let _ = table.take(keys[1], limit, 1, NOW_MS);
            }
            let _ = table.take(keys[0], limit, 1, NOW_MS);
            let rival = {
                let table = Arc::clone(&table);
                loom::thread::spawn(move || table.take(keys[2], limit, 1, NOW_MS).is_ok())
            };
            assert!(table.take(keys[0], limit, 1, NOW_MS).is_ok());
            assert!(rival.join().unwrap());
            for key in [keys[0], keys[2]] {
                assert!(table.peek(key, limit, NOW_MS).used <= 2, "charged for another");
            }
        });
    }
}
