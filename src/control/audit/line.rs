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

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;

use arrayvec::ArrayString;
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

/// The last millisecond that a timestamp can say: 9999-12-30T22:00:00.999Z.
const LAST_MS: u64 = 253_402_207_200_999;

/// A byte in hexadecimal.
#[allow(clippy::indexing_slicing, reason = "computed by the compiler, with every index below the length")]
const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    table
};

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
    clock: Clock,
    addresses: Addresses,
}

impl Formatter {
    /// Continues the chain at `end` under `key`.
    #[must_use]
    pub fn new(key: &Key, end: ChainEnd) -> Self {
        Self { end, keyed: keyed(key), clock: Clock::default(), addresses: Addresses::default() }
    }

    /// Appends the event's line, newline included.
    pub fn append(&mut self, out: &mut Vec<u8>, event: &Event) {
        out.reserve(MAX_LINE);
        out.extend_from_slice(PREFIX.as_bytes());
        let start = out.len();
        self.end.seq += 1;
        out.extend_from_slice(b"{\"timestamp\":\"");
        self.clock.write(out, event.at_ms);
        out.extend_from_slice(b"\",\"seq\":");
        push_number(out, self.end.seq);
        write_fields(out, event, &mut self.addresses);
        out.extend_from_slice(b",\"prev\":\"");
        out.extend_from_slice(&self.end.mac);
        out.push(b'"');
        self.end.mac = hex_mac(&self.keyed, out.get(start..).unwrap_or_default());
        out.extend_from_slice(b",\"mac\":\"");
        out.extend_from_slice(&self.end.mac);
        out.extend_from_slice(b"\"}\n");
    }
}

/// Writes timestamps. Keeps the text of the last second: most lines have the second of the line before.
#[derive(Default)]
struct Clock {
    second: Option<u64>,
    /// `YYYY-MM-DDTHH:MM:SS`, longer only for years that have more digits.
    text: ArrayString<32>,
}

impl Clock {
    fn write(&mut self, out: &mut Vec<u8>, at_ms: u64) {
        // What lies beyond the calendar becomes its end.
        let at_ms = at_ms.min(LAST_MS);
        let (second, ms) = (at_ms / 1000, at_ms % 1000);
        if self.second != Some(second) {
            let at = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
            self.text.clear();
            let _ = write!(self.text, "{:.0}", at.unwrap_or(Timestamp::MAX));
            // The fraction stands before the `Z`.
            self.text.pop();
            self.second = Some(second);
        }
        out.extend_from_slice(self.text.as_bytes());
        out.push(b'.');
        for unit in [100, 10, 1] {
            out.push(digit(ms / unit % 10));
        }
        out.push(b'Z');
    }
}

/// Writes addresses. Keeps the text of the last one: a client that sends much stands in many lines one after the other.
#[derive(Default)]
struct Addresses {
    ip: Option<IpAddr>,
    /// An IPv6 address has at most 45 characters.
    text: ArrayString<48>,
}

impl Addresses {
    fn write(&mut self, out: &mut Vec<u8>, ip: IpAddr) {
        if self.ip != Some(ip) {
            self.text.clear();
            let _ = write!(self.text, "{ip}");
            self.ip = Some(ip);
        }
        out.extend_from_slice(self.text.as_bytes());
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
    let mut mac = keyed.clone();
    mac.update(body);
    let mut hex = [0; 64];
    for (pair, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(mac.finalize().into_bytes()) {
        *pair = HEX.get(usize::from(byte)).copied().unwrap_or_default();
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

fn write_fields(out: &mut Vec<u8>, event: &Event, addresses: &mut Addresses) {
    // Our own names hold nothing that would have to be escaped.
    out.extend_from_slice(b",\"event\":\"");
    out.extend_from_slice(event.kind.wire_name().as_bytes());
    out.extend_from_slice(b"\",\"severity\":\"");
    out.extend_from_slice(event.severity.wire_name().as_bytes());
    out.push(b'"');
    if let Some(ip) = event.ip {
        out.extend_from_slice(b",\"ip\":\"");
        addresses.write(out, ip.to_canonical());
        out.push(b'"');
    }
    if let Some(client) = event.client {
        out.extend_from_slice(b",\"clientId\":\"");
        out.extend_from_slice(client.door.name().as_bytes());
        out.push(b'-');
        push_hex(out, client.id.bits());
        out.push(b'"');
    }
    field(out, b",\"agentId\":", &event.agent);
    field(out, b",\"tool\":", &event.tool);
    field(out, b",\"rule\":", event.rule);
    field(out, b",\"requestId\":", &event.request_id);
    if let Some(call) = event.call {
        out.extend_from_slice(b",\"outcome\":\"");
        out.extend_from_slice(call.outcome.wire_name().as_bytes());
        out.push(b'"');
        if call.status != 0 {
            out.extend_from_slice(b",\"status\":");
            push_number(out, call.status.into());
        }
        out.extend_from_slice(b",\"durationUs\":");
        push_number(out, call.duration_us);
    }
    field(out, b",\"details\":", &event.details);
}

fn field(out: &mut Vec<u8>, name: &[u8], value: &str) {
    if !value.is_empty() {
        out.extend_from_slice(name);
        push_json_string(out, value);
    }
}

fn digit(value: u64) -> u8 {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    DIGITS.get((value & 15) as usize).copied().unwrap_or_default()
}

/// Appends a number in base 10.
fn push_number(out: &mut Vec<u8>, mut value: u64) {
    // A `u64` has at most 20 digits.
    let mut digits = [0; 20];
    let mut first = digits.len();
    for place in digits.iter_mut().rev() {
        *place = digit(value % 10);
        first -= 1;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(first..).unwrap_or_default());
}

fn push_hex(out: &mut Vec<u8>, value: u64) {
    let nibbles = (64 - value.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..nibbles).rev().map(|at| digit(value >> (4 * at))));
}

/// Appends `value` as a JSON string that is safe in a line-based log and on a terminal.
pub(crate) fn push_json_string(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    // Most texts are plain to their end.
    let plain = value.bytes().position(|byte| !is_plain(byte)).unwrap_or(value.len());
    let (plain, rest) = value.split_at_checked(plain).unwrap_or(("", value));
    out.extend_from_slice(plain.as_bytes());
    let mut utf8 = [0; 4];
    for c in rest.chars() {
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

/// Whether the byte is a character by itself that stands in a JSON string as it is.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

fn must_escape(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
