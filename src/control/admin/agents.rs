//! `/admin/agents`: who may come in as an agent: those of the policy file, those that tokens were issued to, and those that were given limits
//! (whom an outside issuer may vouch for).
//!
//! | request | answer |
//! |---|---|
//! | `GET /admin/agents?limit=&cursor=` | 200 and a page, in the order of the ids |
//! | `GET /admin/agents/{id}` | 200; 404 for one that nobody knows |

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::accept::{AgentId, Asked, Limit, Named, Refused, Told, rows};
use super::document::{BadQuery, Guarded, Missing};
use super::limits::LimitsShown;
use super::tokens::unavailable;
use crate::control::http::{json, rfc3339};
use crate::guard::LimitBook;
use crate::settings::policy::Agent;
use crate::store::tokens::TokenOwner;

/// Which part of the list is wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Part {
    /// Agents of a page
    #[param(value_type = Option<u16>, minimum = 1, maximum = 500, default = 100)]
    pub(super) limit: Option<Limit>,
    /// The `next` of the page before
    #[param(value_type = Option<String>, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_.:@-]+$")]
    pub(super) cursor: Option<AgentId>,
}

impl Told for Part {
    const ALLOWED: &'static str = "There are limit=1 to 500 and cursor=the next of the page before, each once.";
}

/// An agent as it is told.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentShown {
    /// Its id.
    pub id: String,
    /// Whether the policy file names it.
    pub in_policy: bool,
    /// Whether it may come in: `false` only where the policy file switches it off.
    pub enabled: bool,
    /// Its tier, where it has one.
    pub tier: Option<String>,
    /// Whether the policy file names a token of it, beside those that were issued.
    pub policy_token: bool,
    /// Its tokens that were issued and are valid.
    pub valid_tokens: u64,
    /// When one of these was last used, as far as it was written down.
    #[schema(format = DateTime)]
    pub last_used_at: Option<String>,
    /// What it may do, whoever has said so: `/admin/agents/{id}/limits` says who.
    pub limits: LimitsShown,
    /// Whether an operator has given it limits.
    pub given_limits: bool,
}

/// A page of agents.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct AgentsPage {
    /// In the order of their ids.
    pub agents: Vec<AgentShown>,
    /// What `cursor` is to be for the next page; `null` on the last.
    pub next: Option<String>,
}

/// The agents, a page at a time
#[utoipa::path(get, path = "/admin/agents", operation_id = "listAgents", params(Part),
    responses((status = 200, description = "A page", body = AgentsPage), BadQuery, Guarded))]
pub(super) async fn list(State(admin): State<Admin>, Asked(part): Asked<Part>) -> Result<Response, Refused> {
    let (after, limit) = (part.cursor.map(|id| id.0), rows(part.limit));
    // One more tells whether there are more.
    let wanted = limit.saturating_add(1);
    let owners = admin.store.token_owners(after.clone(), wanted, admin.now_ms()).await.map_err(unavailable)?;
    let of_policy = admin.config.agents.iter().filter(|agent| after.as_ref().is_none_or(|after| agent.id > *after));
    let mut merged: BTreeMap<&str, (Option<&Agent>, Option<&TokenOwner>)> = BTreeMap::new();
    for agent in of_policy {
        merged.entry(&agent.id).or_default().0 = Some(agent);
    }
    for owner in &owners {
        merged.entry(&owner.agent).or_default().1 = Some(owner);
    }
    let book = admin.limits.book();
    for id in book.all_overridden().filter(|id| after.as_ref().is_none_or(|after| *id > after.as_str())) {
        merged.entry(id).or_default();
    }
    let page: Vec<_> =
        merged.iter().take(limit).map(|(id, (agent, owner))| AgentShown::of(id, *agent, *owner, &book)).collect();
    let next = page.last().filter(|_| merged.len() > limit).map(|agent| agent.id.clone());
    Ok(json(200, &AgentsPage { agents: page, next }))
}

/// One agent
#[utoipa::path(get, path = "/admin/agents/{id}", operation_id = "readAgent", params(AgentName),
    responses((status = 200, description = "What is known of it", body = AgentShown), Missing, Guarded))]
pub(super) async fn read(State(admin): State<Admin>, Named(id): Named<AgentId>) -> Result<Response, Refused> {
    let owner = admin.store.token_owner(id.0.clone(), admin.now_ms()).await.map_err(unavailable)?;
    let agent = admin.config.agents.iter().find(|agent| agent.id == id.0);
    let book = admin.limits.book();
    if agent.is_none() && owner.is_none() && book.overridden(&id.0).is_none() {
        let detail = "Neither the policy file nor a token names this agent, and it was given no limits.";
        return Err(Refused::new(404, "agent_not_found", detail));
    }
    Ok(json(200, &AgentShown::of(&id.0, agent, owner.as_ref(), &book)))
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

impl AgentShown {
    fn of(id: &str, agent: Option<&Agent>, owner: Option<&TokenOwner>, book: &LimitBook) -> Self {
        Self {
            id: id.to_owned(),
            in_policy: agent.is_some(),
            enabled: agent.is_none_or(|agent| agent.enabled),
            tier: agent.and_then(|agent| agent.tier.clone()),
            policy_token: agent.is_some_and(|agent| agent.token_sha256.is_some()),
            valid_tokens: owner.map_or(0, |owner| owner.valid),
            last_used_at: owner.and_then(|owner| owner.last_used_ms).map(rfc3339),
            limits: LimitsShown::of(book.of(id)),
            given_limits: book.overridden(id).is_some(),
        }
    }
}
