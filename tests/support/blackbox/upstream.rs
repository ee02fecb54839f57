//! Servers that follow a script and remember every byte they are sent.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::{PATIENCE, id_of, result};

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Which connection it came on, from 0 in the order of first bytes.
    pub(crate) connection: usize,
    /// Request line and fields, with all line ends.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Received {
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

    pub(crate) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// The JSON-RPC method; empty where there is none.
    pub(crate) fn rpc_method(&self) -> String {
        let message: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        message["method"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn id(&self) -> String {
        id_of(&self.body)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What a server does after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Waits for another request.
    Keep,
    /// Closes the connection.
    Close,
}

/// The server's side of one connection, for a script to answer on.
pub(crate) struct Conversation {
    pub(crate) stream: TcpStream,
    /// Requests that this connection has carried, the present one included.
    pub(crate) count: usize,
    log: Arc<Shared>,
}

impl Conversation {
    /// Sends; `false` when the other side has gone.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// An answer with a length.
    pub(crate) fn json(&mut self, body: &str) -> Next {
        if self.send(answer_json(body).as_bytes()) { Next::Keep } else { Next::Close }
    }

    /// The usual answer to any message.
    pub(crate) fn echo(&mut self, request: &Received) -> Next {
        if request.id() == "null" {
            return self.accepted();
        }
        self.json(&result(&request.id(), "{\"content\":[{\"type\":\"text\",\"text\":\"done\"}]}"))
    }

    /// The head of an event stream in chunks.
    pub(crate) fn begin_events(&mut self) -> bool {
        self.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    }

    /// An answer as JSON, or as the one event of a stream.
    pub(crate) fn json_or_event(&mut self, is_event: bool, body: &str) -> Next {
        if !is_event {
            return self.json(body);
        }
        self.begin_events();
        self.chunk(format!("id: e1\ndata: {body}\n\n").as_bytes());
        self.end_chunks()
    }

    /// What a notification is answered (2025-11-25, Streamable HTTP).
    pub(crate) fn accepted(&mut self) -> Next {
        if self.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n") { Next::Keep } else { Next::Close }
    }

    pub(crate) fn chunk(&mut self, data: &[u8]) -> bool {
        let chunk = [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat();
        self.send(&chunk)
    }

    pub(crate) fn end_chunks(&mut self) -> Next {
        if self.send(b"0\r\n\r\n") { Next::Keep } else { Next::Close }
    }

    /// Waits until the other side closes. `false` when it sends something instead.
    pub(crate) fn wait_for_close(&mut self) -> bool {
        !matches!(read(&mut self.stream, &mut [0; 1]), Ok(1..))
    }

    /// Notes something for the test to see.
    pub(crate) fn note(&self, what: &str) {
        self.log.change(|log| log.notes.push(what.to_owned()));
    }

    /// Whether that was noted before, in any conversation.
    pub(crate) fn has_noted(&self, what: &str) -> bool {
        self.log.change(|log| log.notes.iter().any(|note| note == what))
    }

    /// Says a word to other conversations, as the test may.
    pub(crate) fn say(&self, word: &str) {
        self.log.change(|log| log.said.push(word.to_owned()));
    }

    /// Waits until the test has said this ([`Upstream::say`]), however often.
    pub(crate) fn wait_for(&self, word: &str) {
        self.log.wait("the test's word", |log| log.said.iter().any(|said| said == word));
    }
}

/// What a server remembers.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) requests: Vec<Received>,
    /// All bytes of each connection that sent any.
    pub(crate) bytes: BTreeMap<usize, Vec<u8>>,
    /// Connections that have ended, in order.
    pub(crate) closed: Vec<usize>,
    pub(crate) notes: Vec<String>,
    /// How long after the beginning of its last answer each connection was closed by the script, where it was.
    pub(crate) closes: Vec<Duration>,
    said: Vec<String>,
    connections: usize,
}

#[derive(Default)]
struct Shared {
    log: Mutex<Log>,
    changed: Condvar,
    stopped: AtomicBool,
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        let changed = change(&mut self.log.lock().unwrap());
        self.changed.notify_all();
        changed
    }

    fn wait(&self, what: &str, mut done: impl FnMut(&Log) -> bool) {
        let log = self.log.lock().unwrap();
        let (log, timeout) = self.changed.wait_timeout_while(log, PATIENCE, |log| !done(log)).unwrap();
        assert!(
            !timeout.timed_out(),
            "waited too long: {what}; {} requests, closed {:?}",
            log.requests.len(),
            log.closed
        );
    }
}

/// A running server; it takes no more connections when it is dropped.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Upstream {
    /// Answers each request with `script`.
    pub(crate) fn start(script: impl Fn(&Received, &mut Conversation) -> Next + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (script, server) = (Arc::new(script), Arc::clone(&shared));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if server.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (script, server) = (Arc::clone(&script), Arc::clone(&server));
                std::thread::spawn(move || serve(stream, &server, &*script));
            }
        });
        Self { address, shared }
    }

    /// Answers every request with a small result.
    pub(crate) fn echo() -> Self {
        Self::start(|request, conversation| conversation.echo(request))
    }

    /// Waits until the log is as wanted.
    pub(crate) fn wait(&self, what: &str, done: impl FnMut(&Log) -> bool) {
        self.shared.wait(what, done);
    }

    /// Looks at the log.
    pub(crate) fn log<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&self.shared.log.lock().unwrap())
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.log(|log| log.requests.clone())
    }

    /// Forgets the requests and takes them.
    pub(crate) fn take_requests(&self) -> Vec<Received> {
        self.shared.change(|log| {
            log.bytes.clear();
            std::mem::take(&mut log.requests)
        })
    }

    /// The last request, which must be there.
    pub(crate) fn last(&self) -> Received {
        self.log(|log| log.requests.last().cloned()).expect("a request")
    }

    /// Says a word that scripts wait for ([`Conversation::wait_for`]).
    pub(crate) fn say(&self, word: &str) {
        self.shared.change(|log| log.said.push(word.to_owned()));
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// An address that refuses connections for as long as this lives: bound, so that nobody else gets it, and never listening.
pub(crate) struct Nobody {
    pub(crate) address: SocketAddr,
    _socket: socket2::Socket,
}

impl Nobody {
    pub(crate) fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        Self { address: socket.local_addr().unwrap().as_socket().unwrap(), _socket: socket }
    }
}

fn serve(
    stream: TcpStream,
    shared: &Arc<Shared>,
    script: &(dyn Fn(&Received, &mut Conversation) -> Next + Send + Sync),
) {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut conversation = Conversation { stream, count: 0, log: Arc::clone(shared) };
    let (mut buf, mut number) = (Vec::new(), None);
    while let Some((head, body)) = read_request(&mut conversation.stream, &mut buf, |bytes| {
        shared.change(|log| {
            let number = *number.get_or_insert_with(|| {
                log.connections += 1;
                log.connections - 1
            });
            log.bytes.entry(number).or_default().extend_from_slice(bytes);
        });
    }) {
        let request = Received { connection: number.unwrap_or_default(), head, body };
        shared.change(|log| log.requests.push(request.clone()));
        conversation.count += 1;
        let answering = Instant::now();
        if script(&request, &mut conversation) == Next::Close {
            let _ = conversation.stream.shutdown(Shutdown::Both);
            shared.change(|log| log.closes.push(answering.elapsed()));
            break;
        }
    }
    let _ = conversation.stream.shutdown(Shutdown::Both);
    if let Some(number) = number {
        shared.change(|log| log.closed.push(number));
    }
}

/// One request. What the gateway sends is always framed by a length.
fn read_request(stream: &mut TcpStream, buf: &mut Vec<u8>, mut seen: impl FnMut(&[u8])) -> Option<(String, Vec<u8>)> {
    let mut chunk = vec![0; 64 * 1024];
    loop {
        if let Some(end) = memchr::memmem::find(buf, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buf[..end + 4]).into_owned();
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, value)| value.trim().parse::<usize>().expect("a length"));
            if buf.len() >= end + 4 + length {
                let rest = buf.split_off(end + 4 + length);
                let body = std::mem::replace(buf, rest).split_off(end + 4);
                return Some((head, body));
            }
        }
        match read(stream, &mut chunk) {
            Ok(n @ 1..) => {
                seen(&chunk[..n]);
                buf.extend_from_slice(&chunk[..n]);
            }
            _ => return None,
        }
    }
}

/// Reads, and again where a signal interrupts it: the system does not, of a socket with a time limit.
fn read(stream: &mut TcpStream, buf: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match stream.read(buf) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// `200 OK` with a JSON body and its length.
pub(crate) fn answer_json(body: &str) -> String {
    answer(200, "application/json", body)
}

/// An answer with a length.
pub(crate) fn answer(status: u16, content_type: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
