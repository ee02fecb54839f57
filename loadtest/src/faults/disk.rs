//! A disk that is full, and has room again: a small tmpfs in a mount namespace of the gateway's own, so that nothing of the machine is touched and
//! nothing is left mounted when the gateway ends.
//!
//! `RLIMIT_FSIZE` would not do: it refuses only what lies beyond a size, and of every file. `/dev/full` has no files.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Its size: room for the lines of a warm-up.
const SIZE: &str = "size=48m,mode=700";

/// What is put in front of a program for it to see a disk of its own at `dir`. An error says why that cannot be had here.
pub(crate) fn wrapper(dir: &Path) -> Result<Vec<String>, String> {
    let is_root = rustix::process::geteuid().is_root();
    let flags: &[&str] = if is_root { &["--mount"] } else { &["--user", "--map-root-user", "--mount"] };
    let script = format!("mount -t tmpfs -o {SIZE} tmpfs \"$0\" && exec \"$@\"");
    let mut words = vec!["unshare".to_owned()];
    words.extend(flags.iter().map(|flag| (*flag).to_owned()));
    words.extend(["sh".to_owned(), "-c".to_owned(), script, dir.to_string_lossy().into_owned()]);
    let (first, rest) = words.split_first().ok_or("no command")?;
    let tried = Command::new(first).args(rest).arg("true").stdin(Stdio::null()).output();
    match tried {
        Ok(output) if output.status.success() => Ok(words),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("unshare: {error}")),
    }
}

/// What fills the disk.
pub(crate) struct Filler(PathBuf);

impl Filler {
    /// Takes all the room that there is.
    pub(crate) fn fill(dir: &Path) -> io::Result<Self> {
        let filler = Self(dir.join("filler"));
        let mut file = File::create(&filler.0)?;
        for len in [1 << 20, 4096, 1] {
            loop {
                match file.write_all(&vec![b'.'; len]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(filler)
    }

    /// Gives it back.
    pub(crate) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.0)
    }
}
