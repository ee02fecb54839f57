//! CPU time of processes and threads, and pinning.

use std::io;

/// CPU time that the process has used, nanoseconds, user and kernel, over all its threads that are alive, from `/proc/PID/task/*/schedstat`.
pub(crate) fn used_ns(pid: u32) -> io::Result<u64> {
    used_by(pid, |_| true)
}

/// The same for the threads with this name alone. An error if there is none.
pub(crate) fn thread_used_ns(pid: u32, thread: &str) -> io::Result<u64> {
    let mut found = false;
    let used = used_by(pid, |name| {
        found |= name == thread;
        name == thread
    })?;
    if found { Ok(used) } else { Err(io::Error::other(format!("process {pid} has no thread {thread}"))) }
}

fn used_by(pid: u32, mut counts: impl FnMut(&str) -> bool) -> io::Result<u64> {
    let mut total = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        if !counts(std::fs::read_to_string(task.join("comm"))?.trim_end()) {
            continue;
        }
        let text = std::fs::read_to_string(task.join("schedstat"))?;
        let ns = text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok());
        total += ns.ok_or_else(|| io::Error::other("schedstat is not what it should be"))?;
    }
    Ok(total)
}

/// Pins a process and all its present threads (0: this thread) to one core.
pub(crate) fn pin(pid: u32, core: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    if pid == 0 {
        return Ok(rustix::thread::sched_setaffinity(None, &set)?);
    }
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = task?.file_name();
        let id = name.to_str().and_then(|name| name.parse().ok()).and_then(rustix::process::Pid::from_raw);
        rustix::thread::sched_setaffinity(id, &set)?;
    }
    Ok(())
}
