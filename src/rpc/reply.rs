//! Answers of our own, appended as bytes: errors, results, and tool results that refuse a call.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use super::malformed::Malformed;
use crate::settings::money::Usd;
use std::fmt::Write as _;

/// The id that an answer echoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EchoId<'a> {
    /// The id's bytes as the request had them, quotes included.
    Raw(&'a [u8]),
    /// `null`: the request's id could not be read (up to 2025-11-25).
    Null,
    /// No id at all: the same in 2026-07-28, whose schema knows no null id.
    Absent,
}

/// How much of something, as it stands in JSON and in texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many.
    Count(u64),
    /// So much.
    Money(Usd),
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Money(usd) => usd.fmt(f),
        }
    }
}

/// A tool result that says why a call was refused, see front-doors.md, "Refusals of a call".
#[derive(Clone, Copy, Debug, Default)]
pub struct ToolRefusal<'a> {
    /// What the model reads. Never echoes a value.
    pub error: &'a str,
    /// The rule's name.
    pub rule: &'a str,
    /// JSON pointer of the field concerned.
    pub field: Option<&'a str>,
    /// Which limit.
    pub limit_type: Option<&'a str>,
    /// How much was used.
    pub current: Option<Amount>,
    /// How much is allowed.
    pub max: Option<Amount>,
    /// When it resets, in words.
    pub reset_description: Option<&'a str>,
    /// When it may be tried again, from now.
    pub retry_after_ms: Option<u64>,
}

/// Appends an error answer. `data` is raw JSON.
pub fn error(out: &mut Vec<u8>, id: EchoId<'_>, code: i32, message: &str, data: Option<&[u8]>) {
    error_with(out, id, code, |out| push_escaped(out, message), data);
}

/// Appends the error answer to a malformed message: its own code, text and, when it could be read, id. `raw` is the message.
/// `unread` stands in for an id that could not be read.
pub fn malformed(out: &mut Vec<u8>, raw: &[u8], fault: &Malformed, unread: EchoId<'_>) {
    let id = fault.id.map_or(unread, |id| EchoId::Raw(id.span.of(raw)));
    // A `Write` for the escaper cannot fail.
    error_with(out, id, fault.code(), |out| _ = write!(Escaper(out), "{fault}"), None);
}

fn error_with(out: &mut Vec<u8>, id: EchoId<'_>, code: i32, message: impl FnOnce(&mut Vec<u8>), data: Option<&[u8]>) {
    open(out, id);
    out.extend_from_slice(b"\"error\":{\"code\":");
    if code < 0 {
        out.push(b'-');
    }
    push_u64(out, u64::from(code.unsigned_abs()));
    out.extend_from_slice(b",\"message\":\"");
    message(out);
    out.push(b'"');
    if let Some(data) = data {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(data);
    }
    out.extend_from_slice(b"}}");
}

/// Appends a result answer. `result` is raw JSON.
pub fn result(out: &mut Vec<u8>, id: EchoId<'_>, result: &[u8]) {
    open(out, id);
    out.extend_from_slice(b"\"result\":");
    out.extend_from_slice(result);
    out.push(b'}');
}

/// Appends a tool result that refuses the call. `modern` adds what results of 2026-07-28 carry: `resultType`, and `_meta` with
/// the server's name and version, which are ours.
pub fn tool_refusal(out: &mut Vec<u8>, id: EchoId<'_>, refusal: &ToolRefusal<'_>, modern: bool) {
    open(out, id);
    out.extend_from_slice(b"\"result\":{");
    if modern {
        out.extend_from_slice(
            concat!(
                "\"resultType\":\"complete\",\"_meta\":{\"io.modelcontextprotocol/serverInfo\":{\"name\":\"ringwall\",\"version\":\"",
                env!("CARGO_PKG_VERSION"),
                "\"}},"
            )
            .as_bytes(),
        );
    }
    out.extend_from_slice(b"\"isError\":true,\"content\":[{\"type\":\"text\",\"text\":");
    push_string(out, refusal.error);
    out.extend_from_slice(b"}],\"structuredContent\":{\"error\":");
    push_string(out, refusal.error);
    out.push(b',');
    reasons(out, refusal);
    out.extend_from_slice(b"}}}");
}

/// Appends what else is known of a refusal, as the `data` of an error: an object.
pub fn refusal_data(out: &mut Vec<u8>, refusal: &ToolRefusal<'_>) {
    out.push(b'{');
    reasons(out, refusal);
    out.push(b'}');
}

fn reasons(out: &mut Vec<u8>, refusal: &ToolRefusal<'_>) {
    push_string(out, "rule");
    out.push(b':');
    push_string(out, refusal.rule);
    let reset = ("resetDescription", refusal.reset_description);
    for (name, text) in [("field", refusal.field), ("limitType", refusal.limit_type), reset] {
        if let Some(text) = text {
            push_name(out, name);
            push_string(out, text);
        }
    }
    let retry_after = refusal.retry_after_ms.map(Amount::Count);
    for (name, amount) in [("current", refusal.current), ("max", refusal.max), ("retryAfterMs", retry_after)] {
        if let Some(amount) = amount {
            push_name(out, name);
            // A `Write` for the escaper cannot fail; digits and a point are not escaped.
            let _ = write!(Escaper(out), "{amount}");
        }
    }
}

fn open(out: &mut Vec<u8>, id: EchoId<'_>) {
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",");
    let id = match id {
        EchoId::Raw(id) => id,
        EchoId::Null => b"null",
        EchoId::Absent => return,
    };
    out.extend_from_slice(b"\"id\":");
    out.extend_from_slice(id);
    out.push(b',');
}

fn push_name(out: &mut Vec<u8>, name: &str) {
    out.push(b',');
    push_string(out, name);
    out.push(b':');
}

/// Appends `text` as a JSON string, quotes included.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    push_escaped(out, text);
    out.push(b'"');
}

/// Appends `text` as it stands between the quotes of a JSON string.
fn push_escaped(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
                out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
}

/// Formats into a JSON string.
struct Escaper<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Escaper<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        push_escaped(self.0, text);
        Ok(())
    }
}

/// Appends a decimal number.
pub fn push_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(decimal(value, &mut [0; 20]).as_bytes());
}

/// `value` in decimal digits.
pub(crate) fn decimal(mut value: u64, digits: &mut [u8; 20]) -> &str {
    let mut first = digits.len();
    loop {
        first = first.saturating_sub(1);
        if let Some(digit) = digits.get_mut(first) {
            *digit = b'0'.saturating_add(u8::try_from(value % 10).unwrap_or(0));
        }
        value /= 10;
        if value == 0 {
            break;
        }
    }
    digits.get(first..).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or("0")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::rpc::{Envelope, Kind, Parser};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn parsed(bytes: &[u8]) -> (Envelope, Value) {
        let envelope =
            Parser::new(64).parse(bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(bytes)));
        (envelope, serde_json::from_slice(bytes).unwrap())
    }

    #[test]
    fn errors_are_error_responses() {
        for (id, want) in [
            (EchoId::Raw(b"7"), json!(7)),
            (EchoId::Raw(b"\"7\""), json!("7")),
            (EchoId::Null, Value::Null),
            (EchoId::Absent, Value::Null),
        ] {
            let mut out = Vec::new();
            error(&mut out, id, -32602, "say \"what\"\n\u{1}", Some(br#"{"a":[1]}"#));
            let (envelope, value) = parsed(&out);
            assert_eq!(envelope.kind, Kind::ErrorResponse);
            assert_eq!(envelope.error_code, Some(-32602));
            assert_eq!(value["id"], want);
            assert_eq!(value.get("id").is_some(), id != EchoId::Absent);
            assert_eq!(value["error"], json!({"code": -32602, "message": "say \"what\"\n\u{1}", "data": {"a": [1]}}));
        }
    }

    #[test]
    fn malformed_messages_are_answered_with_their_id() {
        let raw = br#"{"jsonrpc":"2.0","id":"q1","method":"tools/call","params":{"name":"t","arguments":{"a":1,"a\"":2,"a":3}}}"#;
        let fault = Parser::new(64).parse(raw).unwrap_err();
        let mut out = Vec::new();
        malformed(&mut out, raw, &fault, EchoId::Null);
        let (_, value) = parsed(&out);
        assert_eq!(value["id"], "q1");
        assert_eq!(value["error"]["code"], -32600);
        assert_eq!(
            value["error"]["message"],
            "Invalid request: duplicate key at /params/arguments, byte 97: JSON readers disagree on which one counts"
        );
    }

    #[test]
    fn results() {
        let mut out = Vec::new();
        result(&mut out, EchoId::Raw(b"1"), b"{}");
        assert_eq!(out, br#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    }

    #[test]
    fn refusals_tell_the_model_why() {
        let refusal = ToolRefusal {
            error: "Rate limit exceeded: agent (61/60). Resets in 12 s.",
            rule: "rate",
            field: Some("/to"),
            limit_type: Some("agent"),
            current: Some(Amount::Count(61)),
            max: Some(Amount::Money(Usd(7_900))),
            reset_description: Some("in 12 s"),
            retry_after_ms: Some(12_000),
        };
        for modern in [false, true] {
            let mut out = Vec::new();
            tool_refusal(&mut out, EchoId::Raw(b"3"), &refusal, modern);
            let (envelope, value) = parsed(&out);
            assert!(envelope.result_is_error);
            let result = &value["result"];
            assert_eq!(result["content"], json!([{"type": "text", "text": refusal.error}]));
            assert_eq!(
                result["structuredContent"],
                json!({"error": refusal.error, "rule": "rate", "field": "/to", "limitType": "agent", "current": 61,
                       "max": 0.0079, "resetDescription": "in 12 s", "retryAfterMs": 12000})
            );
            assert_eq!(result.get("resultType").is_some(), modern);
            let mut data = Vec::new();
            refusal_data(&mut data, &refusal);
            let mut told = result["structuredContent"].clone();
            told.as_object_mut().unwrap().remove("error");
            assert_eq!(
                serde_json::from_slice::<Value>(&data).unwrap(),
                told,
                "an error has the same beside its message"
            );
        }
        let mut out = Vec::new();
        tool_refusal(&mut out, EchoId::Raw(b"3"), &ToolRefusal { error: "no", rule: "r", ..Default::default() }, false);
        assert_eq!(parsed(&out).1["result"]["structuredContent"], json!({"error": "no", "rule": "r"}));
    }

    proptest! {
        #[test]
        fn strings_and_numbers_read_back(text in any::<String>(), number in any::<u64>(), code in any::<i32>()) {
            let mut out = Vec::new();
            push_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text.clone());
            let mut out = Vec::new();
            push_u64(&mut out, number);
            prop_assert_eq!(std::str::from_utf8(&out).unwrap(), number.to_string());
            let mut out = Vec::new();
            error(&mut out, EchoId::Null, code, &text, None);
            prop_assert_eq!(&parsed(&out).1["error"], &json!({"code": code, "message": text}));
        }
    }
}
