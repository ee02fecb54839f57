//! How a message ends: the gateway's own answers to it, and what is counted and recorded of it.

use super::Connection;
use super::answer::{self, Fields};
use super::plan::Call;
use crate::door::fan::FanAnswer;
use crate::guard::Denial;
use crate::guard::denial::Tell;
use crate::rpc::era::{EraFault, Header};
use crate::rpc::list::ListKind;
use crate::rpc::reply::{self, EchoId};
use crate::rpc::{Envelope, Era, Kind, Malformed};
use crate::settings::DenialStyle;
use crate::state::events::{Event, EventKind, Outcome};
use crate::state::lifecycle::Door;
use crate::upstream::http::Failure;
use crate::upstream::route::Unroutable;
use crate::worker::EndedCall;

impl Connection {
    /// Answers a request of which nothing need be said but that it was understood.
    pub(super) fn answer_empty_result(&mut self, call: &Call) {
        let mut body = Vec::with_capacity(64);
        reply::result(&mut body, call.id(&self.notes), b"{}");
        self.worker.metrics.response(200);
        answer::json(&mut self.output, 200, &body, !call.keep_alive);
    }

    /// Answers a request with a result (raw JSON), with the session that it opened.
    fn answer_result(&mut self, call: &mut Call, result: &[u8], session: Option<&str>) {
        let mut body = Vec::with_capacity(result.len() + 64);
        reply::result(&mut body, call.id(&self.notes), result);
        let fields = Fields { close: !call.keep_alive, session, ..Fields::default() };
        answer::whole(&mut self.output, 200, "application/json", &body, fields);
        self.worker.metrics.response(200);
        self.finish(call, Outcome::Ok, 200);
    }

    /// Puts what several upstreams' answers came to into the output.
    pub(super) fn answer_fan(&mut self, call: &mut Call, answer: FanAnswer) {
        match answer {
            FanAnswer::Result(result) => self.answer_result(call, &result, None),
            FanAnswer::Initialized(result, parts) => {
                match self.seal(parts.iter().map(|(tag, id)| (*tag, id.as_slice()))) {
                    Some(sealed) => self.answer_result(call, &result, Some(&sealed)),
                    None => {
                        let text = "Upstream error: the session ids of the upstreams are too long";
                        self.answer_rpc(call, 502, -32001, text);
                        self.finish(call, Outcome::UpstreamError, 502);
                    }
                }
            }
            FanAnswer::Response { bytes, status, error } => {
                // Whose answer it is has no part in what is looked for in results.
                let shown = match self.view_for(call) {
                    Some(view) => self.shown_message(&view, 0, &bytes),
                    None => Ok((false, None)),
                };
                let Ok((_, shown)) = shown else {
                    self.answer_rpc(call, 502, -32001, &format!("Upstream error: {}", Failure::Unclear));
                    self.finish(call, Outcome::UpstreamError, 502);
                    return;
                };
                let bytes = shown.unwrap_or(bytes);
                let (outcome, status) = match error {
                    None => (Outcome::Ok, 200),
                    // A stdio server's error has no status of its own.
                    Some(_) if status == 200 => (Outcome::RpcError, super::child::modern_status(call, error)),
                    Some(_) => (Outcome::RpcError, status),
                };
                answer::json(&mut self.output, status, &bytes, !call.keep_alive);
                self.worker.metrics.response(status);
                self.finish(call, outcome, status);
            }
            FanAnswer::Told if call.kind == Kind::Request => self.answer_empty_result(call),
            FanAnswer::Told => {
                let fields = Fields { close: !call.keep_alive, ..Fields::default() };
                answer::whole(&mut self.output, 202, "", b"", fields);
                self.worker.metrics.response(202);
            }
            FanAnswer::Fault { status, text, outcome } => {
                self.answer_rpc(call, status, -32001, text);
                self.finish(call, outcome, status);
            }
        }
    }

    /// Answers a message with a JSON-RPC error under a status.
    pub(super) fn answer_rpc(&mut self, call: &Call, status: u16, code: i32, text: &str) {
        self.answer_rpc_later(call, status, code, text, 1);
    }

    /// Likewise; a 429 or 503 says after how many seconds it is worth trying again.
    pub(super) fn answer_rpc_later(&mut self, call: &Call, status: u16, code: i32, text: &str, retry_after_s: u64) {
        let mut body = Vec::with_capacity(128);
        reply::error(&mut body, call.id(&self.notes), code, text, None);
        self.worker.metrics.response(status);
        let fields = Fields {
            close: !call.keep_alive,
            retry_after_s: matches!(status, 429 | 503).then_some(retry_after_s),
            ..Fields::default()
        };
        answer::whole(&mut self.output, status, "application/json", &body, fields);
    }

    pub(super) fn answer_malformed(&mut self, malformed: &Malformed, raw: &[u8], unread: EchoId<'_>, close: bool) {
        let mut answer = Vec::with_capacity(256);
        reply::malformed(&mut answer, raw, malformed, unread);
        self.worker.metrics.refusals.inc(malformed.rule());
        let event = self.event(EventKind::InvalidInput).with_rule(malformed.rule());
        self.record(event.with_details(format_args!("{malformed}")));
        self.worker.metrics.response(400);
        answer::json(&mut self.output, 400, &answer, close);
    }

    pub(super) fn answer_era_fault(&mut self, fault: EraFault, version: Header<'_>, id: EchoId<'_>, close: bool) {
        let (mut answer, mut data) = (Vec::with_capacity(256), Vec::new());
        let has_data = fault.write_data(version, &mut data);
        reply::error(&mut answer, id, fault.code(), fault.message(), has_data.then_some(&data[..]));
        self.worker.metrics.refusals.inc(fault.rule());
        let event = self.event(EventKind::InvalidInput).with_rule(fault.rule());
        self.record(event.with_details(format_args!("{}", fault.message())));
        self.worker.metrics.response(fault.status());
        answer::json(&mut self.output, fault.status(), &answer, close);
    }

    /// Answers, counts and records what a guard refused about a message.
    pub(super) fn answer_denial(&mut self, call: &Call, denial: &Denial) {
        let text = denial.text();
        let rule = denial.rule();
        self.worker.note_refusal(denial, self.client_ip());
        let event = self.event(denial.event()).with_rule(rule);
        let mut event = event.with_tool(self.name(call).as_bytes());
        if let EchoId::Raw(id) = call.id(&self.notes) {
            event = event.with_request_id(id);
        }
        self.record(event.with_details(format_args!("{}", denial.recorded())));
        self.count(call, Outcome::Refused, self.worker.now_ns());
        let style = self.worker.snapshot().settings.doors.denial_style;
        match denial.tell() {
            Tell::Call if style == DenialStyle::ToolResult && call.kind == Kind::Request => {
                let mut body = Vec::with_capacity(512);
                reply::tool_refusal(&mut body, call.id(&self.notes), &denial.refusal(&text), call.era == Era::Modern);
                self.worker.metrics.response(200);
                answer::json(&mut self.output, 200, &body, !call.keep_alive);
            }
            Tell::Call if denial.exceeded().is_some() => {
                let id = call.id(&self.notes);
                answer_exceeded(&mut self.output, (200, -32000), denial, id, !call.keep_alive);
                self.worker.metrics.response(200);
            }
            Tell::Call => self.answer_rpc(call, 200, -32602, &text),
            Tell::Unknown => {
                self.answer_rpc(call, Unroutable::Unlisted(ListKind::Tools).status(call.era), -32602, &text);
            }
            Tell::Rpc { status, code } => {
                self.answer_rpc(call, status, i32::try_from(code).unwrap_or(-32603), &text);
            }
            Tell::Http(status) => self.answer_rpc(call, status, -32600, &text),
        }
    }

    /// Answers, counts and records a message of a client that has sent too many. `envelope` is there if it is a message.
    pub(super) fn answer_too_many(
        &mut self,
        denial: &Denial,
        named: Option<(&Envelope, &[u8])>,
        id: EchoId<'_>,
        close: bool,
    ) {
        self.worker.note_refusal(denial, self.client_ip());
        let mut event = self.event(denial.event()).with_rule(denial.rule());
        if let EchoId::Raw(id) = id {
            event = event.with_request_id(id);
        }
        if let Some((envelope, name)) = named {
            event = event.with_tool(name);
            self.worker.count_refused(Door::Http, envelope, name);
        }
        self.record(event.with_details(format_args!("{}", denial.recorded())));
        answer_exceeded(&mut self.output, (429, -32000), denial, id, close);
        self.worker.metrics.response(429);
    }

    /// Counts a call that has ended and writes its audit line.
    pub(super) fn finish(&mut self, call: &mut Call, outcome: Outcome, status: u16) {
        let now_ns = self.worker.now_ns();
        self.count(call, outcome, now_ns);
        if let Some(held) = call.held.take() {
            held.ended(outcome, status);
        }
        let Some(reservation) = call.reservation.take() else { return };
        let duration_us = now_ns.saturating_sub(call.started_ns) / 1000;
        let event = Event::new(EventKind::ToolCall, self.worker.epoch_ms_at(now_ns)).with_ip(self.client_ip());
        let tool = self.notes.get(call.name.clone()).unwrap_or_default();
        let mut event = event.with_tool(tool).with_call(outcome, status, duration_us);
        if let EchoId::Raw(id) = call.id(&self.notes) {
            event = event.with_request_id(id);
        }
        reservation.commit(self.named(event));
    }

    fn count(&self, call: &Call, outcome: Outcome, now_ns: u64) {
        if call.kind == Kind::Request {
            let duration_ns = now_ns.saturating_sub(call.started_ns);
            self.worker.count_call(&EndedCall {
                door: Door::Http,
                upstream: call.upstream,
                method: call.method,
                name: self.name(call).as_bytes(),
                outcome,
                now_ns,
                duration_ns,
                traced: call.traced,
            });
            self.entry.sent(1, 0);
        }
    }
}

/// Writes an error that says which limit was reached.
fn answer_exceeded(out: &mut Vec<u8>, (status, code): (u16, i32), denial: &Denial, id: EchoId<'_>, close: bool) {
    let (text, mut data, mut body) = (denial.text(), Vec::with_capacity(192), Vec::with_capacity(384));
    reply::refusal_data(&mut data, &denial.refusal(&text));
    reply::error(&mut body, id, code, &text, Some(&data));
    let fields = Fields { close, exceeded: denial.exceeded().filter(|_| status == 429), ..Fields::default() };
    answer::whole(out, status, "application/json", &body, fields);
}
