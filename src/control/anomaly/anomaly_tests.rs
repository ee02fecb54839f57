#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::facts::{MAX_KEYS, Mailbox, Tee};
use super::*;
use crate::control::alerts::AlertKind::{ActivitySpike, FailedAuthentications, TokenBurst};
use crate::state::events::{Event, EventKind, clip};
use std::sync::Arc;

/// A whole minute of the clock, some time after the epoch.
const START: u64 = 30_000_000 * ACTION_WINDOW_MS;
const MINUTE: u64 = ACTION_WINDOW_MS;

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

/// A detector that is told events one by one, as the writer would.
struct Rig {
    detector: Detector,
    facts: Facts,
}

impl Rig {
    /// Begins in the middle of the minute before [`START`].
    fn new() -> Self {
        Self { detector: Detector::new(START - MINUTE / 2), facts: Facts::default() }
    }

    fn calls(&mut self, agent: &str, at_ms: u64, count: u64) {
        (0..count).for_each(|_| self.facts.see(&Event::new(EventKind::ToolCall, at_ms).with_agent(agent)));
    }

    fn failure(&mut self, from: IpAddr, at_ms: u64) {
        self.facts.see(&Event::new(EventKind::InvalidAuth, at_ms).with_ip(from));
    }

    fn token(&mut self, agent: &str, at_ms: u64) {
        self.facts.see(&Event::new(EventKind::TokenIssued, at_ms).with_agent(agent));
    }

    fn tick(&mut self, now_ms: u64) -> Vec<(AlertKind, Subject)> {
        self.detector.absorb(std::mem::take(&mut self.facts));
        self.detector.tick(now_ms).into_iter().map(|alert| (alert.kind, alert.subject)).collect()
    }

    /// Calls by minute from [`START`] on, each minute looked at when it is over. In which minutes there was an alert.
    fn minutes(&mut self, calls: &[u64]) -> Vec<usize> {
        let mut alerts = Vec::new();
        for (n, count) in calls.iter().enumerate() {
            let at_ms = START + n as u64 * MINUTE;
            self.calls("a", at_ms + 5, *count);
            let found = self.tick(at_ms + MINUTE + SETTLED_MS);
            assert!(found.iter().all(|one| *one == (ActivitySpike, Subject::Agent("a".to_owned()))), "{found:?}");
            assert!(found.len() <= 1);
            alerts.extend(found.iter().map(|_| n));
        }
        alerts
    }
}

#[test]
fn actions_over_three_times_those_of_the_minute_before() {
    let cases: &[(&[u64], &[usize], &str)] = &[
        (&[20, 60], &[], "three times is not over three times"),
        (&[20, 61], &[1], "one more is"),
        (&[1, 4], &[], "few are no anomaly"),
        (&[0, 30], &[], "a quiet minute counts as ten"),
        (&[0, 31], &[1], "over three times ten"),
        (&[9, 30], &[], "nine count as ten"),
        (&[11, 33], &[], "eleven count as eleven"),
        (&[11, 34], &[1], "over three times eleven"),
        (&[100, 100, 100], &[], "steady"),
        (&[1000, 10], &[], "less"),
    ];
    for (calls, alerts, what) in cases {
        assert_eq!(Rig::new().minutes(calls), *alerts, "{what}: {calls:?}");
    }
}

#[test]
fn one_alert_as_long_as_it_goes_on_and_another_after_one_quiet_window() {
    // Grows on: one case.
    assert_eq!(Rig::new().minutes(&[10, 40, 160, 640]), [1]);
    // Stays, which ends the case; then grows again.
    assert_eq!(Rig::new().minutes(&[10, 40, 40, 160]), [1, 3]);
    assert_eq!(Rig::new().minutes(&[10, 40, 0, 40]), [1, 3]);
}

#[test]
fn a_minute_that_was_not_watched_from_its_beginning_is_compared_with_nothing() {
    let mut rig = Rig::new();
    rig.calls("a", START - 5, 10);
    rig.calls("a", START + 5, 500);
    assert_eq!(rig.tick(START + MINUTE + SETTLED_MS), []);
    rig.calls("a", START + MINUTE, 1501);
    assert_eq!(rig.tick(START + 2 * MINUTE + SETTLED_MS), [(ActivitySpike, Subject::Agent("a".to_owned()))]);
}

#[test]
fn a_minute_is_looked_at_once_it_is_over_and_settled() {
    let mut rig = Rig::new();
    rig.calls("a", START, 10);
    rig.calls("a", START + MINUTE, 100);
    assert_eq!(rig.tick(START + 2 * MINUTE + SETTLED_MS - 1), []);
    // The last of it came late.
    rig.calls("a", START + 2 * MINUTE - 1, 1);
    assert_eq!(rig.tick(START + 2 * MINUTE + SETTLED_MS).len(), 1);
    assert_eq!(rig.tick(START + 2 * MINUTE + SETTLED_MS).len(), 0, "not again at the same time");
}

#[test]
fn agents_are_apart_and_calls_without_an_agent_are_nobodys() {
    let mut rig = Rig::new();
    rig.calls("a", START + MINUTE, 31);
    rig.calls("b", START + MINUTE, 30);
    rig.facts.see(&Event::new(EventKind::ToolCall, START + MINUTE));
    assert_eq!(rig.tick(START + 2 * MINUTE + SETTLED_MS), [(ActivitySpike, Subject::Agent("a".to_owned()))]);
    assert_eq!(rig.detector.open_cases(), 1);
    rig.tick(START + 4 * MINUTE + SETTLED_MS);
    assert_eq!(rig.detector.actions.len(), 0, "who is quiet is forgotten");
    assert_eq!(rig.detector.open_cases(), 0);
}

#[test]
fn a_process_that_slept_looks_at_what_it_knows_and_no_further() {
    let mut rig = Rig::new();
    rig.calls("a", START + 1000 * MINUTE, 31);
    assert_eq!(rig.tick(START + 1001 * MINUTE + SETTLED_MS).len(), 1);
}

#[test]
fn over_ten_failures_in_five_minutes() {
    let window = FAILURE_WINDOW_MS;
    // (times, alert)
    let spread = |count: u64, last: u64| (0..count).map(|n| START + n * last / (count - 1)).collect::<Vec<_>>();
    for (times, alerts, what) in [
        (spread(10, 1000), false, "ten are not over ten"),
        (spread(11, 1000), true, "eleven are"),
        (spread(11, window - 1), true, "just within five minutes"),
        (spread(11, window), false, "just not within five minutes"),
    ] {
        let mut rig = Rig::new();
        times.iter().for_each(|at| rig.failure(ip(1), *at));
        let found = rig.tick(*times.last().unwrap());
        let want: &[_] = if alerts { &[(FailedAuthentications, Subject::Address(ip(1)))] } else { &[] };
        assert_eq!(found, want, "{what}");
    }
}

#[test]
fn what_was_over_before_the_next_look_is_found_all_the_same() {
    let mut rig = Rig::new();
    (0..11).for_each(|n| rig.failure(ip(1), START + n));
    assert_eq!(rig.tick(START + 2 * FAILURE_WINDOW_MS).len(), 1);
}

#[test]
fn failures_are_counted_over_hand_overs_and_out_of_order() {
    let mut rig = Rig::new();
    for n in [3, 1, 2, 0, 5, 4, 6] {
        rig.failure(ip(1), START + n * 1000);
        assert_eq!(rig.tick(START + 7000), []);
    }
    for n in 7..11 {
        rig.failure(ip(1), START + n * 1000);
    }
    assert_eq!(rig.tick(START + 11_000).len(), 1);
}

#[test]
fn one_alert_a_case_of_failures_until_five_quiet_minutes_have_passed() {
    let mut rig = Rig::new();
    let mut alerts = Vec::new();
    // A guess each second for ten minutes; then none for a while; then again.
    for second in 0..3600 {
        let at_ms = START + second * 1000;
        if !(600..2400).contains(&second) {
            rig.failure(ip(1), at_ms);
        }
        if second % 60 == 59 {
            alerts.extend(rig.tick(at_ms).iter().map(|_| second / 60));
        }
    }
    assert_eq!(alerts, [0, 40]);
    let mut rig = Rig::new();
    (0..11).for_each(|n| rig.failure(ip(1), START + n));
    assert_eq!(rig.tick(START + 100).len(), 1);
    (0..11).for_each(|n| rig.failure(ip(1), START + FAILURE_WINDOW_MS + n));
    assert_eq!(rig.tick(START + FAILURE_WINDOW_MS + 50).len(), 0, "the same case");
    assert_eq!(rig.tick(START + 2 * FAILURE_WINDOW_MS + 50), [], "five minutes without: it has ended");
    (0..11).for_each(|n| rig.failure(ip(1), START + 2 * FAILURE_WINDOW_MS + 60 + n));
    assert_eq!(rig.tick(START + 2 * FAILURE_WINDOW_MS + 80).len(), 1);
}

#[test]
fn addresses_are_apart_and_an_ipv6_client_is_its_network() {
    let mut rig = Rig::new();
    (0..22).for_each(|n| rig.failure(ip((n % 3) as u8), START + n));
    assert_eq!(rig.tick(START + 100), [], "eight each");
    for n in 0..11u16 {
        rig.failure(IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, n]), START + 100);
    }
    rig.failure("::ffff:192.0.2.1".parse().unwrap(), START + 100);
    let network = "2001:db8:0:7::".parse().unwrap();
    assert_eq!(rig.tick(START + 200), [(FailedAuthentications, Subject::Address(network))]);
    assert!(!rig.detector.failures.contains_key(&"::ffff:192.0.2.1".parse::<IpAddr>().unwrap()));
}

#[test]
fn over_three_tokens_for_one_agent_in_an_hour() {
    for (times, alerts, what) in [
        (vec![0, 1, 2], false, "three are not over three"),
        (vec![0, 1, 2, 3], true, "four are"),
        (vec![0, 1, 2, TOKEN_WINDOW_MS - 1], true, "just within the hour"),
        (vec![0, 1, 2, TOKEN_WINDOW_MS], false, "just not within the hour"),
    ] {
        let mut rig = Rig::new();
        times.iter().for_each(|at| rig.token("a", START + at));
        rig.token("b", START);
        let found = rig.tick(START + times.last().unwrap());
        let want: &[_] = if alerts { &[(TokenBurst, Subject::Agent("a".to_owned()))] } else { &[] };
        assert_eq!(found, want, "{what}");
    }
}

#[test]
fn one_alert_a_case_of_tokens() {
    let mut rig = Rig::new();
    let mut alerts = 0;
    for minute in 0..180 {
        rig.token("a", START + minute * MINUTE);
        alerts += rig.tick(START + minute * MINUTE).len();
    }
    assert_eq!(alerts, 1);
    // Quiet: the pattern stops being met within an hour, and the case ends an hour after that.
    for minute in 180..301 {
        assert_eq!(rig.tick(START + minute * MINUTE).len(), 0);
    }
    assert_eq!(rig.detector.open_cases(), 0);
    (0..4).for_each(|n| rig.token("a", START + 310 * MINUTE + n));
    assert_eq!(rig.tick(START + 310 * MINUTE + 10).len(), 1);
}

#[test]
fn a_flood_of_addresses_hides_nobody_who_has_begun_to_guess() {
    let mut rig = Rig::new();
    (0..10).for_each(|n| rig.failure(ip(1), START + n));
    rig.tick(START + 50);
    for round in 0..8u32 {
        for n in 0..MAX_KEYS as u32 {
            rig.failure(IpAddr::from((0x0a00_0000 + round * MAX_KEYS as u32 + n).to_be_bytes()), START + 60);
        }
        rig.tick(START + 70);
    }
    assert_eq!(rig.detector.failures.len(), MAX_WATCHED);
    assert_eq!(rig.detector.take_overflowed(), (8 * MAX_KEYS + 1 - MAX_WATCHED) as u64);
    rig.failure(ip(1), START + 80);
    assert_eq!(rig.tick(START + 90), [(FailedAuthentications, Subject::Address(ip(1)))]);
}

#[test]
fn what_finds_no_place_with_the_writer_is_counted() {
    let mut facts = Facts::default();
    for n in 0..MAX_KEYS + 7 {
        facts.see(&Event::new(EventKind::ToolCall, START).with_agent(&format!("agent-{n}")));
    }
    assert_eq!((facts.actions.len(), facts.overflowed), (MAX_KEYS, 7));
    // Who has a place goes on being counted.
    facts.see(&Event::new(EventKind::ToolCall, START).with_agent("agent-0"));
    assert_eq!(facts.actions[&(clip("agent-0"), START / MINUTE)], 2);
    assert_eq!(facts.overflowed, 7);
}

#[test]
fn nothing_is_lost_while_the_detector_does_not_look() {
    let mailbox = Arc::new(Mailbox::default());
    let mut tee = Tee::new(mailbox.clone());
    tee.hand_over();
    assert!(mailbox.take().is_none(), "nothing is no message");
    for n in 0..5 {
        tee.see(&Event::new(EventKind::ToolCall, START + n).with_agent("a"));
        tee.hand_over();
    }
    let first = mailbox.take().unwrap();
    tee.hand_over();
    let rest = mailbox.take().unwrap();
    let counts = [&first, &rest].map(|facts| facts.actions[&(clip("a"), START / MINUTE)]);
    assert_eq!(counts, [1, 4]);
}
