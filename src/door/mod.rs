//! Bytes in: accepting connections, and the protocols spoken on them.
//!
//! A connection is admitted before a byte of it is read: deny list, the door's limit, the address's limit, in this order, cheapest first. What
//! is refused gets one answer and is closed; a flood of refused connections costs a send and a close each.

pub(crate) mod decide;
mod fan;
pub(crate) mod http;
mod peer;
mod pump;
pub(crate) mod session;
mod spread;
pub(crate) mod sse;
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
    _address: AddressPermit,
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
    match permit(worker, door, peer.ip()) {
        Ok(admitted) => {
            worker.metrics.door(door).connections_accepted.inc();
            let _ = tcp.set_nodelay(true);
            match door {
                Door::Tcp => tcp::arrive(worker, tcp, peer, Vec::new(), admitted),
                Door::Http | Door::Ws => {
                    monoio::spawn(http::Connection::new(worker.clone(), tcp, peer, admitted).run());
                }
            }
        }
        Err(denial) => {
            worker.metrics.door(door).connections_refused.inc();
            worker.metrics.refusals.inc(denial.rule());
            let event = worker.event(denial.event(), peer).with_rule(denial.rule());
            worker.record(match denial {
                Denial::AddressDenied => event.with_details(format_args!("BLOCKED")),
                _ => event,
            });
            turn_away(worker, door, tcp, &denial);
        }
    }
}

fn permit(worker: &Worker, door: Door, ip: IpAddr) -> Result<Admitted, Denial> {
    let snapshot = worker.snapshot();
    let settings = &snapshot.settings;
    if settings.auth.ip_denylist.iter().any(|network| network.contains(&ip)) {
        return Err(Denial::AddressDenied);
    }
    let limit = match door {
        Door::Tcp => settings.doors.tcp_max_connections,
        Door::Http | Door::Ws => settings.doors.bridge_max_connections,
    };
    let door = worker.shared.lifecycle.try_acquire(door, limit as usize).ok_or(Denial::DoorFull)?;
    let per_ip = u16::try_from(settings.doors.max_connections_per_ip).unwrap_or(u16::MAX);
    let address = worker.shared.admission.try_acquire(ip, per_ip).map_err(|refused| match refused {
        Refused::Limit => Denial::AddressFull,
        Refused::TableFull => Denial::DoorFull,
    })?;
    Ok(Admitted { door: Some(door), _address: address })
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
