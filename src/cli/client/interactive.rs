//! Commands after the steps. Lines are read by a thread of their own, so that what the server says is shown as it arrives; several
//! requests may be out at once. Where the input is no terminal there is no prompt. The end of the input waits for what is still out;
//! `quit` does not.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read, Write};

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::failure::Failure;
use super::session::{Era, Heard, Session, method};
use super::show::{Show, of_result};
use crate::wire::lines::LineSplitter;

/// Longest command, bytes.
const MAX_LINE: usize = 1 << 20;
/// Requests that may be out at once.
const MAX_PENDING: usize = 64;

const HELP: &str =
    "tools: list them | call NAME {json} | raw {json}: any message | ping | help | quit, which waits for no answer";

/// A request that is out.
struct Pending {
    method: String,
    id: Value,
    started: Instant,
}

/// Takes commands until there are no more. An error ends the conversation: the connection is gone.
pub(super) async fn run(session: &mut Session, show: &Show) -> Result<(), Failure> {
    session.listen().await?;
    let prompts = io::stdin().is_terminal() && io::stdout().is_terminal();
    show.line(HELP);
    let mut prompt = Prompt { session, show, pending: BTreeMap::new() };
    let mut lines = read_lines();
    let mut is_over = false;
    while !is_over || !prompt.pending.is_empty() {
        if prompts && !is_over {
            let _ = write!(io::stdout(), "> ").and_then(|()| io::stdout().flush());
        }
        let deadline = prompt.deadline();
        let is_full = prompt.pending.len() >= MAX_PENDING;
        tokio::select! {
            line = lines.recv(), if !is_over && !is_full => match line {
                None => is_over = true,
                Some(line) => is_over = prompt.command(line?.trim()).await? == Next::Quit,
            },
            heard = prompt.session.hear(show) => prompt.heard(heard).await?,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => prompt.give_up().await?,
        }
    }
    Ok(())
}

#[derive(PartialEq)]
enum Next {
    More,
    Quit,
}

struct Prompt<'a> {
    session: &'a mut Session,
    show: &'a Show,
    /// By the text of their ids.
    pending: BTreeMap<String, Pending>,
}

impl Prompt<'_> {
    /// When the oldest request has waited long enough.
    fn deadline(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.started + self.session.limit).min()
    }

    async fn command(&mut self, line: &str) -> Result<Next, Failure> {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match word {
            "" => {}
            "quit" | "exit" => {
                // Nobody waits any more for what is out.
                self.pending.clear();
                return Ok(Next::Quit);
            }
            "help" => self.show.line(HELP),
            "tools" => self.request("tools/list", json!({})).await?,
            "ping" if self.session.era == Era::Modern => {
                self.show.line("! 2026-07-28 has no ping; server/discover is asked instead");
                self.request("server/discover", json!({})).await?;
            }
            "ping" => self.request("ping", json!({})).await?,
            "call" => self.call(rest.trim()).await?,
            "raw" => self.raw(rest.trim()).await?,
            _ => self.show.line(&format!("! no such command. {HELP}")),
        }
        Ok(Next::More)
    }

    async fn call(&mut self, rest: &str) -> Result<(), Failure> {
        let (name, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, "{}"));
        let arguments = if arguments.trim().is_empty() { "{}" } else { arguments.trim() };
        match serde_json::from_str::<Map<String, Value>>(arguments) {
            Ok(_) if name.is_empty() => self.show.line("! call NAME {json}"),
            Ok(arguments) => self.request("tools/call", json!({"name": name, "arguments": arguments})).await?,
            Err(error) => self.show.line(&format!("! the arguments are not an object of JSON: {error}")),
        }
        Ok(())
    }

    async fn raw(&mut self, text: &str) -> Result<(), Failure> {
        let message = match serde_json::from_str::<Map<String, Value>>(text) {
            Ok(message) => Value::Object(message),
            Err(error) => {
                self.show.line(&format!("! not an object of JSON: {error}"));
                return Ok(());
            }
        };
        if let (Some(id), Some(method)) = (message.get("id"), method(&message)) {
            if self.pending.contains_key(&id.to_string()) {
                self.show.line("! a request with this id is still out");
                return Ok(());
            }
            self.wait_for(id.clone(), method);
        }
        self.session.send_text(text, &message, self.show).await
    }

    async fn request(&mut self, method: &str, params: Value) -> Result<(), Failure> {
        let id = self.session.begin(method, params, self.show).await?;
        self.wait_for(id, method);
        Ok(())
    }

    fn wait_for(&mut self, id: Value, method: &str) {
        let pending = Pending { method: method.to_owned(), id: id.clone(), started: Instant::now() };
        self.pending.insert(id.to_string(), pending);
    }

    async fn heard(&mut self, heard: Heard) -> Result<(), Failure> {
        match heard {
            Heard::Answer { id, answer } => {
                let pending = self.pending.remove(&id.to_string());
                let Some(pending) = pending else {
                    let what = answer.map_or_else(
                        |error| self.session.failure("a message", error).to_string(),
                        |result| result.to_string(),
                    );
                    self.show.line(&format!("← an answer to {id}, which nobody has asked: {what}"));
                    return Ok(());
                };
                let took = pending.started.elapsed();
                match answer {
                    Ok(result) => {
                        if pending.method == "tools/list"
                            && let Some(tools) = result.get("tools").and_then(Value::as_array)
                        {
                            self.session.learn(tools);
                        }
                        self.show.done(&pending.method, took, "");
                        described(&pending.method, &result).iter().for_each(|line| self.show.line(line));
                    }
                    Err(error) => {
                        self.show.failed(&pending.method, took, &self.session.failure(&pending.method, error))
                    }
                }
            }
            Heard::Request { id, message } => {
                self.show.line(&format!("← the server asks: {message}"));
                self.session.reply(id, &message, self.show).await?;
            }
            Heard::Notification(message) => self.show.line(&format!("← {message}")),
            Heard::Lost(failure) => return Err(failure),
            Heard::Failed { id: None, failure } => self.show.stopped(&failure),
            Heard::Failed { id: Some(id), failure } => {
                if let Some(pending) = self.pending.remove(&id.to_string()) {
                    self.show.failed(&pending.method, pending.started.elapsed(), &failure);
                }
            }
        }
        Ok(())
    }

    /// Lets go of the requests that have waited long enough, and tells the server.
    async fn give_up(&mut self) -> Result<(), Failure> {
        let (now, limit) = (Instant::now(), self.session.limit);
        let late: Vec<String> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.started + limit <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            let Some(pending) = self.pending.remove(&id) else { continue };
            let failure = Failure::timeout(format!("answer to {}", pending.method), limit);
            self.show.failed(&pending.method, pending.started.elapsed(), &failure);
            if pending.method != "initialize" {
                let params = json!({"requestId": pending.id, "reason": "no answer in time"});
                self.session.notify("notifications/cancelled", params, self.show).await?;
            }
        }
        Ok(())
    }
}

/// A result in lines. What the server says has no lines of its own: it could look like this client's words.
fn described(method: &str, result: &Value) -> Vec<String> {
    match (method, result.get("tools").and_then(Value::as_array)) {
        ("tools/list", Some(tools)) => {
            let described = |tool: &Value| {
                let text = |key: &str| tool.get(key).and_then(Value::as_str).unwrap_or_default();
                format!("  {}: {}", text("name"), text("description"))
            };
            tools.iter().map(described).collect()
        }
        ("tools/call", _) if result.get("isError").and_then(Value::as_bool) == Some(true) => {
            vec![format!("  the tool reports a failure: {}", of_result(result))]
        }
        ("tools/call", _) => vec![format!("  {}", of_result(result))],
        _ => vec![format!("  {result}")],
    }
}

/// The lines of standard input, from a thread of its own: a read of a terminal cannot be given up.
fn read_lines() -> mpsc::Receiver<Result<String, Failure>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let (mut received, mut splitter) = (Vec::new(), LineSplitter::new(MAX_LINE));
        let mut stdin = io::stdin().lock();
        let mut chunk = [0; 4096];
        loop {
            let said = match splitter.next_line(&received) {
                Ok(Some(line)) => {
                    let text = String::from_utf8_lossy(line.text.of(&received)).into_owned();
                    received.drain(..line.consumed);
                    Ok(text)
                }
                Ok(None) => match stdin.read(&mut chunk) {
                    Ok(count @ 1..) => {
                        received.extend_from_slice(chunk.get(..count).unwrap_or_default());
                        continue;
                    }
                    // The last line may lack its end.
                    Ok(0) if !received.is_empty() => {
                        received.push(b'\n');
                        continue;
                    }
                    Ok(0) => return,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(Failure::Usage(format!("standard input cannot be read: {error}"))),
                },
                Err(_) => Err(Failure::Usage(format!("a command is longer than {MAX_LINE} bytes"))),
            };
            let is_last = said.is_err();
            if sender.blocking_send(said).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}
