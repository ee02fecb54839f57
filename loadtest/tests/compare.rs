//! `loadtest compare` from its arguments to its tables, with the two peers that are always there.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A directory for the files of one test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> std::io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("ringwall-loadtest-test-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The gateway of the same build. Cargo builds it for the tests of its own package; for those of this one alone it is asked to.
fn ringwall() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let beside = Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("ringwall");
    if !beside.is_file() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--package", "ringwall", "--bin", "ringwall"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if beside.parent().is_some_and(|dir| dir.ends_with("release")) {
            build.arg("--release");
        }
        if !build.status()?.success() {
            return Err("ringwall cannot be built".into());
        }
    }
    Ok(beside)
}

fn compare(args: &[&str]) -> std::io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_loadtest")).arg("compare").args(args).output()
}

#[test]
fn a_short_run_measures_who_was_asked_for_and_writes_tables_and_figures() -> Result<(), Box<dyn std::error::Error>> {
    let ringwall = ringwall()?;
    let scratch = Scratch::new("run")?;
    let (json, record) = (scratch.0.join("figures.json"), scratch.0.join("record.md"));
    let html = scratch.0.join("page.html");
    let output = compare(&[
        "--ringwall",
        &ringwall.to_string_lossy(),
        "--peers=relay,ringwall",
        "--concurrency=2",
        "--rounds=1",
        "--calls=200",
        "--starts=1",
        "--commit=c0ffee",
        "--json",
        &json.to_string_lossy(),
        "--record",
        &record.to_string_lossy(),
        "--html",
        &html.to_string_lossy(),
    ])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let figures: Value = serde_json::from_slice(&std::fs::read(&json)?)?;
    let cells = figures["cells"].as_array().ok_or("no cells")?;
    let kinds: Vec<&str> = cells.iter().filter_map(|cell| cell["peer"].as_str()).collect();
    assert!(kinds.len() == 2 && kinds.contains(&"relay") && kinds.contains(&"ringwall"), "{figures}");
    for cell in cells {
        assert_eq!((cell["calls"].as_u64(), cell["connections"].as_u64()), (Some(200), Some(2)), "{cell}");
        assert!(cell["cpu_us"].as_f64().is_some_and(|cpu| cpu > 0.0), "{cell}");
        assert!(cell["p99_us"].as_f64() >= cell["p50_us"].as_f64(), "{cell}");
    }
    assert_eq!(figures["starts_ms"].as_array().map(Vec::len), Some(1), "{figures}");
    let members = figures["peers"].as_array().ok_or("no peers")?;
    assert!(members.iter().all(|peer| peer["pss_kib"].as_u64() > Some(0)), "{figures}");

    let text = std::fs::read_to_string(&record)?;
    for expected in
        ["ringwall of commit c0ffee", "| bare relay |", "## 2 connections", "| start to first answered call |"]
    {
        assert!(text.contains(expected), "no {expected} in\n{text}");
    }
    assert!(String::from_utf8_lossy(&output.stdout).contains("## Goals"));

    let page = std::fs::read_to_string(&html)?;
    for expected in ["2 connections, closed loop", "bare relay", "<svg", "start to first answered call, ms"] {
        assert!(page.contains(expected), "no {expected} in the page");
    }
    assert_eq!(page.matches("<svg").count(), 1, "a curve for each number of connections");
    Ok(())
}

#[test]
fn a_run_that_cannot_be_is_refused_before_anything_starts() -> std::io::Result<()> {
    for (args, said) in [
        (&["--peers=apache"][..], "invalid value"),
        (&["--concurrency=0"], "1 to 2,048 connections"),
        (&["--rounds=0"], "at least one round"),
        (&["--seconds=nan"], "0.05 to 60 seconds"),
        (&["--core=100000"], "may not be used"),
        (&["--peers=ringwall", "--ringwall=/nonexistent/ringwall"], "/nonexistent/ringwall"),
    ] {
        let output = compare(args)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(said), "{args:?}: {errors}");
    }
    Ok(())
}
