//! Keys that some parsers take for one of the protocol's own.
//!
//! JSON keys are exact, but Go's `encoding/json` folds case: to such a server `{"name":"safe","Name":"danger"}` calls `danger`.
//! Wherever the protocol reads a key, a key that only folds to it is refused.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

/// The prefix of MCP's own `_meta` keys.
pub(super) const META: &str = "io.modelcontextprotocol/";

const fn fold(c: char) -> char {
    match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    }
}

fn folded(key: &str) -> impl Iterator<Item = char> {
    key.chars().map(fold)
}

/// Is `key` not `known` but taken for it by a parser that folds case? Two letters outside of ASCII fold to ASCII ones: ſ and K.
pub(crate) fn is_lookalike(key: &str, known: &str) -> bool {
    if key.len() == known.len() {
        return key != known && key.eq_ignore_ascii_case(known);
    }
    if key.len() < known.len() || key.is_ascii() {
        return false;
    }
    folded(key).eq(known.chars().map(fold))
}

pub(super) fn imitates(key: &str, known: &[&str]) -> bool {
    known.iter().any(|known| is_lookalike(key, known))
}

/// Does this `_meta` key, which is none of the protocol's, fold to one of them? (No letter outside of ASCII folds to one of the
/// prefix's, so the prefix has its own length in any lookalike.)
pub(super) fn imitates_meta(key: &str) -> bool {
    const KEYS: [&str; 5] = ["protocolVersion", "clientCapabilities", "clientInfo", "subscriptionId", "logLevel"];
    if is_lookalike(key, "progressToken") {
        return true;
    }
    match key.split_at_checked(META.len()) {
        Some((head, tail)) if head.eq_ignore_ascii_case(META) => KEYS.contains(&tail) || imitates(tail, &KEYS),
        _ => false,
    }
}
