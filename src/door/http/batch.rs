//! Batches, which only revision 2025-03-26 knows: each member is guarded by itself and sent by itself, and the
//! answers leave together.

use super::answer::{self, Fields};
use super::plan::Plan;
use super::{Connection, Flow, Request};
use crate::bounds;
use crate::door::fan;
use crate::rpc::reply::EchoId;
use crate::rpc::{Kind, Span};
use crate::state::events::Outcome;
use crate::sys::socket;
use crate::upstream::ask::ask;
use crate::upstream::http::Failure;
use crate::upstream::route::Fan;

impl Connection {
    /// Serves a batch. Its shape and revision have been checked.
    pub(super) async fn batch(&mut self, request: &Request) -> Flow {
        let close = !request.keep_alive;
        let mut members: Vec<Span> = Vec::new();
        let split = {
            let raw = self.input.get(request.body.clone()).unwrap_or_default();
            self.worker.scratch.borrow_mut().parser.parse_batch(raw, &mut members)
        };
        if let Err(malformed) = split {
            let mut body = Vec::new();
            crate::rpc::reply::error(&mut body, EchoId::Null, malformed.code(), &malformed.to_string(), None);
            self.worker.metrics.response(400);
            answer::json(&mut self.output, 400, &body, close);
            return self.flush().await;
        }
        let mut answers: Vec<u8> = Vec::new();
        for member in members {
            let start = request.body.start;
            let place = start + member.start as usize..start + member.end as usize;
            if let Some(answer) = self.batch_member(request, place).await {
                answers.push(if answers.is_empty() { b'[' } else { b',' });
                answers.extend_from_slice(&answer);
            }
            let has_gone = socket::peek(self.stream.fd()) == socket::Look::Gone;
            if has_gone || answers.len() > bounds::MAX_HELD_ANSWER_BYTES {
                return Flow::Cut;
            }
        }
        if answers.is_empty() {
            answer::whole(&mut self.output, 202, "", b"", Fields { close, ..Fields::default() });
            self.worker.metrics.response(202);
        } else {
            answers.push(b']');
            answer::json(&mut self.output, 200, &answers, close);
            self.worker.metrics.response(200);
        }
        self.flush().await
    }

    /// One member's answer, if one is due.
    async fn batch_member(&mut self, request: &Request, place: std::ops::Range<usize>) -> Option<Vec<u8>> {
        let mut looked_again = false;
        let (mut call, index, outgoing) = loop {
            let mut head = request.again();
            if !self.parse_head_again(&mut head) {
                return None;
            }
            match self.plan(&head, place.clone(), true, looked_again) {
                Plan::Forward(call, index, outgoing) => break (call, index, outgoing),
                // MCP 2025-03-26, "Lifecycle": initialize is never part of a batch; a stream cannot be.
                Plan::Fan(call, Fan::Initialize | Fan::Listen, _) => {
                    self.answer_rpc(&call, 200, -32600, "Invalid request: not in a batch");
                    return self.take_answer_body();
                }
                Plan::Fan(mut call, fan, spread) => {
                    let answer = fan::ask(&self.worker, call.era, fan, spread).await;
                    self.answer_fan(&mut call, answer);
                    return self.take_answer_body();
                }
                Plan::LookAgain(call, kind, spread) if !looked_again => {
                    looked_again = true;
                    fan::look_again(&self.worker, call.era, kind, spread).await;
                }
                Plan::LookAgain(..) | Plan::Answered | Plan::Batch => return self.take_answer_body(),
            }
        };
        if !self.secured(&mut call).await {
            return self.take_answer_body();
        }
        let worker = self.worker.clone();
        let timeout_ms = worker.upstreams.get(index).map_or(30_000, |upstream| upstream.call_timeout_ms);
        let asked = ask(&worker, index, outgoing, timeout_ms).await;
        match asked {
            Ok(asked) if call.kind == Kind::Request => {
                let parsed = worker.scratch.borrow_mut().parser.parse(&asked.response);
                if let Some(held) = &call.held {
                    held.hear_status(asked.status);
                    if let Ok(envelope) = &parsed {
                        held.hear(envelope, &asked.response);
                    }
                }
                let outcome = match parsed {
                    Ok(envelope) if envelope.kind == Kind::ErrorResponse => Outcome::RpcError,
                    Ok(envelope) if envelope.result_is_error => Outcome::ToolError,
                    Ok(envelope) if envelope.kind == Kind::Response => Outcome::Ok,
                    // Not an answer: in the array it would spoil the others'.
                    _ => {
                        let _ = self.answer_failure(&mut call, Failure::Broken);
                        return self.take_answer_body();
                    }
                };
                let shown = match self.view_for(&call) {
                    Some(view) => self.shown_message(&view, index, &asked.response),
                    None => Ok((false, None)),
                };
                let Ok((withheld, shown)) = shown else {
                    let _ = self.answer_failure(&mut call, Failure::Unclear);
                    return self.take_answer_body();
                };
                self.finish(&mut call, if withheld { Outcome::ToolError } else { outcome }, 200);
                Some(shown.unwrap_or(asked.response))
            }
            Ok(_) => None,
            Err(failure) => {
                let _ = self.answer_failure(&mut call, failure);
                self.take_answer_body().filter(|_| call.kind == Kind::Request)
            }
        }
    }

    /// Takes the body of the answer that stands in the output; a member of a batch has no head of its own.
    fn take_answer_body(&mut self) -> Option<Vec<u8>> {
        let end = memchr::memmem::find(&self.output, b"\r\n\r\n")? + 4;
        let body = self.output.get(end..)?.to_vec();
        self.output.clear();
        (!body.is_empty()).then_some(body)
    }
}
