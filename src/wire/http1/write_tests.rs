#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use super::super::request::parse_request;
use super::super::response::parse_response;
use super::*;
use proptest::prelude::*;

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn lines() {
    assert_eq!(written(|out| status_line(out, 200)), "HTTP/1.1 200 OK\r\n");
    assert_eq!(written(|out| status_line(out, 299)), "HTTP/1.1 299 \r\n");
    assert_eq!(written(|out| status_line(out, 7)), "HTTP/1.1 502 Bad Gateway\r\n");
    assert_eq!(written(|out| request_line(out, b"POST", b"/mcp")), "POST /mcp HTTP/1.1\r\n");
    assert_eq!(written(|out| field(out, "A", b"b\tc")), "A: b\tc\r\n");
    assert_eq!(written(|out| field(out, "A", b"b\r\nc\0\x7f")), "A: b  c  \r\n");
    assert_eq!(written(|out| field_decimal(out, "Content-Length", 0)), "Content-Length: 0\r\n");
    assert_eq!(written(end_head), "\r\n");
}

#[test]
fn numbers() {
    for value in [0, 1, 9, 10, 99, 100, 65_535, 4_294_967_296, u64::MAX] {
        assert_eq!(written(|out| decimal(out, value)), value.to_string());
        assert_eq!(written(|out| chunk_head(out, usize::try_from(value).unwrap())), format!("{value:x}\r\n"));
    }
    assert_eq!(written(|out| chunk(out, b"hello world!!!!!")), "10\r\nhello world!!!!!\r\n");
    assert_eq!(written(|out| chunk(out, b"")), "", "an empty chunk would end the body");
}

#[test]
fn request_fields_that_are_passed_on() {
    let received = b"POST /mcp HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer secret\r\nContent-Type: application/json\r\n\
        Accept: application/json\r\nACCEPT: text/event-stream\r\nCookie: a=b\r\nConnection: close, X-Hop\r\nx-hop: 1\r\n\
        Mcp-Session-Id: sealed\r\nMCP-Protocol-Version: 2025-11-25\r\nMcp-Param-City: Bern\r\nOrigin: http://a\r\n\
        X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil\r\nX-Real-IP: 1.2.3.4\r\nForwarded: for=1\r\nTE: trailers\r\n\
        Accept-Encoding: gzip\r\nUpgrade: h2c\r\nX_Forwarded_For: 1\r\ntraceparent: 00-1-2-01\r\nContent-Length: 0\r\n\
        Proxy-Authorization: x\r\nExpect: 100-continue\r\nEmpty:\r\nPadded:  \t x y \t\r\n\r\n";
    let mut head = RequestHead::default();
    parse_request(received, 0, &mut head).unwrap();
    assert_eq!(
        written(|out| copy_request_fields(out, &head, received, &["Empty".to_owned()])),
        "Content-Type: application/json\r\nAccept: application/json\r\nACCEPT: text/event-stream\r\n\
         MCP-Protocol-Version: 2025-11-25\r\nMcp-Param-City: Bern\r\ntraceparent: 00-1-2-01\r\nPadded: x y\r\n"
    );
}

#[test]
fn response_fields_that_are_passed_on() {
    let received =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nServer: uvicorn\r\nTransfer-Encoding: chunked\r\n\
        Mcp-Session-Id: inner\r\nSet-Cookie: a=b\r\nAccess-Control-Allow-Origin: *\r\nWWW-Authenticate: Basic\r\n\
        Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\n\
        Keep-Alive: timeout=5\r\nStrict-Transport-Security: max-age=1\r\nContent-Security-Policy-Report-Only: x\r\n\
        Content_Type: text/html\r\nRetry-After: 1\r\nAllow: POST\r\nDate: today\r\n\r\n";
    let mut head = ResponseHead::default();
    parse_response(received, 0, false, &mut head).unwrap();
    assert_eq!(
        written(|out| copy_response_fields(out, &head, received)),
        "Content-Type: text/event-stream\r\nCache-Control: no-cache, no-transform\r\n\
         Retry-After: 1\r\nAllow: POST\r\n"
    );
}

#[test]
fn stopped_names_are_compared_as_tokens_in_any_case() {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    for stop in REQUEST_NAMES.into_iter().chain(RESPONSE_NAMES) {
        assert!(stop.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')), "{stop:?}");
        let mut name = stop.to_vec();
        for at in 0..stop.len() {
            for byte in (0..=u8::MAX).filter(token) {
                name[at] = byte;
                assert_eq!(is_spelling_of(&name, stop), name.eq_ignore_ascii_case(stop), "{name:?}");
            }
            name[at] = stop[at].to_ascii_uppercase();
        }
    }
}

/// Names that are passed on, and names that are not, in spellings of both.
fn names() -> impl Strategy<Value = String> {
    let stopped: Vec<&[u8]> = REQUEST_NAMES.iter().chain(&REQUEST_PREFIXES).copied().collect();
    let stopped = proptest::sample::select(stopped).prop_map(|name| String::from_utf8(name.to_vec()).unwrap());
    let passed = prop_oneof![Just("accept".to_owned()), "x-[a-z]{1,20}", "[a-z][a-z_-]{0,24}", "[a-z]{30,70}"];
    (prop_oneof![stopped, passed], any::<bool>())
        .prop_map(|(name, upper)| if upper { name.to_ascii_uppercase() } else { name })
}

proptest! {
    /// However lines are copied together, they are those that would be copied one by one.
    #[test]
    fn fields_are_copied_as_one_by_one(
        fields in proptest::collection::vec((names(), "[ \t]{0,2}", "[!-~]([ -~]{0,9}[!-~])?", "[ \t]{0,2}"), 0..12),
        replaced in names(),
        spaced in any::<bool>(),
    ) {
        let mut received = "POST /mcp HTTP/1.1\r\nHost: a\r\n".to_owned();
        let mut expected = String::new();
        for (name, before, value, behind) in &fields {
            // Mostly as clients write them.
            let (before, behind) = if spaced { (before.as_str(), behind.as_str()) } else { (" ", "") };
            received += &format!("{name}:{before}{value}{behind}\r\n");
            let lower = name.to_ascii_lowercase();
            let is_stopped = REQUEST_NAMES.contains(&lower.as_bytes())
                || REQUEST_PREFIXES.iter().any(|prefix| lower.as_bytes().starts_with(prefix))
                || lower.contains('_')
                || lower == replaced.to_ascii_lowercase();
            if !is_stopped {
                expected += &format!("{name}: {value}\r\n");
            }
        }
        received += "\r\n";
        let mut head = RequestHead::default();
        prop_assume!(parse_request(received.as_bytes(), 0, &mut head).is_ok());
        // What `Connection` names is the other test's.
        prop_assume!(!received.to_ascii_lowercase().contains("\r\nconnection:"));
        let copied = written(|out| copy_request_fields(out, &head, received.as_bytes(), &[replaced]));
        prop_assert_eq!(copied, expected);
    }
}
