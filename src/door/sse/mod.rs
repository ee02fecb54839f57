//! The HTTP+SSE transport of MCP 2024-11-05, for clients that know no other: `GET /sse` opens a stream whose first event says where to
//! post; `POST /messages?sessionId=…` takes one message, and everything that is to be said about it goes over the stream.
//!
//! A stream is a [`Peer`] like a connection of the other doors that carry messages, but its messages come by another way: posts arrive on
//! any worker, go through the [`inbox`] of the worker that holds the stream, and wait in the [`session`] until the stream's own task takes
//! them up, one after the other. So a message that holds the next ones up (an `initialize`) holds up its own session alone.
//!
//! What is posted after the stream has ended finds nobody. What was accepted before is still taken up.

mod inbox;
mod session;

use std::os::fd::AsRawFd;
use std::rc::Rc;

pub(crate) use inbox::{Handed, Inbox, Inboxes, Posted, deliver};
pub(crate) use session::{SessionId, Sessions};

use super::peer::{Arrived, End, Next, Peer, Wire, serve};
use crate::bounds;
use crate::state::lifecycle::Door;
use crate::wire::http1::write;
use crate::worker::Worker;
use crate::worker::framing::Framing;
use crate::worker::timers::OnExpiry;
use session::{Seat, Session};

/// A connection whose client has asked for a stream.
pub(super) struct Opening {
    pub(super) arrived: Arrived,
    /// The head of the answer, to be sent first.
    pub(super) head: Vec<u8>,
    /// HTTP/1.0 has no chunks: the stream ends with the connection.
    pub(super) chunked: bool,
}

/// Opens a stream. Where the system gives no random bytes there is no session to be had: the connection is closed then, and `false`
/// returned.
pub(super) fn open(worker: &Rc<Worker>, opening: Opening) -> bool {
    let Opening { arrived, head, chunked } = opening;
    let mut secret = [0; 16];
    let Some(principal) = arrived.principal.as_ref().filter(|_| getrandom::fill(&mut secret).is_ok()) else {
        return false;
    };
    let (key, fd) = ((secret, principal.tag()), arrived.tcp.as_raw_fd());
    let (max_bytes, now_ms) = (worker.limits.get().max_buffer_bytes, worker.timers.now_ms());
    let Some((seat, id)) = worker.sse.open(worker.index, key, fd, max_bytes, now_ms) else { return false };
    let session = seat.session.clone();
    let stream = Stream { seat, chunked, unwanted: 0, worker: worker.clone() };
    let framing = if chunked { Framing::Events } else { Framing::EventsUntilClose };
    let peer = serve(worker.clone(), Door::Http, framing, stream, arrived);
    let mut first = head;
    put(&mut first, format!("event: endpoint\ndata: /messages?sessionId={}\n\n", id.encode()).as_bytes(), chunked);
    peer.outbox().raw(&first);
    let worker = worker.clone();
    monoio::spawn(async move {
        let _ = crate::worker::race(take_up(&peer, &session), keep_alive(&worker, &peer, chunked)).await;
    });
    true
}

/// Takes up what is posted, in its order.
async fn take_up(peer: &Rc<Peer>, session: &Session) {
    while let Some(waiting) = session.next().await {
        peer.ready_for_more().await;
        if peer.outbox().has_ended() {
            return;
        }
        let next = peer.handle(&waiting.message, waiting.received_ns).await;
        session.taken_up(&waiting);
        if next == Next::Close {
            return session.hang_up();
        }
    }
}

/// Says something on a stream that was silent for long, until it ends.
async fn keep_alive(worker: &Worker, peer: &Peer, chunked: bool) {
    let silence = worker.timers.deadline(-1);
    while !peer.outbox().has_ended() {
        match bounds::SSE_KEEP_ALIVE_MS.saturating_sub(peer.outbox().silent_ms()) {
            0 => {
                let mut comment = Vec::with_capacity(32);
                put(&mut comment, b": keep-alive\n\n", chunked);
                peer.outbox().raw(&comment);
            }
            left_ms => {
                silence.set(left_ms, OnExpiry::Wake);
                silence.expired().await;
            }
        }
    }
}

fn put(out: &mut Vec<u8>, event: &[u8], chunked: bool) {
    if chunked { write::chunk(out, event) } else { out.extend_from_slice(event) }
}

/// The connection of a stream: nothing comes over it but its end.
struct Stream {
    seat: Seat,
    chunked: bool,
    /// Bytes that came all the same.
    unwanted: usize,
    worker: Rc<Worker>,
}

impl Wire for Stream {
    // A client of HTTP may end its sending side behind its request.
    const MAY_READ_ON: bool = true;

    async fn take(&mut self, _peer: &Rc<Peer>, buf: &mut Vec<u8>, _now_ns: u64) -> Result<(), End> {
        // A request behind one whose answer has no end is never answered.
        self.unwanted = self.unwanted.saturating_add(buf.len());
        buf.clear();
        if self.unwanted > bounds::READ_BUFFER_BYTES { Err(End::Close) } else { Ok(()) }
    }

    fn is_inside_message(&self, _buf: &[u8]) -> bool {
        false
    }

    fn goodbye(&mut self, _end: End) -> Vec<u8> {
        if self.chunked { write::LAST_CHUNK.to_vec() } else { Vec::new() }
    }

    /// How long until the next look: what is posted does not come over this connection and moves no deadline of it. An eighth of the
    /// timeout is what an idle stream may last longer.
    fn idle_timeout_ms(&self, worker: &Worker) -> u64 {
        worker.limits.get().idle_timeout_ms.div_ceil(8)
    }

    fn is_busy(&self, peer: &Peer) -> bool {
        let (session, now_ms) = (&self.seat.session, self.worker.timers.now_ms());
        if peer.is_busy() || !session.is_empty() {
            session.note_active(now_ms);
        }
        session.idle_ms(now_ms) < self.worker.limits.get().idle_timeout_ms
    }

    fn close(&mut self) {
        self.seat.close();
    }

    async fn taken_up(&self) {
        self.seat.session.emptied().await;
    }
}
