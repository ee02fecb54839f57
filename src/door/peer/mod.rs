//! A client of a door that carries messages rather than requests: WebSocket, TCP lines, the old SSE transport.
//!
//! A [`Peer`] is one such connection. Its door cuts the received bytes into messages and hands them to [`Peer::handle`]; what goes back is put
//! into its [`Outbox`], framed as the door does. In between there is no difference between the doors: the same guards, the same
//! upstreams, the same refusals.
//!
//! - [`message`]: one message, from its bytes to what becomes of it;
//! - [`carry`]: a message on its way through an upstream over HTTP or a broker, and what comes back;
//! - [`direct`]: the same over a connection that speaks messages itself;
//! - [`listen`]: what servers say by themselves;
//! - [`reopen`]: a session's part that one of several servers has lost;
//! - [`answer`]: the gateway's own answers;
//! - [`mod@serve`], [`calls`]: a connection's life, and what is in flight on it.

mod answer;
mod calls;
mod carry;
mod direct;
mod listen;
mod message;
mod reopen;
mod serve;
mod session;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::guard::{Denial, Principal};
use crate::state::connections::ConnectionEntry;
use crate::state::connections::{CloseReason, ConnectionId};
use crate::state::events::{Event, EventKind, Outcome};
use crate::state::lifecycle::{CallInFlight, Door};
use crate::state::rates::Key;
use crate::upstream::link::Link;
use crate::worker::Worker;
use crate::worker::authentication::{Admitted, HeldLease, Lease};
use crate::worker::outbox::Outbox;

pub(crate) use message::Next;
pub(crate) use serve::{Arrived, End, Wire, serve};

use calls::{CallKey, Calls};
use reopen::Attempt;
use session::PeerSession;

/// Requests of one client that may be in flight; further ones wait in its socket.
const MAX_IN_FLIGHT: usize = 1024;

/// A client that is connected over a door that carries messages.
pub(crate) struct Peer {
    pub(super) worker: Rc<Worker>,
    pub(super) door: Door,
    pub(super) address: SocketAddr,
    id: ConnectionId,
    /// The number of [`Blocks::generation`](crate::state::blocks::Blocks::generation) under which its address was let in.
    let_in_under: Cell<u64>,
    /// Its place in the table of connections, until it is closed.
    entry: RefCell<Option<ConnectionEntry>>,
    outbox: Rc<Outbox>,
    /// Who it is; `None` until it has authenticated.
    principal: RefCell<Option<Principal>>,
    /// What its stay hangs on, where that can end.
    lease: RefCell<Option<HeldLease>>,
    session: RefCell<PeerSession>,
    calls: RefCell<Calls>,
    /// While calls are in flight: draining waits for them.
    in_flight: RefCell<Option<CallInFlight>>,
    /// Of the tasks that wait for calls to end: the one that takes messages up, the one that ends the connection.
    waiting: RefCell<Vec<Waker>>,
    gone: Cell<bool>,
    /// Its own connection to an upstream that speaks messages over a socket.
    own_link: RefCell<Option<Rc<Link>>>,
    /// Of the upstreams, those whose part of the session is being opened anew.
    reopening: RefCell<Vec<Attempt>>,
    /// What its messages are counted by: who it is, or its address until that is known.
    client_key: Cell<Key>,
    /// Messages in a row that were refused because there were too many.
    too_many: Cell<u32>,
}

impl Peer {
    /// A client of `door`. `principal` is who it has shown itself to be already.
    pub(crate) fn new(
        worker: Rc<Worker>,
        door: Door,
        address: SocketAddr,
        entry: ConnectionEntry,
        outbox: Rc<Outbox>,
        principal: Option<Principal>,
    ) -> Rc<Self> {
        let peer = Rc::new(Self {
            id: entry.id(),
            let_in_under: Cell::new(0),
            entry: RefCell::new(Some(entry)),
            session: RefCell::new(PeerSession::new()),
            principal: RefCell::new(None),
            lease: RefCell::new(None),
            calls: RefCell::default(),
            in_flight: RefCell::new(None),
            waiting: RefCell::default(),
            gone: Cell::new(false),
            own_link: RefCell::new(None),
            reopening: RefCell::default(),
            client_key: Cell::new(worker.client_key(&Principal::Anonymous, address.ip())),
            too_many: Cell::new(0),
            worker,
            door,
            address,
            outbox,
        });
        if let Some(principal) = principal {
            peer.admit(principal);
        }
        peer
    }

    /// What goes to the client.
    pub(crate) fn outbox(&self) -> &Rc<Outbox> {
        &self.outbox
    }

    /// Whether it is known who it is.
    pub(crate) fn is_authenticated(&self) -> bool {
        self.principal.borrow().is_some()
    }

    /// Milliseconds since the worker started, as of the last tick.
    pub(crate) fn now_ms(&self) -> u64 {
        self.worker.timers.now_ms()
    }

    /// Gives memory back that a busy time has left behind.
    fn rest(&self) {
        self.calls.borrow_mut().rest();
        self.waiting.borrow_mut().shrink_to_fit();
    }

    /// Whether requests of it are in flight.
    pub(crate) fn is_busy(&self) -> bool {
        self.calls.borrow().open() > 0
    }

    /// Whether its address was blocked since it came in. One load while nobody is. What it says then is not looked at: its connection is about to be closed.
    fn is_kept_out(&self) -> bool {
        // Read before the look-up: a block that comes in between changes the number.
        let seen = self.worker.shared.blocks.generation();
        if self.let_in_under.get() == seen {
            return false;
        }
        let Some(denial) = self.worker.keeps_out(self.address.ip()) else {
            self.let_in_under.set(seen);
            return false;
        };
        self.worker.note_blocked(self.address.ip(), &denial);
        true
    }

    /// Whose token this is.
    fn check_token(&self, token: &[u8]) -> Result<Admitted, Denial> {
        let snapshot = self.worker.snapshot();
        let authenticator = match self.door {
            Door::Tcp => &snapshot.tcp_authenticator,
            Door::Ws | Door::Http => &snapshot.authenticator,
        };
        self.worker.check_token(authenticator, token)
    }

    /// Takes over what its stay hangs on.
    fn keep_lease(&self, lease: Option<HeldLease>) {
        *self.lease.borrow_mut() = lease;
    }

    /// Its stay hangs on the token that it has shown last.
    fn renew_lease(&self, lease: Option<Lease>) {
        self.worker.leases.hold(self.id, &mut self.lease.borrow_mut(), lease);
    }

    /// Notes who it is, from now on.
    fn admit(&self, principal: Principal) {
        let shows_token = matches!(principal, Principal::Door | Principal::Agent(_));
        self.session.borrow_mut().bind(&principal);
        self.client_key.set(self.worker.client_key(&principal, self.address.ip()));
        if let Some(entry) = &*self.entry.borrow() {
            entry.identify(principal.kind(), principal.agent().map_or("", |id| id));
        }
        *self.principal.borrow_mut() = Some(principal);
        self.record(self.worker.event(EventKind::ConnectionEstablished, self.address));
        if shows_token {
            self.record(self.worker.event(EventKind::AuthSuccess, self.address));
        }
    }

    /// Counts what was received.
    fn note_received(&self, bytes: usize) {
        self.worker.metrics.door(self.door).bytes_in.add(bytes as u64);
        if let Some(entry) = &*self.entry.borrow() {
            entry.received(0, bytes as u64);
            entry.touch(self.worker.tick_epoch_ms());
        }
    }

    /// Counts a message that was taken up.
    fn note_message(&self) {
        if let Some(entry) = &*self.entry.borrow() {
            entry.received(1, 0);
        }
        if let Some(lease) = &*self.lease.borrow() {
            lease.touch(self.worker.tick_epoch_ms());
        }
    }

    /// Counts a message of so many bytes that is to be sent.
    fn note_sent(&self, bytes: usize) {
        if let Some(entry) = &*self.entry.borrow() {
            entry.sent(1, bytes as u64);
            entry.touch(self.worker.tick_epoch_ms());
        }
    }

    /// Queues a message of `len` bytes, which `write` appends.
    fn put(&self, len: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.note_sent(len);
        self.outbox.message(len, write);
    }

    /// Whether its closing was asked for from outside.
    pub(crate) fn asked_to_close(&self) -> Option<CloseReason> {
        self.entry.borrow().as_ref()?.asked_to_close()
    }

    /// Gives its place in the table back.
    fn vacate(&self) {
        self.keep_lease(None);
        self.entry.borrow_mut().take();
    }

    /// Waits until another message of the client may be taken up: not too many calls are in flight, it reads what it is sent, and what it
    /// does can be recorded.
    pub(crate) async fn ready_for_more(&self) {
        poll_fn(|cx| {
            if self.gone.get() {
                return Poll::Ready(());
            }
            if self.outbox.poll_room(cx.waker()).is_pending() {
                return Poll::Pending;
            }
            let recording = self.worker.shared.lifecycle.audit_healthy();
            if recording && self.worker.events.poll_spare(cx.waker()).is_pending() {
                return Poll::Pending;
            }
            if self.calls.borrow().open() < MAX_IN_FLIGHT {
                return Poll::Ready(());
            }
            self.wait(cx.waker())
        })
        .await;
    }

    /// Waits until nothing is in flight. Safe to drop.
    pub(crate) async fn answered(&self) {
        poll_fn(|cx| {
            if !self.is_busy() {
                return Poll::Ready(());
            }
            self.wait(cx.waker())
        })
        .await;
    }

    /// Waits until everything that was queued is sent, or cannot be. Safe to drop.
    pub(crate) async fn written(&self) {
        poll_fn(|cx| self.outbox.poll_written(cx.waker())).await;
    }

    /// The client has gone, or is to go: what is in flight for it is given up, its sessions are ended.
    pub(crate) fn leave(self: &Rc<Self>) {
        if self.gone.replace(true) {
            return;
        }
        self.calls.borrow_mut().cancel_all();
        let carried = self.calls.borrow().over_links();
        for (key, link, number) in carried {
            link.cancel(number, "the client has gone");
            self.finish(key, Outcome::Cancelled, self.worker.now_ns());
        }
        if let Some(link) = self.own_link.borrow_mut().take() {
            link.leave();
        }
        self.end_sessions();
        if self.outbox.was_too_slow() {
            let event = self.worker.event(EventKind::ConnectionTimeout, self.address);
            self.record(event.with_details(format_args!("the client did not take its answer in time")));
        }
        match self.asked_to_close() {
            // Recorded where it was asked for, with who asked.
            Some(CloseReason::Admin) => {}
            reason if self.is_authenticated() => {
                let event = self.worker.event(EventKind::ConnectionClosed, self.address);
                self.record(match reason {
                    Some(reason) => event.with_details(format_args!("{}", reason.text())),
                    None => event,
                });
            }
            _ => {}
        }
        self.worker.metrics.door(self.door).connections_closed.inc();
    }

    /// Enters a call.
    fn begin(&self, begun: calls::Begun<'_>) -> CallKey {
        let mut calls = self.calls.borrow_mut();
        if calls.open() == 0 {
            *self.in_flight.borrow_mut() = Some(self.worker.shared.lifecycle.begin_call(self.worker.index));
        }
        calls.begin(begun)
    }

    /// Takes a call off, and lets the receiving task go on if it has waited for that.
    fn end(&self, key: CallKey) {
        let mut calls = self.calls.borrow_mut();
        calls.end(key);
        if calls.open() == 0 {
            *self.in_flight.borrow_mut() = None;
        }
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    fn wait(&self, waker: &Waker) -> Poll<()> {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        Poll::Pending
    }

    /// Waits until a call has ended.
    async fn ended(&self, key: CallKey) {
        poll_fn(|cx| {
            if self.gone.get() || self.calls.borrow().get(key).is_none() {
                return Poll::Ready(());
            }
            self.wait(cx.waker())
        })
        .await;
    }

    /// Queues an audit event with this client's name on it.
    pub(crate) fn record(&self, event: Event) {
        self.worker.record(self.named(event));
    }

    fn named(&self, event: Event) -> Event {
        let event = event.with_client(self.door, self.id);
        match self.principal.borrow().as_ref().and_then(Principal::agent) {
            Some(agent) => event.with_agent(agent),
            None => event,
        }
    }
}
