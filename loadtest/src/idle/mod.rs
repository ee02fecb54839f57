//! `loadtest idle`: what an idle WebSocket connection costs, in memory and to those that are active.
//!
//! A gateway is started and its memory read; then thousands of clients connect, and its memory is read again once it has stopped changing. Both
//! with clients that have never said anything and with clients that have made one call each. User memory alone: what the kernel holds for a socket
//! is in no process's account. HAProxy does the same as a tunnel to a backend of this tool; for each client it also holds a connection
//! to the backend, and so two descriptors.

mod active;
mod crowd;
pub(crate) mod memory;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{self, Running, Scratch};
use super::{cpu, echo, machine};
use crowd::Crowd;
use memory::bytes_each;

pub(crate) use crowd::{raise_descriptor_limit, within};
pub(crate) use memory::{Memory, QUIET};

/// No connection may be closed for its silence during a run.
const IDLE_TIMEOUT_MS: &str = "3600000";

/// Before the first look at its memory, a process serves so many connections at a time, so often.
const WARM_UP_CONNECTIONS: usize = 100;
const WARM_UP_ROUNDS: usize = 100;

/// Arguments of `loadtest idle`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The ringwall program
    #[arg(long, default_value = "target/release/ringwall")]
    ringwall: PathBuf,
    /// Idle connections; fewer where descriptors do not suffice
    #[arg(long, default_value_t = 18_000)]
    connections: usize,
    /// Measure as well what one active client notices of them
    #[arg(long)]
    active: bool,
    /// Calls a round of the active client
    #[arg(long, default_value_t = 20_000)]
    calls: u64,
    /// Rounds of the active client
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// First of the loopback ports to use
    #[arg(long, default_value_t = 18_300)]
    port: u16,
    /// Core of the measured process; the rest runs on core 0
    #[arg(long, default_value_t = 1)]
    core: usize,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    let before = machine::describe();
    cpu::pin(0, 0)?;
    let limit = crowd::raise_descriptor_limit()?;
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    echo::start(args.port, 0)?;
    let count = crowd::within(limit, args.connections, 1);
    let tunnels = crowd::within(limit, args.connections, 2);
    println!("| | idle connections | before them, KiB | with them, KiB | bytes a connection: private dirty | Pss |");
    println!("|---|---|---|---|---|---|");
    for (index, call) in [(0, false), (1, true)] {
        let gateway = ringwall(args, dir, args.port + 10 + 10 * index, count)?;
        weigh(&gateway, count, call)?;
    }
    let backend_port = args.port + 50;
    let _backend = backend(dir, backend_port)?;
    for (index, call) in [(0, false), (1, true)] {
        match haproxy(args, dir, args.port + 60 + index, backend_port, tunnels)? {
            Some(gateway) => weigh(&gateway, tunnels, call)?,
            None => println!("haproxy is not installed: left out"),
        }
    }
    println!(
        "\nHAProxy held both sides of each tunnel, {} descriptors of {limit} that a process may have.",
        2 * tunnels
    );
    if args.active {
        let idle = ringwall(args, dir, args.port + 70, count)?;
        let alone = ringwall(args, dir, args.port + 80, count)?;
        let crowd = Crowd::gather(idle.address, count, false).map_err(|error| idle.explain(error))?;
        Memory::settled(idle.pid())?;
        active::compare(&idle, &alone, count, args.calls, args.rounds)?;
        crowd.check()?;
    }
    println!("\nBefore the run: {before}; after it: {}.", machine::load());
    Ok(())
}

/// Connects the crowd and prints what it weighs.
fn weigh(gateway: &Running, count: usize, call: bool) -> io::Result<()> {
    let pid = gateway.pid();
    // What is allocated once and touched as connections come and go (rings, tables, scratch) is no connection's.
    for _ in 0..WARM_UP_ROUNDS {
        Crowd::gather(gateway.address, WARM_UP_CONNECTIONS, call).map_err(|error| gateway.explain(error))?;
    }
    let before = Memory::settled(pid)?;
    let crowd = Crowd::gather(gateway.address, count, call).map_err(|error| gateway.explain(error))?;
    let after = Memory::settled(pid)?;
    crowd.check()?;
    println!(
        "| {}, {} | {count} | {} | {} | {:.0} | {:.0} |",
        gateway.name,
        if call { "after one call each" } else { "never used" },
        before.private_dirty,
        after.private_dirty,
        bytes_each(before.private_dirty, after.private_dirty, count),
        bytes_each(before.pss, after.pss, count),
    );
    Ok(())
}

fn ringwall(args: &Args, dir: &Path, port: u16, count: usize) -> io::Result<Running> {
    let mut command = process::ringwall(&args.ringwall, dir, port, &format!("tcp://127.0.0.1:{}", args.port))?;
    let room = (count + 100).to_string();
    command.env("WS_CONNECTION_TIMEOUT", IDLE_TIMEOUT_MS).env("WS_MAX_CONNECTIONS", &room);
    Running::start("ringwall", command.env("MAX_CONNECTIONS_PER_IP", room), dir, port, args.core)
}

fn haproxy(args: &Args, dir: &Path, port: u16, backend: u16, tunnels: usize) -> io::Result<Option<Running>> {
    let template = include_str!("../../peers/haproxy-websocket.cfg").replace("@MAXCONN@", &(tunnels + 10).to_string());
    let Some(mut command) = process::haproxy(&template, dir, port, backend)? else { return Ok(None) };
    Running::start("haproxy", &mut command, dir, port, args.core).map(Some)
}

fn backend(dir: &Path, port: u16) -> io::Result<Running> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["websocket-backend", "--port", &port.to_string()]);
    Running::start("websocket-backend", &mut command, dir, port, 0)
}
