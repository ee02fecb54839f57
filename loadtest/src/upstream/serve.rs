//! The connections of the upstream and what it says on them.

use std::io::{self, Write};
use std::net::TcpListener;

use super::super::channel::{Channel, READ_BYTES, Received};
use super::super::framing::{self, LastHead};
use super::super::poll::Poll;
use super::answer;
use super::message::Message;

/// Token of the listener; connections have their number.
const LISTENER: u64 = u64::MAX;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";

const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";

const NOT_ALLOWED: &[u8] = b"HTTP/1.1 405 Method Not Allowed\r\nAllow: POST\r\nContent-Length: 0\r\n\r\n";

const INITIALIZED: &[u8] = br#","result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"loadtest","version":"0"}}}"#;

/// The tools that the calls of this crate name.
const TOOLS: &[u8] = br#","result":{"tools":[{"name":"comms_send_message","description":"Sends a message.","inputSchema":{"type":"object","properties":{"to":{"type":"string"},"body":{"type":"string"}},"required":["to","body"]}}]}}"#;

const EMPTY: &[u8] = br#","result":{}}"#;

/// Whether a request may have an answer in its body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Post,
    Other,
}

struct Client {
    channel: Channel,
    head: LastHead<Method>,
}

/// Serves until the listener fails.
pub(super) fn serve(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut poll = Poll::new()?;
    poll.add(listener, LISTENER)?;
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut vacant: Vec<usize> = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut speech = Speech::default();
    loop {
        let found = poll.wait(None)?;
        for ready in 0..found {
            let Some(ready) = poll.ready(ready) else { break };
            if ready.token == LISTENER {
                accept(listener, &poll, &mut clients, &mut vacant)?;
                continue;
            }
            let number = usize::try_from(ready.token).unwrap_or(usize::MAX);
            let Some(place) = clients.get_mut(number) else { continue };
            let Some(client) = place else { continue };
            // What a client did wrong closes its connection, which it sees.
            let open = !ready.readable || matches!(client.receive(&mut buffer, &mut speech), Ok(Received::Open));
            if !open || client.channel.flush(&poll).is_err() {
                *place = None;
                vacant.push(number);
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    clients: &mut Vec<Option<Client>>,
    vacant: &mut Vec<usize>,
) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        let number = vacant.pop().unwrap_or_else(|| {
            clients.push(None);
            clients.len() - 1
        });
        // A client that is gone already is noticed at its first event.
        let channel = Channel::new(stream, poll, number as u64)?;
        if let Some(place) = clients.get_mut(number) {
            *place = Some(Client { channel, head: LastHead::new() });
        }
    }
}

impl Client {
    fn receive(&mut self, buffer: &mut [u8], speech: &mut Speech) -> io::Result<Received> {
        let head = &mut self.head;
        self.channel.receive(buffer, |bytes, out| {
            let mut taken = 0;
            loop {
                let rest = bytes.get(taken..).unwrap_or_default();
                if rest.is_empty() {
                    return Ok(taken);
                }
                let Some((head_len, body, method)) = head.read(rest, parse_head)? else { return Ok(taken) };
                let body_bytes = rest.get(head_len..).unwrap_or_default();
                let Some((content, body_len)) = framing::content(body_bytes, body, &mut speech.joined)? else {
                    return Ok(taken);
                };
                match method {
                    Method::Post => Speech::respond(&mut speech.end, out, content)?,
                    Method::Other => out.extend_from_slice(NOT_ALLOWED),
                }
                taken += head_len + body_len;
            }
        })
    }
}

fn parse_head(bytes: &[u8]) -> io::Result<Option<(usize, framing::Body, Method)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(len) = head.parse(bytes).map_err(io::Error::other)? else { return Ok(None) };
    let method = if head.method == Some("POST") { Method::Post } else { Method::Other };
    Ok(Some((len, framing::body_of(head.headers)?, method)))
}

/// Buffers that are used for every request anew.
#[derive(Default)]
struct Speech {
    joined: Vec<u8>,
    end: Vec<u8>,
}

impl Speech {
    /// Appends the response to a request with this body.
    fn respond(end: &mut Vec<u8>, out: &mut Vec<u8>, content: &[u8]) -> io::Result<()> {
        let message = Message::read(content).ok_or_else(|| io::Error::other("a body that is no message"))?;
        let Some(id) = message.id else {
            out.extend_from_slice(ACCEPTED);
            return Ok(());
        };
        end.clear();
        match message.method {
            b"\"tools/call\"" => answer::write_end(end, message.arguments),
            b"\"initialize\"" => end.extend_from_slice(INITIALIZED),
            b"\"tools/list\"" => end.extend_from_slice(TOOLS),
            _ => end.extend_from_slice(EMPTY),
        }
        out.extend_from_slice(HEAD);
        write_decimal(out, answer::START.len() + id.len() + end.len());
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(answer::START);
        out.extend_from_slice(id);
        out.extend_from_slice(end);
        Ok(())
    }
}

fn write_decimal(out: &mut Vec<u8>, value: usize) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "{value}");
}
