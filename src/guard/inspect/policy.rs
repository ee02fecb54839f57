//! [`Inspection`]: the inspector with what settings and policy say of it.

use super::{Found, Inspector, Kind, Kinds, RuleSet, Rules, Scratch, Unreadable};
use crate::settings::{Policy, SanitizeMode, ToolPolicy};

/// What is looked for, where, and what becomes of what is found. Shared by all workers, made anew by each reload.
#[derive(Debug)]
pub struct Inspection {
    mode: SanitizeMode,
    inspector: Inspector,
    /// For each entry of the policy's tools, in its order.
    tools: Vec<Kinds>,
    /// Some tool has an argument whose form is checked.
    have_form: bool,
    /// What is known of other tools.
    unknown: Kinds,
}

impl Inspection {
    /// From settings and policy that were checked.
    #[must_use]
    pub fn new(mode: SanitizeMode, policy: &Policy) -> Self {
        let rules =
            Rules { on: RuleSet::ALL.minus(sets(&policy.inspect.off)), patterns: policy.inspect.patterns.clone() };
        let tools: Vec<Kinds> = policy.tools.iter().map(kinds).collect();
        let have_form = tools.iter().any(Kinds::have_form);
        Self { mode, inspector: Inspector::new(&rules), tools, have_form, unknown: Kinds::default() }
    }

    /// Is anything looked for?
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.mode != SanitizeMode::Off
    }

    /// Is what is found refused, and not only recorded?
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.mode == SanitizeMode::Block
    }

    /// Looks at a message. `params` are the decoded strings of its `params` with what is between them, `raw` is the message as it came, and `tool` finds
    /// the entry of the policy's tools that it calls; it is asked only where that matters.
    ///
    /// # Errors
    /// The message cannot be read.
    pub fn look(
        &self,
        params: &[u8],
        raw: &[u8],
        tool: impl FnOnce() -> Option<usize>,
        scratch: &mut Scratch,
    ) -> Result<Option<Found>, Unreadable> {
        let is_candidate = self.inspector.is_candidate(params, scratch);
        if !is_candidate && !self.have_form {
            return Ok(None);
        }
        let kinds = tool().and_then(|index| self.tools.get(index)).unwrap_or(&self.unknown);
        if !is_candidate && !kinds.have_form() {
            return Ok(None);
        }
        self.inspector.inspect_call(raw, kinds, scratch)
    }
}

/// What the policy says of a tool's arguments: what they are declared to be, and what follows from the parts they play.
fn kinds(tool: &ToolPolicy) -> Kinds {
    let played = [(&tool.html, Kind::Html), (&tool.subject, Kind::Header)];
    let played = played.into_iter().filter_map(|(name, kind)| Some((name.as_deref()?, kind)));
    let played = played.filter(|(name, _)| !tool.arguments.contains_key(*name));
    let declared = tool.arguments.iter().map(|(name, kind)| (name.as_str(), *kind));
    Kinds::new(declared.chain(played)).without(sets(&tool.exempt))
}

fn sets(names: &[String]) -> RuleSet {
    names.iter().filter_map(|name| RuleSet::named(name)).fold(RuleSet::NONE, RuleSet::or)
}
