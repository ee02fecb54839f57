//! The loop of the generator: waits for answers and for calls to become due, and begins calls.

use std::io;

use super::super::channel::READ_BYTES;
use super::super::poll::Poll;
use super::connection::{Connection, Prepared};
use super::progress::Progress;
use super::{Door, Load, Outcome};

pub(super) fn run(load: &Load) -> io::Result<Outcome> {
    if load.door != Door::Http || load.tls.is_some() {
        return Err(io::Error::other("this door is not driven yet"));
    }
    if load.connections == 0 || load.pipeline == 0 {
        return Err(io::Error::other("at least one connection with one call in flight"));
    }
    // An open schedule sleeps until a call is due; by default the kernel lets it sleep 50 µs longer.
    rustix::thread::set_current_timer_slack(std::num::NonZero::new(1))?;
    let mut poll = Poll::new()?;
    let mut progress = Progress::new(load)?;
    let prepared = Prepared::new(load);
    let mut connections = Vec::with_capacity(load.connections);
    for number in 0..load.connections {
        connections.push(Connection::open(load, &poll, number)?);
    }
    // Calls that come first go to different connections.
    for _ in 0..load.pipeline {
        progress.free.extend(0..load.connections);
    }
    let mut buffer = vec![0; READ_BYTES];
    progress.start();
    begin_on_free(&mut progress, &mut connections, &prepared, &poll, 0)?;
    while !progress.is_done() {
        let patience = progress.patience(progress.now_ns(), load.stall);
        let patience = patience.map_err(|error| longest_waiting(&connections, &error))?;
        let found = poll.wait(Some(patience))?;
        for ready in 0..found {
            let Some(ready) = poll.ready(ready) else { break };
            let number = usize::try_from(ready.token).unwrap_or(usize::MAX);
            let Some(connection) = connections.get_mut(number) else { continue };
            if ready.readable {
                connection.receive(&mut buffer, &prepared, &mut progress)?;
            }
            connection.flush(&poll)?;
            // What became due meanwhile does not wait for the rest of a long turn.
            let now_ns = progress.moved_ns();
            begin_on_free(&mut progress, &mut connections, &prepared, &poll, now_ns)?;
        }
        let now_ns = progress.now_ns();
        begin_on_free(&mut progress, &mut connections, &prepared, &poll, now_ns)?;
    }
    Ok(progress.outcome())
}

/// The error, with the call that has been in flight for longest.
fn longest_waiting(connections: &[Connection], error: &io::Error) -> io::Error {
    let waiting = connections.iter().filter_map(|connection| Some((connection.oldest()?, connection)));
    let oldest = waiting.min_by_key(|(number, _)| *number);
    oldest.map_or_else(|| io::Error::other(error.to_string()), |(_, connection)| connection.explain(error))
}

/// Begins what is due, as long as places are free.
fn begin_on_free(
    progress: &mut Progress,
    connections: &mut [Connection],
    prepared: &Prepared,
    poll: &Poll,
    now_ns: u64,
) -> io::Result<()> {
    progress.arrive(now_ns)?;
    while let Some(number) = progress.free.pop_front() {
        let Some(call) = progress.begin(now_ns) else {
            progress.free.push_front(number);
            return Ok(());
        };
        let Some(connection) = connections.get_mut(number) else { continue };
        connection.begin(prepared, call);
        connection.flush(poll)?;
    }
    Ok(())
}
