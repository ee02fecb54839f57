//! Connections of trusted proxies (`TRUSTED_PROXIES`): who is at the other end of them.
//!
//! The first bytes of such a connection may be a PROXY header; they are looked for before any protocol of a door, TLS included,
//! begins, so that every door has it from here. Nobody else's bytes are ever looked at this way: an untrusted peer's header
//! is bytes of its protocol, and a fault there.
//!
//! The address that the header names is the client in everything that follows: deny list, connections of one address,
//! audit events, and whether it may speak for others in turn (`X-Forwarded-For` behind a chain of proxies). A proxy that
//! names nobody is held to the door's limit alone, not to that of one address: it speaks for many. A header that is broken, or does not come to its
//! end within `HEADER_TIMEOUT`, closes the connection without an answer, as the specification has it.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use monoio::net::TcpStream;

use super::{Accepted, unmapped};
use crate::bounds;
use crate::state::connections::ConnectionEntry;
use crate::state::events::EventKind;
use crate::wire::proxy_protocol::{Broken, Step, parse};
use crate::worker::Worker;
use crate::worker::stream::read_tcp;
use crate::worker::timers::OnExpiry;

/// Why a connection of a proxy ends before it has begun.
enum Ended {
    /// The header breaks the specification.
    Broken(Broken),
    /// It has begun and does not come to its end.
    Slow,
    /// The proxy has closed, or said nothing for too long, or the process drains.
    Gone,
}

/// Learns from the first bytes of a trusted proxy's connection who its client is, and lets it in.
pub(super) async fn arrive(worker: Rc<Worker>, mut accepted: Accepted, mut entry: ConnectionEntry) {
    match receive_header(&worker, &mut accepted.tcp, &mut accepted.received).await {
        Ok(source) => {
            if let Some(client) = source.map(unmapped) {
                accepted.peer = client;
                if let Err(denial) = super::permit_client(&worker, accepted.door, &mut entry, client.ip()) {
                    return super::refuse(&worker, accepted, &denial);
                }
            }
            super::enter(&worker, accepted, entry);
        }
        Err(Ended::Broken(broken)) => {
            worker.metrics.door(accepted.door).connections_refused.inc();
            worker.metrics.refusals.inc("proxy-header");
            let event = worker.event(EventKind::InvalidInput, accepted.peer).with_rule("proxy-header");
            worker.record(event.with_details(format_args!("{broken}")));
        }
        Err(Ended::Slow) => {
            let event = worker.event(EventKind::ConnectionTimeout, accepted.peer).with_rule("proxy-header");
            worker.record(event.with_details(format_args!("the PROXY header did not come in time")));
        }
        Err(Ended::Gone) => {}
    }
}

/// Takes a PROXY header off the front of a connection. What was read behind it stays in `received`.
async fn receive_header(
    worker: &Worker,
    tcp: &mut TcpStream,
    received: &mut Vec<u8>,
) -> Result<Option<SocketAddr>, Ended> {
    let fd = tcp.as_raw_fd();
    // Both let go of the socket at the end of this function, before it can close.
    let (deadline, open) = (worker.timers.deadline(fd), worker.open.enter(fd));
    let limits = worker.limits.get();
    // A proxy may open connections before it has a client for them.
    deadline.set(limits.idle_timeout_ms, OnExpiry::Cut);
    open.set_idle(true);
    let mut begun = false;
    loop {
        if received.capacity() == received.len() {
            received.reserve(bounds::READ_BUFFER_BYTES);
        }
        let (read, back) = read_tcp(tcp, std::mem::take(received)).await;
        *received = back;
        match read {
            Ok(1..) => {}
            _ if begun && deadline.has_expired() => return Err(Ended::Slow),
            _ => return Err(Ended::Gone),
        }
        match parse(received) {
            Ok(Step::Header { consumed, source }) => {
                received.drain(..consumed.min(received.len()));
                return Ok(source);
            }
            Ok(Step::Absent) => return Ok(None),
            Ok(Step::NeedMore) if !begun => {
                begun = true;
                open.set_idle(false);
                deadline.set(limits.header_timeout_ms, OnExpiry::Cut);
            }
            Ok(Step::NeedMore) => {}
            Err(broken) => return Err(Ended::Broken(broken)),
        }
    }
}
