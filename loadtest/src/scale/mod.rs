//! `loadtest scale`: what a call costs, and what memory is held, as workers, connections, bytes and keys grow.
//!
//! Four sweeps, each a file. A sweep holds its points open beside each other, or goes up and down through them, and measures each once a round, so
//! that what a machine does meanwhile falls on all points alike. CPU time is that of the gateway's process alone, all its threads. Every answer is
//! checked. The figures go through `report`: tables, and a chart a figure.

mod client;
mod comers;
mod connections;
mod crowd;
mod keys;
mod point;
mod sizes;
mod waves;
mod workers;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::ValueEnum;

use super::idle::Memory;
use super::process::{self, Running, Scratch};
use super::report::{Outputs, Report};
use super::{cpu, idle, machine};

pub(crate) use crowd::{Args as CrowdArgs, run as run_crowd};

/// Between the ports of two processes; a gateway takes four.
const PORTS: u16 = 5;

/// Arguments of `loadtest scale`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The ringwall program
    #[arg(long, default_value = "target/release/ringwall")]
    ringwall: PathBuf,
    /// Only these sweeps
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Sweep>,
    /// Active connections, each with one call at a time
    #[arg(long, default_value_t = 64)]
    active: usize,
    /// Calls of a point a round; fewer where messages are long
    #[arg(long, default_value_t = 15_000)]
    calls: u64,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The most idle connections; fewer where descriptors do not suffice
    #[arg(long, default_value_t = 15_000)]
    max_connections: usize,
    /// The most keys of a kind
    #[arg(long, default_value_t = 1_000_000)]
    max_keys: u64,
    /// First of the loopback ports to use
    #[arg(long, default_value_t = 18_500)]
    port: u16,
    /// Core of the measured process; the rest runs on core 0
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// For how long a gateway must be quiet before its memory is read, ms; less than 4000 reads what is still being given back
    #[arg(long, hide = true)]
    quiet_ms: Option<u64>,
    #[command(flatten)]
    outputs: Outputs,
}

/// A gateway that had nothing to do for this long has done what a change of its connections left it to do. Longer than the second after which
/// ringwall's connections give their buffers back.
const QUIET: Duration = Duration::from_millis(1_250);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sweep {
    Workers,
    Connections,
    Sizes,
    Keys,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    if args.active == 0 || args.calls == 0 || args.rounds == 0 || args.max_keys == 0 {
        return Err(io::Error::other("--active, --calls, --rounds and --max-keys must be at least 1"));
    }
    args.outputs.check()?;
    let mut report = Report::new("What a call costs as load grows", machine::describe());
    report.version("ringwall", machine::version(&args.ringwall, "--version"));
    report.note(format!(
        "{} active connections with one call at a time, {} calls of a point a round, {} rounds over all points in turns; median (min–max). \
         CPU time is that of the measured process, all its threads. ringwall with authentication, audit trail and metrics on, rate limits off.",
        args.active, args.calls, args.rounds
    ));
    let mut bench = Bench::new(args)?;
    for sweep in Sweep::value_variants() {
        if !args.only.is_empty() && !args.only.contains(sweep) {
            continue;
        }
        let sections = match sweep {
            Sweep::Workers => vec![workers::sweep(&mut bench)?],
            Sweep::Connections => connections::sweep(&mut bench)?,
            Sweep::Sizes => vec![sizes::sweep(&mut bench, &mut report)?],
            Sweep::Keys => keys::sweep(&mut bench)?,
        };
        sections.into_iter().for_each(|section| report.section(section));
    }
    report.note(format!("Load average after the run: {}.", machine::load()));
    args.outputs.write(&report)
}

/// What all sweeps share: arguments, a directory, ports.
struct Bench<'a> {
    args: &'a Args,
    scratch: Scratch,
    next_port: u16,
    /// Descriptors that a process may have.
    descriptors: usize,
    /// Cores that this process may use.
    cores: rustix::thread::CpuSet,
}

impl<'a> Bench<'a> {
    fn new(args: &'a Args) -> io::Result<Self> {
        let descriptors = idle::raise_descriptor_limit()?;
        let cores = rustix::thread::sched_getaffinity(None)?;
        cpu::pin(0, 0)?;
        Ok(Self { args, scratch: Scratch::new()?, next_port: args.port, descriptors, cores })
    }

    fn dir(&self) -> &Path {
        self.scratch.path()
    }

    fn port(&mut self) -> io::Result<u16> {
        let port = self.next_port;
        self.next_port = port.checked_add(PORTS).ok_or_else(|| io::Error::other("--port is too high"))?;
        Ok(port)
    }

    /// A sample upstream, with further arguments.
    fn upstream(&mut self, more: &[String]) -> io::Result<Running> {
        let port = self.port()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["upstream", "--port", &port.to_string()]).args(more);
        Running::start("upstream", &mut command, self.dir(), port, 0)
    }

    /// A gateway in front of this upstream, before it is started, and its port.
    fn ringwall(&mut self, upstream: &Running) -> io::Result<(Command, u16)> {
        let port = self.port()?;
        let url = format!("http://{}/mcp", upstream.address);
        Ok((process::ringwall(&self.args.ringwall, self.dir(), port, &url)?, port))
    }

    /// A gateway with these settings beside the common ones, on the measured core.
    fn gateway(&mut self, upstream: &Running, settings: &[(&str, String)]) -> io::Result<Running> {
        let (mut command, port) = self.ringwall(upstream)?;
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        Running::start("ringwall", &mut command, self.dir(), port, self.args.core)
    }

    /// Waits until a gateway has nothing to do.
    fn wait_idle(&self, gateway: &Running) -> io::Result<()> {
        point::idle_for(gateway, self.args.quiet_ms.map_or(QUIET, Duration::from_millis))
    }

    /// Memory of a gateway once it has settled, MiB: its own pages that it has written.
    fn memory_mib(&self, gateway: &Running) -> io::Result<f64> {
        let quiet = self.args.quiet_ms.map_or(idle::QUIET, Duration::from_millis);
        Ok(Memory::unchanged_for(gateway.pid(), quiet)?.private_dirty as f64 / 1024.0)
    }

    /// How far a sweep has come, on the terminal.
    fn progress(&self, sweep: &str, round: usize) {
        eprintln!("{sweep}: round {round} of {}", self.args.rounds);
    }
}
