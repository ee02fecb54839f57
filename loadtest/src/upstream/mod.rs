//! The sample upstream: an MCP server behind HTTP that answers every request at once.
//!
//! It is as cheap as its two socket operations allow: requests are looked at where they arrived, an unchanged head is compared and not parsed,
//! answers are put together from bytes. A call is answered with a function of its arguments (`answer`).

pub(crate) mod answer;
mod message;
mod serve;

use std::io;
use std::net::{SocketAddr, TcpListener};

/// Arguments of `loadtest upstream`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Port on the loopback address
    #[arg(long)]
    port: u16,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    serve::serve(&TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], args.port)))?)
}

/// Starts an upstream on a port that is free, as a thread that lives as long as the process. Returns where it listens.
#[cfg(test)]
pub(crate) fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::Builder::new().name("upstream".to_owned()).spawn(move || serve::serve(&listener))?;
    Ok(address)
}
