//! The sample server for those who connect to it: lines over TCP, WebSocket, or Streamable HTTP. All connections see the same messages.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{Desk, MAX_LINE, Server, VERSION_KEY, announce, error};
use crate::control::http::{MAX_CONNECTIONS, answer, serve};
use crate::wire::http1::Progress;
use crate::wire::http1::request::{RequestHead, parse_request};
use crate::wire::http1::write as head;
use crate::wire::lines::LineSplitter;
use crate::wire::websocket::handshake::server::{read_upgrade, write_reject_fields, write_switch};
use crate::wire::websocket::{CloseCode, Decoder, Event, Role, write};

/// Longest message, in bytes.
const MAX_MESSAGE: usize = MAX_LINE as usize;
/// Read at once.
const READ_BYTES: usize = 16 * 1024;

/// What is spoken to those who connect.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Lines,
    WebSocket,
    Http,
}

/// Serves until the process ends.
pub(super) fn run(spoken: Spoken, address: SocketAddr) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        let at = listener.local_addr()?;
        announce(&match spoken {
            Spoken::Lines => format!("tcp://{at}"),
            Spoken::WebSocket => format!("ws://{at}/mcp"),
            Spoken::Http => format!("http://{at}/mcp"),
        });
        let desk = Desk::default();
        if spoken == Spoken::Http {
            serve(listener, Router::new().route("/mcp", post(exchange)).with_state(desk), None).await;
            return Ok(());
        }
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let (stream, _) = listener.accept().await?;
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let server = Server::at(desk.clone());
            tokio::spawn(async move {
                // Errors are the client's: it has gone, or broke a rule.
                let _ = match spoken {
                    Spoken::Lines => lines(stream, server).await,
                    Spoken::WebSocket | Spoken::Http => websocket(stream, server).await,
                };
                drop(place);
            });
        }
    })
}

async fn lines(mut stream: TcpStream, mut server: Server) -> io::Result<()> {
    let (mut received, mut splitter) = (Vec::new(), LineSplitter::new(MAX_MESSAGE));
    loop {
        let line = splitter.next_line(&received);
        match line {
            Ok(Some(line)) => {
                let answer = server.line(line.text.of(&received));
                received.drain(..line.consumed);
                if let Some(answer) = answer {
                    stream.write_all(format!("{answer}\n").as_bytes()).await?;
                }
            }
            Ok(None) => {
                received.reserve(READ_BYTES);
                if stream.read_buf(&mut received).await? == 0 {
                    return Ok(());
                }
            }
            Err(_) => {
                let refused = error(None, -32600, "the message is too long", None);
                return stream.write_all(format!("{refused}\n").as_bytes()).await;
            }
        }
    }
}

async fn websocket(mut stream: TcpStream, mut server: Server) -> io::Result<()> {
    let mut received = upgrade(&mut stream).await?;
    let mut decoder = Decoder::new(Role::Server, u32::try_from(MAX_MESSAGE).unwrap_or(u32::MAX));
    loop {
        let mut out = Vec::new();
        let close = match decoder.next_event(&mut received) {
            Ok(None) => {
                received.reserve(READ_BYTES);
                if stream.read_buf(&mut received).await? == 0 {
                    return Ok(());
                }
                continue;
            }
            Ok(Some(Event::Text(text))) => {
                if let Some(answer) = server.line(text.of(&received)) {
                    write::text(&mut out, answer.to_string().as_bytes(), None);
                }
                None
            }
            Ok(Some(Event::Ping(payload))) => {
                write::pong(&mut out, payload.of(&received), None);
                None
            }
            Ok(Some(Event::Pong(_))) => None,
            Ok(Some(Event::Binary(_))) => Some(CloseCode::UNSUPPORTED_DATA),
            Ok(Some(Event::Close { code, .. })) => Some(code.unwrap_or(CloseCode::NORMAL)),
            Err(fault) => Some(fault.close_code()),
        };
        if let Some(code) = close {
            write::close(&mut out, Some(code), "", None);
            return stream.write_all(&out).await;
        }
        stream.write_all(&out).await?;
    }
}

/// Answers the handshake; what came behind it.
async fn upgrade(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let (mut received, mut request, mut seen) = (Vec::new(), RequestHead::default(), 0);
    let upgrade = loop {
        match parse_request(&received, seen, &mut request) {
            Ok(Progress::Complete) => break read_upgrade(&request, &received),
            Ok(Progress::Partial) => seen = received.len(),
            Err(reject) => break Err(reject),
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let mut out = Vec::new();
    match upgrade {
        Ok(upgrade) => {
            write_switch(&mut out, &upgrade);
            stream.write_all(&out).await?;
            Ok(received.split_off(request.len as usize))
        }
        Err(reject) => {
            head::status_line(&mut out, reject.status);
            write_reject_fields(&mut out, reject);
            head::field(&mut out, "Content-Length", b"0");
            head::field(&mut out, "Connection", b"close");
            head::end_head(&mut out);
            stream.write_all(&out).await?;
            Err(io::ErrorKind::InvalidData.into())
        }
    }
}

/// One message over HTTP. Each stands for itself: there are no sessions.
async fn exchange(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> Response {
    if headers.contains_key(header::ORIGIN) {
        // No page in a browser has any business here.
        return StatusCode::FORBIDDEN.into_response();
    }
    let mut server = Server::at(desk);
    server.initialized = true;
    let Some(reply) = server.line(&body) else {
        return StatusCode::ACCEPTED.into_response();
    };
    let is_modern = memchr::memmem::find(&body, VERSION_KEY.as_bytes()).is_some();
    let status = match reply.pointer("/error/code").and_then(serde_json::Value::as_i64) {
        Some(-32601) if is_modern => 404,
        Some(-32700 | -32600) => 400,
        Some(_) if is_modern => 400,
        _ => 200,
    };
    answer(status, "application/json", reply.to_string())
}
