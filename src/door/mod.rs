//! Bytes in: accepting connections, and the protocols spoken on them.
//!
//! A connection is admitted before a byte of it is read: deny list and blocks, the door's limit, the address's limit, on the TCP door how often the
//! address may come, in this order: what a connection is refused for is charged nowhere. What
//! is refused gets one answer and is closed; a flood of refused connections costs a send and a close each. Of a trusted proxy's
//! connection the first bytes are read before, because they may say whose it is ([`proxied`]).

pub(crate) mod decide;
mod fan;
pub(crate) mod http;
#[cfg(feature = "pass-through")]
mod pass_through;
mod peer;
mod proxied;
mod pump;
pub(crate) mod session;
pub(crate) mod shown;
pub(crate) mod spend;
mod spread;
pub(crate) mod sse;
mod tcp;
pub(crate) mod traced;
mod ws;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;

use monoio::net::{TcpListener, TcpStream};

use crate::bounds;
use crate::gateway::Snapshot;
use crate::guard::Denial;
use crate::observe::metrics::Limit;
use crate::state::connections::{Arrival, ConnectionEntry, Refused};
use crate::state::doors::Door;
use crate::sys::socket::{self, Half, Look};
use crate::worker::Worker;
use crate::worker::stream::Stream;
use crate::worker::timers::OnExpiry;

/// A connection that has been accepted.
struct Accepted {
    door: Door,
    tcp: TcpStream,
    /// Who is at its other end: the client, or a proxy that does not say for whom it speaks.
    peer: SocketAddr,
    /// What has been read of it already.
    received: Vec<u8>,
}

/// The accept loop of one worker: runs until the process drains.
pub(crate) fn accept(
    worker: Rc<Worker>,
    door: Door,
    listener: std::net::TcpListener,
) -> io::Result<impl Future<Output = ()>> {
    let listener = TcpListener::from_std(listener)?;
    let entry = worker.open.enter(listener.as_raw_fd());
    // A pending accept must not be dropped (its descriptor would leak); draining ends it instead.
    entry.set_idle(true);
    Ok(async move {
        let _entry = entry;
        loop {
            match listener.accept().await {
                Ok((tcp, peer)) => admit(&worker, door, tcp, unmapped(peer)),
                Err(_) if worker.is_draining() => return,
                Err(error) => {
                    worker.metrics.door(door).connections_refused.inc();
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    // Out of descriptors, usually: what is open must end first.
                    let pause = worker.timers.deadline(-1);
                    pause.set(100, OnExpiry::Wake);
                    pause.expired().await;
                }
            }
            if worker.is_draining() {
                return;
            }
        }
    })
}

/// An IPv4 client of an IPv6 socket is an IPv4 client.
fn unmapped(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

fn admit(worker: &Rc<Worker>, door: Door, tcp: TcpStream, peer: SocketAddr) {
    let accepted = Accepted { door, tcp, peer, received: Vec::new() };
    match permit(worker, door, peer) {
        Ok(entry) if worker.snapshot().proxies.trusts(peer.ip()) => {
            drop(monoio::spawn(proxied::arrive(worker.clone(), accepted, entry)));
        }
        Ok(entry) => enter(worker, accepted, entry),
        Err(denial) => refuse(worker, accepted, &denial),
    }
}

/// Hands a connection to its door. Its client is known as far as it can be.
fn enter(worker: &Rc<Worker>, accepted: Accepted, entry: ConnectionEntry) {
    let Accepted { door, tcp, peer, received } = accepted;
    worker.metrics.door(door).connections_accepted.inc();
    // What came with a proxy's connection was read before it was known whose it is.
    worker.metrics.door(door).bytes_in.add(received.len() as u64);
    entry.received(0, received.len() as u64);
    let _ = tcp.set_nodelay(true);
    match door {
        Door::Tcp => tcp::arrive(worker, tcp, peer, received, entry),
        Door::Http | Door::Ws => {
            monoio::spawn(http::Connection::new(worker.clone(), tcp, peer, received, entry).run());
        }
    }
}

fn refuse(worker: &Rc<Worker>, accepted: Accepted, denial: &Denial) {
    worker.metrics.door(accepted.door).connections_refused.inc();
    if denial.is_of_address() {
        worker.note_blocked(accepted.peer.ip(), denial);
    } else {
        worker.note_refusal(denial, accepted.peer.ip());
        match denial {
            Denial::DoorFull => worker.metrics.limit(Limit::DoorConnections),
            Denial::AddressFull => worker.metrics.limit(Limit::AddressConnections),
            _ => {}
        }
        let event = worker.event(denial.event(), accepted.peer).with_rule(denial.rule());
        worker.record(match denial {
            Denial::RateLimited(_) => event.with_details(format_args!("{}", denial.text())),
            _ => event,
        });
    }
    turn_away(worker, accepted.door, accepted.tcp, denial);
}

/// Blocks, the door's limit, the address's limit, for whoever has connected. A proxy speaks for many: it has no limit of its own.
fn permit(worker: &Worker, door: Door, peer: SocketAddr) -> Result<ConnectionEntry, Denial> {
    let snapshot = worker.snapshot();
    let settings = &snapshot.settings;
    if let Some(denial) = worker.keeps_out(peer.ip()) {
        return Err(denial);
    }
    let limit = match door {
        Door::Tcp => settings.doors.tcp_max_connections,
        Door::Http | Door::Ws => settings.doors.bridge_max_connections,
    };
    let arrival = Arrival {
        door,
        door_limit: limit.into(),
        peer,
        address_limit: (!snapshot.proxies.trusts(peer.ip())).then(|| per_ip(&snapshot)),
        worker: worker.index,
        now_ms: worker.tick_epoch_ms(),
    };
    let entry = worker.shared.connections.open(&arrival).map_err(denial_of)?;
    // What is opened gives its places back when it is dropped.
    if door == Door::Tcp && arrival.address_limit.is_some() {
        worker.admit_connection(peer.ip())?;
    }
    Ok(entry)
}

/// Blocks, the address's limit and how often it may come, for the client that a proxy has named.
fn permit_client(worker: &Worker, door: Door, entry: &mut ConnectionEntry, client: IpAddr) -> Result<(), Denial> {
    let snapshot = worker.snapshot();
    if let Some(denial) = worker.keeps_out(client) {
        return Err(denial);
    }
    let limit = (!snapshot.proxies.trusts(client)).then(|| per_ip(&snapshot));
    entry.set_client_ip(client, limit).map_err(denial_of)?;
    if door == Door::Tcp && limit.is_some() {
        worker.admit_connection(client)?;
    }
    Ok(())
}

fn per_ip(snapshot: &Snapshot) -> u16 {
    u16::try_from(snapshot.settings.doors.max_connections_per_ip).unwrap_or(u16::MAX)
}

fn denial_of(refused: Refused) -> Denial {
    match refused {
        Refused::Address => Denial::AddressFull,
        Refused::Door | Refused::Full => Denial::DoorFull,
    }
}

/// Answers a refused connection and closes it, without a reset overtaking the answer.
fn turn_away(worker: &Rc<Worker>, door: Door, tcp: TcpStream, denial: &Denial) {
    let mut answer = Vec::with_capacity(256);
    match door {
        Door::Tcp => tcp::refusal(&mut answer, denial),
        Door::Http | Door::Ws => http::answer::denial(&mut answer, denial, "", true),
    }
    let mut stream = Stream::plain(tcp);
    if worker.lingering.get() >= bounds::MAX_LINGERING {
        // A socket buffer that is new takes the answer whole; if not, a closed connection says enough.
        let _ = socket::send_now(stream.fd(), &answer);
        return;
    }
    worker.lingering.set(worker.lingering.get() + 1);
    let worker = worker.clone();
    monoio::spawn(async move {
        let deadline = worker.timers.deadline(stream.fd());
        deadline.set(bounds::LINGER_MS, OnExpiry::Cut);
        let (result, _) = stream.write_all(answer).await;
        if result.is_ok() {
            linger(&mut stream).await;
        }
        drop(deadline);
        worker.lingering.set(worker.lingering.get() - 1);
    });
}

/// Ends our side and throws away what still comes, until the peer closes, or enough has come, or the deadline that the caller has set cuts it.
///
/// Closing a socket that holds unread bytes sends a reset, which can destroy an answer that the client has not read yet.
pub(crate) async fn linger(stream: &mut Stream) {
    socket::shutdown(stream.fd(), Half::Write);
    let mut discarded = 0;
    let mut buf = Vec::with_capacity(bounds::READ_BUFFER_BYTES);
    while discarded < bounds::LINGER_BYTES {
        if stream.readable().await.is_err() {
            return;
        }
        buf.clear();
        match socket::receive_now(stream.fd(), &mut buf) {
            Look::Bytes(n) => discarded += n,
            Look::Quiet => {}
            Look::Gone => return,
        }
    }
}
