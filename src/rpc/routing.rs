//! Mirrored header values against the body: blanks, characters, the base64 sentinel, comparison without allocation.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use super::scan::Decoded;
use super::text::Text;
use base64::{Engine, engine::general_purpose::STANDARD};

/// The value without the spaces and tabs around it (RFC 9110, section 5.5).
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Only what a mirrored header may carry: 0x20 to 0x7E and tab.
pub(super) fn is_clean(value: &[u8]) -> bool {
    value.iter().all(|&byte| matches!(byte, b' '..=b'~' | b'\t'))
}

/// What stands between `=?base64?` and `?=`; `None` when the value is literal. Both must stand there exactly so.
fn sentinel(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(b"=?base64?")?.strip_suffix(b"?=")
}

/// Is the trimmed header value the decoded `text` of `raw`? A sentinel is decoded first: standard alphabet, padding required, no
/// stray bits; a payload that is none of that equals nothing.
pub(super) fn names(value: &[u8], text: Text, raw: &[u8]) -> bool {
    match sentinel(value) {
        None => text.equals(raw, value),
        Some(payload) => decodes_to(payload, Decoded::new(text.span.inner().of(raw))),
    }
}

fn decodes_to(payload: &[u8], mut want: Decoded<'_>) -> bool {
    const CHUNK: usize = 512;
    let mut chunks = payload.chunks(CHUNK).peekable();
    let mut decoded = [0u8; CHUNK];
    while let Some(chunk) = chunks.next() {
        // Padding in the middle would decode chunk by chunk, though not as a whole.
        if chunks.peek().is_some() && chunk.contains(&b'=') {
            return false;
        }
        let Ok(len) = STANDARD.decode_slice(chunk, &mut decoded) else {
            return false;
        };
        let got = decoded.get(..len).unwrap_or(&[]);
        if !got.iter().all(|&byte| want.next() == Some(byte)) {
            return false;
        }
    }
    want.next().is_none()
}

/// Are these the same integer? `header` is `-?digits(.0+)?`; `body` is a JSON number without a fraction other than zero. Compared
/// as digits, since no float holds all of them.
pub(super) fn same_integer(header: &[u8], body: &[u8]) -> bool {
    match (Integer::read(header, false), Integer::read(body, true)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// Is the JSON number an integer by value, such as `42`, `42.0` or `1e2`?
pub(super) fn is_integer(body: &[u8]) -> bool {
    Integer::read(body, true).is_some()
}

/// An integer of at most 64 significant digits: `digits` without zeros at either end, times ten to `zeros`.
#[derive(PartialEq, Eq)]
struct Integer {
    negative: bool,
    digits: arrayvec::ArrayVec<u8, 64>,
    zeros: i32,
}

impl Integer {
    fn read(number: &[u8], exponent_allowed: bool) -> Option<Self> {
        let (negative, number) = number.strip_prefix(b"-").map_or((false, number), |rest| (true, rest));
        let (mantissa, exponent) = match number.iter().position(|b| matches!(b, b'e' | b'E')) {
            Some(at) if exponent_allowed => (number.get(..at)?, number.get(at.checked_add(1)?..)?),
            Some(_) => return None,
            None => (number, &b"0"[..]),
        };
        let exponent: i32 = std::str::from_utf8(exponent).ok()?.parse().ok()?;
        let (whole, fraction) = match mantissa.iter().position(|&b| b == b'.') {
            Some(at) => (mantissa.get(..at)?, Some(mantissa.get(at.checked_add(1)?..)?)),
            None => (mantissa, None),
        };
        let is_digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
        if !is_digits(whole) || fraction.is_some_and(|fraction| !is_digits(fraction)) {
            return None;
        }
        let fraction = fraction.unwrap_or(&[]);
        let mut digits = arrayvec::ArrayVec::<u8, 64>::new();
        let mut zeros = 0i32;
        for &digit in whole.iter().chain(fraction) {
            if digit == b'0' {
                zeros = zeros.checked_add(1)?;
                continue;
            }
            for _ in 0..zeros {
                if digits.is_empty() {
                    break;
                }
                digits.try_push(b'0').ok()?;
            }
            zeros = 0;
            digits.try_push(digit).ok()?;
        }
        if digits.is_empty() {
            return Some(Self { negative: false, digits, zeros: 0 });
        }
        let zeros = zeros.checked_sub(i32::try_from(fraction.len()).ok()?)?.checked_add(exponent)?;
        (zeros >= 0).then_some(Self { negative, digits, zeros })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::rpc::{Span, scan};
    use proptest::prelude::*;

    fn header_names(header: &str, body: &str) -> bool {
        let raw = serde_json::to_string(body).unwrap().into_bytes();
        let text = scan::text(&raw, Span::from_usize(0, raw.len())).unwrap();
        names(trim(header.as_bytes()), text, &raw)
    }

    #[test]
    fn values() {
        for (header, body, want) in [
            ("echo", "echo", true),
            ("  echo\t ", "echo", true),
            ("Echo", "echo", false),
            ("echo", "echo ", false),
            ("", "", true),
            ("=?base64?SGVsbG8=?=", "Hello", true),
            ("=?base64?SGVsbG8?=", "Hello", false),     // padding missing
            ("=?base64?SGVs!!!bG8=?=", "Hello", false), // bad characters
            ("=?base64?SGVsbG9=?=", "Hello", false),    // stray bits
            ("=?BASE64?SGVsbG8=?=", "Hello", false),    // literal
            ("=?BASE64?SGVsbG8=?=", "=?BASE64?SGVsbG8=?=", true),
            ("SGVsbG8=", "SGVsbG8=", true),
            ("=?base64?SGVsbG8=", "=?base64?SGVsbG8=", true),
            ("=?base64?SGVsbG8=?=", "=?base64?SGVsbG8=?=", false),
            ("=?base64??=", "", true),
            ("=?base64?=", "", false),
            ("=?base64?w6k=?=", "é", true),
            ("=?base64?_-8=?=", "\u{fffd}", false), // URL-safe alphabet
            ("=?base64?Cg==?=", "\n", true),
            ("=?base64?QQ==QQ==?=", "AA", false),
        ] {
            assert_eq!(header_names(header, body), want, "{header} / {body:?}");
        }
        assert!(is_clean(b"a \t~") && !is_clean(b"a\x7f") && !is_clean("é".as_bytes()) && !is_clean(b"\x01"));
    }

    #[test]
    fn integers() {
        for (header, body, want) in [
            ("42", "42", true),
            ("42.0", "42", true),
            ("42", "42.000", true),
            ("042", "42", true),
            ("-0", "0", true),
            ("100", "1e2", true),
            ("100", "1.0E+2", true),
            ("1e2", "100", false),
            ("42.5", "42.5", false),
            ("42.", "42", false),
            (".0", "0", false),
            ("+1", "1", false),
            ("", "0", false),
            ("-", "0", false),
            ("9007199254740993", "9007199254740993", true),
            ("9007199254740993", "9007199254740992", false),
            ("10", "100", false),
            ("1001", "1001", true),
            ("0.00", "0e99999", true),
        ] {
            assert_eq!(same_integer(header.as_bytes(), body.as_bytes()), want, "{header} / {body}");
        }
    }

    proptest! {
        #[test]
        fn base64_of_any_string_names_it(body in "\\PC{0,600}|[\\x00-\\x1f\"\\\\é]{0,20}") {
            let header = format!("=?base64?{}?=", STANDARD.encode(&body));
            prop_assert!(header_names(&header, &body));
            let other = format!("{body}x");
            prop_assert!(!header_names(&header, &other));
        }

        #[test]
        fn integers_agree_with_i128(a in any::<i64>(), b in any::<i64>()) {
            let float = format!("{a}.0");
            prop_assert!(same_integer(a.to_string().as_bytes(), float.as_bytes()));
            prop_assert_eq!(same_integer(a.to_string().as_bytes(), b.to_string().as_bytes()), a == b);
        }
    }
}
