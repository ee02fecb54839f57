//! One message to one upstream, and its response as a whole: for what the gateway must look at before it can answer, such as the
//! lists of several upstreams, or the members of a batch.

use std::rc::Rc;

use super::brokered::{ChildMessage, Gone};
use super::http::{Answer, Failure, HttpUpstream, Limits, body_decoder};
use super::{Outgoing, UpstreamKind};
use crate::bounds;
use crate::rpc::Kind;
use crate::wire::http1::response::{BadUpstream, Content};
use crate::wire::sse::{Splitter, read_event};
use crate::worker::Worker;
use crate::worker::timers::OnExpiry;

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// The JSON-RPC response; empty where none was due.
    pub(crate) response: Vec<u8>,
    /// The HTTP status it came under; 200 from a stdio server.
    pub(crate) status: u16,
    /// The session that the upstream has opened, as it stands in a sealed id.
    pub(crate) session: Option<Vec<u8>>,
}

/// Sends `outgoing` to the upstream with this number and waits for the response, at most `timeout_ms`.
pub(crate) async fn ask(
    worker: &Rc<Worker>,
    index: usize,
    outgoing: Outgoing,
    timeout_ms: u64,
) -> Result<Asked, Failure> {
    let Some(upstream) = worker.upstreams.get(index) else { return Err(Failure::Unresolved) };
    match (&upstream.kind, outgoing) {
        (UpstreamKind::Http(http), Outgoing::Http(bytes)) => {
            ask_http(worker, http, bytes, timeout_ms.min(http.call_timeout_ms())).await
        }
        (UpstreamKind::Child(child), Outgoing::Child(call)) => {
            let Some(children) = &worker.shared.children else { return Err(Failure::Connect) };
            let mut handle = children.call(*child, call).map_err(|_| Failure::Full)?;
            let timer = worker.timers.deadline(-1);
            timer.set(timeout_ms, OnExpiry::Wake);
            loop {
                let message = crate::worker::race(handle.recv(), timer.expired()).await;
                match message {
                    Some(Some(ChildMessage::Message { bytes, last: true })) => {
                        return Ok(Asked { response: bytes, status: 200, session: None });
                    }
                    // Progress and the like: there is nobody to tell.
                    Some(Some(ChildMessage::Message { last: false, .. })) => {}
                    Some(Some(ChildMessage::Initialized { session, bytes })) => {
                        return Ok(Asked {
                            response: bytes,
                            status: 200,
                            session: Some(session.0.to_be_bytes().to_vec()),
                        });
                    }
                    Some(Some(ChildMessage::Accepted)) => return Ok(Asked::default()),
                    Some(Some(ChildMessage::SessionUnknown)) => {
                        return Ok(Asked { status: 404, ..Asked::default() });
                    }
                    Some(Some(ChildMessage::Gone { reason: Gone::Busy })) => return Err(Failure::Full),
                    Some(Some(ChildMessage::Gone { reason })) if reason.nothing_sent() => {
                        return Err(Failure::Connect);
                    }
                    Some(Some(ChildMessage::Gone { .. }) | None) => return Err(Failure::Broken),
                    None => {
                        handle.set_cancel_on_drop(true);
                        return Err(Failure::Timeout);
                    }
                }
            }
        }
        _ => Err(Failure::Unresolved),
    }
}

async fn ask_http(worker: &Rc<Worker>, http: &HttpUpstream, bytes: Vec<u8>, timeout_ms: u64) -> Result<Asked, Failure> {
    let mut session = None;
    let limits = Limits { head_ms: Some(timeout_ms) };
    let (answer, _) = http
        .exchange(worker, bytes, &limits, std::future::pending(), |head, buf| {
            session = head.mcp_session_id.map(|span| span.of(buf).to_vec());
        })
        .await;
    let answer = answer?;
    let status = answer.head.status;
    let response = match answer.head.content {
        Content::EventStream => response_event(worker, http, answer).await?,
        // What an error says to a browser is no answer; its status is.
        _ if status != 200 && answer.head.content != Content::Json => Vec::new(),
        _ => whole_body(worker, http, answer).await?,
    };
    Ok(Asked { response, status, session })
}

async fn whole_body(worker: &Rc<Worker>, http: &HttpUpstream, mut answer: Answer<'_>) -> Result<Vec<u8>, Failure> {
    let mut decoder = body_decoder(answer.head.framing)?;
    let mut body = Vec::new();
    let mut at = answer.body_at;
    loop {
        while !decoder.is_done() {
            let input = answer.connection.buf.get(at..).unwrap_or_default();
            let step = decoder.decode(input).map_err(BadUpstream::from)?;
            body.extend_from_slice(step.data.of(input));
            at += step.consumed;
            if step.consumed == 0 {
                break;
            }
        }
        if decoder.is_done() {
            break;
        }
        if body.len() > bounds::MAX_HELD_ANSWER_BYTES {
            return Err(BadUpstream::BodyTooLarge.into());
        }
        answer.connection.buf.drain(..at);
        at = 0;
        if answer.connection.read().await? == 0 {
            if answer.connection.has_expired() {
                return Err(Failure::Timeout);
            }
            decoder.finish().map_err(BadUpstream::from)?;
            return Ok(body);
        }
    }
    if answer.head.keep_alive && at == answer.connection.buf.len() {
        http.give_back(worker, answer.connection);
    }
    Ok(body)
}

/// The response out of an event stream; what precedes it has nobody to go to.
async fn response_event(worker: &Rc<Worker>, http: &HttpUpstream, mut answer: Answer<'_>) -> Result<Vec<u8>, Failure> {
    let mut decoder = body_decoder(answer.head.framing)?;
    let mut splitter = Splitter::new(worker.limits.get().max_held_bytes);
    let mut decoded = Vec::new();
    let mut response = None;
    answer.connection.buf.drain(..answer.body_at);
    let mut at = 0;
    loop {
        while !decoder.is_done() {
            let input = answer.connection.buf.get(at..).unwrap_or_default();
            let step = decoder.decode(input).map_err(BadUpstream::from)?;
            decoded.extend_from_slice(step.data.of(input));
            at += step.consumed;
            if step.consumed == 0 {
                break;
            }
        }
        while let Some(span) = splitter.next_event(&decoded).map_err(|_| BadUpstream::BodyTooLarge)? {
            let mut joined = Vec::new();
            let data = read_event(span.of(&decoded), &mut joined).data.unwrap_or_default().to_vec();
            decoded.drain(..span.end as usize);
            let kind = worker.scratch.borrow_mut().parser.parse(&data).map(|envelope| envelope.kind);
            if matches!(kind, Ok(Kind::Response | Kind::ErrorResponse)) {
                response = Some(data);
            }
        }
        if decoder.is_done() {
            if answer.head.keep_alive && at == answer.connection.buf.len() {
                http.give_back(worker, answer.connection);
            }
            return response.ok_or(Failure::Broken);
        }
        if let Some(response) = response {
            // The stream goes on; we have what we came for.
            return Ok(response);
        }
        answer.connection.buf.drain(..at);
        at = 0;
        if answer.connection.read().await? == 0 {
            return Err(if answer.connection.has_expired() { Failure::Timeout } else { Failure::Broken });
        }
    }
}
