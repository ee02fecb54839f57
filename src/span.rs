//! [`Span`]: where something stands in a received buffer.

/// Byte range into a received buffer. `u32` is enough: messages are bounded by `MAX_REQUEST_SIZE`, far below 4 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The span `start..end`; an `end` before `start` gives an empty span at `start`.
    #[must_use]
    pub const fn new(start: u32, end: u32) -> Self {
        let end = if end < start { start } else { end };
        Self { start, end }
    }

    /// An empty span at `at`: a place to insert.
    #[must_use]
    pub const fn at(at: u32) -> Self {
        Self { start: at, end: at }
    }

    /// From `usize` offsets, which saturate at 4 GiB - 1.
    #[must_use]
    pub fn from_usize(start: usize, end: usize) -> Self {
        Self::new(u32::try_from(start).unwrap_or(u32::MAX), u32::try_from(end).unwrap_or(u32::MAX))
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.end.saturating_sub(self.start)
    }

    /// Nothing in it?
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// The bytes of `buffer` in this span; empty when the span lies outside.
    #[must_use]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.start as usize..self.end as usize).unwrap_or(&[])
    }

    /// This span moved right by `by` bytes: from offsets in a part of a buffer to offsets in the whole.
    #[must_use]
    pub const fn shifted(self, by: u32) -> Self {
        Self { start: self.start.saturating_add(by), end: self.end.saturating_add(by) }
    }

    /// Without the first and the last byte: what stands between the quotes or braces.
    #[must_use]
    pub const fn inner(self) -> Self {
        Self::new(self.start.saturating_add(1), self.end.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::Span;

    #[test]
    fn outside_of_the_buffer_is_empty() {
        let buffer = b"abcdef";
        assert_eq!(Span::new(1, 3).of(buffer), b"bc");
        assert_eq!(Span::new(4, 9).of(buffer), b"");
        assert_eq!(Span { start: 3, end: 2 }.of(buffer), b"");
        assert_eq!(Span { start: 3, end: 2 }.len(), 0);
    }

    #[test]
    fn parts_and_shifts() {
        let buffer = br#"  "ab""#;
        let string = Span::new(0, 4).shifted(2);
        assert_eq!(string.of(buffer), br#""ab""#);
        assert_eq!(string.inner().of(buffer), b"ab");
        assert_eq!(Span::new(0, 1).inner().len(), 0);
        assert_eq!(Span::new(7, 3), Span::at(7));
    }
}
