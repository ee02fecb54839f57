//! Exchanging a few tokens of a JSON text without re-serializing the rest.
//!
//! What is forwarded is what arrived, byte for byte, but for the id and the progress token, which are exchanged in place, and for line
//! breaks between tokens, which become blanks because a line break ends a message on stdio.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use std::ops::Range;

/// One token to exchange: where it stands, and what takes its place.
pub(super) type Edit<'a> = (Range<usize>, &'a [u8]);

/// Applies the edits and turns line breaks into blanks. A valid JSON text has no raw line break inside a string, so only white space changes.
/// `None` when edits overlap or lie outside of `raw`.
pub(super) fn splice(raw: &[u8], edits: &mut [Edit<'_>]) -> Option<Vec<u8>> {
    edits.sort_by_key(|(range, _)| range.start);
    let added: usize = edits.iter().map(|(_, bytes)| bytes.len()).sum();
    // One more byte: whoever writes this to a child adds the line break.
    let mut out = Vec::with_capacity(raw.len().saturating_add(added).saturating_add(1));
    let mut at = 0;
    for (range, bytes) in edits.iter() {
        out.extend_from_slice(raw.get(at..range.start)?);
        raw.get(range.clone())?;
        out.extend_from_slice(bytes);
        at = range.end;
    }
    out.extend_from_slice(raw.get(at..)?);
    for byte in &mut out {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    Some(out)
}

/// The same JSON text without white space between tokens, so that two clients that differ in nothing else count as equal.
pub(super) fn minify(raw: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let (mut in_string, mut escaped) = (false, false);
    for byte in raw.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
        } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            continue;
        } else {
            in_string = byte == b'"';
        }
        out.push(byte);
    }
    out
}

/// A JSON-RPC id, comparable: `1` and `"1"` differ, `"a"` and `"\u0061"` do not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum IdKey {
    /// A number, as it was written.
    Number(Box<str>),
    /// A string, unescaped.
    Text(Box<str>),
}

impl IdKey {
    /// Reads a raw token; `None` when it is neither a string nor a number.
    pub(super) fn of(token: &[u8]) -> Option<Self> {
        match token.first()? {
            b'"' => serde_json::from_slice::<String>(token).ok().map(|text| Self::Text(text.into())),
            b'-' | b'0'..=b'9' => std::str::from_utf8(token).ok().map(|number| Self::Number(number.into())),
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edits_are_applied_in_any_order_and_line_breaks_vanish() {
        let raw = b"{\"id\":1,\r\n\"t\":\"x\"}";
        let id = 6..7;
        let token = 14..17;
        let mut edits = [(token, &b"99"[..]), (id, &b"\"long\""[..])];
        assert_eq!(splice(raw, &mut edits).unwrap(), b"{\"id\":\"long\",  \"t\":99}");
    }

    #[test]
    fn bad_edits_are_refused() {
        assert_eq!(splice(b"abc", &mut [(2..9, &b""[..])]), None);
        assert_eq!(splice(b"abcdef", &mut [(0..3, &b""[..]), (2..4, &b""[..])]), None);
    }

    #[test]
    fn minify_keeps_strings() {
        let cases = [
            ("{ \"a b\" : [ 1 , 2 ] }", "{\"a b\":[1,2]}"),
            ("\"\\\" x\" ", "\"\\\" x\""),
            ("\"\\\\\" , 1", "\"\\\\\",1"),
        ];
        for (raw, want) in cases {
            assert_eq!(minify(raw), want.as_bytes(), "{raw}");
        }
    }

    #[test]
    fn ids_compare_by_value_and_type() {
        assert_eq!(IdKey::of(b"\"a\""), IdKey::of(b"\"\\u0061\""));
        assert_ne!(IdKey::of(b"1"), IdKey::of(b"\"1\""));
        assert_eq!(IdKey::of(b"null"), None);
        assert_eq!(IdKey::of(b""), None);
    }

    proptest! {
        #[test]
        fn splicing_there_and_back_gives_the_same_bytes(id in "[0-9]{1,9}|\"[a-z]{0,9}\"", rest in "[ -~]{0,40}") {
            let raw = format!("{{\"id\":{id},\"x\":{}}}", serde_json::to_string(&rest).unwrap());
            let there = splice(raw.as_bytes(), &mut [(6..6 + id.len(), &b"123"[..])]).unwrap();
            let back = splice(&there, &mut [(6..9, id.as_bytes())]).unwrap();
            prop_assert_eq!(back, raw.into_bytes());
        }
    }
}
