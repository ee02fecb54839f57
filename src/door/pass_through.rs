//! A WebSocket route without MCP, for tests of the protocol from outside (`tests/autobahn`). Compiled with the feature `pass-through` alone.
//!
//! `GET /pass-through/…` takes whatever messages come, text and binary, and sends them back (`RINGWALL_PASS_THROUGH=echo`) or on
//! to the WebSocket `RINGWALL_PASS_THROUGH=ws://IP:PORT`, rest of the path and query included, and what comes from there back. Who
//! tests this route tests what serves agents and upstreams: the connection's life, its frames, pongs, faults and limits are those of the
//! WebSocket door ([`super::ws`]), the handshake, frames and pongs towards the upstream those of [`crate::upstream::link`].
//!
//! What it has of its own: each side's messages wait for room on the other, and a side that ends, in good order or by a fault, ends the
//! other with the same code, and is answered when that has said what it had to say.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::task::{Poll, Waker};

use monoio::io::Splitable;
use monoio::net::TcpStream;

use super::peer::{Arrived, Next, Peer};
use super::ws::{Taker, serve_frames};
use crate::bounds;
use crate::upstream::link::{Last, Opening, shake_hands, take_frames};
use crate::wire::websocket::{CloseCode, Decoder, Opcode, Role, write};
use crate::worker::Worker;
use crate::worker::framing::{Framing, Keys};
use crate::worker::outbox::Outbox;
use crate::worker::receiver::{Observer, Received, Receiver, Watch};
use crate::worker::timers::OnExpiry;

const PREFIX: &str = "/pass-through";
const SETTING: &str = "RINGWALL_PASS_THROUGH";

/// How long one side's end waits for the other's, and how long a connection may take to be made.
const END_MS: u64 = 10_000;

/// Whether this path is the route's.
pub(super) fn serves(path: &[u8]) -> bool {
    path.strip_prefix(PREFIX.as_bytes()).is_some_and(|rest| rest.starts_with(b"/")) && Beyond::read().is_some()
}

/// Where messages go.
enum Beyond {
    Echo,
    /// An address, as names are not resolved on a worker.
    Socket(SocketAddr),
}

impl Beyond {
    fn read() -> Option<Self> {
        let value = std::env::var(SETTING).ok()?;
        match value.strip_prefix("ws://") {
            Some(address) => Some(Self::Socket(address.parse().ok()?)),
            None => (value == "echo").then_some(Self::Echo),
        }
    }
}

/// Serves one client whose upgrade was answered, and who asked for `target`.
pub(super) fn arrive(worker: &Rc<Worker>, arrived: Arrived, target: &str) {
    match Beyond::read() {
        Some(Beyond::Echo) => serve_frames(worker, Echo, arrived),
        Some(Beyond::Socket(address)) => {
            let path_and_query = target.strip_prefix(PREFIX).unwrap_or(target).to_owned();
            let leg = Rc::new(Leg {
                worker: worker.clone(),
                address,
                path_and_query,
                outbox: Outbox::new(
                    worker.clone(),
                    None,
                    Framing::WebSocketClient(Box::new(Keys::new())),
                    worker.limits.get().max_buffer_bytes,
                ),
                is_running: Cell::new(false),
                client_last: Cell::new(None),
                client_was_told: Cell::new(false),
                has_ended: Cell::new(false),
                waiting: RefCell::new(Vec::new()),
            });
            serve_frames(worker, Relay { leg }, arrived);
        }
        None => {}
    }
}

/// Every message goes back to where it came from.
struct Echo;

impl Taker for Echo {
    async fn text(&mut self, peer: &Rc<Peer>, message: &[u8], _now_ns: u64) -> Next {
        pass(peer.outbox(), Opcode::Text, message, None);
        Next::More
    }

    async fn binary(&mut self, peer: &Rc<Peer>, message: &[u8]) -> bool {
        pass(peer.outbox(), Opcode::Binary, message, None);
        true
    }
}

/// Queues a message. Text goes the way that all messages go; of binary ones there are none elsewhere. Whoever calls has waited for room.
fn pass(outbox: &Rc<Outbox>, opcode: Opcode, message: &[u8], key: Option<[u8; 4]>) {
    if opcode == Opcode::Text {
        return outbox.message(message.len(), |out| out.extend_from_slice(message));
    }
    let mut frame = Vec::with_capacity(message.len().saturating_add(crate::wire::websocket::MAX_HEADER_BYTES));
    write::frame(&mut frame, opcode, true, message, key);
    outbox.raw(&frame);
}

/// Every message goes on to a WebSocket beyond.
struct Relay {
    leg: Rc<Leg>,
}

impl Relay {
    async fn pass_on(&self, opcode: Opcode, message: &[u8]) {
        let outbox = &self.leg.outbox;
        pass(outbox, opcode, message, Some(Keys::one()));
        poll_fn(|cx| outbox.poll_room(cx.waker())).await;
    }
}

impl Taker for Relay {
    fn look(&mut self, peer: &Rc<Peer>) {
        if !self.leg.is_running.replace(true) {
            monoio::spawn(self.leg.clone().run(peer.outbox().clone()));
        }
    }

    async fn text(&mut self, _peer: &Rc<Peer>, message: &[u8], _now_ns: u64) -> Next {
        self.pass_on(Opcode::Text, message).await;
        Next::More
    }

    async fn binary(&mut self, _peer: &Rc<Peer>, message: &[u8]) -> bool {
        self.pass_on(Opcode::Binary, message).await;
        true
    }

    async fn last(&mut self, code: Option<CloseCode>) -> bool {
        self.leg.client_ends(Some(code));
        self.leg.within_time(|leg| leg.has_ended.get()).await;
        !self.leg.client_was_told.get()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // A client that has gone without a word.
        self.leg.client_ends(None);
    }
}

/// The connection to the WebSocket beyond.
struct Leg {
    worker: Rc<Worker>,
    address: SocketAddr,
    path_and_query: String,
    outbox: Rc<Outbox>,
    is_running: Cell<bool>,
    /// How the client has ended: not yet; without a word; with a Close.
    client_last: Cell<Option<Option<Option<CloseCode>>>>,
    /// The client was sent a Close, because this side ended first.
    client_was_told: Cell<bool>,
    /// Nothing more comes from this side.
    has_ended: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Observer for Leg {
    /// A client that has gone is waited for no longer than for its last answers.
    fn is_busy(&self) -> bool {
        self.client_last.get().is_none()
    }
}

impl Leg {
    /// The client has closed, or has gone. This side is asked to close, and may still say what it had to say.
    fn client_ends(&self, last: Option<Option<CloseCode>>) {
        if self.client_last.get().is_some() {
            return;
        }
        self.client_last.set(Some(last));
        if !self.has_ended.get() {
            let mut frame = Vec::new();
            write::close(&mut frame, last.unwrap_or(Some(CloseCode::GOING_AWAY)), "", Some(Keys::one()));
            self.outbox.raw(&frame);
        }
        self.wake();
    }

    async fn run(self: Rc<Self>, client: Rc<Outbox>) {
        match self.connect().await {
            Ok((tcp, received)) => {
                let fd = tcp.as_raw_fd();
                let (read, write) = tcp.into_split();
                self.outbox.open(fd, write);
                let mut receiver = Receiver::new(read, fd, received);
                let last = self.receive(&client, &mut receiver).await;
                self.end(&client, last).await;
                // The outbox shuts the socket down by its number: not before here may the receiver let go of it.
                poll_fn(|cx| self.outbox.poll_written(cx.waker())).await;
                self.outbox.cut();
            }
            Err(error) => {
                tracing::warn!(%error, "the pass-through route cannot connect");
                self.end(&client, None).await;
            }
        }
    }

    async fn connect(&self) -> io::Result<(TcpStream, Vec<u8>)> {
        let tcp = TcpStream::connect_addr(self.address).await?;
        tcp.set_nodelay(true)?;
        let opening = Opening {
            authority: &self.address.to_string(),
            path_and_query: &self.path_and_query,
            subprotocol: None,
            extra_lines: &[],
            timeout_ms: END_MS,
        };
        shake_hands(&self.worker, &opening, tcp).await
    }

    /// Passes messages to the client until this side has ended; with what, unless it has gone without a word.
    async fn receive(&self, client: &Rc<Outbox>, receiver: &mut Receiver) -> Option<Last> {
        let deadline = self.worker.timers.deadline(receiver.fd());
        let max_message_bytes = u32::try_from(bounds::MAX_HELD_ANSWER_BYTES).unwrap_or(u32::MAX);
        let mut decoder = Decoder::new(Role::Client, max_message_bytes);
        loop {
            let to_client = |opcode, message: &[u8]| {
                pass(client, opcode, message, None);
                true
            };
            if let Err(last) = take_frames(&mut decoder, &mut receiver.buf, &self.outbox, to_client) {
                return Some(last);
            }
            poll_fn(|cx| client.poll_room(cx.waker())).await;
            let watch = Watch { deadline: &deadline, open: None, observer: self };
            match receiver.more(&watch, END_MS).await {
                Received::Bytes(_) => {}
                Received::End | Received::Broken | Received::Expired | Received::Draining => return None,
            }
        }
    }

    /// Ends what is left of both sides.
    async fn end(&self, client: &Rc<Outbox>, last: Option<Last>) {
        let client_was_first = self.client_last.get().is_some();
        self.has_ended.set(true);
        self.wake();
        if client_was_first {
            return self.outbox.end(&[]);
        }
        let code = last.map_or(Some(CloseCode::INTERNAL_ERROR), Last::code);
        self.client_was_told.set(true);
        let mut frame = Vec::new();
        write::close(&mut frame, code, "", None);
        client.raw(&frame);
        // What the client has said before it heard of it still goes out.
        if !self.within_time(|leg| leg.client_last.get().is_some()).await {
            client.cut();
        }
        match last {
            Some(last) => last.say(&self.outbox),
            None => self.outbox.end(&[]),
        }
    }

    /// Waits until something is so, at most [`END_MS`]; whether it is.
    async fn within_time(&self, is_so: impl Fn(&Self) -> bool) -> bool {
        let timer = self.worker.timers.deadline(-1);
        timer.set(END_MS, OnExpiry::Wake);
        let waiting = poll_fn(|cx| {
            if is_so(self) {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        });
        crate::worker::race(waiting, timer.expired()).await.is_some()
    }

    fn wake(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }
}
