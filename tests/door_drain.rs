//! Promise: SIGTERM takes no call away. What is in flight ends, what is idle closes, nothing new begins, and the exit code says
//! whether all went well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use std::net::TcpStream;

use blackbox::{Client, Gateway, TOKEN, Upstream, call, post, result, until};
use rustix::process::Signal;

const GET: &str =
    "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\n";

fn waiting_upstream() -> Upstream {
    Upstream::start(|request, conversation| {
        if request.method() == "GET" {
            conversation.begin_events();
            conversation.chunk(b"data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n");
            conversation.wait_for_close();
            return blackbox::Next::Close;
        }
        if request.text().contains("\"events\"") {
            conversation.begin_events();
            conversation.chunk(b": begun\n\n");
            conversation.wait_for("answer");
            conversation.chunk(format!("data: {}\n\n", result(&request.id(), "{}")).as_bytes());
            return conversation.end_chunks();
        }
        conversation.wait_for("answer");
        conversation.echo(request)
    })
}

fn draining(gateway: &Gateway) {
    until("draining", || {
        let mut client = Client::connect(gateway.health);
        client.ask(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").text() == "draining"
    });
}

#[test]
fn calls_in_flight_finish_idle_connections_close_and_the_exit_code_is_0() {
    let upstream = waiting_upstream();
    let mut gateway = Gateway::start(&[], upstream.address).ready();
    let mut idle: Vec<Client> = (0..3).map(|_| gateway.client()).collect();
    for client in &mut idle[1..] {
        assert_eq!(client.ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
    }
    let mut calls: Vec<Client> = (0..4).map(|_| gateway.client()).collect();
    for (id, client) in calls.iter_mut().enumerate() {
        client.send(&post(&call(id)));
    }
    upstream.wait("the calls", |log| log.requests.len() == 4);
    gateway.signal(Signal::TERM);
    for client in &mut idle {
        assert!(client.is_closed(), "an idle connection is ended without a word");
    }
    draining(&gateway);
    until("no more connections to be taken", || match TcpStream::connect(gateway.bridge) {
        Err(_) => true,
        // The last one before the listener closed: it is not served.
        Ok(stream) => Client::on(stream).is_closed(),
    });
    assert!(gateway.is_running());
    upstream.say("answer");
    for (id, client) in calls.iter_mut().enumerate() {
        let response = client.response();
        assert_eq!((response.status, &response.json()["id"]), (200, &id.into()));
        assert!(client.is_closed());
    }
    assert!(gateway.exit().success(), "{}", gateway.log());
}

#[test]
fn a_call_that_is_answered_by_an_event_stream_is_a_call_in_flight() {
    let upstream = waiting_upstream();
    let mut gateway = Gateway::start(&[("WORKERS", "1")], upstream.address).ready();
    let mut idle = gateway.client();
    assert_eq!(idle.ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
    let mut client = gateway.client();
    client.send(&post(&call("\"events\"")));
    assert_eq!(client.head().status, 200);
    assert_eq!(client.event(), ": begun\n\n");
    gateway.signal(Signal::TERM);
    assert!(idle.is_closed(), "the worker has begun to drain");
    upstream.say("answer");
    assert_eq!(client.event(), format!("data: {}\n\n", result("\"events\"", "{}")));
    assert_eq!(client.chunk(), Some(None), "the stream ends in good order");
    assert!(gateway.exit().success(), "{}", gateway.log());
}

#[test]
fn a_session_stream_which_has_no_end_does_not_hold_the_exit_up() {
    let upstream = waiting_upstream();
    let mut gateway = Gateway::start(&[], upstream.address).ready();
    let mut stream = gateway.client();
    stream.send(format!("{GET}Authorization: Bearer {TOKEN}\r\n\r\n").as_bytes());
    assert_eq!(stream.head().status, 200);
    stream.event();
    let mut client = gateway.client();
    client.send(&post(&call(1)));
    upstream.wait("both", |log| log.requests.len() == 2);
    gateway.signal(Signal::TERM);
    assert_eq!(stream.chunk(), Some(None), "told in good order that it is over");
    upstream.say("answer");
    assert_eq!(client.response().status, 200);
    assert!(gateway.exit().success(), "{}", gateway.log());
}

#[test]
fn what_does_not_end_within_the_drain_timeout_is_cut_and_said() {
    let upstream = waiting_upstream();
    let mut gateway = Gateway::start(&[("DRAIN_TIMEOUT", "300")], upstream.address).ready();
    let mut client = gateway.client();
    client.send(&post(&call(1)));
    upstream.wait("the call", |log| log.requests.len() == 1);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit().code(), Some(1));
    assert!(client.is_closed(), "nothing that could be taken for an answer");
    assert!(gateway.log().contains("1 calls were cut off after DRAIN_TIMEOUT"), "{}", gateway.log());
}

#[test]
fn a_second_signal_quits_at_once() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let upstream = waiting_upstream();
        let mut gateway = Gateway::start(&[], upstream.address).ready();
        let mut client = gateway.client();
        client.send(&post(&call(1)));
        upstream.wait("the call", |log| log.requests.len() == 1);
        gateway.signal(first);
        draining(&gateway);
        assert!(gateway.is_running());
        gateway.signal(second);
        assert_eq!(gateway.exit().code(), Some(1));
        assert!(gateway.log().contains("second signal"), "{}", gateway.log());
    }
}

#[test]
fn without_anything_in_flight_it_ends_at_once_with_the_trail_complete() {
    let upstream = Upstream::echo();
    let mut gateway = Gateway::start(&[], upstream.address).ready();
    assert_eq!(gateway.post(&call(1)).status, 200);
    gateway.signal(Signal::TERM);
    assert!(gateway.exit().success());
    let folder = gateway.folder().join("ringwall-data/security");
    let trail: String = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    for event in ["server_start", "connection_established", "auth_success", "tool_call", "server_shutdown"] {
        assert!(trail.contains(&format!("\"event\":\"{event}\"")), "{event}: {trail}");
    }
    assert!(!trail.contains(TOKEN));
}
