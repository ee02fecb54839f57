//! The receiving side of one connection: bytes in, with the buffer given back when the other side goes quiet.
//!
//! A busy connection reads into a buffer that is pending in the kernel. When nothing has come for [`bounds::QUIET_MS`], that read is cancelled (and
//! awaited: what it has taken is not lost), the buffer is freed, and a read of [`bounds::PROBE_BYTES`] waits in its place. What comes then fills
//! it, and the rest is fetched at once.

use std::future::poll_fn;
use std::os::fd::RawFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, CancelableAsyncReadRent, Canceller};
use monoio::net::tcp::TcpOwnedReadHalf;

use crate::bounds;
use crate::sys::socket;
use crate::worker::open::OpenConnection;
use crate::worker::timers::{Deadline, OnExpiry};

/// Reads of one connection before the worker's other tasks get their turn.
const READS_A_TURN: u32 = 16;

/// The receiving side of a connection.
pub(crate) struct Receiver {
    half: TcpOwnedReadHalf,
    fd: RawFd,
    /// Received bytes that have not been used.
    pub(crate) buf: Vec<u8>,
    /// How much is read at once: grows with what comes.
    read_bytes: usize,
    /// How often it has read.
    reads: u32,
    /// Of the read that a busy connection waits in; kept from one to the next.
    canceller: Option<Canceller>,
    quiet: bool,
}

/// What ends a wait for bytes beside the bytes.
pub(crate) struct Watch<'a> {
    /// The connection's deadline.
    pub(crate) deadline: &'a Deadline,
    /// Its place among those that end when the process drains; none for an upstream's.
    pub(crate) open: Option<&'a OpenConnection>,
    pub(crate) observer: &'a dyn Observer,
}

/// Who is told of a connection's rest.
pub(crate) trait Observer {
    /// Whether something is going on for which the other side is silent by right.
    fn is_busy(&self) -> bool;

    /// The read buffer has been given back: time to give back other things as well.
    fn went_quiet(&self) {}
}

/// How a wait for bytes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// This many bytes were appended.
    Bytes(usize),
    /// The other side has ended its own in good order; it may still read.
    End,
    /// The connection is broken: nobody reads any more.
    Broken,
    /// Nothing came in the time that was given.
    Expired,
    /// The process drains.
    Draining,
}

impl Receiver {
    /// Over the reading half of `fd`, with bytes that have been received already.
    pub(crate) fn new(half: TcpOwnedReadHalf, fd: RawFd, received: Vec<u8>) -> Self {
        Self { half, fd, buf: received, read_bytes: bounds::FIRST_READ_BYTES, reads: 0, canceller: None, quiet: true }
    }

    /// The socket's descriptor, valid while `self` lives.
    pub(crate) fn fd(&self) -> RawFd {
        self.fd
    }

    /// Lets other tasks run now and then. Under epoll a read that finds bytes does not wait, and one side that sends without end would have the
    /// worker for itself.
    pub(crate) async fn take_turns(&mut self) {
        self.reads = self.reads.wrapping_add(1);
        if self.reads.is_multiple_of(READS_A_TURN) {
            // A task that wakes itself would hang the runtime; one that waits for another goes to the end of the queue.
            monoio::spawn(async {}).await;
        }
    }

    /// Waits for more bytes, at most `timeout_ms` during which the other side is not busy. After anything but [`Received::Bytes`] the receiving
    /// side is ended: the read that was pending is over.
    pub(crate) async fn more(&mut self, watch: &Watch<'_>, timeout_ms: u64) -> Received {
        let mut left_ms = timeout_ms;
        if !self.quiet || !self.buf.is_empty() {
            let wait_ms = if self.buf.is_empty() { left_ms.min(bounds::QUIET_MS) } else { left_ms };
            // Boxed: it is large, and a connection that is quiet must not hold it.
            match Box::pin(self.read_busy(watch, wait_ms, wait_ms < timeout_ms)).await {
                Received::Expired if self.buf.is_empty() && left_ms > wait_ms => {
                    left_ms = left_ms.saturating_sub(wait_ms);
                }
                received => return received,
            }
            self.quiet = true;
            self.read_bytes = bounds::FIRST_READ_BYTES;
            watch.observer.went_quiet();
        }
        self.read_quiet(watch, left_ms).await
    }

    async fn read_busy(&mut self, watch: &Watch<'_>, timeout_ms: u64, ends_when_busy: bool) -> Received {
        let mut buf = std::mem::take(&mut self.buf);
        if buf.capacity().saturating_sub(buf.len()) < self.read_bytes / 2 {
            buf.reserve(self.read_bytes);
        }
        let (start, room) = (buf.len(), buf.capacity().saturating_sub(buf.len()));
        let canceller = self.canceller.take().unwrap_or_default();
        let (ended, result, buf) = {
            let mut read = pin!(self.half.cancelable_read(buf.slice_mut(start..), canceller.handle()));
            watch.deadline.set(timeout_ms, OnExpiry::Wake);
            let ended = poll_fn(|cx| watch.poll(read.as_mut(), timeout_ms, ends_when_busy, cx)).await;
            let (ended, (result, slice)) = match ended {
                Wait::Read(done) => {
                    self.canceller = Some(canceller);
                    (None, done)
                }
                other => {
                    let _ = canceller.cancel();
                    (Some(other.as_received()), read.await)
                }
            };
            (ended, result, slice.into_inner())
        };
        self.buf = buf;
        if self.buf.is_empty() && ended.is_some() {
            self.buf = Vec::new();
        }
        match (result, ended) {
            (Ok(0), _) => Received::End,
            (Ok(n), _) => {
                if n == room && self.read_bytes < bounds::STREAM_BUFFER_BYTES {
                    self.read_bytes = self.read_bytes.saturating_mul(2);
                }
                Received::Bytes(n)
            }
            (Err(_), Some(ended)) => ended,
            (Err(_), None) => Received::Broken,
        }
    }

    /// Waits for bytes that nobody wants; 0 is the end.
    pub(crate) async fn discard(&mut self) -> usize {
        let mut buf = std::mem::take(&mut self.buf);
        buf.clear();
        buf.reserve(bounds::READ_BUFFER_BYTES);
        let (result, buf) = self.half.read(buf).await;
        self.buf = buf;
        result.unwrap_or(0)
    }

    /// Waits with a few bytes for a buffer. A wait that ends without bytes ends the receiving side.
    async fn read_quiet(&mut self, watch: &Watch<'_>, timeout_ms: u64) -> Received {
        watch.deadline.set(timeout_ms, OnExpiry::Wake);
        let (ended, result, buf) = {
            let mut read = pin!(self.half.read(Vec::with_capacity(bounds::PROBE_BYTES)));
            match poll_fn(|cx| watch.poll(read.as_mut(), timeout_ms, false, cx)).await {
                Wait::Read((result, buf)) => (None, result, buf),
                other => {
                    socket::shutdown(self.fd, socket::Half::Read);
                    let (result, buf) = read.await;
                    (Some(other.as_received()), result, buf)
                }
            }
        };
        match (result, ended) {
            (Ok(n), _) if n > 0 => {
                self.quiet = false;
                self.buf = buf;
                if n >= bounds::PROBE_BYTES {
                    self.buf.reserve(self.read_bytes);
                    // What else is there. An end that this sees, the next read sees again.
                    let _ = socket::receive_now(self.fd, &mut self.buf);
                }
                Received::Bytes(self.buf.len())
            }
            (_, Some(ended)) => ended,
            (Ok(_), None) => Received::End,
            (Err(_), None) => Received::Broken,
        }
    }
}

enum Wait<T> {
    Read(T),
    Expired,
    Draining,
}

impl<T> Wait<T> {
    fn as_received(&self) -> Received {
        match self {
            Self::Draining => Received::Draining,
            _ => Received::Expired,
        }
    }
}

impl Watch<'_> {
    /// Polls a pending read, which is not dropped, the deadline, and the process's end.
    fn poll<T>(
        &self,
        read: Pin<&mut impl Future<Output = T>>,
        timeout_ms: u64,
        ends_when_busy: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Wait<T>> {
        if let Poll::Ready(done) = read.poll(cx) {
            return Poll::Ready(Wait::Read(done));
        }
        while self.deadline.poll_expired(cx.waker()).is_ready() {
            if ends_when_busy || !self.observer.is_busy() {
                return Poll::Ready(Wait::Expired);
            }
            self.deadline.set(timeout_ms, OnExpiry::Wake);
        }
        match self.open {
            Some(open) => open.poll_draining(cx.waker()).map(|()| Wait::Draining),
            None => Poll::Pending,
        }
    }
}
