#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

fn pseudonyms() -> Pseudonyms {
    Pseudonyms::new(&Key::new([5; 32]))
}

#[test]
fn a_value_has_one_pseudonym_however_it_is_written() {
    let p = pseudonyms();
    let ip = p.ip("203.0.113.9".parse().unwrap());
    assert_eq!((ip.len(), &ip[..3]), (19, "ip:"));
    assert!(ip[3..].bytes().all(|byte| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte)), "{ip}");
    for same in ["203.0.113.9", " 203.0.113.9 ", "::ffff:203.0.113.9", "::ffff:cb00:7109"] {
        assert_eq!(p.of(same), Some(ip), "{same}");
    }
    for same in ["+1 (555) 123-4567", "+15551234567", "+1-555.123.4567"] {
        assert_eq!(p.of(same), Some(p.phone("+15551234567")), "{same}");
    }
    assert_eq!(p.of("Sam@Example.com"), Some(p.email("sam@example.com")));
    for none in ["", "sam", "@", "sam@", "@x", "+123", "15551234567", "+1555123456789012", "1.2.3", "+1555123456 x"] {
        assert_eq!(p.of(none), None, "{none}");
    }
}

#[test]
fn another_value_another_kind_and_another_key_have_another_pseudonym() {
    let p = pseudonyms();
    let other = Pseudonyms::new(&Key::new([6; 32]));
    let ip: IpAddr = "203.0.113.9".parse().unwrap();
    assert_ne!(p.ip(ip), p.ip("203.0.113.8".parse().unwrap()));
    assert_ne!(p.ip(ip), other.ip(ip));
    assert_ne!(p.phone("1")[6..], p.email("1")[6..]);
}

/// The pseudonym can be computed with any HMAC and any base 32.
#[test]
fn a_pseudonym_is_plain_hmac_in_base_32() {
    use hmac::KeyInit;
    let mac = |key: &[u8], text: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().to_vec()
    };
    let mac = mac(&mac(&[5; 32], "ringwall audit pseudonym ip"), "2001:db8::9");
    let bits: String = mac[..10].iter().map(|byte| format!("{byte:08b}")).collect();
    let digit = |five: &[u8]| u32::from_str_radix(std::str::from_utf8(five).unwrap(), 2).unwrap();
    let text: String = bits
        .as_bytes()
        .chunks(5)
        .map(|five| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[digit(five) as usize]))
        .collect();
    assert_eq!(*pseudonyms().ip("2001:db8::9".parse().unwrap()), format!("ip:{text}"));
}

#[test]
fn values_in_free_text_are_replaced_and_nothing_else() {
    let p = pseudonyms();
    let v4 = p.of("127.0.0.1").unwrap();
    let v6 = p.of("2001:db8::1").unwrap();
    let mail = p.of("sam.o@example.com").unwrap();
    let phone = p.of("+15551234567").unwrap();
    for (text, expected) in [
        ("closed by an operator, from 127.0.0.1", format!("closed by an operator, from {v4}")),
        ("127.0.0.1:8080, 127.0.0.1.", format!("{v4}:8080, {v4}.")),
        ("[2001:db8::1]:443 2001:db8::1: gone", format!("[{v6}]:443 {v6}: gone")),
        ("mailto:sam.o@example.com,<Sam.O@example.com>.", format!("mailto:{mail},<{mail}>.")),
        ("tel:+1 (555) 123-4567, +15551234567!", format!("tel:{phone}, {phone}!")),
        ("ip=127.0.0.1;x", format!("ip={v4};x")),
        ("sam.o@example.c…", p.email("sam.o@example.c…").to_string()),
    ] {
        assert_eq!(p.replaced(text), expected, "{text}");
    }
    for text in [
        "Invalid request: duplicate key at byte 24: JSON readers disagree",
        "2026-11-22T08:12:26.510Z",
        "12:30:45 1.2.3 tools/call a+b +12 @ x@ @y 1+1",
        "comms.send_message",
        "\"3f2504e0-4f89-11d3-9a0c-0305e82c3301\"",
        "17322800001234567",
        "{}:..:: +",
    ] {
        assert!(matches!(p.replaced(text), Cow::Borrowed(_)), "{}", p.replaced(text));
    }
}

proptest::proptest! {
    /// What `line::MAX_LINE` counts on.
    #[test]
    fn a_text_grows_sevenfold_at_most(text in "[0-9a-f:.@+ ()…é-]{0,128}") {
        let p = pseudonyms();
        let once = p.replaced(&text);
        proptest::prop_assert!(once.len() <= 7 * text.len() + 7);
    }

    #[test]
    fn what_is_kept_is_what_would_be_computed(ips in proptest::collection::vec(proptest::num::u32::ANY, 1..50)) {
        let mut addresses = Addresses::new(pseudonyms());
        // Twice each, and close neighbours.
        for ip in ips.iter().flat_map(|ip| [*ip, *ip, ip ^ 1, ip & 0xff]).map(|bits| IpAddr::from(bits.to_be_bytes())) {
            proptest::prop_assert_eq!(addresses.pseudonym(ip), pseudonyms().ip(ip));
        }
    }
}
