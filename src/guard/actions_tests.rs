#![allow(clippy::unwrap_used)]

use super::*;
use crate::rpc::Parser;
use crate::settings::{Inputs, Settings};

fn rules(text: &str) -> ActionRules {
    let inputs = Inputs { policy: Some(("ringwall.toml".into(), text.to_owned())), ..Inputs::default() };
    ActionRules::new(&Settings::load(&inputs).unwrap().settings.policy)
}

/// The argument with the number, and the limit a minute.
fn found(rules: &ActionRules, upstream: &str, tool: &str) -> Option<(Option<String>, Option<u32>)> {
    let action = rules.of(upstream, tool).unwrap()?;
    Some((action.recipient.map(|recipient| recipient.to_string()), action.limits.per_minute))
}

#[test]
fn what_calls_somebody_is_known_without_a_policy() {
    let rules = rules("");
    let calls = Some((Some("to".to_owned()), None));
    for (tool, expected) in [
        ("comms_make_call", &calls),
        ("Comms_Make_Call", &calls),
        ("comms_send_message", &None),
        ("make_call", &None),
        ("comms_make_call_", &None),
    ] {
        assert_eq!(found(&rules, "any", tool), *expected, "{tool}");
    }
    assert_eq!(rules.of("any", &"x".repeat(300)), Ok(None));
    assert_eq!(rules.of("any", &format!("comms_{}", "x".repeat(300))), Err(NameTooLong));
}

#[test]
fn the_first_entry_that_matches_decides() {
    let rules = rules(
        "[upstream.crm]\nurl = \"http://127.0.0.1:1/\"\n\n[tool.dial]\nkind = \"call\"\nrecipient = \"number\"\n\n\
         [tool.send]\nlimits = { per_minute = 3 }\n\n[tool.\"send*\"]\nlimits = { per_minute = 4 }\n\n\
         [tool.ring]\nkind = \"call\"\nupstream = \"crm\"\n\n[tool.plain]\nkind = \"message\"\n\n\
         [tool.\"comms_*\"]\nlimits = { per_minute = 5 }\n\n[tool.comms_bridge_call]\nkind = \"other\"\n\n\
         [tool.\"*\"]\nlimits = { per_minute = 6 }\n",
    );
    let calls = |argument: &str| Some((Some(argument.to_owned()), None));
    let limited = |per_minute| Some((None, Some(per_minute)));
    for (upstream, tool, expected) in [
        ("crm", "dial", calls("number")),
        ("crm", "DIAL", calls("number")),
        ("crm", "send", limited(3)),
        ("crm", "Send", limited(3)),
        ("crm", "send_all", limited(4)),
        ("crm", "ring", calls("to")),
        ("erp", "ring", limited(6)),
        ("crm", "plain", None),
        ("erp", "comms_call_on_behalf", Some((Some("to".to_owned()), Some(5)))),
        ("crm", "comms_make_call", Some((Some("to".to_owned()), Some(5)))),
        ("crm", "comms_bridge_call", None),
        ("crm", "unknown", limited(6)),
    ] {
        assert_eq!(found(&rules, upstream, tool), expected, "{upstream}/{tool}");
    }
    assert_eq!(rules.of("crm", &"x".repeat(300)), Err(NameTooLong), "it could be one of send*");
}

fn called(arguments: &str) -> Result<Option<String>, Unclear> {
    let raw = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"dial\",\"arguments\":{arguments}}}}}"
    );
    let envelope = Parser::new(64).parse(raw.as_bytes()).unwrap();
    let number = number("to", &envelope, raw.as_bytes())?;
    Ok(number.map(|number| String::from_utf8(number.to_vec()).unwrap()))
}

#[test]
fn a_number_is_the_same_however_it_is_written() {
    for written in [
        "\"+15551234567\"",
        "\"15551234567\"",
        "15551234567",
        "\"+1 (555) 123-4567\"",
        "\"+1.555.123.4567\"",
        "\"0015551234567\"",
        "\"tel:+1-555-123-4567\"",
        "\"TEL:+15551234567;ext=9\"",
        "\"+15551234567,,99#\"",
        "\"+15551234567x12\"",
        "\"\\u002b15551234567\"",
        "\" +15551234567 \"",
    ] {
        assert_eq!(called(&format!("{{\"to\":{written}}}")), Ok(Some("15551234567".to_owned())), "{written}");
    }
    for (arguments, expected) in [
        ("{\"to\":\"+15551234568\"}", Ok(Some("15551234568"))),
        ("{\"to\":\"Client:Alice\"}", Ok(Some("client:alice"))),
        ("{\"to\":\"\"}", Ok(Some(""))),
        ("{\"TO\":\"+1555\"}", Ok(Some("1555"))),
        ("{\"from\":\"+1555\"}", Ok(None)),
        ("{}", Ok(None)),
        ("{\"to\":[\"+1555\"]}", Err(Unclear)),
        ("{\"to\":{\"n\":\"+1555\"}}", Err(Unclear)),
        ("{\"to\":null}", Err(Unclear)),
        ("{\"to\":true}", Err(Unclear)),
        ("{\"to\":-1555}", Err(Unclear)),
    ] {
        assert_eq!(called(arguments), expected.map(|found: Option<&str>| found.map(str::to_owned)), "{arguments}");
    }
}

#[test]
fn a_number_of_any_length_has_a_bound() {
    let digits = "1".repeat(5_000);
    assert_eq!(called(&format!("{{\"to\":\"{digits}\"}}")).unwrap().unwrap().len(), NUMBER_BYTES);
    let text = "x".repeat(5_000);
    assert_eq!(called(&format!("{{\"to\":\"{text}\"}}")).unwrap().unwrap().len(), NUMBER_BYTES);
}
