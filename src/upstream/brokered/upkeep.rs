//! What time, processes and connections do to a broker: expiry, ends, restarts.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::broker::{Broker, retry_ms};
use super::instance::{HANDSHAKE, Init, Instance, ORPHAN};
use super::seam::{ChildMessage, Gone, SessionId};
use super::splice::IdKey;

/// How an instance ended. What is told is for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The process ended.
    Exited(String),
    /// The server closed the connection in good order, between two messages.
    Closed,
    /// The connection ended in another way.
    Broken(String),
    /// It never stood: nothing was sent.
    Unreachable(String),
}

impl Broker {
    /// Once a second: forgets what is over, ends what is idle, starts ahead what shall be warm.
    pub(super) fn tick(&mut self, now: Instant) {
        for instance in self.instances.values_mut() {
            give_up(instance, now);
        }
        for id in self.sessions.expired(self.spec.session_idle, now) {
            let busy = self.sessions.get(id).is_some_and(|session| {
                self.instances
                    .get(&session.instance)
                    .is_some_and(|instance| instance.calls.values().any(|call| call.session == Some(id)))
            });
            if !busy {
                self.end_session(id, Gone::Closed);
            }
        }
        let silent: Vec<u64> = self
            .instances
            .iter()
            .filter(|(_, instance)| {
                matches!(instance.init, Init::Pending { since, .. } if now.duration_since(since) >= HANDSHAKE)
            })
            .map(|(no, _)| *no)
            .collect();
        for no in silent {
            tracing::warn!(upstream = %self.spec.name, "the server did not answer the handshake");
            self.end_instance(no, &Gone::NoHandshake);
        }
        let idle: Vec<u64> = self
            .instances
            .iter()
            .filter(|(_, instance)| {
                instance.is_idle()
                    && instance.sessions.is_empty()
                    && now.duration_since(instance.last_used) >= self.spec.instance_idle
            })
            .map(|(no, _)| *no)
            .collect();
        for no in idle {
            if self.instances.len() > self.spec.keep_warm {
                self.end_instance(no, &Gone::Closed);
            }
        }
        let warm = self.spec.keep_warm.min(self.spec.max_instances.max(1));
        while self.instances.len() < warm {
            if self.start(None, now).is_err() {
                break;
            }
        }
        self.publish(now);
    }

    /// Ends a child on purpose. Its process goes when its queue is dropped; `on_exit` is called then.
    pub(super) fn end_instance(&mut self, no: u64, reason: &Gone) {
        if let Some(instance) = self.instances.remove(&no) {
            self.dying += 1;
            self.bury(instance, reason);
        }
    }

    /// Child `no` has ended.
    pub(super) fn on_end(&mut self, no: u64, end: &End, now: Instant) {
        let Some(instance) = self.instances.remove(&no) else {
            self.dying = self.dying.saturating_sub(1);
            return;
        };
        let age = now.duration_since(instance.born);
        let upstream = &self.spec.name;
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        if let (End::Closed, true) = (end, instance.is_idle()) {
            // Servers close idle connections as they please: nothing is lost, and nothing needs to wait.
            tracing::debug!(%upstream, age_ms, "the server closed the connection");
            self.bury(instance, &Gone::Disconnected);
            return self.publish(now);
        }
        self.vitals.crashes.fetch_add(1, Relaxed);
        let age = if matches!(end, End::Unreachable(_)) { Duration::ZERO } else { age };
        let retry_ms = retry_ms(self.starts.failed(now, age, None, getrandom::u32().unwrap_or(0)));
        let reason = match end {
            End::Exited(how) => {
                tracing::warn!(%upstream, how, age_ms, retry_ms, "the server ended");
                Gone::Exited
            }
            End::Closed => {
                tracing::warn!(%upstream, age_ms, retry_ms, "the server closed the connection during a call");
                Gone::Disconnected
            }
            End::Broken(how) => {
                tracing::warn!(%upstream, how, age_ms, retry_ms, "the connection to the server broke");
                Gone::Disconnected
            }
            End::Unreachable(how) => {
                tracing::warn!(%upstream, how, retry_ms, "the server cannot be reached");
                Gone::Unreachable { retry_after_ms: retry_ms }
            }
        };
        self.bury(instance, &reason);
        self.publish(now);
    }

    /// Ends everything.
    pub(super) fn stop(&mut self, now: Instant) {
        let all: Vec<u64> = self.instances.keys().copied().collect();
        for no in all {
            self.end_instance(no, &Gone::Stopping);
        }
        self.publish(now);
    }

    fn bury(&mut self, mut instance: Instance, reason: &Gone) {
        instance.fail_all(reason);
        let sessions: Vec<SessionId> = instance.sessions.drain().collect();
        for id in sessions {
            self.sessions.remove(id, reason.clone());
        }
    }
}

/// Forgets calls that were cancelled or whose client has gone long ago, and requests that no client answers.
fn give_up(instance: &mut Instance, now: Instant) {
    let over: Vec<u64> = instance
        .calls
        .iter()
        .filter(|(_, call)| call.deadline.is_some_and(|deadline| deadline <= now))
        .map(|(serial, _)| *serial)
        .collect();
    for serial in over {
        if let Some(to) = instance.forget(serial).and_then(|call| call.to) {
            to.send(ChildMessage::Gone { reason: Gone::Cancelled });
        }
    }
    let stale: Vec<IdKey> = instance
        .asked
        .iter()
        .filter(|(_, asked)| now.duration_since(asked.since) >= ORPHAN)
        .map(|(key, _)| key.clone())
        .collect();
    for key in stale {
        if let Some(asked) = instance.asked.remove(&key) {
            instance.refuse(&asked.id, -32603, "the client did not answer");
        }
    }
}
