//! Key files: 32 random bytes each, in `DATA_DIR`, for the owner's eyes only.
//!
//! A key is created once and then only ever read. Creation is atomic: a crash leaves either no key or a whole one, and of
//! two processes that start together, one creates and both read the same. A key file that others may read is refused
//! rather than used.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use zeroize::Zeroizing;

/// Bytes of a key.
pub const KEY_LEN: usize = 32;

/// A 256-bit key: wiped on drop, never printed.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; KEY_LEN]>);

impl Key {
    /// A key from bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the cipher that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

/// Why a key could not be had. All are for the operator to mend.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system said no.
    #[error("key file {path}: {source}")]
    Io {
        /// The key file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The file has not 32 bytes.
    #[error("key file {path} is damaged: {len} bytes instead of 32")]
    Damaged {
        /// The key file.
        path: PathBuf,
        /// Its length, at most 33.
        len: usize,
    },
    /// Others than the owner can read the file.
    #[error("key file {path} can be read by others (mode {mode:04o}); run: chmod 600 {path}")]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    NoRandomness,
}

/// Reads `dir/name`, or creates it with fresh random bytes: the directory with mode 0700, the file with 0600.
///
/// # Errors
/// [`KeyError`].
pub fn load_or_create(dir: &Path, name: &str) -> Result<Key, KeyError> {
    let path = dir.join(name);
    let io_error = |source| KeyError::Io { path: path.clone(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error)?;
    match load(&path) {
        Err(KeyError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
        loaded => return loaded,
    }
    let mut fresh = Zeroizing::new([0; KEY_LEN]);
    getrandom::fill(&mut fresh[..]).map_err(|_| KeyError::NoRandomness)?;
    match publish(dir, &path, &fresh) {
        // Another process was quicker; its key is the key.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        done => done.map_err(io_error)?,
    }
    load(&path)
}

/// Reads `dir/name`, which must be there: for commands that have no business making a key.
///
/// # Errors
/// [`KeyError`].
pub fn load_existing(dir: &Path, name: &str) -> Result<Key, KeyError> {
    load(&dir.join(name))
}

/// Writes the bytes to a file beside it, makes them durable, and links the file to its name unless that is taken.
fn publish(dir: &Path, path: &Path, bytes: &[u8; KEY_LEN]) -> io::Result<()> {
    static DRAFTS: AtomicU32 = AtomicU32::new(0);
    let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
    let draft = path.with_extension(format!("draft-{}-{number}", std::process::id()));
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let linked = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    linked?;
    File::open(dir)?.sync_all()
}

fn load(path: &Path) -> Result<Key, KeyError> {
    let io_error = |source| KeyError::Io { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(io_error)?;
    let mode = file.metadata().map_err(io_error)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_path_buf(), mode });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_LEN + 1));
    file.take(KEY_LEN as u64 + 1).read_to_end(&mut bytes).map_err(io_error)?;
    match <[u8; KEY_LEN]>::try_from(bytes.as_slice()) {
        Ok(key) => Ok(Key::new(key)),
        Err(_) => Err(KeyError::Damaged { path: path.to_path_buf(), len: bytes.len() }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn creates_once_privately_and_then_reads_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let first = load_or_create(&data, "audit.key").unwrap();
        let second = load_or_create(&data, "audit.key").unwrap();
        assert_eq!(first.expose(), second.expose());
        assert_ne!(first.expose(), load_or_create(&data, "session.key").unwrap().expose());
        assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(data.join("audit.key")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&data).unwrap().count(), 2, "no drafts are left");
    }

    #[test]
    fn damaged_and_exposed_keys_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        for len in [0, 31, 33, 4096] {
            fs::write(&path, vec![1; len]).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let Err(KeyError::Damaged { len: seen, .. }) = load_or_create(dir.path(), "a.key") else {
                panic!("{len} bytes were accepted");
            };
            assert_eq!(seen, len.min(33));
        }
        fs::write(&path, [1; 32]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load_or_create(dir.path(), "a.key"), Err(KeyError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn threads_that_start_together_agree() {
        let dir = tempfile::tempdir().unwrap();
        let start = || {
            std::thread::spawn({
                let dir = dir.path().to_path_buf();
                move || load_or_create(&dir, "k.key").unwrap()
            })
        };
        let threads: Vec<_> = (0..4).map(|_| start()).collect();
        let keys: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(keys.windows(2).all(|pair| pair[0].expose() == pair[1].expose()));
    }
}
