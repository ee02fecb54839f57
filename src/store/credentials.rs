//! Credentials of the vault, as they are remembered: sealed. What is in them is the [vault](crate::vault)'s business.
//!
//! Each change is one write, whole or not at all, and happens only if the record is as its author last saw it.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::open::{FILE, open_to_read};
use super::{Store, StoreError};
use crate::vault::MAX_CREDENTIALS;
use crate::vault::seal::{KeyId, Record};

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It is made.
    Done,
    /// Someone else was faster; nothing was changed.
    Outdated,
    /// There are [`MAX_CREDENTIALS`] already.
    TooMany,
}

const COLUMNS: &str = "name, key_id, revision, updated_ms, nonce, sealed";

impl Store {
    /// All of them, by name.
    ///
    /// # Errors
    /// The store's.
    pub async fn credentials(&self) -> Result<Vec<Record>, StoreError> {
        self.read(all).await
    }

    /// Likewise for the start, where nothing runs yet that could wait.
    ///
    /// # Errors
    /// The store's.
    pub fn credentials_now(&self) -> Result<Vec<Record>, StoreError> {
        self.read_now(all)
    }

    /// Puts a record in the place of the one of its name with the revision before; with revision 1, of none.
    ///
    /// # Errors
    /// The store's.
    pub async fn put_credential(&self, record: Record) -> Result<Changed, StoreError> {
        self.write(move |conn| {
            let count: i64 = conn.query_row("SELECT count(*) FROM credentials", [], |row| row.get(0))?;
            if record.revision == 1 && usize::try_from(count).is_ok_and(|count| count >= MAX_CREDENTIALS) {
                return Ok(Changed::TooMany);
            }
            Ok(if replace(conn, &record)? { Changed::Done } else { Changed::Outdated })
        })
        .await
    }

    /// Puts each record in the place of its predecessor: all of them, or none.
    ///
    /// # Errors
    /// The store's.
    pub async fn put_credentials(&self, records: Vec<Record>) -> Result<Changed, StoreError> {
        self.write(move |conn| {
            // Looked at before anything is written: what is written then stands.
            for record in &records {
                if current(conn, &record.name)? != record.revision.checked_sub(1) {
                    return Ok(Changed::Outdated);
                }
            }
            for record in &records {
                replace(conn, record)?;
            }
            Ok(Changed::Done)
        })
        .await
    }

    /// Forgets one. Returns whether it was there.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget_credential(&self, name: String) -> Result<bool, StoreError> {
        self.write(move |conn| Ok(conn.execute("DELETE FROM credentials WHERE name = ?1", params![name])? > 0)).await
    }
}

/// The credentials in the database of a data directory, read beside a running gateway or without one. `None` where there is no database, or none that can be
/// read: who opens it to run says what is wrong with it.
#[must_use]
pub fn credentials_in(dir: &Path) -> Option<Vec<Record>> {
    let path = dir.join(FILE);
    if !path.exists() {
        return None;
    }
    all(&open_to_read(&path).ok()?).ok()
}

fn all(conn: &Connection) -> Result<Vec<Record>, StoreError> {
    let mut statement = conn.prepare(&format!("SELECT {COLUMNS} FROM credentials ORDER BY name"))?;
    let rows = statement.query_map([], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn current(conn: &Connection, name: &str) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT revision FROM credentials WHERE name = ?1";
    Ok(conn.query_row(sql, params![name], |row| row.get::<_, i64>(0)).optional()?.map(unsigned))
}

fn replace(conn: &Connection, record: &Record) -> Result<bool, StoreError> {
    if current(conn, &record.name)?.unwrap_or(0) != record.revision.wrapping_sub(1) {
        return Ok(false);
    }
    conn.execute(
        &format!("INSERT OR REPLACE INTO credentials ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"),
        params![
            record.name,
            record.key_id.0.as_slice(),
            signed(record.revision),
            signed(record.updated_ms),
            record.nonce.as_slice(),
            record.sealed
        ],
    )?;
    Ok(true)
}

/// A row. Parts of another length than ours cannot be opened, and are found then.
fn read(row: &Row<'_>) -> rusqlite::Result<Record> {
    let fixed = |bytes: Vec<u8>| bytes.try_into().unwrap_or_default();
    Ok(Record {
        name: row.get(0)?,
        key_id: KeyId(fixed(row.get(1)?)),
        revision: unsigned(row.get(2)?),
        updated_ms: unsigned(row.get(3)?),
        nonce: row.get::<_, Vec<u8>>(4)?.try_into().unwrap_or_default(),
        sealed: row.get(5)?,
    })
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
