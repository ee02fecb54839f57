//! Limits that operators have given agents, as they are remembered: a row an agent.
//!
//! Each change is one write. What a number that is not given means is not decided here.

use rusqlite::{Connection, Row, params};

use super::{Store, StoreError};
use crate::guard::limits::MAX_OVERRIDES;
use crate::settings::policy::Limits;

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is remembered.
    Done,
    /// There are [`MAX_OVERRIDES`] already.
    TooMany,
}

const COLUMNS: &str =
    "agent, per_minute, per_hour, per_day, same_number_per_day, spend_per_day_microusd, spend_per_month_microusd";

impl Store {
    /// Puts limits in the place of those that the agent was given before.
    ///
    /// # Errors
    /// The store's.
    pub async fn put_limits(&self, agent: String, limits: Limits, now_ms: u64) -> Result<Put, StoreError> {
        self.write(move |conn| {
            let others: i64 =
                conn.query_row("SELECT count(*) FROM agent_limits WHERE agent <> ?1", [&agent], |row| row.get(0))?;
            if usize::try_from(others).is_ok_and(|others| others >= MAX_OVERRIDES) {
                return Ok(Put::TooMany);
            }
            let money = |microusd: Option<u64>| microusd.map(|number| i64::try_from(number).unwrap_or(i64::MAX));
            conn.execute(
                &format!("INSERT OR REPLACE INTO agent_limits ({COLUMNS}, updated_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"),
                params![
                    agent,
                    limits.per_minute,
                    limits.per_hour,
                    limits.per_day,
                    limits.same_number_per_day,
                    money(limits.spend_per_day_microusd),
                    money(limits.spend_per_month_microusd),
                    i64::try_from(now_ms).unwrap_or(i64::MAX),
                ],
            )?;
            Ok(Put::Done)
        })
        .await
    }

    /// Forgets what an agent was given. Returns whether it was given anything.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget_limits(&self, agent: String) -> Result<bool, StoreError> {
        self.write(move |conn| Ok(conn.execute("DELETE FROM agent_limits WHERE agent = ?1", [agent])? > 0)).await
    }

    /// All of them, by agent, for the start; blocks the thread.
    ///
    /// # Errors
    /// The store's.
    pub fn limits_now(&self) -> Result<Vec<(String, Limits)>, StoreError> {
        self.read_now(all)
    }
}

fn all(conn: &Connection) -> Result<Vec<(String, Limits)>, StoreError> {
    let mut statement = conn.prepare(&format!("SELECT {COLUMNS} FROM agent_limits ORDER BY agent"))?;
    let rows = statement.query_map([], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<(String, Limits)> {
    let money = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(i64::unsigned_abs));
    let limits = Limits {
        per_minute: row.get(1)?,
        per_hour: row.get(2)?,
        per_day: row.get(3)?,
        same_number_per_day: row.get(4)?,
        spend_per_day_microusd: money(5)?,
        spend_per_month_microusd: money(6)?,
    };
    Ok((row.get(0)?, limits))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state::lifecycle::Lifecycle;

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn what_was_put_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(&dir.path().join("data"), Arc::new(Lifecycle::new(1, Vec::new()))).unwrap();
        let first = Limits { per_minute: Some(0), per_day: Some(1_000_000_000), ..Limits::default() };
        let second = Limits {
            same_number_per_day: Some(3),
            spend_per_day_microusd: Some(1_000_000_000_000_000),
            spend_per_month_microusd: Some(0),
            ..Limits::default()
        };
        let (store, threads) = open();
        run(async {
            assert_eq!(store.put_limits("b".into(), first, 1).await.unwrap(), Put::Done);
            assert_eq!(store.put_limits("a".into(), first, 1).await.unwrap(), Put::Done);
            assert_eq!(store.put_limits("b".into(), second, 2).await.unwrap(), Put::Done);
        });
        threads.stop();
        let (store, threads) = open();
        assert_eq!(store.limits_now().unwrap(), [("a".into(), first), ("b".into(), second)]);
        run(async {
            assert!(store.forget_limits("a".into()).await.unwrap());
            assert!(!store.forget_limits("a".into()).await.unwrap());
        });
        assert_eq!(store.limits_now().unwrap(), [("b".into(), second)]);
        threads.stop();
    }
}
