//! One connection of the upstream: which transport it speaks, and its requests.

use std::io::{self, Write};

use super::super::channel::{Channel, Received};
use super::super::framing::{self, LastHead};
use super::super::{poll::Poll, small_call, websocket};
use super::answer::{self, Failure};
use super::message::Message;
use super::{Behaviour, Framing};

const JSON_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
const SESSION_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
const CHUNKED_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
const EVENTS_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n";
const FAILED_HEAD: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nContent-Length: ";
const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
const NOT_ALLOWED: &[u8] = b"HTTP/1.1 405 Method Not Allowed\r\nAllow: POST\r\nContent-Length: 0\r\n\r\n";

/// The tools that the fixed calls name. Calls of others are answered as well.
const TOOLS: &[u8] = br#","result":{"tools":[{"name":"comms_send_message","description":"Sends a message.","inputSchema":{"type":"object","properties":{"to":{"type":"string"},"body":{"type":"string"}},"required":["to","body"]}}]}}"#;

const EMPTY: &[u8] = br#","result":{}}"#;

/// Whether a request may have an answer in its body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Post,
    Upgrade,
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    /// HTTP, until a byte or an upgrade says otherwise.
    Http,
    Lines,
    WebSocket,
}

pub(super) struct Client {
    pub(super) channel: Channel,
    head: LastHead<Method>,
    transport: Transport,
    /// When the last of its answers is due: answers over HTTP do not overtake each other.
    pub(super) last_due_ns: u64,
    pub(super) generation: u64,
}

/// Buffers that are used for every request anew.
#[derive(Default)]
pub(super) struct Speech {
    joined: Vec<u8>,
    body: Vec<u8>,
    /// Sessions that were opened over HTTP.
    sessions: u64,
}

impl Client {
    pub(super) fn new(channel: Channel, generation: u64) -> Self {
        Self { channel, head: LastHead::new(), transport: Transport::Http, last_due_ns: 0, generation }
    }

    pub(super) fn flush(&mut self, poll: &Poll) -> io::Result<()> {
        self.channel.flush(poll)
    }

    /// Reads once and answers what has come. An error ends the connection with a reset.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        speech: &mut Speech,
        behaviour: &Behaviour,
        mut answered: impl FnMut(&mut Vec<u8>, usize) -> bool,
    ) -> io::Result<Received> {
        let (head, transport) = (&mut self.head, &mut self.transport);
        self.channel.receive(buffer, |bytes, out| {
            let mut taken = 0;
            loop {
                let rest = bytes.get(taken..).unwrap_or_default();
                let (Some(first), from) = (rest.first(), out.len()) else { return Ok(taken) };
                if *transport == Transport::Http && *first == b'{' {
                    *transport = Transport::Lines;
                }
                let len = match transport {
                    Transport::Http => http(rest, out, head, transport, speech, behaviour)?,
                    Transport::Lines => line(rest, out, speech, behaviour)?,
                    Transport::WebSocket => frame(rest, out, speech, behaviour)?,
                };
                let Some(len) = len else { return Ok(taken) };
                taken += len;
                if out.len() > from && !answered(out, from) {
                    return Err(io::Error::other("too many answers wait"));
                }
            }
        })
    }
}

/// Answers the request at the front of `bytes`, once it is whole. Returns its length.
fn http(
    bytes: &[u8],
    out: &mut Vec<u8>,
    head: &mut LastHead<Method>,
    transport: &mut Transport,
    speech: &mut Speech,
    behaviour: &Behaviour,
) -> io::Result<Option<usize>> {
    let Some((head_len, body, method)) = head.read(bytes, parse_head)? else { return Ok(None) };
    let rest = bytes.get(head_len..).unwrap_or_default();
    let Some((content, body_len)) = framing::content(rest, body, &mut speech.joined)? else { return Ok(None) };
    match method {
        Method::Post => {
            speech.body.clear();
            match respond(&mut speech.body, content, behaviour)? {
                None => out.extend_from_slice(ACCEPTED),
                Some(Spoken::Initialized) if behaviour.sessions => {
                    speech.sessions += 1;
                    let session = format!("Mcp-Session-Id: loadtest-{:020}\r\n", speech.sessions);
                    with_length(out, &[SESSION_HEAD, session.as_bytes(), b"Content-Length: "].concat(), &speech.body);
                }
                Some(Spoken::Failed) => with_length(out, FAILED_HEAD, &speech.body),
                Some(Spoken::Answer | Spoken::Initialized) => match behaviour.framing {
                    Framing::Length => with_length(out, JSON_HEAD, &speech.body),
                    Framing::Chunked => {
                        out.extend_from_slice(CHUNKED_HEAD);
                        // In two, so that a reader has something to join.
                        let (first, second) = speech.body.split_at(speech.body.len() / 2);
                        write_chunks(out, &[first, second]);
                    }
                    Framing::Events => {
                        out.extend_from_slice(EVENTS_HEAD);
                        write_chunks(out, &[&[b"event: message\ndata: ".as_slice(), &speech.body, b"\n\n"].concat()]);
                    }
                },
            }
        }
        Method::Upgrade => {
            websocket::upgrade(bytes, out)?;
            *transport = Transport::WebSocket;
        }
        Method::Other => out.extend_from_slice(NOT_ALLOWED),
    }
    Ok(Some(head_len + body_len))
}

fn line(bytes: &[u8], out: &mut Vec<u8>, speech: &mut Speech, behaviour: &Behaviour) -> io::Result<Option<usize>> {
    let Some(end) = memchr::memchr(b'\n', bytes) else { return Ok(None) };
    speech.body.clear();
    if respond(&mut speech.body, bytes.get(..end).unwrap_or_default(), behaviour)?.is_some() {
        out.extend_from_slice(&speech.body);
        out.push(b'\n');
    }
    Ok(Some(end + 1))
}

fn frame(bytes: &[u8], out: &mut Vec<u8>, speech: &mut Speech, behaviour: &Behaviour) -> io::Result<Option<usize>> {
    let Some((mask, range)) = websocket::masked_frame(bytes)? else { return Ok(None) };
    let end = range.end;
    speech.joined.clear();
    speech.joined.extend_from_slice(bytes.get(range).unwrap_or_default());
    websocket::apply_mask(&mut speech.joined, mask);
    speech.body.clear();
    if respond(&mut speech.body, &speech.joined, behaviour)?.is_some() {
        websocket::write_frame(out, std::mem::take(&mut speech.body), None)?;
    }
    Ok(Some(end))
}

/// What was said to a request.
enum Spoken {
    Answer,
    /// The answer to `initialize`.
    Initialized,
    /// What stands in the place of an answer.
    Failed,
}

/// Appends the answer to a message; `None` if it wants none. An error is a connection that is to be reset.
fn respond(out: &mut Vec<u8>, content: &[u8], behaviour: &Behaviour) -> io::Result<Option<Spoken>> {
    let message = Message::read(content).ok_or_else(|| io::Error::other("no message"))?;
    let Some(id) = message.id else { return Ok(None) };
    if message.method == b"\"initialize\"" {
        small_call::write_initialized(out, id);
        return Ok(Some(Spoken::Initialized));
    }
    out.extend_from_slice(answer::START);
    out.extend_from_slice(id);
    match message.method {
        b"\"tools/call\"" => match behaviour.answers.failure(message.arguments) {
            Some(Failure::Reset) => return Err(io::Error::other("reset as asked")),
            Some(Failure::Status500) => {
                out.extend_from_slice(answer::ERROR_END);
                return Ok(Some(Spoken::Failed));
            }
            Some(Failure::ToolError) | None => behaviour.answers.write_end(out, message.arguments),
        },
        b"\"tools/list\"" => out.extend_from_slice(TOOLS),
        _ => out.extend_from_slice(EMPTY),
    }
    Ok(Some(Spoken::Answer))
}

fn with_length(out: &mut Vec<u8>, head: &[u8], body: &[u8]) {
    out.extend_from_slice(head);
    // Writing to a vector cannot fail.
    let _ = write!(out, "{}\r\n\r\n", body.len());
    out.extend_from_slice(body);
}

fn write_chunks(out: &mut Vec<u8>, chunks: &[&[u8]]) {
    for chunk in chunks {
        let _ = write!(out, "{:x}\r\n", chunk.len());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
}

fn parse_head(bytes: &[u8]) -> io::Result<Option<(usize, framing::Body, Method)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(len) = head.parse(bytes).map_err(io::Error::other)? else { return Ok(None) };
    let upgrades = head.headers.iter().any(|header| header.name.eq_ignore_ascii_case("sec-websocket-key"));
    let method = match head.method {
        Some("POST") => Method::Post,
        _ if upgrades => Method::Upgrade,
        _ => Method::Other,
    };
    Ok(Some((len, framing::body_of(head.headers)?, method)))
}
