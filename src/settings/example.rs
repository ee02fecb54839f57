//! The text of `.env.example`, made from the table, so that it can be neither incomplete nor out of date.

use std::fmt::Write;

use super::table::{Spec, TABLE};
use super::tree::Profile;

/// `.env.example`: every setting with its meaning, what is allowed and its default, all commented out.
#[must_use]
pub fn env_example() -> String {
    let mut text = String::from(
        "# Ringwall settings. Every line is commented out and shows the default: copy this file to .env and change what you need,\n\
         # or run `ringwall init`, which writes a .env with fresh secrets. The process environment wins over .env.\n\
         # `ringwall check` shows what is in force and where it comes from.\n",
    );
    let mut section = "";
    for spec in TABLE.iter().map(|row| row.spec()) {
        if spec.section != section {
            section = spec.section;
            let _ = writeln!(text, "\n# ---- {section} ----");
        }
        let _ = write!(text, "\n{}", entry(spec));
    }
    text
}

fn entry(spec: &Spec) -> String {
    let (development, production) = (spec.default_for(Profile::Development), spec.default_for(Profile::Production));
    let mut text = format!("# {}\n# Allowed: {}.\n", spec.help, spec.kind.allowed());
    if let Some(alias) = spec.alias {
        let _ = writeln!(text, "# Also read as {alias}.");
    }
    if development != production {
        let or_none = |default: &'static str| if default.is_empty() { "none" } else { default };
        let (development, production) = (or_none(development), or_none(production));
        let _ = writeln!(text, "# Default: {development} in development, {production} in production.");
    } else if development.is_empty() && !spec.is_secret() {
        let _ = writeln!(text, "# Default: none. Example: {}", spec.example);
    } else if development.is_empty() {
        text.push_str("# Default: none.\n");
    }
    let _ = writeln!(text, "#{}={development}", spec.name);
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::settings::{Inputs, Settings};

    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example");

    /// To bring the file up to date: `RINGWALL_BLESS=1 cargo test env_example`.
    #[test]
    fn env_example_is_up_to_date() {
        if std::env::var_os("RINGWALL_BLESS").is_some() {
            std::fs::write(PATH, env_example()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(PATH).unwrap(),
            env_example(),
            "run RINGWALL_BLESS=1 cargo test env_example"
        );
    }

    #[test]
    fn every_line_of_it_is_the_default() {
        let uncommented: String = env_example()
            .lines()
            .filter_map(|line| line.strip_prefix('#').filter(|line| !line.starts_with(' ')))
            .fold(String::new(), |text, line| text + line + "\n");
        assert_eq!(uncommented.lines().count(), TABLE.len());
        let inputs = Inputs { dotenv: Some((".env".into(), uncommented)), ..Inputs::default() };
        let (written, default) = (Settings::load(&inputs), Settings::load(&Inputs::default()));
        assert!(
            written.as_ref().is_ok_and(|written| { default.is_ok_and(|default| default.settings == written.settings) })
        );
    }
}
