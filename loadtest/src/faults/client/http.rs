//! The HTTP door: a connection that is kept, a call at a time.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::super::process::TOKEN;
use super::super::call::{Call, MODERN, TOOL};
use super::super::fault::Door;
use super::super::rng::Rng;
use super::super::stage::{PATIENCE, Stage};
use super::super::verdict::{self, Allowed, Answer, Verdict};
use super::Caller;

/// An answer as it has arrived.
pub(super) struct Response {
    pub(super) status: u16,
    is_json: bool,
    body: Vec<u8>,
    closes: bool,
}

impl Response {
    pub(super) fn answer(&self) -> Answer<'_> {
        Answer { status: Some(self.status), is_json: self.is_json, body: &self.body }
    }
}

/// The bytes of a request.
pub(super) fn request(stage: &Stage, call: &Call, upstream: usize) -> Vec<u8> {
    let prefix = stage.prefix(upstream);
    let body = call.message(&prefix, true);
    format!(
        "POST /mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: {MODERN}\r\nMcp-Method: tools/call\r\n\
         Mcp-Name: {prefix}{TOOL}\r\nContent-Length: {}\r\n\r\n{body}",
        stage.bridge,
        body.len()
    )
    .into_bytes()
}

/// Makes so many calls over a connection of its own, or fewer where it ends before.
pub(super) async fn use_connection(stage: &Rc<Stage>, caller: Caller, rng: &mut Rng, calls: u64) -> io::Result<()> {
    let mut stream = stage.connect(Door::Http, caller.from).await?;
    let guest = stage.let_in(Door::Http, caller.from);
    let mut received = Vec::new();
    let way = stage.way(Door::Http, caller.upstream, false);
    for _ in 0..calls {
        if stage.is_over.get() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(rng.below(2 * stage.pace_ms.get() + 1))).await;
        let (fault, shape) = stage.choose(caller.upstream, rng);
        let call = stage.ledger.begin(way, caller.upstream, fault, shape, Allowed::NOTHING);
        let exchanged = async {
            stream.write_all(&request(stage, &call, caller.upstream)).await?;
            response(&mut stream, &mut received).await
        };
        let (verdict, goes_on) = match tokio::time::timeout(PATIENCE, exchanged).await {
            Err(_) => (Verdict::Lost, false),
            // What has come of a body is shown where it should not have been cut.
            Ok(Err(_)) => (Verdict::Cut, false),
            Ok(Ok(response)) => {
                let verdict = verdict::of(&call, &response.answer());
                stage.ledger.end(call.number, verdict, &response.body);
                if response.closes {
                    break;
                }
                continue;
            }
        };
        stage.ledger.end(call.number, verdict, &received);
        // What has come of an answer belongs to the call that has ended.
        received.clear();
        if !goes_on {
            break;
        }
    }
    if !received.is_empty() && stage.ledger.open_calls() == 0 {
        stage.ledger.violated("no wrong answer", format!("{} bytes that nobody asked for", received.len()));
    }
    drop(guest);
    Ok(())
}

/// Reads one answer. An error: the connection ended before the answer's end.
pub(super) async fn response(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Response> {
    loop {
        if let Some((len, response)) = whole_response(received)? {
            received.drain(..len);
            return Ok(response);
        }
        if stream.read_buf(received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn whole_response(received: &[u8]) -> io::Result<Option<(usize, Response)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = parsed.parse(received).map_err(io::Error::other)? else { return Ok(None) };
    let field = |name: &str| {
        let found = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let rest = received.get(head..).unwrap_or_default();
    let body = match (field("content-length"), field("transfer-encoding")) {
        (Some(length), None) => {
            let length: usize = length.parse().map_err(io::Error::other)?;
            rest.get(..length).map(|body| (length, body.to_vec()))
        }
        (None, Some("chunked")) => dechunked(rest)?,
        _ => return Err(io::Error::other("an answer without framing")),
    };
    let Some((len, body)) = body else { return Ok(None) };
    let response = Response {
        status: parsed.code.unwrap_or_default(),
        is_json: field("content-type") == Some("application/json"),
        closes: field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
        body,
    };
    Ok(Some((head + len, response)))
}

/// The length of a chunked body and what it says, once it is whole.
fn dechunked(bytes: &[u8]) -> io::Result<Option<(usize, Vec<u8>)>> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(end) = memchr::memchr(b'\n', rest) else { return Ok(None) };
        let line = std::str::from_utf8(rest.get(..end).unwrap_or_default()).map_err(io::Error::other)?;
        let size = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        let Some(chunk) = rest.get(end + 1..end + 1 + size + 2) else { return Ok(None) };
        let Some(data) = chunk.strip_suffix(b"\r\n") else { return Err(io::Error::other("a chunk without an end")) };
        at += end + 1 + size + 2;
        if size == 0 {
            return Ok(Some((at, body)));
        }
        body.extend_from_slice(data);
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_framing_says_so() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nabcd",
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n3\r\nbcd\r\n0\r\n\r\n",
        ] {
            for end in 0..text.len() {
                let part = text.get(..end).unwrap_or_default();
                assert!(whole_response(part.as_bytes()).expect("well made").is_none(), "{part}");
            }
            let with_more = format!("{text}HTTP/1.1 ");
            let (len, response) = whole_response(with_more.as_bytes()).expect("well made").expect("whole");
            assert_eq!((len, response.body.as_slice(), response.is_json), (text.len(), &b"abcd"[..], true));
        }
    }
}
