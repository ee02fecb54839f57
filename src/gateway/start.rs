//! Starting a gateway, and ending it in order. What its upstreams need is made in [`upstreams`].

mod upstreams;

use std::collections::hash_map::RandomState;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use self::upstreams::{Children, broker_source, probe_targets, start_children, upstream_tls};
use crate::control::admin::audit::AuditPlace;
use crate::control::admin::limits::limited_tools;
use crate::control::admin::{AdminConfig, SettingShown, SettingsShown};
use crate::control::alerts::Alerts;
use crate::control::alerts::webhook::{Patience, Webhook, WebhookConfig};
use crate::control::anomaly::facts::Mailbox;
use crate::control::audit::{AuditConfig, AuditShared, AuditWriter, line, pseudonym};
use crate::control::blocks::Blocking;
use crate::control::counters::{Counters, CountersError};
use crate::control::limits::{GivenLimits, RateTables};
use crate::control::oauth::jwks::JwksConfig;
use crate::control::oauth::{OAuthConfig, SessionsConfig};
use crate::control::otlp::OtlpConfig;
use crate::control::pins::ToolPins;
use crate::control::tokens::Tokens;
use crate::control::{self, ControlConfig, ControlPlane, ControlShared, keys, tokens};
use crate::door::session::Sealer;
use crate::door::sse::Inboxes;
use crate::gateway::desk::{Desk, Visits};
use crate::gateway::spending::Spending;
use crate::gateway::{Shared, Snapshot, block_rules};
use crate::guard::LimitBook;
use crate::guard::rates::Traffic;
use crate::guard::spend::SpendRules;
use crate::observe::metrics::{AlertMetrics, MetricSources, SpendMetrics, WorkerMetrics};
use crate::settings::Settings;
use crate::state::blocks::view::MAX_HOSTS;
use crate::state::blocks::{Blocks, MAX_OPERATORS};
use crate::state::call_records::CallRecords;
use crate::state::connections::ConnectionTable;
use crate::state::events::{Bell, Event, EventKind, EventQueue};
use crate::state::health::HealthFacts;
use crate::state::lifecycle::{Door, Lifecycle, Phase, UpstreamState};
use crate::state::pins::{Given, Pins};
use crate::state::rates::RateTable;
use crate::state::spend::Day;
use crate::state::tools::ToolNames;
use crate::store::blocks::StoredBlock;
use crate::store::{Store, StoreThreads};
use crate::vault::{self, Vault};
use crate::worker::runtime::{DriverKind, Listeners};

/// Why a gateway does not start. Each says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener cannot be bound.
    #[error("cannot listen on {address} ({variable}): {source}")]
    Listen {
        /// The setting that names the port.
        variable: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// TLS on the listeners is asked for.
    #[error(
        "SSL_ENABLED=true: this version does not serve TLS itself, and will not serve plain text in its place. Put a load balancer that \
         does in front, and say so with TLS_TERMINATED_UPSTREAM=true"
    )]
    NoTls,
    /// A key file cannot be read or made.
    #[error(transparent)]
    Key(#[from] crate::control::keys::KeyError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] crate::store::OpenError),
    /// The database was opened and cannot be read.
    #[error("the database cannot be read: {0}")]
    Unread(#[from] crate::store::StoreError),
    /// The file of counters cannot be used.
    #[error(transparent)]
    Counters(#[from] CountersError),
    /// The audit trail cannot be written.
    #[error(transparent)]
    Audit(#[from] crate::control::audit::StartError),
    /// TLS of an upstream cannot be set up.
    #[error("upstream {name}: {why}")]
    UpstreamTls {
        /// The upstream.
        name: String,
        /// A sentence.
        why: String,
    },
    /// A list of the content filter cannot be read.
    #[error("content list {}: {why}", path.display())]
    ContentList {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it, and where.
        why: String,
    },
    /// Alerts cannot be sent.
    #[error(transparent)]
    Webhook(#[from] crate::control::alerts::webhook::Unusable),
    /// TLS to `JWKS_URL` cannot be set up.
    #[error("JWKS_URL: {0}")]
    JwksTls(String),
    /// The system gives no thread or runtime.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A gateway that runs. [`Gateway::wait`] returns when it has ended.
pub struct Gateway {
    bridge: SocketAddr,
    tcp: SocketAddr,
    health: SocketAddr,
    admin: SocketAddr,
    driver: DriverKind,
    shared: Arc<Shared>,
    control: ControlPlane,
    audit: AuditWriter,
    store: StoreThreads,
    children: Children,
    workers: Vec<JoinHandle<std::io::Result<()>>>,
}

/// How a gateway ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// As it should: all calls answered, all records written.
    Cleanly,
    /// Not quite: a sentence for the log.
    Otherwise(String),
}

impl Gateway {
    /// Binds everything, then starts every thread. Where anything is refused, nothing is left running but what the process's end takes
    /// with it.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(loaded: crate::settings::Loaded) -> Result<Self, StartError> {
        if loaded.settings.tls.server.is_some() {
            return Err(StartError::NoTls);
        }
        let effective = effective(&loaded);
        let settings = Arc::new(loaded.settings);
        let cores = crate::sys::thread::usable_cores();
        let count = settings.doors.workers.unwrap_or(cores.len());
        let doors_at = settings.doors.bind_address;
        let bridge = bind_workers("MCP_BRIDGE_PORT", SocketAddr::new(doors_at, settings.doors.bridge_port), count)?;
        let tcp = bind_workers("MCP_TCP_PORT", SocketAddr::new(doors_at, settings.doors.tcp_port), count)?;
        let tcp_at = tcp.first().map_or_else(unspecified, |l| l.local_addr().unwrap_or_else(|_| unspecified()));
        let bound = bridge.first().map_or_else(unspecified, |l| l.local_addr().unwrap_or_else(|_| unspecified()));
        let doors = &settings.doors;
        let health = bind("MCP_HEALTH_PORT", SocketAddr::new(doors.bind_address, doors.health_port))?;
        let admin = bind("ADMIN_PORT", SocketAddr::new(doors.admin_bind_address, doors.admin_port))?;
        let (health_at, admin_at) = (health.local_addr()?, admin.local_addr()?);
        let driver = crate::worker::runtime::probe_driver(doors.io_driver);

        let states: Vec<Arc<UpstreamState>> = settings
            .policy
            .upstreams
            .iter()
            .map(|upstream| {
                let state = UpstreamState::with_calls(&upstream.name, upstream.max_in_flight.into());
                Arc::new(if upstream.credential.is_some() { state.with_credential() } else { state })
            })
            .collect();
        let lifecycle = Arc::new(Lifecycle::new(count, states));
        let bell = Arc::new(Bell::default());
        let events: Vec<Arc<EventQueue>> = (0..=count).map(|_| Arc::new(EventQueue::new(bell.clone()))).collect();
        let metrics: Vec<Arc<WorkerMetrics>> =
            (0..count).map(|_| Arc::new(WorkerMetrics::new(lifecycle.upstreams().len()))).collect();
        let call_records =
            settings.otlp.endpoint.as_ref().map(|_| Arc::new(CallRecords::new(settings.otlp.trace_ratio)));
        let tools = Arc::new(ToolNames::new(lifecycle.upstreams().len()));
        let facts = HealthFacts {
            version: env!("CARGO_PKG_VERSION"),
            auth_enabled: settings.auth.enabled && !settings.auth.demo_mode,
            started_at_ms: crate::worker::epoch_ms(),
        };
        let (store, store_threads, checking) = Store::open_and_check(&settings.records.data_dir, lifecycle.clone())?;
        let loaded = tokens::load(&store, crate::worker::epoch_ms());
        // Of a damaged database this says more than what reading it has come upon.
        checking.wait()?;
        let credentials = Arc::new(ArcSwap::from_pointee(loaded?));
        let blocks_changed = Arc::<Notify>::default();
        let blocks = open_blocks(&settings, &store, Arc::clone(&blocks_changed))?;
        let spend_metrics = Arc::<SpendMetrics>::default();
        let pins = Arc::new(Pins::new(store.pins_now()?, given_pins(&settings)));
        let limit_book = LimitBook::new(&settings.policy, &settings.rates).with_all(store.limits_now()?);
        let spending = open_spending(&settings, &store, &limit_book, &spend_metrics)?;
        let limit_book = Arc::new(ArcSwap::from_pointee(limit_book));
        let session_key = keys::load_or_create(&settings.records.data_dir, "session.key")?;
        let audit_metrics = Arc::default();
        let mailbox: Option<Arc<Mailbox>> = settings.records.anomaly_detector.then(Arc::default);
        let audit = AuditWriter::start(
            AuditConfig {
                dir: settings.records.audit_enabled.then(|| settings.records.audit_dir.clone()),
                state_dir: settings.records.data_dir.clone(),
                key: keys::load_or_create(&settings.records.data_dir, line::KEY_FILE)?,
                pseudonym_key: keys::load_or_create(&settings.records.data_dir, pseudonym::KEY_FILE)?,
                clock: crate::worker::epoch_ms,
            },
            AuditShared {
                queues: events.clone(),
                bell,
                lifecycle: lifecycle.clone(),
                metrics: Arc::clone(&audit_metrics),
                mailbox: mailbox.clone(),
            },
        )?;
        let vault = open_vault(&settings, &lifecycle, &store, &events)?;
        let tls = upstream_tls(&settings)?;
        let filter = settings.policy.content.read_filter();
        let filter = Arc::new(filter.map_err(|(path, why)| StartError::ContentList { path, why })?);
        let children = start_children(&settings, &lifecycle, &tls)?;
        // The WebSocket and the HTTP connections of the bridge port are counted apart, each up to its limit.
        let max_connections = 2 * doors.bridge_max_connections as usize + doors.tcp_max_connections as usize;
        let connections =
            Arc::new(ConnectionTable::new(lifecycle.doors().clone(), max_connections, count, RandomState::new()));
        let (sse_inboxes, inboxes) = Inboxes::new(bridge.len(), crate::bounds::SSE_INBOX);
        let (desk, visits) = Desk::new();
        let traffic = Arc::new(RateTable::new(crate::bounds::COUNTED_CLIENTS, rate_secret()?));
        let (now_ms, data_dir) = (crate::worker::epoch_ms(), &settings.records.data_dir);
        let counters = Counters::open(data_dir, crate::bounds::COUNTED_ACTIONS, now_ms)?;
        let shared = Arc::new(Shared {
            desk,
            sse_inboxes,
            snapshot: ArcSwap::from_pointee(Snapshot::new(settings.clone(), bound, tls, filter)),
            connections: connections.clone(),
            credentials: credentials.clone(),
            pins: pins.clone(),
            blocks: blocks.clone(),
            limit_book: limit_book.clone(),
            sealer: Sealer::new(session_key.expose()),
            spending: Some(spending.clone()),
            children: children.as_ref().map(|(handle, _)| handle.clone()),
            health: facts.clone(),
            metrics: metrics.clone(),
            tools: tools.clone(),
            call_records: call_records.clone(),
            events: events.clone(),
            lifecycle: lifecycle.clone(),
            traffic: traffic.clone(),
            actions: counters.table().clone(),
        });
        let alert_metrics = control::alerts::metrics();
        let webhook = webhook(&settings, &alert_metrics)?;
        let past = control::alerts::record::read(&store)?;
        let (alerts, exits) =
            Alerts::with_past(past, shared.events(count), alert_metrics.clone(), crate::worker::epoch_ms);
        let (sessions, jwks) = (sessions(&settings, &shared, visits), jwks(&settings, &shared)?);
        let control = ControlPlane::start(
            ControlConfig {
                sessions,
                jwks,
                health_listener: Some(health),
                admin_listener: Some(admin),
                admin: AdminConfig {
                    token_sha256: settings.auth.orchestrator_token.as_ref().map(|token| *token.sha256()),
                    allowlist: settings.auth.admin_ip_allowlist.clone(),
                    metrics_path: settings.metrics.enabled.then(|| settings.metrics.path.clone()),
                    settings: effective,
                    agents: settings.policy.agents.clone(),
                    audit: settings.records.audit_enabled.then(|| AuditPlace {
                        trail: settings.records.audit_dir.clone(),
                        state: settings.records.data_dir.clone(),
                    }),
                    traffic: Traffic::new(&settings.rates, &shared.traffic),
                    limited_tools: limited_tools(&settings.policy),
                    pin: settings.policy.pin.name().to_owned(),
                },
                facts: facts.clone(),
                targets: probe_targets(&settings, &lifecycle),
                webhook,
                otlp: otlp(&settings),
                drain_timeout: doors.drain_timeout,
                clock: crate::worker::epoch_ms,
                // Workers look at the phase once a tick.
                on_phase: Box::new(|_| {}),
            },
            ControlShared {
                lifecycle: lifecycle.clone(),
                metrics: MetricSources {
                    workers: metrics,
                    queues: events,
                    audit: audit_metrics,
                    alerts: alert_metrics,
                    spend: spend_metrics,
                    tools,
                    rates: [("traffic", shared.traffic.clone()), ("actions", shared.actions.clone())],
                    blocks: blocks.clone(),
                    call_records,
                    otlp: Arc::default(),
                    store: store.counts(),
                    broker: children.as_ref().map(|(handle, _)| broker_source(handle, &settings)),
                    started_at_ms: facts.started_at_ms,
                    lifecycle: lifecycle.clone(),
                    version: env!("CARGO_PKG_VERSION"),
                    driver: match driver {
                        DriverKind::IoUring => "io_uring",
                        DriverKind::Epoll => "epoll",
                    },
                },
                events: shared.events(count),
                blocking: Blocking::new(
                    store.clone(),
                    blocks,
                    connections.clone(),
                    shared.events(count),
                    alerts.clone(),
                    crate::worker::epoch_ms,
                ),
                blocks_changed,
                connections,
                audit: audit.signals(),
                pins: ToolPins::new(store.clone(), pins, shared.events(count), alerts.clone(), crate::worker::epoch_ms),
                alerts,
                exits,
                mailbox,
                spending: Some(spending.clone()),
                kept_days: settings.records.usage_logs_days,
                tokens: Tokens::new(store.clone(), credentials, shared.events(count), crate::worker::epoch_ms),
                limits: GivenLimits::new(
                    store.clone(),
                    limit_book,
                    RateTables { traffic: shared.traffic.clone(), actions: shared.actions.clone() },
                    shared.events(count),
                    crate::worker::epoch_ms,
                ),
                store,
                vault,
                store_pulse: store_threads.pulse(),
                traffic,
                counters,
            },
        )?;
        let mut workers = Vec::new();
        for (index, ((bridge, tcp), inbox)) in bridge.into_iter().zip(tcp).zip(inboxes).enumerate() {
            // Where more workers are asked for than there are cores, pinning would only stand in the scheduler's way.
            let core = (count <= cores.len()).then(|| cores.get(index).copied()).flatten();
            workers.push(crate::worker::runtime::spawn(
                index,
                core,
                driver,
                shared.clone(),
                Listeners { bridge, tcp, inbox },
            )?);
        }
        let gateway = Self {
            bridge: bound,
            tcp: tcp_at,
            health: health_at,
            admin: admin_at,
            driver,
            shared,
            control,
            audit,
            store: store_threads,
            children,
            workers,
        };
        gateway.record(EventKind::ServerStart);
        lifecycle.advance(Phase::Ready);
        Ok(gateway)
    }

    /// Where the bridge door listens.
    #[must_use]
    pub fn bridge(&self) -> SocketAddr {
        self.bridge
    }

    /// Where the TCP door listens.
    #[must_use]
    pub fn tcp(&self) -> SocketAddr {
        self.tcp
    }

    /// Where the health listener is.
    #[must_use]
    pub fn health(&self) -> SocketAddr {
        self.health
    }

    /// Where the admin listener is.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// What the workers wait on.
    #[must_use]
    pub fn driver(&self) -> DriverKind {
        self.driver
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Connections that are open on the front doors, refused ones that linger not counted.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        Door::ALL.iter().map(|door| self.shared.lifecycle.connections(*door)).sum()
    }

    /// Whether an upstream answers by now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.lifecycle.is_ready()
    }

    fn record(&self, kind: EventKind) {
        let event = Event::new(kind, crate::worker::epoch_ms());
        // The queue of the other threads is empty at the start and read to its end at the stop.
        let _ = self.shared.events(usize::MAX).push(event);
    }

    /// Waits until a signal has ended the gateway, and ends what is left in order: workers, children, the store, then the audit
    /// trail, so that nothing that happened goes unrecorded.
    #[must_use]
    pub fn wait(self) -> Ended {
        let Self { shared, control, audit, store, children, workers, .. } = self;
        let ended = control.wait();
        shared.lifecycle.advance(Phase::Stopped);
        let mut faults = Vec::new();
        match ended {
            control::Ended::Drained | control::Ended::Stopped => {}
            control::Ended::TimedOut(calls) => faults.push(format!("{calls} calls were cut off after DRAIN_TIMEOUT")),
            control::Ended::Forced => faults.push("stopped at once by a second signal".to_owned()),
        }
        for (index, worker) in workers.into_iter().enumerate() {
            match worker.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => faults.push(format!("worker {index} failed: {error}")),
                Err(_) => faults.push(format!("worker {index} panicked")),
            }
        }
        if let Some((handle, thread)) = children {
            handle.stop();
            if thread.join().is_err() {
                faults.push("the stdio servers' thread panicked".to_owned());
            }
        }
        store.stop();
        let _ = shared.events(usize::MAX).push(Event::new(EventKind::ServerShutdown, crate::worker::epoch_ms()));
        if let Err(unwritten) = audit.stop() {
            faults.push(unwritten.to_string());
        }
        if faults.is_empty() { Ended::Cleanly } else { Ended::Otherwise(faults.join("; ")) }
    }
}

/// A secret of this process for the keys of a table that ends with it.
fn rate_secret() -> Result<[u8; 16], keys::KeyError> {
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(|_| keys::KeyError::NoRandomness)?;
    Ok(secret)
}

/// What sessions are made of, where there are any.
fn sessions(settings: &Settings, shared: &Arc<Shared>, visits: Visits) -> Option<SessionsConfig> {
    let (agents, holders) = (shared.clone(), shared.clone());
    let auth = &settings.auth;
    let rules = OAuthConfig {
        own_key: shared.snapshot.load().own_key.clone()?,
        secret: auth.jwt_secret.clone()?,
        refresh_ttl: auth.jwt_refresh_ttl,
        idle: auth.session_timeout,
        clean_every: auth.session_cleanup_interval,
        max_sessions: auth.max_concurrent_sessions,
        agent_of: Box::new(move |token| agents.agent_of(token, crate::worker::epoch_ms())),
        holds: Box::new(move |sha256, agent| holders.holds(sha256, agent, crate::worker::epoch_ms())),
    };
    Some(SessionsConfig { rules, visits, published: shared.desk.sessions.clone() })
}

/// Where an outside issuer's keys come from, where there is one.
fn jwks(settings: &Settings, shared: &Shared) -> Result<Option<JwksConfig>, StartError> {
    let Some(issuer) = &settings.auth.issuer else { return Ok(None) };
    let tls = crate::upstream::tls::client_config(None).map_err(StartError::JwksTls)?;
    let (published, wanted) = (shared.desk.issuer_keys.clone(), shared.desk.keys_wanted.clone());
    Ok(Some(JwksConfig { url: issuer.jwks_url.clone(), tls, published, wanted }))
}

/// The vault, with the upstreams that are shown a credential of it. Workers begin later, so that no call is refused for want of one that is there.
fn open_vault(
    settings: &Settings,
    lifecycle: &Lifecycle,
    store: &Store,
    events: &[Arc<EventQueue>],
) -> Result<Vault, StartError> {
    let users = settings.policy.upstreams.iter().zip(lifecycle.upstreams()).filter_map(|(upstream, state)| {
        Some(vault::keeper::User { upstream: state.clone(), credential: upstream.credential.clone()? })
    });
    let events = events.last().cloned().unwrap_or_else(|| Arc::new(EventQueue::new(Arc::default())));
    Ok(Vault::open(
        store.clone(),
        vault::keeper::keys(&settings.vault),
        users.collect(),
        events,
        crate::worker::epoch_ms,
    )?)
}

/// Who may not come in, with what was blocked before the start.
fn open_blocks(settings: &Settings, store: &Store, changed: Arc<Notify>) -> Result<Arc<Blocks>, StartError> {
    let most = MAX_HOSTS + MAX_OPERATORS;
    let before = store.blocks_now(crate::worker::epoch_ms(), most)?.into_iter().map(StoredBlock::block);
    Ok(Arc::new(Blocks::new(block_rules(settings), before, Box::new(move || changed.notify_one()))))
}

/// The ledger, and what was spent so far.
fn open_spending(
    settings: &Settings,
    store: &Store,
    book: &LimitBook,
    metrics: &Arc<SpendMetrics>,
) -> Result<Arc<Spending>, StartError> {
    let (rules, now) = (SpendRules::new(settings), Day::of(crate::worker::epoch_ms()));
    Ok(Arc::new(Spending::open(store, &rules, book, Arc::clone(metrics), now)?))
}

/// The tools that the policy pins.
fn given_pins(settings: &Settings) -> Vec<Given> {
    let of = |tool: &crate::settings::policy::ToolPolicy| {
        Some(Given { upstream: tool.upstream.clone(), tool: tool.pattern.clone(), hash: tool.pinned? })
    };
    settings.policy.tools.iter().filter_map(of).collect()
}

fn unspecified() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn bind(variable: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|source| StartError::Listen { variable, address, source })
}

/// One listener a worker, all on one port. The first finds out whether the port is free: with SO_REUSEPORT alone, a second gateway
/// of the same user would silently share the port with the first.
fn bind_workers(variable: &'static str, mut address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, StartError> {
    if address.port() != 0 {
        drop(bind(variable, address)?);
    }
    let mut listeners = Vec::new();
    for _ in 0..count.max(1) {
        let listener = crate::worker::runtime::listen(address).map_err(|source| StartError::Listen {
            variable,
            address,
            source,
        })?;
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Where traces and metrics go, if anywhere.
fn otlp(settings: &Settings) -> Option<OtlpConfig> {
    Some(OtlpConfig {
        endpoint: settings.otlp.endpoint.clone()?,
        headers: settings.otlp.headers.clone(),
        service_name: settings.otlp.service_name.clone(),
        metric_interval: settings.otlp.metric_interval,
    })
}

/// Where alerts go, if anywhere.
fn webhook(settings: &Settings, metrics: &Arc<AlertMetrics>) -> Result<Option<Webhook>, StartError> {
    let Some(url) = settings.webhooks.alert_url.clone() else { return Ok(None) };
    let config = WebhookConfig {
        url,
        keys: settings.webhooks.alert_secrets.clone(),
        patience: Patience::default(),
        clock: crate::worker::epoch_ms,
    };
    Ok(Some(Webhook::new(config, Arc::clone(metrics))?))
}

/// The settings in force, secrets masked.
fn effective(loaded: &crate::settings::Loaded) -> SettingsShown {
    let shown = loaded.effective.iter().map(|one| SettingShown {
        name: one.name.clone(),
        value: one.value_shown.clone(),
        source: one.source.to_string(),
    });
    SettingsShown { settings: shown.collect() }
}
