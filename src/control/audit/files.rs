//! The daily files: `security-YYYY-MM-DD.log`, opened to append, 0600 in a directory of 0700.
//!
//! [`DailyFiles::write_group`] puts a group of lines on disk whole or not at all: what a failed write or sync left behind is
//! cut off before anything else is written. What a crash or a power cut has left of a last line is cut off at the next start
//! ([`DailyFiles::recover`]): it was on its way and nobody was told that it is there. A file that turns out to be torn later is closed with a
//! newline, so that no later line can be glued to it.
//!
//! Nothing here is read again soon. Once lines are on disk, and but for the newest, the system is told that it need not keep them in memory:
//! else the trail of a busy gateway pushes everything else out of the page cache, and each line is written to memory that is cold.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::fs::{Advice, FlockOperation, fadvise, flock};

use super::line::{self, ChainEnd};
use crate::control::keys::Key;

/// How many of the newest days' files are searched for the chain's end, and as many that were rotated; more than one because a clock may
/// have been wrong.
const FILES_TO_SEARCH: usize = 8;
/// How much of a file's end stays in the page cache, for those who read along, bytes.
const KEPT_CACHED: u64 = 4 << 20;
/// How much more than that gathers before it is let go of.
const LET_GO_STEP: u64 = 1 << 20;

/// What was found of the trail at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// The highest whole line of the newest files.
    pub(crate) end: ChainEnd,
    /// Bytes of torn lines that were cut off.
    pub(crate) torn: u64,
}

/// The operations on a log file that can fail; a seam for tests.
pub(crate) trait LogFile: Send {
    /// Appends all of `bytes`.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was appended durable.
    fn sync(&mut self) -> io::Result<()>;
    /// The length now, bytes.
    fn len(&mut self) -> io::Result<u64>;
    /// Cuts the file to `len` bytes.
    fn cut(&mut self, len: u64) -> io::Result<()>;
    /// What stands between these offsets is on disk and need not be kept in memory.
    fn let_go(&mut self, _from: u64, _to: u64) {}
    /// Whether it has no name any more: someone deleted it.
    fn is_deleted(&mut self) -> bool {
        false
    }
}

impl LogFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&mut self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn let_go(&mut self, from: u64, to: u64) {
        // Advice: where it is not taken nothing is wrong.
        if let Some(len) = NonZeroU64::new(to.saturating_sub(from)) {
            let _ = fadvise(&*self, from, Some(len), Advice::DontNeed);
        }
    }

    fn is_deleted(&mut self) -> bool {
        self.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }
}

/// Opens a path as a log file.
pub(crate) type Opener = Box<dyn FnMut(&Path) -> io::Result<Box<dyn LogFile>> + Send>;

/// Why the audit directory cannot be used. All are for the operator to mend.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// The file system said no.
    #[error("audit directory {path}: {source}")]
    Io {
        /// The directory, or a file in it.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Another process writes there.
    #[error("audit directory {path} is in use by another process")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// The file of today, and the way to the file of tomorrow.
pub(crate) struct DailyFiles {
    dir: PathBuf,
    open: Opener,
    current: Option<(String, Box<dyn LogFile>)>,
    /// The length to cut the current file to before writing on: a group failed half-way.
    cut_to: Option<u64>,
    /// Up to where the current file was let go of.
    gone_to: u64,
    /// Held as long as this lives; the kernel lets go of it when the process ends, however it ends.
    _lock: File,
}

impl DailyFiles {
    /// Creates the directory if needed and claims it for this process.
    pub(crate) fn claim(dir: &Path) -> Result<Self, DirError> {
        Self::claim_with(dir, Box::new(|path| Ok(Box::new(open_log(path)?) as Box<dyn LogFile>)))
    }

    /// [`DailyFiles::claim`] with another way to open files.
    pub(crate) fn claim_with(dir: &Path, open: Opener) -> Result<Self, DirError> {
        let io_error = |source| DirError::Io { path: dir.to_path_buf(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error)?;
        let mode = fs::metadata(dir).map_err(io_error)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            tracing::warn!(dir = %dir.display(), mode = %format_args!("{mode:04o}"), "others can look into the audit directory");
        }
        let lock_path = dir.join(".lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(lock_path)
            .map_err(io_error)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(DirError::InUse { path: dir.to_path_buf() });
        }
        Ok(Self { dir: dir.to_path_buf(), open, current: None, cut_to: None, gone_to: 0, _lock: lock })
    }

    /// Finds where the chain stands, and mends what a crash has left behind it. `known` is the number of the line up to which the trail was on
    /// disk, as the checkpoint has it: when that line is not there someone was at the files, and nothing is cut off, as it may tell what they did.
    pub(crate) fn recover(&self, key: &Key, known: u64) -> Result<Recovered, DirError> {
        let io_error = |source| DirError::Io { path: self.dir.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io_error)? {
            let name = entry.map_err(io_error)?.file_name();
            names.extend(name.to_str().filter(|name| is_plain_text(name)).map(str::to_owned));
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        let (daily, rotated): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| is_log_name(name));
        let mut recovered = Recovered::default();
        let mut torn = Vec::new();
        for name in daily.into_iter().take(FILES_TO_SEARCH).chain(rotated.into_iter().take(FILES_TO_SEARCH)) {
            let path = self.dir.join(name);
            let tail = Tail::of(&path, key).map_err(|source| DirError::Io { path: path.clone(), source })?;
            let ends = tail.end.iter().cloned().chain([recovered.end]);
            recovered.end = ends.max_by_key(|end| end.seq).unwrap_or_default();
            if tail.open_bytes > 0 {
                torn.push((path, tail));
            }
        }
        for (path, tail) in torn {
            let cut = tail.mend(&path, recovered.end.seq >= known).map_err(|source| DirError::Io { path, source })?;
            recovered.torn += cut;
        }
        Ok(recovered)
    }

    /// The file that the next group goes to if it is written at `now_ms`, when it is not the one that is open.
    pub(crate) fn opens(&self, now_ms: u64) -> Option<String> {
        let name = log_name(now_ms);
        let is_open = self.current.as_ref().is_some_and(|(open, _)| *open == name || self.cut_to.is_some());
        (!is_open).then_some(name)
    }

    /// The name of the file that is open.
    pub(crate) fn name(&self) -> Option<&str> {
        self.current.as_ref().map(|(name, _)| name.as_str())
    }

    /// Puts whole lines on disk, in the file of the UTC day of `now_ms`: written and synced, or nothing of them is left.
    pub(crate) fn write_group(&mut self, lines: &[u8], now_ms: u64) -> io::Result<()> {
        let name = log_name(now_ms);
        let deleted = self.current.as_mut().is_some_and(|(_, file)| file.is_deleted());
        if deleted {
            tracing::warn!("the audit file was deleted; it is created again");
            (self.current, self.cut_to) = (None, None);
        }
        let cut_to = self.cut_to;
        // The day does not change while a failed group is still to be cut off the old file.
        if cut_to.is_none() && self.current.as_ref().is_some_and(|(open, _)| *open != name) {
            self.current = None;
        }
        if self.current.is_none() {
            let file = (self.open)(&self.dir.join(&name))?;
            self.current = Some((name, file));
            self.gone_to = 0;
        }
        let Some((_, file)) = &mut self.current else {
            return Err(io::Error::other("no file is open"));
        };
        if let Some(len) = cut_to {
            file.cut(len)?;
            self.cut_to = None;
        }
        let before = file.len()?;
        let written = file.append(lines).and_then(|()| file.sync());
        match &written {
            Ok(()) => {
                let end = before.saturating_add(lines.len() as u64).saturating_sub(KEPT_CACHED);
                if end.saturating_sub(self.gone_to) >= LET_GO_STEP {
                    // From a little before: what lay across the last boundary was kept as a whole.
                    file.let_go(self.gone_to.saturating_sub(LET_GO_STEP), end);
                    self.gone_to = end;
                }
            }
            Err(_) if file.cut(before).is_err() => self.cut_to = Some(before),
            Err(_) => {}
        }
        written
    }

    /// Closes the current file; the next group opens it again by its name. A rotated file stays as it is.
    pub(crate) fn reopen(&mut self) {
        if self.cut_to.is_none() {
            self.current = None;
        }
    }
}

/// `security-YYYY-MM-DD.log` of the UTC day of `now_ms`.
pub(crate) fn log_name(now_ms: u64) -> String {
    let at = i64::try_from(now_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX);
    format!("security-{}.log", at.to_zoned(TimeZone::UTC).date())
}

/// Whether a file of the directory is one that the writer has made and nobody has rotated.
pub(crate) fn is_log_name(name: &str) -> bool {
    name.starts_with(STEM) && name.ends_with(".log")
}

/// Whether a file is one of the trail: as it was written, or as a rotation has renamed it, `….log.1`, `….log-20261122`, `….log.1.gz`.
pub(crate) fn is_trail_name(name: &str) -> bool {
    let behind = name.strip_prefix(STEM).and_then(|rest| rest.split_once(".log")).map(|(_, behind)| behind);
    behind.is_some_and(|behind| behind.is_empty() || behind.starts_with(['.', '-', '_']))
}

/// Whether it is, and not compressed.
fn is_plain_text(name: &str) -> bool {
    is_trail_name(name) && !COMPRESSED.iter().any(|ending| name.ends_with(ending))
}

/// Endings of files that are compressed. Only the first is read.
pub(crate) const COMPRESSED: [&str; 4] = [".gz", ".bz2", ".xz", ".zst"];
const STEM: &str = "security-";

/// Opens a log to append, closes a torn last line, and makes a new file's name durable.
pub(super) fn open_log(path: &Path) -> io::Result<File> {
    let existed = path.exists();
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let len = file.metadata()?.len();
    if len > 0 {
        let mut last = [0];
        file.seek(SeekFrom::Start(len - 1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            tracing::warn!(file = %path.display(), "the last audit line was torn; it is closed here");
            file.write_all(b"\n")?;
            file.sync_data()?;
        }
    }
    if let Some(dir) = path.parent().filter(|_| !existed) {
        File::open(dir)?.sync_all()?;
    }
    Ok(file)
}

/// How a file ends.
struct Tail {
    /// The last whole, right line.
    end: Option<ChainEnd>,
    /// Bytes behind the last newline.
    open_bytes: u64,
    /// Whether these are a whole line that lacks its newline alone.
    is_line: bool,
}

impl Tail {
    /// Looks at the end of the file: as far back as a right line is not found, so that a torn group and foreign text are skipped.
    fn of(path: &Path, key: &Key) -> io::Result<Self> {
        const WINDOW: u64 = 64 * line::MAX_LINE as u64;
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        let mut window = WINDOW;
        loop {
            file.seek(SeekFrom::Start(len.saturating_sub(window)))?;
            let mut tail = Vec::new();
            (&file).take(window).read_to_end(&mut tail)?;
            let open = tail.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
            let is_line = line::chain_end_of(key, open).is_some();
            let end = tail.rsplit(|byte| *byte == b'\n').find_map(|line| line::chain_end_of(key, line));
            if end.is_some() || window >= len.min(MOST_SEARCHED) {
                return Ok(Self { end, open_bytes: open.len() as u64, is_line });
            }
            window *= 8;
        }
    }

    /// Ends the last line; with `may_cut` one that is torn is cut off. How many bytes were cut off.
    fn mend(&self, path: &Path, may_cut: bool) -> io::Result<u64> {
        let mut file = OpenOptions::new().append(true).open(path)?;
        if self.is_line || !may_cut {
            file.write_all(b"\n")?;
            file.sync_data()?;
            return Ok(0);
        }
        tracing::warn!(file = %path.display(), bytes = self.open_bytes, "the last audit line was torn; it is cut off");
        let len = file.metadata()?.len();
        file.set_len(len.saturating_sub(self.open_bytes))?;
        file.sync_data()?;
        Ok(self.open_bytes)
    }
}

/// How much of a file's end is searched for a right line: several of the largest groups.
const MOST_SEARCHED: u64 = 32 << 20;

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
