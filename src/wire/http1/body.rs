//! Bodies (RFC 9112 §6–§7), decoded in place as they arrive.
//!
//! [`BodyDecoder`] is given what was received and answers with ranges of it that are body; size lines, chunk extensions
//! and trailers are checked and left out. The chunked coding is read by its grammar and nothing more: no blank before or
//! behind a size, no bare LF or CR, extensions well formed and short (RFC 9112 §7.1.1 has us ignore, not refuse, those we
//! do not know), no trailer that would change what the head said. A decoder has a bound on what it decodes.
//!
//! ```
//! use ringwall::wire::http1::body::{BodyDecoder, Framing};
//!
//! let mut body = BodyDecoder::new(Framing::Chunked, 1024)?;
//! let received = b"5\r\nhello\r\n0\r\n\r\n";
//! let first = body.decode(received)?;
//! assert_eq!(first.data.of(received), b"hello");
//! let last = body.decode(&received[first.consumed..])?;
//! assert!(last.done && last.data.is_empty());
//! # Ok::<(), ringwall::wire::http1::body::BodyError>(())
//! ```

use arrayvec::ArrayVec;

use super::head::{imitates, is_token_byte};
use super::{Reject, Span};

/// Most bytes of all chunk extensions of one body: enough for signatures, too little to be worth sending.
pub const MAX_EXTENSION_BYTES: u32 = 4096;

/// Most bytes of the trailer section of one body.
pub const MAX_TRAILER_BYTES: u32 = 4096;

/// Longest trailer name that is compared with [`FORBIDDEN_TRAILERS`]; each of those is shorter.
const TRAILER_NAME_BYTES: usize = 32;

/// Fields that no trailer may carry: framing, routing, authentication, and what the gateway decides by (RFC 9110 §6.5.1).
const FORBIDDEN_TRAILERS: [&[u8]; 18] = [
    b"authorization",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-type",
    b"cookie",
    b"expect",
    b"host",
    b"keep-alive",
    b"mcp-method",
    b"mcp-name",
    b"mcp-protocol-version",
    b"mcp-session-id",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];

/// How the end of a body is found (RFC 9112 §6.3), requests and responses alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// This many bytes; may be 0.
    Length(u64),
    /// Chunks until the one of size 0.
    Chunked,
    /// All bytes until the peer closes (responses only).
    UntilClose,
}

/// What is wrong with a body. Turns into a [`Reject`] (400 or 413) or a `BadUpstream`, by who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The framing is broken; the text says where.
    #[error("{0}")]
    Malformed(&'static str),
    /// More decoded bytes than allowed.
    #[error("body too large")]
    TooLarge,
}

impl From<BodyError> for Reject {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Malformed(reason) => Reject { status: 400, reason },
            BodyError::TooLarge => Reject { status: 413, reason: "body too large" },
        }
    }
}

/// One step of decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of `input` that are dealt with. With 0 (and not done) more input is needed.
    pub consumed: usize,
    /// Body bytes, a range of `input`; may be empty.
    pub data: Span,
    /// Whether the body ends behind `consumed`.
    pub done: bool,
}

/// Incremental decoder of one body, in place.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    /// Decoded bytes that are still allowed.
    allowance: u64,
    extension_bytes: u32,
    trailer_bytes: u32,
    /// The name of the trailer that is being read; cut off at its capacity.
    trailer: ArrayVec<u8, TRAILER_NAME_BYTES>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of a body of known length are missing.
    Length(u64),
    UntilClose,
    Size {
        digits: u8,
        size: u64,
    },
    Extension {
        part: Extension,
        size: u64,
    },
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

/// Where in a chunk extension the decoder is: `*( ";" token [ "=" ( token / quoted-string ) ] )`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    NameStart,
    Name,
    ValueStart,
    Value,
    Quoted,
    Escaped,
    QuotedEnd,
}

impl BodyDecoder {
    /// A decoder for at most `max_bytes` decoded bytes.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] when the announced length is already more.
    pub fn new(framing: Framing, max_bytes: u64) -> Result<Self, BodyError> {
        let state = match framing {
            Framing::Length(length) if length > max_bytes => return Err(BodyError::TooLarge),
            Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { digits: 0, size: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Ok(BodyDecoder { state, allowance: max_bytes, extension_bytes: 0, trailer_bytes: 0, trailer: ArrayVec::new() })
    }

    /// Whether the body is complete (at once for a length of 0).
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Tells the decoder that the peer has closed, which is how a body without a length ends.
    ///
    /// # Errors
    /// [`BodyError::Malformed`] when the body was not complete: a truncated message is never passed on as a whole one.
    pub fn finish(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(BodyError::Malformed("body cut short")),
        }
    }

    /// Decodes what `input` starts with, up to the end of one run of body bytes. Call again with what lies behind
    /// `consumed` until `done`, or until nothing is consumed, which means that more input is needed.
    ///
    /// # Errors
    /// [`BodyError`]; the connection is of no further use.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        let mut consumed = 0usize;
        loop {
            match self.state {
                State::Length(missing) | State::Data(missing) => {
                    let rest = input.len().saturating_sub(consumed);
                    let taken = usize::try_from(missing).unwrap_or(usize::MAX).min(rest);
                    let left = missing.saturating_sub(taken as u64);
                    self.state = match (self.state, left) {
                        (State::Length(_), 0) => State::Done,
                        (State::Length(_), left) => State::Length(left),
                        (_, 0) => State::DataCr,
                        (_, left) => State::Data(left),
                    };
                    return Ok(self.step(consumed, taken));
                }
                State::UntilClose => {
                    self.allow(input.len() as u64)?;
                    return Ok(self.step(consumed, input.len()));
                }
                State::Done => return Ok(self.step(consumed, 0)),
                _ => {
                    let Some(byte) = input.get(consumed) else {
                        return Ok(self.step(consumed, 0));
                    };
                    self.state = self.advance(*byte)?;
                    consumed = consumed.saturating_add(1);
                }
            }
        }
    }

    fn step(&self, framing_bytes: usize, data_bytes: usize) -> Step {
        let consumed = framing_bytes.saturating_add(data_bytes);
        Step { consumed, data: Span::from_usize(framing_bytes, consumed), done: self.is_done() }
    }

    fn allow(&mut self, bytes: u64) -> Result<(), BodyError> {
        self.allowance = self.allowance.checked_sub(bytes).ok_or(BodyError::TooLarge)?;
        Ok(())
    }

    /// The state behind one byte of chunked framing.
    fn advance(&mut self, byte: u8) -> Result<State, BodyError> {
        match self.state {
            State::Size { digits, size } => match hex_digit(byte) {
                Some(_) if digits >= 16 => malformed("chunk size too long"),
                Some(digit) => Ok(State::Size { digits: digits.saturating_add(1), size: size << 4 | u64::from(digit) }),
                None if digits == 0 => malformed("missing chunk size"),
                None if byte == b'\r' => Ok(State::SizeLf(size)),
                None if byte == b';' => self.extension(Extension::NameStart, byte, size),
                None => malformed("invalid byte in chunk size"),
            },
            State::Extension { part, size } => self.extension(part, byte, size),
            State::SizeLf(size) => match (byte, size) {
                (b'\n', 0) => Ok(State::TrailerStart),
                (b'\n', size) => self.allow(size).map(|()| State::Data(size)),
                _ => malformed("chunk size line does not end in CRLF"),
            },
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => Ok(State::Size { digits: 0, size: 0 }),
            State::DataCr | State::DataLf => malformed("chunk data is not followed by CRLF"),
            _ => self.trailer(byte),
        }
    }

    /// One byte of a chunk extension, or the `;` that starts one.
    fn extension(&mut self, part: Extension, byte: u8, size: u64) -> Result<State, BodyError> {
        self.extension_bytes = self.extension_bytes.saturating_add(1);
        if self.extension_bytes > MAX_EXTENSION_BYTES {
            return malformed("chunk extensions too long");
        }
        let started = matches!(self.state, State::Extension { .. });
        let part = match (part, byte) {
            (_, b';') if !started => Extension::NameStart,
            (Extension::NameStart | Extension::Name, _) if is_token_byte(byte) => Extension::Name,
            (Extension::Name, b'=') => Extension::ValueStart,
            (Extension::ValueStart, b'"') => Extension::Quoted,
            (Extension::ValueStart | Extension::Value, _) if is_token_byte(byte) => Extension::Value,
            (Extension::Quoted, b'"') => Extension::QuotedEnd,
            (Extension::Quoted, b'\\') => Extension::Escaped,
            (Extension::Quoted | Extension::Escaped, b'\t' | b' '..=b'~' | 0x80..) => Extension::Quoted,
            (Extension::Name | Extension::Value | Extension::QuotedEnd, b';') => Extension::NameStart,
            (Extension::Name | Extension::Value | Extension::QuotedEnd, b'\r') => {
                return Ok(State::SizeLf(size));
            }
            _ => return malformed("invalid chunk extension"),
        };
        Ok(State::Extension { part, size })
    }

    /// One byte of the trailer section.
    fn trailer(&mut self, byte: u8) -> Result<State, BodyError> {
        self.trailer_bytes = self.trailer_bytes.saturating_add(1);
        if self.trailer_bytes > MAX_TRAILER_BYTES {
            return malformed("trailer section too large");
        }
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::TrailerStart, _) if is_token_byte(byte) => {
                self.trailer.clear();
                self.trailer.push(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') if self.is_forbidden() => malformed("forbidden trailer field"),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerName, _) if is_token_byte(byte) => {
                // A name that does not fit is none of the forbidden ones; one byte more than those keeps it so.
                let _ = self.trailer.try_push(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            _ => malformed("invalid trailer section"),
        }
    }

    fn is_forbidden(&self) -> bool {
        FORBIDDEN_TRAILERS.iter().any(|name| imitates(&self.trailer, name))
    }
}

fn malformed<T>(reason: &'static str) -> Result<T, BodyError> {
    Err(BodyError::Malformed(reason))
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
