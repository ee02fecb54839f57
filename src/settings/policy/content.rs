//! `[content]`: what is looked for in texts that go to people, and what becomes of it.

use std::path::PathBuf;

use toml::Value;

use super::fields::{Fields, Report};
use crate::guard::content::{Severity, Thresholds};

/// The most lists that take the place of the shipped ones.
const LISTS_MAX: usize = 64;

/// What becomes of a text that says what must not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ContentMode {
    /// The call is refused.
    #[default]
    Block,
    /// It is recorded, and the call goes on.
    Monitor,
    /// Nothing is looked for.
    Off,
}

/// What becomes of a text that gives away a secret or a personal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SensitiveMode {
    /// The call is refused.
    Block,
    /// It is recorded, and the call goes on.
    #[default]
    Warn,
    /// Nothing is looked for.
    Off,
}

/// What the policy says of texts that go to people.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ContentPolicy {
    /// Of what the content filter finds.
    pub mode: ContentMode,
    /// From which severity on each category counts.
    pub thresholds: Thresholds,
    /// Files in place of the shipped lists; empty: those.
    pub lists: Vec<PathBuf>,
    /// Of secrets and personal numbers.
    pub sensitive: SensitiveMode,
}

pub(super) const MODES: &[(&str, ContentMode)] =
    &[("block", ContentMode::Block), ("monitor", ContentMode::Monitor), ("off", ContentMode::Off)];

pub(super) const SENSITIVE_MODES: &[(&str, SensitiveMode)] =
    &[("block", SensitiveMode::Block), ("warn", SensitiveMode::Warn), ("off", SensitiveMode::Off)];

const SEVERITIES: &[(&str, Option<Severity>)] = &[
    ("mild", Some(Severity::Mild)),
    ("moderate", Some(Severity::Moderate)),
    ("severe", Some(Severity::Severe)),
    ("off", None),
];

/// Reads the section.
pub(super) fn content(value: &Value, report: &mut Report) -> ContentPolicy {
    let mut policy = ContentPolicy::default();
    let Some(mut fields) = Fields::new("content".into(), value, report) else { return policy };
    policy.mode = fields.word("mode", MODES).unwrap_or_default();
    policy.sensitive = fields.word("sensitive", SENSITIVE_MODES).unwrap_or_default();
    let shipped = policy.thresholds;
    policy.thresholds = Thresholds {
        profanity: fields.word("profanity", SEVERITIES).unwrap_or(shipped.profanity),
        hate: fields.word("hate", SEVERITIES).unwrap_or(shipped.hate),
        threat: fields.word("threat", SEVERITIES).unwrap_or(shipped.threat),
    };
    policy.lists = lists(&mut fields);
    fields.finish(report);
    policy
}

fn lists(fields: &mut Fields<'_>) -> Vec<PathBuf> {
    const ALLOWED: &str = "1 to 64 paths of files";
    const EXAMPLE: &str = "lists = [\"/etc/ringwall/words.txt\"]";
    let Some(value) = fields.raw("lists") else { return Vec::new() };
    let paths: Option<Vec<PathBuf>> =
        value.as_array().filter(|paths| (1..=LISTS_MAX).contains(&paths.len())).and_then(|paths| {
            let path = |value: &Value| value.as_str().filter(|path| !path.is_empty()).map(PathBuf::from);
            paths.iter().map(path).collect()
        });
    match paths {
        Some(paths) => {
            fields.effective("lists", format!("{} files", paths.len()));
            paths
        }
        None => {
            fields.fault("lists", None, "is not accepted", ALLOWED, EXAMPLE);
            Vec::new()
        }
    }
}
