//! The sample server line by line.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

fn ask(server: &mut Server, message: &Value) -> Value {
    server.line(message.to_string().as_bytes()).unwrap()
}

fn modern(method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({VERSION_KEY: MODERN, CAPABILITIES_KEY: {}});
    json!({"jsonrpc": "2.0", "id": "m", "method": method, "params": params})
}

fn legacy_server() -> Server {
    let mut server = Server::default();
    let answer = ask(
        &mut server,
        &json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}}}),
    );
    assert_eq!(answer["result"]["protocolVersion"], "2025-06-18");
    server
}

#[test]
fn messages_are_kept_and_bounded() {
    let mut server = legacy_server();
    for n in 0..150 {
        let answer = ask(
            &mut server,
            &json!({"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": {"name": "comms_send_message", "arguments": {"to": "+15550100", "body": "hi", "agentId": "a"}}}),
        );
        assert_eq!(answer["result"]["isError"], false);
    }
    let answer = ask(
        &mut server,
        &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "comms_list_messages"}}),
    );
    let listed: Value = serde_json::from_str(answer["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(listed["messages"].as_array().unwrap().len(), MAX_KEPT);
    assert_eq!(listed["messages"][99]["id"], "sample-150");
}

#[test]
fn argument_errors_are_tool_errors() {
    let mut server = legacy_server();
    let cases = [
        ("comms_send_message", json!({"to": "x"})),
        ("comms_send_message", json!({"to": 1, "body": "x"})),
        ("comms_send_message", json!({"to": " ", "body": "x"})),
        ("comms_make_call", json!({})),
        ("echo", json!({"text": "x".repeat(MAX_TEXT + 1)})),
    ];
    for (name, arguments) in cases {
        let answer = ask(
            &mut server,
            &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}),
        );
        assert_eq!(answer["result"]["isError"], true, "{name}");
    }
}

#[test]
fn the_new_revision() {
    let mut server = Server::default();
    let discovered = ask(&mut server, &modern("server/discover", json!({})));
    assert_eq!(discovered["result"]["supportedVersions"], json!([MODERN]));
    assert_eq!(discovered["result"]["resultType"], "complete");
    let listed = ask(&mut server, &modern("tools/list", json!({})));
    assert_eq!(listed["result"]["cacheScope"], "public");
    let called = ask(&mut server, &modern("tools/call", json!({"name": "echo", "arguments": {"text": "hello"}})));
    assert_eq!(called["result"]["content"][0]["text"], "hello");
    for method in ["initialize", "ping", "logging/setLevel"] {
        let answer = ask(&mut server, &modern(method, json!({})));
        assert_eq!(answer["error"]["code"], -32601, "{method}");
    }
}

#[test]
fn bad_messages_get_errors() {
    let future =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": {VERSION_KEY: "2099-01-01"}}});
    let cases: [(&str, &str, i64); 6] = [
        ("not JSON", "{", -32700),
        ("batch", "[]", -32600),
        ("no version", r#"{"id":1,"method":"ping"}"#, -32600),
        ("null id", r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600),
        ("too early", r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, -32602),
        ("future version", &future.to_string(), -32022),
    ];
    for (name, line, code) in cases {
        let answer = Server::default().line(line.as_bytes()).unwrap();
        assert_eq!(answer["error"]["code"], code, "{name}");
    }
    assert_eq!(Server::default().line(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#), None);
}

#[test]
fn lines_that_are_too_long_are_skipped() {
    let mut input = vec![b'x'; 3 << 20];
    input.extend_from_slice(b"\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n");
    let mut output = Vec::new();
    serve(&mut input.as_slice(), &mut output).unwrap();
    let lines: Vec<Value> = output
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["error"]["code"], -32600);
    assert_eq!(lines[1]["result"], json!({}));
}
