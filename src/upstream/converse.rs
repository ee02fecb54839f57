//! One message to one upstream over HTTP or a broker, and every message that comes back, one after the other: for doors that carry messages.
//!
//! How much is held of what comes back is bounded by one message; whoever takes the messages says when there is room for the next.

use std::pin::pin;
use std::rc::Rc;

use super::brokered::{ChildCall, ChildMessage, Gone};
use super::http::{Answer, Failure, HttpUpstream, Limits, body_decoder};
use super::{Outgoing, UpstreamKind};
use crate::wire::http1::response::{BadUpstream, Content};
use crate::wire::sse::{Splitter, read_event};
use crate::worker::Worker;
use crate::worker::timers::OnExpiry;

/// Who takes what comes back.
pub(crate) trait Taker {
    /// One message of the upstream. Returns whether it was the last that is waited for.
    fn take(&mut self, message: &[u8]) -> bool;

    /// The stream has given this id to its last message (`id:` of an event): where to go on after a break.
    fn note_event_id(&mut self, _id: &[u8]) {}

    /// Ready when the next message can be taken.
    fn room(&self) -> impl Future<Output = ()>;
}

/// How a conversation ended.
#[derive(Debug, Default)]
pub(crate) struct Conversed {
    /// The HTTP status; 200 from a broker's server, 202 for what it has merely taken, 404 for a session that it does not know.
    pub(crate) status: u16,
    /// The session that the upstream has opened, as it stands in a session.
    pub(crate) session: Option<Vec<u8>>,
    /// The last message that was waited for has come.
    pub(crate) answered: bool,
}

/// Why a conversation ended before its time.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Over HTTP, or on the way to a broker.
    Failure(Failure),
    /// At a broker's server.
    Gone(Gone),
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<BadUpstream> for Broken {
    fn from(bad: BadUpstream) -> Self {
        Self::Failure(bad.into())
    }
}

/// Sends `outgoing` to the upstream with this number and hands `taker` what comes back. A conversation that is `endless` has no time in which
/// an answer must come. It ends when `cancelled` does: the upstream is told so.
pub(crate) async fn converse(
    worker: &Rc<Worker>,
    index: usize,
    outgoing: Outgoing,
    endless: bool,
    cancelled: impl Future<Output = ()>,
    taker: &mut impl Taker,
) -> Result<Conversed, Broken> {
    let Some(upstream) = worker.upstreams.get(index) else { return Err(Failure::Unresolved.into()) };
    match (&upstream.kind, outgoing) {
        (UpstreamKind::Http(http), Outgoing::Http(bytes)) => {
            let http = Rc::clone(http);
            converse_http(worker, &http, bytes, endless, cancelled, taker).await
        }
        (UpstreamKind::Child(child), Outgoing::Child(call)) => {
            let timeout_ms = (!endless).then_some(upstream.call_timeout_ms);
            converse_child(worker, *child, call, timeout_ms, cancelled, taker).await
        }
        _ => Err(Failure::Unresolved.into()),
    }
}

async fn converse_http(
    worker: &Rc<Worker>,
    http: &HttpUpstream,
    bytes: Vec<u8>,
    endless: bool,
    cancelled: impl Future<Output = ()>,
    taker: &mut impl Taker,
) -> Result<Conversed, Broken> {
    let mut cancelled = pin!(cancelled);
    let mut session = None;
    let limits = Limits { head_ms: (!endless).then(|| http.call_timeout_ms()) };
    let (answer, _) = http
        .exchange(worker, bytes, &limits, cancelled.as_mut(), |head, buf| {
            session = head.mcp_session_id.map(|span| span.of(buf).to_vec());
        })
        .await;
    let mut answer = answer?;
    let mut conversed = Conversed { status: answer.head.status, session, ..Conversed::default() };
    if endless {
        answer.release_in_flight();
    }
    if answer.head.content == Content::EventStream && conversed.status == 200 {
        let timeout_ms = (!endless).then(|| http.call_timeout_ms());
        conversed.answered = take_events(worker, http, answer, timeout_ms, cancelled, taker).await?;
    } else {
        conversed.answered = take_body(worker, http, answer, cancelled, taker).await?;
    }
    Ok(conversed)
}

/// A body that is one message.
async fn take_body(
    worker: &Rc<Worker>,
    http: &HttpUpstream,
    mut answer: Answer<'_>,
    mut cancelled: std::pin::Pin<&mut impl Future<Output = ()>>,
    taker: &mut impl Taker,
) -> Result<bool, Broken> {
    let mut decoder = body_decoder(answer.head.framing)?;
    answer.connection.set_deadline(Some(http.call_timeout_ms()));
    // Decoded bytes are moved down to follow the head without a gap.
    let start = answer.body_at;
    let (mut end, mut raw) = (start, start);
    loop {
        while !decoder.is_done() {
            let input = answer.connection.buf.get(raw..).unwrap_or_default();
            let step = decoder.decode(input).map_err(BadUpstream::from)?;
            let data = raw.saturating_add(step.data.start as usize)..raw.saturating_add(step.data.end as usize);
            let len = data.len();
            if len > 0 && data.start != end {
                answer.connection.buf.copy_within(data, end);
            }
            end = end.saturating_add(len);
            raw = raw.saturating_add(step.consumed);
            if step.consumed == 0 {
                break;
            }
        }
        // Asked of a whole body as well: one read may bring more than there was room for.
        if end.saturating_sub(start) > worker.limits.get().max_held_bytes {
            return Err(BadUpstream::BodyTooLarge.into());
        }
        if decoder.is_done() {
            break;
        }
        answer.connection.buf.drain(end..raw);
        raw = end;
        if answer.connection.read_watched(cancelled.as_mut()).await? == 0 {
            decoder.finish().map_err(BadUpstream::from)?;
            break;
        }
    }
    let body = answer.connection.buf.get(start..end).unwrap_or_default();
    // What an error says to a browser is no answer; its status is.
    let is_json = answer.head.content == Content::Json && !body.is_empty();
    let answered = is_json && taker.take(body);
    if decoder.is_done() && answer.head.keep_alive && raw == answer.connection.buf.len() {
        http.give_back(worker, answer.connection);
    }
    Ok(answered)
}

/// An event stream, to its end or to the last message that is waited for.
async fn take_events(
    worker: &Rc<Worker>,
    http: &HttpUpstream,
    mut answer: Answer<'_>,
    timeout_ms: Option<u64>,
    mut cancelled: std::pin::Pin<&mut impl Future<Output = ()>>,
    taker: &mut impl Taker,
) -> Result<bool, Broken> {
    let mut decoder = body_decoder(answer.head.framing)?;
    let mut splitter = Splitter::new(worker.limits.get().max_held_bytes);
    let (mut decoded, mut joined) = (Vec::new(), Vec::new());
    answer.connection.buf.drain(..answer.body_at);
    let mut answered = false;
    loop {
        let mut at = 0usize;
        while !decoder.is_done() {
            let input = answer.connection.buf.get(at..).unwrap_or_default();
            let step = decoder.decode(input).map_err(BadUpstream::from)?;
            decoded.extend_from_slice(step.data.of(input));
            at = at.saturating_add(step.consumed);
            if step.consumed == 0 {
                break;
            }
        }
        answer.connection.buf.drain(..at);
        let mut taken = 0usize;
        while let Some(span) =
            splitter.next_event(decoded.get(taken..).unwrap_or_default()).map_err(|_| BadUpstream::BodyTooLarge)?
        {
            let event = decoded.get(taken..).map_or(&[][..], |rest| span.of(rest));
            joined.clear();
            let read = read_event(event, &mut joined);
            if let Some(data) = read.data.filter(|data| !data.is_empty()) {
                answered |= taker.take(data);
            }
            if let Some(id) = read.id {
                taker.note_event_id(id);
            }
            taken = taken.saturating_add(span.end as usize);
        }
        decoded.drain(..taken);
        if decoder.is_done() {
            if answer.head.keep_alive && answer.connection.buf.is_empty() {
                http.give_back(worker, answer.connection);
            }
            return Ok(answered);
        }
        if crate::worker::race(taker.room(), cancelled.as_mut()).await.is_none() {
            return Err(Failure::ClientGone.into());
        }
        answer.connection.set_deadline(timeout_ms);
        if answer.connection.read_watched(cancelled.as_mut()).await? == 0 {
            return decoder.finish().map(|()| answered).map_err(|error| BadUpstream::from(error).into());
        }
    }
}

async fn converse_child(
    worker: &Rc<Worker>,
    child: usize,
    call: ChildCall,
    timeout_ms: Option<u64>,
    cancelled: impl Future<Output = ()>,
    taker: &mut impl Taker,
) -> Result<Conversed, Broken> {
    let Some(children) = &worker.shared.children else { return Err(Failure::Connect.into()) };
    let mut cancelled = pin!(cancelled);
    let listens = call.kind == super::brokered::CallKind::Listen;
    let mut handle = children.call(child, call).map_err(|_| Failure::Full)?;
    let timer = worker.timers.deadline(-1);
    let done = |status, answered| Ok(Conversed { status, answered, ..Conversed::default() });
    loop {
        match timeout_ms {
            Some(ms) => timer.set(ms, OnExpiry::Wake),
            None => timer.clear(),
        }
        let mut expired = false;
        let message = {
            let mut given_up = pin!(async {
                let silent = async {
                    timer.expired().await;
                    expired = true;
                };
                let _ = crate::worker::race(silent, cancelled.as_mut()).await;
            });
            crate::worker::race(handle.recv(), given_up.as_mut()).await
        };
        match message {
            Some(Some(ChildMessage::Message { bytes, last })) => {
                let answered = taker.take(&bytes);
                if last {
                    return done(200, answered);
                }
                if crate::worker::race(taker.room(), cancelled.as_mut()).await.is_none() {
                    return Err(Failure::ClientGone.into());
                }
            }
            Some(Some(ChildMessage::Initialized { session, bytes })) => {
                let answered = taker.take(&bytes);
                let session = Some(session.0.to_be_bytes().to_vec());
                return Ok(Conversed { status: 200, session, answered });
            }
            Some(Some(ChildMessage::Accepted)) if listens => {}
            Some(Some(ChildMessage::Accepted)) => return done(202, false),
            Some(Some(ChildMessage::SessionUnknown)) => return done(404, false),
            Some(Some(ChildMessage::Gone { reason })) => return Err(Broken::Gone(reason)),
            Some(None) => return Err(Broken::Gone(Gone::Closed)),
            None if expired => {
                handle.set_cancel_on_drop(true);
                return Err(Failure::Timeout.into());
            }
            // Dropping the handle tells the server, where the era says so.
            None => return Err(Failure::ClientGone.into()),
        }
    }
}
