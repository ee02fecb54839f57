//! A decision of the rate table beside governor's keyed limiter on DashMap: the same keys, the same limit, in one run.
//!
//! Both hash the key (ours under a secret) and admit it; neither reads a clock: ours is told the time, governor has its clock for tests. Time passes by a
//! millisecond for a hundred decisions, so that groups are closed and nothing is refused.
//!
//! A gateway knows of whom it will have to decide before it does: it expects the key when bytes of a connection have come, and decides when they are
//! parsed. *A million keys, expected* is that: each key is told of as many decisions ahead as take about the time of parsing a head, [`AHEAD`].
//! governor cannot be told.

use std::hint::black_box;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use governor::clock::{Clock, FakeRelativeClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use ringwall::state::rates::{RateTable, Rule, Span};

const NOW_MS: u64 = 1_795_000_000_000;
const PER_MINUTE: u32 = 8_000_000;
const RULE: Rule = Rule { limit: PER_MINUTE, span: Span::Sliding(60_000) };
const KEYS: u32 = 1_000_000;
const DECISIONS_A_MS: u64 = 100;
/// A head of two hundred bytes is parsed in some 400 ns.
const AHEAD: u32 = 8;

type Moment = <FakeRelativeClock as Clock>::Instant;
type Governor = RateLimiter<IpAddr, DashMapStateStore<IpAddr>, FakeRelativeClock, NoOpMiddleware<Moment>>;

/// One of the two, with its time.
struct Limiter<L> {
    limiter: L,
    decisions: u64,
}

trait Decide: Sync {
    /// Whether this key may once more, at the time of the `decision`-th decision.
    fn decide(&self, key: IpAddr, decision: u64) -> bool;
}

impl Decide for RateTable {
    fn decide(&self, key: IpAddr, decision: u64) -> bool {
        self.take(self.key_of_ip(1, key), RULE, 1, NOW_MS + decision / DECISIONS_A_MS).is_ok()
    }
}

impl Decide for Governor {
    fn decide(&self, key: IpAddr, decision: u64) -> bool {
        if decision.is_multiple_of(DECISIONS_A_MS) {
            self.clock().advance(Duration::from_millis(1));
        }
        self.check_key(&key).is_ok()
    }
}

impl<L: Decide> Limiter<L> {
    fn next(&mut self, key: IpAddr) -> bool {
        self.decisions += 1;
        self.limiter.decide(black_box(key), self.decisions)
    }
}

fn table() -> RateTable {
    RateTable::new(KEYS as usize, [7; 16])
}

fn governor() -> Governor {
    let quota = Quota::per_minute(NonZeroU32::new(PER_MINUTE).unwrap_or(NonZeroU32::MIN));
    RateLimiter::dashmap_with_clock(quota, FakeRelativeClock::default())
}

/// Addresses in no order.
fn key(n: u32) -> IpAddr {
    IpAddr::from(n.wrapping_mul(2_654_435_761).to_be_bytes())
}

/// Measures both.
pub(crate) fn compare(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rates");
    measure(&mut group, "table", table);
    measure(&mut group, "governor", governor);
    measure_expected(&mut group);
    group.finish();
}

fn measure_expected(group: &mut BenchmarkGroup<'_, WallTime>) {
    let mut all = Limiter { limiter: table(), decisions: 0 };
    assert!((0..KEYS).all(|n| all.next(key(n))));
    let mut n = 0;
    group.bench_function("a million keys, expected/table", |bencher| {
        bencher.iter(|| {
            n = (n + 1) % KEYS;
            let table = &all.limiter;
            table.expect(table.key_of_ip(1, black_box(key((n + AHEAD) % KEYS))), RULE.span);
            assert!(all.next(key(n)));
        });
    });
}

fn measure<L: Decide>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, new: impl Fn() -> L) {
    let mut one = Limiter { limiter: new(), decisions: 0 };
    group.bench_function(format!("one key/{name}"), |bencher| {
        bencher.iter(|| assert!(one.next(key(1))));
    });
    let mut all = Limiter { limiter: new(), decisions: 0 };
    assert!((0..KEYS).all(|n| all.next(key(n))));
    let mut n = 0;
    group.bench_function(format!("a million keys/{name}"), |bencher| {
        bencher.iter(|| {
            n = (n + 1) % KEYS;
            assert!(all.next(key(n)));
        });
    });
    drop(all);
    let shared = new();
    group.bench_function(format!("two threads, one key/{name}"), |bencher| {
        bencher.iter_custom(|times| two_threads(&shared, times));
    });
}

/// How long `times` decisions take a thread while another one makes as many about the same key.
fn two_threads(limiter: &impl Decide, times: u64) -> Duration {
    let gate = std::sync::Barrier::new(2);
    let work = || {
        gate.wait();
        let start = Instant::now();
        for decision in 0..times {
            // Some are refused when the runs follow each other too fast; deciding so costs as much.
            let _ = black_box(limiter.decide(black_box(key(7)), decision));
        }
        start.elapsed()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        let own = work();
        other.join().map_or(own, |other| own.max(other))
    })
}
