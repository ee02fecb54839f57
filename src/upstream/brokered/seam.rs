//! What passes between the workers and the children thread: calls in, messages out. Plain data, no runtime.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use zeroize::Zeroizing;

use crate::settings::SocketTarget;
use crate::state::call_limit::CallLimit;
use crate::state::lifecycle::UpstreamState;

/// An upstream that clients share, as the settings describe it.
#[derive(Clone)]
pub struct ChildSpec {
    /// The upstream's name, for logs.
    pub name: String,
    /// What answers.
    pub server: Server,
    /// Most instances (processes, connections) of this upstream at a time, at least 1.
    pub max_instances: usize,
    /// Longest message accepted from the server, in bytes.
    pub max_message_bytes: usize,
    /// Most legacy sessions at a time.
    pub max_sessions: usize,
    /// A legacy session that is not used for this long is forgotten.
    pub session_idle: Duration,
    /// An instance without session and call for this long is ended.
    pub instance_idle: Duration,
    /// Instances that are kept (and started ahead) although nobody uses them.
    pub keep_warm: usize,
    /// The calls in flight to this upstream, over all its instances and beside them: workers' own connections to it count here as well.
    pub calls: Arc<CallLimit>,
    /// No two principals share an instance.
    pub isolate_principals: bool,
}

/// What answers: a program that is started, or a server that is connected to.
#[derive(Clone)]
pub enum Server {
    /// Each instance is a process.
    Program(ProgramSpec),
    /// Each instance is a connection.
    Socket(SocketSpec),
}

/// How a server is started. Not `Debug`: the variables may be secrets.
#[derive(Clone, Default)]
pub struct ProgramSpec {
    /// Program and arguments. The program is looked up in `PATH` when it holds no `/`.
    pub command: Vec<String>,
    /// Variables added to the few that a child inherits.
    pub env: Vec<(String, String)>,
    /// Working directory; the gateway's own when `None`.
    pub cwd: Option<PathBuf>,
}

/// How a server is connected to. Not `Debug`: the fields may be secrets.
#[derive(Clone)]
pub struct SocketSpec {
    /// Where it is, and what is spoken there.
    pub target: SocketTarget,
    /// Where its name leads at present: the control plane resolves it.
    pub upstream: Arc<UpstreamState>,
    /// How it is spoken to over TLS, and the name to expect in its certificate.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Header lines put into the WebSocket handshake, each with its line end.
    pub fields: Zeroizing<Vec<u8>>,
    /// Time until a connection must stand, its handshakes included.
    pub connect_timeout: Duration,
    /// A WebSocket that is silent for this long is asked whether it is there; half of it again, and it is given up.
    pub ping_every: Duration,
}

impl ChildSpec {
    /// A program with the default bounds.
    pub fn new(name: impl Into<String>, command: Vec<String>) -> Self {
        Self::with(name, Server::Program(ProgramSpec { command, ..ProgramSpec::default() }), 1)
    }

    /// A server on a socket, with the default bounds. It is connected to when the first call is there, not before.
    pub fn socket(name: impl Into<String>, socket: SocketSpec) -> Self {
        Self::with(name, Server::Socket(socket), 0)
    }

    fn with(name: impl Into<String>, server: Server, keep_warm: usize) -> Self {
        Self {
            name: name.into(),
            server,
            max_instances: 4,
            max_message_bytes: 16 << 20,
            max_sessions: 4096,
            session_idle: Duration::from_secs(30 * 60),
            instance_idle: Duration::from_secs(60),
            keep_warm,
            calls: Arc::new(CallLimit::new(1024)),
            isolate_principals: false,
        }
    }
}

/// The name of a legacy session between the gateway and a child: random, never shown to a client unsealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub u128);

/// What the client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// Legacy `initialize`. Answered by [`ChildMessage::Initialized`], or by a `Message` that holds an error.
    Initialize,
    /// Any other request: legacy with `session`, 2026-07-28 without. Answered by `Message`s, the last with `last`.
    Request,
    /// A notification. Answered by `Accepted` (202).
    Notification,
    /// The client's answer to a request of the server. Answered by `Accepted` (202).
    Response,
    /// Legacy GET stream. `Accepted`, then `Message`s until the handle is dropped or `Gone`.
    Listen,
    /// Legacy DELETE. Answered by `Accepted`.
    EndSession,
}

/// Where the parts of `raw` that are spliced stand. Ranges are of bytes in `raw`, of whole JSON tokens (a string with its quotes).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// `id`.
    pub id: Option<Range<usize>>,
    /// `method`, unescaped; empty for a response.
    pub method: String,
    /// `params._meta.progressToken`.
    pub progress_token: Option<Range<usize>>,
    /// `params.requestId` of `notifications/cancelled`.
    pub request_id: Option<Range<usize>>,
}

/// One message of a client for a child. `Listen` and `EndSession` have empty `raw` and `parts`.
#[derive(Clone, Debug)]
pub struct ChildCall {
    /// The JSON-RPC message as it arrived, already validated. Newlines between tokens are allowed.
    pub raw: Vec<u8>,
    /// Where things are in it.
    pub parts: Parts,
    /// The legacy session; `None` for `Initialize` and for 2026-07-28.
    pub session: Option<SessionId>,
    /// What it is.
    pub kind: CallKind,
    /// Who sent it: a hash of the principal.
    pub principal: u64,
    /// Whether dropping the handle cancels the call at the server (2026-07-28) or lets it run on unheard (legacy).
    pub cancel_on_drop: bool,
}

/// What comes back for a call.
#[derive(Debug, PartialEq, Eq)]
pub enum ChildMessage {
    /// One JSON-RPC message for this client, without newline, with its own id and progress token.
    Message {
        /// The message.
        bytes: Vec<u8>,
        /// It is the response to the call; nothing follows.
        last: bool,
    },
    /// The result of `Initialize`; nothing follows.
    Initialized {
        /// The fresh session.
        session: SessionId,
        /// The JSON-RPC response with the client's id.
        bytes: Vec<u8>,
    },
    /// Notification, response or DELETE taken (nothing follows), or GET stream open (messages follow).
    Accepted,
    /// No such session for this principal: 404.
    SessionUnknown,
    /// The call ended without a response; nothing follows.
    Gone {
        /// Why.
        reason: Gone,
    },
}

/// Why a call got no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// The child's queue, its calls, the sessions or the instances are at their bound: try again later.
    #[error("the server is busy")]
    Busy,
    /// It crashed and is not restarted yet.
    #[error("the server is restarting")]
    BackingOff {
        /// Milliseconds until the next start.
        retry_after_ms: u64,
    },
    /// It cannot be started at all.
    #[error("the server cannot be started: {0}")]
    NotStarted(SpawnFault),
    /// It ended while the call was in flight.
    #[error("the server ended during the call")]
    Exited,
    /// The connection to it ended while the call was in flight.
    #[error("the connection to the server ended during the call")]
    Disconnected,
    /// It ended, or the connection did, before the call was written.
    #[error("the server went away before the call was sent")]
    Unsent,
    /// No connection came about, or the next one is not tried yet.
    #[error("the server cannot be reached")]
    Unreachable {
        /// Milliseconds until the next try.
        retry_after_ms: u64,
    },
    /// It did not answer `initialize` in time.
    #[error("the server did not answer the handshake")]
    NoHandshake,
    /// Its answer was longer than `max_message_bytes`.
    #[error("the server's answer is too long")]
    TooLong,
    /// The session was ended (DELETE, expiry) or a newer GET stream took this one's place.
    #[error("the stream was closed")]
    Closed,
    /// The client cancelled the call.
    #[error("the call was cancelled")]
    Cancelled,
    /// The call's id or token is too long, or [`Parts`] does not fit `raw`.
    #[error("the message's id cannot be used")]
    Malformed,
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
}

impl Gone {
    /// Whether it is certain that the server has seen nothing of the call: it may be made again.
    #[must_use]
    pub fn nothing_sent(&self) -> bool {
        match self {
            Self::Busy
            | Self::BackingOff { .. }
            | Self::NotStarted(_)
            | Self::Unsent
            | Self::Unreachable { .. }
            | Self::NoHandshake
            | Self::Malformed
            | Self::Stopping => true,
            Self::Exited | Self::Disconnected | Self::TooLong | Self::Closed | Self::Cancelled => false,
        }
    }

    /// How soon it is worth trying again, in milliseconds, where that is known.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::BackingOff { retry_after_ms } | Self::Unreachable { retry_after_ms } => Some(*retry_after_ms),
            _ => None,
        }
    }
}

/// Why a program cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpawnFault {
    /// `command` is empty.
    #[error("no command is given")]
    Empty,
    /// No such program.
    #[error("program not found")]
    NotFound,
    /// It may not be executed.
    #[error("program is not executable")]
    NotExecutable,
    /// The working directory is none.
    #[error("working directory not found")]
    Directory,
    /// Something else: the operating system's error is in the log.
    #[error("the operating system refused")]
    Other,
}

/// The children thread's inbox is full, or it has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many calls are waiting for the servers")]
pub struct Busy;
