//! The MCP gateways. They read calls and write them anew, give tools names of their own, and have to be told of the upstream.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::super::generate::Call;
use super::{Kind, Place, Prepared, Program, Target, exchange, find};

/// Signs the token with which the upstream is registered; as long as ContextForge wants it.
const SECRET: &str = "loadtest-signing-key-0123456789abcdef";

/// ContextForge makes its database first.
const CONTEXTFORGE_PATIENCE: Duration = Duration::from_secs(180);

const INITIALIZE: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"loadtest","version":"0"}}}"#;
const INITIALIZED: &[u8] = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

pub(super) fn prepare(kind: Kind, place: &Place, port: u16) -> io::Result<Option<Prepared>> {
    match kind {
        Kind::McpProxy => mcp_proxy(place, port),
        Kind::Contextforge => contextforge(place, port),
        _ => Ok(None),
    }
}

/// What a gateway is told once it listens.
pub(super) fn set_up(kind: Kind, target: &mut Target, place: &Place, home: &Path) -> io::Result<()> {
    if kind != Kind::Contextforge {
        return Ok(());
    }
    let upstream = place.upstream;
    let server = format!(
        r#"{{"name":"up","url":"http://127.0.0.1:{upstream}/mcp","transport":"STREAMABLEHTTP","visibility":"public"}}"#
    );
    let response = exchange::post(target.address, "/gateways", &admin_token(place, home)?, "", server.as_bytes())?;
    if !(200..300).contains(&response.status) {
        return Err(io::Error::other(format!("the upstream was not registered: {}", response.shown())));
    }
    // Within a session it keeps one with the upstream; without, it opens one for every call.
    let opened = exchange::post(target.address, target.path, "", "", INITIALIZE)?;
    let none = || io::Error::other(format!("no session was opened: {}", opened.shown()));
    target.session = opened.session.clone().ok_or_else(none)?;
    exchange::post(target.address, target.path, "", &target.session, INITIALIZED)?;
    Ok(())
}

fn mcp_proxy(place: &Place, port: u16) -> io::Result<Option<Prepared>> {
    let Some(path) = place.find("mcp-proxy") else { return Ok(None) };
    let home = place.home(Kind::McpProxy, port, &[("mcp-proxy.toml", include_str!("../../peers/mcp-proxy.toml"))])?;
    let version = find::installed_by_cargo("mcp-proxy", &path);
    let program = Program::new(path, ["--config", "mcp-proxy.toml"]).env("TOKIO_WORKER_THREADS", "1");
    let mut target = Target::plain(port);
    target.path = "/";
    target.call = renamed(&target.call, "up_comms_send_message");
    Ok(Some(Prepared { program, home, version, target }))
}

fn contextforge(place: &Place, port: u16) -> io::Result<Option<Prepared>> {
    let (Some(path), Some(python)) = (place.find("mcpgateway"), python(place)) else { return Ok(None) };
    let home = place.home(Kind::Contextforge, port, &[("contextforge.env", ENVIRONMENT)])?;
    let question = "import importlib.metadata as m; print(m.version('mcp-contextforge-gateway'))";
    let version = find::version(&python, ["-c", question]);
    let port = port.to_string();
    // By default it closes a connection that nothing has come over for 5 s.
    let args = [
        "mcpgateway.main:app",
        "--host",
        "127.0.0.1",
        "--port",
        &port,
        "--workers",
        "1",
        "--no-access-log",
        "--timeout-keep-alive",
        "60",
    ];
    let mut program = Program::new(path, args);
    program.env = environment(&home)?;
    program.patience = CONTEXTFORGE_PATIENCE;
    let mut target = Target::plain(port.parse().unwrap_or_default());
    target.call = renamed(&target.call, "up-comms-send-message");
    Ok(Some(Prepared { program, home, version, target }))
}

/// The call with the name that its tool has in a gateway. The arguments are the same.
fn renamed(call: &Call, tool: &str) -> Call {
    Call::new(tool, call.arguments.clone())
}

const ENVIRONMENT: &str = include_str!("../../peers/contextforge.env");

/// The Python that ContextForge is installed in stands beside its program.
fn python(place: &Place) -> Option<PathBuf> {
    let beside = place.find("mcpgateway")?.with_file_name("python3");
    beside.is_file().then_some(beside)
}

fn environment(home: &Path) -> io::Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(home.join("contextforge.env"))?.replace("@SECRET@", SECRET);
    Ok(variables(&text))
}

/// The assignments in a file of `NAME=value` lines and comments.
fn variables(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A token of ContextForge's administrator for an hour, made by its own tool.
fn admin_token(place: &Place, home: &Path) -> io::Result<String> {
    let python = python(place).ok_or_else(|| io::Error::other("no python beside mcpgateway"))?;
    let mut command = Command::new(python);
    command.args(["-m", "mcpgateway.utils.create_jwt_token", "--username", "admin@example.com"]);
    command.args(["--admin", "--exp", "60", "--secret", SECRET]);
    command.env_clear().env("HOME", home).envs(environment(home)?).current_dir(home).stdin(Stdio::null());
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let token = said.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.contains(' '));
    token
        .map(str::to_owned)
        .ok_or_else(|| io::Error::other(format!("no token was made: {}", String::from_utf8_lossy(&output.stderr))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_what_is_no_comment() {
        let found = variables("# A=1\nB=2\n\n  # C=3\nURL=sqlite:///x?y=z\n");
        let expected = [("B", "2"), ("URL", "sqlite:///x?y=z")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(variables(ENVIRONMENT).iter().any(|(name, value)| name == "JWT_SECRET_KEY" && value == "@SECRET@"));
    }
}
