//! The table of settings: one row a variable, and everything that is known of it.
//!
//! Loading, `ringwall check`, the did-you-mean and the test that keeps `.env.example` complete all read this table, so
//! that a setting cannot exist in one of them only. A row knows the type of its value: `read.get(&MCP_BRIDGE_PORT)`
//! gives a `u16`.

mod parse;
mod parse_secret;
mod rows;

pub(crate) use parse::microusd;
pub(crate) use parse_secret::hex32;
pub use rows::*;

use super::tree::Profile;

/// What is known of a setting, apart from its type.
#[derive(Debug)]
pub struct Spec {
    /// The variable.
    pub name: &'static str,
    /// An older name that is read as well.
    pub alias: Option<&'static str>,
    /// The heading under which it is documented.
    pub section: &'static str,
    /// What a value looks like.
    pub kind: Kind,
    /// Default in development, as it would be written; empty: none.
    pub development: &'static str,
    /// Default in production, as it would be written; empty: none.
    pub production: &'static str,
    /// A value that is accepted.
    pub example: &'static str,
    /// What it means, in one or two sentences.
    pub help: &'static str,
}

impl Spec {
    /// The default of a profile, as it would be written; empty: none.
    #[must_use]
    pub fn default_for(&self, profile: Profile) -> &'static str {
        match profile {
            Profile::Development => self.development,
            Profile::Production => self.production,
        }
    }

    /// Whether the value must never be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret | Kind::Key256 | Kind::WebhookKeys | Kind::SecretUrl)
    }
}

/// What a value looks like.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number within bounds, both included.
    Whole {
        /// Least.
        min: u64,
        /// Greatest.
        max: u64,
        /// What is counted: `ms`, `s`, `bytes`, `days`, or nothing.
        unit: &'static str,
    },
    /// A whole number within bounds, or `auto`.
    WholeOrAuto {
        /// Least.
        min: u64,
        /// Greatest.
        max: u64,
    },
    /// US dollars with at most six decimals.
    Usd,
    /// A number from 0 to 1.
    Ratio,
    /// One of some words.
    Word(&'static [&'static str]),
    /// An IP address.
    Address,
    /// Addresses and CIDRs, separated by commas.
    Networks,
    /// Hosts, separated by commas.
    Hosts,
    /// Origins, separated by commas, or `*`.
    Origins,
    /// HTTP methods or header names, separated by commas.
    Tokens,
    /// IANA names of cipher suites, separated by commas.
    CipherSuites,
    /// A path in the file system.
    File,
    /// The path of a URL.
    UrlPath,
    /// An `http` or `https` URL.
    Url,
    /// The same, and it carries a key.
    SecretUrl,
    /// A name of printable characters, such as an issuer's.
    Name,
    /// A token or key of printable characters.
    Secret,
    /// 64 hexadecimal digits.
    Key256,
    /// `whsec_` and base64, several separated by blanks.
    WebhookKeys,
}

impl Kind {
    /// What is allowed, in words.
    #[must_use]
    pub fn allowed(self) -> String {
        match self {
            Self::Flag => "true or false".into(),
            Self::Whole { min, max, unit: "" } => format!("a whole number from {min} to {max}"),
            Self::Whole { min, max, unit } => format!("a whole number of {} from {min} to {max}", unit_in_words(unit)),
            Self::WholeOrAuto { min, max } => {
                format!("a whole number from {min} to {max}, or auto")
            }
            Self::Usd => "US dollars from 0 to 1000000000 with at most six decimals".into(),
            Self::Ratio => "a number from 0 to 1".into(),
            Self::Word(words) => words.join(" or "),
            Self::Address => "an IPv4 or IPv6 address".into(),
            Self::Networks => "IPv4 or IPv6 addresses or CIDRs, separated by commas".into(),
            Self::Hosts => "host names or addresses, each with or without a port, separated by commas".into(),
            Self::Origins => "origins (scheme://host or scheme://host:port), separated by commas".into(),
            Self::Tokens => "names of letters, digits and hyphens, separated by commas".into(),
            Self::CipherSuites => format!("names from {}", parse::CIPHER_SUITES.join(", ")),
            Self::File => "a path".into(),
            Self::UrlPath => "a path that starts with /".into(),
            Self::Url | Self::SecretUrl => "an http:// or https:// URL without user information and fragment".into(),
            Self::Name => "printable ASCII characters without blanks and quotes, at most 256".into(),
            Self::Secret => "printable ASCII characters without blanks, at least 32".into(),
            Self::Key256 => "64 hexadecimal digits".into(),
            Self::WebhookKeys => "whsec_ and base64 of at least 24 bytes; several separated by blanks".into(),
        }
    }
}

/// A unit's name for people.
fn unit_in_words(unit: &str) -> &str {
    match unit {
        "ms" => "milliseconds",
        "s" => "seconds",
        other => other,
    }
}

/// A row: what is known of a setting, and how its value is read.
#[derive(Debug)]
pub struct Setting<T: 'static> {
    /// What is known of it.
    pub spec: Spec,
    /// Reads a value; the error says what is wrong without repeating the value.
    pub(super) parse: fn(&Kind, &str) -> Result<T, String>,
}

/// A row whose type does not matter.
pub trait Row: Sync {
    /// What is known of the setting.
    fn spec(&self) -> &Spec;
    /// Whether a value is accepted.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it.
    fn check(&self, text: &str) -> Result<(), String>;
}

impl<T> Row for Setting<T> {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn check(&self, text: &str) -> Result<(), String> {
        (self.parse)(&self.spec.kind, text).map(drop)
    }
}

/// Declares one `static` a row, and [`TABLE`] of all of them in order.
macro_rules! settings {
    ($($section:literal {$(
        $name:ident $(alias $alias:ident)? : $type:ty = $parse:path, $kind:expr, [$development:literal, $production:literal],
        $example:literal, $help:literal;
    )*})*) => {
        $($(
            #[doc = $help]
            pub static $name: Setting<$type> = Setting {
                spec: Spec {
                    name: stringify!($name),
                    alias: settings!(@alias $($alias)?),
                    section: $section,
                    kind: $kind,
                    development: $development,
                    production: $production,
                    example: $example,
                    help: $help,
                },
                parse: $parse,
            };
        )*)*
        /// Every setting, in the order of the documentation.
        pub static TABLE: &[&dyn Row] = &[$($(&$name,)*)*];
    };
    (@alias) => { None };
    (@alias $alias:ident) => { Some(stringify!($alias)) };
}
use settings;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_default_and_example_is_accepted() {
        for row in TABLE {
            let spec = row.spec();
            for text in [spec.development, spec.production, spec.example] {
                assert_eq!(row.check(text), Ok(()), "{}={text}", spec.name);
            }
        }
    }

    #[test]
    fn names_are_unique() {
        let mut seen = BTreeSet::new();
        for row in TABLE {
            let spec = row.spec();
            for name in std::iter::once(spec.name).chain(spec.alias) {
                assert!(seen.insert(name), "{name} stands in the table twice");
            }
        }
    }

    #[test]
    fn bounds_are_where_the_table_says() {
        for row in TABLE {
            if let Kind::Whole { min, max, .. } = row.spec().kind {
                let name = row.spec().name;
                assert_eq!(row.check(&min.to_string()), Ok(()), "{name}, least");
                assert_eq!(row.check(&max.to_string()), Ok(()), "{name}, greatest");
                assert!(row.check(&(max + 1).to_string()).is_err(), "{name}, above");
                if min > 0 {
                    assert!(row.check(&(min - 1).to_string()).is_err(), "{name}, below");
                }
                for bad in ["", "-1", "+1", "1.5", "1e3", "x", "0x10", "99999999999999999999999", "1 000", "\u{661}"] {
                    assert!(row.check(bad).is_err(), "{name}={bad}");
                }
            }
        }
    }
}
