#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "dates of this century")]

use super::*;
use proptest::prelude::*;
use std::thread;

const CAPS: Caps = Caps { day: 100, month: 250 };

fn day(text: &str) -> Day {
    let date: jiff::civil::Date = text.parse().unwrap();
    let first = jiff::civil::date(1970, 1, 1);
    Day::from_days(u64::try_from((date - first).get_days()).unwrap())
}

#[test]
fn days_and_months_are_those_of_the_calendar() {
    let mut date = jiff::civil::date(2020, 1, 1);
    // Of the last month the next one is not known.
    for days in FIRST_DAY..FIRST_DAY + LAST_PERIOD - 62 {
        let day = Day::from_days(days);
        let expected = (date.year(), date.month(), date.day());
        let (year, month, of_month) = day.civil();
        assert_eq!((year as i16, month as i8, of_month as i8), expected);
        assert_eq!(day.first_of_month().civil(), (year, month, 1));
        let next = date.last_of_month().tomorrow().unwrap();
        assert_eq!(Day::of(day.next_month_ms()).civil(), (next.year() as u64, next.month() as u64, 1), "{date}");
        assert_eq!(Day::of(day.next_day_ms() - 1), day);
        date = date.tomorrow().unwrap();
    }
}

#[test]
fn a_charge_stays_within_both_caps() {
    let accounts = Accounts::default();
    let first = day("2026-11-29");
    let account = accounts.of("bot", first).unwrap();
    assert!(account.charge(60, CAPS, first).is_ok());
    let over = Over { span: Span::Day, taken: 60, cap: 100 };
    assert_eq!(account.charge(41, CAPS, first), Err(Refused::Over(over)));
    assert!(account.charge(40, CAPS, first).is_ok());
    let second = day("2026-11-30");
    assert!(account.charge(100, CAPS, second).is_ok());
    // The next month begins with the next day.
    let third = day("2026-12-01");
    assert_eq!(account.used(third), Used { day: 0, month: 0 });
    assert!(account.charge(100, CAPS, third).is_ok());
    assert_eq!(account.used(third), Used { day: 100, month: 100 });
}

#[test]
fn what_the_month_refuses_is_charged_nowhere() {
    let accounts = Accounts::default();
    let days = ["2026-11-01", "2026-11-02", "2026-11-03"].map(day);
    let account = accounts.of("bot", days[0]).unwrap();
    assert!(account.charge(100, CAPS, days[0]).is_ok());
    assert!(account.charge(100, CAPS, days[1]).is_ok());
    let over = Over { span: Span::Month, taken: 200, cap: 250 };
    assert_eq!(account.charge(51, CAPS, days[2]), Err(Refused::Over(over)));
    assert_eq!(account.used(days[2]), Used { day: 0, month: 200 });
    assert!(account.charge(50, CAPS, days[2]).is_ok());
}

#[test]
fn settling_puts_what_was_spent_in_the_place_of_what_was_reserved() {
    let accounts = Accounts::default();
    let today = day("2026-11-22");
    let account = accounts.of("bot", today).unwrap();
    for (reserved, spent) in [(30, 10), (30, 30), (10, 45)] {
        let before = account.used(today).day;
        let charge = account.charge(reserved, Caps { day: 1_000, month: 1_000 }, today).unwrap();
        account.settle(charge, spent);
        assert_eq!(account.used(today), Used { day: before + spent, month: before + spent });
    }
    // Midnight between the two: the day is over, the month is not.
    let charge = account.charge(5, CAPS, today).unwrap();
    let tomorrow = day("2026-11-23");
    account.charge(1, CAPS, tomorrow).unwrap();
    account.give_back(charge);
    assert_eq!(account.used(tomorrow), Used { day: 1, month: 86 });
}

#[test]
fn a_clock_that_goes_back_charges_the_later_period() {
    let accounts = Accounts::default();
    let (today, yesterday) = (day("2026-12-01"), day("2026-11-30"));
    let account = accounts.of("bot", yesterday).unwrap();
    account.charge(90, CAPS, today).unwrap();
    assert!(account.charge(11, CAPS, yesterday).is_err());
    let charge = account.charge(10, CAPS, yesterday).unwrap();
    assert_eq!(charge.day(), today, "the ledger counts it for the same day");
    assert_eq!(account.used(yesterday), Used { day: 100, month: 100 });
}

#[test]
fn a_cap_that_is_neared_is_told_once_a_period() {
    let accounts = Accounts::default();
    let today = day("2026-11-22");
    let account = accounts.of("bot", today).unwrap();
    account.charge(79, CAPS, today).unwrap();
    assert_eq!(account.nears(Span::Day, CAPS, today), None);
    account.charge(1, CAPS, today).unwrap();
    let near = Over { span: Span::Day, taken: 80, cap: 100 };
    assert_eq!(account.nears(Span::Day, CAPS, today), Some(near));
    assert_eq!(account.nears(Span::Day, CAPS, today), None);
    assert_eq!(account.nears(Span::Month, CAPS, today), None);
    account.untold(Span::Day);
    assert_eq!(account.nears(Span::Day, CAPS, today), Some(near));
    let tomorrow = day("2026-11-23");
    account.charge(100, CAPS, tomorrow).unwrap();
    assert_eq!(account.nears(Span::Day, CAPS, tomorrow).unwrap().taken, 100);
}

#[test]
fn what_was_spent_before_counts_for_its_day_and_month() {
    let accounts = Accounts::default();
    let now = day("2026-11-22");
    for (when, microusd) in [("2026-11-01", 7), ("2026-11-22", 20), ("2026-11-23", 3)] {
        accounts.add_past("bot", microusd, day(when), now);
    }
    assert_eq!(accounts.used("bot", now), Used { day: 23, month: 30 });
    assert_eq!(accounts.used("other", now), Used::default());
    assert_eq!(accounts.len(), 1, "looking makes none");
}

#[test]
fn accounts_of_a_month_that_is_over_are_taken_out_and_made_again() {
    let accounts = Accounts::default();
    let (november, december) = (day("2026-11-30"), day("2026-12-01"));
    let (old, charge) = accounts.charge("bot", 10, CAPS, november).unwrap();
    accounts.charge("busy", 10, CAPS, november).unwrap();
    accounts.charge("busy", 20, CAPS, december).unwrap();
    assert_eq!(accounts.retire(november), 0);
    assert_eq!(accounts.retire(december), 1);
    assert_eq!(accounts.len(), 1);
    assert_eq!(old.charge(1, CAPS, december), Err(Refused::Retired));
    old.give_back(charge);
    old.settle(charge, 99);
    accounts.charge("bot", 30, CAPS, december).unwrap();
    assert_eq!(accounts.used("bot", december), Used { day: 30, month: 30 });
    assert_eq!(accounts.used("busy", december), Used { day: 20, month: 20 });
}

#[test]
fn their_number_is_bounded() {
    let accounts = Accounts::default();
    let now = day("2026-11-22");
    let made = (0..SHARDS * MAX_PER_SHARD * 2).filter(|n| accounts.of(&format!("agent-{n}"), now).is_some()).count();
    assert!(made <= SHARDS * MAX_PER_SHARD);
    assert_eq!(accounts.len(), made);
    assert!(made > SHARDS * MAX_PER_SHARD * 9 / 10, "the hash spreads them: {made}");
}

/// All cores on one account: what was admitted is what the cap allows, exactly, and what is given back can be taken again.
#[test]
fn threads_never_exceed_a_cap_together() {
    const THREADS: usize = 4;
    let accounts = Accounts::default();
    let now = day("2026-11-22");
    let caps = Caps { day: 10_000, month: 30_000 };
    let admitted: u64 = thread::scope(|scope| {
        let run = |_| {
            scope.spawn(|| {
                let mut kept = 0;
                for n in 0..20_000u64 {
                    let price = n % 7 + 1;
                    let Ok((account, charge)) = accounts.charge("bot", price, caps, now) else { continue };
                    assert!(account.used(now).day <= caps.day);
                    match n % 3 {
                        0 => account.give_back(charge),
                        1 => {
                            account.settle(charge, price / 2);
                            kept += price / 2;
                        }
                        _ => kept += price,
                    }
                }
                kept
            })
        };
        (0..THREADS).map(run).collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(accounts.used("bot", now), Used { day: admitted, month: admitted });
    assert!(admitted > caps.day - 7 && admitted <= caps.day, "{admitted}");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Charge(u64),
    GiveBack(usize),
    Settle(usize, u64),
    NextDay(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u64..40).prop_map(Step::Charge),
        1 => any::<usize>().prop_map(Step::GiveBack),
        1 => (any::<usize>(), 0u64..60).prop_map(|(which, spent)| Step::Settle(which, spent)),
        1 => (0u64..20).prop_map(Step::NextDay),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Beside a plain list of charges with their days.
    #[test]
    fn an_account_agrees_with_a_list(steps in steps()) {
        let mut now = day("2026-10-28");
        let accounts = Accounts::default();
        let account = accounts.of("bot", now).unwrap();
        let mut list: Vec<(Day, u64)> = Vec::new();
        let mut open: Vec<(Charge, usize)> = Vec::new();
        for step in steps {
            let sum = |list: &[(Day, u64)], from: Day| list.iter().filter(|(on, _)| *on >= from).map(|(_, n)| n).sum::<u64>();
            let expected = Used { day: sum(&list, now), month: sum(&list, now.first_of_month()) };
            prop_assert_eq!(account.used(now), expected);
            match step {
                Step::Charge(n) => {
                    let fits = expected.day + n <= CAPS.day && expected.month + n <= CAPS.month;
                    let charged = account.charge(n, CAPS, now);
                    prop_assert_eq!(charged.is_ok(), fits);
                    if let Ok(charge) = charged {
                        open.push((charge, list.len()));
                        list.push((now, n));
                    }
                }
                Step::GiveBack(which) if !open.is_empty() => {
                    let (charge, at) = open.swap_remove(which % open.len());
                    account.give_back(charge);
                    list[at].1 = 0;
                }
                Step::Settle(which, spent) if !open.is_empty() => {
                    let (charge, at) = open.swap_remove(which % open.len());
                    account.settle(charge, spent);
                    list[at].1 = spent;
                }
                Step::NextDay(days) => now = Day::from_days(now.days() + days),
                _ => {}
            }
        }
    }
}
