//! What checking a message costs beside simd-json's bare tape of the same bytes. Time alone: it compares with code of others.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use ringwall::rpc::Parser;
use simd_json::{Buffers, INPUT_PADDING, Tape};

use crate::inputs::{CALL, MODERN_CALL};

pub(crate) fn compare(criterion: &mut Criterion) {
    for (name, raw) in [("call 2025-11-25", CALL), ("call 2026-07-28", MODERN_CALL)] {
        let mut group = criterion.benchmark_group(format!("tape/{name}, {} bytes", raw.len()));
        group.throughput(Throughput::Bytes(raw.len() as u64));
        let mut tape = Alone::default();
        group.bench_function("simd-json tape, copy included", |b| b.iter(|| tape.nodes(black_box(raw.as_bytes()))));
        let mut parser = Parser::new(64);
        group.bench_function("envelope", |b| b.iter(|| parser.parse(black_box(raw.as_bytes())).is_ok()));
        group.finish();
    }
}

/// simd-json with its memory kept between messages, as [`Parser`] keeps it.
struct Alone {
    scratch: Vec<u8>,
    buffers: Buffers,
    kept: Tape<'static>,
}

impl Default for Alone {
    fn default() -> Self {
        Self { scratch: Vec::new(), buffers: Buffers::with_max_depth(0, 64), kept: Tape(Vec::new()) }
    }
}

impl Alone {
    fn nodes(&mut self, raw: &[u8]) -> usize {
        self.scratch.clear();
        self.scratch.extend_from_slice(raw);
        self.scratch.extend_from_slice(&[b' '; INPUT_PADDING]);
        let mut tape = std::mem::replace(&mut self.kept, Tape(Vec::new())).reset();
        let filled = simd_json::fill_tape_padded(&mut self.scratch, raw.len(), &mut self.buffers, &mut tape);
        let nodes = tape.0.len();
        self.kept = tape.reset();
        assert!(filled.is_ok());
        nodes
    }
}
