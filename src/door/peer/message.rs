//! One message of a client: what it says, whether it may, and what becomes of it.
//!
//! The order is that of every door: shape, authentication, era, guards, route. Nothing here waits but for what the next message depends on:
//! an `initialize` that is not answered yet, or a look at the upstreams' lists.

use std::rc::Rc;

use super::answer::Refusing;
use super::calls::{Begun, CallKey};
use super::session::PeerSession;
use super::{Peer, carry};
use crate::bounds;
use crate::door::decide::{self, Asking, Decision};
use crate::door::fan;
use crate::door::spend::Held;
use crate::door::spread::Spread;
use crate::guard::rates::Charged;
use crate::guard::{Denial, Principal};
use crate::rpc::list::ListKind;
use crate::rpc::reply::EchoId;
use crate::rpc::{Envelope, Era, Kind, Malformed, Method, Parser, era, scan};
use crate::state::events::{EventKind, Outcome, Reservation};
use crate::upstream::outgoing::{Edits, Unsendable};
use crate::upstream::route::Fan;
use crate::upstream::{Bare, Carried, Message, Outgoing, Sender};
use crate::worker::Scratch;

/// What the door does after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It goes on.
    More,
    /// It closes the connection: the client is not who it says. What there is to say has been said.
    Close,
    /// The client goes on sending though it was told again and again that it sends too much: a door that has a word for that says it.
    TooMany,
}

/// What is left to do after a look at a message.
enum Step {
    Done,
    Close,
    TooMany,
    /// The next message is looked at when this call has ended.
    After(CallKey),
    /// To be looked at again once the upstreams' lists are known.
    LookAgain(Era, ListKind, Spread),
}

/// Where a message that may pass goes.
enum Way {
    One(usize, Outgoing),
    /// Likewise, in a session with several whose part there (none, where that one was down) can be opened in the client's stead.
    Within(usize, Outgoing, Option<Vec<u8>>),
    Fan(Fan, Spread),
    Empty,
}

impl Peer {
    /// Takes one message up. `now_ns` is when it was received.
    pub(crate) async fn handle(self: &Rc<Self>, raw: &[u8], now_ns: u64) -> Next {
        self.note_message();
        if self.is_kept_out() {
            return Next::More;
        }
        let mut looked_again = false;
        loop {
            let step = {
                let mut scratch = self.worker.scratch.borrow_mut();
                self.look(raw, now_ns, looked_again, &mut scratch)
            };
            match step {
                Step::Done => return Next::More,
                Step::Close => return Next::Close,
                Step::TooMany => return Next::TooMany,
                Step::After(key) => {
                    self.ended(key).await;
                    return Next::More;
                }
                Step::LookAgain(era, kind, spread) => {
                    looked_again = true;
                    let spread = self.with_reopening(era, true, spread);
                    // Rare and large: it must not make every connection's task large.
                    Box::pin(fan::look_again(&self.worker, era, kind, spread)).await;
                }
            }
        }
    }

    fn look(self: &Rc<Self>, raw: &[u8], now_ns: u64, looked_again: bool, scratch: &mut Scratch) -> Step {
        if crate::rpc::parser::is_batch(raw) {
            let text = "Invalid request: batches are not supported on this door";
            self.note_invalid("batch", format_args!("{text}"));
            self.say_error(EchoId::Null, -32600, text, None);
            return Step::Done;
        }
        self.worker.begin_deciding();
        self.worker.expect_message(self.client_key.get());
        let parsed = scratch.parser.parse(raw);
        // Whatever it says, it is one message of its client; what was asked on its behalf meanwhile does not make it two.
        if !looked_again {
            match self.worker.admit_message(self.client_key.get()) {
                Ok(()) => self.too_many.set(0),
                Err(denial) => return self.too_many(&denial, parsed.as_ref(), raw, &scratch.parser),
            }
        }
        let envelope = match parsed {
            Ok(envelope) => envelope,
            Err(malformed) => {
                self.refuse_malformed(&malformed, raw);
                return Step::Done;
            }
        };
        if envelope.method == Method::Other && is_authenticate(&envelope, &scratch.parser) {
            return self.authenticate(&envelope, raw);
        }
        let principal = self.principal.borrow().clone();
        let principal = match principal {
            Some(principal) => principal,
            // What a client says first in its protocol may come before its token; once.
            None if self.opens_before_token(&envelope) => Principal::Anonymous,
            None => {
                if envelope.kind == Kind::Request {
                    let id = envelope.id_bytes(raw).map_or(EchoId::Null, EchoId::Raw);
                    self.say_error(id, -32000, "Authentication required", None);
                }
                return Step::Done;
            }
        };
        if envelope.kind == Kind::Notification && self.cancels(&envelope, raw) {
            return Step::Done;
        }
        self.pass(&principal, &envelope, raw, now_ns, looked_again, scratch)
    }

    /// Refuses a message of a client that has sent too many.
    fn too_many(&self, denial: &Denial, parsed: Result<&Envelope, &Malformed>, raw: &[u8], parser: &Parser) -> Step {
        let named =
            parsed.ok().map(|envelope| (envelope, envelope.name.map_or("", |text| parser.text(text)).as_bytes()));
        let id = match parsed {
            Ok(envelope) => envelope.id_bytes(raw),
            Err(malformed) => malformed.id.map(|id| id.span.of(raw)),
        };
        self.refuse_too_many(denial, named, id.map_or(EchoId::Null, EchoId::Raw));
        let in_a_row = self.too_many.get().saturating_add(1);
        self.too_many.set(in_a_row);
        if in_a_row < bounds::TOO_MANY_IN_A_ROW { Step::Done } else { Step::TooMany }
    }

    /// Guards, route, and off it goes.
    fn pass(
        self: &Rc<Self>,
        principal: &Principal,
        envelope: &Envelope,
        raw: &[u8],
        now_ns: u64,
        looked_again: bool,
        scratch: &mut Scratch,
    ) -> Step {
        let parser = &scratch.parser;
        let name = envelope.name.map_or("", |text| parser.text(text));
        let session = self.session.borrow();
        let mut refusing = Refusing { envelope, raw, era: Era::Legacy(session.revision()), name };
        let era = match era::decide_bare(envelope, raw, session.revision()) {
            Ok(era) => era,
            Err(fault) => {
                self.refuse(&refusing, &decide::Refused::Era(fault));
                return Step::Done;
            }
        };
        refusing.era = era;
        let message = Message {
            envelope,
            raw,
            era,
            carried: Carried::Bare(bare(era, envelope, parser, name, session.version())),
            sender: Sender::Tag(session.tag()),
        };
        let parts = session.parts().filter(|_| era != Era::Modern);
        let asking = Asking { principal, client: self.address.ip(), name, session: parts, looked_again };
        let (mut reservation, mut charged) = (None, Charged::default());
        let held = (&mut reservation, &mut charged);
        let decision = decide::check_shape(envelope, parser)
            .and_then(|()| decide::decide(&self.worker, parser, &message, &asking, held));
        let (way, held) = match decision {
            Ok(Decision::Forward(index, edits, held)) => {
                let upstream = self.worker.upstreams.get(index);
                let links = upstream.and_then(|upstream| upstream.links.as_ref());
                if let Some(link) = links.and_then(|links| self.link_to(links, era)) {
                    let opens = envelope.method == Method::Initialize;
                    if session.is_lost() && era != Era::Modern && !opens {
                        self.worker.give_back(&mut charged);
                        self.refuse(&refusing, &SESSION_LOST);
                        return Step::Done;
                    }
                    drop(session);
                    if envelope.kind != Kind::Request {
                        self.send_other(&link, envelope, raw, &edits, era);
                        return Step::Done;
                    }
                    if opens {
                        self.session.borrow_mut().initialized = true;
                    }
                    self.worker.end_deciding();
                    let costs = held.is_some();
                    let key = self.enter(&message, Some(index), name, now_ns, (reservation, held, charged));
                    if costs {
                        self.send_once_secured(key, link, envelope, raw, edits);
                    } else {
                        self.send_request(key, &link, envelope, raw, &edits);
                    }
                    return Step::Done;
                }
                match self.way_to(index, &message, &session, &edits) {
                    Ok(way) => (way, held),
                    Err(unsendable) => {
                        self.worker.give_back(&mut charged);
                        let refused = match unsendable {
                            Unsendable::Credential => &decide::NO_CREDENTIAL,
                            Unsendable::Edits => &decide::UNCHANGEABLE,
                            Unsendable::MissingSession if session.is_lost() => &SESSION_LOST,
                            Unsendable::MissingSession => &NOT_INITIALIZED,
                        };
                        self.refuse(&refusing, refused);
                        return Step::Done;
                    }
                }
            }
            Ok(Decision::Fan(fan, spread)) => (Way::Fan(fan, spread), None),
            Ok(Decision::LookAgain(kind, spread)) => return Step::LookAgain(era, kind, spread),
            Ok(Decision::Empty) => (Way::Empty, None),
            Err(refused) => {
                let refused = match refused.is_session_required() {
                    true if session.is_lost() => &SESSION_LOST,
                    true => &NOT_INITIALIZED,
                    false => &refused,
                };
                self.refuse(&refusing, refused);
                return Step::Done;
            }
        };
        drop(session);
        let upstream = match way {
            Way::One(index, _) | Way::Within(index, ..) => Some(index),
            Way::Fan(..) | Way::Empty => None,
        };
        self.worker.end_deciding();
        let key = self.enter(&message, upstream, name, now_ns, (reservation, held, charged));
        self.go(key, way, era, envelope)
    }

    /// The way to one upstream over HTTP or a broker.
    fn way_to(
        &self,
        index: usize,
        message: &Message<'_>,
        session: &PeerSession,
        edits: &Edits,
    ) -> Result<Way, Unsendable> {
        let Some(upstream) = self.worker.upstreams.get(index) else { return Err(Unsendable::Edits) };
        let parts = session.parts().filter(|_| message.era != Era::Modern);
        if message.era == Era::Modern || message.envelope.kind != Kind::Request || !session.can_reopen() {
            return Ok(Way::One(index, upstream.outgoing(message, parts, edits)?));
        }
        let part = parts.and_then(|parts| parts.part(upstream.tag)).map(<[u8]>::to_vec);
        let outgoing = match part {
            Some(_) => upstream.outgoing(message, parts, edits)?,
            None => upstream.outgoing_unopened(message, edits)?,
        };
        Ok(Way::Within(index, outgoing, part))
    }

    fn enter(
        &self,
        message: &Message<'_>,
        upstream: Option<usize>,
        name: &str,
        now_ns: u64,
        (reservation, held, charged): (Option<Reservation>, Option<Box<Held>>, Charged),
    ) -> CallKey {
        let envelope = message.envelope;
        self.begin(Begun {
            era: message.era,
            kind: envelope.kind,
            method: envelope.method,
            upstream,
            traced: self.worker.trace(None, envelope, message.raw),
            started_ns: now_ns,
            reservation,
            held,
            charged,
            id: envelope.id_bytes(message.raw).filter(|_| envelope.kind == Kind::Request).unwrap_or_default(),
            name: name.as_bytes(),
            progress_token: envelope.progress_token.map_or(&[], |span| span.of(message.raw)),
        })
    }

    /// Sends a message on its way. What must not be overtaken by the next message is waited for.
    fn go(self: &Rc<Self>, key: CallKey, way: Way, era: Era, envelope: &Envelope) -> Step {
        let legacy = era != Era::Modern;
        let opens = legacy && envelope.method == Method::Initialize && envelope.kind == Kind::Request;
        let opened = legacy && envelope.method == Method::NotificationsInitialized;
        if opens {
            self.session.borrow_mut().initialized = true;
        }
        match way {
            Way::One(index, outgoing) => carry::carry(self.clone(), key, index, outgoing),
            Way::Within(index, outgoing, part) => carry::carry_within(self.clone(), key, index, outgoing, part),
            Way::Fan(fan, spread) => carry::carry_fan(self.clone(), key, fan, spread),
            Way::Empty => {
                let id = self.calls.borrow().get(key).map(|call| call.id().to_vec()).unwrap_or_default();
                self.say_result(EchoId::Raw(&id), b"{}");
                self.finish(key, Outcome::Ok, self.worker.now_ns());
                return Step::Done;
            }
        }
        if opens || opened { Step::After(key) } else { Step::Done }
    }

    /// `authenticate`, the one method that is the gateway's own (front-doors.md).
    fn authenticate(&self, envelope: &Envelope, raw: &[u8]) -> Step {
        let id = envelope.id_bytes(raw).map_or(EchoId::Null, EchoId::Raw);
        let token = envelope.params.and_then(|params| scan::member(raw, params, "token"));
        let token = token.and_then(|token| scan::text(raw, token)).map(|text| text.decode(raw).into_owned());
        let checked = self.check_token(token.as_deref().unwrap_or_default().as_bytes());
        match &checked {
            Ok(admitted) => self.worker.authentication_succeeded(self.address.ip(), &admitted.principal),
            Err(_) => self.worker.authentication_failed(self.address.ip()),
        }
        let known = self.principal.borrow().clone();
        match (checked, known) {
            (Ok(admitted), None) => {
                self.renew_lease(admitted.lease);
                self.admit(admitted.principal);
            }
            // Shown again, a newer token of the same agent lets it stay longer.
            (Ok(admitted), Some(known)) if admitted.principal == known || known == Principal::Anonymous => {
                self.renew_lease(admitted.lease);
                if known == Principal::Anonymous {
                    self.admit(admitted.principal);
                }
            }
            // A connection is one principal's: its calls and sessions were judged as that one's.
            (checked, _) => {
                let denial = checked.err().unwrap_or(Denial::BadToken);
                self.worker.metrics.door(self.door).auth_failures.inc();
                self.worker.metrics.refusals.inc(denial.rule());
                let event = self.worker.event(EventKind::InvalidAuth, self.address).with_rule(denial.rule());
                self.record(match denial {
                    Denial::BadJwt(refusal) => event.with_details(format_args!("JWT: {refusal}")),
                    _ => event,
                });
                self.say_error(id, -32000, "Authentication failed", None);
                return Step::Close;
            }
        }
        self.say_result(id, b"{\"authenticated\":true}");
        Step::Done
    }

    /// Whether a message may pass before its sender is known: the first `initialize`, which MCP clients send before anything else.
    fn opens_before_token(&self, envelope: &Envelope) -> bool {
        envelope.method == Method::Initialize
            && envelope.kind == Kind::Request
            && !self.session.borrow().initialized
            && self.door == crate::state::lifecycle::Door::Tcp
    }

    /// Whether this is the cancellation of a call of 2026-07-28 that is in flight: it is given up, and the upstream is told in its own way.
    fn cancels(&self, envelope: &Envelope, raw: &[u8]) -> bool {
        if envelope.method != Method::NotificationsCancelled {
            return false;
        }
        let mut calls = self.calls.borrow_mut();
        let id = envelope.request_id.map(|span| span.of(raw));
        let Some(key) = id.and_then(|id| calls.find(id)) else { return false };
        if calls.get(key).is_none_or(|call| call.era != Era::Modern) {
            return false;
        }
        let way = calls.way(key).map(|(link, number)| (link.clone(), number));
        match way {
            None => calls.cancel(key),
            Some((link, number)) => {
                drop(calls);
                link.cancel(number, "the client has cancelled");
                self.finish(key, Outcome::Cancelled, self.worker.now_ns());
            }
        }
        true
    }
}

/// A message of the session era before its session.
const NOT_INITIALIZED: decide::Refused =
    decide::Refused::Rpc { status: 400, code: -32600, text: "Invalid request: initialize first" };

/// A message of a session that its server has forgotten.
const SESSION_LOST: decide::Refused =
    decide::Refused::Rpc { status: 404, code: -32001, text: "Session not found: initialize again" };

fn is_authenticate(envelope: &Envelope, parser: &Parser) -> bool {
    envelope.kind == Kind::Request && envelope.method_text.is_some_and(|text| parser.text(text) == "authenticate")
}

/// What the fields of a message are made from, should it go to an upstream over HTTP.
fn bare<'a>(
    era: Era,
    envelope: &Envelope,
    parser: &'a Parser,
    name: &'a str,
    session_version: Option<&'a str>,
) -> Bare<'a> {
    match era {
        Era::Modern => Bare {
            version: Some(era::MODERN),
            method: envelope.method_text.map(|text| parser.text(text)),
            name: (envelope.name.is_some() && envelope.method.may_have_name_header()).then_some(name),
        },
        Era::Legacy(revision) => {
            let named = envelope.meta_version.text().map(|_| revision.as_str());
            Bare { version: named.or(session_version), method: None, name: None }
        }
    }
}
