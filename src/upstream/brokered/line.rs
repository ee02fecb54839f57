//! A line that a child wrote: what kind of message it is, and where its id, tokens and subscription stand.
//!
//! A child is not trusted more than a client: lines are bounded, parsed by serde_json into borrowed parts (no tree is built, and skipping a
//! value does not recurse), and whatever is no JSON-RPC message is refused as a whole.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::seam::Parts;

/// A raw token and where it stands in the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    pub(super) at: Range<usize>,
}

impl Token<'_> {
    /// The internal id it names, if the gateway could have made it: `17`, or `"17"` where the standard makes a string of a number.
    pub(super) fn internal(&self) -> Option<u64> {
        self.text.trim_matches('"').parse().ok()
    }
}

/// One message of a child.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FromChild<'a> {
    /// A response: `id` is the internal id of a call.
    Response {
        id: Token<'a>,
        failed: bool,
        /// `result._meta["io.modelcontextprotocol/subscriptionId"]`.
        subscription: Option<Token<'a>>,
    },
    /// A request of the server.
    Request { id: Token<'a>, method: Cow<'a, str>, params: Params<'a> },
    /// A notification.
    Notification { method: Cow<'a, str>, params: Params<'a> },
}

/// The parts of `params` that routing needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Params<'a> {
    /// `progressToken` of notifications/progress.
    pub(super) progress_token: Option<Token<'a>>,
    /// `_meta.progressToken` of a request.
    pub(super) meta_progress_token: Option<Token<'a>>,
    /// `requestId` of notifications/cancelled.
    pub(super) request_id: Option<Token<'a>>,
    /// `_meta["io.modelcontextprotocol/subscriptionId"]`.
    pub(super) subscription: Option<Token<'a>>,
    /// `uri` of notifications/resources/updated and of resources/subscribe.
    pub(super) uri: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct RawMessage<'a> {
    #[serde(borrow)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawParams<'a> {
    #[serde(borrow, rename = "progressToken")]
    progress_token: Option<&'a RawValue>,
    #[serde(borrow, rename = "requestId")]
    request_id: Option<&'a RawValue>,
    #[serde(borrow)]
    uri: Option<&'a RawValue>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawMeta<'a> {
    #[serde(borrow, rename = "progressToken")]
    progress_token: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/subscriptionId")]
    subscription: Option<&'a RawValue>,
}

/// Where `part`, a slice of `whole`, stands in it.
fn range_in(whole: &[u8], part: &str) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    (end <= whole.len()).then_some(start..end)
}

fn token<'a>(line: &'a [u8], raw: &'a RawValue) -> Option<Token<'a>> {
    let text = raw.get();
    // Only strings and numbers can be ids or tokens.
    let scalar = matches!(text.as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9'));
    let at = range_in(line, text)?;
    scalar.then_some(Token { text, at })
}

fn object<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

impl<'a> Params<'a> {
    /// Reads the raw `params` out of `line`. Anything that is no object has no parts.
    fn of(line: &'a [u8], raw: Option<&'a RawValue>) -> Self {
        let Some(params) = object::<RawParams<'a>>(raw) else {
            return Self::default();
        };
        let meta = object::<RawMeta<'a>>(params.meta);
        let at = |raw: Option<&'a RawValue>| raw.and_then(|raw| token(line, raw));
        Self {
            progress_token: at(params.progress_token),
            meta_progress_token: at(meta.as_ref().and_then(|meta| meta.progress_token)),
            request_id: at(params.request_id),
            subscription: at(meta.as_ref().and_then(|meta| meta.subscription)),
            uri: params.uri.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok()).map(Cow::Owned),
        }
    }
}

/// Reads one line. `None`: no JSON-RPC 2.0 message (duplicate members of the envelope included).
pub(super) fn parse(line: &[u8]) -> Option<FromChild<'_>> {
    let message: RawMessage<'_> = serde_json::from_slice(line).ok()?;
    if message.jsonrpc.as_deref() != Some("2.0") {
        return None;
    }
    match (message.method, message.id) {
        (Some(method), Some(id)) => {
            Some(FromChild::Request { id: token(line, id)?, method, params: Params::of(line, message.params) })
        }
        (Some(method), None) => Some(FromChild::Notification { method, params: Params::of(line, message.params) }),
        (None, Some(id)) => {
            if message.result.is_some() == message.error.is_some() {
                return None;
            }
            let meta = object::<RawParams<'_>>(message.result).and_then(|result| result.meta);
            Some(FromChild::Response {
                id: token(line, id)?,
                failed: message.error.is_some(),
                subscription: object::<RawMeta<'_>>(meta)
                    .and_then(|meta| meta.subscription)
                    .and_then(|raw| token(line, raw)),
            })
        }
        (None, None) => None,
    }
}

impl Parts {
    /// Finds the parts of a message that has no envelope yet. `None` when it is no JSON object. The envelope of the HTTP door has them all
    /// already; this reads the message once more.
    pub fn find(raw: &[u8]) -> Option<Self> {
        let message: RawMessage<'_> = serde_json::from_slice(raw).ok()?;
        let params = Params::of(raw, message.params);
        Some(Self {
            id: message.id.and_then(|id| token(raw, id)).map(|token| token.at),
            method: message.method.unwrap_or_default().into_owned(),
            progress_token: params.meta_progress_token.map(|token| token.at),
            request_id: params.request_id.map(|token| token.at),
        })
    }
}

/// `params` of a client's message, for the few methods whose parameters decide the way.
pub(super) fn params_of(raw: &[u8]) -> Params<'_> {
    match serde_json::from_slice::<RawMessage<'_>>(raw) {
        Ok(message) => Params::of(raw, message.params),
        Err(_) => Params::default(),
    }
}

/// `protocolVersion` and `capabilities` of an `initialize` request, raw.
pub(super) fn initialize_terms(raw: &[u8]) -> (&str, &str) {
    #[derive(Deserialize)]
    struct Terms<'a> {
        #[serde(borrow, rename = "protocolVersion")]
        version: Option<&'a RawValue>,
        #[serde(borrow)]
        capabilities: Option<&'a RawValue>,
    }
    let terms =
        serde_json::from_slice::<RawMessage<'_>>(raw).ok().and_then(|message| object::<Terms<'_>>(message.params));
    terms.map_or(("", ""), |terms| {
        (terms.version.map_or("", RawValue::get), terms.capabilities.map_or("", RawValue::get))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_spans() {
        let line =
            br#"{"jsonrpc":"2.0", "id" : 17 ,"result":{"_meta":{"io.modelcontextprotocol/subscriptionId":"17"}}}"#;
        let Some(FromChild::Response { id, failed, subscription }) = parse(line) else {
            panic!("a response");
        };
        assert!(!failed);
        assert_eq!(&line[id.at.clone()], b"17");
        assert_eq!(id.internal(), Some(17));
        let subscription = subscription.unwrap();
        assert_eq!(&line[subscription.at.clone()], b"\"17\"");
        assert_eq!(subscription.internal(), Some(17));

        let line = br#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":3,"progress":1}}"#;
        let Some(FromChild::Notification { method, params }) = parse(line) else {
            panic!("a notification");
        };
        assert_eq!(method, "notifications/progress");
        assert_eq!(params.progress_token.unwrap().internal(), Some(3));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let cases: [(&str, &[u8]); 11] = [
            ("text", b"Server running on stdio"),
            ("empty", b""),
            ("batch", br#"[{"jsonrpc":"2.0","id":1,"result":{}}]"#),
            ("no version", br#"{"id":1,"result":{}}"#),
            ("both", br#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#),
            ("neither", br#"{"jsonrpc":"2.0","id":1}"#),
            ("duplicate id", br#"{"jsonrpc":"2.0","id":1,"id":2,"result":{}}"#),
            ("id is an object", br#"{"jsonrpc":"2.0","id":{},"result":{}}"#),
            ("trailing", br#"{"jsonrpc":"2.0","id":1,"result":{}} x"#),
            ("not UTF-8", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"a\":\"\xff\"}}"),
            ("deep", deep.as_bytes()),
        ];
        for (name, line) in cases {
            assert_eq!(parse(line), None, "{name}");
        }
    }

    #[test]
    fn deep_results_do_not_recurse() {
        let line =
            format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        // Refused or accepted, but neither a crash nor a stack overflow.
        let _ = parse(line.as_bytes());
    }

    #[test]
    fn initialize_terms_are_raw() {
        let raw = br#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{ "a":1}}}"#;
        assert_eq!(initialize_terms(raw), ("\"2025-11-25\"", "{ \"a\":1}"));
        assert_eq!(initialize_terms(b"nonsense"), ("", ""));
    }
}
