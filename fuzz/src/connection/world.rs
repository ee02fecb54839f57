//! The gateways under test, with the sockets on both sides of them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use ringwall::gateway::Gateway;
use ringwall::settings::{Inputs, Settings};

use super::play::{self, Seen};
use super::{Input, SEVERAL};

/// The door's token, which inputs may use.
pub(super) const DOOR_TOKEN: &str = "fuzz-door-token-0123456789abcdefgh";
/// The token of the agent `fuzz-agent`.
pub(super) const AGENT_TOKEN: &str = "fuzz-agent-token-0123456789abcdefg";
/// What the upstream expects of the gateway.
pub(super) const CREDENTIAL: &str = "Bearer upstream-credential";
/// The session id that the upstream made when the world began.
pub(super) const UPSTREAM_SESSION: &str = "upstream-session-fuzz";
/// `MAX_REQUEST_SIZE`: smaller than the longest input, so that it is met.
pub(super) const MAX_REQUEST_BYTES: u64 = 8192;
/// No answer after this is a hang; the machine may be busy with other things.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that lives as long as the process.
pub(super) struct World {
    one: Side,
    several: Side,
    pub(super) runs: u64,
}

/// One gateway and its upstreams' listeners.
pub(super) struct Side {
    pub(super) gateway: Gateway,
    pub(super) upstreams: Vec<TcpListener>,
    session: String,
}

impl World {
    pub(super) fn start() -> Self {
        Self { one: Side::start(1), several: Side::start(2), runs: 0 }
    }

    fn side(&self, several: bool) -> &Side {
        if several { &self.several } else { &self.one }
    }

    /// A sealed session id of the door's token.
    pub(super) fn session(&self, several: bool) -> String {
        self.side(several).session.clone()
    }

    pub(super) fn play(&mut self, input: &Input) -> Seen {
        self.runs += 1;
        play::play(self.side(input.has(SEVERAL)), input)
    }

    /// Whether both workers still serve.
    pub(super) fn check_health(&self) {
        for side in [&self.one, &self.several] {
            let mut client = TcpStream::connect(side.gateway.bridge()).expect("the door is open");
            client.set_read_timeout(Some(PATIENCE)).expect("a live socket");
            client.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).expect("/health answers in time");
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "/health: {}", answer.escape_ascii());
        }
    }
}

impl Side {
    fn start(count: usize) -> Self {
        let upstreams: Vec<TcpListener> =
            (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port")).collect();
        let mut policy = String::new();
        for (index, listener) in upstreams.iter().enumerate() {
            listener.set_nonblocking(true).expect("a listener");
            let port = listener.local_addr().expect("a bound listener").port();
            policy.push_str(&format!(
                "[upstream.u{index}]\nurl = \"http://127.0.0.1:{port}/mcp\"\ncall_timeout_ms = 5000\n\
                 header.Authorization = \"{CREDENTIAL}\"\n"
            ));
        }
        let hash: String = ringwall::settings::secret::sha256(AGENT_TOKEN.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        policy.push_str(&format!("[agent.fuzz-agent]\ntoken_sha256 = \"{hash}\"\n"));
        let data = std::env::temp_dir().join(format!("ringwall-fuzz-{}-{count}", std::process::id()));
        let limit = MAX_REQUEST_BYTES.to_string();
        let mut inputs = Inputs::from_pairs(&[
            ("MCP_BRIDGE_PORT", "0"),
            ("MCP_TCP_PORT", "0"),
            ("MCP_HEALTH_PORT", "0"),
            ("ADMIN_PORT", "0"),
            ("WORKERS", "1"),
            ("WS_AUTH_TOKEN", DOOR_TOKEN),
            ("MAX_REQUEST_SIZE", &limit),
            // All inputs come from one address, and hardly any has the token.
            ("MAX_FAILED_ATTEMPTS", "10000000"),
            ("SECURITY_AUDIT_LOG", "false"),
            ("DATA_DIR", &data.to_string_lossy()),
        ]);
        inputs.policy = Some((PathBuf::from("ringwall.toml"), policy));
        let loaded = Settings::load(&inputs).unwrap_or_else(|faults| panic!("{faults}"));
        let gateway = Gateway::start(loaded).unwrap_or_else(|error| panic!("{error}"));
        // Its keys have been read; nothing else is kept there.
        let _ = std::fs::remove_dir_all(&data);
        let mut side = Self { gateway, upstreams, session: String::new() };
        side.session = side.initialize();
        side
    }

    /// Opens a session as a client does.
    fn initialize(&self) -> String {
        let body = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"fuzz","version":"1"}}}"#;
        let client = format!(
            "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {DOOR_TOKEN}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let result = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"u","version":"1"}}}"#;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: {UPSTREAM_SESSION}\r\nContent-Length: {}\r\n\r\n{result}",
            result.len()
        );
        let answers = vec![answer.into_bytes(); 2];
        let input = Input { flags: 0, cuts: Vec::new(), client: client.into_bytes(), answers };
        let seen = play::play(self, &input);
        let text = String::from_utf8_lossy(&seen.received);
        let sealed = text.lines().find_map(|line| line.strip_prefix("Mcp-Session-Id: "));
        sealed.unwrap_or_else(|| panic!("no session: {text}")).trim().to_owned()
    }
}
