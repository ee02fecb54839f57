#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::settings::policy::{Agent, Limits, Principals, Tier};

fn any(tool: &str) -> ToolPattern {
    ToolPattern { upstream: None, tool: tool.into() }
}

fn of(upstream: &str, tool: &str) -> ToolPattern {
    ToolPattern { upstream: Some(upstream.into()), tool: tool.into() }
}

fn access(tools: Option<&[ToolPattern]>, deny: &[ToolPattern]) -> ToolAccess {
    ToolAccess { tools: tools.map(<[_]>::to_vec), deny_tools: deny.to_vec() }
}

fn agent(id: &str, tier: Option<&str>, access: ToolAccess) -> Agent {
    let tier = tier.map(str::to_owned);
    Agent { id: id.into(), token_sha256: None, enabled: true, tier, limits: Limits::default(), access }
}

fn permissions(agents: Vec<Agent>, tiers: &[(&str, ToolAccess)], principals: Principals) -> Permissions {
    let tier = |(name, access): &(&str, ToolAccess)| {
        ((*name).to_owned(), Tier { limits: Limits::default(), access: access.clone() })
    };
    let tiers: BTreeMap<_, _> = tiers.iter().map(tier).collect();
    Permissions::new(&Policy { agents, tiers, principals, ..Policy::default() })
}

fn may(permissions: &Permissions, id: &str, upstream: &str, tool: &str) -> bool {
    permissions.of(&Principal::Agent(id.into())).is_none_or(|access| access.allows(upstream, tool))
}

#[test]
fn patterns_name_tools_and_their_upstreams() {
    let only = |patterns: &[ToolPattern]| Access::of(&[&access(Some(patterns), &[])]).unwrap();
    for (patterns, upstream, tool, expected) in [
        (&[any("send")][..], "crm", "send", true),
        (&[any("send")], "mail", "send", true),
        (&[any("send")], "crm", "send_all", false),
        (&[any("send")], "crm", "Send", false),
        (&[any("comms_*")], "crm", "comms_send", true),
        (&[any("comms_*")], "crm", "comms", false),
        (&[any("*")], "crm", "", true),
        (&[of("crm", "*")], "crm", "send", true),
        (&[of("crm", "*")], "mail", "send", false),
        (&[of("crm", "send"), of("mail", "send")], "mail", "send", true),
        (&[of("crm", "send"), any("read")], "mail", "send", false),
        (&[], "crm", "send", false),
    ] {
        assert_eq!(only(patterns).allows(upstream, tool), expected, "{patterns:?} {upstream} {tool}");
    }
}

#[test]
fn what_is_denied_is_denied_in_any_case_of_its_letters() {
    let access = Access::of(&[&access(Some(&[any("*")]), &[any("delete_*"), of("crm", "purge")])]).unwrap();
    for (upstream, tool, expected) in [
        ("crm", "read", true),
        ("crm", "delete_user", false),
        ("mail", "DELETE_user", false),
        ("crm", "Purge", false),
        ("mail", "purge", true),
    ] {
        assert_eq!(access.allows(upstream, tool), expected, "{upstream} {tool}");
    }
}

#[test]
fn what_is_nearest_says_what_may_be_and_all_say_what_may_not() {
    let tiers = [("gold", access(Some(&[any("read_*")]), &[any("read_secret")])), ("plain", ToolAccess::default())];
    let agents = vec![
        agent("own", Some("gold"), access(Some(&[any("*")]), &[])),
        agent("denied", Some("gold"), access(None, &[any("read_b")])),
        agent("tier", Some("gold"), ToolAccess::default()),
        agent("other-tier", Some("plain"), ToolAccess::default()),
        agent("nothing", None, ToolAccess::default()),
    ];
    let open = permissions(agents.clone(), &tiers, Principals::default());
    let closed = Principals { agent: access(Some(&[]), &[any("never")]), ..Principals::default() };
    let closed = permissions(agents, &tiers, closed);
    for (id, tool, when_open, when_closed) in [
        ("own", "write", true, true),
        ("own", "read_secret", false, false),
        ("own", "never", true, false),
        ("denied", "read_a", true, true),
        ("denied", "read_b", false, false),
        ("denied", "write", false, false),
        ("tier", "read_a", true, true),
        ("tier", "read_secret", false, false),
        ("tier", "write", false, false),
        ("other-tier", "write", true, false),
        ("nothing", "write", true, false),
        ("never-heard-of", "write", true, false),
    ] {
        assert_eq!(may(&open, id, "crm", tool), when_open, "{id} {tool}");
        assert_eq!(may(&closed, id, "crm", tool), when_closed, "{id} {tool}, closed");
    }
    assert!(open.of(&Principal::Agent("nothing".into())).is_none(), "who is not restricted costs nothing");
    let shared = |permissions: &Permissions| permissions.of(&Principal::Agent("tier".into())).cloned().unwrap();
    assert!(Arc::ptr_eq(&shared(&open), &shared(&open)));
}

#[test]
fn every_kind_of_principal_can_be_restricted() {
    let kinds = || [Principal::Door, Principal::Anonymous, Principal::Demo, Principal::Agent("a".into())];
    let one = |tool: &str| access(Some(&[any(tool)]), &[]);
    let principals = Principals { door: one("d"), anonymous: one("n"), demo: one("m"), agent: one("a") };
    let restricted = permissions(Vec::new(), &[], principals);
    for (principal, own) in kinds().iter().zip(["d", "n", "m", "a"]) {
        let access = restricted.of(principal).unwrap();
        for tool in ["d", "n", "m", "a"] {
            assert_eq!(access.allows("crm", tool), tool == own, "{principal:?} {tool}");
        }
    }
    let open = permissions(Vec::new(), &[], Principals::default());
    assert!(kinds().iter().all(|principal| open.of(principal).is_none()));
}

#[test]
fn a_name_longer_than_any_pattern_is_not_compared() {
    let access = Access::of(&[&access(None, &[any("x")])]).unwrap();
    assert!(access.allows("crm", &"a".repeat(MAX_TOOL_NAME_BYTES)));
    assert!(!access.allows("crm", &"a".repeat(MAX_TOOL_NAME_BYTES + 1)));
}

fn patterns() -> impl Strategy<Value = Vec<ToolPattern>> {
    let pattern =
        (proptest::option::of("[ab]"), "[abA*]{1,4}").prop_map(|(upstream, tool)| ToolPattern { upstream, tool });
    proptest::collection::vec(pattern, 0..6)
}

/// The plain way: every pattern, as a regular expression would read it.
fn plainly(pattern: &ToolPattern, upstream: &str, tool: &str) -> bool {
    fn glob(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.first() {
            None => text.is_empty(),
            Some(b'*') => (0..=text.len()).any(|at| glob(&pattern[1..], &text[at..])),
            Some(byte) => text.first() == Some(byte) && glob(&pattern[1..], &text[1..]),
        }
    }
    pattern.upstream.as_ref().is_none_or(|only| only == upstream) && glob(pattern.tool.as_bytes(), tool.as_bytes())
}

proptest! {
    #[test]
    fn agrees_with_looking_at_every_pattern(
        allowed in proptest::option::of(patterns()),
        denied in patterns(),
        upstream in "[ab]",
        tool in "[abA]{0,5}",
    ) {
        let said = access(allowed.as_deref(), &denied);
        let lower = |pattern: &ToolPattern| ToolPattern { tool: pattern.tool.to_lowercase(), ..pattern.clone() };
        let expected = allowed.is_none_or(|all| all.iter().any(|one| plainly(one, &upstream, &tool)))
            && !denied.iter().any(|one| plainly(&lower(one), &upstream, &tool.to_lowercase()));
        let found = Access::of(&[&said]).is_none_or(|access| access.allows(&upstream, &tool));
        prop_assert_eq!(found, expected);
    }
}
