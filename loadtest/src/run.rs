//! `loadtest run`: one load against whatever listens, and what came of it.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use super::generate::{self, Arrivals, Door, Load, Mix, Outcome, Schedule};

/// Arguments of `loadtest run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the target listens
    #[arg(long, value_name = "ADDRESS:PORT")]
    target: SocketAddr,
    /// What calls go through
    #[arg(long, default_value = "http")]
    door: Door,
    /// Path of the requests
    #[arg(long, default_value = "/mcp")]
    path: String,
    /// Bearer token of the door; none is sent without it
    #[arg(long, default_value = "", hide_default_value = true)]
    token: String,
    /// Connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Calls in flight on each connection at most
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
    /// Calls a second that become due, however fast the target is; without it, each answer is followed by the next call
    #[arg(long)]
    rate: Option<f64>,
    /// With --rate: gaps between calls are random (exponential), the same for the same seed
    #[arg(long, value_name = "SEED", requires = "rate")]
    poisson: Option<u64>,
    /// Length of a call's JSON-RPC message, bytes
    #[arg(long, default_value_t = 291)]
    length: usize,
    /// Calls that are made and checked first, and not recorded
    #[arg(long, default_value_t = 1_000)]
    warm_up: u64,
    /// Calls that are recorded
    #[arg(long, default_value_t = 100_000)]
    calls: u64,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    let arrivals = args.poisson.map_or(Arrivals::Constant, |seed| Arrivals::Poisson { seed });
    let load = Load {
        path: args.path.clone(),
        token: args.token.clone(),
        connections: args.connections,
        pipeline: args.pipeline,
        schedule: args.rate.map_or(Schedule::Closed, |calls_per_s| Schedule::Open { calls_per_s, arrivals }),
        mix: Rc::new(Mix::fixed(args.length)),
        warm_up: args.warm_up,
        calls: args.calls,
        ..Load::new(args.door, args.target)
    };
    print(&load, &generate::run(&load)?);
    Ok(())
}

fn print(load: &Load, outcome: &Outcome) {
    println!("| | |\n|---|---|");
    println!("| calls, every answer right | {} |", outcome.calls);
    println!("| took, s | {:.3} |", outcome.took.as_secs_f64());
    println!("| calls/s | {:.0} |", outcome.calls_per_s());
    for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("most", 1.0)] {
        println!("| latency {name}, µs | {:.1} |", outcome.latency_us(quantile));
    }
    if load.schedule != Schedule::Closed {
        println!("| calls that were due while no connection was free | {} |", outcome.waited);
        println!(
            "| the latest that the generator was by itself, µs | {:.1} |",
            outcome.generator_late.as_secs_f64() * 1e6
        );
    }
}
