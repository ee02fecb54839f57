//! `loadtest`: what a proxied call costs, beside what others ask for the same work.
//!
//! `loadtest run` drives whatever listens, `loadtest upstream` is what stands behind it. `loadtest lines` drives small calls in a pipeline over the TCP door, beside a bare relay; `loadtest idle` weighs idle WebSocket connections.
//! Each says in its own file how.
//!
//! `loadtest cost` starts a fast upstream and, one after the other, ringwall and its peers, each as one worker on a core of its own; drives the
//! same calls through each from another core; checks every answer; and prints the CPU time that the measured process alone
//! has used for a call, from the scheduler's own account. On a machine that others use as well, that figure is
//! spoilt least. Rounds are interleaved, and the median and the spread over the rounds are printed.

mod beside;
mod channel;
mod compare;
mod cost;
mod cpu;
mod crash;
mod echo;
mod faults;
mod figures;
mod framing;
mod generate;
mod hold;
mod idle;
mod inspect;
mod lines;
mod machine;
mod peer;
mod poll;
mod process;
mod relay;
mod report;
mod run;
mod scale;
mod small_call;
mod soak;
mod upstream;
mod websocket;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The load harness of ringwall
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Calls through ringwall and all its peers that are installed, in interleaved rounds, and the goals that they hold
    Compare(compare::Args),
    /// CPU time of a proxied call, beside HAProxy and nginx where they are installed
    Cost(cost::Args),
    /// Small calls in a pipeline over the TCP door, beside a relay that looks at nothing
    Lines(lines::Args),
    /// Memory of idle WebSocket connections, beside HAProxy, and what an active client notices of them
    Idle(idle::Args),
    /// What the guards find in payloads that others have collected, beside the OWASP core rules; the content filter beside another
    Inspect(inspect::Args),
    /// Becomes another program that ends with this one
    #[command(hide = true)]
    Hold(hold::Args),
    /// What breaks is broken, one thing after the other: who is told what, and what is kept
    Faults(faults::Args),
    /// What clients notice while operators list every token and the database is copied, and how long a start takes with many
    Beside(beside::Args),
    /// The gateway is killed where it stands, over and over: what was acknowledged is still known
    Crash(crash::Args),
    /// All doors, normal calls and faults at random moments, for as long as wanted
    Soak(soak::Args),
    /// The relay of `lines`
    #[command(hide = true)]
    Relay(relay::Args),
    /// The WebSocket server behind HAProxy in `idle`
    #[command(hide = true)]
    WebsocketBackend(websocket::Args),
    /// What a call costs as workers, connections, bytes and keys grow
    Scale(scale::Args),
    /// The idle connections of `scale`
    #[command(hide = true)]
    Crowd(scale::CrowdArgs),
    /// One load against whatever listens
    Run(Box<run::Args>),
    /// The sample upstream: answers every request at once
    Upstream(upstream::Args),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Compare(args) => compare::run(&args),
        Command::Cost(args) => cost::run(&args),
        Command::Lines(args) => lines::run(&args),
        Command::Idle(args) => idle::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Hold(args) => hold::run(&args),
        Command::Faults(args) => faults::run(&args),
        Command::Beside(args) => beside::run(&args),
        Command::Crash(args) => crash::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Relay(args) => relay::run(&args),
        Command::WebsocketBackend(args) => websocket::run_backend(&args),
        Command::Scale(args) => scale::run(&args),
        Command::Crowd(args) => scale::run_crowd(&args),
        Command::Run(args) => run::run(&args),
        Command::Upstream(args) => upstream::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}
