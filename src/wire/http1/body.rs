//! Bodies.

use super::{Reject, Span};

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
    framing: Framing,
}

impl BodyDecoder {
    /// A decoder for at most `max_bytes` decoded bytes.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] when the announced length is already more.
    pub fn new(framing: Framing, max_bytes: u64) -> Result<Self, BodyError> {
        let _ = max_bytes;
        Ok(BodyDecoder { framing })
    }

    /// Decodes what `input` starts with. Call again with what is left until `done` or until nothing is consumed.
    ///
    /// # Errors
    /// [`BodyError`]; the connection is of no further use.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        let _ = (input, self.framing);
        Ok(Step { consumed: 0, data: Span::default(), done: false })
    }

    /// Whether the body is complete (at once for a length of 0).
    #[must_use]
    pub fn is_done(&self) -> bool {
        false
    }

    /// Tells the decoder that the peer has closed.
    ///
    /// # Errors
    /// [`BodyError::Malformed`] when the body was not complete: a truncated answer is never passed on as a whole one.
    pub fn finish(&self) -> Result<(), BodyError> {
        Ok(())
    }
}
