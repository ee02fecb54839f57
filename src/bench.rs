//! Handles for `benches/` on what the crate keeps to itself. Only with the cargo feature `bench`, and in no binary that is given away.
//!
//! Most primitives are public and are measured as they are. Not so the way between them: deciding, the bytes for an upstream, sealed
//! sessions, timers, framing. Making these public for a bench would make them everybody's; so each has a handle here that does
//! one thing and shows nothing. No handle has a socket, a thread or a runtime.

use std::hash::RandomState;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::door::decide::{self, Asking, Decision};
use crate::door::http::answer;
use crate::door::http::remembered::{Remembered, Shown};
use crate::door::session::{Sealer, Session};
use crate::door::sse::Inboxes;
use crate::gateway::desk::Desk;
use crate::gateway::{Shared, Snapshot, block_rules};
use crate::guard::rates::Charged;
use crate::guard::{LimitBook, Principal};
use crate::observe::metrics::WorkerMetrics;
use crate::rpc::era::{self, Header, Mirrored};
use crate::rpc::{Envelope, Era, Kind, Method, glance};
use crate::settings::{Inputs, Settings};
use crate::span::Span;
use crate::state::blocks::Blocks;
use crate::state::connections::{ConnectionId, ConnectionTable};
use crate::state::events::{Bell, Event, EventKind, EventQueue, Outcome, Reservation};
use crate::state::health::HealthFacts;
use crate::state::lifecycle::{Door, Lifecycle, UpstreamState};
use crate::state::rates::RateTable;
use crate::state::tools::ToolNames;
use crate::upstream::outgoing::Edits;
use crate::upstream::{Carried, Message, Outgoing, Sender};
use crate::wire::http1::body::{BodyDecoder, Framing as BodyFraming};
use crate::wire::http1::request::{Body, parse_request};
use crate::wire::http1::response::parse_response;
use crate::wire::http1::{Progress, write};
use crate::worker::framing::{Framing, Keys};
use crate::worker::timers::{Deadline, OnExpiry, TICK_MS, Timers};
use crate::worker::{EndedCall, Scratch, Worker};

/// Where the worker of a bench believes to listen.
const BOUND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// The key under which it seals sessions.
const SEALING_KEY: [u8; 32] = [7; 32];
/// The nonce of every session that a bench seals: what differs between two of them costs nothing.
const NONCE: [u8; 12] = [3; 12];
/// A moment: now, to the benches.
const NOW_S: u64 = 1_795_000_000;

/// One worker's settings, upstreams and scratch, as a thread of the gateway has them.
pub struct Plane {
    client: ConnectionId,
    worker: Rc<Worker>,
}

/// What was read of a request.
pub struct Read {
    envelope: Envelope,
    era: Era,
    principal: Principal,
    body: Range<usize>,
    name: String,
    in_session: bool,
    /// What let the request before it in.
    remembered: Option<Box<Remembered>>,
}

impl Default for Read {
    fn default() -> Self {
        Self {
            envelope: Envelope::empty(Kind::Notification),
            era: Era::Modern,
            principal: Principal::Anonymous,
            body: 0..0,
            name: String::new(),
            in_session: false,
            remembered: None,
        }
    }
}

/// A call that may pass, and how.
pub struct Decided {
    index: usize,
    edits: Edits,
    reservation: Option<Reservation>,
}

impl Plane {
    /// From a policy file's text and settings by name. `None` where they are not valid together.
    #[must_use]
    pub fn new(policy: &str, settings: &[(&str, &str)]) -> Option<Self> {
        let inputs = Inputs {
            environment: settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            policy: Some((PathBuf::from("ringwall.toml"), policy.to_owned())),
            ..Inputs::default()
        };
        let settings = Arc::new(Settings::load(&inputs).ok()?.settings);
        let upstreams = settings.policy.upstreams.iter();
        let states: Vec<_> = upstreams
            .map(|upstream| Arc::new(UpstreamState::with_calls(&upstream.name, upstream.max_in_flight.into())))
            .collect();
        let filter = Arc::new(settings.policy.content.read_filter().ok()?);
        let tls = vec![None; states.len()];
        let upstreams = states.len();
        let lifecycle = Arc::new(Lifecycle::new(1, states));
        let connections = ConnectionTable::new(lifecycle.doors().clone(), 64, 1, RandomState::new());
        let bell = Arc::new(Bell::default());
        let blocks = Blocks::new(block_rules(&settings), [], Box::new(|| {}));
        let limit_book = LimitBook::new(&settings.policy, &settings.rates);
        let shared = Shared {
            limit_book: Arc::new(ArcSwap::from_pointee(limit_book)),
            pins: Arc::default(),
            blocks: Arc::new(blocks),
            snapshot: ArcSwap::from_pointee(Snapshot::new(settings, BOUND, tls, filter)),
            connections: Arc::new(connections),
            credentials: Arc::default(),
            // Nobody takes what is laid on it.
            desk: Desk::new().0,
            sealer: Sealer::new(&SEALING_KEY),
            sse_inboxes: Inboxes::new(1, 1).0,
            children: None,
            health: HealthFacts { version: "", auth_enabled: true, started_at_ms: 0 },
            // No store: what costs is refused.
            spending: None,
            metrics: vec![Arc::new(WorkerMetrics::new(upstreams))],
            tools: Arc::new(ToolNames::new(upstreams)),
            call_records: None,
            events: (0..2).map(|_| Arc::new(EventQueue::new(bell.clone()))).collect(),
            lifecycle,
            traffic: Arc::new(RateTable::new(64, [1; 16])),
            actions: Arc::new(RateTable::new(64, [2; 16])),
        };
        answer::set_date(NOW_S * 1000);
        Some(Self { worker: Worker::new(0, Arc::new(shared)), client: "1f00002a".parse().ok()? })
    }

    /// A session with the first upstream, as a client that holds `token` gets it.
    #[must_use]
    pub fn session(&self, token: &str, own: &[u8]) -> Option<String> {
        let admitted = self.worker.check_token(&self.worker.snapshot().authenticator, token.as_bytes()).ok()?;
        let parts = [(self.worker.upstreams.get(0)?.tag, own)];
        self.worker.shared.sealer.seal(parts, &admitted.principal.tag(), NOW_S + 60, NONCE)
    }

    /// Learns the tools of the first upstream from an answer to `tools/list`.
    #[must_use]
    pub fn learn(&self, page: &[u8]) -> bool {
        let mut scratch = self.worker.scratch.borrow_mut();
        let Ok(envelope) = scratch.parser.parse(page) else { return false };
        self.worker.upstreams.learn_tools(0, &envelope, page);
        true
    }

    /// Head, gate, body, message, era and session of one request. What the request before it has shown at the gate is not judged anew, as on a
    /// connection; media types are left out. False where any of it is refused.
    #[must_use]
    pub fn read(&self, received: &[u8], read: &mut Read) -> bool {
        self.try_read(received, read).is_some()
    }

    fn try_read(&self, received: &[u8], read: &mut Read) -> Option<()> {
        let mut scratch = self.worker.scratch.borrow_mut();
        let scratch = &mut *scratch;
        if parse_request(received, 0, &mut scratch.request) != Ok(Progress::Complete) {
            return None;
        }
        let value = |span: Option<Span>| span.map(|span| span.of(received));
        let (head, known) = (&scratch.request, &scratch.request.known);
        let (shown, generation) = (Shown::of(head, received)?, self.worker.generation());
        if let Some(principal) = read.remembered.as_ref().and_then(|last| last.again(shown, generation)) {
            read.principal = principal.clone();
        } else {
            let snapshot = self.worker.snapshot();
            snapshot.hosts.check(value(known.host), value(known.origin)).ok()?;
            let authorization = value(known.authorization);
            read.principal = self.worker.check_authorization(&snapshot.authenticator, authorization).ok()?.principal;
            read.remembered = Remembered::note(read.remembered.take(), shown, generation, &read.principal);
        }
        read.body = body(head.body, head.len as usize, received)?;
        let raw = received.get(read.body.clone())?;
        read.envelope = scratch.parser.parse(raw).ok()?;
        let one = |span| value(span).map_or(Header::Absent, Header::One);
        let mirrored = Mirrored {
            version: one(known.mcp_protocol_version),
            method: one(known.mcp_method),
            name: one(known.mcp_name),
        };
        read.era = era::decide(&mirrored, &read.envelope, raw).ok()?;
        decide::check_shape(&read.envelope, &scratch.parser).ok()?;
        read.name.clear();
        if let Some(text) = read.envelope.name {
            read.name.push_str(scratch.parser.text(text));
        }
        read.in_session = false;
        if let (Era::Legacy(_), Some(span)) = (read.era, known.mcp_session_id) {
            let tag =
                read.remembered.as_ref().map_or_else(|| read.principal.tag(), |last| last.tag_of(&read.principal));
            let sealed = span.of(received);
            self.worker.shared.sealer.open(sealed, &tag, NOW_S, &mut scratch.session).ok()?;
            read.in_session = true;
        }
        Some(())
    }

    /// `door/decide.rs`: identity, a place in the audit trail, route, parameter headers.
    #[must_use]
    pub fn decide(&self, received: &[u8], read: &Read) -> Option<Decided> {
        let scratch = self.worker.scratch.borrow();
        let message = message(received, read, &scratch)?;
        let asking = Asking {
            principal: &read.principal,
            client: BOUND.ip(),
            name: &read.name,
            session: read.in_session.then_some(&scratch.session),
            looked_again: false,
        };
        let (mut reservation, mut charged) = (None, Charged::default());
        let decision =
            decide::decide(&self.worker, &scratch.parser, &message, &asking, (&mut reservation, &mut charged));
        // What one call is charged is not to stand in the next one's way.
        self.worker.give_back(&mut charged);
        match decision {
            Ok(Decision::Forward(index, edits, _)) => Some(Decided { index, edits, reservation }),
            _ => None,
        }
    }

    /// `upstream/outgoing.rs`: the request for the upstream.
    #[must_use]
    pub fn outgoing(&self, received: &[u8], read: &Read, decided: &Decided) -> Option<Vec<u8>> {
        let scratch = self.worker.scratch.borrow();
        let message = message(received, read, &scratch)?;
        let upstream = self.worker.upstreams.get(decided.index)?;
        match upstream.outgoing(&message, read.in_session.then_some(&scratch.session), &decided.edits) {
            Ok(Outgoing::Http(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// The upstream's answer, a head and a body of known length, as the client gets it; looked into for how the call ended.
    #[must_use]
    pub fn answer(&self, answered: &[u8], output: &mut Vec<u8>) -> bool {
        self.try_answer(answered, output).is_some()
    }

    fn try_answer(&self, answered: &[u8], output: &mut Vec<u8>) -> Option<()> {
        let mut scratch = self.worker.scratch.borrow_mut();
        let scratch = &mut *scratch;
        let head = &mut scratch.response;
        if parse_response(answered, 0, false, head) != Ok(Progress::Complete) {
            return None;
        }
        write::status_line(output, head.status);
        answer::date(output);
        write::copy_response_fields(output, head, answered);
        let start = head.len as usize;
        let step = BodyDecoder::new(head.framing, u64::MAX).ok()?.decode(answered.get(start..)?).ok()?;
        let body = answered.get(start + step.data.start as usize..start + step.data.end as usize)?;
        write::field_decimal(output, "Content-Length", body.len() as u64);
        write::end_head(output);
        output.extend_from_slice(body);
        // As the door does: only what may be an error is parsed.
        (step.done && !glance::may_be_error(body)).then_some(())
    }

    /// Counts the call and puts its audit event into the place that was kept for it.
    pub fn record(&self, received: &[u8], read: &Read, decided: Decided) {
        self.worker.count_call(&EndedCall {
            door: Door::Http,
            upstream: Some(0),
            method: Method::ToolsCall,
            name: read.name.as_bytes(),
            outcome: Outcome::Ok,
            now_ns: 0,
            duration_ns: 80_000,
            traced: None,
        });
        let Some(reservation) = decided.reservation else { return };
        let raw = received.get(read.body.clone()).unwrap_or_default();
        let mut event =
            Event::new(EventKind::ToolCall, NOW_S * 1000).with_ip(BOUND.ip()).with_client(Door::Http, self.client);
        if let Some(agent) = read.principal.agent() {
            event = event.with_agent(agent);
        }
        event = event.with_tool(read.name.as_bytes()).with_call(Outcome::Ok, 200, 80);
        reservation.commit(event.with_request_id(read.envelope.id_bytes(raw).unwrap_or_default()));
    }

    /// Takes an event out, as the audit writer does.
    #[must_use]
    pub fn take_event(&self) -> Option<Event> {
        self.worker.events.pop()
    }
}

fn message<'a>(received: &'a [u8], read: &'a Read, scratch: &'a Scratch) -> Option<Message<'a>> {
    Some(Message {
        envelope: &read.envelope,
        raw: received.get(read.body.clone())?,
        era: read.era,
        carried: Carried::Head { head: &scratch.request, bytes: received },
        sender: Sender::Principal(&read.principal),
    })
}

/// Where a whole body stands that begins at `start`.
fn body(framing: Body, start: usize, received: &[u8]) -> Option<Range<usize>> {
    let Body::Length(length) = framing else { return None };
    let step = BodyDecoder::new(BodyFraming::Length(length), u64::MAX).ok()?.decode(received.get(start..)?).ok()?;
    step.done.then(|| start + step.data.start as usize..start + step.data.end as usize)
}

/// `door/session.rs`: seals a session and opens it again.
pub struct Sealing {
    sealer: Sealer,
    session: Session,
}

impl Default for Sealing {
    fn default() -> Self {
        Self { sealer: Sealer::new(&SEALING_KEY), session: Session::default() }
    }
}

impl Sealing {
    const TAG: u32 = 0x0bad_cafe;
    const PRINCIPAL: [u8; 16] = [1; 16];

    /// Seals a session with one upstream, whose id for it is `own`.
    #[must_use]
    pub fn seal(&self, own: &[u8]) -> Option<String> {
        self.sealer.seal([(Self::TAG, own)], &Self::PRINCIPAL, NOW_S + 60, NONCE)
    }

    /// Opens it; the upstream's id.
    #[must_use]
    pub fn open(&mut self, sealed: &[u8]) -> Option<&[u8]> {
        self.sealer.open(sealed, &Self::PRINCIPAL, NOW_S, &mut self.session).ok()?;
        self.session.part(Self::TAG)
    }
}

/// `worker/timers.rs`: a wheel with so many deadlines that none falls due.
pub struct Wheel {
    timers: Timers,
    deadlines: Vec<Deadline>,
    now_ms: u64,
}

impl Wheel {
    /// Longer than any bench lets the wheel turn between two times that a deadline is set.
    const AFTER_MS: u64 = 30_000;

    /// A wheel whose deadlines are spread over its buckets.
    #[must_use]
    pub fn new(deadlines: u64) -> Self {
        let timers = Timers::new();
        let set = |index: u64| {
            let deadline = timers.deadline(-1);
            deadline.set(Self::AFTER_MS + index * TICK_MS, OnExpiry::Wake);
            deadline
        };
        let deadlines = (0..deadlines).map(set).collect();
        Self { timers, deadlines, now_ms: 0 }
    }

    /// Moves one deadline, as each request does several times. False where there is none of that number.
    #[must_use]
    pub fn set(&self, index: usize) -> bool {
        self.deadlines.get(index).map(|deadline| deadline.set(Self::AFTER_MS, OnExpiry::Cut)).is_some()
    }

    /// One tick; how many deadlines fell due.
    pub fn tick(&mut self) -> usize {
        self.now_ms += TICK_MS;
        self.timers.advance(self.now_ms)
    }
}

/// `worker/framing.rs`: how a message stands on a wire.
pub struct Frames {
    framing: Framing,
}

impl Frames {
    /// One message a line.
    #[must_use]
    pub fn lines() -> Self {
        Self { framing: Framing::Lines }
    }

    /// One message an event of a chunked stream.
    #[must_use]
    pub fn events() -> Self {
        Self { framing: Framing::Events }
    }

    /// One message a frame, from a server.
    #[must_use]
    pub fn websocket_server() -> Self {
        Self { framing: Framing::WebSocketServer }
    }

    /// One message a masked frame, from a client.
    #[must_use]
    pub fn websocket_client() -> Self {
        Self { framing: Framing::WebSocketClient(Box::new(Keys::new())) }
    }

    /// Appends a message.
    pub fn put(&mut self, out: &mut Vec<u8>, message: &[u8]) {
        self.framing.put(out, message.len(), |out| out.extend_from_slice(message));
    }
}
