//! Which calls become spans, and which trace they belong to. Asked only where OTLP is on.

use crate::rpc::{Envelope, scan};
use crate::wire::http1::request::RequestHead;
use crate::wire::traceparent::TraceParent;
use crate::worker::Worker;

/// A call that is recorded for tracing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traced {
    /// Who has called, as far as it says so.
    pub(crate) parent: Option<TraceParent>,
}

impl Worker {
    /// Whether this call is recorded. `head` is that of its request, where there is one: `traceparent` there counts before the one in `_meta`.
    pub(crate) fn trace(&self, head: Option<(&RequestHead, &[u8])>, envelope: &Envelope, raw: &[u8]) -> Option<Traced> {
        let records = self.shared.call_records.as_ref()?;
        let parent = head.and_then(|(head, bytes)| of_head(head, bytes)).or_else(|| of_meta(envelope, raw));
        records.samples(parent.as_ref(), self.messages_decided()).then_some(Traced { parent })
    }
}

/// `traceparent` of a request, if there is just one.
fn of_head(head: &RequestHead, bytes: &[u8]) -> Option<TraceParent> {
    let mut found = head.fields.iter().filter(|field| field.name.of(bytes).eq_ignore_ascii_case(b"traceparent"));
    let (field, None) = (found.next()?, found.next()) else { return None };
    TraceParent::parse(field.value.of(bytes))
}

/// `params._meta.traceparent`, where messages without a head carry it.
fn of_meta(envelope: &Envelope, raw: &[u8]) -> Option<TraceParent> {
    let value = scan::member(raw, envelope.meta?, "traceparent")?;
    TraceParent::parse(scan::text(raw, value)?.decode(raw).as_bytes())
}
