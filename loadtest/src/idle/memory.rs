//! The user memory of a process, from `/proc/PID/smaps_rollup`, once it has stopped changing.

use std::io;
use std::time::{Duration, Instant};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(250);

/// Memory that has not changed by more than [`NOISE_KIB`] for this long has settled. Longer than any pause after which a gateway gives something
/// back: ringwall's connections take one second, its pools are swept every second.
pub(crate) const QUIET: Duration = Duration::from_secs(4);

/// How long is waited for that.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a process's own housekeeping may change.
const NOISE_KIB: u64 = 32;

/// KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Shared pages by the share.
    pub(crate) pss: u64,
    /// Pages that are this process's alone and were written.
    pub(crate) private_dirty: u64,
}

impl Memory {
    /// The memory of a process now.
    pub(crate) fn read(pid: u32) -> io::Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        Self::parse(&text).ok_or_else(|| io::Error::other("smaps_rollup is not what it should be"))
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            rest.trim().strip_suffix(" kB")?.parse().ok()
        };
        Some(Self { pss: field("Pss")?, private_dirty: field("Private_Dirty")? })
    }

    /// The memory of a process once it has settled.
    pub(crate) fn settled(pid: u32) -> io::Result<Self> {
        Self::unchanged_for(pid, QUIET)
    }

    /// The memory of a process once it has not changed for so long.
    pub(crate) fn unchanged_for(pid: u32, quiet: Duration) -> io::Result<Self> {
        let end = Instant::now() + PATIENCE;
        let (mut base, mut since) = (Self::read(pid)?, Instant::now());
        while since.elapsed() < quiet {
            if Instant::now() > end {
                let text = format!("the memory of process {pid} has not settled within {} s", PATIENCE.as_secs());
                return Err(io::Error::other(text));
            }
            std::thread::park_timeout(LOOK);
            let now = Self::read(pid)?;
            if now.private_dirty.abs_diff(base.private_dirty) > NOISE_KIB {
                (base, since) = (now, Instant::now());
            }
        }
        Self::read(pid)
    }
}

/// Bytes a connection, of `kib` that came with `connections`.
pub(crate) fn bytes_each(before_kib: u64, after_kib: u64, connections: usize) -> f64 {
    (after_kib as f64 - before_kib as f64) * 1024.0 / connections as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLLUP: &str = "55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss:  5000 kB\nPss:                4321 kB\n\
                          Pss_Dirty:           99 kB\nPrivate_Clean:        7 kB\nPrivate_Dirty:      1234 kB\n";

    #[test]
    fn the_two_fields_are_found_and_not_their_neighbours() {
        assert_eq!(Memory::parse(ROLLUP), Some(Memory { pss: 4321, private_dirty: 1234 }));
        assert_eq!(Memory::parse("Pss: 4 kB\n"), None);
        assert_eq!(Memory::parse("Pss: x kB\nPrivate_Dirty: 1 kB\n"), None);
    }

    #[test]
    fn memory_is_shared_out() {
        assert!((bytes_each(1000, 19_000, 18_000) - 1024.0).abs() < 1e-9);
        assert!(bytes_each(2000, 1000, 10) < 0.0, "a process may give back more than it took");
    }
}
