//! An MCP server on a socket of its own, for tests: lines or WebSocket, plain or over TLS. It does what the called tool's name says
//! and remembers what it was sent. Written from RFC 6455 anew, so that the gateway does not talk to itself.
#![allow(dead_code, reason = "each test program uses its own part of this")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the threads of a test are its own")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

/// What is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Tcp,
    Tls,
    Ws,
    Wss,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] = [Kind::Tcp, Kind::Tls, Kind::Ws, Kind::Wss];

    fn scheme(self) -> &'static str {
        match self {
            Kind::Tcp => "tcp",
            Kind::Tls => "tls",
            Kind::Ws => "ws",
            Kind::Wss => "wss",
        }
    }

    fn is_websocket(self) -> bool {
        matches!(self, Kind::Ws | Kind::Wss)
    }

    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Kind::Tls | Kind::Wss)
    }
}

/// A running server.
pub(crate) struct SocketServer {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    /// Self-signed, PEM.
    pub(crate) certificate: String,
    config: Arc<ServerConfig>,
    /// Bound and never listening: nobody else can get the address while the server is away.
    _place: socket2::Socket,
    listener: Mutex<TcpListener>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Connection and message, in order.
    heard: Mutex<Vec<(usize, Value)>>,
    /// Heads of WebSocket handshakes.
    heads: Mutex<Vec<String>>,
    open: Mutex<Vec<TcpStream>>,
    connections: AtomicUsize,
}

impl SocketServer {
    pub(crate) fn start(kind: Kind) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        let place = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = place.local_addr().unwrap().as_socket().unwrap();
        let listener = Mutex::new(listen(address));
        let (config, state) = (Arc::new(config), Arc::default());
        let server = Self { kind, address, certificate, config, _place: place, listener, state };
        server.accept();
        server
    }

    /// The section of a policy that names it.
    pub(crate) fn policy(&self, name: &str) -> String {
        let (scheme, port) = (self.kind.scheme(), self.address.port());
        let path = if self.kind.is_websocket() { "/mcp?v=1" } else { "" };
        // The certificate is for the name; the address alone would resolve to IPv6 as well.
        let tls = if self.kind.is_tls() {
            format!("ca_file = \"{name}.pem\"\nserver_name = \"localhost\"\n")
        } else {
            String::new()
        };
        format!("[upstream.{name}]\nurl = \"{scheme}://127.0.0.1:{port}{path}\"\n{tls}")
    }

    fn accept(&self) {
        let (kind, config, state) = (self.kind, Arc::clone(&self.config), Arc::clone(&self.state));
        let listener = self.listener.lock().unwrap().try_clone().unwrap();
        std::thread::spawn(move || {
            // Until it is shut down.
            for stream in listener.incoming().map_while(Result::ok) {
                state.open.lock().unwrap().push(stream.try_clone().unwrap());
                let (config, state) = (Arc::clone(&config), Arc::clone(&state));
                let whole = stream.try_clone().unwrap();
                std::thread::spawn(move || {
                    if kind.is_tls() {
                        let tls = ServerConnection::new(config).unwrap();
                        converse(kind, StreamOwned::new(tls, stream), &state);
                    } else {
                        converse(kind, stream, &state);
                    }
                    let _ = whole.shutdown(Shutdown::Both);
                });
            }
        });
    }

    /// Cuts all connections, and takes no more.
    pub(crate) fn stop(&self) {
        self.shut();
        // What the listener had accepted before may be noted after that.
        super::blackbox::until("the server to be gone", || {
            self.cut();
            TcpStream::connect(self.address).is_err()
        });
    }

    /// Ends the listening, and the thread that accepts.
    fn shut(&self) {
        let _ = socket2::SockRef::from(&*self.listener.lock().unwrap()).shutdown(Shutdown::Both);
    }

    /// Listens again where it did.
    pub(crate) fn start_again(&self) {
        *self.listener.lock().unwrap() = listen(self.address);
        self.accept();
    }

    /// Ends all connections without a word.
    pub(crate) fn cut(&self) {
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Connections that began with a message.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(SeqCst)
    }

    /// What was heard, with the number of the connection.
    pub(crate) fn heard(&self) -> Vec<(usize, Value)> {
        self.state.heard.lock().unwrap().clone()
    }

    /// How often `method` was heard.
    pub(crate) fn count(&self, method: &str) -> usize {
        self.heard().iter().filter(|(_, message)| message["method"] == method).count()
    }

    /// How often `tool` was called.
    pub(crate) fn calls(&self, tool: &str) -> usize {
        self.heard().iter().filter(|(_, message)| message["params"]["name"] == tool).count()
    }

    /// Heads of the WebSocket handshakes.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.state.heads.lock().unwrap().clone()
    }
}

impl Drop for SocketServer {
    fn drop(&mut self) {
        self.shut();
        self.cut();
    }
}

/// A socket that shares its address with others that do so as well.
fn bound(address: SocketAddr) -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = bound(address);
    socket.listen(128).unwrap();
    socket.into()
}

/// Messages over a stream.
pub(crate) struct Wire<S> {
    stream: S,
    buf: Vec<u8>,
    is_websocket: bool,
}

impl<S: Read + Write> Wire<S> {
    pub(crate) fn websocket(stream: S) -> Self {
        Self { stream, buf: Vec::new(), is_websocket: true }
    }

    /// Answers so many pings and nothing else; how many came until the connection ended.
    pub(crate) fn pings_until_the_end(&mut self, answers: usize) -> usize {
        let mut pings = 0;
        while let Some(start) = self.exactly(2) {
            let Some(frame) = self.exactly(4 + usize::from(start[1] & 0x7f)) else { break };
            if start[0] == 0x89 {
                pings += 1;
                if pings <= answers {
                    self.frame(10, &frame[4..]);
                }
            }
        }
        pings
    }

    fn fill(&mut self) -> Option<()> {
        let mut buf = [0; 16 * 1024];
        let read = self.stream.read(&mut buf).ok().filter(|read| *read > 0)?;
        self.buf.extend_from_slice(&buf[..read]);
        Some(())
    }

    fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buf, end) {
                return Some(self.buf.drain(..at + end.len()).collect());
            }
            self.fill()?;
        }
    }

    fn exactly(&mut self, len: usize) -> Option<Vec<u8>> {
        while self.buf.len() < len {
            self.fill()?;
        }
        Some(self.buf.drain(..len).collect())
    }

    pub(crate) fn upgrade(&mut self) -> Option<String> {
        let head = String::from_utf8(self.until(b"\r\n\r\n")?).ok()?;
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))?;
        let digest = Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
        let accept = base64::engine::general_purpose::STANDARD.encode(digest);
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        self.stream.write_all(answer.as_bytes()).ok()?;
        self.stream.flush().ok()?;
        Some(head)
    }

    /// The next message; a close and a pong become messages of their own.
    fn next(&mut self) -> Option<Vec<u8>> {
        if !self.is_websocket {
            return self.until(b"\n");
        }
        loop {
            let start = self.exactly(2)?;
            assert_eq!(start[1] & 0x80, 0x80, "a client's frames are masked");
            assert_eq!(start[0] & 0xf0, 0x80, "whole and without reserved bits");
            let len = match start[1] & 0x7f {
                126 => u16::from_be_bytes(self.exactly(2)?.try_into().unwrap()).into(),
                127 => usize::try_from(u64::from_be_bytes(self.exactly(8)?.try_into().unwrap())).unwrap(),
                len => len.into(),
            };
            let mask = self.exactly(4)?;
            let mut payload = self.exactly(len)?;
            payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
            match start[0] & 0x0f {
                1 => return Some(payload),
                8 => {
                    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    self.frame(8, &payload);
                    return Some(json!({"close": code}).to_string().into_bytes());
                }
                9 => self.frame(10, &payload),
                10 => return Some(json!({"pong": String::from_utf8_lossy(&payload)}).to_string().into_bytes()),
                other => panic!("opcode {other}"),
            }
        }
    }

    fn frame(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            len @ 0..=125 => frame.push(u8::try_from(len).unwrap()),
            len @ 126..=65_535 => {
                frame.push(126);
                frame.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
            }
            len => {
                frame.push(127);
                frame.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        self.raw(&frame);
    }

    fn raw(&mut self, bytes: &[u8]) {
        // Whoever has gone hears no more.
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    fn say(&mut self, message: &Value) {
        self.text(message.to_string().as_bytes());
    }

    fn text(&mut self, text: &[u8]) {
        if self.is_websocket {
            self.frame(1, text);
        } else {
            self.raw(&[text, b"\n"].concat());
        }
    }
}

fn converse(kind: Kind, stream: impl Read + Write, state: &State) {
    let mut wire = Wire { stream, buf: Vec::new(), is_websocket: kind.is_websocket() };
    if kind.is_websocket() {
        let Some(head) = wire.upgrade() else { return };
        state.heads.lock().unwrap().push(head);
    }
    let mut no = None;
    // Calls of `hold` that wait for a call of `release`, and of `ask` that wait for the client's answer.
    let (mut held, mut asking) = (Vec::new(), Vec::new());
    while let Some(next) = wire.next() {
        let no = *no.get_or_insert_with(|| state.connections.fetch_add(1, SeqCst) + 1);
        let message: Value = serde_json::from_slice(&next).expect("the gateway sends JSON");
        state.heard.lock().unwrap().push((no, message.clone()));
        if message["close"].is_u64() {
            return;
        }
        let id = &message["id"];
        let done = |id: &Value, text: &str| json!({"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": text}], "isError": false}});
        let note = |method: &str, params: Value| json!({"jsonrpc": "2.0", "method": method, "params": params});
        match (message["method"].as_str(), message["params"]["name"].as_str()) {
            (Some("initialize"), _) => wire.say(&json!({"jsonrpc": "2.0", "id": id, "result": {
                "protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "socket", "version": "1"}}})),
            (Some("tools/list"), _) => {
                let tools: Vec<Value> =
                    ["echo", "hold"].iter().map(|name| json!({"name": name, "inputSchema": {"type": "object"}})).collect();
                wire.say(&json!({"jsonrpc": "2.0", "id": id, "result": {"tools": tools}}));
            }
            (Some("tools/call"), Some("echo")) => {
                let text = message["params"]["arguments"]["text"].as_str().unwrap_or_default().to_owned();
                wire.say(&done(id, &text));
            }
            (Some("tools/call"), Some("progress")) => {
                let token = &message["params"]["_meta"]["progressToken"];
                for progress in 1..=2 {
                    wire.say(&note("notifications/progress", json!({"progressToken": token, "progress": progress})));
                }
                wire.say(&done(id, "done"));
            }
            (Some("tools/call"), Some("ask")) => {
                asking.push(id.clone());
                wire.say(&json!({"jsonrpc": "2.0", "id": "server-1", "method": "sampling/createMessage", "params": {}}));
            }
            (Some("tools/call"), Some("hold")) => held.push(id.clone()),
            (Some("tools/call"), Some("release")) => {
                wire.say(&done(id, "released"));
                for id in held.drain(..).rev() {
                    wire.say(&done(&id, "held"));
                }
            }
            (Some("tools/call"), Some("notify")) => {
                wire.say(&note("notifications/tools/list_changed", json!({})));
                wire.say(&done(id, "notified"));
            }
            (Some("tools/call"), Some("garbage")) => {
                wire.text(b"this is no JSON-RPC");
                wire.text(b"{\"jsonrpc\":\"2.0\",\"id\":999999,\"result\":{}}");
                wire.say(&done(id, "done"));
            }
            (Some("tools/call"), Some("big")) => wire.say(&done(id, &"x".repeat(256 << 10))),
            (Some("tools/call"), Some("long")) => wire.say(&done(id, &"x".repeat(17 << 20))),
            (Some("tools/call"), Some("binary")) => wire.frame(2, b"{}"),
            (Some("tools/call"), Some("ping")) => {
                wire.frame(9, b"are you there");
                wire.say(&done(id, "done"));
            }
            (Some("tools/call"), Some("die")) => return,
            (Some("tools/call"), Some("bye")) => {
                wire.say(&done(id, "bye"));
                if !wire.is_websocket {
                    return;
                }
                // The client's Close is heard above.
                wire.frame(8, &1001_u16.to_be_bytes());
            }
            (None, _) if message["id"] == "server-1" => {
                let text = message["result"]["model"].as_str().unwrap_or_default().to_owned();
                for id in asking.drain(..) {
                    wire.say(&done(&id, &text));
                }
            }
            (Some(_), _) if !id.is_null() => {
                let error = json!({"code": -32601, "message": "no such method"});
                wire.say(&json!({"jsonrpc": "2.0", "id": id, "error": error}));
            }
            _ => {}
        }
    }
}
