//! `ringwall audit tail`: the newest lines, and with `--follow` those that come.
//!
//! Without a filter the files are read from their ends, block by block: at most [`MAX_LINES`] lines and [`MAX_BYTES`]. With one, or where a file is
//! gzipped, the newest files are read whole until there are lines enough.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::follow::Follower;
use super::{Out, Place, filter, json_of, readable};
use crate::control::audit::search::Filter;
use crate::control::audit::trail::{self, Lines};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How many lines
    #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=MAX_LINES))]
    lines: u32,
    /// Go on with those that come, until it is interrupted
    #[arg(short, long)]
    follow: bool,
    /// Print the lines' JSON as it is written, one a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: filter::Args,
}

/// The most lines that can be asked for.
const MAX_LINES: i64 = 100_000;
/// The most bytes read from the ends of files.
const MAX_BYTES: usize = 64 << 20;
/// Read at once, from the end towards the beginning.
const BLOCK: usize = 64 * 1024;

pub(super) fn run(args: &Args, place: &Place, out: &mut Out) -> Result<ExitCode, String> {
    let filter = args.filter.filter(&place.state)?;
    // What comes while the newest lines are looked for is not printed twice, and not missed.
    let follower = args.follow.then(|| Follower::at_the_end(&place.trail)).transpose();
    let mut follower = follower.map_err(|error| place.unreadable(&error))?;
    let paths = trail::files(&place.trail).map_err(|error| place.unreadable(&error))?;
    let unreadable = |(path, error): (PathBuf, io::Error)| format!("cannot read {}: {error}", path.display());
    let placed = trail::in_order(paths).map_err(unreadable)?;
    let files: Vec<PathBuf> = placed.into_iter().rev().map(|(path, _)| path).collect();
    let filtered = (!args.filter.is_empty()).then_some(&filter);
    let until = |path: &Path| follower.as_ref().and_then(|follower| follower.read_up_to(path));
    let lines = newest_lines(&files, args.lines as usize, filtered, until).map_err(unreadable)?;
    if lines.is_empty() && !args.follow {
        return Err(match filtered {
            Some(_) => format!("no line in {} says that", place.trail.display()),
            None => format!("there is nothing in {} yet. AUDIT_DIR says where the trail is", place.trail.display()),
        });
    }
    let show = |out: &mut Out, line: &[u8]| {
        let json = json_of(line);
        out.line(format_args!("{}", if args.json { json } else { readable(&json) }));
    };
    lines.iter().for_each(|line| show(out, line));
    out.flush();
    while let Some(follower) = follower.as_mut().filter(|_| !out.is_closed) {
        let come = follower.come(|line| {
            if filter.matches(line) {
                show(out, line);
            }
        });
        come.map_err(|error| place.unreadable(&error))?;
        out.flush();
        Follower::wait();
    }
    Ok(ExitCode::SUCCESS)
}

/// The last `wanted` whole lines over all files, given the newest file first; the oldest line first. Of a file that `until` knows, the lines before that byte.
fn newest_lines(
    files: &[PathBuf],
    wanted: usize,
    filter: Option<&Filter>,
    until: impl Fn(&Path) -> Option<u64>,
) -> Result<VecDeque<Vec<u8>>, (PathBuf, io::Error)> {
    let mut lines = VecDeque::new();
    let mut budget = MAX_BYTES;
    for path in files {
        let left = wanted - lines.len();
        if left == 0 || budget == 0 {
            break;
        }
        let (is_gz, until) = (path.extension().is_some_and(|ending| ending == "gz"), until(path).unwrap_or(u64::MAX));
        let found = match filter {
            None if !is_gz => last_lines(path, left, until, &mut budget),
            filter => last_that(path, left, until, |line| filter.is_none_or(|filter| filter.matches(line))),
        };
        for line in found.map_err(|error| (path.clone(), error))?.into_iter().rev() {
            lines.push_front(line);
        }
    }
    Ok(lines)
}

/// The last lines of a file that are wanted, read from its beginning.
fn last_that(path: &Path, left: usize, until: u64, is_wanted: impl Fn(&[u8]) -> bool) -> io::Result<Vec<Vec<u8>>> {
    let mut found = VecDeque::new();
    let mut lines = Lines::open(path)?;
    while lines.bytes() < until
        && let Some(line) = lines.next()?
    {
        if line.is_whole && is_wanted(line.bytes) {
            found.push_back(line.bytes.to_vec());
            if found.len() > left {
                found.pop_front();
            }
        }
    }
    Ok(found.into())
}

/// The last lines of a file, read from its end.
fn last_lines(path: &Path, left: usize, until: u64, budget: &mut usize) -> io::Result<Vec<Vec<u8>>> {
    let end = end_of(path, left, until, budget)?;
    // What follows the last newline is being written.
    let whole = end.iter().rposition(|byte| *byte == b'\n').and_then(|at| end.get(..at)).unwrap_or_default();
    let newest_first = whole.rsplit(|byte| *byte == b'\n').filter(|line| !line.is_empty()).take(left);
    let mut lines: Vec<Vec<u8>> = newest_first.map(<[u8]>::to_vec).collect();
    lines.reverse();
    Ok(lines)
}

/// The end of a file that holds `wanted` lines, if it has them and the budget suffices. It begins at a line's beginning.
fn end_of(path: &Path, wanted: usize, until: u64, budget: &mut usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut start = file.metadata()?.len().min(until);
    let mut blocks = VecDeque::new();
    let mut newlines = 0;
    // One newline more than lines: the one before the first.
    while start > 0 && newlines <= wanted && *budget > 0 {
        let size = usize::try_from(start).unwrap_or(usize::MAX).min(BLOCK).min(*budget);
        start -= size as u64;
        *budget -= size;
        let mut block = vec![0; size];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        newlines += block.iter().filter(|byte| **byte == b'\n').count();
        blocks.push_front(block);
    }
    let mut end: Vec<u8> = blocks.into_iter().flatten().collect();
    if start > 0 {
        let first = end.iter().position(|byte| *byte == b'\n').map_or(end.len(), |at| at + 1);
        end.drain(..first);
    }
    Ok(end)
}

#[cfg(test)]
#[path = "tail_tests.rs"]
mod tests;
