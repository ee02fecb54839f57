//! What gives something away, and what only looks like it. Keys are made up: of the right shape, and nobody's.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use proptest::prelude::*;

fn kinds(text: &str) -> Vec<Kind> {
    let mut all = Vec::new();
    each(text.as_bytes(), |found| all.push(found.kind));
    all
}

/// Characters of a key, all of an alphabet that every provider has.
fn some(len: usize) -> String {
    "0a1b2c3d4e5f6789".chars().cycle().take(len).collect()
}

#[test]
fn card_numbers() {
    // Numbers that schemes publish for tests.
    for number in [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4012888888881881",
        "5555555555554444",
        "2223003122003222",
        "378282246310005",
        "3782 822463 10005",
        "6011111111111117",
        "30569309025904",
        "3056 930902 5904",
        "3530111333300000",
        "6200000000000005",
    ] {
        for text in
            [number.to_owned(), format!("my card is {number}, thanks"), format!("\\n{number}."), format!("({number})")]
        {
            assert_eq!(kinds(&text), [Kind::CardNumber], "{text}");
        }
    }
    for text in [
        "4111111111111112",        // the check digit
        "1234567812345670",        // no issuer
        "41111111111111111111111", // too long
        "9784111111111111111",     // an ISBN with something behind it
        "order-4111111111111111",  // part of a word
        "a4111111111111111",
        "4111111111111111abc",
        "4111 1111-1111 1111", // two separators
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "0000000000000000",
        "4111.1111",
        "+1 415 555 0100",
        "2026-11-22 20:29:28",
        "1.2.3.4",
        "https://example.com/4111111111111111/x",
    ] {
        assert_eq!(kinds(text), [], "{text}");
    }
}

#[test]
fn social_security_numbers() {
    for text in ["123-45-6789", "SSN 123-45-6789.", "my number: 899 99 9999", "\"001-01-0001\""] {
        assert_eq!(kinds(text), [Kind::SocialSecurityNumber], "{text}");
    }
    for text in [
        "000-45-6789",
        "666-45-6789",
        "900-45-6789",
        "123-00-6789",
        "123-45-0000",
        "078-05-1120",
        "219-09-9999",
        "123456789",
        "123-456-789",
        "123-45-67890",
        "0123-45-6789",
        "415-555-0100",
        "x123-45-6789",
        "5-123-45-6789",
    ] {
        assert_eq!(kinds(text), [], "{text}");
    }
}

#[test]
fn provider_keys() {
    let keys = [
        ("AWS", format!("AKIA{}", "QWERTYUIOP234567")),
        ("GitHub", format!("ghp_{}", some(36))),
        ("GitHub", format!("github_pat_{}", some(82))),
        ("GitLab", format!("glpat-{}", some(20))),
        ("Slack", format!("xoxb-{}", some(40))),
        ("Stripe", format!("sk_live_{}", some(24))),
        ("Google", format!("AIza{}", some(35))),
        ("Anthropic", format!("sk-ant-{}", some(90))),
        ("OpenAI", format!("sk-proj-{}", some(48))),
        ("OpenAI", format!("sk-{}", some(48))),
        ("Twilio", format!("SK{}", some(32))),
        ("SendGrid", format!("SG.{}.{}", some(22), some(43))),
        ("npm", format!("npm_{}", some(36))),
        ("Telegram", format!("bot12345678:{}", some(35))),
        ("JWT", format!("eyJ{}.eyJ{}.{}", some(20), some(30), some(43))),
    ];
    for (of, key) in &keys {
        for text in [
            key.clone(),
            format!("use {key}. ok"),
            format!("\"{key}\""),
            format!("\\n{key}\\n"),
            format!("token={key}&x=1"),
        ] {
            let found = first(text.as_bytes()).unwrap_or_else(|| panic!("{of}: {text}"));
            assert_eq!((found.kind, found.of), (Kind::ProviderKey, *of), "{text}");
            assert_eq!(&text[found.place], key);
        }
    }
    for text in [
        format!("AKIA{}", "QWERTYUIOP2345678"), // longer
        format!("AKIA{}", "qwertyuiop234567"),  // another alphabet
        format!("ghp_{}", some(20)),            // shorter
        format!("ghp_{}", "x".repeat(36)),      // documentation
        format!("TASK{}", some(32)),            // inside of a word
        format!("my_sk-{}", some(48)),
        "sk-learn and risk-averse task-force".to_owned(),
        "eyJhbGciOiJIUzI1NiJ9".to_owned(), // a header alone
        "robot bottle bot1234".to_owned(),
    ] {
        assert_eq!(kinds(&text), [], "{text}");
    }
}

#[test]
fn private_keys() {
    for label in [
        "PRIVATE KEY",
        "RSA PRIVATE KEY",
        "EC PRIVATE KEY",
        "ENCRYPTED PRIVATE KEY",
        "OPENSSH PRIVATE KEY",
        "PGP PRIVATE KEY BLOCK",
    ] {
        for end in ["\n", "\\n"] {
            let block = format!("-----BEGIN {label}-----{end}{}{end}-----END {label}-----", some(64));
            let text = format!("\"see: {block}{end}\"");
            let found = first(text.as_bytes()).unwrap();
            assert_eq!((found.kind, &text[found.place]), (Kind::PrivateKey, block.as_str()));
        }
    }
    let cut = format!("{{\"text\":\"-----BEGIN PRIVATE KEY-----\\n{}\",\"more\":1}}", some(64));
    let found = first(cut.as_bytes()).unwrap();
    assert!(cut[found.place].ends_with("6789"));
    assert_eq!(kinds("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"), []);
    assert_eq!(kinds("-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----"), []);
    assert_eq!(kinds("-----BEGIN "), []);
}

proptest! {
    #[test]
    fn anything_is_searched_and_what_is_found_lies_in_it(text in "(eyJ|AKIA|sk-|bot|-----BEGIN |PRIVATE KEY|-----|[0-9a-f .:-]{0,24}|\\PC{0,8}){0,24}") {
        each(text.as_bytes(), |found| assert!(found.place.start < found.place.end && found.place.end <= text.len()));
    }

    #[test]
    fn every_number_with_its_check_digit_is_a_card_and_no_other(body in proptest::collection::vec(0u8..10, 14)) {
        let with = |check: u8| {
            let digits = std::iter::once(4).chain(body.iter().copied()).chain([check]);
            digits.map(|digit| char::from(b'0' + digit)).collect::<String>()
        };
        let cards = (0..10).filter(|&check| kinds(&with(check)) == [Kind::CardNumber]).count();
        prop_assert_eq!(cards, 1);
    }
}
