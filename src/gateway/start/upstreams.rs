//! What a gateway's upstreams need, made from their settings: TLS, names to resolve, the thread of those that clients share.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustls::pki_types::ServerName;

use super::StartError;
use crate::control::probes;
use crate::observe::metrics::{BrokerCounts, BrokerSource, ServerCounts};
use crate::settings::Settings;
use crate::settings::policy::{EnvValue, SocketTarget, SocketTransport, StdioTarget, Upstream, UpstreamTarget};
use crate::state::lifecycle::{Lifecycle, UpstreamState};
use crate::upstream::brokered::{self, ChildCounters, ChildSpec, ChildrenHandle, ProgramSpec, Server, SocketSpec};

/// TLS of each upstream that has it.
pub(super) fn upstream_tls(settings: &Settings) -> Result<Vec<Option<Arc<rustls::ClientConfig>>>, StartError> {
    let one = |upstream: &Upstream| {
        let tls = match &upstream.target {
            UpstreamTarget::Http(target) => target.tls,
            UpstreamTarget::Socket(target) => target.tls,
            UpstreamTarget::Stdio(_) => false,
        };
        if !tls {
            return Ok(None);
        }
        let mut config = crate::upstream::tls::client_config(upstream.tls.ca_file.as_deref())
            .map_err(|why| StartError::UpstreamTls { name: upstream.name.clone(), why })?;
        if matches!(&upstream.target, UpstreamTarget::Socket(target) if target.transport == SocketTransport::Lines) {
            // Lines have no name that could be negotiated, and are not HTTP.
            Arc::make_mut(&mut config).alpn_protocols.clear();
        }
        Ok(Some(config))
    };
    settings.policy.upstreams.iter().map(one).collect()
}

/// Upstreams with a network address, to be resolved and probed.
pub(super) fn probe_targets(settings: &Settings, lifecycle: &Lifecycle) -> Vec<probes::Target> {
    let pairs = settings.policy.upstreams.iter().zip(lifecycle.upstreams());
    pairs
        .filter_map(|(upstream, state)| {
            let (host, port) = match &upstream.target {
                UpstreamTarget::Http(target) => (&target.host, target.port),
                UpstreamTarget::Socket(target) => (&target.host, target.port),
                UpstreamTarget::Stdio(_) => return None,
            };
            // An address in the URL needs no resolver, and must work from the first call on.
            if let Ok(ip) = host.parse::<IpAddr>() {
                state.addresses.publish(vec![SocketAddr::new(ip, port)]);
            }
            Some(probes::Target { upstream: state.clone(), host: host.clone(), port })
        })
        .collect()
}

/// What `/metrics` asks the broker's thread.
pub(super) fn broker_source(handle: &ChildrenHandle, settings: &Settings) -> BrokerSource {
    let shared = settings.policy.upstreams.iter().filter(|one| !matches!(one.target, UpstreamTarget::Http(_)));
    let names: Vec<String> = shared.map(|upstream| upstream.name.clone()).collect();
    let handle = handle.clone();
    BrokerSource(Arc::new(move || {
        let server = |(child, name): (usize, &String)| {
            let ChildCounters { instances, starts, crashes, dropped, bad_lines } = handle.counters(child);
            ServerCounts { upstream: name.clone(), instances, starts, crashes, dropped, bad_lines }
        };
        let servers = names.iter().enumerate().map(server).collect();
        BrokerCounts { queued: handle.queued() as u64, in_flight: handle.in_flight() as u64, servers }
    }))
}

/// The thread of the servers that clients share, where there are any.
pub(super) type Children = Option<(ChildrenHandle, JoinHandle<()>)>;

/// Starts the thread of the servers that clients share: programs, and sockets.
pub(super) fn start_children(
    settings: &Settings,
    lifecycle: &Lifecycle,
    tls: &[Option<Arc<rustls::ClientConfig>>],
) -> Result<Children, StartError> {
    let mut specs = Vec::new();
    for (index, (upstream, state)) in settings.policy.upstreams.iter().zip(lifecycle.upstreams()).enumerate() {
        let mut spec = match &upstream.target {
            UpstreamTarget::Http(_) => continue,
            UpstreamTarget::Stdio(target) => {
                // A stdio server is started when it is needed; that it can be is as much as can be known.
                state.set_reachable(true);
                let mut spec = ChildSpec::new(&upstream.name, Vec::new());
                spec.server = Server::Program(program(target));
                spec.max_instances = target.max_instances.into();
                spec
            }
            UpstreamTarget::Socket(target) => {
                let config = tls.get(index).cloned().flatten();
                let mut spec = ChildSpec::socket(&upstream.name, socket(upstream, target, state, config)?);
                spec.max_instances = target.max_instances.into();
                spec
            }
        };
        spec.calls = Arc::clone(&state.calls);
        spec.max_message_bytes = crate::bounds::MAX_HELD_ANSWER_BYTES;
        spec.session_idle = settings.auth.session_timeout;
        specs.push(spec);
    }
    if specs.is_empty() {
        return Ok(None);
    }
    Ok(Some(brokered::spawn(specs)?))
}

fn program(target: &StdioTarget) -> ProgramSpec {
    let value = |value: &EnvValue| String::from_utf8_lossy(value.0.expose()).into_owned();
    ProgramSpec {
        command: target.command.clone(),
        env: target.env.iter().map(|(name, secret)| (name.clone(), value(secret))).collect(),
        cwd: target.cwd.clone(),
    }
}

fn socket(
    upstream: &Upstream,
    target: &SocketTarget,
    state: &Arc<UpstreamState>,
    config: Option<Arc<rustls::ClientConfig>>,
) -> Result<SocketSpec, StartError> {
    let tls = match config {
        None => None,
        Some(config) => {
            let name = upstream.tls.server_name.as_ref().unwrap_or(&target.host).clone();
            let name = ServerName::try_from(name).map_err(|error| StartError::UpstreamTls {
                name: upstream.name.clone(),
                why: format!("its name cannot be in a certificate: {error}"),
            })?;
            Some((config, name))
        }
    };
    let mut fields = zeroize::Zeroizing::new(Vec::new());
    for header in &upstream.headers {
        crate::wire::http1::write::field(&mut fields, &header.name, header.value.expose());
    }
    let (target, upstream, connect_timeout) = (target.clone(), state.clone(), upstream.connect_timeout);
    let ping_every = std::time::Duration::from_millis(crate::bounds::WEBSOCKET_PING_MS);
    Ok(SocketSpec { target, upstream, tls, fields, connect_timeout, ping_every })
}
