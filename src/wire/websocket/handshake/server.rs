//! The server's side of the upgrade (RFC 6455 §4.2).
//!
//! Browsers cannot set `Authorization` on a WebSocket. They can name subprotocols, so a token may come as the subprotocol
//! `bearer.TOKEN` beside `mcp`. Only `mcp` is ever echoed; the token leaves here as a [`Span`], and in no error.

use arrayvec::ArrayVec;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::super::http1::request::{Body, Method, RequestHead};
use super::super::super::http1::{Reject, Version, is_token_byte, span_in, trim_blanks, write};
use super::super::Span;
use super::{ACCEPT_LETTERS, KEY_LETTERS, VERSION, accept_of};

/// Most subprotocols of one offer. Ours are two; the bound keeps the search for equal ones short.
pub const MAX_SUBPROTOCOLS: usize = 16;

const MCP: &[u8] = b"mcp";
const BEARER: &[u8] = b"bearer.";

/// A valid request for an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade {
    accept: [u8; ACCEPT_LETTERS],
    /// Whether the subprotocol `mcp` was offered; [`write_switch`] then agrees to it.
    pub mcp: bool,
    /// The token of a subprotocol `bearer.TOKEN`, a span of the head's buffer. A secret.
    pub bearer: Option<Span>,
}

/// Reads a request that asks for an upgrade. Extensions that it offers are not looked at, which declines them
/// (RFC 6455 §9.1).
///
/// # Errors
/// [`Reject`]: 405, 426 or 400; its answer needs the fields of [`write_reject_fields`].
pub fn read_upgrade(head: &RequestHead, buf: &[u8]) -> Result<Upgrade, Reject> {
    if head.method != Method::Get {
        return Err(Reject { status: 405, reason: "a WebSocket is opened with GET" });
    }
    if head.version != Version::Http11 {
        return Err(bad("a WebSocket needs HTTP/1.1"));
    }
    if !head.upgrade_websocket {
        return Err(Reject { status: 426, reason: "Upgrade: websocket and Connection: Upgrade are required" });
    }
    // Behind the head frames begin: a body would be taken for them, or they for a body.
    if !matches!(head.body, Body::None | Body::Length(0)) {
        return Err(bad("request for an upgrade with a body"));
    }
    let (mut version, mut key, mut offer) = (None, None, Offer::default());
    for field in &head.fields {
        let (name, value) = (field.name.of(buf), field.value.of(buf));
        let is = |expected: &[u8]| name.eq_ignore_ascii_case(expected);
        match name.len() {
            17 if is(b"sec-websocket-key") => once(&mut key, value, "repeated Sec-WebSocket-Key")?,
            21 if is(b"sec-websocket-version") => once(&mut version, value, "repeated Sec-WebSocket-Version")?,
            22 if is(b"sec-websocket-protocol") => offer.add(value)?,
            _ => {}
        }
    }
    if version != Some(VERSION) {
        return Err(Reject { status: 426, reason: "Sec-WebSocket-Version is not 13" });
    }
    let key = key.filter(|key| is_key(key)).ok_or(bad("missing or invalid Sec-WebSocket-Key"))?;
    Ok(Upgrade { accept: accept_of(key), mcp: offer.mcp(), bearer: offer.bearer(buf)? })
}

/// Appends the answer 101 that agrees to `upgrade`; frames follow it.
pub fn write_switch(out: &mut Vec<u8>, upgrade: &Upgrade) {
    write::status_line(out, 101);
    write::field(out, "Upgrade", b"websocket");
    write::field(out, "Connection", b"Upgrade");
    write::field(out, "Sec-WebSocket-Accept", &upgrade.accept);
    if upgrade.mcp {
        write::field(out, "Sec-WebSocket-Protocol", MCP);
    }
    write::end_head(out);
}

/// Appends the fields without which the answer to `reject` is incomplete (RFC 6455 §4.4, RFC 9110 §15.5.6, §15.5.22).
pub fn write_reject_fields(out: &mut Vec<u8>, reject: Reject) {
    match reject.status {
        405 => write::field(out, "Allow", b"GET"),
        426 => {
            write::field(out, "Upgrade", b"websocket");
            write::field(out, "Sec-WebSocket-Version", VERSION);
        }
        _ => {}
    }
}

/// What the `Sec-WebSocket-Protocol` lines offer.
#[derive(Default)]
struct Offer<'b> {
    members: ArrayVec<&'b [u8], MAX_SUBPROTOCOLS>,
}

impl<'b> Offer<'b> {
    /// Takes in one line: tokens, none empty, all different (RFC 6455 §4.1, item 10).
    fn add(&mut self, value: &'b [u8]) -> Result<(), Reject> {
        for member in value.split(|byte| *byte == b',').map(trim_blanks) {
            if member.is_empty() || !member.iter().all(|byte| is_token_byte(*byte)) {
                return Err(bad("malformed Sec-WebSocket-Protocol"));
            }
            if self.members.contains(&member) {
                return Err(bad("repeated subprotocol"));
            }
            self.members.try_push(member).map_err(|_| bad("too many subprotocols"))?;
        }
        Ok(())
    }

    fn mcp(&self) -> bool {
        self.members.contains(&MCP)
    }

    /// The only token; two would be two answers to "who is it".
    fn bearer(&self, buf: &[u8]) -> Result<Option<Span>, Reject> {
        let mut tokens = self.members.iter().filter_map(|member| member.strip_prefix(BEARER));
        match (tokens.next(), tokens.next()) {
            (None, _) => Ok(None),
            (Some(b""), _) => Err(bad("empty bearer subprotocol")),
            (Some(token), None) => Ok(Some(span_in(buf, token))),
            (Some(_), Some(_)) => Err(bad("more than one bearer subprotocol")),
        }
    }
}

/// Whether `key` is 16 bytes in base64, written the one canonical way (RFC 6455 §4.2.1).
fn is_key(key: &[u8]) -> bool {
    let mut bytes = [0; KEY_LETTERS];
    key.len() == KEY_LETTERS && STANDARD.decode_slice(key, &mut bytes) == Ok(16)
}

fn once<'b>(slot: &mut Option<&'b [u8]>, value: &'b [u8], reason: &'static str) -> Result<(), Reject> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(bad(reason)),
    }
}

fn bad(reason: &'static str) -> Reject {
    Reject { status: 400, reason }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
