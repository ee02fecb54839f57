//! The envelope's spans against a plain recursive parser, for messages with any whitespace, escapes and key order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "support/json_oracle.rs"]
mod json_oracle;

use json_oracle::{Oracle, Plain, Renderer};
use proptest::prelude::*;
use ringwall::rpc::{AgentId, Envelope, IdKind, Kind, Member, Parser, Presence, Span, Text};
use serde_json::{Map, Value, json};

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 4.0)),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(any_text(), inner, 0..5).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-z\"\\\\/,:{}\\[\\] é😀]{0,12}", 1 => any::<String>(), 1 => "\\PC{0,80}"]
}

fn any_id() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any_text().prop_map(Value::from)
    ]
}

fn extras() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map(any_text().prop_map(|t| format!("x{t}")), any_json(), 0..20)
        .prop_map(|m| m.into_iter().collect())
}

fn any_meta() -> impl Strategy<Value = Value> {
    (
        extras(),
        prop::option::of(any_id()),
        prop::option::of(any_json()),
        prop::option::of(any_json()),
        prop::option::of(any_json()),
    )
        .prop_map(|(mut meta, token, version, capabilities, info)| {
            let mut put = |key: &str, value: Option<Value>| value.and_then(|v| meta.insert(key.to_owned(), v));
            put("progressToken", token);
            put("io.modelcontextprotocol/protocolVersion", version);
            put("io.modelcontextprotocol/clientCapabilities", capabilities);
            put("io.modelcontextprotocol/clientInfo", info);
            Value::Object(meta)
        })
}

const METHODS: [&str; 9] = [
    "tools/call",
    "prompts/get",
    "resources/read",
    "tools/list",
    "notifications/cancelled",
    "notifications/progress",
    "initialize",
    "x\"/\\é",
    "server/discover",
];

fn any_request() -> impl Strategy<Value = Value> {
    let arguments = (extras(), prop::option::of(any_json())).prop_map(|(mut arguments, agent)| {
        if let Some(agent) = agent {
            arguments.insert("agentId".to_owned(), agent);
        }
        arguments
    });
    (
        extras(),
        prop::option::of(any_id()),
        0..METHODS.len(),
        extras(),
        any_text(),
        prop::option::of(arguments),
        prop::option::of(any_meta()),
        any_id(),
    )
        .prop_map(|(mut top, id, method, mut params, name, arguments, meta, token)| {
            let method = METHODS[method];
            if let Some(meta) = meta {
                params.insert("_meta".to_owned(), meta);
            }
            match method {
                "tools/call" | "prompts/get" => {
                    params.insert("name".to_owned(), name.into());
                    if let Some(arguments) = arguments {
                        params.insert("arguments".to_owned(), Value::Object(arguments));
                    }
                }
                "resources/read" => _ = params.insert("uri".to_owned(), name.into()),
                "notifications/cancelled" => _ = params.insert("requestId".to_owned(), token),
                "notifications/progress" => _ = params.insert("progressToken".to_owned(), token),
                "initialize" => _ = params.insert("protocolVersion".to_owned(), name.into()),
                _ => {}
            }
            if let Some(id) = id {
                top.insert("id".to_owned(), id);
            }
            top.insert("jsonrpc".to_owned(), "2.0".into());
            top.insert("method".to_owned(), method.into());
            top.insert("params".to_owned(), Value::Object(params));
            Value::Object(top)
        })
}

fn any_response() -> impl Strategy<Value = Value> {
    let body = prop_oneof![
        any_json().prop_map(|result| ("result", result)),
        (any::<i64>(), any_text(), extras()).prop_map(|(code, message, mut error)| {
            error.insert("code".to_owned(), code.into());
            error.insert("message".to_owned(), message.into());
            ("error", Value::Object(error))
        }),
    ];
    (extras(), any_id(), body).prop_map(|(mut top, id, (key, body))| {
        top.insert("jsonrpc".to_owned(), "2.0".into());
        top.insert("id".to_owned(), id);
        top.insert(key.to_owned(), body);
        Value::Object(top)
    })
}

/// Finds the value at `path` as the oracle sees it, and checks that its bytes are the value that was written.
struct Found<'a> {
    raw: &'a [u8],
    plain: Plain,
    value: &'a Value,
}

impl Found<'_> {
    fn span(&self, path: &[&str]) -> Option<Span> {
        let plain = self.plain.get(path)?;
        let mut value = self.value;
        for key in path {
            value = &value[key];
        }
        assert_eq!(&serde_json::from_slice::<Value>(plain.span.of(self.raw)).unwrap(), value);
        Some(plain.span)
    }

    fn at(&self, path: &[&str]) -> &Value {
        path.iter().fold(self.value, |value, key| &value[key])
    }

    fn text(&self, path: &[&str], parser: &Parser, got: Option<Text>) {
        let want = self.span(path).filter(|_| self.at(path).is_string());
        assert_eq!(got.map(|text| text.span), want, "{path:?}");
        if let Some(text) = got {
            assert_eq!(parser.text(text), self.at(path).as_str().unwrap());
            assert_eq!(text.decode(self.raw), self.at(path).as_str().unwrap());
        }
    }

    fn member(&self, path: &[&str], parser: &Parser, got: Member) {
        match got {
            Member::Absent => assert_eq!(self.span(path), None),
            Member::Text(text) => self.text(path, parser, Some(text)),
            Member::OtherType(span) => {
                assert_eq!(Some(span), self.span(path));
                assert!(!self.at(path).is_string());
            }
        }
    }

    fn presence(&self, path: &[&str], got: Presence) {
        match got {
            Presence::Absent => assert_eq!(self.span(path), None),
            Presence::Object(span) => {
                assert!(Some(span) == self.span(path) && self.at(path).is_object())
            }
            Presence::OtherType(span) => {
                assert!(Some(span) == self.span(path) && !self.at(path).is_object())
            }
        }
    }
}

fn check(value: &Value, seed: u64) {
    let mut renderer = Renderer { out: String::new(), seed };
    renderer.value(value);
    let raw = renderer.out.as_bytes();
    let mut parser = Parser::new(64);
    let envelope: Envelope = parser.parse(raw).unwrap_or_else(|fault| panic!("{fault}\n{}", renderer.out));
    let plain = Oracle { raw, at: 0 }.value();
    let found = Found { raw, plain, value };

    assert_eq!(envelope.id.map(|id| id.span), found.span(&["id"]));
    if let Some(id) = envelope.id {
        assert_eq!(id.kind, if value["id"].is_string() { IdKind::String } else { IdKind::Integer });
    }
    let kind = match (value.get("method"), value.get("id"), value.get("result")) {
        (Some(_), Some(_), _) => Kind::Request,
        (Some(_), None, _) => Kind::Notification,
        (None, _, Some(_)) => Kind::Response,
        _ => Kind::ErrorResponse,
    };
    assert_eq!(envelope.kind, kind);
    assert_eq!(envelope.result, found.span(&["result"]));
    assert_eq!(envelope.error, found.span(&["error"]));
    assert_eq!(envelope.error_code, value["error"]["code"].as_i64());
    found.text(&["method"], &parser, envelope.method_text);
    let Some(method) = value["method"].as_str() else {
        return;
    };
    assert_eq!(envelope.params, found.span(&["params"]));
    assert_eq!(envelope.meta, found.span(&["params", "_meta"]));
    if let Some(subject) = envelope.method.subject() {
        found.text(&["params", subject], &parser, envelope.name);
    }
    assert_eq!(envelope.arguments, found.span(&["params", "arguments"]));
    if method == "tools/call" {
        let path = ["params", "arguments", "agentId"];
        match envelope.agent_id {
            AgentId::Absent => assert_eq!(found.span(&path), None),
            AgentId::Text(text) => found.text(&path, &parser, Some(text)),
            AgentId::OtherType(span) => {
                assert!(Some(span) == found.span(&path) && !found.at(&path).is_string())
            }
            AgentId::Lookalike(_) => panic!("none was written"),
        }
    }
    found.member(&["params", "_meta", "io.modelcontextprotocol/protocolVersion"], &parser, envelope.meta_version);
    found.presence(&["params", "_meta", "io.modelcontextprotocol/clientCapabilities"], envelope.client_capabilities);
    found.presence(&["params", "_meta", "io.modelcontextprotocol/clientInfo"], envelope.client_info);
    assert_eq!(envelope.request_id, found.span(&["params", "requestId"]));
    let token = if method == "notifications/progress" {
        found.span(&["params", "progressToken"])
    } else {
        found.span(&["params", "_meta", "progressToken"])
    };
    assert_eq!(envelope.progress_token, token);
    found.member(&["params", "protocolVersion"], &parser, envelope.protocol_version);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn spans_of_requests_are_the_oracles(value in any_request(), seed in any::<u64>()) {
        check(&value, seed);
    }

    #[test]
    fn spans_of_responses_are_the_oracles(value in any_response(), seed in any::<u64>()) {
        check(&value, seed);
    }

    #[test]
    fn batches_split_into_their_members(members in prop::collection::vec(any_request(), 1..6), seed in any::<u64>()) {
        let mut renderer = Renderer { out: String::new(), seed };
        renderer.value(&Value::from(members.clone()));
        let raw = renderer.out.as_bytes();
        let mut parser = Parser::new(64);
        let mut spans = Vec::new();
        parser.parse_batch(raw, &mut spans).unwrap();
        let got: Vec<Value> = spans.iter().map(|span| serde_json::from_slice(span.of(raw)).unwrap()).collect();
        prop_assert_eq!(got, members);
        for span in spans {
            prop_assert!(parser.parse(span.of(raw)).is_ok());
        }
    }

    /// A strict parser of JSON agrees on what is JSON: one byte changed in a message.
    #[test]
    fn agrees_with_serde_on_damaged_messages(value in any_request(), seed in any::<u64>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut renderer = Renderer { out: String::new(), seed };
        renderer.value(&value);
        let mut raw = renderer.out.into_bytes();
        let at = at.index(raw.len());
        raw[at] = byte;
        if Parser::new(64).parse(&raw).is_ok() {
            prop_assert!(serde_json::from_slice::<Value>(&raw).is_ok(), "{}", String::from_utf8_lossy(&raw));
        } else if let Err(fault) = Parser::new(64).parse(&raw) && fault.code() == -32700 {
            prop_assert!(serde_json::from_slice::<Value>(&raw).is_err(), "{fault}: {}", String::from_utf8_lossy(&raw));
        }
    }
}

#[test]
fn one_parser_reads_small_after_large() {
    let mut parser = Parser::new(64);
    let small = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "n\n"}}).to_string();
    let large = json!({"jsonrpc": "2.0", "id": 1, "method": "x", "params": {"v": vec![1; 400_000]}}).to_string();
    for raw in [&small, &large, &small] {
        let envelope = parser.parse(raw.as_bytes()).unwrap();
        assert_eq!(parser.text(envelope.name.unwrap_or_default()), if raw == &small { "n\n" } else { "" });
    }
}
