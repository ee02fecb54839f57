//! The HTTP door: one connection, request after request.
//!
//! A connection is one task with one input buffer. It reads a head, lets the [`gate`] look at it before a byte of the body is
//! waited for, reads the body, and serves the request; then the next, pipelined or not. Whatever of a request is not read never becomes
//! the next one: the connection closes instead.
//!
//! Every wait has a deadline on the worker's wheel: idle, head, body, write. A deadline ends the pending operation by
//! shutting the socket down rather than by dropping it, so nothing is lost, and a client that was too slow can still be told (408).

pub(crate) mod answer;
mod batch;
mod child;
mod events;
mod gate;
mod merged;
mod oauth;
mod outcome;
mod pages;
mod plan;
mod post;
mod receive;
mod relay;
pub(crate) mod remembered;
mod sse;
mod stream;
mod upgrade;

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use monoio::net::TcpStream;

use crate::bounds;
use crate::guard::Principal;
use crate::state::connections::{CloseReason, ConnectionEntry};
use crate::state::events::{Event, EventKind};
use crate::state::lifecycle::{CallInFlight, Door};
use crate::wire::http1::Version;
use crate::worker::Worker;
use crate::worker::authentication::HeldLease;
use crate::worker::open::OpenConnection;
use crate::worker::stream::Stream;
use crate::worker::timers::{Deadline, OnExpiry};
use gate::Route;
use remembered::Remembered;

/// A client's connection.
pub(crate) struct Connection {
    // The deadline and the table's entry before the stream: both must let go of the socket before it closes.
    deadline: Deadline,
    open: OpenConnection,
    stream: Stream,
    /// Received bytes; the request in hand starts at `at`.
    input: Vec<u8>,
    at: usize,
    /// An answer that is being put together.
    output: Vec<u8>,
    /// Parts of the message in hand that outlive its buffer: its id and the name it acts on.
    notes: Vec<u8>,
    worker: Rc<Worker>,
    /// Who is at its other end: a client, or a proxy.
    peer: SocketAddr,
    /// Whose request is in hand: `peer`, or whom a trusted proxy names. Between requests it is `peer`.
    client: IpAddr,
    /// The number of [`Blocks::generation`](crate::state::blocks::Blocks::generation) under which `peer` was let in; 0 before that.
    let_in_under: u64,
    /// The number of [`Blocks::failures`](crate::state::blocks::Blocks::failures) when `peer`'s were last taken back.
    failures_seen: u64,
    /// Who was seen on this connection last.
    principal: Option<Principal>,
    /// What its stay hangs on, where that can end.
    lease: Option<HeldLease>,
    /// What let its last call in.
    remembered: Option<Box<Remembered>>,
    /// Its place in the table of connections, and in the counts of its door and its address.
    entry: ConnectionEntry,
}

/// A request that has been received whole and may be served.
struct Request {
    /// Offsets in [`Connection::input`].
    head: Range<usize>,
    body: Range<usize>,
    /// Where the next request starts.
    end: usize,
    route: Route,
    principal: Principal,
    keep_alive: bool,
    version: Version,
    is_head: bool,
    /// From its head on a request is waited for when the process drains.
    _in_flight: Option<CallInFlight>,
    /// Whether the worker's scratch still holds this request's head.
    head_is_parsed: bool,
    started_ns: u64,
}

/// What becomes of the connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// It may carry another.
    Next,
    /// It closes; bytes that were not read may lie in it.
    Close,
    /// It has become a WebSocket.
    Switch,
    /// It is cut: the peer is gone, or what was sent must not be taken for a whole answer.
    Cut,
}

impl Request {
    /// The same request, to be looked at once more after an await.
    fn again(&self) -> Self {
        Self {
            head: self.head.clone(),
            body: self.body.clone(),
            principal: self.principal.clone(),
            // The request itself is counted.
            _in_flight: None,
            head_is_parsed: false,
            route: self.route,
            end: self.end,
            keep_alive: self.keep_alive,
            version: self.version,
            is_head: self.is_head,
            started_ns: self.started_ns,
        }
    }
}

impl Flow {
    /// After an answer that ends the connection.
    fn then_close(self) -> Self {
        if self == Self::Next { Self::Close } else { self }
    }
}

impl Connection {
    /// A connection that has been admitted. `received` is what has been read of it already.
    pub(crate) fn new(
        worker: Rc<Worker>,
        tcp: TcpStream,
        peer: SocketAddr,
        received: Vec<u8>,
        entry: ConnectionEntry,
    ) -> Self {
        let fd = tcp.as_raw_fd();
        Self {
            deadline: worker.timers.deadline(fd),
            open: worker.open.enter_connection(fd, entry.id()),
            stream: Stream::plain(tcp),
            input: received,
            at: 0,
            output: Vec::new(),
            notes: Vec::new(),
            peer,
            client: peer.ip(),
            let_in_under: 0,
            failures_seen: 0,
            principal: None,
            lease: None,
            remembered: None,
            entry,
            worker,
        }
    }

    /// Serves requests until one side has had enough.
    pub(crate) async fn run(mut self) {
        let (flow, known) = loop {
            let request = match self.receive().await {
                Ok(request) => request,
                Err(flow) => break (flow, None),
            };
            if request.route == Route::Events {
                return self.become_stream(request);
            }
            let known = request.route.tells_principal().then(|| request.principal.clone());
            let end = request.end;
            let keep_alive = request.keep_alive;
            #[cfg(feature = "pass-through")]
            let beyond = (request.route == Route::PassThrough).then(|| self.target_beyond(&request));
            let flow = self.serve(request).await;
            #[cfg(feature = "pass-through")]
            if let Some(beyond) = beyond.filter(|_| flow == Flow::Switch) {
                self.at = end.min(self.input.len());
                return self.switch_beyond(beyond, known);
            }
            self.at = end.min(self.input.len());
            match flow {
                Flow::Next if keep_alive && !self.is_ending() => {}
                Flow::Next => break (Flow::Close, None),
                flow => break (flow, known),
            }
        };
        if flow == Flow::Switch {
            return self.switch(known);
        }
        if flow == Flow::Close {
            self.deadline.set(bounds::LINGER_MS, OnExpiry::Cut);
            crate::door::linger(&mut self.stream).await;
        }
        self.client = self.peer.ip();
        match self.entry.asked_to_close() {
            // Recorded where it was asked for, with who asked.
            Some(CloseReason::Admin) => {}
            reason if self.principal.is_some() => {
                let event = self.event(EventKind::ConnectionClosed);
                self.record(match reason {
                    Some(reason) => event.with_details(format_args!("{}", reason.text())),
                    None => event,
                });
            }
            _ => {}
        }
        self.worker.metrics.door(Door::Http).connections_closed.inc();
    }

    /// Whether the request in hand is the last one: the process drains, or this connection was asked to close.
    fn is_ending(&self) -> bool {
        self.worker.is_draining() || self.entry.asked_to_close().is_some()
    }

    async fn serve(&mut self, request: Request) -> Flow {
        match request.route {
            Route::Post => self.post(request).await,
            Route::Get => self.listen(request).await,
            Route::Delete => self.end_session(request).await,
            Route::WebSocket { .. } => self.upgrade(request).await,
            Route::Message => self.posted(request).await,
            // Rare, and its future is large beside those of calls.
            Route::OAuth(errand) => Box::pin(self.oauth(request, errand)).await,
            // It has become a stream.
            Route::Events => Flow::Close,
            #[cfg(feature = "pass-through")]
            Route::PassThrough => self.upgrade(request).await,
            Route::Page(page) => {
                self.page(page, &request);
                if request.is_head {
                    answer::cut_body(&mut self.output);
                }
                self.flush().await
            }
        }
    }

    /// Writes out what has been put together.
    async fn flush(&mut self) -> Flow {
        if self.output.is_empty() {
            return Flow::Next;
        }
        let write_timeout_ms = self.worker.limits.get().write_timeout_ms;
        self.deadline.set(write_timeout_ms, OnExpiry::Cut);
        let output = std::mem::take(&mut self.output);
        self.worker.metrics.door(Door::Http).bytes_out.add(output.len() as u64);
        self.entry.sent(0, output.len() as u64);
        let (result, mut output) = self.stream.write_all(output).await;
        output.clear();
        output.shrink_to(bounds::STREAM_BUFFER_BYTES);
        self.output = output;
        match result {
            Ok(()) => {
                self.entry.touch(self.worker.tick_epoch_ms());
                // The client has taken it; how long the next part takes to come is not up to the client.
                self.deadline.clear();
                Flow::Next
            }
            Err(_) => {
                if self.deadline.has_expired() {
                    let event = self.event(EventKind::ConnectionTimeout);
                    self.record(event.with_details(format_args!("the client did not take its answer in time")));
                }
                Flow::Cut
            }
        }
    }

    /// The address that the request in hand comes from, as far as it is believed: for the audit trail, the deny list and whatever
    /// counts by address.
    fn client_ip(&self) -> IpAddr {
        self.client
    }

    /// A new audit event of `kind`, now, about the client.
    fn event(&self, kind: EventKind) -> Event {
        self.worker.event(kind, SocketAddr::new(self.client_ip(), 0))
    }

    /// Queues an audit event with this connection's name on it.
    fn record(&self, event: Event) {
        self.worker.record(self.named(event));
    }

    fn named(&self, event: Event) -> Event {
        let event = event.with_client(Door::Http, self.entry.id());
        match self.principal.as_ref().and_then(Principal::agent) {
            Some(agent) => event.with_agent(agent),
            None => event,
        }
    }
}
