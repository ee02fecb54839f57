//! What threads share, `src/state`; timers; and the audit line.

use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

use ringwall::bench::Wheel;
use ringwall::control::audit::line::{ChainEnd, Formatter};
use ringwall::control::audit::pseudonym::Pseudonyms;
use ringwall::control::keys::Key;
use ringwall::state::admission::AdmissionTable;
use ringwall::state::connections::{Arrival, ConnectionId, ConnectionTable, PrincipalKind};
use ringwall::state::doors::{Door, DoorCounts};
use ringwall::state::events::{Bell, Event, EventKind, EventQueue, Outcome};
use ringwall::state::rates::{RateTable, Rule, Span};

use crate::case::Case;
use crate::inputs::AGENT;

pub(crate) fn cases() -> Vec<Case> {
    [tables(), rates(), queue(), audit(), timers()].into_iter().flatten().collect()
}

/// SipHash as in the gateway, under the same key each time, so that the same slots are taken.
type Keyed = BuildHasherDefault<DefaultHasher>;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
const NOW_MS: u64 = 1_795_000_000_000;

fn tables() -> Vec<Case> {
    let admission = Arc::new(AdmissionTable::new(10_000, Keyed::default()));
    let table = Arc::new(ConnectionTable::new(Arc::<DoorCounts>::default(), 10_000, 1, Keyed::default()));
    let arrival = Arrival {
        door: Door::Http,
        door_limit: 10_000,
        peer: SocketAddr::new(PEER, 54321),
        address_limit: Some(100),
        worker: 0,
        now_ms: NOW_MS,
    };
    let entry = table.open(&arrival).expect("an empty table has room");
    let counted = table.open(&arrival).expect("an empty table has room");
    vec![
        Case::new("state/address taken and given back", 0, move || admission.try_acquire(black_box(PEER), 100).is_ok()),
        Case::new("state/connection opened and closed", 0, move || table.open(black_box(&arrival)).is_ok()),
        Case::new("state/connection identified", 0, move || {
            entry.identify(PrincipalKind::Agent, black_box(AGENT));
            true
        }),
        Case::new("state/ten calls counted", 0, move || {
            for _ in 0..10 {
                counted.received(1, black_box(291));
                counted.sent(1, black_box(120));
                counted.touch(black_box(NOW_MS));
            }
            true
        }),
    ]
}

fn rates() -> Vec<Case> {
    let table = Arc::new(RateTable::new(1_000, [7; 16]));
    let (often, seldom) =
        (Rule { limit: 8_000_000, span: Span::Sliding(60_000) }, Rule { limit: 60, span: Span::Sliding(60_000) });
    let day = Rule { limit: u32::MAX, span: Span::Day };
    let given_back = |rule: Rule| {
        let (table, key) = (Arc::clone(&table), table.key(2, AGENT.as_bytes()));
        move || {
            table.take(black_box(key), rule, 1, NOW_MS).is_ok_and(|admitted| {
                table.give_back(key, rule, admitted, NOW_MS);
                true
            })
        }
    };
    let (address, paced, full) = (Arc::clone(&table), Arc::clone(&table), Arc::clone(&table));
    let (paced_key, full_key, mut now_ms) = (table.key(3, AGENT.as_bytes()), table.key(4, AGENT.as_bytes()), NOW_MS);
    let filled = (0..60).all(|_| table.take(full_key, seldom, 1, NOW_MS).is_ok());
    vec![
        Case::new("state/address's request admitted", 0, move || {
            address.take(address.key_of_ip(1, black_box(PEER)), often, 1, NOW_MS).is_ok()
        }),
        Case::new("state/call admitted and given back, minute", 0, given_back(seldom)),
        Case::new("state/call admitted and given back, day", 0, given_back(day)),
        Case::new("state/60 a minute, admitted as another expires", 0, move || {
            now_ms += 1_000;
            paced.take(black_box(paced_key), seldom, 1, now_ms).is_ok()
        }),
        Case::new("state/61st of a minute refused", 0, move || {
            filled && full.take(black_box(full_key), seldom, 1, NOW_MS).is_err()
        }),
    ]
}

static CLIENT: LazyLock<ConnectionId> = LazyLock::new(|| "1f00002a".parse().unwrap_or_else(|_| unreachable!()));

/// What a forwarded call leaves.
pub(crate) fn event() -> Event {
    Event::new(EventKind::ToolCall, NOW_MS)
        .with_ip(PEER)
        .with_client(Door::Http, *CLIENT)
        .with_agent(AGENT)
        .with_tool(b"send_sms")
        .with_request_id(b"42")
        .with_call(Outcome::Ok, 200, 812)
}

fn queue() -> Vec<Case> {
    let queue = Arc::new(EventQueue::new(Arc::<Bell>::default()));
    let reserved = Arc::clone(&queue);
    let (one, other) = (event(), event());
    vec![
        Case::new("state/event made", 0, || black_box(event()).at_ms == NOW_MS),
        Case::new("state/event pushed and popped", 0, move || {
            queue.push(black_box(&one).clone()).is_ok() && queue.pop().is_some()
        }),
        Case::new("state/event reserved, pushed and popped", 0, move || {
            let Ok(reservation) = reserved.reserve() else { return false };
            reservation.commit(black_box(&other).clone());
            reserved.pop().is_some()
        }),
    ]
}

/// Of a chain that is long already: its numbers have ten digits for as long as a bench runs.
pub(crate) fn formatter() -> Formatter {
    let end = ChainEnd { seq: 1_000_000_000, ..ChainEnd::default() };
    Formatter::new(&Key::new([9; 32]), end, Pseudonyms::new(&Key::new([8; 32])))
}

fn audit() -> Vec<Case> {
    let (mut formatter, event) = (formatter(), event());
    let mut out = Vec::with_capacity(1024);
    vec![Case::new("audit/line of a call", 0, move || {
        out.clear();
        formatter.append(&mut out, black_box(&event));
        out.ends_with(b"\"}\n")
    })]
}

fn timers() -> Vec<Case> {
    const DEADLINES: usize = 256;
    let mut wheel = Wheel::new(DEADLINES as u64);
    let still = Wheel::new(DEADLINES as u64);
    let mut next = 0;
    let mut turn = move || {
        for _ in 0..4 {
            if !wheel.set(next % DEADLINES) {
                return false;
            }
            next += 1;
        }
        wheel.tick() == 0
    };
    // A turn and a half of the wheel, after which each tick has its share of the deadlines to look at.
    let settled = (0..768).all(|_| turn());
    vec![
        Case::new("timers/64 deadlines moved", 0, move || (0..64).all(|index| still.set(black_box(index)))),
        Case::new("timers/four deadlines of 256 moved, and a tick", 0, move || settled && turn()),
    ]
}
