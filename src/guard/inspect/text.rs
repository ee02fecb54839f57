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
