//! `ringwall sample-server`: the built-in SAMPLE MCP server, so that a first call can be answered without anything installed. It speaks
//! over stdio, or listens for lines, WebSocket or Streamable HTTP, to try an upstream of each kind.
//!
//! It only pretends: nothing is sent, nobody is called. What was "sent" is kept in memory, the last 100 messages, until the process
//! ends. It speaks the legacy revisions (`initialize`) and 2026-07-28 (`server/discover`, every request with its `_meta`).

mod listen;

use std::collections::VecDeque;
use std::io::{self, BufRead, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, PoisonError};

use serde_json::{Map, Value, json};

/// Messages that are kept.
const MAX_KEPT: usize = 100;
/// Longest request line, in bytes.
const MAX_LINE: u64 = 1 << 20;
/// Longest `to`, `agentId`, in characters.
const MAX_NAME: usize = 256;
/// Longest `body`, `script`, `text`, in characters.
const MAX_TEXT: usize = 10_000;

const MODERN: &str = "2026-07-28";
const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";
const SERVER_KEY: &str = "io.modelcontextprotocol/serverInfo";

/// How the sample server is reached.
#[derive(clap::Args)]
pub struct Args {
    /// What it speaks
    #[arg(long, value_enum, default_value_t = Transport::Stdio)]
    transport: Transport,
    /// Where it listens, unless it speaks over stdio; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3010")]
    listen: SocketAddr,
}

/// What the sample server speaks.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Transport {
    /// Lines on standard input and output
    Stdio,
    /// Lines over TCP
    Tcp,
    /// WebSocket
    Ws,
    /// Streamable HTTP
    Http,
}

/// Serves until stdin ends, or for ever.
pub fn run(args: &Args) -> ExitCode {
    let spoken = match args.transport {
        Transport::Stdio => {
            return match serve(&mut io::stdin().lock(), &mut io::stdout().lock()) {
                Ok(()) => ExitCode::SUCCESS,
                // The client has gone; there is nobody to tell.
                Err(_) => ExitCode::FAILURE,
            };
        }
        Transport::Tcp => listen::Spoken::Lines,
        Transport::Ws => listen::Spoken::WebSocket,
        Transport::Http => listen::Spoken::Http,
    };
    match listen::run(spoken, args.listen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "the sample server cannot listen on {}: {error}", args.listen);
            ExitCode::FAILURE
        }
    }
}

/// Says where the server is and how to put it behind the gateway. It serves as well where nobody reads that.
fn announce(url: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "the SAMPLE server listens on {url}");
    let _ = writeln!(out, "put it behind the gateway with: ringwall serve --upstream {url}");
    let _ = out.flush();
}

/// Answers every line of `input` on `output`.
fn serve(input: &mut impl BufRead, output: &mut impl Write) -> io::Result<()> {
    let mut server = Server::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let answer = if line.ends_with(b"\n") || (line.len() as u64) < MAX_LINE {
            server.line(&line)
        } else {
            skip_line(input)?;
            Some(error(None, -32600, "the message is too long", None))
        };
        if let Some(answer) = answer {
            let mut bytes = serde_json::to_vec(&answer)?;
            bytes.push(b'\n');
            output.write_all(&bytes)?;
            output.flush()?;
        }
    }
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let (used, ended) = {
            let available = input.fill_buf()?;
            match memchr::memchr(b'\n', available) {
                Some(at) => (at.saturating_add(1), true),
                None => (available.len(), available.is_empty()),
            }
        };
        input.consume(used);
        if ended {
            return Ok(());
        }
    }
}

/// A JSON-RPC error; `id` is left out where it is not known.
fn error(id: Option<&Value>, code: i32, message: &str, data: Option<Value>) -> Value {
    let mut body = json!({"code": code, "message": message});
    if let (Some(data), Some(body)) = (data, body.as_object_mut()) {
        body.insert("data".to_owned(), data);
    }
    let mut answer = json!({"jsonrpc": "2.0", "error": body});
    if let (Some(id), Some(answer)) = (id, answer.as_object_mut()) {
        answer.insert("id".to_owned(), id.clone());
    }
    answer
}

/// An error before it has its id.
struct Fault {
    code: i32,
    message: String,
    data: Option<Value>,
}

fn fault(code: i32, message: impl Into<String>) -> Fault {
    Fault { code, message: message.into(), data: None }
}

/// What was "sent", seen by all connections.
#[derive(Clone, Default)]
#[allow(clippy::disallowed_types, reason = "the sample server is a process of its own and no worker")]
struct Desk(Arc<std::sync::Mutex<Sent>>);

#[derive(Default)]
struct Sent {
    kept: VecDeque<Value>,
    count: u64,
}

impl Desk {
    fn with<T>(&self, act: impl FnOnce(&mut Sent) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One connection.
#[derive(Default)]
struct Server {
    initialized: bool,
    desk: Desk,
}

impl Server {
    fn at(desk: Desk) -> Self {
        Self { initialized: false, desk }
    }

    fn line(&mut self, line: &[u8]) -> Option<Value> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return None;
        }
        let Ok(message) = serde_json::from_slice::<Value>(line) else {
            return Some(error(None, -32700, "not JSON", None));
        };
        if message.get("result").or(message.get("error")).is_some() {
            // The answer to a request that this server never makes.
            return None;
        }
        let raw_id = message.get("id");
        let id = raw_id.filter(|id| id.is_string() || id.is_number());
        let is_2_0 = message.get("jsonrpc").and_then(Value::as_str) == Some("2.0");
        let method = message.get("method").and_then(Value::as_str);
        let (Some(method), true) = (method, is_2_0) else {
            return Some(error(id, -32600, "not a JSON-RPC 2.0 request", None));
        };
        // A notification has no id, and gets no answer.
        raw_id?;
        let Some(id) = id else {
            return Some(error(None, -32600, "id must be a string or a number", None));
        };
        let empty = Map::new();
        let params = message.get("params").and_then(Value::as_object).unwrap_or(&empty);
        Some(match self.request(method, params) {
            Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
            Err(fault) => error(Some(id), fault.code, &fault.message, fault.data),
        })
    }

    fn request(&mut self, method: &str, params: &Map<String, Value>) -> Result<Value, Fault> {
        let meta = params.get("_meta").and_then(Value::as_object);
        match meta.and_then(|meta| meta.get(VERSION_KEY)) {
            None => self.legacy(method, params),
            Some(version) if version.as_str() == Some(MODERN) => {
                let capable = meta.is_some_and(|meta| meta.get(CAPABILITIES_KEY).is_some_and(Value::is_object));
                if !capable {
                    return Err(fault(-32602, format!("_meta lacks {CAPABILITIES_KEY}")));
                }
                self.modern(method, params)
            }
            Some(version) => Err(Fault {
                data: Some(json!({"supported": [MODERN], "requested": version})),
                ..fault(-32022, "unsupported protocol version")
            }),
        }
    }

    fn legacy(&mut self, method: &str, params: &Map<String, Value>) -> Result<Value, Fault> {
        match method {
            "initialize" => {
                let asked = params.get("protocolVersion").and_then(Value::as_str);
                let Some(asked) = asked else {
                    return Err(fault(-32602, "protocolVersion is missing"));
                };
                let version = LEGACY.into_iter().find(|known| *known == asked).unwrap_or(LEGACY[0]);
                self.initialized = true;
                Ok(json!({
                    "protocolVersion": version,
                    "capabilities": {"tools": {}},
                    "serverInfo": server_info(),
                    "instructions": INSTRUCTIONS,
                }))
            }
            "ping" => Ok(json!({})),
            _ if !self.initialized => Err(fault(-32602, format!("send initialize first, or _meta with {VERSION_KEY}"))),
            "tools/list" => Ok(json!({"tools": tools()})),
            "tools/call" => self.call(params),
            _ => Err(fault(-32601, "method not found")),
        }
    }

    fn modern(&mut self, method: &str, params: &Map<String, Value>) -> Result<Value, Fault> {
        let mut result = match method {
            "server/discover" => json!({
                "supportedVersions": [MODERN],
                "capabilities": {"tools": {}},
                "instructions": INSTRUCTIONS,
                "ttlMs": 60_000,
                "cacheScope": "public",
            }),
            "tools/list" => json!({"tools": tools(), "ttlMs": 60_000, "cacheScope": "public"}),
            "tools/call" => self.call(params)?,
            _ => return Err(fault(-32601, "method not found")),
        };
        if let Some(result) = result.as_object_mut() {
            result.insert("resultType".to_owned(), json!("complete"));
            result.insert("_meta".to_owned(), json!({SERVER_KEY: server_info()}));
        }
        Ok(result)
    }

    fn call(&mut self, params: &Map<String, Value>) -> Result<Value, Fault> {
        let name = params.get("name").and_then(Value::as_str);
        let empty = Map::new();
        let arguments = match params.get("arguments") {
            None => &empty,
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return Err(fault(-32602, "arguments must be an object")),
        };
        let done = match name {
            Some("comms_send_message") => self.send(arguments, "message", "body", true),
            Some("comms_make_call") => self.send(arguments, "call", "script", false),
            Some("comms_list_messages") => self.list(arguments),
            Some("echo") => text(arguments, "text", MAX_TEXT, true).map(Value::from),
            Some(_) => return Err(fault(-32602, "unknown tool")),
            None => return Err(fault(-32602, "name is missing")),
        };
        // What is wrong with arguments is for the model to read and to mend, hence no JSON-RPC error.
        let (content, failed) = match done {
            Ok(Value::String(text)) => (text, false),
            Ok(value) => (value.to_string(), false),
            Err(reason) => (reason, true),
        };
        Ok(json!({"content": [{"type": "text", "text": content}], "isError": failed}))
    }

    fn send(
        &mut self,
        arguments: &Map<String, Value>,
        kind: &str,
        words: &str,
        words_required: bool,
    ) -> Result<Value, String> {
        let to = text(arguments, "to", MAX_NAME, true)?;
        let said = text(arguments, words, MAX_TEXT, words_required)?;
        let agent = text(arguments, "agentId", MAX_NAME, false)?;
        let mut entry = json!({"kind": kind, "to": to});
        if let Some(entry) = entry.as_object_mut() {
            if !said.is_empty() {
                entry.insert(words.to_owned(), json!(said));
            }
            if !agent.is_empty() {
                entry.insert("agentId".to_owned(), json!(agent));
            }
        }
        self.desk.with(|sent| {
            sent.count = sent.count.saturating_add(1);
            if let Some(entry) = entry.as_object_mut() {
                entry.insert("id".to_owned(), json!(format!("sample-{}", sent.count)));
            }
            if sent.kept.len() >= MAX_KEPT {
                sent.kept.pop_front();
            }
            sent.kept.push_back(entry.clone());
        });
        if let Some(entry) = entry.as_object_mut() {
            entry.insert("note".to_owned(), json!("SAMPLE: nothing was really sent"));
        }
        Ok(entry)
    }

    fn list(&self, arguments: &Map<String, Value>) -> Result<Value, String> {
        let agent = text(arguments, "agentId", MAX_NAME, false)?;
        let messages: Vec<Value> = self.desk.with(|sent| {
            let is_theirs =
                |entry: &&Value| agent.is_empty() || entry.get("agentId").and_then(Value::as_str) == Some(agent);
            sent.kept.iter().filter(is_theirs).cloned().collect()
        });
        Ok(json!({"messages": messages, "note": "SAMPLE: nothing was really sent"}))
    }
}

/// A string argument of at most `max` characters; empty when it is absent and may be.
fn text<'a>(arguments: &'a Map<String, Value>, name: &str, max: usize, required: bool) -> Result<&'a str, String> {
    match arguments.get(name) {
        None | Some(Value::Null) if required => Err(format!("argument '{name}' is missing")),
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) if required && text.trim().is_empty() => Err(format!("argument '{name}' is empty")),
        Some(Value::String(text)) if text.chars().count() > max => {
            Err(format!("argument '{name}' is longer than {max} characters"))
        }
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("argument '{name}' must be a string")),
    }
}

const INSTRUCTIONS: &str = "SAMPLE server built into ringwall, for trying the gateway out. Its tools only pretend: nothing is sent and \
     nobody is called.";

fn server_info() -> Value {
    json!({
        "name": "ringwall-sample",
        "title": "SAMPLE communication server (nothing is really sent)",
        "version": env!("CARGO_PKG_VERSION"),
    })
}

fn tools() -> Value {
    let agent =
        json!({"type": "string", "maxLength": MAX_NAME, "description": "The agent on whose behalf this is done."});
    let to = json!({"type": "string", "minLength": 1, "maxLength": MAX_NAME, "description": "Whom to reach: a phone number or an e-mail address."});
    json!([
        {
            "name": "comms_send_message",
            "title": "Send a message (SAMPLE)",
            "description": "SAMPLE: pretends to send a text message. Nothing is really sent; it is only kept for comms_list_messages.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "to": to,
                    "body": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT, "description": "The text of the message."},
                    "agentId": agent,
                },
                "required": ["to", "body"],
            },
        },
        {
            "name": "comms_make_call",
            "title": "Make a call (SAMPLE)",
            "description": "SAMPLE: pretends to make a phone call. Nobody is really called.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "to": to,
                    "script": {"type": "string", "maxLength": MAX_TEXT, "description": "What to say."},
                    "agentId": agent,
                },
                "required": ["to"],
            },
        },
        {
            "name": "comms_list_messages",
            "title": "List messages (SAMPLE)",
            "description": "SAMPLE: lists the last messages and calls that this process pretended to make.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "agentId": {"type": "string", "maxLength": MAX_NAME, "description": "Only those of this agent."},
                },
            },
            "annotations": {"readOnlyHint": true},
        },
        {
            "name": "echo",
            "title": "Echo (SAMPLE)",
            "description": "SAMPLE: answers with the text that it was given.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "text": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT, "description": "The text to send back."},
                },
                "required": ["text"],
            },
            "annotations": {"readOnlyHint": true},
        },
    ])
}

#[cfg(test)]
mod tests;
