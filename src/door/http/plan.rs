//! Deciding what becomes of a posted message: shape, era, guards, route. All of it without an await, on the worker's scratch.
//!
//! The result is a [`Plan`]: an answer that stands in the output already, or what is to be sent to which upstream. Policy is
//! decided from the parsed body; what is sent on are the received bytes, but for what is spliced in.

use std::ops::Range;

use super::spread::Spread;
use super::{Connection, Request};
use crate::guard::Denial;
use crate::guard::identity::{self, AgentArgument};
use crate::rpc::era::{self, EraFault, Header, Mirrored};
use crate::rpc::list::ListKind;
use crate::rpc::reply::EchoId;
use crate::rpc::{Envelope, Era, Kind, Method};
use crate::state::events::Reservation;
use crate::upstream::outgoing::{Edits, Unsendable};
use crate::upstream::route::{Fan, Unroutable};
use crate::upstream::{Message, Outgoing, Target};
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
    name: Range<usize>,
    pub(super) started_ns: u64,
    /// When the guards were done with it.
    pub(super) decided_ns: u64,
    pub(super) keep_alive: bool,
    pub(super) chunked: bool,
    /// Room in the audit queue for the line that a forwarded tool call leaves.
    pub(super) reservation: Option<Reservation>,
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
            decided_ns: 0,
            keep_alive: request.keep_alive,
            chunked: request.version == Version::Http11,
            reservation: None,
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
        let envelope = match scratch.parser.parse(raw) {
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
        match self.guard_and_route(request, received, &envelope, scratch, &mut call) {
            Ok((index, outgoing)) => {
                call.decided_ns = self.worker.now_ns();
                if request.head_is_parsed {
                    // Nothing was waited for since the head: all of it was deciding.
                    let spent_ns = call.decided_ns.saturating_sub(call.started_ns);
                    self.worker.metrics.guard_duration.record(spent_ns);
                }
                Plan::Forward(call, index, outgoing)
            }
            Err(Refusal::Answered) => Plan::Answered,
            Err(Refusal::Fan(fan, spread)) => Plan::Fan(call, fan, spread),
            Err(Refusal::LookAgain(kind, spread)) => Plan::LookAgain(call, kind, spread),
            Err(Refusal::Era(fault)) => {
                self.answer_era_fault(fault, mirrored.version, echo, close);
                Plan::Answered
            }
            Err(Refusal::Denied(denial)) => {
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
    ) -> Result<(usize, Outgoing), Refusal> {
        let worker = self.worker.clone();
        if envelope.kind == Kind::Notification && !is_notification(envelope, &scratch.parser) {
            // A call without an id would be carried out by lenient servers, and be recorded, checked and routed as nothing.
            self.answer_rpc(call, 400, -32600, "Invalid request: this method needs an id");
            return Err(Refusal::Answered);
        }
        let agent = identity::check(&request.principal, envelope, &scratch.parser).map_err(Refusal::Denied)?;
        if envelope.kind == Kind::Request && envelope.method == Method::ToolsCall {
            call.reservation = self.reserve_record().map_err(Refusal::Denied)?;
        }
        // An id that is presented must be ours, whatever the upstream makes of it.
        let session = match (call.era, scratch.request.known.mcp_session_id) {
            (Era::Legacy(_), Some(span)) => {
                let opened = worker.shared.sealer.open(
                    span.of(received.head_bytes),
                    &request.principal.tag(),
                    crate::worker::epoch_ms() / 1000,
                    &mut scratch.session,
                );
                if opened.is_err() {
                    self.answer_rpc(call, 404, -32001, "Session not found: initialize again");
                    return Err(Refusal::Answered);
                }
                Some(&scratch.session)
            }
            _ => None,
        };
        let message = Message {
            envelope,
            raw: received.raw,
            era: call.era,
            head: &scratch.request,
            head_bytes: received.head_bytes,
            principal: &request.principal,
        };
        let opens = matches!(envelope.method, Method::Initialize | Method::Ping);
        if worker.upstreams.are_several() && call.era != Era::Modern && session.is_none() && !opens {
            self.answer_rpc(call, 400, -32600, "Mcp-Session-Id is required: initialize first");
            return Err(Refusal::Answered);
        }
        let mut edits = Edits::default();
        let target = match worker.upstreams.route(&message, self.name(call), &mut edits) {
            Ok(target) => target,
            Err(Unroutable::Unlisted(kind))
                if !received.looked_again
                    && worker.upstreams.directory.may_look_again(kind, worker.timers.now_ms()) =>
            {
                let spread = Spread::new(&worker.upstreams, &message, session);
                return Err(Refusal::LookAgain(kind, spread));
            }
            Err(unroutable) => {
                self.answer_rpc(call, unroutable.status(call.era), unroutable.code(), unroutable.text());
                return Err(Refusal::Answered);
            }
        };
        let (index, upstream) = match target {
            Target::One(index) => (index, worker.upstreams.get(index).ok_or(Refusal::Answered)?),
            Target::Here => {
                self.answer_empty_result(call);
                return Err(Refusal::Answered);
            }
            Target::Many(fan) => {
                let spread = Spread::new(&worker.upstreams, &message, session);
                return Err(Refusal::Fan(fan, spread));
            }
        };
        // Policy and schemas know the upstream's own name, however the client spelled it.
        let renamed = edits.renamed().map(str::to_owned);
        let own_name = renamed.as_deref().unwrap_or_else(|| self.name(call));
        if let AgentArgument::Insert(own) = agent
            && self.worker.snapshot().settings.policy.injects_agent_id(&upstream.name, own_name)
        {
            edits.insert_agent_id(envelope, received.raw, &own);
        }
        upstream.catalog.check(&message, own_name).map_err(Refusal::Era)?;
        match upstream.outgoing(&message, session, &edits) {
            Ok(outgoing) => Ok((index, outgoing)),
            Err(Unsendable::Edits) => {
                self.answer_rpc(call, 500, -32603, "Internal error: the message cannot be changed as the policy asks");
                Err(Refusal::Answered)
            }
            Err(Unsendable::MissingSession) => {
                self.answer_rpc(call, 400, -32600, "Mcp-Session-Id is required: initialize first");
                Err(Refusal::Answered)
            }
        }
    }

    /// Room for the audit line of a call that is about to be made; production makes no call that cannot be recorded.
    fn reserve_record(&self) -> Result<Option<Reservation>, Denial> {
        let snapshot = self.worker.snapshot();
        if !snapshot.settings.records.audit_enabled {
            return Ok(None);
        }
        let reservation = self.worker.events.reserve();
        let healthy = self.worker.shared.lifecycle.audit_healthy();
        match reservation {
            Ok(reservation) if healthy || !snapshot.is_production() => Ok(Some(reservation)),
            Err(_) if !snapshot.is_production() => Ok(None),
            _ => Err(Denial::AuditUnavailable),
        }
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

/// Why a message does not simply go to one upstream.
enum Refusal {
    Answered,
    Fan(Fan, Spread),
    LookAgain(ListKind, Spread),
    Era(EraFault),
    Denied(Denial),
}

/// Whether the method of a message without an id is one that goes without.
fn is_notification(envelope: &Envelope, parser: &crate::rpc::Parser) -> bool {
    envelope.method_text.is_some_and(|text| parser.text(text).starts_with("notifications/"))
}

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
