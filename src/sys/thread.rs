//! Pinning a thread to a core.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that this process may run on, in order. Never empty: a kernel that does not say counts as one core.
pub(crate) fn usable_cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else {
        return vec![0];
    };
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect();
    if cores.is_empty() { vec![0] } else { cores }
}

/// Pins the calling thread to `core`.
///
/// # Errors
/// What the kernel answered, where the core is not ours to use.
pub(crate) fn pin_to(core: usize) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).map_err(std::io::Error::from)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_pinned_to_each_usable_core() {
        let cores = usable_cores();
        assert!(!cores.is_empty());
        for core in cores {
            std::thread::spawn(move || {
                pin_to(core).unwrap();
                assert_eq!(usable_cores(), vec![core]);
            })
            .join()
            .unwrap();
        }
    }
}
