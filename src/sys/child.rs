//! Child processes: what a child does between fork and exec (it asks to die with its parent, and lets go of every descriptor but its three
//! streams), and how its end is seen without reaping it.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

/// Tells when a process has ended, while it is still a zombie and its number nobody else's.
#[derive(Debug)]
pub(crate) struct ExitFd {
    // Private, and never lent mutably: the proof below rests on it.
    pidfd: AsyncFd<OwnedFd>,
}

impl ExitFd {
    /// Watches a child. Must be called within a tokio runtime that has its I/O driver on.
    ///
    /// # Errors
    /// When the kernel has no pidfd (before 5.3, or a filter forbids it) or descriptors have run out.
    pub(crate) fn open(pid: Pid) -> io::Result<Self> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        // SAFETY: the descriptor is valid and owned: `OwnedFd` moves into the `AsyncFd`, which closes it after deregistering it. It always
        // returns the same number, and nobody can exchange it, because the field is private and no method lends it mutably.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.map_err(io::Error::from)?;
        Ok(Self { pidfd })
    }

    /// Waits for the end; afterwards returns at once.
    pub(crate) async fn wait(&self) {
        // The readiness is not cleared: an ended process stays ended.
        let _ = self.pidfd.readable().await;
    }
}

/// Makes `command`'s child get SIGKILL when the thread that spawned it ends, and marks all inherited descriptors above 2 close-on-exec, so
/// that no socket of the gateway lives on in a child. The thread that spawns must live as long as the child is wanted.
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let prepare = move || -> io::Result<()> {
        // SAFETY: prctl with PR_SET_PDEATHSIG takes one integer and touches no memory of ours; it is a bare system call.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have ended before the line above: then nobody would send the signal.
        // SAFETY: getppid has no preconditions and cannot fail.
        let ppid = unsafe { libc::getppid() };
        if u32::try_from(ppid) != Ok(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // Kernels before 5.11 do not know the flag and refuse; std opens everything close-on-exec anyway, so that is no error.
        // SAFETY: close_range with CLOSE_RANGE_CLOEXEC only sets a flag on descriptors; none is closed before exec, so none is in use wrongly.
        unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        Ok(())
    };
    // SAFETY: `prepare` runs in the forked child before exec, where only async-signal-safe operations are allowed. It makes system calls and
    // compares integers: no allocation (io::Error from an error number holds none), no lock, no access to memory other than its own copy of
    // `parent`.
    unsafe { command.pre_exec(prepare) };
}
