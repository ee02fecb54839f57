//! `/admin/tokens`: agents' tokens, issued, listed, rotated and revoked.
//!
//! | request | answer |
//! |---|---|
//! | `GET /admin/tokens?agent=&state=&limit=&cursor=` | 200 and a page, the oldest first |
//! | `POST /admin/tokens` | 201 and the token, which is shown this once |
//! | `GET /admin/tokens/{id}` | 200 |
//! | `POST /admin/tokens/{id}/rotate` | 201 and the token that takes its place; 409 where it has ended or was rotated before |
//! | `DELETE /admin/tokens/{id}` | 200: it is refused everywhere, and its connections are gone within a second |
//!
//! A change is answered when it is on disk. Each leaves a line in the audit trail that says who has made it.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::accept::{AgentId, Asked, Body, Label, Limit, Named, Refused, Told, Within, rows};
use super::document::{BadBody, BadQuery, Conflict, Guarded, Missing};
use super::{Admin, Peer};
use crate::control::http::{json, rfc3339};
use crate::control::tokens::{Fresh, TokenError, Wanted};
use crate::state::credentials::TokenId;
use crate::store::StoreError;
use crate::store::tokens::{Token, TokenFilter};

/// How long an old token stays valid when nobody says: a day.
const DEFAULT_GRACE_S: u64 = 86_400;

/// Ten years.
type Lifetime = Within<1, 315_360_000>;
/// Thirty days.
type Grace = Within<0, 2_592_000>;

/// Which tokens are wanted; nothing: all.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Of one agent
    #[param(value_type = Option<String>, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_.:@-]+$")]
    agent: Option<AgentId>,
    /// In one state: `ended` is expired or revoked
    #[param(inline)]
    state: Option<WantedState>,
    /// Tokens of a page
    #[param(value_type = Option<u16>, minimum = 1, maximum = 500, default = 100)]
    limit: Option<Limit>,
    /// The `next` of the page before
    #[param(min_length = 20, max_length = 20, pattern = "^[0-9a-f]{20}$")]
    cursor: Option<String>,
}

impl Told for Filter {
    const ALLOWED: &'static str =
        "Filters are agent=ID, state=valid|ended, limit=1 to 500, cursor=the next of the page before, each once.";
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum WantedState {
    Valid,
    Ended,
}

/// A token that is wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct IssueToken {
    /// The agent that it speaks for; it need not be in the policy file
    #[schema(value_type = String, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_.:@-]+$")]
    agent: AgentId,
    /// What it is for, for whoever reads the list
    #[schema(value_type = Option<String>, max_length = 100, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    label: Option<Label>,
    /// Seconds until it expires; without this it is valid until it is revoked
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 315_360_000)]
    expires_in_seconds: Option<Lifetime>,
}

impl Told for IssueToken {
    const ALLOWED: &'static str = "An object with agent (1 to 128 letters, digits and _ - . : @), and as you like label (at most 100 \
                                   characters) and expiresInSeconds (1 to 315360000).";
}

/// How a token is rotated.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RotateToken {
    /// Seconds that the old token stays valid, unless it ends before; a day, if nothing is said
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 2_592_000)]
    grace_seconds: Option<Grace>,
    /// Seconds until the new token expires; without this it lives as long as the old one was to live
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 315_360_000)]
    expires_in_seconds: Option<Lifetime>,
}

impl Told for RotateToken {
    const ALLOWED: &'static str =
        "An object, as you like with graceSeconds (0 to 2592000) and expiresInSeconds (1 to 315360000).";
}

/// A token as it is told; also what `ringwall token` reads.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenShown {
    /// Its name, which is no secret.
    pub id: String,
    /// The agent it speaks for.
    pub agent: String,
    /// What it is for.
    pub label: String,
    /// `valid`, `expired` or `revoked`.
    #[schema(value_type = String, pattern = "^(valid|expired|revoked)$")]
    pub state: TokenState,
    /// When it was issued.
    #[schema(format = DateTime)]
    pub issued_at: String,
    /// From then on it is not valid: its own end, or that of its grace. `null`: until it is revoked.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// When it was revoked.
    #[schema(format = DateTime)]
    pub revoked_at: Option<String>,
    /// When it was last used, to the second. Up to a minute of it can be lost when the gateway is killed.
    #[schema(format = DateTime)]
    pub last_used_at: Option<String>,
    /// The token that took its place.
    pub replaced_by: Option<String>,
}

/// What a token is now.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenState {
    /// It is taken.
    Valid,
    /// Its time is over.
    Expired,
    /// An operator has ended it.
    Revoked,
}

/// A page of tokens.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct TokensPage {
    /// The oldest first.
    pub tokens: Vec<TokenShown>,
    /// What `cursor` is to be for the next page; `null` on the last.
    pub next: Option<String>,
}

/// A token that was just issued.
#[derive(Deserialize, Serialize, ToSchema)]
pub struct IssuedToken {
    /// What the agent is to show. It is told this once and kept nowhere.
    pub secret: String,
    /// What is known of it from now on.
    pub token: TokenShown,
}

/// A token that was just put in another's place.
#[derive(Deserialize, Serialize, ToSchema)]
pub struct RotatedToken {
    /// What the agent is to show. It is told this once and kept nowhere.
    pub secret: String,
    /// What is known of it from now on.
    pub token: TokenShown,
    /// The old one, as it is now.
    pub replaced: TokenShown,
}

/// The tokens that were issued, a page at a time
#[utoipa::path(get, path = "/admin/tokens", operation_id = "listTokens", params(Filter),
    responses((status = 200, description = "A page", body = TokensPage), BadQuery, Guarded))]
pub(super) async fn list(State(admin): State<Admin>, Asked(filter): Asked<Filter>) -> Result<Response, Refused> {
    let after = filter.cursor.as_deref().map(str::parse::<TokenId>).transpose();
    let after = after.map_err(|_| Refused::new(400, "invalid_filter", Filter::ALLOWED))?;
    let (now_ms, limit) = (admin.now_ms(), rows(filter.limit));
    let valid = filter.state.map(|state| (state == WantedState::Valid, now_ms));
    let wanted = TokenFilter { agent: filter.agent.map(|agent| agent.0), valid };
    // One more tells whether there are more.
    let mut found = admin.store.tokens(wanted, after, limit.saturating_add(1)).await.map_err(unavailable)?;
    let is_last = found.len() <= limit;
    found.truncate(limit);
    let next = found.last().filter(|_| !is_last).map(|token| token.id.to_string());
    let tokens = found.iter().map(|token| TokenShown::of(token, &admin)).collect();
    Ok(json(200, &TokensPage { tokens, next }))
}

/// Issue a token to an agent
#[utoipa::path(post, path = "/admin/tokens", operation_id = "issueToken", request_body = IssueToken,
    responses((status = 201, description = "Issued; the secret is shown this once", body = IssuedToken), BadBody, Conflict, Guarded))]
pub(super) async fn issue(
    State(admin): State<Admin>,
    peer: Peer,
    Body(wanted): Body<IssueToken>,
) -> Result<Response, Refused> {
    let IssueToken { agent, label, expires_in_seconds } = wanted;
    let lifetime = expires_in_seconds.map(|seconds| Duration::from_secs(seconds.get()));
    let wanted = Wanted { agent: agent.0, label: label.unwrap_or_default().0, lifetime };
    let Fresh { secret, token } = admin.tokens.issue(wanted, peer.0.0.ip().to_canonical()).await?;
    let shown = IssuedToken { secret: secret.to_string(), token: TokenShown::of(&token, &admin) };
    Ok(created(&token, json(201, &shown)))
}

/// One token
#[utoipa::path(get, path = "/admin/tokens/{id}", operation_id = "readToken", params(TokenName),
    responses((status = 200, description = "What is known of it", body = TokenShown), Missing, Guarded))]
pub(super) async fn read(State(admin): State<Admin>, Named(id): Named<TokenId>) -> Result<Response, Refused> {
    let token = admin.store.token(id).await.map_err(unavailable)?.ok_or(TokenError::Unknown)?;
    Ok(json(200, &TokenShown::of(&token, &admin)))
}

/// Put a new token in the place of one
#[utoipa::path(post, path = "/admin/tokens/{id}/rotate", operation_id = "rotateToken", params(TokenName),
    request_body = RotateToken,
    responses((status = 201, description = "Issued; the secret is shown this once", body = RotatedToken),
        BadBody, Missing, Conflict, Guarded))]
pub(super) async fn rotate(
    State(admin): State<Admin>,
    peer: Peer,
    Named(id): Named<TokenId>,
    Body(how): Body<RotateToken>,
) -> Result<Response, Refused> {
    let grace = Duration::from_secs(how.grace_seconds.map_or(DEFAULT_GRACE_S, Within::get));
    let lifetime = how.expires_in_seconds.map(|seconds| Duration::from_secs(seconds.get()));
    let from = peer.0.0.ip().to_canonical();
    let (Fresh { secret, token }, old) = admin.tokens.rotate(id, grace, lifetime, from).await?;
    let (shown, replaced) = (TokenShown::of(&token, &admin), TokenShown::of(&old, &admin));
    Ok(created(&token, json(201, &RotatedToken { secret: secret.to_string(), token: shown, replaced })))
}

/// Revoke a token
#[utoipa::path(delete, path = "/admin/tokens/{id}", operation_id = "revokeToken", params(TokenName),
    responses((status = 200, description = "It is refused from now on; again changes nothing", body = TokenShown), Missing, Guarded))]
pub(super) async fn revoke(
    State(admin): State<Admin>,
    peer: Peer,
    Named(id): Named<TokenId>,
) -> Result<Response, Refused> {
    match admin.tokens.revoke(id, peer.0.0.ip().to_canonical()).await {
        Ok(token) => Ok(json(200, &TokenShown::of(&token, &admin))),
        Err(TokenError::Store(_)) => Err(Refused::new(
            503,
            "not_lasting",
            "The token is refused from now on, but that could not be written down: after a restart it would be valid again. Try again.",
        )),
        Err(error) => Err(error.into()),
    }
}

/// The token in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "a part of the document")]
struct TokenName {
    /// As the list shows it
    #[param(min_length = 20, max_length = 20, pattern = "^[0-9a-f]{20}$")]
    id: String,
}

impl TokenShown {
    fn of(token: &Token, admin: &Admin) -> Self {
        let state = match token {
            Token { revoked_ms: Some(_), .. } => TokenState::Revoked,
            token if token.is_valid(admin.now_ms()) => TokenState::Valid,
            _ => TokenState::Expired,
        };
        Self {
            id: token.id.to_string(),
            agent: token.agent.clone(),
            label: token.label.clone(),
            state,
            issued_at: rfc3339(token.issued_ms),
            expires_at: token.expires_ms.map(rfc3339),
            revoked_at: token.revoked_ms.map(rfc3339),
            last_used_at: admin.tokens.last_used_ms(token).map(rfc3339),
            replaced_by: token.replaced_by.map(|id| id.to_string()),
        }
    }
}

impl From<TokenError> for Refused {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Store(error) => unavailable(error),
            TokenError::TooMany => {
                Self::new(409, "too_many_tokens", "There are as many valid tokens as there may be; revoke some.")
            }
            TokenError::Unknown => Self::new(404, "token_not_found", "There is no token with this id."),
            TokenError::Ended => {
                Self::new(409, "token_ended", "The token has ended, or was rotated before; issue a new one.")
            }
            TokenError::Unrecorded => Self::new(
                503,
                "audit_unavailable",
                "The audit trail has no room for this; nothing was changed. Try again.",
            ),
            TokenError::NoRandomness => Self::new(503, "no_randomness", "The system gives no random bytes."),
        }
    }
}

/// What is said when the store cannot.
pub(super) fn unavailable(error: StoreError) -> Refused {
    match error {
        StoreError::Busy => Refused::new(503, "store_busy", "The database has too much to do; try again."),
        error => {
            tracing::warn!(%error, "the admin API could not be served");
            Refused::new(
                503,
                "store_unavailable",
                "The database cannot do this now; nothing was changed. The log says why.",
            )
        }
    }
}

/// Says where what was made is found.
fn created(token: &Token, mut response: Response) -> Response {
    if let Ok(place) = HeaderValue::try_from(format!("/admin/tokens/{}", token.id)) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
