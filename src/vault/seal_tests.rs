#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const KEY: [u8; 32] = [7; 32];

fn sealed() -> Record {
    Key::new(&KEY).seal("twilio", 3, 1_700_000_000_000, "AC1:a-secret").unwrap()
}

#[test]
fn what_was_sealed_is_opened_under_its_key_alone() {
    let record = sealed();
    assert_eq!(*Key::new(&KEY).open(&record).unwrap(), "AC1:a-secret");
    assert!(!record.sealed.windows(6).any(|part| part == b"secret"));
    let other = Key::new(&[8; 32]);
    assert_eq!(other.open(&record), Err(OpenError::OtherKey(Key::new(&KEY).id())));
    // A record that says it were of that key.
    let claimed = Record { key_id: other.id(), ..record };
    assert_eq!(other.open(&claimed), Err(OpenError::Damaged));
    assert_ne!(sealed().nonce, sealed().nonce);
}

#[test]
fn every_field_is_bound_to_the_credential() {
    let key = Key::new(&KEY);
    let good = sealed();
    let other = key.seal("resend", 3, 1_700_000_000_000, "AC1:a-secret").unwrap();
    let changed = [
        ("name", Record { name: "twilip".into(), ..good.clone() }),
        ("name, cut", Record { name: "twili".into(), ..good.clone() }),
        ("revision", Record { revision: 4, ..good.clone() }),
        ("time", Record { updated_ms: good.updated_ms + 1, ..good.clone() }),
        ("another's content", Record { sealed: other.sealed.clone(), nonce: other.nonce, ..good.clone() }),
        ("another's name", Record { name: other.name.clone(), ..good.clone() }),
        ("no content", Record { sealed: Vec::new(), ..good.clone() }),
        ("a tag alone", Record { sealed: good.sealed[good.sealed.len() - 16..].to_vec(), ..good.clone() }),
    ];
    for (what, record) in changed {
        assert_eq!(key.open(&record), Err(OpenError::Damaged), "{what}");
    }
    assert!(key.open(&good).is_ok());
}

proptest! {
    #[test]
    fn any_flipped_bit_and_any_cut_is_found(at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<prop::sample::Index>()) {
        let (key, good) = (Key::new(&KEY), sealed());
        let mut flipped = good.clone();
        let at = at.index(good.sealed.len() + NONCE_BYTES);
        match at.checked_sub(NONCE_BYTES) {
            None => flipped.nonce[at] ^= 1 << bit,
            Some(at) => flipped.sealed[at] ^= 1 << bit,
        }
        prop_assert_eq!(key.open(&flipped), Err(OpenError::Damaged));
        let mut short = good.clone();
        short.sealed.truncate(cut.index(good.sealed.len()));
        prop_assert_eq!(key.open(&short), Err(OpenError::Damaged));
    }

    #[test]
    fn whatever_is_sealed_comes_back(name in "[a-z]{1,64}", revision: u64, updated_ms: u64, value in "\\PC{1,200}") {
        let record = Key::new(&KEY).seal(&name, revision, updated_ms, &value).unwrap();
        prop_assert_eq!(&*Key::new(&KEY).open(&record).unwrap(), &value);
    }
}

/// Rows of third-party vectors. `None`, said in a line, where they are not at hand; in CI they must be.
fn rows(file: &str) -> Option<Vec<Value>> {
    let folder = std::env::var_os("RINGWALL_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    let path = folder.join("crypto").join(file);
    let Ok(text) = std::fs::read_to_string(&path) else {
        assert!(std::env::var_os("CI").is_none(), "{} is missing", path.display());
        println!("skipped: {} is missing (set RINGWALL_DATA)", path.display());
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).expect("a JSON row")).collect())
}

fn hex(row: &Value, key: &str) -> Vec<u8> {
    let text = row[key].as_str().unwrap_or_default();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// One vector of a 256-bit key, a 96-bit nonce and a 128-bit tag: `msg` is what it opens to, where it is valid.
fn check(row: &Value, msg: &str) {
    let key: [u8; 32] = hex(row, "key").try_into().unwrap();
    let nonce: [u8; NONCE_BYTES] = hex(row, "iv").try_into().unwrap();
    let (cipher, bound) = (Aes256Gcm::new(&key.into()), hex(row, "aad"));
    let whole = [hex(row, "ct"), hex(row, "tag")].concat();
    let mut opened = whole.clone();
    let result = decrypt(&cipher, &nonce, &bound, &mut opened);
    if row["label"] == "invalid" {
        assert!(result.is_err(), "{}", row["id"]);
        return;
    }
    assert!(result.is_ok(), "{}", row["id"]);
    assert_eq!(opened, hex(row, msg), "{}", row["id"]);
    let mut again = opened;
    encrypt(&cipher, &nonce, &bound, &mut again).unwrap();
    assert_eq!(again, whole, "{}", row["id"]);
}

#[test]
fn wycheproof() {
    let Some(rows) = rows("wycheproof_aes_gcm_test.jsonl") else { return };
    let of = |row: &&Value, key: &str| row["group"][key].as_u64();
    let ours = |row: &&Value| {
        of(row, "keySize") == Some(256) && of(row, "ivSize") == Some(96) && of(row, "tagSize") == Some(128)
    };
    let ours: Vec<_> = rows.iter().filter(ours).collect();
    let invalid = ours.iter().filter(|row| row["label"] == "invalid").count();
    assert!(ours.len() >= 60 && invalid >= 20, "{} vectors, {invalid} invalid", ours.len());
    ours.iter().for_each(|row| check(row, "msg"));
}

#[test]
fn nist_cavp() {
    let Some(rows) = rows("nist_cavp_aes256gcm.jsonl") else { return };
    let ours = |row: &&Value| row["lens"]["IVlen"] == 96 && row["lens"]["Taglen"] == 128;
    let ours: Vec<_> = rows.iter().filter(ours).collect();
    let invalid = ours.iter().filter(|row| row["label"] == "invalid").count();
    assert!(ours.len() >= 50 && invalid >= 5, "{} vectors, {invalid} invalid", ours.len());
    ours.iter().for_each(|row| check(row, "pt"));
}
