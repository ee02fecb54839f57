//! One worker, two, four: CPU time a call and calls a second.
//!
//! Where the machine has no more cores than workers, the last worker shares its core with the generator and the upstream, and then calls a second say
//! little. Sharing costs caches as well; and two cores that a machine offers may be two threads of one, each slower while the other is busy. So
//! there are rows that tell what of two workers' cost is not the gateway's: one worker on the generator's core; one worker with half of the
//! connections, for each of two finds half of the calls at a time; and as many gateways of one worker side by side, which share
//! the machine as the workers do and nothing else.

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
    /// How many workers serve it; where it stands in the chart.
    workers: usize,
    /// In which of the chart's lines.
    line: Line,
    /// One, or several that are driven at once.
    processes: Vec<Running>,
    connections: usize,
    rounds: Rounds,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    /// One gateway.
    Workers,
    /// Several of one worker.
    SideBySide,
    /// Not in the chart.
    None,
}

pub(super) fn sweep(bench: &mut Bench<'_>) -> io::Result<Section> {
    let upstream = bench.upstream(&[])?;
    let cores = std::thread::available_parallelism()?.get().max(bench.cores.count() as usize);
    let (core, active) = (bench.args.core, bench.args.active);
    let base = one(bench, &upstream, core, "1 worker, a core of its own", active)?;
    let mut gateways = vec![Gateway { line: Line::Workers, ..base }];
    gateways.push(one(bench, &upstream, 0, "1 worker, on the generator's core", active)?);
    gateways.push(one(bench, &upstream, core, "1 worker, half of the connections", (active / 2).max(1))?);
    let mut workers = 2;
    while workers <= cores {
        gateways.push(several(bench, &upstream, workers)?);
        gateways.push(side_by_side(bench, &upstream, workers)?);
        workers *= 2;
    }
    // The first round warms up.
    for round in 0..=bench.args.rounds {
        bench.progress("workers", round);
        for gateway in &mut gateways {
            let measured = point::measure_together(&gateway.processes, gateway.connections, bench.args.calls)?;
            if round > 0 {
                gateway.rounds.push(measured);
            }
        }
    }
    Ok(shown(&gateways, cores))
}

/// A gateway with one worker on this core.
fn one(bench: &mut Bench<'_>, upstream: &Running, core: usize, name: &str, connections: usize) -> io::Result<Gateway> {
    let processes = vec![pinned(bench, upstream, core)?];
    let (name, rounds) = (name.to_owned(), Rounds::default());
    Ok(Gateway { name, workers: 1, line: Line::None, processes, connections, rounds })
}

/// A process with one worker on this core.
fn pinned(bench: &mut Bench<'_>, upstream: &Running, core: usize) -> io::Result<Running> {
    let (mut command, port) = bench.ringwall(upstream)?;
    Running::start("ringwall", &mut command, bench.dir(), port, core)
}

/// As many gateways of one worker as another has workers, each on a core of its own.
fn side_by_side(bench: &mut Bench<'_>, upstream: &Running, workers: usize) -> io::Result<Gateway> {
    let cores: Vec<_> =
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| bench.cores.is_set(*core)).take(workers).collect();
    let processes = cores.into_iter().map(|core| pinned(bench, upstream, core)).collect::<io::Result<Vec<_>>>()?;
    Ok(Gateway {
        name: format!("{workers} gateways of 1 worker, side by side"),
        workers,
        line: Line::SideBySide,
        processes,
        connections: bench.args.active,
        rounds: Rounds::default(),
    })
}

/// A gateway whose workers choose their cores from all there are.
fn several(bench: &mut Bench<'_>, upstream: &Running, workers: usize) -> io::Result<Gateway> {
    let (mut command, port) = bench.ringwall(upstream)?;
    command.env("WORKERS", workers.to_string());
    // A process may use the cores that its parent may use.
    rustix::thread::sched_setaffinity(None, &bench.cores)?;
    let process = Running::start_unpinned("ringwall", &mut command, bench.dir(), port);
    super::cpu::pin(0, 0)?;
    Ok(Gateway {
        name: format!("{workers} workers"),
        workers,
        line: Line::Workers,
        processes: vec![process?],
        connections: bench.args.active,
        rounds: Rounds::default(),
    })
}

fn shown(gateways: &[Gateway], cores: usize) -> Section {
    let columns = vec![
        Column::new("CPU a call", "µs", 2),
        Column::new("to 1 worker, round by round", "", 3),
        Column::new("calls/s", "", 0),
    ];
    let mut table = Table::new("gateway", columns);
    let Some(base) = gateways.first() else { return Section::new("Workers") };
    for gateway in gateways {
        table.row(&gateway.name, gateway.rounds.cells(&base.rounds));
    }
    let points = |line| {
        let of_line = gateways.iter().filter(move |gateway| gateway.line == line);
        of_line.map(|gateway| gateway.rounds.point(gateway.workers as f64)).collect::<Vec<_>>()
    };
    let of_two = |line| gateways.iter().find(|gateway| gateway.workers == 2 && gateway.line == line);
    let (two, apart) = (of_two(Line::Workers), of_two(Line::SideBySide));
    let to = |base: Option<&Gateway>| match (two, base) {
        (Some(two), Some(base)) => two.rounds.cpu_to(&base.rounds),
        _ => Figures::default(),
    };
    let chart = Chart::new("CPU a call by workers", Axis::linear("workers"), Axis::linear("CPU a call, µs"))
        .series(Series::new("ringwall", points(Line::Workers)))
        .series(Series::new("as many gateways of one worker", points(Line::SideBySide)))
        .mark(base.rounds.cpu_us().median() * GOAL, "goal: 1.05 of one worker");
    let mut section = Section::new("Workers");
    if cores <= 2 {
        section = section.note(
            "The machine has two cores: with two workers one shares its core with the generator and the upstream. CPU a call is the figure to look \
             at; calls a second are what is left of the machine. What sharing the machine costs by itself is in the rows beside: gateways of one \
             worker share it as the workers of one gateway do, and nothing else.",
        );
    }
    section
        .table(table)
        .chart(chart)
        .goal(Goal::at_most("2 workers: CPU a call against 1 worker", GOAL, 3, &to(Some(base))))
        .goal(Goal::at_most("2 workers: CPU a call against 2 gateways of 1 worker", GOAL, 3, &to(apart)))
}
