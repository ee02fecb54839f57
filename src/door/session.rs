//! Sealed session ids: `Mcp-Session-Id` without a session store.
//!
//! A client never sees an upstream's session id. What it gets is the upstreams' ids and an expiry, encrypted and authenticated
//! (AES-256-GCM) with the principal as associated data, in base64url. So any worker, and any gateway with the same key, can
//! serve the session; nobody can make one up; and an id that leaks is of no use to another principal.
//!
//! Layout before encryption: expiry (u64, seconds since the epoch, big endian), then for each upstream its tag (u32), the length of
//! its id (u16) and the id. On the wire: base64url(nonce ‖ ciphertext ‖ tag). Nonces are random: 2^32 ids under one
//! key keep the chance of a repetition under 2^-32 (NIST SP 800-38D §8.3).

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use arrayvec::ArrayVec;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::settings::secret::sha256;

/// Upstreams in one session, and so in one gateway.
pub(crate) const MAX_UPSTREAMS: usize = 64;
/// Longest session id of an upstream; the SDKs' have 32 to 36 bytes.
pub(crate) const MAX_UPSTREAM_ID_BYTES: usize = 512;
/// Longest sealed id that is looked at: a header section is at most 16 KiB.
const MAX_SEALED_BYTES: usize = 12 * 1024;
const NONCE_BYTES: usize = 12;

/// Why a session id is not accepted. To the client both are 404: it shall initialize again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// Not made by this gateway's key for this principal.
    #[error("unknown session")]
    Unknown,
    /// Its time has passed.
    #[error("session expired")]
    Expired,
}

/// Seals and opens session ids under one key.
pub(crate) struct Sealer {
    cipher: Aes256Gcm,
}

/// An opened session id: the upstreams' own ids.
#[derive(Default)]
pub(crate) struct Session {
    plain: Vec<u8>,
    parts: ArrayVec<(u32, u16, u16), MAX_UPSTREAMS>,
}

/// What tells an upstream's part in a session: stays the same when upstreams are added or reordered.
pub(crate) fn upstream_tag(name: &str) -> u32 {
    let hash = sha256(name.as_bytes());
    let mut tag = [0; 4];
    tag.copy_from_slice(hash.split_at(4).0);
    u32::from_be_bytes(tag)
}

impl Sealer {
    /// A sealer with this key.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self { cipher: Aes256Gcm::new(key.into()) }
    }

    /// Seals the upstreams' ids for `principal` until `expires_s`, under a nonce that the caller draws at random.
    ///
    /// `None` where an id is longer than [`MAX_UPSTREAM_ID_BYTES`] or there are too many.
    pub(crate) fn seal<'a>(
        &self,
        parts: impl IntoIterator<Item = (u32, &'a [u8])>,
        principal: &[u8; 16],
        expires_s: u64,
        nonce: [u8; NONCE_BYTES],
    ) -> Option<String> {
        let mut body = Vec::with_capacity(128);
        body.extend_from_slice(&expires_s.to_be_bytes());
        for (count, (tag, id)) in parts.into_iter().enumerate() {
            if count >= MAX_UPSTREAMS || id.len() > MAX_UPSTREAM_ID_BYTES {
                return None;
            }
            body.extend_from_slice(&tag.to_be_bytes());
            body.extend_from_slice(&u16::try_from(id.len()).ok()?.to_be_bytes());
            body.extend_from_slice(id);
        }
        self.cipher.encrypt_in_place(&Nonce::from(nonce), principal, &mut body).ok()?;
        let mut sealed = nonce.to_vec();
        sealed.append(&mut body);
        // What `open` would not look at must not be given out.
        Some(URL_SAFE_NO_PAD.encode(sealed)).filter(|sealed| sealed.len() <= MAX_SEALED_BYTES)
    }

    /// Opens a sealed id into `session`, whose memory is reused.
    ///
    /// # Errors
    /// [`Unusable`].
    pub(crate) fn open(
        &self,
        sealed: &[u8],
        principal: &[u8; 16],
        now_s: u64,
        session: &mut Session,
    ) -> Result<(), Unusable> {
        session.parts.clear();
        session.plain.clear();
        if sealed.len() > MAX_SEALED_BYTES {
            return Err(Unusable::Unknown);
        }
        URL_SAFE_NO_PAD.decode_vec(sealed, &mut session.plain).map_err(|_| Unusable::Unknown)?;
        if session.plain.len() < NONCE_BYTES {
            return Err(Unusable::Unknown);
        }
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(session.plain.split_at(NONCE_BYTES).0);
        session.plain.drain(..NONCE_BYTES);
        self.cipher
            .decrypt_in_place(&Nonce::from(nonce), principal, &mut session.plain)
            .map_err(|_| Unusable::Unknown)?;
        session.index(now_s)
    }
}

impl Session {
    /// A session of these upstreams' tags and ids that is not sealed: it belongs to a connection. What is too long or too much for one is
    /// left out.
    pub(crate) fn of(parts: &[(u32, Vec<u8>)]) -> Self {
        let mut session = Self::default();
        for (tag, id) in parts.iter().filter(|(_, id)| id.len() <= MAX_UPSTREAM_ID_BYTES) {
            let (Ok(start), Ok(len)) = (u16::try_from(session.plain.len()), u16::try_from(id.len())) else { continue };
            if session.parts.try_push((*tag, start, len)).is_ok() {
                session.plain.extend_from_slice(id);
            }
        }
        session
    }

    /// The same session with this part of the upstream with this tag, in place of the one that it had.
    pub(crate) fn with_part(&self, tag: u32, id: &[u8]) -> Self {
        let others = self.parts.iter().filter(|part| part.0 != tag);
        let others = others.map(|part| (part.0, self.part(part.0).unwrap_or_default().to_vec()));
        Self::of(&others.chain([(tag, id.to_vec())]).collect::<Vec<_>>())
    }

    fn index(&mut self, now_s: u64) -> Result<(), Unusable> {
        let (expires, mut rest) = self.plain.split_first_chunk::<8>().ok_or(Unusable::Unknown)?;
        if u64::from_be_bytes(*expires) <= now_s {
            return Err(Unusable::Expired);
        }
        let mut at = 8usize;
        while !rest.is_empty() {
            let (tag, after) = rest.split_first_chunk::<4>().ok_or(Unusable::Unknown)?;
            let (len, after) = after.split_first_chunk::<2>().ok_or(Unusable::Unknown)?;
            let len = u16::from_be_bytes(*len);
            let (_, after) = after.split_at_checked(len.into()).ok_or(Unusable::Unknown)?;
            let start = u16::try_from(at + 6).map_err(|_| Unusable::Unknown)?;
            self.parts.try_push((u32::from_be_bytes(*tag), start, len)).map_err(|_| Unusable::Unknown)?;
            at += 6 + usize::from(len);
            rest = after;
        }
        Ok(())
    }

    /// The session id of the upstream with this tag.
    pub(crate) fn part(&self, tag: u32) -> Option<&[u8]> {
        let (_, start, len) = self.parts.iter().find(|part| part.0 == tag)?;
        self.plain.get(usize::from(*start)..usize::from(*start) + usize::from(*len))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALICE: [u8; 16] = [1; 16];
    const BOB: [u8; 16] = [2; 16];

    fn sealed(sealer: &Sealer, expires: u64) -> String {
        let parts: [(u32, &[u8]); 2] = [(7, b"first-session"), (9, b"")];
        sealer.seal(parts, &ALICE, expires, [3; 12]).unwrap()
    }

    #[test]
    fn opens_for_its_principal_until_it_expires() {
        let sealer = Sealer::new(&[5; 32]);
        let id = sealed(&sealer, 100);
        assert!(id.bytes().all(|b| (0x21..=0x7e).contains(&b)), "visible ASCII (MCP, session management)");
        let mut session = Session::default();
        sealer.open(id.as_bytes(), &ALICE, 99, &mut session).unwrap();
        assert_eq!(session.part(7), Some(&b"first-session"[..]));
        assert_eq!(session.part(9), Some(&b""[..]));
        assert_eq!(session.part(8), None);
        assert_eq!(sealer.open(id.as_bytes(), &ALICE, 100, &mut session), Err(Unusable::Expired));
        assert_eq!(sealer.open(id.as_bytes(), &BOB, 0, &mut session), Err(Unusable::Unknown));
        let other = Sealer::new(&[6; 32]);
        assert_eq!(other.open(id.as_bytes(), &ALICE, 0, &mut session), Err(Unusable::Unknown));
        assert_eq!(session.part(7), None, "a refused id leaves nothing behind");
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let sealer = Sealer::new(&[5; 32]);
        assert!(sealer.seal([(1, &[b'x'; MAX_UPSTREAM_ID_BYTES + 1][..])], &ALICE, 1, [0; 12]).is_none());
        let many: Vec<(u32, &[u8])> = (0..=64).map(|tag| (tag, &b"x"[..])).collect();
        assert!(sealer.seal(many, &ALICE, 1, [0; 12]).is_none());
    }

    #[test]
    fn a_part_takes_the_place_of_its_own_upstreams_and_of_no_others() {
        let session = Session::of(&[(7, b"seven".to_vec()), (9, Vec::new())]);
        let renewed = session.with_part(7, b"seven-again").with_part(8, b"eight");
        assert_eq!(renewed.part(7), Some(&b"seven-again"[..]));
        assert_eq!((renewed.part(8), renewed.part(9)), (Some(&b"eight"[..]), Some(&b""[..])));
        assert_eq!(session.part(8), None);
        let too_long = renewed.with_part(8, &[b'x'; MAX_UPSTREAM_ID_BYTES + 1]);
        assert_eq!((too_long.part(7), too_long.part(8)), (Some(&b"seven-again"[..]), None));
    }

    proptest! {
        #[test]
        fn no_change_of_a_byte_is_accepted(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let sealer = Sealer::new(&[5; 32]);
            let id = sealed(&sealer, 100).into_bytes();
            let mut changed = id.clone();
            let at = at.index(changed.len());
            changed[at] = byte;
            let opened = sealer.open(&changed, &ALICE, 0, &mut Session::default());
            prop_assert_eq!(opened.is_ok(), changed == id);
        }

        #[test]
        fn arbitrary_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let sealer = Sealer::new(&[5; 32]);
            prop_assert!(sealer.open(&bytes, &ALICE, 0, &mut Session::default()).is_err());
        }
    }
}
