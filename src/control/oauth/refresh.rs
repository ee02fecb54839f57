//! Refresh tokens: `rwr_` and base64url of session (16 bytes), random (32 bytes), tag (16 bytes).
//!
//! The random part makes it a secret, and of the whole only the SHA-256 is stored. The tag is an HMAC under a key derived from `JWT_SECRET`, and
//! says that the gateway has made the token: so what is a guess costs no look at the store, and what is an old token of a session is told
//! from a guess for as long as the session lives, though only the newest hash is kept. Another `JWT_SECRET` makes all of them worthless.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::settings::Secret;
use crate::settings::secret::sha256;
use crate::state::sessions::Sid;

const PREFIX: &str = "rwr_";
const SID: usize = 16;
const RANDOM: usize = 32;
const TAG: usize = 16;
const LEN: usize = SID + RANDOM + TAG;

/// The key of the tags.
pub(super) struct RefreshKey(Hmac<Sha256>);

/// A token that has just been made.
pub(super) struct Minted {
    pub(super) text: Zeroizing<String>,
    pub(super) sha256: [u8; 32],
}

/// A token that the gateway has made at some time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) sid: Sid,
    pub(super) sha256: [u8; 32],
}

impl RefreshKey {
    pub(super) fn new(secret: &Secret) -> Option<Self> {
        let mut derive = Hmac::<Sha256>::new_from_slice(secret.expose()).ok()?;
        derive.update(b"ringwall: tags of refresh tokens");
        let key = Zeroizing::new(<[u8; 32]>::from(derive.finalize().into_bytes()));
        Hmac::new_from_slice(&key[..]).ok().map(Self)
    }

    /// A new token of a session; `None` where the system gives no random bytes.
    pub(super) fn mint(&self, sid: &Sid) -> Option<Minted> {
        let mut bytes = Zeroizing::new([0; LEN]);
        let (head, tag) = bytes.split_at_mut_checked(SID + RANDOM)?;
        let (name, random) = head.split_at_mut_checked(SID)?;
        name.copy_from_slice(sid.bytes());
        getrandom::fill(random).ok()?;
        tag.copy_from_slice(&self.tag(head));
        let text = Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes[..])));
        let sha256 = sha256(text.as_bytes());
        Some(Minted { text, sha256 })
    }

    /// Whose token this is; `None` for what the gateway has not made.
    pub(super) fn read(&self, text: &str) -> Option<Read> {
        let mut bytes = Zeroizing::new([0; LEN]);
        let len = URL_SAFE_NO_PAD.decode_slice(text.strip_prefix(PREFIX)?, &mut bytes[..]).ok()?;
        let (head, tag) = bytes.split_at_checked(SID + RANDOM).filter(|_| len == LEN)?;
        if !bool::from(self.tag(head).ct_eq(tag)) {
            return None;
        }
        let sid = Sid::from_bytes(head.first_chunk().copied()?);
        Some(Read { sid, sha256: sha256(text.as_bytes()) })
    }

    fn tag(&self, head: &[u8]) -> [u8; TAG] {
        let mut mac = self.0.clone();
        mac.update(head);
        let whole: [u8; 32] = mac.finalize().into_bytes().into();
        let mut tag = [0; TAG];
        tag.copy_from_slice(whole.split_at(TAG).0);
        tag
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_here_is_read() {
        let key = RefreshKey::new(&Secret::new("b1946ac92492d2347c6235b4d2611184")).unwrap();
        let sid = Sid::from_bytes([3; 16]);
        let (one, two) = (key.mint(&sid).unwrap(), key.mint(&sid).unwrap());
        assert_ne!(*one.text, *two.text);
        assert_eq!(key.read(&one.text), Some(Read { sid, sha256: one.sha256 }));
        let other = RefreshKey::new(&Secret::new("b1946ac92492d2347c6235b4d2611185")).unwrap();
        assert_eq!(other.read(&one.text), None, "another secret");
        for text in ["", "rwr_", &one.text[4..], &format!("{}A", *one.text), &one.text[..one.text.len() - 1], "rwr_é"]
        {
            assert_eq!(key.read(text), None, "{text}");
        }
        for at in PREFIX.len()..one.text.len() {
            let mut changed = one.text.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(key.read(std::str::from_utf8(&changed).unwrap()), None, "character {at}");
        }
    }
}
