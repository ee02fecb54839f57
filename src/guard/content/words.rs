//! The lists, ready to be looked for: a table of whole words, an automaton of stems, patterns by what they begin with.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::fold::{GAP, HIDDEN, Token, View};
use super::lists::{self, Folded, Form, Lists, Place, TRIGGERS, Verdict};
use super::patterns::{Index, Sentence};
use super::{Category, Severity};

/// Lists, made ready.
#[derive(Debug)]
pub(super) struct Words {
    forms: Box<[Form]>,
    near: Box<[Box<[Folded]>]>,
    /// Words that call for a look at their segment, and letters of stems that do.
    signs: Hints,
    stem_signs: Hints,
    /// A list has stems of one or two letters, which have no sign.
    has_short_stems: bool,
    table: Table,
    stems: Option<AhoCorasick>,
    /// The form of each of the automaton's needles.
    stem_forms: Box<[u16]>,
    /// Forms that may be written with letters hidden, by their first letter.
    censorable: Box<[Vec<u16>]>,
    patterns: Index,
}

/// Open addressing over the hashes of whole words. The slots of a hash are found by the text's own hash, so what an attacker chooses is which
/// slots are looked at, and all of those were made here.
#[derive(Debug)]
struct Table {
    slots: Box<[Slot]>,
}

/// A set of hashes that says of nearly all others that they are not in it: two bits of one word for each (Bloom, 1970), so that a look is one read.
#[derive(Debug)]
struct Hints(Box<[u64; HINT_WORDS]>);

/// 64 KiB: with the shipped lists one word in sixty that is not there is looked up in vain.
const HINT_WORDS: usize = 8192;

impl Hints {
    fn of(hashes: impl IntoIterator<Item = u32>) -> Self {
        let mut words = Box::new([0u64; HINT_WORDS]);
        for hash in hashes {
            let (place, bits) = Self::place(hash);
            if let Some(word) = words.get_mut(place) {
                *word |= bits;
            }
        }
        Self(words)
    }

    const fn place(hash: u32) -> (usize, u64) {
        ((hash >> 12) as usize % HINT_WORDS, 1 << (hash & 63) | 1 << (hash >> 6 & 63))
    }

    #[inline]
    fn may_have(&self, hash: u32) -> bool {
        let (place, bits) = Self::place(hash);
        self.0.get(place).is_some_and(|word| word & bits == bits)
    }
}

/// How many letters of a stem are looked for before the stem itself.
const STEM_SIGN: usize = 4;

/// The hash of these letters of a stem.
fn stem_hash(letters: [u8; STEM_SIGN]) -> u32 {
    let product = u64::from(u32::from_le_bytes(letters)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (product >> 32) as u32
}

/// Whether fewer letters than a sign's can end a text with the stem.
fn has_no_sign(needle: &[u8]) -> bool {
    needle.len() < 3 || needle.len() < STEM_SIGN && needle.last() == Some(&GAP)
}

/// The hashes that a text has which has one of these stems: of its letters that are rarest together. Three letters are followed by any.
fn stem_signs<'a>(needles: impl Iterator<Item = &'a [u8]>) -> Hints {
    /// The commonest first, as in English texts.
    const LETTERS: &[u8] = b" etaoinshrdlucmfwypvbgkjqxz";
    let rarity = |letter: &u8| LETTERS.iter().position(|common| common == letter).unwrap_or(LETTERS.len());
    let hashes = needles.flat_map(|needle| {
        let rarest = needle.windows(STEM_SIGN).max_by_key(|four| four.iter().map(rarity).sum::<usize>());
        let known = rarest.and_then(<[u8]>::first_chunk).map(|letters| stem_hash(*letters));
        let short = match *needle {
            [a, b, c] => Some((0..=u8::MAX).map(move |next| stem_hash([a, b, c, next]))),
            _ => None,
        };
        known.into_iter().chain(short.into_iter().flatten())
    });
    Hints::of(hashes)
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    form: u16,
}

const FREE: u16 = u16::MAX;

impl Table {
    fn new(forms: &[Form], lists: &Lists) -> Option<Self> {
        let words = lists.whole_words();
        let count: usize = words.values().map(Vec::len).sum();
        let mut slots = vec![Slot { hash: 0, form: FREE }; count.saturating_mul(4).next_power_of_two().max(16)];
        let mask = slots.len().wrapping_sub(1);
        for index in words.into_values().flatten() {
            let hash = forms.get(usize::from(index))?.word.hash;
            let mut at = hash as usize & mask;
            while slots.get(at)?.form != FREE {
                at = at.wrapping_add(1) & mask;
            }
            *slots.get_mut(at)? = Slot { hash, form: index };
        }
        Some(Self { slots: slots.into() })
    }

    /// Positions of the forms with this hash.
    fn find(&self, hash: u32) -> impl Iterator<Item = u16> + '_ {
        let mask = self.slots.len().wrapping_sub(1);
        let first = hash as usize & mask;
        let slots = (0..self.slots.len()).map(move |step| self.slots.get(first.wrapping_add(step) & mask));
        let used = slots.map_while(|slot| slot.copied().filter(|slot| slot.form != FREE));
        used.filter(move |slot| slot.hash == hash).map(|slot| slot.form)
    }
}

/// Whether a word's letters stand there as often as the form asks: no fewer, and more where that makes no other word.
pub(super) fn runs_agree(wanted: &[u8], found: &[u8], strict: bool) -> bool {
    wanted.iter().zip(found).all(|(&wanted, &found)| if found == 2 && wanted == 1 { !strict } else { found >= wanted })
}

impl Words {
    pub(super) fn new(mut lists: Lists) -> Option<Self> {
        lists.write_compounds().ok()?;
        lists.know_patterns();
        let table = Table::new(&lists.forms, &lists)?;
        let forms: Box<[Form]> = std::mem::take(&mut lists.forms).into();
        let (mut needles, mut stem_forms) = (Vec::new(), Vec::new());
        let mut censorable = vec![Vec::new(); 26];
        for (index, form) in forms.iter().enumerate() {
            let index = u16::try_from(index).ok().filter(|&index| index != FREE)?;
            if form.place != Place::Whole {
                needles.push(lists::needle(form));
                stem_forms.push(index);
            }
            let is_bad = matches!(form.verdict, Verdict::Bad(Category::Profanity | Category::Hate, severity) if severity >= Severity::Moderate);
            let first = form
                .word
                .letters
                .first()
                .map_or(usize::MAX, |&letter| usize::from(letter).wrapping_sub(usize::from(b'a')));
            let written: usize = form.word.runs.iter().map(|&run| usize::from(run)).sum();
            if let Some(list) = censorable.get_mut(first)
                && is_bad
                && written >= 4
                && form.near.is_none()
            {
                list.push(index);
            }
        }
        let stems = match needles.is_empty() {
            true => None,
            false => Some(
                AhoCorasick::builder()
                    .match_kind(MatchKind::Standard)
                    .kind(Some(AhoCorasickKind::DFA))
                    .build(&needles)
                    .ok()?,
            ),
        };
        let calls = |form: &&Form| {
            form.place == Place::Whole && (matches!(form.verdict, Verdict::Bad(..)) || form.classes & TRIGGERS != 0)
        };
        let signs = Hints::of(forms.iter().filter(calls).map(|form| form.word.hash));
        let is_bad =
            |form: &u16| forms.get(usize::from(*form)).is_some_and(|form| matches!(form.verdict, Verdict::Bad(..)));
        let bad = needles.iter().zip(&stem_forms).filter(|(_, form)| is_bad(form)).map(|(needle, _)| needle.as_slice());
        let has_short_stems = bad.clone().any(has_no_sign);
        let stem_signs = stem_signs(bad);
        let patterns = Index::new(lists.patterns);
        Some(Self {
            signs,
            stem_signs,
            has_short_stems,
            forms,
            near: lists.near.into(),
            table,
            stems,
            stem_forms: stem_forms.into(),
            censorable: censorable.into(),
            patterns,
        })
    }

    /// Looks at one segment; `found` is told of what is bad in it, and where in the text, from the segment's start.
    pub(super) fn look(&self, view: &View, sentence: &mut Sentence, mut found: impl FnMut(Category, Severity, usize)) {
        if !self.has_sign(view) {
            return;
        }
        sentence.begin(view);
        let mut suspicious = false;
        for (index, &token) in view.tokens.iter().enumerate() {
            suspicious |= self.look_up(view, index, token, sentence);
        }
        suspicious |= self.scan_stems(view, sentence);
        if !suspicious {
            return;
        }
        self.patterns.run(view, sentence, |verdict, near, first, last, sentence| {
            if near.is_some_and(|near| self.has_near(view, near)) {
                return;
            }
            sentence.note(verdict, first, last);
        });
        for (token, verdict) in sentence.verdicts() {
            if let Verdict::Bad(category, severity) = verdict {
                let source = view.tokens.get(token).map_or(0, |token| token.source as usize);
                found(category, severity, source);
            }
        }
    }

    /// Whether anything in a segment may call for a look at it: a word's or a stem's hash is known. Nearly all segments of clean texts have none, and
    /// this is all that they cost.
    fn has_sign(&self, view: &View) -> bool {
        let is_sign = |token: &Token| {
            token.is(Token::CENSORED) || self.signs.may_have(token.hash) && self.table.find(token.hash).next().is_some()
        };
        let begins_stem =
            |letters: &[u8]| letters.first_chunk().is_some_and(|letters| self.stem_signs.may_have(stem_hash(*letters)));
        view.tokens.iter().any(is_sign)
            || (self.has_short_stems || view.letters.windows(STEM_SIGN).any(begins_stem))
                && self.stems.as_ref().is_some_and(|stems| stems.is_match(&view.letters))
    }

    /// What is known of one word. Whether it calls for a second look at its sentence.
    fn look_up(&self, view: &View, index: usize, token: Token, sentence: &mut Sentence) -> bool {
        let (word, runs) = (view.word(token), view.word_runs(token));
        let mut suspicious = false;
        for form in self.table.find(token.hash).filter_map(|form| self.forms.get(usize::from(form))) {
            if *form.word.letters != *word || !runs_agree(&form.word.runs, runs, form.strict) {
                continue;
            }
            match form.verdict {
                // Nothing is taken for a class or an exception by another reading.
                Verdict::None if !token.is(Token::ASIDE) => {
                    sentence.class(index, form.classes);
                    suspicious |= form.classes & TRIGGERS != 0;
                }
                Verdict::Allow if !token.is(Token::ASIDE) => sentence.note(Verdict::Allow, index, index),
                Verdict::Bad(..) if self.is_meant(view, index, token, form) => {
                    sentence.note(form.verdict, index, index);
                    suspicious = true;
                }
                // Letters written apart spell one word of the sentence.
                Verdict::None if token.is(Token::APART) => {
                    let letters = word.len().saturating_add(runs.iter().filter(|&&run| run > 1).count());
                    if let Some(first) =
                        view.tokens.iter().take(view.in_order).position(|other| other.source == token.source)
                    {
                        sentence.class_spelled(first, letters, form.classes);
                        suspicious |= form.classes & TRIGGERS != 0;
                    }
                }
                _ => {}
            }
        }
        if token.is(Token::CENSORED) {
            suspicious |= self.look_up_hidden(index, word, sentence);
        }
        suspicious
    }

    /// Whether a word that was found is that word: not a part of a name, not in a context that makes it another, not a disguise that is
    /// too short to be one.
    fn is_meant(&self, view: &View, index: usize, token: Token, form: &Form) -> bool {
        let written: u32 = form.word.runs.iter().map(|&run| u32::from(run)).sum();
        if token.is(Token::DISGUISED) && written <= 3 && token.is(Token::ASIDE) && !is_figure_inside(view, token) {
            return false;
        }
        if token.is(Token::APART) && written <= 3 && form.word.letters.len() < 3 {
            return false;
        }
        if form.name && is_part_of_name(view, index) {
            return false;
        }
        !form.near.is_some_and(|near| self.has_near(view, near))
    }

    fn has_near(&self, view: &View, near: u16) -> bool {
        let words = self.near.get(usize::from(near)).map(AsRef::as_ref).unwrap_or_default();
        let is_there = |wanted: &Folded| {
            view.tokens
                .iter()
                .take(view.in_order)
                .any(|&token| token.hash == wanted.hash && *view.word(token) == *wanted.letters)
        };
        words.iter().any(is_there)
    }

    /// A word with hidden letters: `f**k`, `b*tch`.
    fn look_up_hidden(&self, index: usize, word: &[u8], sentence: &mut Sentence) -> bool {
        let shown = word.iter().filter(|&&letter| letter != HIDDEN).count();
        let hidden = word.len().saturating_sub(shown);
        if word.last() == Some(&HIDDEN) && hidden < 2 {
            return false;
        }
        let first = word.first().map_or(usize::MAX, |&letter| usize::from(letter).wrapping_sub(usize::from(b'a')));
        let Some(forms) = self.censorable.get(first).filter(|_| shown >= 2 && hidden >= 1 && word.len() <= 24) else {
            return false;
        };
        let matching = forms.iter().filter_map(|&form| self.forms.get(usize::from(form))).find(|form| {
            let written: usize = form.word.runs.iter().map(|&run| usize::from(run)).sum();
            // With two letters alone, or signs at the end (which may be markup), each sign must stand for one.
            let exact = shown < 3 || word.last() == Some(&HIDDEN);
            (!exact || written == word.len()) && written.abs_diff(word.len()) <= 2 && fits(word, &form.word.letters)
        });
        match matching {
            Some(form) => {
                sentence.note(form.verdict, index, index);
                true
            }
            None => false,
        }
    }

    /// Stems within words.
    fn scan_stems(&self, view: &View, sentence: &mut Sentence) -> bool {
        let Some(stems) = &self.stems else { return false };
        let mut suspicious = false;
        let mut at = 0usize;
        for hit in stems.find_overlapping_iter(&view.letters) {
            let form =
                self.stem_forms.get(hit.pattern().as_usize()).and_then(|&form| self.forms.get(usize::from(form)));
            let Some(form) = form else { continue };
            let (start, end) = match form.place {
                Place::Front => (hit.start().saturating_add(1), hit.end()),
                Place::Back => (hit.start(), hit.end().saturating_sub(1)),
                _ => (hit.start(), hit.end()),
            };
            // Ends come in order, so the words do as well.
            while view.tokens.get(at).is_some_and(|token| token.range().end < end) {
                at = at.saturating_add(1);
            }
            let Some(token) = view.tokens.get(at).copied().filter(|token| token.range().start <= start) else {
                continue;
            };
            let runs = view.runs.get(start..end).unwrap_or_default();
            if !runs_agree(&form.word.runs, runs, form.strict) || (token.is(Token::APART) && token.len > 24) {
                continue;
            }
            match form.verdict {
                Verdict::Allow => sentence.note(Verdict::Allow, at, at),
                Verdict::Bad(..) if self.is_meant(view, at, token, form) => {
                    sentence.note(form.verdict, at, at);
                    suspicious = true;
                }
                _ => {}
            }
        }
        suspicious
    }
}

/// Whether figures stand for letters inside the word, and not only at its end (`A55` is a name of many things).
fn is_figure_inside(view: &View, token: Token) -> bool {
    // The plain reading, without what stands at the ends, is as long then.
    let plain = view.tokens.iter().take(view.in_order).find(|other| other.source == token.source);
    plain.is_some_and(|plain| plain.len == token.len)
}

/// Whether a capital stands beside this one: `Dick Miller`, `Moby Dick`.
fn is_part_of_name(view: &View, index: usize) -> bool {
    let is_name = |at: Option<usize>| {
        at.filter(|&at| at < view.in_order)
            .and_then(|at| view.tokens.get(at))
            .is_some_and(|token| token.is(Token::NAME) && token.len > 1)
    };
    is_name(Some(index)) && (is_name(index.checked_sub(1)) || is_name(index.checked_add(1)))
}

/// Whether a word with hidden letters can be this one: a sign stands for any letters. The last sign is taken back on a mismatch, and both are
/// short.
fn fits(word: &[u8], letters: &[u8]) -> bool {
    let (mut at, mut letter) = (0, 0);
    let mut last: Option<(usize, usize)> = None;
    loop {
        match (word.get(at), letters.get(letter)) {
            (Some(&HIDDEN), _) => {
                last = Some((at.saturating_add(1), letter));
                at = at.saturating_add(1);
            }
            (Some(a), Some(b)) if a == b => (at, letter) = (at.saturating_add(1), letter.saturating_add(1)),
            (None, None) => return true,
            _ => match last {
                Some((after, from)) if from < letters.len() => {
                    last = Some((after, from.saturating_add(1)));
                    (at, letter) = (after, from.saturating_add(1));
                }
                _ => return false,
            },
        }
    }
}
