//! The ledger: what was reserved and what was spent, on disk before the call it is for leaves.
//!
//! A reservation is a row of `spend_open`. Closing it takes the row away and, unless it was given back, adds it to the totals of its day, agent
//! and tool in `spend_days`. So the ledger grows with days, agents and tools, not with calls.
//!
//! **Grouping.** A worker puts its reservation into a bounded lock-free queue and waits for a word. The first one to come also asks the store's
//! writer for one job, which takes out all that wait by then: hundreds of calls share one savepoint, one transaction and one sync, and an
//! operator's change never waits behind them. Closings take the same queue, and nobody waits for them.
//!
//! **Room.** At most [`MAX_OPEN`] reservations are open; each is in the queue twice at most, when it is made and when it is closed, and the
//! queue has room for both. So a closing always finds room. What the disk refuses: a reservation is refused, and its call is not made;
//! a closing is put back and tried again.
//!
//! **After `kill -9`.** What was open is charged in full: the call may have been carried out. [`Ledger::open`] adds it to the totals as
//! *unsettled*, which is what is said there of every charge of which nobody knows whether the call was carried out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use rusqlite::{Connection, Statement, params};
use tokio::sync::oneshot;

use super::writer::{Job, Order};
use super::{Store, StoreError};
use crate::observe::metrics::SpendMetrics;
use crate::state::spend::Day;

pub mod billing;

/// Reservations that may be open at once, all workers together: more calls than the largest upstream may have in flight by default, 16 times.
pub const MAX_OPEN: u64 = 16_384;
/// Entries of one job: its time is what others wait.
const MAX_BATCH: usize = 1_024;
/// Tools that are told apart of one agent on one day. A policy may price a pattern, and clients make up names that match it.
const MAX_TOOLS_A_DAY: i64 = 256;
/// What the other ones are called.
pub const OTHER_TOOLS: &str = "(other)";
/// Rows taken away by one write.
const FORGET_AT_ONCE: u32 = 10_000;

/// A reservation that is to be written down.
#[derive(Debug)]
pub struct Opening {
    /// Whose account it is.
    pub payer: Arc<str>,
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// The upstream's own name of the tool.
    pub tool: Box<str>,
    /// The day that it counts for.
    pub day: Day,
    /// How much.
    pub microusd: u64,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// What became of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// This was spent, micro-dollars.
    Spent(u64),
    /// This is charged, and nobody knows whether the call was carried out.
    Unsettled(u64),
    /// The call was not made.
    GivenBack,
}

/// A reservation on its way, or on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenId(u64);

/// As many reservations are open as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many reservations are open")]
pub struct TooMany;

/// What a reservation waits for: that it is on disk, or why not. An error of the channel means that the store has ended.
pub type Written = oneshot::Receiver<Result<(), StoreError>>;

enum Entry {
    Open(u64, Box<(Opening, oneshot::Sender<Result<(), StoreError>>)>),
    Close(u64, Closing),
}

/// What was spent on one day by one agent on one tool, before this process began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// The day.
    pub day: Day,
    /// Whose account it is.
    pub payer: String,
    /// The upstream's name.
    pub upstream: String,
    /// The upstream's own name of the tool.
    pub tool: String,
    /// How much.
    pub microusd: u64,
}

/// A way to the ledger. Cheap to clone.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    store: Store,
    queue: ArrayQueue<Entry>,
    /// A job was asked for and has not begun to take.
    asked: AtomicBool,
    /// Reservations that were made and whose closing is not on disk.
    open: AtomicU64,
    last_id: AtomicU64,
    metrics: Arc<SpendMetrics>,
}

impl Ledger {
    /// Closes what a process before has left open, in full, and says what was spent since the month of `now` began. Blocks the thread.
    ///
    /// # Errors
    /// The store's.
    pub fn open(store: &Store, metrics: Arc<SpendMetrics>, now: Day) -> Result<(Self, Vec<Past>), StoreError> {
        let left = store.write_now(close_left)?;
        if left > 0 {
            tracing::warn!(
                calls = left,
                "calls that cost were cut off by the end of the process before: they are charged, as unsettled"
            );
        }
        let past = store.read_now(move |conn| since(conn, now.first_of_month()))?;
        let capacity = usize::try_from(MAX_OPEN * 2).unwrap_or(usize::MAX);
        let ledger = Self(Arc::new(Inner {
            store: store.clone(),
            queue: ArrayQueue::new(capacity),
            asked: AtomicBool::new(false),
            open: AtomicU64::new(0),
            last_id: AtomicU64::new(0),
            metrics,
        }));
        Ok((ledger, past))
    }

    /// Writes a reservation down. The call must not leave before the answer has come. Whatever that is, and whether or not it is waited for,
    /// the reservation is to be [closed](Ledger::close), once.
    ///
    /// # Errors
    /// [`TooMany`]; then there is nothing to close.
    pub fn reserve(&self, opening: Opening) -> Result<(OpenId, Written), TooMany> {
        let inner = &*self.0;
        if inner.open.fetch_add(1, Ordering::AcqRel) >= MAX_OPEN {
            inner.open.fetch_sub(1, Ordering::AcqRel);
            return Err(TooMany);
        }
        inner.metrics.reserved.inc();
        let id = inner.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (reply, written) = oneshot::channel();
        inner.put(Entry::Open(id, Box::new((opening, reply))));
        self.ask();
        Ok((OpenId(id), written))
    }

    /// Notes what became of a reservation. Nobody waits for the disk.
    pub fn close(&self, id: OpenId, closing: Closing) {
        self.0.put(Entry::Close(id.0, closing));
        self.ask();
    }

    /// Asks for what waits to be written: what the disk has refused is tried again. To be called now and then.
    pub fn kick(&self) {
        if !self.0.queue.is_empty() {
            self.ask();
        }
    }

    /// Reservations that were made and whose closing is not on disk.
    #[must_use]
    pub fn open_count(&self) -> u64 {
        self.0.open.load(Ordering::Relaxed)
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &SpendMetrics {
        &self.0.metrics
    }

    /// Takes away totals of days before `day`. Returns how many rows there were; more may be left.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget_before(&self, day: Day) -> Result<usize, StoreError> {
        let sql = "DELETE FROM spend_days WHERE (day, payer, upstream, tool) IN
                   (SELECT day, payer, upstream, tool FROM spend_days WHERE day < ?1 LIMIT ?2)";
        self.0.store.write(move |conn| Ok(conn.execute(sql, params![signed(day.days()), FORGET_AT_ONCE])?)).await
    }

    /// Asks the store for one job, unless one is asked for already.
    fn ask(&self) {
        if self.0.asked.swap(true, Ordering::AcqRel) {
            return;
        }
        let batch = Batch { ledger: self.clone(), has_run: false, taken: Vec::new(), failed: None };
        match self.0.store.submit(Order::Do(Box::new(batch))) {
            Ok(()) => {}
            Err(error) => {
                self.0.asked.store(false, Ordering::Release);
                if error == StoreError::Stopped {
                    // Nobody will ever take them; who waits is told so by the end of its channel.
                    while self.0.queue.pop().is_some() {}
                }
            }
        }
    }
}

impl Inner {
    fn put(&self, entry: Entry) {
        if self.queue.push(entry).is_err() {
            // The queue has room for all that is open, twice.
            self.metrics.failures.inc();
            tracing::error!("the ledger's queue is full: a call stays charged as unsettled");
        }
    }
}

/// What waited when the writer came to it.
struct Batch {
    ledger: Ledger,
    has_run: bool,
    taken: Vec<Entry>,
    /// Why what was taken does not stand, though the transaction may.
    failed: Option<StoreError>,
}

impl Batch {
    fn take(&mut self) {
        self.has_run = true;
        // Whoever comes from here on asks for another job.
        self.ledger.0.asked.swap(false, Ordering::AcqRel);
        while self.taken.len() < MAX_BATCH {
            let Some(entry) = self.ledger.0.queue.pop() else { return };
            self.taken.push(entry);
        }
        self.ledger.kick();
    }

    fn write(&self, conn: &Connection) -> Result<(), StoreError> {
        let mut ledger = Prepared::new(conn);
        for entry in &self.taken {
            match entry {
                Entry::Open(id, opened) => ledger.insert(*id, &opened.0)?,
                Entry::Close(id, closing) => ledger.close(*id, *closing)?,
            }
        }
        Ok(())
    }
}

impl Job for Batch {
    fn run(&mut self, conn: &Connection) -> Result<(), StoreError> {
        self.take();
        let written = self.write(conn);
        self.failed = written.clone().err();
        written
    }

    fn answer(mut self: Box<Self>, committed: Result<(), StoreError>) {
        if !self.has_run {
            self.take();
        }
        let Batch { ledger, taken, failed, .. } = *self;
        let result = committed.and(failed.map_or(Ok(()), Err));
        let metrics = &ledger.0.metrics;
        if result.is_err() {
            metrics.failures.inc();
        }
        for entry in taken {
            match entry {
                // Who does not wait any more needs no answer.
                Entry::Open(_, opened) => drop(opened.1.send(result.clone())),
                Entry::Close(id, closing) => match &result {
                    Ok(()) => {
                        ledger.0.open.fetch_sub(1, Ordering::AcqRel);
                        match closing {
                            Closing::Spent(microusd) => {
                                metrics.settled.inc();
                                metrics.microusd.add(microusd);
                            }
                            Closing::Unsettled(microusd) => {
                                metrics.unsettled.inc();
                                metrics.microusd.add(microusd);
                            }
                            Closing::GivenBack => metrics.given_back.inc(),
                        }
                    }
                    Err(error) if error.is_outage() || *error == StoreError::Stopped => {
                        ledger.0.put(Entry::Close(id, closing));
                    }
                    Err(error) => {
                        // A fault of the program: trying again would fail again. What is open stays charged.
                        ledger.0.open.fetch_sub(1, Ordering::AcqRel);
                        tracing::error!(%error, "a call could not be settled: it stays charged as unsettled");
                    }
                },
            }
        }
    }
}

/// The statements of one batch, each prepared once, when it is first needed.
struct Prepared<'c> {
    conn: &'c Connection,
    statements: [Option<Statement<'c>>; SQL.len()],
}

const INSERT: usize = 0;
const FORGET: usize = 1;
const TAKE: usize = 2;
const ADD: usize = 3;
const COUNT: usize = 4;
const PUT: usize = 5;

const SQL: [&str; 6] = [
    "INSERT INTO spend_open (id, payer, upstream, tool, day, microusd, at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    "DELETE FROM spend_open WHERE id = ?1",
    "DELETE FROM spend_open WHERE id = ?1 RETURNING day, payer, upstream, tool",
    "UPDATE spend_days SET calls = calls + ?5, microusd = microusd + ?6, unsettled_calls = unsettled_calls + ?7,
        unsettled_microusd = unsettled_microusd + ?8 WHERE day = ?1 AND payer = ?2 AND upstream = ?3 AND tool = ?4",
    "SELECT count(*) FROM spend_days WHERE day = ?1 AND payer = ?2",
    "INSERT INTO spend_days (day, payer, upstream, tool, calls, microusd, unsettled_calls, unsettled_microusd)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET calls = calls + ?5, microusd = microusd + ?6,
        unsettled_calls = unsettled_calls + ?7, unsettled_microusd = unsettled_microusd + ?8",
];

impl<'c> Prepared<'c> {
    fn new(conn: &'c Connection) -> Self {
        Self { conn, statements: Default::default() }
    }

    fn get(&mut self, which: usize) -> Result<&mut Statement<'c>, StoreError> {
        let (Some(place), Some(sql)) = (self.statements.get_mut(which), SQL.get(which)) else {
            return Err(StoreError::Refused("no such statement".into()));
        };
        if place.is_none() {
            *place = Some(self.conn.prepare(sql)?);
        }
        place.as_mut().ok_or(StoreError::Stopped)
    }

    fn insert(&mut self, id: u64, opening: &Opening) -> Result<(), StoreError> {
        let Opening { payer, upstream, tool, day, microusd, at_ms } = opening;
        let (id, day, microusd) = (signed(id), signed(day.days()), signed(*microusd));
        self.get(INSERT)?.execute(params![id, payer, upstream, tool, day, microusd, signed(*at_ms)])?;
        Ok(())
    }

    fn close(&mut self, id: u64, closing: Closing) -> Result<(), StoreError> {
        let sums = match closing {
            Closing::GivenBack => {
                self.get(FORGET)?.execute(params![signed(id)])?;
                return Ok(());
            }
            Closing::Spent(microusd) => [1, signed(microusd), 0, 0],
            Closing::Unsettled(microusd) => [1, signed(microusd), 1, signed(microusd)],
        };
        let mut rows = self.get(TAKE)?.query(params![signed(id)])?;
        // One that was never made has nothing to be charged for.
        let Some(row) = rows.next()? else { return Ok(()) };
        let (day, payer, upstream, tool): (i64, String, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        // To its end: that is when the row is gone.
        while rows.next()?.is_some() {}
        drop(rows);
        self.add(day, &payer, (&upstream, &tool), sums)
    }

    /// Adds to the totals: calls, micro-dollars, and how many and how much of that is unsettled.
    fn add(&mut self, day: i64, payer: &str, of: (&str, &str), sums: [i64; 4]) -> Result<(), StoreError> {
        let [calls, spent, unsettled_calls, unsettled] = sums;
        let (upstream, tool) = of;
        let row = params![day, payer, upstream, tool, calls, spent, unsettled_calls, unsettled];
        if self.get(ADD)?.execute(row)? > 0 {
            return Ok(());
        }
        let known: i64 = self.get(COUNT)?.query_row(params![day, payer], |row| row.get(0))?;
        let (upstream, tool) = if known >= MAX_TOOLS_A_DAY { ("", OTHER_TOOLS) } else { of };
        let row = params![day, payer, upstream, tool, calls, spent, unsettled_calls, unsettled];
        self.get(PUT)?.execute(row)?;
        Ok(())
    }
}

/// Charges what a process before has left open. Returns how many there were.
fn close_left(conn: &Connection) -> Result<u64, StoreError> {
    let sql = "SELECT day, payer, upstream, tool, count(*), sum(microusd) FROM spend_open GROUP BY 1, 2, 3, 4";
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    let (mut left, mut ledger) = (0, Prepared::new(conn));
    while let Some(row) = rows.next()? {
        let (payer, upstream, tool): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let (calls, microusd): (i64, i64) = (row.get(4)?, row.get(5)?);
        ledger.add(row.get(0)?, &payer, (&upstream, &tool), [calls, microusd, calls, microusd])?;
        left += unsigned(calls);
    }
    drop(rows);
    conn.execute("DELETE FROM spend_open", [])?;
    Ok(left)
}

fn since(conn: &Connection, day: Day) -> Result<Vec<Past>, StoreError> {
    let mut statement = conn.prepare("SELECT day, payer, upstream, tool, microusd FROM spend_days WHERE day >= ?1")?;
    let rows = statement.query_map(params![signed(day.days())], |row| {
        Ok(Past {
            day: Day::from_days(unsigned(row.get(0)?)),
            payer: row.get(1)?,
            upstream: row.get(2)?,
            tool: row.get(3)?,
            microusd: unsigned(row.get(4)?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
#[path = "spend_tests.rs"]
mod tests;
