//! Small calls and large ones, with answers of the same size: CPU time a call, and bytes a second, beside HAProxy.
//!
//! Each size has an upstream, a gateway and a HAProxy of its own, since an upstream answers with one size. So sizes differ by process as well: the
//! sweep shows how cost grows, not single percents.

use std::io;
use std::rc::Rc;

use super::super::figures::Figures;
use super::super::generate::Mix;
use super::super::machine;
use super::super::process::{self, Running};
use super::super::report::{Axis, Cell, Chart, Column, Point, Report, Section, Series, Table};
use super::super::upstream::answer::Answers;
use super::Bench;
use super::point::{self, Rounds};

/// Bytes of a call, and of its answer's text.
const SIZES: [usize; 5] = [291, 1024, 4 * 1024, 16 * 1024, 64 * 1024];

/// Bytes of calls a point a round at most: long messages take long, and show as much in fewer calls.
const ROUND_BYTES: u64 = 256 * 1024 * 1024;

/// What stands in front of one upstream.
struct Group {
    size: usize,
    /// Ended with the group.
    _upstream: Running,
    subjects: Vec<Subject>,
}

struct Subject {
    process: Running,
    rounds: Rounds,
}

pub(super) fn sweep(bench: &mut Bench<'_>, report: &mut Report) -> io::Result<Section> {
    if let Some(program) = process::find("haproxy") {
        report.version("HAProxy", machine::version(&program, "-v"));
    }
    let groups: io::Result<Vec<Group>> = SIZES.into_iter().map(|size| group(bench, size)).collect();
    let mut groups = groups?;
    // The first round warms up.
    for round in 0..=bench.args.rounds {
        bench.progress("sizes", round);
        for group in &mut groups {
            let answers = Answers { answer_bytes: group.size, ..Answers::default() };
            let mix = Rc::new(Mix::fixed(group.size).answered(&answers));
            for subject in &mut group.subjects {
                let mut load = point::load(&subject.process, bench.args.active, calls(bench, group.size));
                load.mix = Rc::clone(&mix);
                let measured = point::measure(&subject.process, &load)?;
                if round > 0 {
                    subject.rounds.push(measured);
                }
            }
        }
    }
    Ok(shown(&groups))
}

fn group(bench: &mut Bench<'_>, size: usize) -> io::Result<Group> {
    let upstream = bench.upstream(&["--answer-bytes".to_owned(), size.to_string()])?;
    let processes = [Some(bench.gateway(&upstream, &[])?), haproxy(bench, &upstream)?];
    let subjects = processes.into_iter().flatten().map(|process| Subject { process, rounds: Rounds::default() });
    Ok(Group { size, subjects: subjects.collect(), _upstream: upstream })
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

/// Of calls and answers together, in millions of bytes a second.
fn megabytes_s(rounds: &Rounds, size: usize) -> Figures {
    rounds.calls_s().values().iter().map(|calls_s| 2.0 * calls_s * size as f64 / 1e6).collect()
}

fn shown(groups: &[Group]) -> Section {
    let columns = vec![
        Column::new("CPU a call", "µs", 2),
        Column::new("to HAProxy, round by round", "", 2),
        Column::new("calls/s", "", 0),
        Column::new("both ways", "MB/s", 1),
    ];
    let mut table = Table::new("size and gateway", columns);
    let mut lines: Vec<(&str, Vec<Point>, Vec<Point>)> = Vec::new();
    for group in groups {
        let x = group.size as f64;
        let peer = group.subjects.iter().find(|subject| subject.process.name == "haproxy");
        for Subject { process, rounds } in &group.subjects {
            let to_peer = peer.map_or(Cell::Nothing, |peer| rounds.cpu_to(&peer.rounds).into());
            let rate = megabytes_s(rounds, group.size);
            let (cpu, point) = (rounds.point(x), Point::of(x, &rate));
            let cells = vec![rounds.cpu_us().into(), to_peer, rounds.calls_s().into(), rate.into()];
            table.row(format!("{}, {}", written(group.size), process.name), cells);
            if !lines.iter().any(|line| line.0 == process.name) {
                lines.push((process.name, Vec::new(), Vec::new()));
            }
            if let Some(line) = lines.iter_mut().find(|line| line.0 == process.name) {
                line.1.push(cpu);
                line.2.push(point);
            }
        }
    }
    let bytes = || Axis::log("bytes of the call, and of its answer").of_bytes();
    let mut cpu = Chart::new("CPU a call by size", bytes(), Axis::fitting("CPU a call, µs"));
    let mut rate = Chart::new("Bytes a second by size", bytes(), Axis::linear("both ways, MB/s"));
    for (name, cpus, rates) in lines {
        cpu = cpu.series(Series::new(name, cpus));
        rate = rate.series(Series::new(name, rates));
    }
    Section::new("Message sizes")
        .note(format!(
            "A call of so many bytes is answered with a text of as many. At most {} MiB of calls a point a round.",
            ROUND_BYTES / 1024 / 1024
        ))
        .table(table)
        .chart(cpu)
        .chart(rate)
}

fn written(size: usize) -> String {
    if size >= 1024 { format!("{} KiB", size / 1024) } else { format!("{size} B") }
}
