//! The second look at a message: each string and key of its `params`, with what the policy says that it is.
//!
//! The message is parsed again, from the bytes that came: most calls never get here, so that the first parse need not keep anything for it.

use super::{Finding, Inspector, Kind, RuleId, RuleSet, Scratch};
use simd_json::Node;

/// Longest pointer that is shown, bytes.
const MOST_POINTER: usize = 96;

/// Longest part of a pointer that is shown.
const MOST_PART: usize = 64;

/// What the policy says of a tool's arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// By JSON pointer into the arguments, without the first slash; `*` stands for one part.
    exact: Vec<(Vec<String>, Kind)>,
    /// The rules that do not apply to the tool.
    off: RuleSet,
}

impl Kinds {
    /// From pointers into the arguments (`/subject`, `/items/*/text`) or names of arguments (`subject`).
    pub fn new<'a>(arguments: impl IntoIterator<Item = (&'a str, Kind)>) -> Self {
        let exact = arguments
            .into_iter()
            .map(|(pointer, kind)| {
                let parts = pointer.strip_prefix('/').unwrap_or(pointer).split('/');
                (parts.map(|part| part.replace("~1", "/").replace("~0", "~")).collect(), kind)
            })
            .collect();
        Self { exact, off: RuleSet::NONE }
    }

    /// Without these rules.
    #[must_use]
    pub fn without(mut self, rules: RuleSet) -> Self {
        self.off = self.off.or(rules);
        self
    }

    /// Is nothing said?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.off.is_empty()
    }

    /// Whether any value is to be looked at whatever it holds.
    #[must_use]
    pub fn have_form(&self) -> bool {
        self.exact.iter().any(|(_, kind)| kind.has_form())
    }

    /// What the value at `path` is: the longest pointer that it lies at or under decides.
    fn of(&self, path: &[Part<'_>]) -> Kind {
        let under = self.exact.iter().filter(|(parts, _)| {
            parts.len() <= path.len() && parts.iter().zip(path).all(|(wanted, part)| wanted == "*" || part.is(wanted))
        });
        under.max_by_key(|(parts, _)| parts.len()).map_or(Kind::Text, |(_, kind)| *kind)
    }
}

/// A part of a path.
#[derive(Clone, Copy, Debug)]
enum Part<'a> {
    Key(&'a str),
    Index(usize),
}

impl Part<'_> {
    fn is(&self, wanted: &str) -> bool {
        match self {
            Self::Key(key) => *key == wanted,
            Self::Index(index) => wanted.parse() == Ok(*index),
        }
    }
}

/// What was found in a message, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The rule and the place in the value.
    pub finding: Finding,
    /// The JSON pointer of the value, or of the object whose key it is, from the message's root; parts that are no plain names are shown as `*`.
    pub pointer: String,
    /// It is the key, not the value.
    pub in_key: bool,
}

impl Found {
    /// The argument's name, or the pointer where it lies deeper.
    #[must_use]
    pub fn field(&self) -> &str {
        match self.pointer.strip_prefix("/params/arguments/") {
            Some(name) if !name.contains('/') => name,
            _ if self.pointer.is_empty() => "/params",
            _ => &self.pointer,
        }
    }
}

/// Why a message could not be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl Inspector {
    /// Looks at all strings and keys of the `params` of a message, given as it came.
    ///
    /// # Errors
    /// It is not JSON, or nested deeper than was said.
    pub fn inspect_call(&self, raw: &[u8], kinds: &Kinds, scratch: &mut Scratch) -> Result<Option<Found>, Unreadable> {
        let mut input = std::mem::take(&mut scratch.message);
        input.clear();
        input.reserve(raw.len().saturating_add(simd_json::INPUT_PADDING));
        input.extend_from_slice(raw);
        input.extend_from_slice(&[b' '; simd_json::INPUT_PADDING]);
        let mut buffers =
            scratch.buffers.take().unwrap_or_else(|| simd_json::Buffers::with_max_depth(0, super::MOST_DEPTH));
        let mut tape = std::mem::replace(&mut scratch.tape, simd_json::Tape(Vec::new())).reset();
        let outcome = match simd_json::fill_tape_padded(&mut input, raw.len(), &mut buffers, &mut tape) {
            Ok(()) => Ok(Walk { inspector: self, kinds, nodes: &tape.0, scratch, path: Vec::new() }.message()),
            Err(_) => Err(Unreadable),
        };
        if raw.len() > KEPT_BYTES {
            *scratch = Scratch::default();
        } else {
            scratch.tape = tape.reset();
            scratch.buffers = Some(buffers);
            scratch.message = input;
        }
        outcome
    }
}

/// Memory above this is given back.
const KEPT_BYTES: usize = 256 * 1024;

struct Walk<'w, 'i> {
    inspector: &'w Inspector,
    kinds: &'w Kinds,
    nodes: &'w [Node<'i>],
    scratch: &'w mut Scratch,
    path: Vec<Part<'i>>,
}

impl<'i> Walk<'_, 'i> {
    /// The members `params` of the root.
    fn message(&mut self) -> Option<Found> {
        let Some(Node::Object { len, .. }) = self.nodes.first().copied() else { return None };
        let mut at = 1;
        for _ in 0..len {
            let Some(Node::String(key)) = self.nodes.get(at).copied() else { return None };
            let value = at.saturating_add(1);
            if key == "params"
                && let Err(found) = self.value(value)
            {
                return Some(found);
            }
            at = self.after(value);
        }
        None
    }

    fn after(&self, at: usize) -> usize {
        match self.nodes.get(at) {
            Some(Node::Object { count, .. } | Node::Array { count, .. }) => at.saturating_add(*count).saturating_add(1),
            _ => at.saturating_add(1),
        }
    }

    /// Looks at the value at `at` and all that it holds. The parser has bounded the depth.
    fn value(&mut self, at: usize) -> Result<(), Found> {
        match self.nodes.get(at).copied() {
            Some(Node::String(text)) => {
                let kind = match self.path.split_first() {
                    Some((Part::Key("arguments"), path)) => self.kinds.of(path),
                    _ => Kind::Text,
                };
                let on = self.inspector.on.and(kind.rules()).minus(self.kinds.off);
                match self.inspector.value(on, kind, text, self.scratch) {
                    Some(finding) => Err(self.found(finding, false)),
                    None => Ok(()),
                }
            }
            Some(Node::Object { len, .. }) => {
                let mut at = at.saturating_add(1);
                for _ in 0..len {
                    let Some(Node::String(key)) = self.nodes.get(at).copied() else { return Ok(()) };
                    let on = self.inspector.on.minus(self.kinds.off);
                    if let Some(finding) = self.inspector.key(on, key, self.scratch) {
                        return Err(self.found(finding, true));
                    }
                    let value = at.saturating_add(1);
                    // A path of keys reaches a prototype as one key does.
                    if key == "prototype" || key == "constructor" && self.holds(value, "prototype") {
                        let finding = Finding { rule: RuleId::PrototypeKey, at: 0, disguised: false };
                        if on.has(finding.rule) {
                            return Err(self.found(finding, true));
                        }
                    }
                    self.path.push(Part::Key(key));
                    self.value(value)?;
                    self.path.pop();
                    at = self.after(value);
                }
                Ok(())
            }
            Some(Node::Array { len, .. }) => {
                let mut at = at.saturating_add(1);
                for index in 0..len {
                    self.path.push(Part::Index(index));
                    self.value(at)?;
                    self.path.pop();
                    at = self.after(at);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Has the object at `at` this key?
    fn holds(&self, at: usize, wanted: &str) -> bool {
        let Some(Node::Object { len, .. }) = self.nodes.get(at).copied() else { return false };
        let mut at = at.saturating_add(1);
        for _ in 0..len {
            match self.nodes.get(at) {
                Some(Node::String(key)) if *key == wanted => return true,
                _ => at = self.after(at.saturating_add(1)),
            }
        }
        false
    }

    #[cold]
    fn found(&self, finding: Finding, in_key: bool) -> Found {
        let mut pointer = String::from("/params");
        for part in &self.path {
            let index;
            let shown = match part {
                Part::Key(key) if is_plain(key) => key,
                Part::Key(_) => "*",
                Part::Index(number) => {
                    index = number.to_string();
                    index.as_str()
                }
            };
            if pointer.len().saturating_add(shown.len()) >= MOST_POINTER {
                pointer.push_str("/*");
                break;
            }
            pointer.push('/');
            pointer.push_str(shown);
        }
        Found { finding, pointer, in_key }
    }
}

/// May the key be shown? It comes from the client.
fn is_plain(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= MOST_PART
        && key.bytes().all(|next| next.is_ascii_alphanumeric() || matches!(next, b'_' | b'-' | b'.'))
}

impl std::fmt::Display for Found {
    /// For the audit trail: the rule, where, and what it means; never the value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Finding { rule, at, disguised } = self.finding;
        let what = if self.in_key { "a key of " } else { "" };
        let how = if disguised { ", behind a disguise" } else { "" };
        write!(f, "{} at {what}{} byte {at}{how}: {}", rule.id(), self.pointer, rule.label())
    }
}
