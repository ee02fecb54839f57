//! [`Malformed`]: why a message was refused, and what the refusal may say.
//!
//! The text names what and where, as a JSON pointer of the object or member concerned and a byte offset, and never a value: it
//! goes to logs and back to clients.

use super::bounds::MAX_POINTER_BYTES;
use super::envelope::Id;
use arrayvec::ArrayString;
use std::fmt;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// No byte but whitespace.
    Empty,
    /// Begins with a byte order mark.
    ByteOrderMark,
    /// Not UTF-8.
    Utf8,
    /// Not JSON.
    Syntax,
    /// JSON, and then more.
    TrailingBytes,
    /// Nested deeper than this.
    TooDeep {
        /// `MAX_JSON_DEPTH`.
        max: u32,
    },
    /// An array where one message is expected.
    Batch,
    /// A batch where the revision knows none, or a message that is no array where a batch is expected.
    NotBatch,
    /// A batch without members.
    EmptyBatch,
    /// A batch of too many members.
    LargeBatch,
    /// Neither an object nor an array.
    NotObject,
    /// A key that stands twice in one object.
    DuplicateKey,
    /// A key that differs from one of the protocol's own only in case, which some parsers take for the same.
    Lookalike,
    /// `jsonrpc` is not there or not `"2.0"`.
    JsonRpc,
    /// The id is no string and no integer, or null where it must not be.
    IdType,
    /// The id is too long.
    IdTooLong,
    /// A response without an id.
    NoId,
    /// `method` is no string, or empty.
    MethodType,
    /// `method` is too long.
    MethodTooLong,
    /// Neither a method nor a result nor an error.
    NoMethod,
    /// Both a request and a response.
    RequestAndResponse,
    /// Both a result and an error.
    ResultAndError,
    /// `error` is no object with an integer code and a string message.
    ErrorShape,
    /// The member at the pointer must be there and be a string.
    NotString,
    /// The member at the pointer must be an object.
    NotAnObject,
    /// The member at the pointer must be a string or a number.
    NotStringOrNumber,
}

impl Fault {
    /// The JSON-RPC error code: -32700 where no JSON could be read, -32602 for members of `params`, else -32600.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Empty
            | Self::ByteOrderMark
            | Self::Utf8
            | Self::Syntax
            | Self::TrailingBytes
            | Self::TooDeep { .. } => -32700,
            Self::NotString | Self::NotAnObject | Self::NotStringOrNumber => -32602,
            _ => -32600,
        }
    }

    /// A short stable name for metrics and audit.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::ByteOrderMark => "byte-order-mark",
            Self::Utf8 => "utf-8",
            Self::Syntax => "json-syntax",
            Self::TrailingBytes => "trailing-bytes",
            Self::TooDeep { .. } => "json-depth",
            Self::Batch => "batch",
            Self::NotBatch => "not-a-batch",
            Self::EmptyBatch => "empty-batch",
            Self::LargeBatch => "large-batch",
            Self::NotObject => "not-an-object",
            Self::DuplicateKey => "duplicate-key",
            Self::Lookalike => "lookalike-key",
            Self::JsonRpc => "jsonrpc-version",
            Self::IdType => "id-type",
            Self::IdTooLong => "id-length",
            Self::NoId => "no-id",
            Self::MethodType => "method-type",
            Self::MethodTooLong => "method-length",
            Self::NoMethod => "no-method",
            Self::RequestAndResponse => "request-and-response",
            Self::ResultAndError => "result-and-error",
            Self::ErrorShape => "error-shape",
            Self::NotString | Self::NotAnObject | Self::NotStringOrNumber => "params-shape",
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Empty => "empty message",
            Self::ByteOrderMark => "byte order mark",
            Self::Utf8 => "not UTF-8",
            Self::Syntax => "not JSON",
            Self::TrailingBytes => "more bytes after the message",
            Self::TooDeep { .. } => "nesting deeper than",
            Self::Batch => "a batch, where one message is expected",
            Self::NotBatch => "not a batch",
            Self::EmptyBatch => "empty batch",
            Self::LargeBatch => "too many messages in one batch",
            Self::NotObject => "a message is an object",
            Self::DuplicateKey => "duplicate key",
            Self::Lookalike => "a key differs from one of the protocol's only in case",
            Self::JsonRpc => "jsonrpc must be \"2.0\"",
            Self::IdType => "an id is a string or an integer",
            Self::IdTooLong => "id too long",
            Self::NoId => "a response has an id",
            Self::MethodType => "method must be a string and not empty",
            Self::MethodTooLong => "method name too long",
            Self::NoMethod => "neither method nor result nor error",
            Self::RequestAndResponse => "both a request and a response",
            Self::ResultAndError => "both a result and an error",
            Self::ErrorShape => "error must be an object with an integer code and a string message",
            Self::NotString => "a string is required",
            Self::NotAnObject => "an object is required",
            Self::NotStringOrNumber => "a string or a number is required",
        }
    }

    /// What is wrong with it, where that is not plain to see; stands behind the place.
    const fn why(self) -> &'static str {
        match self {
            Self::DuplicateKey => ": JSON readers disagree on which one counts",
            _ => "",
        }
    }
}

/// A message that was refused for its shape. HTTP answers it with status 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong.
    pub fault: Fault,
    /// Where, in bytes from the start of the message; 0 for the message as a whole.
    pub at: u32,
    /// The JSON pointer of the object or member concerned: empty for the whole message or where it cannot be told. At most
    /// [`MAX_POINTER_BYTES`], cut with `…`; control characters are replaced by `?`.
    pub pointer: ArrayString<MAX_POINTER_BYTES>,
    /// The message's id, when it could be read: the error answer echoes it.
    pub id: Option<Id>,
}

impl Malformed {
    pub(super) fn new(fault: Fault, at: usize) -> Self {
        Self { fault, at: u32::try_from(at).unwrap_or(u32::MAX), pointer: ArrayString::new(), id: None }
    }

    pub(super) fn with_id(mut self, id: Option<Id>) -> Self {
        self.id = id;
        self
    }

    /// Appends one reference token to the pointer, escaped as RFC 6901 asks. Once cut, it stays cut.
    pub(super) fn push_token(&mut self, token: &str) {
        const CUT: &str = "…";
        if self.pointer.ends_with(CUT) {
            return;
        }
        let mark = self.pointer.len();
        let mut fits = self.pointer.try_push('/').is_ok();
        for character in token.chars() {
            let mut utf8 = [0; 4];
            let piece: &str = match character {
                '~' => "~0",
                '/' => "~1",
                c if c.is_control() || is_invisible(c) => "?",
                c => c.encode_utf8(&mut utf8),
            };
            fits = fits && self.pointer.try_push_str(piece).is_ok();
        }
        if !fits {
            // Whole tokens only: half a key could read like another one.
            let room = MAX_POINTER_BYTES.saturating_sub(1 + CUT.len());
            let cut =
                if mark <= room { mark } else { self.pointer.get(..mark).and_then(|p| p.rfind('/')).unwrap_or(0) };
            self.pointer.truncate(cut);
            let _ = self.pointer.try_push_str("/…");
        }
    }

    /// The JSON-RPC error code: -32700, -32600 or -32602.
    #[must_use]
    pub const fn code(&self) -> i32 {
        self.fault.code()
    }

    /// A short stable name for metrics and audit, such as `"duplicate-key"`.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        self.fault.rule()
    }
}

/// Line breaks and direction marks beyond the control characters: they would let a key rewrite the log line around it.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.code() {
            -32700 => "Parse error: ",
            -32602 => "Invalid params: ",
            _ => "Invalid request: ",
        };
        f.write_str(kind)?;
        f.write_str(self.fault.what())?;
        if let Fault::TooDeep { max } = self.fault {
            write!(f, " {max}")?;
        }
        if !self.pointer.is_empty() {
            write!(f, " at {}", self.pointer)?;
            if self.fault == Fault::DuplicateKey {
                write!(f, ", byte {}", self.at)?;
            }
        } else if self.at > 0 || self.fault == Fault::Syntax {
            write!(f, " at byte {}", self.at)?;
        }
        f.write_str(self.fault.why())
    }
}

impl std::error::Error for Malformed {}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_escaped_and_bounded() {
        let mut fault = Malformed::new(Fault::DuplicateKey, 9);
        fault.push_token("a/b~c\n\u{202e}");
        assert_eq!(fault.pointer.as_str(), "/a~1b~0c??");
        assert_eq!(
            fault.to_string(),
            "Invalid request: duplicate key at /a~1b~0c??, byte 9: JSON readers disagree on which one counts"
        );
        for len in 0..200 {
            let mut fault = Malformed::new(Fault::DuplicateKey, 9);
            for _ in 0..5 {
                fault.push_token(&"é".repeat(len));
            }
            fault.push_token("end");
            assert!(fault.pointer.len() <= MAX_POINTER_BYTES);
            assert_eq!(fault.pointer.ends_with("/…"), len >= 9, "{len} {}", fault.pointer);
        }
    }
}
