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
fn a_door_admits_its_limit_and_gives_back() {
    let lifecycle = lifecycle(&[]);
    let held: Vec<_> = (0..3).map(|_| lifecycle.try_acquire(Door::Tcp, 3).unwrap()).collect();
    assert!(lifecycle.try_acquire(Door::Tcp, 3).is_none());
    assert!(lifecycle.try_acquire(Door::Ws, 0).is_none());
    assert_eq!(lifecycle.connections(Door::Tcp), 3);
    drop(held);
    assert_eq!(lifecycle.connections(Door::Tcp), 0);
}

#[test]
fn an_upgrade_moves_the_place_or_leaves_it() {
    let lifecycle = lifecycle(&[]);
    let http = lifecycle.try_acquire(Door::Http, 1).unwrap();
    let ws = http.move_to(Door::Ws, 1).unwrap();
    assert_eq!((lifecycle.connections(Door::Http), lifecycle.connections(Door::Ws)), (0, 1));
    let second = lifecycle.try_acquire(Door::Http, 1).unwrap();
    let second = second.move_to(Door::Ws, 1).unwrap_err();
    assert_eq!(second.door(), Door::Http);
    assert_eq!((lifecycle.connections(Door::Http), lifecycle.connections(Door::Ws)), (1, 1));
    drop((ws, second));
    assert_eq!((lifecycle.connections(Door::Http), lifecycle.connections(Door::Ws)), (0, 0));
}

#[test]
fn threads_never_take_a_door_over_its_limit() {
    let lifecycle = lifecycle(&[]);
    let threads: Vec<_> = (0..4)
        .map(|worker| {
            let lifecycle = Arc::clone(&lifecycle);
            std::thread::spawn(move || {
                for _ in 0..5_000 {
                    let call = lifecycle.begin_call(worker);
                    let permits: Vec<_> = (0..3).filter_map(|_| lifecycle.try_acquire(Door::Http, 5)).collect();
                    assert!(lifecycle.connections(Door::Http) <= 5);
                    drop((permits, call));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!((lifecycle.connections(Door::Http), lifecycle.calls_in_flight()), (0, 0));
}
