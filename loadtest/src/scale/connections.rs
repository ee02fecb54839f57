//! Idle connections beside active ones: CPU time of a call of the active ones, and memory of the process.
//!
//! One gateway a kind of connection. A trip goes up through the points, from none to the most, and down again; at each point the gateway is left until it has
//! nothing more to do, and then called. So every point is measured twice a trip, in one process, and a machine that drifts moves both ways.
//! Memory is read on the first way up and on the last way down: what is not given back shows as the difference.

use std::io;

use super::super::figures::Figures;
use super::super::idle;
use super::super::process::Running;
use super::super::report::{Axis, Cell, Chart, Column, Goal, Point, Section, Series, Table};
use super::Bench;
use super::crowd::{Crowd, Kind};
use super::point::{self, Round, Rounds};

/// Idle connections of the points, up to what was asked for.
const POINTS: [usize; 5] = [0, 100, 1_000, 5_000, 15_000];

/// CPU time a call beside the most idle connections to that beside none.
const GOAL: f64 = 1.05;

/// No connection may be closed for its silence during a run.
const IDLE_TIMEOUT_MS: &str = "3600000";

/// What the points have shown.
pub(super) struct Trips {
    pub(super) points: Vec<usize>,
    pub(super) rounds: Vec<Rounds>,
    /// MiB on the first way up, and on the last way down.
    up: Vec<f64>,
    down: Vec<f64>,
}

pub(super) fn sweep(bench: &mut Bench<'_>) -> io::Result<Vec<Section>> {
    let upstream = bench.upstream(&[])?;
    let http = of_kind(bench, &upstream, Kind::Http)?;
    let websocket = of_kind(bench, &upstream, Kind::Websocket)?;
    Ok(vec![shown(bench, &[("idle over HTTP", http), ("idle over WebSocket", websocket)])])
}

fn of_kind(bench: &mut Bench<'_>, upstream: &Running, kind: Kind) -> io::Result<Trips> {
    let gateway = gateway(bench, upstream)?;
    let (active, calls) = (bench.args.active, bench.args.calls);
    let points = points(bench, &POINTS);
    trips(bench, &gateway, kind, points, true, |gateway| point::measure(gateway, &point::load(gateway, active, calls)))
}

/// These points up to what was asked for and what descriptors suffice for; that is the last.
pub(super) fn points(bench: &Bench<'_>, all: &[usize]) -> Vec<usize> {
    // The active ones have a descriptor on each side.
    let most = idle::within(bench.descriptors.saturating_sub(2 * bench.args.active), bench.args.max_connections, 1);
    super::keys::up_to(all, most)
}

/// A gateway that closes nobody for his silence.
pub(super) fn gateway(bench: &mut Bench<'_>, upstream: &Running) -> io::Result<Running> {
    bench.gateway(upstream, &[("WS_CONNECTION_TIMEOUT", IDLE_TIMEOUT_MS.to_owned())])
}

/// Goes up and down through the points, which are in ascending order: a trip for two rounds, which is what it measures each point.
pub(super) fn trips(
    bench: &Bench<'_>,
    gateway: &Running,
    kind: Kind,
    points: Vec<usize>,
    weigh: bool,
    mut measure: impl FnMut(&Running) -> io::Result<Round>,
) -> io::Result<Trips> {
    // Warms up, with nobody beside.
    measure(gateway)?;
    let mut crowd = Crowd::start(gateway, kind)?;
    let trips = (bench.args.rounds / 2).max(1);
    let mut seen = Trips { rounds: vec![Rounds::default(); points.len()], up: Vec::new(), down: Vec::new(), points };
    for trip in 0..trips {
        eprintln!("connections, {}: trip {} of {trips}", kind.name(), trip + 1);
        let up = 0..seen.points.len();
        for (index, is_up) in up.clone().map(|index| (index, true)).chain(up.rev().map(|index| (index, false))) {
            let Some(wanted) = seen.points.get(index).copied() else { continue };
            crowd.stand(wanted).map_err(|error| gateway.explain(error))?;
            if weigh && ((is_up && trip == 0) || (!is_up && trip + 1 == trips)) {
                let mib = bench.memory_mib(gateway)?;
                if is_up { &mut seen.up } else { &mut seen.down }.push(mib);
            }
            bench.wait_idle(gateway)?;
            let round = measure(gateway)?;
            if let Some(rounds) = seen.rounds.get_mut(index) {
                rounds.push(round);
            }
        }
    }
    // Looks whether all have stood undisturbed to the end.
    crowd.stand(0).map_err(|error| gateway.explain(error))?;
    seen.down.reverse();
    Ok(seen)
}

fn shown(bench: &Bench<'_>, kinds: &[(&str, Trips)]) -> Section {
    let columns = vec![
        Column::new("CPU a call", "µs", 2),
        Column::new("to none, round by round", "", 3),
        Column::new("calls/s", "", 0),
        Column::new("memory", "MiB", 1),
        Column::new("memory on the way back", "MiB", 1),
        Column::new("memory a connection", "bytes", 0),
    ];
    let mut table = Table::new("idle connections", columns);
    let mut cpu = Chart::new("CPU a call", Axis::linear("idle connections beside"), Axis::linear("CPU a call, µs"));
    let mut memory = Chart::new(
        "Memory of the gateway",
        Axis::linear("idle connections"),
        Axis::linear("private dirty memory, MiB"),
    );
    let mut section = Section::new("Idle connections").note(format!(
        "{} connections over HTTP are active beside the idle ones, which have made one call each. Memory is the process's private dirty memory once it \
         has settled: user memory, without the kernel's for sockets.",
        bench.args.active
    ));
    for (name, trips) in kinds {
        let Some(none) = trips.rounds.first() else { continue };
        let none_mib = trips.up.first().copied().unwrap_or(f64::NAN);
        let xs = || trips.points.iter().map(|count| *count as f64);
        for (index, (count, rounds)) in trips.points.iter().zip(&trips.rounds).enumerate() {
            let mut cells = rounds.cells(none);
            let mib = |way: &[f64]| way.get(index).copied().unwrap_or(f64::NAN);
            cells.extend([mib(&trips.up).into(), mib(&trips.down).into()]);
            let bytes = (mib(&trips.up) - none_mib) * 1024.0 * 1024.0 / *count as f64;
            // Few connections are lost in what a process's own housekeeping changes.
            cells.push(if *count >= 1_000 { bytes.into() } else { Cell::Nothing });
            table.row(format!("{name}: {}", super::keys::count(*count as u64)), cells);
        }
        cpu = cpu.series(Series::new(*name, xs().zip(&trips.rounds).map(|(x, rounds)| rounds.point(x)).collect()));
        let mib = |way: &[f64]| xs().zip(way).map(|(x, mib)| Point::at(x, *mib)).collect();
        memory = memory.series(Series::new(*name, mib(&trips.up)));
        memory = memory.series(Series::new(format!("{name}, back"), mib(&trips.down)));
        let to_none = trips.rounds.last().map_or_else(Figures::default, |most| most.cpu_to(none));
        let most = trips.points.last().copied().unwrap_or_default();
        let what = format!("{} {name}: CPU a call against none", super::keys::count(most as u64));
        section = section.goal(Goal::at_most(&what, GOAL, 3, &to_none));
    }
    section.table(table).chart(cpu).chart(memory)
}
