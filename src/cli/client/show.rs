//! What the client prints. Nothing of the other side drives the terminal, and the token is never in it.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::failure::Failure;
use super::target::Door;
use crate::settings::{MASK, Secret};

/// Longest text of a step, in characters; the interactive client shows more.
const STEP_CHARACTERS: usize = 160;
/// Longest text of anything else, in characters.
const MAX_CHARACTERS: usize = 64 * 1024;
/// A shorter token is no secret, and hiding it would tear other words apart.
const SHORTEST_HIDDEN: usize = 8;

/// Where a message goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Sent,
    Received,
}

/// The client's voice.
pub(super) struct Show {
    door: Door,
    json: bool,
    token: Option<String>,
}

impl Show {
    pub(super) fn new(door: Door, json: bool, token: Option<&Secret>) -> Self {
        let token = token.map(|token| String::from_utf8_lossy(token.expose()).into_owned());
        Self { door, json, token: token.filter(|token| token.len() >= SHORTEST_HIDDEN) }
    }

    /// A step that went well.
    pub(super) fn done(&self, step: &str, took: Duration, text: impl Display) {
        self.step('✓', step, Some(took), &text.to_string());
    }

    /// A step that went well along with another.
    pub(super) fn noted(&self, step: &str, text: impl Display) {
        self.step('✓', step, None, &text.to_string());
    }

    /// A step that was left out, and why.
    pub(super) fn left_out(&self, step: &str, why: impl Display) {
        self.step('-', step, None, &why.to_string());
    }

    /// A step that went wrong, and what to try.
    pub(super) fn failed(&self, step: &str, took: Duration, failure: &Failure) {
        self.step('✗', step, Some(took), &failure.to_string());
        self.line(&format!("  try: {}", failure.advice(self.door)));
    }

    /// What stopped the client outside of any step, and what to try.
    pub(super) fn stopped(&self, failure: &Failure) {
        self.line(&format!("✗ {failure}"));
        self.line(&format!("  try: {}", failure.advice(self.door)));
    }

    fn step(&self, mark: char, step: &str, took: Option<Duration>, text: &str) {
        let took = took.map_or_else(String::new, |took| format!("{:.1} ms", took.as_secs_f64() * 1000.0));
        // A failure is said in full; what went well in a line.
        // Hidden before it is cut: half a token is one too.
        let text = self.hide(text);
        let text = if mark == '✗' { text } else { shortened(&text, STEP_CHARACTERS) };
        self.line(format!("{mark} {step:<12} {took:>10}  {text}").trim_end());
    }

    /// A line for people: on standard output, or beside the messages where those are on it.
    pub(super) fn line(&self, text: &str) {
        let text = self.clean(&shortened(&self.hide(text), MAX_CHARACTERS));
        if self.json { put(&mut io::stderr(), &text) } else { put(&mut io::stdout(), &text) }
    }

    /// A message as it is, as one line of JSON; only where raw messages are asked for.
    pub(super) fn message(&self, way: Way, text: &str) {
        if !self.json {
            return;
        }
        let way = if way == Way::Sent { "sent" } else { "received" };
        let line = match serde_json::from_str::<&serde_json::value::RawValue>(text) {
            Ok(raw) => format!("{{\"{way}\":{}}}", self.clean_json(raw.get())),
            // What is no JSON is shown as a string.
            Err(_) => json!({ way: self.hide(text) }).to_string(),
        };
        put(&mut io::stdout(), &line);
    }

    fn hide(&self, text: &str) -> String {
        match &self.token {
            Some(token) => text.replace(token.as_str(), MASK),
            None => text.to_owned(),
        }
    }

    fn clean(&self, text: &str) -> String {
        self.hide(text).chars().map(|c| if drives_terminal(c) { ' ' } else { c }).collect()
    }

    /// The same JSON without a character that would drive a terminal. Outside of strings those are blanks alone.
    fn clean_json(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in self.hide(text).chars() {
            match c {
                '\n' | '\r' | '\t' => out.push(' '),
                c if drives_terminal(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
                c => out.push(c),
            }
        }
        out
    }
}

/// A closed pipe is no reason to panic: the exit status is what counts.
fn put(to: &mut dyn Write, line: &str) {
    let _ = writeln!(to, "{line}").and_then(|()| to.flush());
}

/// Control characters, and those that turn the direction of what follows.
fn drives_terminal(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// At most `max` characters of `text`.
pub(super) fn shortened(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The texts of a tool's result, or the whole of it where it has none.
pub(super) fn of_result(result: &Value) -> String {
    let content = result.get("content").and_then(Value::as_array);
    let texts: Vec<&str> =
        content.into_iter().flatten().filter_map(|part| part.get("text").and_then(Value::as_str)).collect();
    if texts.is_empty() { result.to_string() } else { texts.join(" ") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nothing_drives_the_terminal_and_the_token_is_hidden() {
        let show = Show::new(Door::Ws, true, Some(&Secret::new("the-very-token")));
        assert_eq!(show.clean("a\x1b[2J\u{9b}b\u{202e}c"), "a [2J b c");
        assert!(!show.clean("so: the-very-token").contains("very"));
        let text = "{\"a\":\n\"\u{9b}\u{202e} the-very-token\"}";
        let cleaned = show.clean_json(text);
        let value: Value = serde_json::from_str(&cleaned).unwrap();
        assert_eq!(value, json!({"a": format!("\u{9b}\u{202e} {MASK}")}), "the same JSON");
        assert!(!cleaned.chars().any(drives_terminal), "{cleaned:?}");
    }
}
