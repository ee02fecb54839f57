//! CRLF injection: line ends that begin a header, an answer or a protocol's command; and filters of directory searches.
//!
//! Line ends are a text's own. What is refused in a text are line ends that were hidden behind an encoding with a header or command behind them, and a raw
//! one behind a single word with a header behind it that only servers send. In a `header` argument any line end is refused.

use super::peel::{HIDDEN_CR, HIDDEN_LF};
use super::rules::{Finding, Looker, RuleId};
use super::text::{Marks, byte, is_space, is_word, part, rest, run, skip_space};

/// Looks for header injection in a value in lower case.
pub(super) fn look(look: &Looker<'_>, is_header: bool) -> Option<Finding> {
    if is_header
        && let Some(at) = look.text.iter().position(|next| matches!(next, b'\r' | b'\n' | &HIDDEN_CR | &HIDDEN_LF))
    {
        return look.found(RuleId::CrlfLine, at);
    }
    let when =
        |signs: Marks, read: fn(&Looker<'_>) -> Option<Finding>| if look.marks.any(signs) { read(look) } else { None };
    when(Marks::LINE_HIDDEN, hidden).or_else(|| when(Marks::LINE, raw)).or_else(|| when(Marks::PARENTHESIS, filter))
}

fn hidden(look: &Looker<'_>) -> Option<Finding> {
    if !look.peeled {
        return None;
    }
    let text = look.text;
    let mut at = 0;
    while let Some(end) = memchr::memchr2(HIDDEN_CR, HIDDEN_LF, rest(text, at)).map(|found| at.saturating_add(found)) {
        at = run(text, end, |next| matches!(next, HIDDEN_CR | HIDDEN_LF));
        let line = rest(text, skip_space(text, at));
        if is_header_line(line) || is_command_line(line) || byte(text, end) == HIDDEN_CR && is_assignment(line) {
            return look.found(RuleId::CrlfHeader, end);
        }
    }
    None
}

/// `name: value`, or the first line of a message.
fn is_header_line(line: &[u8]) -> bool {
    let name = run(line, 0, |next| next.is_ascii_alphanumeric() || next == b'-');
    let is_name = name >= 2
        && byte(line, name) == b':'
        && byte(line, name.saturating_add(1)) != b'/'
        && part(line, 0, name).iter().any(u8::is_ascii_alphabetic);
    is_name
        || line.starts_with(b"http/1")
        || line.starts_with(b"http/0")
        || is_request_line(line)
        || line.starts_with(b"<script")
        || line.starts_with(b"<html")
}

fn is_request_line(line: &[u8]) -> bool {
    let method = [&b"get "[..], b"post ", b"put ", b"head ", b"delete ", b"options "]
        .iter()
        .any(|method| line.starts_with(method));
    method && memchr::memmem::find(part(line, 0, 256), b"http/").is_some()
}

/// A command of SMTP, IMAP, POP3, or a setting of a server.
fn is_command_line(line: &[u8]) -> bool {
    const COMMANDS: [&[u8]; 28] = [
        b"mail from",
        b"rcpt to",
        b"ehlo ",
        b"helo ",
        b"data",
        b"rset",
        b"vrfy ",
        b"expn ",
        b"auth ",
        b"starttls",
        b"quit",
        b"retr ",
        b"dele ",
        b"uidl",
        b"apop ",
        b"top ",
        b"user ",
        b"pass ",
        b"stat",
        b"list ",
        b"noop",
        b"capa",
        b"stls",
        b"fetch ",
        b"select ",
        b"session.",
        b"allow_url",
        b"auto_prepend",
    ];
    let tagged = run(line, 0, |next| next.is_ascii_alphanumeric());
    let behind_tag = rest(line, skip_space(line, tagged));
    const TAGGED: [&[u8]; 14] = [
        b"list ",
        b"select ",
        b"fetch ",
        b"login ",
        b"logout",
        b"create ",
        b"delete ",
        b"append ",
        b"copy ",
        b"store ",
        b"examine ",
        b"status ",
        b"subscribe ",
        b"search ",
    ];
    COMMANDS.iter().any(|command| {
        line.starts_with(command)
            && (command.ends_with(b" ")
                || !is_word(byte(line, command.len()))
                || command.ends_with(b".")
                || command.ends_with(b"_url"))
    }) || tagged > 0
        && part(line, 0, tagged).iter().any(u8::is_ascii_digit)
        && TAGGED.iter().any(|command| behind_tag.starts_with(command))
}

/// `name=value` behind a hidden line end.
fn is_assignment(line: &[u8]) -> bool {
    let name = run(line, 0, is_word);
    name > 0 && byte(line, name) == b'='
}

/// Raw line ends: only with headers that servers alone send, and only behind a single word.
fn raw(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    let end = memchr::memchr2(b'\r', b'\n', part(text, 0, 256))?;
    let first = part(text, 0, end);
    if first.iter().any(|&next| is_space(next)) {
        return None;
    }
    let line = rest(text, skip_space(text, end));
    const SENT: [&[u8]; 6] =
        [b"set-cookie:", b"location:", b"content-length:", b"transfer-encoding:", b"http/1.1 200", b"http/1.0 200"];
    if SENT.iter().any(|header| line.starts_with(header)) {
        return look.found(RuleId::CrlfHeader, end);
    }
    None
}

/// `)(name=`, `*)(|(`: a filter that is closed and begun anew.
fn filter(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    let mut at = 0;
    let first_open = memchr::memchr(b'(', text).unwrap_or(text.len());
    while let Some(close) = memchr::memchr(b')', rest(text, at)).map(|found| at.saturating_add(found)) {
        let open = run(text, close, |next| next == b')');
        at = open;
        if byte(text, open) != b'(' {
            continue;
        }
        let inside = run(text, open.saturating_add(1), |next| matches!(next, b'(' | b'&' | b'|' | b'!'));
        let has_operator = inside > open.saturating_add(1);
        let name_end = run(text, inside, |next| is_word(next) || next == b'-');
        let is_term = name_end > inside
            && (byte(text, name_end) == b'='
                || matches!(byte(text, name_end), b'>' | b'<' | b'~')
                    && byte(text, name_end.saturating_add(1)) == b'=')
            && byte(text, name_end.saturating_add(1)) != b'=';
        let value = byte(text, name_end.saturating_add(1));
        let unopened = close < first_open;
        if unopened && (is_term && value != b' ' || has_operator && name_end >= text.len()) {
            return look.found(RuleId::LdapFilter, close);
        }
    }
    None
}
