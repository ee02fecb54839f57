//! What clients do, summed over the workers, and a few numbers worker by worker.

use std::fmt::Error;

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{BOUNDS_NS, GUARD_BOUNDS_NS, MetricSources, Sink, counter, gauge, histogram};
use crate::observe::metrics::{Counter, DoorMetrics, Limit, WorkerMetrics};
use crate::state::blocks::BlockKind;
use crate::state::events::Outcome;
use crate::state::lifecycle::Door;

impl MetricSources {
    pub(super) fn encode_calls(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
        let help = "Requests that have ended, by door, upstream, tool and outcome";
        let mut calls = sink.counters("calls", help)?;
        let mut result = Ok(());
        self.tools.each(|row, meaning| {
            let upstream = meaning.upstream.and_then(|index| self.lifecycle.upstreams().get(index));
            let upstream = upstream.map_or("", |upstream| upstream.name());
            for door in Door::ALL {
                for outcome in Outcome::ALL {
                    let count = self.sum(|worker| worker.calls().get(row, *door, *outcome));
                    // A series begins with its first call: most of what could be counted never happens.
                    if count > 0 && result.is_ok() {
                        let labels = [
                            ("door", door.name()),
                            ("upstream", upstream),
                            ("tool", meaning.tool),
                            ("outcome", outcome.wire_name()),
                        ];
                        result = counter(&mut calls, &labels, count);
                    }
                }
            }
        });
        result?;
        let help = "Time from the first byte of a call to the last byte of its answer";
        let mut durations = sink.family("call_duration", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for door in Door::ALL {
            let snapshot = self.snapshot(|worker| &worker.door(*door).call_duration);
            histogram(&mut durations.encode_family(&[("door", door.name())])?, &snapshot, &BOUNDS_NS)?;
        }
        let help = "Time from a whole message to the decision to forward it, of one message in 64";
        let mut guards = sink.family("guard_duration", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        histogram(&mut guards, &self.snapshot(|worker| &worker.guard_duration), &GUARD_BOUNDS_NS)?;
        let in_flight = self.lifecycle.calls_in_flight() as u64;
        sink.gauge("calls_in_flight", "Calls forwarded and not yet answered", in_flight)
    }

    pub(super) fn encode_doors(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
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
        let mut open = sink.gauges("connections_open", "Connections open now")?;
        for door in Door::ALL {
            gauge(&mut open, &[("door", door.name())], self.lifecycle.connections(*door))?;
        }
        let mut answers = sink.counters("http_responses", "HTTP answers by status class")?;
        for (class, name) in [(1, "1xx"), (2, "2xx"), (3, "3xx"), (4, "4xx"), (5, "5xx")] {
            counter(&mut answers, &[("class", name)], self.sum(|worker| worker.responses(class)))?;
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

    pub(super) fn encode_refusals(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
        let mut by_rule = std::collections::BTreeMap::<&'static str, u64>::new();
        for (rule, count) in self.workers.iter().flat_map(|worker| worker.refusals.iter()) {
            *by_rule.entry(rule).or_default() += count;
        }
        let mut refusals = sink.counters("refusals", "Refusals by rule")?;
        for (rule, count) in by_rule {
            counter(&mut refusals, &[("rule", rule)], count)?;
        }
        let mut by_rule = std::collections::BTreeMap::<&'static str, u64>::new();
        for (rule, count) in self.workers.iter().flat_map(|worker| worker.content_findings.iter()) {
            *by_rule.entry(rule).or_default() += count;
        }
        let mut findings = sink.counters("content_findings", "What was found in texts that go to people, by rule")?;
        for (rule, count) in by_rule {
            counter(&mut findings, &[("rule", rule)], count)?;
        }
        let mut found = std::collections::BTreeMap::<&'static str, u64>::new();
        for (rule, count) in self.workers.iter().flat_map(|worker| worker.findings.iter()) {
            *found.entry(rule).or_default() += count;
        }
        let mut findings = sink.counters("inspection_findings", "What inspection has found, by rule")?;
        for (rule, count) in found {
            counter(&mut findings, &[("rule", rule)], count)?;
        }
        let mut found = std::collections::BTreeMap::<&'static str, u64>::new();
        for (rule, count) in self.workers.iter().flat_map(|worker| worker.result_findings.iter()) {
            *found.entry(rule).or_default() += count;
        }
        let mut findings =
            sink.counters("result_findings", "What was found in what tools answer and say of themselves, by rule")?;
        for (rule, count) in found {
            counter(&mut findings, &[("rule", rule)], count)?;
        }
        let mut limits = sink.counters("limits_hit", "Times that something ran into a bound")?;
        for limit in Limit::ALL {
            counter(&mut limits, &[("limit", limit.name())], self.sum(|worker| worker.limits(*limit)))?;
        }
        Ok(())
    }

    /// What the tables of rates had to forget.
    pub(super) fn encode_rate_tables(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
        let help = "Counts that made room for others before they had expired: the table is full";
        let mut evictions = sink.counters("rate_table_evictions", help)?;
        self.rates.iter().try_for_each(|(name, table)| counter(&mut evictions, &[("table", name)], table.evictions()))
    }

    /// Who may not come in.
    pub(super) fn encode_blocks(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
        let view = self.blocks.view();
        let mut blocks = sink.gauges("blocks", "Addresses and networks that are blocked, by kind")?;
        for kind in BlockKind::ALL {
            gauge(&mut blocks, &[("kind", kind.name())], view.count(*kind) as u64)?;
        }
        let mut made = sink.counters("blocks_made", "Blocks that were put in force, by kind")?;
        for kind in BlockKind::ALL {
            counter(&mut made, &[("kind", kind.name())], self.blocks.made(*kind))?;
        }
        let help = "Connections and requests that were refused because of their client's address, on all listeners";
        sink.counter("blocked_attempts", help, self.blocks.refused())
    }

    /// Whether the workers share the load.
    pub(super) fn encode_workers(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
        fn of_doors(worker: &WorkerMetrics, field: fn(&DoorMetrics) -> &Counter) -> u64 {
            Door::ALL.iter().map(|door| field(worker.door(*door)).get()).sum()
        }
        type Field = fn(&WorkerMetrics) -> u64;
        let fields: [(&str, &str, Option<&Unit>, Field); 4] = [
            ("worker_calls", "Requests that have ended, by worker", None, |worker| worker.calls().total()),
            ("worker_connections_accepted", "Connections admitted, by worker", None, |worker| {
                of_doors(worker, |door| &door.connections_accepted)
            }),
            ("worker_received", "Bytes from clients, by worker", Some(&Unit::Bytes), |worker| {
                of_doors(worker, |door| &door.bytes_in)
            }),
            ("worker_sent", "Bytes to clients, by worker", Some(&Unit::Bytes), |worker| {
                of_doors(worker, |door| &door.bytes_out)
            }),
        ];
        for (name, help, unit, field) in fields {
            let mut family = sink.family(name, help, unit, MetricType::Counter)?;
            for (index, worker) in self.workers.iter().enumerate() {
                counter(&mut family, &[("worker", index.to_string().as_str())], field(worker))?;
            }
        }
        let mut in_flight = sink.gauges("worker_calls_in_flight", "Calls forwarded and not yet answered, by worker")?;
        for index in 0..self.workers.len() {
            let count = self.lifecycle.calls_in_flight_of(index) as u64;
            gauge(&mut in_flight, &[("worker", index.to_string().as_str())], count)?;
        }
        Ok(())
    }
}
