//! llhttp's own cases, requests and responses.

use ringwall::wire::http1::Progress;
use ringwall::wire::http1::body::{BodyDecoder, Framing};
use ringwall::wire::http1::request::Method;
use ringwall::wire::http1::response::{ResponseHead, parse_response};

use super::{End, MAX_BODY_BYTES, Taken, rows, run, with_host};

/// llhttp writes its cases as Markdown: line ends are CRLF, and some bytes are escaped.
fn unescape(block: &str) -> Vec<u8> {
    let text = block.replace("\\\n", "").replace('\n', "\r\n");
    let text = text.replace("\\r", "\r").replace("\\n", "\n").replace("\\t", "\t").replace("\\f", "\x0c");
    text.into_bytes()
}

/// llhttp's strict accept cases that are refused here, and why.
const STRICTER_THAN_LLHTTP: &[(&str, &str)] = &[
    ("request/content-length.md:`Content-Length` with zeroes", "a leading zero makes a length octal to some readers"),
    ("request/content-length.md:`Content-Length` with follow-up headers", "the same"),
    ("request/method.md:M-SEARCH request", "an asterisk target is for OPTIONS (RFC 9112 §3.2.4)"),
    ("request/method.md:SOURCE request with ICE", "another protocol"),
    ("request/method.md:OPTIONS request with RTSP", "another protocol"),
    ("request/method.md:ANNOUNCE request with RTSP", "another protocol"),
    ("request/sample.md:curl GET", "a Host with `=` in it"),
    ("request/sample.md:Firefox GET", "a Host with `=` in it"),
    ("request/sample.md:No HTTP version", "HTTP/0.9"),
    ("request/transfer-encoding.md:Trailing headers", "Content-Type must not be a trailer (RFC 9110 §6.5.1)"),
    ("request/transfer-encoding.md:POST with `chunked` as last transfer-encoding", "codings before chunked: 501"),
    ("request/transfer-encoding.md:POST with `chunked` as last transfer-encoding (multiple headers)", "two lines"),
    ("request/uri.md:Fragment in URI", "no request target has a fragment (RFC 9112 §3.2)"),
    ("request/uri.md:`host:port` and basic auth", "user information in a target (RFC 9110 §4.2.4)"),
];

/// llhttp's "reject" cases that are none: it pauses there, so that its caller may switch protocols.
const PAUSES: &[&str] = &["request/connection.md:Setting a flag and pausing"];

#[test]
fn llhttp_requests() {
    let Some(rows) = rows("llhttp_blocks.jsonl") else {
        return;
    };
    let (mut refused, mut accepted, mut faults) = (0, 0, Vec::new());
    for row in rows.iter().filter(|row| row["class"] == "http1_request" && row["lenient"] == false) {
        let (id, label) = (row["id"].as_str().unwrap(), row["label"].as_str().unwrap());
        let as_written = unescape(row["block"].as_str().unwrap());
        let stream = with_host(&as_written);
        let (taken, end) = run(&stream);
        // llhttp knows no methods but its own list; here any token is a method, and the door answers 405 to the unknown.
        let all_taken = |taken: &[Taken], end: &End| {
            matches!(end, End::Open | End::Closed) && taken.iter().all(|request| request.method != Method::Other)
        };
        if label == "reject" {
            let (bare_taken, bare_end) = run(&as_written);
            if all_taken(&bare_taken, &bare_end) || all_taken(&taken, &end) && !PAUSES.contains(&id) {
                faults.push(format!("accepted: {id}: {taken:?}"));
            }
            refused += 1;
        } else if STRICTER_THAN_LLHTTP.iter().any(|(name, _)| *name == id) {
            if !matches!(end, End::Refused(_)) {
                faults.push(format!("not stricter any more: {id}"));
            }
        } else if matches!(end, End::Refused(_)) {
            faults.push(format!("refused: {id}: {end:?} {}", stream.escape_ascii()));
        } else {
            accepted += 1;
        }
    }
    println!(
        "llhttp requests: {refused} reject cases refused, {accepted} accept cases accepted, {} not",
        STRICTER_THAN_LLHTTP.len()
    );
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn llhttp_responses() {
    let Some(rows) = rows("llhttp_blocks.jsonl") else {
        return;
    };
    let (mut refused, mut faults) = (0, Vec::new());
    let refusals = rows
        .iter()
        .filter(|row| row["class"] == "http1_response" && row["lenient"] == false && row["label"] == "reject");
    for row in refusals {
        let stream = unescape(row["block"].as_str().unwrap());
        let mut head = ResponseHead::default();
        let outcome = match parse_response(&stream, 0, false, &mut head) {
            Err(_) | Ok(Progress::Partial) => None,
            Ok(Progress::Complete) => whole_body(head.framing, &stream[head.len as usize..]),
        };
        match outcome {
            // Bytes behind a complete answer to one request are never looked at: the connection is dropped.
            Some(taken) if head.len as usize + taken == stream.len() => faults.push(format!("{}: {head:?}", row["id"])),
            _ => refused += 1,
        }
    }
    println!("llhttp responses: {refused} reject cases refused");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// How many bytes the body takes; `None` when it is broken or not complete.
fn whole_body(framing: Framing, bytes: &[u8]) -> Option<usize> {
    let mut body = BodyDecoder::new(framing, MAX_BODY_BYTES).ok()?;
    let mut taken = 0;
    loop {
        let step = body.decode(&bytes[taken..]).ok()?;
        taken += step.consumed;
        match step.consumed {
            _ if step.done => return Some(taken),
            0 => return body.finish().is_ok().then_some(taken),
            _ => {}
        }
    }
}
