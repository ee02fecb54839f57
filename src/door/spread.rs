//! A message laid out for several upstreams, and the asking of them: at the same time, each within its own time.

use std::pin::Pin;
use std::rc::Rc;

use tokio::sync::mpsc;

use super::shown::View;
use crate::bounds;
use crate::door::session::Session;
use crate::rpc::list::{self, ListKind};
use crate::rpc::{Era, Kind, Span};
use crate::upstream::ask::{Asked, ask};
use crate::upstream::http::Failure;
use crate::upstream::outgoing::{Edits, Own};
use crate::upstream::{Message, Outgoing, Upstreams};
use crate::worker::Worker;
use crate::worker::timers::OnExpiry;

/// What each upstream answered, in the settings' order.
pub(crate) type Answers = Vec<(usize, Result<Vec<Asked>, Failure>)>;

/// A message laid out for several upstreams: nothing in it points into the connection's buffers.
pub(crate) struct Spread {
    pub(crate) inner: Rc<SpreadInner>,
    /// The upstreams it goes to, each with its part of the session.
    pub(crate) parts: Vec<(usize, Option<Vec<u8>>)>,
    /// What whoever asks for a list of tools may be shown; `None`: all.
    pub(crate) view: Option<Rc<View>>,
}

/// The message itself.
pub(crate) struct SpreadInner {
    fields: Vec<u8>,
    pub(crate) raw: Vec<u8>,
    era: Era,
    principal: u64,
    /// `params._meta` of the message.
    meta: Option<Span>,
    id: Span,
    /// Who opens the session anew at an upstream that does not know it; nobody where the client has to.
    opener: Option<Rc<dyn Reopen>>,
}

/// How often a session is opened anew for one message: a server may lose it again before the message gets there.
pub(crate) const MAX_REOPENINGS: u32 = 3;

/// Who can say a client's `initialize` again in its stead.
pub(crate) trait Reopen {
    /// The session's part at an upstream, opened anew where it is the one that was `lost`, or where there is none.
    fn reopen(self: Rc<Self>, index: usize, lost: Option<Vec<u8>>) -> Pin<Box<dyn Future<Output = Reopened>>>;
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) enum Reopened {
    /// The part is this one now; empty where the server has no sessions.
    Part(Vec<u8>),
    /// The server has not opened one.
    Failed(Failure),
    /// What the client has said is not known: it has to say it again.
    Unknown,
}

impl Spread {
    /// Lays out `message`: in a session for the upstreams that are part of it, without one for all.
    pub(crate) fn new(upstreams: &Upstreams, message: &Message<'_>, session: Option<&Session>) -> Self {
        let mut fields = Vec::with_capacity(512);
        let mut parts = Vec::new();
        for (index, upstream) in upstreams.iter() {
            if fields.is_empty() {
                upstream.copy_fields(&mut fields, message.carried, &Edits::default());
            }
            match session {
                Some(session) => {
                    if let Some(part) = session.part(upstream.tag) {
                        parts.push((index, Some(part.to_vec())));
                    }
                }
                None => parts.push((index, None)),
            }
        }
        let inner = SpreadInner {
            fields,
            raw: message.raw.to_vec(),
            era: message.era,
            principal: message.sender.short_tag(),
            meta: message.envelope.meta,
            id: message.envelope.id.map_or(Span::default(), |id| id.span),
            opener: None,
        };
        Self { inner: Rc::new(inner), parts, view: None }
    }

    /// Has `opener` open the session anew at upstreams that have lost their part of it, and, where `all` are asked, at those that have none.
    pub(crate) fn reopened_by(mut self, worker: &Worker, opener: Rc<dyn Reopen>, all: bool) -> Self {
        if let Some(inner) = Rc::get_mut(&mut self.inner) {
            inner.opener = Some(opener);
        }
        if all {
            let missing = worker.upstreams.iter().map(|(index, _)| index);
            let missing: Vec<_> = missing.filter(|index| !self.parts.iter().any(|(of, _)| of == index)).collect();
            self.parts.extend(missing.into_iter().map(|index| (index, None)));
            self.parts.sort_by_key(|(index, _)| *index);
        }
        self
    }

    /// Asks all at the same time; the answers come back in the settings' order.
    pub(crate) async fn ask_all(self, worker: &Rc<Worker>, what: What) -> Answers {
        let (sender, mut receiver) = mpsc::channel(self.parts.len().max(1));
        for (index, session) in self.parts {
            let (worker, inner, sender) = (worker.clone(), self.inner.clone(), sender.clone());
            monoio::spawn(async move {
                let answer = match what {
                    What::Message(timeout_ms) => inner
                        .ask_once(&worker, index, session.as_deref(), &inner.raw, timeout_ms)
                        .await
                        .map(|asked| vec![asked]),
                    What::Pages(kind) => inner.ask_pages(&worker, index, session.as_deref(), kind).await,
                };
                // The receiver outlives all senders.
                let _ = sender.send((index, answer)).await;
            });
        }
        drop(sender);
        let mut answers = Vec::new();
        while let Some(answer) = receiver.recv().await {
            answers.push(answer);
        }
        answers.sort_by_key(|(index, _)| *index);
        answers
    }
}

/// What is asked of each upstream.
#[derive(Clone, Copy)]
pub(crate) enum What {
    /// The client's message, for at most this many milliseconds.
    Message(u64),
    /// All pages of a list.
    Pages(ListKind),
}

impl Spread {
    /// For a list asked for on behalf of another message: its mirrored headers would not fit.
    pub(crate) fn for_list(mut self, kind: ListKind) -> Self {
        if let Some(inner) = Rc::get_mut(&mut self.inner) {
            inner.fields = without_mirrored(&inner.fields, kind);
        }
        self
    }
}

impl SpreadInner {
    pub(crate) async fn ask_once(
        &self,
        worker: &Rc<Worker>,
        index: usize,
        session: Option<&[u8]>,
        body: &[u8],
        timeout_ms: u64,
    ) -> Result<Asked, Failure> {
        let mut part = session.map(<[u8]>::to_vec);
        let mut left = MAX_REOPENINGS;
        loop {
            if self.opener.is_none() || part.is_some() {
                let outgoing = self.compose(worker, index, part.as_deref(), body)?;
                let asked = ask(worker, index, outgoing, timeout_ms).await?;
                if asked.status != 404 || self.opener.is_none() {
                    return Ok(asked);
                }
            }
            left = left.checked_sub(1).ok_or(Failure::NoSession)?;
            match self.reopen(worker, index, part, timeout_ms).await? {
                Reopened::Part(new) => part = Some(new),
                Reopened::Failed(failure) => return Err(failure),
                // The client is told to initialize again.
                Reopened::Unknown if session.is_some() => return Ok(Asked { status: 404, ..Asked::default() }),
                Reopened::Unknown => return Err(Failure::NoSession),
            }
        }
    }

    /// Waits no longer than for an answer; the attempt goes on by itself, for whoever asks next.
    async fn reopen(
        &self,
        worker: &Rc<Worker>,
        index: usize,
        lost: Option<Vec<u8>>,
        timeout_ms: u64,
    ) -> Result<Reopened, Failure> {
        let Some(opener) = self.opener.clone() else { return Ok(Reopened::Unknown) };
        let timer = worker.timers.deadline(-1);
        timer.set(timeout_ms, OnExpiry::Wake);
        crate::worker::race(opener.reopen(index, lost), timer.expired()).await.ok_or(Failure::Timeout)
    }

    /// What the client of this `initialize` says once it is answered, in the version that was agreed on.
    pub(crate) fn confirmation(&self, version: Option<&str>) -> Self {
        let mut fields = self.fields.clone();
        if let Some(version) = version {
            crate::wire::http1::write::field(&mut fields, "MCP-Protocol-Version", version.as_bytes());
        }
        Self {
            fields,
            raw: b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}".to_vec(),
            era: self.era,
            principal: self.principal,
            meta: None,
            id: Span::default(),
            opener: None,
        }
    }

    pub(crate) fn compose(
        &self,
        worker: &Worker,
        index: usize,
        session: Option<&[u8]>,
        body: &[u8],
    ) -> Result<Outgoing, Failure> {
        let upstream = worker.upstreams.get(index).ok_or(Failure::Unresolved)?;
        let mut scratch = worker.scratch.borrow_mut();
        let envelope = scratch.parser.parse(body).map_err(|_| Failure::Broken)?;
        let own = Own { fields: &self.fields, session, era: self.era, principal: self.principal };
        upstream.compose(&own, body, &envelope).map_err(|_| Failure::Credential)
    }

    /// All pages of a list: at most [`bounds::MAX_LIST_PAGES`], [`bounds::MAX_HELD_ANSWER_BYTES`] and
    /// [`bounds::FAN_OUT_TIMEOUT_MS`] together.
    async fn ask_pages(
        &self,
        worker: &Rc<Worker>,
        index: usize,
        session: Option<&[u8]>,
        kind: ListKind,
    ) -> Result<Vec<Asked>, Failure> {
        let mut pages = Vec::new();
        let mut cursor: Option<Vec<u8>> = None;
        let mut held = 0;
        let started_ms = worker.now_ns() / 1_000_000;
        for _ in 0..bounds::MAX_LIST_PAGES {
            let spent_ms = (worker.now_ns() / 1_000_000).saturating_sub(started_ms);
            let left_ms = bounds::FAN_OUT_TIMEOUT_MS.checked_sub(spent_ms).ok_or(Failure::Timeout)?;
            let body = self.list_request(kind, cursor.as_deref());
            let asked = self.ask_once(worker, index, session, &body, left_ms).await?;
            if asked.status == 404 && self.era != Era::Modern && session.is_some() {
                // Not an empty list: the upstream does not know the session any more.
                return Ok(vec![asked]);
            }
            cursor = {
                let mut scratch = worker.scratch.borrow_mut();
                let envelope = scratch.parser.parse(&asked.response).map_err(|_| Failure::Broken)?;
                if envelope.kind != Kind::Response {
                    // A server without this kind of list says so by an error: an empty list.
                    return Ok(pages);
                }
                let page = list::split(&envelope, &asked.response, kind, &mut Vec::new());
                page.and_then(|page| page.next_cursor).map(|text| text.span.of(&asked.response).to_vec())
            };
            held += asked.response.len();
            pages.push(asked);
            if cursor.is_none() {
                break;
            }
            if held > bounds::MAX_HELD_ANSWER_BYTES {
                return Err(Failure::Broken);
            }
        }
        Ok(pages)
    }

    fn list_request(&self, kind: ListKind, cursor: Option<&[u8]>) -> Vec<u8> {
        let method = match kind {
            ListKind::Tools => "tools/list",
            ListKind::Prompts => "prompts/list",
            ListKind::Resources => "resources/list",
            ListKind::ResourceTemplates => "resources/templates/list",
        };
        let id = match self.id.of(&self.raw) {
            [] => &b"0"[..],
            id => id,
        };
        let mut body = b"{\"jsonrpc\":\"2.0\",\"id\":".to_vec();
        body.extend_from_slice(id);
        body.extend_from_slice(b",\"method\":\"");
        body.extend_from_slice(method.as_bytes());
        body.extend_from_slice(b"\",\"params\":{");
        if let Some(meta) = self.meta {
            body.extend_from_slice(b"\"_meta\":");
            body.extend_from_slice(meta.of(&self.raw));
        }
        if let Some(cursor) = cursor {
            if self.meta.is_some() {
                body.push(b',');
            }
            body.extend_from_slice(b"\"cursor\":");
            body.extend_from_slice(cursor);
        }
        body.extend_from_slice(b"}}");
        body
    }
}

/// Header lines without `Mcp-Method`, `Mcp-Name` and `Mcp-Param-*`, and with the method of a list where there was one.
fn without_mirrored(fields: &[u8], kind: ListKind) -> Vec<u8> {
    let mut out = Vec::with_capacity(fields.len());
    for line in fields.split_inclusive(|b| *b == b'\n') {
        let starts = |name: &[u8]| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        if starts(b"mcp-method:") {
            let method: &[u8] = match kind {
                ListKind::Tools => b"tools/list",
                ListKind::Prompts => b"prompts/list",
                ListKind::Resources => b"resources/list",
                ListKind::ResourceTemplates => b"resources/templates/list",
            };
            crate::wire::http1::write::field(&mut out, "Mcp-Method", method);
        } else if !starts(b"mcp-name:") && !starts(b"mcp-param-") {
            out.extend_from_slice(line);
        }
    }
    out
}
