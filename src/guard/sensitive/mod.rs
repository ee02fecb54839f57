//! Secrets and personal numbers in a text: card numbers, social security numbers, private keys, keys of providers.
//!
//! Each is told by its structure, not by a word beside it: a card by its issuer's prefix, its length and its check digit; a social security
//! number by the ranges that are given out; a private key by its PEM frame; a provider's key by the prefix that its provider has published, the
//! alphabet and the length of what follows. It works on bytes, so that a message can be searched as it stands in JSON: nothing that is looked
//! for has a character that JSON would escape, but for line ends in a PEM block.
//!
//! # Promises
//! - Two passes over the text, one for digits and one for prefixes, and nothing is read more than a bounded number of times: time is linear.
//! - It allocates nothing.
//! - What is found is told by kind and place, never by its value.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

mod keys;
mod numbers;

use std::ops::Range;

/// What a text gives away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The number of a payment card.
    CardNumber,
    /// A United States social security number.
    SocialSecurityNumber,
    /// A key that lets its holder use a provider's service.
    ProviderKey,
    /// A private key.
    PrivateKey,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::CardNumber, Self::SocialSecurityNumber, Self::ProviderKey, Self::PrivateKey];

    /// The name that lines and labels have of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CardNumber => "card-number",
            Self::SocialSecurityNumber => "social-security-number",
            Self::ProviderKey => "provider-key",
            Self::PrivateKey => "private-key",
        }
    }

    /// What people call it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::CardNumber => "a card number",
            Self::SocialSecurityNumber => "a social security number",
            Self::ProviderKey => "a provider's key",
            Self::PrivateKey => "a private key",
        }
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub kind: Kind,
    /// Whose key it is, where that is known.
    pub of: &'static str,
    /// Where it stands, bytes.
    pub place: Range<usize>,
}

/// Tells `found` of everything in `text`: numbers in their order, then keys in theirs. A key's digits may be told as a number as well.
pub fn each(text: &[u8], mut found: impl FnMut(Found)) {
    numbers::each(text, &mut found);
    keys::each(text, &mut found);
}

/// The first thing that is found, numbers before keys.
#[must_use]
pub fn first(text: &[u8]) -> Option<Found> {
    let mut first = None;
    each(text, |found| _ = first.get_or_insert(found));
    first
}

#[cfg(test)]
#[path = "sensitive_tests.rs"]
mod tests;
