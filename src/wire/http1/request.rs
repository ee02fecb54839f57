//! Request heads.

use super::{Fields, Progress, Reject, Span, Version};

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
    pub fn values<'h, 'b: 'h>(&'h self, buf: &'b [u8], name: &'h [u8]) -> impl DoubleEndedIterator<Item = &'b [u8]> + 'h {
        self.fields
            .iter()
            .filter(move |field| field.name.of(buf).eq_ignore_ascii_case(name))
            .map(move |field| field.value.of(buf))
    }
}

/// Parses the head that `buf` starts with. `from` is how much of `buf` an earlier call has already seen (0 at first):
/// a head that arrives byte by byte is scanned once, and parsed when it is complete.
///
/// # Errors
/// [`Reject`]: answer with its status and close.
pub fn parse_request(buf: &[u8], from: usize, head: &mut RequestHead) -> Result<Progress, Reject> {
    let _ = (buf, from, head);
    Ok(Progress::Partial)
}
