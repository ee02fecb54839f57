//! One running gateway: what its threads share. How they start and end is [`start`].
//!
//! [`Shared`] is what lives in `state/` plus what never changes; [`Snapshot`] is what a reload replaces as a whole. Nothing else crosses
//! from one thread to another.

pub(crate) mod desk;
pub mod spending;
mod start;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::door::session::Sealer;
use crate::door::sse::Inboxes;
use crate::gateway::desk::Desk;
use crate::gateway::spending::Spending;
use crate::guard::actions::ActionRules;
use crate::guard::content::ContentFilter;
use crate::guard::hosts::Hosts;
use crate::guard::inspect::Inspection;
use crate::guard::jwt::issuer::IssuerRules;
use crate::guard::jwt::own::{OwnKey, SCOPE};
use crate::guard::outbound::Outbound;
use crate::guard::proxies::TrustedProxies;
use crate::guard::spend::SpendRules;
use crate::guard::{Authenticator, Issued, LimitBook, Permissions, Results};
use crate::observe::metrics::WorkerMetrics;
use crate::settings::{Profile, Settings};
use crate::state::blocks::{Blocks, Rules};
use crate::state::call_records::CallRecords;
use crate::state::connections::ConnectionTable;
use crate::state::credentials::Credentials;
use crate::state::events::EventQueue;
use crate::state::health::HealthFacts;
use crate::state::lifecycle::{Lifecycle, UpstreamState};
use crate::state::networks::Networks;
use crate::state::pins::Pins;
use crate::state::rates::RateTable;
use crate::state::tools::ToolNames;
use crate::upstream::brokered::ChildrenHandle;
use crate::worker::millis;

pub use start::{Ended, Gateway, StartError};

/// What all threads share for as long as the process lives.
pub(crate) struct Shared {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) connections: Arc<ConnectionTable>,
    /// The agents' tokens that were issued. The control thread publishes.
    pub(crate) credentials: Arc<ArcSwap<Credentials>>,
    /// The descriptions of tools that were accepted.
    pub(crate) pins: Arc<Pins>,
    /// Addresses that may not come in, and what counts towards that.
    pub(crate) blocks: Arc<Blocks>,
    /// What each agent may do. The control thread publishes.
    pub(crate) limit_book: Arc<ArcSwap<LimitBook>>,
    pub(crate) sealer: Sealer,
    /// Sessions, the keys of an outside issuer, and the way of token requests to the control thread.
    pub(crate) desk: Desk,
    /// To the workers that hold the streams of old SSE clients.
    pub(crate) sse_inboxes: Inboxes,
    /// The stdio servers, where there are any.
    pub(crate) children: Option<ChildrenHandle>,
    pub(crate) health: HealthFacts,
    /// What calls that cost money go through; `None`: none can be made.
    pub(crate) spending: Option<Arc<Spending>>,
    pub(crate) metrics: Vec<Arc<WorkerMetrics>>,
    /// Calls on their way to a tracing backend; `None`: OTLP is off.
    pub(crate) call_records: Option<Arc<CallRecords>>,
    /// The tools that calls are counted by.
    pub(crate) tools: Arc<ToolNames>,
    /// One a worker, and the last for all other threads.
    pub(crate) events: Vec<Arc<EventQueue>>,
    /// What comes in, by address, client and connection. In memory alone.
    pub(crate) traffic: Arc<RateTable>,
    /// What agents do, by agent and tool. It outlives the process.
    pub(crate) actions: Arc<RateTable>,
}

impl Shared {
    pub(crate) fn metrics(&self, worker: usize) -> Arc<WorkerMetrics> {
        self.metrics.get(worker).cloned().unwrap_or_default()
    }

    pub(crate) fn events(&self, worker: usize) -> Arc<EventQueue> {
        // There is one queue more than there are workers.
        self.events
            .get(worker)
            .or(self.events.last())
            .cloned()
            .unwrap_or_else(|| Arc::new(EventQueue::new(Arc::default())))
    }

    /// The agent whose own token this is, and the token's hash.
    pub(crate) fn agent_of(&self, token: &[u8], now_ms: u64) -> Option<(Arc<str>, [u8; 32])> {
        let tokens = self.credentials.load();
        self.snapshot.load().authenticator.agent_of(token, Issued { tokens: &tokens, now_ms })
    }

    /// Whether the token with this hash is this agent's now.
    pub(crate) fn holds(&self, sha256: &[u8; 32], agent: &str, now_ms: u64) -> bool {
        let tokens = self.credentials.load();
        self.snapshot.load().authenticator.holds(sha256, agent, Issued { tokens: &tokens, now_ms })
    }

    pub(crate) fn upstream_state(&self, index: usize) -> Arc<UpstreamState> {
        self.lifecycle.upstreams().get(index).cloned().unwrap_or_else(|| Arc::new(UpstreamState::new("")))
    }
}

/// Everything that a reload replaces: the settings and what is computed from them.
pub(crate) struct Snapshot {
    pub(crate) settings: Arc<Settings>,
    pub(crate) authenticator: Authenticator,
    /// Of the TCP door.
    pub(crate) tcp_authenticator: Authenticator,
    /// Which tools each principal may list and call.
    pub(crate) permissions: Permissions,
    /// What calls cost, and what may be spent.
    pub(crate) spend: SpendRules,
    /// What must not be in texts that go to people.
    pub(crate) outbound: Outbound,
    /// What attacks are looked for.
    pub(crate) inspection: Inspection,
    /// What is looked for in what tools answer.
    pub(crate) results: Results,
    /// What the policy says of tools that are counted.
    pub(crate) actions: ActionRules,
    pub(crate) hosts: Hosts,
    pub(crate) proxies: TrustedProxies,
    /// TLS of each upstream that has it.
    tls: Vec<Option<Arc<rustls::ClientConfig>>>,
    /// The body of `/.well-known/oauth-protected-resource` (RFC 9728).
    pub(crate) protected_resource: String,
    /// The body of `/.well-known/oauth-authorization-server` (RFC 8414), where there are sessions.
    pub(crate) authorization_server: Option<String>,
    /// What sessions' tokens are signed with; `None`: no session.
    pub(crate) own_key: Option<Arc<OwnKey>>,
    /// What must stand in an outside issuer's tokens; `None`: none is accepted.
    pub(crate) issuer_rules: Option<IssuerRules>,
    /// `WWW-Authenticate` of a 401.
    pub(crate) challenge: String,
}

impl Snapshot {
    /// Computes everything from settings that were checked. `bound` is where the bridge door listens.
    pub(crate) fn new(
        settings: Arc<Settings>,
        bound: SocketAddr,
        tls: Vec<Option<Arc<rustls::ClientConfig>>>,
        filter: Arc<ContentFilter>,
    ) -> Self {
        let scheme = if settings.tls.server.is_some() || settings.tls.terminated_upstream { "https" } else { "http" };
        let host = settings.doors.allowed_hosts.first().cloned().unwrap_or_else(|| {
            if bound.ip().is_unspecified() { format!("localhost:{}", bound.port()) } else { bound.to_string() }
        });
        let base = format!("{scheme}://{host}");
        let hosts =
            Hosts::new(&settings.doors.allowed_hosts, &local_addresses(bound.ip()), settings.browser.origins.clone());
        let auth = &settings.auth;
        let ttl_s = auth.jwt_access_ttl.as_secs();
        // Signing fails for no secret that settings accept; without a key there are no sessions.
        let own_key =
            auth.jwt_secret.as_ref().and_then(|secret| OwnKey::new(secret, &base, &format!("{base}/mcp"), ttl_s).ok());
        let issuer_rules = auth.issuer.as_ref().map(|outside| IssuerRules {
            issuer: outside.issuer.clone(),
            audience: outside.audience.clone(),
            agent_claim: outside.agent_claim.clone(),
        });
        let servers: Vec<&str> = own_key
            .iter()
            .map(|_| base.as_str())
            .chain(issuer_rules.iter().map(|rules| rules.issuer.as_str()))
            .collect();
        Self {
            authenticator: Authenticator::new(&settings.auth, &settings.policy.agents),
            tcp_authenticator: Authenticator::for_tcp(&settings.auth, &settings.policy.agents),
            permissions: Permissions::new(&settings.policy),
            spend: SpendRules::new(&settings),
            outbound: Outbound::new(filter, &settings.policy),
            inspection: Inspection::new(settings.sanitize, &settings.policy),
            results: Results::new(&settings.policy.results),
            actions: ActionRules::new(&settings.policy),
            hosts,
            proxies: TrustedProxies::new(&settings.doors.trusted_proxies),
            tls,
            protected_resource: protected_resource(&base, &servers),
            authorization_server: own_key.is_some().then(|| authorization_server(&base)),
            own_key: own_key.map(Arc::new),
            issuer_rules,
            challenge: format!("Bearer resource_metadata=\"{base}/.well-known/oauth-protected-resource/mcp\""),
            settings,
        }
    }

    pub(crate) fn is_production(&self) -> bool {
        self.settings.profile == Profile::Production
    }

    pub(crate) fn tls(&self, upstream: usize) -> Option<Arc<rustls::ClientConfig>> {
        self.tls.get(upstream).cloned().flatten()
    }
}

/// What the settings say of blocking: what is to be put in force with other settings ([`Blocks::set_rules`]).
pub(crate) fn block_rules(settings: &Settings) -> Rules {
    let auth = &settings.auth;
    Rules {
        max_failed: auth.max_failed_attempts,
        lockout_ms: millis(auth.block_duration),
        abuse_ms: auth.auto_block_enabled.then(|| millis(auth.abuse_block_duration)),
        operators: Networks::of(&auth.admin_ip_allowlist),
        proxies: Networks::of(&settings.doors.trusted_proxies),
        denied: Networks::of(&auth.ip_denylist),
    }
}

/// RFC 9728 §2.
fn protected_resource(base: &str, authorization_servers: &[&str]) -> String {
    let mut document = serde_json::json!({
        "resource": format!("{base}/mcp"),
        "bearer_methods_supported": ["header"],
        "resource_name": "Ringwall",
    });
    if let (false, Some(members)) = (authorization_servers.is_empty(), document.as_object_mut()) {
        members.insert("authorization_servers".to_owned(), authorization_servers.into());
        members.insert("scopes_supported".to_owned(), [SCOPE].as_slice().into());
    }
    document.to_string()
}

/// RFC 8414 §2. There is no authorization endpoint: agents have credentials of their own.
fn authorization_server(base: &str) -> String {
    serde_json::json!({
        "issuer": base,
        "token_endpoint": format!("{base}/oauth/token"),
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "grant_types_supported": ["client_credentials", "refresh_token"],
        "revocation_endpoint": format!("{base}/oauth/revoke"),
        "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        "response_types_supported": [],
        "scopes_supported": [SCOPE],
    })
    .to_string()
}

/// The addresses under which a listener is reached: its own, or all of this host's where it listens on all.
fn local_addresses(bound: IpAddr) -> Vec<IpAddr> {
    if !bound.is_unspecified() {
        return vec![bound];
    }
    match if_addrs::get_if_addrs() {
        Ok(interfaces) => interfaces.into_iter().map(|interface| interface.ip()).collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot list this host's addresses: set ALLOWED_HOSTS to be reachable by them");
            Vec::new()
        }
    }
}
