//! Which of many networks an address is in, and until when that counts: CIDR blocks of both families, some within others.
//!
//! Two networks are either apart or one lies in the other. So they can be cut, once, into stretches of addresses that do not overlap, each with
//! the latest end of all networks that cover it; a look-up is then one binary search over the stretches of its family, whatever
//! the networks' lengths and however they are nested. Nothing is changed in place: another list is another [`Networks`].
//!
//! An IPv4 address in IPv6's clothes (`::ffff:192.0.2.1`) is the IPv4 address, as an address and as a network ([`canonical`]); `::/0` covers no
//! IPv4 address.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

/// An end that never comes.
pub const FOR_EVER: u64 = u64::MAX;

/// Networks with ends, ready to be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Box<[Stretch]>,
    v6: Box<[Stretch]>,
}

/// Addresses from `start` to the next stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    start: u128,
    /// 0: nothing covers them.
    until_ms: u64,
}

/// A network's first and last address, and its end.
type Span = (u128, u128, u64);

impl Networks {
    /// Of networks with their ends, in no order, milliseconds since the Unix epoch.
    #[must_use]
    pub fn new(networks: impl IntoIterator<Item = (IpNet, u64)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (network, until_ms) in networks {
            let network = canonical(network);
            let span = (number(network.network()), number(network.broadcast()), until_ms);
            if network.addr().is_ipv4() { v4.push(span) } else { v6.push(span) }
        }
        Self { v4: stretches(v4), v6: stretches(v6) }
    }

    /// Of networks without an end.
    #[must_use]
    pub fn of(networks: &[IpNet]) -> Self {
        Self::new(networks.iter().map(|network| (*network, FOR_EVER)))
    }

    /// The latest end of the networks that the address is in; 0 where it is in none.
    #[must_use]
    pub fn until_ms(&self, ip: IpAddr) -> u64 {
        let ip = ip.to_canonical();
        let stretches = if ip.is_ipv4() { &self.v4 } else { &self.v6 };
        let wanted = number(ip);
        let behind = stretches.partition_point(|stretch| stretch.start <= wanted);
        behind.checked_sub(1).and_then(|at| stretches.get(at)).map_or(0, |stretch| stretch.until_ms)
    }

    /// Whether the address is in any of them, ended or not.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.until_ms(ip) > 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// The network without its host bits; what lies within `::ffff:0:0/96` as the IPv4 network that it is.
#[must_use]
pub fn canonical(network: IpNet) -> IpNet {
    let network = network.trunc();
    let IpNet::V6(v6) = network else { return network };
    let mapped = v6.addr().to_ipv4_mapped().and_then(|v4: Ipv4Addr| Some((v4, v6.prefix_len().checked_sub(96)?)));
    mapped.and_then(|(v4, prefix)| Ipv4Net::new(v4, prefix).ok()).map_or(network, IpNet::V4)
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Cuts nested spans into stretches. What is open at an address stands on a stack, the widest below.
fn stretches(mut spans: Vec<Span>) -> Box<[Stretch]> {
    spans.sort_unstable_by_key(|(first, last, _)| (*first, std::cmp::Reverse(*last)));
    let mut cut = Cut::default();
    for (first, last, until_ms) in spans {
        cut.close_before(first);
        let until_ms = until_ms.max(cut.covering_ms());
        cut.begin(first, until_ms);
        cut.open.push((last, until_ms));
    }
    cut.close_before(u128::MAX);
    // What reaches to the last address there is has no end that could be cut.
    cut.made.into_boxed_slice()
}

#[derive(Default)]
struct Cut {
    made: Vec<Stretch>,
    /// Last address and end of the spans that are open, the widest first.
    open: Vec<(u128, u64)>,
}

impl Cut {
    fn covering_ms(&self) -> u64 {
        self.open.last().map_or(0, |(_, until_ms)| *until_ms)
    }

    /// Closes what ends before `start`.
    fn close_before(&mut self, start: u128) {
        while let Some((last, _)) = self.open.pop_if(|(last, _)| *last < start) {
            let until_ms = self.covering_ms();
            self.begin(last.saturating_add(1), until_ms);
        }
    }

    /// From `start` on this end counts, in place of what was said of `start` before.
    fn begin(&mut self, start: u128, until_ms: u64) {
        self.made.pop_if(|stretch| stretch.start == start);
        if self.made.last().map_or(0, |stretch| stretch.until_ms) != until_ms {
            self.made.push(Stretch { start, until_ms });
        }
    }
}

#[cfg(test)]
#[path = "networks_tests.rs"]
mod tests;
