//! Lines as they come: looks at the trail's files five times a second.
//!
//! A file that is rotated away is read to its end first; whatever takes its name is read from its beginning. It needs no notification from the kernel, so that it
//! works on any file system.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::control::audit::files::is_log_name;

/// From one look to the next.
const EVERY: Duration = Duration::from_millis(200);
/// Read at once.
const BLOCK: usize = 256 << 10;
/// The longest line that is waited for to end; ours are a few thousand bytes.
const LONGEST: usize = 64 << 10;

/// The files that lines may come to, and how far each was read.
pub(super) struct Follower {
    dir: PathBuf,
    files: HashMap<PathBuf, Followed>,
}

struct Followed {
    file: File,
    inode: u64,
    read: u64,
    /// The beginning of a line whose end is not there yet.
    begun: Vec<u8>,
}

impl Follower {
    /// From here on.
    pub(super) fn at_the_end(dir: &Path) -> io::Result<Self> {
        let mut follower = Self { dir: dir.to_owned(), files: HashMap::new() };
        follower.look()?;
        for followed in follower.files.values_mut() {
            let len = followed.file.metadata()?.len();
            followed.read = line_end(&mut followed.file, len)?;
            followed.file.seek(SeekFrom::Start(followed.read))?;
        }
        Ok(follower)
    }

    /// Up to which byte of a file lines are somebody else's to print.
    pub(super) fn read_up_to(&self, path: &Path) -> Option<u64> {
        self.files.get(path).map(|followed| followed.read)
    }

    /// Shows the lines that have come since.
    pub(super) fn come(&mut self, mut show: impl FnMut(&[u8])) -> io::Result<()> {
        // In the order of their days.
        let mut paths: Vec<PathBuf> = self.files.keys().cloned().collect();
        paths.sort_unstable();
        for path in &paths {
            if let Some(followed) = self.files.get_mut(path) {
                followed.come(&mut show)?;
            }
            let is_same = |followed: &Followed| fs::metadata(path).is_ok_and(|now| now.ino() == followed.inode);
            // Once more: it may have been written between the two.
            if !self.files.get(path).is_some_and(is_same)
                && let Some(mut gone) = self.files.remove(path)
            {
                gone.come(&mut show)?;
            }
        }
        for path in self.look()? {
            if let Some(followed) = self.files.get_mut(&path) {
                followed.come(&mut show)?;
            }
        }
        Ok(())
    }

    /// Waits until it is time to look again.
    pub(super) fn wait() {
        std::thread::park_timeout(EVERY);
    }

    /// Takes up files that are not followed yet; says which.
    fn look(&mut self) -> io::Result<Vec<PathBuf>> {
        let mut new = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(is_log_name) || self.files.contains_key(&entry.path()) {
                continue;
            }
            // It may be gone by now.
            let Ok(file) = File::open(entry.path()) else { continue };
            let inode = file.metadata()?.ino();
            self.files.insert(entry.path(), Followed { file, inode, read: 0, begun: Vec::new() });
            new.push(entry.path());
        }
        new.sort_unstable();
        Ok(new)
    }
}

impl Followed {
    fn come(&mut self, show: &mut impl FnMut(&[u8])) -> io::Result<()> {
        // A group that could not be written whole was cut off again.
        let len = self.file.metadata()?.len();
        if len < self.read {
            self.begun.clear();
            self.read = line_end(&mut self.file, len)?;
            self.file.seek(SeekFrom::Start(self.read))?;
        }
        let mut block = vec![0; BLOCK];
        loop {
            let n = self.file.read(&mut block)?;
            if n == 0 {
                return Ok(());
            }
            self.read += n as u64;
            self.begun.extend_from_slice(block.get(..n).unwrap_or_default());
            let whole = self.begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            for line in self.begun.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n') {
                if !line.is_empty() {
                    show(line);
                }
            }
            self.begun.drain(..whole);
            if self.begun.len() > LONGEST {
                self.begun.clear();
            }
        }
    }
}

/// Behind the last newline before `len`, not further back than a line is long.
fn line_end(file: &mut File, len: u64) -> io::Result<u64> {
    let start = len.saturating_sub(LONGEST as u64);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(len - start).read_to_end(&mut tail)?;
    Ok(tail.iter().rposition(|byte| *byte == b'\n').map_or(start, |at| start + at as u64 + 1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn come(follower: &mut Follower) -> String {
        let mut lines = Vec::new();
        follower.come(|line| lines.push(String::from_utf8(line.to_vec()).unwrap())).unwrap();
        lines.join(" ")
    }

    #[test]
    fn lines_come_once_whole_and_over_rotations() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let append = |name: &str, text: &str| {
            let mut file = fs::OpenOptions::new().append(true).create(true).open(path(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        let log = "security-2026-11-22.log";
        append(log, "old\nbeg");
        let mut follower = Follower::at_the_end(dir.path()).unwrap();
        assert_eq!(follower.read_up_to(&path(log)), Some(4));
        assert_eq!(come(&mut follower), "");
        append(log, "un\none\ntw");
        assert_eq!(come(&mut follower), "begun one");
        append(log, "o\nthree\n");
        fs::rename(path(log), path("security-2026-11-22.log.1")).unwrap();
        append("security-2026-11-22.log.1", "four\n");
        append(log, "five\n");
        assert_eq!(come(&mut follower), "two three four five");
        append("security-2026-11-23.log", "six\n");
        append(log, "a group that is cut off again");
        assert_eq!(come(&mut follower), "six");
        fs::write(path(log), "five\n").unwrap();
        assert_eq!(come(&mut follower), "");
        append(log, "seven\n");
        assert_eq!(come(&mut follower), "seven");
    }
}
