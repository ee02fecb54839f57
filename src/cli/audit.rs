//! `ringwall audit`: the trail, for people and for programs.
//!
//! All of it reads the files in `AUDIT_DIR`, rotated and gzipped ones too, beside a gateway that may be writing them; none asks the gateway. What is printed cannot
//! drive a terminal. [`verify`] alone looks at the chain.

mod export;
mod filter;
mod follow;
mod search;
mod tail;
mod verify;
mod who;

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::ask::{plain, print};
use crate::control::audit::line::PREFIX;
use crate::settings::{CommandLine, Inputs, Settings};

/// What the command line says.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    act: Act,
    /// Where the trail is, if not in AUDIT_DIR: an archive, say
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// Print the newest lines, and those that come
    Tail(tail::Args),
    /// Print the lines that say something
    Search(search::Args),
    /// Write lines as JSON lines or as a table
    Export(export::Args),
    /// Find out whether the trail is as it was written
    Verify(verify::Args),
    /// Print the pseudonym of an address, a telephone number or an e-mail address
    Who(who::Args),
}

/// Where things are.
struct Place {
    /// `AUDIT_DIR`, or what the command line says.
    trail: PathBuf,
    /// `DATA_DIR`.
    state: PathBuf,
}

impl Place {
    fn configured(dir: Option<&PathBuf>) -> Result<Self, String> {
        let loaded = Inputs::from_process(CommandLine::default()).and_then(|inputs| Settings::load(&inputs));
        let records = loaded.map_err(|faults| faults.to_string())?.settings.records;
        Ok(Self { trail: dir.cloned().unwrap_or(records.audit_dir), state: records.data_dir })
    }

    /// A sentence about a directory that cannot be read.
    fn unreadable(&self, error: &io::Error) -> String {
        format!("cannot read the audit directory {}: {error}. AUDIT_DIR says where it is", self.trail.display())
    }
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let place = match Place::configured(args.dir.as_ref()) {
        Ok(place) => place,
        Err(text) => return fail(&text),
    };
    let mut out = Out { to: BufWriter::new(Box::new(io::stdout().lock())), is_closed: false };
    let ended = match &args.act {
        Act::Tail(args) => tail::run(args, &place, &mut out),
        Act::Search(args) => search::run(args, &place, &mut out),
        Act::Export(args) => export::run(args, &place, &mut out),
        Act::Verify(args) => return verify::run(args, &place),
        Act::Who(args) => who::run(args, &place, &mut out),
    };
    out.flush();
    match ended {
        Ok(code) => code,
        Err(text) => fail(&text),
    }
}

fn fail(text: &str) -> ExitCode {
    print(&mut io::stderr(), format_args!("ringwall audit: {text}"), ExitCode::FAILURE)
}

/// Standard output, or a file. Whoever closes the pipe has seen enough.
struct Out {
    to: BufWriter<Box<dyn Write>>,
    is_closed: bool,
}

impl Out {
    fn line(&mut self, text: fmt::Arguments<'_>) {
        self.is_closed |= writeln!(self.to, "{text}").is_err();
    }

    fn flush(&mut self) {
        self.is_closed |= self.to.flush().is_err();
    }
}

/// A line's JSON.
fn json_of(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    plain(text.strip_prefix(PREFIX).unwrap_or(&text))
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
