#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use proptest::prelude::*;

use super::*;

fn parse(text: &[u8]) -> Result<Option<ResponseHead>, BadUpstream> {
    let mut head = ResponseHead::default();
    Ok((parse_response(text, 0, false, &mut head)? == Progress::Complete).then_some(head))
}

#[test]
fn framings() {
    use Framing::{Chunked, Length, UntilClose};
    let table: [(&str, &str, bool, Framing, bool); 16] = [
        ("length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, Length(5), true),
        ("chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", false, Chunked, true),
        ("until close", "HTTP/1.1 200 OK\r\n\r\n", false, UntilClose, false),
        ("no reason", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", false, Length(0), true),
        ("close", "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 5\r\n\r\n", false, Length(5), false),
        ("1.0", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", false, Length(5), false),
        ("1.0 kept", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n", false, Length(5), true),
        ("to HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, Length(0), true),
        ("to HEAD, without length", "HTTP/1.1 200 OK\r\n\r\n", true, Length(0), true),
        ("204", "HTTP/1.1 204 No Content\r\n\r\n", false, Length(0), true),
        ("204 of length 0", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", false, Length(0), true),
        ("204 that announces a body", "HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\n", false, Length(0), false),
        ("204 chunked", "HTTP/1.1 204 N\r\nTransfer-Encoding: chunked\r\n\r\n", false, Length(0), false),
        ("304 with length", "HTTP/1.1 304 N\r\nContent-Length: 5\r\n\r\n", false, Length(0), true),
        (
            "behind 100",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 A\r\nContent-Length: 0\r\n\r\n",
            false,
            Length(0),
            true,
        ),
        (
            "behind 103, 100",
            "HTTP/1.1 103 E\r\nLink: a\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 500 E\r\n\r\n",
            false,
            UntilClose,
            false,
        ),
    ];
    for (name, text, to_head, framing, keep_alive) in table {
        let mut head = ResponseHead::default();
        assert_eq!(parse_response(text.as_bytes(), 0, to_head, &mut head), Ok(Progress::Complete), "{name}");
        assert_eq!((head.framing, head.keep_alive, head.len as usize), (framing, keep_alive, text.len()), "{name}");
    }
}

#[test]
fn refusals() {
    let table: [(&str, &str); 34] = [
        ("length and chunked", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"),
        ("the same length twice", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n"),
        ("list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n"),
        ("signed length", "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n"),
        ("length overflow", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n"),
        ("length with underscore", "HTTP/1.1 200 OK\r\nContent_Length: 5\r\n\r\n"),
        ("two codings", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
        ("chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n"),
        ("coding in 1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("bare LF behind the status line", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"),
        ("bare LF, no fields", "HTTP/1.1 200 OK\n\r\n"),
        ("bare LF behind a field", "HTTP/1.1 200 OK\r\nA: b\nContent-Length: 0\r\n\r\n"),
        ("bare LF at the end", "HTTP/1.1 200 OK\r\nA: b\r\n\n"),
        ("bare LF, unfinished", "HTTP/1.1 200 OK\r\nA: b\nB: c"),
        ("bare CR in a value", "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n"),
        ("bare CR behind the status line", "HTTP/1.1 200 OK\rContent-Length: 0\r\n\r\n"),
        ("NUL in a value", "HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n"),
        ("fold", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"),
        ("space before colon", "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n"),
        ("space before the first field", "HTTP/1.1 200 OK\r\n A: b\r\n\r\n"),
        ("line without colon", "HTTP/1.1 200 OK\r\nab\r\n\r\n"),
        ("empty line first", "\r\nHTTP/1.1 200 OK\r\n\r\n"),
        ("version 2.0", "HTTP/2.0 200 OK\r\n\r\n"),
        ("no version", "200 OK\r\n\r\n"),
        ("two spaces", "HTTP/1.1  200 OK\r\n\r\n"),
        ("two digits", "HTTP/1.1 20 OK\r\n\r\n"),
        ("four digits", "HTTP/1.1 2000 OK\r\n\r\n"),
        ("status 099", "HTTP/1.1 099 OK\r\n\r\n"),
        ("status 600", "HTTP/1.1 600 OK\r\n\r\n"),
        ("protocol switch", "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
        ("interim answer with a body", "HTTP/1.1 100 C\r\nContent-Length: 5\r\n\r\n"),
        ("two sessions", "HTTP/1.1 200 OK\r\nMcp-Session-Id: a\r\nMcp-Session-Id: b\r\n\r\n"),
    ];
    for (name, text) in table {
        assert!(parse(text.as_bytes()).is_err(), "{name}");
    }
}

#[test]
fn bounds() {
    let fields = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert!(parse(fields(MAX_FIELDS).as_bytes()).unwrap().is_some());
    assert_eq!(parse(fields(MAX_FIELDS + 1).as_bytes()).unwrap_err(), BadUpstream::HeadTooLarge);
    let sized = |bytes: usize| {
        let frame = "HTTP/1.1 200 OK\r\nA: \r\n\r\n".len();
        format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(bytes - frame))
    };
    assert!(parse(sized(MAX_HEAD_BYTES).as_bytes()).unwrap().is_some());
    assert_eq!(parse(sized(MAX_HEAD_BYTES + 1).as_bytes()).unwrap_err(), BadUpstream::HeadTooLarge);
    let endless = "HTTP/1.1 100 C\r\n\r\n".repeat(1000);
    assert_eq!(parse(endless.as_bytes()).unwrap_err(), BadUpstream::HeadTooLarge);
}

#[test]
fn known_fields() {
    let text = b"HTTP/1.1 103 E\r\nContent-Type: text/plain\r\nMcp-Session-Id: old\r\n\r\nHTTP/1.1 200 OK\r\n\
        content-type: text/event-stream; charset=utf-8\r\nmcp-session-id: s\r\nContent-Encoding: gzip\r\n\r\n";
    let head = parse(text).unwrap().unwrap();
    assert_eq!((head.content, head.encoded, head.fields.len()), (Content::EventStream, true, 3));
    assert_eq!(head.mcp_session_id.unwrap().of(text), b"s");
    assert_eq!(head.content_type.unwrap().of(text), b"text/event-stream; charset=utf-8");
    for (value, content) in [
        ("application/json", Content::Json),
        ("Application/JSON ;charset=utf-8", Content::Json),
        ("application/jsonp", Content::Other),
        ("", Content::Other),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Type: {value}\r\n\r\n");
        assert_eq!(parse(text.as_bytes()).unwrap().unwrap().content, content, "{value}");
    }
}

proptest! {
    /// A head that arrives in pieces gives what it gives whole.
    #[test]
    fn split_invariance(text in "(HTTP/1.1 10[03] C\r\n\r\n)?HTTP/1.[01] [1-6]0[04] ?[a-z]{0,3}\r\n((Content-Length|Connection|A): ?[0-9a-z]{0,5}\r?\n){0,3}\r\n[a-z]{0,4}", cuts in prop::collection::vec(1usize..120, 0..6)) {
        let text = text.as_bytes();
        let mut ends: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([text.len()]).collect();
        ends.sort_unstable();
        let mut head = ResponseHead::default();
        let (mut from, mut result) = (0, Ok(Progress::Partial));
        for end in ends {
            result = parse_response(&text[..end], from, false, &mut head);
            from = end;
            if result != Ok(Progress::Partial) { break; }
        }
        let mut whole = ResponseHead::default();
        // A refused head is refused either way; which of its faults is named depends on how much of it was there.
        prop_assert_eq!(result.map_err(drop), parse_response(text, 0, false, &mut whole).map_err(drop));
        if result == Ok(Progress::Complete) {
            prop_assert_eq!(format!("{head:?}"), format!("{whole:?}"));
        }
    }
}
