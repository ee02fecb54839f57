//! URLs and origins, as strictly as settings need them: known schemes, no user information, no fragment, ASCII.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::policy::{HttpTarget, SocketTarget, SocketTransport, UpstreamTarget};

/// Shared connections to one upstream, where nothing else is said.
const MAX_INSTANCES: u8 = 4;

/// Takes an `http://` or `https://` URL apart.
///
/// # Errors
/// Says what is wrong with it, without repeating any part of it.
pub(super) fn http_target(url: &str) -> Result<HttpTarget, &'static str> {
    let (scheme, rest) = scheme(url)?;
    let tls = match scheme.as_str() {
        "http" => false,
        "https" => true,
        _ => return Err("neither http:// nor https://"),
    };
    let Place { host, port, path_and_query, authority } = Place::of(rest, Some(if tls { 443 } else { 80 }))?;
    Ok(HttpTarget { tls, host, port, path_and_query, authority })
}

/// Takes the URL of an upstream apart: `http(s)://`, `ws(s)://`, or `tcp://` and `tls://` for lines.
///
/// # Errors
/// Says what is wrong with it, without repeating any part of it.
pub(crate) fn upstream_target(url: &str) -> Result<UpstreamTarget, &'static str> {
    let (scheme, rest) = scheme(url)?;
    match scheme.as_str() {
        "http" | "https" => http_target(url).map(UpstreamTarget::Http),
        "tcp" => lines_target(rest, false),
        "tls" => lines_target(rest, true),
        "ws" => websocket_target(rest, false),
        "wss" => websocket_target(rest, true),
        "tcps" | "ssl" => Err("lines over TLS are tls:// here"),
        _ => Err("has a scheme that is not known"),
    }
}

fn lines_target(rest: &str, tls: bool) -> Result<UpstreamTarget, &'static str> {
    if rest.contains(['/', '?']) {
        return Err("has a path or a query, for which lines have no place");
    }
    let Place { host, port, authority, .. } = Place::of(rest, None)?;
    Ok(UpstreamTarget::Socket(SocketTarget {
        transport: SocketTransport::Lines,
        tls,
        host,
        port,
        path_and_query: String::new(),
        authority,
        max_instances: MAX_INSTANCES,
    }))
}

fn websocket_target(rest: &str, tls: bool) -> Result<UpstreamTarget, &'static str> {
    let Place { host, port, path_and_query, authority } = Place::of(rest, Some(if tls { 443 } else { 80 }))?;
    Ok(UpstreamTarget::Socket(SocketTarget {
        transport: SocketTransport::WebSocket,
        tls,
        host,
        port,
        path_and_query,
        authority,
        max_instances: MAX_INSTANCES,
    }))
}

/// The scheme in lower case, and what comes after `://`.
fn scheme(url: &str) -> Result<(String, &str), &'static str> {
    let (scheme, rest) = url.split_once("://").ok_or("not a URL with a scheme")?;
    Ok((scheme.to_ascii_lowercase(), rest))
}

/// What comes after a scheme, taken apart.
struct Place {
    host: String,
    port: u16,
    path_and_query: String,
    authority: String,
}

impl Place {
    /// `scheme_port` is that of a URL without one; `None`: the URL must have one.
    fn of(rest: &str, scheme_port: Option<u16>) -> Result<Self, &'static str> {
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("contains a blank, a control character or a character outside ASCII");
        }
        if rest.contains('#') {
            return Err("contains a fragment (#)");
        }
        let cut = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(cut);
        if authority.contains('@') {
            return Err("contains user information (before @); put credentials into a header");
        }
        let (host, port_text) = split_host(authority)?;
        let port = match port_text {
            None => scheme_port.ok_or("has no port")?,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => match digits.parse::<u16>() {
                Ok(port) if port > 0 => port,
                _ => return Err("its port is not from 1 to 65535"),
            },
            Some(_) => return Err("its port is not a number"),
        };
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let authority = if Some(port) == scheme_port { bracketed } else { format!("{bracketed}:{port}") };
        let path_and_query = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { host, port, path_and_query, authority })
    }
}

/// Host (lower case, no brackets) and port text of an authority without user information.
fn split_host(authority: &str) -> Result<(String, Option<&str>), &'static str> {
    if let Some(rest) = authority.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else {
            return Err("its IPv6 address has no closing bracket");
        };
        let Ok(address) = address.parse::<Ipv6Addr>() else {
            return Err("its IPv6 address is not one");
        };
        return match after.strip_prefix(':') {
            Some(port) => Ok((address.to_string(), Some(port))),
            None if after.is_empty() => Ok((address.to_string(), None)),
            None => Err("has something other than a port after its IPv6 address"),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if is_host_name(host) {
        Ok((host.to_ascii_lowercase(), port))
    } else {
        Err("its host is not a host name or address")
    }
}

/// Whether `host` is a DNS name or an IPv4 address.
pub(super) fn is_host_name(host: &str) -> bool {
    if host.is_empty() || host.len() > 253 {
        return false;
    }
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or("");
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    host.trim_end_matches('.').split('.').all(|label| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    })
}

/// `scheme://host[:port]` in the form in which browsers send it: lower case, no default port.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn origin(text: &str) -> Result<String, &'static str> {
    let target = http_target(text)?;
    if target.path_and_query != "/" || text.ends_with('/') || text.contains('?') {
        return Err("an origin has no path; leave out everything after the host and port");
    }
    let scheme = if target.tls { "https" } else { "http" };
    Ok(format!("{scheme}://{}", target.authority))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn takes_urls_apart() {
        for (url, tls, host, port, path, authority) in [
            ("http://127.0.0.1:3001/mcp", false, "127.0.0.1", 3001, "/mcp", "127.0.0.1:3001"),
            ("https://Tools.Example.com/mcp?v=1", true, "tools.example.com", 443, "/mcp?v=1", "tools.example.com"),
            ("HTTP://host", false, "host", 80, "/", "host"),
            ("http://host?x", false, "host", 80, "/?x", "host"),
            ("http://host:80/", false, "host", 80, "/", "host"),
            ("https://[::1]:8443/a", true, "::1", 8443, "/a", "[::1]:8443"),
            ("https://[2001:DB8::1]", true, "2001:db8::1", 443, "/", "[2001:db8::1]"),
        ] {
            let target = http_target(url).unwrap();
            assert_eq!((target.tls, target.host.as_str(), target.port), (tls, host, port), "{url}");
            assert_eq!((target.path_and_query.as_str(), target.authority.as_str()), (path, authority), "{url}");
        }
    }

    #[test]
    fn refuses_what_is_no_plain_url() {
        for url in [
            "",
            "host",
            "ftp://host",
            "http://",
            "http:///path",
            "http://user:pw@host/",
            "http://host/#top",
            "http://host:0/",
            "http://host:65536/",
            "http://host:+80/",
            "http://host:x/",
            "http://a b/",
            "http://host/a b",
            "http://[::1",
            "http://[::1]x",
            "http://[nope]/",
            "http://1.2.3/",
            "http://256.1.1.1/",
            "http://-a.com/",
            "http://a..b/",
            "http://h\u{f6}st/",
            "http://host/\r\nX: y",
        ] {
            assert!(http_target(url).is_err(), "{url:?}");
        }
    }

    #[test]
    fn takes_the_urls_of_sockets_apart() {
        use SocketTransport::{Lines, WebSocket};
        for (url, transport, tls, host, port, path, authority) in [
            ("tcp://127.0.0.1:9500", Lines, false, "127.0.0.1", 9500, "", "127.0.0.1:9500"),
            ("TCP://Tools.Example.com:80", Lines, false, "tools.example.com", 80, "", "tools.example.com:80"),
            ("tls://[::1]:9500", Lines, true, "::1", 9500, "", "[::1]:9500"),
            ("ws://host", WebSocket, false, "host", 80, "/", "host"),
            ("ws://host:3002/ws?v=1", WebSocket, false, "host", 3002, "/ws?v=1", "host:3002"),
            ("wss://host:443?x", WebSocket, true, "host", 443, "/?x", "host"),
            ("wss://[2001:DB8::1]:80/mcp", WebSocket, true, "2001:db8::1", 80, "/mcp", "[2001:db8::1]:80"),
        ] {
            let UpstreamTarget::Socket(target) = upstream_target(url).unwrap() else { panic!("{url}") };
            assert_eq!((target.transport, target.tls), (transport, tls), "{url}");
            assert_eq!((target.host.as_str(), target.port), (host, port), "{url}");
            assert_eq!((target.path_and_query.as_str(), target.authority.as_str()), (path, authority), "{url}");
        }
        for url in [
            "tcp://host",
            "tcp://host:",
            "tcp://host:0",
            "tcp://host:9500/",
            "tcp://host:9500/mcp",
            "tcp://host:9500?x",
            "tcp://:9500",
            "tls://host",
            "tls://user@host:1",
            "tcps://host:1",
            "ssl://host:1",
            "ws://",
            "ws://user:pw@host/",
            "ws://host/#top",
            "wss://host:65536/",
            "wss://h\u{f6}st/",
            "ws://host/\r\nX: y",
            "udp://host:1",
            "host:1",
            "",
        ] {
            assert!(upstream_target(url).is_err(), "{url:?}");
        }
        assert!(matches!(upstream_target("https://host").unwrap(), UpstreamTarget::Http(http) if http.tls));
    }

    #[test]
    fn origins_take_the_browser_s_form() {
        for (text, wanted) in [
            ("http://localhost:3000", Some("http://localhost:3000")),
            ("HTTPS://App.Example.com:443", Some("https://app.example.com")),
            ("http://localhost:3000/", None),
            ("https://app.example.com/path", None),
            ("app.example.com", None),
            ("null", None),
        ] {
            assert_eq!(origin(text).ok().as_deref(), wanted, "{text}");
        }
    }
}
