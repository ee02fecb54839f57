//! One connection of the generator or of the upstream: a non-blocking socket, what waits to be sent, and what has come in part.
//!
//! What a read has brought is looked at where it lies, in a buffer that all connections share. Only a message that is not whole yet is kept in a
//! buffer of the connection, so that a connection without traffic costs no memory.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use super::poll::Poll;

/// Longest message that is waited for.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// What a buffer of the connection may keep while nothing is in it.
const KEPT_BYTES: usize = 16 * 1024;

/// Room for what one read brings.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// A connection.
pub(crate) struct Channel {
    stream: TcpStream,
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
    pub(crate) fn new(stream: TcpStream, poll: &Poll, token: u64) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        poll.add(&stream, token)?;
        Ok(Self { stream, token, out: Vec::new(), sent: 0, blocked: false, partial: Vec::new() })
    }

    /// Reads once. `take` gets all bytes that are there and were not taken yet, with the bytes to be sent, and returns how many it has taken.
    pub(crate) fn receive(
        &mut self,
        buffer: &mut [u8],
        take: impl FnOnce(&[u8], &mut Vec<u8>) -> io::Result<usize>,
    ) -> io::Result<Received> {
        let len = match self.stream.read(buffer) {
            Ok(0) => return Ok(Received::Closed),
            Ok(len) => len,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(Received::Open);
            }
            Err(error) => return Err(error),
        };
        let fresh = buffer.get(..len).unwrap_or_default();
        if self.partial.is_empty() {
            let taken = take(fresh, &mut self.out)?;
            self.partial.extend_from_slice(fresh.get(taken..).unwrap_or_default());
        } else {
            self.partial.extend_from_slice(fresh);
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
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.blocked {
                        self.blocked = true;
                        poll.want_room(&self.stream, self.token, true)?;
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.sent = 0;
        if self.blocked {
            self.blocked = false;
            poll.want_room(&self.stream, self.token, false)?;
        }
        Ok(())
    }

    /// What has come and belongs to no whole message.
    pub(crate) fn partial(&self) -> &[u8] {
        &self.partial
    }
}
