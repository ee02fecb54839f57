//! `loadtest lines`: small calls in a pipeline over the TCP door, through ringwall and through a relay that looks at nothing.
//!
//! Both stand in front of the same echo, a thread of this process, and are driven in turns by the same generator. Calls a second show which
//! side of the machine is full: the table says how busy the measured thread and this side's two threads were. CPU time a call shows what the
//! measured side costs, however slow the others are.

mod flight;
mod generator;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::figures::Figures;
use super::process::{self, Running, Scratch, TOKEN};
use super::small_call::Dialect;
use super::{cpu, echo};
use generator::{Generator, Load};

/// Calls in flight that an upstream may have by default (`max_in_flight`).
const MAX_IN_FLIGHT: usize = 1024;

/// Arguments of `loadtest lines`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The ringwall program
    #[arg(long, default_value = "target/release/ringwall")]
    ringwall: PathBuf,
    /// Connections
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Calls in flight on each connection; times the connections at most 1024, which an upstream may have
    #[arg(long, default_value_t = 64)]
    window: usize,
    /// Calls a round
    #[arg(long, default_value_t = 500_000)]
    calls: u64,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Calls of 2026-07-28, each with its `_meta`, instead of sessions of 2025-11-25
    #[arg(long)]
    modern: bool,
    /// First of the loopback ports to use
    #[arg(long, default_value_t = 18_200)]
    port: u16,
    /// Core of the measured process
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// Core of the generator
    #[arg(long, default_value_t = 0)]
    generator_core: usize,
    /// Core of the echo
    #[arg(long, default_value_t = 0)]
    echo_core: usize,
}

struct Round {
    calls_s: f64,
    /// Of the thread that carries the calls, µs a call.
    worker_us: f64,
    /// Of the whole process, µs a call.
    process_us: f64,
    /// Of the time of the round, in percent.
    worker_busy: f64,
    generator_busy: f64,
    echo_busy: f64,
}

/// One of those that are compared.
struct Subject {
    name: &'static str,
    process: Running,
    /// Thread that carries the calls.
    thread: &'static str,
    load_port: u16,
    token: Option<&'static str>,
    rounds: Vec<Round>,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    if args.connections == 0 || args.window == 0 || args.connections.saturating_mul(args.window) > MAX_IN_FLIGHT {
        return Err(io::Error::other(format!("connections times window must be 1 to {MAX_IN_FLIGHT}")));
    }
    cpu::pin(0, args.generator_core)?;
    let scratch = Scratch::new()?;
    let echo = echo::start(args.port, args.echo_core)?;
    let mut subjects = vec![
        relay(args, scratch.path())?,
        ringwall(args, scratch.path(), args.port + 20, "ringwall", "true")?,
        ringwall(args, scratch.path(), args.port + 30, "ringwall, no audit", "false")?,
    ];
    let mut generator = Generator::new()?;
    // The first round warms up.
    for round in 0..=args.rounds {
        for subject in &mut subjects {
            let measured = measure(args, &mut generator, subject).map_err(|error| subject.process.explain(error))?;
            if round > 0 {
                subject.rounds.push(measured);
            }
        }
    }
    print(args, &subjects);
    println!("\nEvery answer was that of a call in flight on its connection. The echo listened on {echo}.");
    Ok(())
}

fn relay(args: &Args, dir: &Path) -> io::Result<Subject> {
    let port = args.port + 10;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["relay", "--port", &port.to_string(), "--upstream", &args.port.to_string()]);
    let process = Running::start("relay", &mut command, dir, port, args.core)?;
    Ok(Subject { name: "relay", process, thread: "loadtest", load_port: port, token: None, rounds: Vec::new() })
}

fn ringwall(args: &Args, dir: &Path, port: u16, name: &'static str, audit: &str) -> io::Result<Subject> {
    let upstream = format!("tcp://127.0.0.1:{}", args.port);
    let mut command = process::ringwall(&args.ringwall, dir, port, &upstream)?;
    command.env("SECURITY_AUDIT_LOG", audit);
    let process = Running::start("ringwall", &mut command, dir, port, args.core)?;
    let load_port = port + 3;
    Ok(Subject { name, process, thread: "worker-0", load_port, token: Some(TOKEN), rounds: Vec::new() })
}

fn measure(args: &Args, generator: &mut Generator, subject: &Subject) -> io::Result<Round> {
    let load = Load {
        to: ([127, 0, 0, 1], subject.load_port).into(),
        token: subject.token,
        dialect: if args.modern { Dialect::Modern } else { Dialect::Session },
        connections: args.connections,
        window: args.window,
        calls: args.calls,
    };
    let (pid, this) = (subject.process.pid(), std::process::id());
    let look = || -> io::Result<[u64; 4]> {
        Ok([
            cpu::thread_used_ns(pid, subject.thread)?,
            cpu::used_ns(pid)?,
            cpu::thread_used_ns(this, "loadtest")?,
            cpu::thread_used_ns(this, echo::THREAD)?,
        ])
    };
    let before = look()?;
    let took = generator.drive(&load)?;
    let after = look()?;
    let [worker, process, generator, echo] =
        std::array::from_fn(|i| after.get(i).zip(before.get(i)).map_or(f64::NAN, |(a, b)| a.saturating_sub(*b) as f64));
    let (calls, took_ns) = (args.calls as f64, took.as_nanos() as f64);
    Ok(Round {
        calls_s: calls / took.as_secs_f64(),
        worker_us: worker / calls / 1000.0,
        process_us: process / calls / 1000.0,
        worker_busy: worker / took_ns * 100.0,
        generator_busy: generator / took_ns * 100.0,
        echo_busy: echo / took_ns * 100.0,
    })
}

fn print(args: &Args, subjects: &[Subject]) {
    let mut call = Vec::new();
    let dialect = if args.modern { Dialect::Modern } else { Dialect::Session };
    super::small_call::write_call(&mut call, 1_000_000, dialect);
    println!(
        "\n{} connections, {} calls in flight on each, {} calls of {} bytes a round, {} rounds in turns; median (min–max)\n",
        args.connections,
        args.window,
        args.calls,
        call.len(),
        args.rounds
    );
    println!(
        "| | calls/s | CPU a call, its worker, µs | CPU a call, its process, µs | its worker busy, % | generator, % | echo, % |"
    );
    println!("|---|---|---|---|---|---|---|");
    let of = |subject: &Subject, value: fn(&Round) -> f64| subject.rounds.iter().map(value).collect::<Figures>();
    for subject in subjects {
        println!(
            "| {} | {} | {} | {} | {:.0} | {:.0} | {:.0} |",
            subject.name,
            of(subject, |round| round.calls_s).with_spread(0),
            of(subject, |round| round.worker_us).with_spread(2),
            of(subject, |round| round.process_us).with_spread(2),
            of(subject, |round| round.worker_busy).median(),
            of(subject, |round| round.generator_busy).median(),
            of(subject, |round| round.echo_busy).median(),
        );
    }
    println!("\n| to the relay, round by round | calls/s | CPU a call, worker | CPU a call, process |");
    println!("|---|---|---|---|");
    let Some((relay, others)) = subjects.split_first() else { return };
    for subject in others {
        let to_relay = |value: fn(&Round) -> f64| {
            let pairs = subject.rounds.iter().zip(&relay.rounds);
            pairs.map(|(ours, relay)| value(ours) / value(relay)).collect::<Figures>().with_spread(2)
        };
        println!(
            "| {} | {} | {} | {} |",
            subject.name,
            to_relay(|round| round.calls_s),
            to_relay(|round| round.worker_us),
            to_relay(|round| round.process_us)
        );
    }
}
