//! `DATA_DIR/counters`: the table of what agents do, in the pages of a file.
//!
//! A count that stands in a page of the file is the kernel's the moment it is written, without a system call: a gateway that is killed loses none.
//! Each second the pages that have changed are written to the disk, for when the machine goes down; what is lost then is that second's.
//!
//! The file is this machine's and this gateway's alone: 0600, of one version, one size and one key (`counters.key`). Anything else under its name is not
//! trusted but replaced, with a warning, and counting begins anew. What a damaged file counts is bounded by its words: it can make the gateway count wrongly,
//! for a window's length or until the end of the month, and nothing else. Its blocks are set aside when it is made, so that a full disk keeps nothing from
//! being counted. Who cuts the file off while it is in use ends the gateway; the directory is the owner's alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, fallocate};

use super::keys::{self, Key, KeyError};
use crate::state::rates::{RateTable, Step};
use crate::sys::words::Words;

/// The file's name in `DATA_DIR`.
pub const FILE: &str = "counters";
/// Its key's.
pub const KEY_FILE: &str = "counters.key";

/// "RINGWALL".
const MAGIC: u64 = 0x4c4c_4157_474e_4952;
/// Of the layout of all words; another one is another version.
const VERSION: u64 = 1;
/// What stands in the first words of the file.
const MAGIC_AT: usize = 0;
const VERSION_AT: usize = 1;
const COUNT_AT: usize = 2;
const KEY_AT: usize = 3;
const LEFT_AT: usize = 4;

/// Why there is no file to count in.
#[derive(Debug, thiserror::Error)]
pub enum CountersError {
    /// Its key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The file.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
}

/// The table, and what is to be done for it.
#[derive(Clone, Debug)]
pub struct Counters {
    table: Arc<RateTable>,
}

impl Counters {
    /// Opens the file, or makes it for `capacity` counts.
    ///
    /// # Errors
    /// [`CountersError`].
    pub fn open(dir: &Path, capacity: usize, now_ms: u64) -> Result<Self, CountersError> {
        let key = keys::load_or_create(dir, KEY_FILE)?;
        let path = dir.join(FILE);
        let io_error = |source| CountersError::Io { path: path.display().to_string(), source };
        let count = RateTable::words_for(capacity);
        let found = match reopen(&path, count, &key) {
            Ok(words) => Some(words),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the file of counters is replaced: counts of agents' calls begin at 0");
                None
            }
        };
        let words = match found {
            Some(words) => words,
            None => make(dir, &path, count, &key, now_ms).map_err(io_error)?,
        };
        let left_ms = words.get(LEFT_AT).map_or(now_ms, |word| word.load(Ordering::Relaxed));
        let table = RateTable::over(words, capacity, secret(&key));
        if table.mend(left_ms, now_ms) == Step::Leap {
            tracing::warn!(
                "the clock is more than 12 days from where it was: what agents did in the last minute and hour counts no longer"
            );
        }
        let counters = Self { table: Arc::new(table) };
        counters.note(now_ms);
        Ok(counters)
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &Arc<RateTable> {
        &self.table
    }

    /// Notes that the table was in use at this time.
    pub fn note(&self, now_ms: u64) {
        put(self.table.words(), LEFT_AT, now_ms);
    }

    /// Waits until what was counted is on disk.
    ///
    /// # Errors
    /// What the disk answered.
    pub fn sync(&self) -> io::Result<()> {
        self.table.words().sync()
    }
}

/// The file's words, if it is what it should be.
fn reopen(path: &Path, count: usize, key: &Key) -> io::Result<Words> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags.cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    let len = len_bytes(count);
    if !metadata.is_file() || metadata.mode() & 0o077 != 0 {
        return Err(io::Error::other("it is no file of the owner alone"));
    }
    if metadata.len() != len {
        return Err(io::Error::other(format!("it has {} bytes instead of {len}", metadata.len())));
    }
    set_aside(&file, len)?;
    let words = Words::of_file(&file, count)?;
    let is = |at: usize, value: u64| words.get(at).is_some_and(|word| word.load(Ordering::Relaxed) == value);
    if !(is(MAGIC_AT, MAGIC) && is(VERSION_AT, VERSION) && is(COUNT_AT, count as u64)) {
        return Err(io::Error::other("it is of another kind or version"));
    }
    if !is(KEY_AT, fingerprint(key)) {
        return Err(io::Error::other("it was made under another key"));
    }
    Ok(words)
}

/// A new file in place of whatever has its name. It gets the name when it is whole.
fn make(dir: &Path, path: &Path, count: usize, key: &Key, now_ms: u64) -> io::Result<Words> {
    let draft = path.with_extension("draft");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&draft)?;
    set_aside(&file, len_bytes(count))?;
    let words = Words::of_file(&file, count)?;
    for (at, value) in [
        (MAGIC_AT, MAGIC),
        (VERSION_AT, VERSION),
        (COUNT_AT, count as u64),
        (KEY_AT, fingerprint(key)),
        (LEFT_AT, now_ms),
    ] {
        put(&words, at, value);
    }
    words.sync()?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(dir)?.sync_all()?;
    Ok(words)
}

/// Makes the file so long, with blocks of the disk behind every byte.
fn set_aside(file: &File, len: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, len) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    // A file system that sets nothing aside: blocks come with what is written, once.
    let mut file = file;
    let zeroes = [0; 64 * 1024];
    let mut missing = len.saturating_sub(file.metadata()?.len());
    while missing > 0 {
        let part = zeroes.get(..usize::try_from(missing).unwrap_or(zeroes.len()).min(zeroes.len())).unwrap_or(&zeroes);
        file.write_all(part)?;
        missing -= part.len() as u64;
    }
    Ok(())
}

fn len_bytes(count: usize) -> u64 {
    count as u64 * size_of::<AtomicU64>() as u64
}

fn put(words: &[AtomicU64], at: usize, value: u64) {
    if let Some(word) = words.get(at) {
        word.store(value, Ordering::Relaxed);
    }
}

/// What the table's keys are hashed under.
fn secret(key: &Key) -> [u8; 16] {
    let (first, _) = key.expose().split_at(16);
    first.try_into().unwrap_or_default()
}

/// By which the file's key is known, without a word about it: the other half of the key hashes it.
fn fingerprint(key: &Key) -> u64 {
    use hmac::{Hmac, KeyInit, Mac};
    let Ok(mut mac) = Hmac::<sha2::Sha256>::new_from_slice(key.expose()) else { return 0 };
    mac.update(b"ringwall counters");
    let bytes = mac.finalize().into_bytes();
    u64::from_le_bytes(std::array::from_fn(|n| bytes.get(n).copied().unwrap_or(0)))
}

#[cfg(test)]
#[path = "counters_tests.rs"]
mod tests;
