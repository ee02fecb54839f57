//! Why a step failed, in a sentence, and what to try next. Texts of the other side are cleaned where they are printed
//! ([`super::show`]), and no variant holds the token.

use std::io;
use std::time::Duration;

use super::target::Door;

/// What went wrong, by who can mend it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The command line, a file, or the token itself.
    #[error("{0}")]
    Usage(String),
    /// The host's name means nothing here.
    #[error("the name {0} does not resolve")]
    UnknownHost(String),
    /// In clear over a network.
    #[error("{0} is not this machine, and the connection would not be encrypted: the token could be read on the way")]
    Plaintext(String),
    /// Nobody listens, or the network is in the way.
    #[error("cannot connect to {0}: {1}")]
    Unreachable(String, io::Error),
    /// The certificate is not one to be trusted for this name.
    #[error("the server's certificate is not to be trusted: {0}")]
    Certificate(String),
    /// No TLS came about.
    #[error("the TLS handshake failed: {0}")]
    Tls(String),
    /// Something listens, but it is another door or another program.
    #[error("{0}")]
    WrongDoor(String),
    /// The token is missing or not accepted. `sent`: whether there was one.
    #[error("{text}")]
    Token { sent: bool, text: String },
    /// Not a matter of the token: the door turns this client away.
    #[error("refused with HTTP status {status}: {text}")]
    Status { status: u16, text: String, retry_after: Option<String> },
    /// The connection is turned away, with a word.
    #[error("the door turns this connection away: {0}")]
    Refused(String),
    /// A JSON-RPC error.
    #[error("{method} was answered with error {code}: {message}")]
    Rpc { method: String, code: i64, message: String },
    /// What came is not what the protocol says.
    #[error("{0}")]
    Protocol(String),
    /// A message over [`super::MAX_MESSAGE_BYTES`].
    #[error("a message is longer than {} MiB", super::MAX_MESSAGE_BYTES >> 20)]
    TooLong,
    /// The other side has ended the connection.
    #[error("the connection was closed{0}")]
    Closed(String),
    /// Nothing came in time.
    #[error("no {what} within {} s", .limit.as_secs())]
    Timeout { what: String, limit: Duration },
    /// The tool itself reports a failure.
    #[error("the tool reports a failure: {0}")]
    Tool(String),
}

impl Failure {
    pub(super) fn timeout(what: impl Into<String>, limit: Duration) -> Self {
        Self::Timeout { what: what.into(), limit }
    }

    /// An error of the transport in the middle of the conversation.
    pub(super) fn broken(error: &io::Error) -> Self {
        Self::Closed(format!(": {error}"))
    }

    /// Whether it is the token that is at fault.
    pub(super) fn is_about_token(&self) -> bool {
        matches!(self, Self::Token { .. })
    }

    /// What to try next.
    pub(super) fn advice(&self, door: Door) -> String {
        let variable = door.token_variable();
        match self {
            Self::Usage(_) => "see `ringwall client --help`".to_owned(),
            Self::UnknownHost(_) => "check the spelling of the host, or give its address".to_owned(),
            Self::Plaintext(_) => {
                format!("use {}, or say --plaintext where the network itself is protected", door.encrypted())
            }
            Self::Unreachable(..) => {
                "is the gateway running (`ringwall serve`), and is this its port? Its first lines say where it listens"
                    .to_owned()
            }
            Self::Certificate(_) => {
                "if an authority of your own has signed it, name that with --ca FILE; the host must be one that the \
                 certificate names. There is no way to skip the check"
                    .to_owned()
            }
            Self::Tls(_) => format!("does this port speak TLS? If not, {}", door.plain()),
            Self::WrongDoor(_) => "MCP over HTTP and WebSocket is on the bridge port (3002: /mcp, /ws), lines are on the TCP port \
                                   (9500); try another of `ringwall client http|ws|tcp`"
                .to_owned(),
            Self::Token { sent: false, .. } => {
                format!("set {variable} or RINGWALL_TOKEN to the token, or name a file that holds it with --token-file")
            }
            Self::Token { sent: true, .. } => format!(
                "compare the token with the gateway's {variable}, or its SHA-256 with the agent's token_sha256; is the agent enabled?"
            ),
            Self::Status { retry_after: Some(seconds), .. } => format!("try again after {seconds} s"),
            Self::Status { status: 403, .. } => {
                "the gateway refuses this host name or address: ALLOWED_HOSTS, IP_DENYLIST; its audit log names the rule".to_owned()
            }
            Self::Status { status: 404, .. } => "check the path: MCP is served at /mcp, WebSocket at /ws".to_owned(),
            Self::Status { status: 502..=504, .. } => UPSTREAM.to_owned(),
            Self::Status { .. } => "the gateway's audit log names the rule".to_owned(),
            Self::Refused(_) => "wait a little; limits (connections, rates), blocks and IP_DENYLIST are the gateway's, its audit log names the rule".to_owned(),
            Self::Rpc { message, .. } if message.starts_with("Upstream error") => UPSTREAM.to_owned(),
            Self::Rpc { code: -32022, .. } => "try the other era: with --modern, or without it".to_owned(),
            Self::Rpc { code: -32601, .. } => {
                "the server does not know this method; try the other era: with --modern, or without it".to_owned()
            }
            Self::Rpc { code: -32602, .. } => "check --call and --arguments, or what the server expects of this era".to_owned(),
            Self::Rpc { .. } => "the audit log of the gateway and the log of the server may tell more".to_owned(),
            Self::Protocol(_) => "is this an MCP server? --json shows the messages themselves".to_owned(),
            Self::TooLong => "ask for less at once; the bound is this client's own".to_owned(),
            Self::Closed(_) => "the gateway's log and audit log may say why".to_owned(),
            Self::Timeout { .. } => {
                format!("raise --timeout, or look whether the server behind it hangs: `ringwall health`; {}", door.plain_or_tls())
            }
            Self::Tool(_) => "check --arguments".to_owned(),
        }
    }
}

const UPSTREAM: &str =
    "the server behind the gateway is at fault: `ringwall health` and the gateway's log say how it is";
