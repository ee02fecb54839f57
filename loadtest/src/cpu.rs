//! CPU time of processes and threads, and pinning.

use std::io;

/// CPU time that the process has used, nanoseconds, user and kernel, over all its threads that are alive, from `/proc/PID/task/*/schedstat`.
pub(crate) fn used_ns(pid: u32) -> io::Result<u64> {
    used_by(pid, |_, _| true)
}

/// CPU time that the process has used, nanoseconds, user and kernel, over all its threads, those that have ended among them; from its clock.
pub(crate) fn process_used_ns(pid: u32) -> io::Result<u64> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
    let time = nix::time::clock_getcpuclockid(pid)?.now()?;
    ns(time.tv_sec(), time.tv_nsec()).ok_or_else(|| io::Error::other("a clock before its begin"))
}

/// CPU time that the calling thread has used, nanoseconds.
pub(crate) fn this_thread_used_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    ns(time.tv_sec, time.tv_nsec).unwrap_or_default()
}

fn ns(seconds: i64, nanoseconds: i64) -> Option<u64> {
    u64::try_from(seconds).ok()?.checked_mul(1_000_000_000)?.checked_add(u64::try_from(nanoseconds).ok()?)
}

/// As `used_ns`, for the threads that `thread` names. An error if there is none.
pub(crate) fn thread_used_ns(pid: u32, thread: Thread) -> io::Result<u64> {
    let mut found = false;
    let used = used_by(pid, |id, name| {
        let counts = thread.is(pid, id, name);
        found |= counts;
        counts
    })?;
    if found { Ok(used) } else { Err(io::Error::other(format!("process {pid} has no thread {thread:?}"))) }
}

/// Threads of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thread {
    /// That which runs `main`.
    Main,
    /// Those with this name.
    Named(&'static str),
}

impl Thread {
    fn is(self, pid: u32, id: u32, name: &str) -> bool {
        match self {
            Self::Main => id == pid,
            Self::Named(wanted) => name == wanted,
        }
    }
}

fn used_by(pid: u32, mut counts: impl FnMut(u32, &str) -> bool) -> io::Result<u64> {
    let mut total = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        let id = task.file_name().to_str().and_then(|id| id.parse().ok()).unwrap_or_default();
        if !counts(id, std::fs::read_to_string(task.path().join("comm"))?.trim_end()) {
            continue;
        }
        let text = std::fs::read_to_string(task.path().join("schedstat"))?;
        let ns = text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok());
        total += ns.ok_or_else(|| io::Error::other("schedstat is not what it should be"))?;
    }
    Ok(total)
}

/// Pins a process and all its present threads (0: this thread) to one core.
pub(crate) fn pin(pid: u32, core: usize) -> io::Result<()> {
    pin_all_but(pid, None, core)
}

/// Pins the present threads of a process to one core, all but `thread`.
pub(crate) fn pin_all_but(pid: u32, thread: Option<Thread>, core: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    if pid == 0 {
        return Ok(rustix::thread::sched_setaffinity(None, &set)?);
    }
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        let id = task.file_name().to_str().and_then(|id| id.parse().ok()).unwrap_or_default();
        let name = std::fs::read_to_string(task.path().join("comm"))?;
        if thread.is_some_and(|thread| thread.is(pid, u32::try_from(id).unwrap_or_default(), name.trim_end())) {
            continue;
        }
        rustix::thread::sched_setaffinity(rustix::process::Pid::from_raw(id), &set)?;
    }
    Ok(())
}
