//! Many WebSocket clients that stand and say nothing.

use std::io;
use std::net::SocketAddr;

use super::super::websocket::Client;

/// Descriptors that are not connections: listeners, files, the runtime's own.
const SPARE_DESCRIPTORS: usize = 128;

/// Connections that stand.
pub(crate) struct Crowd(Vec<Client>);

impl Crowd {
    /// Connects them one by one; with `call`, each makes one call before it goes quiet.
    pub(crate) fn gather(to: SocketAddr, count: usize, call: bool) -> io::Result<Self> {
        let mut clients = Vec::with_capacity(count);
        for number in 1..=count {
            let one = || {
                let mut client = Client::connect(to)?;
                if call {
                    client.call(number as u64)?;
                    client.rest();
                }
                Ok(client)
            };
            let client: io::Result<Client> = one();
            clients.push(client.map_err(|error| io::Error::other(format!("connection {number} of {count}: {error}")))?);
        }
        Ok(Self(clients))
    }

    /// That every connection stands, and none was sent anything since.
    pub(crate) fn check(&self) -> io::Result<()> {
        let mut disturbed = 0usize;
        for client in &self.0 {
            disturbed += usize::from(!client.is_quiet()?);
        }
        match disturbed {
            0 => Ok(()),
            n => {
                Err(io::Error::other(format!("{n} of {} idle connections were closed or sent something", self.0.len())))
            }
        }
    }
}

/// Lets this process, and those that it starts, hold as many descriptors as they may. Returns how many.
pub(crate) fn raise_descriptor_limit() -> io::Result<usize> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(limit.maximum.map_or(usize::MAX, |maximum| usize::try_from(maximum).unwrap_or(usize::MAX)))
}

/// How many of `wanted` connections a process can hold that needs `each` descriptors for one.
pub(crate) fn within(limit: usize, wanted: usize, each: usize) -> usize {
    wanted.min(limit.saturating_sub(SPARE_DESCRIPTORS) / each)
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn descriptors_bound_the_connections() {
        assert_eq!(within(20_000, 18_000, 1), 18_000);
        assert_eq!(within(20_000, 18_000, 2), 9_936);
        assert_eq!(within(100, 18_000, 1), 0);
        assert_eq!(within(usize::MAX, 18_000, 2), 18_000);
    }
}
