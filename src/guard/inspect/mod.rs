//! Inspection: whether what a call carries is an attack on what stands behind the gateway.
//!
//! Agents write prose, mail, code and queries, so no word is ever enough. A call is looked at in three steps, each of which is dearer than the one before and
//! sees less of the traffic:
//!
//! 1. [`candidates`]: one pass over the message for signs without which no rule finds anything. Most calls have none, and cost that pass.
//! 2. Each string and each key of `params`, decoded as the upstream will see it, goes through the rule families that apply to what the policy says it is
//!    ([`Kind`]): [`sql`], [`html`] and [`script`], [`shell`], [`path`], [`header`]. A family reads the structure of its class: tokens of a query, tags and
//!    attributes, words of a command line, segments of a path.
//! 3. Where a string has a disguise (percent signs, entities, escapes, lookalikes), it is taken off ([`peel`]), twice at most, and what comes out is looked at
//!    again.
//!
//! It rejects, it never rewrites. The time is linear in the length of a message whatever it holds: every family goes forward only, or looks a bounded way back.
//! Nothing allocates once the scratch has grown to the traffic. No clock, no I/O.

mod call;
mod candidates;
mod format;
mod header;
mod html;
mod path;
mod peel;
mod phrases;
mod policy;
mod rules;
mod script;
mod shell;
mod sql;
#[cfg(test)]
mod tests;
mod text;

pub use call::{Found, Kinds, Unreadable};
pub use policy::Inspection;
pub use rules::{Class, Finding, RuleId, RuleSet, Severity};

use candidates::Candidates;
use rules::Looker;
use text::Marks;

/// Deepest nesting that is looked at; the settings bound messages at or below it.
const MOST_DEPTH: usize = 1024;

/// What the policy says that a value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Whatever people write: all classes apply. What is not declared is this.
    #[default]
    Text,
    /// Markup: only what runs a script is refused.
    Html,
    /// A query.
    Sql,
    /// A program, a command line, a document of either.
    Code,
    /// A path of a file: no climb at all.
    Path,
    /// A URL: http or https.
    Url,
    /// A telephone number in E.164.
    Phone,
    /// An e-mail address.
    Email,
    /// A header's value, such as a mail's subject: no line ends.
    Header,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] =
        [Self::Text, Self::Html, Self::Sql, Self::Code, Self::Path, Self::Url, Self::Phone, Self::Email, Self::Header];

    /// Its name in the policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Html => "html",
            Self::Sql => "sql",
            Self::Code => "code",
            Self::Path => "path",
            Self::Url => "url",
            Self::Phone => "phone",
            Self::Email => "email",
            Self::Header => "header",
        }
    }

    /// The rules that apply to it.
    #[must_use]
    pub const fn rules(self) -> RuleSet {
        const NUL: RuleSet = RuleSet::of(Class::NullByte);
        const CUSTOM: RuleSet = RuleSet::NONE.with(RuleId::Custom);
        const SCRIPTS: RuleSet =
            RuleSet::NONE.with(RuleId::XssScript).with(RuleId::XssEvent).with(RuleId::XssUrl).with(RuleId::XssStyle);
        const ATTACKS: RuleSet = RuleSet::of(Class::SqlInjection)
            .or(RuleSet::of(Class::Xss))
            .or(RuleSet::of(Class::CommandInjection))
            .or(RuleSet::of(Class::PathTraversal))
            .or(RuleSet::of(Class::CrlfInjection))
            .or(RuleSet::of(Class::PrototypePollution));
        const TEXT: RuleSet = ATTACKS.minus(RuleSet::NONE.with(RuleId::CrlfLine));
        match self {
            Self::Text => TEXT.or(NUL).or(CUSTOM),
            Self::Html => SCRIPTS.or(NUL).or(CUSTOM),
            Self::Sql | Self::Code => NUL.or(CUSTOM),
            Self::Path => RuleSet::of(Class::PathTraversal)
                .or(RuleSet::of(Class::CommandInjection))
                .or(RuleSet::of(Class::CrlfInjection))
                .or(NUL)
                .or(CUSTOM),
            Self::Url => TEXT
                .minus(RuleSet::of(Class::CommandInjection))
                .with(RuleId::NotUrl)
                .with(RuleId::CrlfLine)
                .or(NUL)
                .or(CUSTOM),
            Self::Phone => NUL.with(RuleId::NotPhone).or(CUSTOM),
            Self::Email => NUL.with(RuleId::NotEmail).or(CUSTOM),
            Self::Header => ATTACKS.or(NUL).or(CUSTOM),
        }
    }

    /// Whether a value is to be looked at though it has no sign of an attack: its form is checked.
    #[must_use]
    pub const fn has_form(self) -> bool {
        matches!(self, Self::Phone | Self::Email | Self::Url | Self::Header | Self::Path)
    }
}

/// What the policy says about inspection, beside the kinds of tools' arguments.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The rules that are on.
    pub on: RuleSet,
    /// Texts that are refused wherever they stand, in lower case.
    pub patterns: Vec<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { on: RuleSet::ALL, patterns: Vec::new() }
    }
}

/// Memory for looking, reused from call to call. One a worker.
pub struct Scratch {
    lower: Vec<u8>,
    once: Vec<u8>,
    twice: Vec<u8>,
    message: Vec<u8>,
    buffers: Option<simd_json::Buffers>,
    tape: simd_json::Tape<'static>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            lower: Vec::new(),
            once: Vec::new(),
            twice: Vec::new(),
            message: Vec::new(),
            buffers: None,
            tape: simd_json::Tape(Vec::new()),
        }
    }
}

impl std::fmt::Debug for Scratch {
    /// Without the message: it may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

/// The rules, ready. Shared by all workers.
#[derive(Debug)]
pub struct Inspector {
    on: RuleSet,
    candidates: Candidates,
    phrases: phrases::Phrases,
}

impl Inspector {
    /// Makes the rules ready.
    #[must_use]
    pub fn new(rules: &Rules) -> Self {
        Self { on: rules.on, candidates: Candidates::new(&rules.patterns), phrases: phrases::Phrases::new() }
    }

    /// Whether bytes have any sign that a rule could go by. Strings of JSON may stand in them as they are, decoded, with what is between.
    #[must_use]
    pub fn is_candidate(&self, bytes: &[u8], scratch: &mut Scratch) -> bool {
        self.candidates.any(bytes, &mut scratch.lower)
    }

    /// Looks at one value.
    pub fn inspect_text(&self, kind: Kind, value: &str, scratch: &mut Scratch) -> Option<Finding> {
        self.value(self.on.and(kind.rules()), kind, value, scratch)
    }

    /// Looks at one key of an object.
    pub fn inspect_key(&self, key: &str, scratch: &mut Scratch) -> Option<Finding> {
        self.key(self.on, key, scratch)
    }

    fn key(&self, on: RuleSet, key: &str, scratch: &mut Scratch) -> Option<Finding> {
        if format::is_prototype_key(key) && on.has(RuleId::PrototypeKey) {
            return Some(Finding { rule: RuleId::PrototypeKey, at: 0, disguised: false });
        }
        self.value(on.and(Kind::Text.rules()), Kind::Text, key, scratch)
    }

    fn value(&self, on: RuleSet, kind: Kind, value: &str, scratch: &mut Scratch) -> Option<Finding> {
        let Scratch { lower, once, twice, .. } = scratch;
        lower.clear();
        lower.extend_from_slice(value.as_bytes());
        lower.make_ascii_lowercase();
        let plain = Looker { text: lower, on, marks: Marks::of(lower), has: self.phrases.of(lower), peeled: false };
        if let Some(finding) = format::look(&plain, kind, value).or_else(|| self.families(&plain, kind)) {
            return Some(finding);
        }
        if !peel::may(lower)
            || !on.any(Kind::Text.rules().minus(RuleSet::of(Class::NullByte)).minus(RuleSet::NONE.with(RuleId::Custom)))
        {
            return None;
        }
        let peeled = peel::peel(lower, once);
        if !peeled.changed {
            return None;
        }
        self.peeled(once, on, kind, peeled).or_else(|| {
            let again = if peel::may(once) { peel::peel(once, twice) } else { peel::Peeled::default() };
            if again.changed { self.peeled(twice, on, kind, again) } else { None }
        })
    }

    fn peeled(&self, text: &[u8], on: RuleSet, kind: Kind, peeled: peel::Peeled) -> Option<Finding> {
        let looker = Looker { text, on, marks: Marks::of(text), has: self.phrases.of(text), peeled: true };
        if peeled.nuls > 0
            && let Some(finding) = looker.found(RuleId::NullByte, 0)
        {
            return Some(finding);
        }
        if peeled.overlong >= 2
            && let Some(finding) = looker.found(RuleId::PathDisguise, 0)
        {
            return Some(finding);
        }
        self.families(&looker, kind)
    }

    fn families(&self, look: &Looker<'_>, kind: Kind) -> Option<Finding> {
        if !look.marks.is_more_than_a_word() && look.has.is_empty() {
            return self.candidates.custom(look);
        }
        let on = look.on;
        let of = |class| on.any(RuleSet::of(class));
        let mut finding = None;
        if of(Class::Xss) {
            finding = html::look(look).or_else(|| script::look(look));
        }
        if finding.is_none() && of(Class::SqlInjection) {
            finding = sql::look(look);
        }
        if finding.is_none() && of(Class::CommandInjection) {
            finding = shell::look(look);
        }
        if finding.is_none() && of(Class::PathTraversal) {
            finding = path::look(look, kind == Kind::Path);
        }
        if finding.is_none() && of(Class::CrlfInjection) {
            finding = header::look(look, matches!(kind, Kind::Header | Kind::Url | Kind::Email));
        }
        if finding.is_none() && of(Class::PrototypePollution) {
            finding = format::prototype_path(look);
        }
        finding.or_else(|| self.candidates.custom(look))
    }
}
