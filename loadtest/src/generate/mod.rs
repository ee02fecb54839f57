//! The generator: makes calls on a schedule over kept-alive connections, and looks at every answer.
//!
//! It promises that every recorded call was answered with the very bytes that the sample upstream answers it with; the first other
//! answer ends the run with an error that names the call. What a call costs the generator is little beside its two socket operations: requests are
//! bytes made before the run, in which the id is written over, and answers are compared with bytes made before the run.

mod connection;
mod engine;
mod events;
mod http;
mod mix;
mod opening;
mod outcome;
mod prepared;
mod progress;
mod reader;
mod request;
mod schedule;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::small_call::Dialect;

pub(crate) use mix::{Call, Mix};
pub(crate) use outcome::{Outcome, QUANTILES};
pub(crate) use schedule::{Arrivals, Random, Schedule};

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

impl Door {
    /// Where it is, if not told otherwise.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Http => "/mcp",
            Self::WebSocket => "/ws",
            Self::Tcp => "",
            Self::Sse => "/sse",
        }
    }
}

/// How the target is spoken to behind TLS.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// The name that its certificate must bear.
    pub(crate) name: String,
    /// The certificates that are trusted, PEM. That of the target itself will do if it signed itself.
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
    /// Which era calls are of. Of the session era, connections of all doors but HTTP open a session.
    pub(crate) dialect: Dialect,
    /// HTTP: each connection opens a session first, and names it in its calls.
    pub(crate) session: bool,
    /// HTTP: a session that is open already, which all calls name; empty: none.
    pub(crate) session_id: String,
    pub(crate) connections: usize,
    /// Calls in flight on a connection at most.
    pub(crate) pipeline: usize,
    pub(crate) schedule: Schedule,
    pub(crate) mix: Rc<Mix>,
    /// An error that names its call is an answer too, and is counted. Otherwise only those calls may fail that the upstream was asked to let fail.
    pub(crate) errors_allowed: bool,
    /// Calls that are made and checked and not recorded, first.
    pub(crate) warm_up: u64,
    /// Calls that are recorded.
    pub(crate) calls: u64,
    /// Without an answer for this long while calls are in flight, a run has failed.
    pub(crate) stall: Duration,
    /// Processes whose CPU time over the recorded calls is taken.
    pub(crate) measured: Vec<u32>,
}

impl Load {
    /// 100,000 calls of 291 bytes over one connection, one at a time, 1,000 unrecorded ones before them.
    pub(crate) fn new(door: Door, target: SocketAddr) -> Self {
        Self {
            door,
            target,
            tls: None,
            path: door.path().to_owned(),
            token: String::new(),
            dialect: Dialect::Session,
            session: false,
            session_id: String::new(),
            connections: 1,
            pipeline: 1,
            schedule: Schedule::Closed,
            mix: Rc::new(Mix::fixed(291)),
            errors_allowed: false,
            warm_up: 1_000,
            calls: 100_000,
            stall: Duration::from_secs(10),
            measured: Vec::new(),
        }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) elapsed: Duration,
    /// Of all calls, those of the warm-up among them.
    pub(crate) answered: u64,
    pub(crate) errors: u64,
    pub(crate) total: u64,
    /// Calls that are due and have no connection.
    pub(crate) waiting: usize,
}

/// Connects, makes all calls and waits for all answers.
///
/// # Errors
/// Connections that cannot be opened, an answer that is not the one that its call has, a connection that ends, a stall; with the call's name.
pub(crate) fn run(load: &Load) -> io::Result<Outcome> {
    engine::run(load, None)
}

/// The same; `watch` is called once a second.
pub(crate) fn run_watched(load: &Load, watch: &mut dyn FnMut(Seen)) -> io::Result<Outcome> {
    engine::run(load, Some(watch))
}
