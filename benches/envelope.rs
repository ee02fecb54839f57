//! What it costs to check one message and find its parts, beside simd-json's bare tape of the same bytes.
//!
//! `cargo bench --bench envelope`

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringwall::rpc::era::{self, Header, Mirrored};
use ringwall::rpc::{Parser, splice};
use simd_json::{Buffers, INPUT_PADDING, Tape};
use std::hint::black_box;

/// A `tools/call` of 291 bytes, as clients of 2025-11-25 send it.
const LEGACY: &str = r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"name":"send_sms","arguments":{"agentId":"agent-7f3a","to":"+14155550123","body":"Your appointment with Dr. Lee is confirmed for Tuesday at 10:30. Reply C to cancel.","campaign":"reminders"},"_meta":{"progressToken":"b7c1e1c2-9d7e"}}}"#;

/// The like of 2026-07-28, with its `_meta`.
const MODERN: &str = r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"name":"send_sms","arguments":{"agentId":"agent-7f3a","to":"+14155550123","body":"Your appointment is confirmed."},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"}}}}"#;

fn tape_alone(group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>, raw: &[u8]) {
    let mut scratch = Vec::new();
    let mut buffers = Buffers::with_max_depth(0, 64);
    let mut kept: Tape<'static> = Tape(Vec::new());
    group.bench_function("simd-json tape, copy included", |b| {
        b.iter(|| {
            scratch.clear();
            scratch.extend_from_slice(black_box(raw));
            scratch.extend_from_slice(&[b' '; INPUT_PADDING]);
            let mut tape = std::mem::replace(&mut kept, Tape(Vec::new())).reset();
            let filled = simd_json::fill_tape_padded(&mut scratch, raw.len(), &mut buffers, &mut tape);
            let nodes = tape.0.len();
            kept = tape.reset();
            assert!(filled.is_ok());
            nodes
        });
    });
}

fn envelope(c: &mut Criterion) {
    for (name, raw) in [("call 2025-11-25", LEGACY), ("call 2026-07-28", MODERN)] {
        let raw = raw.as_bytes();
        let mut group = c.benchmark_group(format!("{name}, {} bytes", raw.len()));
        group.throughput(Throughput::Bytes(raw.len() as u64));
        tape_alone(&mut group, raw);
        let mut parser = Parser::new(64);
        group.bench_function("envelope", |b| b.iter(|| parser.parse(black_box(raw)).is_ok()));
        let mirrored = Mirrored {
            version: Header::One(if raw == MODERN.as_bytes() { b"2026-07-28" } else { b"2025-11-25" }),
            method: Header::One(b"tools/call"),
            name: Header::One(b"send_sms"),
        };
        group.bench_function("envelope and era", |b| {
            b.iter(|| {
                let envelope = parser.parse(black_box(raw)).ok()?;
                era::decide(black_box(&mirrored), &envelope, raw).ok()
            });
        });
        let Ok(parsed) = parser.parse(raw) else {
            continue;
        };
        let Some(id) = parsed.id else { continue };
        group.bench_function("id spliced", |b| {
            b.iter_batched_ref(
                || Vec::with_capacity(1024),
                |out| splice::splice(black_box(raw), &[(id.span, b"123456")], out),
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, envelope);
criterion_main!(benches);
