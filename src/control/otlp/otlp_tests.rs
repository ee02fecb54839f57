#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::state::events::clip;
use crate::state::lifecycle::{Door, UpstreamState};
use crate::wire::traceparent::TraceParent;

fn record(outcome: Outcome, parent: Option<TraceParent>) -> CallRecord {
    CallRecord {
        parent,
        door: Door::Ws,
        upstream: Some(0),
        method: "tools/call",
        tool: clip("echo"),
        outcome,
        ended_at_ms: 1_700_000_000_000,
        duration_ns: 1_500_000,
    }
}

fn made(record: &CallRecord) -> SpanData {
    let lifecycle = Lifecycle::new(1, vec![Arc::new(UpstreamState::new("crm"))]);
    span(record, &lifecycle, &InstrumentationScope::builder("ringwall").build()).unwrap()
}

#[test]
fn a_call_becomes_a_span_of_its_callers_trace() {
    let parent = TraceParent { trace_id: 7 << 70, span_id: 9, sampled: true };
    let span = made(&record(Outcome::ToolError, Some(parent)));
    assert_eq!(span.span_context.trace_id(), TraceId::from(7 << 70));
    assert_eq!((span.parent_span_id, span.parent_span_is_remote), (SpanId::from(9), true));
    assert_ne!(span.span_context.span_id(), span.parent_span_id);
    assert_eq!(span.end_time.duration_since(span.start_time).unwrap(), Duration::from_nanos(1_500_000));
    let attribute = |name: &str| {
        let found = span.attributes.iter().find(|one| one.key.as_str() == name);
        found.map(|one| one.value.as_str().into_owned()).unwrap_or_default()
    };
    let told = ["mcp.method.name", "ringwall.door", "ringwall.upstream", "ringwall.outcome", "gen_ai.tool.name"]
        .map(attribute);
    assert_eq!(told, ["tools/call", "ws", "crm", "tool_error", "echo"]);
    assert_eq!(span.status, Status::error("tool_error"));
}

#[test]
fn a_call_without_a_caller_begins_a_trace() {
    let (one, two) = (made(&record(Outcome::Ok, None)), made(&record(Outcome::Ok, None)));
    assert!(one.span_context.is_valid() && one.parent_span_id == SpanId::INVALID && !one.parent_span_is_remote);
    assert_ne!(one.span_context.trace_id(), two.span_context.trace_id());
    assert_eq!(one.status, Status::Unset);
}

#[test]
fn headers_are_pairs() {
    let read = |text: &str| headers(Some(&Secret::new(text)));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        read("api-key=a=b, x-tenant = blue").unwrap(),
        HashMap::from([pair("api-key", "a=b"), pair("x-tenant", "blue")])
    );
    assert!(headers(None).unwrap().is_empty());
    for wrong in ["", "a", "=b", "a=b,"] {
        assert!(read(wrong).is_err(), "{wrong:?}");
    }
}
