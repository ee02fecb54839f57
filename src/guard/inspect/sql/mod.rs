//! SQL injection: whether a value, put into a query, would stop being a value.
//!
//! A value stands in a query bare (`id = …`), between apostrophes, or between double quotes. Each of these is read on its own: in the last two the value
//! begins as a string, and if its first quote is followed by what could continue a query, it has *broken out*. Tokens then go through a window of
//! the last six, in which signs and parentheses that change nothing are left out, and the window is compared with the shapes that an injection
//! takes: a condition that is always true, a second `select`, a second statement, a comment that cuts off the rest. Words alone make
//! no shape: *select the union and order by phone* is a string of names.
//!
//! Linear: each text is read at most three times, and the quoted readings end where they show that nothing was broken out of.

mod shapes;
mod tokens;
mod words;

use super::rules::{Finding, Looker};
use super::text::Marks;
use shapes::Reading;
use tokens::{Token, Tokens, first_quote};

/// Most tokens that are read behind a quote: an injection is at its point much sooner.
const MOST_TOKENS: usize = 512;

/// Looks for SQL injection in a value in lower case.
pub(super) fn look(look: &Looker<'_>) -> Option<Finding> {
    let when = |sign: Marks, quote: u8| if look.marks.any(sign) { quoted(look, quote) } else { None };
    bare(look, 0)
        .or_else(|| if look.marks.any(Marks::EQUALS) { bare(look, parameter(look.text)?) } else { None })
        .or_else(|| when(Marks::APOSTROPHE, b'\''))
        .or_else(|| when(Marks::QUOTE, b'"'))
        .or_else(|| when(Marks::BACKTICK, b'`'))
}

fn bare(look: &Looker<'_>, from: usize) -> Option<Finding> {
    let mut tokens = Tokens::new(look.text, from);
    let mut reading = Reading::new(look, Token::Start, 0);
    loop {
        let (token, at) = tokens.next();
        if let Some(finding) = reading.push(token, at, tokens.at) {
            return Some(finding);
        }
        if token == Token::Stop {
            return None;
        }
    }
}

/// Behind the first quote of this kind. Identifiers in backticks are quoted too.
fn quoted(look: &Looker<'_>, quote: u8) -> Option<Finding> {
    let quote_at = first_quote(look.text, quote)?;
    behind(look, quote_at)
}

fn behind(look: &Looker<'_>, quote_at: usize) -> Option<Finding> {
    let mut tokens = Tokens::new(look.text, quote_at.saturating_add(1));
    let mut reading = Reading::new(look, Token::Broken, quote_at);
    for count in 0..MOST_TOKENS {
        let (token, at) = tokens.next();
        // A name, a number or a string right behind the string's end is text, not SQL.
        if count == 0
            && matches!(
                token,
                Token::Name
                    | Token::Text
                    | Token::Open
                    | Token::Number
                    | Token::Variable
                    | Token::Call
                    | Token::Filler
                    | Token::Stop
                    | Token::Catalogue
            )
        {
            return None;
        }
        if let Some(finding) = reading.push(token, at, tokens.at) {
            return Some(finding);
        }
        if token == Token::Stop {
            return None;
        }
    }
    None
}

/// Where the value of a query's first parameter begins, in a value that is a query or a URL with one (`id=…`, `/get?id=…`): what stands in front of it
/// is not put into a database.
fn parameter(text: &[u8]) -> Option<usize> {
    let head = super::text::part(text, 0, 96);
    let equals = memchr::memchr(b'=', head)?;
    let name = super::text::part(head, 0, equals);
    let is_name = !name.is_empty()
        && name
            .iter()
            .all(|&next| super::text::is_word(next) || matches!(next, b'/' | b'?' | b'.' | b'-' | b'[' | b']' | b':'));
    is_name.then_some(equals.saturating_add(1))
}

/// Is the word, in lower case, one that goes on with a query behind the end of a string?
pub(super) fn is_operator(word: &[u8]) -> bool {
    use Token::{As, Collate, From, Having, Like, Limit, Logic, Not, Procedure, Select, Sort, Union, Where};
    matches!(
        words::classify(word),
        As | Collate | From | Having | Like | Limit | Logic | Not | Procedure | Select | Sort | Union | Where
    )
}

/// Does the parenthesis at `at` call a function that an injection calls, or one that a value begins with?
pub(super) fn is_call(text: &[u8], at: usize) -> bool {
    let spaces = text
        .get(..at)
        .unwrap_or_default()
        .iter()
        .rev()
        .take(4)
        .take_while(|&&next| super::text::is_space(next))
        .count();
    let end = at.saturating_sub(spaces);
    let name = super::text::word_before(text, end);
    let start = end.saturating_sub(name.len());
    match words::function(name) {
        Token::Grave => true,
        Token::Function => {
            name == b"sleep"
                || !super::text::is_word(super::text::byte(text, start.wrapping_sub(1)))
                    && super::text::byte(text, start.wrapping_sub(1)) != b' '
        }
        _ => false,
    }
}

/// Is it a name of a database's own catalogue?
pub(super) fn is_catalogue(name: &[u8]) -> bool {
    words::is_catalogue(name)
}

/// Does a value that begins at `at` begin in the middle of a query: with `or 1`, `having max(…)`, `order by`?
pub(super) fn begins(text: &[u8], at: usize) -> bool {
    use super::text::{byte, part, run, skip_space};
    // Most words are told from those asked for by their first three letters.
    let third = byte(text, at.saturating_add(2));
    let may_begin = match (byte(text, at), byte(text, at.saturating_add(1))) {
        (b'a', b'n') => third == b'd',
        (b'a', b's') | (b'o', b'r') | (b'i', b'n' | b's') => {
            !super::text::is_word(third) || matches!(third, b'd' | b'n' | b't')
        }
        (b'b', b'e') | (b'n', b'o') => third == b't',
        (b'c', b'o') | (b's', b'e') => third == b'l',
        (b'e', b's') => third == b'c',
        (b'e', b'x') => matches!(third, b'c' | b'i'),
        (b'f' | b'g', b'r') | (b'g', b'l') | (b'p', b'r') | (b'x', b'o') => matches!(third, b'o' | b'r'),
        (b'h', b'a') => third == b'v',
        (b'i', b'l') | (b'j', b'o') | (b'u', b's') | (b'r', b'l') => third == b'i',
        (b'l', b'i') => matches!(third, b'k' | b'm'),
        (b'm', b'i') => third == b'n',
        (b'o', b'f') => third == b'f',
        (b'r', b'e') => third == b'g',
        (b's', b'i') => third == b'm',
        (b's', b'o') => third == b'u',
        (b'u', b'n') => matches!(third, b'i' | b'l'),
        (b'w', b'h') => third == b'e',
        _ => false,
    };
    if !may_begin {
        return false;
    }
    let end = run(text, at, super::text::is_word);
    if !is_operator(part(text, at, end)) {
        return false;
    }
    let next_at = skip_space(text, end);
    let next_end = run(text, next_at, super::text::is_word);
    let behind = byte(text, skip_space(text, next_end));
    let next = byte(text, next_at);
    next_end == next_at && next != b'"'
        || next.is_ascii_digit()
        || matches!(behind, b'(' | b'!')
        || is_operator(part(text, next_at, next_end))
        || part(text, next_at, next_end) == b"by"
}
