//! One running child as the broker sees it: its stdin queue, the calls that it has not answered, the requests it has asked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::handle::ToClient;
use super::seam::{ChildCall, ChildMessage, Gone, SessionId};
use super::splice::{IdKey, splice};

/// Messages that wait to be written to one child.
const STDIN_MESSAGES: usize = 256;
/// Bytes that wait to be written to one child; a single message may be longer.
const STDIN_BYTES: usize = 4 << 20;
/// A call whose client has gone, or that was cancelled at the server, is forgotten after this long.
pub(super) const ORPHAN: Duration = Duration::from_secs(600);
/// A call that its client cancelled may still be answered within this time; then its stream is closed.
pub(super) const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// A child that has not answered `initialize` by then is ended. Programs that are downloaded first take their time.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(120);
/// Unanswered requests of one child to clients.
pub(super) const MAX_ASKED: usize = 256;

/// The writing end of a child's stdin. Dropping it ends the child.
#[derive(Debug)]
pub(super) struct StdinQueue {
    queue: mpsc::Sender<Vec<u8>>,
    queued_bytes: Arc<AtomicUsize>,
    _wanted: oneshot::Sender<Infallible>,
}

/// The other end, for the task that writes.
#[derive(Debug)]
pub(super) struct StdinOutlet {
    pub(super) queue: mpsc::Receiver<Vec<u8>>,
    pub(super) queued_bytes: Arc<AtomicUsize>,
    /// Resolves when the child is not wanted any more.
    pub(super) unwanted: oneshot::Receiver<Infallible>,
}

impl StdinQueue {
    pub(super) fn new() -> (Self, StdinOutlet) {
        let (queue, out) = mpsc::channel(STDIN_MESSAGES);
        let (wanted, unwanted) = oneshot::channel();
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let this = Self { queue, queued_bytes: Arc::clone(&queued_bytes), _wanted: wanted };
        let outlet = StdinOutlet { queue: out, queued_bytes, unwanted };
        (this, outlet)
    }

    /// Queues one message, without line break. `false` when the child does not keep up.
    pub(super) fn push(&self, mut message: Vec<u8>) -> bool {
        message.push(b'\n');
        let queued = self.queued_bytes.load(Relaxed);
        if queued > 0 && queued.saturating_add(message.len()) > STDIN_BYTES {
            return false;
        }
        let len = message.len();
        self.queued_bytes.fetch_add(len, Relaxed);
        let sent = self.queue.try_send(message).is_ok();
        if !sent {
            self.queued_bytes.fetch_sub(len, Relaxed);
        }
        sent
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

/// How far the legacy handshake is.
#[derive(Debug)]
pub(super) enum Init {
    /// None was sent.
    Fresh,
    /// It waits for the server's answer.
    Pending { id: u64, since: Instant, waiters: Vec<Waiter> },
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
}

/// A request of the server that a client has not answered.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) session: SessionId,
    pub(super) id: Vec<u8>,
    pub(super) token: Option<IdKey>,
    pub(super) since: Instant,
}

/// A running child.
#[derive(Debug)]
pub(super) struct Instance {
    /// `None`: started ahead, not used yet.
    pub(super) key: Option<Key>,
    pub(super) stdin: StdinQueue,
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
    pub(super) fn new(key: Option<Key>, stdin: StdinQueue, now: Instant) -> Self {
        Self {
            key,
            stdin,
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
        max_in_flight: usize,
        now: Instant,
    ) -> bool {
        let refuse = |reason| {
            to.send(ChildMessage::Gone { reason });
            false
        };
        if self.calls.len() >= max_in_flight {
            return refuse(Gone::Busy);
        }
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
        if !self.stdin.push(message) {
            return refuse(Gone::Busy);
        }
        if let Some(session) = call.session {
            self.by_client_id.insert((session, key), serial);
        }
        let wants_log = memchr::memmem::find(&call.raw, b"io.modelcontextprotocol/logLevel").is_some();
        self.last_used = now;
        self.calls.insert(
            serial,
            Call { session: call.session, to: Some(to), id, token, purpose, wants_log, deadline: None },
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
        self.stdin.push(note.into_bytes());
        Some(call)
    }

    /// Answers a request of the server with an error.
    pub(super) fn refuse(&self, id: &[u8], code: i32, message: &str) {
        let tail = format!(r#","error":{{"code":{code},"message":"{message}"}}}}"#);
        let mut answer = br#"{"jsonrpc":"2.0","id":"#.to_vec();
        answer.extend_from_slice(id);
        answer.extend_from_slice(tail.as_bytes());
        self.stdin.push(answer);
    }

    /// Tells all clients that wait for this child why it will not answer.
    pub(super) fn fail_all(&mut self, reason: &Gone) {
        let gone = || ChildMessage::Gone { reason: reason.clone() };
        for call in std::mem::take(&mut self.calls).into_values() {
            if let Some(to) = call.to {
                to.send(gone());
            }
        }
        if let Init::Pending { waiters, .. } = std::mem::replace(&mut self.init, Init::Fresh) {
            for waiter in waiters {
                waiter.to.send(gone());
            }
        }
    }
}
