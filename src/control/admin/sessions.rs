//! `/admin/sessions`: the sessions that agents have open, listed and ended.
//!
//! | request | answer |
//! |---|---|
//! | `GET /admin/sessions?agent=&limit=&cursor=` | 200 and a page, in the order of their names; without `JWT_SECRET` there is none |
//! | `DELETE /admin/sessions/{id}` | 200: its tokens are refused everywhere, and its connections are gone within a second; 404: it is not open |
//!
//! A page is no snapshot: what opens and ends meanwhile may or may not be on it. An end is answered when it is on disk, and leaves a line in the audit
//! trail that says who has asked for it.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::accept::{AgentId, Asked, Limit, Named, Refused, Told, rows};
use super::document::{BadQuery, Guarded, Missing};
use super::tokens::unavailable;
use super::{Admin, Peer};
use crate::control::http::{json, rfc3339};
use crate::control::oauth::NotEnded;
use crate::state::sessions::{Session, Sid};
use crate::store::sessions::SessionRow;

/// Which sessions are wanted; nothing: all.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Of one agent
    #[param(value_type = Option<String>, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_.:@-]+$")]
    agent: Option<AgentId>,
    /// Sessions of a page
    #[param(value_type = Option<u16>, minimum = 1, maximum = 500, default = 100)]
    limit: Option<Limit>,
    /// The `next` of the page before
    #[param(min_length = 22, max_length = 22, pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    cursor: Option<String>,
}

impl Told for Filter {
    const ALLOWED: &'static str =
        "Filters are agent=ID, limit=1 to 500, cursor=the next of the page before, each once.";
}

/// A session as it is told.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Session)]
pub struct SessionShown {
    /// Its name, which is no secret: the `sid` of its tokens, and of audit lines.
    pub id: String,
    /// Whose it is.
    pub agent: String,
    /// When it was opened.
    #[schema(format = DateTime)]
    pub opened_at: String,
    /// When it was last used. Up to a minute of it can be lost when the gateway is killed.
    #[schema(format = DateTime)]
    pub last_used_at: String,
    /// When it ends at the latest, unless its refresh token is renewed before.
    #[schema(format = DateTime)]
    pub expires_at: String,
}

/// A page of sessions.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct SessionsPage {
    /// In the order of their names.
    pub sessions: Vec<SessionShown>,
    /// What `cursor` is to be for the next page; `null` on the last.
    pub next: Option<String>,
}

/// A session that has ended.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct SessionEnded {
    /// Its name.
    pub id: String,
    /// Whose it was.
    pub agent: String,
}

/// The open sessions, a page at a time
#[utoipa::path(get, path = "/admin/sessions", operation_id = "listSessions", params(Filter),
    responses((status = 200, description = "A page", body = SessionsPage), BadQuery, Guarded))]
pub(super) async fn list(State(admin): State<Admin>, Asked(filter): Asked<Filter>) -> Result<Response, Refused> {
    let after = filter.cursor.as_deref().map(str::parse::<Sid>).transpose();
    let after = after.map_err(|_| Refused::new(400, "invalid_filter", Filter::ALLOWED))?;
    let limit = rows(filter.limit);
    let agent = filter.agent.map(|agent| agent.0);
    // One more tells whether there are more.
    let mut found = admin.store.some_sessions(agent, after, limit.saturating_add(1)).await.map_err(unavailable)?;
    let is_last = found.len() <= limit;
    found.truncate(limit);
    let next = found.last().filter(|_| !is_last).map(|row| row.sid.encode());
    // What has ended by itself is still in the store until it is cleared away.
    let live = |row: &SessionRow| admin.sessions.as_ref()?.live(&row.sid);
    let sessions = found.iter().filter_map(|row| Some(SessionShown::of(row, &*live(row)?))).collect();
    Ok(json(200, &SessionsPage { sessions, next }))
}

/// End a session
#[utoipa::path(delete, path = "/admin/sessions/{id}", operation_id = "endSession", params(SessionName),
    responses((status = 200, description = "Its tokens are refused from now on", body = SessionEnded), Missing, Guarded))]
pub(super) async fn end(State(admin): State<Admin>, peer: Peer, Named(sid): Named<Sid>) -> Result<Response, Refused> {
    let missing = || Refused::new(404, "session_not_open", "No session of this name is open.");
    let sessions = admin.sessions.as_ref().ok_or_else(missing)?;
    match sessions.end_by_operator(&sid, peer.0.0.ip().to_canonical()).await {
        Ok(Some(session)) => Ok(json(200, &SessionEnded { id: sid.encode(), agent: session.agent.to_string() })),
        Ok(None) => Err(missing()),
        Err(NotEnded::Unrecorded) => Err(Refused::new(
            503,
            "audit_unavailable",
            "The audit trail has no room for this; nothing was changed. Try again.",
        )),
        Err(NotEnded::NotLasting) => Err(Refused::new(
            503,
            "not_lasting",
            "The session has ended, but that could not be written down yet: it is tried again until it can.",
        )),
    }
}

/// The session in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "a part of the document")]
struct SessionName {
    /// As the list shows it
    #[param(min_length = 22, max_length = 22, pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    id: String,
}

impl SessionShown {
    fn of(row: &SessionRow, live: &Session) -> Self {
        Self {
            id: row.sid.encode(),
            agent: row.agent.clone(),
            opened_at: rfc3339(row.opened_ms),
            last_used_at: rfc3339(live.last_used_ms().max(row.last_used_ms)),
            expires_at: rfc3339(live.expires_ms()),
        }
    }
}
