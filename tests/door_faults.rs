//! Promise: every fault that a request can have is told by the status, the fields and the body that `front-doors.md` gives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use blackbox::{Client, Gateway, Nobody, Response, TOKEN, Upstream, call, post, until};
use rustix::process::Signal;

const JSON: &str = "application/json";

/// A request with these lines besides `Host`.
fn request(line: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}").into_bytes()
}

fn assert_answer(response: &Response, status: u16, body: &str) {
    assert_eq!((response.status, response.text().as_str()), (status, body), "{}", response.head);
    assert_eq!(response.field("content-type").as_deref(), Some(JSON), "{}", response.head);
}

/// Without the upstream having seen anything of it.
fn refused(settings: &[(&str, &str)], bytes: &[u8]) -> Response {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(settings, upstream.address);
    let response = gateway.client().ask(bytes);
    gateway.unharmed();
    assert!(upstream.requests().is_empty(), "nothing that is refused reaches an upstream");
    response
}

#[test]
fn a_denied_address_gets_403_forbidden_and_a_close() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("IP_DENYLIST", "127.0.0.0/8")], upstream.address);
    let mut client = gateway.client();
    client.try_send(&post(&call(1)));
    let response = client.response();
    assert_answer(&response, 403, "{\"error\":\"Forbidden\"}");
    assert!(client.is_closed());
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_full_door_answers_503_with_retry_after_and_lets_in_again_when_there_is_room() {
    let upstream = Upstream::echo();
    for setting in ["WS_MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_IP"] {
        let gateway = Gateway::start(&[(setting, "1")], upstream.address);
        let mut first = gateway.client();
        assert_eq!(first.ask(&request("GET /health", "", "")).status, 200);
        let mut second = gateway.client();
        let response = second.response();
        assert_answer(&response, 503, "{\"error\":\"Service unavailable - connection limit reached\"}");
        assert!(response.field("retry-after").is_some(), "{setting}: {}", response.head);
        assert!(second.is_closed());
        assert_eq!(first.ask(&post(&call(1))).status, 200, "who is in notices nothing");
        drop((first, second));
        until("room", || {
            let mut client = gateway.client();
            client.try_send(&request("GET /health", "", "")) && client.response().status == 200
        });
    }
}

#[test]
fn no_token_and_bad_tokens_are_401_with_a_challenge() {
    const MISSING: &str = "{\"error\":\"Missing Authorization header. Use: Bearer <token>\"}";
    const BAD: &str = "{\"error\":\"Invalid or revoked token\"}";
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address);
    for (fields, body) in [
        ("".to_owned(), MISSING),
        ("Authorization: Basic dXNlcjpwYXNz\r\n".to_owned(), MISSING),
        (format!("Authorization: {TOKEN}\r\n"), MISSING),
        ("Authorization: Bearer nobody-knows-this-token-0123456789abcdef\r\n".to_owned(), BAD),
        (format!("Authorization: Bearer {}\r\n", &TOKEN[1..]), BAD),
        (format!("Authorization: Bearer {TOKEN}x\r\n"), BAD),
        ("Authorization: Bearer x\r\n".to_owned(), BAD),
    ] {
        for line in ["POST /mcp", "GET /mcp", "DELETE /mcp"] {
            let usual = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";
            let response = gateway.client().ask(&request(line, &format!("{fields}{usual}"), ""));
            assert_answer(&response, 401, body);
            let challenge = response.field("www-authenticate").unwrap_or_default();
            let metadata = "/.well-known/oauth-protected-resource/mcp\"";
            assert!(challenge.starts_with("Bearer resource_metadata=\"http://"), "{line} {fields}: {challenge}");
            assert!(challenge.ends_with(metadata), "{challenge}");
        }
    }
    // A token in the URL is none.
    let query = format!("POST /mcp?token={TOKEN}&access_token={TOKEN}");
    assert_answer(&gateway.client().ask(&request(&query, "Content-Length: 0\r\n", "")), 401, MISSING);
    // The scheme's name is case-insensitive (RFC 9110 §11.1).
    let good = String::from_utf8(post(&call(1))).unwrap().replace("Bearer", "bEARER");
    assert_eq!(gateway.client().ask(good.as_bytes()).status, 200);
    assert_eq!(upstream.requests().len(), 1);
    gateway.unharmed();
}

#[test]
fn a_refused_request_whose_body_is_there_does_not_cost_the_connection() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address);
    let mut client = gateway.client();
    let without = request("POST /mcp", "Content-Length: 3\r\n", "GET");
    client.send(&[without.as_slice(), &post(&call(7))].concat());
    assert_eq!(client.response().status, 401);
    let response = client.response();
    assert_eq!((response.status, &response.json()["id"]), (200, &7.into()));
    // Where the body is not there yet, the connection ends, and what comes is nobody's request.
    client = gateway.client();
    client.send(&request("POST /mcp", "Content-Length: 400\r\n", ""));
    assert_eq!(client.response().status, 401);
    client.try_send(&post(&call(8)));
    assert!(client.is_closed());
    drop(client);
    assert_eq!(upstream.requests().len(), 1);
    gateway.unharmed();
}

#[test]
fn a_body_over_the_limit_is_413_before_it_is_read() {
    for fields in ["Content-Length: 10485761\r\n", "Content-Length: 99999999999\r\n"] {
        let fields = format!(
            "Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\nAccept: */*, application/json, text/event-stream\r\n{fields}"
        );
        let response = refused(&[], &request("POST /mcp", &fields, ""));
        assert_eq!(response.status, 413, "{response:?}");
        assert!(response.json()["error"].is_string());
        assert_eq!(response.field("connection").as_deref(), Some("close"));
    }
    // In chunks, when they have come to more.
    let mut bytes = String::from_utf8(post("")).unwrap().replace("Content-Length: 0", "Transfer-Encoding: chunked");
    bytes.push_str(&format!("400\r\n{}\r\n1\r\nx", " ".repeat(1024)));
    let response = refused(&[("MAX_REQUEST_SIZE", "1024")], bytes.as_bytes());
    assert_eq!(response.status, 413, "{response:?}");
    // At the limit it passes.
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("MAX_REQUEST_SIZE", "1024")], upstream.address);
    let body = format!("{}{}", call(1), " ".repeat(1024 - call(1).len()));
    assert_eq!(gateway.post(&body).status, 200);
    assert_eq!(gateway.post(&format!("{body} ")).status, 413);
}

#[test]
fn a_foreign_origin_or_host_is_403() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("CORS_ALLOWED_ORIGINS", "https://app.example.com")], upstream.address);
    let good = String::from_utf8(post(&call(1))).unwrap();
    for (from, to, status) in [
        ("Host: localhost", "Host: localhost\r\nOrigin: https://evil.example", 403),
        ("Host: localhost", "Host: localhost\r\nOrigin: null", 403),
        ("Host: localhost", "Host: localhost\r\nOrigin: https://app.example.com.evil.example", 403),
        ("Host: localhost", "Host: localhost\r\nOrigin: https://app.example.com", 200),
        ("Host: localhost", "Host: evil.example", 403),
        ("Host: localhost", "Host: localhost.evil.example:80", 403),
        ("Host: localhost", "Host: 127.0.0.1:9999", 200),
    ] {
        let response = gateway.client().ask(good.replace(from, to).as_bytes());
        assert_eq!(response.status, status, "{to}");
        if status == 403 {
            assert_answer(&response, 403, "{\"error\":\"Forbidden\"}");
        }
    }
    // Health is for load balancers, which know no names.
    let health = gateway.client().ask(b"GET /health HTTP/1.1\r\nHost: 10.1.2.3:80\r\n\r\n");
    assert_eq!(health.status, 200);
    // An absolute target names the host itself.
    let absolute = good.replace("POST /mcp", "POST http://evil.example/mcp");
    assert!(matches!(gateway.client().ask(absolute.as_bytes()).status, 400 | 403));
    assert_eq!(upstream.requests().len(), 2);
    gateway.unharmed();
}

#[test]
fn unknown_paths_are_404_and_other_methods_405_with_allow() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address);
    for (line, status, allow) in [
        ("GET /", 404, None),
        ("POST /mcp/", 404, None),
        ("GET /mcp/../admin", 404, None),
        ("GET /metrics", 404, None),
        ("POST /Mcp", 404, None),
        ("PUT /mcp", 405, Some("POST, GET, DELETE")),
        ("PATCH /mcp", 405, Some("POST, GET, DELETE")),
        ("BREW /mcp", 405, Some("POST, GET, DELETE")),
        ("POST /health", 405, Some("GET, HEAD")),
        ("DELETE /health/ready", 405, Some("GET, HEAD")),
        ("POST /.well-known/oauth-protected-resource", 405, Some("GET, HEAD")),
    ] {
        let response = gateway.client().ask(&request(line, "Content-Length: 0\r\n", ""));
        assert_eq!(response.status, status, "{line}");
        assert_eq!(response.field("allow").as_deref(), allow, "{line}");
        assert!(response.json()["error"].is_string(), "{line}");
    }
    assert!(upstream.requests().is_empty());
    gateway.unharmed();
}

#[test]
fn media_types_are_negotiated_with_406_and_415() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address);
    let good = String::from_utf8(post(&call(1))).unwrap();
    let accept = "Accept: application/json, text/event-stream\r\n";
    let content = "Content-Type: application/json\r\n";
    for (from, to, status) in [
        (accept, "", 406),
        (accept, "Accept: application/json\r\n", 406),
        (accept, "Accept: text/event-stream\r\n", 406),
        (accept, "Accept: application/json, text/event-stream;q=0\r\n", 406),
        (accept, "Accept: text/event-stream; q=0.1 , Application/JSON\r\n", 200),
        (accept, "Accept: application/json\r\nAccept: text/event-stream\r\n", 200),
        (content, "", 415),
        (content, "Content-Type: text/plain\r\n", 415),
        (content, "Content-Type: application/jsonp\r\n", 415),
        (content, "Content-Type: application/json; charset=utf-8\r\n", 200),
    ] {
        let response = gateway.client().ask(good.replace(from, to).as_bytes());
        assert_eq!(response.status, status, "{to}");
    }
    let authorization = format!("Authorization: Bearer {TOKEN}\r\nAccept: application/json\r\n");
    assert_eq!(gateway.client().ask(&request("GET /mcp", &authorization, "")).status, 406);
    assert_eq!(upstream.requests().len(), 3);
    gateway.unharmed();
}

#[test]
fn expect_100_continue_is_answered_when_the_body_is_waited_for() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address);
    let good = String::from_utf8(post(&call(1))).unwrap().replace("Host:", "Expect: 100-continue\r\nHost:");
    let (head, body) = good.split_at(good.find("\r\n\r\n").unwrap() + 4);
    let mut client = gateway.client();
    client.send(head.as_bytes());
    assert_eq!(client.head().head, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.ask(body.as_bytes()).status, 200);
    // With the body there already, nobody waits.
    client.send(good.as_bytes());
    assert_eq!(client.head().status, 200);
    // Who will be refused is told before the body.
    client = gateway.client();
    client.send(head.replace(TOKEN, "wrong").as_bytes());
    assert_eq!(client.head().status, 401);
    // Nothing of it goes on, and another expectation is one we cannot meet.
    assert!(upstream.requests().iter().all(|request| request.field("expect").is_none()));
    let other = good.replace("100-continue", "200-ok");
    assert_eq!(gateway.client().ask(other.as_bytes()).status, 417);
    drop(client);
    gateway.unharmed();
}

#[test]
fn head_is_get_without_a_body() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address).ready();
    let mut client = gateway.client();
    for path in ["/health", "/health/ready", "/.well-known/oauth-protected-resource", "/nothing"] {
        // What is told of health grows with the time: HEAD is compared between two GETs that agree.
        until("two answers of one length", || {
            let get = client.ask(&request(&format!("GET {path}"), "", ""));
            client.send(&request(&format!("HEAD {path}"), "", ""));
            let head = client.head_response();
            let again = client.ask(&request(&format!("GET {path}"), "", ""));
            if get.body.len() != again.body.len() {
                return false;
            }
            assert_eq!(head.status, get.status);
            for name in ["content-length", "content-type"] {
                assert_eq!(head.field(name), get.field(name), "{path}");
            }
            true
        });
    }
    // Nothing but heads came, so the connection is in step.
    assert_eq!(client.ask(&post(&call(1))).status, 200);
    drop(client);
    gateway.unharmed();
}

#[test]
fn health_and_readiness_are_told_on_both_ports() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address).ready();
    for address in [gateway.bridge, gateway.health] {
        let health = Client::connect(address).ask(&request("GET /health", "Connection: close\r\n", ""));
        assert_eq!((health.status, health.field("content-type").as_deref()), (200, Some(JSON)));
        let health = health.json();
        assert_eq!(health["status"], "healthy");
        assert_eq!(health["authEnabled"], true);
        assert!(health["uptime"].is_u64() && health["version"].is_string());
        let upstreams: Vec<_> = health["upstreams"].as_object().unwrap().values().collect();
        assert_eq!(upstreams, ["closed"]);
        assert!(["ws", "tcp", "http"].iter().all(|door| health["connections"][door].is_u64()));
        let ready = Client::connect(address).ask(&request("GET /health/ready", "Connection: close\r\n", ""));
        assert_eq!((ready.status, ready.text().as_str()), (200, "ready"));
    }
    gateway.unharmed();
}

#[test]
fn without_a_reachable_upstream_it_is_alive_but_not_ready() {
    let nobody = Nobody::new();
    let gateway = Gateway::start(&[], nobody.address);
    for address in [gateway.bridge, gateway.health] {
        let ready = Client::connect(address).ask(&request("GET /health/ready", "Connection: close\r\n", ""));
        assert_eq!((ready.status, ready.text().as_str()), (503, "no upstream reachable"));
        let health = Client::connect(address).ask(&request("GET /health", "Connection: close\r\n", ""));
        assert_eq!((health.status, &health.json()["status"]), (200, &"degraded".into()));
    }
    gateway.unharmed();
}

#[test]
fn a_draining_gateway_is_not_ready() {
    let upstream = Upstream::start(|request, conversation| {
        conversation.wait_for("answer");
        conversation.echo(request)
    });
    let mut gateway = Gateway::start(&[], upstream.address).ready();
    let mut client = gateway.client();
    client.send(&post(&call(1)));
    upstream.wait("the call", |log| log.requests.len() == 1);
    gateway.signal(Signal::TERM);
    until("draining", || {
        let ready = Client::connect(gateway.health).ask(&request("GET /health/ready", "Connection: close\r\n", ""));
        ready.status == 503 && ready.text() == "draining"
    });
    upstream.say("answer");
    assert_eq!(client.response().status, 200);
    assert!(gateway.exit().success());
}
