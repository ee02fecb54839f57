//! What `/metrics` tells, as OTLP metrics.
//!
//! The SDK's periodic reader asks on a thread of its own. All instruments observe one reading of the exposition, taken anew when the last is older than
//! half a second, so that what is sent together belongs together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};

use crate::observe::metrics::MetricSources;

/// A reading serves all instruments of one collection.
const FRESH: Duration = Duration::from_millis(500);

/// One series of the exposition.
#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<KeyValue>,
    value: f64,
}

/// How a series is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sum,
    Gauge,
}

/// The last reading.
struct Readings {
    sources: MetricSources,
    last: ArcSwapOption<(Instant, Vec<Sample>)>,
}

impl Readings {
    fn now(&self) -> Arc<(Instant, Vec<Sample>)> {
        if let Some(last) = self.last.load_full().filter(|last| last.0.elapsed() < FRESH) {
            return last;
        }
        let samples = self.sources.encode().map(|text| samples(&text)).unwrap_or_default();
        let reading = Arc::new((Instant::now(), samples));
        self.last.store(Some(Arc::clone(&reading)));
        reading
    }
}

/// Sends them for as long as the process lives.
pub(super) fn start(exporter: MetricExporter, resource: Resource, interval: Duration, sources: MetricSources) {
    let declared = declared(&sources.encode().unwrap_or_default());
    let readings = Arc::new(Readings { sources, last: ArcSwapOption::empty() });
    let reader = PeriodicReader::builder(exporter).with_interval(interval).build();
    let provider = SdkMeterProvider::builder().with_resource(resource).with_reader(reader).build();
    let meter = provider.meter("ringwall");
    for (name, kind, help) in declared {
        let (readings, series) = (Arc::clone(&readings), name.clone());
        let each = move |observe: &dyn Fn(f64, &[KeyValue])| {
            for sample in readings.now().1.iter().filter(|sample| sample.name == series) {
                observe(sample.value, &sample.labels);
            }
        };
        match kind {
            Kind::Sum => drop(
                meter
                    .f64_observable_counter(name)
                    .with_description(help)
                    .with_callback(move |observer| each(&|value, labels| observer.observe(value, labels)))
                    .build(),
            ),
            Kind::Gauge => drop(
                meter
                    .f64_observable_gauge(name)
                    .with_description(help)
                    .with_callback(move |observer| each(&|value, labels| observer.observe(value, labels)))
                    .build(),
            ),
        }
    }
    // Its end would flush, and wait for the control thread, which is what ends. Its thread ends with the process.
    std::mem::forget(provider);
}

/// The series that an exposition declares.
fn declared(text: &str) -> Vec<(String, Kind, String)> {
    let mut help = "";
    let mut all = Vec::new();
    for line in text.lines() {
        if let Some(told) = line.strip_prefix("# HELP ") {
            help = told.split_once(' ').map_or("", |(_, help)| help);
        }
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' ')) else { continue };
        let mut declare = |suffix: &str, kind| all.push((format!("{name}{suffix}"), kind, help.to_owned()));
        match kind {
            "counter" => declare("_total", Kind::Sum),
            "gauge" => declare("", Kind::Gauge),
            "info" => declare("_info", Kind::Gauge),
            "histogram" => ["_sum", "_count"].iter().for_each(|suffix| declare(suffix, Kind::Sum)),
            _ => {}
        }
    }
    all
}

/// The samples of an exposition that we have written.
fn samples(text: &str) -> Vec<Sample> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        None => (series, Vec::new()),
        Some((name, inner)) => (name, labels(inner.strip_suffix('}')?)?),
    };
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
}

/// `name="value",…`, with what is escaped in values taken back.
fn labels(mut text: &str) -> Option<Vec<KeyValue>> {
    let mut labels = Vec::new();
    while !text.is_empty() {
        let (name, quoted) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = quoted.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => value.push(match chars.next()? {
                    'n' => '\n',
                    plain => plain,
                }),
                plain => value.push(plain),
            }
        }
        labels.push(KeyValue::new(name.to_owned(), value));
        text = chars.as_str();
        text = text.strip_prefix(',').unwrap_or(text);
    }
    Some(labels)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_exposition_is_read_back() {
        let text = "# HELP a_bytes What\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total{l=\"x \\\"y\\\"\\\\\\n,}\",m=\"\"} 2.5\n\
                    # HELP h_seconds How long\n# TYPE h_seconds histogram\nh_seconds_sum 1\nh_seconds_bucket{le=\"1.0\"} 1\n\
                    # HELP g How many\n# TYPE g gauge\ng 7\n# EOF\n";
        let want = [
            ("a_bytes_total", Kind::Sum),
            ("h_seconds_sum", Kind::Sum),
            ("h_seconds_count", Kind::Sum),
            ("g", Kind::Gauge),
        ];
        let found = declared(text);
        assert_eq!(found.iter().map(|(name, kind, _)| (name.as_str(), *kind)).collect::<Vec<_>>(), want);
        assert_eq!(found[3].2, "How many");
        let samples = samples(text);
        let labels = vec![KeyValue::new("l", "x \"y\"\\\n,}"), KeyValue::new("m", "")];
        assert_eq!(samples[0], Sample { name: "a_bytes_total".to_owned(), labels, value: 2.5 });
        assert_eq!(samples.len(), 4);
    }
}
