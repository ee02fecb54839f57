//! Messages over a door: what all three have in common. Each is one task that owns its connection, fed by one bounded queue and heard
//! over another, so that sending and receiving may be waited for together and given up at any time.

mod http;
mod lines;
mod websocket;

use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::connect::{Connector, Duplex};
use super::failure::Failure;
use super::target::Door;
use crate::settings::Secret;

/// Messages that may wait in a queue. What is beyond waits in the socket.
const QUEUE: usize = 16;
/// Time to end a connection in good order.
const FAREWELL: Duration = Duration::from_secs(1);

/// A message to be sent.
pub(super) struct Outgoing {
    /// One line of JSON.
    pub(super) text: String,
    /// Of a request; what has no id gets no answer.
    pub(super) id: Option<Value>,
    /// What HTTP carries beside the message; the other doors have no place for it.
    pub(super) fields: Vec<(String, String)>,
}

/// What the client may ask of a door.
pub(super) enum Order {
    Send(Outgoing),
    /// Hear what the server says by itself: HTTP opens a stream for that, the others hear it anyway.
    Listen {
        fields: Vec<(String, String)>,
    },
}

/// What comes back.
pub(super) enum Arrival {
    /// A message, as it came.
    Message(String),
    /// One message came to nothing; with an id, that request.
    Failed { id: Option<Value>, failure: Failure },
    /// The connection is gone, and nothing more will come.
    Lost(Failure),
}

/// An open conversation. When it is dropped the connection is ended; [`Talk::end`] waits for that.
pub(super) struct Talk {
    orders: mpsc::Sender<Order>,
    arrivals: mpsc::Receiver<Arrival>,
    task: JoinHandle<()>,
    limit: Duration,
}

impl Talk {
    /// Hands something over to be sent.
    pub(super) async fn give(&self, order: Order) -> Result<(), Failure> {
        match timeout(self.limit, self.orders.send(order)).await {
            Ok(Ok(())) => Ok(()),
            // The task has ended; why is the last thing that arrives.
            Ok(Err(_)) => Ok(()),
            Err(_) => Err(Failure::timeout("room for another message", self.limit)),
        }
    }

    /// The next arrival. Safe to drop.
    pub(super) async fn hear(&mut self) -> Arrival {
        let closed = || Arrival::Lost(Failure::Closed(String::new()));
        self.arrivals.recv().await.unwrap_or_else(closed)
    }

    /// Ends the conversation in good order, or after a second.
    pub(super) async fn end(self) {
        let Self { orders, arrivals, mut task, .. } = self;
        drop((orders, arrivals));
        if timeout(2 * FAREWELL, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// The ends of a task's queues.
struct Queues {
    orders: mpsc::Receiver<Order>,
    arrivals: mpsc::Sender<Arrival>,
}

/// Starts the conversation over `stream`, which was connected by `connector`. On WebSocket this is the upgrade, token included.
pub(super) async fn open(
    connector: Rc<Connector>,
    stream: Box<dyn Duplex>,
    token: Option<&Secret>,
    limit: Duration,
) -> Result<Talk, Failure> {
    let (orders, given) = mpsc::channel(QUEUE);
    let (heard, arrivals) = mpsc::channel(QUEUE);
    let queues = Queues { orders: given, arrivals: heard };
    let task = match connector.target.door {
        Door::Tcp => tokio::task::spawn_local(lines::run(stream, queues, limit)),
        Door::Ws => {
            let upgrading = timeout(limit, websocket::upgrade(stream, &connector.target, token));
            let socket = upgrading.await.map_err(|_| Failure::timeout("answer to the upgrade", limit))??;
            tokio::task::spawn_local(websocket::run(socket, queues, limit))
        }
        Door::Http => {
            let http = http::Http::new(connector, token, limit, queues.arrivals)?;
            tokio::task::spawn_local(http.run(stream, queues.orders))
        }
    };
    Ok(Talk { orders, arrivals, task, limit })
}

/// What somebody else than an MCP server is known by.
fn stranger(received: &[u8]) -> Failure {
    if received.starts_with(b"HTTP/") {
        Failure::WrongDoor("HTTP answers here, where lines were expected".to_owned())
    } else if received.starts_with(&[0x15, 0x03]) {
        Failure::WrongDoor("TLS answers here: this port wants an encrypted connection".to_owned())
    } else {
        Failure::Protocol("something answers that is no JSON-RPC".to_owned())
    }
}
