//! One connection of the generator: the calls in flight on it, and whether what comes are their answers.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::time::Duration;

use super::super::channel::{Channel, Received};
use super::super::poll::Poll;
use super::super::upstream::answer;
use super::Load;
use super::http::{Request, Responses};
use super::mix::{self, Call, ID_DIGITS};
use super::progress::{InFlight, Progress};

/// For how long a connection may be opened.
const OPEN: Duration = Duration::from_secs(10);

/// The calls of a run as they are sent, and what they are answered with. All connections share it.
pub(super) struct Prepared {
    requests: Vec<Request>,
    calls: Vec<Call>,
}

impl Prepared {
    pub(super) fn new(load: &Load) -> Self {
        let calls = load.mix.calls().to_vec();
        Self { requests: calls.iter().map(|call| Request::new(load, call)).collect(), calls }
    }

    fn write(&self, out: &mut Vec<u8>, number: u64) {
        if let Some(request) = self.place(number).and_then(|place| self.requests.get(place)) {
            request.write(out, mix::id_digits(number));
        }
    }

    /// Whether these bytes are the answer to the call with this number.
    fn is_answer(&self, number: u64, bytes: &[u8]) -> bool {
        let Some(call) = self.place(number).and_then(|place| self.calls.get(place)) else { return false };
        let rest = bytes.strip_prefix(answer::START).and_then(|rest| rest.split_at_checked(ID_DIGITS));
        rest.is_some_and(|(id, end)| id == mix::id_digits(number) && end == call.answer_end)
    }

    fn place(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_rem(self.calls.len() as u64)?).ok()
    }
}

pub(super) struct Connection {
    number: usize,
    channel: Channel,
    in_flight: VecDeque<InFlight>,
    responses: Responses,
}

impl Connection {
    pub(super) fn open(load: &Load, poll: &Poll, number: usize) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&load.target, OPEN)
            .map_err(|error| io::Error::other(format!("connection {number} to {}: {error}", load.target)))?;
        let channel = Channel::new(stream, poll, number as u64)?;
        Ok(Self { number, channel, in_flight: VecDeque::new(), responses: Responses::new() })
    }

    /// Begins a call; `flush` sends it.
    pub(super) fn begin(&mut self, prepared: &Prepared, call: InFlight) {
        prepared.write(&mut self.channel.out, call.number);
        self.in_flight.push_back(call);
    }

    pub(super) fn flush(&mut self, poll: &Poll) -> io::Result<()> {
        let flushed = self.channel.flush(poll);
        flushed.map_err(|error| self.explain(&error))
    }

    /// Reads once and takes answers off. Each place that becomes free begins the next call, if one is due.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        prepared: &Prepared,
        progress: &mut Progress,
    ) -> io::Result<()> {
        let (in_flight, responses, number) = (&mut self.in_flight, &mut self.responses, self.number);
        let received = self.channel.receive(buffer, |bytes, out| {
            let mut taken = 0;
            while taken < bytes.len() {
                let rest = bytes.get(taken..).unwrap_or_default();
                let Some((message, len)) = responses.read(rest)? else { break };
                let call = in_flight.front().copied().ok_or_else(|| io::Error::other("an answer to nothing"))?;
                if !prepared.is_answer(call.number, message) {
                    return Err(io::Error::other(format!("a wrong answer: {}", shown(message))));
                }
                in_flight.pop_front();
                taken += len;
                let now_ns = progress.now_ns();
                progress.answered(call, now_ns);
                if let Some(next) = progress.begin(now_ns) {
                    prepared.write(out, next.number);
                    in_flight.push_back(next);
                } else {
                    progress.free.push_back(number);
                }
            }
            Ok(taken)
        });
        match received {
            Ok(Received::Open) => Ok(()),
            Ok(Received::Closed) => Err(self.explain(&io::Error::other("closed by the other side"))),
            Err(error) => Err(self.explain(&error)),
        }
    }

    /// The number of the call that is in flight for longest.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.in_flight.front().map(|call| call.number)
    }

    /// An error that says which call was next to be answered.
    pub(super) fn explain(&self, error: &io::Error) -> io::Error {
        let call = match self.in_flight.front() {
            Some(call) => {
                let id = String::from_utf8_lossy(&mix::id_digits(call.number)).into_owned();
                format!("call {} (id {id})", call.number)
            }
            None => "no call in flight".to_owned(),
        };
        let partial = self.channel.partial();
        let rest = if partial.is_empty() { String::new() } else { format!("; received in part: {}", shown(partial)) };
        io::Error::other(format!("{call}, connection {}: {error}{rest}", self.number))
    }
}

/// The front of what was received, for an error.
pub(super) fn shown(bytes: &[u8]) -> String {
    const SHOWN_BYTES: usize = 300;
    String::from_utf8_lossy(bytes.get(..bytes.len().min(SHOWN_BYTES)).unwrap_or_default()).into_owned()
}
