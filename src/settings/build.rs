//! From the values that were given to the typed tree: one function a branch.

use std::time::Duration;

use super::fault::Fault;
use super::load::Values;
use super::policy::Policy;
use super::table::*;
use super::tree::*;

/// Reads values by their rows and gathers the faults.
pub(super) struct Reader {
    pub(super) values: Values,
    pub(super) profile: Profile,
    pub(super) faults: Vec<Fault>,
}

impl Reader {
    /// The value of a setting: the given one, or with a fault the default, so that the rest can be looked at too.
    /// `None` only if the table's own default is not accepted, which a test rules out.
    fn get<T>(&mut self, setting: &Setting<T>) -> Option<T> {
        let spec = &setting.spec;
        if let Some(given) = self.values.given(spec) {
            match (setting.parse)(&spec.kind, &given.text) {
                Ok(value) => return Some(value),
                Err(why) => {
                    let fault = self.values.fault(spec, why);
                    // Some values are read twice; one fault is enough.
                    if !self.faults.contains(&fault) {
                        self.faults.push(fault);
                    }
                }
            }
        }
        (setting.parse)(&spec.kind, spec.default_for(self.profile)).ok()
    }

    /// Time that a call to an upstream may take unless the policy says otherwise.
    pub(super) fn timeout(&mut self) -> Duration {
        self.get(&CIRCUITBREAKER_TIMEOUT).unwrap_or(Duration::from_secs(30))
    }

    pub(super) fn settings(&mut self, policy: Policy) -> Option<Settings> {
        self.profile = self.get(&RINGWALL_ENV)?;
        self.get(&RINGWALL_POLICY)?;
        Some(Settings {
            profile: self.profile,
            doors: self.doors()?,
            auth: self.auth()?,
            rates: self.rates()?,
            tls: self.tls()?,
            browser: self.browser()?,
            breaker: Breaker {
                enabled: self.get(&CIRCUITBREAKER_ENABLED)?,
                failure_threshold: self.get(&CIRCUITBREAKER_FAILURE_THRESHOLD)?,
                timeout: self.get(&CIRCUITBREAKER_TIMEOUT)?,
                reset_timeout: self.get(&CIRCUITBREAKER_RESET_TIMEOUT)?,
            },
            records: self.records()?,
            vault: Vault {
                key: self.get(&CREDENTIALS_ENCRYPTION_KEY)?,
                previous: self.get(&CREDENTIALS_ENCRYPTION_KEY_PREVIOUS)?,
            },
            webhooks: Webhooks {
                twilio_auth_token: self.get(&TWILIO_AUTH_TOKEN)?,
                resend_secrets: self.get(&RESEND_WEBHOOK_SECRET)?,
                base_url: self.get(&WEBHOOK_BASE_URL)?,
                alert_url: self.get(&ALERT_WEBHOOK_URL)?,
                alert_secrets: self.get(&ALERT_WEBHOOK_SECRET)?,
            },
            sanitize: self.get(&SANITIZE_MODE)?,
            log: Log { level: self.get(&MCP_LOG_LEVEL)?, format: self.get(&MCP_LOG_FORMAT)? },
            metrics: Metrics { enabled: self.get(&METRICS_ENABLED)?, path: self.get(&METRICS_PATH)? },
            otlp: Otlp {
                endpoint: self.get(&OTEL_EXPORTER_OTLP_ENDPOINT)?,
                headers: self.get(&OTEL_EXPORTER_OTLP_HEADERS)?,
                service_name: self.get(&OTEL_SERVICE_NAME)?,
                trace_ratio: self.get(&OTEL_TRACES_SAMPLER_ARG)?,
                metric_interval: self.get(&OTEL_METRIC_EXPORT_INTERVAL)?,
            },
            policy,
        })
    }

    fn doors(&mut self) -> Option<Doors> {
        Some(Doors {
            bind_address: self.get(&BIND_ADDRESS)?,
            bridge_port: self.get(&MCP_BRIDGE_PORT)?,
            tcp_port: self.get(&MCP_TCP_PORT)?,
            health_port: self.get(&MCP_HEALTH_PORT)?,
            admin_bind_address: self.get(&ADMIN_BIND_ADDRESS)?,
            admin_port: self.get(&ADMIN_PORT)?,
            workers: self.get(&WORKERS)?,
            io_driver: self.get(&IO_DRIVER)?,
            trusted_proxies: self.get(&TRUSTED_PROXIES)?,
            bridge_max_connections: self.get(&WS_MAX_CONNECTIONS)?,
            tcp_max_connections: self.get(&TCP_MAX_CONNECTIONS)?,
            max_connections_per_ip: self.get(&MAX_CONNECTIONS_PER_IP)?,
            ws_idle_timeout: self.get(&WS_CONNECTION_TIMEOUT)?,
            tcp_idle_timeout: self.get(&TCP_CONNECTION_TIMEOUT)?,
            header_timeout: self.get(&HEADER_TIMEOUT)?,
            body_timeout: self.get(&BODY_TIMEOUT)?,
            write_timeout: self.get(&WRITE_TIMEOUT)?,
            drain_timeout: self.get(&DRAIN_TIMEOUT)?,
            max_request_size: self.get(&MAX_REQUEST_SIZE)?,
            max_message_size: self.get(&MAX_MESSAGE_SIZE)?,
            max_buffer_size: self.get(&MAX_BUFFER_SIZE)?,
            max_json_depth: self.get(&MAX_JSON_DEPTH)?,
            allowed_hosts: self.get(&ALLOWED_HOSTS)?,
            denial_style: self.get(&DENIAL_STYLE)?,
            sse_query_token: self.get(&SSE_QUERY_TOKEN)?,
            session_ttl: self.get(&MCP_SESSION_TTL)?,
        })
    }

    fn auth(&mut self) -> Option<Auth> {
        let issuer = self.issuer()?;
        Some(Auth {
            issuer,
            enabled: self.get(&WS_AUTH_ENABLED)?,
            door_token: self.get(&WS_AUTH_TOKEN)?,
            tcp_token: self.get(&TCP_AUTH_TOKEN)?,
            orchestrator_token: self.get(&ORCHESTRATOR_SECURITY_TOKEN)?,
            demo_mode: self.get(&DEMO_MODE)?,
            jwt_secret: self.get(&JWT_SECRET)?,
            jwt_access_ttl: self.get(&JWT_ACCESS_TTL)?,
            jwt_refresh_ttl: self.get(&JWT_REFRESH_TTL)?,
            session_timeout: self.get(&SESSION_TIMEOUT)?,
            session_cleanup_interval: self.get(&SESSION_CLEANUP_INTERVAL)?,
            max_concurrent_sessions: self.get(&MAX_CONCURRENT_SESSIONS)?,
            max_failed_attempts: self.get(&MAX_FAILED_ATTEMPTS)?,
            block_duration: self.get(&BLOCK_DURATION)?,
            auto_block_enabled: self.get(&AUTO_BLOCK_ENABLED)?,
            abuse_block_duration: self.get(&ABUSE_BLOCK_DURATION)?,
            admin_ip_allowlist: self.get(&ADMIN_IP_ALLOWLIST)?,
            webhook_ip_allowlist: self.get(&WEBHOOK_IP_ALLOWLIST)?,
            ip_denylist: self.get(&IP_DENYLIST)?,
        })
    }

    /// `JWKS_URL`, `JWT_ISSUER` and `JWT_AUDIENCE` are one thing: all of them, or none.
    fn issuer(&mut self) -> Option<Option<OutsideIssuer>> {
        let (jwks_url, issuer, audience) = (self.get(&JWKS_URL)?, self.get(&JWT_ISSUER)?, self.get(&JWT_AUDIENCE)?);
        let agent_claim = self.get(&JWT_AGENT_CLAIM)?;
        let given = [jwks_url.is_some(), issuer.is_some(), audience.is_some()];
        if let (Some(jwks_url), Some(issuer), Some(audience)) = (jwks_url, issuer, audience) {
            return Some(Some(OutsideIssuer { jwks_url, issuer, audience, agent_claim }));
        }
        let specs = [&JWKS_URL.spec, &JWT_ISSUER.spec, &JWT_AUDIENCE.spec];
        for (spec, is_given) in specs.into_iter().zip(given) {
            // What was given but not accepted has its fault already.
            let is_missing = !is_given && self.values.given(spec).is_none_or(|given| given.text.trim().is_empty());
            if given.contains(&true) && is_missing {
                let why = "is needed, because JWKS_URL, JWT_ISSUER and JWT_AUDIENCE belong together";
                self.faults.push(self.values.fault(spec, why));
            }
        }
        Some(None)
    }

    fn rates(&mut self) -> Option<Rates> {
        Some(Rates {
            enabled: self.get(&RATE_LIMIT_ENABLED)?,
            http_per_ip: self.get(&HTTP_RATE_LIMIT_PER_IP)?,
            http_global: self.get(&HTTP_RATE_LIMIT_GLOBAL)?,
            client_window: self.get(&RATE_LIMIT_WINDOW_MS)?,
            client_max: self.get(&RATE_LIMIT_MAX_REQUESTS)?,
            client_burst: self.get(&RATE_LIMIT_BURST_REQUESTS)?,
            agent_per_minute: self.get(&DEFAULT_MAX_ACTIONS_PER_MINUTE)?,
            agent_per_hour: self.get(&DEFAULT_MAX_ACTIONS_PER_HOUR)?,
            agent_per_day: self.get(&DEFAULT_MAX_ACTIONS_PER_DAY)?,
            same_number_per_day: self.get(&DEFAULT_MAX_CALLS_PER_DAY_SAME_NUMBER)?,
            spend_per_day_microusd: self.get(&DEFAULT_MAX_SPEND_PER_DAY)?,
            spend_per_month_microusd: self.get(&DEFAULT_MAX_SPEND_PER_MONTH)?,
        })
    }

    fn tls(&mut self) -> Option<Tls> {
        let enabled = self.get(&SSL_ENABLED)?;
        let (cert, key, ca) = (self.get(&SSL_CERT_PATH)?, self.get(&SSL_KEY_PATH)?, self.get(&SSL_CA_PATH)?);
        let asked = self.values.given(&TLS_CLIENT_AUTH.spec).is_some();
        let client_auth = match (self.get(&TLS_CLIENT_AUTH)?, ca) {
            ("required", Some(ca)) => ClientAuth::Required(ca),
            ("optional", Some(ca)) => ClientAuth::Optional(ca),
            ("off", Some(ca)) if !asked => ClientAuth::Optional(ca),
            ("off", _) => ClientAuth::Off,
            _ => {
                let why = "needs SSL_CA_PATH, against which client certificates are verified";
                self.faults.push(self.values.fault(&TLS_CLIENT_AUTH.spec, why));
                ClientAuth::Off
            }
        };
        let (min_version, cipher_suites) = (self.get(&TLS_MIN_VERSION)?, self.get(&TLS_CIPHER_SUITES)?);
        let is_1_3 = |suite: &&str| !suite.contains("_WITH_");
        if min_version == TlsVersion::V1_3 && !cipher_suites.is_empty() && !cipher_suites.iter().any(is_1_3) {
            let why = "has no cipher suite of TLS 1.3, but TLS_MIN_VERSION is 1.3";
            self.faults.push(self.values.fault(&TLS_CIPHER_SUITES.spec, why));
        }
        if enabled {
            for (missing, spec) in [(cert.is_none(), &SSL_CERT_PATH.spec), (key.is_none(), &SSL_KEY_PATH.spec)] {
                // A value that was given but not accepted has its fault already.
                if missing && self.values.given(spec).is_none_or(|given| given.text.trim().is_empty()) {
                    self.faults.push(self.values.fault(spec, "is needed, because SSL_ENABLED is true"));
                }
            }
        }
        let server = match (enabled, cert, key) {
            (true, Some(cert_path), Some(key_path)) => {
                Some(TlsServer { cert_path, key_path, min_version, cipher_suites, client_auth })
            }
            _ => None,
        };
        Some(Tls { server, terminated_upstream: self.get(&TLS_TERMINATED_UPSTREAM)? })
    }

    fn browser(&mut self) -> Option<Browser> {
        let origins = self.get(&CORS_ALLOWED_ORIGINS)?;
        let hsts_max_age = self.get(&HSTS_MAX_AGE)?;
        Some(Browser {
            cors_enabled: self.get(&CORS_ENABLED)?,
            origins: Origins { any_localhost: self.profile == Profile::Development, ..origins },
            allowed_methods: self.get(&CORS_ALLOWED_METHODS)?,
            allowed_headers: self.get(&CORS_ALLOWED_HEADERS)?,
            security_headers: self.get(&SECURITY_HEADERS_ENABLED)?,
            hsts_max_age: self.get(&HSTS_ENABLED)?.then_some(hsts_max_age),
            csp_enabled: self.get(&CSP_ENABLED)?,
            x_frame_options: self.get(&X_FRAME_OPTIONS)?,
        })
    }

    fn records(&mut self) -> Option<Records> {
        Some(Records {
            audit_enabled: self.get(&SECURITY_AUDIT_LOG)?,
            audit_dir: self.get(&AUDIT_DIR)?,
            data_dir: self.get(&DATA_DIR)?,
            anomaly_detector: self.get(&ANOMALY_DETECTOR_ENABLED)?,
            usage_logs_days: self.get(&RETENTION_USAGE_LOGS_DAYS)?,
            call_logs_days: self.get(&RETENTION_CALL_LOGS_DAYS)?,
            revoked_consent_days: self.get(&RETENTION_REVOKED_CONSENT_DAYS)?,
        })
    }
}
