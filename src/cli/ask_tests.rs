#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::TcpListener;

use super::*;

#[test]
fn urls() {
    let url = |authority, host, port, path| Some(Url { authority, host, port, path });
    let cases = [
        ("http://127.0.0.1:9501/health", url("127.0.0.1:9501", "127.0.0.1", 9501, "/health")),
        ("http://localhost", url("localhost", "localhost", 80, "/")),
        ("http://[::1]:9501/a/b?c", url("[::1]:9501", "::1", 9501, "/a/b?c")),
        ("http://[::1]/", url("[::1]", "::1", 80, "/")),
        ("https://localhost/", None),
        ("localhost:9501", None),
        ("http://", None),
        ("http://:80/", None),
        ("http://h:99999/", None),
        ("http://h:/", None),
        ("http://[::1]x/", None),
        ("http://h/a b", None),
        ("http://h/\r\nX: y", None),
    ];
    for (text, want) in cases {
        assert_eq!(parse(text), want, "{text}");
    }
}

/// What `ask` makes of one scripted answer.
fn asked(answer: &'static [u8]) -> Result<(u16, String), AskError> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/health", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 512];
        let read = stream.read(&mut request).unwrap();
        stream.write_all(answer).unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let asked = ask("GET", &url, None);
    assert!(server.join().unwrap().starts_with("GET /health HTTP/1.1\r\nHost: 127.0.0.1:"));
    asked
}

#[test]
fn answers() {
    assert_eq!(asked(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready").unwrap(), (200, "ready".to_owned()));
    assert_eq!(asked(b"HTTP/1.1 503 X\r\n\r\nno\x1b[2J\n").unwrap(), (503, "no [2J".to_owned()));
    assert!(matches!(asked(b"SSH-2.0-x\r\n"), Err(AskError::NotHttp(_))));
    assert!(matches!(asked(b""), Err(AskError::NotHttp(_))));
    assert!(matches!(ask("GET", "http://127.0.0.1:1/", None), Err(AskError::NoAnswer(..))));
    assert!(matches!(ask("GET", "ftp://x/", None), Err(AskError::BadUrl(_))));
}

#[test]
fn a_token_is_shown_and_problems_are_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let api = AdminApi { at: listener.local_addr().unwrap(), token: Secret::new("the-token") };
    let answers = [
        ("200 OK", "{\"a\":1}", Ok("{\"a\":1}")),
        ("202 Accepted", "{}", Ok("{}")),
        ("401 Unauthorized", "", Err("started with another one")),
        ("403 Forbidden", "", Err("ADMIN_IP_ALLOWLIST")),
        ("503 Service Unavailable", "", Err("set one there")),
        ("404 Not Found", "{\"detail\":\"No \\u001b[31m connection\"}", Err("No  [31m connection")),
        ("500 X", "broken", Err("answers 500: broken")),
    ];
    for (status, body, expected) in answers {
        let server = std::thread::spawn({
            let listener = listener.try_clone().unwrap();
            move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 512];
                let read = stream.read(&mut request).unwrap();
                stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n{body}").as_bytes()).unwrap();
                String::from_utf8_lossy(&request[..read]).into_owned()
            }
        });
        match (api.ask("DELETE", "/admin/x"), expected) {
            (Ok(body), Ok(expected)) => assert_eq!(body, expected),
            (Err(text), Err(expected)) => assert!(text.contains(expected) && !text.contains("the-token"), "{text}"),
            other => panic!("{status}: {other:?}"),
        }
        let request = server.join().unwrap();
        assert!(request.starts_with("DELETE /admin/x HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nAuthorization: Bearer the-token\r\n"), "{request}");
    }
}
