//! The content filter: threats, hate speech and profanity in what agents send to people.
//!
//! It answers one question about a text: does it say what must not be sent, and what is the worst of it? It never rewrites, and it keeps
//! nothing of what it has read.
//!
//! # How it works
//! A text is folded, a sentence at a time, to what its letters look like ([`fold`]). Each word is looked up in one table, by a hash that folding
//! has computed along the way; and one Aho-Corasick automaton goes over the folded letters for stems that are bad wherever they stand in a
//! word. That is all that a clean text costs. Only a sentence in which something was found is looked at again: the context in which a word
//! means something else (`garden hoe`), names, exceptions, and *patterns* over classes of words, which tell `I will kill you` from `kill the
//! process` by who does what to whom ([`patterns`]).
//!
//! # Promises
//! - Time linear in the text; memory of fixed size, kept in [`Scratch`]; no allocation once it has grown.
//! - A word is found between its borders, or in the middle of another only where its list says so.
//! - Disguises that are seen through: case, accents, look-alike letters, figures and signs for letters, repeated letters, letters written
//!   apart or with separators, and hidden letters (`f**k`).
//!
//! # What it does not do
//! It has no opinion. Contempt without a word of contempt is not found; [docs/content.md](../../../docs/content.md) has the figures.
#![deny(clippy::indexing_slicing, clippy::cast_sign_loss, clippy::unwrap_used)]

mod fold;
mod glyphs;
mod lists;
mod patterns;
mod words;

use fold::View;
pub use lists::ListFault;
use patterns::Sentence;
use words::Words;

/// What a text says that must not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// Swearing and obscenity.
    Profanity,
    /// Contempt for people because of what they are: slurs, dehumanization.
    Hate,
    /// Violence that is announced, wished or called for.
    Threat,
}

impl Category {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Profanity, Self::Hate, Self::Threat];

    /// As lists and the policy write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Profanity => "profanity",
            Self::Hate => "hate",
            Self::Threat => "threat",
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Coarse; many would let it pass.
    Mild,
    /// Vulgar or insulting.
    Moderate,
    /// Would be out of place anywhere.
    Severe,
}

impl Severity {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Mild, Self::Moderate, Self::Severe];

    /// As lists and the policy write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mild => "mild",
            Self::Moderate => "moderate",
            Self::Severe => "severe",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.name() == name)
    }
}

/// The worst that a text says, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub category: Category,
    /// How bad.
    pub severity: Severity,
    /// Offset in the text of the word it begins with, bytes.
    pub at: usize,
}

/// From which severity on each category counts. `None`: not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Of profanity.
    pub profanity: Option<Severity>,
    /// Of hate speech.
    pub hate: Option<Severity>,
    /// Of threats.
    pub threat: Option<Severity>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { profanity: Some(Severity::Moderate), hate: Some(Severity::Moderate), threat: Some(Severity::Moderate) }
    }
}

impl Thresholds {
    fn admit(&self, finding: &Finding) -> bool {
        let least = match finding.category {
            Category::Profanity => self.profanity,
            Category::Hate => self.hate,
            Category::Threat => self.threat,
        };
        least.is_some_and(|least| finding.severity >= least)
    }
}

/// The lists that ship with the program.
pub const SHIPPED: [(&str, &str); 5] = [
    ("classes.txt", include_str!("../../../lists/content/classes.txt")),
    ("profanity.txt", include_str!("../../../lists/content/profanity.txt")),
    ("hate.txt", include_str!("../../../lists/content/hate.txt")),
    ("threats.txt", include_str!("../../../lists/content/threats.txt")),
    ("languages.txt", include_str!("../../../lists/content/languages.txt")),
];

/// What a search keeps between texts, for its memory. One a worker is enough.
#[derive(Debug, Default)]
pub struct Scratch {
    view: View,
    sentence: Sentence,
}

/// Lists, made ready to be looked for.
#[derive(Debug)]
pub struct ContentFilter {
    words: Words,
    thresholds: Thresholds,
}

impl ContentFilter {
    /// The filter with the shipped lists.
    ///
    /// # Errors
    /// None, as a test shows.
    pub fn shipped(thresholds: Thresholds) -> Result<Self, (String, ListFault)> {
        Self::new(SHIPPED.into_iter(), thresholds)
    }

    /// A filter of these lists, given by name and text.
    ///
    /// # Errors
    /// The name of the first list that cannot be read, and what is wrong with it.
    pub fn new<'a>(
        lists: impl Iterator<Item = (&'a str, &'a str)>,
        thresholds: Thresholds,
    ) -> Result<Self, (String, ListFault)> {
        let mut read = lists::Lists::default();
        for (name, text) in lists {
            read.read(text).map_err(|fault| (name.to_owned(), fault))?;
        }
        let too_large = ListFault { line: 0, why: "the lists are too large together" };
        let words = Words::new(read).ok_or((String::new(), too_large))?;
        Ok(Self { words, thresholds })
    }

    /// The worst that `text` says, by category and then by severity; of equals, the first.
    #[must_use]
    pub fn worst(&self, scratch: &mut Scratch, text: &str) -> Option<Finding> {
        let mut worst: Option<Finding> = None;
        self.each(scratch, text, |finding| {
            let rank = |finding: &Finding| (finding.category, finding.severity);
            if worst.as_ref().is_none_or(|worst| rank(&finding) > rank(worst)) {
                worst = Some(finding);
            }
        });
        worst
    }

    /// All that `text` says, sentence by sentence.
    pub fn each(&self, scratch: &mut Scratch, text: &str, mut found: impl FnMut(Finding)) {
        let mut at = 0;
        scratch.sentence.forget();
        while at < text.len() {
            let end = scratch.view.take(text, at);
            self.words.look(&scratch.view, &mut scratch.sentence, |category, severity, source| {
                let finding = Finding { category, severity, at: at.saturating_add(source) };
                if self.thresholds.admit(&finding) {
                    found(finding);
                }
            });
            // A segment that takes nothing would be one for ever.
            at = end.max(at.saturating_add(1));
        }
    }
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
