//! `loadtest faults`: what breaks is broken, one thing after the other, in front of a gateway that everybody else goes on using.
//!
//! The upstreams and the clients are this program's own. Each call says what is to become of it ([`call`]), and what its client may be told
//! is a table ([`fault`]), written from the gateway's documents; [`ledger`] holds every call against it, [`trail`] reads the audit trail without the
//! gateway's code, and [`checks`] says at the end what held.

pub(crate) mod arguments;
mod call;
pub(crate) mod checks;
pub(crate) mod client;
mod disk;
pub(crate) mod fault;
mod frames;
pub(crate) mod gateway;
pub(crate) mod ledger;
pub(crate) mod output;
pub(crate) mod pauses;
pub(crate) mod rng;
pub(crate) mod run;
mod scenarios;
pub(crate) mod stage;
pub(crate) mod trail;
pub(crate) mod upstream;
pub(crate) mod verdict;

pub(crate) use client::rude::{Rudeness, misbehave};

use std::io;
use std::path::Path;
use std::time::Duration;

use super::machine;
use super::process::Scratch;
use arguments::Common;
use gateway::Setup;
use output::Record;
use run::Verdicts;
use scenarios::Breaks;
use stage::Layout;

/// Arguments of `loadtest faults`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// These scenarios alone
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only in front of several upstreams: leave out those that are played in front of one as well
    #[arg(long)]
    several_only: bool,
    /// Name the scenarios and do nothing
    #[arg(long)]
    list: bool,
    /// Seconds of each part of a scenario
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    let all = scenarios::all();
    if args.list {
        all.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    }
    for name in &args.only {
        if !all.iter().any(|(known, _)| known == name) {
            return Err(io::Error::other(format!("there is no scenario {name}; --list names them")));
        }
    }
    let seed = args.common.seed();
    println!("seed {seed}; {}\n", machine::describe());
    let scratch = Scratch::new()?;
    let home = args.common.home(&scratch);
    let mut record = Record::new("faults", seed);
    for (name, breaks) in all {
        if !args.only.is_empty() && !args.only.contains(&name) {
            continue;
        }
        for layout in scenarios::layouts(breaks) {
            if layout != Layout::Several && args.several_only {
                continue;
            }
            let title = format!("{name}, {}", layout.name());
            match play(args, seed, breaks, layout, &stage::fresh_dir(&home, &title)?) {
                Ok(Some(verdicts)) => record.add(&title, verdicts),
                Ok(None) => {}
                Err(error) => return Err(io::Error::other(format!("{title}: {error}"))),
            }
        }
    }
    record.end(args.common.json.as_deref())
}

/// One scenario in front of one layout; `None` where it cannot be had here.
fn play(args: &Args, seed: u64, breaks: Breaks, layout: Layout, dir: &Path) -> io::Result<Option<Verdicts>> {
    let audit = dir.join("audit");
    std::fs::create_dir_all(&audit)?;
    let mut setup = Setup {
        program: &args.common.ringwall,
        dir,
        audit: &audit,
        wrapper: Vec::new(),
        is_production: false,
        settings: Vec::new(),
    };
    if let Breaks::Disk { is_production } = breaks {
        setup.is_production = is_production;
        setup.wrapper = match disk::wrapper(&audit) {
            Ok(wrapper) => wrapper,
            Err(why) => {
                println!("SKIPPED: {breaks:?}: a disk of its own cannot be mounted here: {why}\n");
                return Ok(None);
            }
        };
    }
    let plan = args.common.plan(setup, layout, seed, Duration::from_secs(3));
    let time = Duration::from_secs_f64(args.seconds.clamp(0.5, 600.0));
    let made =
        in_runtime(run::make(&plan, async |stage, rng, audit| scenarios::play(breaks, time, stage, rng, audit).await));
    made.map(Some)
}

/// Runs on this thread alone.
pub(crate) fn in_runtime<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, what)
}
