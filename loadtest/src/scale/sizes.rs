//! Small calls and large ones: CPU time a call, and bytes a second, beside HAProxy.

use std::io;
use std::rc::Rc;

use super::super::figures::Figures;
use super::super::generate::Mix;
use super::super::machine;
use super::super::process::{self, Running};
use super::super::report::{Axis, Cell, Chart, Column, Point, Report, Section, Series, Table};
use super::Bench;
use super::point::{self, Rounds};

/// Bytes of a call.
const SIZES: [usize; 5] = [291, 1024, 4 * 1024, 16 * 1024, 64 * 1024];

/// Bytes of calls a point a round at most: long messages take long, and show as much in fewer calls.
const ROUND_BYTES: u64 = 256 * 1024 * 1024;

struct Subject {
    process: Running,
    /// For each size.
    rounds: Vec<Rounds>,
}

pub(super) fn sweep(bench: &mut Bench<'_>, report: &mut Report) -> io::Result<Section> {
    let upstream = bench.upstream(&[])?;
    let mut processes = vec![bench.gateway(&upstream, &[])?];
    if let Some(program) = process::find("haproxy") {
        report.version("HAProxy", machine::version(&program, "-v"));
        processes.extend(haproxy(bench, &upstream)?);
    }
    let none = vec![Rounds::default(); SIZES.len()];
    let mut subjects: Vec<Subject> =
        processes.into_iter().map(|process| Subject { process, rounds: none.clone() }).collect();
    // The first round warms up.
    for round in 0..=bench.args.rounds {
        bench.progress("sizes", round);
        for (index, size) in SIZES.into_iter().enumerate() {
            for subject in &mut subjects {
                let mut load = point::load(&subject.process, bench.args.active, calls(bench, size));
                load.mix = Rc::new(Mix::fixed(size));
                let measured = point::measure(&subject.process, &load)?;
                if let Some(rounds) = subject.rounds.get_mut(index).filter(|_| round > 0) {
                    rounds.push(measured);
                }
            }
        }
    }
    Ok(shown(&subjects))
}

/// Calls of a point a round.
fn calls(bench: &Bench<'_>, size: usize) -> u64 {
    bench.args.calls.min(ROUND_BYTES / size as u64)
}

fn haproxy(bench: &mut Bench<'_>, upstream: &Running) -> io::Result<Option<Running>> {
    let port = bench.port()?;
    let template = include_str!("../../peers/haproxy.cfg");
    let Some(mut command) = process::haproxy(template, bench.dir(), port, upstream.address.port())? else {
        return Ok(None);
    };
    Running::start("haproxy", &mut command, bench.dir(), port, bench.args.core).map(Some)
}

/// Of calls, in millions of bytes a second.
fn megabytes_s(rounds: &Rounds, size: usize) -> Figures {
    rounds.calls_s().values().iter().map(|calls_s| calls_s * size as f64 / 1e6).collect()
}

fn shown(subjects: &[Subject]) -> Section {
    let columns = vec![
        Column::new("CPU a call", "µs", 2),
        Column::new("to HAProxy, round by round", "", 2),
        Column::new("calls/s", "", 0),
        Column::new("bytes of calls", "MB/s", 1),
    ];
    let mut table = Table::new("size and gateway", columns);
    let bytes = || Axis::log("bytes of the call").of_bytes();
    let mut cpu = Chart::new("CPU a call by size", bytes(), Axis::fitting("CPU a call, µs"));
    let mut rate = Chart::new("Bytes of calls a second by size", bytes(), Axis::linear("MB/s"));
    let peer = subjects.iter().find(|subject| subject.process.name == "haproxy");
    for (index, size) in SIZES.into_iter().enumerate() {
        for subject in subjects {
            let Some(rounds) = subject.rounds.get(index) else { continue };
            let peer = peer.and_then(|peer| peer.rounds.get(index));
            let to_peer = peer.map_or(Cell::Nothing, |peer| rounds.cpu_to(peer).into());
            let rate = megabytes_s(rounds, size).into();
            let cells = vec![rounds.cpu_us().into(), to_peer, rounds.calls_s().into(), rate];
            table.row(format!("{}, {}", written(size), subject.process.name), cells);
        }
    }
    for subject in subjects {
        let (mut cpus, mut rates) = (Vec::new(), Vec::new());
        for (size, rounds) in SIZES.into_iter().zip(&subject.rounds) {
            cpus.push(rounds.point(size as f64));
            rates.push(Point::of(size as f64, &megabytes_s(rounds, size)));
        }
        cpu = cpu.series(Series::new(subject.process.name, cpus));
        rate = rate.series(Series::new(subject.process.name, rates));
    }
    Section::new("Message sizes")
        .note(format!(
            "Calls of so many bytes, with small answers. At most {} MiB of calls a point a round.",
            ROUND_BYTES / 1024 / 1024
        ))
        .table(table)
        .chart(cpu)
        .chart(rate)
}

fn written(size: usize) -> String {
    if size >= 1024 { format!("{} KiB", size / 1024) } else { format!("{size} B") }
}
