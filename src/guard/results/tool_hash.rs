//! The hash of what a tool says of itself: SHA-256 over a canonical form of the members that a model is shown.
//!
//! The form is the object of those members as JSON without blanks, keys sorted by their code points at every depth, strings escaped as little as may
//! be. So another order, other blanks and other escapes are the same description. A member whose name differs in the case of its letters counts as
//! well: parsers that fold case take it for the other.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::state::pins::ToolHash;

/// What a model, or the person who approves a call, is shown of a tool.
const MEMBERS: [&str; 6] = ["name", "title", "description", "inputSchema", "outputSchema", "annotations"];

/// The hash of a tool, an object of a list. `None`: it cannot be read.
#[must_use]
pub fn of(tool: &[u8]) -> Option<ToolHash> {
    let Value::Object(mut tool) = serde_json::from_slice(tool).ok()? else { return None };
    tool.retain(|key, _| MEMBERS.iter().any(|member| member.eq_ignore_ascii_case(key)));
    let mut form = String::new();
    put(&Value::Object(tool), &mut form);
    Some(ToolHash(Sha256::digest(form.as_bytes()).into()))
}

/// Appends the canonical form. As deep as the value, which the reader bounds.
fn put(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (index, (key, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                put(value, out);
            }
            out.push('}');
        }
        Value::Array(elements) => {
            out.push('[');
            for (index, value) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                put(value, out);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_same_description_has_the_same_hash_however_it_is_written() {
        let hash = |text: &str| of(text.as_bytes()).unwrap();
        let one = hash(
            r#"{"name":"a","description":"reads é","inputSchema":{"type":"object","required":["x","y"]},"_meta":{"n":1}}"#,
        );
        let other = hash(
            "{ \"inputSchema\": {\"required\":[\"x\" , \"y\"],\"type\":\"object\"}, \"d\\u0065scription\":\"reads \\u00e9\",\n\"name\":\"a\",\"_meta\":{\"n\":2},\"icons\":[]}",
        );
        assert_eq!(one, other);
        // As anybody can compute it.
        let form = r#"{"description":"reads é","inputSchema":{"required":["x","y"],"type":"object"},"name":"a"}"#;
        assert_eq!(one, ToolHash(Sha256::digest(form.as_bytes()).into()));
        for different in [
            r#"{"name":"a","description":"reads e","inputSchema":{"type":"object","required":["x","y"]}}"#,
            r#"{"name":"a","description":"reads é","inputSchema":{"type":"object","required":["y","x"]}}"#,
            r#"{"name":"a","description":"reads é","inputSchema":{"type":"object","required":["x","y"]},"title":""}"#,
            r#"{"name":"a","description":"reads é","Description":"x","inputSchema":{"type":"object","required":["x","y"]}}"#,
            r#"{"name":"a","description":"reads é","inputSchema":{"type":"object","required":["x","y"]},"annotations":{"readOnlyHint":true}}"#,
        ] {
            assert_ne!(one, hash(different), "{different}");
        }
        assert_eq!(of(b"[1]"), None);
        assert_eq!(of(b"{"), None);
    }
}
