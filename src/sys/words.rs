//! Large blocks of words that several threads write: of this process alone, or of a file, which then holds at any moment what the threads
//! have written, however the process ends.
//!
//! A block begins with a page. Its words are zero until they are written, and a page that was never written takes no memory.
#![allow(unsafe_code)]

use std::alloc::{Layout, handle_alloc_error};
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// A mapping, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Words {
    start: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: a `Words` owns its mapping as a `Box<[AtomicU64]>` would, and is only ever lent out as `&[AtomicU64]`, which is `Send` and `Sync`.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// `count` words of memory (at least one), all 0. Where there is no memory for them the process ends, as with a `Box`.
    #[must_use]
    pub(crate) fn zeroed(count: usize) -> Self {
        let words = Self::map(count, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1);
        let Ok(words) = words else {
            handle_alloc_error(Layout::array::<AtomicU64>(count).unwrap_or(Layout::new::<AtomicU64>()))
        };
        words
    }

    /// The first `count` words of the file, which must be that long and stay so: a page that is not there any more when it is touched ends the
    /// process (SIGBUS). Whoever asks has set the blocks of the file aside on its disk.
    ///
    /// # Errors
    /// The file is shorter, or what the kernel answered.
    pub(crate) fn of_file(file: &File, count: usize) -> io::Result<Self> {
        if file.metadata()?.len() < count as u64 * size_of::<AtomicU64>() as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Self::map(count, libc::MAP_SHARED, file.as_raw_fd())
    }

    fn map(count: usize, flags: libc::c_int, fd: RawFd) -> io::Result<Self> {
        let len = count.checked_mul(size_of::<AtomicU64>()).filter(|len| *len > 0 && *len <= isize::MAX as usize);
        let len = len.ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the kernel chooses the place, so no memory that is in use is touched. The descriptor is live for the call, or -1 with MAP_ANONYMOUS; the
        // mapping does not need it afterwards.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<AtomicU64>()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start, count })
    }

    /// The first `count` words are in use all over, and by chance: larger pages spare the processor looking for them. Where there are none, nothing
    /// happens.
    pub(crate) fn expect_random_use(&self, count: usize) {
        let len = count.min(self.count) * size_of::<AtomicU64>();
        // SAFETY: the range lies within the mapping, which lives as long as `self`; the advice changes no content.
        let _ = unsafe { libc::madvise(self.start.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
    }

    /// Waits until what was written to the file's words is on disk.
    ///
    /// # Errors
    /// What the kernel answered.
    pub(crate) fn sync(&self) -> io::Result<()> {
        // SAFETY: start and length are those of the mapping, which lives as long as `self`; nothing of it is changed.
        match unsafe { libc::msync(self.start.as_ptr().cast(), size_of_val::<[AtomicU64]>(self), libc::MS_SYNC) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is `count` words long, page-aligned, readable and writable, and lives as long as `self`. Every bit pattern is a `u64`, and an
        // `AtomicU64` has the representation of one (std's documentation); so it is valid whatever stands there, and may be changed while it is
        // shared, by other threads and, where another process writes to the file, by that too.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: start and length are those of the mapping, which is not used any more: no borrow of it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), size_of_val::<[AtomicU64]>(self)) };
    }
}

/// These words are read or written soon: the processor may fetch their cache lines meanwhile. Nothing else happens.
#[inline]
pub(crate) fn expect_use<const N: usize>(words: &[AtomicU64; N]) {
    #[cfg(target_arch = "x86_64")]
    for line in words.chunks(8) {
        // SAFETY: a hint. It reads nothing that the program could see and never faults, whatever the address is; this one is of live words.
        unsafe { core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = words;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn memory_is_zero_and_shared_by_threads() {
        let words = Words::zeroed(100_000);
        assert_eq!(words.as_ptr().addr() % 4096, 0);
        assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        std::thread::scope(|scope| {
            scope.spawn(|| words[99_999].store(7, Ordering::Relaxed));
        });
        assert_eq!(words[99_999].load(Ordering::Relaxed), 7);
    }

    #[test]
    fn a_file_holds_what_was_written_and_must_be_long_enough() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8_192).unwrap();
        let words = Words::of_file(&file, 1_024).unwrap();
        words[1_000].store(0x0102_0304, Ordering::Relaxed);
        words.sync().unwrap();
        drop(words);
        assert_eq!(Words::of_file(&file, 1_024).unwrap()[1_000].load(Ordering::Relaxed), 0x0102_0304);
        assert_eq!(Words::of_file(&file, 1_025).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(Words::of_file(&file, 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
