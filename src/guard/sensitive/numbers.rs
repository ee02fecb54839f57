//! Card numbers and social security numbers.

use super::{Found, Kind};

/// ISO/IEC 7812-1: at most 19 digits. The shortest in use has 12.
const MAX_CARD_DIGITS: usize = 19;
const MIN_CARD_DIGITS: usize = 12;

/// Looks at every run of digits, single separators included.
pub(super) fn each(text: &[u8], found: &mut impl FnMut(Found)) {
    let mut at = 0;
    while let Some(start) = next_digit(text, at) {
        let run = Run::read(text, start);
        at = run.end;
        if run.stands_alone(text, start)
            && let Some(kind) = run.kind()
        {
            found(Found { kind, of: "", place: start..run.end });
        }
    }
}

fn next_digit(text: &[u8], at: usize) -> Option<usize> {
    text.get(at..)?.iter().position(u8::is_ascii_digit).and_then(|offset| at.checked_add(offset))
}

/// Digits in groups, with one and the same separator between them.
struct Run {
    digits: arrayvec::ArrayVec<u8, MAX_CARD_DIGITS>,
    /// The lengths of the groups.
    groups: arrayvec::ArrayVec<u8, 8>,
    /// More digits or groups than anything that is looked for.
    is_longer: bool,
    end: usize,
}

impl Run {
    fn read(text: &[u8], start: usize) -> Self {
        let mut run = Self { digits: Default::default(), groups: Default::default(), is_longer: false, end: start };
        let mut separator = None;
        let mut at = start;
        let mut group = 0u8;
        loop {
            match text.get(at) {
                Some(digit @ b'0'..=b'9') => {
                    run.is_longer |= run.digits.try_push(digit & 15).is_err();
                    group = group.saturating_add(1);
                    at = at.saturating_add(1);
                    run.end = at;
                }
                Some(&byte @ (b' ' | b'-' | b'.')) if separator.is_none_or(|known| known == byte) && group > 0 => {
                    if !text.get(at.saturating_add(1)).is_some_and(u8::is_ascii_digit) {
                        break;
                    }
                    separator = Some(byte);
                    run.is_longer |= run.groups.try_push(group).is_err();
                    group = 0;
                    at = at.saturating_add(1);
                }
                _ => break,
            }
        }
        run.is_longer |= run.groups.try_push(group).is_err();
        run
    }

    /// Whether it is no part of a longer word, number or version.
    fn stands_alone(&self, text: &[u8], start: usize) -> bool {
        let is_part =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'/' | b'=' | b'+' | b'%' | b'#');
        let before = start.checked_sub(1).and_then(|at| text.get(at));
        let after = text.get(self.end);
        // In JSON an escaped line end stands before it as a letter: `\n4111…`.
        let escaped = matches!(before, Some(b'n' | b't' | b'r'))
            && start.checked_sub(2).and_then(|at| text.get(at)) == Some(&b'\\');
        !self.is_longer
            && (escaped || !before.is_some_and(is_part) && !matches!(before, Some(b'.' | b'-')))
            && !after.is_some_and(is_part)
    }

    fn kind(&self) -> Option<Kind> {
        match self.digits.len() {
            9 => (*self.groups == [3, 2, 4] && self.is_social_security_number()).then_some(Kind::SocialSecurityNumber),
            MIN_CARD_DIGITS..=MAX_CARD_DIGITS => {
                (self.is_grouped_like_a_card() && self.is_card()).then_some(Kind::CardNumber)
            }
            _ => None,
        }
    }

    /// Whether the number can have been given out: no area 000, 666 or 900 and above, no group 00, no serial 0000; and it is none of the two
    /// that are known from advertisements.
    fn is_social_security_number(&self) -> bool {
        let [a, b, c, d, e, f, g, h, i] = *self.digits else { return false };
        let area = number(&[a, b, c]);
        let (group, serial) = (number(&[d, e]), number(&[f, g, h, i]));
        area != 0
            && area != 666
            && area < 900
            && group != 0
            && serial != 0
            && !matches!((area, group, serial), (78, 5, 1120) | (219, 9, 9999))
    }

    /// In one piece, or in the groups that are printed on cards: fours, or 4-6-5 and 4-6-4.
    fn is_grouped_like_a_card(&self) -> bool {
        match self.groups.as_slice() {
            [_] | [4, 6, 4 | 5] => true,
            [fours @ .., last] => fours.len() >= 2 && fours.iter().all(|&group| group == 4) && *last <= 4,
            [] => false,
        }
    }

    fn is_card(&self) -> bool {
        is_of_issuer(&self.digits)
            && passes_luhn(&self.digits)
            && self.digits.iter().any(|digit| self.digits.first() != Some(digit))
    }
}

fn number(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |number: u32, &digit| number.saturating_mul(10).saturating_add(u32::from(digit)))
}

/// ISO/IEC 7812-1, annex B.
fn passes_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| match (place % 2, u32::from(digit)) {
            (0, digit) => digit,
            (_, digit @ 0..=4) => digit * 2,
            (_, digit) => digit * 2 - 9,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Prefixes and lengths of the card schemes.
fn is_of_issuer(digits: &[u8]) -> bool {
    let len = digits.len();
    let prefix = number(digits.get(..6).unwrap_or_default());
    let (two, three, four) = (prefix / 10_000, prefix / 1_000, prefix / 100);
    match prefix / 100_000 {
        4 => matches!(len, 13 | 16 | 19),                // Visa
        5 if (51..=55).contains(&two) => len == 16,      // Mastercard
        2 if (2221..=2720).contains(&four) => len == 16, // Mastercard
        3 if two == 34 || two == 37 => len == 15,        // American Express
        3 if (300..=305).contains(&three) || matches!(two, 36 | 38 | 39) => (14..=19).contains(&len), // Diners Club
        3 if (3528..=3589).contains(&four) => (16..=19).contains(&len), // JCB
        6 if four == 6011 || (644..=649).contains(&three) || two == 65 => (16..=19).contains(&len), // Discover
        6 if two == 62 => (16..=19).contains(&len),      // UnionPay
        5 | 6 if two == 50 || (56..=58).contains(&two) || two == 63 || two == 67 => (13..=19).contains(&len), // Maestro
        2 if (2200..=2204).contains(&four) => (16..=19).contains(&len), // Mir
        _ => false,
    }
}
