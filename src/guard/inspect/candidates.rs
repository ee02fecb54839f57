//! The one pass over every message: has it any sign without which no rule finds anything?
//!
//! The strings of a message are looked at together, in lower case, as they stand between the rest of its JSON. While they are copied, bytes are looked for
//! that people's text rarely has (`<`, `;`, `|`, `$`, `%`, `=`, …). Then words that an attack needs where it has none of those are searched for with the
//! crate `aho-corasick`, whose search for so few patterns keeps to the processor's wide registers; and each one that is found is asked whether it stands as an
//! attack would have it, so that *and*, *order* or an apostrophe in a sentence sends no call on to the second look. Quotes and brackets are looked at
//! where what stands beside them is not what JSON has there.
//!
//! Whatever a rule finds must have a sign here: a test asks this of the rules' own examples and of texts made at random from their pieces.

use super::rules::{Finding, Looker, RuleId};
use super::text::{byte, is_space, is_word, part, run, skip_space, word_before};
use aho_corasick::packed::{Config, MatchKind, Searcher};
use aho_corasick::{AhoCorasick, MatchKind as Kind};

/// So many words that do not stand as an attack's are asked about, and one more in so many bytes; a message with more is looked at.
const MOST_ASKED: usize = 256;
const BYTES_ASKED: usize = 16;

/// How a word must stand to be a sign.
#[derive(Clone, Copy, Debug)]
enum Stands {
    /// Any way.
    Anywhere,
    /// As a word of its own.
    Alone,
    /// With the name of a database's own catalogue behind it.
    Catalogue,
    /// With `.`, `[` or a comment behind it.
    Reached,
    /// Between things that are no prose: a number, a quote, a call, a comparison.
    Joining,
    /// With `by`, `when`, a number or a call behind it.
    Leading,
    /// With `type` or `__` behind it.
    Prototype,
}

/// Words that an attack needs which has none of the rare bytes. Three letters at least: the fewest decide how fast the search is.
const SIGNS: &[(&str, Stands)] = &[
    ("select", Stands::Alone),
    ("having", Stands::Leading),
    ("order", Stands::Leading),
    ("group", Stands::Leading),
    ("case", Stands::Leading),
    ("exec", Stands::Alone),
    ("waitfor", Stands::Anywhere),
    ("declare", Stands::Anywhere),
    ("analyse", Stands::Anywhere),
    ("xp_c", Stands::Anywhere),
    ("xp_d", Stands::Anywhere),
    ("xp_r", Stands::Anywhere),
    ("sp_e", Stands::Anywhere),
    ("sp_o", Stands::Anywhere),
    ("sp_p", Stands::Anywhere),
    ("outfile", Stands::Anywhere),
    ("dumpfile", Stands::Anywhere),
    ("from", Stands::Catalogue),
    (" or ", Stands::Joining),
    (" or(", Stands::Joining),
    (" and", Stands::Joining),
    (" xor", Stands::Joining),
    ("document", Stands::Reached),
    ("window", Stands::Reached),
    ("location", Stands::Reached),
    ("constructor", Stands::Reached),
    ("script:", Stands::Anywhere),
    ("data:", Stands::Anywhere),
    ("moz-bind", Stands::Anywhere),
    ("mhtml:", Stands::Anywhere),
    ("proto", Stands::Prototype),
    ("etc/", Stands::Anywhere),
    ("proc/", Stands::Anywhere),
    ("boot.ini", Stands::Anywhere),
    ("win.ini", Stands::Anywhere),
    ("system32", Stands::Anywhere),
    ("inetpub", Stands::Anywhere),
    ("etcpasswd", Stands::Anywhere),
    (".ssh/", Stands::Anywhere),
    (".aws/", Stands::Anywhere),
    ("web-inf", Stands::Anywhere),
    (".htpas", Stands::Anywhere),
    (".bash_", Stands::Anywhere),
    ("ster.key", Stands::Anywhere),
    ("bin/", Stands::Anywhere),
    ("/dev/", Stands::Anywhere),
    (" -c ", Stands::Anywhere),
    (" -e ", Stands::Anywhere),
    ("_process", Stands::Anywhere),
    ("va.lang", Stands::Anywhere),
    ("invoke-", Stands::Anywhere),
    ("encodedc", Stands::Anywhere),
    ("errorlev", Stands::Anywhere),
    ("exist", Stands::Alone),
    ("defined", Stands::Alone),
    ("set-coo", Stands::Anywhere),
    ("content-l", Stands::Anywhere),
    ("transfer-", Stands::Anywhere),
    ("http/1", Stands::Anywhere),
];

/// The search for the words: the fast one where the processor has what it needs.
#[derive(Debug)]
enum Words {
    Packed(Searcher),
    Plain(Box<AhoCorasick>),
    /// Neither could be made: everything is looked at.
    None,
}

/// The signs, ready.
#[derive(Debug)]
pub(super) struct Candidates {
    words: Words,
    custom: Option<AhoCorasick>,
}

impl Candidates {
    pub(super) fn new(patterns: &[String]) -> Self {
        let words = SIGNS.iter().map(|(word, _)| word);
        let packed = Config::new().match_kind(MatchKind::LeftmostFirst).builder().extend(words.clone()).build();
        let plain = || AhoCorasick::builder().match_kind(Kind::LeftmostFirst).build(words);
        let words = match packed {
            Some(packed) => Words::Packed(packed),
            None => plain().map_or(Words::None, |plain| Words::Plain(Box::new(plain))),
        };
        let custom = AhoCorasick::builder().match_kind(Kind::LeftmostFirst).build(patterns).ok();
        Self { words, custom: custom.filter(|_| !patterns.is_empty()) }
    }

    /// Is there any sign? `lower` is memory for the copy.
    pub(super) fn any(&self, bytes: &[u8], lower: &mut Vec<u8>) -> bool {
        lower.clear();
        lower.extend_from_slice(bytes);
        lower.make_ascii_lowercase();
        let text = lower.as_slice();
        has_sign(text)
            || has_padding(text)
            || self.has_word(text)
            || self.custom.as_ref().is_some_and(|custom| custom.is_match(text))
    }

    fn has_word(&self, text: &[u8]) -> bool {
        let mut at = 0;
        for _ in 0..MOST_ASKED.saturating_add(text.len() / BYTES_ASKED) {
            let span = aho_corasick::Span { start: at, end: text.len() };
            let found = match &self.words {
                Words::Packed(searcher) => searcher.find_in(text, span),
                Words::Plain(searcher) => searcher.find(aho_corasick::Input::new(text).span(span)),
                Words::None => return true,
            };
            let Some(found) = found else { return false };
            let stands = SIGNS.get(found.pattern().as_usize()).map_or(Stands::Anywhere, |(_, stands)| *stands);
            if is_sign(text, found.start(), found.end(), stands) {
                return true;
            }
            at = found.start().saturating_add(1).max(found.end().saturating_sub(1));
        }
        true
    }

    /// A pattern of the policy.
    pub(super) fn custom(&self, look: &Looker<'_>) -> Option<Finding> {
        let found = self.custom.as_ref()?.find(look.text)?;
        look.found(RuleId::Custom, found.start())
    }
}

/// Bytes that JSON does not have between its strings and people's text rarely has in them.
const fn is_rare(byte: u8) -> bool {
    // `;` to `>`, `$` to `&`, `\\` and `^` and the backtick, `|`, line ends of old, other control characters, and lookalikes.
    matches!(byte, b';'..=b'>' | b'$'..=b'&' | b'\\' | b'^' | b'`' | b'|' | b'\r' | 0..9 | 0xC2 | 0xE0..)
}

/// A sign whatever stands beside it.
const RARE: u8 = 1;
/// A sign by what stands beside it.
const ASKED: u8 = 2;

/// What each byte is.
static SIGNS_OF_BYTES: [u8; 256] = {
    let mut table = [0; 256];
    let mut rest: &mut [u8] = &mut table;
    let mut byte = 0u8;
    while let [place, tail @ ..] = rest {
        *place = if is_rare(byte) {
            RARE
        } else if matches!(byte, b'\'' | b'"' | b'(' | b')' | b'{' | b'[' | b'?' | b'/' | b'.' | b'-' | b'x') {
            ASKED
        } else {
            0
        };
        rest = tail;
        byte = byte.wrapping_add(1);
    }
    table
};

/// Rare bytes; and quotes, brackets, slashes, dots and dashes with something beside them that neither JSON nor text has there. Four bytes at a time:
/// most have neither.
fn has_sign(text: &[u8]) -> bool {
    let sign_of = |byte: &u8| SIGNS_OF_BYTES.get(usize::from(*byte)).copied().unwrap_or(RARE);
    text.chunks(4).enumerate().any(|(number, four)| {
        let signs = match four {
            [a, b, c, d] => sign_of(a) | sign_of(b) | sign_of(c) | sign_of(d),
            few => few.iter().fold(0, |signs, byte| signs | sign_of(byte)),
        };
        let is_sign = |(at, byte): (usize, &u8)| {
            sign_of(byte) == ASKED && is_sign_at(text, number.saturating_mul(4).saturating_add(at), *byte)
        };
        signs != 0 && (signs & RARE != 0 || four.iter().enumerate().any(is_sign))
    })
}

fn is_sign_at(text: &[u8], at: usize, sign: u8) -> bool {
    let (before, after) = (byte(text, at.wrapping_sub(1)), byte(text, at.saturating_add(1)));
    match sign {
        // Most are those of JSON: one that ends a string, or begins one that begins as no query goes on.
        b'"' if matches!(after, b',' | b':' | b'}' | b']') => false,
        b'"' if matches!(before, b':' | b',' | b'{' | b'[') && is_word(after) => {
            super::sql::begins(text, at.saturating_add(1))
        }
        b'\'' | b'"' => is_quote_sign(text, at),
        b'(' => is_call(text, at),
        b')' => is_joined(text, at),
        b'{' => after.is_ascii_alphanumeric() || matches!(after, b',' | b'/' | b'{' | b'('),
        b'[' => is_word(before) || matches!(before, b'/' | b'.' | b')' | b']' | b'\'') || matches!(after, b'!' | b'^'),
        b'?' => matches!(after, b'?' | b'/' | b'.' | b'\\') || before == b'/',
        b'/' => after == b'.' || before == b'.' || after == b'/' && byte(text, at.saturating_add(2)) == b'/',
        b'-' => after == b'-' && cuts(text, at, at.saturating_add(2)),
        // `..` goes on to something; an ellipsis does not.
        b'.' if after == b'.' && before != b'.' => {
            let end = run(part(text, 0, at.saturating_add(64)), at, |next| next == b'.');
            let next = byte(text, end);
            end.saturating_sub(at) >= 64
                || !matches!(next, b' ' | b'"') && (is_word(next) || next == b'/' || end == at.saturating_add(2))
        }
        // Bytes as hexadecimal numbers: `0x2e`, `0x5c`.
        b'x' => before == b'0' && matches!(after, b'2' | b'5'),
        _ => false,
    }
}

/// Does the quote at `at` stand as one that ends a string of SQL or of a page, or that splits a word?
fn is_quote_sign(text: &[u8], at: usize) -> bool {
    let next_at = run(part(text, 0, at.saturating_add(16)), at.saturating_add(1), is_space);
    let next = byte(text, next_at);
    let is_single = byte(text, at) == b'\'';
    if !is_single {
        // A string that begins stands behind a colon, a comma or a bracket.
        let before = part(text, 0, at).iter().rev().take(4).find(|&&next| !is_space(next)).copied().unwrap_or(b':');
        if matches!(before, b':' | b',' | b'[' | b'{') {
            return is_word(next) && super::sql::begins(text, next_at);
        }
    }
    match next {
        b'=' | b'<' | b'>' | b'|' | b'&' | b'^' | b'*' | b'+' | b'-' | b'/' | b'%' | b';' | b'#' | b'~' | b'!'
        | b'(' => true,
        b')' => true,
        b'\'' => is_single && next_at == at.saturating_add(1),
        b'"' => !is_single && next_at == at.saturating_add(1) && is_word(byte(text, at.wrapping_sub(1))),
        _ if is_word(next) => {
            let end = run(text, next_at, is_word);
            let before = byte(text, at.wrapping_sub(1));
            if super::sql::is_operator(part(text, next_at, end)) {
                return true;
            }
            // A word that is split: but for the endings of words that people write.
            let splits = is_single
                && next_at == at.saturating_add(1)
                && (before.is_ascii_alphanumeric() || matches!(before, b'/' | b'_'));
            splits && !matches!(part(text, next_at, end), b"s" | b"t" | b"re" | b"ve" | b"ll" | b"d" | b"m")
        }
        _ => false,
    }
}

/// A name longer than any, as at the end of a path that is padded.
fn has_padding(text: &[u8]) -> bool {
    text.len() > 256
        && memchr::memchr_iter(b'/', text).any(|at| {
            let next = byte(text, at.saturating_add(1));
            part(text, at.saturating_add(1), at.saturating_add(17)).iter().all(|&other| other == next)
        })
}

fn is_sign(text: &[u8], start: usize, end: usize, stands: Stands) -> bool {
    // What stands beside a word is looked at so far and no farther.
    let text = part(text, 0, end.saturating_add(96));
    let next_at = skip_space(text, end);
    let next = byte(text, next_at);
    let is_word_end = !is_word(byte(text, end));
    match stands {
        Stands::Anywhere => true,
        Stands::Alone => {
            is_word_end && !byte(text, start.wrapping_sub(1)).is_ascii_alphabetic()
                || byte(text, end) == b'u' && part(text, end, end.saturating_add(3)) == b"ute"
        }
        Stands::Catalogue => {
            super::sql::is_catalogue(part(text, next_at, run(text, next_at, |next| is_word(next) || next == b'.')))
        }
        Stands::Reached => {
            matches!(next, b'.' | b'[' | b'/' | b'(' | b'"') && byte(text, end) != b'"'
                || byte(text, end) == b'.'
                || is_word(byte(text, end)) && byte(text, start) == b'.'
        }
        Stands::Leading => is_word_end && leads(text, next_at),
        Stands::Joining => joins(text, start, end),
        Stands::Prototype => matches!(byte(text, end), b't' | b'_'),
    }
}

/// Is what follows a clause that goes on as in SQL: `by`, `when`, a number, a call?
fn leads(text: &[u8], at: usize) -> bool {
    let end = run(text, at, is_word);
    let word = part(text, at, end);
    let behind = byte(text, skip_space(text, end));
    matches!(word, b"by" | b"when" | b"select" | b"all" | b"values" | b"distinct")
        || byte(text, at).is_ascii_digit()
        || matches!(byte(text, at), b'(' | b'@' | b'\'' | b'/' | b'-' | b'#' | b'*' | b'!')
        || behind == b'('
}

/// Does a word that joins conditions stand between things that are no prose?
fn joins(text: &[u8], start: usize, end: usize) -> bool {
    if is_word(byte(text, end)) {
        return false;
    }
    let next_at = skip_space(text, end);
    let next = byte(text, next_at);
    let before = part(text, 0, start).iter().rev().take(16).find(|&&next| !is_space(next)).copied().unwrap_or(0);
    let opens = matches!(before, b'"' | 0);
    if before.is_ascii_digit() && next.is_ascii_digit()
        || opens
        || matches!(before, b'\'' | b')')
        || matches!(next, b'\'' | b'"' | b'(' | b'@' | b'!' | b'~' | b'-' | b'+')
    {
        return true;
    }
    let word_end = run(text, next_at, is_word);
    let behind_at = skip_space(text, word_end);
    let behind_end = run(text, behind_at, is_word);
    let behind = part(text, behind_at, behind_end);
    let follows = byte(text, behind_at);
    matches!(follows, b'(' | b'!')
        || super::sql::is_operator(behind) && (next.is_ascii_digit() || before.is_ascii_digit())
        || word_before(text, start.saturating_add(1)).is_empty() && opens
}

/// Does a comment that begins at `start` stand behind a quote, a number or a parenthesis, or at the end?
fn cuts(text: &[u8], start: usize, end: usize) -> bool {
    let before = part(text, 0, start).iter().rev().take(8).find(|&&next| !is_space(next)).copied().unwrap_or(0);
    let after = byte(text, run(text, end, |next| matches!(next, b'-' | b' ')));
    matches!(before, b'\'' | b'"' | b')' | b'0'..=b'9' | b'*') || matches!(after, 0 | b'"' | b'\n')
}

/// Functions of pages and interpreters, sorted, by the end of their names.
const CALLED: &[&[u8]] = &[
    b"__import__",
    b"alert",
    b"atob",
    b"confirm",
    b"constructor",
    b"createelement",
    b"eval",
    b"exec",
    b"execscript",
    b"expression",
    b"fetch",
    b"fromcharcode",
    b"function",
    b"getruntime",
    b"msgbox",
    b"passthru",
    b"pcntl_exec",
    b"popen",
    b"print",
    b"proc_open",
    b"processbuilder",
    b"prompt",
    b"queryselector",
    b"setinterval",
    b"settimeout",
    b"shell_exec",
    b"system",
    b"write",
    b"writeln",
    b"downloadstring",
    b"phpinfo",
    b"phpversion",
];

/// Does the parenthesis at `at` call what an attack calls?
fn is_call(text: &[u8], at: usize) -> bool {
    if byte(text, at.saturating_add(1)) == b')' {
        return matches!(byte(text, skip_space(text, at.saturating_add(2))), b'{')
            || CALLED.contains(&word_before(text, at));
    }
    let spaces = part(text, 0, at).iter().rev().take(8).take_while(|&&next| is_space(next)).count();
    let name = word_before(text, at.saturating_sub(spaces));
    if name.is_empty() {
        return false;
    }
    CALLED.contains(&name) || super::sql::is_call(text, at)
}

/// Does a word that joins conditions follow the parenthesis at `at`?
fn is_joined(text: &[u8], at: usize) -> bool {
    let next_at = skip_space(text, at.saturating_add(1));
    let word = part(text, next_at, run(text, next_at, is_word));
    super::sql::is_operator(word) || byte(text, next_at) == b'('
}
