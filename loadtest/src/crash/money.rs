//! What calls have cost, as the upstreams and the clients know it, held against the gateway's bill.
//!
//! The tool of some upstreams has a price. A call that such an upstream has seen is to be charged, once, whatever became of its answer: nothing that was
//! spent may be lost. One that a kill cut off and no upstream has seen may have been reserved before it, and is then charged as well: that much more may be on the bill,
//! and no more. No call may be made beyond the cap, and none refused for it while there is room for all that anybody has asked for.

use std::io;

use serde::Deserialize;

use super::super::faults::ledger::{Ended, Ledger};
use super::super::faults::stage::Stage;
use super::super::faults::upstream::Upstream;

/// Names of checks, as violations carry them.
pub(super) const LOST: &str = "no spend is lost";
pub(super) const EXTRA: &str = "no spend is from nowhere";
pub(super) const CAP: &str = "no cap is exceeded";

/// Of a call, micro-dollars.
pub(super) const PRICE: u64 = 1_000;

/// Upstreams whose calls have a price, and how the policy names their tool.
const PRICED: [(&str, &str); 2] = [("web", "act"), ("lines", "a*")];

/// What the policy says of prices.
pub(super) fn policy() -> String {
    let one = |(upstream, pattern)| {
        format!("[tool.\"{pattern}\"]\nupstream = \"{upstream}\"\nprice = {{ fixed_usd = \"{}\" }}\n", usd(PRICE))
    };
    PRICED.into_iter().map(one).collect()
}

/// The settings that bound what all may spend: so many calls.
pub(super) fn settings(calls: u64) -> Vec<(&'static str, String)> {
    ["DEFAULT_MAX_SPEND_PER_DAY", "DEFAULT_MAX_SPEND_PER_MONTH"].map(|name| (name, usd(calls * PRICE))).into()
}

fn usd(micro: u64) -> String {
    format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000)
}

/// What the bill says, calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bill {
    pub(super) charged: u64,
    /// Of these, those of which nobody knows whether they were carried out.
    pub(super) unsettled: u64,
    pub(super) reserved: u64,
    micro: u64,
}

#[derive(Deserialize)]
struct Page {
    rows: Vec<Row>,
    next: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    calls: u64,
    spent_usd: String,
    unsettled_calls: u64,
    reserved_calls: u64,
}

/// Asks for the bill: all that was ever spent.
pub(super) async fn bill(stage: &Stage) -> io::Result<Bill> {
    let (status, body) = stage.gateway.ask("GET", &format!("/admin/billing?from={}", a_month_ago()), "").await?;
    if status != 200 {
        return Err(io::Error::other(format!("the bill is answered with {status}: {body}")));
    }
    let page: Page = serde_json::from_str(&body)?;
    if page.next.is_some() {
        return Err(io::Error::other("the bill has more rows than payers"));
    }
    let mut bill = Bill::default();
    for row in page.rows {
        bill.charged += row.calls;
        bill.unsettled += row.unsettled_calls;
        bill.reserved += row.reserved_calls;
        bill.micro += micro(&row.spent_usd).ok_or_else(|| io::Error::other(format!("no amount: {}", row.spent_usd)))?;
    }
    Ok(bill)
}

fn a_month_ago() -> String {
    let day = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    day.checked_sub(jiff::Span::new().days(31)).unwrap_or(day).to_string()
}

/// Micro-dollars of an amount: `12`, `0.0079`.
fn micro(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 6 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<6}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(fraction)
}

/// Calls with a price, by what is known of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Those that an upstream has seen.
    pub(super) seen: u64,
    /// Those that a kill cut off and no upstream has seen.
    pub(super) cut: u64,
}

/// What is known while nothing is in flight.
pub(super) fn known(ledger: &Ledger) -> Known {
    let mut known = Known::default();
    for number in ledger.priced() {
        let flags = ledger.flags(number);
        known.seen += u64::from(flags.has(Ended::SEEN));
        known.cut += u64::from(flags.has(Ended::LEFT) && !flags.has(Ended::SEEN));
    }
    known
}

/// Holds a bill against what is known, and against the cap, calls. Returns what is wrong: the check, and a sentence.
pub(super) fn compare(bill: Bill, known: Known, cap: u64) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    let Bill { charged, reserved, micro, .. } = bill;
    if charged < known.seen {
        wrong.push((LOST, format!("{charged} calls were charged, and upstreams have seen {}", known.seen)));
    }
    if charged > known.seen + known.cut || reserved > 0 || micro != charged * PRICE {
        let Known { seen, cut } = known;
        let what = format!(
            "{charged} calls were charged {micro} micro-dollars, {reserved} are reserved; upstreams have seen {seen}, {cut} more were cut off"
        );
        wrong.push((EXTRA, what));
    }
    if micro > cap * PRICE {
        wrong.push((CAP, format!("{micro} micro-dollars were spent, and the cap is {}", cap * PRICE)));
    }
    wrong
}

/// Which upstreams have prices, for the ledger.
pub(super) fn priced_upstreams(upstreams: &[Upstream]) -> Vec<usize> {
    let is_priced = |name: &str| PRICED.iter().any(|(priced, _)| *priced == name);
    upstreams.iter().enumerate().filter(|(_, upstream)| is_priced(upstream.name)).map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_is_right_between_what_was_seen_and_what_may_have_been_reserved() {
        let checks = |charged: u64, reserved, micro| {
            let bill = Bill { charged, unsettled: 0, reserved, micro };
            compare(bill, Known { seen: 10, cut: 2 }, 11).into_iter().map(|(check, _)| check).collect::<Vec<_>>()
        };
        assert_eq!(checks(10, 0, 10 * PRICE), Vec::<&str>::new());
        assert_eq!(checks(11, 0, 11 * PRICE), Vec::<&str>::new());
        assert_eq!(checks(9, 0, 9 * PRICE), [LOST]);
        assert_eq!(checks(12, 0, 12 * PRICE), [CAP]);
        assert_eq!(checks(13, 0, 13 * PRICE), [EXTRA, CAP]);
        assert_eq!(checks(10, 1, 10 * PRICE), [EXTRA]);
        assert_eq!(checks(10, 0, 10 * PRICE + 1), [EXTRA]);
    }

    #[test]
    fn amounts_are_read_to_the_micro_dollar() {
        for (text, expected) in [
            ("0", Some(0)),
            ("12.5", Some(12_500_000)),
            ("0.000001", Some(1)),
            ("1.0000001", None),
            ("1.-1", None),
            ("", None),
        ] {
            assert_eq!(micro(text), expected, "{text}");
        }
        assert_eq!(usd(1_000), "0.001000");
    }
}
