//! The WebSocket door: one message a text frame. The token goes with the upgrade.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::http::{HeaderValue, Request, Response, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, handshake::client::generate_key};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::http::refusal;
use super::{Arrival, FAREWELL, Order, Queues};
use crate::cli::client::MAX_MESSAGE_BYTES;
use crate::cli::client::connect::Duplex;
use crate::cli::client::failure::Failure;
use crate::cli::client::target::Target;
use crate::settings::Secret;

/// What may wait to be written; a longer message could not be sent.
const WRITE_BYTES: usize = 2 * MAX_MESSAGE_BYTES;

/// A stream that has become a WebSocket.
pub(super) type Socket = WebSocketStream<Box<dyn Duplex>>;

/// Asks for the upgrade. The caller's deadline bounds the time.
pub(super) async fn upgrade(
    stream: Box<dyn Duplex>,
    target: &Target,
    token: Option<&Secret>,
) -> Result<Socket, Failure> {
    let scheme = if target.tls { "wss" } else { "ws" };
    let mut request = Request::get(format!("{scheme}://{}{}", target.authority, target.path_and_query))
        .header(header::HOST, &target.authority)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, generate_key());
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, bearer(token)?);
    }
    let request =
        request.body(()).map_err(|_| Failure::Usage("the address cannot be asked for over HTTP".to_owned()))?;
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MAX_MESSAGE_BYTES);
    config.max_frame_size = Some(MAX_MESSAGE_BYTES);
    config.max_write_buffer_size = WRITE_BYTES;
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(refused(&response, token.is_some())),
        Err(error) => Err(failure(error)),
    }
}

/// `Bearer TOKEN`, marked so that no one prints it.
pub(super) fn bearer(token: &Secret) -> Result<HeaderValue, Failure> {
    let mut value = zeroize::Zeroizing::new(b"Bearer ".to_vec());
    value.extend_from_slice(token.expose());
    let mut value = HeaderValue::from_bytes(&value)
        .map_err(|_| Failure::Usage("the token holds a character that a header cannot have".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn refused(response: &Response<Option<Vec<u8>>>, token_sent: bool) -> Failure {
    let status = response.status().as_u16();
    if response.status().is_success() || response.status().is_redirection() {
        return Failure::WrongDoor(format!("HTTP answers here with status {status}, and no WebSocket"));
    }
    let body = response.body().as_deref().unwrap_or_default();
    refusal(status, response.headers(), body, token_sent)
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Io(error) => Failure::broken(&error),
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Failure::TooLong,
        Error::ConnectionClosed | Error::AlreadyClosed => Failure::Closed(String::new()),
        Error::Protocol(ProtocolError::HandshakeIncomplete | ProtocolError::ResetWithoutClosingHandshake) => {
            Failure::Closed(" without a word".to_owned())
        }
        Error::Protocol(ProtocolError::HttparseError(_)) => {
            Failure::WrongDoor("what answers here is no HTTP: lines, TLS, or something else".to_owned())
        }
        other => Failure::Protocol(format!("this is no good WebSocket: {other}")),
    }
}

/// Runs until either side has had enough.
pub(super) async fn run(mut socket: Socket, queues: Queues, limit: Duration) {
    let Queues { mut orders, arrivals } = queues;
    match converse(&mut socket, &mut orders, &arrivals, limit).await {
        Ok(()) => {
            // The closing handshake: ours, then the rest of theirs.
            let goodbye = async {
                let _ = socket.close(None).await;
                while socket.next().await.is_some_and(|next| next.is_ok()) {}
            };
            let _ = timeout(FAREWELL, goodbye).await;
        }
        Err(failure) => {
            let _ = timeout(FAREWELL, arrivals.send(Arrival::Lost(failure))).await;
            let _ = timeout(FAREWELL, socket.close(None)).await;
        }
    }
}

async fn converse(
    socket: &mut Socket,
    orders: &mut mpsc::Receiver<Order>,
    arrivals: &mpsc::Sender<Arrival>,
    limit: Duration,
) -> Result<(), Failure> {
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => return Ok(()),
                Some(Order::Listen { .. }) => {}
                Some(Order::Send(message)) => match timeout(limit, socket.send(Message::text(message.text))).await {
                    Ok(sent) => sent.map_err(failure)?,
                    Err(_) => return Err(Failure::timeout("room for a message that is to be sent", limit)),
                },
            },
            next = socket.next() => match next {
                None => return Err(Failure::Closed(String::new())),
                Some(Ok(Message::Text(text))) => {
                    if arrivals.send(Arrival::Message(text.as_str().to_owned())).await.is_err() {
                        return Ok(());
                    }
                }
                Some(Ok(Message::Close(frame))) => {
                    let why = frame.map(|frame| format!(" with code {} {:?}", u16::from(frame.code), frame.reason.as_str()));
                    return Err(Failure::Closed(why.unwrap_or_default()));
                }
                Some(Ok(Message::Binary(_))) => return Err(Failure::Protocol("a binary message came".to_owned())),
                // Pings are answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Err(failure(error)),
            },
        }
    }
}
