//! Blocks of addresses and networks, as they are remembered over a restart. Which of them hold is decided in memory
//! ([`crate::state::blocks`]); a row is what of that is to come back.
//!
//! Each change is one write, whole or not at all.

use ipnet::IpNet;
use rusqlite::{Connection, Row, params};

use super::{Store, StoreError};
use crate::state::blocks::view::end_of;
use crate::state::blocks::{Block, BlockKind, Earned};
use crate::state::networks::FOR_EVER;

/// A block as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlock {
    /// Of whom.
    pub network: IpNet,
    /// Why.
    pub kind: BlockKind,
    /// Where it was earned.
    pub earned: Earned,
    /// What is known of the cause, for people.
    pub reason: String,
    /// When it began, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Its end; `None`: until it is lifted.
    pub until_ms: Option<u64>,
}

impl StoredBlock {
    /// What is to be remembered of a block.
    #[must_use]
    pub fn of(block: &Block) -> Self {
        Self {
            network: block.network,
            kind: block.kind,
            earned: block.earned,
            reason: block.reason.to_string(),
            since_ms: block.since_ms,
            until_ms: end_of(block.until_ms),
        }
    }

    /// The block that it was.
    #[must_use]
    pub fn block(self) -> Block {
        let until_ms = self.until_ms.unwrap_or(FOR_EVER);
        let block = Block::new(self.network, self.kind, self.reason.into(), self.since_ms, until_ms);
        block.earned_at(self.earned).known()
    }
}

const COLUMNS: &str = "network, kind, earned, reason, since_ms, until_ms";

impl Store {
    /// Remembers blocks, each in the place of its network's.
    ///
    /// # Errors
    /// The store's.
    pub async fn put_blocks(&self, blocks: Vec<StoredBlock>) -> Result<(), StoreError> {
        self.write(move |conn| {
            let sql = format!("INSERT OR REPLACE INTO blocks ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
            let mut statement = conn.prepare(&sql)?;
            for block in &blocks {
                let (since, until) = (signed(block.since_ms), block.until_ms.map(signed));
                let (kind, earned) = (block.kind.name(), block.earned.name());
                statement.execute(params![block.network.to_string(), kind, earned, block.reason, since, until])?;
            }
            Ok(())
        })
        .await
    }

    /// Forgets the block of a network. Returns whether there was one.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget_block(&self, network: IpNet) -> Result<bool, StoreError> {
        self.write(move |conn| Ok(conn.execute("DELETE FROM blocks WHERE network = ?1", [network.to_string()])? > 0))
            .await
    }

    /// Forgets what has ended, and of automatic blocks more than the `most` that end last. Returns how many that were.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget_ended_blocks(&self, now_ms: u64, most: usize) -> Result<usize, StoreError> {
        self.write(move |conn| {
            let ended = conn.execute("DELETE FROM blocks WHERE until_ms <= ?1", [signed(now_ms)])?;
            let sql = "DELETE FROM blocks WHERE network IN
                       (SELECT network FROM blocks WHERE kind <> 'operator' ORDER BY until_ms DESC LIMIT -1 OFFSET ?1)";
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            Ok(ended.saturating_add(conn.execute(sql, [most])?))
        })
        .await
    }

    /// The blocks that hold at `now_ms`, operators' first, for the start; blocks the thread. At most `most`. A row that says nothing known is left out.
    ///
    /// # Errors
    /// The store's.
    pub fn blocks_now(&self, now_ms: u64, most: usize) -> Result<Vec<StoredBlock>, StoreError> {
        self.read_now(move |conn| valid(conn, now_ms, most))
    }
}

fn valid(conn: &Connection, now_ms: u64, most: usize) -> Result<Vec<StoredBlock>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM blocks WHERE until_ms IS NULL OR until_ms > ?1
         ORDER BY kind = 'operator' DESC, until_ms DESC LIMIT ?2"
    );
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut statement = conn.prepare(&sql)?;
    let rows = statement.query_map(params![signed(now_ms), most], read)?;
    let mut blocks = Vec::new();
    for row in rows {
        match row? {
            Some(block) => blocks.push(block),
            None => tracing::warn!("a block in the database is of no kind that this version knows; it does not hold"),
        }
    }
    Ok(blocks)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Option<StoredBlock>> {
    let network = row.get_ref(0)?.as_str()?.parse().ok();
    let kind = BlockKind::from_name(row.get_ref(1)?.as_str()?);
    let earned = Earned::from_name(row.get_ref(2)?.as_str()?);
    let (Some(network), Some(kind), Some(earned)) = (network, kind, earned) else { return Ok(None) };
    Ok(Some(StoredBlock {
        network,
        kind,
        earned,
        reason: row.get(3)?,
        since_ms: unsigned(row.get(4)?),
        until_ms: row.get::<_, Option<i64>>(5)?.map(unsigned),
    }))
}

/// SQLite's integers have a sign; times do not reach it.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
#[path = "blocks_tests.rs"]
mod tests;
