//! A client that sends the bytes it is given and reads what comes, a response or a chunk at a time.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::PATIENCE;

/// The door token of every gateway under test.
pub(crate) const TOKEN: &str = "door-token-of-the-black-box-tests-0123456789";

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buf: Vec<u8>,
}

/// One response, decoded.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Status line and fields, with all line ends.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of a field; several are joined.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("JSON is expected: {self:?}"))
    }
}

impl Client {
    /// A stream of the old SSE transport, and the path that its messages are posted to.
    pub(crate) fn old_stream(gateway: &super::Gateway, token: &str) -> (Self, String) {
        let mut client = gateway.client();
        let fields = format!("Authorization: Bearer {token}\r\nAccept: text/event-stream\r\n");
        client.send(format!("GET /sse HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").as_bytes());
        assert_eq!(client.head().status, 200);
        let first = client.event();
        let path = first.lines().find_map(|line| line.strip_prefix("data: ")).unwrap().to_owned();
        (client, path)
    }

    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect_timeout(&address, PATIENCE).expect("connect"))
    }

    /// Whose kernel takes little of what it does not read, however that is set on this machine.
    pub(crate) fn deaf(address: SocketAddr) -> Self {
        Self::with_buffer(address, 64 * 1024)
    }

    /// With a receive buffer of this size, which the kernel doubles and does not change any more.
    pub(crate) fn with_buffer(address: SocketAddr, bytes: usize) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None).unwrap();
        // Before the connection, whose window it decides.
        socket.set_recv_buffer_size(bytes).unwrap();
        socket.connect_timeout(&address.into(), PATIENCE).expect("connect");
        Self::on(socket.into())
    }

    /// On a connection that stands.
    pub(crate) fn on(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, buf: Vec::new() }
    }

    /// Sends all of `bytes`.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send");
    }

    /// Sends as much of `bytes` as the other side takes before it closes.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends and takes the response.
    pub(crate) fn ask(&mut self, bytes: &[u8]) -> Response {
        self.send(bytes);
        self.response()
    }

    pub(crate) fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    /// Reads more. `false` is the end, be it in good order or by a reset.
    fn more(&mut self) -> bool {
        let mut buf = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut buf) {
                Ok(n) => {
                    self.buf.extend_from_slice(&buf[..n]);
                    return n > 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("nothing comes; so far: {}", self.buf.escape_ascii());
                }
                Err(_) => return false,
            }
        }
    }

    /// Whether something has come that was not read, be it the end.
    pub(crate) fn has_more(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let looked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        !self.buf.is_empty() || !looked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Reads until the end and returns all of it.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.buf)
    }

    /// Whether the other side has closed, having sent nothing more.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.buf.is_empty() && !self.more()
    }

    /// The next line without its end; `None` if the connection ends before there is one.
    pub(crate) fn line(&mut self) -> Option<String> {
        let end = self.find(b"\n")?;
        let line = self.take(end + 1);
        Some(String::from_utf8(line[..end].to_vec()).unwrap())
    }

    /// The next `n` bytes; `None` if the connection ends before.
    pub(crate) fn exactly(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.buf.len() < n {
            if !self.more() {
                return None;
            }
        }
        Some(self.take(n))
    }

    /// The head of a response, which must come.
    pub(crate) fn head(&mut self) -> Response {
        self.try_head().expect("a response head")
    }

    /// The head of a response; `None` if the connection ends before there is one.
    pub(crate) fn try_head(&mut self) -> Option<Response> {
        let end = self.find(b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.take(end)).into_owned();
        let status = head.get(9..12).and_then(|digits| digits.parse().ok()).expect("a status");
        Some(Response { status, head, body: Vec::new() })
    }

    /// A whole response, which must come. Interim ones are skipped.
    pub(crate) fn response(&mut self) -> Response {
        self.try_response().expect("a whole response")
    }

    /// A whole response to a HEAD.
    pub(crate) fn head_response(&mut self) -> Response {
        self.head()
    }

    /// A whole response; `None` if the connection ends before there is one.
    pub(crate) fn try_response(&mut self) -> Option<Response> {
        let mut response = self.try_head()?;
        while response.status / 100 == 1 {
            response = self.try_head()?;
        }
        if let Some(length) = response.field("content-length") {
            let length = length.parse().expect("a length");
            while self.buf.len() < length {
                if !self.more() {
                    return None;
                }
            }
            response.body = self.take(length);
        } else if response.field("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk()? {
                response.body.extend_from_slice(&chunk);
            }
        } else if !matches!(response.status, 204 | 304) {
            response.body = self.rest();
        }
        Some(response)
    }

    /// The next chunk: `None` when the connection ends before it, `Some(None)` for the last one.
    pub(crate) fn chunk(&mut self) -> Option<Option<Vec<u8>>> {
        let line = self.find(b"\r\n")?;
        let size = self.take(line + 2);
        let size = usize::from_str_radix(std::str::from_utf8(&size[..line]).unwrap(), 16).expect("a chunk's size");
        while self.buf.len() < size + 2 {
            if !self.more() {
                return None;
            }
        }
        let mut data = self.take(size + 2);
        assert_eq!(data.split_off(size), b"\r\n");
        Some((size > 0).then_some(data))
    }

    /// The next byte, which must come.
    pub(crate) fn byte(&mut self) -> u8 {
        assert!(!self.buf.is_empty() || self.more(), "the connection goes on");
        self.take(1)[0]
    }

    /// The next chunk as text, which must come.
    pub(crate) fn event(&mut self) -> String {
        let chunk = self.chunk().expect("the stream goes on").expect("the stream has not ended");
        String::from_utf8(chunk).unwrap()
    }

    fn find(&mut self, needle: &[u8]) -> Option<usize> {
        let mut from = 0;
        loop {
            if let Some(at) = memchr::memmem::find(&self.buf[from..], needle) {
                return Some(from + at);
            }
            from = self.buf.len().saturating_sub(needle.len() - 1);
            if !self.more() {
                return None;
            }
        }
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        let rest = self.buf.split_off(n);
        std::mem::replace(&mut self.buf, rest)
    }
}
