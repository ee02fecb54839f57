//! `/admin/connections`: the open connections, a page at a time, and the closing of one.
//!
//! | request | answer |
//! |---|---|
//! | `GET /admin/connections?door=&agent=&ip=&limit=&after=` | 200 and a page; 400 for a filter that means nothing |
//! | `DELETE /admin/connections/{id}` | 202: its worker was told, and ends it within a second; 404: no such connection is open |
//!
//! Listing reads the table beside the workers and holds nobody up. A page is no snapshot: what opens and closes meanwhile may or may not be on
//! it. A close leaves one `connection_closed` in the audit trail, which says who asked.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

use super::{Admin, Peer};
use crate::control::http::{answer, problem};
use crate::state::connections::{CloseReason, ConnectionId, PrincipalKind, Row};
use crate::state::doors::Door;
use crate::state::events::{Event, EventKind};

/// Connections of a page when the client does not say.
const DEFAULT_LIMIT: usize = 100;
/// The most a page holds: some 250 KiB.
pub const MAX_LIMIT: usize = 500;

/// Which connections are wanted; nothing: all.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    door: Option<String>,
    agent: Option<String>,
    ip: Option<IpAddr>,
    limit: Option<usize>,
    after: Option<String>,
}

/// A connection as it is told; also what `ringwall connections` reads.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
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
    /// Why it is being closed, if it is: `admin` or `revoked`.
    pub closing: Option<String>,
}

/// A page as it is told.
#[derive(Debug, Deserialize, Serialize)]
pub struct ListedPage {
    /// In no order that means anything.
    pub connections: Vec<Listed>,
    /// What `after` is to be for the next page; `null` on the last.
    pub next: Option<String>,
    /// Connections that could not be read because they changed whenever they were looked at.
    pub unread: usize,
}

pub(super) async fn list(State(admin): State<Admin>, filter: Result<Query<Filter>, QueryRejection>) -> Response {
    let Ok(Query(filter)) = filter else {
        let detail = "Filters are door=ws|tcp|http, agent=ID, ip=ADDRESS, limit=1 to 500, after=ID, each once.";
        return problem(400, "invalid_filter", detail);
    };
    let door = filter.door.as_deref().map(|name| Door::ALL.iter().find(|door| door.name() == name));
    let start = filter.after.as_deref().map(str::parse::<ConnectionId>);
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT);
    let (Ok(start), false, 1..=MAX_LIMIT) = (start.transpose(), door == Some(None), limit) else {
        let detail = "door is ws, tcp or http; limit is 1 to 500; after is the next of the page before.";
        return problem(400, "invalid_filter", detail);
    };
    let door = door.flatten();
    let ip = filter.ip.map(|ip| ip.to_canonical());
    let wanted = |row: &Row| {
        door.is_none_or(|door| row.door == *door)
            && ip.is_none_or(|ip| row.client == ip)
            && filter.agent.as_deref().is_none_or(|agent| !agent.is_empty() && row.agent.as_str() == agent)
    };
    let page = admin.connections.page(start, limit, wanted);
    let now_ms = (admin.health.clock)();
    let listed = ListedPage {
        connections: page.rows.iter().map(|row| Listed::of(row, now_ms)).collect(),
        next: page.next.map(|id| id.to_string()),
        unread: page.unread,
    };
    match serde_json::to_string(&listed) {
        Ok(body) => answer(200, "application/json", body),
        Err(_) => problem(500, "encoding_failed", "The connections could not be encoded."),
    }
}

pub(super) async fn close(State(admin): State<Admin>, peer: Peer, Path(id): Path<String>) -> Response {
    let found = id.parse::<ConnectionId>().ok();
    let Some(row) = found.and_then(|id| admin.connections.request_close(id, CloseReason::Admin).ok()) else {
        return problem(404, "connection_not_open", "No connection with this id is open.");
    };
    if row.closing.is_none() {
        let event = Event::new(EventKind::ConnectionClosed, (admin.health.clock)()).with_ip(row.client);
        let event = event.with_client(row.door, row.id).with_agent(&row.agent).with_rule("operator");
        let operator = peer.0.0.ip().to_canonical();
        admin.record(event, &format!("{}, from {operator}", CloseReason::Admin.text()));
    }
    answer(202, "application/json", serde_json::json!({ "id": row.id.to_string(), "closing": "admin" }).to_string())
}

impl Listed {
    fn of(row: &Row, now_ms: u64) -> Self {
        let opened = i64::try_from(row.opened_at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        Self {
            id: row.id.to_string(),
            door: row.door.name().to_owned(),
            peer: row.peer.to_string(),
            client: row.client.to_string(),
            principal: row.principal.name().to_owned(),
            agent: (row.principal == PrincipalKind::Agent).then(|| row.agent.to_string()),
            worker: row.worker,
            opened_at: format!("{:.3}", opened.unwrap_or_default()),
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
