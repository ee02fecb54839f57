//! What a call costs, from its arguments; and what an upstream says that it has cost. Micro-dollars, never floats.
//!
//! A text message is charged by its segments, as carriers count them (3GPP TS 23.038, 23.040): 160 septets of the GSM 7-bit alphabet, or
//! 153 a segment where there are several, in which the characters of the extension table take two; a text with any other character is
//! UCS-2, with 70 or 67 units of 16 bits. No character is divided between two segments.
//!
//! What cannot be told for certain is taken at its dearest: where servers could read the text from one argument or from another
//! that differs in the case of its letters, the longer one counts.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use crate::rpc::lookalike::is_lookalike;
use crate::rpc::{Envelope, scan};
use crate::settings::policy::Price;
use crate::span::Span;
use crate::state::spend::MAX_MICROUSD;

/// The GSM 7-bit default alphabet beyond ASCII.
const BEYOND_ASCII: &str = "£¥èéùìòÇØøÅåΔΦΓΛΩΠΨΣΘΞÆæßÉ¤¡ÄÖÑÜ§¿äöñüà";
/// Characters of ASCII that it lacks; some of them are in its extension table.
const NOT_OF_ASCII: &str = "`";
/// The extension table: each is two septets.
const EXTENSION: &str = "\u{c}^{}\\[~]|€";

/// The argument that the price depends on is there, and not a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpriceable;

/// What is reserved for a call. `text` names the argument with the text of a message.
///
/// # Errors
/// [`Unpriceable`].
pub fn of_call(price: Price, text: Option<&str>, envelope: &Envelope, raw: &[u8]) -> Result<u64, Unpriceable> {
    let microusd = match price {
        Price::Fixed { microusd } => microusd,
        Price::PerMinute { microusd, max_minutes } => microusd.saturating_mul(max_minutes.into()),
        Price::PerSegment { microusd } => {
            let most = segments_of(text.unwrap_or_default(), envelope.arguments, raw)?;
            microusd.saturating_mul(most)
        }
    };
    Ok(microusd.min(MAX_MICROUSD))
}

/// The segments of the longest of the arguments that a server could read the text from; 1 where there is none.
fn segments_of(name: &str, arguments: Option<Span>, raw: &[u8]) -> Result<u64, Unpriceable> {
    let Some(arguments) = arguments else { return Ok(1) };
    let mut most = 1;
    for (key, value) in scan::members(raw, arguments) {
        let key = key.decode(raw);
        if key != name && !is_lookalike(&key, name) {
            continue;
        }
        let text = scan::text(raw, value).ok_or(Unpriceable)?;
        most = most.max(segments(&text.decode(raw)));
    }
    Ok(most)
}

/// The segments of an SMS; an empty one is one.
#[must_use]
pub fn segments(text: &str) -> u64 {
    match text.chars().map(septets).sum::<Option<u64>>() {
        Some(..=160) => 1,
        Some(_) => filled(text.chars().map(|character| septets(character).unwrap_or(1)), 153),
        None if text.chars().map(units).sum::<u64>() <= 70 => 1,
        None => filled(text.chars().map(units), 67),
    }
}

/// How many septets a character takes; `None`: it is not of the alphabet.
fn septets(character: char) -> Option<u64> {
    if EXTENSION.contains(character) {
        return Some(2);
    }
    let is_plain = matches!(character, ' '..='~' | '\n' | '\r') && !NOT_OF_ASCII.contains(character);
    (is_plain || BEYOND_ASCII.contains(character)).then_some(1)
}

/// How many units of UTF-16 a character takes.
fn units(character: char) -> u64 {
    if u32::from(character) > 0xFFFF { 2 } else { 1 }
}

/// The segments that characters of these lengths fill.
fn filled(lengths: impl Iterator<Item = u64>, room: u64) -> u64 {
    let (mut segments, mut used) = (1, 0);
    for length in lengths {
        if used + length > room {
            (segments, used) = (segments + 1, 0);
        }
        used += length;
    }
    segments
}

/// What a response says at `pointer` (RFC 6901) of its result: dollars, as a number or as a string that is one. Providers write what they take
/// with a minus; its amount is what counts. Fractions of a micro-dollar are rounded up. `None`: it says nothing that can be read.
#[must_use]
pub fn told(pointer: &str, result: Span, raw: &[u8]) -> Option<u64> {
    let value = at(pointer, result, raw)?;
    match scan::text(raw, value) {
        Some(text) => microusd(text.decode(raw).as_bytes()),
        None => microusd(value.of(raw)),
    }
}

/// The value that a JSON pointer leads to.
fn at(pointer: &str, root: Span, raw: &[u8]) -> Option<Span> {
    let mut here = root;
    for token in pointer.split('/').skip(1) {
        let name = token.replace("~1", "/").replace("~0", "~");
        here = match raw.get(here.start as usize)? {
            b'{' => scan::member(raw, here, &name)?,
            b'[' => scan::elements(raw, here).nth(name.parse().ok()?)?,
            _ => return None,
        };
    }
    Some(here)
}

/// Micro-dollars of a decimal number of dollars as JSON writes it, rounded up, its sign left off. `None`: it is none, or too large.
fn microusd(text: &[u8]) -> Option<u64> {
    const MAX_DIGITS: usize = 40;
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (text.get(..at)?, std::str::from_utf8(text.get(at + 1..)?).ok()?.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
        Some(at) => (mantissa.get(..at)?, mantissa.get(at + 1..)?),
        None => (mantissa, &b"0"[..]),
    };
    let are_digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    if !are_digits(whole) || !are_digits(fraction) || mantissa.len() > MAX_DIGITS || !(-64..=64).contains(&exponent) {
        return None;
    }
    // The point moves by the exponent, and by six for micro-dollars.
    let point = i32::try_from(whole.len()).ok()?.checked_add(exponent)?.checked_add(6)?;
    let (mut microusd, mut is_more) = (0u64, false);
    for (digit, place) in whole.iter().chain(fraction).zip(0i32..) {
        if place < point {
            microusd = microusd.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        } else {
            is_more |= *digit != b'0';
        }
    }
    let digits = i32::try_from(whole.len() + fraction.len()).ok()?;
    for _ in digits..point {
        microusd = microusd.checked_mul(10)?;
    }
    microusd.checked_add(u64::from(is_more)).filter(|microusd| *microusd <= MAX_MICROUSD)
}

#[cfg(test)]
#[path = "price_tests.rs"]
mod tests;
