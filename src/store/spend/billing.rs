//! What the ledger says to people: sums by day, month, agent and tool, a page at a time.

use rusqlite::{Connection, params};

use super::{Ledger, signed, unsigned};
use crate::state::spend::Day;
use crate::store::StoreError;

/// The days that a row stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    /// All that were asked for.
    #[default]
    All,
    /// One.
    Day,
    /// Those of one month, named by its first.
    Month,
}

/// What is added up in one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grouping {
    /// Which days.
    pub times: Times,
    /// Each agent has rows of its own.
    pub by_agent: bool,
    /// Each tool has.
    pub by_tool: bool,
}

/// Which part of the ledger is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The first day.
    pub from: Day,
    /// The last day.
    pub to: Day,
    /// Of this agent only.
    pub agent: Option<String>,
    /// Of the tool of this name only, whichever upstream's.
    pub tool: Option<String>,
}

/// What a row is about, and what it is ordered by: day or month (0: all), agent, upstream and tool (empty: all).
pub type Key = (u64, String, String, String);

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// What it is about.
    pub key: Key,
    /// Calls that were charged.
    pub calls: u64,
    /// What they cost, those that are unsettled among them.
    pub microusd: u64,
    /// Of these, calls of which nobody knows whether they were carried out.
    pub unsettled_calls: u64,
    /// What they cost.
    pub unsettled_microusd: u64,
    /// Calls on their way.
    pub reserved_calls: u64,
    /// What is reserved for them.
    pub reserved_microusd: u64,
}

impl Ledger {
    /// At most `limit` rows behind `after`, in the order of their keys. Takes time with all the days that are wanted, whatever the limit.
    ///
    /// # Errors
    /// The store's.
    pub async fn billing(
        &self,
        wanted: Wanted,
        grouping: Grouping,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<Sum>, StoreError> {
        self.0.store.read(move |conn| sums(conn, &wanted, grouping, after, limit)).await
    }
}

fn sums(
    conn: &Connection,
    wanted: &Wanted,
    grouping: Grouping,
    after: Option<Key>,
    limit: usize,
) -> Result<Vec<Sum>, StoreError> {
    let time = match grouping.times {
        Times::All => "0",
        Times::Day => "day",
        Times::Month => "CAST(strftime('%s', day * 86400, 'unixepoch', 'start of month') AS INTEGER) / 86400",
    };
    let payer = if grouping.by_agent { "payer" } else { "''" };
    let (upstream, tool) = if grouping.by_tool { ("upstream", "tool") } else { ("''", "''") };
    let sql = format!(
        "WITH entries AS (
            SELECT day, payer, upstream, tool, calls, microusd, unsettled_calls, unsettled_microusd, 0 AS open, 0 AS held FROM spend_days
            UNION ALL SELECT day, payer, upstream, tool, 0, 0, 0, 0, 1, microusd FROM spend_open)
         SELECT {time} AS t, {payer} AS p, {upstream} AS u, {tool} AS n,
            sum(calls), sum(microusd), sum(unsettled_calls), sum(unsettled_microusd), sum(open), sum(held)
         FROM entries
         WHERE day BETWEEN ?1 AND ?2 AND (?3 IS NULL OR payer = ?3) AND (?4 IS NULL OR tool = ?4)
         GROUP BY 1, 2, 3, 4 HAVING (t, p, u, n) > (?5, ?6, ?7, ?8) ORDER BY 1, 2, 3, 4 LIMIT ?9"
    );
    let (time, payer, upstream, tool) = match after {
        Some((time, payer, upstream, tool)) => (signed(time), payer, upstream, tool),
        None => (-1, String::new(), String::new(), String::new()),
    };
    let (from, to) = (signed(wanted.from.days()), signed(wanted.to.days()));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = conn.prepare(&sql)?;
    let asked = params![from, to, wanted.agent, wanted.tool, time, payer, upstream, tool, limit];
    let rows = statement.query_map(asked, |row| {
        let number = |at: usize| row.get::<_, i64>(at).map(unsigned);
        Ok(Sum {
            key: (number(0)?, row.get(1)?, row.get(2)?, row.get(3)?),
            calls: number(4)?,
            microusd: number(5)?,
            unsettled_calls: number(6)?,
            unsettled_microusd: number(7)?,
            reserved_calls: number(8)?,
            reserved_microusd: number(9)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
