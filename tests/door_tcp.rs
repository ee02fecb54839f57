//! Promise: on the TCP door a client authenticates and then says one message a line, as many at once as it likes; every answer comes with its
//! id, whatever is refused is refused in the contract's words, and nothing is held of who has gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;
#[path = "support/socket_server.rs"]
mod socket_server;

use blackbox::{
    Client, Gateway, Next, Peer, TOKEN, Upstream, authenticate, call, id_of, initialize, result, stateless, until,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use socket_server::{Kind, SocketServer};

fn tool(id: impl std::fmt::Display, name: &str) -> String {
    stateless(id, "tools/call", &format!("\"name\":\"{name}\",\"arguments\":{{\"text\":\"hello\"}}"))
}

fn echo(id: impl std::fmt::Display) -> String {
    tool(id, "echo")
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

fn before(server: &SocketServer) -> Gateway {
    Gateway::with_policy(&[], &server.policy("only")).ready()
}

/// What a connection gets that is not let in: this line alone, and the end.
fn turned_away(gateway: &Gateway, text: &str) {
    let mut client = Client::connect(gateway.tcp);
    assert_eq!(String::from_utf8(client.rest()).unwrap(), format!("{{\"error\":\"{text}\"}}\n"));
}

#[test]
fn who_is_not_let_in_gets_one_line_and_the_end() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("IP_DENYLIST", "127.0.0.0/8")], upstream.address);
    turned_away(&gateway, "Forbidden");
    gateway.audited("blocked_connection", |line| line["rule"] == "ip-denylist");

    for (setting, rule) in [("TCP_MAX_CONNECTIONS", "door-connections"), ("MAX_CONNECTIONS_PER_IP", "ip-connections")] {
        let gateway = Gateway::start(&[(setting, "2")], upstream.address).ready();
        let (one, two) = (Peer::tcp(&gateway), Peer::tcp(&gateway));
        turned_away(&gateway, "Service unavailable - connection limit reached");
        gateway.audited("connection_limit", |line| line["rule"] == rule);
        assert_eq!(gateway.metric_of("ringwall_connections_refused_total", "\"tcp\"") as u64, 1, "{setting}");
        // Whoever leaves makes room.
        drop(one);
        until("the place to be free", || gateway.open_on("tcp") == 1);
        assert_eq!(Peer::tcp(&gateway).ask(&echo(1))["id"], 1);
        drop(two);
    }
}

#[test]
fn a_door_that_is_full_does_not_fill_the_other() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("TCP_MAX_CONNECTIONS", "1")], upstream.address).ready();
    let _one = Peer::tcp(&gateway);
    turned_away(&gateway, "Service unavailable - connection limit reached");
    assert_eq!(gateway.post(&call(1)).status, 200);
    assert_eq!(Peer::websocket(&gateway).ask(&echo(1))["id"], 1);
}

#[test]
fn the_right_token_lets_in_and_any_other_ends_the_connection() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(
        &[("WS_AUTH_TOKEN", "the-other-door-s-token-0123456789abcdef"), ("MCP_LOG_LEVEL", "debug")],
        upstream.address,
    );
    for id in ["1", "\"a\"", "18446744073709551616"] {
        let mut peer = Peer::stranger(&gateway);
        peer.say(&authenticate(id, TOKEN));
        let expected = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"authenticated\":true}}}}");
        assert_eq!(peer.hear_text(), expected);
        assert_eq!(peer.ask(&echo(1))["id"], 1);
    }
    let ask = |params: &str| format!("{{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"authenticate\"{params}}}");
    let refused = [
        ask(",\"params\":{\"token\":\"wrong-token-of-this-test-0123456789\"}"),
        ask(",\"params\":{\"token\":\"the-other-door-s-token-0123456789abcdef\"}"),
        ask(",\"params\":{\"token\":\"\"}"),
        ask(",\"params\":{\"token\":7}"),
        ask(",\"params\":{}"),
        ask(""),
    ];
    for message in &refused {
        let mut peer = Peer::stranger(&gateway);
        peer.say(message);
        // What comes behind it is not looked at.
        let _ = peer.client.try_send(format!("{}\n{}\n", authenticate("8", TOKEN), echo(9)).as_bytes());
        let expected =
            "{\"jsonrpc\":\"2.0\",\"id\":7,\"error\":{\"code\":-32000,\"message\":\"Authentication failed\"}}\n";
        assert_eq!(String::from_utf8(peer.client.rest()).unwrap(), expected, "{message}");
    }
    until("all refusals to be counted", || {
        gateway.metric_of("ringwall_auth_failures_total", "\"tcp\"") as usize == refused.len()
    });
    gateway.audited("invalid_auth", |line| line["rule"] == "authentication");
    gateway.audited("auth_success", |_| true);
    let told = format!("{}{:?}", gateway.log(), gateway.trail());
    for secret in [TOKEN, "wrong-token", "the-other-door-s"] {
        assert!(!told.contains(secret), "{secret} was written down");
    }
    assert!(upstream.requests().iter().all(|request| request.id() == "1"));
    gateway.unharmed();
}

#[test]
fn authenticating_again_changes_nothing_and_as_another_ends_the_connection() {
    let upstream = Upstream::echo();
    let gateway = Gateway::with_policy(&[], &agents(&upstream));
    let mut peer = Peer::tcp(&gateway);
    peer.authenticate(TOKEN);
    assert_eq!(peer.ask(&echo(1))["id"], 1);
    assert_eq!(peer.ask(&authenticate("2", BOT))["error"]["message"], "Authentication failed");
    assert!(peer.client.is_closed());
}

#[test]
fn before_authentication_initialize_passes_once_and_nothing_else() {
    let upstream = Upstream::start(|request, conversation| {
        match request.rpc_method().as_str() {
        "initialize" => conversation.json(&result(
            &request.id(),
            "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},\"serverInfo\":{\"name\":\"s\",\"version\":\"1\"}}",
        )),
        _ => conversation.echo(request),
    }
    });
    let gateway = Gateway::start(&[], upstream.address).ready();
    let mut peer = Peer::stranger(&gateway);
    for message in [call("\"c\""), echo("\"c\""), call("\"c\"").replace("tools/call", "authenticated")] {
        peer.say(&message);
        let expected =
            "{\"jsonrpc\":\"2.0\",\"id\":\"c\",\"error\":{\"code\":-32000,\"message\":\"Authentication required\"}}";
        assert_eq!(peer.hear_text(), expected);
    }
    // A notification gets no answer, and goes nowhere.
    peer.say("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
    assert_eq!(peer.ask(&initialize())["result"]["protocolVersion"], "2025-11-25");
    assert_eq!(peer.ask(&initialize())["error"]["message"], "Authentication required");
    assert_eq!(peer.ask(&call(3))["error"]["message"], "Authentication required");
    assert_eq!(upstream.requests().len(), 1, "only the first initialize");
    peer.authenticate(TOKEN);
    peer.say("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
    assert_eq!(peer.ask(&call(4))["id"], 4);
}

#[test]
fn who_does_not_say_who_it_is_within_ten_seconds_is_closed() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address).ready();
    let mut silent = Peer::stranger(&gateway);
    let mut refused = Peer::stranger(&gateway);
    assert_eq!(refused.ask(&echo(1))["error"]["message"], "Authentication required");
    let mut begun = Peer::stranger(&gateway);
    begun.client.send(b"{\"jsonrpc\"");
    let mut known = Peer::tcp(&gateway);
    for peer in [&mut silent, &mut refused, &mut begun] {
        assert!(peer.client.is_closed(), "closed without a word");
    }
    gateway.audited("connection_timeout", |line| line["details"] == "no authentication in time");
    assert_eq!(known.ask(&echo(1))["id"], 1);
}

#[test]
fn a_bad_line_is_answered_and_the_connection_stays() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address).ready();
    let mut peer = Peer::tcp(&gateway);
    let table: [(&[u8], i64, &str); 11] = [
        (b"not json", -32700, "null"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":", -32700, "null"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"x\"} x", -32700, "null"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"\xff\"}", -32700, "null"),
        (b"{\"jsonrpc\":\"1.0\",\"id\":7,\"method\":\"x\"}", -32600, "7"),
        (b"{\"id\":\"a\",\"method\":\"x\"}", -32600, "\"a\""),
        (b"{\"jsonrpc\":\"2.0\",\"id\":9007199254740993,\"method\":7}", -32600, "9007199254740993"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"x\"}", -32600, "null"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"x\"}", -32600, "null"),
        (b"[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]", -32600, "null"),
        (b"5", -32600, "null"),
    ];
    for (line, code, id) in table {
        let shown = line.escape_ascii().to_string();
        peer.client.send(&[line, b"\n"].concat());
        let answer = peer.hear_text();
        let read: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((read["error"]["code"].as_i64(), id_of(answer.as_bytes()).as_str()), (Some(code), id), "{shown}");
        if code == -32600 {
            assert!(read["error"]["message"].as_str().unwrap().starts_with("Invalid request: "), "{answer}");
        }
        assert_eq!(peer.ask(&echo(1))["id"], 1, "{shown}");
    }
    gateway.audited("invalid_input", |line| line["rule"] == "duplicate-key");
    assert!(upstream.requests().iter().all(|request| request.id() == "1"));
}

#[test]
fn line_ends_and_blank_lines_are_taken_as_they_come() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address).ready();
    let mut peer = Peer::tcp(&gateway);
    peer.client.send(format!("\n\r\n  \t\r\n{}\r\n\n{}\n\r\n", echo(1), echo(2)).as_bytes());
    let mut ids: Vec<i64> = (0..2).map(|_| peer.hear()["id"].as_i64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
    // A line in many pieces, and blanks around the message.
    let line = format!("  {}\t \r\n", echo(3));
    for piece in line.as_bytes().chunks(7) {
        peer.client.send(piece);
    }
    assert_eq!(peer.hear()["id"], 3);
    // A line that the end of the connection cuts short is none.
    peer.client.send(echo(4).as_bytes());
    peer.client.half_close();
    assert!(peer.client.is_closed());
    assert!(upstream.requests().iter().all(|request| request.id() != "4"));
}

#[test]
fn a_line_that_is_too_long_is_refused_before_it_ends() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("MAX_MESSAGE_SIZE", "4096")], upstream.address).ready();
    let padded = |id: u32, len: usize| {
        let message = echo(id);
        let pad = "x".repeat(len - message.len());
        message.replace("hello", &format!("hello{pad}"))
    };
    let mut peer = Peer::tcp(&gateway);
    assert_eq!(peer.ask(&padded(1, 4096))["id"], 1, "as long as it may be");
    let refusal = "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,\"message\":\"Message too large\"}}\n";
    for line in [format!("{}\n", padded(2, 4097)).into_bytes(), vec![b'x'; 4097], vec![b' '; 100_000]] {
        let mut peer = Peer::tcp(&gateway);
        let _ = peer.client.try_send(&line);
        assert_eq!(String::from_utf8(peer.client.rest()).unwrap(), refusal);
    }
    gateway.audited("invalid_input", |line| line["rule"] == "message-size");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn an_answer_that_is_too_long_fails_its_call_and_no_other() {
    // In one write: the gateway's last read may bring more than what was still allowed.
    let upstream = Upstream::start(|request, conversation| {
        if !request.text().contains("\"long\"") {
            return conversation.echo(request);
        }
        let text = "x".repeat(17 << 20);
        conversation
            .json(&result(&request.id(), &format!("{{\"content\":[{{\"type\":\"text\",\"text\":\"{text}\"}}]}}")))
    });
    let gateway = Gateway::start(&[], upstream.address).ready();
    let mut peer = Peer::tcp(&gateway);
    for id in 1..=4 {
        let answer = peer.ask(&tool(id, "long"));
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&id.into(), &(-32001).into()), "{answer}");
        let next = peer.ask(&echo(100 + id));
        assert_eq!(next["id"], 100 + id, "the connection goes on: {next}");
    }
}

#[test]
fn five_hundred_calls_in_one_write_are_all_answered_under_their_own_ids() {
    let ids: Vec<String> = (0..500)
        .map(|at| match at % 4 {
            0 => at.to_string(),
            1 => format!("\"{at}\""),
            2 => format!("\"\\u00e9\\\"-{at}\""),
            _ => format!("9007199254740993{at}"),
        })
        .collect();
    let mut wanted = ids.clone();
    wanted.sort_unstable();
    let check = |gateway: &Gateway| {
        let mut peer = Peer::tcp(gateway);
        let lines: String = ids.iter().map(|id| format!("{}\n", echo(id))).collect();
        peer.client.send(lines.as_bytes());
        let mut got: Vec<String> = (0..ids.len())
            .map(|_| {
                let answer = peer.hear_text();
                assert!(answer.contains("\"result\""), "{answer}");
                id_of(answer.as_bytes())
            })
            .collect();
        got.sort_unstable();
        assert_eq!(got, wanted);
        drop(peer);
        gateway.unharmed();
    };
    let upstream = Upstream::echo();
    check(&Gateway::start(&[], upstream.address).ready());
    for kind in [Kind::Tcp, Kind::Ws] {
        let server = SocketServer::start(kind);
        check(&before(&server));
        assert_eq!(server.connections(), 1, "{kind:?}");
    }
}

#[test]
fn a_slow_call_holds_no_other_up_and_answers_reach_who_has_ended_its_side() {
    let upstream = holding();
    let gateway = Gateway::start(&[], upstream.address).ready();
    let mut peer = Peer::tcp(&gateway);
    peer.say(&tool("\"slow\"", "hold"));
    for id in 1..=20 {
        assert_eq!(peer.ask(&echo(id))["id"], id);
    }
    // As nc does: everything is said, and the answers are read until the end.
    peer.client.send(format!("{}\n{}\n", tool("\"slow too\"", "hold"), echo(21)).as_bytes());
    peer.client.half_close();
    assert_eq!(peer.hear()["id"], 21);
    upstream.wait("both", |log| log.requests.iter().filter(|request| request.text().contains("\"hold\"")).count() == 2);
    upstream.say("answer");
    let mut slow = [peer.hear()["id"].to_string(), peer.hear()["id"].to_string()];
    slow.sort_unstable();
    assert_eq!(slow, ["\"slow too\"", "\"slow\""]);
    assert!(peer.client.is_closed());
    drop(peer);
    gateway.unharmed();
}

#[test]
fn a_client_that_vanishes_takes_its_calls_along() {
    let upstream = Upstream::start(|request, conversation| {
        if !request.text().contains("\"hold\"") {
            return conversation.echo(request);
        }
        assert!(conversation.wait_for_close());
        conversation.note("closed");
        Next::Close
    });
    // Longer than the test waits: it is not the time that ends a call.
    let patient = "call_timeout_ms = 120000\n";
    let policy = format!("[upstream.only]\nurl = \"http://{}/mcp\"\n{patient}", upstream.address);
    let gateway = Gateway::with_policy(&[], &policy).ready();
    let mut peer = Peer::tcp(&gateway);
    peer.client.send(format!("{}\n{}\n", tool(1, "hold"), tool(2, "hold")).as_bytes());
    upstream.wait("the calls", |log| log.requests.len() == 2);
    peer.client.reset();
    upstream.wait("the calls to be given up", |log| log.notes.len() == 2);
    gateway.unharmed();
    until("the cancelled calls to be counted", || {
        gateway.metric_of("ringwall_calls_total", "door=\"tcp\",outcome=\"cancelled\"") as u64 == 2
    });

    for kind in [Kind::Tcp, Kind::Ws] {
        let server = SocketServer::start(kind);
        let gateway = Gateway::with_policy(&[], &format!("{}{patient}", server.policy("only"))).ready();
        let mut other = Peer::tcp(&gateway);
        let mut peer = Peer::tcp(&gateway);
        peer.say(&tool(1, "hold"));
        until("the call to be held", || server.calls("hold") == 1);
        let number = server.heard().iter().find(|(_, one)| one["params"]["name"] == "hold").unwrap().1["id"].clone();
        peer.client.reset();
        until("the cancellation", || {
            let is_it =
                |one: &Value| one["method"] == "notifications/cancelled" && one["params"]["requestId"] == number;
            server.heard().iter().any(|(_, one)| is_it(one))
        });
        assert_eq!(other.ask(&echo(1))["id"], 1);
        assert_eq!(server.count("notifications/cancelled"), 1, "{kind:?}");
    }
}

#[test]
fn a_call_that_its_client_cancels_is_given_up_and_not_answered() {
    let cancel = |id: &str| {
        format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{id},\"_meta\":{{\
             \"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}}}}}}"
        )
    };
    let upstream = Upstream::start(|request, conversation| {
        if !request.text().contains("\"hold\"") {
            return conversation.echo(request);
        }
        assert!(conversation.wait_for_close());
        conversation.note("closed");
        Next::Close
    });
    let gateway = Gateway::start(&[], upstream.address).ready();
    let mut peer = Peer::tcp(&gateway);
    peer.say(&tool("\"1\"", "hold"));
    upstream.wait("the call", |log| log.requests.len() == 1);
    // Another id, and the same digits as another type, name no call.
    peer.say(&cancel("2"));
    peer.say(&cancel("1"));
    assert_eq!(peer.ask(&echo(3))["id"], 3);
    assert!(upstream.log(|log| log.notes.is_empty()));
    peer.say(&cancel("\"1\""));
    upstream.wait("the call to be given up", |log| log.notes.len() == 1);
    assert_eq!(peer.ask(&echo(4))["id"], 4, "and no answer before");

    let server = SocketServer::start(Kind::Tcp);
    let gateway = before(&server);
    let mut peer = Peer::tcp(&gateway);
    peer.say(&tool("\"1\"", "hold"));
    until("the call to be held", || server.calls("hold") == 1);
    peer.say(&cancel("\"1\""));
    until("the cancellation", || server.count("notifications/cancelled") == 1);
    assert_eq!(peer.ask(&tool(5, "release"))["id"], 5, "the held answer has no owner");
    assert_eq!(peer.ask(&echo(6))["id"], 6);
    drop(peer);
    gateway.unharmed();
}

#[test]
fn sigterm_lets_calls_in_flight_be_answered_and_then_closes() {
    let upstream = holding();
    let mut gateway = Gateway::start(&[], upstream.address).ready();
    let (mut idle, mut stranger) = (Peer::tcp(&gateway), Peer::stranger(&gateway));
    let mut peer = Peer::tcp(&gateway);
    peer.say(&tool(1, "hold"));
    upstream.wait("the call", |log| log.requests.len() == 1);
    gateway.signal(Signal::TERM);
    assert!(idle.client.is_closed() && stranger.client.is_closed());
    upstream.say("answer");
    assert_eq!(peer.hear()["id"], 1);
    assert!(peer.client.is_closed());
    assert!(gateway.exit().success(), "{}", gateway.log());
}

#[test]
fn an_idle_connection_is_closed_and_one_that_waits_for_its_answer_is_not() {
    let upstream = holding();
    let gateway = Gateway::start(&[("TCP_CONNECTION_TIMEOUT", "300")], upstream.address).ready();
    // In one write: between the two it is idle for no time.
    let mut busy = Peer::stranger(&gateway);
    busy.client.send(format!("{}\n{}\n", authenticate("0", TOKEN), tool(1, "hold")).as_bytes());
    assert_eq!(busy.hear()["result"]["authenticated"], true);
    upstream.wait("the call", |log| log.requests.len() == 1);
    for _ in 0..2 {
        // One after the other: twice the time goes by. Whoever is too slow to say who it is within that time is closed as well.
        until("an idle client", || {
            let known = Peer::try_tcp(&gateway);
            known.is_some_and(|mut peer| peer.client.is_closed())
        });
    }
    upstream.say("answer");
    assert_eq!(busy.hear()["id"], 1);
    assert!(busy.client.is_closed(), "idle from its answer on");
    gateway.audited("connection_timeout", |line| line["details"] == "idle");
}

#[test]
fn a_line_that_does_not_come_to_its_end_in_time_ends_the_connection() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("BODY_TIMEOUT", "300")], upstream.address).ready();
    let mut peer = Peer::tcp(&gateway);
    peer.client.send(b"{\"jsonrpc\":");
    assert!(peer.client.is_closed());
    gateway.audited("connection_timeout", |line| line["details"] == "a message did not come to its end in time");
}

const BOT: &str = "agent-token-of-support-bot-0123456789abcdef";

fn agents(upstream: &Upstream) -> String {
    let hash = Sha256::digest(BOT).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!(
        "[upstream.only]\nurl = \"http://{}/mcp\"\n[agent.support-bot]\ntoken_sha256 = \"{hash}\"\n",
        upstream.address
    )
}

#[test]
fn an_agent_s_token_speaks_for_that_agent_alone() {
    let upstream = Upstream::echo();
    for style in ["tool-result", "jsonrpc-error"] {
        let gateway = Gateway::with_policy(&[("DENIAL_STYLE", style)], &agents(&upstream)).ready();
        for mut peer in [Peer::tcp_with(&gateway, BOT), Peer::websocket_with(&gateway, BOT)] {
            upstream.take_requests();
            assert_eq!(peer.ask(&echo(1))["id"], 1);
            let sent = upstream.last().text();
            assert!(sent.contains("\"arguments\":{\"agentId\":\"support-bot\",\"text\":\"hello\"}"), "{sent}");
            let own = echo(2).replace("\"text\":\"hello\"", "\"agentId\":\"support-bot\"");
            assert_eq!(peer.ask(&own)["id"], 2);
            assert_eq!(upstream.last().text(), own);
            let other = echo(3).replace("\"text\":\"hello\"", "\"agentId\":\"other-bot\"");
            let answer = peer.ask(&other);
            let text = "Token for agent \"support-bot\" cannot access agent \"other-bot\"";
            if style == "jsonrpc-error" {
                assert_eq!(answer["error"], json!({"code": -32602, "message": text}));
            } else {
                let result = &answer["result"];
                assert_eq!(
                    (&result["isError"], &result["content"][0]["text"]),
                    (&json!(true), &json!(text)),
                    "{answer}"
                );
                let told = json!({"error": text, "rule": "agent-binding", "field": "/params/arguments/agentId"});
                assert_eq!(result["structuredContent"], told);
            }
            assert_eq!(peer.ask(&echo(4))["id"], 4, "the connection stays");
            assert_eq!(upstream.requests().len(), 3, "what was refused was not forwarded");
        }
        gateway.audited("invalid_auth", |line| line["rule"] == "agent-binding" && line["agentId"] == "support-bot");
    }
}

#[test]
fn what_happens_on_the_door_is_counted_and_recorded() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address).ready();
    let mut peer = Peer::tcp(&gateway);
    assert_eq!(gateway.open_on("tcp"), 1);
    assert_eq!(gateway.metric_of("ringwall_connections_open", "door=\"tcp\"") as u64, 1);
    for id in 1..=3 {
        assert_eq!(peer.ask(&echo(id))["id"], id);
    }
    drop(peer);
    gateway.unharmed();
    let count = |name: &str, more: &str| gateway.metric_of(name, &format!("door=\"tcp\"{more}")) as u64;
    until("the calls to be counted", || count("ringwall_calls_total", ",outcome=\"ok\"") == 3);
    assert_eq!(count("ringwall_connections_accepted_total", ""), 1);
    until("the close to be counted", || count("ringwall_connections_closed_total", "") == 1);
    until("the bytes to be counted", || {
        count("ringwall_received_bytes_total", "") > 300 && count("ringwall_sent_bytes_total", "") > 250
    });
    let called = gateway.audited("tool_call", |line| line["requestId"] == "2");
    assert_eq!((&called["tool"], &called["outcome"]), (&json!("echo"), &json!("ok")), "{called}");
    let closed = gateway.audited("connection_closed", |_| true);
    assert!(closed["clientId"].as_str().unwrap().starts_with("tcp-"), "{closed}");
    assert_eq!(closed["clientId"], called["clientId"]);
    for event in ["connection_established", "auth_success"] {
        gateway.audited(event, |line| line["clientId"] == called["clientId"]);
    }
}

#[test]
fn a_client_that_does_not_read_stops_the_reading_of_its_upstream_and_is_cut() {
    const SIZE: usize = 256 << 20;
    let upstream = Upstream::start(|request, conversation| {
        if !request.text().contains("\"hold\"") {
            return conversation.echo(request);
        }
        conversation.begin_events();
        let text = "x".repeat(64 * 1024);
        let note = format!(
            "data: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{{\"data\":\"{text}\"}}}}\n\n"
        );
        let mut sent = 0;
        while sent < SIZE && conversation.chunk(note.as_bytes()) {
            sent += note.len();
        }
        conversation.note(&format!("{}", sent >> 20));
        Next::Close
    });
    let gateway = Gateway::start(&[("WRITE_TIMEOUT", "1500")], upstream.address).ready();
    assert_eq!(Peer::tcp(&gateway).ask(&echo(1))["id"], 1);
    let before = gateway.resident_bytes();
    let mut deaf = Peer::deaf(&gateway);
    deaf.say(&tool(2, "hold"));
    upstream.wait("the upstream to be given up", |log| log.notes.len() == 1);
    let sent: usize = upstream.log(|log| log.notes[0].parse().unwrap());
    assert!(sent < 32, "{sent} MiB were read for a client that takes nothing");
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes");
    gateway.audited("connection_timeout", |line| line["details"] == "the client did not take its answer in time");
    assert_eq!(Peer::tcp(&gateway).ask(&echo(3))["id"], 3);
    drop(deaf);
    gateway.unharmed();
}

#[test]
fn answers_over_a_shared_connection_are_kept_for_a_deaf_client_up_to_a_bound() {
    let server = SocketServer::start(Kind::Tcp);
    let sizes = [("MAX_BUFFER_SIZE", "1048576"), ("MAX_REQUEST_SIZE", "1048576"), ("WORKERS", "1")];
    let gateway = Gateway::with_policy(&sizes, &server.policy("only")).ready();
    let mut other = Peer::tcp(&gateway);
    assert_eq!(other.ask(&echo(1))["id"], 1);
    let before = gateway.resident_bytes();
    let mut deaf = Peer::deaf(&gateway);
    // 100 MiB of answers: more than both kernels hold.
    let lines: String = (0..400).map(|id| format!("{}\n", tool(id, "big"))).collect();
    deaf.client.send(lines.as_bytes());
    until("the deaf one to be cut", || gateway.open_on("tcp") == 1);
    assert_eq!(other.ask(&echo(2))["id"], 2, "the others are served over the same connection");
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes");
    drop((deaf, other));
    gateway.unharmed();
}
