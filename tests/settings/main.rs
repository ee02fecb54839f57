//! Settings, from outside: the rules that the documentation promises, as named cases.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use ringwall::settings::{
    ClientAuth, DenialStyle, Faults, Inputs, Loaded, LogLevel, PLACEHOLDERS, Profile, Settings, Source, TlsVersion,
};

mod policy;
mod secrecy;

const SECRET: &str = "3f9a6c1e84b7d2505f6e7a8b9c0d1e2f";
const OTHER_SECRET: &str = "a8f5f167f44f4964e6c998dee827110c03";

/// A production environment in which everything is in order.
const PRODUCTION: &[(&str, &str)] = &[
    ("RINGWALL_ENV", "production"),
    ("TLS_TERMINATED_UPSTREAM", "true"),
    ("WS_AUTH_TOKEN", SECRET),
    ("ORCHESTRATOR_SECURITY_TOKEN", OTHER_SECRET),
];

/// An outside issuer, whole.
const ISSUER: &[(&str, &str)] = &[
    ("JWKS_URL", "https://id.example.com/keys"),
    ("JWT_ISSUER", "https://id.example.com/"),
    ("JWT_AUDIENCE", "ringwall"),
];

fn load(pairs: &[(&str, &str)]) -> Result<Loaded, Faults> {
    Settings::load(&Inputs::from_pairs(pairs))
}

fn accepted(pairs: &[(&str, &str)]) -> Loaded {
    load(pairs).unwrap_or_else(|faults| panic!("{pairs:?} refused:\n{faults}"))
}

fn refused(pairs: &[(&str, &str)]) -> Faults {
    match load(pairs) {
        Ok(_) => panic!("{pairs:?} accepted"),
        Err(faults) => faults,
    }
}

fn production(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let replaced = |name: &str| more.iter().any(|(other, _)| *other == name);
    PRODUCTION.iter().filter(|(name, _)| !replaced(name)).chain(more).copied().collect()
}

#[test]
fn defaults_are_those_of_the_profile() {
    let development = accepted(&[]).settings;
    assert_eq!(development.profile, Profile::Development);
    assert_eq!(development.doors.bind_address.to_string(), "127.0.0.1");
    assert_eq!((development.doors.bridge_port, development.doors.tcp_port), (3002, 9500));
    assert_eq!((development.doors.health_port, development.doors.admin_port), (9501, 3003));
    assert_eq!((development.rates.http_per_ip, development.rates.http_global), (6000, 10_000));
    assert_eq!((development.rates.client_max, development.rates.client_burst), (10_000, 2000));
    assert_eq!(development.log.level, LogLevel::Debug);
    assert!(development.browser.origins.any_localhost && development.browser.hsts_max_age.is_none());
    assert!(development.auth.enabled && development.auth.door_token.is_none());

    let production = accepted(PRODUCTION).settings;
    assert_eq!(production.profile, Profile::Production);
    assert_eq!(production.doors.bind_address.to_string(), "0.0.0.0");
    assert_eq!(production.doors.admin_bind_address.to_string(), "127.0.0.1");
    assert_eq!((production.rates.http_per_ip, production.rates.http_global), (60, 100));
    assert_eq!((production.rates.client_max, production.rates.client_burst), (100, 20));
    assert_eq!(production.log.level, LogLevel::Info);
    assert!(!production.browser.origins.any_localhost && production.browser.origins.exact.is_empty());
    assert_eq!(production.browser.hsts_max_age, Some(Duration::from_secs(31_536_000)));
    assert!(production.auth.door_token.unwrap().verify(SECRET.as_bytes()));

    for settings in [development, accepted(PRODUCTION).settings] {
        assert_eq!(settings.doors.denial_style, DenialStyle::ToolResult);
        assert_eq!(settings.doors.drain_timeout, Duration::from_secs(30));
        assert_eq!(settings.doors.session_ttl, Duration::from_secs(86_400));
        assert_eq!(settings.rates.spend_per_day_microusd, 10_000_000);
        assert_eq!(settings.rates.agent_per_minute, 10);
        assert_eq!(settings.breaker.timeout, Duration::from_secs(30));
    }
}

#[test]
fn an_outside_issuer_is_taken_whole() {
    let issuer = accepted(ISSUER).settings.auth.issuer.unwrap();
    assert_eq!(issuer.jwks_url, "https://id.example.com/keys");
    // Letter for letter: its last slash is part of an issuer's name.
    assert_eq!((issuer.issuer.as_str(), issuer.audience.as_str()), ("https://id.example.com/", "ringwall"));
    assert_eq!(issuer.agent_claim, "sub");
    for url in ["http://127.0.0.1:8080/keys", "http://[::1]/keys", "http://localhost/keys"] {
        let pairs = [("JWKS_URL", url), ISSUER[1], ISSUER[2], ("JWT_AGENT_CLAIM", "azp")];
        assert_eq!(accepted(&pairs).settings.auth.issuer.unwrap().agent_claim, "azp", "{url}");
    }
    assert_eq!(accepted(&[]).settings.auth.issuer, None);
}

#[test]
fn each_of_these_alone_stops_the_start() {
    for (name, pairs, at_fault, says) in [
        ("a port that is no number", vec![("MCP_BRIDGE_PORT", "http")], "MCP_BRIDGE_PORT", "not a whole number"),
        ("a port out of range", vec![("MCP_TCP_PORT", "65536")], "MCP_TCP_PORT", "too large"),
        ("an empty number", vec![("MAX_REQUEST_SIZE", "")], "MAX_REQUEST_SIZE", "not a whole number"),
        ("a flag that is neither", vec![("RATE_LIMIT_ENABLED", "yes")], "RATE_LIMIT_ENABLED", "neither true nor false"),
        ("a profile that does not exist", vec![("RINGWALL_ENV", "staging")], "RINGWALL_ENV", "none of the words"),
        ("the older name with such a value", vec![("NODE_ENV", "staging")], "NODE_ENV", "none of the words"),
        (
            "two names that contradict",
            vec![("RINGWALL_ENV", "production"), ("NODE_ENV", "development"), ("TLS_TERMINATED_UPSTREAM", "true")],
            "NODE_ENV",
            "contradicts",
        ),
        ("two equal ports", vec![("MCP_TCP_PORT", "3002")], "MCP_TCP_PORT", "contradicts MCP_BRIDGE_PORT"),
        (
            "the admin port on all addresses",
            vec![("ADMIN_PORT", "3002"), ("BIND_ADDRESS", "0.0.0.0")],
            "ADMIN_PORT",
            "contradicts MCP_BRIDGE_PORT",
        ),
        (
            "a message larger than the buffer",
            vec![("MAX_MESSAGE_SIZE", "16777217")],
            "MAX_MESSAGE_SIZE",
            "MAX_BUFFER_SIZE",
        ),
        (
            "a body larger than the buffer",
            vec![("MAX_BUFFER_SIZE", "65536"), ("MAX_MESSAGE_SIZE", "65536")],
            "MAX_REQUEST_SIZE",
            "MAX_BUFFER_SIZE",
        ),
        ("a list with a bad entry", vec![("IP_DENYLIST", "10.0.0.0/8,10.0.0.0/33")], "IP_DENYLIST", "entry 2"),
        (
            "an origin with a path",
            vec![("CORS_ALLOWED_ORIGINS", "https://a.example/x")],
            "CORS_ALLOWED_ORIGINS",
            "no path",
        ),
        ("an issuer without an audience", vec![ISSUER[0], ISSUER[1]], "JWT_AUDIENCE", "is needed"),
        ("an issuer without a name", vec![ISSUER[0], ISSUER[2]], "JWT_ISSUER", "is needed"),
        ("an issuer without keys", vec![ISSUER[1], ISSUER[2]], "JWKS_URL", "is needed"),
        (
            "keys that come in clear",
            vec![("JWKS_URL", "http://id.example.com/keys"), ISSUER[1], ISSUER[2]],
            "JWKS_URL",
            "in clear",
        ),
        ("keys from nowhere", vec![("JWKS_URL", "id.example.com"), ISSUER[1], ISSUER[2]], "JWKS_URL", "URL"),
        (
            "an issuer of two words",
            vec![ISSUER[0], ("JWT_ISSUER", "https://id example"), ISSUER[2]],
            "JWT_ISSUER",
            "contains a blank",
        ),
        ("a claim without a name", vec![("JWT_AGENT_CLAIM", "")], "JWT_AGENT_CLAIM", "is empty"),
        ("TLS without certificate", vec![("SSL_ENABLED", "true"), ("SSL_KEY_PATH", "k")], "SSL_CERT_PATH", "is needed"),
        ("TLS without key", vec![("SSL_ENABLED", "true"), ("SSL_CERT_PATH", "c")], "SSL_KEY_PATH", "is needed"),
        ("client certificates without CA", vec![("TLS_CLIENT_AUTH", "required")], "TLS_CLIENT_AUTH", "SSL_CA_PATH"),
        (
            "a cipher suite nobody has",
            vec![("TLS_CIPHER_SUITES", "TLS_RSA_WITH_RC4_128_MD5")],
            "TLS_CIPHER_SUITES",
            "entry 1",
        ),
        (
            "only suites of 1.2 for 1.3",
            vec![("TLS_MIN_VERSION", "1.3"), ("TLS_CIPHER_SUITES", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")],
            "TLS_CIPHER_SUITES",
            "TLS 1.3",
        ),
        (
            "an encryption key that is too short",
            vec![("CREDENTIALS_ENCRYPTION_KEY", "abcd")],
            "CREDENTIALS_ENCRYPTION_KEY",
            "64 hexadecimal",
        ),
        (
            "a webhook key without prefix",
            vec![("RESEND_WEBHOOK_SECRET", "C2FVsBQIhrscChlQIMV+b5sSYspob7oD")],
            "RESEND_WEBHOOK_SECRET",
            "whsec_",
        ),
        (
            "money with seven decimals",
            vec![("DEFAULT_MAX_SPEND_PER_DAY", "0.0000001")],
            "DEFAULT_MAX_SPEND_PER_DAY",
            "decimals",
        ),
        (
            "a refresh token shorter than the access token",
            vec![("JWT_REFRESH_TTL", "60")],
            "JWT_REFRESH_TTL",
            "JWT_ACCESS_TTL",
        ),
        (
            "no authentication for the network",
            vec![("WS_AUTH_ENABLED", "false"), ("BIND_ADDRESS", "0.0.0.0")],
            "WS_AUTH_ENABLED",
            "loopback",
        ),
        (
            "a token with a blank",
            vec![("WS_AUTH_TOKEN", "0123456789abcdef 0123456789abcdef")],
            "WS_AUTH_TOKEN",
            "blank",
        ),
        ("a path that is none", vec![("METRICS_PATH", "metrics")], "METRICS_PATH", "starts with /"),
        ("production: no TLS", production(&[("TLS_TERMINATED_UPSTREAM", "false")]), "SSL_ENABLED", "needs TLS"),
        ("production: DEMO_MODE", production(&[("DEMO_MODE", "true")]), "DEMO_MODE", "production"),
        ("production: no authentication", production(&[("WS_AUTH_ENABLED", "false")]), "WS_AUTH_ENABLED", "production"),
        ("production: any origin", production(&[("CORS_ALLOWED_ORIGINS", "*")]), "CORS_ALLOWED_ORIGINS", "*"),
        (
            "production: a short secret",
            production(&[("JWT_SECRET", "short-but-not-known")]),
            "JWT_SECRET",
            "32 characters",
        ),
        (
            "production: one character",
            production(&[("TCP_AUTH_TOKEN", "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz")]),
            "TCP_AUTH_TOKEN",
            "one repeated",
        ),
        (
            "production: a key of zeros",
            production(&[(
                "CREDENTIALS_ENCRYPTION_KEY",
                "0000000000000000000000000000000000000000000000000000000000000000",
            )]),
            "CREDENTIALS_ENCRYPTION_KEY",
            "one repeated",
        ),
        (
            "production: a door's token for the admin API",
            production(&[("ORCHESTRATOR_SECURITY_TOKEN", SECRET)]),
            "ORCHESTRATOR_SECURITY_TOKEN",
            "same",
        ),
    ] {
        let faults = refused(&pairs).faults;
        assert_eq!(faults.len(), 1, "{name}: {faults:#?}");
        assert_eq!(faults[0].name, at_fault, "{name}");
        assert!(faults[0].why.contains(says), "{name}: {}", faults[0]);
        assert!(!faults[0].allowed.is_empty() && !faults[0].example.is_empty(), "{name}: {}", faults[0]);
        assert_eq!(faults[0].to_string().lines().count(), 1, "{name}");
    }
}

#[test]
fn each_of_these_is_accepted() {
    for (name, pairs) in [
        (
            "free ports",
            vec![("MCP_BRIDGE_PORT", "0"), ("MCP_TCP_PORT", "0"), ("MCP_HEALTH_PORT", "0"), ("ADMIN_PORT", "0")],
        ),
        ("one port on two addresses", vec![("ADMIN_PORT", "3002"), ("ADMIN_BIND_ADDRESS", "127.0.0.2")]),
        ("two names that agree", vec![("RINGWALL_ENV", "development"), ("NODE_ENV", "development")]),
        ("no tokens on loopback", vec![("WS_AUTH_ENABLED", "false")]),
        ("no tokens on IPv6 loopback", vec![("WS_AUTH_ENABLED", "false"), ("BIND_ADDRESS", "::1")]),
        ("demo mode in development", vec![("DEMO_MODE", "true")]),
        ("any origin in development", vec![("CORS_ALLOWED_ORIGINS", "*")]),
        ("an empty list", vec![("CORS_ALLOWED_ORIGINS", "")]),
        ("an empty secret", vec![("WS_AUTH_TOKEN", "")]),
        ("capitals in a flag", vec![("DEMO_MODE", "FALSE")]),
        (
            "production with TLS",
            production(&[
                ("TLS_TERMINATED_UPSTREAM", "false"),
                ("SSL_ENABLED", "true"),
                ("SSL_CERT_PATH", "c"),
                ("SSL_KEY_PATH", "k"),
            ]),
        ),
        (
            "several webhook keys",
            vec![(
                "RESEND_WEBHOOK_SECRET",
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
            )],
        ),
    ] {
        assert!(load(&pairs).is_ok(), "{name}: {}", load(&pairs).err().unwrap());
    }
}

#[test]
fn every_placeholder_is_warned_of_and_then_refused() {
    for placeholder in PLACEHOLDERS {
        for name in [
            "WS_AUTH_TOKEN",
            "TCP_AUTH_TOKEN",
            "JWT_SECRET",
            "ORCHESTRATOR_SECURITY_TOKEN",
            "MASTER_SECURITY_TOKEN",
            "TWILIO_AUTH_TOKEN",
        ] {
            let loaded = accepted(&[(name, placeholder), ("WEBHOOK_BASE_URL", "https://hooks.example.com")]);
            assert!(loaded.warnings.iter().any(|warning| warning.name == name), "{name}={placeholder}");
            let pairs = [("RINGWALL_ENV", "production"), ("TLS_TERMINATED_UPSTREAM", "true"), (name, placeholder)];
            let faults = refused(&pairs).faults;
            assert_eq!((faults.len(), faults[0].name.as_str()), (1, name), "{placeholder}");
        }
    }
}

#[test]
fn all_faults_come_at_once() {
    let mut inputs = Inputs::from_pairs(&production(&[
        ("MCP_BRIDGE_PORT", "x"),
        ("WORKERS", "0"),
        ("DEMO_MODE", "true"),
        ("CORS_ALLOWED_ORIGINS", "*"),
        ("WS_AUTH_TOKEN", "changeme"),
        ("MCP_TCP_PROT", "1"),
    ]));
    inputs.policy =
        Some(("ringwall.toml".into(), "[upstream.a]\nurl = \"ftp://x\"\n[agent.b]\ntoken_sha = \"\"\n".into()));
    let Faults { faults, warnings } = Settings::load(&inputs).err().unwrap();
    let names: Vec<_> = faults.iter().map(|fault| fault.name.as_str()).collect();
    for name in [
        "MCP_BRIDGE_PORT",
        "WORKERS",
        "DEMO_MODE",
        "CORS_ALLOWED_ORIGINS",
        "WS_AUTH_TOKEN",
        "upstream.a.url",
        "agent.b.token_sha",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    assert_eq!(names.len(), 7, "{names:?}");
    assert!(warnings.iter().any(|warning| warning.text.contains("MCP_TCP_PORT")));
}

#[test]
fn the_environment_wins_over_dotenv_and_the_source_is_told() {
    let mut inputs = Inputs::from_pairs(&[("MCP_BRIDGE_PORT", "4000")]);
    inputs.dotenv = Some((".env".into(), "MCP_BRIDGE_PORT=5000\nMCP_TCP_PORT=5001\nNODE_ENV=development\n".into()));
    let loaded = Settings::load(&inputs).map_err(|faults| faults.to_string()).ok().unwrap();
    assert_eq!((loaded.settings.doors.bridge_port, loaded.settings.doors.tcp_port), (4000, 5001));
    for (name, value, source) in [
        ("MCP_BRIDGE_PORT", "4000", Source::Environment),
        ("MCP_TCP_PORT", "5001", Source::DotEnv),
        ("MCP_HEALTH_PORT", "9501", Source::Default),
        ("RINGWALL_ENV", "development", Source::DotEnv),
        ("WS_AUTH_TOKEN", "none", Source::Default),
    ] {
        let one = loaded.effective.iter().find(|one| one.name == name).unwrap();
        assert_eq!((one.value_shown.as_str(), one.source), (value, source), "{name}");
    }
}

#[test]
fn tls_settings_become_one_decision() {
    let tls = [("SSL_ENABLED", "true"), ("SSL_CERT_PATH", "c"), ("SSL_KEY_PATH", "k")];
    for (name, more, wanted) in [
        ("nothing said", vec![], ClientAuth::Off),
        ("a CA alone", vec![("SSL_CA_PATH", "ca")], ClientAuth::Optional("ca".into())),
        ("a CA, off", vec![("SSL_CA_PATH", "ca"), ("TLS_CLIENT_AUTH", "off")], ClientAuth::Off),
        ("required", vec![("SSL_CA_PATH", "ca"), ("TLS_CLIENT_AUTH", "required")], ClientAuth::Required("ca".into())),
    ] {
        let pairs: Vec<_> = tls.iter().copied().chain(more).collect();
        let server = accepted(&pairs).settings.tls.server.unwrap();
        assert_eq!((server.client_auth, server.min_version), (wanted, TlsVersion::V1_2), "{name}");
    }
}
