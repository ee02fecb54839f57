//! Pseudonyms: what stands in the trail in place of a person's address, number or e-mail address.
//!
//! A pseudonym is `ip:`, `phone:` or `email:` and 80 bits of HMAC-SHA-256 over the value in its usual form, in base 32, under a key of its own
//! for each kind. The same value has the same pseudonym for as long as `pseudonym.key` lives; who has the key can say what the pseudonym of a
//! value is, and nobody can go the other way but by trying values.
//!
//! [`Pseudonyms`] is the only place where a value becomes a pseudonym. Keys of single persons, which can be destroyed, will come in here: a kind's
//! key then stands behind a person's.
//!
//! In free text ([`Pseudonyms::replaced`]) are found: addresses, also with a port; words with an `@` between other characters; a `+` followed by 7 to 15
//! digits, with the usual separators. Not found are numbers without their `+`: they cannot be told from any other number. Code that knows a
//! value to be a number says so itself.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use arrayvec::ArrayString;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::line::keyed;
use crate::control::keys::Key;

/// The key file's name in `DATA_DIR`.
pub const KEY_FILE: &str = "pseudonym.key";

/// A pseudonym: at most `email:` and 16 digits.
pub type Pseudonym = ArrayString<24>;

/// Addresses whose pseudonyms are kept, a power of two. At 48 bytes each, 24 KiB.
const KEPT: usize = 512;
/// Digits of a number in the international form (E.164): at most 15; less than 7 are something else.
const DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

/// Computes pseudonyms.
#[derive(Clone)]
pub struct Pseudonyms {
    ip: Hmac<Sha256>,
    phone: Hmac<Sha256>,
    email: Hmac<Sha256>,
}

impl Pseudonyms {
    /// Under the key of [`KEY_FILE`].
    #[must_use]
    pub fn new(key: &Key) -> Self {
        let master = keyed(key);
        let purpose = |name: &str| {
            let mut mac = master.clone();
            mac.update(b"ringwall audit pseudonym ");
            mac.update(name.as_bytes());
            keyed(&Key::new(mac.finalize().into_bytes().into()))
        };
        Self { ip: purpose("ip"), phone: purpose("phone"), email: purpose("email") }
    }

    /// Of an address; IPv4 in IPv6 is the IPv4 address.
    #[must_use]
    pub fn ip(&self, ip: IpAddr) -> Pseudonym {
        // An IPv6 address has at most 45 characters.
        let mut text = ArrayString::<48>::new();
        let _ = write!(text, "{}", ip.to_canonical());
        pseudonym("ip:", &self.ip, text.as_bytes())
    }

    /// Of a telephone number, however its digits are separated. Its country code is part of it, with or without the `+`.
    #[must_use]
    pub fn phone(&self, number: &str) -> Pseudonym {
        let digits: String = number.chars().filter(char::is_ascii_digit).collect();
        pseudonym("phone:", &self.phone, digits.as_bytes())
    }

    /// Of an e-mail address; capitals do not matter.
    #[must_use]
    pub fn email(&self, address: &str) -> Pseudonym {
        pseudonym("email:", &self.email, address.to_lowercase().as_bytes())
    }

    /// Of a value, whichever kind it is. `None` when it is none of the three.
    #[must_use]
    pub fn of(&self, value: &str) -> Option<Pseudonym> {
        let value = value.trim();
        if let Ok(ip) = value.parse() {
            return Some(self.ip(ip));
        }
        if is_email(value) {
            return Some(self.email(value));
        }
        let number = phone_at(value)?;
        (number.end == value.len()).then(|| self.phone(value))
    }

    /// The text with every value in it replaced by its pseudonym. Allocates only when there is one.
    #[must_use]
    pub fn replaced<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !text.bytes().any(may_be_personal) {
            return Cow::Borrowed(text);
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some((place, pseudonym)) = self.first(rest) {
            out.push_str(rest.get(..place.start).unwrap_or_default());
            out.push_str(&pseudonym);
            rest = rest.get(place.end..).unwrap_or_default();
        }
        if rest.len() == text.len() {
            return Cow::Borrowed(text);
        }
        out.push_str(rest);
        Cow::Owned(out)
    }

    /// The first value in a text.
    fn first(&self, text: &str) -> Option<(Range<usize>, Pseudonym)> {
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let word = rest.get(..rest.find(|c| !is_of_word(c)).unwrap_or(rest.len())).unwrap_or_default();
            if word.is_empty() {
                at += rest.chars().next().map_or(1, char::len_utf8);
                continue;
            }
            if let Some((place, found)) = self.of_word(word, rest) {
                return Some((at + place.start..at + place.end, found));
            }
            at += word.len();
        }
        None
    }

    /// The first value in a word; a number may go on in the `rest` of the text that the word begins.
    fn of_word(&self, word: &str, rest: &str) -> Option<(Range<usize>, Pseudonym)> {
        if !word.bytes().any(may_be_personal) {
            return None;
        }
        let trimmed = word.trim_end_matches(['.', ':', '-']);
        for word in [word, trimmed] {
            if let Some((len, ip)) = address_at(word) {
                return Some((0..len, self.ip(ip)));
            }
        }
        let mut start = 0;
        for part in word.split(':') {
            let value = part.trim_matches(['.', '-']);
            let from = start + part.find(value).unwrap_or_default();
            if is_email(value) {
                return Some((from..from + value.len(), self.email(value)));
            }
            if let Ok(ip) = value.parse::<IpAddr>() {
                return Some((from..from + value.len(), self.ip(ip)));
            }
            if let Some(plus) = part.find('+').map(|plus| start + plus)
                && let Some(number) = rest.get(plus..).and_then(phone_at)
            {
                let number = plus..plus + number.end;
                return Some((number.clone(), self.phone(rest.get(number).unwrap_or_default())));
            }
            start += part.len() + 1;
        }
        None
    }
}

/// Pseudonyms of the last addresses: a client that sends much stands in many lines.
pub(super) struct Addresses {
    pseudonyms: Pseudonyms,
    kept: Box<[Option<(IpAddr, Pseudonym)>]>,
}

impl Addresses {
    pub(super) fn new(pseudonyms: Pseudonyms) -> Self {
        Self { pseudonyms, kept: vec![None; KEPT].into_boxed_slice() }
    }

    /// Whoever chooses addresses that share a place makes each of his lines cost one HMAC more, and nobody else's.
    pub(super) fn pseudonym(&mut self, ip: IpAddr) -> Pseudonym {
        let Some(place) = self.kept.get_mut(place_of(ip)) else { return self.pseudonyms.ip(ip) };
        match place {
            Some((kept, pseudonym)) if *kept == ip => *pseudonym,
            place => place.insert((ip, self.pseudonyms.ip(ip))).1,
        }
    }

    pub(super) fn pseudonyms(&self) -> &Pseudonyms {
        &self.pseudonyms
    }
}

fn place_of(ip: IpAddr) -> usize {
    let bits = match ip {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.octets().as_chunks::<8>().0.iter().fold(0, |bits, half| bits ^ u64::from_be_bytes(*half)),
    };
    // The upper bits of a product depend on all bits of its factor (Knuth's multiplicative hashing).
    usize::try_from(bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48).unwrap_or_default() & (KEPT - 1)
}

fn pseudonym(kind: &str, keyed: &Hmac<Sha256>, value: &[u8]) -> Pseudonym {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut mac = keyed.clone();
    mac.update(value);
    let mut out = Pseudonym::new();
    let _ = out.try_push_str(kind);
    for five in mac.finalize().into_bytes().as_slice().as_chunks::<5>().0.iter().take(2) {
        let bits = five.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        for shift in (0..8).rev() {
            let digit = usize::try_from(bits >> (5 * shift) & 31).ok().and_then(|digit| DIGITS.get(digit));
            let _ = out.try_push(char::from(digit.copied().unwrap_or_default()));
        }
    }
    out
}

/// Whether a text with this byte may hold a personal value. A text without one holds none.
pub(super) const fn may_be_personal(byte: u8) -> bool {
    matches!(byte, b'@' | b'+' | b':' | b'.')
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '+' | '-' | '@' | ':' | '…')
}

/// An address at the beginning of a word that has nothing behind it but a port, and how long it is.
fn address_at(word: &str) -> Option<(usize, IpAddr)> {
    if let Ok(ip) = word.parse::<IpAddr>() {
        return Some((word.len(), ip));
    }
    let address: SocketAddr = word.parse().ok()?;
    Some((word.rfind(':')?, address.ip()))
}

/// Cut texts end in `…`: an address that was cut is one all the same.
fn is_email(word: &str) -> bool {
    word.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
}

/// A number at the beginning of a text.
fn phone_at(text: &str) -> Option<Range<usize>> {
    let rest = text.strip_prefix('+')?;
    let (mut digits, mut end, mut separators) = (0, 0, 0);
    for (at, c) in rest.char_indices() {
        match c {
            '0'..='9' => {
                digits += 1;
                separators = 0;
                end = at + 2;
            }
            // `+1 (555) 123`: two at most between digits.
            ' ' | '-' | '.' | '(' | ')' | '/' if separators < 2 => separators += 1,
            _ => break,
        }
    }
    DIGITS.contains(&digits).then_some(0..end)
}

#[cfg(test)]
#[path = "pseudonym_tests.rs"]
mod tests;
