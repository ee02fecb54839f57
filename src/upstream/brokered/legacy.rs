//! Messages of legacy clients within their session.

use std::time::Instant;

use super::broker::{Broker, gone};
use super::handle::ToClient;
use super::instance::{CANCEL_GRACE, Init, Purpose};
use super::line::params_of;
use super::seam::{ChildCall, ChildMessage, Gone, SessionId};
use super::sessions::MAX_SUBSCRIPTIONS;
use super::splice::{IdKey, splice};

impl Broker {
    /// A request: goes to the session's child.
    pub(super) fn request(&mut self, serial: u64, no: u64, id: SessionId, call: ChildCall, to: ToClient, now: Instant) {
        let purpose = match call.parts.method.as_str() {
            "resources/subscribe" => {
                params_of(&call.raw).uri.map_or(Purpose::Plain, |uri| Purpose::Subscribe(uri.into_owned()))
            }
            "resources/unsubscribe" => {
                let uri = params_of(&call.raw).uri.unwrap_or_default().into_owned();
                if self.unsubscribe(no, id, &uri) {
                    return answer_empty(&call, &to);
                }
                Purpose::Plain
            }
            _ => Purpose::Plain,
        };
        let subscribed = match &purpose {
            Purpose::Subscribe(uri) => Some(uri.clone()),
            Purpose::Plain | Purpose::Subscription => None,
        };
        let full = self.sessions.get(id).is_some_and(|session| session.subscriptions.len() >= MAX_SUBSCRIPTIONS);
        if subscribed.is_some() && full {
            return gone(&to, Gone::Busy);
        }
        let Some(instance) = self.instances.get_mut(&no) else {
            to.send(ChildMessage::SessionUnknown);
            return;
        };
        let sent = instance.forward(serial, call, to, purpose, &self.spec.calls, now);
        if let (true, Some(uri), Some(session)) = (sent, subscribed, self.sessions.get_mut(id)) {
            session.subscriptions.insert(uri);
        }
    }

    /// Takes a subscription from a session. `true` when others on the same child keep it, so that the server must not hear of it.
    fn unsubscribe(&mut self, no: u64, id: SessionId, uri: &str) -> bool {
        if let Some(session) = self.sessions.get_mut(id) {
            session.subscriptions.remove(uri);
        }
        self.is_subscribed(no, uri)
    }

    fn is_subscribed(&self, no: u64, uri: &str) -> bool {
        self.instances.get(&no).is_some_and(|instance| {
            instance
                .sessions
                .iter()
                .any(|other| self.sessions.get(*other).is_some_and(|session| session.subscriptions.contains(uri)))
        })
    }

    /// A notification: passed on, but for what would concern other clients.
    pub(super) fn notify(&mut self, no: u64, id: SessionId, call: &ChildCall, to: &ToClient, now: Instant) {
        let Some(instance) = self.instances.get_mut(&no) else {
            to.send(ChildMessage::SessionUnknown);
            return;
        };
        let ours;
        let mut edits = vec![];
        match call.parts.method.as_str() {
            "notifications/initialized" => {
                if let Init::Done { confirmed, .. } = &mut instance.init
                    && std::mem::replace(confirmed, true)
                {
                    to.send(ChildMessage::Accepted);
                    return;
                }
            }
            "notifications/cancelled" => {
                let at = call.parts.request_id.clone();
                let serial = at
                    .clone()
                    .and_then(|at| IdKey::of(call.raw.get(at)?))
                    .and_then(|key| instance.by_client_id.get(&(id, key)).copied());
                let (Some(at), Some(serial)) = (at, serial) else {
                    // Answered already, or never asked: nothing to cancel.
                    to.send(ChildMessage::Accepted);
                    return;
                };
                if let Some(call) = instance.calls.get_mut(&serial) {
                    call.deadline = Some(now + CANCEL_GRACE);
                }
                ours = serial.to_string();
                edits.push((at, ours.as_bytes()));
            }
            "notifications/progress" => {
                // Progress of a request of the server, which only the session that was asked can make.
                let token = params_of(&call.raw).progress_token.and_then(|token| IdKey::of(token.text.as_bytes()));
                let own =
                    token.is_some() && instance.asked.values().any(|asked| asked.session == id && asked.token == token);
                if !own {
                    to.send(ChildMessage::Accepted);
                    return;
                }
            }
            _ => {}
        }
        let sent = splice(&call.raw, &mut edits).is_some_and(|raw| instance.server.push(raw));
        if sent {
            to.send(ChildMessage::Accepted);
        } else {
            gone(to, Gone::Busy);
        }
    }

    /// The answer to a request of the server, if this session was asked.
    pub(super) fn answer(&mut self, no: u64, id: SessionId, call: &ChildCall, to: &ToClient) {
        let key = call.parts.id.clone().and_then(|at| IdKey::of(call.raw.get(at)?));
        if let (Some(key), Some(instance)) = (key, self.instances.get_mut(&no))
            && instance.asked.get(&key).is_some_and(|asked| asked.session == id)
        {
            let sent = splice(&call.raw, &mut []).is_some_and(|raw| instance.server.push(raw));
            if !sent {
                return gone(to, Gone::Busy);
            }
            instance.asked.remove(&key);
        }
        // An answer that nobody waits for is taken and dropped: it may be late.
        to.send(ChildMessage::Accepted);
    }

    /// Ends a session: its calls are cancelled, its debts to the server settled.
    pub(super) fn end_session(&mut self, id: SessionId, reason: Gone) {
        let Some(session) = self.sessions.remove(id, reason.clone()) else {
            return;
        };
        let no = session.instance;
        let Some(instance) = self.instances.get_mut(&no) else {
            return;
        };
        instance.sessions.remove(&id);
        let calls: Vec<u64> =
            instance.calls.iter().filter(|(_, call)| call.session == Some(id)).map(|(serial, _)| *serial).collect();
        for serial in calls {
            if let Some(to) = instance.cancel(serial, "the session has ended").and_then(|call| call.to) {
                gone(&to, reason.clone());
            }
        }
        let asked: Vec<IdKey> =
            instance.asked.iter().filter(|(_, asked)| asked.session == id).map(|(key, _)| key.clone()).collect();
        for key in asked {
            if let Some(asked) = instance.asked.remove(&key) {
                instance.refuse(&asked.id, -32603, "the client has gone");
            }
        }
        for uri in session.subscriptions {
            self.drop_subscription(no, &uri);
        }
    }

    /// Unsubscribes at the server when no session holds the resource any more. The answer is nobody's.
    fn drop_subscription(&mut self, no: u64, uri: &str) {
        if self.is_subscribed(no, uri) {
            return;
        }
        let serial = self.next_own;
        self.next_own = self.next_own.wrapping_add(1);
        if let (Some(instance), Ok(uri)) = (self.instances.get(&no), serde_json::to_string(uri)) {
            instance.server.push(
                format!(
                    r#"{{"jsonrpc":"2.0","id":{serial},"method":"resources/unsubscribe","params":{{"uri":{uri}}}}}"#
                )
                .into_bytes(),
            );
        }
    }
}

/// Answers a request with an empty result in the server's stead.
fn answer_empty(call: &ChildCall, to: &ToClient) {
    let id = call.parts.id.clone().and_then(|at| call.raw.get(at));
    let Some(id) = id else {
        return gone(to, Gone::Malformed);
    };
    let mut bytes = br#"{"jsonrpc":"2.0","id":"#.to_vec();
    bytes.extend_from_slice(id);
    bytes.extend_from_slice(br#","result":{}}"#);
    to.send(ChildMessage::Message { bytes, last: true });
}
