//! The payloads, as the calls that carry them.

use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::verdict::Verdict;

/// One call, and what is known of it.
pub(super) struct Row {
    pub(super) source: String,
    pub(super) id: String,
    pub(super) class: String,
    /// `attack`, `attack-unverified`, or nothing for benign ones.
    pub(super) label: String,
    pub(super) tool: String,
    /// A JSON object.
    pub(super) arguments: String,
}

#[derive(Deserialize)]
struct Line {
    source: String,
    id: String,
    class: String,
    #[serde(default)]
    label: String,
    #[serde(default)]
    payload: Option<String>,
    #[serde(default)]
    tool: Option<String>,
    #[serde(default)]
    arguments: Option<Box<RawValue>>,
}

impl Row {
    pub(super) fn is_attack(&self) -> bool {
        self.label.starts_with("attack")
    }

    /// By those who have collected it.
    pub(super) fn is_verified(&self) -> bool {
        self.label == "attack"
    }

    /// Without the account that it is published under.
    pub(super) fn short_source(&self) -> &str {
        self.source.rsplit('/').next().unwrap_or(&self.source)
    }

    /// One line for a person.
    pub(super) fn as_line(&self, verdict: &Verdict) -> String {
        let arguments: serde_json::Value = serde_json::from_str(&self.arguments).unwrap_or_default();
        serde_json::json!({"source": self.source, "id": self.id, "class": self.class, "label": self.label,
                           "verdict": verdict.shown(), "tool": self.tool, "arguments": arguments})
        .to_string()
    }
}

/// Reads both sets, every `every`th row.
pub(super) fn read(data: &Path, every: u32) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for name in ["attacks.jsonl", "benign.jsonl"] {
        let file = std::fs::File::open(data.join(name))?;
        for (number, line) in BufReader::new(file).lines().enumerate() {
            if number % every as usize == 0 {
                rows.push(row(&line?).map_err(|error| io::Error::other(format!("{name}:{}: {error}", number + 1)))?);
            }
        }
    }
    Ok(rows)
}

fn row(line: &str) -> Result<Row, serde_json::Error> {
    let Line { source, id, class, label, payload, tool, arguments } = serde_json::from_str(line)?;
    let arguments = match (arguments, payload) {
        (Some(arguments), _) => arguments.get().to_owned(),
        (None, payload) => serde_json::json!({"text": payload}).to_string(),
    };
    Ok(Row { source, id, class, label, tool: tool.unwrap_or_else(|| "add_note".into()), arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attacks_become_the_text_of_a_note_and_benign_calls_stay_as_they_are() -> Result<(), serde_json::Error> {
        let attack = row(r#"{"source":"a/b","id":"1","class":"xss","label":"attack","payload":"<x \"y\">"}"#)?;
        assert!(attack.is_attack() && attack.is_verified());
        assert_eq!((attack.tool.as_str(), attack.arguments.as_str()), ("add_note", r#"{"text":"<x \"y\">"}"#));
        assert_eq!(attack.short_source(), "b");
        let benign = row(r#"{"source":"a","id":"2","class":"agent-call","tool":"t","arguments":{"n" : 1.0}}"#)?;
        assert!(!benign.is_attack());
        assert_eq!((benign.tool.as_str(), benign.arguments.as_str()), ("t", r#"{"n" : 1.0}"#));
        let fuzz = row(r#"{"source":"a","id":"3","class":"xss","label":"attack-unverified","payload":"x"}"#)?;
        assert!(fuzz.is_attack() && !fuzz.is_verified());
        Ok(())
    }
}
