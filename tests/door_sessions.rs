//! Promise: who a client is to us is never the upstream's to see, and an upstream's session is never another client's to use.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use blackbox::{Gateway, Next, TOKEN, Upstream, call, initialize, modern, post, result};
use sha2::{Digest, Sha256};

const OWN: &str = "upstream-session-7f3a";
const BOT: &str = "agent-token-of-support-bot-0123456789abcdef";

/// Opens sessions, and knows those it has opened until they are ended.
fn session_upstream() -> Upstream {
    Upstream::start(|request, conversation| {
        if request.rpc_method() == "initialize" {
            let body = result(
                &request.id(),
                "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},\"serverInfo\":{\"name\":\"s\",\"version\":\"1\"}}",
            );
            let head = format!(
                "Content-Type: application/json\r\nMcp-Session-Id: {OWN}\r\nContent-Length: {}\r\n",
                body.len()
            );
            conversation.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n{body}").as_bytes());
            return Next::Keep;
        }
        if request.text().contains("\"lost\"") {
            conversation
                .send(b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
            return Next::Keep;
        }
        if request.method() == "DELETE" {
            conversation.send(b"HTTP/1.1 204 No Content\r\n\r\n");
            return Next::Keep;
        }
        conversation.echo(request)
    })
}

fn with(bytes: Vec<u8>, fields: &str) -> Vec<u8> {
    String::from_utf8(bytes).unwrap().replacen("\r\n", &format!("\r\n{fields}\r\n"), 1).into_bytes()
}

fn policy(upstream: &Upstream, more: &str) -> String {
    let hash: String = Sha256::digest(BOT).iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "[upstream.only]\nurl = \"http://{}/mcp\"\n{more}\n[agent.support-bot]\ntoken_sha256 = \"{hash}\"\n",
        upstream.address
    )
}

#[test]
fn what_a_client_is_to_us_never_reaches_an_upstream() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address);
    let private = [
        "Cookie: session=client-secret",
        "Origin: http://localhost:3000",
        "Proxy-Authorization: Basic client-secret",
        "X-Forwarded-For: 6.6.6.6",
        "Forwarded: for=6.6.6.6",
        "X-Real-IP: 6.6.6.6",
        "Accept-Encoding: gzip",
        "Connection: keep-alive, X-Hop",
        "X-Hop: client-secret",
        "Mcp_Session_Id: client-secret",
        "TE: trailers",
        "X-Kept: 1",
    ];
    for bytes in [post(&call(1)), modern(1, "tools/call", Some("echo"), "\"name\":\"echo\"")] {
        let response = gateway.client().ask(&with(bytes, &private.join("\r\n")));
        assert_eq!(response.status, 200);
        let request = upstream.last();
        let head = request.head.to_lowercase();
        for needle in
            [TOKEN, "authorization", "secret", "origin", "6.6.6.6", "gzip", "x-hop", "trailers", "localhost:3000"]
        {
            assert!(!head.contains(&needle.to_lowercase()), "{needle}: {head}");
        }
        assert_eq!(request.field("x-kept").as_deref(), Some("1"));
        assert_eq!(request.field("host"), Some(upstream.address.to_string()));
        assert_eq!(head.matches("content-length").count(), 1);
    }
}

#[test]
fn the_policys_headers_replace_a_clients_of_the_same_name() {
    let upstream = session_upstream();
    let more = "header.Authorization = \"Bearer the-upstreams-own\"\nheader.X-Tenant = \"blue\"";
    let gateway = Gateway::with_policy(&[], &policy(&upstream, more));
    let opened = gateway.client().ask(&with(post(&initialize()), "X-TENANT: red\r\nx-tenant: green"));
    let sealed = opened.field("mcp-session-id").unwrap();
    let listen = format!(
        "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nAccept: text/event-stream\r\nX-Tenant: red\r\nMcp-Session-Id: {sealed}\r\n\r\n"
    );
    gateway.client().ask(listen.as_bytes());
    let seen = upstream.requests();
    assert_eq!(seen.len(), 2);
    for request in seen {
        assert_eq!(request.field("x-tenant").as_deref(), Some("blue"));
        assert_eq!(request.field("authorization").as_deref(), Some("Bearer the-upstreams-own"));
    }
}

#[test]
fn a_session_id_is_sealed_and_opens_for_its_principal_alone() {
    let upstream = session_upstream();
    let gateway = Gateway::with_policy(&[], &policy(&upstream, ""));
    let opened = gateway.post(&initialize());
    let sealed = opened.field("mcp-session-id").unwrap();
    assert!(!opened.head.contains(OWN));
    assert!(sealed.bytes().all(|byte| byte.is_ascii_graphic()));
    let again = gateway.post(&initialize()).field("mcp-session-id").unwrap();
    assert_ne!(sealed, again, "nobody can tell that they are the same session");
    upstream.take_requests();
    let in_session = |id: &str, token: &str| {
        let bytes = with(post(&call(1)), &format!("Mcp-Session-Id: {id}"));
        gateway.client().ask(String::from_utf8(bytes).unwrap().replace(TOKEN, token).as_bytes())
    };
    for id in [&sealed, &again] {
        assert_eq!(in_session(id, TOKEN).status, 200);
        assert_eq!(upstream.last().field("mcp-session-id").as_deref(), Some(OWN));
    }
    upstream.take_requests();
    let mut tampered = sealed.clone().into_bytes();
    let middle = tampered.len() / 2;
    tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).unwrap();
    let cut = sealed[..sealed.len() - 1].to_owned();
    let long = "A".repeat(13_000);
    for (what, id, token) in [
        ("another principal's", sealed.as_str(), BOT),
        ("a tampered one", &tampered, TOKEN),
        ("a shortened one", &cut, TOKEN),
        ("the upstream's own", OWN, TOKEN),
        ("a long one", &long, TOKEN),
        ("none", "x", TOKEN),
    ] {
        let response = in_session(id, token);
        assert_eq!((response.status, &response.json()["id"]), (404, &1.into()), "{what}");
        for method in ["GET", "DELETE"] {
            let bytes = format!(
                "{method} /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nAccept: text/event-stream\r\nMcp-Session-Id: {id}\r\n\r\n"
            );
            assert_eq!(gateway.client().ask(bytes.as_bytes()).status, 404, "{what}: {method}");
        }
    }
    assert!(upstream.requests().is_empty());
    // In 2026-07-28 there are no sessions: the field means nothing, and does not go on.
    let bytes = with(modern(1, "tools/call", Some("echo"), "\"name\":\"echo\""), "Mcp-Session-Id: x");
    assert_eq!(gateway.client().ask(&bytes).status, 200);
    assert_eq!(upstream.last().field("mcp-session-id"), None);
}

#[test]
fn a_session_ends_with_its_time() {
    let upstream = session_upstream();
    let gateway = Gateway::start(&[("MCP_SESSION_TTL", "1")], upstream.address);
    let sealed = gateway.post(&initialize()).field("mcp-session-id").unwrap();
    let bytes = with(post(&call(1)), &format!("Mcp-Session-Id: {sealed}"));
    blackbox::until("the session to expire", || gateway.client().ask(&bytes).status == 404);
}

#[test]
fn an_upstream_that_lost_its_session_says_so_to_the_client() {
    let upstream = session_upstream();
    let gateway = Gateway::start(&[], upstream.address);
    let sealed = gateway.post(&initialize()).field("mcp-session-id").unwrap();
    let lost = with(post(&call(1).replace("hello", "lost")), &format!("Mcp-Session-Id: {sealed}"));
    assert_eq!(gateway.client().ask(&lost).status, 404);
    assert_eq!(upstream.last().field("mcp-session-id").as_deref(), Some(OWN));
}

#[test]
fn delete_ends_the_session_at_the_upstream() {
    let upstream = session_upstream();
    let gateway = Gateway::start(&[], upstream.address);
    let sealed = gateway.post(&initialize()).field("mcp-session-id").unwrap();
    let bytes = format!(
        "DELETE /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nMcp-Session-Id: {sealed}\r\n\r\n"
    );
    let mut client = gateway.client();
    assert_eq!(client.ask(bytes.as_bytes()).status, 204);
    assert_eq!((upstream.last().method(), upstream.last().field("mcp-session-id").as_deref()), ("DELETE", Some(OWN)));
    assert_eq!(client.ask(&post(&call(1))).status, 200, "the connection is in step");
}

#[test]
fn two_clients_may_use_the_same_id_at_the_same_time() {
    let upstream = Upstream::start(|request, conversation| {
        conversation.wait_for("answer");
        let own = if request.text().contains("first") { "\"first\"" } else { "\"second\"" };
        conversation.json(&result(&request.id(), &format!("{{\"for\":{own}}}")))
    });
    let gateway = Gateway::start(&[], upstream.address);
    let mut clients: Vec<_> = ["first", "second"]
        .map(|name| {
            let mut client = gateway.client();
            client.send(&post(&call(1).replace("hello", name)));
            (name, client)
        })
        .into();
    upstream.wait("both", |log| log.requests.len() == 2);
    upstream.say("answer");
    for (name, client) in &mut clients {
        assert_eq!(client.response().json()["result"]["for"], *name);
    }
}

#[test]
fn notifications_and_responses_are_accepted_with_202_and_no_body() {
    let upstream = Upstream::start(|_, conversation| {
        conversation.send(b"HTTP/1.1 202 Accepted\r\n\r\n");
        Next::Close
    });
    let gateway = Gateway::start(&[], upstream.address);
    let mut client = gateway.client();
    for body in [
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":\"s1\",\"result\":{}}",
        "{\"jsonrpc\":\"2.0\",\"id\":\"s1\",\"error\":{\"code\":-1,\"message\":\"no\"}}",
    ] {
        let response = client.ask(&post(body));
        assert_eq!((response.status, response.text().as_str()), (202, ""));
        assert_eq!(upstream.last().text(), body);
    }
}

#[test]
fn a_bad_version_header_is_400_and_none_is_2025_03_26() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address);
    let good = String::from_utf8(post(&call(1))).unwrap();
    let version = "MCP-Protocol-Version: 2025-11-25\r\n";
    for (to, status) in [
        ("MCP-Protocol-Version: 1999-01-01\r\n", 400),
        ("MCP-Protocol-Version: x\r\n", 400),
        ("MCP-Protocol-Version: 2025-06-18\r\n", 200),
        ("", 200),
    ] {
        assert_eq!(gateway.client().ask(good.replace(version, to).as_bytes()).status, status, "{to}");
    }
    // A batch is for 2025-03-26 alone, each member by itself.
    let batch = format!(
        "[{},{}, {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}},{{\"jsonrpc\":\"1.0\",\"id\":9,\"method\":\"x\"}}]",
        call(1),
        call("\"b\"")
    );
    assert_eq!(gateway.post(&batch).status, 400);
    upstream.take_requests();
    let bytes = String::from_utf8(post(&batch)).unwrap().replace(version, "");
    let response = gateway.client().ask(bytes.as_bytes());
    let answers = response.json();
    let ids: Vec<_> = answers.as_array().unwrap().iter().map(|answer| answer["id"].to_string()).collect();
    assert_eq!(
        (response.status, ids.as_slice()),
        (200, ["1".to_owned(), "\"b\"".to_owned(), "9".to_owned()].as_slice())
    );
    assert_eq!(answers[2]["error"]["code"], -32600);
    assert_eq!(upstream.requests().len(), 3);
}
