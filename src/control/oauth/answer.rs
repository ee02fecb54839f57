//! What a token request is answered: a JSON object of RFC 6749, and a status.

use serde_json::json;
use zeroize::Zeroizing;

use crate::gateway::desk::Answered;

/// Why a request is refused. The texts are ours; nothing of the request is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// `invalid_request`.
    Request(&'static str),
    /// `invalid_client`: who asks has not shown who it is.
    Client(&'static str),
    /// `invalid_grant`: the refresh token is worth nothing.
    Grant(&'static str),
    /// `unsupported_grant_type`.
    GrantType,
    /// `invalid_scope`.
    Scope,
    /// `invalid_target` (RFC 8707 §2).
    Resource,
    /// `unsupported_token_type` (RFC 7009 §2.2.1).
    TokenType,
    /// The agent has as many sessions as it may have.
    TooMany,
    /// The store cannot be written, or has no room. Seconds after which to come again.
    Unavailable,
}

impl Fault {
    fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Request(text) => (400, "invalid_request", text),
            Self::Client(text) => (401, "invalid_client", text),
            Self::Grant(text) => (400, "invalid_grant", text),
            Self::GrantType => {
                (400, "unsupported_grant_type", "grant_type is client_credentials or refresh_token here")
            }
            Self::Scope => (400, "invalid_scope", "The only scope is mcp"),
            Self::Resource => (400, "invalid_target", "resource is not what is served here"),
            Self::TokenType => (400, "unsupported_token_type", "The token was issued by somebody else"),
            // There is no error of RFC 6749 for it. The status says that it is no fault of the request's.
            Self::TooMany => (
                429,
                "temporarily_unavailable",
                "This agent has as many sessions as it may have: end one, or wait until one has been idle for long enough",
            ),
            Self::Unavailable => (503, "temporarily_unavailable", "Sessions cannot be written now; try again"),
        }
    }

    /// The answer to the request.
    pub(super) fn answered(self) -> Answered {
        let (status, error, text) = self.parts();
        let body = json!({"error": error, "error_description": text}).to_string();
        Answered {
            status,
            body: Zeroizing::new(body.into_bytes()),
            retry_after_s: (self == Self::Unavailable).then_some(1),
            failed: match self {
                Self::Client(text) | Self::Grant(text) => Some(text),
                _ => None,
            },
        }
    }
}

/// The answer to a request that was granted; an empty body where there is nothing to say.
pub(super) fn granted(body: Zeroizing<Vec<u8>>) -> Answered {
    Answered { status: 200, body, retry_after_s: None, failed: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wrong_credentials_count_as_failed_authentications() {
        for (fault, status, failed) in [
            (Fault::Request("text"), 400, false),
            (Fault::Client("text"), 401, true),
            (Fault::Grant("text"), 400, true),
            (Fault::GrantType, 400, false),
            (Fault::Scope, 400, false),
            (Fault::Resource, 400, false),
            (Fault::TokenType, 400, false),
            (Fault::TooMany, 429, false),
            (Fault::Unavailable, 503, false),
        ] {
            let answered = fault.answered();
            assert_eq!((answered.status, answered.failed.is_some()), (status, failed), "{fault:?}");
            assert_eq!(answered.retry_after_s.is_some(), status == 503);
            // RFC 6749 §5.2: printable ASCII without quotes and backslashes.
            let text = fault.parts().2;
            assert!(text.bytes().all(|byte| matches!(byte, 0x20..=0x7e) && !b"\"\\".contains(&byte)), "{text}");
        }
    }
}
