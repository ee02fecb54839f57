//! Where programs are installed, and which version they are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program in `installed`, else in `PATH` or where Debian keeps servers.
pub(super) fn program(name: &str, installed: &Path) -> Option<PathBuf> {
    let candidate = installed.join("bin").join(name);
    let candidate = if candidate.is_file() { Some(candidate) } else { super::super::process::find(name) };
    // Programs are started in directories of their own.
    candidate.and_then(|path| std::path::absolute(path).ok())
}

/// What a program says of its version; `unknown` where it says nothing that looks like one.
pub(super) fn version<const N: usize>(program: &Path, args: [&str; N]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let said = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    number(&String::from_utf8_lossy(&said)).unwrap_or("unknown").to_owned()
}

/// The version of a program that does not say it, from what Cargo writes down beside the directory that it installs into.
pub(super) fn installed_by_cargo(package: &str, program: &Path) -> String {
    let root = program.parent().and_then(Path::parent).unwrap_or_else(|| Path::new("/"));
    let ledger = std::fs::read_to_string(root.join(".crates.toml")).unwrap_or_default();
    ledger_version(&ledger, package).unwrap_or("unknown").to_owned()
}

/// The version in a line like `"name 1.2.3 (source)" = ["program"]`.
fn ledger_version<'a>(ledger: &'a str, package: &str) -> Option<&'a str> {
    ledger.lines().find_map(|line| {
        let mut words = line.strip_prefix('"')?.split(' ');
        (words.next() == Some(package)).then(|| words.next()).flatten()
    })
}

/// The first thing that looks like a version: digits, a dot, and more; behind the word `version`, if that is there.
fn number(said: &str) -> Option<&str> {
    let start = said.to_ascii_lowercase().find("version").unwrap_or(0);
    let part_of_one = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '~');
    let words = said.get(start..)?.split(|c| !part_of_one(c));
    let stripped = words.map(|word| word.strip_prefix('v').unwrap_or(word));
    stripped.into_iter().find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (said, expected) in [
            ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\n", Some("2.6.12-1+deb12u4")),
            ("nginx version: nginx/1.22.1\nbuilt with OpenSSL 3.0.22\n", Some("1.22.1")),
            ("/opt/3.11/bin/envoy  version: 9e5580933739/1.40.0/Clean/RELEASE/BoringSSL\n", Some("1.40.0")),
            ("Version:      3.7.15\nCodename:     x\nGo version:   go1.26.9\n", Some("3.7.15")),
            ("v2.11.7 h1:yj0Y4=\n", Some("2.11.7")),
            ("ringwall 0.1.0\n", Some("0.1.0")),
            ("1.0.7.post20260921\n", Some("1.0.7.post20260921")),
            ("no such option\n", None),
            ("", None),
        ] {
            assert_eq!(number(said), expected, "{said}");
        }
    }

    #[test]
    fn a_version_is_found_in_the_ledger_of_cargo() {
        let ledger = "[v1]\n\"mcp 9.9.9 (x)\" = [\"mcp\"]\n\"mcp-proxy 0.6.0 (registry+x)\" = [\"mcp-proxy\"]\n";
        assert_eq!(ledger_version(ledger, "mcp-proxy"), Some("0.6.0"));
        assert_eq!(ledger_version(ledger, "proxy"), None);
    }

    #[test]
    fn a_program_that_is_nowhere_is_not_found_and_one_in_the_path_is() {
        assert_eq!(program("ringwall-no-such-program", Path::new("/nonexistent")), None);
        assert!(program("sh", Path::new("/nonexistent")).is_some_and(|path| path.is_absolute()));
    }
}
