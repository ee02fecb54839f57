//! Tokens of agents, as they are remembered: their hash, whose they are, how long they are valid, what became of them.
//!
//! Each change is one write, whole or not at all. What is not there, or not valid any more, is an answer and no error. Rows of tokens that have
//! ended stay for [`KEPT_MS`], so that a list and an audit line can be understood.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Store, StoreError};
use crate::state::credentials::TokenId;

/// Valid tokens of one agent: what it rotates and what its operators forget, not a way to fill the store.
pub const MAX_VALID_PER_AGENT: u32 = 1_000;
/// How long the row of a token that has ended is kept, milliseconds: 90 days.
pub const KEPT_MS: u64 = 90 * 24 * 3_600 * 1_000;
/// Rows taken away by one write.
const FORGET_AT_ONCE: u32 = 10_000;

/// A token that is to be remembered.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Its name.
    pub id: TokenId,
    /// Of the token itself, which is not kept.
    pub sha256: [u8; 32],
    /// Whose it is.
    pub agent: String,
    /// What it is for, in an operator's words; may be empty.
    pub label: String,
    /// Milliseconds since the Unix epoch.
    pub issued_ms: u64,
    /// From then on it is not valid; `None`: until it is revoked.
    pub expires_ms: Option<u64>,
}

/// A token as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its name.
    pub id: TokenId,
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// Whose it is.
    pub agent: String,
    /// What it is for.
    pub label: String,
    /// Milliseconds since the Unix epoch.
    pub issued_ms: u64,
    /// From then on it is not valid: its own end, or that of its grace after it was rotated.
    pub expires_ms: Option<u64>,
    /// When it was revoked.
    pub revoked_ms: Option<u64>,
    /// When it was last used, as far as it was written down.
    pub last_used_ms: Option<u64>,
    /// The token that took its place.
    pub replaced_by: Option<TokenId>,
}

impl Token {
    /// Whether it is valid at `now_ms`.
    #[must_use]
    pub fn is_valid(&self, now_ms: u64) -> bool {
        self.revoked_ms.is_none() && self.expires_ms.is_none_or(|end| now_ms < end)
    }
}

/// What became of issuing one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issued {
    /// It is remembered.
    Done,
    /// The agent has [`MAX_VALID_PER_AGENT`] already.
    TooMany,
}

/// What takes a token's place.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// Its name.
    pub id: TokenId,
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// Now, milliseconds since the Unix epoch.
    pub issued_ms: u64,
    /// How long it is valid; `None`: as long as the old one was to be.
    pub lifetime_ms: Option<u64>,
    /// Until when the old one stays valid, unless it ends before.
    pub grace_until_ms: u64,
}

/// What became of a rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// The old token, as it is now, and the new one.
    Done(Box<(Token, Token)>),
    /// There is no such token.
    Unknown,
    /// It is not valid any more, or was rotated already.
    Ended,
}

/// What became of a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The token, as it is now.
    pub token: Token,
    /// Whether it was revoked just now, not before.
    pub first: bool,
}

/// What workers are to know of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidToken<'a> {
    /// Its name.
    pub id: TokenId,
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// Whose it is.
    pub agent: &'a str,
    /// From then on it is not valid, milliseconds since the Unix epoch; `None`: until it is revoked.
    pub expires_ms: Option<u64>,
    /// When it was last used, as far as it was written down.
    pub last_used_ms: Option<u64>,
}

/// Which tokens are wanted; nothing: all.
#[derive(Clone, Debug, Default)]
pub struct TokenFilter {
    /// Of this agent.
    pub agent: Option<String>,
    /// Only valid ones (or only others), at this time.
    pub valid: Option<(bool, u64)>,
}

/// An agent that has tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOwner {
    /// Its id.
    pub agent: String,
    /// Its tokens that are valid.
    pub valid: u64,
    /// When one of its tokens was last used, as far as it was written down.
    pub last_used_ms: Option<u64>,
}

const COLUMNS: &str = "id, sha256, agent, label, issued_ms, expires_ms, revoked_ms, last_used_ms, replaced_by";
const VALID: &str = "revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > ?1)";

impl Store {
    /// Remembers a token.
    ///
    /// # Errors
    /// The store's.
    pub async fn issue_token(&self, new: NewToken) -> Result<Issued, StoreError> {
        self.write(move |conn| {
            let sql = format!("SELECT count(*) FROM tokens WHERE agent = ?2 AND {VALID}");
            let valid: i64 = conn.query_row(&sql, params![signed(new.issued_ms), new.agent], |row| row.get(0))?;
            if valid >= i64::from(MAX_VALID_PER_AGENT) {
                return Ok(Issued::TooMany);
            }
            insert(conn, &new)?;
            Ok(Issued::Done)
        })
        .await
    }

    /// The token of this name.
    ///
    /// # Errors
    /// The store's.
    pub async fn token(&self, id: TokenId) -> Result<Option<Token>, StoreError> {
        self.read(move |conn| find(conn, id)).await
    }

    /// At most `limit` tokens that are wanted, in the order of their names, behind `after`.
    ///
    /// # Errors
    /// The store's.
    pub async fn tokens(
        &self,
        filter: TokenFilter,
        after: Option<TokenId>,
        limit: usize,
    ) -> Result<Vec<Token>, StoreError> {
        self.read(move |conn| {
            let (wanted, now_ms) = filter.valid.map_or((None, 0), |(wanted, now_ms)| (Some(wanted), now_ms));
            // The index of agents leads where an agent is named, the table's own order otherwise.
            let of_agent = if filter.agent.is_some() { "agent = ?2" } else { "?2 IS NULL" };
            let of_state =
                if wanted.is_some() { format!("({VALID}) = ?3") } else { "?3 IS NULL AND ?1 = 0".to_owned() };
            let sql = format!(
                "SELECT {COLUMNS} FROM tokens WHERE {of_agent} AND {of_state} AND id > ?4 ORDER BY id LIMIT ?5"
            );
            let after = after.as_ref().map_or("", TokenId::as_str);
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut statement = conn.prepare(&sql)?;
            let rows = statement.query_map(params![signed(now_ms), filter.agent, wanted, after, limit], read)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Puts a new token of the same agent and label in a token's place, which stays valid for its grace.
    ///
    /// # Errors
    /// The store's.
    pub async fn rotate_token(&self, id: TokenId, by: Replacement) -> Result<Rotated, StoreError> {
        self.write(move |conn| {
            let Some(old) = find(conn, id)? else { return Ok(Rotated::Unknown) };
            if !old.is_valid(by.issued_ms) || old.replaced_by.is_some() {
                return Ok(Rotated::Ended);
            }
            let Token { agent, label, .. } = old;
            let was_to_be = old.expires_ms.map(|end_ms| end_ms.saturating_sub(old.issued_ms));
            let expires_ms = by.lifetime_ms.or(was_to_be).map(|life_ms| by.issued_ms.saturating_add(life_ms));
            let grace_ms = signed(by.grace_until_ms);
            insert(
                conn,
                &NewToken { id: by.id, sha256: by.sha256, agent, label, issued_ms: by.issued_ms, expires_ms },
            )?;
            let sql =
                "UPDATE tokens SET expires_ms = min(coalesce(expires_ms, ?2), ?2), replaced_by = ?3 WHERE id = ?1";
            conn.execute(sql, params![id.as_str(), grace_ms, by.id.as_str()])?;
            match (find(conn, id)?, find(conn, by.id)?) {
                (Some(old), Some(new)) => Ok(Rotated::Done(Box::new((old, new)))),
                _ => Ok(Rotated::Unknown),
            }
        })
        .await
    }

    /// Revokes a token; `None` where there is none of this name. One that was revoked before stays as it was.
    ///
    /// # Errors
    /// The store's.
    pub async fn revoke_token(&self, id: TokenId, now_ms: u64) -> Result<Option<Revoked>, StoreError> {
        self.write(move |conn| {
            let sql = "UPDATE tokens SET revoked_ms = ?2 WHERE id = ?1 AND revoked_ms IS NULL";
            let changed = conn.execute(sql, params![id.as_str(), signed(now_ms)])?;
            Ok(find(conn, id)?.map(|token| Revoked { token, first: changed == 1 }))
        })
        .await
    }

    /// Writes down when tokens were last used.
    ///
    /// # Errors
    /// The store's.
    pub async fn note_tokens_used(&self, used: Vec<(TokenId, u64)>) -> Result<(), StoreError> {
        self.write(move |conn| {
            let sql = "UPDATE tokens SET last_used_ms = ?2 WHERE id = ?1 AND coalesce(last_used_ms, 0) < ?2";
            let mut statement = conn.prepare(sql)?;
            for (id, at_ms) in &used {
                statement.execute(params![id.as_str(), signed(*at_ms)])?;
            }
            Ok(())
        })
        .await
    }

    /// Takes away what has ended [`KEPT_MS`] ago; returns how many that were, at most ten thousand.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget_tokens(&self, now_ms: u64) -> Result<usize, StoreError> {
        self.write(move |conn| {
            let before = signed(now_ms.saturating_sub(KEPT_MS));
            let sql = "DELETE FROM tokens WHERE id IN
                       (SELECT id FROM tokens WHERE revoked_ms < ?1 OR expires_ms < ?1 LIMIT ?2)";
            Ok(conn.execute(sql, params![before, FORGET_AT_ONCE])?)
        })
        .await
    }

    /// At most `limit` agents that have tokens, in the order of their ids, behind `after`.
    ///
    /// # Errors
    /// The store's.
    pub async fn token_owners(
        &self,
        after: Option<String>,
        limit: usize,
        now_ms: u64,
    ) -> Result<Vec<TokenOwner>, StoreError> {
        self.read(move |conn| {
            let sql = format!(
                "SELECT agent, count(*) FILTER (WHERE {VALID}), max(last_used_ms) FROM tokens WHERE agent > ?2
                 GROUP BY agent ORDER BY agent LIMIT ?3"
            );
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut statement = conn.prepare(&sql)?;
            let rows = statement.query_map(params![signed(now_ms), after.unwrap_or_default(), limit], owner)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// One agent's tokens; `None` where it never had any.
    ///
    /// # Errors
    /// The store's.
    pub async fn token_owner(&self, agent: String, now_ms: u64) -> Result<Option<TokenOwner>, StoreError> {
        self.read(move |conn| {
            let sql = format!(
                "SELECT agent, count(*) FILTER (WHERE {VALID}), max(last_used_ms) FROM tokens WHERE agent = ?2 GROUP BY agent"
            );
            Ok(conn.query_row(&sql, params![signed(now_ms), agent], owner).optional()?)
        })
        .await
    }

    /// Puts all tokens that are valid at `now_ms` into `all`, one after the other as they are read, for the start; blocks the thread.
    ///
    /// # Errors
    /// The store's.
    pub fn fold_valid_tokens<T, F>(&self, now_ms: u64, mut all: T, mut put: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut T, ValidToken<'_>) + Send + 'static,
    {
        self.read_now(move |conn| {
            let sql = format!("SELECT id, sha256, agent, expires_ms, last_used_ms FROM tokens WHERE {VALID}");
            let mut statement = conn.prepare(&sql)?;
            let mut rows = statement.query([signed(now_ms)])?;
            while let Some(row) = rows.next()? {
                let token = ValidToken {
                    id: id(row, 0)?,
                    sha256: row.get(1)?,
                    agent: row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?,
                    expires_ms: row.get::<_, Option<i64>>(3)?.map(unsigned),
                    last_used_ms: row.get::<_, Option<i64>>(4)?.map(unsigned),
                };
                put(&mut all, token);
            }
            Ok(all)
        })
    }
}

fn insert(conn: &Connection, new: &NewToken) -> Result<(), StoreError> {
    let sql = "INSERT INTO tokens (id, sha256, agent, label, issued_ms, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let (issued, expires) = (signed(new.issued_ms), new.expires_ms.map(signed));
    conn.execute(sql, params![new.id.as_str(), new.sha256.as_slice(), new.agent, new.label, issued, expires])?;
    Ok(())
}

fn find(conn: &Connection, id: TokenId) -> Result<Option<Token>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM tokens WHERE id = ?1");
    Ok(conn.query_row(&sql, [id.as_str()], read).optional()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        id: id(row, 0)?,
        sha256: row.get(1)?,
        agent: row.get(2)?,
        label: row.get(3)?,
        issued_ms: unsigned(row.get(4)?),
        expires_ms: row.get::<_, Option<i64>>(5)?.map(unsigned),
        revoked_ms: row.get::<_, Option<i64>>(6)?.map(unsigned),
        last_used_ms: row.get::<_, Option<i64>>(7)?.map(unsigned),
        replaced_by: match row.get_ref(8)? {
            rusqlite::types::ValueRef::Null => None,
            _ => Some(id(row, 8)?),
        },
    })
}

fn owner(row: &Row<'_>) -> rusqlite::Result<TokenOwner> {
    let last_used_ms = row.get::<_, Option<i64>>(2)?.map(unsigned);
    Ok(TokenOwner { agent: row.get(0)?, valid: unsigned(row.get(1)?), last_used_ms })
}

fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<TokenId> {
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

/// SQLite's integers have a sign; times do not reach it.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
