//! Reading one TOML table key by key, so that every fault in it is reported at once and none repeats a value that may
//! be a secret. A key that nobody asked for is refused, with a suggestion.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use toml::{Table, Value};

use crate::settings::fault::{Effective, Fault, MASK, Source, Warning, clip, nearest, one_line};
use crate::settings::table::microusd;

/// What reading the policy has shown.
#[derive(Default)]
pub(crate) struct Report {
    /// Reasons not to start.
    pub(crate) faults: Vec<Fault>,
    /// Things worth knowing.
    pub(crate) warnings: Vec<Warning>,
    /// Values in force.
    pub(crate) effective: Vec<Effective>,
    /// Environment variables that the policy names.
    pub(crate) referenced: BTreeSet<String>,
}

impl Report {
    /// Adds a fault of the policy.
    pub(crate) fn fault(&mut self, name: &str, value: Option<String>, why: &str, allowed: &str, example: &str) {
        self.faults.push(Fault {
            name: clip(name),
            value,
            source: Source::Policy,
            why: one_line(why),
            allowed: one_line(allowed),
            example: one_line(example),
        });
    }
}

/// One table of the policy.
pub(super) struct Fields<'a> {
    path: String,
    table: &'a Table,
    asked: Vec<&'static str>,
    report: Report,
}

impl<'a> Fields<'a> {
    /// The table at `path`; a fault if `value` is something else.
    pub(super) fn new(path: String, value: &'a Value, report: &mut Report) -> Option<Self> {
        match value {
            Value::Table(table) => Some(Self::of(path, table)),
            _ => {
                report.fault(&path, None, "is not a table", "a table", &format!("[{path}]"));
                None
            }
        }
    }

    /// The same, of something that is known to be a table.
    pub(super) fn of(path: String, table: &'a Table) -> Self {
        Self { path, table, asked: Vec::new(), report: Report::default() }
    }

    /// Dotted path of a key.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value of a key as it stands.
    pub(super) fn raw(&mut self, key: &'static str) -> Option<&'a Value> {
        self.asked.push(key);
        self.table.get(key)
    }

    /// Adds a fault of a key whose value may be shown.
    pub(super) fn fault(&mut self, key: &str, value: Option<String>, why: &str, allowed: &str, example: &str) {
        self.report.fault(&self.path_of(key), value, why, allowed, example);
    }

    /// Adds a value in force, already as it may be shown.
    pub(super) fn effective(&mut self, key: &str, value_shown: String) {
        self.report.effective.push(Effective { name: self.path_of(key), value_shown, source: Source::Policy });
    }

    /// A key read by `read`, shown by `show`; a fault if `read` gives nothing.
    fn key<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        example: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.raw(key)?;
        match read(value) {
            Some(read) => {
                self.effective(key, shown(value));
                Some(read)
            }
            None => {
                self.fault(key, Some(shown(value)), "is not accepted", allowed, &format!("{key} = {example}"));
                None
            }
        }
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.key(key, "true or false", "true", Value::as_bool)
    }

    pub(super) fn whole<T: TryFrom<u64>>(&mut self, key: &'static str, min: u64, max: u64) -> Option<T> {
        self.key(key, &format!("a whole number from {min} to {max}"), &min.to_string(), |value| {
            let number = u64::try_from(value.as_integer()?).ok()?;
            if (min..=max).contains(&number) { T::try_from(number).ok() } else { None }
        })
    }

    pub(super) fn millis(&mut self, key: &'static str) -> Option<Duration> {
        let read = |value: &Value| u64::try_from(value.as_integer()?).ok().filter(|ms| (1..=86_400_000).contains(ms));
        self.key(key, "a whole number of milliseconds from 1 to 86400000", "30000", read).map(Duration::from_millis)
    }

    pub(super) fn text(
        &mut self,
        key: &'static str,
        allowed: &str,
        example: &str,
        accept: impl Fn(&str) -> bool,
    ) -> Option<String> {
        self.key(key, allowed, &format!("\"{example}\""), |value| {
            value.as_str().filter(|text| accept(text)).map(str::to_owned)
        })
    }

    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let (allowed, example) = in_words(words);
        self.key(key, &allowed, &example, |value| find(words, value.as_str()?))
    }

    /// A table of words: each key's value is one of `words`.
    pub(super) fn words<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> BTreeMap<String, T> {
        let (allowed, example) = in_words(words);
        let mut read = BTreeMap::new();
        match self.raw(key) {
            None => {}
            Some(Value::Table(table)) => {
                for (name, value) in table {
                    let path = format!("{key}.{name}");
                    match value.as_str().and_then(|text| find(words, text)) {
                        Some(word) => {
                            self.effective(&path, shown(value));
                            read.insert(name.clone(), word);
                        }
                        None => self.fault(
                            &path,
                            Some(shown(value)),
                            "is not accepted",
                            &allowed,
                            &format!("{name} = {example}"),
                        ),
                    }
                }
            }
            Some(_) => self.fault(key, None, "is not a table", "a table", &format!("{key} = {{ NAME = {example} }}")),
        }
        read
    }

    /// US dollars as micro-dollars: `"0.0079"`, `10` or `0.0079`.
    pub(super) fn usd(&mut self, key: &'static str) -> Option<u64> {
        self.key(key, "US dollars from 0 to 1000000000 with at most six decimals", "\"0.0079\"", |value| match value {
            Value::String(text) => microusd(text).ok(),
            Value::Integer(dollars) => microusd(&dollars.to_string()).ok(),
            // The shortest text that reads as this number is what was written.
            Value::Float(dollars) => microusd(&dollars.to_string()).ok(),
            _ => None,
        })
    }

    /// A key whose value must never be shown, read by `read`.
    pub(super) fn masked<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        example: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.raw(key)?;
        match read(value) {
            Some(read) => {
                self.effective(key, MASK.into());
                Some(read)
            }
            None => {
                self.fault(key, Some(MASK.into()), "is not accepted", allowed, &format!("{key} = {example}"));
                None
            }
        }
    }

    /// Refuses the keys that nobody asked for, and hands over what was found.
    pub(super) fn finish(mut self, report: &mut Report) {
        for key in self.table.keys().filter(|key| !self.asked.contains(&key.as_str())) {
            let path = self.path_of(key);
            let why = match nearest(key, self.asked.iter().copied()) {
                Some(suggestion) => format!("no such key; did you mean {suggestion}?"),
                None => "no such key".into(),
            };
            self.report.fault(&path, None, &why, &self.asked.join(", "), "");
        }
        report.faults.append(&mut self.report.faults);
        report.warnings.append(&mut self.report.warnings);
        report.effective.append(&mut self.report.effective);
    }
}

fn find<T: Copy>(words: &[(&str, T)], text: &str) -> Option<T> {
    words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning)
}

/// What is allowed, and an example, for one of some words.
fn in_words<T>(words: &[(&str, T)]) -> (String, String) {
    let names: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    (names.join(", "), names.first().cloned().unwrap_or_default())
}

/// A value as it may be shown; what has parts is shown by its size only.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => clip(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(_) => "a date".into(),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Table(table) => format!("a table of {}", table.len()),
    }
}
