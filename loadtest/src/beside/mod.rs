//! `loadtest beside`: what clients notice while operators list every token, over and over, and the database is copied.
//!
//! One gateway with many tokens and one worker. Calls come on an open schedule, so a stall is felt by all that were due meanwhile. Rounds take turns: nothing
//! beside, both beside, nothing beside, and so on; what is beside is held against the quiet rounds before and behind it, and that difference against the
//! difference between two quiet rounds, which is what the machine does by itself.
//!
//! The whole gateway, and who copies, runs on one core, generator and upstream on another; with `--others free` the worker alone has its core, and its
//! neighbours may use both. How long the gateway takes to start with so many tokens is timed as well.

mod operators;
mod starts;

use std::io;
use std::path::PathBuf;
use std::process::Command;

use hdrhistogram::Histogram;

use super::cpu::{self, Thread};
use super::figures::Figures;
use super::generate::{self, Arrivals, Door, Load, Schedule};
use super::machine;
use super::process::{self, Running, Scratch, TOKEN};
use super::report::{Cell, Chart, Column, Goal, Outputs, Report, Section, Series, Table};
use operators::{Done, Operators};

/// Arguments of `loadtest beside`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The ringwall program
    #[arg(long, default_value = "target/release/ringwall")]
    ringwall: PathBuf,
    /// Tokens that are issued first
    #[arg(long, default_value_t = 100_000)]
    tokens: usize,
    /// Connections that calls come over
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Calls a second
    #[arg(long, default_value_t = 4_000.0)]
    rate: f64,
    /// Seconds of a round
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds with something beside; one more without
    #[arg(long, default_value_t = 8)]
    rounds: usize,
    /// Where the gateway's other threads, and who copies, run
    #[arg(long, default_value = "same")]
    others: Others,
    /// Starts that are timed, with the tokens and without any
    #[arg(long, default_value_t = 10)]
    starts: usize,
    /// First of the loopback ports to use
    #[arg(long, default_value_t = 18_700)]
    port: u16,
    /// Core of the worker; the generator and the upstream run on core 0
    #[arg(long, default_value_t = 1)]
    core: usize,
    #[command(flatten)]
    outputs: Outputs,
}

/// Cores of what is not the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Others {
    /// The worker's
    Same,
    /// Any
    Free,
}

/// What one round has shown, µs.
#[derive(Clone, Copy)]
struct Round {
    p50: f64,
    p99: f64,
    p999: f64,
    generator_late: f64,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    args.outputs.check()?;
    let sensible = args.seconds.is_finite() && (0.05..=60.0).contains(&args.seconds) && args.rate >= 1.0;
    if !sensible || args.rounds == 0 || args.tokens == 0 || args.connections == 0 {
        return Err(io::Error::other("at least one round, token, connection and call a second; 0.05 to 60 seconds"));
    }
    let mut report = Report::new("What clients notice of lists and copies", machine::describe());
    let cores = cpu::usable()?;
    cpu::pin(0, 0)?;
    let scratch = Scratch::new()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["upstream", "--port", &args.port.to_string()]);
    let _upstream = Running::start("upstream", &mut command, scratch.path(), args.port, 0)?;
    let gateway = Gateway { args, scratch: &scratch, cores: &cores };
    let without = gateway.starts()?;
    let running = gateway.start()?;
    let operators = Operators::new(args.ringwall.clone(), gateway.port() + 2, gateway.home(), args.core);
    eprintln!("issuing {} tokens", args.tokens);
    let took = operators.issue(args.tokens).map_err(|error| running.explain(error))?;
    let with = gateway.restarted(running)?;
    let running = gateway.start()?;
    gateway.place(&running)?;
    let rounds = rounds(args, &running, &operators)?;
    report.note(format!(
        "{} tokens issued in {:.1} s, each on disk before its answer.",
        args.tokens,
        took.as_secs_f64()
    ));
    report.section(rounds.section(args));
    report.section(starts::section(args.tokens, &without, &with));
    args.outputs.write(&report)
}

/// The gateway, which is started several times on the same data.
struct Gateway<'a> {
    args: &'a Args,
    scratch: &'a Scratch,
    /// Those that may be used.
    cores: &'a [usize],
}

impl Gateway<'_> {
    fn port(&self) -> u16 {
        self.args.port + 10
    }

    fn home(&self) -> PathBuf {
        self.scratch.path().join(format!("ringwall-{}", self.port()))
    }

    fn command(&self) -> io::Result<Command> {
        let upstream = format!("http://127.0.0.1:{}/mcp", self.args.port);
        let mut command = process::ringwall(&self.args.ringwall, self.scratch.path(), self.port(), &upstream)?;
        command.env("ORCHESTRATOR_SECURITY_TOKEN", operators::TOKEN);
        Ok(command)
    }

    fn start(&self) -> io::Result<Running> {
        let mut command = self.command()?;
        // What it starts it starts where it may run: the worker pins itself.
        cpu::pin_self(self.cores)?;
        let started = Running::start_unpinned("ringwall", &mut command, self.scratch.path(), self.port());
        cpu::pin(0, 0)?;
        started
    }

    /// Puts its threads where they are to run.
    fn place(&self, running: &Running) -> io::Result<()> {
        match self.args.others {
            Others::Same => cpu::pin(running.pid(), self.args.core),
            Others::Free => cpu::pin_only(running.pid(), Thread::Named("worker-0"), self.args.core),
        }
    }

    /// Ends it in good order, and times its starts.
    fn restarted(&self, running: Running) -> io::Result<Vec<f64>> {
        starts::end(running)?;
        self.starts()
    }

    fn starts(&self) -> io::Result<Vec<f64>> {
        cpu::pin_self(self.cores)?;
        let measured = (0..self.args.starts)
            .map(|_| starts::one(&mut self.command()?, self.scratch.path(), self.port()))
            .collect();
        cpu::pin(0, 0)?;
        measured
    }
}

/// A figure of a round.
type Quantity = fn(&Round) -> f64;

/// What all rounds have shown.
struct Rounds {
    quiet: Vec<Round>,
    beside: Vec<Round>,
    done: Vec<Done>,
    latencies: [Histogram<u64>; 2],
}

fn rounds(args: &Args, running: &Running, operators: &Operators) -> io::Result<Rounds> {
    let empty = || Histogram::new_with_max(60_000_000_000, 3).map_err(io::Error::other);
    let mut rounds =
        Rounds { quiet: Vec::new(), beside: Vec::new(), done: Vec::new(), latencies: [empty()?, empty()?] };
    // Warms up: all connections and all the code of both.
    measure(args, running, 0)?;
    operators.beside(|| measure(args, running, 0))?.1?;
    for number in 0..=2 * args.rounds {
        eprint!("round {number} of {}\r", 2 * args.rounds);
        let is_quiet = number % 2 == 0;
        let (round, latency) = if is_quiet {
            measure(args, running, number as u64)?
        } else {
            let (done, measured) = operators.beside(|| measure(args, running, number as u64))?;
            rounds.done.push(done);
            measured?
        };
        let [quiet, beside] = &mut rounds.latencies;
        if is_quiet { quiet } else { beside }.add(&latency).map_err(io::Error::other)?;
        if is_quiet { &mut rounds.quiet } else { &mut rounds.beside }.push(round);
    }
    eprintln!();
    Ok(rounds)
}

fn measure(args: &Args, running: &Running, seed: u64) -> io::Result<(Round, Histogram<u64>)> {
    let arrivals = Arrivals::Poisson { seed };
    let load = Load {
        token: TOKEN.to_owned(),
        connections: args.connections,
        schedule: Schedule::Open { calls_per_s: args.rate, arrivals },
        warm_up: (args.rate * 0.2) as u64,
        calls: ((args.rate * args.seconds) as u64).max(1),
        ..Load::new(Door::Http, running.address)
    };
    let outcome = generate::run(&load).map_err(|error| running.explain(error))?;
    let us = |quantile| outcome.latency_us(quantile);
    let generator_late = outcome.generator_late.as_secs_f64() * 1e6;
    Ok((Round { p50: us(0.5), p99: us(0.99), p999: us(0.999), generator_late }, outcome.latency))
}

impl Rounds {
    /// By how much each round with something beside was slower than the mean of the quiet ones around it, percent.
    fn effects(&self, of: Quantity) -> Figures {
        let around = self.quiet.windows(2).zip(&self.beside);
        let effect = |(quiet, beside): (&[Round], &Round)| {
            let mean = quiet.iter().map(of).sum::<f64>() / quiet.len() as f64;
            (of(beside) / mean - 1.0) * 100.0
        };
        around.map(effect).collect()
    }

    /// By how much each quiet round was slower than the quiet one before it, or faster, percent: as much as that is nothing.
    fn noise(&self, of: Quantity) -> Figures {
        let pairs = self.quiet.windows(2).filter_map(|pair| Some((pair.first()?, pair.last()?)));
        pairs.map(|(one, next)| ((of(next) / of(one) - 1.0) * 100.0).abs()).collect()
    }

    fn section(&self, args: &Args) -> Section {
        let kinds: [(&str, Quantity); 4] = [
            ("p50", |round| round.p50),
            ("p99", |round| round.p99),
            ("p99.9", |round| round.p999),
            ("generator late at most", |round| round.generator_late),
        ];
        let columns = kinds.map(|(name, _)| Column::new(name, "µs", 0)).into();
        let mut table = Table::new("rounds", columns);
        for (name, rounds) in [("nothing beside", &self.quiet), ("lists and copies beside", &self.beside)] {
            table.row(name, kinds.map(|(_, of)| Cell::from(rounds.iter().map(of).collect::<Figures>())).into());
        }
        let columns = kinds.iter().take(3).map(|(name, _)| Column::new(name, "%", 1)).collect();
        let mut changes = Table::new("difference", columns);
        changes.row(
            "lists and copies to the quiet rounds around",
            kinds.iter().take(3).map(|(_, of)| self.effects(*of).into()).collect(),
        );
        changes.row(
            "a quiet round to the one before",
            kinds.iter().take(3).map(|(_, of)| self.noise(*of).into()).collect(),
        );
        let p99: Quantity = |round| round.p99;
        let goal = Goal::at_most(
            "p99 beside, % over quiet; bound: the largest difference of two quiet rounds",
            self.noise(p99).high(),
            1,
            &self.effects(p99),
        );
        let sum = |of: fn(&Done) -> u64| self.done.iter().map(of).sum::<u64>();
        let [quiet, beside] = &self.latencies;
        Section::new(format!("{:.0} calls a second over HTTP, {} connections, one worker", args.rate, args.connections))
            .note(format!(
                "{} rounds of {} s with something beside, in turns with quiet ones; median (min–max). The gateway's other threads and who copies: {}.",
                args.rounds,
                args.seconds,
                if args.others == Others::Same { "on the worker's core" } else { "on any core" }
            ))
            .note(format!(
                "Beside, in these rounds together: {} pages of 500 tokens, {} whole lists, {} copies of the database.",
                sum(|done| done.pages),
                sum(|done| done.lists),
                sum(|done| done.copies)
            ))
            .table(table)
            .table(changes)
            .chart(
                Chart::latency("Latency in an open loop")
                    .series(Series::latency("nothing beside", quiet))
                    .series(Series::latency("lists and copies beside", beside)),
            )
            .goal(goal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beside_is_held_against_the_quiet_rounds_around_it() -> io::Result<()> {
        let round = |p99| Round { p50: 1.0, p99, p999: 1.0, generator_late: 0.0 };
        let empty = || Histogram::new(3).map_err(io::Error::other);
        let rounds = Rounds {
            quiet: [100.0, 200.0, 100.0].map(round).into(),
            beside: [150.0, 300.0].map(round).into(),
            done: Vec::new(),
            latencies: [empty()?, empty()?],
        };
        let p99: Quantity = |round| round.p99;
        assert_eq!(rounds.effects(p99).values(), [0.0, 100.0]);
        assert_eq!(rounds.noise(p99).values(), [50.0, 100.0]);
        Ok(())
    }
}
