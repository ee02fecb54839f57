//! A read that is under way before anybody waits for it.
//!
//! An idle connection to an upstream must be looked at before it is used again: an end, or bytes that nobody asked for, make it
//! useless, and a look costs a system call. A read that was posted when the connection became idle costs none: it is the read that the
//! next answer needs anyway, posted earlier, and it has completed exactly when there was something to see.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use monoio::buf::IoBufMut;
use monoio::io::AsyncReadRent;
use monoio::net::tcp::TcpOwnedReadHalf;

use crate::sys::socket::{self, Half};

/// The reading side of a connection, read by read, each of which may be begun before it is waited for.
pub(crate) struct ReadAhead {
    fd: RawFd,
    slot: Rc<Slot>,
    /// Never ends. Made once, so that a read allocates nothing.
    reads: RefCell<Pin<Box<dyn Future<Output = Infallible>>>>,
    is_reading: Cell<bool>,
}

/// A buffer on its way into a read, and out of it.
#[derive(Default)]
struct Slot {
    begun: Cell<Option<Vec<u8>>>,
    done: Cell<Option<(io::Result<usize>, Vec<u8>)>>,
}

impl ReadAhead {
    /// Reads from the half of the socket `fd`.
    pub(crate) fn new(fd: RawFd, half: TcpOwnedReadHalf) -> Self {
        let slot = Rc::new(Slot::default());
        let reads = RefCell::new(Box::pin(reads(half, Rc::clone(&slot))) as Pin<Box<_>>);
        Self { fd, slot, reads, is_reading: Cell::new(false) }
    }

    /// Begins to append to `buf` what arrives next, up to its spare capacity, which must not be empty. Only one read can be under way:
    /// while there is one, nothing is done.
    pub(crate) fn begin(&self, buf: Vec<u8>) {
        if !self.is_reading.replace(true) {
            self.slot.begun.set(Some(buf));
            self.drive(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// Whether a read is under way, or done and not taken.
    pub(crate) fn is_reading(&self) -> bool {
        self.is_reading.get()
    }

    /// Whether the read has completed, as far as the runtime knows: it learns of completions once a turn of its loop.
    pub(crate) fn is_done(&self) -> bool {
        let done = self.slot.done.take().or_else(|| {
            self.drive(&mut Context::from_waker(Waker::noop()));
            self.slot.done.take()
        });
        let is_done = done.is_some();
        self.slot.done.set(done);
        is_done
    }

    /// Whether nothing has arrived as far as the kernel knows, the end included: what a thread that has lost its core for a while may not
    /// have been told yet. What the read that is under way has taken is not seen here.
    pub(crate) fn is_quiet_in_kernel(&self) -> bool {
        socket::peek(self.fd) == socket::Look::Quiet
    }

    /// Waits for the read that is under way; none is: for ever. Safe to drop, and to ask for again.
    pub(crate) async fn finish(&self) -> (io::Result<usize>, Vec<u8>) {
        poll_fn(|cx| {
            self.drive(cx);
            match self.slot.done.take() {
                Some(done) => {
                    self.is_reading.set(false);
                    Poll::Ready(done)
                }
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Waits until there is something to take. Safe to drop.
    pub(crate) async fn done(&self) {
        poll_fn(|cx| {
            let done = self.slot.done.take();
            if done.is_none() {
                self.drive(cx);
            } else {
                self.slot.done.set(done);
                return Poll::Ready(());
            }
            let done = self.slot.done.take();
            let poll = if done.is_some() { Poll::Ready(()) } else { Poll::Pending };
            self.slot.done.set(done);
            poll
        })
        .await;
    }

    fn drive(&self, cx: &mut Context<'_>) {
        match self.reads.borrow_mut().as_mut().poll(cx) {
            Poll::Pending => {}
        }
    }
}

impl Drop for ReadAhead {
    /// A receive that is under way keeps the socket open: it is ended.
    fn drop(&mut self) {
        if self.is_reading.get() {
            socket::shutdown(self.fd, Half::Both);
        }
    }
}

/// One read after the other, each as soon as it is begun.
async fn reads(mut half: TcpOwnedReadHalf, slot: Rc<Slot>) -> Infallible {
    loop {
        let buf = poll_fn(|_| slot.begun.take().map_or(Poll::Pending, Poll::Ready)).await;
        let start = buf.len();
        let (result, slice) = half.read(buf.slice_mut(start..)).await;
        slot.done.set(Some((result, slice.into_inner())));
    }
}

#[cfg(test)]
#[path = "read_ahead_tests.rs"]
mod tests;
