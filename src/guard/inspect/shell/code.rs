//! Code that starts commands: calls of interpreters, lookups that fetch code, functions of the shell, batch files.

use super::super::peel::HIDDEN_LF;
use super::super::phrases::List;
use super::super::rules::{Finding, Looker, RuleId};
use super::super::text::{Marks, byte, find, is_space, is_word, part, rest, run, skip_space};

/// Signs of code that starts commands, each of which no other text has.
pub(in super::super) const SIGNS: &[&[u8]] = &[
    b" -e /bin/",
    b" -e sh",
    b"<?php",
    b"<!--#exec",
    b"/dev/tcp/",
    b"/dev/udp/",
    b"${jndi:",
    b"runtime.getruntime(",
    b"getruntime().exec",
    b"processbuilder(",
    b"__import__('os')",
    b"__import__(\"os\")",
    b"java.lang.runtime",
    b"child_process",
    b"invoke-webrequest ",
    b"invoke-expression",
    b"-encodedcommand",
    b"downloadstring(",
    b"os.system(",
    b"shell_exec(",
    b"passthru(",
    b"pcntl_exec(",
];

/// Calls that start a command when what they are given is one.
const CALLS: [&[u8]; 8] = [b"system", b"exec", b"popen", b"passthru", b"shell_exec", b"proc_open", b"eval", b"print"];

pub(super) fn look(look: &Looker<'_>) -> Option<Finding> {
    let when =
        |signs: Marks, read: fn(&Looker<'_>) -> Option<Finding>| if look.marks.any(signs) { read(look) } else { None };
    signs(look)
        .or_else(|| when(Marks::SPACE, shells))
        .or_else(|| when(Marks::PARENTHESIS, calls))
        .or_else(|| when(Marks::PARENTHESIS, functions))
        .or_else(|| when(Marks::SPACE, batch))
}

fn signs(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    for sign in look.has.of(List::Code) {
        if let Some(found) = find(text, 0, sign) {
            // In a longer text somebody may write about it.
            if text.len() <= 400 || matches!(sign, b"${jndi:" | b"/dev/tcp/" | b"<!--#exec") {
                return look.found(RuleId::ShellCode, found);
            }
        }
    }
    None
}

/// `system('…')`, `print(`…`)` with a command line in them.
fn calls(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    let mut at = 0;
    while let Some(open) = memchr::memchr(b'(', rest(text, at)).map(|found| at.saturating_add(found)) {
        at = open.saturating_add(1);
        let name = super::super::text::word_before(text, open);
        if !CALLS.contains(&name) {
            continue;
        }
        let start = open.saturating_sub(name.len());
        let before = byte(text, start.wrapping_sub(1));
        let argument_at = skip_space(text, at);
        let quote = byte(text, argument_at);
        if quote == b'`' {
            return look.found(RuleId::ShellCode, start);
        }
        let breaks = matches!(
            before,
            b'"' | b'\'' | b';' | b'{' | b'}' | b')' | b'.' | b'|' | b'&' | b'@' | b'$' | b'=' | HIDDEN_LF
        ) && start > 0
            || start == 0;
        if !breaks
            || matches!(name, b"print") && start == 0
            || matches!(name, b"exec" | b"eval") && start == 0 && text.len() > 80
        {
            continue;
        }
        if !matches!(quote, b'\'' | b'"') {
            continue;
        }
        let word = super::word(text, argument_at.saturating_add(1));
        if super::program(word.name()).is_some() && before != b'.' {
            return look.found(RuleId::ShellCode, start);
        }
    }
    None
}

/// Functions of the shell: `() { :; };`, `f() { f | f & };`.
fn functions(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    for open in memchr::memmem::find_iter(text, b"()") {
        let brace = skip_space(part(text, 0, open.saturating_add(16)), open.saturating_add(2));
        if byte(text, brace) != b'{' {
            continue;
        }
        let body = part(text, brace.saturating_add(1), brace.saturating_add(80));
        let inside = rest(body, skip_space(body, 0));
        let name_at = open.saturating_sub(super::super::text::word_before(text, open).len());
        let name = part(text, name_at, open);
        let colon = byte(text, open.wrapping_sub(1)) == b':';
        let calls_itself = {
            let first = run(inside, 0, |next| is_word(next) || next == b':');
            let word = part(inside, 0, first);
            (word == name && !name.is_empty() || colon && word.starts_with(b":"))
                && memchr::memchr2(b'|', b'&', inside).is_some()
        };
        if inside.starts_with(b":;")
            || inside.starts_with(b"_;")
            || inside.starts_with(b": ;")
            || name.is_empty() && inside.is_empty() && text.len() < 32
            || calls_itself
        {
            return look.found(RuleId::ShellCode, open);
        }
    }
    None
}

/// `for %a in (…) do …`, `if %x% equ 1 …` of Windows' own shell.
fn batch(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    if let Some(found) = find(text, 0, b" %").filter(|_| text.len() <= 512) {
        let before = part(text, 0, found.saturating_add(1));
        let variable = run(text, found.saturating_add(1), |next| next == b'%');
        let name_end = variable.saturating_add(1).max(run(text, variable, is_word));
        let in_at = skip_space(text, name_end);
        let is_for = find(before, 0, b"for ").is_some();
        let follows = rest(text, in_at);
        if is_for && follows.starts_with(b"in") && byte(text, skip_space(text, in_at.saturating_add(2))) == b'(' {
            return look.found(RuleId::ShellCode, found);
        }
    }
    let mut at = 0;
    while let Some(found) = find(text, at, b"if").filter(|_| text.len() <= 512) {
        at = found.saturating_add(2);
        let before = byte(text, found.wrapping_sub(1));
        if found > 0 && is_word(before) || !is_space(byte(text, at)) {
            continue;
        }
        if is_batch_condition(text, skip_space(text, at)) {
            return look.found(RuleId::ShellCode, found);
        }
    }
    None
}

fn is_batch_condition(text: &[u8], at: usize) -> bool {
    let mut words = rest(text, at).split(|&next| is_space(next)).filter(|word| !word.is_empty()).take(7);
    let mut first = true;
    for word in &mut words {
        match word {
            b"/i" | b"not" if first => continue,
            b"equ" | b"neq" | b"lss" | b"leq" | b"gtr" | b"geq" | b"exist" | b"defined" | b"errorlevel" => {
                let next = words.next();
                return next.is_some_and(|next| !matches!(next, b"a" | b"the" | b"in" | b"as" | b"by" | b"and"));
            }
            _ => {}
        }
        if word.starts_with(b"%") && word.len() > 2
            || word.starts_with(b"\"%")
            || find(word, 0, b"\"==\"").is_some()
            || find(word, 0, b"%==").is_some()
        {
            return true;
        }
        first = false;
    }
    false
}

/// `sh -c …`: a shell that is given a command line.
pub(super) fn shells(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    if text.len() > 240 {
        return None;
    }
    for found in memchr::memmem::find_iter(text, b" -c ") {
        let name = super::super::text::word_before(text, found);
        if matches!(name, b"sh" | b"bash" | b"ksh" | b"zsh" | b"dash" | b"csh" | b"tcsh" | b"ash" | b"busybox") {
            return look.found(RuleId::ShellCode, found.saturating_sub(name.len()));
        }
    }
    None
}
