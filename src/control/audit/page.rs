//! Finding lines for who asks again and again: a page of them, and where the next begins.
//!
//! Lines come in the order of the files, the oldest first. A page has a bound on lines and on time: a search that is not over by then goes on with the next
//! page, from the byte where this one ended, so that pages together read each file once. A position is good for as long as its file is there, renamed and
//! compressed too; where it is gone, the search goes on with the next file.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Instant, SystemTime};

use super::search::Filter;
use super::trail::{self, Lines};

/// Lines between two looks at the time.
const LOOK_EVERY: u64 = 1024;

/// Where a search goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The number of the first line of the file, which names it whatever it is called by then.
    file: u64,
    /// The byte in it, decompressed, at which a line begins.
    offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.file, self.offset)
    }
}

/// The text is no [`Position`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no place in the trail")]
pub struct NotAPosition;

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let number = |digits: &str| {
            let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            (digits.bytes().all(is_digit)).then(|| u64::from_str_radix(digits, 16).ok()).flatten().ok_or(NotAPosition)
        };
        let (file, offset) = text.split_once('-').ok_or(NotAPosition)?;
        Ok(Self { file: number(file)?, offset: number(offset)? })
    }
}

/// What is looked for, and how far.
pub struct Search<'a> {
    /// What lines must say.
    pub filter: &'a Filter,
    /// Files that were last written before this are passed over.
    pub since: Option<SystemTime>,
    /// Where the page before ended.
    pub from: Option<Position>,
    /// Lines of the page.
    pub most: usize,
    /// Then the page ends, however few lines it has. At least one look is taken.
    pub until: Instant,
    /// Finding the place where it goes on may take until then.
    pub give_up: Instant,
}

/// A page.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Whole lines, without their newlines.
    pub lines: Vec<Vec<u8>>,
    /// Where the next begins; `None`: there is no more.
    pub next: Option<Position>,
}

/// Looks for lines in a trail's directory. Blocks the thread until the page is full or its time is over.
///
/// # Errors
/// What cannot be read, and why; `TimedOut` when `from` is not reached in time.
pub fn page(dir: &Path, search: &Search<'_>) -> Result<Page, (PathBuf, io::Error)> {
    let paths = trail::files(dir).map_err(|error| (dir.to_owned(), error))?;
    let placed = trail::in_order(paths)?;
    let mut page = Page::default();
    let mut has_looked = false;
    // Files without a line of ours stand last.
    for (path, first) in placed.into_iter().filter_map(|(path, first)| Some((path, first?))) {
        let offset = match search.from {
            Some(from) if first < from.file => continue,
            Some(from) if first == from.file => from.offset,
            _ => 0,
        };
        if is_older(&path, search.since) {
            continue;
        }
        if has_looked && Instant::now() >= search.until {
            page.next = Some(Position { file: first, offset });
            break;
        }
        has_looked = true;
        let over = in_file(&path, offset, search, &mut page.lines);
        if let Some(offset) = over.map_err(|error| (path, error))? {
            page.next = Some(Position { file: first, offset });
            break;
        }
    }
    Ok(page)
}

/// Where it stopped, if that was before the end of the file.
fn in_file(path: &Path, offset: u64, search: &Search<'_>, found: &mut Vec<Vec<u8>>) -> io::Result<Option<u64>> {
    let mut lines = Lines::open_at(path, offset, search.give_up)?;
    loop {
        let at = lines.bytes();
        let is_time = lines.number() > 0 && lines.number().is_multiple_of(LOOK_EVERY);
        if is_time && Instant::now() >= search.until {
            return Ok(Some(at));
        }
        let Some(line) = lines.next()?.filter(|line| line.is_whole) else { return Ok(None) };
        if search.filter.matches(line.bytes) {
            // A full page ends before the next line that would be on it: then it is known that there is one.
            if found.len() >= search.most {
                return Ok(Some(at));
            }
            found.push(line.bytes.to_vec());
        }
    }
}

/// Whether a file was last written before that. If that cannot be said, no.
fn is_older(path: &Path, than: Option<SystemTime>) -> bool {
    let modified = || fs::metadata(path).ok()?.modified().ok();
    than.is_some_and(|than| modified().is_some_and(|modified| modified < than))
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
