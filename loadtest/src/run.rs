//! `loadtest run`: one load against whatever listens, and what came of it.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::generate::{self, Arrivals, Door, Load, Mix, Outcome, Schedule, Seen, Tls};
use super::machine;
use super::report::{Cell, Chart, Column, Report, Section, Series, Table};
use super::small_call::Dialect;
use super::upstream::answer::Answers;

/// Different calls of a fixed length, where some of them are to fail.
const VARIED: usize = 1_000;

/// Arguments of `loadtest run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the target listens
    #[arg(long, value_name = "ADDRESS:PORT")]
    target: SocketAddr,
    /// What calls go through
    #[arg(long, default_value = "http")]
    door: Door,
    /// Path of the requests, or where the door is opened: /mcp, /ws, /sse by default
    #[arg(long)]
    path: Option<String>,
    /// Certificates that are trusted, PEM: the target is spoken to over TLS
    #[arg(long, value_name = "FILE", requires = "tls_name")]
    tls_ca: Option<PathBuf>,
    /// The name that the target's certificate bears
    #[arg(long, value_name = "NAME", requires = "tls_ca")]
    tls_name: Option<String>,
    /// Bearer token of the door; none is sent without it
    #[arg(long, default_value = "", hide_default_value = true)]
    token: String,
    /// Era of the calls
    #[arg(long, default_value = "session")]
    dialect: Dialect,
    /// HTTP: each connection opens a session first, and names it in its calls
    #[arg(long)]
    session: bool,
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
    #[arg(long, default_value_t = 291, conflicts_with = "mix")]
    length: usize,
    /// Calls from a file of JSON lines, each with "tool" and "arguments"
    #[arg(long, value_name = "FILE")]
    mix: Option<PathBuf>,
    /// Lines of the file that are taken, from its begin
    #[arg(long, value_name = "LINES", default_value_t = 10_000)]
    mix_limit: usize,
    #[command(flatten)]
    answers: Answers,
    /// An error that names its call is an answer too, and is counted
    #[arg(long)]
    allow_errors: bool,
    /// Calls that are made and checked first, and not recorded
    #[arg(long, default_value_t = 1_000)]
    warm_up: u64,
    /// Calls that are recorded
    #[arg(long, default_value_t = 100_000)]
    calls: u64,
    /// Without an answer for this long, the run has failed
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    stall: u64,
    /// Process whose CPU time for a call is printed; may be given several times
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// Core that the generator is pinned to
    #[arg(long)]
    core: Option<usize>,
    /// Says once a second how far it is, even where standard error is no terminal
    #[arg(long)]
    progress: bool,
    /// Write the results with the latency curve as one HTML page to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Writes the result with its histogram as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    if let Some(core) = args.core {
        super::cpu::pin(0, core)?;
    }
    let load = load(args)?;
    let machine = machine::describe();
    let outcome = if args.progress || io::stderr().is_terminal() {
        let mut line = ProgressLine { answered: 0, at: Duration::ZERO };
        let outcome = generate::run_watched(&load, &mut |seen| line.show(seen));
        eprintln!();
        outcome?
    } else {
        generate::run(&load)?
    };
    print(&load, &outcome);
    if let Some(file) = &args.html {
        std::fs::write(file, page(&outcome, machine).html())?;
    }
    if let Some(file) = &args.json {
        let mut file = io::BufWriter::new(std::fs::File::create(file)?);
        serde_json::to_writer(&mut file, &outcome)?;
        file.flush()?;
    }
    Ok(())
}

fn load(args: &Args) -> io::Result<Load> {
    let arrivals = args.poisson.map_or(Arrivals::Constant, |seed| Arrivals::Poisson { seed });
    let mix = match &args.mix {
        Some(file) => Mix::from_file(file, args.mix_limit)?,
        None if args.answers.fail > 0.0 => Mix::varied(args.length, VARIED),
        None => Mix::fixed(args.length),
    };
    let tls = args.tls_ca.clone().zip(args.tls_name.clone()).map(|(ca, name)| Tls { name, ca });
    Ok(Load {
        tls,
        path: args.path.clone().unwrap_or_else(|| args.door.path().to_owned()),
        token: args.token.clone(),
        dialect: args.dialect,
        session: args.session,
        connections: args.connections,
        pipeline: args.pipeline,
        schedule: args.rate.map_or(Schedule::Closed, |calls_per_s| Schedule::Open { calls_per_s, arrivals }),
        mix: Rc::new(mix.answered(&args.answers)),
        errors_allowed: args.allow_errors,
        warm_up: args.warm_up,
        calls: args.calls,
        stall: Duration::from_secs(args.stall),
        measured: args.pid.clone(),
        ..Load::new(args.door, args.target)
    })
}

/// The run as a page with its latency curve.
fn page(outcome: &Outcome, machine: String) -> Report {
    let mut report = Report::new("One load", machine);
    let mut columns = vec![Column::new("calls", "", 0), Column::new("errors", "", 0), Column::new("calls/s", "", 0)];
    let mut values = vec![outcome.calls as f64, outcome.errors as f64, outcome.calls_per_s()];
    for (name, quantile) in generate::QUANTILES {
        columns.push(Column::new(&name.replace('_', "."), "µs", 1));
        values.push(outcome.latency_us(quantile));
    }
    if let Some(cpu_us) = outcome.cpu_us() {
        columns.push(Column::new("CPU a call", "µs", 2));
        values.push(cpu_us);
    }
    let mut table = Table::new("target", columns);
    table.row("the target", values.into_iter().map(Cell::Number).collect());
    let chart = Chart::latency("Latency").series(Series::latency("the target", &outcome.latency));
    report.section(Section::new("What came of it").table(table).chart(chart));
    report
}

/// The one line that is written over and over.
struct ProgressLine {
    answered: u64,
    at: Duration,
}

impl ProgressLine {
    fn show(&mut self, seen: Seen) {
        let rate = (seen.answered - self.answered) as f64 / (seen.elapsed - self.at).as_secs_f64();
        (self.answered, self.at) = (seen.answered, seen.elapsed);
        let (answered, total) = (seen.answered, seen.total);
        let (percent, elapsed) = (answered as f64 / total as f64 * 100.0, seen.elapsed.as_secs());
        let errors = if seen.errors > 0 { format!(", {} errors", seen.errors) } else { String::new() };
        let waiting = if seen.waiting > 0 { format!(", {} wait", seen.waiting) } else { String::new() };
        eprint!("\r\x1b[K{elapsed} s: {answered} of {total} calls ({percent:.0} %), {rate:.0}/s{errors}{waiting}");
    }
}

fn print(load: &Load, outcome: &Outcome) {
    println!("| | |\n|---|---|");
    println!("| calls, every answer right | {} |", outcome.calls);
    if outcome.errors > 0 || load.errors_allowed {
        println!("| of them errors, as they were to be or allowed | {} |", outcome.errors);
    }
    println!("| took, s | {:.3} |", outcome.took.as_secs_f64());
    println!("| calls/s | {:.0} |", outcome.calls_per_s());
    for (name, quantile) in generate::QUANTILES {
        println!("| latency {}, µs | {:.1} |", name.replace('_', "."), outcome.latency_us(quantile));
    }
    if let Some(cpu) = outcome.cpu_us() {
        println!("| CPU a call of the measured, µs | {cpu:.2} |");
    }
    println!("| CPU a call of the generator, µs | {:.2} |", outcome.generator_cpu_us());
    if load.schedule != Schedule::Closed {
        println!("| calls that were due while no connection was free | {} |", outcome.waited);
        let late = outcome.generator_late.as_secs_f64() * 1e6;
        println!("| the latest that the generator was by itself, µs | {late:.1} |");
    }
}
