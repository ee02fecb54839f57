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
use crate::wire::websocket::{CloseCode, Decoder, Event, Fault, Opcode, Role, write};
use crate::worker::Worker;
use crate::worker::framing::Keys;
use crate::worker::outbox::Outbox;
use crate::worker::receiver::{Observer, Received, Receiver, Watch};
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
            // It lives until the link has ended: the outbox shuts the socket down by its number.
            let mut receiver = Receiver::new(read, fd, received);
            receive(&worker, &link, &mut receiver).await;
            if link.outbox.has_ended() {
                // Its last word goes out first.
                std::future::poll_fn(|cx| link.outbox.poll_written(cx.waker())).await;
            }
            return end(&link);
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
    // Kept until the next call, it would keep its socket.
    link.links.shared.borrow_mut().take_if(|shared| Rc::ptr_eq(shared, link));
    let failure = if link.open.get() { LinkFailure::Broken } else { LinkFailure::Connect };
    let gone = link.pending.borrow_mut().take_all();
    for out in gone {
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
                    SocketTransport::WebSocket => {
                        let mut lines = zeroize::Zeroizing::new(links.extra_lines.clone());
                        links.state.credential.append(&mut lines).map_err(io::Error::other)?;
                        let opening = Opening {
                            authority: &links.target.authority,
                            path_and_query: &links.target.path_and_query,
                            subprotocol: Some("mcp"),
                            extra_lines: &lines,
                            timeout_ms: links.connect_timeout_ms,
                        };
                        shake_hands(worker, &opening, tcp).await
                    }
                };
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What is asked for in an opening handshake.
pub(crate) struct Opening<'a> {
    pub(crate) authority: &'a str,
    pub(crate) path_and_query: &'a str,
    pub(crate) subprotocol: Option<&'a str>,
    pub(crate) extra_lines: &'a [u8],
    pub(crate) timeout_ms: u64,
}

/// The opening handshake of a WebSocket (RFC 6455 §4.1).
pub(crate) async fn shake_hands(
    worker: &Rc<Worker>,
    opening: &Opening<'_>,
    mut tcp: TcpStream,
) -> io::Result<(TcpStream, Vec<u8>)> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    let ask = Ask {
        authority: opening.authority.as_bytes(),
        target: opening.path_and_query.as_bytes(),
        nonce,
        subprotocol: opening.subprotocol,
        extra_lines: opening.extra_lines,
    };
    let deadline = worker.timers.deadline(tcp.as_raw_fd());
    deadline.set(opening.timeout_ms, OnExpiry::Cut);
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

async fn receive(worker: &Rc<Worker>, link: &Rc<Link>, receiver: &mut Receiver) {
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
        receiver.take_turns().await;
        let watch = Watch { deadline: &deadline, open: None, observer: &Upstream };
        let received = receiver.more(&watch, NEVER_MS).await;
        if matches!(received, Received::End | Received::Broken) || link.ended.get() {
            return;
        }
    }
}

/// A server is silent by right.
struct Upstream;

impl Observer for Upstream {
    fn is_busy(&self) -> bool {
        true
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
        Cutter::WebSocket(decoder) => {
            let hand_text_over = |opcode, raw: &[u8]| {
                let is_text = opcode == Opcode::Text;
                if is_text {
                    hand_over(worker, link, raw, now_ns);
                }
                is_text
            };
            let Err(last) = take_frames(decoder, buf, &link.outbox, hand_text_over) else { return true };
            if let Last::Broken(fault) = last {
                tracing::warn!(upstream = link.links.index, %fault, "the upstream breaks the WebSocket protocol");
            }
            last.say(&link.outbox);
            false
        }
    }
}

/// What a WebSocket to an upstream ends with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Last {
    /// The upstream closes; it is answered with its own code (RFC 6455 §5.5.1).
    Closed(Option<CloseCode>),
    /// The upstream breaks the protocol.
    Broken(Fault),
    /// The upstream sent what is not taken.
    Refused,
    /// Nobody is left to speak for.
    Left,
}

impl Last {
    /// The code of our Close.
    pub(crate) fn code(self) -> Option<CloseCode> {
        match self {
            Self::Closed(code) => code,
            Self::Broken(fault) => Some(fault.close_code()),
            Self::Refused => Some(CloseCode::UNSUPPORTED_DATA),
            Self::Left => Some(CloseCode::NORMAL),
        }
    }

    /// Sends our Close behind all that is queued, and nothing behind it.
    pub(crate) fn say(self, outbox: &Rc<Outbox>) {
        let mut frame = Vec::new();
        write::close(&mut frame, self.code(), "", Some(Keys::one()));
        outbox.end(&frame);
    }
}

/// Hands over every message that is whole, and answers pings. `message` says whether it takes such.
///
/// # Errors
/// What the connection ends with; it is the caller's to say.
pub(crate) fn take_frames(
    decoder: &mut Decoder,
    buf: &mut Vec<u8>,
    outbox: &Rc<Outbox>,
    mut message: impl FnMut(Opcode, &[u8]) -> bool,
) -> Result<(), Last> {
    loop {
        let taken = match decoder.next_event(buf) {
            Ok(None) => return Ok(()),
            Ok(Some(Event::Text(span))) => message(Opcode::Text, span.of(buf)),
            Ok(Some(Event::Binary(span))) => message(Opcode::Binary, span.of(buf)),
            Ok(Some(Event::Ping(span))) => {
                let mut frame = Vec::new();
                write::pong(&mut frame, span.of(buf), Some(Keys::one()));
                outbox.raw(&frame);
                true
            }
            Ok(Some(Event::Pong(_))) => true,
            Ok(Some(Event::Close { code, .. })) => return Err(Last::Closed(code)),
            Err(fault) => return Err(Last::Broken(fault)),
        };
        if !taken {
            return Err(Last::Refused);
        }
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
            drop(out.permit);
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
