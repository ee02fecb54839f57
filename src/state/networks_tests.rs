#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn an_address_has_the_latest_end_of_what_it_is_in() {
    let networks = Networks::new([
        (net("10.0.0.0/8"), 100),
        (net("10.1.0.0/16"), 50),
        (net("10.1.2.0/24"), 200),
        (net("10.1.2.3/32"), FOR_EVER),
        (net("255.255.255.255/32"), 7),
        (net("0.0.0.0/32"), 8),
        (net("2001:db8::/32"), 300),
        (net("2001:db8:1::/48"), 400),
        (net("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"), 9),
    ]);
    for (address, until_ms) in [
        ("9.255.255.255", 0),
        ("10.0.0.0", 100),
        ("10.0.255.255", 100),
        ("10.1.0.0", 100),
        ("10.1.2.0", 200),
        ("10.1.2.2", 200),
        ("10.1.2.3", FOR_EVER),
        ("10.1.2.4", 200),
        ("10.1.3.0", 100),
        ("10.255.255.255", 100),
        ("11.0.0.0", 0),
        ("255.255.255.255", 7),
        ("255.255.255.254", 0),
        ("0.0.0.0", 8),
        ("0.0.0.1", 0),
        ("::ffff:10.1.2.3", FOR_EVER),
        ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", 0),
        ("2001:db8::", 300),
        ("2001:db8:1::5", 400),
        ("2001:db8:2::", 300),
        ("2001:db9::", 0),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 9),
        ("::", 0),
    ] {
        assert_eq!(networks.until_ms(ip(address)), until_ms, "{address}");
    }
    assert_eq!(Networks::default().until_ms(ip("10.0.0.1")), 0);
}

#[test]
fn families_are_apart_and_mapped_networks_are_what_they_map() {
    let all_v6 = Networks::of(&[net("::/0")]);
    assert!(all_v6.contains(ip("::1")) && !all_v6.contains(ip("192.0.2.1")));
    assert!(!all_v6.contains(ip("::ffff:192.0.2.1")), "which is an IPv4 address");
    let all_v4 = Networks::of(&[net("0.0.0.0/0")]);
    assert!(
        all_v4.contains(ip("255.255.255.255")) && all_v4.contains(ip("::ffff:1.2.3.4")) && !all_v4.contains(ip("::"))
    );
    for (given, expected) in [
        ("::ffff:192.0.2.77/120", "192.0.2.0/24"),
        ("::ffff:192.0.2.77/128", "192.0.2.77/32"),
        ("::ffff:0.0.0.0/96", "0.0.0.0/0"),
        ("::ffff:0.0.0.0/95", "::fffe:0:0/95"),
        ("192.0.2.77/24", "192.0.2.0/24"),
        ("2001:db8::7/64", "2001:db8::/64"),
    ] {
        assert_eq!(canonical(net(given)).to_string(), expected, "{given}");
    }
    assert!(Networks::of(&[net("::ffff:192.0.2.0/120")]).contains(ip("192.0.2.200")));
}

#[test]
fn what_says_the_same_is_one_stretch() {
    let halves = Networks::of(&[net("10.0.0.0/9"), net("10.128.0.0/9"), net("10.3.0.0/16")]);
    assert_eq!(halves, Networks::of(&[net("10.0.0.0/8")]));
}

/// Few bits at both ends, so that networks meet, nest and touch the borders.
fn some_v4() -> impl Strategy<Value = IpAddr> {
    (0_u32..4, 0_u32..8, 0_u32..4).prop_map(|(high, low, side)| {
        let bits = (high << 30) | if side == 0 { 0x3fff_fff8 | low } else { low << 5 | side };
        IpAddr::V4(bits.into())
    })
}

fn some_v6() -> impl Strategy<Value = IpAddr> {
    (0_u128..4, 0_u128..8, any::<bool>()).prop_map(|(high, low, top)| {
        let rest = if top { (1_u128 << 126) - 8 + low } else { low << 61 };
        IpAddr::V6(Ipv6Addr::from_bits((high << 126) | rest))
    })
}

fn some_network() -> impl Strategy<Value = (IpNet, u64)> {
    let v4 = (some_v4(), 0_u8..=32).prop_map(|(ip, prefix)| IpNet::new(ip, prefix).unwrap());
    let v6 = (some_v6(), 0_u8..=128).prop_map(|(ip, prefix)| IpNet::new(ip, prefix).unwrap());
    (prop_oneof![v4, v6], 1_u64..5)
}

proptest! {
    #[test]
    fn agrees_with_a_plain_list(
        list in proptest::collection::vec(some_network(), 0..40),
        asked in proptest::collection::vec(prop_oneof![some_v4(), some_v6(), any::<IpAddr>()], 1..60),
    ) {
        let networks = Networks::new(list.iter().copied());
        let borders = list.iter().flat_map(|(network, _)| [network.network(), network.broadcast()]);
        for ip in asked.into_iter().chain(borders.collect::<Vec<_>>()) {
            let ip = ip.to_canonical();
            let covering = list.iter().filter(|(network, _)| canonical(*network).contains(&ip));
            let expected = covering.map(|(_, until_ms)| *until_ms).max().unwrap_or(0);
            prop_assert_eq!(networks.until_ms(ip), expected, "{} in {:?}", ip, list);
        }
    }
}
