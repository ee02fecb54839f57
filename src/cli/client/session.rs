//! Requests and their answers, and what the server asks and says in between; in both eras of MCP.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use super::show::{Show, Way};
use super::transport::{Arrival, Order, Outgoing, Talk};
use crate::rpc::param_headers::{ParamHeader, ParamHeaders};
use crate::settings::MASK;
use crate::span::Span;

/// What is offered in `initialize`.
pub(super) const OFFERED: &str = "2025-11-25";
/// What has neither `initialize` nor sessions.
pub(super) const MODERN: &str = "2026-07-28";

/// The two eras of MCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Era {
    /// 2024-11-05 to 2025-11-25: `initialize`, then a session.
    Session,
    /// 2026-07-28: each request says what it needs.
    Modern,
}

/// What was heard.
pub(super) enum Heard {
    /// The answer to request `id`.
    Answer {
        id: Value,
        answer: Result<Value, RpcError>,
    },
    /// The server wants something; `id` is its own.
    Request {
        id: Value,
        message: Value,
    },
    Notification(Value),
    /// A message came to nothing; with an id, that request.
    Failed {
        id: Option<Value>,
        failure: Failure,
    },
    /// The connection is gone.
    Lost(Failure),
}

/// A JSON-RPC error as it came.
pub(super) struct RpcError {
    code: i64,
    message: String,
}

/// A conversation with a server.
pub(super) struct Session {
    talk: Talk,
    pub(super) era: Era,
    /// The revision that was agreed on.
    version: Option<String>,
    token_sent: bool,
    last_id: u64,
    /// Of tools that have some: the arguments that HTTP repeats in header fields.
    mirrored: BTreeMap<String, ParamHeaders>,
    pub(super) limit: Duration,
}

impl Session {
    pub(super) fn new(talk: Talk, era: Era, token_sent: bool, limit: Duration) -> Self {
        let version = (era == Era::Modern).then(|| MODERN.to_owned());
        Self { talk, era, version, token_sent, last_id: 0, mirrored: BTreeMap::new(), limit }
    }

    /// From now on the session is of this revision.
    pub(super) fn agree(&mut self, version: &str) {
        self.version = Some(version.to_owned());
    }

    /// Notes which arguments of these tools are repeated in header fields (2026-07-28).
    pub(super) fn learn(&mut self, tools: &[Value]) {
        for tool in tools {
            let Some(name) = tool.get("name").and_then(Value::as_str) else { continue };
            let schema = tool.get("inputSchema").unwrap_or(&Value::Null).to_string();
            // A tool with an annotation that is not allowed is the gateway's to judge.
            let found =
                ParamHeaders::from_schema(schema.as_bytes(), Span::from_usize(0, schema.len())).unwrap_or_default();
            if !found.is_empty() {
                self.mirrored.insert(name.to_owned(), found);
            }
        }
    }

    /// Asks, and waits for the answer. What else comes in the meantime is shown and answered.
    pub(super) async fn ask(&mut self, method: &str, params: Value, show: &Show) -> Result<Value, Failure> {
        let params = self.with_meta(params);
        self.ask_plainly(method, params, show).await
    }

    /// The same, with `params` as they are.
    pub(super) async fn ask_plainly(&mut self, method: &str, params: Value, show: &Show) -> Result<Value, Failure> {
        let deadline = Instant::now() + self.limit;
        let asked = self.begin_plainly(method, params, show).await?;
        loop {
            let limit = self.limit;
            let late = |_| Failure::timeout(format!("answer to {method}"), limit);
            match timeout_at(deadline, self.hear(show)).await.map_err(late)? {
                // An error without an id is about the only message that is out.
                Heard::Answer { id, answer } if id == asked || id.is_null() => {
                    return answer.map_err(|error| self.failure(method, error));
                }
                Heard::Failed { id, failure } if id.is_none() || id.as_ref() == Some(&asked) => return Err(failure),
                Heard::Lost(failure) => return Err(failure),
                Heard::Answer { .. } | Heard::Failed { .. } => {}
                Heard::Request { id, message } => self.reply(id, &message, show).await?,
                Heard::Notification(_) => {}
            }
        }
    }

    /// Sends a request; its id.
    pub(super) async fn begin(&mut self, method: &str, params: Value, show: &Show) -> Result<Value, Failure> {
        let params = self.with_meta(params);
        self.begin_plainly(method, params, show).await
    }

    async fn begin_plainly(&mut self, method: &str, params: Value, show: &Show) -> Result<Value, Failure> {
        self.last_id += 1;
        let id = json!(self.last_id);
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}), show).await?;
        Ok(id)
    }

    /// Tells the server something.
    pub(super) async fn notify(&mut self, method: &str, params: Value, show: &Show) -> Result<(), Failure> {
        let params = self.with_meta(params);
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params}), show).await
    }

    /// `params`, with what each request of 2026-07-28 says of its client.
    fn with_meta(&self, mut params: Value) -> Value {
        if self.era == Era::Modern
            && let Some(params) = params.as_object_mut()
        {
            params.insert(
                "_meta".to_owned(),
                json!({
                    "io.modelcontextprotocol/protocolVersion": MODERN,
                    "io.modelcontextprotocol/clientCapabilities": {},
                    "io.modelcontextprotocol/clientInfo": client_info(),
                }),
            );
        }
        params
    }

    /// Sends a message as it stands.
    pub(super) async fn send(&mut self, message: &Value, show: &Show) -> Result<(), Failure> {
        self.send_text(&message.to_string(), message, show).await
    }

    /// Sends `text`, which says `message`.
    pub(super) async fn send_text(&mut self, text: &str, message: &Value, show: &Show) -> Result<(), Failure> {
        let mut shown = message.clone();
        match shown.pointer_mut("/params/token").filter(|_| method(message) == Some("authenticate")) {
            Some(token) => {
                *token = json!(MASK);
                show.message(Way::Sent, &shown.to_string());
            }
            None => show.message(Way::Sent, text),
        }
        let id = message.get("id").filter(|_| method(message).is_some()).cloned();
        self.talk.give(Order::Send(Outgoing { text: text.to_owned(), id, fields: self.fields(message) })).await
    }

    /// Hears what the server says without being asked, where that takes a stream of its own.
    pub(super) async fn listen(&self) -> Result<(), Failure> {
        self.talk.give(Order::Listen { fields: self.fields(&Value::Null) }).await
    }

    /// What came next. Safe to drop.
    pub(super) async fn hear(&mut self, show: &Show) -> Heard {
        let text = match self.talk.hear().await {
            Arrival::Message(text) => text,
            Arrival::Failed { id, failure } => return Heard::Failed { id, failure },
            Arrival::Lost(failure) => return Heard::Lost(failure),
        };
        show.message(Way::Received, &text);
        read(&text).unwrap_or_else(Heard::Lost)
    }

    /// Answers what the server wants: that it is alive, and else that this client cannot.
    pub(super) async fn reply(&mut self, id: Value, request: &Value, show: &Show) -> Result<(), Failure> {
        let answer = match method(request).unwrap_or_default() {
            "ping" => json!({"jsonrpc": "2.0", "id": id, "result": {}}),
            "elicitation/create" => json!({"jsonrpc": "2.0", "id": id, "result": {"action": "decline"}}),
            // roots/list, sampling/createMessage and all others: no such capability was declared.
            _ => json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "Method not found"}}),
        };
        self.send(&answer, show).await
    }

    /// An error of `method`, by who can mend it.
    pub(super) fn failure(&self, method: &str, error: RpcError) -> Failure {
        let RpcError { code, message } = error;
        if code == -32000 && message.starts_with("Authentication") {
            return Failure::Token { sent: self.token_sent, text: format!("refused: {message}") };
        }
        Failure::Rpc { method: method.to_owned(), code, message }
    }

    /// Ends the conversation in good order.
    pub(super) async fn end(self) {
        self.talk.end().await;
    }

    /// The header fields that HTTP carries beside `message` (2026-07-28 mirrors parts of the message in them).
    fn fields(&self, message: &Value) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let stated = message.pointer("/params/_meta/io.modelcontextprotocol~1protocolVersion").and_then(Value::as_str);
        let Some(version) = stated.or(self.version.as_deref()) else { return fields };
        fields.push(("MCP-Protocol-Version".to_owned(), version.to_owned()));
        let Some(method) = method(message).filter(|_| version == MODERN) else { return fields };
        fields.push(("Mcp-Method".to_owned(), method.to_owned()));
        let of_params = |key: &str| message.get("params").and_then(|params| params.get(key)).and_then(Value::as_str);
        let name = match method {
            "tools/call" | "prompts/get" => of_params("name"),
            "resources/read" => of_params("uri"),
            _ => None,
        };
        let Some(name) = name else { return fields };
        fields.push(("Mcp-Name".to_owned(), encoded(name)));
        let mirrored = self.mirrored.get(name).filter(|_| method == "tools/call");
        for header in mirrored.into_iter().flat_map(|mirrored| mirrored.declared()) {
            if let Some(value) = argument(message, header) {
                fields.push((format!("Mcp-Param-{}", header.suffix), encoded(&value)));
            }
        }
        fields
    }
}

/// The argument that a header repeats, as text; `None` where the call does not have it.
fn argument(message: &Value, header: &ParamHeader) -> Option<String> {
    let mut value = message.get("params")?.get("arguments")?;
    for key in &header.path {
        value = value.get(&**key)?;
    }
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// A field's value for any text (MCP 2026-07-28, "Value encoding").
fn encoded(text: &str) -> String {
    let is_plain =
        text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && text.trim() == text && !text.starts_with("=?base64?");
    if is_plain {
        return text.to_owned();
    }
    format!("=?base64?{}?=", base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text))
}

/// Who this client is.
pub(super) fn client_info() -> Value {
    json!({"name": "ringwall-client", "version": env!("CARGO_PKG_VERSION")})
}

pub(super) fn method(message: &Value) -> Option<&str> {
    message.get("method")?.as_str()
}

/// What a message is.
fn read(text: &str) -> Result<Heard, Failure> {
    let strange = |what: &str| Failure::Protocol(format!("what came is {what}"));
    let message: Map<String, Value> = serde_json::from_str(text).map_err(|_| strange("no JSON object"))?;
    // A connection that is turned away hears so before any protocol begins.
    if let Some(Value::String(why)) = message.get("error") {
        return Err(Failure::Refused(why.clone()));
    }
    let id = message.get("id").cloned().unwrap_or(Value::Null);
    if message.get("method").is_some_and(Value::is_string) {
        let message = Value::Object(message);
        return Ok(if id.is_null() { Heard::Notification(message) } else { Heard::Request { id, message } });
    }
    if let Some(result) = message.get("result") {
        return Ok(Heard::Answer { id, answer: Ok(result.clone()) });
    }
    let error = message.get("error").ok_or_else(|| strange("neither a request nor an answer"))?;
    let code = error.get("code").and_then(Value::as_i64).ok_or_else(|| strange("an error without a code"))?;
    let text = error.get("message").and_then(Value::as_str).unwrap_or("no reason given");
    Ok(Heard::Answer { id, answer: Err(RpcError { code, message: text.to_owned() }) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        let kind = |text: &str| match read(text) {
            Ok(Heard::Answer { answer: Ok(_), .. }) => "result",
            Ok(Heard::Answer { answer: Err(_), .. }) => "error",
            Ok(Heard::Request { .. }) => "request",
            Ok(Heard::Notification(_)) => "notification",
            Ok(Heard::Failed { .. } | Heard::Lost(_)) => "failed",
            Err(Failure::Refused(_)) => "refused",
            Err(_) => "strange",
        };
        let cases = [
            (r#"{"jsonrpc":"2.0","id":1,"result":null}"#, "result"),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"x"}}"#, "error"),
            (r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#, "request"),
            (r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#, "notification"),
            (r#"{"error":"Forbidden"}"#, "refused"),
            (r#"{"jsonrpc":"2.0","id":1,"error":{}}"#, "strange"),
            ("{}", "strange"),
            ("[]", "strange"),
            ("SSH-2.0", "strange"),
        ];
        for (text, want) in cases {
            assert_eq!(kind(text), want, "{text}");
        }
    }

    #[test]
    fn texts_that_a_field_cannot_carry_are_encoded() {
        for (text, want) in [
            ("echo", "echo"),
            ("", ""),
            ("two words", "two words"),
            (" blank", "=?base64?IGJsYW5r?="),
            ("\u{e9}", "=?base64?w6k=?="),
            ("a\r\nX: y", "=?base64?YQ0KWDogeQ==?="),
            ("=?base64?eA==?=", "=?base64?PT9iYXNlNjQ/ZUE9PT89?="),
        ] {
            assert_eq!(encoded(text), want);
        }
    }
}
