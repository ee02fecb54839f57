//! Phrases that rules ask for, searched for all at once: which of them a text has at all. A rule that asks for one then looks for its place.

use super::{format, html, path, script, shell};
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

/// The lists, in the order of their numbers.
#[derive(Clone, Copy, Debug)]
pub(super) enum List {
    Secrets,
    Odd,
    Code,
    Schemes,
    Tricks,
    Other,
}

impl List {
    const ALL: [Self; 6] = [Self::Secrets, Self::Odd, Self::Code, Self::Schemes, Self::Tricks, Self::Other];

    const fn phrases(self) -> &'static [&'static [u8]] {
        match self {
            Self::Secrets => path::SECRETS,
            Self::Odd => path::ODD,
            Self::Code => shell::CODE_SIGNS,
            Self::Schemes => html::SCHEMES,
            Self::Tricks => script::TRICKS,
            Self::Other => format::OTHER,
        }
    }

    /// The number of its first phrase.
    const fn base(self) -> usize {
        let mut base = 0;
        let mut rest: &[Self] = &Self::ALL;
        while let [list, tail @ ..] = rest {
            if *list as u8 == self as u8 {
                return base;
            }
            base += list.phrases().len();
            rest = tail;
        }
        base
    }
}

/// Which phrases a text has, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Has(u128);

impl Has {
    /// The phrases of a list that the text has, with their number in it.
    pub(super) fn of(self, list: List) -> impl Iterator<Item = &'static [u8]> {
        let base = list.base();
        let mut bits = if base >= 128 { 0 } else { self.0 >> base };
        list.phrases().iter().copied().filter(move |_| {
            let has = bits & 1 != 0;
            bits >>= 1;
            has
        })
    }

    /// Has it any of the list?
    pub(super) fn any(self, list: List) -> bool {
        self.of(list).next().is_some()
    }

    /// Has it none?
    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Has it this phrase of the list?
    pub(super) fn has(self, list: List, phrase: &[u8]) -> bool {
        self.of(list).any(|other| other == phrase)
    }
}

/// The search, ready. Without it everything counts as there.
#[derive(Debug)]
pub(super) struct Phrases(Option<AhoCorasick>);

impl Phrases {
    pub(super) fn new() -> Self {
        let all = List::ALL.iter().flat_map(|list| list.phrases());
        let builder =
            AhoCorasick::builder().kind(Some(AhoCorasickKind::DFA)).match_kind(MatchKind::Standard).build(all);
        Self(builder.ok())
    }

    pub(super) fn of(&self, text: &[u8]) -> Has {
        let Some(search) = &self.0 else { return Has(u128::MAX) };
        let mut has = 0u128;
        for found in search.find_overlapping_iter(text) {
            has |= 1u128.checked_shl(found.pattern().as_u32()).unwrap_or(0);
        }
        Has(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_bit_for_each() {
        let count: usize = List::ALL.iter().map(|list| list.phrases().len()).sum();
        assert!(count <= 128, "{count}");
        let has = Phrases::new().of(b"cat /etc/passwd; document.constructor");
        assert_eq!(has.of(List::Secrets).collect::<Vec<_>>(), [b"etc/passwd"]);
        assert!(has.has(List::Tricks, b"constructor") && !has.has(List::Tricks, b"call"));
    }
}
