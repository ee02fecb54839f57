#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

fn row() -> Listed {
    Listed {
        id: "1000001".into(),
        door: "http".into(),
        peer: "10.0.0.1:4000".into(),
        client: "10.0.0.1".into(),
        principal: "agent".into(),
        agent: Some("alpha".into()),
        worker: 0,
        opened_at: "2026-01-01T00:00:00.000Z".into(),
        age_ms: 65_000,
        idle_ms: 300,
        messages_in: 2,
        messages_out: 1,
        bytes_in: 300,
        bytes_out: 70_000,
        closing: None,
    }
}

#[test]
fn a_table_for_people() {
    let hostile = Listed {
        id: "2000002".into(),
        door: "ws".into(),
        client: "192.0.2.1".into(),
        agent: Some("a\x1b[31m".into()),
        closing: Some("admin".into()),
        ..row()
    };
    let unknown = Listed { id: "3".into(), principal: "unknown".into(), agent: None, ..row() };
    let expected = "\
ID       DOOR  CLIENT                       WHO     SINCE  IDLE  MSG IN/OUT  BYTES IN/OUT
1000001  http  10.0.0.1:4000                alpha   1m 5s  0.3s  2/1         300/68.3K
2000002  ws    192.0.2.1 via 10.0.0.1:4000  a [31m  1m 5s  0.3s  2/1         300/68.3K     closing: admin
3        http  10.0.0.1:4000                -       1m 5s  0.3s  2/1         300/68.3K
3 open
7 more could not be read: they changed whenever they were looked at
";
    assert_eq!(table(&[row(), hostile, unknown], 7), expected);
    assert!(table(&[], 0).ends_with("\n0 open\n"));
}

#[test]
fn json_is_one_document() {
    let document: serde_json::Value = serde_json::from_str(&json(&[row()], 1).unwrap()).unwrap();
    assert_eq!((&document["connections"][0]["idleMs"], &document["unread"]), (&300.into(), &1.into()));
}

#[test]
fn numbers_for_people() {
    for (ms, text) in [
        (0, "0.0s"),
        (9_999, "9.9s"),
        (10_000, "10s"),
        (61_000, "1m 1s"),
        (3_600_000, "1h 0m"),
        (90_000_000, "1d 1h"),
        (u64::MAX, "213503982334d 14h"),
    ] {
        assert_eq!(duration(ms), text);
    }
    for (n, text) in [(0, "0"), (999, "999"), (1000, "0.9K"), (1024, "1.0K"), (1 << 20, "1.0M"), (u64::MAX, "15.9E")] {
        assert_eq!(bytes(n), text);
    }
}
