//! The normalised view of a text: what its letters look like to a reader, whatever they are spelled with.
//!
//! A text is taken up in *segments* (about a sentence, never more than [`MAX_TOKENS`] words), so that what is held has a fixed size however
//! long the text is. In a segment every letter becomes one byte: case, accents, full-width forms, mathematical letters and look-alikes of
//! other scripts are folded to the Latin letter they show; what no Latin letter looks like keeps a byte of its own above 0x7F. A letter that
//! is repeated is written once, and how often it stood there is kept beside it, so that `fuuuck` is found by `fuck` and `as` is not taken
//! for `ass`.
//!
//! A word in which figures or signs stand for letters can be read in several ways (`1` for `i` or `l`). The first reading takes its place in
//! the view; the others, and what letters written apart spell (`s h i t`, `s.hit`), are appended behind the segment as words of their own,
//! marked [`Token::ASIDE`].

use super::glyphs::{Glyph, glyph};

/// The most words of one segment.
pub(super) const MAX_TOKENS: usize = 192;

/// The most words that are appended for other readings.
const MAX_ASIDES: usize = 96;

/// The longest word, folded. What is longer is taken for several: no word of any list is.
const MAX_WORD_BYTES: usize = 64;

/// The most letters written apart that are read as one word, and the fewest.
const MAX_SPELLED: usize = 24;
const LEAST_SPELLED: usize = 3;

/// What stands between two words of the view.
pub(super) const GAP: u8 = b' ';

/// A sign in place of letters that shall not be read.
pub(super) const HIDDEN: u8 = b'*';

/// A word of a segment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Token {
    /// Where it begins in the view.
    pub(super) start: u16,
    /// Its length in the view.
    pub(super) len: u8,
    /// See the constants.
    pub(super) marks: u8,
    /// Of the folded letters.
    pub(super) hash: u32,
    /// Where it begins in the text, from the segment's start.
    pub(super) source: u32,
}

impl Token {
    /// Begins with a capital and goes on in small letters.
    pub(super) const NAME: u8 = 1;
    /// Figures or signs stand for letters of it.
    pub(super) const DISGUISED: u8 = 2;
    /// Another reading of what stands in the segment already.
    pub(super) const ASIDE: u8 = 4;
    /// Was spelled letter by letter, or with separators inside.
    pub(super) const APART: u8 = 8;
    /// Stands between quotation marks.
    pub(super) const QUOTED: u8 = 16;
    /// Follows an apostrophe: the `t` of `don't`.
    pub(super) const CLITIC: u8 = 32;
    /// Has signs that hide letters ([`HIDDEN`]).
    pub(super) const CENSORED: u8 = 64;
    /// A comma, colon or dash stands before it.
    pub(super) const BREAK: u8 = 128;

    pub(super) fn is(self, mark: u8) -> bool {
        self.marks & mark != 0
    }

    pub(super) fn range(self) -> std::ops::Range<usize> {
        let start = usize::from(self.start);
        start..start.saturating_add(usize::from(self.len))
    }
}

/// One segment's view, and its words. Kept between texts for its memory.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) letters: Vec<u8>,
    /// How often each of `letters` stood there, at most 3; ones behind the last of them. Most letters stand once: what is not 1 is written when it
    /// is seen, and all are made ones again for the next segment.
    pub(super) runs: Vec<u8>,
    has_runs: bool,
    pub(super) tokens: Vec<Token>,
    /// How many of `tokens` stand in the segment itself.
    pub(super) in_order: usize,
    /// Ends in a question mark.
    pub(super) asks: bool,
    /// Has what other readings are made of: separators with no space behind them, figures and signs in words, or letters that stand alone, as many
    /// as make a word.
    has_asides: bool,
    singles: usize,
}

/// Of a word's folded letters: one multiplication for most words, so that hashing costs no step a letter.
pub(super) fn hash_of(letters: &[u8]) -> u32 {
    const SEED: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = SEED ^ letters.len() as u64;
    let (eights, rest) = letters.as_chunks::<8>();
    for eight in eights {
        hash = mixed(hash ^ u64::from_le_bytes(*eight));
    }
    let last = match (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        (Some(first), Some(last)) => u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last)),
        _ => rest.iter().fold(0, |bytes, &letter| bytes << 8 | u64::from(letter)),
    };
    let hash = mixed(hash ^ last);
    (hash ^ hash >> 32) as u32
}

/// Both halves of a product: each bit of it depends on all bits that went in.
const fn mixed(value: u64) -> u64 {
    let product = (value as u128).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (product ^ product >> 64) as u64
}

/// What an ASCII byte is to the tokenizer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    /// Stands for a letter where there are letters beside it.
    Figure,
    Space,
    /// Ends a segment when a space follows.
    Stop,
    Apostrophe,
    Quote,
    /// `-`, `_` and what else stands between words.
    Joint,
    Comma,
    Wide,
}

const fn class_of(byte: u8) -> Class {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
        b'0'..=b'9' | b'@' | b'$' | b'!' | b'|' | b'+' | b'*' | b'#' | b'^' | b'(' | b'<' => Class::Figure,
        b'.' | b'?' | b'\n' => Class::Stop,
        b'\'' | b'`' => Class::Apostrophe,
        b'"' => Class::Quote,
        b',' | b';' | b':' => Class::Comma,
        0x80.. => Class::Wide,
        b' ' | b'\t' | b'\r' => Class::Space,
        _ => Class::Joint,
    }
}

#[allow(clippy::indexing_slicing, reason = "evaluated when compiling, within the bounds that stand beside it")]
static CLASSES: [Class; 256] = {
    let mut table = [Class::Joint; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = class_of(byte as u8);
        byte += 1;
    }
    table
};

fn class(byte: u8) -> Class {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(Class::Joint)
}

/// The letters that a figure or sign stands for; 0: none. The second where it can be read in two ways.
const fn letter_of(figure: u8) -> (u8, u8) {
    match figure {
        b'0' => (b'o', b'o'),
        b'1' | b'!' | b'|' => (b'i', b'l'),
        b'3' => (b'e', b'e'),
        b'4' | b'@' => (b'a', b'a'),
        b'5' | b'$' => (b's', b's'),
        b'7' | b'+' => (b't', b't'),
        b'8' => (b'b', b'b'),
        b'9' | b'6' => (b'g', b'g'),
        b'(' | b'<' => (b'c', b'c'),
        b'*' | b'#' | b'^' => (HIDDEN, HIDDEN),
        _ => (0, 0),
    }
}

/// Which reading of figures and signs a word is folded by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    First,
    Second,
    /// `@` and `$` hide a letter like `*` does: `fu@k`.
    Hiding,
}

impl View {
    fn clear(&mut self) {
        self.letters.clear();
        if std::mem::take(&mut self.has_runs) {
            self.runs.fill(1);
        }
        self.tokens.clear();
        self.in_order = 0;
        self.asks = false;
        self.has_asides = false;
        self.singles = 0;
        self.letters.push(GAP);
    }

    /// Takes the letters from `start` on back.
    fn forget(&mut self, start: usize) {
        self.letters.truncate(start);
        if self.has_runs {
            self.runs.get_mut(start..).unwrap_or_default().fill(1);
        }
    }

    /// The last letter stood there once more.
    fn repeat(&mut self) {
        let len = self.letters.len();
        if self.runs.len() < len {
            self.runs.resize(len.next_power_of_two(), 1);
        }
        if let Some(run) = len.checked_sub(1).and_then(|last| self.runs.get_mut(last)) {
            *run = run.saturating_add(1).min(3);
            self.has_runs = true;
        }
    }

    pub(super) fn word(&self, token: Token) -> &[u8] {
        self.letters.get(token.range()).unwrap_or_default()
    }

    pub(super) fn word_runs(&self, token: Token) -> &[u8] {
        self.runs.get(token.range()).unwrap_or_default()
    }

    /// Folds the segment of `text` that begins at `at`; returns where the next begins.
    pub(super) fn take(&mut self, text: &str, at: usize) -> usize {
        self.clear();
        let mut folder =
            Folder { view: self, bytes: text.as_bytes(), text, base: at, at, marks: 0, quoted: false, open: None };
        folder.run();
        let end = folder.at;
        self.in_order = self.tokens.len();
        if self.has_asides || self.singles >= LEAST_SPELLED {
            self.append_asides(text, at);
        }
        end
    }

    /// The word that [`Folder::run`] has begun is complete.
    fn close(&mut self, open: &Open, marks: u8) {
        let len = self.letters.len().saturating_sub(open.start);
        if len == 0 {
            return;
        }
        self.singles = self.singles.saturating_add(usize::from(len == 1));
        self.tokens.push(Token {
            start: u16::try_from(open.start).unwrap_or(u16::MAX),
            len: u8::try_from(len).unwrap_or(u8::MAX),
            marks: marks | open.marks,
            hash: hash_of(self.letters.get(open.start..).unwrap_or_default()),
            source: open.source,
        });
        self.letters.push(GAP);
        if self.runs.len() < self.letters.len() {
            self.runs.resize(self.letters.len().next_power_of_two(), 1);
        }
    }

    /// Folds the letters of `written` by one reading to a word of its own, or to none.
    fn fold_word(&mut self, written: &str, reading: Reading, source: u32, marks: u8) {
        let open = Open { start: self.letters.len(), marks: 0, source };
        let mut last = 0;
        let mut hidden = 0u8;
        for c in written.chars() {
            let letter = match (u8::try_from(c).map(|byte| (byte, class(byte))), reading) {
                (Ok((byte, Class::Letter)), _) => byte.to_ascii_lowercase(),
                (Ok((b'@' | b'$', _)), Reading::Hiding) => HIDDEN,
                (Ok((byte, Class::Figure)), Reading::Second) => letter_of(byte).1,
                (Ok((byte, Class::Figure)), _) => letter_of(byte).0,
                (Ok((0..0x80, _)), _) => 0,
                _ => match glyph(c) {
                    Glyph::Letter(letter) => letter,
                    _ => 0,
                },
            };
            if letter == 0 {
                continue;
            }
            if letter == HIDDEN {
                hidden = Token::CENSORED;
            }
            // Signs that hide letters are counted, not run together: each may stand for one.
            if letter == last && letter != HIDDEN {
                self.repeat();
                continue;
            }
            if self.letters.len().saturating_sub(open.start) >= MAX_WORD_BYTES {
                break;
            }
            last = letter;
            self.letters.push(letter);
        }
        self.close(&open, marks | hidden);
    }

    /// Other readings of disguised words, and words whose letters were written apart.
    fn append_asides(&mut self, text: &str, base: usize) {
        let mut spelled: arrayvec::ArrayVec<u8, MAX_SPELLED> = arrayvec::ArrayVec::new();
        let mut first = 0usize;
        let limit = self.in_order.saturating_add(MAX_ASIDES);
        for index in 0..=self.in_order {
            if self.tokens.len() >= limit {
                return;
            }
            let token = self.tokens.get(index).copied().filter(|_| index < self.in_order);
            let single = token.filter(|token| token.len == 1 && !token.is(Token::CLITIC));
            if let Some(letter) = single.and_then(|token| self.word(token).first().copied())
                && !spelled.is_full()
            {
                if spelled.is_empty() {
                    first = index;
                }
                spelled.push(letter);
            } else {
                self.append_spelled(&spelled, first);
                // `a c a n c e r`: an article, and a word.
                if let [b'a' | b'i', rest @ ..] = spelled.as_slice() {
                    self.append_spelled(rest, first.saturating_add(1));
                }
                spelled.clear();
            }
            let Some(token) = token else { return };
            if token.is(Token::DISGUISED) {
                let start = base.saturating_add(token.source as usize);
                let written = written_word(text, start);
                self.fold_word(written, Reading::First, token.source, Token::ASIDE | Token::DISGUISED);
                if written.contains(['1', '!', '|']) {
                    self.fold_word(written, Reading::Second, token.source, Token::ASIDE | Token::DISGUISED);
                }
                if written.contains(['@', '$']) {
                    self.fold_word(written, Reading::Hiding, token.source, Token::ASIDE | Token::DISGUISED);
                }
            }
            self.append_joined(text, base, index);
        }
    }

    /// Letters that were written apart, as one word.
    fn append_spelled(&mut self, spelled: &[u8], first: usize) {
        if spelled.len() < LEAST_SPELLED {
            return;
        }
        let source = self.tokens.get(first).map_or(0, |token| token.source);
        let open = Open { start: self.letters.len(), marks: 0, source };
        for &letter in spelled {
            let doubled = self.letters.len() > open.start && self.letters.last() == Some(&letter);
            if doubled {
                self.repeat();
                continue;
            }
            self.letters.push(letter);
        }
        self.close(&open, Token::ASIDE | Token::APART);
    }

    /// A word that has separators inside (`s.hit`, `god-dam`), as one: two to four pieces without a space between them.
    fn append_joined(&mut self, text: &str, base: usize, index: usize) {
        let piece = |at: usize| self.tokens.get(at).copied().filter(|_| at < self.in_order);
        let Some(first) = piece(index) else { return };
        let bytes = text.as_bytes();
        let starts_inside = |token: Token| {
            let start = base.saturating_add(token.source as usize);
            start.checked_sub(1).and_then(|at| bytes.get(at)).is_some_and(|&byte| is_joint(byte))
                && start.checked_sub(2).and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_alphanumeric)
        };
        if starts_inside(first) {
            return;
        }
        let mut last = index;
        while let Some(next) = piece(last.saturating_add(1)).filter(|&next| starts_inside(next)) {
            // The pieces stand next to each other: nothing but one separator between them.
            let before = piece(last).map_or(0, |token| token.source as usize).saturating_add(base);
            let start = (next.source as usize).saturating_add(base);
            if bytes.get(before..start).is_none_or(|between| between.contains(&b' ')) || last.saturating_sub(index) >= 3
            {
                return;
            }
            last = last.saturating_add(1);
        }
        let total: usize = (index..=last).filter_map(piece).map(|token| usize::from(token.len)).sum();
        if last == index
            || total > MAX_SPELLED
            || (index..=last).all(|at| piece(at).is_some_and(|token| token.len == 1))
        {
            return;
        }
        let start = base.saturating_add(first.source as usize);
        let end = piece(last).map_or(start, |token| base.saturating_add(token.source as usize));
        let end = end.saturating_add(written_word(text, end).len());
        if let Some(written) = text.get(start..end) {
            self.fold_word(written, Reading::First, first.source, Token::ASIDE | Token::APART);
        }
    }
}

/// May it stand inside a word, to take it apart?
const fn is_joint(byte: u8) -> bool {
    matches!(byte, b'.' | b'-' | b'_' | b'*' | b'~' | b'/' | b',')
}

/// What stands at `start` up to the next thing that can be part of no word.
fn written_word(text: &str, start: usize) -> &str {
    let rest = text.get(start..).unwrap_or_default();
    let is_part = |c: char| match u8::try_from(u32::from(c)) {
        Ok(byte @ 0..0x80) => matches!(class(byte), Class::Letter | Class::Figure) || byte == b')',
        _ => !matches!(glyph(c), Glyph::Gap),
    };
    let mut len = rest.char_indices().find(|&(_, c)| !is_part(c)).map_or(rest.len(), |(at, _)| at).min(MAX_WORD_BYTES);
    while !rest.is_char_boundary(len) {
        len = len.saturating_sub(1);
    }
    // Signs at its end are punctuation: `w4nker!`. Not those that stand for a letter: `a$$`, `f**`.
    rest.get(..len).unwrap_or_default().trim_end_matches(['!', '(', '<', '|', ')'])
}

struct Open {
    start: usize,
    marks: u8,
    source: u32,
}

struct Folder<'a> {
    view: &'a mut View,
    bytes: &'a [u8],
    text: &'a str,
    base: usize,
    at: usize,
    /// For the next word.
    marks: u8,
    quoted: bool,
    open: Option<Open>,
}

impl Folder<'_> {
    fn run(&mut self) {
        while let Some(&byte) = self.bytes.get(self.at) {
            if self.open.is_none() && self.is_full() {
                return;
            }
            match class(byte) {
                Class::Letter => self.letters(),
                Class::Space => {
                    self.end_word();
                    self.at = self.at.saturating_add(1);
                }
                Class::Figure => self.figure(byte),
                Class::Apostrophe => {
                    let after_letter = self.open.is_some();
                    self.end_word();
                    self.marks |= if after_letter { Token::CLITIC } else { 0 };
                    self.at = self.at.saturating_add(1);
                }
                Class::Stop => {
                    self.end_word();
                    self.joint(byte);
                    // One line end is where a line was full; an empty line ends what was said.
                    let next = self.bytes.get(self.at);
                    let ends =
                        if byte == b'\n' { next == Some(&b'\n') } else { next.is_none_or(u8::is_ascii_whitespace) };
                    self.view.asks = byte == b'?';
                    if ends && !self.view.tokens.is_empty() {
                        return;
                    }
                }
                Class::Quote => {
                    self.end_word();
                    self.quoted = !self.quoted;
                    self.at = self.at.saturating_add(1);
                }
                Class::Comma | Class::Joint => {
                    self.end_word();
                    self.marks |= if byte == b'_' { 0 } else { Token::BREAK };
                    self.joint(byte);
                }
                Class::Wide => self.wide(),
            }
        }
        self.end_word();
    }

    /// Takes what stands between words. Where another follows at once, the two may be one.
    fn joint(&mut self, byte: u8) {
        let before = self.at.checked_sub(1).and_then(|before| self.bytes.get(before));
        self.at = self.at.saturating_add(1);
        self.view.has_asides |= is_joint(byte)
            && before.is_some_and(u8::is_ascii_alphanumeric)
            && self
                .bytes
                .get(self.at)
                .is_some_and(|&next| matches!(class(next), Class::Letter | Class::Figure | Class::Wide));
    }

    fn is_full(&self) -> bool {
        self.view.tokens.len() >= MAX_TOKENS
    }

    fn begin(&mut self) -> Open {
        let marks = std::mem::take(&mut self.marks) | if self.quoted { Token::QUOTED } else { 0 };
        let source = u32::try_from(self.at.saturating_sub(self.base)).unwrap_or(u32::MAX);
        Open { start: self.view.letters.len(), marks, source }
    }

    fn end_word(&mut self) {
        if let Some(open) = self.open.take() {
            self.view.close(&open, 0);
        }
    }

    fn push(view: &mut View, open: &Open, letter: u8) {
        if view.letters.len() > open.start && view.letters.last() == Some(&letter) {
            view.repeat();
            return;
        }
        view.letters.push(letter);
    }

    /// A run of ASCII letters.
    fn letters(&mut self) {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                let mut open = self.begin();
                let small_next = self.bytes.get(self.at.saturating_add(1)).is_some_and(u8::is_ascii_lowercase);
                if self.bytes.get(self.at).is_some_and(u8::is_ascii_uppercase) && small_next {
                    open.marks |= Token::NAME;
                }
                open
            }
        };
        loop {
            self.copy_run(&open);
            let Some(&byte) = self.bytes.get(self.at).filter(|byte| byte.is_ascii_alphabetic()) else { break };
            Self::push(self.view, &open, byte.to_ascii_lowercase());
            self.at = self.at.saturating_add(1);
            if self.view.letters.len().saturating_sub(open.start) >= MAX_WORD_BYTES {
                self.view.close(&open, 0);
                open = self.begin();
                if self.is_full() {
                    break;
                }
            }
        }
        self.open = Some(open);
    }

    /// Takes letters up to one that is doubled, or to the word's longest but one: most words, in one piece.
    fn copy_run(&mut self, open: &Open) {
        let letters = &mut self.view.letters;
        let known = letters.len().saturating_sub(open.start);
        let mut last = if known > 0 { letters.last().copied().unwrap_or(0) } else { 0 };
        let room = MAX_WORD_BYTES.saturating_sub(known).saturating_sub(1);
        let mut run = [0; MAX_WORD_BYTES];
        let mut count = 0usize;
        for (place, &byte) in run.iter_mut().take(room).zip(self.bytes.get(self.at..).unwrap_or_default()) {
            let small = byte | 0x20;
            if !small.is_ascii_lowercase() || small == last {
                break;
            }
            *place = small;
            last = small;
            count = count.saturating_add(1);
        }
        letters.extend_from_slice(run.get(..count).unwrap_or_default());
        self.at = self.at.saturating_add(count);
    }

    /// A figure or sign: part of a word where a letter stands beside it, else nothing.
    fn figure(&mut self, byte: u8) {
        let next_is_letter =
            |at: usize| self.bytes.get(at).is_some_and(|&next| next.is_ascii_alphabetic() || next >= 0x80);
        let after = self.at.saturating_add(1);
        let joins = self.open.is_some() || next_is_letter(after) || self.figures_then_letter();
        let ends_word = matches!(byte, b'!' | b'(' | b'<' | b'|')
            && !self
                .bytes
                .get(after)
                .is_some_and(|&next| matches!(class(next), Class::Letter | Class::Figure | Class::Wide));
        if !joins || ends_word {
            self.end_word();
            self.at = after;
            return;
        }
        self.view.has_asides = true;
        self.disguised();
    }

    /// Whether figures and signs, a few at most, lead to a letter: `$$hit`.
    fn figures_then_letter(&self) -> bool {
        let ahead = self.bytes.get(self.at..).unwrap_or_default().iter().take(4);
        ahead.copied().find(|&byte| class(byte) != Class::Figure).is_some_and(|byte| byte.is_ascii_alphabetic())
    }

    /// A word with figures or signs in it. Its plain reading, without those at its ends, takes the place in the view.
    fn disguised(&mut self) {
        let (start, source, marks) = match self.open.take() {
            Some(open) => {
                self.view.forget(open.start);
                (self.base.saturating_add(open.source as usize), open.source, open.marks)
            }
            None => {
                let open = self.begin();
                (self.at, open.source, open.marks)
            }
        };
        let written = written_word(self.text, start);
        let is_figure = |c: char| c.is_ascii() && !c.is_ascii_alphabetic();
        let plain = written.trim_matches(is_figure);
        if !self.is_address(written, start) {
            self.view.fold_word(plain, Reading::First, source, marks | Token::DISGUISED);
        }
        self.at = start.saturating_add(written.len()).max(self.at.saturating_add(1));
        while !self.text.is_char_boundary(self.at) {
            self.at = self.at.saturating_add(1);
        }
    }

    /// Whether it is an e-mail address up to its domain's first dot: what stands for letters elsewhere are figures and signs there.
    fn is_address(&self, written: &str, start: usize) -> bool {
        let behind = start.saturating_add(written.len());
        let has_domain = self.bytes.get(behind) == Some(&b'.')
            && self.bytes.get(behind.saturating_add(1)).is_some_and(u8::is_ascii_alphanumeric);
        has_domain && written.split_once('@').is_some_and(|(name, domain)| !name.is_empty() && domain.len() > 1)
    }

    /// A character beyond ASCII.
    fn wide(&mut self) {
        let Some(c) = self.text.get(self.at..).and_then(|rest| rest.chars().next()) else {
            self.at = self.at.saturating_add(1);
            return;
        };
        let next = self.at.saturating_add(c.len_utf8());
        match glyph(c) {
            Glyph::Letter(letter) => {
                let open = match self.open.take() {
                    Some(open) => open,
                    None => self.begin(),
                };
                Self::push(self.view, &open, letter);
                if self.view.letters.len().saturating_sub(open.start) >= MAX_WORD_BYTES {
                    self.view.close(&open, 0);
                } else {
                    self.open = Some(open);
                }
            }
            Glyph::Nothing => {}
            Glyph::Apostrophe => {
                let after_letter = self.open.is_some();
                self.end_word();
                self.marks |= if after_letter { Token::CLITIC } else { 0 };
            }
            Glyph::Quote => {
                self.end_word();
                self.quoted = c == '\u{201C}';
            }
            Glyph::Gap => self.end_word(),
        }
        self.at = next;
    }
}
