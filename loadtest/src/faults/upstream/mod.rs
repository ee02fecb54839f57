//! Upstreams that do with each call what the call says: answer it, or break in one of the ways of [`super::fault`].
//!
//! They run on the harness's own thread, see every call and tell the ledger. They also count: how many calls are in flight is known here, whatever
//! the gateway believes. A call counts until it is answered, or until the gateway has let go of it: cancelled it, or ended its connection.

mod http;
mod socket;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle, spawn_local};

use super::call::{Asked, SESSION, TOOL};
use super::fault::{Fault, Kind};
use super::ledger::Ledger;

/// How long it may take us to notice that the gateway has let go of a call, before a call too many is one.
const NOTICE: Duration = Duration::from_millis(250);

/// Between two bytes that drip.
const DROP: Duration = Duration::from_millis(50);

/// An upstream.
pub(crate) struct Upstream {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    pub(crate) shared: Rc<Shared>,
    listening: RefCell<Option<JoinHandle<()>>>,
}

/// What its connections share.
pub(crate) struct Shared {
    pub(crate) index: usize,
    kind: Kind,
    ledger: Rc<Ledger>,
    flights: RefCell<HashMap<u64, Rc<Flight>>>,
    next: Cell<u64>,
    /// What `max_in_flight` says.
    cap: usize,
    /// The most that were in flight at once.
    most: Cell<usize>,
    connections: RefCell<HashMap<u64, AbortHandle>>,
}

/// A call in flight.
struct Flight {
    id: String,
    end: Cell<FlightEnd>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FlightEnd {
    Out,
    Answered,
    LetGo,
}

/// The place of a call in flight. Dropped, it was let go of.
struct Ticket {
    shared: Rc<Shared>,
    number: u64,
    flight: Rc<Flight>,
}

impl Ticket {
    fn answered(self) {
        self.flight.end.set(FlightEnd::Answered);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.flight.end.get() == FlightEnd::Out {
            self.flight.end.set(FlightEnd::LetGo);
        }
        self.shared.flights.borrow_mut().remove(&self.number);
    }
}

/// While it lives, calls of the same upstream may notice.
struct Disturbance(Rc<Shared>);

impl Drop for Disturbance {
    fn drop(&mut self) {
        self.0.ledger.calm(self.0.index);
    }
}

impl Shared {
    fn disturbance(self: &Rc<Self>, fault: Fault) -> Option<Disturbance> {
        let noticed = match self.kind {
            // Each call has its connection: what breaks one is nobody else's, but for those that rest, and for what takes all places.
            Kind::Http => matches!(fault, Fault::IdleReset | Fault::Stall | Fault::Drip),
            _ => fault.disturbs(),
        };
        noticed.then(|| {
            self.ledger.disturb(self.index);
            Disturbance(self.clone())
        })
    }

    /// Enters a call.
    fn take_off(self: &Rc<Self>, id: &str) -> Ticket {
        let number = self.next.get();
        self.next.set(number + 1);
        let flight = Rc::new(Flight { id: id.to_owned(), end: Cell::new(FlightEnd::Out) });
        let mut flights = self.flights.borrow_mut();
        flights.insert(number, flight.clone());
        if flights.len() > self.cap {
            spawn_local(self.clone().count_again(flights.values().cloned().collect()));
        } else {
            self.most.set(self.most.get().max(flights.len()));
        }
        Ticket { shared: self.clone(), number, flight }
    }

    /// A call too many, unless the gateway had let go of others before and the news were still on their way to us.
    async fn count_again(self: Rc<Self>, flights: Vec<Rc<Flight>>) {
        tokio::time::sleep(NOTICE).await;
        let out = flights.iter().filter(|flight| flight.end.get() != FlightEnd::LetGo).count();
        if out > self.cap {
            let (index, cap) = (self.index, self.cap);
            if out > self.most.get() {
                let what = format!("upstream {index} had {out} calls in flight, max_in_flight is {cap}");
                self.ledger.violated("no cap exceeded", what);
            }
        }
        self.most.set(self.most.get().max(out));
    }

    /// The id of another call that is in flight.
    fn anothers_id(&self, own: &str) -> Option<String> {
        self.flights.borrow().values().map(|flight| &flight.id).find(|id| *id != own).cloned()
    }

    pub(crate) fn most_in_flight(&self) -> usize {
        self.most.get()
    }

    pub(crate) fn cap(&self) -> usize {
        self.cap
    }
}

impl Upstream {
    /// Starts it on a free port.
    pub(crate) async fn start(
        name: &'static str,
        kind: Kind,
        index: usize,
        cap: usize,
        ledger: &Rc<Ledger>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Rc::new(Shared {
            index,
            kind,
            ledger: ledger.clone(),
            flights: RefCell::default(),
            next: Cell::new(0),
            cap,
            most: Cell::new(0),
            connections: RefCell::default(),
        });
        let upstream = Self { name, kind, address, shared, listening: RefCell::new(None) };
        upstream.listen(listener);
        Ok(upstream)
    }

    fn listen(&self, listener: TcpListener) {
        let shared = self.shared.clone();
        *self.listening.borrow_mut() = Some(spawn_local(async move {
            let mut next = 0_u64;
            while let Ok((stream, _)) = listener.accept().await {
                let (number, serving) = (next, shared.clone());
                next += 1;
                let task = spawn_local(async move {
                    // A connection that breaks is what this is about.
                    let _ = serve(&serving, stream).await;
                    serving.connections.borrow_mut().remove(&number);
                });
                shared.connections.borrow_mut().insert(number, task.abort_handle());
            }
        }));
    }

    /// Ends it as a crash does: nothing listens any more, and all connections end in the middle of what they do.
    pub(crate) async fn kill(&self) {
        self.shared.ledger.disturb(self.shared.index);
        let listening = self.listening.borrow_mut().take();
        if let Some(listening) = listening {
            listening.abort();
            let _ = listening.await;
        }
        self.hang_up();
    }

    /// Starts it again on the same port.
    pub(crate) async fn restart(&self) -> io::Result<()> {
        self.listen(TcpListener::bind(self.address).await?);
        self.shared.ledger.calm(self.shared.index);
        Ok(())
    }

    /// Ends all connections.
    pub(crate) fn hang_up(&self) {
        for (_, task) in self.shared.connections.borrow_mut().drain() {
            task.abort();
        }
    }
}

async fn serve(shared: &Rc<Shared>, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match shared.kind {
        Kind::Http => http::serve(shared, stream).await,
        Kind::Lines | Kind::WebSocket => socket::serve(shared, stream).await,
    }
}

/// From now on the end of the connection is a reset.
fn reset_at_close(stream: &impl std::os::fd::AsFd) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// What is said to messages that are no calls of the run; `None` to those that want no answer.
fn courtesy(asked: &Asked) -> Option<String> {
    let id = asked.id.as_ref()?;
    Some(match asked.method.as_str() {
        "initialize" => format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"protocolVersion":"{SESSION}","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"faults","version":"0"}}}}}}"#
        ),
        "tools/list" => format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"tools":[{{"name":"{TOOL}","inputSchema":{{"type":"object"}}}}]}}}}"#
        ),
        "ping" => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#),
        _ => format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"Method not found"}}}}"#),
    })
}
