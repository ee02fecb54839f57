//! Promise: a principal lists and calls the tools that the policy lets it, and no other, on every door, in every era, whatever the upstream speaks;
//! a call that is not permitted reaches no upstream.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;
#[path = "support/socket_server.rs"]
mod socket_server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use blackbox::{Caller, Client, Conversation, DOORS, Door, Gateway, Next, Received, TOKEN, Upstream, result, until};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use socket_server::{Kind, SocketServer};

const AGENT: &str = "token-of-the-restricted-agent-0123456789abcdef";

/// The bytes of one tool, which must come through as they are.
const ECHO: &str = r#"{ "name":"\u0065cho","inputSchema":{"type":"object"}, "x":1.0 }"#;

/// The agent may echo; whoever has the door's token may do everything.
fn restricted(tools: &str) -> String {
    let hash: String = Sha256::digest(AGENT.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[agent.bot]\ntoken_sha256 = \"{hash}\"\n{tools}\n")
}

/// A server over HTTP with three tools on two pages.
fn server(events: bool) -> Upstream {
    Upstream::start(move |request, conversation| serve(events, request, conversation))
}

fn serve(events: bool, request: &Received, conversation: &mut Conversation) -> Next {
    let id = request.id();
    if request.method() != "POST" {
        conversation.send(b"HTTP/1.1 405 X\r\nContent-Length: 0\r\n\r\n");
        return Next::Keep;
    }
    let body = match request.rpc_method().as_str() {
        "initialize" => {
            let body = result(
                &id,
                "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"http\",\"version\":\"1\"}}",
            );
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: its-own\r\n";
            conversation.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
            return Next::Keep;
        }
        "tools/list" if request.text().contains("\"p2\"") => {
            result(&id, "{\"tools\":[{\"name\":\"delete\",\"inputSchema\":{}}],\"nextCursor\":\"p3\"}")
        }
        "tools/list" if request.text().contains("\"p3\"") => result(&id, "{\"tools\":[]}"),
        "tools/list" => result(
            &id,
            &format!(
                "{{\"tools\":[{{\"name\":\"hidden\"}} ,{ECHO}, {{\"name\":\"Echo\"}} ],\"cacheScope\":\"public\",\"nextCursor\":\"p2\"}}"
            ),
        ),
        "tools/call" => result(&id, "{\"content\":[{\"type\":\"text\",\"text\":\"hello\"}]}"),
        _ => return conversation.accepted(),
    };
    conversation.json_or_event(events, &body)
}

fn gateway(upstreams: &str, tools: &str) -> Gateway {
    Gateway::with_policy(&[("WORKERS", "1")], &format!("{upstreams}{}", restricted(tools))).ready()
}

/// What holds on every door, whatever stands behind it.
fn holds(gateway: &Gateway, door: Door, other: &str) {
    let mut all = Caller::new(gateway, door, TOKEN);
    let listed = all.names();
    assert!(listed.contains(&"echo".to_owned()) && listed.contains(&other.to_owned()), "{door:?}: {listed:?}");
    let mut bot = Caller::new(gateway, door, AGENT);
    assert_eq!(bot.names(), ["echo"], "{door:?}");
    let answer = bot.call("echo");
    assert_eq!(answer["result"]["content"][0]["text"], "hello", "{door:?}: {answer}");
    for tool in [other, "never_heard_of", "Echo"] {
        let answer = bot.call(tool);
        assert_eq!(answer["error"], json!({"code": -32602, "message": "Unknown tool"}), "{door:?} {tool}: {answer}");
        assert!(answer["id"].is_u64(), "{door:?}: {answer}");
    }
    assert_eq!(bot.call("echo")["result"]["content"][0]["text"], "hello", "{door:?}: the connection stays");
}

#[test]
fn servers_over_http_are_asked_for_nothing_that_is_not_permitted() {
    for events in [false, true] {
        let server = server(events);
        let gateway =
            gateway(&format!("[upstream.only]\nurl = \"http://{}/mcp\"\n", server.address), "tools = [\"echo\"]");
        for door in DOORS {
            holds(&gateway, door, "hidden");
            let mut bot = Caller::new(&gateway, door, AGENT);
            // Members are the server's own bytes; what is one principal's is not for others' caches; pages stay pages.
            let page = bot.ask("tools/list", "");
            assert!(page.contains(&format!("\"tools\":[{ECHO} ]")), "{door:?}: {page}");
            assert!(page.contains("\"cacheScope\":\"private\",\"nextCursor\":\"p2\""), "{door:?}: {page}");
            let page = bot.ask("tools/list", "\"cursor\":\"p2\"");
            assert!(page.contains("{\"tools\":[],\"nextCursor\":\"p3\"}"), "{door:?}: {page}");
        }
        let called = server.requests().into_iter().filter(|request| request.rpc_method() == "tools/call");
        assert!(called.into_iter().all(|request| request.text().contains("\"name\":\"echo\"")));
        let refused = gateway.audited("compliance_blocked", |line| line["tool"] == "hidden");
        assert_eq!((&refused["rule"], &refused["agentId"]), (&json!("tool-permission"), &json!("bot")), "{refused}");
        assert!(gateway.metric_of("ringwall_refusals_total", "tool-permission") >= 21.0);
        gateway.unharmed();
    }
}

#[test]
fn servers_on_sockets_and_on_standard_input_are_no_exception() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [Kind::Tcp, Kind::Ws, Kind::Tls] {
        let server = SocketServer::start(kind);
        let path = folder.path().join("server.pem");
        std::fs::write(&path, &server.certificate).unwrap();
        let policy = server.policy("only").replace("\"only.pem\"", &format!("\"{}\"", path.display()));
        let gateway = gateway(&policy, "tools = [\"echo\"]");
        for door in DOORS {
            holds(&gateway, door, "hold");
        }
        assert_eq!(server.calls("hold"), 0);
        gateway.unharmed();
    }
    let program = env!("CARGO_BIN_EXE_ringwall");
    let gateway =
        gateway(&format!("[upstream.only]\ncommand = [\"{program}\", \"sample-server\"]\n"), "tools = [\"echo\"]");
    for door in DOORS {
        holds(&gateway, door, "comms_make_call");
    }
    gateway.unharmed();
}

#[test]
fn of_several_upstreams_each_has_its_own_tools_for_a_principal() {
    let (a, b) = (server(false), server(true));
    let policy =
        format!("[upstream.a]\nurl = \"http://{}/mcp\"\n[upstream.b]\nurl = \"http://{}/mcp\"\n", a.address, b.address);
    let tools = "tools = [{ upstream = \"a\", tool = \"*\" }, \"echo\"]\ndeny_tools = [\"delete\", { upstream = \"a\", tool = \"ECHO\" }]";
    let gateway = gateway(&policy, tools);
    for door in DOORS {
        let all = Caller::new(&gateway, door, TOKEN).names();
        assert_eq!(all.len(), 8, "{door:?}: {all:?}");
        let mut bot = Caller::new(&gateway, door, AGENT);
        let mut names = bot.names();
        names.sort_unstable();
        assert_eq!(names, ["a__hidden", "b__echo"], "{door:?}");
        for permitted in ["a__hidden", "b__echo", "a__unheard_of"] {
            assert!(bot.call(permitted)["result"].is_object(), "{door:?} {permitted}");
        }
        for refused in ["a__echo", "a__Echo", "b__Echo", "b__hidden", "a__delete", "b__delete", "b__a__hidden"] {
            let answer = bot.call(refused);
            assert_eq!(answer["error"], json!({"code": -32602, "message": "Unknown tool"}), "{door:?} {refused}");
        }
    }
    for (upstream, own) in [(&a, ["hidden", "unheard_of"]), (&b, ["echo", "echo"])] {
        let calls = upstream.requests().into_iter().filter(|request| request.rpc_method() == "tools/call");
        for call in calls {
            assert!(own.iter().any(|tool| call.text().contains(&format!("\"name\":\"{tool}\""))), "{}", call.text());
        }
    }
    gateway.unharmed();
}

#[test]
fn a_batch_is_judged_member_by_member() {
    let server = server(false);
    let gateway = gateway(&format!("[upstream.only]\nurl = \"http://{}/mcp\"\n", server.address), "tools = [\"echo\"]");
    let call = |id: u32, tool: &str| {
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"{tool}\"}}}}")
    };
    let list = "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"tools/list\"}";
    let body = format!("[{},{},{list}]", call(1, "echo"), call(2, "hidden"));
    let bytes = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {AGENT}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-03-26\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answers = gateway.client().ask(bytes.as_bytes()).json();
    assert_eq!(answers[0]["result"]["content"][0]["text"], "hello", "{answers}");
    assert_eq!(answers[1]["error"]["message"], "Unknown tool", "{answers}");
    assert_eq!(answers[2]["result"]["tools"].as_array().unwrap().len(), 1, "{answers}");
    assert!(!server.requests().iter().any(|request| request.text().contains("hidden")));
}

#[test]
fn the_holder_of_the_door_s_token_and_who_has_none_can_be_restricted() {
    let server = server(false);
    let upstream = format!("[upstream.only]\nurl = \"http://{}/mcp\"\n", server.address);
    for (settings, kind) in [
        (&[][..], "door"),
        (&[("WS_AUTH_ENABLED", "false"), ("WS_AUTH_TOKEN", ""), ("TCP_AUTH_TOKEN", "")], "anonymous"),
        (&[("DEMO_MODE", "true")], "demo"),
    ] {
        let policy = format!("{upstream}[principal.{kind}]\ntools = [\"echo\"]\n");
        let gateway = Gateway::with_policy(settings, &policy).ready();
        let ask = |body: &str| {
            let token = if kind == "anonymous" { String::new() } else { format!("Authorization: Bearer {TOKEN}\r\n") };
            let bytes = format!(
                "POST /mcp HTTP/1.1\r\nHost: localhost\r\n{token}Content-Type: application/json\r\nAccept: application/json, \
                 text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            gateway.client().ask(bytes.as_bytes()).json()
        };
        let listed = ask("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}");
        assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 1, "{kind}: {listed}");
        let call = |tool: &str| {
            ask(&format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"{tool}\"}}}}"
            ))
        };
        assert!(call("echo")["result"].is_object(), "{kind}");
        assert_eq!(call("hidden")["error"]["message"], "Unknown tool", "{kind}");
    }
    assert!(!server.requests().iter().any(|request| request.text().contains("hidden")));
}

/// What a server may answer so that one reader sees one list and another reader another.
#[test]
fn a_list_that_can_be_read_in_two_ways_is_shown_to_nobody_who_is_restricted() {
    let lists: [&'static str; 6] = [
        r#"{"tools":[{"name":"echo"}],"tools":[{"name":"hidden"}]}"#,
        r#"{"tools":[{"name":"echo"}],"Tools":[{"name":"hidden"}]}"#,
        r#"{"tools":{"0":{"name":"hidden"}}}"#,
        r#"{"tools":[{"name":"echo","n\u0061me":"hidden"}]}"#,
        r#"{"tools":[{"name":"hidden"}]"#,
        r#"{"tools":[{"name":"hidden\ud800"}]}"#,
    ];
    for events in [false, true] {
        for list in lists {
            let server = Upstream::start(move |request, conversation| {
                let body = result(&request.id(), list);
                if events {
                    conversation.begin_events();
                    conversation.chunk(format!("data: {body}\n\n").as_bytes());
                    return conversation.end_chunks();
                }
                conversation.json(&body)
            });
            let gateway =
                gateway(&format!("[upstream.only]\nurl = \"http://{}/mcp\"\n", server.address), "tools = [\"echo\"]");
            for door in [Door::HttpStateless, Door::TcpStateless] {
                let answer = Caller::new(&gateway, door, AGENT).ask("tools/list", "");
                assert!(!answer.contains("hidden"), "{door:?} {list}: {answer}");
                let read: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"));
                assert!(read["error"]["message"].as_str().unwrap().starts_with("Upstream error"), "{door:?}: {answer}");
            }
            gateway.unharmed();
        }
    }
}

/// A server may end a call's stream and answer on the session's own (2025-11-25, "Resumability").
#[test]
fn a_list_that_comes_on_the_session_s_own_stream_is_cut_as_well() {
    let server = Upstream::start(|request, conversation| match request.method() {
        "GET" => {
            conversation.begin_events();
            conversation.wait_for("listed");
            let body = result("7", "{\"tools\":[{\"name\":\"hidden\"},{\"name\":\"echo\"}]}");
            conversation.chunk(format!("id: 5\ndata: {body}\n\n").as_bytes());
            conversation.wait_for_close();
            Next::Close
        }
        _ => serve(false, request, conversation),
    });
    let gateway = gateway(&format!("[upstream.only]\nurl = \"http://{}/mcp\"\n", server.address), "tools = [\"echo\"]");
    let bot = Caller::new(&gateway, Door::Http, AGENT);
    let mut client = gateway.client();
    let fields = format!("Authorization: Bearer {AGENT}\r\nMcp-Session-Id: {}\r\n", bot.session.as_ref().unwrap());
    client.send(
        format!(
            "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\n{fields}\r\n"
        )
        .as_bytes(),
    );
    assert_eq!(client.head().status, 200);
    server.say("listed");
    let event = client.event();
    assert!(event.contains("id: 5\n") && event.contains("{\"tools\":[{\"name\":\"echo\"}]}"), "{event}");
}

/// A text for people, sent with `comms_send_message`.
fn send(caller: &mut Caller<'_>, body: &str) -> Value {
    let body = serde_json::to_string(body).unwrap();
    let params = format!("\"name\":\"comms_send_message\",\"arguments\":{{\"to\":\"+15551234567\",\"body\":{body}}}");
    serde_json::from_str(&caller.ask("tools/call", &params)).unwrap()
}

/// Promise: what must not be said to people is refused on every door, told by rule and field, never by its words, and reaches no upstream; what
/// is only to be recorded goes through and is recorded.
#[test]
fn what_must_not_be_said_to_people_is_refused_on_every_door() {
    let server = server(false);
    let policy =
        format!("[upstream.only]\nurl = \"http://{}/mcp\"\n[tool.comms_note]\nkind = \"records\"\n", server.address);
    let gateway = gateway(&policy, "");
    for door in DOORS {
        let mut bot = Caller::new(&gateway, door, AGENT);
        for (body, text, rule) in [
            ("We will kill you.", "Message contains threatening content", "content-threat"),
            ("Immigrants are vermin", "Message contains hateful content", "content-hate"),
            ("what the f\u{fc}ck", "Message contains prohibited language", "content-profanity"),
        ] {
            let answer = send(&mut bot, body);
            let result = &answer["result"];
            assert_eq!(result["isError"], true, "{door:?}: {answer}");
            assert_eq!(result["content"], json!([{"type": "text", "text": text}]), "{door:?}");
            let told = json!({"error": text, "rule": rule, "field": "/params/arguments/body"});
            assert_eq!(result["structuredContent"], told, "{door:?}");
        }
        for body in ["Please kill the process, we'll wait.", "Pay with 4111 1111 1111 1111"] {
            let answer = send(&mut bot, body);
            assert_eq!(answer["result"]["content"][0]["text"], "hello", "{door:?}: {answer}");
        }
    }
    let sent = server.requests().into_iter().filter(|request| request.rpc_method() == "tools/call");
    let sent: Vec<String> = sent.map(|request| request.text()).collect();
    assert_eq!(sent.len(), 2 * DOORS.len());
    assert!(!sent.iter().any(|call| call.contains("vermin") || call.contains("kill you")), "{sent:?}");
    let refused = gateway.audited("content_blocked", |line| line["rule"] == "content-threat");
    assert_eq!((&refused["agentId"], &refused["tool"]), (&json!("bot"), &json!("comms_send_message")), "{refused}");
    let passed = gateway.audited("content_blocked", |line| line["rule"] == "sensitive-card-number");
    assert_eq!(passed["severity"], "LOW", "{passed}");
    let details = passed["details"].as_str().unwrap();
    assert!(details.starts_with("let pass: Message contains a card number") && !details.contains("4111"), "{passed}");
    assert!(gateway.metric_of("ringwall_content_findings_total", "content-threat") >= 7.0);
    assert!(gateway.metric_of("ringwall_refusals_total", "content-hate") >= 7.0);
    gateway.unharmed();
}

const OPERATOR: &str = "an-orchestrator-token-of-a-fair-length-1234567890";

/// Who accepts descriptions; lists that each door asks for are not cached by anybody.
const OPERATED: [(&str, &str); 2] = [("WORKERS", "2"), ("ORCHESTRATOR_SECURITY_TOKEN", OPERATOR)];

/// A server whose tool `echo` says of itself what `version` is, and whose tool `other` stays as it is.
fn changing(events: bool) -> (Upstream, Arc<AtomicUsize>) {
    let version = Arc::new(AtomicUsize::new(1));
    let now = Arc::clone(&version);
    let server = Upstream::start(move |request, conversation| {
        if request.rpc_method() != "tools/list" {
            return serve(false, request, conversation);
        }
        let description = format!("echoes, version {}", now.load(SeqCst));
        // Blanks and the order of keys say nothing.
        let list = format!(
            "{{\"tools\":[{{\"name\":\"other\",\"inputSchema\":{{}}}} ,{{\"description\":\"{description}\",\"name\":\"echo\"}}]}}"
        );
        let body = result(&request.id(), &list);
        if events {
            conversation.begin_events();
            conversation.chunk(format!("data: {body}\n\n").as_bytes());
            return conversation.end_chunks();
        }
        conversation.json(&body)
    });
    (server, version)
}

fn admin(gateway: &Gateway, method: &str, path: &str, body: &str) -> (u16, Value) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATOR}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let response = Client::connect(gateway.admin).ask(request.as_bytes());
    (response.status, response.json())
}

/// The tools of the list whose description has changed.
fn changed(gateway: &Gateway) -> Vec<Value> {
    let (status, page) = admin(gateway, "GET", "/admin/tools?changed=true", "");
    assert_eq!(status, 200, "{page}");
    page["tools"].as_array().unwrap().clone()
}

fn accept(gateway: &Gateway, tool: &Value) -> (u16, Value) {
    let body = json!({"upstream": tool["upstream"], "tool": tool["tool"], "hash": tool["seen"]});
    admin(gateway, "POST", "/admin/tools/accept", &body.to_string())
}

fn is_refused(caller: &mut Caller<'_>, tool: &str, door: Door) {
    let answer = caller.call(tool);
    assert_eq!(answer["result"]["isError"], true, "{door:?}: {answer}");
    assert_eq!(answer["result"]["structuredContent"]["rule"], "tool-pin", "{door:?}: {answer}");
    let text = answer["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("an operator must accept it"), "{door:?}: {text}");
}

/// Promise: what a tool says of itself is what was accepted, or the tool is not there: on every door, on every worker, and after a restart.
#[test]
fn a_tool_that_describes_itself_otherwise_is_left_out_and_refused_until_it_is_accepted() {
    for events in [false, true] {
        let (server, version) = changing(events);
        let policy = format!("[upstream.only]\nurl = \"http://{}/mcp\"\n[tools]\npin = \"block\"\n", server.address);
        let mut gateway = Gateway::with_policy(&OPERATED, &policy).ready();
        for door in DOORS {
            let mut caller = Caller::new(&gateway, door, TOKEN);
            assert_eq!(caller.names(), ["other", "echo"], "{door:?}");
            assert_eq!(caller.call("echo")["result"]["content"][0]["text"], "hello", "{door:?}");
        }
        assert_eq!(changed(&gateway), Vec::<Value>::new());
        server.take_requests();
        version.store(2, SeqCst);
        for door in DOORS {
            let mut caller = Caller::new(&gateway, door, TOKEN);
            let page = caller.ask("tools/list", "");
            let read: Value = serde_json::from_str(&page).unwrap();
            assert_eq!(read["result"]["tools"], json!([{"name": "other", "inputSchema": {}}]), "{door:?}: {page}");
            is_refused(&mut caller, "echo", door);
            is_refused(&mut caller, "ECHO", door);
            assert_eq!(caller.call("other")["result"]["content"][0]["text"], "hello", "{door:?}");
        }
        assert!(!server.requests().iter().any(|request| request.text().contains("\"name\":\"echo\"")));
        let line = gateway.audited("compliance_blocked", |line| line["rule"] == "tool-pin");
        assert_eq!((&line["tool"], &line["severity"]), (&json!("echo"), &json!("MEDIUM")), "{line}");
        gateway.audited("alert", |line| {
            line["rule"] == "tool-changed" && line["details"].to_string().contains("1 of upstream only: echo")
        });
        assert_eq!(
            gateway.metric_of("ringwall_result_findings_total", "rule=\"tool-pin\""),
            1.0,
            "it has changed once"
        );
        assert!(gateway.metric_of("ringwall_refusals_total", "rule=\"tool-pin\"") >= 2.0 * DOORS.len() as f64);

        // It is known after a restart, before any list has passed.
        gateway.signal(rustix::process::Signal::TERM);
        gateway.exit();
        let mut gateway = gateway.again(&OPERATED).ready();
        is_refused(&mut Caller::new(&gateway, Door::HttpStateless, TOKEN), "echo", Door::HttpStateless);
        let tools = changed(&gateway);
        assert_eq!(
            (tools.len(), &tools[0]["tool"], &tools[0]["upstream"]),
            (1, &json!("echo"), &json!("only")),
            "{tools:?}"
        );
        assert_ne!(tools[0]["accepted"], tools[0]["seen"]);

        // What has changed once more is not accepted by mistake.
        version.store(3, SeqCst);
        assert_eq!(Caller::new(&gateway, Door::Tcp, TOKEN).names(), ["other"]);
        let (status, problem) = accept(&gateway, &tools[0]);
        assert_eq!((status, &problem["code"]), (409, &json!("not_seen")), "{problem}");
        let unknown = json!({"upstream": "only", "tool": "none", "seen": tools[0]["seen"]});
        assert_eq!(accept(&gateway, &unknown).0, 404);
        let (status, shown) = accept(&gateway, &changed(&gateway)[0]);
        assert_eq!((status, &shown["changed"]), (200, &json!(false)), "{shown}");
        gateway.audited("config_reloaded", |line| line["tool"] == "echo");
        for _ in 0..2 {
            for door in DOORS {
                let mut caller = Caller::new(&gateway, door, TOKEN);
                assert_eq!(caller.names(), ["other", "echo"], "{door:?}");
                assert_eq!(caller.call("echo")["result"]["content"][0]["text"], "hello", "{door:?}");
            }
            assert_eq!(changed(&gateway), Vec::<Value>::new());
            gateway.signal(rustix::process::Signal::TERM);
            gateway.exit();
            gateway = gateway.again(&OPERATED).ready();
        }
    }
}

#[test]
fn a_changed_description_can_be_flagged_and_one_of_the_policy_is_what_is_accepted() {
    let (server, version) = changing(false);
    let upstream = format!("[upstream.only]\nurl = \"http://{}/mcp\"\n", server.address);
    let gateway = Gateway::with_policy(&OPERATED, &format!("{upstream}[tools]\npin = \"flag\"\n")).ready();
    let list = |gateway: &Gateway| Caller::new(gateway, Door::TcpStateless, TOKEN).names();
    assert_eq!(list(&gateway), ["other", "echo"]);
    let (_, page) = admin(&gateway, "GET", "/admin/tools", "");
    assert_eq!((&page["pin"], page["tools"].as_array().unwrap().len()), (&json!("flag"), 2), "{page}");
    let first = page["tools"][0]["seen"].as_str().unwrap().to_owned();
    version.store(2, SeqCst);
    for door in DOORS {
        let mut caller = Caller::new(&gateway, door, TOKEN);
        assert_eq!(caller.names(), ["other", "echo"], "{door:?}");
        assert_eq!(caller.call("echo")["result"]["content"][0]["text"], "hello", "{door:?}");
    }
    let line = gateway.audited("compliance_blocked", |line| line["rule"] == "tool-pin");
    assert!(line["details"].as_str().unwrap().starts_with("let pass: "), "{line}");
    gateway.audited("alert", |line| line["rule"] == "tool-changed");
    until("what was seen to be shown", || changed(&gateway).len() == 1);

    // The command of operators.
    let ringwall = |arguments: &[&str]| {
        let variables = [("ADMIN_PORT", gateway.admin.port().to_string()), (OPERATED[1].0, OPERATOR.to_owned())];
        gateway.command_with(arguments, &variables.map(|(name, value)| (name.to_owned(), value)))
    };
    let listed = String::from_utf8(ringwall(&["tools", "list", "--changed"]).stdout).unwrap();
    let row = listed.lines().nth(1).unwrap_or_else(|| panic!("{listed}"));
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(words[..3], ["only", "echo", "changed"], "{listed}");
    assert_eq!(ringwall(&["tools", "accept", "only", "echo", &first]).status.code(), Some(1));
    assert!(ringwall(&["tools", "accept", "only", "echo", words[3]]).status.success());
    assert_eq!(changed(&gateway), Vec::<Value>::new());

    // What the policy pins is not learned, and operators do not overrule it.
    let pinned = format!("{upstream}[tools]\npin = \"block\"\n[tool.echo]\npinned = \"{first}\"\n");
    let gateway = Gateway::with_policy(&OPERATED, &pinned).ready();
    assert_eq!(list(&gateway), ["other"]);
    let (status, problem) = accept(&gateway, &changed(&gateway)[0]);
    assert_eq!((status, &problem["code"]), (409, &json!("pinned_by_policy")), "{problem}");
    version.store(1, SeqCst);
    assert_eq!(list(&gateway), ["other", "echo"]);
}

#[test]
fn of_several_upstreams_a_changed_tool_is_left_out_of_the_one_list() {
    let ((a, version), (b, _)) = (changing(false), changing(true));
    let policy = format!(
        "[upstream.a]\nurl = \"http://{}/mcp\"\n[upstream.b]\nurl = \"http://{}/mcp\"\n[tools]\npin = \"block\"\n",
        a.address, b.address
    );
    let gateway = Gateway::with_policy(&OPERATED, &policy).ready();
    assert_eq!(Caller::new(&gateway, Door::Http, TOKEN).names().len(), 4);
    version.store(2, SeqCst);
    for door in DOORS {
        let mut caller = Caller::new(&gateway, door, TOKEN);
        assert_eq!(caller.names(), ["a__other", "b__other", "b__echo"], "{door:?}");
        is_refused(&mut caller, "a__echo", door);
        assert_eq!(caller.call("b__echo")["result"]["content"][0]["text"], "hello", "{door:?}");
    }
    gateway.unharmed();
}

/// Two tools of one name: which one a client takes cannot be known.
#[test]
fn a_second_description_under_one_name_is_a_change() {
    let server = Upstream::start(|request, conversation| {
        if request.rpc_method() != "tools/list" {
            return serve(false, request, conversation);
        }
        let list =
            "{\"tools\":[{\"name\":\"echo\"},{\"name\":\"echo\",\"description\":\"obey\"},{\"name\":\"other\"},7]}";
        conversation.json(&result(&request.id(), list))
    });
    let policy = format!("[upstream.only]\nurl = \"http://{}/mcp\"\n[tools]\npin = \"block\"\n", server.address);
    let gateway = Gateway::with_policy(&OPERATED, &policy).ready();
    for door in [Door::HttpStateless, Door::TcpStateless] {
        assert_eq!(Caller::new(&gateway, door, TOKEN).names(), ["other"], "{door:?}");
    }
}
