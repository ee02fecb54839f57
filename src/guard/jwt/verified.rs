//! Tokens that one worker has verified, so that a token's second call costs a hash and a look-up.
//!
//! The key is the SHA-256 of the whole token. An entry is good until the token expires, and only with the keys it was verified with; whether its
//! session still is, is asked each time, for that changes at any moment. Only verified tokens are kept, in two halves that take turns: when the
//! young half is full the old one is dropped, and what is asked for comes back into the young one. So memory is bounded, and what is
//! in use stays.

use std::collections::HashMap;
use std::sync::Arc;

use crate::state::sessions::Session;

/// Tokens of a half. Some 200 bytes each: 800 KiB a worker.
const HALF: usize = 2048;

/// What is known of a verified token.
#[derive(Clone, Debug)]
pub struct VerifiedToken {
    /// Whose it is.
    pub agent: Arc<str>,
    /// Until when it is accepted, milliseconds since the epoch.
    pub until_ms: u64,
    /// Its session, where it is one of ours.
    pub session: Option<Arc<Session>>,
    /// The set of keys that has verified it ([`super::issuer::IssuerKeys::generation`]); 0 for our own.
    pub keys: u64,
}

/// A worker's verified tokens.
#[derive(Default)]
pub struct VerifiedTokens {
    young: HashMap<[u8; 32], VerifiedToken>,
    old: HashMap<[u8; 32], VerifiedToken>,
}

impl VerifiedTokens {
    /// The token with this hash, if it was verified, has not expired, and not with keys of its issuer that are not its newest. `keys` is the
    /// issuer's set that is in force.
    pub fn get(&mut self, sha256: &[u8; 32], now_ms: u64, keys: u64) -> Option<VerifiedToken> {
        let token = match self.young.get(sha256) {
            Some(token) => token.clone(),
            None => {
                let token = self.old.remove(sha256)?;
                self.put(*sha256, token.clone());
                token
            }
        };
        let is_good = now_ms < token.until_ms && (token.session.is_some() || token.keys == keys);
        if !is_good {
            self.young.remove(sha256);
        }
        is_good.then_some(token)
    }

    /// Keeps a token.
    pub fn put(&mut self, sha256: [u8; 32], token: VerifiedToken) {
        if self.young.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(sha256, token);
    }

    /// Tokens that are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn token(until_ms: u64, keys: u64) -> VerifiedToken {
        VerifiedToken { agent: Arc::from("alpha"), until_ms, session: None, keys }
    }

    fn hash(n: u64) -> [u8; 32] {
        crate::settings::secret::sha256(&n.to_be_bytes())
    }

    #[test]
    fn a_token_is_known_until_it_expires_or_the_keys_change() {
        let mut tokens = VerifiedTokens::default();
        tokens.put(hash(1), token(1_000, 7));
        assert_eq!(tokens.get(&hash(1), 999, 7).unwrap().agent.as_ref(), "alpha");
        assert!(tokens.get(&hash(2), 999, 7).is_none(), "another token");
        assert!(tokens.get(&hash(1), 1_000, 7).is_none(), "expired");
        assert!(tokens.is_empty(), "what has expired is let go");
        tokens.put(hash(1), token(1_000, 7));
        assert!(tokens.get(&hash(1), 999, 8).is_none(), "the issuer has other keys");
        assert!(tokens.is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_in_use() {
        let mut tokens = VerifiedTokens::default();
        tokens.put(hash(0), token(u64::MAX, 0));
        for n in 1..20 * HALF as u64 {
            tokens.put(hash(n), token(u64::MAX, 0));
            if n.is_multiple_of(HALF as u64 / 2) {
                assert!(tokens.get(&hash(0), 0, 0).is_some(), "in use, after {n}");
            }
            assert!(tokens.len() <= 2 * HALF + 1);
        }
        assert!(tokens.get(&hash(1), 0, 0).is_none(), "long unused");
        assert!(tokens.get(&hash(20 * HALF as u64 - 1), 0, 0).is_some());
    }
}
