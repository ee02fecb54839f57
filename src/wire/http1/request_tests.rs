#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
use super::*;

pub(super) fn parse(text: &[u8]) -> Result<Option<RequestHead>, Reject> {
    let mut head = RequestHead::default();
    Ok((parse_request(text, 0, &mut head)? == Progress::Complete).then_some(head))
}

fn complete(text: &str) -> RequestHead {
    match parse(text.as_bytes()) {
        Ok(Some(head)) => head,
        other => panic!("{text:?}: {other:?}"),
    }
}

/// A GET with `Host` and these further lines, each with its line end.
fn get_with(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

#[test]
fn a_request_as_clients_send_it() {
    let text = "POST /mcp?x=1 HTTP/1.1\r\nHost: localhost:3000\r\nauthorization: Bearer t\r\nAccept: application/json, text/event-stream\r\n\
        Content-Type: application/json\r\nOrigin: http://localhost\r\nmcp-session-id: s\r\nMCP-Protocol-Version: 2026-07-28\r\n\
        Mcp-Method: tools/call\r\nMcp-Name: echo\r\nLast-Event-ID: 7\r\nX-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2\r\n\
        Expect: 100-Continue\r\nContent-Length: 291\r\n\r\n{}";
    let head = complete(text);
    let buf = text.as_bytes();
    let is = |span: Option<Span>, expected: &str| assert_eq!(span.unwrap().of(buf), expected.as_bytes());
    assert_eq!((head.method, head.version, head.body), (Method::Post, Version::Http11, Body::Length(291)));
    assert_eq!((head.keep_alive, head.expect_continue, head.upgrade_websocket), (true, true, false));
    assert_eq!(&buf[head.len as usize..], b"{}");
    assert_eq!(
        (head.method_span.of(buf), head.target.of(buf), head.path(buf)),
        (&b"POST"[..], &b"/mcp?x=1"[..], &b"/mcp"[..])
    );
    is(head.query, "x=1");
    is(head.known.host, "localhost:3000");
    is(head.known.authorization, "Bearer t");
    is(head.known.accept, "application/json, text/event-stream");
    is(head.known.content_type, "application/json");
    is(head.known.origin, "http://localhost");
    is(head.known.mcp_session_id, "s");
    is(head.known.mcp_protocol_version, "2026-07-28");
    is(head.known.mcp_method, "tools/call");
    is(head.known.mcp_name, "echo");
    is(head.known.last_event_id, "7");
    is(head.known.x_forwarded_for, "2.2.2.2");
    assert!(head.known.x_forwarded_for_multiple && !head.known.accept_multiple);
    assert_eq!(head.values(buf, b"X-Forwarded-For").rev().collect::<Vec<_>>(), [b"2.2.2.2", b"1.1.1.1"]);
    assert_eq!(head.fields.len(), 14);
}

#[test]
fn a_reused_head_keeps_nothing() {
    let mut head =
        complete("POST /a?b HTTP/1.1\r\nHost: a\r\nOrigin: b\r\nConnection: close\r\nContent-Length: 1\r\n\r\n");
    let text = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(parse_request(text.as_bytes(), 0, &mut head), Ok(Progress::Complete));
    assert_eq!(format!("{head:?}"), format!("{:?}", complete(text)));
}

#[test]
fn accepted_shapes() {
    let table: [(&str, &str, Body, bool); 17] = [
        ("plain", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", Body::None, true),
        ("one empty line first", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Body::None, true),
        ("absolute-form", "GET http://a:1/x HTTP/1.1\r\nHost: A:1\r\n\r\n", Body::None, true),
        ("absolute-form without path", "GET https://a HTTP/1.1\r\nHost: a\r\n\r\n", Body::None, true),
        ("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Body::None, true),
        ("unknown method", "get / HTTP/1.1\r\nHost: a\r\n\r\n", Body::None, true),
        ("1.0 without Host", "GET / HTTP/1.0\r\n\r\n", Body::None, false),
        ("1.0 kept alive", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Body::None, true),
        ("1.0 of two minds", "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", Body::None, false),
        ("close", "GET / HTTP/1.1\r\nHost: a\r\nConnection: foo,close\r\n\r\n", Body::None, false),
        (
            "close in the second line",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: CLOSE\r\n\r\n",
            Body::None,
            false,
        ),
        ("no blank before the value", "GET / HTTP/1.1\r\nHost:a\r\n\r\n", Body::None, true),
        (
            "blanks around the length",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\t 5 \t\r\n\r\n",
            Body::Length(5),
            true,
        ),
        ("length 0", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", Body::Length(0), true),
        ("chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Body::Chunked, true),
        (
            "chunked in capitals",
            "POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n",
            Body::Chunked,
            true,
        ),
        (
            "odd but legal",
            "GET /a|\\{\"%zz HTTP/1.1\r\nHost: a\r\nX!#$%&'*+-.^_`|~: \u{e9}\t;\r\n\r\n",
            Body::None,
            true,
        ),
    ];
    for (name, text, body, keep_alive) in table {
        let head = complete(text);
        assert_eq!((head.body, head.keep_alive, head.len as usize), (body, keep_alive, text.len()), "{name}");
    }
    assert_eq!(complete("GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n").path(b""), b"/");
}

#[test]
fn refused_lines() {
    let table: [(&str, &str, u16); 38] = [
        ("bare LF behind the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        ("bare LF behind a field", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
        ("bare LF behind the last field", "GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
        ("bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
        ("bare LF, unfinished", "GET / HTTP/1.1\r\nHost: a\nX", 400),
        ("bare CR behind the request line", "GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
        ("bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        ("bare CR before the end", "GET / HTTP/1.1\r\nHost: a\r\n\rx", 400),
        ("two empty lines first", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("bare LF first", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("bare CR first", "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("blank first", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("two blanks", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("two blanks before the version", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("blank behind the version", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        ("tabs", "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("method is no token", "G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("HTTP/0.9", "GET /\r\n", 400),
        ("no version", "GET / \r\nHost: a\r\n\r\n", 400),
        ("no minor version", "GET / HTTP/1\r\nHost: a\r\n\r\n", 400),
        ("leading zeros in the version", "GET / HTTP/01.01\r\nHost: a\r\n\r\n", 400),
        ("blank in the version", "GET / HTTP/ 1.1\r\nHost: a\r\n\r\n", 400),
        ("small version", "GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        ("HTTP/2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 400),
        ("asterisk with GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("other authority", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("user information", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("absolute-form in 1.0 without Host", "GET http://a/ HTTP/1.0\r\n\r\n", 400),
        ("fragment", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("non-ASCII target", "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("NUL in the target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("no Host", "GET / HTTP/1.1\r\n\r\n", 400),
        ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400),
        ("two Hosts in 1.0", "GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", 400),
        ("empty Host", "GET / HTTP/1.1\r\nHost: \r\n\r\n", 400),
        ("list of Hosts", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    ];
    for (name, text, status) in table {
        assert_eq!(parse(text.as_bytes()).unwrap_err().status, status, "{name}");
    }
}

#[test]
fn refused_fields() {
    let table: [(&str, &str, u16); 46] = [
        ("fold", "X: a\r\n b\r\n", 400),
        ("blank before the name", " X: a\r\n", 400),
        ("blank before the colon", "X : a\r\n", 400),
        ("tab before the colon", "X\t: a\r\n", 400),
        ("no colon", "X\r\n", 400),
        ("no name", ": a\r\n", 400),
        ("name is no token", "X(: a\r\n", 400),
        ("non-ASCII name", "X\u{e9}: a\r\n", 400),
        ("NUL in the value", "X: \0\r\n", 400),
        ("control byte in the value", "X: \u{7}\r\n", 400),
        ("DEL in the value", "X: \x7f\r\n", 400),
        ("signed length", "Content-Length: +5\r\n", 400),
        ("negative length", "Content-Length: -0\r\n", 400),
        ("length with a zero in front", "Content-Length: 05\r\n", 400),
        ("empty length", "Content-Length: \r\n", 400),
        ("length in hex", "Content-Length: 0x5\r\n", 400),
        ("length with a blank", "Content-Length: 1 0\r\n", 400),
        ("list of lengths", "Content-Length: 5, 5\r\n", 400),
        ("length overflow", "Content-Length: 18446744073709551616\r\n", 400),
        ("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        ("the same length twice", "Content-Length: 5\r\nContent-Length: 5\r\n", 400),
        ("length and chunked", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
        ("chunked and length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400),
        ("imitated length", "Content_Length: 5\r\n", 400),
        ("imitated coding", "Transfer_Encoding: chunked\r\n", 400),
        ("coding twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("chunked twice", "Transfer-Encoding: chunked, chunked\r\n", 400),
        ("chunked is not last", "Transfer-Encoding: chunked, gzip\r\n", 400),
        ("unknown coding", "Transfer-Encoding: xchunked\r\n", 400),
        ("identity", "Transfer-Encoding: identity\r\n", 400),
        ("coding with parameter", "Transfer-Encoding: chunked;a=b\r\n", 400),
        ("comma before the coding", "Transfer-Encoding: , chunked\r\n", 400),
        ("comma behind the coding", "Transfer-Encoding: chunked,\r\n", 400),
        ("form feed before the coding", "Transfer-Encoding: \x0cchunked\r\n", 400),
        ("quoted coding", "Transfer-Encoding: \"chunked\"\r\n", 400),
        ("non-ASCII coding", "Transfer-Encoding: chunked\u{e9}\r\n", 400),
        ("empty coding", "Transfer-Encoding:\r\n", 400),
        ("gzip", "Transfer-Encoding: gzip\r\n", 400),
        ("gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n", 501),
        ("unknown expectation", "Expect: 200-ok\r\n", 417),
        ("two Authorizations", "Authorization: a\r\nAuthorization: a\r\n", 400),
        ("two Content-Types", "Content-Type: a\r\nContent-Type: a\r\n", 400),
        ("two Origins", "Origin: a\r\nOrigin: b\r\n", 400),
        ("two sessions", "Mcp-Session-Id: a\r\nMcp-Session-Id: b\r\n", 400),
        ("two methods", "Mcp-Method: a\r\nMcp-Method: b\r\n", 400),
        ("two versions", "MCP-Protocol-Version: a\r\nMcp-Protocol-Version: b\r\n", 400),
    ];
    for (name, lines, status) in table {
        assert_eq!(parse(get_with(lines).as_bytes()).unwrap_err().status, status, "{name}");
    }
    let text = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(parse(text.as_bytes()).unwrap_err().status, 400, "coding in 1.0");
}

#[test]
fn bounds() {
    assert_eq!(complete(&get_with(&"X: y\r\n".repeat(MAX_FIELDS - 1))).fields.len(), MAX_FIELDS);
    assert_eq!(
        parse(get_with(&"X: y\r\n".repeat(MAX_FIELDS)).as_bytes()).unwrap_err().reason,
        "too many header fields"
    );
    let sized = |bytes: usize| get_with(&format!("X: {}\r\n", "y".repeat(bytes - get_with("X: \r\n").len())));
    assert_eq!(complete(&sized(MAX_HEAD_BYTES)).len as usize, MAX_HEAD_BYTES);
    assert_eq!(parse(sized(MAX_HEAD_BYTES + 1).as_bytes()).unwrap_err().reason, "header section too large");
    let unfinished = sized(MAX_HEAD_BYTES + 100);
    let mut head = RequestHead::default();
    assert_eq!(parse_request(&unfinished.as_bytes()[..MAX_HEAD_BYTES - 1], 1, &mut head), Ok(Progress::Partial));
    assert_eq!(parse_request(&unfinished.as_bytes()[..MAX_HEAD_BYTES], 1, &mut head).unwrap_err().status, 400);
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(target::MAX_TARGET_BYTES));
    assert_eq!(parse(long.as_bytes()).unwrap_err().status, 414);
    assert_eq!(parse(format!("GET /{}", "x".repeat(MAX_HEAD_BYTES)).as_bytes()).unwrap_err().status, 414);
}

#[test]
fn upgrades() {
    let table = [
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", true),
        ("Connection: keep-alive, upgrade\r\nUpgrade: foo, WebSocket\r\n", true),
        ("Upgrade: websocket\r\n", false),
        ("Connection: Upgrade\r\nUpgrade: h2c\r\n", false),
        ("Connection: Upgrade\r\n", false),
    ];
    for (lines, expected) in table {
        assert_eq!(complete(&get_with(lines)).upgrade_websocket, expected, "{lines}");
    }
}
