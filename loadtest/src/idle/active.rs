//! What one active client notices of thousands of idle ones.
//!
//! Two gateways of the same kind: one holds the idle connections, the other none. They are called in turns, and the one that is not called is
//! stopped meanwhile, so that its housekeeping is not counted against the other.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use hdrhistogram::Histogram;
use rustix::process::{Pid, Signal, kill_process};

use super::super::figures::Figures;
use super::super::process::Running;
use super::super::websocket::Client;

/// Calls before those that are counted: a process that was stopped has to catch up first.
const WARM_UP: u64 = 2_000;

/// Latencies of one round, µs.
#[derive(Clone, Copy)]
struct Latency {
    p50: f64,
    p99: f64,
}

/// Calls both in turns and prints the difference.
pub(super) fn compare(
    idle: &Running,
    alone: &Running,
    connections: usize,
    calls: u64,
    rounds: usize,
) -> io::Result<()> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        // Neither is always the first.
        let idle_first = round % 2 == 0;
        for is_idle in [idle_first, !idle_first] {
            let (called, other) = if is_idle { (idle, alone) } else { (alone, idle) };
            signal(other, Signal::STOP)?;
            let latency = measure(called.address, calls).map_err(|error| called.explain(error));
            signal(other, Signal::CONT)?;
            // The first round warms up.
            if round > 0 {
                if is_idle { &mut with } else { &mut without }.push(latency?);
            } else {
                latency?;
            }
        }
    }
    println!("\n| one client, {calls} calls a round in a closed loop, {rounds} rounds in turns | p50, µs | p99, µs |");
    println!("|---|---|---|");
    let line = |name: &str, rounds: &[Latency]| {
        let p50: Figures = rounds.iter().map(|latency| latency.p50).collect();
        let p99: Figures = rounds.iter().map(|latency| latency.p99).collect();
        println!("| {name} | {} | {} |", p50.with_spread(1), p99.with_spread(1));
    };
    line("no idle connections", &without);
    line(&format!("{connections} idle connections"), &with);
    let change = |value: fn(&Latency) -> f64| {
        let pairs = with.iter().zip(&without);
        pairs.map(|(with, without)| (value(with) / value(without) - 1.0) * 100.0).collect::<Figures>().with_spread(1)
    };
    println!("| change, round by round, % | {} | {} |", change(|latency| latency.p50), change(|latency| latency.p99));
    Ok(())
}

fn signal(process: &Running, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(process.pid()).ok().and_then(Pid::from_raw);
    Ok(kill_process(pid.ok_or_else(|| io::Error::other("no process id"))?, signal)?)
}

fn measure(to: SocketAddr, calls: u64) -> io::Result<Latency> {
    let mut client = Client::connect(to)?;
    let mut latency = Histogram::<u64>::new_with_max(60_000_000_000, 3).map_err(io::Error::other)?;
    for id in 1..=WARM_UP {
        client.call(id)?;
    }
    for id in WARM_UP + 1..=WARM_UP + calls {
        let started = Instant::now();
        client.call(id)?;
        latency.saturating_record(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Latency { p50: at(0.5), p99: at(0.99) })
}
