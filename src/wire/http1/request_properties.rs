//! What holds of every request head, near the grammar or far from it.
#![allow(clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;

use super::tests::parse;
use super::*;

/// Heads near the grammar, with what breaks it mixed in.
fn near_requests() -> impl Strategy<Value = Vec<u8>> {
    let line_end = || prop_oneof![12 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("\r\n ")];
    let start = prop_oneof![
        6 => Just("POST /mcp?a=b HTTP/1.1"), 1 => Just("\r\nGET / HTTP/1.0"), 1 => Just("GET http://a/b HTTP/1.1"),
        1 => Just("GET  / HTTP/1.1"), 1 => Just("GET / HTTP/1.2"), 1 => Just("\r\n\r\nGET / HTTP/1.1"),
    ];
    let field = prop_oneof![
        4 => Just("Host: a"), 2 => Just("Content-Length: 3"), 2 => Just("Transfer-Encoding: chunked"), 1 => Just("X : y"),
        1 => Just("Accept: */*"), 1 => Just("Connection: close"), 1 => Just("X: \0"), 1 => Just("Mcp-Name: \u{e9}"),
    ];
    let lines = prop::collection::vec((field, line_end()), 0..5);
    (start, line_end(), lines, prop_oneof![6 => Just("\r\n"), 1 => Just("\n"), 1 => Just("")], "[a-z\r\n]{0,6}")
        .prop_map(|(start, end, lines, last, rest)| {
            let mut text = format!("{start}{end}");
            lines.iter().for_each(|(field, end)| text.extend([*field, *end]));
            text.extend([last, &rest]);
            text.into_bytes()
        })
}

proptest! {
    /// A head that arrives in pieces gives what it gives whole; only a refusal may come later, never a request instead.
    #[test]
    fn split_invariance(text in near_requests(), cuts in prop::collection::vec(1usize..160, 0..8)) {
        let mut ends: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([text.len()]).collect();
        ends.sort_unstable();
        let mut head = RequestHead::default();
        let (mut from, mut result) = (0, Ok(Progress::Partial));
        for end in ends {
            result = parse_request(&text[..end], from, &mut head);
            from = end;
            if result != Ok(Progress::Partial) { break; }
        }
        let mut whole = RequestHead::default();
        match parse_request(&text, 0, &mut whole) {
            Ok(Progress::Complete) => {
                prop_assert_eq!(result, Ok(Progress::Complete));
                prop_assert_eq!(format!("{head:?}"), format!("{whole:?}"));
            }
            Ok(Progress::Partial) => prop_assert_eq!(result, Ok(Progress::Partial)),
            Err(_) => prop_assert_ne!(result, Ok(Progress::Complete)),
        }
    }

    /// One head is one head: what is accepted has one blank line, at its very end, and one framing.
    #[test]
    fn one_head_from_one(text in near_requests()) {
        if let Ok(Some(head)) = parse(&text) {
            let raw = &text[..head.len as usize];
            let body = raw.strip_prefix(b"\r\n").unwrap_or(raw);
            prop_assert_eq!(body.windows(4).position(|window| window == b"\r\n\r\n"), Some(body.len() - 4));
            prop_assert!(!body.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r'));
            prop_assert!(!body.windows(2).any(|pair| pair[0] == b'\r' && pair[1] != b'\n'));
            let framings = head.values(&text, b"content-length").count() + head.values(&text, b"transfer-encoding").count();
            prop_assert_eq!(framings, usize::from(head.body != Body::None));
            prop_assert!(head.values(&text, b"host").count() <= 1);
        }
    }

    #[test]
    fn any_bytes_at_all(text in prop::collection::vec(any::<u8>(), 0..300), from in 0usize..400) {
        let _ = parse_request(&text, from, &mut RequestHead::default());
    }
}
