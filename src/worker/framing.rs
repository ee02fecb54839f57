//! How one JSON-RPC message stands on a wire.

use crate::wire::http1::write;
use crate::wire::websocket::{self, MaskingKey, Opcode};

/// A framing. Not `Copy`: that of a WebSocket client hands out masking keys.
#[derive(Debug)]
pub(crate) enum Framing {
    /// One message a line.
    Lines,
    /// One message an event of a chunked event stream.
    Events,
    /// One message an event of a stream that ends with its connection (HTTP/1.0 has no chunks).
    EventsUntilClose,
    /// One message a text frame, as a server sends them (RFC 6455).
    WebSocketServer,
    /// One message a masked text frame, as a client sends them.
    WebSocketClient(Box<Keys>),
}

impl Framing {
    /// Appends one message of `len` bytes, which `body` appends.
    pub(crate) fn put(&mut self, out: &mut Vec<u8>, len: usize, body: impl FnOnce(&mut Vec<u8>)) {
        match self {
            Self::Lines => {
                out.reserve(len.saturating_add(1));
                let start = out.len();
                body(out);
                unbreak(out, start);
                out.push(b'\n');
            }
            Self::Events => {
                write::chunk_head(out, EVENT_HEAD.len().saturating_add(len).saturating_add(EVENT_END.len()));
                event(out, body);
                out.extend_from_slice(b"\r\n");
            }
            Self::EventsUntilClose => {
                out.reserve(EVENT_HEAD.len().saturating_add(len).saturating_add(EVENT_END.len()));
                event(out, body);
            }
            Self::WebSocketServer => {
                out.reserve(len.saturating_add(websocket::MAX_HEADER_BYTES));
                websocket::write::header(out, Opcode::Text, true, len as u64, None);
                body(out);
            }
            Self::WebSocketClient(keys) => {
                let key = keys.next();
                out.reserve(len.saturating_add(websocket::MAX_HEADER_BYTES));
                websocket::write::header(out, Opcode::Text, true, len as u64, Some(key));
                let start = out.len();
                body(out);
                websocket::mask(out.get_mut(start..).unwrap_or_default(), key);
            }
        }
    }
}

/// Before a message in an event, and after it.
const EVENT_HEAD: &[u8] = b"event: message\ndata: ";
const EVENT_END: &[u8] = b"\n\n";

fn event(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(EVENT_HEAD);
    let start = out.len();
    body(out);
    unbreak(out, start);
    out.extend_from_slice(EVENT_END);
}

/// Masking keys, which must not be foreseeable (RFC 6455 §5.3): drawn from the system, many at a time.
#[derive(Debug)]
pub(crate) struct Keys {
    drawn: Box<[u8]>,
    at: usize,
}

impl Keys {
    const DRAWN_BYTES: usize = 256;

    /// None drawn yet.
    pub(crate) fn new() -> Self {
        Self { drawn: Box::default(), at: 0 }
    }

    /// A key for one frame, where frames are few.
    pub(crate) fn one() -> MaskingKey {
        let mut key = [0; 4];
        // Without random bytes the upstream is still spoken to, as below.
        let _ = getrandom::fill(&mut key);
        key
    }

    /// A key that was not used before.
    pub(crate) fn next(&mut self) -> MaskingKey {
        if self.at >= self.drawn.len() {
            self.drawn = vec![0; Self::DRAWN_BYTES].into_boxed_slice();
            self.at = 0;
            if getrandom::fill(&mut self.drawn).is_err() {
                // Masking protects intermediaries from scripts in browsers, of which we are none; an upstream is still spoken to.
                tracing::warn!("no random bytes from the system for WebSocket masking keys");
            }
        }
        let key = self.drawn.get(self.at..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
        self.at = self.at.saturating_add(4);
        key
    }
}

/// A valid JSON text has no raw line break inside a string: between tokens a blank says the same, and ends no line.
fn unbreak(out: &mut [u8], start: usize) {
    let Some(message) = out.get_mut(start..) else { return };
    if memchr::memchr2(b'\n', b'\r', message).is_some() {
        message.iter_mut().filter(|byte| matches!(**byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_one_message_whatever_blanks_it_has() {
        let message = b"{\"id\":1,\r\n \"result\":{}}";
        let mut out = Vec::new();
        Framing::Lines.put(&mut out, message.len(), |out| out.extend_from_slice(message));
        assert_eq!(out, b"{\"id\":1,   \"result\":{}}\n");
        out.clear();
        Framing::Events.put(&mut out, message.len(), |out| out.extend_from_slice(message));
        let expected = "2e\r\nevent: message\ndata: {\"id\":1,   \"result\":{}}\n\n\r\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
        out.clear();
        Framing::EventsUntilClose.put(&mut out, message.len(), |out| out.extend_from_slice(message));
        assert_eq!(String::from_utf8_lossy(&out), "event: message\ndata: {\"id\":1,   \"result\":{}}\n\n");
    }
}
