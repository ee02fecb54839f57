//! One point in one round: calls through a process, and the CPU time that it used for them.

use std::io;
use std::time::{Duration, Instant};

use super::super::cpu;
use super::super::figures::Figures;
use super::super::generate::{self, Door, Load};
use super::super::process::{Running, TOKEN};
use super::super::report::{Cell, Point};

/// What a point has shown in one round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) cpu_us: f64,
    pub(super) calls_s: f64,
}

/// What a point has shown in all rounds, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Rounds(Vec<Round>);

impl Rounds {
    pub(super) fn push(&mut self, round: Round) {
        self.0.push(round);
    }

    pub(super) fn cpu_us(&self) -> Figures {
        self.0.iter().map(|round| round.cpu_us).collect()
    }

    pub(super) fn calls_s(&self) -> Figures {
        self.0.iter().map(|round| round.calls_s).collect()
    }

    /// CPU time against another point's, round by round.
    pub(super) fn cpu_to(&self, base: &Self) -> Figures {
        self.0.iter().zip(&base.0).map(|(one, base)| one.cpu_us / base.cpu_us).collect()
    }

    /// CPU time, its ratio to a base, calls a second.
    pub(super) fn cells(&self, base: &Self) -> Vec<Cell> {
        vec![self.cpu_us().into(), self.cpu_to(base).into(), self.calls_s().into()]
    }

    /// CPU time as a point of a chart.
    pub(super) fn point(&self, x: f64) -> Point {
        Point::of(x, &self.cpu_us())
    }
}

/// A load over HTTP in a closed loop, as all points of the sweeps have it. A call on each connection comes before those that count.
pub(super) fn load(process: &Running, connections: usize, calls: u64) -> Load {
    Load {
        token: TOKEN.to_owned(),
        connections,
        warm_up: connections as u64,
        calls,
        measured: vec![process.pid()],
        ..Load::new(Door::Http, process.address)
    }
}

/// Drives a load through a process.
pub(super) fn measure(process: &Running, load: &Load) -> io::Result<Round> {
    let outcome = generate::run(load).map_err(|error| process.explain(error))?;
    let cpu_us = outcome.cpu_us().ok_or_else(|| io::Error::other("no process was measured"))?;
    Ok(Round { cpu_us, calls_s: outcome.calls_per_s() })
}

/// Drives equal parts of a load through several processes at once. CPU time is that of all of them, for all calls.
pub(super) fn measure_together(processes: &[Running], connections: usize, calls: u64) -> io::Result<Round> {
    let parts = processes.len().max(1);
    let rounds: io::Result<Vec<Round>> = std::thread::scope(|scope| {
        // A load is made where it runs: it is not to be sent.
        let part = |process| {
            let (connections, calls) = ((connections / parts).max(1), (calls / parts as u64).max(1));
            scope.spawn(move || measure(process, &load(process, connections, calls)))
        };
        let running: Vec<_> = processes.iter().map(part).collect();
        let ended =
            |run: std::thread::ScopedJoinHandle<'_, _>| run.join().map_err(|_| io::Error::other("a load failed"))?;
        running.into_iter().map(ended).collect()
    });
    let rounds = rounds?;
    // As many calls each, so the mean of a call is the mean of the parts.
    let cpu_us = rounds.iter().map(|round| round.cpu_us).sum::<f64>() / parts as f64;
    Ok(Round { cpu_us, calls_s: rounds.iter().map(|round| round.calls_s).sum() })
}

/// CPU time a call of what `calls` does, which is so many calls.
pub(super) fn around(process: &Running, count: u64, calls: impl FnOnce() -> io::Result<()>) -> io::Result<Round> {
    let before = cpu::used_ns(process.pid())?;
    let started = Instant::now();
    calls().map_err(|error| process.explain(error))?;
    let took = started.elapsed();
    let used = cpu::used_ns(process.pid())?.saturating_sub(before);
    Ok(Round { cpu_us: used as f64 / 1000.0 / count as f64, calls_s: count as f64 / took.as_secs_f64() })
}

/// A process that uses less of a core than this has nothing to do.
const IDLE_SHARE: f64 = 0.01;

const LOOK: Duration = Duration::from_millis(250);

/// How long is waited for that.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until a process has had nothing to do for this long.
pub(super) fn idle_for(process: &Running, quiet: Duration) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    let (mut since, mut at) = (Instant::now(), Instant::now());
    let mut used = cpu::used_ns(process.pid())?;
    while since.elapsed() < quiet {
        if Instant::now() > end {
            return Err(process.explain(io::Error::other("is still busy although nobody calls it")));
        }
        std::thread::park_timeout(LOOK);
        let now = cpu::used_ns(process.pid())?;
        let share = now.saturating_sub(used) as f64 / at.elapsed().as_nanos() as f64;
        (used, at) = (now, Instant::now());
        if share > IDLE_SHARE {
            since = at;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Round, Rounds};

    #[test]
    fn ratios_are_taken_round_by_round() {
        let rounds =
            |values: [f64; 3]| Rounds(values.into_iter().map(|cpu_us| Round { cpu_us, calls_s: 1.0 }).collect());
        // A machine that grows slower spoils both alike.
        let (base, one) = (rounds([10.0, 20.0, 40.0]), rounds([11.0, 22.0, 44.0]));
        assert!(one.cpu_to(&base).values().iter().all(|ratio| (ratio - 1.1).abs() < 1e-9));
        assert_eq!(one.cpu_us().with_spread(0), "22 (11–44)");
    }
}
