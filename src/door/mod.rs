//! Bytes in: accepting connections, and the protocols spoken on them.
//!
//! A connection is admitted before a byte of it is read: deny list, the door's limit, the address's limit, in this order, cheapest first. What
//! is refused gets one answer and is closed; a flood of refused connections costs a send and a close each. Of a trusted proxy's
//! connection the first bytes are read before, because they may say whose it is ([`proxied`]).

pub(crate) mod decide;
mod fan;
pub(crate) mod http;
mod peer;
mod proxied;
mod pump;
pub(crate) mod session;
mod spread;
mod tcp;
mod ws;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;

use monoio::net::{TcpListener, TcpStream};

use crate::bounds;
use crate::gateway::AddressPermit;
use crate::guard::Denial;
use crate::state::admission::Refused;
use crate::state::lifecycle::{Door, DoorPermit};
use crate::sys::socket::{self, Half, Look};
use crate::worker::Worker;
use crate::worker::stream::Stream;
use crate::worker::timers::OnExpiry;

/// What an admitted connection holds while it is open.
pub(crate) struct Admitted {
    /// Always there but while it moves.
    door: Option<DoorPermit>,
    /// None for a proxy, which speaks for many.
    _address: Option<AddressPermit>,
}

impl Admitted {
    /// Moves the connection to another door, of which `limit` may be open. `false`: it is full, and the connection stays where it is.
    fn move_to(&mut self, door: Door, limit: usize) -> bool {
        let Some(permit) = self.door.take() else { return false };
        let (permit, moved) = match permit.move_to(door, limit) {
            Ok(permit) => (permit, true),
            Err(permit) => (permit, false),
        };
        self.door = Some(permit);
        moved
    }
}

/// A connection that has been accepted.
struct Arrival {
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
    let arrival = Arrival { door, tcp, peer, received: Vec::new() };
    let is_proxy = worker.snapshot().proxies.trusts(peer.ip());
    match permit_door(worker, door, peer.ip()) {
        Ok(permit) if is_proxy => drop(monoio::spawn(proxied::arrive(worker.clone(), arrival, permit))),
        Ok(permit) => enter(worker, arrival, permit),
        Err(denial) => refuse(worker, arrival, &denial),
    }
}

/// Lets a connection in whose client is known as far as it can be.
fn enter(worker: &Rc<Worker>, arrival: Arrival, permit: DoorPermit) {
    let admitted = match permit_address(worker, arrival.peer.ip()) {
        Ok(address) => Admitted { door: Some(permit), _address: address },
        Err(denial) => return refuse(worker, arrival, &denial),
    };
    let Arrival { door, tcp, peer, received } = arrival;
    worker.metrics.door(door).connections_accepted.inc();
    let _ = tcp.set_nodelay(true);
    match door {
        Door::Tcp => tcp::arrive(worker, tcp, peer, received, admitted),
        Door::Http | Door::Ws => {
            monoio::spawn(http::Connection::new(worker.clone(), tcp, peer, received, admitted).run());
        }
    }
}

fn refuse(worker: &Rc<Worker>, arrival: Arrival, denial: &Denial) {
    worker.metrics.door(arrival.door).connections_refused.inc();
    worker.metrics.refusals.inc(denial.rule());
    let event = worker.event(denial.event(), arrival.peer).with_rule(denial.rule());
    worker.record(match denial {
        Denial::AddressDenied => event.with_details(format_args!("BLOCKED")),
        _ => event,
    });
    turn_away(worker, arrival.door, arrival.tcp, denial);
}

/// Deny list and the door's limit, for whoever has connected.
fn permit_door(worker: &Worker, door: Door, ip: IpAddr) -> Result<DoorPermit, Denial> {
    let snapshot = worker.snapshot();
    let settings = &snapshot.settings;
    if snapshot.is_denied(ip) {
        return Err(Denial::AddressDenied);
    }
    let limit = match door {
        Door::Tcp => settings.doors.tcp_max_connections,
        Door::Http | Door::Ws => settings.doors.bridge_max_connections,
    };
    worker.shared.lifecycle.try_acquire(door, limit as usize).ok_or(Denial::DoorFull)
}

/// Deny list and the address's limit, for the client. A proxy that speaks for others has no limit of its own.
fn permit_address(worker: &Worker, ip: IpAddr) -> Result<Option<AddressPermit>, Denial> {
    let snapshot = worker.snapshot();
    if snapshot.is_denied(ip) {
        return Err(Denial::AddressDenied);
    }
    if snapshot.proxies.trusts(ip) {
        return Ok(None);
    }
    let per_ip = u16::try_from(snapshot.settings.doors.max_connections_per_ip).unwrap_or(u16::MAX);
    let permit = worker.shared.admission.try_acquire(ip, per_ip).map_err(|refused| match refused {
        Refused::Limit => Denial::AddressFull,
        Refused::TableFull => Denial::DoorFull,
    })?;
    Ok(Some(permit))
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
