#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::control::tests::{Rig, ask_with};
use crate::state::events::EventKind;

const TOKEN: &str = "orchestrator-token-of-32-characters";

fn with_token() -> AdminConfig {
    AdminConfig {
        token_sha256: Some(Sha256::digest(TOKEN).into()),
        metrics_path: Some("/metrics".to_owned()),
        settings: SettingsShown {
            settings: vec![SettingShown { name: "A".into(), value: "development".into(), source: "default".into() }],
        },
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

/// What the document says of a schema, with its references followed.
fn resolved<'a>(document: &'a serde_json::Value, schema: &'a serde_json::Value) -> &'a serde_json::Value {
    match schema["$ref"].as_str() {
        Some(path) => &document["components"]["schemas"][path.rsplit('/').next().unwrap()],
        None => schema,
    }
}

#[test]
fn the_openapi_document_is_true() {
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let rig = Rig::start(with_token());
    let body =
        |answer: &str| -> serde_json::Value { serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap() };
    let document = body(&ask_with(rig.admin, "GET", "/admin/openapi.json", &bearer));
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document["components"]["securitySchemes"]["orchestrator"]["scheme"], "bearer");
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations += 1;
            let what = format!("{method} {path}");
            let responses = operation["responses"].as_object().unwrap();
            for status in ["401", "403", "503"] {
                let content = &responses[status]["content"]["application/problem+json"];
                assert_eq!(content["schema"]["$ref"], "#/components/schemas/Problem", "{what}");
            }
            assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{what}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let schema = &parameter["schema"];
                let bounded = ["maximum", "maxLength", "enum", "oneOf"].iter().any(|bound| !schema[*bound].is_null());
                assert!(bounded, "{what}: {parameter}");
            }
            assert!(ask_with(rig.admin, &method.to_uppercase(), path, "").starts_with("HTTP/1.1 401 "), "{what}");
            if method != "get" || path.contains('{') {
                continue;
            }
            if path == "/admin/providers" {
                // There is no key here.
                assert!(ask_with(rig.admin, "GET", path, &bearer).contains("vault_locked"));
                continue;
            }
            // What is answered has every member that the document promises, and no other.
            let answer = ask_with(rig.admin, "GET", path, &bearer);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer}");
            let schema = resolved(&document, &responses["200"]["content"]["application/json"]["schema"]);
            let told = body(&answer);
            let names: Vec<_> = told.as_object().unwrap().keys().collect();
            assert_eq!(names, schema["properties"].as_object().unwrap().keys().collect::<Vec<_>>(), "{what}");
        }
    }
    assert!(operations >= 16, "{operations}");
}

#[test]
fn every_error_is_problem_details() {
    let rig = Rig::start(with_token());
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let json = format!("{bearer}Content-Type: application/json\r\n");
    let long = format!("{json}Content-Length: {}\r\n", 65 * 1024);
    let with_body = |headers: &str, body: &str| format!("{headers}Content-Length: {}\r\n\r\n{body}", body.len());
    for (method, path, headers, status, code) in [
        ("GET", "/nothing", bearer.clone(), 404, "not_found"),
        ("GET", "/admin/nothing", bearer.clone(), 404, "not_found"),
        ("PUT", "/admin/tokens", bearer.clone(), 405, "method_not_allowed"),
        ("GET", "/admin/tokens?limit=0", bearer.clone(), 400, "invalid_filter"),
        ("GET", "/admin/tokens?agent=%ff", bearer.clone(), 400, "invalid_filter"),
        ("GET", "/admin/agents?limit=1&limit=1", bearer.clone(), 400, "invalid_filter"),
        ("GET", "/admin/tokens/%ff", bearer.clone(), 404, "not_found"),
        ("GET", "/admin/agents/%20", bearer.clone(), 404, "not_found"),
        ("POST", "/admin/tokens", with_body(&bearer, "{}"), 415, "unsupported_media_type"),
        ("POST", "/admin/tokens", with_body(&json, "{"), 400, "invalid_json"),
        ("POST", "/admin/tokens", with_body(&json, ""), 400, "invalid_json"),
        ("POST", "/admin/tokens", with_body(&json, "[]"), 422, "invalid_body"),
        ("POST", "/admin/tokens", long, 413, "too_large"),
    ] {
        // The rig ends the head by itself where there is no body.
        let answer = ask_with(rig.admin, method, path, &headers);
        let what = format!("{method} {path}: {answer}");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}");
        assert!(answer.contains("content-type: application/problem+json\r\n"), "{what}");
        let problem: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&code.into(), &status.into()), "{what}");
        assert!(status != 405 || answer.contains("\r\nallow: "), "{what}");
    }
}

#[test]
fn an_agents_token_is_no_operators() {
    let agent = Agent {
        id: "alpha".into(),
        token_sha256: Some(Sha256::digest("policy-token").into()),
        enabled: true,
        tier: None,
        limits: Default::default(),
        access: Default::default(),
    };
    let rig = Rig::start(AdminConfig { agents: vec![agent], ..with_token() });
    for (token, status, code) in [("policy-token", 403, "admin_required"), ("other-token", 401, "invalid_token")] {
        let answer = ask_with(rig.admin, "GET", "/admin/settings", &format!("Authorization: Bearer {token}\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(code), "{answer}");
        assert_eq!(answer.contains("Admin access required."), status == 403);
        assert_eq!(rig.events.pop().unwrap().kind, EventKind::InvalidAuth);
    }
}
