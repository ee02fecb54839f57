//! A connection as a WebSocket (RFC 6455): one message a text frame, pings answered and asked, closed with its handshake.
//!
//! A peer that is silent is asked whether it is there, and given up when it does not answer. What is no text is refused with 1003, a
//! message that is too long with 1009: both end the connection, which is then made again.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::instance::Messages;
use super::process::{READ_BYTES, write as write_bytes};
use super::seam::SocketSpec;
use super::socket::{Duplex, Ear, FAREWELL, last_words};
use super::upkeep::End;
use crate::settings::SocketTarget;
use crate::wire::http1::Progress;
use crate::wire::http1::response::ResponseHead;
use crate::wire::websocket::handshake::client::Ask;
use crate::wire::websocket::{CloseCode, Decoder, Event, MaskingKey, Role, write};

/// Memory kept between messages; a longer message's buffer is given back.
const KEEP_BYTES: usize = 64 * 1024;

/// A connection that has become a WebSocket.
pub(super) struct Upgraded {
    pub(super) stream: Box<dyn Duplex>,
    /// Bytes that came behind the answer.
    received: Vec<u8>,
}

/// Asks for the upgrade. The caller's deadline bounds the time.
pub(super) async fn upgrade(mut stream: Box<dyn Duplex>, socket: &SocketSpec) -> io::Result<Upgraded> {
    let SocketTarget { authority, path_and_query, .. } = &socket.target;
    let mut lines = socket.fields.clone();
    socket.upstream.credential.append(&mut lines).map_err(io::Error::other)?;
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    let ask = Ask {
        authority: authority.as_bytes(),
        target: path_and_query.as_bytes(),
        nonce,
        subprotocol: Some("mcp"),
        extra_lines: &lines,
    };
    let mut request = zeroize::Zeroizing::new(Vec::new());
    ask.write(&mut request);
    write_bytes(&mut stream, &request).await?;
    let mut received = Vec::new();
    let mut head = ResponseHead::default();
    loop {
        let seen = received.len();
        // The answer's head is bounded where it is read.
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if ask.read_answer(&received, seen, &mut head).map_err(io::Error::other)? == Progress::Complete {
            received.drain(..head.len as usize);
            return Ok(Upgraded { stream, received });
        }
    }
}

/// What the tasks of one connection tell each other.
struct Talk {
    heard: Cell<Instant>,
    /// To be written before the next message: a pong (the latest ping's alone, RFC 6455 §5.5.3), a ping.
    pong: RefCell<Option<Vec<u8>>>,
    ping: Cell<bool>,
    bell: Notify,
    /// A frame has begun and not ended: no other may follow.
    within: Cell<bool>,
}

/// Runs until either side has had enough.
pub(super) async fn run(
    upgraded: Upgraded,
    messages: Messages,
    unwanted: oneshot::Receiver<Infallible>,
    ping_every: Duration,
    ear: &Ear,
) {
    let Upgraded { stream, received } = upgraded;
    let (mut read, mut write) = split(stream);
    let talk = Talk {
        heard: Cell::new(Instant::now()),
        pong: RefCell::default(),
        ping: Cell::new(false),
        bell: Notify::new(),
        within: Cell::new(false),
    };
    let close = Cell::new(None);
    let end = {
        let mut reading = pin!(read_frames(&mut read, received, ear, &talk, &close));
        let writing = pin!(write_frames(&mut write, messages, &talk));
        tokio::select! {
            end = &mut reading => end,
            error = writing => last_words(reading, error).await,
            () = silence(&talk, ping_every) => End::Broken("it does not answer pings".to_owned()),
            _ = unwanted => {
                close.set(Some(CloseCode::NORMAL));
                End::Closed
            }
        }
    };
    ear.ended(&end);
    let _ = timeout(FAREWELL, farewell(&mut read, &mut write, &talk, close.get())).await;
}

/// Our side of the closing handshake, or the answer to the peer's (RFC 6455 §7.1.2).
async fn farewell(
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    talk: &Talk,
    code: Option<CloseCode>,
) -> io::Result<()> {
    if let (Some(code), false) = (code, talk.within.get()) {
        let mut frame = Vec::new();
        write::close(&mut frame, Some(code), "", Some(masking_key()?));
        write_bytes(write, &frame).await?;
        // The server closes first (RFC 6455 §7.1.1). What it still says is for nobody.
        let mut rest = vec![0; 4096];
        while read.read(&mut rest).await? > 0 {}
    }
    write.shutdown().await
}

async fn read_frames(
    read: &mut (impl AsyncRead + Unpin),
    mut received: Vec<u8>,
    ear: &Ear,
    talk: &Talk,
    close: &Cell<Option<CloseCode>>,
) -> End {
    let mut decoder = Decoder::new(Role::Client, u32::try_from(ear.max_message_bytes).unwrap_or(u32::MAX));
    loop {
        loop {
            match decoder.next_event(&mut received) {
                Ok(None) => break,
                Ok(Some(Event::Text(text))) => ear.hear(text.of(&received)),
                Ok(Some(Event::Ping(payload))) => {
                    talk.pong.replace(Some(payload.of(&received).to_vec()));
                    talk.bell.notify_one();
                }
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Binary(_))) => {
                    close.set(Some(CloseCode::UNSUPPORTED_DATA));
                    return End::Broken("it sent a binary message".to_owned());
                }
                Ok(Some(Event::Close { code, .. })) => {
                    close.set(Some(code.unwrap_or(CloseCode::NORMAL)));
                    return match code {
                        None | Some(CloseCode::NORMAL | CloseCode::GOING_AWAY) => End::Closed,
                        Some(code) => End::Broken(format!("it closed with {code}")),
                    };
                }
                Err(fault) => {
                    close.set(Some(fault.close_code()));
                    return End::Broken(fault.to_string());
                }
            }
        }
        if received.is_empty() && received.capacity() > KEEP_BYTES {
            received = Vec::new();
        }
        received.reserve(READ_BYTES);
        match read.read_buf(&mut received).await {
            Ok(0) => return End::Broken("it ended without a close".to_owned()),
            Ok(_) => talk.heard.set(Instant::now()),
            Err(error) => return End::Broken(error.to_string()),
        }
    }
}

/// Writes until that fails.
async fn write_frames(to: &mut (impl AsyncWrite + Unpin), mut messages: Messages, talk: &Talk) -> io::Error {
    let mut frames = Vec::new();
    loop {
        let message = tokio::select! {
            biased;
            () = talk.bell.notified() => None,
            // None: the broker has let go, which the caller sees as well.
            Some(message) = messages.next() => Some(message),
        };
        frames.clear();
        if let Err(error) = put(&mut frames, message.as_deref(), talk) {
            return error;
        }
        talk.within.set(true);
        if let Err(error) = write_bytes(to, &frames).await {
            return error;
        }
        talk.within.set(false);
        if let Some(message) = message {
            messages.written(message.len());
        }
        frames.shrink_to(KEEP_BYTES);
    }
}

/// What is to be written now.
fn put(frames: &mut Vec<u8>, message: Option<&[u8]>, talk: &Talk) -> io::Result<()> {
    if let Some(payload) = talk.pong.take() {
        write::pong(frames, &payload, Some(masking_key()?));
    }
    if talk.ping.take() {
        write::ping(frames, b"", Some(masking_key()?));
    }
    if let Some(message) = message {
        // The line break is for lines.
        let text = message.strip_suffix(b"\n").unwrap_or(message);
        write::text(frames, text, Some(masking_key()?));
    }
    Ok(())
}

/// Unpredictable, as RFC 6455 §5.3 wants it.
fn masking_key() -> io::Result<MaskingKey> {
    let mut key = [0; 4];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    Ok(key)
}

/// Asks a peer that says nothing whether it is there; ends when it has not answered in half that time again.
async fn silence(talk: &Talk, ping_every: Duration) {
    loop {
        let asked_at = talk.heard.get() + ping_every;
        sleep_until(asked_at).await;
        if talk.heard.get() + ping_every > Instant::now() {
            continue;
        }
        talk.ping.set(true);
        talk.bell.notify_one();
        let before = talk.heard.get();
        sleep_until(Instant::now() + ping_every / 2).await;
        if talk.heard.get() == before {
            return;
        }
    }
}
