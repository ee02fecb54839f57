//! A client that says the same on any door, in its era: opens what there is to be opened, sends, and gives back the text of the answer.

use serde_json::Value;

use super::{Client, Gateway, Peer, Response, initialize, stateless};

/// A way in, and the era that is spoken there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Http,
    HttpStateless,
    WebSocket,
    WebSocketStateless,
    Tcp,
    TcpStateless,
    Sse,
}

/// All of them.
pub(crate) const DOORS: [Door; 7] = [
    Door::Http,
    Door::HttpStateless,
    Door::WebSocket,
    Door::WebSocketStateless,
    Door::Tcp,
    Door::TcpStateless,
    Door::Sse,
];

impl Door {
    pub(crate) fn is_stateless(self) -> bool {
        matches!(self, Self::HttpStateless | Self::WebSocketStateless | Self::TcpStateless)
    }
}

/// A client on any door.
pub(crate) struct Caller<'g> {
    gateway: &'g Gateway,
    door: Door,
    token: String,
    pub(crate) session: Option<String>,
    pub(crate) peer: Option<Peer>,
    /// The stream of the old transport, and where to post.
    stream: Option<(Client, String)>,
    next_id: u32,
    /// What came over HTTP last.
    pub(crate) response: Option<Response>,
}

impl<'g> Caller<'g> {
    pub(crate) fn new(gateway: &'g Gateway, door: Door, token: &str) -> Self {
        let mut caller = Self {
            gateway,
            door,
            token: token.to_owned(),
            session: None,
            peer: None,
            stream: None,
            next_id: 1,
            response: None,
        };
        match door {
            Door::WebSocket | Door::WebSocketStateless => caller.peer = Some(Peer::websocket_with(gateway, token)),
            Door::Tcp | Door::TcpStateless => caller.peer = Some(Peer::tcp_with(gateway, token)),
            Door::Sse => caller.stream = Some(Client::old_stream(gateway, token)),
            Door::Http | Door::HttpStateless => {}
        }
        if !door.is_stateless() {
            let opened = caller.exchange(&initialize());
            assert!(opened.contains("capabilities"), "{door:?}: {opened}");
            caller.tell("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
        }
        caller
    }

    /// A post of this message.
    pub(crate) fn bytes(&self, path: &str, message: &str) -> Vec<u8> {
        let read: Value = serde_json::from_str(message).unwrap();
        let mut fields = if self.door.is_stateless() {
            let name = read["params"]["name"].as_str().map_or_else(String::new, |name| format!("Mcp-Name: {name}\r\n"));
            format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {}\r\n{name}", read["method"].as_str().unwrap())
        } else {
            "MCP-Protocol-Version: 2025-11-25\r\n".to_owned()
        };
        if let Some(session) = &self.session {
            fields += &format!("Mcp-Session-Id: {session}\r\n");
        }
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\n{fields}Content-Length: {}\r\n\r\n{message}",
            self.token,
            message.len()
        )
        .into_bytes()
    }

    /// Sends a request; the text of its answer.
    pub(crate) fn exchange(&mut self, message: &str) -> String {
        if let Some(peer) = &mut self.peer {
            peer.say(message);
            return peer.hear_text();
        }
        if let Some((_, path)) = &self.stream {
            let bytes = self.bytes(path, message);
            assert_eq!(self.gateway.client().ask(&bytes).status, 202, "{message}");
            let (client, _) = self.stream.as_mut().unwrap();
            return data(&client.event());
        }
        let response = self.gateway.client().ask(&self.bytes("/mcp", message));
        self.session = response.field("mcp-session-id").or(self.session.take());
        let text = response.text();
        let text = if response.head.contains("text/event-stream") { data(&text) } else { text };
        self.response = Some(response);
        text
    }

    /// Sends what gets no answer.
    pub(crate) fn tell(&mut self, message: &str) {
        match (&mut self.peer, &self.stream) {
            (Some(peer), _) => peer.say(message),
            (None, stream) => {
                let path = stream.as_ref().map_or("/mcp", |(_, path)| path);
                assert_eq!(self.gateway.client().ask(&self.bytes(path, message)).status, 202);
            }
        }
    }

    /// A request in the door's era; `params` without braces.
    pub(crate) fn ask(&mut self, method: &str, params: &str) -> String {
        self.next_id += 1;
        let message = if self.door.is_stateless() {
            stateless(self.next_id, method, params)
        } else {
            format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"{method}\",\"params\":{{{params}}}}}", self.next_id)
        };
        self.exchange(&message)
    }

    pub(crate) fn call(&mut self, tool: &str) -> Value {
        let answer = self.ask("tools/call", &format!("\"name\":\"{tool}\",\"arguments\":{{\"text\":\"hello\"}}"));
        serde_json::from_str(&answer).unwrap()
    }

    /// A call with these arguments, JSON.
    pub(crate) fn call_with(&mut self, tool: &str, arguments: &str) -> Value {
        let answer = self.ask("tools/call", &format!("\"name\":\"{tool}\",\"arguments\":{arguments}"));
        serde_json::from_str(&answer).unwrap()
    }

    pub(crate) fn names(&mut self) -> Vec<String> {
        let answer = self.ask("tools/list", "");
        let read: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"));
        let tools = read["result"]["tools"].as_array().unwrap_or_else(|| panic!("{answer}"));
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }
}

fn data(events: &str) -> String {
    events.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or_else(|| panic!("{events}")).to_owned()
}
