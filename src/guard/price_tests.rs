#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::rpc::Parser;
use proptest::prelude::*;

#[test]
fn segments_are_those_of_the_carriers() {
    let table: &[(&str, &str, usize, u64)] = &[
        ("nothing", "", 1, 1),
        ("one character", "a", 1, 1),
        ("a full segment", "a", 160, 1),
        ("one more", "a", 161, 2),
        ("two full ones", "a", 306, 2),
        ("three", "a", 307, 3),
        ("letters with accents of the alphabet", "é", 160, 1),
        ("Greek capitals of the alphabet", "Ω", 161, 2),
        ("line breaks and the at sign", "@\n", 80, 1),
        ("extension characters count two", "€", 80, 1),
        ("81 of them are 162", "€", 81, 2),
        // 153 is odd: the last place of each segment stays empty.
        ("they are not divided", "€", 153, 3),
        ("braces are of the extension", "{", 81, 2),
        ("a backtick is not of the alphabet", "`", 71, 2),
        ("neither is a tab", "\t", 71, 2),
        ("UCS-2, full", "я", 70, 1),
        ("UCS-2, one more", "я", 71, 2),
        ("UCS-2, two full ones", "я", 134, 2),
        ("UCS-2, three", "я", 135, 3),
        ("an emoji is two units", "😀", 35, 1),
        ("36 are 72", "😀", 36, 2),
        // 67 is odd: 33 a segment.
        ("pairs are not divided", "😀", 67, 3),
        ("c with a cedilla is not of the alphabet, its capital is", "ç", 71, 2),
        ("its capital", "Ç", 160, 1),
    ];
    for (name, character, times, expected) in table {
        assert_eq!(segments(&character.repeat(*times)), *expected, "{name}");
    }
    // One character of another alphabet changes the count for all.
    assert_eq!(segments(&format!("{}я", "a".repeat(69))), 1);
    assert_eq!(segments(&format!("{}я", "a".repeat(70))), 2);
}

#[test]
fn the_alphabet_is_whole() {
    // 128 places, of which one is the escape; the form feed stands in the extension table.
    let basic = (0..=0x10_FFFF).filter_map(char::from_u32).filter(|c| septets(*c) == Some(1)).count();
    let extension = (0..=0x10_FFFF).filter_map(char::from_u32).filter(|c| septets(*c) == Some(2)).count();
    assert_eq!((basic, extension), (127, 10));
}

fn price_of(arguments: &str, price: Price) -> Result<u64, Unpriceable> {
    let raw = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"send","arguments":{arguments}}}}}"#
    );
    let envelope = Parser::new(64).parse(raw.as_bytes()).unwrap();
    of_call(price, Some("body"), &envelope, raw.as_bytes())
}

#[test]
fn a_price_follows_from_the_arguments() {
    let per_segment = Price::PerSegment { microusd: 7_900 };
    let long = "a".repeat(161);
    for (arguments, expected) in [
        ("{}".to_owned(), Ok(7_900)),
        (r#"{"to":"+1","body":"hello"}"#.to_owned(), Ok(7_900)),
        (format!(r#"{{"body":"{long}"}}"#), Ok(15_800)),
        // Sixty escapes are sixty characters.
        (format!(r#"{{"body":"{}"}}"#, r"\u0061".repeat(161)), Ok(15_800)),
        (format!(r#"{{"body":"short","Body":"{long}"}}"#), Ok(15_800)),
        (format!(r#"{{"b\u006fdy":"{long}"}}"#), Ok(15_800)),
        (r#"{"body":["a"]}"#.to_owned(), Err(Unpriceable)),
        (r#"{"body":"a","BODY":7}"#.to_owned(), Err(Unpriceable)),
        (format!(r#"{{"other":"{long}"}}"#), Ok(7_900)),
    ] {
        assert_eq!(price_of(&arguments, per_segment), expected, "{arguments}");
    }
    assert_eq!(price_of("{}", Price::Fixed { microusd: 10 }), Ok(10));
    assert_eq!(price_of("{}", Price::PerMinute { microusd: 14_000, max_minutes: 30 }), Ok(420_000));
    assert_eq!(price_of("{}", Price::PerMinute { microusd: u64::MAX, max_minutes: 9 }), Ok(MAX_MICROUSD));
}

#[test]
fn what_an_upstream_tells_is_read_to_the_micro_dollar() {
    let raw = br#"{"result":{"price":0.0079,"costs":[{"usd":"-0.00750"},{"usd":null}],"a/b":{"~":"1"},"big":1e300,"text":"free"}}"#;
    let root = scan::member(raw, scan::value(raw).unwrap(), "result").unwrap();
    for (pointer, expected) in [
        ("/price", Some(7_900)),
        ("/costs/0/usd", Some(7_500)),
        ("/costs/1/usd", None),
        ("/costs/2/usd", None),
        ("/costs/x", None),
        ("/a~1b/~0", Some(1_000_000)),
        ("/big", None),
        ("/text", None),
        ("/price/deeper", None),
        ("/absent", None),
        ("/costs", None),
    ] {
        assert_eq!(told(pointer, root, raw), expected, "{pointer}");
    }
    for (text, expected) in [
        ("0", Some(0)),
        ("1", Some(1_000_000)),
        ("0.0000001", Some(1)),
        ("0.0000010", Some(1)),
        ("0.00000101", Some(2)),
        ("7.9e-3", Some(7_900)),
        ("79E-4", Some(7_900)),
        ("1.5e3", Some(1_500_000_000)),
        ("0e9", Some(0)),
        ("1e-60", Some(1)),
        ("-0.5", Some(500_000)),
        ("1125899906.842623", Some(MAX_MICROUSD)),
        ("1125899906.842624", None),
        ("99999999999999999999", None),
        ("1e64", None),
        ("", None),
        ("-", None),
        (".5", None),
        ("5.", None),
        ("--5", None),
        ("1e", None),
        ("0x10", None),
        ("NaN", None),
        (" 1", None),
        ("true", None),
    ] {
        assert_eq!(microusd(text.as_bytes()), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn any_amount_reads_as_it_was_written(micros in 0..=MAX_MICROUSD) {
        let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        prop_assert_eq!(microusd(text.as_bytes()), Some(micros));
        prop_assert_eq!(microusd(format!("{micros}e-6").as_bytes()), Some(micros));
    }

    #[test]
    fn no_bytes_upset_it(text in prop::collection::vec(any::<u8>(), 0..60), exponent in any::<i32>()) {
        let _ = microusd(&text);
        let _ = microusd(format!("1.25e{exponent}").as_bytes());
    }

    /// A shorter text never has more segments; a segment never holds more than it has room for.
    #[test]
    fn segments_grow_with_the_text(text in "[a-z€{я😀 ]{0,400}") {
        let all = segments(&text);
        let shorter: String = text.chars().skip(1).collect();
        prop_assert!(segments(&shorter) <= all || septets(text.chars().next().unwrap()).is_none());
        let units: u64 = text.chars().map(units).sum();
        prop_assert!(all * 160 >= units);
    }
}
