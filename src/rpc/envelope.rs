//! [`Envelope`]: what a message says about itself, as spans of the received bytes.

use super::method::Method;
use super::text::Text;
use crate::span::Span;

/// Which of JSON-RPC's four messages it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Has a method and an id.
    Request,
    /// Has a method and no id.
    Notification,
    /// Has a result.
    Response,
    /// Has an error. Its id may be null or absent, when the request's could not be read.
    ErrorResponse,
}

/// The JSON type of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdKind {
    /// A string; the span includes its quotes.
    String,
    /// An integer of any length: no fraction, no exponent.
    Integer,
    /// `null`, in error responses only.
    Null,
}

/// An id as it stands in the message. Ids are bytes, never numbers: 2^53 + 1 must come back as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    /// The value, quotes included: the bytes to echo.
    pub span: Span,
    /// Its JSON type.
    pub kind: IdKind,
}

/// A member whose value should be a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Member {
    /// Not there.
    #[default]
    Absent,
    /// There, and a string.
    Text(Text),
    /// There, with a value of another type.
    OtherType(Span),
}

impl Member {
    /// The string, when it is one.
    #[must_use]
    pub const fn text(self) -> Option<Text> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A member whose value should be an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Presence {
    /// Not there.
    #[default]
    Absent,
    /// There, and an object.
    Object(Span),
    /// There, with a value of another type.
    OtherType(Span),
}

/// `params.arguments.agentId` of a `tools/call`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AgentId {
    /// Not there.
    #[default]
    Absent,
    /// There, and a string.
    Text(Text),
    /// There, with a value of another type.
    OtherType(Span),
    /// A key that differs from `agentId` only in case stands there (the span is its value), whether or not `agentId` does too.
    /// Parsers that fold case (Go's `encoding/json`) read it as the agent's id.
    Lookalike(Span),
}

/// A checked message. All spans point into the bytes that were parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Which message it is.
    pub kind: Kind,
    /// Its id. Always there on requests and responses.
    pub id: Option<Id>,
    /// Its method; [`Method::Other`] in responses.
    pub method: Method,
    /// The method as written. Always there on requests and notifications.
    pub method_text: Option<Text>,
    /// The `params` object.
    pub params: Option<Span>,
    /// What it acts on: `params.name` of `tools/call` and `prompts/get`, `params.uri` of `resources/read`. Always there on
    /// these; on `resources/subscribe` and `unsubscribe`, `params.uri` when it is there, and on `tasks/get`, `update` and
    /// `cancel`, `params.taskId`.
    pub name: Option<Text>,
    /// The `params.arguments` object of `tools/call` and `prompts/get`.
    pub arguments: Option<Span>,
    /// `params.arguments.agentId` of `tools/call`.
    pub agent_id: AgentId,
    /// The `params._meta` object.
    pub meta: Option<Span>,
    /// `params._meta["io.modelcontextprotocol/protocolVersion"]`.
    pub meta_version: Member,
    /// `params._meta["io.modelcontextprotocol/clientCapabilities"]`.
    pub client_capabilities: Presence,
    /// `params._meta["io.modelcontextprotocol/clientInfo"]`.
    pub client_info: Presence,
    /// `params._meta.progressToken` of a request, `params.progressToken` of `notifications/progress`: a string or a number.
    pub progress_token: Option<Span>,
    /// `_meta["io.modelcontextprotocol/subscriptionId"]` of a notification's params or of a result: the id of the
    /// `subscriptions/listen` request it belongs to.
    pub subscription_id: Option<Span>,
    /// `params.requestId` of `notifications/cancelled`: a string or a number.
    pub request_id: Option<Span>,
    /// `params.protocolVersion` of `initialize`.
    pub protocol_version: Member,
    /// The result of a response, of any type.
    pub result: Option<Span>,
    /// `result.isError` is `true`.
    pub result_is_error: bool,
    /// The error object of an error response.
    pub error: Option<Span>,
    /// Its code.
    pub error_code: Option<i64>,
}

impl Envelope {
    /// An envelope with nothing in it yet.
    pub(crate) const fn empty(kind: Kind) -> Self {
        Self {
            kind,
            id: None,
            method: Method::Other,
            method_text: None,
            params: None,
            name: None,
            arguments: None,
            agent_id: AgentId::Absent,
            meta: None,
            meta_version: Member::Absent,
            client_capabilities: Presence::Absent,
            client_info: Presence::Absent,
            progress_token: None,
            subscription_id: None,
            request_id: None,
            protocol_version: Member::Absent,
            result: None,
            result_is_error: false,
            error: None,
            error_code: None,
        }
    }

    /// The id's bytes in `raw`, to echo; `None` when there is no id or it is null.
    #[must_use]
    pub fn id_bytes<'a>(&self, raw: &'a [u8]) -> Option<&'a [u8]> {
        match self.id {
            Some(Id { kind: IdKind::Null, .. }) | None => None,
            Some(id) => Some(id.span.of(raw)),
        }
    }

    /// Does the sender expect an answer?
    #[must_use]
    pub const fn is_request(&self) -> bool {
        matches!(self.kind, Kind::Request)
    }
}
