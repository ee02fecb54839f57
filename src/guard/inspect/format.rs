//! What is checked of a value's form: null bytes, telephone numbers, addresses, URLs, and keys that reach what all objects have.

use super::Kind;
use super::phrases::List;
use super::rules::{Finding, Looker, RuleId};
use super::text::{byte, is_word, rest, skip_space};

/// Looks at the form of a value of this kind. `value` is the value as it is, `look.text` in lower case.
pub(super) fn look(look: &Looker<'_>, kind: Kind, value: &str) -> Option<Finding> {
    if let Some(at) = memchr::memchr(0, look.text)
        && let Some(finding) = look.found(RuleId::NullByte, at)
    {
        return Some(finding);
    }
    match kind {
        Kind::Phone if !is_phone(value) => look.found(RuleId::NotPhone, 0),
        Kind::Email if !is_email(value) => look.found(RuleId::NotEmail, 0),
        Kind::Url if !is_url(look.text) => look.found(RuleId::NotUrl, 0),
        _ => None,
    }
}

/// E.164: a plus sign, a country code that does not begin with nought, at most 15 digits, and at least 7.
#[must_use]
pub(super) fn is_phone(value: &str) -> bool {
    let Some(digits) = value.strip_prefix('+') else { return false };
    (7..=15).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit()) && !digits.starts_with('0')
}

/// One address as mail servers take them, without a name, a comment or a quoted local part.
#[must_use]
pub(super) fn is_email(value: &str) -> bool {
    let Some((local, domain)) = value.split_once('@') else { return false };
    let local_ok = !local.is_empty()
        && local.len() <= 64
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && local.chars().all(|letter| letter.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(letter));
    let domain_ok = domain.len() <= 253
        && domain.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|letter| letter.is_alphanumeric() || letter == '-')
        });
    local_ok && domain_ok
}

/// http, https, or without a scheme at all: what begins with a path or a host.
fn is_url(text: &[u8]) -> bool {
    let begin = rest(text, skip_space(text, 0));
    match memchr::memchr3(b':', b'/', b'?', begin) {
        Some(colon) if byte(begin, colon) == b':' => {
            let scheme = begin.get(..colon).unwrap_or_default();
            let is_port = byte(begin, colon.saturating_add(1)).is_ascii_digit();
            matches!(scheme, b"http" | b"https" | b"ws" | b"wss" | b"mailto" | b"tel")
                || is_port && scheme.iter().all(|&next| is_word(next) || matches!(next, b'.' | b'-'))
        }
        _ => true,
    }
}

/// Phrases of no other list.
pub(super) const OTHER: &[&[u8]] = &[b"proto", b"document.", b"window.", b"location."];

/// `__proto__`, `prototype`, `constructor.prototype`, as a key or as a path in one.
pub(super) fn is_prototype_key(key: &str) -> bool {
    let mut parts = key.split(['.', '[', ']', '/', '"', '\'']).filter(|part| !part.is_empty());
    parts.any(|part| matches!(part.trim(), "__proto__" | "prototype"))
}

/// A path to a prototype in a value that is code or a query: `__proto__[x]=1`, `"__proto__":`, `constructor.prototype.x`, `constructor[prototype]`.
pub(super) fn prototype_path(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    if !look.has.has(List::Other, b"proto") {
        return None;
    }
    for found in memchr::memmem::find_iter(text, b"proto") {
        let hit =
            if rest(text, found).starts_with(b"proto__") && text.get(found.saturating_sub(2)..found) == Some(b"__") {
                let end = found.saturating_add(7);
                let next = byte(text, end);
                let before = byte(text, found.wrapping_sub(3));
                matches!(next, b'[' | b']')
                    || next == b'.' && is_assigned(text, end)
                    || matches!(next, b'"' | b'\'') && byte(text, skip_space(text, end.saturating_add(1))) == b':'
                    || before == b'[' && next == b']'
            } else if rest(text, found).starts_with(b"prototype") {
                let before = rest(text, found.saturating_sub(14));
                (before.starts_with(b"constructor.prototype")
                    || rest(text, found.saturating_sub(12)).starts_with(b"constructor.prototype")
                    || rest(text, found.saturating_sub(12)).starts_with(b"constructor[prototype"))
                    && is_assigned(text, found.saturating_add(9))
            } else {
                false
            };
        if hit {
            return look.found(RuleId::PrototypeKey, found);
        }
    }
    None
}

/// Does what begins at `at` go on to an assignment: `.x=`, `[x]=`, `].x =`?
fn is_assigned(text: &[u8], at: usize) -> bool {
    let near = super::text::part(text, 0, at.saturating_add(128));
    let end =
        super::text::run(near, at, |next| is_word(next) || matches!(next, b'.' | b'[' | b']' | b'"' | b'\'' | b'-'));
    let text = near;
    let equals = skip_space(text, end);
    end > at && byte(text, equals) == b'=' && byte(text, equals.saturating_add(1)) != b'='
}
