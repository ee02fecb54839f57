//! The messages that tests send.

use super::TOKEN;

/// A `tools/call` of the session era.
pub(crate) fn call(id: impl std::fmt::Display) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"echo\",\"arguments\":{{\"text\":\"hello\"}}}}}}"
    )
}

/// `initialize` of 2025-11-25.
pub(crate) fn initialize() -> String {
    "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},\
     \"clientInfo\":{\"name\":\"test\",\"version\":\"1\"}}}"
        .to_owned()
}

/// The bytes of a POST with the door token, of the session era.
pub(crate) fn post(body: &str) -> Vec<u8> {
    with_fields(body, "MCP-Protocol-Version: 2025-11-25\r\n")
}

/// The bytes of a POST of 2026-07-28. `params` is what stands in the object, without `_meta`.
pub(crate) fn modern(id: impl std::fmt::Display, method: &str, name: Option<&str>, params: &str) -> Vec<u8> {
    let body = stateless(id, method, params);
    let name = name.map_or_else(String::new, |name| format!("Mcp-Name: {name}\r\n"));
    with_fields(&body, &format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\n{name}"))
}

/// A request of 2026-07-28, as [`modern`] sends it.
pub(crate) fn stateless(id: impl std::fmt::Display, method: &str, params: &str) -> String {
    let comma = if params.is_empty() { "" } else { "," };
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{{{params}{comma}\"_meta\":{{\
         \"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{{}}}}}}}}"
    )
}

fn with_fields(body: &str, fields: &str) -> Vec<u8> {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The id of a message, as it is written; `null` where there is none.
pub(crate) fn id_of(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        id: Option<&'a serde_json::value::RawValue>,
    }
    match serde_json::from_slice::<Message<'_>>(body) {
        Ok(Message { id: Some(id) }) => id.get().to_owned(),
        _ => "null".to_owned(),
    }
}

/// A response with this result, JSON.
pub(crate) fn result(id: &str, result: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}")
}
