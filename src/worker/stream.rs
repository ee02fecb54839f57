//! A connection's bytes, plain or under TLS, over the runtime's owned buffers.
//!
//! Reads append to a `Vec<u8>` up to its spare capacity; writes take the whole vector. Both give the vector back, so that a
//! connection's buffers are allocated once.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::pin;
use std::task::Poll;

use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt, CancelableAsyncReadRent, Canceller, Splitable};
use monoio::net::TcpStream;
use monoio::net::tcp::TcpOwnedWriteHalf;

use super::read_ahead::ReadAhead;
use crate::sys::socket;
use crate::upstream::tls::TlsStream;

/// A connected byte stream of this worker.
pub(crate) enum Stream {
    /// TCP as it is.
    Plain {
        /// The socket.
        tcp: TcpStream,
        /// Bytes handed to the kernel so far.
        sent: u64,
        /// Of reads that may be given up; kept from one to the next.
        canceller: Option<Canceller>,
    },
    /// TCP to an upstream, read ahead.
    Ahead {
        /// What arrives.
        read: ReadAhead,
        /// What leaves.
        write: TcpOwnedWriteHalf,
        /// The socket.
        fd: RawFd,
        /// Bytes handed to the kernel so far.
        sent: u64,
    },
    /// TLS over TCP, client side.
    Tls(Box<TlsStream>),
}

impl Stream {
    /// A plain stream over a connected socket.
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        Self::Plain { tcp, sent: 0, canceller: None }
    }

    /// A plain stream that reads ahead while it is idle ([`Stream::rest`]).
    pub(crate) fn ahead(tcp: TcpStream) -> Self {
        let fd = tcp.as_raw_fd();
        let (read, write) = tcp.into_split();
        Self::Ahead { read: ReadAhead::new(fd, read), write, fd, sent: 0 }
    }

    /// The socket of a plain stream.
    pub(crate) fn into_plain(self) -> Option<TcpStream> {
        match self {
            Self::Plain { tcp, .. } => Some(tcp),
            Self::Ahead { .. } | Self::Tls(_) => None,
        }
    }

    /// The stream becomes idle. `buf` is kept for what arrives next, where it has spare capacity; else it is given back.
    pub(crate) fn rest(&self, buf: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Ahead { read, .. } if buf.capacity() > buf.len() => {
                read.begin(buf);
                Vec::new()
            }
            _ => buf,
        }
    }

    /// Whether the next read goes into a buffer that [`Stream::rest`] was given.
    pub(crate) fn has_buffer(&self) -> bool {
        matches!(self, Self::Ahead { read, .. } if read.is_reading())
    }

    /// Whether the stream is open, and nothing has arrived.
    pub(crate) fn is_quiet(&self) -> bool {
        match self {
            Self::Ahead { read, .. } if read.is_reading() => !read.is_done(),
            _ => socket::peek(self.fd()) == socket::Look::Quiet,
        }
    }

    /// Likewise, and the kernel has been asked.
    pub(crate) fn is_quiet_now(&self) -> bool {
        let is_quiet = self.is_quiet();
        match self {
            Self::Ahead { read, .. } if is_quiet && read.is_reading() => read.is_quiet_in_kernel(),
            _ => is_quiet,
        }
    }

    /// Appends to `buf` what arrives next, up to its spare capacity, which must not be empty. 0 is the end of the stream.
    /// A stream that [has a buffer](Stream::has_buffer) uses that one.
    pub(crate) async fn read(&mut self, buf: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        match self {
            Self::Plain { tcp, .. } => read_tcp(tcp, buf).await,
            Self::Ahead { read, .. } => {
                read.begin(buf);
                read.finish().await
            }
            Self::Tls(tls) => tls.read(buf).await,
        }
    }

    /// Like [`Stream::read`], but given up, without a byte lost, when `given_up` completes first: then `None`. From an upstream nothing is given up.
    pub(crate) async fn read_until(
        &mut self,
        buf: Vec<u8>,
        given_up: impl Future<Output = ()>,
    ) -> (Option<io::Result<usize>>, Vec<u8>) {
        let (tcp, kept) = match self {
            Self::Plain { tcp, canceller, .. } => (tcp, canceller),
            Self::Ahead { .. } | Self::Tls(_) => {
                let (result, buf) = self.read(buf).await;
                return (Some(result), buf);
            }
        };
        let canceller = kept.take().unwrap_or_default();
        let start = buf.len();
        let mut read = pin!(tcp.cancelable_read(buf.slice_mut(start..), canceller.handle()));
        let mut given_up = pin!(given_up);
        let done = poll_fn(|cx| match read.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => given_up.as_mut().poll(cx).map(|()| None),
        })
        .await;
        let (cancelled, (result, slice)) = match done {
            Some(done) => {
                *kept = Some(canceller);
                (false, done)
            }
            None => {
                let _ = canceller.cancel();
                (true, read.await)
            }
        };
        (Some(result).filter(|result| !(cancelled && result.is_err())), slice.into_inner())
    }

    /// Writes all of `buf`.
    pub(crate) async fn write_all(&mut self, buf: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        match self {
            Self::Plain { tcp, sent, .. } => {
                let (result, buf) = tcp.write_all(buf).await;
                (result.map(|n| *sent += n as u64), buf)
            }
            Self::Ahead { write, sent, .. } => {
                let (result, buf) = write.write_all(buf).await;
                (result.map(|n| *sent += n as u64), buf)
            }
            Self::Tls(tls) => tls.write_all(buf).await,
        }
    }

    /// Waits until there is something to read, or the end. Safe to drop.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Plain { tcp, .. } => tcp.readable(false).await,
            Self::Ahead { read, .. } => {
                read.done().await;
                Ok(())
            }
            Self::Tls(tls) => tls.tcp().readable(false).await,
        }
    }

    /// Bytes handed to the kernel so far, TLS records included.
    pub(crate) fn sent(&self) -> u64 {
        match self {
            Self::Plain { sent, .. } | Self::Ahead { sent, .. } => *sent,
            Self::Tls(tls) => tls.sent(),
        }
    }

    /// The socket's descriptor, for the system calls in `sys/`; valid while `self` lives.
    pub(crate) fn fd(&self) -> RawFd {
        match self {
            Self::Plain { tcp, .. } => tcp.as_raw_fd(),
            Self::Ahead { fd, .. } => *fd,
            Self::Tls(tls) => tls.tcp().as_raw_fd(),
        }
    }
}

/// One receive into the spare capacity of `buf`.
pub(crate) async fn read_tcp(tcp: &mut TcpStream, buf: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
    let start = buf.len();
    let (result, slice) = tcp.read(buf.slice_mut(start..)).await;
    (result, slice.into_inner())
}
