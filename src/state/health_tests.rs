#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use super::*;
use crate::state::lifecycle::{BreakerState, Phase, UpstreamState};

fn lifecycle() -> Arc<Lifecycle> {
    let names = ["a\"b", "plain"];
    Arc::new(Lifecycle::new(1, names.iter().map(|name| Arc::new(UpstreamState::new(name))).collect()))
}

fn body(lifecycle: &Lifecycle) -> serde_json::Value {
    let facts = HealthFacts { version: "1.2.3", auth_enabled: true, started_at_ms: 1_000 };
    let mut out = Vec::new();
    write_health(&mut out, &facts, lifecycle, 62_999);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn the_body_is_the_contracts() {
    let lifecycle = lifecycle();
    lifecycle.advance(Phase::Ready);
    for upstream in lifecycle.upstreams() {
        upstream.set_reachable(true);
    }
    let _open = lifecycle.doors().try_acquire(Door::Tcp, 9).unwrap();
    let want = serde_json::json!({
        "status": "healthy", "version": "1.2.3", "uptime": 61,
        "connections": {"ws": 0, "tcp": 1, "http": 0}, "authEnabled": true,
        "upstreams": {"a\"b": "closed", "plain": "closed"},
    });
    assert_eq!(body(&lifecycle), want);
}

#[test]
fn what_makes_it_degraded() {
    type Fault = fn(&Lifecycle);
    let faults: [(&str, Fault); 5] = [
        ("a breaker is open", |l| l.upstreams()[0].set_breaker(BreakerState::Open)),
        ("an upstream is unreachable", |l| {
            l.upstreams()[1].set_reachable(false);
        }),
        ("the audit log cannot be written", |l| {
            l.set_audit_healthy(false);
        }),
        ("the database cannot be written", |l| {
            l.set_store_healthy(false);
        }),
        ("draining", |l| {
            l.advance(Phase::Draining);
        }),
    ];
    for (name, fault) in faults {
        let lifecycle = lifecycle();
        lifecycle.advance(Phase::Ready);
        for upstream in lifecycle.upstreams() {
            upstream.set_reachable(true);
        }
        assert_eq!(body(&lifecycle)["status"], "healthy");
        fault(&lifecycle);
        assert_eq!(body(&lifecycle)["status"], "degraded", "{name}");
    }
}

#[test]
fn ready_says_why_not() {
    let lifecycle = lifecycle();
    assert_eq!(ready_answer(&lifecycle), (503, "starting"));
    lifecycle.advance(Phase::Ready);
    assert_eq!(ready_answer(&lifecycle), (503, "no upstream reachable"));
    lifecycle.upstreams()[0].set_reachable(true);
    assert_eq!(ready_answer(&lifecycle), (200, "ready"));
    lifecycle.advance(Phase::Draining);
    assert_eq!(ready_answer(&lifecycle), (503, "draining"));
}
