//! The rules of JSON-RPC and MCP for one message, read off the tape.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use super::bounds::MAX_METHOD_BYTES;
use super::envelope::{AgentId, Envelope, Id, IdKind, Kind, Member};
use super::keys;
use super::lookalike::{META, imitates, imitates_meta, is_lookalike};
use super::malformed::{Fault, Malformed};
use super::method::Method;
use super::tape::{Doc, Entry, duplicate_key};
use crate::span::Span;
use simd_json::{Node, StaticNode};

/// Checks the message on the tape and finds its parts. `order` is scratch.
pub(super) fn message(
    doc: &Doc<'_, '_>,
    order: &mut Vec<(u64, u32)>,
    envelope: &mut Envelope,
) -> Result<(), Malformed> {
    let whole = doc.whole();
    match doc.node(0) {
        Some(Node::Object { .. }) => {}
        Some(Node::Array { .. }) => return Err(Malformed::new(Fault::Batch, 0)),
        _ => return Err(Malformed::new(Fault::NotObject, 0)),
    }
    if let Some(duplicate) = keys::find_duplicate(doc.nodes, order) {
        return Err(duplicate_key(doc, whole, duplicate));
    }
    let top = Top::read(doc, whole);
    let id = match top.id.map(|entry| doc.id(&entry)).transpose() {
        Ok(id) => id,
        Err(fault) => {
            return Err(Malformed::new(fault, top.id.map_or(0, |entry| entry.key_at)));
        }
    };
    top.envelope(doc, id, envelope).map_err(|malformed| malformed.with_id(id.filter(|id| id.kind != IdKind::Null)))
}

/// The members of a message, not yet judged.
#[derive(Default)]
struct Top<'i> {
    jsonrpc: Option<Entry<'i>>,
    id: Option<Entry<'i>>,
    method: Option<Entry<'i>>,
    params: Option<Entry<'i>>,
    result: Option<Entry<'i>>,
    error: Option<Entry<'i>>,
    lookalike: Option<Entry<'i>>,
}

impl<'i> Top<'i> {
    const KEYS: [&'static str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

    fn read(doc: &Doc<'_, 'i>, whole: Span) -> Self {
        let mut top = Self::default();
        for entry in doc.entries(0, whole) {
            let place = match entry.key {
                "jsonrpc" => &mut top.jsonrpc,
                "id" => &mut top.id,
                "method" => &mut top.method,
                "params" => &mut top.params,
                "result" => &mut top.result,
                "error" => &mut top.error,
                other if imitates(other, &Self::KEYS) => &mut top.lookalike,
                _ => continue, // neither JSON-RPC nor MCP forbids further members
            };
            *place = Some(entry);
        }
        top
    }

    fn envelope(&self, doc: &Doc<'_, 'i>, id: Option<Id>, envelope: &mut Envelope) -> Result<(), Malformed> {
        if let Some(entry) = &self.lookalike {
            return Err(Malformed::new(Fault::Lookalike, entry.key_at));
        }
        let version = self.jsonrpc.and_then(|entry| doc.node(entry.node));
        if version != Some(Node::String("2.0")) {
            return Err(Malformed::new(Fault::JsonRpc, self.jsonrpc.map_or(0, |entry| entry.key_at)));
        }
        match (&self.method, &self.result, &self.error) {
            (Some(method), None, None) => self.request(doc, id, method, envelope),
            (None, Some(result), None) => Self::response(doc, id, result, envelope),
            (None, None, Some(error)) => Self::error_response(doc, id, error, envelope),
            (None, None, None) => Err(Malformed::new(Fault::NoMethod, 0)),
            (None, Some(_), Some(error)) => Err(Malformed::new(Fault::ResultAndError, error.key_at)),
            (Some(method), _, _) => Err(Malformed::new(Fault::RequestAndResponse, method.key_at)),
        }
    }

    fn request(
        &self,
        doc: &Doc<'_, 'i>,
        id: Option<Id>,
        method: &Entry<'i>,
        envelope: &mut Envelope,
    ) -> Result<(), Malformed> {
        envelope.kind = if id.is_some() { Kind::Request } else { Kind::Notification };
        if id.is_some_and(|id| id.kind == IdKind::Null) {
            return Err(Malformed::new(Fault::IdType, self.id.map_or(0, |entry| entry.key_at)));
        }
        envelope.id = id;
        let name = match doc.node(method.node) {
            Some(Node::String(name)) if !name.is_empty() => name,
            _ => return Err(Malformed::new(Fault::MethodType, method.key_at)),
        };
        if name.len() > MAX_METHOD_BYTES as usize {
            return Err(Malformed::new(Fault::MethodTooLong, method.key_at));
        }
        envelope.method = Method::from_name(name);
        envelope.method_text = doc.member(method).text();
        match &self.params {
            Some(entry) if doc.is_object(entry) => params(doc, entry, envelope)?,
            // JSON-RPC allows an array here, MCP does not.
            Some(entry) => return Err(Doc::fault(Fault::NotAnObject, entry, &["params"])),
            None => {}
        }
        match envelope.method.subject() {
            Some(subject) if envelope.name.is_none() && envelope.method.needs_name_header() => {
                let mut malformed = Malformed::new(Fault::NotString, self.params.map_or(0, |entry| entry.key_at));
                malformed.push_token("params");
                malformed.push_token(subject);
                Err(malformed)
            }
            _ => Ok(()),
        }
    }

    fn response(
        doc: &Doc<'_, 'i>,
        id: Option<Id>,
        result: &Entry<'i>,
        envelope: &mut Envelope,
    ) -> Result<(), Malformed> {
        envelope.kind = Kind::Response;
        envelope.id = id.filter(|id| id.kind != IdKind::Null);
        if envelope.id.is_none() {
            return Err(Malformed::new(Fault::NoId, 0));
        }
        let span = doc.span(result);
        envelope.result = Some(span);
        for entry in doc.entries(result.node, span) {
            match entry.key {
                "isError" => {
                    envelope.result_is_error = doc.node(entry.node) == Some(Node::Static(StaticNode::Bool(true)));
                }
                "_meta" => subscription_id(doc, &entry, envelope),
                _ => {}
            }
        }
        Ok(())
    }

    fn error_response(
        doc: &Doc<'_, 'i>,
        id: Option<Id>,
        error: &Entry<'i>,
        envelope: &mut Envelope,
    ) -> Result<(), Malformed> {
        envelope.kind = Kind::ErrorResponse;
        envelope.id = id;
        let span = doc.span(error);
        let mut message = false;
        for entry in doc.entries(error.node, span) {
            match (entry.key, doc.node(entry.node)) {
                ("code", Some(Node::Static(StaticNode::I64(code)))) => envelope.error_code = Some(code),
                ("code", Some(Node::Static(StaticNode::U64(code)))) => envelope.error_code = i64::try_from(code).ok(),
                ("message", Some(Node::String(_))) => message = true,
                _ => {}
            }
        }
        if !message || envelope.error_code.is_none() {
            return Err(Malformed::new(Fault::ErrorShape, error.key_at));
        }
        envelope.error = Some(span);
        Ok(())
    }
}

/// Reads the members of `params` that the gateway needs for this method.
fn params(doc: &Doc<'_, '_>, params: &Entry<'_>, envelope: &mut Envelope) -> Result<(), Malformed> {
    const KEYS: [&str; 7] = ["_meta", "name", "uri", "arguments", "progressToken", "requestId", "protocolVersion"];
    let span = doc.span(params);
    envelope.params = Some(span);
    let method = envelope.method;
    let calls = matches!(method, Method::ToolsCall | Method::PromptsGet);
    for entry in doc.entries(params.node, span) {
        match entry.key {
            "_meta" => meta(doc, &entry, envelope)?,
            "arguments" if calls => {
                if !doc.is_object(&entry) {
                    return Err(Doc::fault(Fault::NotAnObject, &entry, &["params", "arguments"]));
                }
                let arguments = doc.span(&entry);
                envelope.arguments = Some(arguments);
                if method == Method::ToolsCall {
                    envelope.agent_id = agent_id(doc, entry.node, arguments);
                }
            }
            "requestId" if method == Method::NotificationsCancelled => {
                let token = doc.scalar(&entry);
                envelope.request_id =
                    Some(token.ok_or_else(|| Doc::fault(Fault::NotStringOrNumber, &entry, &["params", "requestId"]))?);
            }
            "progressToken" if method == Method::NotificationsProgress => {
                let token = doc.scalar(&entry);
                envelope.progress_token = Some(
                    token.ok_or_else(|| Doc::fault(Fault::NotStringOrNumber, &entry, &["params", "progressToken"]))?,
                );
            }
            "protocolVersion" if method == Method::Initialize => envelope.protocol_version = doc.member(&entry),
            key if Some(key) == method.subject() => match doc.member(&entry) {
                Member::Text(text) => envelope.name = Some(text),
                _ => return Err(Doc::fault(Fault::NotString, &entry, &["params", key])),
            },
            key if method != Method::Other && imitates(key, &KEYS) => {
                return Err(Doc::fault(Fault::Lookalike, &entry, &["params"]));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Reads the members of `params._meta` that the gateway needs.
fn meta(doc: &Doc<'_, '_>, meta: &Entry<'_>, envelope: &mut Envelope) -> Result<(), Malformed> {
    if !doc.is_object(meta) {
        return Err(Doc::fault(Fault::NotAnObject, meta, &["params", "_meta"]));
    }
    let span = doc.span(meta);
    envelope.meta = Some(span);
    for entry in doc.entries(meta.node, span) {
        if entry.key == "progressToken" {
            if envelope.method != Method::NotificationsProgress {
                let path = &["params", "_meta", "progressToken"];
                let token = doc.scalar(&entry);
                envelope.progress_token =
                    Some(token.ok_or_else(|| Doc::fault(Fault::NotStringOrNumber, &entry, path))?);
            }
            continue;
        }
        match entry.key.strip_prefix(META) {
            Some("protocolVersion") => envelope.meta_version = doc.member(&entry),
            Some("clientCapabilities") => envelope.client_capabilities = doc.presence(&entry),
            Some("clientInfo") => envelope.client_info = doc.presence(&entry),
            Some("subscriptionId") => envelope.subscription_id = doc.scalar(&entry),
            Some("logLevel") => {}
            _ if imitates_meta(entry.key) => {
                return Err(Doc::fault(Fault::Lookalike, &entry, &["params", "_meta"]));
            }
            _ => {}
        }
    }
    Ok(())
}

fn subscription_id(doc: &Doc<'_, '_>, meta: &Entry<'_>, envelope: &mut Envelope) {
    for entry in doc.entries(meta.node, doc.span(meta)) {
        if entry.key.strip_prefix(META) == Some("subscriptionId") {
            envelope.subscription_id = doc.scalar(&entry);
        }
    }
}

fn agent_id(doc: &Doc<'_, '_>, node: usize, arguments: Span) -> AgentId {
    let mut found = AgentId::Absent;
    for entry in doc.entries(node, arguments) {
        if entry.key == "agentId" {
            found = match doc.member(&entry) {
                Member::Text(text) => AgentId::Text(text),
                Member::OtherType(span) => AgentId::OtherType(span),
                Member::Absent => AgentId::Absent,
            };
        } else if is_lookalike(entry.key, "agentId") {
            return AgentId::Lookalike(doc.span(&entry));
        }
    }
    found
}
