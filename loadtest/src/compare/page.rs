//! A run as one HTML page: the figures of each number of connections, and latency curves of all rounds together.

use hdrhistogram::Histogram;

use super::super::figures::Figures;
use super::super::peer::Kind;
use super::super::report::{self, Chart, Column, Goal, Section, Series, Table};
use super::cell::{Cell, figures, of};
use super::{Report, goals};

/// The page of a run.
pub(super) fn of_run(report: &Report) -> report::Report {
    let mut page = report::Report::new("Calls through ringwall and its peers", report.machine.describe());
    for member in &report.peers {
        page.version(member.kind.title(), member.version.clone());
    }
    page.note("Each runs on one core; rounds go over all in turn. Figures are medians and spreads of rounds, CPU time is that of all processes and threads.");
    for failure in &report.failures {
        page.note(format!("{} at {} connections: {}", failure.kind.title(), failure.connections, failure.why));
    }
    page.section(goals_of(report));
    let mut connections: Vec<usize> = report.cells.iter().map(|cell| cell.connections).collect();
    connections.dedup();
    for connections in connections {
        page.section(section(report, &report.cells, connections, format!("{connections} connections, closed loop")));
    }
    if let Some(rate) = report.open_rate {
        let title = format!("{} connections, {rate:.0} calls/s, open loop", goals::CONNECTIONS);
        page.section(section(report, &report.open, goals::CONNECTIONS, title));
    }
    page
}

fn section(report: &Report, cells: &[Cell], connections: usize, title: String) -> Section {
    let columns = vec![
        Column::new("CPU a call", "µs", 2),
        Column::new("calls/s", "", 0),
        Column::new("p50", "µs", 0),
        Column::new("p99", "µs", 0),
        Column::new("p99.9", "µs", 0),
    ];
    let mut table = Table::new("peer", columns);
    let mut chart = Chart::latency("Latency");
    for kind in report.peers.iter().map(|member| member.kind) {
        let Some(latency) = merged(cells, kind, connections) else { continue };
        let value = |value: fn(&Cell) -> f64| figures(cells, kind, connections, value).unwrap_or_default();
        let values: [Figures; 5] = [
            value(|cell| cell.cpu_us),
            value(|cell| cell.calls_per_s),
            value(|cell| cell.p50_us),
            value(|cell| cell.p99_us),
            value(|cell| cell.p999_us),
        ];
        table.row(kind.title(), values.iter().map(report::Cell::from).collect());
        chart = chart.series(Series::latency(kind.title(), &latency));
    }
    Section::new(title).table(table).chart(chart)
}

/// The latencies of all rounds; `None` where there are none.
fn merged(cells: &[Cell], kind: Kind, connections: usize) -> Option<Histogram<u64>> {
    let mut all: Option<Histogram<u64>> = None;
    for cell in of(cells, kind, connections) {
        match &mut all {
            None => all = Some(cell.latency.clone()),
            // They are made alike and grow as they need to.
            Some(all) => all.add(&cell.latency).ok()?,
        }
    }
    all
}

fn goals_of(report: &Report) -> Section {
    let mut section = Section::new(format!("Goals, at {} connections", goals::CONNECTIONS));
    for goal in goals::all(report) {
        let Some(reached) = &goal.figures else { continue };
        let what = if goal.unit.is_empty() { goal.what.to_owned() } else { format!("{}, {}", goal.what, goal.unit) };
        section = section.goal(if goal.at_most {
            Goal::at_most(&what, goal.limit, 2, reached)
        } else {
            Goal::at_least(&what, goal.limit, 2, reached)
        });
    }
    section
}
