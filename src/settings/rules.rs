//! Rules over several settings: what contradicts, what production refuses, what is worth a warning.

use super::fault::{Fault, Warning};
use super::load::Values;
use super::policy::{Policy, UpstreamTarget};
use super::secret::Secret;
use super::table::*;
use super::tree::{ClientAuth, Profile, Settings};

/// Values that stand in examples all over the world and so protect nothing.
pub const PLACEHOLDERS: &[&str] = &[
    "your-secure-websocket-token-change-me",
    "your-secure-tcp-token-change-me",
    "your-super-secret-jwt-key-minimum-32-chars",
    "your-secret-here",
    "your-secure-websocket-token",
    "your-secure-tcp-token",
    "your-jwt-secret-minimum-32-chars",
    "changeme",
    "secret",
];

/// The fewest characters of a secret.
pub const SECRET_MIN: usize = 32;

/// Looks at everything that no single value shows.
pub(super) fn apply(settings: &Settings, values: &Values, faults: &mut Vec<Fault>, warnings: &mut Vec<Warning>) {
    let mut rules = Rules { settings, values, faults, warnings };
    rules.secrets();
    rules.ports();
    rules.sizes();
    rules.authentication();
    rules.transport();
    rules.worth_knowing();
}

struct Rules<'a> {
    settings: &'a Settings,
    values: &'a Values,
    faults: &'a mut Vec<Fault>,
    warnings: &'a mut Vec<Warning>,
}

impl Rules<'_> {
    fn production(&self) -> bool {
        self.settings.profile == Profile::Production
    }

    fn refuse(&mut self, spec: &Spec, why: &str, allowed: &str, example: &str) {
        let mut fault = self.values.fault(spec, why);
        fault.allowed = allowed.into();
        fault.example = example.into();
        self.faults.push(fault);
    }

    fn warn(&mut self, name: &str, text: impl Into<String>) {
        self.warnings.push(Warning { name: name.into(), text: text.into() });
    }

    /// Placeholders, short secrets and secrets of one character: refused in production, warned of in development.
    fn secrets(&mut self) {
        for spec in TABLE.iter().map(|row| row.spec()).filter(|spec| spec.is_secret()) {
            let Some(given) = self.values.given(spec) else {
                continue;
            };
            // An address is a secret because of the key in it, which has no known form.
            let weak = match spec.kind {
                Kind::SecretUrl => None,
                Kind::WebhookKeys => given.text.split_ascii_whitespace().find_map(weakness),
                _ => weakness(given.text.trim()),
            };
            let Some(why) = weak else { continue };
            if self.production() {
                let allowed = format!("in production a random secret of at least {SECRET_MIN} characters");
                self.refuse(spec, why, &allowed, "run `ringwall init` for fresh secrets");
            } else {
                self.warn(given.variable, format!("{why}; production refuses it"));
            }
        }
        let auth = &self.settings.auth;
        let same =
            |left: &Option<Secret>, right: &Option<Secret>| matches!((left, right), (Some(l), Some(r)) if l == r);
        let shared = [&auth.door_token, &auth.tcp_token].into_iter().any(|token| same(token, &auth.orchestrator_token));
        if shared {
            let spec = &ORCHESTRATOR_SECURITY_TOKEN.spec;
            let why = "is the same as a door's token, so that every client would be an administrator";
            if self.production() {
                self.refuse(spec, why, "a secret of its own", "run `ringwall init` for fresh secrets");
            } else {
                self.warn(spec.name, format!("{why}; production refuses it"));
            }
        }
    }

    /// Two listeners cannot have one port, unless it is 0, which is any free one.
    fn ports(&mut self) {
        let doors = &self.settings.doors;
        let listeners = [
            (&MCP_BRIDGE_PORT.spec, doors.bind_address, doors.bridge_port),
            (&MCP_TCP_PORT.spec, doors.bind_address, doors.tcp_port),
            (&MCP_HEALTH_PORT.spec, doors.bind_address, doors.health_port),
            (&ADMIN_PORT.spec, doors.admin_bind_address, doors.admin_port),
        ];
        for (index, (spec, address, port)) in listeners.iter().enumerate() {
            for (other_spec, other, other_port) in listeners.iter().take(index) {
                let overlap = address == other || address.is_unspecified() || other.is_unspecified();
                if *port != 0 && port == other_port && overlap {
                    let why = format!("contradicts {}, which has the same port", other_spec.name);
                    self.refuse(
                        spec,
                        &why,
                        "a port of its own, or 0 for any free one",
                        &format!("{}={}", spec.name, spec.example),
                    );
                }
            }
        }
    }

    /// A message must fit its connection's buffer.
    fn sizes(&mut self) {
        let doors = &self.settings.doors;
        for (spec, size) in
            [(&MAX_REQUEST_SIZE.spec, doors.max_request_size), (&MAX_MESSAGE_SIZE.spec, doors.max_message_size)]
        {
            if size > doors.max_buffer_size {
                let why = format!("{size} contradicts MAX_BUFFER_SIZE, which is {}", doors.max_buffer_size);
                self.refuse(
                    spec,
                    &why,
                    "at most MAX_BUFFER_SIZE bytes",
                    &format!("{}={}", spec.name, doors.max_buffer_size),
                );
            }
        }
        if self.settings.auth.jwt_refresh_ttl < self.settings.auth.jwt_access_ttl {
            let spec = &JWT_REFRESH_TTL.spec;
            self.refuse(
                spec,
                "is shorter than JWT_ACCESS_TTL",
                "at least JWT_ACCESS_TTL seconds",
                "JWT_REFRESH_TTL=1209600",
            );
        }
    }

    fn authentication(&mut self) {
        let auth = &self.settings.auth;
        let loopback = self.settings.doors.bind_address.is_loopback();
        if auth.demo_mode {
            if self.production() {
                self.refuse(&DEMO_MODE.spec, "is refused in production", "false", "DEMO_MODE=false");
            } else {
                self.warn(
                    DEMO_MODE.spec.name,
                    "EVERY AUTHENTICATION IS BYPASSED: anyone who reaches a port may call every tool",
                );
            }
        }
        if !auth.enabled {
            let spec = &WS_AUTH_ENABLED.spec;
            if self.production() {
                self.refuse(spec, "is refused in production", "true", "WS_AUTH_ENABLED=true");
            } else if !loopback {
                let why = "is only for a loopback address, and BIND_ADDRESS is not one";
                self.refuse(spec, why, "true, or BIND_ADDRESS=127.0.0.1", "WS_AUTH_ENABLED=true");
            } else {
                self.warn(
                    spec.name,
                    "HTTP and WebSocket need no token: any program on this machine may call every tool",
                );
            }
        }
        if let Some(issuer) = &auth.issuer
            && !is_private_enough(&issuer.jwks_url)
        {
            let why = "fetches keys in clear from another machine: who stands in between could put in his own";
            self.refuse(
                &JWKS_URL.spec,
                why,
                "an https:// URL; http:// on a loopback address only",
                &format!("JWKS_URL={}", JWKS_URL.spec.example),
            );
        }
        if auth.issuer.is_none() && self.values.given(&JWT_AGENT_CLAIM.spec).is_some() {
            self.warn(JWT_AGENT_CLAIM.spec.name, "is not used, because JWKS_URL is not set");
        }
        let no_jwt = auth.jwt_secret.is_none() && auth.issuer.is_none();
        // An operator can issue tokens.
        let no_agent = auth.orchestrator_token.is_none()
            && self.settings.policy.agents.iter().all(|agent| agent.token_sha256.is_none());
        let nobody = auth.door_token.is_none() && no_jwt && no_agent;
        if auth.enabled && !auth.demo_mode && nobody {
            self.warn(
                WS_AUTH_TOKEN.spec.name,
                "none is set, the policy has no agents with tokens, and nobody may issue any (ORCHESTRATOR_SECURITY_TOKEN): nobody can authenticate on HTTP and WebSocket",
            );
        }
    }

    fn transport(&mut self) {
        let (tls, browser) = (&self.settings.tls, &self.settings.browser);
        if self.production() && !ssl_enabled(self.values) && !tls.terminated_upstream {
            self.refuse(
                &SSL_ENABLED.spec,
                "production needs TLS",
                "true with SSL_CERT_PATH and SSL_KEY_PATH, or TLS_TERMINATED_UPSTREAM=true where a load balancer terminates TLS",
                "SSL_ENABLED=true",
            );
        }
        if browser.origins.any {
            let spec = &CORS_ALLOWED_ORIGINS.spec;
            if self.production() {
                self.refuse(
                    spec,
                    "* is refused in production",
                    &spec.kind.allowed(),
                    "CORS_ALLOWED_ORIGINS=https://app.example.com",
                );
            } else {
                self.warn(spec.name, "* lets every website call from its visitors' browsers; production refuses it");
            }
        }
        let asked_off = self.values.given(&TLS_CLIENT_AUTH.spec).is_some();
        let has_ca = self.values.given(&SSL_CA_PATH.spec).is_some_and(|given| !given.text.trim().is_empty());
        match tls.server.as_ref().map(|server| &server.client_auth) {
            Some(ClientAuth::Optional(_)) if !asked_off => {
                self.warn(SSL_CA_PATH.spec.name, "client certificates are verified if they come; TLS_CLIENT_AUTH=required refuses clients without one");
            }
            Some(ClientAuth::Off) if has_ca => {
                self.warn(SSL_CA_PATH.spec.name, "is not used, because TLS_CLIENT_AUTH is off")
            }
            None if has_ca => self.warn(SSL_CA_PATH.spec.name, "is not used, because SSL_ENABLED is false"),
            _ => {}
        }
    }

    fn worth_knowing(&mut self) {
        let Settings { doors, webhooks, auth, policy, records, rates, .. } = self.settings;
        if doors.trusted_proxies.iter().any(|net| net.prefix_len() == 0) {
            self.warn(
                TRUSTED_PROXIES.spec.name,
                "believes everyone, so that every client can choose the address it is seen under",
            );
        }
        if !doors.admin_bind_address.is_loopback() && auth.admin_ip_allowlist.is_empty() {
            self.warn(
                ADMIN_BIND_ADDRESS.spec.name,
                "the admin API can be reached from other machines; set ADMIN_IP_ALLOWLIST",
            );
        }
        let lacking = policy.upstreams.iter().filter(|upstream| upstream.credential.is_some());
        for upstream in lacking.filter(|_| self.settings.vault.key.is_none()) {
            let name = format!("upstream.{}.credential", upstream.name);
            self.warn(
                &name,
                "cannot be read without CREDENTIALS_ENCRYPTION_KEY: every call to this upstream is refused",
            );
        }
        if webhooks.twilio_auth_token.is_some() && webhooks.base_url.is_none() {
            self.warn(TWILIO_AUTH_TOKEN.spec.name, "signatures cannot be verified without WEBHOOK_BASE_URL");
        }
        if webhooks.alert_url.is_some() && webhooks.alert_secrets.is_empty() {
            self.warn(ALERT_WEBHOOK_URL.spec.name, "alerts are not signed without ALERT_WEBHOOK_SECRET");
        }
        if self.production() && !records.audit_enabled {
            self.warn(SECURITY_AUDIT_LOG.spec.name, "no security event is recorded");
        }
        if self.production() && !rates.enabled {
            self.warn(RATE_LIMIT_ENABLED.spec.name, "no request or message limit applies");
        }
        for name in secrets_in_clear(policy) {
            self.warn(&format!("upstream.{name}.header"), "goes in clear to another machine; use https or wss");
        }
    }
}

/// The upstreams on other machines that get headers in clear.
fn secrets_in_clear(policy: &Policy) -> Vec<String> {
    let in_clear = |upstream: &&super::Upstream| {
        let (host, tls) = match &upstream.target {
            UpstreamTarget::Http(target) => (&target.host, target.tls),
            UpstreamTarget::Socket(target) => (&target.host, target.tls),
            UpstreamTarget::Stdio(_) => return false,
        };
        let local = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        !tls && !local && !upstream.headers.is_empty()
    };
    policy.upstreams.iter().filter(in_clear).map(|upstream| upstream.name.clone()).collect()
}

/// Whether what comes from this URL is what its server has sent.
fn is_private_enough(url: &str) -> bool {
    super::url::http_target(url).is_ok_and(|target| {
        let local =
            target.host == "localhost" || target.host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        target.tls || local
    })
}

/// Whether `SSL_ENABLED` was asked for, even if a path is missing: that has a fault of its own.
fn ssl_enabled(values: &Values) -> bool {
    values.given(&SSL_ENABLED.spec).is_some_and(|given| given.text.trim().eq_ignore_ascii_case("true"))
}

/// Why a secret protects nothing; `None` if it may be good.
fn weakness(secret: &str) -> Option<&'static str> {
    let mut characters = secret.chars();
    let first = characters.next()?;
    if PLACEHOLDERS.iter().any(|placeholder| placeholder.eq_ignore_ascii_case(secret)) {
        return Some("is a placeholder from an example");
    }
    if characters.all(|other| other == first) {
        return Some("is one repeated character");
    }
    (secret.chars().count() < SECRET_MIN).then_some("is shorter than 32 characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_secrets_are_known() {
        for placeholder in PLACEHOLDERS {
            assert!(weakness(placeholder).is_some(), "{placeholder}");
        }
        for (secret, weak) in [
            ("", false),
            ("a", true),
            ("CHANGEME", true),
            ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", true),
            ("0123456789abcdef0123456789abcde", true),
            ("0123456789abcdef0123456789abcdef", false),
        ] {
            assert_eq!(weakness(secret).is_some(), weak, "{secret}");
        }
    }
}
