//! Notifications of a server of 2026-07-28: they name their subscription, or go with a call.

use std::time::Instant;

use super::broker::Broker;
use super::instance::Purpose;
use super::line::{Params, Token};
use super::routing::Target;
use super::seam::{ChildMessage, Gone};
use super::splice::splice;

impl Broker {
    /// Anything but notifications/progress.
    pub(super) fn on_stateless_notification(
        &mut self,
        no: u64,
        line: &[u8],
        method: &str,
        params: &Params<'_>,
        now: Instant,
    ) {
        let Some(instance) = self.instances.get_mut(&no) else {
            return;
        };
        if method == "notifications/cancelled" {
            // The server ends a subscription; over HTTP that is the end of the stream.
            let serial =
                params.request_id.as_ref().and_then(Token::internal).filter(|serial| {
                    instance.calls.get(serial).is_some_and(|call| call.purpose == Purpose::Subscription)
                });
            if let Some(to) = serial.and_then(|serial| instance.forget(serial)).and_then(|call| call.to) {
                to.send(ChildMessage::Gone { reason: Gone::Closed });
            }
            return;
        }
        if let Some(token) = &params.subscription {
            let found = token.internal().and_then(|serial| {
                let call = instance.calls.get(&serial)?;
                (call.purpose == Purpose::Subscription).then_some(())?;
                let shown = as_subscription(token, &call.id);
                Some((serial, splice(line, &mut [(token.at.clone(), &shown)])?))
            });
            return match found {
                Some((serial, bytes)) => {
                    self.deliver(no, Target::Call(serial), bytes, now);
                }
                None => self.dropped(method, "no such subscription"),
            };
        }
        // Log messages name no call: only when there is one call that can have caused it is it known whose it is.
        let mut running = instance.calls.iter().filter(|(_, call)| call.purpose != Purpose::Subscription);
        let target = match (running.next(), running.next()) {
            (Some((serial, call)), None) if call.wants_log || method != "notifications/message" => {
                Some(Target::Call(*serial))
            }
            _ => None,
        };
        self.pass_on(no, target, line, method, now);
    }
}

/// The client's id in the form in which the server shows a subscription: a string where the server made a string of the number.
pub(super) fn as_subscription(shown: &Token<'_>, id: &[u8]) -> Vec<u8> {
    if shown.text.starts_with('"') && !id.starts_with(b"\"") { [b"\"", id, b"\""].concat() } else { id.to_vec() }
}
