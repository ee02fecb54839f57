#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "the threads of a test are its own")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;

use super::billing::{Grouping, Sum, Times, Wanted};
use super::*;
use crate::state::lifecycle::Lifecycle;
use crate::store::StoreThreads;

const TODAY: u64 = 20_779;

struct Rig {
    dir: tempfile::TempDir,
    store: Store,
    threads: StoreThreads,
    ledger: Ledger,
}

fn today() -> Day {
    Day::from_days(TODAY)
}

impl Rig {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        Self::open(dir).0
    }

    fn open(dir: tempfile::TempDir) -> (Self, Vec<Past>) {
        let (store, threads) = Store::open(dir.path(), Arc::new(Lifecycle::new(1, Vec::new()))).unwrap();
        let (ledger, past) = Ledger::open(&store, Arc::default(), today()).unwrap();
        (Self { dir, store, threads, ledger }, past)
    }

    /// Everything that was asked for is done, then the next process opens it.
    fn again(self) -> (Self, Vec<Past>) {
        let Self { dir, store, threads, ledger } = self;
        drop((store, ledger));
        threads.stop();
        Self::open(dir)
    }

    fn reserve(&self, payer: &str, tool: &str, microusd: u64) -> (OpenId, Written) {
        self.ledger.reserve(opening(payer, tool, microusd)).unwrap()
    }

    async fn reserved(&self, payer: &str, tool: &str, microusd: u64) -> OpenId {
        let (id, written) = self.reserve(payer, tool, microusd);
        written.await.unwrap().unwrap();
        id
    }

    /// By agent and tool, when all that was asked for is done.
    async fn rows(&self) -> Vec<Sum> {
        // The writer takes one thing after the other.
        self.store.write(|_| Ok(())).await.unwrap();
        let by = Grouping { times: Times::All, by_agent: true, by_tool: true };
        self.ledger.billing(all(), by, None, 1_000).await.unwrap()
    }
}

fn opening(payer: &str, tool: &str, microusd: u64) -> Opening {
    let (payer, upstream, tool) = (payer.into(), "up".into(), tool.into());
    Opening { payer, upstream, tool, day: today(), microusd, at_ms: 1 }
}

fn all() -> Wanted {
    Wanted { from: Day::from_days(0), to: Day::from_days(u64::MAX), agent: None, tool: None }
}

fn sum(payer: &str, tool: &str, [calls, microusd, unsettled_calls, unsettled_microusd]: [u64; 4]) -> Sum {
    let key = (0, payer.to_owned(), "up".to_owned(), tool.to_owned());
    Sum { key, calls, microusd, unsettled_calls, unsettled_microusd, reserved_calls: 0, reserved_microusd: 0 }
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// Holds the writer until the sender is dropped.
fn hold(store: &Store) -> mpsc::Sender<()> {
    let ((go, wait), (entered, inside)) = (mpsc::channel::<()>(), mpsc::channel());
    let held = store.write(move |_| {
        entered.send(()).unwrap();
        let _ = wait.recv();
        Ok(())
    });
    // What is asked for is done even if the future is dropped.
    assert!(futures_util::FutureExt::now_or_never(held).is_none());
    inside.recv().unwrap();
    go
}

#[test]
fn what_is_closed_is_added_up_by_day_agent_and_tool() {
    let rig = Rig::start();
    run(async {
        let first = rig.reserved("bot", "send", 100).await;
        let second = rig.reserved("bot", "send", 100).await;
        let third = rig.reserved("bot", "call", 500).await;
        let lost = rig.reserved("other", "send", 7).await;
        let open = sum("bot", "send", [0; 4]);
        let open = Sum { reserved_calls: 2, reserved_microusd: 200, ..open };
        assert_eq!(rig.rows().await[1], open, "what is open is reserved, and not spent");
        rig.ledger.close(first, Closing::Spent(80));
        rig.ledger.close(second, Closing::Unsettled(100));
        rig.ledger.close(third, Closing::GivenBack);
        rig.ledger.close(lost, Closing::Spent(9));
        assert_eq!(rig.rows().await, [sum("bot", "send", [2, 180, 1, 100]), sum("other", "send", [1, 9, 0, 0])]);
        assert_eq!(rig.ledger.open_count(), 0);
        let metrics = rig.ledger.metrics();
        let counts = [&metrics.reserved, &metrics.settled, &metrics.unsettled, &metrics.given_back, &metrics.microusd];
        assert_eq!(counts.map(crate::observe::metrics::SharedCounter::get), [4, 2, 1, 1, 189]);
    });
}

#[test]
fn what_waits_shares_one_transaction() {
    let rig = Rig::start();
    let go = hold(&rig.store);
    let before = rig.store.counts().transactions.get();
    let waiting: Vec<_> = (0..500).map(|n| rig.reserve("bot", "send", n)).collect();
    drop(go);
    waiting.into_iter().for_each(|(_, written)| written.blocking_recv().unwrap().unwrap());
    assert_eq!(rig.store.counts().transactions.get() - before, 2, "the one that was held, and one for all that waited");
}

#[test]
fn what_a_process_leaves_open_is_charged_by_the_next_as_unsettled() {
    let rig = Rig::start();
    let rig = run(async move {
        let spent = rig.reserved("bot", "send", 100).await;
        rig.ledger.close(spent, Closing::Spent(60));
        for price in [100, 30] {
            rig.reserved("bot", "send", price).await;
        }
        rig.reserved("bot", "call", 5).await;
        rig
    });
    let (rig, past) = rig.again();
    let expected = [("call", 5), ("send", 190)];
    let past: Vec<_> = past.iter().map(|past| (past.tool.as_str(), past.microusd)).collect();
    assert_eq!(past, expected);
    run(async {
        let rows = [sum("bot", "call", [1, 5, 1, 5]), sum("bot", "send", [3, 190, 2, 130])];
        assert_eq!(rig.rows().await, rows);
        // Numbers begin anew, and meet nothing of before.
        let id = rig.reserved("bot", "call", 9).await;
        rig.ledger.close(id, Closing::GivenBack);
        assert_eq!(rig.rows().await, rows);
    });
    let (rig, _) = rig.again();
    run(async { assert_eq!(rig.rows().await[1], sum("bot", "send", [3, 190, 2, 130]), "once") });
}

#[test]
fn a_reservation_whose_call_was_given_up_while_it_waited_is_gone() {
    let rig = Rig::start();
    let go = hold(&rig.store);
    let (id, written) = rig.reserve("bot", "send", 100);
    drop(written);
    rig.ledger.close(id, Closing::GivenBack);
    drop(go);
    run(async {
        assert_eq!(rig.rows().await, []);
        assert_eq!(rig.ledger.open_count(), 0);
    });
}

#[test]
fn as_many_as_may_be_are_open_and_no_more() {
    let rig = Rig::start();
    let go = hold(&rig.store);
    let mut open: Vec<_> = (0..MAX_OPEN).map(|_| rig.reserve("bot", "send", 1)).collect();
    assert_eq!(rig.ledger.reserve(opening("bot", "send", 1)).err(), Some(TooMany));
    // Closings find room, though the disk has taken nothing yet.
    for (id, _) in &open {
        rig.ledger.close(*id, Closing::Spent(1));
    }
    assert_eq!(rig.ledger.reserve(opening("bot", "send", 1)).err(), Some(TooMany), "until they are on disk");
    drop(go);
    let (_, last) = open.pop().unwrap();
    last.blocking_recv().unwrap().unwrap();
    let start = std::time::Instant::now();
    while rig.ledger.open_count() > 0 {
        assert!(start.elapsed().as_secs() < 120, "closings wait");
        std::thread::yield_now();
    }
    run(async { assert_eq!(rig.rows().await, [sum("bot", "send", [MAX_OPEN, MAX_OPEN, 0, 0])]) });
}

#[test]
fn while_the_disk_refuses_nothing_is_reserved_and_closings_wait() {
    let rig = Rig::start();
    run(async {
        let id = rig.reserved("bot", "send", 100).await;
        // As a failing disk does: what is written is refused.
        let broken = "ALTER TABLE spend_open RENAME TO away; CREATE TABLE spend_open (id INTEGER PRIMARY KEY) STRICT;";
        rig.store.write(move |conn| Ok(conn.execute_batch(broken)?)).await.unwrap();
        let (refused, written) = rig.reserve("bot", "send", 100);
        let error = written.await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{error}");
        rig.ledger.close(refused, Closing::GivenBack);
        let mended = "DROP TABLE spend_open; ALTER TABLE away RENAME TO spend_open;";
        rig.store.write(move |conn| Ok(conn.execute_batch(mended)?)).await.unwrap();
        rig.ledger.close(id, Closing::Spent(100));
        assert_eq!(rig.rows().await, [sum("bot", "send", [1, 100, 0, 0])]);
        assert_eq!(rig.ledger.open_count(), 0);
    });
    // A file that cannot grow is a disk that is full.
    run(async {
        let id = rig.reserved("bot", "send", 50).await;
        let pages: i64 =
            rig.store.read(|conn| Ok(conn.query_row("PRAGMA page_count", [], |row| row.get(0))?)).await.unwrap();
        let limit = format!("PRAGMA max_page_count = {pages}");
        rig.store.write(move |conn| Ok(conn.query_row(&limit, [], |_| Ok(()))?)).await.unwrap();
        let mut kept = Vec::new();
        let refused = loop {
            let (id, written) = rig.reserve(&"x".repeat(120), &"y".repeat(250), 1);
            match written.await.unwrap() {
                Ok(()) => kept.push(id),
                Err(error) => break (id, error),
            }
        };
        assert_eq!(refused.1, StoreError::Full);
        rig.ledger.close(refused.0, Closing::GivenBack);
        // These need room in another table; the disk has none.
        rig.ledger.close(id, Closing::Spent(50));
        kept.iter().for_each(|id| rig.ledger.close(*id, Closing::Unsettled(1)));
        let _ = rig.store.write(|_| Ok(())).await;
        rig.store.write(|conn| Ok(conn.query_row("PRAGMA max_page_count = 100000", [], |_| Ok(()))?)).await.unwrap();
        rig.ledger.kick();
        let rows = rig.rows().await;
        assert_eq!(rows[0], sum("bot", "send", [2, 150, 0, 0]), "what could not be settled is settled later");
        assert_eq!(rows[1].calls, kept.len() as u64);
        assert_eq!(rig.ledger.open_count(), 0);
    });
}

#[test]
fn who_comes_after_the_end_is_told_so() {
    let rig = Rig::start();
    let Rig { threads, ledger, .. } = rig;
    threads.stop();
    let (id, written) = ledger.reserve(opening("bot", "send", 1)).unwrap();
    assert!(written.blocking_recv().is_err(), "the channel ends");
    ledger.close(id, Closing::GivenBack);
}

#[test]
fn names_that_clients_make_up_are_bounded() {
    let rig = Rig::start();
    run(async {
        for n in 0..300 {
            let id = rig.reserved("bot", &format!("tool-{n:03}"), 1).await;
            rig.ledger.close(id, Closing::Spent(1));
        }
        let rows = rig.rows().await;
        assert_eq!(rows.len(), 257);
        let other = rows.iter().find(|row| row.key.3 == OTHER_TOOLS).unwrap();
        assert_eq!((other.calls, other.microusd), (44, 44));
    });
}

#[test]
fn sums_are_those_of_the_days_and_come_a_page_at_a_time() {
    let rig = Rig::start();
    let days = [TODAY - 40, TODAY - 1, TODAY];
    run(async {
        for (day, payer, tool, microusd) in [
            (days[0], "a", "send", 1),
            (days[1], "a", "send", 10),
            (days[2], "a", "call", 100),
            (days[2], "b", "send", 1_000),
        ] {
            let opening = Opening { day: Day::from_days(day), ..opening(payer, tool, microusd) };
            let (id, written) = rig.ledger.reserve(opening).unwrap();
            written.await.unwrap().unwrap();
            rig.ledger.close(id, Closing::Spent(microusd));
        }
        rig.rows().await;
        let ask = async |wanted: Wanted, times, by_agent, by_tool, limit| {
            let (mut pages, mut after) = (Vec::new(), None);
            loop {
                let by = Grouping { times, by_agent, by_tool };
                let page = rig.ledger.billing(wanted.clone(), by, after, limit).await.unwrap();
                assert!(page.len() <= limit);
                let Some(last) = page.last() else { return pages };
                after = Some(last.key.clone());
                pages.extend(page.into_iter().map(|row| (row.key.0, row.key.1, row.key.3, row.microusd)));
            }
        };
        let row = |time: u64, agent: &str, tool: &str, microusd| (time, agent.to_owned(), tool.to_owned(), microusd);
        for limit in [1, 2, 100] {
            assert_eq!(ask(all(), Times::All, false, false, limit).await, [row(0, "", "", 1_111)]);
            let by_agent = [row(0, "a", "", 111), row(0, "b", "", 1_000)];
            assert_eq!(ask(all(), Times::All, true, false, limit).await, by_agent);
            let by_tool = [row(0, "", "call", 100), row(0, "", "send", 1_011)];
            assert_eq!(ask(all(), Times::All, false, true, limit).await, by_tool);
            let by_day = [row(days[0], "", "", 1), row(days[1], "", "", 10), row(days[2], "", "", 1_100)];
            assert_eq!(ask(all(), Times::Day, false, false, limit).await, by_day);
            let months = [Day::from_days(days[0]), today()].map(|day| day.first_of_month().days());
            let by_month = [row(months[0], "a", "", 1), row(months[1], "a", "", 110), row(months[1], "b", "", 1_000)];
            assert_eq!(ask(all(), Times::Month, true, false, limit).await, by_month);
        }
        let some = Wanted { from: Day::from_days(days[1]), agent: Some("a".into()), ..all() };
        assert_eq!(ask(some, Times::All, false, true, 9).await, [row(0, "", "call", 100), row(0, "", "send", 10)]);
        let some = Wanted { tool: Some("send".into()), to: Day::from_days(days[1]), ..all() };
        assert_eq!(ask(some, Times::All, true, false, 9).await, [row(0, "a", "", 11)]);
        // What is too old goes, and no more.
        assert_eq!(rig.ledger.forget_before(Day::from_days(days[1])).await, Ok(1));
        assert_eq!(ask(all(), Times::All, false, false, 9).await, [row(0, "", "", 1_110)]);
    });
    let (_rig, past) = rig.again();
    assert_eq!(past.iter().map(|past| past.microusd).sum::<u64>(), 1_110);
}
