//! Deciding what becomes of a posted message: shape, era, guards, route. All of it without an await, on the worker's scratch.
//!
//! The result is a [`Plan`]: an answer that stands in the output already, or what is to be sent to which upstream. Policy is
//! decided from the parsed body; what is sent on are the received bytes, but for what is spliced in.

use std::ops::Range;

use super::{Connection, Request};
use crate::door::decide::{self, Asking, Decision, Refused};
use crate::door::session::Session;
use crate::door::spend::Held;
use crate::door::spread::Spread;
use crate::door::traced::Traced;
use crate::guard::Principal;
use crate::guard::rates::Charged;
use crate::rpc::era::{self, Header, Mirrored};
use crate::rpc::list::ListKind;
use crate::rpc::reply::EchoId;
use crate::rpc::{Envelope, Era, Kind, Method};
use crate::state::events::Reservation;
use crate::upstream::outgoing::{Edits, Unsendable};
use crate::upstream::route::Fan;
use crate::upstream::{Carried, Message, Outgoing, Sender};
use crate::wire::http1::Version;
use crate::worker::Scratch;

/// What is known of a message that goes on: enough to answer it, record it and count it after its bytes are gone.
pub(super) struct Call {
    pub(super) era: Era,
    pub(super) kind: Kind,
    pub(super) method: Method,
    /// In [`Connection::notes`]: the id's bytes; empty for a notification.
    id: Range<usize>,
    /// In [`Connection::notes`]: the decoded name or URI it acts on.
    pub(super) name: Range<usize>,
    pub(super) started_ns: u64,
    /// The upstream that it goes to, if it is one.
    pub(super) upstream: Option<usize>,
    /// Whether it becomes a span.
    pub(super) traced: Option<Traced>,
    /// When the guards were done with it, of a call that is measured.
    pub(super) decided_ns: Option<u64>,
    pub(super) keep_alive: bool,
    pub(super) chunked: bool,
    /// Room in the audit queue for the line that a forwarded tool call leaves.
    pub(super) reservation: Option<Reservation>,
    /// Money that is held for it.
    pub(super) held: Option<Box<Held>>,
    /// What it was counted as.
    pub(super) charged: Charged,
}

/// What becomes of a message.
pub(super) enum Plan {
    /// The answer stands in the output.
    Answered,
    /// It goes on to the upstream with this number.
    Forward(Call, usize, Outgoing),
    /// It concerns several upstreams.
    Fan(Call, Fan, Spread),
    /// Nobody is known to have what it acts on: the lists are to be asked for, and the message planned again.
    LookAgain(Call, ListKind, Spread),
    /// A batch (2025-03-26): members are planned one by one.
    Batch,
}

impl Call {
    /// For a request that carries no message.
    pub(super) fn without_message(era: Era, request: &Request) -> Self {
        Self {
            era,
            kind: Kind::Notification,
            method: Method::Other,
            id: 0..0,
            name: 0..0,
            started_ns: request.started_ns,
            upstream: None,
            traced: None,
            decided_ns: None,
            keep_alive: request.keep_alive,
            chunked: request.version == Version::Http11,
            reservation: None,
            held: None,
            charged: Charged::default(),
        }
    }

    /// The id to echo, out of the notes.
    pub(super) fn id<'n>(&self, notes: &'n [u8]) -> EchoId<'n> {
        match notes.get(self.id.clone()) {
            Some([]) | None if self.era == Era::Modern => EchoId::Absent,
            Some([]) | None => EchoId::Null,
            Some(id) => EchoId::Raw(id),
        }
    }
}

impl Connection {
    /// Plans one message. `body` is its place in the input.
    pub(super) fn plan(&mut self, request: &Request, body: Range<usize>, in_batch: bool, looked_again: bool) -> Plan {
        let worker = self.worker.clone();
        let input = std::mem::take(&mut self.input);
        let plan = {
            let mut scratch = worker.scratch.borrow_mut();
            let received = Received {
                raw: input.get(body).unwrap_or_default(),
                head_bytes: input.get(request.head.clone()).unwrap_or_default(),
                in_batch,
                looked_again,
            };
            self.plan_received(request, &received, &mut scratch)
        };
        self.input = input;
        plan
    }

    fn plan_received(&mut self, request: &Request, received: &Received<'_>, scratch: &mut Scratch) -> Plan {
        let raw = received.raw;
        let mirrored = mirrored(&scratch.request, received.head_bytes);
        let close = !request.keep_alive;
        if !received.in_batch && crate::rpc::parser::is_batch(raw) {
            return match era::decide_batch(mirrored.version) {
                Ok(_) => Plan::Batch,
                Err(fault) => {
                    self.answer_era_fault(fault, mirrored.version, unread_id(mirrored.version), close);
                    Plan::Answered
                }
            };
        }
        if !received.looked_again {
            self.entry.received(1, 0);
        }
        self.worker.begin_deciding();
        let client = self.worker.client_key(&request.principal, self.client_ip());
        self.worker.expect_message(client);
        let parsed = scratch.parser.parse(raw);
        // Whatever it says, it is one message of its client; what was asked on its behalf meanwhile does not make it two.
        if !received.looked_again
            && let Err(denial) = self.worker.admit_message(client)
        {
            let name = |envelope: &Envelope| envelope.name.map_or("", |text| scratch.parser.text(text)).as_bytes();
            let named = parsed.as_ref().ok().map(|envelope| (envelope, name(envelope)));
            let id = match &parsed {
                Ok(envelope) => envelope.id_bytes(raw),
                Err(malformed) => malformed.id.map(|id| id.span.of(raw)),
            };
            let id = id.map_or(unread_id(mirrored.version), EchoId::Raw);
            self.answer_too_many(&denial, named, id, close);
            return Plan::Answered;
        }
        let envelope = match parsed {
            Ok(envelope) => envelope,
            Err(malformed) => {
                self.answer_malformed(&malformed, raw, unread_id(mirrored.version), close);
                return Plan::Answered;
            }
        };
        let echo = envelope.id_bytes(raw).map_or(EchoId::Absent, EchoId::Raw);
        let era = match era::decide(&mirrored, &envelope, raw) {
            Ok(era) => era,
            Err(fault) => {
                self.answer_era_fault(fault, mirrored.version, echo, close);
                return Plan::Answered;
            }
        };
        self.notes.clear();
        let id = note(&mut self.notes, envelope.id_bytes(raw).unwrap_or_default());
        let name = match envelope.name {
            Some(text) => note(&mut self.notes, scratch.parser.text(text).as_bytes()),
            None => 0..0,
        };
        let mut call =
            Call { kind: envelope.kind, method: envelope.method, id, name, ..Call::without_message(era, request) };
        call.traced = self.worker.trace(Some((&scratch.request, received.head_bytes)), &envelope, raw);
        match self.guard_and_route(request, received, &envelope, scratch, &mut call) {
            Ok(Passed::Forward(index, outgoing)) => {
                call.upstream = Some(index);
                call.decided_ns = self.worker.end_deciding();
                Plan::Forward(call, index, outgoing)
            }
            Ok(Passed::Empty) => {
                self.answer_empty_result(&call);
                Plan::Answered
            }
            Ok(Passed::Fan(fan, spread)) => Plan::Fan(call, fan, spread),
            Ok(Passed::LookAgain(kind, spread)) => Plan::LookAgain(call, kind, spread),
            Err(Refused::Rpc { status, code, text }) => {
                self.answer_rpc(&call, status, code, text);
                Plan::Answered
            }
            Err(Refused::Era(fault)) => {
                self.answer_era_fault(fault, mirrored.version, echo, close);
                Plan::Answered
            }
            Err(Refused::Denied(denial)) => {
                self.answer_denial(&call, &denial);
                Plan::Answered
            }
        }
    }

    fn guard_and_route(
        &mut self,
        request: &Request,
        received: &Received<'_>,
        envelope: &Envelope,
        scratch: &mut Scratch,
        call: &mut Call,
    ) -> Result<Passed, Refused> {
        let worker = self.worker.clone();
        decide::check_shape(envelope, &scratch.parser)?;
        // An id that is presented must be ours, whatever the upstream makes of it.
        let session = match (call.era, scratch.request.known.mcp_session_id) {
            (Era::Legacy(_), Some(span)) => {
                let opened = worker.shared.sealer.open(
                    span.of(received.head_bytes),
                    &self.tag_of(&request.principal),
                    crate::worker::epoch_ms() / 1000,
                    &mut scratch.session,
                );
                opened.map_err(|_| SESSION_UNKNOWN)?;
                Some(&scratch.session)
            }
            _ => None,
        };
        let message = Message {
            envelope,
            raw: received.raw,
            era: call.era,
            carried: Carried::Head { head: &scratch.request, bytes: received.head_bytes },
            sender: Sender::Principal(&request.principal),
        };
        let (mut reservation, mut charged) = (None, Charged::default());
        let asking = Asking {
            principal: &request.principal,
            client: self.client_ip(),
            name: self.name(call),
            session,
            looked_again: received.looked_again,
        };
        let held = (&mut reservation, &mut charged);
        let decision = decide::decide(&worker, &scratch.parser, &message, &asking, held);
        (call.reservation, call.charged) = (reservation, charged);
        let (index, edits, held) = match decision? {
            Decision::Forward(index, edits, held) => (index, edits, held),
            Decision::Empty => return Ok(Passed::Empty),
            Decision::Fan(fan, spread) => return Ok(Passed::Fan(fan, spread)),
            Decision::LookAgain(kind, spread) => return Ok(Passed::LookAgain(kind, spread)),
        };
        let way = self.way_to(index, &message, session, &edits);
        match way {
            Ok(_) => call.held = held,
            // What is held is dropped, and so given back.
            Err(_) => self.not_made(call),
        }
        way
    }

    /// The way of a message that may pass: the last that can refuse it.
    fn way_to(
        &self,
        index: usize,
        message: &Message<'_>,
        session: Option<&Session>,
        edits: &Edits,
    ) -> Result<Passed, Refused> {
        let worker = &self.worker;
        let Some(upstream) = worker.upstreams.get(index) else { return Err(SESSION_UNKNOWN) };
        if worker.upstreams.are_several() && session.is_some_and(|session| session.part(upstream.tag).is_none()) {
            // It was down when the client initialized. A sealed id holds no more than the client was given: a new one has to be asked for.
            let is_back = worker.shared.upstream_state(index).is_reachable();
            return Err(if is_back { SESSION_UNKNOWN } else { UNREACHED });
        }
        match upstream.outgoing(message, session, edits) {
            Ok(outgoing) => Ok(Passed::Forward(index, outgoing)),
            Err(Unsendable::Edits) => Err(decide::UNCHANGEABLE),
            Err(Unsendable::Credential) => Err(decide::NO_CREDENTIAL),
            Err(Unsendable::MissingSession) => Err(decide::SESSION_REQUIRED),
        }
    }

    /// A call was certainly not made: what is held for it is given back, and it counts as none.
    pub(super) fn not_made(&self, call: &mut Call) {
        if let Some(held) = &call.held {
            held.not_made();
        }
        self.worker.give_back(&mut call.charged);
    }

    /// [`Principal::tag`], which is computed once where it can be.
    fn tag_of(&self, principal: &Principal) -> [u8; 16] {
        self.remembered.as_ref().map_or_else(|| principal.tag(), |last| last.tag_of(principal))
    }

    /// The name or URI that a call acts on.
    pub(super) fn name(&self, call: &Call) -> &str {
        std::str::from_utf8(self.notes.get(call.name.clone()).unwrap_or_default()).unwrap_or_default()
    }
}

/// A message as it lies in the input.
struct Received<'a> {
    raw: &'a [u8],
    head_bytes: &'a [u8],
    in_batch: bool,
    /// Whether the upstreams' lists have been asked for on this message's behalf.
    looked_again: bool,
}

/// What becomes of a message that may pass.
enum Passed {
    Forward(usize, Outgoing),
    Fan(Fan, Spread),
    LookAgain(ListKind, Spread),
    Empty,
}

/// A session id that is not ours, or no longer.
const SESSION_UNKNOWN: Refused =
    Refused::Rpc { status: 404, code: -32001, text: "Session not found: initialize again" };

/// A message for an upstream that was down when the session was opened, and is.
const UNREACHED: Refused = Refused::Rpc {
    status: 502,
    code: -32001,
    text: "Upstream error: the upstream cannot be reached; the call was not made",
};

/// Appends to the notes and says where.
fn note(notes: &mut Vec<u8>, bytes: &[u8]) -> Range<usize> {
    let start = notes.len();
    notes.extend_from_slice(bytes);
    start..notes.len()
}

/// What stands for an id that could not be read: null up to 2025-11-25, nothing in 2026-07-28, whose schema has no null id.
fn unread_id(version: Header<'_>) -> EchoId<'static> {
    match version {
        Header::One(b"2026-07-28") => EchoId::Absent,
        _ => EchoId::Null,
    }
}

/// The mirrored headers of a request.
pub(super) fn mirrored<'b>(head: &crate::wire::http1::request::RequestHead, buf: &'b [u8]) -> Mirrored<'b> {
    let one = |span: Option<crate::wire::Span>| span.map_or(Header::Absent, |span| Header::One(span.of(buf)));
    Mirrored {
        version: one(head.known.mcp_protocol_version),
        method: one(head.known.mcp_method),
        name: one(head.known.mcp_name),
    }
}
