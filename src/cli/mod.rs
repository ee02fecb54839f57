//! The commands, one file each.

pub mod check;
pub mod client;
pub mod health;
pub mod init;
pub mod sample_server;
pub mod serve;

/// Where a gateway with the settings at hand has its health listener; the default where they cannot be read.
#[must_use]
pub fn configured_health_port() -> u16 {
    use crate::settings::{CommandLine, Inputs, Settings};
    let loaded = Inputs::from_process(CommandLine::default()).and_then(|inputs| Settings::load(&inputs));
    loaded.map_or(9501, |loaded| loaded.settings.doors.health_port)
}
