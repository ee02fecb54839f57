//! Alerts as they are remembered: what was raised, and what has become of it at the webhook.
//!
//! The newest are kept, and those that are still to be delivered. Which kinds there are is the business of the [alerts](crate::control::alerts).

use std::net::IpAddr;

use rusqlite::{Connection, Row, params};

use super::{Store, StoreError};

/// The number of an alert that is still to be delivered.
const PENDING: u8 = 1;
/// Rows that are read at a start: what is kept, and whatever could be waiting beside it.
const MOST: i64 = 4096;

/// An alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertRow {
    /// 24 hexadecimal digits that grow with time.
    pub id: String,
    /// Milliseconds since the Unix epoch.
    pub raised_ms: u64,
    /// The kind's name.
    pub kind: String,
    /// The agent that it is about.
    pub agent: Option<String>,
    /// The address that it is about.
    pub address: Option<IpAddr>,
    /// For people.
    pub details: String,
    /// What has become of it: 0 not for the webhook, 1 to be delivered, 2 delivered, 3 given up.
    pub delivery: u8,
}

/// What is kept of them.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// So many.
    pub newest: usize,
    /// None that was raised before this, milliseconds since the Unix epoch.
    pub since_ms: u64,
}

impl Store {
    /// All of them, the newest first. For the start, where nothing runs yet that could wait: blocks the thread.
    ///
    /// # Errors
    /// The store's.
    pub fn alerts_now(&self) -> Result<Vec<AlertRow>, StoreError> {
        self.read_now(all)
    }

    /// Likewise for where something runs.
    ///
    /// # Errors
    /// The store's.
    #[cfg(test)]
    pub(crate) async fn alerts(&self) -> Result<Vec<AlertRow>, StoreError> {
        self.read(all).await
    }

    /// Writes these down, in the place of those of their ids, and forgets what is not to be kept.
    ///
    /// # Errors
    /// The store's.
    pub async fn put_alerts(&self, rows: Vec<AlertRow>, kept: Kept) -> Result<(), StoreError> {
        self.write(move |conn| {
            let sql = "INSERT OR REPLACE INTO alerts (id, raised_ms, kind, agent, address, details, delivery) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let mut statement = conn.prepare(sql)?;
            for row in rows {
                let address = row.address.map(|ip| ip.to_string());
                let raised_ms = signed(row.raised_ms);
                statement.execute(params![
                    row.id,
                    raised_ms,
                    row.kind,
                    row.agent,
                    address,
                    row.details,
                    row.delivery
                ])?;
            }
            forget(conn, kept)
        })
        .await
    }
}

fn all(conn: &Connection) -> Result<Vec<AlertRow>, StoreError> {
    let sql = "SELECT id, raised_ms, kind, agent, address, details, delivery FROM alerts ORDER BY id DESC LIMIT ?1";
    let mut statement = conn.prepare(sql)?;
    let rows = statement.query_map([MOST], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn forget(conn: &Connection, kept: Kept) -> Result<(), StoreError> {
    // Where there are not so many the inner query finds nothing, and no id is below that.
    let sql = "DELETE FROM alerts WHERE delivery <> ?1 AND \
               (raised_ms < ?2 OR id <= (SELECT id FROM alerts ORDER BY id DESC LIMIT 1 OFFSET ?3))";
    let newest = i64::try_from(kept.newest).unwrap_or(i64::MAX);
    conn.prepare(sql)?.execute(params![PENDING, signed(kept.since_ms), newest])?;
    Ok(())
}

/// A row. An address that is none is no address.
fn read(row: &Row<'_>) -> rusqlite::Result<AlertRow> {
    Ok(AlertRow {
        id: row.get(0)?,
        raised_ms: u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0),
        kind: row.get(2)?,
        agent: row.get(3)?,
        address: row.get::<_, Option<String>>(4)?.and_then(|text| text.parse().ok()),
        details: row.get(5)?,
        delivery: row.get(6)?,
    })
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
