//! Promise: `loadtest faults`, `loadtest soak` and `loadtest crash` run against the gateway as it is built beside them, everything that they check holds, and what
//! they say is told by the exit status.
//!
//! Where the program is not built (`cargo build -p ringwall`), nothing can be shown: the tests say so and pass.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn loadtest() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_loadtest"))
}

/// The gateway that stands beside the harness.
fn ringwall() -> Option<PathBuf> {
    let program = loadtest().with_file_name("ringwall");
    if !program.is_file() {
        eprintln!("SKIPPED: {} is not built", program.display());
        return None;
    }
    Some(program)
}

/// Runs a command with results as JSON. A machine that others use as well is no reason to fail: a line of the trail may be a second late.
fn run(ringwall: &Path, arguments: &[&str]) -> (Output, serde_json::Value) {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("results.json");
    let mut command = Command::new(loadtest());
    command.args(arguments).args(["--seed", "7", "--audit-lag-ms", "1000"]);
    let output = command.arg("--ringwall").arg(ringwall).arg("--json").arg(&json).output().unwrap();
    let results = std::fs::read(&json).map(|bytes| serde_json::from_slice(&bytes).unwrap()).unwrap_or_default();
    (output, results)
}

fn assert_passed((output, results): &(Output, serde_json::Value)) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(results["passed"], true);
    for run in results["runs"].as_array().unwrap() {
        assert!(run["calls"].as_u64().unwrap() > 100, "{run}");
        assert!(run["checks"].as_array().unwrap().len() > 10, "{run}");
    }
}

/// Runs a command so often, and each time for longer, until the harness itself got to run: what it sees while it does not, be it late lines or no
/// calls, is not the gateway's doing.
fn run_unhindered(ringwall: &Path, arguments: &[&str], lengths: [&str; 4]) -> (Output, serde_json::Value) {
    let mut last = None;
    for length in lengths {
        let results = run(ringwall, &[arguments, &[length]].concat());
        let runs = results.1["runs"].as_array().cloned().unwrap_or_default();
        let has_kept_up = |run: &serde_json::Value| {
            let checks = run["checks"].as_array().unwrap();
            let kept_up = checks.iter().find(|check| check["name"] == "the harness has kept up").unwrap();
            kept_up["passed"] == true && run["calls"].as_u64().unwrap() > 100
        };
        let is_unhindered = !runs.is_empty() && runs.iter().all(has_kept_up);
        last = Some(results);
        if is_unhindered {
            break;
        }
    }
    last.unwrap()
}

#[test]
fn a_scenario_of_each_side_passes() {
    let Some(ringwall) = ringwall() else { return };
    let arguments = ["faults", "--only", "wrong-id", "--several-only", "--seconds"];
    let results = run_unhindered(&ringwall, &arguments, ["1", "2", "10", "30"]);
    assert_passed(&results);
    let counts = results.1["runs"][0]["counts"].as_array().unwrap();
    let broken = counts.iter().filter(|count| count["fault"] == "wrong-id");
    assert!(broken.count() >= 3, "the fault reached calls: {counts:?}");
}

#[test]
fn ten_seconds_of_everything_pass() {
    let Some(ringwall) = ringwall() else { return };
    assert_passed(&run_unhindered(&ringwall, &["soak", "--minutes"], ["0.17", "0.3", "1", "2"]));
}

#[test]
fn what_was_acknowledged_survives_five_kills() {
    let Some(ringwall) = ringwall() else { return };
    let results = run(&ringwall, &["crash", "--kills", "5"]);
    assert_passed(&results);
}

#[test]
fn a_run_that_cannot_be_made_fails() {
    let nowhere = Path::new("/nowhere/ringwall");
    let (output, _) = run(nowhere, &["faults", "--only", "wrong-id"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/ringwall"), "{output:?}");
    let (output, _) = run(nowhere, &["faults", "--only", "no-such-scenario"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no scenario no-such-scenario"), "{output:?}");
}
