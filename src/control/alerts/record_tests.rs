#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "a test writes a file")]

use std::path::Path;
use std::time::Instant as StdInstant;

use super::*;
use crate::control::alerts::Exits;
use crate::control::alerts::metrics;
use crate::state::events::{Bell, EventQueue};
use crate::state::lifecycle::Lifecycle;
use crate::store::StoreThreads;

const NOW_MS: u64 = 1_700_000_000_000;
/// Only what hangs takes this long.
const PATIENCE: Duration = Duration::from_secs(120);

fn clock() -> u64 {
    NOW_MS
}

/// A process: its store and its alerts.
struct Process {
    store: Store,
    threads: StoreThreads,
    alerts: Alerts,
    exits: Exits,
}

fn start(dir: &Path) -> Process {
    let (store, threads) = Store::open(&dir.join("data"), Arc::new(Lifecycle::new(1, Vec::new()))).unwrap();
    let events = Arc::new(EventQueue::with_capacity(4096, Arc::new(Bell::default())));
    let (alerts, exits) = Alerts::with_past(read(&store).unwrap(), events, metrics(), clock);
    Process { store, threads, alerts, exits }
}

impl Process {
    /// Keeps the record while `act` runs; the record's last write is done when this returns.
    fn run(self, act: impl AsyncFnOnce(&Alerts, &Store)) {
        let Self { store, threads, alerts, exits } = self;
        let Exits { outbox, journal } = exits;
        let record = Record::new(store.clone(), alerts.clone(), journal, clock);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (stop, stopped) = oneshot::channel();
            let task = tokio::spawn(record.keep(stopped));
            act(&alerts, &store).await;
            drop(stop);
            task.await.unwrap();
        });
        drop(outbox);
        threads.stop();
    }
}

fn new(kind: AlertKind, subject: Subject) -> NewAlert {
    NewAlert { kind, subject, details: "over 3".to_owned() }
}

fn known(alerts: &Alerts) -> Vec<(String, u64, NewAlert, Delivery)> {
    let recent = alerts.recent();
    recent.iter().map(|alert| (alert.id.clone(), alert.at_ms, alert.new.clone(), alert.delivery())).collect()
}

#[test]
fn a_restart_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = Vec::new();
    start(dir.path()).run(async |alerts, _| {
        for subject in [
            Subject::Agent("billing".to_owned()),
            Subject::Address("203.0.113.9".parse().unwrap()),
            Subject::Address("2001:db8::".parse().unwrap()),
            Subject::Gateway,
        ] {
            assert!(alerts.raise(new(AlertKind::RefreshReuse, subject)));
        }
        assert!(alerts.raise(new(AlertKind::TokenBurst, Subject::Agent("billing".to_owned()))));
        let recent = alerts.recent();
        recent[1].settle(Delivery::GivenUp);
        recent[2].settle(Delivery::Delivered);
        before = known(alerts);
    });
    assert_eq!(before[0].3, Delivery::None);
    assert_eq!(before[4].3, Delivery::Pending);
    let second = start(dir.path());
    assert_eq!(known(&second.alerts), before);
    assert_eq!(second.exits.outbox.left.len(), 2);
    // What ends now is known to a third.
    second.run(async |alerts, _| alerts.recent()[4].settle(Delivery::Delivered));
    let third = start(dir.path());
    before[4].3 = Delivery::Delivered;
    assert_eq!(known(&third.alerts), before);
}

#[test]
fn an_alert_is_on_disk_as_soon_as_it_was_raised_and_again_when_it_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path());
    let settled = Arc::clone(&process.exits.journal.settled);
    process.run(async |alerts, store| {
        let written = async |delivery: u8| {
            let start = StdInstant::now();
            while store.alerts().await.unwrap().first().is_none_or(|row| row.delivery != delivery) {
                assert!(start.elapsed() < PATIENCE);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        alerts.raise(new(AlertKind::RefreshReuse, Subject::Gateway));
        written(1).await;
        alerts.recent()[0].settle(Delivery::Delivered);
        settled.notify_one();
        written(2).await;
    });
}

#[test]
fn what_is_kept_is_bounded_in_number_and_in_time_and_what_is_pending_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path());
    let retain_ms = u64::try_from(RETAIN.as_millis()).unwrap();
    let row = |n: u64, raised_ms, delivery| AlertRow {
        id: format!("{n:024x}"),
        raised_ms,
        kind: "refresh-reuse".to_owned(),
        agent: Some(format!("agent-{n}")),
        address: None,
        details: String::new(),
        delivery,
    };
    let all = Kept { newest: usize::MAX, since_ms: 0 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut rows: Vec<_> = (10..10 + KEPT as u64).map(|n| row(n, NOW_MS, 2)).collect();
    rows.push(row(1, NOW_MS, 2));
    rows.push(row(2, NOW_MS, 1));
    rows.push(row(10 + KEPT as u64, NOW_MS - retain_ms - 1, 1));
    rows.push(row(11 + KEPT as u64, NOW_MS - retain_ms - 1, 2));
    rows.push(AlertRow { kind: "of-a-later-version".to_owned(), ..row(12 + KEPT as u64, NOW_MS, 2) });
    runtime.block_on(process.store.put_alerts(rows, all)).unwrap();
    process.threads.stop();
    start(dir.path()).run(async |alerts, _| {
        alerts.raise(new(AlertKind::TokenBurst, Subject::Gateway));
    });
    let process = start(dir.path());
    let ids: Vec<String> = process.store.alerts_now().unwrap().into_iter().map(|row| row.id).collect();
    let id = |n: u64| format!("{n:024x}");
    assert!(ids.contains(&id(2)) && ids.contains(&id(10 + KEPT as u64)), "pending");
    assert!(!ids.contains(&id(1)) && !ids.contains(&id(11 + KEPT as u64)), "too many, and too old");
    // The newest thousand, with or without the one that was too old, and the one that is pending beside them.
    assert!((KEPT..=KEPT + 1).contains(&ids.len()), "{}", ids.len());
    assert!(process.alerts.recent().len() <= KEPT);
}

#[test]
fn a_disk_that_refuses_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path());
    let failures = process.store.counts();
    process.run(async |alerts, store| {
        // Somebody else holds the database for longer than a write waits.
        let other = rusqlite::Connection::open(dir.path().join("data/ringwall.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        alerts.raise(new(AlertKind::TokenBurst, Subject::Gateway));
        let start = StdInstant::now();
        while failures.failures.get() == 0 {
            assert!(start.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        other.execute_batch("ROLLBACK").unwrap();
        while store.alerts().await.unwrap().is_empty() {
            assert!(start.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}
