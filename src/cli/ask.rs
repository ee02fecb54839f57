//! One question to a running gateway, for the commands that ask one.
//!
//! One plain HTTP/1.1 request over a std socket with a deadline; no runtime is started. What is printed of an answer cannot drive a
//! terminal: control characters become blanks.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::control::audit::line::must_escape as steers;
use crate::settings::{CommandLine, Inputs, Secret, Settings};

/// Time for everything: connecting, asking, reading.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer read, bytes.
const MAX_ANSWER: u64 = 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
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

/// The admin listener of the gateway whose settings are at hand, and the token for it.
pub(super) struct AdminApi {
    at: SocketAddr,
    token: Secret,
}

impl AdminApi {
    /// From the environment and `.env`, as the gateway itself reads them.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub(super) fn configured() -> Result<Self, String> {
        let loaded = Inputs::from_process(CommandLine::default()).and_then(|inputs| Settings::load(&inputs));
        let settings = loaded.map_err(|faults| faults.to_string())?.settings;
        let token = settings.auth.orchestrator_token.ok_or(
            "ORCHESTRATOR_SECURITY_TOKEN is not set. Put the gateway's token into the environment, or call this where its .env is",
        )?;
        let ip = match settings.doors.admin_bind_address {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Ok(Self { at: SocketAddr::new(ip, settings.doors.admin_port), token })
    }

    /// Asks, and takes an answer of status 200, 201 or 202.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub(super) fn ask(&self, method: &str, path: &str) -> Result<String, String> {
        self.send(method, path, None)
    }

    /// Likewise, with a body of JSON.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub(super) fn send(&self, method: &str, path: &str, body: Option<&[u8]>) -> Result<String, String> {
        let url = format!("http://{}{path}", self.at);
        let (status, body) = ask_with(method, &url, Some(&self.token), body).map_err(|error| {
            format!(
                "{error}. Is the gateway running? ADMIN_PORT and ADMIN_BIND_ADDRESS say where its admin listener is"
            )
        })?;
        match status {
            200..=202 => Ok(body),
            401 => {
                Err("the gateway does not take this ORCHESTRATOR_SECURITY_TOKEN: it was started with another one"
                    .into())
            }
            403 => Err("the gateway does not take this address: it is blocked, or not in ADMIN_IP_ALLOWLIST".into()),
            503 => {
                let disabled = "the gateway has no ORCHESTRATOR_SECURITY_TOKEN: set one there and start it again";
                let other = detail(&body).filter(|_| !body.contains("admin_disabled"));
                Err(other.unwrap_or_else(|| disabled.into()))
            }
            404 => {
                Err(detail(&body).unwrap_or_else(|| "the gateway does not know this: is it of another version?".into()))
            }
            _ => Err(format!("the gateway answers {status}: {}", detail(&body).unwrap_or(body))),
        }
    }
}

/// The `detail` of problem details (RFC 9457).
fn detail(body: &str) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_str(body).ok()?;
    Some(plain(problem.get("detail")?.as_str()?))
}

/// A text that cannot drive a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()
}

/// A closed pipe is no reason to panic: the exit status is what counts.
pub(super) fn print(to: &mut dyn Write, text: fmt::Arguments<'_>, code: ExitCode) -> ExitCode {
    let _ = writeln!(to, "{text}");
    code
}

/// Status and body of an answer.
pub(super) fn ask(method: &str, url: &str, token: Option<&Secret>) -> Result<(u16, String), AskError> {
    ask_with(method, url, token, None)
}

fn ask_with(method: &str, url: &str, token: Option<&Secret>, body: Option<&[u8]>) -> Result<(u16, String), AskError> {
    let parsed = parse(url).ok_or_else(|| AskError::BadUrl(url.to_owned()))?;
    let answer = exchange(method, &parsed, token, body).map_err(|error| AskError::NoAnswer(url.to_owned(), error))?;
    read_answer(&answer).ok_or_else(|| AskError::NotHttp(url.to_owned()))
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

fn exchange(method: &str, url: &Url<'_>, token: Option<&Secret>, body: Option<&[u8]>) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + TIMEOUT;
    let mut stream = connect(url, deadline)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // With room for all of it: what grows leaves a copy behind.
    let mut request = Zeroizing::new(Vec::with_capacity(8192 + body.map_or(0, <[u8]>::len)));
    write!(request, "{method} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", url.path, url.authority)?;
    if let Some(token) = token {
        request.extend_from_slice(b"Authorization: Bearer ");
        request.extend_from_slice(token.expose());
        request.extend_from_slice(b"\r\n");
    }
    if let Some(body) = body {
        write!(request, "Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())?;
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body.unwrap_or_default());
    stream.write_all(&request)?;
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

/// Status and body. These answers carry a length, so there is no transfer coding to undo.
fn read_answer(answer: &[u8]) -> Option<(u16, String)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(answer).ok()? else {
        return None;
    };
    let body = String::from_utf8_lossy(answer.get(head..)?);
    Some((response.code?, plain(body.trim_end())))
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;
