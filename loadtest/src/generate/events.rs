//! Server-sent events as MCP uses them: an answer over HTTP that is a short stream, and the one stream of the 2024-11-05 transport.

use std::io;

use super::super::framing::{self, Body};

/// Takes the first event off, once it is whole: its data goes to `data`, its length on the wire is returned. `is_endpoint` tells whether it names where
/// to post.
fn event(bytes: &[u8], data: &mut Vec<u8>, is_endpoint: &mut bool) -> Option<usize> {
    data.clear();
    *is_endpoint = false;
    let (mut at, mut lines) = (0, 0);
    loop {
        let rest = bytes.get(at..)?;
        let end = memchr::memchr(b'\n', rest)?;
        let line = rest.get(..end)?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        at += end + 1;
        if line.is_empty() {
            return Some(at);
        }
        if let Some(value) = line.strip_prefix(b"data:") {
            if lines > 0 {
                data.push(b'\n');
            }
            lines += 1;
            data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        } else if let Some(value) = line.strip_prefix(b"event:") {
            *is_endpoint = value.trim_ascii() == b"endpoint";
        }
    }
}

/// The one message in a stream that has ended. Events without data, with which servers begin streams, are passed over.
pub(super) fn only_message(stream: &[u8], message: &mut Vec<u8>) -> io::Result<()> {
    let (mut data, mut at, mut found) = (Vec::new(), 0, 0);
    message.clear();
    while let Some(len) = event(stream.get(at..).unwrap_or_default(), &mut data, &mut false) {
        at += len;
        if !data.is_empty() {
            found += 1;
            std::mem::swap(message, &mut data);
        }
    }
    match found {
        1 if at == stream.len() => Ok(()),
        _ => Err(io::Error::other(format!("{found} whole messages in a stream of {} bytes", stream.len()))),
    }
}

/// The stream of the 2024-11-05 transport, as it comes.
pub(super) struct Stream {
    body: Option<Body>,
    /// What chunks have brought and no event has taken.
    pending: Vec<u8>,
    data: Vec<u8>,
}

/// What a stream has said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    Message(&'a [u8]),
    /// Where to post.
    Endpoint(&'a [u8]),
    Nothing,
}

impl Stream {
    pub(super) fn new() -> Self {
        Self { body: None, pending: Vec::new(), data: Vec::new() }
    }

    /// What is said next, and how many of the bytes it has taken; `None` while that is not known.
    pub(super) fn read(&mut self, bytes: &[u8]) -> io::Result<Option<(Said<'_>, usize)>> {
        let Some(body) = self.body else {
            let Some((len, body, head)) = super::http::parse_head(bytes)? else { return Ok(None) };
            if head.status != 200 || !head.is_event_stream {
                return Err(io::Error::other(format!("no stream: {}", super::connection::shown(bytes))));
            }
            self.body = Some(body);
            return Ok(Some((Said::Nothing, len)));
        };
        let mut is_endpoint = false;
        if let Some(len) = event(&self.pending, &mut self.data, &mut is_endpoint) {
            self.pending.drain(..len);
            let said = match (self.data.is_empty(), is_endpoint) {
                (true, _) => Said::Nothing,
                (_, true) => Said::Endpoint(&self.data),
                _ => Said::Message(&self.data),
            };
            return Ok(Some((said, 0)));
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        if body != Body::Chunked {
            self.pending.extend_from_slice(bytes);
            return Ok(Some((Said::Nothing, bytes.len())));
        }
        let Some((data, len)) = framing::chunk(bytes)? else { return Ok(None) };
        if data.is_empty() {
            return Err(io::Error::other("the stream has ended"));
        }
        self.pending.extend_from_slice(data);
        Ok(Some((Said::Nothing, len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_stream_has_one_message() -> io::Result<()> {
        let mut message = Vec::new();
        for stream in [
            "event: message\ndata: {\"a\":1}\n\n",
            "id: 1\ndata:\n\n: hello\n\ndata:{\"a\":1}\n\n",
            "data: {\"a\":1}\r\nevent: message\r\n\r\n",
        ] {
            only_message(stream.as_bytes(), &mut message)?;
            assert_eq!(message, b"{\"a\":1}", "{stream:?}");
        }
        only_message(b"data: {\"a\":\ndata: 1}\n\n", &mut message)?;
        assert_eq!(message, b"{\"a\":\n1}");
        for wrong in ["", "data: 1\n", "data: 1\n\ndata: 2\n\n", "data: 1\n\ndata: 2", ": nothing\n\n"] {
            assert!(only_message(wrong.as_bytes(), &mut message).is_err(), "{wrong:?}");
        }
        Ok(())
    }

    #[test]
    fn a_long_stream_says_the_same_however_it_is_cut() -> io::Result<()> {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        let events = "event: endpoint\ndata: /messages?sessionId=a\n\n: keep-alive\n\nevent: message\ndata: {\"id\":1}\n\ndata: {}\n\n";
        for chunk in [1, 7, 40, 1000] {
            let mut wire = head.as_bytes().to_vec();
            for piece in events.as_bytes().chunks(chunk) {
                wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                wire.extend_from_slice(piece);
                wire.extend_from_slice(b"\r\n");
            }
            for step in [1, 3, 5000] {
                let (mut stream, mut said, mut there) = (Stream::new(), Vec::new(), Vec::new());
                for piece in wire.chunks(step) {
                    there.extend_from_slice(piece);
                    while let Some((what, taken)) = stream.read(&there)? {
                        if what != Said::Nothing {
                            said.push(format!("{what:?}"));
                        }
                        there.drain(..taken);
                    }
                }
                let expected = [
                    format!("{:?}", Said::Endpoint(b"/messages?sessionId=a")),
                    format!("{:?}", Said::Message(b"{\"id\":1}")),
                    format!("{:?}", Said::Message(b"{}")),
                ];
                assert_eq!(said, expected, "chunks of {chunk}, reads of {step}");
            }
        }
        assert!(Stream::new().read(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").is_err());
        Ok(())
    }
}
