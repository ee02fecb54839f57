//! Where the lines go: the daily files, and the checkpoint that says how far they go.
//!
//! At the start the two are held against each other. Where lines are missing the chain goes on from the checkpoint, so that the gap is there for ever,
//! and an alert says so.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::checkpoint::{self, Checkpoint, CheckpointFile, CheckpointSync, Noted};
use super::files::{DailyFiles, DirError, Recovered};
use super::line::ChainEnd;
use crate::control::keys::Key;

/// The files and the checkpoint.
pub(super) struct Place {
    files: DailyFiles,
    checkpoint: CheckpointFile,
    /// Whether the last note failed; it is logged once.
    is_noted: bool,
}

/// How a trail is taken up again.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    /// What the next line continues.
    pub(super) end: ChainEnd,
    /// Bytes of torn lines that were cut off.
    pub(super) torn: u64,
    /// What is wrong with the trail, for an alert.
    pub(super) alarm: Option<String>,
}

impl Place {
    /// Takes the trail up where it ended.
    pub(super) fn open(files: DailyFiles, state_dir: &Path, key: &Key) -> Result<(Self, Beginning), DirError> {
        let (mut checkpoint, noted) = CheckpointFile::open(state_dir, key)
            .map_err(|source| DirError::Io { path: state_dir.join(checkpoint::FILE), source })?;
        let known = match &noted {
            Noted::At(known) => known.end.seq,
            Noted::Nothing | Noted::Unreadable => 0,
        };
        let found = files.recover(key, known)?;
        if noted == Noted::Nothing {
            // From here on a trail without a checkpoint is one whose checkpoint was taken away.
            checkpoint
                .note(&found.end, "-", 0)
                .map_err(|source| DirError::Io { path: state_dir.join(checkpoint::FILE), source })?;
        }
        let beginning = Beginning::of(found, noted);
        if let Some(alarm) = &beginning.alarm {
            tracing::error!("the audit trail: {alarm}; `ringwall audit verify` says more");
        }
        Ok((Self { files, checkpoint, is_noted: true }, beginning))
    }

    /// The name of the file that a group at `now_ms` opens, unless it is open.
    pub(super) fn opens(&self, now_ms: u64) -> Option<String> {
        self.files.opens(now_ms)
    }

    /// Puts a group of lines, whose last leaves the chain at `end`, on disk: whole or not at all.
    pub(super) fn write(&mut self, lines: &[u8], now_ms: u64, end: &ChainEnd) -> io::Result<()> {
        self.files.write_group(lines, now_ms)?;
        // The lines are there. A checkpoint that cannot be written takes nothing from them; it stays behind.
        let noted = self.checkpoint.note(end, self.files.name().unwrap_or_default(), now_ms);
        if let Err(error) = &noted
            && self.is_noted
        {
            tracing::error!(%error, "the audit checkpoint cannot be written: a cut-off end of the trail would not show");
        }
        self.is_noted = noted.is_ok();
        Ok(())
    }

    /// Opens the file again by its name.
    pub(super) fn reopen(&mut self) {
        self.files.reopen();
    }

    /// For who makes the checkpoint durable.
    pub(super) fn checkpoint(&self) -> Arc<CheckpointSync> {
        self.checkpoint.sync()
    }
}

impl Beginning {
    fn of(found: Recovered, noted: Noted) -> Self {
        let Recovered { end, torn } = found;
        let (end, alarm) = match noted {
            // More than was noted: it was killed between a group and its note.
            Noted::At(Checkpoint { end: known, .. }) if known.seq < end.seq || known == end => (end, None),
            Noted::At(Checkpoint { end: known, file, .. }) if known.seq > end.seq => {
                let alarm = format!("lines {} to {} are missing at its end, in {file}", end.seq + 1, known.seq);
                (known, Some(alarm))
            }
            Noted::At(Checkpoint { end: known, .. }) => {
                let alarm = format!("line {} is not the one that was written", known.seq);
                (known, Some(alarm))
            }
            Noted::Unreadable => {
                (end, Some("its checkpoint cannot be read: it is damaged, or audit.key is another".into()))
            }
            Noted::Nothing => (end, None),
        };
        Self { end, torn, alarm }
    }
}
