//! What was done to a trail: looks behind the line that is not the one that is due.
//!
//! All files are read once more for it, from their beginnings, as it happens once. What a fault is called follows from which lines are right (their
//! `mac` is) and which numbers they have; who has no key cannot make a right line, only move one.

use std::io;
use std::path::PathBuf;

use super::{Fault, Kind, Verifier, VerifyError, is_known};
use crate::control::audit::line::{ChainEnd, Link};
use crate::control::audit::trail::{self, Lines};

/// A line's link, on its own.
#[derive(Clone)]
struct Seen {
    seq: u64,
    prev: [u8; 64],
    mac: [u8; 64],
    is_right: bool,
}

impl Verifier<'_> {
    /// Of the files that hold lines which were not read, the next of which is not due in any.
    pub(super) fn diagnose(&mut self, left: &[usize]) -> VerifyError {
        for at in left {
            if let Err(error) = self.open(*at) {
                return error;
            }
        }
        let next: Vec<(usize, Option<Seen>)> = left.iter().map(|at| (*at, self.next(*at))).collect();
        let is_spoilt = |seen: &Option<Seen>| seen.as_ref().is_none_or(|seen| !seen.is_right);
        let place_of_due = match self.places(self.end.seq + 1) {
            Ok(places) => places.into_iter().next(),
            Err(error) => return self.unreadable(left.first().copied().unwrap_or_default(), error),
        };
        // First what is spoilt, and of that what stands where reading stopped; then the file that has the line which is due; then the lowest number.
        let rank = |(at, seen): &(usize, Option<Seen>)| {
            let is_last = self.last.is_some_and(|(last, _)| last == *at);
            let has_due =
                self.files.get(*at).is_some_and(|file| place_of_due.as_ref().is_some_and(|due| due.0 == file.path));
            (
                !is_spoilt(seen),
                !(is_last && is_spoilt(seen)),
                !has_due,
                !is_last,
                seen.as_ref().map_or(u64::MAX, |seen| seen.seq),
            )
        };
        let Some((at, seen)) = next.iter().min_by_key(|next| rank(next)).cloned() else {
            return self.fault(
                0,
                Kind::Changed,
                "the files have changed while they were read; verify again".to_owned(),
            );
        };
        let found = match seen {
            Some(seen) if seen.is_right => self.genuine(at, &seen),
            seen => self.spoilt(at, seen),
        };
        found.unwrap_or_else(|error| self.unreadable(at, error))
    }

    /// The next line of a file.
    fn next(&self, at: usize) -> Option<Seen> {
        let lines = self.files.get(at)?.lines.as_ref()?;
        self.seen(lines.line().bytes)
    }

    fn seen(&self, line: &[u8]) -> Option<Seen> {
        let link = Link::of(line)?;
        Some(Seen { seq: link.seq, prev: *link.prev, mac: *link.mac, is_right: link.is_right(self.keyed) })
    }

    /// A right line in a wrong place.
    fn genuine(&self, at: usize, seen: &Seen) -> io::Result<VerifyError> {
        let due = self.end.seq + 1;
        let seq = seen.seq;
        if seq < due {
            return Ok(self.fault(
                at,
                Kind::Inserted,
                format!("a copy of line {seq}, which stands behind line {}", due - 1),
            ));
        }
        if seq == due && seen.prev == self.end.mac && is_known(self.expected, &ChainEnd { seq, mac: seen.mac }) {
            let text = format!("line {seq} is in another file than line {}, and no file was opened there", due - 1);
            return Ok(self.fault(at, Kind::Swapped, text));
        }
        if seq == due {
            let text = if is_known(self.expected, &ChainEnd { seq, mac: seen.mac }) {
                format!("line {seq} is genuine, but follows another line {} than the one before it", due - 1)
            } else {
                format!(
                    "line {seq} is genuine, but not the one that was noted: the trail was written on from an older copy"
                )
            };
            return Ok(self.fault(at, Kind::Forked, text));
        }
        Ok(match self.places(due)?.into_iter().next() {
            Some(_) if self.places(seq)?.len() > 1 => {
                self.fault(at, Kind::Inserted, format!("a copy of line {seq}, where line {due} belongs"))
            }
            Some((path, number)) => {
                let place = format!("{}, line {number}", path.display());
                self.fault(
                    at,
                    Kind::Swapped,
                    format!("line {seq} stands where line {due} belongs, which is in {place}"),
                )
            }
            None => self.gap(at, seq),
        })
    }

    /// Lines are nowhere; the next that there is has the number `seq`.
    fn gap(&self, at: usize, seq: u64) -> VerifyError {
        let due = self.end.seq + 1;
        let is_first = self.files.get(at).is_some_and(|file| file.number == 1);
        match self.last.filter(|_| is_first) {
            Some((last, line)) => {
                let file = self.files.get(last).map(|file| file.path.clone()).unwrap_or_default();
                let text = format!("lines {due} to {} were cut off, or are in a file that is not there", seq - 1);
                VerifyError::Fault(Fault { kind: Kind::Truncated, file, line, seq: due, text })
            }
            None if self.last.is_none() => {
                let text = format!(
                    "the trail begins with line {seq}; lines {due} to {} are not there. If older files were given away in order: --from {seq}",
                    seq - 1
                );
                self.fault(at, Kind::Removed, text)
            }
            None => {
                self.fault(at, Kind::Removed, format!("lines {due} to {} are not there; line {seq} follows", seq - 1))
            }
        }
    }

    /// A line that is not right.
    fn spoilt(&self, at: usize, seen: Option<Seen>) -> io::Result<VerifyError> {
        let due = self.end.seq + 1;
        let (bad, linked, right) = self.behind(at, seen.as_ref())?;
        let is_elsewhere = !self.places(due)?.is_empty();
        let vouched = self.expected.checkpoint.as_ref().is_none_or(|checkpoint| checkpoint.end.seq >= due);
        let (kind, text) = match right {
            _ if is_elsewhere => (Kind::Inserted, format!("a line that is none of the trail's, before line {due}")),
            Some(seq) if seq <= due => {
                (Kind::Inserted, format!("a line that is none of the trail's, before line {seq}"))
            }
            Some(seq) if seq - due == bad => (Kind::Changed, format!("line {due} is not as it was written")),
            Some(seq) => {
                let text = format!("what stands there for lines {due} to {} is not as it was written", seq - 1);
                (Kind::Changed, text)
            }
            None if linked > 0 => {
                let text =
                    format!("line {due} and those behind it follow one another, but were not written under this key");
                (Kind::ForeignKey, text)
            }
            None if vouched => (Kind::Changed, format!("line {due} is not as it was written")),
            None => (Kind::Inserted, format!("a line that is none of the trail's, behind its last line {}", due - 1)),
        };
        Ok(self.fault(at, kind, text))
    }

    /// Behind a line that is not right, in its file: how many that are not right stand together with it; how many of these are linked each to the one before
    /// it; and the number of the right line behind them.
    fn behind(&self, at: usize, first: Option<&Seen>) -> io::Result<(u64, u64, Option<u64>)> {
        let Some(file) = self.files.get(at) else { return Ok((1, 0, None)) };
        let mut lines = Lines::open(&file.path)?;
        let (mut bad, mut linked, mut before) = (1, 0, first.cloned());
        while let Some(line) = lines.next()? {
            let seen = self.seen(line.bytes);
            if lines.number() <= file.number {
                continue;
            }
            match seen {
                Some(seen) if seen.is_right => return Ok((bad, linked, Some(seen.seq))),
                seen => {
                    let follows =
                        |(seen, before): (&Seen, &Seen)| seen.prev == before.mac && seen.seq == before.seq + 1;
                    linked += u64::from(seen.as_ref().zip(before.as_ref()).is_some_and(follows));
                    bad += 1;
                    before = seen;
                }
            }
        }
        Ok((bad, linked, None))
    }

    /// Where there is a right line with this number: files, and lines in them.
    fn places(&self, seq: u64) -> io::Result<Vec<(PathBuf, u64)>> {
        let mut places = Vec::new();
        for file in &self.files {
            let mut lines = Lines::open(&file.path)?;
            loop {
                let is_it = match lines.next() {
                    Ok(Some(line)) => {
                        Link::of(line.bytes).is_some_and(|link| link.seq == seq && link.is_right(self.keyed))
                    }
                    Ok(None) => break,
                    // Damaged: no more lines can be had from it.
                    Err(error) if trail::is_damage(&error) => break,
                    Err(error) => return Err(error),
                };
                if is_it {
                    places.push((file.path.clone(), lines.number()));
                }
            }
        }
        Ok(places)
    }
}
