//! The HTTP codecs against vectors that others wrote: llhttp's own tests, AWS's desync classes, smuggler's
//! Transfer-Encoding mutations, and Http11Probe.
//!
//! The vectors lie in `http/*.jsonl` under `RINGWALL_DATA` (else `../shared/data`). Where they are missing the tests say so
//! and pass, but for CI, where they fail. What is tested here is the codec: [`run`] reads a whole byte stream as a connection
//! would, and says which requests it took for complete and how it ended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod desync;
mod llhttp;
mod probe;
#[path = "../support/undisputed.rs"]
mod undisputed;

use std::path::PathBuf;

use ringwall::wire::http1::Progress;
use ringwall::wire::http1::body::{BodyDecoder, Framing};
use ringwall::wire::http1::request::{Body, Method, RequestHead, parse_request};
use serde_json::Value;

const MAX_BODY_BYTES: u64 = 1024 * 1024;

fn rows(file: &str) -> Option<Vec<Value>> {
    let folder = std::env::var_os("RINGWALL_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    let path = folder.join("http").join(file);
    let Ok(text) = std::fs::read_to_string(&path) else {
        assert!(std::env::var_os("CI").is_none(), "{} is missing", path.display());
        println!("skipped: {} is missing (set RINGWALL_DATA)", path.display());
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).expect("a JSON row")).collect())
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// All bytes belong to complete requests, and the connection stays open.
    Open,
    /// All bytes belong to complete requests, and the last asked for a close.
    Closed,
    /// The last asked for a close; what follows it is never looked at.
    ClosedBeforeTheRest,
    /// Refused with this status, and closed.
    Refused(u16),
    /// The last request is not complete: nothing is done with it before its rest comes, or the timeout.
    Incomplete,
}

/// A request that was taken for complete.
#[derive(Debug)]
struct Taken {
    method: Method,
    path: Vec<u8>,
    upgrade: bool,
    start: usize,
}

/// Reads `stream` as one connection does.
fn run(stream: &[u8]) -> (Vec<Taken>, End) {
    let (mut taken, mut at, mut head) = (Vec::new(), 0, RequestHead::default());
    while at < stream.len() {
        let rest = &stream[at..];
        match parse_request(rest, 0, &mut head) {
            Err(reject) => return (taken, End::Refused(reject.status)),
            Ok(Progress::Partial) => return (taken, End::Incomplete),
            Ok(Progress::Complete) => {}
        }
        let start = at;
        at += head.len as usize;
        let framing = match head.body {
            Body::None => Framing::Length(0),
            Body::Length(length) => Framing::Length(length),
            Body::Chunked => Framing::Chunked,
        };
        let mut body = match BodyDecoder::new(framing, MAX_BODY_BYTES) {
            Ok(body) => body,
            Err(_) => return (taken, End::Refused(413)),
        };
        while !body.is_done() {
            match body.decode(&stream[at..]) {
                Err(_) => return (taken, End::Refused(400)),
                Ok(step) if step.consumed == 0 && !step.done => return (taken, End::Incomplete),
                Ok(step) => at += step.consumed,
            }
        }
        taken.push(Taken {
            method: head.method,
            path: head.path(rest).to_vec(),
            upgrade: head.upgrade_websocket,
            start,
        });
        if !head.keep_alive {
            return (taken, if at < stream.len() { End::ClosedBeforeTheRest } else { End::Closed });
        }
    }
    (taken, End::Open)
}

/// The same with a `Host` in every request, without which an HTTP/1.1 request is refused for that alone.
fn with_host(stream: &[u8]) -> Vec<u8> {
    const VERSION: &[u8] = b" HTTP/1.1\r\n";
    if stream.to_ascii_lowercase().windows(7).any(|window| window == b"\r\nhost:") {
        return stream.to_vec();
    }
    let mut out: Vec<u8> = Vec::new();
    for (at, byte) in stream.iter().enumerate() {
        out.push(*byte);
        if stream[..=at].ends_with(VERSION) {
            let target = stream[..=at - VERSION.len()].rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            let authority =
                target.strip_prefix(b"http://").and_then(|rest| rest.split(|byte| b"/?".contains(byte)).next());
            out.extend_from_slice(&[b"Host: ", authority.unwrap_or(b"a"), b"\r\n"].concat());
        }
    }
    out
}

/// The bytes a JSON string stands for: one a character where all fit, else UTF-8.
fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(character).ok()).collect::<Option<_>>().unwrap_or_else(|| text.into())
}
