#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json as js};
use sha2::{Digest, Sha256};

use crate::control::admin::AdminConfig;
use crate::control::tests::{Rig, ask_with};
use crate::settings::policy::Agent;
use crate::state::events::EventKind;

const TOKEN: &str = "orchestrator-token-of-32-characters";

fn rig() -> Rig {
    let agent = |id: &str, enabled| Agent {
        id: id.into(),
        token_sha256: None,
        enabled,
        tier: Some("gold".into()),
        limits: Default::default(),
        access: Default::default(),
    };
    Rig::start(AdminConfig {
        token_sha256: Some(Sha256::digest(TOKEN).into()),
        agents: vec![agent("alpha", true), agent("zeta", false)],
        ..AdminConfig::default()
    })
}

fn ask(rig: &Rig, method: &str, path: &str, body: Option<&Value>) -> (u16, Value, String) {
    let body = body.map(Value::to_string);
    let body = body.map_or_else(String::new, |body| {
        format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    });
    let answer = ask_with(rig.admin, method, path, &format!("Authorization: Bearer {TOKEN}\r\n{body}"));
    let (head, told) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(told).unwrap(), head.to_owned())
}

fn issue(rig: &Rig, body: Value) -> Value {
    let (status, told, head) = ask(rig, "POST", "/admin/tokens", Some(&body));
    assert_eq!(status, 201, "{told}");
    let id = told["token"]["id"].as_str().unwrap();
    assert!(
        head.contains(&format!("location: /admin/tokens/{id}")) && head.contains("cache-control: no-store"),
        "{head}"
    );
    told
}

#[test]
fn a_token_is_issued_read_rotated_and_revoked() {
    let rig = rig();
    let told = issue(&rig, js!({"agent": "alpha", "label": "läptop", "expiresInSeconds": 100}));
    assert!(told["secret"].as_str().unwrap().starts_with("rw_agent_"));
    let id = told["token"]["id"].as_str().unwrap().to_owned();
    let expected = js!({
        "id": id, "agent": "alpha", "label": "läptop", "state": "valid", "issuedAt": "1970-01-01T00:00:05.000Z",
        "expiresAt": "1970-01-01T00:01:45.000Z", "revokedAt": null, "lastUsedAt": null, "replacedBy": null,
    });
    assert_eq!(told["token"], expected);
    let path = format!("/admin/tokens/{id}");
    let (status, read, _) = ask(&rig, "GET", &path, None);
    assert_eq!((status, &read), (200, &expected), "and no secret");
    let (status, rotated, _) = ask(&rig, "POST", &format!("{path}/rotate"), Some(&js!({"graceSeconds": 10})));
    assert_eq!(status, 201);
    assert_ne!(rotated["secret"], told["secret"]);
    assert_eq!(rotated["replaced"]["expiresAt"], "1970-01-01T00:00:15.000Z");
    assert_eq!(rotated["replaced"]["replacedBy"], rotated["token"]["id"]);
    assert_eq!(rotated["token"]["expiresAt"], "1970-01-01T00:01:45.000Z", "it lives as long as the first was to");
    let (status, again, _) = ask(&rig, "POST", &format!("{path}/rotate"), Some(&js!({})));
    assert_eq!((status, &again["code"]), (409, &"token_ended".into()));
    for _ in 0..2 {
        let (status, revoked, _) = ask(&rig, "DELETE", &path, None);
        assert_eq!(
            (status, &revoked["state"], &revoked["revokedAt"]),
            (200, &"revoked".into(), &"1970-01-01T00:00:05.000Z".into())
        );
    }
    let kinds: Vec<_> =
        std::iter::from_fn(|| rig.events.pop()).map(|event| (event.kind, event.agent.to_string())).collect();
    let by = |kind| (kind, "alpha".to_owned());
    assert_eq!(kinds, [by(EventKind::TokenIssued), by(EventKind::TokenIssued), by(EventKind::TokenRevoked)]);
    for (method, path) in [("GET", ""), ("DELETE", ""), ("POST", "/rotate")] {
        let (status, told, _) = ask(&rig, method, &format!("/admin/tokens/000000000000ffffffff{path}"), Some(&js!({})));
        assert_eq!((status, &told["code"]), (404, &"token_not_found".into()), "{method}");
    }
}

#[test]
fn bodies_are_read_strictly() {
    let rig = rig();
    for body in [
        js!({}),
        js!({"agent": ""}),
        js!({"agent": "a b"}),
        js!({"agent": "a".repeat(129)}),
        js!({"agent": 1}),
        js!({"agent": "a", "more": 1}),
        js!({"agent": "a", "label": "a\nb"}),
        js!({"agent": "a", "label": "x".repeat(101)}),
        js!({"agent": "a", "expiresInSeconds": 0}),
        js!({"agent": "a", "expiresInSeconds": -1}),
        js!({"agent": "a", "expiresInSeconds": 315_360_001}),
        js!({"agent": "a", "expiresInSeconds": "1"}),
        js!({"agent": "a", "expiresInSeconds": 1.5}),
        js!({"agent": "a", "expiresInSeconds": 1e300}),
    ] {
        let (status, told, _) = ask(&rig, "POST", "/admin/tokens", Some(&body));
        assert_eq!((status, &told["code"]), (422, &"invalid_body".into()), "{body}");
    }
    assert!(rig.events.pop().is_none());
    assert_eq!(ask(&rig, "GET", "/admin/tokens", None).1, js!({"tokens": [], "next": null}));
    issue(&rig, js!({"agent": "a".repeat(128), "label": "ä".repeat(100), "expiresInSeconds": 315_360_000}));
    issue(&rig, js!({"agent": "a", "label": null, "expiresInSeconds": null}));
    issue(&rig, js!({"agent": "a", "expiresInSeconds": 464.0}));
}

#[test]
fn lists_are_filtered_and_paged() {
    let rig = rig();
    let agents = ["alpha", "beta", "beta", "alpha", "gamma"];
    let ids: Vec<_> = agents
        .iter()
        .map(|agent| issue(&rig, js!({"agent": agent}))["token"]["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ask(&rig, "DELETE", &format!("/admin/tokens/{}", ids[1]), None).0, 200);
    for (query, expected) in [
        ("", vec![0, 1, 2, 3, 4]),
        ("?agent=beta", vec![1, 2]),
        ("?agent=nobody", vec![]),
        ("?state=valid", vec![0, 2, 3, 4]),
        ("?state=ended", vec![1]),
        ("?state=valid&agent=beta", vec![2]),
    ] {
        // Names of one millisecond sort by chance.
        let mut expected: Vec<&str> = expected.into_iter().map(|i: usize| ids[i].as_str()).collect();
        expected.sort_unstable();
        let (mut found, mut path) = (Vec::new(), format!("/admin/tokens{query}"));
        loop {
            let (status, page, _) = ask(&rig, "GET", &path, None);
            assert_eq!(status, 200);
            found.extend(
                page["tokens"].as_array().unwrap().iter().map(|token| token["id"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page["next"].as_str() else { break };
            let mark = if query.is_empty() { '?' } else { '&' };
            path = format!("/admin/tokens{query}{mark}limit=2&cursor={next}");
        }
        assert_eq!(found, expected, "{query}");
    }
    for query in ["?limit=501", "?cursor=x", "?state=revoked", "?agent=", "?agnt=a", "?agent=a&agent=b"] {
        let (status, told, _) = ask(&rig, "GET", &format!("/admin/tokens{query}"), None);
        assert_eq!((status, &told["code"]), (400, &"invalid_filter".into()), "{query}");
    }
}

#[test]
fn agents_are_those_of_the_policy_and_those_with_tokens() {
    let rig = rig();
    for agent in ["beta", "alpha", "alpha"] {
        issue(&rig, js!({"agent": agent}));
    }
    // The rig has no settings to take limits from.
    let limits = js!({"perMinute": 0, "perHour": 0, "perDay": 0, "sameNumberPerDay": 0, "spendPerDayUsd": "0.00",
                      "spendPerMonthUsd": "0.00"});
    let shown = |id: &str, policy: bool, enabled: bool, valid: u64| {
        js!({"id": id, "inPolicy": policy, "enabled": enabled, "tier": policy.then_some("gold"), "policyToken": false,
             "validTokens": valid, "lastUsedAt": null, "limits": limits, "givenLimits": false})
    };
    let all = [shown("alpha", true, true, 2), shown("beta", false, true, 1), shown("zeta", true, false, 0)];
    assert_eq!(ask(&rig, "GET", "/admin/agents", None).1, js!({"agents": all, "next": null}));
    let (_, first, _) = ask(&rig, "GET", "/admin/agents?limit=2", None);
    assert_eq!((&first["agents"], &first["next"]), (&js!(all[..2]), &"beta".into()));
    assert_eq!(ask(&rig, "GET", "/admin/agents?limit=2&cursor=beta", None).1, js!({"agents": all[2..], "next": null}));
    for agent in &all {
        assert_eq!(ask(&rig, "GET", &format!("/admin/agents/{}", agent["id"].as_str().unwrap()), None).1, *agent);
    }
    assert_eq!(ask(&rig, "GET", "/admin/agents/nobody", None).1["code"], "agent_not_found");
}
