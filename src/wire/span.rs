//! A byte range into a received buffer.

/// A byte range into a received buffer. `u32`, because every buffer here is bounded far below 4 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset just behind the last byte.
    pub end: u32,
}

impl Span {
    /// The span `start..end`. Offsets beyond `u32::MAX` saturate, and a saturated span is out of range of every
    /// buffer that the codecs see.
    #[inline]
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        Span { start: saturate(start), end: saturate(end) }
    }

    /// Its length in bytes; 0 where the ends are the wrong way round.
    #[inline]
    #[must_use]
    pub const fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Whether it covers no byte.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// The bytes it covers; empty where it does not fit into `buf`.
    #[inline]
    #[must_use]
    pub fn of(self, buf: &[u8]) -> &[u8] {
        buf.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

#[inline]
fn saturate(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}
