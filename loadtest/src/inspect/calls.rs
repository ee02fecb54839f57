//! One call after the other over a kept-alive connection.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::super::framing;
use super::super::peer::Target;
use super::sets::Row;
use super::verdict::Verdict;

const PATIENCE: Duration = Duration::from_secs(60);

/// More than any answer here has.
const MAX_BYTES: usize = 32 << 20;

/// A client of one peer.
pub(super) struct Caller<'a> {
    target: &'a Target,
    stream: Option<TcpStream>,
    received: Vec<u8>,
    id: u64,
}

impl<'a> Caller<'a> {
    pub(super) fn new(target: &'a Target) -> Self {
        Self { target, stream: None, received: Vec::new(), id: 1_000_000_000 }
    }

    /// Makes a call. A connection that the peer has closed between two calls is opened again, once.
    pub(super) fn call(&mut self, row: &Row) -> io::Result<Verdict> {
        self.id += 1;
        let tool = serde_json::to_string(&row.tool)?;
        let body = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"tools/call\",\"params\":{{\"name\":{tool},\"arguments\":{}}}}}",
            self.id, row.arguments
        );
        let was_open = self.stream.is_some();
        let answered = match self.exchange(body.as_bytes()) {
            Err(_) if was_open => {
                self.stream = None;
                self.exchange(body.as_bytes())
            }
            answered => answered,
        };
        let (status, content) = answered?;
        Verdict::of(status, &content).map_err(|error| io::Error::other(format!("{} {}: {error}", row.source, row.id)))
    }

    fn exchange(&mut self, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let Target { address, path, token, .. } = self.target;
        let authorization = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\n{authorization}Content-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect_timeout(address, PATIENCE)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream
            }
        };
        stream.write_all(&[head.as_bytes(), body].concat())?;
        self.received.clear();
        let mut buffer = [0; 64 * 1024];
        loop {
            let read = stream.read(&mut buffer)?;
            self.received.extend_from_slice(buffer.get(..read).unwrap_or_default());
            if let Some((status, content, closes)) = parse(&self.received)? {
                self.stream = (!closes).then_some(stream);
                return Ok((status, content));
            }
            if read == 0 || self.received.len() > MAX_BYTES {
                return Err(io::Error::other("no whole response"));
            }
        }
    }
}

/// Status, body, and whether the connection ends with it, once the response is whole.
fn parse(bytes: &[u8]) -> io::Result<Option<(u16, Vec<u8>, bool)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_len) = head.parse(bytes).map_err(io::Error::other)? else { return Ok(None) };
    let body = framing::body_of(head.headers)?;
    let closes = head
        .headers
        .iter()
        .any(|header| header.name.eq_ignore_ascii_case("connection") && header.value.eq_ignore_ascii_case(b"close"));
    let status = head.code.unwrap_or_default();
    let rest = bytes.get(head_len..).unwrap_or_default();
    let content = framing::content(rest, body, &mut Vec::new())?.map(|(content, _)| content.to_vec());
    Ok(content.map(|content| (status, content, closes)))
}
