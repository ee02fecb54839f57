//! Whether a trail is as it was written: every line's link to the one before, over all files, and its end against the checkpoint.
//!
//! Reads each line once, in the order of the chain, whatever the files are called: of several files the one whose next line is due is read on. So rotated
//! files, and files that a wrong clock has mixed, are one trail. The first [`Fault`] ends it; only then is more read, to say what was done.
//!
//! The MACs are computed on other cores meanwhile ([`macs`]), as if they were right. If one was not, all is read again, and each before the next line.
//!
//! Beside a running gateway: the checkpoint is to be read before the files are listed, so that all it vouches for is in them. Lines behind it are verified as
//! far as they go. A last line without its newline is being written, or was when the gateway was killed, and no fault.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use hmac::Hmac;
use sha2::Sha256;

use super::checkpoint::Checkpoint;
use super::line::{ChainEnd, Link, keyed};
use super::trail::{self, Lines};
use crate::control::keys::Key;
use macs::Macs;

mod diagnose;
mod macs;

/// What a trail is held against.
pub struct Expected<'a> {
    /// The chain's key.
    pub key: &'a Key,
    /// How far it goes at least. Without it a cut-off end does not show.
    pub checkpoint: Option<Checkpoint>,
    /// Where it begins.
    pub beginning: From,
    /// A line that someone has noted elsewhere, and its `mac`: it must be there, as it was.
    pub anchor: Option<ChainEnd>,
}

/// Where a trail begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// With the very first line.
    First,
    /// With any line up to this one: older files were given away.
    Line(u64),
    /// Wherever it does. That older files are missing does not show.
    Oldest,
}

/// A trail that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its first line's number; 0 when there is none.
    pub first: u64,
    /// Where the chain ends.
    pub end: ChainEnd,
    /// How many lines.
    pub lines: u64,
    /// In how many files.
    pub files: usize,
    /// How many bytes, decompressed.
    pub bytes: u64,
    /// The file whose last line is not whole, and how many bytes of it are there.
    pub torn: Option<(PathBuf, usize)>,
}

/// What was done to a trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A line is not as it was written.
    Changed,
    /// Lines are gone from between others, or older files are.
    Removed,
    /// A line stands in another's place.
    Swapped,
    /// A line is there that does not belong there.
    Inserted,
    /// Lines are gone from the end, of the trail or of a file.
    Truncated,
    /// Lines were written under another key.
    ForeignKey,
    /// A line is genuine, and continues another trail than this one: a copy was written on.
    Forked,
}

impl Kind {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Changed => "changed",
            Kind::Removed => "removed",
            Kind::Swapped => "swapped",
            Kind::Inserted => "inserted",
            Kind::Truncated => "truncated",
            Kind::ForeignKey => "foreign-key",
            Kind::Forked => "forked",
        }
    }
}

/// The first fault of a trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What was done.
    pub kind: Kind,
    /// The file, and the line in it, where it shows; line 0 before the first.
    pub file: PathBuf,
    /// See `file`.
    pub line: u64,
    /// The number of the line that was to be there.
    pub seq: u64,
    /// What was found, for a person.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}: {}: {}", self.file.display(), self.line, self.kind.name(), self.text)
    }
}

/// Why a trail was not verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Something is wrong with it.
    #[error("{0}")]
    Fault(Fault),
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or the directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Verifies the trail in a directory.
///
/// # Errors
/// [`VerifyError`].
pub fn verify(dir: &Path, expected: &Expected<'_>) -> Result<Whole, VerifyError> {
    let keyed = keyed(expected.key);
    let mut verifier = Verifier::new(dir, expected, &keyed)?;
    verifier.macs = Some(Macs::new(keyed.clone()));
    let read = verifier.read_all();
    if verifier.macs.take().is_none_or(Macs::were_right) {
        read?;
        return verifier.conclude(dir);
    }
    let mut verifier = Verifier::new(dir, expected, &keyed)?;
    verifier.read_all()?;
    verifier.conclude(dir)
}

/// A file, and how far it was read.
struct Cursor {
    path: PathBuf,
    /// The number of its first line, as that says.
    first: Option<u64>,
    /// Opened when its first line is due, and closed behind its last. The line that was read last is the next to be verified.
    lines: Option<Lines>,
    is_done: bool,
    /// In which line of the file that is.
    number: u64,
}

impl Cursor {
    /// The number of the line that is next, as it says; `None` when there is none, or when it is none of ours.
    fn next_seq(&self) -> Option<u64> {
        match &self.lines {
            _ if self.is_done => None,
            None => self.first,
            Some(lines) => Link::of(lines.line().bytes).map(|link| link.seq),
        }
    }

    fn open(&mut self) -> io::Result<()> {
        if self.lines.is_none() && !self.is_done {
            self.lines = Some(Lines::open(&self.path)?);
            self.advance()?;
        }
        Ok(())
    }

    fn advance(&mut self) -> io::Result<()> {
        let Some(lines) = &mut self.lines else { return Ok(()) };
        self.is_done = lines.next()?.is_none();
        self.number = lines.number();
        if self.is_done {
            self.lines = None;
        }
        Ok(())
    }

    /// Whether the next line is the file's last and has no newline, and how long it is.
    fn torn(&self) -> Option<usize> {
        let line = self.lines.as_ref()?.line();
        (!line.is_whole).then_some(line.bytes.len())
    }
}

struct Verifier<'a> {
    keyed: &'a Hmac<Sha256>,
    /// Who computes the MACs of lines that are taken for right until then; `None`: each is computed at once.
    macs: Option<Macs>,
    expected: &'a Expected<'a>,
    files: Vec<Cursor>,
    /// The number of the first line of all.
    first: Option<u64>,
    /// The last line that was right, and where it stands: the file, and the line in it.
    end: ChainEnd,
    last: Option<(usize, u64)>,
    lines: u64,
    bytes: u64,
}

impl<'a> Verifier<'a> {
    fn new(dir: &Path, expected: &'a Expected<'a>, keyed: &'a Hmac<Sha256>) -> Result<Self, VerifyError> {
        let paths = trail::files(dir).map_err(|source| VerifyError::Io { path: dir.to_owned(), source })?;
        let placed = trail::in_order(paths).map_err(|(path, source)| VerifyError::Io { path, source })?;
        let files: Vec<_> = placed
            .into_iter()
            .map(|(path, first)| Cursor { path, first, lines: None, is_done: false, number: 0 })
            .collect();
        let first = files.iter().filter_map(|file| file.first).min();
        let end = ChainEnd::default();
        Ok(Self { keyed, macs: None, expected, files, first, end, last: None, lines: 0, bytes: 0 })
    }

    /// Reads as far as there are lines that are due.
    fn read_all(&mut self) -> Result<(), VerifyError> {
        self.begin(self.first)?;
        // Files without a line of ours: empty, or foreign.
        for at in 0..self.files.len() {
            if self.files.get(at).is_some_and(|file| file.first.is_none()) {
                self.open(at)?;
            }
        }
        while self.go_on()? {}
        Ok(())
    }

    /// What reading came to.
    fn conclude(mut self, dir: &Path) -> Result<Whole, VerifyError> {
        let torn = self.left_over()?;
        self.reaches(dir, torn.map(|(at, _)| at))?;
        let path = |at: usize| self.files.get(at).map(|file| file.path.clone()).unwrap_or_default();
        Ok(Whole {
            first: if self.lines == 0 { 0 } else { self.first.unwrap_or_default() },
            torn: torn.map(|(at, bytes)| (path(at), bytes)),
            end: self.end,
            lines: self.lines,
            files: self.files.len(),
            bytes: self.bytes,
        })
    }

    /// Reads on in a file whose next line is due. False: there is none, or it is not as it says.
    fn go_on(&mut self) -> Result<bool, VerifyError> {
        for at in 0..self.files.len() {
            if self.files.get(at).and_then(Cursor::next_seq) == Some(self.end.seq + 1) {
                self.open(at)?;
                if self.read(at)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Takes the chain up where the trail is to begin, if that may be another line than the first.
    fn begin(&mut self, first: Option<u64>) -> Result<(), VerifyError> {
        let may = match self.expected.beginning {
            From::First => false,
            From::Line(seq) => first.is_some_and(|first| first <= seq),
            From::Oldest => true,
        };
        let Some(at) = self.files.iter().position(|file| may && file.first.is_some() && file.first == first) else {
            return Ok(());
        };
        self.open(at)?;
        let lines = self.files.get(at).and_then(|file| file.lines.as_ref());
        if let Some(link) = lines.and_then(|lines| Link::of(lines.line().bytes)) {
            self.end = ChainEnd { seq: link.seq.saturating_sub(1), mac: *link.prev };
        }
        Ok(())
    }

    fn open(&mut self, at: usize) -> Result<(), VerifyError> {
        let opened = self.files.get_mut(at).map_or(Ok(()), Cursor::open);
        opened.map_err(|error| self.unreadable(at, error))
    }

    /// Reads a file as far as its lines are those that are due. False: there was none.
    fn read(&mut self, at: usize) -> Result<bool, VerifyError> {
        let before = self.lines;
        while self.step(at).map_err(|error| self.unreadable(at, error))? {}
        Ok(self.lines > before)
    }

    /// Verifies the next line of a file. False: it is not the one that is due.
    fn step(&mut self, at: usize) -> io::Result<bool> {
        let Some(file) = self.files.get_mut(at) else { return Ok(false) };
        let Some(lines) = &file.lines else { return Ok(false) };
        let line = lines.line();
        let Some(link) = Link::of(line.bytes).filter(|_| line.is_whole) else { return Ok(false) };
        // The writer opens no file without saying so in the line that it begins with.
        let may_be_here = self.last.is_none_or(|(last, _)| last == at) || link.is_mark;
        let is_due = link.seq == self.end.seq + 1 && *link.prev == self.end.mac;
        if !is_due || !may_be_here || !is_known(self.expected, &link.end()) {
            return Ok(false);
        }
        match &mut self.macs {
            // Once something is wrong all is read again anyway.
            Some(macs) if macs.found_wrong() => return Ok(false),
            Some(macs) => macs.take(&link),
            None if link.is_right(self.keyed) => {}
            None => return Ok(false),
        }
        self.lines += 1;
        self.bytes += line.bytes.len() as u64 + 1;
        self.last = Some((at, lines.number()));
        self.end = link.end();
        file.advance()?;
        Ok(true)
    }

    /// That no file holds a line that was not due, but for the last one, which may be torn.
    fn left_over(&mut self) -> Result<Option<(usize, usize)>, VerifyError> {
        let left: Vec<usize> =
            (0..self.files.len()).filter(|at| self.files.get(*at).is_some_and(|file| !file.is_done)).collect();
        let torn = left.iter().copied().find(|at| self.files.get(*at).is_some_and(|file| file.torn().is_some()));
        match (torn, left.as_slice()) {
            (_, []) => Ok(None),
            (Some(at), [_]) => Ok(self.files.get(at).and_then(Cursor::torn).map(|bytes| (at, bytes))),
            (Some(at), _) => {
                let text = format!("line {} is not whole, and other lines follow", self.end.seq + 1);
                Err(self.fault(at, Kind::Truncated, text))
            }
            (None, _) => Err(self.diagnose(&left)),
        }
    }

    /// A file cannot be read: a fault of the trail where it is its content that is broken.
    fn unreadable(&self, at: usize, error: io::Error) -> VerifyError {
        if trail::is_damage(&error) {
            return self.fault(at, Kind::Changed, format!("the compressed file is damaged: {error}"));
        }
        let path = self.files.get(at).map(|file| file.path.clone()).unwrap_or_default();
        VerifyError::Io { path, source: error }
    }

    /// That the trail goes as far as it is known to go.
    fn reaches(&self, dir: &Path, torn: Option<usize>) -> Result<(), VerifyError> {
        let noted = self.expected.checkpoint.iter().map(|checkpoint| (&checkpoint.end, "the checkpoint"));
        let noted = noted.chain(self.expected.anchor.iter().map(|anchor| (anchor, "what was noted")));
        let Some((known, by)) = noted.max_by_key(|(known, _)| known.seq).filter(|(known, _)| known.seq > self.end.seq)
        else {
            return Ok(());
        };
        let text = format!(
            "the trail ends with line {}, and went on to line {} by {by}: lines {} to {} were cut off",
            self.end.seq,
            known.seq,
            self.end.seq + 1,
            known.seq
        );
        if let Some(at) = torn {
            return Err(self.fault(at, Kind::Truncated, text));
        }
        let (file, line) = match self.last {
            Some((at, line)) => (self.files.get(at).map(|file| file.path.clone()).unwrap_or_default(), line),
            None => (dir.to_owned(), 0),
        };
        Err(VerifyError::Fault(Fault { kind: Kind::Truncated, file, line, seq: self.end.seq + 1, text }))
    }

    fn fault(&self, at: usize, kind: Kind, text: String) -> VerifyError {
        let file = self.files.get(at);
        VerifyError::Fault(Fault {
            kind,
            file: file.map(|file| file.path.clone()).unwrap_or_default(),
            line: file.map_or(0, |file| file.number),
            seq: self.end.seq + 1,
            text,
        })
    }
}

/// Whether a line is the one that was noted, if one of its number was.
fn is_known(expected: &Expected<'_>, end: &ChainEnd) -> bool {
    let noted = expected.checkpoint.iter().map(|checkpoint| &checkpoint.end).chain(&expected.anchor);
    noted.into_iter().all(|noted| noted.seq != end.seq || noted.mac == end.mac)
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
