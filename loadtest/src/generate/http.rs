//! Calls over HTTP: one POST each, answers in the order of the calls.

use std::io;

use super::super::framing::{self, Body, LastHead};
use super::Load;
use super::mix::{Call, ID_DIGITS};

/// A request whose id is yet to be written.
pub(super) struct Request {
    /// With room for the id.
    pub(super) bytes: Vec<u8>,
    pub(super) id_at: usize,
}

impl Request {
    pub(super) fn new(load: &Load, call: &Call) -> Self {
        let authorization =
            if load.token.is_empty() { String::new() } else { format!("Authorization: Bearer {}\r\n", load.token) };
        let session =
            if load.session.is_empty() { String::new() } else { format!("Mcp-Session-Id: {}\r\n", load.session) };
        let host = load.tls.as_ref().map_or_else(|| load.target.to_string(), |tls| tls.name.clone());
        let mut bytes = format!(
            "POST {} HTTP/1.1\r\nHost: {host}\r\n{authorization}{session}Content-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\nContent-Length: {}\r\n\r\n",
            load.path,
            call.message_len()
        )
        .into_bytes();
        let (start, end) = call.message();
        bytes.extend_from_slice(&start);
        let id_at = bytes.len();
        bytes.extend_from_slice(&[b'0'; ID_DIGITS]);
        bytes.extend_from_slice(&end);
        Self { bytes, id_at }
    }

    /// Appends the request with this id.
    pub(super) fn write(&self, out: &mut Vec<u8>, id: [u8; ID_DIGITS]) {
        let at = out.len() + self.id_at;
        out.extend_from_slice(&self.bytes);
        if let Some(place) = out.get_mut(at..at + ID_DIGITS) {
            place.copy_from_slice(&id);
        }
    }
}

/// What the responses of one connection are read with.
pub(super) struct Responses {
    head: LastHead<u16>,
    joined: Vec<u8>,
}

impl Responses {
    pub(super) fn new() -> Self {
        Self { head: LastHead::new(), joined: Vec::new() }
    }

    /// The message in the response at the front of `bytes`, and the response's length, once it is whole. A response other than 200 is an error.
    pub(super) fn read<'a>(&'a mut self, bytes: &'a [u8]) -> io::Result<Option<(&'a [u8], usize)>> {
        let Some((head_len, body, status)) = self.head.read(bytes, parse_head)? else { return Ok(None) };
        let rest = bytes.get(head_len..).unwrap_or_default();
        let Some((content, body_len)) = framing::content(rest, body, &mut self.joined)? else { return Ok(None) };
        if status != 200 {
            return Err(io::Error::other(format!("status {status}: {}", super::connection::shown(content))));
        }
        Ok(Some((content, head_len + body_len)))
    }
}

fn parse_head(bytes: &[u8]) -> io::Result<Option<(usize, Body, u16)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => {
            Ok(Some((len, framing::body_of(head.headers)?, head.code.unwrap_or_default())))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(io::Error::other(format!("no HTTP response ({error}): {}", super::connection::shown(bytes)))),
    }
}
