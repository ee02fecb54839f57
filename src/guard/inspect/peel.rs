//! Disguises, taken off one layer at a time: percent signs, HTML entities, escapes of JavaScript, and characters that look or count like others.
//!
//! What comes out is in lower case and is only looked at, never sent. Line ends that were hidden come out as marks of their own ([`HIDDEN_LF`],
//! [`HIDDEN_CR`]): a line end in a mail is one, a line end that hides is an attack's. One pass, never longer than what went in.

use super::text::{byte, part, rest, run};

/// A line feed that was encoded.
pub(super) const HIDDEN_LF: u8 = 0x1E;
/// A carriage return that was encoded.
pub(super) const HIDDEN_CR: u8 = 0x1D;
/// An encoded separator of another kind that lenient decoders take for a slash.
const SLASH: u8 = b'/';

/// What was taken off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Peeled {
    /// Anything at all.
    pub(super) changed: bool,
    /// Sequences of bytes that no encoder writes: overlong or cut UTF-8 behind percent signs.
    pub(super) overlong: u32,
    /// Zero bytes that stood behind a percent sign.
    pub(super) nuls: u32,
    /// Escapes of characters that stand for a dot or a slash (`%2e`, `%2f`, `%5c`, `%uff0e`).
    pub(super) dots: u32,
}

/// Takes one layer of disguises off `text`, which is in lower case, into `out`.
pub(super) fn peel(text: &[u8], out: &mut Vec<u8>) -> Peeled {
    out.clear();
    out.reserve(text.len());
    let mut state = Peeled::default();
    let is_form = memchr::memchr(b'+', text).is_some() && memchr::memchr2(b' ', b'\n', text).is_none();
    let mut at = 0;
    while let Some(&next) = text.get(at) {
        let used = match next {
            b'%' => percent(text, at, out, &mut state),
            b'&' => entity(text, at, out, &mut state),
            b'\\' => escape(text, at, out, &mut state),
            b'0' if matches!(part(text, at, at.saturating_add(4)), b"0x2e" | b"0x2f" | b"0x5c") => {
                state.changed = true;
                out.push(
                    hex(part(text, at.saturating_add(2), at.saturating_add(4)))
                        .and_then(|code| u8::try_from(code).ok())
                        .unwrap_or(SLASH),
                );
                4
            }
            b'+' if is_form => {
                out.push(b' ');
                state.changed = true;
                1
            }
            0xC2 | 0xE2 | 0xEF | 0xE3 | 0xF0 => lookalike(text, at, out, &mut state),
            _ => {
                // The run up to the next byte that may begin a disguise.
                let end = run(text, at.saturating_add(1), |next| {
                    !matches!(next, b'%' | b'&' | b'\\' | b'+' | b'0' | 0xC2 | 0xE2 | 0xE3 | 0xEF | 0xF0)
                });
                out.extend_from_slice(part(text, at, end));
                end.saturating_sub(at)
            }
        };
        at = at.saturating_add(used.max(1));
    }
    state
}

fn hex(digits: &[u8]) -> Option<u32> {
    let mut value = 0u32;
    for &digit in digits {
        value = value.checked_mul(16)?.checked_add(char::from(digit).to_digit(16)?)?;
    }
    (!digits.is_empty()).then_some(value)
}

/// The byte of `%xx` at `at`.
fn octet(text: &[u8], at: usize) -> Option<u8> {
    if byte(text, at) != b'%' {
        return None;
    }
    let digits = text.get(at.saturating_add(1)..at.saturating_add(3))?;
    hex(digits).and_then(|value| u8::try_from(value).ok())
}

fn push(out: &mut Vec<u8>, value: u8) {
    out.push(match value {
        b'\n' => HIDDEN_LF,
        b'\r' => HIDDEN_CR,
        _ => value.to_ascii_lowercase(),
    });
}

/// `%xx`, `%uxxxx`, and UTF-8 written so, overlong or not.
fn percent(text: &[u8], at: usize, out: &mut Vec<u8>, state: &mut Peeled) -> usize {
    if byte(text, at.saturating_add(1)) == b'u' {
        if let Some(code) = text.get(at.saturating_add(2)..at.saturating_add(6)).and_then(hex) {
            state.changed = true;
            let plain = look_of(code);
            if let Some(plain) = plain
                && matches!(plain, b'.' | b'/' | b'\\')
            {
                state.dots = state.dots.saturating_add(1);
            }
            push_code(out, code, plain);
            return 6;
        }
        out.push(b'%');
        return 1;
    }
    let Some(lead) = octet(text, at) else {
        out.push(b'%');
        return 1;
    };
    state.changed = true;
    match lead {
        0 => state.nuls = state.nuls.saturating_add(1),
        // Decoders of old take a space that does not break for one that does.
        0xA0 if out.last().is_none_or(u8::is_ascii) => {
            out.push(b' ');
            return 3;
        }
        // What file systems leave out.
        1..=8 => return 3,
        b'.' | b'/' | b'\\' => state.dots = state.dots.saturating_add(1),
        _ => {}
    }
    let (more, mut code) = match lead {
        0xC0 | 0xC1 => (1, u32::from(lead & 0x1F)),
        0xE0 => (2, 0),
        0xF0 => (3, 0),
        0xF8 => (4, 0),
        0xFC => (5, 0),
        _ => {
            push(out, lead);
            return 3;
        }
    };
    let mut here = at.saturating_add(3);
    for _ in 0..more {
        let (next, len) = match octet(text, here) {
            Some(next) => (next, 3),
            // Lenient decoders take the next byte as it is.
            None if here < text.len() && matches!(lead, 0xC0 | 0xC1) => (byte(text, here), 1),
            None => break,
        };
        code = code << 6 | u32::from(next & 0x3F);
        here = here.saturating_add(len);
        if matches!(lead, 0xC0 | 0xC1) && matches!(next, b'.' | b'/' | b'\\') {
            code = u32::from(next);
        }
    }
    if code >= 0x80 && matches!(lead, 0xE0 | 0xF0) {
        // Not overlong: an honest character.
        push(out, lead);
        return 3;
    }
    state.overlong = state.overlong.saturating_add(1);
    push(out, u8::try_from(code & 0x7F).unwrap_or(SLASH));
    here.saturating_sub(at)
}

/// The sign that a character looks like, or that lenient decoders make of it.
fn look_of(code: u32) -> Option<u8> {
    match code {
        0..0x80 => u8::try_from(code).ok(),
        0xFF01..=0xFF5E => u8::try_from(code.saturating_sub(0xFEE0)).ok(),
        0xA0 | 0x2000..=0x200A | 0x202F | 0x205F | 0x3000 => Some(b' '),
        0x2018 | 0x2019 | 0x02B9 | 0x02BC | 0x2032 => Some(b'\''),
        0x201C | 0x201D | 0x02BA | 0x2033 => Some(b'"'),
        0x2024 => Some(b'.'),
        0x2044 | 0x2215 | 0x29F8 | 0xEFC8 | 0xF025 => Some(SLASH),
        0x2216 | 0x29F5 | 0xFE68 => Some(b'\\'),
        0x2039 | 0x3008 | 0x2329 => Some(b'<'),
        0x203A | 0x3009 | 0x232A => Some(b'>'),
        0xFE64 => Some(b'<'),
        0xFE65 => Some(b'>'),
        0x1D400..=0x1D6A3 => {
            let letter = (code.saturating_sub(0x1D400)) % 52;
            u8::try_from(letter % 26).ok().map(|letter| b'a'.saturating_add(letter))
        }
        _ => None,
    }
}

/// Characters without width.
fn is_invisible(code: u32) -> bool {
    matches!(code, 0xAD | 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x2064 | 0xFEFF | 0xFE00..=0xFE0F)
}

fn push_code(out: &mut Vec<u8>, code: u32, plain: Option<u8>) {
    match plain {
        Some(plain) => push(out, plain),
        None if is_invisible(code) => {}
        None => {
            let mut buffer = [0u8; 4];
            let written = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut buffer);
            out.extend_from_slice(written.as_bytes());
        }
    }
}

/// A character of several bytes that looks like one of ours, or like nothing.
fn lookalike(text: &[u8], at: usize, out: &mut Vec<u8>, state: &mut Peeled) -> usize {
    let len = match byte(text, at) {
        0xC2 => 2,
        0xF0 => 4,
        _ => 3,
    };
    let bytes = part(text, at, at.saturating_add(len));
    let code = std::str::from_utf8(bytes).ok().and_then(|text| text.chars().next()).map(u32::from);
    match code {
        Some(code) if is_invisible(code) => state.changed = true,
        Some(code) => match look_of(code) {
            Some(plain) => {
                state.changed = true;
                push(out, plain);
            }
            None => out.extend_from_slice(bytes),
        },
        None => {
            out.push(byte(text, at));
            return 1;
        }
    }
    len
}

/// The names of characters that carry an attack.
const NAMES: [(&[u8], u8); 30] = [
    (b"amp", b'&'),
    (b"apos", b'\''),
    (b"ast", b'*'),
    (b"bsol", b'\\'),
    (b"colon", b':'),
    (b"comma", b','),
    (b"commat", b'@'),
    (b"dollar", b'$'),
    (b"equals", b'='),
    (b"excl", b'!'),
    (b"grave", b'`'),
    (b"gt", b'>'),
    (b"lbrace", b'{'),
    (b"lbrack", b'['),
    (b"lcub", b'{'),
    (b"lowbar", b'_'),
    (b"lpar", b'('),
    (b"lsqb", b'['),
    (b"lt", b'<'),
    (b"newline", b'\n'),
    (b"num", b'#'),
    (b"percnt", b'%'),
    (b"period", b'.'),
    (b"quot", b'"'),
    (b"rpar", b')'),
    (b"rsqb", b']'),
    (b"semi", b';'),
    (b"sol", b'/'),
    (b"tab", b'\t'),
    (b"verbar", b'|'),
];

/// `&#60;`, `&#x3c`, `&lt;`. Numbers end without a semicolon too, as browsers read them.
fn entity(text: &[u8], at: usize, out: &mut Vec<u8>, state: &mut Peeled) -> usize {
    let inside = at.saturating_add(1);
    if byte(text, inside) == b'#' {
        let is_hex = byte(text, inside.saturating_add(1)) == b'x';
        let digits_at = inside.saturating_add(if is_hex { 2 } else { 1 });
        let end = run(text, digits_at, |next| if is_hex { next.is_ascii_hexdigit() } else { next.is_ascii_digit() });
        let digits = part(text, digits_at, end);
        let significant = rest(digits, digits.iter().take_while(|&&digit| digit == b'0').count());
        let code = if is_hex {
            hex(significant)
        } else {
            std::str::from_utf8(significant).ok().and_then(|digits| digits.parse().ok())
        };
        if let Some(code) = code.filter(|_| significant.len() <= 7) {
            state.changed = true;
            push_code(out, code, look_of(code));
            let semicolon = usize::from(byte(text, end) == b';');
            return end.saturating_add(semicolon).saturating_sub(at);
        }
    } else if byte(text, inside).is_ascii_lowercase() {
        let end = run(text, inside, |next| next.is_ascii_lowercase());
        let name = part(text, inside, end);
        let ends = byte(text, end) == b';';
        if let Some((_, plain)) = NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .filter(|_| ends || matches!(name, b"lt" | b"gt" | b"quot" | b"amp"))
        {
            state.changed = true;
            push(out, *plain);
            return end.saturating_add(usize::from(ends)).saturating_sub(at);
        }
    }
    out.push(b'&');
    1
}

/// `\x3c`, `\u003c`, `\u{3c}`.
fn escape(text: &[u8], at: usize, out: &mut Vec<u8>, state: &mut Peeled) -> usize {
    let kind = byte(text, at.saturating_add(1));
    let digits_at = at.saturating_add(2);
    let (code, len) = match kind {
        b'x' => (text.get(digits_at..digits_at.saturating_add(2)).and_then(hex), 4),
        b'u' if byte(text, digits_at) == b'{' => {
            let inside = digits_at.saturating_add(1);
            let end = run(part(text, 0, inside.saturating_add(8)), inside, |next| next.is_ascii_hexdigit());
            let closed = byte(text, end) == b'}';
            (text.get(inside..end).and_then(hex).filter(|_| closed), end.saturating_add(1).saturating_sub(at))
        }
        b'u' => (text.get(digits_at..digits_at.saturating_add(4)).and_then(hex), 6),
        _ => (None, 1),
    };
    match code {
        Some(code) if code > 0 => {
            state.changed = true;
            push_code(out, code, look_of(code));
            len
        }
        _ => {
            out.push(b'\\');
            1
        }
    }
}

/// Whether there is anything that may be a disguise.
pub(super) fn may(text: &[u8]) -> bool {
    memchr::memchr3(b'%', b'&', b'\\', text).is_some()
        || memchr::memchr3(0xC2, 0xE2, 0xEF, text).is_some()
        || memchr::memchr3(b'+', 0xE3, 0xF0, text).is_some()
        || memchr::memmem::find(text, b"0x").is_some()
}
