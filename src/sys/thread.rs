//! Which core a thread runs on, and whom it makes way for.
#![allow(unsafe_code)]

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

/// The calling thread does not interrupt others when it wakes (`SCHED_BATCH`, sched(7)); its share of the processor stays the same.
///
/// # Errors
/// What the kernel answered.
pub(crate) fn run_as_batch() -> std::io::Result<()> {
    // SAFETY: plain data, for which zeroes are valid; the priority of SCHED_BATCH must be 0.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live value that is only read; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_make_way_for_others() {
        std::thread::spawn(|| {
            run_as_batch().unwrap();
            // SAFETY: one integer; 0 is the calling thread.
            assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_BATCH);
        })
        .join()
        .unwrap();
    }

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
