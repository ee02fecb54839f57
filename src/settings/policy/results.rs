//! `[results]`: what is looked for in what tools answer; `[tools]`: what becomes of tools whose descriptions change.

use toml::Value;

use super::fields::{Fields, Report};

/// The longest result there may be: what is held of an answer that is looked at.
pub const RESULT_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// The shortest bound: an answer that is shorter says nothing.
const RESULT_BYTES_MIN: u64 = 1024;

/// What becomes of secrets and personal numbers in a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SecretsMode {
    /// Nothing is looked for.
    #[default]
    Off,
    /// Their characters are replaced.
    Mask,
    /// The result is withheld.
    Block,
}

/// What becomes of instructions aimed at the model, and of tools whose descriptions have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FlagMode {
    /// Nothing is looked for.
    #[default]
    Off,
    /// It is recorded, and passes.
    Flag,
    /// It does not pass.
    Block,
}

impl FlagMode {
    /// As the policy writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Flag => "flag",
            Self::Block => "block",
        }
    }
}

/// What the policy says of results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultsPolicy {
    /// The longest answer to a call, bytes.
    pub max_bytes: u32,
    /// Of secrets and personal numbers.
    pub secrets: SecretsMode,
    /// Of instructions aimed at the model.
    pub instructions: FlagMode,
}

impl Default for ResultsPolicy {
    fn default() -> Self {
        Self { max_bytes: RESULT_BYTES_MAX, secrets: SecretsMode::Off, instructions: FlagMode::Off }
    }
}

const SECRETS: &[(&str, SecretsMode)] =
    &[("off", SecretsMode::Off), ("mask", SecretsMode::Mask), ("block", SecretsMode::Block)];

const FLAGS: &[(&str, FlagMode)] = &[("off", FlagMode::Off), ("flag", FlagMode::Flag), ("block", FlagMode::Block)];

/// Reads `[results]`.
pub(super) fn results(value: &Value, report: &mut Report) -> ResultsPolicy {
    let usual = ResultsPolicy::default();
    let Some(mut fields) = Fields::new("results".into(), value, report) else { return usual };
    let policy = ResultsPolicy {
        max_bytes: fields.whole("max_bytes", RESULT_BYTES_MIN, RESULT_BYTES_MAX.into()).unwrap_or(usual.max_bytes),
        secrets: fields.word("secrets", SECRETS).unwrap_or_default(),
        instructions: fields.word("instructions", FLAGS).unwrap_or_default(),
    };
    fields.finish(report);
    policy
}

/// Reads `[tools]`.
pub(super) fn pin(value: &Value, report: &mut Report) -> FlagMode {
    let Some(mut fields) = Fields::new("tools".into(), value, report) else { return FlagMode::Off };
    let mode = fields.word("pin", FLAGS).unwrap_or_default();
    fields.finish(report);
    mode
}
