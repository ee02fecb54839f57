//! The settings tree: what the rest of the program reads.
//!
//! Everything here has been validated as a whole by [`Settings::load`](super::Settings::load) and never changes
//! afterwards; a reload builds a new tree. Durations are [`Duration`]s, sizes are bytes, money is micro-dollars
//! (1 USD = 1,000,000). The names of the variables behind the fields stand in `table/`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::policy::Policy;
use super::secret::Secret;

/// The whole tree.
#[derive(Clone, PartialEq)]
pub struct Settings {
    /// Development or production.
    pub profile: Profile,
    /// Listeners, their limits and timeouts.
    pub doors: Doors,
    /// Who may come in.
    pub auth: Auth,
    /// How much anyone may do.
    pub rates: Rates,
    /// TLS of the front doors.
    pub tls: Tls,
    /// What browsers are told: CORS and security headers.
    pub browser: Browser,
    /// When an upstream is cut off.
    pub breaker: Breaker,
    /// What is kept, where and for how long.
    pub records: Records,
    /// The credential vault.
    pub vault: Vault,
    /// Inbound webhooks and outbound alerts.
    pub webhooks: Webhooks,
    /// What happens to input that looks like an attack.
    pub sanitize: SanitizeMode,
    /// Logging.
    pub log: Log,
    /// Metrics.
    pub metrics: Metrics,
    /// OpenTelemetry.
    pub otlp: Otlp,
    /// What the policy file says.
    pub policy: Policy,
}

/// `RINGWALL_ENV`: which set of defaults and refusals applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Profile {
    /// Convenient defaults; dangerous settings are warned of.
    #[default]
    Development,
    /// Strict defaults; dangerous settings are refused.
    Production,
}

/// Listeners, their limits and timeouts.
#[derive(Clone, Debug, PartialEq)]
pub struct Doors {
    /// Address of the bridge, TCP and health listeners.
    pub bind_address: IpAddr,
    /// HTTP and WebSocket. 0 takes any free port.
    pub bridge_port: u16,
    /// Line-delimited JSON-RPC. 0 takes any free port.
    pub tcp_port: u16,
    /// Health. 0 takes any free port.
    pub health_port: u16,
    /// Address of the control plane.
    pub admin_bind_address: IpAddr,
    /// Admin API, admin page and metrics. 0 takes any free port.
    pub admin_port: u16,
    /// Data-plane threads, 1–1024; `None` means one per usable core.
    pub workers: Option<usize>,
    /// What workers wait on.
    pub io_driver: IoDriver,
    /// Peers whose `X-Forwarded-For` or PROXY header is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// HTTP and WebSocket connections open at once, whole process.
    pub bridge_max_connections: u32,
    /// TCP connections open at once, whole process.
    pub tcp_max_connections: u32,
    /// Connections of one IP open at once over all front doors.
    pub max_connections_per_ip: u32,
    /// Idleness after which a WebSocket or HTTP connection is closed.
    pub ws_idle_timeout: Duration,
    /// Idleness after which a TCP connection is closed.
    pub tcp_idle_timeout: Duration,
    /// Time a client has to send a request's header section.
    pub header_timeout: Duration,
    /// Time a client has to send a request's body.
    pub body_timeout: Duration,
    /// Time a client has to take what was sent to it.
    pub write_timeout: Duration,
    /// Time calls in flight have to finish at shutdown.
    pub drain_timeout: Duration,
    /// Largest HTTP body, bytes. Never above `max_buffer_size`.
    pub max_request_size: u32,
    /// Largest JSON-RPC message on WebSocket or TCP, bytes. Never above `max_buffer_size`.
    pub max_message_size: u32,
    /// All unread and unsent bytes of one connection.
    pub max_buffer_size: u32,
    /// Deepest nesting of JSON, 1–1024.
    pub max_json_depth: u32,
    /// Hosts that the `Host` header may name, lower case, with or without a port. Empty: the bound addresses and
    /// localhost.
    pub allowed_hosts: Vec<String>,
    /// How a refused `tools/call` is told to the client.
    pub denial_style: DenialStyle,
    /// Whether `/sse?token=` is accepted.
    pub sse_query_token: bool,
    /// Life of a sealed MCP session id.
    pub session_ttl: Duration,
}

/// `DENIAL_STYLE`: how a refused `tools/call` is told to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DenialStyle {
    /// A tool result with `isError`, so that the model can read why.
    #[default]
    ToolResult,
    /// A JSON-RPC error.
    JsonRpcError,
}

/// Who may come in.
#[derive(Clone, PartialEq)]
pub struct Auth {
    /// Whether HTTP and WebSocket need a token. `false` only in development on a loopback address.
    pub enabled: bool,
    /// Shared service token of the HTTP and WebSocket door.
    pub door_token: Option<Secret>,
    /// Shared service token of the TCP door.
    pub tcp_token: Option<Secret>,
    /// Token of the admin API. `None`: it answers 503.
    pub orchestrator_token: Option<Secret>,
    /// Every authentication is bypassed. Only in development.
    pub demo_mode: bool,
    /// HS256 key. `None`: no JWT is issued or accepted.
    pub jwt_secret: Option<Secret>,
    /// Life of an access token.
    pub jwt_access_ttl: Duration,
    /// Life of a refresh token.
    pub jwt_refresh_ttl: Duration,
    /// Whose tokens are accepted beside our own.
    pub issuer: Option<OutsideIssuer>,
    /// Idleness after which a session ends.
    pub session_timeout: Duration,
    /// How often ended sessions are cleared away.
    pub session_cleanup_interval: Duration,
    /// Sessions of one client at once.
    pub max_concurrent_sessions: u32,
    /// Failed authentications of one IP within 15 minutes until lockout.
    pub max_failed_attempts: u32,
    /// Lockout after failed authentications.
    pub block_duration: Duration,
    /// Whether an IP that keeps breaking rate limits is blocked.
    pub auto_block_enabled: bool,
    /// How long such a block lasts.
    pub abuse_block_duration: Duration,
    /// Who may reach the admin API; empty: anyone with the token.
    pub admin_ip_allowlist: Vec<IpNet>,
    /// Who may deliver webhooks; empty: anyone with a valid signature.
    pub webhook_ip_allowlist: Vec<IpNet>,
    /// Who is refused on every listener.
    pub ip_denylist: Vec<IpNet>,
}

/// An issuer of tokens outside of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideIssuer {
    /// Where it publishes its keys: https, or http on a loopback address.
    pub jwks_url: String,
    /// `iss` of its tokens.
    pub issuer: String,
    /// What `aud` of its tokens must name.
    pub audience: String,
    /// The claim that is the agent's id.
    pub agent_claim: String,
}

/// How much anyone may do. The numbers are those in force, the profile's factor included.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// `false` switches request and message limits off, never the spend caps.
    pub enabled: bool,
    /// Requests of one IP a minute.
    pub http_per_ip: u32,
    /// Requests of everyone a minute.
    pub http_global: u32,
    /// Length of the window of one client.
    pub client_window: Duration,
    /// Messages of one client in that window.
    pub client_max: u32,
    /// Messages of one client in any second.
    pub client_burst: u32,
    /// Tool calls of one agent a minute.
    pub agent_per_minute: u32,
    /// Tool calls of one agent an hour.
    pub agent_per_hour: u32,
    /// Tool calls of one agent a calendar day (UTC).
    pub agent_per_day: u32,
    /// Voice actions of one agent to one number a calendar day (UTC).
    pub same_number_per_day: u32,
    /// Spend of one agent a calendar day (UTC), micro-dollars.
    pub spend_per_day_microusd: u64,
    /// Spend of one agent a calendar month (UTC), micro-dollars.
    pub spend_per_month_microusd: u64,
}

/// TLS of the front doors.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// What is needed to serve TLS; `None`: plain text.
    pub server: Option<TlsServer>,
    /// A load balancer in front terminates TLS.
    pub terminated_upstream: bool,
}

/// What is needed to serve TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsServer {
    /// Certificate chain, PEM.
    pub cert_path: PathBuf,
    /// Private key, PEM.
    pub key_path: PathBuf,
    /// Oldest version accepted.
    pub min_version: TlsVersion,
    /// IANA names, in order of preference; empty: the library's safe set.
    pub cipher_suites: Vec<&'static str>,
    /// Client certificates.
    pub client_auth: ClientAuth,
}

/// `TLS_MIN_VERSION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// What happens to client certificates.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientAuth {
    /// None is asked for.
    Off,
    /// Asked for, and verified against this CA file (PEM) if one comes.
    Optional(PathBuf),
    /// Asked for, verified against this CA file (PEM), and a client without one is refused.
    Required(PathBuf),
}

/// What browsers are told.
#[derive(Clone, Debug, PartialEq)]
pub struct Browser {
    /// Whether CORS headers are sent at all.
    pub cors_enabled: bool,
    /// Which origins are allowed.
    pub origins: Origins,
    /// `Access-Control-Allow-Methods`, upper case.
    pub allowed_methods: Vec<String>,
    /// `Access-Control-Allow-Headers`.
    pub allowed_headers: Vec<String>,
    /// Whether the security headers below are sent at all.
    pub security_headers: bool,
    /// `Strict-Transport-Security: max-age=…`; `None`: not sent.
    pub hsts_max_age: Option<Duration>,
    /// Whether `Content-Security-Policy` is sent.
    pub csp_enabled: bool,
    /// `X-Frame-Options`: `DENY` or `SAMEORIGIN`.
    pub x_frame_options: &'static str,
}

/// Which origins a browser may call from.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Origins {
    /// `*` was given. Never in production.
    pub any: bool,
    /// Any scheme and port of localhost, 127.0.0.0/8 and ::1. Only in development.
    pub any_localhost: bool,
    /// Exact origins, `scheme://host[:port]`, lower case, without a default port.
    pub exact: BTreeSet<String>,
}

/// When an upstream is cut off.
#[derive(Clone, Debug, PartialEq)]
pub struct Breaker {
    /// `false`: no upstream is ever cut off.
    pub enabled: bool,
    /// Failures in a row until the breaker opens.
    pub failure_threshold: u32,
    /// Time a call may take before it counts as failed.
    pub timeout: Duration,
    /// Time the breaker stays open before a probe.
    pub reset_timeout: Duration,
}

/// What is kept, where and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Records {
    /// Whether the security audit trail is written.
    pub audit_enabled: bool,
    /// Directory of the audit trail.
    pub audit_dir: PathBuf,
    /// Directory of the embedded database, 0700.
    pub data_dir: PathBuf,
    /// Whether anomalies are looked for.
    pub anomaly_detector: bool,
    /// Days that usage logs are kept.
    pub usage_logs_days: u32,
    /// Days that call logs are kept.
    pub call_logs_days: u32,
    /// Days that revoked consent is kept.
    pub revoked_consent_days: u32,
}

/// The credential vault.
#[derive(Clone, PartialEq, Default)]
pub struct Vault {
    /// AES-256 key, 32 bytes. `None`: the vault is locked.
    pub key: Option<Secret>,
    /// The key before: what is still under it can be read, and is not written any more.
    pub previous: Option<Secret>,
}

/// Inbound webhooks and outbound alerts.
#[derive(Clone, PartialEq, Default)]
pub struct Webhooks {
    /// `None`: Twilio webhooks answer 503.
    pub twilio_auth_token: Option<Secret>,
    /// Keys (decoded from `whsec_…`), any of which may have signed. Empty: Resend webhooks answer 503.
    pub resend_secrets: Vec<Secret>,
    /// Public URL that Twilio signs, without a trailing slash.
    pub base_url: Option<String>,
    /// Where HIGH and CRITICAL alerts are posted. The whole URL is a secret: such URLs often carry a key.
    pub alert_url: Option<Secret>,
    /// Keys (decoded from `whsec_…`) that sign alerts; each adds a signature. Empty: alerts go out unsigned.
    pub alert_secrets: Vec<Secret>,
}

/// `SANITIZE_MODE`: what happens to input that looks like an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SanitizeMode {
    /// Refused.
    #[default]
    Block,
    /// Recorded and let pass.
    Monitor,
    /// Not looked for.
    Off,
}

/// Logging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Least severe level that is written.
    pub level: LogLevel,
    /// How lines look.
    pub format: LogFormat,
}

/// `MCP_LOG_FORMAT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `IO_DRIVER`: what workers wait on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IoDriver {
    /// io_uring where the kernel lets us, else epoll.
    #[default]
    Auto,
    /// epoll.
    Epoll,
}

/// `MCP_LOG_LEVEL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Errors only.
    Error,
    /// And warnings.
    Warn,
    /// And what happens in normal running.
    Info,
    /// And details for finding faults.
    Debug,
    /// Everything.
    Trace,
}

/// OpenTelemetry.
#[derive(Clone, PartialEq)]
pub struct Otlp {
    /// Collector, without a trailing slash; `None`: nothing is sent.
    pub endpoint: Option<String>,
    /// `name=value`, separated by commas.
    pub headers: Option<Secret>,
    /// What the gateway is called there.
    pub service_name: String,
    /// Share of calls that become spans, 0 to 1.
    pub trace_ratio: f64,
    /// Time between two sendings of metrics.
    pub metric_interval: Duration,
}

/// Metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// Whether metrics are served on the admin listener.
    pub enabled: bool,
    /// Their path; starts with `/`.
    pub path: String,
}
