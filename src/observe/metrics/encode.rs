//! The sum of all workers as OpenMetrics text, which every Prometheus reads.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::{AuditMetrics, Counter, DoorMetrics, MetricSources, WorkerMetrics};
use crate::observe::histogram::{Histogram, Snapshot};
use crate::state::events::Outcome;
use crate::state::lifecycle::{BreakerState, Door};

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

pub(super) fn encode(sources: &MetricSources) -> Result<String, Error> {
    let mut registry = Registry::with_prefix("ringwall");
    registry.register_collector(Box::new(sources.clone()));
    let mut out = String::with_capacity(16 * 1024);
    text::encode(&mut out, &registry)?;
    Ok(out)
}

impl Collector for MetricSources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut sink = Sink { encoder: &mut encoder };
        self.encode_process(&mut sink)?;
        self.encode_doors(&mut sink)?;
        self.encode_answers(&mut sink)?;
        self.encode_upstreams(&mut sink)?;
        self.encode_audit(&mut sink)
    }
}

impl MetricSources {
    fn encode_process(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
        let mut build = sink.encoder.encode_descriptor("build", "Version and I/O driver", None, MetricType::Info)?;
        build.encode_info(&[("version", self.version), ("driver", self.driver)])?;
        let phase = self.lifecycle.phase() as u64;
        sink.gauge("phase", "Phase of the process: 0 starting, 1 ready, 2 draining, 3 stopped", None, phase)?;
        sink.gauge("workers", "Worker threads", None, self.workers.len() as u64)?;
        let in_flight = self.lifecycle.calls_in_flight() as u64;
        sink.gauge("calls_in_flight", "Calls forwarded and not yet answered", None, in_flight)
    }

    fn encode_doors(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
        let mut calls =
            sink.family("calls", "Calls that have ended, by door and outcome", None, MetricType::Counter)?;
        for door in Door::ALL {
            for outcome in Outcome::ALL {
                let count = self.sum(|worker| worker.door(*door).calls(*outcome));
                counter(&mut calls, &[("door", door.name()), ("outcome", outcome.wire_name())], count)?;
            }
        }
        let help = "Time from the first byte of a call to the last byte of its answer";
        let mut durations = sink.family("call_duration", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for door in Door::ALL {
            let snapshot = self.snapshot(|worker| &worker.door(*door).call_duration);
            histogram(&mut durations.encode_family(&[("door", door.name())])?, &snapshot)?;
        }
        type Field = fn(&DoorMetrics) -> &Counter;
        let fields: [(&str, &str, Field); 4] = [
            ("connections_accepted", "Connections admitted", |door| &door.connections_accepted),
            ("connections_refused", "Connections refused by address, limit or TLS", |door| &door.connections_refused),
            ("connections_closed", "Connections that have ended", |door| &door.connections_closed),
            ("auth_failures", "Authentications that failed", |door| &door.auth_failures),
        ];
        for (name, help, field) in fields {
            self.encode_by_door(sink, (name, help, None), field)?;
        }
        self.encode_by_door(sink, ("received", "Bytes from clients", Some(&Unit::Bytes)), |door| &door.bytes_in)?;
        self.encode_by_door(sink, ("sent", "Bytes to clients", Some(&Unit::Bytes)), |door| &door.bytes_out)?;
        let mut open = sink.family("connections_open", "Connections open now", None, MetricType::Gauge)?;
        for door in Door::ALL {
            let count = self.lifecycle.connections(*door);
            open.encode_family(&[("door", door.name())])?.encode_gauge(&count)?;
        }
        Ok(())
    }

    fn encode_by_door(
        &self,
        sink: &mut Sink<'_, '_>,
        (name, help, unit): (&str, &str, Option<&Unit>),
        field: fn(&DoorMetrics) -> &Counter,
    ) -> Result<(), Error> {
        let mut family = sink.family(name, help, unit, MetricType::Counter)?;
        for door in Door::ALL {
            let count = self.sum(|worker| field(worker.door(*door)).get());
            counter(&mut family, &[("door", door.name())], count)?;
        }
        Ok(())
    }

    fn encode_answers(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
        let mut answers = sink.family("http_responses", "HTTP answers by status class", None, MetricType::Counter)?;
        for (class, name) in [(1, "1xx"), (2, "2xx"), (3, "3xx"), (4, "4xx"), (5, "5xx")] {
            counter(&mut answers, &[("class", name)], self.sum(|worker| worker.responses(class)))?;
        }
        let mut by_rule = std::collections::BTreeMap::<&'static str, u64>::new();
        for (rule, count) in self.workers.iter().flat_map(|worker| worker.refusals.iter()) {
            *by_rule.entry(rule).or_default() += count;
        }
        let mut refusals = sink.family("refusals", "Refusals by rule", None, MetricType::Counter)?;
        for (rule, count) in by_rule {
            counter(&mut refusals, &[("rule", rule)], count)?;
        }
        let help = "Time spent in guards for a message";
        let mut guards = sink.family("guard_duration", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        histogram(&mut guards, &self.snapshot(|worker| &worker.guard_duration))
    }

    fn encode_upstreams(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
        type Field = fn(&WorkerMetrics) -> &Counter;
        let fields: [(&str, &str, Field); 4] = [
            ("upstream_connects", "Upstream connections opened", |worker| &worker.upstream_connects),
            ("upstream_reuses", "Calls sent on a connection that was open already", |worker| &worker.upstream_reuses),
            ("upstream_errors", "Upstream connections that failed or broke", |worker| &worker.upstream_errors),
            ("upstream_retries", "Calls sent again on a fresh connection", |worker| &worker.upstream_retries),
        ];
        for (name, help, field) in fields {
            sink.counter(name, help, self.sum(|worker| field(worker).get()))?;
        }
        let help = "Time from a call's first byte sent upstream to the first byte of its answer";
        let mut durations = sink.family("upstream_duration", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        histogram(&mut durations, &self.snapshot(|worker| &worker.upstream_duration))?;
        let help = "Whether the upstream answered its last probe";
        let mut reachable = sink.family("upstream_reachable", help, None, MetricType::Gauge)?;
        for upstream in self.lifecycle.upstreams() {
            let labels = [("upstream", upstream.name())];
            reachable.encode_family(&labels)?.encode_gauge(&u64::from(upstream.is_reachable()))?;
        }
        let help = "Whether the upstream's circuit breaker is in this state";
        let mut breakers = sink.family("upstream_breaker", help, None, MetricType::Gauge)?;
        for upstream in self.lifecycle.upstreams() {
            for state in [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen] {
                let labels = [("upstream", upstream.name()), ("state", state.name())];
                breakers.encode_family(&labels)?.encode_gauge(&u64::from(upstream.breaker() == state))?;
            }
        }
        Ok(())
    }

    fn encode_audit(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
        let AuditMetrics { written, groups, errors } = &*self.audit;
        sink.counter("audit_events_written", "Audit lines on disk", written.get())?;
        sink.counter("audit_groups_written", "Groups of audit lines, each synced once", groups.get())?;
        sink.counter("audit_errors", "Audit writes or syncs that failed", errors.get())?;
        let refused = self.queues.iter().map(|queue| queue.refused()).sum();
        sink.counter("audit_events_refused", "Events that found their queue full", refused)?;
        let waiting = self.queues.iter().map(|queue| queue.len() as u64).sum();
        sink.gauge("audit_queue_length", "Events waiting for the audit writer", None, waiting)?;
        let healthy = u64::from(self.lifecycle.audit_healthy());
        sink.gauge("audit_healthy", "Whether the audit log can be written", None, healthy)
    }

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

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.family(name, help, None, MetricType::Counter)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> Result<(), Error> {
        self.family(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
    }
}

fn counter<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &[(&str, &str); N],
    value: u64,
) -> Result<(), Error> {
    family.encode_family(labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
}

/// Buckets are handed over one by one; the encoder makes them cumulative.
#[allow(clippy::cast_precision_loss)] // seconds for people: 53 bits are plenty
fn histogram(encoder: &mut MetricEncoder<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let count = snapshot.count();
    let cumulative = snapshot.at_most(&BOUNDS_NS);
    let mut buckets = Vec::with_capacity(BOUNDS_NS.len() + 1);
    let mut before = 0;
    for (bound_ns, up_to) in BOUNDS_NS.iter().zip(&cumulative) {
        buckets.push((*bound_ns as f64 / 1e9, up_to - before));
        before = *up_to;
    }
    buckets.push((f64::INFINITY, count - before));
    encoder.encode_histogram::<NoLabelSet>(snapshot.sum_ns() as f64 / 1e9, count, &buckets, None)
}
