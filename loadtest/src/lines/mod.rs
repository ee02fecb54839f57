//! `loadtest lines`: small calls in a pipeline over the TCP door, through ringwall and through a relay that looks at nothing.
//!
//! Both stand in front of the same echo, a thread of this process, and are driven in turns by the same generator. Calls a second show which
//! side of the machine is full: the table says how busy the measured thread and this side's two threads were. CPU time a call shows what the
//! measured side costs, however slow the others are. A gateway that leaves calls out of its audit trail does less than it should, so that is
//! counted too.

mod audit;
mod flight;
mod generator;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cpu::Thread;
use super::figures::Figures;
use super::process::{self, Running, Scratch, TOKEN};
use super::small_call::Dialect;
use super::{cpu, echo, machine};
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
    /// Core of ringwall's other threads, the audit writer among them
    #[arg(long, default_value_t = 0)]
    rest_core: usize,
    /// Further settings of ringwall, such as RINGWALL_ENV=production
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
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
    /// Of the calls, in percent: audit events that the gateway had no room for.
    unrecorded: f64,
}

/// One of those that are compared.
struct Subject {
    name: &'static str,
    process: Running,
    /// Thread that carries the calls.
    thread: Thread,
    load: SocketAddr,
    /// Where it tells its metrics; the relay has none.
    admin: Option<SocketAddr>,
    rounds: Vec<Round>,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    if args.connections == 0 || args.window == 0 || args.connections.saturating_mul(args.window) > MAX_IN_FLIGHT {
        return Err(io::Error::other(format!("connections times window must be 1 to {MAX_IN_FLIGHT}")));
    }
    let before = machine::describe();
    cpu::pin(0, args.generator_core)?;
    let scratch = Scratch::new()?;
    echo::start(args.port, args.echo_core)?;
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
    println!(
        "\nEvery answer was that of a call in flight on its connection. Before the run: {before}; after it: {}.",
        machine::load()
    );
    Ok(())
}

fn relay(args: &Args, dir: &Path) -> io::Result<Subject> {
    let port = args.port + 10;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["relay", "--port", &port.to_string(), "--upstream", &args.port.to_string()]);
    let process = Running::start("relay", &mut command, dir, port, args.core)?;
    let load = process.address;
    Ok(Subject { name: "relay", process, thread: Thread::Main, load, admin: None, rounds: Vec::new() })
}

fn ringwall(args: &Args, dir: &Path, port: u16, name: &'static str, audit: &str) -> io::Result<Subject> {
    let upstream = format!("tcp://127.0.0.1:{}", args.port);
    let mut command = process::ringwall(&args.ringwall, dir, port, &upstream)?;
    command.env("SECURITY_AUDIT_LOG", audit);
    for setting in &args.settings {
        let (name, value) = setting.split_once('=').ok_or_else(|| io::Error::other("--set wants NAME=VALUE"))?;
        command.env(name, value);
    }
    let process = Running::start("ringwall", &mut command, dir, port, args.core)?;
    let thread = Thread::Named("worker-0");
    cpu::pin_all_but(process.pid(), thread, args.rest_core)?;
    let door = |offset| SocketAddr::from(([127, 0, 0, 1], port + offset));
    Ok(Subject { name, process, thread, load: door(3), admin: Some(door(2)), rounds: Vec::new() })
}

fn measure(args: &Args, generator: &mut Generator, subject: &Subject) -> io::Result<Round> {
    let load = Load {
        to: subject.load,
        token: subject.admin.map(|_| TOKEN),
        dialect: if args.modern { Dialect::Modern } else { Dialect::Session },
        connections: args.connections,
        window: args.window,
        calls: args.calls,
    };
    let (pid, this) = (subject.process.pid(), std::process::id());
    let look = || -> io::Result<[u64; 5]> {
        Ok([
            cpu::thread_used_ns(pid, subject.thread)?,
            cpu::used_ns(pid)?,
            cpu::thread_used_ns(this, Thread::Main)?,
            cpu::thread_used_ns(this, Thread::Named(echo::THREAD))?,
            subject.admin.map_or(Ok(0), audit::refused)?,
        ])
    };
    let before = look()?;
    let took = generator.drive(&load)?;
    let after = look()?;
    let [worker, process, generator, echo, unrecorded] =
        std::array::from_fn(|i| after.get(i).zip(before.get(i)).map_or(f64::NAN, |(a, b)| a.saturating_sub(*b) as f64));
    let (calls, took_ns) = (args.calls as f64, took.as_nanos() as f64);
    Ok(Round {
        calls_s: calls / took.as_secs_f64(),
        worker_us: worker / calls / 1000.0,
        process_us: process / calls / 1000.0,
        worker_busy: worker / took_ns * 100.0,
        generator_busy: generator / took_ns * 100.0,
        echo_busy: echo / took_ns * 100.0,
        unrecorded: unrecorded / calls * 100.0,
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
        "| | calls/s | CPU a call, its worker, µs | CPU a call, its process, µs | its worker busy, % | generator, % | echo, % \
         | calls without audit line, % |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let of = |subject: &Subject, value: fn(&Round) -> f64| subject.rounds.iter().map(value).collect::<Figures>();
    for subject in subjects {
        println!(
            "| {} | {} | {} | {} | {:.0} | {:.0} | {:.0} | {} |",
            subject.name,
            of(subject, |round| round.calls_s).with_spread(0),
            of(subject, |round| round.worker_us).with_spread(2),
            of(subject, |round| round.process_us).with_spread(2),
            of(subject, |round| round.worker_busy).median(),
            of(subject, |round| round.generator_busy).median(),
            of(subject, |round| round.echo_busy).median(),
            subject.admin.map_or_else(|| "–".to_owned(), |_| of(subject, |round| round.unrecorded).with_spread(1)),
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
