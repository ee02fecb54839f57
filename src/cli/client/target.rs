//! Where the client goes: a door, and the place where it is.

use std::fmt;

use super::failure::Failure;
use crate::settings::{SocketTransport, UpstreamTarget, upstream_target};

/// The three ways in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Http,
    Ws,
    Tcp,
}

impl Door {
    /// The environment variable of the door's own token, as the gateway has it.
    pub(super) fn token_variable(self) -> &'static str {
        match self {
            Self::Http | Self::Ws => "WS_AUTH_TOKEN",
            Self::Tcp => "TCP_AUTH_TOKEN",
        }
    }

    pub(super) fn encrypted(self) -> &'static str {
        match self {
            Self::Http => "https://",
            Self::Ws => "wss://",
            Self::Tcp => "--tls",
        }
    }

    pub(super) fn plain(self) -> &'static str {
        match self {
            Self::Http => "say http://",
            Self::Ws => "say ws://",
            Self::Tcp => "leave --tls out",
        }
    }

    pub(super) fn plain_or_tls(self) -> &'static str {
        match self {
            Self::Http => "does the port speak what the URL says, http or https?",
            Self::Ws => "does the port speak what the URL says, ws or wss?",
            Self::Tcp => "does the port speak lines, and TLS or not as --tls says?",
        }
    }
}

/// A door's address, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    pub(super) door: Door,
    pub(super) tls: bool,
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Empty for lines.
    pub(super) path_and_query: String,
    /// What goes into `Host`.
    pub(super) authority: String,
}

impl Target {
    /// The door at `url`. User information is refused: credentials do not belong on a command line.
    pub(super) fn of_url(door: Door, url: &str) -> Result<Self, Failure> {
        let usage = |why: &str| Failure::Usage(format!("the address {why}; for example {}", example(door)));
        match upstream_target(url).map_err(usage)? {
            UpstreamTarget::Http(place) if door == Door::Http => Ok(Self {
                door,
                tls: place.tls,
                host: place.host,
                port: place.port,
                path_and_query: place.path_and_query,
                authority: place.authority,
            }),
            UpstreamTarget::Socket(place) if place.transport == transport(door) => Ok(Self {
                door,
                tls: place.tls,
                host: place.host,
                port: place.port,
                path_and_query: place.path_and_query,
                authority: place.authority,
            }),
            _ => Err(usage("has the scheme of another door")),
        }
    }

    /// The TCP door at `address`.
    pub(super) fn of_address(address: &str, tls: bool) -> Result<Self, Failure> {
        Self::of_url(Door::Tcp, &format!("{}://{address}", if tls { "tls" } else { "tcp" }))
    }
}

fn transport(door: Door) -> SocketTransport {
    if door == Door::Ws { SocketTransport::WebSocket } else { SocketTransport::Lines }
}

fn example(door: Door) -> &'static str {
    match door {
        Door::Http => "http://127.0.0.1:3002/mcp",
        Door::Ws => "ws://127.0.0.1:3002/ws",
        Door::Tcp => "127.0.0.1:9500",
    }
}

impl fmt::Display for Target {
    /// Without the query, in which somebody may have put a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.door, self.tls) {
            (Door::Http, false) => "http",
            (Door::Http, true) => "https",
            (Door::Ws, false) => "ws",
            (Door::Ws, true) => "wss",
            (Door::Tcp, false) => "tcp",
            (Door::Tcp, true) => "tls",
        };
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let cases = [
            (Door::Http, "http://127.0.0.1:3002/mcp?token=x", Some("http://127.0.0.1:3002/mcp")),
            (Door::Http, "https://Gate.example/mcp", Some("https://gate.example/mcp")),
            (Door::Ws, "wss://[::1]:3002/ws", Some("wss://[::1]:3002/ws")),
            (Door::Tcp, "tls://gate.example:9500", Some("tls://gate.example:9500")),
            (Door::Ws, "http://127.0.0.1:3002/mcp", None),
            (Door::Http, "ws://127.0.0.1:3002/ws", None),
            (Door::Http, "http://token@127.0.0.1:3002/mcp", None),
            (Door::Http, "127.0.0.1:3002", None),
        ];
        for (door, url, want) in cases {
            let shown = Target::of_url(door, url).ok().map(|target| target.to_string());
            assert_eq!(shown.as_deref(), want, "{url}");
        }
        assert_eq!(Target::of_address("127.0.0.1:9500", false).unwrap().to_string(), "tcp://127.0.0.1:9500");
        assert!(Target::of_address("127.0.0.1", false).is_err(), "a port is needed");
    }
}
