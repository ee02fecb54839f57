//! Responses over HTTP, in the order of their calls.

use std::io;

use super::super::framing::{self, Body, LastHead};
use super::{connection, events};

/// What a head says beside the framing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) is_event_stream: bool,
}

/// What the responses of one connection are read with.
pub(super) struct Responses {
    head: LastHead<Head>,
    joined: Vec<u8>,
    message: Vec<u8>,
    /// The last `Mcp-Session-Id`.
    pub(super) session: Option<String>,
}

impl Responses {
    pub(super) fn new() -> Self {
        Self { head: LastHead::new(), joined: Vec::new(), message: Vec::new(), session: None }
    }

    /// The status of the response at the front of `bytes`, its message, and its length on the wire, once it is whole.
    pub(super) fn read<'a>(&'a mut self, bytes: &'a [u8]) -> io::Result<Option<(u16, &'a [u8], usize)>> {
        let session = &mut self.session;
        let found = self.head.read(bytes, |bytes| {
            let found = parse_head(bytes)?;
            if let Some((len, ..)) = found {
                *session = session_of(bytes.get(..len).unwrap_or_default());
            }
            Ok(found)
        })?;
        let Some((head_len, body, head)) = found else { return Ok(None) };
        let rest = bytes.get(head_len..).unwrap_or_default();
        let Some((content, body_len)) = framing::content(rest, body, &mut self.joined)? else { return Ok(None) };
        let len = head_len + body_len;
        if head.is_event_stream && head.status == 200 {
            events::only_message(content, &mut self.message)?;
            return Ok(Some((head.status, &self.message, len)));
        }
        Ok(Some((head.status, content, len)))
    }
}

pub(super) fn parse_head(bytes: &[u8]) -> io::Result<Option<(usize, Body, Head)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let len = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => {
            return Err(io::Error::other(format!("no HTTP response ({error}): {}", connection::shown(bytes))));
        }
    };
    let is_event_stream = response.headers.iter().any(|header| {
        let kind = header.value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        header.name.eq_ignore_ascii_case("content-type") && kind.eq_ignore_ascii_case(b"text/event-stream")
    });
    let status = response.code.unwrap_or_default();
    Ok(Some((len, framing::body_of(response.headers)?, Head { status, is_event_stream })))
}

fn session_of(head: &[u8]) -> Option<String> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(head).ok()?;
    let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("mcp-session-id"))?;
    String::from_utf8(header.value.to_vec()).ok()
}
