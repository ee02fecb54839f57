//! Opening the database: whose it is, whether it is whole, and what version.
//!
//! In this order: the directory is for its owner alone; no other process has it; the file is for its owner alone; it is a database of ours,
//! not of a newer version, and whole; then it is taken to the schema of this version. A refusal says what to do and leaves all as it was. Where there
//! is nothing to be taken, whether it is whole is found out on a thread of its own ([`Checking`]), because that takes as long as to read all of it.
//!
//! The lock is a file of its own, `ringwall.lock`, which the kernel gives free when the process ends, however it ends. It keeps a second gateway
//! away and nobody else: who only reads goes through SQLite's own locks.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{FlockOperation, flock};

/// The database's name in `DATA_DIR`.
pub(super) const FILE: &str = "ringwall.db";
/// "RgWl": how a database of ours is told from any other (SQLite's `application_id`).
pub(super) const APPLICATION_ID: i32 = 0x5267_576c;
/// How long a statement waits for who reads or copies beside; they never hold it up for long in WAL mode.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// What the write-ahead log is cut back to after a burst, or a long copy, bytes.
const WAL_KEPT: u32 = 16 << 20;

/// Why the database is not opened. All are for the operator to mend.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system said no.
    #[error("DATA_DIR: {path}: {source}")]
    Io {
        /// The directory, or a file in it.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Others than the owner can get at it.
    #[error("{path} can be reached by others (mode {mode:04o}); run: chmod {wanted:o} {path}")]
    Exposed {
        /// The directory or the file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        wanted: u32,
    },
    /// Another gateway has it.
    #[error(
        "DATA_DIR {dir} is in use by another ringwall process; stop that one, or give this one a DATA_DIR of its own"
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// It is not whole.
    #[error(
        "the database {path} is damaged ({why}); stop what uses it, move {path}, {path}-wal and {path}-shm away, and put a file that \
         `ringwall backup` has made in its place"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        why: String,
    },
    /// It is somebody else's.
    #[error("{path} is a database of another program; move it away, or set another DATA_DIR")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It is of a newer version.
    #[error(
        "the database {path} is of a newer ringwall (its schema is {found}, this version knows {known}); run that version, or put a backup \
         from before the upgrade in its place"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: usize,
    },
    /// The file system cannot do what is needed.
    #[error(
        "{path}: this file system cannot hold the database (no shared memory for its write-ahead log); put DATA_DIR on a local disk"
    )]
    NoWal {
        /// The file.
        path: PathBuf,
    },
    /// SQLite says no, for another reason.
    #[error("the database {path} cannot be opened: {why}")]
    Other {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        why: String,
    },
    /// The system gives no thread.
    #[error("cannot start the store: {0}")]
    Thread(#[from] io::Error),
}

/// A database that is ours alone, up to date, and whole as soon as `checking` says so.
pub(super) struct Opened {
    pub(super) checking: Checking,
    pub(super) lock: File,
    pub(super) writer: Connection,
    /// Cannot write.
    pub(super) reader: Connection,
}

/// Whether every page is where it belongs is being found out. Until it is known nothing may be changed, and nothing that was read be relied upon.
#[must_use]
pub struct Checking(Option<JoinHandle<Result<(), OpenError>>>);

impl Checking {
    /// Waits for the answer.
    ///
    /// # Errors
    /// [`OpenError::Damaged`], or why it could not be found out.
    pub fn wait(self) -> Result<(), OpenError> {
        let Some(thread) = self.0 else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the check of the database has failed").into()))
    }

    fn start(path: &Path) -> Result<Self, OpenError> {
        let path = path.to_path_buf();
        let check = move || check(&open_to_read(&path).map_err(|error| fault(&path, &error))?, &path);
        Ok(Self(Some(std::thread::Builder::new().name("store-check".into()).spawn(check)?)))
    }
}

/// Opens `dir/ringwall.db` and takes it to the end of `steps`.
pub(super) fn open(dir: &Path, steps: &[&str]) -> Result<Opened, OpenError> {
    let io_error = |source| OpenError::Io { path: dir.to_path_buf(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error)?;
    private(dir, 0o700)?;
    let lock = claim(dir)?;
    let path = dir.join(FILE);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        // SQLite takes an empty file for an empty database. That it is there must survive a power cut as well.
        Ok(file) => {
            drop(file);
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error)?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => private(&path, 0o600)?,
        Err(source) => return Err(OpenError::Io { path, source }),
    }
    let fault = |error| fault(&path, &error);
    let writer =
        Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(fault)?;
    writer.busy_timeout(BUSY_TIMEOUT).map_err(fault)?;
    let version = recognize(&writer, &path, steps.len())?;
    let is_up_to_date = version == steps.len();
    if version > 0 && !is_up_to_date {
        check(&writer, &path)?;
    }
    prepare(&writer, &path)?;
    let checking = if is_up_to_date { Checking::start(&path)? } else { Checking(None) };
    for (number, step) in steps.iter().enumerate().skip(version) {
        migrate(&writer, number, step).map_err(fault)?;
    }
    let reader = open_to_read(&path).map_err(fault)?;
    Ok(Opened { checking, lock, writer, reader })
}

/// A connection that cannot write.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.execute_batch("PRAGMA query_only = ON; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON")?;
    Ok(conn)
}

/// Refuses what others than the owner can get at.
fn private(path: &Path, wanted: u32) -> Result<(), OpenError> {
    let metadata = fs::metadata(path).map_err(|source| OpenError::Io { path: path.to_path_buf(), source })?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(OpenError::Exposed { path: path.to_path_buf(), mode, wanted })
}

/// Takes the directory for this process. The lock lives as long as the file.
fn claim(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("ringwall.lock");
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = lock.map_err(|source| OpenError::Io { path: path.clone(), source })?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Err(OpenError::InUse { dir: dir.to_path_buf() }),
        Err(error) => Err(OpenError::Io { path, source: error.into() }),
    }
}

/// Which version of ours it is; 0 for an empty file.
fn recognize(conn: &Connection, path: &Path, known: usize) -> Result<usize, OpenError> {
    let number = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(|error| fault(path, &error));
    let (application, found) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
    if application == 0 && found == 0 && number("SELECT count(*) FROM sqlite_schema")? == 0 {
        return Ok(0);
    }
    if application != i64::from(APPLICATION_ID) {
        return Err(OpenError::Foreign { path: path.to_path_buf() });
    }
    match usize::try_from(found) {
        Ok(version) if version <= known => Ok(version),
        _ => Err(OpenError::Newer { path: path.to_path_buf(), found, known }),
    }
}

/// Whether every page is where it belongs.
pub(super) fn check(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let found: String =
        conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|error| fault(path, &error))?;
    if found == "ok" { Ok(()) } else { Err(OpenError::Damaged { path: path.to_path_buf(), why: found }) }
}

/// Sets what holds for the connection, and for the file.
fn prepare(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let fault = |error| fault(path, &error);
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(fault)?;
    if mode != "wal" {
        return Err(OpenError::NoWal { path: path.to_path_buf() });
    }
    conn.query_row(&format!("PRAGMA journal_size_limit = {WAL_KEPT}"), [], |_| Ok(())).map_err(fault)?;
    let rest = "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; \
                PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY";
    conn.execute_batch(rest).map_err(fault)
}

/// One step, whole or not at all.
fn migrate(conn: &Connection, number: usize, step: &str) -> rusqlite::Result<()> {
    let next = number + 1;
    let whole = format!(
        "BEGIN IMMEDIATE; {step}; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {next}; COMMIT"
    );
    let done = conn.execute_batch(&whole);
    if done.is_err() && !conn.is_autocommit() {
        let _ = conn.execute_batch("ROLLBACK");
    }
    done
}

fn fault(path: &Path, error: &rusqlite::Error) -> OpenError {
    let (path, why) = (path.to_path_buf(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => OpenError::Damaged { path, why },
        _ => OpenError::Other { path, why },
    }
}
