//! What a child says, and to whom it goes. A message that cannot be traced to one client goes to nobody: it is refused or dropped and
//! counted, never sent to all.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::broker::Broker;
use super::instance::{Asked, Init, MAX_ASKED, Purpose};
use super::line::{FromChild, Params, Token, parse};
use super::seam::{ChildMessage, Gone, SessionId};
use super::splice::{Edit, IdKey, splice};
use super::stateless::as_subscription;

/// Longest id of a server's request, in bytes: it is kept until the client answers.
const MAX_ID_BYTES: usize = 256;

/// A stream that a message can go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// That of a call, by serial.
    Call(u64),
    /// A session's GET stream.
    Stream(SessionId),
}

impl Broker {
    /// A line of child `no`.
    pub(super) fn on_line(&mut self, no: u64, line: &[u8], now: Instant) {
        match parse(line) {
            Some(FromChild::Response { id, failed, subscription }) => {
                self.on_response(no, line, &id, failed, subscription, now);
            }
            Some(FromChild::Request { id, method, params }) => {
                self.on_request(no, line, &id, &method, &params, now);
            }
            Some(FromChild::Notification { method, params }) => {
                self.on_notification(no, line, &method, &params, now);
            }
            None if line.iter().all(u8::is_ascii_whitespace) => {}
            None => {
                self.vitals.bad_lines.fetch_add(1, Relaxed);
                let shown = line.get(..line.len().min(200)).unwrap_or_default();
                tracing::debug!(upstream = %self.spec.name, line = %shown.escape_ascii(), "no JSON-RPC message: ignored");
            }
        }
    }

    /// A line of child `no` was longer than allowed and is gone; `id` is the call that it answers, if it does.
    pub(super) fn on_too_long(&mut self, no: u64, id: Option<u64>, now: Instant) {
        self.vitals.bad_lines.fetch_add(1, Relaxed);
        let limit = self.spec.max_message_bytes;
        tracing::warn!(upstream = %self.spec.name, limit, "a message of the server is too long: discarded");
        let (Some(serial), Some(instance)) = (id, self.instances.get_mut(&no)) else {
            return;
        };
        if matches!(instance.init, Init::Pending { id, .. } if id == serial) {
            self.end_instance(no, &Gone::TooLong);
        } else if let Some(call) = instance.forget(serial) {
            let reason = Gone::TooLong;
            let _ = call.to.map(|to| to.send(ChildMessage::Gone { reason }));
        }
        self.publish(now);
    }

    pub(super) fn dropped(&self, what: &str, why: &str) {
        self.vitals.dropped.fetch_add(1, Relaxed);
        tracing::debug!(upstream = %self.spec.name, what, why, "a message of the server was dropped");
    }

    fn on_response(
        &mut self,
        no: u64,
        line: &[u8],
        id: &Token<'_>,
        failed: bool,
        subscription: Option<Token<'_>>,
        now: Instant,
    ) {
        let (Some(serial), Some(instance)) = (id.internal(), self.instances.get_mut(&no)) else {
            return self.dropped("response", "no such id");
        };
        if matches!(instance.init, Init::Pending { id, .. } if id == serial) {
            return self.on_initialized(no, line, id, failed, now);
        }
        let Some(call) = instance.forget(serial) else {
            // Late, after a cancellation; or the answer to a request of the gateway's own.
            return;
        };
        instance.last_used = now;
        let mut edits: Vec<Edit<'_>> = vec![(id.at.clone(), &call.id)];
        let shown = subscription
            .filter(|token| call.purpose == Purpose::Subscription && token.internal() == Some(serial))
            .map(|token| (token.at.clone(), as_subscription(&token, &call.id)));
        if let Some((at, bytes)) = &shown {
            edits.push((at.clone(), bytes));
        }
        let bytes = splice(line, &mut edits);
        if let (Some(to), Some(bytes)) = (call.to, bytes)
            && !to.send(ChildMessage::Message { bytes, last: true })
        {
            self.dropped("response", "the client does not read");
        }
        if let Some(session) = call.session.and_then(|id| self.sessions.get_mut(id)) {
            session.last_used = now;
            if let (true, Purpose::Subscribe(uri)) = (failed, &call.purpose) {
                session.subscriptions.remove(uri);
            }
        }
    }

    fn on_initialized(&mut self, no: u64, line: &[u8], id: &Token<'_>, failed: bool, now: Instant) {
        let Some(instance) = self.instances.get_mut(&no) else {
            return;
        };
        let done = if failed {
            Init::Fresh
        } else {
            Init::Done { response: line.to_vec(), id: id.at.clone(), confirmed: false }
        };
        let Init::Pending { waiters, .. } = std::mem::replace(&mut instance.init, done) else {
            return;
        };
        for waiter in waiters {
            let bytes = splice(line, &mut [(id.at.clone(), &waiter.id)]);
            match bytes {
                Some(bytes) if failed => {
                    waiter.to.send(ChildMessage::Message { bytes, last: true });
                }
                bytes => self.welcome(no, waiter, bytes, now),
            }
        }
        if failed {
            // A server that refused one handshake may be in any state.
            self.end_instance(no, &Gone::Closed);
            self.publish(now);
        }
    }

    fn on_request(&mut self, no: u64, line: &[u8], id: &Token<'_>, method: &str, params: &Params<'_>, now: Instant) {
        let Some(instance) = self.instances.get(&no) else {
            return;
        };
        if id.text.len() > MAX_ID_BYTES {
            // The error would have to repeat the id.
            return self.dropped(method, "its id is too long");
        }
        if method == "ping" {
            let mut pong = br#"{"jsonrpc":"2.0","id":"#.to_vec();
            pong.extend_from_slice(id.text.as_bytes());
            pong.extend_from_slice(br#","result":{}}"#);
            instance.server.push(pong);
            return;
        }
        let Some(key) = IdKey::of(id.text.as_bytes()) else {
            return;
        };
        if instance.asked.len() >= MAX_ASKED || instance.asked.contains_key(&key) {
            instance.refuse(id.text.as_bytes(), -32600, "too many open requests, or one with this id");
            return self.dropped(method, "too many, or the same id");
        }
        let sent = match (self.owner(no), splice(line, &mut [])) {
            (Some((session, target)), Some(bytes)) => self.deliver(no, target, bytes, now).then_some(session),
            _ => None,
        };
        let Some(instance) = self.instances.get_mut(&no) else {
            return;
        };
        match sent {
            Some(session) => {
                let token = params
                    .meta_progress_token
                    .as_ref()
                    .filter(|token| token.text.len() <= MAX_ID_BYTES)
                    .and_then(|token| IdKey::of(token.text.as_bytes()));
                instance.asked.insert(key, Asked { session, id: id.text.as_bytes().to_vec(), token, since: now });
            }
            None => {
                instance.refuse(id.text.as_bytes(), -32603, "cannot be attributed to one client");
                self.dropped(method, "cannot be attributed to one client");
            }
        }
    }

    fn on_notification(&mut self, no: u64, line: &[u8], method: &str, params: &Params<'_>, now: Instant) {
        let Some(instance) = self.instances.get_mut(&no) else {
            return;
        };
        let Some(key) = instance.key else {
            return self.dropped(method, "nobody uses this process yet");
        };
        if method == "notifications/progress" {
            return self.on_progress(no, line, params, now);
        }
        if key.legacy.is_none() {
            return self.on_stateless_notification(no, line, method, params, now);
        }
        match method {
            "notifications/cancelled" => {
                let key = params.request_id.as_ref().and_then(|id| IdKey::of(id.text.as_bytes()));
                let asked = key.and_then(|key| instance.asked.remove(&key));
                if let Some(asked) = asked {
                    let target = self.target_of(no, asked.session);
                    self.pass_on(no, target, line, method, now);
                }
            }
            "notifications/resources/updated" => {
                let uri = params.uri.as_deref().unwrap_or_default();
                let listeners: Vec<SessionId> = instance
                    .sessions
                    .iter()
                    .copied()
                    .filter(|id| self.sessions.get(*id).is_some_and(|session| session.subscriptions.contains(uri)))
                    .collect();
                for id in listeners {
                    self.pass_on(no, Some(Target::Stream(id)), line, method, now);
                }
            }
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => {
                // To the server, these sessions are one client: the news is for each of them that listens.
                let listeners: Vec<SessionId> = instance
                    .sessions
                    .iter()
                    .copied()
                    .filter(|id| self.sessions.get(*id).is_some_and(|s| s.stream.is_some()))
                    .collect();
                for id in listeners {
                    self.pass_on(no, Some(Target::Stream(id)), line, method, now);
                }
            }
            _ => {
                let target = self.owner(no).map(|(_, target)| target);
                self.pass_on(no, target, line, method, now);
            }
        }
    }

    fn on_progress(&mut self, no: u64, line: &[u8], params: &Params<'_>, now: Instant) {
        let method = "notifications/progress";
        let found = params.progress_token.as_ref().and_then(|token| {
            let serial = token.internal()?;
            let call = self.instances.get(&no)?.calls.get(&serial)?;
            let bytes = splice(line, &mut [(token.at.clone(), call.token.as_deref()?)])?;
            Some((serial, bytes))
        });
        match found {
            Some((serial, bytes)) => {
                self.deliver(no, Target::Call(serial), bytes, now);
            }
            None => self.dropped(method, "no such token"),
        }
    }

    pub(super) fn pass_on(&mut self, no: u64, target: Option<Target>, line: &[u8], method: &str, now: Instant) {
        let sent = match (target, splice(line, &mut [])) {
            (Some(target), Some(bytes)) => self.deliver(no, target, bytes, now),
            _ => false,
        };
        if !sent {
            self.dropped(method, "no stream of one client for it");
        }
    }

    /// Sends to a stream. One that does not read is cut: a legacy call then runs on unheard, a stateless one is cancelled.
    pub(super) fn deliver(&mut self, no: u64, target: Target, bytes: Vec<u8>, now: Instant) -> bool {
        let serial = match target {
            Target::Stream(id) => return self.sessions.send(id, bytes, now),
            Target::Call(serial) => serial,
        };
        let Some(instance) = self.instances.get_mut(&no) else {
            return false;
        };
        let Some(call) = instance.calls.get_mut(&serial) else {
            return false;
        };
        let Some(to) = &call.to else {
            return false;
        };
        if to.send(ChildMessage::Message { bytes, last: false }) {
            call.opened();
            return true;
        }
        call.abandon(now);
        if call.session.is_none() {
            instance.cancel(serial, "the client does not read");
        }
        false
    }

    /// The one session that a message of child `no` can be meant for, and the stream to reach it by.
    fn owner(&self, no: u64) -> Option<(SessionId, Target)> {
        let instance = self.instances.get(&no)?;
        let mut in_flight = instance.calls.values().filter_map(|call| call.session);
        let session = match in_flight.next() {
            Some(first) if in_flight.all(|other| other == first) => first,
            Some(_) => return None,
            None => {
                let mut sessions = instance.sessions.iter();
                match (sessions.next(), sessions.next()) {
                    (Some(only), None) => *only,
                    _ => return None,
                }
            }
        };
        Some((session, self.target_of(no, session)?))
    }

    /// A session's oldest call that still has its client, else its GET stream.
    fn target_of(&self, no: u64, session: SessionId) -> Option<Target> {
        let call = self
            .instances
            .get(&no)?
            .calls
            .iter()
            .find(|(_, call)| call.session == Some(session) && call.to.as_ref().is_some_and(|to| !to.is_closed()));
        match call {
            Some((serial, _)) => Some(Target::Call(*serial)),
            None => {
                self.sessions.get(session).filter(|session| session.stream.is_some()).map(|_| Target::Stream(session))
            }
        }
    }
}
