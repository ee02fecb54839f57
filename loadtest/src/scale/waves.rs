//! Calls whose header fields differ from one to the next, in waves: one call on every connection, then all their answers.
//!
//! Each wave waits for its slowest call, so calls a second are lower than in a closed loop; CPU time a call can be compared from key to key.

use std::io;
use std::net::SocketAddr;

use super::client::{Client, Response};

pub(super) struct Waves {
    clients: Vec<Client>,
    request: Vec<u8>,
}

impl Waves {
    pub(super) fn connect(to: SocketAddr, connections: usize) -> io::Result<Self> {
        let clients: io::Result<_> = (0..connections).map(|_| Client::connect(to, None)).collect();
        Ok(Self { clients: clients?, request: Vec::with_capacity(1024) })
    }

    /// Makes calls number 0 to `calls`: `write` makes a request, `check` looks at its response.
    pub(super) fn drive(
        &mut self,
        calls: u64,
        mut write: impl FnMut(&mut Vec<u8>, u64),
        mut check: impl FnMut(u64, &Response, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut first = 0;
        while first < calls {
            for (number, client) in (first..calls).zip(&mut self.clients) {
                write(&mut self.request, number);
                client.send(&self.request)?;
            }
            for (number, client) in (first..calls).zip(&mut self.clients) {
                client.receive(|response, body| check(number, response, body))?;
            }
            first += self.clients.len() as u64;
        }
        Ok(())
    }
}
