//! Answers of the gateway's own: written whole into an output buffer, head and body.

use std::cell::RefCell;

use arrayvec::ArrayString;

use crate::guard::Denial;
use crate::guard::denial::Tell;
use crate::guard::rates::Exceeded;
use crate::wire::http1::write;

thread_local! {
    /// `Date: …` with its line end, as of the last second; empty on a thread that is no worker.
    static DATE: RefCell<ArrayString<40>> = const { RefCell::new(ArrayString::new_const()) };
}

/// Sets what [`date`] writes, from milliseconds since the epoch. Called once a second: formatting a date is dear.
pub(crate) fn set_date(epoch_ms: u64) {
    let seconds = i64::try_from(epoch_ms / 1000).unwrap_or(0);
    let Ok(timestamp) = jiff::Timestamp::from_second(seconds) else { return };
    let text = timestamp.strftime("Date: %a, %d %b %Y %H:%M:%S GMT\r\n").to_string();
    DATE.with_borrow_mut(|date| {
        date.clear();
        let _ = date.try_push_str(&text);
    });
}

/// Appends the `Date` field (RFC 9110 §6.6.1).
pub(crate) fn date(out: &mut Vec<u8>) {
    DATE.with_borrow(|date| out.extend_from_slice(date.as_bytes()));
}

/// What an answer says about the connection and the cache.
#[derive(Clone, Copy, Default)]
pub(crate) struct Fields<'a> {
    /// The connection closes after this answer.
    pub(crate) close: bool,
    /// `Allow`.
    pub(crate) allow: Option<&'a str>,
    /// `Retry-After`, seconds.
    pub(crate) retry_after_s: Option<u64>,
    /// `RateLimit-Policy` and `RateLimit`, and `Retry-After` in any case.
    pub(crate) exceeded: Option<&'a Exceeded>,
    /// `WWW-Authenticate`.
    pub(crate) challenge: Option<&'a str>,
    /// `Mcp-Session-Id`.
    pub(crate) session: Option<&'a str>,
    /// `Cache-Control: no-store`, and `Pragma` for caches that know no better.
    pub(crate) no_store: bool,
    /// The fields that the answer to a refused upgrade needs.
    pub(crate) upgrade: Option<crate::wire::http1::Reject>,
}

/// Appends a whole answer. An empty body with 202 or 204 has no `Content-Type`.
pub(crate) fn whole(out: &mut Vec<u8>, status: u16, content_type: &str, body: &[u8], fields: Fields<'_>) {
    write::status_line(out, status);
    date(out);
    if !body.is_empty() {
        write::field(out, "Content-Type", content_type.as_bytes());
    }
    if status != 204 {
        write::field_decimal(out, "Content-Length", body.len() as u64);
    }
    extra(out, fields);
    write::end_head(out);
    out.extend_from_slice(body);
}

/// Appends the head of an answer whose body follows as chunks or, with `Content-Length`, as bytes.
pub(crate) fn extra(out: &mut Vec<u8>, fields: Fields<'_>) {
    if let Some(allow) = fields.allow {
        write::field(out, "Allow", allow.as_bytes());
    }
    if let Some(seconds) = fields.retry_after_s {
        write::field_decimal(out, "Retry-After", seconds);
    }
    if let Some(exceeded) = fields.exceeded {
        rate_fields(out, exceeded);
    }
    if let Some(challenge) = fields.challenge {
        write::field(out, "WWW-Authenticate", challenge.as_bytes());
    }
    if let Some(session) = fields.session {
        write::field(out, "Mcp-Session-Id", session.as_bytes());
    }
    if fields.no_store {
        write::field(out, "Cache-Control", b"no-store");
        write::field(out, "Pragma", b"no-cache");
    }
    if let Some(reject) = fields.upgrade {
        crate::wire::websocket::handshake::server::write_reject_fields(out, reject);
    }
    if fields.close {
        write::field(out, "Connection", b"close");
    }
}

/// What a limit is and when it is over (draft-ietf-httpapi-ratelimit-headers: a quota `q` in a window of `w` seconds, `r` left, more in `t`).
fn rate_fields(out: &mut Vec<u8>, exceeded: &Exceeded) {
    let (rule, retry_after_s) = (exceeded.limit.rule(), exceeded.retry_after_s());
    let (quota, window_s) = (exceeded.max, exceeded.window_ms.div_ceil(1000));
    write::field_decimal(out, "Retry-After", retry_after_s);
    write::field(out, "RateLimit-Policy", format!("\"{rule}\";q={quota};w={window_s}").as_bytes());
    write::field(out, "RateLimit", format!("\"{rule}\";r=0;t={retry_after_s}").as_bytes());
}

/// JSON under a status.
pub(crate) fn json(out: &mut Vec<u8>, status: u16, body: &[u8], close: bool) {
    whole(out, status, "application/json", body, Fields { close, ..Fields::default() });
}

/// `{"error": TEXT}` under a status.
pub(crate) fn error(out: &mut Vec<u8>, status: u16, text: &str, fields: Fields<'_>) {
    let mut body = Vec::with_capacity(text.len() + 16);
    body.extend_from_slice(b"{\"error\":");
    crate::rpc::reply::push_string(&mut body, text);
    body.push(b'}');
    whole(out, status, "application/json", &body, fields);
}

/// A denial that is told by status and a small JSON body.
pub(crate) fn denial(out: &mut Vec<u8>, denial: &Denial, challenge: &str, close: bool) {
    let (Tell::Http(status) | Tell::Rpc { status, .. }) = denial.tell() else {
        return error(out, 403, &denial.text(), Fields { close, ..Fields::default() });
    };
    let fields = Fields {
        close,
        challenge: (status == 401).then_some(challenge),
        retry_after_s: denial.retry_after_s(),
        exceeded: denial.exceeded(),
        ..Fields::default()
    };
    error(out, status, &denial.text(), fields);
}

/// Takes the body off an answer to HEAD.
pub(crate) fn cut_body(out: &mut Vec<u8>) {
    if let Some(end) = memchr::memmem::find(out, b"\r\n\r\n") {
        out.truncate(end + 4);
    }
}

/// The status of an answer that starts here; 0 if none does.
pub(crate) fn status_of(answer: &[u8]) -> u16 {
    let digits = answer.get(9..12).unwrap_or_default();
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}
