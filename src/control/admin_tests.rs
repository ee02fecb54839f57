#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::control::tests::{Rig, ask, ask_with};
use crate::state::events::EventKind;

const TOKEN: &str = "orchestrator-token-of-32-characters";

fn with_token() -> AdminConfig {
    AdminConfig {
        token_sha256: Some(Sha256::digest(TOKEN).into()),
        metrics_path: Some("/metrics".to_owned()),
        settings_json: "{\"profile\":\"development\"}".to_owned(),
        ..AdminConfig::default()
    }
}

#[test]
fn who_may_read_what() {
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let wrong = "Authorization: Bearer nope\r\n";
    let twice = format!("{bearer}{wrong}");
    let basic = "Authorization: Basic b3I6\r\n";
    let far: Vec<IpNet> = vec!["192.0.2.0/24".parse().unwrap()];
    let near: Vec<IpNet> = vec!["127.0.0.0/8".parse().unwrap()];
    let open = AdminConfig { token_sha256: None, ..with_token() };
    let off = AdminConfig { metrics_path: None, ..with_token() };
    let listed = AdminConfig { allowlist: near, ..with_token() };
    let shut_out = AdminConfig { allowlist: far, ..with_token() };
    let cases: [(&AdminConfig, &str, &str, u16, &str); 16] = [
        (&with_token(), "/health", "", 200, "status"),
        (&with_token(), "/health/ready", "", 503, "starting"),
        (&with_token(), "/metrics", "", 200, "# EOF"),
        (&off, "/metrics", "", 404, ""),
        (&with_token(), "/admin/upstreams", "", 401, "missing_token"),
        (&with_token(), "/admin/upstreams", wrong, 401, "invalid_token"),
        (&with_token(), "/admin/upstreams", &twice, 401, "missing_token"),
        (&with_token(), "/admin/upstreams", basic, 401, "missing_token"),
        (&with_token(), "/admin/upstreams", &bearer, 200, "\"name\":\"up\""),
        (&with_token(), "/admin/settings", &bearer, 200, "development"),
        (&with_token(), "/admin/openapi.json", &bearer, 200, "3.1.0"),
        (&with_token(), "/admin/nothing", &bearer, 404, "not_found"),
        (&open, "/admin/upstreams", &bearer, 503, "admin_disabled"),
        (&listed, "/admin/settings", &bearer, 200, "development"),
        (&shut_out, "/admin/settings", &bearer, 403, "forbidden"),
        (&shut_out, "/metrics", "", 403, "forbidden"),
    ];
    for (config, path, headers, status, text) in cases {
        let rig = Rig::start(config.clone());
        let answer = ask_with(rig.admin, "GET", path, headers);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path} {headers}: {answer}");
        assert!(answer.contains(text), "{path} {headers}: {answer}");
        let media =
            if matches!(status, 401 | 403) || text == "admin_disabled" { "application/problem+json" } else { "" };
        assert!(answer.contains(media), "{path}: {answer}");
    }
}

#[test]
fn other_methods_are_refused() {
    let rig = Rig::start(with_token());
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    for path in ["/admin/upstreams", "/metrics", "/health"] {
        let answer = ask_with(rig.admin, "DELETE", path, &bearer);
        assert!(answer.starts_with("HTTP/1.1 405 "), "{path}: {answer}");
    }
}

#[test]
fn a_wrong_token_leaves_an_event_without_the_token() {
    let rig = Rig::start(with_token());
    ask_with(rig.admin, "GET", "/admin/settings", "Authorization: Bearer guess\r\n");
    let event = rig.events.pop().unwrap();
    assert_eq!((event.kind, event.rule), (EventKind::InvalidAuth, "admin-token"));
    assert!(event.ip.unwrap().is_loopback());
    assert!(!format!("{event:?}").contains("guess"));
}

/// The document lists the routes that are there, and no others.
#[test]
fn the_openapi_document_is_true() {
    let document: serde_json::Value = serde_json::from_str(include_str!("admin/openapi.json")).unwrap();
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let rig = Rig::start(with_token());
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 9);
    for (path, methods) in paths {
        for (method, code) in [("delete", "connection_not_open"), ("put", "invalid_name"), ("post", "invalid_body")] {
            if methods.get(method).is_some() {
                let answer = ask_with(rig.admin, &method.to_uppercase(), path, &bearer);
                // There is no key here.
                let code = if method == "delete" && path.contains("providers") { "vault_locked" } else { code };
                assert!(answer.contains(code), "{method} {path}: {answer}");
            }
        }
        if methods.get("get").is_none() {
            continue;
        }
        if path == "/admin/providers" {
            assert!(ask_with(rig.admin, "GET", path, &bearer).contains("vault_locked"));
            continue;
        }
        let answer = ask_with(rig.admin, "GET", path, &bearer);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        assert!(ask(rig.admin, path).starts_with("HTTP/1.1 401 "));
    }
    let schema = &document["components"]["schemas"]["Upstream"]["required"];
    let answer = ask_with(rig.admin, "GET", "/admin/upstreams", &bearer);
    let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    for name in schema.as_array().unwrap() {
        assert!(body["upstreams"][0].get(name.as_str().unwrap()).is_some(), "{name}");
    }
}
