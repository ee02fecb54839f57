//! What calls that cost money go through: the accounts in memory, the ledger on disk, and what people are told of caps that are neared.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::guard::LimitBook;
use crate::guard::spend::{SpendRules, account_of_entry};
use crate::observe::metrics::SpendMetrics;
use crate::state::spend::{Account, Accounts, Caps, Day, Over, Span};
use crate::store::spend::Ledger;
use crate::store::{Store, StoreError};

/// Caps that are neared and not told of yet. The control thread takes them each second; what finds no place is told at the next charge.
const NEARED: usize = 256;

/// A cap of which four fifths are taken.
#[derive(Clone, Debug)]
pub struct Neared {
    /// Whose.
    pub payer: Arc<str>,
    /// Of which tools alone, where it is not of all.
    pub tools: Option<Box<str>>,
    /// Which, and how much of it.
    pub over: Over,
}

/// Accounts and ledger.
pub struct Spending {
    /// What is taken.
    pub accounts: Accounts,
    /// What is on disk.
    pub ledger: Ledger,
    neared: ArrayQueue<Neared>,
}

impl Spending {
    /// Opens the ledger, and puts what was spent this month into the accounts. `book` says what each may spend. Blocks the thread.
    ///
    /// # Errors
    /// The store's.
    pub fn open(
        store: &Store,
        rules: &SpendRules,
        book: &LimitBook,
        metrics: Arc<SpendMetrics>,
        now: Day,
    ) -> Result<Self, StoreError> {
        let (ledger, past) = Ledger::open(store, metrics, now)?;
        let accounts = Accounts::default();
        let mut caps_of_entries = HashMap::new();
        for past in past {
            accounts.add_past(&past.payer, past.microusd, past.day, now);
            // Calls that are not told apart any more count for their agent alone.
            if let Ok(Some(priced)) = rules.priced(&past.upstream, &past.tool)
                && let Some(caps) = priced.caps
            {
                let name = account_of_entry(&past.payer, priced);
                accounts.add_past(&name, past.microusd, past.day, now);
                caps_of_entries.insert(name, caps);
            }
        }
        // What was neared before was told of then.
        accounts.for_each(|name, account| {
            let caps = caps_of_entries.get(name).copied().unwrap_or_else(|| book.caps_of(name));
            let _ = (account.nears(Span::Day, caps, now), account.nears(Span::Month, caps, now));
        });
        Ok(Self { accounts, ledger, neared: ArrayQueue::new(NEARED) })
    }

    /// Notes which caps a charge has brought near.
    pub fn note_neared(&self, payer: &Arc<str>, tools: Option<&str>, account: &Account, caps: Caps, now: Day) {
        for span in [Span::Day, Span::Month] {
            let Some(over) = account.nears(span, caps, now) else { continue };
            let neared = Neared { payer: Arc::clone(payer), tools: tools.map(Into::into), over };
            if self.neared.push(neared).is_err() {
                account.untold(span);
            }
        }
    }

    /// What people are to be told of now.
    pub fn take_neared(&self) -> Option<Neared> {
        self.neared.pop()
    }
}
