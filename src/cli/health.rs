//! `ringwall health`: asks a running gateway how it is; for container health checks and for people.
//!
//! One plain HTTP/1.1 request over a std socket with a deadline; no runtime is started. Exit status 0 when the answer is 200, 1
//! otherwise.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What the command line says.
#[derive(Debug, clap::Args)]
pub struct HealthArgs {
    /// What to ask; default: /health/ready on MCP_HEALTH_PORT of this machine
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// Time for everything: connecting, asking, reading.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer read, bytes.
const MAX_ANSWER: u64 = 256 * 1024;

/// Why there is no healthy answer.
#[derive(Debug, thiserror::Error)]
enum HealthError {
    /// The caller gave something else than `http://host[:port]/path`.
    #[error("{0:?} is not an http:// URL; example: http://127.0.0.1:9501/health")]
    BadUrl(String),
    /// Nobody answers there.
    #[error("no answer from {0}: {1}")]
    NoAnswer(String, io::Error),
    /// What answers does not speak HTTP.
    #[error("{0} does not answer in HTTP")]
    NotHttp(String),
}

/// A URL taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Url<'a> {
    /// As written, brackets and port included: the `Host` field.
    authority: &'a str,
    host: &'a str,
    port: u16,
    path: &'a str,
}

/// Asks and prints. `port` is the health port in force, for when no URL is given.
#[must_use]
pub fn run(args: &HealthArgs, port: u16) -> ExitCode {
    let url = args.url.clone().unwrap_or_else(|| format!("http://127.0.0.1:{port}/health/ready"));
    match ask(&url) {
        Ok((200, body)) => print(&mut io::stdout(), format_args!("{body}"), ExitCode::SUCCESS),
        Ok((status, body)) => print(&mut io::stdout(), format_args!("{status} {body}"), ExitCode::FAILURE),
        Err(error) => print(&mut io::stderr(), format_args!("ringwall health: {error}"), ExitCode::FAILURE),
    }
}

/// A closed pipe is no reason to panic: the exit status is what counts.
fn print(to: &mut dyn Write, text: fmt::Arguments<'_>, code: ExitCode) -> ExitCode {
    let _ = writeln!(to, "{text}");
    code
}

fn ask(url: &str) -> Result<(u16, String), HealthError> {
    let parsed = parse(url).ok_or_else(|| HealthError::BadUrl(url.to_owned()))?;
    let answer = exchange(&parsed).map_err(|error| HealthError::NoAnswer(url.to_owned(), error))?;
    read_answer(&answer).ok_or_else(|| HealthError::NotHttp(url.to_owned()))
}

fn parse(url: &str) -> Option<Url<'_>> {
    let rest = url.strip_prefix("http://")?;
    if !rest.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']')?;
            (host, after.strip_prefix(':').or(after.is_empty().then_some("80"))?)
        }
        None => authority.split_once(':').unwrap_or((authority, "80")),
    };
    let port = port.parse().ok()?;
    (!host.is_empty()).then_some(Url { authority, host, port, path: if path.is_empty() { "/" } else { path } })
}

fn exchange(url: &Url<'_>) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + TIMEOUT;
    let mut stream = connect(url, deadline)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", url.path, url.authority);
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while (answer.len() as u64) < MAX_ANSWER {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Ok(answer);
        }
        answer.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
    Err(io::Error::other("the answer is too long"))
}

#[allow(clippy::disallowed_methods, reason = "a command in a process of its own, not a worker")]
fn connect(url: &Url<'_>, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in (url.host, url.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Status and body. Health answers carry a length, so there is no transfer coding to undo.
fn read_answer(answer: &[u8]) -> Option<(u16, String)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(answer).ok()? else {
        return None;
    };
    let body = String::from_utf8_lossy(answer.get(head..)?);
    // What is printed on a terminal must not drive it.
    let body = body.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Some((response.code?, body))
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
