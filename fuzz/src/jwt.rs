//! The check of the target `jwt`. An input is text; its first byte says what the rest is:
//!
//! | | the rest |
//! |---|---|
//! | `r` | a token as it is, shown to the gateway's own key and to the outside issuer's |
//! | `o` | claims, which are signed with the gateway's own key |
//! | `i` | a header, a line end, and claims, which are signed with the outside issuer's key |
//! | `k` | a JWK set |
//!
//! No panic; the same said twice; what is accepted says whose and for whom it is, and until when, as a plain reading of it finds; and one byte of it changed,
//! it is refused.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use ringwall::guard::jwt::issuer::{IssuerKeys, IssuerRules, MAX_KEYS};
use ringwall::guard::jwt::own::OwnKey;
use ringwall::guard::jwt::{LEEWAY_S, is_agent_id};
use ringwall::settings::Secret;
use ringwall::state::sessions::Sid;
use serde_json::Value;
use serde_json::value::RawValue;

const NOW_S: u64 = 1_800_000_000;
const SECRET: &[u8] = b"a secret that signs nothing but what a fuzzer makes up";
const OWN: (&str, &str) = ("http://gate", "http://gate/mcp");
const OUTSIDE: (&str, &str) = ("https://issuer", "gate");
/// The first key pair of RFC 8032, 7.1: as PKCS #8 without the public half, and that half.
const ED25519: [u8; 48] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20\
    \x9d\x61\xb1\x9d\xef\xfd\x5a\x60\xba\x84\x4a\xf4\x92\xec\x2c\xc4\x44\x49\xc5\x69\x7b\x32\x69\x19\x70\x3b\xac\x03\x1c\xae\x7f\x60";
const JWKS: &[u8] =
    br#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// Whose token it is, and until when it is good.
type Verdict = Option<(String, u64)>;

/// The check.
pub(crate) fn jwt(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind {
        b'r' => {
            for (verify, issuer, audience) in
                [(own as fn(&[u8]) -> Verdict, OWN.0, OWN.1), (outside, OUTSIDE.0, OUTSIDE.1)]
            {
                judge(rest, verify, issuer, audience);
            }
        }
        b'o' => {
            let header = key()
                .issue("a", &Sid::from_bytes([0; 16]), "", 0)
                .map(|token| token.split('.').next().map(str::to_owned));
            let header = header.ok().flatten().expect("it signs");
            let token = signed(&header, rest, &EncodingKey::from_secret(SECRET), Algorithm::HS256);
            judge(&token, own, OWN.0, OWN.1);
        }
        b'i' => {
            let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let (header, claims) = (&rest[..at], rest.get(at + 1..).unwrap_or_default());
            let token =
                signed(&URL_SAFE_NO_PAD.encode(header), claims, &EncodingKey::from_ed_der(&ED25519), Algorithm::EdDSA);
            if judge(&token, outside, OUTSIDE.0, OUTSIDE.1) {
                let header: Value = serde_json::from_slice(header).expect("a header is JSON");
                assert!(header["alg"] == "EdDSA" || header["alg"] == "Ed25519", "{header}");
                assert!(header.get("crit").is_none() && header.get("b64").is_none(), "{header}");
                assert!(header["kid"].is_null() || header["kid"] == "k", "{header}");
            }
        }
        b'k' => {
            if let Ok(keys) = IssuerKeys::from_jwks(rest, 1) {
                assert!((1..=MAX_KEYS).contains(&keys.len()) && keys.same_keys(&keys));
                // Whatever keys these are, nothing of ours was signed with them.
                let rules =
                    IssuerRules { issuer: OUTSIDE.0.into(), audience: OUTSIDE.1.into(), agent_claim: "sub".into() };
                let _ = keys.verify(&rules, rest, NOW_S * 1000);
            }
        }
        _ => {}
    }
}

fn key() -> OwnKey {
    OwnKey::new(&Secret::new(SECRET), OWN.0, OWN.1, 900).expect("a key")
}

fn own(token: &[u8]) -> Verdict {
    key().verify(token, NOW_S * 1000).ok().map(|verified| (verified.agent.to_string(), verified.until_ms))
}

fn outside(token: &[u8]) -> Verdict {
    let keys = IssuerKeys::from_jwks(JWKS, 1).expect("a set");
    let rules = IssuerRules { issuer: OUTSIDE.0.into(), audience: OUTSIDE.1.into(), agent_claim: "sub".into() };
    keys.verify(&rules, token, NOW_S * 1000).ok().map(|verified| (verified.agent.to_string(), verified.until_ms))
}

fn signed(header: &str, claims: &[u8], key: &EncodingKey, algorithm: Algorithm) -> Vec<u8> {
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = crypto::sign(signed.as_bytes(), key, algorithm).expect("it signs");
    format!("{signed}.{signature}").into_bytes()
}

/// Whether it is accepted, which is then looked into.
fn judge(token: &[u8], verify: fn(&[u8]) -> Verdict, issuer: &str, audience: &str) -> bool {
    let verdict = verify(token);
    assert_eq!(verdict, verify(token));
    let Some((agent, until_ms)) = verdict else { return false };
    let text = std::str::from_utf8(token).expect("what is accepted is ASCII");
    let claims = URL_SAFE_NO_PAD.decode(text.split('.').nth(1).expect("claims")).expect("base64url");
    // What nothing is decided by is passed over, escapes that name no character too.
    let members: BTreeMap<String, &RawValue> = serde_json::from_slice(&claims).expect("claims are JSON");
    let read = |name: &str| members.get(name).map(|raw| serde_json::from_str(raw.get()).expect("a claim is JSON"));
    let claims: Value = ["iss", "sub", "aud", "exp", "nbf", "iat"]
        .into_iter()
        .map(|name| (name.to_owned(), read(name).unwrap_or(Value::Null)))
        .collect();
    assert_eq!((claims["iss"].as_str(), claims["sub"].as_str()), (Some(issuer), Some(agent.as_str())), "{claims}");
    assert!(is_agent_id(&agent));
    let names = |aud: &Value| aud == audience;
    assert!(names(&claims["aud"]) || claims["aud"].as_array().is_some_and(|all| all.iter().any(names)), "{claims}");
    let date = |name: &str| claims[name].as_f64();
    let leeway_s = LEEWAY_S as f64;
    assert!(date("exp").is_some_and(|exp| exp + leeway_s > NOW_S as f64), "{claims}");
    assert!(until_ms > NOW_S * 1000, "{claims}");
    for begin in ["nbf", "iat"].into_iter().filter_map(date) {
        assert!(begin < NOW_S as f64 + leeway_s + 1.0, "{claims}");
    }
    // Of a signature over everything before it, no byte can be another.
    for at in (0..token.len()).step_by(token.len() / 16 + 1) {
        let mut other = token.to_vec();
        other[at] = if other[at] == b'A' { b'B' } else { b'A' };
        assert_eq!(verify(&other), None, "byte {at} of {text} does not matter");
    }
    true
}
