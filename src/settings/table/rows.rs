//! The rows. Each: name, type, reader, what a value looks like, defaults in development and production, an example that
//! is accepted, meaning.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::{Kind, Row, Setting, Spec, settings};
use super::{parse, parse_secret};
use crate::settings::secret::Secret;
use crate::settings::tree::{DenialStyle, IoDriver, LogFormat, LogLevel, Origins, Profile, SanitizeMode, TlsVersion};

const PORT: Kind = Kind::Whole { min: 0, max: 65_535, unit: "" };
const COUNT: Kind = Kind::Whole { min: 1, max: 10_000_000, unit: "" };
const COUNT_OR_NONE: Kind = Kind::Whole { min: 0, max: 1_000_000_000, unit: "" };
/// Up to a day.
const MS: Kind = Kind::Whole { min: 1, max: 86_400_000, unit: "ms" };
/// Up to ten years.
const SECONDS: Kind = Kind::Whole { min: 1, max: 315_360_000, unit: "s" };
/// Up to 1 GiB, so that every length within a buffer fits 32 bits.
const BYTES: Kind = Kind::Whole { min: 1, max: 1 << 30, unit: "bytes" };
/// Up to a hundred years.
const DAYS: Kind = Kind::Whole { min: 1, max: 36_500, unit: "days" };

settings! {
    "Profile and policy" {
        RINGWALL_ENV alias NODE_ENV: Profile = parse::profile, Kind::Word(&["development", "production"]), ["development", "development"],
            "production", "Profile: development has convenient defaults, production strict ones, and refuses placeholder secrets.";
        RINGWALL_POLICY: PathBuf = parse::file, Kind::File, ["ringwall.toml", "ringwall.toml"],
            "/etc/ringwall/ringwall.toml", "Policy file: upstreams, agents, tools. The default is read only if it exists; a file named here must exist.";
    }
    "Front doors" {
        MCP_BRIDGE_PORT: u16 = parse::whole, PORT, ["3002", "3002"],
            "3002", "HTTP and WebSocket listener: /mcp, /ws, /health. 0 takes any free port.";
        MCP_TCP_PORT: u16 = parse::whole, PORT, ["9500", "9500"],
            "9500", "Line-delimited JSON-RPC listener. 0 takes any free port.";
        MCP_HEALTH_PORT: u16 = parse::whole, PORT, ["9501", "9501"],
            "9501", "Health listener. 0 takes any free port.";
        ADMIN_PORT: u16 = parse::whole, PORT, ["3003", "3003"],
            "3003", "Control plane: admin API, admin page, metrics. 0 takes any free port.";
        BIND_ADDRESS: IpAddr = parse::address, Kind::Address, ["127.0.0.1", "0.0.0.0"],
            "0.0.0.0", "Address of the bridge, TCP and health listeners.";
        ADMIN_BIND_ADDRESS: IpAddr = parse::address, Kind::Address, ["127.0.0.1", "127.0.0.1"],
            "127.0.0.1", "Address of the control plane.";
        WORKERS: Option<usize> = parse::whole_or_auto, Kind::WholeOrAuto { min: 1, max: 1024 }, ["auto", "auto"],
            "4", "Data-plane threads, each pinned to a core. auto: one per usable core.";
        IO_DRIVER: IoDriver = parse::io_driver, Kind::Word(&["auto", "epoll"]), ["auto", "auto"],
            "epoll", "What workers wait on: io_uring where the kernel allows it, else epoll.";
        TRUSTED_PROXIES: Vec<IpNet> = parse::networks, Kind::Networks, ["", ""],
            "10.0.0.0/8,fd00::/8", "Peers whose X-Forwarded-For or PROXY protocol header is believed; from anyone else it is ignored.";
        WS_MAX_CONNECTIONS: u32 = parse::whole, COUNT, ["100", "100"],
            "100", "HTTP and WebSocket connections open at once, whole process.";
        TCP_MAX_CONNECTIONS: u32 = parse::whole, COUNT, ["50", "50"],
            "50", "TCP connections open at once, whole process.";
        MAX_CONNECTIONS_PER_IP: u32 = parse::whole, COUNT, ["32", "32"],
            "32", "Connections of one address open at once, over all front doors.";
        WS_CONNECTION_TIMEOUT: Duration = parse::millis, MS, ["300000", "300000"],
            "300000", "Idleness after which a WebSocket or kept-alive HTTP connection is closed, milliseconds.";
        TCP_CONNECTION_TIMEOUT: Duration = parse::millis, MS, ["300000", "300000"],
            "300000", "Idleness after which a TCP connection is closed, milliseconds.";
        HEADER_TIMEOUT: Duration = parse::millis, MS, ["10000", "10000"],
            "10000", "Time a client has to send a request's header section, milliseconds.";
        BODY_TIMEOUT: Duration = parse::millis, MS, ["30000", "30000"],
            "30000", "Time a client has to send a request's body, milliseconds.";
        WRITE_TIMEOUT: Duration = parse::millis, MS, ["30000", "30000"],
            "30000", "Time a client has to take what was sent to it, milliseconds.";
        DRAIN_TIMEOUT: Duration = parse::millis, Kind::Whole { min: 0, max: 3_600_000, unit: "ms" }, ["30000", "30000"],
            "30000", "Time that calls in flight have to finish at shutdown, milliseconds.";
        MAX_REQUEST_SIZE: u32 = parse::whole, BYTES, ["10485760", "10485760"],
            "10485760", "Largest HTTP body, bytes. At most MAX_BUFFER_SIZE.";
        MAX_MESSAGE_SIZE: u32 = parse::whole, BYTES, ["1048576", "1048576"],
            "1048576", "Largest JSON-RPC message on WebSocket or TCP, bytes. At most MAX_BUFFER_SIZE.";
        MAX_BUFFER_SIZE: u32 = parse::whole, Kind::Whole { min: 65_536, max: 1 << 30, unit: "bytes" }, ["16777216", "16777216"],
            "16777216", "All unread and unsent bytes of one connection.";
        MAX_JSON_DEPTH: u32 = parse::whole, Kind::Whole { min: 1, max: 1024, unit: "" }, ["64", "64"],
            "64", "Deepest nesting of a JSON message.";
        ALLOWED_HOSTS: Vec<String> = parse::hosts, Kind::Hosts, ["", ""],
            "mcp.example.com,mcp.example.com:8443", "Hosts that the Host header may name. None: the bound addresses and localhost.";
        DENIAL_STYLE: DenialStyle = parse::denial_style, Kind::Word(&["tool-result", "jsonrpc-error"]), ["tool-result", "tool-result"],
            "tool-result", "How a refused tools/call is told: tool-result lets the model read why, jsonrpc-error is an error to the client.";
        SSE_QUERY_TOKEN: bool = parse::flag, Kind::Flag, ["false", "false"],
            "false", "Accept /sse?token=, which old clients need. A token in a URL is never logged.";
        MCP_SESSION_TTL: Duration = parse::seconds, SECONDS, ["86400", "86400"],
            "86400", "Life of an MCP session id, seconds.";
    }
    "Authentication" {
        WS_AUTH_ENABLED: bool = parse::flag, Kind::Flag, ["true", "true"],
            "true", "Whether HTTP and WebSocket need a token. false only in development, and only on a loopback address.";
        WS_AUTH_TOKEN: Option<Secret> = parse_secret::secret, Kind::Secret, ["", ""],
            "b1946ac92492d2347c6235b4d2611184b1946ac92492d234", "Shared service token of the HTTP and WebSocket door.";
        TCP_AUTH_TOKEN: Option<Secret> = parse_secret::secret, Kind::Secret, ["", ""],
            "b1946ac92492d2347c6235b4d2611184b1946ac92492d234", "Shared service token of the TCP door.";
        ORCHESTRATOR_SECURITY_TOKEN alias MASTER_SECURITY_TOKEN: Option<Secret> = parse_secret::secret, Kind::Secret, ["", ""],
            "b1946ac92492d2347c6235b4d2611184b1946ac92492d234", "Token of the admin API, billing and provider configuration. None: the admin API answers 503.";
        DEMO_MODE: bool = parse::flag, Kind::Flag, ["false", "false"],
            "false", "Every authentication is bypassed. Refused in production.";
        JWT_SECRET: Option<Secret> = parse_secret::secret, Kind::Secret, ["", ""],
            "b1946ac92492d2347c6235b4d2611184b1946ac92492d234", "HS256 key, at least 32 characters. None: no JWT is issued or accepted.";
        JWT_ACCESS_TTL: Duration = parse::seconds, SECONDS, ["900", "900"],
            "900", "Life of an access token, seconds.";
        JWT_REFRESH_TTL: Duration = parse::seconds, SECONDS, ["1209600", "1209600"],
            "1209600", "Life of a refresh token, seconds. At least JWT_ACCESS_TTL.";
        JWKS_URL: Option<String> = parse::optional_url, Kind::Url, ["", ""],
            "https://id.example.com/.well-known/jwks.json", "Keys of an outside issuer whose tokens are accepted as agents' (RS256, ES256, EdDSA). Needs JWT_ISSUER and JWT_AUDIENCE.";
        JWT_ISSUER: Option<String> = parse::optional_name, Kind::Name, ["", ""],
            "https://id.example.com/", "The iss of that issuer's tokens, letter for letter.";
        JWT_AUDIENCE: Option<String> = parse::optional_name, Kind::Name, ["", ""],
            "https://mcp.example.com/mcp", "What the aud of that issuer's tokens must name.";
        JWT_AGENT_CLAIM: String = parse::name, Kind::Name, ["sub", "sub"],
            "azp", "The claim of that issuer's tokens that is the agent's id.";
        SESSION_TIMEOUT: Duration = parse::millis, MS, ["1800000", "1800000"],
            "1800000", "Idleness after which a session ends, milliseconds.";
        SESSION_CLEANUP_INTERVAL: Duration = parse::millis, MS, ["300000", "300000"],
            "300000", "How often ended sessions are cleared away, milliseconds.";
        MAX_CONCURRENT_SESSIONS: u32 = parse::whole, COUNT, ["10", "10"],
            "10", "Sessions of one client at once.";
        MAX_FAILED_ATTEMPTS: u32 = parse::whole, COUNT, ["10", "10"],
            "10", "Failed authentications of one address within 15 minutes until it is locked out.";
        BLOCK_DURATION: Duration = parse::millis, MS, ["900000", "900000"],
            "900000", "Lockout after failed authentications, milliseconds.";
        AUTO_BLOCK_ENABLED: bool = parse::flag, Kind::Flag, ["true", "true"],
            "true", "Whether an address that keeps breaking rate limits is blocked.";
        ABUSE_BLOCK_DURATION: Duration = parse::millis, MS, ["300000", "300000"],
            "300000", "How long such a block lasts, milliseconds.";
        ADMIN_IP_ALLOWLIST: Vec<IpNet> = parse::networks, Kind::Networks, ["", ""],
            "192.0.2.0/24", "Who may reach the admin API. None: anyone with its token.";
        WEBHOOK_IP_ALLOWLIST: Vec<IpNet> = parse::networks, Kind::Networks, ["", ""],
            "198.51.100.7", "Who may deliver webhooks. None: anyone with a valid signature.";
        IP_DENYLIST: Vec<IpNet> = parse::networks, Kind::Networks, ["", ""],
            "203.0.113.0/24,2001:db8::/32", "Who is refused on every listener.";
    }
    "Rates" {
        RATE_LIMIT_ENABLED: bool = parse::flag, Kind::Flag, ["true", "true"],
            "true", "false switches every request and message limit off, never the spend caps.";
        HTTP_RATE_LIMIT_PER_IP: u32 = parse::whole, COUNT, ["6000", "60"],
            "60", "HTTP requests of one address a minute, sliding.";
        HTTP_RATE_LIMIT_GLOBAL: u32 = parse::whole, COUNT, ["10000", "100"],
            "100", "HTTP requests of everyone a minute, sliding.";
        RATE_LIMIT_WINDOW_MS: Duration = parse::millis, MS, ["60000", "60000"],
            "60000", "Length of a client's message window, milliseconds, sliding.";
        RATE_LIMIT_MAX_REQUESTS: u32 = parse::whole, COUNT, ["10000", "100"],
            "100", "Messages of one client (principal, or address without one) in that window.";
        RATE_LIMIT_BURST_REQUESTS: u32 = parse::whole, COUNT, ["2000", "20"],
            "20", "Messages of one client in any second, beside the window.";
        DEFAULT_MAX_ACTIONS_PER_MINUTE: u32 = parse::whole, COUNT_OR_NONE, ["10", "10"],
            "10", "Tool calls of one agent a minute, sliding.";
        DEFAULT_MAX_ACTIONS_PER_HOUR: u32 = parse::whole, COUNT_OR_NONE, ["100", "100"],
            "100", "Tool calls of one agent an hour, sliding.";
        DEFAULT_MAX_ACTIONS_PER_DAY: u32 = parse::whole, COUNT_OR_NONE, ["500", "500"],
            "500", "Tool calls of one agent a calendar day, UTC.";
        DEFAULT_MAX_CALLS_PER_DAY_SAME_NUMBER: u32 = parse::whole, COUNT_OR_NONE, ["2", "2"],
            "2", "Voice actions of one agent to one number a calendar day, UTC.";
        DEFAULT_MAX_SPEND_PER_DAY: u64 = parse::usd, Kind::Usd, ["10", "10"],
            "10", "Spend of one agent a calendar day, UTC, US dollars.";
        DEFAULT_MAX_SPEND_PER_MONTH: u64 = parse::usd, Kind::Usd, ["100", "100"],
            "100", "Spend of one agent a calendar month, UTC, US dollars.";
    }
    "Transport security" {
        SSL_ENABLED: bool = parse::flag, Kind::Flag, ["false", "false"],
            "true", "Whether the front doors speak TLS. Needed in production unless TLS_TERMINATED_UPSTREAM=true.";
        SSL_CERT_PATH: Option<PathBuf> = parse::optional_file, Kind::File, ["", ""],
            "/etc/ringwall/tls/fullchain.pem", "Certificate chain, PEM.";
        SSL_KEY_PATH: Option<PathBuf> = parse::optional_file, Kind::File, ["", ""],
            "/etc/ringwall/tls/privkey.pem", "Private key, PEM.";
        SSL_CA_PATH: Option<PathBuf> = parse::optional_file, Kind::File, ["", ""],
            "/etc/ringwall/tls/clients-ca.pem", "CA, PEM, that client certificates are verified against.";
        TLS_MIN_VERSION: TlsVersion = parse::tls_version, Kind::Word(&["1.2", "1.3"]), ["1.2", "1.2"],
            "1.3", "Oldest TLS version accepted.";
        TLS_CIPHER_SUITES: Vec<&'static str> = parse::cipher_suites, Kind::CipherSuites, ["", ""],
            "TLS_AES_256_GCM_SHA384,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "Cipher suites in order of preference, IANA names. None: the library's safe set.";
        TLS_CLIENT_AUTH: &'static str = parse::one_of, Kind::Word(&["off", "optional", "required"]), ["off", "off"],
            "required", "Client certificates: off, optional (verified if one comes) or required. With SSL_CA_PATH set the default is optional.";
        TLS_TERMINATED_UPSTREAM: bool = parse::flag, Kind::Flag, ["false", "false"],
            "true", "A load balancer in front terminates TLS, so that plain text is right here in production.";
    }
    "Browser rules" {
        CORS_ENABLED: bool = parse::flag, Kind::Flag, ["true", "true"],
            "true", "Whether CORS headers are sent.";
        CORS_ALLOWED_ORIGINS: Origins = parse::origins, Kind::Origins, ["http://localhost:3000", ""],
            "https://app.example.com", "Origins that browsers may call from. Development adds every localhost origin; production refuses *.";
        CORS_ALLOWED_METHODS: Vec<String> = parse::methods, Kind::Tokens, ["GET,POST,PUT,DELETE,OPTIONS", "GET,POST,PUT,DELETE,OPTIONS"],
            "GET,POST,DELETE,OPTIONS", "Methods that browsers may use.";
        CORS_ALLOWED_HEADERS: Vec<String> = parse::headers, Kind::Tokens,
            ["Content-Type,Authorization,X-Requested-With,Accept,Last-Event-ID,Mcp-Session-Id,MCP-Protocol-Version,Mcp-Method,Mcp-Name", "Content-Type,Authorization,X-Requested-With,Accept,Last-Event-ID,Mcp-Session-Id,MCP-Protocol-Version,Mcp-Method,Mcp-Name"],
            "Content-Type,Authorization", "Headers that browsers may send.";
        SECURITY_HEADERS_ENABLED: bool = parse::flag, Kind::Flag, ["true", "true"],
            "true", "Whether security headers are sent.";
        HSTS_ENABLED: bool = parse::flag, Kind::Flag, ["false", "true"],
            "true", "Whether Strict-Transport-Security is sent.";
        HSTS_MAX_AGE: Duration = parse::seconds, Kind::Whole { min: 0, max: 315_360_000, unit: "s" }, ["31536000", "31536000"],
            "31536000", "Its max-age, seconds.";
        CSP_ENABLED: bool = parse::flag, Kind::Flag, ["true", "true"],
            "true", "Whether Content-Security-Policy is sent.";
        X_FRAME_OPTIONS: &'static str = parse::one_of, Kind::Word(&["DENY", "SAMEORIGIN"]), ["DENY", "DENY"],
            "DENY", "X-Frame-Options.";
    }
    "Credentials and webhooks" {
        CREDENTIALS_ENCRYPTION_KEY: Option<Secret> = parse_secret::key256, Kind::Key256, ["", ""],
            "b1946ac92492d2347c6235b4d2611184b1946ac92492d2347c6235b4d2611184", "AES-256-GCM key of the credential vault. None: the vault answers 503.";
        CREDENTIALS_ENCRYPTION_KEY_PREVIOUS: Option<Secret> = parse_secret::key256, Kind::Key256, ["", ""],
            "b1946ac92492d2347c6235b4d2611184b1946ac92492d2347c6235b4d2611184", "The vault's key before, while it is rotated: docs/vault.md.";
        TWILIO_AUTH_TOKEN: Option<Secret> = parse_secret::secret, Kind::Secret, ["", ""],
            "b1946ac92492d2347c6235b4d2611184", "Key of Twilio's signatures. None: that webhook answers 503.";
        RESEND_WEBHOOK_SECRET: Vec<Secret> = parse_secret::webhook_keys, Kind::WebhookKeys, ["", ""],
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "Keys of Resend's signatures, separated by blanks. None: that webhook answers 503.";
        WEBHOOK_BASE_URL: Option<String> = parse::optional_url, Kind::Url, ["", ""],
            "https://hooks.example.com", "The public URL that Twilio signs.";
        ALERT_WEBHOOK_URL: Option<Secret> = parse_secret::optional_secret_url, Kind::SecretUrl, ["", ""],
            "https://alerts.example.com/ringwall", "Where alerts of severity HIGH and CRITICAL are posted as JSON.";
        ALERT_WEBHOOK_SECRET: Vec<Secret> = parse_secret::webhook_keys, Kind::WebhookKeys, ["", ""],
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "Key that signs those alerts (Standard Webhooks).";
    }
    "Guards" {
        SANITIZE_MODE: SanitizeMode = parse::sanitize_mode, Kind::Word(&["block", "monitor", "off"]), ["block", "block"],
            "block", "Input that looks like an attack: block refuses it, monitor records it and lets it pass, off does not look.";
        CIRCUITBREAKER_ENABLED: bool = parse::flag, Kind::Flag, ["true", "true"],
            "true", "Whether an upstream that keeps failing is cut off.";
        CIRCUITBREAKER_FAILURE_THRESHOLD: u32 = parse::whole, COUNT, ["5", "5"],
            "5", "Failures in a row until it is.";
        CIRCUITBREAKER_TIMEOUT: Duration = parse::millis, MS, ["30000", "30000"],
            "30000", "Time a call may take before it counts as failed, milliseconds.";
        CIRCUITBREAKER_RESET_TIMEOUT: Duration = parse::millis, MS, ["60000", "60000"],
            "60000", "Time until a probe is let through, milliseconds.";
        ANOMALY_DETECTOR_ENABLED: bool = parse::flag, Kind::Flag, ["true", "true"],
            "true", "Whether unusual behaviour raises alerts.";
    }
    "Records" {
        SECURITY_AUDIT_LOG: bool = parse::flag, Kind::Flag, ["true", "true"],
            "true", "Whether the security audit trail is written.";
        AUDIT_DIR: PathBuf = parse::file, Kind::File, ["./ringwall-data/security", "./ringwall-data/security"],
            "/var/log/ringwall", "Its directory.";
        DATA_DIR: PathBuf = parse::file, Kind::File, ["./ringwall-data", "./ringwall-data"],
            "/var/lib/ringwall", "Directory of the embedded database, readable by its owner only.";
        RETENTION_USAGE_LOGS_DAYS: u32 = parse::whole, DAYS, ["365", "365"],
            "365", "Days that usage logs are kept.";
        RETENTION_CALL_LOGS_DAYS: u32 = parse::whole, DAYS, ["365", "365"],
            "365", "Days that call logs are kept.";
        RETENTION_REVOKED_CONSENT_DAYS: u32 = parse::whole, DAYS, ["730", "730"],
            "730", "Days that revoked consent is kept.";
        MCP_LOG_LEVEL: LogLevel = parse::log_level, Kind::Word(&["error", "warn", "info", "debug", "trace"]), ["debug", "info"],
            "info", "Least severe level that is logged.";
        MCP_LOG_FORMAT: LogFormat = parse::log_format, Kind::Word(&["text", "json"]), ["text", "text"],
            "text", "How log lines look: text for people, json for machines.";
        METRICS_ENABLED: bool = parse::flag, Kind::Flag, ["true", "true"],
            "true", "Whether metrics are served on the admin listener.";
        METRICS_PATH: String = parse::url_path, Kind::UrlPath, ["/metrics", "/metrics"],
            "/metrics", "Their path.";
        OTEL_EXPORTER_OTLP_ENDPOINT: Option<String> = parse::optional_url, Kind::Url, ["", ""],
            "http://127.0.0.1:4318", "OpenTelemetry collector that gets traces and metrics by OTLP over HTTP; /v1/traces and /v1/metrics are put behind it. None: nothing is sent.";
        OTEL_EXPORTER_OTLP_HEADERS: Option<Secret> = parse_secret::secret, Kind::Secret, ["", ""],
            "x-api-key=b1946ac92492d2347c6235b4d2611184", "Header fields for it, name=value, separated by commas.";
        OTEL_SERVICE_NAME: String = parse::name, Kind::Name, ["ringwall", "ringwall"],
            "ringwall-eu", "What the gateway is called there.";
        OTEL_TRACES_SAMPLER_ARG: f64 = parse::ratio, Kind::Ratio, ["1", "1"],
            "0.05", "Share of calls that become spans. A caller's traceparent that does not record is followed.";
        OTEL_METRIC_EXPORT_INTERVAL: Duration = parse::millis, Kind::Whole { min: 1000, max: 86_400_000, unit: "ms" }, ["60000", "60000"],
            "60000", "Time between two sendings of metrics, milliseconds.";
    }
}
