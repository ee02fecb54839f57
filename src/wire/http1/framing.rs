//! How a request's body is framed (RFC 9112 §6.3), without any of the standard's repairs.

use super::head::{decimal, trim_blanks};
use super::request::Body;
use super::{Reject, Version};

/// The framing that the values of the only `Content-Length` and the only `Transfer-Encoding` line give.
///
/// # Errors
/// 400 where the two contradict each other or one is odd in any way; 501 for codings that are understood but not served.
pub(super) fn of_request(
    content_length: Option<&[u8]>,
    transfer_encoding: Option<&[u8]>,
    version: Version,
) -> Result<Body, Reject> {
    match (content_length, transfer_encoding) {
        (None, None) => Ok(Body::None),
        (Some(_), Some(_)) => Err(bad("Content-Length with Transfer-Encoding")),
        (Some(length), None) => decimal(length).map(Body::Length).ok_or(bad("invalid Content-Length")),
        (None, Some(_)) if version == Version::Http10 => Err(bad("Transfer-Encoding in HTTP/1.0")),
        (None, Some(coding)) => transfer_coding(coding),
    }
}

/// `chunked` alone is served. Registered codings before it are understood but not implemented (501, RFC 9112 §6.1);
/// everything else, parameters and odd lists too, is an attempt to be read in two ways.
fn transfer_coding(value: &[u8]) -> Result<Body, Reject> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(Body::Chunked);
    }
    let implemented_elsewhere = |coding: &[u8]| {
        [&b"gzip"[..], b"x-gzip", b"deflate", b"compress", b"x-compress"]
            .iter()
            .any(|known| coding.eq_ignore_ascii_case(known))
    };
    let mut members = value.rsplit(|byte| *byte == b',').map(trim_blanks);
    let ends_in_chunked = members.next().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    if ends_in_chunked && members.all(implemented_elsewhere) {
        return Err(Reject { status: 501, reason: "transfer coding not implemented" });
    }
    Err(bad("invalid Transfer-Encoding"))
}

fn bad(reason: &'static str) -> Reject {
    Reject { status: 400, reason }
}
