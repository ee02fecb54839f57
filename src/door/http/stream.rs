//! `GET /mcp`, a session's own event stream, and `DELETE /mcp`, its end: both of revisions up to 2025-11-25 alone.

use std::rc::Rc;

use tokio::sync::mpsc;

use super::answer::{self, Fields};
use super::plan::{Call, mirrored};
use super::relay::gone;
use super::{Connection, Flow, Request};
use crate::bounds;
use crate::door::pump;
use crate::door::session::Session;
use crate::rpc::{Era, era};
use crate::state::events::Outcome;
use crate::upstream::ask::ask;
use crate::upstream::brokered::{CallKind, ChildCall, ChildMessage};
use crate::upstream::http::{HttpUpstream, Limits};
use crate::upstream::outgoing::Unsendable;
use crate::upstream::{Carried, Outgoing, Sender, UpstreamKind, Upstreams};

/// What a request without a body becomes.
enum Bodiless {
    /// The answer stands in the output.
    Answered,
    /// It goes to an HTTP upstream as these bytes.
    Http(Call, Rc<HttpUpstream>, Vec<u8>),
    /// It goes to a child.
    Child(Call, usize, ChildCall),
    /// It goes to several upstreams.
    Several(Call, Vec<(usize, Outgoing)>),
}

impl Connection {
    /// Opens the stream of a session.
    pub(super) async fn listen(&mut self, mut request: Request) -> Flow {
        if !self.parse_head_again(&mut request) {
            return Flow::Close;
        }
        match self.plan_bodiless(&request, b"GET", CallKind::Listen) {
            Bodiless::Answered => self.flush().await,
            Bodiless::Http(call, http, bytes) => self.exchange_bodiless(call, http, bytes, true).await,
            Bodiless::Child(call, child, message) => self.listen_to_child(call, child, message).await,
            Bodiless::Several(call, several) => self.listen_to_several(call, several).await,
        }
    }

    /// Ends a session.
    pub(super) async fn end_session(&mut self, mut request: Request) -> Flow {
        if !self.parse_head_again(&mut request) {
            return Flow::Close;
        }
        match self.plan_bodiless(&request, b"DELETE", CallKind::EndSession) {
            Bodiless::Answered => self.flush().await,
            Bodiless::Http(call, http, bytes) => self.exchange_bodiless(call, http, bytes, false).await,
            Bodiless::Child(call, child, message) => self.forward_child(call, 0, child, message).await,
            Bodiless::Several(call, several) => self.end_at_several(&call, several).await,
        }
    }

    fn plan_bodiless(&mut self, request: &Request, method: &[u8], kind: CallKind) -> Bodiless {
        let worker = self.worker.clone();
        let mut scratch = worker.scratch.borrow_mut();
        let scratch = &mut *scratch;
        let head_bytes = self.input.get(request.head.clone()).unwrap_or_default();
        let close = !request.keep_alive;
        let revision = match era::decide_bodiless(mirrored(&scratch.request, head_bytes).version) {
            Ok(Era::Legacy(revision)) => revision,
            Ok(Era::Modern) => {
                let fields = Fields { close, allow: Some("POST"), ..Fields::default() };
                answer::error(&mut self.output, 405, "Method not allowed: this revision is POST only", fields);
                self.worker.metrics.response(405);
                return Bodiless::Answered;
            }
            Err(fault) => {
                answer::error(&mut self.output, fault.status(), fault.message(), Fields { close, ..Fields::default() });
                self.worker.metrics.response(fault.status());
                return Bodiless::Answered;
            }
        };
        let call = Call::without_message(Era::Legacy(revision), request);
        let session = match scratch.request.known.mcp_session_id {
            Some(span) => {
                let opened = worker.shared.sealer.open(
                    span.of(head_bytes),
                    &request.principal.tag(),
                    crate::worker::epoch_ms() / 1000,
                    &mut scratch.session,
                );
                if opened.is_err() {
                    self.answer_rpc(&call, 404, -32001, "Session not found: initialize again");
                    return Bodiless::Answered;
                }
                Some(&scratch.session)
            }
            None => None,
        };
        let carried = Carried::Head { head: &scratch.request, bytes: head_bytes };
        if worker.upstreams.are_several() {
            if session.is_none() {
                self.answer_rpc(&call, 400, -32600, "Mcp-Session-Id is required: initialize first");
                return Bodiless::Answered;
            }
            let several = several(
                &worker.upstreams,
                carried,
                resumed(&scratch.request, head_bytes),
                session,
                (method, kind),
                request,
            );
            return Bodiless::Several(call, several);
        }
        let Some(upstream) = worker.upstreams.get(0) else {
            self.answer_rpc(&call, 503, -32603, "No upstream is configured");
            return Bodiless::Answered;
        };
        match upstream.bodiless(method, kind, carried, session, Sender::Principal(&request.principal), None) {
            Ok(Outgoing::Http(bytes)) => match &upstream.kind {
                UpstreamKind::Http(http) => Bodiless::Http(call, Rc::clone(http), bytes),
                UpstreamKind::Child(_) => Bodiless::Answered,
            },
            Ok(Outgoing::Child(message)) => match upstream.kind {
                UpstreamKind::Child(child) => Bodiless::Child(call, child, message),
                UpstreamKind::Http(_) => Bodiless::Answered,
            },
            Err(Unsendable::Credential) => {
                self.answer_rpc(&call, 503, -32001, "Upstream error: the vault has no credential for the upstream");
                Bodiless::Answered
            }
            Err(_) => {
                self.answer_rpc(&call, 400, -32600, "Mcp-Session-Id is required: initialize first");
                Bodiless::Answered
            }
        }
    }

    /// The streams of several upstreams as one.
    async fn listen_to_several(&mut self, call: Call, several: Vec<(usize, Outgoing)>) -> Flow {
        let worker = self.worker.clone();
        let (sender, receiver) = mpsc::channel(bounds::STREAM_QUEUE);
        let view = self.view_for(&call).map(Rc::new);
        for (index, outgoing) in several {
            pump::pump(&worker, (index, view.clone()), outgoing, sender.clone());
        }
        drop(sender);
        self.pass_merged(call, receiver).await
    }

    /// Ends a session at several upstreams.
    async fn end_at_several(&mut self, call: &Call, several: Vec<(usize, Outgoing)>) -> Flow {
        let worker = self.worker.clone();
        for (index, outgoing) in several {
            // A server that does not let sessions be ended (405), or is down, keeps its own until it times out.
            let _ = ask(&worker, index, outgoing, bounds::FAN_OUT_TIMEOUT_MS).await;
        }
        answer::whole(&mut self.output, 200, "", b"", Fields { close: !call.keep_alive, ..Fields::default() });
        self.worker.metrics.response(200);
        self.flush().await
    }

    async fn exchange_bodiless(
        &mut self,
        mut call: Call,
        http: Rc<HttpUpstream>,
        bytes: Vec<u8>,
        endless: bool,
    ) -> Flow {
        let worker = self.worker.clone();
        // The head of a stream may come with its first event, which may be a long time off.
        let limits = Limits { head_ms: (!endless).then(|| http.call_timeout_ms()) };
        let output = &mut self.output;
        let (result, _) = {
            let watch = gone(&self.stream, &self.deadline, &mut self.input);
            http.exchange(&worker, bytes, &limits, watch, |head, buf| {
                crate::wire::http1::write::status_line(output, super::relay::told_status(head.status));
                answer::date(output);
                crate::wire::http1::write::copy_response_fields(output, head, buf);
            })
            .await
        };
        match result {
            Ok(answer) => self.relay(&mut call, 0, &http, answer).await,
            Err(failure) => {
                self.output.clear();
                self.fail(&mut call, failure).await
            }
        }
    }

    async fn listen_to_child(&mut self, mut call: Call, child: usize, message: ChildCall) -> Flow {
        let worker = self.worker.clone();
        let Some(children) = &worker.shared.children else { return Flow::Close };
        let Ok(mut handle) = children.call(child, message) else {
            self.answer_rpc(&call, 503, -32001, "Upstream error: busy");
            return self.flush().await;
        };
        // The children thread answers this by itself, at once.
        match handle.recv().await {
            Some(ChildMessage::Accepted) => self.child_events(&mut call, 0, handle, None, u64::MAX).await,
            Some(ChildMessage::SessionUnknown) => {
                self.answer_rpc(&call, 404, -32001, "Session not found: initialize again");
                self.flush().await
            }
            _ => {
                self.answer_rpc(&call, 503, -32001, "Upstream error: the stream cannot be opened");
                self.finish(&mut call, Outcome::UpstreamError, 503);
                self.flush().await
            }
        }
    }
}

/// The event after which a stream is resumed: its upstream's number and own id. The inner `None` is an id that is none of ours.
type Resumed<'a> = Option<Option<(usize, &'a [u8])>>;

fn resumed<'a>(head: &crate::wire::http1::request::RequestHead, bytes: &'a [u8]) -> Resumed<'a> {
    head.known.last_event_id.map(|span| pump::split_event_id(span.of(bytes)))
}

/// A request without a body for each upstream of a session. A stream that is resumed is resumed at its own upstream alone.
fn several(
    upstreams: &Upstreams,
    carried: Carried<'_>,
    resumed: Resumed<'_>,
    session: Option<&Session>,
    (method, kind): (&[u8], CallKind),
    request: &Request,
) -> Vec<(usize, Outgoing)> {
    let mut several = Vec::new();
    for (index, upstream) in upstreams.iter() {
        let is_part = session.is_some_and(|session| session.part(upstream.tag).is_some());
        let wanted = match resumed {
            None => true,
            Some(id) => id.is_some_and(|(number, _)| number == index),
        };
        if !is_part || !wanted {
            continue;
        }
        let own_id = resumed.flatten().map(|(_, own)| own);
        let sender = Sender::Principal(&request.principal);
        if let Ok(outgoing) = upstream.bodiless(method, kind, carried, session, sender, own_id) {
            several.push((index, outgoing));
        }
    }
    several
}
