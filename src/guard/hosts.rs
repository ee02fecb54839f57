//! Which `Host` and which `Origin` may call.
//!
//! A page on the web can make a browser send requests to a gateway on the same machine or network, and by DNS rebinding even read the answers.
//! The browser tells on it: `Host` holds the name that the page used, `Origin` where the page came from. So `Host` must be a
//! name that is served, and `Origin`, where there is one, must be allowed (MCP, "Streamable HTTP", security warning).

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::guard::Denial;
use crate::settings::Origins;

/// The hosts that are served and the origins that may call.
pub struct Hosts {
    /// Lower case, without port.
    any_port: BTreeSet<String>,
    /// Lower case, with port.
    with_port: BTreeSet<String>,
    origins: Origins,
}

impl Hosts {
    /// `allowed` as `ALLOWED_HOSTS` has it; empty means localhost and the addresses in `bound`.
    #[must_use]
    pub fn new(allowed: &[String], bound: &[IpAddr], origins: Origins) -> Self {
        let mut any_port = BTreeSet::new();
        let mut with_port = BTreeSet::new();
        for host in allowed {
            match split_port(host) {
                (_, Some(_)) => with_port.insert(host.to_ascii_lowercase()),
                (name, None) => any_port.insert(name.to_ascii_lowercase()),
            };
        }
        if allowed.is_empty() {
            any_port.extend(["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()]);
            any_port.extend(bound.iter().map(|ip| match ip {
                IpAddr::V4(v4) => v4.to_string(),
                IpAddr::V6(v6) => format!("[{v6}]"),
            }));
        }
        Self { any_port, with_port, origins }
    }

    /// Checks both headers; without `Origin` no browser is asking.
    ///
    /// # Errors
    /// [`Denial::HostNotServed`] or [`Denial::OriginNotAllowed`].
    pub fn check(&self, host: Option<&[u8]>, origin: Option<&[u8]>) -> Result<(), Denial> {
        // An HTTP/1.0 request may come without Host; no browser sends one.
        if let Some(host) = host
            && !self.serves(host)
        {
            return Err(Denial::HostNotServed);
        }
        match origin {
            Some(origin) if !self.allows(origin, host) => Err(Denial::OriginNotAllowed),
            _ => Ok(()),
        }
    }

    fn serves(&self, host: &[u8]) -> bool {
        let Ok(host) = std::str::from_utf8(host) else { return false };
        let lower;
        // Clients send lower case, so the copy is for the odd one.
        let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            &lower
        } else {
            host
        };
        self.any_port.contains(split_port(host).0) || self.with_port.contains(host)
    }

    fn allows(&self, origin: &[u8], host: Option<&[u8]>) -> bool {
        let Ok(origin) = std::str::from_utf8(origin) else { return false };
        let origin = origin.to_ascii_lowercase();
        let Some((scheme, authority)) = origin.split_once("://") else {
            return false; // "null" and its like: sandboxed pages, files
        };
        if !matches!(scheme, "http" | "https") || authority.is_empty() || authority.contains('/') {
            return false;
        }
        if self.origins.any || self.origins.exact.contains(origin.as_str()) {
            return true;
        }
        // The gateway's own origin: a page that it serves itself.
        if host.is_some_and(|host| host.eq_ignore_ascii_case(authority.as_bytes())) {
            return true;
        }
        self.origins.any_localhost && is_localhost(split_port(authority).0)
    }
}

fn is_localhost(name: &str) -> bool {
    name == "localhost" || name == "[::1]" || name.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// `name:port` taken apart; an IPv6 address keeps its brackets.
fn split_port(host: &str) -> (&str, Option<&str>) {
    let after_brackets = host.rfind(']').map_or(0, |at| at + 1);
    match host.get(after_brackets..).and_then(|rest| rest.rfind(':')) {
        Some(colon) => {
            let (name, port) = host.split_at(after_brackets + colon);
            (name, port.strip_prefix(':'))
        }
        None => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hosts: &Hosts, host: &str, origin: Option<&str>) -> Result<(), Denial> {
        hosts.check(Some(host.as_bytes()), origin.map(str::as_bytes))
    }

    #[test]
    fn by_default_only_the_bound_addresses_and_localhost_are_served() {
        let hosts = Hosts::new(&[], &["192.0.2.7".parse().unwrap_or(IpAddr::from([0, 0, 0, 0]))], Origins::default());
        for (host, served) in [
            ("localhost", true),
            ("LOCALHOST:3002", true),
            ("127.0.0.1:3002", true),
            ("[::1]:3002", true),
            ("[::1]", true),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("evil.example.com", false),
            ("localhost.evil.example.com", false),
            ("127.0.0.1.evil.example.com:3002", false),
            ("", false),
        ] {
            assert_eq!(check(&hosts, host, None).is_ok(), served, "{host}");
        }
    }

    #[test]
    fn a_port_in_the_list_is_exact_and_none_means_any() {
        let hosts = Hosts::new(&["mcp.example.com".into(), "b.example.com:8443".into()], &[], Origins::default());
        for (host, served) in [
            ("mcp.example.com", true),
            ("mcp.example.com:99", true),
            ("b.example.com:8443", true),
            ("b.example.com", false),
            ("b.example.com:8444", false),
            ("localhost", false),
        ] {
            assert_eq!(check(&hosts, host, None).is_ok(), served, "{host}");
        }
    }

    #[test]
    fn origins() {
        let strict = Hosts::new(
            &[],
            &[],
            Origins { exact: BTreeSet::from(["https://app.example.com".to_owned()]), ..Origins::default() },
        );
        let relaxed = Hosts::new(&[], &[], Origins { any_localhost: true, ..Origins::default() });
        for (origin, in_strict, in_relaxed) in [
            ("https://app.example.com", true, false),
            ("HTTPS://APP.EXAMPLE.COM", true, false),
            ("http://app.example.com", false, false),
            ("https://app.example.com.evil.example", false, false),
            ("http://localhost:5173", false, true),
            ("http://127.0.0.1:3002", true, true), // the gateway itself
            ("http://127.9.9.9", false, true),
            ("http://localhost.evil.example", false, false),
            ("null", false, false),
            ("file://", false, false),
            ("http://", false, false),
            ("", false, false),
        ] {
            assert_eq!(check(&strict, "127.0.0.1:3002", Some(origin)).is_ok(), in_strict, "strict {origin}");
            assert_eq!(check(&relaxed, "127.0.0.1:3002", Some(origin)).is_ok(), in_relaxed, "relaxed {origin}");
        }
    }
}
