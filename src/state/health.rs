//! The bodies of `/health` and `/health/ready`, for every listener that serves them.
//!
//! Plain functions over atomics: constant time whatever the load, no allocation beyond the given buffer, nothing secret.

use super::lifecycle::{Door, Lifecycle};

/// What does not change while the process runs.
#[derive(Clone, Debug)]
pub struct HealthFacts {
    /// This program's version.
    pub version: &'static str,
    /// Whether clients must authenticate.
    pub auth_enabled: bool,
    /// When the process started, milliseconds since the Unix epoch.
    pub started_at_ms: u64,
}

/// Writes the body of `GET /health` (JSON, always with status 200). `uptime` is in whole seconds.
pub fn write_health(out: &mut Vec<u8>, facts: &HealthFacts, lifecycle: &Lifecycle, now_ms: u64) {
    let status = if is_healthy(lifecycle) { "healthy" } else { "degraded" };
    let uptime_s = now_ms.saturating_sub(facts.started_at_ms) / 1000;
    out.extend_from_slice(b"{\"status\":\"");
    out.extend_from_slice(status.as_bytes());
    out.extend_from_slice(b"\",\"version\":\"");
    out.extend_from_slice(facts.version.as_bytes());
    out.extend_from_slice(b"\",\"uptime\":");
    push_number(out, uptime_s);
    out.extend_from_slice(b",\"connections\":{");
    for (i, door) in Door::ALL.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_string(out, door.name());
        out.push(b':');
        push_number(out, lifecycle.connections(*door));
    }
    out.extend_from_slice(b"},\"authEnabled\":");
    out.extend_from_slice(if facts.auth_enabled { b"true" } else { b"false" });
    out.extend_from_slice(b",\"upstreams\":{");
    for (i, upstream) in lifecycle.upstreams().iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_string(out, upstream.name());
        out.push(b':');
        push_string(out, upstream.breaker().name());
    }
    out.extend_from_slice(b"}}");
}

/// The answer of `GET /health/ready`: status and plain text.
#[must_use]
pub fn ready_answer(lifecycle: &Lifecycle) -> (u16, &'static str) {
    use super::lifecycle::Phase;
    match lifecycle.phase() {
        Phase::Starting => (503, "starting"),
        Phase::Draining | Phase::Stopped => (503, "draining"),
        Phase::Ready if lifecycle.is_ready() => (200, "ready"),
        Phase::Ready => (503, "no upstream reachable"),
    }
}

/// Serving, every upstream reachable and its breaker closed, and the audit log and the database writable.
fn is_healthy(lifecycle: &Lifecycle) -> bool {
    use super::lifecycle::{BreakerState, Phase};
    lifecycle.phase() == Phase::Ready
        && lifecycle.audit_healthy()
        && lifecycle.store_healthy()
        && lifecycle.upstreams().iter().all(|u| u.is_reachable() && u.breaker() == BreakerState::Closed)
}

fn push_number(out: &mut Vec<u8>, value: u64) {
    use std::io::Write;
    // Writing into a Vec cannot fail.
    let _ = write!(out, "{value}");
}

/// A JSON string; names come from the settings, so they are escaped, not trusted.
fn push_string(out: &mut Vec<u8>, text: &str) {
    // Serializing a str into a Vec cannot fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
