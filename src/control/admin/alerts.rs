//! `GET /admin/alerts`: the last alerts, newest first, a page at a time.
//!
//! | request | answer |
//! |---|---|
//! | `GET /admin/alerts?severity=&limit=&cursor=` | 200 and a page; 400 for a filter that means nothing |
//!
//! `severity` is the least that is wanted. `cursor` is the `next` of the page before; what is raised meanwhile moves nothing.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::Admin;
use crate::control::http::{answer, problem};
use crate::state::events::Severity;

/// Alerts of a page when the client does not say.
const DEFAULT_LIMIT: usize = 100;
/// The most a page holds: some 150 KiB.
const MAX_LIMIT: usize = 500;
/// Digits of an id.
const ID_DIGITS: usize = 24;

/// Which alerts are wanted; nothing: all.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    severity: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn list(State(admin): State<Admin>, filter: Result<Query<Filter>, QueryRejection>) -> Response {
    let refused = || {
        let detail = "Filters are severity=MEDIUM|HIGH|CRITICAL, limit=1 to 500, cursor=NEXT, each once.";
        problem(400, "invalid_filter", detail)
    };
    let Ok(Query(filter)) = filter else { return refused() };
    let severity = match filter.severity.as_deref() {
        None => Severity::Info,
        Some("MEDIUM") => Severity::Medium,
        Some("HIGH") => Severity::High,
        Some("CRITICAL") => Severity::Critical,
        Some(_) => return refused(),
    };
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT);
    let is_id = |id: &str| id.len() == ID_DIGITS && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !(1..=MAX_LIMIT).contains(&limit) || !filter.cursor.as_deref().is_none_or(is_id) {
        return refused();
    }
    let recent = admin.alerts.recent();
    let mut wanted = recent.iter().filter(|alert| {
        alert.new.kind.severity() >= severity
            && filter.cursor.as_deref().is_none_or(|cursor| alert.id.as_str() < cursor)
    });
    let page: Vec<_> = wanted.by_ref().take(limit).collect();
    let next = wanted.next().and(page.last()).map(|alert| alert.id.as_str());
    let alerts: Vec<_> = page.iter().map(|alert| alert.json()).collect();
    answer(200, "application/json", serde_json::json!({ "alerts": alerts, "next": next }).to_string())
}

#[cfg(test)]
#[path = "alerts_tests.rs"]
mod tests;
