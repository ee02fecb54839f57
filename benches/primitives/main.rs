//! What each primitive on a message's way costs: in time, for people, or in instructions, for CI. README.md, next door, says
//! what each case measures.
//!
//! - `cargo bench --features bench --bench primitives [-- FILTER]`: time, by criterion.
//! - `benches/count`: instructions, under callgrind, beside `benches/instructions.tsv`.
#![allow(clippy::expect_used, reason = "a case that cannot be set up ends the bench")]

mod case;
mod count;
mod guards;
mod inputs;
mod rates;
mod rpc;
mod shared;
mod tape;
mod way;
mod wire;

use std::process::ExitCode;

use case::Case;
use criterion::{Criterion, Throughput};

/// As in the gateway: what a call allocates is part of its cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Every case, in the order of a message's way.
fn cases() -> Vec<Case> {
    [wire::cases(), rpc::cases(), guards::cases(), shared::cases(), way::cases()].into_iter().flatten().collect()
}

fn main() -> ExitCode {
    let mode = std::env::args().nth(1).unwrap_or_default();
    match count::Mode::of(&mode) {
        Some(mode) => count::run(mode),
        None => {
            let mut criterion = Criterion::default().configure_from_args();
            time(&mut criterion);
            tape::compare(&mut criterion);
            rates::compare(&mut criterion);
            criterion.final_summary();
            ExitCode::SUCCESS
        }
    }
}

fn time(criterion: &mut Criterion) {
    for mut case in cases() {
        let (group, name) = case.name.split_once('/').unwrap_or(("", case.name));
        let mut group = criterion.benchmark_group(group);
        if case.bytes > 0 {
            group.throughput(Throughput::Bytes(case.bytes as u64));
        }
        group.bench_function(name, |bencher| bencher.iter(|| case.run()));
        group.finish();
    }
}
