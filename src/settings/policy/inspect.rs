//! `[inspect]`: which attacks are looked for, and `exempt` of a tool.

use toml::Value;

use super::InspectPolicy;
use super::fields::{Fields, Report};
use crate::guard::inspect::RuleSet;

/// The most patterns; all are searched for in one pass.
const PATTERNS_MAX: usize = 1024;

/// The shortest pattern: a shorter one would stand in nearly every message.
const PATTERN_BYTES_MIN: usize = 3;

/// The longest.
const PATTERN_BYTES_MAX: usize = 256;

/// The table.
pub(super) fn inspect(value: &Value, report: &mut Report) -> InspectPolicy {
    let Some(mut fields) = Fields::new("inspect".into(), value, report) else { return InspectPolicy::default() };
    let policy = InspectPolicy { off: names(&mut fields, "off"), patterns: patterns(&mut fields) };
    fields.finish(report);
    policy
}

/// A list of classes (`sql-injection`) and rules (`sql-comment`).
pub(super) fn names(fields: &mut Fields<'_>, key: &'static str) -> Vec<String> {
    let example = format!("{key} = [\"xss\", \"sql-comment\"]");
    let allowed = "a list of classes or rules of docs/inspection.md";
    let list = match fields.raw(key) {
        None => return Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => {
            fields.fault(key, None, "is not a list", allowed, &example);
            return Vec::new();
        }
    };
    let mut read = Vec::with_capacity(list.len());
    for value in list {
        match value.as_str().filter(|name| RuleSet::named(name).is_some()) {
            Some(name) => read.push(name.to_owned()),
            None => fields.fault(key, None, "names no class and no rule", allowed, &example),
        }
    }
    fields.effective(key, read.join(", "));
    read
}

fn patterns(fields: &mut Fields<'_>) -> Vec<String> {
    let key = "patterns";
    let example = "patterns = [\"internal.example.com\"]";
    let allowed = "a list of at most 1024 texts of 3 to 256 bytes";
    let list = match fields.raw(key) {
        None => return Vec::new(),
        Some(Value::Array(list)) if list.len() <= PATTERNS_MAX => list,
        Some(_) => {
            fields.fault(key, None, "is not accepted", allowed, example);
            return Vec::new();
        }
    };
    let accepts = |text: &str| (PATTERN_BYTES_MIN..=PATTERN_BYTES_MAX).contains(&text.len());
    let mut read = Vec::with_capacity(list.len());
    for value in list {
        match value.as_str().filter(|text| accepts(text)) {
            Some(text) => read.push(text.to_ascii_lowercase()),
            None => fields.fault(key, None, "has an entry that is not accepted", allowed, example),
        }
    }
    fields.effective(key, format!("{} texts", read.len()));
    read
}
