#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "a test waits for another thread")]

use serde_json::{Value, json as js};
use sha2::{Digest, Sha256};

use crate::control::admin::AdminConfig;
use crate::control::tests::{Rig, ask_with};
use crate::state::blocks::Place;
use crate::state::events::EventKind;

const TOKEN: &str = "orchestrator-token-of-32-characters";
/// The rig's clock.
const NOW: u64 = 5_000;

fn rig() -> Rig {
    Rig::start(AdminConfig { token_sha256: Some(Sha256::digest(TOKEN).into()), ..AdminConfig::default() })
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

fn add(rig: &Rig, body: &Value) -> (u16, Value) {
    let (status, told, _) = ask(rig, "POST", "/admin/blocks", Some(body));
    (status, told)
}

#[test]
fn a_network_is_blocked_listed_and_lifted() {
    let rig = rig();
    let (status, told, head) = ask(
        &rig,
        "POST",
        "/admin/blocks",
        Some(&js!({"network": "203.0.113.99/24", "reason": "scans", "expiresInSeconds": 60})),
    );
    let expected = js!({
        "network": "203.0.113.0/24", "kind": "operator", "reason": "scans", "since": "1970-01-01T00:00:05.000Z",
        "until": "1970-01-01T00:01:05.000Z",
    });
    assert_eq!((status, &told), (201, &expected));
    assert!(head.contains("location: /admin/blocks/203.0.113.0%2F24"), "{head}");
    assert!(rig.blocks.find("203.0.113.7".parse().unwrap(), Place::Doors, NOW).is_some());
    let (status, told) = add(&rig, &js!({"network": "::ffff:198.51.100.7"}));
    assert_eq!((status, &told["network"], &told["until"]), (201, &"198.51.100.7".into(), &Value::Null));
    let listed = ask(&rig, "GET", "/admin/blocks", None).1;
    assert_eq!(listed["blocks"].as_array().unwrap().len(), 2);
    assert_eq!((&listed["blocks"][1], &listed["next"]), (&expected, &Value::Null));
    assert_eq!(ask(&rig, "DELETE", "/admin/blocks/203.0.113.0%2F24", None).0, 200);
    assert!(rig.blocks.find("203.0.113.7".parse().unwrap(), Place::Doors, NOW).is_none());
    let (status, told, _) = ask(&rig, "DELETE", "/admin/blocks/203.0.113.0%2F24", None);
    assert_eq!((status, &told["code"]), (404, &"block_not_found".into()));
    assert_eq!(ask(&rig, "DELETE", "/admin/blocks/198.51.100.7%2F32", None).0, 200, "however it is written");
    let lines: Vec<_> = std::iter::from_fn(|| rig.events.pop())
        .map(|event| (event.kind, event.rule, event.ip.unwrap().to_string(), event.details.to_string()))
        .collect();
    assert!(lines.iter().all(|line| (line.0, line.1) == (EventKind::BlockedConnection, "operator")), "{lines:?}");
    assert_eq!(lines[0].2, "203.0.113.0");
    assert_eq!(lines[0].3, "BLOCKED /24 until 1970-01-01T00:01:05.000Z, from 127.0.0.1");
    assert_eq!(lines[1].3, "BLOCKED /32 until it is lifted, from 127.0.0.1");
    assert_eq!(lines[2].3, "block of /24 (operator) lifted, from 127.0.0.1");
    assert_eq!(lines.len(), 4);
}

#[test]
fn what_cannot_be_blocked_is_told_and_changes_nothing() {
    let rig = rig();
    for (body, status, code) in [
        (js!({"network": "203.0.113.0/33"}), 422, "invalid_body"),
        (js!({"network": "example.com"}), 422, "invalid_body"),
        (js!({"network": 7}), 422, "invalid_body"),
        (js!({}), 422, "invalid_body"),
        (js!({"network": "203.0.113.7", "expiresInSeconds": 0}), 422, "invalid_body"),
        (js!({"network": "203.0.113.7", "reason": "a\nb"}), 422, "invalid_body"),
        (js!({"network": "203.0.113.7", "kind": "lockout"}), 422, "invalid_body"),
        // Who asks would not be able to ask again.
        (js!({"network": "127.0.0.1"}), 409, "own_address"),
        (js!({"network": "0.0.0.0/0"}), 409, "own_address"),
        (js!({"network": "::ffff:127.0.0.0/104"}), 409, "own_address"),
    ] {
        let (told, problem) = add(&rig, &body);
        assert_eq!((told, &problem["code"]), (status, &code.into()), "{body}");
    }
    for (path, code) in [("/admin/blocks/example.com", "not_found"), ("/admin/blocks/10.0.0.0", "block_not_found")] {
        let (status, problem, _) = ask(&rig, "DELETE", path, None);
        assert_eq!((status, &problem["code"]), (404, &code.into()), "{path}");
    }
    for query in ["kind=denylist", "cursor=x", "limit=0", "ip=10.0.0.1"] {
        let (status, problem, _) = ask(&rig, "GET", &format!("/admin/blocks?{query}"), None);
        assert_eq!((status, &problem["code"]), (400, &"invalid_filter".into()), "{query}");
    }
    assert!(rig.blocks.view().is_empty());
}

#[test]
fn a_page_goes_on_where_the_one_before_has_ended() {
    let rig = rig();
    let networks = ["10.0.0.0/8", "10.0.0.7", "203.0.113.0/24", "2001:db8::/32", "2001:db8::/64"];
    for network in networks.iter().rev() {
        assert_eq!(add(&rig, &js!({ "network": network })).0, 201);
    }
    let (mut seen, mut path) = (Vec::new(), "/admin/blocks?limit=2".to_owned());
    loop {
        let page = ask(&rig, "GET", &path, None).1;
        seen.extend(
            page["blocks"].as_array().unwrap().iter().map(|block| block["network"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/admin/blocks?limit=2&kind=operator&cursor={}", next.replace('/', "%2F"));
    }
    assert_eq!(seen, networks);
    assert_eq!(ask(&rig, "GET", "/admin/blocks?kind=abuse", None).1["blocks"], js!([]));
}

#[test]
fn who_guesses_at_the_admin_api_is_locked_out_of_it() {
    let rig = rig();
    let wrong = |rig: &Rig| ask_with(rig.admin, "GET", "/admin/settings", "Authorization: Bearer guess\r\n");
    for _ in 0..9 {
        assert!(wrong(&rig).starts_with("HTTP/1.1 401 "));
    }
    assert_eq!(ask(&rig, "GET", "/admin/settings", None).0, 200, "which takes the nine back");
    for _ in 0..10 {
        assert!(wrong(&rig).starts_with("HTTP/1.1 401 "));
    }
    let (status, problem, head) = ask(&rig, "GET", "/admin/settings", None);
    assert_eq!((status, &problem["code"]), (429, &"locked_out".into()), "the right token does not help");
    assert!(head.to_lowercase().contains("retry-after: 60"), "{head}");
    // Loopback stands apart: what is done here keeps out here.
    assert!(rig.blocks.find("127.0.0.1".parse().unwrap(), Place::Doors, NOW).is_none());
    let mut kinds = Vec::new();
    let start = std::time::Instant::now();
    while !kinds.contains(&EventKind::Lockout) || rig.alerts.recent().is_empty() {
        kinds.extend(std::iter::from_fn(|| rig.events.pop()).map(|event| event.kind));
        assert!(start.elapsed() < std::time::Duration::from_secs(120), "{kinds:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::InvalidAuth).count(), 19);
    let alert = &rig.alerts.recent()[0];
    assert_eq!(alert.json()["title"], "Brute-force lockout");
    assert_eq!((&alert.json()["severity"], &alert.json()["address"]), (&"HIGH".into(), &"127.0.0.1".into()));
}
