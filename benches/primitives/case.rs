//! One thing to measure, whatever with.

/// One primitive with its input.
pub(crate) struct Case {
    /// `GROUP/NAME`; the name in the baseline.
    pub(crate) name: &'static str,
    /// Bytes that it goes through; 0 where that means nothing.
    pub(crate) bytes: usize,
    call: Box<dyn FnMut() -> bool>,
}

impl Case {
    /// `call` does it once and says whether the result was right: what is measured is what works. It leaves everything as it was,
    /// so that each call costs the same.
    pub(crate) fn new(name: &'static str, bytes: usize, call: impl FnMut() -> bool + 'static) -> Self {
        Self { name, bytes, call: Box::new(call) }
    }

    /// Does it once.
    ///
    /// # Panics
    /// If the result is wrong.
    #[inline]
    pub(crate) fn run(&mut self) {
        assert!((self.call)(), "{}: the result is wrong", self.name);
    }
}
