//! The gateway under test: started as its users start it, asked through its own ports, and looked at through `/proc`.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::process::TOKEN;

const OPERATOR: &str = "loadtest-operator-token-0123456789abcdef";

/// Connections that a door, and an address, may have.
pub(crate) const MAX_HTTP_CONNECTIONS: usize = 160;
pub(crate) const MAX_TCP_CONNECTIONS: usize = 120;
pub(crate) const MAX_ADDRESS_CONNECTIONS: usize = 40;

/// The gateway's time for a call.
pub(crate) const CALL_TIMEOUT_MS: u64 = 3_000;

/// How long it may take to start, and to end.
const START: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(30);

/// How often it is asked whether it is ready.
const LOOK: Duration = Duration::from_millis(5);

/// How it is set up.
pub(crate) struct Setup<'a> {
    pub(crate) program: &'a Path,
    /// Its working directory; the policy stands in it.
    pub(crate) dir: &'a Path,
    /// `AUDIT_DIR`.
    pub(crate) audit: &'a Path,
    /// What stands in front of the program: for the disk that can be full.
    pub(crate) wrapper: Vec<String>,
    pub(crate) is_production: bool,
    /// More settings.
    pub(crate) settings: Vec<(&'static str, String)>,
}

/// A running gateway; killed with its owner.
pub(crate) struct Gateway {
    child: RefCell<Child>,
    pid: u32,
    pub(crate) bridge: SocketAddr,
    pub(crate) tcp: SocketAddr,
    admin: SocketAddr,
    dir: PathBuf,
    log: PathBuf,
    /// Kept open: a program whose standard output is closed may fail.
    _stdout: BufReader<ChildStdout>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Gateway {
    /// Starts it with this policy and waits until it is ready.
    pub(crate) async fn start(setup: &Setup<'_>, policy: &str) -> io::Result<Self> {
        let (mut child, log) = spawn(setup, policy)?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no standard output"))?;
        let mut stdout = BufReader::new(stdout);
        let announced = announced(&mut stdout);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let [bridge, tcp, admin] = announced.unwrap_or([nowhere; 3]);
        let dir = setup.dir.to_owned();
        let pid = child.id();
        let gateway = Self { child: RefCell::new(child), pid, bridge, tcp, admin, dir, log, _stdout: stdout };
        if bridge == nowhere {
            let said = std::fs::read_to_string(&gateway.log).unwrap_or_default();
            return Err(io::Error::other(format!("the gateway did not start: {said}")));
        }
        let end = Instant::now() + START;
        while gateway.get("/health/ready").await.map_or(0, |(status, _)| status) != 200 {
            if Instant::now() > end {
                return Err(io::Error::other("the gateway does not become ready"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(gateway)
    }

    /// Starts it and kills it after this time, however far it has come.
    pub(crate) async fn start_and_kill(setup: &Setup<'_>, policy: &str, after: Duration) -> io::Result<()> {
        let (mut child, _) = spawn(setup, policy)?;
        tokio::time::sleep(after).await;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Kills it where it stands (SIGKILL), and waits until nothing is left of it.
    pub(crate) fn kill(&self) -> io::Result<()> {
        let mut child = self.child.borrow_mut();
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// `GET PATH` of the admin listener, as an operator.
    pub(crate) async fn get(&self, path: &str) -> io::Result<(u16, String)> {
        self.ask("GET", path, "").await
    }

    /// A request to the admin listener, as an operator, with this body in JSON unless it is empty.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.admin).await?;
        let content = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {OPERATOR}\r\n{content}Connection: close\r\n\r\n{body}",
            self.admin
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        whole(&answer).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// What `/metrics` says now.
    pub(crate) async fn metrics(&self) -> io::Result<Metrics> {
        Ok(Metrics(self.get("/metrics").await?.1))
    }

    /// How many connections are listed as open.
    pub(crate) async fn listed(&self) -> io::Result<usize> {
        #[derive(serde::Deserialize)]
        struct Page {
            connections: Vec<serde::de::IgnoredAny>,
        }
        let (_, body) = self.get("/admin/connections?limit=500").await?;
        Ok(serde_json::from_str::<Page>(&body)?.connections.len())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Resident memory, bytes.
    pub(crate) fn resident(&self) -> io::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        kib.map(|kib: u64| kib * 1024).ok_or_else(|| io::Error::other("no VmRSS"))
    }

    /// What its descriptors are, one each: files by their path, all else by its kind.
    pub(crate) fn open_files(&self) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid()))?;
        // What has been closed meanwhile is not open.
        let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let mut names: Vec<_> =
            links.map(|link| link.to_string_lossy().split(":[").next().unwrap_or_default().to_owned()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The key of its audit trail.
    pub(crate) fn audit_key(&self) -> io::Result<Vec<u8>> {
        std::fs::read(self.dir.join("data/audit.key"))
    }

    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.child.borrow_mut().try_wait(), Ok(None))
    }

    pub(crate) fn terminate(&self) {
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    /// Waits for its end; the exit code.
    pub(crate) async fn exit(&self) -> Option<i32> {
        let end = Instant::now() + STOP;
        while Instant::now() < end {
            let ended = self.child.borrow_mut().try_wait();
            if let Ok(Some(status)) = ended {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }

    /// Lines of its log that speak of an error or a panic.
    pub(crate) fn complaints(&self) -> io::Result<Vec<String>> {
        let log = std::fs::read_to_string(&self.log)?;
        Ok(log.lines().filter(|line| is_complaint(line)).map(str::to_owned).collect())
    }
}

/// Starts the program; and where its log is.
fn spawn(setup: &Setup<'_>, policy: &str) -> io::Result<(Child, PathBuf)> {
    std::fs::create_dir_all(setup.dir)?;
    std::fs::write(setup.dir.join("ringwall.toml"), policy)?;
    let program = std::fs::canonicalize(setup.program)
        .map_err(|error| io::Error::other(format!("{}: {error}", setup.program.display())))?;
    let mut words = setup.wrapper.iter().map(std::ffi::OsString::from).chain([program.into_os_string()]);
    let mut command = Command::new(words.next().unwrap_or_default());
    let log = setup.dir.join("gateway.log");
    command.args(words).arg("serve").current_dir(setup.dir).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("AUDIT_DIR", setup.audit).env("DATA_DIR", setup.dir.join("data"));
    for port in ["MCP_BRIDGE_PORT", "MCP_TCP_PORT", "MCP_HEALTH_PORT", "ADMIN_PORT"] {
        command.env(port, "0");
    }
    command
        .envs([("WS_AUTH_TOKEN", TOKEN), ("TCP_AUTH_TOKEN", TOKEN), ("ORCHESTRATOR_SECURITY_TOKEN", OPERATOR)])
        .envs([
            ("WORKERS", "2"),
            ("RATE_LIMIT_ENABLED", "false"),
            ("BIND_ADDRESS", "127.0.0.1"),
            ("MAX_FAILED_ATTEMPTS", "10000000"),
        ])
        .envs([("MCP_LOG_LEVEL", "warn"), ("MCP_LOG_FORMAT", "json"), ("DRAIN_TIMEOUT", "20000")])
        .envs([("HEADER_TIMEOUT", "1500"), ("BODY_TIMEOUT", "1500")])
        .envs([("WS_CONNECTION_TIMEOUT", "15000"), ("TCP_CONNECTION_TIMEOUT", "15000")])
        .env("WS_MAX_CONNECTIONS", MAX_HTTP_CONNECTIONS.to_string())
        .env("TCP_MAX_CONNECTIONS", MAX_TCP_CONNECTIONS.to_string())
        .env("MAX_CONNECTIONS_PER_IP", MAX_ADDRESS_CONNECTIONS.to_string());
    command.envs(setup.settings.iter().map(|(name, value)| (name, value)));
    if setup.is_production {
        command.envs([("RINGWALL_ENV", "production"), ("TLS_TERMINATED_UPSTREAM", "true")]);
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?).spawn()?;
    Ok((child, log))
}

/// The status and the body of an answer, if all of it has come.
fn whole(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let field =
        |line: &str| line.to_ascii_lowercase().strip_prefix("content-length:").map(|length| length.trim().to_owned());
    let length = head.lines().find_map(field).and_then(|length| length.parse().ok()).unwrap_or(body.len());
    (body.len() >= length).then(|| (status, body.to_owned()))
}

/// An error of the log, or anything that is no line of it: a panic's report is none.
fn is_complaint(line: &str) -> bool {
    line.contains("\"level\":\"ERROR\"") || line.contains("panicked") || !line.starts_with('{')
}

/// Where the doors are, in the gateway's own words: the bridge, TCP, the admin listener.
fn announced(stdout: &mut impl BufRead) -> Option<[SocketAddr; 3]> {
    let (mut bridge, mut tcp) = (None, None);
    let mut line = String::new();
    loop {
        line.clear();
        if stdout.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let (name, address) = line.trim().split_once(' ')?;
        let address = address.trim().trim_start_matches("http://");
        let address = || address.split('/').next()?.parse().ok();
        match name {
            "mcp" => bridge = address(),
            "tcp" => tcp = address(),
            "admin" => return Some([bridge?, tcp?, address()?]),
            _ => {}
        }
    }
}

/// The text of `/metrics`.
pub(crate) struct Metrics(String);

impl Metrics {
    /// The sum of all lines of this name.
    pub(crate) fn sum(&self, name: &str) -> Option<u64> {
        let mut sum = None;
        for line in self.0.lines() {
            let Some(rest) = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{'])) else { continue };
            let value: u64 = rest.rsplit(' ').next()?.parse().ok()?;
            sum = Some(sum.unwrap_or(0) + value);
        }
        sum
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_the_gateway_announces_is_found() {
        let said = "ringwall 0.1.0 is listening\n  mcp     http://127.0.0.1:1/mcp\n  tcp     127.0.0.1:2\n  health  http://127.0.0.1:3/health\n\
                    \x20 admin   http://127.0.0.1:4/metrics\n";
        let [bridge, tcp, admin] = announced(&mut said.as_bytes()).expect("all of them");
        assert_eq!((bridge.port(), tcp.port(), admin.port()), (1, 2, 4));
        assert_eq!(announced(&mut "ringwall\n".as_bytes()), None);
    }

    #[test]
    fn metrics_are_summed_over_labels() {
        let metrics =
            Metrics("ringwall_open{door=\"ws\"} 2\nringwall_open{door=\"tcp\"} 3\nringwall_opened 9\n".to_owned());
        assert_eq!((metrics.sum("ringwall_open"), metrics.sum("ringwall_none")), (Some(5), None));
    }

    #[test]
    fn errors_and_panics_are_complaints_and_warnings_are_none() {
        assert!(is_complaint("{\"timestamp\":\"x\",\"level\":\"ERROR\",\"message\":\"y\"}"));
        assert!(is_complaint("thread 'worker-0' panicked at src/x.rs"));
        assert!(is_complaint("Segmentation fault"));
        assert!(!is_complaint("{\"timestamp\":\"x\",\"level\":\"WARN\",\"message\":\"y\"}"));
    }
}
