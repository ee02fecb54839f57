//! Promise: of what is limited exactly as much passes as may, on every door, in every era; the rest is told why, and truly when to try again; what is
//! refused, or never made, is counted nowhere; what operators say holds at once and after a restart.
//!
//! Nothing here depends on how fast the machine is: what is told is compared with the times before and after the question.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test reads the clock")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use blackbox::{
    Caller, Client, Conversation, DOORS, Door, Frame, Gateway, Next, Nobody, PATIENCE, Peer, Received, TOKEN, Upstream,
    result,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How true an announced time has to be.
const TRUE_TO_MS: u64 = 100;
const DAY_MS: u64 = 86_400_000;
const ORCHESTRATOR: &str = "orchestrator-token-of-the-rate-tests-0123";

/// Limits are in force, and those that a test is not about are far away.
const FAR: [(&str, &str); 10] = [
    ("RATE_LIMIT_ENABLED", "true"),
    ("AUTO_BLOCK_ENABLED", "false"),
    ("HTTP_RATE_LIMIT_PER_IP", "1000000"),
    ("HTTP_RATE_LIMIT_GLOBAL", "1000000"),
    ("RATE_LIMIT_MAX_REQUESTS", "1000000"),
    ("RATE_LIMIT_BURST_REQUESTS", "1000000"),
    ("DEFAULT_MAX_ACTIONS_PER_MINUTE", "1000000"),
    ("DEFAULT_MAX_ACTIONS_PER_HOUR", "1000000"),
    ("DEFAULT_MAX_ACTIONS_PER_DAY", "1000000"),
    ("ORCHESTRATOR_SECURITY_TOKEN", ORCHESTRATOR),
];

/// [`FAR`], with these in place of those of their names.
fn far_but<'s>(others: &[(&'s str, &'s str)]) -> Vec<(&'s str, &'s str)> {
    FAR.iter().chain(others).copied().collect()
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

fn token_of(agent: &str) -> String {
    format!("token-of-{agent}-0123456789abcdef0123456789")
}

/// An agent in the policy, with these lines.
fn agent(id: &str, lines: &str) -> String {
    let hash: String = Sha256::digest(token_of(id).as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[agent.\"{id}\"]\ntoken_sha256 = \"{hash}\"\n{lines}\n")
}

fn name(door: Door) -> String {
    format!("{door:?}").to_lowercase()
}

/// A server that answers everything, in both eras.
fn server() -> Upstream {
    Upstream::start(|request: &Received, conversation: &mut Conversation| {
        if request.method() != "POST" {
            conversation.send(b"HTTP/1.1 405 X\r\nContent-Length: 0\r\n\r\n");
            return Next::Keep;
        }
        if request.rpc_method() != "initialize" {
            return conversation.echo(request);
        }
        let body = result(
            &request.id(),
            "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"http\",\"version\":\"1\"}}",
        );
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: its-own\r\n";
        conversation.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        Next::Keep
    })
}

fn upstream(server: &Upstream) -> String {
    format!("[upstream.only]\nurl = \"http://{}/mcp\"\n\n", server.address)
}

/// When something was asked and answered.
#[derive(Clone, Copy)]
struct Asked {
    before: Instant,
    after: Instant,
}

fn timed<T>(ask: impl FnOnce() -> T) -> (T, Asked) {
    let before = Instant::now();
    let answer = ask();
    (answer, Asked { before, after: Instant::now() })
}

/// That a refusal announces the end of a window that `first` began, as far as the test can tell when that was.
fn is_true(told_ms: u64, window_ms: u64, first: Asked, refused: Asked, what: &str) {
    let (least, most) = bounds(window_ms, first, refused);
    assert!((least..=most).contains(&told_ms), "{what}: {told_ms} is not within {least}..={most}");
}

/// The least and the most that a refusal may announce.
fn bounds(window_ms: u64, first: Asked, refused: Asked) -> (u64, u64) {
    let least = window_ms.saturating_sub(ms(refused.after - first.before) + TRUE_TO_MS);
    (least, window_ms - ms(refused.before.saturating_duration_since(first.after)) + TRUE_TO_MS)
}

/// The tool's arguments, as members.
fn call(caller: &mut Caller<'_>, tool: &str, arguments: &str) -> Value {
    let answer = caller.ask("tools/call", &format!("\"name\":\"{tool}\",\"arguments\":{{{arguments}}}"));
    serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"))
}

fn is_done(answer: &Value) -> bool {
    answer["result"]["content"][0]["text"] == "done"
}

/// One limit of tool calls.
struct Case {
    name: &'static str,
    /// Of the agent in the policy.
    limits: &'static str,
    /// The tool, and its entry in the policy; `DOOR` is the door's name.
    tool: &'static str,
    entry: &'static str,
    arguments: &'static str,
    limit_type: &'static str,
    rule: &'static str,
    reset: &'static str,
    /// `None`: until midnight.
    window_ms: Option<u64>,
}

const CASES: [Case; 8] = [
    Case {
        name: "minute",
        limits: "limits = { per_minute = 3 }",
        tool: "echo",
        entry: "",
        arguments: "",
        limit_type: "per-minute",
        rule: "agent-per-minute",
        reset: "in up to 60 seconds",
        window_ms: Some(60_000),
    },
    Case {
        name: "hour",
        limits: "tier = \"hourly\"",
        tool: "echo",
        entry: "",
        arguments: "",
        limit_type: "per-hour",
        rule: "agent-per-hour",
        reset: "in up to 60 minutes",
        window_ms: Some(3_600_000),
    },
    Case {
        name: "day",
        limits: "limits = { per_day = 3 }",
        tool: "echo",
        entry: "",
        arguments: "",
        limit_type: "per-day",
        rule: "agent-per-day",
        reset: "at midnight UTC",
        window_ms: None,
    },
    Case {
        name: "number",
        limits: "limits = { same_number_per_day = 3 }",
        tool: "comms_make_call",
        entry: "",
        arguments: "\"to\":\"+15551234567\"",
        limit_type: "contact-frequency",
        rule: "agent-same-number",
        reset: "at midnight UTC",
        window_ms: None,
    },
    Case {
        name: "toolminute",
        limits: "",
        tool: "minutely_DOOR",
        entry: "limits = { per_minute = 3 }",
        arguments: "",
        limit_type: "per-minute",
        rule: "tool-per-minute",
        reset: "in up to 60 seconds",
        window_ms: Some(60_000),
    },
    Case {
        name: "toolhour",
        limits: "",
        tool: "hourly_DOOR",
        entry: "limits = { per_hour = 3 }",
        arguments: "",
        limit_type: "per-hour",
        rule: "tool-per-hour",
        reset: "in up to 60 minutes",
        window_ms: Some(3_600_000),
    },
    Case {
        name: "toolday",
        limits: "",
        tool: "daily_DOOR",
        entry: "limits = { per_day = 3 }",
        arguments: "",
        limit_type: "per-day",
        rule: "tool-per-day",
        reset: "at midnight UTC",
        window_ms: None,
    },
    Case {
        name: "toolnumber",
        limits: "limits = { same_number_per_day = 1000 }",
        tool: "voice_DOOR",
        entry: "kind = \"call\"\nlimits = { same_number_per_day = 3 }",
        arguments: "\"to\":\"+15551234567\"",
        limit_type: "contact-frequency",
        rule: "tool-same-number",
        reset: "at midnight UTC",
        window_ms: None,
    },
];

impl Case {
    fn agent(&self, door: Door) -> String {
        format!("{}-{}", self.name, name(door))
    }

    fn tool(&self, door: Door) -> String {
        self.tool.replace("DOOR", &name(door))
    }

    /// Three pass, the fourth and the fifth do not, and they say why.
    fn holds(&self, gateway: &Gateway, server: &Upstream, door: Door) {
        let (agent, tool) = (self.agent(door), self.tool(door));
        let mut caller = Caller::new(gateway, door, &token_of(&agent));
        let (first, began) = timed(|| call(&mut caller, &tool, self.arguments));
        assert!(is_done(&first), "{agent}: {first}");
        for _ in 0..2 {
            let answer = call(&mut caller, &tool, self.arguments);
            assert!(is_done(&answer), "{agent}: {answer}");
        }
        for _ in 0..2 {
            let day = now_ms() / DAY_MS;
            let (answer, asked) = timed(|| call(&mut caller, &tool, self.arguments));
            let until_midnight = (now_ms() / DAY_MS + 1) * DAY_MS - now_ms();
            assert_eq!(now_ms() / DAY_MS, day, "it has become midnight while this was tested");
            let (told, text) = (&answer["result"]["structuredContent"], self.text());
            assert_eq!(
                (&answer["result"]["isError"], &told["error"]),
                (&json!(true), &json!(text)),
                "{agent}: {answer}"
            );
            assert_eq!(answer["result"]["content"], json!([{ "type": "text", "text": text }]), "{agent}");
            assert_eq!(answer["result"]["resultType"].is_string(), door.is_stateless(), "{agent}: {answer}");
            let facts = [&told["rule"], &told["limitType"], &told["current"], &told["max"], &told["resetDescription"]];
            let expected = json!([self.rule, self.limit_type, 3, 3, self.reset]);
            assert_eq!(json!(facts), expected, "{agent}: {answer}");
            let told_ms = told["retryAfterMs"].as_u64().unwrap();
            match self.window_ms {
                Some(window_ms) => is_true(told_ms, window_ms, began, asked, &agent),
                None => {
                    let most = until_midnight + ms(asked.after - asked.before) + TRUE_TO_MS;
                    assert!(
                        (until_midnight.saturating_sub(TRUE_TO_MS)..=most).contains(&told_ms),
                        "{agent}: {told_ms}"
                    );
                }
            }
        }
        let named = format!("\"agentId\":\"{agent}\"");
        let calls = server.requests().into_iter().filter(|request| request.text().contains(&named)).count();
        assert_eq!(calls, 3, "{agent}: what is refused reaches no upstream");
    }

    fn text(&self) -> String {
        format!("Rate limit exceeded: {} (3/3). Resets {}.", self.limit_type, self.reset)
    }
}

#[test]
fn of_tool_calls_as_many_pass_as_may_on_every_door() {
    let server = server();
    let mut policy = upstream(&server) + "[tier.hourly]\nper_hour = 3\n\n";
    for door in DOORS {
        for case in &CASES {
            policy += &agent(&case.agent(door), case.limits);
            if !case.entry.is_empty() {
                policy += &format!("[tool.{}]\n{}\n", case.tool(door), case.entry);
            }
        }
    }
    let gateway = Gateway::with_policy(&FAR, &policy).ready();
    for door in DOORS {
        for case in &CASES {
            case.holds(&gateway, &server, door);
        }
    }
    for case in &CASES {
        let line = gateway.audited("rate_limit_exceeded", |line| line["rule"] == case.rule);
        assert_eq!((&line["severity"], &line["details"]), (&json!("LOW"), &json!(case.text())), "{line}");
    }
    // Each was told of 2 on 7 doors; a metric for each rule, and for each limit.
    for case in &CASES {
        let refused = gateway.metric_of("ringwall_refusals_total", &format!("rule=\"{}\"", case.rule));
        assert_eq!(refused, 14.0, "{}", case.rule);
    }
    // The agent's and the tool's.
    assert_eq!(gateway.metric_of("ringwall_limits_hit_total", "limit=\"same_number\""), 28.0);
    for limit in ["agent_minute", "agent_hour", "agent_day", "tool_minute", "tool_hour", "tool_day"] {
        assert_eq!(gateway.metric_of("ringwall_limits_hit_total", &format!("limit=\"{limit}\"")), 14.0, "{limit}");
    }
    // Another number, another agent: other counts.
    let mut caller = Caller::new(&gateway, Door::TcpStateless, &token_of("number-http"));
    assert!(is_done(&call(&mut caller, "comms_make_call", "\"to\":\"+15551234568\"")));
    let again = call(&mut caller, "comms_make_call", "\"to\":\"+1 (555) 123-4567\"");
    assert_eq!(again["result"]["structuredContent"]["limitType"], "contact-frequency", "{again}");
    let unclear = call(&mut caller, "comms_make_call", "\"to\":[\"+15551234567\"]");
    let text = "Invalid input for \"to\": must be one number";
    assert_eq!(unclear["result"]["structuredContent"]["error"], text, "{unclear}");
    drop(caller);
    gateway.unharmed();
}

/// What is told of a message that was one too many.
fn refused_message(answer: &str, rule: &str, what: &str) -> u64 {
    let answer: Value = serde_json::from_str(answer).unwrap_or_else(|_| panic!("{what}: {answer}"));
    let error = &answer["error"];
    assert_eq!(
        (&error["code"], &error["message"]),
        (&json!(-32000), &json!("Rate limit exceeded")),
        "{what}: {answer}"
    );
    assert!(answer["id"].is_u64(), "{what}: {answer}");
    assert_eq!(error["data"]["rule"], rule, "{what}: {answer}");
    error["data"]["retryAfterMs"].as_u64().unwrap()
}

#[test]
fn of_a_client_s_messages_as_many_pass_as_may_on_every_door() {
    const WINDOW_MS: u64 = 3_000_000;
    let server = server();
    let policy = DOORS.iter().fold(upstream(&server), |policy, door| policy + &agent(&name(*door), ""));
    let settings = [("RATE_LIMIT_WINDOW_MS", "3000000"), ("RATE_LIMIT_MAX_REQUESTS", "6")];
    let gateway = Gateway::with_policy(&far_but(&settings), &policy).ready();
    for door in DOORS {
        let what = name(door);
        let (mut caller, began) = timed(|| Caller::new(&gateway, door, &token_of(&what)));
        // A session has begun with two messages.
        let (mut began, so_far) = (began, if door.is_stateless() { 0 } else { 2 });
        for nth in so_far..6 {
            let (answer, asked) = timed(|| caller.ask("prompts/list", ""));
            assert!(answer.contains("\"result\""), "{what}: {answer}");
            if nth == 0 {
                began = asked;
            }
        }
        for _ in 0..3 {
            let (answer, asked) = timed(|| caller.ask("prompts/list", ""));
            let told_ms = refused_message(&answer, "client-messages", &what);
            is_true(told_ms, WINDOW_MS, began, asked, &what);
            let Some(response) = &caller.response else { continue };
            assert_eq!(response.status, 429, "{response:?}");
            let seconds = told_ms.div_ceil(1000).to_string();
            assert_eq!(response.field("retry-after").as_ref(), Some(&seconds), "{response:?}");
            let policy = "\"client-messages\";q=6;w=3000";
            assert_eq!(response.field("ratelimit-policy").as_deref(), Some(policy), "{response:?}");
            let left = format!("\"client-messages\";r=0;t={seconds}");
            assert_eq!(response.field("ratelimit"), Some(left), "{response:?}");
        }
        // Its other connections are the same client.
        let mut other = Client::connect(gateway.bridge);
        let bytes = caller.bytes("/mcp", "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"ping\"}");
        let response = other
            .ask(&String::from_utf8(bytes).unwrap().replace("MCP-Protocol-Version: 2026-07-28\r\n", "").into_bytes());
        assert_eq!(response.status, 429, "{what}: {response:?}");
        if let Some(mut peer) = caller.peer.take() {
            // What is no message counts as one, and what gets no answer is not answered.
            peer.say("nonsense");
            let told = peer.hear();
            assert_eq!((&told["error"]["code"], &told["id"]), (&json!(-32000), &Value::Null), "{what}: {told}");
            peer.say("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}");
            peer.say("{\"jsonrpc\":\"2.0\",\"id\":77,\"method\":\"ping\"}");
            assert_eq!(peer.hear()["id"], 77, "{what}: nothing is said to a notification");
        }
    }
    assert!(gateway.metric_of("ringwall_limits_hit_total", "limit=\"client_messages\"") >= 21.0);
    gateway.audited("rate_limit_exceeded", |line| line["rule"] == "client-messages" && line["agentId"] == "tcp");
    gateway.unharmed();
}

#[test]
fn of_a_burst_as_many_pass_as_may_on_every_door() {
    let server = server();
    let agents: Vec<String> = (0..200).map(|number| format!("agent-{number}")).collect();
    let policy = agents.iter().fold(upstream(&server), |policy, id| policy + &agent(id, ""));
    let gateway = Gateway::with_policy(&far_but(&[("RATE_LIMIT_BURST_REQUESTS", "4")]), &policy).ready();
    let mut unused = agents.iter();
    let start = Instant::now();
    for door in DOORS {
        // A machine that takes longer than the second that this is about shows nothing; another agent tries again.
        loop {
            assert!(start.elapsed() < PATIENCE, "no burst within a second");
            let what = name(door);
            let id = unused.next().expect("an agent that has said nothing yet");
            let (mut caller, mut began) = timed(|| Caller::new(&gateway, door, &token_of(id)));
            let so_far = if door.is_stateless() { 0 } else { 2 };
            let mut answers = Vec::new();
            for nth in so_far..7 {
                let (answer, asked) = timed(|| caller.ask("prompts/list", ""));
                if nth == 0 {
                    began = asked;
                }
                answers.push((answer, asked));
            }
            let (_, last) = answers.last().unwrap();
            if last.after - began.before >= Duration::from_millis(900) {
                continue;
            }
            for (nth, (answer, asked)) in (so_far..).zip(answers) {
                if nth < 4 {
                    assert!(answer.contains("\"result\""), "{what}: {answer}");
                } else {
                    let told_ms = refused_message(&answer, "client-burst", &what);
                    is_true(told_ms, 1_000, began, asked, &what);
                }
            }
            break;
        }
    }
}

#[test]
fn what_is_announced_is_when_the_next_one_passes() {
    let server = server();
    let settings = [("RATE_LIMIT_WINDOW_MS", "1500"), ("RATE_LIMIT_MAX_REQUESTS", "3")];
    let gateway = Gateway::with_policy(&far_but(&settings), &(upstream(&server) + &agent("bot", ""))).ready();
    let mut caller = Caller::new(&gateway, Door::TcpStateless, &token_of("bot"));
    for round in 0..3 {
        let mut refused = None;
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < PATIENCE);
            let (answer, asked) = timed(|| caller.ask("prompts/list", ""));
            match (answer.contains("\"result\""), refused) {
                (true, None) => {}
                (true, Some((told_ms, earliest))) => {
                    let waited = ms(asked.after - earliest);
                    assert!(waited + TRUE_TO_MS >= told_ms, "round {round}: let pass after {waited} of {told_ms} ms");
                    break;
                }
                (false, None) => {
                    let told_ms = refused_message(&answer, "client-messages", "tcp");
                    refused = Some((told_ms, asked.before));
                }
                (false, Some((told_ms, earliest))) => {
                    // Refused again: it was not time yet when this was asked.
                    let still_ms = refused_message(&answer, "client-messages", "tcp");
                    let waited = ms(asked.before - earliest);
                    assert!(waited <= told_ms + TRUE_TO_MS, "round {round}: refused after {waited} of {told_ms} ms");
                    assert!(still_ms <= told_ms, "refusals put nothing off: {still_ms} after {told_ms}");
                }
            }
        }
    }
}

/// A request as a proxy passes it on for this address.
fn on_behalf(address: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {address}\r\n\r\n").into_bytes()
}

#[test]
fn requests_are_counted_by_address_before_everyone_s() {
    let server = server();
    let settings =
        far_but(&[("HTTP_RATE_LIMIT_PER_IP", "3"), ("HTTP_RATE_LIMIT_GLOBAL", "8"), ("TRUSTED_PROXIES", "127.0.0.1")]);
    let gateway = Gateway::start(&settings, server.address).ready();
    let page = "/.well-known/oauth-protected-resource";
    let mut client = gateway.client();
    let mut ask = |address: &str, path: &str| timed(|| client.ask(&on_behalf(address, path)));
    let (response, began) = ask("192.0.2.1", page);
    assert_eq!(response.status, 200);
    // Whatever is asked for counts, be it there or not.
    assert_eq!(ask("192.0.2.1", "/nowhere").0.status, 404);
    assert_eq!(ask("192.0.2.1", "/mcp").0.status, 401);
    let is_refused = |(response, asked): (blackbox::Response, _), rule: &str, text: &str, quota: u32| {
        assert_eq!((response.status, response.json()), (429, json!({ "error": text })), "{response:?}");
        let seconds: u64 = response.field("retry-after").unwrap().parse().unwrap();
        // Rounded up to whole seconds: the second that is over then has the true time in it.
        let (least, most) = bounds(60_000, began, asked);
        assert!(seconds * 1000 >= least && seconds * 1000 - 1000 < most, "{rule}: {seconds} s, {least}..={most}");
        let fields = [response.field("ratelimit-policy").unwrap(), response.field("ratelimit").unwrap()];
        assert_eq!(fields, [format!("\"{rule}\";q={quota};w=60"), format!("\"{rule}\";r=0;t={seconds}")]);
    };
    for _ in 0..20 {
        is_refused(ask("192.0.2.1", page), "ip-requests", "Too many requests", 3);
    }
    // Health is exempt, and what an address is refused is nobody else's loss.
    for _ in 0..20 {
        assert_eq!(ask("192.0.2.1", "/health").0.status, 200);
    }
    // IPv6 counts by its /64.
    for (address, status) in [
        ("2001:db8::1", 200),
        ("2001:db8::2:1", 200),
        ("2001:db8::3:0:1", 200),
        ("2001:db8::4", 429),
        ("2001:db8:0:1::1", 200),
        ("192.0.2.2", 200),
    ] {
        assert_eq!(ask(address, page).0.status, status, "{address}");
    }
    // That were eight.
    for _ in 0..3 {
        is_refused(ask("192.0.2.2", page), "global-requests", "Too many requests (global limit)", 8);
    }
    assert_eq!(gateway.metric_of("ringwall_limits_hit_total", "limit=\"address_requests\""), 21.0);
    assert_eq!(gateway.metric_of("ringwall_limits_hit_total", "limit=\"global_requests\""), 3.0);
    gateway.audited("rate_limit_exceeded", |line| line["rule"] == "global-requests");
    let refused = gateway.audited("rate_limit_exceeded", |line| line["rule"] == "ip-requests");
    assert_eq!(refused["ip"], gateway.pseudonym("192.0.2.1"), "{refused}");
}

#[test]
fn an_address_connects_to_the_tcp_door_as_often_as_it_may() {
    let server = server();
    let settings = far_but(&[("RATE_LIMIT_WINDOW_MS", "3000000"), ("RATE_LIMIT_MAX_REQUESTS", "3")]);
    let gateway = Gateway::start(&settings, server.address);
    let held: Vec<Peer> = (0..3).map(|_| Peer::tcp(&gateway)).collect();
    for _ in 0..2 {
        let mut refused = Peer::stranger(&gateway);
        assert_eq!(refused.client.line().as_deref(), Some("{\"error\":\"Rate limit exceeded\"}"));
        assert!(refused.client.is_closed());
    }
    drop(held);
    assert_eq!(Peer::stranger(&gateway).client.line().as_deref(), Some("{\"error\":\"Rate limit exceeded\"}"));
    assert_eq!(gateway.metric_of("ringwall_limits_hit_total", "limit=\"address_connection_rate\""), 3.0);
    gateway.audited("rate_limit_exceeded", |line| line["rule"] == "ip-connection-rate");
}

#[test]
fn before_it_is_known_a_client_is_its_address() {
    let server = server();
    let settings = far_but(&[("RATE_LIMIT_WINDOW_MS", "3000000"), ("RATE_LIMIT_MAX_REQUESTS", "4")]);
    let gateway = Gateway::start(&settings, server.address);
    let mut peer = Peer::stranger(&gateway);
    let guess = blackbox::authenticate("1", "wrong");
    assert_eq!(
        peer.ask("{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\"}")["error"]["message"],
        "Authentication required"
    );
    // A guess closes the connection; the next ones are further messages of the address.
    assert_eq!(peer.ask(&guess)["error"]["message"], "Authentication failed");
    for _ in 0..2 {
        assert_eq!(Peer::stranger(&gateway).ask(&guess)["error"]["message"], "Authentication failed");
    }
    let mut peer = Peer::stranger(&gateway);
    let told = peer.ask(&blackbox::authenticate("1", TOKEN));
    assert_eq!(told["error"]["message"], "Rate limit exceeded", "{told}");
    assert!(told["error"]["data"]["retryAfterMs"].as_u64().unwrap() > 2_000_000);
}

#[test]
fn a_websocket_client_that_goes_on_and_on_is_closed() {
    let server = server();
    let settings = far_but(&[("RATE_LIMIT_WINDOW_MS", "3000000"), ("RATE_LIMIT_MAX_REQUESTS", "5")]);
    let gateway = Gateway::start(&settings, server.address).ready();
    let mut peer = Peer::websocket(&gateway);
    let ping = blackbox::stateless(1, "prompts/list", "");
    let frames = peer.framed(&ping).repeat(200);
    peer.client.send(&frames);
    let (mut answered, mut refused) = (0, 0);
    loop {
        match peer.frame() {
            Frame::Text(text) if text.contains("\"result\"") => answered += 1,
            Frame::Text(text) if text.contains("Rate limit exceeded") => refused += 1,
            Frame::Close(code, reason) => {
                assert_eq!((code, reason.as_str()), (1008, "Rate limit exceeded"));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    // What is on its way when a connection is closed is given up.
    assert!(answered <= 5, "{answered}");
    assert_eq!(refused, 64);
    drop(peer);
    gateway.unharmed();
}

#[test]
fn an_address_that_keeps_breaking_them_is_blocked() {
    let server = server();
    let settings =
        [("RATE_LIMIT_WINDOW_MS", "3000000"), ("RATE_LIMIT_MAX_REQUESTS", "5"), ("AUTO_BLOCK_ENABLED", "true")];
    let gateway = Gateway::start(&far_but(&settings), server.address).ready();
    let mut peer = Peer::tcp(&gateway);
    let (mut answered, start) = (0, Instant::now());
    // Whoever goes on for some seconds, whatever it is told.
    for id in 0.. {
        assert!(start.elapsed() < PATIENCE, "nobody is blocked");
        let message = blackbox::stateless(id, "prompts/list", "");
        let is_sent = peer.client.try_send(&peer.framed(&message));
        match if is_sent { peer.try_hear() } else { None } {
            Some(text) if text.contains("\"result\"") => answered += 1,
            Some(text) => assert!(text.contains("Rate limit exceeded"), "{text}"),
            None => break,
        }
    }
    assert_eq!(answered, 5);
    blackbox::until("403", || gateway.get("/health").status == 403);
    assert_eq!(Peer::stranger(&gateway).client.line().as_deref(), Some("{\"error\":\"Forbidden\"}"));
}

#[test]
fn each_member_of_a_batch_is_a_message_and_a_call() {
    let server = server();
    let policy = upstream(&server) + &agent("bot", "limits = { per_minute = 2 }");
    let settings = [("RATE_LIMIT_WINDOW_MS", "3000000"), ("RATE_LIMIT_MAX_REQUESTS", "4")];
    let gateway = Gateway::with_policy(&far_but(&settings), &policy).ready();
    let call = |id: u32| {
        format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"echo\",\"arguments\":{{}}}}}}"
        )
    };
    let body = format!("[{}]", (1..=6).map(call).collect::<Vec<_>>().join(","));
    let bytes = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-03-26\r\nContent-Length: {}\r\n\r\n{body}",
        token_of("bot"),
        body.len()
    );
    let answers = gateway.client().ask(bytes.as_bytes()).json();
    let told = answers.as_array().unwrap().iter().map(|answer| {
        if is_done(answer) {
            "done"
        } else if answer["result"]["structuredContent"]["limitType"] == "per-minute" {
            "call"
        } else if answer["error"]["message"] == "Rate limit exceeded" {
            "message"
        } else {
            panic!("{answer}")
        }
    });
    assert_eq!(told.collect::<Vec<_>>(), ["done", "done", "call", "call", "message", "message"], "{answers}");
    let ids: Vec<_> = answers.as_array().unwrap().iter().map(|answer| answer["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
}

/// Asks the admin API.
fn admin(gateway: &Gateway, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let body = body.map_or_else(String::new, Value::to_string);
    let media = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ORCHESTRATOR}\r\n{media}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let response = Client::connect(gateway.admin).ask(request.as_bytes());
    (response.status, response.json())
}

/// What the admin API says is used of the minute, the hour and the day.
fn used(gateway: &Gateway, agent: &str) -> [u64; 3] {
    let (status, told) = admin(gateway, "GET", &format!("/admin/agents/{agent}/limits"), None);
    assert_eq!(status, 200, "{told}");
    [0, 1, 2].map(|nth| told["usage"][nth]["used"].as_u64().unwrap())
}

#[test]
fn what_is_refused_or_never_made_is_counted_nowhere() {
    let nobody = Nobody::new();
    let policy = format!(
        "[upstream.only]\nurl = \"http://{}/mcp\"\n\n{}{}",
        nobody.address,
        agent("bot", "limits = { per_minute = 5, same_number_per_day = 1 }\ndeny_tools = [\"delete\"]"),
        agent("full", "limits = { per_minute = 1 }"),
    );
    let gateway = Gateway::with_policy(&FAR, &policy);
    for door in DOORS.into_iter().filter(|door| door.is_stateless()) {
        let mut bot = Caller::new(&gateway, door, &token_of("bot"));
        for _ in 0..8 {
            let answer = call(&mut bot, "echo", "");
            let text = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{door:?}: {answer}"));
            assert!(text.ends_with("the call was not made"), "{door:?}: {answer}");
            assert_eq!(call(&mut bot, "delete", "")["error"]["message"], "Unknown tool", "{door:?}");
            let number = call(&mut bot, "comms_make_call", "\"to\":\"+15551234567\"");
            assert!(number["error"]["message"].as_str().unwrap().ends_with("not made"), "{door:?}: {number}");
            let foreign = call(&mut bot, "echo", "\"agentId\":\"other\"");
            assert_eq!(foreign["result"]["structuredContent"]["rule"], "agent-binding", "{door:?}: {foreign}");
        }
    }
    assert_eq!(used(&gateway, "bot"), [0, 0, 0]);
    assert_eq!(used(&gateway, "other"), [0, 0, 0]);
    gateway.unharmed();
}

#[test]
fn what_operators_say_holds_at_once_and_after_a_restart() {
    let server = server();
    let policy = upstream(&server) + &agent("bot", "limits = { per_hour = 900 }");
    let mut gateway = Gateway::with_policy(&FAR, &policy).ready();
    let path = "/admin/agents/bot/limits";
    for door in DOORS {
        let mut bot = Caller::new(&gateway, door, &token_of("bot"));
        assert!(is_done(&call(&mut bot, "echo", "")), "{door:?}");
        let [minute, hour, _] = used(&gateway, "bot");
        assert!(minute >= 1 && hour >= minute);
        let (status, told) = admin(&gateway, "PUT", path, Some(&json!({ "perMinute": 0 })));
        assert_eq!((status, &told["inForce"]["perMinute"], &told["inForce"]["perHour"]), (200, &json!(0), &json!(900)));
        let answer = call(&mut bot, "echo", "");
        let told = &answer["result"]["structuredContent"];
        assert_eq!((&told["limitType"], &told["max"]), (&json!("per-minute"), &json!(0)), "{door:?}: {answer}");
        assert_eq!(admin(&gateway, "DELETE", path, None).0, 200);
        assert!(is_done(&call(&mut bot, "echo", "")), "{door:?}: as it was before");
    }
    let hour = used(&gateway, "bot")[1];
    let limits = json!({ "perHour": hour + 2, "perMinute": 1_000_000 });
    let (status, told) = admin(&gateway, "PUT", path, Some(&limits));
    assert_eq!((status, &told["usage"][1]["left"]), (200, &json!(2)), "{told}");
    gateway.audited("config_reloaded", |line| line["agentId"] == "bot" && line["rule"] == "operator");

    let shown = gateway.command_with(&["limits", "bot", "--json"], &environment(&gateway));
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap_or_else(|_| panic!("{shown:?}"));
    assert_eq!(shown["agents"][0]["usage"][1]["source"], "operator", "{shown}");
    let shown = gateway.command_with(&["limits"], &environment(&gateway));
    let table = String::from_utf8(shown.stdout.clone()).unwrap();
    assert!(shown.status.success(), "{shown:?}");
    let line = table.lines().find(|line| line.starts_with("bot") && line.contains("per-hour")).expect(&table);
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let expected = [hour.to_string(), "2".to_owned(), (hour + 2).to_string()];
    assert_eq!(words[2..5], expected, "{table}");
    assert!(table.contains("global-requests"), "{table}");

    gateway.signal(Signal::TERM);
    assert!(gateway.exit().success());
    let gateway = gateway.again(&FAR).ready();
    let (_, told) = admin(&gateway, "GET", path, None);
    assert_eq!(told["given"]["perHour"], json!(hour + 2), "{told}");
}

fn environment(gateway: &Gateway) -> Vec<(String, String)> {
    let port = gateway.admin.port().to_string();
    vec![("ADMIN_PORT".into(), port), ("ORCHESTRATOR_SECURITY_TOKEN".into(), ORCHESTRATOR.into())]
}

#[test]
fn a_refused_call_can_be_an_error() {
    let server = server();
    let policy = upstream(&server) + &agent("bot", "limits = { per_minute = 0 }");
    let gateway = Gateway::with_policy(&far_but(&[("DENIAL_STYLE", "jsonrpc-error")]), &policy).ready();
    for door in DOORS {
        let mut bot = Caller::new(&gateway, door, &token_of("bot"));
        let answer = call(&mut bot, "echo", "");
        let error = &answer["error"];
        let text = "Rate limit exceeded: per-minute (0/0). Resets in up to 60 seconds.";
        assert_eq!((&error["code"], &error["message"]), (&json!(-32000), &json!(text)), "{door:?}: {answer}");
        assert_eq!((&error["data"]["limitType"], &error["data"]["max"]), (&json!("per-minute"), &json!(0)), "{door:?}");
        assert!(error["data"]["retryAfterMs"].is_u64(), "{door:?}: {answer}");
    }
}

#[test]
fn who_holds_a_door_s_token_speaks_for_the_agent_that_it_names() {
    let server = server();
    let policy = upstream(&server) + &agent("bot", "limits = { per_minute = 1 }");
    let settings = far_but(&[("DEFAULT_MAX_ACTIONS_PER_MINUTE", "2")]);
    let gateway = Gateway::with_policy(&settings, &policy).ready();
    let mut service = Caller::new(&gateway, Door::HttpStateless, TOKEN);
    let mut asked = |arguments: &str| is_done(&call(&mut service, "echo", arguments));
    assert_eq!([(); 3].map(|()| asked("")), [true, true, false], "the service's own");
    assert_eq!([(); 3].map(|()| asked("\"agentId\":\"other\"")), [true, true, false]);
    assert_eq!([(); 2].map(|()| asked("\"agentId\":\"bot\"")), [true, false], "by that agent's limits");
    let mut bot = Caller::new(&gateway, Door::TcpStateless, &token_of("bot"));
    assert!(!is_done(&call(&mut bot, "echo", "")), "it is the agent's own count");
}

#[test]
fn switched_off_nothing_is_limited() {
    let server = server();
    let policy = upstream(&server) + &agent("bot", "limits = { per_minute = 0, per_day = 0 }");
    let settings = far_but(&[
        ("RATE_LIMIT_ENABLED", "false"),
        ("HTTP_RATE_LIMIT_PER_IP", "1"),
        ("HTTP_RATE_LIMIT_GLOBAL", "1"),
        ("RATE_LIMIT_MAX_REQUESTS", "1"),
        ("RATE_LIMIT_BURST_REQUESTS", "1"),
    ]);
    let gateway = Gateway::with_policy(&settings, &policy).ready();
    for door in DOORS {
        let mut bot = Caller::new(&gateway, door, &token_of("bot"));
        for _ in 0..4 {
            assert!(is_done(&call(&mut bot, "echo", "")), "{door:?}");
        }
    }
    let (_, page) = admin(&gateway, "GET", "/admin/limits", None);
    assert_eq!(page["enabled"], false, "{page}");
}
