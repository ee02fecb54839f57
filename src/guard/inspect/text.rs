//! Bytes of a value, read without panicking: what is past the end reads as nought, which no rule asks for by chance, because a value
//! that holds one is refused before any other rule looks.

/// The byte at `at`, nought past the end.
#[inline]
pub(super) fn byte(text: &[u8], at: usize) -> u8 {
    text.get(at).copied().unwrap_or(0)
}

/// The rest from `at`; empty past the end.
#[inline]
pub(super) fn rest(text: &[u8], at: usize) -> &[u8] {
    text.get(at..).unwrap_or_default()
}

/// `from..to`, cut to what there is.
#[inline]
pub(super) fn part(text: &[u8], from: usize, to: usize) -> &[u8] {
    text.get(from..to.min(text.len())).unwrap_or_default()
}

/// May the byte stand in a word? Bytes of other scripts may.
#[inline]
pub(super) const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Does the byte separate words? Control characters do, as they do to the parsers behind us.
#[inline]
pub(super) const fn is_space(byte: u8) -> bool {
    byte <= b' '
}

/// One past the run of bytes from `at` that are `like`.
#[inline]
pub(super) fn run(text: &[u8], at: usize, like: impl Fn(u8) -> bool) -> usize {
    let mut end = at;
    while let Some(&next) = text.get(end)
        && like(next)
    {
        end = end.saturating_add(1);
    }
    end
}

/// One past the whitespace from `at`.
#[inline]
pub(super) fn skip_space(text: &[u8], at: usize) -> usize {
    run(text, at, is_space)
}

/// Where `needle` begins next, from `at`. For short needles; linear.
pub(super) fn find(text: &[u8], at: usize, needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(rest(text, at), needle).map(|found| at.saturating_add(found))
}

/// The word that ends before `at`; empty if none does.
pub(super) fn word_before(text: &[u8], at: usize) -> &[u8] {
    let mut start = at;
    while start > 0 && is_word(byte(text, start.saturating_sub(1))) && at.saturating_sub(start) < 32 {
        start = start.saturating_sub(1);
    }
    part(text, start, at)
}

/// Which signs a text has, one bit each: what has none of a rule's signs need not be read by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks(u32);

impl Marks {
    pub(super) const LESS: Self = Self(1);
    pub(super) const MORE: Self = Self(1 << 1);
    pub(super) const EQUALS: Self = Self(1 << 2);
    pub(super) const APOSTROPHE: Self = Self(1 << 3);
    pub(super) const QUOTE: Self = Self(1 << 4);
    pub(super) const BACKTICK: Self = Self(1 << 5);
    pub(super) const PARENTHESIS: Self = Self(1 << 6);
    pub(super) const BRACKET: Self = Self(1 << 7);
    /// `;`, `|`, `&`, hidden line ends.
    pub(super) const OPERATOR: Self = Self(1 << 8);
    pub(super) const DOLLAR: Self = Self(1 << 9);
    pub(super) const DOT: Self = Self(1 << 10);
    pub(super) const SLASH: Self = Self(1 << 11);
    pub(super) const BACKSLASH: Self = Self(1 << 12);
    pub(super) const PERCENT: Self = Self(1 << 13);
    pub(super) const LINE: Self = Self(1 << 14);
    /// `?`, `*`, `{`.
    pub(super) const WILDCARD: Self = Self(1 << 15);
    pub(super) const SPACE: Self = Self(1 << 16);
    /// Anything else that is no letter, digit, `_`, `-`, `.`, `:` or `@`.
    pub(super) const OTHER: Self = Self(1 << 17);
    pub(super) const LINE_HIDDEN: Self = Self(1 << 18);

    pub(super) fn of(text: &[u8]) -> Self {
        Self(text.iter().fold(0, |marks, &next| marks | TABLE.get(usize::from(next)).copied().unwrap_or(0)))
    }

    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Has it any of these?
    pub(super) const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Has it any but letters, digits and what joins them?
    pub(super) const fn is_more_than_a_word(self) -> bool {
        self.0 & !Self::DOT.0 != 0
    }

    const fn sign(byte: u8) -> Self {
        match byte {
            b'<' => Self::LESS,
            b'>' => Self::MORE,
            b'=' => Self::EQUALS,
            b'\'' => Self::APOSTROPHE,
            b'"' => Self::QUOTE,
            b'`' => Self::BACKTICK,
            b'(' | b')' => Self::PARENTHESIS,
            b'[' | b']' => Self::BRACKET,
            b';' | b'|' | b'&' => Self::OPERATOR,
            b'$' => Self::DOLLAR,
            b'.' => Self::DOT,
            b'/' => Self::SLASH,
            b'\\' => Self::BACKSLASH,
            b'%' => Self::PERCENT,
            b'\n' | b'\r' => Self::LINE.or(Self::SPACE),
            super::peel::HIDDEN_LF | super::peel::HIDDEN_CR => Self::LINE_HIDDEN.or(Self::OPERATOR).or(Self::SPACE),
            b'?' | b'*' | b'{' => Self::WILDCARD,
            0..=b' ' => Self::SPACE,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b':' | b'@' => Self(0),
            _ => Self::OTHER,
        }
    }
}

/// What each byte is a sign of.
static TABLE: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut rest: &mut [u32] = &mut table;
    let mut byte = 0u8;
    while let [place, tail @ ..] = rest {
        *place = Marks::sign(byte).0;
        rest = tail;
        byte = byte.wrapping_add(1);
    }
    table
};
