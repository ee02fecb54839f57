//! `loadtest cost`: the CPU time of a call through ringwall, HAProxy and nginx, in interleaved rounds.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{cpu, drive};

/// Arguments of `loadtest cost`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The ringwall program
    #[arg(long, default_value = "target/release/ringwall")]
    ringwall: PathBuf,
    /// Connections, each with one call at a time
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Calls a round
    #[arg(long, default_value_t = 100_000)]
    calls: u64,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// First of the loopback ports to use
    #[arg(long, default_value_t = 18_100)]
    port: u16,
    /// Core of the measured process; the generator and the upstream run on core 0
    #[arg(long, default_value_t = 1)]
    core: usize,
}

const TOKEN: &str = "loadtest-door-token-0123456789abcdef";

/// A process that is ended with its owner.
struct Running {
    child: Child,
    name: &'static str,
    address: SocketAddr,
    rounds: Vec<Round>,
}

struct Round {
    cpu_ns: u64,
    calls_s: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    cpu::pin(0, 0)?;
    let dir = std::env::temp_dir().join(format!("ringwall-loadtest-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let upstream_port = args.port;
    let this = std::env::current_exe()?;
    let upstream = start(
        "upstream",
        Command::new(this).args(["upstream", "--port", &upstream_port.to_string()]),
        upstream_port,
        0,
    )?;
    let mut measured = Vec::new();
    for (index, name) in ["ringwall", "haproxy", "nginx"].into_iter().enumerate() {
        let port = args.port + 10 * (u16::try_from(index).unwrap_or(0) + 1);
        let command = match name {
            "ringwall" => Some(ringwall(args, &dir, port, upstream_port)),
            "haproxy" => haproxy(&dir, port, upstream_port)?,
            _ => nginx(&dir, port, upstream_port)?,
        };
        match command {
            Some(mut command) => measured.push(start(name, &mut command, port, args.core)?),
            None => println!("{name} is not installed: left out"),
        }
    }
    for round in 0..=args.rounds {
        for running in &mut measured {
            let pid = running.child.id();
            let before = cpu::used_ns(pid)?;
            let driven = drive::drive(running.address, TOKEN, args.connections, args.calls)
                .map_err(|error| io::Error::other(format!("{}: {error}", running.name)))?;
            let cpu_ns = cpu::used_ns(pid)?.saturating_sub(before) / driven.calls;
            // The first round warms up.
            if round > 0 {
                running.rounds.push(Round {
                    cpu_ns,
                    calls_s: driven.calls as f64 / driven.took.as_secs_f64(),
                    p50_us: driven.latency.value_at_quantile(0.5) as f64 / 1000.0,
                    p99_us: driven.latency.value_at_quantile(0.99) as f64 / 1000.0,
                });
            }
        }
    }
    print(args, &measured);
    drop(measured);
    drop(upstream);
    std::fs::remove_dir_all(&dir)
}

fn print(args: &Args, measured: &[Running]) {
    println!(
        "\n{} connections, {} calls of 291 bytes a round, {} rounds, one worker on a core of its own\n",
        args.connections, args.calls, args.rounds
    );
    println!("| | CPU a call, µs (median, min–max) | to HAProxy | calls/s | p50 µs | p99 µs |");
    println!("|---|---|---|---|---|---|");
    let base =
        measured.iter().find(|running| running.name == "haproxy").map(|running| median(running, |r| r.cpu_ns as f64));
    for running in measured {
        let cpu = median(running, |round| round.cpu_ns as f64);
        let (mut low, mut high) = (f64::MAX, 0f64);
        for round in &running.rounds {
            low = low.min(round.cpu_ns as f64);
            high = high.max(round.cpu_ns as f64);
        }
        println!(
            "| {} | {:.2} ({:.2}–{:.2}) | {} | {:.0} | {:.0} | {:.0} |",
            running.name,
            cpu / 1000.0,
            low / 1000.0,
            high / 1000.0,
            base.map_or_else(|| "–".to_owned(), |base| format!("{:.2}", cpu / base)),
            median(running, |round| round.calls_s),
            median(running, |round| round.p50_us),
            median(running, |round| round.p99_us),
        );
    }
}

fn median(running: &Running, of: impl Fn(&Round) -> f64) -> f64 {
    let mut values: Vec<f64> = running.rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Starts a process, waits until it accepts connections, and pins it.
fn start(name: &'static str, command: &mut Command, port: u16, core: usize) -> io::Result<Running> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let running = Running { child, name, address, rounds: Vec::new() };
    let end = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_err() {
        if Instant::now() > end {
            return Err(io::Error::other(format!("{name} does not listen on {address}")));
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    cpu::pin(running.child.id(), core)?;
    Ok(running)
}

fn ringwall(args: &Args, dir: &Path, port: u16, upstream: u16) -> Command {
    let mut command = Command::new(std::fs::canonicalize(&args.ringwall).unwrap_or_else(|_| args.ringwall.clone()));
    command
        .current_dir(dir)
        .env_clear()
        .envs([("WS_AUTH_TOKEN", TOKEN), ("WORKERS", "1"), ("MCP_LOG_LEVEL", "warn"), ("RATE_LIMIT_ENABLED", "false")])
        .envs([("WS_MAX_CONNECTIONS", "20000"), ("MAX_CONNECTIONS_PER_IP", "20000")])
        .env("MCP_BRIDGE_PORT", port.to_string())
        .env("MCP_HEALTH_PORT", (port + 1).to_string())
        .env("ADMIN_PORT", (port + 2).to_string())
        .env("MCP_TCP_PORT", (port + 3).to_string())
        .args(["serve", "--upstream", &format!("http://127.0.0.1:{upstream}/mcp")]);
    command
}

fn haproxy(dir: &Path, port: u16, upstream: u16) -> io::Result<Option<Command>> {
    let Some(program) = find("haproxy") else { return Ok(None) };
    let file = dir.join("haproxy.cfg");
    std::fs::write(&file, fill(include_str!("../peers/haproxy.cfg"), dir, port, upstream))?;
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(file);
    Ok(Some(command))
}

fn nginx(dir: &Path, port: u16, upstream: u16) -> io::Result<Option<Command>> {
    let Some(program) = find("nginx") else { return Ok(None) };
    let file = dir.join("nginx.conf");
    std::fs::write(&file, fill(include_str!("../peers/nginx.conf"), dir, port, upstream))?;
    let mut command = Command::new(program);
    command.arg("-c").arg(file).arg("-p").arg(dir).arg("-e").arg("stderr");
    Ok(Some(command))
}

fn fill(template: &str, dir: &Path, port: u16, upstream: u16) -> String {
    template
        .replace("@PORT@", &port.to_string())
        .replace("@UPSTREAM@", &upstream.to_string())
        .replace("@DIR@", &dir.to_string_lossy())
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}
