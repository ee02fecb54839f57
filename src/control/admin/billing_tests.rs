#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

#[test]
fn a_query_says_what_has_rows_of_its_own() {
    let by = |text: &str| By::try_from(text.to_owned()).ok().map(|by| (by.0.times, by.0.by_agent, by.0.by_tool));
    assert_eq!(by("agent"), Some((Times::All, true, false)));
    assert_eq!(by("tool,month,agent"), Some((Times::Month, true, true)));
    assert_eq!(by("day"), Some((Times::Day, false, false)));
    for wrong in ["", "year", "day,month", "agent,agent", "agent,", "Agent"] {
        assert_eq!(by(wrong), None, "{wrong}");
    }
    let day = |text: &str| DayText::try_from(text.to_owned()).ok().map(|day| day_text(day.0));
    assert_eq!(day("2026-02-28").as_deref(), Some("2026-02-28"));
    for wrong in ["2026-02-29", "20260228", "2026-02-28T00:00Z", "1969-12-31", ""] {
        assert_eq!(day(wrong), None, "{wrong}");
    }
    assert!(Payer::try_from("(door)".to_owned()).is_ok());
    assert!(Payer::try_from("(root)".to_owned()).is_err());
    let key: Key = (20_779, "bot".into(), "up".into(), "say \"ü\"".into());
    let cursor = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&key).unwrap());
    assert_eq!(Cursor::try_from(cursor).unwrap().0, key);
    assert!(Cursor::try_from("AAAA".to_owned()).is_err());
}

#[test]
fn fields_of_csv_are_neither_formulas_nor_more_than_one() {
    for (text, expected) in [
        ("send", "send"),
        ("a,b", "\"a,b\""),
        ("a \"b\"", "\"a \"\"b\"\"\""),
        ("=SUM(A1)", "\"'=SUM(A1)\""),
        ("@bot", "\"'@bot\""),
        ("-x", "\"'-x\""),
        ("two\r\nlines", "two  lines"),
        ("", ""),
    ] {
        assert_eq!(field(text), expected, "{text}");
    }
    let row = SpentShown {
        day: None,
        month: Some("2026-11".into()),
        agent: Some("bot".into()),
        upstream: None,
        tool: None,
        calls: 2,
        spent_usd: "0.0158".into(),
        unsettled_calls: 1,
        unsettled_usd: "0.0079".into(),
        reserved_calls: 0,
        reserved_usd: "0.00".into(),
    };
    let text = csv(&[row]);
    let lines: Vec<_> = text.split("\r\n").collect();
    assert_eq!(lines[1], ",2026-11,bot,,,2,0.0158,1,0.0079,0,0.00");
    assert_eq!(lines[0].split(',').count(), lines[1].split(',').count());
    assert_eq!(lines.len(), 3);
}
