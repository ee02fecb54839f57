//! `x-mcp-header`: which schemas declare what, and how `Mcp-Param-*` compares with the arguments.

use crate::rpc::era::EraFault;
use crate::rpc::{ParamHeaders, Parser, scan};

fn declared(schema: &str) -> Option<Vec<(String, String)>> {
    let raw = schema.as_bytes();
    let found = ParamHeaders::from_schema(raw, scan::value(raw).unwrap()).ok()?;
    assert_eq!(found.is_empty(), found.declared().is_empty());
    Some(found.declared().iter().map(|d| (d.suffix.to_string(), d.path.join("/"))).collect())
}

#[test]
fn annotations() {
    let one = |suffix: &str, path: &str| Some(vec![(suffix.to_owned(), path.to_owned())]);
    for (schema, want) in [
        (r#"{"type":"object"}"#, Some(vec![])),
        (r#"{"properties":{"r":{"type":"string","x-mcp-header":"Region"}}}"#, one("Region", "r")),
        (r#"{"properties":{"r":{"x-mcp-h\u0065ader":"R","type":"integer"}}}"#, one("R", "r")),
        (
            r#"{"properties":{"a":{"type":"object","properties":{"b":{"type":"boolean","x-mcp-header":"B"}}}}}"#,
            one("B", "a/b"),
        ),
        // A property of that name is no annotation, nor is data.
        (r#"{"properties":{"x-mcp-header":{"type":"string"}},"default":{"x-mcp-header":1}}"#, Some(vec![])),
        (r#"{"properties":{"r":{"type":"number","x-mcp-header":"R"}}}"#, None),
        (r#"{"properties":{"r":{"type":["string","null"],"x-mcp-header":"R"}}}"#, None),
        (r#"{"properties":{"r":{"x-mcp-header":"R"}}}"#, None),
        (r#"{"properties":{"r":{"type":"string","x-mcp-header":""}}}"#, None),
        (r#"{"properties":{"r":{"type":"string","x-mcp-header":"a b"}}}"#, None),
        (r#"{"properties":{"r":{"type":"string","x-mcp-header":"a:"}}}"#, None),
        (r#"{"properties":{"r":{"type":"string","x-mcp-header":7}}}"#, None),
        (r#"{"properties":{"r":{"type":"string","x-mcp-header":"R"},"s":{"type":"string","x-mcp-header":"r"}}}"#, None),
        (r#"{"type":"string","x-mcp-header":"R"}"#, None),
        (r#"{"properties":{"r":{"type":"array","items":{"type":"string","x-mcp-header":"R"}}}}"#, None),
        (r#"{"anyOf":[{"properties":{"r":{"type":"string","x-mcp-header":"R"}}}]}"#, None),
        (r#"{"$defs":{"d":{"type":"string","x-mcp-header":"R"}}}"#, None),
    ] {
        assert_eq!(declared(schema), want, "{schema}");
    }
    let many = |n: usize| {
        let all: Vec<_> = (0..n).map(|i| format!(r#""p{i}":{{"type":"string","x-mcp-header":"P{i}"}}"#)).collect();
        declared(&format!(r#"{{"properties":{{{}}}}}"#, all.join(",")))
    };
    assert_eq!(many(64).map(|all| all.len()), Some(64));
    assert_eq!(many(65), None);
}

#[test]
fn headers_against_arguments() {
    let schema =
        br#"{"properties":{"s":{"type":"string","x-mcp-header":"S"},"i":{"type":"integer","x-mcp-header":"Int"},
        "o":{"properties":{"b":{"type":"boolean","x-mcp-header":"B"}}}}}"#;
    let table = ParamHeaders::from_schema(schema, scan::value(schema).unwrap()).unwrap();
    let ok = Ok(());
    let (missing, differs) = (Err(EraFault::ParamMissing), Err(EraFault::ParamDiffers));
    type Fields<'a> = &'a [(&'a str, &'a str)];
    for (arguments, headers, want) in [
        (r#"{}"#, &[][..] as Fields<'_>, ok),
        (r#"{}"#, &[("mcp-param-other", "x"), ("Mcp-Param-Sx", "x")], ok),
        (r#"{"s":"Hello"}"#, &[("Mcp-Param-S", "Hello")], ok),
        (r#"{"s":"Hello"}"#, &[("mcp-PARAM-s", " Hello ")], ok),
        (r#"{"s":"Hello"}"#, &[("Mcp-Param-S", "=?base64?SGVsbG8=?=")], ok),
        (r#"{"s":"Hello"}"#, &[("Mcp-Param-S", "=?base64?SGVsbG8?=")], differs),
        (r#"{"s":"Hello"}"#, &[("Mcp-Param-S", "=?base64?SGVs!!!bG8=?=")], differs),
        (r#"{"s":"SGVsbG8="}"#, &[("Mcp-Param-S", "SGVsbG8=")], ok),
        (r#"{"s":"=?base64?SGVsbG8="}"#, &[("Mcp-Param-S", "=?base64?SGVsbG8=")], ok),
        (r#"{"s":"Hello"}"#, &[("Mcp-Param-S", "hello")], differs),
        (r#"{"s":"test-value"}"#, &[], missing),
        (r#"{"s":"x"}"#, &[("Mcp-Param-S", "x"), ("mcp-param-s", "x")], Err(EraFault::HeaderRepeated)),
        (r#"{"s":"é"}"#, &[("Mcp-Param-S", "é")], Err(EraFault::HeaderCharacter)),
        (r#"{}"#, &[("Mcp-Param-S", "x")], differs),
        (r#"{"s":null}"#, &[("Mcp-Param-S", "null")], differs),
        (r#"{"s":null}"#, &[], ok),
        (r#"{"s":{}}"#, &[("Mcp-Param-S", "{}")], differs),
        (r#"{"s":[1]}"#, &[], ok),
        (r#"{"i":42}"#, &[("Mcp-Param-Int", "42.0")], ok),
        (r#"{"i":42.0}"#, &[("Mcp-Param-Int", "42")], ok),
        (r#"{"i":9007199254740993}"#, &[("Mcp-Param-Int", "9007199254740993")], ok),
        (r#"{"i":9007199254740993}"#, &[("Mcp-Param-Int", "9007199254740992")], differs),
        (r#"{"i":42}"#, &[("Mcp-Param-Int", "43")], differs),
        (r#"{"i":42}"#, &[("Mcp-Param-Int", "4.2e1")], differs),
        (r#"{"i":42}"#, &[], missing),
        (r#"{"i":4.5}"#, &[("Mcp-Param-Int", "4.5")], differs),
        (r#"{"i":4.5}"#, &[], ok),
        (r#"{"o":{"b":true}}"#, &[("Mcp-Param-B", "true")], ok),
        (r#"{"o":{"b":true}}"#, &[("Mcp-Param-B", "True")], differs),
        (r#"{"o":{"b":false}}"#, &[], missing),
        (r#"{"o":[]}"#, &[("Mcp-Param-B", "true")], differs),
        (r#"{"b":true}"#, &[], ok),
    ] {
        let raw = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{arguments}}}}}"#
        );
        let envelope = Parser::new(64).parse(raw.as_bytes()).unwrap();
        let fields = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        assert_eq!(table.check(fields, &envelope, raw.as_bytes()), want, "{arguments} {headers:?}");
    }
    let raw = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}"#;
    let envelope = Parser::new(64).parse(raw).unwrap();
    assert_eq!(table.check(std::iter::empty(), &envelope, raw), Ok(()));
}
