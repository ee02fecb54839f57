//! `ringwall client` as a process of its own: what it said and how it ended, or line by line.
#![allow(clippy::disallowed_methods, reason = "the threads of a test are its own")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};

use super::blackbox::{Gateway, PATIENCE, TOKEN};

/// Where `door` of the gateway is, as the client is told.
pub(crate) fn place(gateway: &Gateway, door: &str) -> [String; 2] {
    match door {
        "tcp" => ["--address".to_owned(), gateway.tcp.to_string()],
        "ws" => ["--url".to_owned(), format!("ws://{}/ws", gateway.bridge)],
        _ => ["--url".to_owned(), format!("http://{}/mcp", gateway.bridge)],
    }
}

/// The client, with nothing of this process's environment but this token.
pub(crate) fn command(door: &str, arguments: &[&str], token: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringwall"));
    command.args(["client", door]).args(arguments).env_clear();
    // What is tested here is not how long a busy machine takes.
    if !arguments.contains(&"--timeout") {
        command.args(["--timeout", "100"]);
    }
    if let Some(token) = token {
        command.env("RINGWALL_TOKEN", token);
    }
    command.stdin(Stdio::null());
    command
}

/// What a client that takes no commands said, and how it ended.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn said(door: &str, arguments: &[&str], token: Option<&str>) -> Said {
    let output = command(door, arguments, token).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let said = Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    if let Some(token) = token {
        assert!(!said.out.contains(token) && !said.err.contains(token), "the token is in what was said");
    }
    said
}

pub(crate) fn at(gateway: &Gateway, door: &str, more: &[&str], token: Option<&str>) -> Said {
    let place = place(gateway, door);
    let arguments: Vec<&str> = place.iter().map(String::as_str).chain(more.iter().copied()).collect();
    said(door, &arguments, token)
}

impl Said {
    /// That it failed at `step`, for a reason that has `words` in it, and said what to try.
    #[track_caller]
    pub(crate) fn failed(&self, step: &str, words: &str) {
        let line = self.out.lines().find(|line| line.starts_with('✗')).unwrap_or_default();
        assert!(line.contains(step) && line.contains(words), "{step}, {words}: {}{}", self.out, self.err);
        assert!(self.out.contains("\n  try: "), "{}", self.out);
        assert_eq!(self.code, Some(1), "{}", self.out);
    }
}

/// A client that takes commands.
pub(crate) struct Interactive {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    said: String,
}

impl Interactive {
    pub(crate) fn start(door: &str, arguments: &[&str]) -> Self {
        let mut command = command(door, &[arguments, &["--interactive"]].concat(), Some(TOKEN));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        Self { stdin: child.stdin.take(), child, lines, said: String::new() }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Waits for a line that has `words` in it.
    pub(crate) fn hear(&mut self, words: &str) -> String {
        self.try_hear(words).unwrap_or_else(|| panic!("no {words:?} in:\n{}", self.said))
    }

    /// Whether such a line comes before the client ends.
    pub(crate) fn hears(&mut self, words: &str) -> bool {
        self.try_hear(words).is_some()
    }

    fn try_hear(&mut self, words: &str) -> Option<String> {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).ok()?;
            assert!(!line.contains(TOKEN), "the token is in what was said");
            self.said += &format!("{line}\n");
            if line.contains(words) {
                return Some(line);
            }
        }
    }

    /// Ends the input and waits for the end.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        drop(self.stdin.take());
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.said += &format!("{line}\n");
        }
        (self.child.wait().unwrap(), std::mem::take(&mut self.said))
    }
}

impl Drop for Interactive {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
