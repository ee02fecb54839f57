//! The admin listener: metrics, and what an operator with the orchestrator token may see and do.
//!
//! | path | who |
//! |---|---|
//! | `/health`, `/health/ready` | anyone who reaches the listener |
//! | the metrics path | loopback, an address that `ADMIN_IP_ALLOWLIST` names, or the orchestrator token |
//! | `/admin/…` | the orchestrator token, from an address that the list allows |
//!
//! `ADMIN_IP_ALLOWLIST`, when it is set, is asked first and for everything. Without an orchestrator token `/admin/…` answers 503
//! `admin_disabled`: never open. Errors are RFC 9457 problem details. Tokens are compared as SHA-256, in constant time.

mod alerts;
pub mod connections;
pub mod providers;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::alerts::Alerts;
use super::health::{self, HealthSource};
use super::http::{answer, problem};
use super::tokens::Tokens;
use crate::observe::metrics::{CONTENT_TYPE, MetricSources};
use crate::state::connections::ConnectionTable;
use crate::state::events::{Event, EventKind, EventQueue};
use crate::store::Store;
use crate::vault::Vault;

/// What the admin listener is told by the settings.
#[derive(Clone, Default)]
pub struct AdminConfig {
    /// SHA-256 of `ORCHESTRATOR_SECURITY_TOKEN`; `None`: the admin API is disabled.
    pub token_sha256: Option<[u8; 32]>,
    /// `ADMIN_IP_ALLOWLIST`; empty: any address.
    pub allowlist: Vec<IpNet>,
    /// `METRICS_PATH`; `None` when `METRICS_ENABLED=false`.
    pub metrics_path: Option<String>,
    /// The effective settings as JSON, secrets masked, for `GET /admin/settings`.
    pub settings_json: String,
}

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) config: Arc<AdminConfig>,
    pub(crate) metrics: Arc<MetricSources>,
    pub(crate) health: HealthSource,
    pub(crate) events: Arc<EventQueue>,
    pub(crate) connections: Arc<ConnectionTable>,
    pub(crate) alerts: Alerts,
    #[allow(dead_code, reason = "the routes that need it come with their tables")]
    pub(crate) store: Store,
    #[allow(dead_code, reason = "the routes that need it come with their tables")]
    pub(crate) tokens: Tokens,
    pub(crate) vault: Vault,
}

pub(super) type Peer = Extension<ConnectInfo<SocketAddr>>;

/// All routes of the admin listener.
pub(crate) fn router(admin: Admin) -> Router {
    let operator = Router::new()
        .route("/admin/connections", get(connections::list))
        .route("/admin/connections/{id}", delete(connections::close))
        .route("/admin/alerts", get(alerts::list))
        .route("/admin/providers", get(providers::list))
        .route("/admin/providers/{name}", put(providers::put).delete(providers::remove))
        .route("/admin/vault/rotate", post(providers::rotate))
        .route("/admin/upstreams", get(upstreams))
        .route("/admin/settings", get(settings))
        .route("/admin/openapi.json", get(openapi))
        .method_not_allowed_fallback(|| async {
            problem(405, "method_not_allowed", "This resource has other methods.")
        })
        .route_layer(middleware::from_fn_with_state(admin.clone(), operators_only));
    let mut router = Router::new();
    if let Some(path) = &admin.config.metrics_path {
        router = router.route(path, get(metrics));
    }
    let health = health::router(admin.health.clone());
    router
        .merge(operator)
        .with_state(admin.clone())
        .merge(health)
        .fallback(|| async { problem(404, "not_found", "There is no such resource.") })
        .layer(middleware::from_fn_with_state(admin, allowed_addresses_only))
}

/// The outermost check: the address list.
async fn allowed_addresses_only(State(admin): State<Admin>, peer: Peer, request: Request, next: Next) -> Response {
    let ip = peer.0.0.ip().to_canonical();
    if admin.config.allowlist.is_empty() || admin.lists(ip) {
        return next.run(request).await;
    }
    admin.record(
        Event::new(EventKind::BlockedConnection, (admin.health.clock)()).with_ip(ip).with_rule("admin-allowlist"),
        "BLOCKED",
    );
    problem(403, "forbidden", "This address may not use the admin listener.")
}

/// The check before `/admin/…`: the token.
async fn operators_only(State(admin): State<Admin>, peer: Peer, request: Request, next: Next) -> Response {
    match admin.check_token(peer.0.0.ip(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => *refusal,
    }
}

async fn metrics(State(admin): State<Admin>, peer: Peer, headers: HeaderMap) -> Response {
    let ip = peer.0.0.ip().to_canonical();
    if !ip.is_loopback()
        && !admin.lists(ip)
        && let Err(refusal) = admin.check_token(ip, &headers)
    {
        return *refusal;
    }
    match admin.metrics.encode() {
        Ok(text) => answer(200, CONTENT_TYPE, text),
        Err(_) => problem(500, "encoding_failed", "The metrics could not be encoded."),
    }
}

async fn upstreams(State(admin): State<Admin>) -> Response {
    let lifecycle = &admin.health.lifecycle;
    let items = lifecycle.upstreams().iter().map(|upstream| {
        let addresses: Vec<_> = upstream.addresses.load().iter().map(ToString::to_string).collect();
        serde_json::json!({
            "name": upstream.name(),
            "reachable": upstream.is_reachable(),
            "breaker": upstream.breaker().name(),
            "addresses": addresses,
        })
    });
    let items: Vec<_> = items.collect();
    answer(200, "application/json", serde_json::json!({ "upstreams": items }).to_string())
}

async fn settings(State(admin): State<Admin>) -> Response {
    answer(200, "application/json", admin.config.settings_json.clone())
}

async fn openapi() -> Response {
    answer(200, "application/json", include_str!("admin/openapi.json"))
}

impl Admin {
    /// Whether the address list names the address.
    fn lists(&self, ip: IpAddr) -> bool {
        self.config.allowlist.iter().any(|net| net.contains(&ip))
    }

    /// Who calls must show the orchestrator token.
    fn check_token(&self, ip: IpAddr, headers: &HeaderMap) -> Result<(), Box<Response>> {
        let Some(expected) = &self.config.token_sha256 else {
            let detail = "No ORCHESTRATOR_SECURITY_TOKEN is set; the admin API is disabled.";
            return Err(Box::new(problem(503, "admin_disabled", detail)));
        };
        let Some(token) = bearer(headers) else {
            return Err(Box::new(unauthorized("missing_token", "Use: Authorization: Bearer <orchestrator token>")));
        };
        let shown: [u8; 32] = Sha256::digest(token).into();
        if bool::from(shown.ct_eq(expected)) {
            return Ok(());
        }
        let event = Event::new(EventKind::InvalidAuth, (self.health.clock)()).with_ip(ip).with_rule("admin-token");
        self.record(event, "admin API");
        Err(Box::new(unauthorized("invalid_token", "The token is not valid.")))
    }

    /// A full queue is counted by the queue itself; the request is refused anyway.
    fn record(&self, event: Event, details: &str) {
        let _ = self.events.push(event.with_details(format_args!("{details}")));
    }
}

/// The credentials of `Authorization: Bearer`, exactly one header (RFC 6750, 2.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

fn unauthorized(code: &str, detail: &str) -> Response {
    let mut response = problem(401, code, detail);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
