//! [`Text`]: a string of a message, where it stands and how long it is decoded.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use super::scan::Decoded;
use crate::span::Span;
use std::borrow::Cow;

/// A JSON string in a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Text {
    /// The value as written, quotes included.
    pub span: Span,
    /// Its decoded length in bytes.
    pub len: u32,
}

impl Text {
    /// Does it have escapes? If not, the bytes between the quotes are the string. (Every escape is longer than what it stands
    /// for, so the lengths tell.)
    #[must_use]
    pub const fn is_escaped(self) -> bool {
        self.len.saturating_add(2) != self.span.len()
    }

    /// The decoded string, from the raw message alone. Borrowed unless it has escapes.
    #[must_use]
    pub fn decode<'a>(self, raw: &'a [u8]) -> Cow<'a, str> {
        let inner = self.span.inner().of(raw);
        if self.is_escaped() {
            Cow::Owned(String::from_utf8(Decoded::new(inner).collect()).unwrap_or_default())
        } else {
            Cow::Borrowed(std::str::from_utf8(inner).unwrap_or_default())
        }
    }

    /// Is the decoded string `other`? Never allocates.
    #[must_use]
    pub fn equals(self, raw: &[u8], other: &[u8]) -> bool {
        if self.len as usize != other.len() {
            return false;
        }
        let inner = self.span.inner().of(raw);
        if self.is_escaped() { Decoded::new(inner).eq(other.iter().copied()) } else { inner == other }
    }

    /// When the decoded string begins with `prefix`: the raw bytes that spell the prefix, to be cut by [`super::splice`].
    #[must_use]
    pub fn prefix_span(self, raw: &[u8], prefix: &str) -> Option<Span> {
        let mut decoded = Decoded::new(self.span.inner().of(raw));
        if !prefix.bytes().all(|byte| decoded.next() == Some(byte)) {
            return None;
        }
        let start = self.span.inner().start;
        let consumed = u32::try_from(decoded.consumed()?).ok()?;
        Some(Span::new(start, start.checked_add(consumed)?))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use crate::rpc::{Span, scan};

    #[test]
    fn plain_and_escaped_read_the_same() {
        for raw in [&br#""srv__read""#[..], br#""\u0073rv\u005f_re\u0061d""#] {
            let text = scan::text(raw, Span::from_usize(0, raw.len())).unwrap();
            assert_eq!(text.decode(raw), "srv__read");
            assert_eq!(text.len, 9);
            assert!(text.equals(raw, b"srv__read"));
            assert!(!text.equals(raw, b"srv__reaD"));
            assert!(!text.equals(raw, b"srv__rea"));
            let prefix = text.prefix_span(raw, "srv__").unwrap();
            assert_eq!(prefix.start, 1);
            assert!(raw[prefix.end as usize..].starts_with(b"re"));
            assert_eq!(text.prefix_span(raw, "srv__readx"), None);
            assert_eq!(text.prefix_span(raw, "x"), None);
        }
    }
}
