//! The loop of the generator: waits for answers and for calls to become due, and begins calls.

use std::io;
use std::time::Duration;

use super::super::channel::READ_BYTES;
use super::super::poll::Poll;
use super::connection::{self, Connection, State};
use super::opening::Opener;
use super::prepared::Prepared;
use super::progress::Progress;
use super::{Load, Outcome, Seen};

/// How often the one who watches a run hears of it.
const WATCH: Duration = Duration::from_secs(1);

struct Engine<'a> {
    load: &'a Load,
    poll: Poll,
    opener: Opener,
    prepared: Prepared,
    connections: Vec<Connection>,
    progress: Progress,
}

pub(super) fn run(load: &Load, watch: Option<&mut dyn FnMut(Seen)>) -> io::Result<Outcome> {
    if load.connections == 0 || load.pipeline == 0 {
        return Err(io::Error::other("at least one connection with one call in flight"));
    }
    // An open schedule sleeps until a call is due; by default the kernel lets it sleep 50 µs longer.
    rustix::thread::set_current_timer_slack(std::num::NonZero::new(1))?;
    let mut engine = Engine {
        load,
        poll: Poll::new()?,
        opener: Opener::new(load)?,
        prepared: Prepared::new(load)?,
        connections: Vec::with_capacity(load.connections),
        progress: Progress::new(load)?,
    };
    for number in 0..load.connections {
        engine.connections.push(Connection::open(load, &engine.opener, &engine.poll, number)?);
    }
    // Calls that come first go to different connections.
    for _ in 0..load.pipeline {
        engine.progress.free.extend(0..load.connections);
    }
    engine.drive(watch)?;
    engine.progress.outcome()
}

impl Engine<'_> {
    fn drive(&mut self, mut watch: Option<&mut dyn FnMut(Seen)>) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        self.progress.start();
        self.begin_on_free(0)?;
        let mut watched = Duration::ZERO;
        while !self.progress.is_done() {
            let now_ns = self.progress.now_ns();
            if let Some(watch) = &mut watch
                && Duration::from_nanos(now_ns) >= watched + WATCH
            {
                watched = Duration::from_nanos(now_ns);
                watch(self.progress.seen(now_ns));
            }
            let patience = self.progress.patience(now_ns, self.load.stall);
            let patience = patience.map_err(|error| self.longest_waiting(&error))?;
            let found = self.poll.wait(Some(if watch.is_some() { patience.min(WATCH) } else { patience }))?;
            for ready in 0..found {
                let Some(ready) = self.poll.ready(ready) else { break };
                self.turn(ready.token, ready.readable, &mut buffer)?;
                // What became due meanwhile does not wait for the rest of a long turn.
                self.begin_on_free(self.progress.moved_ns())?;
            }
            self.begin_on_free(self.progress.now_ns())?;
        }
        Ok(())
    }

    /// One event of one socket.
    fn turn(&mut self, token: u64, readable: bool, buffer: &mut [u8]) -> io::Result<()> {
        let (number, side) = connection::named(token);
        let Some(connection) = self.connections.get_mut(number) else { return Ok(()) };
        if readable && connection.receive(side, buffer, &self.prepared, &mut self.progress)? == State::Reset {
            return connection.reopen(self.load, &self.opener, &self.poll, &self.prepared);
        }
        connection.flush(&self.poll)
    }

    /// Begins what is due, as long as places are free.
    fn begin_on_free(&mut self, now_ns: u64) -> io::Result<()> {
        self.progress.arrive(now_ns)?;
        while let Some(number) = self.progress.free.pop_front() {
            let Some(call) = self.progress.begin(now_ns) else {
                self.progress.free.push_front(number);
                return Ok(());
            };
            let Some(connection) = self.connections.get_mut(number) else { continue };
            connection.begin(&self.prepared, call);
            connection.flush(&self.poll)?;
        }
        Ok(())
    }

    /// The error, with the call that has been in flight for longest.
    fn longest_waiting(&self, error: &io::Error) -> io::Error {
        let waiting = self.connections.iter().filter_map(|connection| Some((connection.oldest()?, connection)));
        let oldest = waiting.min_by_key(|(number, _)| *number);
        oldest.map_or_else(|| io::Error::other(error.to_string()), |(_, connection)| connection.explain(error))
    }
}
