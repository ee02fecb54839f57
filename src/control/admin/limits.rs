//! `/admin/limits` and `/admin/agents/{id}/limits`: how much agents may do, how much of it they have done, and what operators give them.
//!
//! | request | answer |
//! |---|---|
//! | `GET /admin/limits?limit=&cursor=` | 200 and a page of agents, with what everyone and the tools have used |
//! | `GET /admin/agents/{id}/limits` | 200, whether or not anything is known of the agent: every agent has limits |
//! | `PUT /admin/agents/{id}/limits` | 200: they hold from the next call on, on every worker, and after a restart |
//! | `DELETE /admin/agents/{id}/limits` | 200: what policy and settings say holds again; 404 where it was given none |
//!
//! A change is answered when it is on disk. Each leaves a line in the audit trail that says who has made it.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::accept::{AgentId, Asked, Body, Named, Refused, Told, Within, rows};
use super::agents::Part;
use super::document::{BadBody, BadQuery, Conflict, Guarded, Missing};
use super::tokens::unavailable;
use super::{Admin, Peer};
use crate::control::http::{json, rfc3339};
use crate::control::limits::LimitsError;
use crate::guard::LimitBook;
use crate::guard::limits::AgentLimits;
use crate::guard::rates::{self, Subject, Used};
use crate::settings::policy::{Limits, ToolPolicy};
use crate::settings::table::microusd;
use crate::settings::{Policy, money};

/// A tool that the policy names and limits.
#[derive(Clone, Debug)]
pub struct LimitedTool {
    /// The upstream.
    pub upstream: String,
    /// Its own name of the tool.
    pub name: String,
    /// Its limits.
    pub limits: Limits,
}

/// The tools that the policy names and limits; what a pattern stands for is not known before it is called.
pub(crate) fn limited_tools(policy: &Policy) -> Vec<LimitedTool> {
    let is_limited = |tool: &&ToolPolicy| !tool.pattern.contains('*') && tool.limits != Limits::default();
    let of_tool = |tool: &ToolPolicy| {
        let (name, limits, only) = (tool.pattern.clone(), tool.limits, tool.upstream.clone());
        let upstreams = policy.upstreams.iter().map(|upstream| upstream.name.clone());
        let upstreams: Vec<_> = upstreams.filter(|name| only.as_ref().is_none_or(|only| only == name)).collect();
        upstreams.into_iter().map(move |upstream| LimitedTool { upstream, name: name.clone(), limits })
    };
    policy.tools.iter().filter(is_limited).flat_map(of_tool).take(MAX_LIMITED_TOOLS).collect()
}

/// Tools of which it is told how much of their limits is used: a page is read by people.
const MAX_LIMITED_TOOLS: usize = 1_000;

/// The highest number of calls that can be given.
type Count = Within<0, 1_000_000_000>;

/// Limits that an agent is given. What is left out is what policy and settings say.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(min_properties = 1)]
pub(super) struct GiveLimits {
    /// Tool calls a minute, sliding
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000_000)]
    per_minute: Option<Count>,
    /// Tool calls an hour, sliding
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000_000)]
    per_hour: Option<Count>,
    /// Tool calls a calendar day, UTC
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000_000)]
    per_day: Option<Count>,
    /// Voice actions to one number a calendar day, UTC
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000_000)]
    same_number_per_day: Option<Count>,
    /// US dollars a calendar day, UTC
    #[schema(value_type = Option<String>, max_length = 17, pattern = "^[0-9]{1,10}(\\.[0-9]{1,6})?$")]
    spend_per_day_usd: Option<Usd>,
    /// US dollars a calendar month, UTC
    #[schema(value_type = Option<String>, max_length = 17, pattern = "^[0-9]{1,10}(\\.[0-9]{1,6})?$")]
    spend_per_month_usd: Option<Usd>,
}

impl Told for GiveLimits {
    const ALLOWED: &'static str = "An object with at least one of perMinute, perHour, perDay, sameNumberPerDay (0 to 1000000000), \
                                   spendPerDayUsd and spendPerMonthUsd (\"0.50\", at most 1000000000 and six decimals).";
}

/// Micro-dollars, written as a decimal number of dollars.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Usd(u64);

impl TryFrom<String> for Usd {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // Blanks around it are none of the document's.
        if text.len() > 17 || text.trim() != text {
            return Err("is not an amount of dollars".into());
        }
        microusd(&text).map(Self)
    }
}

impl GiveLimits {
    fn limits(&self) -> Limits {
        let count = |count: Option<Count>| count.and_then(|count| u32::try_from(count.get()).ok());
        Limits {
            per_minute: count(self.per_minute),
            per_hour: count(self.per_hour),
            per_day: count(self.per_day),
            same_number_per_day: count(self.same_number_per_day),
            spend_per_day_microusd: self.spend_per_day_usd.map(|usd| usd.0),
            spend_per_month_microusd: self.spend_per_month_usd.map(|usd| usd.0),
        }
    }
}

/// A limit, and how much of it is used; also what `ringwall limits` reads.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitShown {
    /// Which: what callers are told as `limitType`, or the rule's name.
    pub limit: String,
    /// How much is allowed.
    pub max: u64,
    /// How much is used.
    pub used: u64,
    /// How much is left.
    pub left: u64,
    /// When nothing of it is used any more, if nothing is done until then.
    #[schema(format = DateTime)]
    pub resets_at: Option<String>,
    /// The same, from now, milliseconds.
    pub resets_in_ms: u64,
    /// Who has said how much is allowed: `default`, `tier`, `agent` or `operator`; for tools `policy`.
    pub source: String,
}

/// How much an agent may do, by number.
#[derive(Debug, Default, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitsShown {
    /// Tool calls a minute, sliding.
    pub per_minute: Option<u32>,
    /// Tool calls an hour, sliding.
    pub per_hour: Option<u32>,
    /// Tool calls a calendar day, UTC.
    pub per_day: Option<u32>,
    /// Voice actions to one number a calendar day, UTC.
    pub same_number_per_day: Option<u32>,
    /// US dollars a calendar day, UTC.
    pub spend_per_day_usd: Option<String>,
    /// US dollars a calendar month, UTC.
    pub spend_per_month_usd: Option<String>,
}

impl LimitsShown {
    /// Everything that an agent may do.
    pub(super) fn of(limits: &AgentLimits) -> Self {
        Self {
            per_minute: Some(limits.per_minute),
            per_hour: Some(limits.per_hour),
            per_day: Some(limits.per_day),
            same_number_per_day: Some(limits.same_number_per_day),
            spend_per_day_usd: Some(money::Usd(limits.spend_per_day_microusd).to_string()),
            spend_per_month_usd: Some(money::Usd(limits.spend_per_month_microusd).to_string()),
        }
    }

    fn given(limits: &Limits) -> Self {
        Self {
            per_minute: limits.per_minute,
            per_hour: limits.per_hour,
            per_day: limits.per_day,
            same_number_per_day: limits.same_number_per_day,
            spend_per_day_usd: limits.spend_per_day_microusd.map(|usd| money::Usd(usd).to_string()),
            spend_per_month_usd: limits.spend_per_month_microusd.map(|usd| money::Usd(usd).to_string()),
        }
    }
}

/// What an agent may do, and what it has done.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentLimitsShown {
    /// Its id.
    pub agent: String,
    /// What an operator has given it; `null`: nothing.
    pub given: Option<LimitsShown>,
    /// What is in force.
    pub in_force: LimitsShown,
    /// How much of it is used.
    pub usage: Vec<LimitShown>,
}

/// What a tool's own limits are, and how much of them is used.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct ToolLimitsShown {
    /// The upstream.
    pub upstream: String,
    /// Its own name of the tool.
    pub tool: String,
    /// How much of its limits is used, by all who call it.
    pub usage: Vec<LimitShown>,
}

/// A page of agents, and what is everyone's.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct LimitsPage {
    /// `false`: nothing is limited, `RATE_LIMIT_ENABLED` is off.
    pub enabled: bool,
    /// HTTP requests of everyone.
    pub everyone: Vec<LimitShown>,
    /// Tool calls of those who hold a door's token and name no agent.
    pub door: Vec<LimitShown>,
    /// Tools that the policy names and limits. Those of patterns are counted each by itself, and are not listed.
    pub tools: Vec<ToolLimitsShown>,
    /// Agents, in the order of their ids.
    pub agents: Vec<AgentLimitsShown>,
    /// What `cursor` is to be for the next page; `null` on the last.
    pub next: Option<String>,
}

/// How much everyone, the tools and the agents have used of their limits, a page of agents at a time
#[utoipa::path(get, path = "/admin/limits", operation_id = "listLimits", params(Part),
    responses((status = 200, description = "A page", body = LimitsPage), BadQuery, Guarded))]
pub(super) async fn list(State(admin): State<Admin>, Asked(part): Asked<Part>) -> Result<Response, Refused> {
    let (after, limit) = (part.cursor.map(|id| id.0), rows(part.limit));
    // One more tells whether there are more.
    let wanted = limit.saturating_add(1);
    let owners = admin.store.token_owners(after.clone(), wanted, admin.now_ms()).await.map_err(unavailable)?;
    let book = admin.limits.book();
    let mut known: BTreeSet<&str> = admin.config.agents.iter().map(|agent| agent.id.as_str()).collect();
    known.extend(book.all_overridden());
    known.extend(owners.iter().map(|owner| owner.agent.as_str()));
    let mut ids: Vec<&str> =
        known.into_iter().filter(|id| after.as_ref().is_none_or(|after| *id > after.as_str())).take(wanted).collect();
    let is_last = ids.len() <= limit;
    ids.truncate(limit);
    let next = ids.last().filter(|_| !is_last).map(|id| (*id).to_owned());
    let agents = ids.into_iter().map(|id| admin.limits_of(&book, id)).collect();
    let now_ms = admin.now_ms();
    let door = admin.used_by(Subject::Door, book.default_limits());
    let (enabled, everyone) = match &admin.config.traffic {
        None => (false, Vec::new()),
        Some(traffic) => {
            let used = traffic.global_usage(&admin.limits.tables().traffic, now_ms);
            (true, vec![shown(used, now_ms, "default")])
        }
    };
    let tools = admin.config.limited_tools.iter().map(|tool| ToolLimitsShown {
        upstream: tool.upstream.clone(),
        tool: tool.name.clone(),
        usage: rates::used_of_tool(&admin.limits.tables().actions, &tool.upstream, &tool.name, &tool.limits, now_ms)
            .into_iter()
            .map(|used| shown(used, now_ms, "policy"))
            .collect(),
    });
    Ok(json(200, &LimitsPage { enabled, everyone, door, tools: tools.collect(), agents, next }))
}

/// What an agent may do, and what it has done
#[utoipa::path(get, path = "/admin/agents/{id}/limits", operation_id = "readAgentLimits", params(AgentName),
    responses((status = 200, description = "Its limits, and how much of them is used", body = AgentLimitsShown), Missing, Guarded))]
pub(super) async fn read(State(admin): State<Admin>, Named(id): Named<AgentId>) -> Response {
    json(200, &admin.limits_of(&admin.limits.book(), &id.0))
}

/// Give an agent limits, in place of those that it was given before
#[utoipa::path(put, path = "/admin/agents/{id}/limits", operation_id = "giveAgentLimits", params(AgentName),
    request_body = GiveLimits,
    responses((status = 200, description = "They hold from the next call on", body = AgentLimitsShown),
        BadBody, Missing, Conflict, Guarded))]
pub(super) async fn give(
    State(admin): State<Admin>,
    peer: Peer,
    Named(id): Named<AgentId>,
    Body(wanted): Body<GiveLimits>,
) -> Result<Response, Refused> {
    let limits = wanted.limits();
    if limits == Limits::default() {
        return Err(Refused::new(422, "invalid_body", GiveLimits::ALLOWED));
    }
    admin.limits.give(id.0.clone(), limits, peer.0.0.ip().to_canonical()).await?;
    Ok(json(200, &admin.limits_of(&admin.limits.book(), &id.0)))
}

/// Take back the limits that an agent was given
#[utoipa::path(delete, path = "/admin/agents/{id}/limits", operation_id = "takeBackAgentLimits", params(AgentName),
    responses((status = 200, description = "What policy and settings say holds again", body = AgentLimitsShown), Missing, Guarded))]
pub(super) async fn take_back(
    State(admin): State<Admin>,
    peer: Peer,
    Named(id): Named<AgentId>,
) -> Result<Response, Refused> {
    admin.limits.take_back(id.0.clone(), peer.0.0.ip().to_canonical()).await?;
    Ok(json(200, &admin.limits_of(&admin.limits.book(), &id.0)))
}

/// The agent in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "a part of the document")]
struct AgentName {
    /// Its id
    #[param(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_.:@-]+$")]
    id: String,
}

impl Admin {
    fn limits_of(&self, book: &LimitBook, agent: &str) -> AgentLimitsShown {
        let limits = book.of(agent);
        let mut usage = self.used_by(Subject::Agent(agent), limits);
        let says: [fn(&Limits) -> bool; 3] =
            [|said| said.per_minute.is_some(), |said| said.per_hour.is_some(), |said| said.per_day.is_some()];
        for (shown, says) in usage.iter_mut().zip(says) {
            book.source(agent, says).name().clone_into(&mut shown.source);
        }
        AgentLimitsShown {
            agent: agent.to_owned(),
            given: book.overridden(agent).map(LimitsShown::given),
            in_force: LimitsShown::of(limits),
            usage,
        }
    }

    fn used_by(&self, subject: Subject<'_>, limits: &AgentLimits) -> Vec<LimitShown> {
        let now_ms = self.now_ms();
        let used = rates::used_by(&self.limits.tables().actions, subject, limits, now_ms);
        used.into_iter().map(|used| shown(used, now_ms, "default")).collect()
    }
}

fn shown(used: Used, now_ms: u64, source: &str) -> LimitShown {
    let Used { limit, max, usage } = used;
    let resets_in_ms = if usage.used == 0 { 0 } else { usage.resets_at_ms.saturating_sub(now_ms) };
    LimitShown {
        limit: limit.limit_type().unwrap_or_else(|| limit.rule()).to_owned(),
        max: max.into(),
        used: usage.used,
        left: usage.left,
        resets_at: (usage.used > 0).then(|| rfc3339(usage.resets_at_ms)),
        resets_in_ms,
        source: source.to_owned(),
    }
}

impl From<LimitsError> for Refused {
    fn from(error: LimitsError) -> Self {
        match error {
            LimitsError::Store(error) => unavailable(error),
            LimitsError::TooMany => Self::new(
                409,
                "too_many_limits",
                "As many agents as may have limits of their own have some; take some back.",
            ),
            LimitsError::Unknown => Self::new(
                404,
                "limits_not_found",
                "This agent was given no limits: what policy and settings say holds.",
            ),
            LimitsError::Unrecorded => Self::new(
                503,
                "audit_unavailable",
                "The audit trail has no room for this; nothing was changed. Try again.",
            ),
        }
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
