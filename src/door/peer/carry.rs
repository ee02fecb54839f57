//! A message on its way through an upstream over HTTP, or one that a broker holds, and what comes back.
//!
//! One task a message: it sends, passes on what comes, and ends the call. A call that its client gives up, or whose client has gone, is given up
//! here as well, and the upstream is told in the way of its transport.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::Peer;
use super::answer::{not_made, unknown};
use super::calls::{Call, CallKey};
use crate::door::fan::{self, FanAnswer};
use crate::door::pump::{self, Merging, Piece};
use crate::door::shown::{View, Viewer};
use crate::door::spread::{MAX_REOPENINGS, Reopened, Spread, SpreadInner};
use crate::guard::Principal;
use crate::rpc::cut::Unclear;
use crate::rpc::reply::{self, EchoId};
use crate::rpc::{Envelope, Era, Kind, Method, Parser, Revision, scan};
use crate::state::events::Outcome;
use crate::upstream::Outgoing;
use crate::upstream::brokered::Gone;
use crate::upstream::converse::{Broken, Conversed, Taker, converse};
use crate::upstream::http::Failure;
use crate::upstream::route::Fan;
use crate::wire::sse::read_event;

/// What is said of an answer of which it cannot be told what its receiver may be shown.
pub(super) const UNCLEAR: &str = "Upstream error: the upstream's answer cannot be read";

/// Carries a message to one upstream.
pub(super) fn carry(peer: Rc<Peer>, key: CallKey, index: usize, outgoing: Outgoing) {
    monoio::spawn(async move {
        if peer.secured(key).await {
            let (conversed, passing) = send(&peer, key, index, outgoing).await;
            peer.conclude(key, conversed, passing);
        }
    });
}

/// Carries a request of a session with several upstreams to one of them. `part` is the session's part there, which the message was composed
/// for; a server that does not know it has done nothing, so the request is sent again once the server has opened it anew.
pub(super) fn carry_within(
    peer: Rc<Peer>,
    key: CallKey,
    index: usize,
    mut outgoing: Outgoing,
    mut part: Option<Vec<u8>>,
) {
    monoio::spawn(async move {
        if !peer.secured(key).await {
            return;
        }
        let mut left = MAX_REOPENINGS;
        loop {
            if part.is_some() {
                let (conversed, passing) = send(&peer, key, index, outgoing.clone()).await;
                let is_lost = matches!(&conversed, Ok(conversed) if conversed.status == 404 && !conversed.answered);
                if !is_lost {
                    return peer.conclude(key, conversed, passing);
                }
            }
            let Some(once_less) = left.checked_sub(1) else {
                peer.not_made(key);
                return peer.fail(key, &not_made(&Failure::NoSession), Outcome::UpstreamError);
            };
            left = once_less;
            let reopened = crate::worker::race(peer.reopen_at(index, part.as_deref()), peer.cancelled(key)).await;
            if !matches!(reopened, Some(Reopened::Part(_))) {
                // It was refused for want of a session, or never left.
                peer.not_made(key);
            }
            match reopened {
                Some(Reopened::Part(new)) => {
                    outgoing = outgoing.within(part.as_deref(), &new);
                    part = Some(new);
                }
                Some(Reopened::Failed(failure)) => {
                    let outcome = if failure == Failure::Timeout { Outcome::Timeout } else { Outcome::UpstreamError };
                    // Whatever became of the handshake, nothing was asked of the session.
                    return peer.fail(key, &not_made(&failure), outcome);
                }
                Some(Reopened::Unknown) => return peer.lose_session(key),
                None => return peer.finish(key, Outcome::Cancelled, peer.worker.now_ns()),
            }
        }
    });
}

async fn send(peer: &Rc<Peer>, key: CallKey, index: usize, outgoing: Outgoing) -> (Result<Conversed, Broken>, Passing) {
    let endless = peer.calls.borrow().get(key).is_some_and(|call| call.method == Method::SubscriptionsListen);
    let mut passing = Passing { peer: peer.clone(), key, index, outcome: None, revision: None };
    let cancelled = peer.cancelled(key);
    let conversed = converse(&peer.worker, index, outgoing, endless, cancelled, &mut passing).await;
    (conversed, passing)
}

/// Carries a message that concerns several upstreams.
pub(super) fn carry_fan(peer: Rc<Peer>, key: CallKey, fan: Fan, spread: Spread) {
    monoio::spawn(async move {
        if fan == Fan::Listen {
            return pass_pieces(&peer, key, &spread).await;
        }
        let Some(era) = peer.calls.borrow().get(key).map(|call| call.era) else { return };
        let opening = (fan == Fan::Initialize).then(|| spread.inner.clone());
        let spread = if opening.is_none() { peer.with_reopening(era, fan != Fan::Tell, spread) } else { spread };
        let answer = crate::worker::race(fan::ask(&peer.worker, era, fan, spread), peer.cancelled(key)).await;
        match answer {
            Some(answer) => peer.fan_answered(key, answer, opening),
            None => peer.finish(key, Outcome::Cancelled, peer.worker.now_ns()),
        }
    });
}

/// What takes the messages of one call.
struct Passing {
    peer: Rc<Peer>,
    key: CallKey,
    index: usize,
    /// How the call ended, once its response has come.
    outcome: Option<Outcome>,
    /// What `initialize` has agreed on.
    revision: Option<Revision>,
}

impl Taker for Passing {
    fn take(&mut self, message: &[u8]) -> bool {
        let worker = self.peer.worker.clone();
        let mut scratch = worker.scratch.borrow_mut();
        let Ok(envelope) = scratch.parser.parse(message) else { return false };
        if !matches!(envelope.kind, Kind::Response | Kind::ErrorResponse) {
            self.peer.pass_own(self.index, message, &envelope);
            return false;
        }
        let calls = self.peer.calls.borrow();
        let Some(call) = calls.get(self.key).filter(|call| call.kind == Kind::Request && self.outcome.is_none()) else {
            return false;
        };
        let id = envelope.id_bytes(message);
        // An error may come without an id: the server could not read it. Any other id is not this call's.
        if id.is_some_and(|id| id != call.id()) || id.is_none() && envelope.kind == Kind::Response {
            return false;
        }
        match (envelope.kind, call.method) {
            (Kind::Response, Method::ToolsList) => worker.upstreams.learn_tools(self.index, &envelope, message),
            (Kind::Response, Method::Initialize) => self.revision = agreed(&envelope, message),
            _ => {}
        }
        if let Some(held) = &call.held {
            held.hear(&envelope, message);
        }
        let Ok((withheld, shown)) = self.peer.shown(call, self.index, &envelope, message) else {
            self.outcome = Some(Outcome::UpstreamError);
            self.peer.say_error(EchoId::Raw(call.id()), -32001, UNCLEAR, None);
            return true;
        };
        self.outcome = Some(match envelope.kind {
            _ if withheld => Outcome::ToolError,
            Kind::ErrorResponse => Outcome::RpcError,
            _ if envelope.result_is_error => Outcome::ToolError,
            _ => Outcome::Ok,
        });
        if id.is_some() || withheld {
            let message = shown.as_deref().unwrap_or(message);
            self.peer.put(message.len(), |out| out.extend_from_slice(message));
        } else {
            let message = shown.as_deref().unwrap_or(message);
            let error = envelope.error.map_or(&[][..], |span| span.of(message));
            self.peer.say(&error_response(call.id(), error));
        }
        true
    }

    fn room(&self) -> impl Future<Output = ()> {
        self.peer.room()
    }
}

/// A server's error under the id of the call that it answers.
fn error_response(id: &[u8], error: &[u8]) -> Vec<u8> {
    [b"{\"jsonrpc\":\"2.0\",\"id\":", id, b",\"error\":", error, b"}"].concat()
}

/// The revision that a result of `initialize` names. One that we do not know is spoken as the newest that we do.
pub(super) fn agreed(envelope: &Envelope, raw: &[u8]) -> Option<Revision> {
    let version = scan::member(raw, envelope.result?, "protocolVersion")?;
    let version = scan::text(raw, version)?.decode(raw).into_owned();
    let known = Revision::ALL.into_iter().find(|revision| revision.as_str() == version);
    Some(known.unwrap_or(Revision::V2025_11_25))
}

impl Peer {
    /// Waits until the money that is held for a call is on disk. False: it is not, or nobody waits for the call any more; it has ended.
    pub(super) async fn secured(&self, key: CallKey) -> bool {
        let mut held = match self.calls.borrow_mut().get_mut(key) {
            None => return false,
            Some(call) => match call.held.take() {
                None => return true,
                Some(held) => held,
            },
        };
        match crate::worker::race(held.write_down(), self.cancelled(key)).await {
            Some(Ok(())) => {}
            Some(Err(denial)) => {
                self.not_made(key);
                self.refuse_entered(key, &denial);
                return false;
            }
            None => {
                self.not_made(key);
                self.finish(key, Outcome::Cancelled, self.worker.now_ns());
                return false;
            }
        }
        held.sent();
        match self.calls.borrow_mut().get_mut(key) {
            Some(call) => {
                call.held = Some(held);
                true
            }
            // Nothing was sent, and nothing will be.
            None => {
                held.not_made();
                false
            }
        }
    }

    /// A call was certainly not made: what is held for it is given back, and it counts as none.
    pub(super) fn not_made(&self, key: CallKey) {
        if let Some(call) = self.calls.borrow_mut().get_mut(key) {
            if let Some(held) = &call.held {
                held.not_made();
            }
            self.worker.give_back(&mut call.charged);
        }
    }

    /// Ready when a call is given up, or its client can be told nothing any more.
    pub(super) async fn cancelled(&self, key: CallKey) {
        poll_fn(|cx| {
            // Of a client that leaves later, `leave` tells every call.
            if self.is_deaf() {
                return Poll::Ready(());
            }
            self.calls.borrow_mut().poll_cancelled(key, cx.waker())
        })
        .await;
    }

    /// Ready when what is sent has room. Never, once the client can be told nothing: whoever waits for room waits for that as well. Room
    /// without end would let a server that sends without a pause be read without a pause, and nothing else on the worker would run.
    pub(super) async fn room(&self) {
        poll_fn(|cx| if self.is_deaf() { Poll::Pending } else { self.outbox.poll_room(cx.waker()) }).await;
    }

    fn is_deaf(&self) -> bool {
        self.gone.get() || self.outbox.has_ended()
    }

    /// What is to be looked for in what comes back for `call`; `None`: nothing.
    pub(super) fn view(&self, call: &Call) -> Option<View> {
        let principal = self.principal.borrow();
        let viewer = Viewer {
            principal: principal.as_ref().unwrap_or(&Principal::Anonymous),
            client: self.address.ip(),
            kind: call.kind,
            method: call.method,
            era: call.era,
            name: call.name(),
        };
        View::of(&self.worker, &viewer)
    }

    /// A response to this call, as the client is shown it: whether it was withheld, and its bytes where they are others.
    fn shown(
        &self,
        call: &Call,
        index: usize,
        envelope: &Envelope,
        message: &[u8],
    ) -> Result<(bool, Option<Vec<u8>>), Unclear> {
        let Some(view) = self.view(call) else { return Ok((false, None)) };
        let shown = view.checked(&self.worker, index, envelope, message, EchoId::Raw(call.id()))?;
        Ok((shown.is_withheld(), shown.bytes(message)?))
    }

    /// Passes on what a server says by itself: a notification, or a request to the client.
    pub(super) fn pass_own(&self, index: usize, message: &[u8], envelope: &Envelope) {
        if !self.worker.upstreams.are_several() {
            return self.put(message.len(), |out| out.extend_from_slice(message));
        }
        match pump::tag(index, message, envelope) {
            Some(tagged) => self.say(&tagged),
            None => self.put(message.len(), |out| out.extend_from_slice(message)),
        }
    }

    /// Passes on a response that came on another stream than its call's own, if the call is still in flight.
    pub(super) fn answer_late(&self, index: usize, message: &[u8], envelope: &Envelope) {
        let Some(key) = envelope.id_bytes(message).and_then(|id| self.calls.borrow().find(id)) else { return };
        if let Some(held) = self.calls.borrow().get(key).and_then(|call| call.held.as_ref()) {
            held.hear(envelope, message);
        }
        let shown = self.calls.borrow().get(key).map(|call| self.shown(call, index, envelope, message));
        let withheld = match shown.unwrap_or(Ok((false, None))) {
            Ok((withheld, shown)) => {
                self.say(shown.as_deref().unwrap_or(message));
                withheld
            }
            Err(Unclear) => return self.fail(key, UNCLEAR, Outcome::UpstreamError),
        };
        let outcome = match envelope.kind {
            _ if withheld => Outcome::ToolError,
            Kind::ErrorResponse => Outcome::RpcError,
            _ if envelope.result_is_error => Outcome::ToolError,
            _ => Outcome::Ok,
        };
        self.finish(key, outcome, self.worker.now_ns());
    }

    /// Has servers asked that have lost their part of the session, or, for `all`, have none, to open it anew.
    pub(super) fn with_reopening(self: &Rc<Self>, era: Era, all: bool, spread: Spread) -> Spread {
        if era == Era::Modern || !self.session.borrow().can_reopen() {
            return spread;
        }
        spread.reopened_by(&self.worker, self.clone(), all)
    }

    /// A call's upstream does not know the session, and it cannot be opened in the client's stead.
    fn lose_session(&self, key: CallKey) {
        self.session.borrow_mut().lose();
        self.fail(key, "Session not found: initialize again", Outcome::RpcError);
    }

    fn conclude(self: &Rc<Self>, key: CallKey, conversed: Result<Conversed, Broken>, passing: Passing) {
        let Passing { index, outcome, revision, .. } = passing;
        match conversed {
            Ok(conversed) => self.conversed(key, index, conversed, outcome, revision),
            Err(broken) => self.broken(key, &broken, outcome),
        }
    }

    /// A conversation has come to its end.
    fn conversed(
        self: &Rc<Self>,
        key: CallKey,
        index: usize,
        conversed: Conversed,
        outcome: Option<Outcome>,
        revision: Option<Revision>,
    ) {
        let (method, kind, era) = match self.calls.borrow().get(key) {
            Some(call) => (call.method, call.kind, call.era),
            None => return,
        };
        if let Some(held) = self.calls.borrow().get(key).and_then(|call| call.held.as_ref()) {
            held.hear_status(conversed.status);
        }
        // Calls that were on their way when an earlier one found the session lost are told the same.
        let was_lost = era != Era::Modern && self.session.borrow().is_lost();
        let is_session = was_lost || self.session.borrow().is_open();
        // What is no request is not worth a handshake; the next request is.
        let goes_on = kind != Kind::Request && self.session.borrow().can_reopen();
        if conversed.status == 404 && !conversed.answered && is_session && !goes_on {
            return self.lose_session(key);
        }
        if let (Method::Initialize, Some(revision), Some(upstream)) =
            (method, revision, self.worker.upstreams.get(index))
        {
            let id = conversed.session.unwrap_or_default();
            self.session.borrow_mut().open(&[(upstream.tag, id)], revision);
        }
        if method == Method::NotificationsInitialized && conversed.status < 300 {
            self.listen();
        }
        match outcome {
            Some(outcome) => self.finish(key, outcome, self.worker.now_ns()),
            None if kind == Kind::Request => {
                let text = match conversed.status {
                    200..=299 => "Upstream error: the answer is not a response to this call".to_owned(),
                    status => format!("Upstream error: HTTP status {status}"),
                };
                self.fail(key, &text, Outcome::UpstreamError);
            }
            None => self.finish(key, Outcome::Ok, self.worker.now_ns()),
        }
    }

    /// A conversation broke.
    fn broken(self: &Rc<Self>, key: CallKey, broken: &Broken, outcome: Option<Outcome>) {
        if let Some(outcome) = outcome {
            // The answer is out; what came after it is nobody's.
            return self.finish(key, outcome, self.worker.now_ns());
        }
        if matches!(broken, Broken::Failure(Failure::Full)) {
            self.worker.metrics.limit(crate::observe::metrics::Limit::UpstreamInFlight);
        }
        let nothing_sent = match broken {
            Broken::Failure(failure) => failure.nothing_sent(),
            Broken::Gone(gone) => gone.nothing_sent(),
        };
        if nothing_sent {
            self.not_made(key);
        }
        let (text, outcome) = match broken {
            Broken::Failure(Failure::ClientGone) => (String::new(), Outcome::Cancelled),
            Broken::Failure(failure @ Failure::Timeout) => (unknown(failure), Outcome::Timeout),
            Broken::Failure(Failure::Bad(_)) => {
                ("Upstream error: the answer is not valid HTTP".to_owned(), Outcome::UpstreamError)
            }
            Broken::Failure(failure) if failure.nothing_sent() => (not_made(failure), Outcome::UpstreamError),
            Broken::Failure(failure) => (unknown(failure), Outcome::UpstreamError),
            Broken::Gone(Gone::Cancelled) => (String::new(), Outcome::Cancelled),
            Broken::Gone(gone) if gone.nothing_sent() => (not_made(gone), Outcome::UpstreamError),
            Broken::Gone(gone) => (unknown(gone), Outcome::UpstreamError),
        };
        self.fail(key, &text, outcome);
    }

    fn fan_answered(self: &Rc<Self>, key: CallKey, answer: FanAnswer, opening: Option<Rc<SpreadInner>>) {
        let Some((id, method)) = self.calls.borrow().get(key).map(|call| (call.id().to_vec(), call.method)) else {
            return;
        };
        let echo = EchoId::Raw(&id);
        let outcome = match answer {
            FanAnswer::Result(result) => {
                self.say_result(echo, &result);
                Outcome::Ok
            }
            FanAnswer::Initialized(result, parts) => {
                let mut whole = Vec::with_capacity(result.len().saturating_add(64));
                reply::result(&mut whole, echo, &result);
                let revision = Parser::new(64).parse(&whole).ok().and_then(|envelope| agreed(&envelope, &whole));
                let revision = revision.unwrap_or(Revision::V2025_03_26);
                match opening {
                    Some(opening) => self.session.borrow_mut().open_several(&parts, revision, opening),
                    None => self.session.borrow_mut().open(&parts, revision),
                }
                self.say(&whole);
                Outcome::Ok
            }
            FanAnswer::Response { bytes, error, .. } => {
                let shown = {
                    let calls = self.calls.borrow();
                    let parsed = self.worker.scratch.borrow_mut().parser.parse(&bytes);
                    match (calls.get(key), parsed) {
                        (Some(call), Ok(envelope)) => self.shown(call, 0, &envelope, &bytes),
                        _ => Err(Unclear),
                    }
                };
                // Whose answer it is has no part in what is looked for in results.
                let Ok((_, shown)) = shown else { return self.fail(key, UNCLEAR, Outcome::UpstreamError) };
                self.say(shown.as_deref().unwrap_or(&bytes));
                if error.is_some() { Outcome::RpcError } else { Outcome::Ok }
            }
            FanAnswer::Told => {
                if method == Method::NotificationsInitialized {
                    self.listen();
                }
                if !id.is_empty() {
                    self.say_result(echo, b"{}");
                }
                Outcome::Ok
            }
            FanAnswer::Fault { status, text, outcome } => {
                if status == 404 {
                    self.session.borrow_mut().lose();
                }
                return self.fail(key, text, outcome);
            }
        };
        self.finish(key, outcome, self.worker.now_ns());
    }
}

/// `subscriptions/listen` at several upstreams: their streams as one, which ends with the last of them.
async fn pass_pieces(peer: &Rc<Peer>, key: CallKey, spread: &Spread) {
    let mut pieces = fan::listen(&peer.worker, spread);
    let mut merging = Merging::default();
    let say_event = |event: &[u8]| {
        let mut joined = Vec::new();
        if let Some(data) = read_event(event, &mut joined).data {
            peer.say(data);
        }
    };
    let mut opened = false;
    loop {
        if crate::worker::race(peer.room(), peer.cancelled(key)).await.is_none() {
            return peer.finish(key, Outcome::Cancelled, peer.worker.now_ns());
        }
        match crate::worker::race(pieces.recv(), peer.cancelled(key)).await {
            Some(Some(piece)) => {
                opened |= matches!(piece, Piece::Opened);
                if let Some(event) = merging.passes(Method::SubscriptionsListen, piece) {
                    say_event(&event);
                }
            }
            Some(None) => break,
            None => return peer.finish(key, Outcome::Cancelled, peer.worker.now_ns()),
        }
    }
    match &merging.last_response {
        Some(event) => {
            say_event(event);
            peer.finish(key, Outcome::Ok, peer.worker.now_ns());
        }
        None if opened => peer.fail(key, "Upstream error: the streams have ended", Outcome::UpstreamError),
        None => peer.fail(key, "Upstream error: no upstream has opened a stream", Outcome::UpstreamError),
    }
}
