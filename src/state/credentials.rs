//! Which tokens are valid, as workers see it: an immutable view that the control plane replaces whole.
//!
//! A token is looked up by its SHA-256; a new one copies a 256th of the table ([`super::shards`]). What belongs to a token is one object that all views and all who hold it share: its end is a
//! number in it. So a token that was revoked is refused everywhere at once, and a connection that was opened with it finds out by looking.
//! Workers write one number a token: when it was last used.
//!
//! What this does not do: know what was ever issued. That is the store's.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrayvec::ArrayString;

use super::shards::Shards;

/// Characters of a [`TokenId`].
const ID_LEN: usize = 20;
/// How exact the time of the last use is: one store a token and second, however many workers see it.
const USE_GRAIN_MS: u64 = 1_000;

/// A token's name, which is no secret: 48 bits of time and 32 random ones, in hexadecimal. Names of later tokens sort later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(ArrayString<ID_LEN>);

impl TokenId {
    /// A new one. `now_ms` is in milliseconds since the Unix epoch.
    #[must_use]
    pub fn new(now_ms: u64, random: [u8; 4]) -> Self {
        let mut text = ArrayString::new();
        let time = now_ms & 0xffff_ffff_ffff;
        // It fits: 12 digits and 8.
        let _ = fmt::write(&mut text, format_args!("{time:012x}{:08x}", u32::from_be_bytes(random)));
        Self(text)
    }

    /// Its characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no [`TokenId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token's id is 20 hexadecimal digits")]
pub struct NotAnId;

impl FromStr for TokenId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let id = ArrayString::from(text).map_err(|_| NotAnId)?;
        if id.len() == ID_LEN && id.bytes().all(is_digit) { Ok(Self(id)) } else { Err(NotAnId) }
    }
}

/// A token that may be valid.
#[derive(Debug)]
pub struct TokenEntry {
    /// Its name.
    pub id: TokenId,
    /// The agent it speaks for.
    pub agent: Arc<str>,
    valid_until_ms: AtomicU64,
    last_used_ms: AtomicU64,
    /// What of it is known to the store.
    stored_used_ms: AtomicU64,
}

impl TokenEntry {
    /// A token that is valid until `valid_until_ms`, milliseconds since the Unix epoch, `u64::MAX` for ever. It was last used at
    /// `last_used_ms`, 0 for never; the store knows that.
    #[must_use]
    pub fn new(id: TokenId, agent: Arc<str>, valid_until_ms: u64, last_used_ms: u64) -> Self {
        let (last_used_ms, stored_used_ms) = (AtomicU64::new(last_used_ms), AtomicU64::new(last_used_ms));
        Self { id, agent, valid_until_ms: AtomicU64::new(valid_until_ms), last_used_ms, stored_used_ms }
    }

    /// Whether it is valid at `now_ms`.
    #[must_use]
    pub fn is_valid(&self, now_ms: u64) -> bool {
        now_ms < self.valid_until_ms.load(Ordering::Acquire)
    }

    /// Ends it at this time, for everyone who holds it, unless it ends before. 0: at once.
    pub fn end_at(&self, valid_until_ms: u64) {
        self.valid_until_ms.fetch_min(valid_until_ms, Ordering::AcqRel);
    }

    /// When it was last used, to the second; 0 for never.
    #[must_use]
    pub fn last_used_ms(&self) -> u64 {
        self.last_used_ms.load(Ordering::Relaxed)
    }

    /// Notes a use of it.
    pub fn note_use(&self, now_ms: u64) {
        if now_ms.saturating_sub(self.last_used_ms()) >= USE_GRAIN_MS {
            self.last_used_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// When it was last used, if the store does not know that yet.
    #[must_use]
    pub fn unstored_use(&self) -> Option<u64> {
        let used = self.last_used_ms();
        (used > self.stored_used_ms.load(Ordering::Relaxed)).then_some(used)
    }

    /// Notes what the store knows now.
    pub fn note_stored(&self, used_ms: u64) {
        self.stored_used_ms.fetch_max(used_ms, Ordering::Relaxed);
    }
}

/// All tokens that are valid, or will not be for much longer, by the SHA-256 of each.
#[derive(Clone, Debug, Default)]
pub struct Credentials(Shards<[u8; 32], Arc<TokenEntry>>);

impl FromIterator<([u8; 32], TokenEntry)> for Credentials {
    fn from_iter<I: IntoIterator<Item = ([u8; 32], TokenEntry)>>(tokens: I) -> Self {
        let mut all = Shards::default();
        all.extend(tokens.into_iter().map(|(sha256, entry)| (sha256, Arc::new(entry))));
        Self(all)
    }
}

impl Credentials {
    /// The token of this hash, if it is valid at `now_ms`.
    #[must_use]
    pub fn token(&self, sha256: &[u8; 32], now_ms: u64) -> Option<&Arc<TokenEntry>> {
        self.get(sha256).filter(|entry| entry.is_valid(now_ms))
    }

    /// The token of this hash, valid or not.
    #[must_use]
    pub fn get(&self, sha256: &[u8; 32]) -> Option<&Arc<TokenEntry>> {
        self.0.get(sha256)
    }

    /// A view with this token as well, or in place of the one with its hash.
    #[must_use]
    pub fn with(&self, sha256: [u8; 32], entry: Arc<TokenEntry>) -> Self {
        let mut next = self.clone();
        next.insert(sha256, entry);
        next
    }

    /// Puts a token in, or in place of the one with its hash: into this view alone. A shard that others share is copied first.
    pub fn insert(&mut self, sha256: [u8; 32], entry: Arc<TokenEntry>) {
        self.0.insert(sha256, entry);
    }

    /// A view without those that have ended.
    #[must_use]
    pub fn without_ended(&self, now_ms: u64) -> Self {
        let mut next = self.clone();
        next.0.retain(|entry| entry.is_valid(now_ms));
        next
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8; 32], &Arc<TokenEntry>)> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
