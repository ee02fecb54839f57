//! The generator: makes calls on a schedule over kept-alive connections, and looks at every answer.
//!
//! It promises that every recorded call was answered with the very bytes that the sample upstream answers it with; the first other
//! answer ends the run with an error that names the call. What a call costs the generator is little beside its two socket operations: requests are
//! bytes made before the run, in which the id is written over, and answers are compared with bytes made before the run.

mod connection;
mod engine;
mod http;
mod mix;
mod progress;
mod schedule;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;

pub(crate) use mix::{Call, Mix};
pub(crate) use schedule::{Arrivals, Schedule};

/// What calls go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Door {
    /// One POST a call.
    Http,
    /// One text frame a message.
    WebSocket,
    /// One line a message.
    Tcp,
    /// The 2024-11-05 transport: calls are POSTed, answers come as events of one stream.
    Sse,
}

/// How the target is spoken to behind TLS.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// The name that its certificate must bear.
    pub(crate) name: String,
    /// The certificates that are trusted, PEM.
    pub(crate) ca: PathBuf,
}

/// What is driven, and how. `Load::new` has what most runs share; name the fields that differ.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) door: Door,
    pub(crate) target: SocketAddr,
    pub(crate) tls: Option<Tls>,
    /// Of HTTP requests; of the other doors, where they are opened.
    pub(crate) path: String,
    /// Bearer token of the door; empty: none is sent.
    pub(crate) token: String,
    /// MCP session that HTTP requests name; empty: none.
    pub(crate) session: String,
    pub(crate) connections: usize,
    /// Calls in flight on a connection at most.
    pub(crate) pipeline: usize,
    pub(crate) schedule: Schedule,
    pub(crate) mix: Rc<Mix>,
    /// Calls that are made and checked and not recorded, first.
    pub(crate) warm_up: u64,
    /// Calls that are recorded.
    pub(crate) calls: u64,
    /// Without an answer for this long while calls are in flight, a run has failed.
    pub(crate) stall: Duration,
}

impl Load {
    /// 100,000 calls of 291 bytes over one connection, one at a time, the first 1,000 unrecorded.
    pub(crate) fn new(door: Door, target: SocketAddr) -> Self {
        Self {
            door,
            target,
            tls: None,
            path: "/mcp".to_owned(),
            token: String::new(),
            session: String::new(),
            connections: 1,
            pipeline: 1,
            schedule: Schedule::Closed,
            mix: Rc::new(Mix::fixed(291)),
            warm_up: 1_000,
            calls: 100_000,
            stall: Duration::from_secs(10),
        }
    }
}

/// What a run has shown.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Recorded calls, all answered as they should be.
    pub(crate) calls: u64,
    /// From the begin of the first recorded call to the last answer.
    pub(crate) took: Duration,
    /// Nanoseconds; of an open schedule counted from when a call was due.
    pub(crate) latency: Histogram<u64>,
    /// Calls of an open schedule that were due while no connection was free.
    pub(crate) waited: u64,
    /// The latest that a call of an open schedule was begun although a connection was free: the generator itself was late.
    pub(crate) generator_late: Duration,
}

impl Outcome {
    pub(crate) fn calls_per_s(&self) -> f64 {
        self.calls as f64 / self.took.as_secs_f64()
    }

    /// The latency that so many calls (0.5, 0.99) did not exceed, µs.
    pub(crate) fn latency_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Connects, makes all calls and waits for all answers.
///
/// # Errors
/// Connections that cannot be opened, an answer that is not the one that its call has, a connection that ends, a stall; with the call's name.
pub(crate) fn run(load: &Load) -> io::Result<Outcome> {
    engine::run(load)
}
