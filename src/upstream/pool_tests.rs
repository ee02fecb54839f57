//! The pool in invented time: clients in a closed loop, and upstreams that close as they please.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use super::*;
use crate::bounds::UPSTREAM_IDLE_MS;

const LIMIT_NS: u64 = UPSTREAM_IDLE_MS * 1_000_000;
const CALL_NS: u64 = 1_000_000;
const BATCH_NS: u64 = 1_000_000;
const THINK_NS: u64 = 100_000;
/// How long a close takes to be seen: well under the rest.
const CLOSE_NS: u64 = 1_000_000;

/// A connection, as its upstream knows it.
struct Connection {
    answers: u32,
    closes_at_ns: Rc<Cell<u64>>,
}

#[derive(Debug, Default, PartialEq)]
struct Seen {
    connects: u32,
    /// Requests that crossed a close.
    lost: u32,
}

/// `calls` calls by `clients` clients, each with one in flight. Answers come in batches, once a millisecond, and a client's next call
/// comes a little after its answer. Whether a connection is closed after this many answers is up to `closes`, which gets the
/// number of the call as well.
fn run(pool: &mut Pool<Connection>, clients: u64, calls: u64, closes: impl Fn(u32, u64) -> bool) -> Seen {
    let mut seen = Seen::default();
    let start_ns = pool.idle.back().map_or(0, |one| one.since_ns);
    let mut events: BinaryHeap<Reverse<(u64, u64)>> =
        (0..clients).map(|client| Reverse((start_ns + client * 1000, client))).collect();
    let mut carried: Vec<Option<Connection>> = (0..clients).map(|_| None).collect();
    let (mut busy, mut call) = (0, 0);
    while call < calls {
        let Reverse((now_ns, client)) = events.pop().unwrap();
        if let Some(mut connection) = carried[client as usize].take() {
            busy -= 1;
            connection.answers += 1;
            if closes(connection.answers, call) {
                connection.closes_at_ns.set(now_ns + CLOSE_NS);
            }
            let answers = connection.answers;
            pool.put(connection, answers, now_ns);
            events.push(Reverse((now_ns + THINK_NS + client * 1000, client)));
            continue;
        }
        call += 1;
        let taken = pool.take(now_ns, LIMIT_NS, busy, |one| one.closes_at_ns.get() > now_ns);
        let connection = taken.unwrap_or_else(|| {
            seen.connects += 1;
            Connection { answers: 0, closes_at_ns: Rc::new(Cell::new(u64::MAX)) }
        });
        let mut answered_ns = (now_ns + CALL_NS + call % 7 * 100_000).next_multiple_of(BATCH_NS);
        if connection.closes_at_ns.get() != u64::MAX {
            seen.lost += 1;
            pool.doubt(now_ns);
            answered_ns = now_ns + CALL_NS;
        } else {
            busy += 1;
            carried[client as usize] = Some(connection);
        }
        events.push(Reverse((answered_ns, client)));
    }
    seen
}

#[test]
fn an_upstream_that_keeps_its_connections_gets_no_more_than_the_pool_holds() {
    let mut pool = Pool::new(64);
    // 64 clients make 28,000 calls a second, and 64 connections that rest could carry 9,000.
    let seen = run(&mut pool, 64, 100_000, |_, _| false);
    assert!(seen.connects < 10_000, "before much is proven: {seen:?}");
    assert!(pool.proven > 50, "it learns all the same: {}", pool.proven);
    pool.idle.clear();
    pool.proven = UPSTREAM_PROOF - 3;
    run(&mut pool, 64, 200_000, |_, _| false);
    assert!(pool.proven >= UPSTREAM_PROOF, "{}", pool.proven);
    pool.idle.clear();
    assert_eq!(run(&mut pool, 64, 100_000, |_, _| false), Seen { connects: 64, lost: 0 });
}

#[test]
fn where_the_pool_has_room_all_connections_rest_and_none_is_dropped() {
    let mut pool = Pool { doubted_until_ns: u64::MAX, ..Pool::new(64) };
    // 1,700 calls a second, of which 34 rest at a time.
    let seen = run(&mut pool, 4, 20_000, |_, _| false);
    assert!((34..=64).contains(&seen.connects), "{seen:?}");
    let least_ns = |one: &Idle<Connection>| one.since_ns;
    assert!(pool.idle.iter().is_sorted_by_key(least_ns), "in the order in which they came back");
}

#[test]
fn a_pool_with_room_learns_without_opening_a_connection_for_every_other_call() {
    let mut pool = Pool::new(1_024);
    let learning = run(&mut pool, 64, 100_000, |_, _| false);
    assert!(learning.connects <= 1_024, "what rests is kept: {learning:?}");
    pool.proven = UPSTREAM_PROOF;
    let proven = run(&mut pool, 64, 100_000, |_, _| false);
    assert_eq!(proven, Seen::default());
    // As few are used as there are clients; the others have not been touched, and age out.
    let newest_ns = pool.idle.iter().map(|one| one.since_ns).max().unwrap();
    let untouched = pool.idle.iter().filter(|one| newest_ns - one.since_ns > 1_000_000_000).count();
    assert!(pool.idle.len() - untouched <= 64, "{untouched} of {} are left to age", pool.idle.len());
}

#[test]
fn more_calls_in_flight_than_rest_find_their_connections_again() {
    let mut pool = Pool { proven: UPSTREAM_PROOF, ..Pool::new(1_024) };
    let seen = run(&mut pool, 512, 100_000, |_, _| false);
    assert_eq!(seen, Seen { connects: 512, lost: 0 });
}

#[test]
fn no_call_meets_the_close_of_an_upstream_that_counts() {
    for every in [1, 2, 3, 7, 64, 100, 500, UPSTREAM_PROOF] {
        for (clients, max_idle) in [(1, 64), (8, 64), (64, 64), (100, 64), (8, 2), (8, 8), (1, 1), (8, 0), (64, 1_024)]
        {
            let mut pool = Pool::new(max_idle);
            // Enough for each connection to be closed a few times.
            let calls = 1_000 + 3 * u64::from(every) * clients;
            let seen = run(&mut pool, clients, calls, |answers, _| answers >= every);
            assert_eq!(seen.lost, 0, "closes after {every}; {clients} clients, {max_idle} idle");
        }
    }
}

#[test]
fn a_close_out_of_the_blue_makes_all_connections_rest_again() {
    let mut pool = Pool::new(16);
    let quiet = run(&mut pool, 16, 200_000, |_, _| false);
    assert_eq!(quiet.lost, 0);
    pool.idle.clear();
    // From here on it closes every hundredth connection at random: what crosses the first close is all that is lost.
    let seen = run(&mut pool, 16, 20_000, |_, call| call * 2_654_435_761 % 100 == 0);
    assert!(seen.lost <= 1, "{seen:?}");
    assert!(pool.proven < UPSTREAM_PROOF);
}

#[test]
fn an_idle_time_of_the_upstreams_own_is_no_close_out_of_the_blue() {
    let mut pool = Pool::new(4);
    pool.proven = 9;
    pool.put(1, 3, 0);
    pool.put(2, 3, 10 * UPSTREAM_SUDDEN_NS);
    pool.sweep(10 * UPSTREAM_SUDDEN_NS + UPSTREAM_TRIAL_NS, LIMIT_NS, |one| *one == 2);
    assert_eq!((pool.idle.len(), pool.proven, pool.doubted_until_ns), (1, 9, 0));
    pool.sweep(10 * UPSTREAM_SUDDEN_NS + 2 * UPSTREAM_TRIAL_NS, LIMIT_NS, |_| false);
    assert_eq!((pool.idle.len(), pool.proven), (0, 0));
    assert!(pool.doubted_until_ns > UPSTREAM_DOUBT_NS);
}

#[test]
fn what_was_idle_for_too_long_is_not_taken_and_teaches_nothing() {
    let mut pool = Pool::new(4);
    pool.put((), 5, 0);
    assert_eq!(pool.take(LIMIT_NS, LIMIT_NS, 0, |()| true), None);
    assert_eq!((pool.idle.len(), pool.proven), (0, 0));
}
