//! `loadtest cost`: the CPU time of a call through ringwall, HAProxy and nginx, in interleaved rounds.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use hdrhistogram::Histogram;

use super::figures::Figures;
use super::generate::{self, Door, Load};
use super::process::{self, Running, Scratch, TOKEN};
use super::report::{Cell, Chart, Column, Outputs, Report, Section, Series, Table};
use super::{cpu, machine};

/// Arguments of `loadtest cost`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The ringwall program
    #[arg(long, default_value = "target/release/ringwall")]
    ringwall: PathBuf,
    /// Connections, each with one call at a time
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Calls a round
    #[arg(long, default_value_t = 100_000)]
    calls: u64,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// First of the loopback ports to use
    #[arg(long, default_value_t = 18_100)]
    port: u16,
    /// Core of the measured process; the generator and the upstream run on core 0
    #[arg(long, default_value_t = 1)]
    core: usize,
    #[command(flatten)]
    outputs: Outputs,
}

/// A process and what its rounds have shown.
struct Measured {
    process: Running,
    rounds: Vec<Round>,
    /// Of all rounds together.
    latency: Histogram<u64>,
}

struct Round {
    cpu_ns: u64,
    calls_s: f64,
    p50_us: f64,
    p99_us: f64,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    args.outputs.check()?;
    let report = Report::new("CPU time of a call over HTTP", machine::describe());
    cpu::pin(0, 0)?;
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let upstream_port = args.port;
    let this = std::env::current_exe()?;
    let mut command = Command::new(this);
    command.args(["upstream", "--port", &upstream_port.to_string()]);
    let _upstream = Running::start("upstream", &mut command, dir, upstream_port, 0)?;
    let mut measured = Vec::new();
    for (index, name) in ["ringwall", "haproxy", "nginx"].into_iter().enumerate() {
        let port = args.port + 10 * (u16::try_from(index).unwrap_or(0) + 1);
        let command = match name {
            "ringwall" => {
                let upstream = format!("http://127.0.0.1:{upstream_port}/mcp");
                Some(process::ringwall(&args.ringwall, dir, port, &upstream)?)
            }
            "haproxy" => process::haproxy(include_str!("../peers/haproxy.cfg"), dir, port, upstream_port)?,
            _ => nginx(dir, port, upstream_port)?,
        };
        match command {
            Some(mut command) => {
                let process = Running::start(name, &mut command, dir, port, args.core)?;
                let latency = Histogram::new_with_max(60_000_000_000, 3).map_err(io::Error::other)?;
                measured.push(Measured { process, rounds: Vec::new(), latency });
            }
            None => println!("{name} is not installed: left out"),
        }
    }
    for round in 0..=args.rounds {
        for measured in &mut measured {
            let process = &measured.process;
            let before = cpu::used_ns(process.pid())?;
            let load = Load {
                token: TOKEN.to_owned(),
                connections: args.connections,
                warm_up: 0,
                calls: args.calls,
                ..Load::new(Door::Http, process.address)
            };
            let outcome = generate::run(&load).map_err(|error| process.explain(error))?;
            let cpu_ns = cpu::used_ns(process.pid())?.saturating_sub(before) / outcome.calls;
            // The first round warms up.
            if round > 0 {
                measured.latency.add(&outcome.latency).map_err(io::Error::other)?;
                measured.rounds.push(Round {
                    cpu_ns,
                    calls_s: outcome.calls_per_s(),
                    p50_us: outcome.latency_us(0.5),
                    p99_us: outcome.latency_us(0.99),
                });
            }
        }
    }
    args.outputs.write(&shown(args, &measured, report))
}

fn shown(args: &Args, measured: &[Measured], mut report: Report) -> Report {
    let columns = vec![
        Column::new("CPU a call", "µs", 2),
        Column::new("to HAProxy, round by round", "", 2),
        Column::new("calls/s", "", 0),
        Column::new("p50", "µs", 0),
        Column::new("p99", "µs", 0),
    ];
    let mut table = Table::new("gateway", columns);
    let mut chart = Chart::latency("Latency in a closed loop");
    let base = measured.iter().find(|measured| measured.process.name == "haproxy");
    for one in measured {
        let of = |value: fn(&Round) -> f64| one.rounds.iter().map(value).collect::<Figures>();
        let to_base = base.map_or(Cell::Nothing, |base| {
            let pairs = one.rounds.iter().zip(&base.rounds);
            pairs.map(|(one, base)| one.cpu_ns as f64 / base.cpu_ns as f64).collect::<Figures>().into()
        });
        let cpu_us = of(|round| round.cpu_ns as f64 / 1000.0).into();
        let calls_s = of(|round| round.calls_s).into();
        let (p50, p99) = (of(|round| round.p50_us).into(), of(|round| round.p99_us).into());
        table.row(one.process.name, vec![cpu_us, to_base, calls_s, p50, p99]);
        chart = chart.series(Series::latency(one.process.name, &one.latency));
    }
    report.note(format!(
        "{} connections, {} calls of 291 bytes a round, {} rounds in turns, one worker on a core of its own; median (min–max).",
        args.connections, args.calls, args.rounds
    ));
    report.note(format!("Load average after the run: {}.", machine::load()));
    report.section(Section::new("A plain call").table(table).chart(chart));
    report
}

fn nginx(dir: &Path, port: u16, upstream: u16) -> io::Result<Option<Command>> {
    let Some(program) = process::find("nginx") else { return Ok(None) };
    let file = dir.join("nginx.conf");
    std::fs::write(&file, process::fill(include_str!("../peers/nginx.conf"), dir, port, upstream))?;
    let mut command = Command::new(program);
    command.arg("-c").arg(file).arg("-p").arg(dir).arg("-e").arg("stderr");
    Ok(Some(command))
}
