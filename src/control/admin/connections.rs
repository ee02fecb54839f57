//! `/admin/connections`: the open connections, a page at a time, and the closing of one.
//!
//! | request | answer |
//! |---|---|
//! | `GET /admin/connections?door=&agent=&ip=&limit=&cursor=` | 200 and a page; 400 for a filter that means nothing |
//! | `DELETE /admin/connections/{id}` | 202: its worker was told, and ends it within a second; 404: no such connection is open |
//!
//! Listing reads the table beside the workers and holds nobody up. A page is no snapshot: what opens and closes meanwhile may or may not be on
//! it. A close leaves one `connection_closed` in the audit trail, which says who asked.

use std::net::IpAddr;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::accept::{AgentId, Asked, Limit, Named, Refused, Told, rows};
use super::document::{BadQuery, Guarded, Missing, address};
use super::{Admin, Peer};
use crate::control::http::{json, rfc3339};
use crate::state::connections::{CloseReason, ConnectionId, PrincipalKind, Row};
use crate::state::doors::Door;
use crate::state::events::{Event, EventKind};

/// The most a page holds: some 250 KiB.
pub const MAX_LIMIT: usize = 500;

/// Which connections are wanted; nothing: all.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Of one door
    #[param(inline)]
    door: Option<DoorName>,
    /// Of one agent
    #[param(value_type = Option<String>, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_.:@-]+$")]
    agent: Option<AgentId>,
    /// Of one client address
    #[param(schema_with = address)]
    ip: Option<IpAddr>,
    /// Connections of a page
    #[param(value_type = Option<u16>, minimum = 1, maximum = 500, default = 100)]
    limit: Option<Limit>,
    /// The `next` of the page before
    #[param(min_length = 1, max_length = 16, pattern = "^[0-9a-f]{1,16}$")]
    cursor: Option<String>,
}

impl Told for Filter {
    const ALLOWED: &'static str = "Filters are door=ws|tcp|http, agent=ID, ip=ADDRESS, limit=1 to 500, cursor=the next of the page before, \
                                   each once.";
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum DoorName {
    Ws,
    Tcp,
    Http,
}

impl From<DoorName> for Door {
    fn from(name: DoorName) -> Self {
        match name {
            DoorName::Ws => Self::Ws,
            DoorName::Tcp => Self::Tcp,
            DoorName::Http => Self::Http,
        }
    }
}

/// A connection as it is told; also what `ringwall connections` reads.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Connection)]
pub struct Listed {
    /// Its name, hexadecimal: audit lines have it behind their door's name.
    pub id: String,
    /// `ws`, `tcp` or `http`.
    pub door: String,
    /// The other end, with its port.
    pub peer: String,
    /// The client's address: the peer's, or what a trusted proxy says.
    pub client: String,
    /// `unknown`, `anonymous`, `demo`, `door` or `agent`.
    pub principal: String,
    /// The agent's id, where there is one.
    pub agent: Option<String>,
    /// The worker that serves it.
    pub worker: u16,
    /// RFC 3339, UTC.
    #[schema(format = DateTime)]
    pub opened_at: String,
    /// Since it was opened, milliseconds.
    pub age_ms: u64,
    /// Since anything last happened on it, milliseconds.
    pub idle_ms: u64,
    /// Messages from the client.
    pub messages_in: u64,
    /// Messages to the client.
    pub messages_out: u64,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Why it is being closed, if it is: `admin`, `revoked` or `blocked`.
    pub closing: Option<String>,
}

/// A page as it is told.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = ConnectionsPage)]
pub struct ListedPage {
    /// In no order that means anything.
    pub connections: Vec<Listed>,
    /// What `cursor` is to be for the next page; `null` on the last.
    pub next: Option<String>,
    /// Connections that could not be read because they changed whenever they were looked at.
    pub unread: usize,
}

/// A connection that is being closed.
#[derive(Deserialize, Serialize, ToSchema)]
pub struct ConnectionClosing {
    /// Its name.
    pub id: String,
    /// Why: `admin`.
    pub closing: String,
}

/// The open connections, a page at a time
#[utoipa::path(get, path = "/admin/connections", operation_id = "listConnections", params(Filter),
    responses((status = 200, description = "A page", body = ListedPage), BadQuery, Guarded))]
pub(super) async fn list(State(admin): State<Admin>, Asked(filter): Asked<Filter>) -> Result<Response, Refused> {
    let start = filter.cursor.as_deref().map(str::parse::<ConnectionId>).transpose();
    let start = start.map_err(|_| Refused::new(400, "invalid_filter", Filter::ALLOWED))?;
    let door = filter.door.map(Door::from);
    let ip = filter.ip.map(|ip| ip.to_canonical());
    let wanted = |row: &Row| {
        door.is_none_or(|door| row.door == door)
            && ip.is_none_or(|ip| row.client == ip)
            && filter.agent.as_ref().is_none_or(|agent| row.agent.as_str() == agent.0)
    };
    let page = admin.connections.page(start, rows(filter.limit), wanted);
    let now_ms = admin.now_ms();
    Ok(json(
        200,
        &ListedPage {
            connections: page.rows.iter().map(|row| Listed::of(row, now_ms)).collect(),
            next: page.next.map(|id| id.to_string()),
            unread: page.unread,
        },
    ))
}

/// Close a connection
#[utoipa::path(delete, path = "/admin/connections/{id}", operation_id = "closeConnection", params(ConnectionName),
    responses((status = 202, description = "Its worker was told, and ends it within a second", body = ConnectionClosing),
        Missing, Guarded))]
pub(super) async fn close(
    State(admin): State<Admin>,
    peer: Peer,
    Named(id): Named<ConnectionId>,
) -> Result<Response, Refused> {
    let Ok(row) = admin.connections.request_close(id, CloseReason::Admin) else {
        return Err(Refused::new(404, "connection_not_open", "No connection with this id is open."));
    };
    if row.closing.is_none() {
        let event = Event::new(EventKind::ConnectionClosed, admin.now_ms()).with_ip(row.client);
        let event = event.with_client(row.door, row.id).with_agent(&row.agent).with_rule("operator");
        let operator = peer.0.0.ip().to_canonical();
        admin.record(event, &format!("{}, from {operator}", CloseReason::Admin.text()));
    }
    Ok(json(202, &ConnectionClosing { id: row.id.to_string(), closing: "admin".to_owned() }))
}

/// The connection in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "a part of the document")]
struct ConnectionName {
    /// As the list shows it
    #[param(min_length = 1, max_length = 16, pattern = "^[0-9a-f]{1,16}$")]
    id: String,
}

impl Listed {
    fn of(row: &Row, now_ms: u64) -> Self {
        Self {
            id: row.id.to_string(),
            door: row.door.name().to_owned(),
            peer: row.peer.to_string(),
            client: row.client.to_string(),
            principal: row.principal.name().to_owned(),
            agent: (row.principal == PrincipalKind::Agent).then(|| row.agent.to_string()),
            worker: row.worker,
            opened_at: rfc3339(row.opened_at_ms),
            age_ms: now_ms.saturating_sub(row.opened_at_ms),
            idle_ms: now_ms.saturating_sub(row.last_activity_ms),
            messages_in: row.messages_in,
            messages_out: row.messages_out,
            bytes_in: row.bytes_in,
            bytes_out: row.bytes_out,
            closing: row.closing.map(|reason| reason.name().to_owned()),
        }
    }
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
