//! The cases as numbers of instructions, which noise cannot touch: counted under callgrind and compared with the numbers that
//! `benches/instructions.tsv` holds.
//!
//! This program starts itself under valgrind three times, the last time with the cases in reverse order: what differs between them is
//! no property of the code, and is an error. There is a library for all this; README.md says why it is not used.

mod baseline;
mod callgrind;
mod machine;

use std::path::Path;
use std::process::ExitCode;

use baseline::{Baseline, Counts};
use machine::Machine;

/// What is to be done, by the first argument.
#[derive(Clone, Copy)]
pub(crate) enum Mode {
    /// Count and compare with the baseline.
    Compare,
    /// Count and write the baseline anew.
    Record,
    /// Run under callgrind, which counts.
    Counted {
        /// The cases in reverse order.
        reversed: bool,
    },
}

impl Mode {
    /// `None` where time is to be measured instead.
    pub(crate) fn of(argument: &str) -> Option<Self> {
        match argument {
            "--count" => Some(Self::Compare),
            "--record" => Some(Self::Record),
            callgrind::COUNTED => Some(Self::Counted { reversed: false }),
            callgrind::COUNTED_REVERSED => Some(Self::Counted { reversed: true }),
            _ => None,
        }
    }
}

/// Status of a comparison that cannot be made on this machine.
const NOT_COMPARABLE: u8 = 2;

pub(crate) fn run(mode: Mode) -> ExitCode {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.tsv");
    let done = match mode {
        Mode::Counted { reversed } => {
            callgrind::run_counted(reversed, &std::env::args().nth(2).unwrap_or_default());
            return ExitCode::SUCCESS;
        }
        Mode::Record => record(&file),
        Mode::Compare => compare(&file),
    };
    done.unwrap_or_else(|why| {
        eprintln!("{why}");
        ExitCode::FAILURE
    })
}

fn record(file: &Path) -> Result<ExitCode, String> {
    let (machine, counts) = count()?;
    let recorded = Baseline { machine, counts };
    std::fs::write(file, recorded.to_string()).map_err(|error| format!("{}: {error}", file.display()))?;
    println!("{} cases recorded in {}", recorded.counts.len(), file.display());
    Ok(ExitCode::SUCCESS)
}

fn compare(file: &Path) -> Result<ExitCode, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let baseline = Baseline::parse(&text)?;
    let rustc = machine::rustc()?;
    if rustc != baseline.machine.rustc {
        return Err(format!(
            "the baseline was recorded with rustc {}, this is {rustc}: what two compilers make of the same source cannot be compared.\n\
             To renew it: `benches/count --record` with {rustc} on a commit that {} has found good, and commit the result alone.",
            baseline.machine.rustc, baseline.machine.rustc
        ));
    }
    let (machine, counts) = count()?;
    if machine.cpu != baseline.machine.cpu {
        eprintln!(
            "NOT COMPARABLE: under valgrind this machine has other instruction sets than the baseline's, and libraries choose their code by \
             them.\nbaseline: {}\nhere:     {}",
            baseline.machine.cpu, machine.cpu
        );
        return Ok(ExitCode::from(NOT_COMPARABLE));
    }
    let verdict = baseline.compare(&counts);
    print!("{verdict}");
    if !verdict.is_good() && machine.libc != baseline.machine.libc {
        println!(
            "(recorded with {}, here is {}: its memcpy and the like are counted as well)",
            baseline.machine.libc, machine.libc
        );
    }
    Ok(if verdict.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Counts again and again and sees that all agree.
fn count() -> Result<(Machine, Counts), String> {
    let (_, reversed) = callgrind::count(true)?;
    let (_, before) = callgrind::count(false)?;
    // The last: its files stay.
    let (cpu, counts) = callgrind::count(false)?;
    baseline::check_stable(&counts, &before, baseline::AGAIN_PERCENT)?;
    baseline::check_stable(&counts, &reversed, baseline::REVERSED_PERCENT)?;
    Ok((Machine { rustc: machine::rustc()?, libc: machine::libc(), cpu }, counts))
}
