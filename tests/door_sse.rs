//! Promise: a client that speaks the HTTP+SSE transport of 2024-11-05 alone has the whole of MCP through `GET /sse` and
//! `POST /messages`: behind the same guards, in front of every kind of upstream, whichever worker its posts arrive at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "that a stream is kept can only be seen by waiting")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine;
use blackbox::{Client, Gateway, Next, Response, TOKEN, Upstream, call, result, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const OWN: &str = "upstream-session-51c8";
const BOT: &str = "agent-token-of-the-other-bot-0123456789abcdef";
const INITIALIZED: &str = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}";

fn initialize() -> String {
    "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2024-11-05\",\"capabilities\":{},\
     \"clientInfo\":{\"name\":\"old\",\"version\":\"1\"}}}"
        .to_owned()
}

/// A server of the session era; `tools/call` gives its own arguments back.
fn session_upstream() -> Upstream {
    Upstream::start(|request, conversation| match (request.method(), request.rpc_method().as_str()) {
        ("POST", "initialize") => {
            let body = result(
                &request.id(),
                "{\"protocolVersion\":\"2024-11-05\",\"capabilities\":{},\"serverInfo\":{\"name\":\"s\",\"version\":\"1\"}}",
            );
            let fields = format!("Mcp-Session-Id: {OWN}\r\nContent-Length: {}\r\n", body.len());
            conversation
                .send(format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{fields}\r\n{body}").as_bytes());
            Next::Keep
        }
        ("POST", "tools/call") => {
            let message: Value = serde_json::from_slice(&request.body).unwrap();
            let arguments = &message["params"]["arguments"];
            conversation
                .json(&result(&request.id(), &json!({"content": [], "structuredContent": arguments}).to_string()))
        }
        ("GET", _) => {
            conversation.send(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n");
            Next::Keep
        }
        ("DELETE", _) => {
            conversation.send(b"HTTP/1.1 204 No Content\r\n\r\n");
            Next::Keep
        }
        _ => conversation.echo(request),
    })
}

fn get(target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{fields}\r\n").into_bytes()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn post_as(token: &str, path: &str, body: &str) -> Vec<u8> {
    let fields = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{}{fields}\r\n{body}", bearer(token)).into_bytes()
}

fn echo(id: impl std::fmt::Display, text: &str) -> String {
    call(id).replace("hello", text)
}

/// A stream, and where to post.
struct Stream {
    client: Client,
    path: String,
}

impl Stream {
    fn open(gateway: &Gateway) -> Self {
        Self::over(gateway.client(), &get("/sse", &bearer(TOKEN)))
    }

    /// Whose kernel takes little of what is not read.
    fn deaf(gateway: &Gateway) -> Self {
        Self::over(Client::deaf(gateway.bridge), &get("/sse", &bearer(TOKEN)))
    }

    fn over(mut client: Client, request: &[u8]) -> Self {
        client.send(request);
        let head = client.head();
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.field("content-type").as_deref(), Some("text/event-stream"));
        assert_eq!(head.field("cache-control").as_deref(), Some("no-cache, no-transform"));
        assert_eq!(head.field("x-accel-buffering").as_deref(), Some("no"));
        assert_eq!(head.field("transfer-encoding").as_deref(), Some("chunked"));
        let first = client.event();
        let path = first.strip_prefix("event: endpoint\ndata: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
        assert!(path.starts_with("/messages?sessionId="), "{path}");
        Self { path: path.to_owned(), client }
    }

    /// Posts on a connection of its own.
    fn post(&self, gateway: &Gateway, body: &str) -> Response {
        gateway.client().ask(&post_as(TOKEN, &self.path, body))
    }

    fn accepted(&self, gateway: &Gateway, body: &str) {
        let response = self.post(gateway, body);
        assert_eq!((response.status, response.text().as_str()), (202, "Accepted"), "{body}: {response:?}");
    }

    /// The next message on the stream.
    fn message(&mut self) -> Value {
        let event = self.client.event();
        let data = event.strip_prefix("event: message\ndata: ").and_then(|rest| rest.strip_suffix("\n\n"));
        serde_json::from_str(data.unwrap_or_else(|| panic!("a message is expected: {event:?}"))).unwrap()
    }

    fn initialized(mut self, gateway: &Gateway) -> Self {
        self.accepted(gateway, &initialize());
        let answer = self.message();
        assert_eq!((&answer["id"], &answer["result"]["protocolVersion"]), (&json!(0), &json!("2024-11-05")));
        self.accepted(gateway, INITIALIZED);
        self
    }

    /// The number of the worker that holds it, as the id says.
    fn worker(&self) -> u8 {
        let id = self.path.split_once('=').unwrap().1;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(id).unwrap()[1]
    }
}

fn audit(gateway: &Gateway) -> String {
    let folder = gateway.folder().join("ringwall-data/security");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    files.collect()
}

fn draining(gateway: &Gateway) {
    until("draining", || {
        let mut client = Client::connect(gateway.health);
        client.ask(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").text() == "draining"
    });
}

#[test]
fn a_whole_session_in_front_of_an_http_server() {
    let upstream = session_upstream();
    let gateway = Gateway::start(&[], upstream.address);
    let mut stream = Stream::open(&gateway).initialized(&gateway);
    stream.accepted(&gateway, &echo("\"a\"", "one\\ntwo"));
    let answer = stream.message();
    assert_eq!(answer["id"], "a");
    assert_eq!(answer["result"]["structuredContent"], json!({"text": "one\ntwo"}));
    // What a guard refuses is told on the stream; the post was taken.
    stream.accepted(&gateway, "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"ping\",\"params\":{\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2030-01-01\",\"io.modelcontextprotocol/clientCapabilities\":{}}}}");
    assert_eq!(stream.message()["error"]["code"], -32022);
    let calls: Vec<_> = upstream.take_requests();
    let by_method = |method: &str| calls.iter().find(|request| request.rpc_method() == method).unwrap().clone();
    assert_eq!(by_method("initialize").field("mcp-session-id"), None);
    for method in ["notifications/initialized", "tools/call"] {
        assert_eq!(by_method(method).field("mcp-session-id").as_deref(), Some(OWN), "{method}");
    }
    for request in &calls {
        assert!(!request.head.contains("sessionId") && !request.head.contains(TOKEN), "{}", request.head);
    }
    drop(stream);
    upstream.wait("the session's end", |log| log.requests.iter().any(|request| request.method() == "DELETE"));
    until("the record of it", || audit(&gateway).contains("\"tool\":\"echo\""));
    gateway.unharmed();
}

#[test]
fn a_whole_session_in_front_of_a_stdio_server() {
    let command = format!("command = [{:?}, \"sample-server\"]", env!("CARGO_BIN_EXE_ringwall"));
    let gateway = Gateway::with_policy(&[], &format!("[upstream.sample]\n{command}\n")).ready();
    let mut stream = Stream::open(&gateway).initialized(&gateway);
    stream.accepted(&gateway, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}");
    let tools = stream.message();
    let names: Vec<_> = tools["result"]["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert!(names.contains(&&json!("echo")), "{names:?}");
    stream.accepted(&gateway, &echo(2, "over stdio"));
    let answer = stream.message();
    assert_eq!(answer["id"], 2);
    assert!(answer["result"].to_string().contains("over stdio"), "{answer}");
    drop(stream);
    gateway.unharmed();
}

#[test]
fn posts_find_their_stream_from_every_worker_to_every_worker() {
    let upstream = session_upstream();
    let gateway = Gateway::start(&[("WORKERS", "2"), ("MAX_CONNECTIONS_PER_IP", "200")], upstream.address);
    let mut streams: Vec<Stream> = Vec::new();
    until("streams on both workers", || {
        streams.push(Stream::open(&gateway).initialized(&gateway));
        assert!(streams.len() < 40, "the kernel gives one worker all connections");
        streams.iter().map(Stream::worker).collect::<BTreeSet<_>>() == BTreeSet::from([0, 1])
    });
    for round in 0..12 {
        for (number, stream) in streams.iter().enumerate() {
            stream.accepted(&gateway, &echo(round, &format!("{number}/{round}")));
        }
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let mut texts = BTreeSet::new();
        for _ in 0..12 {
            let answer = stream.message();
            let text = answer["result"]["structuredContent"]["text"].as_str().unwrap().to_owned();
            assert_eq!(text, format!("{number}/{}", answer["id"]), "an answer under another's id");
            assert!(texts.insert(text));
        }
    }
    // The low bits of a connection's number are its worker's: both have taken posts.
    let took = |worker: u64| {
        audit(&gateway).lines().any(|line| {
            let client = line.split("\"clientId\":\"http-").nth(1).and_then(|rest| rest.split('"').next());
            client.and_then(|hex| u64::from_str_radix(hex, 16).ok()).is_some_and(|id| id & 0x3ff == worker)
        })
    };
    until("records of both workers", || took(0) && took(1));
    drop(streams);
    gateway.unharmed();
}

#[test]
fn what_is_posted_behind_an_initialize_waits_for_it_and_holds_up_nobody_else() {
    let upstream = Upstream::start(|request, conversation| {
        if request.text().contains("\"slow\"") {
            conversation.wait_for("go");
        }
        conversation.echo(request)
    });
    let gateway = Gateway::start(&[("WORKERS", "1")], upstream.address);
    let (mut slow, mut other) = (Stream::open(&gateway), Stream::open(&gateway));
    let mut bytes = Vec::new();
    for body in [initialize().replace("\"old\"", "\"slow\""), INITIALIZED.to_owned(), echo(1, "a"), echo(2, "b")] {
        bytes.extend(post_as(TOKEN, &slow.path, &body));
    }
    let mut poster = gateway.client();
    poster.send(&bytes);
    for _ in 0..4 {
        assert_eq!(poster.response().status, 202, "an answer is not waited for");
    }
    other.accepted(&gateway, &echo(9, "not held up"));
    assert_eq!(other.message()["id"], 9);
    let methods = || upstream.requests().iter().map(|request| request.rpc_method()).collect::<Vec<_>>();
    // It has connections of its own, so it may arrive after what went by it.
    until("the slow client's initialize", || methods().iter().any(|method| method == "initialize"));
    assert_eq!(methods().iter().filter(|method| **method != "tools/call").collect::<Vec<_>>(), ["initialize"]);
    upstream.say("go");
    assert_eq!(slow.message()["id"], 0);
    let ids = BTreeSet::from([slow.message()["id"].as_u64(), slow.message()["id"].as_u64()]);
    assert_eq!(ids, BTreeSet::from([Some(1), Some(2)]));
    let order = methods().into_iter().filter(|method| method != "tools/call").collect::<Vec<_>>();
    assert_eq!(order, ["initialize", "notifications/initialized"]);
    let place = |text: &str| upstream.requests().iter().position(|request| request.text().contains(text)).unwrap();
    assert!(place("\"a\"") > place("notifications/initialized") && place("\"b\"") > place("notifications/initialized"));
}

#[test]
fn two_sessions_with_the_same_ids_do_not_meet() {
    let upstream = Upstream::start(|request, conversation| {
        conversation.wait_for("both");
        let message: Value = serde_json::from_slice(&request.body).unwrap();
        conversation.json(&result(&request.id(), &message["params"]["arguments"].to_string()))
    });
    let gateway = Gateway::start(&[], upstream.address);
    let mut streams = [Stream::open(&gateway), Stream::open(&gateway)];
    assert_ne!(streams[0].path, streams[1].path);
    for (number, stream) in streams.iter().enumerate() {
        stream.accepted(&gateway, &echo(1, &format!("of {number}")));
    }
    upstream.wait("both calls", |log| log.requests.len() == 2);
    upstream.say("both");
    for (number, stream) in streams.iter_mut().enumerate() {
        let answer = stream.message();
        assert_eq!((&answer["id"], &answer["result"]["text"]), (&json!(1), &json!(format!("of {number}"))));
    }
}

#[test]
fn another_principals_session_is_as_unknown_as_one_that_never_was() {
    let upstream = Upstream::echo();
    let hash: String = Sha256::digest(BOT).iter().map(|byte| format!("{byte:02x}")).collect();
    let policy = format!(
        "[upstream.only]\nurl = \"http://{}/mcp\"\n[agent.other]\ntoken_sha256 = \"{hash}\"\n",
        upstream.address
    );
    let gateway = Gateway::with_policy(&[], &policy);
    let mut stream = Stream::open(&gateway);
    let mut bot = Stream::over(gateway.client(), &get("/sse", &bearer(BOT)));
    let told = |token: &str, path: &str| {
        let response = gateway.client().ask(&post_as(token, path, &call(1)));
        let head = response.head.lines().filter(|line| !line.starts_with("Date:")).collect::<Vec<_>>().join("\n");
        (response.status, head, response.text())
    };
    let ended = Stream::open(&gateway);
    let over = ended.path.clone();
    drop(ended);
    until("the stream's end", || told(TOKEN, &over).0 == 404);
    let foreign = told(BOT, &stream.path);
    assert_eq!((foreign.0, foreign.2.as_str()), (404, "{\"error\":\"Session not found: open a stream at /sse\"}"));
    let id = stream.path.split_once('=').unwrap().1.to_owned();
    let changed = |at: usize| {
        let with = if &id[at..=at] == "A" { "B" } else { "A" };
        format!("/messages?sessionId={}{with}{}", &id[..at], &id[at + 1..])
    };
    for path in [
        over,
        changed(0),
        changed(2),
        changed(7),
        changed(9),
        changed(20),
        format!("/messages?sessionId={id}A"),
        "/messages?sessionId=x".to_owned(),
        format!("/messages?sessionId={}", "A".repeat(30)),
        format!("/messages?sessionId={}", "_".repeat(4000)),
    ] {
        assert_eq!(told(TOKEN, &path), foreign, "{path}");
    }
    for path in [
        "/messages",
        "/messages?",
        "/messages?sessionId=",
        "/messages?SessionId=a",
        "/messages?sessionId=a&sessionId=a",
    ] {
        assert_eq!(told(TOKEN, path).0, 400, "{path}");
    }
    assert!(upstream.requests().is_empty(), "nothing of it went on");
    assert_eq!(gateway.client().ask(&post_as(BOT, &bot.path, &call(3))).status, 202);
    assert_eq!(bot.message()["id"], 3);
    stream.accepted(&gateway, &call(2));
    assert_eq!(stream.message()["id"], 2, "its own principal's messages still arrive");
}

#[test]
fn a_token_in_the_query_counts_where_it_is_allowed_and_is_told_nobody() {
    let upstream = session_upstream();
    let settings = [("SSE_QUERY_TOKEN", "true"), ("MCP_LOG_LEVEL", "trace")];
    let gateway = Gateway::start(&settings, upstream.address);
    let escaped = TOKEN.replacen('-', "%2D", 1);
    for query in [format!("token={TOKEN}"), format!("a=b&token={escaped}&c")] {
        let mut stream = Stream::over(gateway.client(), &get(&format!("/sse?{query}"), "")).initialized(&gateway);
        assert!(!stream.path.contains("token"));
        stream.accepted(&gateway, &echo(1, "x"));
        assert_eq!(stream.message()["id"], 1);
    }
    for (query, fields, status) in [
        (String::new(), String::new(), 401),
        ("?token=".to_owned(), String::new(), 401),
        (format!("?token={TOKEN}x"), String::new(), 401),
        (format!("?token={TOKEN}&token={TOKEN}"), String::new(), 401),
        (format!("?token={TOKEN}%"), String::new(), 401),
        // A header goes first, right or wrong.
        (format!("?token={TOKEN}"), bearer("wrong"), 401),
        ("?token=wrong".to_owned(), bearer(TOKEN), 200),
    ] {
        let mut client = gateway.client();
        client.send(&get(&format!("/sse{query}"), &fields));
        assert_eq!(client.head().status, status, "{query} {fields}");
    }
    // Of this one request alone.
    let body = initialize();
    let elsewhere = format!(
        "Content-Type: application/json\r\nAccept: */*, application/json, text/event-stream\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (method, path) in [("POST", "/mcp"), ("POST", "/messages"), ("GET", "/mcp")] {
        let bytes = format!("{method} {path}?token={TOKEN} HTTP/1.1\r\nHost: localhost\r\n{elsewhere}\r\n{body}");
        assert_eq!(gateway.client().ask(bytes.as_bytes()).status, 401, "{path}");
    }
    until("records", || audit(&gateway).contains("\"tool\":\"echo\""));
    for needle in [TOKEN, &escaped, "token="] {
        assert!(!gateway.log().contains(needle), "{needle} is in the log");
        assert!(!audit(&gateway).contains(needle), "{needle} is in the audit log");
        assert!(
            upstream
                .requests()
                .iter()
                .all(|request| !request.head.contains(needle) && !request.text().contains(needle))
        );
    }
}

#[test]
fn a_token_in_the_query_is_ignored_unless_it_is_allowed() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("MCP_LOG_LEVEL", "trace")], upstream.address);
    let response = gateway.client().ask(&get(&format!("/sse?token={TOKEN}"), ""));
    assert_eq!(response.status, 401);
    assert!(response.text().contains("Use: Bearer <token>"), "{}", response.text());
    assert!(response.field("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
    Stream::over(gateway.client(), &get("/sse?token=wrong", &bearer(TOKEN)));
    assert!(!gateway.log().contains(TOKEN) && !audit(&gateway).contains(TOKEN));
}

#[test]
fn a_servers_request_reaches_the_client_and_its_answer_the_server() {
    let upstream = Upstream::start(|request, conversation| match request.rpc_method().as_str() {
        "tools/call" => {
            conversation.begin_events();
            let asked = "{\"jsonrpc\":\"2.0\",\"id\":\"s1\",\"method\":\"roots/list\"}";
            conversation.chunk(format!("data: {asked}\n\n").as_bytes());
            conversation.wait_for("answered");
            conversation.chunk(format!("data: {}\n\n", result(&request.id(), "{\"content\":[]}")).as_bytes());
            conversation.end_chunks()
        }
        "initialize" => conversation
            .json(&result("0", "{\"protocolVersion\":\"2024-11-05\",\"capabilities\":{},\"serverInfo\":{}}")),
        _ => {
            conversation.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
            Next::Keep
        }
    });
    let gateway = Gateway::start(&[], upstream.address);
    let mut stream = Stream::open(&gateway).initialized(&gateway);
    stream.accepted(&gateway, &call(1));
    let asked = stream.message();
    assert_eq!((&asked["method"], &asked["id"]), (&json!("roots/list"), &json!("s1")));
    let answer = "{\"jsonrpc\":\"2.0\",\"id\":\"s1\",\"result\":{\"roots\":[]}}";
    stream.accepted(&gateway, answer);
    upstream.wait("the client's answer", |log| log.requests.iter().any(|request| request.text() == answer));
    upstream.say("answered");
    assert_eq!(stream.message()["id"], 1);
}

#[test]
fn a_silent_stream_gets_a_comment_every_15_seconds_and_ends_in_good_order_when_it_is_idle() {
    let upstream = Upstream::start(|request, conversation| {
        conversation.wait_for("go");
        conversation.echo(request)
    });
    let gateway = Gateway::start(&[("WS_CONNECTION_TIMEOUT", "2000"), ("WRITE_TIMEOUT", "2000")], upstream.address);
    let mut idle = Stream::open(&gateway);
    let mut waiting = None;
    until("a call before the stream is idle for too long", || {
        let stream = Stream::open(&gateway);
        let is_taken = stream.post(&gateway, &call(1)).status == 202;
        waiting = Some(stream);
        is_taken
    });
    let mut waiting = waiting.unwrap();
    assert_eq!(idle.client.chunk(), Some(None), "nothing was posted, nothing is in flight, and no comment was due yet");
    assert!(idle.client.is_closed());
    assert_eq!(idle.post(&gateway, &call(1)).status, 404);
    // A call in flight keeps its stream, whatever the idle timeout says.
    assert_eq!(waiting.client.event(), ": keep-alive\n\n");
    upstream.say("go");
    assert_eq!(waiting.message()["id"], 1);
    assert_eq!(waiting.client.chunk(), Some(None));
    until("the record of it", || audit(&gateway).contains("connection_timeout"));
    gateway.unharmed();
}

#[test]
fn posts_keep_a_stream_that_would_be_idle() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("WS_CONNECTION_TIMEOUT", "3000")], upstream.address);
    // Only a stream that had a post within its time, every time, must be kept; a machine that is too busy for that tries again.
    let idle = Duration::from_millis(3000);
    until("posts in time for long enough", || {
        let mut before = Instant::now();
        let mut stream = Stream::open(&gateway);
        let start = Instant::now();
        for id in 0.. {
            let posting = Instant::now();
            let response = stream.post(&gateway, &call(id));
            if before.elapsed() >= idle {
                return false;
            }
            assert_eq!(response.status, 202);
            assert_eq!(stream.message()["id"], id);
            before = posting;
            if start.elapsed() > Duration::from_secs(7) {
                break;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        assert_eq!(stream.client.chunk(), Some(None));
        true
    });
}

#[test]
fn draining_answers_what_was_accepted_and_ends_the_streams_in_good_order() {
    let upstream = Upstream::start(|request, conversation| {
        conversation.wait_for("go");
        conversation.echo(request)
    });
    let mut gateway = Gateway::start(&[], upstream.address).ready();
    let (mut idle, mut busy) = (Stream::open(&gateway), Stream::open(&gateway));
    busy.accepted(&gateway, &initialize());
    busy.accepted(&gateway, &call(7));
    upstream.wait("the first call", |log| log.requests.len() == 1);
    gateway.signal(Signal::TERM);
    assert_eq!(idle.client.chunk(), Some(None));
    assert!(idle.client.is_closed());
    draining(&gateway);
    assert!(gateway.is_running());
    upstream.say("go");
    assert_eq!(busy.message()["id"], 0);
    assert_eq!(busy.message()["id"], 7, "it was accepted before, and waited behind the initialize");
    assert_eq!(busy.client.chunk(), Some(None));
    assert!(busy.client.is_closed());
    assert!(gateway.exit().success(), "{}", gateway.log());
}

#[test]
fn what_waits_behind_an_unread_answer_is_still_taken_up_when_the_process_drains() {
    const SIZE: usize = 14 << 20;
    let upstream = Upstream::start(|request, conversation| {
        let text = if request.id() == "1" { "x".repeat(SIZE) } else { String::new() };
        conversation
            .json(&result(&request.id(), &format!("{{\"content\":[],\"structuredContent\":{{\"x\":\"{text}\"}}}}")))
    });
    let mut gateway = Gateway::start(&[("WORKERS", "1")], upstream.address).ready();
    let (mut stream, mut idle) = (Stream::deaf(&gateway), Stream::open(&gateway));
    stream.accepted(&gateway, &call(1));
    // More than the kernel takes: the rest stands in the way of every further call of this client.
    until("the first call's end", || gateway.metric("ringwall_calls_total") >= 1.0);
    stream.accepted(&gateway, &call(2));
    gateway.signal(Signal::TERM);
    // The worker has told its streams, in the order in which they came.
    assert_eq!(idle.client.chunk(), Some(None));
    assert_eq!(upstream.requests().len(), 1, "who does not read is not served further");
    let answer = stream.message();
    assert_eq!(answer["result"]["structuredContent"]["x"].as_str().unwrap().len(), SIZE);
    assert_eq!(stream.message()["id"], 2);
    assert_eq!(stream.client.chunk(), Some(None));
    assert!(gateway.exit().success(), "{}", gateway.log());
}

#[test]
fn a_stream_that_is_not_read_is_cut_and_the_reading_of_its_upstream_stops_before() {
    const SIZE: usize = 256 << 20;
    let upstream = Upstream::start(|request, conversation| {
        if request.id() == "2" {
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
        conversation.note(&format!("sent {}", sent >> 20));
        Next::Close
    });
    let gateway = Gateway::start(&[("WRITE_TIMEOUT", "1500"), ("WORKERS", "1")], upstream.address);
    let before = gateway.resident_bytes();
    let (deaf, mut other) = (Stream::deaf(&gateway), Stream::open(&gateway));
    deaf.accepted(&gateway, &call(1));
    upstream.wait("the flood", |log| !log.requests.is_empty());
    other.accepted(&gateway, &call(2));
    assert_eq!(other.message()["id"], 2, "the others are served meanwhile");
    upstream.wait("the upstream to be let go", |log| !log.notes.is_empty());
    let sent: usize = upstream.log(|log| log.notes[0].strip_prefix("sent ").unwrap().parse().unwrap());
    assert!(sent < 64, "{sent} MiB were read for a client that reads nothing");
    assert!(gateway.resident_bytes() < before + (64 << 20), "and were held");
    until("the session's end", || deaf.post(&gateway, &call(3)).status == 404);
    drop((deaf, other));
    gateway.unharmed();
}

#[test]
fn so_many_messages_wait_for_a_session_and_the_next_is_told_to_come_again() {
    let upstream = Upstream::start(|request, conversation| {
        conversation.wait_for("go");
        conversation.echo(request)
    });
    let gateway = Gateway::start(&[], upstream.address);
    let mut stream = Stream::open(&gateway);
    let mut poster = gateway.client();
    assert_eq!(poster.ask(&post_as(TOKEN, &stream.path, &initialize())).status, 202);
    upstream.wait("the initialize", |log| log.requests.len() == 1);
    for id in 1..=64 {
        assert_eq!(poster.ask(&post_as(TOKEN, &stream.path, &call(id))).status, 202, "{id}");
    }
    let response = poster.ask(&post_as(TOKEN, &stream.path, &call(65)));
    assert_eq!((response.status, response.field("retry-after").as_deref()), (503, Some("1")));
    upstream.say("go");
    let ids: BTreeSet<u64> = (0..=64).map(|_| stream.message()["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (0..=64).collect(), "what was accepted is answered, once");
    assert_eq!(poster.ask(&post_as(TOKEN, &stream.path, &call(66))).status, 202, "and the connection goes on");
}

#[test]
fn what_is_not_one_json_rpc_message_is_told_by_the_post() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[("MAX_REQUEST_SIZE", "20000")], upstream.address);
    let mut stream = Stream::open(&gateway);
    let mut poster = gateway.client();
    for (body, code) in [
        ("", -32700),
        ("{", -32700),
        ("\u{feff}{}", -32700),
        ("{} {}", -32700),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"ping\"}", -32600),
        ("{\"id\":1,\"method\":\"ping\"}", -32600),
        ("7", -32600),
        ("[]", -32600),
        ("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]", -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":7}}", -32602),
    ] {
        let response = poster.ask(&post_as(TOKEN, &stream.path, body));
        assert_eq!((response.status, &response.json()["error"]["code"]), (400, &json!(code)), "{body}");
        // Whether there is such a session makes no difference.
        let nowhere = format!("/messages?sessionId={}", "A".repeat(30));
        assert_eq!(poster.ask(&post_as(TOKEN, &nowhere, body)).text(), response.text(), "{body}");
    }
    let own = String::from_utf8(post_as(TOKEN, &stream.path, &call(1))).unwrap();
    for (from, to, status) in [
        ("application/json", "text/plain", 415),
        ("application/json", "application/json; charset=utf-16", 415),
        ("Content-Type: application/json\r\n", "", 415),
        ("Content-Length", "Content-Encoding: gzip\r\nContent-Length", 415),
        ("Host: localhost", "Host: rebound.example", 403),
        ("Host: localhost", "Host: localhost\r\nOrigin: https://elsewhere.example", 403),
        ("Authorization", "X-Authorization", 401),
        (TOKEN, "wrong", 401),
        ("POST ", "PUT ", 405),
    ] {
        let response = gateway.client().ask(own.replacen(from, to, 1).as_bytes());
        assert_eq!(response.status, status, "{from} -> {to}");
    }
    assert_eq!(gateway.client().ask(&post_as(TOKEN, &stream.path, &echo(1, &"x".repeat(20_000)))).status, 413);
    assert!(upstream.requests().is_empty(), "none of it went on");
    // Nothing of it stands on the stream either.
    stream.accepted(&gateway, &call("\"whole\""));
    assert_eq!(stream.message()["id"], "whole");
}

#[test]
fn the_gate_of_a_stream_is_that_of_every_request() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address);
    let own = String::from_utf8(get("/sse", &bearer(TOKEN))).unwrap();
    for (from, to, status, allow) in [
        ("Accept: text/event-stream\r\n", "", 406, None),
        ("text/event-stream", "application/json", 406, None),
        ("Host: localhost", "Host: rebound.example", 403, None),
        ("Host: localhost", "Host: localhost\r\nOrigin: https://elsewhere.example", 403, None),
        ("Authorization", "X-Authorization", 401, None),
        (TOKEN, "wrong", 401, None),
        ("GET /sse", "DELETE /sse", 405, Some("GET")),
        ("GET /sse", "GET /messages", 405, Some("POST")),
        ("GET /sse", "GET /sse/", 404, None),
    ] {
        let response = gateway.client().ask(own.replacen(from, to, 1).as_bytes());
        assert_eq!((response.status, response.field("allow").as_deref()), (status, allow), "{from} -> {to}");
    }
    // After another request on its connection, and with bytes behind it that nobody waits for.
    let mut client = gateway.client();
    assert_eq!(client.ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
    let mut stream =
        Stream::over(client, &[own.as_bytes(), b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat());
    stream.accepted(&gateway, &call(1));
    assert_eq!(stream.message()["id"], 1);
    stream.client.try_send(&vec![b'x'; 256 * 1024]);
    assert_eq!(stream.client.chunk(), Some(None), "who keeps sending is sent away");
    gateway.unharmed();
}

#[test]
fn a_client_of_http_1_0_gets_a_stream_that_ends_with_the_connection() {
    let upstream = Upstream::echo();
    let mut gateway = Gateway::start(&[], upstream.address).ready();
    let mut client = gateway.client();
    client.send(
        &String::from_utf8(get("/sse", &bearer(TOKEN))).unwrap().replacen("HTTP/1.1", "HTTP/1.0", 1).into_bytes(),
    );
    let head = client.head();
    assert_eq!((head.status, head.field("transfer-encoding")), (200, None));
    assert_eq!(head.field("connection").as_deref(), Some("close"));
    let mut bytes = Vec::new();
    let path = loop {
        bytes.push(client.byte());
        if let Some(event) = bytes.strip_suffix(b"\n\n") {
            break String::from_utf8(event.strip_prefix(b"event: endpoint\ndata: ").unwrap().to_vec()).unwrap();
        }
    };
    assert_eq!(gateway.client().ask(&post_as(TOKEN, &path, &call(1))).status, 202);
    let expected =
        format!("event: message\ndata: {}\n\n", result("1", "{\"content\":[{\"type\":\"text\",\"text\":\"done\"}]}"));
    let answer: Vec<u8> = (0..expected.len()).map(|_| client.byte()).collect();
    assert_eq!(String::from_utf8_lossy(&answer), expected);
    gateway.signal(Signal::TERM);
    assert_eq!(client.rest(), b"", "no chunk ends what has none");
    assert!(gateway.exit().success(), "{}", gateway.log());
}

#[test]
fn a_client_that_claims_to_be_somebody_else_is_sent_away() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&[], upstream.address);
    let mut stream = Stream::open(&gateway);
    let authenticate = |token: &str| {
        format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"authenticate\",\"params\":{{\"token\":\"{token}\"}}}}")
    };
    stream.accepted(&gateway, &authenticate(TOKEN));
    assert_eq!(stream.message()["result"]["authenticated"], true);
    stream.accepted(&gateway, &authenticate("another"));
    assert_eq!(stream.message()["error"]["message"], "Authentication failed");
    assert_eq!(stream.client.chunk(), Some(None));
    until("the session's end", || stream.post(&gateway, &call(2)).status == 404);
    gateway.unharmed();
}
