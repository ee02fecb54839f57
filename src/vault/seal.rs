//! Credentials under AES-256-GCM (NIST SP 800-38D), one record each.
//!
//! A nonce is 96 random bits: at most 2^32 records under one key keep the chance of a repetition under 2^-32 (§8.3); a vault sees thousands. Associated
//! data is everything that is stored in clear beside the credential: the record's format, the key's id, revision, time and name. So no part of a
//! record can be changed, and no record can take another's place, without its being found. What cannot be found here: an old record of the same
//! name put back whole, with all it says.
//!
//! Which key a record is under is told by the key's id, a hash of the key. A record under a key that is not at hand is not tried.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use zeroize::Zeroizing;

use crate::settings::secret::sha256;

/// Says what stands in a record, and which way it was made.
const FORMAT: &[u8] = b"ringwall vault record 1\0";
const KEY_ID: &[u8] = b"ringwall vault key id\0";
const TAG_BYTES: usize = 16;

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;

/// What a key is known by: the first eight bytes of a hash. It tells nothing of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(pub [u8; 8]);

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What is stored of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is called.
    pub name: String,
    /// The key that it is under.
    pub key_id: KeyId,
    /// How often it was written.
    pub revision: u64,
    /// When it was last changed, milliseconds since the Unix epoch.
    pub updated_ms: u64,
    /// Drawn at random for this record.
    pub nonce: [u8; NONCE_BYTES],
    /// The credential and its tag.
    pub sealed: Vec<u8>,
}

/// Why a record cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is under a key that is not at hand.
    #[error("it is sealed under the key {0}, which is not the one that is given")]
    OtherKey(KeyId),
    /// It was changed after it was sealed.
    #[error("it was changed after it was sealed")]
    Damaged,
}

/// The system has no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system has no random bytes")]
pub struct NoRandomness;

/// A key that seals and opens. Its round keys are wiped on drop.
pub struct Key {
    id: KeyId,
    cipher: Aes256Gcm,
}

impl Key {
    /// A key from its bytes.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        let mut input = Zeroizing::new(KEY_ID.to_vec());
        input.reserve_exact(bytes.len());
        input.extend_from_slice(bytes);
        let mut id = [0; 8];
        id.copy_from_slice(sha256(&input).split_at(8).0);
        Self { id: KeyId(id), cipher: Aes256Gcm::new(bytes.into()) }
    }

    /// What it is known by.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Seals a credential.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn seal(&self, name: &str, revision: u64, updated_ms: u64, value: &str) -> Result<Record, NoRandomness> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| NoRandomness)?;
        let mut record =
            Record { name: name.to_owned(), key_id: self.id, revision, updated_ms, nonce, sealed: Vec::new() };
        let bound = record.bound();
        // With room for the tag: a vector that grows leaves a copy of the credential behind.
        let mut sealed = Vec::with_capacity(value.len().saturating_add(TAG_BYTES));
        sealed.extend_from_slice(value.as_bytes());
        encrypt(&self.cipher, &nonce, &bound, &mut sealed).map_err(|_| NoRandomness)?;
        record.sealed = sealed;
        Ok(record)
    }

    /// Opens a record.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, record: &Record) -> Result<Zeroizing<String>, OpenError> {
        if record.key_id != self.id {
            return Err(OpenError::OtherKey(record.key_id));
        }
        let mut plain = Zeroizing::new(record.sealed.clone());
        decrypt(&self.cipher, &record.nonce, &record.bound(), &mut plain).map_err(|_| OpenError::Damaged)?;
        // The vector becomes the text, so that there is one copy, which is wiped.
        String::from_utf8(std::mem::take(&mut *plain)).map(Zeroizing::new).map_err(|_| OpenError::Damaged)
    }
}

impl Record {
    /// Everything beside the credential, with one reading: what is not of fixed length stands last.
    fn bound(&self) -> Vec<u8> {
        let parts: [&[u8]; 5] = [
            FORMAT,
            &self.key_id.0,
            &self.revision.to_be_bytes(),
            &self.updated_ms.to_be_bytes(),
            self.name.as_bytes(),
        ];
        parts.concat()
    }
}

/// AES-256-GCM in place; the tag follows.
fn encrypt(
    cipher: &Aes256Gcm,
    nonce: &[u8; NONCE_BYTES],
    bound: &[u8],
    text: &mut Vec<u8>,
) -> Result<(), aes_gcm::Error> {
    cipher.encrypt_in_place(&Nonce::from(*nonce), bound, text)
}

/// The other way; the tag is checked and taken off.
fn decrypt(
    cipher: &Aes256Gcm,
    nonce: &[u8; NONCE_BYTES],
    bound: &[u8],
    text: &mut Vec<u8>,
) -> Result<(), aes_gcm::Error> {
    cipher.decrypt_in_place(&Nonce::from(*nonce), bound, text)
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
