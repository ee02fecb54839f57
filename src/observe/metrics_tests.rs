#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "a test writes a file")]

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::*;
use crate::state::blocks::{Block, BlockKind};
use crate::state::call_limit::CallLimit;
use crate::state::call_records::{CallRecord, CallRecords};
use crate::state::events::{Bell, Event, EventKind, clip};
use crate::state::lifecycle::{Phase, UpstreamState};
use crate::state::rates::{Rule, Span};

/// Two workers, an upstream over HTTP and one that a broker serves.
fn sources() -> MetricSources {
    let bell = Arc::new(Bell::default());
    let states = ["one", "a \"b\"\\\n"].map(|name| Arc::new(UpstreamState::new(name)));
    MetricSources {
        workers: (0..2).map(|_| Arc::new(WorkerMetrics::new(2))).collect(),
        tools: Arc::new(ToolNames::new(2)),
        rates: ["traffic", "actions"].map(|name| (name, Arc::new(RateTable::new(1, [7; 16])))),
        blocks: Arc::new(crate::state::blocks::none()),
        call_records: Some(Arc::new(CallRecords::new(1.0))),
        otlp: Arc::default(),
        store: Arc::default(),
        spend: Arc::default(),
        broker: Some(BrokerSource(Arc::new(|| BrokerCounts {
            queued: 1,
            in_flight: 2,
            servers: vec![ServerCounts { upstream: "shared".to_owned(), starts: 3, ..ServerCounts::default() }],
        }))),
        queues: vec![Arc::new(EventQueue::with_capacity(1, bell))],
        audit: Arc::new(AuditMetrics::default()),
        alerts: crate::control::alerts::metrics(),
        lifecycle: Arc::new(Lifecycle::new(2, states.to_vec())),
        started_at_ms: 1_700_000_000_500,
        version: "0.0.0",
        driver: "io_uring",
    }
}

/// Series and their values.
fn series(text: &str) -> BTreeMap<String, f64> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// Does everything once that any counter counts. That what counts is also called is shown by `tests/metrics.rs`.
fn move_everything(sources: &MetricSources) -> impl Drop + use<> {
    let row = sources.tools.find(1, "say \"hi\"\\ö", true).unwrap();
    for worker in &sources.workers {
        for door in Door::ALL {
            for outcome in Outcome::ALL {
                worker.call(row, *door, *outcome, 3_000_000);
            }
            let counts = worker.door(*door);
            counts.bytes_in.add(10);
            counts.bytes_out.add(20);
            counts.connections_accepted.inc();
            counts.connections_refused.inc();
            counts.connections_closed.inc();
            counts.auth_failures.inc();
        }
        for status in [101, 200, 301, 404, 503] {
            worker.response(status);
        }
        Limit::ALL.iter().for_each(|limit| worker.limit(*limit));
        worker.refusals.inc("xss");
        worker.content_findings.inc("content-threat");
        worker.findings.inc("sql-union");
        worker.result_findings.inc("result-size");
        worker.guard_duration.record(700);
        worker.upstream_duration.record(2_000_000);
        worker.upstream_connects.inc();
        worker.upstream_reuses.inc();
        worker.upstream_errors.inc();
        worker.upstream_retries.inc();
        worker.upstream_idle.iter().for_each(|idle| idle.store(5, Ordering::Relaxed));
    }
    for (n, kind) in (1..).zip(BlockKind::ALL) {
        let network = IpNet::from(std::net::IpAddr::from([10, 0, 0, n]));
        assert!(sources.blocks.block(Block::new(network, *kind, "".into(), 0, 9), 1));
    }
    sources.blocks.note_refused();
    for (_, table) in &sources.rates {
        let rule = Rule { limit: 1, span: Span::Day };
        (0..100_u8).for_each(|n| assert!(table.take(table.key(1, &[n]), rule, 1, 9).is_ok()));
        assert!(table.evictions() > 0);
    }
    sources.audit.written.add(5);
    sources.audit.groups.inc();
    sources.audit.errors.inc();
    let alerts = &sources.alerts;
    (0..alerts.kinds().count()).for_each(|kind| alerts.raised(kind));
    for counter in [&alerts.repeated, &alerts.delivered, &alerts.failed_tries, &alerts.undelivered, &alerts.overflowed]
    {
        counter.inc();
    }
    let StoreMetrics { transactions, writes, failures, waiting_writes, waiting_reads } = &*sources.store;
    transactions.inc();
    writes.inc();
    failures.inc();
    waiting_writes.enter();
    waiting_reads.enter();
    sources.lifecycle.set_store_healthy(false);
    let spend = &sources.spend;
    // One is still open.
    spend.reserved.add(4);
    for counter in [&spend.settled, &spend.unsettled, &spend.given_back, &spend.microusd, &spend.failures] {
        counter.inc();
    }
    sources.otlp.exported.inc();
    sources.otlp.failures.inc();
    let records = sources.call_records.as_ref().unwrap();
    records.drop_more(1);
    records.push(CallRecord {
        parent: None,
        door: Door::Http,
        upstream: None,
        method: "ping",
        tool: clip(""),
        outcome: Outcome::Ok,
        ended_at_ms: 0,
        duration_ns: 0,
    });
    alerts.set_waiting(6);
    alerts.set_cases(7);
    let queue = &sources.queues[0];
    queue.push(Event::new(EventKind::Alert, 0)).unwrap();
    queue.push(Event::new(EventKind::Alert, 0)).unwrap_err();
    sources.lifecycle.advance(Phase::Ready);
    sources.lifecycle.set_audit_healthy(false);
    sources.lifecycle.upstreams().iter().for_each(|upstream| assert!(upstream.set_reachable(true)));
    let permits: Vec<_> = Door::ALL.iter().map(|door| sources.lifecycle.doors().try_acquire(*door, 9)).collect();
    struct Held<T>(#[allow(dead_code)] T);
    impl<T> Drop for Held<T> {
        fn drop(&mut self) {}
    }
    let calls = sources.lifecycle.upstreams().iter().map(|one| CallLimit::try_take(one.calls.clone()).unwrap());
    let calls: Vec<_> = calls.collect();
    Held((permits, calls, sources.lifecycle.begin_call(0), sources.lifecycle.begin_call(1)))
}

#[test]
fn what_is_counted_is_told() {
    let sources = sources();
    let before = series(&sources.encode().unwrap());
    let _held = move_everything(&sources);
    let text = sources.encode().unwrap();
    let after = series(&text);
    // What says what the process is, what the broker tells, and buckets below the recorded values, stay.
    let constant = |name: &str| {
        [
            "ringwall_build_info",
            "ringwall_workers",
            "ringwall_server_",
            "ringwall_broker_",
            "process_",
            "ringwall_thread_",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
    };
    let lower_bucket = |name: &str| name.contains("le=") && !name.contains("+Inf");
    // Worker 1 has no queue here.
    for (name, value) in &before {
        let still = after[name] == *value;
        assert!(!still || constant(name) || lower_bucket(name), "{name} did not move");
    }
    let tool = "upstream=\"a \\\"b\\\"\\\\\\n\",tool=\"say \\\"hi\\\"\\\\ö\"";
    for (name, value) in [
        ("ringwall_refusals_total{rule=\"xss\"}", 2.0),
        (&format!("ringwall_calls_total{{door=\"ws\",{tool},outcome=\"tool_error\"}}"), 2.0),
        ("ringwall_call_duration_seconds_count{door=\"http\"}", 14.0),
        ("ringwall_call_duration_seconds_bucket{le=\"0.0025\",door=\"http\"}", 0.0),
        ("ringwall_call_duration_seconds_bucket{le=\"0.005\",door=\"http\"}", 14.0),
        ("ringwall_guard_duration_seconds_bucket{le=\"0.000001\"}", 2.0),
        ("ringwall_received_bytes_total{door=\"tcp\"}", 20.0),
        ("ringwall_limits_hit_total{limit=\"request_size\"}", 2.0),
        ("ringwall_upstream_connections_idle{upstream=\"one\"}", 10.0),
        ("ringwall_worker_calls_total{worker=\"1\"}", 21.0),
        ("ringwall_worker_calls_in_flight{worker=\"1\"}", 1.0),
        ("ringwall_worker_sent_bytes_total{worker=\"0\"}", 60.0),
        ("ringwall_server_starts_total{upstream=\"shared\"}", 3.0),
        ("ringwall_broker_calls_in_flight", 2.0),
        ("ringwall_alerts_total{kind=\"audit-unavailable\",severity=\"CRITICAL\"}", 1.0),
        ("ringwall_alert_webhook_queue_length", 6.0),
        ("ringwall_build_info{version=\"0.0.0\",driver=\"io_uring\"}", 1.0),
        ("process_start_time_seconds", 1_700_000_000.5),
    ] {
        assert_eq!(after.get(name), Some(&value), "{name} in\n{text}");
    }
}

/// What a family's lines say of it.
#[derive(Debug, Default, PartialEq)]
struct Family {
    name: String,
    kind: String,
    unit: Option<String>,
    help: String,
    labels: BTreeSet<String>,
}

/// Reads an exposition as strictly as the format is written (OpenMetrics 1.0), and as `promtool check metrics` looks at names.
fn lint(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    let mut seen = BTreeSet::new();
    let body = text.strip_suffix("# EOF\n").expect("it ends in # EOF");
    for line in body.lines() {
        assert!(!line.contains('\r') && !line.is_empty(), "{line:?}");
        if let Some(meta) = line.strip_prefix("# ") {
            let mut words = meta.splitn(3, ' ');
            let (what, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
            if families.last().is_none_or(|family| family.name != name) {
                assert!(families.iter().all(|family| family.name != name), "{name} is told in two places");
                families.push(Family { name: name.to_owned(), ..Family::default() });
            }
            let family = families.last_mut().unwrap();
            match what {
                "HELP" => {
                    assert!(family.help.is_empty(), "{name}: HELP twice");
                    assert!(rest.len() > 8, "{name}: what is {rest:?}?");
                    family.help = rest.to_owned();
                }
                "TYPE" => {
                    assert!(family.kind.is_empty(), "{name}: TYPE twice");
                    assert!(["counter", "gauge", "histogram", "info"].contains(&rest), "{name}: {rest}");
                    family.kind = rest.to_owned();
                }
                "UNIT" => family.unit = Some(rest.to_owned()),
                other => panic!("{other} in {line:?}"),
            }
            continue;
        }
        let family = families.last_mut().expect("a sample before any family");
        let (name, labels) = read_sample(line);
        let suffix =
            name.strip_prefix(family.name.as_str()).unwrap_or_else(|| panic!("{line:?} under {}", family.name));
        let suffixes: &[&str] = match family.kind.as_str() {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            _ => &[""],
        };
        assert!(suffixes.contains(&suffix), "{line:?} of a {}", family.kind);
        assert!(seen.insert((name.clone(), labels.clone())), "{line:?} stands there twice");
        let le = labels.iter().filter(|(label, _)| label == "le").count();
        assert_eq!(le == 1, suffix == "_bucket", "{line:?}");
        family.labels.extend(labels.into_iter().map(|(label, _)| label).filter(|label| label != "le"));
    }
    for Family { name, kind, unit, help, labels } in &families {
        assert!(!help.is_empty() && !kind.is_empty(), "{name} lacks HELP or TYPE");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
        assert!(name.starts_with("ringwall_") || name.starts_with("process_"), "{name}");
        for abused in ["_total", "_count", "_sum", "_bucket", "_info"] {
            assert!(!name.ends_with(abused), "{name} ends as samples do");
        }
        // Base units, and no other word for one.
        for odd in ["millis", "_ms", "micros", "nanos", "minutes", "hours", "kilobytes", "megabytes", "percent"] {
            assert!(!name.contains(odd), "{name} is not in base units");
        }
        let ends_in_unit = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(&format!("_{unit}")));
        assert_eq!(unit.as_deref(), ends_in_unit, "{name}: UNIT and name differ");
        assert!(kind != "histogram" || unit.is_some(), "{name}: a histogram of what?");
        for label in labels {
            assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !label.starts_with("__"), "{label}");
        }
    }
    families
}

type Labels = Vec<(String, String)>;

/// `name{label="value",…} number`, with nothing but `\\`, `\"` and `\n` escaped and no label twice.
fn read_sample(line: &str) -> (String, Labels) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line:?}"));
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line:?}"));
            let mut text = String::new();
            let mut chars = value.char_indices();
            let close = loop {
                match chars.next().unwrap_or_else(|| panic!("{line:?} has no end")) {
                    (at, '"') => break at,
                    (_, '\\') => text.push(match chars.next().map(|(_, escaped)| escaped) {
                        Some('n') => '\n',
                        Some(plain @ ('\\' | '"')) => plain,
                        other => panic!("{other:?} is escaped in {line:?}"),
                    }),
                    (_, plain) => text.push(plain),
                }
            };
            assert!(labels.iter().all(|(other, _)| other != label), "{line:?}: {label} twice");
            labels.push((label.to_owned(), text));
            rest = &value[close + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap_or_else(|| panic!("{line:?}"));
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line:?}"));
    assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line:?}");
    (name.to_owned(), labels)
}

#[test]
fn the_text_is_as_the_format_wants_it() {
    let sources = sources();
    let families = lint(&sources.encode().unwrap());
    let _held = move_everything(&sources);
    let text = sources.encode().unwrap();
    let moved = lint(&text);
    let names = |families: &[Family]| families.iter().map(|family| family.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&families), names(&moved), "what is declared does not depend on what has happened");
    assert!(moved.len() > 50, "{}", moved.len());
    // What was put in comes out of the escaping.
    let labels: Vec<Labels> =
        text.lines().filter(|l| l.starts_with("ringwall_calls_total")).map(|l| read_sample(l).1).collect();
    assert!(labels.iter().all(|labels| labels[1].1 == "a \"b\"\\\n" && labels[2].1 == "say \"hi\"\\ö"), "{labels:?}");
}

/// The table of docs/metrics.md is this text. `UPDATE_DOCS=1` writes it anew.
#[test]
fn the_documented_table_is_true() {
    let sources = sources();
    let _held = move_everything(&sources);
    let row = |family: &Family| {
        let suffix = if family.kind == "counter" {
            "_total"
        } else if family.kind == "info" {
            "_info"
        } else {
            ""
        };
        let labels = family.labels.iter().cloned().collect::<Vec<_>>().join(",");
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        format!("| `{}{suffix}{labels}` | {} | {} |\n", family.name, family.kind, family.help.trim_end_matches('.'))
    };
    let rows: String = lint(&sources.encode().unwrap()).iter().map(row).collect();
    let table = format!("| metric | type | what it tells |\n|---|---|---|\n{rows}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- table -->\n", "<!-- end -->\n");
    let (before, rest) = text.split_once(begin).unwrap();
    let (told, after) = rest.split_once(end).unwrap();
    if told != table && std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{begin}{table}{end}{after}")).unwrap();
    } else {
        assert_eq!(told, table, "UPDATE_DOCS=1 cargo test --lib the_documented_table writes it anew");
    }
}

#[test]
fn rules_are_bounded() {
    let rules = RuleCounters::default();
    let names: Vec<&'static str> = (0..MAX_RULES + 9).map(|n| &*format!("rule-{n}").leak()).collect();
    for name in &names {
        rules.inc(name);
        rules.inc(name);
    }
    let counted: Vec<_> = rules.iter().collect();
    assert_eq!(counted.len(), MAX_RULES + 1);
    assert!(counted[..MAX_RULES].iter().all(|(_, count)| *count == 2));
    assert_eq!(counted[MAX_RULES], ("other", 18));
}

#[test]
fn odd_statuses_are_not_counted() {
    let worker = WorkerMetrics::default();
    for status in [0, 99, 600, u16::MAX] {
        worker.response(status);
    }
    assert_eq!((1..=5).map(|class| worker.responses(class)).sum::<u64>(), 0);
}
