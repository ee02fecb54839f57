#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

fn lifecycle(names: &[&str]) -> Arc<Lifecycle> {
    let upstreams = names.iter().map(|name| Arc::new(UpstreamState::new(name))).collect();
    Arc::new(Lifecycle::new(2, upstreams))
}

#[test]
fn phases_only_advance() {
    let lifecycle = lifecycle(&[]);
    assert_eq!(lifecycle.phase(), Phase::Starting);
    assert!(lifecycle.advance(Phase::Ready));
    assert!(!lifecycle.advance(Phase::Ready));
    assert!(lifecycle.advance(Phase::Draining));
    assert!(!lifecycle.advance(Phase::Ready));
    assert_eq!(lifecycle.phase(), Phase::Draining);
    assert!(lifecycle.advance(Phase::Stopped));
    assert_eq!(lifecycle.phase(), Phase::Stopped);
}

#[test]
fn ready_needs_the_phase_and_an_upstream() {
    let lifecycle = lifecycle(&["a", "b"]);
    lifecycle.upstreams()[1].set_reachable(true);
    assert!(!lifecycle.is_ready());
    lifecycle.advance(Phase::Ready);
    assert!(lifecycle.is_ready());
    assert!(lifecycle.upstreams()[1].set_reachable(false));
    assert!(!lifecycle.is_ready());
}

#[test]
fn calls_in_flight_are_counted_over_all_workers() {
    let lifecycle = lifecycle(&[]);
    let threads: Vec<_> = (0..4)
        .map(|worker| {
            let lifecycle = Arc::clone(&lifecycle);
            std::thread::spawn(move || {
                for _ in 0..5_000 {
                    let call = lifecycle.begin_call(worker);
                    assert!((1..=4).contains(&lifecycle.calls_in_flight()));
                    drop(call);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(lifecycle.calls_in_flight(), 0);
}
