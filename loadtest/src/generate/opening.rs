//! How a connection is opened at each door: connected, authenticated, and its session begun. It blocks; the run begins when all are open.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::super::channel::Link;
use super::super::small_call::{self, Dialect};
use super::super::websocket;
use super::connection::shown;
use super::events::Stream;
use super::http::Responses;
use super::reader::{Item, Reader};
use super::{Door, Load, Tls, request};

/// For how long one step of opening a connection may take.
const STEP: Duration = Duration::from_secs(10);

/// Most that a target says while a connection is opened.
const MAX_OPENING_BYTES: usize = 1024 * 1024;

/// What all connections of a run are opened with.
pub(super) struct Opener {
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// A connection that is ready to make calls.
pub(super) struct Opened {
    /// Where answers come from, and calls go to unless there is a link of their own for them.
    pub(super) link: Link,
    pub(super) reader: Reader,
    pub(super) posts: Option<Link>,
    /// With what each request begins.
    pub(super) first_line: Vec<u8>,
}

/// One socket and what came over it.
struct Dialog {
    link: Link,
    reader: Reader,
    received: Vec<u8>,
}

impl Opener {
    pub(super) fn new(load: &Load) -> io::Result<Self> {
        Ok(Self { tls: load.tls.as_ref().map(config).transpose()? })
    }

    pub(super) fn open(&self, load: &Load) -> io::Result<Opened> {
        match load.door {
            Door::Http => self.http(load),
            Door::Tcp => self.lines(load),
            Door::WebSocket => self.websocket(load),
            Door::Sse => self.sse(load),
        }
    }

    fn connect(&self, load: &Load) -> io::Result<Link> {
        let tls = self.tls.as_ref().map(|(config, name)| ClientConnection::new(config.clone(), name.clone()));
        Link::connect(load.target, tls.transpose().map_err(io::Error::other)?, STEP)
    }

    fn http(&self, load: &Load) -> io::Result<Opened> {
        let mut first_line = format!("POST {} HTTP/1.1\r\n", load.path).into_bytes();
        let mut dialog = Dialog::new(self.connect(load)?, Reader::Http(Responses::new()));
        if !load.session_id.is_empty() {
            first_line.extend_from_slice(format!("Mcp-Session-Id: {}\r\n", load.session_id).as_bytes());
        }
        if load.session {
            let initialize = request::wrap(load, &small_call::initialize())?;
            dialog.send(&[first_line.as_slice(), &initialize].concat())?;
            initialized(&dialog.message()?)?;
            if let Reader::Http(responses) = &dialog.reader
                && let Some(session) = &responses.session
            {
                first_line.extend_from_slice(format!("Mcp-Session-Id: {session}\r\n").as_bytes());
            }
            let notice = request::wrap(load, small_call::INITIALIZED)?;
            dialog.send(&[first_line.as_slice(), &notice].concat())?;
            dialog.accepted()?;
        }
        dialog.opened(None, first_line)
    }

    fn lines(&self, load: &Load) -> io::Result<Opened> {
        let mut dialog = Dialog::new(self.connect(load)?, Reader::Lines);
        if !load.token.is_empty() {
            dialog.send(small_call::authenticate(&load.token).as_bytes())?;
            let answer = dialog.message()?;
            if answer != br#"{"jsonrpc":"2.0","id":0,"result":{"authenticated":true}}"# {
                return Err(io::Error::other(format!("not authenticated: {}", shown(&answer))));
            }
        }
        dialog.begin_session(load)?;
        dialog.opened(None, Vec::new())
    }

    fn websocket(&self, load: &Load) -> io::Result<Opened> {
        let mut dialog = Dialog::new(self.connect(load)?, Reader::WebSocket);
        dialog.send(websocket::request_upgrade(&load.path, &request::host(load), &load.token).as_bytes())?;
        let len = loop {
            dialog.receive()?;
            if let Some(len) = websocket::switched(&dialog.received)? {
                break len;
            }
        };
        dialog.received.drain(..len);
        dialog.begin_session(load)?;
        dialog.opened(None, Vec::new())
    }

    fn sse(&self, load: &Load) -> io::Result<Opened> {
        let mut stream = Dialog::new(self.connect(load)?, Reader::Events(Stream::new()));
        let (host, authorization) = (request::host(load), request::authorization(load));
        stream.send(
            format!("GET {} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n{authorization}\r\n", load.path)
                .as_bytes(),
        )?;
        let endpoint = stream.next(|item| match item {
            Item::Endpoint(path) => Ok(Some(path.to_vec())),
            Item::Nothing => Ok(None),
            other => Err(io::Error::other(format!("no endpoint, but {other:?}"))),
        })?;
        let first_line = [b"POST ".as_slice(), &endpoint, b" HTTP/1.1\r\n"].concat();
        let mut posts = Dialog::new(self.connect(load)?, Reader::Http(Responses::new()));
        if load.dialect == Dialect::Session {
            let initialize = request::wrap(load, &small_call::initialize())?;
            posts.send(&[first_line.as_slice(), &initialize].concat())?;
            posts.accepted()?;
            initialized(&stream.message()?)?;
            let notice = request::wrap(load, small_call::INITIALIZED)?;
            posts.send(&[first_line.as_slice(), &notice].concat())?;
            posts.accepted()?;
        }
        stream.opened(Some(posts), first_line)
    }
}

impl Dialog {
    fn new(link: Link, reader: Reader) -> Self {
        Self { link, reader, received: Vec::new() }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.link.write_all(bytes)?;
        self.link.flush()
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut piece = [0; 4096];
        let len = self.link.read(&mut piece)?;
        if len == 0 || self.received.len() > MAX_OPENING_BYTES {
            let said = shown(&self.received);
            return Err(io::Error::other(format!("closed, or too long, while it was opened: {said}")));
        }
        self.received.extend_from_slice(piece.get(..len).unwrap_or_default());
        Ok(())
    }

    /// Waits for an item of which `wanted` makes something.
    fn next<T>(&mut self, mut wanted: impl FnMut(Item<'_>) -> io::Result<Option<T>>) -> io::Result<T> {
        loop {
            let Some((item, len)) = self.reader.read(&self.received)? else {
                self.receive()?;
                continue;
            };
            let found = wanted(item)?;
            self.received.drain(..len);
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }

    fn message(&mut self) -> io::Result<Vec<u8>> {
        self.next(|item| match item {
            Item::Message(message) => Ok(Some(message.to_vec())),
            Item::Nothing => Ok(None),
            Item::Status(status, content) => Err(io::Error::other(format!("status {status}: {}", shown(content)))),
            other => Err(io::Error::other(format!("{other:?}"))),
        })
    }

    /// Waits for the acceptance of what has no answer.
    fn accepted(&mut self) -> io::Result<()> {
        self.next(|item| match item {
            Item::Status(202, _) => Ok(Some(())),
            other => Err(io::Error::other(format!("not accepted: {other:?}"))),
        })
    }

    /// Opens a session over a connection that is one.
    fn begin_session(&mut self, load: &Load) -> io::Result<()> {
        if load.dialect == Dialect::Session {
            self.send(&request::wrap(load, &small_call::initialize())?)?;
            initialized(&self.message()?)?;
            self.send(&request::wrap(load, small_call::INITIALIZED)?)?;
        }
        Ok(())
    }

    fn opened(self, posts: Option<Self>, first_line: Vec<u8>) -> io::Result<Opened> {
        if !self.received.is_empty() || posts.as_ref().is_some_and(|posts| !posts.received.is_empty()) {
            return Err(io::Error::other(format!("more than was asked for: {}", shown(&self.received))));
        }
        Ok(Opened { link: self.link, reader: self.reader, posts: posts.map(|posts| posts.link), first_line })
    }
}

/// That this is the answer to `initialize`.
fn initialized(answer: &[u8]) -> io::Result<()> {
    let value: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
    let version = value.pointer("/result/protocolVersion").and_then(serde_json::Value::as_str);
    match version {
        Some(_) => Ok(()),
        None => Err(io::Error::other(format!("no session: {}", shown(answer)))),
    }
}

fn config(tls: &Tls) -> io::Result<(Arc<ClientConfig>, ServerName<'static>)> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&tls.ca).map_err(io::Error::other)? {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let name = ServerName::try_from(tls.name.clone()).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    Ok((Arc::new(config), name))
}
