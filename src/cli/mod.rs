//! The commands, one file each; what several of them need to ask a gateway something is [`ask`].

mod ask;
pub mod audit;
pub mod backup;
pub mod billing;
pub mod block;
pub mod check;
pub mod client;
pub mod connections;
pub mod health;
pub mod init;
pub mod inspect;
pub mod limits;
mod pages;
pub mod sample_server;
pub mod serve;
pub mod token;
pub mod tools;
pub mod vault;

use std::ffi::OsString;
use std::path::Path;

/// The command line as it is meant: a link to this program with the name of an operator's tool stands for a command.
#[must_use]
pub fn meant(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let name = arguments.first().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str());
    let command: &[&str] = match name {
        Some("mcp-connections") => &["connections"],
        Some("mcp-health") => &["health"],
        Some("mcp-security-audit") => &["audit", "tail"],
        _ => &[],
    };
    let after_name = arguments.len().min(1);
    arguments.splice(after_name..after_name, command.iter().map(OsString::from));
    arguments
}

/// Where a gateway with the settings at hand has its health listener; the default where they cannot be read.
#[must_use]
pub fn configured_health_port() -> u16 {
    use crate::settings::{CommandLine, Inputs, Settings};
    let loaded = Inputs::from_process(CommandLine::default()).and_then(|inputs| Settings::load(&inputs));
    loaded.map_or(9501, |loaded| loaded.settings.doors.health_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_a_command() {
        for (given, expected) in [
            ("ringwall serve", "ringwall serve"),
            ("/usr/bin/mcp-connections", "/usr/bin/mcp-connections connections"),
            ("mcp-connections close 1f --x", "mcp-connections connections close 1f --x"),
            ("./mcp-health", "./mcp-health health"),
            ("mcp-security-audit -n 3", "mcp-security-audit audit tail -n 3"),
            ("mcp-healthy", "mcp-healthy"),
            ("ringwall mcp-health", "ringwall mcp-health"),
        ] {
            let given = given.split(' ').map(OsString::from).collect();
            assert_eq!(meant(given), expected.split(' ').map(OsString::from).collect::<Vec<_>>());
        }
        assert!(meant(Vec::new()).is_empty());
    }
}
