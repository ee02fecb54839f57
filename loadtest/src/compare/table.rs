//! What a run has shown, as Markdown.

use std::fmt::Write;

use super::super::peer::{CALL_BYTES, Kind};
use super::cell::{self, Cell, paired};
use super::goals::{self, Goal};
use super::{Args, Report};

/// Whom the others are compared with.
const BASES: [Kind; 5] = [Kind::Haproxy, Kind::Nginx, Kind::Envoy, Kind::Modsecurity, Kind::Relay];

pub(super) fn markdown(args: &Args, report: &Report) -> String {
    let mut out = String::new();
    introduction(&mut out, args, report);
    for &connections in &args.concurrency {
        closed(&mut out, report, connections);
    }
    open(&mut out, report);
    memory(&mut out, report);
    goal_table(&mut out, report);
    out
}

// Writing to a string cannot fail; nor does a table end a run.
macro_rules! line {
    ($out:expr, $($words:tt)*) => {{ let _ = writeln!($out, $($words)*); }};
}

fn introduction(out: &mut String, args: &Args, report: &Report) {
    line!(out, "{}; {}.\n", report.machine.date, report.machine.describe());
    if let Some(commit) = &args.commit {
        line!(out, "ringwall of commit {commit}.\n");
    }
    let rounds = args.rounds;
    line!(
        out,
        "A call is a JSON-RPC message of {CALL_BYTES} bytes over HTTP, one at a time on each kept-alive connection; every answer is checked."
    );
    line!(
        out,
        "{rounds} rounds after one that warms up, in turns; who is not measured is stopped. Figures are medians (min–max) of rounds."
    );
    line!(
        out,
        "CPU time is that of all processes and threads of a peer. The run took {:.0} s.\n",
        report.took.as_secs_f64()
    );
    line!(out, "| peer | version | processes, threads |\n|---|---|---|");
    for member in &report.peers {
        line!(out, "| {} | {} | {}, {} |", member.kind.title(), member.version, member.processes, member.threads);
    }
    if !report.absent.is_empty() {
        let names: Vec<&str> = report.absent.iter().map(|kind| kind.title()).collect();
        line!(out, "\nNot installed and left out: {}.", names.join(", "));
    }
}

fn kinds(report: &Report) -> impl Iterator<Item = Kind> {
    report.peers.iter().map(|member| member.kind)
}

/// Those who have figures at this number of connections.
fn kinds_at(report: &Report, connections: usize) -> Vec<Kind> {
    kinds(report).filter(|kind| cell::of(&report.cells, *kind, connections).next().is_some()).collect()
}

fn closed(out: &mut String, report: &Report, connections: usize) {
    line!(out, "\n## {connections} {}\n", if connections == 1 { "connection" } else { "connections" });
    let kinds = kinds_at(report, connections);
    figures(out, &report.cells, kinds.iter().copied(), connections);
    for failure in report.failures.iter().filter(|failure| failure.connections == connections) {
        let why = failure.why.lines().next().unwrap_or_default();
        line!(out, "\n{} fails here and is left out from here on: {why}", failure.kind.title());
    }
    ratios(out, report, &kinds, connections);
}

fn figures(out: &mut String, cells: &[Cell], kinds: impl Iterator<Item = Kind>, connections: usize) {
    line!(
        out,
        "| | CPU a call, µs | calls/s | p50, µs | p99, µs | p99.9, µs | its core busy | generator, upstream busy | calls/s of a full core, computed |"
    );
    line!(out, "|---|---|---|---|---|---|---|---|---|");
    for kind in kinds {
        let of = |value: fn(&Cell) -> f64| cell::figures(cells, kind, connections, value).unwrap_or_default();
        line!(
            out,
            "| {} | {} | {} | {} | {} | {} | {:.0} % | {:.0} %, {:.0} % | {:.0} |",
            kind.title(),
            of(|cell| cell.cpu_us).with_spread(2),
            of(|cell| cell.calls_per_s).with_spread(0),
            of(|cell| cell.p50_us).with_spread(0),
            of(|cell| cell.p99_us).with_spread(0),
            of(|cell| cell.p999_us).with_spread(0),
            of(|cell| cell.busy * 100.0).median(),
            of(|cell| cell.generator_busy * 100.0).median(),
            of(|cell| cell.upstream_busy * 100.0).median(),
            of(Cell::full_core_calls_per_s).median(),
        );
    }
}

/// CPU time of a call, of each peer to each of the bases that took part.
fn ratios(out: &mut String, report: &Report, kinds: &[Kind], connections: usize) {
    let bases: Vec<Kind> = BASES.into_iter().filter(|base| kinds.contains(base)).collect();
    if bases.is_empty() {
        return;
    }
    let heads: Vec<String> = bases.iter().map(|base| format!("to {}", base.title())).collect();
    line!(out, "\n| CPU a call, round by round | {} |", heads.join(" | "));
    line!(out, "|---{}|", "|---".repeat(bases.len()));
    for &kind in kinds {
        let ratio = |base: &Kind| {
            let ratio = paired(&report.cells, (kind, *base), connections, |cell| cell.cpu_us, |a, b| a / b);
            if kind == *base { "1".to_owned() } else { ratio.map_or_else(|| "–".to_owned(), |r| r.with_spread(2)) }
        };
        let row: Vec<String> = bases.iter().map(ratio).collect();
        line!(out, "| {} | {} |", kind.title(), row.join(" | "));
    }
}

fn open(out: &mut String, report: &Report) {
    let Some(rate) = report.open_rate else { return };
    let connections = goals::CONNECTIONS;
    line!(out, "\n## Open loop, {rate:.0} calls/s over {connections} connections\n");
    line!(
        out,
        "Half of the most that HAProxy has shown above. Calls are due at random times (Poisson), the same for each peer in a round; latency"
    );
    line!(out, "counts from when a call was due, whether or not a connection was free.\n");
    let kinds = kinds(report).filter(|kind| report.open.iter().any(|cell| cell.kind == *kind));
    figures(out, &report.open, kinds, connections);
}

fn memory(out: &mut String, report: &Report) {
    line!(out, "\n## Memory after the run\n\n| | Pss, MiB |\n|---|---|");
    for member in &report.peers {
        line!(out, "| {} | {:.1} |", member.kind.title(), member.pss_kib as f64 / 1024.0);
    }
}

fn goal_table(out: &mut String, report: &Report) {
    line!(
        out,
        "\n## Goals\n\nOne worker, {CALL_BYTES}-byte call, {} connections; ratios of ringwall with every guard on.\n",
        goals::CONNECTIONS
    );
    line!(out, "| goal | | measured | held? |\n|---|---|---|---|");
    for goal in goals::all(report) {
        line!(out, "{}", goal_row(&goal));
    }
}

fn goal_row(goal: &Goal) -> String {
    let bound = if goal.at_most { "at most" } else { "at least" };
    let measured = goal.figures.as_ref().map_or_else(
        || "not measured".to_owned(),
        |figures| format!("{} {}", figures.with_spread(2), goal.unit).trim_end().to_owned(),
    );
    let held = goal.held().map_or("–", |held| if held { "yes" } else { "**no**" });
    format!("| {} | {bound} {} {} | {measured} | {held} |", goal.what, goal.limit, goal.unit).replace("  ", " ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::super::cell::tests::cell;
    use super::super::machine::{Cores, Machine};
    use super::super::rounds::Failure;
    use super::super::{Member, as_json};
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn report(cells: Vec<Cell>) -> Report {
        let member = |kind| Member { kind, version: "1.2".to_owned(), pss_kib: 2048, processes: 1, threads: 3 };
        let mut members: Vec<Kind> = cells.iter().map(|cell| cell.kind).collect();
        members.dedup();
        Report {
            machine: Machine::before(Cores { measured: 1, generator: 0, upstream: 0 }),
            peers: members.into_iter().map(member).collect(),
            absent: vec![Kind::Envoy],
            failures: vec![Failure { kind: Kind::McpProxy, connections: 64, why: "timed out\nand more".to_owned() }],
            open: vec![cell(Kind::Ringwall, 64, 1, 5.0), cell(Kind::Haproxy, 64, 1, 10.0)],
            cells,
            open_rate: Some(12_500.0),
            starts_ms: vec![70.0, 30.0, 60.0],
            took: Duration::from_secs(3),
        }
    }

    #[test]
    fn the_tables_have_figures_ratios_and_goals() {
        let kinds = [(Kind::Ringwall, 9.0), (Kind::RingwallOff, 8.0), (Kind::Haproxy, 10.0)];
        let cells = kinds.iter().flat_map(|(kind, cpu)| [1, 2].map(|round| cell(*kind, 64, round, *cpu)));
        let args = Line::parse_from(["x", "--concurrency", "64", "--commit", "abc"]).args;
        let report = report(cells.collect());
        let text = markdown(&args, &report);
        for expected in [
            "ringwall of commit abc.",
            "| HAProxy | 1.2 | 1, 3 |",
            "Not installed and left out: Envoy.",
            "| ringwall, guards on | 9.00 (9.00–9.00) | 55556 (55556–55556) | 90 (90–90) | 180 (180–180) | 270 (270–270) | 50 % | 25 %, 12 % | 111111 |",
            "| ringwall, guards on | 0.90 (0.90–0.90) |",
            "## Open loop, 12500 calls/s over 64 connections",
            "mcp-proxy fails here and is left out from here on: timed out\n",
            "| HAProxy | 2.0 |",
            "| CPU a call against HAProxy | at most 0.85 | 0.90 (0.90–0.90) | **no** |",
            "| CPU a call against Envoy | at most 0.35 | not measured | – |",
            "| calls/s against HAProxy | at least 1.15 | 1.11 (1.11–1.11) | **no** |",
            "against HAProxy | at most 1 | 0.50 (0.50–0.50) | yes |",
            "| cost of all guards together, CPU a call | at most 1.5 µs | 1.00 (1.00–1.00) µs | yes |",
            "| start to first answered call | at most 50 ms | 60.00 (30.00–70.00) ms | **no** |",
        ] {
            assert!(text.contains(expected), "no {expected} in\n{text}");
        }
        let tables = text.lines().filter(|line| line.starts_with('|'));
        assert!(tables.clone().count() > 20 && tables.clone().all(|line| line.ends_with('|')), "{text}");
        let json = as_json(&args, &report);
        assert_eq!(json["cells"].as_array().map(Vec::len), Some(6));
        assert_eq!(json["goals"][0]["held"], false);
        assert_eq!(json["goals"][2]["held"], serde_json::Value::Null);
    }
}
