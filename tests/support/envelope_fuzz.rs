//! The body of the fuzz target `envelope`, also run by plain `cargo test` over the vectors.

use ringwall::rpc::era::{self, Header, Mirrored};
use ringwall::rpc::list::{self, ListKind};
use ringwall::rpc::{Envelope, ParamHeaders, Parser, Span, Text, reply, scan, splice};

/// Whatever `raw` is, nothing may panic, and what is found must lie where it is said to lie.
pub(crate) fn envelope(raw: &[u8]) {
    let mut parser = Parser::new(64);
    let mut members = Vec::new();
    if parser.parse_batch(raw, &mut members).is_ok() {
        for member in members {
            let _ = parser.parse(member.of(raw));
        }
    }
    match parser.parse(raw) {
        Ok(found) => accepted(&parser, &found, raw),
        Err(fault) => {
            let mut answer = Vec::new();
            reply::malformed(&mut answer, raw, &fault, reply::EchoId::Null);
            assert!(Parser::new(64).parse(&answer).is_ok(), "our own answer is malformed");
        }
    }
    // The scanner promises not to panic on bytes that nobody has checked.
    let whole = Span::from_usize(0, raw.len());
    for span in scan::elements(raw, whole).chain(scan::members(raw, whole).map(|(_, value)| value)) {
        assert!(span.end as usize <= raw.len());
    }
    let _ = ParamHeaders::from_schema(raw, whole);
}

fn accepted(parser: &Parser, found: &Envelope, raw: &[u8]) {
    let texts = [found.method_text, found.name, found.meta_version.text(), found.protocol_version.text()];
    for text in texts.into_iter().flatten() {
        text_reads_the_same(parser, text, raw);
    }
    let spans = [found.params, found.arguments, found.meta, found.result, found.error, found.id.map(|id| id.span)];
    for span in spans.into_iter().flatten() {
        assert!(!span.is_empty() && span.end as usize <= raw.len());
        // A value of its own: the scanner finds the same bounds.
        assert_eq!(scan::value(span.of(raw)), Some(Span::from_usize(0, span.len() as usize)));
    }
    let mut copy = Vec::new();
    assert!(splice::splice::<&[u8]>(raw, &[], &mut copy).is_ok());
    assert_eq!(copy, raw);
    let mut insert = Vec::new();
    if let Some(place) = splice::agent_id(found, raw, "fuzz\"", &mut insert) {
        let mut out = Vec::new();
        assert!(splice::splice(raw, &[(place, &insert)], &mut out).is_ok());
        assert!(Parser::new(65).parse(&out).is_ok(), "no message any more");
    }
    let mut items = Vec::new();
    for kind in [ListKind::Tools, ListKind::Prompts, ListKind::Resources, ListKind::ResourceTemplates] {
        let _ = list::split(found, raw, kind, &mut items);
    }
    for item in items {
        assert!(item.key.span.start >= item.span.start && item.key.span.end <= item.span.end);
    }
    let header = Header::One(raw.get(..10).unwrap_or(b"2026-07-28"));
    let _ = era::decide(&Mirrored { version: Header::One(b"2026-07-28"), method: header, name: header }, found, raw);
}

fn text_reads_the_same(parser: &Parser, text: Text, raw: &[u8]) {
    let decoded = text.decode(raw);
    assert_eq!(parser.text(text), decoded);
    assert_eq!(decoded.len(), text.len as usize);
    assert!(text.equals(raw, decoded.as_bytes()));
    assert!(text.prefix_span(raw, &decoded).is_some());
}
