//! Which tools a principal may list and call.
//!
//! What the policy says of an agent is put together once, when the settings are read: its own `tools`, else its tier's, else those of
//! `[principal.agent]`; and everything that any of the three denies. Who is said nothing of may use everything.
//!
//! A pattern is about the upstream's own name of a tool, so that `UPSTREAM__NAME` is judged as `NAME` of `UPSTREAM`. What is denied is
//! denied in any case of its letters: a server that folds case would take one for the other. A name that is longer than any pattern is
//! not allowed to who has a list, nor to who is denied anything: comparing it would cost what its sender likes.
//!
//! Whether a tool exists is not looked at.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;

use crate::guard::Principal;
use crate::settings::Policy;
use crate::settings::policy::{ToolAccess, ToolPattern, glob_matches, glob_matches_any_case};

/// The longest name that is compared. MCP asks for at most 128.
pub const MAX_TOOL_NAME_BYTES: usize = 256;

/// What each principal may use, ready to be looked up.
#[derive(Default)]
pub struct Permissions {
    door: Option<Arc<Access>>,
    anonymous: Option<Arc<Access>>,
    demo: Option<Arc<Access>>,
    /// Agents of which something is said by name or by tier.
    agents: HashMap<Box<str>, Arc<Access>>,
    /// All other agents.
    agent: Option<Arc<Access>>,
}

impl Permissions {
    /// What the policy says.
    #[must_use]
    pub fn new(policy: &Policy) -> Self {
        let kinds = &policy.principals;
        let mut agents = HashMap::new();
        // Agents of a tier that have nothing of their own share what is looked up.
        let mut of_tiers: HashMap<&str, Option<Arc<Access>>> = HashMap::new();
        for agent in &policy.agents {
            let tier = agent.tier.as_deref().and_then(|name| Some((name, &policy.tiers.get(name)?.access)));
            let access = match tier {
                _ if agent.access == ToolAccess::default() && tier.is_none() => None,
                Some((name, tier)) if agent.access == ToolAccess::default() => {
                    let nothing = *tier == ToolAccess::default();
                    let shared = of_tiers.entry(name).or_insert_with(|| Access::of(&[tier, &kinds.agent]));
                    shared.clone().filter(|_| !nothing)
                }
                Some((_, tier)) => Access::of(&[&agent.access, tier, &kinds.agent]),
                None => Access::of(&[&agent.access, &kinds.agent]),
            };
            if let Some(access) = access {
                agents.insert(agent.id.as_str().into(), access);
            }
        }
        Self {
            door: Access::of(&[&kinds.door]),
            anonymous: Access::of(&[&kinds.anonymous]),
            demo: Access::of(&[&kinds.demo]),
            agents,
            agent: Access::of(&[&kinds.agent]),
        }
    }

    /// What this principal may use; `None`: everything.
    #[must_use]
    pub fn of(&self, principal: &Principal) -> Option<&Arc<Access>> {
        match principal {
            Principal::Anonymous => self.anonymous.as_ref(),
            Principal::Demo => self.demo.as_ref(),
            Principal::Door => self.door.as_ref(),
            Principal::Agent(_) if self.agents.is_empty() => self.agent.as_ref(),
            Principal::Agent(id) => self.agents.get(id.as_ref()).or(self.agent.as_ref()),
        }
    }
}

/// The tools that one principal may use.
#[derive(Debug, PartialEq, Eq)]
pub struct Access {
    /// `None`: all that are not denied.
    allowed: Option<Allowed>,
    denied: Box<[ToolPattern]>,
}

#[derive(Debug, PartialEq, Eq)]
struct Allowed {
    /// Sorted.
    names: Box<[ToolPattern]>,
    patterns: Box<[ToolPattern]>,
}

impl Access {
    /// Puts together what is said of a principal, what is nearest to it first. `None` where nothing is restricted.
    fn of(said: &[&ToolAccess]) -> Option<Arc<Self>> {
        let tools = said.iter().find_map(|access| access.tools.as_deref());
        let denied: Box<[ToolPattern]> = said.iter().flat_map(|access| access.deny_tools.iter().cloned()).collect();
        if tools.is_none() && denied.is_empty() {
            return None;
        }
        Some(Arc::new(Self { allowed: tools.map(Allowed::new), denied }))
    }

    /// Whether the tool that `upstream` calls `tool` may be listed and called. Allocates nothing.
    #[must_use]
    pub fn allows(&self, upstream: &str, tool: &str) -> bool {
        if tool.len() > MAX_TOOL_NAME_BYTES {
            return false;
        }
        let is_denied = |pattern: &ToolPattern| is_of(pattern, upstream) && glob_matches_any_case(&pattern.tool, tool);
        self.allowed.as_ref().is_none_or(|allowed| allowed.has(upstream, tool)) && !self.denied.iter().any(is_denied)
    }
}

impl Allowed {
    fn new(patterns: &[ToolPattern]) -> Self {
        let (patterns, mut names): (Vec<_>, Vec<_>) =
            patterns.iter().cloned().partition(|pattern| pattern.tool.contains('*'));
        names.sort_by(|a, b| a.tool.cmp(&b.tool));
        Self { names: names.into(), patterns: patterns.into() }
    }

    fn has(&self, upstream: &str, tool: &str) -> bool {
        let first = self.names.partition_point(|name| name.tool.as_str() < tool);
        let mut same = self.names.iter().skip(first).take_while(|name| name.tool == tool);
        same.any(|name| is_of(name, upstream))
            || self.patterns.iter().any(|pattern| is_of(pattern, upstream) && glob_matches(&pattern.tool, tool))
    }
}

fn is_of(pattern: &ToolPattern, upstream: &str) -> bool {
    pattern.upstream.as_deref().is_none_or(|only| only == upstream)
}

#[cfg(test)]
#[path = "permission_tests.rs"]
mod tests;
