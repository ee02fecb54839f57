//! Promise: a server on a socket of its own (`tcp://`, `tls://`, `ws://`, `wss://`) is served like one on standard input and output:
//! clients share its connections and never meet, and a connection that ends is made again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;
#[path = "support/socket_server.rs"]
mod socket_server;

use std::io::{BufRead, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use blackbox::{Client, Gateway, Peer, Response, TOKEN, call, initialize, modern, post, stateless, until};
use ringwall::settings::{SocketTarget, SocketTransport};
use ringwall::state::lifecycle::UpstreamState;
use ringwall::upstream::brokered::{
    CallHandle, CallKind, ChildCall, ChildMessage, ChildSpec, Gone, Parts, SocketSpec, spawn,
};
use serde_json::Value;
use socket_server::{Kind, SocketServer};

/// A gateway in front of one server.
fn gateway(server: &SocketServer, more: &str) -> Gateway {
    several(&[("only", server, more)])
}

/// In front of servers with these names and further lines of policy.
fn several(servers: &[(&str, &SocketServer, &str)]) -> Gateway {
    // Certificates are read at the start: they stand where every test's gateway finds them, by an absolute path.
    let folder = tempfile::tempdir().unwrap();
    let mut policy = String::new();
    for (name, server, more) in servers {
        let path = folder.path().join(format!("{name}.pem"));
        std::fs::write(&path, &server.certificate).unwrap();
        let section = server.policy(name).replace(&format!("\"{name}.pem\""), &format!("\"{}\"", path.display()));
        policy.push_str(&section);
        policy.push_str(more);
        policy.push('\n');
    }
    Gateway::with_policy(&[("MCP_LOG_LEVEL", "debug")], &policy).ready()
}

fn tool(id: impl std::fmt::Display, name: &str, more: &str) -> Vec<u8> {
    modern(id, "tools/call", Some(name), &format!("\"name\":\"{name}\"{more}"))
}

fn echo(id: impl std::fmt::Display, text: &str) -> Vec<u8> {
    tool(id, "echo", &format!(",\"arguments\":{{\"text\":\"{text}\"}}"))
}

fn text_of(response: &Response) -> String {
    response.json()["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{response:?}")).to_owned()
}

/// A session, with the field that names it.
fn session(gateway: &Gateway) -> String {
    let opened = gateway.post(&initialize());
    assert_eq!(opened.status, 200, "{opened:?}");
    let field = format!("Mcp-Session-Id: {}", opened.field("mcp-session-id").unwrap());
    let ready =
        gateway.client().ask(&with(&post("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}"), &field));
    assert_eq!(ready.status, 202);
    field
}

fn with(bytes: &[u8], field: &str) -> Vec<u8> {
    String::from_utf8(bytes.to_vec()).unwrap().replacen("\r\n", &format!("\r\n{field}\r\n"), 1).into_bytes()
}

fn session_call(id: impl std::fmt::Display, name: &str, field: &str) -> Vec<u8> {
    with(&post(&call(id).replace("\"echo\"", &format!("\"{name}\""))), field)
}

fn listen(gateway: &Gateway, field: &str) -> Client {
    let mut client = gateway.client();
    client.send(
        format!(
            "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nAccept: text/event-stream\r\n\
             MCP-Protocol-Version: 2025-11-25\r\n{field}\r\n\r\n"
        )
        .as_bytes(),
    );
    assert_eq!(client.head().status, 200);
    client
}

/// The end of an event stream, in good order; comments are passed over.
fn ends(client: &mut Client) -> bool {
    loop {
        match client.chunk() {
            Some(Some(comment)) if comment.starts_with(b":") => {}
            end => return end == Some(None),
        }
    }
}

/// The next message of an event stream; comments are passed over.
fn event(client: &mut Client) -> Value {
    loop {
        let event = client.event();
        if let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) {
            return serde_json::from_str(data).unwrap();
        }
    }
}

#[test]
fn calls_of_both_eras_are_answered_over_one_connection_each() {
    for kind in Kind::ALL {
        let server = SocketServer::start(kind);
        let gateway = gateway(&server, "");
        let mut client = gateway.client();
        for id in ["1", "\"a\"", "1"] {
            let response = client.ask(&echo(id, "hello"));
            assert_eq!((response.status, text_of(&response).as_str()), (200, "hello"), "{kind:?}");
            assert_eq!(response.json()["id"].to_string(), id);
        }
        assert_eq!(server.connections(), 1, "{kind:?}");
        let (one, two) = (session(&gateway), session(&gateway));
        for field in [&one, &two] {
            let response = gateway.client().ask(&session_call(7, "echo", field));
            assert_eq!((response.json()["id"].clone(), text_of(&response).as_str()), (7.into(), "hello"), "{kind:?}");
        }
        // Sessions that agree share a connection and its handshake.
        assert_eq!((server.connections(), server.count("initialize")), (2, 1), "{kind:?}");
        assert_eq!(server.count("notifications/initialized"), 1);
        drop(client);
        gateway.unharmed();
    }
}

#[test]
fn clients_with_equal_ids_do_not_meet_whatever_the_order_of_the_answers() {
    for kind in Kind::ALL {
        let server = SocketServer::start(kind);
        let gateway = gateway(&server, "");
        let mut held: Vec<Client> = (0..8)
            .map(|_| {
                let mut client = gateway.client();
                client.send(&tool(1, "hold", ""));
                client
            })
            .collect();
        let mut echoing = gateway.client();
        assert_eq!(text_of(&echoing.ask(&echo(1, "mine"))), "mine", "{kind:?}");
        until("all to be held", || server.calls("hold") == 8);
        assert_eq!(text_of(&gateway.client().ask(&tool(1, "release", ""))), "released", "{kind:?}");
        for client in &mut held {
            let response = client.response();
            assert_eq!((response.json()["id"].clone(), text_of(&response).as_str()), (1.into(), "held"), "{kind:?}");
        }
        assert_eq!(server.connections(), 1, "{kind:?}");
    }
}

#[test]
fn progress_goes_to_its_owner_and_a_server_s_request_comes_back_answered() {
    for kind in Kind::ALL {
        let server = SocketServer::start(kind);
        let gateway = gateway(&server, "");
        let (mut waiting, mut asking) = (gateway.client(), gateway.client());
        waiting.send(&tool(1, "hold", ",\"_meta2\":{}"));
        until("the call to be held", || server.calls("hold") == 1);
        let body = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"progress\",\"_meta\":{\"progressToken\":\"mine\"}}}";
        let field = session(&gateway);
        asking.send(&with(&post(body), &field));
        assert_eq!(asking.head().status, 200);
        for progress in 1..=2 {
            let note = event(&mut asking);
            assert_eq!(
                (&note["params"]["progressToken"], &note["params"]["progress"]),
                (&"mine".into(), &progress.into())
            );
        }
        assert_eq!(event(&mut asking)["result"]["content"][0]["text"], "done");
        // The other client got nothing but its answer.
        gateway.client().ask(&tool(2, "release", ""));
        let response = waiting.response();
        assert_eq!(response.field("content-type").as_deref(), Some("application/json"), "{kind:?}");
        assert_eq!(text_of(&response), "held");

        let mut client = gateway.client();
        client.send(&session_call(5, "ask", &field));
        assert_eq!(client.head().status, 200);
        let asked = event(&mut client);
        assert_eq!(
            (&asked["method"], &asked["id"]),
            (&"sampling/createMessage".into(), &"server-1".into()),
            "{kind:?}"
        );
        let answer = "{\"jsonrpc\":\"2.0\",\"id\":\"server-1\",\"result\":{\"model\":\"the client's\"}}";
        assert_eq!(gateway.client().ask(&with(&post(answer), &field)).status, 202);
        assert_eq!(event(&mut client)["result"]["content"][0]["text"], "the client's", "{kind:?}");
    }
}

#[test]
fn a_notification_reaches_the_stream_of_its_session_and_delete_ends_it() {
    for kind in [Kind::Tcp, Kind::Ws] {
        let server = SocketServer::start(kind);
        let gateway = gateway(&server, "");
        let field = session(&gateway);
        let mut stream = listen(&gateway, &field);
        assert_eq!(text_of(&gateway.client().ask(&session_call(1, "notify", &field))), "notified", "{kind:?}");
        assert_eq!(event(&mut stream)["method"], "notifications/tools/list_changed", "{kind:?}");
        let delete = format!(
            "DELETE /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nMCP-Protocol-Version: 2025-11-25\r\n{field}\r\n\r\n"
        );
        assert_eq!(gateway.client().ask(delete.as_bytes()).status, 200);
        assert!(ends(&mut stream), "the stream ends with its session");
        assert_eq!(gateway.client().ask(&session_call(1, "echo", &field)).status, 404);
    }
}

#[test]
fn a_server_that_dies_is_connected_to_again() {
    for kind in Kind::ALL {
        let server = SocketServer::start(kind);
        let gateway = gateway(&server, "");
        let field = session(&gateway);
        let mut stream = listen(&gateway, &field);
        let died = gateway.client().ask(&tool(1, "die", ""));
        assert_eq!(died.status, 502, "{died:?}");
        let text = died.text();
        assert!(text.contains("connection to the server ended during the call"), "{text}");
        assert!(text.contains("whether the call was carried out is unknown"), "{text}");
        assert_eq!(server.calls("die"), 1, "never made twice");
        // Calls until then are refused as not made, with the time to wait; none is lost.
        let mut made = 0;
        until("the connection to stand again", || {
            let response = gateway.client().ask(&echo(1, "again"));
            made += usize::from(response.status == 200);
            if response.status != 200 {
                assert_eq!(response.status, 503, "{response:?}");
                assert!(response.text().contains("cannot be reached; the call was not made"), "{response:?}");
                assert!(response.field("retry-after").is_some());
            }
            made == 1
        });
        assert_eq!(server.calls("echo"), 1, "{kind:?}: only the call that was answered reached it");
        // The sessions' connection was another, and is as it was.
        assert_eq!(text_of(&gateway.client().ask(&session_call(2, "echo", &field))), "hello");
        server.stop();
        assert!(ends(&mut stream), "{kind:?}: a stream ends with its connection");
        until("the server to be missed", || gateway.get("/health/ready").status == 503);
        let refused = gateway.client().ask(&echo(3, "nobody"));
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.text().contains("cannot be reached; the call was not made"), "{refused:?}");
        server.start_again();
        until("the server to be back", || gateway.client().ask(&echo(4, "back")).status == 200);
        // Its sessions have gone with their connection: clients are told to initialize again.
        assert_eq!(gateway.client().ask(&session_call(5, "echo", &field)).status, 404, "{kind:?}");
        session(&gateway);
    }
}

#[test]
fn a_connection_that_the_server_closes_in_good_order_costs_no_call() {
    for kind in [Kind::Tcp, Kind::Ws, Kind::Wss] {
        let server = SocketServer::start(kind);
        let gateway = gateway(&server, "");
        for id in 1..=10 {
            let response = gateway.client().ask(&tool(id, "bye", ""));
            assert_eq!(text_of(&response), "bye", "{kind:?}");
            // The close follows the answer: the next call must not be on its way before.
            until("the close to be seen", || gateway.log().matches("closed the connection").count() >= id);
        }
        assert_eq!(server.connections(), 10);
        assert!(!gateway.log().contains("during a call"), "no close counted as a crash");
    }
}

#[test]
fn garbage_is_passed_over_and_a_message_that_is_too_long_fails_its_call() {
    for kind in Kind::ALL {
        let server = SocketServer::start(kind);
        let gateway = gateway(&server, "");
        let mut client = gateway.client();
        assert_eq!(text_of(&client.ask(&tool(1, "garbage", ""))), "done", "{kind:?}");
        let long = client.ask(&tool(2, "long", ""));
        assert_eq!(long.status, 502, "{long:?}");
        assert!(long.text().contains("whether the call was carried out is unknown"), "{long:?}");
        if matches!(kind, Kind::Tcp | Kind::Tls) {
            assert!(long.text().contains("answer is too long"), "{long:?}");
            assert_eq!(text_of(&client.ask(&echo(3, "as before"))), "as before");
            assert_eq!(server.connections(), 1, "one line does not end a connection");
        } else {
            until("a new connection", || gateway.client().ask(&echo(3, "again")).status == 200);
        }
    }
}

#[test]
fn a_websocket_is_opened_with_the_policy_s_headers_and_kept_to_its_rules() {
    for kind in [Kind::Ws, Kind::Wss] {
        let server = SocketServer::start(kind);
        let gateway = gateway(&server, "header.Authorization = \"Bearer the-server-s-own\"\n");
        let mut client = gateway.client();
        assert_eq!(text_of(&client.ask(&tool(1, "ping", ""))), "done", "{kind:?}");
        let head = server.heads().pop().unwrap();
        assert!(head.starts_with("GET /mcp?v=1 HTTP/1.1\r\n"), "{head}");
        for line in [
            format!("Host: 127.0.0.1:{}\r\n", server.address.port()).as_str(),
            "Sec-WebSocket-Protocol: mcp\r\n",
            "Authorization: Bearer the-server-s-own\r\n",
        ] {
            assert_eq!(head.matches(line).count(), 1, "{head}");
        }
        assert!(!head.contains(TOKEN), "the client's token stays here");
        until("the ping to be answered", || server.heard().iter().any(|(_, one)| one["pong"] == "are you there"));
        let refused = client.ask(&tool(2, "binary", ""));
        assert_eq!(refused.status, 502, "{refused:?}");
        until("1003", || server.heard().iter().any(|(_, one)| one["close"] == 1003));
        until("a new connection", || gateway.client().ask(&echo(3, "again")).status == 200);
        gateway.signal(rustix::process::Signal::TERM);
        until("a close in good order", || server.heard().iter().any(|(no, one)| *no == 2 && one["close"] == 1000));
    }
}

/// A client of the TCP door, which goes to a WebSocket without a broker in between: authenticated, and one message further. Its answer.
fn say_directly(gateway: &Gateway, message: &str) -> (std::net::TcpStream, Value) {
    let mut client = std::net::TcpStream::connect(gateway.tcp).unwrap();
    writeln!(client, r#"{{"jsonrpc":"2.0","id":1,"method":"authenticate","params":{{"token":"{TOKEN}"}}}}"#).unwrap();
    writeln!(client, "{message}").unwrap();
    let mut answers = std::io::BufReader::new(client.try_clone().unwrap()).lines().map(Result::unwrap);
    assert!(answers.next().unwrap().contains("\"authenticated\":true"));
    (client, serde_json::from_str(&answers.next().unwrap()).unwrap())
}

fn body_of(request: &[u8]) -> &str {
    std::str::from_utf8(request).unwrap().split_once("\r\n\r\n").unwrap().1
}

#[test]
fn a_direct_websocket_ends_with_a_close_frame_whoever_ends_it() {
    for (name, code) in [("binary", 1003), ("bye", 1001)] {
        let server = SocketServer::start(Kind::Ws);
        let gateway = gateway(&server, "");
        let (_client, answer) = say_directly(&gateway, body_of(&tool(2, name, "")));
        assert_eq!((answer["id"].as_u64(), answer["error"].is_object()), (Some(2), name == "binary"), "{answer}");
        until("our Close", || server.heard().iter().any(|(_, one)| one["close"] == code));
    }
    let server = SocketServer::start(Kind::Ws);
    let gateway = gateway(&server, "");
    let (client, answer) = say_directly(&gateway, &initialize());
    assert!(answer["result"]["serverInfo"].is_object(), "{answer}");
    drop(client);
    until("the owner's leave", || server.heard().iter().any(|(_, one)| one["close"] == 1000));
}

#[test]
fn every_call_of_a_lost_session_is_told_to_initialize_again() {
    // Of the only server, that is: over a connection of the client's own, and over one that clients share.
    for kind in Kind::ALL {
        let server = SocketServer::start(kind);
        let gateway = gateway(&server, "");
        let mut peer = Peer::tcp(&gateway);
        assert!(peer.ask(&initialize())["result"].is_object());
        peer.say("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
        let to = |id: u64, tool: &str| call(id).replace("\"echo\"", &format!("\"{tool}\""));
        assert_eq!(peer.ask(&to(1, "echo"))["id"], 1);
        assert_eq!(peer.ask(&to(2, "die"))["error"]["code"], -32001);
        // In one write: both are on their way before the first is answered.
        let both = [peer.framed(&to(3, "echo")), peer.framed(&to(4, "echo"))].concat();
        peer.client.send(&both);
        let answers = [peer.hear(), peer.hear(), peer.ask(&to(5, "echo"))];
        for answer in answers {
            assert_eq!(answer["error"]["message"], "Session not found: initialize again", "{kind:?}: {answer}");
        }
    }
}

#[test]
fn of_a_direct_connection_that_has_ended_nothing_is_kept() {
    for kind in [Kind::Tcp, Kind::Ws] {
        let server = SocketServer::start(kind);
        let gateway = gateway(&server, "");
        // A probe of the upstream may be on its way.
        let before = (0..20).map(|_| gateway.sockets()).min().unwrap();
        let (client, answer) = say_directly(&gateway, body_of(&tool(2, "bye", "")));
        assert_eq!(answer["id"], 2, "{kind:?}: {answer}");
        drop(client);
        until("the sockets to be closed, though nobody calls again", || gateway.sockets() <= before);
    }
}

#[test]
fn a_slow_server_hinders_no_other() {
    let (slow, quick) = (SocketServer::start(Kind::Tcp), SocketServer::start(Kind::Ws));
    let gateway = several(&[("slow", &slow, "call_timeout_ms = 3000\n"), ("quick", &quick, "")]);
    until("the tools of both", || {
        let listed = gateway.client().ask(&modern(1, "tools/list", None, "")).json();
        listed["result"]["tools"].as_array().is_some_and(|tools| tools.len() == 4)
    });
    let mut waiting = gateway.client();
    waiting.send(&tool(1, "slow__hold", ""));
    until("the call to be held", || slow.calls("hold") == 1);
    for id in 0..100 {
        let response = gateway.client().ask(&tool(id, "quick__echo", ",\"arguments\":{\"text\":\"quick\"}"));
        assert_eq!(text_of(&response), "quick");
    }
    let late = waiting.response();
    assert_eq!(late.status, 504, "{late:?}");
    until("the call to be cancelled at the server", || slow.count("notifications/cancelled") == 1);
}

#[test]
fn calls_in_flight_are_one_number_whatever_they_travel_over() {
    let hold = stateless(1, "tools/call", "\"name\":\"hold\"");
    for kind in [Kind::Tcp, Kind::Ws] {
        let server = SocketServer::start(kind);
        let gateway = gateway(&server, "max_in_flight = 3\n");
        let refused_everywhere = || {
            // New connections come to either worker, over the workers' own connections and over the one that HTTP clients share.
            for id in 10..14 {
                let answer = Peer::tcp(&gateway).ask(&stateless(id, "tools/call", "\"name\":\"echo\""));
                let text = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{kind:?}: {answer}"));
                assert!(text.contains("too many calls in flight; the call was not made"), "{text}");
                let answer = gateway.client().ask(&echo(id, "more"));
                assert_eq!((answer.status, &answer.json()["error"]["code"]), (503, &(-32001).into()), "{kind:?}");
            }
        };
        let fill = |before: usize| {
            let mut own = Peer::websocket(&gateway);
            assert!(own.ask(&initialize())["result"].is_object());
            own.say(&call(1).replace("\"echo\"", "\"hold\""));
            let mut shared = Peer::websocket(&gateway);
            shared.say(&hold);
            let mut brokered = gateway.client();
            brokered.send(&tool(1, "hold", ""));
            until("three to be held", || server.calls("hold") == before + 3);
            (own, shared, brokered)
        };
        let (mut own, shared, mut brokered) = fill(0);
        refused_everywhere();
        // Who leaves gives its place to the next. (On the TCP door it would be answered first.)
        drop(shared);
        until("a place", || gateway.client().ask(&echo(20, "next")).status == 200);
        let mut shared = Peer::websocket(&gateway);
        shared.say(&hold);
        until("the fourth to be held", || server.calls("hold") == 4);
        refused_everywhere();
        // A connection that ends gives back what was out over it.
        server.cut();
        assert!(own.hear()["error"].is_object());
        assert!(shared.hear()["error"].is_object());
        assert_eq!(brokered.response().status, 502);
        drop((own, shared, brokered));
        until("all places", || gateway.client().ask(&echo(21, "back")).status == 200);
        let again = fill(4);
        refused_everywhere();
        drop(again);
        gateway.unharmed();
    }
}

#[test]
fn a_session_with_several_servers_outlives_the_connection_to_one_of_them() {
    for kind in [Kind::Tcp, Kind::Wss] {
        let (a, b) = (SocketServer::start(kind), SocketServer::start(kind));
        let gateway = several(&[("a", &a, ""), ("b", &b, "")]);
        let mut peer = Peer::tcp(&gateway);
        let at = |id: usize, name: &str| call(id).replace("\"echo\"", &format!("\"{name}__echo\""));
        b.stop();
        assert!(peer.ask(&initialize())["result"].is_object());
        peer.say("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
        let down = peer.ask(&at(1, "b"));
        assert!(down["error"]["message"].as_str().unwrap().contains("the call was not made"), "{kind:?}: {down}");
        assert_eq!(peer.ask(&at(2, "a"))["result"]["isError"], false, "{kind:?}");
        // Whatever happens to one server, no call is told to initialize again.
        let mut answered_by_b = || {
            until("an answer of b", || {
                let answer = peer.ask(&at(3, "b"));
                let refusal = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
                assert!(!refusal.contains("initialize"), "{kind:?}: {answer}");
                answer["result"]["isError"] == false
            });
        };
        b.start_again();
        answered_by_b();
        b.cut();
        answered_by_b();
        assert_eq!((a.count("initialize"), a.count("notifications/initialized")), (1, 1), "{kind:?}");
        assert_eq!((b.count("initialize"), b.count("notifications/initialized")), (2, 2), "{kind:?}");
    }
}

#[test]
fn a_certificate_that_is_not_trusted_gets_no_call() {
    for kind in [Kind::Tls, Kind::Wss] {
        let mut server = SocketServer::start(kind);
        let other = SocketServer::start(kind);
        server.certificate.clone_from(&other.certificate);
        let gateway = gateway(&server, "");
        let response = gateway.client().ask(&echo(1, "secret"));
        assert_eq!(response.status, 503, "{response:?}");
        assert!(response.text().contains("cannot be reached; the call was not made"), "{response:?}");
        assert!(server.heard().is_empty() && server.heads().is_empty());
        until("the log to say why", || gateway.log().contains("invalid peer certificate"));
    }
}

/// Ends with the test, however that ends.
struct Sample(std::process::Child);

impl Drop for Sample {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_sample_server_can_be_had_over_every_transport() {
    for transport in ["tcp", "ws", "http"] {
        let sample = std::process::Command::new(env!("CARGO_BIN_EXE_ringwall"))
            .args(["sample-server", "--transport", transport, "--listen", "127.0.0.1:0"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut sample = Sample(sample);
        let mut said = String::new();
        std::io::BufReader::new(sample.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let url = said.trim().rsplit(' ').next().unwrap();
        assert!(url.starts_with(&format!("{transport}://127.0.0.1:")), "{said}");
        let gateway = Gateway::with_policy(&[], &format!("[upstream.sample]\nurl = \"{url}\"\n")).ready();
        let send = ",\"arguments\":{\"to\":\"+15550100\",\"body\":\"hello\"}";
        let sent = gateway.client().ask(&tool(1, "comms_send_message", send));
        assert!(text_of(&sent).contains("sample-1"), "{sent:?}");
        // The other era, and another connection where it has one.
        let list = call(2).replace("\"echo\"", "\"comms_list_messages\"");
        let opened = gateway.post(&initialize());
        let listed = match opened.field("mcp-session-id") {
            Some(id) => gateway.client().ask(&with(&post(&list), &format!("Mcp-Session-Id: {id}"))),
            None => gateway.post(&list),
        };
        assert!(text_of(&listed).contains("hello"), "{listed:?}");
        let unknown = gateway.client().ask(&modern(3, "no/such", None, ""));
        assert_eq!((unknown.status, unknown.json()["error"]["code"].clone()), (404, (-32601).into()), "{transport}");
    }
}

/// One call over a WebSocket to `listener`, whose peer has `connect_timeout` for the handshake and is asked after `ping_every` of silence
/// whether it is there.
fn one_call(
    listener: &TcpListener,
    (connect_timeout, ping_every): (Duration, Duration),
    test: impl AsyncFnOnce(CallHandle),
) {
    let address = listener.local_addr().unwrap();
    let upstream = Arc::new(UpstreamState::new("silent"));
    upstream.addresses.publish(vec![address]);
    let target = SocketTarget {
        transport: SocketTransport::WebSocket,
        tls: false,
        host: "127.0.0.1".to_owned(),
        port: address.port(),
        path_and_query: "/".to_owned(),
        authority: address.to_string(),
        max_instances: 1,
    };
    let spec =
        SocketSpec { target, upstream, tls: None, fields: zeroize::Zeroizing::default(), connect_timeout, ping_every };
    let (handle, thread) = spawn(vec![ChildSpec::socket("silent", spec)]).unwrap();
    let raw = br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#.to_vec();
    let parts = Parts::find(&raw).unwrap();
    let (session, kind, principal, cancel_on_drop) = (None, CallKind::Request, 1, true);
    let call = handle.call(0, ChildCall { raw, parts, session, kind, principal, cancel_on_drop }).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(blackbox::PATIENCE, test(call)).await.expect("an end") });
    handle.stop();
    thread.join().unwrap();
}

#[test]
fn a_websocket_peer_that_is_silent_is_asked_and_given_up_when_it_does_not_answer() {
    let pings = |answers: usize, every: Duration| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.try_clone().unwrap();
        let server = std::thread::spawn(move || {
            let mut wire = socket_server::Wire::websocket(at.accept().unwrap().0);
            wire.upgrade().unwrap();
            wire.pings_until_the_end(answers)
        });
        one_call(&listener, (blackbox::PATIENCE, every), async |mut call| {
            assert_eq!(call.recv().await, Some(ChildMessage::Gone { reason: Gone::Disconnected }));
        });
        server.join().unwrap()
    };
    for answers in [0, 5] {
        // A busy machine may answer later than it is waited for; then it is asked more slowly.
        let mut every = Duration::from_millis(50);
        let asked = loop {
            let asked = pings(answers, every);
            if asked > answers || every > Duration::from_secs(5) {
                break asked;
            }
            every *= 4;
        };
        assert_eq!(asked, answers + 1, "asked once more than answered");
    }
}

#[test]
fn a_server_that_does_not_answer_the_handshake_is_not_waited_for() {
    for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.try_clone().unwrap();
        let server = std::thread::spawn(move || {
            let mut stream = at.accept().unwrap().0;
            stream.write_all(answer.as_bytes()).unwrap();
            let mut head = Vec::new();
            let _ = stream.read_to_end(&mut head);
            head
        });
        let soon = (Duration::from_millis(500), Duration::from_millis(50));
        one_call(&listener, soon, async |mut call| match call.recv().await {
            Some(ChildMessage::Gone { reason: reason @ Gone::Unreachable { .. } }) => assert!(reason.nothing_sent()),
            other => panic!("{other:?}"),
        });
        assert!(!String::from_utf8(server.join().unwrap()).unwrap().contains("tools/list"), "the call was not sent");
    }
}
