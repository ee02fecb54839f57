//! Bytes out: the servers behind the gateway, and which of them a message goes to.
//!
//! - [`http`]: Streamable HTTP, one exchange over a pooled connection ([`pool`]); [`tls`] below it.
//! - [`brokered`]: servers that clients share, on a thread of their own.
//! - [`route`]: which upstream a message is for.
//! - [`outgoing`]: the bytes that go there.

pub(crate) mod ask;
pub mod brokered;
pub(crate) mod catalog;
pub(crate) mod converse;
pub(crate) mod http;
pub(crate) mod link;
pub(crate) mod merge;
pub(crate) mod outgoing;
pub(crate) mod pool;
pub(crate) mod route;
pub mod tls;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::gateway::{Shared, Snapshot};
use crate::guard::Principal;
use crate::observe::metrics::WorkerMetrics;
use crate::rpc::{Envelope, Era};
use crate::settings::policy::UpstreamTarget;
use crate::state::tools::ToolNames;
use crate::wire::http1::request::RequestHead;
use brokered::ChildState;
use http::HttpUpstream;

pub(crate) use outgoing::Outgoing;
pub(crate) use route::Target;

/// A message on its way, with all that routing and forwarding look at.
pub(crate) struct Message<'a> {
    pub(crate) envelope: &'a Envelope,
    pub(crate) raw: &'a [u8],
    pub(crate) era: Era,
    pub(crate) carried: Carried<'a>,
    pub(crate) sender: Sender<'a>,
}

/// Where the header fields for an upstream over HTTP come from.
#[derive(Clone, Copy)]
pub(crate) enum Carried<'a> {
    /// From the request that the message came in.
    Head {
        /// The request's head.
        head: &'a RequestHead,
        /// The bytes that its spans point into.
        bytes: &'a [u8],
    },
    /// From the message, which came over a door that knows no heads.
    Bare(Bare<'a>),
}

/// What the fields of a message without a head are made from.
#[derive(Clone, Copy)]
pub(crate) struct Bare<'a> {
    /// `MCP-Protocol-Version`; none before a session has agreed on one.
    pub(crate) version: Option<&'a str>,
    /// `Mcp-Method`, in 2026-07-28.
    pub(crate) method: Option<&'a str>,
    /// `Mcp-Name`, where the method has one.
    pub(crate) name: Option<&'a str>,
}

/// Who a message is from, as far as upstreams that are shared must tell clients apart.
#[derive(Clone, Copy)]
pub(crate) enum Sender<'a> {
    /// A principal, of whom the tag is computed only where it is asked for.
    Principal(&'a Principal),
    /// Its tag.
    Tag(u64),
}

impl Sender<'_> {
    /// [`Principal::short_tag`].
    pub(crate) fn short_tag(self) -> u64 {
        match self {
            Self::Principal(principal) => principal.short_tag(),
            Self::Tag(tag) => tag,
        }
    }
}

/// The upstreams as one worker sees them.
pub(crate) struct Upstreams {
    all: Vec<Upstream>,
    /// Whose a listed name is, where there are several.
    pub(crate) directory: route::Directory,
    /// What is listed is what metrics may tell apart.
    tools: Arc<ToolNames>,
}

/// One upstream as one worker sees it.
pub(crate) struct Upstream {
    pub(crate) name: String,
    /// Its part in sealed session ids.
    pub(crate) tag: u32,
    pub(crate) kind: UpstreamKind,
    /// The worker's own connections to it, where it speaks messages over a socket without TLS.
    pub(crate) links: Option<Rc<link::Links>>,
    /// The control plane finds out whether it can be reached.
    is_probed: bool,
    pub(crate) call_timeout_ms: u64,
    pub(crate) catalog: catalog::Catalog,
    /// Header lines put into every call, each with its line end.
    extra_fields: zeroize::Zeroizing<Vec<u8>>,
    /// Their names: the client's own fields of that name do not go on.
    replaced_fields: Vec<String>,
}

/// How it is reached.
pub(crate) enum UpstreamKind {
    Http(Rc<HttpUpstream>),
    /// Its number among those that the broker's thread serves: stdio and sockets.
    Child(usize),
}

impl Upstreams {
    pub(crate) fn new(shared: &Shared, snapshot: &Snapshot) -> Self {
        let mut children = 0;
        let mut all = Vec::new();
        for (index, settings) in snapshot.settings.policy.upstreams.iter().enumerate() {
            let call_timeout_ms = crate::worker::millis(settings.call_timeout);
            let kind = match &settings.target {
                UpstreamTarget::Http(target) => UpstreamKind::Http(Rc::new(HttpUpstream::new(
                    target.clone(),
                    settings,
                    shared.upstream_state(index),
                    snapshot.tls(index),
                ))),
                UpstreamTarget::Stdio(_) | UpstreamTarget::Socket(_) => {
                    children += 1;
                    UpstreamKind::Child(children - 1)
                }
            };
            let mut extra_fields = zeroize::Zeroizing::new(Vec::new());
            for header in &settings.headers {
                crate::wire::http1::write::field(&mut extra_fields, &header.name, header.value.expose());
            }
            let mut replaced: Vec<String> = settings.headers.iter().map(|header| header.name.clone()).collect();
            replaced.extend(settings.credential.iter().map(|credential| credential.how.header().to_owned()));
            let tag = crate::door::session::upstream_tag(&settings.name);
            let links = match &settings.target {
                UpstreamTarget::Socket(target) if !target.tls => {
                    let state = shared.upstream_state(index);
                    Some(link::Links::new(index, target, settings, &extra_fields, state))
                }
                _ => None,
            };
            all.push(Upstream {
                name: settings.name.clone(),
                tag,
                kind,
                links,
                is_probed: !matches!(settings.target, UpstreamTarget::Stdio(_)),
                call_timeout_ms,
                catalog: catalog::Catalog::default(),
                extra_fields,
                replaced_fields: replaced,
            });
        }
        Self { all, directory: route::Directory::default(), tools: shared.tools.clone() }
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Upstream> {
        self.all.get(index)
    }

    /// Whether there is more than one.
    pub(crate) fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// All of them, in the settings' order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Upstream)> {
        self.all.iter().enumerate()
    }

    /// Publishes which stdio servers can be called; the others are probed by the control plane.
    pub(crate) fn publish_children(&self, shared: &Shared) {
        let Some(children) = &shared.children else { return };
        for (index, upstream) in self.iter() {
            if let UpstreamKind::Child(child) = upstream.kind
                && !upstream.is_probed
            {
                let usable = !matches!(children.state(child), ChildState::Failed | ChildState::BackingOff);
                shared.upstream_state(index).set_reachable(usable);
            }
        }
    }

    /// Gives up calls over links that have taken too long.
    pub(crate) fn tick(&self, now_ms: u64) {
        for links in self.all.iter().filter_map(|upstream| upstream.links.as_ref()) {
            links.tick(now_ms);
        }
    }

    /// Publishes how many connections of this worker wait for a call.
    pub(crate) fn publish_idle(&self, metrics: &WorkerMetrics) {
        for (upstream, idle) in self.all.iter().zip(&metrics.upstream_idle) {
            if let UpstreamKind::Http(http) = &upstream.kind {
                idle.store(http.idle_connections() as u64, Ordering::Relaxed);
            }
        }
    }

    /// The upstream's own name of a tool, where its clients may put the upstream's in front.
    pub(crate) fn own_name<'n>(&self, index: usize, name: &'n str) -> &'n str {
        let upstream = self.get(index).filter(|_| self.are_several());
        let own = upstream.and_then(|one| name.strip_prefix(one.name.as_str())?.strip_prefix(route::SEPARATOR));
        own.unwrap_or(name)
    }

    /// Closes pooled connections that are of no use any more.
    pub(crate) fn sweep(&self, now_ms: u64) {
        for upstream in &self.all {
            if let UpstreamKind::Http(http) = &upstream.kind {
                http.sweep(now_ms);
            }
        }
    }
}

impl Upstream {
    /// The header lines of the policy, for this upstream.
    pub(crate) fn extra_fields(&self) -> &[u8] {
        &self.extra_fields
    }
}
