//! Streamable HTTP upstreams: one exchange over a pooled connection.
//!
//! Connections are pooled per worker ([`super::pool`]).
//!
//! **A kept-alive connection that the upstream closes costs no call and doubles none.** Servers close kept-alive connections as
//! they please, and the close can cross our request on the wire. Sending a `tools/call` again could run it twice; not sending it
//! again would lose it. What decides is whether the upstream's kernel ever took the request: a socket that is already closed
//! answers data with a reset and acknowledges nothing. So a request is sent again, on a fresh connection, only when the
//! failed one had been used before, no byte of an answer came, and TCP says that no byte of the request was
//! acknowledged. In every other case the caller is told that the outcome is unknown. An upstream that announces how long it
//! keeps idle connections (`Keep-Alive: timeout=N`) is believed. Against a server that closes right after an answer, without
//! a word, while our next request lies acknowledged and unread in its kernel, the pool lets connections rest.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use monoio::net::TcpStream;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::pool::Pool;
use super::tls::TlsStream;
use crate::bounds;
use crate::settings::{self, policy::HttpTarget};
use crate::state::call_limit::{CallLimit, CallPermit};
use crate::state::lifecycle::UpstreamState;
use crate::state::upstream_credential::CredentialSlot;
use crate::sys::socket;
use crate::wire::http1::Progress;
use crate::wire::http1::body::{BodyDecoder, Framing};
use crate::wire::http1::response::{BadUpstream, Content, ResponseHead, parse_response};
use crate::worker::Worker;
use crate::worker::stream::Stream;
use crate::worker::timers::{Deadline, OnExpiry};

/// Why an exchange gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// No address is known for the host.
    #[error("the upstream's host name does not resolve")]
    Unresolved,
    /// It is to be shown a credential that the vault does not have.
    #[error("the vault has no credential for the upstream")]
    Credential,
    /// No connection could be made, or TLS failed; nothing was sent.
    #[error("the upstream cannot be reached")]
    Connect,
    /// The connection broke after the request was sent: it may have been carried out.
    #[error("the upstream closed the connection before it answered")]
    Broken,
    /// No answer within the upstream's time.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// The answer breaks HTTP.
    #[error("{0}")]
    Bad(#[from] BadUpstream),
    /// Of the answer it cannot be told what its receiver may be shown.
    #[error("the upstream's answer cannot be read")]
    Unclear,
    /// The upstream has as many calls in flight as it may have.
    #[error("the upstream has too many calls in flight")]
    Full,
    /// The upstream does not open a session, or forgets it at once.
    #[error("the upstream has no session for the client")]
    NoSession,
    /// The client went away while waiting.
    #[error("the client went away")]
    ClientGone,
}

impl Failure {
    /// Whether the request certainly never reached the upstream.
    pub(crate) fn nothing_sent(self) -> bool {
        matches!(self, Self::Unresolved | Self::Credential | Self::Connect | Self::Full | Self::NoSession)
    }
}

/// An upstream as one worker sees it.
pub(crate) struct HttpUpstream {
    target: HttpTarget,
    state: Arc<UpstreamState>,
    tls: Option<Arc<ClientConfig>>,
    /// The name that its certificate must have.
    server_name: String,
    connect_timeout_ms: u64,
    call_timeout_ms: u64,
    /// This worker's calls, for the pool; what bounds them is [`UpstreamState::calls`].
    in_flight: Cell<u32>,
    /// Boxed: a connection goes through many hands on its way from the pool and back.
    idle: RefCell<Pool<Box<Connection>>>,
    /// How long a connection may be idle: the shortest time that the upstream has announced, with a second to spare. Kept for
    /// all connections, since not all answers announce it: Node's do, but for event streams.
    idle_limit_ms: Cell<u64>,
}

/// One connection to an upstream, and what has been received over it and not used.
pub(crate) struct Connection {
    // Before `stream`: a deadline must be off the wheel when its socket closes.
    deadline: Deadline,
    pub(crate) stream: Stream,
    pub(crate) buf: Vec<u8>,
    answers: u32,
}

/// The head of an answer, reduced to what the relay needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnswerHead {
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    pub(crate) content: Content,
    pub(crate) keep_alive: bool,
}

/// An answer whose head has arrived. The body follows through [`Answer::connection`]; dropping it closes the connection.
pub(crate) struct Answer<'u> {
    pub(crate) head: AnswerHead,
    pub(crate) connection: Box<Connection>,
    /// Bytes of `connection.buf` that the head took.
    pub(crate) body_at: usize,
    in_flight: Option<InFlight<'u>>,
}

impl Answer<'_> {
    /// This is no call that is waited for any more, but a stream that stays.
    pub(crate) fn release_in_flight(&mut self) {
        self.in_flight = None;
    }
}

/// A call of this worker, with its permit.
struct InFlight<'u> {
    count: &'u Cell<u32>,
    _permit: CallPermit<&'u UpstreamState>,
}

impl<'u> InFlight<'u> {
    fn begin(count: &'u Cell<u32>, upstream: &'u UpstreamState) -> Option<Self> {
        let permit = CallLimit::try_take(upstream)?;
        count.set(count.get().saturating_add(1));
        Some(Self { count, _permit: permit })
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.count.set(self.count.get().saturating_sub(1));
    }
}

/// What an exchange runs under.
pub(crate) struct Limits {
    /// Milliseconds until the head of the answer must be there; `None` for streams that stay silent by nature.
    pub(crate) head_ms: Option<u64>,
}

impl HttpUpstream {
    /// An upstream with an empty pool.
    pub(crate) fn new(
        target: HttpTarget,
        settings: &settings::policy::Upstream,
        state: Arc<UpstreamState>,
        tls: Option<Arc<ClientConfig>>,
    ) -> Self {
        Self {
            state,
            tls,
            server_name: settings.tls.server_name.clone().unwrap_or_else(|| target.host.clone()),
            target,
            connect_timeout_ms: crate::worker::millis(settings.connect_timeout),
            call_timeout_ms: crate::worker::millis(settings.call_timeout),
            in_flight: Cell::new(0),
            idle: RefCell::new(Pool::new(settings.max_idle_connections as usize)),
            idle_limit_ms: Cell::new(bounds::UPSTREAM_IDLE_MS),
        }
    }

    /// The credential that it is shown.
    pub(crate) fn credential(&self) -> &CredentialSlot {
        &self.state.credential
    }

    pub(crate) fn target(&self) -> &HttpTarget {
        &self.target
    }

    /// Connections that wait for a call.
    pub(crate) fn idle_connections(&self) -> usize {
        self.idle.borrow().len()
    }

    pub(crate) fn call_timeout_ms(&self) -> u64 {
        self.call_timeout_ms
    }

    /// Sends `request` (head and body) and waits for the head of the answer, which `on_head` sees.
    ///
    /// `watch` is polled meanwhile and says, by completing, that the client is gone. Returns the request's buffer either way.
    pub(crate) async fn exchange<'u>(
        &'u self,
        worker: &Worker,
        mut request: Vec<u8>,
        limits: &Limits,
        watch: impl Future<Output = ()>,
        on_head: impl FnOnce(&ResponseHead, &[u8]),
    ) -> (Result<Answer<'u>, Failure>, Vec<u8>) {
        let Some(in_flight) = InFlight::begin(&self.in_flight, &self.state) else {
            return (Err(Failure::Full), request);
        };
        let mut watch = std::pin::pin!(watch);
        let mut fresh = false;
        loop {
            let (mut connection, reused) = match self.checkout(worker, fresh).await {
                Ok(connection) => connection,
                Err(failure) => return (Err(failure), request),
            };
            let sent_before = connection.stream.sent();
            let (result, back) = self.attempt(worker, &mut connection, request, limits, watch.as_mut()).await;
            request = back;
            match result {
                Ok(()) => {
                    let (head, body_at) = {
                        let scratch = worker.scratch.borrow();
                        // As `attempt` has left it: nothing has been awaited since.
                        let head = &scratch.response;
                        let first = connection.answers == 0;
                        connection.answers = connection.answers.saturating_add(1);
                        let limit_ms = self.idle_limit_ms.get();
                        if (first || limit_ms == bounds::UPSTREAM_IDLE_MS)
                            && let Some(seconds) = announced_idle_s(head, &connection.buf)
                        {
                            let spare_ms = seconds.saturating_sub(1).saturating_mul(1000);
                            self.idle_limit_ms.set(spare_ms.min(limit_ms));
                        }
                        on_head(head, &connection.buf);
                        let answer = AnswerHead {
                            status: head.status,
                            framing: head.framing,
                            content: head.content,
                            keep_alive: head.keep_alive,
                        };
                        (answer, head.len as usize)
                    };
                    let answer = Answer { head, connection, body_at, in_flight: Some(in_flight) };
                    return (Ok(answer), request);
                }
                Err(Failure::Broken) if reused && connection.buf.is_empty() => {
                    self.idle.borrow_mut().doubt(worker.now_ns());
                    if !never_taken(&connection.stream, sent_before) {
                        return (Err(Failure::Broken), request);
                    }
                    worker.metrics.upstream_retries.inc();
                    fresh = true;
                }
                Err(failure) => return (Err(failure), request),
            }
        }
    }

    /// One try: the whole request out, the whole head in, which stands in the worker's scratch until the next await.
    async fn attempt(
        &self,
        worker: &Worker,
        connection: &mut Connection,
        request: Vec<u8>,
        limits: &Limits,
        mut watch: std::pin::Pin<&mut impl Future<Output = ()>>,
    ) -> (Result<(), Failure>, Vec<u8>) {
        match limits.head_ms {
            Some(ms) => connection.deadline.set(ms, OnExpiry::Cut),
            None => connection.deadline.set(self.call_timeout_ms, OnExpiry::Cut),
        }
        let (written, request) = connection.stream.write_all(request).await;
        if written.is_err() {
            return (Err(connection.failed(Failure::Broken)), request);
        }
        if limits.head_ms.is_none() {
            connection.deadline.clear();
        }
        let mut seen = 0;
        loop {
            let outcome = connection.read_watched(watch.as_mut()).await;
            match outcome {
                Ok(0) => return (Err(connection.failed(Failure::Broken)), request),
                Ok(_) => {}
                Err(failure) => return (Err(connection.failed(failure)), request),
            }
            let mut scratch = worker.scratch.borrow_mut();
            match parse_response(&connection.buf, seen, false, &mut scratch.response) {
                Ok(Progress::Complete) => return (Ok(()), request),
                Ok(Progress::Partial) => seen = connection.buf.len(),
                Err(bad) => return (Err(bad.into()), request),
            }
        }
    }

    /// A connection to send on: an idle one that is still open, else a new one. The flag says which.
    async fn checkout(&self, worker: &Worker, fresh: bool) -> Result<(Box<Connection>, bool), Failure> {
        if !fresh {
            let others = self.in_flight.get().saturating_sub(1) as usize;
            let now_ns = worker.recent_ns();
            let taken = {
                let mut idle = self.idle.borrow_mut();
                // A rest is over by the clock. What the runtime knows may be from before it, where this thread has lost its core meanwhile:
                // as long as rests matter, the kernel is asked as well.
                let is_trusted = idle.is_trusted(now_ns);
                idle.take(now_ns, self.idle_limit_ns(), others, |one| {
                    if is_trusted { one.is_quiet() } else { one.stream.is_quiet_now() }
                })
            };
            if let Some(connection) = taken {
                worker.metrics.upstream_reuses.inc();
                return Ok((connection, true));
            }
        }
        let connection = self.connect(worker).await?;
        worker.metrics.upstream_connects.inc();
        Ok((connection, false))
    }

    fn idle_limit_ns(&self) -> u64 {
        self.idle_limit_ms.get().saturating_mul(1_000_000)
    }

    async fn connect(&self, worker: &Worker) -> Result<Box<Connection>, Failure> {
        let addresses: Vec<SocketAddr> = self.state.addresses.load().as_ref().clone();
        if addresses.is_empty() {
            return Err(Failure::Unresolved);
        }
        for address in addresses {
            match self.connect_to(worker, address).await {
                Ok(connection) => return Ok(Box::new(connection)),
                Err(error) => {
                    worker.metrics.upstream_errors.inc();
                    tracing::debug!(%address, %error, "cannot connect to upstream");
                }
            }
        }
        Err(Failure::Connect)
    }

    async fn connect_to(&self, worker: &Worker, address: SocketAddr) -> io::Result<Connection> {
        let timer = worker.timers.deadline(-1);
        timer.set(self.connect_timeout_ms, OnExpiry::Wake);
        // A pending connect loses nothing when it is dropped.
        let tcp = crate::worker::race(TcpStream::connect_addr(address), timer.expired())
            .await
            .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
        tcp.set_nodelay(true)?;
        let deadline = worker.timers.deadline(std::os::fd::AsRawFd::as_raw_fd(&tcp));
        let stream = match &self.tls {
            None => Stream::ahead(tcp),
            Some(config) => {
                deadline.set(self.connect_timeout_ms, OnExpiry::Cut);
                let name = ServerName::try_from(self.server_name.clone()).map_err(io::Error::other)?;
                Stream::Tls(Box::new(TlsStream::connect(tcp, config.clone(), name).await?))
            }
        };
        Ok(Connection { deadline, stream, buf: Vec::new(), answers: 0 })
    }

    /// Takes a connection back whose answer has been read to its end, with nothing behind it.
    pub(crate) fn give_back(&self, worker: &Worker, connection: Box<Connection>) {
        self.give_back_at(worker.now_ns(), connection);
    }

    /// [`HttpUpstream::give_back`] for who knows the time.
    pub(crate) fn give_back_at(&self, now_ns: u64, mut connection: Box<Connection>) {
        connection.deadline.clear();
        connection.buf.clear();
        // An idle connection keeps its small buffer: it is one of at most `max_idle`.
        connection.buf.shrink_to(bounds::READ_BUFFER_BYTES);
        connection.buf = connection.stream.rest(std::mem::take(&mut connection.buf));
        let answers = connection.answers;
        self.idle.borrow_mut().put(connection, answers, now_ns);
    }

    /// Closes connections that have been idle for long or that the upstream has closed; called from the worker's tick.
    pub(crate) fn sweep(&self, now_ms: u64) {
        let now_ns = now_ms.saturating_mul(1_000_000);
        self.idle.borrow_mut().sweep(now_ns, self.idle_limit_ns(), |one| one.is_quiet());
    }
}

impl Connection {
    /// Open, and nothing to read: bytes that nobody asked for are as bad as an end, the next answer would be theirs.
    fn is_quiet(&self) -> bool {
        self.stream.is_quiet()
    }

    /// Sets the time of the next wait. A deadline that has fallen due stays so: it has ended the connection.
    pub(crate) fn set_deadline(&self, after_ms: Option<u64>) {
        match after_ms {
            _ if self.has_expired() => {}
            Some(ms) => self.deadline.set(ms, OnExpiry::Cut),
            None => self.deadline.clear(),
        }
    }

    pub(crate) fn has_expired(&self) -> bool {
        self.deadline.has_expired()
    }

    /// The failure to report: a cut by our own deadline is a timeout whatever the socket says.
    fn failed(&self, failure: Failure) -> Failure {
        if failure == Failure::Broken && self.deadline.has_expired() { Failure::Timeout } else { failure }
    }

    /// Appends what arrives next to `buf`.
    pub(crate) async fn read(&mut self) -> Result<usize, Failure> {
        self.read_watched(std::pin::pin!(std::future::pending())).await
    }

    /// Like [`Connection::read`]; when `watch` completes first, the read is ended, awaited (a pending receive must not be
    /// dropped) and [`Failure::ClientGone`] returned.
    pub(crate) async fn read_watched(
        &mut self,
        mut watch: std::pin::Pin<&mut impl Future<Output = ()>>,
    ) -> Result<usize, Failure> {
        let mut buf = std::mem::take(&mut self.buf);
        if buf.capacity() == buf.len() && !self.stream.has_buffer() {
            let more = bounds::READ_BUFFER_BYTES.max(buf.len());
            buf.reserve(more);
        }
        let fd = self.stream.fd();
        let mut gone = false;
        let (result, buf) = {
            let mut read = std::pin::pin!(self.stream.read(buf));
            std::future::poll_fn(|cx| {
                if let std::task::Poll::Ready(done) = read.as_mut().poll(cx) {
                    return std::task::Poll::Ready(done);
                }
                if !gone && watch.as_mut().poll(cx).is_ready() {
                    gone = true;
                    socket::shutdown(fd, socket::Half::Both);
                }
                std::task::Poll::Pending
            })
            .await
        };
        self.buf = buf;
        if gone {
            return Err(Failure::ClientGone);
        }
        match result {
            // Our own deadline ends the stream by shutting it down, which must not pass for the upstream's end of a body.
            Ok(0) | Err(_) if self.has_expired() => Err(Failure::Timeout),
            Ok(n) => Ok(n),
            Err(_) => Err(Failure::Broken),
        }
    }
}

/// The seconds that `Keep-Alive: timeout=N` announces.
fn announced_idle_s(head: &ResponseHead, buf: &[u8]) -> Option<u64> {
    let value = head.fields.iter().find(|field| field.name.of(buf).eq_ignore_ascii_case(b"keep-alive"))?.value.of(buf);
    let value = std::str::from_utf8(value).ok()?;
    value.split(',').find_map(|part| part.trim().strip_prefix("timeout=")?.parse().ok())
}

/// Whether no byte of what was sent after `sent_before` was ever acknowledged. The SYN counts as one byte.
fn never_taken(stream: &Stream, sent_before: u64) -> bool {
    socket::bytes_acknowledged(stream.fd()).is_some_and(|acknowledged| acknowledged <= sent_before + 1)
}

/// The decoder for the body of an answer; sizes are bounded by streaming, not by refusing.
pub(crate) fn body_decoder(framing: Framing) -> Result<BodyDecoder, BadUpstream> {
    BodyDecoder::new(framing, u64::MAX).map_err(BadUpstream::from)
}
