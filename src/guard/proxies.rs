//! Whose word on a client's address is believed (`TRUSTED_PROXIES`).
//!
//! Every proxy appends the address it was called from to `X-Forwarded-For`, and a client may have written whatever it likes
//! before. So the list is walked from the right, the nearest hop first, for as long as the hop that wrote an entry is a
//! trusted proxy: the first address that is none is the client's. An entry that cannot be read ends the walk, and the last
//! trusted hop stands for whoever is behind it. From anyone else the field is ignored.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

/// Entries of `X-Forwarded-For` that are looked at: more hops than any deployment has.
const MAX_HOPS: usize = 32;

/// The proxies that are believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
}

impl TrustedProxies {
    /// As the setting lists them.
    #[must_use]
    pub fn new(networks: &[IpNet]) -> Self {
        Self { networks: networks.to_vec() }
    }

    /// Whether what this address says of its clients is believed.
    #[must_use]
    pub fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.networks.iter().any(|network| network.contains(&ip))
    }

    /// The client behind `peer`, as its `X-Forwarded-For` lines tell, given from the last to the first.
    pub fn client_ip<'v>(&self, peer: IpAddr, lines_from_last: impl IntoIterator<Item = &'v [u8]>) -> IpAddr {
        let mut client = peer.to_canonical();
        let entries = lines_from_last.into_iter().flat_map(|line| line.rsplit(|byte| *byte == b','));
        for entry in entries.take(MAX_HOPS) {
            if !self.trusts(client) {
                break;
            }
            match hop(entry.trim_ascii()) {
                Some(ip) => client = ip,
                None => break,
            }
        }
        client
    }
}

/// An address, with a port or without: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn hop(entry: &[u8]) -> Option<IpAddr> {
    // The longest of these is 47 bytes.
    let text = std::str::from_utf8(entry).ok().filter(|text| text.len() <= 64)?;
    let ip = match text.parse::<IpAddr>() {
        Ok(ip) => ip,
        Err(_) => match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(bare) => bare.parse::<Ipv6Addr>().ok()?.into(),
            None => {
                // A scope means something on the proxy's machine alone.
                let with_port = text.parse::<SocketAddr>().ok().filter(|_| !text.contains('%'))?;
                with_port.ip()
            }
        },
    };
    Some(ip.to_canonical())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn proxies() -> TrustedProxies {
        TrustedProxies::new(&["10.0.0.0/8".parse().unwrap(), "2001:db8:ffff::/48".parse().unwrap()])
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_is_the_client() {
        for (peer, lines, client) in [
            // Nobody says anything.
            ("10.0.0.1", &[][..], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            // One hop, two hops, all hops.
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, 10.0.0.2,10.0.0.3 ,\t10.0.0.4"], "203.0.113.9"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("2001:db8:ffff::1", &["203.0.113.9, 2001:db8:ffff:1::2"], "203.0.113.9"),
            // What stands before the client is the client's own invention.
            ("10.0.0.1", &["127.0.0.1, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["10.0.0.7, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            ("10.0.0.1", &["garbage, 203.0.113.9"], "203.0.113.9"),
            // Several lines are one list.
            ("10.0.0.1", &["127.0.0.1", "203.0.113.9", "10.0.0.2"], "203.0.113.9"),
            // Nobody who is no proxy is believed.
            ("203.0.113.9", &["127.0.0.1"], "203.0.113.9"),
            ("203.0.113.9", &["127.0.0.1, 10.0.0.2"], "203.0.113.9"),
            ("2001:db8::1", &["127.0.0.1"], "2001:db8::1"),
            // An entry that cannot be read: the last trusted hop.
            ("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9,"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["203.0.113.9, _hidden, 10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["203.0.113.9", ""], "10.0.0.1"),
            // Forms.
            ("10.0.0.1", &["203.0.113.9:54321"], "203.0.113.9"),
            ("10.0.0.1", &["[2001:db8::9]:54321, 10.0.0.2:1"], "2001:db8::9"),
            ("10.0.0.1", &["[2001:db8::9]"], "2001:db8::9"),
            ("10.0.0.1", &["2001:DB8::9"], "2001:db8::9"),
            ("10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["[::ffff:203.0.113.9]:1"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, ::ffff:10.0.0.2"], "203.0.113.9"),
            ("::ffff:10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("::ffff:203.0.113.9", &["127.0.0.1"], "203.0.113.9"),
        ] {
            let (peer, client): (IpAddr, IpAddr) = (peer.parse().unwrap(), client.parse().unwrap());
            let from_last = lines.iter().rev().map(|line| line.as_bytes());
            assert_eq!(proxies().client_ip(peer, from_last), client, "{peer} {lines:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_none() {
        for entry in [
            "",
            "unknown",
            "203.0.113",
            "203.0.113.9:",
            "203.0.113.9:65536",
            "203.0.113.09",
            "[203.0.113.9]",
            "[2001:db8::1",
            "2001:db8::1]",
            "[2001:db8::1]x",
            "[2001:db8::1]:",
            "fe80::1%eth0",
            "[fe80::1%1]:80",
            "\"203.0.113.9\"",
            "0x7f.1",
            "203.0.113.9 10.0.0.1",
            "for=203.0.113.9",
        ] {
            assert_eq!(hop(entry.as_bytes()), None, "{entry}");
        }
        assert_eq!(hop(b"203.0.113.9\xff"), None);
        assert_eq!(hop(format!("{}::1", "0".repeat(100)).as_bytes()), None);
    }

    #[test]
    fn no_more_than_so_many_hops_are_walked() {
        let far = format!("203.0.113.9{}", ", 10.0.0.2".repeat(MAX_HOPS));
        let near = format!("203.0.113.9{}", ", 10.0.0.2".repeat(MAX_HOPS - 1));
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(proxies().client_ip(peer, [far.as_bytes()]).to_string(), "10.0.0.2");
        assert_eq!(proxies().client_ip(peer, [near.as_bytes()]).to_string(), "203.0.113.9");
    }

    proptest! {
        #[test]
        fn whatever_a_client_writes_it_is_what_its_proxy_saw(lie in "[ -~]{0,80}", client in any::<IpAddr>()) {
            prop_assume!(!proxies().trusts(client));
            let peer: IpAddr = "10.0.0.1".parse().unwrap();
            let line = format!("{lie}, {client}");
            prop_assert_eq!(proxies().client_ip(peer, [line.as_bytes()]), client.to_canonical());
            prop_assert_eq!(proxies().client_ip(peer, [client.to_string().as_bytes(), lie.as_bytes()].into_iter().take(1)), client.to_canonical());
            prop_assert_eq!(proxies().client_ip(client, [lie.as_bytes()]), client.to_canonical());
        }
    }
}
