//! `POST /mcp`: one message, its plan carried out.

use std::rc::Rc;

use super::plan::{Call, Plan};
use super::relay::gone;
use super::{Connection, Flow, Request};
use crate::door::fan;
use crate::observe::metrics::Limit;
use crate::rpc::Kind;
use crate::state::events::Outcome;
use crate::upstream::http::{Failure, HttpUpstream, Limits};
use crate::upstream::route::Fan;
use crate::upstream::{Outgoing, UpstreamKind};

impl Connection {
    /// Serves one posted message.
    pub(super) async fn post(&mut self, mut request: Request) -> Flow {
        if !self.parse_head_again(&mut request) {
            return Flow::Close;
        }
        let mut looked_again = false;
        loop {
            match self.plan(&request, request.body.clone(), false, looked_again) {
                Plan::Answered => return self.flush().await,
                Plan::Batch => return self.batch(&request).await,
                Plan::Forward(call, index, outgoing) => return self.forward(call, index, outgoing).await,
                Plan::Fan(call, Fan::Listen, spread) => {
                    let pieces = fan::listen(&self.worker, &spread);
                    return self.pass_merged(call, pieces).await;
                }
                Plan::Fan(mut call, fan, spread) => {
                    let answer = fan::ask(&self.worker, call.era, fan, spread).await;
                    self.answer_fan(&mut call, answer);
                    return self.flush().await;
                }
                Plan::LookAgain(call, kind, spread) => {
                    looked_again = true;
                    fan::look_again(&self.worker, call.era, kind, spread).await;
                    request.head_is_parsed = false;
                    if !self.parse_head_again(&mut request) {
                        return Flow::Close;
                    }
                }
            }
        }
    }

    /// The worker's scratch may have seen other heads while this request's body was awaited.
    pub(super) fn parse_head_again(&mut self, request: &mut Request) -> bool {
        if request.head_is_parsed {
            return true;
        }
        let worker = self.worker.clone();
        let mut scratch = worker.scratch.borrow_mut();
        let bytes = self.input.get(request.head.clone()).unwrap_or_default();
        let parsed = crate::wire::http1::request::parse_request(bytes, 0, &mut scratch.request);
        request.head_is_parsed = parsed == Ok(crate::wire::http1::Progress::Complete);
        request.head_is_parsed
    }

    async fn forward(&mut self, mut call: Call, index: usize, outgoing: Outgoing) -> Flow {
        if !self.secured(&mut call).await {
            return self.flush().await;
        }
        let worker = self.worker.clone();
        let Some(upstream) = worker.upstreams.get(index) else { return Flow::Close };
        match (&upstream.kind, outgoing) {
            (UpstreamKind::Http(http), Outgoing::Http(bytes)) => {
                self.forward_http(call, index, Rc::clone(http), bytes).await
            }
            (UpstreamKind::Child(child), Outgoing::Child(message)) => {
                self.forward_child(call, index, *child, message).await
            }
            _ => Flow::Close,
        }
    }

    async fn forward_http(&mut self, mut call: Call, index: usize, http: Rc<HttpUpstream>, bytes: Vec<u8>) -> Flow {
        let worker = self.worker.clone();
        let endless = call.method == crate::rpc::Method::SubscriptionsListen;
        let limits = Limits { head_ms: (!endless).then(|| http.call_timeout_ms()) };
        let output = &mut self.output;
        let mut minted = None;
        let mints = call.method == crate::rpc::Method::Initialize;
        let (result, _bytes) = {
            let watch = gone(&self.stream, &self.deadline, &mut self.input);
            http.exchange(&worker, bytes, &limits, watch, |head, buf| {
                crate::wire::http1::write::status_line(output, super::relay::told_status(head.status));
                super::answer::date(output);
                crate::wire::http1::write::copy_response_fields(output, head, buf);
                minted = head.mcp_session_id.filter(|_| mints).map(|span| span.of(buf).to_vec());
            })
            .await
        };
        match result {
            Ok(answer) => {
                if let Some(decided_ns) = call.decided_ns {
                    worker.metrics.upstream_duration.record(worker.now_ns().saturating_sub(decided_ns));
                }
                if let Some(id) = minted
                    && !self.seal_session(&call, index, &id)
                {
                    self.output.clear();
                    return self.fail(&mut call, Failure::Broken).await;
                }
                self.relay(&mut call, index, &http, answer).await
            }
            Err(failure) => {
                self.output.clear();
                self.fail(&mut call, failure).await
            }
        }
    }

    /// Waits until the money that is held for a call is on disk. False: it is not, and the answer stands in the output.
    pub(super) async fn secured(&mut self, call: &mut Call) -> bool {
        let Some(held) = &mut call.held else { return true };
        match held.write_down().await {
            Ok(()) => {
                held.sent();
                true
            }
            Err(denial) => {
                call.held = None;
                self.not_made(call);
                call.reservation = None;
                self.answer_denial(call, &denial);
                false
            }
        }
    }

    /// Puts the sealed form of a session id that an upstream has just made into the answer's head.
    fn seal_session(&mut self, call: &Call, index: usize, id: &[u8]) -> bool {
        // Servers repeat the id on every answer; the client has it since `initialize`, sealed together with those of the other
        // upstreams. 2026-07-28 has no sessions.
        if call.era == crate::rpc::Era::Modern || call.method != crate::rpc::Method::Initialize {
            return true;
        }
        let Some(upstream) = self.worker.upstreams.get(index) else { return false };
        match self.seal([(upstream.tag, id)]) {
            Some(sealed) => {
                crate::wire::http1::write::field(&mut self.output, "Mcp-Session-Id", sealed.as_bytes());
                true
            }
            None => false,
        }
    }

    /// Seals upstreams' session ids for the principal of this connection.
    pub(super) fn seal<'a>(&self, parts: impl IntoIterator<Item = (u32, &'a [u8])>) -> Option<String> {
        let mut nonce = [0; 12];
        getrandom::fill(&mut nonce).ok()?;
        let ttl_s = self.worker.snapshot().settings.doors.session_ttl.as_secs();
        let expires_s = (crate::worker::epoch_ms() / 1000).saturating_add(ttl_s);
        let tag = self.principal.as_ref()?.tag();
        self.worker.shared.sealer.seal(parts, &tag, expires_s, nonce)
    }

    /// Answers a call that got no answer, and records why.
    pub(super) async fn fail(&mut self, call: &mut Call, failure: Failure) -> Flow {
        match self.answer_failure(call, failure) {
            Flow::Next => self.flush().await,
            flow => flow,
        }
    }

    /// Puts the answer to a call that got none into the output, and records why.
    pub(super) fn answer_failure(&mut self, call: &mut Call, failure: Failure) -> Flow {
        self.worker.metrics.upstream_errors.inc();
        if failure == Failure::Full {
            self.worker.metrics.limit(Limit::UpstreamInFlight);
        }
        if failure.nothing_sent() {
            self.not_made(call);
        }
        let (status, code, outcome) = match failure {
            Failure::ClientGone => {
                self.finish(call, Outcome::Cancelled, 499);
                return Flow::Cut;
            }
            Failure::Timeout => (504, -32001, Outcome::Timeout),
            Failure::Full | Failure::Credential => (503, -32001, Outcome::UpstreamError),
            Failure::Unresolved | Failure::Connect | Failure::NoSession => (502, -32001, Outcome::UpstreamError),
            Failure::Broken | Failure::Bad(_) | Failure::Unclear => (502, -32001, Outcome::UpstreamError),
        };
        let text = match failure {
            Failure::Bad(_) => "Upstream error: the answer is not valid HTTP".to_owned(),
            Failure::Unclear => format!("Upstream error: {failure}"),
            failure if failure.nothing_sent() => format!("Upstream error: {failure}; the call was not made"),
            failure => format!("Upstream error: {failure}; whether the call was carried out is unknown"),
        };
        if call.kind == Kind::Request {
            self.answer_rpc(call, status, code, &text);
        } else {
            let fields = super::answer::Fields { close: !call.keep_alive, ..Default::default() };
            super::answer::error(&mut self.output, status, &text, fields);
            self.worker.metrics.response(status);
        }
        self.finish(call, outcome, status);
        Flow::Next
    }
}
