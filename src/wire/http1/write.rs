//! What we write, and which received fields are passed on.

use super::request::RequestHead;
use super::response::ResponseHead;

/// Ends a chunked body that has no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends `HTTP/1.1 STATUS REASON` and its line end.
pub fn status_line(out: &mut Vec<u8>, status: u16) {
    let _ = (out, status);
}

/// Appends `METHOD TARGET HTTP/1.1` and its line end. Both come from configuration or from a parsed head.
pub fn request_line(out: &mut Vec<u8>, method: &[u8], target: &[u8]) {
    let _ = (out, method, target);
}

/// Appends one field. A CR, LF or NUL in the value becomes a space, so no value can end its line.
pub fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    let _ = (out, name, value);
}

/// Appends one field with a decimal value.
pub fn field_decimal(out: &mut Vec<u8>, name: &str, value: u64) {
    let _ = (out, name, value);
}

/// Appends the empty line that ends a head.
pub fn end_head(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// Appends `value` in decimal.
pub fn decimal(out: &mut Vec<u8>, value: u64) {
    let _ = (out, value);
}

/// Appends the size line of a chunk of `len_bytes` (not 0: that would end the body). The data and a CRLF follow.
pub fn chunk_head(out: &mut Vec<u8>, len_bytes: usize) {
    let _ = (out, len_bytes);
}

/// Appends `data` as one chunk; nothing when it is empty.
pub fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    let _ = (out, data);
}

/// Appends those fields of a request that are passed on to an upstream.
pub fn copy_request_fields(out: &mut Vec<u8>, head: &RequestHead, buf: &[u8]) {
    let _ = (out, head, buf);
}

/// Appends those fields of a response that are passed on to the client.
pub fn copy_response_fields(out: &mut Vec<u8>, head: &ResponseHead, buf: &[u8]) {
    let _ = (out, head, buf);
}
