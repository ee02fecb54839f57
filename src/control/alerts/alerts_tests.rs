#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::cell::Cell;

use super::*;
use crate::state::events::Bell;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(1_700_000_000_000) };
}

fn clock() -> u64 {
    NOW.get()
}

fn later(ms: u64) {
    NOW.set(NOW.get() + ms);
}

fn alerts(queue: usize) -> (Alerts, Outbox, Arc<EventQueue>, Arc<AlertMetrics>) {
    let events = Arc::new(EventQueue::with_capacity(queue, Arc::new(Bell::default())));
    let metrics = metrics();
    let (alerts, exits) = Alerts::new(Arc::clone(&events), Arc::clone(&metrics), clock);
    (alerts, exits.outbox, events, metrics)
}

fn about(kind: AlertKind, agent: &str) -> NewAlert {
    NewAlert { kind, subject: Subject::Agent(agent.to_owned()), details: "7 of them".to_owned() }
}

#[test]
fn an_alert_goes_everywhere_it_belongs() {
    let (alerts, mut outbox, events, metrics) = alerts(8);
    assert!(alerts.raise(about(AlertKind::RefreshReuse, "billing")));
    let event = events.pop().unwrap();
    assert_eq!((event.kind, event.severity, event.rule), (EventKind::Alert, Severity::High, "refresh-reuse"));
    assert_eq!(event.agent.as_str(), "billing");
    let counted: Vec<_> = metrics.kinds().filter(|(.., count)| *count > 0).collect();
    assert_eq!(counted, [("refresh-reuse", "HIGH", 1)]);
    let kept = alerts.recent();
    assert_eq!(kept.len(), 1);
    assert!(event.details.contains(&kept[0].id), "{}", event.details);
    assert!(Arc::ptr_eq(&outbox.alerts.try_recv().unwrap(), &kept[0]));
    assert_eq!(kept[0].delivery(), Delivery::Pending);
    let json = kept[0].json();
    assert_eq!((&json["kind"], &json["agent"]), (&"refresh-reuse".into(), &"billing".into()));
    assert_eq!(json["raisedAt"], "2023-11-14T22:13:20.000Z");
}

#[test]
fn the_webhook_gets_what_is_high_or_critical() {
    let (alerts, mut outbox, ..) = alerts(64);
    for kind in AlertKind::ALL {
        alerts.raise(about(*kind, "a"));
    }
    let sent: Vec<_> = std::iter::from_fn(|| outbox.alerts.try_recv().ok()).map(|alert| alert.new.kind).collect();
    let want = AlertKind::ALL.iter().copied().filter(|kind| kind.severity() >= Severity::High);
    assert_eq!(sent, want.collect::<Vec<_>>());
    assert_eq!(sent.len(), 5);
}

#[test]
fn the_same_again_within_its_quiet_time_is_counted_only() {
    let (alerts, _outbox, _, metrics) = alerts(64);
    let quiet_ms = AlertKind::RefreshReuse.quiet_ms();
    assert!(alerts.raise(about(AlertKind::RefreshReuse, "a")));
    later(quiet_ms - 1);
    assert!(!alerts.raise(about(AlertKind::RefreshReuse, "a")));
    assert!(alerts.raise(about(AlertKind::RefreshReuse, "b")), "another agent");
    assert!(alerts.raise(about(AlertKind::BruteForceLockout, "a")), "another kind");
    later(1);
    assert!(alerts.raise(about(AlertKind::RefreshReuse, "a")), "its time is over, counted from the one that was told");
    assert_eq!(metrics.repeated.get(), 1);
    // The detector sees to its own cases.
    assert!(alerts.raise(about(AlertKind::TokenBurst, "a")) && alerts.raise(about(AlertKind::TokenBurst, "a")));
}

#[test]
fn what_is_kept_is_bounded_and_the_newest_comes_first() {
    let (alerts, _outbox, _, metrics) = alerts(8);
    for n in 0..KEPT + 10 {
        alerts.raise(about(AlertKind::TokenBurst, &format!("agent-{n}")));
    }
    let kept = alerts.recent();
    assert_eq!(kept.len(), KEPT);
    assert_eq!(kept[0].new.subject, Subject::Agent(format!("agent-{}", KEPT + 9)));
    assert!(kept.iter().zip(kept.iter().skip(1)).all(|(newer, older)| newer.id > older.id), "ids grow");
    assert!(metrics.kinds().any(|kind| kind == ("token-burst", "MEDIUM", (KEPT + 10) as u64)));
}

#[test]
fn what_the_webhook_cannot_take_is_counted() {
    let (alerts, _outbox, _, metrics) = alerts(8);
    for n in 0..OUTBOX + 3 {
        assert!(alerts.raise(about(AlertKind::RefreshReuse, &format!("agent-{n}"))));
    }
    assert_eq!(metrics.undelivered.get(), 3);
    let given_up = alerts.recent().iter().filter(|alert| alert.delivery() == Delivery::GivenUp).count();
    assert_eq!(given_up, 3);
}

#[test]
fn without_a_webhook_nothing_is_pending() {
    let (alerts, outbox, _, metrics) = alerts(8);
    assert!(alerts.raise(about(AlertKind::RefreshReuse, "before")));
    outbox.close();
    assert!(alerts.raise(about(AlertKind::RefreshReuse, "after")));
    assert!(alerts.recent().iter().all(|alert| alert.delivery() == Delivery::None));
    assert_eq!(metrics.undelivered.get(), 0);
}

#[test]
fn what_was_raised_before_a_restart_is_known_after_it() {
    let past = |at_ms: u64, kind, agent: &str, delivery| {
        let alert = Alert::new(format!("{:016x}00000000", at_ms << 16), at_ms, about(kind, agent));
        alert.settle(delivery);
        alert
    };
    let now_ms = clock();
    let newest_first = vec![
        past(now_ms - 1_000, AlertKind::RefreshReuse, "a", Delivery::Pending),
        past(now_ms - 2_000, AlertKind::RefreshReuse, "b", Delivery::Delivered),
        past(now_ms - 3_000, AlertKind::RefreshReuse, "c", Delivery::Pending),
        past(now_ms - 4_000, AlertKind::TokenBurst, "d", Delivery::None),
    ];
    let newest_id = newest_first[0].id.clone();
    let events = Arc::new(EventQueue::with_capacity(8, Arc::new(Bell::default())));
    // The clock was set back meanwhile.
    NOW.set(now_ms - 3_600_000);
    let (alerts, exits) = Alerts::with_past(newest_first, events, metrics(), clock);
    let left: Vec<_> = exits.outbox.left.iter().map(|alert| alert.new.subject.clone()).collect();
    assert_eq!(left, [Subject::Agent("c".into()), Subject::Agent("a".into())], "the oldest first");
    assert!(alerts.raise(about(AlertKind::BruteForceLockout, "new")));
    assert!(alerts.recent()[0].id > newest_id, "ids go on growing");
    NOW.set(now_ms);
    assert!(!alerts.raise(about(AlertKind::RefreshReuse, "a")), "its quiet time goes on");
    assert_eq!(alerts.recent().len(), 5);
    // One that nobody will send is said to be given up.
    exits.outbox.close();
    let states: Vec<_> = alerts.recent().iter().skip(1).map(|alert| alert.delivery().name()).collect();
    assert_eq!(states, ["given-up", "delivered", "given-up", "none"]);
}

#[test]
fn an_ipv6_subject_is_a_network() {
    let subject = Subject::Address("2001:db8::".parse().unwrap());
    let new = NewAlert { kind: AlertKind::FailedAuthentications, subject, details: String::new() };
    let alert = Alert::new("1".to_owned(), 0, new);
    assert_eq!(alert.json()["address"], "2001:db8::/64");
}
