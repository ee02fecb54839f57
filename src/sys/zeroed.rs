//! Large blocks of words that start at 0 and are not written for it.
//!
//! The kernel hands out pages that are zero; one that nobody has written to takes no memory. Filling a block in a loop would touch all of
//! them. So would asking for more than a word's alignment: allocators then fill what they give.
#![allow(unsafe_code)]

use std::sync::atomic::AtomicU64;

/// `count` words, all 0, that several threads may write.
#[must_use]
pub(crate) fn zeroed_words(count: usize) -> Box<[AtomicU64]> {
    let words = Box::<[AtomicU64]>::new_zeroed_slice(count);
    // SAFETY: an `AtomicU64` has the representation of a `u64` (std's documentation), of which zero bytes are a value.
    unsafe { words.assume_init() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    fn resident_bytes() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }

    #[test]
    fn words_are_zero_and_take_no_memory_before_they_are_written() {
        const BYTES: usize = 4 << 30;
        let before = resident_bytes();
        let words = zeroed_words(BYTES / 8);
        // Other tests of this process may take some meanwhile.
        assert!(resident_bytes().saturating_sub(before) < BYTES / 4);
        assert!(words.iter().step_by(1 << 20).all(|word| word.load(Ordering::Relaxed) == 0));
        words.last().unwrap().store(7, Ordering::Relaxed);
        assert_eq!(words.last().unwrap().load(Ordering::Relaxed), 7);
        assert!(zeroed_words(0).is_empty());
    }
}
