#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use super::*;
use crate::state::events::{Bell, Event, EventKind};
use crate::state::lifecycle::{BreakerState, Phase, UpstreamState};

fn sources() -> MetricSources {
    let bell = Arc::new(Bell::default());
    MetricSources {
        workers: (0..2).map(|_| Arc::new(WorkerMetrics::default())).collect(),
        queues: vec![Arc::new(EventQueue::with_capacity(1, bell))],
        audit: Arc::new(AuditMetrics::default()),
        alerts: Arc::default(),
        lifecycle: Arc::new(Lifecycle::new(2, vec![Arc::new(UpstreamState::new("one"))])),
        version: "0.0.0",
        driver: "io_uring",
    }
}

/// Series and their values.
fn series(text: &str) -> BTreeMap<String, f64> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// Does everything once that any counter counts.
fn move_everything(sources: &MetricSources) -> impl Drop + use<> {
    for worker in &sources.workers {
        for door in Door::ALL {
            let counts = worker.door(*door);
            for outcome in Outcome::ALL {
                counts.call(*outcome, 3_000_000);
            }
            counts.bytes_in.add(10);
            counts.bytes_out.add(20);
            counts.connections_accepted.inc();
            counts.connections_refused.inc();
            counts.connections_closed.inc();
            counts.auth_failures.inc();
        }
        for status in [101, 200, 301, 404, 503] {
            worker.response(status);
        }
        worker.refusals.inc("xss");
        worker.guard_duration.record(700);
        worker.upstream_duration.record(2_000_000);
        worker.upstream_connects.inc();
        worker.upstream_reuses.inc();
        worker.upstream_errors.inc();
        worker.upstream_retries.inc();
    }
    sources.audit.written.add(5);
    sources.audit.groups.inc();
    sources.audit.errors.inc();
    let queue = &sources.queues[0];
    queue.push(Event::new(EventKind::Alert, 0)).unwrap();
    queue.push(Event::new(EventKind::Alert, 0)).unwrap_err();
    sources.lifecycle.advance(Phase::Ready);
    sources.lifecycle.set_audit_healthy(false);
    sources.lifecycle.upstreams()[0].set_reachable(true);
    sources.lifecycle.upstreams()[0].set_breaker(BreakerState::HalfOpen);
    let permits: Vec<_> = Door::ALL.iter().map(|door| sources.lifecycle.doors().try_acquire(*door, 9)).collect();
    struct Held<T>(#[allow(dead_code)] T);
    impl<T> Drop for Held<T> {
        fn drop(&mut self) {}
    }
    Held((permits, sources.lifecycle.begin_call(0)))
}

#[test]
fn every_declared_metric_moves() {
    let sources = sources();
    let before = series(&sources.encode().unwrap());
    let _held = move_everything(&sources);
    let text = sources.encode().unwrap();
    let after = series(&text);
    // What says what the process is, and histogram buckets below the recorded values, stay.
    let constant = |name: &str| name.starts_with("ringwall_build_info") || name == "ringwall_workers";
    let lower_bucket = |name: &str| name.contains("le=") && !name.contains("+Inf");
    // The breaker went from closed to half-open; open was never true.
    let never_open = |name: &str| name.contains("state=\"open\"");
    for (name, value) in &before {
        let still = after[name] == *value;
        assert!(!still || constant(name) || lower_bucket(name) || never_open(name), "{name} did not move");
    }
    assert_eq!(after["ringwall_refusals_total{rule=\"xss\"}"], 2.0);
    assert_eq!(after["ringwall_calls_total{door=\"ws\",outcome=\"tool_error\"}"], 2.0);
    assert_eq!(after["ringwall_call_duration_seconds_count{door=\"http\"}"], 14.0);
    assert_eq!(after["ringwall_call_duration_seconds_bucket{le=\"0.0025\",door=\"http\"}"], 0.0);
    assert_eq!(after["ringwall_call_duration_seconds_bucket{le=\"0.005\",door=\"http\"}"], 14.0);
    assert_eq!(after["ringwall_received_bytes_total{door=\"tcp\"}"], 20.0);
    assert_eq!(after["ringwall_build_info{version=\"0.0.0\",driver=\"io_uring\"}"], 1.0);
}

#[test]
fn every_metric_says_what_it_is() {
    let sources = sources();
    let _held = move_everything(&sources);
    let text = sources.encode().unwrap();
    let described = |kind: &str| -> Vec<&str> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(kind));
        lines.map(|line| line.split(' ').next().unwrap()).collect()
    };
    let (help, types) = (described("# HELP "), described("# TYPE "));
    assert_eq!(help, types);
    for (name, _) in series(&text) {
        assert!(types.iter().any(|declared| name.starts_with(declared)), "{name} is not declared");
    }
    let mut unique = types.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), types.len(), "a metric is declared twice");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn rules_are_bounded() {
    let rules = RuleCounters::default();
    let names: Vec<&'static str> = (0..MAX_RULES + 9).map(|n| &*format!("rule-{n}").leak()).collect();
    for name in &names {
        rules.inc(name);
        rules.inc(name);
    }
    let counted: Vec<_> = rules.iter().collect();
    assert_eq!(counted.len(), MAX_RULES + 1);
    assert!(counted[..MAX_RULES].iter().all(|(_, count)| *count == 2));
    assert_eq!(counted[MAX_RULES], ("other", 18));
}

#[test]
fn odd_statuses_are_not_counted() {
    let worker = WorkerMetrics::default();
    for status in [0, 99, 600, u16::MAX] {
        worker.response(status);
    }
    assert_eq!((1..=5).map(|class| worker.responses(class)).sum::<u64>(), 0);
}
