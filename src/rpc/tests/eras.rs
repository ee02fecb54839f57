//! Eras and mirrored headers: every rule of spec/mcp.md, "2026-07-28".

use crate::rpc::era::{Era, EraFault, Header, Mirrored, Revision, decide, decide_batch, decide_bodiless};
use crate::rpc::{Envelope, Parser};

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

fn parse(raw: &str) -> Envelope {
    Parser::new(64).parse(raw.as_bytes()).unwrap_or_else(|fault| panic!("{fault}: {raw}"))
}

fn request(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}}}}}"#)
}

fn header(value: Option<&str>) -> Header<'_> {
    value.map_or(Header::Absent, |value| Header::One(value.as_bytes()))
}

fn decided(headers: [Option<&str>; 3], raw: &str) -> Result<Era, EraFault> {
    let [version, method, name] = headers.map(header);
    decide(&Mirrored { version, method, name }, &parse(raw), raw.as_bytes())
}

const V: Option<&str> = Some("2026-07-28");

#[test]
fn modern_requests() {
    let list = request("tools/list", META);
    let call = request("tools/call", &format!(r#""name":"echo",{META}"#));
    let read = request("resources/read", &format!(r#""uri":"file:///\u00e9",{META}"#));
    let get = request("prompts/get", &format!(r#""name":"p",{META}"#));
    let task = request("tasks/get", &format!(r#""taskId":"t1",{META}"#));
    let no_task = request("tasks/cancel", META);
    let odd = request("x/y", META);
    let (l, c, r, g) = (Some("tools/list"), Some("tools/call"), Some("resources/read"), Some("prompts/get"));
    for (name, headers, raw, want) in [
        ("list", [V, l, None], &list, Ok(Era::Modern)),
        ("list with a name that means nothing", [V, l, Some("x")], &list, Ok(Era::Modern)),
        ("blanks around", [Some(" 2026-07-28\t"), Some("  tools/list "), None], &list, Ok(Era::Modern)),
        ("another method", [V, Some("prompts/list"), None], &list, Err(EraFault::MethodDiffers)),
        ("method in capitals", [V, Some("TOOLS/LIST"), None], &list, Err(EraFault::MethodDiffers)),
        (
            "no sentinel for methods",
            [V, Some("=?base64?dG9vbHMvbGlzdA==?="), None],
            &list,
            Err(EraFault::MethodDiffers),
        ),
        ("no method", [V, None, None], &list, Err(EraFault::MethodMissing)),
        ("call", [V, c, Some("echo")], &call, Ok(Era::Modern)),
        ("call, blanks", [V, c, Some("  echo  ")], &call, Ok(Era::Modern)),
        ("call, base64", [V, c, Some("=?base64?ZWNobw==?=")], &call, Ok(Era::Modern)),
        ("call, bad base64", [V, c, Some("=?base64?ZWNobw?=")], &call, Err(EraFault::NameDiffers)),
        ("call, another name", [V, c, Some("wrong")], &call, Err(EraFault::NameDiffers)),
        ("call, name in capitals", [V, c, Some("Echo")], &call, Err(EraFault::NameDiffers)),
        ("call, no name", [V, c, None], &call, Err(EraFault::NameMissing)),
        ("call, empty name", [V, c, Some("")], &call, Err(EraFault::NameDiffers)),
        ("call, raw UTF-8", [V, c, Some("é")], &call, Err(EraFault::HeaderCharacter)),
        ("read", [V, r, Some("=?base64?ZmlsZTovLy/DqQ==?=")], &read, Ok(Era::Modern)),
        ("read, no name", [V, r, None], &read, Err(EraFault::NameMissing)),
        ("get", [V, g, Some("p")], &get, Ok(Era::Modern)),
        ("get, no name", [V, g, None], &get, Err(EraFault::NameMissing)),
        ("task", [V, Some("tasks/get"), Some("t1")], &task, Ok(Era::Modern)),
        ("task, no name", [V, Some("tasks/get"), None], &task, Ok(Era::Modern)),
        ("task, another name", [V, Some("tasks/get"), Some("t2")], &task, Err(EraFault::NameDiffers)),
        ("name of no task", [V, Some("tasks/cancel"), Some("t1")], &no_task, Err(EraFault::NameDiffers)),
        ("unknown methods are the server's", [V, Some("x/y"), None], &odd, Ok(Era::Modern)),
        ("header missing", [None, l, None], &list, Err(EraFault::VersionMissing)),
        ("header of the other era", [Some("2025-11-25"), l, None], &list, Err(EraFault::VersionDiffers)),
        ("unknown header, known _meta", [Some("v999.0.0"), l, None], &list, Err(EraFault::VersionDiffers)),
    ] {
        assert_eq!(decided(headers, raw), want, "{name}");
    }
    for method in ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"] {
        let raw = request(method, META);
        let got = decided([V, Some(method), None], &raw).unwrap_err();
        assert_eq!((got, got.status(), got.code()), (EraFault::RemovedMethod, 404, -32601), "{method}");
    }
}

#[test]
fn what_meta_must_say() {
    let m = Some("tools/list");
    let key = |name: &str| format!("\"io.modelcontextprotocol/{name}\"");
    let (version, capabilities, info) = (key("protocolVersion"), key("clientCapabilities"), key("clientInfo"));
    let now = "\"2026-07-28\"";
    for (params, header, want) in [
        (String::new(), V, Err(EraFault::MetaMissing)),
        (r#""_meta":{}"#.to_owned(), V, Err(EraFault::MetaVersion)),
        (format!(r#""_meta":{{{version}:1,{capabilities}:{{}}}}"#), V, Err(EraFault::MetaVersion)),
        (format!(r#""_meta":{{{version}:{now}}}"#), V, Err(EraFault::MetaCapabilities)),
        (format!(r#""_meta":{{{version}:{now},{capabilities}:[]}}"#), V, Err(EraFault::MetaCapabilities)),
        (format!(r#""_meta":{{{version}:{now},{capabilities}:{{}},{info}:"me"}}"#), V, Err(EraFault::MetaClientInfo)),
        (format!(r#""_meta":{{{version}:{now},{capabilities}:{{}},{info}:{{}}}}"#), V, Ok(Era::Modern)),
        (format!(r#""_meta":{{{version}:"v999.0.0",{capabilities}:{{}}}}"#), V, Err(EraFault::VersionDiffers)),
        (format!(r#""_meta":{{{version}:"v9",{capabilities}:{{}}}}"#), Some("v9"), Err(EraFault::UnsupportedVersion)),
        (String::new(), Some("v9"), Err(EraFault::UnsupportedVersion)),
        (format!(r#""_meta":{{{version}:7}}"#), None, Err(EraFault::VersionMissing)),
    ] {
        let raw = request("tools/list", &params);
        assert_eq!(decided([header, m, None], &raw), want, "{raw}");
    }
    // No params at all.
    assert_eq!(decided([V, m, None], r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#), Err(EraFault::MetaMissing));
}

#[test]
fn other_messages() {
    let note = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    assert_eq!(decided([V, None, None], note), Ok(Era::Modern));
    assert_eq!(decided([Some("v9"), None, None], note), Err(EraFault::UnsupportedVersion));
    assert_eq!(decided([None; 3], note), Ok(Era::Legacy(Revision::V2025_03_26)));
    let answer = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    assert_eq!(decided([V, None, None], answer), Err(EraFault::PostedResponse));
    assert_eq!(decided([Some("2025-11-25"), None, None], answer), Ok(Era::Legacy(Revision::V2025_11_25)));
    assert_eq!((EraFault::PostedResponse.code(), EraFault::Batch.code()), (-32600, -32600));
}

#[test]
fn sessions() {
    let raw = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
    for revision in Revision::ALL {
        assert_eq!(decided([Some(revision.as_str()), None, None], raw), Ok(Era::Legacy(revision)));
        // Clients send the new headers early: harmless.
        assert_eq!(decided([Some(revision.as_str()), Some("x"), Some("y")], raw), Ok(Era::Legacy(revision)));
        assert_eq!(decide_bodiless(header(Some(revision.as_str()))), Ok(Era::Legacy(revision)));
        let batch = decide_batch(header(Some(revision.as_str())));
        assert_eq!(batch.is_ok(), revision == Revision::V2025_03_26, "{revision:?}");
    }
    assert_eq!(decided([None; 3], raw), Ok(Era::Legacy(Revision::V2025_03_26)));
    assert_eq!(decided([Some("2025-11-26"), None, None], raw), Err(EraFault::UnsupportedVersion));
    assert_eq!(decide_bodiless(Header::Absent), Ok(Era::Legacy(Revision::V2025_03_26)));
    assert_eq!(decide_bodiless(header(V)), Ok(Era::Modern));
    assert_eq!(decide_bodiless(header(Some("1.0"))), Err(EraFault::UnsupportedVersion));
    assert_eq!(decide_batch(Header::Absent), Ok(Era::Legacy(Revision::V2025_03_26)));
    assert_eq!(decide_batch(header(V)), Err(EraFault::Batch));
}

#[test]
fn headers_that_came_twice() {
    let raw = request("tools/call", &format!(r#""name":"echo",{META}"#));
    for twice in 0..3 {
        let mut headers = [Header::Absent; 3];
        for (i, value) in [&b"2026-07-28"[..], b"tools/call", b"echo"].into_iter().enumerate() {
            headers[i].add(value);
            if i == twice {
                headers[i].add(value);
            }
        }
        let [version, method, name] = headers;
        let got = decide(&Mirrored { version, method, name }, &parse(&raw), raw.as_bytes()).unwrap_err();
        assert_eq!((got, got.code(), got.status()), (EraFault::HeaderRepeated, -32020, 400));
    }
}

#[test]
fn unsupported_versions_are_told_what_is_supported() {
    for (version, requested) in [
        (Header::One(b" v999.0.0 "), "v999.0.0".to_owned()),
        (Header::One(b"a\"b\\c"), "a\"b\\c".to_owned()),
        (Header::One(&[b'v'; 500]), "v".repeat(64)),
        (Header::One(b"\xFF"), String::new()),
    ] {
        let mut out = Vec::new();
        assert!(EraFault::UnsupportedVersion.write_data(version, &mut out));
        let data: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(data, serde_json::json!({"supported": ["2026-07-28"], "requested": requested}));
        assert!(!EraFault::NameMissing.write_data(version, &mut out));
    }
    assert_eq!((EraFault::UnsupportedVersion.code(), EraFault::UnsupportedVersion.status()), (-32022, 400));
}
