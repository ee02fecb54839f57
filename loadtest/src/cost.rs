//! `loadtest cost`: the CPU time of a call through ringwall, HAProxy and nginx, in interleaved rounds.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cpu;
use super::figures::Figures;
use super::generate::{self, Door, Load};
use super::process::{self, Running, Scratch, TOKEN};

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
}

/// A process and what its rounds have shown.
struct Measured {
    process: Running,
    rounds: Vec<Round>,
}

struct Round {
    cpu_ns: u64,
    calls_s: f64,
    p50_us: f64,
    p99_us: f64,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
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
                measured.push(Measured { process, rounds: Vec::new() });
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
                measured.rounds.push(Round {
                    cpu_ns,
                    calls_s: outcome.calls_per_s(),
                    p50_us: outcome.latency_us(0.5),
                    p99_us: outcome.latency_us(0.99),
                });
            }
        }
    }
    print(args, &measured);
    Ok(())
}

fn print(args: &Args, measured: &[Measured]) {
    println!(
        "\n{} connections, {} calls of 291 bytes a round, {} rounds, one worker on a core of its own\n",
        args.connections, args.calls, args.rounds
    );
    println!("| | CPU a call, µs (median, min–max) | to HAProxy | calls/s | p50 µs | p99 µs |");
    println!("|---|---|---|---|---|---|");
    let of = |measured: &Measured, value: fn(&Round) -> f64| measured.rounds.iter().map(value).collect::<Figures>();
    let cpu = |measured: &Measured| of(measured, |round| round.cpu_ns as f64 / 1000.0);
    let base =
        measured.iter().find(|measured| measured.process.name == "haproxy").map(|measured| cpu(measured).median());
    for measured in measured {
        println!(
            "| {} | {} | {} | {:.0} | {:.0} | {:.0} |",
            measured.process.name,
            cpu(measured).with_spread(2),
            base.map_or_else(|| "–".to_owned(), |base| format!("{:.2}", cpu(measured).median() / base)),
            of(measured, |round| round.calls_s).median(),
            of(measured, |round| round.p50_us).median(),
            of(measured, |round| round.p99_us).median(),
        );
    }
}

fn nginx(dir: &Path, port: u16, upstream: u16) -> io::Result<Option<Command>> {
    let Some(program) = process::find("nginx") else { return Ok(None) };
    let file = dir.join("nginx.conf");
    std::fs::write(&file, process::fill(include_str!("../peers/nginx.conf"), dir, port, upstream))?;
    let mut command = Command::new(program);
    command.arg("-c").arg(file).arg("-p").arg(dir).arg("-e").arg("stderr");
    Ok(Some(command))
}
