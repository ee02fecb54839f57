//! The client's side of the upgrade (RFC 6455 §4.1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::super::http1::response::{BadUpstream, ResponseHead, parse_switch};
use super::super::super::http1::{Progress, Version, list_members, write};
use super::{ACCEPT_LETTERS, KEY_LETTERS, VERSION, accept_of};

/// Why an upstream's answer opens no WebSocket. The connection is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSwitched {
    /// The answer is not HTTP as we read it.
    #[error("{0}")]
    Http(#[from] BadUpstream),
    /// The upstream answered with this status instead of 101.
    #[error("upgrade answered with status {0}")]
    Status(u16),
    /// 101 in HTTP/1.0, which knows no upgrade (RFC 9110 §7.8).
    #[error("upgrade in HTTP/1.0")]
    Version,
    /// `Upgrade` is missing, repeated, or not `websocket`.
    #[error("Upgrade of the answer is not websocket")]
    Upgrade,
    /// `Connection` does not name `Upgrade`.
    #[error("Connection of the answer does not name Upgrade")]
    Connection,
    /// `Sec-WebSocket-Accept` is missing, repeated, or not that of our key.
    #[error("wrong Sec-WebSocket-Accept")]
    Accept,
    /// An extension that we did not offer: we offer none.
    #[error("extension that was not offered")]
    Extension,
    /// A subprotocol that we did not offer, or several.
    #[error("subprotocol that was not offered")]
    Subprotocol,
}

/// A request for an upgrade.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// `Host`: host, and port unless it is the scheme's.
    pub authority: &'a [u8],
    /// Path and query.
    pub target: &'a [u8],
    /// 16 random bytes, new for each connection (RFC 6455 §4.1, item 7).
    pub nonce: [u8; 16],
    /// The one subprotocol that is offered.
    pub subprotocol: Option<&'a str>,
    /// More field lines, each with its CRLF, well formed.
    pub extra_lines: &'a [u8],
}

impl Ask<'_> {
    /// Appends the request.
    pub fn write(&self, out: &mut Vec<u8>) {
        write::request_line(out, b"GET", self.target);
        write::field(out, "Host", self.authority);
        write::field(out, "Upgrade", b"websocket");
        write::field(out, "Connection", b"Upgrade");
        write::field(out, "Sec-WebSocket-Key", &self.key());
        write::field(out, "Sec-WebSocket-Version", VERSION);
        if let Some(subprotocol) = self.subprotocol {
            write::field(out, "Sec-WebSocket-Protocol", subprotocol.as_bytes());
        }
        out.extend_from_slice(self.extra_lines);
        write::end_head(out);
    }

    /// Reads the answer that `buf` starts with. `from` is how much of `buf` an earlier call has already seen. After
    /// [`Progress::Complete`] the connection is a WebSocket, and frames stand behind `head.len`.
    ///
    /// # Errors
    /// [`NotSwitched`]; with `Status` the head is as it was received.
    pub fn read_answer(&self, buf: &[u8], from: usize, head: &mut ResponseHead) -> Result<Progress, NotSwitched> {
        if parse_switch(buf, from, head)? == Progress::Partial {
            return Ok(Progress::Partial);
        }
        if head.status != 101 {
            return Err(NotSwitched::Status(head.status));
        }
        if head.version != Version::Http11 {
            return Err(NotSwitched::Version);
        }
        let values = |name: &'static [u8]| head.values(buf, name);
        let one = |name: &'static [u8]| {
            let mut lines = values(name);
            lines.next().filter(|_| lines.next().is_none())
        };
        if !one(b"upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket")) {
            return Err(NotSwitched::Upgrade);
        }
        if !values(b"connection").flat_map(list_members).any(|option| option.eq_ignore_ascii_case(b"upgrade")) {
            return Err(NotSwitched::Connection);
        }
        if one(b"sec-websocket-accept") != Some(&self.expected()[..]) {
            return Err(NotSwitched::Accept);
        }
        if values(b"sec-websocket-extensions").next().is_some() {
            return Err(NotSwitched::Extension);
        }
        // None at all is an answer too: the server speaks without one.
        let agreed = values(b"sec-websocket-protocol").next().is_some();
        if agreed
            && (self.subprotocol.is_none() || one(b"sec-websocket-protocol") != self.subprotocol.map(str::as_bytes))
        {
            return Err(NotSwitched::Subprotocol);
        }
        Ok(Progress::Complete)
    }

    fn key(&self) -> [u8; KEY_LETTERS] {
        let mut letters = [0; KEY_LETTERS];
        // 16 bytes are 24 letters.
        let _ = STANDARD.encode_slice(self.nonce, &mut letters);
        letters
    }

    fn expected(&self) -> [u8; ACCEPT_LETTERS] {
        accept_of(&self.key())
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
