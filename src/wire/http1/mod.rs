//! Strict HTTP/1.1 (RFC 9112), both sides of it.
//!
//! Two parsers that read the same bytes differently are how requests are smuggled. So this one has no lenient mode:
//! what RFC 9112 lets a recipient repair is refused here, and what is refused closes the connection.
//!
//! - [`request`]: the head of a request, as a client sends it to the door.
//! - [`response`]: the head of a response, as an upstream sends it to us.
//! - [`body`]: the decoder for the bytes behind either head.
//! - [`query`]: one parameter of a request target.
//! - [`write`](mod@write): what we send ourselves, and which received fields are passed on.

pub mod body;
mod framing;
mod head;
pub mod query;
pub mod request;
pub mod response;
mod target;
pub mod write;

use super::Span;
pub use head::list_members;
pub(super) use head::{is_token_byte, span_in, trim_blanks};

/// Most bytes of a head, from the first byte of its first line to the end of its last empty line.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Most fields of a head.
pub const MAX_FIELDS: usize = 100;

/// The protocol versions that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Version {
    /// HTTP/1.0: one request a connection, unless keep-alive is asked for.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

/// How far a parser got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The head is complete, and its `len` bytes may be taken off the buffer.
    Complete,
    /// More bytes are needed. Pass the present length of the buffer as `from` next time.
    Partial,
}

/// A request that must not be answered with anything but this, after which the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {reason}")]
pub struct Reject {
    /// The HTTP status to answer with: 400, 413, 414, 417, 501 or 505; 405 and 426 from `wire::websocket`.
    pub status: u16,
    /// What is wrong and where, in a few words. Never the offending value.
    pub reason: &'static str,
}

/// One field of a head; both spans are into the buffer the head was parsed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Field {
    /// Its name as received (case as sent).
    pub name: Span,
    /// Its value without surrounding blanks.
    pub value: Span,
}

/// The fields of a head in the order received, at most [`MAX_FIELDS`].
pub type Fields = arrayvec::ArrayVec<Field, MAX_FIELDS>;
