//! `ringwall serve`, which is also what `ringwall` alone does: the gateway, until a signal ends it.
//!
//! Without any upstream it serves the built-in sample server, so that the first call can be made before anything is set up;
//! without a token in development it makes one for this run and shows how to use it.

use std::io::Write;
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::gateway::{Ended, Gateway};
use crate::observe::logs;
use crate::settings::{CommandLine, Inputs, Loaded, LogFormat, LogLevel, Profile, Secret, Settings};

/// Arguments of `ringwall serve`.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Args {
    /// The MCP server to stand in front of, such as http://127.0.0.1:3001/mcp
    #[arg(long, value_name = "URL", conflicts_with = "command")]
    pub upstream: Option<String>,
    /// A stdio MCP server to start and stand in front of, after `--`
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// What was put in because nothing was set up.
#[derive(Default)]
struct Improvised {
    token: Option<String>,
    sample_server: bool,
}

/// Runs the gateway. Exit code 1 when it does not start or does not end cleanly.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    match serve(args) {
        Ok(code) => code,
        Err(text) => {
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &Args) -> Result<ExitCode, String> {
    let overrides = CommandLine {
        upstream_url: args.upstream.clone(),
        stdio_command: (!args.command.is_empty()).then(|| args.command.clone()),
    };
    let inputs = Inputs::from_process(overrides.clone()).map_err(|faults| faults.to_string())?;
    let mut loaded = Settings::load(&inputs).map_err(|faults| faults.to_string())?;
    let mut improvised = Improvised::default();
    if loaded.settings.policy.upstreams.is_empty() && loaded.settings.profile == Profile::Development {
        let program = std::env::current_exe().map_err(|error| format!("cannot find this program's file: {error}"))?;
        let command = vec![program.to_string_lossy().into_owned(), "sample-server".to_owned()];
        let inputs = Inputs { overrides: CommandLine { stdio_command: Some(command), ..overrides }, ..inputs };
        loaded = Settings::load(&inputs).map_err(|faults| faults.to_string())?;
        improvised.sample_server = true;
    }
    let faults = loaded.unservable();
    if !faults.is_empty() {
        return Err(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    }
    improvise_token(&mut loaded, &mut improvised)?;
    start_logs(&loaded);
    for warning in &loaded.warnings {
        // A token that was just made is shown below; that none is set is no news then.
        if improvised.token.is_none() || warning.name != "WS_AUTH_TOKEN" {
            tracing::warn!("{warning}");
        }
    }
    let demo_mode = loaded.settings.auth.demo_mode;
    let gateway = Gateway::start(loaded).map_err(|error| error.to_string())?;
    announce(&gateway, &improvised);
    if demo_mode {
        warn_of_demo_mode();
    }
    match gateway.wait() {
        Ended::Cleanly => {
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        Ended::Otherwise(why) => {
            tracing::error!("stopped: {why}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// In development, a gateway that nobody could call is of no use: one token for this run.
fn improvise_token(loaded: &mut Loaded, improvised: &mut Improvised) -> Result<(), String> {
    let auth = &mut loaded.settings.auth;
    let callable = auth.door_token.is_some() || auth.demo_mode || !auth.enabled;
    if callable || loaded.settings.policy.agents.iter().any(|agent| agent.token_sha256.is_some()) {
        return Ok(());
    }
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random bytes from the system: {error}"))?;
    let token = URL_SAFE_NO_PAD.encode(bytes);
    auth.door_token = Some(Secret::new(&token));
    if auth.tcp_token.is_none() {
        auth.tcp_token = Some(Secret::new(&token));
    }
    improvised.token = Some(token);
    Ok(())
}

fn start_logs(loaded: &Loaded) {
    let format = match loaded.settings.log.format {
        LogFormat::Json => logs::LogFormat::Json,
        LogFormat::Text => logs::LogFormat::Compact,
    };
    // Only a second gateway in one process finds logs set up already.
    let level = match loaded.settings.log.level {
        LogLevel::Error => logs::LogLevel::Error,
        LogLevel::Warn => logs::LogLevel::Warn,
        LogLevel::Info => logs::LogLevel::Info,
        LogLevel::Debug => logs::LogLevel::Debug,
        LogLevel::Trace => logs::LogLevel::Trace,
    };
    let _ = logs::init(level, format);
}

/// Says where the gateway is and, where something was improvised, how to use it.
fn announce(gateway: &Gateway, improvised: &Improvised) {
    let (bridge, workers, driver) = (gateway.bridge(), gateway.workers(), gateway.driver());
    let mut out = std::io::stdout().lock();
    let url = format!("http://{bridge}/mcp");
    let _ = writeln!(out, "ringwall {} is listening", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(out, "  mcp     {url}");
    let _ = writeln!(out, "  tcp     {}", gateway.tcp());
    let _ = writeln!(out, "  health  http://{}/health", gateway.health());
    let _ = writeln!(out, "  admin   http://{}/metrics", gateway.admin());
    let _ = writeln!(out, "  workers {workers}, {driver:?}");
    if improvised.sample_server {
        let _ = writeln!(
            out,
            "\nNo upstream is configured: serving the built-in SAMPLE server, which sends nothing to anybody. Put a real one\n\
             behind the gateway with `ringwall serve --upstream URL` or `ringwall serve -- COMMAND`."
        );
    }
    if let Some(token) = &improvised.token {
        let _ = writeln!(
            out,
            "\nNo WS_AUTH_TOKEN is set. The token of this run, shown once (`ringwall init` makes a lasting one):\n\n  {token}\n"
        );
        let _ = write!(out, "{}", curl_calls(&url, token, improvised.sample_server));
    }
    let _ = out.flush();
}

/// Three calls to paste: one that works, one without a token, one with a duplicate key.
fn curl_calls(url: &str, token: &str, sample_server: bool) -> String {
    let meta = "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\
                \"io.modelcontextprotocol/clientCapabilities\":{}}";
    let (method, name, params) = if sample_server {
        let arguments = "\"name\":\"comms_send_message\",\"arguments\":{\"to\":\"+15551234567\",\"body\":\"Hello\"},";
        ("tools/call", Some("comms_send_message"), arguments)
    } else {
        ("tools/list", None, "")
    };
    let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\",\"params\":{{{params}{meta}}}}}");
    let twice = body.replacen("\"id\":1,", "\"id\":1,\"id\":2,", 1);
    let call = |authorization: &str, body: &str| {
        let name = name.map_or_else(String::new, |name| format!(" -H 'Mcp-Name: {name}'"));
        format!(
            "  curl -sS {url}{authorization} -H 'Content-Type: application/json' \\\n    \
             -H 'Accept: application/json, text/event-stream' -H 'MCP-Protocol-Version: 2026-07-28' \\\n    \
             -H 'Mcp-Method: {method}'{name} \\\n    -d '{body}'\n"
        )
    };
    let bearer = format!(" -H 'Authorization: Bearer {token}'");
    format!(
        "A call that works:\n{}\nWithout the token (401):\n{}\nWith a key twice, which servers read differently (400):\n{}\n",
        call(&bearer, &body),
        call("", &body),
        call(&bearer, &twice),
    )
}

/// Loud, at each start and each hour, as long as the process lives.
fn warn_of_demo_mode() {
    const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);
    let warn =
        || tracing::warn!("DEMO_MODE=true: every authentication is bypassed; anyone who reaches a port may call");
    warn();
    let spawned = std::thread::Builder::new().name("demo-warning".into()).spawn(move || {
        loop {
            std::thread::park_timeout(HOUR);
            warn();
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "the hourly warning of DEMO_MODE cannot be given");
    }
}
