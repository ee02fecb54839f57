//! The trail's files for those who read it: which they are, in the order of the chain, and their lines.
//!
//! Rotated files count, and those that gzip has compressed. Files are read as they are, beside a gateway that may be writing them and a rotation
//! that may be renaming them. Memory is bounded: one block and one line of a file.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Instant;

use flate2::bufread::MultiGzDecoder;

use super::files::{COMPRESSED, is_trail_name};
use super::line::Link;

/// Read at once.
const BLOCK: usize = 256 << 10;
/// The longest line that is read as one; ours have [`super::line::MAX_LINE`] bytes at most. What is longer comes in pieces.
const LONGEST: u64 = 64 << 10;
/// Lines at the beginning of a file that are looked at for its place in the trail.
const LINES_TO_PLACE: u64 = 16;

/// The trail's files in a directory, by name: of a name that is there plain and compressed only the plain one, as the other is being written.
///
/// # Errors
/// When the directory cannot be read.
pub fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().to_str().filter(|name| is_trail_name(name)).map(str::to_owned));
    }
    names.sort_unstable();
    let plain = |name: &str| COMPRESSED.iter().find_map(|ending| name.strip_suffix(ending)).map(str::to_owned);
    let is_there = |name: &String| plain(name).is_some_and(|plain| names.binary_search(&plain).is_ok());
    Ok(names.iter().filter(|name| !is_there(name)).map(|name| dir.join(name)).collect())
}

/// A file, and the number of its first line if that can be said.
pub type Placed = (PathBuf, Option<u64>);

/// The files in the order of the chain, with the number of each one's first line; those without any line of ours behind them.
///
/// # Errors
/// The file that cannot be read.
pub fn in_order(paths: Vec<PathBuf>) -> Result<Vec<Placed>, (PathBuf, io::Error)> {
    let mut placed = Vec::new();
    for path in paths {
        match first_seq(&path) {
            Ok(first) => placed.push((path, first)),
            Err(error) => return Err((path, error)),
        }
    }
    placed.sort_by_key(|(_, first)| first.unwrap_or(u64::MAX));
    Ok(placed)
}

/// The number of a file's first line. Where that was spoilt it follows from the next one.
fn first_seq(path: &Path) -> io::Result<Option<u64>> {
    let mut lines = Lines::open(path)?;
    while lines.number() < LINES_TO_PLACE {
        match lines.next() {
            Ok(Some(line)) => {
                if let Some(link) = Link::of(line.bytes) {
                    return Ok(Some(link.seq.saturating_sub(lines.number() - 1)));
                }
            }
            Ok(None) => break,
            // Whoever reads the file comes upon it.
            Err(error) if is_damage(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether what cannot be read is the file's content rather than the file.
pub(super) fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// The lines of one file.
pub struct Lines {
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
    read: u64,
}

/// A line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Without its newline.
    pub bytes: &'a [u8],
    /// Whether it has one: the last may be being written.
    pub is_whole: bool,
}

impl Lines {
    /// Of a file, decompressed if its name ends in `.gz`.
    ///
    /// # Errors
    /// When it cannot be opened, or is compressed in a way that is not read here.
    pub fn open(path: &Path) -> io::Result<Self> {
        let name = path.to_string_lossy();
        let reader: Box<dyn BufRead> = match COMPRESSED.iter().position(|ending| name.ends_with(ending)) {
            None => Box::new(BufReader::with_capacity(BLOCK, File::open(path)?)),
            Some(0) => {
                let decoder = MultiGzDecoder::new(BufReader::with_capacity(BLOCK, File::open(path)?));
                Box::new(BufReader::with_capacity(BLOCK, decoder))
            }
            Some(_) => return Err(io::Error::new(io::ErrorKind::Unsupported, "only .gz is read; decompress it first")),
        };
        Ok(Self { reader, line: Vec::new(), number: 0, read: 0 })
    }

    /// Likewise, but from the byte `offset` on, where a line begins. Of a compressed file all before it is decompressed; what takes until `give_up` is left.
    ///
    /// # Errors
    /// As [`Lines::open`]; `TimedOut`.
    pub fn open_at(path: &Path, offset: u64, give_up: Instant) -> io::Result<Self> {
        let mut lines = Self::open(path)?;
        let name = path.to_string_lossy();
        if !COMPRESSED.iter().any(|ending| name.ends_with(ending)) {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            lines.reader = Box::new(BufReader::with_capacity(BLOCK, file));
        } else {
            let mut left = offset;
            while left > 0 {
                let some = io::copy(&mut (&mut lines.reader).take(left.min(1 << 20)), &mut io::sink())?;
                if some == 0 {
                    break;
                }
                left -= some;
                if Instant::now() >= give_up {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
        lines.read = offset;
        Ok(lines)
    }

    /// The next line.
    ///
    /// # Errors
    /// When the file cannot be read on.
    #[allow(clippy::should_implement_trait, reason = "it lends what it gives")]
    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let len = (&mut self.reader).take(LONGEST).read_until(b'\n', &mut self.line)?;
        if len == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.read += len as u64;
        Ok(Some(self.line()))
    }

    /// The line that was read last.
    #[must_use]
    pub fn line(&self) -> Line<'_> {
        match self.line.split_last() {
            Some((b'\n', bytes)) => Line { bytes, is_whole: true },
            _ => Line { bytes: &self.line, is_whole: false },
        }
    }

    /// Its number in the file, from 1; 0 before the first.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes read so far, decompressed; those before where it was opened at among them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.read
    }
}
