//! The steps: connect, authenticate, initialize, list the tools, call one. Each is said as it ends; the first that fails is the last.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::arguments::{self, Choice};
use super::connect::Connector;
use super::failure::Failure;
use super::session::{Era, MODERN, OFFERED, Session, client_info};
use super::show::{Show, of_result};
use super::target::Door;
use super::transport;
use crate::settings::Secret;

/// Revisions that this client can go on with after `initialize`.
const REVISIONS: [&str; 4] = [OFFERED, "2025-06-18", "2025-03-26", "2024-11-05"];
/// Pages of a list of tools that are asked for.
const MAX_PAGES: usize = 32;

/// What is to be done.
pub(super) struct Plan {
    pub(super) connector: Rc<Connector>,
    pub(super) token: Option<Secret>,
    pub(super) era: Era,
    /// The tool to call; `None`: one that may be called unasked.
    pub(super) call: Option<String>,
    pub(super) arguments: Option<Map<String, Value>>,
    pub(super) limit: Duration,
}

/// A step has failed, and that has been said.
pub(super) struct Stopped;

/// Takes all steps; the session as it is after them.
pub(super) async fn run(plan: Plan, show: &Show) -> Result<Session, Stopped> {
    let mut session = connect(&plan, show).await?;
    match converse(&plan, &mut session, show).await {
        Ok(()) => Ok(session),
        Err(stopped) => {
            session.end().await;
            Err(stopped)
        }
    }
}

async fn converse(plan: &Plan, session: &mut Session, show: &Show) -> Result<(), Stopped> {
    authenticate(plan, session, show).await?;
    initialize(plan, session, show).await?;
    let tools = step(show, "tools", list(session, show), |tools: &Vec<Value>| named(tools)).await?;
    session.learn(&tools);
    let choice = match choose(plan, &tools) {
        Ok(choice) => choice,
        Err(why) if plan.call.is_some() => {
            let failure = Failure::Usage(format!("{why}; give them with --arguments"));
            return Err(failed(show, "call", Instant::now(), &failure));
        }
        Err(why) => {
            show.left_out("call", format!("no tool was called: {why}. Name one: --call NAME --arguments JSON"));
            return Ok(());
        }
    };
    let said = format!("{} {}", choice.name, Value::Object(choice.arguments.clone()));
    let calling = call(session, choice, show);
    step(show, "call", calling, |result| format!("{said} → {}", of_result(result))).await?;
    Ok(())
}

/// Waits for one step, and says how it went.
async fn step<T>(
    show: &Show,
    name: &str,
    work: impl Future<Output = Result<T, Failure>>,
    say: impl FnOnce(&T) -> String,
) -> Result<T, Stopped> {
    let started = Instant::now();
    match work.await {
        Ok(done) => {
            show.done(name, started.elapsed(), say(&done));
            Ok(done)
        }
        Err(failure) => Err(failed(show, name, started, &failure)),
    }
}

fn failed(show: &Show, name: &str, started: Instant, failure: &Failure) -> Stopped {
    // Where the token goes along with something else, it is still the token that was refused.
    let name = if failure.is_about_token() { "authenticate" } else { name };
    show.failed(name, started.elapsed(), failure);
    Stopped
}

/// TCP and TLS; on WebSocket the upgrade as well.
async fn connect(plan: &Plan, show: &Show) -> Result<Session, Stopped> {
    let opening = async {
        let stream = plan.connector.connect().await?;
        transport::open(Rc::clone(&plan.connector), stream, plan.token.as_ref(), plan.limit).await
    };
    let target = &plan.connector.target;
    let how = if target.tls { "encrypted, certificate verified" } else { "not encrypted" };
    let talk = step(show, "connect", opening, |_| format!("{target}, {how}")).await?;
    Ok(Session::new(talk, plan.era, plan.token.is_some(), plan.limit))
}

async fn authenticate(plan: &Plan, session: &mut Session, show: &Show) -> Result<(), Stopped> {
    let door = plan.connector.target.door;
    let Some(token) = &plan.token else {
        show.left_out(
            "authenticate",
            format!("there is no token: {} and RINGWALL_TOKEN are not set", door.token_variable()),
        );
        return Ok(());
    };
    match door {
        Door::Tcp => {
            let token = String::from_utf8_lossy(token.expose());
            let asking = async {
                // A message of the gateway's own, in neither era.
                let params = json!({"token": token});
                let result = session.ask_plainly("authenticate", params, show).await?;
                match result.get("authenticated").and_then(Value::as_bool) {
                    Some(true) => Ok(()),
                    _ => Err(Failure::Protocol("the answer does not say that the token is accepted".to_owned())),
                }
            };
            step(show, "authenticate", asking, |()| "the token was accepted".to_owned()).await
        }
        Door::Ws => {
            show.noted("authenticate", "the token was accepted, with the upgrade");
            Ok(())
        }
        // It goes with each request; the first answer tells.
        Door::Http => Ok(()),
    }
}

/// `initialize`, or `server/discover`.
async fn initialize(plan: &Plan, session: &mut Session, show: &Show) -> Result<(), Stopped> {
    let started = Instant::now();
    let opened = match session.era {
        Era::Session => open_session(session, show).await,
        Era::Modern => discover(session, show).await,
    };
    match opened {
        Ok(text) => {
            if plan.connector.target.door == Door::Http && plan.token.is_some() {
                show.noted("authenticate", "the token was accepted, with the first request");
            }
            show.done("initialize", started.elapsed(), text);
            Ok(())
        }
        Err(failure) => Err(failed(show, "initialize", started, &failure)),
    }
}

async fn open_session(session: &mut Session, show: &Show) -> Result<String, Failure> {
    let params = json!({"protocolVersion": OFFERED, "capabilities": {}, "clientInfo": client_info()});
    let result = session.ask("initialize", params, show).await?;
    let version = result.get("protocolVersion").and_then(Value::as_str).unwrap_or_default();
    let Some(version) = REVISIONS.into_iter().find(|known| *known == version) else {
        return Err(Failure::Protocol(format!(
            "the server wants revision {version:?}, which this client does not speak"
        )));
    };
    session.agree(version);
    session.notify("notifications/initialized", json!({}), show).await?;
    Ok(format!("{}, {version}", server(result.get("serverInfo"))))
}

async fn discover(session: &mut Session, show: &Show) -> Result<String, Failure> {
    let result = session.ask("server/discover", json!({}), show).await?;
    let versions = result.get("supportedVersions").and_then(Value::as_array);
    if !versions.into_iter().flatten().any(|version| version == MODERN) {
        return Err(Failure::Protocol(format!("the server does not list {MODERN} among its versions")));
    }
    Ok(format!("{}, {MODERN}", server(result.pointer("/_meta/io.modelcontextprotocol~1serverInfo"))))
}

/// Name and version.
fn server(info: Option<&Value>) -> String {
    let text = |key: &str| info.and_then(|info| info.get(key)).and_then(Value::as_str);
    match (text("name"), text("version")) {
        (Some(name), Some(version)) => format!("{name} {version}"),
        (Some(name), None) => name.to_owned(),
        _ => "a server without a name".to_owned(),
    }
}

/// All pages of the list of tools.
async fn list(session: &mut Session, show: &Show) -> Result<Vec<Value>, Failure> {
    let (mut tools, mut cursor) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let params = cursor.take().map_or_else(|| json!({}), |cursor: Value| json!({"cursor": cursor}));
        let mut result = session.ask("tools/list", params, show).await?;
        let Some(Value::Array(page)) = result.get_mut("tools").map(Value::take) else {
            return Err(Failure::Protocol("the list of tools has no \"tools\"".to_owned()));
        };
        tools.extend(page);
        match result.get("nextCursor") {
            None | Some(Value::Null) => return Ok(tools),
            Some(next) => cursor = Some(next.clone()),
        }
    }
    Err(Failure::Protocol(format!("the list of tools has more than {MAX_PAGES} pages")))
}

/// How many there are, and which.
fn named(tools: &[Value]) -> String {
    let names: Vec<&str> = tools.iter().filter_map(|tool| tool.get("name")?.as_str()).collect();
    format!("{}: {}", names.len(), names.join(", "))
}

fn choose(plan: &Plan, tools: &[Value]) -> Result<Choice, String> {
    let Some(name) = &plan.call else { return arguments::choose(tools) };
    let arguments = match &plan.arguments {
        Some(arguments) => arguments.clone(),
        None => {
            let tool = tools.iter().find(|tool| tool.get("name").and_then(Value::as_str) == Some(name));
            // A tool that is not listed may exist for all that: the server decides.
            let made = tool.map(|tool| arguments::make(tool.get("inputSchema").unwrap_or(&Value::Null))).transpose();
            made.map_err(|why| format!("no arguments could be made up for {name}: {why}"))?.unwrap_or_default()
        }
    };
    Ok(Choice { name: name.clone(), arguments })
}

async fn call(session: &mut Session, choice: Choice, show: &Show) -> Result<Value, Failure> {
    let params = json!({"name": choice.name, "arguments": choice.arguments});
    let result = session.ask("tools/call", params, show).await?;
    if result.get("isError").and_then(Value::as_bool) == Some(true) {
        return Err(Failure::Tool(of_result(&result)));
    }
    if result.get("resultType").and_then(Value::as_str).is_some_and(|kind| kind != "complete") {
        return Err(Failure::Tool("it asks for input, which this client does not give".to_owned()));
    }
    Ok(result)
}
