//! Promise: in a session with several servers, one that forgets it or was down when it began is initialized in the client's stead, and the client
//! is told to initialize again only where that is impossible.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use blackbox::{
    Conversation, Gateway, Next, Nobody, Peer, Received, Upstream, answer_json, initialize, post, result, until,
};
use serde_json::Value;

/// What becomes of `initialize` at a server.
const OPENS: usize = 0;
const IS_DOWN: usize = 1;
const REFUSES: usize = 2;

/// A server with one tool, of its own name, that knows the last session that it has opened and no other.
struct Forgetful {
    upstream: Upstream,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    opens: AtomicUsize,
    session: AtomicUsize,
    /// How many more sessions it forgets as soon as they are confirmed.
    fickle: AtomicUsize,
    /// How often all streams were ended.
    ended: AtomicUsize,
}

impl Forgetful {
    fn start(name: &'static str) -> Self {
        let state = Arc::<State>::default();
        let served = Arc::clone(&state);
        let upstream = Upstream::start(move |request, conversation| serve(name, &served, request, conversation));
        Self { upstream, state }
    }

    /// From now on it knows no session.
    fn forget(&self) {
        self.state.session.fetch_add(1, SeqCst);
    }

    /// Likewise, and its streams end, as those of a server do that is started again.
    fn restart(&self) {
        self.forget();
        self.state.ended.fetch_add(1, SeqCst);
    }

    fn on_initialize(&self, what: usize) {
        self.state.opens.store(what, SeqCst);
    }

    /// How often this was asked for.
    fn count(&self, method: &str) -> usize {
        self.upstream.requests().iter().filter(|request| request.rpc_method() == method).count()
    }
}

fn serve(name: &str, state: &State, request: &Received, conversation: &mut Conversation) -> Next {
    let id = request.id();
    let own = |session: usize| format!("session-{session}-of-{name}");
    if request.rpc_method() == "initialize" {
        match state.opens.load(SeqCst) {
            IS_DOWN => {
                conversation.send(b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n");
                return Next::Keep;
            }
            REFUSES => {
                let body =
                    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":-32000,\"message\":\"no\"}}}}");
                return conversation.json(&body);
            }
            _ => {}
        }
        let body = result(
            &id,
            "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"s\",\"version\":\"1\"}}",
        );
        let session = state.session.fetch_add(1, SeqCst) + 1;
        let field = format!("Mcp-Session-Id: {}\r\n\r\n", own(session));
        conversation.send(answer_json(&body).replacen("\r\n\r\n", &format!("\r\n{field}"), 1).as_bytes());
        return Next::Keep;
    }
    // Before the session is looked up: a restart that comes between the two ends this stream as well.
    let ended = state.ended.load(SeqCst);
    if request.field("mcp-session-id") != Some(own(state.session.load(SeqCst))) {
        conversation.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        return Next::Keep;
    }
    match request.method() {
        "GET" => {
            conversation.begin_events();
            conversation.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            while state.ended.load(SeqCst) == ended {
                match conversation.stream.read(&mut [0]) {
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    _ => break,
                }
            }
            return Next::Close;
        }
        "DELETE" => {
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            return Next::Keep;
        }
        _ => {}
    }
    match request.rpc_method().as_str() {
        "tools/list" => {
            let tools = format!("{{\"tools\":[{{\"name\":\"{name}\",\"inputSchema\":{{\"type\":\"object\"}}}}]}}");
            conversation.json(&result(&id, &tools))
        }
        "notifications/initialized" => {
            let forgets = state.fickle.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
            state.session.fetch_add(usize::from(forgets), SeqCst);
            conversation.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
            Next::Keep
        }
        _ if id == "null" => {
            conversation.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
            Next::Keep
        }
        _ => conversation.json(&result(&id, &format!("{{\"from\":\"{name}\"}}"))),
    }
}

fn before(a: &Forgetful, b: &Forgetful) -> Gateway {
    let section = |name: &str, one: &Forgetful| {
        format!("[upstream.{name}]\nurl = \"http://{}/mcp\"\ncall_timeout_ms = 20000\n", one.upstream.address)
    };
    Gateway::with_policy(&[], &(section("alpha", a) + &section("beta", b)))
}

fn call(id: usize, tool: &str) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"{tool}__{tool}\",\"arguments\":{{}}}}}}"
    )
}

const LIST: &str = "{\"jsonrpc\":\"2.0\",\"id\":\"list\",\"method\":\"tools/list\"}";

fn tools(answer: &Value) -> Vec<&str> {
    let tools = answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("{answer}"));
    tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

/// Opens a session as clients do.
fn open(peer: &mut Peer, opening: &str) {
    let opened = peer.ask(opening);
    assert_eq!(opened["result"]["protocolVersion"], "2025-11-25", "{opened}");
    peer.say("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
}

const DOORS: [fn(&Gateway) -> Peer; 2] = [Peer::tcp, Peer::websocket];

#[test]
fn a_server_that_forgets_its_part_is_initialized_in_the_clients_stead_and_asked_again() {
    for door in DOORS {
        let (a, b) = (Forgetful::start("alpha"), Forgetful::start("beta"));
        let gateway = before(&a, &b);
        let mut peer = door(&gateway);
        open(&mut peer, &initialize());
        assert_eq!(peer.ask(&call(1, "beta"))["result"]["from"], "beta");
        let streams =
            |one: &Forgetful| one.upstream.requests().iter().filter(|request| request.method() == "GET").count();
        until("both streams", || streams(&a) == 1 && streams(&b) == 1);
        b.forget();
        b.upstream.take_requests();
        // A call: told once that the session is not known, then made.
        assert_eq!(peer.ask(&call(2, "beta"))["result"]["from"], "beta");
        let seen = b.upstream.requests();
        let posts: Vec<_> = seen.iter().filter(|request| request.method() == "POST").collect();
        let methods: Vec<_> = posts.iter().map(|request| request.rpc_method()).collect();
        assert_eq!(methods, ["tools/call", "initialize", "notifications/initialized", "tools/call"]);
        assert_eq!(posts[1].text(), initialize(), "what the client has said");
        assert_eq!(posts[1].field("mcp-session-id"), None);
        assert_eq!(posts[2].field("mcp-protocol-version").as_deref(), Some("2025-11-25"));
        assert_eq!(posts[2].field("mcp-session-id"), posts[3].field("mcp-session-id"));
        assert_ne!(posts[0].field("mcp-session-id"), posts[3].field("mcp-session-id"));
        assert_eq!(posts[0].body, posts[3].body);
        // A list: nothing is missing from it.
        b.forget();
        assert_eq!(tools(&peer.ask(LIST)), ["alpha", "beta"]);
        // Calls that are on their way together: one handshake for all.
        b.forget();
        let before = b.count("initialize");
        for id in 10..20 {
            peer.say(&call(id, "beta"));
        }
        for _ in 10..20 {
            let answer = peer.hear();
            assert_eq!(answer["result"]["from"], "beta", "{answer}");
        }
        assert_eq!(b.count("initialize"), before + 1);
        // The other server has noticed nothing of it.
        assert_eq!((a.count("initialize"), a.count("notifications/initialized")), (1, 1));
        assert_eq!(peer.ask(&call(3, "alpha"))["result"]["from"], "alpha");
        // What the client leaves is ended where it is now.
        drop(peer);
        let now = format!("session-{}-of-beta", b.state.session.load(SeqCst));
        b.upstream.wait("the end of the session", |log| {
            log.requests.iter().any(|request| {
                request.method() == "DELETE" && request.field("mcp-session-id").as_deref() == Some(now.as_str())
            })
        });
        gateway.unharmed();
    }
}

#[test]
fn a_stream_that_ends_with_its_servers_memory_is_opened_again_in_a_new_session() {
    let (a, b) = (Forgetful::start("alpha"), Forgetful::start("beta"));
    let gateway = before(&a, &b);
    let mut peer = Peer::websocket(&gateway);
    open(&mut peer, &initialize());
    b.upstream.wait("the stream", |log| log.requests.iter().any(|request| request.method() == "GET"));
    b.upstream.take_requests();
    b.restart();
    // Without a word of the client: the old session is not known, a new one is opened, and its stream.
    b.upstream.wait("the new session's stream", |log| {
        let streams = log.requests.iter().filter(|request| request.method() == "GET");
        streams.filter_map(|request| request.field("mcp-session-id")).any(|session| session == "session-3-of-beta")
    });
    assert_eq!((b.count("initialize"), a.count("initialize")), (1, 1));
    assert_eq!(peer.ask(&call(1, "beta"))["result"]["from"], "beta");
    drop(peer);
    gateway.unharmed();
}

#[test]
fn a_server_that_was_down_joins_the_session_once_it_is_back() {
    for door in DOORS {
        let (a, b) = (Forgetful::start("alpha"), Forgetful::start("beta"));
        let gateway = before(&a, &b);
        b.on_initialize(IS_DOWN);
        let mut peer = door(&gateway);
        open(&mut peer, &initialize());
        let down = peer.ask(&call(1, "beta"));
        assert_eq!(
            down["error"]["message"],
            "Upstream error: the upstream has no session for the client; the call was not made"
        );
        assert_eq!(tools(&peer.ask(LIST)), ["alpha"]);
        assert_eq!(peer.ask(&call(2, "alpha"))["result"]["from"], "alpha");
        assert_eq!(b.count("tools/call"), 0);
        b.on_initialize(OPENS);
        assert_eq!(tools(&peer.ask(LIST)), ["alpha", "beta"]);
        assert_eq!(peer.ask(&call(3, "beta"))["result"]["from"], "beta");
        assert_eq!(b.count("notifications/initialized"), 1);
        // It is listened to like the other.
        b.upstream.wait("its stream", |log| log.requests.iter().any(|request| request.method() == "GET"));
        assert_eq!(a.count("initialize"), 1);
    }
}

#[test]
fn a_server_that_does_not_open_a_session_again_takes_nothing_of_the_others() {
    let (a, b) = (Forgetful::start("alpha"), Forgetful::start("beta"));
    let gateway = before(&a, &b);
    let mut peer = Peer::tcp(&gateway);
    open(&mut peer, &initialize());
    b.forget();
    b.on_initialize(REFUSES);
    let refused = peer.ask(&call(1, "beta"));
    assert_eq!(refused["error"]["code"], -32001);
    assert_eq!(
        refused["error"]["message"],
        "Upstream error: the upstream has no session for the client; the call was not made"
    );
    assert_eq!(tools(&peer.ask(LIST)), ["alpha"]);
    assert_eq!(peer.ask(&call(2, "alpha"))["result"]["from"], "alpha");
    b.on_initialize(OPENS);
    assert_eq!(peer.ask(&call(3, "beta"))["result"]["from"], "beta");
}

#[test]
fn a_server_that_forgets_again_at_once_is_asked_again_and_not_for_ever() {
    let (a, b) = (Forgetful::start("alpha"), Forgetful::start("beta"));
    let gateway = before(&a, &b);
    let mut peer = Peer::tcp(&gateway);
    open(&mut peer, &initialize());
    assert_eq!(peer.ask(&call(1, "beta"))["result"]["from"], "beta");
    for (fickle, is_answered) in [(1, true), (2, true), (3, false)] {
        b.forget();
        b.state.fickle.store(fickle, SeqCst);
        let (before, answer) = (b.count("initialize"), peer.ask(&call(2, "beta")));
        assert_eq!(answer["result"]["from"] == "beta", is_answered, "{answer}");
        assert_eq!(b.count("initialize") - before, 3.min(fickle + 1));
        if !is_answered {
            let text = "Upstream error: the upstream has no session for the client; the call was not made";
            assert_eq!(answer["error"]["message"], text);
        }
    }
    // It is steady again, and nothing of its inconstancy is remembered.
    assert_eq!(tools(&peer.ask(LIST)), ["alpha", "beta"]);
    assert_eq!(peer.ask(&call(3, "beta"))["result"]["from"], "beta");
}

#[test]
fn a_client_whose_initialize_was_too_long_to_be_kept_is_told_to_say_it_again() {
    let (a, b) = (Forgetful::start("alpha"), Forgetful::start("beta"));
    let gateway = before(&a, &b);
    let mut peer = Peer::tcp(&gateway);
    let long = initialize().replace("\"test\"", &format!("\"{}\"", "x".repeat(20_000)));
    open(&mut peer, &long);
    b.forget();
    for id in 1..3 {
        let lost = peer.ask(&call(id, "beta"));
        assert_eq!(lost["error"]["message"], "Session not found: initialize again", "{lost}");
    }
    open(&mut peer, &initialize());
    assert_eq!(peer.ask(&call(3, "beta"))["result"]["from"], "beta");
}

#[test]
fn an_http_client_is_told_to_initialize_again_since_its_id_says_which_sessions_it_has() {
    let (a, b) = (Forgetful::start("alpha"), Forgetful::start("beta"));
    let gateway = before(&a, &b);
    let ask = |field: &str, body: &str| {
        let bytes =
            String::from_utf8(post(body)).unwrap().replacen("\r\n", &format!("\r\nMcp-Session-Id: {field}\r\n"), 1);
        gateway.client().ask(bytes.as_bytes())
    };
    let session = || gateway.post(&initialize()).field("mcp-session-id").unwrap();
    let first = session();
    assert_eq!(ask(&first, &call(1, "beta")).json()["result"]["from"], "beta");
    // One server has forgotten it.
    b.forget();
    assert_eq!(ask(&first, &call(2, "beta")).status, 404);
    assert_eq!(ask(&first, LIST).status, 404);
    // One was down: the call is not made, and a new session has it.
    b.on_initialize(IS_DOWN);
    let without = session();
    let calls = b.count("tools/call");
    let missing = ask(&without, &call(3, "beta"));
    assert_eq!((missing.status, &missing.json()["error"]["code"]), (404, &(-32001).into()), "{}", missing.text());
    assert_eq!(ask(&without, &call(4, "alpha")).json()["result"]["from"], "alpha");
    assert_eq!(b.count("tools/call"), calls);
    b.on_initialize(OPENS);
    assert_eq!(ask(&session(), &call(5, "beta")).json()["result"]["from"], "beta");
    // One is down still: to initialize again would not help.
    let nobody = Nobody::new();
    let policy = format!(
        "[upstream.alpha]\nurl = \"http://{}/mcp\"\n[upstream.beta]\nurl = \"http://{}/mcp\"\n",
        a.upstream.address, nobody.address
    );
    let gateway = Gateway::with_policy(&[], &policy).ready();
    let id = gateway.post(&initialize()).field("mcp-session-id").unwrap();
    let bytes = String::from_utf8(post(&call(6, "beta"))).unwrap();
    let bytes = bytes.replacen("\r\n", &format!("\r\nMcp-Session-Id: {id}\r\n"), 1);
    let down = gateway.client().ask(bytes.as_bytes());
    assert_eq!(down.status, 502, "{}", down.text());
    assert!(down.text().contains("the call was not made"));
}
