//! `loadtest scale` from the command line to the report, with counts so small that its figures mean nothing.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

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

/// Ports of one test.
const PORTS: u16 = 80;

/// A free port with room behind it for the processes of a test. Ports of connections are chosen from 32768 on.
fn port() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let free = |first: u16| (first..first + PORTS).all(|port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
    let start = u16::try_from(std::process::id() % 100).unwrap();
    let firsts = (0..100).map(|_| 20_000 + PORTS * ((start + NEXT.fetch_add(1, Ordering::Relaxed)) % 150));
    firsts.into_iter().find(|first| free(*first)).unwrap().to_string()
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
fn idle_connections_and_keys_are_measured_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("keys.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(["scale", "--only", "connections,keys", "--active", "4", "--calls", "40", "--rounds", "1"]);
    command.args(["--max-connections", "20", "--max-keys", "1200", "--quiet-ms", "1", "--port", &port()]);
    let output = command.arg("--ringwall").arg(ringwall()).arg("--json").arg(&json).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let rows = |section: usize| {
        let rows = report["sections"][section]["tables"][0]["rows"].as_array().unwrap();
        rows.iter().map(|row| row[0].as_str().unwrap()).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(rows(0), "idle over HTTP: 0; idle over HTTP: 20; idle over WebSocket: 0; idle over WebSocket: 20");
    let kinds = ["agents", "sessions", "client addresses"];
    assert_eq!(rows(1), kinds.map(|kind| format!("{kind}: 1; {kind}: 1,000; {kind}: 1,200")).join("; "));
    assert_eq!(
        rows(2),
        "from as many addresses: 1; from as many addresses: 20; from sixteen addresses: 1; from sixteen addresses: 20"
    );
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
