//! `ringwall audit verify`: whether the trail is as it was written, and where it first is not.
//!
//! Exit status: 0 it is; 1 it is not; 2 that could not be found out.

use std::io;
use std::process::ExitCode;

use serde_json::json;

use super::super::ask::{plain, print};
use super::Place;
use crate::control::audit::checkpoint::{self, Checkpoint, Noted};
use crate::control::audit::line::{self, ChainEnd};
use crate::control::audit::verify::{self, Expected, Fault, From, VerifyError, Whole};
use crate::control::keys;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The trail may begin with any line up to this one, because older files were given away in order; `oldest`: with any line
    #[arg(long, value_name = "LINE", value_parser = beginning)]
    from: Option<From>,
    /// This line must be there with this mac: noted earlier, in another place, from what this command printed
    #[arg(long, value_name = "LINE:MAC", value_parser = anchor)]
    anchor: Option<ChainEnd>,
    /// Do without the checkpoint in DATA_DIR; a cut-off end does not show then
    #[arg(long)]
    no_checkpoint: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, place: &Place) -> ExitCode {
    let cannot = |text: &str| {
        let text = plain(text);
        print(&mut io::stderr(), format_args!("ringwall audit: {text}"), ExitCode::from(2))
    };
    let key = match keys::load_existing(&place.state, line::KEY_FILE) {
        Ok(key) => key,
        Err(error) => return cannot(&format!("{error}. DATA_DIR says where the gateway has it")),
    };
    // Before the files are listed: all it vouches for is in them by then.
    let checkpoint = match checkpoint::read(&place.state, &key) {
        _ if args.no_checkpoint => None,
        Ok(Noted::At(checkpoint)) => Some(checkpoint),
        Ok(Noted::Nothing) => {
            let path = place.state.join(checkpoint::FILE);
            return cannot(&format!(
                "there is no checkpoint {}, so a cut-off end would not show. The gateway writes it; --no-checkpoint does without",
                path.display()
            ));
        }
        Ok(Noted::Unreadable) => {
            return cannot(
                "the checkpoint is damaged, or was signed with another audit.key; --no-checkpoint does without",
            );
        }
        Err(error) => return cannot(&format!("cannot read the checkpoint: {error}")),
    };
    let (beginning, anchor) = (args.from.unwrap_or(From::First), args.anchor.clone());
    let expected = Expected { key: &key, checkpoint, beginning, anchor };
    match verify::verify(&place.trail, &expected) {
        Ok(whole) => {
            let text = if args.json { whole_json(&whole) } else { whole_text(&whole, expected.checkpoint.as_ref()) };
            print(&mut io::stdout(), format_args!("{text}"), ExitCode::SUCCESS)
        }
        Err(VerifyError::Fault(fault)) => {
            let text = if args.json { fault_json(&fault) } else { plain(&fault.to_string()) };
            print(&mut io::stdout(), format_args!("{text}"), ExitCode::from(1))
        }
        Err(error @ VerifyError::Io { .. }) => {
            cannot(&format!("{error}. If the file has just been rotated, run it again"))
        }
    }
}

fn whole_text(whole: &Whole, checkpoint: Option<&Checkpoint>) -> String {
    let Whole { first, end, lines, files, bytes, torn } = whole;
    let mac = String::from_utf8_lossy(&end.mac);
    let mut text = match lines {
        0 => "whole: there is nothing yet".to_owned(),
        _ => format!("whole: {lines} lines, {first} to {}, in {files} files, {bytes} bytes", end.seq),
    };
    match checkpoint {
        Some(checkpoint) => text.push_str(&format!("\nthe checkpoint vouches for line {}", checkpoint.end.seq)),
        None => text.push_str("\nwithout a checkpoint: lines may be missing at the end"),
    }
    if let Some((file, bytes)) = torn {
        let file = plain(&file.display().to_string());
        text.push_str(&format!(
            "\nthe last line of {file} is being written, or was when the gateway was killed: {bytes} bytes of it"
        ));
    }
    text.push_str(&format!("\nto note elsewhere, for --anchor: {}:{mac}", end.seq));
    text
}

fn whole_json(whole: &Whole) -> String {
    json!({
        "whole": true,
        "lines": whole.lines,
        "first": whole.first,
        "last": whole.end.seq,
        "mac": String::from_utf8_lossy(&whole.end.mac),
        "files": whole.files,
        "bytes": whole.bytes,
        "torn": whole.torn.as_ref().map(|(file, _)| file.to_string_lossy()),
    })
    .to_string()
}

fn fault_json(fault: &Fault) -> String {
    json!({
        "whole": false,
        "kind": fault.kind.name(),
        "file": fault.file.to_string_lossy(),
        "line": fault.line,
        "seq": fault.seq,
        "text": fault.text,
    })
    .to_string()
}

fn beginning(text: &str) -> Result<From, String> {
    match text {
        "oldest" => Ok(From::Oldest),
        number => number.parse().map(From::Line).map_err(|_| "a line's number, or `oldest`".to_owned()),
    }
}

fn anchor(text: &str) -> Result<ChainEnd, String> {
    let parts = text.split_once(':').and_then(|(seq, mac)| Some((seq.parse().ok()?, mac.as_bytes().try_into().ok()?)));
    let (seq, mac) = parts.ok_or("a line's number, a colon, and the 64 digits of its mac")?;
    Ok(ChainEnd { seq, mac })
}
