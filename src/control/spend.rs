//! What is to be done about money now and then: telling people of caps that are neared, trying again what the disk has refused, and
//! forgetting what is too old.

use std::sync::Arc;
use std::time::Duration;

use super::alerts::{AlertKind, Alerts, NewAlert, Subject};
use crate::gateway::spending::{Neared, Spending};
use crate::settings::money::Usd;
use crate::state::spend::{Day, Span};

/// How often caps that are neared are told of, and closings tried again.
const EVERY: Duration = Duration::from_secs(1);
/// How many of these rounds lie between two times that what is too old is looked for: an hour.
const ROUNDS: u32 = 3_600;

/// Goes on for as long as the process does. The ledger's totals are kept for `kept_days`, and in any case for the month that caps count.
pub(super) async fn keep(spending: Arc<Spending>, alerts: Alerts, kept_days: u32, clock: fn() -> u64) {
    let mut round = 0u32;
    loop {
        while let Some(neared) = spending.take_neared() {
            alerts.raise(alert(&neared));
        }
        spending.ledger.kick();
        if round == 0 {
            let now = Day::of(clock());
            spending.accounts.retire(now);
            forget(&spending, now, kept_days).await;
        }
        round = (round + 1) % ROUNDS;
        tokio::time::sleep(EVERY).await;
    }
}

async fn forget(spending: &Spending, now: Day, kept_days: u32) {
    let oldest = Day::from_days(now.days().saturating_sub(kept_days.into())).min(now.first_of_month());
    loop {
        match spending.ledger.forget_before(oldest).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "old totals of the ledger could not be taken away; that is tried again in an hour");
                return;
            }
        }
    }
}

/// What people are told. The policy's own name for tools may stand in it; what a client made up may not.
fn alert(neared: &Neared) -> NewAlert {
    let Neared { payer, tools, over } = neared;
    let (span, taken, cap) = match over.span {
        Span::Day => ("today", Usd(over.taken), Usd(over.cap)),
        Span::Month => ("this month", Usd(over.taken), Usd(over.cap)),
    };
    let on = tools.as_ref().map_or_else(String::new, |tools| format!(" on {tools}"));
    let details = format!("{taken} USD of {cap} are spent or reserved {span}{on}");
    NewAlert { kind: AlertKind::SpendCapNear, subject: Subject::Agent(payer.to_string()), details }
}
