//! What `faults` and `soak` print, and the same as JSON.

use std::io;
use std::path::Path;

use serde::Serialize;

use super::checks::Check;
use super::run::Verdicts;

/// The results of a command.
#[derive(Serialize)]
pub(crate) struct Record {
    command: &'static str,
    seed: u64,
    runs: Vec<Run>,
    passed: bool,
}

#[derive(Serialize)]
struct Run {
    name: String,
    calls: u64,
    passed: bool,
    checks: Vec<Check>,
    counts: Vec<Count>,
}

/// How many calls with a fault ended so.
#[derive(Serialize)]
struct Count {
    fault: String,
    way: &'static str,
    verdict: String,
    calls: u64,
}

impl Record {
    pub(crate) fn new(command: &'static str, seed: u64) -> Self {
        Self { command, seed, runs: Vec::new(), passed: true }
    }

    /// Takes a run in and prints it.
    pub(crate) fn add(&mut self, name: &str, verdicts: Verdicts) {
        let passed = verdicts.passed();
        let counts = verdicts.counts.iter().map(|(fault, way, verdict, calls)| Count {
            fault: fault.name(),
            way: way.name(),
            verdict: verdict.name(),
            calls: *calls,
        });
        let run = Run {
            name: name.to_owned(),
            calls: verdicts.calls,
            passed,
            counts: counts.collect(),
            checks: verdicts.checks,
        };
        print(&run);
        self.passed &= passed;
        self.runs.push(run);
    }

    /// Writes the file, if one is wanted, and says whether all runs have passed.
    pub(crate) fn end(self, json: Option<&Path>) -> io::Result<()> {
        if let Some(path) = json {
            std::fs::write(path, serde_json::to_vec_pretty(&self)?)?;
        }
        let failed: Vec<_> = self.runs.iter().filter(|run| !run.passed).map(|run| run.name.as_str()).collect();
        if self.passed && !self.runs.is_empty() {
            println!("PASSED: {} runs", self.runs.len());
            return Ok(());
        }
        Err(io::Error::other(format!("{} of {} runs failed: {}", failed.len(), self.runs.len(), failed.join("; "))))
    }
}

fn print(run: &Run) {
    println!("## {}: {} ({} calls)\n", run.name, if run.passed { "passed" } else { "FAILED" }, run.calls);
    println!("| fault | way | ended | calls |\n|---|---|---|---|");
    for count in &run.counts {
        println!("| {} | {} | {} | {} |", count.fault, count.way, count.verdict, count.calls);
    }
    println!("\n| check | | found |\n|---|---|---|");
    for check in &run.checks {
        println!("| {} | {} | {} |", check.name, if check.passed { "ok" } else { "FAILED" }, check.found);
    }
    println!();
}
