//! What is recorded, and what people are told.

use std::fmt::Error;

use super::{MetricSources, Sink, counter, gauge};
use crate::observe::metrics::{AuditMetrics, StoreMetrics};

impl MetricSources {
    pub(super) fn encode_audit(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
        let AuditMetrics { written, groups, errors } = &*self.audit;
        sink.counter("audit_events_written", "Audit lines on disk", written.get())?;
        sink.counter("audit_groups_written", "Groups of audit lines, each synced once", groups.get())?;
        sink.counter("audit_errors", "Audit writes or syncs that failed", errors.get())?;
        let refused = self.queues.iter().map(|queue| queue.refused()).sum();
        sink.counter("audit_events_refused", "Events that found their queue full", refused)?;
        let waiting = self.queues.iter().map(|queue| queue.len() as u64).sum();
        sink.gauge("audit_queue_length", "Events waiting for the audit writer", waiting)?;
        let mut by_worker =
            sink.gauges("worker_audit_queue_length", "Events waiting for the audit writer, by worker")?;
        for (index, queue) in self.queues.iter().take(self.workers.len()).enumerate() {
            gauge(&mut by_worker, &[("worker", index.to_string().as_str())], queue.len() as u64)?;
        }
        sink.gauge("audit_healthy", "Whether the audit log can be written", u64::from(self.lifecycle.audit_healthy()))
    }

    pub(super) fn encode_alerts(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
        let alerts = &*self.alerts;
        let mut raised = sink.counters("alerts", "Alerts by kind and severity")?;
        for (kind, severity, count) in alerts.kinds() {
            counter(&mut raised, &[("kind", kind), ("severity", severity)], count)?;
        }
        let help = "Alerts that were raised again within their quiet time, and not told again";
        sink.counter("alerts_repeated", help, alerts.repeated.get())?;
        sink.counter("alert_webhook_delivered", "Alerts that the webhook has taken", alerts.delivered.get())?;
        let help = "Tries to deliver an alert that the webhook did not take";
        sink.counter("alert_webhook_failed_tries", help, alerts.failed_tries.get())?;
        let help = "Alerts for the webhook that were given up";
        sink.counter("alert_webhook_undelivered", help, alerts.undelivered.get())?;
        sink.gauge("alert_webhook_queue_length", "Alerts that wait for their next try", alerts.waiting())?;
        sink.gauge("anomaly_cases", "Cases of unusual behaviour that go on", alerts.cases())?;
        let help = "Facts about agents and addresses for which the anomaly detector had no place";
        sink.counter("anomaly_overflows", help, alerts.overflowed.get())
    }

    pub(super) fn encode_store(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
        let StoreMetrics { transactions, writes, failures, waiting_writes, waiting_reads } = &*self.store;
        sink.counter("store_transactions", "Transactions of the database, each synced once", transactions.get())?;
        sink.counter("store_writes", "Changes of the database that are on disk", writes.get())?;
        let help = "What the database was asked for and has not done";
        sink.counter("store_failures", help, failures.get())?;
        let mut waiting =
            sink.gauges("store_queue_length", "What the database was asked for and has not answered yet")?;
        gauge(&mut waiting, &[("queue", "write")], waiting_writes.get())?;
        gauge(&mut waiting, &[("queue", "read")], waiting_reads.get())?;
        sink.gauge("store_healthy", "Whether the database can be written", u64::from(self.lifecycle.store_healthy()))
    }

    pub(super) fn encode_spend(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
        let spend = &*self.spend;
        let (settled, unsettled, given_back) = (spend.settled.get(), spend.unsettled.get(), spend.given_back.get());
        let mut closed = sink.counters("spend_reservations", "Calls that cost, by what became of what was reserved")?;
        for (became, count) in [("settled", settled), ("unsettled", unsettled), ("given_back", given_back)] {
            counter(&mut closed, &[("became", became)], count)?;
        }
        let open = spend.reserved.get().saturating_sub(settled + unsettled + given_back);
        sink.gauge("spend_open_reservations", "Reservations of calls that have not ended", open)?;
        sink.counter("spend_microusd", "What calls have cost, millionths of a dollar", spend.microusd.get())?;
        sink.counter("spend_ledger_errors", "Groups of the ledger that the disk refused", spend.failures.get())
    }

    pub(super) fn encode_otlp(&self, sink: &mut Sink<'_, '_>) -> Result<(), Error> {
        let records = self.call_records.as_deref();
        sink.counter("otlp_spans_exported", "Spans that the collector has taken", self.otlp.exported.get())?;
        let dropped = records.map_or(0, |records| records.dropped());
        sink.counter("otlp_spans_dropped", "Spans that found no place, or were not taken", dropped)?;
        sink.counter("otlp_export_failures", "Requests with spans that were not taken", self.otlp.failures.get())?;
        let waiting = records.map_or(0, |records| records.len() as u64);
        sink.gauge("otlp_queue_length", "Spans that wait to be sent", waiting)
    }
}
