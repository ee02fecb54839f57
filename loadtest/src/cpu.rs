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

/// A process and all that descend from it, from `/proc/*/stat`.
pub(crate) fn family(pid: u32) -> io::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end while the others are looked at.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        parents.extend(parent(&stat).map(|parent| (id, parent)));
    }
    Ok(descendants(pid, &parents))
}

/// The parent's id in a line of `/proc/PID/stat`. The name before it may contain anything, spaces and parentheses as well.
fn parent(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

/// `pid`, its children, theirs, and so on, of pairs of a process and its parent.
fn descendants(pid: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        next += 1;
    }
    found
}

/// The cores that this process may use.
pub(crate) fn usable() -> io::Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..rustix::thread::CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Lets this thread, and what it starts from now on, use these cores alone.
pub(crate) fn pin_self(cores: &[usize]) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Pins a process and all its present threads (0: this thread) to one core.
pub(crate) fn pin(pid: u32, core: usize) -> io::Result<()> {
    pin_where(pid, |_, _| true, core)
}

/// Pins the present threads of a process to one core, all but `thread`.
pub(crate) fn pin_all_but(pid: u32, thread: Thread, core: usize) -> io::Result<()> {
    pin_where(pid, |id, name| !thread.is(pid, id, name), core)
}

/// Pins the present threads of a process that `thread` names to one core, and leaves the others where they are.
pub(crate) fn pin_only(pid: u32, thread: Thread, core: usize) -> io::Result<()> {
    pin_where(pid, |id, name| thread.is(pid, id, name), core)
}

fn pin_where(pid: u32, wanted: impl Fn(u32, &str) -> bool, core: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    if pid == 0 {
        return Ok(rustix::thread::sched_setaffinity(None, &set)?);
    }
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        let id = task.file_name().to_str().and_then(|id| id.parse().ok()).unwrap_or_default();
        let name = std::fs::read_to_string(task.path().join("comm"))?;
        if !wanted(u32::try_from(id).unwrap_or_default(), name.trim_end()) {
            continue;
        }
        rustix::thread::sched_setaffinity(rustix::process::Pid::from_raw(id), &set)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        for (stat, expected) in [
            ("17 (nginx) S 4 17 4 0 -1 4194560 1 0", Some(4)),
            ("17 (a) b) (c 9 9) R 1 17 17 0", Some(1)),
            ("17 () Z 0 0", Some(0)),
            ("17 (nginx) S", None),
            ("17 (nginx) S x", None),
            ("17 nginx S 4", None),
        ] {
            assert_eq!(parent(stat), expected, "{stat}");
        }
    }

    #[test]
    fn descendants_are_children_of_children_and_nobody_else() {
        let parents = [(5, 3), (2, 1), (3, 2), (4, 2), (9, 8), (8, 1), (2000, 5)];
        let mut found = descendants(2, &parents);
        found.sort_unstable();
        assert_eq!(found, [2, 3, 4, 5, 2000]);
        assert_eq!(descendants(9, &parents), [9]);
    }

    #[test]
    fn a_family_has_the_children_that_are_alive_and_their_time() -> io::Result<()> {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read line | cat"])
            .stdin(std::process::Stdio::piped())
            .spawn()?;
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let wanted = 3;
        let mut found = family(child.id())?;
        while found.len() < wanted && std::time::Instant::now() < end {
            std::thread::park_timeout(std::time::Duration::from_millis(5));
            found = family(child.id())?;
        }
        drop(child.stdin.take());
        child.wait()?;
        assert_eq!((found.len(), found.first()), (wanted, Some(&child.id())), "{found:?}");
        assert!(family(std::process::id())?.contains(&std::process::id()));
        assert!(used_ns(std::process::id())? > 0);
        Ok(())
    }
}
