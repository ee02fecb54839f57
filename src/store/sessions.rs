//! Sessions of agents, as a restart needs them: whose they are, what they were opened with, the hash of the newest refresh token.
//!
//! A row is there for as long as its session is. That one refresh token takes another's place is decided here, in one write, so that of two
//! requests with one token only one finds it the newest.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Store, StoreError};
use crate::state::sessions::Sid;

/// A session as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Its name.
    pub sid: Sid,
    /// Whose it is.
    pub agent: String,
    /// Of the agent's token that it was opened with.
    pub token_sha256: [u8; 32],
    /// Of its newest refresh token.
    pub refresh_sha256: [u8; 32],
    /// Milliseconds since the Unix epoch.
    pub opened_ms: u64,
    /// Milliseconds since the Unix epoch, as far as it was written down.
    pub last_used_ms: u64,
    /// When its newest refresh token ends, milliseconds since the Unix epoch.
    pub expires_ms: u64,
}

/// What became of a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// Another has taken its place.
    Done,
    /// It is not the newest one of its session, which is gone with this.
    Reused,
    /// There is no such session.
    Ended,
}

impl Store {
    /// All sessions.
    ///
    /// # Errors
    /// The store's.
    pub async fn sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        self.read(|conn| {
            let sql =
                "SELECT sid, agent, token_sha256, refresh_sha256, opened_ms, last_used_ms, expires_ms FROM sessions";
            let mut statement = conn.prepare(sql)?;
            let rows = statement.query_map([], read)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Sessions behind `after`, in the order of their names, at most `most`: of one agent, or of all.
    ///
    /// # Errors
    /// The store's.
    pub async fn some_sessions(
        &self,
        agent: Option<String>,
        after: Option<Sid>,
        most: usize,
    ) -> Result<Vec<SessionRow>, StoreError> {
        self.read(move |conn| {
            let sql = "SELECT sid, agent, token_sha256, refresh_sha256, opened_ms, last_used_ms, expires_ms FROM sessions \
                       WHERE sid > ?1 AND (?2 IS NULL OR agent = ?2) ORDER BY sid LIMIT ?3";
            // An empty name is before all others.
            let after = after.map_or(Vec::new(), |sid| sid.bytes().to_vec());
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let mut statement = conn.prepare(sql)?;
            let rows = statement.query_map(params![after, agent, most], read)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Remembers a session.
    ///
    /// # Errors
    /// The store's.
    pub async fn open_session(&self, row: SessionRow) -> Result<(), StoreError> {
        self.write(move |conn| {
            let sql = "INSERT INTO sessions (sid, agent, token_sha256, refresh_sha256, opened_ms, last_used_ms, expires_ms) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            conn.prepare(sql)?.execute(params![
                row.sid.bytes(),
                row.agent,
                row.token_sha256,
                row.refresh_sha256,
                signed(row.opened_ms),
                signed(row.last_used_ms),
                signed(row.expires_ms),
            ])?;
            Ok(())
        })
        .await
    }

    /// Puts the refresh token of the hash `new` in the place of that of the hash `old`, if that is the session's newest. If it is not, the session
    /// is taken out.
    ///
    /// # Errors
    /// The store's.
    pub async fn renew_session(
        &self,
        sid: Sid,
        old: [u8; 32],
        new: [u8; 32],
        expires_ms: u64,
        now_ms: u64,
    ) -> Result<Renewed, StoreError> {
        self.write(move |conn| renew(conn, sid, &old, &new, expires_ms, now_ms)).await
    }

    /// Notes when sessions were last used.
    ///
    /// # Errors
    /// The store's.
    pub async fn touch_sessions(&self, uses: Vec<(Sid, u64)>) -> Result<(), StoreError> {
        self.write(move |conn| {
            let sql = "UPDATE sessions SET last_used_ms = max(last_used_ms, ?2) WHERE sid = ?1";
            let mut statement = conn.prepare(sql)?;
            for (sid, used_ms) in uses {
                statement.execute(params![sid.bytes(), signed(used_ms)])?;
            }
            Ok(())
        })
        .await
    }

    /// Takes sessions out. Those that are not there are out already.
    ///
    /// # Errors
    /// The store's.
    pub async fn end_sessions(&self, sids: Vec<Sid>) -> Result<(), StoreError> {
        self.write(move |conn| {
            let mut statement = conn.prepare("DELETE FROM sessions WHERE sid = ?1")?;
            for sid in sids {
                statement.execute([sid.bytes()])?;
            }
            Ok(())
        })
        .await
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        sid: Sid::from_bytes(row.get(0)?),
        agent: row.get(1)?,
        token_sha256: row.get(2)?,
        refresh_sha256: row.get(3)?,
        opened_ms: unsigned(row.get(4)?),
        last_used_ms: unsigned(row.get(5)?),
        expires_ms: unsigned(row.get(6)?),
    })
}

fn renew(
    conn: &Connection,
    sid: Sid,
    old: &[u8; 32],
    new: &[u8; 32],
    expires_ms: u64,
    now_ms: u64,
) -> Result<Renewed, StoreError> {
    let sql = "SELECT refresh_sha256 FROM sessions WHERE sid = ?1";
    let newest: Option<[u8; 32]> = conn.prepare(sql)?.query_row([sid.bytes()], |row| row.get(0)).optional()?;
    match newest {
        None => Ok(Renewed::Ended),
        Some(newest) if newest == *old => {
            let sql = "UPDATE sessions SET refresh_sha256 = ?2, expires_ms = ?3, last_used_ms = max(last_used_ms, ?4) \
                       WHERE sid = ?1";
            conn.prepare(sql)?.execute(params![sid.bytes(), new, signed(expires_ms), signed(now_ms)])?;
            Ok(Renewed::Done)
        }
        Some(_) => {
            conn.prepare("DELETE FROM sessions WHERE sid = ?1")?.execute([sid.bytes()])?;
            Ok(Renewed::Reused)
        }
    }
}

/// SQLite has no unsigned integers; times fit.
fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn unsigned(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}
