//! Walking JSON that has already been checked, without a tape: members of an object, elements of an array, decoded bytes of a
//! string. For the few places outside of the envelope that look into a message (lists, schemas, mirrored arguments).
//!
//! On bytes that are not valid JSON it returns fewer things, or nonsense spans inside of the buffer, but never panics and always
//! ends. It skips nested values byte by byte, so a walk costs the length of what is walked.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use super::text::Text;
use crate::span::Span;

pub(super) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The first position from `at` on that is not whitespace.
pub(super) fn skip_blanks(raw: &[u8], mut at: usize) -> usize {
    while raw.get(at).is_some_and(|&byte| is_blank(byte)) {
        at = at.saturating_add(1);
    }
    at
}

/// One past the closing quote of the string whose opening quote stands at `at`.
pub(crate) fn string_end(raw: &[u8], at: usize) -> Option<usize> {
    let mut at = at.checked_add(1)?;
    loop {
        let found = at.checked_add(memchr::memchr2(b'"', b'\\', raw.get(at..)?)?)?;
        if raw.get(found) == Some(&b'"') {
            return found.checked_add(1);
        }
        at = found.checked_add(2)?;
    }
}

/// One past the value that starts at `at`.
fn value_end(raw: &[u8], at: usize) -> Option<usize> {
    match raw.get(at)? {
        b'"' => string_end(raw, at),
        b'{' | b'[' => {
            let mut depth = 0usize;
            let mut at = at;
            loop {
                match raw.get(at)? {
                    b'"' => {
                        at = string_end(raw, at)?;
                        continue;
                    }
                    b'{' | b'[' => depth = depth.checked_add(1)?,
                    b'}' | b']' => {
                        depth = depth.checked_sub(1)?;
                        if depth == 0 {
                            return at.checked_add(1);
                        }
                    }
                    _ => {}
                }
                at = at.checked_add(1)?;
            }
        }
        _ => {
            let rest = raw.get(at..)?;
            let len = rest.iter().position(|&b| is_blank(b) || matches!(b, b',' | b'}' | b']')).unwrap_or(rest.len());
            if len == 0 { None } else { at.checked_add(len) }
        }
    }
}

/// The span of the whole value in `raw`, surrounding whitespace left out.
#[must_use]
pub fn value(raw: &[u8]) -> Option<Span> {
    let start = skip_blanks(raw, 0);
    Some(Span::from_usize(start, value_end(raw, start)?))
}

/// The string at `span`; `None` when the value there is of another type.
#[must_use]
pub fn text(raw: &[u8], span: Span) -> Option<Text> {
    let written = span.of(raw);
    if written.len() < 2 || written.first() != Some(&b'"') || written.last() != Some(&b'"') {
        return None;
    }
    let inner = span.inner().of(raw);
    let len = if memchr::memchr(b'\\', inner).is_none() { inner.len() } else { Decoded::new(inner).count() };
    Some(Text { span, len: u32::try_from(len).unwrap_or(u32::MAX) })
}

/// The members of the object at `span`, in order; none when it is no object.
#[must_use]
pub fn members(raw: &[u8], span: Span) -> Members<'_> {
    Members { walk: Walk::enter(raw, span, b'{') }
}

/// The elements of the array at `span`, in order; none when it is no array.
#[must_use]
pub fn elements(raw: &[u8], span: Span) -> Elements<'_> {
    Elements { walk: Walk::enter(raw, span, b'[') }
}

/// The value of the member `key` (decoded) of the object at `span`.
#[must_use]
pub fn member(raw: &[u8], span: Span, key: &str) -> Option<Span> {
    members(raw, span).find(|(name, _)| name.equals(raw, key.as_bytes())).map(|(_, value)| value)
}

#[derive(Clone, Debug)]
struct Walk<'a> {
    /// The message up to the end of the container.
    raw: &'a [u8],
    /// Where the next entry begins; `None` at the end.
    at: Option<usize>,
}

impl<'a> Walk<'a> {
    fn enter(raw: &'a [u8], span: Span, open: u8) -> Self {
        let raw = raw.get(..span.end as usize).unwrap_or(&[]);
        let start = span.start as usize;
        let at = (raw.get(start) == Some(&open)).then(|| skip_blanks(raw, start.saturating_add(1)));
        Self { raw, at: at.filter(|&at| !matches!(raw.get(at), Some(b'}' | b']') | None)) }
    }

    /// The value at `at`; moves on to the entry after it.
    fn take(&mut self, at: usize) -> Option<Span> {
        let end = value_end(self.raw, at)?;
        let after = skip_blanks(self.raw, end);
        if self.raw.get(after) == Some(&b',') {
            self.at = Some(skip_blanks(self.raw, after.saturating_add(1)));
        }
        Some(Span::from_usize(at, end))
    }
}

/// See [`members`].
#[derive(Clone, Debug)]
pub struct Members<'a> {
    walk: Walk<'a>,
}

impl Iterator for Members<'_> {
    type Item = (Text, Span);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.walk.at.take()?;
        let raw = self.walk.raw;
        let key_end = string_end(raw, at)?;
        let key = text(raw, Span::from_usize(at, key_end))?;
        let colon = skip_blanks(raw, key_end);
        if raw.get(colon) != Some(&b':') {
            return None;
        }
        let value = self.walk.take(skip_blanks(raw, colon.saturating_add(1)))?;
        Some((key, value))
    }
}

/// See [`elements`].
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    walk: Walk<'a>,
}

impl Iterator for Elements<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let at = self.walk.at.take()?;
        self.walk.take(at)
    }
}

/// The decoded bytes of a string, given what stands between its quotes.
#[derive(Clone, Debug)]
pub struct Decoded<'a> {
    inner: &'a [u8],
    at: usize,
    /// What is left of the last escape's UTF-8, last byte first.
    pending: arrayvec::ArrayVec<u8, 4>,
}

impl<'a> Decoded<'a> {
    /// Starts at the first byte of `inner`.
    #[must_use]
    pub fn new(inner: &'a [u8]) -> Self {
        Self { inner, at: 0, pending: arrayvec::ArrayVec::new() }
    }

    /// How many raw bytes have been decoded; `None` in the middle of an escape.
    #[must_use]
    pub fn consumed(&self) -> Option<usize> {
        self.pending.is_empty().then_some(self.at)
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.inner.get(self.at..self.at.checked_add(4)?)?;
        let mut unit = 0u32;
        for &digit in digits {
            unit = (unit << 4) | char::from(digit).to_digit(16)?;
        }
        self.at = self.at.checked_add(4)?;
        Some(unit)
    }

    /// The character of a `\u` escape, behind the `u`. Halves of pairs do not pass the parser.
    fn unicode(&mut self) -> Option<char> {
        let unit = self.hex()?;
        if !(0xD800..0xDC00).contains(&unit) {
            return char::from_u32(unit);
        }
        if self.inner.get(self.at..self.at.checked_add(2)?)? != b"\\u" {
            return None;
        }
        self.at = self.at.checked_add(2)?;
        let low = self.hex()?;
        let low = low.checked_sub(0xDC00).filter(|&low| low < 0x400)?;
        char::from_u32(0x1_0000 + ((unit - 0xD800) << 10) + low)
    }
}

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if let Some(byte) = self.pending.pop() {
            return Some(byte);
        }
        let byte = *self.inner.get(self.at)?;
        self.at = self.at.saturating_add(1);
        if byte != b'\\' {
            return Some(byte);
        }
        let escape = *self.inner.get(self.at)?;
        self.at = self.at.saturating_add(1);
        match escape {
            b'n' => Some(b'\n'),
            b't' => Some(b'\t'),
            b'r' => Some(b'\r'),
            b'b' => Some(8),
            b'f' => Some(12),
            b'u' => {
                let character = self.unicode().unwrap_or(char::REPLACEMENT_CHARACTER);
                let mut utf8 = [0; 4];
                self.pending.extend(character.encode_utf8(&mut utf8).bytes().rev());
                self.pending.pop()
            }
            plain => Some(plain),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn members_and_elements_in_order() {
        let raw = br#" { "a" : [1 , "x,]" ,{"b":[]} ] , "\u0062" : null,"c":{}  } "#;
        let object = value(raw).unwrap();
        let found: Vec<_> = members(raw, object).map(|(k, v)| (k.decode(raw).into_owned(), v.of(raw))).collect();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].0, "a");
        assert_eq!(found[1], ("b".to_owned(), &b"null"[..]));
        assert_eq!(found[2], ("c".to_owned(), &b"{}"[..]));
        let array = member(raw, object, "a").unwrap();
        let items: Vec<_> = elements(raw, array).map(|e| e.of(raw)).collect();
        assert_eq!(items, [&b"1"[..], br#""x,]""#, br#"{"b":[]}"#]);
    }

    #[test]
    fn broken_json_ends_quietly() {
        for raw in [
            &b""[..],
            b"{",
            b"{\"",
            b"{\"a",
            b"{\"a\"",
            b"{\"a\":",
            b"{\"a\":1",
            b"{\"a\":1,",
            b"{,}",
            b"[",
            b"[,",
            b"[1,,2]",
            b"[[",
            b"{\"\\",
        ] {
            let whole = Span::from_usize(0, raw.len());
            assert!(members(raw, whole).count() < 3);
            assert!(elements(raw, whole).count() < 3);
            let _ = value(raw);
        }
    }

    #[test]
    fn decoding() {
        for (inner, want) in [
            (r"plain", "plain"),
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r"\u00e9\u20AC", "é€"),
            (r"\ud83d\ude00!", "😀!"),
            (r"\ud83d", "\u{fffd}"),
            (r"\u00", "\u{fffd}00"),
        ] {
            let got: Vec<u8> = Decoded::new(inner.as_bytes()).collect();
            assert_eq!(String::from_utf8(got).unwrap(), want, "{inner}");
        }
    }
}
