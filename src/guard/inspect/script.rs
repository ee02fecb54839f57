//! JavaScript in place of a value: calls behind the end of a string of a page's script, and ways to call what is not named.

use super::phrases::List;
use super::rules::{Finding, Looker, RuleId};
use super::text::{Marks, byte, find, is_space, is_word, part, rest, run, skip_space};

/// Functions that show, run or fetch.
const CALLS: [&[u8]; 14] = [
    b"alert",
    b"prompt",
    b"confirm",
    b"eval",
    b"settimeout",
    b"setinterval",
    b"fetch",
    b"atob",
    b"fromcharcode",
    b"document.write",
    b"document.writeln",
    b"execscript",
    b"createelement",
    b"msgbox",
];

/// Names of what belongs to a page.
const PAGE: [&[u8]; 12] = [
    b"document.cookie",
    b"document.domain",
    b"document.location",
    b"document.write",
    b"window.location",
    b"location.href",
    b"document.forms",
    b"document.body.",
    b"window.name",
    b"document.queryselector(",
    b"localstorage",
    b"document.documentelement",
];

/// Looks for JavaScript in a value in lower case.
pub(super) fn look(look: &Looker<'_>) -> Option<Finding> {
    let when =
        |signs: Marks, read: fn(&Looker<'_>) -> Option<Finding>| if look.marks.any(signs) { read(look) } else { None };
    when(Marks::PARENTHESIS.or(Marks::BACKTICK), calls)
        .or_else(|| when(Marks::BRACKET, reached))
        .or_else(|| when(Marks::DOT, page))
        .or_else(|| if look.has.any(List::Tricks) { tricks(look) } else { None })
}

/// A call right behind the end of a string, or one that a comment follows.
fn calls(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    let mut at = 0;
    while let Some(open) = memchr::memchr2(b'(', b'`', rest(text, at)).map(|found| at.saturating_add(found)) {
        at = open.saturating_add(1);
        let mut name_end = open;
        while name_end > 0 && open.saturating_sub(name_end) < 8 && is_space(byte(text, name_end.saturating_sub(1))) {
            name_end = name_end.saturating_sub(1);
        }
        let mut start = name_end;
        while start > 0
            && name_end.saturating_sub(start) < 24
            && (is_word(byte(text, start.saturating_sub(1))) || byte(text, start.saturating_sub(1)) == b'.')
        {
            start = start.saturating_sub(1);
        }
        let name = part(text, start, name_end);
        if !CALLS.iter().any(|call| name.ends_with(call)) && !name.ends_with(b"function") {
            continue;
        }
        if ends_string(text, start) || is_short_code(text, start, open) {
            return look.found(RuleId::XssCode, start);
        }
    }
    None
}

/// Do only operators stand between `at` and a quote before it?
fn ends_string(text: &[u8], at: usize) -> bool {
    let mut here = at;
    let mut operators = 0u32;
    while here > 0 && at.saturating_sub(here) < 16 {
        here = here.saturating_sub(1);
        match byte(text, here) {
            b'"' | b'\'' => return operators > 0,
            b';' | b'+' | b'-' | b'*' | b'/' | b'!' | b'~' | b'^' | b'&' | b'|' | b',' | b')' | b'}' | b']' | b'?'
            | b':' | b'%' | b'<' | b'>' | b'=' => {
                operators = operators.saturating_add(1);
            }
            next if is_space(next) || matches!(next, b'(' | b'{' | b'[') => {}
            _ => return false,
        }
    }
    false
}

/// A call that shows something, at the begin of a value or a parameter, with the rest commented out or closing what was opened before.
fn is_short_code(text: &[u8], start: usize, open: usize) -> bool {
    let name = part(text, start, open);
    if !matches!(name, b"alert" | b"prompt" | b"confirm" | b"eval") {
        return false;
    }
    let before = byte(text, start.wrapping_sub(1));
    let close = match memchr::memchr(b')', part(text, open, open.saturating_add(128))) {
        Some(found) => open.saturating_add(found).saturating_add(1),
        None => return false,
    };
    let argument = part(text, open.saturating_add(1), close.saturating_sub(1));
    let is_sign = argument.iter().all(|next| next.is_ascii_digit())
        || argument.starts_with(b"document.")
        || argument.starts_with(b"/")
        || matches!(argument, b"'xss'" | b"\"xss\"" | b"xss" | b"'xss" | b"\"xss" | b"`xss`");
    let tail = rest(text, skip_space(text, close));
    is_sign
        && (tail.starts_with(b"//")
            || tail.starts_with(b">")
            || tail.starts_with(b";>")
            || tail.starts_with(b"\"")
            || tail.starts_with(b"<")
            || tail.starts_with(b"}")
            || matches!(before, b'=' | b'}' | b'{' | b';' | b'/' | b'+'))
}

/// Something global that is reached by a string: `self["alert"]`, `window['ev'+'al']`, `top[…]`.
fn reached(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    let mut at = 0;
    while let Some(open) = memchr::memchr(b'[', rest(text, at)).map(|found| at.saturating_add(found)) {
        at = open.saturating_add(1);
        let name_end = skip_back(text, open);
        let name = super::text::word_before(text, name_end);
        if !matches!(
            name,
            b"self" | b"window" | b"top" | b"parent" | b"this" | b"frames" | b"globalthis" | b"document" | b"$"
        ) {
            continue;
        }
        let inside = skip_comments(text, at);
        if !matches!(byte(text, inside), b'"' | b'\'' | b'`' | b'/' | b'+' | b'(' | b'\\') {
            continue;
        }
        let close = memchr::memchr(b']', part(text, inside, inside.saturating_add(160)))
            .map(|found| inside.saturating_add(found).saturating_add(1));
        let Some(close) = close else { continue };
        let after = byte(text, skip_comments(text, close));
        let inner = part(text, inside, close);
        let telling = [&b"cookie"[..], b"alert", b"eval", b"location", b"domain", b"x24"]
            .iter()
            .any(|name| find(inner, 0, name).is_some());
        if matches!(after, b'(' | b'`') || after == b'[' || telling || part(text, inside, close).contains(&b'+') {
            return look.found(RuleId::XssCode, open.saturating_sub(name.len()));
        }
    }
    None
}

/// The place before whitespace and comments in front of `at`, at most 64 bytes back.
fn skip_back(text: &[u8], at: usize) -> usize {
    let mut end = at;
    let least = at.saturating_sub(64);
    loop {
        while end > least && is_space(byte(text, end.saturating_sub(1))) {
            end = end.saturating_sub(1);
        }
        let before = part(text, least, end);
        if !before.ends_with(b"*/") {
            return end;
        }
        match memchr::memmem::rfind(before, b"/*") {
            Some(open) => end = least.saturating_add(open),
            None => return end,
        }
    }
}

/// One past whitespace and comments.
fn skip_comments(text: &[u8], at: usize) -> usize {
    let mut at = at;
    for _ in 0..8 {
        at = skip_space(text, at);
        if !rest(text, at).starts_with(b"/*") {
            return at;
        }
        match memchr::memmem::find(part(text, at, at.saturating_add(128)), b"*/") {
            Some(end) => at = at.saturating_add(end).saturating_add(2),
            None => return at,
        }
    }
    at
}

/// What belongs to a page, read or set.
fn page(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    let mut at = 0;
    while let Some(dot) = memchr::memchr(b'.', rest(text, at)).map(|found| at.saturating_add(found)) {
        at = dot.saturating_add(1);
        let name_end = skip_back(text, dot);
        let owner = super::text::word_before(text, name_end);
        if !matches!(owner, b"document" | b"window" | b"location") {
            continue;
        }
        let member_at = skip_comments(text, at);
        let member = part(text, member_at, run(text, member_at, is_word));
        let start = name_end.saturating_sub(owner.len());
        let is_page = PAGE.iter().any(|name| {
            let (first, second) = name.split_at(name.iter().position(|&b| b == b'.').unwrap_or(0));
            first == owner
                && rest(second, 1).starts_with(member)
                && !member.is_empty()
                && rest(second, 1).strip_suffix(b"(").unwrap_or(rest(second, 1)) == member
        });
        if !is_page {
            continue;
        }
        let spread = member_at > at || name_end < dot;
        if spread || stands_alone(text, start, member_at.saturating_add(member.len())) || ends_string(text, start) {
            return look.found(RuleId::XssCode, start);
        }
    }
    None
}

/// Is the code all of the value, or of a parameter, but for a little?
fn stands_alone(text: &[u8], start: usize, end: usize) -> bool {
    let before = part(text, 0, start);
    let is_parameter = before.len() <= 64 && !before.iter().any(|&next| is_space(next));
    is_parameter && text.len().saturating_sub(end) <= 160 && !rest(text, end).contains(&b'\n')
}

/// What such ways have.
pub(super) const TRICKS: &[&[u8]] = &[b"constructor", b"call", b"fromcharcode"];

/// Ways to call without saying what: `[].sort.call`, `constructor.constructor`, `Reflect`, templates.
fn tricks(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    for sign in look.has.of(List::Tricks) {
        for found in memchr::memmem::find_iter(text, sign) {
            let at = found.saturating_add(sign.len());
            let next_at = skip_comments(text, at);
            let next = byte(text, next_at);
            let before_at = skip_back(text, found);
            let before = byte(text, before_at.wrapping_sub(1));
            let hit = match sign {
                b"constructor" => {
                    matches!(before, b'.' | b'"' | b'\'' | b'[')
                        && (next == b'('
                            || rest(text, next_at).starts_with(b".constructor")
                            || matches!(next, b'"' | b'\'') && rest(text, next_at.saturating_add(1)).starts_with(b"]"))
                        || before == b'.' && rest(text, next_at).starts_with(b"._(")
                }
                b"call" => before == b'.' && next == b'`',
                b"fromcharcode" => next == b'(' && before == b'.',
                _ => false,
            };
            if hit {
                return look.found(RuleId::XssCode, found);
            }
        }
    }
    None
}
