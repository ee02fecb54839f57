//! `ringwall audit tail`: the newest lines of the audit trail, for people or, with `--json`, as they are.
//!
//! Reads the files in `AUDIT_DIR` from their ends, block by block, beside a gateway that may be writing them; at most [`MAX_LINES`] lines and
//! [`MAX_BYTES`]. It does not verify the chain. What is printed cannot drive a terminal.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::ask::{plain, print};
use crate::control::audit::files::is_log_name;
use crate::control::audit::line::PREFIX;
use crate::settings::{CommandLine, Inputs, Settings};

/// What the command line says.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// Print the newest lines
    Tail(TailArgs),
}

#[derive(Debug, clap::Args)]
struct TailArgs {
    /// How many lines
    #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=MAX_LINES))]
    lines: u32,
    /// Print the lines' JSON as it is written, one a line
    #[arg(long)]
    json: bool,
}

/// The most lines that can be asked for.
const MAX_LINES: i64 = 100_000;
/// The most bytes read.
const MAX_BYTES: usize = 64 << 20;
/// Read at once, from the end towards the beginning.
const BLOCK: usize = 64 * 1024;

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let Act::Tail(args) = &args.act;
    match tail(args) {
        Ok(text) => {
            // Whoever closes the pipe has seen enough.
            let _ = io::stdout().lock().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(text) => print(&mut io::stderr(), format_args!("ringwall audit: {text}"), ExitCode::FAILURE),
    }
}

fn tail(args: &TailArgs) -> Result<String, String> {
    let loaded = Inputs::from_process(CommandLine::default()).and_then(|inputs| Settings::load(&inputs));
    let dir = loaded.map_err(|faults| faults.to_string())?.settings.records.audit_dir;
    let files = log_files(&dir).map_err(|error| {
        format!("cannot read the audit directory {}: {error}. AUDIT_DIR says where it is", dir.display())
    })?;
    let lines = newest_lines(&files, args.lines as usize)
        .map_err(|(path, error)| format!("cannot read {}: {error}", path.display()))?;
    if lines.is_empty() {
        return Err(format!("there is nothing in {} yet. AUDIT_DIR says where the trail is", dir.display()));
    }
    let show = |line: &String| {
        let json = line.strip_prefix(PREFIX).unwrap_or(line);
        if args.json { plain(json) } else { readable(json) }
    };
    Ok(lines.iter().map(show).fold(String::new(), |text, line| text + &line + "\n"))
}

/// The trail's files, the newest first: their names sort by date.
fn log_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_log_name) {
            files.push(entry.path());
        }
    }
    files.sort_unstable_by(|a, b| b.cmp(a));
    Ok(files)
}

/// The last `wanted` whole lines over all files, the oldest first.
fn newest_lines(files: &[PathBuf], wanted: usize) -> Result<VecDeque<String>, (PathBuf, io::Error)> {
    let mut lines = VecDeque::new();
    let mut budget = MAX_BYTES;
    for path in files {
        let end = end_of(path, wanted - lines.len(), &mut budget).map_err(|error| (path.clone(), error))?;
        // What follows the last newline is being written.
        let whole = end.iter().rposition(|byte| *byte == b'\n').and_then(|at| end.get(..at)).unwrap_or_default();
        for line in whole.rsplit(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if lines.len() < wanted {
                lines.push_front(String::from_utf8_lossy(line).into_owned());
            }
        }
        if lines.len() >= wanted || budget == 0 {
            break;
        }
    }
    Ok(lines)
}

/// The end of a file that holds `wanted` lines, if it has them and the budget suffices. It begins at a line's beginning.
fn end_of(path: &Path, wanted: usize, budget: &mut usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut start = file.metadata()?.len();
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

/// A line for people: when, how serious, what, and then what else there is, in the line's order. A line that is not ours is shown as it is.
fn readable(json: &str) -> String {
    let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(json) else { return plain(json) };
    let text = |name: &str| fields.get(name).and_then(|value| value.as_str()).map(plain).unwrap_or_default();
    let mut out = format!("{}  {:<8}  {}", text("timestamp"), text("severity"), text("event"));
    for name in ["ip", "clientId", "agentId", "tool", "rule", "requestId", "outcome", "status", "durationUs", "details"]
    {
        match fields.get(name) {
            Some(serde_json::Value::String(value)) => out.push_str(&format!("  {name}={}", plain(value))),
            Some(value) => out.push_str(&format!("  {name}={}", plain(&value.to_string()))),
            None => {}
        }
    }
    out
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
