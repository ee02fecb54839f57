//! The calls of a run as bytes, and what counts as an answer to each.

use std::io;

use super::super::upstream::answer::{self, Failure};
use super::super::upstream::message::Message;
use super::connection::shown;
use super::mix::{self, Call, ID_DIGITS};
use super::progress::InFlight;
use super::request::Request;
use super::{Load, mix::Mix};

/// All connections share it.
pub(super) struct Prepared {
    requests: Vec<Request>,
    mix: std::rc::Rc<Mix>,
    /// Whether any call may be answered with an error.
    errors_allowed: bool,
}

/// What an answer was. A wrong one ends the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    /// An error, where one was to be expected or is allowed.
    Failed,
}

impl Prepared {
    pub(super) fn new(load: &Load) -> io::Result<Self> {
        let requests = load.mix.calls().iter().map(|call| Request::new(load, call)).collect::<io::Result<_>>()?;
        Ok(Self { requests, mix: load.mix.clone(), errors_allowed: load.errors_allowed })
    }

    /// Appends the call with this number.
    pub(super) fn write(&self, out: &mut Vec<u8>, first_line: &[u8], number: u64) {
        if let Some(request) = self.place(number).and_then(|place| self.requests.get(place)) {
            out.extend_from_slice(first_line);
            request.write(out, mix::id_digits(number));
        }
    }

    /// How the call with this number is to fail.
    pub(super) fn failure(&self, number: u64) -> Option<Failure> {
        self.call(number)?.failure
    }

    /// Whether this message answers the call as it should.
    pub(super) fn judge(&self, in_flight: Option<&InFlight>, message: &[u8]) -> io::Result<Verdict> {
        let number =
            in_flight.ok_or_else(|| io::Error::other(format!("an answer to nothing: {}", shown(message))))?.number;
        let Some(call) = self.call(number) else { return Err(io::Error::other("a call of no mix")) };
        let digits = mix::id_digits(number);
        let rest = message.strip_prefix(answer::START).and_then(|rest| rest.split_at_checked(ID_DIGITS));
        let is_exact = rest.is_some_and(|(id, end)| id == digits && end == call.answer_end);
        match (is_exact, call.failure) {
            (true, None) => Ok(Verdict::Right),
            (true, Some(Failure::ToolError)) => Ok(Verdict::Failed),
            (true, Some(Failure::Status500 | Failure::Reset)) => {
                Err(io::Error::other(format!("an answer where a failure was asked for: {}", shown(message))))
            }
            (false, failure) => {
                let may_fail = self.errors_allowed || matches!(failure, Some(Failure::Status500 | Failure::Reset));
                if may_fail && is_error(message, digits) {
                    Ok(Verdict::Failed)
                } else {
                    Err(io::Error::other(format!("a wrong answer: {}", shown(message))))
                }
            }
        }
    }

    /// Whether a response with a status other than 200 may stand in the place of the answer.
    pub(super) fn judge_status(
        &self,
        in_flight: Option<&InFlight>,
        status: u16,
        content: &[u8],
    ) -> io::Result<Verdict> {
        let failure = in_flight.and_then(|call| self.failure(call.number));
        let may_fail = self.errors_allowed || matches!(failure, Some(Failure::Status500 | Failure::Reset));
        if in_flight.is_some() && may_fail {
            return Ok(Verdict::Failed);
        }
        Err(io::Error::other(format!("status {status}: {}", shown(content))))
    }

    fn call(&self, number: u64) -> Option<&Call> {
        self.mix.calls().get(self.place(number)?)
    }

    fn place(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_rem(self.requests.len() as u64)?).ok()
    }
}

/// The number of the call that this message says it answers.
pub(super) fn answered_number(message: &[u8]) -> Option<u64> {
    let usual = message.strip_prefix(answer::START).and_then(|rest| rest.get(..ID_DIGITS)).and_then(mix::number_of);
    usual.or_else(|| mix::number_of(Message::read(message)?.id?))
}

/// Whether this is a JSON-RPC error with this id, or the result of a tool that has failed.
fn is_error(message: &[u8], id: [u8; ID_DIGITS]) -> bool {
    let value: serde_json::Value = serde_json::from_slice(message).unwrap_or_default();
    let has_id = Message::read(message).and_then(|message| message.id) == Some(&id);
    let is_error = value.get("error").is_some_and(serde_json::Value::is_object);
    has_id && (is_error || value.pointer("/result/isError") == Some(&serde_json::Value::Bool(true)))
}
