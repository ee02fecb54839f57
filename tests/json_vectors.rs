//! Vectors that others wrote: JSONTestSuite, the examples of the JSON-RPC specification, the list of naughty strings.
//!
//! They are read from `RINGWALL_DATA` (default `../shared/data`). Where they are not, the tests say so and pass, except under CI.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "support/envelope_fuzz.rs"]
mod envelope_fuzz;

use base64::{Engine, engine::general_purpose::STANDARD};
use ringwall::rpc::{Fault, Kind, Malformed, Parser, splice};
use serde_json::{Value, json};
use std::path::PathBuf;

fn rows(file: &str) -> Vec<Value> {
    let folder = std::env::var_os("RINGWALL_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    let path = folder.join(file);
    match std::fs::read_to_string(&path) {
        Ok(text) => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{}: {error}", path.display());
            eprintln!("skipped: {} is not there", path.display());
            Vec::new()
        }
    }
}

/// The bytes of a row: as text, as base64 where they are no text, or (two giants) built anew.
fn payload(row: &Value) -> Vec<u8> {
    let bytes = match (row["id"].as_str().unwrap(), row["payload_b64"].as_str(), row["payload"].as_str()) {
        ("n_structure_100000_opening_arrays.json", ..) => vec![b'['; 100_000],
        ("n_structure_open_array_object.json", ..) => [b"[{\"\":".repeat(50_000).as_slice(), b"\n"].concat(),
        (_, Some(base64), _) => STANDARD.decode(base64).unwrap(),
        (_, None, Some(text)) => text.as_bytes().to_vec(),
        other => panic!("{other:?}"),
    };
    if let Some(len) = row["bytes"].as_u64() {
        assert_eq!(bytes.len() as u64, len, "{}", row["id"]);
    }
    bytes
}

fn inside_a_request(value: &[u8]) -> Vec<u8> {
    [br#"{"jsonrpc":"2.0","id":7,"method":"x","params":{"v":"#, value, b"}}"].concat()
}

#[test]
fn json_test_suite() {
    for row in rows("json/jsontestsuite.jsonl") {
        let id = row["id"].as_str().unwrap();
        let bytes = payload(&row);
        let mut parser = Parser::new(64);
        // By itself none of them is a message.
        let bare = parser.parse(&bytes).expect_err(id);
        let raw = inside_a_request(&bytes);
        envelope_fuzz::envelope(&bytes);
        envelope_fuzz::envelope(&raw);
        let wrapped = parser.parse(&raw);
        match row["label"].as_str().unwrap() {
            "accept" if id.contains("duplicated_key") => {
                let fault = wrapped.expect_err(id);
                assert_eq!(
                    (fault.fault, fault.id.map(|id| id.span.of(&raw))),
                    (Fault::DuplicateKey, Some(&b"7"[..])),
                    "{id}"
                );
            }
            "accept" => {
                let envelope = wrapped.unwrap_or_else(|fault| panic!("{id}: {fault}"));
                let params: Value = serde_json::from_slice(envelope.params.unwrap().of(&raw)).unwrap();
                assert_eq!(params["v"], serde_json::from_slice::<Value>(&bytes).unwrap(), "{id}");
                assert_ne!(bare.code(), -32700, "{id}: {bare}");
            }
            "reject" => {
                assert_eq!(wrapped.expect_err(id).code(), -32700, "{id}");
                assert_eq!(bare.code(), -32700, "{id}");
            }
            _ => {
                // Whichever way it goes, a reader behind us that is stricter must not be surprised.
                if wrapped.is_ok() {
                    assert!(serde_json::from_slice::<Value>(&raw).is_ok() || id.contains("number"), "{id}");
                }
            }
        }
    }
}

#[test]
fn json_rpc_specification() {
    let one =
        |raw: &[u8]| Parser::new(64).parse(raw).map(|envelope| envelope.kind).map_err(|fault: Malformed| fault.code());
    for row in rows("json/jsonrpc_spec_examples.jsonl") {
        let id = row["id"].as_str().unwrap();
        let raw = payload(&row);
        let mut members = Vec::new();
        let batch = Parser::new(64).parse_batch(&raw, &mut members).map_err(|fault| fault.code());
        let members: Vec<_> = members.iter().map(|span| one(span.of(&raw))).collect();
        let (request, notification) = (Ok(Kind::Request), Ok(Kind::Notification));
        match id {
            // MCP knows no positional parameters.
            "positional 1" | "positional 2" | "notification 1" => {
                assert_eq!(one(&raw), Err(-32602), "{id}")
            }
            "named 1" | "named 2" | "non-existent method" => assert_eq!(one(&raw), request, "{id}"),
            "notification 2" => assert_eq!(one(&raw), notification, "{id}"),
            "invalid JSON" => assert_eq!(one(&raw), Err(-32700), "{id}"),
            "batch invalid JSON" => {
                assert_eq!((one(&raw), batch), (Err(-32700), Err(-32700)), "{id}")
            }
            "invalid Request object" => assert_eq!(one(&raw), Err(-32600), "{id}"),
            "empty array" => assert_eq!((one(&raw), batch), (Err(-32600), Err(-32600)), "{id}"),
            "invalid batch, not empty" => assert_eq!(members, [Err(-32600)], "{id}"),
            "invalid batch" => assert_eq!(members, [Err(-32600); 3], "{id}"),
            "mixed batch" => {
                assert_eq!(members, [Err(-32602), Err(-32602), Err(-32602), Err(-32600), request, request], "{id}");
            }
            "batch all notifications" => assert_eq!(members, [Err(-32602), Err(-32602)], "{id}"),
            other => panic!("a new example: {other}"),
        }
        envelope_fuzz::envelope(&raw);
    }
}

#[test]
fn naughty_strings_go_through_unchanged() {
    let mut parser = Parser::new(64);
    for row in rows("json/blns.jsonl") {
        let text = row["payload"].as_str().unwrap();
        let message = json!({"jsonrpc": "2.0", "id": text, "method": "tools/call",
            "params": {"name": text, "arguments": {"agentId": text, "v": text, format!("k{text}"): [text]}}});
        let raw = message.to_string().into_bytes();
        let envelope = parser.parse(&raw).unwrap_or_else(|fault| panic!("{text:?}: {fault}"));
        assert_eq!(parser.text(envelope.name.unwrap()), text);
        assert_eq!(envelope.name.unwrap().decode(&raw), text);
        let arguments: Value = serde_json::from_slice(envelope.arguments.unwrap().of(&raw)).unwrap();
        assert_eq!(arguments, message["params"]["arguments"]);
        let id = envelope.id.unwrap().span;
        let (mut out, mut back) = (Vec::new(), Vec::new());
        splice::splice(&raw, &[(id, b"12345")], &mut out).unwrap();
        let remapped = parser.parse(&out).unwrap();
        splice::splice(&out, &[(remapped.id.unwrap().span, id.of(&raw))], &mut back).unwrap();
        assert_eq!(back, raw);
        envelope_fuzz::envelope(&raw);
        envelope_fuzz::envelope(text.as_bytes());
    }
}
