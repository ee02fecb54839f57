//! What is behind the gateway.

use std::fmt::Error;
use std::sync::atomic::Ordering;

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{BOUNDS_NS, MetricSources, Sink, counter, gauge, histogram};
use crate::observe::metrics::{BrokerCounts, Counter, ServerCounts, WorkerMetrics};

impl MetricSources {
    pub(super) fn encode_upstreams(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
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
        let help =
            "Time from the decision to forward a call to the head of an HTTP upstream's answer, of one call in 64";
        let mut durations = sink.family("upstream_duration", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        histogram(&mut durations, &self.snapshot(|worker| &worker.upstream_duration), &BOUNDS_NS)?;
        let mut in_flight = sink.gauges("upstream_calls_in_flight", "Calls in flight, by upstream")?;
        for upstream in self.lifecycle.upstreams() {
            gauge(&mut in_flight, &[("upstream", upstream.name())], upstream.calls.held())?;
        }
        let help = "HTTP connections that wait for a call, by upstream; a quarter of a second old at most";
        let mut idle = sink.gauges("upstream_connections_idle", help)?;
        for (index, upstream) in self.lifecycle.upstreams().iter().enumerate() {
            let of = |worker: &WorkerMetrics| worker.upstream_idle.get(index).map_or(0, |n| n.load(Ordering::Relaxed));
            gauge(&mut idle, &[("upstream", upstream.name())], self.sum(of))?;
        }
        let mut reachable = sink.gauges("upstream_reachable", "Whether the upstream answered its last probe")?;
        for upstream in self.lifecycle.upstreams() {
            gauge(&mut reachable, &[("upstream", upstream.name())], u64::from(upstream.is_reachable()))?;
        }
        Ok(())
    }

    /// Servers that clients share: stdio, and sockets.
    pub(super) fn encode_broker(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
        let BrokerCounts { queued, in_flight, servers } =
            self.broker.as_ref().map(|broker| (broker.0)()).unwrap_or_default();
        sink.gauge("broker_queue_length", "Calls that the broker's thread has not taken up yet", queued)?;
        sink.gauge("broker_calls_in_flight", "Calls to shared servers that have not ended", in_flight)?;
        let help = "Processes of a stdio server, or shared connections to a socket, that there are now";
        let mut instances = sink.gauges("server_instances", help)?;
        for server in &servers {
            gauge(&mut instances, &[("upstream", server.upstream.as_str())], server.instances)?;
        }
        type Field = fn(&ServerCounts) -> u64;
        let fields: [(&str, &str, Field); 4] = [
            ("server_starts", "Processes or shared connections begun", |server| server.starts),
            ("server_crashes", "Processes or shared connections that ended unexpectedly", |server| server.crashes),
            ("server_dropped_messages", "Messages of a shared server that were nobody's, or not read", |server| {
                server.dropped
            }),
            ("server_bad_lines", "Lines of a shared server that were no JSON-RPC or too long", |server| {
                server.bad_lines
            }),
        ];
        for (name, help, field) in fields {
            let mut family = sink.counters(name, help)?;
            for server in &servers {
                counter(&mut family, &[("upstream", server.upstream.as_str())], field(server))?;
            }
        }
        Ok(())
    }
}
