//! One worker, two, four: CPU time a call and calls a second.
//!
//! Where the machine has no more cores than workers, the last worker shares its core with the generator and the upstream, and then calls a second say
//! little. Sharing costs caches as well. What it costs is shown by one worker more: the only one of a gateway, on the generator's core.

use std::io;

use super::super::figures::Figures;
use super::super::process::Running;
use super::super::report::{Axis, Chart, Column, Goal, Section, Series, Table};
use super::Bench;
use super::point::{self, Rounds};

/// CPU time a call of two workers to that of one.
const GOAL: f64 = 1.05;

struct Gateway {
    name: String,
    workers: usize,
    process: Running,
    rounds: Rounds,
}

pub(super) fn sweep(bench: &mut Bench<'_>) -> io::Result<Section> {
    let upstream = bench.upstream(&[])?;
    let cores = std::thread::available_parallelism()?.get().max(bench.cores.count() as usize);
    let mut gateways = vec![one(bench, &upstream, bench.args.core, "1 worker, a core of its own")?];
    gateways.push(one(bench, &upstream, 0, "1 worker, on the generator's core")?);
    let mut workers = 2;
    while workers <= cores {
        gateways.push(several(bench, &upstream, workers)?);
        workers *= 2;
    }
    // The first round warms up.
    for round in 0..=bench.args.rounds {
        bench.progress("workers", round);
        for gateway in &mut gateways {
            let load = point::load(&gateway.process, bench.args.active, bench.args.calls);
            let measured = point::measure(&gateway.process, &load)?;
            if round > 0 {
                gateway.rounds.push(measured);
            }
        }
    }
    Ok(shown(&gateways, cores))
}

/// A gateway with one worker on this core.
fn one(bench: &mut Bench<'_>, upstream: &Running, core: usize, name: &str) -> io::Result<Gateway> {
    let (mut command, port) = bench.ringwall(upstream)?;
    let process = Running::start("ringwall", &mut command, bench.dir(), port, core)?;
    Ok(Gateway { name: name.to_owned(), workers: 1, process, rounds: Rounds::default() })
}

/// A gateway whose workers choose their cores from all there are.
fn several(bench: &mut Bench<'_>, upstream: &Running, workers: usize) -> io::Result<Gateway> {
    let (mut command, port) = bench.ringwall(upstream)?;
    command.env("WORKERS", workers.to_string());
    // A process may use the cores that its parent may use.
    rustix::thread::sched_setaffinity(None, &bench.cores)?;
    let process = Running::start_unpinned("ringwall", &mut command, bench.dir(), port);
    super::cpu::pin(0, 0)?;
    Ok(Gateway { name: format!("{workers} workers"), workers, process: process?, rounds: Rounds::default() })
}

fn shown(gateways: &[Gateway], cores: usize) -> Section {
    let columns = vec![
        Column::new("CPU a call", "µs", 2),
        Column::new("to 1 worker, round by round", "", 3),
        Column::new("calls/s", "", 0),
    ];
    let mut table = Table::new("gateway", columns);
    let (mut line, mut beside) = (Vec::new(), Vec::new());
    let Some(base) = gateways.first() else { return Section::new("Workers") };
    let mut two = Figures::default();
    for (index, gateway) in gateways.iter().enumerate() {
        table.row(&gateway.name, gateway.rounds.cells(&base.rounds));
        if gateway.workers == 2 {
            two = gateway.rounds.cpu_to(&base.rounds);
        }
        let points = if index == 1 { &mut beside } else { &mut line };
        points.push(gateway.rounds.point(gateway.workers as f64));
    }
    let chart = Chart::new("CPU a call by workers", Axis::linear("workers"), Axis::linear("CPU a call, µs"))
        .series(Series::new("ringwall", line))
        .series(Series::new("on the generator's core", beside))
        .mark(base.rounds.cpu_us().median() * GOAL, "goal: 1.05 of one worker");
    let mut section = Section::new("Workers");
    if cores <= 2 {
        section = section.note(
            "The machine has two cores: with two workers one shares its core with the generator and the upstream. CPU a call is the figure to look \
             at; calls a second are what is left of the machine. What sharing a core costs by itself is in the second row.",
        );
    }
    section.table(table).chart(chart).goal(Goal::at_most("2 workers: CPU a call against 1 worker", GOAL, 3, &two))
}
