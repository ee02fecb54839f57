//! Playing the client and the upstream of one connection.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ringwall::wire::http1::Progress;
use ringwall::wire::http1::body::Framing;
use ringwall::wire::http1::request::{Body, RequestHead, parse_request};
use ringwall::wire::http1::response::{ResponseHead, parse_response};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::oracle::{self, Sent};
use super::world::{PATIENCE, Side};
use super::{ANSWERS_EARLY, CUT_ANSWERS, HALF_CLOSES, Input, LEAVES, STALLS, UPSTREAM_CLOSES};

/// The answer when the input's have run out.
const DEFAULT_ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 36\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}";
/// Between two pieces, so that they are two reads.
const PIECE_PAUSE: Duration = Duration::from_micros(20);
/// How long an upstream that stalls does so.
const STALL: Duration = Duration::from_millis(200);

/// What was seen of one connection from outside.
pub(super) struct Seen {
    pub(super) sent: Sent,
    /// What the client got, until the end unless it went away.
    pub(super) received: Vec<u8>,
    /// The whole requests that reached the upstreams.
    pub(super) forwarded: Vec<Forwarded>,
}

/// A request at an upstream.
pub(super) struct Forwarded {
    pub(super) raw: Vec<u8>,
    pub(super) head: RequestHead,
    pub(super) body: Vec<u8>,
}

/// Plays one connection to its end, and waits until the gateway has let go of it.
pub(super) fn play(side: &Side, input: &Input) -> Seen {
    let mut upstream = Upstream { input, ends: Vec::new(), answered: 0, forwarded: Vec::new() };
    let mut client = Client::connect(side, input);
    let begun = Instant::now();
    // A client that leaves waits until it has been let in: what is still in the backlog would be served during the next input.
    while !(client.is_closed || client.leaves(input) && side.gateway.open_connections() > 0) {
        if begun.elapsed() > PATIENCE {
            panic!(
                "hang: {} of {} answers\n{}",
                client.answers(),
                client.sent.requests.len(),
                client.received.escape_ascii()
            );
        }
        client.step(input);
        upstream.step(&side.upstreams);
        wait(Some(&client), &upstream, &side.upstreams, if client.leaves(input) { 1 } else { 100 });
    }
    let Client { stream, sent, received, .. } = client;
    drop(stream);
    let mut idle = 0;
    while side.gateway.open_connections() > 0 {
        assert!(begun.elapsed() < 2 * PATIENCE, "a connection stays open behind its client");
        // It is a matter of microseconds, as a rule.
        idle += 1;
        if idle > 20 {
            wait(None, &upstream, &side.upstreams, 1);
        } else {
            std::thread::yield_now();
        }
        upstream.step(&side.upstreams);
    }
    upstream.step(&side.upstreams);
    Seen { sent, received, forwarded: upstream.forwarded }
}

/// Waits until one of the sockets is ready.
fn wait(client: Option<&Client>, upstream: &Upstream<'_>, listeners: &[TcpListener], at_most_ms: i64) {
    let mut sockets = Vec::new();
    if let Some(client) = client {
        let writes = if client.pieces.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        sockets.push(PollFd::new(&client.stream, PollFlags::IN | writes));
    }
    sockets.extend(listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
    for end in &upstream.ends {
        let writes = if end.pieces.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        sockets.push(PollFd::new(&end.stream, PollFlags::IN | writes));
    }
    let timeout = Timespec { tv_sec: at_most_ms / 1000, tv_nsec: at_most_ms % 1000 * 1_000_000 };
    let _ = poll(&mut sockets, Some(&timeout));
}

struct Client {
    stream: TcpStream,
    pieces: VecDeque<Vec<u8>>,
    sent: Sent,
    received: Vec<u8>,
    has_ended: bool,
    is_closed: bool,
}

impl Client {
    fn connect(side: &Side, input: &Input) -> Self {
        let stream = TcpStream::connect(side.gateway.bridge()).expect("the door is open");
        stream.set_nonblocking(true).expect("a live socket");
        stream.set_nodelay(true).expect("a live socket");
        Self {
            stream,
            pieces: input.pieces(&input.client, true).into(),
            sent: Sent::read(&input.client),
            received: Vec::new(),
            has_ended: false,
            is_closed: false,
        }
    }

    fn answers(&self) -> usize {
        oracle::answers(&self.received, &self.sent).len()
    }

    fn leaves(&self, input: &Input) -> bool {
        input.has(LEAVES) && self.pieces.is_empty()
    }

    fn step(&mut self, input: &Input) {
        let more = send(&mut self.stream, &mut self.pieces);
        if !more {
            self.pieces.clear(); // the gateway has closed: what it has said is still to be read
        }
        match receive(&mut self.stream, &mut self.received) {
            Received::Open => {}
            Received::Closed => self.is_closed = true,
        }
        let is_answered = || {
            oracle::answers(&self.received, &self.sent).iter().filter(|answer| answer.is_whole).count()
                >= self.sent.requests.len()
        };
        if self.pieces.is_empty() && !self.has_ended && (input.has(HALF_CLOSES) || is_answered()) {
            self.has_ended = true;
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }
}

struct Upstream<'i> {
    input: &'i Input,
    ends: Vec<End>,
    answered: usize,
    forwarded: Vec<Forwarded>,
}

/// The upstream's end of one connection.
struct End {
    stream: TcpStream,
    received: Vec<u8>,
    pieces: VecDeque<Vec<u8>>,
    /// Answers that went out before their request was whole.
    ahead: usize,
    closes: bool,
    /// When an answer that stalls is given up.
    stalls_until: Option<Instant>,
    has_ended: bool,
    is_gone: bool,
}

impl Upstream<'_> {
    fn step(&mut self, listeners: &[TcpListener]) {
        for listener in listeners {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true).expect("a live socket");
                stream.set_nodelay(true).expect("a live socket");
                self.ends.push(End {
                    stream,
                    received: Vec::new(),
                    pieces: VecDeque::new(),
                    ahead: 0,
                    closes: false,
                    stalls_until: None,
                    has_ended: false,
                    is_gone: false,
                });
            }
        }
        let mut ends = std::mem::take(&mut self.ends);
        for end in &mut ends {
            if let Received::Closed = receive(&mut end.stream, &mut end.received) {
                end.is_gone = true;
            }
            self.serve(end);
            if !send(&mut end.stream, &mut end.pieces) {
                end.is_gone = true;
            }
            let stalls = end.stalls_until.is_some_and(|until| Instant::now() < until);
            if end.closes && end.pieces.is_empty() && !end.has_ended && !stalls {
                end.has_ended = true;
                let _ = end.stream.shutdown(Shutdown::Write);
            }
        }
        ends.retain(|end| !end.is_gone);
        self.ends = ends;
    }

    /// Takes whole requests off what has come, and answers them.
    fn serve(&mut self, end: &mut End) {
        if self.input.has(ANSWERS_EARLY) && !end.received.is_empty() && end.ahead == 0 {
            end.ahead = 1;
            self.answer(end);
        }
        loop {
            let mut head = RequestHead::default();
            match parse_request(&end.received, 0, &mut head) {
                Ok(Progress::Partial) => return,
                Ok(Progress::Complete) => {}
                Err(reject) => panic!("sent to the upstream: {reject}: {}", end.received.escape_ascii()),
            }
            let framing = match head.body {
                Body::None => Framing::Length(0),
                Body::Length(length) => Framing::Length(length),
                Body::Chunked => Framing::Chunked,
            };
            let at = head.len as usize;
            let (body, taken) = oracle::decode(framing, &end.received[at..], u64::MAX).expect("a well-formed body");
            let Some(taken) = taken else { return };
            let rest = end.received.split_off(at + taken);
            let raw = std::mem::replace(&mut end.received, rest);
            self.forwarded.push(Forwarded { raw, head, body });
            match end.ahead {
                0 => self.answer(end),
                _ => end.ahead -= 1,
            }
        }
    }

    fn answer(&mut self, end: &mut End) {
        let answer = self.input.answers.get(self.answered).map_or(DEFAULT_ANSWER, Vec::as_slice);
        self.answered += 1;
        let mut answer = answer;
        end.closes |= self.input.has(UPSTREAM_CLOSES) || !is_whole(answer);
        if self.input.has(STALLS) && (self.input.has(LEAVES) || self.input.has(HALF_CLOSES)) {
            answer = &answer[..answer.len() / 2 + answer.len() / 4];
            end.closes = true;
            end.stalls_until = Some(Instant::now() + STALL);
        }
        end.pieces.extend(self.input.pieces(answer, self.input.has(CUT_ANSWERS)));
    }
}

/// Whether an answer says where it ends, and does.
fn is_whole(answer: &[u8]) -> bool {
    let mut head = ResponseHead::default();
    if parse_response(answer, 0, false, &mut head) != Ok(Progress::Complete) || head.framing == Framing::UntilClose {
        return false;
    }
    matches!(oracle::decode(head.framing, &answer[head.len as usize..], u64::MAX), Ok((_, Some(_))))
}

enum Received {
    Open,
    Closed,
}

/// Reads what there is.
fn receive(stream: &mut TcpStream, into: &mut Vec<u8>) -> Received {
    let mut buf = [0; 16 * 1024];
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return Received::Closed,
            Ok(n) => into.extend_from_slice(&buf[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Received::Open,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Received::Closed,
        }
    }
}

/// Writes the next piece, as far as it goes. `false`: nobody takes it.
fn send(stream: &mut TcpStream, pieces: &mut VecDeque<Vec<u8>>) -> bool {
    let Some(piece) = pieces.front_mut() else { return true };
    match stream.write(piece) {
        Ok(n) => {
            piece.drain(..n);
            if piece.is_empty() {
                pieces.pop_front();
            }
            if !pieces.is_empty() {
                std::thread::sleep(PIECE_PAUSE);
            }
            true
        }
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}
