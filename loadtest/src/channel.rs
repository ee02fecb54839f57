//! One connection of the generator or of the upstream: a non-blocking socket, what waits to be sent, and what has come in part.
//!
//! What a read has brought is looked at where it lies, in a buffer that all connections share. Only a message that is not whole yet is kept in a
//! buffer of the connection, so that a connection without traffic costs no memory.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustls::ClientConnection;

use super::poll::Poll;

/// Longest message that is waited for.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// What a buffer of the connection may keep while nothing is in it.
const KEPT_BYTES: usize = 16 * 1024;

/// Room for what one read brings.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// A socket, and the TLS over it if there is any. It blocks, until a channel takes it over.
pub(crate) struct Link {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Link {
    pub(crate) fn plain(stream: TcpStream) -> Self {
        Self { stream, tls: None }
    }

    /// Connects; whatever is read must come within `patience`. The handshake is made with the first byte that is written.
    pub(crate) fn connect(to: SocketAddr, tls: Option<ClientConnection>, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        Ok(Self { stream, tls: tls.map(Box::new) })
    }
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.stream.read(buffer),
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.stream).read(buffer),
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.stream.write(bytes),
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => self.stream.flush(),
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.stream).flush(),
        }
    }
}

/// A connection.
pub(crate) struct Channel {
    link: Link,
    token: u64,
    /// What is to be sent; `flush` sends it.
    pub(crate) out: Vec<u8>,
    sent: usize,
    /// Whether the socket has no room, and is waited for.
    blocked: bool,
    /// A message that is not whole yet.
    partial: Vec<u8>,
}

/// Whether more can come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Open,
    Closed,
}

impl Channel {
    /// Takes a connected socket over. Events of it will bear `token`.
    pub(crate) fn new(mut link: Link, poll: &Poll, token: u64) -> io::Result<Self> {
        link.stream.set_nodelay(true)?;
        link.stream.set_nonblocking(true)?;
        if let Some(tls) = &mut link.tls {
            // What does not fit is noticed at the socket.
            tls.set_buffer_limit(None);
        }
        poll.add(&link.stream, token)?;
        Ok(Self { link, token, out: Vec::new(), sent: 0, blocked: false, partial: Vec::new() })
    }

    /// Reads once. `take` gets all bytes that are there and were not taken yet, with the bytes to be sent, and returns how many it has taken.
    pub(crate) fn receive(
        &mut self,
        buffer: &mut [u8],
        take: impl FnOnce(&[u8], &mut Vec<u8>) -> io::Result<usize>,
    ) -> io::Result<Received> {
        let len = match self.link.stream.read(buffer) {
            Ok(0) => return Ok(Received::Closed),
            Ok(len) => len,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(Received::Open);
            }
            Err(error) => return Err(error),
        };
        let fresh = buffer.get(..len).unwrap_or_default();
        if self.partial.is_empty() && self.link.tls.is_none() {
            let taken = take(fresh, &mut self.out)?;
            self.partial.extend_from_slice(fresh.get(taken..).unwrap_or_default());
        } else {
            match &mut self.link.tls {
                None => self.partial.extend_from_slice(fresh),
                Some(tls) => decrypt(tls, fresh, &mut self.partial)?,
            }
            let taken = take(&self.partial, &mut self.out)?;
            self.partial.drain(..taken.min(self.partial.len()));
            if self.partial.is_empty() && self.partial.capacity() > KEPT_BYTES {
                self.partial = Vec::new();
            }
        }
        if self.partial.len() > MAX_MESSAGE_BYTES {
            return Err(io::Error::other(format!("a message of more than {MAX_MESSAGE_BYTES} bytes")));
        }
        Ok(Received::Open)
    }

    /// Sends what waits, as far as there is room; the rest goes when there is.
    pub(crate) fn flush(&mut self, poll: &Poll) -> io::Result<()> {
        let Link { stream, tls } = &mut self.link;
        let sent_all = match tls {
            None => loop {
                let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) else { break true };
                let Some(len) = unless_full(stream.write(rest))? else { break false };
                self.sent += len;
            },
            Some(tls) => {
                tls.writer().write_all(&self.out)?;
                self.sent = self.out.len();
                loop {
                    if !tls.wants_write() {
                        break true;
                    }
                    if unless_full(tls.write_tls(stream))?.is_none() {
                        break false;
                    }
                }
            }
        };
        if self.sent >= self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        if self.blocked == sent_all {
            self.blocked = !sent_all;
            poll.want_room(&self.link.stream, self.token, self.blocked)?;
        }
        Ok(())
    }

    /// Lets the other side see a reset instead of an end, once this is dropped.
    pub(crate) fn reset(&self) {
        // Without it, the other side sees an end.
        let _ = rustix::net::sockopt::set_socket_linger(&self.link.stream, Some(Duration::ZERO));
    }

    /// What has come and belongs to no whole message.
    pub(crate) fn partial(&self) -> &[u8] {
        &self.partial
    }
}

fn decrypt(tls: &mut ClientConnection, mut wire: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
    while !wire.is_empty() {
        if tls.read_tls(&mut wire)? == 0 {
            break;
        }
        tls.process_new_packets().map_err(io::Error::other)?;
        match tls.reader().read_to_end(plain) {
            Ok(_) => {}
            // All that is there was read.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a write has taken; `None` if the socket is full.
fn unless_full(written: io::Result<usize>) -> io::Result<Option<usize>> {
    match written {
        Ok(len) => Ok(Some(len)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(0)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
