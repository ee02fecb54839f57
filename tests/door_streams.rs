//! Promise: an event stream passes event by event, byte for byte, as it comes; silence is filled with comments, and whoever goes away
//! ends it at the other side too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use blackbox::{Client, Gateway, Next, TOKEN, Upstream, call, modern, post, result};

fn listen(fields: &str) -> Vec<u8> {
    format!(
        "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nAccept: text/event-stream\r\n\
         MCP-Protocol-Version: 2025-11-25\r\n{fields}\r\n"
    )
    .into_bytes()
}

/// Sends a piece each time the test says its number; waits for the close after the last.
fn stepwise(pieces: &'static [&'static str]) -> Upstream {
    Upstream::start(move |_, conversation| {
        conversation.begin_events();
        for (number, piece) in pieces.iter().enumerate() {
            conversation.wait_for(&number.to_string());
            conversation.chunk(piece.as_bytes());
        }
        conversation.wait_for("end");
        conversation.end_chunks()
    })
}

#[test]
fn events_pass_one_by_one_as_they_come_and_byte_for_byte() {
    const PIECES: &[&str] = &[
        ": a comment\n\n",
        "event: message\nid: 1\nretry: 500\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\n",
        "data:\r\n\r\n",
        "id: 2\r\ndata: {\"jsonrpc\":\"2.0\",\r\ndata:  \"method\":\"x\"}\r\n\r\n",
        "data: \u{e9}\u{1f600} \\u00e9\n\n",
        "unknown field\n\n",
        "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"n\":1.0e+2,\"n\":12345678901234567890123}}\n\n",
    ];
    let upstream = stepwise(PIECES);
    let gateway = Gateway::start(&[], upstream.address);
    for bytes in [post(&call(1)), listen("")] {
        let mut client = gateway.client();
        client.send(&bytes);
        let head = client.head();
        assert_eq!((head.status, head.field("content-type").as_deref()), (200, Some("text/event-stream")));
        assert_eq!(head.field("x-accel-buffering").as_deref(), Some("no"));
        for (number, piece) in PIECES.iter().enumerate() {
            upstream.say(&number.to_string());
            assert_eq!(client.event(), *piece);
        }
        upstream.say("end");
        assert_eq!(client.chunk(), Some(None));
    }
    gateway.unharmed();
}

#[test]
fn events_in_pieces_and_in_lumps_come_out_whole() {
    let upstream = Upstream::start(|_, conversation| {
        conversation.begin_events();
        for piece in ["da", "ta: o", "ne\n", "\ndata: two\n\ndata: three\n\nda", "ta: four\r", "\n\r\n"] {
            conversation.chunk(piece.as_bytes());
        }
        conversation.end_chunks()
    });
    let gateway = Gateway::start(&[], upstream.address);
    let mut client = gateway.client();
    client.send(&post(&call(1)));
    let response = client.response();
    assert_eq!(response.text(), "data: one\n\ndata: two\n\ndata: three\n\ndata: four\r\n\r\n");
    assert_eq!(client.ask(&post(&call(2))).text(), response.text(), "and the connection carries another call");
}

#[test]
fn a_stream_without_an_end_of_its_own_may_end_with_the_connection() {
    let upstream = Upstream::start(|request, conversation| {
        conversation.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        conversation.send(format!("data: {}\n\n", result(&request.id(), "{}")).as_bytes());
        Next::Close
    });
    let gateway = Gateway::start(&[], upstream.address);
    let mut client = gateway.client();
    let response = client.ask(&post(&call(1)));
    assert_eq!(response.text(), format!("data: {}\n\n", result("1", "{}")));
    assert_eq!(client.ask(&post(&call(2))).status, 200, "to the client it was a stream like any other");
}

#[test]
fn a_stream_that_breaks_never_looks_whole() {
    let upstream = Upstream::start(|_, conversation| {
        conversation.begin_events();
        conversation.chunk(b"data: one\n\n");
        conversation.chunk(b"data: half of");
        Next::Close
    });
    let gateway = Gateway::start(&[], upstream.address);
    let mut client = gateway.client();
    client.send(&post(&call(1)));
    client.head();
    assert_eq!(client.event(), "data: one\n\n");
    assert_eq!(client.chunk(), None, "no last chunk");
    drop(client);
    gateway.unharmed();
}

#[test]
fn silence_is_filled_with_a_comment_after_15_seconds_and_does_not_end_the_stream() {
    let upstream = stepwise(&["data: {\"late\":true}\n\n"]);
    // The client's time to take an answer is not the upstream's time to make one.
    let gateway = Gateway::start(&[("WRITE_TIMEOUT", "2000"), ("WS_CONNECTION_TIMEOUT", "2000")], upstream.address);
    let mut client = gateway.client();
    client.send(&post(&call(1)));
    client.head();
    assert_eq!(client.event(), ": keep-alive\n\n");
    upstream.say("0");
    assert_eq!(client.event(), "data: {\"late\":true}\n\n");
    upstream.say("end");
    assert_eq!(client.chunk(), Some(None));
}

#[test]
fn a_client_that_closes_its_stream_ends_the_upstreams() {
    let upstream = Upstream::start(|request, conversation| {
        if request.rpc_method() == "tools/call" && request.text().contains("\"quick\"") {
            return conversation.echo(request);
        }
        conversation.begin_events();
        conversation.chunk(b": begun\n\n");
        if conversation.wait_for_close() {
            conversation.note("closed");
        }
        Next::Close
    });
    let gateway = Gateway::start(&[], upstream.address);
    let bystander = |gateway: &Gateway| assert_eq!(gateway.post(&call("\"quick\"")).status, 200);
    let requests = [
        listen(""),
        post(&call(1)),
        modern(2, "tools/call", Some("echo"), "\"name\":\"echo\",\"arguments\":{}"),
        modern(3, "subscriptions/listen", None, "\"notifications\":{\"toolsListChanged\":true}"),
    ];
    for (round, bytes) in requests.into_iter().enumerate() {
        for how in ["close", "reset"] {
            let mut client: Client = gateway.client();
            client.send(&bytes);
            client.head();
            assert_eq!(client.event(), ": begun\n\n");
            bystander(&gateway);
            if how == "reset" {
                client.reset()
            } else {
                drop(client)
            }
            let closed = 2 * round + 1 + usize::from(how == "reset");
            upstream.wait("the upstream's stream to be closed", |log| log.notes.len() == closed);
            bystander(&gateway);
        }
    }
    gateway.unharmed();
}

#[test]
fn a_stream_is_resumed_where_the_client_says() {
    let upstream = Upstream::start(|_, conversation| {
        conversation.begin_events();
        conversation.chunk(b"id: 8\ndata: next\n\n");
        conversation.end_chunks()
    });
    let gateway = Gateway::start(&[], upstream.address);
    let mut client = gateway.client();
    let response = client.ask(&listen("Last-Event-ID: abc/7 \u{e9}\r\n"));
    assert_eq!(response.text(), "id: 8\ndata: next\n\n");
    assert_eq!(upstream.last().field("last-event-id").as_deref(), Some("abc/7 \u{e9}"));
    assert_eq!(upstream.last().method(), "GET");
}

#[test]
fn an_upstream_without_streams_says_so_by_405() {
    let upstream = Upstream::start(|_, conversation| {
        conversation.send(b"HTTP/1.1 405 No\r\nAllow: POST\r\nContent-Length: 0\r\n\r\n");
        Next::Keep
    });
    let gateway = Gateway::start(&[], upstream.address);
    let response = gateway.client().ask(&listen(""));
    assert_eq!((response.status, response.field("allow").as_deref()), (405, Some("POST")));
    // In 2026-07-28 there is none anywhere: the upstream is not asked.
    let bytes = String::from_utf8(listen("")).unwrap().replace("2025-11-25", "2026-07-28");
    for bytes in [bytes.clone(), bytes.replace("GET", "DELETE")] {
        let response = gateway.client().ask(bytes.as_bytes());
        assert_eq!((response.status, response.field("allow").as_deref()), (405, Some("POST")));
    }
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn a_client_of_http_1_0_gets_streams_that_end_with_the_connection() {
    let upstream = Upstream::start(|request, conversation| match request.id().as_str() {
        "1" => {
            conversation.begin_events();
            conversation.chunk(b"data: one\n\n");
            conversation.wait_for("0");
            conversation.chunk(b"data: two\n\n");
            conversation.end_chunks()
        }
        _ => {
            conversation
                .send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
            for _ in 0..20 {
                conversation.chunk(&[b'x'; 10_000]);
            }
            conversation.end_chunks()
        }
    });
    let gateway = Gateway::start(&[], upstream.address);
    for (id, body) in [(1, "data: one\n\ndata: two\n\n".to_owned()), (2, "x".repeat(200_000))] {
        for fields in ["", "Connection: keep-alive\r\n"] {
            let bytes = String::from_utf8(post(&call(id))).unwrap();
            let bytes = bytes.replacen("HTTP/1.1\r\n", &format!("HTTP/1.0\r\n{fields}"), 1);
            let mut client = gateway.client();
            client.send(bytes.as_bytes());
            upstream.say("0");
            let response = client.response();
            assert_eq!((response.status, response.text() == body), (200, true));
            assert_eq!(response.field("transfer-encoding"), None);
            assert_eq!(response.field("connection").as_deref(), Some("close"), "{}", response.head);
        }
    }
    gateway.unharmed();
}
