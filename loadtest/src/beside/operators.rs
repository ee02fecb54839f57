//! Operators of the gateway: they issue tokens, list all of them a page after the other, and copy the database.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::super::cpu;

/// The orchestrator's token.
pub(super) const TOKEN: &str = "loadtest-operator-token-0123456789abcdef";

/// Tokens of one agent.
const OF_AN_AGENT: usize = 500;
/// Requests at once while tokens are issued: many share one sync.
const AT_ONCE: usize = 32;
/// Tokens of a page.
const PAGE: usize = 500;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Operators {
    ringwall: PathBuf,
    admin: SocketAddr,
    /// The gateway's working directory.
    home: PathBuf,
    /// Of who copies.
    core: usize,
    tokens: AtomicUsize,
}

/// What operators have done beside a round.
#[derive(Clone, Copy, Default)]
pub(super) struct Done {
    pub(super) pages: u64,
    /// Of all tokens.
    pub(super) lists: u64,
    pub(super) copies: u64,
}

impl Operators {
    pub(super) fn new(ringwall: PathBuf, port: u16, home: PathBuf, core: usize) -> Self {
        let admin = SocketAddr::from(([127, 0, 0, 1], port));
        Self { ringwall, admin, home, core, tokens: AtomicUsize::new(0) }
    }

    /// Issues so many tokens. Returns how long it took.
    pub(super) fn issue(&self, tokens: usize) -> io::Result<Duration> {
        let (begun, next) = (Instant::now(), AtomicUsize::new(0));
        let work = || -> io::Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= tokens {
                    return Ok(());
                }
                let body = format!(r#"{{"agent":"agent-{}","label":"number {number}"}}"#, number / OF_AN_AGENT);
                self.ask("POST", "/admin/tokens", &body, 201)?;
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| io::Error::other("a thread has failed"))?)
        })?;
        self.tokens.store(tokens, Ordering::Relaxed);
        Ok(begun.elapsed())
    }

    /// Lists and copies for as long as `measure` takes.
    pub(super) fn beside<T>(&self, measure: impl FnOnce() -> T) -> io::Result<(Done, T)> {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let listing = scope.spawn(|| self.list_until(&is_over));
            let copying = scope.spawn(|| self.copy_until(&is_over));
            let measured = measure();
            is_over.store(true, Ordering::Relaxed);
            let failed = || io::Error::other("a thread has failed");
            let (pages, lists) = listing.join().map_err(|_| failed())??;
            let copies = copying.join().map_err(|_| failed())??;
            Ok((Done { pages, lists, copies }, measured))
        })
    }

    /// Pages, and whole lists.
    fn list_until(&self, is_over: &AtomicBool) -> io::Result<(u64, u64)> {
        let (mut pages, mut lists, mut seen, mut cursor) = (0, 0, 0, String::new());
        while !is_over.load(Ordering::Relaxed) {
            let page = self.ask("GET", &format!("/admin/tokens?limit={PAGE}{cursor}"), "", 200)?;
            pages += 1;
            seen += memchr::memmem::find_iter(&page, b"\"issuedAt\":").count();
            match next(&page)? {
                Some(next) => cursor = format!("&cursor={next}"),
                None => {
                    let wanted = self.tokens.load(Ordering::Relaxed);
                    if seen != wanted {
                        return Err(io::Error::other(format!("{seen} tokens were listed, and there are {wanted}")));
                    }
                    (lists, seen, cursor) = (lists + 1, 0, String::new());
                }
            }
        }
        Ok((pages, lists))
    }

    fn copy_until(&self, is_over: &AtomicBool) -> io::Result<u64> {
        // What this thread starts runs where it does.
        cpu::pin_self(&[self.core])?;
        let program = std::fs::canonicalize(&self.ringwall)?;
        let mut copies = 0;
        while !is_over.load(Ordering::Relaxed) {
            let mut command = Command::new(&program);
            command.args(["backup", "copy.db", "--force"]).current_dir(&self.home).env_clear();
            let output = command.stdin(Stdio::null()).output()?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(io::Error::other(format!("ringwall backup: {said}")));
            }
            copies += 1;
        }
        Ok(copies)
    }

    /// One request; its answer's body.
    fn ask(&self, method: &str, path: &str, body: &str, wanted: u16) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let content = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\n{content}Connection: close\r\n\r\n{body}",
            self.admin
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let head = memchr::memmem::find(&answer, b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        if !answer.starts_with(format!("HTTP/1.1 {wanted} ").as_bytes()) {
            return Err(io::Error::other(format!("{method} {path}: {}", String::from_utf8_lossy(&answer))));
        }
        Ok(answer.split_off(head + 4))
    }
}

/// The cursor of the next page.
fn next(page: &[u8]) -> io::Result<Option<String>> {
    // The last field of the answer.
    let at = memchr::memmem::rfind(page, b"\"next\":").ok_or_else(|| io::Error::other("no page"))?;
    let value = page.get(at + 7..).unwrap_or_default();
    let text = value.strip_prefix(b"\"").and_then(|value| value.split(|byte| *byte == b'"').next());
    Ok(text.map(|text| String::from_utf8_lossy(text).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_named_by_the_one_before() -> io::Result<()> {
        assert_eq!(next(br#"{"tokens":[],"next":"01a2"}"#)?, Some("01a2".to_owned()));
        assert_eq!(next(br#"{"tokens":[],"next":null}"#)?, None);
        assert!(next(b"{}").is_err());
        Ok(())
    }
}
