//! Tables of headers, each also cut at every byte, and arbitrary bytes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::cast_possible_truncation)]

use proptest::prelude::*;

use super::*;

/// A binary header: version and command, family, and what follows the length.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [V2_SIGNATURE, &[command, family], &length, rest].concat()
}

const V4: &[u8] = &[203, 0, 113, 9, 10, 0, 0, 1, 0xd4, 0x31, 0x01, 0xbb];

fn v6(source: &str) -> Vec<u8> {
    let source: Ipv6Addr = source.parse().unwrap();
    [&source.octets()[..], &Ipv6Addr::LOCALHOST.octets(), &[0xd4, 0x31, 0x01, 0xbb]].concat()
}

/// Good headers and the source that they give.
fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let line = |text: &str| format!("{text}\r\n").into_bytes();
    let longest =
        "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535";
    vec![
        (line("PROXY TCP4 203.0.113.9 10.0.0.1 54321 443"), Some("203.0.113.9:54321")),
        (line("PROXY TCP4 255.255.255.255 255.255.255.255 65535 0"), Some("255.255.255.255:65535")),
        (line("PROXY TCP6 2001:db8::1 ::1 1 2"), Some("[2001:db8::1]:1")),
        (line("PROXY TCP6 ::ffff:203.0.113.9 ::1 1 2"), Some("203.0.113.9:1")),
        (line(longest), Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")),
        (line("PROXY UNKNOWN"), None),
        (line("PROXY UNKNOWN ffff::1 what ever\x01"), None),
        (v2(0x21, 0x11, V4), Some("203.0.113.9:54321")),
        (v2(0x21, 0x11, &[V4, &[0x04, 0, 2, 9, 9, 0x20, 0, 0]].concat()), Some("203.0.113.9:54321")),
        (v2(0x21, 0x21, &v6("2001:db8::1")), Some("[2001:db8::1]:54321")),
        (v2(0x21, 0x21, &v6("::ffff:203.0.113.9")), Some("203.0.113.9:54321")),
        (v2(0x21, 0x21, &[&v6("2001:db8::1")[..], &[1, 1, 0xd9], &[7; 0x1d9]].concat()), Some("[2001:db8::1]:54321")),
        (v2(0x21, 0x31, &[0; 216]), None),
        (v2(0x21, 0x00, b""), None),
        (v2(0x21, 0x00, b"what ever"), None),
        (v2(0x20, 0x00, b""), None),
        (v2(0x20, 0x11, V4), None),
        (v2(0x20, 0xff, b"what ever"), None),
    ]
}

#[test]
fn good_headers_are_whole_at_their_last_byte_and_not_before() {
    for (header, source) in good() {
        let name = header.escape_ascii().to_string();
        let source = source.map(|text| text.parse().unwrap());
        let whole = Step::Header { consumed: header.len(), source };
        assert_eq!(parse(&header), Ok(whole), "{name}");
        assert_eq!(parse(&[&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat()), Ok(whole), "{name}");
        for end in 0..header.len() {
            assert_eq!(parse(&header[..end]), Ok(Step::NeedMore), "{name}, {end}");
        }
    }
    assert_eq!(good()[4].0.len(), 104, "the longest line with addresses; the specification gives 107");
}

#[test]
fn broken_headers_are_refused() {
    let long = format!("PROXY UNKNOWN {}", "x".repeat(200));
    let at_the_bound = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1_BYTES - 15));
    let too_long = [V4, &[0xee, 0x02, 0x00], &[0; 512]].concat();
    let table: &[(&[u8], Broken)] = &[
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 54321 443\n", Broken::Line),
        (b"PROXY \r\n", Broken::Line),
        (b"PROXY TCP4\r\n", Broken::Line),
        (b"PROXY TCP5 203.0.113.9 10.0.0.1 54321 443\r\n", Broken::Line),
        (b"PROXY tcp4 203.0.113.9 10.0.0.1 54321 443\r\n", Broken::Line),
        (b"PROXY UNKNOWNS\r\n", Broken::Line),
        (b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n", Broken::Line),
        (b"PROXY TCP6 203.0.113.9 10.0.0.1 1 2\r\n", Broken::Line),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", Broken::Line),
        (b"PROXY TCP4 203.0.113.009 10.0.0.1 1 2\r\n", Broken::Line),
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 1\r\n", Broken::Line),
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 1 2 3\r\n", Broken::Line),
        (b"PROXY TCP4  203.0.113.9 10.0.0.1 1 2\r\n", Broken::Line),
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 1 2 \r\n", Broken::Line),
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 01 2\r\n", Broken::Line),
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 +1 2\r\n", Broken::Line),
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 1 65536\r\n", Broken::Line),
        (b"PROXY TCP4 203.0.113.9\r 10.0.0.1 1 2\r\n", Broken::Line),
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 1 \r\n", Broken::Line),
        (b"PROXY TCP4 \xff 10.0.0.1 1 2\r\n", Broken::Line),
        (long.as_bytes(), Broken::LineTooLong),
        (at_the_bound.as_bytes(), Broken::LineTooLong),
        (&v2(0x11, 0x11, V4), Broken::Command),
        (&v2(0x22, 0x11, V4), Broken::Command),
        (&v2(0x31, 0x11, V4), Broken::Command),
        (&v2(0x21, 0x12, V4), Broken::Family),
        (&v2(0x21, 0x10, V4), Broken::Family),
        (&v2(0x21, 0x41, V4), Broken::Family),
        (&v2(0x21, 0x11, &V4[..11]), Broken::Length),
        (&v2(0x21, 0x21, V4), Broken::Length),
        (&v2(0x21, 0x31, &[0; 215]), Broken::Length),
        (&v2(0x21, 0x11, &[V4, &[4]].concat()), Broken::Length),
        (&v2(0x21, 0x11, &[V4, &[4, 0, 2, 9]].concat()), Broken::Length),
        (&v2(0x21, 0x11, &too_long), Broken::TooLong),
        (&v2(0x20, 0x00, &[0; 521]), Broken::TooLong),
    ];
    for (header, broken) in table {
        assert_eq!(parse(header), Err(*broken), "{}", header.escape_ascii());
    }
    assert!(parse(&v2(0x20, 0x00, &[0; 520])).is_ok());
    assert!(matches!(parse(at_the_bound.replacen('x', "", 1).as_bytes()), Ok(Step::Header { consumed: 107, .. })));
}

#[test]
fn what_is_no_header_is_left_alone() {
    for start in [
        "GET / HTTP/1.1\r\n",
        "POST /mcp",
        "PROPFIND",
        "PROXY\tTCP4",
        "proxy TCP4",
        "{",
        "\r\nGET",
        "\r\n\r\nGET",
        "\n",
    ] {
        assert_eq!(parse(start.as_bytes()), Ok(Step::Absent), "{start:?}");
    }
    // Too little to tell.
    for start in ["", "P", "PRO", "\r", "\r\n\r\n"] {
        assert_eq!(parse(start.as_bytes()), Ok(Step::NeedMore), "{start:?}");
    }
}

fn any_start() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..600),
        ("[A-Z0-9a-f:. \r\n]{0,120}").prop_map(|text| [V1_START, text.as_bytes()].concat()),
        (0x1fu8..0x23, any::<u8>(), prop::collection::vec(any::<u8>(), 0..600))
            .prop_map(|(c, f, rest)| v2(c, f, &rest)),
        (prop::collection::vec(any::<u8>(), 0..600)).prop_map(|rest| [V2_SIGNATURE, &rest[..]].concat()),
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_judged_once_and_for_all(bytes in any_start()) {
        // However it is cut: undecided up to some byte, and from there on the same answer.
        let mut decided = None;
        for end in 0..=bytes.len() {
            let step = parse(&bytes[..end]);
            match decided {
                None if step == Ok(Step::NeedMore) => prop_assert!(end < MAX_V2_BYTES),
                None => decided = Some(step),
                // A line that is known to be too long can still not get shorter, nor a broken one better.
                Some(before) => prop_assert_eq!(step, before),
            }
            if let Ok(Step::Header { consumed, .. }) = step {
                prop_assert!(consumed <= end && consumed <= MAX_V2_BYTES);
            }
        }
    }

    #[test]
    fn addresses_read_back(ip in any::<IpAddr>(), port in any::<u16>()) {
        let family = if ip.is_ipv4() { "TCP4" } else { "TCP6" };
        let line = format!("PROXY {family} {ip} {ip} {port} 1\r\n");
        let want = Some(SocketAddr::new(ip.to_canonical(), port));
        prop_assert_eq!(parse(line.as_bytes()), Ok(Step::Header { consumed: line.len(), source: want }));
        let port = port.to_be_bytes();
        let binary = match ip {
            IpAddr::V4(v4) => v2(0x21, 0x11, &[&v4.octets()[..], &[0; 4], &port, &[0; 2]].concat()),
            IpAddr::V6(v6) => v2(0x21, 0x21, &[&v6.octets()[..], &[0; 16], &port, &[0; 2]].concat()),
        };
        prop_assert_eq!(parse(&binary), Ok(Step::Header { consumed: binary.len(), source: want }));
    }
}
