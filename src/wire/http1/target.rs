//! Request targets and `Host` (RFC 9112 §3.2, RFC 9110 §7.2).

use super::super::Span;
use super::Reject;
use super::request::Method;

/// Longest request target, bytes. RFC 9112 §3 asks for at least 8000 of the whole request line.
pub(super) const MAX_TARGET_BYTES: usize = 8000;

/// A request target taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts<'b> {
    /// The authority of an absolute-form target.
    pub(super) authority: Option<&'b [u8]>,
    /// The path; empty only in absolute-form.
    pub(super) path: Span,
    /// What follows the first `?`.
    pub(super) query: Option<Span>,
}

/// Takes `target` apart; the spans of the result start at `offset` for its first byte.
///
/// # Errors
/// 400 for another form than origin-form, absolute-form (http, https) or `OPTIONS *`, and for bytes that no URI has;
/// 414 when it is too long.
pub(super) fn split(target: &[u8], offset: usize, method: Method) -> Result<Parts<'_>, Reject> {
    if target.len() > MAX_TARGET_BYTES {
        return Err(Reject { status: 414, reason: "request target too long" });
    }
    if !target.iter().all(|byte| matches!(byte, b'!'..=b'~') && *byte != b'#') {
        return Err(bad("invalid byte in request target"));
    }
    if target == b"*" {
        if method != Method::Options {
            return Err(bad("asterisk target is for OPTIONS only"));
        }
        return Ok(Parts { authority: None, path: Span::from_usize(offset, offset.saturating_add(1)), query: None });
    }
    let (authority, start) = if target.first() == Some(&b'/') {
        (None, 0)
    } else {
        let scheme = [&b"http://"[..], b"https://"]
            .into_iter()
            .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
            .ok_or_else(|| bad("request target is neither a path nor an absolute http URI"))?
            .len();
        let rest = target.get(scheme..).unwrap_or_default();
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        (rest.get(..end), scheme.saturating_add(end))
    };
    let rest = target.get(start..).unwrap_or_default();
    let at = |position: usize| offset.saturating_add(start).saturating_add(position);
    let mark = memchr::memchr(b'?', rest);
    let path = Span::from_usize(at(0), at(mark.unwrap_or(rest.len())));
    let query = mark.map(|mark| Span::from_usize(at(mark.saturating_add(1)), at(rest.len())));
    Ok(Parts { authority, path, query })
}

/// Whether `value` is one valid `host[:port]`: a name, an IPv4 address or a bracketed IPv6 address, never empty, never a
/// list, never with user information.
pub(super) fn is_host(value: &[u8]) -> bool {
    let (host, port) = if let Some(rest) = value.strip_prefix(b"[") {
        let Some(end) = memchr::memchr(b']', rest) else {
            return false;
        };
        let address = rest.get(..end).and_then(|text| std::str::from_utf8(text).ok());
        if address.is_none_or(|text| text.parse::<std::net::Ipv6Addr>().is_err()) {
            return false;
        }
        match rest.get(end.saturating_add(1)..).unwrap_or_default() {
            [] => return true,
            [b':', port @ ..] => (&b"v6"[..], Some(port)),
            _ => return false,
        }
    } else {
        match memchr::memchr(b':', value) {
            Some(colon) => (value.get(..colon).unwrap_or_default(), value.get(colon.saturating_add(1)..)),
            None => (value, None),
        }
    };
    let name_is_valid = !host.is_empty()
        && host.len() <= 255
        && host.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    name_is_valid && port.is_none_or(is_port)
}

fn is_port(port: &[u8]) -> bool {
    matches!(port.len(), 1..=5)
        && port
            .iter()
            .try_fold(0u32, |sum, byte| Some(sum * 10 + u32::from(byte.checked_sub(b'0').filter(|digit| *digit <= 9)?)))
            .is_some_and(|port| port <= 65_535)
}

fn bad(reason: &'static str) -> Reject {
    Reject { status: 400, reason }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn hosts() {
        let table: [(&str, bool); 24] = [
            ("localhost", true),
            ("localhost:8080", true),
            ("a.example.com.", true),
            ("my_service-1:1", true),
            ("127.0.0.1:65535", true),
            ("[::1]", true),
            ("[2001:db8::1]:443", true),
            ("", false),
            (":80", false),
            ("a:", false),
            ("a:65536", false),
            ("a:000080", false),
            ("a:8a", false),
            ("a:80:80", false),
            ("a,b", false),
            ("a b", false),
            ("u@a", false),
            ("a/path", false),
            ("a?q", false),
            ("[::1", false),
            ("[::1]x", false),
            ("[fe80::1%eth0]", false),
            ("[127.0.0.1]", false),
            ("é", false),
        ];
        for (value, expected) in table {
            assert_eq!(is_host(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn targets() {
        // Authority, path and query, or the status.
        type Expected = Result<(&'static str, &'static str, Option<&'static str>), u16>;
        let table: [(&str, Method, Expected); 18] = [
            ("/", Method::Get, Ok(("", "/", None))),
            ("/a/b?c=d?e", Method::Get, Ok(("", "/a/b", Some("c=d?e")))),
            ("/?", Method::Get, Ok(("", "/", Some("")))),
            ("//x/y", Method::Get, Ok(("", "//x/y", None))),
            ("*", Method::Options, Ok(("", "*", None))),
            ("http://h:1/p?q", Method::Get, Ok(("h:1", "/p", Some("q")))),
            ("HTTPS://h", Method::Get, Ok(("h", "", None))),
            ("http://h?q", Method::Get, Ok(("h", "", Some("q")))),
            ("http:///p", Method::Get, Ok(("", "/p", None))),
            ("*", Method::Get, Err(400)),
            ("*x", Method::Options, Err(400)),
            ("h:443", Method::Other, Err(400)),
            ("ftp://h/", Method::Get, Err(400)),
            ("path", Method::Get, Err(400)),
            ("/a#b", Method::Get, Err(400)),
            ("/caf\u{e9}", Method::Get, Err(400)),
            ("/a\x7f", Method::Get, Err(400)),
            ("", Method::Get, Err(400)),
        ];
        for (target, method, expected) in table {
            let have = split(target.as_bytes(), 0, method);
            let text = |span: Span| std::str::from_utf8(span.of(target.as_bytes())).unwrap();
            let have = have.map(|parts| {
                (
                    std::str::from_utf8(parts.authority.unwrap_or_default()).unwrap(),
                    text(parts.path),
                    parts.query.map(text),
                )
            });
            assert_eq!(have.map_err(|reject| reject.status), expected, "{target}");
        }
        let long = vec![b'/'; MAX_TARGET_BYTES + 1];
        assert_eq!(split(&long, 0, Method::Get).unwrap_err().status, 414);
    }
}
