//! One event as one line: `[SECURITY] {json}`.
//!
//! Nothing that a client sends can end a line, end a string or drive a terminal: control characters (C0, DEL, C1), line
//! and paragraph separators and the bidirectional overrides are escaped beside what JSON asks for. Fields that are
//! empty are left out; their order is fixed.
//!
//! ## The chain
//! `seq` counts lines over all files and restarts. `prev` is the `mac` of the line before (64 zeros for the first ever),
//! and `mac` is HMAC-SHA-256, in hex, over this line's bytes from `{` up to the comma before `"mac"`. As those bytes contain
//! `prev`, each `mac` vouches for the line before as well, and so for all before it.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use std::io::Write;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::control::keys::Key;
use crate::state::events::Event;

/// What every line begins with.
pub const PREFIX: &str = "[SECURITY] ";
/// The longest line, newline included: every byte of every field escaped to six, and the fixed parts.
pub const MAX_LINE: usize = 6 * (4 * 64 + 128 + 64) + 512;
/// The `prev` of the very first line.
pub const GENESIS: [u8; 64] = [b'0'; 64];

/// Where the chain stands: what the next line continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainEnd {
    /// The last line's number; 0 when there is none.
    pub seq: u64,
    /// The last line's `mac`, in hex.
    pub mac: [u8; 64],
}

impl Default for ChainEnd {
    fn default() -> Self {
        Self { seq: 0, mac: GENESIS }
    }
}

/// Formats events and links them.
pub struct Formatter {
    end: ChainEnd,
    keyed: Hmac<Sha256>,
}

impl Formatter {
    /// Continues the chain at `end` under `key`.
    #[must_use]
    pub fn new(key: &Key, end: ChainEnd) -> Self {
        Self { end, keyed: keyed(key) }
    }

    /// Appends the event's line, newline included.
    pub fn append(&mut self, out: &mut Vec<u8>, event: &Event) {
        out.extend_from_slice(PREFIX.as_bytes());
        let start = out.len();
        self.end.seq += 1;
        write_fields(out, event, self.end.seq);
        out.extend_from_slice(b",\"prev\":\"");
        out.extend_from_slice(&self.end.mac);
        out.push(b'"');
        self.end.mac = hex_mac(&self.keyed, out.get(start..).unwrap_or_default());
        out.extend_from_slice(b",\"mac\":\"");
        out.extend_from_slice(&self.end.mac);
        out.extend_from_slice(b"\"}\n");
    }
}

/// The chain's state keyed once; cloned for each line. HMAC pads a key that is shorter than a block with zeros (RFC 2104, 2);
/// doing so here leaves no length to be wrong.
fn keyed(key: &Key) -> Hmac<Sha256> {
    let mut block = Zeroizing::new([0; 64]);
    for (to, from) in block.iter_mut().zip(key.expose()) {
        *to = *from;
    }
    let padded: &[u8; 64] = &block;
    Hmac::<Sha256>::new(padded.into())
}

fn hex_mac(keyed: &Hmac<Sha256>, body: &[u8]) -> [u8; 64] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut mac = keyed.clone();
    mac.update(body);
    let mut hex = [0; 64];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(mac.finalize().into_bytes()) {
        for (digit, value) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = DIGITS.get(usize::from(value)).copied().unwrap_or(b'0');
        }
    }
    hex
}

/// Reads where a line, without its newline, leaves the chain. `None` unless it is whole and its `mac` is right.
#[must_use]
pub fn chain_end_of(key: &Key, line: &[u8]) -> Option<ChainEnd> {
    #[derive(serde::Deserialize)]
    struct Tail {
        seq: u64,
        mac: String,
    }
    let json = line.strip_prefix(PREFIX.as_bytes())?;
    let tail: Tail = serde_json::from_slice(json).ok()?;
    let mac = <[u8; 64]>::try_from(tail.mac.as_bytes()).ok()?;
    // `,"mac":"` + 64 digits + `"}`.
    let body = json.get(..json.len().checked_sub(8 + 64 + 2)?)?;
    (hex_mac(&keyed(key), body) == mac).then_some(ChainEnd { seq: tail.seq, mac })
}

fn write_fields(out: &mut Vec<u8>, event: &Event, seq: u64) {
    // Writing into a Vec cannot fail.
    let at = i64::try_from(event.at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let _ = write!(out, "{{\"timestamp\":\"{:.3}\",\"seq\":{seq}", at.unwrap_or(Timestamp::MAX));
    field(out, "event", event.kind.wire_name());
    field(out, "severity", event.severity.wire_name());
    if let Some(ip) = event.ip {
        let _ = write!(out, ",\"ip\":\"{}\"", ip.to_canonical());
    }
    field(out, "clientId", &event.client);
    field(out, "agentId", &event.agent);
    field(out, "tool", &event.tool);
    field(out, "rule", event.rule);
    field(out, "requestId", &event.request_id);
    if let Some(call) = event.call {
        field(out, "outcome", call.outcome.wire_name());
        if call.status != 0 {
            let _ = write!(out, ",\"status\":{}", call.status);
        }
        let _ = write!(out, ",\"durationUs\":{}", call.duration_us);
    }
    field(out, "details", &event.details);
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    let _ = write!(out, ",\"{name}\":");
    push_json_string(out, value);
}

/// Appends `value` as a JSON string that is safe in a line-based log and on a terminal.
pub(crate) fn push_json_string(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    let mut utf8 = [0; 4];
    for c in value.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c if must_escape(c) => {
                // All of them lie in the basic plane: one unit each.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes()),
        }
    }
    out.push(b'"');
}

fn must_escape(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
