#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[cfg(not(loom))]
mod threads {
    use super::super::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    #[test]
    fn a_worker_takes_from_its_own_shard_first_and_then_from_all() {
        let slots = Slots::new(6, 3);
        let own: Vec<_> = (0..2).map(|_| slots.claim(1).unwrap()).collect();
        assert_eq!(own, [2, 3]);
        let rest: BTreeSet<_> = (0..4).map(|_| slots.claim(1).unwrap()).collect();
        assert_eq!(rest, BTreeSet::from([0, 1, 4, 5]));
        assert_eq!(slots.claim(0), None);
        slots.give_back(3);
        slots.give_back(0);
        assert_eq!(slots.claim(1), Some(3), "what was taken from a shard goes back there");
        assert_eq!((slots.claim(1), slots.claim(1)), (Some(0), None));
    }

    #[test]
    fn only_slots_that_were_used_are_looked_at() {
        let slots = Slots::new(1 << 20, 2);
        assert_eq!(slots.used(0).count(), 0);
        let claimed = [slots.claim(0).unwrap(), slots.claim(1).unwrap(), slots.claim(1).unwrap()];
        slots.give_back(claimed[2]);
        let used: Vec<_> = slots.used(0).map(|(index, _)| index).collect();
        assert_eq!(used, claimed);
        let rest: Vec<_> = slots.used(claimed[1]).map(|(index, _)| index).collect();
        assert_eq!(rest, claimed[1..]);
    }

    #[test]
    fn no_two_slots_share_a_cache_line() {
        let slots = Slots::new(5, 2);
        let starts: Vec<_> = (0..6).map(|index| slots.words(index).unwrap().as_ptr().addr()).collect();
        assert!(starts.iter().all(|start| start % ALIGNMENT == 0) && starts.is_sorted());
        assert_eq!(SLOT_WORDS * 8 % ALIGNMENT, 0);
        assert!(slots.words(6).is_none() && slots.words(usize::MAX).is_none());
    }

    #[test]
    fn there_is_always_one_slot_and_never_more_than_an_index_can_name() {
        assert_eq!(Slots::new(0, 0).claim(7), Some(0));
        assert_eq!(Slots::new(usize::MAX, 3).count, MAX_SLOTS / 3 * 3);
    }

    proptest::proptest! {
        /// One thread must agree with a plain set: claimed are distinct, and there is none only when all are out.
        #[test]
        fn agrees_with_a_set(
            capacity in 1_usize..12,
            shards in 1_usize..4,
            steps in proptest::collection::vec((proptest::bool::ANY, 0_usize..16), 0..100),
        ) {
            let slots = Slots::new(capacity, shards);
            let all = slots.count;
            let mut out = Vec::new();
            for (take, n) in steps {
                if take {
                    match slots.claim(n) {
                        Some(index) => {
                            proptest::prop_assert!(index < all && !out.contains(&index));
                            out.push(index);
                        }
                        None => proptest::prop_assert_eq!(out.len(), all),
                    }
                } else if !out.is_empty() {
                    slots.give_back(out.swap_remove(n % out.len()));
                }
            }
        }
    }

    /// All cores claim and give back on two crowded shards; a slot has one owner at a time, and none is lost.
    #[test]
    fn under_load_a_slot_has_one_owner() {
        use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
        let threads = std::thread::available_parallelism().unwrap().get().max(4);
        let slots = Arc::new(Slots::new(2 * threads, 2));
        let owned: Arc<Vec<AtomicBool>> = Arc::new((0..2 * threads).map(|_| AtomicBool::new(false)).collect());
        let threads: Vec<_> = (0..threads)
            .map(|home| {
                let (slots, owned) = (Arc::clone(&slots), Arc::clone(&owned));
                std::thread::spawn(move || {
                    let mut held = std::collections::VecDeque::new();
                    for n in 0..100_000 {
                        // Two each: there is always one more somewhere, though not always where one looks.
                        let index = std::iter::repeat_with(|| slots.claim(home + n % 2)).flatten().next().unwrap();
                        assert!(!owned[index].swap(true, SeqCst), "two own it");
                        held.push_back(index);
                        if held.len() == 2 || n % 3 == 0 {
                            let index = held.pop_front().unwrap();
                            owned[index].store(false, SeqCst);
                            slots.give_back(index);
                        }
                    }
                    for index in held {
                        owned[index].store(false, SeqCst);
                        slots.give_back(index);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let all: BTreeSet<_> = std::iter::from_fn(|| slots.claim(0)).collect();
        assert_eq!(all.len(), slots.count);
    }
}

#[cfg(loom)]
mod interleavings {
    use super::super::*;
    use std::sync::Arc;

    /// One thread takes both slots and gives the first back, so that the stack's top is the same again for another thread that is in the
    /// middle of taking it, and what lies below is not: still never the same slot for both.
    #[test]
    fn a_slot_has_one_owner() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let slots = Arc::new(Slots::new(2, 1));
            let owned = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
            let (first, second) = (slots.claim(0).unwrap(), slots.claim(0).unwrap());
            slots.give_back(first);
            slots.give_back(second);
            let enter = |slots: &Slots, owned: &[AtomicU64; 2]| {
                let index = slots.claim(0)?;
                assert_eq!(owned[index].fetch_add(1, Ordering::Relaxed), 0, "two own it");
                Some(index)
            };
            let rival = {
                let (slots, owned) = (Arc::clone(&slots), Arc::clone(&owned));
                loom::thread::spawn(move || {
                    let (one, other) = (enter(&slots, &owned), enter(&slots, &owned));
                    if let (Some(index), Some(_)) = (one, other) {
                        owned[index].fetch_sub(1, Ordering::Relaxed);
                        slots.give_back(index);
                    }
                })
            };
            let _ = (enter(&slots, &owned), enter(&slots, &owned));
            rival.join().unwrap();
        });
    }
}
