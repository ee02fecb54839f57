#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

const NOW_MS: u64 = 1_795_000_000_000;
const MINUTE: Span = Span::Sliding(60_000);

fn table() -> RateTable {
    RateTable::new(1_000, [7; 16])
}

#[test]
fn a_limit_slides() {
    let table = table();
    let (key, rule) = (table.key(1, b"a"), Rule { limit: 3, span: MINUTE });
    for n in 0..3 {
        assert!(table.take(key, rule, 1, NOW_MS + n * 1_000).is_ok());
    }
    let refused = table.take(key, rule, 1, NOW_MS + 5_000).unwrap_err();
    assert_eq!(refused, Refused { current: 3, max: 3, retry_after_ms: 55_000 });
    assert!(table.take(key, rule, 1, NOW_MS + 59_999).is_err());
    assert!(table.take(key, rule, 1, NOW_MS + 60_000).is_ok());
    assert_eq!(table.take(key, rule, 1, NOW_MS + 60_000).unwrap_err().retry_after_ms, 1_000);
}

#[test]
fn what_is_given_back_was_never_taken() {
    let table = table();
    let (key, rule) = (table.key(1, b"a"), Rule { limit: 2, span: MINUTE });
    let first = table.take(key, rule, 1, NOW_MS).unwrap();
    let _kept = table.take(key, rule, 1, NOW_MS + 10).unwrap();
    table.give_back(key, rule, first, NOW_MS + 20);
    assert_eq!(table.peek(key, rule, NOW_MS + 20), Usage { used: 1, left: 1, resets_at_ms: NOW_MS + 60_010 });
    assert!(table.take(key, rule, 1, NOW_MS + 30).is_ok());
    assert_eq!(table.take(key, rule, 1, NOW_MS + 30).unwrap_err().retry_after_ms, 59_980);
}

#[test]
fn kinds_spans_and_bytes_are_counts_of_their_own() {
    let table = table();
    let rule = |span| Rule { limit: 1, span };
    let keys = [table.key(1, b"a"), table.key(2, b"a"), table.key(1, b"b")];
    for key in keys {
        for span in [Span::Sliding(1_000), MINUTE, Span::Day, Span::Month] {
            assert!(table.take(key, rule(span), 1, NOW_MS).is_ok());
            assert!(table.take(key, rule(span), 1, NOW_MS).is_err());
        }
    }
}

#[test]
fn days_and_months_end_at_midnight_utc() {
    // (a moment, the end of its day, the end of its month), from `date -u`.
    for (now_s, day_s, month_s) in [
        (1_795_000_000, 1_795_046_400, 1_796_083_200),
        (1_709_164_800, 1_709_251_200, 1_709_251_200),
        (1_704_067_199, 1_704_067_200, 1_704_067_200),
        (1_704_067_200, 1_704_153_600, 1_706_745_600),
    ] {
        for (span, end_s) in [(Span::Day, day_s), (Span::Month, month_s)] {
            assert_eq!(end_of(span, now_s * 1_000), end_s * 1_000, "{now_s} {span:?}");
        }
    }
}

#[test]
fn v6_counts_by_64_and_mapped_v4_as_v4() {
    let table = table();
    let key = |ip: &str| table.key_of_ip(1, ip.parse().unwrap());
    assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
    assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
    assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
    assert_ne!(key("10.0.0.2"), key("10.0.0.1"));
}
