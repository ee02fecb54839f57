//! `/admin/billing`: what was spent, by day or month, agent and tool.
//!
//! | request | answer |
//! |---|---|
//! | `GET /admin/billing?by=&from=&to=&agent=&tool=&format=&limit=&cursor=` | 200 and a page; 400 for a query that means nothing |
//!
//! Amounts are US dollars, as decimal numbers in strings: no reader's floats can change them. What is *unsettled* is charged, and is part of
//! what was spent: nobody knows whether these calls were carried out. What is *reserved* is for calls on their way, and is not.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::accept::{Asked, Limit, Refused, Told, rows};
use super::document::{BadQuery, Guarded};
use super::tokens::unavailable;
use crate::control::http::{answer, json};
use crate::guard::jwt::is_agent_id;
use crate::settings::money::Usd;
use crate::state::spend::Day;
use crate::store::spend::billing::{Grouping, Key, Sum, Times, Wanted};

/// The most days that one request may ask for: a year, and the days around it.
pub const MAX_DAYS: u64 = 400;
/// The longest cursor: a row's names in base64.
const MAX_CURSOR: usize = 2_048;

/// What is wanted; nothing: this month, by agent.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Query {
    /// What has rows of its own: `day` or `month`, `agent`, `tool`, with commas between them
    #[param(value_type = Option<String>, pattern = "^(day|month|agent|tool)(,(day|month|agent|tool)){0,2}$", default = "agent", max_length = 17)]
    by: Option<By>,
    /// The first day, UTC; without it that of this month
    #[param(value_type = Option<String>, format = Date, min_length = 10, max_length = 10)]
    from: Option<DayText>,
    /// The last day, UTC; without it today
    #[param(value_type = Option<String>, format = Date, min_length = 10, max_length = 10)]
    to: Option<DayText>,
    /// Of one agent; `(door)`, `(anonymous)` and `(demo)` are those who are none
    #[param(value_type = Option<String>, min_length = 1, max_length = 128)]
    agent: Option<Payer>,
    /// Of the tools of one name
    #[param(min_length = 1, max_length = 256)]
    tool: Option<String>,
    /// How it is written
    #[param(inline)]
    format: Option<Format>,
    /// Rows of a page
    #[param(value_type = Option<u16>, minimum = 1, maximum = 500, default = 100)]
    limit: Option<Limit>,
    /// The `next` of the page before
    #[param(value_type = Option<String>, min_length = 1, max_length = 2048, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<Cursor>,
}

impl Told for Query {
    const ALLOWED: &'static str = "There are by=day or month, agent, tool, with commas between them; from and to, days as YYYY-MM-DD, at most 400 \
                                   apart; agent=ID, tool=NAME, format=json|csv, limit=1 to 500, cursor=the next of the page before, each once.";
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Csv,
}

/// What has rows of its own.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct By(Grouping);

impl TryFrom<String> for By {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut by = Grouping::default();
        for word in text.split(',') {
            match word {
                "day" if by.times == Times::All => by.times = Times::Day,
                "month" if by.times == Times::All => by.times = Times::Month,
                "agent" if !by.by_agent => by.by_agent = true,
                "tool" if !by.by_tool => by.by_tool = true,
                _ => return Err("no such grouping"),
            }
        }
        Ok(Self(by))
    }
}

/// A day as `YYYY-MM-DD`.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct DayText(Day);

impl TryFrom<String> for DayText {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // Other ways to write a date are left to others.
        let date = (text.len() == 10).then(|| text.parse::<jiff::civil::Date>().ok()).flatten();
        let days = date.and_then(|date| (date - jiff::civil::date(1970, 1, 1)).get_days().try_into().ok());
        days.map(|days| Self(Day::from_days(days))).ok_or("not a day")
    }
}

/// Whose account it is.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
struct Payer(String);

impl TryFrom<String> for Payer {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_known = is_agent_id(&text) || matches!(text.as_str(), "(door)" | "(anonymous)" | "(demo)");
        if is_known { Ok(Self(text)) } else { Err("not an agent's id") }
    }
}

/// Behind which row a page begins.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
struct Cursor(Key);

impl TryFrom<String> for Cursor {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = (text.len() <= MAX_CURSOR).then(|| URL_SAFE_NO_PAD.decode(text).ok()).flatten();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).map(Self).ok_or("not a cursor")
    }
}

/// What was spent, added up as it was asked for.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpentShown {
    /// The day, UTC, by day.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(format = Date)]
    pub day: Option<String>,
    /// The month, `YYYY-MM`, by month.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub month: Option<String>,
    /// The agent, by agent; `(door)`, `(anonymous)` or `(demo)` for calls of nobody who is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent: Option<String>,
    /// The upstream, by tool.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub upstream: Option<String>,
    /// The upstream's name of the tool, by tool; `(other)` for those beyond the 256th of an agent and day.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tool: Option<String>,
    /// Calls that were charged.
    pub calls: u64,
    /// What they cost, US dollars.
    pub spent_usd: String,
    /// Of these, calls of which nobody knows whether they were carried out.
    pub unsettled_calls: u64,
    /// What was charged for them.
    pub unsettled_usd: String,
    /// Calls on their way.
    pub reserved_calls: u64,
    /// What is reserved for them.
    pub reserved_usd: String,
}

/// A page of it.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BillingPage {
    /// The first day that is counted.
    #[schema(format = Date)]
    pub from: String,
    /// The last.
    #[schema(format = Date)]
    pub to: String,
    /// In the order of day or month, agent, upstream and tool.
    pub rows: Vec<SpentShown>,
    /// What `cursor` is to be for the next page; `null` on the last.
    pub next: Option<String>,
}

/// What was spent, a page at a time
///
/// As CSV, a `Link` header with `rel="next"` has the next page's query.
#[utoipa::path(get, path = "/admin/billing", operation_id = "readBilling", params(Query),
    responses((status = 200, description = "A page", content((BillingPage = "application/json"), (String = "text/csv"))), BadQuery, Guarded))]
pub(super) async fn read(State(admin): State<Admin>, Asked(query): Asked<Query>) -> Result<Response, Refused> {
    let invalid = || Refused::new(400, "invalid_filter", Query::ALLOWED);
    let today = Day::of(admin.now_ms());
    let to = query.to.map_or(today, |to| to.0);
    let from = query.from.map_or(to.first_of_month(), |from| from.0);
    if from > to
        || to.days() - from.days() > MAX_DAYS
        || query.tool.as_ref().is_some_and(|tool| tool.is_empty() || tool.len() > 256)
    {
        return Err(invalid());
    }
    let by = query.by.map_or(Grouping { by_agent: true, ..Grouping::default() }, |by| by.0);
    let Some(spending) = &admin.spending else {
        return Err(Refused::new(503, "store_unavailable", "There is no ledger."));
    };
    let limit = rows(query.limit);
    let wanted = Wanted { from, to, agent: query.agent.map(|payer| payer.0), tool: query.tool };
    let after = query.cursor.map(|cursor| cursor.0);
    // One more tells whether there are more.
    let sums = spending.ledger.billing(wanted, by, after, limit.saturating_add(1)).await.map_err(unavailable)?;
    let last = sums.get(limit.saturating_sub(1)).filter(|_| sums.len() > limit);
    let next = last.and_then(|sum| serde_json::to_vec(&sum.key).ok()).map(|key| URL_SAFE_NO_PAD.encode(key));
    let rows: Vec<_> = sums.iter().take(limit).map(|sum| shown(sum, by)).collect();
    if query.format.unwrap_or_default() == Format::Json {
        return Ok(json(200, &BillingPage { from: day_text(from), to: day_text(to), rows, next }));
    }
    let mut response = answer(200, "text/csv; charset=utf-8; header=present", csv(&rows));
    let link = next.map(|next| format!("<?cursor={next}>; rel=\"next\""));
    if let Some(link) = link.and_then(|link| HeaderValue::try_from(link).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

fn shown(sum: &Sum, by: Grouping) -> SpentShown {
    let (time, agent, upstream, tool) = &sum.key;
    let day = || day_text(Day::from_days(*time));
    SpentShown {
        day: (by.times == Times::Day).then(day),
        month: (by.times == Times::Month).then(|| day().chars().take(7).collect()),
        agent: by.by_agent.then(|| agent.clone()),
        upstream: by.by_tool.then(|| upstream.clone()),
        tool: by.by_tool.then(|| tool.clone()),
        calls: sum.calls,
        spent_usd: Usd(sum.microusd).to_string(),
        unsettled_calls: sum.unsettled_calls,
        unsettled_usd: Usd(sum.unsettled_microusd).to_string(),
        reserved_calls: sum.reserved_calls,
        reserved_usd: Usd(sum.reserved_microusd).to_string(),
    }
}

/// `YYYY-MM-DD`.
fn day_text(day: Day) -> String {
    let second = i64::try_from(day.days()).unwrap_or(0).saturating_mul(86_400);
    jiff::Timestamp::from_second(second).unwrap_or_default().strftime("%Y-%m-%d").to_string()
}

/// The rows as RFC 4180 has them, with all columns whatever is asked for.
pub(crate) fn csv(rows: &[SpentShown]) -> String {
    let mut text = String::from(CSV_HEADER);
    for row in rows {
        let names = [&row.day, &row.month, &row.agent, &row.upstream, &row.tool];
        let names = names.map(|name| field(name.as_deref().unwrap_or_default()));
        let (calls, unsettled, reserved) = (row.calls, row.unsettled_calls, row.reserved_calls);
        let SpentShown { spent_usd, unsettled_usd, reserved_usd, .. } = row;
        text += &names.join(",");
        text += &format!(",{calls},{spent_usd},{unsettled},{unsettled_usd},{reserved},{reserved_usd}\r\n");
    }
    text
}

/// The first line.
pub(crate) const CSV_HEADER: &str =
    "day,month,agent,upstream,tool,calls,spent_usd,unsettled_calls,unsettled_usd,reserved_calls,reserved_usd\r\n";

/// A field between quotes where it needs them. What a spreadsheet would take for a formula gets an apostrophe before it: names of tools may
/// come from clients.
fn field(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let safe: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let safe = if is_formula { format!("'{safe}") } else { safe };
    if safe.contains(['"', ',', '\'']) { format!("\"{}\"", safe.replace('"', "\"\"")) } else { safe }
}

#[cfg(test)]
#[path = "billing_tests.rs"]
mod tests;
