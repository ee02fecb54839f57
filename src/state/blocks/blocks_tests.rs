#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;

use super::view::{MAX_HOSTS, host_network, is_host};
use super::*;
use crate::state::networks::{FOR_EVER, canonical};

const NOW: u64 = 1_800_000_000_000;
const DOORS: Place = Place::Doors;
const CONTROL: Place = Place::Control;

fn net(text: &str) -> IpNet {
    text.parse::<IpNet>().unwrap_or_else(|_| text.parse::<IpAddr>().unwrap().into())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn rules() -> Rules {
    Rules {
        max_failed: 10,
        lockout_ms: 900_000,
        abuse_ms: Some(300_000),
        operators: Networks::of(&[net("192.0.2.0/24")]),
        proxies: Networks::of(&[net("10.0.0.2")]),
        denied: Networks::of(&[net("198.18.0.0/15"), net("2001:db8:bad::/48")]),
    }
}

fn blocks() -> Blocks {
    Blocks::new(rules(), [], Box::new(|| {}))
}

fn operators(text: &str, until_ms: u64) -> Block {
    Block::new(net(text), BlockKind::Operator, "because".into(), NOW, until_ms)
}

fn automatic(ip: IpAddr, until_ms: u64) -> Block {
    Block::of_address(ip, BlockKind::Lockout, Earned::Anywhere, "because".into(), NOW, until_ms - NOW)
}

#[test]
fn the_tenth_failure_locks_and_a_success_takes_all_back() {
    let blocks = blocks();
    let client = ip("203.0.113.7");
    let fail = |times: u64| (0..times).map(|n| blocks.failed(client, DOORS, NOW + n)).collect::<Vec<_>>();
    assert!(fail(9).iter().all(|locked| !locked));
    blocks.succeeded(client, DOORS);
    assert!(fail(9).iter().all(|locked| !locked), "the first nine are forgotten");
    assert_eq!(blocks.find(client, DOORS, NOW + 9), None);
    assert!(blocks.failed(client, CONTROL, NOW + 9), "a tenth, at whatever listener");
    let expected = Found { kind: BlockKind::Lockout, earned: Earned::Anywhere, until_ms: NOW + 9 + 900_000 };
    for place in [DOORS, CONTROL] {
        assert_eq!(blocks.find(client, place, NOW + 10), Some(expected));
        assert_eq!(blocks.find(ip("::ffff:203.0.113.7"), place, NOW + 10), Some(expected));
    }
    assert_eq!(blocks.find(ip("203.0.113.8"), DOORS, NOW + 10), None);
    assert_eq!(blocks.find(client, DOORS, NOW + 9 + 900_000), None, "its time is over");
    // And begins anew.
    assert!((0..9).all(|n| !blocks.failed(client, DOORS, NOW + 900_100 + n)));
    assert_eq!(blocks.made(BlockKind::Lockout), 1);
}

#[test]
fn failures_count_within_a_quarter_of_an_hour() {
    let blocks = blocks();
    let client = ip("203.0.113.7");
    // One every two minutes: eight at most are within the window.
    for n in 0..200 {
        assert!(!blocks.failed(client, DOORS, NOW + n * 120_000), "{n}");
    }
    // One every minute: they are.
    let start = NOW + 200 * 120_000 + FAILURE_WINDOW_MS * 2;
    let locked: Vec<_> = (0..12).map(|n| blocks.failed(client, DOORS, start + n * 60_000)).collect();
    assert_eq!(locked.iter().position(|locked| *locked), Some(9));
}

#[test]
fn a_v6_client_is_its_64() {
    let blocks = blocks();
    for n in 0..10_u128 {
        let one = IpAddr::V6((0x2001_0db8_0001_0002_u128 << 64 | n << 40).into());
        assert_eq!(blocks.failed(one, DOORS, NOW), n == 9);
    }
    assert!(blocks.find(ip("2001:db8:1:2:ffff::1"), DOORS, NOW).is_some());
    assert!(blocks.find(ip("2001:db8:1:3::1"), DOORS, NOW).is_none());
    assert_eq!(blocks.view().iter().next().unwrap().shown(), "2001:db8:1:2::/64");
}

#[test]
fn what_goes_on_at_the_doors_keeps_no_operator_out() {
    for operator in ["127.0.0.1", "::1", "192.0.2.9"] {
        let blocks = blocks();
        let operator = ip(operator);
        assert!((0..10).any(|_| blocks.failed(operator, DOORS, NOW)));
        assert!(blocks.find(operator, DOORS, NOW).is_some(), "{operator}");
        assert_eq!(blocks.find(operator, CONTROL, NOW), None, "{operator}");
        // Guesses at the admin API are counted apart, and keep out there.
        assert!((0..9).all(|_| !blocks.failed(operator, CONTROL, NOW)));
        blocks.succeeded(operator, DOORS);
        assert!(blocks.failed(operator, CONTROL, NOW));
        assert!(blocks.find(operator, CONTROL, NOW).is_some());
        // An operator's block is meant as it is said.
        blocks.block(operators(&operator.to_string(), FOR_EVER), NOW);
        assert!(blocks.find(operator, CONTROL, NOW).is_some() && blocks.find(operator, DOORS, NOW).is_some());
    }
    let blocks = blocks();
    let operator = ip("127.0.0.1");
    assert!((0..10).any(|_| blocks.failed(operator, CONTROL, NOW)));
    assert!(blocks.find(operator, CONTROL, NOW).is_some());
    assert_eq!(blocks.find(operator, DOORS, NOW), None, "who guesses at the admin API keeps no client out");
}

#[test]
fn a_proxy_is_never_blocked_for_its_clients() {
    let blocks = blocks();
    let proxy = ip("10.0.0.2");
    assert!((0..100).all(|_| !blocks.failed(proxy, DOORS, NOW)));
    assert!((0..1000).all(|_| !blocks.violation(proxy, NOW)));
    assert!(blocks.view().is_empty());
    assert!(blocks.block(operators("10.0.0.2", FOR_EVER), NOW));
    assert!(blocks.find(proxy, DOORS, NOW).is_some(), "but by an operator");
}

#[test]
fn who_keeps_breaking_rate_limits_is_blocked() {
    let blocks = blocks();
    let client = ip("203.0.113.7");
    // One burst, of whatever size.
    assert!((0..10_000).all(|n| !blocks.violation(client, NOW + n / 20)));
    // To go on is another matter: a thousand a second.
    let start = NOW + 600_000;
    let blocked_ms = (0..10_000).find(|n| blocks.violation(client, start + n)).unwrap();
    assert!((3_000..5_000).contains(&blocked_ms), "{blocked_ms}");
    let found = blocks.find(client, CONTROL, start + blocked_ms).unwrap();
    assert_eq!((found.kind, found.until_ms), (BlockKind::Abuse, start + blocked_ms + 300_000));
    // Three a second, for half a minute.
    let slow = ip("203.0.113.9");
    assert_eq!((0..1000).find(|n| blocks.violation(slow, start + n * 333)), Some(u64::from(VIOLATIONS) - 1));
    // One a second is borne for ever.
    let patient = ip("203.0.113.8");
    assert!((0..1000).all(|n| !blocks.violation(patient, NOW + n * 1000)));
    let off = Blocks::new(Rules { abuse_ms: None, ..rules() }, [], Box::new(|| {}));
    assert!((0..1000).all(|_| !off.violation(client, NOW)));
}

#[test]
fn the_deny_list_is_asked_first_and_everywhere() {
    let blocks = blocks();
    for place in [DOORS, CONTROL] {
        for denied in ["198.18.0.0", "198.19.255.255", "::ffff:198.18.3.4", "2001:db8:bad::1"] {
            let found = blocks.find(ip(denied), place, NOW).unwrap();
            assert_eq!((found.kind, found.until_ms), (BlockKind::DenyList, FOR_EVER), "{denied}");
        }
        assert_eq!(blocks.find(ip("198.20.0.0"), place, NOW), None);
    }
    let before = blocks.generation();
    blocks.set_rules(Rules { denied: Networks::of(&[net("198.20.0.0")]), ..rules() });
    assert_ne!(blocks.generation(), before, "who was let in is looked up again");
    assert!(blocks.find(ip("198.20.0.0"), DOORS, NOW).is_some() && blocks.find(ip("198.18.0.0"), DOORS, NOW).is_none());
}

#[test]
fn an_operators_block_stands_before_automatic_ones() {
    let blocks = blocks();
    let client = ip("203.0.113.7");
    assert!(blocks.block(operators("203.0.113.7", FOR_EVER), NOW));
    assert!(!blocks.block(automatic(client, NOW + 5), NOW), "it changes nothing");
    assert_eq!(blocks.find(client, DOORS, NOW).unwrap().until_ms, FOR_EVER);
    assert!(blocks.block(operators("203.0.113.7", NOW + 10), NOW), "an operator may change it");
    assert!(!blocks.block(automatic(client, NOW + 50), NOW + 9));
    assert!(blocks.block(automatic(client, NOW + 50), NOW + 10), "it has ended");
    assert_eq!(blocks.find(client, DOORS, NOW + 11).unwrap().kind, BlockKind::Lockout);
    // Two automatic ones: the later end.
    blocks.block(Block::of_address(client, BlockKind::Abuse, Earned::AtDoors, "rates".into(), NOW + 11, 9), NOW + 11);
    let found = blocks.find(client, DOORS, NOW + 11).unwrap();
    assert_eq!((found.kind, found.until_ms), (BlockKind::Lockout, NOW + 50));
    blocks.block(operators("203.0.112.0/23", FOR_EVER), NOW);
    assert_eq!(blocks.find(client, DOORS, NOW + 11).unwrap().kind, BlockKind::Operator);
}

#[test]
fn a_lift_ends_it_and_what_was_counted() {
    let woken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&woken);
    let wake = Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let blocks = Blocks::new(rules(), [operators("198.51.100.0/24", FOR_EVER)], wake);
    let client = ip("203.0.113.7");
    let before = blocks.generation();
    assert!((0..10).any(|_| blocks.failed(client, DOORS, NOW)));
    assert_ne!(blocks.generation(), before);
    assert_eq!(blocks.lift(net("203.0.113.0/24")).map(|block| block.kind), None, "another network");
    assert_eq!(blocks.lift(net("203.0.113.7")).unwrap().kind, BlockKind::Lockout);
    assert_eq!(blocks.find(client, DOORS, NOW), None);
    assert!((0..9).all(|_| !blocks.failed(client, DOORS, NOW)));
    assert!(blocks.find(ip("198.51.100.3"), DOORS, NOW).is_some());
    assert!(blocks.lift(net("::ffff:198.51.100.0/120")).is_some(), "however it is written");
    assert_eq!(blocks.find(ip("198.51.100.3"), DOORS, NOW), None);
    assert!(blocks.lift(net("198.51.100.0/24")).is_none());
    assert_eq!(woken.load(Ordering::Relaxed), 3);
}

#[test]
fn a_full_view_lets_the_automatic_one_go_that_ends_first() {
    let address = |n: u32| IpAddr::from((0x0b00_0000 + n).to_be_bytes());
    let operators =
        (0..1000).map(|n| Block::new(address(n).into(), BlockKind::Operator, "".into(), NOW, NOW + 1_000_000));
    let most = MAX_HOSTS as u32 + 20_000;
    let before = operators.chain((1000..most).map(|n| automatic(address(n), NOW + u64::from(n))));
    let blocks = Blocks::new(rules(), before, Box::new(|| {}));
    let full = blocks.view().len();
    assert!((MAX_HOSTS * 9 / 10..=MAX_HOSTS).contains(&full), "{full}");
    let others = most + 2_000;
    for n in most..others {
        assert!(blocks.block(automatic(address(n), NOW + u64::from(n)), NOW), "{n}");
    }
    let view = blocks.view();
    assert!(view.len() <= MAX_HOSTS);
    assert_eq!(view.len() as u64 + view.displaced(), full as u64 + 2_000);
    assert_eq!(view.count(BlockKind::Operator), 1000, "an operator's never goes");
    assert!(blocks.find(address(others - 1), DOORS, NOW).is_some());
    // Ended ones go before any that has not.
    let at = NOW + u64::from(others);
    assert!((0..50).all(|n| blocks.block(automatic(address(others + n), at + 10), at)));
    assert_eq!(blocks.view().displaced(), view.displaced());
    assert!(blocks.clear_ended(at) && !blocks.clear_ended(at));
    assert_eq!(blocks.view().len(), 1050);
}

#[test]
fn pages_have_all_of_them_in_order() {
    let all =
        ["10.0.0.0/8", "10.0.0.0/24", "10.0.0.1", "203.0.113.7", "2001:db8::/32", "2001:db8::/64", "2001:db8:5::1"];
    let blocks = Blocks::new(rules(), all.iter().rev().map(|text| operators(text, FOR_EVER)), Box::new(|| {}));
    for size in 1..9 {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = blocks.view().page(after, size, |_| true);
            assert!(page.len() <= size);
            let Some(last) = page.last() else { break };
            after = Some(last.network);
            seen.extend(page.iter().map(|block| block.shown()));
        }
        assert_eq!(seen, all, "{size}");
    }
    assert_eq!(blocks.view().page(None, 9, |block| block.network.prefix_len() == 64).len(), 1);
}

#[test]
fn whoever_looks_after_the_number_has_changed_finds_the_block() {
    let blocks = Arc::new(blocks());
    let threads: Vec<_> = (0..4_u8)
        .map(|thread| {
            let blocks = Arc::clone(&blocks);
            std::thread::spawn(move || {
                for n in 0..250_u8 {
                    let own = IpAddr::from([11, thread, 0, n]);
                    let seen = blocks.generation();
                    assert_eq!(blocks.find(own, DOORS, NOW), None);
                    assert!(blocks.block(automatic(own, NOW + 100), NOW));
                    assert_ne!(blocks.generation(), seen);
                    assert!(blocks.find(own, DOORS, NOW).is_some());
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(blocks.view().len(), 1000, "none was lost");
}

/// What is done to a view.
#[derive(Clone, Debug)]
enum Act {
    Operator(IpNet, u64),
    Automatic(IpAddr, u64),
    Lift(IpNet),
    Clear(u64),
}

fn some_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0_u32..2, 0_u32..4).prop_map(|(high, low)| IpAddr::V4((0xcb00_7100 + (high << 8) + low).into())),
        (0_u128..3, 0_u128..2)
            .prop_map(|(high, low)| IpAddr::V6(((0x2001_0db8_u128 << 96) + (high << 64) + low).into())),
    ]
}

fn some_net() -> impl Strategy<Value = IpNet> {
    (some_ip(), 0_u8..=6).prop_map(|(ip, less)| {
        let lengths: &[u8] = if ip.is_ipv4() { &[32, 31, 30, 24, 23, 8, 0] } else { &[128, 127, 64, 63, 48, 32, 0] };
        canonical(IpNet::new(ip, lengths[usize::from(less)]).unwrap())
    })
}

fn some_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (some_net(), 1_u64..8).prop_map(|(net, end)| Act::Operator(net, end)),
        3 => (some_ip(), 1_u64..8).prop_map(|(ip, end)| Act::Automatic(ip, end)),
        1 => some_net().prop_map(Act::Lift),
        1 => (0_u64..8).prop_map(Act::Clear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_a_plain_list_of_networks(acts in proptest::collection::vec(some_act(), 0..60), asked in some_ip()) {
        let blocks = blocks();
        let mut list: Vec<(IpNet, bool, u64)> = Vec::new();
        for act in acts {
            match act {
                Act::Operator(net, end) => {
                    blocks.block(Block::new(net, BlockKind::Operator, "".into(), NOW, NOW + end), NOW);
                    list.retain(|(other, ..)| *other != net);
                    list.push((net, true, NOW + end));
                }
                Act::Automatic(ip, end) => {
                    let net = host_network(ip);
                    blocks.block(automatic(ip, NOW + end), NOW);
                    match list.iter_mut().find(|(other, ..)| *other == net) {
                        Some((_, true, _)) => {}
                        Some((_, false, until_ms)) => *until_ms = (NOW + end).max(*until_ms),
                        None => list.push((net, false, NOW + end)),
                    }
                }
                Act::Lift(net) => {
                    let there = list.iter().any(|(other, ..)| *other == net);
                    prop_assert_eq!(blocks.lift(net).is_some(), there);
                    list.retain(|(other, ..)| *other != net);
                }
                Act::Clear(after) => {
                    let any = list.iter().any(|(.., until_ms)| *until_ms <= NOW + after);
                    prop_assert_eq!(blocks.clear_ended(NOW + after), any);
                    list.retain(|(.., until_ms)| *until_ms > NOW + after);
                }
            }
            prop_assert_eq!(blocks.view().len(), list.len());
            for now_ms in NOW..NOW + 9 {
                let covering = list.iter().filter(|(net, _, until_ms)| net.contains(&asked) && *until_ms > now_ms);
                let expected = covering.map(|(net, operators, _)| *operators || !is_host(*net)).max();
                let found = blocks.find(asked, DOORS, now_ms);
                prop_assert_eq!(found.map(|found| found.kind == BlockKind::Operator), expected);
            }
        }
    }
}
