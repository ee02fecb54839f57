//! `ringwall check`: the settings in force, where each comes from, what is doubtful and what would stop the start.
//!
//! Where the database of `DATA_DIR` can be read, beside a running gateway or without one, it is looked at for the credentials that upstreams are to be shown.
//!
//! Secrets are masked. The exit code is 1 exactly where `ringwall serve` would refuse these settings.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use serde::Serialize;

use crate::settings::{CommandLine, Effective, Fault, Faults, Inputs, Loaded, Profile, Settings, Warning};
use crate::store;
use crate::vault::keeper;

/// Arguments of `ringwall check`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Print one JSON document instead of text
    #[arg(long)]
    pub json: bool,
    /// Check as if `serve` had been given this upstream
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// Check as if `serve` had been given this stdio server
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// What there is to say.
#[derive(Default)]
struct Report {
    profile: Option<Profile>,
    effective: Vec<Effective>,
    warnings: Vec<Warning>,
    faults: Vec<Fault>,
}

/// Runs the command. Exit code 1 where `serve` would refuse to start.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let overrides = CommandLine {
        upstream_url: args.upstream.clone(),
        stdio_command: (!args.command.is_empty()).then(|| args.command.clone()),
    };
    let report = report(Inputs::from_process(overrides).and_then(|inputs| Settings::load(&inputs)));
    let text = if args.json { report.json() } else { report.text() };
    let written = io::stdout().lock().write_all(text.as_bytes());
    if report.faults.is_empty() && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(loaded: Result<Loaded, Faults>) -> Report {
    match loaded {
        Ok(loaded) => {
            let faults = loaded.unservable();
            let Loaded { settings, mut warnings, effective } = loaded;
            warnings.extend(missing_credentials(&settings));
            Report { profile: Some(settings.profile), effective, warnings, faults }
        }
        Err(Faults { faults, warnings }) => Report { faults, warnings, ..Report::default() },
    }
}

/// Upstreams whose credential the vault cannot give.
fn missing_credentials(settings: &Settings) -> Vec<Warning> {
    let Some(records) = store::credentials::credentials_in(&settings.records.data_dir) else { return Vec::new() };
    let warning = |(upstream, name, why): (&str, &str, &str)| Warning {
        name: format!("upstream.{upstream}.credential"),
        text: format!("{why}, so every call to this upstream is refused; run `ringwall vault put {name}`"),
    };
    keeper::lacking(settings, &records).into_iter().map(warning).collect()
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::new();
        let width = |of: fn(&Effective) -> usize| self.effective.iter().map(of).max().unwrap_or(0).min(48);
        let (names, values) = (width(|one| one.name.len()), width(|one| one.value_shown.len()));
        for Effective { name, value_shown, source } in &self.effective {
            let _ = writeln!(text, "{name:names$}  {value_shown:values$}  {source}");
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "warning: {warning}");
        }
        for fault in &self.faults {
            let _ = writeln!(text, "fault: {fault}");
        }
        let _ = match (self.profile, self.faults.len()) {
            (Some(profile), 0) => {
                writeln!(text, "{}: these settings are accepted.", name_of(profile))
            }
            (_, 1) => writeln!(text, "1 fault: ringwall would not start with these settings."),
            (_, count) => writeln!(text, "{count} faults: ringwall would not start with these settings."),
        };
        text
    }

    fn json(&self) -> String {
        let document = Document {
            ok: self.faults.is_empty(),
            profile: self.profile.map(name_of),
            settings: self
                .effective
                .iter()
                .map(|one| Line { name: &one.name, value: &one.value_shown, source: one.source.to_string() })
                .collect(),
            warnings: self.warnings.iter().map(|one| Note { name: &one.name, text: &one.text }).collect(),
            faults: self.faults.iter().map(FaultLine::of).collect(),
        };
        // A document of text and flags always becomes JSON; the text form is there for the case that it does not.
        serde_json::to_string_pretty(&document).map_or_else(|_| self.text(), |json| json + "\n")
    }
}

fn name_of(profile: Profile) -> &'static str {
    match profile {
        Profile::Development => "development",
        Profile::Production => "production",
    }
}

#[derive(Serialize)]
struct Document<'a> {
    ok: bool,
    profile: Option<&'static str>,
    settings: Vec<Line<'a>>,
    warnings: Vec<Note<'a>>,
    faults: Vec<FaultLine<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    value: &'a str,
    source: String,
}

#[derive(Serialize)]
struct Note<'a> {
    name: &'a str,
    text: &'a str,
}

#[derive(Serialize)]
struct FaultLine<'a> {
    name: &'a str,
    value: Option<&'a str>,
    source: String,
    why: &'a str,
    allowed: &'a str,
    example: &'a str,
}

impl<'a> FaultLine<'a> {
    fn of(fault: &'a Fault) -> Self {
        Self {
            name: &fault.name,
            value: fault.value.as_deref(),
            source: fault.source.to_string(),
            why: &fault.why,
            allowed: &fault.allowed,
            example: &fault.example,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn says_where_a_value_comes_from_and_masks_secrets() {
        let token = "0123456789abcdef0123456789abcdef";
        let inputs = Inputs::from_pairs(&[("WS_AUTH_TOKEN", token), ("MCP_BRIDGE_PORT", "4000")]);
        let report = report(Settings::load(&inputs));
        let text = report.text();
        let port = text.lines().find(|line| line.starts_with("MCP_BRIDGE_PORT")).unwrap();
        assert!(port.contains("4000") && port.ends_with("environment"), "{port}");
        assert!(!text.contains(token) && !report.json().contains(token));
        assert!(text.contains("accepted"));
    }

    #[test]
    fn json_tells_faults_apart() {
        let report = report(Settings::load(&Inputs::from_pairs(&[("MCP_BRIDGE_PORT", "x"), ("WORKERS", "0")])));
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["faults"].as_array().map(Vec::len), Some(2));
        assert_eq!(json["faults"][0]["name"], "MCP_BRIDGE_PORT");
        assert_eq!(json["faults"][0]["value"], "x");
    }

    #[test]
    fn a_missing_certificate_is_a_fault() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key.pem");
        std::fs::write(&key, "").unwrap();
        let missing = directory.path().join("cert.pem");
        let inputs = Inputs::from_pairs(&[
            ("SSL_ENABLED", "true"),
            ("SSL_CERT_PATH", missing.to_str().unwrap()),
            ("SSL_KEY_PATH", key.to_str().unwrap()),
        ]);
        let faults = report(Settings::load(&inputs)).faults;
        let names: Vec<&str> = faults.iter().map(|fault| fault.name.as_str()).collect();
        // That TLS is not served by this version is a fault of its own.
        assert_eq!(names, ["SSL_CERT_PATH", "SSL_ENABLED"]);
    }
}
