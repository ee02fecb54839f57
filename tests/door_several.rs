//! Promise: several upstreams are one server to a client; each call finds its own, and one that is dead takes nothing of the others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use std::net::SocketAddr;

use blackbox::{
    Client, Conversation, Gateway, Next, Nobody, Received, Response, TOKEN, Upstream, initialize, modern, post, result,
};
use serde_json::{Value, json};

/// A server with these tools, a prompt, a resource and sessions of its own.
fn server(name: &'static str, tools: &'static [&'static str]) -> Upstream {
    Upstream::start(move |request, conversation| serve(name, tools, request, conversation))
}

fn serve(name: &str, tools: &[&str], request: &Received, conversation: &mut Conversation) -> Next {
    let id = request.id();
    let named = |names: &[&str]| {
        names
            .iter()
            .map(|tool| format!("{{ \"name\":\"{tool}\",\"inputSchema\":{{\"type\":\"object\"}}, \"x\":1.0}}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let answer = match request.rpc_method().as_str() {
        _ if request.method() == "GET" => {
            conversation.begin_events();
            let resumed = request.field("last-event-id").unwrap_or_default();
            let ask = format!("id: {name}-{resumed}\ndata: {{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\"}}\n\n");
            conversation.chunk(ask.as_bytes());
            conversation.wait_for_close();
            return Next::Close;
        }
        _ if request.method() == "DELETE" => {
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            return Next::Keep;
        }
        "initialize" => {
            let body = result(
                &id,
                &format!(
                    "{{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{{\"tools\":{{}},\"{name}\":{{}}}},\"serverInfo\":{{\"name\":\"{name}\",\"version\":\"1\"}},\"instructions\":\"Use {name}.\"}}"
                ),
            );
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: session-of-{name}\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            conversation.send(format!("{head}{body}").as_bytes());
            return Next::Keep;
        }
        "server/discover" => format!(
            "{{\"supportedVersions\":[\"2026-07-28\"],\"capabilities\":{{\"{name}\":{{}}}},\"instructions\":\"Use {name}.\",\"resultType\":\"complete\"}}"
        ),
        "tools/list" if tools.len() > 2 && !request.text().contains("cursor") => {
            format!("{{\"tools\":[{}],\"nextCursor\":\"page 2\"}}", named(&tools[..1]))
        }
        "tools/list" if tools.len() > 2 => format!("{{\"tools\":[{}]}}", named(&tools[1..])),
        "tools/list" => format!("{{\"tools\":[{}]}}", named(tools)),
        "prompts/list" => format!("{{\"prompts\":[{{\"name\":\"greet\"}},{{\"name\":\"only-{name}\"}}]}}"),
        "resources/list" => format!(
            "{{\"resources\":[{{\"uri\":\"file:///{name}\",\"name\":\"r\"}},{{\"uri\":\"file:///both\",\"name\":\"r\"}}]}}"
        ),
        "resources/templates/list" => {
            format!("{{\"resourceTemplates\":[{{\"uriTemplate\":\"{name}://{{x}}\",\"name\":\"t\"}}]}}")
        }
        "resources/read" if !request.text().contains(name) && !request.text().contains("both") => {
            return conversation.json(&format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":-32002,\"message\":\"not here\"}}}}"
            ));
        }
        _ => format!("{{\"from\":\"{name}\"}}"),
    };
    if id == "null" || request.rpc_method().is_empty() {
        conversation.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
        return Next::Keep;
    }
    conversation.json(&result(&id, &answer))
}

fn gateway(upstreams: &[(&str, SocketAddr)]) -> Gateway {
    let section = |(name, address): &(&str, SocketAddr)| {
        // The one that never answers is not waited for; the others have the time that they need.
        let patience = if *name == "dead" { "call_timeout_ms = 2000\n" } else { "" };
        format!("[upstream.{name}]\nurl = \"http://{address}/mcp\"\n{patience}")
    };
    let policy: String = upstreams.iter().map(section).collect();
    Gateway::with_policy(&[("WORKERS", "1")], &policy)
}

fn request(id: u32, method: &str, params: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{params}}}")
}

fn names(response: &Response, list: &str, key: &str) -> Vec<String> {
    let answer = response.json();
    let items = answer["result"][list].as_array().unwrap_or_else(|| panic!("{answer}"));
    items.iter().map(|item| item[key].as_str().unwrap().to_owned()).collect()
}

/// A client in a session with all.
struct InSession {
    client: Client,
    fields: String,
    opened: Value,
}

impl InSession {
    fn open(gateway: &Gateway) -> Self {
        let mut client = gateway.client();
        let response = client.ask(&post(&initialize()));
        let id = response.field("mcp-session-id").expect("a session");
        assert!(!id.contains("session-of"));
        Self { client, fields: format!("\r\nMcp-Session-Id: {id}\r\n"), opened: response.json() }
    }

    fn ask(&mut self, body: &str) -> Response {
        let bytes = String::from_utf8(post(body)).unwrap().replacen("\r\n", &self.fields, 1);
        self.client.ask(bytes.as_bytes())
    }
}

#[test]
fn lists_are_merged_and_what_collides_is_prefixed() {
    let (a, b) = (server("alpha", &["send", "one", "two"]), server("beta", &["send", "three"]));
    let gateway = gateway(&[("alpha", a.address), ("beta", b.address)]);
    let mut session = InSession::open(&gateway);
    let tools = session.ask(&request(1, "tools/list", "{}"));
    assert_eq!(names(&tools, "tools", "name"), ["alpha__send", "one", "two", "beta__send", "three"]);
    // Members are the servers' own bytes.
    assert!(
        tools.text().contains("{ \"name\":\"one\",\"inputSchema\":{\"type\":\"object\"}, \"x\":1.0}"),
        "{}",
        tools.text()
    );
    let prompts = session.ask(&request(1, "prompts/list", "{}"));
    assert_eq!(names(&prompts, "prompts", "name"), ["alpha__greet", "only-alpha", "beta__greet", "only-beta"]);
    let resources = session.ask(&request(1, "resources/list", "{}"));
    assert_eq!(names(&resources, "resources", "uri"), ["file:///alpha", "file:///both", "file:///beta"]);
    let templates = session.ask(&request(1, "resources/templates/list", "{}"));
    assert_eq!(names(&templates, "resourceTemplates", "uriTemplate"), ["alpha://{x}", "beta://{x}"]);
    for upstream in [&a, &b] {
        let own = upstream.requests()[0].clone();
        assert_eq!(own.rpc_method(), "initialize");
        assert!(upstream.requests()[1..].iter().all(|request| request.field("mcp-session-id").is_some()));
    }
}

#[test]
fn calls_find_their_upstream_under_its_own_name_for_them() {
    let (a, b) = (server("alpha", &["send", "one"]), server("beta", &["send", "three"]));
    let gateway = gateway(&[("alpha", a.address), ("beta", b.address)]);
    let mut session = InSession::open(&gateway);
    for (method, shown, from, own) in [
        // Nobody has asked for a list: the gateway does.
        ("tools/call", "three", "beta", "three"),
        ("tools/call", "alpha__send", "alpha", "send"),
        ("tools/call", "beta__send", "beta", "send"),
        ("tools/call", "beta__three", "beta", "three"),
        ("tools/call", "one", "alpha", "one"),
        ("prompts/get", "beta__greet", "beta", "greet"),
        ("prompts/get", "only-alpha", "alpha", "only-alpha"),
    ] {
        let params = |name: &str| format!("{{ \"arguments\":{{\"name\":\"{shown}\"}},\"name\": \"{name}\"}}");
        let response = session.ask(&request(5, method, &params(shown)));
        assert_eq!(
            (response.status, &response.json()["result"]["from"]),
            (200, &from.into()),
            "{shown}: {}",
            response.text()
        );
        let upstream = if from == "alpha" { &a } else { &b };
        assert_eq!(upstream.last().text(), request(5, method, &params(own)));
        assert_eq!(upstream.last().field("mcp-session-id").unwrap(), format!("session-of-{from}"));
    }
    let unknown = session.ask(&request(6, "tools/call", "{\"name\":\"nobody-has-this\"}"));
    assert_eq!((unknown.status, &unknown.json()["error"]["code"]), (200, &(-32602).into()));
    // In 2026-07-28 the mirrored header says the same as the body.
    for (shown, from, own) in [("alpha__send", "alpha", "send"), ("three", "beta", "three")] {
        let response = gateway.client().ask(&modern(
            1,
            "tools/call",
            Some(shown),
            &format!("\"name\":\"{shown}\",\"arguments\":{{}}"),
        ));
        assert_eq!(response.json()["result"]["from"], from);
        let last = if from == "alpha" { a.last() } else { b.last() };
        assert_eq!((last.field("mcp-name").as_deref(), last.field("mcp-session-id")), (Some(own), None));
        assert!(last.text().contains(&format!("\"name\":\"{own}\"")));
    }
}

#[test]
fn calls_that_come_before_any_list_all_find_their_upstream() {
    let a = server("alpha", &["one"]);
    let b = Upstream::start(|request, conversation| {
        if request.rpc_method() == "tools/list" {
            conversation.note("asked");
            conversation.wait_for("list");
        }
        serve("beta", &["two"], request, conversation)
    });
    let gateway = gateway(&[("alpha", a.address), ("beta", b.address)]);
    let mut clients: Vec<Client> = (0..4).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.send(&modern(1, "tools/call", Some("two"), "\"name\":\"two\",\"arguments\":{}"));
    }
    b.wait("all to have asked for the list", |log| log.notes.len() == 4);
    b.say("list");
    for client in &mut clients {
        assert_eq!(client.response().json()["result"]["from"], "beta");
    }
}

#[test]
fn resources_are_read_where_they_are() {
    let (a, b) = (server("alpha", &["one"]), server("beta", &["two"]));
    let gateway = gateway(&[("alpha", a.address), ("beta", b.address)]);
    let mut session = InSession::open(&gateway);
    for listed in [false, true] {
        if listed {
            session.ask(&request(1, "resources/list", "{}"));
        }
        for (uri, from) in
            [("file:///beta", "beta"), ("file:///alpha", "alpha"), ("file:///both", "alpha"), ("beta://x", "beta")]
        {
            let response = session.ask(&request(2, "resources/read", &format!("{{\"uri\":\"{uri}\"}}")));
            assert_eq!(response.json()["result"]["from"], from, "{uri}");
        }
        let response = session.ask(&request(3, "resources/read", "{\"uri\":\"file:///neither\"}"));
        assert_eq!((&response.json()["id"], &response.json()["error"]["code"]), (&3.into(), &(-32002).into()));
    }
}

#[test]
fn initialize_and_discover_speak_for_all() {
    let (a, b) = (server("alpha", &["one"]), server("beta", &["two"]));
    let gateway = gateway(&[("alpha", a.address), ("beta", b.address)]);
    let mut session = InSession::open(&gateway);
    let opened = session.opened["result"].clone();
    assert_eq!(opened["capabilities"], json!({"tools": {}, "alpha": {}, "beta": {}}));
    assert_eq!(opened["instructions"], "Use alpha.\n\nUse beta.");
    assert_eq!(session.ask("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}").status, 202);
    for (upstream, name) in [(&a, "alpha"), (&b, "beta")] {
        assert_eq!(upstream.last().rpc_method(), "notifications/initialized");
        assert_eq!(upstream.last().field("mcp-session-id").unwrap(), format!("session-of-{name}"));
    }
    assert_eq!(session.ask(&request(4, "ping", "{}")).json(), json!({"jsonrpc": "2.0", "id": 4, "result": {}}));
    let discovered = gateway.client().ask(&modern(1, "server/discover", None, "")).json();
    assert_eq!(discovered["result"]["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!(discovered["result"]["capabilities"], json!({"alpha": {}, "beta": {}}));
    // The end of the session is told to both.
    let delete =
        format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}{}\r\n", session.fields);
    assert_eq!(gateway.client().ask(delete.as_bytes()).status, 200);
    assert_eq!((a.last().method(), b.last().method()), ("DELETE", "DELETE"));
}

#[test]
fn a_dead_upstream_takes_nothing_of_the_others() {
    let live = server("alpha", &["send", "one"]);
    let hung = Upstream::start(|_, conversation| {
        conversation.wait_for_close();
        Next::Close
    });
    let broken = Upstream::start(|_, conversation| {
        conversation.send(b"HTTP/1.1 500 Oops\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\n<oops");
        Next::Keep
    });
    let (dead, gone) = (Nobody::new(), Nobody::new());
    for dead in [dead.address, hung.address, broken.address] {
        let gateway = gateway(&[("dead", dead), ("alpha", live.address)]);
        let mut session = InSession::open(&gateway);
        assert_eq!(names(&session.ask(&request(1, "tools/list", "{}")), "tools", "name"), ["send", "one"]);
        assert_eq!(session.ask(&request(2, "tools/call", "{\"name\":\"one\"}")).json()["result"]["from"], "alpha");
        assert_eq!(
            session.ask(&request(3, "resources/read", "{\"uri\":\"file:///alpha\"}")).json()["result"]["from"],
            "alpha"
        );
        let modern = gateway.client().ask(&modern(1, "tools/list", None, ""));
        assert_eq!(names(&modern, "tools", "name"), ["send", "one"]);
        drop(session);
        gateway.unharmed();
    }
    // With all of them dead it is an error, and not an empty list.
    let gateway = gateway(&[("dead", dead.address), ("gone", gone.address)]);
    let response = gateway.client().ask(&modern(1, "tools/list", None, ""));
    assert_eq!((response.status, &response.json()["error"]["code"]), (502, &(-32001).into()));
    assert_eq!(gateway.post(&initialize()).status, 502);
}

#[test]
fn a_servers_request_is_tagged_and_its_answer_goes_back_to_it() {
    let (a, b) = (server("alpha", &["one"]), server("beta", &["two"]));
    let gateway = gateway(&[("alpha", a.address), ("beta", b.address)]);
    let mut session = InSession::open(&gateway);
    let listen = |more: &str| {
        format!(
            "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nAccept: text/event-stream{}{more}\r\n",
            session.fields
        )
    };
    let mut stream = gateway.client();
    stream.send(listen("").as_bytes());
    assert_eq!(stream.head().status, 200);
    let mut events = [stream.event(), stream.event()];
    events.sort();
    for (number, name) in ["alpha", "beta"].iter().enumerate() {
        let id = format!("id: {number}/{name}-\n");
        assert_eq!(
            events[number],
            format!("{id}data: {{\"jsonrpc\":\"2.0\",\"id\":\"{number}:7\",\"method\":\"ping\"}}\n\n")
        );
    }
    // A stream is resumed at its own upstream, under the id that it gave.
    let resume = listen("Last-Event-ID: 1/beta-\r\n");
    let mut resumed = gateway.client();
    resumed.send(resume.as_bytes());
    resumed.head();
    assert!(resumed.event().starts_with("id: 1/beta-beta-\n"));
    // Closing ends all of it.
    drop((stream, resumed));
    a.wait("the stream to be closed", |log| !log.closed.is_empty());
    b.wait("the streams to be closed", |log| log.closed.len() >= 2);
    for (number, upstream) in [&a, &b].into_iter().enumerate() {
        let answer = format!("{{\"jsonrpc\":\"2.0\", \"id\":\"{number}:7\",\"result\":{{}}}}");
        assert_eq!(session.ask(&answer).status, 202);
        assert_eq!(upstream.last().text(), "{\"jsonrpc\":\"2.0\", \"id\":7,\"result\":{}}");
    }
    for forged in ["7", "\"7\"", "\"2:7\"", "\"0:7,\\\"x\\\":1\"", "\"0:{}\"", "\"x:7\""] {
        let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":{forged},\"result\":{{}}}}");
        assert_eq!(session.ask(&answer).status, 400, "{forged}");
    }
    drop(session);
    gateway.unharmed();
}

#[test]
fn batches_go_to_several_upstreams_member_by_member() {
    let (a, b) = (server("alpha", &["one"]), server("beta", &["two"]));
    let gateway = gateway(&[("alpha", a.address), ("beta", b.address)]);
    let mut session = InSession::open(&gateway);
    let batch = format!(
        "[{},{},{},{},{}]",
        request(1, "tools/call", "{\"name\":\"two\"}"),
        request(2, "tools/call", "{\"name\":\"alpha__one\"}"),
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}",
        request(3, "tools/list", "{}"),
        request(4, "ping", "{}"),
    );
    let bytes = String::from_utf8(post(&batch)).unwrap().replacen("\r\n", &session.fields, 1);
    let bytes = bytes.replace("2025-11-25", "2025-03-26");
    let response = session.client.ask(bytes.as_bytes());
    let answers = response.json();
    let ids: Vec<_> = answers.as_array().unwrap().iter().map(|answer| answer["id"].as_u64().unwrap()).collect();
    assert_eq!((response.status, ids.as_slice()), (200, [1, 2, 3, 4].as_slice()), "{answers}");
    assert_eq!(answers[0]["result"]["from"], "beta", "nobody has asked for a list before: {answers}");
    assert_eq!(answers[1]["result"]["from"], "alpha");
    assert_eq!(answers[2]["result"]["tools"].as_array().unwrap().len(), 2);
}
