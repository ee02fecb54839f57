//! What settings are made from: environment, `.env`, policy file, command line. This is the only place that touches
//! the process and the disk; everything after it is a pure function of [`Inputs`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::fault::{Fault, Faults, Source, Warning};
use super::table::RINGWALL_POLICY;

/// The largest `.env` and policy file, bytes.
const FILE_MAX: u64 = 4 << 20;

/// What settings are made from.
#[derive(Clone, Default)]
pub struct Inputs {
    /// The process environment.
    pub environment: Vec<(OsString, OsString)>,
    /// The `.env` file: path and content.
    pub dotenv: Option<(PathBuf, String)>,
    /// The policy file: path and content.
    pub policy: Option<(PathBuf, String)>,
    /// What the command line says.
    pub overrides: CommandLine,
}

/// What the command line says; it wins over everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// `--upstream URL`.
    pub upstream_url: Option<String>,
    /// The command after `--`.
    pub stdio_command: Option<Vec<String>>,
}

impl Inputs {
    /// Reads the process environment, and `.env` and the policy file from the working directory.
    ///
    /// # Errors
    /// If a file cannot be read, is over 4 MiB or is not UTF-8, or if the policy file that is named does not exist.
    pub fn from_process(overrides: CommandLine) -> Result<Self, Faults> {
        Self::read(Path::new(""), std::env::vars_os().collect(), overrides)
    }

    /// The same with another directory and environment.
    ///
    /// # Errors
    /// As for [`Inputs::from_process`].
    pub fn read(
        directory: &Path,
        environment: Vec<(OsString, OsString)>,
        overrides: CommandLine,
    ) -> Result<Self, Faults> {
        let dotenv = read_file(&directory.join(".env"), ".env", Source::DotEnv, false)?;
        let mut inputs = Self { environment, dotenv, policy: None, overrides };
        let (path, source) = inputs.policy_path();
        inputs.policy = read_file(&directory.join(path), RINGWALL_POLICY.spec.name, source, source != Source::Default)?;
        Ok(inputs)
    }

    /// Settings from pairs of text, for tests and tools.
    #[must_use]
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Self {
        Self { environment: pairs.iter().map(|(name, value)| (name.into(), value.into())).collect(), ..Self::default() }
    }

    /// Path of the policy file, and who named it.
    fn policy_path(&self) -> (PathBuf, Source) {
        let spec = &RINGWALL_POLICY.spec;
        let in_environment = self.environment.iter().find(|(name, _)| name == spec.name);
        if let Some((_, value)) = in_environment {
            return (PathBuf::from(value), Source::Environment);
        }
        match self.dotenv_values().0.remove(spec.name) {
            Some(value) => (PathBuf::from(value), Source::DotEnv),
            None => (PathBuf::from(spec.development), Source::Default),
        }
    }

    /// What `.env` sets, and what is wrong with it.
    pub(super) fn dotenv_values(&self) -> (BTreeMap<String, String>, Vec<Fault>, Vec<Warning>) {
        let (mut values, mut faults, mut warnings) = (BTreeMap::new(), Vec::new(), Vec::new());
        let Some((path, content)) = &self.dotenv else {
            return (values, faults, warnings);
        };
        let content = content.strip_prefix('\u{feff}').unwrap_or(content);
        let file = path.display().to_string();
        for item in dotenvy::from_read_iter(content.as_bytes()) {
            match item {
                Ok((name, value)) => match values.get(&name) {
                    Some(earlier) if *earlier != value => {
                        faults.push(Fault { why: "is set twice, with different values".into(), ..dotenv_fault(name) })
                    }
                    _ => drop(values.insert(name, value)),
                },
                Err(dotenvy::Error::LineParse(line, _)) => {
                    // The line itself may hold a secret: only its number is told. The error has the line from the
                    // value on.
                    let rest = line.lines().next().unwrap_or("").trim_end();
                    let is_it = |other: &str| !rest.is_empty() && other.trim_end().ends_with(rest);
                    let why = match content.lines().position(is_it) {
                        Some(index) => format!("line {} cannot be read", index + 1),
                        None => "has a line that cannot be read".into(),
                    };
                    faults.push(Fault {
                        why,
                        allowed: "NAME=value; a value with blanks, # or quotes in single quotes".into(),
                        example: "NAME='a value'".into(),
                        ..dotenv_fault(file.clone())
                    });
                }
                Err(_) => faults.push(Fault { why: "cannot be read".into(), ..dotenv_fault(file.clone()) }),
            }
        }
        warnings.extend(content.lines().filter_map(expanded_name).map(|name| Warning {
            name: name.to_owned(),
            text: "contains a $, which .env expands; put the value in single quotes to keep it as it is".into(),
        }));
        (values, faults, warnings)
    }
}

fn dotenv_fault(name: String) -> Fault {
    Fault {
        name,
        value: None,
        source: Source::DotEnv,
        why: String::new(),
        allowed: String::new(),
        example: String::new(),
    }
}

/// The variable of a `.env` line whose value has a `$` that will be expanded.
fn expanded_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
    let value = value.trim_start();
    let name = name.trim();
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let expands = !value.starts_with('\'') && value.replace("\\$", "").contains('$');
    (is_name && expands).then_some(name)
}

/// A file's content; `None` if it does not exist and need not.
fn read_file(path: &Path, name: &str, source: Source, needed: bool) -> Result<Option<(PathBuf, String)>, Faults> {
    let why = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && !needed => return Ok(None),
        Err(error) => format!("cannot be read: {}", error.kind()),
        Ok(metadata) if metadata.is_dir() => "is a directory".into(),
        Ok(metadata) if metadata.len() > FILE_MAX => "is over 4 MiB".into(),
        Ok(_) => match std::fs::read_to_string(path) {
            Ok(content) => return Ok(Some((path.to_owned(), content))),
            Err(error) if error.kind() == ErrorKind::InvalidData => "is not UTF-8".into(),
            Err(error) => format!("cannot be read: {}", error.kind()),
        },
    };
    let fault = Fault {
        name: name.to_owned(),
        value: Some(super::fault::clip(&path.display().to_string())),
        source,
        why,
        allowed: "a readable file".into(),
        example: String::new(),
    };
    Err(Faults { faults: vec![fault], warnings: Vec::new() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn dotenv(content: &str) -> Inputs {
        Inputs { dotenv: Some((".env".into(), content.into())), ..Inputs::default() }
    }

    #[test]
    fn reads_what_people_write() {
        let content = "\u{feff}# comment\nA=1\n export B = 'two words' \nC=\"x#y\" # why\nD=\n\nE='a$b'\n";
        let (values, faults, warnings) = dotenv(content).dotenv_values();
        assert_eq!(faults, []);
        assert_eq!(warnings, []);
        for (name, value) in [("A", "1"), ("B", "two words"), ("C", "x#y"), ("D", ""), ("E", "a$b")] {
            assert_eq!(values.get(name).map(String::as_str), Some(value), "{name}");
        }
    }

    #[test]
    fn a_bad_line_is_told_by_number_only() {
        let (values, faults, _) = dotenv("A=1\nWS_AUTH_TOKEN=my secret value\nB=2\n").dotenv_values();
        assert_eq!(values.len(), 2);
        assert!(faults[0].why.contains("line 2"), "{}", faults[0]);
        assert!(!faults[0].to_string().contains("secret value"), "{}", faults[0]);
    }

    #[test]
    fn two_values_of_one_name_contradict() {
        assert_eq!(dotenv("A=1\nA=1\n").dotenv_values().1.len(), 0);
        assert_eq!(dotenv("A=1\nA=2\n").dotenv_values().1.len(), 1);
    }

    #[test]
    fn an_expansion_is_warned_of() {
        let (_, _, warnings) = dotenv("A=x$y\nB=x\\$y\n").dotenv_values();
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0].name, "A");
    }

    #[test]
    fn files_come_from_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let nothing = Inputs::read(directory.path(), Vec::new(), CommandLine::default());
        assert!(nothing.is_ok_and(|inputs| inputs.dotenv.is_none() && inputs.policy.is_none()));

        std::fs::write(directory.path().join(".env"), "RINGWALL_POLICY=other.toml\n").unwrap();
        let missing = Inputs::read(directory.path(), Vec::new(), CommandLine::default());
        let fault = missing.err().unwrap().faults.remove(0);
        assert_eq!((fault.name.as_str(), fault.source), ("RINGWALL_POLICY", Source::DotEnv));

        std::fs::write(directory.path().join("other.toml"), "# empty\n").unwrap();
        let inputs = Inputs::read(directory.path(), Vec::new(), CommandLine::default()).ok().unwrap();
        assert_eq!(inputs.policy.unwrap().1, "# empty\n");
    }
}
