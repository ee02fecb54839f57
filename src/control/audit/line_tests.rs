#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::state::events::{EventKind, Outcome};
use crate::state::lifecycle::Door;

fn key() -> Key {
    Key::new([7; 32])
}

fn pseudonyms() -> Pseudonyms {
    Pseudonyms::new(&Key::new([8; 32]))
}

fn lines_of(events: &[Event]) -> Vec<u8> {
    let mut formatter = Formatter::new(&key(), ChainEnd::default(), pseudonyms());
    let mut out = Vec::new();
    events.iter().for_each(|event| formatter.append(&mut out, event));
    out
}

fn parsed(line: &[u8]) -> serde_json::Map<String, serde_json::Value> {
    let text = std::str::from_utf8(line).unwrap();
    serde_json::from_str(text.strip_prefix(PREFIX).unwrap().trim_end()).unwrap()
}

/// 2026-11-22T07:06:38.123Z
const AT: u64 = 1_795_331_198_123;

#[test]
fn a_line_has_the_contracts_fields_in_order() {
    let event = Event::new(EventKind::ToolCall, AT)
        .with_ip("::ffff:192.0.2.7".parse().unwrap())
        .with_client(Door::Ws, "1f00a".parse().unwrap())
        .with_agent("a1")
        .with_tool(b"send_sms")
        .with_rule("none")
        .with_request_id(b"\"7\"")
        .with_call(Outcome::Ok, 200, 1234)
        .with_details(format_args!("to {}", "one"));
    let line = String::from_utf8(lines_of(&[event])).unwrap();
    let ip = pseudonyms().ip("192.0.2.7".parse().unwrap());
    let start = "[SECURITY] {\"timestamp\":\"2026-11-22T07:06:38.123Z\",\"seq\":1,\"event\":\"tool_call\",\"severity\":\"INFO\",\
        \"ip\":\"IP\",\"clientId\":\"ws-1f00a\",\"agentId\":\"a1\",\"tool\":\"send_sms\",\"rule\":\"none\",\"requestId\":\"\\\"7\\\"\",\
        \"outcome\":\"ok\",\"status\":200,\"durationUs\":1234,\"details\":\"to one\",\"prev\":\"0000";
    assert!(line.starts_with(&start.replace("IP", &ip)), "{line}");
    assert!(line.ends_with("\"}\n"));
    let bare = parsed(&lines_of(&[Event::new(EventKind::Alert, 0)]));
    let names: Vec<_> = bare.keys().map(String::as_str).collect();
    assert_eq!(names, ["event", "mac", "prev", "seq", "severity", "timestamp"]);
    assert_eq!(bare["timestamp"], "1970-01-01T00:00:00.000Z");
    let last = parsed(&lines_of(&[Event::new(EventKind::Alert, u64::MAX)]));
    assert_eq!(last["timestamp"], format!("{:.3}", Timestamp::MAX));
}

#[test]
fn hostile_text_cannot_forge_a_line() {
    let hostile: [&[u8]; 9] = [
        b"a\n[SECURITY] {\"event\":\"auth_success\"}",
        b"a\r\nb",
        b"\",\"event\":\"auth_success",
        b"\\\",\"mac\":\"0\\",
        b"\x1b[2J\x1b]0;x\x07",
        b"\x00\x7f\xc2\x9b31m",
        b"\xff\xfe\"\n",
        "\u{2028}\u{2029}\u{202e}\u{2066}\u{feff}".as_bytes(),
        b"}\n{",
    ];
    for text in hostile {
        let lossy = String::from_utf8_lossy(text).into_owned();
        let event = Event::new(EventKind::InvalidInput, AT)
            .with_agent(&lossy)
            .with_tool(text)
            .with_request_id(text)
            .with_details(format_args!("{lossy}"));
        let line = lines_of(&[event]);
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        let body = std::str::from_utf8(&line[..line.len() - 1]).unwrap();
        assert!(!body.chars().any(must_escape), "{body:?}");
        let fields = parsed(&line);
        assert_eq!(fields["event"], "invalid_input");
        for name in ["agentId", "tool", "requestId", "details"] {
            assert_eq!(fields[name], lossy, "{name}");
        }
        assert_eq!(chain_end_of(&key(), &line[..line.len() - 1]).unwrap().seq, 1);
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_make_one_parsable_line(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let lossy = String::from_utf8_lossy(&bytes).into_owned();
        let event = Event::new(EventKind::Alert, AT).with_agent(&lossy).with_tool(&bytes)
            .with_request_id(&bytes).with_details(format_args!("{lossy}"));
        let line = lines_of(&[event]);
        proptest::prop_assert!(line.len() <= MAX_LINE);
        proptest::prop_assert_eq!(line.iter().filter(|b| **b < b' ').count(), 1);
        parsed(&line);
    }

    /// What is written by hand for speed reads as the libraries write it.
    #[test]
    fn times_and_numbers_are_as_the_libraries_write_them(
        times in proptest::collection::vec((0..=LAST_MS, 0_u64..3_000), 1..4),
        number in proptest::num::u64::ANY,
        bits in 0_u32..64,
    ) {
        let mut clock = Clock::default();
        for at_ms in times.into_iter().flat_map(|(at_ms, later)| [at_ms, (at_ms + later).min(LAST_MS), at_ms]) {
            let mut out = Vec::new();
            clock.write(&mut out, at_ms);
            let at = Timestamp::from_millisecond(i64::try_from(at_ms).unwrap()).unwrap();
            proptest::prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{at:.3}"));
        }
        for number in [number >> bits, 0, u64::MAX] {
            let (mut decimal, mut hex) = (Vec::new(), Vec::new());
            push_number(&mut decimal, number);
            push_hex(&mut hex, number);
            proptest::prop_assert_eq!(String::from_utf8(decimal).unwrap(), number.to_string());
            proptest::prop_assert_eq!(String::from_utf8(hex).unwrap(), format!("{number:x}"));
        }
    }

    #[test]
    fn any_flipped_bit_breaks_the_mac(at in 0_usize..10_000, bit in 0_u32..8) {
        let mut line = lines_of(&[Event::new(EventKind::Alert, AT).with_agent("agent")]);
        line.pop();
        let at = at % line.len();
        line[at] ^= 1 << bit;
        proptest::prop_assert_eq!(chain_end_of(&key(), &line), None);
    }
}

#[test]
fn each_line_names_the_one_before() {
    let out = lines_of(&[
        Event::new(EventKind::ServerStart, AT),
        Event::new(EventKind::Alert, AT),
        Event::new(EventKind::Alert, AT),
    ]);
    let lines: Vec<_> = out.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(parsed).collect();
    assert_eq!(lines[0]["prev"], "0".repeat(64));
    for pair in lines.windows(2) {
        assert_eq!(pair[1]["prev"], pair[0]["mac"]);
        assert_ne!(pair[1]["mac"], pair[0]["mac"]);
    }
}

/// Wherever a client can put them.
#[test]
fn personal_values_stand_nowhere_in_a_line() {
    let values = ["203.0.113.9", "2001:db8::9", "sam@example.com", "+15551234567"];
    for value in values {
        let event = Event::new(EventKind::InvalidInput, AT)
            .with_ip("203.0.113.9".parse().unwrap())
            .with_agent(value)
            .with_tool(value.as_bytes())
            .with_request_id(format!("\"{value}\"").as_bytes())
            .with_details(format_args!("to {value}, at once"));
        let line = lines_of(&[event]);
        let text = std::str::from_utf8(&line).unwrap();
        assert!(!values.iter().any(|value| text.contains(value)), "{text}");
        let pseudonym = pseudonyms().of(value).unwrap();
        let fields = parsed(&line);
        for (name, expected) in [
            ("agentId", pseudonym.to_string()),
            ("tool", pseudonym.to_string()),
            ("requestId", format!("\"{pseudonym}\"")),
            ("details", format!("to {pseudonym}, at once")),
        ] {
            assert_eq!(fields[name], expected);
        }
    }
}

/// The mac can be recomputed with any HMAC: here the library's other constructor, over the line's text.
#[test]
fn the_mac_is_plain_hmac_sha_256() {
    let out = lines_of(&[Event::new(EventKind::ServerStart, AT)]);
    let text = std::str::from_utf8(&out).unwrap();
    let (body, _) = text.strip_prefix(PREFIX).unwrap().split_once(",\"mac\"").unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&[7; 32]).unwrap();
    mac.update(body.as_bytes());
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(parsed(&out)["mac"], hex);
}
