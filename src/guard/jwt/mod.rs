//! JSON Web Tokens (RFC 7519) as plain functions: the gateway's own, which it issues and verifies ([`own`]), and those of an outside issuer,
//! which it only verifies ([`issuer`]); what was verified once is remembered ([`verified`]).
//!
//! - The algorithm belongs to the key and never to the token: a token of ours must begin with our very header, byte for byte; a token of
//!   the outside issuer is verified with the algorithm that its key was published for (RFC 8725 §3.1). `none` has no way in.
//! - Claims are read strictly ([`claims`]): one named twice, of another type, or out of range refuses the token.
//! - Time is an argument. `exp` of our own tokens holds to the millisecond; an outside issuer's clock may differ by [`LEEWAY_S`], and so may
//!   that of another gateway which has issued a token (`nbf`, `iat`).
//!
//! What this does not do: encrypted tokens (five parts), nested tokens, and keys that a token brings along (`jku`, `jwk`, `x5u`, `x5c`), which
//! are never looked at.
#![deny(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

pub mod claims;
pub mod issuer;
pub mod own;
pub mod verified;

/// The longest token that is looked at, bytes. Large ones of identity providers have 2 to 4 KiB; a header section has 16 KiB.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Seconds that clocks may differ.
pub const LEEWAY_S: u64 = 30;

/// Why a token is refused: for the audit trail and the log. A client is told `Invalid or revoked token` and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has not three parts of base64url, or not JSON in them, or is too long.
    #[error("not a token of three parts")]
    Shape,
    /// Its header names an algorithm that its key is not for, or that is not accepted at all.
    #[error("algorithm not accepted")]
    Algorithm,
    /// Its header is critical (`crit`), or says that it is another kind of token.
    #[error("kind of token not accepted")]
    Type,
    /// No key of the issuer is known by that name.
    #[error("key not known")]
    UnknownKey,
    /// The signature does not fit.
    #[error("signature does not fit")]
    Signature,
    /// A claim is missing, named twice, or of the wrong type.
    #[error("claims not as they must be")]
    Claims,
    /// Another issuer's.
    #[error("another issuer")]
    Issuer,
    /// For somebody else.
    #[error("another audience")]
    Audience,
    /// `exp` is over.
    #[error("expired")]
    Expired,
    /// `nbf` or `iat` lies ahead.
    #[error("not valid yet")]
    Early,
    /// What names the agent is no agent's id.
    #[error("no agent's id")]
    Agent,
    /// Its session has ended, or never was.
    #[error("session has ended")]
    Session,
}

/// Whether a credential is meant to be a JWT: a JSON object in base64url begins with these letters, and there are two dots.
#[must_use]
pub fn is_meant(token: &[u8]) -> bool {
    token.starts_with(b"eyJ") && memchr::memchr_iter(b'.', token).count() == 2
}

/// The three parts of a token.
#[derive(Clone, Copy)]
struct Parts<'t> {
    header: &'t str,
    claims: &'t str,
    signature: &'t str,
    /// What is signed: header and claims with the dot between them.
    signed: &'t [u8],
}

impl<'t> Parts<'t> {
    fn of(token: &'t [u8]) -> Result<Self, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refusal::Shape);
        }
        // Base64url is ASCII; whatever is not will not decode.
        let text = std::str::from_utf8(token).map_err(|_| Refusal::Shape)?;
        let (signed, signature) = text.rsplit_once('.').ok_or(Refusal::Shape)?;
        let (header, claims) = signed.split_once('.').ok_or(Refusal::Shape)?;
        if claims.contains('.') || signature.is_empty() {
            return Err(Refusal::Shape);
        }
        Ok(Self { header, claims, signature, signed: signed.as_bytes() })
    }
}

/// Decodes one part: base64url without padding, with no bits set beyond the last byte.
fn decode(part: &str) -> Result<Vec<u8>, Refusal> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Shape)
}

/// What an agent may be called, as in the policy file: 1 to 128 letters, digits and `_ - . : @`.
#[must_use]
pub fn is_agent_id(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:@".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(fits)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
