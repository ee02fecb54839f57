//! What comes back from tools: how long it may be, secrets and personal numbers in it, and instructions in it that are aimed at the model.
//!
//! It looks at a whole answer and says what is to become of it. It never writes an answer anew: what is masked is masked in place, a byte for a
//! byte, so that everything else stays as it came and the JSON stays valid.
//!
//! # What is looked at
//! Every string of `result` or `error`, keys included, decoded as the client will read it; for numbers of payment cards, bare numbers as well.
//!
//! # Promises
//! - Time linear in the answer.
//! - What is found is told by kind and place, never by its value.
//! - An answer that is not looked at costs one comparison.
#![deny(clippy::indexing_slicing, clippy::cast_sign_loss, clippy::unwrap_used)]

mod mask;
pub mod tool_hash;

use std::borrow::Cow;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use crate::guard::content::{self, ContentFilter, Thresholds};
use crate::guard::sensitive;
use crate::rpc::{Envelope, scan};
use crate::settings::policy::{FlagMode, ResultsPolicy, SecretsMode};
use crate::span::Span;

/// The list of instructions aimed at a model.
const LIST: (&str, &str) = ("instructions.txt", include_str!("../../../lists/instructions.txt"));

/// What stands in prompts where a role begins or ends: no tool has reason to say it. `<IMPORTANT>` is what poisoned descriptions begin with.
const MARKERS: [&str; 12] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|system|>",
    "<|start_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<</SYS>>",
    "<IMPORTANT>",
    "</IMPORTANT>",
];

static MARKER: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| AhoCorasick::new(MARKERS).ok());

/// What is wrong with a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultFault {
    /// It is longer than it may be.
    Size {
        /// How long it may be, bytes.
        max: u32,
    },
    /// It has a secret or a personal number.
    Secret(sensitive::Kind),
    /// It tells the model what to do.
    Instructions,
}

impl ResultFault {
    /// The name of the rule.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Size { .. } => "result-size",
            Self::Secret(sensitive::Kind::CardNumber) => "result-card-number",
            Self::Secret(sensitive::Kind::SocialSecurityNumber) => "result-social-security-number",
            Self::Secret(sensitive::Kind::ProviderKey) => "result-provider-key",
            Self::Secret(sensitive::Kind::PrivateKey) => "result-private-key",
            Self::Instructions => "result-instructions",
        }
    }

    /// The sentence that stands in place of a result that is withheld.
    #[must_use]
    pub fn text(self) -> Cow<'static, str> {
        match self {
            Self::Size { max } => {
                format!("The result was withheld: it is longer than {max} bytes (rule result-size)").into()
            }
            Self::Secret(kind) => {
                format!("The result was withheld: it contains {} (rule {})", kind.words(), self.rule()).into()
            }
            Self::Instructions => {
                "The result was withheld: it contains instructions aimed at the model (rule result-instructions)".into()
            }
        }
    }
}

/// What was found, and where: the offset in the answer, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub fault: ResultFault,
    /// Where it begins.
    pub at: usize,
}

/// What becomes of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// It must not pass, for this.
    pub withheld: Option<Finding>,
    /// Instructions that pass and are to be recorded.
    pub flagged: Option<Finding>,
    /// The answer with its secrets masked, the first of them, and how many there are.
    pub masked: Option<(Vec<u8>, Finding, usize)>,
}

/// What is looked for, and what the policy makes of it.
#[derive(Debug)]
pub struct Results {
    policy: ResultsPolicy,
    filter: Option<ContentFilter>,
}

impl Results {
    /// What the policy says.
    #[must_use]
    pub fn new(policy: &ResultsPolicy) -> Self {
        // The list is the program's own; a test shows that it can be read.
        let read = || ContentFilter::new([LIST].into_iter(), Thresholds::default()).ok();
        let filter = (policy.instructions != FlagMode::Off).then(read).flatten();
        Self { policy: policy.clone(), filter }
    }

    /// How long an answer may be.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        self.policy.max_bytes as usize
    }

    /// Whether answers are to be looked into, and so held whole.
    #[must_use]
    pub fn looks_inside(&self) -> bool {
        self.policy.secrets != SecretsMode::Off || self.policy.instructions != FlagMode::Off
    }

    /// That an answer of so many bytes is too long.
    #[must_use]
    pub fn too_long(&self, bytes: usize) -> Option<ResultFault> {
        (bytes > self.max_bytes()).then_some(ResultFault::Size { max: self.policy.max_bytes })
    }

    /// Looks at a checked answer.
    #[must_use]
    pub fn look(&self, scratch: &mut content::Scratch, envelope: &Envelope, raw: &[u8]) -> Look {
        let mut look = Look::default();
        if let Some(fault) = self.too_long(raw.len()) {
            look.withheld = Some(Finding { fault, at: 0 });
            return look;
        }
        let Some(span) = envelope.result.or(envelope.error).filter(|_| self.looks_inside()) else { return look };
        if let Some(at) = self.instructions(scratch, raw, span) {
            let finding = Finding { fault: ResultFault::Instructions, at };
            if self.policy.instructions == FlagMode::Block {
                look.withheld = Some(finding);
                return look;
            }
            look.flagged = Some(finding);
        }
        if self.policy.secrets == SecretsMode::Off {
            return look;
        }
        let (places, first) = mask::secrets(raw, span);
        let Some((kind, at)) = first else { return look };
        let finding = Finding { fault: ResultFault::Secret(kind), at };
        if self.policy.secrets == SecretsMode::Block {
            look.withheld = Some(finding);
        } else {
            let mut out = raw.to_vec();
            places.iter().for_each(|place| place.hide(&mut out));
            look.masked = Some((out, finding, places.len()));
        }
        look
    }

    /// Where the first string stands that tells the model what to do.
    fn instructions(&self, scratch: &mut content::Scratch, raw: &[u8], span: Span) -> Option<usize> {
        let filter = self.filter.as_ref()?;
        strings(raw, span).find_map(|text| {
            let start = text.span.start as usize;
            let decoded = text.decode(raw);
            let marked = MARKER.as_ref().is_some_and(|markers| markers.is_match(decoded.as_bytes()));
            (marked || filter.worst(scratch, &decoded).is_some()).then_some(start)
        })
    }
}

/// The strings in a value, keys included, one after the other. The bytes are those of a message that was parsed.
fn strings(raw: &[u8], span: Span) -> impl Iterator<Item = crate::rpc::Text> + '_ {
    let (mut at, end) = (span.start as usize, span.end as usize);
    std::iter::from_fn(move || {
        let start = at.checked_add(memchr::memchr(b'"', raw.get(at..end)?)?)?;
        at = scan::string_end(raw, start)?;
        scan::text(raw, Span::from_usize(start, at))
    })
}

#[cfg(test)]
#[path = "results_tests.rs"]
mod tests;
