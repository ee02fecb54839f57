//! One running gateway: what its threads share. How they start and end is [`start`].
//!
//! [`Shared`] is what lives in `state/` plus what never changes; [`Snapshot`] is what a reload replaces as a whole. Nothing else crosses
//! from one thread to another.

mod start;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::door::session::Sealer;
use crate::door::sse::Inboxes;
use crate::guard::hosts::Hosts;
use crate::guard::proxies::TrustedProxies;
use crate::guard::{Authenticator, Permissions};
use crate::observe::metrics::WorkerMetrics;
use crate::settings::{Profile, Settings};
use crate::state::connections::ConnectionTable;
use crate::state::credentials::Credentials;
use crate::state::events::EventQueue;
use crate::state::health::HealthFacts;
use crate::state::lifecycle::{Lifecycle, UpstreamState};
use crate::upstream::brokered::ChildrenHandle;

pub use start::{Ended, Gateway, StartError};

/// What all threads share for as long as the process lives.
pub(crate) struct Shared {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) connections: Arc<ConnectionTable>,
    /// The agents' tokens that were issued. The control thread publishes.
    pub(crate) credentials: Arc<ArcSwap<Credentials>>,
    pub(crate) sealer: Sealer,
    /// To the workers that hold the streams of old SSE clients.
    pub(crate) sse_inboxes: Inboxes,
    /// The stdio servers, where there are any.
    pub(crate) children: Option<ChildrenHandle>,
    pub(crate) health: HealthFacts,
    pub(crate) metrics: Vec<Arc<WorkerMetrics>>,
    /// One a worker, and the last for all other threads.
    pub(crate) events: Vec<Arc<EventQueue>>,
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
    pub(crate) hosts: Hosts,
    pub(crate) proxies: TrustedProxies,
    /// TLS of each upstream that has it.
    tls: Vec<Option<Arc<rustls::ClientConfig>>>,
    /// The body of `/.well-known/oauth-protected-resource` (RFC 9728).
    pub(crate) protected_resource: String,
    /// `WWW-Authenticate` of a 401.
    pub(crate) challenge: String,
}

impl Snapshot {
    /// Computes everything from settings that were checked. `bound` is where the bridge door listens.
    pub(crate) fn new(settings: Arc<Settings>, bound: SocketAddr, tls: Vec<Option<Arc<rustls::ClientConfig>>>) -> Self {
        let scheme = if settings.tls.server.is_some() || settings.tls.terminated_upstream { "https" } else { "http" };
        let host = settings.doors.allowed_hosts.first().cloned().unwrap_or_else(|| {
            if bound.ip().is_unspecified() { format!("localhost:{}", bound.port()) } else { bound.to_string() }
        });
        let base = format!("{scheme}://{host}");
        let hosts =
            Hosts::new(&settings.doors.allowed_hosts, &local_addresses(bound.ip()), settings.browser.origins.clone());
        let protected_resource = serde_json::json!({
            "resource": format!("{base}/mcp"),
            "bearer_methods_supported": ["header"],
            "resource_name": "Ringwall",
        })
        .to_string();
        Self {
            authenticator: Authenticator::new(&settings.auth, &settings.policy.agents),
            tcp_authenticator: Authenticator::for_tcp(&settings.auth, &settings.policy.agents),
            permissions: Permissions::new(&settings.policy),
            hosts,
            proxies: TrustedProxies::new(&settings.doors.trusted_proxies),
            tls,
            protected_resource,
            challenge: format!("Bearer resource_metadata=\"{base}/.well-known/oauth-protected-resource/mcp\""),
            settings,
        }
    }

    /// Whether the deny list names this address.
    pub(crate) fn is_denied(&self, ip: IpAddr) -> bool {
        self.settings.auth.ip_denylist.iter().any(|network| network.contains(&ip))
    }

    pub(crate) fn is_production(&self) -> bool {
        self.settings.profile == Profile::Production
    }

    pub(crate) fn tls(&self, upstream: usize) -> Option<Arc<rustls::ClientConfig>> {
        self.tls.get(upstream).cloned().flatten()
    }
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
