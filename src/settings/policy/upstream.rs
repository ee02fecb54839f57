//! `[upstream.NAME]`: where a server is and how it is spoken to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use toml::Value;

use super::fields::{Fields, Report};
use super::load::Lookup;
use super::pairs::{header_fault, pairs, variable_fault};
use super::{
    CredentialAs, EnvValue, SocketTransport, StdioTarget, Upstream, UpstreamCredential, UpstreamHeader, UpstreamTarget,
    UpstreamTls,
};
use crate::settings::fault::{clip, clip_url};
use crate::settings::url;

const URL_ALLOWED: &str =
    "an http://, https://, ws:// or wss:// URL, tcp:// or tls:// with host and port, or stdio: and a command";
const ONLY_COMMAND: &str = "is only for an upstream with a command";
const ONLY_TLS: &str = "is only for an https://, wss:// or tls:// URL";
const URL_EXAMPLE: &str = "url = \"http://127.0.0.1:3001/mcp\"";
const COMMAND_ALLOWED: &str = "a list of words, the first of which is the program";
const COMMAND_EXAMPLE: &str = "command = [\"npx\", \"-y\", \"@modelcontextprotocol/server-everything\"]";

/// Reads one upstream; `None` if it has faults.
pub(super) fn read(
    name: &str,
    value: &Value,
    lookup: &Lookup<'_>,
    call_timeout: Duration,
    report: &mut Report,
) -> Option<Upstream> {
    let path = format!("upstream.{name}");
    if name.is_empty()
        || name.len() > 64
        || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        // `NAME__TOOL` must have one reading.
        || name.contains("__")
        || name.ends_with('_')
    {
        report.fault(
            &path,
            None,
            "is not accepted as a name",
            "1 to 64 letters, digits, _ and -, without __ and not ending in _",
            "[upstream.crm]",
        );
        return None;
    }
    let mut fields = Fields::new(path, value, report)?;
    let mut target = target(&mut fields);
    let headers = pairs(&mut fields, "header", lookup, report, header_fault);
    let variables = pairs(&mut fields, "env", lookup, report, variable_fault);
    let credential = credential(&mut fields, report);
    if let Some(name) = credential.as_ref().map(|credential| credential.how.header())
        && headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name))
    {
        let path = format!("header.{name}");
        fields.fault(&path, None, "contradicts the credential, which is carried in that header", "one of the two", "");
    }
    let cwd = fields.text("cwd", "a directory", "/srv/mcp", is_path).map(PathBuf::from);
    let max_instances = fields.whole::<u8>("max_instances", 1, 64);
    let tls = UpstreamTls {
        ca_file: fields.text("ca_file", "a PEM file", "/etc/ssl/internal-ca.pem", is_path).map(PathBuf::from),
        server_name: fields.text("server_name", "a host name", "mcp.internal", url::is_host_name),
    };
    match &mut target {
        Some(UpstreamTarget::Stdio(stdio)) => {
            refuse_foreign(&mut fields, &[("credential", credential.is_some())], "is only for an upstream with a URL");
            stdio.env = variables.into_iter().map(|(name, value)| (name, EnvValue(value))).collect();
            stdio.cwd = cwd;
            stdio.max_instances = max_instances.unwrap_or(stdio.max_instances);
            let refused = [
                ("header", !headers.is_empty()),
                ("ca_file", tls.ca_file.is_some()),
                ("server_name", tls.server_name.is_some()),
            ];
            refuse_foreign(&mut fields, &refused, "is only for an upstream with a URL");
        }
        Some(UpstreamTarget::Http(http)) => {
            let refused = [("env", !variables.is_empty()), ("cwd", cwd.is_some())];
            refuse_foreign(&mut fields, &refused, ONLY_COMMAND);
            let why = "is not for an http:// or https:// URL";
            refuse_foreign(&mut fields, &[("max_instances", max_instances.is_some())], why);
            if !http.tls {
                let refused = [("ca_file", tls.ca_file.is_some()), ("server_name", tls.server_name.is_some())];
                refuse_foreign(&mut fields, &refused, ONLY_TLS);
            }
        }
        Some(UpstreamTarget::Socket(socket)) => {
            socket.max_instances = max_instances.unwrap_or(socket.max_instances);
            let refused = [("env", !variables.is_empty()), ("cwd", cwd.is_some())];
            refuse_foreign(&mut fields, &refused, ONLY_COMMAND);
            if socket.transport == SocketTransport::Lines {
                let why = "is not for lines, which have no headers";
                let refused = [("header", !headers.is_empty()), ("credential", credential.is_some())];
                refuse_foreign(&mut fields, &refused, why);
            }
            if !socket.tls {
                let refused = [("ca_file", tls.ca_file.is_some()), ("server_name", tls.server_name.is_some())];
                refuse_foreign(&mut fields, &refused, ONLY_TLS);
            }
        }
        None => {}
    }
    let headers = headers.into_iter().map(|(name, value)| UpstreamHeader { name, value }).collect();
    let mut upstream = target.map(|target| with_defaults(name, target, call_timeout));
    let (max_in_flight, connect, call) = (
        fields.whole("max_in_flight", 1, 65_536),
        fields.millis("connect_timeout_ms"),
        fields.millis("call_timeout_ms"),
    );
    let (inject, idle) = (fields.flag("inject_agent_id"), fields.whole("max_idle_connections", 0, 4096));
    if let Some(upstream) = &mut upstream {
        upstream.headers = headers;
        upstream.credential = credential;
        upstream.tls = tls;
        upstream.max_in_flight = max_in_flight.unwrap_or(upstream.max_in_flight);
        upstream.connect_timeout = connect.unwrap_or(upstream.connect_timeout);
        upstream.call_timeout = call.unwrap_or(upstream.call_timeout);
        upstream.inject_agent_id = inject.unwrap_or(upstream.inject_agent_id);
        upstream.max_idle_connections = idle.unwrap_or(upstream.max_idle_connections);
    }
    fields.finish(report);
    upstream
}

/// `credential` and `credential_as`.
fn credential(fields: &mut Fields<'_>, report: &mut Report) -> Option<UpstreamCredential> {
    const ALLOWED: &str = "\"bearer\", \"basic\" or { header = \"NAME\" }";
    const EXAMPLE: &str = "credential_as = { header = \"X-Api-Key\" }";
    let name = fields.text("credential", "the name of a credential in the vault", "twilio", crate::vault::is_name);
    let (how, path) = (fields.raw("credential_as"), fields.path_of("credential_as"));
    let how = match how {
        None => Some(CredentialAs::Bearer),
        Some(Value::String(word)) if word == "bearer" => Some(CredentialAs::Bearer),
        Some(Value::String(word)) if word == "basic" => Some(CredentialAs::Basic),
        Some(value @ Value::Table(table)) if !table.is_empty() => {
            // What is wrong with it is said of its keys.
            let mut inner = Fields::new(path, value, report)?;
            let read = |text: &str| header_fault(text, "").is_none();
            let header = inner.text("header", "a header that the gateway does not set itself", "X-Api-Key", read);
            inner.finish(report);
            Some(CredentialAs::Header(header?))
        }
        Some(_) => None,
    };
    if how.is_none() {
        fields.fault("credential_as", None, "is not accepted", ALLOWED, EXAMPLE);
    } else if fields.raw("credential_as").is_some() && fields.raw("credential").is_none() {
        fields.fault("credential_as", None, "has no credential to carry", "credential = \"NAME\"", EXAMPLE);
    }
    Some(UpstreamCredential { name: name?, how: how? })
}

/// `--upstream URL`.
pub(super) fn from_url(name: &str, text: &str, call_timeout: Duration, report: &mut Report) -> Option<Upstream> {
    match parse_url(text) {
        Ok(target) => Some(with_defaults("default", target, call_timeout)),
        Err(why) => {
            report.fault(name, Some(shown_url(text)), &why, URL_ALLOWED, "--upstream http://127.0.0.1:3001/mcp");
            None
        }
    }
}

/// The command after `--`.
pub(super) fn from_command(
    name: &str,
    command: &[String],
    call_timeout: Duration,
    report: &mut Report,
) -> Option<Upstream> {
    if !is_command(command) {
        report.fault(
            name,
            None,
            "is not a command",
            COMMAND_ALLOWED,
            "-- npx -y @modelcontextprotocol/server-everything",
        );
        return None;
    }
    Some(with_defaults("default", stdio(command.to_vec()), call_timeout))
}

/// A target as it may be shown: no query, no arguments.
pub(super) fn shown(target: &UpstreamTarget) -> String {
    match target {
        UpstreamTarget::Http(http) => {
            let scheme = if http.tls { "https" } else { "http" };
            clip_url(&format!("{scheme}://{}{}", http.authority, http.path_and_query))
        }
        UpstreamTarget::Stdio(stdio) => shown_command(&stdio.command),
        UpstreamTarget::Socket(socket) => {
            clip_url(&format!("{}://{}{}", socket.scheme(), socket.authority, socket.path_and_query))
        }
    }
}

fn with_defaults(name: &str, target: UpstreamTarget, call_timeout: Duration) -> Upstream {
    Upstream {
        name: name.into(),
        target,
        tls: UpstreamTls::default(),
        credential: None,
        headers: Vec::new(),
        max_in_flight: 1024,
        connect_timeout: call_timeout.min(Duration::from_secs(5)),
        call_timeout,
        inject_agent_id: true,
        max_idle_connections: 1024,
    }
}

/// `url` or `command`: exactly one of the two.
fn target(fields: &mut Fields<'_>) -> Option<UpstreamTarget> {
    let (url, command) = (fields.raw("url"), fields.raw("command"));
    match (url, command) {
        (None, None) => fields.fault("url", None, "is missing, and so is command", URL_ALLOWED, URL_EXAMPLE),
        (Some(_), Some(_)) => fields.fault("command", None, "contradicts url", "one of the two", URL_EXAMPLE),
        (Some(Value::String(text)), None) => match parse_url(text) {
            Ok(target) => {
                fields.effective("url", shown(&target));
                return Some(target);
            }
            Err(why) => fields.fault("url", Some(shown_url(text)), &why, URL_ALLOWED, URL_EXAMPLE),
        },
        (Some(_), None) => fields.fault("url", None, "is not text", URL_ALLOWED, URL_EXAMPLE),
        (None, Some(value)) => {
            let words = value
                .as_array()
                .map(|words| words.iter().map(|word| word.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>());
            match words.flatten().filter(|words| is_command(words)) {
                Some(words) => {
                    fields.effective("command", shown_command(&words));
                    return Some(stdio(words));
                }
                None => fields.fault("command", None, "is not a command", COMMAND_ALLOWED, COMMAND_EXAMPLE),
            }
        }
    }
    None
}

fn parse_url(text: &str) -> Result<UpstreamTarget, String> {
    let text = text.trim();
    if let Some(command) = text.strip_prefix("stdio:") {
        if command.contains(['"', '\'', '\\']) {
            return Err("has quotes, which stdio: does not understand; use command instead".into());
        }
        let words: Vec<_> = command.trim_start_matches("//").split_whitespace().map(str::to_owned).collect();
        return if is_command(&words) { Ok(stdio(words)) } else { Err("names no command".into()) };
    }
    url::upstream_target(text).map_err(str::to_owned)
}

fn stdio(command: Vec<String>) -> UpstreamTarget {
    UpstreamTarget::Stdio(StdioTarget { command, env: BTreeMap::new(), cwd: None, max_instances: 4 })
}

fn is_command(words: &[String]) -> bool {
    words.first().is_some_and(|program| !program.is_empty())
        && words.len() <= 1024
        && words.iter().all(|word| !word.contains('\0'))
}

fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

/// The program alone: an argument may be a key.
fn shown_command(words: &[String]) -> String {
    let program = clip(words.first().map_or("", String::as_str));
    match words.len() {
        0 | 1 => program,
        2 => format!("{program} (1 argument)"),
        count => format!("{program} ({} arguments)", count - 1),
    }
}

fn shown_url(text: &str) -> String {
    match text.trim().strip_prefix("stdio:") {
        Some(command) => format!("stdio:{}", clip(command.split_whitespace().next().unwrap_or(""))),
        None => clip_url(text),
    }
}

fn refuse_foreign(fields: &mut Fields<'_>, refused: &[(&str, bool)], why: &str) {
    for (key, _) in refused.iter().filter(|(_, given)| *given) {
        fields.fault(key, None, why, "leave it out", "");
    }
}
