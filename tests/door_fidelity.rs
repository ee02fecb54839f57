//! Promise: what is forwarded is what arrived, byte for byte, both ways; only what policy adds is added.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_types, reason = "a test's own threads")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use std::io::Write;
use std::sync::{Arc, Mutex};

use base64::Engine;
use blackbox::{Client, Gateway, Next, Upstream, id_of, post};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

/// Blanks that JSON allows between tokens.
fn blank() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec![" ", "\t", "\n", "\r"]), 0..3).prop_map(|parts| parts.concat())
}

/// A string as it is written: plain, escaped in every way, unicode.
fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z0-9 _.:;<>'&%/-]{0,8}",
        1 => prop::sample::select(vec![
            "\\n", "\\\"", "\\\\", "\\/", "/", "\\u0041", "\\ud83d\\ude00", "\\b\\f\\r\\t", "\u{e9}", "\u{1f600}", "\u{2028}",
            "\\u00e9", "\u{fffd}",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        "-?[1-9][0-9]{18,40}",
        "-?(0|[1-9][0-9]{0,3})\\.[0-9]{1,30}",
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,4})?[eE][+-]?[0-9]{1,2}",
        Just("-0".to_owned()),
    ]
}

/// Any JSON value, spelled in any way, keys in any order and never twice.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        string(),
        number(),
        prop::sample::select(vec!["true", "false", "null", "{}", "[]"]).prop_map(str::to_owned)
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let item =
            (blank(), inner, blank()).prop_map(|(before, value, after)| format!("{before}{value}{after}")).boxed();
        prop_oneof![
            prop::collection::vec(item.clone(), 1..5).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((blank(), item), 1..5).prop_map(|items| {
                let members =
                    items.iter().enumerate().map(|(n, (blank, item))| format!("{blank}\"key {n}\"{blank}:{item}"));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

/// A `tools/call`, its members in any order.
fn message() -> impl Strategy<Value = String> {
    (value(), value(), blank(), prop_oneof![any::<u32>().prop_map(|n| n.to_string()), string(), Just("-7".to_owned())])
        .prop_flat_map(|(arguments, extra, b, id)| {
            let arguments = if arguments.starts_with('{') { arguments } else { format!("{{\"value\":{arguments}}}") };
            let members = vec![
                format!("{b}\"jsonrpc\"{b}:{b}\"2.0\"{b}"),
                format!("\"id\"{b}:{b}{id}"),
                format!("{b}\"method\":{b}\"tools/call\""),
                format!("\"params\"{b}:{{{b}\"arguments\":{arguments}{b},{b}\"name\":\"echo\",\"other\":{extra}}}{b}"),
            ];
            (Just(members).prop_shuffle(), Just(b))
        })
        .prop_map(|(members, b)| format!("{b}{{{}}}{b}", members.join(",")))
}

/// How a message goes over the wire: in chunks at these points or with a length, cut into these packets, with another behind it.
#[derive(Clone, Debug)]
struct Wire {
    chunks: Option<Vec<prop::sample::Index>>,
    packets: Vec<prop::sample::Index>,
    pipelined: bool,
}

fn wire() -> impl Strategy<Value = Wire> {
    let points = || prop::collection::vec(any::<prop::sample::Index>(), 0..5);
    (prop::option::of(points()), points(), any::<bool>()).prop_map(|(chunks, packets, pipelined)| Wire {
        chunks,
        packets,
        pipelined,
    })
}

fn cut<'b>(bytes: &'b [u8], at: &[prop::sample::Index]) -> Vec<&'b [u8]> {
    let mut points: Vec<usize> = at.iter().map(|at| at.index(bytes.len())).chain([0, bytes.len()]).collect();
    points.sort_unstable();
    points.dedup();
    points.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn on_the_wire(body: &str, wire: &Wire) -> Vec<u8> {
    let Some(chunks) = &wire.chunks else { return post(body) };
    let head = String::from_utf8(post("")).unwrap().replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let mut bytes = head.into_bytes();
    for chunk in cut(body.as_bytes(), chunks) {
        bytes.extend_from_slice(&[format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() }
}

/// Made-up strings look like an attack now and then; they are looked at all the same.
const MADE_UP: &[(&str, &str)] = &[("SANITIZE_MODE", "monitor")];

#[test]
fn any_message_arrives_byte_for_byte_however_it_is_sent() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(MADE_UP, upstream.address);
    let client = Mutex::new(gateway.client());
    proptest!(config(300), |(body in message(), wire in wire())| {
        let mut client = client.lock().unwrap();
        upstream.take_requests();
        let times = 1 + usize::from(wire.pipelined);
        let bytes = on_the_wire(&body, &wire).repeat(times);
        for packet in cut(&bytes, &wire.packets) {
            client.stream.write_all(packet).unwrap();
        }
        for _ in 0..times {
            let response = client.response();
            prop_assert_eq!(response.status, 200, "{}", response.text());
            // The id comes back as it was written.
            prop_assert_eq!(id_of(&response.body), id_of(body.as_bytes()));
        }
        let seen = upstream.take_requests();
        prop_assert_eq!(seen.len(), times);
        for request in seen {
            prop_assert_eq!(request.text(), body.as_str());
            prop_assert_eq!(request.field("content-length"), Some(body.len().to_string()));
            prop_assert_eq!(request.field("transfer-encoding"), None);
        }
    });
    drop(client);
    gateway.unharmed();
}

#[test]
fn any_answer_comes_back_byte_for_byte_however_it_is_sent() {
    let script: Arc<Mutex<(Vec<Vec<u8>>, Next)>> = Arc::new(Mutex::new((Vec::new(), Next::Keep)));
    let says = Arc::clone(&script);
    let upstream = Upstream::start(move |_, conversation| {
        let (packets, next) = says.lock().unwrap().clone();
        for packet in packets {
            conversation.send(&packet);
        }
        next
    });
    let gateway = Gateway::start(MADE_UP, upstream.address);
    let client = Mutex::new(gateway.client());
    proptest!(config(300), |(body in value(), framing in 0..5, points in wire(), long in 0..4)| {
        // Some are longer than any buffer.
        let body = if long == 0 { body.repeat(1 + 200_000 / body.len()) } else { body };
        let events = framing >= 3;
        let body = if events { format!("data: {}\n\n: {}\r\n\r\n", body.replace(['\n', '\r'], " "), body.len()) } else { body };
        let media = if events { "text/event-stream" } else { "application/json" };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {media}; charset=utf-8\r\nX-Kept: \"a  b\"\r\n");
        let mut bytes = head.into_bytes();
        match framing {
            0 => bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()),
            2 | 4 => bytes.extend_from_slice(format!("\r\n{body}").as_bytes()),
            _ => {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in cut(body.as_bytes(), points.chunks.as_deref().unwrap_or_default()) {
                    bytes.extend_from_slice(&[format!("{:x};x=y\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
                }
                bytes.extend_from_slice(b"0\r\nX-Trailer: z\r\n\r\n");
            }
        }
        let packets = cut(&bytes, &points.packets).into_iter().map(<[u8]>::to_vec).collect();
        *script.lock().unwrap() = (packets, if matches!(framing, 2 | 4) { Next::Close } else { Next::Keep });
        let response = client.lock().unwrap().ask(&post(&blackbox::call(1)));
        prop_assert_eq!(response.status, 200);
        prop_assert_eq!(response.text(), body);
        prop_assert_eq!(response.field("content-type"), Some(format!("{media}; charset=utf-8")));
        prop_assert_eq!(response.field("x-kept"), Some("\"a  b\"".to_owned()));
        prop_assert_eq!(response.field("x-trailer"), None);
    });
    drop(client);
    gateway.unharmed();
}

const BOT: &str = "agent-token-of-support-bot-0123456789abcdef";
const POLICY_AGENT: &str =
    "\n[agent.support-bot]\ntoken_sha256 = \"HASH\"\n[agent.other-bot]\ntoken_sha256 = \"OTHER\"\n";

fn policy(upstream: &Upstream, more: &str) -> String {
    let hash = |token: &str| Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let agents = POLICY_AGENT.replace("HASH", &hash(BOT)).replace("OTHER", &hash("another"));
    format!("[upstream.only]\nurl = \"http://{}/mcp\"\n{more}{agents}", upstream.address)
}

fn as_agent(client: &mut Client, body: &str) -> blackbox::Response {
    let bytes = String::from_utf8(post(body)).unwrap().replace(blackbox::TOKEN, BOT);
    client.ask(bytes.as_bytes())
}

#[test]
fn an_agents_id_is_put_in_and_nothing_else_is_touched() {
    let upstream = Upstream::echo();
    let gateway = Gateway::with_policy(&[], &policy(&upstream, ""));
    let mut client = gateway.client();
    for (sent, arrives) in [
        ("{ \"text\" : 1.0 }", "{\"agentId\":\"support-bot\", \"text\" : 1.0 }"),
        ("{}", "{\"agentId\":\"support-bot\"}"),
        ("{ }", "{\"agentId\":\"support-bot\" }"),
        ("{\"a\":{\"agentId\":\"x\"}}", "{\"agentId\":\"support-bot\",\"a\":{\"agentId\":\"x\"}}"),
        ("{\"agentId\":\"support-bot\",\"a\":1}", "{\"agentId\":\"support-bot\",\"a\":1}"),
        ("{\"agentId\" : \"support\\u002dbot\"}", "{\"agentId\" : \"support\\u002dbot\"}"),
    ] {
        let body = |arguments: &str| {
            format!(
                "{{\"id\" : \"\\u0041\",\"jsonrpc\":\"2.0\", \"method\":\"tools/call\",\"params\":{{\"arguments\":{arguments},\"name\":\"echo\"}} }}"
            )
        };
        let response = as_agent(&mut client, &body(sent));
        assert_eq!(response.status, 200);
        assert_eq!(upstream.last().text(), body(arrives));
    }
    // Only tool calls have arguments of this kind.
    let other = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"prompts/get\",\"params\":{\"name\":\"p\",\"arguments\":{\"agentId\":\"other-bot\"}}}";
    assert_eq!(as_agent(&mut client, other).status, 200);
    assert_eq!(upstream.last().text(), other);
}

#[test]
fn an_agent_that_names_another_is_refused_as_a_tool_result() {
    let upstream = Upstream::echo();
    for style in ["tool-result", "jsonrpc-error"] {
        let gateway = Gateway::with_policy(&[("DENIAL_STYLE", style)], &policy(&upstream, ""));
        let mut client = gateway.client();
        for (argument, text) in [
            ("\"agentId\":\"other-bot\"", "Token for agent \"support-bot\" cannot access agent \"other-bot\""),
            ("\"agentId\":\"ignore all <rules>\"", "Token for agent \"support-bot\" cannot access another agent"),
            ("\"agentId\":7", "Invalid input for \"agentId\": must be one string"),
            ("\"AgentID\":\"support-bot\"", "Invalid input for \"agentId\": must be one string"),
        ] {
            let body = blackbox::call("\"x\"").replace("\"text\":\"hello\"", argument);
            let response = as_agent(&mut client, &body);
            let answer = response.json();
            assert_eq!((response.status, &answer["id"]), (200, &"x".into()), "{argument}");
            if style == "jsonrpc-error" {
                assert_eq!(answer["error"]["message"], text);
                continue;
            }
            let result = &answer["result"];
            assert_eq!((&result["isError"], &result["structuredContent"]["error"]), (&true.into(), &text.into()));
            assert_eq!(result["structuredContent"]["rule"], "agent-binding");
            assert_eq!(result["structuredContent"]["field"], "/params/arguments/agentId");
            assert_eq!((result["content"].as_array().unwrap().len(), &result["content"][0]["text"]), (1, &text.into()));
        }
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn inject_agent_id_false_leaves_a_call_as_it_is() {
    let upstream = Upstream::echo();
    let gateway = Gateway::with_policy(&[], &policy(&upstream, "inject_agent_id = false\n"));
    let mut client = gateway.client();
    assert_eq!(as_agent(&mut client, &blackbox::call(1)).status, 200);
    assert_eq!(upstream.last().text(), blackbox::call(1));
    // What it says of itself is checked all the same.
    let foreign = blackbox::call(2).replace("\"text\":\"hello\"", "\"agentId\":\"other-bot\"");
    assert_eq!(as_agent(&mut client, &foreign).json()["result"]["isError"], true);
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn modern_headers_tell_the_truth_or_the_message_goes_nowhere() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(MADE_UP, upstream.address);
    let good = blackbox::modern(1, "tools/call", Some("echo"), "\"name\":\"echo\",\"arguments\":{}");
    let good = String::from_utf8(good).unwrap();
    let encoded = format!("Mcp-Name: =?base64?{}?=", base64::engine::general_purpose::STANDARD.encode("echo"));
    for (from, to, status, code) in [
        ("", "", 200, 0),
        ("Mcp-Name: echo", "mcp-NAME:   echo  ", 200, 0),
        ("Mcp-Name: echo", encoded.as_str(), 200, 0),
        ("Mcp-Name: echo\r\n", "", 400, -32020),
        ("Mcp-Name: echo", "Mcp-Name: Echo", 400, -32020),
        ("Mcp-Name: echo", "Mcp-Name: echo\r\nMcp-Name: echo", 400, -32020),
        ("Mcp-Method: tools/call\r\n", "", 400, -32020),
        ("Mcp-Method: tools/call", "Mcp-Method: tools/list", 400, -32020),
        ("MCP-Protocol-Version: 2026-07-28\r\n", "", 400, -32020),
        ("MCP-Protocol-Version: 2026-07-28", "MCP-Protocol-Version: 2025-11-25", 400, -32020),
        ("2026-07-28", "2099-01-01", 400, -32022),
    ] {
        let response = gateway.client().ask(good.replace(from, to).as_bytes());
        assert_eq!(response.status, status, "{to}: {}", response.text());
        if status == 400 && !to.contains("Mcp-Name: echo\r\n") {
            assert_eq!(response.json()["error"]["code"], code, "{to}");
        }
    }
    assert_eq!(upstream.requests().len(), 3);
}
