//! A process under measurement: started, awaited, pinned, and ended with its owner.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::cpu;

/// How long a process may take until it listens.
const START: Duration = Duration::from_secs(10);

/// The door token of the measured gateways.
pub(crate) const TOKEN: &str = "loadtest-door-token-0123456789abcdef";

/// A process that is ended with its owner.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    log: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        // A stopped process is killed all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts a process, waits until it accepts connections on `port`, and pins it. What it says goes to a file in `dir`.
    pub(crate) fn start(
        name: &'static str,
        command: &mut Command,
        dir: &Path,
        port: u16,
        core: usize,
    ) -> io::Result<Self> {
        let running = Self::start_unpinned(name, command, dir, port)?;
        cpu::pin(running.child.id(), core)?;
        Ok(running)
    }

    /// The same without pinning it: it may use the cores that this thread may use.
    pub(crate) fn start_unpinned(name: &'static str, command: &mut Command, dir: &Path, port: u16) -> io::Result<Self> {
        let log = dir.join(format!("{name}-{port}.log"));
        let (out, err) = (File::create(&log)?, File::options().append(true).open(&log)?);
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut running = Self { child, name, address, log };
        let end = Instant::now() + START;
        while std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_err() {
            if Instant::now() > end || running.child.try_wait()?.is_some() {
                return Err(running.explain(io::Error::other(format!("does not listen on {address}"))));
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        // Who listens may be another, and this one has ended for it.
        if running.child.try_wait()?.is_some() {
            return Err(running.explain(io::Error::other(format!("has ended although somebody listens on {address}"))));
        }
        Ok(running)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with the process's name, and the end of what the process has said.
    pub(crate) fn explain(&self, error: io::Error) -> io::Error {
        let said = std::fs::read(&self.log).unwrap_or_default();
        let said =
            String::from_utf8_lossy(said.get(said.len().saturating_sub(2048)..).unwrap_or_default()).into_owned();
        io::Error::other(format!("{}: {error}\n{said}", self.name))
    }
}

/// A directory for the files of one run, removed with its owner.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("ringwall-loadtest-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// ringwall with one worker and no limits in its way. It uses `port` and the three ports behind it: bridge, health, admin, TCP.
pub(crate) fn ringwall(program: &Path, dir: &Path, port: u16, upstream: &str) -> io::Result<Command> {
    let home = dir.join(format!("ringwall-{port}"));
    std::fs::create_dir_all(&home)?;
    let mut command = Command::new(std::fs::canonicalize(program).unwrap_or_else(|_| program.to_owned()));
    command
        .current_dir(home)
        .env_clear()
        .envs([("WS_AUTH_TOKEN", TOKEN), ("TCP_AUTH_TOKEN", TOKEN), ("WORKERS", "1"), ("MCP_LOG_LEVEL", "warn")])
        .envs([("WS_MAX_CONNECTIONS", "20000"), ("TCP_MAX_CONNECTIONS", "20000"), ("MAX_CONNECTIONS_PER_IP", "20000")])
        .env("RATE_LIMIT_ENABLED", "false")
        .env("MAX_FAILED_ATTEMPTS", "10000000")
        .env("MCP_BRIDGE_PORT", port.to_string())
        .env("MCP_HEALTH_PORT", (port + 1).to_string())
        .env("ADMIN_PORT", (port + 2).to_string())
        .env("MCP_TCP_PORT", (port + 3).to_string())
        .args(["serve", "--upstream", upstream]);
    Ok(command)
}

/// HAProxy with a configuration of `peers/`; `None` where it is not installed.
pub(crate) fn haproxy(template: &str, dir: &Path, port: u16, upstream: u16) -> io::Result<Option<Command>> {
    let Some(program) = find("haproxy") else { return Ok(None) };
    let file = dir.join(format!("haproxy-{port}.cfg"));
    std::fs::write(&file, fill(template, dir, port, upstream))?;
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(file);
    Ok(Some(command))
}

/// A configuration of `peers/` with its ports and paths filled in.
pub(crate) fn fill(template: &str, dir: &Path, port: u16, upstream: u16) -> String {
    template
        .replace("@PORT@", &port.to_string())
        .replace("@UPSTREAM@", &upstream.to_string())
        .replace("@DIR@", &dir.to_string_lossy())
}

/// Where a program is installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}
