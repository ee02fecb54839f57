//! What is wrong with the settings, where a value came from, and how it may be shown.

use std::fmt;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The `.env` file.
    DotEnv,
    /// The process environment.
    Environment,
    /// The policy file.
    Policy,
    /// The command line.
    CommandLine,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::DotEnv => ".env",
            Self::Environment => "environment",
            Self::Policy => "policy",
            Self::CommandLine => "command line",
        })
    }
}

/// One reason not to start. Its `Display` is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The variable, or the dotted path in the policy file.
    pub name: String,
    /// The value as it may be shown: masked if it is a secret, cut if it is long. `None`: none was given.
    pub value: Option<String>,
    /// Where the value came from.
    pub source: Source,
    /// What is wrong with it.
    pub why: String,
    /// What is allowed.
    pub allowed: String,
    /// A line that would be accepted.
    pub example: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(value) = &self.value {
            write!(f, "={value}")?;
        }
        write!(f, " ({}): {}", self.source, self.why)?;
        if !self.allowed.is_empty() {
            write!(f, "; allowed: {}", self.allowed)?;
        }
        if !self.example.is_empty() {
            write!(f, "; example: {}", self.example)?;
        }
        Ok(())
    }
}

/// Every reason not to start, and what was warned of beside them. Never without a fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Faults {
    /// The reasons.
    pub faults: Vec<Fault>,
    /// What was warned of beside them.
    pub warnings: Vec<Warning>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

/// Something that does not stop the start but should be known. Its `Display` is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The variable, or the dotted path in the policy file.
    pub name: String,
    /// What should be known; starts in lower case, reads on from the name.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.text)
    }
}

/// A setting in force, as `ringwall check` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The variable, or the dotted path in the policy file.
    pub name: String,
    /// Its value, masked if it is a secret; `none` if it has none.
    pub value_shown: String,
    /// Where it came from.
    pub source: Source,
}

/// What stands for a secret wherever one would be shown.
pub const MASK: &str = "********";

/// The longest value that is shown whole, characters.
const SHOWN_MAX: usize = 100;

/// `text` without control characters and at most about a line long.
pub(super) fn clip(text: &str) -> String {
    let mut shown: String = one_line(text).chars().take(SHOWN_MAX).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// `text` without control characters, so that it stays one line.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A URL without what may be secret in it: user information and query are masked.
pub(super) fn clip_url(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let (before_query, query) = match rest.split_once(['?', '#']) {
        Some((before, _)) => (before, "?…"),
        None => (rest, ""),
    };
    // Whatever stands before an `@`, wherever the `@` stands: a password may itself contain a slash.
    let (user, host) = match before_query.rsplit_once('@') {
        Some((_, host)) => ("***@", host),
        None => ("", before_query),
    };
    let separator = if scheme.is_empty() { "" } else { "://" };
    clip(&format!("{scheme}{separator}{user}{host}{query}"))
}

/// The nearest of `known` to `name`: a slip of one or two letters, or a clear likeness.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let slip = known
        .clone()
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 2 && *distance < candidate.chars().count().div_ceil(2))
        .min_by_key(|(distance, _)| *distance);
    if let Some((_, candidate)) = slip {
        return Some(candidate);
    }
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.87)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| candidate)
}
