//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ringwall::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A security gateway for AI agents, in front of MCP servers
#[derive(Parser)]
#[command(version, about, long_about = None, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway (the default)
    Serve(cli::serve::Args),
    /// Write a .env with fresh secrets
    Init(cli::init::Args),
    /// Show the settings in force and what is wrong with them
    Check(cli::check::Args),
    /// List the open connections of a running gateway, or close one
    Connections(cli::connections::Args),
    /// What agents may do on a running gateway, what they have used of it, and when it begins anew
    Limits(cli::limits::Args),
    /// Block addresses and networks of a running gateway, list what is blocked, lift it
    Block(cli::block::Args),
    /// List the descriptions of a running gateway's tools by their hashes, accept what has changed
    Tools(cli::tools::Args),
    /// Issue, list, rotate or revoke agents' tokens of a running gateway
    Token(cli::token::Args),
    /// Read the audit trail
    Audit(cli::audit::Args),
    /// Show what agents have spent
    Billing(cli::billing::Args),
    /// Copy the database, beside a running gateway or without one
    Backup(cli::backup::Args),
    /// The credentials that upstreams are shown
    Vault(cli::vault::Args),
    /// What the guards would find in a message, and why
    Inspect(cli::inspect::Args),
    /// Ask a running gateway how it is
    Health(cli::health::HealthArgs),
    /// An MCP client for each door: takes the first steps, then commands
    Client(cli::client::Args),
    /// The built-in sample MCP server, on standard input and output or listening
    SampleServer(cli::sample_server::Args),
}

fn main() -> ExitCode {
    match Arguments::parse_from(cli::meant(std::env::args_os().collect()))
        .command
        .unwrap_or(Command::Serve(cli::serve::Args::default()))
    {
        Command::Serve(args) => cli::serve::run(&args),
        Command::Init(args) => cli::init::run(&args),
        Command::Check(args) => cli::check::run(&args),
        Command::Connections(args) => cli::connections::run(&args),
        Command::Limits(args) => cli::limits::run(&args),
        Command::Block(args) => cli::block::run(&args),
        Command::Tools(args) => cli::tools::run(&args),
        Command::Token(args) => cli::token::run(&args),
        Command::Audit(args) => cli::audit::run(&args),
        Command::Billing(args) => cli::billing::run(&args),
        Command::Backup(args) => cli::backup::run(&args),
        Command::Vault(args) => cli::vault::run(&args),
        Command::Inspect(args) => cli::inspect::run(&args),
        Command::Health(args) => cli::health::run(&args, cli::configured_health_port()),
        Command::Client(args) => cli::client::run(&args),
        Command::SampleServer(args) => cli::sample_server::run(&args),
    }
}
