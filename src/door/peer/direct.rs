//! A message over a connection that speaks messages itself ([`crate::upstream::link`]): no task, no detour. What comes back is handed to
//! [`Peer`] by the link that it came over.

use std::rc::Rc;
use std::task::{Poll, Waker};

use super::calls::CallKey;
use super::carry::{UNCLEAR, agreed};
use super::{Peer, answer};
use crate::door::shown::Shown;
use crate::rpc::cut::Unclear;
use crate::rpc::reply::EchoId;
use crate::rpc::{Envelope, Era, Kind, Method, Span, splice};
use crate::state::events::Outcome;
use crate::upstream::link::{Heard, Link, LinkFailure, Links, Owner, Request, Ticket};
use crate::upstream::outgoing::Edits;

/// Splices that an answer needs at most: id, progress token, subscription.
const MAX_EDITS: usize = 3;

impl Peer {
    /// The link that a message of `era` takes: that which stands for itself shares one, a session has one of its own. A session with several
    /// upstreams is a broker's.
    pub(super) fn link_to(self: &Rc<Self>, links: &Rc<Links>, era: Era) -> Option<Rc<Link>> {
        if era == Era::Modern {
            return Some(links.shared(&self.worker));
        }
        if self.worker.upstreams.are_several() {
            return None;
        }
        let mut own = self.own_link.borrow_mut();
        let standing = own.as_ref().filter(|link| !link.has_ended()).cloned();
        Some(standing.unwrap_or_else(|| {
            let owner: Rc<dyn Owner> = self.clone();
            let link = links.own(&self.worker, Rc::downgrade(&owner));
            *own = Some(link.clone());
            link
        }))
    }

    /// Sends a request that was entered under `key`.
    pub(super) fn send_request(
        self: &Rc<Self>,
        key: CallKey,
        link: &Rc<Link>,
        envelope: &Envelope,
        raw: &[u8],
        edits: &Edits,
    ) {
        let request = Request {
            envelope,
            raw,
            edits,
            endless: envelope.method == Method::SubscriptionsListen,
            now_ms: self.worker.timers.now_ms(),
        };
        match link.request(self.clone(), key.ticket(), &request) {
            Ok(number) => self.calls.borrow_mut().set_way(key, link.clone(), number),
            Err(failure) => self.fail_direct(key, failure),
        }
    }

    /// Sends a request that was entered under `key` once the money that is held for it is on disk.
    pub(super) fn send_once_secured(
        self: &Rc<Self>,
        key: CallKey,
        link: Rc<Link>,
        envelope: &Envelope,
        raw: &[u8],
        edits: Edits,
    ) {
        let (peer, envelope, raw) = (self.clone(), *envelope, raw.to_vec());
        monoio::spawn(async move {
            if peer.secured(key).await {
                peer.send_request(key, &link, &envelope, &raw, &edits);
            }
        });
    }

    /// Sends what has no answer: to a server that the client shares with others, nothing that does not name a call.
    pub(super) fn send_other(&self, link: &Rc<Link>, envelope: &Envelope, raw: &[u8], edits: &Edits, era: Era) {
        if era == Era::Modern {
            return;
        }
        let cancelled = envelope.request_id.filter(|_| envelope.method == Method::NotificationsCancelled);
        let sent = match cancelled {
            Some(span) => {
                let calls = self.calls.borrow();
                let way = calls.find(span.of(raw)).and_then(|key| calls.way(key));
                // The cancellation of what has ended meanwhile says nothing.
                let Some((_, number)) = way else { return };
                link.pass_cancelled(raw, span, number, edits)
            }
            None => link.pass(raw, edits),
        };
        if sent.is_err() {
            self.note_invalid("message-kind", format_args!("a notification could not be forwarded"));
        }
    }

    fn fail_direct(&self, key: CallKey, failure: LinkFailure) {
        if failure == LinkFailure::Full {
            self.worker.metrics.limit(crate::observe::metrics::Limit::UpstreamInFlight);
        }
        if failure.nothing_sent() {
            self.not_made(key);
        }
        let outcome = if failure == LinkFailure::Timeout { Outcome::Timeout } else { Outcome::UpstreamError };
        let text = if failure.nothing_sent() { answer::not_made(&failure) } else { answer::unknown(&failure) };
        self.fail(key, &text, outcome);
    }

    /// How the answer to a call is shown.
    fn look_at(&self, key: CallKey, heard: &Heard<'_>) -> Result<Shown, Unclear> {
        let calls = self.calls.borrow();
        let Some(call) = calls.get(key) else { return Ok(Shown::AsItIs) };
        let (Some(view), Some((link, _))) = (self.view(call), calls.way(key)) else { return Ok(Shown::AsItIs) };
        view.checked(&self.worker, link.upstream(), heard.envelope, heard.raw, EchoId::Raw(call.id()))
    }

    /// Puts a server's message into the outbox, with the client's own ids in place of the link's numbers.
    fn pass_spliced(&self, raw: &[u8], edits: &[(Span, &[u8])]) {
        let growth: i64 = edits.iter().map(|(span, with)| with.len() as i64 - i64::from(span.len())).sum();
        let len = usize::try_from((raw.len() as i64).saturating_add(growth)).unwrap_or(0);
        self.put(len, |out| {
            // The spans come from the parser and do not meet; else the message would not have the announced length.
            let _ = splice::splice(raw, edits, out);
        });
    }
}

impl Owner for Peer {
    fn answered(&self, ticket: Ticket, heard: &Heard<'_>) {
        let key = CallKey::of(ticket);
        let (envelope, raw) = (heard.envelope, heard.raw);
        let Ok(shown) = self.look_at(key, heard) else {
            return self.fail(key, UNCLEAR, Outcome::UpstreamError);
        };
        let withheld = shown.is_withheld();
        {
            let calls = self.calls.borrow();
            let (Some(call), Some(id)) = (calls.get(key), envelope.id) else { return };
            if let Some(held) = &call.held {
                held.hear(envelope, raw);
            }
            let mut edits = arrayvec::ArrayVec::<(Span, &[u8]), MAX_EDITS>::new();
            let _ = edits.try_push((id.span, call.id()));
            if let Some(span) = envelope.subscription_id {
                let _ = edits.try_push((span, call.id()));
            }
            match shown {
                Shown::Withheld(said) => self.say(&said),
                Shown::Cut(mut all) => {
                    all.extend(edits);
                    splice::sort(&mut all);
                    self.pass_spliced(raw, &all);
                }
                Shown::AsItIs => {
                    splice::sort(&mut edits);
                    self.pass_spliced(raw, &edits);
                }
                // What is masked stands where it stood.
                Shown::Masked(masked) => {
                    splice::sort(&mut edits);
                    self.pass_spliced(&masked, &edits);
                }
            }
            match (envelope.kind, call.method) {
                (Kind::Response, Method::ToolsList) => {
                    if let Some((link, _)) = calls.way(key) {
                        self.worker.upstreams.learn_tools(link.upstream(), envelope, raw);
                    }
                }
                (Kind::Response, Method::Initialize) => {
                    if let Some(revision) = agreed(envelope, raw) {
                        self.session.borrow_mut().open(&[], revision);
                    }
                }
                _ => {}
            }
        }
        let outcome = match envelope.kind {
            _ if withheld => Outcome::ToolError,
            Kind::ErrorResponse => Outcome::RpcError,
            _ if envelope.result_is_error => Outcome::ToolError,
            _ => Outcome::Ok,
        };
        self.finish(key, outcome, heard.now_ns);
    }

    fn heard(&self, ticket: Option<Ticket>, heard: &Heard<'_>) {
        let (envelope, raw) = (heard.envelope, heard.raw);
        let calls = self.calls.borrow();
        let call = ticket.and_then(|ticket| calls.get(CallKey::of(ticket)));
        let mut edits = arrayvec::ArrayVec::<(Span, &[u8]), MAX_EDITS>::new();
        match (call, heard.shared) {
            (None, true) => return,
            (None, false) => {}
            (Some(call), shared) => {
                if let Some(span) = envelope.subscription_id {
                    let _ = edits.try_push((span, call.id()));
                }
                if let Some(span) = envelope.progress_token.filter(|_| shared) {
                    if call.progress_token().is_empty() {
                        return;
                    }
                    let _ = edits.try_push((span, call.progress_token()));
                }
            }
        }
        splice::sort(&mut edits);
        self.pass_spliced(raw, &edits);
    }

    fn failed(&self, ticket: Ticket, failure: LinkFailure) {
        self.fail_direct(CallKey::of(ticket), failure);
    }

    fn lost(&self) {
        self.own_link.borrow_mut().take();
        let mut session = self.session.borrow_mut();
        if session.is_open() {
            session.lose();
        }
    }

    fn poll_room(&self, waker: &Waker) -> Poll<()> {
        self.outbox.poll_room(waker)
    }
}
