//! Tokens as attackers write them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::issuer::{IssuerKeys, IssuerRules, JwksFault};
use super::own::OwnKey;
use super::*;
use crate::settings::Secret;
use crate::state::sessions::Sid;

const NOW_S: u64 = 1_800_000_000;
const NOW_MS: u64 = NOW_S * 1000;
const SECRET: &[u8] = b"b1946ac92492d2347c6235b4d2611184b1946ac92492d234";

fn sid() -> Sid {
    Sid::from_bytes([5; 16])
}

fn own() -> OwnKey {
    OwnKey::new(&Secret::new(SECRET), "http://gate", "http://gate/mcp", 900).unwrap()
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn hs256(key: &[u8], signed: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(signed.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// A token under any header and any claims, as they are written, signed as HS256 with `key`.
fn forged(header: &str, claims: &str, key: &[u8]) -> String {
    let signed = format!("{}.{}", b64(header), b64(claims));
    let signature = b64(hs256(key, &signed));
    format!("{signed}.{signature}")
}

const OWN_HEADER: &str = r#"{"typ":"at+jwt","alg":"HS256"}"#;

fn own_claims() -> Value {
    json!({"iss": "http://gate", "aud": "http://gate/mcp", "sub": "alpha", "jti": "j", "sid": sid().encode(),
           "iat": NOW_S, "nbf": NOW_S, "exp": NOW_S + 900, "scope": "mcp"})
}

#[test]
fn what_is_issued_is_verified_and_says_what_it_must() {
    let key = own();
    let token = key.issue("alpha", &sid(), "id-1", NOW_S).unwrap();
    let verified = key.verify(token.as_bytes(), NOW_MS).unwrap();
    assert_eq!((verified.agent.as_ref(), verified.sid, verified.until_ms), ("alpha", sid(), (NOW_S + 900) * 1000));
    assert!(is_meant(token.as_bytes()) && key.is_own(token.as_bytes()));
    let claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap();
    let mut expected = own_claims();
    expected["jti"] = "id-1".into();
    assert_eq!(claims, expected);
    // The same token by other means: nothing of the library's own is in it.
    assert_eq!(forged(OWN_HEADER, &own_claims().to_string(), SECRET).split('.').next(), token.split('.').next());
}

#[test]
fn a_token_of_ours_lives_as_long_as_it_says() {
    let key = own();
    let token = key.issue("alpha", &sid(), "j", NOW_S).unwrap();
    for (now_ms, expected) in [
        (NOW_MS, None),
        ((NOW_S + 900) * 1000 - 1, None),
        ((NOW_S + 900) * 1000, Some(Refusal::Expired)),
        (u64::MAX, Some(Refusal::Expired)),
        ((NOW_S - LEEWAY_S) * 1000, None),
        ((NOW_S - LEEWAY_S) * 1000 - 1, Some(Refusal::Early)),
        (0, Some(Refusal::Early)),
    ] {
        assert_eq!(key.verify(token.as_bytes(), now_ms).err(), expected, "{now_ms}");
    }
}

#[test]
fn another_header_than_ours_is_not_ours() {
    let claims = own_claims().to_string();
    for header in [
        r#"{"typ":"at+jwt","alg":"none"}"#,
        r#"{"typ":"at+jwt","alg":"NONE"}"#,
        r#"{"typ":"at+jwt","alg":"HS512"}"#,
        r#"{"typ":"at+jwt","alg":"RS256"}"#,
        r#"{"alg":"HS256"}"#,
        r#"{"typ":"JWT","alg":"HS256"}"#,
        r#"{"alg":"HS256","typ":"at+jwt"}"#,
        r#"{"typ":"at+jwt","alg":"HS256","kid":"../../dev/null"}"#,
        r#"{"typ":"at+jwt","alg":"HS256","jwk":{"kty":"oct","k":""}}"#,
        r#"{"typ":"at+jwt","alg":"HS256" }"#,
    ] {
        let token = forged(header, &claims, SECRET);
        assert_eq!(own().verify(token.as_bytes(), NOW_MS).err(), Some(Refusal::Algorithm), "{header}");
    }
    // And one that is, by a hand that has the key.
    let token = forged(OWN_HEADER, &claims, SECRET);
    assert!(own().verify(token.as_bytes(), NOW_MS).is_ok());
}

#[test]
fn bytes_that_are_no_token_are_refused() {
    let key = own();
    let token = key.issue("alpha", &sid(), "j", NOW_S).unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut last = signature.to_owned().into_bytes();
    // 43 characters hold two bits too many: setting one must not make a second spelling of the same signature.
    *last.last_mut().unwrap() = match last.last().unwrap() {
        b'A'..=b'Z' | b'a'..=b'y' | b'0'..=b'8' => last.last().unwrap() + 1,
        _ => b'B',
    };
    let respelled = format!("{signed}.{}", String::from_utf8(last).unwrap());
    let long = format!("{signed}.{}", "A".repeat(MAX_TOKEN_BYTES));
    for (name, bytes) in [
        ("no signature", signed.to_owned()),
        ("empty signature", format!("{signed}.")),
        ("four parts", format!("{token}.AAAA")),
        ("padding", format!("{token}=")),
        ("another spelling of the signature", respelled),
        ("half a signature", format!("{signed}.{}", &signature[..20])),
        ("a signature too long", format!("{signed}.{signature}AAAA")),
        ("standard base64", token.replace('-', "+").replace('_', "/") + "+"),
        ("a blank behind", format!("{token} ")),
        ("too long", long),
        ("nothing", String::new()),
        ("dots", "..".to_owned()),
    ] {
        assert!(key.verify(bytes.as_bytes(), NOW_MS).is_err(), "{name}");
    }
    let mut bytes = token.clone().into_bytes();
    bytes[token.len() / 2] = 0xff;
    assert!(key.verify(&bytes, NOW_MS).is_err());
}

/// Every bit of a token counts.
#[test]
fn a_changed_byte_anywhere_is_refused() {
    let key = own();
    let token = key.issue("alpha", &sid(), "j", NOW_S).unwrap().into_bytes();
    for at in 0..token.len() {
        for bit in 0..8 {
            let mut changed = token.clone();
            changed[at] ^= 1 << bit;
            assert!(key.verify(&changed, NOW_MS).is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn claims_are_read_strictly() {
    let with = |change: fn(&mut Value)| {
        let mut claims = own_claims();
        change(&mut claims);
        claims.to_string()
    };
    let text = own_claims().to_string();
    let twice = |name: &str, value: &str| format!("{{\"{name}\":{value},{}", &text[1..]);
    for (name, claims, expected) in [
        ("as they are", text.clone(), None),
        ("aud as an array", with(|c| c["aud"] = json!(["x", "http://gate/mcp"])), None),
        ("exp with a fraction", with(|c| c["exp"] = json!(NOW_S as f64 + 1.5)), None),
        ("an unknown claim twice", twice("x", "1").replacen('{', "{\"x\":2,", 1), None),
        (
            "no nbf, no iat",
            with(|c| {
                c.as_object_mut().unwrap().remove("nbf");
                c.as_object_mut().unwrap().remove("iat");
            }),
            None,
        ),
        ("another issuer", with(|c| c["iss"] = "http://other".into()), Some(Refusal::Issuer)),
        ("issuer in another case", with(|c| c["iss"] = "HTTP://gate".into()), Some(Refusal::Issuer)),
        (
            "no issuer",
            with(|c| {
                c.as_object_mut().unwrap().remove("iss");
            }),
            Some(Refusal::Issuer),
        ),
        ("issuer as an array", with(|c| c["iss"] = json!(["http://gate"])), Some(Refusal::Claims)),
        ("another audience", with(|c| c["aud"] = "http://gate".into()), Some(Refusal::Audience)),
        (
            "no audience",
            with(|c| {
                c.as_object_mut().unwrap().remove("aud");
            }),
            Some(Refusal::Audience),
        ),
        ("empty audience", with(|c| c["aud"] = json!([])), Some(Refusal::Audience)),
        ("audience of numbers", with(|c| c["aud"] = json!([1, "http://gate/mcp"])), Some(Refusal::Claims)),
        ("audience as an object", with(|c| c["aud"] = json!({"a": "http://gate/mcp"})), Some(Refusal::Claims)),
        (
            "no exp",
            with(|c| {
                c.as_object_mut().unwrap().remove("exp");
            }),
            Some(Refusal::Claims),
        ),
        ("exp as text", with(|c| c["exp"] = "9999999999".into()), Some(Refusal::Claims)),
        ("exp null", with(|c| c["exp"] = Value::Null), Some(Refusal::Claims)),
        ("exp negative", with(|c| c["exp"] = json!(-1)), Some(Refusal::Claims)),
        ("exp beyond all dates", with(|c| c["exp"] = json!(u64::MAX)), Some(Refusal::Claims)),
        ("exp 1e300", text.replace(&format!("\"exp\":{}", NOW_S + 900), "\"exp\":1e300"), Some(Refusal::Claims)),
        ("exp 1e999", text.replace(&format!("\"exp\":{}", NOW_S + 900), "\"exp\":1e999"), Some(Refusal::Claims)),
        ("exp true", with(|c| c["exp"] = true.into()), Some(Refusal::Claims)),
        ("expired", with(|c| c["exp"] = NOW_S.into()), Some(Refusal::Expired)),
        ("nbf ahead", with(|c| c["nbf"] = (NOW_S + LEEWAY_S + 1).into()), Some(Refusal::Early)),
        ("iat ahead", with(|c| c["iat"] = (NOW_S + LEEWAY_S + 1).into()), Some(Refusal::Early)),
        (
            "no sub",
            with(|c| {
                c.as_object_mut().unwrap().remove("sub");
            }),
            Some(Refusal::Claims),
        ),
        ("sub a number", with(|c| c["sub"] = 7.into()), Some(Refusal::Claims)),
        ("sub empty", with(|c| c["sub"] = "".into()), Some(Refusal::Agent)),
        ("sub with a line end", with(|c| c["sub"] = "alpha\nbeta".into()), Some(Refusal::Agent)),
        ("sub too long", with(|c| c["sub"] = "a".repeat(129).into()), Some(Refusal::Agent)),
        (
            "no sid",
            with(|c| {
                c.as_object_mut().unwrap().remove("sid");
            }),
            Some(Refusal::Claims),
        ),
        ("sid too short", with(|c| c["sid"] = "AAAA".into()), Some(Refusal::Claims)),
        ("sub twice", twice("sub", "\"beta\""), Some(Refusal::Claims)),
        ("sub twice, once escaped", twice("s\\u0075b", "\"beta\""), Some(Refusal::Claims)),
        ("exp twice", twice("exp", "9999999999"), Some(Refusal::Claims)),
        ("aud twice", twice("aud", "\"x\""), Some(Refusal::Claims)),
        ("something behind", format!("{text} {{}}"), Some(Refusal::Claims)),
        ("an array", format!("[{text}]"), Some(Refusal::Claims)),
        ("no JSON", "claims".to_owned(), Some(Refusal::Claims)),
        ("deep", format!("{{\"aud\":{}{}}}", "[".repeat(3000), "]".repeat(3000)), Some(Refusal::Claims)),
    ] {
        let token = forged(OWN_HEADER, &claims, SECRET);
        assert_eq!(own().verify(token.as_bytes(), NOW_MS).err(), expected, "{name}");
    }
}

/// Three keys of an issuer, one a kind.
struct Outside {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Outside {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref()).unwrap(),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
        }
    }

    fn modulus(&self) -> Vec<u8> {
        self.rsa.public_key().modulus().big_endian_without_leading_zero().to_vec()
    }

    fn jwks(&self) -> Value {
        let exponent = self.rsa.public_key().exponent().big_endian_without_leading_zero().to_vec();
        let point = self.ec.public_key().as_ref();
        json!({"keys": [
            {"kty": "RSA", "kid": "r", "use": "sig", "alg": "RS256", "n": b64(self.modulus()), "e": b64(exponent)},
            {"kty": "EC", "kid": "e", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..])},
            {"kty": "OKP", "kid": "d", "crv": "Ed25519", "x": b64(self.ed.public_key().as_ref())},
        ]})
    }

    fn keys(&self) -> IssuerKeys {
        IssuerKeys::from_jwks(self.jwks().to_string().as_bytes(), 1).unwrap()
    }

    fn sign(&self, header: &Value, claims: &Value, with: &str) -> String {
        let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match with {
            "r" => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            "e" => self.ec.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            _ => self.ed.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", b64(signature))
    }
}

fn rules() -> IssuerRules {
    IssuerRules { issuer: "https://id.example".into(), audience: "ringwall".into(), agent_claim: "sub".into() }
}

fn outside_claims() -> Value {
    json!({"iss": "https://id.example", "aud": ["other", "ringwall"], "sub": "alpha", "client": "beta", "exp": NOW_S + 60})
}

#[test]
fn an_outside_issuers_tokens_are_verified_by_the_key_they_name() {
    let outside = Outside::new();
    let keys = outside.keys();
    assert_eq!(keys.len(), 3);
    for (alg, kid) in [("RS256", "r"), ("ES256", "e"), ("EdDSA", "d"), ("Ed25519", "d")] {
        let token = outside.sign(&json!({"alg": alg, "kid": kid, "typ": "JWT"}), &outside_claims(), kid);
        let verified = keys.verify(&rules(), token.as_bytes(), NOW_MS).unwrap();
        assert_eq!((verified.agent.as_ref(), verified.until_ms), ("alpha", (NOW_S + 60 + LEEWAY_S) * 1000));
        // Without a name: the only key for the algorithm.
        let unnamed = outside.sign(&json!({"alg": alg}), &outside_claims(), kid);
        assert!(keys.verify(&rules(), unnamed.as_bytes(), NOW_MS).is_ok(), "{alg}");
        let by_claim = IssuerRules { agent_claim: "client".into(), ..rules() };
        assert_eq!(keys.verify(&by_claim, token.as_bytes(), NOW_MS).unwrap().agent.as_ref(), "beta");
        let other = Outside::new().keys();
        assert_eq!(other.verify(&rules(), token.as_bytes(), NOW_MS), Err(Refusal::Signature), "{alg} under other keys");
        assert_eq!(keys.verify(&rules(), token.as_bytes(), (NOW_S + 60 + LEEWAY_S) * 1000), Err(Refusal::Expired));
    }
}

#[test]
fn the_algorithm_is_the_keys_and_not_the_tokens() {
    let outside = Outside::new();
    let keys = outside.keys();
    let claims = outside_claims();
    let check = |token: &str| keys.verify(&rules(), token.as_bytes(), NOW_MS).unwrap_err();
    for (alg, kid, with, expected) in [
        ("none", "r", "r", Refusal::Algorithm),
        ("HS256", "r", "r", Refusal::Algorithm),
        ("RS512", "r", "r", Refusal::Algorithm),
        ("PS256", "r", "r", Refusal::Algorithm),
        ("rs256", "r", "r", Refusal::Algorithm),
        ("ES256", "r", "e", Refusal::Algorithm),
        ("RS256", "e", "r", Refusal::Algorithm),
        ("EdDSA", "e", "d", Refusal::Algorithm),
        ("RS256", "nobody", "r", Refusal::UnknownKey),
        ("RS256", "../r", "r", Refusal::UnknownKey),
        ("RS256", "", "r", Refusal::UnknownKey),
    ] {
        let token = outside.sign(&json!({"alg": alg, "kid": kid}), &claims, with);
        assert_eq!(check(&token), expected, "{alg} with {kid}");
    }
    // The oldest trick: the published RSA key as the secret of an HMAC.
    let header = json!({"alg": "HS256", "kid": "r"}).to_string();
    assert_eq!(check(&forged(&header, &claims.to_string(), &outside.modulus())), Refusal::Algorithm);
    let header = json!({"alg": "RS256", "kid": "r"}).to_string();
    assert_eq!(check(&forged(&header, &claims.to_string(), &outside.modulus())), Refusal::Signature);
    let unsigned = format!("{}.{}.", b64(r#"{"alg":"none"}"#), b64(claims.to_string()));
    assert_eq!(check(&unsigned), Refusal::Shape);
}

#[test]
fn headers_of_other_kinds_are_refused_and_keys_in_them_not_looked_at() {
    let (outside, attacker) = (Outside::new(), Outside::new());
    let keys = outside.keys();
    let claims = outside_claims();
    for (name, header, expected) in [
        ("critical", json!({"alg": "RS256", "kid": "r", "crit": ["exp"]}), Some(Refusal::Type)),
        ("critical, null", json!({"alg": "RS256", "kid": "r", "crit": null}), Some(Refusal::Type)),
        ("unencoded payload", json!({"alg": "RS256", "kid": "r", "b64": false}), Some(Refusal::Type)),
        ("a logout token", json!({"alg": "RS256", "kid": "r", "typ": "logout+jwt"}), Some(Refusal::Type)),
        ("an access token", json!({"alg": "RS256", "kid": "r", "typ": "application/AT+JWT"}), None),
        ("kid a number", json!({"alg": "RS256", "kid": 1}), Some(Refusal::Shape)),
        ("alg a list", json!({"alg": ["RS256"], "kid": "r"}), Some(Refusal::Shape)),
        ("no alg", json!({"kid": "r"}), Some(Refusal::Shape)),
    ] {
        let token = outside.sign(&header, &claims, "r");
        assert_eq!(keys.verify(&rules(), token.as_bytes(), NOW_MS).err(), expected, "{name}");
    }
    let own_key = attacker.jwks()["keys"][0].clone();
    let header = json!({"alg": "RS256", "kid": "r", "jwk": own_key, "jku": "https://attacker.example/jwks", "x5u": "https://attacker.example"});
    let token = attacker.sign(&header, &claims, "r");
    assert_eq!(keys.verify(&rules(), token.as_bytes(), NOW_MS), Err(Refusal::Signature));
    let twice = format!("{}.{}.AAAA", b64(r#"{"alg":"RS256","alg":"none","kid":"r"}"#), b64(claims.to_string()));
    assert_eq!(keys.verify(&rules(), twice.as_bytes(), NOW_MS), Err(Refusal::Shape));
}

#[test]
fn of_a_set_only_keys_that_can_be_used_are_kept() {
    let outside = Outside::new();
    let good = outside.jwks()["keys"].clone();
    let kept = |change: &dyn Fn(&mut Value)| {
        let mut set = json!({"keys": [good[0], good[1]]});
        change(&mut set["keys"][0]);
        IssuerKeys::from_jwks(set.to_string().as_bytes(), 1).unwrap().len()
    };
    assert_eq!(kept(&|_| {}), 2);
    for (name, change) in [
        ("for encryption", &(|key: &mut Value| key["use"] = "enc".into()) as &dyn Fn(&mut Value)),
        ("for signing only", &|key| key["key_ops"] = json!(["sign"])),
        ("for another algorithm", &|key| key["alg"] = "RS512".into()),
        ("symmetric", &|key| *key = json!({"kty": "oct", "k": b64(SECRET), "alg": "HS256", "kid": "r"})),
        ("too short", &|key| key["n"] = b64([0xff; 128]).into()),
        ("too long", &|key| key["n"] = b64([0xff; 2048]).into()),
        ("without an exponent", &|key| key["e"] = Value::Null),
        ("a name too long", &|key| key["kid"] = "k".repeat(257).into()),
        ("not an object", &|key| *key = json!(1)),
        ("another curve", &|key| *key = json!({"kty": "EC", "crv": "P-384", "x": b64([1; 48]), "y": b64([1; 48])})),
        ("half a point", &|key| *key = json!({"kty": "EC", "crv": "P-256", "x": b64([1; 31]), "y": b64([1; 32])})),
        ("an Ed448 key", &|key| *key = json!({"kty": "OKP", "crv": "Ed448", "x": b64([1; 57])})),
    ] {
        assert_eq!(kept(change), 1, "{name}");
    }
    let fault = |text: &str| IssuerKeys::from_jwks(text.as_bytes(), 1).err();
    assert_eq!(fault("{}"), Some(JwksFault::NoSet));
    assert_eq!(fault("<html>"), Some(JwksFault::NoSet));
    assert_eq!(fault(r#"{"keys":{}}"#), Some(JwksFault::NoSet));
    assert_eq!(fault(r#"{"keys":[]}"#), Some(JwksFault::NoKey));
    let many = json!({"keys": vec![good[2].clone(); 1000]});
    assert_eq!(IssuerKeys::from_jwks(many.to_string().as_bytes(), 1).unwrap().len(), super::issuer::MAX_KEYS);
}

#[test]
fn two_keys_of_one_name_and_kind_verify_nothing() {
    let (one, two) = (Outside::new(), Outside::new());
    let set = json!({"keys": [one.jwks()["keys"][0], two.jwks()["keys"][0]]});
    let keys = IssuerKeys::from_jwks(set.to_string().as_bytes(), 1).unwrap();
    for header in [json!({"alg": "RS256", "kid": "r"}), json!({"alg": "RS256"})] {
        let token = one.sign(&header, &outside_claims(), "r");
        assert_eq!(keys.verify(&rules(), token.as_bytes(), NOW_MS), Err(Refusal::UnknownKey), "{header}");
    }
}
