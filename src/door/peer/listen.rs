//! What servers say by themselves in a session: their stream is opened once the client has initialized, opened again when it breaks, and its
//! messages go to this client alone. And the end of a session, when its connection ends.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::Peer;
use crate::bounds;
use crate::door::spread::Reopened;
use crate::rpc::Kind;
use crate::upstream::brokered::CallKind;
use crate::upstream::converse::{Broken, Taker, converse};
use crate::upstream::http::Failure;
use crate::upstream::{Bare, Carried, Outgoing, Sender};
use crate::worker::timers::OnExpiry;

/// Before a stream that broke is opened again; doubled each time that nothing came, up to [`LONGEST_PAUSE_MS`].
const FIRST_PAUSE_MS: u64 = 1_000;

/// At most between two attempts.
const LONGEST_PAUSE_MS: u64 = 30_000;

impl Peer {
    /// Opens the streams of the session's servers.
    pub(super) fn listen(self: &Rc<Self>) {
        if std::mem::replace(&mut self.session.borrow_mut().listening, true) {
            return;
        }
        for (index, _) in self.worker.upstreams.iter() {
            self.listen_to(index);
        }
    }

    /// Opens the stream of one of them, if it is not open already.
    pub(super) fn listen_to(self: &Rc<Self>, index: usize) {
        if self.part(index).is_some() && !self.session.borrow_mut().set_stream(index, true) {
            monoio::spawn(listen(self.clone(), index));
        }
    }

    /// The session's part at an upstream.
    fn part(&self, index: usize) -> Option<Vec<u8>> {
        let upstream = self.worker.upstreams.get(index)?;
        Some(self.session.borrow().parts()?.part(upstream.tag)?.to_vec())
    }

    /// Tells the servers that the session is over.
    pub(super) fn end_sessions(self: &Rc<Self>) {
        for (index, _) in self.worker.upstreams.iter() {
            self.end_session_at(index);
        }
    }

    /// Tells one of them.
    pub(super) fn end_session_at(&self, index: usize) {
        let Some(outgoing) = self.bodiless(index, b"DELETE", CallKind::EndSession, None) else { return };
        let worker = self.worker.clone();
        monoio::spawn(async move {
            // A server that does not let sessions be ended (405), or is down, keeps its own until it times out.
            let _ = crate::upstream::ask::ask(&worker, index, outgoing, bounds::FAN_OUT_TIMEOUT_MS).await;
        });
    }

    fn bodiless(&self, index: usize, method: &[u8], kind: CallKind, last_event_id: Option<&[u8]>) -> Option<Outgoing> {
        let session = self.session.borrow();
        let upstream = self.worker.upstreams.get(index)?;
        // A server without sessions has nothing to open or to end.
        session.parts()?.part(upstream.tag).filter(|id| !id.is_empty())?;
        let carried = Carried::Bare(Bare { version: session.version(), method: None, name: None });
        let sender = Sender::Tag(session.tag());
        upstream.bodiless(method, kind, carried, session.parts(), sender, last_event_id).ok()
    }

    /// Ready when the client has gone. Safe to drop.
    pub(super) async fn left(&self) {
        poll_fn(|cx| {
            if self.gone.get() {
                return Poll::Ready(());
            }
            self.outbox.poll_ended(cx.waker())
        })
        .await;
    }
}

/// Passes on the stream of one server for as long as the client is there.
async fn listen(peer: Rc<Peer>, index: usize) {
    pass_on(&peer, index).await;
    peer.session.borrow_mut().set_stream(index, false);
}

async fn pass_on(peer: &Rc<Peer>, index: usize) {
    let mut own = Own { peer: peer.clone(), index, last_event_id: Vec::new(), heard: false };
    let mut pause_ms = FIRST_PAUSE_MS;
    let mut part = None;
    // Whether the session was opened anew for this stream, and nothing has come since.
    let mut reopened = false;
    while !peer.gone.get() {
        let before = std::mem::replace(&mut part, peer.part(index));
        if before != part {
            // What another session has sent is nothing to go on from.
            own.last_event_id.clear();
        }
        let last = (!own.last_event_id.is_empty()).then(|| own.last_event_id.clone());
        let Some(outgoing) = peer.bodiless(index, b"GET", CallKind::Listen, last.as_deref()) else { return };
        own.heard = false;
        match converse(&peer.worker, index, outgoing, true, peer.left(), &mut own).await {
            // The server has forgotten the session. One that says so of a stream alone is not asked for ever.
            Ok(conversed) if conversed.status == 404 && !std::mem::replace(&mut reopened, true) => {
                match peer.reopen_at(index, part.as_deref()).await {
                    Reopened::Part(_) => continue,
                    Reopened::Failed(Failure::NoSession) | Reopened::Unknown => return,
                    Reopened::Failed(_) => reopened = false,
                }
            }
            // No stream is offered (405), or the session is over.
            Ok(conversed) if conversed.status != 200 => return,
            Err(Broken::Gone(_)) => return,
            _ => {}
        }
        reopened &= !own.heard;
        pause_ms = if own.heard { FIRST_PAUSE_MS } else { pause_ms.saturating_mul(2).min(LONGEST_PAUSE_MS) };
        let pause = peer.worker.timers.deadline(-1);
        pause.set(pause_ms, OnExpiry::Wake);
        let _ = crate::worker::race(pause.expired(), peer.left()).await;
    }
}

/// Takes what a server says by itself.
struct Own {
    peer: Rc<Peer>,
    index: usize,
    last_event_id: Vec<u8>,
    heard: bool,
}

impl Taker for Own {
    fn take(&mut self, message: &[u8]) -> bool {
        self.heard = true;
        let worker = self.peer.worker.clone();
        let mut scratch = worker.scratch.borrow_mut();
        let Ok(envelope) = scratch.parser.parse(message) else { return false };
        match envelope.kind {
            Kind::Request | Kind::Notification => self.peer.pass_own(self.index, message, &envelope),
            // The response to a call whose own stream broke (2025-11-25, "Resumability").
            Kind::Response | Kind::ErrorResponse => self.peer.answer_late(self.index, message, &envelope),
        }
        false
    }

    fn note_event_id(&mut self, id: &[u8]) {
        if id.len() <= crate::door::session::MAX_UPSTREAM_ID_BYTES {
            self.last_event_id = id.to_vec();
        }
    }

    fn room(&self) -> impl Future<Output = ()> {
        self.peer.room()
    }
}
