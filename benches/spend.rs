//! How many calls a second can be paid for: `cargo bench --bench spend [-- SPENDS [WAITING [DIR]]]`.
//!
//! Each spend is reserved, waited for until it is on disk, and settled, as a call does it. So many wait at once, from two threads, as so many
//! calls in flight over two workers do. The time ends when the last reservation is on disk and all of them are settled there. 100,000 spends,
//! 64 waiting, in a temporary directory unless said otherwise.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "what cannot be set up ends the bench; its threads are its own"
)]

use std::collections::VecDeque;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use ringwall::observe::metrics::SpendMetrics;
use ringwall::state::lifecycle::Lifecycle;
use ringwall::state::spend::{Accounts, Caps, Day};
use ringwall::store::Store;
use ringwall::store::spend::{Closing, Ledger, Opening};

/// As in the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const THREADS: u64 = 2;
const AGENTS: u64 = 100;
const PRICE: u64 = 7_900;

fn main() {
    // Cargo says `--bench`.
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let spends: u64 = words.next().map_or(100_000, |word| word.parse().expect("a number of spends"));
    let waiting: u64 = words.next().map_or(64, |word| word.parse().expect("a number of calls"));
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = words.next().map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    std::fs::set_permissions(&dir, Permissions::from_mode(0o700)).expect("a directory of one's own");

    let (store, threads) = Store::open(&dir, Arc::new(Lifecycle::new(1, Vec::new()))).expect("a database");
    let metrics = Arc::<SpendMetrics>::default();
    let today = Day::from_days(20_779);
    let (ledger, _) = Ledger::open(&store, Arc::clone(&metrics), today).expect("a ledger");
    let (accounts, begun_at) = (Accounts::default(), AtomicU64::new(0));
    let before = store.counts().transactions.get();
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut out = VecDeque::new();
                loop {
                    let n = begun_at.fetch_add(1, Ordering::Relaxed);
                    if n < spends {
                        let agent: Arc<str> = format!("agent-{}", n % AGENTS).into();
                        let caps = Caps { day: u64::MAX, month: u64::MAX };
                        let (account, charge) = accounts.charge(&agent, PRICE, caps, today).expect("room");
                        let opening = Opening {
                            payer: agent,
                            upstream: "sms".into(),
                            tool: "send_sms".into(),
                            day: charge.day(),
                            microusd: PRICE,
                            at_ms: 1_795_305_600_000,
                        };
                        let (id, written) = ledger.reserve(opening).expect("room");
                        out.push_back((id, written, account, charge));
                    }
                    if out.len() as u64 >= waiting.div_ceil(THREADS) || n >= spends {
                        let Some((id, written, account, charge)) = out.pop_front() else { return };
                        written.blocking_recv().expect("an answer").expect("a disk with room");
                        account.settle(charge, PRICE);
                        ledger.close(id, Closing::Spent(PRICE));
                    }
                }
            });
        }
    });
    let durable = began.elapsed();
    while ledger.open_count() > 0 {
        thread::yield_now();
    }
    let took = began.elapsed();
    assert_eq!((metrics.settled.get(), metrics.microusd.get()), (spends, spends * PRICE), "all of them, once");
    let transactions = store.counts().transactions.get() - before;
    drop((store, ledger));
    threads.stop();
    #[allow(clippy::cast_precision_loss, reason = "rates, for people")]
    let rate = |took: std::time::Duration| spends as f64 / took.as_secs_f64();
    println!(
        "{spends} spends with {waiting} waiting: reserved in {durable:.2?}, {:.0} a second; settled in {took:.2?}, {:.0} a second; {transactions} transactions, each synced",
        rate(durable),
        rate(took)
    );
}
