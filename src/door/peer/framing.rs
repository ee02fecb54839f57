//! How one JSON-RPC message stands on the wire of a door.

use crate::wire::http1::write;

/// The framing of a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// One message a line.
    Lines,
    /// One message an event of a chunked event stream.
    Events,
}

impl Framing {
    /// Appends one message of `len` bytes, which `body` appends.
    pub(super) fn put(self, out: &mut Vec<u8>, len: usize, body: impl FnOnce(&mut Vec<u8>)) {
        match self {
            Self::Lines => {
                out.reserve(len.saturating_add(1));
                let start = out.len();
                body(out);
                unbreak(out, start);
                out.push(b'\n');
            }
            Self::Events => {
                const HEAD: &[u8] = b"event: message\ndata: ";
                write::chunk_head(out, HEAD.len().saturating_add(len).saturating_add(2));
                out.extend_from_slice(HEAD);
                let start = out.len();
                body(out);
                unbreak(out, start);
                out.extend_from_slice(b"\n\n\r\n");
            }
        }
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
    }
}
