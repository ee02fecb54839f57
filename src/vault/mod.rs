//! The vault: credentials of providers, sealed in the store, put into calls to their upstreams.
//!
//! - [`seal`]: AES-256-GCM over one credential, with everything that is stored beside it as associated data.
//! - [`keeper`]: the vault of a running gateway.
//! - [`mod@line`]: the header line that carries one.
//!
//! Promises: no credential is stored, printed or answered in clear; what was changed in the store is found; a key that is not the records' own
//! changes nothing; every buffer of ours that held one is wiped. What it does not do: wipe the requests that carry one on their way out, or
//! what the operating system has of them.

pub mod keeper;
pub mod line;
pub mod seal;

pub use keeper::{Vault, VaultError};

/// The longest name of a credential.
pub const MAX_NAME_BYTES: usize = 64;

/// The longest credential: fits a header field with room to spare.
pub const MAX_VALUE_BYTES: usize = 4096;

/// Credentials in one vault: each upstream (at most 64) and each provider has a few.
pub const MAX_CREDENTIALS: usize = 1000;

/// Whether this may name a credential: 1 to 64 letters, digits and `_ - .`, not beginning with `.`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(plain) && !name.starts_with('.')
}

/// Whether this may be a credential: 1 to [`MAX_VALUE_BYTES`] bytes of text without control characters, no blanks around it.
#[must_use]
pub fn is_value(value: &str) -> bool {
    (1..=MAX_VALUE_BYTES).contains(&value.len()) && !value.chars().any(char::is_control) && value.trim() == value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_plain() {
        for (name, expected) in [
            ("twilio", true),
            ("a.b-c_D9", true),
            ("", false),
            (".a", false),
            ("a/b", false),
            ("a b", false),
            ("é", false),
        ] {
            assert_eq!(is_name(name), expected, "{name}");
        }
        assert!(is_name(&"a".repeat(64)) && !is_name(&"a".repeat(65)));
        for (value, expected) in
            [("a b", true), ("é", true), ("", false), (" a", false), ("a\n", false), ("a\r\nB: c", false)]
        {
            assert_eq!(is_value(value), expected, "{value:?}");
        }
        assert!(is_value(&"a".repeat(4096)) && !is_value(&"a".repeat(4097)));
    }
}
