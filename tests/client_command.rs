//! Promise: `ringwall client` takes its steps over each door and in both eras, says why where it cannot, and never prints the token.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "the threads of a test are its own")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;
#[path = "support/client_process.rs"]
mod client_process;
#[path = "support/socket_server.rs"]
mod socket_server;

use std::net::{SocketAddr, TcpListener};

use blackbox::{Gateway, Next, Nobody, TOKEN, Upstream, result};
use client_process::{Interactive, at, command, place, said};
use serde_json::Value;
use socket_server::{Kind, SocketServer};

const DOORS: [&str; 3] = ["tcp", "ws", "http"];

/// A gateway in front of the sample server.
fn sample() -> Gateway {
    let program = env!("CARGO_BIN_EXE_ringwall");
    Gateway::with_policy(&[], &format!("[upstream.sample]\ncommand = [\"{program}\", \"sample-server\"]\n")).ready()
}

#[test]
fn every_door_in_both_eras() {
    let gateway = sample();
    for door in DOORS {
        for era in [&[][..], &["--modern"]] {
            let said = at(&gateway, door, era, Some(TOKEN));
            assert_eq!(said.code, Some(0), "{door} {era:?}: {}{}", said.out, said.err);
            let steps: Vec<String> = said.out.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
            assert_eq!(steps, ["✓connect", "✓authenticate", "✓initialize", "✓tools", "✓call"], "{door}: {}", said.out);
            let version = if era.is_empty() { "2025-11-25" } else { "2026-07-28" };
            assert!(said.out.contains(&format!("ringwall-sample 0.1.0, {version}")), "{door}: {}", said.out);
            assert!(
                said.out.contains("4: comms_send_message, comms_make_call, comms_list_messages, echo"),
                "{}",
                said.out
            );
            assert!(said.out.contains("comms_list_messages {} → {\"messages\":[]"), "{}", said.out);
        }
    }
    assert_eq!(gateway.metric("ringwall_refusals_total"), 0.0, "it did nothing that was refused");
}

#[test]
fn the_tool_that_is_named_is_called() {
    let gateway = sample();
    let hello = ["--call", "echo", "--arguments", "{\"text\":\"good morning\"}"];
    for door in DOORS {
        for era in [&[][..], &["--modern"]] {
            let said = at(&gateway, door, &[&hello, era].concat(), Some(TOKEN));
            assert_eq!(said.code, Some(0), "{door}: {}", said.out);
            assert!(said.out.contains("→ good morning"), "{door}: {}", said.out);
        }
    }
    let made_up = at(&gateway, "tcp", &["--call", "echo"], Some(TOKEN));
    assert!(made_up.out.contains("echo {\"text\":\"hello\"} → hello"), "{}", made_up.out);
    at(&gateway, "ws", &["--call", "echo", "--arguments", "{}"], Some(TOKEN)).failed("call", "'text' is missing");
    at(&gateway, "tcp", &["--call", "none"], Some(TOKEN)).failed("call", "error -32602");
    at(&gateway, "tcp", &["--call", "echo", "--arguments", "[]"], Some(TOKEN)).failed("", "not an object");
}

#[test]
fn messages_as_json_lines() {
    let gateway = sample();
    for door in DOORS {
        let said = at(&gateway, door, &["--json"], Some(TOKEN));
        assert_eq!(said.code, Some(0), "{door}: {}", said.err);
        let lines: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let sent: Vec<&str> = lines.iter().filter_map(|line| line["sent"]["method"].as_str()).collect();
        let common = ["initialize", "notifications/initialized", "tools/list", "tools/call"];
        let want: Vec<&str> = (door == "tcp").then_some("authenticate").into_iter().chain(common).collect();
        assert_eq!(sent, want, "{door}");
        assert!(lines.iter().any(|line| line["received"]["result"]["tools"].is_array()), "{door}: {}", said.out);
        assert!(said.err.contains("✓ call"), "the steps are on standard error: {}", said.err);
    }
}

#[test]
fn a_token_that_is_wrong_or_missing() {
    let gateway = sample();
    for door in DOORS {
        for era in [&[][..], &["--modern"]] {
            let wrong = at(&gateway, door, era, Some("a-token-that-is-not-the-doors-0123456789"));
            wrong.failed("authenticate", "refused");
            assert!(wrong.out.contains("compare the token"), "{door}: {}", wrong.out);
            let none = at(&gateway, door, era, None);
            none.failed("authenticate", "refused");
            assert!(none.out.contains("_AUTH_TOKEN or RINGWALL_TOKEN"), "{door}: {}", none.out);
        }
    }
}

#[test]
fn tokens_come_from_variables_of_the_door_or_a_file() {
    let gateway = sample();
    let file = gateway.folder().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let file = file.to_str().unwrap();
    for (door, variable) in [("tcp", "TCP_AUTH_TOKEN"), ("ws", "WS_AUTH_TOKEN"), ("http", "WS_AUTH_TOKEN")] {
        let place = place(&gateway, door);
        let arguments: Vec<&str> = place.iter().map(String::as_str).collect();
        let status =
            command(door, &arguments, Some("wrong-but-of-less-weight")).env(variable, TOKEN).output().unwrap().status;
        assert!(status.success(), "{door}");
        let said = at(&gateway, door, &["--token-file", file], Some("wrong-but-of-less-weight"));
        assert_eq!(said.code, Some(0), "{door}: {}", said.out);
        assert!(!said.out.contains(TOKEN));
    }
    at(&gateway, "ws", &["--token-file", "/nowhere/token"], None)
        .failed("", "cannot read the token file /nowhere/token");
}

#[test]
fn nobody_listens() {
    let nobody = Nobody::new();
    let free = nobody.address;
    said("tcp", &["--address", &free.to_string()], Some(TOKEN)).failed("connect", "refused");
    said("ws", &["--url", &format!("ws://{free}/ws")], Some(TOKEN)).failed("connect", "refused");
    said("http", &["--url", &format!("http://{free}/mcp")], Some(TOKEN)).failed("connect", "refused");
    said("ws", &["--url", "http://127.0.0.1/ws"], Some(TOKEN)).failed("", "scheme of another door");
}

#[test]
fn another_door_than_was_thought() {
    let gateway = sample();
    let (bridge, tcp) = (gateway.bridge.to_string(), gateway.tcp.to_string());
    said("tcp", &["--address", &bridge], Some(TOKEN)).failed("authenticate", "HTTP answers here");
    said("ws", &["--url", &format!("ws://{tcp}/ws")], Some(TOKEN)).failed("connect", "no HTTP");
    said("http", &["--url", &format!("http://{tcp}/mcp")], Some(TOKEN)).failed("initialize", "no HTTP");
    said("ws", &["--url", &format!("ws://{bridge}/elsewhere")], Some(TOKEN)).failed("connect", "404");
    said("http", &["--url", &format!("http://{bridge}/elsewhere")], Some(TOKEN)).failed("initialize", "404");
    said("tcp", &["--address", &tcp, "--tls", "--timeout", "2"], Some(TOKEN)).failed("connect", "");
    said("http", &["--url", &format!("https://{bridge}/mcp")], Some(TOKEN)).failed("connect", "does not speak TLS");
}

/// Somebody who accepts and never says a word.
fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).collect::<Vec<_>>());
    address
}

#[test]
fn every_wait_has_an_end() {
    let silent = silent();
    fn with(place: [&str; 2]) -> Vec<&str> {
        [place, ["--timeout", "1"]].concat()
    }
    said("tcp", &with(["--address", &silent.to_string()]), Some(TOKEN))
        .failed("authenticate", "no answer to authenticate within 1 s");
    said("ws", &with(["--url", &format!("ws://{silent}/ws")]), Some(TOKEN)).failed("connect", "within 1 s");
    said("ws", &with(["--url", &format!("wss://{silent}/ws")]), Some(TOKEN)).failed("connect", "within 1 s");
    said("http", &with(["--url", &format!("http://{silent}/mcp")]), Some(TOKEN)).failed("initialize", "within 1 s");
}

#[test]
fn nothing_goes_over_a_network_in_clear_unasked() {
    // TEST-NET-1 (RFC 5737): nobody is there, and nobody is asked.
    let refused = said("tcp", &["--address", "192.0.2.1:9500"], Some(TOKEN));
    refused.failed("connect", "could be read on the way");
    assert!(refused.out.contains("--tls"), "{}", refused.out);
    said("ws", &["--url", "ws://192.0.2.1/ws"], Some(TOKEN)).failed("connect", "could be read on the way");
    said("http", &["--url", "http://192.0.2.1/mcp"], Some(TOKEN)).failed("connect", "could be read on the way");
    let asked = said("http", &["--url", "http://192.0.2.1/mcp", "--plaintext", "--timeout", "1"], Some(TOKEN));
    asked.failed("connect", "");
    assert!(!asked.out.contains("could be read on the way"), "{}", asked.out);
}

#[test]
fn certificates_are_verified() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    for (kind, door) in [(Kind::Tls, "tcp"), (Kind::Wss, "ws")] {
        let server = SocketServer::start(kind);
        std::fs::write(&ca, &server.certificate).unwrap();
        let port = server.address.port();
        let place = |host: &str| match door {
            "tcp" => vec!["--tls".to_owned(), "--address".to_owned(), format!("{host}:{port}")],
            _ => vec!["--url".to_owned(), format!("wss://{host}:{port}/mcp")],
        };
        let run = |host: &str, more: &[&str], token| {
            let place = place(host);
            said(door, &place.iter().map(String::as_str).chain(more.iter().copied()).collect::<Vec<_>>(), token)
        };
        let ca = ["--ca", ca.to_str().unwrap(), "--call", "echo", "--arguments", "{\"text\":\"over TLS\"}"];
        run("localhost", &[], Some(TOKEN)).failed("connect", "certificate is not to be trusted");
        run("127.0.0.1", &ca, Some(TOKEN)).failed("connect", "certificate is not to be trusted");
        assert_eq!(server.heard().len(), 0, "not a word before the certificate is verified");
        // This server knows no `authenticate`, so lines go without a token.
        let token = (door == "ws").then_some(TOKEN);
        let trusted = run("localhost", &ca, token);
        assert_eq!(trusted.code, Some(0), "{door}: {}", trusted.out);
        assert!(
            trusted.out.contains("encrypted, certificate verified") && trusted.out.contains("→ over TLS"),
            "{}",
            trusted.out
        );
    }
}

#[test]
fn an_upstream_that_fails() {
    let nobody = Nobody::new();
    let gateway = Gateway::start(&[], nobody.address);
    for door in DOORS {
        let said = at(&gateway, door, &[], Some(TOKEN));
        said.failed("initialize", "Upstream error");
        assert!(said.out.contains("the server behind the gateway is at fault"), "{}", said.out);
    }
}

/// Answers over event streams, in between asks and tells the client something, and lists its tools in pages.
fn talkative() -> Upstream {
    Upstream::start(|request, conversation| {
        let id = request.id();
        let answer = match request.rpc_method().as_str() {
            "initialize" => result(
                &id,
                r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"talkative"}}"#,
            ),
            "tools/list" if request.text().contains("cursor") => result(
                &id,
                r#"{"tools":[{"name":"two","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}}]}"#,
            ),
            "tools/list" => {
                result(&id, r#"{"tools":[{"name":"one","inputSchema":{"type":"object"}}],"nextCursor":"next"}"#)
            }
            "tools/call" => result(&id, r#"{"content":[{"type":"text","text":"at last"}]}"#),
            _ if request.method() == "POST" => {
                conversation.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
                return Next::Keep;
            }
            _ => {
                conversation.send(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: POST\r\nContent-Length: 0\r\n\r\n");
                return Next::Keep;
            }
        };
        conversation.begin_events();
        if request.rpc_method() == "tools/call" {
            for message in [
                r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"between"}}"#,
                r#"{"jsonrpc":"2.0","id":"s1","method":"roots/list"}"#,
                r#"{"jsonrpc":"2.0","id":"s2","method":"elicitation/create","params":{}}"#,
                r#"{"jsonrpc":"2.0","id":"s3","method":"ping"}"#,
            ] {
                conversation.chunk(format!("data: {message}\r\n\r\n").as_bytes());
            }
        }
        conversation.chunk(format!(": a comment\n\nevent: message\ndata: {answer}\n\n").as_bytes());
        conversation.end_chunks()
    })
}

#[test]
fn what_a_server_says_in_between_is_answered() {
    let upstream = talkative();
    let direct = ["--url".to_owned(), format!("http://{}/mcp", upstream.address)];
    let gateway = Gateway::start(&[], upstream.address).ready();
    for (door, place) in [("http", direct), ("http", place(&gateway, "http")), ("tcp", place(&gateway, "tcp"))] {
        upstream.take_requests();
        let said = said(door, &[place[0].as_str(), &place[1]], Some(TOKEN));
        assert_eq!(said.code, Some(0), "{door}: {}", said.out);
        assert!(said.out.contains("2: one, two"), "all pages: {}", said.out);
        assert!(said.out.contains("two {} → at last"), "{}", said.out);
        let replies = [
            r#""error":{"code":-32601,"message":"Method not found"},"id":"s1""#,
            r#""id":"s2","jsonrpc":"2.0","result":{"action":"decline"}"#,
            r#""id":"s3","jsonrpc":"2.0","result":{}"#,
        ];
        upstream.wait("the replies", |log| {
            replies.iter().all(|reply| log.requests.iter().any(|request| request.text().contains(reply)))
        });
    }
}

#[test]
fn commands_over_pipes() {
    let gateway = sample();
    for door in DOORS {
        let place = place(&gateway, door);
        let mut client = Interactive::start(door, &[&place[0], &place[1]]);
        client.hear("tools: list them");
        client.tell("tools");
        client.hear("  echo: SAMPLE: answers with the text");
        client.tell("call echo {\"text\":\"one\"}");
        client.hear("  one");
        client.tell("call echo nonsense");
        client.hear("! the arguments are not an object");
        client.tell("ping");
        client.hear("✓ ping");
        client.tell("raw {\"jsonrpc\":\"2.0\",\"id\":\"my-own\",\"method\":\"tools/call\",\"params\":{\"name\":\"echo\",\"arguments\":{\"text\":\"raw\"}}}");
        client.hear("  raw");
        client.tell("raw {\"jsonrpc\":\"2.0\",\"id\":\"mine\",\"method\":\"nothing/such\"}");
        client.hear("-32601");
        client.tell("dance");
        client.hear("! no such command");
        // The end waits for what is still out.
        client.tell("call echo {\"text\":\"the last\"}");
        let (status, said) = client.end();
        assert!(status.success() && said.contains("  the last"), "{door}: {said}");
    }
}

#[test]
fn quit_waits_for_nothing_and_a_lost_connection_is_said() {
    let upstream = SocketServer::start(Kind::Tcp);
    let gateway = Gateway::with_policy(&[], &upstream.policy("only")).ready();
    for door in ["tcp", "ws"] {
        let place = place(&gateway, door);
        let mut client = Interactive::start(door, &[&place[0], &place[1], "--timeout", "3600"]);
        client.hear("tools: list them");
        client.tell("call hold");
        client.tell("quit");
        let (status, said) = client.end();
        assert!(status.success(), "{door}: {said}");
        // A busy machine may not come to that point within a second; then it has more.
        let (mut client, limit) = ["1", "10", "60"]
            .into_iter()
            .find_map(|limit| {
                let mut client = Interactive::start(door, &[&place[0], &place[1], "--timeout", limit]);
                client.hears("tools: list them").then_some((client, limit))
            })
            .expect("a client that is connected");
        client.tell("call hold");
        client.hear(&format!("no answer to tools/call within {limit} s"));
        client.tell("call ask");
        client.hear("the server asks");
        client.end();
    }
    let place = place(&gateway, "tcp");
    let mut client = Interactive::start("tcp", &[&place[0], &place[1]]);
    client.hear("tools: list them");
    gateway.signal(rustix::process::Signal::TERM);
    client.hear("✗ the connection was closed");
    let (status, said) = client.end();
    assert_eq!(status.code(), Some(1), "{said}");
}

#[test]
fn what_arrives_is_bounded() {
    // 17 MiB in one message, well formed: but for the bound it would be taken.
    let long = ["--call", "long", "--arguments", "{}"];
    let (lines, socket) = (SocketServer::start(Kind::Tcp), SocketServer::start(Kind::Ws));
    let at = lines.address.to_string();
    said("tcp", &[&["--address", &at][..], &long].concat(), None).failed("call", "longer than 16 MiB");
    let at = format!("ws://{}/mcp", socket.address);
    said("ws", &[&["--url", &at][..], &long].concat(), None).failed("call", "longer than 16 MiB");
    let http = Upstream::start(|request, conversation| {
        let body = match request.rpc_method().as_str() {
            "tools/call" => format!("{{\"content\":[{{\"type\":\"text\",\"text\":\"{}\"}}]}}", "x".repeat(17 << 20)),
            "tools/list" => "{\"tools\":[]}".to_owned(),
            "server/discover" => "{\"supportedVersions\":[\"2026-07-28\"]}".to_owned(),
            _ => return conversation.echo(request),
        };
        conversation.json(&result(&request.id(), &body))
    });
    let at = format!("http://{}/mcp", http.address);
    said("http", &[&["--modern", "--url", &at][..], &long].concat(), None).failed("call", "longer than 16 MiB");
}
