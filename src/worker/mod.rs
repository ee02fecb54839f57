//! The data plane: one thread a core, each a runtime of its own with its own listener, buffers, pools and timers.
//!
//! A worker never blocks, takes no lock and touches no file. What it shares with others lives in `state/` (atomics and
//! bounded queues) or is immutable and comes from the control plane as a `Snapshot`, of which each worker
//! looks for a newer one once a tick.
//!
//! The tick ([`timers::TICK_MS`]) is the worker's pulse: it turns the timer wheel, picks up snapshots, notices that the process is
//! draining, closes connections that were asked to, and sweeps pools. Nothing else in a worker polls.

pub(crate) mod authentication;
mod blocking;
pub(crate) mod framing;
pub(crate) mod open;
pub(crate) mod outbox;
pub(crate) mod rates;
pub(crate) mod read_ahead;
pub(crate) mod receiver;
pub(crate) mod runtime;
pub(crate) mod stream;
pub(crate) mod timers;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::door::traced::Traced;
use crate::gateway::{Shared, Snapshot};
use crate::guard::blocks::Repeats;
use crate::guard::rates::Traffic;
use crate::guard::{Access, Principal};
use crate::observe::calls::ToolRows;
use crate::observe::metrics::WorkerMetrics;
use crate::rpc;
use crate::settings::policy::FlagMode;
use crate::state::call_records::CallRecord;
use crate::state::events::{Event, EventKind, EventQueue, Outcome, clip_bytes};
use crate::state::lifecycle::{Door, Phase};
use crate::state::rates::RateTable;
use crate::upstream::Upstreams;
use crate::wire::http1::request::RequestHead;
use crate::wire::http1::response::ResponseHead;
use open::OpenConnections;
use timers::{TICK_MS, Timers};

/// Ticks between two times that memory is given back which a burst has left behind: two seconds.
const GIVE_BACK_TICKS: u64 = 40;

/// One message in so many is measured on its way through the guards: it costs two reads of the clock, which is as much as many a guard.
const MEASURED: u32 = 64;

/// Ticks between the cut of all connections and the end of the worker.
const LAST_TICKS: usize = 3;

/// What every task of a worker can reach. Not `Send`: it lives and dies on its thread.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) timers: Timers,
    pub(crate) scratch: RefCell<Scratch>,
    /// Kept for its memory, like `scratch`.
    pub(crate) content: RefCell<crate::guard::content::Scratch>,
    /// For looking at what messages carry.
    pub(crate) inspection: RefCell<crate::guard::inspect::Scratch>,
    pub(crate) upstreams: Upstreams,
    pub(crate) open: OpenConnections,
    /// What the stay of connections hangs on that have shown a token which can end.
    pub(crate) leases: authentication::Leases,
    verified: authentication::Verified,
    /// Attempts of blocked clients that the audit trail has not heard of yet.
    blocked: RefCell<Repeats>,
    /// The streams of old SSE clients.
    pub(crate) sse: crate::door::sse::Sessions,
    /// The numbers of the settings that every request looks at.
    pub(crate) limits: Cell<Limits>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) events: Arc<EventQueue>,
    snapshot: RefCell<LocalSnapshot>,
    /// See [`Worker::generation`].
    generation: Cell<u64>,
    tool_rows: RefCell<ToolRows>,
    /// Messages that were decided about, and when the one that is measured began.
    decided: Cell<(u32, Option<u64>)>,
    /// Refused connections that are being closed in good order.
    pub(crate) lingering: Cell<usize>,
    phase: Cell<Phase>,
    /// The wall clock at the last tick, milliseconds, and the worker's own then, nanoseconds.
    tick: Cell<(u64, u64)>,
    started: Instant,
    /// What [`Worker::now_ns`] was when it was read last.
    read_ns: Cell<u64>,
}

/// A snapshot as one worker holds it: counting the uses of what all workers share, several times a call, would make them wait for each other.
#[allow(clippy::redundant_allocation, reason = "the outer count is the worker's own")]
pub(crate) type LocalSnapshot = Rc<Arc<Snapshot>>;

/// The numbers of the settings that every request looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) idle_timeout_ms: u64,
    pub(crate) header_timeout_ms: u64,
    pub(crate) body_timeout_ms: u64,
    pub(crate) write_timeout_ms: u64,
    pub(crate) max_request_bytes: u64,
    /// Idleness on the TCP door.
    pub(crate) tcp_idle_timeout_ms: u64,
    /// The longest that any upstream may take over a call.
    pub(crate) longest_call_ms: u64,
    /// One message on WebSocket.
    pub(crate) max_message_bytes: u32,
    /// `MAX_BUFFER_SIZE`: unread and unsent bytes of one connection.
    pub(crate) max_buffer_bytes: usize,
    /// What may be held of an answer: `MAX_BUFFER_SIZE`.
    pub(crate) max_held_bytes: usize,
    /// The longest result, see `[results] max_bytes`.
    pub(crate) max_result_bytes: usize,
    /// Whether results are to be looked at before they are passed on.
    pub(crate) looks_at_results: bool,
    /// What becomes of tools whose descriptions have changed.
    pub(crate) pins: FlagMode,
    /// How much may reach the gateway; `None`: as much as there is.
    pub(crate) traffic: Option<Traffic>,
}

impl Limits {
    fn of(snapshot: &Snapshot, table: &RateTable) -> Self {
        let doors = &snapshot.settings.doors;
        let max_held_bytes = (doors.max_buffer_size as usize).min(crate::bounds::MAX_HELD_ANSWER_BYTES);
        let max_result_bytes = snapshot.results.max_bytes();
        Self {
            idle_timeout_ms: millis(doors.ws_idle_timeout),
            header_timeout_ms: millis(doors.header_timeout),
            body_timeout_ms: millis(doors.body_timeout),
            write_timeout_ms: millis(doors.write_timeout),
            max_request_bytes: u64::from(doors.max_request_size),
            tcp_idle_timeout_ms: millis(doors.tcp_idle_timeout),
            longest_call_ms: snapshot
                .settings
                .policy
                .upstreams
                .iter()
                .map(|one| millis(one.call_timeout))
                .max()
                .unwrap_or(0),
            max_message_bytes: doors.max_message_size,
            max_buffer_bytes: doors.max_buffer_size as usize,
            traffic: Traffic::new(&snapshot.settings.rates, table),
            max_held_bytes,
            max_result_bytes,
            looks_at_results: snapshot.results.looks_inside() || max_result_bytes < max_held_bytes,
            pins: snapshot.settings.policy.pin,
        }
    }
}

/// A request that has ended.
pub(crate) struct EndedCall<'a> {
    pub(crate) door: Door,
    /// The upstream that it was for; `None` where it was for several, or none.
    pub(crate) upstream: Option<usize>,
    pub(crate) method: rpc::Method,
    /// What it acts on, as the client spells it.
    pub(crate) name: &'a [u8],
    pub(crate) outcome: Outcome,
    /// By the worker's clock.
    pub(crate) now_ns: u64,
    pub(crate) duration_ns: u64,
    pub(crate) traced: Option<Traced>,
}

/// Memory that is used between two awaits and never across one.
pub(crate) struct Scratch {
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
    pub(crate) parser: rpc::Parser,
    pub(crate) session: crate::door::session::Session,
    pub(crate) insert: Vec<u8>,
}

impl Worker {
    pub(crate) fn new(index: usize, shared: Arc<Shared>) -> Rc<Self> {
        let snapshot = shared.snapshot.load_full();
        let timers = Timers::new();
        let depth = snapshot.settings.doors.max_json_depth as usize;
        Rc::new(Self {
            index,
            upstreams: Upstreams::new(&shared, &snapshot),
            limits: Cell::new(Limits::of(&snapshot, &shared.traffic)),
            metrics: shared.metrics(index),
            events: shared.events(index),
            snapshot: RefCell::new(Rc::new(snapshot)),
            generation: Cell::new(0),
            read_ns: Cell::new(0),
            tool_rows: RefCell::new(ToolRows::new(shared.tools.clone())),
            decided: Cell::new((0, None)),
            phase: Cell::new(shared.lifecycle.phase()),
            timers,
            scratch: RefCell::new(Scratch {
                request: RequestHead::default(),
                response: ResponseHead::default(),
                parser: rpc::Parser::new(depth),
                session: crate::door::session::Session::default(),
                insert: Vec::new(),
            }),
            content: RefCell::default(),
            inspection: RefCell::default(),
            open: OpenConnections::default(),
            leases: authentication::Leases::default(),
            verified: authentication::Verified::default(),
            blocked: RefCell::default(),
            tick: Cell::new((epoch_ms(), 0)),
            sse: crate::door::sse::Sessions::default(),
            lingering: Cell::new(0),
            started: Instant::now(),
            shared,
        })
    }

    /// The settings and policy in force, as of the last tick.
    pub(crate) fn snapshot(&self) -> LocalSnapshot {
        Rc::clone(&self.snapshot.borrow())
    }

    /// A number that changes when the settings or credentials change that this worker decides by. What was decided under one number holds
    /// as long as it stays: whatever can end a credential must change it, or be asked anew for each message.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// The tools that a principal may list and call; `None`: all. Costs who is restricted in nothing one look.
    pub(crate) fn access(&self, principal: &Principal) -> Option<Arc<Access>> {
        self.snapshot.borrow().permissions.of(principal).cloned()
    }

    /// Nanoseconds since the worker started. One clock read.
    pub(crate) fn now_ns(&self) -> u64 {
        let now_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.read_ns.set(now_ns);
        now_ns
    }

    /// [`Worker::now_ns`] when it was read last, which is at most a tick ago: for where that is near enough.
    pub(crate) fn recent_ns(&self) -> u64 {
        self.read_ns.get()
    }

    /// Whether no new work is to be begun.
    pub(crate) fn is_draining(&self) -> bool {
        self.phase.get() >= Phase::Draining
    }

    /// Milliseconds since the epoch at the last tick: what every message can afford to note.
    pub(crate) fn tick_epoch_ms(&self) -> u64 {
        self.tick.get().0
    }

    /// Queues an audit event about a connection. A full queue is counted by the queue itself.
    pub(crate) fn record(&self, event: Event) {
        if self.events.push(event).is_err() {
            // Counted by the queue; the trail's gap shows in /metrics.
            tracing::debug!("an audit event found no room");
        }
    }

    /// Milliseconds since the epoch at `now_ns`: as of the last tick plus what has passed since, without reading the wall clock.
    pub(crate) fn epoch_ms_at(&self, now_ns: u64) -> u64 {
        let (epoch_ms, at_ns) = self.tick.get();
        epoch_ms.saturating_add(now_ns.saturating_sub(at_ns) / 1_000_000)
    }

    /// Counts a message that was refused before anything was done for it.
    pub(crate) fn count_refused(&self, door: Door, envelope: &rpc::Envelope, name: &[u8]) {
        if envelope.kind == rpc::Kind::Request {
            self.count_call(&EndedCall {
                door,
                upstream: None,
                method: envelope.method,
                name,
                outcome: Outcome::Refused,
                now_ns: 0,
                duration_ns: 0,
                traced: None,
            });
        }
    }

    /// Counts a request that has ended.
    pub(crate) fn count_call(&self, ended: &EndedCall<'_>) {
        let mut rows = self.tool_rows.borrow_mut();
        let row = if ended.method == rpc::Method::ToolsCall {
            let own_name = |name| ended.upstream.map_or(name, |index| self.upstreams.own_name(index, name));
            rows.of_tool(ended.upstream, ended.name, ended.outcome == Outcome::Ok, own_name)
        } else {
            rows.of_method(ended.upstream)
        };
        self.metrics.call(row, ended.door, ended.outcome, ended.duration_ns);
        if let (Some(traced), Some(records)) = (ended.traced, &self.shared.call_records) {
            let tool = if ended.method == rpc::Method::ToolsCall { ended.name } else { b"" };
            records.push(CallRecord {
                parent: traced.parent,
                door: ended.door,
                upstream: ended.upstream.and_then(|index| u16::try_from(index).ok()),
                method: ended.method.as_str(),
                tool: clip_bytes(tool),
                outcome: ended.outcome,
                ended_at_ms: self.epoch_ms_at(ended.now_ns),
                duration_ns: ended.duration_ns,
            });
        }
    }

    /// A message is about to be looked at; one in [`MEASURED`] is measured.
    pub(crate) fn begin_deciding(&self) {
        let (count, _) = self.decided.get();
        let began = count.is_multiple_of(MEASURED).then(|| self.now_ns());
        self.decided.set((count.wrapping_add(1), began));
    }

    /// How many messages were decided about.
    pub(crate) fn messages_decided(&self) -> u32 {
        self.decided.get().0
    }

    /// It was decided that the message goes on. When that was, if it is measured.
    pub(crate) fn end_deciding(&self) -> Option<u64> {
        let (count, began) = self.decided.get();
        let now_ns = began.map(|_| self.now_ns())?;
        self.decided.set((count, None));
        self.metrics.guard_duration.record(now_ns.saturating_sub(began?));
        Some(now_ns)
    }

    /// A new event of `kind`, now.
    pub(crate) fn event(&self, kind: EventKind, peer: SocketAddr) -> Event {
        Event::new(kind, epoch_ms()).with_ip(peer.ip())
    }

    /// Turns the wheel until the process stops.
    async fn pulse(self: Rc<Self>) {
        let mut ticks = 0u64;
        crate::door::http::answer::set_date(epoch_ms());
        loop {
            monoio::time::sleep(Duration::from_millis(TICK_MS)).await;
            ticks += 1;
            let now_ns = self.now_ns();
            self.tick.set((epoch_ms(), now_ns));
            self.timers.advance(now_ns / 1_000_000);
            if ticks.is_multiple_of(authentication::LOOK_TICKS) {
                self.end_lapsed();
                self.record_repeats(false);
            }
            if self.shared.connections.has_rung(self.index) {
                let is_asked = |id| self.shared.connections.asked_to_close(id).is_some();
                self.open.close(self.timers.now_ms(), is_asked);
            }
            self.open.cut_overdue(self.timers.now_ms());
            let phase = self.shared.lifecycle.phase();
            if phase != self.phase.get() {
                self.phase.set(phase);
                if phase >= Phase::Draining {
                    self.open.drain();
                }
            }
            if phase == Phase::Stopped {
                // What is still open is cut, and its tasks get a moment to record that.
                self.open.cut();
                for _ in 0..LAST_TICKS {
                    monoio::time::sleep(Duration::from_millis(TICK_MS)).await;
                    self.timers.advance(self.now_ns() / 1_000_000);
                }
                self.record_repeats(true);
                return;
            }
            if !self.shared.lifecycle.audit_healthy() {
                // The writer makes no room now: who waits for it is to be refused, or to go on unrecorded, as the profile says.
                self.events.wake_waiting();
            }
            let newest = self.shared.snapshot.load();
            if !Arc::ptr_eq(&newest, &**self.snapshot.borrow()) {
                self.limits.set(Limits::of(&newest, &self.shared.traffic));
                *self.snapshot.borrow_mut() = Rc::new(newest.clone());
                self.generation.set(self.generation.get().wrapping_add(1));
            }
            if ticks.is_multiple_of(5) {
                self.upstreams.tick(self.timers.now_ms());
                self.upstreams.publish_idle(&self.metrics);
            }
            if ticks.is_multiple_of(GIVE_BACK_TICKS) {
                crate::sys::memory::give_back();
            }
            if ticks.is_multiple_of(20) {
                self.upstreams.sweep(self.timers.now_ms());
                crate::door::http::answer::set_date(epoch_ms());
                if self.index == 0 {
                    self.upstreams.publish_children(&self.shared);
                }
            }
        }
    }
}

/// Milliseconds since the epoch, for records and expiries; never for measuring.
pub(crate) fn epoch_ms() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "the one place of the data plane that reads the wall clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    millis(now)
}

/// A duration in whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The result of `first`, or `None` when `second` completes before it. `first` must be safe to drop.
pub(crate) async fn race<T>(first: impl Future<Output = T>, second: impl Future<Output = ()>) -> Option<T> {
    let mut first = std::pin::pin!(first);
    let mut second = std::pin::pin!(second);
    std::future::poll_fn(|cx| {
        use std::task::Poll;
        if let Poll::Ready(value) = first.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        second.as_mut().poll(cx).map(|()| None)
    })
    .await
}
