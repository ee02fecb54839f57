#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use super::super::super::super::http1::Progress;
use super::super::super::super::http1::request::parse_request;
use super::*;

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const UPGRADE: &str = "Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
const VERSION_13: &str = "Sec-WebSocket-Version: 13\r\n";

fn read(text: &str) -> Result<Upgrade, Reject> {
    let mut head = RequestHead::default();
    assert_eq!(parse_request(text.as_bytes(), 0, &mut head), Ok(Progress::Complete), "{text}");
    read_upgrade(&head, text.as_bytes())
}

fn get(lines: &[&str]) -> String {
    format!("GET /ws HTTP/1.1\r\n{}\r\n", lines.concat())
}

/// RFC 6455 §1.2, with its own subprotocols.
#[test]
fn example_of_the_standard() {
    let request = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n\
        Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let upgrade = read(request).unwrap();
    assert_eq!((upgrade.mcp, upgrade.bearer), (false, None));
    let mut out = Vec::new();
    write_switch(&mut out, &upgrade);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
}

/// A name, the field lines, whether `mcp` is offered, and the token.
type Case = (&'static str, &'static str, (bool, Option<String>));

#[test]
fn subprotocols() {
    let offer = |lines: &str| {
        let text = get(&[UPGRADE, KEY, VERSION_13, lines]);
        read(&text).map(|upgrade| {
            let mut out = Vec::new();
            write_switch(&mut out, &upgrade);
            let answer = String::from_utf8(out).unwrap();
            assert_eq!(answer.contains("\r\nSec-WebSocket-Protocol: mcp\r\n"), upgrade.mcp);
            assert_eq!(answer.to_lowercase().matches("protocol:").count(), usize::from(upgrade.mcp));
            let token = upgrade.bearer.map(|span| String::from_utf8(span.of(text.as_bytes()).to_vec()).unwrap());
            if let Some(token) = &token {
                assert!(!answer.contains(token.as_str()));
            }
            (upgrade.mcp, token)
        })
    };
    let token = |token: &str| Some(token.to_owned());
    let table: [Case; 10] = [
        ("none", "", (false, None)),
        ("mcp", "Sec-WebSocket-Protocol: mcp\r\n", (true, None)),
        ("both", "Sec-WebSocket-Protocol: mcp, bearer.abc\r\n", (true, token("abc"))),
        ("other order, no blank", "Sec-WebSocket-Protocol: bearer.abc,mcp\r\n", (true, token("abc"))),
        (
            "two lines",
            "sec-websocket-protocol: mcp\r\nSEC-WEBSOCKET-PROTOCOL:\tbearer.a.b-c_d\r\n",
            (true, token("a.b-c_d")),
        ),
        ("token alone", "Sec-WebSocket-Protocol: bearer.abc\r\n", (false, token("abc"))),
        ("a token with our prefix", "Sec-WebSocket-Protocol: bearer.bearer.x\r\n", (false, token("bearer.x"))),
        ("others", "Sec-WebSocket-Protocol: chat, mcp, graphql-ws\r\n", (true, None)),
        ("case matters", "Sec-WebSocket-Protocol: MCP, Bearer.abc\r\n", (false, None)),
        ("prefix without dot", "Sec-WebSocket-Protocol: bearer\r\n", (false, None)),
    ];
    for (name, lines, expected) in table {
        assert_eq!(offer(lines), Ok(expected), "{name}");
    }
    let many = |count: usize| {
        let names: Vec<String> = (0..count).map(|index| format!("p{index}")).collect();
        format!("Sec-WebSocket-Protocol: {}\r\n", names.join(","))
    };
    assert_eq!(offer(&many(MAX_SUBPROTOCOLS)), Ok((false, None)));
    let refused: [(&str, &str); 11] = [
        ("two tokens", "Sec-WebSocket-Protocol: bearer.a, bearer.b\r\n"),
        ("two tokens, two lines", "Sec-WebSocket-Protocol: bearer.a\r\nSec-WebSocket-Protocol: mcp, bearer.b\r\n"),
        ("empty token", "Sec-WebSocket-Protocol: mcp, bearer.\r\n"),
        ("empty", "Sec-WebSocket-Protocol:\r\n"),
        ("empty member", "Sec-WebSocket-Protocol: mcp,,bearer.a\r\n"),
        ("comma at the end", "Sec-WebSocket-Protocol: mcp,\r\n"),
        ("blank inside", "Sec-WebSocket-Protocol: mcp bearer.a\r\n"),
        ("separator", "Sec-WebSocket-Protocol: mcp, bearer.a/b\r\n"),
        ("not ASCII", "Sec-WebSocket-Protocol: mcp, bearer.\u{e9}\r\n"),
        ("repeated", "Sec-WebSocket-Protocol: mcp, chat, mcp\r\n"),
        ("too many", &many(MAX_SUBPROTOCOLS + 1)),
    ];
    for (name, lines) in refused {
        let reject = offer(lines).unwrap_err();
        assert_eq!(reject.status, 400, "{name}");
        assert!(!reject.to_string().contains("bearer.a"), "{name}");
    }
}

#[test]
fn accepted() {
    let table: [(&str, String); 5] = [
        ("lists", get(&["Host: a\r\nUpgrade: h2c, WebSocket\r\nConnection: keep-alive, upgrade\r\n", KEY, VERSION_13])),
        ("two lines", get(&[UPGRADE, "Connection: x\r\nUpgrade: h2c\r\n", KEY, VERSION_13])),
        (
            "extensions are declined",
            get(&[UPGRADE, KEY, VERSION_13, "Sec-WebSocket-Extensions: permessage-deflate\r\n"]),
        ),
        ("a body of length 0", get(&[UPGRADE, KEY, VERSION_13, "Content-Length: 0\r\n"])),
        ("any case", get(&[UPGRADE, &KEY.replace("Sec-WebSocket-Key", "sec-websocket-KEY"), VERSION_13])),
    ];
    for (name, text) in table {
        let mut out = Vec::new();
        write_switch(&mut out, &read(&text).unwrap());
        let answer = String::from_utf8(out).unwrap();
        assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{name}");
        assert!(!answer.to_lowercase().contains("extensions"), "{name}");
    }
}

#[test]
fn refused() {
    let table: [(&str, u16, String); 20] = [
        ("POST", 405, get(&[UPGRADE, KEY, VERSION_13]).replace("GET", "POST")),
        ("HEAD", 405, get(&[UPGRADE, KEY, VERSION_13]).replace("GET", "HEAD")),
        ("HTTP/1.0", 400, get(&[UPGRADE, KEY, VERSION_13]).replace("HTTP/1.1", "HTTP/1.0")),
        ("no Upgrade", 426, get(&["Host: a\r\nConnection: Upgrade\r\n", KEY, VERSION_13])),
        ("other Upgrade", 426, get(&["Host: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n", KEY, VERSION_13])),
        (
            "Upgrade with a version",
            426,
            get(&["Host: a\r\nUpgrade: websocket/13\r\nConnection: Upgrade\r\n", KEY, VERSION_13]),
        ),
        ("no Connection", 426, get(&["Host: a\r\nUpgrade: websocket\r\n", KEY, VERSION_13])),
        (
            "other Connection",
            426,
            get(&["Host: a\r\nUpgrade: websocket\r\nConnection: keep-alive\r\n", KEY, VERSION_13]),
        ),
        ("no version", 426, get(&[UPGRADE, KEY])),
        ("version 8", 426, get(&[UPGRADE, KEY, "Sec-WebSocket-Version: 8\r\n"])),
        ("two versions", 426, get(&[UPGRADE, KEY, "Sec-WebSocket-Version: 13, 8\r\n"])),
        ("version 013", 426, get(&[UPGRADE, KEY, "Sec-WebSocket-Version: 013\r\n"])),
        ("two version lines", 400, get(&[UPGRADE, KEY, VERSION_13, VERSION_13])),
        ("no key", 400, get(&[UPGRADE, VERSION_13])),
        ("two keys", 400, get(&[UPGRADE, KEY, KEY, VERSION_13])),
        ("15 bytes", 400, get(&[UPGRADE, VERSION_13, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n"])),
        ("17 bytes", 400, get(&[UPGRADE, VERSION_13, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWU=\r\n"])),
        ("not base64", 400, get(&[UPGRADE, VERSION_13, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ!==\r\n"])),
        ("spare bits set", 400, get(&[UPGRADE, VERSION_13, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==\r\n"])),
        ("a body", 400, get(&[UPGRADE, KEY, VERSION_13, "Content-Length: 2\r\n"])),
    ];
    for (name, status, text) in table {
        let reject = read(&text).unwrap_err();
        assert_eq!(reject.status, status, "{name}");
        let mut out = Vec::new();
        write_reject_fields(&mut out, reject);
        let expected: &[u8] = match status {
            405 => b"Allow: GET\r\n",
            426 => b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            _ => b"",
        };
        assert_eq!(out, expected, "{name}");
    }
}
