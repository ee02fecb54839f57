//! Promise: whatever the door and whatever the upstream, a client meets the same server: it initializes, lists, calls, hears of its progress, is asked
//! and answers, reads errors, and gets over an upstream that dies.
//!
//! The tables below are [`DOORS`] and [`UPSTREAMS`]; each pair is gone through in every era that the door has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;
#[path = "support/socket_server.rs"]
mod socket_server;

use blackbox::{
    Client, Conversation, Gateway, Next, Peer, Received, TOKEN, Upstream, initialize, result, stateless, until,
};
use serde_json::{Value, json};
use socket_server::{Kind, SocketServer};

/// A new door joins here, and in `Agent::new`. The HTTP+SSE transport is of the session era alone.
const DOORS: [(Door, Era); 7] = [
    (Door::Http, Era::Session),
    (Door::Http, Era::Stateless),
    (Door::WebSocket, Era::Session),
    (Door::WebSocket, Era::Stateless),
    (Door::Tcp, Era::Session),
    (Door::Tcp, Era::Stateless),
    (Door::Sse, Era::Session),
];

const UPSTREAMS: [Behind; 7] = [
    Behind::Json,
    Behind::Events,
    Behind::Stdio,
    Behind::Socket(Kind::Tcp),
    Behind::Socket(Kind::Ws),
    Behind::Socket(Kind::Tls),
    Behind::Socket(Kind::Wss),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Http,
    WebSocket,
    Tcp,
    /// The transport of 2024-11-05.
    Sse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// Over HTTP, answering with JSON.
    Json,
    /// Over HTTP, answering with event streams.
    Events,
    /// The sample server on standard input and output.
    Stdio,
    Socket(Kind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Era {
    Session,
    Stateless,
}

/// An upstream of any kind, and how the policy names it.
struct Server {
    policy: String,
    _http: Option<Upstream>,
    _socket: Option<SocketServer>,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start(behind: Behind, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (mut http, mut socket) = (None, None);
        let policy = match behind {
            Behind::Stdio => {
                let program = env!("CARGO_BIN_EXE_ringwall");
                format!("[upstream.{name}]\ncommand = [\"{program}\", \"sample-server\"]\n")
            }
            Behind::Socket(kind) => {
                let server = SocketServer::start(kind);
                // Certificates are read at the start, by an absolute path.
                let path = folder.path().join("server.pem");
                std::fs::write(&path, &server.certificate).unwrap();
                let policy =
                    server.policy(name).replace(&format!("\"{name}.pem\""), &format!("\"{}\"", path.display()));
                socket = Some(server);
                policy
            }
            Behind::Json | Behind::Events => {
                let events = behind == Behind::Events;
                let server = Upstream::start(move |request, conversation| answer(events, request, conversation));
                let policy = format!("[upstream.{name}]\nurl = \"http://{}/mcp\"\n", server.address);
                http = Some(server);
                policy
            }
        };
        Self { policy, _http: http, _socket: socket, _folder: folder }
    }
}

/// What a server over HTTP says: the same as the one on a socket.
fn answer(events: bool, request: &Received, conversation: &mut Conversation) -> Next {
    let message: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let id = request.id();
    let done = |text: &str| result(&id, &format!("{{\"content\":[{{\"type\":\"text\",\"text\":\"{text}\"}}]}}"));
    if request.method() != "POST" {
        conversation.send(b"HTTP/1.1 405 X\r\nContent-Length: 0\r\n\r\n");
        return Next::Keep;
    }
    if let Some(model) = message["result"]["model"].as_str() {
        conversation.say(model);
    }
    if id == "null" || message["method"].is_null() {
        conversation.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
        return Next::Keep;
    }
    let body = match (message["method"].as_str().unwrap_or_default(), message["params"]["name"].as_str()) {
        ("initialize", _) => {
            let body = result(
                &id,
                "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"http\",\"version\":\"1\"}}",
            );
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: its-own\r\n";
            conversation.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
            return Next::Keep;
        }
        ("tools/list", _) => result(&id, "{\"tools\":[{\"name\":\"echo\",\"inputSchema\":{\"type\":\"object\"}}]}"),
        ("tools/call", Some("echo")) => done("hello"),
        ("tools/call", Some("die")) => return Next::Close,
        ("tools/call", Some(name @ ("progress" | "ask"))) if events => {
            conversation.begin_events();
            let mut say = |message: Value| conversation.chunk(format!("data: {message}\n\n").as_bytes());
            if name == "progress" {
                let token = &message["params"]["_meta"]["progressToken"];
                for progress in 1..=2 {
                    let params = json!({"progressToken": token, "progress": progress});
                    say(json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}));
                }
                conversation.chunk(format!("data: {}\n\n", done("done")).as_bytes());
            } else {
                say(json!({"jsonrpc": "2.0", "id": "server-1", "method": "sampling/createMessage", "params": {}}));
                conversation.wait_for("the client's");
                conversation.chunk(format!("data: {}\n\n", done("the client's")).as_bytes());
            }
            return conversation.end_chunks();
        }
        _ => {
            format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":-32601,\"message\":\"no such method\"}}}}")
        }
    };
    if events {
        conversation.begin_events();
        conversation.chunk(format!("data: {body}\n\n").as_bytes());
        return conversation.end_chunks();
    }
    conversation.json(&body)
}

/// A client on any door.
struct Agent<'g> {
    gateway: &'g Gateway,
    era: Era,
    way: Way,
}

enum Way {
    Messages(Peer),
    Http {
        client: Client,
        session: Option<String>,
        in_stream: bool,
    },
    /// The stream, and where to post.
    Sse {
        client: Client,
        path: String,
    },
}

impl Way {
    fn open(gateway: &Gateway, door: Door) -> Self {
        match door {
            Door::Http => Self::Http { client: gateway.client(), session: None, in_stream: false },
            Door::WebSocket => Self::Messages(Peer::websocket(gateway)),
            Door::Tcp => Self::Messages(Peer::tcp(gateway)),
            Door::Sse => {
                let (client, path) = Client::old_stream(gateway, TOKEN);
                Self::Sse { client, path }
            }
        }
    }
}

impl<'g> Agent<'g> {
    fn new(gateway: &'g Gateway, door: Door, era: Era) -> Self {
        let mut agent = Self { gateway, era, way: Way::open(gateway, door) };
        if era == Era::Session {
            agent.open();
        }
        agent
    }

    /// Initializes; before it may send anything else.
    fn open(&mut self) {
        if let Way::Http { session, .. } = &mut self.way {
            *session = None;
        }
        let opened = self.ask(&initialize());
        assert!(opened["result"]["capabilities"].is_object(), "{opened}");
        self.tell("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
    }

    /// A request in the client's era; `params` without braces.
    fn request(&self, id: &str, method: &str, params: &str) -> String {
        match self.era {
            Era::Session => {
                format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{{{params}}}}}")
            }
            Era::Stateless => stateless(id, method, params),
        }
    }

    fn tool(&self, id: &str, name: &str) -> String {
        self.request(id, "tools/call", &format!("\"name\":\"{name}\",\"arguments\":{{\"text\":\"hello\"}}"))
    }

    /// Likewise with a progress token.
    fn tool_with_token(&self, id: &str, name: &str) -> String {
        let message = self.tool(id, name);
        let token = "\"progressToken\":\"mine\"";
        match self.era {
            Era::Session => message.replace("\"name\"", &format!("\"_meta\":{{{token}}},\"name\"")),
            Era::Stateless => message.replace("\"_meta\":{", &format!("\"_meta\":{{{token},")),
        }
    }

    fn bytes(&self, message: &str) -> Vec<u8> {
        let read: Value = serde_json::from_str(message).unwrap();
        let mut fields = String::new();
        if self.era == Era::Stateless {
            let method = read["method"].as_str().unwrap();
            fields += &format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\n");
            if let Some(name) = read["params"]["name"].as_str() {
                fields += &format!("Mcp-Name: {name}\r\n");
            }
        } else {
            fields += "MCP-Protocol-Version: 2025-11-25\r\n";
        }
        if let Way::Http { session: Some(session), .. } = &self.way {
            fields += &format!("Mcp-Session-Id: {session}\r\n");
        }
        let path = if let Way::Sse { path, .. } = &self.way { path } else { "/mcp" };
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\n{fields}Content-Length: {}\r\n\r\n{message}",
            message.len()
        )
        .into_bytes()
    }

    /// Sends a request.
    fn say(&mut self, message: &str) {
        let bytes = self.bytes(message);
        match &mut self.way {
            Way::Messages(peer) => peer.say(message),
            Way::Http { client, in_stream, .. } => {
                *in_stream = false;
                client.send(&bytes);
            }
            Way::Sse { .. } => assert_eq!(self.gateway.client().ask(&bytes).status, 202, "{message}"),
        }
    }

    /// The next message of the request's stream.
    fn hear(&mut self) -> Value {
        let (client, session, in_stream) = match &mut self.way {
            Way::Messages(peer) => return peer.hear(),
            Way::Sse { client, .. } => return event(client),
            Way::Http { client, session, in_stream } => (client, session, in_stream),
        };
        if !*in_stream {
            let head = client.head();
            *session = head.field("mcp-session-id").or(session.take());
            if let Some(length) = head.field("content-length") {
                let body = client.exactly(length.parse().unwrap()).expect("a body");
                return serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{head:?}"));
            }
            *in_stream = true;
        }
        let message = event(client);
        if message["method"].is_null() {
            // The response is the last of its stream.
            assert_eq!(client.chunk(), Some(None));
        }
        message
    }

    fn ask(&mut self, message: &str) -> Value {
        self.say(message);
        self.hear()
    }

    /// Sends what gets no answer.
    fn tell(&mut self, message: &str) {
        let bytes = self.bytes(message);
        match &mut self.way {
            Way::Messages(peer) => peer.say(message),
            _ => assert_eq!(self.gateway.client().ask(&bytes).status, 202, "{message}"),
        }
    }

    fn echo(&mut self, id: &str) -> Value {
        let message = self.tool(id, "echo");
        self.ask(&message)
    }
}

/// The next message of an event stream; comments are passed over.
fn event(client: &mut Client) -> Value {
    loop {
        let event = client.event();
        if let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) {
            return serde_json::from_str(data).unwrap();
        }
    }
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

/// Lists and calls, reads an error, hears of its progress, and answers what it is asked.
fn usual(gateway: &Gateway, door: Door, behind: Behind, era: Era) {
    let shown = format!("{door:?} {behind:?} {era:?}");
    let mut agent = Agent::new(gateway, door, era);
    let mut other = Agent::new(gateway, door, era);
    let listed = agent.ask(&agent.request("\"list\"", "tools/list", ""));
    let tools = listed["result"]["tools"].as_array().unwrap_or_else(|| panic!("{shown}: {listed}"));
    assert!(tools.iter().any(|tool| tool["name"] == "echo"), "{shown}: {listed}");
    for id in ["1", "\"a\"", "1"] {
        let answer = agent.echo(id);
        assert_eq!((answer["id"].to_string().as_str(), text(&answer)), (id, "hello"), "{shown}");
    }
    let error = agent.ask(&agent.tool("2", "no_such_tool"));
    let code = error["error"]["code"].as_i64();
    assert_eq!(
        (&error["id"], code.is_some_and(|code| matches!(code, -32602 | -32601))),
        (&json!(2), true),
        "{shown}: {error}"
    );

    let is_socket = matches!(behind, Behind::Socket(_));
    if is_socket || behind == Behind::Events {
        agent.say(&agent.tool_with_token("3", "progress"));
        for progress in 1..=2 {
            let note = agent.hear();
            assert_eq!(note["method"], "notifications/progress", "{shown}: {note}");
            let params = &note["params"];
            assert_eq!((&params["progressToken"], &params["progress"]), (&json!("mine"), &json!(progress)), "{shown}");
        }
        assert_eq!(text(&agent.hear()), "done", "{shown}");
        assert_eq!(text(&other.echo("3")), "hello", "{shown}: nobody else heard of it");
    }
    if era == Era::Session && (is_socket || behind == Behind::Events) {
        agent.say(&agent.tool("4", "ask"));
        let asked = agent.hear();
        assert_eq!(asked["method"], "sampling/createMessage", "{shown}: {asked}");
        assert_eq!(text(&other.echo("4")), "hello", "{shown}: nobody else is asked");
        agent
            .tell(&format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{{\"model\":\"the client's\"}}}}", asked["id"]));
        let answer = agent.hear();
        assert_eq!((&answer["id"], text(&answer)), (&json!(4), "the client's"), "{shown}");
    }
}

/// The upstream dies in the middle of a call, and is back.
fn dies(gateway: &Gateway, door: Door, behind: Behind, era: Era) {
    let shown = format!("{door:?} {behind:?} {era:?}");
    let mut agent = Agent::new(gateway, door, era);
    assert_eq!(text(&agent.echo("1")), "hello", "{shown}");
    let died = agent.ask(&agent.tool("\"d\"", "die"));
    assert_eq!(died["id"], "d", "{shown}");
    let why = died["error"]["message"].as_str().unwrap_or_else(|| panic!("{shown}: {died}"));
    assert!(why.contains("whether the call was carried out is unknown"), "{shown}: {why}");
    until("the upstream to be back", || {
        let answer = agent.echo("2");
        if answer["error"].is_object() {
            let why = answer["error"]["message"].as_str().unwrap();
            let lost = why.contains("initialize");
            assert!(lost || why.contains("the call was not made"), "{shown}: {why}");
            if lost && era == Era::Session {
                agent = Agent { gateway, era, way: Way::open(gateway, door) };
                let opened = agent.ask(&initialize());
                if opened["result"].is_object() {
                    agent.tell("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
                }
            }
            return false;
        }
        assert_eq!(text(&answer), "hello", "{shown}");
        true
    });
}

fn gateway(servers: &[&Server]) -> Gateway {
    let policy: String = servers.iter().map(|server| server.policy.as_str()).collect();
    Gateway::with_policy(&[], &policy).ready()
}

fn every_pair(behind: &[Behind]) {
    for behind in behind {
        let server = Server::start(*behind, "only");
        let gateway = gateway(&[&server]);
        for (door, era) in DOORS {
            usual(&gateway, door, *behind, era);
            if *behind != Behind::Stdio {
                dies(&gateway, door, *behind, era);
            }
        }
        gateway.unharmed();
    }
}

#[test]
fn every_door_reaches_servers_over_http() {
    every_pair(&UPSTREAMS[..2]);
}

#[test]
fn every_door_reaches_servers_on_standard_input_and_output() {
    every_pair(&UPSTREAMS[2..3]);
}

#[test]
fn every_door_reaches_servers_on_sockets() {
    every_pair(&UPSTREAMS[3..5]);
}

#[test]
fn every_door_reaches_servers_on_sockets_over_tls() {
    every_pair(&UPSTREAMS[5..]);
}

#[test]
fn every_door_meets_several_upstreams_as_one_server() {
    let servers: Vec<(String, Server)> =
        [Behind::Json, Behind::Socket(Kind::Tcp), Behind::Socket(Kind::Wss), Behind::Stdio]
            .into_iter()
            .zip(["json", "lines", "frames", "sample"])
            .map(|(behind, name)| (name.to_owned(), Server::start(behind, name)))
            .collect();
    let gateway = gateway(&servers.iter().map(|(_, server)| server).collect::<Vec<_>>());
    // Ready is who reaches one of them, and a program takes its time to start.
    until("all four to be listed", || {
        let mut agent = Agent::new(&gateway, Door::Http, Era::Stateless);
        let listed = agent.ask(&agent.request("1", "tools/list", "")).to_string();
        servers.iter().all(|(name, _)| listed.contains(&format!("\"{name}__echo\"")))
    });
    let mut lists = Vec::new();
    for (door, era) in DOORS {
        let shown = format!("{door:?} {era:?}");
        let mut agent = Agent::new(&gateway, door, era);
        let listed = agent.ask(&agent.request("1", "tools/list", ""));
        let tools = listed["result"]["tools"].as_array().unwrap_or_else(|| panic!("{shown}: {listed}"));
        let mut names: Vec<String> = tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect();
        for (name, _) in &servers {
            let echo = format!("{name}__echo");
            assert!(names.contains(&echo), "{shown}: {names:?}");
            let answer = agent.ask(&agent.tool("\"e\"", &echo));
            assert_eq!((&answer["id"], text(&answer)), (&json!("e"), "hello"), "{shown} {name}");
        }
        assert!(names.contains(&"comms_send_message".to_owned()), "{shown}: what nobody else has keeps its name");
        let refused = agent.ask(&agent.tool("9", "nobody__echo"));
        assert!(refused["error"].is_object(), "{shown}: {refused}");
        names.sort_unstable();
        lists.push(names);
    }
    assert!(lists.windows(2).all(|pair| pair[0] == pair[1]), "one list on every door: {lists:?}");
    gateway.unharmed();
}
