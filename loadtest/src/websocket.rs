//! WebSocket as `idle` needs it: a client that waits for each answer, and the backend that stands behind HAProxy.
//!
//! Frames and the accept key are tungstenite's, so that ringwall is not asked whether it agrees with itself. Clients are plain blocking sockets:
//! thousands of them that say nothing need no runtime.

use std::io::{self, Cursor, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::Duration;

use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use super::small_call::{self, Dialect};
use super::{echo, process::TOKEN};

/// Without an answer for this long, a call has failed.
const ANSWER: Duration = Duration::from_secs(10);

/// Longest message of this tool; the rest is a fault.
const MAX_MESSAGE_BYTES: u64 = 64 * 1024 * 1024;

/// The nonce of the standard's own example (RFC 6455 §1.3); nobody in between could mix up two clients of a loopback.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A client.
pub(crate) struct Client {
    stream: TcpStream,
    /// Received and not used; no memory while nothing is.
    received: Vec<u8>,
}

impl Client {
    /// Connects and upgrades.
    pub(crate) fn connect(to: SocketAddr) -> io::Result<Self> {
        Self::upgrade(TcpStream::connect(to)?)
    }

    /// Upgrades a connection that was just made.
    pub(crate) fn upgrade(stream: TcpStream) -> io::Result<Self> {
        let to = stream.peer_addr()?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut client = Self { stream, received: Vec::new() };
        let request = request_upgrade("/ws", &to.to_string(), TOKEN);
        client.stream.write_all(request.as_bytes())?;
        let len = loop {
            client.receive()?;
            if let Some(len) = switched(&client.received)? {
                break len;
            }
        };
        client.taken(len);
        Ok(client)
    }

    /// Makes one call and waits for its answer, which must be the only thing that comes.
    pub(crate) fn call(&mut self, id: u64) -> io::Result<()> {
        self.call_and(id, |message| small_call::answered_id(message) == Some(id))
    }

    /// The same, where `is_answer` knows the answer.
    pub(crate) fn call_and(&mut self, id: u64, is_answer: impl FnOnce(&[u8]) -> bool) -> io::Result<()> {
        let mut payload = Vec::with_capacity(320);
        small_call::write_call(&mut payload, id, Dialect::Modern);
        let mut out = Vec::with_capacity(payload.len() + 16);
        write_frame(&mut out, payload, Some(mask_of(id)))?;
        self.stream.write_all(&out)?;
        loop {
            if let Some((range, end)) = whole_frame(&self.received)? {
                let message = self.received.get(range).unwrap_or_default();
                if end != self.received.len() || !is_answer(message) {
                    let shown = String::from_utf8_lossy(message.get(..message.len().min(300)).unwrap_or_default());
                    return Err(io::Error::other(format!("a wrong answer to call {id}: {shown}")));
                }
                self.taken(end);
                return Ok(());
            }
            self.receive()?;
        }
    }

    /// Lets go of the buffer, as a client that says nothing for long.
    pub(crate) fn rest(&mut self) {
        self.received = Vec::new();
    }

    /// Whether the connection stands, and nothing has come that was not asked for.
    pub(crate) fn is_quiet(&self) -> io::Result<bool> {
        self.stream.set_nonblocking(true)?;
        let looked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false)?;
        Ok(matches!(looked, Err(error) if error.kind() == io::ErrorKind::WouldBlock))
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut piece = [0; 4096];
        match self.stream.read(&mut piece)? {
            0 => Err(io::Error::other("the connection was closed")),
            n => {
                self.received.extend_from_slice(piece.get(..n).unwrap_or_default());
                Ok(())
            }
        }
    }

    fn taken(&mut self, len: usize) {
        self.received.drain(..len.min(self.received.len()));
    }
}

/// The request for an upgrade.
pub(crate) fn request_upgrade(path: &str, host: &str, token: &str) -> String {
    let authorization = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Version: 13\r\n{authorization}\r\n"
    )
}

/// The length of the head that agrees to the upgrade, once it is whole.
pub(crate) fn switched(received: &[u8]) -> io::Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(len) = head.parse(received).map_err(io::Error::other)? else { return Ok(None) };
    let accept = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("sec-websocket-accept"));
    let agrees = accept.is_some_and(|header| header.value == derive_accept_key(KEY.as_bytes()).as_bytes());
    if head.code == Some(101) && agrees {
        return Ok(Some(len));
    }
    Err(io::Error::other(format!("the upgrade was answered with {:?}", String::from_utf8_lossy(received))))
}

/// A mask that differs from call to call; it protects nobody here.
fn mask_of(id: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = id.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    [a, b, c, d | 1]
}

pub(crate) fn write_frame(out: &mut Vec<u8>, payload: Vec<u8>, mask: Option<[u8; 4]>) -> io::Result<()> {
    let mut frame = Frame::message(payload, OpCode::Data(Data::Text), true);
    frame.header_mut().mask = mask;
    frame.format(out).map_err(io::Error::other)
}

/// Where the payload of the first frame stands and where the frame ends, once it is whole. Anything but a whole unmasked text is a fault.
fn whole_frame(received: &[u8]) -> io::Result<Option<(Range<usize>, usize)>> {
    let Some((header, start, end)) = frame_bounds(received)? else { return Ok(None) };
    if header.opcode != OpCode::Data(Data::Text) || !header.is_final || header.mask.is_some() {
        return Err(io::Error::other(format!("a frame that nobody asked for: {header:?}")));
    }
    Ok(Some((start..end, end)))
}

/// The mask of the first frame and where its payload stands, to the frame's end, once it is whole. A frame that no client may send is a fault.
pub(crate) fn masked_frame(received: &[u8]) -> io::Result<Option<([u8; 4], Range<usize>)>> {
    let Some((header, start, end)) = frame_bounds(received)? else { return Ok(None) };
    let mask = header.mask.ok_or_else(|| io::Error::other("a client's frame without a mask"))?;
    Ok(Some((mask, start..end)))
}

/// Masks a payload, or takes its mask off.
pub(crate) fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    payload.iter_mut().zip(mask.into_iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

pub(crate) fn frame_bounds(received: &[u8]) -> io::Result<Option<(FrameHeader, usize, usize)>> {
    let mut cursor = Cursor::new(received);
    let Some((header, len)) = FrameHeader::parse(&mut cursor).map_err(io::Error::other)? else { return Ok(None) };
    if len > MAX_MESSAGE_BYTES {
        return Err(io::Error::other("a message that is too long"));
    }
    let start = usize::try_from(cursor.position()).map_err(io::Error::other)?;
    let end = start + usize::try_from(len).map_err(io::Error::other)?;
    Ok((received.len() >= end).then_some((header, start, end)))
}

/// Arguments of `loadtest websocket-backend`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Port on the loopback address
    #[arg(long)]
    port: u16,
}

/// The backend: agrees to every upgrade and answers every call.
pub(crate) fn run_backend(args: &Args) -> io::Result<()> {
    let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new().with_entries(4096).build()?;
    runtime.block_on(async move {
        let listener = monoio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], args.port)))?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            monoio::spawn(async move {
                // What goes wrong closes the connection, which the client sees.
                let _ = serve(stream).await;
            });
        }
    })
}

async fn serve(mut stream: monoio::net::TcpStream) -> io::Result<()> {
    let mut received: Vec<u8> = Vec::with_capacity(1024);
    let mut upgraded = false;
    loop {
        received.reserve(512);
        let start = received.len();
        let (result, slice) = stream.read(received.slice_mut(start..)).await;
        received = slice.into_inner();
        if result? == 0 {
            return Ok(());
        }
        let mut out = Vec::new();
        loop {
            let taken = if upgraded { answer_frame(&mut received, &mut out)? } else { upgrade(&received, &mut out)? };
            let Some(taken) = taken else { break };
            upgraded = true;
            received.drain(..taken);
        }
        if !out.is_empty() {
            stream.write_all(out).await.0?;
        }
    }
}

/// Appends the answer to a request for an upgrade, once it is whole. Returns the request's length.
pub(crate) fn upgrade(received: &[u8], out: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(len) = head.parse(received).map_err(io::Error::other)? else { return Ok(None) };
    let key = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("sec-websocket-key"));
    let key = key.ok_or_else(|| io::Error::other("no request for an upgrade"))?;
    let accept = derive_accept_key(key.value);
    let answer =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
    out.extend_from_slice(format!("{answer}{accept}\r\n\r\n").as_bytes());
    Ok(Some(len))
}

/// Appends the answer to the first frame, once it is whole. Returns the frame's length.
fn answer_frame(received: &mut [u8], out: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let Some((mask, range)) = masked_frame(received)? else { return Ok(None) };
    let end = range.end;
    let payload = received.get_mut(range).unwrap_or_default();
    apply_mask(payload, mask);
    let mut answer = Vec::new();
    echo::answer(&mut answer, payload);
    if answer.pop().is_some() {
        write_frame(out, answer, None)?;
    }
    Ok(Some(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_answered_by_the_backend_as_the_client_expects() -> io::Result<()> {
        let (mut call, mut frame, mut out) = (Vec::new(), Vec::new(), Vec::new());
        small_call::write_call(&mut call, 77, Dialect::Modern);
        write_frame(&mut frame, call, Some(mask_of(77)))?;
        let whole = frame.len();
        for cut in 0..whole {
            assert_eq!(answer_frame(&mut frame.clone()[..cut], &mut out)?, None);
        }
        assert_eq!(answer_frame(&mut frame, &mut out)?, Some(whole));
        for cut in 0..out.len() {
            assert!(whole_frame(out.get(..cut).unwrap_or_default())?.is_none());
        }
        let Some((range, end)) = whole_frame(&out)? else { return Err(io::Error::other("no frame")) };
        assert_eq!((small_call::answered_id(out.get(range).unwrap_or_default()), end), (Some(77), out.len()));
        Ok(())
    }

    #[test]
    fn the_upgrade_is_agreed_to_and_nothing_else_is_taken_for_it() -> io::Result<()> {
        let request = format!("GET /ws HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: {KEY}\r\n\r\n");
        let mut out = Vec::new();
        assert_eq!(upgrade(request.as_bytes(), &mut out)?, Some(request.len()));
        assert_eq!(switched(&out)?, Some(out.len()));
        assert_eq!(switched(out.get(..out.len() - 1).unwrap_or_default())?, None);
        let text = String::from_utf8_lossy(&out);
        assert!(switched(text.replace("101", "200").as_bytes()).is_err());
        assert!(switched(text.replace("Accept: ", "Accept: a").as_bytes()).is_err());
        assert!(upgrade(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &mut Vec::new()).is_err());
        Ok(())
    }

    #[test]
    fn what_a_server_must_not_send_is_a_fault() -> io::Result<()> {
        let mut masked = Vec::new();
        write_frame(&mut masked, b"{}".to_vec(), Some([1, 2, 3, 4]))?;
        assert!(whole_frame(&masked).is_err());
        let mut close = Vec::new();
        Frame::close(None).format(&mut close).map_err(io::Error::other)?;
        assert!(whole_frame(&close).is_err());
        assert!(whole_frame(&[0x81, 0x7f, 0, 0, 0, 0, 0xff, 0, 0, 0]).is_err());
        Ok(())
    }
}
