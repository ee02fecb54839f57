//! What the policy says of a tool that matters to how often it may be called: limits of its own, and which argument is the number that a voice
//! action calls.
//!
//! A tool's entry is the first of the policy that matches the upstream's own name, in the case of its letters or in any other: a server that
//! folds case must not carry out what was counted as nothing. Tools whose names begin with `comms_` are known without an entry
//! ([`VOICE`]); what an entry leaves out is taken from there.
//!
//! Numbers are compared by their digits, however they are written: `+1 (555) 123-4567` is `tel:0015551234567`. What follows
//! a number to be dialled later (`,123`, `;ext=1`) is no part of it.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;

use arrayvec::{ArrayString, ArrayVec};

use crate::guard::permission::MAX_TOOL_NAME_BYTES;
use crate::rpc::lookalike::is_lookalike;
use crate::rpc::{Envelope, scan};
use crate::settings::Policy;
use crate::settings::policy::{Limits, ToolKind, ToolPolicy, glob_matches_any_case};

/// Tools that call somebody, by the names that they usually have. The number is in `to`.
pub const VOICE: [&str; 5] =
    ["comms_make_call", "comms_send_voice_message", "comms_transfer_call", "comms_bridge_call", "comms_call_on_behalf"];

/// The argument with the number where nobody says which.
const USUAL_RECIPIENT: &str = "to";

/// What their names begin with.
const PREFIX: &str = "comms_";

/// Bytes of a number that are compared; the longest E.164 number has 15 digits.
const NUMBER_BYTES: usize = 64;

/// A number as it is compared.
pub type Number = ArrayVec<u8, NUMBER_BYTES>;

/// What matters of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolAction<'a> {
    /// Its own limits, over all who call it.
    pub limits: &'a Limits,
    /// Of a voice action: the argument that names whom it calls.
    pub recipient: Option<&'a Arc<str>>,
}

/// The name of a tool is longer than any that can be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameTooLong;

/// An argument that is to name one number names none, or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unclear;

#[derive(Debug)]
struct Entry {
    pattern: Box<str>,
    upstream: Option<Box<str>>,
    limits: Limits,
    /// Whether it says that its tools call somebody; `None`: the usual ones do.
    calls: Option<bool>,
    recipient: Arc<str>,
}

impl Entry {
    fn is_of(&self, upstream: &str) -> bool {
        self.upstream.as_deref().is_none_or(|only| only == upstream)
    }
}

/// All tools of which the policy says anything, ready to be looked up.
#[derive(Debug)]
pub struct ActionRules {
    /// Entries of one name, by that name in lower case.
    names: HashMap<Box<str>, Vec<Entry>>,
    /// Those with a `*`, in the order in which they are asked.
    patterns: Vec<Entry>,
    /// What is known without an entry.
    usual: Entry,
}

impl ActionRules {
    /// What the policy says.
    #[must_use]
    pub fn new(policy: &Policy) -> Self {
        let usual = Entry::of(&ToolPolicy::default());
        let mut rules = Self { names: HashMap::new(), patterns: Vec::new(), usual };
        let is_usual = |tool: &ToolPolicy| VOICE.iter().any(|name| glob_matches_any_case(&tool.pattern, name));
        let matters =
            |tool: &ToolPolicy| tool.kind == Some(ToolKind::Call) || tool.limits != Limits::default() || is_usual(tool);
        if !policy.tools.iter().any(matters) {
            return rules;
        }
        for tool in &policy.tools {
            let entry = Entry::of(tool);
            if tool.pattern.contains('*') {
                rules.patterns.push(entry);
            } else {
                rules.names.entry(tool.pattern.to_ascii_lowercase().into()).or_default().push(entry);
            }
        }
        rules
    }

    /// What matters of the tool that `upstream` calls `tool`; `None`: nothing. Allocates nothing.
    ///
    /// # Errors
    /// [`NameTooLong`], where a name that long could be one that matters.
    pub fn of(&self, upstream: &str, tool: &str) -> Result<Option<ToolAction<'_>>, NameTooLong> {
        let says_nothing = self.names.is_empty() && self.patterns.is_empty();
        let is_usual = tool.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
        if says_nothing && !is_usual {
            return Ok(None);
        }
        let mut lower = ArrayString::<MAX_TOOL_NAME_BYTES>::from(tool).map_err(|_| NameTooLong)?;
        lower.make_ascii_lowercase();
        let named = self.names.get(lower.as_str()).map_or(&[][..], Vec::as_slice);
        let mut of_upstream = named.iter().filter(|entry| entry.is_of(upstream));
        let exact = of_upstream.clone().find(|entry| *entry.pattern == *tool);
        let matches = |entry: &&Entry| entry.is_of(upstream) && glob_matches_any_case(&entry.pattern, tool);
        let found = exact.or_else(|| of_upstream.next()).or_else(|| self.patterns.iter().find(matches));
        let entry = found.unwrap_or(&self.usual);
        let calls = entry.calls.unwrap_or_else(|| VOICE.contains(&lower.as_str()));
        let action = ToolAction { limits: &entry.limits, recipient: calls.then_some(&entry.recipient) };
        Ok((calls || entry.limits != Limits::default()).then_some(action))
    }
}

impl Entry {
    fn of(tool: &ToolPolicy) -> Self {
        Self {
            pattern: tool.pattern.as_str().into(),
            upstream: tool.upstream.as_deref().map(Into::into),
            limits: tool.limits,
            calls: tool.kind.map(|kind| kind == ToolKind::Call),
            recipient: tool.recipient.as_deref().unwrap_or(USUAL_RECIPIENT).into(),
        }
    }
}

/// The number that a call names in its argument `recipient`; `None` where there is no such argument. Allocates nothing, unless a key is written
/// with escapes.
///
/// # Errors
/// [`Unclear`].
pub fn number(recipient: &str, envelope: &Envelope, raw: &[u8]) -> Result<Option<Number>, Unclear> {
    let Some(arguments) = envelope.arguments else { return Ok(None) };
    let mut found = None;
    for (key, value) in scan::members(raw, arguments) {
        let key = key.decode(raw);
        if key != recipient && !is_lookalike(&key, recipient) {
            continue;
        }
        // A server could read either.
        if found.is_some() {
            return Err(Unclear);
        }
        let written = value.of(raw);
        found = Some(match (scan::text(raw, value), written.first()) {
            (Some(_), _) => canonical(scan::Decoded::new(value.inner().of(raw))),
            (None, Some(b'0'..=b'9')) => canonical(written.iter().copied()),
            _ => return Err(Unclear),
        });
    }
    Ok(found)
}

/// A number by its digits, without what says that it is an international one. What does not begin as a number is taken as it is, in lower case.
fn canonical(text: impl Iterator<Item = u8> + Clone) -> Number {
    const SCHEME: &[u8] = b"tel:";
    let has_scheme = text.clone().take(SCHEME.len()).map(|byte| byte.to_ascii_lowercase()).eq(SCHEME.iter().copied());
    let number = text.clone().skip(if has_scheme { SCHEME.len() } else { 0 });
    let mut digits = Number::new();
    for byte in number {
        match byte {
            // The zeros of an international prefix, or of a trunk prefix.
            b'0' if digits.is_empty() => {}
            b'0'..=b'9' => {
                if digits.try_push(byte).is_err() {
                    break;
                }
            }
            b' ' | b'+' | b'-' | b'.' | b'(' | b')' | b'/' | b'\t' => {}
            _ => break,
        }
    }
    if digits.is_empty() {
        digits.extend(text.map(|byte| byte.to_ascii_lowercase()).take(NUMBER_BYTES));
    }
    digits
}

#[cfg(test)]
#[path = "actions_tests.rs"]
mod tests;
