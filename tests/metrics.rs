//! Promise: every metric that `/metrics` declares moves when what it tells about happens.
//!
//! The families are read from the exposition of a running gateway: one that no step here provokes fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "the threads of a test are its own")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use blackbox::{
    Client, Conversation, Gateway, Next, PATIENCE, Peer, Received, TOKEN, Upstream, answer, modern, stateless,
};
use rustix::process::Signal;

const OPERATOR: &str = "orchestrator-token-of-32-characters";

/// What says what the process is, and does not move while it lives.
const FACTS: [&str; 4] = ["ringwall_build", "ringwall_workers", "process_start_time_seconds", "process_max_fds"];

/// What cannot be made to happen from outside: a call is sent again when its connection closes in the microseconds between the look at it and
/// the send on it, and the system has not acknowledged a byte.
const CHANCE: [&str; 1] = ["ringwall_upstream_retries"];

/// The anomaly detector looks once a minute.
const A_ROUND: Duration = Duration::from_secs(65);

/// A stdio server whose tools misbehave as they are called. Its `hold` waits for a file.
const SERVER: &str = r#"
while read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9][0-9]*\).*/\1/p')
  case "$line" in
    *'"name":"crash"'*) exit 3 ;;
    *'"name":"stray"'*) echo 'no message'; echo '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}' ;;
    *'"name":"hold"'*) while [ ! -e released ]; do sleep 0.02; done ;;
  esac
  [ -n "$id" ] && printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[]}}\n' "$id"
done
"#;

/// The exposition, by family.
type Scrape = BTreeMap<String, BTreeMap<String, f64>>;

struct Stage {
    gateway: Gateway,
    crm: Upstream,
    hooks: Upstream,
    provoked: BTreeSet<&'static str>,
}

fn scrape(gateway: &Gateway) -> Scrape {
    let mut client = Client::connect(gateway.admin);
    client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let text = client.response().text();
    let mut families = Scrape::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            current = typed.split(' ').next().unwrap().to_owned();
            families.entry(current.clone()).or_default();
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            families.get_mut(&current).unwrap().insert(series.to_owned(), value.parse().unwrap());
        }
    }
    families
}

impl Stage {
    fn start() -> Self {
        let crm = Upstream::start(crm);
        let hooks = Upstream::start(hooks);
        let policy = format!(
            "[upstream.crm]\nurl = \"http://{}/mcp\"\nmax_in_flight = 4\n\n\
             [upstream.shell]\ncommand = [\"/bin/sh\", \"-c\", '''{SERVER}''']\nmax_instances = 1\n\n\
             [results]\nmax_bytes = 65536\n\n[tool.\"pay*\"]\nprice = {{ fixed_usd = \"0.01\" }}\n",
            crm.address
        );
        let url = format!("http://{}/hook", hooks.address);
        let collector = format!("http://{}", hooks.address);
        let settings = [
            ("ORCHESTRATOR_SECURITY_TOKEN", OPERATOR),
            ("TRUSTED_PROXIES", "127.0.0.1"),
            ("TCP_MAX_CONNECTIONS", "2"),
            ("MAX_REQUEST_SIZE", "100000"),
            ("MAX_MESSAGE_SIZE", "50000"),
            // Everything is counted; the limits are out of reach.
            ("RATE_LIMIT_ENABLED", "true"),
            ("HTTP_RATE_LIMIT_PER_IP", "1000000"),
            ("HTTP_RATE_LIMIT_GLOBAL", "1000000"),
            ("RATE_LIMIT_MAX_REQUESTS", "1000000"),
            ("RATE_LIMIT_BURST_REQUESTS", "1000000"),
            ("DEFAULT_MAX_ACTIONS_PER_MINUTE", "1000000"),
            ("DEFAULT_MAX_ACTIONS_PER_HOUR", "1000000"),
            ("DEFAULT_MAX_ACTIONS_PER_DAY", "1000000"),
            ("ALERT_WEBHOOK_URL", url.as_str()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.as_str()),
            ("ALERT_WEBHOOK_SECRET", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"),
        ];
        let gateway = Gateway::with_policy(&settings, &policy);
        Self { gateway: gateway.ready(), crm, hooks, provoked: BTreeSet::new() }
    }

    /// Does something, and waits until each of these families has moved since.
    fn moves(&mut self, families: &[&'static str], act: impl FnOnce(&Self)) {
        self.moves_within(PATIENCE, families, act);
    }

    fn moves_within(&mut self, limit: Duration, families: &[&'static str], act: impl FnOnce(&Self)) {
        let before = scrape(&self.gateway);
        act(self);
        self.see_move(limit, families, &before);
    }

    fn see_move(&mut self, limit: Duration, families: &[&'static str], before: &Scrape) {
        let mut still: BTreeSet<&'static str> = families.iter().copied().collect();
        let start = Instant::now();
        while !still.is_empty() {
            let now = scrape(&self.gateway);
            still.retain(|family| {
                let (before, now) = (before.get(*family), now.get(*family));
                assert!(now.is_some(), "{family} is not declared");
                before == now
            });
            assert!(start.elapsed() < limit, "these did not move: {still:?}");
        }
        self.provoked.extend(families);
    }

    /// A call of 2026-07-28 on a connection of its own; the status of its answer.
    fn call(&self, tool: &str) -> u16 {
        self.gateway.client().ask(&a_call(tool)).status
    }
}

fn params(tool: &str) -> String {
    format!("\"name\":\"{tool}\",\"arguments\":{{}}")
}

fn a_call(tool: &str) -> Vec<u8> {
    modern(7, "tools/call", Some(tool), &params(tool))
}

fn crm(request: &Received, conversation: &mut Conversation) -> Next {
    match request.text() {
        text if text.contains("\"name\":\"break\"") => return Next::Close,
        // Longer than a result may be.
        text if text.contains("\"name\":\"long\"") => {
            let text = "x".repeat(70_000);
            let content = format!("{{\"content\":[{{\"type\":\"text\",\"text\":\"{text}\"}}]}}");
            return conversation.json(&blackbox::result(&request.id(), &content));
        }
        text if text.contains("\"name\":\"hold\"") => conversation.wait_for("released"),
        text if text.contains("\"name\":\"pay-late\"") => conversation.wait_for("paid"),
        _ => {}
    }
    conversation.echo(request)
}

/// As a collector takes everything but spans of one tool. As a webhook refuses the first try of everything; takes the second, but wants nothing of addresses.
fn hooks(request: &Received, conversation: &mut Conversation) -> Next {
    let status = match request.text() {
        text if request.head.starts_with("POST /v1/") => {
            if text.contains("unwanted") {
                400
            } else {
                200
            }
        }
        text if text.contains("failed-authentications") => 410,
        _ if conversation.first_of(&request.field("webhook-id").unwrap()) => 500,
        _ => 204,
    };
    conversation.send(answer(status, "text/plain", "").as_bytes());
    Next::Close
}

impl Conversation {
    /// Whether nobody has asked for this before.
    fn first_of(&self, what: &str) -> bool {
        let first = !self.has_noted(what);
        self.note(what);
        first
    }
}

#[test]
fn every_declared_metric_moves() {
    let mut stage = Stage::start();
    let declared: BTreeSet<String> = scrape(&stage.gateway).into_keys().collect();
    let facts = scrape(&stage.gateway);

    ordinary_calls(&mut stage);
    limits(&mut stage);
    shared_servers(&mut stage);
    a_trail_that_cannot_be_written(&mut stage);
    calls_that_cost(&mut stage);
    a_database_that_is_held(&mut stage);
    guessing(&mut stage);
    who_may_not_come_in(&mut stage);
    more_addresses_than_are_counted(&mut stage);
    an_upstream_that_goes(&mut stage);
    drain(&mut stage, &facts);

    let known = |family: &str| stage.provoked.contains(family) || FACTS.contains(&family) || CHANCE.contains(&family);
    let idle: Vec<_> = declared.iter().filter(|family| !known(family)).collect();
    assert!(idle.is_empty(), "nobody has shown that these move: {idle:?}");
    for listed in FACTS.iter().chain(&CHANCE).copied().chain(stage.provoked.iter().copied()) {
        assert!(declared.contains(listed), "{listed} is not declared any more");
    }
}

fn ordinary_calls(stage: &mut Stage) {
    let families = [
        "ringwall_calls",
        "ringwall_call_duration_seconds",
        "ringwall_guard_duration_seconds",
        "ringwall_upstream_duration_seconds",
        "ringwall_connections_accepted",
        "ringwall_connections_closed",
        "ringwall_received_bytes",
        "ringwall_sent_bytes",
        "ringwall_http_responses",
        "ringwall_upstream_connects",
        "ringwall_upstream_reuses",
        "ringwall_upstream_connections_idle",
        "ringwall_audit_events_written",
        "ringwall_audit_groups_written",
        "ringwall_otlp_spans_exported",
        "ringwall_otlp_queue_length",
        "ringwall_worker_calls",
        "ringwall_worker_connections_accepted",
        "ringwall_worker_received_bytes",
        "ringwall_worker_sent_bytes",
        "ringwall_thread_cpu_seconds",
        "process_cpu_seconds",
        "process_resident_memory_bytes",
    ];
    stage.moves(&families, |stage| {
        // Enough for each worker to measure one, and for connections to be used again.
        for _ in 0..200 {
            assert_eq!(stage.call("crm__echo"), 200);
        }
    });
    let calls = &scrape(&stage.gateway)["ringwall_calls"];
    let echo = "ringwall_calls_total{door=\"http\",upstream=\"crm\",tool=\"echo\",outcome=\"ok\"}";
    // The first call made it known, and was counted by then.
    assert_eq!(calls.get(echo), Some(&200.0), "{calls:?}");

    stage.gateway.alone();
    stage.moves(&["ringwall_connections_open", "process_open_fds"], |stage| std::mem::forget(stage.gateway.client()));
    stage.moves(&["ringwall_refusals", "ringwall_auth_failures"], |stage| {
        let request = String::from_utf8(a_call("crm__echo")).unwrap().replace(TOKEN, "wrong");
        assert_eq!(stage.gateway.client().ask(request.as_bytes()).status, 401);
    });
    stage.moves(&["ringwall_content_findings"], |stage| {
        let tool = "crm__comms_send_message";
        let params = format!("\"name\":\"{tool}\",\"arguments\":{{\"text\":\"we will kill you\"}}");
        assert_eq!(stage.gateway.client().ask(&modern(7, "tools/call", Some(tool), &params)).status, 200);
    });
    stage.moves(&["ringwall_inspection_findings"], |stage| {
        let attack = "\"name\":\"crm__echo\",\"arguments\":{\"note\":\"1 union select 2\"}";
        let request = modern(7, "tools/call", Some("crm__echo"), attack);
        assert_eq!(stage.gateway.client().ask(&request).status, 200);
    });
    stage.moves(&["ringwall_result_findings"], |stage| {
        let told = stage.gateway.client().ask(&a_call("crm__long"));
        assert_eq!(told.status, 200, "{}", told.text());
    });
    stage.moves(&["ringwall_otlp_spans_dropped", "ringwall_otlp_export_failures"], |stage| {
        assert_eq!(stage.call("crm__unwanted"), 200);
    });
    stage.moves(&["ringwall_upstream_errors"], |stage| assert_eq!(stage.call("crm__break"), 502));
}

fn limits(stage: &mut Stage) {
    let hit = |stage: &Stage, limit: &str| {
        scrape(&stage.gateway)["ringwall_limits_hit"][&format!("ringwall_limits_hit_total{{limit=\"{limit}\"}}")]
    };
    // The door has room for two.
    stage.moves(&["ringwall_limits_hit", "ringwall_connections_refused"], |stage| {
        let in_there = [Peer::tcp(&stage.gateway), Peer::tcp(&stage.gateway)];
        assert!(Peer::stranger(&stage.gateway).client.line().is_some());
        drop(in_there);
    });
    blackbox::until("the door's room", || stage.gateway.open_on("tcp") == 0);
    assert!(hit(stage, "door_connections") > 0.0);
    stage.moves(&["ringwall_limits_hit"], |stage| {
        let head = format!(
            "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nContent-Length: 100001\r\n\r\n"
        );
        assert_eq!(stage.gateway.client().ask(head.as_bytes()).status, 413);
    });
    assert!(hit(stage, "request_size") > 0.0);
    stage.moves(&["ringwall_limits_hit"], |stage| {
        let mut peer = Peer::tcp(&stage.gateway);
        peer.client.try_send(&[b'x'; 50_002]);
        assert!(peer.hear_text().contains("too large"));
    });
    assert!(hit(stage, "message_size") > 0.0);

    let before = scrape(&stage.gateway);
    let mut held: Vec<Client> = (0..4).map(|_| stage.gateway.client()).collect();
    held.iter_mut().for_each(|client| client.send(&a_call("crm__hold")));
    stage.crm.wait("four calls", |log| log.requests.iter().filter(|r| r.text().contains("\"hold\"")).count() == 4);
    let in_flight =
        ["ringwall_calls_in_flight", "ringwall_worker_calls_in_flight", "ringwall_upstream_calls_in_flight"];
    stage.see_move(PATIENCE, &in_flight, &before);
    assert_eq!(stage.call("crm__echo"), 503, "one more than the upstream may have");
    assert!(hit(stage, "upstream_in_flight") > 0.0);
    stage.crm.say("released");
    held.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
}

fn shared_servers(stage: &mut Stage) {
    stage.moves(&["ringwall_server_bad_lines", "ringwall_server_dropped_messages"], |stage| {
        assert_eq!(stage.call("shell__stray"), 200);
    });
    let before = scrape(&stage.gateway);
    let mut peer = Peer::tcp(&stage.gateway);
    peer.say(&stateless(1, "tools/call", &params("shell__hold")));
    stage.see_move(PATIENCE, &["ringwall_broker_calls_in_flight"], &before);
    std::fs::write(stage.gateway.folder().join("released"), "").unwrap();
    peer.hear();
    // Bursts, until the broker is seen with calls that it has not taken up.
    let start = Instant::now();
    loop {
        let burst: String = (0..500).map(|n| stateless(n, "tools/call", &params("shell__echo")) + "\n").collect();
        peer.client.send(burst.as_bytes());
        let queued = scrape(&stage.gateway)["ringwall_broker_queue_length"]["ringwall_broker_queue_length"];
        (0..500).for_each(|_| drop(peer.hear()));
        if queued > 0.0 {
            stage.provoked.insert("ringwall_broker_queue_length");
            break;
        }
        assert!(start.elapsed() < PATIENCE, "the broker's queue was never seen filled");
    }
    // Each crash is followed by a longer pause, in which none runs.
    let before = scrape(&stage.gateway);
    let start = Instant::now();
    while scrape(&stage.gateway)["ringwall_server_instances"] == before["ringwall_server_instances"] {
        assert_ne!(stage.call("shell__crash"), 200);
        assert!(start.elapsed() < PATIENCE, "a server was always there");
    }
    stage.provoked.insert("ringwall_server_instances");
    stage.see_move(PATIENCE, &["ringwall_server_crashes", "ringwall_server_starts"], &before);
}

/// The trail's folder is gone when the file is opened anew; later it is back.
fn a_trail_that_cannot_be_written(stage: &mut Stage) {
    let folder = stage.gateway.folder().join("ringwall-data/security");
    let aside = stage.gateway.folder().join("aside");
    let break_it = |stage: &Stage| {
        std::fs::rename(&folder, &aside).unwrap();
        std::fs::write(&folder, "in the way").unwrap();
        stage.gateway.signal(Signal::HUP);
        // Until the signal has been seen, lines go into the file that is open.
        blackbox::until("a write that fails", || {
            stage.call("crm__echo");
            stage.gateway.metric("ringwall_audit_healthy") < 0.5
        });
    };
    let mend_it = || {
        std::fs::remove_file(&folder).unwrap();
        std::fs::rename(&aside, &folder).unwrap();
    };
    let families = [
        "ringwall_audit_errors",
        "ringwall_audit_healthy",
        "ringwall_alerts",
        "ringwall_alert_webhook_failed_tries",
        "ringwall_alert_webhook_delivered",
        "ringwall_alert_webhook_queue_length",
    ];
    stage.moves(&families, break_it);
    stage.hooks.wait("both tries", |log| log.requests.iter().filter(|r| r.head.starts_with("POST /hook")).count() == 2);
    // More than the writer keeps, and then more than a queue keeps, of what leaves a line each.
    let before = scrape(&stage.gateway);
    flood_with_nonsense(&stage.gateway);
    let families =
        ["ringwall_audit_events_refused", "ringwall_audit_queue_length", "ringwall_worker_audit_queue_length"];
    stage.see_move(PATIENCE, &families, &before);
    stage.moves(&["ringwall_audit_healthy"], |_| mend_it());
    blackbox::until("health", || stage.gateway.metric("ringwall_audit_healthy") > 0.5);
    // The control thread looks each second: it must have seen it healthy before it can find it broken again.
    std::thread::sleep(Duration::from_millis(2500));
    stage.moves(&["ringwall_alerts_repeated"], break_it);
    mend_it();
    blackbox::until("health", || stage.gateway.metric("ringwall_audit_healthy") > 0.5);
}

/// Somebody else holds the database for longer than a write waits for it.
fn calls_that_cost(stage: &mut Stage) {
    stage.moves(&["ringwall_spend_reservations", "ringwall_spend_microusd"], |stage| {
        assert_eq!(stage.call("crm__pay"), 200);
    });
    std::thread::scope(|scope| {
        let (gateway, crm) = (&stage.gateway, &stage.crm);
        let late = scope.spawn(|| gateway.client().ask(&a_call("crm__pay-late")).status);
        blackbox::until("a reservation that is open", || gateway.metric("ringwall_spend_open_reservations") > 0.5);
        crm.say("paid");
        assert_eq!(late.join().unwrap(), 200);
    });
    stage.provoked.insert("ringwall_spend_open_reservations");
}

fn a_database_that_is_held(stage: &mut Stage) {
    let issue = |gateway: &Gateway| {
        let body = "{\"agent\":\"alpha\"}";
        let head = format!("POST /admin/tokens HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATOR}\r\n");
        let rest = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        Client::connect(gateway.admin).ask(format!("{head}{rest}").as_bytes()).status
    };
    stage.moves(&["ringwall_store_transactions", "ringwall_store_writes"], |stage| {
        assert_eq!(issue(&stage.gateway), 201);
    });
    let path = stage.gateway.folder().join("ringwall-data/ringwall.db");
    let other = rusqlite::Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let before = scrape(&stage.gateway);
    std::thread::scope(|scope| {
        let gateway = &stage.gateway;
        let refused = scope.spawn(move || issue(gateway));
        blackbox::until("a write that waits", || gateway.metric("ringwall_store_queue_length") > 0.5);
        assert_eq!(refused.join().unwrap(), 503);
    });
    assert_eq!(stage.call("crm__pay"), 503, "what cannot be written down is not spent");
    stage.provoked.insert("ringwall_store_queue_length");
    let families = ["ringwall_store_failures", "ringwall_store_healthy", "ringwall_spend_ledger_errors"];
    stage.see_move(PATIENCE, &families, &before);
    stage.moves(&["ringwall_store_healthy"], |_| other.execute_batch("ROLLBACK").unwrap());
}

/// Lines that are no messages over one connection, until its worker's audit queue is full.
fn flood_with_nonsense(gateway: &Gateway) {
    let mut peer = Peer::tcp(gateway);
    let mut reader = peer.client.stream.try_clone().unwrap();
    let answers = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    let lines = b"[]\n".repeat(1000);
    let start = Instant::now();
    while gateway.metric("ringwall_audit_events_refused_total") < 1.0 {
        assert!(start.elapsed() < PATIENCE, "the audit queue was never full");
        peer.client.send(&lines);
    }
    peer.client.stream.shutdown(std::net::Shutdown::Both).unwrap();
    let _ = answers.join();
}

/// One address guesses, and more addresses than can be watched fail once.
fn guessing(stage: &mut Stage) {
    let wrong = |from: std::net::Ipv4Addr| {
        format!(
            "GET /mcp HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {from}\r\nAuthorization: Bearer wrong\r\n\
                 Accept: text/event-stream\r\n\r\n"
        )
    };
    let fail = |gateway: &Gateway, froms: &mut dyn Iterator<Item = u32>| {
        let mut client = gateway.client();
        let requests: Vec<String> = froms.map(|from| wrong(from.into())).collect();
        for some in requests.chunks(50) {
            client.send(some.concat().as_bytes());
            some.iter().for_each(|_| assert_eq!(client.response().status, 401));
        }
    };
    let families = ["ringwall_anomaly_cases", "ringwall_alert_webhook_undelivered"];
    stage.moves_within(A_ROUND + PATIENCE, &families, |stage| {
        fail(&stage.gateway, &mut std::iter::repeat_n(0xc000_0207, 11));
    });
    // Last: an address that comes while the table is full is not watched.
    stage.moves(&["ringwall_anomaly_overflows"], |stage| {
        // 16,384 are watched.
        fail(&stage.gateway, &mut (0x0a00_0000..0x0a00_0000 + 17_000));
    });
}

/// An address that stands for nobody here is blocked; then somebody comes from it.
fn who_may_not_come_in(stage: &mut Stage) {
    let families = ["ringwall_blocks", "ringwall_blocks_made", "ringwall_blocked_attempts"];
    stage.moves(&families, |stage| {
        let body = r#"{"network":"203.0.113.0/24"}"#;
        let mut operator = Client::connect(stage.gateway.admin);
        let request = format!(
            "POST /admin/blocks HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATOR}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(operator.ask(request.as_bytes()).status, 201);
        let call = String::from_utf8(a_call("crm__echo")).unwrap();
        let from = call.replacen("\r\n", "\r\nX-Forwarded-For: 203.0.113.7\r\n", 1);
        assert_eq!(stage.gateway.client().ask(from.as_bytes()).status, 403);
    });
}

/// A table for 65,536 addresses: of so many some find no seat. Addresses that come one after the other in one minute, none of them twice.
fn more_addresses_than_are_counted(stage: &mut Stage) {
    stage.moves(&["ringwall_rate_table_evictions"], |stage| {
        let mut client = stage.gateway.client();
        for some in 0..1_000_u32 {
            let request = |n| {
                let from = std::net::Ipv4Addr::from(0x0b00_0000 + some * 100 + n);
                format!("GET /nowhere HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {from}\r\n\r\n")
            };
            client.send((0..100).map(request).collect::<String>().as_bytes());
            (0..100).for_each(|_| assert_eq!(client.response().status, 404));
            if some % 50 == 49 && stage.gateway.metric_of("ringwall_rate_table_evictions_total", "traffic") > 0.5 {
                break;
            }
        }
    });
}

fn an_upstream_that_goes(stage: &mut Stage) {
    let before = scrape(&stage.gateway);
    // Its listener goes with it.
    let Upstream { address, .. } = std::mem::replace(&mut stage.crm, Upstream::echo());
    blackbox::until("nobody to listen", || std::net::TcpStream::connect(address).is_err());
    stage.see_move(PATIENCE, &["ringwall_upstream_reachable"], &before);
}

/// A call keeps the process alive, so that its phase can be seen.
fn drain(stage: &mut Stage, facts: &Scrape) {
    std::fs::remove_file(stage.gateway.folder().join("released")).unwrap();
    let mut client = stage.gateway.client();
    client.send(&a_call("shell__hold"));
    blackbox::until("the call", || stage.gateway.metric("ringwall_broker_calls_in_flight") > 0.5);
    stage.moves(&["ringwall_phase"], |stage| stage.gateway.signal(Signal::TERM));
    let now = scrape(&stage.gateway);
    for fact in FACTS {
        assert_eq!(now[fact], facts[fact], "{fact}");
    }
    std::fs::write(stage.gateway.folder().join("released"), "").unwrap();
    assert_eq!(client.response().status, 200);
}
