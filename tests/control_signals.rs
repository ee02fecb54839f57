//! Promise: SIGHUP reopens the audit file, the first SIGTERM drains, a second one stops at once.
//!
//! A test binary of its own, with one test: signals reach the whole process.
#![allow(clippy::unwrap_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the threads of a test are its own")]

use std::fs;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringwall::control::admin::AdminConfig;
use ringwall::control::alerts::Alerts;
use ringwall::control::audit::{AuditConfig, AuditShared, AuditWriter};
use ringwall::control::blocks::Blocking;
use ringwall::control::counters::Counters;
use ringwall::control::{ControlConfig, ControlPlane, ControlShared, Ended, keys};
use ringwall::observe::metrics::{AuditMetrics, MetricSources};
use ringwall::state::blocks::{Blocks, Rules};
use ringwall::state::connections::ConnectionTable;
use ringwall::state::events::{Bell, Event, EventKind, EventQueue};
use ringwall::state::health::HealthFacts;
use ringwall::state::lifecycle::{Lifecycle, Phase};
use ringwall::state::rates::RateTable;
use ringwall::state::tools::ToolNames;
use ringwall::vault::Vault;
use rustix::process::{Signal, getpid, kill_process};

/// 2026-11-22T00:00:00Z
fn clock() -> u64 {
    1_795_305_600_000
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(120), "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn hang_up_reopens_and_terminate_drains_then_stops() {
    let dir = tempfile::tempdir().unwrap();
    let lifecycle = Arc::new(Lifecycle::new(1, Vec::new()));
    let bell = Arc::new(Bell::default());
    let events = Arc::new(EventQueue::new(Arc::clone(&bell)));
    let metrics = Arc::new(AuditMetrics::default());
    let audit = AuditWriter::start(
        AuditConfig {
            dir: Some(dir.path().to_path_buf()),
            state_dir: dir.path().join("data"),
            key: keys::load_or_create(&dir.path().join("data"), "audit.key").unwrap(),
            pseudonym_key: keys::load_or_create(&dir.path().join("data"), "pseudonym.key").unwrap(),
            clock,
        },
        AuditShared {
            queues: vec![Arc::clone(&events)],
            bell,
            lifecycle: Arc::clone(&lifecycle),
            metrics: Arc::clone(&metrics),
            mailbox: None,
        },
    )
    .unwrap();
    let alert_metrics = ringwall::control::alerts::metrics();
    let (alerts, exits) = Alerts::new(Arc::clone(&events), Arc::clone(&alert_metrics), clock);
    let phases = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&phases);
    let data_dir = tempfile::tempdir().unwrap();
    let (store, store_threads) =
        ringwall::store::Store::open(&data_dir.path().join("data"), Arc::clone(&lifecycle)).unwrap();
    let vault = Vault::open(store.clone(), Vec::new(), Vec::new(), Arc::clone(&events), clock).unwrap();
    let connections = Arc::new(ConnectionTable::new(lifecycle.doors().clone(), 1, 1, std::hash::RandomState::new()));
    let blocks = {
        let [operators, proxies, denied] = Default::default();
        let rules = Rules { max_failed: 10, lockout_ms: 1, abuse_ms: None, operators, proxies, denied };
        Arc::new(Blocks::new(rules, [], Box::new(|| {})))
    };
    let blocking = Blocking::new(
        store.clone(),
        Arc::clone(&blocks),
        Arc::clone(&connections),
        Arc::clone(&events),
        alerts.clone(),
        clock,
    );
    let plane = ControlPlane::start(
        ControlConfig {
            health_listener: Some(TcpListener::bind("127.0.0.1:0").unwrap()),
            admin_listener: None,
            admin: AdminConfig::default(),
            facts: HealthFacts { version: "0", auth_enabled: true, started_at_ms: 0 },
            targets: Vec::new(),
            webhook: None,
            otlp: None,
            drain_timeout: Duration::from_secs(60),
            sessions: None,
            jwks: None,
            clock,
            on_phase: Box::new(move |phase| seen.lock().unwrap().push(phase)),
        },
        ControlShared {
            lifecycle: Arc::clone(&lifecycle),
            metrics: MetricSources {
                workers: Vec::new(),
                queues: vec![Arc::clone(&events)],
                audit: metrics,
                alerts: Arc::clone(&alert_metrics),
                tools: Arc::new(ToolNames::new(0)),
                rates: ["traffic", "actions"].map(|name| (name, Arc::new(RateTable::new(1, [0; 16])))),
                broker: None,
                call_records: None,
                otlp: Arc::default(),
                blocks,
                store: Arc::default(),
                spend: Arc::default(),
                started_at_ms: 0,
                lifecycle: Arc::clone(&lifecycle),
                version: "0",
                driver: "epoll",
            },
            events: Arc::clone(&events),
            connections,
            audit: audit.signals(),
            pins: ringwall::control::pins::ToolPins::new(
                store.clone(),
                Arc::default(),
                Arc::clone(&events),
                alerts.clone(),
                clock,
            ),
            alerts,
            exits,
            mailbox: None,
            spending: None,
            kept_days: 365,
            blocking,
            blocks_changed: Arc::default(),
            traffic: Arc::new(RateTable::new(10, [0; 16])),
            counters: Counters::open(data_dir.path(), 10, 0).unwrap(),
            limits: ringwall::control::limits::GivenLimits::new(
                store.clone(),
                Arc::default(),
                ringwall::control::limits::RateTables {
                    traffic: Arc::new(RateTable::new(1, [0; 16])),
                    actions: Arc::new(RateTable::new(1, [0; 16])),
                },
                Arc::clone(&events),
                clock,
            ),
            tokens: ringwall::control::tokens::Tokens::new(store.clone(), Arc::default(), Arc::clone(&events), clock),
            store,
            vault,
            store_pulse: store_threads.pulse(),
        },
    )
    .unwrap();
    lifecycle.advance(Phase::Ready);
    let signal = |signal| kill_process(getpid(), signal).unwrap();
    // The events, not what the trail says about itself.
    let lines = |name: &str| {
        let text = fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        text.lines().filter(|line| !line.contains("\"event\":\"checkpoint\"")).count()
    };

    events.push(Event::new(EventKind::ServerStart, clock())).unwrap();
    until("the first line", || lines("security-2026-11-22.log") == 1);
    fs::rename(dir.path().join("security-2026-11-22.log"), dir.path().join("rotated")).unwrap();
    signal(Signal::HUP);
    // Events go to the old file until the signal has been seen, then to the new one; none is lost.
    let mut pushed = 1;
    until("the new file", || {
        events.push(Event::new(EventKind::Alert, clock())).unwrap();
        pushed += 1;
        lines("security-2026-11-22.log") > 0
    });

    let call = lifecycle.begin_call(0);
    signal(Signal::TERM);
    until("draining", || lifecycle.phase() == Phase::Draining);
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(lifecycle.phase(), Phase::Draining, "a call is in flight");
    signal(Signal::INT);
    assert_eq!(plane.wait(), Ended::Forced);
    assert_eq!(*phases.lock().unwrap(), [Phase::Draining, Phase::Stopped]);
    drop(call);
    audit.stop().unwrap();
    assert_eq!(lines("rotated") + lines("security-2026-11-22.log"), pushed);
}
