//! `ringwall client`: an MCP client for each door, to try a gateway with and to read as an example. It connects, authenticates,
//! initializes, lists the tools, calls one, and says of each step how it went; then, if asked to, it takes commands.
//!
//! What a client in front of a security gateway should do is done here: the token comes from the environment or a file, and is never
//! printed; certificates are verified, without a switch; nothing goes over a network in clear unasked; what arrives is bounded in size, and
//! every wait for the other side in time. Exit status 0 when every step went well, 1 otherwise.
//!
//! - [`target`], [`token`]: what the command line and the environment say;
//! - [`connect`]: TCP and TLS;
//! - [`transport`]: messages over lines, WebSocket and HTTP;
//! - [`session`]: requests and their answers, in both eras of MCP;
//! - [`steps`], [`interactive`]: what is done with it;
//! - [`mod@arguments`]: which tool may be called unasked, and with what;
//! - [`show`], [`failure`]: what is said.

mod arguments;
mod connect;
mod failure;
mod interactive;
mod session;
mod show;
mod steps;
mod target;
mod token;
mod transport;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::task::LocalSet;

use self::connect::Connector;
use self::failure::Failure;
use self::session::Era;
use self::show::Show;
use self::steps::Plan;
use self::target::{Door, Target};

/// Longest message that is taken, bytes: what the gateway holds of one answer.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Arguments of `ringwall client`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    door: DoorArgs,
}

#[derive(clap::Subcommand)]
enum DoorArgs {
    /// Lines over TCP; the token comes from TCP_AUTH_TOKEN or RINGWALL_TOKEN
    Tcp {
        /// Host and port
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9500")]
        address: String,
        /// Encrypt the connection
        #[arg(long)]
        tls: bool,
        #[command(flatten)]
        options: Options,
    },
    /// WebSocket; the token comes from WS_AUTH_TOKEN or RINGWALL_TOKEN
    Ws {
        /// ws:// or wss://
        #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:3002/ws")]
        url: String,
        #[command(flatten)]
        options: Options,
    },
    /// Streamable HTTP; the token comes from WS_AUTH_TOKEN or RINGWALL_TOKEN
    Http {
        /// http:// or https://
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3002/mcp")]
        url: String,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(clap::Args)]
struct Options {
    /// Take commands after the steps
    #[arg(long)]
    interactive: bool,
    /// Speak 2026-07-28, which has no sessions, rather than 2025-11-25
    #[arg(long)]
    modern: bool,
    /// The tool to call; default: the first one that says it only reads and whose arguments can be made up
    #[arg(long, value_name = "NAME")]
    call: Option<String>,
    /// Its arguments, an object; default: made up from its schema
    #[arg(long, value_name = "JSON", requires = "call")]
    arguments: Option<String>,
    /// Print the messages themselves, a line of JSON each; what is said of them goes to standard error
    #[arg(long)]
    json: bool,
    /// A file that holds the token, rather than the environment
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The only certificate authority to trust, PEM; default: the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Let the token go unencrypted to another machine
    #[arg(long)]
    plaintext: bool,
    /// Longest wait for the other side
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

/// Runs the client.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let (door, options) = match &args.door {
        DoorArgs::Tcp { options, .. } => (Door::Tcp, options),
        DoorArgs::Ws { options, .. } => (Door::Ws, options),
        DoorArgs::Http { options, .. } => (Door::Http, options),
    };
    let token = match token::find(door, options.token_file.as_deref(), |name| std::env::var(name).ok()) {
        Ok(token) => token,
        Err(failure) => return stopped(&Show::new(door, options.json, None), &failure),
    };
    let show = Show::new(door, options.json, token.as_ref());
    let prepared = connector(args, options).and_then(|connector| Ok((connector, arguments(options)?, runtime()?)));
    let (connector, arguments, runtime) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => return stopped(&show, &failure),
    };
    let plan = Plan {
        connector: connector.into(),
        token,
        era: if options.modern { Era::Modern } else { Era::Session },
        call: options.call.clone(),
        arguments,
        limit: limit(options),
    };
    let code = LocalSet::new().block_on(&runtime, converse(plan, &show, options.interactive));
    // A name that does not resolve may keep a thread for longer than anybody wants to wait.
    runtime.shutdown_background();
    code
}

async fn converse(plan: Plan, show: &Show, interactive: bool) -> ExitCode {
    let Ok(mut session) = steps::run(plan, show).await else { return ExitCode::FAILURE };
    let mut code = ExitCode::SUCCESS;
    if interactive && let Err(failure) = interactive::run(&mut session, show).await {
        code = stopped(show, &failure);
    }
    session.end().await;
    code
}

fn stopped(show: &Show, failure: &Failure) -> ExitCode {
    show.stopped(failure);
    ExitCode::FAILURE
}

fn limit(options: &Options) -> Duration {
    Duration::from_secs(options.timeout)
}

fn connector(args: &Args, options: &Options) -> Result<Connector, Failure> {
    let target = match &args.door {
        DoorArgs::Tcp { address, tls, .. } => Target::of_address(address, *tls),
        DoorArgs::Ws { url, .. } => Target::of_url(Door::Ws, url),
        DoorArgs::Http { url, .. } => Target::of_url(Door::Http, url),
    }?;
    Connector::new(target, options.ca.as_deref(), options.plaintext, limit(options))
}

fn arguments(options: &Options) -> Result<Option<Map<String, Value>>, Failure> {
    let parse = |text: &String| {
        serde_json::from_str(text)
            .map_err(|error| Failure::Usage(format!("--arguments is not an object of JSON: {error}")))
    };
    options.arguments.as_ref().map(parse).transpose()
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Failure::Usage(format!("the system gives no runtime: {error}")))
}
