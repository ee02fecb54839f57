//! `ringwall audit export`: lines for other programs, as JSON lines or as a table (RFC 4180).
//!
//! JSON lines are byte by byte what the trail has behind `[SECURITY] `, so that who has the key can verify them. In the table no cell begins like a formula.

use std::fs::OpenOptions;
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Map, Value};

use super::{Out, Place, filter, json_of, search};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    filter: filter::Args,
    /// As JSON lines or as a table
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    /// Into this file, which must not be there yet
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Jsonl,
    Csv,
}

const COLUMNS: [&str; 16] = [
    "timestamp",
    "seq",
    "event",
    "severity",
    "ip",
    "clientId",
    "agentId",
    "tool",
    "rule",
    "requestId",
    "outcome",
    "status",
    "durationUs",
    "details",
    "prev",
    "mac",
];

pub(super) fn run(args: &Args, place: &Place, out: &mut Out) -> Result<ExitCode, String> {
    let filter = args.filter.filter(&place.state)?;
    if let Some(path) = &args.output {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        out.to = BufWriter::new(Box::new(file));
    }
    if let Format::Csv = args.format {
        out.line(format_args!("{}\r", COLUMNS.join(",")));
    }
    let is_whole = search::each(place, &filter, |line| {
        let json = json_of(line);
        match args.format {
            Format::Jsonl => out.line(format_args!("{json}")),
            Format::Csv => out.line(format_args!("{}\r", row(&json))),
        }
        !out.is_closed
    })?;
    out.flush();
    match (&args.output, out.is_closed) {
        (Some(path), true) => Err(format!("cannot write {}", path.display())),
        _ if is_whole => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::FAILURE),
    }
}

fn row(json: &str) -> String {
    let fields: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
    let cell = |name: &&str| match fields.get(*name) {
        Some(Value::String(text)) => cell(text),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    COLUMNS.iter().map(cell).collect::<Vec<_>>().join(",")
}

/// A text in a table. Programs that open tables take what begins so for a formula, and run it.
fn cell(text: &str) -> String {
    let text = super::plain(text);
    let guard = if text.starts_with(['=', '+', '-', '@']) { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_all_columns_and_no_formula() {
        let json = r#"{"timestamp":"t","seq":7,"event":"tool_call","severity":"INFO","tool":"=cmd()","requestId":"\"7\"",
            "details":"a,b\nc","status":200,"prev":"00","mac":"ff"}"#;
        let expected = r#""t",7,"tool_call","INFO",,,,"'=cmd()",,"""7""",,200,,"a,b c","00","ff""#;
        assert_eq!(row(json), expected);
        assert_eq!(row("foreign").matches(',').count(), COLUMNS.len() - 1);
        for text in ["+1", "-1", "@x"] {
            assert_eq!(cell(text), format!("\"'{text}\""));
        }
    }
}
