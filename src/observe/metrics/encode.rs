//! The sum of all workers as OpenMetrics text, which every Prometheus reads.
//!
//! One file a subject: `traffic` what clients do, `upstreams` what is behind us, `control` what is recorded and told, `process` what we are.

mod control;
mod process;
mod traffic;
mod upstreams;

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::{MetricSources, WorkerMetrics};
use crate::observe::histogram::{Histogram, Snapshot};

/// Upper ends of the histograms' buckets, nanoseconds: 50 µs to 60 s.
const BOUNDS_NS: [u64; 19] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// Likewise of the guards': 1 µs to 10 ms.
const GUARD_BOUNDS_NS: [u64; 13] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

pub(super) fn encode(sources: &MetricSources) -> Result<String, Error> {
    let mut own = Registry::with_prefix("ringwall");
    own.register_collector(Box::new(sources.clone()));
    // What every program tells has no prefix.
    let mut common = Registry::default();
    let usage = crate::observe::process::usage();
    common.register_collector(Box::new(process::Common { usage, started_at_ms: sources.started_at_ms }));
    let mut out = String::with_capacity(16 * 1024);
    text::encode_registry(&mut out, &own)?;
    text::encode_registry(&mut out, &common)?;
    text::encode_eof(&mut out)?;
    Ok(out)
}

impl Collector for MetricSources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut sink = Sink { encoder: &mut encoder };
        self.encode_process(&mut sink)?;
        self.encode_calls(&mut sink)?;
        self.encode_doors(&mut sink)?;
        self.encode_refusals(&mut sink)?;
        self.encode_rate_tables(&mut sink)?;
        self.encode_blocks(&mut sink)?;
        self.encode_workers(&mut sink)?;
        self.encode_upstreams(&mut sink)?;
        self.encode_broker(&mut sink)?;
        self.encode_audit(&mut sink)?;
        self.encode_alerts(&mut sink)?;
        self.encode_store(&mut sink)?;
        self.encode_spend(&mut sink)?;
        self.encode_otlp(&mut sink)
    }
}

impl MetricSources {
    fn sum(&self, field: impl Fn(&WorkerMetrics) -> u64) -> u64 {
        self.workers.iter().map(|worker| field(worker)).sum()
    }

    fn snapshot(&self, field: impl Fn(&WorkerMetrics) -> &Histogram) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for worker in &self.workers {
            field(worker).add_to(&mut snapshot);
        }
        snapshot
    }
}

/// Shortens the encoder's calls.
struct Sink<'a, 'b> {
    encoder: &'a mut DescriptorEncoder<'b>,
}

impl Sink<'_, '_> {
    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, Error> {
        self.encoder.encode_descriptor(name, help, unit, kind)
    }

    fn counters<'s>(&'s mut self, name: &'s str, help: &str) -> Result<MetricEncoder<'s>, Error> {
        self.family(name, help, None, MetricType::Counter)
    }

    fn gauges<'s>(&'s mut self, name: &'s str, help: &str) -> Result<MetricEncoder<'s>, Error> {
        self.family(name, help, None, MetricType::Gauge)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.counters(name, help)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.gauges(name, help)?.encode_gauge(&value)
    }
}

fn counter<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &[(&str, &str); N],
    value: u64,
) -> Result<(), Error> {
    family.encode_family(labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
}

fn gauge<const N: usize>(family: &mut MetricEncoder<'_>, labels: &[(&str, &str); N], value: u64) -> Result<(), Error> {
    family.encode_family(labels)?.encode_gauge(&value)
}

/// Buckets are handed over one by one; the encoder makes them cumulative.
#[allow(clippy::cast_precision_loss)] // seconds for people: 53 bits are plenty
fn histogram(encoder: &mut MetricEncoder<'_>, snapshot: &Snapshot, bounds_ns: &[u64]) -> Result<(), Error> {
    let count = snapshot.count();
    let cumulative = snapshot.at_most(bounds_ns);
    let mut buckets = Vec::with_capacity(bounds_ns.len() + 1);
    let mut before = 0;
    for (bound_ns, up_to) in bounds_ns.iter().zip(&cumulative) {
        buckets.push((*bound_ns as f64 / 1e9, up_to - before));
        before = *up_to;
    }
    buckets.push((f64::INFINITY, count - before));
    encoder.encode_histogram::<NoLabelSet>(snapshot.sum_ns() as f64 / 1e9, count, &buckets, None)
}
