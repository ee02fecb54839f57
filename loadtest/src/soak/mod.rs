//! `loadtest soak`: all doors, normal calls, and the faults of [`super::faults`] at random moments, for as long as wanted.
//!
//! What is chosen by chance is chosen by the seed that is printed. What happens when is not: the machine decides that.

use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::faults::arguments::Common;
use super::faults::fault::{Door, Fault};
use super::faults::gateway::Setup;
use super::faults::output::Record;
use super::faults::rng::Rng;
use super::faults::run::{self, Crowd, Disk};
use super::faults::stage::{Active, Layout, Stage, fresh_dir};
use super::faults::{Rudeness, in_runtime, misbehave};
use super::machine;
use super::process::Scratch;

/// Arguments of `loadtest soak`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// How long it is driven
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Mean milliseconds between two calls of a client
    #[arg(long, default_value_t = 40)]
    pace_ms: u64,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    let seed = args.common.seed();
    println!("seed {seed}, {} minutes; {}\n", args.minutes, machine::describe());
    let scratch = Scratch::new()?;
    let dir = fresh_dir(&args.common.home(&scratch), "soak")?;
    let audit = dir.join("audit");
    let time = Duration::from_secs_f64((args.minutes * 60.0).clamp(1.0, 7.0 * 86_400.0));
    let program = &args.common.ringwall;
    let setup =
        Setup { program, dir: &dir, audit: &audit, wrapper: Vec::new(), is_production: false, settings: Vec::new() };
    let plan = args.common.plan(setup, Layout::Several, seed, Duration::from_secs(10).min(time / 2));
    let verdicts = in_runtime(run::make(&plan, async |stage, rng, _| {
        stage.pace_ms.set(args.pace_ms);
        drive(stage, rng, time).await;
        Ok(Disk::default())
    }))?;
    let mut record = Record::new("soak", seed);
    record.add("soak", verdicts);
    record.end(args.common.json.as_deref())
}

/// Drives for so long: a crowd that changes, and one thing after the other that breaks.
async fn drive(stage: &Rc<Stage>, rng: &mut Rng, time: Duration) {
    let end = Instant::now() + time;
    let mut told = Instant::now();
    while Instant::now() < end {
        // Clients come and go: each crowd stays for a minute.
        let each = 1 + usize::try_from(rng.below(3)).unwrap_or(0);
        let clients = Crowd::gather(stage, rng, each);
        let until = end.min(Instant::now() + Duration::from_secs(60));
        let mut visits = JoinSet::new();
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(200 + rng.below(1500)).min(end - Instant::now().min(end))).await;
            happen(stage, rng, &mut visits).await;
            if told.elapsed() > Duration::from_secs(30) {
                told = Instant::now();
                let (left, calls) = ((end - told.min(end)).as_secs(), stage.ledger.last());
                eprintln!("{calls} calls, {} violations, {left} s left", stage.ledger.violations().0.len());
            }
        }
        stage.active.set(None);
        while visits.join_next().await.is_some() {}
        clients.leave(stage).await;
    }
}

/// One thing happens.
async fn happen(stage: &Rc<Stage>, rng: &mut Rng, visits: &mut JoinSet<()>) {
    let victim = 1 + usize::try_from(rng.below(stage.upstreams.len() as u64 - 1)).unwrap_or(0);
    let Some(upstream) = stage.upstreams.get(victim) else { return };
    match rng.below(100) {
        // Some calls of one upstream.
        0..50 => {
            let fault = rng.one_of(Fault::all()).filter(|fault| fault.fits(upstream.kind)).unwrap_or(Fault::Stall);
            let share = if matches!(fault, Fault::Oversize) { 1 } else { 2 + rng.below(15) };
            stage.active.set(Some(Active { upstream: victim, fault, share }));
            tokio::time::sleep(Duration::from_millis(200 + rng.below(2000))).await;
            stage.active.set(None);
        }
        50..56 => {
            upstream.kill().await;
            tokio::time::sleep(Duration::from_millis(rng.below(1500))).await;
            if let Err(error) = upstream.restart().await {
                stage.ledger.violated("every call has ended", format!("the harness cannot listen again: {error}"));
            }
        }
        // It closes what it has, in good order or not, as servers do.
        56..62 => {
            stage.ledger.disturb(victim);
            upstream.hang_up();
            stage.ledger.calm(victim);
        }
        62..90 => {
            for _ in 0..1 + rng.below(6) {
                let (Some(how), Some(door)) = (rng.one_of(&Rudeness::ALL), rng.one_of(&Door::ALL)) else { return };
                let at = usize::try_from(rng.below(stage.upstreams.len() as u64)).unwrap_or(0);
                let (stage, mut rng) = (stage.clone(), rng.fork());
                visits.spawn_local(async move {
                    let from = Ipv4Addr::new(127, 0, 0, 20 + rng.below(8) as u8);
                    // What breaks is its own doing.
                    let _ = misbehave(&stage, how, door, at, from, &mut rng).await;
                });
            }
        }
        // Nothing: all must be right again.
        _ => tokio::time::sleep(Duration::from_secs(2)).await,
    }
    while visits.len() > 60 {
        visits.join_next().await;
    }
}
