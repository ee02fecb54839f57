//! The descriptions of tools that were accepted and that were seen last, as they are remembered over a restart: a row a tool. What follows from them
//! is decided in memory ([`crate::state::pins`]).

use rusqlite::{Connection, Row, params};

use super::{Store, StoreError};
use crate::state::pins::{Pin, ToolHash};

/// An upstream, a tool's name, and what is known of it.
pub type StoredPin = (String, String, Pin);

impl Store {
    /// Remembers these, in place of what was known of the same tools.
    ///
    /// # Errors
    /// The store's.
    pub async fn put_pins(&self, pins: Vec<StoredPin>) -> Result<(), StoreError> {
        self.write(move |conn| {
            let mut put = conn.prepare(
                "INSERT OR REPLACE INTO tool_pins (upstream, tool, accepted, seen, since_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for (upstream, tool, pin) in &pins {
                let since_ms = i64::try_from(pin.since_ms).unwrap_or(i64::MAX);
                put.execute(params![upstream, tool, pin.accepted.0, pin.seen.0, since_ms])?;
            }
            Ok(())
        })
        .await
    }

    /// All of them, for the start; blocks the thread.
    ///
    /// # Errors
    /// The store's.
    pub fn pins_now(&self) -> Result<Vec<StoredPin>, StoreError> {
        self.read_now(all)
    }
}

fn all(conn: &Connection) -> Result<Vec<StoredPin>, StoreError> {
    let mut statement = conn.prepare("SELECT upstream, tool, accepted, seen, since_ms FROM tool_pins")?;
    let rows = statement.query_map([], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<StoredPin> {
    let pin = Pin {
        accepted: ToolHash(row.get(2)?),
        seen: ToolHash(row.get(3)?),
        since_ms: row.get::<_, i64>(4)?.unsigned_abs(),
    };
    Ok((row.get(0)?, row.get(1)?, pin))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state::lifecycle::Lifecycle;

    #[test]
    fn what_was_put_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(&dir.path().join("data"), Arc::new(Lifecycle::new(1, Vec::new()))).unwrap();
        let pin =
            |accepted, seen, since_ms| Pin { accepted: ToolHash([accepted; 32]), seen: ToolHash([seen; 32]), since_ms };
        let one = |pin| ("crm".to_owned(), "find \u{0} \u{1F600}".to_owned(), pin);
        let (store, threads) = open();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            store.put_pins(vec![one(pin(1, 1, 5)), ("other".into(), String::new(), pin(3, 3, 5))]).await.unwrap();
            store.put_pins(vec![one(pin(1, 2, 9))]).await.unwrap();
        });
        threads.stop();
        let (store, threads) = open();
        assert_eq!(store.pins_now().unwrap(), [one(pin(1, 2, 9)), ("other".into(), String::new(), pin(3, 3, 5))]);
        threads.stop();
    }
}
