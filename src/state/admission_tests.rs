#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[cfg(not(loom))]
mod threads {
    use super::super::*;
    use std::collections::HashMap;
    use std::hash::{BuildHasherDefault, DefaultHasher, Hasher, RandomState};
    use std::net::Ipv6Addr;

    /// Everything lands in bucket 0 with its own tag: the worst an attacker could do with the key.
    #[derive(Default)]
    struct OneBucket(DefaultHasher);

    impl Hasher for OneBucket {
        fn write(&mut self, bytes: &[u8]) {
            self.0.write(bytes);
        }
        fn finish(&self) -> u64 {
            self.0.finish() & !COUNT_MASK
        }
    }

    type Crowded = BuildHasherDefault<OneBucket>;

    fn v4(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn one_address_gets_its_limit_and_gives_back() {
        let table = Arc::new(AdmissionTable::new(100, RandomState::new()));
        let mut held: Vec<_> = (0..32).map(|_| table.try_acquire(v4(1), 32).unwrap()).collect();
        assert_eq!(table.try_acquire(v4(1), 32).err(), Some(Refused::Limit));
        assert_eq!(table.count(v4(1)), 32);
        assert!(table.try_acquire(v4(2), 32).is_ok(), "others are not concerned");
        held.pop();
        held.push(table.try_acquire(v4(1), 32).unwrap());
        drop(held);
        assert_eq!(table.occupied(), 0);
        assert_eq!(table.try_acquire(v4(1), 0).err(), Some(Refused::Limit));
    }

    #[test]
    fn v6_counts_by_64_and_mapped_v4_as_v4() {
        let table = Arc::new(AdmissionTable::new(100, RandomState::new()));
        let v6 = |net: u128, host: u128| IpAddr::V6(Ipv6Addr::from_bits(net << 64 | host));
        let _a = table.try_acquire(v6(0x2001_0db8_0000_0001, 1), 2).unwrap();
        let _b = table.try_acquire(v6(0x2001_0db8_0000_0001, u128::from(u64::MAX)), 2).unwrap();
        assert_eq!(table.try_acquire(v6(0x2001_0db8_0000_0001, 7), 2).err(), Some(Refused::Limit));
        assert!(table.try_acquire(v6(0x2001_0db8_0000_0002, 1), 2).is_ok());
        let _c = table.try_acquire("::ffff:10.0.0.1".parse().unwrap(), 1).unwrap();
        assert_eq!(table.try_acquire("10.0.0.1".parse().unwrap(), 1).err(), Some(Refused::Limit));
    }

    #[test]
    fn a_million_addresses_leave_nothing_behind() {
        let table = Arc::new(AdmissionTable::new(64, RandomState::new()));
        for n in 0..1_000_000 {
            drop(table.try_acquire(v4(n), 1).unwrap());
        }
        assert_eq!(table.occupied(), 0);
    }

    #[test]
    fn it_does_not_fill_up_while_the_doors_hold() {
        for max in [1, 10, 150, 4_000] {
            let table = Arc::new(AdmissionTable::new(max, RandomState::new()));
            let held: Vec<_> = (0..max as u32).map(|n| table.try_acquire(v4(n), 1)).collect();
            assert!(held.iter().all(Result::is_ok), "{max}");
        }
    }

    #[test]
    fn a_full_bucket_refuses_newcomers_only() {
        let table = Arc::new(AdmissionTable::new(1_000, Crowded::default()));
        let held: Vec<_> = (0..BUCKET as u32).map(|n| table.try_acquire(v4(n), 2).unwrap()).collect();
        assert_eq!(table.try_acquire(v4(99), 2).err(), Some(Refused::TableFull));
        assert!(table.try_acquire(v4(3), 2).is_ok());
        drop(held);
        assert!(table.try_acquire(v4(99), 2).is_ok());
    }

    proptest::proptest! {
        /// One thread must agree with a plain map, however crowded the table is.
        #[test]
        fn agrees_with_a_map(steps in proptest::collection::vec((0_u32..6, proptest::bool::ANY), 0..200)) {
            let table = Arc::new(AdmissionTable::new(1, Crowded::default()));
            let mut held: HashMap<u32, Vec<_>> = HashMap::new();
            for (n, take) in steps {
                let own = held.entry(n).or_default();
                if take {
                    match table.try_acquire(v4(n), 3) {
                        Ok(permit) => own.push(permit),
                        Err(refused) => {
                            proptest::prop_assert_eq!(refused, Refused::Limit);
                            proptest::prop_assert_eq!(own.len(), 3);
                        }
                    }
                } else {
                    own.pop();
                }
                proptest::prop_assert!(own.len() <= 3);
                proptest::prop_assert_eq!(table.count(v4(n)), own.len() as u64);
            }
        }
    }

    /// Four threads take and give back few addresses in one crowded bucket, with an outside count of who holds what.
    #[test]
    fn under_load_never_one_over() {
        use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
        const LIMIT: i64 = 3;
        let table = Arc::new(AdmissionTable::new(1, Crowded::default()));
        let held: Arc<Vec<AtomicI64>> = Arc::new((0..4).map(|_| AtomicI64::new(0)).collect());
        let threads: Vec<_> = (0..4_u32)
            .map(|seed| {
                let (table, held) = (Arc::clone(&table), Arc::clone(&held));
                std::thread::spawn(move || {
                    let mut random = seed + 1;
                    let mut admitted = 0_u64;
                    let mut permits = std::collections::VecDeque::new();
                    for _ in 0..100_000 {
                        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let n = random >> 30;
                        if let Ok(permit) = table.try_acquire(v4(n), LIMIT as u16) {
                            assert!(held[n as usize].fetch_add(1, SeqCst) < LIMIT, "one over the limit");
                            permits.push_back((n, permit));
                            admitted += 1;
                        }
                        if (permits.len() > 2 || (random >> 20) & 1 == 0)
                            && let Some((n, permit)) = permits.pop_front()
                        {
                            held[n as usize].fetch_sub(1, SeqCst);
                            drop(permit);
                        }
                    }
                    for (n, permit) in permits {
                        held[n as usize].fetch_sub(1, SeqCst);
                        drop(permit);
                    }
                    admitted
                })
            })
            .collect();
        let admitted: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert!(admitted > 100_000, "most of what asks gets in: {admitted}");
        assert_eq!(table.occupied(), 0);
    }

    /// All threads on one key at once: exactly the limit gets in.
    #[test]
    fn a_rush_on_one_address_admits_exactly_the_limit() {
        for _ in 0..200 {
            let table = Arc::new(AdmissionTable::new(16, RandomState::new()));
            let rush: Vec<_> = (0..4)
                .map(|_| {
                    let table = Arc::clone(&table);
                    std::thread::spawn(move || {
                        (0..8).filter_map(|_| table.try_acquire(v4(7), 10).ok()).collect::<Vec<_>>()
                    })
                })
                .collect();
            let held: Vec<_> = rush.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            assert_eq!(held.len(), 10);
        }
    }
}

#[cfg(loom)]
mod interleavings {
    use super::super::*;
    use std::hash::{BuildHasherDefault, Hasher};

    /// Loom needs the same hashes in each run.
    #[derive(Default)]
    struct Plain(u64);

    impl Hasher for Plain {
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = self.0.wrapping_mul(31).wrapping_add(u64::from(*byte));
            }
        }
        fn finish(&self) -> u64 {
            self.0 << COUNT_BITS
        }
    }

    type Fixed = BuildHasherDefault<Plain>;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// One address holds the first slot and leaves while two threads come for another address: they may claim different
    /// slots, and still at most one of them gets in.
    #[test]
    fn two_first_comers_race_into_different_slots() {
        loom::model(|| {
            let table = Arc::new(AdmissionTable::new(1, Fixed::default()));
            let other = table.try_acquire(ip(1), 1).unwrap();
            let rival = {
                let table = Arc::clone(&table);
                loom::thread::spawn(move || table.try_acquire(ip(2), 1).ok())
            };
            drop(other);
            let own = table.try_acquire(ip(2), 1).ok();
            let rival = rival.join().unwrap();
            assert!(!(own.is_some() && rival.is_some()), "one over the limit");
            assert_eq!(table.count(ip(2)), u64::from(own.is_some() || rival.is_some()));
            drop((own, rival));
            assert_eq!(table.occupied(), 0);
        });
    }

    /// Taking and giving back on one address, limit 1: the two are never in at once.
    #[test]
    fn holders_exclude_each_other() {
        loom::model(|| {
            let table = Arc::new(AdmissionTable::new(1, Fixed::default()));
            let inside = Arc::new(AtomicU64::new(0));
            let enter = |table: &Arc<AdmissionTable<Fixed>>, inside: &AtomicU64| {
                if let Ok(permit) = table.try_acquire(ip(2), 1) {
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two are in");
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                }
            };
            let rival = {
                let (table, inside) = (Arc::clone(&table), Arc::clone(&inside));
                loom::thread::spawn(move || enter(&table, &inside))
            };
            enter(&table, &inside);
            rival.join().unwrap();
            assert_eq!(table.occupied(), 0);
        });
    }
}
