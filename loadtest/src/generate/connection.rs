//! One connection of the generator: the calls in flight on it, and whether what comes are their answers.

use std::collections::VecDeque;
use std::io;

use super::super::channel::{Channel, Received};
use super::super::poll::Poll;
use super::super::upstream::answer::Failure;
use super::http::Responses;
use super::opening::{Opened, Opener};
use super::prepared::{Prepared, Verdict};
use super::progress::{InFlight, Progress};
use super::reader::{Item, Reader};
use super::{Load, mix, request};

pub(super) struct Connection {
    number: usize,
    channel: Channel,
    reader: Reader,
    /// Where calls go that do not go where answers come from.
    posts: Option<Posts>,
    /// With what each request begins.
    first_line: Vec<u8>,
    /// Over HTTP in the order of the calls.
    in_flight: VecDeque<InFlight>,
}

struct Posts {
    channel: Channel,
    responses: Responses,
}

/// Which of the sockets of a connection an event is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Answers,
    Posts,
}

/// The connection and the side that an event's token names.
pub(super) fn named(token: u64) -> (usize, Side) {
    let side = if token.is_multiple_of(2) { Side::Answers } else { Side::Posts };
    (usize::try_from(token / 2).unwrap_or(usize::MAX), side)
}

/// Whether a connection stands after a read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// It ended since a call was to be answered with a reset.
    Reset,
}

impl Connection {
    pub(super) fn open(load: &Load, opener: &Opener, poll: &Poll, number: usize) -> io::Result<Self> {
        let opened = opener.open(load);
        let Opened { link, reader, posts, first_line } = opened.map_err(|error| {
            io::Error::other(format!("connection {number} to {} was not opened: {error}", load.target))
        })?;
        let token = 2 * number as u64;
        let channel = Channel::new(link, poll, token)?;
        let posts = posts.map(|link| {
            Ok::<_, io::Error>(Posts { channel: Channel::new(link, poll, token + 1)?, responses: Responses::new() })
        });
        Ok(Self { number, channel, reader, posts: posts.transpose()?, first_line, in_flight: VecDeque::new() })
    }

    /// Opens it anew after a reset, and repeats the calls whose answers were lost with it.
    pub(super) fn reopen(&mut self, load: &Load, opener: &Opener, poll: &Poll, prepared: &Prepared) -> io::Result<()> {
        let repeated = std::mem::take(&mut self.in_flight);
        *self = Self::open(load, opener, poll, self.number)?;
        for call in repeated {
            self.begin(prepared, call);
        }
        self.flush(poll)
    }

    /// Begins a call; `flush` sends it.
    pub(super) fn begin(&mut self, prepared: &Prepared, call: InFlight) {
        let out = self.posts.as_mut().map_or(&mut self.channel.out, |posts| &mut posts.channel.out);
        prepared.write(out, &self.first_line, call.number);
        self.in_flight.push_back(call);
    }

    pub(super) fn flush(&mut self, poll: &Poll) -> io::Result<()> {
        let flushed = match &mut self.posts {
            // Nothing is ever sent where only answers come from.
            Some(posts) => posts.channel.flush(poll),
            None => self.channel.flush(poll),
        };
        match flushed {
            // The rest of what the other side has said before it went is still to be read, or its end.
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
            Err(error) => Err(self.explain(&error)),
            Ok(()) => Ok(()),
        }
    }

    /// Reads once from one of its sockets and takes answers off. Each place that becomes free begins the next call, if one is due.
    pub(super) fn receive(
        &mut self,
        side: Side,
        buffer: &mut [u8],
        prepared: &Prepared,
        progress: &mut Progress,
    ) -> io::Result<State> {
        let received = match side {
            Side::Answers => self.receive_answers(buffer, prepared, progress),
            Side::Posts => self.receive_acceptances(buffer),
        };
        match received {
            Ok(Received::Open) => Ok(State::Open),
            Ok(Received::Closed) => self.ended(prepared, progress, &io::Error::other("closed by the other side")),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.ended(prepared, progress, &error),
            Err(error) => Err(self.explain(&error)),
        }
    }

    fn receive_answers(
        &mut self,
        buffer: &mut [u8],
        prepared: &Prepared,
        progress: &mut Progress,
    ) -> io::Result<Received> {
        let (in_flight, reader, number) = (&mut self.in_flight, &mut self.reader, self.number);
        let mut posts = self.posts.as_mut().map(|posts| &mut posts.channel.out);
        let ordered = matches!(reader, Reader::Http(_));
        self.channel.receive(buffer, |bytes, out| {
            let mut taken = 0;
            while let Some((item, len)) = reader.read(bytes.get(taken..).unwrap_or_default())? {
                taken += len;
                let (place, verdict) = match item {
                    Item::Message(message) => {
                        let place = if ordered { 0 } else { place_of(in_flight, message)? };
                        (place, prepared.judge(in_flight.get(place), message)?)
                    }
                    Item::Status(status, content) => (0, prepared.judge_status(in_flight.front(), status, content)?),
                    Item::Ping(payload) => {
                        request::write_pong(out, payload)?;
                        continue;
                    }
                    Item::Nothing => continue,
                    Item::Endpoint(_) => return Err(io::Error::other("a second endpoint")),
                };
                let Some(call) = in_flight.remove(place) else { break };
                let now_ns = progress.now_ns();
                progress.answered(call, now_ns, verdict == Verdict::Right);
                match progress.begin(now_ns) {
                    Some(next) => {
                        let out = posts.as_deref_mut().unwrap_or(out);
                        prepared.write(out, &self.first_line, next.number);
                        in_flight.push_back(next);
                    }
                    None => progress.free.push_back(number),
                }
            }
            Ok(taken)
        })
    }

    fn receive_acceptances(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let Some(posts) = &mut self.posts else { return Err(io::Error::other("no posts are made here")) };
        let responses = &mut posts.responses;
        posts.channel.receive(buffer, |bytes, _| {
            let mut taken = 0;
            while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
                match responses.read(rest)? {
                    None => break,
                    Some((202, _, len)) => taken += len,
                    Some((status, content, _)) => {
                        return Err(io::Error::other(format!("a post got status {status}: {}", shown(content))));
                    }
                }
            }
            Ok(taken)
        })
    }

    /// The other side has ended the connection: what was asked for, if a call in flight was to be reset.
    fn ended(&mut self, prepared: &Prepared, progress: &mut Progress, error: &io::Error) -> io::Result<State> {
        let reset = |call: &InFlight| prepared.failure(call.number) == Some(Failure::Reset);
        let Some(call) = self.in_flight.iter().position(reset).and_then(|place| self.in_flight.remove(place)) else {
            return Err(self.explain(error));
        };
        let now_ns = progress.now_ns();
        progress.answered(call, now_ns, false);
        match progress.begin(now_ns) {
            Some(next) => self.in_flight.push_back(next),
            None => progress.free.push_back(self.number),
        }
        Ok(State::Reset)
    }

    /// The number of the call that is in flight for longest.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.in_flight.iter().map(|call| call.number).min()
    }

    /// An error that says which call was next to be answered.
    pub(super) fn explain(&self, error: &io::Error) -> io::Error {
        let call = match self.oldest() {
            Some(number) => format!("call {number} (id {})", String::from_utf8_lossy(&mix::id_digits(number))),
            None => "no call in flight".to_owned(),
        };
        let partial = self.channel.partial();
        let rest = if partial.is_empty() { String::new() } else { format!("; received in part: {}", shown(partial)) };
        io::Error::other(format!("{call}, connection {}: {error}{rest}", self.number))
    }
}

/// Which of the calls in flight a message answers. Usually it is the first.
fn place_of(in_flight: &VecDeque<InFlight>, message: &[u8]) -> io::Result<usize> {
    let number = super::prepared::answered_number(message);
    let place = number.and_then(|number| in_flight.iter().position(|call| call.number == number));
    place.ok_or_else(|| io::Error::other(format!("a wrong answer, to no call in flight here: {}", shown(message))))
}

/// The front of what was received, for an error.
pub(super) fn shown(bytes: &[u8]) -> String {
    const SHOWN_BYTES: usize = 300;
    String::from_utf8_lossy(bytes.get(..bytes.len().min(SHOWN_BYTES)).unwrap_or_default()).into_owned()
}
