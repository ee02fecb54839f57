//! The checkpoint: `DATA_DIR/audit.checkpoint`, where the trail stood when the last group was on disk.
//!
//! The chain vouches for every line but for its end: who cuts off the last lines, or the last files, leaves a chain that is whole. The checkpoint
//! says how far it went. It lies where those who can write the trail need not be able to write, and is signed with a key made from the chain's.
//!
//! It is written behind every group, after the group's sync, by one write of [`SLOT`] bytes over what stood there, and never synced on the writer's
//! way: the page cache keeps it when the gateway is killed. The control thread syncs it each second for when the machine goes down. Two slots take
//! turns, so that a write that was torn leaves the one before it.
//!
//! What a cut can hide, then: nothing while the gateway runs or after it has ended, in order or by `kill -9`; after a power cut the lines of the
//! last second or two before it.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::line::{ChainEnd, hex_mac, keyed};
use crate::control::keys::Key;

/// The file's name in `DATA_DIR`.
pub const FILE: &str = "audit.checkpoint";
/// Bytes of a slot: `ringwall-audit 1 SEQ MAC TIME FILE SIGNATURE`, blanks, newline.
const SLOT: usize = 512;
/// From one slot to the other: no sector or page holds parts of both.
const STRIDE: u64 = 4096;
const SLOTS: u64 = 2;
/// Bytes of the file.
const ROOM: usize = 8192;
/// What a slot begins with: what it is, and its version.
const BEGINNING: &str = "ringwall-audit 1";

/// Where the trail stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last line that was on disk.
    pub end: ChainEnd,
    /// The file that it is in, by the name that it had.
    pub file: String,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noted {
    /// There is none, or nothing was written yet.
    Nothing,
    /// This.
    At(Checkpoint),
    /// Something, of which nothing is signed with this key.
    Unreadable,
}

/// Makes the checkpoint durable, on another thread than the writer's.
#[derive(Debug)]
pub struct CheckpointSync {
    file: File,
    /// Whether something was written since the last sync.
    is_dirty: AtomicBool,
}

impl CheckpointSync {
    /// Syncs what was written since the last time. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&self) -> io::Result<()> {
        if !self.is_dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        self.file.sync_data().inspect_err(|_| self.is_dirty.store(true, Ordering::Release))
    }
}

/// The file, for the writer.
pub(super) struct CheckpointFile {
    shared: Arc<CheckpointSync>,
    keyed: Hmac<Sha256>,
    /// The slot that is written next: not the one that holds the newest.
    next: u64,
}

impl CheckpointFile {
    /// Opens it, or makes it with room for both slots, and reads what it holds.
    pub(super) fn open(dir: &Path, key: &Key) -> io::Result<(Self, Noted)> {
        let path = dir.join(FILE);
        let is_new = !path.exists();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let keyed = signing(key);
        let (noted, slot) = read_slots(&file, &keyed)?;
        if file.metadata()?.len() < ROOM as u64 {
            // Room that is there: a note will need no more of the disk, and its sync no more than its own page.
            file.write_all_at(&[0; ROOM], 0)?;
            file.sync_all()?;
        }
        if is_new {
            File::open(dir)?.sync_all()?;
        }
        let shared = Arc::new(CheckpointSync { file, is_dirty: AtomicBool::new(false) });
        Ok((Self { shared, keyed, next: slot.map_or(0, |slot| (slot + 1) % SLOTS) }, noted))
    }

    /// Notes that the trail is on disk up to `end`, in `name`.
    pub(super) fn note(&mut self, end: &ChainEnd, name: &str, at_ms: u64) -> io::Result<()> {
        let mac = String::from_utf8_lossy(&end.mac);
        let mut slot = format!("{BEGINNING} {} {mac} {at_ms} {name} ", end.seq).into_bytes();
        let signature = hex_mac(&self.keyed, &slot);
        slot.extend_from_slice(&signature);
        if slot.len() >= SLOT {
            return Err(io::Error::other("the file's name is too long for a checkpoint"));
        }
        slot.resize(SLOT - 1, b' ');
        slot.push(b'\n');
        self.shared.file.write_all_at(&slot, self.next * STRIDE)?;
        self.shared.is_dirty.store(true, Ordering::Release);
        self.next = (self.next + 1) % SLOTS;
        Ok(())
    }

    /// For who makes it durable.
    pub(super) fn sync(&self) -> Arc<CheckpointSync> {
        Arc::clone(&self.shared)
    }
}

/// Reads the checkpoint beside a gateway that may be writing it.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn read(dir: &Path, key: &Key) -> io::Result<Noted> {
    let file = match File::open(dir.join(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Noted::Nothing),
        Err(error) => return Err(error),
    };
    Ok(read_slots(&file, &signing(key))?.0)
}

/// The newest slot that is whole, and which it is.
fn read_slots(file: &File, keyed: &Hmac<Sha256>) -> io::Result<(Noted, Option<u64>)> {
    let mut newest: Option<(Checkpoint, u64)> = None;
    let mut is_empty = true;
    for slot in 0..SLOTS {
        let mut bytes = [0; SLOT];
        let len = read_up_to(file, &mut bytes, slot * STRIDE)?;
        is_empty &= bytes.iter().all(|byte| *byte == 0);
        let found = bytes.get(..len).and_then(|bytes| parse(bytes, keyed));
        newest = found.map(|found| (found, slot)).into_iter().chain(newest).max_by_key(|(found, _)| found.end.seq);
    }
    match newest {
        Some((checkpoint, slot)) => Ok((Noted::At(checkpoint), Some(slot))),
        None if is_empty => Ok((Noted::Nothing, None)),
        None => Ok((Noted::Unreadable, None)),
    }
}

fn read_up_to(file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
    let mut len = 0;
    while let Some(rest) = buf.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

fn parse(slot: &[u8], keyed: &Hmac<Sha256>) -> Option<Checkpoint> {
    let text = std::str::from_utf8(slot).ok()?.strip_suffix('\n')?.trim_end_matches(' ');
    let signed = text.len().checked_sub(64)?;
    let (body, signature) = text.split_at_checked(signed)?;
    if hex_mac(keyed, body.as_bytes()) != *signature.as_bytes() {
        return None;
    }
    let mut fields = body.strip_prefix(BEGINNING)?.trim().split(' ');
    let seq = fields.next()?.parse().ok()?;
    let mac = fields.next()?.as_bytes().try_into().ok()?;
    let at_ms = fields.next()?.parse().ok()?;
    Some(Checkpoint { end: ChainEnd { seq, mac }, file: fields.next()?.to_owned(), at_ms })
}

/// A key of its own: what is signed here is no line, and a line is no checkpoint.
fn signing(key: &Key) -> Hmac<Sha256> {
    let mut mac = keyed(key);
    mac.update(b"ringwall audit checkpoint");
    keyed(&Key::new(mac.finalize().into_bytes().into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn key() -> Key {
        Key::new([3; 32])
    }

    fn end(seq: u64) -> ChainEnd {
        ChainEnd { seq, mac: [b'a'; 64] }
    }

    fn noted(seq: u64) -> Noted {
        Noted::At(Checkpoint { end: end(seq), file: "security-2026-11-22.log".into(), at_ms: 7 })
    }

    #[test]
    fn the_newest_note_is_read_and_survives_the_file_being_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path(), &key()).unwrap(), Noted::Nothing);
        for round in 0..5 {
            let (mut file, before) = CheckpointFile::open(dir.path(), &key()).unwrap();
            assert_eq!(before, if round == 0 { Noted::Nothing } else { noted(3 * round) });
            for seq in 3 * round + 1..=3 * round + 3 {
                file.note(&end(seq), "security-2026-11-22.log", 7).unwrap();
                assert_eq!(read(dir.path(), &key()).unwrap(), noted(seq));
            }
        }
        assert_eq!(std::fs::metadata(dir.path().join(FILE)).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read(dir.path(), &Key::new([4; 32])).unwrap(), Noted::Unreadable);
    }

    #[test]
    fn a_torn_note_leaves_the_one_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, _) = CheckpointFile::open(dir.path(), &key()).unwrap();
        file.note(&end(1), "security-2026-11-22.log", 7).unwrap();
        let before = std::fs::read(dir.path().join(FILE)).unwrap();
        file.note(&end(2), "security-2026-11-22.log", 7).unwrap();
        let after = std::fs::read(dir.path().join(FILE)).unwrap();
        let whole = after.iter().rposition(|byte| *byte != b' ' && *byte != b'\n' && *byte != 0).unwrap() + 1;
        let second = usize::try_from(STRIDE).unwrap();
        for len in second..whole {
            let torn = [&after[..len], &before[len..]].concat();
            std::fs::write(dir.path().join(FILE), torn).unwrap();
            assert_eq!(read(dir.path(), &key()).unwrap(), noted(1), "{len}");
        }
        for at in second..second + SLOT {
            let mut changed = after.clone();
            changed[at] ^= 2;
            std::fs::write(dir.path().join(FILE), &changed).unwrap();
            assert_eq!(read(dir.path(), &key()).unwrap(), noted(1), "{at}");
        }
    }

    #[test]
    fn what_is_no_checkpoint_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["x", "ringwall-audit 1 5 aa 0 name\n"] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            assert_eq!(read(dir.path(), &key()).unwrap(), Noted::Unreadable);
            assert_eq!(CheckpointFile::open(dir.path(), &key()).unwrap().1, Noted::Unreadable);
        }
        std::fs::write(dir.path().join(FILE), "").unwrap();
        assert_eq!(read(dir.path(), &key()).unwrap(), Noted::Nothing);
    }
}
