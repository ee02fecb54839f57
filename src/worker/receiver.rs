//! The receiving side of one connection: bytes in, with the buffer given back when the other side goes quiet.
//!
//! A busy connection reads into a buffer that is pending in the kernel. When nothing has come for [`bounds::QUIET_MS`], that read is cancelled (and
//! awaited: what it has taken is not lost), the buffer is freed, and a read of [`bounds::PROBE_BYTES`] waits in its place. What comes then fills
//! it, and the rest is fetched at once.

use std::future::poll_fn;
use std::os::fd::RawFd;
use std::pin::pin;
use std::task::Poll;

use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, CancelableAsyncReadRent, Canceller};
use monoio::net::tcp::TcpOwnedReadHalf;

use crate::bounds;
use crate::sys::socket;
use crate::worker::open::OpenConnection;
use crate::worker::timers::{Deadline, OnExpiry};

/// The receiving side of a connection.
pub(crate) struct Receiver {
    half: TcpOwnedReadHalf,
    fd: RawFd,
    /// Received bytes that have not been used.
    pub(crate) buf: Vec<u8>,
    /// How much is read at once: grows with what comes.
    read_bytes: usize,
    /// Of the read that a busy connection waits in; kept from one to the next.
    canceller: Option<Canceller>,
    quiet: bool,
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
        Self { half, fd, buf: received, read_bytes: bounds::READ_BUFFER_BYTES, canceller: None, quiet: true }
    }

    /// The socket's descriptor, valid while `self` lives.
    pub(crate) fn fd(&self) -> RawFd {
        self.fd
    }

    /// Waits for more bytes, at most `timeout_ms` during which `is_busy` is false. After anything but [`Received::Bytes`] the receiving side
    /// is ended: the read that was pending is over.
    pub(crate) async fn more(
        &mut self,
        deadline: &Deadline,
        open: Option<&OpenConnection>,
        timeout_ms: u64,
        is_busy: impl Fn() -> bool,
    ) -> Received {
        let mut left_ms = timeout_ms;
        if !self.quiet || !self.buf.is_empty() {
            let wait_ms = if self.buf.is_empty() { left_ms.min(bounds::QUIET_MS) } else { left_ms };
            // Boxed: it is large, and a connection that is quiet must not hold it.
            let busy = Box::pin(self.read_busy(deadline, open, wait_ms, || wait_ms == timeout_ms && is_busy()));
            match busy.await {
                Received::Expired if self.buf.is_empty() && left_ms > wait_ms => {
                    left_ms = left_ms.saturating_sub(wait_ms)
                }
                received => return received,
            }
            self.quiet = true;
            self.read_bytes = bounds::READ_BUFFER_BYTES;
        }
        self.read_quiet(deadline, open, left_ms, is_busy).await
    }

    async fn read_busy(
        &mut self,
        deadline: &Deadline,
        open: Option<&OpenConnection>,
        timeout_ms: u64,
        is_busy: impl Fn() -> bool,
    ) -> Received {
        let mut buf = std::mem::take(&mut self.buf);
        if buf.capacity().saturating_sub(buf.len()) < self.read_bytes / 2 {
            buf.reserve(self.read_bytes);
        }
        let (start, room) = (buf.len(), buf.capacity().saturating_sub(buf.len()));
        let canceller = self.canceller.take().unwrap_or_default();
        let (ended, result, buf) = {
            let mut read = pin!(self.half.cancelable_read(buf.slice_mut(start..), canceller.handle()));
            let ended = wait(read.as_mut(), deadline, timeout_ms, open, is_busy).await;
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
    async fn read_quiet(
        &mut self,
        deadline: &Deadline,
        open: Option<&OpenConnection>,
        timeout_ms: u64,
        is_busy: impl Fn() -> bool,
    ) -> Received {
        let (ended, result, buf) = {
            let mut read = pin!(self.half.read(Vec::with_capacity(bounds::PROBE_BYTES)));
            match wait(read.as_mut(), deadline, timeout_ms, open, is_busy).await {
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

/// Waits for a pending read, which is not dropped, the deadline, or the process's end.
async fn wait<T>(
    mut read: std::pin::Pin<&mut impl Future<Output = T>>,
    deadline: &Deadline,
    timeout_ms: u64,
    open: Option<&OpenConnection>,
    is_busy: impl Fn() -> bool,
) -> Wait<T> {
    deadline.set(timeout_ms, OnExpiry::Wake);
    let mut draining = pin!(async {
        match open {
            Some(open) => open.draining().await,
            None => std::future::pending().await,
        }
    });
    poll_fn(|cx| {
        if let Poll::Ready(done) = read.as_mut().poll(cx) {
            return Poll::Ready(Wait::Read(done));
        }
        while pin!(deadline.expired()).poll(cx).is_ready() {
            if !is_busy() {
                return Poll::Ready(Wait::Expired);
            }
            deadline.set(timeout_ms, OnExpiry::Wake);
        }
        draining.as_mut().poll(cx).map(|()| Wait::Draining)
    })
    .await
}
