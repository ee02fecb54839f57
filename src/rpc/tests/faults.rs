//! Every fault of a message that is JSON: its code, its text, and the id that the answer echoes.

use super::refused;
use crate::rpc::{AgentId, Fault, IdKind, Kind, Member, Method, Parser};

#[test]
fn not_a_message() {
    for (raw, fault, id) in [
        ("[]", Fault::Batch, None),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, Fault::Batch, None),
        ("1", Fault::NotObject, None),
        ("null", Fault::NotObject, None),
        (r#""x""#, Fault::NotObject, None),
        ("{}", Fault::JsonRpc, None),
        (r#"{"id":1,"method":"m"}"#, Fault::JsonRpc, Some("1")),
        (r#"{"jsonrpc":2.0,"id":"a","method":"m"}"#, Fault::JsonRpc, Some("\"a\"")),
        (r#"{"jsonrpc":"2","id":1,"method":"m"}"#, Fault::JsonRpc, Some("1")),
        (r#"{"jsonrpc":"2.0 ","id":1,"method":"m"}"#, Fault::JsonRpc, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1}"#, Fault::NoMethod, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, Fault::MethodType, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":null}"#, Fault::MethodType, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":""}"#, Fault::MethodType, Some("1")),
        (r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#, Fault::IdType, None),
        (r#"{"jsonrpc":"2.0","id":1.0,"method":"m"}"#, Fault::IdType, None),
        (r#"{"jsonrpc":"2.0","id":1e3,"method":"m"}"#, Fault::IdType, None),
        (r#"{"jsonrpc":"2.0","id":true,"method":"m"}"#, Fault::IdType, None),
        (r#"{"jsonrpc":"2.0","id":{},"method":"m"}"#, Fault::IdType, None),
        (r#"{"jsonrpc":"2.0","id":[1],"method":"m"}"#, Fault::IdType, None),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"m"}"#, Fault::DuplicateKey, None),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#, Fault::DuplicateKey, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","meth\u006fd":"b"}"#, Fault::DuplicateKey, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","Method":"b"}"#, Fault::Lookalike, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","ID":2}"#, Fault::Lookalike, Some("1")),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\",\"param\u{17f}\":{}}", Fault::Lookalike, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","result":{}}"#, Fault::RequestAndResponse, Some("1")),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m","error":{"code":1,"message":""}}"#,
            Fault::RequestAndResponse,
            Some("1"),
        ),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}"#, Fault::ResultAndError, Some("1")),
        (r#"{"jsonrpc":"2.0","result":{}}"#, Fault::NoId, None),
        (r#"{"jsonrpc":"2.0","id":null,"result":{}}"#, Fault::NoId, None),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1.5,"message":""}}"#, Fault::ErrorShape, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1}}"#, Fault::ErrorShape, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"message":"m"}}"#, Fault::ErrorShape, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"error":"m"}"#, Fault::ErrorShape, Some("1")),
    ] {
        let got = refused(raw.as_bytes());
        assert_eq!((got.code(), got.fault), (-32600, fault), "{raw}");
        assert_eq!(got.id.map(|id| id.span.of(raw.as_bytes())), id.map(str::as_bytes), "{raw}");
    }
    let long = |n: usize| format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"m"}}"#, "i".repeat(n));
    assert!(Parser::new(64).parse(long(1022).as_bytes()).is_ok());
    assert_eq!(refused(long(1023).as_bytes()).fault, Fault::IdTooLong);
    let long = |n: usize| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, "m".repeat(n));
    assert!(Parser::new(64).parse(long(256).as_bytes()).is_ok());
    assert_eq!(refused(long(257).as_bytes()).fault, Fault::MethodTooLong);
}

#[test]
fn wrong_params() {
    for (method, params, text) in [
        ("m", "[1]", "an object is required at /params"),
        ("m", "7", "an object is required at /params"),
        ("m", "null", "an object is required at /params"),
        ("m", r#"{"_meta":[]}"#, "an object is required at /params/_meta"),
        ("m", r#"{"_meta":{"progressToken":null}}"#, "a string or a number is required at /params/_meta/progressToken"),
        ("tools/call", "{}", "a string is required at /params/name"),
        ("tools/call", r#"{"name":1}"#, "a string is required at /params/name"),
        ("tools/call", r#"{"name":"n","arguments":[]}"#, "an object is required at /params/arguments"),
        ("tools/call", r#"{"name":"n","arguments":null}"#, "an object is required at /params/arguments"),
        ("prompts/get", r#"{"uri":"n"}"#, "a string is required at /params/name"),
        ("resources/read", r#"{"name":"n"}"#, "a string is required at /params/uri"),
        ("notifications/cancelled", r#"{"requestId":{}}"#, "a string or a number is required at /params/requestId"),
        (
            "notifications/progress",
            r#"{"progressToken":[]}"#,
            "a string or a number is required at /params/progressToken",
        ),
    ] {
        let raw = format!(r#"{{"jsonrpc":"2.0","id":"x","method":"{method}","params":{params}}}"#);
        let got = refused(raw.as_bytes());
        assert_eq!((got.code(), got.to_string()), (-32602, format!("Invalid params: {text}")));
        assert_eq!(got.id.map(|id| id.span.of(raw.as_bytes())), Some(&b"\"x\""[..]));
    }
    let bare = refused(br#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#);
    assert_eq!(bare.to_string(), "Invalid params: a string is required at /params/name");
    for (method, params, pointer) in [
        ("tools/call", r#"{"name":"n","Name":"x"}"#, "/params"),
        ("tools/call", r#"{"name":"n","ARGUMENTS":{}}"#, "/params"),
        ("tools/list", r#"{"_META":{}}"#, "/params"),
        ("tools/list", r#"{"_meta":{"io.modelcontextprotocol/ProtocolVersion":""}}"#, "/params/_meta"),
        ("tools/list", r#"{"_meta":{"IO.modelcontextprotocol/clientInfo":""}}"#, "/params/_meta"),
        ("tools/list", "{\"_meta\":{\"progressTo\u{212a}en\":1}}", "/params/_meta"),
        ("tools/list", r#"{"_meta":{"progresstoken":1}}"#, "/params/_meta"),
    ] {
        let raw = format!(r#"{{"jsonrpc":"2.0","id":"x","method":"{method}","params":{params}}}"#);
        let got = refused(raw.as_bytes());
        assert_eq!((got.fault, got.pointer.as_str()), (Fault::Lookalike, pointer), "{raw}");
    }
}

#[test]
fn texts_say_where_and_never_what() {
    let raw =
        br#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":[0,{"b/c":{"secret":"hunter2","secret":"hunter3"}}]}}"#;
    let got = refused(raw);
    assert_eq!(
        got.to_string(),
        "Invalid request: duplicate key at /params/a/1/b~1c, byte 81: JSON readers disagree on which one counts"
    );
    assert_eq!(raw[got.at as usize..][..8], *b"\"secret\"");
    assert_eq!(got.rule(), "duplicate-key");
}

#[test]
fn accepted_shapes() {
    let parse = |raw: &str| Parser::new(64).parse(raw.as_bytes()).unwrap_or_else(|fault| panic!("{fault}: {raw}"));
    for (raw, kind, id) in [
        (r#"{"jsonrpc":"2.0","id":-7,"method":"m"}"#, Kind::Request, Some(IdKind::Integer)),
        (r#"{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"m"}"#, Kind::Request, Some(IdKind::Integer)),
        (r#" {"id":"","method":"m","jsonrpc":"2\u002e0","extra":[{"a":1}]} "#, Kind::Request, Some(IdKind::String)),
        (r#"{"jsonrpc":"2.0","method":"m"}"#, Kind::Notification, None),
        (r#"{"jsonrpc":"2.0","id":1,"result":null}"#, Kind::Response, Some(IdKind::Integer)),
        (r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":""}}"#, Kind::ErrorResponse, Some(IdKind::Null)),
        (r#"{"jsonrpc":"2.0","error":{"code":1,"message":"m","data":{}}}"#, Kind::ErrorResponse, None),
    ] {
        let envelope = parse(raw);
        assert_eq!((envelope.kind, envelope.id.map(|id| id.kind)), (kind, id), "{raw}");
    }
    let raw =
        r#"{"jsonrpc":"2.0","id":1,"result":{"isError":true,"_meta":{"io.modelcontextprotocol/subscriptionId":9}}}"#;
    let envelope = parse(raw);
    assert!(envelope.result_is_error);
    assert_eq!(envelope.subscription_id.map(|span| span.of(raw.as_bytes())), Some(&b"9"[..]));
    let raw = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"n","arguments":{"AgentID":"a","agentId":"b"}}}"#;
    assert!(matches!(parse(raw).agent_id, AgentId::Lookalike(span) if span.of(raw.as_bytes()) == b"\"a\""));
    let raw = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
    let envelope = parse(raw);
    assert_eq!(envelope.method, Method::Initialize);
    assert!(matches!(envelope.protocol_version, Member::Text(text) if text.decode(raw.as_bytes()) == "2025-11-25"));
}
