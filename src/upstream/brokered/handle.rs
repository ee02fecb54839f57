//! The workers' end: a handle that never blocks, and one handle a call.
//!
//! Three ways lead to the children thread: a bounded inbox for calls (full means [`Busy`]), a list of ended calls (one entry a call that was
//! taken, so it is bounded by [`MAX_CALLS`]), and a flag to stop. Back comes a bounded queue a call; a client that does not read it is cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};

use tokio::sync::{mpsc, watch};

use super::seam::{Busy, ChildCall, ChildMessage};

/// Calls that wait for the children thread. It takes them up within microseconds; more than this is overload.
const INBOX: usize = 1024;
/// Calls of all workers to all stdio upstreams whose handle is alive.
const MAX_CALLS: usize = 65_536;
/// Messages that wait for one client.
const CLIENT_QUEUE: usize = 64;

/// State of one upstream, for `/health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ChildState {
    /// No process, none needed at present.
    Idle = 0,
    /// At least one process runs.
    Running = 1,
    /// It crashed; the next start waits.
    BackingOff = 2,
    /// It cannot be started.
    Failed = 3,
}

/// Counters of one upstream since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildCounters {
    /// Processes that run now.
    pub instances: u64,
    /// Starts of a process.
    pub starts: u64,
    /// Unexpected ends.
    pub crashes: u64,
    /// Messages of the server that could not be attributed to a client, or whose client did not read.
    pub dropped: u64,
    /// Lines that were no JSON-RPC or too long.
    pub bad_lines: u64,
}

/// What the children thread publishes of one upstream.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    pub(super) state: AtomicU8,
    pub(super) instances: AtomicU64,
    pub(super) starts: AtomicU64,
    pub(super) crashes: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) bad_lines: AtomicU64,
}

/// A call on its way to the children thread.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) upstream: usize,
    /// Unique in the process; also the id under which the child knows the call.
    pub(super) serial: u64,
    pub(super) call: ChildCall,
    pub(super) to: ToClient,
}

/// A dropped [`CallHandle`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) upstream: usize,
    pub(super) serial: u64,
    pub(super) cancel: bool,
}

/// The sending end of one call's queue.
#[derive(Debug)]
pub(super) struct ToClient {
    queue: mpsc::Sender<ChildMessage>,
    queued_bytes: Arc<AtomicUsize>,
    max_bytes: usize,
}

impl ToClient {
    /// Queues a message. `false`: the client has gone or does not read, and is to be forgotten.
    pub(super) fn send(&self, message: ChildMessage) -> bool {
        let len = message.len();
        let queued = self.queued_bytes.load(Relaxed);
        if queued > 0 && queued.saturating_add(len) > self.max_bytes {
            return false;
        }
        // Added before it is sent, so that the receiver never subtracts first.
        self.queued_bytes.fetch_add(len, Relaxed);
        self.queue.try_send(message).is_ok()
    }

    /// Whether the client has gone.
    pub(super) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}

impl ChildMessage {
    fn len(&self) -> usize {
        match self {
            Self::Message { bytes, .. } | Self::Initialized { bytes, .. } => bytes.len(),
            Self::Accepted | Self::SessionUnknown | Self::Gone { .. } => 0,
        }
    }
}

#[derive(Debug)]
struct Shared {
    inbox: mpsc::Sender<Command>,
    ended: mpsc::UnboundedSender<Ended>,
    stop: watch::Sender<bool>,
    next_serial: AtomicU64,
    calls: AtomicUsize,
    upstreams: Vec<Upstream>,
}

#[derive(Debug)]
struct Upstream {
    vitals: Arc<Vitals>,
    max_bytes: usize,
}

/// The workers' way to all stdio upstreams.
#[derive(Clone, Debug)]
pub struct ChildrenHandle {
    shared: Arc<Shared>,
}

/// The children thread's ends.
#[derive(Debug)]
pub(super) struct Inlets {
    pub(super) inbox: mpsc::Receiver<Command>,
    pub(super) ended: mpsc::UnboundedReceiver<Ended>,
    pub(super) stop: watch::Receiver<bool>,
}

impl ChildrenHandle {
    /// A handle for upstreams with these `(max_message_bytes, vitals)`.
    pub(super) fn new(upstreams: Vec<(usize, Arc<Vitals>)>) -> (Self, Inlets) {
        let (inbox, inbox_out) = mpsc::channel(INBOX);
        let (ended, ended_out) = mpsc::unbounded_channel();
        let (stop, stop_out) = watch::channel(false);
        let upstreams = upstreams.into_iter().map(|(max_bytes, vitals)| Upstream { vitals, max_bytes }).collect();
        let shared = Arc::new(Shared {
            inbox,
            ended,
            stop,
            next_serial: AtomicU64::new(1),
            calls: AtomicUsize::new(0),
            upstreams,
        });
        let inlets = Inlets { inbox: inbox_out, ended: ended_out, stop: stop_out };
        (Self { shared }, inlets)
    }

    /// Hands a call to the children thread. Never blocks.
    ///
    /// # Errors
    /// [`Busy`] when the inbox is full, `upstream` is out of range or the thread has ended.
    pub fn call(&self, upstream: usize, call: ChildCall) -> Result<CallHandle, Busy> {
        let max_bytes = self.shared.upstreams.get(upstream).ok_or(Busy)?.max_bytes;
        let (queue, messages) = mpsc::channel(CLIENT_QUEUE);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let serial = self.shared.next_serial.fetch_add(1, Relaxed);
        let cancel_on_drop = call.cancel_on_drop;
        let permit = self.shared.inbox.try_reserve().map_err(|_| Busy)?;
        if self.shared.calls.fetch_add(1, Relaxed) >= MAX_CALLS {
            self.shared.calls.fetch_sub(1, Relaxed);
            return Err(Busy);
        }
        permit.send(Command {
            upstream,
            serial,
            call,
            to: ToClient { queue, queued_bytes: Arc::clone(&queued_bytes), max_bytes },
        });
        Ok(CallHandle {
            messages,
            queued_bytes,
            shared: Arc::clone(&self.shared),
            upstream,
            serial,
            cancel_on_drop,
            finished: false,
        })
    }

    /// Ends all children; the thread ends when they have, after at most some six seconds. Calls in flight get [`super::Gone::Stopping`].
    pub fn stop(&self) {
        self.shared.stop.send_replace(true);
    }

    /// State of an upstream; `Failed` when out of range.
    pub fn state(&self, upstream: usize) -> ChildState {
        let state = self.shared.upstreams.get(upstream).map(|upstream| upstream.vitals.state.load(Relaxed));
        match state {
            Some(0) => ChildState::Idle,
            Some(1) => ChildState::Running,
            Some(2) => ChildState::BackingOff,
            _ => ChildState::Failed,
        }
    }

    /// Calls that the thread has not taken up yet.
    pub fn queued(&self) -> usize {
        self.shared.inbox.max_capacity().saturating_sub(self.shared.inbox.capacity())
    }

    /// Calls that were handed over and have not ended.
    pub fn in_flight(&self) -> usize {
        self.shared.calls.load(Relaxed)
    }

    /// Counters of an upstream; zero when out of range.
    pub fn counters(&self, upstream: usize) -> ChildCounters {
        let Some(upstream) = self.shared.upstreams.get(upstream) else {
            return ChildCounters::default();
        };
        let vitals = &upstream.vitals;
        ChildCounters {
            instances: vitals.instances.load(Relaxed),
            starts: vitals.starts.load(Relaxed),
            crashes: vitals.crashes.load(Relaxed),
            dropped: vitals.dropped.load(Relaxed),
            bad_lines: vitals.bad_lines.load(Relaxed),
        }
    }
}

/// A call in flight. Dropping it says that the client has gone.
#[derive(Debug)]
pub struct CallHandle {
    messages: mpsc::Receiver<ChildMessage>,
    queued_bytes: Arc<AtomicUsize>,
    shared: Arc<Shared>,
    upstream: usize,
    serial: u64,
    cancel_on_drop: bool,
    finished: bool,
}

impl CallHandle {
    /// The next message; works on any runtime whose wakers may be called from another thread. `None` after the last message; before it: the
    /// client read too slowly and was cut. Cancel-safe.
    pub async fn recv(&mut self) -> Option<ChildMessage> {
        let message = self.messages.recv().await;
        self.account(message.as_ref());
        message
    }

    /// A message that is there already.
    pub fn try_recv(&mut self) -> Option<ChildMessage> {
        let message = self.messages.try_recv().ok()?;
        self.account(Some(&message));
        Some(message)
    }

    fn account(&mut self, message: Option<&ChildMessage>) {
        match message {
            Some(message) => {
                self.queued_bytes.fetch_sub(message.len(), Relaxed);
            }
            None => self.finished = true,
        }
    }

    /// Changes what dropping does: a call that timed out is to be cancelled in either era.
    pub fn set_cancel_on_drop(&mut self, cancel: bool) {
        self.cancel_on_drop = cancel;
    }
}

impl Drop for CallHandle {
    fn drop(&mut self) {
        // Closed first: a call that is still in the inbox is then seen to be dead when it is taken up.
        self.messages.close();
        self.shared.calls.fetch_sub(1, Relaxed);
        if !self.finished {
            let _ = self.shared.ended.send(Ended {
                upstream: self.upstream,
                serial: self.serial,
                cancel: self.cancel_on_drop,
            });
        }
    }
}
