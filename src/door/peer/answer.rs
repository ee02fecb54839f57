//! The gateway's own answers to a client of a message door, and what is counted and recorded of them.

use super::Peer;
use super::calls::{Call, CallKey};
use crate::door::decide::Refused;
use crate::guard::Denial;
use crate::guard::denial::Tell;
use crate::observe::metrics::Limit;
use crate::rpc::era::{EraFault, Header};
use crate::rpc::reply::{self, EchoId};
use crate::rpc::{Envelope, Era, Kind, Malformed};
use crate::settings::DenialStyle;
use crate::state::events::{Event, EventKind, Outcome};
use crate::worker::EndedCall;

/// A message that is answered by the gateway.
pub(super) struct Refusing<'a> {
    pub(super) envelope: &'a Envelope,
    pub(super) raw: &'a [u8],
    pub(super) era: Era,
    /// The name or URI that it acts on.
    pub(super) name: &'a str,
}

/// What is said of a call that never reached its upstream.
pub(super) fn not_made(why: &impl std::fmt::Display) -> String {
    format!("Upstream error: {why}; the call was not made")
}

/// What is said of a call of which nobody knows what became of it.
pub(super) fn unknown(why: &impl std::fmt::Display) -> String {
    format!("Upstream error: {why}; whether the call was carried out is unknown")
}

impl Refusing<'_> {
    fn id(&self) -> EchoId<'_> {
        self.envelope.id_bytes(self.raw).map_or(EchoId::Null, EchoId::Raw)
    }
}

impl Peer {
    /// Sends a whole message of the gateway's own.
    pub(super) fn say(&self, message: &[u8]) {
        self.put(message.len(), |out| out.extend_from_slice(message));
    }

    /// Sends an error.
    pub(super) fn say_error(&self, id: EchoId<'_>, code: i32, text: &str, data: Option<&[u8]>) {
        let mut answer = Vec::with_capacity(128);
        reply::error(&mut answer, id, code, text, data);
        self.say(&answer);
    }

    /// Sends a result (raw JSON).
    pub(super) fn say_result(&self, id: EchoId<'_>, result: &[u8]) {
        let mut answer = Vec::with_capacity(result.len().saturating_add(64));
        reply::result(&mut answer, id, result);
        self.say(&answer);
    }

    /// Answers, counts and records a message that is none.
    pub(super) fn refuse_malformed(&self, malformed: &Malformed, raw: &[u8]) {
        let mut answer = Vec::with_capacity(256);
        reply::malformed(&mut answer, raw, malformed, EchoId::Null);
        self.note_invalid(malformed.rule(), format_args!("{malformed}"));
        self.say(&answer);
    }

    /// Answers a message that is longer than one may be.
    pub(crate) fn refuse_too_large(&self) {
        self.worker.metrics.limit(Limit::MessageSize);
        self.note_invalid("message-size", format_args!("longer than MAX_MESSAGE_SIZE"));
        self.say_error(EchoId::Null, -32600, "Message too large", None);
    }

    /// Counts and records a message that breaks a rule of the protocol.
    pub(crate) fn note_invalid(&self, rule: &'static str, details: std::fmt::Arguments<'_>) {
        self.worker.metrics.refusals.inc(rule);
        let event = self.worker.event(EventKind::InvalidInput, self.address).with_rule(rule);
        self.record(event.with_details(details));
    }

    /// Answers, counts and records what was refused about a message. A notification gets no answer.
    pub(super) fn refuse(&self, refusing: &Refusing<'_>, refused: &Refused) {
        match refused {
            Refused::Rpc { code, text, .. } => self.say_refusal(refusing, *code, text, None),
            Refused::Era(fault) => self.refuse_era(refusing, *fault),
            Refused::Denied(denial) => self.refuse_denied(refusing, denial),
        }
    }

    fn refuse_era(&self, refusing: &Refusing<'_>, fault: EraFault) {
        let version = refusing.envelope.meta_version.text().map(|text| text.decode(refusing.raw).into_owned());
        let mut data = Vec::new();
        let has_data = fault.write_data(Header::One(version.as_deref().unwrap_or_default().as_bytes()), &mut data);
        self.note_invalid(fault.rule(), format_args!("{}", fault.message()));
        self.say_refusal(refusing, fault.code(), fault.message(), has_data.then_some(&data[..]));
    }

    fn refuse_denied(&self, refusing: &Refusing<'_>, denial: &Denial) {
        let (text, rule) = (denial.text(), denial.rule());
        self.worker.note_refusal(denial, self.address.ip());
        let mut event = self.worker.event(denial.event(), self.address).with_rule(rule);
        event = event.with_tool(refusing.name.as_bytes());
        if let Some(id) = refusing.envelope.id_bytes(refusing.raw) {
            event = event.with_request_id(id);
        }
        self.record(event.with_details(format_args!("{}", denial.recorded())));
        if refusing.envelope.kind == Kind::Request {
            self.worker.count_refused(self.door, refusing.envelope, refusing.name.as_bytes());
        }
        let style = self.worker.snapshot().settings.doors.denial_style;
        match denial.tell() {
            Tell::Call if style == DenialStyle::ToolResult && refusing.envelope.kind == Kind::Request => {
                let mut answer = Vec::with_capacity(512);
                reply::tool_refusal(&mut answer, refusing.id(), &denial.refusal(&text), refusing.era == Era::Modern);
                self.say(&answer);
            }
            Tell::Call if denial.exceeded().is_some() => {
                self.say_refusal(refusing, -32000, &text, Some(&refusal_data(denial, &text)));
            }
            Tell::Call | Tell::Unknown => self.say_refusal(refusing, -32602, &text, None),
            Tell::Rpc { code, .. } => {
                self.say_refusal(refusing, i32::try_from(code).unwrap_or(-32603), &text, None);
            }
            Tell::Http(_) => self.say_refusal(refusing, -32600, &text, None),
        }
    }

    /// Answers, counts and records a message of a client that has sent too many. `named` is there if it is a message.
    pub(super) fn refuse_too_many(&self, denial: &Denial, named: Option<(&Envelope, &[u8])>, id: EchoId<'_>) {
        self.worker.note_refusal(denial, self.address.ip());
        let mut event = self.worker.event(denial.event(), self.address).with_rule(denial.rule());
        if let EchoId::Raw(id) = id {
            event = event.with_request_id(id);
        }
        if let Some((envelope, name)) = named {
            event = event.with_tool(name);
            self.worker.count_refused(self.door, envelope, name);
        }
        self.record(event.with_details(format_args!("{}", denial.recorded())));
        let text = denial.text();
        // JSON-RPC 2.0 §4.1: nothing is answered to a notification; and nothing to an answer.
        if named.is_none_or(|(envelope, _)| envelope.kind == Kind::Request) {
            self.say_error(id, -32000, &text, Some(&refusal_data(denial, &text)));
        }
    }

    fn say_refusal(&self, refusing: &Refusing<'_>, code: i32, text: &str, data: Option<&[u8]>) {
        // JSON-RPC 2.0 §4.1: nothing is answered to a notification, unless it is none; and nothing to an answer.
        let is_invalid = code == -32600 && refusing.envelope.kind == Kind::Notification;
        if refusing.envelope.kind == Kind::Request || is_invalid {
            self.say_error(refusing.id(), code, text, data);
        }
    }

    /// Answers a call that was entered and must not be made, and ends it.
    pub(super) fn refuse_entered(&self, key: CallKey, denial: &Denial) {
        self.worker.metrics.refusals.inc(denial.rule());
        let answer = self.calls.borrow_mut().get_mut(key).map(|call| {
            // Nothing was forwarded: what it leaves is the refusal's line.
            call.reservation = None;
            let mut event = self.worker.event(denial.event(), self.address).with_rule(denial.rule());
            event = event.with_tool(call.name()).with_request_id(call.id());
            self.record(event.with_details(format_args!("{}", denial.recorded())));
            let code = if let Tell::Rpc { code, .. } = denial.tell() { code } else { -32603 };
            let mut answer = Vec::with_capacity(160);
            let code = i32::try_from(code).unwrap_or(-32603);
            reply::error(&mut answer, EchoId::Raw(call.id()), code, &denial.text(), None);
            answer
        });
        if let Some(answer) = answer {
            self.say(&answer);
        }
        self.finish(key, Outcome::Refused, self.worker.now_ns());
    }

    /// Answers a call that got no answer, and ends it.
    pub(super) fn fail(&self, key: CallKey, text: &str, outcome: Outcome) {
        if outcome == Outcome::UpstreamError || outcome == Outcome::Timeout {
            self.worker.metrics.upstream_errors.inc();
        }
        let answer = self.calls.borrow().get(key).filter(|call| call.kind == Kind::Request).map(|call| {
            let mut answer = Vec::with_capacity(160);
            reply::error(&mut answer, EchoId::Raw(call.id()), -32001, text, None);
            answer
        });
        if let Some(answer) = answer.filter(|_| outcome != Outcome::Cancelled) {
            self.say(&answer);
        }
        self.finish(key, outcome, self.worker.now_ns());
    }

    /// Counts a call that has ended, writes its audit line, and takes it off.
    pub(super) fn finish(&self, key: CallKey, outcome: Outcome, now_ns: u64) {
        if let Some(call) = self.calls.borrow_mut().get_mut(key) {
            self.settle(call, outcome, now_ns);
        }
        self.end(key);
    }

    fn settle(&self, call: &mut Call, outcome: Outcome, now_ns: u64) {
        if call.kind != Kind::Request {
            return;
        }
        let duration_ns = now_ns.saturating_sub(call.started_ns);
        self.worker.count_call(&EndedCall {
            door: self.door,
            upstream: call.upstream,
            method: call.method,
            name: call.name(),
            outcome,
            now_ns,
            duration_ns,
            traced: call.traced,
        });
        if let Some(held) = call.held.take() {
            held.ended(outcome, 0);
        }
        let Some(reservation) = call.reservation.take() else { return };
        let at_ms = self.worker.epoch_ms_at(now_ns);
        let event = Event::new(EventKind::ToolCall, at_ms).with_ip(self.address.ip()).with_tool(call.name());
        let event = event.with_request_id(call.id()).with_call(outcome, 0, duration_ns / 1000);
        reservation.commit(self.named(event));
    }
}

/// What is said beside the text of an error.
fn refusal_data(denial: &Denial, text: &str) -> Vec<u8> {
    let mut data = Vec::with_capacity(192);
    reply::refusal_data(&mut data, &denial.refusal(text));
    data
}
