//! The TCP door: one JSON-RPC message a line.
//!
//! A client authenticates with its first line, or says `initialize` before; then it pipelines as it likes, and answers come as they are
//! ready, each with its id. What is received at once is taken up at once, and what is ready at one moment leaves in one send.

use std::net::SocketAddr;
use std::rc::Rc;

use monoio::net::TcpStream;

use super::peer::{Arrived, End, Next, Peer, Wire, serve};
use crate::guard::Denial;
use crate::state::connections::ConnectionEntry;
use crate::state::lifecycle::Door;
use crate::wire::lines::LineSplitter;
use crate::worker::Worker;
use crate::worker::framing::Framing;

/// Serves one client. `received` is what has been read of its stream already.
pub(super) fn arrive(
    worker: &Rc<Worker>,
    tcp: TcpStream,
    address: SocketAddr,
    received: Vec<u8>,
    entry: ConnectionEntry,
) {
    let snapshot = worker.snapshot();
    let lines = Lines { splitter: LineSplitter::new(snapshot.settings.doors.max_message_size as usize) };
    let principal = snapshot.tcp_authenticator.without_token();
    let arrived = Arrived { tcp, address, received, principal, lease: None, entry };
    serve(worker.clone(), Door::Tcp, Framing::Lines, lines, arrived);
}

/// The line that a connection gets which is not let in (front-doors.md).
pub(super) fn refusal(out: &mut Vec<u8>, denial: &Denial) {
    // Lockouts included: on this door one line says all that a blocked client is told.
    let text = if denial.is_of_address() { Denial::AddressBlocked.text() } else { denial.text() };
    out.extend_from_slice(b"{\"error\":");
    crate::rpc::reply::push_string(out, &text);
    out.extend_from_slice(b"}\n");
}

/// Messages as lines.
struct Lines {
    splitter: LineSplitter,
}

impl Wire for Lines {
    // As `nc` does.
    const MAY_READ_ON: bool = true;

    async fn take(&mut self, peer: &Rc<Peer>, buf: &mut Vec<u8>, now_ns: u64) -> Result<(), End> {
        let mut at = 0usize;
        let end = loop {
            let rest = buf.get(at..).unwrap_or_default();
            let line = match self.splitter.next_line(rest) {
                Ok(Some(line)) => line,
                Ok(None) => break Ok(()),
                Err(_) => {
                    peer.refuse_too_large();
                    break Err(End::Close);
                }
            };
            let text = line.text.of(rest);
            // A line of blanks says nothing.
            if !text.trim_ascii().is_empty() && peer.handle(text, now_ns).await == Next::Close {
                break Err(End::Close);
            }
            at = at.saturating_add(line.consumed);
            peer.ready_for_more().await;
        };
        buf.drain(..at.min(buf.len()));
        end
    }

    fn is_inside_message(&self, buf: &[u8]) -> bool {
        !buf.is_empty()
    }

    fn goodbye(&mut self, _end: End) -> Vec<u8> {
        // On this door a close says what there is to say.
        Vec::new()
    }

    fn idle_timeout_ms(&self, worker: &Worker) -> u64 {
        worker.limits.get().tcp_idle_timeout_ms
    }
}
