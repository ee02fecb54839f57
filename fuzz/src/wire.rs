//! What must hold of the wire codecs for every input. The fuzz targets and `tests/corpus_replay.rs` share these functions.
//!
//! The property behind all three: how bytes are cut into reads never changes what they say.
#![allow(dead_code, reason = "each target uses one function")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a failed check is a panic here")]

use ringwall::wire::http1::body::{BodyDecoder, BodyError, Framing};
use ringwall::wire::http1::request::{Body, RequestHead, parse_request};
use ringwall::wire::http1::response::{BadUpstream, ResponseHead, parse_response};
use ringwall::wire::http1::{MAX_FIELDS, MAX_HEAD_BYTES, Progress, Reject};
use ringwall::wire::sse::{Splitter, read_event};

const MAX_BODY_BYTES: u64 = 64 * 1024;

/// Requests one behind the other, until one is refused, incomplete, or the last.
pub(crate) fn http_request(data: &[u8]) {
    let mut rest = data;
    for _ in 0..16 {
        let mut whole = RequestHead::default();
        let result = parse_request(rest, 0, &mut whole);
        let mut pieces = RequestHead::default();
        let piecewise = byte_by_byte(rest, Ok(Progress::Partial), |buf, from| parse_request(buf, from, &mut pieces));
        if result != Ok(Progress::Complete) {
            assert_ne!(piecewise, Ok(Progress::Complete), "refused whole, accepted in pieces");
            return;
        }
        assert_eq!(piecewise, Ok(Progress::Complete), "accepted whole, not in pieces");
        assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        check_request(&whole, rest);
        rest = &rest[whole.len as usize..];
        let framing = match whole.body {
            Body::None => Framing::Length(0),
            Body::Length(length) => Framing::Length(length),
            Body::Chunked => Framing::Chunked,
        };
        match body(framing, rest) {
            Ok(Some(taken)) if whole.keep_alive => rest = &rest[taken..],
            _ => return,
        }
    }
}

fn check_request(head: &RequestHead, buf: &[u8]) {
    let raw = &buf[..head.len as usize];
    assert!(raw.len() <= MAX_HEAD_BYTES && head.fields.len() <= MAX_FIELDS);
    let lines = raw.strip_prefix(b"\r\n").unwrap_or(raw);
    let blank = lines.windows(4).position(|window| window == b"\r\n\r\n");
    assert_eq!(blank, Some(lines.len() - 4), "a head ends at its first blank line");
    assert!(lines.windows(2).all(|pair| (pair[0] == b'\r') == (pair[1] == b'\n')), "no bare CR or LF");
    assert!(!raw.contains(&0));
    let count = |name: &[u8]| head.values(buf, name).count();
    assert_eq!(count(b"content-length") + count(b"transfer-encoding"), usize::from(head.body != Body::None));
    assert!(head.values(buf, b"host").count() <= 1);
    let mut out = Vec::new();
    ringwall::wire::http1::write::copy_request_fields(&mut out, head, buf, &[]);
    assert!(out.windows(4).all(|window| window != b"\r\n\r\n"), "passed-on fields end no head");
}

/// One response with its body, to a GET and to a HEAD.
pub(crate) fn http_response(data: &[u8]) {
    for to_head in [false, true] {
        let mut whole = ResponseHead::default();
        let result = parse_response(data, 0, to_head, &mut whole);
        let mut pieces = ResponseHead::default();
        let piecewise = byte_by_byte::<BadUpstream>(data, Ok(Progress::Partial), |buf, from| {
            parse_response(buf, from, to_head, &mut pieces)
        });
        if result != Ok(Progress::Complete) {
            assert_ne!(piecewise, Ok(Progress::Complete), "refused whole, accepted in pieces");
            continue;
        }
        assert_eq!(piecewise, Ok(Progress::Complete), "accepted whole, not in pieces");
        assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        assert!((200..=599).contains(&whole.status));
        assert!(whole.framing != Framing::UntilClose || !whole.keep_alive);
        let mut out = Vec::new();
        ringwall::wire::http1::write::copy_response_fields(&mut out, &whole, data);
        assert!(out.windows(4).all(|window| window != b"\r\n\r\n"), "passed-on fields end no head");
        let _ = body(whole.framing, &data[whole.len as usize..]);
    }
}

/// A stream of events.
pub(crate) fn sse(data: &[u8]) {
    let whole = events(data, data.len());
    let pieces = events(data, 1);
    assert_eq!(whole.raw.concat(), pieces.raw.concat());
    assert_eq!(whole.said, pieces.said);
    assert_eq!(whole.at_boundary, pieces.at_boundary);
    let stream = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    assert!(stream.starts_with(&whole.raw.concat()));
    // Line ends are normalized first, so this reads events in another way than the splitter does.
    let mut text = Vec::new();
    for (index, byte) in stream.iter().enumerate() {
        match byte {
            b'\r' => text.push(b'\n'),
            b'\n' if index > 0 && stream[index - 1] == b'\r' => {}
            other => text.push(*other),
        }
    }
    let mut said = Vec::new();
    let mut data_lines: Vec<&[u8]> = Vec::new();
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    lines.pop();
    for line in lines {
        if line.is_empty() && !data_lines.is_empty() {
            said.push(std::mem::take(&mut data_lines).join(&b'\n'));
        } else if line == b"data" {
            data_lines.push(b"");
        } else if let Some(value) = line.strip_prefix(b"data:") {
            data_lines.push(value.strip_prefix(b" ").unwrap_or(value));
        }
    }
    assert_eq!(whole.said, said);
}

struct Events {
    raw: Vec<Vec<u8>>,
    said: Vec<Vec<u8>>,
    at_boundary: bool,
}

fn events(data: &[u8], step: usize) -> Events {
    let (mut splitter, mut start, mut scratch) = (Splitter::new(data.len() + 1), 0, Vec::new());
    let mut events = Events { raw: Vec::new(), said: Vec::new(), at_boundary: true };
    let mut end = 0;
    while end < data.len() {
        end = (end + step).min(data.len());
        while let Some(span) = splitter.next_event(&data[start..end]).unwrap() {
            let raw = span.of(&data[start..end]);
            if let Some(text) = read_event(raw, &mut scratch).data {
                events.said.push(text.to_vec());
            }
            events.raw.push(raw.to_vec());
            start += span.end as usize;
        }
    }
    events.at_boundary = splitter.at_boundary();
    events
}

fn byte_by_byte<E: Copy + PartialEq>(
    buf: &[u8],
    nothing: Result<Progress, E>,
    mut parse: impl FnMut(&[u8], usize) -> Result<Progress, E>,
) -> Result<Progress, E> {
    let mut result = nothing;
    for end in 1..=buf.len().min(MAX_HEAD_BYTES) {
        result = parse(&buf[..end], end - 1);
        if result != nothing {
            break;
        }
    }
    result
}

/// How many bytes of `buf` the body takes; checked to be, and to say, the same byte by byte.
fn body(framing: Framing, buf: &[u8]) -> Result<Option<usize>, Reject> {
    let whole = decode(framing, buf, buf.len().max(1));
    assert_eq!(whole, decode(framing, buf, 1));
    let (decoded, taken) = whole?;
    assert!(decoded.len() as u64 <= MAX_BODY_BYTES && decoded.len() <= buf.len());
    Ok(taken)
}

fn decode(framing: Framing, buf: &[u8], step: usize) -> Result<(Vec<u8>, Option<usize>), BodyError> {
    let mut decoder = BodyDecoder::new(framing, MAX_BODY_BYTES)?;
    let (mut decoded, mut start, mut end) = (Vec::new(), 0, 0);
    loop {
        let part = decoder.decode(&buf[start..end])?;
        decoded.extend_from_slice(part.data.of(&buf[start..end]));
        start += part.consumed;
        if part.done {
            return Ok((decoded, Some(start)));
        }
        if part.consumed == 0 {
            if end == buf.len() {
                return Ok((decoded, None));
            }
            end = (end + step).min(buf.len());
        }
    }
}
