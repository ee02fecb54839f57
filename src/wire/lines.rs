//! Bounded lines, for JSON-RPC over stdio and TCP: one message a line, LF, with CRLF accepted.
//!
//! The splitter looks at every byte once, however it arrives, and gives up as soon as a line is certainly too long. What a
//! line holds is not its business.
//!
//! ```
//! use ringwall::wire::lines::LineSplitter;
//!
//! let mut lines = LineSplitter::new(64);
//! let received = b"{\"id\":1}\r\n{\"id\"";
//! let line = lines.next_line(received)?.unwrap();
//! assert_eq!(line.text.of(received), b"{\"id\":1}");
//! assert_eq!(lines.next_line(&received[line.consumed..])?, None);
//! # Ok::<(), ringwall::wire::lines::LineTooLong>(())
//! ```

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
    /// Bytes of the caller's buffer that have been looked at; they hold no LF.
    scanned: usize,
}

impl LineSplitter {
    /// A splitter for lines of at most `max_bytes`, the line end not counted.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        LineSplitter { max_bytes, scanned: 0 }
    }

    /// The first complete line of `buf`, which holds all bytes behind the last line. The caller takes
    /// [`Line::consumed`] bytes off the front before the next call, and appends what arrives.
    ///
    /// # Errors
    /// [`LineTooLong`], as soon as it is certain.
    pub fn next_line(&mut self, buf: &[u8]) -> Result<Option<Line>, LineTooLong> {
        let fresh = buf.get(self.scanned..).unwrap_or_default();
        let Some(at) = memchr::memchr(b'\n', fresh) else {
            self.scanned = buf.len();
            // The last byte may be the CR of a line end.
            let certain = if buf.last() == Some(&b'\r') { buf.len().saturating_sub(1) } else { buf.len() };
            return if certain > self.max_bytes { Err(LineTooLong) } else { Ok(None) };
        };
        let end = self.scanned.saturating_add(at);
        self.scanned = 0;
        let line = buf.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > self.max_bytes {
            return Err(LineTooLong);
        }
        Ok(Some(Line { text: Span::from_usize(0, line.len()), consumed: end.saturating_add(1) }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn split(pieces: &[&[u8]], max: usize) -> Result<Vec<Vec<u8>>, LineTooLong> {
        let (mut splitter, mut buf, mut lines) = (LineSplitter::new(max), Vec::new(), Vec::new());
        for piece in pieces {
            buf.extend_from_slice(piece);
            while let Some(line) = splitter.next_line(&buf)? {
                lines.push(line.text.of(&buf).to_vec());
                buf.drain(..line.consumed);
            }
        }
        Ok(lines)
    }

    #[test]
    fn splits() {
        let table: [(&str, &str, Option<&[&str]>); 10] = [
            ("nothing", "", Some(&[])),
            ("LF", "a\nb\n", Some(&["a", "b"])),
            ("CRLF", "a\r\nb\r\n", Some(&["a", "b"])),
            ("empty lines", "\n\r\n", Some(&["", ""])),
            ("unfinished", "a\nb", Some(&["a"])),
            ("CR within", "a\rb\n", Some(&["a\rb"])),
            ("at the bound", "12345\n", Some(&["12345"])),
            ("at the bound with CRLF", "12345\r\n", Some(&["12345"])),
            ("over the bound", "123456\n", None),
            ("over the bound, unfinished", "123456", None),
        ];
        for (name, stream, expected) in table {
            let lines = split(&[stream.as_bytes()], 5).ok();
            let lines =
                lines.map(|lines| lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect::<Vec<_>>());
            assert_eq!(
                lines.as_deref(),
                expected.map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>()).as_deref(),
                "{name}"
            );
        }
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference(stream in "[a\r\n]{0,40}", cuts in prop::collection::vec(0usize..40, 0..6)) {
            let stream = stream.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).chain([0, stream.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            prop_assert_eq!(split(&pieces, 6), split(&[stream], 6));
            if let Ok(lines) = split(&pieces, 100) {
                let text = String::from_utf8(stream.to_vec()).unwrap();
                let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
                let expected: Vec<Vec<u8>> = whole.lines().map(|line| line.as_bytes().to_vec()).collect();
                prop_assert_eq!(lines, expected);
            }
        }
    }
}
