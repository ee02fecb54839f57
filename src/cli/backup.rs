//! `ringwall backup FILE`: a copy of the database, beside a running gateway or without one.
//!
//! Reads the database of `DATA_DIR` itself, so that no gateway is held up and none need run. Exit status 1 with a sentence on standard error when
//! there is no copy; then there is no file either.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use super::ask::print;
use crate::settings::{CommandLine, Inputs, Settings};

/// What the command line says.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the copy goes
    file: PathBuf,
    /// Replace a file of that name
    #[arg(long)]
    force: bool,
}

/// Makes the copy.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    match back_up(args) {
        Ok(len) => {
            let text = format_args!("{}: {len} bytes, checked", args.file.display());
            print(&mut io::stdout(), text, ExitCode::SUCCESS)
        }
        Err(text) => print(&mut io::stderr(), format_args!("ringwall backup: {text}"), ExitCode::FAILURE),
    }
}

fn back_up(args: &Args) -> Result<u64, String> {
    let loaded = Inputs::from_process(CommandLine::default()).and_then(|inputs| Settings::load(&inputs));
    let settings = loaded.map_err(|faults| faults.to_string())?.settings;
    crate::store::backup(&settings.records.data_dir, &args.file, args.force).map_err(|error| error.to_string())
}
