//! The control plane: one thread with a tokio runtime of its own, and the audit writer beside it.
//!
//! The control thread serves health and admin HTTP, watches for signals, resolves and probes upstreams, and keeps an eye on
//! the audit writer. Nothing that runs on a worker imports this module; workers see atomics, `Addresses` and event queues,
//! all in `state/`.

pub mod admin;
pub mod alerts;
pub mod anomaly;
pub mod audit;
pub mod blocks;
pub mod counters;
pub(crate) mod gatekeeper;
mod health;
pub(crate) mod http;
pub mod keys;
pub mod limits;
pub mod oauth;
pub mod otlp;
pub mod pins;
pub mod probes;
mod signals;
mod spend;
pub mod tokens;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, oneshot};

use self::admin::{Admin, AdminConfig};
use self::alerts::record::Record;
use self::alerts::webhook::Webhook;
use self::alerts::{AlertKind, Alerts, Exits, NewAlert, Subject};
use self::anomaly::Detector;
use self::anomaly::facts::Mailbox;
use self::audit::AuditSignals;
use self::audit::checkpoint::CheckpointSync;
use self::blocks::Blocking;
use self::counters::Counters;
use self::gatekeeper::{Form, Gatekeeper};
use self::health::HealthSource;
use self::limits::GivenLimits;
use self::oauth::jwks::{JwksConfig, Keeper};
use self::oauth::{OAuth, SessionsConfig, Told};
use self::otlp::OtlpConfig;
use self::pins::ToolPins;
use self::probes::Target;
use self::tokens::Tokens;
use crate::gateway::desk::Visits;
use crate::gateway::spending::Spending;
use crate::observe::metrics::{AlertMetrics, Limit, MetricSources, WorkerMetrics};
use crate::state::connections::ConnectionTable;
use crate::state::events::EventQueue;
use crate::state::health::HealthFacts;
use crate::state::lifecycle::{Lifecycle, Phase};
use crate::state::rates::{RateTable, Step};
use crate::store::{Pulse, Store};
use crate::vault::Vault;

/// How often the control thread looks at the pulse of the audit writer and of the store.
const PULSE_EVERY: Duration = Duration::from_secs(1);
/// How often what the audit writer has seen is taken over; see `anomaly::SETTLED_MS`.
const FACTS_EVERY: Duration = Duration::from_secs(1);
/// What is written down at the end may take this long.
const LAST_WRITE: Duration = Duration::from_secs(2);
/// Threads for what blocks: look-ups of names, the sync of the checkpoint, one search and one verification of the audit trail. A resolver that hangs can
/// hold only these.
const BLOCKING_THREADS: usize = 6;

/// What the control thread needs. Listeners are bound by the caller, so that a port in use stops the start.
pub struct ControlConfig {
    /// Bound to `MCP_HEALTH_PORT`.
    pub health_listener: Option<TcpListener>,
    /// Bound to `ADMIN_PORT`.
    pub admin_listener: Option<TcpListener>,
    /// The admin listener's settings.
    pub admin: AdminConfig,
    /// The fixed part of health answers.
    pub facts: HealthFacts,
    /// Upstreams with a network address.
    pub targets: Vec<Target>,
    /// Where alerts go; `None`: nowhere but into the audit trail and the admin API.
    pub webhook: Option<Webhook>,
    /// Where traces and metrics go; `None`: nowhere.
    pub otlp: Option<OtlpConfig>,
    /// `DRAIN_TIMEOUT`: how long calls in flight may take after the first SIGTERM or SIGINT.
    pub drain_timeout: Duration,
    /// Sessions of agents, where `JWT_SECRET` is set.
    pub sessions: Option<SessionsConfig>,
    /// The keys of an outside issuer, where `JWKS_URL` is set.
    pub jwks: Option<JwksConfig>,
    /// Milliseconds since the Unix epoch.
    pub clock: fn() -> u64,
    /// Called on the control thread after each change of phase that it makes (draining, stopped): wakes the workers.
    pub on_phase: Box<dyn Fn(Phase) + Send>,
}

/// What the control thread shares with the rest of the process.
pub struct ControlShared {
    /// The process's state.
    pub lifecycle: Arc<Lifecycle>,
    /// Everything `/metrics` tells.
    pub metrics: MetricSources,
    /// The queue for events that no worker writes.
    pub events: Arc<EventQueue>,
    /// The open connections.
    pub connections: Arc<ConnectionTable>,
    /// The audit writer.
    pub audit: AuditSignals,
    /// By which anything raises an alert.
    pub alerts: Alerts,
    /// Where they go.
    pub exits: Exits,
    /// What the audit writer sees; `None`: nobody looks for anomalies.
    pub mailbox: Option<Arc<Mailbox>>,
    /// Accounts and ledger; `None`: nothing costs anything.
    pub spending: Option<Arc<Spending>>,
    /// Days that the ledger's totals are kept.
    pub kept_days: u32,
    /// The database.
    pub store: Store,
    /// The agents' tokens.
    pub tokens: Tokens,
    /// Who may not come in.
    pub blocking: Blocking,
    /// Wakes whoever looks after blocks.
    pub blocks_changed: Arc<Notify>,
    /// What agents may do, and what operators change of it.
    pub limits: GivenLimits,
    /// What tools say of themselves, and what operators accept of it.
    pub pins: ToolPins,
    /// Credentials of providers.
    pub vault: Vault,
    /// Whether a write to the database hangs.
    pub store_pulse: Pulse,
    /// What comes in, counted in memory.
    pub traffic: Arc<RateTable>,
    /// What agents do, counted in a file.
    pub counters: Counters,
}

/// How the process was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// After a signal, with nothing in flight any more.
    Drained,
    /// After a signal, when `DRAIN_TIMEOUT` was over; this many calls were cut off.
    TimedOut(usize),
    /// By a second signal.
    Forced,
    /// The phase went to `Stopped` without a signal.
    Stopped,
}

/// The running control thread.
#[derive(Debug)]
pub struct ControlPlane {
    thread: JoinHandle<Ended>,
}

impl ControlPlane {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread, no runtime or no signal handler.
    pub fn start(config: ControlConfig, shared: ControlShared) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        let (started, start) = std::sync::mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("control".to_owned()).spawn(move || {
            let ended = runtime.block_on(run(config, shared, &started));
            // A look-up that hangs must not hold the exit up.
            runtime.shutdown_background();
            ended
        })?;
        match start.recv() {
            Ok(Ok(())) => Ok(Self { thread }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("the control thread ended at its start")),
        }
    }

    /// Waits until the process is to end.
    #[must_use]
    pub fn wait(self) -> Ended {
        // A panic there was reported by the hook; the process ends either way.
        self.thread.join().unwrap_or(Ended::Forced)
    }
}

async fn run(
    config: ControlConfig,
    shared: ControlShared,
    started: &std::sync::mpsc::SyncSender<io::Result<()>>,
) -> Ended {
    let ControlConfig { health_listener, admin_listener, admin, facts, targets, webhook, otlp, .. } = config;
    let ControlConfig { drain_timeout, sessions, jwks, clock, on_phase, .. } = config;
    let ControlShared { lifecycle, metrics, events, connections, audit, alerts, exits, mailbox, .. } = shared;
    let ControlShared { store, store_pulse, tokens, limits, pins, vault, blocking, blocks_changed, .. } = shared;
    let ControlShared { spending, kept_days, traffic, counters, .. } = shared;
    let (alert_metrics, worker_metrics) = (Arc::clone(&metrics.alerts), metrics.workers.clone());
    let record = Record::new(store.clone(), alerts.clone(), exits.journal, clock);
    let told = Told { events: Arc::clone(&events), alerts: alerts.clone(), clock };
    let grants = match Grants::set_up(sessions, jwks, &store, told).await {
        Ok(grants) => grants,
        Err(error) => {
            let _ = started.send(Err(error));
            return Ended::Stopped;
        }
    };
    let sender = otlp.as_ref().zip(metrics.call_records.clone());
    let sender = sender.map(|(otlp, records)| otlp::start(otlp, records, &metrics)).transpose();
    let source = HealthSource { facts: Arc::new(facts), lifecycle: Arc::clone(&lifecycle), clock };
    let admin = Admin {
        config: Arc::new(admin),
        metrics: Arc::new(metrics),
        health: source.clone(),
        events,
        audit: audit.clone(),
        connections,
        alerts: alerts.clone(),
        spending: spending.clone(),
        store,
        tokens: tokens.clone(),
        blocking: blocking.clone(),
        limits,
        pins: pins.clone(),
        vault,
        sessions: grants.sessions.as_ref().map(|(oauth, _)| Arc::clone(oauth)),
        searches: Arc::new(Semaphore::new(1)),
        verifications: Arc::default(),
    };
    let keeper = |form| Gatekeeper {
        blocks: Arc::clone(blocking.blocks()),
        changed: blocking.watch(),
        events: Arc::clone(&admin.events),
        clock,
        form,
    };
    let (plain, problem) = (keeper(Form::Plain), keeper(Form::Problem));
    let set_up = listen(health_listener, health::router(source), plain)
        .and_then(|()| listen(admin_listener, admin::router(admin), problem))
        .and_then(|()| sender.map_err(io::Error::other))
        .and_then(|sender| Ok((sender, signals::Signals::listen()?)));
    let (sender, signals) = match set_up {
        Ok(set_up) => set_up,
        Err(error) => {
            let _ = started.send(Err(error));
            return Ended::Stopped;
        }
    };
    for target in targets {
        tokio::spawn(probes::watch(target));
    }
    tokio::spawn(watch_audit(audit.clone(), Arc::clone(&lifecycle), worker_metrics, alerts.clone()));
    if let Some(sender) = sender {
        tokio::spawn(sender);
    }
    match webhook {
        Some(webhook) => drop(tokio::spawn(webhook.run(exits.outbox))),
        None => exits.outbox.close(),
    }
    let (stop_record, stopped) = oneshot::channel();
    let record = tokio::spawn(record.keep(stopped));
    if let Some(spending) = spending {
        tokio::spawn(spend::keep(spending, alerts.clone(), kept_days, clock));
    }
    if let Some(mailbox) = mailbox {
        tokio::spawn(watch_behaviour(mailbox, alerts, alert_metrics, clock));
    }
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(PULSE_EVERY).await;
            store_pulse.check();
        }
    });
    tokio::spawn(pins.clone().keep());
    tokio::spawn(tokens.clone().keep());
    tokio::spawn(blocking.clone().keep(blocks_changed));
    let sessions = grants.start(audit.clone());
    if let Some(checkpoint) = audit.checkpoint() {
        tokio::spawn(keep_durable(checkpoint));
    }
    tokio::spawn(keep_counters(traffic, counters, clock));
    let _ = started.send(Ok(()));
    let reopen = move || audit.reopen();
    let ended = signals::until_stopped(signals, &lifecycle, drain_timeout, &*on_phase, &reopen).await;
    tokens.write_down_last().await;
    pins.write_down_last().await;
    blocking.write_down_last().await;
    if let Some(sessions) = sessions {
        sessions.close().await;
    }
    drop(stop_record);
    // A disk that hangs does not hold the end up.
    if tokio::time::timeout(LAST_WRITE, record).await.is_err() {
        tracing::warn!("the last alerts could not be written down in time");
    }
    ended
}

/// Sessions and an outside issuer's keys, where they are asked for.
struct Grants {
    sessions: Option<(Arc<OAuth>, Visits)>,
    keeper: Option<Keeper>,
}

impl Grants {
    /// Reads the sessions that were open, so that they are known before the first client comes.
    async fn set_up(
        sessions: Option<SessionsConfig>,
        jwks: Option<JwksConfig>,
        store: &Store,
        told: Told,
    ) -> io::Result<Self> {
        let sessions = match sessions {
            None => None,
            Some(SessionsConfig { rules, visits, published }) => {
                let opened = OAuth::open(rules, store.clone(), published, told).await;
                Some((opened.map_err(io::Error::other)?, visits))
            }
        };
        Ok(Self { sessions, keeper: jwks.map(Keeper::new).transpose().map_err(io::Error::other)? })
    }

    fn start(self, audit: AuditSignals) -> Option<Arc<OAuth>> {
        if let Some(keeper) = self.keeper {
            tokio::spawn(keeper.keep());
        }
        let (oauth, visits) = self.sessions?;
        tokio::spawn(Arc::clone(&oauth).serve(visits, audit));
        tokio::spawn(Arc::clone(&oauth).keep_house());
        Some(oauth)
    }
}

/// Looks at the audit writer's pulse, and raises an alert when its trail cannot be written any more, or has no room for calls.
async fn watch_audit(audit: AuditSignals, lifecycle: Arc<Lifecycle>, workers: Vec<Arc<WorkerMetrics>>, alerts: Alerts) {
    let without_room = || workers.iter().map(|worker| worker.limits(Limit::AuditQueue)).sum::<u64>();
    let (mut was_healthy, mut before) = (true, 0);
    loop {
        tokio::time::sleep(PULSE_EVERY).await;
        audit.check_pulse();
        let (is_healthy, calls) = (lifecycle.audit_healthy(), without_room());
        let raise = |details: String| {
            alerts.raise(NewAlert { kind: AlertKind::AuditUnavailable, subject: Subject::Gateway, details });
        };
        if lifecycle.phase() < Phase::Stopped {
            if was_healthy && !is_healthy {
                raise("in production tool calls are refused until it can".to_owned());
            } else if calls > before {
                let calls = calls - before;
                raise(format!(
                    "{calls} calls found no room in its queues; production refuses them, development makes them"
                ));
            }
        }
        (was_healthy, before) = (is_healthy, calls);
    }
}

/// Takes over what the audit writer has seen, and looks for anomalies once a minute.
async fn watch_behaviour(mailbox: Arc<Mailbox>, alerts: Alerts, metrics: Arc<AlertMetrics>, clock: fn() -> u64) {
    let mut detector = Detector::new(clock());
    let mut looked = anomaly::round(clock());
    loop {
        tokio::time::sleep(FACTS_EVERY).await;
        if let Some(facts) = mailbox.take() {
            detector.absorb(facts);
        }
        let now_ms = clock();
        // A clock that was set back begins another round as well.
        if anomaly::round(now_ms) != looked {
            looked = anomaly::round(now_ms);
            for found in detector.tick(now_ms) {
                alerts.raise(found);
            }
            metrics.set_cases(detector.open_cases() as u64);
        }
        metrics.overflowed.add(detector.take_overflowed());
    }
}

/// Syncs the audit checkpoint each second, where waiting for a disk keeps nobody: one sync at a time.
async fn keep_durable(checkpoint: Arc<CheckpointSync>) {
    loop {
        tokio::time::sleep(PULSE_EVERY).await;
        let checkpoint = Arc::clone(&checkpoint);
        let synced = tokio::task::spawn_blocking(move || checkpoint.sync()).await;
        if let Ok(Err(error)) = synced {
            tracing::warn!(%error, "the audit checkpoint is not durable yet");
        }
    }
}

/// Looks after the tables of rates each second, and writes what agents have done to the disk, where waiting for it keeps nobody.
async fn keep_counters(traffic: Arc<RateTable>, counters: Counters, clock: fn() -> u64) {
    let mut was_durable = true;
    loop {
        tokio::time::sleep(PULSE_EVERY).await;
        let now_ms = clock();
        if traffic.tend(now_ms).max(counters.table().tend(now_ms)) != Step::Steady {
            tracing::warn!("the clock was set back, or by weeks: limits count anew from now");
        }
        counters.note(now_ms);
        let written = counters.clone();
        let synced = tokio::task::spawn_blocking(move || written.sync()).await;
        if let Ok(Err(error)) = &synced
            && was_durable
        {
            tracing::warn!(%error, "the counters of agents' calls are not on disk yet");
        }
        was_durable = matches!(synced, Ok(Ok(())));
    }
}

fn listen(listener: Option<TcpListener>, router: axum::Router, keeper: Gatekeeper) -> io::Result<()> {
    let Some(listener) = listener else {
        return Ok(());
    };
    listener.set_nonblocking(true)?;
    tokio::spawn(http::serve(tokio::net::TcpListener::from_std(listener)?, router, Some(keeper)));
    Ok(())
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
