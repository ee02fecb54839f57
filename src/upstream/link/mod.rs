//! Direct links: connections of a worker's own to upstreams that speak messages over a socket (`tcp://`, `ws://`).
//!
//! A client of a door that carries messages reaches such an upstream without a detour: its message is copied once, into what the link sends next,
//! with a number in place of its id; the answer is copied once, into what the client is sent next, with the id back in its place. What many
//! clients say at one moment leaves in one send, and so it is with the answers.
//!
//! A link is *shared* by all clients of a worker whose messages stand for themselves (2026-07-28), or *owned* by one client that has a
//! session there. Over an owned link whatever the server says by itself is the owner's. Over a shared one it must name a call, by its
//! progress token or subscription, or it goes to nobody; a request of the server is refused to the server.
//!
//! TLS (`tls://`, `wss://`) goes through [`super::brokered`], which speaks to these upstreams for the HTTP door as well.

mod pending;
mod pump;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use super::outgoing::Edits;
use crate::rpc::{Envelope, Span, reply};
use crate::settings::policy::{SocketTarget, SocketTransport};
use crate::state::call_limit::{CallLimit, CallPermit};
use crate::state::lifecycle::UpstreamState;
use crate::worker::Worker;
use crate::worker::framing::{Framing, Keys};
use crate::worker::outbox::Outbox;
use pending::Pending;
#[cfg(feature = "pass-through")]
pub(crate) use pump::{Last, Opening, shake_hands, take_frames};

/// What an owner knows its call by.
pub(crate) type Ticket = u64;

/// Bytes that may wait for an upstream that does not read.
const MAX_UNSENT_BYTES: usize = 16 * 1024 * 1024;

/// Who gets what comes back over a link.
pub(crate) trait Owner {
    /// The response to a call. Nothing follows.
    fn answered(&self, ticket: Ticket, heard: &Heard<'_>);

    /// A message of the server: about a call, or, over an owned link, by itself.
    fn heard(&self, ticket: Option<Ticket>, heard: &Heard<'_>);

    /// A call will not be answered.
    fn failed(&self, ticket: Ticket, failure: LinkFailure);

    /// The link that it owns has ended.
    fn lost(&self);

    /// Ready when it takes more.
    fn poll_room(&self, waker: &Waker) -> Poll<()>;
}

/// A message of a server.
pub(crate) struct Heard<'a> {
    /// What it says.
    pub(crate) envelope: &'a Envelope,
    /// Its bytes.
    pub(crate) raw: &'a [u8],
    /// Whether it came over a link that several clients share.
    pub(crate) shared: bool,
    /// When it came.
    pub(crate) now_ns: u64,
}

/// Why a call over a link gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkFailure {
    /// No connection could be made.
    #[error("the upstream cannot be reached")]
    Connect,
    /// The connection ended before the answer.
    #[error("the upstream closed the connection before it answered")]
    Broken,
    /// The answer took too long.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// As many calls are out as may be.
    #[error("the upstream has too many calls in flight")]
    Full,
    /// The message cannot be changed as it must be.
    #[error("the message cannot be forwarded")]
    Unsendable,
}

impl LinkFailure {
    /// Whether the call certainly never reached the upstream.
    pub(crate) fn nothing_sent(self) -> bool {
        matches!(self, Self::Connect | Self::Full | Self::Unsendable)
    }
}

/// The links of one worker to one upstream.
pub(crate) struct Links {
    index: usize,
    target: SocketTarget,
    /// Header lines of the policy, for the WebSocket handshake.
    extra_lines: Vec<u8>,
    state: std::sync::Arc<UpstreamState>,
    connect_timeout_ms: u64,
    call_timeout_ms: u64,
    max_message_bytes: u32,
    shared: RefCell<Option<Rc<Link>>>,
    /// All links, shared and owned, for their deadlines.
    all: RefCell<Vec<Weak<Link>>>,
}

/// What a call that is out over a link holds of the upstream's bound.
type Permit = CallPermit<Rc<Links>>;

impl AsRef<CallLimit> for Links {
    fn as_ref(&self) -> &CallLimit {
        &self.state.calls
    }
}

/// One connection, or one that is being made.
pub(crate) struct Link {
    links: Rc<Links>,
    outbox: Rc<Outbox>,
    pending: RefCell<Pending>,
    /// Who owns it; nobody owns a shared one.
    owner: Option<Weak<dyn Owner>>,
    /// It stands: what fails now may have been carried out.
    open: Cell<bool>,
    ended: Cell<bool>,
    /// When the server was last heard of.
    heard_ms: Cell<u64>,
}

impl Links {
    /// No links yet to `target`, the upstream with this number.
    pub(crate) fn new(
        index: usize,
        target: &SocketTarget,
        settings: &crate::settings::policy::Upstream,
        extra_lines: &[u8],
        state: std::sync::Arc<UpstreamState>,
    ) -> Rc<Self> {
        Rc::new(Self {
            index,
            target: target.clone(),
            extra_lines: extra_lines.to_vec(),
            state,
            connect_timeout_ms: crate::worker::millis(settings.connect_timeout),
            call_timeout_ms: crate::worker::millis(settings.call_timeout),
            max_message_bytes: u32::try_from(crate::bounds::MAX_HELD_ANSWER_BYTES).unwrap_or(u32::MAX),
            shared: RefCell::new(None),
            all: RefCell::new(Vec::new()),
        })
    }

    /// The link that all clients share whose messages stand for themselves; made where there is none.
    pub(crate) fn shared(self: &Rc<Self>, worker: &Rc<Worker>) -> Rc<Link> {
        let standing = self.shared.borrow().as_ref().filter(|link| !link.has_ended()).cloned();
        standing.unwrap_or_else(|| {
            let link = self.connect(worker, None);
            *self.shared.borrow_mut() = Some(link.clone());
            link
        })
    }

    /// A link for one client alone.
    pub(crate) fn own(self: &Rc<Self>, worker: &Rc<Worker>, owner: Weak<dyn Owner>) -> Rc<Link> {
        self.connect(worker, Some(owner))
    }

    fn connect(self: &Rc<Self>, worker: &Rc<Worker>, owner: Option<Weak<dyn Owner>>) -> Rc<Link> {
        let framing = match self.target.transport {
            SocketTransport::Lines => Framing::Lines,
            SocketTransport::WebSocket => Framing::WebSocketClient(Box::new(Keys::new())),
        };
        let link = Rc::new(Link {
            links: self.clone(),
            outbox: Outbox::new(worker.clone(), None, framing, MAX_UNSENT_BYTES),
            pending: RefCell::default(),
            owner,
            open: Cell::new(false),
            ended: Cell::new(false),
            heard_ms: Cell::new(0),
        });
        self.all.borrow_mut().push(Rc::downgrade(&link));
        monoio::spawn(pump::run(worker.clone(), link.clone()));
        link
    }

    /// Gives up the calls that have taken too long; called a few times a second.
    pub(crate) fn tick(&self, now_ms: u64) {
        let mut late = Vec::new();
        self.all.borrow_mut().retain(|link| {
            let Some(link) = link.upgrade() else { return false };
            let mut pending = link.pending.borrow_mut();
            let overdue = pending.take_overdue(now_ms, self.call_timeout_ms);
            drop(pending);
            late.extend(overdue.into_iter().map(|(number, out)| (link.clone(), number, out)));
            true
        });
        for (link, number, out) in late {
            link.say_cancelled(number, "the gateway's time for it is over");
            out.owner.failed(out.ticket, LinkFailure::Timeout);
            if link.open.get() && now_ms.saturating_sub(link.heard_ms.get()) >= self.call_timeout_ms {
                // Not one slow call: nothing at all has come. The next call tries a new connection.
                link.outbox.cut();
            }
        }
    }
}

impl Link {
    /// The upstream's number.
    pub(crate) fn upstream(&self) -> usize {
        self.links.index
    }

    /// Whether nothing more goes over it.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get() || self.outbox.has_ended()
    }

    /// Sends a request with its edits, and a number in place of its id. Returns the number.
    ///
    /// # Errors
    /// [`LinkFailure`]; nothing was sent.
    pub(crate) fn request(
        self: &Rc<Self>,
        owner: Rc<dyn Owner>,
        ticket: Ticket,
        request: &Request<'_>,
    ) -> Result<u64, LinkFailure> {
        let id = request.envelope.id.ok_or(LinkFailure::Unsendable)?;
        if self.has_ended() {
            return Err(LinkFailure::Connect);
        }
        let permit = CallLimit::try_take(self.links.clone()).ok_or(LinkFailure::Full)?;
        let number = {
            let mut pending = self.pending.borrow_mut();
            pending.enter(owner, ticket, request.now_ms, request.endless, permit).ok_or(LinkFailure::Full)?
        };
        let mut digits = [0; 20];
        let digits = reply::decimal(number, &mut digits).as_bytes();
        // Over a shared link clients' tokens would meet; over an owned one the client's own stands.
        let token = request.envelope.progress_token.filter(|_| self.owner.is_none());
        let ours = [(id.span, digits), (token.unwrap_or(Span::new(0, 0)), digits)];
        let ours = ours.get(..if token.is_some() { 2 } else { 1 }).unwrap_or_default();
        if self.send(request.raw, request.edits, ours).is_err() {
            self.pending.borrow_mut().take(number);
            return Err(LinkFailure::Unsendable);
        }
        Ok(number)
    }

    /// Sends a notification, or the client's answer to a request of the server, as it is but for its edits.
    pub(crate) fn pass(self: &Rc<Self>, raw: &[u8], edits: &Edits) -> Result<(), LinkFailure> {
        self.send(raw, edits, &[])
    }

    /// Passes on that a client has cancelled a call: under the number that the server knows.
    pub(crate) fn pass_cancelled(
        self: &Rc<Self>,
        raw: &[u8],
        request_id: Span,
        number: u64,
        edits: &Edits,
    ) -> Result<(), LinkFailure> {
        let mut digits = [0; 20];
        let digits = reply::decimal(number, &mut digits).as_bytes();
        self.send(raw, edits, &[(request_id, digits)])
    }

    /// Gives a call up and tells the server.
    pub(crate) fn cancel(self: &Rc<Self>, number: u64, why: &str) {
        if self.pending.borrow_mut().take(number).is_some() {
            self.say_cancelled(number, why);
        }
    }

    /// Ends an owned link whose owner has gone.
    pub(crate) fn leave(&self) {
        self.ended.set(true);
        drop(self.pending.borrow_mut().take_all());
        match self.links.target.transport {
            SocketTransport::Lines => self.outbox.end(&[]),
            SocketTransport::WebSocket => pump::Last::Left.say(&self.outbox),
        }
        // The reading side ends when the server has closed its own; it is not waited for.
        self.outbox.cut_when_written();
    }

    fn send(self: &Rc<Self>, raw: &[u8], edits: &Edits, ours: &[(Span, &[u8])]) -> Result<(), LinkFailure> {
        let growth: i64 = ours.iter().map(|(span, with)| with.len() as i64 - i64::from(span.len())).sum();
        let len = (raw.len() as i64).saturating_add(edits.growth()).saturating_add(growth);
        let mut sent = Ok(());
        self.outbox.message(usize::try_from(len).unwrap_or(0), |out| sent = edits.apply_with(raw, ours, out));
        sent.map_err(|_| LinkFailure::Unsendable)
    }

    fn say_cancelled(&self, number: u64, why: &str) {
        let mut message =
            b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":".to_vec();
        reply::push_u64(&mut message, number);
        message.extend_from_slice(b",\"reason\":");
        reply::push_string(&mut message, why);
        message.extend_from_slice(b"}}");
        self.outbox.message(message.len(), |out| out.extend_from_slice(&message));
    }
}

/// A request on its way over a link.
pub(crate) struct Request<'a> {
    pub(crate) envelope: &'a Envelope,
    pub(crate) raw: &'a [u8],
    pub(crate) edits: &'a Edits,
    /// It has no time in which it must be answered.
    pub(crate) endless: bool,
    pub(crate) now_ms: u64,
}
