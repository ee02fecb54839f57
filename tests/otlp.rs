//! Promise: with `OTEL_EXPORTER_OTLP_ENDPOINT` calls arrive at a collector as spans of their callers' traces, and metrics as well; without it nothing does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/blackbox/mod.rs"]
mod blackbox;

use blackbox::{Gateway, Next, Peer, Upstream, answer, call, initialize, post};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn collector() -> Upstream {
    Upstream::start(|_, conversation| {
        conversation.send(answer(200, "application/x-protobuf", "").as_bytes());
        Next::Keep
    })
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key}: {other:?} in {attributes:?}"),
    }
}

/// All spans that the collector has, with their service's name.
fn spans(collector: &Upstream) -> Vec<(String, Span)> {
    let mut spans = Vec::new();
    for request in collector.requests().iter().filter(|request| request.head.starts_with("POST /v1/traces ")) {
        assert_eq!(request.field("content-type").as_deref(), Some("application/x-protobuf"));
        for of_resource in ExportTraceServiceRequest::decode(&request.body[..]).unwrap().resource_spans {
            let service = text(&of_resource.resource.unwrap().attributes, "service.name");
            let all = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(all.map(|span| (service.clone(), span)));
        }
    }
    spans
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits for so many spans.
fn wait_for(collector: &Upstream, count: usize) -> Vec<(String, Span)> {
    blackbox::until("spans", || spans(collector).len() >= count);
    let spans = spans(collector);
    assert_eq!(spans.len(), count, "{spans:?}");
    spans
}

fn gateway(collector: &Upstream, upstream: &Upstream, more: &[(&str, &str)]) -> Gateway {
    let endpoint = format!("http://{}/", collector.address);
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=0123456789abcdef0123456789abcdef"),
        ("OTEL_SERVICE_NAME", "gate"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
    ];
    Gateway::start(&[&settings[..], more].concat(), upstream.address).ready()
}

/// A call with this header line.
fn call_with(id: usize, line: &str) -> Vec<u8> {
    let bytes = String::from_utf8(post(&call(id))).unwrap();
    bytes.replacen("\r\n", &format!("\r\n{line}\r\n"), 1).into_bytes()
}

#[test]
fn a_call_is_a_span_of_its_callers_trace() {
    let (collector, upstream) = (collector(), Upstream::echo());
    let gateway = gateway(&collector, &upstream, &[]);
    let parent = format!("00-{TRACE}-{CALLER}-01");
    assert_eq!(gateway.client().ask(&call_with(1, &format!("traceparent: {parent}"))).status, 200);
    assert_eq!(upstream.last().field("traceparent"), Some(parent), "the client's own goes on unchanged");
    let (service, span) = wait_for(&collector, 1).remove(0);
    assert_eq!((service.as_str(), span.name.as_str()), ("gate", "tools/call"));
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), CALLER.to_owned()));
    assert!(hex(&span.span_id) != CALLER && span.span_id.iter().any(|byte| *byte != 0));
    assert!(
        span.end_time_unix_nano > span.start_time_unix_nano && span.start_time_unix_nano > 1_700_000_000_000_000_000
    );
    let told = ["ringwall.door", "ringwall.upstream", "ringwall.outcome", "gen_ai.tool.name"];
    assert_eq!(told.map(|key| text(&span.attributes, key)), ["http", "default", "ok", "echo"]);
    let request = collector.requests().into_iter().find(|request| request.head.contains("/v1/traces")).unwrap();
    assert_eq!(request.field("x-api-key").as_deref(), Some("0123456789abcdef0123456789abcdef"));
}

#[test]
fn what_is_no_trace_begins_one_and_who_does_not_record_is_followed() {
    let (collector, upstream) = (collector(), Upstream::echo());
    let gateway = gateway(&collector, &upstream, &[]);
    let lines = [
        format!("traceparent: 00-{TRACE}-{CALLER}-00"),
        format!("traceparent: 00-{}-{CALLER}-01", TRACE.to_uppercase()),
        format!("traceparent: 00-{TRACE}-{CALLER}-01\r\ntraceparent: 00-{TRACE}-{CALLER}-01"),
    ];
    for (id, line) in lines.iter().enumerate() {
        assert_eq!(gateway.client().ask(&call_with(id, line)).status, 200);
    }
    for (_, span) in wait_for(&collector, 2) {
        assert!(span.parent_span_id.is_empty() && hex(&span.trace_id) != TRACE, "{span:?}");
    }
}

#[test]
fn messages_without_a_head_say_it_in_meta() {
    let (collector, upstream) = (collector(), Upstream::echo());
    let gateway = gateway(&collector, &upstream, &[]);
    let mut peer = Peer::tcp(&gateway);
    peer.ask(&initialize());
    let meta = format!("\"_meta\":{{\"traceparent\":\"00-{TRACE}-{CALLER}-01\"}},\"name\"");
    peer.ask(&call(5).replace("\"name\"", &meta));
    let spans = wait_for(&collector, 2);
    let (_, span) = spans.iter().find(|(_, span)| span.name == "tools/call").unwrap();
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), CALLER.to_owned()));
    assert_eq!(text(&span.attributes, "ringwall.door"), "tcp");
}

#[test]
fn metrics_arrive_as_they_are_scraped() {
    let (collector, upstream) = (collector(), Upstream::echo());
    let gateway = gateway(&collector, &upstream, &[("OTEL_TRACES_SAMPLER_ARG", "0")]);
    (0..3).for_each(|id| assert_eq!(gateway.client().ask(&post(&call(id))).status, 200));
    let sum_of = |name: &str| {
        let last = collector.requests().into_iter().rfind(|request| request.head.starts_with("POST /v1/metrics "))?;
        let told = ExportMetricsServiceRequest::decode(&last.body[..]).unwrap();
        let all = told.resource_metrics.into_iter().flat_map(|of| of.scope_metrics).flat_map(|of| of.metrics);
        let json = format!("{:?}", all.clone().find(|metric| metric.name == name)?.data?);
        let names: Vec<_> = all.map(|metric| metric.name).collect();
        assert!(names.len() > 50, "{names:?}");
        Some(json)
    };
    blackbox::until("the calls", || {
        let told = sum_of("ringwall_calls_total").unwrap_or_default();
        told.contains("AsDouble(3.0)") && told.contains("\"echo\"") && told.contains("is_monotonic: true")
    });
    assert!(spans(&collector).is_empty(), "no call is sampled");
}
