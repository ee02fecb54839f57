//! The sample upstream: an MCP server that answers every call, at once or after a delay, with a function of its arguments (`answer`).
//!
//! It speaks HTTP, lines and WebSocket on one port: the first bytes of a connection tell. It is as cheap as its two socket operations allow:
//! requests are looked at where they arrived, an unchanged head is compared and not parsed, answers are put together from bytes.

pub(crate) mod answer;
mod client;
mod delay;
pub(crate) mod message;
mod serve;

use std::io;
use std::net::{SocketAddr, TcpListener};

use answer::Answers;

/// Arguments of `loadtest upstream`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Port on the loopback address
    #[arg(long)]
    port: u16,
    #[command(flatten)]
    behaviour: Behaviour,
}

/// What the upstream does with a call.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Behaviour {
    #[command(flatten)]
    pub(crate) answers: Answers,
    /// Time that passes before each answer, µs
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    pub(crate) delay_us: u64,
    /// The delay is random (exponential) with --delay-us as its mean, the same in every run
    #[arg(long)]
    pub(crate) delay_exponential: bool,
    /// How answers over HTTP are framed
    #[arg(long, value_name = "FRAMING", default_value = "length")]
    pub(crate) framing: Framing,
    /// HTTP: opens a session at each `initialize`, with an id of its own
    #[arg(long)]
    pub(crate) sessions: bool,
}

/// How an answer over HTTP is framed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Framing {
    /// JSON with Content-Length.
    #[default]
    Length,
    /// JSON in chunks.
    Chunked,
    /// A stream of one event, in chunks.
    Events,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], args.port)))?;
    serve::serve(&listener, &args.behaviour)
}

/// Starts an upstream on a port that is free, as a thread that lives as long as the process. Returns where it listens.
#[cfg(test)]
pub(crate) fn start(behaviour: Behaviour) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::Builder::new().name("upstream".to_owned()).spawn(move || serve::serve(&listener, &behaviour))?;
    Ok(address)
}
