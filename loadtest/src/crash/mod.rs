//! `loadtest crash`: the gateway is killed where it stands (SIGKILL), over and over, and started again on the same data. Then it must still know all
//! that anybody was told.
//!
//! Upstreams and clients are those of [`super::faults`], with nothing broken but the gateway itself. Operators issue, rotate and revoke tokens meanwhile
//! ([`operator`]), and a book is kept of what they were answered ([`book`]). Half of the calls have a price, up to a cap ([`money`]). A life of the gateway ([`life`]) begins with a look at what it remembers of the
//! lives before, goes on under load, and ends with a kill; what was on disk then is read without the gateway's code. [`checks`] says what held.
//!
//! What chance decides follows from the seed that is printed: how long each life is, and what clients and operators do. What exactly a kill interrupts,
//! the machine decides.

mod book;
mod checks;
mod disk;
mod life;
mod money;
mod operator;

use std::io;
use std::time::{Duration, Instant};

use super::faults::arguments::Common;
use super::faults::gateway::Setup;
use super::faults::in_runtime;
use super::faults::output::Record;
use super::faults::rng::Rng;
use super::faults::run::Verdicts;
use super::faults::stage::fresh_dir;
use super::machine;
use super::process::Scratch;
use life::Lives;

/// Arguments of `loadtest crash`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// How often it is killed
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// Calls with a price that the cap has room for, for each kill
    #[arg(long, default_value_t = 120)]
    cap: u64,
    /// The whole trail is verified by `ringwall audit verify` behind each so many kills, and at the end; what is new of it is always read
    #[arg(long, default_value_t = 1)]
    verify_every: u64,
}

/// When a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// So long after the program was started, whatever it has come to.
    Starting(Duration),
    /// After so long under load.
    Loaded(Duration),
    /// So long after the load has ended.
    Idle(Duration),
}

impl Moment {
    /// Of a hundred lives 20 end while they begin, 65 under load, and 15 when nothing has happened for a moment.
    fn choose(rng: &mut Rng) -> Self {
        let ms = Duration::from_millis;
        match rng.below(100) {
            0..20 => Self::Starting(Duration::from_micros(rng.below(50_000))),
            20..85 => Self::Loaded(ms(20 + rng.below(700))),
            _ => Self::Idle(ms(rng.below(150))),
        }
    }

    /// Its place in counts.
    fn index(self) -> usize {
        match self {
            Self::Starting(_) => 0,
            Self::Loaded(_) => 1,
            Self::Idle(_) => 2,
        }
    }
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    let seed = args.common.seed();
    println!("seed {seed}, {} kills; {}\n", args.kills, machine::describe());
    let scratch = Scratch::new()?;
    let dir = fresh_dir(&args.common.home(&scratch), "crash")?;
    let audit = dir.join("audit");
    let program = &args.common.ringwall;
    let cap = args.kills.saturating_mul(args.cap).min(1_000_000);
    let settings = money::settings(cap);
    let setup = Setup { program, dir: &dir, audit: &audit, wrapper: Vec::new(), is_production: false, settings };
    let verdicts = in_runtime(live(args, &setup, cap, seed))?;
    let mut record = Record::new("crash", seed);
    record.add("crash", verdicts);
    record.end(args.common.json.as_deref())
}

async fn live(args: &Args, setup: &Setup<'_>, cap: u64, seed: u64) -> io::Result<Verdicts> {
    let mut rng = Rng::new(seed);
    let mut lives = Lives::new(setup, args.common.lag(), args.verify_every.max(1), cap).await?;
    let mut told = Instant::now();
    for kill in 1..=args.kills {
        lives.live(Moment::choose(&mut rng), &mut rng).await?;
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            eprintln!("{kill} kills, {}", lives.progress());
        }
    }
    lives.last(args.kills, &mut rng).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_leaves_no_moment_out() {
        let mut rng = Rng::new(7);
        let mut counts = [0; 3];
        for _ in 0..200 {
            if let Some(count) = counts.get_mut(Moment::choose(&mut rng).index()) {
                *count += 1;
            }
        }
        assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
    }
}
