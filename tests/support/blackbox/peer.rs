//! A client of the doors that carry messages: lines over TCP, or WebSocket frames. What the gateway sends is read by RFC 6455 anew, so that
//! the codec is not its own witness.

use ringwall::wire::websocket::{Opcode, write};
use serde_json::Value;

use super::{Client, Gateway, Response, TOKEN};

/// The masking key of every frame. Tests need none that cannot be foreseen.
pub(crate) const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// One connection.
pub(crate) struct Peer {
    /// For what is no message.
    pub(crate) client: Client,
    is_websocket: bool,
}

/// A frame of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// 1005 stands for none (RFC 6455 §7.1.5).
    Close(u16, String),
}

impl Peer {
    /// Connected to the TCP door; not authenticated.
    pub(crate) fn stranger(gateway: &Gateway) -> Self {
        Self { client: Client::connect(gateway.tcp), is_websocket: false }
    }

    /// On the TCP door, authenticated by its first line.
    pub(crate) fn tcp(gateway: &Gateway) -> Self {
        Self::tcp_with(gateway, TOKEN)
    }

    /// Likewise with another token.
    pub(crate) fn tcp_with(gateway: &Gateway, token: &str) -> Self {
        let mut peer = Self::stranger(gateway);
        peer.authenticate(token);
        peer
    }

    /// On the TCP door, authenticated, and reading nothing by itself.
    pub(crate) fn deaf(gateway: &Gateway) -> Self {
        let mut peer = Self { client: Client::deaf(gateway.tcp), is_websocket: false };
        peer.authenticate(TOKEN);
        peer
    }

    /// On the TCP door, authenticated; `None` where the door is full or the connection ends before.
    pub(crate) fn try_tcp(gateway: &Gateway) -> Option<Self> {
        let mut peer = Self::stranger(gateway);
        let is_sent = peer.client.try_send(format!("{}\n", authenticate("0", TOKEN)).as_bytes());
        let answer = if is_sent { peer.client.line() } else { None };
        answer.is_some_and(|answer| answer.contains("\"authenticated\":true")).then_some(peer)
    }

    /// On the WebSocket door, authenticated by its header.
    pub(crate) fn websocket(gateway: &Gateway) -> Self {
        Self::websocket_with(gateway, TOKEN)
    }

    /// Likewise with another token.
    pub(crate) fn websocket_with(gateway: &Gateway, token: &str) -> Self {
        let (client, response) = upgrade(gateway, "/ws", &format!("Authorization: Bearer {token}\r\n"));
        assert_eq!(response.status, 101, "{response:?}");
        Self::on(client)
    }

    /// On the WebSocket door, authenticated by its header; `None` where the door is full or the connection ends before.
    pub(crate) fn try_websocket(gateway: &Gateway) -> Option<Self> {
        let mut client = gateway.client();
        let is_sent = client.try_send(&upgrade_request("/ws", &format!("Authorization: Bearer {TOKEN}\r\n")));
        let head = if is_sent { client.try_head() } else { None };
        head.is_some_and(|head| head.status == 101).then(|| Self::on(client))
    }

    /// A WebSocket that stands.
    pub(crate) fn on(client: Client) -> Self {
        Self { client, is_websocket: true }
    }

    /// Says who it is; that must be believed.
    pub(crate) fn authenticate(&mut self, token: &str) {
        let answer = self.ask(&authenticate("\"auth\"", token));
        assert_eq!(answer["result"]["authenticated"], true, "{answer}");
    }

    /// Sends one message.
    pub(crate) fn say(&mut self, message: &str) {
        let bytes = self.framed(message);
        self.client.send(&bytes);
    }

    /// One message as it stands on the wire.
    pub(crate) fn framed(&self, message: &str) -> Vec<u8> {
        if self.is_websocket {
            let mut frame = Vec::new();
            write::text(&mut frame, message.as_bytes(), Some(KEY));
            frame
        } else {
            format!("{message}\n").into_bytes()
        }
    }

    /// The next message; `None` if the connection ends, or a Close comes, before there is one.
    pub(crate) fn try_hear(&mut self) -> Option<String> {
        if !self.is_websocket {
            return self.client.line();
        }
        match self.try_frame()? {
            Frame::Text(text) => Some(text),
            Frame::Close(..) => None,
            other => panic!("a message is expected: {other:?}"),
        }
    }

    /// The next message, which must come, as it was written.
    pub(crate) fn hear_text(&mut self) -> String {
        self.try_hear().expect("a message")
    }

    /// The next message, which must come.
    pub(crate) fn hear(&mut self) -> Value {
        let text = self.hear_text();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("JSON is expected: {text}"))
    }

    /// Sends and takes the next message.
    pub(crate) fn ask(&mut self, message: &str) -> Value {
        self.say(message);
        self.hear()
    }

    /// The next frame, which must come.
    pub(crate) fn frame(&mut self) -> Frame {
        self.try_frame().expect("a frame")
    }

    /// The next frame; `None` if the connection ends before there is one. A server's frames are whole and not masked.
    pub(crate) fn try_frame(&mut self) -> Option<Frame> {
        let start = self.client.exactly(2)?;
        let len = match start[1] {
            126 => u16::from_be_bytes(self.client.exactly(2)?.try_into().unwrap()).into(),
            127 => usize::try_from(u64::from_be_bytes(self.client.exactly(8)?.try_into().unwrap())).unwrap(),
            len @ 0..=125 => len.into(),
            len => panic!("a server does not mask: {len}"),
        };
        let payload = self.client.exactly(len)?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Some(match start[0] {
            0x81 => Frame::Text(text(&payload)),
            0x89 => Frame::Ping(payload),
            0x8a => Frame::Pong(payload),
            0x88 => match payload.split_first_chunk() {
                Some((code, reason)) => Frame::Close(u16::from_be_bytes(*code), text(reason)),
                None => Frame::Close(1005, String::new()),
            },
            other => panic!("first byte {other:#x}"),
        })
    }

    /// A Close with this code comes next, and then the end.
    pub(crate) fn closes(&mut self, code: u16, reason: &str) {
        assert_eq!(self.frame(), Frame::Close(code, reason.to_owned()));
        assert!(self.client.is_closed(), "nothing follows a Close");
    }

    /// Sends a frame of any kind.
    pub(crate) fn say_frame(&mut self, opcode: Opcode, fin: bool, payload: &[u8]) {
        let mut frame = Vec::new();
        write::frame(&mut frame, opcode, fin, payload, Some(KEY));
        self.client.send(&frame);
    }
}

/// `authenticate` with this token.
pub(crate) fn authenticate(id: &str, token: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"authenticate\",\"params\":{{\"token\":\"{token}\"}}}}")
}

/// The bytes that ask for an upgrade, with these fields besides the usual ones.
pub(crate) fn upgrade_request(path: &str, fields: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
    .into_bytes()
}

/// Asks for an upgrade with these fields besides the usual ones. The response is the switch, or a refusal.
pub(crate) fn upgrade(gateway: &Gateway, path: &str, fields: &str) -> (Client, Response) {
    let mut client = gateway.client();
    client.send(&upgrade_request(path, fields));
    let head = client.head();
    if head.status == 101 {
        return (client, head);
    }
    let length = head.field("content-length").map_or(0, |length| length.parse().unwrap());
    let body = client.exactly(length).expect("the body");
    (client, Response { body, ..head })
}
