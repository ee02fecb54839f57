//! The TCP door: one message a line.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};

use super::{Arrival, FAREWELL, Order, Queues, stranger};
use crate::cli::client::MAX_MESSAGE_BYTES;
use crate::cli::client::connect::Duplex;
use crate::cli::client::failure::Failure;
use crate::wire::lines::LineSplitter;

/// Read at once.
const READ_BYTES: usize = 16 * 1024;

/// Runs until either side has had enough.
pub(super) async fn run(stream: Box<dyn Duplex>, queues: Queues, limit: Duration) {
    let Queues { orders, arrivals } = queues;
    let (mut read, mut write) = split(stream);
    let failure = {
        let mut reading = std::pin::pin!(receive(&mut read, &arrivals));
        tokio::select! {
            failure = &mut reading => Some(failure),
            // A refusal may have come before the connection broke: it says more than the break does.
            sent = send(&mut write, orders, limit) => match sent {
                Ok(()) => None,
                Err(failure) => Some(timeout(FAREWELL, reading).await.unwrap_or(failure)),
            },
        }
    };
    if let Some(failure) = failure {
        let _ = timeout(FAREWELL, arrivals.send(Arrival::Lost(failure))).await;
    }
    // TLS says goodbye with its close_notify, TCP with a FIN.
    let _ = timeout(FAREWELL, write.shutdown()).await;
}

/// Sends until there is nobody any more who has something to send.
async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    mut orders: mpsc::Receiver<Order>,
    limit: Duration,
) -> Result<(), Failure> {
    while let Some(order) = orders.recv().await {
        let Order::Send(message) = order else { continue };
        let line = zeroize::Zeroizing::new(format!("{}\n", message.text));
        let writing = async {
            to.write_all(line.as_bytes()).await?;
            to.flush().await
        };
        match timeout(limit, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Failure::broken(&error)),
            Err(_) => return Err(Failure::timeout("room for a message that is to be sent", limit)),
        }
    }
    Ok(())
}

/// Hands on every line that comes; why no more will come.
async fn receive(from: &mut (impl AsyncRead + Unpin), arrivals: &mpsc::Sender<Arrival>) -> Failure {
    let (mut received, mut splitter) = (Vec::new(), LineSplitter::new(MAX_MESSAGE_BYTES));
    loop {
        match splitter.next_line(&received) {
            Ok(Some(line)) => {
                let text = line.text.of(&received);
                let Ok(message) = std::str::from_utf8(text) else { return stranger(text) };
                let message = message.trim_ascii();
                if !message.is_empty() && !message.starts_with(['{', '[']) {
                    return stranger(text);
                }
                if !message.is_empty() && arrivals.send(Arrival::Message(message.to_owned())).await.is_err() {
                    return Failure::Closed(String::new());
                }
                received.drain(..line.consumed);
            }
            Ok(None) => {
                received.reserve(READ_BYTES);
                match from.read_buf(&mut received).await {
                    Ok(0) if received.is_empty() => return Failure::Closed(String::new()),
                    // The rest of a line, or the first bytes of another protocol.
                    Ok(0) if received.starts_with(b"{") => return Failure::Closed(" within a message".to_owned()),
                    Ok(0) => return stranger(&received),
                    Ok(_) => {}
                    Err(error) => return Failure::broken(&error),
                }
            }
            Err(_) => return Failure::TooLong,
        }
    }
}
