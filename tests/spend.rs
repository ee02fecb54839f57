//! Promise: a call that costs money leaves only once its price is reserved on disk and fits the caps, on every door, whatever the upstream speaks; what
//! was spent survives `kill -9`, is counted once, and is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test waits for other processes")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;
#[path = "support/socket_server.rs"]
mod socket_server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use blackbox::{
    Caller, Client, Conversation, DOORS, Door, Gateway, Next, Received, TOKEN, Upstream, answer, result, until,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use socket_server::{Kind, SocketServer};

/// A refusal says when the next call passes, true to this.
const TRUE_TO_MS: u64 = 100;
const OPERATOR: &str = "orchestrator-token-of-32-characters";
const SETTINGS: &[(&str, &str)] =
    &[("WORKERS", "2"), ("ORCHESTRATOR_SECURITY_TOKEN", OPERATOR), ("DEFAULT_MAX_SPEND_PER_DAY", "1")];

/// The token of one of the agents `bot-0`, `bot-1`, …
fn token(n: usize) -> String {
    format!("token-of-the-agent-number-{n}-0123456789abcdef")
}

fn agents(count: usize) -> String {
    let agent = |n| {
        let hash: String = Sha256::digest(token(n).as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[agent.bot-{n}]\ntoken_sha256 = \"{hash}\"\n")
    };
    (0..count).map(agent).collect()
}

/// In front of these upstreams, with so many agents.
fn gateway(upstreams: &str, count: usize, tools: &str) -> Gateway {
    Gateway::with_policy(SETTINGS, &format!("{upstreams}{}{tools}", agents(count))).ready()
}

/// The rows of `/admin/billing`.
fn billing(gateway: &Gateway, query: &str) -> Vec<Value> {
    let page = ask_admin(gateway, &format!("/admin/billing?{query}"));
    serde_json::from_str::<Value>(&page).unwrap_or_else(|_| panic!("{page}"))["rows"].as_array().unwrap().clone()
}

fn ask_admin(gateway: &Gateway, path: &str) -> String {
    tell_admin(gateway, "GET", path, "")
}

fn tell_admin(gateway: &Gateway, method: &str, path: &str, body: &str) -> String {
    let mut client = Client::connect(gateway.admin);
    let media = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATOR}\r\nConnection: close\r\n\
         {media}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let response = client.ask(request.as_bytes());
    assert_eq!(response.status, 200, "{response:?}");
    response.text()
}

/// The one row of an agent, once nothing of it is on its way.
fn row_of(gateway: &Gateway, agent: &str) -> Value {
    let mut row = Value::Null;
    until("the ledger to be settled", || {
        row = billing(gateway, &format!("agent={agent}")).pop().unwrap_or_default();
        row["reservedCalls"] == json!(0) || row.is_null()
    });
    row
}

/// A server over HTTP that does to a call what its argument `text` says.
fn server(events: bool) -> Upstream {
    Upstream::start(move |request, conversation| serve(events, request, conversation))
}

fn serve(events: bool, request: &Received, conversation: &mut Conversation) -> Next {
    let id = request.id();
    if request.method() != "POST" {
        conversation.send(b"HTTP/1.1 405 X\r\nContent-Length: 0\r\n\r\n");
        return Next::Keep;
    }
    let message: Value = serde_json::from_slice(&request.body).unwrap();
    let content = "\"content\":[{\"type\":\"text\",\"text\":\"hello\"}]";
    let body = match (message["method"].as_str().unwrap(), message["params"]["arguments"]["text"].as_str()) {
        ("initialize", _) => result(
            &id,
            "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"http\",\"version\":\"1\"}}",
        ),
        ("tools/list", _) => result(&id, "{\"tools\":[{\"name\":\"echo\"}]}"),
        ("tools/call", Some("refuse")) => {
            format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":-32602,\"message\":\"no\"}}}}")
        }
        ("tools/call", Some("error")) => {
            format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":-32000,\"message\":\"no\"}}}}")
        }
        ("tools/call", Some("fail")) => result(&id, &format!("{{{content},\"isError\":true}}")),
        ("tools/call", Some("figure")) => {
            result(&id, &format!("{{{content},\"structuredContent\":{{\"price\":\"-0.1234567\"}}}}"))
        }
        ("tools/call", Some("forbid")) => {
            let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":-32000,\"message\":\"no\"}}}}");
            conversation.send(answer(403, "application/json", &body).as_bytes());
            return Next::Keep;
        }
        ("tools/call", Some("break")) => return Next::Close,
        ("tools/call", _) => result(&id, &format!("{{{content}}}")),
        _ => return conversation.accepted(),
    };
    conversation.json_or_event(events, &body)
}

fn over_http(server: &Upstream) -> String {
    format!("[upstream.only]\nurl = \"http://{}/mcp\"\n", server.address)
}

fn calls(server: &Upstream) -> usize {
    server.log(|log| log.requests.iter().filter(|request| request.rpc_method() == "tools/call").count())
}

/// A cap of a dollar, as a refusal tells it.
struct Cap {
    limit_type: &'static str,
    reset: &'static str,
    /// How long from now until it begins anew.
    left_ms: fn() -> u64,
}

const DAILY: Cap = Cap {
    limit_type: "daily-spend",
    reset: "at midnight UTC",
    left_ms: || left_until(|now| now.date().tomorrow().unwrap()),
};

const MONTHLY: Cap = Cap {
    limit_type: "monthly-spend",
    reset: "at the start of next month",
    left_ms: || left_until(|now| now.date().last_of_month().tomorrow().unwrap()),
};

fn left_until(day: impl Fn(&jiff::Zoned) -> jiff::civil::Date) -> u64 {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let then = day(&now).to_zoned(jiff::tz::TimeZone::UTC).unwrap();
    u64::try_from(then.timestamp().as_millisecond() - now.timestamp().as_millisecond()).unwrap()
}

/// Three calls of 0.30 fit a dollar, on every door; `seen` is how many the upstream has got.
fn three_fit(gateway: &Gateway, cap: &Cap, tool: &str, arguments: &str, seen: Option<&dyn Fn() -> usize>) {
    for (n, door) in DOORS.into_iter().enumerate() {
        let before = seen.map_or(0, |seen| seen());
        let mut bot = Caller::new(gateway, door, &token(n));
        for _ in 0..3 {
            let answer = bot.call_with(tool, arguments);
            assert!(answer["result"]["content"].is_array(), "{door:?}: {answer}");
        }
        for _ in 0..2 {
            let most = (cap.left_ms)();
            let answer = bot.call_with(tool, arguments);
            let least = (cap.left_ms)();
            assert!(least <= most, "a period has ended while this was tested");
            let text = format!("Rate limit exceeded: {} (0.90/1.00). Resets {}.", cap.limit_type, cap.reset);
            let told = &answer["result"]["structuredContent"];
            assert_eq!(
                (&answer["result"]["isError"], &told["error"]),
                (&json!(true), &json!(text)),
                "{door:?}: {answer}"
            );
            let limit = ["limitType", "current", "max", "resetDescription"].map(|name| told[name].clone());
            assert_eq!(limit, [json!(cap.limit_type), json!(0.9), json!(1.0), json!(cap.reset)], "{door:?}");
            let told_ms = told["retryAfterMs"].as_u64().unwrap();
            let is_true = (least.saturating_sub(TRUE_TO_MS)..=most + TRUE_TO_MS).contains(&told_ms);
            assert!(is_true, "{door:?}: {told_ms} is not within {least}..={most}");
        }
        assert_eq!(seen.map_or(3, |seen| seen() - before), 3, "{door:?}");
        let row = row_of(gateway, &format!("bot-{n}"));
        assert_eq!((&row["calls"], &row["spentUsd"]), (&json!(3), &json!("0.90")), "{door:?}: {row}");
        assert_eq!(row["unsettledCalls"], 0, "{door:?}: {row}");
    }
}

#[test]
fn what_fits_a_cap_is_called_over_http_and_no_more() {
    for events in [false, true] {
        let server = server(events);
        let gateway = gateway(&over_http(&server), DOORS.len(), "[tool.echo]\nprice = { fixed_usd = \"0.30\" }\n");
        three_fit(&gateway, &DAILY, "echo", "{}", Some(&|| calls(&server)));
        // Who is no agent has an account as well; and so has the next, whose cap is its own.
        let mut door = Caller::new(&gateway, Door::Http, TOKEN);
        assert!(door.call_with("echo", "{}")["result"]["structuredContent"].is_null());
        until("the door's row", || {
            billing(&gateway, "agent=(door)&by=tool")
                .iter()
                .any(|row| row["tool"] == "echo" && row["spentUsd"] == "0.30")
        });
        // The case of letters is no way around a price.
        let mut bot = Caller::new(&gateway, Door::HttpStateless, &token(0));
        let answer = bot.call_with("ECHO", "{}");
        assert_eq!(answer["result"]["structuredContent"]["limitType"], "daily-spend", "{answer}");
        let recorded = gateway.audited("spend_recorded", |line| line["agentId"] == "bot-3");
        assert_eq!(recorded["details"], "0.30 USD of 0.30 reserved: the price");
        let refused = gateway.audited("rate_limit_exceeded", |line| line["agentId"] == "bot-3");
        assert_eq!((&refused["rule"], &refused["tool"]), (&json!("daily-spend"), &json!("echo")));
        assert_eq!(gateway.metric_of("ringwall_spend_reservations_total", "became=\"settled\""), 22.0);
        assert_eq!(gateway.metric("ringwall_spend_open_reservations"), 0.0);
        assert!(gateway.metric_of("ringwall_refusals_total", "daily-spend") >= 15.0);
        // One alert an agent, at 0.90 of a dollar, however many calls were refused then.
        until("the alerts", || ask_admin(&gateway, "/admin/alerts").matches("spend-cap-near").count() >= DOORS.len());
        let alerts = ask_admin(&gateway, "/admin/alerts");
        assert_eq!(alerts.matches("spend-cap-near").count(), DOORS.len(), "{alerts}");
        assert!(
            alerts.contains("0.90 USD of 1.00 are spent or reserved today") && alerts.contains("MEDIUM"),
            "{alerts}"
        );
        gateway.unharmed();
    }
}

#[test]
fn a_month_has_a_cap_as_well() {
    let server = server(false);
    let policy =
        format!("{}{}[tool.echo]\nprice = {{ fixed_usd = \"0.30\" }}\n", over_http(&server), agents(DOORS.len()));
    let settings = [
        ("WORKERS", "2"),
        ("ORCHESTRATOR_SECURITY_TOKEN", OPERATOR),
        ("DEFAULT_MAX_SPEND_PER_DAY", "5"),
        ("DEFAULT_MAX_SPEND_PER_MONTH", "1"),
    ];
    let gateway = Gateway::with_policy(&settings, &policy).ready();
    three_fit(&gateway, &MONTHLY, "echo", "{}", Some(&|| calls(&server)));
    gateway.unharmed();
}

#[test]
fn servers_on_sockets_and_on_standard_input_are_no_exception() {
    let server = SocketServer::start(Kind::Tcp);
    let socket = gateway(&server.policy("only"), DOORS.len(), "[tool.echo]\nprice = { fixed_usd = \"0.30\" }\n");
    three_fit(&socket, &DAILY, "echo", "{\"text\":\"hello\"}", Some(&|| server.calls("echo")));
    socket.unharmed();
    let program = env!("CARGO_BIN_EXE_ringwall");
    let upstream = format!("[upstream.only]\ncommand = [\"{program}\", \"sample-server\"]\n");
    // A text of two segments.
    let tools = "[tool.comms_send_message]\ntext = \"body\"\nprice = { per_segment_usd = \"0.15\" }\n";
    let child = gateway(&upstream, DOORS.len(), tools);
    let arguments = format!("{{\"to\":\"+15550100\",\"body\":\"{}\"}}", "x".repeat(161));
    // Its processes are several, and each remembers its own calls.
    three_fit(&child, &DAILY, "comms_send_message", &arguments, None);
    child.unharmed();
}

#[test]
fn what_became_of_a_call_decides_what_it_costs() {
    // What is told; what is spent of 0.20, and how much of that nobody is sure of.
    let table = [
        ("hello", "0.20", 0),
        ("figure", "0.123457", 0),
        ("fail", "0.20", 0),
        ("refuse", "", 0),
        ("forbid", "", 0),
        ("error", "0.20", 1),
        ("break", "0.20", 1),
    ];
    let tools = "[tool.echo]\nprice = { fixed_usd = \"0.20\" }\nsettle = \"/structuredContent/price\"\n";
    for events in [false, true] {
        let server = server(events);
        let gateway = gateway(&over_http(&server), table.len() * DOORS.len(), tools);
        for (case, (said, spent, unsettled)) in table.into_iter().enumerate() {
            for (n, door) in DOORS.into_iter().enumerate().map(|(n, door)| (case * DOORS.len() + n, door)) {
                let mut bot = Caller::new(&gateway, door, &token(n));
                let answer = bot.call_with("echo", &format!("{{\"text\":\"{said}\"}}"));
                assert!(answer["id"].is_u64(), "{said} {door:?}: {answer}");
                let row = row_of(&gateway, &format!("bot-{n}"));
                if spent.is_empty() {
                    assert_eq!(row, Value::Null, "{said} {door:?}");
                } else {
                    let told = (&row["calls"], &row["spentUsd"], &row["unsettledCalls"]);
                    assert_eq!(told, (&json!(1), &json!(spent), &json!(unsettled)), "{said} {door:?}: {row}");
                }
            }
        }
        gateway.unharmed();
    }
}

#[test]
fn a_batch_is_charged_member_by_member_and_what_is_unreachable_costs_nothing() {
    let server = server(false);
    let tools = "[tool.echo]\nprice = { fixed_usd = \"0.40\" }\n[tool.free]\nkind = \"other\"\n";
    let gateway = gateway(&over_http(&server), DOORS.len(), tools);
    let call = |id: u32, tool: &str| {
        format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"{tool}\",\"arguments\":{{\"text\":\"hi\"}}}}}}"
        )
    };
    let body = format!("[{},{},{},{}]", call(1, "echo"), call(2, "echo"), call(3, "echo"), call(4, "free"));
    let bytes = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-03-26\r\nContent-Length: {}\r\n\r\n{body}",
        token(0),
        body.len()
    );
    let answers = gateway.client().ask(bytes.as_bytes()).json();
    assert!(answers[1]["result"]["structuredContent"].is_null(), "{answers}");
    assert_eq!(answers[2]["result"]["structuredContent"]["limitType"], "daily-spend", "{answers}");
    assert!(answers[3]["result"]["structuredContent"].is_null(), "{answers}");
    assert_eq!(calls(&server), 3);
    assert_eq!(row_of(&gateway, "bot-0")["spentUsd"], "0.80");
    let nobody = blackbox::Nobody::new();
    let policy = format!("{}[upstream.gone]\nurl = \"http://{}/mcp\"\n", over_http(&server), nobody.address);
    drop(gateway);
    let gateway = self::gateway(&policy, DOORS.len(), "[tool.\"*\"]\nprice = { fixed_usd = \"0.40\" }\n");
    for (n, door) in DOORS.into_iter().enumerate().filter(|(_, door)| door.is_stateless()) {
        let answer = Caller::new(&gateway, door, &token(n)).call_with("gone__echo", "{}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("the call was not made"), "{door:?}: {answer}");
        assert_eq!(row_of(&gateway, &format!("bot-{n}")), Value::Null, "{door:?}");
    }
}

/// Files may not grow: to the gateway a full disk.
#[test]
fn what_cannot_be_written_down_is_not_called() {
    let server = server(false);
    let tools = "[tool.echo]\nprice = { fixed_usd = \"0.10\" }\n";
    let gateway = gateway(&over_http(&server), DOORS.len(), tools);
    gateway.limit_files(Some(0));
    for (n, door) in DOORS.into_iter().enumerate() {
        let before = calls(&server);
        let mut bot = Caller::new(&gateway, door, &token(n));
        let answer = bot.call_with("echo", "{}");
        let error = json!({"code": -32603, "message": "Service unavailable - spend cannot be recorded"});
        assert_eq!(answer["error"], error, "{door:?}: {answer}");
        assert_eq!(calls(&server), before, "{door:?}");
        assert!(bot.call_with("free", "{}")["result"].is_object(), "{door:?}: what costs nothing goes on");
    }
    gateway.limit_files(None);
    for (n, door) in DOORS.into_iter().enumerate() {
        let mut bot = Caller::new(&gateway, door, &token(n));
        until("calls again", || bot.call_with("echo", "{}")["result"].is_object());
        assert_eq!(
            row_of(&gateway, &format!("bot-{n}"))["spentUsd"],
            "0.10",
            "{door:?}: what was refused cost nothing"
        );
    }
    assert!(gateway.metric("ringwall_spend_ledger_errors_total") >= 1.0);
}

/// Of the cap that an operator has given, also after a restart: what was near the policy's is told as nothing.
#[test]
fn people_are_told_of_the_cap_that_is_in_force() {
    let server = server(false);
    let tools = "[tool.echo]\nprice = { fixed_usd = \"0.30\" }\n";
    let mut gateway = gateway(&over_http(&server), 2, tools);
    tell_admin(&gateway, "PUT", "/admin/agents/bot-0/limits", r#"{"spendPerDayUsd":"2.00","perMinute":100}"#);
    let spend = |gateway: &Gateway, n: usize, times: usize| {
        let mut bot = Caller::new(gateway, Door::HttpStateless, &token(n));
        for _ in 0..times {
            let answer = bot.call_with("echo", "{}");
            assert!(answer["result"]["structuredContent"].is_null(), "{answer}");
        }
        row_of(gateway, &format!("bot-{n}"));
    };
    let told = |gateway: &Gateway, text: &str| ask_admin(gateway, "/admin/alerts").contains(text);
    spend(&gateway, 0, 3);
    // Alerts are told in the order in which they arise.
    spend(&gateway, 1, 3);
    until("an alert", || told(&gateway, "0.90 USD of 1.00 are spent"));
    let alerts = ask_admin(&gateway, "/admin/alerts");
    assert_eq!(alerts.matches("spend-cap-near").count(), 1, "{alerts}");
    gateway.signal(Signal::TERM);
    assert!(gateway.exit().success());
    gateway = gateway.again(SETTINGS).ready();
    spend(&gateway, 0, 3);
    until("the alert", || told(&gateway, "1.80 USD of 2.00 are spent"));
}

/// The server counts what it sees; the ledger after `kill -9` must agree.
#[test]
fn a_kill_loses_no_spend_counts_none_twice_and_exceeds_no_cap() {
    const CLIENTS: usize = 4;
    // A hundred calls.
    const CAP: u64 = 1_000_000;
    const PRICE: u64 = 10_000;
    let server = server(false);
    let tools = "[tool.echo]\nprice = { fixed_usd = \"0.01\" }\n";
    let mut gateway = Gateway::with_policy(SETTINGS, &format!("{}{}{tools}", over_http(&server), agents(1))).ready();
    let (mut spent, mut unsettled) = (0, 0);
    for round in 1..=4usize {
        let (answered, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let stopped = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (answered, refused, stopped) = (answered.clone(), refused.clone(), stopped.clone());
                let address = gateway.bridge;
                std::thread::spawn(move || call_until_it_ends(address, &answered, &refused, &stopped))
            })
            .collect();
        // Somewhere on the way, or at its end.
        let before = spent / PRICE;
        let enough = before + 7 * round as u64;
        until("calls", || calls(&server) as u64 >= enough || refused.load(Ordering::Relaxed) > 0);
        gateway.signal(Signal::KILL);
        gateway.exit();
        stopped.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
        gateway = gateway.again(SETTINGS).ready();
        let row = row_of(&gateway, "bot-0");
        let (ledger, seen) = (microusd(&row["spentUsd"]), calls(&server) as u64 * PRICE);
        let all_open = microusd(&row["unsettledUsd"]);
        let open = all_open - unsettled;
        assert!(ledger >= seen, "round {round}: a call that was made is not in the ledger: {row}, {seen}");
        assert!(ledger - seen <= all_open, "round {round}: more than was open is charged for nothing: {row}, {seen}");
        assert!(open <= CLIENTS as u64 * PRICE, "round {round}: {row}");
        assert!(ledger <= CAP, "round {round}: {row}");
        assert!(ledger - spent >= answered.load(Ordering::Relaxed) * PRICE, "round {round}: {row}");
        assert_eq!(row["calls"].as_u64().unwrap() * PRICE, ledger, "round {round}: {row}");
        (spent, unsettled) = (ledger, all_open);
    }
    // What is left can be spent to the last cent, and no more.
    let mut bot = Caller::new(&gateway, Door::HttpStateless, &token(0));
    let refusal = loop {
        let answer = bot.call_with("echo", "{}");
        if !answer["result"]["structuredContent"].is_null() {
            break answer;
        }
    };
    assert_eq!(refusal["result"]["structuredContent"]["current"], json!(1.0), "{refusal}");
    assert_eq!(row_of(&gateway, "bot-0")["spentUsd"], "1.00");
    assert!(calls(&server) as u64 * PRICE <= CAP);
}

fn call_until_it_ends(address: std::net::SocketAddr, answered: &AtomicU64, refused: &AtomicU64, stopped: &AtomicBool) {
    let body = blackbox::stateless(1, "tools/call", "\"name\":\"echo\",\"arguments\":{\"text\":\"hi\"}");
    let request = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: echo\r\n\
         Content-Length: {}\r\n\r\n{body}",
        token(0),
        body.len()
    );
    let mut client = Client::connect(address);
    while !stopped.load(Ordering::Relaxed) {
        if !client.try_send(request.as_bytes()) {
            return;
        }
        let Some(response) = client.try_response() else { return };
        let result = &response.json()["result"];
        let counter = if result["structuredContent"]["limitType"] == "daily-spend" { refused } else { answered };
        assert!(result["content"].is_array(), "{response:?}");
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn microusd(usd: &Value) -> u64 {
    let (dollars, micros) = usd.as_str().unwrap().split_once('.').unwrap();
    dollars.parse::<u64>().unwrap() * 1_000_000 + format!("{micros:0<6}").parse::<u64>().unwrap()
}

#[test]
fn billing_is_told_by_api_and_command() {
    let server = server(false);
    let tools = "[tool.echo]\nprice = { fixed_usd = \"0.25\" }\nlimits = { spend_per_day_usd = \"0.50\" }\n[tool.other]\nprice = { fixed_usd = \"0.10\" }\n";
    let gateway = gateway(&over_http(&server), DOORS.len(), tools);
    for n in 0..2 {
        let mut bot = Caller::new(&gateway, Door::HttpStateless, &token(n));
        for _ in 0..2 {
            assert!(bot.call_with("echo", "{}")["result"]["structuredContent"].is_null());
        }
        let answer = bot.call_with("echo", "{}");
        let text = "Rate limit exceeded: daily-spend (0.50/0.50). Resets at midnight UTC.";
        assert_eq!(answer["result"]["structuredContent"]["error"], text, "the tool's own cap");
        assert!(bot.call_with("other", "{}")["result"]["structuredContent"].is_null(), "others have room");
        row_of(&gateway, &format!("bot-{n}"));
    }
    let rows = billing(&gateway, "by=month,agent,tool");
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row["agent"].as_str().unwrap(), row["tool"].as_str().unwrap(), row["spentUsd"].as_str().unwrap()))
        .collect();
    let expected =
        [("bot-0", "echo", "0.50"), ("bot-0", "other", "0.10"), ("bot-1", "echo", "0.50"), ("bot-1", "other", "0.10")];
    assert_eq!(told, expected);
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let page: Value =
            serde_json::from_str(&ask_admin(&gateway, &format!("/admin/billing?by=tool,agent&limit=1{cursor}")))
                .unwrap();
        pages.extend(page["rows"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(pages.len(), 4);
    let csv = ask_admin(&gateway, "/admin/billing?by=tool&format=csv");
    assert!(csv.starts_with("day,month,agent,upstream,tool,calls,spent_usd,"), "{csv}");
    assert!(csv.contains(",,,only,echo,4,1.00,0,0.00,0,0.00"), "{csv}");
    let command = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ringwall"));
        command.args(arguments).current_dir(gateway.folder()).env_clear();
        command.env("ADMIN_PORT", gateway.admin.port().to_string()).env("ORCHESTRATOR_SECURITY_TOKEN", OPERATOR);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let table = command(&["billing", "--by", "tool"]);
    assert!(table.contains("only      echo       4  1.00"), "{table}");
    assert_eq!(command(&["billing", "--by", "tool", "--csv"]), csv);
    let document: Value = serde_json::from_str(&command(&["billing", "--json", "--agent", "bot-1"])).unwrap();
    assert_eq!(document["rows"][0]["spentUsd"], "0.60");
}
