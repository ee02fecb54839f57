//! One event as one line: `[SECURITY] {json}`.
//!
//! Nothing that a client sends can end a line, end a string or drive a terminal: control characters (C0, DEL, C1), line
//! and paragraph separators and the bidirectional overrides are escaped beside what JSON asks for. Fields that are
//! empty are left out; their order is fixed. Addresses, numbers and e-mail addresses stand there as pseudonyms ([`super::pseudonym`]).
//!
//! ## The chain
//! `seq` counts lines over all files and restarts. `prev` is the `mac` of the line before (64 zeros for the first ever),
//! and `mac` is HMAC-SHA-256, in hex, over this line's bytes from `{` up to the comma before `"mac"`. As those bytes contain
//! `prev`, each `mac` vouches for the line before as well, and so for all before it.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use std::fmt::Write as _;
use std::io::Write as _;

use arrayvec::ArrayString;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::pseudonym::{Addresses, Pseudonyms, may_be_personal};
use crate::control::keys::Key;
use crate::state::events::Event;

/// The key file's name in `DATA_DIR`.
pub const KEY_FILE: &str = "audit.key";
/// What every line begins with.
pub const PREFIX: &str = "[SECURITY] ";
/// The longest line, newline included: of every field each byte escaped to six, or each few replaced by a pseudonym, and the fixed parts.
pub const MAX_LINE: usize = 7 * (4 * 64 + 128 + 64) + 640;
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
    pub fn new(key: &Key, end: ChainEnd, pseudonyms: Pseudonyms) -> Self {
        Self { end, keyed: keyed(key), clock: Clock::default(), addresses: Addresses::new(pseudonyms) }
    }

    /// Where the chain stands behind the last line that was appended.
    #[must_use]
    pub fn end(&self) -> &ChainEnd {
        &self.end
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

/// The chain's state keyed once; cloned for each line. HMAC pads a key that is shorter than a block with zeros (RFC 2104, 2);
/// doing so here leaves no length to be wrong.
pub(super) fn keyed(key: &Key) -> Hmac<Sha256> {
    let mut block = Zeroizing::new([0; 64]);
    for (to, from) in block.iter_mut().zip(key.expose()) {
        *to = *from;
    }
    let padded: &[u8; 64] = &block;
    Hmac::<Sha256>::new(padded.into())
}

pub(super) fn hex_mac(keyed: &Hmac<Sha256>, body: &[u8]) -> [u8; 64] {
    let mut mac = keyed.clone();
    mac.update(body);
    let mut hex = [0; 64];
    for (pair, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(mac.finalize().into_bytes()) {
        *pair = HEX.get(usize::from(byte)).copied().unwrap_or_default();
    }
    hex
}

/// The parts of a line that make it a link of the chain.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// Its number.
    pub seq: u64,
    /// The `mac` of the line before it, as it says.
    pub prev: &'a [u8; 64],
    /// Its own.
    pub mac: &'a [u8; 64],
    /// Whether it is a line of the trail about itself.
    pub is_mark: bool,
    /// What `mac` is over.
    body: &'a [u8],
}

/// Behind `prev`'s digits and before those of `mac`, and behind these.
const BEFORE_MAC: &[u8] = b"\",\"mac\":\"";
/// Behind the number of a line of the trail about itself.
const MARK: &[u8] = b",\"event\":\"checkpoint\"";
/// Before the digits of `prev`.
const BEFORE_PREV: &[u8] = b",\"prev\":\"";

impl<'a> Link<'a> {
    /// Of a line without its newline. `None` unless it has the form that [`Formatter`] gives lines, byte by byte where links are; whether its
    /// `mac` is right is not asked.
    #[must_use]
    pub fn of(line: &'a [u8]) -> Option<Self> {
        let json = line.strip_prefix(PREFIX.as_bytes())?;
        let (rest, mac) = json.strip_suffix(b"\"}")?.split_last_chunk::<64>()?;
        let rest = rest.strip_suffix(BEFORE_MAC)?;
        let body = json.get(..rest.len() + 1)?;
        let (rest, prev) = rest.split_last_chunk::<64>()?;
        rest.strip_suffix(BEFORE_PREV)?;
        // A timestamp has 24 characters from year 0 to 9999.
        let numbered = json.get(b"{\"timestamp\":\"".len() + 24..)?.strip_prefix(b"\",\"seq\":")?;
        let digits = numbered.split(|byte| !byte.is_ascii_digit()).next()?;
        let mut seq = 0_u64;
        for digit in digits {
            seq = seq.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        }
        let is_mark = numbered.get(digits.len()..)?.starts_with(MARK);
        Some(Self { seq, prev, mac, is_mark, body })
    }

    /// Whether the line is as it was written under this key.
    #[must_use]
    pub(super) fn is_right(&self, keyed: &Hmac<Sha256>) -> bool {
        hex_mac(keyed, self.body) == *self.mac
    }

    /// What its `mac` is over.
    pub(super) fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Where the line leaves the chain.
    #[must_use]
    pub fn end(&self) -> ChainEnd {
        ChainEnd { seq: self.seq, mac: *self.mac }
    }
}

/// Reads where a line, without its newline, leaves the chain. `None` unless it is whole and its `mac` is right.
#[must_use]
pub fn chain_end_of(key: &Key, line: &[u8]) -> Option<ChainEnd> {
    Link::of(line).filter(|link| link.is_right(&keyed(key))).map(|link| link.end())
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
        out.extend_from_slice(addresses.pseudonym(ip.to_canonical()).as_bytes());
        out.push(b'"');
    }
    if let Some(client) = event.client {
        out.extend_from_slice(b",\"clientId\":\"");
        out.extend_from_slice(client.door.name().as_bytes());
        out.push(b'-');
        push_hex(out, client.id.bits());
        out.push(b'"');
    }
    let pseudonyms = addresses.pseudonyms();
    field(out, b",\"agentId\":", &event.agent, pseudonyms);
    field(out, b",\"tool\":", &event.tool, pseudonyms);
    field(out, b",\"rule\":", event.rule, pseudonyms);
    field(out, b",\"requestId\":", &event.request_id, pseudonyms);
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
    field(out, b",\"details\":", &event.details, pseudonyms);
}

fn field(out: &mut Vec<u8>, name: &[u8], value: &str, pseudonyms: &Pseudonyms) {
    if value.is_empty() {
        return;
    }
    out.extend_from_slice(name);
    // Most texts hold nothing that has to be looked at twice.
    if value.bytes().any(may_be_personal) {
        push_json_string(out, &pseudonyms.replaced(value));
    } else {
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

/// Whether a character can drive a terminal, end a line for somebody, or turn its direction.
pub(crate) fn must_escape(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
