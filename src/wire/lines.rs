//! Bounded lines.

use super::Span;

/// A line grew beyond its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line too long")]
pub struct LineTooLong;

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its bytes without the line end; a range of the buffer.
    pub text: Span,
    /// Bytes to take off the front of the buffer.
    pub consumed: usize,
}

/// Splits a stream into lines that end in LF or CRLF.
#[derive(Clone, Debug)]
pub struct LineSplitter {
    max_bytes: usize,
}

impl LineSplitter {
    /// A splitter for lines of at most `max_bytes`, the line end not counted.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        LineSplitter { max_bytes }
    }

    /// The first complete line of `buf`, which holds all bytes behind the last line.
    ///
    /// # Errors
    /// [`LineTooLong`], as soon as it is certain.
    pub fn next_line(&mut self, buf: &[u8]) -> Result<Option<Line>, LineTooLong> {
        let _ = (buf, self.max_bytes);
        Ok(None)
    }
}
