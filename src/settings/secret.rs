//! Values that must not leak: tokens, keys, passwords.
//!
//! [`Secret`] has no `Debug`, no `Display` and no `Serialize`, so that neither a log line nor an error message can
//! contain one by accident: the compiler refuses it. The bytes are wiped when the value is dropped. Comparisons run
//! over SHA-256 hashes, which have equal length whatever was presented, and take the same time wherever they differ.
//!
//! What this does not do: keep the operating system from swapping the page out, or wipe the copies that the process
//! environment itself holds.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret value and its SHA-256 hash.
///
/// There is deliberately no way to print one:
/// ```compile_fail
/// let secret = ringwall::settings::Secret::new("correct horse battery staple");
/// println!("{secret:?}");
/// ```
#[derive(Clone)]
pub struct Secret {
    bytes: Zeroizing<Vec<u8>>,
    sha256: [u8; 32],
}

impl Secret {
    /// Takes a copy of `bytes`; the copy is wiped on drop.
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        Self { bytes: Zeroizing::new(bytes.to_vec()), sha256: sha256(bytes) }
    }

    /// The value itself, for the few places that must have it: a signature, an upstream's header.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// The SHA-256 hash of the value.
    #[must_use]
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// Whether `presented` is this secret, in a time that depends only on how long `presented` is.
    #[must_use]
    pub fn verify(&self, presented: &[u8]) -> bool {
        same_hash(&self.sha256, &sha256(presented))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        same_hash(&self.sha256, &other.sha256)
    }
}

impl Eq for Secret {}

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Whether two hashes are equal, in constant time.
#[must_use]
pub fn same_hash(left: &[u8; 32], right: &[u8; 32]) -> bool {
    left.ct_eq(right).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifies_only_the_very_value() {
        let secret = Secret::new("a-token-of-some-length");
        for (name, presented, same) in [
            ("the value", "a-token-of-some-length", true),
            ("a prefix", "a-token-of-some-lengt", false),
            ("one byte more", "a-token-of-some-lengthx", false),
            ("another case", "A-token-of-some-length", false),
            ("nothing", "", false),
        ] {
            assert_eq!(secret.verify(presented.as_bytes()), same, "{name}");
        }
    }

    #[test]
    fn equality_is_by_value() {
        assert!(Secret::new("one") == Secret::new("one"));
        assert!(Secret::new("one") != Secret::new("two"));
    }
}
