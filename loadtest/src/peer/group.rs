//! One peer's processes: started on one core, looked at as one, stopped while others are measured, ended with their owner.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::super::cpu;
use super::super::idle::memory::Memory;

/// A program as it is to be started. It sees `PATH`, a home of its own, and what stands in `env`.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    /// How long it may take until it listens.
    pub(crate) patience: Duration,
}

impl Program {
    pub(crate) fn new<A: Into<OsString>>(path: impl Into<PathBuf>, args: impl IntoIterator<Item = A>) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self { path: path.into(), args, env: Vec::new(), patience: Duration::from_secs(20) }
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }
}

/// The processes of a peer.
pub(crate) struct Group {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Group {
    /// Starts a program in `home`, which must be its own, on one core or, without one, wherever this process may run.
    pub(crate) fn start(name: &str, program: &Program, home: &Path, core: Option<usize>) -> io::Result<Self> {
        let log = home.join("output.log");
        let (out, err) = (File::create(&log)?, File::options().append(true).open(&log)?);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["hold", "--parent", &std::process::id().to_string()]);
        if let Some(core) = core {
            command.args(["--core", &core.to_string()]);
        }
        command.arg("--").arg(&program.path).args(&program.args);
        command.env_clear().env("HOME", home).envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs(program.env.iter().map(|(name, value)| (name, value))).current_dir(home);
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn()?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Waits until it accepts connections.
    pub(crate) fn listening(&mut self, address: SocketAddr, patience: Duration) -> io::Result<()> {
        let end = Instant::now() + patience;
        while TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.explain(&io::Error::other(format!("has ended with {status}"))));
            }
            if Instant::now() > end {
                let waited = patience.as_secs();
                return Err(self.explain(&io::Error::other(format!("does not listen on {address} after {waited} s"))));
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Ok(())
    }

    /// All its processes that are alive.
    fn pids(&self) -> io::Result<Vec<u32>> {
        cpu::family(self.child.id())
    }

    /// CPU time of all its processes and threads that are alive, nanoseconds. Who ends in between two looks is missing from the second.
    pub(crate) fn used_ns(&self) -> io::Result<u64> {
        self.pids()?.into_iter().map(cpu::used_ns).sum()
    }

    /// Memory of all its processes, KiB; pages that several share, by the share.
    pub(crate) fn pss_kib(&self) -> io::Result<u64> {
        self.pids()?.into_iter().map(|pid| Memory::read(pid).map(|memory| memory.pss)).sum()
    }

    /// Processes and threads.
    pub(crate) fn size(&self) -> io::Result<(usize, usize)> {
        let pids = self.pids()?;
        let mut threads = 0;
        for pid in &pids {
            threads += std::fs::read_dir(format!("/proc/{pid}/task"))?.count();
        }
        Ok((pids.len(), threads))
    }

    /// Stops all its processes, so that they do nothing while others are measured.
    pub(crate) fn stop(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    pub(crate) fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        for pid in self.pids()? {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            kill_process(pid.ok_or_else(|| io::Error::other("no process id"))?, signal)?;
        }
        Ok(())
    }

    /// An error with the peer's name, and the end of what its processes have said.
    pub(crate) fn explain(&self, error: &io::Error) -> io::Error {
        const SHOWN_BYTES: usize = 2048;
        let said = std::fs::read(&self.log).unwrap_or_default();
        let end = said.get(said.len().saturating_sub(SHOWN_BYTES)..).unwrap_or_default();
        io::Error::other(format!("{}: {error}\n{}", self.name, String::from_utf8_lossy(end)))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Stopped processes are killed all the same. Who is gone already needs no signal.
        let _ = self.signal(Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// So many ports that nobody listens on. They are not kept: who takes one first has it.
pub(crate) fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_can_be_bound() -> io::Result<()> {
        let ports = free_ports::<8>()?;
        let mut distinct = ports.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), ports.len());
        for port in ports {
            TcpListener::bind(("127.0.0.1", port))?;
        }
        Ok(())
    }
}
