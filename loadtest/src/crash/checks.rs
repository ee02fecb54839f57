//! What must hold after all kills: named checks over what was seen, each of which can fail.

use std::time::Duration;

use super::super::faults::checks::Check;
use super::super::faults::ledger::Violation;
use super::money::{self, Bill, Known};
use super::{book, operator};

/// Everything that the checks look at.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Kills while it started, under load, and when nothing happened; and how many there were to be.
    pub(super) kills: [u64; 3],
    pub(super) kills_wanted: u64,
    /// From each start to its readiness.
    pub(super) starts: Vec<Duration>,
    pub(super) calls: u64,
    pub(super) open_calls: usize,
    /// Calls that had their right answer; of these without a line: those that were answered too shortly before the kill, those whose writer had no
    /// core, those behind a disk that was slower than is promised for, and the others.
    pub(super) answered: u64,
    pub(super) too_young: u64,
    pub(super) starved: u64,
    pub(super) slow_disk: u64,
    pub(super) unrecorded: Vec<u64>,
    /// The longest that one without a line was answered before its kill, and the limit.
    pub(super) longest_without: Duration,
    pub(super) lag_ms: u128,
    /// Tokens, acknowledged changes of them, and those that were not answered.
    pub(super) tokens: usize,
    pub(super) changes: u64,
    pub(super) unanswered: u64,
    pub(super) unrecorded_changes: Vec<String>,
    /// Tokens that were shown to the gateway: ended ones, and valid ones.
    pub(super) shown: [u64; 2],
    /// The last bill, and what was known of calls with a price then; the cap, and how many were refused for it.
    pub(super) bill: Bill,
    pub(super) known: Known,
    pub(super) cap: u64,
    pub(super) capped: u64,
    /// The trail, read without the gateway's code.
    pub(super) lines: u64,
    pub(super) records: u64,
    pub(super) trail_faults: Vec<String>,
    /// How often `ringwall audit verify` was run, and what it said when it was not content.
    pub(super) verified: u64,
    pub(super) not_verified: Vec<String>,
    pub(super) complaints: Vec<String>,
    pub(super) exit: Option<i32>,
    pub(super) violations: Vec<Violation>,
    pub(super) more_violations: u64,
}

/// All checks.
pub(super) fn all(seen: &Seen) -> Vec<Check> {
    let mut checks = vec![kills(seen)];
    let told =
        format!("{} tokens, {} acknowledged changes, {} not answered", seen.tokens, seen.changes, seen.unanswered);
    let [ended, valid] = seen.shown;
    checks.push(noticed(seen, "no wrong answer", &format!("{} calls", seen.calls), seen.calls > 0));
    checks.push(noticed(seen, "no call is made twice", "", true));
    let ended_calls = format!("{} without an end", seen.open_calls);
    checks.push(noticed(seen, "every call has ended", &ended_calls, seen.open_calls == 0));
    checks.push(noticed(seen, operator::SERVED, &told, seen.changes > 0));
    checks.push(noticed(seen, book::KEPT, &format!("shown to the gateway: {valid}"), valid > 0));
    checks.push(noticed(seen, book::ENDED, &format!("shown to the gateway: {ended}"), ended > 0));
    checks.push(noticed(seen, book::NOWHERE, "", true));
    let Bill { charged, unsettled, .. } = seen.bill;
    let charged = format!("{charged} calls charged, {unsettled} of them unsettled");
    let known = format!("{} seen by upstreams, {} more cut off", seen.known.seen, seen.known.cut);
    checks.push(noticed(seen, money::LOST, &charged, seen.known.seen > 0));
    checks.push(noticed(seen, money::EXTRA, &known, true));
    let capped = format!("{} calls, {} refused for it", seen.cap, seen.capped);
    checks.push(noticed(seen, money::CAP, &capped, true));
    checks.extend([changes(seen), calls(seen), trail(seen), verified(seen), starts(seen)]);
    checks.push(Check {
        name: "no error in its log",
        passed: seen.complaints.is_empty(),
        found: first(&seen.complaints),
    });
    // What has another name is no less a violation.
    let others: Vec<_> =
        seen.violations.iter().filter(|one| !checks.iter().any(|check| check.name == one.check)).collect();
    if !others.is_empty() || seen.more_violations > 0 {
        let found = format!("{others:?}, {} more violations of all kinds", seen.more_violations);
        checks.push(Check { name: "nothing else", passed: false, found });
    }
    checks
}

/// A check whose violations are noted on the way; `holds` is what must be so beside.
fn noticed(seen: &Seen, name: &'static str, found: &str, holds: bool) -> Check {
    let of: Vec<_> = seen.violations.iter().filter(|one| one.check == name).map(|one| one.what.clone()).collect();
    let parts = [found.to_owned(), if of.is_empty() { String::new() } else { first(&of) }];
    let found = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
    Check { name, passed: of.is_empty() && holds, found }
}

fn kills(seen: &Seen) -> Check {
    let [starting, loaded, idle] = seen.kills;
    let found = format!("{starting} while it started, {loaded} under load, {idle} when nothing happened");
    let passed = starting + loaded + idle == seen.kills_wanted && seen.kills_wanted > 0;
    Check { name: "it was killed as often as wanted", passed, found }
}

fn changes(seen: &Seen) -> Check {
    let missing = &seen.unrecorded_changes;
    let found = format!("{} acknowledged, {} without a line; {}", seen.changes, missing.len(), first(missing));
    Check { name: "every acknowledged change has its line", passed: missing.is_empty() && seen.changes > 0, found }
}

fn calls(seen: &Seen) -> Check {
    let found = format!(
        "{} answered; without a line: {} older than {} ms at the kill, {} younger, {} while there was no core, {} while the disk was slow; the oldest {} ms",
        seen.answered,
        seen.unrecorded.len(),
        seen.lag_ms,
        seen.too_young,
        seen.starved,
        seen.slow_disk,
        seen.longest_without.as_millis()
    );
    let passed = seen.unrecorded.is_empty() && seen.answered > seen.too_young + seen.starved + seen.slow_disk;
    Check { name: "every answered call has its line", passed, found }
}

fn trail(seen: &Seen) -> Check {
    let found = format!("{} lines, {} of calls; {}", seen.lines, seen.records, first(&seen.trail_faults));
    let passed = seen.trail_faults.is_empty() && seen.lines > 0;
    Check { name: "the trail is whole and its chain verifies", passed, found }
}

fn verified(seen: &Seen) -> Check {
    let found = format!("{} times; {}", seen.verified, first(&seen.not_verified));
    Check { name: "ringwall audit verify is content", passed: seen.not_verified.is_empty() && seen.verified > 0, found }
}

fn starts(seen: &Seen) -> Check {
    let mut starts = seen.starts.clone();
    starts.sort_unstable();
    let ms = |at: usize| starts.get(at).map_or(0, Duration::as_millis);
    let (half, last) = (ms(starts.len() / 2), ms(starts.len().saturating_sub(1)));
    let found =
        format!("{} starts to readiness: median {half} ms, longest {last} ms; exit {:?}", starts.len(), seen.exit);
    Check { name: "ready after each start, and drains on SIGTERM", passed: seen.exit == Some(0), found }
}

/// The first of several, and how many there are.
fn first(all: &[String]) -> String {
    match all {
        [] => "nothing wrong".to_owned(),
        [one] => one.clone(),
        [one, ..] => format!("{one}; {} of them", all.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean() -> Seen {
        Seen {
            kills: [1, 2, 1],
            kills_wanted: 4,
            starts: vec![Duration::from_millis(20); 4],
            calls: 100,
            answered: 90,
            too_young: 3,
            tokens: 5,
            changes: 7,
            shown: [2, 3],
            known: Known { seen: 9, cut: 1 },
            lines: 120,
            records: 95,
            verified: 4,
            exit: Some(0),
            ..Seen::default()
        }
    }

    fn failed(seen: &Seen) -> Vec<&'static str> {
        all(seen).into_iter().filter(|check| !check.passed).map(|check| check.name).collect()
    }

    #[test]
    fn a_clean_run_passes_and_each_violation_fails_its_check_and_no_other() {
        assert_eq!(failed(&clean()), Vec::<&str>::new());
        type Harm = fn(&mut Seen);
        let harms: [(&str, Harm); 17] = [
            (money::LOST, |seen| seen.known.seen = 0),
            ("it was killed as often as wanted", |seen| seen.kills[0] = 0),
            ("no wrong answer", |seen| seen.calls = 0),
            ("every call has ended", |seen| seen.open_calls = 1),
            (book::KEPT, |seen| seen.shown[1] = 0),
            (book::ENDED, |seen| seen.shown[0] = 0),
            ("every acknowledged change has its line", |seen| seen.unrecorded_changes.push("x".to_owned())),
            ("every answered call has its line", |seen| seen.unrecorded.push(7)),
            ("every answered call has its line", |seen| seen.answered = 3),
            ("the trail is whole and its chain verifies", |seen| seen.trail_faults.push("x".to_owned())),
            ("the trail is whole and its chain verifies", |seen| seen.lines = 0),
            ("ringwall audit verify is content", |seen| seen.not_verified.push("x".to_owned())),
            ("ringwall audit verify is content", |seen| seen.verified = 0),
            ("ready after each start, and drains on SIGTERM", |seen| seen.exit = Some(1)),
            ("ready after each start, and drains on SIGTERM", |seen| seen.exit = None),
            ("no error in its log", |seen| seen.complaints.push("x".to_owned())),
            ("nothing else", |seen| seen.more_violations = 1),
        ];
        for (name, harm) in harms {
            let mut seen = clean();
            harm(&mut seen);
            assert_eq!(failed(&seen), [name]);
        }
        for check in [
            money::LOST,
            money::EXTRA,
            money::CAP,
            "no wrong answer",
            "no call is made twice",
            book::KEPT,
            book::ENDED,
            book::NOWHERE,
            operator::SERVED,
        ] {
            let violations = vec![Violation { check, what: "x".to_owned() }];
            assert_eq!(failed(&Seen { violations, ..clean() }), [check]);
        }
        let violations = vec![Violation { check: "a new one", what: "x".to_owned() }];
        assert_eq!(failed(&Seen { violations, ..clean() }), ["nothing else"]);
    }
}
