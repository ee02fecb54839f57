//! Which tool may be called without being asked to, and with what: the first one that says it only reads, and whose required arguments
//! follow from its schema.
//!
//! A schema is understood in full or not at all: with one keyword that is not known here, nothing is made up. `readOnlyHint` is the
//! server's own word; who does not trust the server names a tool with `--call`.

use serde_json::{Map, Value, json};

/// Deepest nesting that is followed.
const MAX_DEPTH: usize = 8;
/// Longest text that is made up, in characters; longest array.
const MAX_LEN: u64 = 64;

/// A tool that can be called, with arguments for it.
#[derive(Debug, PartialEq)]
pub(super) struct Choice {
    pub(super) name: String,
    pub(super) arguments: Map<String, Value>,
}

/// The first of `tools` that can be called safely.
///
/// # Errors
/// Why there is none.
pub(super) fn choose(tools: &[Value]) -> Result<Choice, String> {
    let mut why = None;
    for tool in tools {
        let Some(name) = tool.get("name").and_then(Value::as_str) else { continue };
        if !only_reads(tool) {
            continue;
        }
        match make(tool.get("inputSchema").unwrap_or(&Value::Null)) {
            Ok(arguments) => return Ok(Choice { name: name.to_owned(), arguments }),
            Err(reason) => why = why.or(Some(format!("no arguments could be made up for {name}: {reason}"))),
        }
    }
    Err(match why {
        Some(why) => why,
        None if tools.is_empty() => "there is no tool".to_owned(),
        None => "no tool says that it only reads (readOnlyHint)".to_owned(),
    })
}

fn only_reads(tool: &Value) -> bool {
    let hint = |name: &str| tool.pointer(&format!("/annotations/{name}")).and_then(Value::as_bool);
    hint("readOnlyHint") == Some(true) && hint("destructiveHint") != Some(true)
}

/// Arguments that `schema` asks for, and no others.
///
/// # Errors
/// What is not understood, by its place in the schema.
pub(super) fn make(schema: &Value) -> Result<Map<String, Value>, String> {
    match object(schema, 0)? {
        Value::Object(arguments) => Ok(arguments),
        _ => Err("its schema is not that of an object".to_owned()),
    }
}

/// Says nothing about which values are allowed.
const ANNOTATIONS: [&str; 13] = [
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "x-mcp-header",
    "$defs",
    "definitions",
];

fn value(schema: &Value, depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err("it is nested too deeply".to_owned());
    }
    let Some(keys) = schema.as_object() else {
        return if schema == &json!(true) { Ok(json!("hello")) } else { Err("a schema is no object".to_owned()) };
    };
    // What the author of the schema offers is better than what can be made up.
    if let Some(given) = keys.get("const") {
        return Ok(given.clone());
    }
    let first = |key: &str| keys.get(key).and_then(Value::as_array).and_then(|values| values.first());
    if let Some(given) = first("enum").or(keys.get("default")).or(first("examples")) {
        return Ok(given.clone());
    }
    let kind = match keys.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str).unwrap_or_default(),
        _ => return Err("a type is missing".to_owned()),
    };
    match kind {
        "string" => string(schema),
        "integer" => integer(schema),
        "number" => {
            understood(schema, &["type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])?;
            number(schema)
        }
        "boolean" => understood(schema, &["type"]).map(|()| json!(false)),
        "null" => understood(schema, &["type"]).map(|()| Value::Null),
        "array" => array(schema, depth),
        "object" => object(schema, depth),
        other => Err(format!("type {other:?} is not known")),
    }
}

/// That the schema has no keywords but these.
fn understood(schema: &Value, known: &[&str]) -> Result<(), String> {
    let keys = schema.as_object().into_iter().flat_map(Map::keys);
    match keys.map(String::as_str).find(|key| !known.contains(key) && !ANNOTATIONS.contains(key)) {
        Some(key) => Err(format!("{key:?} is not understood")),
        None => Ok(()),
    }
}

fn bound(schema: &Value, key: &str, otherwise: u64) -> Result<u64, String> {
    match schema.get(key) {
        None => Ok(otherwise),
        Some(value) => value.as_u64().ok_or_else(|| format!("{key:?} is no count")),
    }
}

fn string(schema: &Value) -> Result<Value, String> {
    understood(schema, &["type", "minLength", "maxLength", "format"])?;
    let (min, max) = (bound(schema, "minLength", 0)?, bound(schema, "maxLength", MAX_LEN)?);
    if min > max || min > MAX_LEN {
        return Err("no short text is long enough".to_owned());
    }
    // Names and addresses that are reserved for examples (RFC 2606, RFC 5737).
    let word = match schema.get("format").and_then(Value::as_str) {
        None => "hello".to_owned(),
        Some("date") => "2026-01-01".to_owned(),
        Some("date-time") => "2026-01-01T00:00:00Z".to_owned(),
        Some("time") => "00:00:00Z".to_owned(),
        Some("uri" | "url") => "https://example.com/".to_owned(),
        Some("email") => "nobody@example.com".to_owned(),
        Some("hostname") => "example.com".to_owned(),
        Some("ipv4") => "192.0.2.1".to_owned(),
        Some("uuid") => "00000000-0000-4000-8000-000000000000".to_owned(),
        Some(other) => return Err(format!("format {other:?} is not known")),
    };
    let len = word.len() as u64;
    if (min..=max).contains(&len) {
        return Ok(Value::String(word));
    }
    if schema.get("format").is_some() {
        return Err("no value of its format has the right length".to_owned());
    }
    Ok(Value::String(word.chars().cycle().take(usize::try_from(len.clamp(min, max)).unwrap_or_default()).collect()))
}

fn integer(schema: &Value) -> Result<Value, String> {
    understood(schema, &["type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])?;
    let edge = |key: &str| match schema.get(key) {
        None => Ok(None),
        Some(value) => value.as_i64().map(Some).ok_or_else(|| format!("{key:?} is no integer")),
    };
    let min = edge("minimum")?.max(edge("exclusiveMinimum")?.map(|edge| edge.saturating_add(1)));
    let upper = [edge("maximum")?, edge("exclusiveMaximum")?.map(|edge| edge.saturating_sub(1))];
    let max = upper.into_iter().flatten().min();
    let chosen = 1_i64.max(min.unwrap_or(i64::MIN)).min(max.unwrap_or(i64::MAX));
    if min.is_some_and(|min| chosen < min) { Err("no integer is in its range".to_owned()) } else { Ok(json!(chosen)) }
}

fn number(schema: &Value) -> Result<Value, String> {
    let edge = |key: &str| schema.get(key).and_then(Value::as_f64);
    let fits = |value: &f64| {
        edge("minimum").is_none_or(|edge| *value >= edge)
            && edge("maximum").is_none_or(|edge| *value <= edge)
            && edge("exclusiveMinimum").is_none_or(|edge| *value > edge)
            && edge("exclusiveMaximum").is_none_or(|edge| *value < edge)
    };
    let low = edge("minimum").or(edge("exclusiveMinimum"));
    let high = edge("maximum").or(edge("exclusiveMaximum"));
    let middle = low.zip(high).map(|(low, high)| low + (high - low) / 2.0);
    let candidates = [Some(1.0), Some(0.0), low, high, middle, low.map(|low| low + 1.0), high.map(|high| high - 1.0)];
    let found = candidates.into_iter().flatten().find(fits);
    found.map(|value| json!(value)).ok_or_else(|| "no number is in its range".to_owned())
}

fn array(schema: &Value, depth: usize) -> Result<Value, String> {
    understood(schema, &["type", "items", "minItems", "maxItems"])?;
    let (min, max) = (bound(schema, "minItems", 0)?, bound(schema, "maxItems", u64::MAX)?);
    if min > max || min > MAX_LEN {
        return Err("no short array is long enough".to_owned());
    }
    if min == 0 {
        return Ok(json!([]));
    }
    let item = value(schema.get("items").unwrap_or(&Value::Bool(true)), depth + 1)?;
    Ok(Value::Array((0..min).map(|_| item.clone()).collect()))
}

fn object(schema: &Value, depth: usize) -> Result<Value, String> {
    understood(schema, &["type", "properties", "required", "additionalProperties"])?;
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        return Err("its schema is not that of an object".to_owned());
    }
    let mut made = Map::new();
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        let name = name.as_str().ok_or("\"required\" names no name")?;
        let property = schema.get("properties").and_then(|properties| properties.get(name));
        let property = property.ok_or_else(|| format!("{name:?} is required and not described"))?;
        let value = value(property, depth + 1).map_err(|why| format!("argument {name:?}: {why}"))?;
        made.insert(name.to_owned(), value);
    }
    Ok(Value::Object(made))
}

#[cfg(test)]
#[path = "arguments_tests.rs"]
mod tests;
