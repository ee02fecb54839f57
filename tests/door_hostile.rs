//! Promise: a client that is slow, deaf, gone, greedy or broken costs nobody else anything: the others are served, memory stays
//! bounded, and nothing is held of who has gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(
    clippy::disallowed_methods,
    reason = "a test's own threads; and that nothing happens can only be seen by waiting"
)]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use blackbox::{Client, Gateway, Next, TOKEN, Upstream, call, modern, post, until};

/// Sends a byte every 20 ms until the other side has had enough.
fn trickle(client: &mut Client, bytes: &[u8]) {
    for byte in bytes {
        if client.stream.write_all(&[*byte]).is_err() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_client_that_trickles_its_head_or_its_body_is_told_408_and_closed() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("HEADER_TIMEOUT", "400"), ("BODY_TIMEOUT", "400")], upstream.address);
    let bytes = post(&call(1));
    let head = memchr::memmem::find(&bytes, b"\r\n\r\n").unwrap() + 4;
    for at_once in [0, head] {
        let mut client = gateway.client();
        client.send(&bytes[..at_once]);
        let mut sender = Client::on(client.stream.try_clone().unwrap());
        let rest = bytes[at_once..].to_vec();
        let slow = std::thread::spawn(move || trickle(&mut sender, &rest));
        let response = client.response();
        assert_eq!(response.status, 408, "{}", response.text());
        assert_eq!(response.field("connection").as_deref(), Some("close"));
        // The others notice nothing.
        assert_eq!(gateway.post(&call(2)).status, 200);
        drop(client.rest());
        slow.join().unwrap();
    }
    assert!(upstream.requests().iter().all(|request| request.id() == "2"));
    gateway.unharmed();
}

#[test]
fn an_idle_connection_is_closed_after_its_time_without_a_word() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("WS_CONNECTION_TIMEOUT", "300")], upstream.address);
    let mut fresh = gateway.client();
    assert!(fresh.is_closed());
    let mut used = None;
    until("a call that came before that time was over", || {
        let mut client = gateway.client();
        let response = if client.try_send(&post(&call(1))) { client.try_response() } else { None };
        used = response.map(|response| (response.status, client));
        used.is_some()
    });
    let (status, mut used) = used.unwrap();
    assert_eq!(status, 200);
    assert!(used.is_closed());
    drop((fresh, used));
    gateway.unharmed();
}

#[test]
fn a_client_that_never_reads_stops_the_reading_of_its_upstream_and_is_cut() {
    const SIZE: usize = 256 << 20;
    let upstream = Upstream::start(|request, conversation| {
        if request.id() == "2" {
            return conversation.echo(request);
        }
        let events = request.id() == "3";
        if events {
            conversation.begin_events();
        } else {
            conversation.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes());
        }
        let piece = [b"data: ".as_slice(), &vec![b'x'; 64 * 1024], b"\n\n"].concat();
        let mut sent = 0;
        while sent < SIZE && if events { conversation.chunk(&piece) } else { conversation.send(&piece) } {
            sent += piece.len();
        }
        conversation.note(&format!("sent {}", sent >> 20));
        Next::Close
    });
    let gateway = Gateway::start(&[("WRITE_TIMEOUT", "1500")], upstream.address);
    assert_eq!(gateway.post(&call(2)).status, 200);
    let before = gateway.resident_bytes();
    for (round, id) in [1, 3].into_iter().enumerate() {
        let mut deaf = Client::deaf(gateway.bridge);
        // A prompt is no result of a tool: one of that length would be refused before it is read.
        let prompt = r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"p"}}"#;
        deaf.send(&post(&if id == 1 { prompt.to_owned() } else { call(id) }));
        upstream.wait("the call", |log| log.requests.iter().any(|request| request.id() == id.to_string()));
        assert_eq!(gateway.post(&call(2)).status, 200, "others are served");
        upstream.wait("the upstream to be given up", |log| log.notes.len() == round + 1);
        let sent: usize = upstream.log(|log| log.notes[round][5..].parse().unwrap());
        assert!(sent < 32, "{sent} MiB were read for a client that takes nothing");
        let grown = gateway.resident_bytes().saturating_sub(before);
        assert!(grown < 24 << 20, "{grown} bytes");
        assert!(deaf.try_response().is_none(), "what was cut does not look whole");
    }
    gateway.unharmed();
}

#[test]
fn a_client_that_disconnects_mid_call_ends_the_call_at_the_upstream() {
    let upstream = Upstream::start(|request, conversation| {
        if request.id() == "2" {
            return conversation.echo(request);
        }
        assert!(conversation.wait_for_close());
        conversation.note("closed");
        Next::Close
    });
    let gateway = Gateway::start(&[], upstream.address);
    let large = call(1).replace("hello", &"x".repeat(300_000));
    let requests =
        [post(&call(1)), modern(1, "tools/call", Some("echo"), "\"name\":\"echo\",\"arguments\":{}"), post(&large)];
    let mut gone = 0;
    for bytes in requests {
        for how in ["close", "reset", "half-close", "pipelined"] {
            let mut client = gateway.client();
            client.send(&bytes);
            upstream.wait("the call", |log| log.requests.iter().filter(|one| one.id() == "1").count() == gone + 1);
            match how {
                "close" => drop(client),
                "reset" => client.reset(),
                "half-close" => client.half_close(),
                _ => {
                    client.send(&post(&call(2)));
                    drop(client);
                }
            }
            gone += 1;
            upstream.wait("the upstream's connection to be closed", |log| log.notes.len() == gone);
            assert_eq!(gateway.post(&call(2)).status, 200);
        }
    }
    gateway.unharmed();
}

#[test]
fn requests_that_break_off_reach_no_upstream() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("MAX_CONNECTIONS_PER_IP", "400"), ("WS_MAX_CONNECTIONS", "400")], upstream.address);
    let bytes = post(&call(1));
    for cut in (1..bytes.len()).step_by(7) {
        for how in ["close", "reset", "half-close"] {
            let mut client = gateway.client();
            client.send(&bytes[..cut]);
            match how {
                "close" => drop(client),
                "reset" => client.reset(),
                _ => {
                    client.half_close();
                    assert!(client.is_closed(), "cut at {cut}");
                }
            }
        }
    }
    gateway.unharmed();
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_flood_over_the_limits_costs_who_is_in_nothing() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("WS_MAX_CONNECTIONS", "20")], upstream.address);
    let mut inside = gateway.client();
    assert_eq!(inside.ask(&post(&call(0))).status, 200);
    let before = gateway.resident_bytes();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flood = |_| {
            scope.spawn(|| {
                let mut open = Vec::new();
                for number in 0..2500 {
                    // Some speak, some do not; some read their refusal, most stay.
                    let mut client = gateway.client();
                    if number % 3 == 0 {
                        client.try_send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    }
                    open.push(client);
                    if open.len() > 200 {
                        open.clear();
                    }
                }
            })
        };
        let floods: Vec<_> = (0..2).map(flood).collect();
        let served = scope.spawn(|| {
            let mut served = 0;
            while !over.load(Ordering::Relaxed) {
                assert_eq!(inside.ask(&post(&call(served))).status, 200);
                served += 1;
            }
            served
        });
        floods.into_iter().for_each(|flood| flood.join().unwrap());
        over.store(true, Ordering::Relaxed);
        assert!(served.join().unwrap() > 0);
    });
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
    drop(inside);
    until("room", || {
        let mut client = gateway.client();
        client.try_send(&post(&call(1))) && client.try_response().is_some_and(|response| response.status == 200)
    });
    gateway.unharmed();
}

#[test]
fn ten_megabytes_pass_whole_and_are_not_kept() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("WORKERS", "1")], upstream.address);
    assert_eq!(gateway.post(&call(0)).status, 200);
    let before = gateway.resident_bytes();
    let body = call(1).replace("hello", &"x".repeat((10 << 20) - call(1).len()));
    let mut client = gateway.client();
    for _ in 0..5 {
        assert_eq!(client.ask(&post(&body)).status, 200);
        assert_eq!(upstream.last().body, body.as_bytes());
        upstream.take_requests();
    }
    // One connection's worth, in and out, and the parser's scratch; not five times that.
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 160 << 20, "{grown} bytes");
    drop(client);
    gateway.unharmed();
}

#[test]
fn a_thousand_pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address);
    let mut client = gateway.client();
    let mut sender = Client::on(client.stream.try_clone().unwrap());
    let writer = std::thread::spawn(move || {
        let all: Vec<u8> = (0..1000).flat_map(|id| post(&call(id))).collect();
        sender.send(&all);
    });
    for id in 0..1000 {
        let response = client.response();
        assert_eq!((response.status, &response.json()["id"]), (200, &id.into()));
    }
    writer.join().unwrap();
    assert_eq!(upstream.requests().len(), 1000);
    drop(client);
    gateway.unharmed();
}

#[test]
fn garbage_is_refused_and_closed() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address);
    let tls_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20);
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |n: usize| -> Vec<u8> {
        (0..n)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise as u8
            })
            .collect()
    };
    let mut cases: Vec<Vec<u8>> = vec![
        tls_hello,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec(),
        b"\0".repeat(20_000),
        b"GET ".iter().copied().chain(std::iter::repeat_n(b'a', 40_000)).collect(),
        [b"GET /health HTTP/1.1\r\nHost: a\r\n".as_slice(), &b"X: y\r\n".repeat(200), b"\r\n"].concat(),
        format!("POST /mcp HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n").into_bytes(),
    ];
    cases.extend((0..60).map(|n| [random(50 + n * 37), b"\r\n\r\n".to_vec()].concat()));
    for case in &cases {
        let mut client = gateway.client();
        client.try_send(case);
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        let rest = client.rest();
        assert!(
            rest.is_empty() || rest.starts_with(b"HTTP/1.1 4") || rest.starts_with(b"HTTP/1.1 5"),
            "{}",
            rest.escape_ascii()
        );
    }
    gateway.unharmed();
    assert!(upstream.requests().is_empty());
}
