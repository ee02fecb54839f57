//! The admin listener: metrics, and what an operator with the orchestrator token may see and do.
//!
//! | path | who |
//! |---|---|
//! | `/health`, `/health/ready` | anyone who reaches the listener |
//! | the metrics path | loopback, an address that `ADMIN_IP_ALLOWLIST` names, or the orchestrator token |
//! | `/admin/…` | the orchestrator token, from an address that the list allows |
//!
//! The routes of operators stand in one place, and the OpenAPI document is read off them: one file a resource, each with its types.
//!
//! A change is answered when its line in the audit trail is on disk, wherever the disk takes it ([`AuditSignals::on_disk`]).
//!
//! `ADMIN_IP_ALLOWLIST`, when it is set, is asked first and for everything. Without an orchestrator token `/admin/…` answers 503
//! `admin_disabled`: never open. An agent's token is known as that and answered 403. Errors are RFC 9457 problem details. Tokens are compared as SHA-256, in constant time.

mod accept;
pub mod agents;
pub mod alerts;
pub mod audit;
pub mod billing;
pub mod blocks;
pub mod connections;
mod document;
pub mod limits;
pub mod providers;
pub mod sessions;
pub mod tokens;
pub mod tools;
pub mod verification;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::audit::{AuditPlace, Turnstile};
use self::document::{Document, Guarded};
use self::limits::LimitedTool;
use self::verification::Verifications;
use super::alerts::Alerts;
use super::audit::AuditSignals;
use super::blocks::Blocking;
use super::health::{self, HealthSource};
use super::http::{answer, json, problem};
use super::limits::GivenLimits;
use super::oauth::OAuth;
use super::pins::ToolPins;
use super::tokens::Tokens;
use crate::gateway::spending::Spending;
use crate::guard::Denial;
use crate::guard::blocks::denial;
use crate::guard::rates::Traffic;
use crate::observe::metrics::{CONTENT_TYPE, MetricSources};
use crate::settings::policy::Agent;
use crate::state::blocks::Place;
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
    /// The effective settings, secrets masked.
    pub settings: SettingsShown,
    /// The agents of the policy file.
    pub agents: Vec<Agent>,
    /// Where the audit trail is, if there is one.
    pub audit: Option<AuditPlace>,
    /// The limits of what reaches the gateway; `None`: there are none.
    pub traffic: Option<Traffic>,
    /// Tools that the policy names and limits.
    pub limited_tools: Vec<LimitedTool>,
    /// What becomes of tools whose descriptions have changed, in the policy's word.
    pub pin: String,
}

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) config: Arc<AdminConfig>,
    pub(crate) metrics: Arc<MetricSources>,
    pub(crate) health: HealthSource,
    pub(crate) events: Arc<EventQueue>,
    pub(crate) audit: AuditSignals,
    pub(crate) connections: Arc<ConnectionTable>,
    pub(crate) alerts: Alerts,
    pub(crate) spending: Option<Arc<Spending>>,
    pub(crate) store: Store,
    pub(crate) tokens: Tokens,
    pub(crate) blocking: Blocking,
    pub(crate) limits: GivenLimits,
    pub(crate) pins: ToolPins,
    pub(crate) vault: Vault,
    /// Where `JWT_SECRET` is set.
    pub(crate) sessions: Option<Arc<OAuth>>,
    /// One search of the audit trail at a time.
    pub(crate) searches: Turnstile,
    pub(crate) verifications: Arc<Verifications>,
}

pub(super) type Peer = Extension<ConnectInfo<SocketAddr>>;

/// What operators can ask for, and the document that says so.
fn operators_routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(agents::list))
        .routes(routes!(agents::read))
        .routes(routes!(limits::list))
        .routes(routes!(limits::read, limits::give, limits::take_back))
        .routes(routes!(tokens::list, tokens::issue))
        .routes(routes!(tokens::read, tokens::revoke))
        .routes(routes!(tokens::rotate))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::end))
        .routes(routes!(connections::list))
        .routes(routes!(connections::close))
        .routes(routes!(blocks::list, blocks::add))
        .routes(routes!(blocks::lift))
        .routes(routes!(alerts::list))
        .routes(routes!(audit::search))
        .routes(routes!(verification::begin, verification::read))
        .routes(routes!(billing::read))
        .routes(routes!(tools::list))
        .routes(routes!(tools::accept))
        .routes(routes!(upstreams))
        .routes(routes!(settings))
        .routes(routes!(providers::list))
        .routes(routes!(providers::put, providers::remove))
        .routes(routes!(providers::rotate))
}

/// All routes of the admin listener.
pub(crate) fn router(admin: Admin) -> Router {
    let (operator, document) = operators_routes().split_for_parts();
    let document: Arc<str> = document.to_json().unwrap_or_default().into();
    let operator = operator
        .route("/admin/openapi.json", get(|| async move { answer(200, "application/json", document.to_string()) }))
        .method_not_allowed_fallback(|| async {
            problem(405, "method_not_allowed", "This resource has other methods.")
        })
        .route_layer(middleware::from_fn_with_state(admin.clone(), told_when_recorded))
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
        Event::new(EventKind::BlockedConnection, admin.now_ms()).with_ip(ip).with_rule("admin-allowlist"),
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

/// Whoever was told of a change finds it in the trail, whatever happens next.
async fn told_when_recorded(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let changes = ![Method::GET, Method::HEAD].contains(request.method());
    let response = next.run(request).await;
    if changes && response.status().is_success() {
        // Where the disk refuses, the line waits in memory, and the change has happened all the same.
        admin.audit.on_disk().await;
    }
    response
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

/// An upstream as it is told.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct UpstreamShown {
    /// Its name in the policy file.
    pub name: String,
    /// Whether the last probe, or the child process, answered.
    pub reachable: bool,
    /// `closed`, `open` or `half-open`.
    pub breaker: String,
    /// Where it is; empty for one that has no address.
    pub addresses: Vec<String>,
}

/// All upstreams.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct UpstreamsShown {
    /// In the order of the policy file.
    pub upstreams: Vec<UpstreamShown>,
}

/// The upstreams, and whether they answer
#[utoipa::path(get, path = "/admin/upstreams", operation_id = "listUpstreams",
    responses((status = 200, description = "All of them", body = UpstreamsShown), Guarded))]
async fn upstreams(State(admin): State<Admin>) -> Response {
    let shown = admin.health.lifecycle.upstreams().iter().map(|upstream| UpstreamShown {
        name: upstream.name().to_owned(),
        reachable: upstream.is_reachable(),
        breaker: upstream.breaker().name().to_owned(),
        addresses: upstream.addresses.load().iter().map(ToString::to_string).collect(),
    });
    json(200, &UpstreamsShown { upstreams: shown.collect() })
}

/// A setting in force.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct SettingShown {
    /// The environment variable, or the key of the policy file.
    pub name: String,
    /// Its value; a secret is masked.
    pub value: String,
    /// Where it comes from.
    pub source: String,
}

/// All settings in force.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
pub struct SettingsShown {
    /// In the order of `ringwall check`.
    pub settings: Vec<SettingShown>,
}

/// The settings in force, secrets masked
#[utoipa::path(get, path = "/admin/settings", operation_id = "readSettings",
    responses((status = 200, description = "All of them", body = SettingsShown), Guarded))]
async fn settings(State(admin): State<Admin>) -> Response {
    json(200, &admin.config.settings)
}

impl Admin {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64 {
        (self.health.clock)()
    }

    /// Whether this is the hash of an agent's token: one that was issued, or of the policy file.
    fn is_agents(&self, sha256: &[u8; 32]) -> bool {
        let of_policy = self.config.agents.iter().filter_map(|agent| agent.token_sha256.as_ref());
        self.tokens.is_agents(sha256) || of_policy.fold(false, |found, known| found | bool::from(known.ct_eq(sha256)))
    }

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
        let blocks = self.blocking.blocks();
        let ip = ip.to_canonical();
        if let Some(found) = blocks.find(ip, Place::Control, self.now_ms()) {
            // Its connection is about to be closed: only what it had sent already comes here.
            blocks.note_refused();
            return Err(Box::new(locked_out(&denial(found, self.now_ms()))));
        }
        let Some(token) = bearer(headers) else {
            return Err(Box::new(unauthorized("missing_token", "Use: Authorization: Bearer <orchestrator token>")));
        };
        let shown: [u8; 32] = Sha256::digest(token).into();
        if bool::from(shown.ct_eq(expected)) {
            blocks.succeeded(ip, Place::Control);
            return Ok(());
        }
        // The event first: it comes before that of a lockout.
        let event = Event::new(EventKind::InvalidAuth, self.now_ms()).with_ip(ip).with_rule("admin-token");
        let is_agents = self.is_agents(&shown);
        self.record(event, if is_agents { "an agent's token at the admin API" } else { "admin API" });
        blocks.failed(ip, Place::Control, self.now_ms());
        if is_agents {
            return Err(Box::new(problem(403, "admin_required", "Admin access required.")));
        }
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

/// What a blocked client is told that was let in before it was blocked.
fn locked_out(denial: &Denial) -> Response {
    let retry_after = denial.retry_after_s().and_then(|seconds| HeaderValue::try_from(seconds.to_string()).ok());
    let mut response = match &retry_after {
        Some(_) => problem(429, "locked_out", &denial.text()),
        None => problem(403, "blocked", &denial.text()),
    };
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

fn unauthorized(code: &str, detail: &str) -> Response {
    let mut response = problem(401, code, detail);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
