#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the threads of a test are its own")]

use std::collections::hash_map::RandomState;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::Instant;

use super::*;
use crate::control::audit::{AuditConfig, AuditShared, AuditWriter};
use crate::control::keys::Key;
use crate::gateway::spending::Spending;
use crate::guard::LimitBook;
use crate::guard::spend::SpendRules;
use crate::observe::metrics::AuditMetrics;
use crate::state::blocks::{Blocks, Rules};
use crate::state::events::Bell;
use crate::state::lifecycle::UpstreamState;
use crate::state::tools::ToolNames;

/// A running control thread with listeners on free ports; ends with the value.
pub(super) struct Rig {
    pub(super) health: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) events: Arc<EventQueue>,
    pub(super) connections: Arc<ConnectionTable>,
    pub(super) alerts: Alerts,
    worker: Arc<WorkerMetrics>,
    pub(super) blocks: Arc<Blocks>,
    phases: Arc<Mutex<Vec<Phase>>>,
    plane: Option<ControlPlane>,
    _audit: AuditWriter,
    _data_dir: tempfile::TempDir,
}

fn clock() -> u64 {
    5_000
}

/// Longer than anything takes on a busy machine; only what hangs reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A trail without a line, with its keys.
fn empty_trail(dir: &std::path::Path) -> admin::audit::AuditPlace {
    let place = admin::audit::AuditPlace { trail: dir.join("security"), state: dir.join("keys") };
    std::fs::create_dir(&place.trail).unwrap();
    for name in [audit::line::KEY_FILE, audit::pseudonym::KEY_FILE] {
        keys::load_or_create(&place.state, name).unwrap();
    }
    place
}

impl Rig {
    pub(super) fn start(admin: AdminConfig) -> Self {
        Self::start_with(admin, 1, Duration::from_secs(10))
    }

    fn start_with(admin: AdminConfig, upstream_port: u16, drain_timeout: Duration) -> Self {
        let upstream = Arc::new(UpstreamState::new("up"));
        let lifecycle = Arc::new(Lifecycle::new(1, vec![Arc::clone(&upstream)]));
        let bell = Arc::new(Bell::default());
        let events = Arc::new(EventQueue::with_capacity(64, Arc::clone(&bell)));
        let audit_metrics = Arc::new(AuditMetrics::default());
        let audit = AuditWriter::start(
            AuditConfig {
                dir: None,
                state_dir: std::path::PathBuf::new(),
                key: Key::new([0; 32]),
                pseudonym_key: Key::new([1; 32]),
                clock,
            },
            AuditShared {
                queues: Vec::new(),
                bell,
                lifecycle: Arc::clone(&lifecycle),
                metrics: Arc::clone(&audit_metrics),
                mailbox: None,
            },
        )
        .unwrap();
        let alert_metrics = alerts::metrics();
        let (alerts, exits) = Alerts::new(Arc::clone(&events), alert_metrics.clone(), clock);
        let data_dir = tempfile::tempdir().unwrap();
        let admin = AdminConfig { audit: Some(empty_trail(data_dir.path())), ..admin };
        let (health_listener, health) = listener();
        let (admin_listener, admin_address) = listener();
        let phases = Arc::new(Mutex::new(Vec::new()));
        let config = ControlConfig {
            health_listener: Some(health_listener),
            admin_listener: Some(admin_listener),
            admin,
            facts: HealthFacts { version: "9.9.9", auth_enabled: true, started_at_ms: 1_000 },
            targets: vec![Target { upstream, host: "localhost".to_owned(), port: upstream_port }],
            webhook: None,
            otlp: None,
            drain_timeout,
            sessions: None,
            jwks: None,
            clock,
            on_phase: Box::new({
                let phases = Arc::clone(&phases);
                move |phase| phases.lock().unwrap().push(phase)
            }),
        };
        let connections = Arc::new(ConnectionTable::new(lifecycle.doors().clone(), 10, 1, RandomState::new()));
        let (store, store_threads) = Store::open(&data_dir.path().join("data"), Arc::clone(&lifecycle)).unwrap();
        let worker = Arc::<WorkerMetrics>::default();
        let blocks_changed = Arc::<tokio::sync::Notify>::default();
        let wake = Arc::clone(&blocks_changed);
        let rules = Rules { max_failed: 10, lockout_ms: 60_000, ..crate::state::blocks::no_rules() };
        let blocks = Arc::new(Blocks::new(rules, [], Box::new(move || wake.notify_one())));
        let today = crate::state::spend::Day::of(clock());
        let spending =
            Spending::open(&store, &SpendRules::default(), &LimitBook::default(), Arc::default(), today).unwrap();
        let shared = ControlShared {
            lifecycle: Arc::clone(&lifecycle),
            metrics: MetricSources {
                workers: vec![Arc::clone(&worker)],
                queues: vec![Arc::clone(&events)],
                audit: audit_metrics,
                lifecycle: Arc::clone(&lifecycle),
                version: "9.9.9",
                alerts: alert_metrics.clone(),
                tools: Arc::new(ToolNames::new(1)),
                rates: ["traffic", "actions"].map(|name| (name, Arc::new(RateTable::new(10, [0; 16])))),
                blocks: Arc::clone(&blocks),
                broker: None,
                call_records: None,
                otlp: Arc::default(),
                store: Arc::default(),
                spend: Arc::default(),
                started_at_ms: 1_000,
                driver: "epoll",
            },
            events: Arc::clone(&events),
            connections: Arc::clone(&connections),
            audit: audit.signals(),
            alerts: alerts.clone(),
            exits,
            mailbox: None,
            spending: Some(Arc::new(spending)),
            kept_days: 365,
            tokens: Tokens::new(store.clone(), Arc::default(), Arc::clone(&events), clock),
            blocking: Blocking::new(
                store.clone(),
                Arc::clone(&blocks),
                Arc::clone(&connections),
                Arc::clone(&events),
                alerts.clone(),
                clock,
            ),
            blocks_changed,
            pins: ToolPins::new(store.clone(), Arc::default(), Arc::clone(&events), alerts.clone(), clock),
            limits: limits::GivenLimits::new(
                store.clone(),
                Arc::default(),
                limits::RateTables {
                    traffic: Arc::new(crate::state::rates::RateTable::new(1024, [7; 16])),
                    actions: Arc::new(crate::state::rates::RateTable::new(1024, [7; 16])),
                },
                Arc::clone(&events),
                clock,
            ),
            vault: crate::vault::Vault::open(
                store.clone(),
                Vec::new(),
                Vec::new(),
                Arc::new(EventQueue::new(Arc::default())),
                || 0,
            )
            .unwrap(),
            store,
            store_pulse: store_threads.pulse(),
            traffic: Arc::new(RateTable::new(10, [0; 16])),
            counters: Counters::open(data_dir.path(), 10, 0).unwrap(),
        };
        let plane = ControlPlane::start(config, shared).unwrap();
        Self {
            health,
            admin: admin_address,
            lifecycle,
            events,
            connections,
            alerts,
            worker,
            blocks,
            phases,
            plane: Some(plane),
            _audit: audit,
            _data_dir: data_dir,
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.lifecycle.advance(Phase::Stopped);
        if let Some(plane) = self.plane.take() {
            let _ = plane.wait();
        }
    }
}

/// A whole answer to a request on a connection of its own.
pub(super) fn ask_with(address: SocketAddr, method: &str, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

pub(super) fn ask(address: SocketAddr, path: &str) -> String {
    ask_with(address, "GET", path, "")
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn health_answers_and_ready_follows_the_upstream() {
    let (upstream, address) = listener();
    let rig = Rig::start_with(AdminConfig::default(), address.port(), Duration::ZERO);
    let answer = ask(rig.health, "/health");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    assert!(answer.contains("\"version\":\"9.9.9\",\"uptime\":4,"), "{answer}");
    assert!(ask(rig.health, "/health/ready").contains("503"));
    rig.lifecycle.advance(Phase::Ready);
    until("the first probe", || ask(rig.health, "/health/ready").ends_with("\r\n\r\nready"));
    assert!(rig.lifecycle.upstreams()[0].addresses.load().contains(&address));
    rig.lifecycle.advance(Phase::Draining);
    assert!(ask(rig.health, "/health/ready").starts_with("HTTP/1.1 503 "));
    assert!(ask(rig.health, "/metrics").starts_with("HTTP/1.1 404 "), "metrics are the admin listener's");
    assert!(ask_with(rig.health, "POST", "/health", "").starts_with("HTTP/1.1 405 "));
    drop(upstream);
}

#[test]
fn bad_and_slow_clients_cost_others_nothing() {
    let rig = Rig::start(AdminConfig::default());
    let big = format!("X-Big: {}\r\n", "x".repeat(http::MAX_HEADER));
    assert!(!ask_with(rig.health, "GET", "/health", &big).starts_with("HTTP/1.1 200 "));
    assert!(!ask_with(rig.health, "GET", "/health", "no colon\r\n").starts_with("HTTP/1.1 200 "));
    // All places but one are held by clients that never finish their header.
    let begin = |_| {
        let mut stream = TcpStream::connect(rig.health).unwrap();
        // It may be one too many, and closed.
        let _ = stream.write_all(b"GET /health HT");
        stream
    };
    let mut slow: Vec<_> = (1..http::MAX_CONNECTIONS).map(begin).collect();
    until("an answer beside slow clients", || ask(rig.health, "/health").starts_with("HTTP/1.1 200 "));
    // With every place taken, one more is closed at once; when the slow ones are cut, there is room again. On a busy machine the first of
    // them may have been cut before the last one came: others come.
    until("a refusal", || {
        slow.extend((0..http::MAX_CONNECTIONS).map(begin));
        ask(rig.health, "/health").is_empty()
    });
    until("room again", || ask(rig.health, "/health").starts_with("HTTP/1.1 200 "));
    for mut stream in slow {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        assert!(!ended.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock), "it is not cut");
        assert!(!rest.starts_with(b"HTTP/1.1 200 "));
    }
}

/// Drives the drain without signals, which would hit every test of the process.
fn drain(timeout: Duration, calls: usize, act: impl FnOnce(&Arc<Lifecycle>) + Send + 'static) -> Ended {
    drain_until(timeout, calls, act, || {})
}

/// Likewise; `over` is called when it has ended, and what `act` holds up, the end of the calls, may be waiting for that.
fn drain_until(
    timeout: Duration,
    calls: usize,
    act: impl FnOnce(&Arc<Lifecycle>) + Send + 'static,
    over: impl FnOnce(),
) -> Ended {
    let lifecycle = Arc::new(Lifecycle::new(1, Vec::new()));
    lifecycle.advance(Phase::Draining);
    let held: Vec<_> = (0..calls).map(|_| lifecycle.begin_call(0)).collect();
    let actor = thread::spawn({
        let lifecycle = Arc::clone(&lifecycle);
        move || {
            thread::sleep(Duration::from_millis(120));
            act(&lifecycle);
            drop(held);
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(signals::drained(&lifecycle, timeout));
    over();
    actor.join().unwrap();
    ended
}

#[test]
fn draining_ends_with_the_calls_or_with_the_time() {
    let long = PATIENCE;
    assert_eq!(drain(long, 0, |_| {}), Ended::Drained);
    assert_eq!(drain(long, 3, |_| {}), Ended::Drained, "the calls end");
    let (over, is_over) = std::sync::mpsc::channel();
    let held = move |_: &Arc<Lifecycle>| is_over.recv_timeout(PATIENCE).unwrap();
    assert_eq!(drain_until(Duration::from_millis(10), 2, held, || over.send(()).unwrap()), Ended::TimedOut(2));
    let stop: fn(&Arc<Lifecycle>) = |lifecycle| {
        lifecycle.advance(Phase::Stopped);
        thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(drain(long, 1, stop), Ended::Drained, "stopped from within");
}

#[test]
fn calls_that_find_no_room_in_the_trail_raise_an_alert() {
    let rig = Rig::start(AdminConfig::default());
    rig.worker.limit(Limit::AuditQueue);
    until("an alert", || !rig.alerts.recent().is_empty());
    let recent = rig.alerts.recent();
    assert_eq!((recent[0].new.kind, &recent[0].new.subject), (AlertKind::AuditUnavailable, &Subject::Gateway));
    assert!(recent[0].new.details.starts_with("1 calls found no room"), "{}", recent[0].new.details);
    // Its line stands in the trail as well.
    until("its event", || rig.events.pop().is_some_and(|event| event.rule == "audit-unavailable"));
}

#[test]
fn stopping_from_within_ends_the_thread() {
    let mut rig = Rig::start(AdminConfig::default());
    rig.lifecycle.advance(Phase::Stopped);
    assert_eq!(rig.plane.take().unwrap().wait(), Ended::Stopped);
    assert!(rig.phases.lock().unwrap().is_empty(), "only its own changes are announced");
}
