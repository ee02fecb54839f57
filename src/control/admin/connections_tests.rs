#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::SocketAddr;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::control::admin::AdminConfig;
use crate::control::tests::{Rig, ask_with};
use crate::state::connections::{Arrival, ConnectionEntry};
use crate::state::events::Client;

const TOKEN: &str = "orchestrator-token-of-32-characters";

fn rig() -> Rig {
    Rig::start(AdminConfig { token_sha256: Some(Sha256::digest(TOKEN).into()), ..AdminConfig::default() })
}

fn asked(rig: &Rig, method: &str, path: &str) -> (u16, Value) {
    let answer = ask_with(rig.admin, method, path, &format!("Authorization: Bearer {TOKEN}\r\n"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
}

fn open(rig: &Rig, door: Door, last: u8) -> ConnectionEntry {
    let peer = SocketAddr::from(([10, 0, 0, last], 4_000));
    let arrival = Arrival { door, door_limit: 9, peer, address_limit: Some(9), worker: 0, now_ms: 1_000 };
    rig.connections.open(&arrival).unwrap()
}

fn ids(page: &Value) -> Vec<&str> {
    page["connections"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect()
}

#[test]
fn the_list_has_one_shape() {
    let rig = rig();
    let entry = open(&rig, Door::Http, 1);
    entry.identify(PrincipalKind::Agent, "alpha");
    entry.touch(4_500);
    entry.received(2, 300);
    entry.sent(1, 70);
    let expected = serde_json::json!({"connections": [{
        "id": entry.id().to_string(), "door": "http", "peer": "10.0.0.1:4000", "client": "10.0.0.1",
        "principal": "agent", "agent": "alpha", "worker": 0, "openedAt": "1970-01-01T00:00:01.000Z",
        "ageMs": 4000, "idleMs": 500, "messagesIn": 2, "messagesOut": 1, "bytesIn": 300, "bytesOut": 70, "closing": null,
    }], "next": null, "unread": 0});
    assert_eq!(asked(&rig, "GET", "/admin/connections"), (200, expected));
}

#[test]
fn filters_and_pages() {
    let rig = rig();
    let held = [open(&rig, Door::Http, 1), open(&rig, Door::Ws, 1), open(&rig, Door::Http, 2)];
    held[2].identify(PrincipalKind::Agent, "alpha");
    let names: Vec<String> = held.iter().map(|entry| entry.id().to_string()).collect();
    for (query, expected) in [
        ("", &names[..]),
        ("?door=http", &[names[0].clone(), names[2].clone()]),
        ("?door=tcp", &[]),
        ("?agent=alpha", &names[2..]),
        ("?ip=10.0.0.1", &names[..2]),
        ("?ip=::ffff:10.0.0.2", &names[2..]),
        ("?ip=10.0.0.1&door=ws", &names[1..2]),
    ] {
        let (status, page) = asked(&rig, "GET", &format!("/admin/connections{query}"));
        assert_eq!((status, ids(&page)), (200, expected.iter().map(String::as_str).collect()), "{query}");
    }
    let (_, first) = asked(&rig, "GET", "/admin/connections?limit=2");
    let after = first["next"].as_str().unwrap();
    let (_, second) = asked(&rig, "GET", &format!("/admin/connections?limit=2&cursor={after}"));
    assert_eq!([ids(&first), ids(&second)].concat(), names);
    assert_eq!(second["next"], Value::Null);
    for query in [
        "?door=x",
        "?limit=0",
        "?limit=501",
        "?limit=x",
        "?cursor=x",
        "?ip=x",
        "?agnt=a",
        "?agent=",
        "?door=ws&door=ws",
    ] {
        let (status, body) = asked(&rig, "GET", &format!("/admin/connections{query}"));
        assert_eq!((status, &body["code"]), (400, &"invalid_filter".into()), "{query}");
    }
}

#[test]
fn a_close_reaches_its_connection_once_and_is_recorded_once() {
    let rig = rig();
    let (stays, goes) = (open(&rig, Door::Http, 1), open(&rig, Door::Ws, 2));
    goes.identify(PrincipalKind::Agent, "alpha");
    let path = format!("/admin/connections/{}", goes.id());
    for _ in 0..2 {
        let accepted = serde_json::json!({"id": goes.id().to_string(), "closing": "admin"});
        assert_eq!(asked(&rig, "DELETE", &path), (202, accepted));
    }
    assert_eq!((goes.asked_to_close(), stays.asked_to_close()), (Some(CloseReason::Admin), None));
    assert_eq!(asked(&rig, "GET", "/admin/connections?door=ws").1["connections"][0]["closing"], "admin");
    let event = rig.events.pop().unwrap();
    assert_eq!((event.kind, event.rule, event.ip), (EventKind::ConnectionClosed, "operator", "10.0.0.2".parse().ok()));
    assert_eq!(event.client, Some(Client { door: Door::Ws, id: goes.id() }));
    assert_eq!(event.agent.as_str(), "alpha");
    assert_eq!(event.details.as_str(), "closed by an operator, from 127.0.0.1");
    assert!(rig.events.pop().is_none());
    drop(goes);
    for path in [&*path, "/admin/connections/0", "/admin/connections/x", "/admin/connections/ffffffffffffffff"] {
        let (status, body) = asked(&rig, "DELETE", path);
        let code = if path.ends_with("/x") { "not_found" } else { "connection_not_open" };
        assert_eq!((status, &body["code"]), (404, &code.into()), "{path}");
    }
    assert!(rig.events.pop().is_none());
}

#[test]
fn nobody_lists_or_closes_without_the_token() {
    let rig = rig();
    let disabled = Rig::start(AdminConfig::default());
    let entry = open(&rig, Door::Http, 1);
    let close = format!("/admin/connections/{}", entry.id());
    for (method, path) in [("GET", "/admin/connections"), ("DELETE", &*close)] {
        assert!(ask_with(rig.admin, method, path, "").starts_with("HTTP/1.1 401 "), "{path}");
        assert!(
            ask_with(rig.admin, method, path, "Authorization: Bearer x\r\n").starts_with("HTTP/1.1 401 "),
            "{path}"
        );
        let answer = ask_with(disabled.admin, method, path, &format!("Authorization: Bearer {TOKEN}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("admin_disabled"), "{path}: {answer}");
    }
    assert_eq!(entry.asked_to_close(), None);
    assert_eq!(asked(&rig, "POST", "/admin/connections").0, 405);
    assert_eq!(asked(&rig, "GET", &close).0, 405);
}
