//! What an agent sends to people: which arguments of a call that is, and what must not be in them.
//!
//! The policy says of a tool what it does (`kind`) and which arguments hold the text, the HTML and the subject. Of tools that it says nothing of,
//! those whose names begin with `comms_` are taken for what they are: their arguments of the usual names are looked at.
//!
//! An argument that is no string is looked at as well: every string in it counts, keys included. Texts are read as the upstream will read
//! them, escapes resolved.
#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::sync::Arc;

use crate::guard::content::{self, Category, ContentFilter, Finding};
use crate::guard::sensitive;
use crate::rpc::{Envelope, Parser, scan};
use crate::settings::policy::{ContentMode, ContentPolicy, Policy, SensitiveMode, ToolKind, ToolPolicy};
use crate::span::Span;

/// Tools of which a profile ships with the program.
const PROFILE: &str = "comms_";

/// Arguments that hold what people will read or hear, where the policy does not say which do.
const USUAL_ARGUMENTS: [&str; 10] =
    ["text", "body", "message", "content", "html", "subject", "script", "greeting", "announcement", "title"];

/// What must not be in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// The content filter's finding.
    Content(Category),
    /// A secret or a personal number.
    Sensitive(sensitive::Kind),
}

impl Offence {
    /// The name of the rule.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Content(Category::Threat) => "content-threat",
            Self::Content(Category::Hate) => "content-hate",
            Self::Content(Category::Profanity) => "content-profanity",
            Self::Sensitive(sensitive::Kind::CardNumber) => "sensitive-card-number",
            Self::Sensitive(sensitive::Kind::SocialSecurityNumber) => "sensitive-social-security-number",
            Self::Sensitive(sensitive::Kind::ProviderKey) => "sensitive-provider-key",
            Self::Sensitive(sensitive::Kind::PrivateKey) => "sensitive-private-key",
        }
    }

    /// The sentence that the caller reads.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Content(Category::Threat) => "Message contains threatening content",
            Self::Content(Category::Hate) => "Message contains hateful content",
            Self::Content(Category::Profanity) => "Message contains prohibited language",
            Self::Sensitive(sensitive::Kind::CardNumber) => "Message contains a card number",
            Self::Sensitive(sensitive::Kind::SocialSecurityNumber) => "Message contains a social security number",
            Self::Sensitive(sensitive::Kind::ProviderKey) => "Message contains a provider's key",
            Self::Sensitive(sensitive::Kind::PrivateKey) => "Message contains a private key",
        }
    }
}

/// An offence, and the argument it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offending {
    /// What it is.
    pub offence: Offence,
    /// JSON pointer of the argument, from the message's root.
    pub field: Box<str>,
    /// How bad, and where in which string, for the audit trail. Never what.
    pub detail: Box<str>,
}

/// What was found in a call's texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The call must not be made.
    Refuse(Offending),
    /// It may be made, and this is to be recorded.
    Record(Offending),
}

/// What is looked for, and what the policy makes of it.
#[derive(Debug)]
pub struct Outbound {
    filter: Arc<ContentFilter>,
    mode: ContentMode,
    sensitive: SensitiveMode,
    /// Whether any tool is looked at otherwise than all.
    anything: bool,
}

/// The words of one tool, as far as they concern us.
struct Asked<'p> {
    tool: Option<&'p ToolPolicy>,
    mode: ContentMode,
    sensitive: SensitiveMode,
}

impl Outbound {
    /// What the policy says, with lists that were read.
    #[must_use]
    pub fn new(filter: Arc<ContentFilter>, policy: &Policy) -> Self {
        let ContentPolicy { mode, sensitive, .. } = policy.content;
        let looks = |tool: &ToolPolicy| {
            tool.content.is_some_and(|mode| mode != ContentMode::Off)
                || tool.sensitive.is_some_and(|mode| mode != SensitiveMode::Off)
        };
        let anything = mode != ContentMode::Off || sensitive != SensitiveMode::Off || policy.tools.iter().any(looks);
        Self { filter, mode, sensitive, anything }
    }

    /// Looks at a `tools/call` of `tool`, which is the upstream's own name of it; `parser` is the one that made the envelope. What must be
    /// refused comes before what is only recorded.
    pub fn look(
        &self,
        scratch: &mut content::Scratch,
        policy: &Policy,
        (upstream, tool): (&str, &str),
        (envelope, parser, raw): (&Envelope, &Parser, &[u8]),
    ) -> Option<Found> {
        let arguments = envelope.arguments.filter(|_| self.anything)?;
        let said = policy.tool(upstream, tool);
        let asked = Asked {
            tool: said,
            mode: said.and_then(|said| said.content).unwrap_or(self.mode),
            sensitive: said.and_then(|said| said.sensitive).unwrap_or(self.sensitive),
        };
        if (asked.mode == ContentMode::Off && asked.sensitive == SensitiveMode::Off) || !asked.goes_to_people(tool) {
            return None;
        }
        let mut found = None;
        for (key, value) in scan::members(raw, arguments) {
            let name = parser.text(key);
            if !asked.is_text(name) {
                continue;
            }
            for text in Strings::of(raw, value) {
                if let Some(now) = self.look_at(scratch, &asked, parser.text(text), name)
                    && (found.is_none() || matches!(now, Found::Refuse(_)))
                {
                    let refused = matches!(now, Found::Refuse(_));
                    found = Some(now);
                    if refused {
                        return found;
                    }
                }
            }
        }
        found
    }

    /// Looks at one string.
    fn look_at(&self, scratch: &mut content::Scratch, asked: &Asked<'_>, text: &str, argument: &str) -> Option<Found> {
        let content = match asked.mode {
            ContentMode::Off => None,
            mode => self.filter.worst(scratch, text).map(|finding| (mode, finding)),
        };
        if let Some((ContentMode::Block, finding)) = content {
            return Some(Found::Refuse(of_content(&finding, argument)));
        }
        let sensitive = match asked.sensitive {
            SensitiveMode::Off => None,
            mode => sensitive::first(text.as_bytes()).map(|found| (mode, found)),
        };
        match (sensitive, content) {
            (Some((SensitiveMode::Block, found)), _) => Some(Found::Refuse(of_secret(&found, argument))),
            (_, Some((_, finding))) => Some(Found::Record(of_content(&finding, argument))),
            (Some((_, found)), None) => Some(Found::Record(of_secret(&found, argument))),
            (None, None) => None,
        }
    }
}

impl Asked<'_> {
    /// Whether the tool sends something to people.
    fn goes_to_people(&self, tool: &str) -> bool {
        match self.tool.and_then(|said| said.kind) {
            Some(kind) => matches!(kind, ToolKind::Message | ToolKind::Call | ToolKind::Email),
            None => {
                self.tool.is_some_and(|said| said.text.is_some() || said.html.is_some()) || has_prefix(tool, PROFILE)
            }
        }
    }

    /// Whether the argument is what people will read or hear. Go's and other readers fold the case of keys.
    fn is_text(&self, argument: &str) -> bool {
        let named = self.tool.map(|said| [&said.text, &said.html, &said.subject, &said.announcement]);
        let mut names = named.into_iter().flatten().filter_map(|name| name.as_deref()).peekable();
        // `/body` is the argument `body`; of `/body/text` all of `body` is looked at.
        let first = |name: &str| name.strip_prefix('/').and_then(|rest| rest.split('/').next()).unwrap_or(name).len();
        match names.peek() {
            Some(_) => names.any(|name| {
                let start = usize::from(name.starts_with('/'));
                name.get(start..start.saturating_add(first(name)))
                    .is_some_and(|name| name.eq_ignore_ascii_case(argument))
            }),
            None => USUAL_ARGUMENTS.iter().any(|usual| usual.eq_ignore_ascii_case(argument)),
        }
    }
}

fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
}

fn of_content(finding: &Finding, argument: &str) -> Offending {
    let (severity, at) = (finding.severity.name(), finding.at);
    Offending {
        offence: Offence::Content(finding.category),
        field: pointer(argument),
        detail: format!("{severity}, byte {at} of a text in {}", pointer(argument)).into(),
    }
}

fn of_secret(found: &sensitive::Found, argument: &str) -> Offending {
    let (of, at) = (found.of, found.place.start);
    let whose = if of.is_empty() { String::new() } else { format!("{of}, ") };
    Offending {
        offence: Offence::Sensitive(found.kind),
        field: pointer(argument),
        detail: format!("{whose}byte {at} of a text in {}", pointer(argument)).into(),
    }
}

/// Of an argument. Its name is one of the policy's or of the usual ones, in some case, so that it can be shown.
fn pointer(argument: &str) -> Box<str> {
    format!("/params/arguments/{}", argument.replace('~', "~0").replace('/', "~1")).into()
}

/// The strings in a value, one after the other, whatever it is nested in. The bytes are those of a message that was parsed.
struct Strings<'a> {
    raw: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Strings<'a> {
    fn of(raw: &'a [u8], value: Span) -> Self {
        Self { raw, at: value.start as usize, end: value.end as usize }
    }
}

impl Iterator for Strings<'_> {
    type Item = crate::rpc::Text;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at.checked_add(memchr::memchr(b'"', self.raw.get(self.at..self.end)?)?)?;
        let end = scan::string_end(self.raw, start)?;
        self.at = end;
        scan::text(self.raw, Span::from_usize(start, end))
    }
}

#[cfg(test)]
#[path = "outbound_tests.rs"]
mod tests;
