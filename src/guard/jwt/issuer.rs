//! Tokens of an outside issuer: verified with the keys that it publishes as a JWK set (RFC 7517).
//!
//! RS256, ES256 and EdDSA (Ed25519) alone. A key is for one algorithm, which follows from its type; what the set says of use and algorithm
//! must agree. Symmetric keys in a set are passed over: what is published is no secret.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;

use super::claims::{Claims, Header};
use super::{LEEWAY_S, Parts, Refusal, decode, is_agent_id};

/// Keys that are kept of a set.
pub const MAX_KEYS: usize = 64;

/// The longest name of a key that is kept, bytes.
const MAX_KID_BYTES: usize = 256;

/// Bytes of an RSA modulus: 2,048 to 4,096 bits. A longer one would make every forged token dear to refuse.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

/// What must stand in its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerRules {
    /// `iss`.
    pub issuer: String,
    /// What `aud` must name.
    pub audience: String,
    /// The claim that names the agent.
    pub agent_claim: String,
}

/// The issuer's keys.
#[derive(Default)]
pub struct IssuerKeys {
    keys: Vec<Key>,
    generation: u64,
}

struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Of a verified token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The agent's id.
    pub agent: Arc<str>,
    /// Until when it is accepted, milliseconds since the epoch.
    pub until_ms: u64,
}

/// Why a document is no JWK set that could be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksFault {
    /// It is not JSON, or not an object with an array `keys`.
    #[error("is no JWK set")]
    NoSet,
    /// There is no key in it that could verify a token.
    #[error("has no key for RS256, ES256 or EdDSA")]
    NoKey,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default, rename = "use")]
    used_for: Option<String>,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

impl IssuerKeys {
    /// Reads a JWK set. Keys that are for something else, or of another kind, are passed over (RFC 7517 §5). `generation` tells this set from
    /// those before it.
    ///
    /// # Errors
    /// [`JwksFault`].
    pub fn from_jwks(json: &[u8], generation: u64) -> Result<Self, JwksFault> {
        let set: Set = serde_json::from_slice(json).map_err(|_| JwksFault::NoSet)?;
        let read = |value| serde_json::from_value::<Jwk>(value).ok().as_ref().and_then(Key::of);
        let keys: Vec<Key> = set.keys.into_iter().filter_map(read).take(MAX_KEYS).collect();
        if keys.is_empty() { Err(JwksFault::NoKey) } else { Ok(Self { keys, generation }) }
    }

    /// Which set this is.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none, as before the first set has come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether both have the same keys in the same order.
    #[must_use]
    pub fn same_keys(&self, other: &Self) -> bool {
        let bytes = |key: &Key| match key.key.kind() {
            jsonwebtoken::DecodingKeyKind::SecretOrDer(bytes) => bytes.clone(),
            jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, e } => [n.as_slice(), e.as_slice()].concat(),
        };
        let same = |(left, right): (&Key, &Key)| {
            left.kid == right.kid && left.algorithm == right.algorithm && bytes(left) == bytes(right)
        };
        self.keys.len() == other.keys.len() && self.keys.iter().zip(&other.keys).all(same)
    }

    /// Verifies a token. `now_ms` is in milliseconds since the epoch.
    ///
    /// # Errors
    /// [`Refusal`]; [`Refusal::UnknownKey`] says that a newer set might help.
    pub fn verify(&self, rules: &IssuerRules, token: &[u8], now_ms: u64) -> Result<Verified, Refusal> {
        let parts = Parts::of(token)?;
        let json = decode(parts.header)?;
        let header = Header::read(&json)?;
        let key = self.key(&header)?;
        if !matches!(crypto::verify(parts.signature, parts.signed, &key.key, key.algorithm), Ok(true)) {
            return Err(Refusal::Signature);
        }
        let json = decode(parts.claims)?;
        let claims = Claims::read(&json, &rules.agent_claim)?;
        let until_ms = claims.check(&rules.issuer, &rules.audience, now_ms, LEEWAY_S)?;
        let agent = claims.agent.ok_or(Refusal::Claims)?;
        if !is_agent_id(&agent) {
            return Err(Refusal::Agent);
        }
        Ok(Verified { agent: Arc::from(agent.as_ref()), until_ms })
    }

    /// The one key that a token names; without a name, the only one for its algorithm. Where two would do, none does.
    fn key(&self, header: &Header<'_>) -> Result<&Key, Refusal> {
        let algorithm = match header.alg.as_ref() {
            "RS256" => Algorithm::RS256,
            "ES256" => Algorithm::ES256,
            // RFC 8037, and its name since RFC 9864.
            "EdDSA" | "Ed25519" => Algorithm::EdDSA,
            _ => return Err(Refusal::Algorithm),
        };
        let kid = header.kid.as_deref();
        let named = |key: &&Key| kid.is_none() || key.kid.as_deref() == kid;
        if kid.is_some() && !self.keys.iter().any(|key| named(&key)) {
            return Err(Refusal::UnknownKey);
        }
        let mut candidates = self.keys.iter().filter(named).filter(|key| key.algorithm == algorithm);
        match (candidates.next(), candidates.next()) {
            (Some(key), None) => Ok(key),
            (None, _) if kid.is_some() => Err(Refusal::Algorithm),
            _ => Err(Refusal::UnknownKey),
        }
    }
}

impl Key {
    /// The key of a JWK; `None` for one that verifies no token that is accepted.
    fn of(jwk: &Jwk) -> Option<Self> {
        let signs = jwk.used_for.as_deref().is_none_or(|used_for| used_for == "sig");
        let verifies = jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !signs || !verifies || jwk.kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return None;
        }
        let alg = jwk.alg.as_deref();
        let bytes = |part: &Option<String>| decode(part.as_deref()?).ok();
        let (algorithm, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", None) if matches!(alg, None | Some("RS256")) => {
                let (n, e) = (bytes(&jwk.n)?, bytes(&jwk.e)?);
                let leading = n.iter().take_while(|byte| **byte == 0).count();
                let n = n.get(leading..)?;
                if !RSA_BYTES.contains(&n.len()) || e.is_empty() || e.len() > 4 {
                    return None;
                }
                (Algorithm::RS256, DecodingKey::from_rsa_raw_components(n, &e))
            }
            ("EC", Some("P-256")) if matches!(alg, None | Some("ES256")) => {
                let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
                if x.len() != 32 || y.len() != 32 {
                    return None;
                }
                (Algorithm::ES256, DecodingKey::from_ec_components(jwk.x.as_deref()?, jwk.y.as_deref()?).ok()?)
            }
            ("OKP", Some("Ed25519")) if matches!(alg, None | Some("EdDSA" | "Ed25519")) => {
                if bytes(&jwk.x)?.len() != 32 {
                    return None;
                }
                (Algorithm::EdDSA, DecodingKey::from_ed_components(jwk.x.as_deref()?).ok()?)
            }
            _ => return None,
        };
        Some(Self { kid: jwk.kid.clone(), algorithm, key })
    }
}
