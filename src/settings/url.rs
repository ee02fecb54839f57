//! URLs and origins, as strictly as settings need them: http and https, no user information, no fragment, ASCII.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::policy::HttpTarget;

/// Takes an `http://` or `https://` URL apart.
///
/// # Errors
/// Says what is wrong with it, without repeating any part of it.
pub(super) fn http_target(url: &str) -> Result<HttpTarget, &'static str> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err("not a URL with a scheme");
    };
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return Err("neither http:// nor https://"),
    };
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
    let scheme_port = if tls { 443 } else { 80 };
    let port = match port_text {
        None => scheme_port,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => match digits.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => return Err("its port is not from 1 to 65535"),
        },
        Some(_) => return Err("its port is not a number"),
    };
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let authority = if port == scheme_port { bracketed } else { format!("{bracketed}:{port}") };
    let path_and_query = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(HttpTarget { tls, host, port, path_and_query, authority })
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
#[allow(clippy::unwrap_used)]
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
