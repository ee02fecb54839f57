//! A call that costs money, from the decision to its end: reserved in memory, written down, sent, settled or given back.
//!
//! 1. [`reserve`] charges the accounts, without an await: part of deciding. Who is refused later is charged nowhere: a [`Held`] that is dropped
//!    gives back.
//! 2. [`Held::write_down`] waits until the reservation is on disk. The door does so before it sends anything.
//! 3. The door notes what it learns: that nothing was sent, what the answer says. [`Held::ended`] fills in what the outcome alone tells.
//! 4. Dropped, it closes the reservation, in memory and in the ledger, and records what was spent.
//!
//! **What is charged.** An answer of the tool, a failure that it reports among them: what the result says at the policy's `settle`, else what was reserved. Given
//! back: a call that was certainly not carried out: it did not reach the upstream, or the upstream has refused the message as such. Everything else stays charged in full, as
//! *unsettled*: nobody knows.
//!
//! A call of which nothing is to be paid has no `Held`, and pays for none of this with more than a look.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crate::gateway::spending::Spending;
use crate::guard::Principal;
use crate::guard::denial::{Denial, SpendCap};
use crate::guard::price;
use crate::guard::spend::{Priced, account_of_entry, payer};
use crate::rpc::{Envelope, Kind};
use crate::settings::money::Usd;
use crate::state::events::{Event, EventKind, Outcome, Reservation};
use crate::state::spend::{Account, Charge, Day, Over, Span};
use crate::store::spend::{Closing, OpenId, Opening, Written};
use crate::upstream::{Message, Upstream};
use crate::worker::Worker;
use crate::worker::timers::OnExpiry;

/// How long a reservation may take to reach the disk. A group is synced in milliseconds; a disk that hangs is noticed after five seconds.
const WRITE_MS: u64 = 10_000;

/// How far a call has come.
enum Stage {
    /// It is charged in memory.
    Charged,
    /// It is in the ledger, or on its way there; nothing was sent.
    Written(OpenId),
    /// It may have reached the upstream.
    Sent(OpenId),
}

/// What is known of a call that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing.
    Unknown,
    /// It was not carried out.
    NotMade,
    /// It was answered, without a figure.
    Answered,
    /// This is what it cost, micro-dollars.
    Told(u64),
}

/// Money that is held for one call.
pub(crate) struct Held {
    worker: Rc<Worker>,
    spending: Arc<Spending>,
    priced: Arc<Priced>,
    account: (Arc<Account>, Charge),
    /// Of the tools of the policy's entry alone, where they have caps.
    of_entry: Option<(Arc<Account>, Charge)>,
    payer: Arc<str>,
    upstream: Arc<str>,
    tool: Box<str>,
    stage: Stage,
    verdict: Cell<Verdict>,
    /// Room for the audit line of what was spent.
    record: Option<Reservation>,
}

/// Charges a call that costs something. `tool` is the upstream's own name; `record` is asked for a place in the audit trail.
///
/// # Errors
/// A cap, a price that cannot be told, or no way to write it down. Nothing is charged then.
pub(crate) fn reserve(
    worker: &Rc<Worker>,
    principal: &Principal,
    message: &Message<'_>,
    upstream: &Upstream,
    tool: &str,
    record: impl FnOnce() -> Result<Option<Reservation>, Denial>,
) -> Result<Option<Box<Held>>, Denial> {
    let snapshot = worker.snapshot();
    let rules = &snapshot.spend;
    let Some(priced) = rules.priced(&upstream.name, tool).map_err(|_| Denial::ToolNotPermitted)? else {
        return Ok(None);
    };
    let text = priced.text.as_deref();
    let microusd =
        price::of_call(priced.price, text, message.envelope, message.raw).map_err(|_| Denial::Unpriceable)?;
    let Some(spending) = &worker.shared.spending else { return Err(Denial::SpendUnrecorded) };
    let record = record()?;
    let (now_ms, name) = (worker.tick_epoch_ms(), payer(principal));
    let now = Day::of(now_ms);
    let refused = |over: Option<Over>| match over {
        Some(Over { span, taken, cap }) => {
            let resets_at_ms = match span {
                Span::Day => now.next_day_ms(),
                Span::Month => now.next_month_ms(),
            };
            // What is told is true by the clock as it is now, and not as it was at the last tick.
            let retry_after_ms = resets_at_ms.saturating_sub(worker.epoch_ms_at(worker.now_ns()));
            Denial::SpendCap(SpendCap { span, taken, cap, retry_after_ms })
        }
        None => Denial::SpendUnrecorded,
    };
    let caps = worker.shared.limit_book.load().caps_of(name);
    let account = spending.accounts.charge(name, microusd, caps, now).map_err(refused)?;
    let of_entry = match priced.caps {
        None => None,
        Some(caps) => match spending.accounts.charge(&account_of_entry(name, priced), microusd, caps, now) {
            Ok(charged) => Some(charged),
            Err(over) => {
                account.0.give_back(account.1);
                return Err(refused(over));
            }
        },
    };
    let payer = principal.agent().map_or_else(|| name.into(), Arc::clone);
    spending.note_neared(&payer, None, &account.0, caps, now);
    if let (Some((of_entry, _)), Some(caps)) = (&of_entry, priced.caps) {
        spending.note_neared(&payer, Some(&priced.pattern), of_entry, caps, now);
    }
    Ok(Some(Box::new(Held {
        worker: Rc::clone(worker),
        spending: Arc::clone(spending),
        priced: Arc::clone(priced),
        account,
        of_entry,
        payer,
        upstream: upstream.name.as_str().into(),
        tool: tool.into(),
        stage: Stage::Charged,
        verdict: Cell::new(Verdict::Unknown),
        record,
    })))
}

impl Held {
    /// Waits until the reservation is on disk. Dropped meanwhile, it is given back.
    ///
    /// # Errors
    /// [`Denial::SpendUnrecorded`]: the call must not be made.
    pub(crate) async fn write_down(&mut self) -> Result<(), Denial> {
        let (_, charge) = &self.account;
        let opening = Opening {
            payer: Arc::clone(&self.payer),
            upstream: Arc::clone(&self.upstream),
            tool: self.tool.clone(),
            day: charge.day(),
            microusd: charge.microusd(),
            at_ms: self.worker.tick_epoch_ms(),
        };
        let (id, written) = self.spending.ledger.reserve(opening).map_err(|_| Denial::SpendUnrecorded)?;
        self.stage = Stage::Written(id);
        if self.is_written(written).await { Ok(()) } else { Err(Denial::SpendUnrecorded) }
    }

    async fn is_written(&self, written: Written) -> bool {
        let timer = self.worker.timers.deadline(-1);
        timer.set(WRITE_MS, OnExpiry::Wake);
        matches!(crate::worker::race(written, timer.expired()).await, Some(Ok(Ok(()))))
    }

    /// From here on it may reach the upstream.
    pub(crate) fn sent(&mut self) {
        if let Stage::Written(id) = self.stage {
            self.stage = Stage::Sent(id);
        }
    }

    /// Whether the answer is to be looked into for what the call has cost.
    pub(crate) fn asks(&self) -> bool {
        self.priced.settle.is_some()
    }

    /// The call was certainly not carried out.
    pub(crate) fn not_made(&self) {
        self.verdict.set(Verdict::NotMade);
    }

    /// The response to the call.
    pub(crate) fn hear(&self, envelope: &Envelope, raw: &[u8]) {
        let told = || price::told(self.priced.settle.as_deref()?, envelope.result?, raw);
        match envelope.kind {
            Kind::Response => self.verdict.set(told().map_or(Verdict::Answered, Verdict::Told)),
            // JSON-RPC 2.0 §5.1: the message was refused as such. What other errors mean is the server's own affair.
            Kind::ErrorResponse if matches!(envelope.error_code, Some(-32700 | -32602..=-32600)) => self.not_made(),
            _ => {}
        }
    }

    /// The HTTP status of an answer that says nothing more.
    pub(crate) fn hear_status(&self, status: u16) {
        // The server has refused the request before it looked what it asks for (RFC 9110 §15.5). The rest may have been carried out.
        if self.verdict.get() == Verdict::Unknown
            && matches!(status, 400 | 401 | 403 | 404 | 405 | 406 | 411 | 413 | 414 | 415 | 421 | 422 | 429 | 431)
        {
            self.not_made();
        }
    }

    /// The call has ended; `status` is the HTTP status of its answer, 0 where there is none. What was learned before stands.
    pub(crate) fn ended(self, outcome: Outcome, status: u16) {
        if self.verdict.get() == Verdict::Unknown {
            match outcome {
                Outcome::Ok | Outcome::ToolError => self.verdict.set(Verdict::Answered),
                Outcome::RpcError => self.hear_status(status),
                Outcome::Refused => self.not_made(),
                Outcome::UpstreamError | Outcome::Timeout | Outcome::Cancelled => {}
            }
        }
    }

    fn give_back(&self) {
        for (account, charge) in [Some(&self.account), self.of_entry.as_ref()].into_iter().flatten() {
            account.give_back(*charge);
        }
    }

    fn settle(&mut self, id: OpenId, closing: Closing, microusd: u64, how: &str) {
        for (account, charge) in [Some(&self.account), self.of_entry.as_ref()].into_iter().flatten() {
            account.settle(*charge, microusd);
        }
        self.spending.ledger.close(id, closing);
        let Some(record) = self.record.take() else { return };
        let event = Event::new(EventKind::SpendRecorded, self.worker.tick_epoch_ms()).with_agent(&self.payer);
        let event = event.with_tool(self.tool.as_bytes());
        let reserved = Usd(self.account.1.microusd());
        record.commit(event.with_details(format_args!("{} USD of {reserved} reserved: {how}", Usd(microusd))));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let reserved = self.account.1.microusd();
        match (&self.stage, self.verdict.get()) {
            (Stage::Charged, _) => self.give_back(),
            (Stage::Written(id), _) | (Stage::Sent(id), Verdict::NotMade) => {
                self.give_back();
                self.spending.ledger.close(*id, Closing::GivenBack);
            }
            (Stage::Sent(id), Verdict::Told(told)) => {
                self.settle(*id, Closing::Spent(told), told, "the upstream's figure")
            }
            (Stage::Sent(id), Verdict::Answered) => self.settle(*id, Closing::Spent(reserved), reserved, "the price"),
            (Stage::Sent(id), Verdict::Unknown) => {
                self.settle(*id, Closing::Unsettled(reserved), reserved, "unsettled, the outcome is not known");
            }
        }
    }
}
