//! What request and response heads have in common: line ends, the search for the end, and list values.

use super::super::Span;

/// Whether the bytes of `buf` from `from` on can have completed a head: a blank line, or a line end that is refused anyway.
///
/// A head that arrives byte by byte is thereby looked at once, and parsed once.
pub(super) fn may_be_complete(buf: &[u8], from: usize) -> bool {
    let from = from.min(buf.len());
    let fresh = buf.get(from..).unwrap_or_default();
    memchr::memchr_iter(b'\n', fresh).any(|at| {
        let line_end = from.saturating_add(at);
        let before = |back: usize| line_end.checked_sub(back).and_then(|index| buf.get(index));
        before(1) != Some(&b'\r') || matches!(before(2), None | Some(b'\n'))
    })
}

/// Whether some LF of `buf` has no CR before it (RFC 9112 §2.2 lets a recipient take it for a line end; we do not).
pub(super) fn has_bare_lf(buf: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', buf).any(|at| at.checked_sub(1).and_then(|index| buf.get(index)) != Some(&b'\r'))
}

/// Whether the line that starts at `line_start` is preceded by CRLF.
#[inline]
pub(super) fn follows_crlf(buf: &[u8], line_start: usize) -> bool {
    line_start.checked_sub(2).and_then(|at| buf.get(at..line_start)) == Some(b"\r\n")
}

/// Where `part`, a piece of `buf`, lies in it. A piece of something else gives a span out of range or, when empty, `0..0`.
#[inline]
pub(in super::super) fn span_in(buf: &[u8], part: &[u8]) -> Span {
    if part.is_empty() {
        return Span::default();
    }
    let start = (part.as_ptr() as usize).wrapping_sub(buf.as_ptr() as usize);
    Span::from_usize(start, start.saturating_add(part.len()))
}

/// The members of a comma-separated list, without blanks around them; empty members are left out (RFC 9110 §5.6.1.2).
pub fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim_blanks).filter(|member| !member.is_empty())
}

/// `value` without the SP and HTAB around it.
pub(in super::super) fn trim_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether `byte` may stand in a token (RFC 9110 §5.6.2).
#[inline]
pub(in super::super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

/// A decimal length (`1*DIGIT`). `None` for anything else: signs, blanks, lists, leading zeros (octal to some readers),
/// more than `u64` holds.
pub(super) fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || (value.len() > 1 && value.first() == Some(&b'0')) {
        return None;
    }
    value.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Whether `name` has the letters of `canonical` in their order, whatever else stands between them: `Content_Length`,
/// `Transfer---Encoding`. No two fields in use differ in nothing else, and some servers take the one for the other.
pub(super) fn imitates(name: &[u8], canonical: &[u8]) -> bool {
    letters(name).eq(letters(canonical))
}

fn letters(text: &[u8]) -> impl Iterator<Item = u8> {
    text.iter().filter(|byte| byte.is_ascii_alphabetic()).map(u8::to_ascii_lowercase)
}

/// What `Connection` lines say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Connection {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}

impl Connection {
    /// Takes in one `Connection` line.
    pub(super) fn add(&mut self, value: &[u8]) {
        for option in list_members(value) {
            match option.len() {
                5 => self.close |= option.eq_ignore_ascii_case(b"close"),
                7 => self.upgrade |= option.eq_ignore_ascii_case(b"upgrade"),
                10 => self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive"),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn decimals() {
        let table: [(&[u8], Option<u64>); 12] = [
            (b"0", Some(0)),
            (b"5", Some(5)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"99999999999999999999999", None),
            (b"", None),
            (b"00", None),
            (b"05", None),
            (b"+5", None),
            (b"-0", None),
            (b"1 0", None),
            (b"5, 5", None),
        ];
        for (value, expected) in table {
            assert_eq!(decimal(value), expected, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn lists() {
        let members = |value: &'static [u8]| list_members(value).collect::<Vec<_>>();
        assert_eq!(members(b"a"), [b"a"]);
        assert_eq!(members(b" a ,\tb\t, ,,c"), [b"a", b"b", b"c"]);
        assert!(members(b" ,\t, ").is_empty());
    }

    #[test]
    fn ends_are_found_from_any_offset() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for from in 0..head.len() {
            assert!(may_be_complete(head, from), "{from}");
        }
        for end in 0..head.len() {
            assert!(!may_be_complete(&head[..end], 0), "{end}");
        }
        assert!(may_be_complete(b"GET / HTTP/1.1\n", 3));
        assert!(!may_be_complete(head, head.len() + 9));
    }

    #[test]
    fn names_that_imitate() {
        for name in ["Content_Length", "content-length", "CONTENT--LENGTH", "_content.length", "contentlength"] {
            assert!(imitates(name.as_bytes(), b"content-length"), "{name}");
        }
        for name in ["Content-Lengths", "X-Content-Length", "Content-Type", "Conten-Length", ""] {
            assert!(!imitates(name.as_bytes(), b"content-length"), "{name}");
        }
    }
}
