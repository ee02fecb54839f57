//! Passing an upstream's answer on: a body as it comes, an event stream event by event.
//!
//! What is held of an answer is bounded by one buffer; a client that reads slowly stops our reading of the upstream. A
//! body that fits the buffer leaves with its length in one write, head included. An event leaves when it is complete and not
//! before, so that what looks into events (and the keep-alive comments) always finds their borders.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::plan::Call;
use super::{Connection, Flow};
use crate::bounds;
use crate::rpc::{Kind, Method};
use crate::state::events::Outcome;
use crate::sys::socket::{self, Half, Look};
use crate::upstream::http::{Answer, Failure, HttpUpstream, body_decoder};
use crate::wire::http1::body::{BodyDecoder, Framing};
use crate::wire::http1::response::Content;
use crate::wire::http1::write;
use crate::wire::sse::{Splitter, read_event};
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

/// What a stream waits for.
enum Wait {
    /// Bytes from the upstream, or how it failed.
    Read(Result<usize, Failure>),
    /// Nothing was sent for a while.
    KeepAlive,
    /// The client has closed.
    Gone,
    /// The process drains.
    Drain,
}

/// How much of a body has been passed on.
struct Passage {
    decoder: BodyDecoder,
    /// Where the bytes that are not decoded yet start.
    raw: usize,
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
        let hold =
            if holds_whole(call) { self.worker.limits.get().max_held_bytes } else { bounds::STREAM_BUFFER_BYTES };
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
        if !passage.decoder.is_done() {
            return self.stream_body(call, http, answer, passage, start..end, status).await;
        }
        let body = answer.connection.buf.get(start..end).unwrap_or_default();
        if !matches!(status, 204 | 304) {
            write::field_decimal(&mut self.output, "Content-Length", body.len() as u64);
        }
        write::end_head(&mut self.output);
        self.output.extend_from_slice(body);
        let outcome = self.outcome_of(call, index, status, body);
        let keep = answer.head.keep_alive && passage.raw == answer.connection.buf.len();
        if keep {
            http.give_back(&self.worker, answer.connection);
        }
        // Recorded before the client can know of it.
        self.finish(call, outcome, status);
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
        let mut range = held;
        let (outcome, flow) = loop {
            let data = answer.connection.buf.get(range.clone()).unwrap_or_default();
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

    async fn relay_events(
        &mut self,
        call: &mut Call,
        index: usize,
        http: &HttpUpstream,
        mut answer: Answer<'_>,
    ) -> Flow {
        let Ok(decoder) = body_decoder(answer.head.framing) else { return Flow::Cut };
        let endless = call.method == Method::SubscriptionsListen || call.kind != Kind::Request;
        self.begin_events(call);
        if endless {
            // Not a call: it must not keep calls from being made for as long as a client listens.
            answer.release_in_flight();
        }
        let mut passage = Passage { decoder, raw: answer.body_at };
        answer.connection.buf.drain(..answer.body_at);
        passage.raw = 0;
        let mut splitter = Splitter::new(self.worker.limits.get().max_held_bytes);
        let mut outcome = None;
        // `buf` holds decoded bytes that no complete event covers yet, up to `end`, then raw ones.
        let mut end = 0;
        let flow = loop {
            let gathered = gather(&mut passage, &mut answer.connection.buf, &mut end);
            let split = self.pass_events(
                call,
                index,
                &mut splitter,
                &mut answer.connection.buf,
                &mut end,
                &mut passage.raw,
                &mut outcome,
            );
            if gathered.is_err() || split.is_err() {
                outcome = outcome.or(Some(Outcome::UpstreamError));
                let _ = self.flush().await;
                break Flow::Cut;
            }
            if passage.decoder.is_done() {
                break self.end_events(call).await;
            }
            let flow = self.flush().await;
            if flow != Flow::Next {
                break flow;
            }
            answer.connection.set_deadline((!endless).then(|| http.call_timeout_ms()));
            match self.read_event_bytes(call.chunked, endless, &mut answer).await {
                Wait::Read(read) => match ended(read, answer.connection.has_expired(), &mut passage) {
                    Ok(()) => {}
                    Err(Failure::Timeout) => {
                        outcome = outcome.or(Some(Outcome::Timeout));
                        self.time_out_event(call);
                        break self.end_events(call).await;
                    }
                    Err(_) => {
                        outcome = outcome.or(Some(Outcome::UpstreamError));
                        break Flow::Cut;
                    }
                },
                Wait::Drain => break self.end_events(call).await,
                Wait::Gone | Wait::KeepAlive => break Flow::Cut,
            }
        };
        if passage.decoder.is_done() && answer.head.keep_alive && passage.raw == answer.connection.buf.len() {
            http.give_back(&self.worker, answer.connection);
        }
        let outcome = outcome.unwrap_or(match flow {
            Flow::Cut => Outcome::Cancelled,
            // A server may end the stream before its answer (2025-11-25, polling): the answer comes on another stream.
            _ if call.method == Method::ToolsCall => Outcome::UpstreamError,
            _ => Outcome::Ok,
        });
        self.finish(call, outcome, 200);
        if call.keep_alive { flow } else { flow.then_close() }
    }

    /// The rest of the head of an event stream.
    pub(super) fn begin_events(&mut self, call: &mut Call) {
        if call.chunked {
            write::field(&mut self.output, "Transfer-Encoding", b"chunked");
        } else {
            self.say_close(call);
        }
        write::field(&mut self.output, "X-Accel-Buffering", b"no");
        write::end_head(&mut self.output);
    }

    /// Announces, once, that the connection closes after this answer.
    fn say_close(&mut self, call: &mut Call) {
        if call.keep_alive {
            write::field(&mut self.output, "Connection", b"close");
            call.keep_alive = false;
        }
    }

    /// Ends an event stream in good order.
    pub(super) async fn end_events(&mut self, call: &Call) -> Flow {
        if call.chunked {
            self.output.extend_from_slice(write::LAST_CHUNK);
        }
        self.flush().await
    }

    /// Puts one raw event into the output.
    pub(super) fn put_event(&mut self, call: &Call, raw: &[u8]) {
        if call.chunked {
            write::chunk(&mut self.output, raw);
        } else {
            self.output.extend_from_slice(raw);
        }
    }

    /// Moves the complete events at the front of `buf[..end]` to the output.
    #[allow(clippy::too_many_arguments, reason = "the parts of one loop's state, each borrowed by itself")]
    fn pass_events(
        &mut self,
        call: &Call,
        index: usize,
        splitter: &mut Splitter,
        buf: &mut Vec<u8>,
        end: &mut usize,
        raw: &mut usize,
        outcome: &mut Option<Outcome>,
    ) -> Result<(), Failure> {
        let worker = self.worker.clone();
        let mut taken = 0;
        while let Some(span) =
            splitter.next_event(buf.get(taken..*end).unwrap_or_default()).map_err(|_| Failure::Broken)?
        {
            let event = buf.get(taken..taken + span.end as usize).unwrap_or_default();
            if matches!(call.method, Method::ToolsCall | Method::ToolsList) {
                *outcome = self.event_outcome(call, index, event).or(*outcome);
            }
            if self.worker.upstreams.are_several() {
                let mut rewritten = Vec::with_capacity(event.len() + 32);
                let mut scratch = worker.scratch.borrow_mut();
                super::merged::rewrite_event(&mut scratch.parser, index, event, &mut rewritten);
                self.put_event(call, &rewritten);
            } else {
                self.put_event(call, event);
            }
            taken += span.end as usize;
        }
        buf.drain(..taken);
        *end -= taken;
        *raw -= taken;
        Ok(())
    }

    /// The outcome of a call, where this event carries its response.
    fn event_outcome(&self, call: &Call, index: usize, raw: &[u8]) -> Option<Outcome> {
        if raw.len() > bounds::MAX_INSPECTED_ANSWER_BYTES {
            return None;
        }
        let mut scratch = self.worker.scratch.borrow_mut();
        let scratch = &mut *scratch;
        scratch.insert.clear();
        let data = read_event(raw, &mut scratch.insert).data?;
        let envelope = scratch.parser.parse(data).ok()?;
        if call.method == Method::ToolsList && envelope.kind == Kind::Response {
            self.worker.upstreams.learn_tools(index, &envelope, data);
        }
        match envelope.kind {
            Kind::ErrorResponse => Some(Outcome::RpcError),
            Kind::Response if envelope.result_is_error => Some(Outcome::ToolError),
            Kind::Response => Some(Outcome::Ok),
            _ => None,
        }
    }

    pub(super) fn time_out_event(&mut self, call: &Call) {
        let text = "Upstream error: the upstream did not answer in time; whether the call was carried out is unknown";
        self.error_event(call, text);
    }

    /// Puts the error that answers a call into its event stream.
    pub(super) fn error_event(&mut self, call: &Call, text: &str) {
        let mut event = b"event: message\ndata: ".to_vec();
        crate::rpc::reply::error(&mut event, call.id(&self.notes), -32001, text, None);
        event.extend_from_slice(b"\n\n");
        self.put_event(call, &event);
    }

    /// Waits for more of a stream, sending keep-alive comments meanwhile. The pending read is never dropped. An `endless` stream
    /// is over when the process drains; a call's goes on until its response.
    async fn read_event_bytes(&mut self, chunked: bool, endless: bool, answer: &mut Answer<'_>) -> Wait {
        let fd = answer.connection.stream.fd();
        let mut read = pin!(answer.connection.read());
        loop {
            self.deadline.set(bounds::SSE_KEEP_ALIVE_MS, OnExpiry::Wake);
            let wait = {
                let mut hung_up = pin!(hung_up(&self.stream, &mut self.input));
                let mut silent = pin!(self.deadline.expired());
                let mut draining = pin!(self.open.draining());
                poll_fn(|cx| {
                    if let Poll::Ready(result) = read.as_mut().poll(cx) {
                        return Poll::Ready(Wait::Read(result));
                    }
                    if hung_up.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Wait::Gone);
                    }
                    // A call is given its time to end (DRAIN_TIMEOUT); a stream without an end of its own is not.
                    if endless && draining.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Wait::Drain);
                    }
                    silent.as_mut().poll(cx).map(|()| Wait::KeepAlive)
                })
                .await
            };
            match wait {
                Wait::KeepAlive => {
                    let comment = b": keep-alive\n\n";
                    if chunked {
                        write::chunk(&mut self.output, comment);
                    } else {
                        self.output.extend_from_slice(comment);
                    }
                    if self.flush().await == Flow::Next {
                        continue;
                    }
                    socket::shutdown(fd, Half::Both);
                    let _ = read.await;
                    return Wait::Gone;
                }
                Wait::Gone | Wait::Drain => {
                    socket::shutdown(fd, Half::Both);
                    let _ = read.await;
                    return wait;
                }
                Wait::Read(_) => return wait,
            }
        }
    }

    /// An answer that broke before anything of it was sent to the client.
    async fn fail_relay(&mut self, call: &mut Call, failure: Failure) -> Flow {
        self.output.clear();
        self.fail(call, failure).await
    }

    /// How a call ended, from the whole body of its answer.
    fn outcome_of(&self, call: &Call, index: usize, status: u16, body: &[u8]) -> Outcome {
        if call.kind != Kind::Request || body.len() > bounds::MAX_HELD_ANSWER_BYTES {
            return outcome_by_status(status);
        }
        if call.method != Method::ToolsCall && !holds_whole(call) {
            return outcome_by_status(status);
        }
        let mut scratch = self.worker.scratch.borrow_mut();
        let Ok(envelope) = scratch.parser.parse(body) else { return outcome_by_status(status) };
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
    call.kind == Kind::Request && call.method == Method::ToolsList
}

fn outcome_by_status(status: u16) -> Outcome {
    match status {
        200..=299 => Outcome::Ok,
        400..=499 => Outcome::RpcError,
        _ => Outcome::UpstreamError,
    }
}

/// Decodes what has arrived; decoded bytes are moved down to follow `..end` without a gap.
fn gather(passage: &mut Passage, buf: &mut Vec<u8>, end: &mut usize) -> Result<(), Failure> {
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
fn ended(read: Result<usize, Failure>, expired: bool, passage: &mut Passage) -> Result<(), Failure> {
    match read {
        Err(Failure::Broken) | Ok(0) if expired => Err(Failure::Timeout),
        Err(failure) => Err(failure),
        Ok(0) => passage.decoder.finish().map_err(|error| Failure::Bad(error.into())),
        _ => Ok(()),
    }
}
