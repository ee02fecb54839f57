//! `loadtest run` as it is used, through a gateway: every door carries its calls, and a result is printed and written down.
//!
//! The gateway is the one that `RINGWALL` names, or is built.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LOADTEST: &str = env!("CARGO_BIN_EXE_loadtest");
const TOKEN: &str = "loadtest-door-token-0123456789abcdef";

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ports that are free, and below those from which connections of other processes get theirs (32768 and up).
fn free_ports<const N: usize>() -> [u16; N] {
    let start = u16::try_from(std::process::id() % 4000).unwrap();
    let mut candidates = (0..4000).map(|n| 16_000 + (start + n) % 4000);
    // All are held until all are known, so that they differ.
    let held: [TcpListener; N] = std::array::from_fn(|_| {
        candidates.find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).expect("a free port")
    });
    held.map(|listener| listener.local_addr().unwrap().port())
}

fn start(command: &mut Command, port: u16) -> Running {
    let mut running = Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    let end = Instant::now() + Duration::from_secs(120);
    while TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_err() {
        assert!(Instant::now() < end && running.0.try_wait().unwrap().is_none(), "{command:?} does not listen");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    running
}

fn ringwall_program() -> PathBuf {
    if let Some(program) = std::env::var_os("RINGWALL") {
        return PathBuf::from(program);
    }
    let built = Command::new(env!("CARGO")).args(["build", "-p", "ringwall", "--bin", "ringwall"]).status();
    assert!(built.unwrap().success());
    Path::new(LOADTEST).with_file_name("ringwall")
}

fn run(args: &[&str]) -> (bool, String, String) {
    let output = Command::new(LOADTEST).arg("run").args(args).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn every_door_of_a_gateway_carries_the_calls_of_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let [upstream_port, bridge, health, admin, tcp] = free_ports();
    let _upstream =
        start(Command::new(LOADTEST).args(["upstream", "--port", &upstream_port.to_string()]), upstream_port);
    let mut ringwall = Command::new(ringwall_program());
    ringwall.current_dir(dir.path()).env_clear().envs([
        ("WS_AUTH_TOKEN", TOKEN),
        ("TCP_AUTH_TOKEN", TOKEN),
        ("WORKERS", "1"),
        ("MCP_LOG_LEVEL", "warn"),
        ("RATE_LIMIT_ENABLED", "false"),
    ]);
    for (name, port) in
        [("MCP_BRIDGE_PORT", bridge), ("MCP_HEALTH_PORT", health), ("ADMIN_PORT", admin), ("MCP_TCP_PORT", tcp)]
    {
        ringwall.env(name, port.to_string());
    }
    ringwall.args(["serve", "--upstream", &format!("http://127.0.0.1:{upstream_port}/mcp")]);
    let ringwall = start(&mut ringwall, bridge);
    let pid = ringwall.0.id().to_string();
    let (json, html) = (dir.path().join("outcome.json"), dir.path().join("page.html"));
    for (door, port, more) in [
        ("http", bridge, vec!["--pipeline", "3"]),
        ("http", bridge, vec!["--dialect", "modern", "--length", "20000"]),
        ("http", bridge, vec!["--rate", "2000", "--poisson", "3"]),
        ("tcp", tcp, vec!["--pipeline", "8"]),
        ("tcp", tcp, vec!["--dialect", "modern", "--rate", "2000"]),
        ("web-socket", bridge, vec!["--pipeline", "8"]),
        ("web-socket", bridge, vec!["--dialect", "modern"]),
        ("sse", bridge, vec!["--pipeline", "2"]),
    ] {
        let target = format!("127.0.0.1:{port}");
        let mut args = vec!["--door", door, "--target", &target, "--token", TOKEN, "--connections", "4"];
        args.extend(["--warm-up", "20", "--calls", "300", "--pid", &pid, "--json", json.to_str().unwrap()]);
        args.extend(["--html", html.to_str().unwrap()]);
        args.extend(more);
        let (well, out, err) = run(&args);
        assert!(well, "{args:?}: {err}");
        assert!(out.contains("| calls, every answer right | 300 |"), "{out}");
        assert!(out.contains("| CPU a call of the measured, µs | "), "{out}");
        let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        assert_eq!((&written["calls"], &written["errors"]), (&300.into(), &0.into()));
        assert!(written["cpu_us_per_call"].as_f64().unwrap() > 0.0);
        let page = std::fs::read_to_string(&html).unwrap();
        assert!(page.contains("<svg") && page.contains("CPU a call"), "a table and a latency curve");
    }
    // A door that refuses ends a run, and says so.
    let target = format!("127.0.0.1:{bridge}");
    let (well, _, err) =
        run(&["--target", &target, "--token", "wrong-token-0123456789abcdef0123456789", "--connections", "1"]);
    assert!(!well && err.contains("call 0 (id 1000000000)") && err.contains("status 401"), "{err}");
}

#[test]
fn progress_is_told_where_it_is_asked_for() {
    let [port] = free_ports();
    let mut upstream = Command::new(LOADTEST);
    upstream.args(["upstream", "--port", &port.to_string(), "--delay-us", "5000"]);
    let _upstream = start(&mut upstream, port);
    let target = format!("127.0.0.1:{port}");
    let load = ["--target", &target, "--connections", "1", "--warm-up", "0", "--calls", "300"];
    let (well, _, err) = run(&[load.as_slice(), &["--progress"]].concat());
    // 300 calls of 5 ms each: at least one second has passed.
    assert!(well && err.contains(" of 300 calls ("), "{err}");
    let (well, _, err) = run(&load);
    assert!(well && err.is_empty(), "{err}");
}
