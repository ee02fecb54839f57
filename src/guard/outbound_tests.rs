//! Which arguments are looked at, and what becomes of what is found in them.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::settings::policy::ContentMode::{Block, Monitor, Off};
use std::sync::LazyLock;

static FILTER: LazyLock<Arc<ContentFilter>> =
    LazyLock::new(|| Arc::new(ContentFilter::shipped(content::Thresholds::default()).unwrap()));

fn look(policy: &Policy, tool: &str, arguments: &str) -> Option<Found> {
    let raw = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
    );
    let mut parser = Parser::new(64);
    let envelope = parser.parse(raw.as_bytes()).unwrap();
    let outbound = Outbound::new(FILTER.clone(), policy);
    outbound.look(&mut content::Scratch::default(), policy, ("crm", tool), (&envelope, &parser, raw.as_bytes()))
}

fn refused(policy: &Policy, tool: &str, arguments: &str) -> Option<(Offence, String)> {
    match look(policy, tool, arguments)? {
        Found::Refuse(offending) => Some((offending.offence, offending.field.into())),
        Found::Record(_) => None,
    }
}

fn policy(tool: ToolPolicy) -> Policy {
    Policy { tools: vec![tool], ..Policy::default() }
}

const THREAT: Offence = Offence::Content(Category::Threat);

#[test]
fn tools_of_the_profile_are_looked_at_without_a_policy() {
    let none = Policy::default();
    for (tool, arguments, field) in [
        ("comms_send_message", r#"{"to":"+1","body":"I will kill you"}"#, "body"),
        ("comms_make_call", r#"{"script":"I w\u0069ll k1ll\nyou"}"#, "script"),
        ("COMMS_send", r#"{"Text":"I will kill you"}"#, "Text"),
        ("comms_send_message", r#"{"\u0062ody":"I will kill you"}"#, "body"),
        ("comms_send_message", r#"{"message":{"parts":[{"text":"hello"},{"text":"I will kill you"}]}}"#, "message"),
        ("comms_send_message", r#"{"message":["x",["I will kill you"]]}"#, "message"),
        ("comms_send_message", r#"{"message":{"I will kill you":1}}"#, "message"),
    ] {
        assert_eq!(
            refused(&none, tool, arguments),
            Some((THREAT, format!("/params/arguments/{field}"))),
            "{arguments}"
        );
    }
    for (tool, arguments) in [
        ("comms_send_message", r#"{"body":"please kill the process"}"#),
        ("comms_send_message", r#"{"to":"I will kill you"}"#),
        ("comms_send_message", r#"{"body":7,"text":null,"html":{}}"#),
        ("write_file", r#"{"text":"I will kill you"}"#),
        ("comms", r#"{"text":"I will kill you"}"#),
    ] {
        assert_eq!(look(&none, tool, arguments), None, "{arguments}");
    }
}

#[test]
fn the_policy_says_which_tools_and_which_arguments() {
    let sends = |text: &str| ToolPolicy {
        pattern: "send".into(),
        kind: Some(ToolKind::Message),
        text: Some(text.into()),
        ..ToolPolicy::default()
    };
    let bad = r#"{"words":"I will kill you","body":"fine"}"#;
    for name in ["words", "/words", "/words/0", "WORDS"] {
        assert!(refused(&policy(sends(name)), "send", bad).is_some(), "{name}");
    }
    assert_eq!(look(&policy(sends("body")), "send", bad), None);
    let reads = ToolPolicy { kind: Some(ToolKind::Records), ..sends("words") };
    assert_eq!(look(&policy(reads), "send", bad), None);
    // What the policy says of a tool of the profile holds.
    let comms = ToolPolicy { pattern: "comms_note".into(), kind: Some(ToolKind::Records), ..ToolPolicy::default() };
    assert_eq!(look(&policy(comms), "comms_note", r#"{"text":"I will kill you"}"#), None);
}

#[test]
fn modes_decide_and_a_tool_has_its_own() {
    let mut own = Policy::default();
    let bad = r#"{"text":"I will kill you","body":"card 4111 1111 1111 1111"}"#;
    let card = Offence::Sensitive(sensitive::Kind::CardNumber);
    own.content.mode = Monitor;
    assert!(matches!(look(&own, "comms_x", bad), Some(Found::Record(offending)) if offending.offence == THREAT));
    own.content.sensitive = SensitiveMode::Block;
    assert_eq!(refused(&own, "comms_x", bad), Some((card, "/params/arguments/body".into())));
    own.content.mode = Off;
    own.content.sensitive = SensitiveMode::Warn;
    assert!(matches!(look(&own, "comms_x", bad), Some(Found::Record(offending)) if offending.offence == card));
    own.content.sensitive = SensitiveMode::Off;
    assert_eq!(look(&own, "comms_x", bad), None);
    own.tools = vec![ToolPolicy { pattern: "comms_x".into(), content: Some(Block), ..ToolPolicy::default() }];
    assert_eq!(refused(&own, "comms_x", bad).map(|(offence, _)| offence), Some(THREAT));
    assert_eq!(look(&own, "comms_y", bad), None);
}

#[test]
fn nothing_of_the_text_is_told() {
    let Some(Found::Refuse(offending)) = look(&Policy::default(), "comms_x", r#"{"text":"you fucking bastard"}"#)
    else {
        panic!("not refused")
    };
    for told in [&*offending.field, &*offending.detail, offending.offence.text(), offending.offence.rule()] {
        assert!(!told.contains("fuck") && !told.contains("bastard"), "{told}");
    }
    let secret = format!("sk_live_{}", "0a1b2c3d4e5f6789");
    let Some(Found::Record(offending)) = look(&Policy::default(), "comms_x", &format!(r#"{{"text":"use {secret}"}}"#))
    else {
        panic!("not recorded")
    };
    assert_eq!(&*offending.detail, "Stripe, byte 4 of a text in /params/arguments/text");
}
