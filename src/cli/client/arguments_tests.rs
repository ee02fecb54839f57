#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;

/// What is made of one required argument with this schema.
fn made(schema: &Value) -> Result<Value, String> {
    let all = make(&json!({"type": "object", "properties": {"a": schema}, "required": ["a"]}))?;
    Ok(all.get("a").cloned().unwrap())
}

#[test]
fn values_that_schemas_allow() {
    let cases = [
        (json!({"type": "string"}), json!("hello")),
        (json!({"type": "string", "minLength": 8}), json!("hellohel")),
        (json!({"type": "string", "maxLength": 2}), json!("he")),
        (json!({"type": "string", "maxLength": 10_000}), json!("hello")),
        (json!({"type": "string", "format": "email"}), json!("nobody@example.com")),
        (json!({"type": "string", "const": "x", "pattern": "x"}), json!("x")),
        (json!({"enum": ["red", "green"]}), json!("red")),
        (json!({"type": "string", "default": "given", "pattern": "g"}), json!("given")),
        (json!({"type": "string", "examples": ["Paris"]}), json!("Paris")),
        (json!({"type": ["string", "null"]}), json!("hello")),
        (json!({"type": "integer"}), json!(1)),
        (json!({"type": "integer", "minimum": 5, "maximum": 9}), json!(5)),
        (json!({"type": "integer", "exclusiveMinimum": 5}), json!(6)),
        (json!({"type": "integer", "maximum": -3}), json!(-3)),
        (json!({"type": "integer", "exclusiveMaximum": 1}), json!(0)),
        (json!({"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 2}), json!(1.5)),
        (json!({"type": "number", "minimum": 10.5}), json!(10.5)),
        (json!({"type": "boolean", "description": "whether"}), json!(false)),
        (json!({"type": "null"}), Value::Null),
        (json!({"type": "array", "items": {"type": "integer"}}), json!([])),
        (json!({"type": "array", "items": {"type": "integer"}, "minItems": 2}), json!([1, 1])),
        (
            json!({"type": "object", "properties": {"b": {"type": "boolean"}, "c": {}}, "required": ["b"]}),
            json!({"b": false}),
        ),
    ];
    for (schema, want) in cases {
        assert_eq!(made(&schema), Ok(want), "{schema}");
    }
}

#[test]
fn what_is_not_understood_is_not_made_up() {
    let deep = (0..20).fold(
        json!({"type": "string"}),
        |inner, _| json!({"type": "object", "properties": {"a": inner}, "required": ["a"]}),
    );
    let cases = [
        json!({"type": "string", "pattern": "^[A-Z]+$"}),
        json!({"type": "string", "format": "iban"}),
        json!({"type": "string", "format": "email", "maxLength": 3}),
        json!({"type": "string", "minLength": 9, "maxLength": 2}),
        json!({"type": "string", "minLength": 1_000_000_000}),
        json!({"type": "integer", "multipleOf": 7}),
        json!({"type": "integer", "minimum": 3, "maximum": 2}),
        json!({"type": "number", "minimum": 2, "exclusiveMaximum": 2}),
        json!({"type": "array", "uniqueItems": true, "minItems": 2}),
        json!({"type": "array", "minItems": 1_000_000_000}),
        json!({"anyOf": [{"type": "string"}]}),
        json!({"type": "string", "not": {"const": "hello"}}),
        json!({"$ref": "#/$defs/x"}),
        json!({"type": "tuple"}),
        json!({}),
        json!(false),
        deep,
    ];
    for schema in cases {
        assert!(made(&schema).is_err(), "{schema}");
    }
    assert!(make(&json!({"type": "object", "required": ["a"]})).is_err(), "required and not described");
    assert!(make(&json!({"type": "object", "allOf": []})).is_err());
    assert!(make(&Value::Null).is_err());
}

#[test]
fn the_first_tool_that_only_reads_is_called() {
    let none = json!({"type": "object"});
    let reads = json!({"readOnlyHint": true});
    let unclear = json!({"type": "object", "oneOf": []});
    let tools = [
        json!({"name": "delete_all", "inputSchema": none}),
        json!({"name": "liar", "inputSchema": none, "annotations": {"readOnlyHint": true, "destructiveHint": true}}),
        json!({"name": "unclear", "inputSchema": unclear, "annotations": reads}),
        json!({"name": "list", "inputSchema": none, "annotations": reads}),
    ];
    assert_eq!(choose(&tools).map(|choice| choice.name).as_deref(), Ok("list"));
    let refused = |tools: &[Value]| choose(tools).unwrap_err();
    assert_eq!(refused(&tools[..2]), "no tool says that it only reads (readOnlyHint)");
    assert_eq!(refused(&tools[..3]), "no arguments could be made up for unclear: \"oneOf\" is not understood");
    assert_eq!(refused(&[]), "there is no tool");
}
