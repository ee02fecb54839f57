//! One gateway, its upstreams, and what all clients of a run share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream};

use super::fault::{Door, Fault, Kind, Way};
use super::gateway::{
    CALL_TIMEOUT_MS, Gateway, MAX_ADDRESS_CONNECTIONS, MAX_HTTP_CONNECTIONS, MAX_TCP_CONNECTIONS, Setup,
};
use super::ledger::Ledger;
use super::rng::Rng;
use super::upstream::Upstream;

/// Calls in flight that an upstream may have.
pub(crate) const MAX_IN_FLIGHT: usize = 48;

/// Without an answer for this long a call is lost: more than the gateway's time for it, a connect, and a machine that others use as well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Which upstreams there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One of each kind, and one over HTTP to which nothing happens.
    Several,
    /// One alone: sessions have connections of their own there.
    Single(Kind),
}

impl Layout {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Several => "several",
            Self::Single(Kind::Http) => "http alone",
            Self::Single(Kind::Lines) => "lines alone",
            Self::Single(Kind::WebSocket) => "ws alone",
        }
    }

    fn upstreams(self) -> Vec<(&'static str, Kind)> {
        match self {
            Self::Several => {
                vec![("calm", Kind::Http), ("web", Kind::Http), ("lines", Kind::Lines), ("frames", Kind::WebSocket)]
            }
            Self::Single(kind) => vec![("alone", kind)],
        }
    }
}

/// Calls of one upstream that carry a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Active {
    pub(crate) upstream: usize,
    pub(crate) fault: Fault,
    /// How many in a hundred.
    pub(crate) share: u64,
}

/// See the module.
pub(crate) struct Stage {
    pub(crate) ledger: Rc<Ledger>,
    pub(crate) upstreams: Rc<Vec<Upstream>>,
    pub(crate) gateway: Gateway,
    pub(crate) layout: Layout,
    pub(crate) bridge: SocketAddr,
    pub(crate) tcp: SocketAddr,
    /// Clients finish what they do and go.
    pub(crate) is_over: Cell<bool>,
    pub(crate) active: Cell<Option<Active>>,
    /// Mean milliseconds between two calls of a client.
    pub(crate) pace_ms: Cell<u64>,
    /// Milliseconds that an upstream takes for an answer, at most.
    pub(crate) delay_ms: Cell<u64>,
    /// Connections that were let in and have not ended, by door and address; and the most of each.
    let_in: RefCell<HashMap<(Door, Ipv4Addr), usize>>,
    pub(crate) most_of_door: Cell<[usize; 2]>,
    pub(crate) most_of_address: Cell<usize>,
}

impl Stage {
    /// Starts upstreams and a gateway in front of them.
    pub(crate) async fn start(setup: &Setup<'_>, layout: Layout) -> io::Result<Rc<Self>> {
        let ledger = Rc::new(Ledger::default());
        let upstreams = upstreams(layout, &ledger).await?;
        let gateway = Gateway::start(setup, &policy(&upstreams)).await?;
        Ok(Rc::new(Self::of(gateway, layout, &upstreams, &ledger)))
    }

    /// A gateway that runs in front of upstreams that were started before.
    pub(crate) fn of(gateway: Gateway, layout: Layout, upstreams: &Rc<Vec<Upstream>>, ledger: &Rc<Ledger>) -> Self {
        let (bridge, tcp) = (gateway.bridge, gateway.tcp);
        Self {
            ledger: ledger.clone(),
            upstreams: upstreams.clone(),
            gateway,
            layout,
            bridge,
            tcp,
            is_over: Cell::new(false),
            active: Cell::new(None),
            pace_ms: Cell::new(20),
            delay_ms: Cell::new(20),
            let_in: RefCell::default(),
            most_of_door: Cell::new([0; 2]),
            most_of_address: Cell::new(0),
        }
    }

    /// What goes in front of a tool's name for it to reach this upstream.
    pub(crate) fn prefix(&self, upstream: usize) -> String {
        match (self.layout, self.upstreams.get(upstream)) {
            (Layout::Several, Some(upstream)) => format!("{}__", upstream.name),
            _ => String::new(),
        }
    }

    pub(crate) fn way(&self, door: Door, upstream: usize, session: bool) -> Way {
        let kind = self.upstreams.get(upstream).map_or(Kind::Http, |upstream| upstream.kind);
        Way::of(door, kind, session, self.layout == Layout::Several)
    }

    /// What the next call to an upstream is to be: its fault, its size and its delay.
    pub(crate) fn choose(&self, upstream: usize, rng: &mut Rng) -> (Fault, (usize, u64)) {
        let active = self.active.get().filter(|active| active.upstream == upstream);
        let fault = active.filter(|active| rng.percent(active.share)).map_or(Fault::None, |active| active.fault);
        let size = match (fault, rng.below(100)) {
            // A byte at a time, or twice in one write.
            (Fault::Drip | Fault::Twice | Fault::Oversize, _) => 0,
            (_, 0..70) => rng.below(200),
            (_, 70..96) => rng.below(6_000),
            _ => rng.below(150_000),
        };
        let delay = if rng.percent(50) { 0 } else { rng.below(self.delay_ms.get()) };
        (fault, (usize::try_from(size).unwrap_or(0), delay))
    }

    /// A connection to a door from an address of the loopback network.
    pub(crate) async fn connect(&self, door: Door, from: Ipv4Addr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        // Ports of connections that have ended may be taken again: a soak makes many.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((from, 0)))?;
        let stream = socket.connect(if door == Door::Tcp { self.tcp } else { self.bridge }).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Counts a connection that the gateway serves, for as long as the result lives.
    pub(crate) fn let_in(self: &Rc<Self>, door: Door, from: Ipv4Addr) -> Guest {
        {
            let mut all = self.let_in.borrow_mut();
            *all.entry((door, from)).or_default() += 1;
            let of = |wanted: &dyn Fn(&(Door, Ipv4Addr)) -> bool| -> usize {
                all.iter().filter(|(key, _)| wanted(key)).map(|(_, count)| count).sum()
            };
            let now = [of(&|key| key.0 != Door::Tcp), of(&|key| key.0 == Door::Tcp)];
            let most = self.most_of_door.get();
            self.most_of_door.set(std::array::from_fn(|at| {
                most.get(at).copied().unwrap_or(0).max(now.get(at).copied().unwrap_or(0))
            }));
            self.most_of_address.set(self.most_of_address.get().max(of(&|key| key.1 == from)));
        }
        Guest { stage: self.clone(), key: (door, from) }
    }

    /// What was taken of what is limited: a name, the most, and the limit.
    pub(crate) fn limits(&self) -> Vec<(String, usize, usize)> {
        let [http, tcp] = self.most_of_door.get();
        let mut limits = vec![
            ("connections of the bridge door".to_owned(), http, MAX_HTTP_CONNECTIONS),
            ("connections of the TCP door".to_owned(), tcp, MAX_TCP_CONNECTIONS),
            ("connections of one address".to_owned(), self.most_of_address.get(), MAX_ADDRESS_CONNECTIONS),
        ];
        limits.extend(self.upstreams.iter().map(|upstream| {
            let name = format!("calls in flight at {}", upstream.name);
            (name, upstream.shared.most_in_flight(), upstream.shared.cap())
        }));
        limits
    }

    /// Waits until `done`, at most so long.
    pub(crate) async fn until(&self, time: Duration, mut done: impl AsyncFnMut(&Self) -> bool) -> bool {
        let end = Instant::now() + time;
        while !done(self).await {
            if Instant::now() > end {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        true
    }
}

/// A connection that is served. Dropped before its socket, so that we never count more than there are.
pub(crate) struct Guest {
    stage: Rc<Stage>,
    key: (Door, Ipv4Addr),
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(count) = self.stage.let_in.borrow_mut().get_mut(&self.key) {
            *count -= 1;
        }
    }
}

/// Starts the upstreams of a layout.
pub(crate) async fn upstreams(layout: Layout, ledger: &Rc<Ledger>) -> io::Result<Rc<Vec<Upstream>>> {
    let mut upstreams = Vec::new();
    for (index, (name, kind)) in layout.upstreams().into_iter().enumerate() {
        upstreams.push(Upstream::start(name, kind, index, MAX_IN_FLIGHT, ledger).await?);
    }
    Ok(Rc::new(upstreams))
}

/// The policy file of a gateway in front of them.
pub(crate) fn policy(upstreams: &[Upstream]) -> String {
    let one = |upstream: &Upstream| {
        let (name, address) = (upstream.name, upstream.address);
        let url = match upstream.kind {
            Kind::Http => format!("http://{address}/mcp"),
            Kind::Lines => format!("tcp://{address}"),
            Kind::WebSocket => format!("ws://{address}/mcp"),
        };
        format!(
            "[upstream.{name}]\nurl = \"{url}\"\nmax_in_flight = {MAX_IN_FLIGHT}\ncall_timeout_ms = {CALL_TIMEOUT_MS}\n\
             connect_timeout_ms = 1000\nmax_idle_connections = 16\n"
        )
    };
    upstreams.iter().map(one).collect()
}

/// A directory for one gateway; an error if there is one already, with another run's trail.
pub(crate) fn fresh_dir(scratch: &Path, name: &str) -> io::Result<PathBuf> {
    let dir = scratch.join(name.replace(' ', "-"));
    std::fs::create_dir_all(scratch)?;
    std::fs::create_dir(&dir).map_err(|error| io::Error::other(format!("{}: {error}", dir.display())))?;
    Ok(dir)
}
