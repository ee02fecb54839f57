//! A copy of the database as it is at one moment, made beside a running gateway or without one.
//!
//! The copy is written beside its place, checked and synced, and gets its name last: under that name there is a whole copy or none. It is one
//! file, 0600. Writers are not held up: the copy reads one state of the write-ahead log, whatever is written meanwhile.
//!
//! What it does not copy: the key files, the audit trail, the policy file and `.env`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::OpenError;
use super::open::{APPLICATION_ID, FILE, check, open_to_read};

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is nothing to copy.
    #[error("there is no database {0}; DATA_DIR says where the gateway keeps it")]
    NoDatabase(PathBuf),
    /// The name is taken.
    #[error("{0} is there already; choose another name, or replace it with --force")]
    Exists(PathBuf),
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The database is not ours, or not whole.
    #[error(transparent)]
    Source(#[from] OpenError),
    /// SQLite says no.
    #[error("the copy failed: {0}")]
    Failed(String),
}

impl From<rusqlite::Error> for BackupError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The copy while it is not whole: removed when it comes to nothing.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Copies the database of the data directory `dir` to `to`; returns its length in bytes. `replace`: a file of that name may be there.
///
/// # Errors
/// [`BackupError`].
pub fn backup(dir: &Path, to: &Path, replace: bool) -> Result<u64, BackupError> {
    let path = dir.join(FILE);
    if !path.exists() {
        return Err(BackupError::NoDatabase(path));
    }
    if !replace && to.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(to.to_path_buf()));
    }
    let io_error = |source| BackupError::Io { path: to.to_path_buf(), source };
    let mut name = to.file_name().ok_or(io::ErrorKind::InvalidInput).map_err(|kind| io_error(kind.into()))?.to_owned();
    name.push(format!(".draft-{}", std::process::id()));
    let draft = Draft(to.with_file_name(name));
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft.0);
    drop(made.map_err(|source| BackupError::Io { path: draft.0.clone(), source })?);
    copy(&path, &draft.0)?;
    let file = File::open(&draft.0).map_err(io_error)?;
    file.sync_all().map_err(io_error)?;
    let len = file.metadata().map_err(io_error)?.len();
    let named = if replace { fs::rename(&draft.0, to) } else { fs::hard_link(&draft.0, to) };
    match named {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(BackupError::Exists(to.to_path_buf()));
        }
        done => done.map_err(io_error)?,
    }
    drop(draft);
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(io_error)?;
    Ok(len)
}

/// All pages in one step: one state of the database, which nobody's writing makes it begin again.
fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    let source = open_to_read(from)?;
    let application: i64 = source.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if application != i64::from(APPLICATION_ID) {
        return Err(OpenError::Foreign { path: from.to_path_buf() }.into());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut target = Connection::open_with_flags(to, flags)?;
    match Backup::new(&source, &mut target)?.step(-1)? {
        StepResult::Done => {}
        other => return Err(BackupError::Failed(format!("the database was in use ({other:?}); try again"))),
    }
    // The copy is to be one file, whoever opens it.
    target.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    check(&target, to)?;
    target.close().map_err(|(_, error)| error.into())
}
