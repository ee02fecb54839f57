//! `ringwall health`: asks a running gateway how it is; for container health checks and for people.
//!
//! Exit status 0 when the answer is 200, 1 otherwise.

use std::io;
use std::process::ExitCode;

use super::ask::{ask, print};

/// What the command line says.
#[derive(Debug, clap::Args)]
pub struct HealthArgs {
    /// What to ask; default: /health/ready on MCP_HEALTH_PORT of this machine
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// Asks and prints. `port` is the health port in force, for when no URL is given.
#[must_use]
pub fn run(args: &HealthArgs, port: u16) -> ExitCode {
    let url = args.url.clone().unwrap_or_else(|| format!("http://127.0.0.1:{port}/health/ready"));
    match ask("GET", &url, None) {
        Ok((200, body)) => print(&mut io::stdout(), format_args!("{body}"), ExitCode::SUCCESS),
        Ok((status, body)) => print(&mut io::stdout(), format_args!("{status} {body}"), ExitCode::FAILURE),
        Err(error) => print(&mut io::stderr(), format_args!("ringwall health: {error}"), ExitCode::FAILURE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_statuses() {
        let code = |url: Option<&str>| format!("{:?}", run(&HealthArgs { url: url.map(str::to_owned) }, 1));
        assert_eq!(code(Some("http://127.0.0.1:1/")), format!("{:?}", ExitCode::FAILURE));
        assert_eq!(code(None), format!("{:?}", ExitCode::FAILURE));
    }
}
