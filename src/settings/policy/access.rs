//! Which tools a principal may list and call: `tools` and `deny_tools` of an agent, a tier, or a kind of principal.

use toml::Value;

use super::fields::{Fields, Report};
use super::{Principals, ToolAccess, ToolPattern};
use crate::settings::fault::clip;

/// The most patterns under one key. With [`PATTERN_BYTES_MAX`] it bounds what one call may cost to look up.
const PATTERNS_MAX: usize = 256;

/// The longest pattern.
const PATTERN_BYTES_MAX: usize = 256;

const ALLOWED: &str =
    "a list of at most 256 tools: names of 1 to 256 characters, in which * stands for any, or { upstream, tool }";
const EXAMPLE: &str = "[\"comms_*\", { upstream = \"crm\", tool = \"lookup_*\" }]";

impl Principals {
    /// Each kind by the name that it has in the file.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &ToolAccess)> {
        [("door", &self.door), ("anonymous", &self.anonymous), ("demo", &self.demo), ("agent", &self.agent)].into_iter()
    }
}

/// `[principal.KIND]`, each of the kinds that there are.
pub(super) fn principals(value: &Value, report: &mut Report) -> Principals {
    let mut principals = Principals::default();
    let Some(mut kinds) = Fields::new("principal".into(), value, report) else { return principals };
    let places = [
        ("door", &mut principals.door),
        ("anonymous", &mut principals.anonymous),
        ("demo", &mut principals.demo),
        ("agent", &mut principals.agent),
    ];
    for (kind, place) in places {
        let path = kinds.path_of(kind);
        let Some(mut fields) = kinds.raw(kind).and_then(|value| Fields::new(path, value, report)) else { continue };
        *place = access(&mut fields, report);
        fields.finish(report);
    }
    kinds.finish(report);
    principals
}

/// `tools` and `deny_tools` of one table.
pub(super) fn access(fields: &mut Fields<'_>, report: &mut Report) -> ToolAccess {
    ToolAccess {
        tools: patterns(fields, "tools", report),
        deny_tools: patterns(fields, "deny_tools", report).unwrap_or_default(),
    }
}

fn patterns(fields: &mut Fields<'_>, key: &'static str, report: &mut Report) -> Option<Vec<ToolPattern>> {
    let example = format!("{key} = {EXAMPLE}");
    let list = match fields.raw(key)? {
        Value::Array(list) if list.len() <= PATTERNS_MAX => list,
        _ => {
            fields.fault(key, None, "is not accepted", ALLOWED, &example);
            // What was to be restricted is not let go: nothing is started with a fault, whoever reads this.
            return Some(Vec::new());
        }
    };
    let mut patterns = Vec::with_capacity(list.len());
    for value in list {
        let pattern = match value {
            Value::String(tool) => Some(ToolPattern { upstream: None, tool: tool.clone() }),
            Value::Table(_) => of_upstream(fields, key, value, report),
            _ => None,
        };
        match pattern.filter(|pattern| is_pattern(&pattern.tool)) {
            Some(pattern) => patterns.push(pattern),
            None => fields.fault(key, None, "has an entry that is not accepted", ALLOWED, &example),
        }
    }
    fields.effective(key, shown(&patterns));
    Some(patterns)
}

/// `{ upstream = "NAME", tool = "PATTERN" }`; without `tool`, all of that upstream.
fn of_upstream(fields: &Fields<'_>, key: &'static str, value: &Value, report: &mut Report) -> Option<ToolPattern> {
    let mut inner = Fields::new(fields.path_of(key), value, report)?;
    let upstream = inner.raw("upstream").and_then(Value::as_str).map(str::to_owned);
    let tool = match inner.raw("tool") {
        None => Some("*".to_owned()),
        Some(value) => value.as_str().map(str::to_owned),
    };
    inner.finish(report);
    Some(ToolPattern { upstream: Some(upstream?), tool: tool? })
}

fn is_pattern(text: &str) -> bool {
    !text.is_empty() && text.len() <= PATTERN_BYTES_MAX && !text.chars().any(char::is_control)
}

/// As `ringwall check` shows it: few are named, many are counted.
fn shown(patterns: &[ToolPattern]) -> String {
    const SHOWN: usize = 4;
    let one = |pattern: &ToolPattern| match &pattern.upstream {
        Some(upstream) => format!("{} of {}", clip(&pattern.tool), clip(upstream)),
        None => clip(&pattern.tool),
    };
    let first = patterns.iter().take(SHOWN).map(one).collect::<Vec<_>>().join(", ");
    match patterns.len() {
        0 => "none".into(),
        count if count > SHOWN => format!("{first} and {} more", count - SHOWN),
        _ => first,
    }
}
