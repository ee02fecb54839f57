#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json as js};
use sha2::{Digest, Sha256};

use crate::control::admin::AdminConfig;
use crate::control::tests::{Rig, ask_with};
use crate::settings::policy::Agent;
use crate::state::events::EventKind;

const TOKEN: &str = "orchestrator-token-of-32-characters";

fn rig() -> Rig {
    let agent = |id: &str| Agent {
        id: id.into(),
        token_sha256: None,
        enabled: true,
        tier: None,
        limits: Default::default(),
        access: Default::default(),
    };
    Rig::start(AdminConfig {
        token_sha256: Some(Sha256::digest(TOKEN).into()),
        agents: vec![agent("alpha"), agent("zeta")],
        ..AdminConfig::default()
    })
}

fn ask(rig: &Rig, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let body = body.map(Value::to_string);
    let body = body.map_or_else(String::new, |body| {
        format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    });
    let answer = ask_with(rig.admin, method, path, &format!("Authorization: Bearer {TOKEN}\r\n{body}"));
    let (head, told) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(told).unwrap())
}

fn ids(page: &Value, of: &str) -> Vec<String> {
    page["agents"].as_array().unwrap().iter().map(|agent| agent[of].as_str().unwrap().to_owned()).collect()
}

#[test]
fn limits_are_given_listed_and_taken_back() {
    let rig = rig();
    let path = "/admin/agents/mike/limits";
    let (status, told) = ask(&rig, "GET", path, None);
    assert_eq!((status, &told["given"], &told["agent"]), (200, &Value::Null, &"mike".into()));
    let (status, problem) = ask(&rig, "DELETE", path, None);
    assert_eq!((status, &problem["code"]), (404, &"limits_not_found".into()));

    let wanted = js!({"perMinute": 7, "spendPerDayUsd": "0.5", "perDay": null});
    let (status, told) = ask(&rig, "PUT", path, Some(&wanted));
    assert_eq!(status, 200, "{told}");
    let given = js!({"perMinute": 7, "perHour": null, "perDay": null, "sameNumberPerDay": null,
                     "spendPerDayUsd": "0.50", "spendPerMonthUsd": null});
    assert_eq!(told["given"], given);
    assert_eq!((&told["inForce"]["perMinute"], &told["inForce"]["spendPerDayUsd"]), (&js!(7), &js!("0.50")));
    let minute = js!({"limit": "per-minute", "max": 7, "used": 0, "left": 7, "resetsAt": null, "resetsInMs": 0,
                      "source": "operator"});
    assert_eq!(told["usage"][0], minute);
    assert_eq!(told["usage"][1]["source"], "default");
    let event = std::iter::from_fn(|| rig.events.pop()).find(|event| event.kind == EventKind::ConfigReloaded).unwrap();
    assert_eq!((event.agent.as_str(), event.rule), ("mike", "operator"));
    assert!(event.details.contains("7/m") && event.details.contains("127.0.0.1"), "{}", event.details);

    // One that neither the policy nor a token names is listed once it was given limits.
    let (_, page) = ask(&rig, "GET", "/admin/limits?limit=2", None);
    assert_eq!((ids(&page, "agent"), &page["next"]), (vec!["alpha".to_owned(), "mike".into()], &"mike".into()));
    let (_, page) = ask(&rig, "GET", "/admin/limits?limit=2&cursor=mike", None);
    assert_eq!((ids(&page, "agent"), &page["next"]), (vec!["zeta".to_owned()], &Value::Null));
    let (_, page) = ask(&rig, "GET", "/admin/agents", None);
    assert_eq!(ids(&page, "id"), ["alpha", "mike", "zeta"]);
    assert_eq!((&page["agents"][1]["limits"]["perMinute"], &page["agents"][1]["givenLimits"]), (&js!(7), &js!(true)));
    let (status, agent) = ask(&rig, "GET", "/admin/agents/mike", None);
    assert_eq!((status, &agent["inPolicy"]), (200, &js!(false)));

    // Another takes the place of the one before, whole.
    let (_, told) = ask(&rig, "PUT", path, Some(&js!({"perHour": 9})));
    assert_eq!((&told["given"]["perMinute"], &told["given"]["perHour"]), (&Value::Null, &js!(9)));
    let (status, told) = ask(&rig, "DELETE", path, None);
    assert_eq!((status, &told["given"]), (200, &Value::Null));
    assert_eq!(ask(&rig, "GET", "/admin/agents/mike", None).0, 404, "nobody knows it any more");
}

#[test]
fn bodies_and_queries_are_read_strictly() {
    let rig = rig();
    let path = "/admin/agents/mike/limits";
    for body in [
        js!({}),
        js!({"perMinute": null}),
        js!({"perMinute": -1}),
        js!({"perMinute": 1_000_000_001}),
        js!({"perMinute": "7"}),
        js!({"per_minute": 7}),
        js!({"spendPerDayUsd": 1}),
        js!({"spendPerDayUsd": "1.0000001"}),
        js!({"spendPerDayUsd": " 1"}),
        js!({"spendPerDayUsd": "-1"}),
        js!({"spendPerDayUsd": "10000000000"}),
        js!([]),
    ] {
        let (status, problem) = ask(&rig, "PUT", path, Some(&body));
        assert_eq!((status, &problem["code"]), (422, &"invalid_body".into()), "{body}");
    }
    for path in ["/admin/limits?limit=0", "/admin/limits?cursor=a%20b", "/admin/limits?x=1"] {
        let (status, problem) = ask(&rig, "GET", path, None);
        assert_eq!((status, &problem["code"]), (400, &"invalid_filter".into()), "{path}");
    }
    assert_eq!(ask(&rig, "GET", "/admin/agents/a%20b/limits", None).0, 404);
    assert_eq!(ask(&rig, "GET", path, None).1["given"], Value::Null, "nothing of it was taken");
}
