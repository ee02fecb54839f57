//! Promise: on the doors that carry messages, a client that is slow, endless, greedy, broken or many costs nobody else anything: the others are
//! served, memory stays bounded, and nothing is held of who has gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test's own threads")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use blackbox::{
    Client, Frame, Gateway, KEY, PATIENCE, Peer, TOKEN, Upstream, authenticate, call, stateless, until, upgrade,
};
use ringwall::wire::websocket::{Opcode, write};

fn echo(id: impl std::fmt::Display) -> String {
    stateless(id, "tools/call", "\"name\":\"echo\",\"arguments\":{\"text\":\"hello\"}")
}

fn both(gateway: &Gateway) -> [Peer; 2] {
    [Peer::tcp(gateway), Peer::websocket(gateway)]
}

fn frame(opcode: Opcode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write::frame(&mut frame, opcode, fin, payload, Some(KEY));
    frame
}

/// The request for an upgrade, with the token.
fn request() -> Vec<u8> {
    format!(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    )
    .into_bytes()
}

#[test]
fn messages_in_single_bytes_are_understood_and_no_other_client_waits() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("WORKERS", "1")], upstream.address).ready();
    let mut others = both(&gateway);
    for mut peer in both(&gateway) {
        let bytes = peer.framed(&echo("\"slow\""));
        for (at, byte) in bytes.iter().enumerate() {
            peer.client.send(&[*byte]);
            if at % 64 == 0 {
                for other in &mut others {
                    assert_eq!(other.ask(&echo(at))["id"], at);
                }
            }
        }
        assert_eq!(peer.hear()["id"], "slow");
    }
    drop(others);
    gateway.unharmed();
}

#[test]
fn what_never_ends_is_ended() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("MAX_MESSAGE_SIZE", "65536")], upstream.address).ready();
    let before = gateway.resident_bytes();
    // A line without an end.
    let mut peer = Peer::tcp(&gateway);
    while peer.client.try_send(&[b'x'; 16 * 1024]) {}
    drop(peer);
    // Fragments without an end, full and empty.
    for payload in [&[b' '; 1000][..], b""] {
        let mut peer = Peer::websocket(&gateway);
        peer.say_frame(Opcode::Text, false, b" ");
        let fragments = frame(Opcode::Continuation, false, payload).repeat(100);
        while peer.client.try_send(&fragments) {}
    }
    let mut closed: Vec<String> = Vec::new();
    until("the ends to be recorded", || {
        let trail = gateway.trail();
        // The trail has lines about itself, too.
        let lines = trail.iter().filter(|line| line["event"] != "checkpoint");
        closed = lines.filter_map(|line| Some(line["details"].as_str()?.to_owned())).collect();
        closed.len() >= 3
    });
    closed.sort_unstable();
    assert_eq!(closed, ["longer than MAX_MESSAGE_SIZE", "message too big", "too many empty frames"]);
    // Pings, read and unread.
    for reads in [true, false] {
        let mut peer = Peer::websocket(&gateway);
        let pings = frame(Opcode::Ping, true, &[b'p'; 125]).repeat(50);
        if reads {
            let mut sender = Client::on(peer.client.stream.try_clone().unwrap());
            let start = Instant::now();
            // On, until it is ended: how many it takes depends on how fast they come.
            let sending = std::thread::spawn(move || while sender.try_send(&pings) {});
            let mut pongs = 0;
            while let Some(frame) = peer.try_frame() {
                match frame {
                    Frame::Pong(_) => pongs += 1,
                    other => assert_eq!(other, Frame::Close(1008, "Too many control frames".to_owned())),
                }
            }
            // As many as are borne in a second, and those of the seconds before.
            let bearable = 256 * (start.elapsed().as_secs() + 2);
            assert!((256..=bearable).contains(&pongs), "{pongs}");
            sending.join().unwrap();
        } else {
            while peer.client.try_send(&pings) {}
        }
    }
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
    gateway.unharmed();
}

#[test]
fn an_announced_length_costs_no_memory() {
    let upstream = Upstream::echo();
    let limits = [("MAX_CONNECTIONS_PER_IP", "1000"), ("WS_MAX_CONNECTIONS", "1000"), ("TCP_MAX_CONNECTIONS", "1000")];
    let gateway = Gateway::start(&limits, upstream.address).ready();
    assert_eq!(Peer::websocket(&gateway).ask(&echo(1))["id"], 1);
    let before = gateway.resident_bytes();
    // As much as a message may be (1 MiB), of which nothing comes.
    let head = [&[0x81, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0][..], &KEY[..]].concat();
    let waiting: Vec<Peer> = (0..200)
        .map(|_| {
            let mut peer = Peer::websocket(&gateway);
            peer.client.send(&[&head[..], b"{"].concat());
            peer
        })
        .collect();
    assert_eq!(Peer::websocket(&gateway).ask(&echo(2))["id"], 2);
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 24 << 20, "200 announcements of 1 MiB took {grown} bytes");
    drop(waiting);
    gateway.unharmed();
}

#[test]
fn resets_and_half_closes_anywhere_leave_nothing_behind() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address).ready();
    let line = format!("{}\n{}\n", authenticate("1", TOKEN), echo(2)).into_bytes();
    let frames = [request(), frame(Opcode::Text, true, echo(2).as_bytes())].concat();
    for (door, bytes) in [(gateway.tcp, line), (gateway.bridge, frames)] {
        for at in (0..=bytes.len()).step_by(13).chain([bytes.len()]) {
            for how in ["reset", "half-close", "close"] {
                let mut client = Client::connect(door);
                client.send(&bytes[..at]);
                match how {
                    "reset" => client.reset(),
                    "half-close" => {
                        client.half_close();
                        client.rest();
                    }
                    _ => drop(client),
                }
            }
        }
    }
    gateway.alone();
    for mut peer in both(&gateway) {
        assert_eq!(peer.ask(&echo(3))["id"], 3);
    }
    gateway.unharmed();
}

#[test]
fn garbage_behind_the_upgrade_ends_in_a_close() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address).ready();
    let garbage: [&[u8]; 5] = [
        b"GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"{\"jsonrpc\":\"2.0\"}\n",
        &[0xff; 64],
        &[0; 64],
        b"\x16\x03\x01",
    ];
    for bytes in garbage {
        let mut client = gateway.client();
        client.send(&[&request(), bytes].concat());
        assert_eq!(client.head().status, 101);
        let mut peer = Peer::on(client);
        let closed = peer.frame();
        assert!(matches!(closed, Frame::Close(1002, _)), "{closed:?}");
        assert!(peer.client.is_closed());
    }
    // And on the TCP door: HTTP and TLS are lines that are none.
    for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"\x16\x03\x01\x00\n"] {
        let mut peer = Peer::stranger(&gateway);
        peer.client.send(bytes);
        assert_eq!(peer.hear()["error"]["code"], -32700);
    }
    assert!(upstream.requests().is_empty());
    gateway.unharmed();
}

/// Connections at most; the real number is the machine's.
const MOST: usize = 20_000;

/// Connections at least, for however long that takes.
const FLOOD: usize = 200;

fn flood(door: SocketAddr, bytes: &[u8]) -> usize {
    let made = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let (took, made_so_far) = (start.elapsed(), made.load(Ordering::Relaxed));
                    if made_so_far >= MOST || (made_so_far >= FLOOD && took >= Duration::from_secs(2)) {
                        return;
                    }
                    assert!(took < PATIENCE, "{made_so_far} connections are no flood");
                    let Ok(stream) = TcpStream::connect_timeout(&door, Duration::from_secs(5)) else { continue };
                    made.fetch_add(1, Ordering::Relaxed);
                    let mut client = Client::on(stream);
                    let _ = client.try_send(bytes);
                    // A port that waits for its time is not free again; a reset frees it at once.
                    client.reset();
                }
            });
        }
    });
    made.load(Ordering::Relaxed)
}

#[test]
fn a_flood_of_connections_passes() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("MAX_CONNECTIONS_PER_IP", "64"), ("MCP_LOG_LEVEL", "error")], upstream.address);
    let gateway = gateway.ready();
    let before = gateway.resident_bytes();
    let line = format!("{}\n{}\n", authenticate("1", TOKEN), echo(2));
    for (door, bytes) in [(gateway.tcp, line.as_bytes()), (gateway.bridge, &request()[..])] {
        let made = flood(door, bytes);
        println!("{made} connections");
        until("a client to be let in again", || {
            let mut client = gateway.client();
            client.try_send(&blackbox::post(&call(1)))
                && client.try_response().is_some_and(|answer| answer.status == 200)
        });
    }
    gateway.alone();
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes");
    for let_in in [Peer::try_tcp as fn(&Gateway) -> Option<Peer>, Peer::try_websocket] {
        // Of a worker's flood, some may still be waiting to be accepted.
        until("a peer to be let in again", || {
            let_in(&gateway).map(|mut peer| assert_eq!(peer.ask(&echo(3))["id"], 3)).is_some()
        });
    }
    gateway.unharmed();
}

#[test]
fn a_thousand_clients_that_vanish_at_once_are_forgotten() {
    let upstream = Upstream::start(|request, conversation| {
        if request.text().contains("\"last\"") {
            return conversation.echo(request);
        }
        conversation.wait_for_close();
        blackbox::Next::Close
    });
    // A call has no time of its own in which it would end.
    let policy = format!(
        "[upstream.only]\nurl = \"http://{}/mcp\"\ncall_timeout_ms = 120000\nmax_in_flight = 4096\n",
        upstream.address
    );
    let limits = [("MAX_CONNECTIONS_PER_IP", "2000"), ("WS_MAX_CONNECTIONS", "1000"), ("TCP_MAX_CONNECTIONS", "1000")];
    let gateway = Gateway::with_policy(&limits, &policy).ready();
    let mut peers: Vec<Peer> = (0..500).flat_map(|_| both(&gateway)).collect();
    assert_eq!((gateway.open_on("tcp"), gateway.open_on("ws")), (500, 500));
    for peer in peers.iter_mut().step_by(5) {
        peer.say(&echo(1));
    }
    upstream.wait("the calls", |log| log.requests.len() == 200);
    for peer in peers {
        peer.client.reset();
    }
    gateway.unharmed();
    upstream.wait("the calls to be given up", |log| log.closed.len() >= 200);
    let (client, response) = upgrade(&gateway, "/ws", &format!("Authorization: Bearer {TOKEN}\r\n"));
    assert_eq!(response.status, 101);
    assert_eq!(Peer::on(client).ask(&echo("\"last\""))["id"], "last");
}
