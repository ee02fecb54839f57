//! What waits to be sent over one connection, to a client or to an upstream: messages are framed into one buffer, and all that is there at one moment leaves in one send.
//!
//! A task that writes exists only while there is something to write: an idle connection has none. What may wait is bounded: above
//! [`HIGH_WATER`] whoever can wait does ([`Outbox::poll_room`]: the client's own requests, its own upstream connections); above
//! `MAX_BUFFER_SIZE`, which only answers over shared upstream connections can reach, the client is cut.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Poll, Waker};

use monoio::buf::IoBuf;
use monoio::io::AsyncWriteRentExt;
use monoio::net::tcp::TcpOwnedWriteHalf;

use super::framing::Framing;
use crate::bounds;
use crate::state::lifecycle::Door;
use crate::sys::socket::{self, Half};
use crate::worker::Worker;
use crate::worker::timers::{Deadline, OnExpiry};

/// Bytes that wait for a client before everything that can wait for it does.
const HIGH_WATER: usize = 256 * 1024;

/// What must leave within `WRITE_TIMEOUT`.
const WRITE_BYTES: usize = 256 * 1024;

/// The sending side of one connection.
pub(crate) struct Outbox {
    worker: Rc<Worker>,
    /// Where what is sent is counted; nowhere for an upstream.
    door: Option<Door>,
    fd: Cell<RawFd>,
    framing: RefCell<Framing>,
    max_bytes: usize,
    buf: RefCell<Vec<u8>>,
    half: RefCell<Option<TcpOwnedWriteHalf>>,
    state: Cell<State>,
    /// What left in the last send: about what the next one will take.
    burst_bytes: Cell<u32>,
    /// When something was queued last.
    queued_ms: Cell<u64>,
    /// Bytes that the running write still holds.
    writing: Cell<u32>,
    waiting: RefCell<Vec<Waker>>,
    /// The last write was cut by its deadline.
    too_slow: Cell<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is no connection yet; what is queued waits for it.
    Held,
    /// Nothing is being written.
    Quiet,
    /// A task writes.
    Writing,
    /// A task writes, and what is in the buffer is the last.
    Ending,
    /// Nothing more is sent.
    Ended,
}

impl Outbox {
    /// An empty one without a connection: what is queued waits until [`Outbox::open`].
    pub(crate) fn new(worker: Rc<Worker>, door: Option<Door>, framing: Framing, max_bytes: usize) -> Rc<Self> {
        let queued_ms = Cell::new(worker.timers.now_ms());
        Rc::new(Self {
            worker,
            door,
            fd: Cell::new(-1),
            framing: RefCell::new(framing),
            max_bytes,
            buf: RefCell::new(Vec::new()),
            half: RefCell::new(None),
            state: Cell::new(State::Held),
            burst_bytes: Cell::new(0),
            queued_ms,
            writing: Cell::new(0),
            waiting: RefCell::new(Vec::new()),
            too_slow: Cell::new(false),
        })
    }

    /// Sends over the writing half of `fd` from now on, what is queued first.
    pub(crate) fn open(self: &Rc<Self>, fd: RawFd, half: TcpOwnedWriteHalf) {
        if self.state.get() != State::Held {
            return;
        }
        self.fd.set(fd);
        *self.half.borrow_mut() = Some(half);
        self.state.set(State::Quiet);
        if !self.buf.borrow().is_empty() {
            self.start();
        }
    }

    /// Queues one message of `len` bytes, which `write` appends.
    pub(crate) fn message(self: &Rc<Self>, len: usize, write: impl FnOnce(&mut Vec<u8>)) {
        if matches!(self.state.get(), State::Ending | State::Ended) {
            return;
        }
        {
            let mut buf = self.buf.borrow_mut();
            if self.queued(&buf).saturating_add(len) > self.max_bytes {
                drop(buf);
                tracing::debug!("a connection whose other side does not read is cut");
                return self.cut();
            }
            if buf.capacity() == 0 {
                let burst_bytes = (self.burst_bytes.get() as usize).min(bounds::STREAM_BUFFER_BYTES);
                buf.reserve(burst_bytes.max(len.saturating_add(64)));
            }
            self.framing.borrow_mut().put(&mut buf, len, write);
        }
        self.queued_ms.set(self.worker.timers.now_ms());
        self.start();
    }

    /// Queues bytes that are framed already.
    pub(crate) fn raw(self: &Rc<Self>, bytes: &[u8]) {
        if matches!(self.state.get(), State::Ending | State::Ended) {
            return;
        }
        self.buf.borrow_mut().extend_from_slice(bytes);
        self.queued_ms.set(self.worker.timers.now_ms());
        self.start();
    }

    /// Sends what is queued, and `last` behind it, then ends the writing side.
    pub(crate) fn end(self: &Rc<Self>, last: &[u8]) {
        match self.state.get() {
            State::Ending | State::Ended => {}
            state => {
                self.buf.borrow_mut().extend_from_slice(last);
                self.state.set(State::Ending);
                match state {
                    State::Quiet => drop(monoio::spawn(write(self.clone()))),
                    // There is nobody to say it to.
                    State::Held => self.state.set(State::Ended),
                    _ => {}
                }
            }
        }
    }

    /// Ends both sides once everything queued is out, or cannot be.
    pub(crate) fn cut_when_written(self: &Rc<Self>) {
        let outbox = self.clone();
        monoio::spawn(async move {
            std::future::poll_fn(|cx| outbox.poll_written(cx.waker())).await;
            outbox.cut();
        });
    }

    /// Ends both sides at once.
    pub(crate) fn cut(&self) {
        self.state.set(State::Ended);
        // Once: when both halves are gone, the number may be another connection's.
        let fd = self.fd.replace(-1);
        if fd >= 0 {
            socket::shutdown(fd, Half::Both);
        }
        self.wake();
    }

    /// Whether nothing more can be sent.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state.get(), State::Ending | State::Ended)
    }

    /// Whether so much waits that whoever can wait should.
    pub(crate) fn is_full(&self) -> bool {
        self.queued(&self.buf.borrow()) > HIGH_WATER && self.state.get() != State::Ended
    }

    /// For how long nothing was queued.
    pub(crate) fn silent_ms(&self) -> u64 {
        self.worker.timers.now_ms().saturating_sub(self.queued_ms.get())
    }

    /// Whether the client did not take what it was sent in time.
    pub(crate) fn was_too_slow(&self) -> bool {
        self.too_slow.get()
    }

    /// Ready when there is room, or never will be. Safe to drop.
    pub(crate) fn poll_room(&self, waker: &Waker) -> Poll<()> {
        if !self.is_full() {
            return Poll::Ready(());
        }
        self.wait(waker)
    }

    /// Ready when nothing waits to be written. Safe to drop.
    pub(crate) fn poll_written(&self, waker: &Waker) -> Poll<()> {
        if matches!(self.state.get(), State::Quiet | State::Ended) {
            return Poll::Ready(());
        }
        self.wait(waker)
    }

    /// Ready when nothing more can be sent. Safe to drop.
    pub(crate) fn poll_ended(&self, waker: &Waker) -> Poll<()> {
        if self.state.get() == State::Ended {
            return Poll::Ready(());
        }
        self.wait(waker)
    }

    fn wait(&self, waker: &Waker) -> Poll<()> {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        Poll::Pending
    }

    fn queued(&self, buf: &[u8]) -> usize {
        buf.len().saturating_add(self.writing.get() as usize)
    }

    fn start(self: &Rc<Self>) {
        if self.state.get() == State::Quiet {
            self.state.set(State::Writing);
            // It runs when the task that has queued this waits: what else that task queues leaves in the same send.
            monoio::spawn(write(self.clone()));
        }
    }

    fn wake(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }
}

/// Writes until nothing waits.
async fn write(outbox: Rc<Outbox>) {
    let Some(mut half) = outbox.half.take() else { return };
    let deadline = outbox.worker.timers.deadline(outbox.fd.get());
    // Between two writes of one burst the buffers change places; a connection that has nothing to send holds none.
    let mut spare = Vec::new();
    loop {
        if outbox.state.get() == State::Ended {
            break;
        }
        let out = std::mem::replace(&mut *outbox.buf.borrow_mut(), spare);
        if out.is_empty() {
            break;
        }
        let len = out.len();
        // Never more than `MAX_BUFFER_SIZE`, or one message.
        let burst_bytes = u32::try_from(len).unwrap_or(u32::MAX);
        outbox.writing.set(burst_bytes);
        outbox.burst_bytes.set(burst_bytes);
        let (result, mut out) = write_slowly(&outbox, &mut half, &deadline, out).await;
        outbox.writing.set(0);
        if result.is_err() {
            outbox.too_slow.set(deadline.has_expired());
            outbox.cut();
            return;
        }
        if let Some(door) = outbox.door {
            outbox.worker.metrics.door(door).bytes_out.add(len as u64);
        }
        out.clear();
        spare = if out.capacity() > bounds::STREAM_BUFFER_BYTES { Vec::new() } else { out };
        outbox.wake();
    }
    drop(deadline);
    match outbox.state.get() {
        State::Ending | State::Ended => {
            outbox.state.set(State::Ended);
            if outbox.fd.get() >= 0 {
                socket::shutdown(outbox.fd.get(), Half::Write);
            }
        }
        State::Writing | State::Quiet | State::Held => {
            *outbox.half.borrow_mut() = Some(half);
            outbox.state.set(State::Quiet);
        }
    }
    outbox.wake();
}

/// Writes all of `out`, each part of it within `WRITE_TIMEOUT`.
async fn write_slowly(
    outbox: &Outbox,
    half: &mut TcpOwnedWriteHalf,
    deadline: &Deadline,
    mut out: Vec<u8>,
) -> (std::io::Result<()>, Vec<u8>) {
    let timeout_ms = outbox.worker.limits.get().write_timeout_ms;
    let mut at = 0;
    while at < out.len() {
        let end = out.len().min(at.saturating_add(WRITE_BYTES));
        deadline.set(timeout_ms, OnExpiry::Cut);
        let (result, slice) = half.write_all(out.slice(at..end)).await;
        out = slice.into_inner();
        if let Err(error) = result {
            return (Err(error), out);
        }
        at = end;
    }
    (Ok(()), out)
}
