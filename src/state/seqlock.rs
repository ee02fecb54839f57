//! Several words that one thread writes and any number of threads read as a whole, without a lock: a version beside atomics.
//!
//! The writer makes the version odd, writes, and makes it even again. A reader looks at the version before and after; equal and even, nothing
//! was written meanwhile. The words are atomics, accessed relaxed, so that no read is undefined, and the fences make the versions tell
//! the truth: a reader that sees a word of a write also sees, behind its fence, that the write had begun. The writer never waits
//! for readers.
//!
//! There must be one writer at a time. That is the caller's to see to.

use super::sync::{AtomicU64, Ordering, fence, spin_loop};

/// How often a reader tries. A write is some thirty stores; only a writer that is taken off its core in the middle makes a reader
/// come here.
#[cfg(not(loom))]
const ATTEMPTS: usize = 10_000;
#[cfg(loom)]
const ATTEMPTS: usize = 2;

/// Runs `change`, whose stores readers see all or none of.
pub(super) fn write(version: &AtomicU64, change: impl FnOnce()) {
    let before = version.load(Ordering::Relaxed);
    version.store(before.wrapping_add(1), Ordering::Relaxed);
    fence(Ordering::Release);
    change();
    version.store(before.wrapping_add(2), Ordering::Release);
}

/// What `look` finds at one moment between two writes. `None`: a write was in the way each time.
pub(super) fn read<T>(version: &AtomicU64, mut look: impl FnMut() -> T) -> Option<T> {
    for _ in 0..ATTEMPTS {
        let before = version.load(Ordering::Acquire);
        if before.is_multiple_of(2) {
            let found = look();
            fence(Ordering::Acquire);
            if version.load(Ordering::Relaxed) == before {
                return Some(found);
            }
        }
        spin_loop();
    }
    None
}

#[cfg(all(test, loom))]
#[allow(clippy::unwrap_used)]
mod interleavings {
    use super::*;
    use std::sync::Arc;

    /// Whatever a reader gets, both words are of one write, and not of one that had begun after another one it has seen the end of.
    #[test]
    fn no_read_is_torn() {
        loom::model(|| {
            let cell = Arc::new((AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)));
            let writer = {
                let cell = Arc::clone(&cell);
                loom::thread::spawn(move || {
                    for n in 1..=2 {
                        write(&cell.0, || {
                            cell.1.store(n, Ordering::Relaxed);
                            cell.2.store(n * 10, Ordering::Relaxed);
                        });
                    }
                })
            };
            let look = || read(&cell.0, || (cell.1.load(Ordering::Relaxed), cell.2.load(Ordering::Relaxed)));
            if let Some((first, second)) = look() {
                assert_eq!(first * 10, second);
            }
            writer.join().unwrap();
            assert_eq!(look(), Some((2, 20)));
        });
    }
}
