//! `ringwall inspect`: what the guards would find in a message, and why.
//!
//! It reads the settings and the policy, and asks no running gateway. Exit status: 0 if the message would pass, 1 if it would be refused, 2 if it is
//! no message. It prints where something was found and by which rule, never the value: what it prints may be kept.

use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use crate::guard::inspect::{Found, Inspection, Scratch};
use crate::rpc::parser::is_batch;
use crate::rpc::{Method, Parser, Span};
use crate::settings::{CommandLine, Inputs, Settings};

/// Largest input that is read: the largest message that settings can allow is far below.
const INPUT_MAX: u64 = 64 * 1024 * 1024;

/// Status of an input that is no message, or of settings that cannot be read.
const UNUSABLE: u8 = 2;

/// Arguments of `ringwall inspect`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// A file with one JSON-RPC message or a batch; - reads standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The upstream that the call is for, where the policy says something of its tools alone
    #[arg(long, value_name = "NAME")]
    pub upstream: Option<String>,
    /// Print one JSON document a message instead of text
    #[arg(long)]
    pub json: bool,
}

/// What became of one message.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passes,
    Found(Box<Found>),
}

#[derive(Serialize)]
struct Line<'a> {
    passes: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_key: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disguised: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let verdicts = read(&args.file).and_then(|message| {
        let inputs = Inputs::from_process(CommandLine::default());
        let loaded = inputs.and_then(|inputs| Settings::load(&inputs)).map_err(|faults| {
            let first = faults.faults.first().map(ToString::to_string).unwrap_or_default();
            format!("these settings are not accepted (ringwall check says all that is wrong): {first}")
        })?;
        inspect(&message, &loaded.settings, args.upstream.as_deref()).map(|verdicts| (verdicts, loaded.settings))
    });
    let (verdicts, settings) = match verdicts {
        Ok(verdicts) => verdicts,
        Err(why) => {
            eprintln!("ringwall inspect: {why}");
            return ExitCode::from(UNUSABLE);
        }
    };
    let mut text = String::new();
    for verdict in &verdicts {
        text.push_str(&if args.json { json(verdict) } else { plain(verdict) });
        text.push('\n');
    }
    if settings.sanitize != crate::settings::SanitizeMode::Block && !args.json {
        text.push_str("SANITIZE_MODE is not block: a running gateway lets it pass.\n");
    }
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    let passes = verdicts.iter().all(|verdict| *verdict == Verdict::Passes);
    if passes && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read(file: &std::path::Path) -> Result<Vec<u8>, String> {
    let mut message = Vec::new();
    let outcome = if file.as_os_str() == "-" {
        std::io::stdin().lock().take(INPUT_MAX + 1).read_to_end(&mut message)
    } else {
        std::fs::File::open(file).and_then(|opened| opened.take(INPUT_MAX + 1).read_to_end(&mut message))
    };
    outcome.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    if message.len() as u64 > INPUT_MAX {
        return Err(format!("more than {INPUT_MAX} bytes"));
    }
    Ok(message)
}

/// What would be found in each message of the input.
fn inspect(input: &[u8], settings: &Settings, upstream: Option<&str>) -> Result<Vec<Verdict>, String> {
    let inspection = Inspection::new(settings.sanitize, &settings.policy);
    let mut parser = Parser::new(settings.doors.max_json_depth as usize);
    let mut spans = Vec::new();
    if is_batch(input) {
        parser.parse_batch(input, &mut spans).map_err(|fault| fault.to_string())?;
    } else {
        spans.push(Span::from_usize(0, input.len()));
    }
    let mut scratch = Scratch::default();
    let mut verdicts = Vec::with_capacity(spans.len());
    for span in spans {
        let raw = span.of(input);
        let envelope = parser.parse(raw).map_err(|fault| fault.to_string())?;
        let Some(params) = envelope.params else {
            verdicts.push(Verdict::Passes);
            continue;
        };
        let name = envelope.name.map_or("", |text| parser.text(text)).to_owned();
        // Without an upstream's name an entry for one upstream's tool counts as well: better told once too often.
        let named = || {
            let tools = &settings.policy.tools;
            match upstream {
                Some(upstream) => settings.policy.tool_index(upstream, &name),
                None => tools.iter().position(|tool| crate::settings::policy::glob_matches(&tool.pattern, &name)),
            }
        };
        let tool = || if envelope.method == Method::ToolsCall { named() } else { None };
        let found = inspection.look(parser.decoded(params), raw, tool, &mut scratch);
        let found = found.map_err(|_| "the message cannot be read".to_owned())?;
        verdicts.push(found.map_or(Verdict::Passes, |found| Verdict::Found(Box::new(found))));
    }
    Ok(verdicts)
}

fn plain(verdict: &Verdict) -> String {
    let found = match verdict {
        Verdict::Passes => return "passes: nothing was found".to_owned(),
        Verdict::Found(found) => found,
    };
    let rule = found.finding.rule;
    let key = if found.in_key { ", in a key of it" } else { "" };
    let disguise = if found.finding.disguised { " once its disguise is off" } else { "" };
    format!(
        "refused: {} ({}, {})\n  field: {}{key}\n  place: byte {} of the decoded value{disguise}\n  why:   {}",
        rule.id(),
        rule.class().name(),
        rule.severity().name(),
        found.pointer,
        found.finding.at,
        rule.sentence().trim()
    )
}

fn json(verdict: &Verdict) -> String {
    let found = match verdict {
        Verdict::Passes => None,
        Verdict::Found(found) => Some(found),
    };
    let rule = found.map(|found| found.finding.rule);
    let line = Line {
        passes: found.is_none(),
        class: rule.map(|rule| rule.class().name()),
        rule: rule.map(|rule| rule.id()),
        severity: rule.map(|rule| rule.severity().name()),
        field: found.map(|found| found.pointer.as_str()),
        in_key: found.map(|found| found.in_key),
        at: found.map(|found| found.finding.at),
        disguised: found.map(|found| found.finding.disguised),
        why: rule.map(|rule| rule.sentence().trim()),
    };
    serde_json::to_string(&line).unwrap_or_else(|_| plain(verdict))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn verdicts(message: &str, policy: &str) -> Result<Vec<Verdict>, String> {
        let policy = Some(("ringwall.toml".into(), policy.to_owned()));
        let inputs = Inputs { policy, ..Inputs::from_pairs(&[]) };
        let settings = Settings::load(&inputs).unwrap().settings;
        inspect(message.as_bytes(), &settings, None)
    }

    fn call(arguments: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"send","arguments":{arguments}}}}}"#
        )
    }

    #[test]
    fn says_which_rule_where_and_why_and_not_the_value() {
        let found = verdicts(&call(r#"{"note":"x' OR 'secret'='secret"}"#), "").unwrap();
        let text = plain(&found[0]);
        assert!(text.starts_with("refused: sql-condition (sql-injection, high)"), "{text}");
        assert!(text.contains("field: /params/arguments/note"), "{text}");
        let line: serde_json::Value = serde_json::from_str(&json(&found[0])).unwrap();
        assert_eq!((&line["passes"], &line["rule"]), (&false.into(), &"sql-condition".into()));
        assert!(!text.contains("secret") && !json(&found[0]).contains("secret"));
        assert_eq!(verdicts(&call(r#"{"note":"See you at six, and bring cake."}"#), "").unwrap(), [Verdict::Passes]);
    }

    #[test]
    fn goes_by_the_policy() {
        let message = call(r#"{"to":"+1 415","sql":"select 1 union select 2"}"#);
        let rule = |policy: &str| match verdicts(&message, policy).unwrap().remove(0) {
            Verdict::Passes => "",
            Verdict::Found(found) => found.finding.rule.id(),
        };
        assert_eq!(rule(""), "sql-union");
        assert_eq!(rule("[tool.send]\narguments = { sql = \"sql\" }"), "");
        assert_eq!(rule("[tool.send]\narguments = { sql = \"sql\", to = \"phone\" }"), "not-phone");
        assert_eq!(rule("[tool.send]\nexempt = [\"sql-injection\"]"), "");
        assert_eq!(rule("[inspect]\noff = [\"sql-union\"]"), "");
        assert_eq!(rule("[inspect]\noff = [\"sql-union\"]\npatterns = [\"SELECT 2\"]"), "custom");
    }

    #[test]
    fn each_message_of_a_batch_is_looked_at_and_nonsense_is_none() {
        let batch = format!("[{},{}]", call("{}"), call(r#"{"__proto__":1}"#));
        let found = verdicts(&batch, "").unwrap();
        assert_eq!(found[0], Verdict::Passes);
        assert!(plain(&found[1]).contains("prototype-key"), "{}", plain(&found[1]));
        assert!(verdicts("{", "").is_err());
    }
}
