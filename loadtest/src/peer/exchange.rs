//! One request and its response over a connection of its own, for what is done once: checks, and setting a peer up.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::super::framing::{self, Body};

/// How long a response may take. The slowest is that of a gateway that registers a server and asks it for its tools.
const PATIENCE: Duration = Duration::from_secs(60);

/// More than any response here has.
const MAX_BYTES: usize = 1 << 20;

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// The MCP session that it names.
    pub(crate) session: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Status and the front of the body, for an error.
    pub(crate) fn shown(&self) -> String {
        const SHOWN_BYTES: usize = 300;
        let front = self.body.get(..self.body.len().min(SHOWN_BYTES)).unwrap_or_default();
        format!("status {}: {}", self.status, String::from_utf8_lossy(front))
    }
}

/// POSTs a JSON body. An empty token or session sends none.
pub(crate) fn post(to: SocketAddr, path: &str, token: &str, session: &str, body: &[u8]) -> io::Result<Response> {
    let authorization = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    let session = if session.is_empty() { String::new() } else { format!("Mcp-Session-Id: {session}\r\n") };
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {to}\r\n{authorization}{session}Content-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut received = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = stream.read(&mut buffer)?;
        received.extend_from_slice(buffer.get(..read).unwrap_or_default());
        if let Some(response) = parse(&received)? {
            return Ok(response);
        }
        if read == 0 || received.len() > MAX_BYTES {
            return Err(io::Error::other(format!("no whole response: {}", String::from_utf8_lossy(&received))));
        }
    }
}

/// The response that these bytes are, once they are whole.
fn parse(bytes: &[u8]) -> io::Result<Option<Response>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_len) = head.parse(bytes).map_err(io::Error::other)? else { return Ok(None) };
    let body: Body = framing::body_of(head.headers)?;
    let status = head.code.unwrap_or_default();
    let session = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("mcp-session-id"));
    let session = session.map(|header| String::from_utf8_lossy(header.value).into_owned());
    let rest = bytes.get(head_len..).unwrap_or_default();
    let content = framing::content(rest, body, &mut Vec::new())?.map(|(content, _)| content.to_vec());
    Ok(content.map(|body| Response { status, session, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_taken_when_it_is_whole() -> io::Result<()> {
        let plain = b"HTTP/1.1 403 Forbidden\r\nmcp-session-id: 7e\r\nContent-Length: 2\r\n\r\nno";
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nye\r\n1\r\ns\r\n0\r\n\r\n";
        for (wire, status, session, body) in [(&plain[..], 403, Some("7e"), &b"no"[..]), (chunked, 200, None, b"yes")] {
            for cut in 0..wire.len() {
                assert_eq!(parse(wire.get(..cut).unwrap_or_default())?, None, "{cut}");
            }
            assert_eq!(
                parse(wire)?,
                Some(Response { status, session: session.map(str::to_owned), body: body.to_vec() })
            );
        }
        assert!(parse(b"SSH-2.0-x\r\n").is_err());
        Ok(())
    }
}
