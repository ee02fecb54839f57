//! The loop of the upstream: accepts, answers, and sends answers whose time has come.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use super::super::channel::{Channel, Link, READ_BYTES, Received};
use super::super::poll::Poll;
use super::Behaviour;
use super::client::{Client, Speech};
use super::delay::{Answer, Delayed};

/// Token of the listener; connections have their number.
const LISTENER: u64 = u64::MAX;

/// Who is connected, by number.
#[derive(Default)]
struct Clients {
    places: Vec<Option<Client>>,
    vacant: Vec<usize>,
    /// How many there have been.
    generation: u64,
}

/// Serves until the listener fails.
pub(super) fn serve(listener: &TcpListener, behaviour: &Behaviour) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    // A delay ends when it ends; by default the kernel adds 50 µs.
    rustix::thread::set_current_timer_slack(std::num::NonZero::new(1))?;
    let mut poll = Poll::new()?;
    poll.add(listener, LISTENER)?;
    let mut clients = Clients::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut speech = Speech::default();
    let mut delayed = (behaviour.delay_us > 0)
        .then(|| Delayed::new(Duration::from_micros(behaviour.delay_us), behaviour.delay_exponential));
    loop {
        let found = poll.wait(delayed.as_ref().and_then(Delayed::patience))?;
        for ready in 0..found {
            let Some(ready) = poll.ready(ready) else { break };
            if ready.token == LISTENER {
                clients.accept(listener, &poll)?;
                continue;
            }
            let number = usize::try_from(ready.token).unwrap_or(usize::MAX);
            clients.with(number, |client| {
                if ready.readable
                    && client.answer(number, &mut buffer, &mut speech, behaviour, delayed.as_mut())? == Received::Closed
                {
                    return Ok(Received::Closed);
                }
                client.flush(&poll).map(|()| Received::Open)
            });
        }
        while let Some(answer) = delayed.as_mut().and_then(Delayed::take) {
            clients.with(answer.client, |client| {
                // Another client may have the number by now.
                if client.generation == answer.generation {
                    client.channel.out.extend_from_slice(&answer.bytes);
                    client.flush(&poll)?;
                }
                Ok(Received::Open)
            });
        }
    }
}

impl Clients {
    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> io::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            let number = self.vacant.pop().unwrap_or_else(|| {
                self.places.push(None);
                self.places.len() - 1
            });
            self.generation += 1;
            let channel = Channel::new(Link::plain(stream), poll, number as u64)?;
            if let Some(place) = self.places.get_mut(number) {
                *place = Some(Client::new(channel, self.generation));
            }
        }
    }

    /// Lets a client act. What goes wrong resets its connection, which it sees.
    fn with(&mut self, number: usize, act: impl FnOnce(&mut Client) -> io::Result<Received>) {
        let Some(place) = self.places.get_mut(number) else { return };
        let Some(client) = place else { return };
        match act(client) {
            Ok(Received::Open) => return,
            Ok(Received::Closed) => {}
            Err(_) => client.channel.reset(),
        }
        *place = None;
        self.vacant.push(number);
    }
}

impl Client {
    fn answer(
        &mut self,
        number: usize,
        buffer: &mut [u8],
        speech: &mut Speech,
        behaviour: &Behaviour,
        delayed: Option<&mut Delayed>,
    ) -> io::Result<Received> {
        let Some(delayed) = delayed else { return self.receive(buffer, speech, behaviour, |_, _| true) };
        let (generation, mut last_due_ns) = (self.generation, self.last_due_ns);
        let received = self.receive(buffer, speech, behaviour, |out, from| {
            let answer = Answer { client: number, generation, bytes: out.split_off(from) };
            let due_ns = delayed.put(answer, last_due_ns);
            last_due_ns = due_ns.unwrap_or(last_due_ns);
            due_ns.is_some()
        });
        self.last_due_ns = last_due_ns;
        received
    }
}
