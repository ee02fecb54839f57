//! Passing an event stream on, event by event.
//!
//! An event leaves when it is complete and not before, so that what looks into events, and the keep-alive comments in between,
//! always find their borders. A client that reads slowly stops the reading of the upstream.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::plan::Call;
use super::relay::{Passage, ended, gather, hung_up};
use super::{Connection, Flow};
use crate::bounds;
use crate::door::shown::View;
use crate::rpc::cut::Unclear;
use crate::rpc::{Kind, Method};
use crate::state::events::Outcome;
use crate::sys::socket::{self, Half};
use crate::upstream::http::{Answer, Failure, HttpUpstream, body_decoder};
use crate::wire::http1::write;
use crate::wire::sse::{Splitter, read_event};
use crate::worker::timers::OnExpiry;

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

impl Connection {
    pub(super) async fn relay_events(
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
        let view = self.view_for(call);
        let mut outcome = None;
        // `buf` holds decoded bytes that no complete event covers yet, up to `end`, then raw ones.
        let mut end = 0;
        let flow = loop {
            let gathered = gather(&mut passage, &mut answer.connection.buf, &mut end);
            let split = self.pass_events(
                call,
                (index, view.as_ref()),
                &mut splitter,
                &mut answer.connection.buf,
                &mut end,
                &mut passage.raw,
                &mut outcome,
            );
            if split == Err(Failure::Unclear) {
                break self.end_events(call).await;
            }
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
    pub(super) fn say_close(&mut self, call: &mut Call) {
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
        // A call's stream counts as its one answer; a stream without a call, event by event.
        if call.kind != Kind::Request && !raw.starts_with(b":") {
            self.entry.sent(1, 0);
        }
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
        (index, view): (usize, Option<&View>),
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
            taken += span.end as usize;
            let shown = match view {
                Some(view) => view.event(&worker, &mut worker.scratch.borrow_mut().parser, index, event),
                None => Ok((false, None)),
            };
            if let Ok((true, _)) = shown {
                *outcome = Some(Outcome::ToolError);
            }
            let event = match &shown {
                Ok((_, None)) => event,
                Ok((_, Some(shown))) => shown,
                Err(Unclear) => {
                    worker.metrics.upstream_errors.inc();
                    if call.kind != Kind::Request {
                        continue;
                    }
                    *outcome = Some(Outcome::UpstreamError);
                    self.error_event(call, &format!("Upstream error: {}", Failure::Unclear));
                    return Err(Failure::Unclear);
                }
            };
            if self.worker.upstreams.are_several() {
                let mut rewritten = Vec::with_capacity(event.len() + 32);
                let mut scratch = worker.scratch.borrow_mut();
                crate::door::pump::rewrite_event(&mut scratch.parser, index, event, &mut rewritten);
                self.put_event(call, &rewritten);
            } else {
                self.put_event(call, event);
            }
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
        if let Some(held) = &call.held {
            held.hear(&envelope, data);
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
}
