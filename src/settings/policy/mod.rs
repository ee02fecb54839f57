//! The policy: what has structure and so stands in a file, `ringwall.toml`.
//!
//! [`Policy`] is the validated form. It is read from TOML by `load.rs` and its siblings, which refuse unknown keys
//! and report every fault at once.

mod access;
mod content;
mod entries;
mod fields;
mod inspect;
pub(super) mod load;
mod pairs;
mod results;
mod upstream;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;
use crate::guard::inspect::Kind;
pub use content::{ContentMode, ContentPolicy, SensitiveMode};
pub use results::{FlagMode, RESULT_BYTES_MAX, ResultsPolicy, SecretsMode};

use crate::state::pins::ToolHash;

/// Everything the policy file says.
#[derive(Clone, PartialEq, Default)]
pub struct Policy {
    /// The servers behind the gateway, by name, sorted.
    pub upstreams: Vec<Upstream>,
    /// The agents that the file knows, by id, sorted.
    pub agents: Vec<Agent>,
    /// What is known of tools, exact names before globs, then the longer pattern first: the first match decides.
    pub tools: Vec<ToolPolicy>,
    /// What several agents share by naming the tier.
    pub tiers: BTreeMap<String, Tier>,
    /// What is said of a kind of principal as a whole.
    pub principals: Principals,
    /// What must not be in texts that go to people.
    pub content: ContentPolicy,
    /// What attacks are looked for.
    pub inspect: InspectPolicy,
    /// What is looked for in what tools answer.
    pub results: ResultsPolicy,
    /// What becomes of tools whose descriptions have changed.
    pub pin: FlagMode,
}

/// A server behind the gateway: `[upstream.NAME]`.
#[derive(Clone, PartialEq)]
pub struct Upstream {
    /// 1–64 characters of `a-z A-Z 0-9 _ -`; prefixes tool names where they collide.
    pub name: String,
    /// Where it is.
    pub target: UpstreamTarget,
    /// How its certificate is checked, where the target is https, wss or tls.
    pub tls: UpstreamTls,
    /// The credential of the vault that it is shown.
    pub credential: Option<UpstreamCredential>,
    /// Headers put into every call to it, or into the handshake of a WebSocket. Names are valid HTTP field names, values have no control characters.
    pub headers: Vec<UpstreamHeader>,
    /// Calls in flight at once, whole process, 1–65,536.
    pub max_in_flight: u32,
    /// Time a connection may take.
    pub connect_timeout: Duration,
    /// Time a call may take until its answer begins.
    pub call_timeout: Duration,
    /// Whether a missing `agentId` argument is put into tool calls.
    pub inject_agent_id: bool,
    /// Idle connections that one worker keeps, 0–4,096.
    pub max_idle_connections: u32,
}

/// Where an upstream is.
#[derive(Clone, Debug, PartialEq)]
pub enum UpstreamTarget {
    /// Streamable HTTP.
    Http(HttpTarget),
    /// A command that speaks MCP on its standard input and output.
    Stdio(StdioTarget),
    /// A server that speaks MCP on a socket of its own.
    Socket(SocketTarget),
}

/// A Streamable HTTP endpoint, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpTarget {
    /// https rather than http.
    pub tls: bool,
    /// Lower case; an IPv6 address without its brackets.
    pub host: String,
    /// 1–65535.
    pub port: u16,
    /// Starts with `/`.
    pub path_and_query: String,
    /// What goes into `Host`: the port only if it is not the scheme's own, IPv6 in brackets.
    pub authority: String,
}

/// `tcp://`, `tls://`, `ws://` or `wss://`, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct SocketTarget {
    /// What stands between two messages.
    pub transport: SocketTransport,
    /// tls or wss rather than tcp or ws.
    pub tls: bool,
    /// Lower case; an IPv6 address without its brackets.
    pub host: String,
    /// 1–65535.
    pub port: u16,
    /// Starts with `/` for WebSocket; empty for lines.
    pub path_and_query: String,
    /// What goes into `Host`: the port only if it is not the scheme's own (lines have none), IPv6 in brackets.
    pub authority: String,
    /// Shared connections at once, 1–64.
    pub max_instances: u8,
}

impl SocketTarget {
    /// The URL's scheme.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match (self.transport, self.tls) {
            (SocketTransport::Lines, false) => "tcp",
            (SocketTransport::Lines, true) => "tls",
            (SocketTransport::WebSocket, false) => "ws",
            (SocketTransport::WebSocket, true) => "wss",
        }
    }
}

/// What carries messages on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketTransport {
    /// One JSON-RPC message a line.
    Lines,
    /// One JSON-RPC message a text frame (RFC 6455).
    WebSocket,
}

/// A command that speaks MCP on its standard input and output.
#[derive(Clone, Debug, PartialEq)]
pub struct StdioTarget {
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// Environment beside the few inherited variables (`INHERITED_ENV`). Values may be secrets.
    pub env: BTreeMap<String, EnvValue>,
    /// Working directory; `None`: the gateway's own.
    pub cwd: Option<PathBuf>,
    /// Processes at once, 1–64.
    pub max_instances: u8,
}

/// The variables that a stdio server inherits from the gateway; nothing else, so that no secret of ours reaches it.
pub const INHERITED_ENV: &[&str] =
    &["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM", "TMPDIR"];

/// The value of an environment variable given to a stdio server: printed as `***`, compared in constant time.
#[derive(Clone, PartialEq)]
pub struct EnvValue(pub Secret);

impl std::fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// How the certificate of an upstream over TLS is checked.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct UpstreamTls {
    /// Certificates to trust instead of the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// Name to expect in the certificate instead of the URL's host.
    pub server_name: Option<String>,
}

/// A header put into every call to an upstream, or into its WebSocket handshake.
#[derive(Clone, PartialEq)]
pub struct UpstreamHeader {
    /// As written in the policy.
    pub name: String,
    /// Always treated as a secret.
    pub value: Secret,
}

/// A credential of the vault, and how an upstream is shown it: in every call, or in the handshake of a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamCredential {
    /// What the vault calls it.
    pub name: String,
    /// How it is carried.
    pub how: CredentialAs,
}

/// How a credential is carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialAs {
    /// `Authorization: Bearer` (RFC 6750).
    Bearer,
    /// `Authorization: Basic`; the credential is `USER:PASSWORD` (RFC 7617).
    Basic,
    /// A header of this name.
    Header(String),
}

impl CredentialAs {
    /// The header that carries it; the client's own of that name goes no further.
    #[must_use]
    pub fn header(&self) -> &str {
        match self {
            Self::Bearer | Self::Basic => "Authorization",
            Self::Header(name) => name,
        }
    }
}

/// An agent: `[agent.ID]`.
#[derive(Clone, PartialEq)]
pub struct Agent {
    /// 1–128 characters of `a-z A-Z 0-9 _ - . : @`.
    pub id: String,
    /// SHA-256 of a token of its own that does not change; others are issued by the admin API.
    pub token_sha256: Option<[u8; 32]>,
    /// A disabled agent's token is refused.
    pub enabled: bool,
    /// Tier whose limits and tools apply where the agent has none of its own. Always one of [`Policy::tiers`].
    pub tier: Option<String>,
    /// Its own limits.
    pub limits: Limits,
    /// The tools that it may list and call.
    pub access: ToolAccess,
}

/// What several agents share: `[tier.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Tier {
    /// For agents that have none of their own.
    pub limits: Limits,
    /// Likewise.
    pub access: ToolAccess,
}

/// What is said of a kind of principal: `[principal.KIND]`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Principals {
    /// Who shows a door's shared token.
    pub door: ToolAccess,
    /// Who shows none, where none is needed.
    pub anonymous: ToolAccess,
    /// Everybody, in `DEMO_MODE`.
    pub demo: ToolAccess,
    /// Agents of whom neither their own entry nor their tier says which tools they may use.
    pub agent: ToolAccess,
}

/// Which tools may be listed and called.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ToolAccess {
    /// Those that may be; `None`: nothing is said of it here.
    pub tools: Option<Vec<ToolPattern>>,
    /// Those that may not be, whatever else is said.
    pub deny_tools: Vec<ToolPattern>,
}

/// Tools of one upstream, or of all: `"NAME"` or `{ upstream = "UPSTREAM", tool = "NAME" }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolPattern {
    /// The upstream whose tools are meant; `None`: any.
    pub upstream: Option<String>,
    /// The upstream's own name of the tool, or a pattern in which `*` stands for any characters.
    pub tool: String,
}

/// Limits that replace the defaults of [`Rates`](super::Rates) where they are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Limits {
    /// Tool calls a minute.
    pub per_minute: Option<u32>,
    /// Tool calls an hour.
    pub per_hour: Option<u32>,
    /// Tool calls a calendar day (UTC).
    pub per_day: Option<u32>,
    /// Voice actions to one number a calendar day (UTC).
    pub same_number_per_day: Option<u32>,
    /// Spend a calendar day (UTC), micro-dollars.
    pub spend_per_day_microusd: Option<u64>,
    /// Spend a calendar month (UTC), micro-dollars.
    pub spend_per_month_microusd: Option<u64>,
}

/// What is known of a tool, or of all tools that a glob matches: `[tool.NAME]`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ToolPolicy {
    /// Name, or a pattern in which `*` stands for any characters.
    pub pattern: String,
    /// Upstream that it applies to; `None`: all.
    pub upstream: Option<String>,
    /// Overrides [`Upstream::inject_agent_id`].
    pub inject_agent_id: Option<bool>,
    /// What the tool does.
    pub kind: Option<ToolKind>,
    /// Argument that names the recipient.
    pub recipient: Option<String>,
    /// Argument that holds the text.
    pub text: Option<String>,
    /// Argument that holds the HTML.
    pub html: Option<String>,
    /// Argument that holds the subject.
    pub subject: Option<String>,
    /// Argument that names an IANA time zone.
    pub time_zone: Option<String>,
    /// Argument that, if true, makes the action record the call.
    pub record: Option<String>,
    /// Argument that announces the recording.
    pub announcement: Option<String>,
    /// What each argument's value is, and so which attacks are looked for in it.
    pub arguments: BTreeMap<String, Kind>,
    /// Overrides the mode of [`Policy::content`].
    pub content: Option<ContentMode>,
    /// Likewise, of secrets and personal numbers.
    pub sensitive: Option<SensitiveMode>,
    /// Classes and rules of inspection that do not apply to it.
    pub exempt: Vec<String>,
    /// The hash of the description that was accepted; for a tool that is named, not for patterns.
    pub pinned: Option<ToolHash>,
    /// What a call costs.
    pub price: Option<Price>,
    /// JSON pointer into the result at which the upstream says what the call cost, in USD.
    pub settle: Option<String>,
    /// Limits of this tool.
    pub limits: Limits,
}

/// What attacks are looked for: `[inspect]`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct InspectPolicy {
    /// Classes and rules that are switched off everywhere.
    pub off: Vec<String>,
    /// Texts that are refused wherever they stand, in either case.
    pub patterns: Vec<String>,
}

/// What a tool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolKind {
    /// Sends a text message.
    Message,
    /// Makes, transfers or joins a call.
    Call,
    /// Sends e-mail.
    Email,
    /// Reads or writes records.
    Records,
    /// Anything else.
    Other,
}

/// What a call costs, in micro-dollars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Price {
    /// The same every time.
    Fixed {
        /// Per call.
        microusd: u64,
    },
    /// By the segments of an SMS.
    PerSegment {
        /// Per segment.
        microusd: u64,
    },
    /// By the minute.
    PerMinute {
        /// Per minute.
        microusd: u64,
        /// What is reserved, and never exceeded.
        max_minutes: u32,
    },
}

impl Policy {
    /// Whether a missing `agentId` is put into calls of `tool` of `upstream`: what the tool's entry says, else the upstream's.
    #[must_use]
    pub fn injects_agent_id(&self, upstream: &str, tool: &str) -> bool {
        self.tool(upstream, tool)
            .and_then(|policy| policy.inject_agent_id)
            .unwrap_or_else(|| self.upstreams.iter().any(|known| known.name == upstream && known.inject_agent_id))
    }

    /// What is known of `tool` of `upstream`: the first of [`Policy::tools`] that matches.
    #[must_use]
    pub fn tool(&self, upstream: &str, tool: &str) -> Option<&ToolPolicy> {
        self.tools.get(self.tool_index(upstream, tool)?)
    }

    /// Where [`Policy::tool`] stands in [`Policy::tools`].
    #[must_use]
    pub fn tool_index(&self, upstream: &str, tool: &str) -> Option<usize> {
        self.tools.iter().position(|policy| {
            policy.upstream.as_deref().is_none_or(|only| only == upstream) && glob_matches(&policy.pattern, tool)
        })
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any characters, none included.
///
/// Takes the last star back on a mismatch, so the time is bounded by the product of the lengths.
#[must_use]
pub fn glob_matches(pattern: &str, text: &str) -> bool {
    glob_matches_by(pattern, text, |wanted, found| wanted == found)
}

/// [`glob_matches`], with letters of ASCII taken for the same in either case.
#[must_use]
pub fn glob_matches_any_case(pattern: &str, text: &str) -> bool {
    glob_matches_by(pattern, text, |wanted, found| wanted.eq_ignore_ascii_case(&found))
}

fn glob_matches_by(pattern: &str, text: &str, same: impl Fn(u8, u8) -> bool) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at_pattern, mut at_text) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(at_pattern), text.get(at_text)) {
            (Some(b'*'), _) => {
                last_star = Some((at_pattern + 1, at_text));
                at_pattern += 1;
            }
            (Some(wanted), Some(found)) if same(*wanted, *found) => {
                at_pattern += 1;
                at_text += 1;
            }
            (None, None) => return true,
            _ => match last_star {
                Some((after_star, from)) if from < text.len() => {
                    last_star = Some((after_star, from + 1));
                    at_pattern = after_star;
                    at_text = from + 1;
                }
                _ => return false,
            },
        }
    }
}
