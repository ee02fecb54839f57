#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::control::admin::AdminConfig;
use crate::control::alerts::{AlertKind, NewAlert, Subject};
use crate::control::tests::{Rig, ask_with};

const TOKEN: &str = "orchestrator-token-of-32-characters";

fn rig() -> Rig {
    Rig::start(AdminConfig { token_sha256: Some(Sha256::digest(TOKEN).into()), ..AdminConfig::default() })
}

fn raise(rig: &Rig, kind: AlertKind, agent: &str) {
    let subject = Subject::Agent(agent.to_owned());
    assert!(rig.alerts.raise(NewAlert { kind, subject, details: "why".to_owned() }));
}

fn get(rig: &Rig, query: &str) -> (u16, Value) {
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let answer = ask_with(rig.admin, "GET", &format!("/admin/alerts{query}"), &token);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

fn agents(page: &Value) -> Vec<&str> {
    page["alerts"].as_array().unwrap().iter().map(|alert| alert["agent"].as_str().unwrap()).collect()
}

#[test]
fn alerts_come_newest_first_a_page_at_a_time() {
    let rig = rig();
    assert_eq!(get(&rig, ""), (200, serde_json::json!({"alerts": [], "next": null})));
    for agent in ["a", "b", "c", "d", "e"] {
        raise(&rig, AlertKind::TokenBurst, agent);
    }
    let (_, all) = get(&rig, "");
    assert_eq!((agents(&all), &all["next"]), (vec!["e", "d", "c", "b", "a"], &Value::Null));
    let (_, first) = get(&rig, "?limit=2");
    assert_eq!(agents(&first), ["e", "d"]);
    // What is raised meanwhile moves nothing.
    raise(&rig, AlertKind::TokenBurst, "f");
    let (_, second) = get(&rig, &format!("?limit=2&cursor={}", first["next"].as_str().unwrap()));
    assert_eq!(agents(&second), ["c", "b"]);
    let (_, last) = get(&rig, &format!("?limit=2&cursor={}", second["next"].as_str().unwrap()));
    assert_eq!((agents(&last), &last["next"]), (vec!["a"], &Value::Null));
}

#[test]
fn a_page_can_be_of_what_is_serious() {
    let rig = rig();
    raise(&rig, AlertKind::TokenBurst, "medium");
    raise(&rig, AlertKind::RefreshReuse, "high");
    raise(&rig, AlertKind::AuditUnavailable, "critical");
    assert_eq!(agents(&get(&rig, "?severity=MEDIUM").1), ["critical", "high", "medium"]);
    assert_eq!(agents(&get(&rig, "?severity=HIGH").1), ["critical", "high"]);
    assert_eq!(agents(&get(&rig, "?severity=CRITICAL&limit=1").1), ["critical"]);
}

#[test]
fn filters_that_mean_nothing_are_refused() {
    let rig = rig();
    let queries = [
        "?limit=0",
        "?limit=501",
        "?limit=x",
        "?severity=high",
        "?cursor=",
        "?cursor=zz",
        "?what=1",
        "?limit=1&limit=2",
    ];
    for query in queries {
        let (status, problem) = get(&rig, query);
        assert_eq!((status, &problem["code"]), (400, &"invalid_filter".into()), "{query}");
    }
}

#[test]
fn without_the_token_there_are_no_alerts() {
    let rig = rig();
    raise(&rig, AlertKind::RefreshReuse, "secret");
    let answer = ask_with(rig.admin, "GET", "/admin/alerts", "");
    assert!(answer.starts_with("HTTP/1.1 401 ") && !answer.contains("secret"), "{answer}");
}
