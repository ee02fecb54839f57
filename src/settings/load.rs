//! From [`Inputs`] to [`Settings`]: a pure function that reports every fault at once.

use std::collections::BTreeMap;

use super::build::Reader;
use super::fault::{Effective, Fault, Faults, MASK, Source, Warning, clip, clip_url};
use super::inputs::Inputs;
use super::policy::load::{Lookup, load_policy};
use super::table::{Kind, Spec, TABLE};
use super::tree::{Profile, Settings};
use super::{rules, unknown};

/// Settings that have been accepted, and what is to be said about them.
#[derive(Clone)]
pub struct Loaded {
    /// The tree.
    pub settings: Settings,
    /// What does not stop the start but should be known.
    pub warnings: Vec<Warning>,
    /// Every setting in force, in the order of the documentation; then the policy's.
    pub effective: Vec<Effective>,
}

impl Settings {
    /// Reads, validates and assembles everything.
    ///
    /// # Errors
    /// Every fault that was found; with any fault there are no settings.
    pub fn load(inputs: &Inputs) -> Result<Loaded, Faults> {
        let (dotenv, dotenv_faults, dotenv_warnings) = inputs.dotenv_values();
        let mut read = Reader { values: Values::default(), profile: Profile::Development, faults: dotenv_faults };
        read.values = Values::gather(inputs, &dotenv, &mut read.faults);
        let mut warnings = dotenv_warnings;

        let policy = load_policy(inputs, &Lookup { environment: &inputs.environment, dotenv: &dotenv }, read.timeout());
        read.faults.extend(policy.report.faults);
        warnings.extend(policy.report.warnings);
        unknown::look(inputs, &dotenv, &policy.report.referenced, &mut warnings);

        let Some(settings) = read.settings(policy.policy) else {
            read.faults.push(Fault {
                name: "settings".into(),
                value: None,
                source: Source::Default,
                why: "a built-in default is not accepted; this is a fault of the program".into(),
                allowed: String::new(),
                example: String::new(),
            });
            return Err(Faults { faults: read.faults, warnings });
        };
        rules::apply(&settings, &read.values, &mut read.faults, &mut warnings);
        if !read.faults.is_empty() {
            return Err(Faults { faults: read.faults, warnings });
        }
        let mut effective: Vec<_> =
            TABLE.iter().map(|row| read.values.effective(row.spec(), settings.profile)).collect();
        effective.extend(policy.report.effective);
        Ok(Loaded { settings, warnings, effective })
    }
}

/// A value that somebody gave.
pub(super) struct Given {
    pub(super) text: String,
    pub(super) source: Source,
    /// The variable that was used, which may be the older name.
    pub(super) variable: &'static str,
}

/// The values that somebody gave, by setting.
#[derive(Default)]
pub(super) struct Values(BTreeMap<&'static str, Given>);

impl Values {
    /// The environment wins over `.env`; a name and its older name may not contradict each other anywhere.
    fn gather(inputs: &Inputs, dotenv: &BTreeMap<String, String>, faults: &mut Vec<Fault>) -> Self {
        let mut values = BTreeMap::new();
        for spec in TABLE.iter().map(|row| row.spec()) {
            let mut found: Vec<Given> = Vec::new();
            for variable in std::iter::once(spec.name).chain(spec.alias) {
                let in_environment = inputs.environment.iter().find(|(name, _)| name == variable);
                if let Some((_, value)) = in_environment {
                    match value.to_str() {
                        Some(text) => found.push(Given { text: text.into(), source: Source::Environment, variable }),
                        None => faults.push(Fault {
                            name: variable.into(),
                            value: None,
                            source: Source::Environment,
                            why: "is not UTF-8".into(),
                            allowed: spec.kind.allowed(),
                            example: example(spec, variable),
                        }),
                    }
                } else if let Some(text) = dotenv.get(variable) {
                    found.push(Given { text: text.clone(), source: Source::DotEnv, variable });
                }
            }
            if let [first, second] = found.as_slice()
                && first.text.trim() != second.text.trim()
            {
                faults.push(Fault {
                    name: second.variable.into(),
                    value: Some(shown(spec, &second.text)),
                    source: second.source,
                    why: format!("contradicts {} ({}), whose older name it is", first.variable, first.source),
                    allowed: "one of the two, or the same value in both".into(),
                    example: example(spec, spec.name),
                });
            }
            // Where two names contradict each other, production's rules are applied as well, so that all faults come
            // at once.
            let strict = found.iter().position(|given| given.text.trim() == "production");
            if !found.is_empty() {
                values.insert(spec.name, found.swap_remove(strict.unwrap_or(0)));
            }
        }
        Self(values)
    }

    /// What somebody gave for a setting.
    pub(super) fn given(&self, spec: &Spec) -> Option<&Given> {
        self.0.get(spec.name)
    }

    /// A fault of a setting, its value masked if need be.
    pub(super) fn fault(&self, spec: &Spec, why: impl Into<String>) -> Fault {
        let given = self.given(spec);
        let variable = given.map_or(spec.name, |given| given.variable);
        Fault {
            name: variable.into(),
            value: given.map(|given| shown(spec, &given.text)),
            source: given.map_or(Source::Default, |given| given.source),
            why: why.into(),
            allowed: spec.kind.allowed(),
            example: example(spec, variable),
        }
    }

    fn effective(&self, spec: &Spec, profile: Profile) -> Effective {
        let (text, source) = match self.given(spec) {
            Some(given) => (given.text.as_str(), given.source),
            None => (spec.default_for(profile), Source::Default),
        };
        let value_shown = if text.trim().is_empty() { "none".into() } else { shown(spec, text) };
        Effective { name: spec.name.into(), value_shown, source }
    }
}

/// A value as it may be shown.
fn shown(spec: &Spec, text: &str) -> String {
    match spec.kind {
        _ if spec.is_secret() => MASK.into(),
        // It was not accepted, perhaps because of a password in it.
        Kind::Url | Kind::Origins => text.split(',').map(clip_url).collect::<Vec<_>>().join(","),
        _ => clip(text.trim()),
    }
}

/// A line that would be accepted. None for a secret: it would be copied and so be no secret.
fn example(spec: &Spec, variable: &str) -> String {
    if spec.is_secret() {
        return "run `ringwall init` for fresh secrets".into();
    }
    format!("{variable}={}", spec.example)
}
