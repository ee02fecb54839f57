//! The life of one connection that carries messages: received, taken up, ended. The doors differ in how bytes are cut into messages and in what is
//! said at the end: [`Wire`].

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use monoio::io::Splitable;
use monoio::net::TcpStream;

use super::Peer;
use crate::bounds;
use crate::guard::Principal;
use crate::state::connections::ConnectionEntry;
use crate::state::events::EventKind;
use crate::state::lifecycle::Door;
use crate::sys::socket::{self, Half, Look};
use crate::worker::Worker;
use crate::worker::authentication::HeldLease;
use crate::worker::framing::Framing;
use crate::worker::open::OpenConnection;
use crate::worker::outbox::Outbox;
use crate::worker::receiver::{Observer, Received, Receiver, Watch};
use crate::worker::timers::{Deadline, OnExpiry};

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client has ended its side; what is in flight is answered first.
    Client,
    /// The wire has said what there is to say, the client is not who it says, or nobody is there any more.
    Close,
    /// Nothing was said for too long.
    Idle,
    /// It did not say who it is.
    Unauthenticated,
    /// A message did not come to its end in time.
    Slow,
    /// The process drains.
    Drain,
    /// Its closing was asked for: by an operator, or because its token was revoked.
    Asked,
}

/// How bytes become messages, and what is said at the end.
pub(crate) trait Wire {
    /// Whether a client that has ended its side may still read what it has asked for.
    const MAY_READ_ON: bool;

    /// Takes up every message that is whole, and takes what was used off the front of `buf`.
    ///
    /// # Errors
    /// How the connection ends; what had to be said of it has been.
    async fn take(&mut self, peer: &Rc<Peer>, buf: &mut Vec<u8>, now_ns: u64) -> Result<(), End>;

    /// Whether a message has begun that is not whole.
    fn is_inside_message(&self, buf: &[u8]) -> bool;

    /// The last bytes that the client is sent.
    fn goodbye(&mut self, end: End) -> Vec<u8>;

    /// Milliseconds without a word after which a connection is closed.
    fn idle_timeout_ms(&self, worker: &Worker) -> u64;

    /// Whether a connection without a word is not idle.
    fn is_busy(&self, peer: &Peer) -> bool {
        peer.is_busy()
    }

    /// No more messages are accepted, where they come by another way than the connection.
    fn close(&mut self) {}

    /// Ready when those that were accepted have been taken up. Safe to drop.
    async fn taken_up(&self) {}
}

/// A connection to be served.
pub(crate) struct Arrived {
    pub(crate) tcp: TcpStream,
    pub(crate) address: SocketAddr,
    /// What has been read of its stream already.
    pub(crate) received: Vec<u8>,
    /// Who it has shown itself to be.
    pub(crate) principal: Option<Principal>,
    /// What its stay hangs on, where that can end.
    pub(crate) lease: Option<HeldLease>,
    pub(crate) entry: ConnectionEntry,
}

struct Served<W> {
    // The deadline and the table's entry before what holds the socket: both must let go of it before it closes.
    deadline: Deadline,
    open: OpenConnection,
    receiver: Receiver,
    wire: W,
    peer: Rc<Peer>,
    worker: Rc<Worker>,
}

/// Serves a connection in a task of its own, which runs when the caller's waits.
pub(crate) fn serve<W: Wire + 'static>(
    worker: Rc<Worker>,
    door: Door,
    framing: Framing,
    wire: W,
    arrived: Arrived,
) -> Rc<Peer> {
    let fd = arrived.tcp.as_raw_fd();
    let (deadline, open) = (worker.timers.deadline(fd), worker.open.enter_connection(fd, arrived.entry.id()));
    let (read, write) = arrived.tcp.into_split();
    let max_bytes = worker.limits.get().max_buffer_bytes;
    let outbox = Outbox::new(worker.clone(), Some(door), framing, max_bytes);
    outbox.open(fd, write);
    let peer = Peer::new(worker.clone(), door, arrived.address, arrived.entry, outbox, arrived.principal);
    peer.keep_lease(arrived.lease);
    let served = Served {
        deadline,
        open,
        receiver: Receiver::new(read, fd, arrived.received),
        wire,
        peer: peer.clone(),
        worker,
    };
    monoio::spawn(Box::new(served).run());
    peer
}

impl<W: Wire> Served<W> {
    /// Boxed, and its end boxed again, so that a task that waits for a quiet client is small.
    async fn run(mut self: Box<Self>) {
        let end = self.receive().await;
        Box::pin(self.finish(end)).await;
    }

    /// Takes messages up until one side has had enough.
    async fn receive(&mut self) -> End {
        let limits = self.worker.limits.get();
        let started_ms = self.worker.timers.now_ms();
        // When the message that is not whole yet has begun.
        let mut begun_ms = None;
        loop {
            let now_ns = self.worker.now_ns();
            if let Err(end) = self.wire.take(&self.peer, &mut self.receiver.buf, now_ns).await {
                return end;
            }
            self.peer.ready_for_more().await;
            self.receiver.take_turns().await;
            let now_ms = self.worker.timers.now_ms();
            begun_ms = if self.wire.is_inside_message(&self.receiver.buf) { begun_ms.or(Some(now_ms)) } else { None };
            let timeout_ms = match begun_ms {
                Some(begun_ms) => limits.body_timeout_ms.saturating_sub(now_ms.saturating_sub(begun_ms)),
                None => self.wire.idle_timeout_ms(&self.worker),
            };
            let known = self.peer.is_authenticated();
            let unknown_ms = bounds::AUTHENTICATION_MS.saturating_sub(now_ms.saturating_sub(started_ms));
            let timeout_ms = if known { timeout_ms } else { timeout_ms.min(unknown_ms) };
            let resting = Resting { wire: &self.wire, peer: &self.peer, may_be_busy: known && begun_ms.is_none() };
            let watch = Watch { deadline: &self.deadline, open: Some(&self.open), observer: &resting };
            match self.receiver.more(&watch, timeout_ms).await {
                Received::Bytes(n) => self.peer.note_received(n),
                Received::End if W::MAY_READ_ON => return End::Client,
                Received::End | Received::Broken => return End::Close,
                Received::Draining if self.peer.asked_to_close().is_some() => return End::Asked,
                Received::Draining => return End::Drain,
                Received::Expired if !known => return End::Unauthenticated,
                Received::Expired if begun_ms.is_some() => return End::Slow,
                Received::Expired => return End::Idle,
            }
        }
    }

    /// Lets what is in flight be answered where the client can still take it, says the last word, and closes.
    async fn finish(mut self: Box<Self>, end: End) {
        let peer = self.peer.clone();
        self.wire.close();
        if matches!(end, End::Client | End::Drain) {
            // A client that has ended its side may still read (`nc` does): what it has asked for is answered.
            let answered = async {
                self.wire.taken_up().await;
                peer.answered().await;
            };
            let gone_or_done = async {
                let _ = crate::worker::race(answered, peer.left()).await;
            };
            self.deadline.set(self.worker.limits.get().longest_call_ms, OnExpiry::Wake);
            let _ = crate::worker::race(gone_or_done, self.deadline.expired()).await;
        }
        if let Some(text) = end.timeout_text() {
            let event = self.worker.event(EventKind::ConnectionTimeout, peer.address);
            peer.record(event.with_details(format_args!("{text}")));
        }
        let goodbye = self.wire.goodbye(end);
        peer.leave();
        peer.outbox().end(&goodbye);
        peer.written().await;
        self.deadline.set(bounds::LINGER_MS, OnExpiry::Cut);
        self.linger().await;
        self.peer.vacate();
    }

    /// Throws away what still comes, until the client closes, enough has come, or it takes too long: closing a socket that holds unread bytes
    /// sends a reset, which can destroy what the client has not read yet.
    async fn linger(&mut self) {
        let (mut discarded, fd) = (0usize, self.receiver.fd());
        while discarded < bounds::LINGER_BYTES && !self.deadline.has_expired() {
            self.receiver.buf.clear();
            match socket::receive_now(fd, {
                self.receiver.buf.reserve(bounds::READ_BUFFER_BYTES);
                &mut self.receiver.buf
            }) {
                Look::Bytes(n) => discarded = discarded.saturating_add(n),
                Look::Gone => return,
                Look::Quiet => match self.receiver.discard().await {
                    0 => return,
                    n => discarded = discarded.saturating_add(n),
                },
            }
        }
        socket::shutdown(fd, Half::Both);
    }
}

/// A connection between two messages.
struct Resting<'a, W> {
    wire: &'a W,
    peer: &'a Rc<Peer>,
    may_be_busy: bool,
}

impl<W: Wire> Observer for Resting<'_, W> {
    fn is_busy(&self) -> bool {
        self.may_be_busy && self.wire.is_busy(self.peer)
    }

    fn went_quiet(&self) {
        self.peer.rest();
    }
}

impl End {
    fn timeout_text(self) -> Option<&'static str> {
        match self {
            Self::Unauthenticated => Some("no authentication in time"),
            Self::Slow => Some("a message did not come to its end in time"),
            Self::Idle => Some("idle"),
            Self::Client | Self::Close | Self::Drain | Self::Asked => None,
        }
    }
}
