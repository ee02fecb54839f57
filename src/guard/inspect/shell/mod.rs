//! Command injection: whether a value, put into a command line, would start a command of its own.
//!
//! What gives a value away is an operator of the shell (`;`, `|`, `&`, a line end that was hidden, a backtick, `$(`) with a program behind it, or a program's
//! name in a disguise that only a shell takes off (`c'a't`, `/???/b??h`, `$IFS`). Names of programs are words of people as well, so a word that is one must be
//! followed by what a command's arguments look like. Code that starts commands and the lookups of loggers are found by their calls.
//!
//! Linear: at each operator one word is read, of bounded length.

mod code;
mod words;

use super::peel::{HIDDEN_CR, HIDDEN_LF};
use super::rules::{Finding, Looker, RuleId};
use super::text::{Marks, byte, find, is_space, is_word, part, rest, run};
pub(super) use code::SIGNS as CODE_SIGNS;
use words::{Program, program};

/// Longest word that is read as a program's name, disguise included.
const MOST_WORD: usize = 96;

/// Looks for command injection in a value in lower case.
pub(super) fn look(look: &Looker<'_>) -> Option<Finding> {
    const OPERATORS: Marks = Marks::OPERATOR.or(Marks::BACKTICK).or(Marks::DOLLAR).or(Marks::LESS).or(Marks::MORE);
    const DISGUISES: Marks = Marks::APOSTROPHE
        .or(Marks::QUOTE)
        .or(Marks::BACKSLASH)
        .or(Marks::DOLLAR)
        .or(Marks::WILDCARD)
        .or(Marks::BRACKET)
        .or(Marks::BACKTICK);
    let when =
        |signs: Marks, read: fn(&Looker<'_>) -> Option<Finding>| if look.marks.any(signs) { read(look) } else { None };
    when(OPERATORS, operators)
        .or_else(|| when(DISGUISES, disguises))
        .or_else(|| when(Marks::SLASH, at_start))
        .or_else(|| code::look(look))
}

/// A word as the shell reads it.
struct Word {
    /// What is left when quotes, backslashes and empty expansions are gone.
    plain: [u8; 32],
    len: usize,
    /// One past it in the text.
    end: usize,
    /// Signs were left out between its letters.
    disguised: bool,
    /// It has wildcards.
    globs: bool,
    /// Variables that were read as nothing.
    variables: u32,
}

impl Word {
    fn plain(&self) -> &[u8] {
        part(&self.plain, 0, self.len)
    }

    /// The part behind the last slash.
    fn name(&self) -> &[u8] {
        self.plain().rsplit(|&next| matches!(next, b'/' | b'\\')).next().unwrap_or_default()
    }
}

/// Reads the word at `at`.
fn word(text: &[u8], at: usize) -> Word {
    let mut word = Word { plain: [0; 32], len: 0, end: at, disguised: false, globs: false, variables: 0 };
    let limit = at.saturating_add(MOST_WORD).min(text.len());
    let mut here = at;
    while here < limit {
        let next = byte(text, here);
        let follows = byte(text, here.saturating_add(1));
        match next {
            _ if is_word(next) || matches!(next, b'/' | b'.' | b'-' | b':' | b'~') => {
                if let Some(place) = word.plain.get_mut(word.len) {
                    *place = next;
                    word.len = word.len.saturating_add(1);
                }
                here = here.saturating_add(1);
            }
            b'\'' | b'"' => {
                // Quotes in or around a word; at its end only where another began it.
                let is_inside = is_word(follows) || matches!(follows, b'\'' | b'"' | b'/');
                if !is_inside && word.len > 0 && !word.disguised {
                    break;
                }
                word.disguised |= word.len > 0 && is_inside;
                here = here.saturating_add(1);
            }
            b'\\' if is_word(follows) || matches!(follows, b'\\') => {
                word.disguised |= word.len > 0;
                here = here.saturating_add(1);
            }
            b'`' if follows == b'`' && word.len > 0 => {
                word.disguised = true;
                here = here.saturating_add(2);
            }
            b'$' if matches!(follows, b'@' | b'*' | b'!' | b'$' | b'u' | b'x' | b'1'..=b'9') && word.len > 0 => {
                word.disguised |= is_word(byte(text, here.saturating_add(2)));
                here = here.saturating_add(2);
            }
            b'$' if follows == b'(' && byte(text, here.saturating_add(2)) == b')' && word.len > 0 => {
                word.disguised = true;
                here = here.saturating_add(3);
            }
            b'$' if follows == b'{' && word.len > 0 => {
                let close = run(part(text, 0, limit), here.saturating_add(2), |next| {
                    is_word(next) || matches!(next, b'@' | b'*' | b'!')
                });
                if byte(text, close) != b'}' {
                    break;
                }
                word.disguised |= is_word(byte(text, close.saturating_add(1)));
                here = close.saturating_add(1);
            }
            b'$' if is_word(follows) && (word.len == 0 || word.plain().contains(&b'/')) => {
                here = run(part(text, 0, limit), here.saturating_add(1), is_word);
                word.variables = word.variables.saturating_add(1);
                word.disguised |= word.variables >= 2;
            }
            b'?' | b'*'
                if is_word(follows)
                    || matches!(follows, b'?' | b'/' | b'*')
                    || word.len > 0 && word.plain().contains(&b'/') =>
            {
                word.globs = true;
                here = here.saturating_add(1);
            }
            b'[' if byte(text, here.saturating_add(2)) == b']' || follows == b'!' || follows == b'^' => {
                word.globs = true;
                let close = run(part(text, 0, here.saturating_add(8)), here, |next| next != b']');
                here = close.saturating_add(1);
            }
            _ => break,
        }
    }
    word.end = here;
    word
}

const fn is_blank(next: u8) -> bool {
    is_space(next) && next != HIDDEN_LF && next != HIDDEN_CR
}

/// Operators with a command behind them.
fn operators(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    let mut at = 0;
    // Backticks come in pairs: the second of two opens nothing.
    let mut open = false;
    while let Some(&next) = text.get(at) {
        let here = at;
        at = at.saturating_add(1);
        match next {
            b';' | b'|' | b'&' | HIDDEN_LF => {}
            b'`' => {
                open = !open;
                if !open {
                    continue;
                }
                if let Some(finding) = backtick(look, here) {
                    return Some(finding);
                }
                continue;
            }
            b'$' => {
                if let Some(finding) = dollar(look, here) {
                    return Some(finding);
                }
                continue;
            }
            b'<' | b'>' if byte(text, at) == b'(' => {
                let word = word(text, at.saturating_add(1));
                if program(word.name()) == Some(Program::Plain) && !is_word(byte(text, word.end)) {
                    return look.found(RuleId::ShellSubstitution, here);
                }
                continue;
            }
            _ => continue,
        }
        // An entity ends with a semicolon, and a query's parameters stand behind an ampersand.
        if next == b';' && is_entity(text, here) {
            continue;
        }
        let start = run(text, at, |next| {
            is_blank(next) || matches!(next, b'(' | b'{' | b'!' | b'|' | b'&' | b';' | HIDDEN_LF | HIDDEN_CR | b'@')
        });
        let mut start = start;
        if byte(text, start) == b'$' && is_word(byte(text, start.saturating_add(1))) {
            // `$u cat`: an empty variable in front of the command.
            let variable = run(text, start.saturating_add(1), is_word);
            start = run(text, variable, is_blank);
        }
        let word = word(text, start);
        if starts(look, here, start, &word) {
            let rule = if word.disguised || word.globs { RuleId::ShellDisguise } else { RuleId::ShellCommand };
            if let Some(finding) = look.found(rule, here) {
                return Some(finding);
            }
        }
        at = at.max(start);
    }
    None
}

/// Does `;` at `at` end an entity?
fn is_entity(text: &[u8], at: usize) -> bool {
    let mut here = at;
    while here > 0 && at.saturating_sub(here) < 10 && byte(text, here.saturating_sub(1)).is_ascii_alphanumeric() {
        here = here.saturating_sub(1);
    }
    matches!(byte(text, here.wrapping_sub(1)), b'&' | b'#') && here < at
}

/// Would the shell start something at this word?
fn starts(look: &Looker<'_>, operator: usize, start: usize, word: &Word) -> bool {
    let text = look.text;
    if word.len == 0 {
        return false;
    }
    let sign = byte(text, operator);
    let name = word.name();
    let has_path = word.plain().contains(&b'/');
    if word.globs && has_path && word.len >= 2 && looks_like_glob(part(text, start, word.end)) {
        return true;
    }
    let Some(kind) = program(name) else { return false };
    if word.disguised {
        return true;
    }
    let next = byte(text, word.end);
    if next == b'=' || next == b'(' || next == b':' || next == b'.' {
        return next == b'(' && matches!(name, b"phpinfo" | b"phpversion");
    }
    let is_twin = byte(text, operator.saturating_add(1)) == sign;
    let spaced = start > operator.saturating_add(1) && !is_twin;
    let letters_before = operator > 0
        && is_word(byte(text, operator.saturating_sub(1)))
        && !byte(text, operator.saturating_sub(1)).is_ascii_digit();
    if kind == Program::Plain || has_path && !word.plain().starts_with(b".") {
        // `a; curl b`, `x|grep y`; in prose and tables operators are followed by other words.
        if sign == b'&' && !is_twin && is_query(text, operator) {
            return next == 0;
        }
        // A cell of a table: `| python | 3 |`.
        let behind = byte(text, run(text, word.end, is_blank));
        let is_cell =
            sign == b'|' && !is_twin && (spaced || operator == 0) && (behind == b'|' || text.contains(&b'\n'));
        let glued = sign == b'|' && letters_before && next == b' ' && !has_arguments(text, name, word.end);
        return !is_word(next) && !is_cell && !glued;
    }
    // A word of people: it must be all there is, or have arguments.
    let argument = run(text, word.end, is_blank);
    if has_arguments(text, name, word.end) {
        return true;
    }
    let ends = next == 0
        || matches!(
            next,
            b';' | b'|' | b'&' | b'`' | b'#' | b'"' | b'\'' | HIDDEN_LF | HIDDEN_CR | b')' | b'%' | b'<' | b'+' | b'\\'
        )
        || argument >= text.len();
    let is_short = text.len() <= 64 || look.peeled;
    ends && !spaced
        && is_short
        && !(sign == b'&' && is_query(text, operator))
        && !(letters_before && (sign == b'|' || matches!(next, b';' | b'&')))
}

/// Does what follows the name that ends at `end` look like a command's arguments: an option, a path, a variable, a redirection?
fn has_arguments(text: &[u8], name: &[u8], end: usize) -> bool {
    let argument = run(text, end, is_blank);
    let has_gap = argument > end;
    let after = byte(text, argument.saturating_add(1));
    match byte(text, argument) {
        b'-' | b'/' | b'$' | b'~' | b'*' => is_tight(text, argument),
        b'.' => matches!(after, b'.' | b'/'),
        b'<' | b'>' => {
            after != b'='
                && (!has_gap || after == b' ' || is_word(after) || matches!(after, b'<' | b'>' | b'(' | b'&' | b'/'))
        }
        b'`' | b'"' | b'\'' | b'\\' => has_gap && is_tight(text, argument),
        b'0'..=b'9' => matches!(
            name,
            b"nc"
                | b"ncat"
                | b"netcat"
                | b"telnet"
                | b"ping"
                | b"curl"
                | b"sleep"
                | b"at"
                | b"kill"
                | b"id"
                | b"dig"
                | b"host"
                | b"ip"
                | b"timeout"
        ),
        _ => {
            let argument_end =
                run(text, argument, |next| is_word(next) || matches!(next, b'.' | b'/' | b'\\' | b':' | b'-'));
            let argument = part(text, argument, argument_end);
            argument.contains(&b'/')
                || argument.contains(&b'\\')
                || argument.len() == 2 && argument.ends_with(b":")
                || has_extension(argument)
                || program(argument) == Some(Program::Plain)
                || name == b"net"
                    && matches!(argument, b"view" | b"user" | b"start" | b"localgroup" | b"share" | b"use")
        }
    }
}

/// A wildcard pattern of a path: signs between slashes, as `/b?n/`, `/???/`, `[p]asswd`.
fn looks_like_glob(pattern: &[u8]) -> bool {
    let marks = pattern.iter().filter(|next| matches!(next, b'?' | b'*' | b'[')).count();
    let slashes = pattern.iter().filter(|&&next| next == b'/').count();
    marks >= 1 && slashes >= 2
}

/// Is the sign at `at` followed by what it belongs to, without a space?
fn is_tight(text: &[u8], at: usize) -> bool {
    let next = byte(text, at.saturating_add(1));
    is_word(next)
        || matches!(next, b'-' | b'{' | b'(' | b'/' | b'.' | b'*' | b'?')
        || next == 0 && byte(text, at) != b'-'
}

fn has_extension(name: &[u8]) -> bool {
    let mut parts = name.rsplit(|&next| next == b'.');
    let last = parts.next().unwrap_or_default();
    parts.next().is_some()
        && matches!(
            last,
            b"php"
                | b"txt"
                | b"sh"
                | b"exe"
                | b"log"
                | b"conf"
                | b"py"
                | b"pl"
                | b"ini"
                | b"html"
                | b"bak"
                | b"key"
                | b"pem"
                | b"bat"
                | b"cfg"
                | b"xml"
                | b"cgi"
                | b"asp"
                | b"jsp"
        )
}

/// Does `&` at `at` stand between parameters of a query: behind `name=value`?
fn is_query(text: &[u8], at: usize) -> bool {
    let name_end = run(text, at.saturating_add(1), |next| is_word(next) || matches!(next, b'-' | b'.' | b'[' | b']'));
    byte(text, name_end) == b'='
}

/// Arithmetic, commands and variables in place of text.
fn dollar(look: &Looker<'_>, at: usize) -> Option<Finding> {
    let text = look.text;
    let inside = at.saturating_add(1);
    if rest(text, inside).starts_with(b"ifs") || rest(text, inside).starts_with(b"{ifs") {
        return look.found(RuleId::ShellDisguise, at);
    }
    if byte(text, inside) == b'{' {
        return brace(look, at);
    }
    if byte(text, inside) != b'(' {
        return None;
    }
    if byte(text, inside.saturating_add(1)) == b'(' {
        let content = part(text, inside.saturating_add(2), inside.saturating_add(48));
        let end = run(content, 0, |next| {
            next.is_ascii_digit() || matches!(next, b'+' | b'-' | b'*' | b'/' | b' ' | b'%' | b'$' | b'(' | b')')
        });
        return if part(content, 0, end).contains(&b')') { look.found(RuleId::ShellSubstitution, at) } else { None };
    }
    let start = run(text, inside.saturating_add(1), is_blank);
    if byte(text, start) == b'`' {
        return look.found(RuleId::ShellSubstitution, at);
    }
    let word = word(text, start);
    if program(word.name()).is_some() && !is_word(byte(text, word.end)) && byte(text, word.end) != b'.'
        || word.disguised && program(word.name()).is_some()
    {
        return look.found(RuleId::ShellSubstitution, at);
    }
    None
}

/// `${system(…)}`, `${jndi:…}`, `${::-j}`.
fn brace(look: &Looker<'_>, at: usize) -> Option<Finding> {
    let text = look.text;
    let inside = part(text, at.saturating_add(2), at.saturating_add(160));
    if inside.starts_with(b"jndi:")
        || inside.starts_with(b"::-")
        || inside.starts_with(b"lower:")
        || inside.starts_with(b"upper:")
        || inside.starts_with(b"env:")
    {
        return look.found(RuleId::ShellCode, at);
    }
    if inside.starts_with(b":") && find(inside, 0, b":-").is_some() {
        return look.found(RuleId::ShellCode, at);
    }
    const CALLS: [&[u8]; 9] =
        [b"system(", b"popen(", b"passthru(", b"shell_exec(", b"exec(", b"eval(", b"print(`", b"@system(", b"phpinfo("];
    if CALLS.iter().any(|call| inside.starts_with(call)) {
        return look.found(RuleId::ShellCode, at);
    }
    None
}

/// A command between backticks. People put code between them too, so it must be all of the value, or stand where a value of code would.
fn backtick(look: &Looker<'_>, at: usize) -> Option<Finding> {
    let text = look.text;
    let before = byte(text, at.wrapping_sub(1));
    let start = run(text, at.saturating_add(1), is_blank);
    let word = word(text, start);
    let kind = program(word.name())?;
    if is_word(byte(text, word.end)) {
        return None;
    }
    let close =
        memchr::memchr(b'`', rest(text, word.end)).map(|found| word.end.saturating_add(found).saturating_add(1));
    let is_all = at == 0 && close.is_none_or(|close| close >= text.len());
    let called = before == b'(' && is_word(byte(text, at.wrapping_sub(2)));
    let joined = matches!(before, b';' | b'|' | b'&' | b'=' | b'.' | b'$' | b'"' | b'\'' | b'+' | b'{')
        || at > 0 && is_word(before) && kind == Program::Plain;
    if is_all || called || joined && (kind == Program::Plain || close.is_some()) {
        return look.found(RuleId::ShellSubstitution, at);
    }
    None
}

/// Words that only a shell can read, wherever they stand.
fn disguises(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    let mut at = 0;
    while at < text.len() {
        let start = run(text, at, |next| {
            is_space(next) || matches!(next, b'=' | b'(' | b';' | b'|' | b'&' | b'`' | b'>' | b'<' | b',' | b'{')
        });
        let end = run(text, start, |next| !is_space(next));
        let whole = part(text, start, end);
        at = end.max(start.saturating_add(1));
        if whole.len() < 3
            || byte(text, start.wrapping_sub(1)) != b'{'
                && !whole
                    .iter()
                    .any(|next| matches!(next, b'\'' | b'"' | b'\\' | b'$' | b'?' | b'*' | b'[' | b'{' | b'`'))
        {
            continue;
        }
        for begin in [
            start,
            whole
                .iter()
                .rposition(|&next| next == b'=')
                .map_or(start, |found| start.saturating_add(found).saturating_add(1)),
        ] {
            if let Some(finding) = disguised_word(look, begin) {
                return Some(finding);
            }
        }
    }
    None
}

fn disguised_word(look: &Looker<'_>, start: usize) -> Option<Finding> {
    let text = look.text;
    if byte(text, start) == b'{' || byte(text, start.wrapping_sub(1)) == b'{' {
        return braces(look, start);
    }
    let word = word(text, start);
    if word.disguised
        && word.len >= 2
        && program(word.name()).is_some()
        && !is_word(byte(text, word.end))
        && word.end.saturating_sub(start) > word.len.saturating_add(1)
    {
        return look.found(RuleId::ShellDisguise, start);
    }
    let pattern = part(text, start, word.end);
    let rooted = pattern.starts_with(b"/") || pattern.starts_with(b"\"/") || pattern.starts_with(b"'/");
    if word.globs && rooted && looks_like_glob(pattern) && is_system_glob(pattern) {
        return look.found(RuleId::ShellDisguise, start);
    }
    None
}

/// `{cat,/etc/passwd}`: a command line without a space.
fn braces(look: &Looker<'_>, start: usize) -> Option<Finding> {
    let text = look.text;
    let inside = if byte(text, start) == b'{' { start.saturating_add(1) } else { start };
    let inside = run(text, inside, |next| next == b',');
    let word = word(text, inside);
    let ends = byte(text, word.end);
    if program(word.name()).is_some() && ends == b',' && !is_space(byte(text, word.end.saturating_add(1))) {
        let close = run(part(text, 0, word.end.saturating_add(80)), word.end, |next| !is_space(next) && next != b'}');
        if byte(text, close) == b'}' {
            return look.found(RuleId::ShellDisguise, start);
        }
    }
    None
}

/// A pattern for a system's own files: of letters and signs that only they have in these places.
fn is_system_glob(pattern: &[u8]) -> bool {
    let mut parts = pattern.split(|&next| next == b'/').filter(|part| !part.is_empty());
    let first = parts.next().unwrap_or_default();
    let matches_name = |name: &[u8]| glob_matches(first, name);
    let is_pattern = |part: &[u8]| part.iter().any(|next| matches!(next, b'?' | b'[' | b'*'));
    let second = parts.next().unwrap_or_default();
    (matches_name(b"bin") || matches_name(b"usr") || matches_name(b"etc") || matches_name(b"sbin"))
        && first != b"*"
        && (is_pattern(first) && !second.is_empty()
            || second.len() > 2 && is_pattern(second) && !second.starts_with(b"*"))
}

/// Does the pattern, of `?`, `*`, `[…]` and letters, match the name?
fn glob_matches(pattern: &[u8], name: &[u8]) -> bool {
    let mut at = 0;
    let mut letters = name.iter();
    while let Some(&sign) = pattern.get(at) {
        match sign {
            b'*' => return true,
            b'?' => {
                if letters.next().is_none() {
                    return false;
                }
            }
            b'[' => {
                at = run(pattern, at, |next| next != b']');
                if letters.next().is_none() {
                    return false;
                }
            }
            b'\'' | b'"' | b'\\' => {}
            _ => {
                if letters.next() != Some(&sign) {
                    return false;
                }
            }
        }
        at = at.saturating_add(1);
    }
    letters.next().is_none()
}

/// A value that is a command from its begin: a program with its path, or one with arguments that no other text has.
fn at_start(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    if text.len() > 512 {
        return None;
    }
    let begin = run(text, 0, |next| is_space(next) || matches!(next, b'"' | b'\'' | b'('));
    let equals = memchr::memchr(b'=', part(text, 0, 64)).map(|found| found.saturating_add(1));
    for start in [Some(begin), equals].into_iter().flatten() {
        let word = word(text, start);
        let path = word.plain();
        let Some(kind) = program(word.name()) else { continue };
        let next = byte(text, word.end);
        let boundary = !is_word(next) && next != b'.' && next != b'=';
        let from_system = [&b"/bin/"[..], b"/usr/bin/", b"/sbin/", b"/usr/sbin/", b"/usr/local/bin/", b"bin/"]
            .iter()
            .any(|root| path.starts_with(root));
        if from_system && boundary && (kind == Program::Plain || path.starts_with(b"/")) {
            return look.found(RuleId::ShellProgram, start);
        }
    }
    None
}
