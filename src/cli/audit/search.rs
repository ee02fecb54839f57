//! `ringwall audit search`: every line that says what is asked for, the oldest first.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::super::ask::{plain, print};
use super::{Out, Place, filter, json_of, readable};
use crate::control::audit::search::Filter;
use crate::control::audit::trail::{self, Lines};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    filter: filter::Args,
    /// Print at most so many lines
    #[arg(short = 'n', long, default_value_t = u64::MAX, hide_default_value = true)]
    lines: u64,
    /// Print the lines' JSON as it is written, one a line
    #[arg(long)]
    json: bool,
}

/// Succeeds when there was a line.
pub(super) fn run(args: &Args, place: &Place, out: &mut Out) -> Result<ExitCode, String> {
    let filter = args.filter.filter(&place.state)?;
    let mut found = 0;
    let is_whole = each(place, &filter, |line| {
        let json = json_of(line);
        out.line(format_args!("{}", if args.json { json } else { readable(&json) }));
        found += 1;
        found < args.lines && !out.is_closed
    })?;
    Ok(if found > 0 && is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Shows the lines that say what is asked for, until that is enough. False when some file could not be read to its end, which is said.
pub(super) fn each(place: &Place, filter: &Filter, mut show: impl FnMut(&[u8]) -> bool) -> Result<bool, String> {
    let unreadable = |(path, error): (PathBuf, io::Error)| format!("cannot read {}: {error}", path.display());
    let paths = trail::files(&place.trail).map_err(|error| place.unreadable(&error))?;
    let mut is_whole = true;
    for (path, _) in trail::in_order(paths).map_err(unreadable)? {
        match in_file(&path, filter, &mut show) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                is_whole = false;
                let text = plain(&unreadable((path, error)));
                let _ = print(&mut io::stderr(), format_args!("ringwall audit: {text}"), ExitCode::FAILURE);
            }
        }
    }
    Ok(is_whole)
}

/// False: that was enough.
fn in_file(path: &Path, filter: &Filter, show: &mut impl FnMut(&[u8]) -> bool) -> io::Result<bool> {
    let mut lines = Lines::open(path)?;
    while let Some(line) = lines.next()? {
        if line.is_whole && filter.matches(line.bytes) && !show(line.bytes) {
            return Ok(false);
        }
    }
    Ok(true)
}
