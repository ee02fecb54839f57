//! The goals that ringwall has set itself beside its peers, and whether a run has held them.

use super::super::figures::Figures;
use super::super::peer::Kind;
use super::Report;
use super::cell::{self, Cell, paired};

/// The number of connections that goals are about.
pub(super) const CONNECTIONS: usize = 64;

/// One goal, and what was measured of it.
pub(super) struct Goal {
    pub(super) what: &'static str,
    pub(super) limit: f64,
    /// Whether the limit is the most; else it is the least.
    pub(super) at_most: bool,
    pub(super) unit: &'static str,
    /// `None` where the run has not measured it.
    pub(super) figures: Option<Figures>,
}

impl Goal {
    pub(super) fn median(&self) -> f64 {
        self.figures.as_ref().map_or(f64::NAN, Figures::median)
    }

    /// Whether the median holds the limit.
    pub(super) fn held(&self) -> Option<bool> {
        let median = self.figures.as_ref()?.median();
        Some(if self.at_most { median <= self.limit } else { median >= self.limit })
    }
}

/// Half of the most calls a second that HAProxy has shown at any number of connections, by medians.
pub(super) fn half_of_peak(cells: &[Cell]) -> Option<f64> {
    let mut connections: Vec<usize> = cells.iter().map(|cell| cell.connections).collect();
    connections.dedup();
    let rates = connections.into_iter().filter_map(|connections| {
        cell::figures(cells, Kind::Haproxy, connections, |cell| cell.calls_per_s).map(|rates| rates.median())
    });
    rates.max_by(f64::total_cmp).map(|peak| peak / 2.0)
}

/// All goals, in the order of the table.
pub(super) fn all(report: &Report) -> Vec<Goal> {
    let cpu_to = |base| paired(&report.cells, (Kind::Ringwall, base), CONNECTIONS, |cell| cell.cpu_us, |a, b| a / b);
    let at_most = |what, limit, unit, figures| Goal { what, limit, at_most: true, unit, figures };
    let ratio = |what, limit, base| at_most(what, limit, "", cpu_to(base));
    let pair = (Kind::Ringwall, Kind::Haproxy);
    let rate = paired(&report.cells, pair, CONNECTIONS, |cell| cell.calls_per_s, |a, b| a / b);
    let p99 = paired(&report.open, pair, CONNECTIONS, |cell| cell.p99_us, |a, b| a / b);
    let guards = (Kind::Ringwall, Kind::RingwallOff);
    let guards = paired(&report.cells, guards, CONNECTIONS, |cell| cell.cpu_us, |on, off| on - off);
    let starts = (!report.starts_ms.is_empty()).then(|| report.starts_ms.iter().copied().collect());
    vec![
        ratio("CPU a call against HAProxy", 0.85, Kind::Haproxy),
        ratio("CPU a call against nginx", 0.85, Kind::Nginx),
        ratio("CPU a call against Envoy", 0.35, Kind::Envoy),
        ratio("CPU a call against nginx + ModSecurity + core rules", 0.05, Kind::Modsecurity),
        ratio("CPU a call against the bare relay", 1.20, Kind::Relay),
        Goal { what: "calls/s against HAProxy", limit: 1.15, at_most: false, unit: "", figures: rate },
        at_most("p99 at half of HAProxy's peak rate, open loop, against HAProxy", 1.0, "", p99),
        at_most("cost of all guards together, CPU a call", 1.5, "µs", guards),
        at_most("start to first answered call", 50.0, "ms", starts),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::cell::tests::cell;
    use super::*;

    #[test]
    fn a_goal_is_held_at_its_limit_and_not_beyond() {
        let goal = |at_most, value: f64| Goal {
            what: "x",
            limit: 1.0,
            at_most,
            unit: "",
            figures: Some([value].into_iter().collect()),
        };
        for (at_most, value, held) in
            [(true, 1.0, true), (true, 1.01, false), (false, 1.0, true), (false, 0.99, false), (true, f64::NAN, false)]
        {
            assert_eq!(goal(at_most, value).held(), Some(held), "{at_most} {value}");
        }
        assert_eq!(Goal { figures: None, ..goal(true, 1.0) }.held(), None);
    }

    #[test]
    fn the_peak_is_that_of_the_best_number_of_connections() {
        let cells = [
            cell(Kind::Haproxy, 1, 1, 50.0),
            cell(Kind::Haproxy, 64, 1, 25.0),
            cell(Kind::Haproxy, 64, 2, 20.0),
            cell(Kind::Haproxy, 64, 3, 10.0),
            cell(Kind::Haproxy, 512, 1, 40.0),
            cell(Kind::Ringwall, 64, 1, 1.0),
        ];
        // At 64 connections the median is 20 µs: 25,000 calls a second.
        assert!(half_of_peak(&cells).is_some_and(|rate| (rate - 12_500.0).abs() < 1e-6));
        assert_eq!(half_of_peak(&[cell(Kind::Ringwall, 64, 1, 1.0)]), None);
    }
}
