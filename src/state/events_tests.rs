#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

fn event() -> Event {
    Event::new(EventKind::ToolCall, 1)
}

#[test]
fn texts_are_cut_at_characters_and_marked() {
    let long = "é".repeat(40);
    let cases: [(&[u8], &str); 7] = [
        (b"", ""),
        (b"1234567890", "1234567890"),
        (b"12345678901", "1234567…"),
        ("ééééé".as_bytes(), "ééééé"),
        (long.as_bytes(), "ééé…"),
        (b"a\xffb", "a\u{fffd}b"),
        (b"\xff\xff\xff\xff\xff", "\u{fffd}\u{fffd}…"),
    ];
    for (input, want) in cases {
        assert_eq!(clip_bytes::<10>(input).as_str(), want, "{input:?}");
        if let Ok(text) = std::str::from_utf8(input) {
            assert_eq!(clip::<10>(text).as_str(), want, "{text}");
        }
    }
    let details = |text: &str| event().with_details(format_args!("{text}")).details;
    assert_eq!(details("short").as_str(), "short");
    assert_eq!(details(&"x".repeat(128)).as_str(), "x".repeat(128));
    assert_eq!(details(&"x".repeat(129)).as_str(), format!("{}…", "x".repeat(125)));
}

proptest::proptest! {
    #[test]
    fn a_clipped_text_is_the_text_or_a_marked_beginning_of_it(text in "\\PC{0,80}") {
        let cut = clip::<32>(&text);
        match cut.strip_suffix(CUT_MARK).filter(|_| text.len() > 32) {
            Some(start) => proptest::prop_assert!(text.starts_with(start) && cut.len() > 32 - 4),
            None => proptest::prop_assert_eq!(cut.as_str(), text.as_str()),
        }
        proptest::prop_assert_eq!(clip_bytes::<32>(text.as_bytes()), cut);
    }

    #[test]
    fn any_bytes_give_a_bounded_text(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..100)) {
        let cut = clip_bytes::<16>(&bytes);
        proptest::prop_assert!(cut.len() <= 16);
    }
}

#[test]
fn wire_names_are_the_contracts() {
    let names: Vec<_> = EventKind::ALL.iter().map(|kind| kind.wire_name()).collect();
    let contract = "connection_established connection_closed connection_timeout connection_limit blocked_connection \
        invalid_auth auth_success lockout rate_limit_exceeded invalid_input content_blocked compliance_blocked \
        spend_recorded token_issued token_revoked refresh_reuse credential_read webhook_rejected breaker_opened \
        breaker_closed config_reloaded alert erasure server_start server_shutdown checkpoint tool_call";
    assert_eq!(names, contract.split_whitespace().collect::<Vec<_>>());
    for (index, outcome) in Outcome::ALL.iter().enumerate() {
        assert_eq!(outcome.index(), index);
    }
}

#[test]
fn an_event_stays_small() {
    assert!(std::mem::size_of::<Event>() <= 512, "{}", std::mem::size_of::<Event>());
}
