//! Where the secrets of an answer stand, and hiding them in place.
//!
//! Within a string each byte of a secret becomes a `*`, escapes included: what was `\n` is `**`, and the string is as long as before. A bare number
//! becomes a `0` with blanks behind it, which is JSON as well.

use crate::guard::sensitive::{self, Kind};
use crate::rpc::scan::{self, Decoded};
use crate::span::Span;

/// Bytes to be hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    start: usize,
    end: usize,
    /// A number without quotes.
    bare: bool,
}

impl Place {
    /// Hides them.
    pub(super) fn hide(self, bytes: &mut [u8]) {
        let Some(bytes) = bytes.get_mut(self.start..self.end) else { return };
        bytes.fill(if self.bare { b' ' } else { b'*' });
        if let Some(first) = bytes.first_mut().filter(|_| self.bare) {
            *first = b'0';
        }
    }
}

/// All that is to be hidden in the value at `span`; of what stands first, what it is and where.
pub(super) fn secrets(raw: &[u8], span: Span) -> (Vec<Place>, Option<(Kind, usize)>) {
    let mut found = Found { places: Vec::new(), first: None };
    let (mut at, end) = (span.start as usize, span.end as usize);
    while at < end {
        let rest = raw.get(at..end).unwrap_or_default();
        let quote = memchr::memchr(b'"', rest).map_or(end, |offset| at.saturating_add(offset));
        found.bare(raw, at..quote);
        let Some(close) = scan::string_end(raw, quote).filter(|_| quote < end) else { break };
        found.string(raw, quote.saturating_add(1)..close.saturating_sub(1));
        at = close;
    }
    for place in &mut found.places {
        // A key that was cut may end within a character: all of it goes.
        while raw.get(place.end).is_some_and(|byte| (0x80..0xC0).contains(byte)) {
            place.end = place.end.saturating_add(1);
        }
    }
    (found.places, found.first)
}

struct Found {
    places: Vec<Place>,
    first: Option<(Kind, usize)>,
}

impl Found {
    fn add(&mut self, kind: Kind, place: Place) {
        if self.first.is_none_or(|(_, at)| place.start < at) {
            self.first = Some((kind, place.start));
        }
        self.places.push(place);
    }

    /// What stands between two strings: of all that is looked for, only numbers can.
    fn bare(&mut self, raw: &[u8], range: std::ops::Range<usize>) {
        let between = raw.get(range.clone()).unwrap_or_default();
        if !between.iter().any(u8::is_ascii_digit) {
            return;
        }
        sensitive::each(between, |one| {
            // The whole number, whatever part of it looks like one: what is left must be a number.
            let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E');
            let before = between.get(..one.place.start).unwrap_or_default();
            let behind = between.get(one.place.end..).unwrap_or_default();
            let start = before.iter().rposition(|byte| !is_part(byte)).map_or(0, |at| at.saturating_add(1));
            let more = behind.iter().position(|byte| !is_part(byte)).unwrap_or(behind.len());
            let (start, end) = (start, one.place.end.saturating_add(more));
            let place =
                Place { start: range.start.saturating_add(start), end: range.start.saturating_add(end), bare: true };
            self.add(one.kind, place);
        });
    }

    /// What stands between the quotes of a string.
    fn string(&mut self, raw: &[u8], range: std::ops::Range<usize>) {
        let inner = raw.get(range.clone()).unwrap_or_default();
        if memchr::memchr(b'\\', inner).is_none() {
            sensitive::each(inner, |one| {
                let (start, end) = (one.place.start, one.place.end);
                let place = Place {
                    start: range.start.saturating_add(start),
                    end: range.start.saturating_add(end),
                    bare: false,
                };
                self.add(one.kind, place);
            });
            return;
        }
        let decoded: Vec<u8> = Decoded::new(inner).collect();
        let mut all = Vec::new();
        sensitive::each(&decoded, |one| all.push(one));
        all.sort_by_key(|one| (one.place.start, one.place.end));
        // One walk over the string for all of them: where each decoded byte stands.
        let mut walk = Walk { decoded: Decoded::new(inner), read: 0, raw: 0 };
        for one in all {
            // What lies within another is hidden with it, or was passed by.
            let start = walk.to(one.place.start);
            let mut behind = Walk { decoded: walk.decoded.clone(), ..walk };
            let end = behind.to(one.place.end);
            let place =
                Place { start: range.start.saturating_add(start), end: range.start.saturating_add(end), bare: false };
            self.add(one.kind, place);
        }
    }
}

/// Going along a string, decoded and raw.
struct Walk<'a> {
    decoded: Decoded<'a>,
    read: usize,
    /// The last border between characters or escapes.
    raw: usize,
}

impl Walk<'_> {
    /// Where the decoded byte `at` stands in the raw string: at the beginning of its escape.
    fn to(&mut self, at: usize) -> usize {
        while self.read < at && self.decoded.next().is_some() {
            self.read = self.read.saturating_add(1);
            self.raw = self.decoded.consumed().unwrap_or(self.raw);
        }
        self.raw
    }
}
