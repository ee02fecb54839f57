//! What one peer has shown in one round, and the figures of several.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::super::figures::Figures;
use super::super::generate::Outcome;
use super::super::peer::Kind;

/// One peer in one round.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) kind: Kind,
    pub(super) connections: usize,
    pub(super) round: usize,
    pub(super) calls: u64,
    pub(super) calls_per_s: f64,
    /// CPU time of all processes of the peer, divided by all calls that were made, warm-up included.
    pub(super) cpu_us: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    /// Share of the time that the peer used its core.
    pub(super) busy: f64,
    /// The same of the generator and of the upstream.
    pub(super) generator_busy: f64,
    pub(super) upstream_busy: f64,
    /// How late the generator was at most with a call of an open schedule, µs.
    pub(super) generator_late_us: f64,
    /// All latencies, ns.
    pub(super) latency: Histogram<u64>,
}

/// CPU time that was used, ns, and the time that has passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) peer_ns: u64,
    pub(super) generator_ns: u64,
    pub(super) upstream_ns: u64,
    pub(super) wall: Duration,
}

impl Cell {
    pub(super) fn new(kind: Kind, connections: usize, round: usize, outcome: &Outcome, made: u64, used: Used) -> Self {
        let share = |ns: u64| ns as f64 / used.wall.as_nanos() as f64;
        Self {
            kind,
            connections,
            round,
            calls: outcome.calls,
            calls_per_s: outcome.calls_per_s(),
            cpu_us: used.peer_ns as f64 / 1000.0 / made as f64,
            p50_us: outcome.latency_us(0.5),
            p99_us: outcome.latency_us(0.99),
            p999_us: outcome.latency_us(0.999),
            busy: share(used.peer_ns),
            generator_busy: share(used.generator_ns),
            upstream_busy: share(used.upstream_ns),
            generator_late_us: outcome.generator_late.as_secs_f64() * 1e6,
            latency: outcome.latency.clone(),
        }
    }

    /// Calls a second if the peer did nothing else on its core and never waited: computed, not measured.
    pub(super) fn full_core_calls_per_s(&self) -> f64 {
        1e6 / self.cpu_us
    }

    pub(super) fn as_json(&self) -> Value {
        json!({"peer": self.kind.slug(), "connections": self.connections, "round": self.round, "calls": self.calls,
               "calls_per_s": self.calls_per_s, "cpu_us": self.cpu_us, "p50_us": self.p50_us, "p99_us": self.p99_us,
               "p999_us": self.p999_us, "busy": self.busy, "generator_busy": self.generator_busy,
               "upstream_busy": self.upstream_busy, "generator_late_us": self.generator_late_us})
    }
}

/// The cells of one peer at one number of connections, by round.
pub(super) fn of(cells: &[Cell], kind: Kind, connections: usize) -> impl Iterator<Item = &Cell> {
    cells.iter().filter(move |cell| cell.kind == kind && cell.connections == connections)
}

/// A quantity of those cells; `None` where there are none.
pub(super) fn figures(cells: &[Cell], kind: Kind, connections: usize, value: impl Fn(&Cell) -> f64) -> Option<Figures> {
    let values: Vec<f64> = of(cells, kind, connections).map(value).collect();
    (!values.is_empty()).then(|| values.into_iter().collect())
}

/// What two peers make of a quantity of the same round, such as their ratio. Rounds that only one of them has are left out.
pub(super) fn paired(
    cells: &[Cell],
    (kind, base): (Kind, Kind),
    connections: usize,
    value: impl Fn(&Cell) -> f64,
    combine: impl Fn(f64, f64) -> f64,
) -> Option<Figures> {
    let pair = |cell: &Cell| {
        let other = of(cells, base, connections).find(|other| other.round == cell.round)?;
        Some(combine(value(cell), value(other)))
    };
    let values: Vec<f64> = of(cells, kind, connections).filter_map(pair).collect();
    (!values.is_empty()).then(|| values.into_iter().collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A cell with this CPU time a call; everything else follows from it or is the same for all.
    pub(crate) fn cell(kind: Kind, connections: usize, round: usize, cpu_us: f64) -> Cell {
        Cell {
            kind,
            connections,
            round,
            calls: 1000,
            calls_per_s: 1e6 / cpu_us / 2.0,
            cpu_us,
            p50_us: 10.0 * cpu_us,
            p99_us: 20.0 * cpu_us,
            p999_us: 30.0 * cpu_us,
            busy: 0.5,
            generator_busy: 0.25,
            upstream_busy: 0.125,
            generator_late_us: 1.0,
            latency: Histogram::new(3).unwrap_or_else(|_| unreachable!("three digits are fine")),
        }
    }

    #[test]
    fn ratios_are_of_the_same_round_and_not_of_medians() {
        let (one, other) = (Kind::Ringwall, Kind::Haproxy);
        // A disturbance that doubles both sides of the second round does not show.
        let cells = [
            cell(one, 64, 1, 10.0),
            cell(other, 64, 1, 20.0),
            cell(other, 64, 2, 40.0),
            cell(one, 64, 2, 20.0),
            cell(one, 8, 3, 99.0),
            cell(one, 64, 3, 99.0),
        ];
        let ratio = paired(&cells, (one, other), 64, |cell| cell.cpu_us, |a, b| a / b);
        assert_eq!(ratio.map(|ratio| ratio.with_spread(2)).as_deref(), Some("0.50 (0.50–0.50)"));
        assert!(paired(&cells, (one, Kind::Nginx), 64, |cell| cell.cpu_us, |a, b| a / b).is_none());
        assert!(paired(&cells, (one, other), 8, |cell| cell.cpu_us, |a, b| a / b).is_none());
        let own = figures(&cells, one, 64, |cell| cell.cpu_us);
        assert_eq!(own.map(|own| own.with_spread(0)).as_deref(), Some("20 (10–99)"));
        assert!(figures(&cells, Kind::Nginx, 64, |cell| cell.cpu_us).is_none());
    }

    #[test]
    fn time_is_shared_over_all_calls_that_were_made() -> Result<(), Box<dyn std::error::Error>> {
        let mut latency = hdrhistogram::Histogram::new(3)?;
        latency.record(5_000)?;
        let outcome = Outcome {
            calls: 1000,
            errors: 0,
            took: Duration::from_millis(100),
            latency,
            waited: 0,
            generator_late: Duration::from_micros(7),
            cpu: None,
            generator_cpu: Duration::ZERO,
        };
        let wall = Duration::from_millis(200);
        let used = Used { peer_ns: 100_000_000, generator_ns: 50_000_000, upstream_ns: 20_000_000, wall };
        let cell = Cell::new(Kind::Nginx, 8, 1, &outcome, 2000, used);
        assert!((cell.cpu_us - 50.0).abs() < 1e-9, "{cell:?}");
        assert!((cell.calls_per_s - 10_000.0).abs() < 1e-6, "{cell:?}");
        assert!((cell.full_core_calls_per_s() - 20_000.0).abs() < 1e-6, "{cell:?}");
        assert!((cell.busy - 0.5).abs() < 1e-9 && (cell.generator_busy - 0.25).abs() < 1e-9, "{cell:?}");
        assert!((cell.upstream_busy - 0.1).abs() < 1e-9 && (cell.generator_late_us - 7.0).abs() < 1e-9, "{cell:?}");
        assert!((4.9..5.1).contains(&cell.p50_us), "{cell:?}");
        Ok(())
    }
}
