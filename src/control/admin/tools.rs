//! `/admin/tools`: what tools say of themselves, by its hash, and accepting what has changed.
//!
//! | request | answer |
//! |---|---|
//! | `GET /admin/tools?changed=&limit=&cursor=` | 200 and a page of tools that were listed, by upstream and name |
//! | `POST /admin/tools/accept` | 200: the description that was seen last is the accepted one, on every worker, and after a restart |
//!
//! Who accepts names the hash: what has changed once more since it was looked at is not accepted by mistake. A page is no snapshot.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::accept::{Asked, Body, Limit, Refused, Told, Within, rows};
use super::document::{BadBody, BadQuery, Conflict, Guarded, Missing};
use super::tokens::unavailable;
use super::{Admin, Peer};
use crate::control::http::{json, rfc3339};
use crate::control::pins::PinError;
use crate::state::pins::{NotAccepted, Pin, ToolHash};

/// Which tools are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Part {
    /// Only those whose description is not the accepted one
    #[param(value_type = Option<String>, min_length = 4, max_length = 5, pattern = "^(true|false)$")]
    changed: Option<bool>,
    /// Tools of a page
    #[param(value_type = Option<u16>, minimum = 1, maximum = 500, default = 100)]
    limit: Option<Limit>,
    /// The `next` of the page before
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1_000_000)]
    cursor: Option<Within<1, 1_000_000>>,
}

impl Told for Part {
    const ALLOWED: &'static str =
        "There are changed=true or false, limit=1 to 500 and cursor=the next of the page before, each once.";
}

/// A tool as it is told; also what `ringwall tools` reads.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolShown {
    /// The upstream.
    pub upstream: String,
    /// Its own name of the tool.
    pub tool: String,
    /// The hash of the description that is accepted.
    pub accepted: String,
    /// The hash of the one that was seen last.
    pub seen: String,
    /// When that was first seen.
    #[schema(format = DateTime)]
    pub seen_since: String,
    /// Whether the two differ.
    pub changed: bool,
    /// Whether the policy says which one is accepted.
    pub by_policy: bool,
}

/// A page of tools.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct ToolsPage {
    /// What becomes of changed tools: `off`, `flag` or `block`. While it is `off` nothing is looked at.
    pub pin: String,
    /// By upstream and name.
    pub tools: Vec<ToolShown>,
    /// What `cursor` is to be for the next page; `null` on the last.
    pub next: Option<u64>,
}

/// A description that is to be accepted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AcceptTool {
    /// The upstream
    #[schema(min_length = 1, max_length = 64)]
    upstream: String,
    /// Its own name of the tool
    #[schema(max_length = 256)]
    tool: String,
    /// The hash of the description that was seen last
    #[schema(min_length = 71, max_length = 71, pattern = "^sha256-[0-9a-fA-F]{64}$")]
    hash: String,
}

impl Told for AcceptTool {
    const ALLOWED: &'static str = "An object with upstream, tool and hash: sha256- and 64 hexadecimal digits.";
}

/// What tools say of themselves, a page at a time
#[utoipa::path(get, path = "/admin/tools", operation_id = "listTools", params(Part),
    responses((status = 200, description = "A page", body = ToolsPage), BadQuery, Guarded))]
pub(super) async fn list(State(admin): State<Admin>, Asked(part): Asked<Part>) -> Response {
    let pins = admin.pins.pins();
    let book = pins.book();
    let only_changed = part.changed.unwrap_or(false);
    let mut found: Vec<(&str, &str, Pin)> = book
        .iter()
        .map(|(upstream, tool, pin)| (upstream, tool, pins.effective(upstream, tool, *pin)))
        .filter(|(.., pin)| pin.is_changed() || !only_changed)
        .collect();
    found.sort_unstable_by_key(|(upstream, tool, _)| (*upstream, *tool));
    let skipped = part.cursor.and_then(|cursor| usize::try_from(cursor.get()).ok()).unwrap_or(0);
    let limit = rows(part.limit);
    let shown = found.iter().skip(skipped).take(limit);
    let tools: Vec<ToolShown> = shown
        .map(|(upstream, tool, pin)| ToolShown::of(upstream, tool, pin, pins.given(upstream, tool).is_some()))
        .collect();
    let end = skipped.saturating_add(tools.len());
    let next = (end < found.len()).then_some(end as u64);
    json(200, &ToolsPage { pin: admin.config.pin.clone(), tools, next })
}

/// Accept the description of a tool that was seen last
#[utoipa::path(post, path = "/admin/tools/accept", operation_id = "acceptTool", request_body = AcceptTool,
    responses((status = 200, description = "It is the accepted one from now on", body = ToolShown),
        BadBody, Missing, Conflict, Guarded))]
pub(super) async fn accept(
    State(admin): State<Admin>,
    peer: Peer,
    Body(wanted): Body<AcceptTool>,
) -> Result<Response, Refused> {
    let hash = ToolHash::of_text(&wanted.hash);
    let hash = hash.ok_or_else(|| Refused::new(422, "invalid_body", AcceptTool::ALLOWED))?;
    let AcceptTool { upstream, tool, .. } = wanted;
    let pin = admin.pins.accept(upstream.clone(), tool.clone(), hash, peer.0.0.ip().to_canonical()).await?;
    Ok(json(200, &ToolShown::of(&upstream, &tool, &pin, false)))
}

impl ToolShown {
    fn of(upstream: &str, tool: &str, pin: &Pin, by_policy: bool) -> Self {
        Self {
            upstream: upstream.to_owned(),
            tool: tool.to_owned(),
            accepted: pin.accepted.to_string(),
            seen: pin.seen.to_string(),
            seen_since: rfc3339(pin.since_ms),
            changed: pin.is_changed(),
            by_policy,
        }
    }
}

impl From<PinError> for Refused {
    fn from(error: PinError) -> Self {
        match error {
            PinError::Store(error) => unavailable(error),
            PinError::NotAccepted(NotAccepted::Unknown) => {
                Self::new(404, "tool_not_found", "No list has named this tool of this upstream.")
            }
            PinError::NotAccepted(NotAccepted::NotSeen) => {
                Self::new(409, "not_seen", "This is not the description that was seen last; look at the list again.")
            }
            PinError::NotAccepted(NotAccepted::Given) => {
                Self::new(409, "pinned_by_policy", "The policy file says which description of this tool is accepted.")
            }
            PinError::Unrecorded => Self::new(
                503,
                "audit_unavailable",
                "The audit trail has no room for this; nothing was changed. Try again.",
            ),
        }
    }
}
