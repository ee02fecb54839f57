//! What we write, and which received fields are passed on.
//!
//! All functions append to the caller's buffer, which is reused, so nothing is allocated in the steady state. A gateway
//! is a client to the upstream and a server to the client: the fields that describe one connection (RFC 9110 §7.6.1),
//! its framing, or who somebody is to *us* end here, both ways. The two lists below are the whole policy.

use super::head::list_members;
use super::request::RequestHead;
use super::response::ResponseHead;
use super::{Fields, Span};

/// Ends a chunked body that has no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Request fields that are not passed on to an upstream.
const REQUEST_NAMES: [&[u8]; 34] = [
    // Only `identity` is let in; see door/http/gate.rs.
    b"content-encoding",
    // Of this connection alone.
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"http2-settings",
    // Written anew: framing, target, the sealed session id, an answered expectation.
    b"content-length",
    b"host",
    b"expect",
    b"mcp-session-id",
    // The client's standing with us: never the upstream's to see or to reuse.
    b"authorization",
    b"cookie",
    b"proxy-authorization",
    b"proxy-authenticate",
    // Checked here; upstreams compare it with their own address and would refuse.
    b"origin",
    // Claims about who is calling: upstreams trust their proxy, and that is us. A trusted proxy's
    // are read (guard/proxies.rs), and go no further either.
    b"forwarded",
    b"via",
    b"x-real-ip",
    b"true-client-ip",
    b"cf-connecting-ip",
    b"cf-connecting-ipv6",
    b"fastly-client-ip",
    b"client-ip",
    b"x-client-ip",
    b"x-remote-ip",
    b"x-remote-addr",
    b"x-originating-ip",
    b"x-envoy-external-address",
    b"x-cluster-client-ip",
    // Changes the request behind the checks.
    b"x-http-method-override",
    // Compressed answers could be neither looked at nor passed on event by event.
    b"accept-encoding",
];

/// Starts of request field names that are not passed on: more claims about who is calling, and other override spellings.
const REQUEST_PREFIXES: [&[u8]; 4] = [b"x-forwarded-", b"x-original-", b"x-rewrite-", b"sec-websocket-"];

/// Response fields that are not passed on to a client.
const RESPONSE_NAMES: [&[u8]; 25] = [
    // Said by the gateway itself on every event stream.
    b"x-accel-buffering",
    // Of this connection alone.
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"alt-svc",
    // Written anew: framing, the sealed session id, the date.
    b"content-length",
    b"mcp-session-id",
    b"date",
    // Tells what runs behind us.
    b"server",
    b"via",
    b"x-powered-by",
    // State and authentication between the upstream and us; a client of ours must not answer them.
    b"set-cookie",
    b"set-cookie2",
    b"www-authenticate",
    b"proxy-authenticate",
    b"authentication-info",
    b"proxy-authentication-info",
    // Policies for our origin, which is ours to set.
    b"strict-transport-security",
    b"public-key-pins",
    b"clear-site-data",
    b"service-worker-allowed",
];

/// Starts of response field names that are not passed on: cross-origin permission and content policy are ours to set.
const RESPONSE_PREFIXES: [&[u8]; 3] = [b"access-control-", b"content-security-policy", b"cross-origin-"];

/// Appends `HTTP/1.1 STATUS REASON` and its line end. A status outside 100–599 becomes 502.
pub fn status_line(out: &mut Vec<u8>, status: u16) {
    if status == 200 {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    let status = if matches!(status, 100..=599) { status } else { 502 };
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends `METHOD TARGET HTTP/1.1` and its line end. Both come from configuration or from a parsed head.
pub fn request_line(out: &mut Vec<u8>, method: &[u8], target: &[u8]) {
    out.extend_from_slice(method);
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Appends one field. A control byte in the value becomes a space, so no value can end its line.
pub fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    let is_control = |byte: u8| (byte < b' ' && byte != b'\t') || byte == 0x7f;
    if value.iter().any(|byte| is_control(*byte)) {
        out.extend(value.iter().map(|byte| if is_control(*byte) { b' ' } else { *byte }));
    } else {
        out.extend_from_slice(value);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends one field with a decimal value.
pub fn field_decimal(out: &mut Vec<u8>, name: &str, value: u64) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    decimal(out, value);
    out.extend_from_slice(b"\r\n");
}

/// Appends the empty line that ends a head.
pub fn end_head(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// Appends `value` in decimal.
pub fn decimal(out: &mut Vec<u8>, value: u64) {
    digits(out, value, 10);
}

/// Appends the size line of a chunk of `len_bytes` (not 0: that would end the body). The data and a CRLF follow.
pub fn chunk_head(out: &mut Vec<u8>, len_bytes: usize) {
    digits(out, len_bytes as u64, 16);
    out.extend_from_slice(b"\r\n");
}

/// Appends `data` as one chunk; nothing when it is empty.
pub fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    chunk_head(out, data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Appends those fields of a request that are passed on to an upstream, but for those with a name in `replaced` (any
/// case), which the gateway writes itself.
pub fn copy_request_fields(out: &mut Vec<u8>, head: &RequestHead, buf: &[u8], replaced: &[String]) {
    copy_fields(out, &head.fields, buf, &REQUEST_STOPS, replaced);
}

/// Appends those fields of a response that are passed on to the client.
pub fn copy_response_fields(out: &mut Vec<u8>, head: &ResponseHead, buf: &[u8]) {
    copy_fields(out, &head.fields, buf, &RESPONSE_STOPS, &[]);
}

/// Appends the fields that are not stopped and not named in `Connection`. A name with `_` is dropped as well: servers
/// that take it for `-` would read it as another field, past these lists.
fn copy_fields(out: &mut Vec<u8>, fields: &Fields, buf: &[u8], stops: &Stops, replaced: &[String]) {
    let names_fields =
        fields.iter().any(|field| is_connection(field.name.of(buf)) && !is_plain_connection(field.value.of(buf)));
    // Lines that stand one behind the other and as they are to be written are copied together.
    let mut run = 0..0;
    for field in fields {
        let name = field.name.of(buf);
        let stopped = stops.contain(name)
            || has_underscore(name)
            || replaced.iter().any(|stop| name.eq_ignore_ascii_case(stop.as_bytes()))
            || (names_fields && is_named_in_connection(fields, buf, name));
        if stopped {
            continue;
        }
        let line = field.name.start as usize..field.value.end as usize + 2;
        if !is_plain_line(buf, field.name, field.value) {
            out.extend_from_slice(buf.get(std::mem::take(&mut run)).unwrap_or_default());
            copy_line(out, buf, field.name, field.value);
        } else if run.end == line.start {
            run.end = line.end;
        } else {
            let before = std::mem::replace(&mut run, line);
            out.extend_from_slice(buf.get(before).unwrap_or_default());
        }
    }
    out.extend_from_slice(buf.get(run).unwrap_or_default());
}

/// Whether the field was received as [`copy_line`] writes it: one space behind the colon, none behind the value.
fn is_plain_line(buf: &[u8], name: Span, value: Span) -> bool {
    let between = Span { start: name.end, end: value.start };
    let behind = Span { start: value.end, end: value.end.saturating_add(2) };
    between.of(buf) == b": " && behind.of(buf) == b"\r\n"
}

/// Whether there is a `_`, eight bytes at a time.
fn has_underscore(name: &[u8]) -> bool {
    const LOW: u64 = u64::MAX / 255;
    let (words, rest) = name.as_chunks::<8>();
    words.iter().any(|word| {
        // A byte is 0 where there is one, and subtracting 1 from 0 alone sets a high bit that was not set.
        let zeros = u64::from_ne_bytes(*word) ^ (LOW * u64::from(b'_'));
        zeros.wrapping_sub(LOW) & !zeros & (LOW << 7) != 0
    }) || rest.contains(&b'_')
}

/// A list of stopped names, with an index by length and first letter that spares most names the comparisons.
struct Stops {
    /// The shortest first.
    names: &'static [&'static [u8]],
    prefixes: &'static [&'static [u8]],
    /// Bit `letter & 31` of entry `length`.
    by_length: [u32; 32],
    /// Where the names of a length begin; its successor, where they end.
    starts: [u8; 33],
    /// Bit `letter & 31`.
    by_letter: u32,
}

static REQUEST_STOPS: Stops = Stops::new(&REQUEST_BY_LENGTH, &REQUEST_PREFIXES);
static REQUEST_BY_LENGTH: [&[u8]; REQUEST_NAMES.len()] = by_length(REQUEST_NAMES);
static RESPONSE_STOPS: Stops = Stops::new(&RESPONSE_BY_LENGTH, &RESPONSE_PREFIXES);
static RESPONSE_BY_LENGTH: [&[u8]; RESPONSE_NAMES.len()] = by_length(RESPONSE_NAMES);

/// Sorts names by length.
#[allow(clippy::indexing_slicing, reason = "runs at compile time, where a bad index is an error")]
const fn by_length<const N: usize>(mut names: [&'static [u8]; N]) -> [&'static [u8]; N] {
    let mut sorted = 1;
    while sorted < N {
        let mut at = sorted;
        while at > 0 && names[at - 1].len() > names[at].len() {
            (names[at - 1], names[at]) = (names[at], names[at - 1]);
            at -= 1;
        }
        sorted += 1;
    }
    names
}

impl Stops {
    #[allow(
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "runs at compile time, where a bad index is an error; there are fewer than 256 names"
    )]
    const fn new(names: &'static [&'static [u8]], prefixes: &'static [&'static [u8]]) -> Stops {
        let (mut by_length, mut starts) = ([0; 32], [0; 33]);
        let mut index = 0;
        while index < names.len() {
            let len = names[index].len();
            by_length[len] |= 1 << (names[index][0] & 31);
            // Sorted: the last of a length leaves its successor's begin behind, and so do those of all lengths below it.
            let mut longer = len + 1;
            while longer < starts.len() {
                starts[longer] = index as u8 + 1;
                longer += 1;
            }
            index += 1;
        }
        let mut by_letter = 0;
        index = 0;
        while index < prefixes.len() {
            by_letter |= 1 << (prefixes[index][0] & 31);
            index += 1;
        }
        Stops { names, prefixes, by_length, starts, by_letter }
    }

    fn contain(&self, name: &[u8]) -> bool {
        let letter = name.first().map_or(0, |first| first & 31);
        let by_length = self.by_length.get(name.len()).copied().unwrap_or_default();
        let starts_with =
            |prefix: &&[u8]| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        (by_length >> letter & 1 == 1 && self.of_length(name.len()).iter().any(|stop| is_spelling_of(name, stop)))
            || (self.by_letter >> letter & 1 == 1 && self.prefixes.iter().any(starts_with))
    }
}

impl Stops {
    fn of_length(&self, len: usize) -> &[&[u8]] {
        let bound = |at: usize| self.starts.get(at).map_or(0, |at| usize::from(*at));
        self.names.get(bound(len)..bound(len.saturating_add(1))).unwrap_or_default()
    }
}

/// Whether a field's name is `stop` (of its length, in lower case) in any case, eight bytes at a time. A field's name is a token, and of a token's
/// bytes only upper case letters become another letter, digit or hyphen by the bit that tells the cases apart.
fn is_spelling_of(name: &[u8], stop: &[u8]) -> bool {
    const CASE: u64 = u64::MAX / 255 * 0x20;
    let ((name, name_rest), (stop, stop_rest)) = (name.as_chunks::<8>(), stop.as_chunks::<8>());
    let is_word = |(name, stop): (&[u8; 8], &[u8; 8])| u64::from_ne_bytes(*name) | CASE == u64::from_ne_bytes(*stop);
    name.iter().zip(stop).all(is_word) && name_rest.iter().zip(stop_rest).all(|(name, stop)| name | 0x20 == *stop)
}

/// Whether a `Connection` value is one that names no field; nearly all are.
fn is_plain_connection(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
}

fn copy_line(out: &mut Vec<u8>, buf: &[u8], name: Span, value: Span) {
    out.extend_from_slice(name.of(buf));
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.of(buf));
    out.extend_from_slice(b"\r\n");
}

fn is_connection(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"connection")
}

fn is_named_in_connection(fields: &Fields, buf: &[u8], name: &[u8]) -> bool {
    fields
        .iter()
        .filter(|field| is_connection(field.name.of(buf)))
        .any(|field| list_members(field.value.of(buf)).any(|option| option.eq_ignore_ascii_case(name)))
}

/// Appends `value` to a base of at most 16.
fn digits(out: &mut Vec<u8>, mut value: u64, base: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // 20 digits hold every u64, to base 10 and above.
    let mut text = [0; 20];
    let mut first = text.len();
    for place in text.iter_mut().rev() {
        *place = DIGITS.get(((value % base) & 15) as usize).copied().unwrap_or(b'0');
        first -= 1;
        value /= base;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(text.get(first..).unwrap_or_default());
}

/// The reason phrases of the statuses that the gateway and MCP servers use; empty for others (RFC 9112 §4).
fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
