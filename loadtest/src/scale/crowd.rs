//! Connections that have made one call each and stand: a process of its own, since the tool and the gateway need descriptors as well.
//!
//! It is told on its standard input how many connections shall stand, one number a line, and says the number back when they do. Before it lets
//! connections go, it looks whether all stood undisturbed. When its input ends, it ends.

use std::io::{self, BufRead, BufReader, Lines, StdinLock, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use clap::ValueEnum;

use super::super::process::{Running, TOKEN};
use super::super::upstream::answer::{self, Answers};
use super::super::{small_call, websocket};
use super::client::{self, Client, PlainCall};

/// What stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Kept-alive HTTP connections.
    Http,
    /// WebSocket connections.
    Websocket,
    /// Kept-alive HTTP connections, each from an address of its own.
    Addresses,
}

impl Kind {
    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Addresses that connections come from where addresses do not matter.
const FEW: u64 = 16;

/// Arguments of `loadtest crowd`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The gateway
    #[arg(long)]
    to: SocketAddr,
    #[arg(long, value_enum)]
    kind: Kind,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    let call = PlainCall::new(args.to)?;
    let mut standing: Vec<Standing> = Vec::new();
    let lines: Lines<StdinLock<'_>> = io::stdin().lock().lines();
    for line in lines {
        let wanted: usize = line?.trim().parse().map_err(io::Error::other)?;
        let disturbed = standing.iter().map(Standing::is_quiet).filter(|quiet| !matches!(quiet, Ok(true))).count();
        if disturbed > 0 {
            return Err(io::Error::other(format!(
                "{disturbed} of {} idle connections were closed or sent something",
                standing.len()
            )));
        }
        standing.truncate(wanted);
        for number in standing.len()..wanted {
            let one = Standing::new(args, &call, number as u64);
            standing.push(one.map_err(|error| io::Error::other(format!("connection {number} of {wanted}: {error}")))?);
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{wanted}")?;
        out.flush()?;
    }
    Ok(())
}

enum Standing {
    Http(Client),
    WebSocket(websocket::Client),
}

impl Standing {
    fn new(args: &Args, call: &PlainCall, number: u64) -> io::Result<Self> {
        // The ports of connections that were closed are not free at once: those of one address alone would not last for many trips.
        let addresses = if args.kind == Kind::Addresses { u64::MAX } else { FEW };
        let from = address(number % addresses);
        if args.kind == Kind::Websocket {
            let mut client = websocket::Client::upgrade(client::connect_from(from, args.to)?)?;
            let mut answer = answer::START.to_vec();
            answer.extend_from_slice(number.to_string().as_bytes());
            Answers::default().write_end(&mut answer, small_call::ARGUMENTS.as_bytes());
            client.call_and(number, |message| message == answer)?;
            client.rest();
            return Ok(Self::WebSocket(client));
        }
        let mut client = Client::connect(args.to, Some(from))?;
        let mut request = Vec::new();
        call.write(&mut request, number, client::authorization(TOKEN).as_bytes());
        client.send(&request)?;
        client.receive(|response, body| call.check(number, response, body))?;
        client.rest();
        Ok(Self::Http(client))
    }

    fn is_quiet(&self) -> io::Result<bool> {
        match self {
            Self::Http(client) => client.is_quiet(),
            Self::WebSocket(client) => client.is_quiet(),
        }
    }
}

/// A loopback address beside 127.0.0.1; there are 16 million.
pub(super) fn address(number: u64) -> Ipv4Addr {
    let within = u32::try_from(number % 0xfe_0000).unwrap_or_default();
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + within)
}

/// The process of a crowd, ended with its owner.
pub(super) struct Crowd {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Crowd {
    pub(super) fn start(gateway: &Running, kind: Kind) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["crowd", "--to", &gateway.address.to_string(), "--kind", &kind.name()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("a process without pipes"));
        };
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    /// Waits until so many connections stand.
    pub(super) fn stand(&mut self, wanted: usize) -> io::Result<()> {
        writeln!(self.input, "{wanted}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.trim() == wanted.to_string() {
            return Ok(());
        }
        // It has said why on the terminal.
        Err(io::Error::other(format!("the crowd of {wanted} connections does not stand")))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn addresses_are_distinct_and_on_the_loopback_network() {
        let all: std::collections::HashSet<_> = (0..100_000).map(address).collect();
        assert_eq!(all.len(), 100_000);
        assert!(all.iter().all(|address| address.is_loopback() && address.octets()[1] > 0));
        assert!(address(u64::MAX).is_loopback() && address(0xfd_ffff).is_loopback());
    }
}
