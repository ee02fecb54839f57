//! Who does what to whom: patterns over the words of one sentence.
//!
//! A word alone says little: `kill` is a threat to a person and a command to a process. So lists speak of classes of words, and a pattern
//! of an order in which they stand: `{agent} {intent} {kill} <human>`. Between the parts of such a pattern stand words that say nothing
//! (`really`, `just`); a negation before it, or reported speech around it, makes it nothing.
//!
//! Nothing is tried twice from the same place but a gap's few lengths, so a sentence costs its words times the patterns that begin alike.

use std::collections::HashMap;

use super::fold::{Token, View};
use super::lists::{CLASSES, FIRST, Part, Pattern, Verdict, bit};
use super::words::runs_agree;

/// The most things that are noted of one sentence; more change nothing about the worst of them in practice, and nothing about a refusal.
const MAX_NOTES: usize = 64;

/// How far back a negation is looked for, words.
const NEGATION_REACH: usize = 5;
/// How far back words of report are looked for.
const REPORT_REACH: usize = 10;
/// The longest name of somebody: `every single one of those young men`.
const MAX_HUMAN_WORDS: usize = 16;
/// Words that say nothing, in a row.
const MAX_FILLERS: usize = 12;

const FILLER: u32 = bit("filler");
const NOT: u32 = bit("not");
const REPORT: u32 = bit("report");
const HUMAN: u32 = bit("human");
const PERSON: u32 = bit("person");
const GROUP: u32 = bit("group");
const OF_GROUP: u32 = bit("ofgroup");
const DET: u32 = bit("det");
const BE: u32 = bit("be");
const THEY: u32 = bit("they");

/// What is known of one sentence. Kept for its memory.
#[derive(Debug, Default)]
pub(super) struct Sentence {
    /// Of each word.
    classes: Vec<u32>,
    /// What was found, and in which words.
    notes: Vec<(Verdict, usize, usize)>,
    /// Whether a group was spoken of, in this sentence or one before: `they` are its people then.
    of_group: bool,
}

impl Sentence {
    /// A text begins.
    pub(super) fn forget(&mut self) {
        self.of_group = false;
    }

    pub(super) fn begin(&mut self, view: &View) {
        self.classes.clear();
        self.classes.resize(view.tokens.len(), 0);
        self.notes.clear();
    }

    pub(super) fn class(&mut self, index: usize, mut classes: u32) {
        self.of_group |= classes & (GROUP | OF_GROUP) != 0;
        if self.of_group && classes & THEY != 0 {
            classes |= GROUP;
        }
        if let Some(known) = self.classes.get_mut(index) {
            *known |= classes;
        }
    }

    /// The letters from `first` on, `count` words of one letter, spell a word of these classes.
    pub(super) fn class_spelled(&mut self, first: usize, count: usize, classes: u32) {
        self.class(first, classes);
        for index in first.saturating_add(1)..first.saturating_add(count) {
            if let Some(known) = self.classes.get_mut(index) {
                *known = FILLER;
            }
        }
    }

    /// Notes what the words from `first` to `last` are.
    pub(super) fn note(&mut self, verdict: Verdict, first: usize, last: usize) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push((verdict, first, last));
        }
    }

    /// What is bad, but for what an exception touches.
    pub(super) fn verdicts(&self) -> impl Iterator<Item = (usize, Verdict)> + '_ {
        let allowed = |first: usize, last: usize| {
            let covers = |&(verdict, from, to): &(Verdict, usize, usize)| {
                verdict == Verdict::Allow && from <= last && first <= to
            };
            self.notes.iter().any(covers)
        };
        let bad = self.notes.iter().filter(|(verdict, ..)| matches!(verdict, Verdict::Bad(..)));
        bad.filter(move |&&(_, first, last)| !allowed(first, last)).map(|&(verdict, first, _)| (first, verdict))
    }

    fn has(&self, index: usize, classes: u32) -> bool {
        self.classes.get(index).is_some_and(|known| known & classes != 0)
    }

    fn any(&self, indices: impl IntoIterator<Item = usize>, classes: u32) -> bool {
        indices.into_iter().any(|index| self.has(index, classes))
    }

    /// One past somebody who is named from `at` on; `None`: nobody is. With `group`, only people of a group.
    fn human(&self, view: &View, at: usize, group: bool) -> Option<usize> {
        let mut described = false;
        for index in at..at.saturating_add(MAX_HUMAN_WORDS).min(view.in_order) {
            if self.has(index, GROUP) {
                return Some(self.after_people(index));
            }
            if self.has(index, PERSON) && (!group || described) {
                return Some(index.saturating_add(1));
            }
            if self.has(index, HUMAN) {
                // `you Muslims`: the group is what is spoken of.
                let next = index.saturating_add(1);
                let named =
                    self.has(next, GROUP | OF_GROUP | DET | PERSON).then(|| self.human(view, next, group)).flatten();
                if named.is_some() || !group {
                    return named.or(Some(next));
                }
                continue;
            }
            if self.has(index, OF_GROUP) {
                described = true;
            } else if !self.has(index, DET | FILLER) {
                return None;
            }
        }
        None
    }

    /// `trans people`: the group's name may be followed by what its members are.
    fn after_people(&self, index: usize) -> usize {
        let mut next = index.saturating_add(1);
        while self.has(next, FILLER) && !self.has(next, BE) {
            next = next.saturating_add(1);
        }
        let next = if self.has(next, PERSON) { next.saturating_add(1) } else { index.saturating_add(1) };
        // `women like you`: `like` is a determiner here, and what follows it belongs to them.
        let like = |at: usize| self.has(at, DET) && self.has(at.saturating_add(1), HUMAN);
        if like(next) { next.saturating_add(2) } else { next }
    }
}

/// Patterns by what they begin with.
#[derive(Debug)]
pub(super) struct Index {
    patterns: Box<[Pattern]>,
    /// Of each.
    needs: Box<[Needs]>,
    /// By the hash of their first word. The order of hashing is of no consequence: what is in it was made here.
    by_word: HashMap<u32, Vec<u16>>,
    /// By the bit of their first class.
    by_class: Box<[Vec<u16>]>,
}

impl Index {
    pub(super) fn new(patterns: Vec<Pattern>) -> Self {
        let mut index = Self {
            by_word: HashMap::new(),
            by_class: vec![Vec::new(); CLASSES.len()].into(),
            needs: patterns.iter().map(Needs::of).collect(),
            patterns: patterns.into(),
        };
        for (at, pattern) in index.patterns.iter().enumerate() {
            let Ok(at) = u16::try_from(at) else { break };
            let classes = match pattern.parts.iter().find(|part| !matches!(part, Part::Start)) {
                Some(Part::Word(word)) => {
                    index.by_word.entry(word.hash).or_default().push(at);
                    continue;
                }
                Some(Part::Class(classes)) => *classes,
                Some(Part::Human) => HUMAN | PERSON | GROUP | OF_GROUP | DET,
                Some(Part::Group) => GROUP | OF_GROUP,
                _ => continue,
            };
            for (bit, list) in index.by_class.iter_mut().enumerate() {
                if classes & (1 << bit) != 0 {
                    list.push(at);
                }
            }
        }
        index
    }

    /// Tries all patterns at every word; `found` gets the verdict and the words it covers.
    pub(super) fn run(
        &self,
        view: &View,
        sentence: &mut Sentence,
        mut found: impl FnMut(Verdict, Option<u16>, usize, usize, &mut Sentence),
    ) {
        let mut has = Needs::default();
        for (token, classes) in view.tokens.iter().zip(&sentence.classes).take(view.in_order) {
            has = Needs { words: has.words | hash_bit(token.hash), classes: has.classes | classes };
        }
        for at in 0..view.in_order {
            let hash = view.tokens.get(at).map_or(0, |token| token.hash);
            if sentence.has(at, FIRST) {
                for &number in self.by_word.get(&hash).map(Vec::as_slice).unwrap_or_default() {
                    self.attempt(number, has, view, sentence, at, &mut found);
                }
            }
            let classes = sentence.classes.get(at).copied().unwrap_or(0);
            let mut seen = 0u32;
            for (bit, list) in self.by_class.iter().enumerate().filter(|(bit, _)| classes & (1 << bit) != 0) {
                for &number in list {
                    // A word of two classes is tried once for a pattern that takes either.
                    let Some(pattern) = self.patterns.get(usize::from(number)) else { continue };
                    if seen != 0 && first_classes(pattern) & seen != 0 {
                        continue;
                    }
                    self.attempt(number, has, view, sentence, at, &mut found);
                }
                seen |= 1 << bit;
            }
        }
    }

    fn attempt(
        &self,
        number: u16,
        has: Needs,
        view: &View,
        sentence: &mut Sentence,
        at: usize,
        found: &mut impl FnMut(Verdict, Option<u16>, usize, usize, &mut Sentence),
    ) {
        if !self.needs.get(usize::from(number)).is_some_and(|needs| needs.are_met_by(has)) {
            return;
        }
        let Some(pattern) = self.patterns.get(usize::from(number)) else { return };
        let mut attempt = Attempt { view, sentence, grammar: pattern.is_grammar, negated: false };
        let Some(end) = attempt.rest(&pattern.parts, at, true) else { return };
        if pattern.is_grammar
            && pattern.verdict != Verdict::Allow
            && ((attempt.negated && !view.asks) || attempt.is_undone(at))
        {
            return;
        }
        found(pattern.verdict, pattern.near, at, end.saturating_sub(1), sentence);
    }
}

fn first_classes(pattern: &Pattern) -> u32 {
    match pattern.parts.iter().find(|part| !matches!(part, Part::Start)) {
        Some(Part::Class(classes)) => *classes,
        Some(Part::Human) => HUMAN | PERSON | GROUP | OF_GROUP | DET,
        Some(Part::Group) => GROUP | OF_GROUP,
        _ => 0,
    }
}

/// What a sentence must have for a pattern to be tried: a bit for each of its words, by hash, and its classes.
#[derive(Clone, Copy, Debug, Default)]
struct Needs {
    words: u64,
    classes: u32,
}

impl Needs {
    fn of(pattern: &Pattern) -> Self {
        pattern.parts.iter().fold(Self::default(), |needs, part| match part {
            Part::Word(word) => Self { words: needs.words | hash_bit(word.hash), ..needs },
            // Of several classes one is enough, which a bit cannot say.
            Part::Class(classes) if classes.is_power_of_two() => Self { classes: needs.classes | classes, ..needs },
            _ => needs,
        })
    }

    fn are_met_by(self, has: Self) -> bool {
        self.words & !has.words == 0 && self.classes & !has.classes == 0
    }
}

fn hash_bit(hash: u32) -> u64 {
    1 << (hash >> 26)
}

struct Attempt<'a> {
    view: &'a View,
    sentence: &'a Sentence,
    grammar: bool,
    negated: bool,
}

impl Attempt<'_> {
    /// Whether `parts` stand from `at` on; one past the last word if they do.
    fn rest(&mut self, parts: &[Part], at: usize, first: bool) -> Option<usize> {
        let Some((part, rest)) = parts.split_first() else { return Some(at) };
        let mut at = at;
        if let Part::Start = part {
            let begins =
                at == 0 || (0..at).all(|before| self.sentence.has(before, FILLER)) || self.token(at)?.is(Token::BREAK);
            return if begins { self.rest(rest, at, first) } else { None };
        }
        if self.grammar && !first && !matches!(part, Part::Gap(_)) && !self.stands(part, at) {
            let mut skipped = 0;
            while skipped < MAX_FILLERS && self.sentence.has(at, FILLER | NOT) && !self.stands(part, at) {
                self.negated |= self.sentence.has(at, NOT);
                at = at.saturating_add(1);
                skipped = skipped.saturating_add(1);
            }
        }
        match part {
            Part::Start => None,
            Part::End => (at >= self.view.in_order).then_some(at),
            Part::Word(_) | Part::Class(_) => {
                if self.stands(part, at) {
                    self.rest(rest, at.saturating_add(1), false)
                } else {
                    None
                }
            }
            Part::Human | Part::Group => {
                let end = self.sentence.human(self.view, at, matches!(part, Part::Group))?;
                self.rest(rest, end, false)
            }
            Part::Gap(most) => (0..=*most).find_map(|gap| {
                let end = at.saturating_add(gap);
                if end > self.view.in_order || self.sentence.any(at..end, NOT) {
                    None
                } else {
                    self.rest(rest, end, true)
                }
            }),
        }
    }

    fn token(&self, at: usize) -> Option<Token> {
        self.view.tokens.get(at).copied().filter(|_| at < self.view.in_order)
    }

    fn stands(&self, part: &Part, at: usize) -> bool {
        let Some(token) = self.token(at) else { return matches!(part, Part::End) };
        match part {
            Part::Word(word) => {
                token.hash == word.hash
                    && *self.view.word(token) == *word.letters
                    && runs_agree(&word.runs, self.view.word_runs(token), word.letters.len() <= 4)
            }
            Part::Class(classes) => self.sentence.has(at, *classes),
            Part::Human => self.sentence.has(at, HUMAN | PERSON | GROUP | OF_GROUP | DET),
            Part::Group => self.sentence.has(at, HUMAN | GROUP | OF_GROUP | DET),
            _ => false,
        }
    }

    /// Whether what begins at `at` is said not to be so, or said by somebody else.
    fn is_undone(&self, at: usize) -> bool {
        let from = at.saturating_sub(NEGATION_REACH);
        let since_break = (from..at).rev().take_while(|&index| {
            // A comma ends what a negation is about; the word behind it carries the mark.
            !self.token(index.saturating_add(1)).is_some_and(|next| next.is(Token::BREAK) && !next.is(Token::CLITIC))
        });
        if !self.view.asks && self.sentence.any(since_break, NOT) {
            return true;
        }
        let quoted = self.token(at).is_some_and(|token| token.is(Token::QUOTED));
        let reach = if quoted { at } else { REPORT_REACH };
        self.sentence.any(at.saturating_sub(reach)..at, REPORT)
            || (quoted && self.sentence.any(at..self.view.in_order, REPORT))
    }
}
