//! Names with secret values, in `header` and `env` of an upstream.

use toml::Value;

use super::fields::{Fields, Report};
use super::load::Lookup;
use crate::settings::fault::{MASK, clip};
use crate::settings::secret::Secret;

/// Headers that are the gateway's own business: framing, routing, and what the protocol derives from the call.
const RESERVED_HEADERS: &[&str] = &[
    "host",
    "connection",
    "keep-alive",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "accept",
    "accept-encoding",
    "origin",
    "last-event-id",
    "proxy-connection",
];

/// Names with secret values: each a literal or `{ env = "NAME" }`.
pub(super) fn pairs(
    fields: &mut Fields<'_>,
    key: &'static str,
    lookup: &Lookup<'_>,
    report: &mut Report,
    fault_of: fn(&str, &str) -> Option<&'static str>,
) -> Vec<(String, Secret)> {
    let example = format!("{key}.NAME = {{ env = \"VARIABLE\" }}");
    let allowed = "text, or { env = \"VARIABLE\" }";
    let mut read = Vec::new();
    let table = match fields.raw(key) {
        None => return read,
        Some(Value::Table(table)) if table.len() <= 64 => table,
        Some(_) => {
            fields.fault(key, None, "is not a table of at most 64 values", "a table", &example);
            return read;
        }
    };
    for (name, value) in table {
        let path = format!("{key}.{name}");
        let text = match value {
            Value::String(text) => text.as_str(),
            Value::Table(reference) => match (reference.len(), reference.get("env").and_then(Value::as_str)) {
                (1, Some(variable)) => {
                    report.referenced.insert(variable.to_owned());
                    match lookup.get(variable) {
                        Some(text) => text,
                        None => {
                            let why = format!("the variable {} is not set", clip(variable));
                            fields.fault(
                                &path,
                                None,
                                &why,
                                "the name of a variable in the environment or .env",
                                &example,
                            );
                            continue;
                        }
                    }
                }
                _ => {
                    fields.fault(&path, None, "is not accepted", allowed, &example);
                    continue;
                }
            },
            _ => {
                fields.fault(&path, Some(MASK.into()), "is not text", allowed, &example);
                continue;
            }
        };
        match fault_of(name, text) {
            Some(why) => fields.fault(&path, Some(MASK.into()), why, allowed, &example),
            None if read
                .iter()
                .any(|(other, _): &(String, Secret)| key == "header" && other.eq_ignore_ascii_case(name)) =>
            {
                fields.fault(&path, Some(MASK.into()), "is given twice", "one value a header", &example);
            }
            None => {
                fields.effective(&path, MASK.into());
                read.push((name.clone(), Secret::new(text)));
            }
        }
    }
    read
}

/// What is wrong with a header.
pub(super) fn header_fault(name: &str, value: &str) -> Option<&'static str> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let lower = name.to_ascii_lowercase();
    if name.is_empty() || name.len() > 256 || !name.bytes().all(token) {
        Some("is not a header name")
    } else if RESERVED_HEADERS.contains(&lower.as_str())
        || lower.starts_with("mcp-")
        || lower.starts_with("sec-websocket-")
    {
        Some("is a header that the gateway sets itself")
    } else if value.len() > 8192
        || value.trim() != value
        || !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
    {
        Some("its value is too long, has blanks around it, or has a character that no header may have")
    } else {
        None
    }
}

/// What is wrong with an environment variable for a child.
pub(super) fn variable_fault(name: &str, value: &str) -> Option<&'static str> {
    if name.is_empty() || name.contains(['=', '\0']) {
        Some("is not a variable name")
    } else if value.contains('\0') {
        Some("its value contains a null byte")
    } else {
        None
    }
}
