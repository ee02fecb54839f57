//! `loadtest hold`: becomes another program, on one core, that ends when the one that has started it does.
//!
//! A program that is measured is stopped most of the time, and would be left behind so by a run that is interrupted. And a program that counts the
//! cores it may use at its start, as the runtimes of Go and Rust do, has to be on its core by then.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::cpu;

/// Arguments of `loadtest hold`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The process that it ends with, which has started it
    #[arg(long)]
    parent: u32,
    /// The one core that it may use
    #[arg(long)]
    core: Option<usize>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have ended before.
    let parent = getppid().map(|parent| parent.as_raw_nonzero().get().cast_unsigned());
    if parent != Some(args.parent) {
        return Err(io::Error::other("the process that has started this one is gone"));
    }
    if let Some(core) = args.core {
        cpu::pin(0, core)?;
    }
    let Some((program, rest)) = args.command.split_first() else { return Err(io::Error::other("no program")) };
    Err(Command::new(program).args(rest).exec())
}
