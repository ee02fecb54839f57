//! The calls that are made, and what must come back.

use super::super::upstream::answer;

/// Digits of an id: all ids have the same width, so that they are written over each other in place.
pub(crate) const ID_DIGITS: usize = 10;

/// The id of the first call of a run.
const FIRST_ID: u64 = 1_000_000_000;

/// Calls, in the order in which they are made, over and over.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    calls: Vec<Call>,
}

/// A tool call without its id, and the answer of the sample upstream.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) tool: String,
    /// A JSON object.
    pub(crate) arguments: Vec<u8>,
    /// What follows the id in its answer.
    pub(crate) answer_end: Vec<u8>,
}

impl Call {
    pub(crate) fn new(tool: &str, arguments: Vec<u8>) -> Self {
        let mut answer_end = Vec::new();
        answer::write_end(&mut answer_end, &arguments);
        Self { tool: tool.to_owned(), arguments, answer_end }
    }

    /// The message up to the id, and what follows it.
    pub(crate) fn message(&self) -> (Vec<u8>, Vec<u8>) {
        let start = br#"{"jsonrpc":"2.0","id":"#.to_vec();
        let mut end = format!(r#","method":"tools/call","params":{{"name":"{}","arguments":"#, self.tool).into_bytes();
        end.extend_from_slice(&self.arguments);
        end.extend_from_slice(b"}}");
        (start, end)
    }

    /// Length of the message with its id, bytes.
    pub(crate) fn message_len(&self) -> usize {
        let (start, end) = self.message();
        start.len() + ID_DIGITS + end.len()
    }
}

impl Mix {
    /// One call as an agent sends it, over and over: a text message, filled up until the JSON-RPC message has `len` bytes; about 160 at least.
    pub(crate) fn fixed(len: usize) -> Self {
        let text =
            "Hello, your table for four is confirmed for Friday at seven. Reply to this message if anything changes. ";
        let arguments = |filling: usize| {
            let body: String = text.chars().cycle().take(filling).collect();
            format!(r#"{{"to":"+15551234567","body":"{body}"}}"#).into_bytes()
        };
        let empty = Call::new("comms_send_message", arguments(0)).message_len();
        Self { calls: vec![Call::new("comms_send_message", arguments(len.saturating_sub(empty)))] }
    }

    /// These calls, and the answers that they name.
    pub(crate) fn of(calls: Vec<Call>) -> Self {
        Self { calls }
    }

    pub(crate) fn calls(&self) -> &[Call] {
        &self.calls
    }
}

/// The digits of the id of the call with this number.
pub(crate) fn id_digits(number: u64) -> [u8; ID_DIGITS] {
    let mut rest = FIRST_ID + number;
    let mut digits = [b'0'; ID_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

/// The most calls that a run can have: one more would need another digit.
pub(crate) const MAX_CALLS: u64 = 9 * FIRST_ID;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_call_has_the_length_that_was_asked_for() -> serde_json::Result<()> {
        for len in [291, 1024, 65_536] {
            let mix = Mix::fixed(len);
            let call = &mix.calls()[0];
            let (start, end) = call.message();
            let message = [start, id_digits(4711).to_vec(), end].concat();
            assert_eq!((message.len(), call.message_len()), (len, len));
            let value: serde_json::Value = serde_json::from_slice(&message)?;
            assert_eq!(value["id"], 1_000_004_711);
            assert_eq!(value["params"]["arguments"]["to"], "+15551234567");
        }
        assert!(Mix::fixed(0).calls()[0].message_len() < 180);
        Ok(())
    }

    #[test]
    fn ids_have_one_width_over_the_whole_range() {
        assert_eq!(&id_digits(0), b"1000000000");
        assert_eq!(&id_digits(MAX_CALLS - 1), b"9999999999");
    }
}
