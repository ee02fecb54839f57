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
fn asked(answer: &'static [u8]) -> Result<(u16, String), HealthError> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/health", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 512];
        let read = stream.read(&mut request).unwrap();
        stream.write_all(answer).unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let asked = ask(&url);
    assert!(server.join().unwrap().starts_with("GET /health HTTP/1.1\r\nHost: 127.0.0.1:"));
    asked
}

#[test]
fn answers() {
    assert_eq!(asked(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready").unwrap(), (200, "ready".to_owned()));
    assert_eq!(asked(b"HTTP/1.1 503 X\r\n\r\nno\x1b[2J\n").unwrap(), (503, "no [2J".to_owned()));
    assert!(matches!(asked(b"SSH-2.0-x\r\n"), Err(HealthError::NotHttp(_))));
    assert!(matches!(asked(b""), Err(HealthError::NotHttp(_))));
    assert!(matches!(ask("http://127.0.0.1:1/"), Err(HealthError::NoAnswer(..))));
    assert!(matches!(ask("ftp://x/"), Err(HealthError::BadUrl(_))));
}

#[test]
fn exit_statuses() {
    let code = |url: &str| format!("{:?}", run(&HealthArgs { url: Some(url.to_owned()) }, 1));
    assert_eq!(code("http://127.0.0.1:1/"), format!("{:?}", ExitCode::FAILURE));
    assert_eq!(format!("{:?}", run(&HealthArgs { url: None }, 1)), format!("{:?}", ExitCode::FAILURE));
}
