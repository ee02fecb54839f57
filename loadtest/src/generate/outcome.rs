//! What a run has shown.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// What a run has shown. All of it is about the recorded calls.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// All of them answered as they should be.
    pub(crate) calls: u64,
    /// Those of them that failed, as they were to or were allowed to.
    pub(crate) errors: u64,
    /// From the begin of the first call to the last answer.
    pub(crate) took: Duration,
    /// Nanoseconds, of the calls that did not fail; of an open schedule counted from when a call was due.
    pub(crate) latency: Histogram<u64>,
    /// Calls of an open schedule that were due while no connection was free; those of the warm-up as well.
    pub(crate) waited: u64,
    /// The latest that a call of an open schedule was begun although a connection was free: the generator itself was late.
    pub(crate) generator_late: Duration,
    /// CPU time of the measured processes, all threads, ended ones among them.
    pub(crate) cpu: Option<Duration>,
    /// CPU time of the generator's thread.
    pub(crate) generator_cpu: Duration,
}

/// The quantiles that are written down.
pub(crate) const QUANTILES: [(&str, f64); 7] =
    [("p50", 0.5), ("p75", 0.75), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999), ("p99_99", 0.9999), ("max", 1.0)];

impl Outcome {
    pub(crate) fn calls_per_s(&self) -> f64 {
        self.calls as f64 / self.took.as_secs_f64()
    }

    /// The latency that so many calls (0.5, 0.99) did not exceed, µs.
    pub(crate) fn latency_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// CPU time of the measured processes for a call, µs.
    pub(crate) fn cpu_us(&self) -> Option<f64> {
        self.cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / self.calls as f64)
    }

    /// CPU time of the generator for a call, µs.
    pub(crate) fn generator_cpu_us(&self) -> f64 {
        self.generator_cpu.as_secs_f64() * 1e6 / self.calls as f64
    }

    /// The latencies that occurred, nanoseconds (to three digits), and how often.
    pub(crate) fn histogram(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.latency.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()))
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let quantiles: serde_json::Map<_, _> =
            QUANTILES.iter().map(|(name, quantile)| ((*name).to_owned(), self.latency_us(*quantile).into())).collect();
        let mut fields = serializer.serialize_struct("Outcome", 10)?;
        fields.serialize_field("calls", &self.calls)?;
        fields.serialize_field("errors", &self.errors)?;
        fields.serialize_field("took_s", &self.took.as_secs_f64())?;
        fields.serialize_field("calls_per_s", &self.calls_per_s())?;
        fields.serialize_field("cpu_us_per_call", &self.cpu_us())?;
        fields.serialize_field("generator_cpu_us_per_call", &self.generator_cpu_us())?;
        fields.serialize_field("waited", &self.waited)?;
        fields.serialize_field("generator_late_us", &(self.generator_late.as_secs_f64() * 1e6))?;
        fields.serialize_field("latency_us", &quantiles)?;
        fields.serialize_field("histogram_ns", &self.histogram().collect::<Vec<_>>())?;
        fields.end()
    }
}
