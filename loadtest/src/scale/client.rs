//! A blocking HTTP client of one kept-alive connection: for crowds that stand, and for calls whose headers differ from one to the next.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::ops::Range;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use super::super::generate::Mix;
use super::super::upstream::answer::{self, Answers};

/// Without an answer for this long, a call has failed.
const ANSWER: Duration = Duration::from_secs(10);

/// Longest response; longer ones are a fault.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

pub(super) struct Client {
    stream: TcpStream,
    /// Received and not used; no memory while nothing is.
    received: Vec<u8>,
}

/// A response, as places in what was received.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    /// Value of `Mcp-Session-Id`, where it has one.
    pub(super) session: Option<Vec<u8>>,
    body: Range<usize>,
}

impl Client {
    /// Connects, from this address of the loopback network if one is named.
    pub(super) fn connect(to: SocketAddr, from: Option<Ipv4Addr>) -> io::Result<Self> {
        let stream = from.map_or_else(|| TcpStream::connect(to), |from| connect_from(from, to))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        Ok(Self { stream, received: Vec::new() })
    }

    pub(super) fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request)
    }

    /// Waits for a response, which must be the only thing that comes, and hands it over with its body.
    pub(super) fn receive<T>(&mut self, look: impl FnOnce(&Response, &[u8]) -> io::Result<T>) -> io::Result<T> {
        loop {
            if let Some(response) = whole_response(&self.received)? {
                if response.body.end != self.received.len() {
                    return Err(io::Error::other("more came than the response"));
                }
                let looked = look(&response, self.received.get(response.body.clone()).unwrap_or_default());
                self.received.clear();
                return looked;
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece)? {
                0 => return Err(io::Error::other("the connection was closed")),
                n => self.received.extend_from_slice(piece.get(..n).unwrap_or_default()),
            }
        }
    }

    /// Lets go of the buffer, as a client that says nothing for long.
    pub(super) fn rest(&mut self) {
        self.received = Vec::new();
    }

    /// Whether the connection stands, and nothing has come that was not asked for.
    pub(super) fn is_quiet(&self) -> io::Result<bool> {
        self.stream.set_nonblocking(true)?;
        let looked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false)?;
        Ok(matches!(looked, Err(error) if error.kind() == io::ErrorKind::WouldBlock))
    }
}

/// Connects from an address of the loopback network.
pub(super) fn connect_from(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrV4::new(from, 0))?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// The first response, once it is whole. Only such as announce their length are known here.
fn whole_response(received: &[u8]) -> io::Result<Option<Response>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = head.parse(received).map_err(io::Error::other)? else {
        return if received.len() > MAX_RESPONSE_BYTES { Err(too_long()) } else { Ok(None) };
    };
    let field = |name: &str| head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    let len = field("content-length").and_then(|field| std::str::from_utf8(field.value).ok()?.parse::<usize>().ok());
    let len = len.ok_or_else(|| io::Error::other("a response without a length"))?;
    if len > MAX_RESPONSE_BYTES {
        return Err(too_long());
    }
    let response = Response {
        status: head.code.unwrap_or_default(),
        session: field("mcp-session-id").map(|field| field.value.to_vec()),
        body: start..start + len,
    };
    Ok((received.len() >= start + len).then_some(response))
}

fn too_long() -> io::Error {
    io::Error::other("a response that is too long")
}

/// The plain call of 291 bytes, with room for header fields of its own, and its answer.
pub(super) struct PlainCall {
    head: String,
    message: (Vec<u8>, Vec<u8>),
    arguments: Vec<u8>,
    answer_end: Vec<u8>,
}

/// Ids have so many digits.
const ID_DIGITS: usize = 10;

impl PlainCall {
    /// To this gateway.
    pub(super) fn new(to: SocketAddr) -> io::Result<Self> {
        let mix = Mix::fixed(291);
        let call = mix.calls().first().ok_or_else(|| io::Error::other("a mix without calls"))?;
        let message = call.message();
        let len = message.0.len() + ID_DIGITS + message.1.len();
        Ok(Self {
            head: head_of(to, len),
            message,
            arguments: call.arguments.clone(),
            answer_end: call.answer_end.clone(),
        })
    }

    /// Writes the request with this id over `out`. `fields` are header lines, each with its line end.
    pub(super) fn write(&self, out: &mut Vec<u8>, id: u64, fields: &[u8]) {
        out.clear();
        out.extend_from_slice(self.head.as_bytes());
        out.extend_from_slice(fields);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.message.0);
        out.extend_from_slice(&digits(id));
        out.extend_from_slice(&self.message.1);
    }

    /// That this is the answer to the call with this id.
    pub(super) fn check(&self, id: u64, response: &Response, body: &[u8]) -> io::Result<()> {
        is_answer(id, &self.answer_end, response, body)
    }

    /// The same for the call of an agent: the gateway has put his id in front of the arguments.
    pub(super) fn check_as(&self, agent: &str, id: u64, response: &Response, body: &[u8]) -> io::Result<()> {
        let mut arguments = format!("{{\"agentId\":\"{agent}\",").into_bytes();
        arguments.extend_from_slice(self.arguments.get(1..).unwrap_or_default());
        let mut end = Vec::with_capacity(128);
        Answers::default().write_end(&mut end, &arguments);
        is_answer(id, &end, response, body)
    }
}

fn is_answer(id: u64, end: &[u8], response: &Response, body: &[u8]) -> io::Result<()> {
    let rest = body.strip_prefix(answer::START).and_then(|rest| rest.strip_prefix(digits(id).as_slice()));
    if response.status == 200 && rest == Some(end) {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(body.get(..body.len().min(300)).unwrap_or_default());
    Err(io::Error::other(format!("a wrong answer to call {id}: status {}: {shown}", response.status)))
}

fn digits(id: u64) -> Vec<u8> {
    format!("{:010}", 1_000_000_000 + id).into_bytes()
}

/// A request's head without its last line.
pub(super) fn head_of(to: SocketAddr, body_len: usize) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: {to}\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
         MCP-Protocol-Version: 2025-11-25\r\nContent-Length: {body_len}\r\n"
    )
}

/// The header line with a token.
pub(super) fn authorization(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_taken_once_it_is_whole() -> io::Result<()> {
        let text = b"HTTP/1.1 200 OK\r\nMcp-Session-Id: abc\r\nContent-Length: 2\r\n\r\n{}";
        for cut in 0..text.len() {
            assert_eq!(whole_response(text.get(..cut).unwrap_or_default())?, None);
        }
        let response = whole_response(text)?.ok_or_else(|| io::Error::other("no response"))?;
        assert_eq!((response.status, response.session.as_deref()), (200, Some(&b"abc"[..])));
        assert_eq!(text.get(response.body), Some(&b"{}"[..]));
        assert!(whole_response(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "no length");
        assert!(whole_response(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n").is_err());
        assert!(whole_response(&[b'a'; MAX_RESPONSE_BYTES + 1]).is_err());
        Ok(())
    }

    #[test]
    fn only_the_calls_own_answer_is_taken() -> io::Result<()> {
        let call = PlainCall::new(SocketAddr::from(([127, 0, 0, 1], 1)))?;
        let mut request = Vec::new();
        call.write(&mut request, 7, b"X: y\r\n");
        let text = String::from_utf8_lossy(&request).into_owned();
        let (head, message) = text.split_once("\r\n\r\n").unwrap_or_default();
        assert!(head.ends_with("\r\nX: y") && head.contains("Content-Length: 291"), "{head}");
        assert_eq!(message.len(), 291);
        let body = [answer::START, &digits(7), &call.answer_end].concat();
        let response = |status| Response { status, session: None, body: 0..0 };
        assert!(call.check(7, &response(200), &body).is_ok());
        assert!(call.check(8, &response(200), &body).is_err());
        assert!(call.check_as("a", 7, &response(200), &body).is_err(), "the agent's id is missing");
        let arguments = text.split_once("\"arguments\":{").map(|(_, rest)| rest.trim_end_matches('}'));
        let mut body = [answer::START, &digits(7)].concat();
        Answers::default()
            .write_end(&mut body, format!("{{\"agentId\":\"a\",{}}}", arguments.unwrap_or_default()).as_bytes());
        assert!(call.check_as("a", 7, &response(200), &body).is_ok());
        assert!(call.check_as("b", 7, &response(200), &body).is_err());
        let body = [answer::START, &digits(7), &call.answer_end].concat();
        assert!(call.check(7, &response(404), &body).is_err());
        assert!(call.check(7, &response(200), body.get(1..).unwrap_or_default()).is_err());
        Ok(())
    }
}
