//! What must hold at the end of a run: named checks over what was seen, each of which can fail.

use super::ledger::Violation;

/// Everything that the checks look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// What was noticed on the way, and how much more there was.
    pub(crate) violations: Vec<Violation>,
    pub(crate) more_violations: u64,
    /// Calls that were made, and those that had no end when all clients had gone.
    pub(crate) calls: u64,
    pub(crate) open_calls: usize,
    /// Resident bytes after the warm-up and at the end, both after a quiet time, and what is allowed beside 5 %.
    pub(crate) resident: (u64, u64),
    pub(crate) slack: u64,
    /// Descriptors before the first call and at the end.
    pub(crate) descriptors: (usize, usize),
    /// What there is more of than at the beginning.
    pub(crate) more_open: Vec<String>,
    /// Connections in the table, by the gauges of the doors, and calls in flight, when everyone had gone.
    pub(crate) listed: Option<usize>,
    pub(crate) open_gauge: Option<u64>,
    pub(crate) in_flight_gauge: Option<u64>,
    /// Connections that one address could open at the end, and may.
    pub(crate) places: (usize, usize),
    /// A name, the most that was seen, the limit.
    pub(crate) limits: Vec<(String, usize, usize)>,
    /// The trail: lines, records of calls, faults; calls without a record, and events that the gateway says it had no room for.
    pub(crate) lines: u64,
    pub(crate) records: u64,
    pub(crate) trail_faults: Vec<String>,
    pub(crate) unrecorded: Vec<u64>,
    pub(crate) refused_events: u64,
    /// Answers whose lines were looked for, those that were later than the limit, the longest and the limit, milliseconds.
    pub(crate) samples: u64,
    pub(crate) late_lines: u64,
    pub(crate) longest_lag_ms: u128,
    pub(crate) lag_limit_ms: u128,
    /// Whether the disk was made to refuse: lines are late then by design.
    pub(crate) disk_was_full: bool,
    /// The longest that the harness itself did not get to run, and may, milliseconds: who is late then is not the gateway.
    pub(crate) pause_ms: u128,
    pub(crate) pause_limit_ms: u128,
    /// Answers that were late while harness or gateway waited for a core.
    pub(crate) starved: u64,
    pub(crate) was_alive: bool,
    pub(crate) exit: Option<i32>,
    /// Errors of the gateway's log, and the texts that are expected.
    pub(crate) complaints: Vec<String>,
    pub(crate) expected: Vec<&'static str>,
}

/// How one check came out.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) passed: bool,
    pub(crate) found: String,
}

/// Names that a violation may carry.
const NOTICED: [&str; 3] = ["no wrong answer", "no call is made twice", "every call has ended"];

/// All checks.
pub(crate) fn all(seen: &Seen) -> Vec<Check> {
    let mut checks: Vec<Check> = NOTICED.into_iter().map(|name| noticed(seen, name)).collect();
    if let Some(ended) = checks.iter_mut().find(|check| check.name == "every call has ended") {
        ended.passed &= seen.open_calls == 0;
        ended.found = format!("{} calls, {} without an end; {}", seen.calls, seen.open_calls, ended.found);
    }
    checks.extend([
        memory(seen),
        descriptors(seen),
        counts(seen),
        caps(seen),
        trail(seen),
        records(seen),
        lag(seen),
        exit(seen),
    ]);
    checks.extend([log(seen), pauses(seen)]);
    // What has another name is no less a violation.
    let others: Vec<_> =
        seen.violations.iter().filter(|one| !checks.iter().any(|check| check.name == one.check)).collect();
    if !others.is_empty() || seen.more_violations > 0 {
        let found = format!("{others:?}, {} more violations of all kinds", seen.more_violations);
        checks.push(Check { name: "nothing else", passed: false, found });
    }
    checks
}

/// The violations that carry a check's name.
fn of<'a>(seen: &'a Seen, name: &str) -> Vec<&'a str> {
    seen.violations.iter().filter(|one| one.check == name).map(|one| one.what.as_str()).collect()
}

fn check(seen: &Seen, name: &'static str, holds: bool, found: String) -> Check {
    let noticed = of(seen, name);
    let found = if noticed.is_empty() {
        found
    } else {
        // All that are kept: the first few alone have hidden what the others had in common.
        format!("{found}; {}", noticed.join("; "))
    };
    Check { name, passed: holds && noticed.is_empty(), found }
}

fn noticed(seen: &Seen, name: &'static str) -> Check {
    check(seen, name, true, format!("{} violations", of(seen, name).len()))
}

fn memory(seen: &Seen) -> Check {
    let (before, after) = seen.resident;
    let limit = before + before / 20 + seen.slack;
    let found =
        format!("{} KiB after warm-up, {} KiB at the end, {} KiB allowed", before / 1024, after / 1024, limit / 1024);
    check(seen, "no leak", before > 0 && after <= limit, found)
}

fn descriptors(seen: &Seen) -> Check {
    let (before, after) = seen.descriptors;
    let found = format!("{before} before the first call, {after} at the end; more of {:?}", seen.more_open);
    check(seen, "descriptors are back", before > 0 && after <= before, found)
}

fn counts(seen: &Seen) -> Check {
    let (places, of) = seen.places;
    let holds = seen.listed == Some(0) && seen.open_gauge == Some(0) && seen.in_flight_gauge == Some(0) && places == of;
    let found = format!(
        "listed {:?}, open {:?}, in flight {:?}; one address gets {places} of {of} places",
        seen.listed, seen.open_gauge, seen.in_flight_gauge
    );
    check(seen, "counts are back to 0", holds && of > 0, found)
}

fn caps(seen: &Seen) -> Check {
    let holds = !seen.limits.is_empty() && seen.limits.iter().all(|(_, most, limit)| most <= limit);
    let found = seen.limits.iter().map(|(name, most, limit)| format!("{name} {most} of {limit}"));
    check(seen, "no cap exceeded", holds, found.collect::<Vec<_>>().join(", "))
}

fn trail(seen: &Seen) -> Check {
    let holds = seen.lines > 0 && seen.trail_faults.is_empty();
    let found = format!("{} lines; {}", seen.lines, seen.trail_faults.join("; "));
    check(seen, "the trail is whole and its chain verifies", holds, found)
}

/// Where there was no room, the gateway has counted what is missing, to the line.
fn records(seen: &Seen) -> Check {
    let missing = seen.unrecorded.len() as u64;
    let holds = seen.records > 0 && missing <= seen.refused_events;
    let shown: Vec<_> = seen.unrecorded.iter().take(8).collect();
    let found = format!(
        "{} records, {missing} missing {shown:?}, {} refused by its own count",
        seen.records, seen.refused_events
    );
    check(seen, "no lost audit line", holds, found)
}

fn lag(seen: &Seen) -> Check {
    let found = format!(
        "{} samples, {} later than {} ms, the latest {} ms",
        seen.samples, seen.late_lines, seen.lag_limit_ms, seen.longest_lag_ms
    );
    if seen.disk_was_full {
        return check(
            seen,
            "lines are on disk in time",
            seen.samples > 0,
            format!("{found}; not asked of a full disk"),
        );
    }
    check(seen, "lines are on disk in time", seen.samples > 0 && seen.late_lines == 0, found)
}

fn exit(seen: &Seen) -> Check {
    let found = format!("alive at the end: {}, exit code {:?}", seen.was_alive, seen.exit);
    check(seen, "alive, and drains on SIGTERM", seen.was_alive && seen.exit == Some(0), found)
}

fn log(seen: &Seen) -> Check {
    let unexpected: Vec<_> =
        seen.complaints.iter().filter(|line| !seen.expected.iter().any(|text| line.contains(text))).collect();
    let found = format!("{} lines, unexpected: {unexpected:?}", seen.complaints.len());
    check(seen, "no error in its log", unexpected.is_empty(), found)
}

fn pauses(seen: &Seen) -> Check {
    let found = format!(
        "the longest pause was {} ms of {}; {} answers late for want of a core",
        seen.pause_ms, seen.pause_limit_ms, seen.starved
    );
    // One in a thousand is borne with: more of them, and nothing is shown by this run.
    let holds = seen.pause_ms <= seen.pause_limit_ms && seen.starved * 1000 <= seen.calls;
    check(seen, "the harness has kept up", holds, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean() -> Seen {
        Seen {
            calls: 100,
            resident: (100_000, 104_000),
            slack: 1_000,
            descriptors: (20, 20),
            listed: Some(0),
            open_gauge: Some(0),
            in_flight_gauge: Some(0),
            places: (40, 40),
            limits: vec![("calls".to_owned(), 48, 48)],
            lines: 200,
            records: 100,
            samples: 10,
            longest_lag_ms: 30,
            lag_limit_ms: 100,
            was_alive: true,
            exit: Some(0),
            ..Seen::default()
        }
    }

    fn failed(seen: &Seen) -> Vec<&'static str> {
        all(seen).into_iter().filter(|check| !check.passed).map(|check| check.name).collect()
    }

    #[test]
    fn a_clean_run_passes() {
        assert_eq!(failed(&clean()), Vec::<&str>::new());
    }

    #[test]
    fn each_violation_fails_its_check_and_no_other() {
        let violation = |check| vec![Violation { check, what: "x".to_owned() }];
        type Harm = fn(&mut Seen);
        let harms: [(&str, Harm); 26] = [
            ("every call has ended", |seen| seen.open_calls = 1),
            ("no leak", |seen| seen.resident.1 = 106_001),
            ("no leak", |seen| seen.resident = (0, 0)),
            ("descriptors are back", |seen| seen.descriptors.1 = 21),
            ("counts are back to 0", |seen| seen.listed = Some(1)),
            ("counts are back to 0", |seen| seen.listed = None),
            ("counts are back to 0", |seen| seen.open_gauge = Some(1)),
            ("counts are back to 0", |seen| seen.in_flight_gauge = Some(1)),
            ("counts are back to 0", |seen| seen.in_flight_gauge = None),
            ("counts are back to 0", |seen| seen.places.0 = 39),
            ("counts are back to 0", |seen| seen.places.0 = 41),
            ("no cap exceeded", |seen| seen.limits.push(("door".to_owned(), 2, 1))),
            ("no cap exceeded", |seen| seen.limits.clear()),
            ("the trail is whole and its chain verifies", |seen| seen.trail_faults.push("x".to_owned())),
            ("the trail is whole and its chain verifies", |seen| seen.lines = 0),
            ("no lost audit line", |seen| seen.unrecorded.push(7)),
            ("no lost audit line", |seen| seen.records = 0),
            ("lines are on disk in time", |seen| seen.late_lines = 1),
            ("lines are on disk in time", |seen| seen.samples = 0),
            ("alive, and drains on SIGTERM", |seen| seen.was_alive = false),
            ("alive, and drains on SIGTERM", |seen| seen.exit = Some(1)),
            ("alive, and drains on SIGTERM", |seen| seen.exit = None),
            ("no error in its log", |seen| seen.complaints.push("panicked".to_owned())),
            ("the harness has kept up", |seen| seen.pause_ms = 1),
            ("the harness has kept up", |seen| seen.starved = 1),
            ("nothing else", |seen| seen.more_violations = 1),
        ];
        for (name, harm) in harms {
            let mut seen = clean();
            harm(&mut seen);
            assert_eq!(failed(&seen), [name]);
        }
        for name in NOTICED.into_iter().chain(["no leak", "no cap exceeded"]) {
            assert_eq!(failed(&Seen { violations: violation(name), ..clean() }), [name]);
        }
        assert_eq!(failed(&Seen { violations: violation("a new one"), ..clean() }), ["nothing else"]);
    }

    #[test]
    fn what_is_expected_and_counted_is_no_violation() {
        let mut seen = Seen { unrecorded: vec![1, 2], refused_events: 2, ..clean() };
        seen.complaints = vec!["the audit log cannot be written".to_owned()];
        seen.expected = vec!["the audit log cannot be written"];
        assert_eq!(failed(&seen), Vec::<&str>::new());
        seen.refused_events = 1;
        assert_eq!(failed(&seen), ["no lost audit line"]);
        let seen = Seen { late_lines: 5, disk_was_full: true, ..clean() };
        assert_eq!(failed(&seen), Vec::<&str>::new());
    }
}
