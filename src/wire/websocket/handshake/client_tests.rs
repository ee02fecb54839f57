#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use super::super::super::super::http1::request::{RequestHead, parse_request};
use super::super::server;
use super::*;

const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
const START: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";

/// The key of RFC 6455 §1.3.
const ASK: Ask<'static> = Ask {
    authority: b"tools.example:8080",
    target: b"/ws?x=1",
    nonce: *b"the sample nonce",
    subprotocol: Some("mcp"),
    extra_lines: b"Authorization: Bearer t\r\n",
};

fn read(ask: &Ask<'_>, text: &str) -> Result<Option<usize>, NotSwitched> {
    let mut head = ResponseHead::default();
    let progress = ask.read_answer(text.as_bytes(), 0, &mut head)?;
    Ok((progress == Progress::Complete).then_some(head.len as usize))
}

#[test]
fn request() {
    let mut out = Vec::new();
    ASK.write(&mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "GET /ws?x=1 HTTP/1.1\r\nHost: tools.example:8080\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mcp\r\n\
         Authorization: Bearer t\r\n\r\n"
    );
}

/// Our server and our client agree with each other, with and without the subprotocol.
#[test]
fn both_sides() {
    for subprotocol in [None, Some("mcp")] {
        let ask = Ask { subprotocol, ..ASK };
        let (mut request, mut head) = (Vec::new(), RequestHead::default());
        ask.write(&mut request);
        assert_eq!(parse_request(&request, 0, &mut head), Ok(Progress::Complete));
        let upgrade = server::read_upgrade(&head, &request).unwrap();
        assert_eq!(upgrade.mcp, subprotocol.is_some());
        let mut answer = Vec::new();
        server::write_switch(&mut answer, &upgrade);
        assert_eq!(read(&ask, std::str::from_utf8(&answer).unwrap()), Ok(Some(answer.len())));
    }
}

#[test]
fn accepted() {
    let table: [(&str, String); 6] = [
        ("plain", format!("{START}{ACCEPT}\r\n")),
        ("subprotocol", format!("{START}{ACCEPT}Sec-WebSocket-Protocol: mcp\r\n\r\n")),
        (
            "any case",
            format!("{START}{ACCEPT}\r\n").replace("websocket\r", "WebSocket\r").replace(": Upgrade", ": UPGRADE"),
        ),
        ("list", format!("{START}{ACCEPT}\r\n").replace("Connection: Upgrade", "Connection: keep-alive, Upgrade")),
        ("other fields", format!("{START}{ACCEPT}Server: x\r\nDate: y\r\n\r\n")),
        ("behind an interim answer", format!("HTTP/1.1 100 Continue\r\n\r\n{START}{ACCEPT}\r\n")),
    ];
    for (name, text) in table {
        assert_eq!(read(&ASK, &format!("{text}\u{1}")), Ok(Some(text.len())), "{name}, frames behind it");
        let mut head = ResponseHead::default();
        for end in 1..text.len() {
            assert_eq!(ASK.read_answer(&text.as_bytes()[..end], end - 1, &mut head), Ok(Progress::Partial), "{name}");
        }
        assert_eq!(ASK.read_answer(text.as_bytes(), text.len() - 1, &mut head), Ok(Progress::Complete), "{name}");
    }
}

#[test]
fn refused() {
    use NotSwitched as N;
    let table: [(&str, String, NotSwitched); 18] = [
        ("200", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into(), N::Status(200)),
        ("401", "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n".into(), N::Status(401)),
        ("426", "HTTP/1.1 426 No\r\nSec-WebSocket-Version: 8\r\nContent-Length: 0\r\n\r\n".into(), N::Status(426)),
        ("HTTP/1.0", format!("{START}{ACCEPT}\r\n").replace("HTTP/1.1", "HTTP/1.0"), N::Version),
        ("no Upgrade", format!("{START}{ACCEPT}\r\n").replace("Upgrade: websocket\r\n", ""), N::Upgrade),
        ("list in Upgrade", format!("{START}{ACCEPT}\r\n").replace("websocket\r", "websocket, h2c\r"), N::Upgrade),
        ("two Upgrade lines", format!("{START}{ACCEPT}Upgrade: websocket\r\n\r\n"), N::Upgrade),
        ("no Connection", format!("{START}{ACCEPT}\r\n").replace("Connection: Upgrade\r\n", ""), N::Connection),
        ("other Connection", format!("{START}{ACCEPT}\r\n").replace(": Upgrade", ": close"), N::Connection),
        ("no Accept", format!("{START}\r\n"), N::Accept),
        ("wrong Accept", format!("{START}{ACCEPT}\r\n").replace("s3p", "S3p"), N::Accept),
        ("two Accept lines", format!("{START}{ACCEPT}{ACCEPT}\r\n"), N::Accept),
        ("the key for an Accept", format!("{START}Sec-WebSocket-Accept: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"), N::Accept),
        ("extension", format!("{START}{ACCEPT}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"), N::Extension),
        ("other subprotocol", format!("{START}{ACCEPT}Sec-WebSocket-Protocol: chat\r\n\r\n"), N::Subprotocol),
        ("other case", format!("{START}{ACCEPT}Sec-WebSocket-Protocol: MCP\r\n\r\n"), N::Subprotocol),
        ("two subprotocols", format!("{START}{ACCEPT}Sec-WebSocket-Protocol: mcp, mcp\r\n\r\n"), N::Subprotocol),
        (
            "101 with a length",
            format!("{START}{ACCEPT}Content-Length: 0\r\n\r\n"),
            N::Http(BadUpstream::Framing("interim answer with a body")),
        ),
    ];
    for (name, text, expected) in table {
        assert_eq!(read(&ASK, &text), Err(expected), "{name}");
    }
    let unasked = Ask { subprotocol: None, ..ASK };
    for lines in ["Sec-WebSocket-Protocol: mcp\r\n", "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b\r\n"] {
        assert_eq!(read(&unasked, &format!("{START}{ACCEPT}{lines}\r\n")), Err(N::Subprotocol), "not offered: {lines}");
    }
}
