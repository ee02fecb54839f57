//! Promise: whatever an upstream does, a client gets one true answer: no call is lost, none is made twice, nothing that was cut
//! short looks whole, and memory stays bounded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(
    clippy::disallowed_methods,
    reason = "a test's own threads; and that nothing happens can only be seen by waiting"
)]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use blackbox::{Client, Gateway, Next, Nobody, Upstream, answer, call, modern, post, result, until};

const CLIENTS: usize = 8;
const CALLS: usize = 250;

/// 2,000 calls through 8 connections. How many were told that their outcome is unknown.
fn race(gateway: &Gateway) -> usize {
    let call_all = |client_number: usize| {
        let (mut client, mut unknown) = (gateway.client(), 0);
        for id in client_number * CALLS..(client_number + 1) * CALLS {
            let response = client.ask(&post(&call(id)));
            assert_eq!(response.json()["id"], id);
            if response.status == 502 && response.text().contains("unknown") {
                unknown += 1;
            } else {
                assert_eq!(response.status, 200, "{}", response.text());
            }
        }
        unknown
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || call_all(number))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    })
}

/// How long a connection that may be closed rests before it is used again (`bounds.rs`).
const REST: Duration = Duration::from_nanos(ringwall::bounds::UPSTREAM_TRIAL_NS);

/// 2,000 calls; the upstream's ids are counted. A call can be lost to one thing alone: a close that came, because this machine was busy, so
/// late after its answer that the connection was in use again.
fn none_lost_none_doubled(upstream: &Upstream, gateway: &Gateway) -> usize {
    let lost = race(gateway);
    upstream.wait("closes that explain what was lost", |log| {
        lost <= log.closes.iter().filter(|close| **close >= REST).count()
    });
    let mut seen: HashMap<String, usize> = HashMap::new();
    for request in upstream.requests() {
        *seen.entry(request.id()).or_default() += 1;
    }
    let doubled: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
    assert!(doubled.is_empty(), "made twice: {doubled:?}");
    assert_eq!(seen.len() + lost, CLIENTS * CALLS);
    lost
}

#[test]
fn an_upstream_that_closes_kept_alive_connections_costs_no_call_and_doubles_none() {
    for every in [1, 2, 7, 100] {
        let upstream = Upstream::start(move |request, conversation| {
            conversation.echo(request);
            // Silently: the answer did not say so.
            if conversation.count >= every { Next::Close } else { Next::Keep }
        });
        let gateway = Gateway::start(&[], upstream.address);
        none_lost_none_doubled(&upstream, &gateway);
        gateway.unharmed();
    }
}

#[test]
fn nor_where_the_pool_is_used_to_its_limit() {
    for (every, max_idle) in [(1, 1), (2, 2), (7, 4), (100, 4)] {
        let upstream = Upstream::start(move |request, conversation| {
            conversation.echo(request);
            if conversation.count >= every { Next::Close } else { Next::Keep }
        });
        let policy =
            format!("[upstream.only]\nurl = \"http://{}/mcp\"\nmax_idle_connections = {max_idle}\n", upstream.address);
        let gateway = Gateway::with_policy(&[("WORKERS", "1")], &policy);
        none_lost_none_doubled(&upstream, &gateway);
        gateway.unharmed();
    }
}

#[test]
fn an_upstream_that_keeps_its_connections_is_not_connected_to_all_the_time() {
    let upstream = Upstream::start(|request, conversation| conversation.echo(request));
    let policy = format!("[upstream.only]\nurl = \"http://{}/mcp\"\nmax_idle_connections = 8\n", upstream.address);
    let gateway = Gateway::with_policy(&[("WORKERS", "1")], &policy);
    // Eight calls at a time over a pool of eight. Each rest of 20 ms proves one more answer; until then some
    // more are opened.
    let start = Instant::now();
    loop {
        let before = gateway.metric("ringwall_upstream_connects_total");
        assert_eq!(race(&gateway), 0);
        let opened = gateway.metric("ringwall_upstream_connects_total") - before;
        if opened < 100.0 {
            break;
        }
        assert!(start.elapsed() < blackbox::PATIENCE, "{opened} connections for 2,000 calls");
    }
    gateway.unharmed();
}

#[test]
fn an_upstream_that_says_it_closes_is_believed() {
    let upstream = Upstream::start(|request, conversation| {
        let body = result(&request.id(), "{}");
        conversation.send(
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                .as_bytes(),
        );
        Next::Close
    });
    let gateway = Gateway::start(&[], upstream.address);
    assert_eq!(none_lost_none_doubled(&upstream, &gateway), 0, "its connections are not used again");
    assert!((gateway.metric("ringwall_upstream_retries_total") - 0.0).abs() < 0.5);
}

#[test]
fn a_call_that_was_read_and_not_answered_is_502_and_not_made_again() {
    let upstream = Upstream::start(|request, conversation| match request.id().as_str() {
        "1" => conversation.echo(request),
        _ => Next::Close,
    });
    let gateway = Gateway::start(&[("WORKERS", "1")], upstream.address);
    let mut client = gateway.client();
    // On a fresh connection, and on one that was used before.
    let mut fails = |id: usize| {
        let response = client.ask(&post(&call(id)));
        let error = response.json();
        assert_eq!((response.status, &error["id"], &error["error"]["code"]), (502, &id.into(), &(-32001).into()));
        assert!(error["error"]["message"].as_str().unwrap().contains("unknown"), "{error}");
        upstream.take_requests().iter().map(|request| (request.id(), request.connection)).collect::<Vec<_>>()
    };
    assert_eq!(fails(2), [("2".to_owned(), 0)]);
    until("a call over the connection of the one before", || {
        assert_eq!(gateway.post(&call(1)).status, 200);
        let before = upstream.last().connection;
        // The pool lets a connection rest before it uses it again.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let seen = fails(3);
        assert_eq!(seen.iter().filter(|(id, _)| id == "3").count(), 1, "{seen:?}");
        seen == [("1".to_owned(), before), ("3".to_owned(), before)]
    });
    drop(client);
    gateway.unharmed();
}

#[test]
fn an_upstream_that_stalls_is_504_and_its_connection_is_given_up() {
    let upstream = Upstream::start(|request, conversation| {
        match request.id().as_str() {
            // Nothing at all, half a head, a head and half a body.
            "1" => {}
            "2" => drop(conversation.send(b"HTTP/1.1 200 OK\r\nContent-")),
            "3" => drop(conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"a\"")),
            "4" => drop(conversation.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"a\"")),
            _ => return conversation.echo(request),
        }
        assert!(conversation.wait_for_close());
        conversation.note("closed");
        Next::Close
    });
    let gateway = Gateway::start(&[("CIRCUITBREAKER_TIMEOUT", "300")], upstream.address);
    let mut client = gateway.client();
    for id in 1..=4 {
        let response = client.ask(&post(&call(id)));
        assert_eq!((response.status, &response.json()["error"]["code"]), (504, &(-32001).into()), "{id}");
        upstream.wait("the stalled connection to be closed", |log| log.notes.len() == id);
    }
    // On a busy machine an answer may be late as well.
    until("an answer in time", || match client.ask(&post(&call(9))).status {
        200 => true,
        status => {
            assert_eq!(status, 504);
            false
        }
    });
    drop(client);
    gateway.unharmed();
}

#[test]
fn an_event_stream_that_stalls_ends_with_an_error_for_its_call() {
    let upstream = Upstream::start(|_, conversation| {
        conversation.begin_events();
        conversation.chunk(b"data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\n");
        conversation.wait_for_close();
        Next::Close
    });
    let gateway = Gateway::start(&[("CIRCUITBREAKER_TIMEOUT", "300")], upstream.address);
    let mut client = gateway.client();
    until("a stream that began in time", || {
        client = gateway.client();
        client.send(&post(&call("\"a\"")));
        let status = client.head().status;
        assert!(matches!(status, 200 | 504), "{status}");
        status == 200 && client.event().contains("notifications/message")
    });
    let event = client.event();
    let error: serde_json::Value = serde_json::from_str(event.strip_prefix("event: message\ndata: ").unwrap()).unwrap();
    assert_eq!((&error["id"], &error["error"]["code"]), (&"a".into(), &(-32001).into()));
    assert_eq!(client.chunk(), Some(None));
    drop(client);
    gateway.unharmed();
}

#[test]
fn what_is_not_http_is_502() {
    const ANSWERS: &[&str] = &[
        "garbage\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
    ];
    let upstream = Upstream::start(|request, conversation| {
        let number: usize = request.id().parse().unwrap();
        match ANSWERS.get(number) {
            Some(bytes) => {
                conversation.send(bytes.as_bytes());
                conversation.wait_for_close();
                Next::Close
            }
            None => conversation.echo(request),
        }
    });
    let gateway = Gateway::start(&[], upstream.address);
    let mut client = gateway.client();
    for (id, bytes) in ANSWERS.iter().enumerate() {
        let response = client.ask(&post(&call(id)));
        assert_eq!((response.status, &response.json()["id"]), (502, &id.into()), "{bytes:?}: {response:?}");
    }
    assert_eq!(client.ask(&post(&call(999))).status, 200);
    drop(client);
    gateway.unharmed();
}

#[test]
fn bytes_behind_an_answer_are_never_the_next_one() {
    let upstream = Upstream::start(|request, conversation| {
        let own = blackbox::answer_json(&result(&request.id(), "{}"));
        let more = blackbox::answer_json(&result("\"smuggled\"", "{}"));
        conversation.send(format!("{own}{more}").as_bytes());
        Next::Keep
    });
    let gateway = Gateway::start(&[("WORKERS", "1")], upstream.address);
    let mut client = gateway.client();
    for id in 0..20 {
        assert_eq!(client.ask(&post(&call(id))).json()["id"], id);
    }
}

#[test]
fn an_unreachable_upstream_is_502_and_the_call_nothing_sent() {
    let nobody = Nobody::new();
    let gateway = Gateway::start(&[], nobody.address);
    let response = gateway.post(&call(1));
    assert_eq!(response.status, 502);
    assert!(response.text().contains("was not made"), "{}", response.text());
    assert_eq!(response.json()["id"], 1);
    gateway.unharmed();
}

#[test]
fn an_upstreams_401_is_ours_and_other_statuses_pass() {
    let upstream = Upstream::start(|request, conversation| {
        let status: u16 = request.id().parse().unwrap();
        let extra = "WWW-Authenticate: Bearer\r\nSet-Cookie: a=b\r\nServer: secret\r\nX-Own: kept\r\n";
        let bytes = answer(status, "application/json", "{\"a\":1}").replacen("\r\n", &format!("\r\n{extra}"), 1);
        conversation.send(bytes.as_bytes());
        Next::Keep
    });
    let gateway = Gateway::start(&[], upstream.address);
    for (status, told) in
        [(401, 502), (407, 502), (400, 400), (404, 404), (429, 429), (500, 500), (503, 503), (200, 200)]
    {
        let response = gateway.post(&call(status));
        assert_eq!((response.status, response.text().as_str()), (told, "{\"a\":1}"));
        for name in ["www-authenticate", "set-cookie", "server"] {
            assert_eq!(response.field(name), None, "{status}");
        }
        assert_eq!(response.field("x-own").as_deref(), Some("kept"));
    }
    gateway.unharmed();
}

#[test]
fn a_body_cut_short_never_looks_whole() {
    let long = "x".repeat(200_000);
    let upstream = Upstream::start(move |request, conversation| {
        let size = if request.text().contains("\"long\"") { 200_000 } else { 50 };
        let part = &long[..size / 2];
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
        if request.text().contains("chunked") {
            conversation.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes());
            conversation.chunk(part.as_bytes());
        } else {
            conversation.send(format!("{head}Content-Length: {size}\r\n\r\n{part}").as_bytes());
        }
        Next::Close
    });
    let gateway = Gateway::start(&[], upstream.address);
    for framing in ["length", "chunked"] {
        let short = gateway.post(&call(format!("\"{framing}\"")));
        assert_eq!(short.status, 502, "what fits a buffer is not begun");
        let mut client = gateway.client();
        client.send(&post(&call(format!("\"{framing}\"")).replace("hello", "long")));
        assert!(client.try_response().is_none(), "{framing}: the connection is cut before the end");
    }
    gateway.unharmed();
}

#[test]
fn huge_bodies_stream_with_bounded_memory_whatever_their_framing() {
    const SIZE: usize = 96 << 20;
    const PIECE: usize = 1 << 16;
    let upstream = Upstream::start(|request, conversation| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
        let framing = request.id();
        conversation.send(head.as_bytes());
        match framing.as_str() {
            "1" => conversation.send(format!("Content-Length: {SIZE}\r\n\r\n").as_bytes()),
            "2" => conversation.send(b"Transfer-Encoding: chunked\r\n\r\n"),
            _ => conversation.send(b"\r\n"),
        };
        for number in 0..SIZE / PIECE {
            let piece = vec![b'a' + (number % 26) as u8; PIECE];
            if framing == "2" {
                conversation.chunk(&piece)
            } else {
                conversation.send(&piece)
            };
        }
        match framing.as_str() {
            "1" => Next::Keep,
            "2" => conversation.end_chunks(),
            _ => Next::Close,
        }
    });
    let gateway = Gateway::start(&[], upstream.address);
    assert!(gateway.post("[").status == 400);
    let before = gateway.resident_bytes();
    for id in 1..=3 {
        // A prompt: results of tools are bounded, and tests/inspection.rs shows how.
        let prompt =
            format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"prompts/get\",\"params\":{{\"name\":\"p\"}}}}");
        let response = gateway.post(&prompt);
        assert_eq!(response.body.len(), SIZE, "{id}");
        let right =
            response.body.chunks(PIECE).enumerate().all(|(n, piece)| piece.iter().all(|b| *b == b'a' + (n % 26) as u8));
        assert!(right, "{id}");
        let grown = gateway.resident_bytes().saturating_sub(before);
        assert!(grown < 24 << 20, "{id}: {grown} bytes");
    }
    gateway.unharmed();
}

#[test]
fn the_clients_time_to_read_is_not_the_upstreams_time_to_answer() {
    let upstream = Upstream::start(|_, conversation| {
        conversation.send(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 200000\r\n\r\n{}",
                "x".repeat(100_000)
            )
            .as_bytes(),
        );
        conversation.wait_for("more");
        conversation.send("x".repeat(100_000).as_bytes());
        Next::Keep
    });
    let gateway = Gateway::start(
        &[("WRITE_TIMEOUT", "1500"), ("HEADER_TIMEOUT", "1500"), ("BODY_TIMEOUT", "1500")],
        upstream.address,
    );
    let bytes = post(&call(1));
    // The kernel takes the whole answer for it, however late it reads.
    let connect = || Client::with_buffer(gateway.bridge, 208 * 1024);
    let mut client = connect();
    until("a call that was not too slow in coming", || {
        client = connect();
        client.send(&bytes[..20]);
        client.try_send(&bytes[20..]);
        let is_made = || upstream.log(|log| log.requests.len() == 1);
        until("the call, or that it was too slow", || is_made() || client.has_more());
        is_made()
    });
    // Nothing tells that a time is over which must not be: only time does.
    std::thread::sleep(std::time::Duration::from_millis(4000));
    upstream.say("more");
    assert_eq!(client.response().body.len(), 200_000);
    assert_eq!(client.ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200, "and it stays open");
}

#[test]
fn a_modern_call_that_fails_is_told_in_the_same_words() {
    let nobody = Nobody::new();
    let gateway = Gateway::start(&[], nobody.address);
    let response = gateway.client().ask(&modern(5, "tools/call", Some("echo"), "\"name\":\"echo\",\"arguments\":{}"));
    assert_eq!((response.status, &response.json()["error"]["code"]), (502, &(-32001).into()));
}

#[test]
fn interim_answers_are_no_answer() {
    let upstream = Upstream::start(|request, conversation| {
        conversation.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
        conversation.echo(request)
    });
    let gateway = Gateway::start(&[], upstream.address);
    let mut client = gateway.client();
    for id in 0..3 {
        let response = client.ask(&post(&call(id)));
        assert_eq!((response.status, &response.json()["id"]), (200, &id.into()));
        assert_eq!(response.field("link"), None);
    }
}

#[test]
fn an_upstream_has_no_more_calls_in_flight_than_it_may_and_the_others_are_told_to_come_again() {
    let upstream = Upstream::start(|request, conversation| {
        conversation.wait_for("answer");
        conversation.echo(request)
    });
    let policy = format!("[upstream.only]\nurl = \"http://{}/mcp\"\nmax_in_flight = 2\n", upstream.address);
    let gateway = Gateway::with_policy(&[], &policy);
    let mut clients: Vec<_> = (0..2).map(|_| gateway.client()).collect();
    for (id, client) in clients.iter_mut().enumerate() {
        client.send(&post(&call(id)));
    }
    upstream.wait("both", |log| log.requests.len() == 2);
    // Whichever worker is asked.
    for _ in 0..8 {
        let response = gateway.post(&call(9));
        assert_eq!((response.status, &response.json()["error"]["code"]), (503, &(-32001).into()));
        assert!(response.field("retry-after").is_some());
    }
    upstream.say("answer");
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    until("a place in flight to be given back", || gateway.post(&call(9)).status == 200);
    assert_eq!(upstream.requests().len(), 3);
}
