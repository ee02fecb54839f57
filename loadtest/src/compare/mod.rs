//! `loadtest compare`: the same calls through ringwall and all of its peers that are installed, in one run.
//!
//! All peers are started and checked first, each on the one core of measured processes, and stopped. Then, for each number of connections, rounds
//! go over all peers in turn; who is measured runs, the others are stopped. What comes of it are figures of each round, and ratios of
//! figures of the same round, so that what disturbs a round disturbs both sides of a ratio.

mod cell;
mod goals;
mod machine;
mod page;
mod rounds;
mod start_up;
mod table;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cpu;
use super::peer::{Group, Kind, Peer, Place, Program, free_ports};
use super::process::Scratch;
use cell::Cell;
use machine::{Cores, Machine};
use rounds::{Amount, Course, Failure};

/// Arguments of `loadtest compare`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The ringwall program
    #[arg(long, default_value = "target/release/ringwall")]
    ringwall: PathBuf,
    /// Who takes part, separated by commas; without it, whoever is installed
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Kind>,
    /// Numbers of connections, each with one call at a time
    #[arg(long, value_delimiter = ',', default_value = "1,8,64,512")]
    concurrency: Vec<usize>,
    /// Rounds, after one that warms up
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long a peer is driven in a round, about
    #[arg(long, default_value_t = 2.0, conflicts_with = "calls")]
    seconds: f64,
    /// Calls a round instead; a peer for which they would take longer than 20 s gets fewer
    #[arg(long)]
    calls: Option<u64>,
    /// Starts of ringwall that are timed; 0: none is
    #[arg(long, default_value_t = 10)]
    starts: usize,
    /// Core of the measured processes; without it, the last that may be used
    #[arg(long)]
    core: Option<usize>,
    /// Core of the generator; without it, the first
    #[arg(long)]
    generator_core: Option<usize>,
    /// Core of the upstream; without it, one of its own where there are three, else that of the generator
    #[arg(long)]
    upstream_core: Option<usize>,
    /// The commit that ringwall was built from, for the record
    #[arg(long)]
    commit: Option<String>,
    /// Where all figures go, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the tables go with latency curves, as one HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Where what is printed goes as well, as Markdown
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

impl Args {
    fn amount(&self) -> Amount {
        self.calls.map_or(Amount::Seconds(self.seconds), Amount::Calls)
    }

    fn kinds(&self) -> Vec<Kind> {
        // Named twice is once.
        Kind::ALL.into_iter().filter(|kind| self.peers.is_empty() || self.peers.contains(kind)).collect()
    }

    fn check(&self) -> io::Result<()> {
        let sensible = self.seconds.is_finite() && (0.05..=60.0).contains(&self.seconds);
        if !sensible || self.calls == Some(0) || self.rounds == 0 || self.concurrency.is_empty() {
            return Err(io::Error::other(
                "at least one round, one number of connections, one call; 0.05 to 60 seconds",
            ));
        }
        if self.concurrency.iter().any(|connections| !(1..=2048).contains(connections)) {
            return Err(io::Error::other("1 to 2,048 connections"));
        }
        Ok(())
    }
}

/// All that a run has shown.
struct Report {
    machine: Machine,
    /// Kind, version, and what was seen of its processes.
    peers: Vec<Member>,
    /// Peers that are not installed.
    absent: Vec<Kind>,
    failures: Vec<Failure>,
    cells: Vec<Cell>,
    open: Vec<Cell>,
    /// Calls a second of the open schedule.
    open_rate: Option<f64>,
    starts_ms: Vec<f64>,
    took: Duration,
}

/// A peer after the run.
struct Member {
    kind: Kind,
    version: String,
    pss_kib: u64,
    processes: usize,
    threads: usize,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    args.check()?;
    let began = Instant::now();
    let usable = cpu::usable()?;
    let cores = Cores::choose(args.core, args.generator_core, args.upstream_core, &usable)?;
    let mut machine = Machine::before(cores);
    cpu::pin(0, cores.generator)?;
    let scratch = Scratch::new()?;
    let (upstream, port) = start_upstream(&scratch, cores)?;
    let place = Place {
        ringwall: args.ringwall.clone(),
        installed: installed()?,
        dir: scratch.path().to_owned(),
        upstream: port,
        core: cores.measured,
    };
    let (peers, absent) = start_peers(args, &place)?;
    let mut course = Course::new(&peers, &upstream, args.rounds, args.amount());
    let mut cells = Vec::new();
    for &connections in &args.concurrency {
        cells.extend(course.closed(connections)?);
    }
    let open_rate = goals::half_of_peak(&cells);
    let open = match open_rate {
        Some(rate) => course.open(goals::CONNECTIONS, rate, &[Kind::Ringwall, Kind::Haproxy])?,
        None => Vec::new(),
    };
    let failures = course.failures;
    let starts_ms = if peers.iter().any(|peer| peer.kind == Kind::Ringwall) {
        start_up::measure(&place, args.starts, &usable)?
    } else {
        Vec::new()
    };
    let peers = members(peers)?;
    machine.after();
    let report = Report { machine, peers, absent, failures, cells, open, open_rate, starts_ms, took: began.elapsed() };
    publish(args, &report)
}

/// Where `loadtest/peers/install` puts programs: beside the directory that this program was built in.
fn installed() -> io::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let target = this.parent().and_then(std::path::Path::parent);
    Ok(target.map(|target| target.join("peers")).unwrap_or_default())
}

fn start_upstream(scratch: &Scratch, cores: Cores) -> io::Result<(Group, u16)> {
    let home = scratch.path().join("upstream");
    std::fs::create_dir_all(&home)?;
    let [port] = free_ports()?;
    let program = Program::new(std::env::current_exe()?, ["upstream", "--port", &port.to_string()]);
    let mut upstream = Group::start("upstream", &program, &home, Some(cores.upstream))?;
    upstream.listening(([127, 0, 0, 1], port).into(), program.patience)?;
    Ok((upstream, port))
}

/// Starts and checks who takes part, and stops each. Who was named and is not there is an error.
fn start_peers(args: &Args, place: &Place) -> io::Result<(Vec<Peer>, Vec<Kind>)> {
    let (mut peers, mut absent) = (Vec::new(), Vec::new());
    for kind in args.kinds() {
        let Some(peer) = Peer::start(kind, place)? else {
            if !args.peers.is_empty() {
                return Err(io::Error::other(format!("{} is not installed", kind.slug())));
            }
            eprintln!("{} is not installed: left out", kind.title());
            absent.push(kind);
            continue;
        };
        eprintln!("{} {}: started and checked", kind.title(), peer.version);
        peer.group.stop()?;
        peers.push(peer);
    }
    Ok((peers, absent))
}

fn members(peers: Vec<Peer>) -> io::Result<Vec<Member>> {
    let member = |peer: Peer| {
        let (processes, threads) = peer.group.size()?;
        let pss_kib = peer.group.pss_kib()?;
        Ok(Member { kind: peer.kind, version: peer.version, pss_kib, processes, threads })
    };
    peers.into_iter().map(member).collect()
}

fn publish(args: &Args, report: &Report) -> io::Result<()> {
    let text = table::markdown(args, report);
    println!("{text}");
    if let Some(file) = &args.record {
        std::fs::write(file, format!("# loadtest compare, {}\n\n{text}", report.machine.date))?;
    }
    if let Some(file) = &args.html {
        std::fs::write(file, page::of_run(report).html())?;
    }
    if let Some(file) = &args.json {
        std::fs::write(file, serde_json::to_vec_pretty(&as_json(args, report))?)?;
    }
    Ok(())
}

fn as_json(args: &Args, report: &Report) -> Value {
    let peer = |member: &Member| {
        json!({"peer": member.kind.slug(), "version": member.version, "pss_kib": member.pss_kib,
               "processes": member.processes, "threads": member.threads})
    };
    let goal = |goal: &goals::Goal| {
        json!({"goal": goal.what, "limit": goal.limit, "at_most": goal.at_most,
               "median": goal.figures.is_some().then(|| goal.median()), "held": goal.held()})
    };
    let failure = |failure: &Failure| json!({"peer": failure.kind.slug(), "connections": failure.connections, "why": failure.why});
    json!({
        "command": "compare", "date": report.machine.date, "machine": report.machine.describe(), "commit": args.commit,
        "rounds": args.rounds, "peers": report.peers.iter().map(peer).collect::<Vec<_>>(),
        "absent": report.absent.iter().map(|kind| kind.slug()).collect::<Vec<_>>(),
        "cells": report.cells.iter().map(Cell::as_json).collect::<Vec<_>>(),
        "failures": report.failures.iter().map(failure).collect::<Vec<_>>(),
        "open_calls_per_s": report.open_rate,
        "open": report.open.iter().map(Cell::as_json).collect::<Vec<_>>(),
        "starts_ms": report.starts_ms,
        "goals": goals::all(report).iter().map(goal).collect::<Vec<_>>(),
        "took_s": report.took.as_secs_f64(),
    })
}
