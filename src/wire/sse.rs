//! Server-sent events (WHATWG HTML §9.2), split without being rewritten.
//!
//! A gateway passes events on one by one: it must know where each ends, so that it can look at its message, count it, and
//! put comments between two of them; but the bytes that go out are the bytes that came in. So [`Splitter`] yields raw
//! events, blank line included, and [`read_event`] reads the fields of one.
//!
//! Lines end in LF, CRLF or CR. Where a CR ends an event and is the last byte there is, the event is yielded at once, and an
//! LF that turns out to belong to it is yielded by itself as soon as it comes. So nothing waits for an event to come: there
//! are clients that take a last CR for unfinished, and would never see the event before a pause.
//!
//! ```
//! use ringwall::wire::sse::{Splitter, read_event};
//!
//! let stream = b"event: message\ndata: {}\n\n: half a com";
//! let mut splitter = Splitter::new(1024);
//! let event = splitter.next_event(stream)?.unwrap();
//! assert_eq!(event.of(stream), b"event: message\ndata: {}\n\n");
//! assert_eq!(read_event(event.of(stream), &mut Vec::new()).data, Some(&b"{}"[..]));
//! assert_eq!(splitter.next_event(&stream[event.end as usize..])?, None);
//! assert!(!splitter.at_boundary());
//! # Ok::<(), ringwall::wire::sse::EventTooLong>(())
//! ```

use super::Span;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An event grew beyond its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event too long")]
pub struct EventTooLong;

/// Splits a stream into complete raw events.
#[derive(Clone, Debug)]
pub struct Splitter {
    max_bytes: usize,
    /// Bytes of the caller's buffer that have been looked at; they hold no end of an event.
    scanned: usize,
    /// Whether the last byte looked at was a CR, so that an LF now belongs to it.
    after_cr: bool,
    /// Whether the line that is being looked at has no byte yet.
    line_is_empty: bool,
    /// Whether the event that is being looked at has no byte yet.
    event_is_empty: bool,
    /// Whether the stream's first bytes, which may be a byte order mark, have been looked at.
    begun: bool,
    /// Length of the byte order mark in front of the first event.
    mark: usize,
}

impl Splitter {
    /// A splitter for events of at most `max_bytes` raw bytes, the blank line included.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Splitter {
            max_bytes,
            scanned: 0,
            after_cr: false,
            line_is_empty: true,
            event_is_empty: true,
            begun: false,
            mark: 0,
        }
    }

    /// Whether all that was seen so far are complete events: here, and only here, something else may be put into the stream.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.event_is_empty
    }

    /// The first complete event of `buf`, which holds all bytes that no earlier event has covered: the caller keeps what
    /// is not covered and appends what arrives. On `Some(span)` forward what it covers and take `span.end` bytes off the
    /// front. (`span.start` is not 0 only where the stream begins with a byte order mark.) Bytes are looked at once,
    /// however they arrive. An event may well be blank or consist of comments.
    ///
    /// # Errors
    /// [`EventTooLong`], as soon as it is certain.
    pub fn next_event(&mut self, buf: &[u8]) -> Result<Option<Span>, EventTooLong> {
        if !self.begun && !self.begin(buf) {
            return Ok(None);
        }
        loop {
            let rest = buf.get(self.scanned..).unwrap_or_default();
            let Some(first) = rest.first() else { break };
            match first {
                b'\n' if self.after_cr => {
                    self.after_cr = false;
                    self.scanned = self.scanned.saturating_add(1);
                    if self.event_is_empty {
                        return self.end_event().map(Some);
                    }
                }
                b'\n' | b'\r' => {
                    self.scanned = self.scanned.saturating_add(1);
                    self.after_cr = *first == b'\r';
                    self.event_is_empty = false;
                    if self.line_is_empty {
                        if self.after_cr && rest.get(1) == Some(&b'\n') {
                            self.scanned = self.scanned.saturating_add(1);
                            self.after_cr = false;
                        }
                        return self.end_event().map(Some);
                    }
                    self.line_is_empty = true;
                }
                _ => {
                    self.after_cr = false;
                    self.line_is_empty = false;
                    self.event_is_empty = false;
                    let line = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                    self.scanned = self.scanned.saturating_add(line);
                }
            }
        }
        if self.scanned.saturating_sub(self.mark) >= self.max_bytes { Err(EventTooLong) } else { Ok(None) }
    }

    /// Looks for a byte order mark; false while it cannot be told.
    fn begin(&mut self, buf: &[u8]) -> bool {
        if buf.starts_with(BYTE_ORDER_MARK) {
            self.mark = BYTE_ORDER_MARK.len();
            self.scanned = self.mark;
        } else if BYTE_ORDER_MARK.starts_with(buf) {
            // It may yet become one; what is held back counts as begun only where there is something.
            self.event_is_empty = buf.is_empty();
            return false;
        }
        self.event_is_empty = true;
        self.begun = true;
        true
    }

    fn end_event(&mut self) -> Result<Span, EventTooLong> {
        let span = Span::from_usize(self.mark, self.scanned);
        self.scanned = 0;
        self.mark = 0;
        self.event_is_empty = true;
        if span.len() as usize > self.max_bytes { Err(EventTooLong) } else { Ok(span) }
    }
}

/// The fields of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Event<'a> {
    /// The `data` lines, joined with LF; `None` when there is none (comments only): such an event is never dispatched.
    pub data: Option<&'a [u8]>,
    /// `event`; `None` or empty means `message`.
    pub event: Option<&'a [u8]>,
    /// `id`; an id with a NUL in it is ignored, as the standard says.
    pub id: Option<&'a [u8]>,
}

/// Reads the fields of a raw event. `scratch` is overwritten, and only when there is more than one `data` line.
pub fn read_event<'a>(raw: &'a [u8], scratch: &'a mut Vec<u8>) -> Event<'a> {
    let mut event = Event::default();
    let mut data_lines = 0usize;
    for (name, value) in fields(raw) {
        match name {
            b"data" => {
                data_lines = data_lines.saturating_add(1);
                event.data.get_or_insert(value);
            }
            b"event" => event.event = Some(value),
            b"id" if !value.contains(&0) => event.id = Some(value),
            _ => {}
        }
    }
    if data_lines > 1 {
        scratch.clear();
        for (name, value) in fields(raw) {
            if name == b"data" {
                scratch.extend_from_slice(value);
                scratch.push(b'\n');
            }
        }
        scratch.pop();
        event.data = Some(scratch);
    }
    event
}

/// Name and value of every line that has a name; comments have none.
fn fields(raw: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    // CRLF gives an empty line more than there is, and empty lines say nothing within one event.
    raw.split(|byte| matches!(byte, b'\n' | b'\r')).filter_map(|line| {
        let (name, value) = match memchr::memchr(b':', line) {
            Some(0) => return None,
            Some(colon) => (line.get(..colon)?, line.get(colon.saturating_add(1)..)?),
            None if line.is_empty() => return None,
            None => (line, &b""[..]),
        };
        Some((name, value.strip_prefix(b" ").unwrap_or(value)))
    })
}

#[cfg(test)]
#[path = "sse_tests.rs"]
mod tests;
