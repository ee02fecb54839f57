//! Codecs: `src/wire`, and how `src/worker/framing.rs` puts them together.

use std::hint::black_box;

use ringwall::bench::Frames;
use ringwall::wire::http1::Progress;
use ringwall::wire::http1::body::{BodyDecoder, Framing};
use ringwall::wire::http1::request::{RequestHead, parse_request};
use ringwall::wire::http1::response::{ResponseHead, parse_response};
use ringwall::wire::http1::write;
use ringwall::wire::lines::LineSplitter;
use ringwall::wire::proxy_protocol::{self, Step};
use ringwall::wire::sse::{Splitter, read_event};
use ringwall::wire::websocket::{self, Decoder, Event, Role};

use crate::case::Case;
use crate::inputs::{ANSWER, CALL, MODERN_CALL, MODERN_FIELDS, PROXY_FIELDS, answered, post, session_fields};

pub(crate) fn cases() -> Vec<Case> {
    [http1(), events_and_lines(), websocket(), proxy()].into_iter().flatten().collect()
}

fn http1() -> Vec<Case> {
    let mut head = ResponseHead::default();
    let answer = answered();
    let response = Case::new("http1/response head", answer.len() - ANSWER.len(), move || {
        parse_response(black_box(&answer), 0, false, &mut head) == Ok(Progress::Complete)
    });
    vec![
        request_head("http1/request head, 2025-11-25", post("", &session_fields(""))),
        request_head("http1/request head, 2026-07-28", post("", MODERN_FIELDS)),
        request_head("http1/request head, through proxies", post("", PROXY_FIELDS)),
        response,
        body("http1/body of 291 bytes", Framing::Length(CALL.len() as u64), CALL.as_bytes().to_vec(), CALL.len()),
        body("http1/body of 16 chunks of 256 bytes", Framing::Chunked, chunks(16, 256), 16 * 256),
        fields_copied(),
        chunk_written(),
    ]
}

fn request_head(name: &'static str, received: Vec<u8>) -> Case {
    let mut head = RequestHead::default();
    Case::new(name, received.len(), move || parse_request(black_box(&received), 0, &mut head) == Ok(Progress::Complete))
}

fn chunks(count: usize, len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..count {
        write::chunk(&mut out, &vec![b'x'; len]);
    }
    out.extend_from_slice(write::LAST_CHUNK);
    out
}

/// All of a body that has arrived whole.
fn body(name: &'static str, framing: Framing, received: Vec<u8>, decoded: usize) -> Case {
    Case::new(name, received.len(), move || {
        let Ok(mut decoder) = BodyDecoder::new(black_box(framing), u64::MAX) else { return false };
        let (mut at, mut bytes) = (0, 0);
        while !decoder.is_done() {
            let Ok(step) = decoder.decode(black_box(received.get(at..).unwrap_or_default())) else { return false };
            at += step.consumed;
            bytes += step.data.len() as usize;
        }
        bytes == decoded && at == received.len()
    })
}

fn fields_copied() -> Case {
    let received = post("", PROXY_FIELDS);
    let mut head = RequestHead::default();
    let parsed = parse_request(&received, 0, &mut head) == Ok(Progress::Complete);
    let mut out = Vec::with_capacity(2048);
    Case::new("http1/request fields copied, through proxies", received.len(), move || {
        out.clear();
        write::copy_request_fields(&mut out, black_box(&head), black_box(&received), &[]);
        parsed && !out.is_empty()
    })
}

fn chunk_written() -> Case {
    let mut out = Vec::with_capacity(1024);
    Case::new("http1/chunk written", ANSWER.len(), move || {
        out.clear();
        write::chunk(&mut out, black_box(ANSWER.as_bytes()));
        out.len() == ANSWER.len() + 6
    })
}

fn events_and_lines() -> Vec<Case> {
    let event = format!("event: message\nid: 7\ndata: {ANSWER}\n\n").into_bytes();
    let read = event.clone();
    let mut scratch = Vec::new();
    let lines = format!("{CALL}\n{MODERN_CALL}\n").into_bytes();
    vec![
        Case::new("sse/event split", event.len(), move || {
            Splitter::new(1 << 20).next_event(black_box(&event)).is_ok_and(|span| span.is_some())
        }),
        Case::new("sse/event read", read.len(), move || {
            read_event(black_box(&read), &mut scratch).data == Some(ANSWER.as_bytes())
        }),
        framed("sse/message framed", Frames::events(), ANSWER.as_bytes()),
        Case::new("lines/two lines split", lines.len(), move || {
            let (mut splitter, mut at) = (LineSplitter::new(1 << 20), 0);
            while let Ok(Some(line)) = splitter.next_line(black_box(lines.get(at..).unwrap_or_default())) {
                at += line.consumed;
            }
            at == lines.len()
        }),
        framed("lines/message framed", Frames::lines(), ANSWER.as_bytes()),
    ]
}

fn framed(name: &'static str, mut frames: Frames, message: &'static [u8]) -> Case {
    let mut out = Vec::with_capacity(1024);
    Case::new(name, message.len(), move || {
        out.clear();
        frames.put(&mut out, black_box(message));
        out.len() > message.len()
    })
}

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn websocket() -> Vec<Case> {
    let mut fragments = Vec::new();
    for (index, piece) in CALL.as_bytes().chunks(100).enumerate() {
        let opcode = if index == 0 { websocket::Opcode::Text } else { websocket::Opcode::Continuation };
        websocket::write::frame(&mut fragments, opcode, index == 2, piece, Some(KEY));
    }
    let mut whole = Vec::new();
    websocket::write::text(&mut whole, CALL.as_bytes(), Some(KEY));
    let mut payload = vec![b'x'; 4096];
    let mut header = Vec::with_capacity(16);
    vec![
        messages("websocket/masked message received", whole),
        messages("websocket/message of three fragments received", fragments),
        Case::new("websocket/4 KiB masked", payload.len(), move || {
            websocket::mask(black_box(&mut payload), black_box(KEY));
            true
        }),
        Case::new("websocket/ten headers written", 0, move || {
            header.clear();
            for len in 0..10 {
                websocket::write::header(&mut header, websocket::Opcode::Text, true, black_box(len * 30), None);
            }
            header.len() == 5 * 2 + 5 * 4
        }),
        framed("websocket/message framed by a server", Frames::websocket_server(), ANSWER.as_bytes()),
    ]
}

/// A message that has come whole. Putting it into the buffer, where it is unmasked, is part of it.
fn messages(name: &'static str, received: Vec<u8>) -> Case {
    let mut decoder = Decoder::new(Role::Server, 1 << 20);
    let mut buf = Vec::with_capacity(1024);
    Case::new(name, received.len(), move || {
        buf.extend_from_slice(black_box(&received));
        let text =
            matches!(decoder.next_event(&mut buf), Ok(Some(Event::Text(span))) if span.of(&buf) == CALL.as_bytes());
        text && matches!(decoder.next_event(&mut buf), Ok(None))
    })
}

fn proxy() -> Vec<Case> {
    let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    binary.extend_from_slice(&[203, 0, 113, 9, 10, 0, 0, 1, 0xd4, 0x31, 0x01, 0xbb]);
    let text = b"PROXY TCP4 203.0.113.9 10.0.0.1 54321 443\r\n".to_vec();
    let named = |step| matches!(step, Ok(Step::Header { source: Some(_), .. }));
    vec![
        Case::new("proxy_protocol/version 1", text.len(), move || named(proxy_protocol::parse(black_box(&text)))),
        Case::new("proxy_protocol/version 2", binary.len(), move || named(proxy_protocol::parse(black_box(&binary)))),
    ]
}
