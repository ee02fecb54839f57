//! A call as it is made, read by the upstream, and answered: each with bytes that no other call has.
//!
//! A call says in its arguments what is to become of it, so that a faulty upstream needs no plan beside the calls themselves, and an answer holds
//! the number of its call in every part, so that bytes of another answer cannot go unnoticed.

use std::fmt::Write;

use serde::Deserialize;

use super::fault::Fault;

/// What the tool of the upstreams is called.
pub(crate) const TOOL: &str = "act";

/// The protocol revisions that calls are made in.
pub(crate) const MODERN: &str = "2026-07-28";
pub(crate) const SESSION: &str = "2025-11-25";

/// Bytes of an answer that is too long to be held anywhere (`MAX_HELD_ANSWER_BYTES` is 16 MiB).
pub(crate) const OVERSIZE_BYTES: usize = 17 << 20;

/// What a call is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// Its number; no two calls of a run have the same.
    pub(crate) number: u64,
    pub(crate) fault: Fault,
    /// Bytes that its answer carries beside what every answer has.
    pub(crate) size: usize,
    /// Milliseconds after which its answer leaves.
    pub(crate) delay_ms: u64,
}

impl Call {
    /// Its id as it is written. Every third is a text.
    pub(crate) fn id(&self) -> String {
        id_of(self.number)
    }

    /// The message. `prefix` goes in front of the tool's name where there are several upstreams.
    pub(crate) fn message(&self, prefix: &str, modern: bool) -> String {
        let meta = if modern {
            r#","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#
        } else {
            ""
        };
        format!(
            r#"{{"jsonrpc":"2.0","id":{},"method":"tools/call","params":{{"name":"{prefix}{TOOL}","arguments":{{"number":{},"fault":"{}","size":{},"delay":{}}}{meta}}}}}"#,
            self.id(),
            self.number,
            self.fault.name(),
            self.size,
            self.delay_ms
        )
    }

    /// The one right answer, under `id`: at the client its own, at the upstream whatever it was called by.
    pub(crate) fn answer(&self, id: &str) -> String {
        let size = if self.fault == Fault::Oversize { OVERSIZE_BYTES } else { self.size };
        let mut out = String::with_capacity(size + 160);
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":"did {}"}}],"isError":false,"pad":""#,
            self.number
        );
        let (pad, start) = (format!("{}.", self.number), out.len());
        out.push_str(&pad.repeat(size / pad.len() + 1));
        out.truncate(start + size);
        out.push_str("\"}}");
        out
    }

    /// Whether `body` is what the upstream says to this call where it does not answer it: its number is in it, and no answer's shape is expected.
    pub(crate) fn is_as_sent(&self, body: &[u8]) -> bool {
        match self.fault {
            Fault::WrongId => body == self.answer(&format!("\"nobody-{}\"", self.number)).as_bytes(),
            Fault::OthersId => {
                // Whose id it is, the upstream has chosen; all else is this call's own.
                let whole = self.answer("");
                let (head, tail) = whole.split_at_checked(22).unwrap_or_default();
                body.starts_with(head.as_bytes()) && body.ends_with(tail.as_bytes()) && body.len() < whole.len() + 32
            }
            Fault::ContentType => body == self.answer(&self.id()).as_bytes(),
            Fault::Error => body == page(self.number).as_bytes() || body == self.error(&self.id()).as_bytes(),
            _ => false,
        }
    }

    /// A JSON-RPC error of the upstream's own.
    pub(crate) fn error(&self, id: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32050,"message":"no {}"}}}}"#, self.number)
    }
}

/// The page that an upstream over HTTP answers in an error of its own.
pub(crate) fn page(number: u64) -> String {
    format!("<html>no {number}</html>")
}

/// The id of the call with this number.
pub(crate) fn id_of(number: u64) -> String {
    if number.is_multiple_of(3) { format!("\"q{number}\"") } else { number.to_string() }
}

/// The number of the call with this id, as it is written.
pub(crate) fn number_of(id: &str) -> Option<u64> {
    let number = match id.strip_prefix("\"q") {
        Some(rest) => rest.strip_suffix('"')?.parse().ok()?,
        None => id.parse().ok()?,
    };
    (id_of(number) == id).then_some(number)
}

/// What an upstream reads of a message.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Its id as it is written; none in a notification.
    pub(crate) id: Option<String>,
    pub(crate) method: String,
    /// The call, where it is one.
    pub(crate) call: Option<Call>,
    /// The request that a cancellation names, as it is written.
    pub(crate) cancels: Option<String>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a serde_json::value::RawValue>,
    #[serde(default)]
    method: String,
    #[serde(borrow)]
    params: Option<Params<'a>>,
}

#[derive(Deserialize)]
struct Params<'a> {
    arguments: Option<Arguments>,
    #[serde(borrow, rename = "requestId")]
    request_id: Option<&'a serde_json::value::RawValue>,
}

#[derive(Deserialize)]
struct Arguments {
    number: u64,
    fault: String,
    size: usize,
    delay: u64,
}

/// Reads a message that the gateway has sent; `None` if it is none.
pub(crate) fn read(message: &[u8]) -> Option<Asked> {
    let message: Message<'_> = serde_json::from_slice(message).ok()?;
    let params = message.params;
    let call = params.as_ref().and_then(|params| params.arguments.as_ref()).and_then(|arguments| {
        let fault = Fault::parse(&arguments.fault)?;
        Some(Call { number: arguments.number, fault, size: arguments.size, delay_ms: arguments.delay })
    });
    let cancels = params.and_then(|params| Some(params.request_id?.get().to_owned()));
    Some(Asked { id: message.id.map(|id| id.get().to_owned()), method: message.method, call, cancels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_reads_what_a_client_writes() {
        for number in [1, 2, 3, 999_999] {
            let call = Call { number, fault: Fault::WrongId, size: 5, delay_ms: 3 };
            for modern in [true, false] {
                let asked = read(call.message("calm__", modern).as_bytes()).unwrap_or_default();
                assert_eq!(
                    (asked.call, asked.id, asked.method),
                    (Some(call), Some(call.id()), "tools/call".to_owned())
                );
            }
            assert_eq!(number_of(&call.id()), Some(number));
        }
        for id in ["", "\"q3", "q3", "3", "\"q4\"", "04", "-4", "null"] {
            assert_eq!(number_of(id), None, "{id}");
        }
        let cancelled =
            br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":17,"reason":""}}"#;
        assert_eq!(read(cancelled).and_then(|asked| asked.cancels), Some("17".to_owned()));
    }

    #[test]
    fn no_two_calls_have_the_same_answer() {
        let call = |number, size| Call { number, fault: Fault::None, size, delay_ms: 0 };
        let mut seen = std::collections::HashSet::new();
        for number in 1..50 {
            for size in [0, 10, 1000] {
                assert!(seen.insert(call(number, size).answer("1")), "{number} {size}");
            }
        }
        assert_eq!(call(7, 100).answer("7").len(), call(7, 0).answer("7").len() + 100);
    }

    #[test]
    fn what_an_upstream_sends_to_one_call_is_not_taken_for_anothers() {
        for fault in [Fault::WrongId, Fault::OthersId, Fault::ContentType, Fault::Error] {
            let call = Call { number: 41, fault, size: 9, delay_ms: 0 };
            let other = Call { number: 43, ..call };
            let sent = |call: &Call| match fault {
                Fault::WrongId => call.answer(&format!("\"nobody-{}\"", call.number)),
                Fault::OthersId => call.answer("12345"),
                Fault::Error => page(call.number),
                _ => call.answer(&call.id()),
            };
            assert!(call.is_as_sent(sent(&call).as_bytes()), "{fault:?}");
            assert!(!call.is_as_sent(sent(&other).as_bytes()), "{fault:?}");
        }
    }
}
