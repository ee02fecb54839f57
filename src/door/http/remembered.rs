//! What let a connection's last call in.
//!
//! A client shows the same `Host`, token and media types with every call. So what was decided about them is kept, and holds for the
//! next call that shows the very same, under the very settings and credentials ([`Worker::generation`]) that it was decided by. What a
//! decision needs beside these values is asked each time: the address, the path, the body.
//!
//! The values hold a token. They are compared in a time that tells nothing but their lengths (a proxy may send several clients' requests
//! over one connection), and wiped.
//!
//! [`Worker::generation`]: crate::worker::Worker::generation

use std::cell::OnceCell;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::guard::Principal;
use crate::wire::http1::request::RequestHead;

/// The longest values that are kept, bytes together.
const MAX_SHOWN: usize = 2048;

/// What a call shows at the gate: the values of the fields that decide, in a fixed order.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'b>([Option<&'b [u8]>; 5]);

impl<'b> Shown<'b> {
    /// Of a head without `Content-Encoding` and with one `Accept` line; others are looked at each time.
    pub(crate) fn of(head: &RequestHead, buf: &'b [u8]) -> Option<Self> {
        let known = &head.known;
        let fields = [known.host, known.origin, known.authorization, known.content_type, known.accept];
        let is_plain = !known.is_coded && !known.accept_multiple;
        is_plain.then(|| Self(fields.map(|span| span.map(|span| span.of(buf)))))
    }
}

/// What the last call showed, and whose it was.
pub(crate) struct Remembered {
    /// The values, one behind the other.
    values: Zeroizing<Vec<u8>>,
    lengths: [Option<usize>; 5],
    generation: u64,
    principal: Principal,
    tag: OnceCell<[u8; 16]>,
}

impl Remembered {
    /// Keeps what let `principal` in; `before` gives its memory. `None` where it is too long to be kept.
    pub(crate) fn note(
        before: Option<Box<Self>>,
        shown: Shown<'_>,
        generation: u64,
        principal: &Principal,
    ) -> Option<Box<Self>> {
        let lengths = shown.0.map(|value| value.map(<[u8]>::len));
        let len: usize = lengths.iter().flatten().sum();
        if len > MAX_SHOWN {
            return None;
        }
        // Made in its full size: a vector that grows leaves copies behind that nobody wipes.
        let mut values = Zeroizing::new(Vec::with_capacity(len));
        shown.0.iter().flatten().for_each(|value| values.extend_from_slice(value));
        let known = before.filter(|before| before.principal == *principal);
        // An id of this connection's own: counting the uses of one that all workers share would make them wait for each other.
        let (principal, tag) = known
            .map_or_else(|| (own(principal), OnceCell::new()), |known| (known.principal.clone(), known.tag.clone()));
        Some(Box::new(Self { values, lengths, generation, principal, tag }))
    }

    /// Whose call this is, if it shows what the last one did.
    pub(crate) fn again(&self, shown: Shown<'_>, generation: u64) -> Option<&Principal> {
        if self.generation != generation || self.lengths != shown.0.map(|value| value.map(<[u8]>::len)) {
            return None;
        }
        let mut kept = self.values.as_slice();
        let mut differ = 0;
        for value in shown.0.iter().flatten() {
            let (own, rest) = kept.split_at_checked(value.len())?;
            differ |= difference(own, value);
            kept = rest;
        }
        bool::from(differ.ct_eq(&0)).then_some(&self.principal)
    }

    /// [`Principal::tag`], computed once.
    pub(crate) fn tag_of(&self, principal: &Principal) -> [u8; 16] {
        if self.principal == *principal { *self.tag.get_or_init(|| principal.tag()) } else { principal.tag() }
    }
}

/// The same principal, with an id of its own.
fn own(principal: &Principal) -> Principal {
    match principal {
        Principal::Agent(id) => Principal::Agent(Arc::from(&**id)),
        other => other.clone(),
    }
}

/// 0 where two values of one length are equal. Looks at all of both.
fn difference(left: &[u8], right: &[u8]) -> u64 {
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<8>(), right.as_chunks::<8>());
    let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
    let words = left.iter().zip(right).fold(0, |differ, (left, right)| differ | (word(left) ^ word(right)));
    let bytes = left_rest.iter().zip(right_rest).fold(0, |differ, (left, right)| differ | (left ^ right));
    words | u64::from(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::wire::http1::request::parse_request;

    const FIELDS: [(&str, &str); 5] = [
        ("Host", "localhost"),
        ("Origin", "http://localhost"),
        ("Authorization", "Bearer some-token-of-an-agent"),
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
    ];

    fn text(fields: &[(&str, &str)]) -> String {
        let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("POST /mcp HTTP/1.1\r\n{lines}\r\n")
    }

    fn with<R>(fields: &[(&str, &str)], look: impl FnOnce(Option<Shown<'_>>) -> R) -> R {
        let (text, mut head) = (text(fields), RequestHead::default());
        parse_request(text.as_bytes(), 0, &mut head).unwrap();
        look(Shown::of(&head, text.as_bytes()))
    }

    fn agent(id: &str) -> Principal {
        Principal::Agent(Arc::from(id))
    }

    #[test]
    fn only_the_very_same_is_let_in_again() {
        let noted = with(&FIELDS, |shown| Remembered::note(None, shown.unwrap(), 7, &agent("alpha"))).unwrap();
        let again = |fields: &[(&str, &str)], generation| {
            with(fields, |shown| shown.and_then(|shown| noted.again(shown, generation).cloned()))
        };
        assert_eq!(again(&FIELDS, 7), Some(agent("alpha")));
        assert_eq!(again(&FIELDS, 8), None, "other settings or credentials");
        for at in 0..FIELDS.len() {
            // One byte less, one byte else.
            let (own, mut other) = (FIELDS[at].1, FIELDS[at].1.to_owned());
            other.replace_range(own.len() - 1.., "z");
            for value in [&own[..own.len() - 1], &other] {
                let mut fields = FIELDS;
                fields[at].1 = value;
                assert_eq!(again(&fields, 7), None, "{fields:?}");
            }
            if FIELDS[at].0 != "Host" {
                let rest: Vec<_> =
                    FIELDS.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, f)| *f).collect();
                assert_eq!(again(&rest, 7), None, "{rest:?}");
            }
        }
        // Any single bit of the token.
        let token = FIELDS[2].1;
        for at in 7..token.len() {
            let mut other = token.as_bytes().to_vec();
            other[at] ^= 1;
            let other = String::from_utf8(other).unwrap();
            let mut fields = FIELDS;
            fields[2].1 = &other;
            assert_eq!(again(&fields, 7), None, "{other}");
        }
        // The bytes of two values together, parted elsewhere.
        let mut fields = FIELDS;
        (fields[0].1, fields[1].1) = ("localhosth", "ttp://localhost");
        assert_eq!(again(&fields, 7), None);
    }

    #[test]
    fn what_is_judged_by_more_than_its_values_is_judged_each_time() {
        for odd in [("Content-Encoding", "gzip"), ("Accept", "text/html")] {
            let fields: Vec<_> = FIELDS.into_iter().chain([odd]).collect();
            assert!(with(&fields, |shown| shown.is_none()), "{odd:?}");
        }
        let long = "x".repeat(MAX_SHOWN);
        let mut fields = FIELDS;
        fields[2].1 = &long;
        assert!(with(&fields, |shown| Remembered::note(None, shown.unwrap(), 1, &agent("alpha"))).is_none());
    }

    #[test]
    fn a_tag_is_that_of_who_is_asked_for() {
        let first = with(&FIELDS, |shown| Remembered::note(None, shown.unwrap(), 1, &agent("alpha")));
        let tags = |noted: &Remembered| (noted.tag_of(&agent("alpha")), noted.tag_of(&agent("beta")));
        let expected = (agent("alpha").tag(), agent("beta").tag());
        assert_eq!(tags(first.as_ref().unwrap()), expected);
        let second = with(&FIELDS, |shown| Remembered::note(first, shown.unwrap(), 2, &agent("beta"))).unwrap();
        assert_eq!(tags(&second), expected);
        assert_eq!(with(&FIELDS, |shown| second.again(shown.unwrap(), 2).cloned()), Some(agent("beta")));
    }
}
