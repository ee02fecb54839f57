//! The gateway's own access tokens: HS256 under `JWT_SECRET`, each of one session.
//!
//! They all have one header, and a token that has another is not ours: there is no algorithm to be chosen. They name issuer, audience, agent
//! (`sub`), session (`sid`), times and scope; whether the session still is, is asked elsewhere
//! ([`crate::state::sessions`]).

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, crypto};
use serde::Serialize;

use super::claims::Claims;
use super::{Parts, Refusal, decode, is_agent_id};
use crate::settings::Secret;
use crate::state::sessions::Sid;

/// The one scope there is: to use the MCP servers behind the gateway.
pub const SCOPE: &str = "mcp";

/// What access tokens are signed with and verified by.
pub struct OwnKey {
    /// Every token's header, encoded, and the dot behind it.
    header: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    issuer: String,
    audience: String,
    ttl_s: u64,
}

/// Of a verified token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// `sub`.
    pub agent: Arc<str>,
    /// `sid`.
    pub sid: Sid,
    /// `exp`, milliseconds since the epoch.
    pub until_ms: u64,
}

#[derive(Serialize)]
struct Issued<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    jti: &'a str,
    sid: &'a str,
    iat: u64,
    nbf: u64,
    exp: u64,
    scope: &'a str,
}

impl OwnKey {
    /// `issuer` and `audience` are this gateway's own URLs, `ttl_s` the life of a token in seconds.
    ///
    /// # Errors
    /// [`Refusal::Signature`] where the library cannot sign with this key.
    pub fn new(secret: &Secret, issuer: &str, audience: &str, ttl_s: u64) -> Result<Self, Refusal> {
        let mut key = Self {
            header: String::new(),
            encoding: EncodingKey::from_secret(secret.expose()),
            decoding: DecodingKey::from_secret(secret.expose()),
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            ttl_s,
        };
        let token = key.issue("a", &Sid::from_bytes([0; 16]), "", 0)?;
        key.header = token.split_inclusive('.').next().ok_or(Refusal::Shape)?.to_owned();
        Ok(key)
    }

    /// A token for the agent's session. `jti` tells it from all others; `now_s` is in seconds since the epoch.
    ///
    /// # Errors
    /// [`Refusal::Signature`] where the library cannot sign.
    pub fn issue(&self, agent: &str, sid: &Sid, jti: &str, now_s: u64) -> Result<String, Refusal> {
        let issued = Issued {
            iss: &self.issuer,
            aud: &self.audience,
            sub: agent,
            jti,
            sid: &sid.encode(),
            iat: now_s,
            nbf: now_s,
            exp: now_s.saturating_add(self.ttl_s),
            scope: SCOPE,
        };
        // Access tokens have a type of their own, so that nothing else signed with the key passes for one (RFC 9068 §2.1).
        let header = Header { typ: Some("at+jwt".to_owned()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &issued, &self.encoding).map_err(|_| Refusal::Signature)
    }

    /// Whether a token has our header: no other key will verify it then.
    #[must_use]
    pub fn is_own(&self, token: &[u8]) -> bool {
        token.starts_with(self.header.as_bytes())
    }

    /// Verifies a token of ours. `now_ms` is in milliseconds since the epoch.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn verify(&self, token: &[u8], now_ms: u64) -> Result<Verified, Refusal> {
        if !self.is_own(token) {
            return Err(Refusal::Algorithm);
        }
        let parts = Parts::of(token)?;
        if !matches!(crypto::verify(parts.signature, parts.signed, &self.decoding, Algorithm::HS256), Ok(true)) {
            return Err(Refusal::Signature);
        }
        let json = decode(parts.claims)?;
        let claims = Claims::read(&json, "sub")?;
        let until_ms = claims.check(&self.issuer, &self.audience, now_ms, 0)?;
        let agent = claims.agent.ok_or(Refusal::Claims)?;
        if !is_agent_id(&agent) {
            return Err(Refusal::Agent);
        }
        let sid = claims.sid.as_deref().and_then(Sid::decode).ok_or(Refusal::Claims)?;
        Ok(Verified { agent: Arc::from(agent.as_ref()), sid, until_ms })
    }

    /// The audience that tokens are issued for.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// The issuer that tokens name.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The life of a token, seconds.
    #[must_use]
    pub fn ttl_s(&self) -> u64 {
        self.ttl_s
    }
}
