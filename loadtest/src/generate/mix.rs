//! The calls that are made, and what must come back.

use std::io::{self, BufRead};
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::small_call::{Dialect, MODERN_META};
use super::super::upstream::answer::{self, Answers, Failure};

/// Digits of an id: all ids have the same width, so that they are written over each other in place.
pub(crate) const ID_DIGITS: usize = 10;

/// The id of the first call of a run.
const FIRST_ID: u64 = 1_000_000_000;

/// The most calls that a run can have: one more would need another digit.
pub(crate) const MAX_CALLS: u64 = 9 * FIRST_ID;

const TOOL: &str = "comms_send_message";

/// Calls, in the order in which they are made, over and over.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    calls: Vec<Call>,
}

/// A tool call without its id, and the answer of the sample upstream.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) tool: String,
    /// A JSON object, as it is sent.
    pub(crate) arguments: Vec<u8>,
    /// What follows the id in its answer.
    pub(crate) answer_end: Vec<u8>,
    /// How the upstream lets it fail.
    pub(crate) failure: Option<Failure>,
}

/// A line of a file of calls. It may say more, which is passed over.
#[derive(Deserialize)]
struct Line<'a> {
    tool: String,
    #[serde(borrow)]
    arguments: &'a RawValue,
}

impl Call {
    /// A call to an upstream that answers as it does by default.
    pub(crate) fn new(tool: &str, arguments: Vec<u8>) -> Self {
        let mut answer_end = Vec::new();
        answer::write_end(&mut answer_end, &arguments);
        Self { tool: tool.to_owned(), arguments, answer_end, failure: None }
    }

    fn expect(&mut self, answers: &Answers) {
        self.answer_end.clear();
        answers.write_end(&mut self.answer_end, &self.arguments);
        self.failure = answers.failure(&self.arguments);
    }

    /// The message of the session era up to the id, and what follows it.
    pub(crate) fn message(&self) -> (Vec<u8>, Vec<u8>) {
        self.message_in(Dialect::Session)
    }

    /// The message of this era up to the id, and what follows it.
    pub(crate) fn message_in(&self, dialect: Dialect) -> (Vec<u8>, Vec<u8>) {
        let start = br#"{"jsonrpc":"2.0","id":"#.to_vec();
        let name = serde_json::Value::from(self.tool.as_str());
        let mut end = format!(r#","method":"tools/call","params":{{"name":{name},"arguments":"#).into_bytes();
        end.extend_from_slice(&self.arguments);
        if dialect == Dialect::Modern {
            end.extend_from_slice(MODERN_META.as_bytes());
        }
        end.extend_from_slice(b"}}");
        (start, end)
    }

    /// Length of the message with its id, bytes; of the session era.
    pub(crate) fn message_len(&self) -> usize {
        let (start, end) = self.message();
        start.len() + ID_DIGITS + end.len()
    }
}

impl Mix {
    /// These calls, and the answers that they name.
    pub(crate) fn of(calls: Vec<Call>) -> Self {
        Self { calls }
    }

    /// One call as an agent sends it, over and over: a text message, filled up until the JSON-RPC message (of the session era) has `len` bytes;
    /// about 160 at least.
    pub(crate) fn fixed(len: usize) -> Self {
        Self::varied(len, 1)
    }

    /// So many calls of this length, which differ in one number.
    pub(crate) fn varied(len: usize, count: usize) -> Self {
        let text =
            "Hello, your table for four is confirmed for Friday at seven. Reply to this message if anything changes. ";
        let call = |number: usize, filling: usize| {
            let body: String = text.chars().cycle().take(filling).collect();
            Call::new(TOOL, format!(r#"{{"to":"+1555{:07}","body":"{body}"}}"#, 1_234_567 + number).into_bytes())
        };
        let filling = len.saturating_sub(call(0, 0).message_len());
        Self::of((0..count.max(1)).map(|number| call(number, filling)).collect())
    }

    /// The first `limit` calls of a file of JSON lines, each with `tool` and `arguments`. Arguments are sent as the file has them.
    pub(crate) fn from_file(path: &Path, limit: usize) -> io::Result<Self> {
        let fault = |line: usize, what: &str| io::Error::other(format!("{}, line {line}: {what}", path.display()));
        let file = io::BufReader::new(std::fs::File::open(path).map_err(|error| fault(0, &error.to_string()))?);
        let mut calls = Vec::new();
        for (number, line) in file.lines().enumerate().take(limit) {
            let line = line?;
            let parsed: Line<'_> =
                serde_json::from_str(&line).map_err(|error| fault(number + 1, &error.to_string()))?;
            let arguments = parsed.arguments.get();
            if !arguments.starts_with('{') {
                return Err(fault(number + 1, "arguments are an object"));
            }
            calls.push(Call::new(&parsed.tool, arguments.as_bytes().to_vec()));
        }
        if calls.is_empty() { Err(fault(0, "no calls")) } else { Ok(Self::of(calls)) }
    }

    /// The same calls to an upstream that answers so.
    pub(crate) fn answered(mut self, answers: &Answers) -> Self {
        self.calls.iter_mut().for_each(|call| call.expect(answers));
        self
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

/// The number of the call whose id this is.
pub(crate) fn number_of(id: &[u8]) -> Option<u64> {
    let id: &[u8; ID_DIGITS] = id.try_into().ok()?;
    let digits =
        id.iter().try_fold(0, |sum: u64, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')));
    digits?.checked_sub(FIRST_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_call_has_the_length_that_was_asked_for() -> serde_json::Result<()> {
        for len in [291, 1024, 65_536] {
            let mix = Mix::varied(len, 2);
            assert_ne!(mix.calls()[0].answer_end, mix.calls()[1].answer_end);
            for call in mix.calls() {
                let (start, end) = call.message();
                let message = [start, id_digits(4711).to_vec(), end].concat();
                assert_eq!((message.len(), call.message_len()), (len, len));
                let value: serde_json::Value = serde_json::from_slice(&message)?;
                assert_eq!(value["id"], 1_000_004_711);
                assert!(value["params"]["arguments"]["to"].as_str().is_some_and(|to| to.len() == 12));
            }
        }
        assert!(Mix::fixed(0).calls()[0].message_len() < 180);
        Ok(())
    }

    #[test]
    fn ids_have_one_width_over_the_whole_range_and_lead_back() {
        for (number, id) in [(0, b"1000000000"), (MAX_CALLS - 1, b"9999999999")] {
            assert_eq!(&id_digits(number), id);
            assert_eq!(number_of(id), Some(number));
        }
        for wrong in ["", "100000000", "10000000000", "0999999999", "100000000a", "\"10000000"] {
            assert_eq!(number_of(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_file_is_sent_as_it_stands_and_its_faults_are_named() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("calls.jsonl");
        let lines = [
            r#"{"source":"x","tool":"a \"b\"","arguments":{"text": "\u0041", "n":1.0}}"#,
            r#"{"arguments":{},"tool":"c"}"#,
            r#"{"tool":"c"}"#,
            r#"{"tool":"c","arguments":[]}"#,
        ];
        std::fs::write(&path, lines.join("\n"))?;
        let mix = Mix::from_file(&path, 2)?;
        assert_eq!(mix.calls().len(), 2);
        assert_eq!(mix.calls()[0].arguments, br#"{"text": "\u0041", "n":1.0}"#);
        let (start, end) = mix.calls()[0].message_in(Dialect::Modern);
        let value: serde_json::Value = serde_json::from_slice(&[start, id_digits(0).to_vec(), end].concat())?;
        assert_eq!(value["params"]["name"], "a \"b\"");
        assert!(value["params"]["_meta"].is_object());
        for (limit, fault) in [(3, "line 3: missing field `arguments`"), (0, "no calls")] {
            let error = Mix::from_file(&path, limit).map(|mix| mix.calls().len()).map_err(|error| error.to_string());
            assert!(matches!(&error, Err(error) if error.contains(fault)), "{error:?}");
        }
        std::fs::write(&path, lines[3])?;
        assert!(Mix::from_file(&path, 1).is_err());
        Ok(())
    }
}
