//! UTF-8 checked while it arrives (RFC 6455 §8.1, RFC 3629 §4).
//!
//! A text may be cut anywhere, also within a character. What is refused is refused with the first byte that no further
//! byte can mend, as `F4 90` is; up to three bytes of an unfinished character are remembered as what may follow them.

/// The bytes seen so far are not, and cannot become, UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotUtf8;

/// What the character that is being read still needs. The default stands between two characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Utf8 {
    /// Bytes that are missing, 0 to 3.
    missing: u8,
    /// The next of them lies in `low..=high`.
    low: u8,
    high: u8,
}

impl Utf8 {
    /// Takes in the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), NotUtf8> {
        let mut rest = bytes;
        while self.missing > 0 {
            let Some((first, behind)) = rest.split_first() else { return Ok(()) };
            self.step(*first)?;
            rest = behind;
        }
        match simdutf8::compat::from_utf8(rest) {
            Ok(_) => Ok(()),
            // What follows is an unfinished character, or within four bytes an error.
            Err(error) => {
                let unfinished = rest.get(error.valid_up_to()..).unwrap_or_default();
                unfinished.iter().try_for_each(|byte| self.step(*byte))
            }
        }
    }

    /// Whether the last character is finished.
    pub(super) fn is_complete(self) -> bool {
        self.missing == 0
    }

    /// One byte, by the grammar of RFC 3629 §4.
    fn step(&mut self, byte: u8) -> Result<(), NotUtf8> {
        if self.missing > 0 {
            if !(self.low..=self.high).contains(&byte) {
                return Err(NotUtf8);
            }
            *self = Utf8 { missing: self.missing.saturating_sub(1), low: 0x80, high: 0xbf };
            return Ok(());
        }
        let (missing, low, high) = match byte {
            0x00..=0x7f => (0, 0, 0),
            0xc2..=0xdf => (1, 0x80, 0xbf),
            0xe0 => (2, 0xa0, 0xbf),
            0xe1..=0xec | 0xee | 0xef => (2, 0x80, 0xbf),
            0xed => (2, 0x80, 0x9f),
            0xf0 => (3, 0x90, 0xbf),
            0xf1..=0xf3 => (3, 0x80, 0xbf),
            0xf4 => (3, 0x80, 0x8f),
            0x80..=0xc1 | 0xf5.. => return Err(NotUtf8),
        };
        *self = Utf8 { missing, low, high };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    /// How many bytes of `text`, given in pieces of `step`, are taken before one is refused, and whether the end is one
    /// of a character.
    fn taken(text: &[u8], step: usize) -> (usize, bool) {
        let mut utf8 = Utf8::default();
        for (index, piece) in text.chunks(step).enumerate() {
            if utf8.push(piece).is_err() {
                return (index * step, false);
            }
        }
        (text.len(), utf8.is_complete())
    }

    /// The same from the standard library: refused with the first byte after which no end makes it valid.
    fn expected(text: &[u8]) -> (usize, bool) {
        let refused = |end: &usize| std::str::from_utf8(&text[..*end]).is_err_and(|error| error.error_len().is_some());
        let end = (0..=text.len()).find(refused).map_or(text.len(), |end| end - 1);
        (end, end == text.len() && std::str::from_utf8(text).is_ok())
    }

    #[test]
    fn fails_with_the_first_byte_that_nothing_can_mend() {
        let table: [(&str, &[u8], usize, bool); 17] = [
            ("nothing", b"", 0, true),
            ("ascii", b"abc", 3, true),
            ("two", b"\xc3\xa9", 2, true),
            ("unfinished two", b"\xc3", 1, false),
            ("four", b"\xf0\x9f\x98\x80", 4, true),
            ("unfinished four", b"\xf0\x9f\x98", 3, false),
            ("last character", b"\xf4\x8f\xbf\xbf", 4, true),
            ("behind the last", b"\xce\xba\xf4\x90\x80\x80", 3, false),
            ("surrogate", b"\xed\xa0\x80", 1, false),
            ("before the surrogates", b"\xed\x9f\xbf", 3, true),
            ("overlong two", b"\xc0\xaf", 0, false),
            ("overlong three", b"\xe0\x80\xaf", 1, false),
            ("overlong four", b"\xf0\x80\x80\xaf", 1, false),
            ("continuation first", b"\x80", 0, false),
            ("five bytes", b"\xf8\x88\x80\x80\x80", 0, false),
            ("noncharacter", b"\xef\xbf\xbf", 3, true),
            ("start inside", b"\xe2\xc3\xa9", 1, false),
        ];
        for (name, text, end, complete) in table {
            assert_eq!(taken(text, 1), (end, complete), "{name}");
            assert_eq!(expected(text), (end, complete), "{name}, std");
        }
    }

    /// All sequences of two bytes, and all of three with a lead byte.
    #[test]
    fn short_sequences() {
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                assert_eq!(taken(&[first, second], 1), expected(&[first, second]), "{first:#x} {second:#x}");
                if first >= 0xe0 {
                    for third in [0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff] {
                        let text = [first, second, third];
                        assert_eq!(taken(&text, 1), expected(&text), "{text:x?}");
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            start in "[a-zé\u{20ac}\u{10348}]{0,100}",
            odd in prop::collection::vec(any::<u8>(), 0..4),
            end in "[é\u{ffff}\u{10ffff}]{0,3}",
            step in 1usize..90,
        ) {
            let text = [start.as_bytes(), &odd, end.as_bytes()].concat();
            let (until, complete) = expected(&text);
            prop_assert_eq!(taken(&text, 1), (until, complete));
            let (pieces, complete_in_pieces) = taken(&text, step);
            prop_assert_eq!(complete_in_pieces, complete);
            prop_assert_eq!(pieces, if until == text.len() { until } else { until / step * step });
        }
    }
}
