//! `loadtest scale` from the command line to the report, with counts so small that its figures mean nothing.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The gateway of this build, which is made first where it is missing or old.
fn ringwall() -> PathBuf {
    let loadtest = Path::new(env!("CARGO_BIN_EXE_loadtest"));
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "ringwall", "--bin", "ringwall"]);
    if loadtest.parent().is_some_and(|dir| dir.ends_with("release")) {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success());
    loadtest.with_file_name("ringwall")
}

/// A free port with room behind it for a few processes. Ports of connections are chosen from 32768 on.
fn port() -> String {
    let free = |first: u16| (first..first + 60).all(|port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
    let start = 20_000 + 60 * u16::try_from(std::process::id() % 200).unwrap();
    (0..200).map(|step| 20_000 + (start - 20_000 + 60 * step) % 12_000).find(|first| free(*first)).unwrap().to_string()
}

#[test]
fn sizes_are_measured_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (json, html) = (dir.path().join("sizes.json"), dir.path().join("sizes.html"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(["scale", "--only", "sizes", "--active", "4", "--calls", "40", "--rounds", "2", "--port", &port()]);
    command.arg("--ringwall").arg(ringwall()).arg("--json").arg(&json).arg("--html").arg(&html);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let said = String::from_utf8(output.stdout).unwrap();
    for size in ["291 B", "1 KiB", "4 KiB", "16 KiB", "64 KiB"] {
        assert!(said.contains(&format!("| {size}, ringwall")), "{said}");
    }
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert!(report["command"].as_str().unwrap().starts_with("loadtest scale --only sizes --active 4"));
    let chart = &report["sections"][0]["charts"][0];
    let points = chart["series"][0]["points"].as_array().unwrap();
    assert_eq!((chart["series"][0]["name"].as_str(), points.len()), (Some("ringwall"), 5));
    for point in points {
        let figure = |name: &str| point[name].as_f64().unwrap();
        assert!(figure("low") > 0.0 && figure("low") <= figure("y") && figure("y") <= figure("high"), "{point}");
    }
    let page = std::fs::read_to_string(&html).unwrap();
    assert_eq!(page.matches("<svg ").count(), 2);
    assert!(page.ends_with("</html>\n"));
}

#[test]
fn what_cannot_be_measured_is_an_error_and_no_report() {
    let dir = tempfile::tempdir().unwrap();
    let not_a_directory = dir.path().join("file");
    std::fs::write(&not_a_directory, "").unwrap();
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        let output = command.args(["scale", "--only", "sizes", "--calls", "1", "--rounds", "1"]).args(more).output();
        let output = output.unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let unwritable = not_a_directory.join("report.html");
    assert!(run(&["--html", unwritable.to_str().unwrap()]).contains("report.html"), "said before the run");
    assert!(run(&["--active", "0"]).contains("at least 1"));
    assert!(run(&["--ringwall", not_a_directory.to_str().unwrap(), "--port", &port()]).starts_with("loadtest: "));
}
