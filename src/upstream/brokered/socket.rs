//! A connection's life: made to a server that runs elsewhere, fed, read, and closed in good order.
//!
//! A connection begins with its queue: calls wait in it while the connection is made, and what was not taken out of it was not sent.
//! What it ends with is told to the broker ([`End`]), which decides when the next one may be made. Names are not resolved here: the
//! control plane does that.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::broker::Broker;
use super::instance::{Messages, Outlet, ToServer};
use super::lines::{Line, Lines};
use super::process::{LAST_WORDS, READ_BYTES, WRITE_STALL, write};
use super::seam::{ChildSpec, SocketSpec};
use super::upkeep::End;
use super::websocket::{self, Upgraded};
use crate::settings::SocketTransport;

/// A peer whose machine has vanished is noticed after this and [`KEEPALIVE_EVERY`] × [`KEEPALIVE_TRIES`], though nobody calls.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// Between two questions of the kernel whether the peer is there.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// Questions without an answer until the connection counts as broken.
const KEEPALIVE_TRIES: u32 = 3;
/// Time to end a connection in good order.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// TCP, or TLS over it.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// Where what a server says goes.
pub(super) struct Ear {
    no: u64,
    broker: Weak<RefCell<Broker>>,
    pub(super) max_message_bytes: usize,
}

impl Ear {
    pub(super) fn hear(&self, message: &[u8]) {
        if let Some(broker) = self.broker.upgrade() {
            broker.borrow_mut().on_line(self.no, message, Instant::now());
        }
    }

    /// Tells the broker that the connection is of no use any more.
    pub(super) fn ended(&self, end: &End) {
        if let Some(broker) = self.broker.upgrade() {
            broker.borrow_mut().on_end(self.no, end, Instant::now());
        }
    }

    fn too_long(&self, id: Option<u64>) {
        if let Some(broker) = self.broker.upgrade() {
            broker.borrow_mut().on_too_long(self.no, id, Instant::now());
        }
    }
}

/// Begins connection `no` of `broker`. Must be called on the children thread. `alive` is held until the connection is gone.
pub(super) fn launch(
    spec: &ChildSpec,
    socket: &SocketSpec,
    no: u64,
    broker: Weak<RefCell<Broker>>,
    alive: Rc<()>,
) -> ToServer {
    let (queue, outlet) = ToServer::new();
    let (name, socket) = (spec.name.clone(), socket.clone());
    let ear = Ear { no, broker, max_message_bytes: spec.max_message_bytes };
    spawn_local(async move {
        live(&name, &socket, outlet, &ear).await;
        drop(alive);
    });
    queue
}

async fn live(name: &str, socket: &SocketSpec, outlet: Outlet, ear: &Ear) {
    let Outlet { messages, mut unwanted } = outlet;
    let connected = tokio::select! {
        _ = &mut unwanted => return ear.ended(&End::Closed),
        connected = connect(name, socket) => connected,
    };
    match connected {
        Ok(Connected::Lines(stream)) => run_lines(stream, messages, unwanted, ear).await,
        Ok(Connected::WebSocket(upgraded)) => {
            websocket::run(upgraded, messages, unwanted, socket.ping_every, ear).await
        }
        Err(why) => ear.ended(&End::Unreachable(why)),
    }
}

/// A connection whose handshakes are over.
enum Connected {
    Lines(Box<dyn Duplex>),
    WebSocket(Upgraded),
}

/// A connection to the first address that lets one come about in `connect_timeout`, its handshakes included.
async fn connect(name: &str, socket: &SocketSpec) -> Result<Connected, String> {
    let addresses: Vec<SocketAddr> = socket.upstream.addresses.load().as_ref().clone();
    let mut why = "its name does not resolve".to_owned();
    for address in addresses {
        let connecting = timeout(socket.connect_timeout, connect_to(socket, address));
        match connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(connected) => {
                tracing::debug!(upstream = name, %address, "connected to the server");
                return Ok(connected);
            }
            Err(error) => {
                tracing::debug!(upstream = name, %address, %error, "cannot connect to the server");
                why = error.to_string();
            }
        }
    }
    Err(why)
}

async fn connect_to(socket: &SocketSpec, address: SocketAddr) -> io::Result<Connected> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let options = SockRef::from(&tcp);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    options.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_TRIES))?;
    options.set_tcp_user_timeout(Some(WRITE_STALL))?;
    let stream: Box<dyn Duplex> = match &socket.tls {
        None => Box::new(tcp),
        Some((config, name)) => Box::new(TlsConnector::from(config.clone()).connect(name.clone(), tcp).await?),
    };
    Ok(match socket.target.transport {
        SocketTransport::Lines => Connected::Lines(stream),
        SocketTransport::WebSocket => Connected::WebSocket(websocket::upgrade(stream, socket).await?),
    })
}

/// One message a line, until either side has had enough.
async fn run_lines(stream: Box<dyn Duplex>, messages: Messages, unwanted: oneshot::Receiver<Infallible>, ear: &Ear) {
    let (mut read, mut write) = split(stream);
    let end = {
        let mut reading = pin!(read_lines(&mut read, ear));
        let writing = pin!(write_lines(&mut write, messages));
        tokio::select! {
            end = &mut reading => end,
            error = writing => last_words(reading, error).await,
            _ = unwanted => End::Closed,
        }
    };
    ear.ended(&end);
    // TLS says goodbye with its close_notify, TCP with a FIN.
    let _ = timeout(FAREWELL, write.shutdown()).await;
}

/// The server takes nothing any more: what it said before that is still heard.
pub(super) async fn last_words(reading: impl Future<Output = End>, error: io::Error) -> End {
    let _ = timeout(LAST_WORDS, reading).await;
    End::Broken(error.to_string())
}

async fn read_lines(read: &mut (impl AsyncRead + Unpin), ear: &Ear) -> End {
    let mut lines = Lines::new(ear.max_message_bytes);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match read.read(&mut buffer).await {
            Ok(0) if lines.is_between() => return End::Closed,
            Ok(0) => return End::Broken("it ended within a message".to_owned()),
            Ok(read) => lines.feed(buffer.get(..read).unwrap_or_default(), |line| match line {
                Line::Whole(line) => ear.hear(line),
                Line::TooLong { id } => ear.too_long(id),
            }),
            Err(error) => return End::Broken(error.to_string()),
        }
    }
}

/// Writes until that fails.
async fn write_lines(to: &mut (impl AsyncWrite + Unpin), mut messages: Messages) -> io::Error {
    while let Some(message) = messages.next().await {
        if let Err(error) = write(to, &message).await {
            return error;
        }
        messages.written(message.len());
    }
    // The broker has let go, which the caller sees as well.
    std::future::pending().await
}
