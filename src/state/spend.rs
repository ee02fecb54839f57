//! What each agent has spent today and this month, exact over all threads.
//!
//! An account is two numbers, one of the day and one of the month, each an atomic of 64 bits: 14 bits say which period it is, 50 how many
//! micro-dollars are taken in it, spent and reserved together. A charge adds to the day, then to the month, by compare-and-swap, and only
//! where the sum stays within the cap; what the month refuses is given back to the day. So no cap is ever exceeded, whatever the threads do. For
//! the moment between the two a call of another thread can be refused that would have fitted.
//!
//! A period begins with its first charge. A clock that goes back charges the later period: more is refused then, never less. What is given
//! back in a later period than it was taken in changes nothing there.
//!
//! Accounts are found through 256 shards, each an immutable map behind an `arc-swap`: looking one up takes no lock, adding one copies
//! a 256th. An account whose month is over is [retired](Accounts::retire): closed first, in its atomic, then taken out, so that nobody can
//! charge one that nobody finds any more.
//!
//! What this does not do: outlive the process. That is the ledger's ([`crate::store::spend`]); at the start it says what was spent.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

const SHARDS: usize = 256;
/// Accounts of one shard: some 65,000 in all, of 200 bytes each.
const MAX_PER_SHARD: usize = 256;
/// Bits of an amount: up to 1.1 billion dollars, which is more than any cap.
const AMOUNT_BITS: u32 = 50;
/// The largest amount that an account holds, micro-dollars.
pub const MAX_MICROUSD: u64 = (1 << AMOUNT_BITS) - 1;
/// An account that takes nothing any more.
const RETIRED: u64 = u64::MAX;
/// Days from 1970-01-01 to 2020-01-01, from which periods are counted: 14 bits of days last until 2064.
const FIRST_DAY: u64 = 18_262;
/// The largest period, one short of what [`RETIRED`] would read as.
const LAST_PERIOD: u64 = (1 << (64 - AMOUNT_BITS)) - 2;
/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// A calendar day and its month, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(u64);

impl Day {
    /// The day of a time, milliseconds since the Unix epoch. Days before 2020 and after 2064 are taken for the first and the last.
    #[must_use]
    pub fn of(epoch_ms: u64) -> Self {
        Self::from_days(epoch_ms / DAY_MS)
    }

    /// From days since 1970-01-01.
    #[must_use]
    pub fn from_days(days: u64) -> Self {
        Self(days.clamp(FIRST_DAY, FIRST_DAY + LAST_PERIOD))
    }

    /// Days since 1970-01-01.
    #[must_use]
    pub fn days(self) -> u64 {
        self.0
    }

    /// When the next day begins, milliseconds since the Unix epoch.
    #[must_use]
    pub fn next_day_ms(self) -> u64 {
        (self.0 + 1) * DAY_MS
    }

    /// The first day of its month.
    #[must_use]
    pub fn first_of_month(self) -> Self {
        let (.., day_of_month) = self.civil();
        Self(self.0 - (day_of_month - 1))
    }

    /// When the next month begins, milliseconds since the Unix epoch.
    #[must_use]
    pub fn next_month_ms(self) -> u64 {
        let first = self.first_of_month().0;
        // A month is over after 31 days; the next one's first day is found from there.
        let (.., into) = Self(first + 31).civil();
        (first + 31 - (into - 1)) * DAY_MS
    }

    fn day_period(self) -> u64 {
        self.0 - FIRST_DAY
    }

    fn month_period(self) -> u64 {
        let (year, month, _) = self.civil();
        (year - 2020) * 12 + (month - 1)
    }

    /// Year, month and day of the month, in the proleptic Gregorian calendar. Years are counted from March, so that a leap day is the last.
    fn civil(self) -> (u64, u64, u64) {
        // Days since 0000-03-01.
        let days = self.0 + 719_468;
        let (era, in_era) = (days / 146_097, days % 146_097);
        let year_of_era = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
        let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * in_year + 2) / 153;
        let day = in_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        (era * 400 + year_of_era + u64::from(month <= 2), month, day)
    }
}

/// What may be spent, micro-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// A calendar day.
    pub day: u64,
    /// A calendar month.
    pub month: u64,
}

/// A calendar period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Span {
    /// A day.
    Day,
    /// A month.
    Month,
}

/// A charge that would exceed a cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// Which.
    pub span: Span,
    /// What is taken, micro-dollars.
    pub taken: u64,
    /// The cap, micro-dollars.
    pub cap: u64,
}

/// Why nothing was charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A cap.
    Over(Over),
    /// The account was retired meanwhile: the agent has another one.
    Retired,
}

/// What was charged, so that it can be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    microusd: u64,
    day: u64,
    month: u64,
}

impl Charge {
    /// How much, micro-dollars.
    #[must_use]
    pub fn microusd(&self) -> u64 {
        self.microusd
    }

    /// The day that it counts for.
    #[must_use]
    pub fn day(&self) -> Day {
        Day(self.day + FIRST_DAY)
    }
}

/// What is taken in a period, micro-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Today.
    pub day: u64,
    /// This month.
    pub month: u64,
}

/// What one agent has spent and reserved.
#[derive(Debug)]
pub struct Account {
    day: AtomicU64,
    month: AtomicU64,
    /// The last periods whose four fifths were told of, plus one.
    told_day: AtomicU64,
    told_month: AtomicU64,
}

impl Account {
    fn new(now: Day) -> Self {
        Self {
            day: AtomicU64::new(pack(now.day_period(), 0)),
            month: AtomicU64::new(pack(now.month_period(), 0)),
            told_day: AtomicU64::new(0),
            told_month: AtomicU64::new(0),
        }
    }

    /// Charges `microusd` if both sums stay within `caps`.
    ///
    /// # Errors
    /// [`Refused`]; nothing was charged.
    pub fn charge(&self, microusd: u64, caps: Caps, now: Day) -> Result<Charge, Refused> {
        let day = match add(&self.day, now.day_period(), microusd, caps.day) {
            Ok(day) => day,
            Err(None) => return Err(Refused::Retired),
            Err(Some(taken)) => return Err(Refused::Over(Over { span: Span::Day, taken, cap: caps.day })),
        };
        match add(&self.month, now.month_period(), microusd, caps.month) {
            Ok(month) => Ok(Charge { microusd, day, month }),
            refused => {
                give_back(&self.day, day, microusd);
                let taken = refused.err().flatten().unwrap_or(caps.month);
                Err(Refused::Over(Over { span: Span::Month, taken, cap: caps.month }))
            }
        }
    }

    /// Gives a charge back.
    pub fn give_back(&self, charge: Charge) {
        give_back(&self.day, charge.day, charge.microusd);
        give_back(&self.month, charge.month, charge.microusd);
    }

    /// Puts what was really spent in a charge's place. It may be more than was reserved, and more than the cap: it is spent.
    pub fn settle(&self, charge: Charge, spent: u64) {
        for (word, period) in [(&self.day, charge.day), (&self.month, charge.month)] {
            match spent.checked_sub(charge.microusd) {
                Some(more) => add_anyway(word, period, more),
                None => give_back(word, period, charge.microusd.saturating_sub(spent)),
            }
        }
    }

    /// What is taken.
    #[must_use]
    pub fn used(&self, now: Day) -> Used {
        let in_period = |word: &AtomicU64, period| {
            let (found, taken) = unpack(word.load(Ordering::Acquire));
            if found >= period { taken } else { 0 }
        };
        Used { day: in_period(&self.day, now.day_period()), month: in_period(&self.month, now.month_period()) }
    }

    /// Whether four fifths of a cap are taken, and nobody was told of it yet in this period. Says so once.
    pub fn nears(&self, span: Span, caps: Caps, now: Day) -> Option<Over> {
        let used = self.used(now);
        let (told, period, taken, cap) = match span {
            Span::Day => (&self.told_day, now.day_period(), used.day, caps.day),
            Span::Month => (&self.told_month, now.month_period(), used.month, caps.month),
        };
        if cap == 0 || u128::from(taken) * 5 < u128::from(cap) * 4 {
            return None;
        }
        let (before, told_now) = (told.load(Ordering::Relaxed), period + 1);
        let first =
            before < told_now && told.compare_exchange(before, told_now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        first.then_some(Over { span, taken, cap })
    }

    /// Takes back that it was told: it could not be.
    pub fn untold(&self, span: Span) {
        match span {
            Span::Day => self.told_day.store(0, Ordering::Relaxed),
            Span::Month => self.told_month.store(0, Ordering::Relaxed),
        }
    }

    /// What was spent before this process began.
    fn add_past(&self, microusd: u64, is_today: bool, now: Day) {
        if is_today {
            add_anyway(&self.day, now.day_period(), microusd);
        }
        add_anyway(&self.month, now.month_period(), microusd);
    }

    /// Closes it for good if nothing was charged to it since its month was over.
    fn close(&self, now: Day) -> bool {
        let (month, _) = unpack(self.month.load(Ordering::Acquire));
        let word = self.day.load(Ordering::Acquire);
        // A charge begins with the day: while that is not moved on, nobody is on the way to the month.
        word != RETIRED
            && month < now.month_period()
            && unpack(word).0 < now.day_period()
            && self.day.compare_exchange(word, RETIRED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

fn pack(period: u64, taken: u64) -> u64 {
    (period.min(LAST_PERIOD) << AMOUNT_BITS) | taken.min(MAX_MICROUSD)
}

fn unpack(word: u64) -> (u64, u64) {
    (word >> AMOUNT_BITS, word & MAX_MICROUSD)
}

/// Adds where the sum stays within `cap`. Returns the period that it counts for: the word's own, where the clock has gone back.
///
/// # Errors
/// What is taken; `None`: the account is retired.
fn add(word: &AtomicU64, period: u64, microusd: u64, cap: u64) -> Result<u64, Option<u64>> {
    let mut old = word.load(Ordering::Acquire);
    loop {
        if old == RETIRED {
            return Err(None);
        }
        let (found, taken) = unpack(old);
        let (period, taken) = if period > found { (period, 0) } else { (found, taken) };
        let sum = taken.saturating_add(microusd);
        if sum > cap.min(MAX_MICROUSD) {
            return Err(Some(taken));
        }
        match word.compare_exchange_weak(old, pack(period, sum), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Ok(period),
            Err(now) => old = now,
        }
    }
}

/// Adds to a period that is not over, whatever the sum.
fn add_anyway(word: &AtomicU64, period: u64, microusd: u64) {
    let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
        let (found, taken) = unpack(old);
        (old != RETIRED && found == period).then(|| pack(period, taken.saturating_add(microusd)))
    });
}

fn give_back(word: &AtomicU64, period: u64, microusd: u64) {
    let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
        let (found, taken) = unpack(old);
        (old != RETIRED && found == period).then(|| pack(period, taken.saturating_sub(microusd)))
    });
}

type Shard = HashMap<Arc<str>, Arc<Account>>;

/// The accounts of all agents.
#[derive(Debug)]
pub struct Accounts {
    shards: Box<[ArcSwap<Shard>]>,
    hasher: RandomState,
}

impl Default for Accounts {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| ArcSwap::default()).collect(), hasher: RandomState::new() }
    }
}

impl Accounts {
    /// The account of this name; made where there is none. `None`: there are as many as there may be.
    #[must_use]
    pub fn of(&self, name: &str, now: Day) -> Option<Arc<Account>> {
        let shard = self.shard(name)?;
        if let Some(found) = shard.load().get(name) {
            return Some(Arc::clone(found));
        }
        shard.rcu(|map| {
            if map.contains_key(name) || map.len() >= MAX_PER_SHARD {
                return Arc::clone(map);
            }
            let mut with = Shard::clone(map);
            with.insert(name.into(), Arc::new(Account::new(now)));
            Arc::new(with)
        });
        shard.load().get(name).map(Arc::clone)
    }

    /// What is taken by the account of this name.
    #[must_use]
    pub fn used(&self, name: &str, now: Day) -> Used {
        let found = self.shard(name).and_then(|shard| shard.load().get(name).map(Arc::clone));
        found.map_or_else(Used::default, |account| account.used(now))
    }

    /// Charges the account of this name.
    ///
    /// # Errors
    /// What exceeds a cap; `None`: there are as many accounts as there may be.
    pub fn charge(
        &self,
        name: &str,
        microusd: u64,
        caps: Caps,
        now: Day,
    ) -> Result<(Arc<Account>, Charge), Option<Over>> {
        loop {
            let account = self.of(name, now).ok_or(None)?;
            match account.charge(microusd, caps, now) {
                Ok(charge) => return Ok((account, charge)),
                Err(Refused::Over(over)) => return Err(Some(over)),
                // Whoever closed it takes it out next; so does this.
                Err(Refused::Retired) => self.remove(name, &account),
            }
        }
    }

    /// Adds what the ledger knows of `day`, this month's or a later one: before anything is charged. Days to come, by a clock that has gone
    /// back, count for today.
    pub fn add_past(&self, name: &str, microusd: u64, day: Day, now: Day) {
        if let Some(account) = self.of(name, now) {
            account.add_past(microusd, day >= now, now);
        }
    }

    /// Takes out the accounts to which nothing was charged since their month was over. Returns how many there were.
    pub fn retire(&self, now: Day) -> usize {
        let mut retired = 0;
        for shard in &self.shards {
            let over: Vec<_> = shard
                .load()
                .iter()
                .filter(|(_, account)| account.close(now))
                .map(|(name, account)| (Arc::clone(name), Arc::clone(account)))
                .collect();
            for (name, account) in over {
                retired += 1;
                self.remove(&name, &account);
            }
        }
        retired
    }

    /// Shows all of them.
    pub fn for_each(&self, mut look: impl FnMut(&str, &Account)) {
        for shard in &self.shards {
            shard.load().iter().for_each(|(name, account)| look(name, account));
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.load().len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes this very account out; another one of its name stays.
    fn remove(&self, name: &str, account: &Arc<Account>) {
        let Some(shard) = self.shard(name) else { return };
        shard.rcu(|map| {
            if map.get(name).is_none_or(|found| !Arc::ptr_eq(found, account)) {
                return Arc::clone(map);
            }
            let mut without = Shard::clone(map);
            without.remove(name);
            Arc::new(without)
        });
    }

    fn shard(&self, name: &str) -> Option<&ArcSwap<Shard>> {
        let hash = self.hasher.hash_one(name);
        self.shards.get(usize::try_from(hash % SHARDS as u64).unwrap_or(0))
    }
}

#[cfg(test)]
#[path = "spend_tests.rs"]
mod tests;
