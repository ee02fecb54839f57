//! How much each agent may do: what the settings, the policy and operators say, put together.
//!
//! A number is the operators' (admin API), else the agent's own (policy), else its tier's, else the settings' default. It is put together
//! when one of them changes, so that a call costs one look-up: [`LimitBook::of`]. A book is published whole; what it says holds for the
//! next call of every worker, whatever was counted before.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;

use crate::settings::policy::Limits;
use crate::settings::{Policy, Rates};
use crate::state::spend::Caps;

/// Agents that operators may give limits of their own: as many as a policy file may name. Some 300 bytes each in memory.
pub const MAX_OVERRIDES: usize = 100_000;

/// What one agent may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AgentLimits {
    /// Tool calls a minute, sliding.
    pub per_minute: u32,
    /// Tool calls an hour, sliding.
    pub per_hour: u32,
    /// Tool calls a calendar day, UTC.
    pub per_day: u32,
    /// Voice actions to one number a calendar day, UTC.
    pub same_number_per_day: u32,
    /// Spend a calendar day, UTC, micro-dollars.
    pub spend_per_day_microusd: u64,
    /// Spend a calendar month, UTC, micro-dollars.
    pub spend_per_month_microusd: u64,
}

/// Who has said a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The settings.
    Default,
    /// The agent's tier in the policy.
    Tier,
    /// The agent's own entry in the policy.
    Agent,
    /// An operator, by the admin API.
    Operator,
}

impl Source {
    /// As it is told.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Tier => "tier",
            Self::Agent => "agent",
            Self::Operator => "operator",
        }
    }
}

/// What was said of an agent in the policy.
#[derive(Clone, Debug, Default)]
struct Said {
    own: Limits,
    tier: Limits,
    effective: AgentLimits,
}

/// What settings and policy say; the same for as long as they are.
#[derive(Debug, Default)]
struct Base {
    default: AgentLimits,
    /// Agents of which the policy says anything.
    agents: HashMap<Box<str>, Said>,
}

/// What an operator has said of an agent.
#[derive(Clone, Debug)]
struct Overridden {
    limits: Limits,
    effective: AgentLimits,
}

/// What every agent may do.
#[derive(Clone, Debug, Default)]
pub struct LimitBook {
    base: Arc<Base>,
    overrides: HashMap<Arc<str>, Overridden>,
}

impl LimitBook {
    /// What settings and policy say.
    #[must_use]
    pub fn new(policy: &Policy, rates: &Rates) -> Self {
        let default = AgentLimits {
            per_minute: rates.agent_per_minute,
            per_hour: rates.agent_per_hour,
            per_day: rates.agent_per_day,
            same_number_per_day: rates.same_number_per_day,
            spend_per_day_microusd: rates.spend_per_day_microusd,
            spend_per_month_microusd: rates.spend_per_month_microusd,
        };
        let nothing = Limits::default();
        let mut agents = HashMap::new();
        for agent in &policy.agents {
            let tier = agent.tier.as_ref().and_then(|name| policy.tiers.get(name)).map_or(nothing, |tier| tier.limits);
            if agent.limits != nothing || tier != nothing {
                let effective = together(&[&agent.limits, &tier], default);
                agents.insert(agent.id.as_str().into(), Said { own: agent.limits, tier, effective });
            }
        }
        Self { base: Arc::new(Base { default, agents }), overrides: HashMap::new() }
    }

    /// What this agent may do. Allocates nothing.
    #[must_use]
    pub fn of(&self, agent: &str) -> &AgentLimits {
        if !self.overrides.is_empty()
            && let Some(overridden) = self.overrides.get(agent)
        {
            return &overridden.effective;
        }
        if self.base.agents.is_empty() {
            return &self.base.default;
        }
        self.base.agents.get(agent).map_or(&self.base.default, |said| &said.effective)
    }

    /// What may be spent under a name of [`payer`](crate::guard::spend::payer).
    #[must_use]
    pub fn caps_of(&self, payer: &str) -> Caps {
        // No agent's id is the name of who is none.
        let limits = self.of(payer);
        Caps { day: limits.spend_per_day_microusd, month: limits.spend_per_month_microusd }
    }

    /// What those may do of whom nothing is said.
    #[must_use]
    pub fn default_limits(&self) -> &AgentLimits {
        &self.base.default
    }

    /// The same with what an operator says of an agent, in place of what one has said before.
    #[must_use]
    pub fn with(&self, agent: &str, limits: Limits) -> Self {
        let said = self.base.agents.get(agent);
        let (own, tier) = said.map_or_else(Default::default, |said| (said.own, said.tier));
        let effective = together(&[&limits, &own, &tier], self.base.default);
        let mut overrides = self.overrides.clone();
        overrides.insert(agent.into(), Overridden { limits, effective });
        Self { base: Arc::clone(&self.base), overrides }
    }

    /// The same without what an operator has said of an agent.
    #[must_use]
    pub fn without(&self, agent: &str) -> Self {
        let mut overrides = self.overrides.clone();
        overrides.remove(agent);
        Self { base: Arc::clone(&self.base), overrides }
    }

    /// The same with what operators have said of these agents, for the start.
    #[must_use]
    pub fn with_all(mut self, said: impl IntoIterator<Item = (String, Limits)>) -> Self {
        for (agent, limits) in said {
            let policy = self.base.agents.get(agent.as_str());
            let (own, tier) = policy.map_or_else(Default::default, |said| (said.own, said.tier));
            let effective = together(&[&limits, &own, &tier], self.base.default);
            self.overrides.insert(agent.into(), Overridden { limits, effective });
        }
        self
    }

    /// What an operator has said of this agent.
    #[must_use]
    pub fn overridden(&self, agent: &str) -> Option<&Limits> {
        self.overrides.get(agent).map(|overridden| &overridden.limits)
    }

    /// The agents of which an operator has said something, in no order.
    pub fn all_overridden(&self) -> impl Iterator<Item = &str> {
        self.overrides.keys().map(|agent| &**agent)
    }

    /// Who has said the number that `of` takes from each.
    #[must_use]
    pub fn source(&self, agent: &str, says: impl Fn(&Limits) -> bool) -> Source {
        if self.overridden(agent).is_some_and(&says) {
            return Source::Operator;
        }
        match self.base.agents.get(agent) {
            Some(said) if says(&said.own) => Source::Agent,
            Some(said) if says(&said.tier) => Source::Tier,
            _ => Source::Default,
        }
    }
}

/// Each number from the first that says it.
fn together(said: &[&Limits], default: AgentLimits) -> AgentLimits {
    fn first<T>(said: &[&Limits], of: impl Fn(&Limits) -> Option<T>, default: T) -> T {
        said.iter().find_map(|limits| of(limits)).unwrap_or(default)
    }
    AgentLimits {
        per_minute: first(said, |limits| limits.per_minute, default.per_minute),
        per_hour: first(said, |limits| limits.per_hour, default.per_hour),
        per_day: first(said, |limits| limits.per_day, default.per_day),
        same_number_per_day: first(said, |limits| limits.same_number_per_day, default.same_number_per_day),
        spend_per_day_microusd: first(said, |limits| limits.spend_per_day_microusd, default.spend_per_day_microusd),
        spend_per_month_microusd: first(
            said,
            |limits| limits.spend_per_month_microusd,
            default.spend_per_month_microusd,
        ),
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
