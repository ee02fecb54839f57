//! What is no JSON, what is a batch, and what many keys cost.

use super::refused;
use crate::rpc::{Fault, Parser, Span};

#[test]
fn not_json() {
    let deep = |n: usize| [&b"{\"a\":"[..], &b"[".repeat(n), &b"]".repeat(n), b"}"].concat();
    for (raw, fault, text) in [
        (&b""[..], Fault::Empty, "Parse error: empty message"),
        (b" \r\n", Fault::Empty, "Parse error: empty message"),
        (b"\xEF\xBB\xBF{}", Fault::ByteOrderMark, "Parse error: byte order mark"),
        (b"{\"a\":\"\xFF\"}", Fault::Utf8, "Parse error: not UTF-8 at byte 6"),
        (b"{\"a\":\"\xED\xA0\x80\"}", Fault::Utf8, "Parse error: not UTF-8 at byte 6"),
        (b"{} {}", Fault::TrailingBytes, "Parse error: more bytes after the message at byte 3"),
        (b"{}\0", Fault::TrailingBytes, "Parse error: more bytes after the message at byte 2"),
        (b"{\"a\":1", Fault::Syntax, "Parse error: not JSON at byte 6"),
        (b"{\"a\":\"x", Fault::Syntax, "Parse error: not JSON at byte 7"),
        (b"{\"a\":\"x\ny\"}", Fault::Syntax, "Parse error: not JSON at byte 7"),
        (b"{\"a\":tru}", Fault::Syntax, "Parse error: not JSON at byte 5"),
        (b"{\"a\":\"\\ud800\"}", Fault::Syntax, "Parse error: not JSON at byte 5"),
        (b"{'a':1}", Fault::Syntax, "Parse error: not JSON at byte 1"),
        (&deep(64), Fault::TooDeep { max: 64 }, "Parse error: nesting deeper than 64 at byte 68"),
        (&b"[".repeat(100_000), Fault::TooDeep { max: 64 }, "Parse error: nesting deeper than 64 at byte 64"),
    ] {
        let got = refused(raw);
        assert_eq!(got.code(), -32700);
        assert_eq!(got.fault, fault, "{got}");
        // Where exactly a token is broken is the parser's to say.
        if fault == Fault::Syntax {
            assert!(got.to_string().starts_with("Parse error: not JSON at byte "), "{got}, {text}");
        } else {
            assert_eq!(got.to_string(), text);
        }
        assert_eq!(got.id, None);
    }
    assert_eq!(refused(&deep(63)).fault, Fault::JsonRpc);
}

#[test]
fn batches() {
    let split = |raw: &str| {
        let mut out = Vec::new();
        Parser::new(64).parse_batch(raw.as_bytes(), &mut out).map(|()| out).map_err(|fault| fault.fault)
    };
    assert_eq!(split("[1, {} ]"), Ok(vec![Span::new(1, 2), Span::new(4, 6)]));
    assert_eq!(split("[]"), Err(Fault::EmptyBatch));
    assert_eq!(split("{}"), Err(Fault::NotBatch));
    assert_eq!(split("[1"), Err(Fault::Syntax));
    assert_eq!(split(&format!("[{}1]", "1,".repeat(63))).map(|all| all.len()), Ok(64));
    assert_eq!(split(&format!("[{}1]", "1,".repeat(64))), Err(Fault::LargeBatch));
}

/// Ten megabytes of keys, or of small objects full of keys, must not take quadratic time. What is compared is this thread's time on a core, of
/// many and of a quarter of them: neither a slow machine nor a busy one changes how they stand to each other.
#[test]
fn many_keys_take_linear_time() {
    let keys: Vec<String> = (0..200_000).map(|i| format!("\"{i:x}\":0")).collect();
    let one = |share: usize| format!("{{{}}}", keys[..keys.len() / share].join(","));
    let objects = |share: usize| format!("[{}1]", format!("{{{}}},", keys[..16].join(",")).repeat(10_000 / share));
    let on_core = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
    };
    let cost = |params: &str| {
        let raw = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"v":{params}}}}}"#);
        let best = (0..3).map(|_| {
            let (mut parser, began) = (Parser::new(64), on_core());
            assert!(parser.parse(raw.as_bytes()).is_ok());
            on_core() - began
        });
        best.fold(f64::MAX, f64::min)
    };
    for (quarter, whole) in [(one(4), one(1)), (objects(4), objects(1))] {
        let (quarter, whole) = (cost(&quarter), cost(&whole));
        // Linear is 4, quadratic 16.
        assert!(whole < 9.0 * quarter, "{whole} s against {quarter} s");
    }
}
