//! `/admin/audit`: the audit trail, searched a page at a time. Whether it is whole is asked at [`super::verification`].
//!
//! | request | answer |
//! |---|---|
//! | `GET /admin/audit?event=&severity=&…&since=&until=&text=&limit=&cursor=` | 200 and a page, the oldest first |
//!
//! A search reads files, on a thread of its own, one search at a time. A page is at most 500 lines and [`LOOK`] of reading: it can have fewer lines than
//! were asked for, and none, with a `next` that goes on. Without a `next` the search has come to the end of the trail.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::accept::{Asked, Limit, Phrase, Refused, Told, rows};
use super::document::{BadQuery, Guarded, address, event};
use crate::control::audit::line::PREFIX;
use crate::control::audit::page::{self, Page, Position, Search};
use crate::control::audit::pseudonym::{self, Pseudonyms};
use crate::control::audit::search::{NoAddress, Wanted};
use crate::control::http::json;
use crate::control::keys;
use crate::state::events::{EventKind, Severity};

/// How long a page is looked for.
const LOOK: Duration = Duration::from_secs(2);
/// How long the place where a page goes on may take to be found: only in a compressed file it takes any time.
const FIND: Duration = Duration::from_secs(20);
/// How long a search waits for the one before it.
const TURN: Duration = Duration::from_secs(5);

/// Where the trail is.
#[derive(Clone, Debug)]
pub struct AuditPlace {
    /// `AUDIT_DIR`.
    pub trail: PathBuf,
    /// `DATA_DIR`, where its keys and its checkpoint are.
    pub state: PathBuf,
}

/// Lets one search through at a time.
pub(crate) type Turnstile = Arc<Semaphore>;

/// Which lines are wanted: those that say all of it; nothing: all.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Of this kind
    #[param(schema_with = event)]
    event: Option<String>,
    /// At least this serious
    #[param(inline)]
    severity: Option<Least>,
    /// From this address
    #[param(schema_with = address)]
    ip: Option<std::net::IpAddr>,
    /// Of this client, as lines have it
    #[param(value_type = Option<String>, min_length = 1, max_length = 64, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    client: Option<Phrase<64>>,
    /// Of this agent
    #[param(value_type = Option<String>, min_length = 1, max_length = 128, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    agent: Option<Phrase<128>>,
    /// About this tool
    #[param(value_type = Option<String>, min_length = 1, max_length = 128, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    tool: Option<Phrase<128>>,
    /// Decided by this rule
    #[param(value_type = Option<String>, min_length = 1, max_length = 64, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    rule: Option<Phrase<64>>,
    /// About the message with this JSON-RPC id
    #[param(value_type = Option<String>, min_length = 1, max_length = 64, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    request: Option<Phrase<64>>,
    /// Not older than this
    #[param(value_type = Option<String>, format = DateTime, max_length = 64)]
    since: Option<Time>,
    /// Older than this
    #[param(value_type = Option<String>, format = DateTime, max_length = 64)]
    until: Option<Time>,
    /// With this text in it; capitals do not matter
    #[param(value_type = Option<String>, min_length = 1, max_length = 200, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    text: Option<Phrase<200>>,
    /// Lines of a page
    #[param(value_type = Option<u16>, minimum = 1, maximum = 500, default = 100)]
    limit: Option<Limit>,
    /// The `next` of the page before
    #[param(min_length = 3, max_length = 33, pattern = "^[0-9a-f]{1,16}-[0-9a-f]{1,16}$")]
    cursor: Option<String>,
}

impl Told for Filter {
    const ALLOWED: &'static str = "Filters are event=KIND, severity=INFO|LOW|MEDIUM|HIGH|CRITICAL, ip=ADDRESS, client=ID, agent=ID, tool=NAME, rule=NAME, \
                                   request=ID, since=TIME and until=TIME (RFC 3339), text=TEXT, limit=1 to 500, cursor=the next of the page before, each once.";
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Least {
    Info,
    Low,
    Medium,
    High,
    Critical,
}

impl From<Least> for Severity {
    fn from(least: Least) -> Self {
        match least {
            Least::Info => Self::Info,
            Least::Low => Self::Low,
            Least::Medium => Self::Medium,
            Least::High => Self::High,
            Least::Critical => Self::Critical,
        }
    }
}

/// A moment, RFC 3339.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Time(Timestamp);

impl TryFrom<String> for Time {
    type Error = jiff::Error;

    fn try_from(text: String) -> Result<Self, jiff::Error> {
        text.parse().map(Self)
    }
}

/// A line of the audit trail. What a line does not say is left out.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditLine {
    /// When it happened.
    #[schema(format = DateTime)]
    pub timestamp: String,
    /// Its number in the chain.
    pub seq: u64,
    /// What happened.
    #[schema(schema_with = event)]
    pub event: String,
    /// `INFO` to `CRITICAL`.
    #[schema(pattern = "^(INFO|LOW|MEDIUM|HIGH|CRITICAL)$")]
    pub severity: String,
    /// The pseudonym of the address.
    #[schema(nullable = false)]
    pub ip: Option<String>,
    /// The door and the connection's name.
    #[schema(nullable = false)]
    pub client_id: Option<String>,
    /// The agent.
    #[schema(nullable = false)]
    pub agent_id: Option<String>,
    /// The tool.
    #[schema(nullable = false)]
    pub tool: Option<String>,
    /// What decided.
    #[schema(nullable = false)]
    pub rule: Option<String>,
    /// The message's id, as JSON.
    #[schema(nullable = false)]
    pub request_id: Option<String>,
    /// How a call ended.
    #[schema(nullable = false)]
    pub outcome: Option<String>,
    /// The HTTP status of its answer.
    #[schema(nullable = false)]
    pub status: Option<u16>,
    /// How long it took, microseconds.
    #[schema(nullable = false)]
    pub duration_us: Option<u64>,
    /// What else there is to say.
    #[schema(nullable = false)]
    pub details: Option<String>,
    /// The `mac` of the line before.
    pub prev: String,
    /// Its own.
    pub mac: String,
}

/// A page of the trail.
#[derive(Deserialize, Serialize, ToSchema)]
pub struct AuditLinesPage {
    /// In the order of the trail. Whether they are as they were written was not looked at.
    #[schema(value_type = Vec<AuditLine>)]
    pub lines: Vec<serde_json::Value>,
    /// What `cursor` is to be for the next page; `null`: the trail has no more.
    pub next: Option<String>,
}

/// Lines of the audit trail, a page at a time
#[utoipa::path(get, path = "/admin/audit", operation_id = "searchAudit", params(Filter),
    responses((status = 200, description = "A page; it can have fewer lines than were asked for, and a `next` all the same", body = AuditLinesPage),
        BadQuery, Guarded))]
pub(super) async fn search(State(admin): State<Admin>, Asked(filter): Asked<Filter>) -> Result<Response, Refused> {
    let place = admin.config.audit.clone().ok_or_else(off)?;
    if let Some(event) = &filter.event
        && !EventKind::ALL.iter().any(|kind| kind.wire_name() == event)
    {
        return Err(invalid());
    }
    let from = filter.cursor.as_deref().map(str::parse::<Position>).transpose().map_err(|_| invalid())?;
    let turn = tokio::time::timeout(TURN, Arc::clone(&admin.searches).acquire_owned()).await;
    let Ok(Ok(turn)) = turn else {
        return Err(Refused::new(503, "search_busy", "Another search of the audit trail is running; try again."));
    };
    let found = tokio::task::spawn_blocking(move || {
        let found = look(&place, &filter, from);
        drop(turn);
        found
    });
    let Page { lines, next } = found.await.map_err(|_| unreadable())??;
    // A line that is no JSON is none of ours.
    let lines = lines.iter().filter_map(|line| serde_json::from_slice(line.strip_prefix(PREFIX.as_bytes())?).ok());
    Ok(json(200, &AuditLinesPage { lines: lines.collect(), next: next.map(|next| next.to_string()) }))
}

/// Reads the files: blocks the thread.
fn look(place: &AuditPlace, wanted: &Filter, from: Option<Position>) -> Result<Page, Refused> {
    let key = keys::load_existing(&place.state, pseudonym::KEY_FILE).map_err(|error| {
        tracing::warn!(%error, "the audit trail cannot be searched");
        unreadable()
    })?;
    let ip = wanted.ip.map(|ip| ip.to_canonical().to_string());
    let event = wanted.event.as_deref();
    let filter = Wanted {
        event: event.as_slice(),
        severity: wanted.severity.map(Severity::from),
        ip: ip.as_deref(),
        client: wanted.client.as_ref().map(|phrase| phrase.0.as_str()),
        agent: wanted.agent.as_ref().map(|phrase| phrase.0.as_str()),
        tool: wanted.tool.as_ref().map(|phrase| phrase.0.as_str()),
        rule: wanted.rule.as_ref().map(|phrase| phrase.0.as_str()),
        request: wanted.request.as_ref().map(|phrase| phrase.0.as_str()),
        since: wanted.since.map(|at| at.0),
        until: wanted.until.map(|at| at.0),
        text: wanted.text.as_ref().map(|phrase| phrase.0.as_str()),
    };
    // Every address has a pseudonym.
    let filter = filter.filter(&Pseudonyms::new(&key)).map_err(|NoAddress| invalid())?;
    let now = Instant::now();
    let search = Search {
        filter: &filter,
        since: wanted.since.map(|at| SystemTime::from(at.0)),
        from,
        most: rows(wanted.limit),
        until: now + LOOK,
        give_up: now + FIND,
    };
    page::page(&place.trail, &search).map_err(|(path, error)| {
        tracing::warn!(path = %path.display(), %error, "the audit trail cannot be searched");
        unreadable()
    })
}

fn invalid() -> Refused {
    Refused::new(400, "invalid_filter", Filter::ALLOWED)
}

/// There is no trail.
pub(super) fn off() -> Refused {
    Refused::new(503, "audit_off", "SECURITY_AUDIT_LOG=false: there is no audit trail.")
}

fn unreadable() -> Refused {
    Refused::new(503, "trail_unreadable", "A file of the audit trail or its key cannot be read. The log says which.")
}
