//! Rounds over all peers in turn. Who is measured runs, the others are stopped.

use std::io;
use std::time::{Duration, Instant};

use super::super::cpu;
use super::super::generate::{self, Arrivals, Outcome, Schedule};
use super::super::peer::{Group, Kind, Peer, right_call};
use super::cell::{Cell, Used};

/// How much a peer is driven in a round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Amount {
    /// For about so long.
    Seconds(f64),
    /// With so many calls, if they take no longer than [`LONGEST_S`].
    Calls(u64),
}

/// The longest that a number of calls may take in a round.
const LONGEST_S: f64 = 20.0;

/// The first calls through a peer at a number of connections, beside one for each of them: they show about how fast it is.
const FIRST_CALLS: u64 = 50;

/// How long a peer that was stopped may take until it answers again: its clocks have gone on without it.
const RECOVERY: Duration = Duration::from_secs(10);

/// Without an answer for so long a peer has failed. The slowest gateways take seconds under 512 connections.
const STALL: Duration = Duration::from_secs(20);

/// A gateway that could not do the work.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) connections: usize,
    pub(super) why: String,
}

impl Amount {
    /// Recorded calls for a peer that has shown this pace, in this part of a round; at least one for each connection.
    fn calls(self, pace: f64, part: f64, connections: usize) -> u64 {
        let least = (connections as u64).max(20);
        let calls = match self {
            Self::Seconds(seconds) => pace * seconds * part,
            Self::Calls(calls) => (calls as f64 * part).min(pace * LONGEST_S),
        };
        (calls as u64).max(least)
    }
}

/// A run over peers.
pub(super) struct Course<'a> {
    peers: &'a [Peer],
    upstream: &'a Group,
    rounds: usize,
    amount: Amount,
    pub(super) failures: Vec<Failure>,
}

impl<'a> Course<'a> {
    pub(super) fn new(peers: &'a [Peer], upstream: &'a Group, rounds: usize, amount: Amount) -> Self {
        Self { peers, upstream, rounds, amount, failures: Vec::new() }
    }

    /// All rounds at one number of connections, each with one call at a time.
    ///
    /// A gateway that fails is left out from then on, and its rounds at this number are. Anybody else who fails ends the run.
    pub(super) fn closed(&mut self, connections: usize) -> io::Result<Vec<Cell>> {
        let mut cells: Vec<Cell> = Vec::new();
        let mut paces = vec![None; self.peers.len()];
        for round in 0..=self.rounds {
            for index in turn(round, self.peers.len()) {
                let (Some(peer), Some(pace)) = (self.peers.get(index), paces.get_mut(index)) else { continue };
                if self.failures.iter().any(|failure| failure.kind == peer.kind) {
                    continue;
                }
                self.progress(&format!("{connections} connections"), round, peer);
                match alone(peer, || self.paced(peer, connections, round, pace)) {
                    Ok(cell) if round > 0 => cells.push(cell),
                    Ok(_) => {}
                    Err(error) if peer.kind.may_fail() => {
                        cells.retain(|cell| cell.kind != peer.kind);
                        let why = error.to_string();
                        eprintln!("{} has failed and is left out: {why}", peer.kind.title());
                        self.failures.push(Failure { kind: peer.kind, connections, why });
                        peer.group.stop()?;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        eprintln!();
        Ok(cells)
    }

    /// One peer in one round, with as many calls as its pace allows, which is found out first.
    fn paced(&self, peer: &Peer, connections: usize, round: usize, pace: &mut Option<f64>) -> io::Result<Cell> {
        let known = match *pace {
            Some(known) => known,
            None => self.pace(peer, connections)?,
        };
        // The first round warms up.
        let part = if round == 0 { 0.5 } else { 1.0 };
        let calls = self.amount.calls(known, part, connections);
        let cell = self.cell(peer, connections, round, Schedule::Closed, calls)?;
        *pace = Some(cell.calls_per_s);
        Ok(cell)
    }

    /// All rounds of an open schedule through those of the peers that are named.
    pub(super) fn open(&mut self, connections: usize, calls_per_s: f64, kinds: &[Kind]) -> io::Result<Vec<Cell>> {
        let mut cells = Vec::new();
        let peers: Vec<&Peer> = self.peers.iter().filter(|peer| kinds.contains(&peer.kind)).collect();
        for round in 0..=self.rounds {
            // Calls come as from many clients who know nothing of each other, and in a round for each peer the same.
            let arrivals = Arrivals::Poisson { seed: round as u64 };
            let schedule = Schedule::Open { calls_per_s, arrivals };
            let calls = self.amount.calls(calls_per_s, 1.0, connections);
            for index in turn(round, peers.len()) {
                let Some(peer) = peers.get(index) else { continue };
                self.progress(&format!("{calls_per_s:.0} calls/s"), round, peer);
                let cell = alone(peer, || self.cell(peer, connections, round, schedule, calls))?;
                if round > 0 {
                    cells.push(cell);
                }
            }
        }
        eprintln!();
        Ok(cells)
    }

    /// Who comes now, on one line of the terminal that is written over and over.
    fn progress(&self, what: &str, round: usize, peer: &Peer) {
        eprint!("{what}, round {round} of {}, {:32}\r", self.rounds, peer.kind.title());
    }

    /// Calls a second, about.
    fn pace(&self, peer: &Peer, connections: usize) -> io::Result<f64> {
        let calls = FIRST_CALLS + connections as u64;
        let (outcome, _, _) = self.drive(peer, connections, Schedule::Closed, calls)?;
        Ok(outcome.calls_per_s())
    }

    fn cell(&self, peer: &Peer, connections: usize, round: usize, schedule: Schedule, calls: u64) -> io::Result<Cell> {
        let (outcome, made, used) = self.drive(peer, connections, schedule, calls)?;
        Ok(Cell::new(peer.kind, connections, round, &outcome, made, used))
    }

    fn drive(
        &self,
        peer: &Peer,
        connections: usize,
        schedule: Schedule,
        calls: u64,
    ) -> io::Result<(Outcome, u64, Used)> {
        let mut load = peer.target.load();
        load.connections = connections;
        load.schedule = schedule;
        // Every connection has carried a call before the first that counts.
        load.warm_up = (connections as u64).max(calls / 20);
        load.calls = calls;
        load.stall = STALL;
        let before = self.used(peer)?;
        let began = Instant::now();
        let outcome = generate::run(&load).map_err(|error| peer.group.explain(&error))?;
        let wall = began.elapsed();
        let after = self.used(peer)?;
        let [peer_ns, generator_ns, upstream_ns] =
            std::array::from_fn(|who| after.get(who).zip(before.get(who)).map_or(0, |(a, b)| a.saturating_sub(*b)));
        Ok((outcome, load.warm_up + load.calls, Used { peer_ns, generator_ns, upstream_ns, wall }))
    }

    /// CPU time so far of the peer, the generator and the upstream.
    fn used(&self, peer: &Peer) -> io::Result<[u64; 3]> {
        Ok([peer.group.used_ns()?, cpu::used_ns(std::process::id())?, self.upstream.used_ns()?])
    }
}

/// Lets a stopped peer run for as long as `measure` takes.
fn alone<T>(peer: &Peer, measure: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    peer.group.resume()?;
    let end = Instant::now() + RECOVERY;
    loop {
        match right_call(&peer.target) {
            Ok(()) => break,
            Err(error) if Instant::now() > end => return Err(peer.group.explain(&error)),
            Err(_) => std::thread::park_timeout(Duration::from_millis(10)),
        }
    }
    let measured = measure()?;
    peer.group.stop()?;
    Ok(measured)
}

/// The order of a round: each begins with the one after that with which the round before began, so that none always follows the same.
fn turn(round: usize, peers: usize) -> impl Iterator<Item = usize> {
    (0..peers).map(move |place| (place + round) % peers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_every_peer_once_and_another_first() {
        for round in 0..7 {
            let mut order: Vec<usize> = turn(round, 3).collect();
            assert_eq!(order.first(), Some(&(round % 3)));
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2]);
        }
        assert_eq!(turn(5, 0).count(), 0);
    }

    #[test]
    fn slow_peers_get_fewer_calls_and_every_connection_one() {
        for (amount, pace, part, connections, expected) in [
            (Amount::Seconds(2.0), 10_000.0, 1.0, 64, 20_000),
            (Amount::Seconds(2.0), 10_000.0, 0.5, 64, 10_000),
            (Amount::Seconds(2.0), 100.0, 1.0, 512, 512),
            (Amount::Seconds(2.0), 1.0, 1.0, 1, 20),
            (Amount::Calls(30_000), 10_000.0, 1.0, 64, 30_000),
            (Amount::Calls(30_000), 100.0, 1.0, 64, 2_000),
            (Amount::Calls(5), 100.0, 1.0, 1, 20),
        ] {
            assert_eq!(amount.calls(pace, part, connections), expected, "{amount:?} {pace} {part} {connections}");
        }
    }
}
