//! Security events on their way from a worker to the audit log.
//!
//! An [`Event`] has a fixed size and owns no heap, so that a worker records one without allocating; texts that are longer
//! than their field are cut and end in [`CUT_MARK`]. They travel in an [`EventQueue`].
//!
//! No secret belongs into an event: tokens, header values and arguments are never passed here.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use std::fmt;
use std::net::IpAddr;

use arrayvec::ArrayString;

use super::connections::ConnectionId;
use super::lifecycle::Door;
pub use super::queue::{Bell, EventQueue, QUEUE_CAPACITY, QueueFull, Reservation};

/// What a text ends in when it did not fit its field.
pub const CUT_MARK: &str = "…";

/// The client of an event: a connection and its door. Written as `DOOR-ID`; formatting it is left to the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The door it came through.
    pub door: Door,
    /// The connection.
    pub id: ConnectionId,
}

/// An identifier of at most 64 bytes.
pub type ShortText = ArrayString<64>;
/// Free details of at most 128 bytes.
pub type DetailText = ArrayString<128>;

/// Cuts a text to `N` bytes at a character boundary; a cut text ends in [`CUT_MARK`].
#[must_use]
pub fn clip<const N: usize>(text: &str) -> ArrayString<N> {
    let mut out = ArrayString::new();
    if out.try_push_str(text).is_ok() {
        return out;
    }
    let mut end = N.saturating_sub(CUT_MARK.len()).min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let _ = out.try_push_str(text.get(..end).unwrap_or(""));
    let _ = out.try_push_str(CUT_MARK);
    out
}

/// [`clip`] for bytes from outside: what is not UTF-8 becomes U+FFFD. Allocates nothing.
#[must_use]
pub fn clip_bytes<const N: usize>(bytes: &[u8]) -> ArrayString<N> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return clip(text);
    }
    let mut out = ArrayString::<N>::new();
    let room = N.saturating_sub(CUT_MARK.len());
    for chunk in bytes.utf8_chunks() {
        let replaced = if chunk.invalid().is_empty() { None } else { Some(char::REPLACEMENT_CHARACTER) };
        for c in chunk.valid().chars().chain(replaced) {
            if out.len() + c.len_utf8() > room {
                let _ = out.try_push_str(CUT_MARK);
                return out;
            }
            let _ = out.try_push(c);
        }
    }
    out
}

macro_rules! event_kinds {
    ($($(#[$doc:meta])* $name:ident = $wire:literal, $severity:ident;)*) => {
        /// What happened. The names on the wire are part of the audit contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum EventKind { $($(#[$doc])* $name,)* }

        impl EventKind {
            /// Every kind there is.
            pub const ALL: &'static [EventKind] = &[$(EventKind::$name,)*];

            /// The `event` field of the audit line.
            #[must_use]
            pub const fn wire_name(self) -> &'static str {
                match self { $(EventKind::$name => $wire,)* }
            }

            /// The severity an event of this kind has unless its author says otherwise.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(EventKind::$name => Severity::$severity,)* }
            }
        }
    };
}

event_kinds! {
    /// A connection passed admission and authentication.
    ConnectionEstablished = "connection_established", Info;
    /// A connection ended.
    ConnectionClosed = "connection_closed", Info;
    /// A connection was idle, or slow, for too long.
    ConnectionTimeout = "connection_timeout", Low;
    /// A door or an address has as many connections as it may have.
    ConnectionLimit = "connection_limit", Medium;
    /// A connection from a denied or blocked address. Its details begin with `BLOCKED`.
    BlockedConnection = "blocked_connection", Medium;
    /// A credential was missing, wrong or revoked.
    InvalidAuth = "invalid_auth", Medium;
    /// A credential was accepted.
    AuthSuccess = "auth_success", Info;
    /// An address is locked out after repeated failures.
    Lockout = "lockout", High;
    /// A rate limit refused something.
    RateLimitExceeded = "rate_limit_exceeded", Low;
    /// A message was malformed or failed sanitization.
    InvalidInput = "invalid_input", Medium;
    /// The content filter refused a message.
    ContentBlocked = "content_blocked", Medium;
    /// A rule of compliance, or of who may do what, refused a message.
    ComplianceBlocked = "compliance_blocked", Medium;
    /// A spend was settled.
    SpendRecorded = "spend_recorded", Info;
    /// A token was issued.
    TokenIssued = "token_issued", Info;
    /// A token was revoked.
    TokenRevoked = "token_revoked", Low;
    /// A refresh token was used twice.
    RefreshReuse = "refresh_reuse", High;
    /// A stored credential was read.
    CredentialRead = "credential_read", Low;
    /// A webhook's signature was wrong.
    WebhookRejected = "webhook_rejected", Medium;
    /// A circuit breaker opened.
    BreakerOpened = "breaker_opened", Medium;
    /// A circuit breaker closed again.
    BreakerClosed = "breaker_closed", Info;
    /// New settings took effect, or were refused.
    ConfigReloaded = "config_reloaded", Info;
    /// An anomaly was found.
    Alert = "alert", High;
    /// Someone's data was erased.
    Erasure = "erasure", Medium;
    /// The gateway started.
    ServerStart = "server_start", Info;
    /// The gateway is shutting down.
    ServerShutdown = "server_shutdown", Info;
    /// The audit trail begins, goes on in another file, or ends in good order.
    Checkpoint = "checkpoint", Info;
    /// A tool call was forwarded and has ended.
    ToolCall = "tool_call", Info;
}

impl EventKind {
    /// Whether the line is written at once, rather than with the group that gathers: what was given out or taken for good. Only what
    /// is rare, or worth a sync of its own, belongs here.
    #[must_use]
    pub const fn is_pressing(self) -> bool {
        matches!(
            self,
            Self::SpendRecorded | Self::TokenIssued | Self::TokenRevoked | Self::RefreshReuse | Self::Erasure
        )
    }
}

/// How serious an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Normal operation.
    Info,
    /// Worth counting.
    Low,
    /// Worth a look.
    Medium,
    /// Worth an alert.
    High,
    /// Worth waking someone.
    Critical,
}

impl Severity {
    /// All of them, the least first.
    pub const ALL: &'static [Severity] =
        &[Severity::Info, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];

    /// The `severity` field of the audit line.
    #[must_use]
    pub const fn wire_name(self) -> &'static str {
        match self {
            Severity::Info => "INFO",
            Severity::Low => "LOW",
            Severity::Medium => "MEDIUM",
            Severity::High => "HIGH",
            Severity::Critical => "CRITICAL",
        }
    }
}

/// How a call ended: the `outcome` of audit lines and metric labels alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The upstream answered with a result.
    Ok,
    /// The upstream answered with a result that says `isError`.
    ToolError,
    /// The upstream answered with a JSON-RPC error.
    RpcError,
    /// A guard refused the call; it was not forwarded.
    Refused,
    /// The upstream could not be reached, broke the protocol or cut the answer short.
    UpstreamError,
    /// The upstream did not answer in time.
    Timeout,
    /// The client went away or cancelled.
    Cancelled,
}

impl Outcome {
    /// Every outcome there is, in the order of [`Outcome::index`].
    pub const ALL: &'static [Outcome] = &[
        Outcome::Ok,
        Outcome::ToolError,
        Outcome::RpcError,
        Outcome::Refused,
        Outcome::UpstreamError,
        Outcome::Timeout,
        Outcome::Cancelled,
    ];

    /// The name on the wire and in labels.
    #[must_use]
    pub const fn wire_name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::ToolError => "tool_error",
            Outcome::RpcError => "rpc_error",
            Outcome::Refused => "refused",
            Outcome::UpstreamError => "upstream_error",
            Outcome::Timeout => "timeout",
            Outcome::Cancelled => "cancelled",
        }
    }

    /// The position in [`Outcome::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// How a forwarded call ended, for `tool_call` events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallEnd {
    /// What became of it.
    pub outcome: Outcome,
    /// The HTTP status the client got; 0 on doors that have none.
    pub status: u16,
    /// From the first byte of the request read to the last byte of the answer written, microseconds.
    pub duration_us: u64,
}

/// One security event. Built with [`Event::new`] and the `with_` methods; empty fields are left out of the line.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// How serious it is.
    pub severity: Severity,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// The client, once it has a connection.
    pub client: Option<Client>,
    /// The agent's id, once known.
    pub agent: ShortText,
    /// The tool that was called.
    pub tool: ShortText,
    /// The rule that decided, empty if none did.
    pub rule: &'static str,
    /// The JSON-RPC id as the client wrote it.
    pub request_id: ShortText,
    /// What else there is to say, for a person.
    pub details: DetailText,
    /// How the call ended.
    pub call: Option<CallEnd>,
}

impl Event {
    /// An event of `kind` at `at_ms` (milliseconds since the Unix epoch) with the kind's own severity.
    #[must_use]
    pub fn new(kind: EventKind, at_ms: u64) -> Self {
        Self {
            kind,
            severity: kind.severity(),
            at_ms,
            ip: None,
            client: None,
            agent: ShortText::new(),
            tool: ShortText::new(),
            rule: "",
            request_id: ShortText::new(),
            details: DetailText::new(),
            call: None,
        }
    }

    /// Another severity than the kind's own.
    #[must_use]
    pub fn with_severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// The client's address.
    #[must_use]
    pub fn with_ip(mut self, ip: IpAddr) -> Self {
        self.ip = Some(ip);
        self
    }

    /// The connection that it is about.
    #[must_use]
    pub fn with_client(mut self, door: Door, id: ConnectionId) -> Self {
        self.client = Some(Client { door, id });
        self
    }

    /// The agent's id, cut to 64 bytes.
    #[must_use]
    pub fn with_agent(mut self, agent: &str) -> Self {
        self.agent = clip(agent);
        self
    }

    /// The tool's name as bytes from outside, cut to 64 bytes.
    #[must_use]
    pub fn with_tool(mut self, tool: &[u8]) -> Self {
        self.tool = clip_bytes(tool);
        self
    }

    /// The rule that decided.
    #[must_use]
    pub fn with_rule(mut self, rule: &'static str) -> Self {
        self.rule = rule;
        self
    }

    /// The raw bytes of the JSON-RPC id, quotes included, cut to 64 bytes.
    #[must_use]
    pub fn with_request_id(mut self, raw: &[u8]) -> Self {
        self.request_id = clip_bytes(raw);
        self
    }

    /// Details for a person, cut to 128 bytes. `format_args!` fits: nothing is allocated.
    #[must_use]
    pub fn with_details(mut self, details: fmt::Arguments<'_>) -> Self {
        let mut sink = ClipWriter { out: DetailText::new(), cut: false };
        let _ = fmt::write(&mut sink, details);
        self.details = sink.finish();
        self
    }

    /// How the call ended.
    #[must_use]
    pub fn with_call(mut self, outcome: Outcome, status: u16, duration_us: u64) -> Self {
        self.call = Some(CallEnd { outcome, status, duration_us });
        self
    }
}

/// Collects formatted text up to the field's size, then notes that something was cut.
struct ClipWriter {
    out: DetailText,
    cut: bool,
}

impl ClipWriter {
    fn finish(mut self) -> DetailText {
        if self.cut {
            while self.out.remaining_capacity() < CUT_MARK.len() && self.out.pop().is_some() {}
            let _ = self.out.try_push_str(CUT_MARK);
        }
        self.out
    }
}

impl fmt::Write for ClipWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.out.try_push(c).is_err() {
                self.cut = true;
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
