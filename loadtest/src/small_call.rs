//! The small call of `lines` and `idle`: about 160 bytes, of either era, and the one answer that it has.

use std::io::Write;

/// Which revision of MCP the calls speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Dialect {
    /// 2025-11-25: a session is opened with `initialize`.
    Session,
    /// 2026-07-28: every call stands for itself.
    Modern,
}

const REVISION: &str = "2025-11-25";

pub(crate) const MODERN_META: &str = r#","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

const ANSWER_START: &[u8] = br#"{"jsonrpc":"2.0","id":"#;
const ANSWER_END: &[u8] = br#","result":{"content":[{"type":"text","text":"Message queued"}],"isError":false}}"#;

/// The arguments of every small call.
pub(crate) const ARGUMENTS: &str = r#"{"to":"+15551234567","body":"Your table is booked."}"#;

/// Appends the call with this id, without a line end.
pub(crate) fn write_call(out: &mut Vec<u8>, id: u64, dialect: Dialect) {
    let meta = if dialect == Dialect::Modern { MODERN_META } else { "" };
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"comms_send_message","arguments":{ARGUMENTS}{meta}}}}}"#
    );
}

/// Appends the answer to the call with this id.
pub(crate) fn write_answer(out: &mut Vec<u8>, id: &[u8]) {
    out.extend_from_slice(ANSWER_START);
    out.extend_from_slice(id);
    out.extend_from_slice(ANSWER_END);
}

/// The id that this message answers; `None` unless it is byte for byte the answer to a small call.
pub(crate) fn answered_id(message: &[u8]) -> Option<u64> {
    let digits = message.strip_prefix(ANSWER_START)?.strip_suffix(ANSWER_END)?;
    if digits.is_empty() || digits.len() > 19 || (digits.len() > 1 && digits.first() == Some(&b'0')) {
        return None;
    }
    digits.iter().try_fold(0, |id: u64, digit| digit.is_ascii_digit().then(|| id * 10 + u64::from(digit - b'0')))
}

/// The line with which a client of the TCP door says who it is.
pub(crate) fn authenticate(token: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"authenticate\",\"params\":{{\"token\":\"{token}\"}}}}\n")
}

/// The line with which a session is opened.
pub(crate) fn initialize() -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{{\"protocolVersion\":\"{REVISION}\",\"capabilities\":{{}},\
         \"clientInfo\":{{\"name\":\"loadtest\",\"version\":\"0\"}}}}}}\n"
    )
}

/// The line with which the opening of a session ends; it has no answer.
pub(crate) const INITIALIZED: &str = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n";

/// Appends the answer to `initialize`.
pub(crate) fn write_initialized(out: &mut Vec<u8>, id: &[u8]) {
    out.extend_from_slice(ANSWER_START);
    out.extend_from_slice(id);
    let _ = write!(
        out,
        r#","result":{{"protocolVersion":"{REVISION}","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"loadtest","version":"0"}}}}}}"#
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: u64, dialect: Dialect) -> Vec<u8> {
        let mut out = Vec::new();
        write_call(&mut out, id, dialect);
        out
    }

    #[test]
    fn a_call_is_small_and_one_line() {
        let session = call(1_000_000, Dialect::Session);
        assert!((150..=170).contains(&session.len()), "{}", session.len());
        let modern = call(1_000_000, Dialect::Modern);
        assert!(modern.len() > session.len());
        for call in [session, modern] {
            assert!(!call.contains(&b'\n'));
            assert_eq!(call.iter().filter(|b| **b == b'{').count(), call.iter().filter(|b| **b == b'}').count());
        }
    }

    #[test]
    fn the_answer_and_nothing_else_is_taken_for_one() {
        let mut answer = Vec::new();
        write_answer(&mut answer, b"4711");
        assert_eq!(answered_id(&answer), Some(4711));
        let text = String::from_utf8(answer).unwrap_or_default();
        for wrong in [
            text.replace("4711", ""),
            text.replace("4711", "04711"),
            text.replace("4711", "-4711"),
            text.replace("4711", "\"4711\""),
            text.replace("4711", "47110000000000000000"),
            text.replace("queued", "quened"),
            text.replace("result", "error"),
            format!("{text} "),
            String::from_utf8(call(4711, Dialect::Session)).unwrap_or_default(),
        ] {
            assert_eq!(answered_id(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
