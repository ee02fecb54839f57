//! OTLP over HTTP with protobuf: calls as spans, and what `/metrics` tells. Off unless `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
//!
//! Spans are made here, from records that workers have copied into a bounded queue ([`CallRecords`]), and sent once a second, at most
//! [`BATCH`] at a time. What is not taken is not kept: it is counted. The client's `traceparent` is the span's parent; the client's own goes on to the upstream
//! unchanged, so our span and the upstream's are siblings.
//!
//! Metrics are those of `/metrics`, read from the same text, every `OTEL_METRIC_EXPORT_INTERVAL`: counters and gauges as they are, of a histogram
//! its sum and its count. Both go out through one client, on the control thread, without proxies and redirects.

mod meters;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};

use crate::observe::metrics::{MetricSources, OtlpMetrics};
use crate::settings::Secret;
use crate::state::call_records::{CallRecord, CallRecords};
use crate::state::events::Outcome;
use crate::state::lifecycle::Lifecycle;

/// Spans of one request: about 300 KiB.
const BATCH: usize = 512;
/// How often records are looked for.
const EVERY: Duration = Duration::from_secs(1);
/// For one request, retries of the exporter included.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where it goes.
pub struct OtlpConfig {
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, without a slash at its end; `/v1/traces` and `/v1/metrics` are put behind it.
    pub endpoint: String,
    /// `OTEL_EXPORTER_OTLP_HEADERS`: `name=value`, separated by commas.
    pub headers: Option<Secret>,
    /// `OTEL_SERVICE_NAME`.
    pub service_name: String,
    /// `OTEL_METRIC_EXPORT_INTERVAL`.
    pub metric_interval: Duration,
}

/// OTLP cannot be set up. Says nothing of the headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("OTLP cannot be set up: {0}")]
pub struct Unusable(&'static str);

/// Sends requests on the control thread, whoever asks: the exporter of metrics runs on a thread of the SDK's.
#[derive(Debug)]
struct OnControl {
    runtime: tokio::runtime::Handle,
    client: reqwest::Client,
}

impl HttpClient for OnControl {
    // What `async_trait` would write; one function needs no macro.
    fn send_bytes<'s, 'f>(
        &'s self,
        request: Request<Bytes>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move { client.send_bytes(request).await });
        Box::pin(async move { sent.await? })
    }
}

/// Sends spans and metrics for as long as the control thread lives. Called on it.
///
/// # Errors
/// [`Unusable`].
pub(super) fn start(
    config: &OtlpConfig,
    records: Arc<CallRecords>,
    sources: &MetricSources,
) -> Result<impl Future<Output = ()> + use<>, Unusable> {
    let client = client()?;
    let on_control = || OnControl { runtime: tokio::runtime::Handle::current(), client: client.clone() };
    let headers = headers(config.headers.as_ref())?;
    let resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", config.service_name.clone()),
            KeyValue::new("service.version", sources.version),
        ])
        .build();
    let mut spans = SpanExporter::builder()
        .with_http()
        .with_http_client(on_control())
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", config.endpoint))
        .with_headers(headers.clone())
        .with_timeout(TIMEOUT)
        .build()
        .map_err(|_| Unusable("the exporter of traces does not take OTEL_EXPORTER_OTLP_ENDPOINT"))?;
    spans.set_resource(&resource);
    let metrics = MetricExporter::builder()
        .with_http()
        .with_http_client(on_control())
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/metrics", config.endpoint))
        .with_headers(headers)
        .with_timeout(TIMEOUT)
        .build()
        .map_err(|_| Unusable("the exporter of metrics does not take OTEL_EXPORTER_OTLP_ENDPOINT"))?;
    meters::start(metrics, resource, config.metric_interval, sources.clone());
    let (lifecycle, counts) = (Arc::clone(&sources.lifecycle), Arc::clone(&sources.otlp));
    Ok(send_spans(spans, records, lifecycle, counts))
}

fn client() -> Result<reqwest::Client, Unusable> {
    let tls = crate::upstream::tls::client_config(None).map_err(|_| Unusable("TLS cannot be set up"))?;
    reqwest::Client::builder()
        .tls_backend_preconfigured((*tls).clone())
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        .user_agent(concat!("ringwall/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|_| Unusable("the HTTP client cannot be set up"))
}

/// `name=value,…`, as the OpenTelemetry specification writes headers, without its percent-encoding.
fn headers(given: Option<&Secret>) -> Result<HashMap<String, String>, Unusable> {
    let Some(given) = given else { return Ok(HashMap::new()) };
    let wrong = Unusable("OTEL_EXPORTER_OTLP_HEADERS is not name=value, separated by commas");
    let text = std::str::from_utf8(given.expose()).map_err(|_| wrong)?;
    let pair = |item: &str| item.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
    text.split(',').map(|item| pair(item).filter(|(name, _)| !name.is_empty()).ok_or(wrong)).collect()
}

async fn send_spans(
    exporter: SpanExporter,
    records: Arc<CallRecords>,
    lifecycle: Arc<Lifecycle>,
    counts: Arc<OtlpMetrics>,
) {
    let scope = InstrumentationScope::builder("ringwall").with_version(env!("CARGO_PKG_VERSION")).build();
    loop {
        tokio::time::sleep(EVERY).await;
        loop {
            let taken = std::iter::from_fn(|| records.pop()).take(BATCH);
            let batch: Vec<SpanData> = taken.filter_map(|record| span(&record, &lifecycle, &scope)).collect();
            if batch.is_empty() {
                break;
            }
            let spans = batch.len() as u64;
            match exporter.export(batch).await {
                Ok(()) => counts.exported.add(spans),
                Err(error) => {
                    tracing::debug!(%error, spans, "spans were not taken");
                    counts.failures.inc();
                    records.drop_more(spans);
                }
            }
        }
    }
}

/// A call as a span. `None` where the system gives no random bytes for its id.
fn span(record: &CallRecord, lifecycle: &Lifecycle, scope: &InstrumentationScope) -> Option<SpanData> {
    let mut random = [0; 24];
    getrandom::fill(&mut random).ok()?;
    let (trace, own) = random.split_first_chunk::<16>()?;
    let trace_id = record.parent.map_or(u128::from_be_bytes(*trace), |parent| parent.trace_id);
    let own = own.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))?;
    let context =
        SpanContext::new(TraceId::from(trace_id), SpanId::from(own), TraceFlags::SAMPLED, false, TraceState::default());
    let end_time = UNIX_EPOCH + Duration::from_millis(record.ended_at_ms);
    let start_time = end_time.checked_sub(Duration::from_nanos(record.duration_ns)).unwrap_or(SystemTime::UNIX_EPOCH);
    let upstream = record.upstream.and_then(|index| lifecycle.upstreams().get(usize::from(index)));
    let mut attributes = vec![
        KeyValue::new("rpc.system", "jsonrpc"),
        KeyValue::new("mcp.method.name", record.method),
        KeyValue::new("ringwall.door", record.door.name()),
        KeyValue::new("ringwall.outcome", record.outcome.wire_name()),
    ];
    attributes.extend(upstream.map(|upstream| KeyValue::new("ringwall.upstream", upstream.name().to_owned())));
    if !record.tool.is_empty() {
        attributes.push(KeyValue::new("gen_ai.tool.name", record.tool.to_string()));
    }
    Some(SpanData {
        span_context: context,
        parent_span_id: record.parent.map_or(SpanId::INVALID, |parent| SpanId::from(parent.span_id)),
        parent_span_is_remote: record.parent.is_some(),
        span_kind: SpanKind::Server,
        // Methods are few; a tool's name is an attribute, because clients make names up.
        name: record.method.into(),
        start_time,
        end_time,
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: match record.outcome {
            Outcome::Ok | Outcome::Cancelled => Status::Unset,
            failed => Status::error(failed.wire_name()),
        },
        instrumentation_scope: scope.clone(),
    })
}

#[cfg(test)]
#[path = "otlp/otlp_tests.rs"]
mod tests;
