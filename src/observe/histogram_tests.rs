#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

fn snapshot(values: &[u64]) -> Snapshot {
    let histogram = Histogram::new();
    values.iter().for_each(|value| histogram.record(*value));
    let mut snapshot = Snapshot::default();
    histogram.add_to(&mut snapshot);
    snapshot
}

#[test]
fn buckets_cover_everything_once_and_in_order() {
    let mut lower = 0;
    for index in 0..BUCKETS {
        let upper = upper_bound_of(index);
        assert!(upper >= lower, "{index}");
        assert_eq!((bucket_of(lower), bucket_of(upper)), (index, index));
        assert!(upper - lower <= lower / 16, "{index}: too wide");
        lower = upper + 1;
    }
    assert_eq!(lower, MAX_NS + 1);
    assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
}

#[test]
fn empty_and_extreme() {
    assert_eq!(snapshot(&[]).quantile_ns(0.5), None);
    let extreme = snapshot(&[0, u64::MAX / 2]);
    assert_eq!(extreme.quantile_ns(0.0), Some(0));
    assert_eq!(extreme.quantile_ns(1.0), Some(MAX_NS));
    assert_eq!(extreme.count(), 2);
}

#[test]
fn bounds_are_cumulative() {
    let snapshot = snapshot(&[1, 10, 10, 1_000_000, 5_000_000_000]);
    assert_eq!(snapshot.at_most(&[0, 1, 10, 100, 2_000_000, MAX_NS]), [0, 1, 3, 3, 4, 5]);
    assert_eq!(snapshot.sum_ns(), 5_001_000_021);
}

proptest::proptest! {
    #[test]
    fn quantiles_are_within_a_sixteenth_of_the_truth(
        mut values in proptest::collection::vec(0_u64..MAX_NS, 1..200),
        q in 0.0_f64..=1.0,
    ) {
        let found = snapshot(&values).quantile_ns(q).unwrap();
        values.sort_unstable();
        let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
        let truth = values[rank - 1];
        proptest::prop_assert!(found >= truth && found <= truth + truth / 16, "{found} for {truth}");
    }
}

#[test]
fn readers_see_writes_of_another_thread() {
    let histogram = std::sync::Arc::new(Histogram::new());
    let writer = std::thread::spawn({
        let histogram = std::sync::Arc::clone(&histogram);
        move || (0..100_000).for_each(|value| histogram.record(value))
    });
    let count = || {
        let mut snapshot = Snapshot::default();
        histogram.add_to(&mut snapshot);
        snapshot.count()
    };
    let mut before = 0;
    while !writer.is_finished() {
        let now = count();
        assert!(now >= before && now <= 100_000);
        before = now;
    }
    writer.join().unwrap();
    assert_eq!(count(), 100_000);
}
