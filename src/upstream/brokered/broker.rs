//! Whose message goes to which child, and back. One broker an upstream; no I/O and no clock in it: children are queues, time is an argument.
//! A child is an instance of the server: a process, or a connection to one that runs elsewhere. To the broker these are the same.
//!
//! **Which child.** A legacy client's `initialize` decides: clients that agree in protocol version and capabilities share a child, because
//! to the server they are one client; the first handshake is the server's, the others are answered from its copy. Messages of 2026-07-28
//! stand for themselves and share one child.
//!
//! **Which id.** Every call has a process-wide serial. The child sees it as the id and as the progress token, so two clients with the same
//! ids never meet, and whatever the child sends back names the call. What cannot be traced to one client goes to nobody (`routing`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::backoff::{Starts, Wait};
use super::handle::{ChildState, ToClient, Vitals};
use super::instance::{Init, Instance, Key, Purpose, ToServer, Waiter};
use super::line::initialize_terms;
use super::seam::{CallKind, ChildCall, ChildMessage, ChildSpec, Gone, Server, SpawnFault};
use super::sessions::Sessions;
use super::splice::{minify, splice};
use crate::state::call_limit::CallLimit;

/// Longest id and progress token of a client, in bytes: they are kept while the call runs.
const MAX_TOKEN_BYTES: usize = 1024;
/// Clients that wait for one handshake.
const MAX_WAITERS: usize = 256;
/// A child with sessions is given up for another kind of client only after this much idleness.
const EVICT_AFTER: Duration = Duration::from_secs(10);
/// One start of a process a second on average: a client that varies its capabilities has one started for each.
const PROGRAM_START: Duration = Duration::from_secs(1);
/// A connection costs less; a server that closes after each answer is borne with.
const CONNECT: Duration = Duration::from_millis(50);
/// Serials of the gateway's own requests; far above those of calls, and exact in a double.
const OWN_SERIALS: u64 = 1 << 52;

/// Starts a process or a connection and returns the queue to it; given the number that its output will be reported under.
pub(super) type Launch = Box<dyn FnMut(u64) -> Result<ToServer, SpawnFault>>;

/// One upstream that clients share.
pub(super) struct Broker {
    pub(super) spec: ChildSpec,
    pub(super) vitals: Arc<Vitals>,
    pub(super) instances: BTreeMap<u64, Instance>,
    /// Instances that were told to end and have not yet.
    pub(super) dying: usize,
    pub(super) sessions: Sessions,
    pub(super) starts: Starts,
    pub(super) next_own: u64,
    next_instance: u64,
    launch: Launch,
}

/// Tells a client that its call has ended without a response.
pub(super) fn gone(to: &ToClient, reason: Gone) {
    to.send(ChildMessage::Gone { reason });
}

/// A wait in whole milliseconds, at least one.
pub(super) fn retry_ms(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Broker {
    pub(super) fn new(spec: ChildSpec, vitals: Arc<Vitals>, launch: Launch, now: Instant) -> Self {
        let sessions = Sessions::new(spec.max_sessions);
        let refill = match spec.server {
            Server::Program(_) => PROGRAM_START,
            Server::Socket(_) => CONNECT,
        };
        let starts = Starts::new(spec.max_instances, refill, now);
        Self {
            spec,
            vitals,
            instances: BTreeMap::new(),
            dying: 0,
            sessions,
            starts,
            next_own: OWN_SERIALS,
            next_instance: 1,
            launch,
        }
    }

    /// Takes a call.
    pub(super) fn take(&mut self, serial: u64, call: ChildCall, to: ToClient, now: Instant) {
        let too_long = [&call.parts.id, &call.parts.progress_token, &call.parts.request_id]
            .into_iter()
            .flatten()
            .any(|range| range.len() > MAX_TOKEN_BYTES);
        if too_long {
            return gone(&to, Gone::Malformed);
        }
        if call.cancel_on_drop && call.kind == CallKind::Request && to.is_closed() {
            return;
        }
        match (call.kind, call.session) {
            (CallKind::Initialize, _) => self.initialize(serial, &call, to, now),
            (CallKind::Request, None) => self.stateless(serial, call, to, now),
            // 2026-07-28 has no client notification over HTTP; one that is sent anyway must not reach other clients' calls.
            (CallKind::Notification | CallKind::Response, None) => {
                to.send(ChildMessage::Accepted);
            }
            (CallKind::Listen | CallKind::EndSession, None) => {
                to.send(ChildMessage::SessionUnknown);
            }
            (kind, Some(id)) => {
                let Some(no) = self.sessions.touch(id, call.principal, now).map(|session| session.instance) else {
                    to.send(ChildMessage::SessionUnknown);
                    return;
                };
                match kind {
                    CallKind::Request | CallKind::Initialize => {
                        self.request(serial, no, id, call, to, now);
                    }
                    CallKind::Notification => self.notify(no, id, &call, &to, now),
                    CallKind::Response => self.answer(no, id, &call, &to),
                    CallKind::Listen => {
                        to.send(ChildMessage::Accepted);
                        self.sessions.attach(id, serial, to);
                    }
                    CallKind::EndSession => {
                        self.end_session(id, Gone::Closed);
                        to.send(ChildMessage::Accepted);
                    }
                }
            }
        }
    }

    /// A call's handle was dropped.
    pub(super) fn ended(&mut self, serial: u64, cancel: bool, now: Instant) {
        for instance in self.instances.values_mut() {
            if let Some(call) = instance.calls.get_mut(&serial) {
                call.abandon(now);
                if cancel {
                    instance.cancel(serial, "the client has gone");
                }
                return;
            }
        }
        self.sessions.detach(serial, now);
    }

    fn initialize(&mut self, serial: u64, call: &ChildCall, to: ToClient, now: Instant) {
        let (version, capabilities) = initialize_terms(&call.raw);
        let mut hash = Sha256::new();
        hash.update(minify(version));
        hash.update([0]);
        hash.update(minify(capabilities));
        let key = self.key(Some(hash.finalize().into()), call.principal);
        let id = call.parts.id.clone();
        let Some(id_token) = id.clone().and_then(|at| call.raw.get(at)).map(<[u8]>::to_vec) else {
            return gone(&to, Gone::Malformed);
        };
        let waiter = Waiter { to, id: id_token, principal: call.principal };
        let no = match self.instance_for(key, now) {
            Ok(no) => no,
            Err(reason) => return gone(&waiter.to, reason),
        };
        let Some(instance) = self.instances.get_mut(&no) else {
            return;
        };
        instance.last_used = now;
        match &mut instance.init {
            Init::Pending { waiters, .. } if waiters.len() >= MAX_WAITERS => {
                gone(&waiter.to, Gone::Busy);
            }
            Init::Pending { waiters, .. } => waiters.push(waiter),
            Init::Done { response, id, .. } => {
                let spliced = splice(response, &mut [(id.clone(), &waiter.id)]);
                self.welcome(no, waiter, spliced, now);
            }
            Init::Fresh => {
                let Some(permit) = CallLimit::try_take(Arc::clone(&self.spec.calls)) else {
                    return gone(&waiter.to, Gone::Busy);
                };
                let ours = serial.to_string();
                let mut edits = vec![];
                edits.extend(id.map(|at| (at, ours.as_bytes())));
                edits.extend(call.parts.progress_token.clone().map(|at| (at, ours.as_bytes())));
                let sent = splice(&call.raw, &mut edits).map(|raw| instance.server.push(raw));
                match sent {
                    Some(true) => {
                        let place = instance.server.pushed();
                        let waiters = vec![waiter];
                        instance.init = Init::Pending { id: serial, since: now, place, waiters, _permit: permit };
                    }
                    Some(false) => gone(&waiter.to, Gone::Busy),
                    None => gone(&waiter.to, Gone::Malformed),
                }
            }
        }
    }

    /// Opens a session on an initialized child and answers the client.
    pub(super) fn welcome(&mut self, no: u64, waiter: Waiter, response: Option<Vec<u8>>, now: Instant) {
        let Some(bytes) = response else {
            return gone(&waiter.to, Gone::Malformed);
        };
        if waiter.to.is_closed() {
            return;
        }
        match self.sessions.make_room(waiter.principal, now) {
            Ok(None) => {}
            Ok(Some(old)) => self.end_session(old, Gone::Closed),
            Err(()) => return gone(&waiter.to, Gone::Busy),
        }
        let Some(session) = self.sessions.open(waiter.principal, no, now) else {
            return gone(&waiter.to, Gone::Busy);
        };
        if let Some(instance) = self.instances.get_mut(&no) {
            instance.sessions.insert(session);
        }
        waiter.to.send(ChildMessage::Initialized { session, bytes });
    }

    fn stateless(&mut self, serial: u64, call: ChildCall, to: ToClient, now: Instant) {
        let key = self.key(None, call.principal);
        let purpose = match call.parts.method.as_str() {
            "subscriptions/listen" => Purpose::Subscription,
            _ => Purpose::Plain,
        };
        match self.instance_for(key, now) {
            Ok(no) => {
                if let Some(instance) = self.instances.get_mut(&no) {
                    instance.forward(serial, call, to, purpose, &self.spec.calls, now);
                }
            }
            Err(reason) => gone(&to, reason),
        }
    }

    fn key(&self, legacy: Option<[u8; 32]>, principal: u64) -> Key {
        Key { legacy, principal: self.spec.isolate_principals.then_some(principal) }
    }

    /// The child for this kind of client: a running one, one started ahead, or a new one.
    fn instance_for(&mut self, key: Key, now: Instant) -> Result<u64, Gone> {
        let with =
            |wanted: Option<Key>| move |(no, instance): (&u64, &Instance)| (instance.key == wanted).then_some(*no);
        if let Some(no) = self.instances.iter().find_map(with(Some(key))) {
            return Ok(no);
        }
        if let Some(no) = self.instances.iter().find_map(with(None)) {
            if let Some(instance) = self.instances.get_mut(&no) {
                instance.key = Some(key);
            }
            return Ok(no);
        }
        if self.instances.len() >= self.spec.max_instances.max(1) {
            let victim = self
                .instances
                .iter()
                .filter(|(_, instance)| {
                    instance.is_idle()
                        && (instance.sessions.is_empty() || now.duration_since(instance.last_used) >= EVICT_AFTER)
                })
                .min_by_key(|(_, instance)| (!instance.sessions.is_empty(), instance.last_used))
                .map(|(no, _)| *no)
                .ok_or(Gone::Busy)?;
            self.end_instance(victim, &Gone::Closed);
        }
        self.start(Some(key), now)
    }

    /// Starts a process or a connection.
    pub(super) fn start(&mut self, key: Option<Key>, now: Instant) -> Result<u64, Gone> {
        if self.dying >= self.spec.max_instances.max(1) {
            return Err(Gone::Busy);
        }
        match self.starts.ask(now) {
            Ok(()) => {}
            Err(Wait::Paced) => return Err(Gone::Busy),
            Err(Wait::BackOff(_, Some(fault))) => return Err(Gone::NotStarted(fault)),
            Err(Wait::BackOff(wait, None)) => {
                let retry_after_ms = retry_ms(wait);
                return Err(match self.spec.server {
                    Server::Program(_) => Gone::BackingOff { retry_after_ms },
                    Server::Socket(_) => Gone::Unreachable { retry_after_ms },
                });
            }
        }
        let no = self.next_instance;
        self.next_instance = self.next_instance.wrapping_add(1);
        let launched = (self.launch)(no);
        let result = match launched {
            Ok(server) => {
                self.vitals.starts.fetch_add(1, Relaxed);
                self.starts.started();
                self.instances.insert(no, Instance::new(key, server, now));
                Ok(no)
            }
            Err(fault) => {
                let random = getrandom::u32().unwrap_or(0);
                self.starts.failed(now, Duration::ZERO, Some(fault), random);
                Err(Gone::NotStarted(fault))
            }
        };
        self.publish(now);
        result
    }

    /// Publishes state and number of instances.
    pub(super) fn publish(&self, now: Instant) {
        let state = if !self.instances.is_empty() {
            ChildState::Running
        } else if self.starts.fault().is_some() {
            ChildState::Failed
        } else if self.starts.backing_off(now).is_some() {
            ChildState::BackingOff
        } else {
            ChildState::Idle
        };
        let instances = u64::try_from(self.instances.len()).unwrap_or(u64::MAX);
        self.vitals.state.store(state as u8, Relaxed);
        self.vitals.instances.store(instances, Relaxed);
    }
}
