#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

#[test]
fn a_door_admits_its_limit_and_gives_back() {
    let doors = Arc::new(DoorCounts::default());
    let held: Vec<_> = (0..3).map(|_| doors.try_acquire(Door::Tcp, 3).unwrap()).collect();
    assert!(doors.try_acquire(Door::Tcp, 3).is_none());
    assert!(doors.try_acquire(Door::Ws, 0).is_none());
    assert_eq!(doors.open(Door::Tcp), 3);
    drop(held);
    assert_eq!(doors.open(Door::Tcp), 0);
}

#[test]
fn an_upgrade_moves_the_place_or_leaves_it() {
    let doors = Arc::new(DoorCounts::default());
    let counts = || (doors.open(Door::Http), doors.open(Door::Ws));
    let mut first = doors.try_acquire(Door::Http, 1).unwrap();
    assert!(first.move_to(Door::Ws, 1));
    assert_eq!((first.door(), counts()), (Door::Ws, (0, 1)));
    let mut second = doors.try_acquire(Door::Http, 1).unwrap();
    assert!(!second.move_to(Door::Ws, 1));
    assert_eq!((second.door(), counts()), (Door::Http, (1, 1)));
    drop((first, second));
    assert_eq!(counts(), (0, 0));
}

#[test]
fn threads_never_take_a_door_over_its_limit() {
    let doors = Arc::new(DoorCounts::default());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let doors = Arc::clone(&doors);
            std::thread::spawn(move || {
                for _ in 0..5_000 {
                    let mut permits: Vec<_> = (0..3).filter_map(|_| doors.try_acquire(Door::Http, 5)).collect();
                    let _ = permits.first_mut().map(|permit| permit.move_to(Door::Ws, 2));
                    assert!(doors.open(Door::Http) <= 5);
                    assert!(doors.open(Door::Ws) <= 2);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!((doors.open(Door::Http), doors.open(Door::Ws)), (0, 0));
}
