//! `GET /admin/alerts`: the last alerts, newest first, a page at a time, those from before a restart too.
//!
//! | request | answer |
//! |---|---|
//! | `GET /admin/alerts?severity=&limit=&cursor=` | 200 and a page; 400 for a filter that means nothing |
//!
//! `severity` is the least that is wanted. `cursor` is the `next` of the page before; what is raised meanwhile moves nothing.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::accept::{Asked, Limit, Refused, Told, rows};
use super::document::{BadQuery, Guarded};
use crate::control::alerts::Alert;
use crate::control::http::json;
use crate::state::events::Severity;

/// Digits of an id.
const ID_DIGITS: usize = 24;

/// Which alerts are wanted; nothing: all.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// The least that is wanted
    #[param(inline)]
    severity: Option<Least>,
    /// Alerts of a page
    #[param(value_type = Option<u16>, minimum = 1, maximum = 500, default = 100)]
    limit: Option<Limit>,
    /// The `next` of the page before
    #[param(min_length = 24, max_length = 24, pattern = "^[0-9a-f]{24}$")]
    cursor: Option<String>,
}

impl Told for Filter {
    const ALLOWED: &'static str =
        "Filters are severity=MEDIUM|HIGH|CRITICAL, limit=1 to 500, cursor=the next of the page before, each once.";
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Least {
    Medium,
    High,
    Critical,
}

/// An alert as it is told.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Alert)]
pub struct AlertShown {
    /// Later ones sort later.
    pub id: String,
    /// When it was raised.
    #[schema(format = DateTime)]
    pub raised_at: String,
    /// What is wrong, for programs.
    pub kind: String,
    /// `MEDIUM`, `HIGH` or `CRITICAL`.
    pub severity: String,
    /// What is wrong, for people.
    pub title: String,
    /// The agent that it is about.
    pub agent: Option<String>,
    /// The address that it is about; of IPv6 the /64.
    pub address: Option<String>,
    /// What else there is to say.
    pub details: String,
    /// What has become of it at `ALERT_WEBHOOK_URL`: `none` (it is not for there), `pending`, `delivered` or `given-up`.
    #[schema(pattern = "^(none|pending|delivered|given-up)$")]
    pub delivery: String,
}

/// A page of alerts.
#[derive(Deserialize, Serialize, ToSchema)]
pub struct AlertsPage {
    /// The newest first.
    #[schema(value_type = Vec<AlertShown>)]
    pub alerts: Vec<serde_json::Value>,
    /// What `cursor` is to be for the next page; `null` on the last.
    pub next: Option<String>,
}

/// The last alerts, newest first, a page at a time
#[utoipa::path(get, path = "/admin/alerts", operation_id = "listAlerts", params(Filter),
    responses((status = 200, description = "A page", body = AlertsPage), BadQuery, Guarded))]
pub(super) async fn list(State(admin): State<Admin>, Asked(filter): Asked<Filter>) -> Result<Response, Refused> {
    let severity = filter.severity.map_or(Severity::Info, |least| match least {
        Least::Medium => Severity::Medium,
        Least::High => Severity::High,
        Least::Critical => Severity::Critical,
    });
    let is_id = |id: &str| id.len() == ID_DIGITS && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !filter.cursor.as_deref().is_none_or(is_id) {
        return Err(Refused::new(400, "invalid_filter", Filter::ALLOWED));
    }
    let recent = admin.alerts.recent();
    let mut wanted = recent.iter().filter(|alert| {
        alert.new.kind.severity() >= severity
            && filter.cursor.as_deref().is_none_or(|cursor| alert.id.as_str() < cursor)
    });
    let page: Vec<_> = wanted.by_ref().take(rows(filter.limit)).collect();
    let next = wanted.next().and(page.last()).map(|alert| alert.id.clone());
    Ok(json(200, &AlertsPage { alerts: page.iter().map(|alert| shown(alert)).collect(), next }))
}

fn shown(alert: &Alert) -> serde_json::Value {
    let mut shown = alert.json();
    if let Some(members) = shown.as_object_mut() {
        members.insert("delivery".to_owned(), alert.delivery().name().into());
    }
    shown
}

#[cfg(test)]
#[path = "alerts_tests.rs"]
mod tests;
