//! One link from its connect to its end: what the server says is read, looked at, and handed to whom it belongs.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use monoio::io::{AsyncWriteRentExt, Splitable};
use monoio::net::TcpStream;

use super::{Heard, Link, LinkFailure};
use crate::bounds;
use crate::rpc::{Envelope, Kind, reply};
use crate::settings::policy::SocketTransport;
use crate::wire::http1::Progress;
use crate::wire::lines::LineSplitter;
use crate::wire::websocket::handshake::client::Ask;
use crate::wire::websocket::{Decoder, Event, Role, write};
use crate::worker::Worker;
use crate::worker::receiver::{Received, Receiver};
use crate::worker::timers::OnExpiry;

/// A server that is asked nothing and says nothing is not heard of for as long as it likes.
const NEVER_MS: u64 = u64::MAX / 4;

/// Runs a link.
pub(super) async fn run(worker: Rc<Worker>, link: Rc<Link>) {
    match connect(&worker, &link).await {
        // Its owner has gone meanwhile.
        Ok(_) if link.ended.get() => {}
        Ok((tcp, received)) => {
            let fd = tcp.as_raw_fd();
            let (read, write) = tcp.into_split();
            link.open.set(true);
            link.heard_ms.set(worker.timers.now_ms());
            link.outbox.open(fd, write);
            receive(&worker, &link, Receiver::new(read, fd, received)).await;
        }
        Err(error) => {
            worker.metrics.upstream_errors.inc();
            tracing::debug!(upstream = link.links.index, %error, "cannot connect to upstream");
        }
    }
    end(&link);
}

/// Ends a link: whoever waits for something is told.
fn end(link: &Rc<Link>) {
    let was_left = link.ended.replace(true);
    link.outbox.cut();
    let failure = if link.open.get() { LinkFailure::Broken } else { LinkFailure::Connect };
    let gone = link.pending.borrow_mut().take_all();
    for out in gone {
        link.count_down();
        out.owner.failed(out.ticket, failure);
    }
    if let Some(owner) = link.owner.as_ref().filter(|_| !was_left).and_then(std::rc::Weak::upgrade) {
        owner.lost();
    }
}

async fn connect(worker: &Rc<Worker>, link: &Link) -> io::Result<(TcpStream, Vec<u8>)> {
    let links = &link.links;
    let addresses: Vec<SocketAddr> = links.state.addresses.load().as_ref().clone();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        let timer = worker.timers.deadline(-1);
        timer.set(links.connect_timeout_ms, OnExpiry::Wake);
        // A pending connect loses nothing when it is dropped.
        let connected = crate::worker::race(TcpStream::connect_addr(address), timer.expired()).await;
        match connected.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())) {
            Ok(tcp) => {
                tcp.set_nodelay(true)?;
                worker.metrics.upstream_connects.inc();
                return match links.target.transport {
                    SocketTransport::Lines => Ok((tcp, Vec::new())),
                    SocketTransport::WebSocket => shake_hands(worker, link, tcp).await,
                };
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The opening handshake of a WebSocket (RFC 6455 §4.1).
async fn shake_hands(worker: &Rc<Worker>, link: &Link, mut tcp: TcpStream) -> io::Result<(TcpStream, Vec<u8>)> {
    let target = &link.links.target;
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    let ask = Ask {
        authority: target.authority.as_bytes(),
        target: target.path_and_query.as_bytes(),
        nonce,
        subprotocol: Some("mcp"),
        extra_lines: &link.links.extra_lines,
    };
    let deadline = worker.timers.deadline(tcp.as_raw_fd());
    deadline.set(link.links.connect_timeout_ms, OnExpiry::Cut);
    let mut request = Vec::with_capacity(512);
    ask.write(&mut request);
    tcp.write_all(request).await.0?;
    let (mut buf, mut seen) = (Vec::with_capacity(bounds::READ_BUFFER_BYTES), 0);
    loop {
        if buf.capacity() == buf.len() {
            buf.reserve(bounds::READ_BUFFER_BYTES);
        }
        let (result, back) = crate::worker::stream::read_tcp(&mut tcp, buf).await;
        buf = back;
        if result? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut scratch = worker.scratch.borrow_mut();
        match ask.read_answer(&buf, seen, &mut scratch.response).map_err(io::Error::other)? {
            Progress::Complete => {
                let head = scratch.response.len as usize;
                buf.drain(..head.min(buf.len()));
                return Ok((tcp, buf));
            }
            Progress::Partial => seen = buf.len(),
        }
    }
}

/// Cuts what a server sends into messages.
enum Cutter {
    Lines(LineSplitter),
    WebSocket(Decoder),
}

async fn receive(worker: &Rc<Worker>, link: &Rc<Link>, mut receiver: Receiver) {
    let deadline = worker.timers.deadline(receiver.fd());
    let mut cutter = match link.links.target.transport {
        SocketTransport::Lines => Cutter::Lines(LineSplitter::new(link.links.max_message_bytes as usize)),
        SocketTransport::WebSocket => Cutter::WebSocket(Decoder::new(Role::Client, link.links.max_message_bytes)),
    };
    loop {
        if !take(worker, link, &mut cutter, &mut receiver.buf) {
            return;
        }
        if let Some(owner) = link.owner.as_ref().and_then(std::rc::Weak::upgrade) {
            // A client that reads slowly stops the reading of its own upstream.
            std::future::poll_fn(|cx| owner.poll_room(cx.waker())).await;
        }
        let received = receiver.more(&deadline, None, NEVER_MS, || true).await;
        if matches!(received, Received::End | Received::Broken) || link.ended.get() {
            return;
        }
    }
}

/// Takes every message that is whole. `false` ends the link.
fn take(worker: &Rc<Worker>, link: &Rc<Link>, cutter: &mut Cutter, buf: &mut Vec<u8>) -> bool {
    if buf.is_empty() {
        return true;
    }
    let now_ns = worker.now_ns();
    link.heard_ms.set(worker.timers.now_ms());
    match cutter {
        Cutter::Lines(splitter) => {
            let mut at = 0usize;
            let goes_on = loop {
                let rest = buf.get(at..).unwrap_or_default();
                match splitter.next_line(rest) {
                    Ok(Some(line)) => {
                        hand_over(worker, link, line.text.of(rest), now_ns);
                        at = at.saturating_add(line.consumed);
                    }
                    Ok(None) => break true,
                    Err(_) => {
                        tracing::warn!(upstream = link.links.index, "the upstream's message is too long");
                        break false;
                    }
                }
            };
            buf.drain(..at.min(buf.len()));
            goes_on
        }
        Cutter::WebSocket(decoder) => loop {
            match decoder.next_event(buf) {
                Ok(None) => return true,
                Ok(Some(Event::Text(span))) => hand_over(worker, link, span.of(buf), now_ns),
                Ok(Some(Event::Ping(span))) => {
                    let mut frame = Vec::new();
                    write::pong(&mut frame, span.of(buf), Some(link.key()));
                    link.outbox.raw(&frame);
                }
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Binary(_))) => return link.close(write_code(1003), ""),
                Ok(Some(Event::Close { code, .. })) => return link.close(code, ""),
                Err(fault) => {
                    tracing::warn!(upstream = link.links.index, %fault, "the upstream breaks the WebSocket protocol");
                    return link.close(Some(fault.close_code()), "");
                }
            }
        },
    }
}

fn write_code(number: u16) -> Option<crate::wire::websocket::CloseCode> {
    crate::wire::websocket::CloseCode::new(number)
}

impl Link {
    fn key(&self) -> [u8; 4] {
        let mut key = [0; 4];
        // Without random bytes the upstream is still spoken to; masking protects against scripts, of which we are none.
        let _ = getrandom::fill(&mut key);
        key
    }

    /// Says a WebSocket's last word. Always `false`.
    fn close(&self, code: Option<crate::wire::websocket::CloseCode>, reason: &str) -> bool {
        let mut frame = Vec::new();
        write::close(&mut frame, code, reason, Some(self.key()));
        self.outbox.say_last(&frame);
        false
    }
}

/// Hands a message to whom it belongs.
fn hand_over(worker: &Rc<Worker>, link: &Rc<Link>, raw: &[u8], now_ns: u64) {
    let envelope = {
        let mut scratch = worker.scratch.borrow_mut();
        match scratch.parser.parse(raw) {
            Ok(envelope) => envelope,
            Err(malformed) => {
                tracing::debug!(upstream = link.links.index, %malformed, "the upstream's message is none");
                return;
            }
        }
    };
    let heard = Heard { envelope: &envelope, raw, shared: link.owner.is_none(), now_ns };
    match envelope.kind {
        Kind::Response | Kind::ErrorResponse => {
            let out = number(&envelope, raw).and_then(|number| link.pending.borrow_mut().take(number));
            // An answer that nobody waits for was given up, or never asked for.
            let Some(out) = out else { return };
            link.count_down();
            out.owner.answered(out.ticket, &heard);
        }
        Kind::Notification | Kind::Request => by_itself(worker, link, &heard),
    }
}

/// What a server says without having been asked.
fn by_itself(worker: &Rc<Worker>, link: &Rc<Link>, heard: &Heard<'_>) {
    let (envelope, raw) = (heard.envelope, heard.raw);
    if let Some(owner) = &link.owner {
        if let Some(owner) = owner.upgrade() {
            let about = envelope.subscription_id.and_then(|span| digits(span.of(raw)));
            let now_ms = worker.timers.now_ms();
            let ticket = about.and_then(|number| Some(link.pending.borrow_mut().hear(number, now_ms)?.ticket));
            owner.heard(ticket, heard);
        }
        return;
    }
    if envelope.kind == Kind::Request {
        // Whose it is cannot be known, and nobody may answer for another.
        let id = envelope.id_bytes(raw).map_or(reply::EchoId::Null, reply::EchoId::Raw);
        let mut refusal = Vec::new();
        reply::error(&mut refusal, id, -32601, "Requests of the server are not passed on over this connection", None);
        link.outbox.message(refusal.len(), |out| out.extend_from_slice(&refusal));
        return;
    }
    let about = envelope.progress_token.or(envelope.subscription_id).and_then(|span| digits(span.of(raw)));
    let (owner, ticket) = {
        let mut pending = link.pending.borrow_mut();
        let Some(out) = about.and_then(|number| pending.hear(number, worker.timers.now_ms())) else { return };
        (Rc::clone(&out.owner), out.ticket)
    };
    owner.heard(Some(ticket), heard);
}

/// The number that a response names.
fn number(envelope: &Envelope, raw: &[u8]) -> Option<u64> {
    digits(envelope.id_bytes(raw)?)
}

/// A number as we write it: digits alone, bare or, where a server makes texts of ids, in quotes.
fn digits(token: &[u8]) -> Option<u64> {
    let inner = token.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(token);
    if inner.is_empty() || inner.len() > 16 || !inner.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(inner).ok()?.parse().ok()
}
