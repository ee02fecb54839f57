//! Which calls cost something: prices of tools, and caps of their own, as the policy says them, ready to be looked up. What an agent may spend
//! at all is in the [book of limits](super::limits).
//!
//! A tool's entry is the first of the policy that matches the upstream's own name, in the case of its letters or in any other: a server that
//! folds case must not carry a call out for nothing. Who calls without being an agent (the holder of a door's token, or nobody in
//! particular) has an account as well, one for each kind, and the default caps.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;

use arrayvec::ArrayString;

use crate::guard::Principal;
use crate::guard::permission::MAX_TOOL_NAME_BYTES;
use crate::settings::Settings;
use crate::settings::policy::{Limits, Price, ToolPolicy, glob_matches_any_case};
use crate::state::spend::Caps;

/// No cap at all.
const UNCAPPED: Caps = Caps { day: u64::MAX, month: u64::MAX };

/// A tool whose calls cost something.
#[derive(Debug, PartialEq, Eq)]
pub struct Priced {
    /// The name or pattern that the policy has it under.
    pub pattern: Box<str>,
    /// What a call costs.
    pub price: Price,
    /// The argument with the text that is counted.
    pub text: Option<Box<str>>,
    /// Where the result says what the call has really cost (JSON pointer).
    pub settle: Option<Box<str>>,
    /// What one agent may spend on tools of this entry; `None`: as much as it may spend at all.
    pub caps: Option<Caps>,
}

#[derive(Debug)]
struct Entry {
    pattern: Box<str>,
    upstream: Option<Box<str>>,
    /// `None`: its calls cost nothing.
    priced: Option<Arc<Priced>>,
}

impl Entry {
    fn is_of(&self, upstream: &str) -> bool {
        self.upstream.as_deref().is_none_or(|only| only == upstream)
    }
}

/// The name of a tool is longer than any that can be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameTooLong;

/// Prices, and caps of tools; by default nothing costs anything.
#[derive(Debug, Default)]
pub struct SpendRules {
    any: bool,
    /// Entries of one name, by that name in lower case.
    names: HashMap<Box<str>, Vec<Entry>>,
    /// Those with a `*`, in the order in which they are asked.
    patterns: Vec<Entry>,
}

impl SpendRules {
    /// What the settings say.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let policy = &settings.policy;
        let (mut names, mut patterns) = (HashMap::<Box<str>, Vec<Entry>>::new(), Vec::new());
        for tool in &policy.tools {
            if tool.pattern.contains('*') {
                patterns.push(entry(tool));
            } else {
                names.entry(tool.pattern.to_ascii_lowercase().into()).or_default().push(entry(tool));
            }
        }
        let any = policy.tools.iter().any(|tool| tool.price.is_some());
        Self { any, names, patterns }
    }

    /// Whether anything costs anything.
    #[must_use]
    pub fn any(&self) -> bool {
        self.any
    }

    /// What the tool that `upstream` calls `tool` costs; `None`: nothing. Allocates nothing.
    ///
    /// # Errors
    /// [`NameTooLong`].
    pub fn priced(&self, upstream: &str, tool: &str) -> Result<Option<&Arc<Priced>>, NameTooLong> {
        if !self.any {
            return Ok(None);
        }
        let mut lower = ArrayString::<MAX_TOOL_NAME_BYTES>::from(tool).map_err(|_| NameTooLong)?;
        lower.make_ascii_lowercase();
        let named = self.names.get(lower.as_str()).map_or(&[][..], Vec::as_slice);
        let mut of_upstream = named.iter().filter(|entry| entry.is_of(upstream));
        let exact = of_upstream.clone().find(|entry| *entry.pattern == *tool);
        let matches = |entry: &&Entry| entry.is_of(upstream) && glob_matches_any_case(&entry.pattern, tool);
        let found = exact.or_else(|| of_upstream.next()).or_else(|| self.patterns.iter().find(matches));
        Ok(found.and_then(|entry| entry.priced.as_ref()))
    }
}

/// Whose account a principal's calls are charged to. No agent's id has parentheses.
#[must_use]
pub fn payer(principal: &Principal) -> &str {
    match principal {
        Principal::Agent(id) => id,
        Principal::Door => "(door)",
        Principal::Anonymous => "(anonymous)",
        Principal::Demo => "(demo)",
    }
}

/// The name of the account in which one payer's calls of one entry are added up.
#[must_use]
pub fn account_of_entry(payer: &str, priced: &Priced) -> String {
    // An id has no space.
    format!("{payer} {}", priced.pattern)
}

fn entry(tool: &ToolPolicy) -> Entry {
    let Limits { spend_per_day_microusd, spend_per_month_microusd, .. } = tool.limits;
    let caps = Caps {
        day: spend_per_day_microusd.unwrap_or(UNCAPPED.day),
        month: spend_per_month_microusd.unwrap_or(UNCAPPED.month),
    };
    let priced = tool.price.map(|price| {
        Arc::new(Priced {
            pattern: tool.pattern.as_str().into(),
            price,
            text: tool.text.as_deref().map(Into::into),
            settle: tool.settle.as_deref().map(Into::into),
            caps: (caps != UNCAPPED).then_some(caps),
        })
    });
    Entry { pattern: tool.pattern.as_str().into(), upstream: tool.upstream.as_deref().map(Into::into), priced }
}

#[cfg(test)]
#[path = "spend_tests.rs"]
mod tests;
