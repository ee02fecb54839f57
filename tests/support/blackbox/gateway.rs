//! The program itself, started as a user starts it.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::Value;

use super::{Client, PATIENCE, TOKEN, until};

/// A running gateway; killed, by its pid, when it is dropped.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) bridge: SocketAddr,
    pub(crate) tcp: SocketAddr,
    pub(crate) health: SocketAddr,
    pub(crate) admin: SocketAddr,
    folder: Arc<tempfile::TempDir>,
    arguments: Vec<String>,
    log: Arc<Mutex<String>>,
    /// Read what it writes, to the end.
    readers: [JoinHandle<()>; 2],
}

impl Gateway {
    /// In front of one HTTP upstream, with the door token [`TOKEN`] and these settings.
    pub(crate) fn start(settings: &[(&str, &str)], upstream: SocketAddr) -> Self {
        let url = format!("http://{upstream}/mcp");
        Self::launch(settings, &["serve", "--upstream", &url], None)
    }

    /// Likewise, in a folder that is there.
    pub(crate) fn start_in(folder: Arc<tempfile::TempDir>, settings: &[(&str, &str)], upstream: SocketAddr) -> Self {
        let url = format!("http://{upstream}/mcp");
        Self::launch_in(folder, settings, vec!["serve".to_owned(), "--upstream".to_owned(), url])
    }

    /// With a policy file.
    pub(crate) fn with_policy(settings: &[(&str, &str)], policy: &str) -> Self {
        Self::launch(settings, &["serve"], Some(policy))
    }

    fn launch(settings: &[(&str, &str)], arguments: &[&str], policy: Option<&str>) -> Self {
        allow_many_descriptors();
        let folder = tempfile::tempdir().unwrap();
        if let Some(policy) = policy {
            std::fs::write(folder.path().join("ringwall.toml"), policy).unwrap();
        }
        Self::launch_in(Arc::new(folder), settings, arguments.iter().map(ToString::to_string).collect())
    }

    /// The next process in the same folder. This one must have ended.
    pub(crate) fn again(mut self, settings: &[(&str, &str)]) -> Self {
        assert!(!self.is_running(), "two gateways in one folder");
        Self::launch_in(Arc::clone(&self.folder), settings, self.arguments.clone())
    }

    fn launch_in(folder: Arc<tempfile::TempDir>, settings: &[(&str, &str)], arguments: Vec<String>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringwall"));
        command.args(&arguments).current_dir(folder.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        // All tests hold for both drivers: IO_DRIVER=epoll cargo test.
        if let Some(driver) = std::env::var_os("IO_DRIVER") {
            command.env("IO_DRIVER", driver);
        }
        let usual = [
            ("MCP_BRIDGE_PORT", "0"),
            ("MCP_TCP_PORT", "0"),
            ("MCP_HEALTH_PORT", "0"),
            ("ADMIN_PORT", "0"),
            ("WS_AUTH_TOKEN", TOKEN),
            ("TCP_AUTH_TOKEN", TOKEN),
            ("MCP_LOG_LEVEL", "info"),
            // What is tested here is not how often one may ask.
            ("RATE_LIMIT_ENABLED", "false"),
            // Nor who is locked out: all clients of a test have one address.
            ("MAX_FAILED_ATTEMPTS", "1000000"),
            ("AUTO_BLOCK_ENABLED", "false"),
            ("WORKERS", "2"),
            // Nor how long a busy machine takes. A test that waits for one of these to be over sets its own.
            ("HEADER_TIMEOUT", UNHURRIED_MS),
            ("BODY_TIMEOUT", UNHURRIED_MS),
            ("WRITE_TIMEOUT", UNHURRIED_MS),
            ("DRAIN_TIMEOUT", UNHURRIED_MS),
            ("CIRCUITBREAKER_TIMEOUT", UNHURRIED_MS),
        ];
        command.envs(usual).envs(settings.iter().copied());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (announced, stdout) = announced(child.stdout.take().unwrap(), &log);
        let mut stderr = child.stderr.take().unwrap();
        let errors = Arc::clone(&log);
        let stderr = std::thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut buf) {
                errors.lock().unwrap().push_str(&String::from_utf8_lossy(&buf[..n]));
            }
        });
        let address = |_: &str| match announced.recv_timeout(PATIENCE) {
            Ok(address) => address,
            Err(_) => panic!("the gateway did not start: {}", log.lock().unwrap()),
        };
        let (bridge, tcp, health, admin) = (address("mcp"), address("tcp"), address("health"), address("admin"));
        Self { child, bridge, tcp, health, admin, folder, arguments, log, readers: [stdout, stderr] }
    }

    /// Waits until an upstream is known to be reachable, and until nothing is held any more of the connections that have asked.
    pub(crate) fn ready(self) -> Self {
        until("ready", || self.get("/health/ready").status == 200);
        self.alone();
        self
    }

    /// Waits until no connection is open on any door. A worker learns after its client that a connection has ended.
    pub(crate) fn alone(&self) {
        for door in ["http", "ws", "tcp"] {
            until("all connections to be given back", || self.open_on(door) == 0);
        }
    }

    /// A new connection to the bridge door.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.bridge)
    }

    /// `GET PATH` on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> super::Response {
        let mut client = self.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes());
        client.response()
    }

    /// One message on a connection of its own.
    pub(crate) fn post(&self, body: &str) -> super::Response {
        let mut client = self.client();
        client.send(&super::post(body));
        client.response()
    }

    /// HTTP connections that are open, from the health port.
    pub(crate) fn open_connections(&self) -> u64 {
        self.open_on("http")
    }

    /// Connections of a door (`http`, `ws`, `tcp`) that are open, from the health port.
    pub(crate) fn open_on(&self, door: &str) -> u64 {
        let mut client = Client::connect(self.health);
        client.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let health: Value = serde_json::from_slice(&client.response().body).unwrap();
        health["connections"][door].as_u64().unwrap()
    }

    /// That the gateway has come through: it holds nothing of who has gone, it answers, and it holds nothing of who has asked.
    pub(crate) fn unharmed(&self) {
        self.alone();
        // Of a flood, some may still be waiting to be accepted, and a door may be full of them.
        until("an answer", || self.try_get("/health").is_some_and(|health| health.status == 200));
        self.alone();
    }

    /// `GET PATH` on a connection of its own, which may be refused or closed without an answer.
    pub(crate) fn try_get(&self, path: &str) -> Option<super::Response> {
        let mut client = self.client();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        if client.try_send(request.as_bytes()) { client.try_response() } else { None }
    }

    /// Resident memory in bytes, without the pages of the program file, which come and go with what is run.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let kib = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        (kib("RssAnon:") + kib("RssShmem:")) * 1024
    }

    /// Sockets that it holds.
    pub(crate) fn sockets(&self) -> usize {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        // What is closed meanwhile is not held.
        let links = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    }

    /// The value of a counter of `/metrics`, summed over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.metric_of(name, "")
    }

    /// Likewise of the lines that have all of these labels, with commas between them.
    pub(crate) fn metric_of(&self, name: &str, labels: &str) -> f64 {
        let mut client = Client::connect(self.admin);
        client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let text = client.response().text();
        text.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|line| labels.split(',').all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the process to end, and for all that it has written.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                until("the end of the log", || self.is_read());
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the gateway does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether all that it has written was read. What it wrote last arrives after its end.
    fn is_read(&self) -> bool {
        self.readers.iter().all(JoinHandle::is_finished)
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Everything that was written to stdout and stderr.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The lines of the audit trail so far.
    pub(crate) fn trail(&self) -> Vec<Value> {
        let folder = self.folder().join("ringwall-data/security");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        // The last line may be on its way.
        let whole = |text: String| {
            text.lines()
                .map_while(|line| serde_json::from_str(line.strip_prefix("[SECURITY] ")?).ok())
                .collect::<Vec<_>>()
        };
        logs.flat_map(|path| whole(std::fs::read_to_string(path).unwrap())).collect()
    }

    /// Waits for an audit line of this event that `wanted` likes.
    pub(crate) fn audited(&self, event: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        until(event, || {
            found = self.trail().into_iter().find(|line| line["event"] == event && wanted(line));
            found.is_some()
        });
        found.unwrap()
    }

    /// What stands in the trail for an address, a number or an e-mail address.
    pub(crate) fn pseudonym(&self, value: &str) -> String {
        let key = std::fs::read(self.folder().join("ringwall-data/pseudonym.key")).unwrap();
        let key = ringwall::control::keys::Key::new(key.try_into().unwrap());
        let pseudonym = ringwall::control::audit::pseudonym::Pseudonyms::new(&key).of(value).unwrap();
        assert!(!pseudonym.contains(value));
        pseudonym.to_string()
    }

    /// `ringwall` with these arguments, where the gateway is.
    pub(crate) fn command(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringwall"));
        command.args(arguments).current_dir(self.folder()).env_clear().output().unwrap()
    }

    /// Likewise, with these variables.
    pub(crate) fn command_with(&self, arguments: &[&str], variables: &[(String, String)]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringwall"));
        command.args(arguments).current_dir(self.folder()).env_clear().envs(variables.iter().cloned()).output().unwrap()
    }

    /// Limits the size of files that it may write, or no longer does.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
        let maximum = getrlimit(Resource::Fsize).maximum;
        prlimit(Some(self.pid()), Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
    }

    fn pid(&self) -> Pid {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let start = Instant::now();
        while !self.is_read() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        let log = self.log();
        if std::thread::panicking() {
            println!("---- the gateway's log ----\n{log}");
        } else {
            assert!(!log.contains("panicked"), "a thread of the gateway panicked: {log}");
        }
    }
}

/// The addresses that the gateway says it listens on, in order: mcp, tcp, health, admin.
fn announced(stdout: impl Read + Send + 'static, log: &Arc<Mutex<String>>) -> (Receiver<SocketAddr>, JoinHandle<()>) {
    let (sender, receiver) = channel();
    let log = Arc::clone(log);
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let shown = line.split_once("http://").map(|(_, url)| url.split('/').next().unwrap_or_default());
            if line.starts_with("  ")
                && let Some(text) = shown.or_else(|| Some(line.strip_prefix("  tcp")?.trim()))
                && let Ok(address) = text.parse()
            {
                let _ = sender.send(address);
            }
            log.lock().unwrap().push_str(&format!("{line}\n"));
        }
    });
    (receiver, reader)
}

/// As many as this process may have, for itself and for the gateways that it starts: some tests hold a thousand connections.
fn allow_many_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Longer than [`PATIENCE`], milliseconds: the test's own waits end first, and say what they waited for.
const UNHURRIED_MS: &str = "180000";
