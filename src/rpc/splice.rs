//! Copying a message with a few spans replaced: ids, progress tokens, tool name prefixes, the agent's id. Nothing is
//! re-serialized; every other byte goes on as it came.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use super::envelope::{AgentId, Envelope, Kind};
use super::method::Method;
use super::reply::push_string;
use super::scan::skip_blanks;
use crate::span::Span;

/// Edits that overlap, are out of order, or lie outside of the message. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("edits overlap, are out of order or lie outside of the message")]
pub struct BadEdits;

/// Appends `raw` to `out` with each span replaced by its bytes. An empty span inserts. Edits must stand in order of position, as
/// [`sort`] puts them.
///
/// # Errors
/// [`BadEdits`].
pub fn splice<B: AsRef<[u8]>>(raw: &[u8], edits: &[(Span, B)], out: &mut Vec<u8>) -> Result<(), BadEdits> {
    let mut last = 0u32;
    let mut grown = raw.len();
    for (span, bytes) in edits {
        if span.start < last || span.end < span.start || span.end as usize > raw.len() {
            return Err(BadEdits);
        }
        last = span.end;
        grown = grown.saturating_add(bytes.as_ref().len());
    }
    out.reserve(grown);
    let mut from = 0u32;
    for (span, bytes) in edits {
        out.extend_from_slice(Span::new(from, span.start).of(raw));
        out.extend_from_slice(bytes.as_ref());
        from = span.end;
    }
    out.extend_from_slice(raw.get(from as usize..).unwrap_or(&[]));
    Ok(())
}

/// Puts edits in order of position.
pub fn sort(edits: &mut [(Span, &[u8])]) {
    edits.sort_by_key(|(span, _)| (span.start, span.end));
}

/// Where and what to write so that a `tools/call` carries `agentId`: the bytes go to `insert` (cleared first), the place is
/// returned. It is put first into `arguments`; without `arguments`, these are put first into `params`. An `agentId` that is there
/// already is replaced.
///
/// `None` when the message is no `tools/call`, or has a lookalike of the key, which must be refused instead: some parsers would
/// take it for the agent's id, whatever stands before it.
pub fn agent_id(envelope: &Envelope, raw: &[u8], agent_id: &str, insert: &mut Vec<u8>) -> Option<Span> {
    insert.clear();
    if envelope.method != Method::ToolsCall || !matches!(envelope.kind, Kind::Request | Kind::Notification) {
        return None;
    }
    match envelope.agent_id {
        AgentId::Text(text) => {
            push_string(insert, agent_id);
            return Some(text.span);
        }
        AgentId::OtherType(span) => {
            push_string(insert, agent_id);
            return Some(span);
        }
        AgentId::Lookalike(_) => return None,
        AgentId::Absent => {}
    }
    let (object, wrapped) = match envelope.arguments {
        Some(arguments) => (arguments, false),
        None => (envelope.params?, true),
    };
    if object.of(raw).first() != Some(&b'{') {
        return None;
    }
    insert.extend_from_slice(if wrapped { b"\"arguments\":{\"agentId\":" } else { b"\"agentId\":" });
    push_string(insert, agent_id);
    if wrapped {
        insert.push(b'}');
    }
    let place = object.inner().start;
    if raw.get(skip_blanks(raw, place as usize)) != Some(&b'}') {
        insert.push(b',');
    }
    Some(Span::at(place))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::rpc::Parser;
    use proptest::prelude::*;

    fn with_agent(raw: &str, agent: &str) -> Option<String> {
        let envelope = Parser::new(64).parse(raw.as_bytes()).expect(raw);
        let mut insert = Vec::new();
        let place = agent_id(&envelope, raw.as_bytes(), agent, &mut insert)?;
        let mut out = Vec::new();
        splice(raw.as_bytes(), &[(place, &insert)], &mut out).unwrap();
        let again = Parser::new(64).parse(&out).expect("still a message");
        match again.agent_id {
            AgentId::Text(text) => assert_eq!(text.decode(&out), agent),
            other => panic!("{other:?}"),
        }
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_agent_is_put_in() {
        let call = |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        for (params, want) in [
            (r#"{"name":"t","arguments":{"a":1}}"#, r#"{"name":"t","arguments":{"agentId":"sam","a":1}}"#),
            (r#"{"name":"t","arguments":{ } }"#, r#"{"name":"t","arguments":{"agentId":"sam" } }"#),
            (r#"{"name":"t"}"#, r#"{"arguments":{"agentId":"sam"},"name":"t"}"#),
            (
                r#"{"name":"t","arguments":{"agentId":"eve","a":1}}"#,
                r#"{"name":"t","arguments":{"agentId":"sam","a":1}}"#,
            ),
            (
                r#"{"name":"t","arguments":{"agentId": [1] ,"a":1}}"#,
                r#"{"name":"t","arguments":{"agentId": "sam" ,"a":1}}"#,
            ),
        ] {
            assert_eq!(with_agent(&call(params), "sam").unwrap(), call(want));
        }
        assert!(with_agent(&call(r#"{"name":"t","arguments":{}}"#), "a\"\\\n\u{7f}é").is_some());
        for params in
            [r#"{"name":"t","arguments":{"agentid":"x"}}"#, r#"{"name":"t","arguments":{"agentId":"x","AGENTID":"y"}}"#]
        {
            assert_eq!(with_agent(&call(params), "sam"), None);
        }
        assert_eq!(with_agent(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#, "sam"), None);
        assert_eq!(with_agent(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, "sam"), None);
    }

    #[test]
    fn bad_edits_write_nothing() {
        let raw = b"0123456789";
        for edits in [
            &[(Span::new(3, 5), &b"x"[..]), (Span::new(4, 6), b"y")][..],
            &[(Span::new(5, 6), b"x"), (Span::new(1, 2), b"y")],
            &[(Span::new(8, 11), b"x")],
            &[(Span { start: 5, end: 4 }, b"x")],
        ] {
            let mut out = Vec::new();
            assert_eq!(splice(raw, edits, &mut out), Err(BadEdits));
            assert!(out.is_empty());
        }
    }

    proptest! {
        /// Against the plain way: replace from the back.
        #[test]
        fn agrees_with_replacing_from_the_back(
            raw in prop::collection::vec(any::<u8>(), 0..80),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..9)), 0..5),
        ) {
            let mut at: Vec<usize> = cuts.iter().map(|(i, _)| i.index(raw.len() + 1)).collect();
            at.sort_unstable();
            let spans: Vec<Span> = at.chunks_exact(2).map(|c| Span::from_usize(c[0], c[1])).collect();
            let mut edits: Vec<(Span, &[u8])> = spans.iter().zip(&cuts).map(|(s, (_, b))| (*s, b.as_slice())).rev().collect();
            sort(&mut edits);
            let mut want = raw.clone();
            for (span, bytes) in edits.iter().rev() {
                want.splice(span.start as usize..span.end as usize, bytes.iter().copied());
            }
            let mut out = b"before".to_vec();
            splice(&raw, &edits, &mut out).unwrap();
            prop_assert_eq!(&out[6..], &want[..]);
        }
    }
}
