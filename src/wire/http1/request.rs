//! Request heads (RFC 9112 §2–§7), strictly.
//!
//! `httparse` finds tokens and values with SIMD; what it lets pass and we do not is checked here: every line ends in CRLF,
//! the target has a form that a gateway answers, there is one valid `Host`, one framing, and no second line of a field that
//! decides anything. One pass over the fields, no allocation; a head that arrives in pieces is scanned once.
//!
//! ```
//! use ringwall::wire::http1::{Progress, request::{Body, RequestHead, parse_request}};
//!
//! let received = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
//! let mut head = RequestHead::default();
//! assert_eq!(parse_request(received, 0, &mut head), Ok(Progress::Complete));
//! assert_eq!(head.path(received), b"/mcp");
//! assert_eq!(head.body, Body::Length(2));
//! assert_eq!(&received[head.len as usize..], b"{}");
//! ```

use std::mem::MaybeUninit;

use super::head::{Connection, follows_crlf, has_bare_lf, imitates, list_members, may_be_complete, span_in};
use super::{Field, Fields, MAX_FIELDS, MAX_HEAD_BYTES, Progress, Reject, Span, Version, framing, target};

/// The methods the door tells apart. Names are case-sensitive (RFC 9110 §9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Method {
    #[default]
    Get,
    Post,
    Delete,
    Put,
    Patch,
    Options,
    Head,
    /// Any other token; it stands in [`RequestHead::method_span`].
    Other,
}

/// How the end of a request's body is found (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Body {
    /// There is none (no `Content-Length`, no `Transfer-Encoding`).
    #[default]
    None,
    /// This many bytes; may be 0.
    Length(u64),
    /// Chunks until the one of size 0.
    Chunked,
}

/// The fields the gateway itself reads. A second line of any of them is refused, but for `accept` and
/// `x_forwarded_for`, which are lists by their own definition: for these read all lines with [`RequestHead::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "named after the field")]
pub struct Known {
    pub host: Option<Span>,
    pub authorization: Option<Span>,
    /// The first `Accept` line.
    pub accept: Option<Span>,
    /// Whether there is more than one `Accept` line.
    pub accept_multiple: bool,
    pub content_type: Option<Span>,
    /// Whether a `Content-Encoding` line names anything but `identity`.
    pub is_coded: bool,
    pub origin: Option<Span>,
    pub mcp_session_id: Option<Span>,
    pub mcp_protocol_version: Option<Span>,
    pub mcp_method: Option<Span>,
    pub mcp_name: Option<Span>,
    pub last_event_id: Option<Span>,
    /// The last `X-Forwarded-For` line, the one the nearest proxy wrote.
    pub x_forwarded_for: Option<Span>,
    /// Whether there is more than one `X-Forwarded-For` line.
    pub x_forwarded_for_multiple: bool,
}

/// A parsed request head. All spans are into the buffer it was parsed from. Make one a worker and reuse it.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// Bytes of the head, with an ignored empty line in front and the empty line at the end: the body starts here.
    pub len: u32,
    /// The method.
    pub method: Method,
    /// The method's token.
    pub method_span: Span,
    /// The request target as received: origin-form, absolute-form or `*`.
    pub target: Span,
    /// The target's path, without query. Empty only in absolute-form; [`RequestHead::path`] makes `/` of that.
    pub path_span: Span,
    /// What stands behind the first `?`.
    pub query: Option<Span>,
    /// The version.
    pub version: Version,
    /// How the body is framed.
    pub body: Body,
    /// Whether the connection may carry another request after this one.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// Whether the client asks for `Upgrade: websocket` (and names it in `Connection`).
    pub upgrade_websocket: bool,
    /// The fields the gateway itself reads.
    pub known: Known,
    /// All fields.
    pub fields: Fields,
}

impl RequestHead {
    /// The target's path; `/` where an absolute-form target has none (RFC 9110 §4.2.3).
    #[must_use]
    pub fn path<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        match self.path_span.of(buf) {
            [] => b"/",
            path => path,
        }
    }

    /// The values of all fields called `name` (any case), in order.
    pub fn values<'h, 'b: 'h>(
        &'h self,
        buf: &'b [u8],
        name: &'h [u8],
    ) -> impl DoubleEndedIterator<Item = &'b [u8]> + 'h {
        self.fields
            .iter()
            .filter(move |field| field.name.of(buf).eq_ignore_ascii_case(name))
            .map(move |field| field.value.of(buf))
    }
}

/// Parses the head that `buf` starts with. `from` is how much of `buf` an earlier call has already seen (0 at first):
/// a head that arrives byte by byte is scanned once, and parsed when it is complete. One empty line before the request
/// line is ignored (RFC 9112 §2.2). `head` is only meaningful after [`Progress::Complete`].
///
/// # Errors
/// [`Reject`]: answer with its status and close.
pub fn parse_request(buf: &[u8], from: usize, head: &mut RequestHead) -> Result<Progress, Reject> {
    let window = buf.get(..MAX_HEAD_BYTES).unwrap_or(buf);
    if from > 0 && !may_be_complete(window, from) {
        return partial(window);
    }
    let skipped = match window {
        [b'\r'] => return Ok(Progress::Partial),
        [b'\r', b'\n', b'\r' | b'\n', ..] => {
            return Err(bad("more than one empty line before the request line"));
        }
        [b'\r', b'\n', ..] => 2,
        [b'\r' | b'\n', ..] => return Err(bad("bare line end before the request line")),
        _ => 0,
    };
    let text = window.get(skipped..).unwrap_or_default();
    let mut slots = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let len = match parsed.parse_with_uninit_headers(text, &mut slots) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if has_bare_lf(window) => {
            return Err(bad("bare LF in the head"));
        }
        Ok(httparse::Status::Partial) => return partial(window),
        Err(error) => return Err(from_httparse(error, text)),
    };
    let len = skipped.saturating_add(len);
    let raw = buf.get(..len).unwrap_or_default();

    head.len = Span::from_usize(0, len).end;
    head.version = if parsed.version == Some(1) { Version::Http11 } else { Version::Http10 };
    let method = parsed.method.unwrap_or_default().as_bytes();
    let target = parsed.path.unwrap_or_default().as_bytes();
    head.method = Method::of(method);
    head.method_span = span_in(raw, method);
    head.target = span_in(raw, target);
    read_fields(raw, parsed.headers, head)?;
    let parts = target::split(target, head.target.start as usize, head.method)?;
    if let Some(authority) = parts.authority {
        // RFC 9112 §3.2.2 would have us overwrite Host; two different answers to "which site" are refused instead.
        if !head.known.host.is_some_and(|host| host.of(raw).eq_ignore_ascii_case(authority)) {
            return Err(bad("authority of the request target differs from Host"));
        }
    }
    head.path_span = parts.path;
    head.query = parts.query;
    Ok(Progress::Complete)
}

/// More bytes are needed, unless the head has had all it may have.
fn partial(window: &[u8]) -> Result<Progress, Reject> {
    if window.len() < MAX_HEAD_BYTES {
        return Ok(Progress::Partial);
    }
    Err(match memchr::memchr(b'\n', window.get(2..).unwrap_or_default()) {
        Some(_) => bad("header section too large"),
        None => Reject { status: 414, reason: "request line too long" },
    })
}

impl Method {
    fn of(token: &[u8]) -> Method {
        match token {
            b"GET" => Method::Get,
            b"POST" => Method::Post,
            b"DELETE" => Method::Delete,
            b"PUT" => Method::Put,
            b"PATCH" => Method::Patch,
            b"OPTIONS" => Method::Options,
            b"HEAD" => Method::Head,
            _ => Method::Other,
        }
    }
}

/// What only matters until the head is read.
#[derive(Default)]
struct Seen {
    connection: Connection,
    content_length: Option<Span>,
    transfer_encoding: Option<Span>,
    expect: Option<Span>,
    upgrade_websocket: bool,
}

/// Reads all fields into `head`, and decides what follows from them together.
fn read_fields(raw: &[u8], parsed: &[httparse::Header<'_>], head: &mut RequestHead) -> Result<(), Reject> {
    head.known = Known::default();
    head.fields.clear();
    let mut seen = Seen::default();
    for field in parsed {
        let name = span_in(raw, field.name.as_bytes());
        if !follows_crlf(raw, name.start as usize) {
            return Err(bad("line does not end in CRLF"));
        }
        let value = span_in(raw, field.value);
        read_field(field.name.as_bytes(), field.value, value, head, &mut seen)?;
        if head.fields.try_push(Field { name, value }).is_err() {
            return Err(bad("too many header fields"));
        }
    }
    if !raw.ends_with(b"\r\n\r\n") {
        return Err(bad("line does not end in CRLF"));
    }
    match head.known.host {
        Some(host) if !target::is_host(host.of(raw)) => return Err(bad("invalid Host")),
        None if head.version == Version::Http11 => return Err(bad("missing Host")),
        _ => {}
    }
    head.body = framing::of_request(
        seen.content_length.map(|value| value.of(raw)),
        seen.transfer_encoding.map(|value| value.of(raw)),
        head.version,
    )?;
    head.keep_alive = !seen.connection.close && (head.version == Version::Http11 || seen.connection.keep_alive);
    head.upgrade_websocket = seen.connection.upgrade && seen.upgrade_websocket && head.version == Version::Http11;
    head.expect_continue = match seen.expect {
        // RFC 9110 §10.1.1: a 1.0 client cannot have meant it.
        _ if head.version == Version::Http10 => false,
        Some(value) if value.of(raw).eq_ignore_ascii_case(b"100-continue") => true,
        Some(_) => {
            return Err(Reject { status: 417, reason: "unknown expectation" });
        }
        None => false,
    };
    Ok(())
}

/// Takes note of a field that matters to us. Its length and first letter leave at most one or two names to compare.
fn read_field(name: &[u8], text: &[u8], value: Span, head: &mut RequestHead, seen: &mut Seen) -> Result<(), Reject> {
    let known = &mut head.known;
    let is = |expected: &[u8]| name.eq_ignore_ascii_case(expected);
    match (name.len(), name.first().map(u8::to_ascii_lowercase)) {
        (4, Some(b'h')) if is(b"host") => once(&mut known.host, value, "repeated Host"),
        (6, Some(b'a')) if is(b"accept") => {
            known.accept_multiple |= known.accept.is_some();
            known.accept.get_or_insert(value);
            Ok(())
        }
        (6, Some(b'o')) if is(b"origin") => once(&mut known.origin, value, "repeated Origin"),
        (6, Some(b'e')) if is(b"expect") => once(&mut seen.expect, value, "repeated Expect"),
        (7, Some(b'u')) if is(b"upgrade") => {
            seen.upgrade_websocket |= list_members(text).any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
            Ok(())
        }
        (8, Some(b'm')) if is(b"mcp-name") => once(&mut known.mcp_name, value, "repeated Mcp-Name"),
        (10, Some(b'c')) if is(b"connection") => {
            seen.connection.add(text);
            Ok(())
        }
        (10, Some(b'm')) if is(b"mcp-method") => once(&mut known.mcp_method, value, "repeated Mcp-Method"),
        (12, Some(b'c')) if is(b"content-type") => once(&mut known.content_type, value, "repeated Content-Type"),
        (13, Some(b'a')) if is(b"authorization") => once(&mut known.authorization, value, "repeated Authorization"),
        (13, Some(b'l')) if is(b"last-event-id") => once(&mut known.last_event_id, value, "repeated Last-Event-ID"),
        (14, Some(b'c')) if is(b"content-length") => once(&mut seen.content_length, value, "repeated Content-Length"),
        (14, Some(b'm')) if is(b"mcp-session-id") => once(&mut known.mcp_session_id, value, "repeated Mcp-Session-Id"),
        (15, Some(b'x')) if is(b"x-forwarded-for") => {
            known.x_forwarded_for_multiple |= known.x_forwarded_for.is_some();
            known.x_forwarded_for = Some(value);
            Ok(())
        }
        (16, Some(b'c')) if is(b"content-encoding") => {
            known.is_coded |= !text.eq_ignore_ascii_case(b"identity");
            Ok(())
        }
        (17, Some(b't')) if is(b"transfer-encoding") => {
            once(&mut seen.transfer_encoding, value, "repeated Transfer-Encoding")
        }
        (20, Some(b'm')) if is(b"mcp-protocol-version") => {
            once(&mut known.mcp_protocol_version, value, "repeated MCP-Protocol-Version")
        }
        // A lenient server behind us would find a second framing here.
        _ if imitates(name, b"content-length") => Err(bad("field name imitates Content-Length")),
        _ if imitates(name, b"transfer-encoding") => Err(bad("field name imitates Transfer-Encoding")),
        _ => Ok(()),
    }
}

#[inline]
fn once(slot: &mut Option<Span>, value: Span, reason: &'static str) -> Result<(), Reject> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(bad(reason)),
    }
}

/// Names what `httparse` found; a version that is well formed but not ours is 505, all else 400.
fn from_httparse(error: httparse::Error, text: &[u8]) -> Reject {
    match error {
        httparse::Error::Version if names_other_version(text) => {
            Reject { status: 505, reason: "HTTP version not supported" }
        }
        httparse::Error::Version => bad("invalid HTTP version"),
        httparse::Error::HeaderName => bad("invalid header field name"),
        httparse::Error::HeaderValue => bad("invalid byte in a header field value"),
        httparse::Error::NewLine => bad("invalid line end"),
        httparse::Error::TooManyHeaders => bad("too many header fields"),
        httparse::Error::Status | httparse::Error::Token => bad("invalid request line"),
    }
}

fn names_other_version(text: &[u8]) -> bool {
    let line = text.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let version = words.nth(2).unwrap_or_default();
    let digits = version.strip_prefix(b"HTTP/");
    words.next().is_none() && matches!(digits, Some([b'0'..=b'9', b'.', b'0'..=b'9']))
}

fn bad(reason: &'static str) -> Reject {
    Reject { status: 400, reason }
}

#[cfg(test)]
#[path = "request_properties.rs"]
mod properties;
#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
