//! Promise: the WebSocket door speaks RFC 6455 in full, with the contract's close codes; a client shows its token in one of three ways, and
//! whatever comes in frames is treated as on every other door.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;
#[path = "support/socket_server.rs"]
mod socket_server;

use blackbox::{
    Frame, Gateway, KEY, Next, Peer, TOKEN, Upstream, authenticate, call, initialize, stateless, until, upgrade,
    upgrade_request,
};
use ringwall::wire::websocket::{Opcode, write};
use rustix::process::Signal;
use serde_json::Value;
use socket_server::{Kind, SocketServer};

fn tool(id: impl std::fmt::Display, name: &str) -> String {
    stateless(id, "tools/call", &format!("\"name\":\"{name}\",\"arguments\":{{\"text\":\"hello\"}}"))
}

fn echo(id: impl std::fmt::Display) -> String {
    tool(id, "echo")
}

fn bearer() -> String {
    format!("Authorization: Bearer {TOKEN}\r\n")
}

/// Answers calls of `hold` once the test says `answer`, and all others at once.
fn holding() -> Upstream {
    Upstream::start(|request, conversation| {
        if request.text().contains("\"hold\"") {
            conversation.wait_for("answer");
        }
        conversation.echo(request)
    })
}

#[test]
fn a_faulty_request_for_an_upgrade_is_told_what_is_wrong() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address).ready();
    let usual = [
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let auth = bearer().trim_end().to_owned();
    let offer = format!("Sec-WebSocket-Protocol: mcp, bearer.{TOKEN}, bearer.x");
    let key = usual[4];
    // Request line, what takes the place of a usual field, what is added, status, a field of the answer, its body where the contract names it.
    type Row<'a> = (&'a str, Option<(usize, &'a str)>, &'a str, u16, Option<(&'a str, &'a str)>, &'a str);
    let forbidden = "{\"error\":\"Forbidden\"}";
    let unknown = "{\"error\":\"Invalid or revoked token\"}";
    let missing = "{\"error\":\"Missing Authorization header. Use: Bearer <token>\"}";
    let table: [Row<'_>; 18] = [
        ("POST /ws HTTP/1.1", None, &auth, 405, Some(("allow", "GET")), ""),
        ("GET /ws HTTP/1.0", None, &auth, 400, None, ""),
        ("GET /ws HTTP/1.1", Some((1, "X: y")), &auth, 426, Some(("upgrade", "websocket")), ""),
        (
            "GET /ws HTTP/1.1",
            Some((2, "Connection: keep-alive")),
            &auth,
            426,
            Some(("sec-websocket-version", "13")),
            "",
        ),
        ("GET /ws HTTP/1.1", Some((3, "X: y")), &auth, 426, Some(("sec-websocket-version", "13")), ""),
        (
            "GET /ws HTTP/1.1",
            Some((3, "Sec-WebSocket-Version: 12")),
            &auth,
            426,
            Some(("sec-websocket-version", "13")),
            "",
        ),
        ("GET /ws HTTP/1.1", Some((4, "X: y")), &auth, 400, None, ""),
        ("GET /ws HTTP/1.1", Some((4, "Sec-WebSocket-Key: c2hvcnQ=")), &auth, 400, None, ""),
        ("GET /ws HTTP/1.1", Some((0, key)), &auth, 400, None, ""),
        ("GET /ws HTTP/1.1", None, &offer, 400, None, ""),
        ("GET /ws HTTP/1.1", None, "Sec-WebSocket-Protocol: mcp, bearer.", 400, None, ""),
        ("GET /ws HTTP/1.1", None, "Content-Length: 1", 400, None, ""),
        ("GET /ws HTTP/1.1", Some((0, "Host: evil.example")), &auth, 403, None, forbidden),
        ("GET /ws HTTP/1.1", None, "Origin: https://evil.example", 403, None, forbidden),
        ("GET /ws HTTP/1.1", None, "Authorization: Bearer wrong", 401, Some(("www-authenticate", "")), unknown),
        ("GET /ws HTTP/1.1", None, "Sec-WebSocket-Protocol: mcp, bearer.wrong", 401, None, unknown),
        ("GET /ws HTTP/1.1", None, "Authorization: Basic eDp5", 401, None, missing),
        ("GET /other HTTP/1.1", None, &auth, 404, None, ""),
    ];
    for (line, instead, more, status, field, body) in table {
        let mut fields = usual;
        if let Some((at, with)) = instead {
            fields[at] = with;
        }
        let mut client = gateway.client();
        let response = client.ask(format!("{line}\r\n{}\r\n{more}\r\n\r\n", fields.join("\r\n")).as_bytes());
        let shown = format!("{line} {instead:?}: {response:?}");
        assert_eq!(response.status, status, "{shown}");
        if let Some((name, value)) = field {
            let found = response.field(name).unwrap_or_else(|| panic!("{shown}"));
            assert!(found.contains(value), "{shown}");
        }
        let is_told = response.json()["error"].as_str().is_some_and(|text| !text.is_empty());
        assert!(is_told && (body.is_empty() || response.text() == body), "{shown}");
    }
    assert_eq!(gateway.open_on("ws"), 0);
    assert!(!gateway.log().contains(TOKEN));
    gateway.unharmed();
}

#[test]
fn a_full_door_answers_503_and_http_goes_on() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("WS_MAX_CONNECTIONS", "2")], upstream.address).ready();
    let (one, mut two) = (Peer::websocket(&gateway), Peer::websocket(&gateway));
    let (_, response) = upgrade(&gateway, "/ws", &bearer());
    assert_eq!(response.status, 503);
    assert_eq!(response.text(), "{\"error\":\"Service unavailable - connection limit reached\"}");
    assert!(response.field("retry-after").is_some());
    gateway.audited("connection_limit", |line| line["rule"] == "door-connections");
    until("the refused one to be gone", || gateway.open_connections() == 0);
    assert_eq!(gateway.post(&call(1)).status, 200);
    assert_eq!(two.ask(&echo(1))["id"], 1);
    drop(one);
    until("a place to be free", || (gateway.open_on("ws"), gateway.open_connections()) == (1, 0));
    assert_eq!(Peer::websocket(&gateway).ask(&echo(1))["id"], 1);
}

#[test]
fn a_client_shows_its_token_in_its_head_in_a_subprotocol_or_in_its_first_message() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("MCP_LOG_LEVEL", "debug")], upstream.address).ready();
    for path in ["/ws", "/"] {
        for (fields, protocol) in [
            (bearer(), None),
            (format!("{}Sec-WebSocket-Protocol: chat, mcp\r\n", bearer()), Some("mcp")),
            (format!("Sec-WebSocket-Protocol: mcp, bearer.{TOKEN}\r\n"), Some("mcp")),
            (format!("Sec-WebSocket-Protocol: bearer.{TOKEN}\r\nSec-WebSocket-Protocol: mcp\r\n"), Some("mcp")),
            (format!("Sec-WebSocket-Protocol: bearer.{TOKEN}\r\n"), None),
            ("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n".to_owned() + &bearer(), None),
        ] {
            let (client, response) = upgrade(&gateway, path, &fields);
            assert_eq!(response.status, 101, "{response:?}");
            // RFC 6455 §1.3.
            assert_eq!(response.field("sec-websocket-accept").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            assert_eq!(response.field("sec-websocket-protocol").as_deref(), protocol);
            assert_eq!(response.field("sec-websocket-extensions"), None);
            assert!(!response.head.contains(TOKEN));
            assert_eq!(Peer::on(client).ask(&echo(1))["id"], 1, "{path} {protocol:?}");
        }
        let (client, response) = upgrade(&gateway, path, "");
        assert_eq!(response.status, 101);
        let mut peer = Peer::on(client);
        assert_eq!(peer.ask(&echo(1))["error"]["message"], "Authentication required");
        peer.authenticate(TOKEN);
        assert_eq!(peer.ask(&echo(2))["id"], 2);
        let (client, _) = upgrade(&gateway, path, "");
        let mut peer = Peer::on(client);
        let refused = peer.ask(&authenticate("7", "wrong"));
        assert_eq!((&refused["id"], &refused["error"]["message"]), (&7.into(), &"Authentication failed".into()));
        peer.closes(1008, "Authentication failed");
    }
    until("the trail to be written", || gateway.trail().iter().any(|line| line["event"] == "invalid_auth"));
    assert!(!format!("{}{:?}", gateway.log(), gateway.trail()).contains(TOKEN), "a token was written down");
    gateway.unharmed();
}

#[test]
fn who_does_not_say_who_it_is_within_ten_seconds_is_closed() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address).ready();
    let (client, _) = upgrade(&gateway, "/ws", "");
    let (mut silent, mut known) = (Peer::on(client), Peer::websocket(&gateway));
    let (client, _) = upgrade(&gateway, "/ws", "");
    let mut pinging = Peer::on(client);
    pinging.say_frame(Opcode::Ping, true, b"I am here");
    assert_eq!(pinging.frame(), Frame::Pong(b"I am here".to_vec()));
    silent.closes(1008, "Authentication timeout");
    pinging.closes(1008, "Authentication timeout");
    assert_eq!(known.ask(&echo(1))["id"], 1);
}

/// A frame with the usual key.
fn frame(opcode: Opcode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write::frame(&mut frame, opcode, fin, payload, Some(KEY));
    frame
}

#[test]
fn every_fault_has_its_close_code() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("MAX_MESSAGE_SIZE", "4096")], upstream.address).ready();
    let text = |fin, payload: &[u8]| frame(Opcode::Text, fin, payload);
    let more = |fin, payload: &[u8]| frame(Opcode::Continuation, fin, payload);
    let mut unmasked = Vec::new();
    write::text(&mut unmasked, b"{}", None);
    let first_byte = |byte: u8| [&[byte][..], &text(true, b"{}")[1..]].concat();
    let head = |bytes: &[u8]| [bytes, &KEY[..]].concat();
    let table: Vec<(&str, Vec<u8>, u16)> = vec![
        ("binary", frame(Opcode::Binary, true, b"{}"), 1003),
        ("too large, of which only the head has come", head(&[0x81, 0xfe, 0x10, 0x01]), 1009),
        ("larger than any memory", head(&[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), 1009),
        ("too large in fragments", [text(false, &[b' '; 4000]), head(&[0x80, 0x80 | 97])].concat(), 1009),
        ("not masked", unmasked, 1002),
        ("reserved bit, as a compressed message has it", first_byte(0xc1), 1002),
        ("reserved opcode", first_byte(0x83), 1002),
        ("reserved control opcode", first_byte(0x8b), 1002),
        ("fragmented ping", first_byte(0x09), 1002),
        ("ping over 125 bytes", head(&[0x89, 0xfe, 0, 126]), 1002),
        ("length not minimal", head(&[0x81, 0xfe, 0, 5]), 1002),
        ("length over 63 bits", head(&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1]), 1002),
        ("continuation of nothing", more(true, b"{}"), 1002),
        ("text within a message", [text(false, b"{"), text(true, b"}")].concat(), 1002),
        ("close of one byte", frame(Opcode::Close, true, &[3]), 1002),
        ("close 1005", frame(Opcode::Close, true, &1005_u16.to_be_bytes()), 1002),
        ("close 999", frame(Opcode::Close, true, &999_u16.to_be_bytes()), 1002),
        (
            "bad UTF-8 in the last byte",
            [text(false, b"{\"a\":\"x"), more(false, b"y"), more(true, b"\xc3")].concat(),
            1007,
        ),
        ("bad UTF-8 long before the end", text(false, b"\xff"), 1007),
        ("a surrogate", text(true, b"\"\xed\xa0\x80\""), 1007),
        ("bad UTF-8 in a close", frame(Opcode::Close, true, b"\x03\xe8\xff"), 1007),
        ("close in good order", frame(Opcode::Close, true, b"\x03\xe8bye"), 1000),
        ("close with a code of its own", frame(Opcode::Close, true, &4001_u16.to_be_bytes()), 4001),
        ("close without a code", frame(Opcode::Close, true, b""), 1005),
    ];
    let faults = table.iter().filter(|(_, _, code)| (1002..1005).contains(code) || (1007..1010).contains(code)).count();
    for (name, bytes, code) in table {
        let mut peer = Peer::websocket(&gateway);
        peer.client.send(&bytes);
        // What comes behind the fault is not looked at.
        let _ = peer.client.try_send(&text(true, echo(9).as_bytes()));
        let closed = peer.frame();
        assert!(matches!(closed, Frame::Close(shown, _) if shown == code), "{name}: {closed:?}");
        assert!(peer.client.is_closed(), "{name}");
    }
    assert!(upstream.requests().is_empty());
    until("the faults to be recorded", || {
        gateway.trail().iter().filter(|line| line["rule"] == "websocket").count() == faults
    });
    let mut peer = Peer::websocket(&gateway);
    let message = echo(1);
    let largest = message.replace("hello", &format!("hello{}", "x".repeat(4096 - message.len())));
    assert_eq!(peer.ask(&largest)["id"], 1, "as large as it may be");
    drop(peer);
    gateway.unharmed();
}

#[test]
fn fragments_and_pings_in_between_are_taken_as_they_come() {
    let upstream = holding();
    let gateway = Gateway::start(&[], upstream.address).ready();
    // With frames behind the request for the upgrade, in one write.
    let mut client = gateway.client();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n",
        bearer()
    );
    let early = frame(Opcode::Text, true, echo(0).as_bytes());
    client.send(&[request.as_bytes(), &early, &early[..3]].concat());
    assert_eq!(client.head().status, 101);
    let mut peer = Peer::on(client);
    assert_eq!(peer.hear()["id"], 0);
    peer.client.send(&early[3..]);
    assert_eq!(peer.hear()["id"], 0);

    let message = echo("\"gr\u{fc}n\"");
    let (start, rest) = message.as_bytes().split_at(message.find('\u{fc}').unwrap() + 1);
    peer.say_frame(Opcode::Text, false, start);
    peer.say_frame(Opcode::Ping, true, b"one");
    assert_eq!(peer.frame(), Frame::Pong(b"one".to_vec()));
    peer.say_frame(Opcode::Continuation, false, b"");
    peer.say_frame(Opcode::Pong, true, b"nobody asked");
    peer.say_frame(Opcode::Ping, true, &[b'x'; 125]);
    peer.say_frame(Opcode::Continuation, true, rest);
    assert_eq!(peer.frame(), Frame::Pong(vec![b'x'; 125]));
    assert_eq!(peer.hear()["id"], "gr\u{fc}n");
    assert_eq!(upstream.last().text(), message, "put together as it was");
    // Byte by byte.
    for byte in frame(Opcode::Text, true, echo(5).as_bytes()) {
        peer.client.send(&[byte]);
    }
    assert_eq!(peer.hear()["id"], 5);
    // A ping is answered while a call is out.
    peer.say(&tool(6, "hold"));
    peer.say_frame(Opcode::Ping, true, b"");
    assert_eq!(peer.frame(), Frame::Pong(Vec::new()));
    upstream.say("answer");
    assert_eq!(peer.hear()["id"], 6);
}

#[test]
fn a_message_that_is_refused_is_answered_and_the_connection_stays() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address).ready();
    let mut peer = Peer::websocket(&gateway);
    for (message, code, id) in [
        ("", -32700, Value::Null),
        ("{", -32700, Value::Null),
        ("{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":7}", -32600, "a".into()),
        ("[]", -32600, Value::Null),
    ] {
        let answer = peer.ask(message);
        assert_eq!((answer["error"]["code"].as_i64(), &answer["id"]), (Some(code), &id), "{message}: {answer}");
    }
    assert_eq!(peer.ask(&call(3))["id"], 3);
    // A message with line breaks is one message.
    assert_eq!(peer.ask(&echo(1).replace(',', ",\r\n "))["id"], 1);
    peer.say_frame(Opcode::Close, true, &1000_u16.to_be_bytes());
    peer.closes(1000, "");
    gateway.unharmed();
}

#[test]
fn an_idle_connection_is_told_so() {
    let upstream = holding();
    let gateway = Gateway::start(&[("WS_CONNECTION_TIMEOUT", "300")], upstream.address).ready();
    // In one write: between the two it is idle for no time.
    let mut client = gateway.client();
    let call = frame(Opcode::Text, true, tool(1, "hold").as_bytes());
    client.send(&[upgrade_request("/ws", &bearer()), call].concat());
    assert_eq!(client.head().status, 101);
    let mut busy = Peer::on(client);
    upstream.wait("the call", |log| log.requests.len() == 1);
    for _ in 0..2 {
        // Whoever is too slow to ask for the upgrade within that time is closed as well.
        until("an idle client", || {
            Peer::try_websocket(&gateway).map(|mut peer| peer.closes(1001, "Connection timeout")).is_some()
        });
    }
    upstream.say("answer");
    assert_eq!(busy.hear()["id"], 1);
    busy.closes(1001, "Connection timeout");
    gateway.audited("connection_timeout", |line| line["details"] == "idle");
}

#[test]
fn a_message_that_does_not_come_to_its_end_in_time_ends_the_connection() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("BODY_TIMEOUT", "300")], upstream.address).ready();
    for bytes in [frame(Opcode::Text, false, b"{\"jsonrpc\""), frame(Opcode::Text, true, b"{}")[..3].to_vec()] {
        let mut peer = Peer::websocket(&gateway);
        peer.client.send(&bytes);
        peer.closes(1008, "Message timeout");
    }
}

#[test]
fn sigterm_lets_calls_in_flight_be_answered_and_says_why_it_closes() {
    let upstream = holding();
    let mut gateway = Gateway::start(&[], upstream.address).ready();
    let (mut idle, mut busy) = (Peer::websocket(&gateway), Peer::websocket(&gateway));
    let (client, _) = upgrade(&gateway, "/ws", "");
    let mut stranger = Peer::on(client);
    busy.say(&tool(1, "hold"));
    upstream.wait("the call", |log| log.requests.len() == 1);
    gateway.signal(Signal::TERM);
    idle.closes(1001, "Server shutting down");
    stranger.closes(1001, "Server shutting down");
    upstream.say("answer");
    assert_eq!(busy.hear()["id"], 1);
    busy.closes(1001, "Server shutting down");
    assert!(gateway.exit().success(), "{}", gateway.log());
}

#[test]
fn a_client_that_goes_takes_its_calls_along_however_it_goes() {
    let upstream = Upstream::start(|request, conversation| {
        if !request.text().contains("\"hold\"") {
            return conversation.echo(request);
        }
        assert!(conversation.wait_for_close());
        conversation.note("closed");
        Next::Close
    });
    // Longer than the test waits: it is not the time that ends a call.
    let policy = format!("[upstream.only]\nurl = \"http://{}/mcp\"\ncall_timeout_ms = 120000\n", upstream.address);
    let gateway = Gateway::with_policy(&[], &policy).ready();
    for (round, how) in ["close frame", "end of the stream", "reset"].into_iter().enumerate() {
        let mut peer = Peer::websocket(&gateway);
        peer.say(&tool(1, "hold"));
        upstream.wait("the call", |log| log.requests.len() == round + 1);
        match how {
            "close frame" => peer.say_frame(Opcode::Close, true, &1001_u16.to_be_bytes()),
            "end of the stream" => drop(peer),
            _ => peer.client.reset(),
        }
        until("the call to be counted as cancelled", || {
            gateway.metric_of("ringwall_calls_total", "door=\"ws\",outcome=\"cancelled\"") as usize == round + 1
        });
        upstream.wait(how, |log| log.notes.len() == round + 1);
    }
    gateway.unharmed();
}

#[test]
fn clients_with_equal_ids_do_not_meet() {
    for kind in [Kind::Tcp, Kind::Ws] {
        let server = SocketServer::start(kind);
        let gateway = Gateway::with_policy(&[("WORKERS", "1")], &server.policy("only")).ready();
        let (mut one, mut two) = (Peer::websocket(&gateway), Peer::tcp(&gateway));
        let text = |answer: &Value| answer["result"]["content"][0]["text"].clone();
        one.say(&tool(1, "hold"));
        until("the call to be held", || server.calls("hold") == 1);
        assert_eq!(text(&two.ask(&tool(1, "echo"))), "hello", "{kind:?}");
        assert_eq!(text(&two.ask(&tool(1, "release"))), "released");
        assert_eq!(text(&one.hear()), "held");
        assert_eq!(server.connections(), 1, "over one connection");
        // Sessions are kept apart by connections of their own.
        for peer in [&mut one, &mut two] {
            assert_eq!(peer.ask(&initialize())["id"], 0);
            peer.say("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
            assert_eq!(text(&peer.ask(&call(1))), "hello");
        }
        assert_eq!((server.connections(), server.count("initialize")), (3, 2), "{kind:?}");
    }
}

#[test]
fn what_happens_on_the_door_is_counted_and_recorded() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address).ready();
    let mut peer = Peer::websocket(&gateway);
    assert_eq!((gateway.open_on("ws"), gateway.open_on("http")), (1, 0));
    for id in 1..=3 {
        assert_eq!(peer.ask(&echo(id))["id"], id);
    }
    drop(peer);
    gateway.unharmed();
    let count = |name: &str, more: &str| gateway.metric_of(name, &format!("door=\"ws\"{more}")) as u64;
    until("the calls to be counted", || count("ringwall_calls_total", ",outcome=\"ok\"") == 3);
    assert_eq!(count("ringwall_connections_accepted_total", ""), 1);
    until("the close to be counted", || count("ringwall_connections_closed_total", "") == 1);
    let called = gateway.audited("tool_call", |line| line["requestId"] == "2");
    assert!(called["clientId"].as_str().unwrap().starts_with("ws-"), "{called}");
    for event in ["connection_established", "auth_success", "connection_closed"] {
        gateway.audited(event, |line| line["clientId"] == called["clientId"]);
    }
}
