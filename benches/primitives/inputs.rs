//! The bytes that the cases go through: what clients and servers of MCP send.

/// A `tools/call` of 291 bytes, as clients of 2025-11-25 send it.
pub(crate) const CALL: &str = r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"name":"send_sms","arguments":{"agentId":"agent-7f3a","to":"+14155550123","body":"Your appointment with Dr. Lee is confirmed for Tuesday at 10:30. Reply C to cancel.","campaign":"reminders"},"_meta":{"progressToken":"b7c1e1c2-9d7e"}}}"#;

/// The like of 2026-07-28, with its `_meta`.
pub(crate) const MODERN_CALL: &str = r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"name":"send_sms","arguments":{"agentId":"agent-7f3a","to":"+14155550123","body":"Your appointment is confirmed."},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"}}}}"#;

/// A call without the agent's id, which is put in.
pub(crate) const UNNAMED_CALL: &str = r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"name":"send_sms","arguments":{"to":"+14155550123","body":"Your appointment is confirmed."}}}"#;

/// A call whose text has what attacks have too.
pub(crate) const TALKATIVE_CALL: &str = r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"name":"send_sms","arguments":{"agentId":"agent-7f3a","to":"+14155550123","body":"It's Dr. Lee's office; your 'check-up' is on Tuesday & takes < 30 minutes. Reply C to cancel."}}}"#;

/// An answer to a call.
pub(crate) const ANSWER: &str = r#"{"jsonrpc":"2.0","id":42,"result":{"content":[{"type":"text","text":"Message queued: SM7f3a91c2"}],"isError":false}}"#;

/// A page of `tools/list` whose tool mirrors two arguments in headers.
pub(crate) const TOOLS: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"send_sms","inputSchema":{"type":"object","properties":{"to":{"type":"string","x-mcp-header":"To"},"agentId":{"type":"string","x-mcp-header":"Agent"},"body":{"type":"string"}}}}]}}"#;

/// The agent that calls, and what it shows.
pub(crate) const AGENT: &str = "agent-7f3a";
/// Its token.
pub(crate) const TOKEN: &str = "b1946ac92492d2347c6235b4d2611184b1946ac92492d234";
/// The door's own token.
pub(crate) const DOOR_TOKEN: &str = "9f2d4c81a6b35e07d8c1f4a29b6e3d50718c2fa4e9d6b3c1";
/// What an upstream calls its session: the SDKs send UUIDs.
pub(crate) const UPSTREAM_SESSION: &[u8] = b"3f1c9a52-7d4e-4b8a-9c06-5e2f8a1d7b34";

/// A POST of `body` with `fields` besides those that every client sends.
pub(crate) fn post(body: &str, fields: &str) -> Vec<u8> {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The fields of 2025-11-25; `session` is a `Mcp-Session-Id`, or empty.
pub(crate) fn session_fields(session: &str) -> String {
    let version = "MCP-Protocol-Version: 2025-11-25\r\n";
    if session.is_empty() { version.to_owned() } else { format!("{version}Mcp-Session-Id: {session}\r\n") }
}

/// The fields of 2026-07-28.
pub(crate) const MODERN_FIELDS: &str =
    "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: send_sms\r\n";

/// The headers that [`TOOLS`] asks for.
pub(crate) const PARAM_FIELDS: &str = "Mcp-Param-To: +14155550123\r\nMcp-Param-Agent: agent-7f3a\r\n";

/// A request as it comes through a CDN and a proxy.
pub(crate) const PROXY_FIELDS: &str = "MCP-Protocol-Version: 2025-11-25\r\nUser-Agent: python-httpx/0.28.1\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en\r\nConnection: keep-alive\r\nX-Forwarded-For: 203.0.113.9\r\n\
    X-Forwarded-Proto: https\r\nX-Forwarded-Host: mcp.example.com\r\nX-Request-Id: 5b2c9d1e8f7a4c3b\r\nVia: 1.1 edge-7\r\n\
    CF-Ray: 8a1b2c3d4e5f6789-FRA\r\nCF-Connecting-IP: 203.0.113.9\r\nCookie: region=eu; theme=dark\r\n\
    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nCache-Control: no-cache\r\n";

/// An upstream's answer over HTTP.
pub(crate) fn answered() -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: uvicorn\r\nDate: Tue, 03 Nov 2026 12:00:00 GMT\r\n\
         Content-Length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    )
    .into_bytes()
}
