//! SipHash-1-3: a hash that nobody can aim without its key.
//!
//! std's hasher is the same, but takes no key from outside, and a table that outlives the process needs the one that it had. The algorithm is that
//! of Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012), with one round a word and three at the end.

/// Hashes `bytes` and, behind them, `kind` under `key`.
#[inline]
pub(super) fn hash(key: [u64; 2], kind: u8, bytes: &[u8]) -> u64 {
    let mut state = State::new(key);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state.absorb(u64::from_le_bytes(*word));
    }
    let mut last = rest.iter().rev().fold(u64::from(kind), |word, byte| word << 8 | u64::from(*byte));
    if rest.len() == 7 {
        state.absorb(last);
        last = 0;
    }
    // The last word: what is left, and the length's low byte on top.
    state.absorb((bytes.len() as u64 + 1) << 56 | last);
    state.finish()
}

/// [`hash`] of the 9 bytes of `word` and `byte`, in less time.
#[inline]
pub(super) fn hash_of_word(key: [u64; 2], kind: u8, word: u64, byte: u8) -> u64 {
    let mut state = State::new(key);
    state.absorb(word);
    state.absorb(10 << 56 | u64::from(kind) << 8 | u64::from(byte));
    state.finish()
}

/// SipHash of the lowest `len` bytes of `word`, at most 7.
#[inline]
pub(super) fn hash_of_short(key: [u64; 2], word: u64, len: u64) -> u64 {
    let mut state = State::new(key);
    state.absorb(len << 56 | word);
    state.finish()
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    #[inline]
    fn new([k0, k1]: [u64; 2]) -> Self {
        Self {
            v0: k0 ^ 0x736f_6d65_7073_6575,
            v1: k1 ^ 0x646f_7261_6e64_6f6d,
            v2: k0 ^ 0x6c79_6765_6e65_7261,
            v3: k1 ^ 0x7465_6462_7974_6573,
        }
    }

    #[inline]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }

    #[inline]
    fn absorb(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    #[inline]
    fn finish(mut self) -> u64 {
        self.v2 ^= 0xff;
        (0..3).for_each(|_| self.round());
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::hash::{DefaultHasher, Hasher};

    /// std's has the key 0.
    #[test]
    fn agrees_with_the_one_of_the_standard_library() {
        for len in 0..64 {
            let bytes: Vec<u8> = (0..len).collect();
            let mut std = DefaultHasher::new();
            std.write(&bytes);
            std.write(&[7]);
            assert_eq!(hash([0, 0], 7, &bytes), std.finish(), "{len} bytes");
        }
        assert_eq!(hash_of_short([3, 4], 0x05_0403_0201, 5), hash([3, 4], 5, &[1, 2, 3, 4]));
        assert_eq!(hash_of_word([3, 4], 7, 0x0807_0605_0403_0201, 9), hash([3, 4], 7, &[1, 2, 3, 4, 5, 6, 7, 8, 9]));
    }

    /// The example of the paper's appendix A: key 00 01 … 0f, bytes 00 01 … 0e, two rounds a word and four at the end. It proves that the key
    /// is taken as it should be, and the rounds.
    #[test]
    fn agrees_with_the_paper() {
        let mut state = State::new([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
        for word in [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908] {
            state.v3 ^= word;
            state.round();
            state.round();
            state.v0 ^= word;
        }
        state.v2 ^= 0xff;
        (0..4).for_each(|_| state.round());
        assert_eq!(state.v0 ^ state.v1 ^ state.v2 ^ state.v3, 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn key_kind_length_and_bytes_all_matter() {
        let mut seen = HashSet::new();
        for key in [[0, 0], [1, 0], [0, 1]] {
            for kind in [0, 1, 255] {
                for bytes in [&b""[..], b"\0", b"\0\0", b"a", b"aaaaaaa", b"aaaaaaaa", b"aaaaaaaa\0", b"aaaaaaaab"] {
                    assert!(seen.insert(hash(key, kind, bytes)), "{key:?} {kind} {bytes:?}");
                }
            }
        }
    }
}
