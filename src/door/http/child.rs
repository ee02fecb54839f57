//! A message for a stdio server, and what comes back: a JSON answer, or an event stream as soon as something precedes the answer.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::answer::{self, Fields};
use super::plan::Call;
use super::{Connection, Flow};
use crate::bounds;
use crate::rpc::cut::Unclear;
use crate::rpc::{Kind, Method};
use crate::state::events::Outcome;
use crate::upstream::brokered::{CallHandle, CallKind, ChildCall, ChildMessage, Gone};
use crate::wire::http1::write;
use crate::worker::timers::OnExpiry;

/// What a wait for a child's message ended with.
enum Wait {
    Message(Option<ChildMessage>),
    ClientGone,
    Silent,
    Drain,
}

impl Connection {
    pub(super) async fn forward_child(
        &mut self,
        mut call: Call,
        index: usize,
        child: usize,
        message: ChildCall,
    ) -> Flow {
        let worker = self.worker.clone();
        let Some(children) = &worker.shared.children else { return Flow::Close };
        let timeout_ms = worker.upstreams.get(index).map_or(30_000, |upstream| upstream.call_timeout_ms);
        // Clients take 202 to a DELETE for a failure.
        let accepted = if message.kind == CallKind::EndSession { 200 } else { 202 };
        let mut handle = match children.call(child, message) {
            Ok(handle) => handle,
            Err(busy) => {
                self.worker.metrics.limit(crate::observe::metrics::Limit::UpstreamInFlight);
                self.not_made(&mut call);
                self.answer_rpc(&call, 503, -32001, &format!("Upstream error: {busy}; the call was not made"));
                self.finish(&mut call, Outcome::UpstreamError, 503);
                return self.flush().await;
            }
        };
        let first = match self.wait_for_child(&mut handle, timeout_ms, false).await {
            Wait::Message(message) => message,
            Wait::ClientGone | Wait::Drain => {
                self.finish(&mut call, Outcome::Cancelled, 499);
                return Flow::Cut;
            }
            Wait::Silent => {
                handle.set_cancel_on_drop(true);
                return self.fail(&mut call, crate::upstream::http::Failure::Timeout).await;
            }
        };
        match first {
            Some(ChildMessage::Message { bytes, last: true }) => self.child_answer(&mut call, index, &bytes).await,
            Some(ChildMessage::Message { bytes, last: false }) => {
                self.child_events(&mut call, index, handle, Some(bytes), timeout_ms).await
            }
            Some(ChildMessage::Initialized { session, bytes }) => {
                let part = session.0.to_be_bytes();
                let tag = worker.upstreams.get(index).map_or(0, |upstream| upstream.tag);
                let sealed = self.seal([(tag, &part[..])]);
                let fields = Fields { close: !call.keep_alive, session: sealed.as_deref(), ..Fields::default() };
                answer::whole(&mut self.output, 200, "application/json", &bytes, fields);
                self.worker.metrics.response(200);
                self.finish(&mut call, Outcome::Ok, 200);
                self.flush().await
            }
            Some(ChildMessage::Accepted) => {
                let fields = Fields { close: !call.keep_alive, ..Fields::default() };
                answer::whole(&mut self.output, accepted, "", b"", fields);
                self.worker.metrics.response(accepted);
                self.flush().await
            }
            Some(ChildMessage::SessionUnknown) => {
                self.answer_rpc(&call, 404, -32001, "Session not found: initialize again");
                self.finish(&mut call, Outcome::RpcError, 404);
                self.flush().await
            }
            Some(ChildMessage::Gone { reason }) => self.child_gone(&mut call, &reason).await,
            None => self.fail(&mut call, crate::upstream::http::Failure::Broken).await,
        }
    }

    async fn child_answer(&mut self, call: &mut Call, index: usize, bytes: &[u8]) -> Flow {
        let shown = match self.view_for(call) {
            Some(view) => self.shown_message(&view, index, bytes),
            None => Ok((false, None)),
        };
        let Ok((withheld, shown)) = shown else {
            return self.fail(call, crate::upstream::http::Failure::Unclear).await;
        };
        let (outcome, status) = {
            let mut scratch = self.worker.scratch.borrow_mut();
            let parsed = scratch.parser.parse(bytes);
            if let (Some(held), Ok(envelope)) = (&call.held, &parsed) {
                held.hear(envelope, bytes);
            }
            match parsed {
                Ok(envelope) if envelope.kind == Kind::ErrorResponse => {
                    (Outcome::RpcError, modern_status(call, envelope.error_code))
                }
                Ok(envelope) => {
                    if call.method == Method::ToolsList {
                        self.worker.upstreams.learn_tools(index, &envelope, bytes);
                    }
                    (if envelope.result_is_error { Outcome::ToolError } else { Outcome::Ok }, 200)
                }
                Err(_) => (Outcome::UpstreamError, 200),
            }
        };
        let outcome = if withheld { Outcome::ToolError } else { outcome };
        answer::json(&mut self.output, status, shown.as_deref().unwrap_or(bytes), !call.keep_alive);
        self.worker.metrics.response(status);
        self.finish(call, outcome, status);
        self.flush().await
    }

    /// An event stream of a child's messages: those of one call, or those of a session.
    pub(super) async fn child_events(
        &mut self,
        call: &mut Call,
        index: usize,
        mut handle: CallHandle,
        first: Option<Vec<u8>>,
        timeout_ms: u64,
    ) -> Flow {
        write::status_line(&mut self.output, 200);
        super::answer::date(&mut self.output);
        write::field(&mut self.output, "Content-Type", b"text/event-stream");
        write::field(&mut self.output, "Cache-Control", b"no-cache, no-transform");
        self.begin_events(call);
        self.worker.metrics.response(200);
        let endless = call.kind != Kind::Request || call.method == Method::SubscriptionsListen;
        let mut outcome = Outcome::Cancelled;
        if let Some(bytes) = first {
            let _ = self.put_message(call, index, &bytes);
        }
        let mut silent_ms = 0;
        let flow = loop {
            let flow = self.flush().await;
            if flow != Flow::Next {
                break flow;
            }
            let wait_ms = bounds::SSE_KEEP_ALIVE_MS.min(if endless { u64::MAX } else { timeout_ms - silent_ms });
            match self.wait_for_child(&mut handle, wait_ms, endless).await {
                Wait::Message(Some(ChildMessage::Message { bytes, last })) => {
                    silent_ms = 0;
                    let withheld = self.put_message(call, index, &bytes);
                    if last {
                        outcome = self.message_outcome(call, &bytes);
                        if withheld {
                            outcome = Outcome::ToolError;
                        }
                        break self.end_events(call).await;
                    }
                }
                Wait::Message(ended) => {
                    outcome = Outcome::UpstreamError;
                    if call.kind == Kind::Request {
                        let reason = match ended {
                            Some(ChildMessage::Gone { reason }) => reason,
                            _ => Gone::Closed,
                        };
                        self.error_event(
                            call,
                            &format!("Upstream error: {reason}; whether the call was carried out is unknown"),
                        );
                    }
                    break self.end_events(call).await;
                }
                Wait::Silent => {
                    silent_ms += wait_ms;
                    if !endless && silent_ms >= timeout_ms {
                        outcome = Outcome::Timeout;
                        handle.set_cancel_on_drop(true);
                        self.time_out_event(call);
                        break self.end_events(call).await;
                    }
                    self.put_event(call, b": keep-alive\n\n");
                }
                Wait::Drain => break self.end_events(call).await,
                Wait::ClientGone => break Flow::Cut,
            }
        };
        self.finish(call, outcome, 200);
        if call.keep_alive { flow } else { flow.then_close() }
    }

    /// Puts a message into the output as the client is shown it. Whether it was withheld.
    fn put_message(&mut self, call: &Call, index: usize, message: &[u8]) -> bool {
        let shown = match self.view_for(call) {
            Some(view) => self.shown_message(&view, index, message),
            None => Ok((false, None)),
        };
        let (withheld, message) = match &shown {
            Ok((withheld, None)) => (*withheld, message),
            Ok((withheld, Some(shown))) => (*withheld, shown.as_slice()),
            Err(Unclear) if call.kind == Kind::Request => {
                let text = format!("Upstream error: {}", crate::upstream::http::Failure::Unclear);
                self.error_event(call, &text);
                return false;
            }
            Err(Unclear) => return false,
        };
        // A CR is a blank to JSON and the end of a line to an event stream.
        let mut event = [&b"event: message\ndata: "[..], message, b"\n\n"].concat();
        event.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b' ');
        if !self.worker.upstreams.are_several() {
            self.put_event(call, &event);
            return withheld;
        }
        let mut rewritten = Vec::with_capacity(event.len() + 32);
        let worker = self.worker.clone();
        crate::door::pump::rewrite_event(&mut worker.scratch.borrow_mut().parser, index, &event, &mut rewritten);
        self.put_event(call, &rewritten);
        withheld
    }

    fn message_outcome(&self, call: &Call, bytes: &[u8]) -> Outcome {
        let parsed = self.worker.scratch.borrow_mut().parser.parse(bytes);
        if let (Some(held), Ok(envelope)) = (&call.held, &parsed) {
            held.hear(envelope, bytes);
        }
        match parsed {
            Ok(envelope) if envelope.kind == Kind::ErrorResponse => Outcome::RpcError,
            Ok(envelope) if envelope.result_is_error => Outcome::ToolError,
            _ => Outcome::Ok,
        }
    }

    /// A call that a child will not answer.
    async fn child_gone(&mut self, call: &mut Call, reason: &Gone) -> Flow {
        let (status, made) = if reason.nothing_sent() {
            self.not_made(call);
            (503, "the call was not made")
        } else {
            (502, "whether the call was carried out is unknown")
        };
        let text = format!("Upstream error: {reason}; {made}");
        let retry_after_s = reason.retry_after_ms().map_or(1, |ms| ms.div_ceil(1000).max(1));
        self.answer_rpc_later(call, status, -32001, &text, retry_after_s);
        let outcome = if *reason == Gone::Cancelled { Outcome::Cancelled } else { Outcome::UpstreamError };
        self.finish(call, outcome, status);
        self.flush().await
    }

    async fn wait_for_child(&mut self, handle: &mut CallHandle, ms: u64, ends_on_drain: bool) -> Wait {
        self.deadline.set(ms, OnExpiry::Wake);
        let mut receive = pin!(handle.recv());
        let mut hung_up = pin!(super::relay::hung_up(&self.stream, &mut self.input));
        let mut silent = pin!(self.deadline.expired());
        let mut draining = pin!(self.open.draining());
        poll_fn(|cx| {
            if let Poll::Ready(message) = receive.as_mut().poll(cx) {
                return Poll::Ready(Wait::Message(message));
            }
            if hung_up.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Wait::ClientGone);
            }
            if ends_on_drain && draining.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Wait::Drain);
            }
            silent.as_mut().poll(cx).map(|()| Wait::Silent)
        })
        .await
    }
}

/// The status of a JSON-RPC error in the era where the status follows from the code (2026-07-28, "Error handling").
pub(super) fn modern_status(call: &Call, code: Option<i64>) -> u16 {
    match (call.era, code) {
        (crate::rpc::Era::Modern, Some(-32601)) => 404,
        (crate::rpc::Era::Modern, Some(-32700 | -32600 | -32602 | -32020 | -32021 | -32022)) => 400,
        _ => 200,
    }
}
