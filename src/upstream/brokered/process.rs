//! A child's life: started in a process group of its own with a bare environment, fed, read, its stderr logged, and ended with its group.
//!
//! The end, whoever wants it: stdin is closed; after [`TERM_AFTER`] the group gets SIGTERM, after [`KILL_AFTER`] SIGKILL. A leader that ends
//! by itself takes its group with it. The group is killed while the leader is still a zombie, so that its number cannot be another's yet.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

use super::broker::Broker;
use super::instance::{Messages, Outlet, ToServer};
use super::lines::{Line, Lines};
use super::seam::{ChildSpec, ProgramSpec, SpawnFault};
use super::stderr::log_stderr;
use super::upkeep::End;
use crate::sys::child::{ExitFd, die_with_parent};

/// After stdin was closed: SIGTERM to the group.
const TERM_AFTER: Duration = Duration::from_secs(2);
/// After stdin was closed: SIGKILL to the group.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// A server that takes nothing from a full pipe or socket for this long is stuck, and is ended.
pub(super) const WRITE_STALL: Duration = Duration::from_secs(120);
/// Time for what a dead server left in its pipe or socket.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);
/// Read at once from a server.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// What a child inherits of the gateway's environment. Nothing else: the gateway's secrets stand there.
const INHERITED: [&str; 9] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TERM", "TMPDIR", "SHELL", "LOGNAME"];

/// Starts child `no` of `broker` and the tasks around it. Must be called on the children thread. `alive` is held until the process is gone.
pub(super) fn launch(
    spec: &ChildSpec,
    program: &ProgramSpec,
    no: u64,
    broker: Weak<RefCell<Broker>>,
    alive: Rc<()>,
) -> Result<ToServer, SpawnFault> {
    let mut child = start(program).map_err(|(fault, error)| {
        let command = program.command.first().map(String::as_str).unwrap_or_default();
        tracing::error!(upstream = %spec.name, command, %error, "the server cannot be started: {fault}");
        fault
    })?;
    tracing::info!(upstream = %spec.name, pid = child.id(), "the server was started");
    let (queue, outlet) = ToServer::new();
    if let Some(stderr) = child.stderr.take() {
        spawn_local(log_stderr(spec.name.clone(), stderr));
    }
    let max = spec.max_message_bytes;
    spawn_local(async move {
        let how = supervise(child, outlet, max, no, broker.clone()).await;
        if let Some(broker) = broker.upgrade() {
            broker.borrow_mut().on_end(no, &End::Exited(how), Instant::now());
        }
        drop(alive);
    });
    Ok(queue)
}

/// The variables of a child.
fn environment(spec: &ProgramSpec) -> Vec<(OsString, OsString)> {
    let inherited = INHERITED.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
    let own = spec.env.iter().map(|(name, value)| (name.into(), value.into()));
    inherited.chain(own).collect()
}

fn start(spec: &ProgramSpec) -> Result<Child, (SpawnFault, io::Error)> {
    let Some((program, arguments)) = spec.command.split_first() else {
        return Err((SpawnFault::Empty, io::ErrorKind::InvalidInput.into()));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(environment(spec))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(cwd) = &spec.cwd {
        // exec would say "not found" of the directory just as it says it of the program.
        match std::fs::metadata(cwd) {
            Ok(metadata) if metadata.is_dir() => command.current_dir(cwd),
            Ok(_) => return Err((SpawnFault::Directory, io::ErrorKind::NotADirectory.into())),
            Err(error) => return Err((SpawnFault::Directory, error)),
        };
    }
    die_with_parent(&mut command);
    command.spawn().map_err(|error| {
        let fault = match error.kind() {
            io::ErrorKind::NotFound => SpawnFault::NotFound,
            io::ErrorKind::PermissionDenied => SpawnFault::NotExecutable,
            _ if error.raw_os_error() == Some(libc::ENOEXEC) => SpawnFault::NotExecutable,
            _ => SpawnFault::Other,
        };
        (fault, error)
    })
}

/// Sees the end of a process without reaping it, where the kernel offers that.
struct ExitWatch {
    pidfd: Option<ExitFd>,
}

impl ExitWatch {
    fn new(pid: Option<Pid>) -> Self {
        let pidfd = pid.and_then(|pid| ExitFd::open(pid).ok());
        Self { pidfd }
    }

    async fn wait(&self, child: &mut Child) {
        match &self.pidfd {
            Some(pidfd) => pidfd.wait().await,
            None => {
                let _ = child.wait().await;
            }
        }
    }
}

fn signal_group(pid: Option<Pid>, signal: Signal) {
    if let Some(pid) = pid {
        // An empty group is what one hopes for.
        let _ = kill_process_group(pid, signal);
    }
}

/// Runs until the process and its group are gone; says how it ended.
async fn supervise(
    mut child: Child,
    outlet: Outlet,
    max_message_bytes: usize,
    no: u64,
    broker: Weak<RefCell<Broker>>,
) -> String {
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let exit = ExitWatch::new(pid);
    let mut writer = spawn_writer(child.stdin.take(), outlet.messages);
    let mut reader = spawn_reader(child.stdout.take(), max_message_bytes, no, broker);
    let mut has_exited = false;
    let how = tokio::select! {
        _ = outlet.unwanted => "was ended",
        () = exit.wait(&mut child) => {
            has_exited = true;
            "exited"
        }
        _ = &mut reader => "closed its stdout",
        _ = &mut writer => "does not take its input",
    };
    // Closes its stdin.
    writer.abort();
    if !has_exited && timeout(TERM_AFTER, exit.wait(&mut child)).await.is_err() {
        signal_group(pid, Signal::TERM);
        let _ = timeout(KILL_AFTER.saturating_sub(TERM_AFTER), exit.wait(&mut child)).await;
    }
    signal_group(pid, Signal::KILL);
    let status = child.wait().await;
    if !reader.is_finished() {
        let _ = timeout(LAST_WORDS, &mut reader).await;
        reader.abort();
    }
    match status {
        Ok(status) => format!("{how} ({status})"),
        Err(error) => format!("{how} ({error})"),
    }
}

fn spawn_writer(stdin: Option<ChildStdin>, mut messages: Messages) -> JoinHandle<()> {
    spawn_local(async move {
        let Some(mut stdin) = stdin else {
            return;
        };
        while let Some(message) = messages.next().await {
            if write(&mut stdin, &message).await.is_err() {
                return;
            }
            messages.written(message.len());
        }
        // The broker has dropped its end: the supervisor sees that too and closes stdin by ending this task.
        std::future::pending::<()>().await;
    })
}

/// Writes all of `bytes` and what is buffered below, however long that takes as long as some of it goes.
pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    let stalled = || io::Error::from(io::ErrorKind::TimedOut);
    let mut rest = bytes;
    while !rest.is_empty() {
        match timeout(WRITE_STALL, to.write(rest)).await.map_err(|_| stalled())?? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => rest = rest.get(written..).unwrap_or_default(),
        }
    }
    timeout(WRITE_STALL, to.flush()).await.map_err(|_| stalled())?
}

fn spawn_reader(
    stdout: Option<ChildStdout>,
    max_message_bytes: usize,
    no: u64,
    broker: Weak<RefCell<Broker>>,
) -> JoinHandle<()> {
    spawn_local(async move {
        let Some(mut stdout) = stdout else {
            return;
        };
        let mut lines = Lines::new(max_message_bytes);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = match stdout.read(&mut buffer).await {
                Ok(read) if read > 0 => read,
                _ => return,
            };
            let Some(broker) = broker.upgrade() else {
                return;
            };
            let now = Instant::now();
            let mut broker = broker.borrow_mut();
            lines.feed(buffer.get(..read).unwrap_or_default(), |line| match line {
                Line::Whole(line) => broker.on_line(no, line, now),
                Line::TooLong { id } => broker.on_too_long(no, id, now),
            });
        }
    })
}
