//! Response heads, as upstreams send them (RFC 9112 §4, §6.3).
//!
//! An upstream is as little trusted as a client: what it sends travels on to somebody else, on connections that are used
//! again. So its heads are read as strictly as requests, and any doubt about where its answer ends is an error, which
//! keeps split or smuggled responses from passing through us.

use std::mem::MaybeUninit;

use super::body::{BodyError, Framing};
use super::head::{Connection, decimal, follows_crlf, has_bare_lf, imitates, may_be_complete, span_in};
use super::{Field, Fields, MAX_FIELDS, MAX_HEAD_BYTES, Progress, Span, Version};

/// What an upstream did wrong. The connection to it is of no further use; the client is answered 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUpstream {
    /// The head breaks the grammar; the text says where.
    #[error("malformed response head: {0}")]
    Head(&'static str),
    /// Two ways to find the end of the body, or none that is safe.
    #[error("ambiguous response framing: {0}")]
    Framing(&'static str),
    /// The head has too many bytes or fields.
    #[error("response head too large")]
    HeadTooLarge,
    /// `101 Switching Protocols`, which nobody asked for.
    #[error("unexpected protocol switch")]
    Switch,
    /// The body is broken or cut short.
    #[error("broken response body: {0}")]
    Body(&'static str),
    /// The body has more bytes than allowed.
    #[error("response body too large")]
    BodyTooLarge,
}

impl From<BodyError> for BadUpstream {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Malformed(reason) => BadUpstream::Body(reason),
            BodyError::TooLarge => BadUpstream::BodyTooLarge,
        }
    }
}

/// What an answer's `Content-Type` means to us; parameters are not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Content {
    /// `application/json`.
    Json,
    /// `text/event-stream`.
    EventStream,
    /// Something else, or none.
    #[default]
    Other,
}

/// A parsed response head. All spans are into the buffer it was parsed from.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// Bytes of the head, interim (1xx) heads before it included: the body starts here.
    pub len: u32,
    /// The status, 200 to 599; 101 from [`parse_switch`] alone.
    pub status: u16,
    /// The version.
    pub version: Version,
    /// How the body is framed; `Length(0)` where there is none (204, 304, answers to HEAD).
    pub framing: Framing,
    /// Whether the connection may carry another request once the body is read.
    pub keep_alive: bool,
    /// The kind of `Content-Type`.
    pub content: Content,
    /// `Content-Type` as received.
    pub content_type: Option<Span>,
    /// `Content-Length` as announced (also where there is no body, as with HEAD).
    pub content_length: Option<u64>,
    /// Whether a `Content-Encoding` other than `identity` is announced, though nobody accepts one.
    pub encoded: bool,
    /// `Mcp-Session-Id`.
    pub mcp_session_id: Option<Span>,
    /// All fields.
    pub fields: Fields,
}

impl ResponseHead {
    /// The values of all fields called `name` (any case), in order.
    pub fn values<'h, 'b: 'h>(&'h self, buf: &'b [u8], name: &'h [u8]) -> impl Iterator<Item = &'b [u8]> + 'h {
        self.fields
            .iter()
            .filter(move |field| field.name.of(buf).eq_ignore_ascii_case(name))
            .map(move |field| field.value.of(buf))
    }
}

impl Default for ResponseHead {
    fn default() -> Self {
        ResponseHead {
            len: 0,
            status: 0,
            version: Version::Http11,
            framing: Framing::Length(0),
            keep_alive: false,
            content: Content::Other,
            content_type: None,
            content_length: None,
            encoded: false,
            mcp_session_id: None,
            fields: Fields::new(),
        }
    }
}

/// Parses the response head that `buf` starts with; interim 1xx heads before it are skipped, and count towards the bound
/// of 16 KiB. `from` is how much of `buf` an earlier call has already seen. `to_head` says that the request was a HEAD.
///
/// # Errors
/// [`BadUpstream`].
pub fn parse_response(
    buf: &[u8],
    from: usize,
    to_head: bool,
    head: &mut ResponseHead,
) -> Result<Progress, BadUpstream> {
    parse(buf, from, Asked { to_head, to_switch: false }, head)
}

/// The same for a request that asked for `Upgrade`: a 101 is complete, without a body, and what stands behind it is in
/// the other protocol (RFC 9110 §7.8). To any other status nothing is special.
///
/// # Errors
/// [`BadUpstream`].
pub fn parse_switch(buf: &[u8], from: usize, head: &mut ResponseHead) -> Result<Progress, BadUpstream> {
    parse(buf, from, Asked { to_head: false, to_switch: true }, head)
}

/// What of the request decides how its response is read.
#[derive(Clone, Copy)]
struct Asked {
    to_head: bool,
    to_switch: bool,
}

fn parse(buf: &[u8], from: usize, asked: Asked, head: &mut ResponseHead) -> Result<Progress, BadUpstream> {
    let window = buf.get(..MAX_HEAD_BYTES).unwrap_or(buf);
    let partial = || {
        if window.len() < MAX_HEAD_BYTES { Ok(Progress::Partial) } else { Err(BadUpstream::HeadTooLarge) }
    };
    if from > 0 && !may_be_complete(window, from) {
        return partial();
    }
    let mut start = 0usize;
    loop {
        let text = window.get(start..).unwrap_or_default();
        if matches!(text, [b'\r' | b'\n', ..]) {
            return Err(BadUpstream::Head("line end before the status line"));
        }
        let mut slots = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let len = match config.parse_response_with_uninit_headers(&mut parsed, text, &mut slots) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if has_bare_lf(text) => {
                return Err(BadUpstream::Head("bare LF"));
            }
            Ok(httparse::Status::Partial) => return partial(),
            Err(httparse::Error::TooManyHeaders) => return Err(BadUpstream::HeadTooLarge),
            Err(error) => return Err(BadUpstream::Head(name_error(error))),
        };
        let end = start.saturating_add(len);
        let raw = window.get(..end).unwrap_or_default();
        head.len = Span::from_usize(0, end).end;
        head.version = if parsed.version == Some(1) { Version::Http11 } else { Version::Http10 };
        head.status = parsed.code.unwrap_or_default();
        let seen = read_fields(raw, start, parsed.headers, head)?;
        match head.status {
            101 if !asked.to_switch => return Err(BadUpstream::Switch),
            100..=199 if seen.content_length.is_some() || seen.transfer_encoding.is_some() => {
                return Err(BadUpstream::Framing("interim answer with a body"));
            }
            101 => {
                (head.framing, head.content_length, head.keep_alive) = (Framing::Length(0), None, false);
                return Ok(Progress::Complete);
            }
            100..=199 => start = end,
            200..=599 => return frame(raw, asked.to_head, &seen, head).map(|()| Progress::Complete),
            _ => return Err(BadUpstream::Head("status out of range")),
        }
    }
}

/// What only matters until the head is read.
#[derive(Default)]
struct Seen {
    connection: Connection,
    content_length: Option<Span>,
    transfer_encoding: Option<Span>,
}

fn read_fields(
    raw: &[u8],
    start: usize,
    parsed: &[httparse::Header<'_>],
    head: &mut ResponseHead,
) -> Result<Seen, BadUpstream> {
    head.content = Content::Other;
    head.content_type = None;
    head.mcp_session_id = None;
    head.encoded = false;
    head.fields.clear();
    let mut seen = Seen::default();
    for field in parsed {
        let name = span_in(raw, field.name.as_bytes());
        if !follows_crlf(raw, name.start as usize) {
            return Err(BadUpstream::Head("line does not end in CRLF"));
        }
        let value = span_in(raw, field.value);
        read_field(field.name.as_bytes(), field.value, value, head, &mut seen)?;
        head.fields.try_push(Field { name, value }).map_err(|_| BadUpstream::HeadTooLarge)?;
    }
    // Without fields too, the status line's own end is looked at: it is part of these four bytes.
    if !raw.get(start..).unwrap_or_default().ends_with(b"\r\n\r\n") {
        return Err(BadUpstream::Head("line does not end in CRLF"));
    }
    Ok(seen)
}

fn read_field(
    name: &[u8],
    text: &[u8],
    value: Span,
    head: &mut ResponseHead,
    seen: &mut Seen,
) -> Result<(), BadUpstream> {
    let is = |expected: &[u8]| name.eq_ignore_ascii_case(expected);
    match (name.len(), name.first().map(u8::to_ascii_lowercase)) {
        (10, Some(b'c')) if is(b"connection") => {
            seen.connection.add(text);
            Ok(())
        }
        (12, Some(b'c')) if is(b"content-type") => {
            head.content = Content::of(text);
            once(&mut head.content_type, value, "repeated Content-Type")
        }
        (14, Some(b'm')) if is(b"mcp-session-id") => once(&mut head.mcp_session_id, value, "repeated Mcp-Session-Id"),
        (14, Some(b'c')) if is(b"content-length") => {
            once(&mut seen.content_length, value, "").map_err(|_| BadUpstream::Framing("repeated Content-Length"))
        }
        (16, Some(b'c')) if is(b"content-encoding") => {
            head.encoded |= !text.eq_ignore_ascii_case(b"identity");
            Ok(())
        }
        (17, Some(b't')) if is(b"transfer-encoding") => {
            once(&mut seen.transfer_encoding, value, "").map_err(|_| BadUpstream::Framing("repeated Transfer-Encoding"))
        }
        _ if imitates(name, b"content-length") => Err(BadUpstream::Framing("field name imitates Content-Length")),
        _ if imitates(name, b"transfer-encoding") => Err(BadUpstream::Framing("field name imitates Transfer-Encoding")),
        _ => Ok(()),
    }
}

fn once(slot: &mut Option<Span>, value: Span, reason: &'static str) -> Result<(), BadUpstream> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(BadUpstream::Head(reason)),
    }
}

/// Decides how the body ends and whether the connection may be used again (RFC 9112 §6.3, §9.3).
fn frame(raw: &[u8], to_head: bool, seen: &Seen, head: &mut ResponseHead) -> Result<(), BadUpstream> {
    head.content_length = match seen.content_length {
        Some(length) => Some(decimal(length.of(raw)).ok_or(BadUpstream::Framing("invalid Content-Length"))?),
        None => None,
    };
    let announced = match (head.content_length, seen.transfer_encoding) {
        (Some(_), Some(_)) => {
            return Err(BadUpstream::Framing("Content-Length with Transfer-Encoding"));
        }
        (_, Some(_)) if head.version == Version::Http10 => {
            return Err(BadUpstream::Framing("Transfer-Encoding in HTTP/1.0"));
        }
        (None, Some(coding)) if coding.of(raw).eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
        (None, Some(_)) => return Err(BadUpstream::Framing("transfer coding is not chunked")),
        (Some(length), None) => Framing::Length(length),
        (None, None) => Framing::UntilClose,
    };
    let bodiless = to_head || matches!(head.status, 204 | 304);
    head.framing = if bodiless { Framing::Length(0) } else { announced };
    let persistent = !seen.connection.close && (head.version == Version::Http11 || seen.connection.keep_alive);
    // A 204 that announces a body may well send it, and it would be read as the next answer.
    let doubtful = head.status == 204 && !matches!(announced, Framing::Length(0) | Framing::UntilClose);
    head.keep_alive = persistent && !doubtful && head.framing != Framing::UntilClose;
    Ok(())
}

impl Content {
    fn of(value: &[u8]) -> Content {
        let essence = value.split(|byte| *byte == b';').next().map(super::head::trim_blanks).unwrap_or_default();
        if essence.eq_ignore_ascii_case(b"application/json") {
            Content::Json
        } else if essence.eq_ignore_ascii_case(b"text/event-stream") {
            Content::EventStream
        } else {
            Content::Other
        }
    }
}

fn name_error(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::Version => "invalid HTTP version",
        httparse::Error::HeaderName => "invalid header field name",
        httparse::Error::HeaderValue => "invalid byte in a header field value",
        httparse::Error::NewLine => "invalid line end",
        httparse::Error::TooManyHeaders => "too many header fields",
        httparse::Error::Status | httparse::Error::Token => "invalid status line",
    }
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
