//! Passing an upstream's answer on: a body as it comes. Event streams are next door, in [`super::events`].
//!
//! What is held of an answer is bounded by one buffer; a client that reads slowly stops our reading of the upstream. A
//! body that fits the buffer leaves with its length in one write, head included. An event leaves when it is complete and not
//! before, so that what looks into events (and the keep-alive comments) always finds their borders.

use std::pin::pin;

use super::answer;
use super::plan::Call;
use super::{Connection, Flow};
use crate::bounds;
use crate::door::shown::{Shown, View, Viewer, may_be_result};
use crate::guard::Principal;
use crate::rpc::cut::Unclear;
use crate::rpc::{Kind, Method, glance};
use crate::state::events::Outcome;
use crate::sys::socket::{self, Look};
use crate::upstream::http::{Answer, Failure, HttpUpstream, body_decoder};
use crate::wire::http1::body::{BodyDecoder, Framing};
use crate::wire::http1::response::Content;
use crate::wire::http1::write;
use crate::worker::stream::Stream;
use crate::worker::timers::{Deadline, OnExpiry};

/// The status that the client is told. An upstream's 401 is about the gateway's credential, not the client's, which must not be
/// sent looking for another token; 407 likewise.
pub(super) fn told_status(status: u16) -> u16 {
    match status {
        401 | 407 => 502,
        // A redirect is about the gateway's way to the upstream; MCP has no use for it, and its target is nobody's business.
        300..=399 => 502,
        other => other,
    }
}

/// Completes when the client has closed its side. Watching begins when the call has been out for a while: most calls are
/// answered before, and a watch costs a system call.
pub(super) async fn gone(stream: &Stream, deadline: &Deadline, input: &mut Vec<u8>) {
    deadline.set(bounds::WATCH_AFTER_MS, OnExpiry::Wake);
    deadline.expired().await;
    hung_up(stream, input).await;
}

/// Completes when the client has closed its side. Bytes it sends meanwhile (pipelined requests) are kept, up to the buffer's room.
pub(super) async fn hung_up(stream: &Stream, input: &mut Vec<u8>) {
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        if input.len() == input.capacity() {
            // No room to look behind what is there. The client is not lost sight of: writing to it will tell.
            return std::future::pending().await;
        }
        if socket::receive_now(stream.fd(), input) == Look::Gone {
            return;
        }
    }
}

/// How much of a body has been passed on.
pub(super) struct Passage {
    pub(super) decoder: BodyDecoder,
    /// Where the bytes that are not decoded yet start.
    pub(super) raw: usize,
}

impl Connection {
    /// Passes an answer on whose status and fields stand in the output already.
    pub(super) async fn relay(
        &mut self,
        call: &mut Call,
        index: usize,
        http: &HttpUpstream,
        answer: Answer<'_>,
    ) -> Flow {
        let status = told_status(answer.head.status);
        self.worker.metrics.response(status);
        if let Some(held) = &call.held {
            held.hear_status(answer.head.status);
        }
        if !call.keep_alive {
            write::field(&mut self.output, "Connection", b"close");
        }
        if answer.head.content == Content::EventStream && answer.head.status == 200 {
            self.relay_events(call, index, http, answer).await
        } else {
            self.relay_body(call, index, http, answer, status).await
        }
    }

    async fn relay_body(
        &mut self,
        call: &mut Call,
        index: usize,
        http: &HttpUpstream,
        mut answer: Answer<'_>,
        status: u16,
    ) -> Flow {
        let Ok(decoder) = body_decoder(answer.head.framing) else { return Flow::Cut };
        answer.connection.set_deadline(Some(http.call_timeout_ms()));
        let mut passage = Passage { decoder, raw: answer.body_at };
        let start = answer.body_at;
        let mut end = start;
        // What this says of notifications is about streams.
        let view = self.view_for(call).filter(|_| call.kind == Kind::Request);
        let hold = match &view {
            Some(view) => view.hold_bytes(self.worker.limits.get().max_held_bytes),
            None if holds_whole(call) => self.worker.limits.get().max_held_bytes,
            None => bounds::STREAM_BUFFER_BYTES,
        };
        // What fits one buffer is gathered first, so that it leaves with its length, in one write.
        while !passage.decoder.is_done() && end - start < hold {
            match gather(&mut passage, &mut answer.connection.buf, &mut end) {
                Ok(()) if passage.decoder.is_done() => break,
                Ok(()) => {}
                Err(failure) => return self.fail_relay(call, failure).await,
            }
            if end - start >= hold {
                break;
            }
            let read = {
                let watch = pin!(hung_up(&self.stream, &mut self.input));
                answer.connection.read_watched(watch).await
            };
            if let Err(failure) = ended(read, answer.connection.has_expired(), &mut passage) {
                return self.fail_relay(call, failure).await;
            }
        }
        let announced = if let Framing::Length(n) = answer.head.framing { n } else { 0 };
        let is_too_long = may_be_result(call.kind, call.method) && announced > self.max_result_bytes();
        let is_partial = !passage.decoder.is_done();
        match view.as_ref().or(self.size_view(call, is_too_long && is_partial).as_ref()) {
            // What is passed on before its end cannot be cut.
            Some(view) if is_partial && !view.looks_at_results() => {
                return self.fail_relay(call, Failure::Unclear).await;
            }
            Some(view) if is_partial => {
                let said = view.too_long(&self.worker, call.id(&self.notes));
                return self.answer_withheld(call, &said).await;
            }
            _ => {}
        }
        if !passage.decoder.is_done() {
            return self.stream_body(call, http, answer, passage, start..end, status).await;
        }
        let body = answer.connection.buf.get(start..end).unwrap_or_default();
        let shown = match view {
            Some(view) => self.shown_body(&view, index, status, body),
            None => Ok(Shown::AsItIs),
        };
        let withheld = shown.as_ref().is_ok_and(Shown::is_withheld);
        let Ok(shown) = shown.and_then(|shown| shown.bytes(body)) else {
            return self.fail_relay(call, Failure::Unclear).await;
        };
        // What is learned from an answer is learned from all of it.
        let outcome = self.outcome_of(call, index, status, body);
        let outcome = if withheld { Outcome::ToolError } else { outcome };
        let body = shown.as_deref().unwrap_or(body);
        if !matches!(status, 204 | 304) {
            write::field_decimal(&mut self.output, "Content-Length", body.len() as u64);
        }
        write::end_head(&mut self.output);
        self.output.extend_from_slice(body);
        let keep = answer.head.keep_alive && passage.raw == answer.connection.buf.len();
        // Recorded before the client can know of it.
        self.finish(call, outcome, status);
        if keep {
            // As of its end, which was this moment.
            http.give_back_at(self.worker.recent_ns(), answer.connection);
        }
        self.flush().await
    }

    /// Passes on a body that is longer than a buffer.
    async fn stream_body(
        &mut self,
        call: &mut Call,
        http: &HttpUpstream,
        mut answer: Answer<'_>,
        mut passage: Passage,
        held: std::ops::Range<usize>,
        status: u16,
    ) -> Flow {
        let chunked = match answer.head.framing {
            Framing::Length(n) => {
                write::field_decimal(&mut self.output, "Content-Length", n);
                false
            }
            _ if call.chunked => {
                write::field(&mut self.output, "Transfer-Encoding", b"chunked");
                true
            }
            _ => {
                // HTTP/1.0 knows no chunks: the end of the connection is the end of the body.
                self.say_close(call);
                false
            }
        };
        write::end_head(&mut self.output);
        let most = may_be_result(call.kind, call.method).then(|| self.max_result_bytes());
        let mut passed = 0u64;
        let mut range = held;
        let (outcome, flow) = loop {
            let data = answer.connection.buf.get(range.clone()).unwrap_or_default();
            passed += data.len() as u64;
            if most.is_some_and(|most| passed > most) {
                // Likewise.
                if let Some(view) = self.size_view(call, true) {
                    let _ = view.too_long(&self.worker, call.id(&self.notes));
                }
                break (Outcome::ToolError, Flow::Cut);
            }
            if chunked {
                write::chunk(&mut self.output, data);
            } else {
                self.output.extend_from_slice(data);
            }
            if passage.decoder.is_done() {
                if chunked {
                    self.output.extend_from_slice(write::LAST_CHUNK);
                }
                break (outcome_by_status(status), self.flush().await);
            }
            let flow = self.flush().await;
            if flow != Flow::Next {
                break (Outcome::Cancelled, flow);
            }
            answer.connection.buf.drain(..passage.raw);
            passage.raw = 0;
            answer.connection.buf.reserve(bounds::STREAM_BUFFER_BYTES);
            answer.connection.set_deadline(Some(http.call_timeout_ms()));
            let read = {
                let watch = pin!(hung_up(&self.stream, &mut self.input));
                answer.connection.read_watched(watch).await
            };
            if read == Err(Failure::ClientGone) {
                break (Outcome::Cancelled, Flow::Cut);
            }
            let mut end = 0;
            let step = ended(read, answer.connection.has_expired(), &mut passage)
                .and_then(|()| gather(&mut passage, &mut answer.connection.buf, &mut end));
            if let Err(failure) = step {
                // The head is out: cutting the connection is the only way left to say that this was not all.
                let timed_out = failure == Failure::Timeout;
                break (if timed_out { Outcome::Timeout } else { Outcome::UpstreamError }, Flow::Cut);
            }
            range = 0..end;
        };
        if flow == Flow::Next && answer.head.keep_alive && passage.raw == answer.connection.buf.len() {
            http.give_back(&self.worker, answer.connection);
        }
        self.finish(call, outcome, status);
        if call.keep_alive { flow } else { flow.then_close() }
    }

    /// An answer that broke before anything of it was sent to the client.
    async fn fail_relay(&mut self, call: &mut Call, failure: Failure) -> Flow {
        self.output.clear();
        self.fail(call, failure).await
    }

    /// Answers a call whose result must not pass, and of which nothing was sent yet. What is said in its place is a message.
    async fn answer_withheld(&mut self, call: &mut Call, said: &[u8]) -> Flow {
        self.output.clear();
        answer::json(&mut self.output, 200, said, !call.keep_alive);
        self.finish(call, Outcome::ToolError, 200);
        self.flush().await
    }

    /// What is to be looked for in what comes back for `call`; `None`: nothing.
    pub(super) fn view_for(&self, call: &Call) -> Option<View> {
        View::of(&self.worker, &self.viewer(call))
    }

    /// By whom it is said that a result is too long, where nothing else is looked for.
    fn size_view(&self, call: &Call, wanted: bool) -> Option<View> {
        wanted.then(|| View::of_size(&self.worker, &self.viewer(call)))
    }

    fn viewer<'a>(&'a self, call: &'a Call) -> Viewer<'a> {
        Viewer {
            principal: self.principal.as_ref().unwrap_or(&Principal::Anonymous),
            client: self.client_ip(),
            kind: call.kind,
            method: call.method,
            era: call.era,
            name: self.name(call).as_bytes(),
        }
    }

    fn max_result_bytes(&self) -> u64 {
        self.worker.limits.get().max_result_bytes as u64
    }

    /// A message as the client is shown it: whether it was withheld, and its bytes where they are others.
    pub(super) fn shown_message(
        &self,
        view: &View,
        index: usize,
        message: &[u8],
    ) -> Result<(bool, Option<Vec<u8>>), Unclear> {
        let shown = view.message(&self.worker, &mut self.worker.scratch.borrow_mut().parser, index, message)?;
        Ok((shown.is_withheld(), shown.bytes(message)?))
    }

    /// The body of an answer. What comes under the status of an error need not be a message.
    fn shown_body(&self, view: &View, index: usize, status: u16, body: &[u8]) -> Result<Shown, Unclear> {
        match view.message(&self.worker, &mut self.worker.scratch.borrow_mut().parser, index, body) {
            Err(Unclear) if body.is_empty() || !(200..300).contains(&status) => Ok(Shown::AsItIs),
            shown => shown,
        }
    }

    /// How a call ended, from the whole body of its answer.
    fn outcome_of(&self, call: &Call, index: usize, status: u16, body: &[u8]) -> Outcome {
        if call.kind != Kind::Request || body.len() > bounds::MAX_HELD_ANSWER_BYTES {
            return outcome_by_status(status);
        }

        if call.method != Method::ToolsCall && !holds_whole(call) {
            return outcome_by_status(status);
        }
        if !holds_whole(call) && !glance::may_be_error(body) {
            return outcome_by_status(status);
        }
        let mut scratch = self.worker.scratch.borrow_mut();
        let Ok(envelope) = scratch.parser.parse(body) else { return outcome_by_status(status) };
        if let Some(held) = &call.held {
            held.hear(&envelope, body);
        }
        if call.method == Method::ToolsList && envelope.kind == Kind::Response {
            self.worker.upstreams.learn_tools(index, &envelope, body);
        }
        match envelope.kind {
            Kind::ErrorResponse => Outcome::RpcError,
            _ if envelope.result_is_error => Outcome::ToolError,
            _ => outcome_by_status(status),
        }
    }
}

/// Whether an answer is looked into as a whole, and so held as a whole.
fn holds_whole(call: &Call) -> bool {
    call.kind == Kind::Request
        && (call.method == Method::ToolsList || call.held.as_ref().is_some_and(|held| held.asks()))
}

fn outcome_by_status(status: u16) -> Outcome {
    match status {
        200..=299 => Outcome::Ok,
        400..=499 => Outcome::RpcError,
        _ => Outcome::UpstreamError,
    }
}

/// Decodes what has arrived; decoded bytes are moved down to follow `..end` without a gap.
pub(super) fn gather(passage: &mut Passage, buf: &mut Vec<u8>, end: &mut usize) -> Result<(), Failure> {
    while !passage.decoder.is_done() {
        let input = buf.get(passage.raw..).unwrap_or_default();
        let step = passage.decoder.decode(input).map_err(|error| Failure::Bad(error.into()))?;
        let data = passage.raw + step.data.start as usize..passage.raw + step.data.end as usize;
        let len = data.len();
        if len > 0 && data.start != *end {
            buf.copy_within(data, *end);
        }
        *end += len;
        passage.raw += step.consumed;
        if step.consumed == 0 {
            break;
        }
    }
    // What framing took is given back while more is to come, so that the buffer does not grow with it.
    if !passage.decoder.is_done() && passage.raw > *end {
        buf.drain(*end..passage.raw);
        passage.raw = *end;
    }
    Ok(())
}

/// Turns the end of the transport into the end of the body, where the framing allows that.
///
/// Our own cut ends a plain connection like the peer would: a deadline that has expired is looked at first, or a truncated body
/// that runs until the connection closes would look whole.
pub(super) fn ended(read: Result<usize, Failure>, expired: bool, passage: &mut Passage) -> Result<(), Failure> {
    match read {
        Err(Failure::Broken) | Ok(0) if expired => Err(Failure::Timeout),
        Err(failure) => Err(failure),
        Ok(0) => passage.decoder.finish().map_err(|error| Failure::Bad(error.into())),
        _ => Ok(()),
    }
}
