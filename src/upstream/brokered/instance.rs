//! One running instance, a process or a connection, as the broker sees it: the queue to it, the calls that it has not answered, the
//! requests it has asked.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::handle::ToClient;
use super::seam::{ChildCall, ChildMessage, Gone, SessionId};
use super::splice::{IdKey, splice};
use crate::state::call_limit::{CallLimit, CallPermit};

/// Messages that wait to be written to one server.
const SERVER_QUEUE: usize = 256;
/// Bytes that wait to be written to one server; a single message may be longer.
const SERVER_QUEUE_BYTES: usize = 4 << 20;
/// A call whose client has gone, or that was cancelled at the server, is forgotten after this long.
pub(super) const ORPHAN: Duration = Duration::from_secs(600);
/// A call that its client cancelled may still be answered within this time; then its stream is closed.
pub(super) const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// A child that has not answered `initialize` by then is ended. Programs that are downloaded first take their time.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(120);
/// Unanswered requests to one child, those that nobody waits for any more included.
const MAX_UNANSWERED: usize = 16_384;
/// Unanswered requests of one child to clients.
pub(super) const MAX_ASKED: usize = 256;

/// The broker's end of the queue to one server. Dropping it ends the instance.
#[derive(Debug)]
pub(super) struct ToServer {
    queue: mpsc::Sender<Vec<u8>>,
    flow: Arc<Flow>,
    pushed: Cell<u64>,
    _wanted: oneshot::Sender<Infallible>,
}

/// How far the queue to a server is read.
#[derive(Debug, Default)]
struct Flow {
    queued_bytes: AtomicUsize,
    /// Messages that the writing task has taken: of these the server may have seen something.
    taken: AtomicU64,
}

/// The other end, for the tasks around a process or connection.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) messages: Messages,
    /// Resolves when the instance is not wanted any more.
    pub(super) unwanted: oneshot::Receiver<Infallible>,
}

/// The messages to write, each with its line break.
#[derive(Debug)]
pub(super) struct Messages {
    queue: mpsc::Receiver<Vec<u8>>,
    flow: Arc<Flow>,
}

impl Messages {
    /// The next message; from now on it counts as sent. `None` when the broker has let go. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        let message = self.queue.recv().await?;
        self.flow.taken.fetch_add(1, Relaxed);
        Some(message)
    }

    /// A message that is there already.
    #[cfg(test)]
    pub(super) fn try_next(&mut self) -> Option<Vec<u8>> {
        let message = self.queue.try_recv().ok()?;
        self.flow.taken.fetch_add(1, Relaxed);
        Some(message)
    }

    /// A message of so many bytes has left.
    pub(super) fn written(&self, len: usize) {
        self.flow.queued_bytes.fetch_sub(len, Relaxed);
    }
}

impl ToServer {
    pub(super) fn new() -> (Self, Outlet) {
        let (queue, out) = mpsc::channel(SERVER_QUEUE);
        let (wanted, unwanted) = oneshot::channel();
        let flow = Arc::<Flow>::default();
        let this = Self { queue, flow: Arc::clone(&flow), pushed: Cell::new(0), _wanted: wanted };
        (this, Outlet { messages: Messages { queue: out, flow }, unwanted })
    }

    /// Queues one message, without line break. `false` when the server does not keep up.
    pub(super) fn push(&self, mut message: Vec<u8>) -> bool {
        message.push(b'\n');
        let queued = self.flow.queued_bytes.load(Relaxed);
        if queued > 0 && queued.saturating_add(message.len()) > SERVER_QUEUE_BYTES {
            return false;
        }
        let len = message.len();
        self.flow.queued_bytes.fetch_add(len, Relaxed);
        let sent = self.queue.try_send(message).is_ok();
        if sent {
            self.pushed.set(self.pushed.get().saturating_add(1));
        } else {
            self.flow.queued_bytes.fetch_sub(len, Relaxed);
        }
        sent
    }

    /// Messages that were queued so far.
    pub(super) fn pushed(&self) -> u64 {
        self.pushed.get()
    }

    /// Messages that were taken to be written so far: the first so many of those that were queued.
    fn taken(&self) -> u64 {
        self.flow.taken.load(Relaxed)
    }
}

/// Who may share an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// The hash of a legacy client's protocol version and capabilities; `None` for 2026-07-28, where every message stands for itself.
    pub(super) legacy: Option<[u8; 32]>,
    /// Set where principals do not share.
    pub(super) principal: Option<u64>,
}

/// What a request that the server has not answered holds of its upstream's bound.
pub(super) type Permit = CallPermit<Arc<CallLimit>>;

/// How far the legacy handshake is.
#[derive(Debug)]
pub(super) enum Init {
    /// None was sent.
    Fresh,
    /// It waits for the server's answer.
    Pending { id: u64, since: Instant, place: u64, waiters: Vec<Waiter>, _permit: Permit },
    /// The answer, and where its id stands.
    Done {
        response: Vec<u8>,
        id: Range<usize>,
        /// notifications/initialized was passed on.
        confirmed: bool,
    },
}

/// A client that waits for the answer to `initialize`.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) to: ToClient,
    pub(super) id: Vec<u8>,
    pub(super) principal: u64,
}

/// What a call means to the gateway.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Nothing.
    Plain,
    /// 2026-07-28 subscriptions/listen: its id comes back in notifications.
    Subscription,
    /// Legacy resources/subscribe for this URI.
    Subscribe(String),
}

/// A request that the child has not answered.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) session: Option<SessionId>,
    pub(super) to: Option<ToClient>,
    pub(super) id: Vec<u8>,
    pub(super) token: Option<Vec<u8>>,
    pub(super) purpose: Purpose,
    /// 2026-07-28: the request allows notifications/message.
    pub(super) wants_log: bool,
    /// When it is given up.
    pub(super) deadline: Option<Instant>,
    /// Its place in the queue to the server, from 1.
    place: u64,
    /// `None` once nobody waits for its answer.
    permit: Option<Permit>,
}

impl Call {
    /// Its client has gone, or does not read: it runs on unheard for a while, and counts no more.
    pub(super) fn abandon(&mut self, now: Instant) {
        (self.to, self.token) = (None, None);
        drop(self.permit.take());
        self.deadline = Some(now + ORPHAN);
    }

    /// The server has said something about it. A subscription is then no call that is waited for, but a stream that stays.
    pub(super) fn opened(&mut self) {
        if self.purpose == Purpose::Subscription {
            drop(self.permit.take());
        }
    }
}

/// A request of the server that a client has not answered.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) session: SessionId,
    pub(super) id: Vec<u8>,
    pub(super) token: Option<IdKey>,
    pub(super) since: Instant,
}

/// A running process, or a connection, from before it stands.
#[derive(Debug)]
pub(super) struct Instance {
    /// `None`: started ahead, not used yet.
    pub(super) key: Option<Key>,
    pub(super) server: ToServer,
    pub(super) init: Init,
    /// By serial: the oldest first.
    pub(super) calls: BTreeMap<u64, Call>,
    pub(super) by_client_id: HashMap<(SessionId, IdKey), u64>,
    pub(super) asked: HashMap<IdKey, Asked>,
    pub(super) sessions: HashSet<SessionId>,
    pub(super) last_used: Instant,
    pub(super) born: Instant,
}

impl Instance {
    pub(super) fn new(key: Option<Key>, server: ToServer, now: Instant) -> Self {
        Self {
            key,
            server,
            init: Init::Fresh,
            calls: BTreeMap::new(),
            by_client_id: HashMap::new(),
            asked: HashMap::new(),
            sessions: HashSet::new(),
            last_used: now,
            born: now,
        }
    }

    /// Whether no call waits for it.
    pub(super) fn is_idle(&self) -> bool {
        self.calls.is_empty() && !matches!(self.init, Init::Pending { .. })
    }

    /// Passes a request on under the id `serial`. The client is told when that fails; `true` when it went out.
    pub(super) fn forward(
        &mut self,
        serial: u64,
        call: ChildCall,
        to: ToClient,
        purpose: Purpose,
        calls: &Arc<CallLimit>,
        now: Instant,
    ) -> bool {
        let refuse = |reason| {
            to.send(ChildMessage::Gone { reason });
            false
        };
        let permit = CallLimit::try_take(Arc::clone(calls)).filter(|_| self.calls.len() < MAX_UNANSWERED);
        let Some(permit) = permit else {
            return refuse(Gone::Busy);
        };
        let ours = serial.to_string();
        let token_at = call.parts.progress_token.clone();
        let token = token_at.clone().and_then(|at| call.raw.get(at)).map(<[u8]>::to_vec);
        let Some((id_at, id)) = call.parts.id.clone().and_then(|at| Some((at.clone(), call.raw.get(at)?.to_vec())))
        else {
            return refuse(Gone::Malformed);
        };
        let mut edits = vec![(id_at, ours.as_bytes())];
        edits.extend(token_at.map(|at| (at, ours.as_bytes())));
        let (Some(message), Some(key)) = (splice(&call.raw, &mut edits), IdKey::of(&id)) else {
            return refuse(Gone::Malformed);
        };
        if !self.server.push(message) {
            return refuse(Gone::Busy);
        }
        let place = self.server.pushed();
        if let Some(session) = call.session {
            self.by_client_id.insert((session, key), serial);
        }
        let wants_log = memchr::memmem::find(&call.raw, b"io.modelcontextprotocol/logLevel").is_some();
        self.last_used = now;
        self.calls.insert(
            serial,
            Call {
                session: call.session,
                to: Some(to),
                id,
                token,
                purpose,
                wants_log,
                deadline: None,
                place,
                permit: Some(permit),
            },
        );
        true
    }

    /// Forgets a call.
    pub(super) fn forget(&mut self, serial: u64) -> Option<Call> {
        let call = self.calls.remove(&serial)?;
        if let (Some(session), Some(key)) = (call.session, IdKey::of(&call.id)) {
            let index = (session, key);
            // A client that used an id twice at the same time has the newer call under it.
            if self.by_client_id.get(&index) == Some(&serial) {
                self.by_client_id.remove(&index);
            }
        }
        Some(call)
    }

    /// Forgets a call and tells the server that it is cancelled. `reason` is shown to the server.
    pub(super) fn cancel(&mut self, serial: u64, reason: &str) -> Option<Call> {
        let call = self.forget(serial)?;
        let note = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{serial},"reason":"{reason}"}}}}"#
        );
        // A child that does not read cannot be told; it will end by itself or by its idle time.
        self.server.push(note.into_bytes());
        Some(call)
    }

    /// Answers a request of the server with an error.
    pub(super) fn refuse(&self, id: &[u8], code: i32, message: &str) {
        let tail = format!(r#","error":{{"code":{code},"message":"{message}"}}}}"#);
        let mut answer = br#"{"jsonrpc":"2.0","id":"#.to_vec();
        answer.extend_from_slice(id);
        answer.extend_from_slice(tail.as_bytes());
        self.server.push(answer);
    }

    /// Tells all clients that wait for this instance why it will not answer. What was still queued has not been sent.
    pub(super) fn fail_all(&mut self, reason: &Gone) {
        let gone = |place: u64, taken: u64| {
            let was_sent = place <= taken || !matches!(reason, Gone::Exited | Gone::Disconnected);
            ChildMessage::Gone { reason: if was_sent { reason.clone() } else { Gone::Unsent } }
        };
        let taken = self.server.taken();
        for call in std::mem::take(&mut self.calls).into_values() {
            if let Some(to) = call.to {
                to.send(gone(call.place, taken));
            }
        }
        if let Init::Pending { place, waiters, .. } = std::mem::replace(&mut self.init, Init::Fresh) {
            for waiter in waiters {
                waiter.to.send(gone(place, taken));
            }
        }
    }
}
