//! Reading the lists: what is looked for, and what is let pass, from text that people can read and replace.
//!
//! A list is lines. `[CATEGORY SEVERITY]`, `[class NAME]` or `[allow]` begins a section; everything after `#` is a comment; any other line is an
//! entry of its section:
//!
//! | written | means |
//! |---|---|
//! | `word` | the word and its plural, between the borders of a word |
//! | `word+` | with its other endings too: -ed, -ing, -er, -y |
//! | `=word` | exactly this word; a letter that is doubled makes another word of it |
//! | `word*`, `*word`, `*word*` | at the beginning, at the end, anywhere in a word |
//! | `w[oa]rd`, `words?` | one of several letters; a letter that may be missing |
//! | `two words` | one after the other |
//! | `{class}`, `<human>`, `<group>` | a word of a class; somebody; a group that people belong to |
//! | `..3` | up to three words of any kind |
//! | `^`, `$` | where a sentence begins; where it ends |
//! | `… / not near A B` | but not in a sentence that has one of these words |
//! | `… / name` | but not as a part of a person's name: a capital beside another |
//! | `… / mild` | of another severity than its section |
//!
//! `[compound front]` and `[compound back]` are the two halves of compounds: each of the first with each of the second, in one word, is moderate
//! profanity, as are many that nobody has listed.
//!
//! Entries are folded as texts are ([`super::fold`]), so a list is written in plain letters and catches their disguises.

use std::collections::HashMap;

use super::fold::{GAP, View, hash_of};
use super::{Category, Severity};

/// What is wrong with a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFault {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub why: &'static str,
}

/// The most entries, after endings and alternatives are written out. Positions are kept in 16 bits.
const MAX_FORMS: usize = 60_000;
/// The most alternatives of one entry.
const MAX_ALTERNATIVES: usize = 256;

/// What an entry is found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Of this category.
    Bad(Category, Severity),
    /// Nothing, whatever else is found in these words.
    Allow,
    /// Nothing by itself; see [`Form::classes`].
    None,
}

/// The classes of words that patterns speak of. A bit each.
/// The last ones are those of instructions aimed at a model (`lists/instructions.txt`).
pub(super) const CLASSES: [&str; 26] = [
    "they", "agent", "intent", "kill", "killed", "killing", "harm", "human", "person", "group", "ofgroup", "det",
    "filler", "be", "not", "norm", "derog", "hate", "report", "override", "order", "law", "earlier", "own", "tell",
    "leak",
];

/// Words of these call for a look at their sentence.
pub(super) const TRIGGERS: u32 = bit("kill")
    | bit("killed")
    | bit("killing")
    | bit("harm")
    | bit("derog")
    | bit("hate")
    | bit("group")
    | bit("ofgroup")
    | bit("override")
    | ANCHOR;

/// A word that a pattern cannot do without, and that is rarer than its others. No class that a list may name.
pub(super) const ANCHOR: u32 = 1 << 30;
/// Words that are no anchor where there is another: half of all sentences have one. As folding writes them.
const COMMON: [&[u8]; 42] = [
    b"for", b"out", b"of", b"down", b"once", b"kind", b"de", b"te", b"la", b"le", b"du", b"me", b"je", b"di", b"va",
    b"in", b"on", b"at", b"where", b"what", b"god", b"was", b"that", b"make", b"take", b"get", b"through", b"word",
    b"back", b"hand", b"this", b"your", b"my", b"know", b"live", b"were", b"here", b"way", b"day", b"work", b"look",
    b"child",
];
/// A word that a pattern begins with.
pub(super) const FIRST: u32 = 1 << 31;

#[allow(clippy::indexing_slicing, reason = "evaluated when compiling, within the bounds that stand beside it")]
pub(super) const fn bit(name: &str) -> u32 {
    let mut index = 0;
    while index < CLASSES.len() {
        if same(CLASSES[index], name) {
            return 1 << index;
        }
        index += 1;
    }
    0
}

#[allow(clippy::indexing_slicing, reason = "evaluated when compiling, within the bounds that stand beside it")]
const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Where in a word a form may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Whole,
    Front,
    Back,
    Anywhere,
}

/// A folded word: its letters, and how often each must stand there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Folded {
    pub(super) letters: Box<[u8]>,
    pub(super) runs: Box<[u8]>,
    pub(super) hash: u32,
}

/// A word that is known, in one of its forms.
#[derive(Clone, Debug)]
pub(super) struct Form {
    pub(super) word: Folded,
    pub(super) place: Place,
    pub(super) strict: bool,
    pub(super) name: bool,
    pub(super) verdict: Verdict,
    pub(super) classes: u32,
    /// In [`Lists::near`]: words beside which it is nothing.
    pub(super) near: Option<u16>,
}

/// A part of a pattern.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Word(Folded),
    Class(u32),
    Human,
    Group,
    Gap(usize),
    Start,
    End,
}

/// Several words in a row.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub(super) parts: Box<[Part]>,
    pub(super) verdict: Verdict,
    pub(super) near: Option<u16>,
    /// Whether it speaks of classes: then words that say nothing are skipped, and negation and reported speech undo it.
    pub(super) is_grammar: bool,
}

/// All that was read.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) forms: Vec<Form>,
    pub(super) patterns: Vec<Pattern>,
    pub(super) near: Vec<Box<[Folded]>>,
    /// Halves of compounds, as written.
    fronts: Vec<String>,
    backs: Vec<String>,
}

impl Lists {
    /// Reads one list and adds it.
    pub(super) fn read(&mut self, text: &str) -> Result<(), ListFault> {
        let mut section = None;
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let fault = |why| ListFault { line: index.saturating_add(1), why };
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'))
                && let Some(known) = Section::of(name)
            {
                section = Some(known);
                continue;
            }
            let section =
                section.ok_or(fault("an entry before the first [SECTION], or a section that is not known"))?;
            self.entry(line, section).map_err(fault)?;
            if self.forms.len() > MAX_FORMS || self.patterns.len() > MAX_FORMS {
                return Err(fault("too many entries"));
            }
        }
        Ok(())
    }

    fn entry(&mut self, line: &str, mut section: Section) -> Result<(), &'static str> {
        let (written, remarks) = line.split_once(" / ").unwrap_or((line, ""));
        let mut near = None;
        let mut name = false;
        for remark in remarks.split(" / ").map(str::trim).filter(|remark| !remark.is_empty()) {
            if let Some(words) = remark.strip_prefix("not near ") {
                let folded: Result<Box<[Folded]>, _> = words.split_whitespace().map(fold_one).collect();
                near = Some(u16::try_from(self.near.len()).map_err(|_| "too many `not near`")?);
                self.near.push(folded?);
            } else if remark == "name" {
                name = true;
            } else if let (Some(milder), Verdict::Bad(category, _)) = (Severity::of(remark), section.verdict) {
                section.verdict = Verdict::Bad(category, milder);
            } else {
                return Err("a remark that is not known");
            }
        }
        for written in alternatives(written.trim())? {
            if let Some(half) = section.half {
                let halves = if half == Half::Front { &mut self.fronts } else { &mut self.backs };
                halves.push(written);
                continue;
            }
            let is_pattern = written.contains([' ', '{', '<']) || written.starts_with("..");
            if is_pattern {
                let parts: Result<Box<[Part]>, _> = written.split_whitespace().map(part).collect();
                let parts = parts?;
                if !matches!(
                    parts.iter().find(|part| !matches!(part, Part::Start)),
                    Some(Part::Word(_) | Part::Class(_) | Part::Human | Part::Group)
                ) {
                    return Err("a pattern begins with a word or a class");
                }
                let is_grammar = parts.iter().any(|part| matches!(part, Part::Class(_) | Part::Human | Part::Group));
                self.patterns.push(Pattern { parts, verdict: section.verdict, near, is_grammar });
            } else {
                self.word(&written, section, name, near)?;
            }
        }
        Ok(())
    }

    fn word(&mut self, written: &str, section: Section, name: bool, near: Option<u16>) -> Result<(), &'static str> {
        let (written, strict) = written.strip_prefix('=').map_or((written, false), |rest| (rest, true));
        let (written, back) = written.strip_prefix('*').map_or((written, false), |rest| (rest, true));
        let (written, front) = written.strip_suffix('*').map_or((written, false), |rest| (rest, true));
        let (written, inflected) = written.strip_suffix('+').map_or((written, false), |rest| (rest, true));
        let place = match (back, front) {
            (false, false) => Place::Whole,
            (false, true) => Place::Front,
            (true, false) => Place::Back,
            (true, true) => Place::Anywhere,
        };
        let plain = section.verdict == Verdict::None || section.verdict == Verdict::Allow;
        let endings: &[&str] = match (place, inflected) {
            (Place::Anywhere | Place::Front, _) => &[""],
            (_, true) => &["", "s", "es", "z", "ed", "ing", "in", "er", "ers", "erz", "y", "a", "as", "az"],
            _ if strict || plain => &[""],
            _ => &["", "s", "es", "z"],
        };
        for ending in endings {
            let stem = match ending.chars().next() {
                Some('e' | 'i' | 'y' | 'a') => written.strip_suffix('e').unwrap_or(written),
                _ => written,
            };
            let word = fold_one(&format!("{stem}{ending}"))?;
            let short = word.letters.len() <= 3;
            self.forms.push(Form {
                word,
                place,
                strict: strict || short,
                name,
                verdict: section.verdict,
                classes: section.classes,
                near,
            });
        }
        Ok(())
    }

    /// Writes the compounds out: every front with every back, and their plurals.
    pub(super) fn write_compounds(&mut self) -> Result<(), &'static str> {
        let verdict = Verdict::Bad(Category::Profanity, Severity::Moderate);
        let section = Section { verdict, classes: 0, half: None };
        let (fronts, backs) = (std::mem::take(&mut self.fronts), std::mem::take(&mut self.backs));
        for front in &fronts {
            for back in backs.iter().filter(|back| *back != front) {
                self.word(&format!("{front}{back}"), section, false, None)?;
                if self.forms.len() > MAX_FORMS {
                    return Err("too many compounds");
                }
            }
        }
        Ok(())
    }

    /// Makes words of the patterns known: those that they begin with, and one of each that calls for a look. A pattern that needs a word of
    /// a telling class needs no other.
    pub(super) fn know_patterns(&mut self) {
        const TELLING: u32 = TRIGGERS & !ANCHOR;
        let mut classes_of: HashMap<&Folded, u32> = HashMap::with_capacity(self.forms.len());
        for form in &self.forms {
            *classes_of.entry(&form.word).or_default() |= form.classes;
        }
        let classes_of = |word: &Folded| classes_of.get(word).copied().unwrap_or(0);
        // What no sentence has by chance, before persons, before words that are everywhere.
        let rarity = |word: &Folded| {
            let everywhere = COMMON.contains(&&*word.letters) || matches!(*word.letters, [b'a' | b'i']);
            let tier = match classes_of(word) {
                _ if everywhere => 0,
                0 => {
                    if word.letters.len() > 1 {
                        2
                    } else {
                        1
                    }
                }
                classes => u8::from(classes & bit("person") != 0),
            };
            (tier, word.letters.len())
        };
        let mut known = Vec::new();
        for pattern in &self.patterns {
            if let Some(Part::Word(word)) = pattern.parts.iter().find(|part| !matches!(part, Part::Start)) {
                known.push((word.clone(), FIRST));
            }
            let tells = |part: &Part| match part {
                Part::Class(classes) => classes & !TELLING == 0,
                Part::Word(word) => classes_of(word) & TELLING != 0,
                Part::Group => true,
                _ => false,
            };
            let words = pattern.parts.iter().filter_map(|part| match part {
                Part::Word(word) => Some(word),
                _ => None,
            });
            // An exception matters only where something was found.
            if pattern.verdict != Verdict::Allow
                && !pattern.parts.iter().any(tells)
                && let Some(word) = words.max_by_key(|word| rarity(word))
            {
                known.push((word.clone(), ANCHOR));
            }
        }
        let form = |(word, classes): (Folded, u32)| Form {
            strict: word.letters.len() <= 4,
            word,
            place: Place::Whole,
            name: false,
            verdict: Verdict::None,
            classes,
            near: None,
        };
        self.forms.extend(known.into_iter().map(form));
    }

    /// Positions of whole-word forms by hash.
    pub(super) fn whole_words(&self) -> HashMap<u32, Vec<u16>> {
        let mut found: HashMap<u32, Vec<u16>> = HashMap::new();
        for (index, form) in self.forms.iter().enumerate().filter(|(_, form)| form.place == Place::Whole) {
            found.entry(form.word.hash).or_default().extend(u16::try_from(index).ok());
        }
        found
    }
}

#[derive(Clone, Copy)]
struct Section {
    verdict: Verdict,
    classes: u32,
    half: Option<Half>,
}

/// Of a compound.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Front,
    Back,
}

impl Section {
    fn of(name: &str) -> Option<Self> {
        let mut words = name.split_whitespace();
        let (kind, detail) = (words.next()?, words.next());
        if words.next().is_some() {
            return None;
        }
        if kind == "allow" && detail.is_none() {
            return Some(Self { verdict: Verdict::Allow, classes: 0, half: None });
        }
        if kind == "compound" {
            let half = match detail? {
                "front" => Half::Front,
                "back" => Half::Back,
                _ => return None,
            };
            return Some(Self { verdict: Verdict::None, classes: 0, half: Some(half) });
        }
        if kind == "class" {
            let classes = bit(detail?);
            return (classes != 0).then_some(Self { verdict: Verdict::None, classes, half: None });
        }
        let category = Category::ALL.into_iter().find(|category| category.name() == kind)?;
        let severity = Severity::of(detail?)?;
        Some(Self { verdict: Verdict::Bad(category, severity), classes: 0, half: None })
    }
}

/// One word, folded as a text's words are.
pub(super) fn fold_one(written: &str) -> Result<Folded, &'static str> {
    let mut view = View::default();
    view.take(written, 0);
    let mut ordered = view.tokens.iter().take(view.in_order);
    match (ordered.next(), ordered.next()) {
        (Some(&token), None) => {
            let letters: Box<[u8]> = view.word(token).into();
            let hash = hash_of(&letters);
            Ok(Folded { runs: view.word_runs(token).into(), letters, hash })
        }
        _ => Err("not one word"),
    }
}

fn part(written: &str) -> Result<Part, &'static str> {
    if let Some(name) = written.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let classes = name
            .split('|')
            .map(bit)
            .try_fold(0, |all, bit| if bit == 0 { Err("a class that is not known") } else { Ok(all | bit) });
        return classes.map(Part::Class);
    }
    match written {
        "<human>" => Ok(Part::Human),
        "<group>" => Ok(Part::Group),
        "^" => Ok(Part::Start),
        "$" => Ok(Part::End),
        _ => match written.strip_prefix("..") {
            Some(count) => {
                count.parse().ok().filter(|count| (1..=6).contains(count)).map(Part::Gap).ok_or("..1 to ..6")
            }
            None => fold_one(written).map(Part::Word),
        },
    }
}

/// `w[oa]rds?` written out.
fn alternatives(written: &str) -> Result<Vec<String>, &'static str> {
    let mut all = vec![String::new()];
    let mut rest = written.chars().peekable();
    while let Some(c) = rest.next() {
        let mut choices: Vec<char> = Vec::new();
        if c == '[' {
            loop {
                match rest.next() {
                    Some(']') => break,
                    Some(choice) => choices.push(choice),
                    None => return Err("[ without ]"),
                }
            }
        } else {
            choices.push(c);
        }
        let optional = rest.next_if_eq(&'?').is_some();
        let mut next = Vec::with_capacity(all.len().saturating_mul(choices.len().saturating_add(1)));
        for begun in &all {
            next.extend(choices.iter().map(|choice| format!("{begun}{choice}")));
            if optional {
                next.push(begun.clone());
            }
        }
        if next.len() > MAX_ALTERNATIVES {
            return Err("too many alternatives");
        }
        all = next;
    }
    Ok(all)
}

/// A form as the automaton looks for it: with the borders that its place asks for.
pub(super) fn needle(form: &Form) -> Vec<u8> {
    let mut needle = Vec::with_capacity(form.word.letters.len().saturating_add(2));
    if form.place == Place::Front {
        needle.push(GAP);
    }
    needle.extend_from_slice(&form.word.letters);
    if form.place == Place::Back {
        needle.push(GAP);
    }
    needle
}
