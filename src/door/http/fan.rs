//! Messages that concern several upstreams: they are asked at the same time, each within its own time, and what they
//! answer is made into one. An upstream that does not answer is left out; the others' tools stay.

use std::rc::Rc;

use tokio::sync::mpsc;

use super::answer::{self, Fields};
use super::plan::Call;
use super::{Connection, Flow, merged};
use crate::bounds;
use crate::door::session::Session;
use crate::rpc::list::{self, ListKind};
use crate::rpc::reply;
use crate::rpc::{Era, Kind, Span};
use crate::state::events::Outcome;
use crate::upstream::ask::{Asked, ask};
use crate::upstream::http::Failure;
use crate::upstream::merge::{self, Listing};
use crate::upstream::outgoing::{Edits, Own};
use crate::upstream::route::Fan;
use crate::upstream::{Message, Outgoing, Upstreams};
use crate::worker::Worker;

/// A message laid out for several upstreams: nothing in it points into the connection's buffers.
pub(super) struct Spread {
    inner: Rc<SpreadInner>,
    /// The upstreams it goes to, each with its part of the session.
    parts: Vec<(usize, Option<Vec<u8>>)>,
}

struct SpreadInner {
    fields: Vec<u8>,
    raw: Vec<u8>,
    era: Era,
    principal: u64,
    /// `params._meta` of the message.
    meta: Option<Span>,
    id: Span,
}

impl Spread {
    /// Lays out `message`: in a session for the upstreams that are part of it, without one for all.
    pub(super) fn new(upstreams: &Upstreams, message: &Message<'_>, session: Option<&Session>) -> Self {
        let mut fields = Vec::with_capacity(512);
        let mut parts = Vec::new();
        for (index, upstream) in upstreams.iter() {
            if fields.is_empty() {
                upstream.copy_fields(&mut fields, message.head, message.head_bytes, &Edits::default());
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
            principal: message.principal.short_tag(),
            meta: message.envelope.meta,
            id: message.envelope.id.map_or(Span::default(), |id| id.span),
        };
        Self { inner: Rc::new(inner), parts }
    }

    /// Asks all at the same time; the answers come back in the settings' order.
    async fn ask_all(self, worker: &Rc<Worker>, what: What) -> Vec<(usize, Result<Vec<Asked>, Failure>)> {
        let (sender, mut receiver) = mpsc::channel(self.parts.len().max(1));
        for (index, session) in self.parts {
            let (worker, inner, sender) = (worker.clone(), self.inner.clone(), sender.clone());
            monoio::spawn(async move {
                let answer = match what {
                    What::Message => {
                        inner.ask_once(&worker, index, session.as_deref(), &inner.raw).await.map(|a| vec![a])
                    }
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
enum What {
    /// The client's message.
    Message,
    /// All pages of a list.
    Pages(ListKind),
}

impl SpreadInner {
    async fn ask_once(
        &self,
        worker: &Rc<Worker>,
        index: usize,
        session: Option<&[u8]>,
        body: &[u8],
    ) -> Result<Asked, Failure> {
        let outgoing = self.compose(worker, index, session, body)?;
        ask(worker, index, outgoing, bounds::FAN_OUT_TIMEOUT_MS).await
    }

    fn compose(&self, worker: &Worker, index: usize, session: Option<&[u8]>, body: &[u8]) -> Result<Outgoing, Failure> {
        let upstream = worker.upstreams.get(index).ok_or(Failure::Unresolved)?;
        let mut scratch = worker.scratch.borrow_mut();
        let envelope = scratch.parser.parse(body).map_err(|_| Failure::Broken)?;
        let own = Own { fields: &self.fields, session, era: self.era, principal: self.principal };
        Ok(upstream.compose(&own, body, &envelope))
    }

    /// All pages of a list, at most [`bounds::MAX_LIST_PAGES`].
    async fn ask_pages(
        &self,
        worker: &Rc<Worker>,
        index: usize,
        session: Option<&[u8]>,
        kind: ListKind,
    ) -> Result<Vec<Asked>, Failure> {
        let mut pages = Vec::new();
        let mut cursor: Option<Vec<u8>> = None;
        for _ in 0..bounds::MAX_LIST_PAGES {
            let body = self.list_request(kind, cursor.as_deref());
            let asked = self.ask_once(worker, index, session, &body).await?;
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
            pages.push(asked);
            if cursor.is_none() {
                break;
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

impl Connection {
    /// Serves a message that concerns several upstreams. On [`Flow::Next`] the answer stands in the output.
    pub(super) async fn fan(&mut self, mut call: Call, fan: Fan, spread: Spread) -> Flow {
        let worker = self.worker.clone();
        match fan {
            Fan::List(kind) => {
                let result = self.merged_list(&call, kind, spread).await;
                self.answer_merged(&mut call, result);
            }
            Fan::Initialize => {
                let answers = spread.ask_all(&worker, What::Message).await;
                self.answer_initialize(&mut call, answers);
            }
            Fan::Discover => {
                let answers = spread.ask_all(&worker, What::Message).await;
                let results = self.results(&answers);
                let merged = merge::merge_discover(&results).map(|merged| merged.to_string().into_bytes());
                self.answer_merged(&mut call, merged);
            }
            Fan::Tell => {
                spread.ask_all(&worker, What::Message).await;
                if call.kind == Kind::Request {
                    self.answer_empty_result(&call);
                } else {
                    let fields = Fields { close: !call.keep_alive, ..Fields::default() };
                    answer::whole(&mut self.output, 202, "", b"", fields);
                    self.worker.metrics.response(202);
                }
            }
            Fan::FirstThatKnows => self.ask_in_turn(&mut call, spread).await,
            Fan::Listen => {
                let (sender, receiver) = mpsc::channel(bounds::STREAM_QUEUE);
                for (index, session) in &spread.parts {
                    if let Ok(outgoing) = spread.inner.compose(&worker, *index, session.as_deref(), &spread.inner.raw) {
                        merged::pump(&worker, *index, outgoing, sender.clone());
                    }
                }
                drop(sender);
                return self.pass_merged(call, receiver).await;
            }
        }
        Flow::Next
    }

    /// Asks for a list on behalf of a message that acts on something nobody has listed.
    pub(super) async fn look_again(&mut self, call: &Call, kind: ListKind, mut spread: Spread) {
        // The mirrored headers of a call do not fit a list.
        if let Some(inner) = Rc::get_mut(&mut spread.inner) {
            inner.fields = without_mirrored(&inner.fields, kind);
        }
        let _ = self.merged_list(call, kind, spread).await;
    }

    async fn merged_list(&mut self, call: &Call, kind: ListKind, spread: Spread) -> Option<Vec<u8>> {
        let worker = self.worker.clone();
        let answers = spread.ask_all(&worker, What::Pages(kind)).await;
        if answers.iter().all(|(_, answer)| answer.is_err()) {
            return None;
        }
        let listings: Vec<Listing> = answers
            .into_iter()
            .filter_map(|(upstream, answer)| {
                let pages = answer.ok()?.into_iter().map(|asked| asked.response).collect();
                Some(Listing { upstream, pages })
            })
            .collect();
        let mut scratch = worker.scratch.borrow_mut();
        Some(merge::merge_lists(&worker.upstreams, &mut scratch.parser, kind, &listings, call.era))
    }

    fn results(&self, answers: &[(usize, Result<Vec<Asked>, Failure>)]) -> Vec<serde_json::Value> {
        let mut scratch = self.worker.scratch.borrow_mut();
        let mut results = Vec::new();
        for asked in answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()?.first()) {
            if let Ok(envelope) = scratch.parser.parse(&asked.response) {
                results.extend(merge::result_of(&envelope, &asked.response));
            }
        }
        results
    }

    fn answer_merged(&mut self, call: &mut Call, result: Option<Vec<u8>>) {
        match result {
            Some(result) => {
                let mut body = Vec::with_capacity(result.len() + 64);
                reply::result(&mut body, call.id(&self.notes), &result);
                answer::json(&mut self.output, 200, &body, !call.keep_alive);
                self.worker.metrics.response(200);
                self.finish(call, Outcome::Ok, 200);
            }
            None => {
                self.answer_rpc(call, 502, -32001, "Upstream error: no upstream answered");
                self.finish(call, Outcome::UpstreamError, 502);
            }
        }
    }

    fn answer_initialize(&mut self, call: &mut Call, answers: Vec<(usize, Result<Vec<Asked>, Failure>)>) {
        let results = self.results(&answers);
        let merged = merge::merge_initialize(&results).map(|merged| merged.to_string().into_bytes());
        let Some(result) = merged else { return self.answer_merged(call, None) };
        let worker = self.worker.clone();
        let sealed = {
            let parts = answers.iter().filter_map(|(index, answer)| {
                let asked = answer.as_ref().ok()?.first()?;
                let tag = worker.upstreams.get(*index)?.tag;
                Some((tag, asked.session.as_deref().unwrap_or_default()))
            });
            self.seal(parts)
        };
        let mut body = Vec::with_capacity(result.len() + 64);
        reply::result(&mut body, call.id(&self.notes), &result);
        let fields = Fields { close: !call.keep_alive, session: sealed.as_deref(), ..Fields::default() };
        answer::whole(&mut self.output, 200, "application/json", &body, fields);
        self.worker.metrics.response(200);
        self.finish(call, Outcome::Ok, 200);
    }

    /// Asks one upstream after the other until one answers with a result; else the last error is the answer.
    async fn ask_in_turn(&mut self, call: &mut Call, spread: Spread) {
        let worker = self.worker.clone();
        let mut last = None;
        for (index, session) in &spread.parts {
            let asked = spread.inner.ask_once(&worker, *index, session.as_deref(), &spread.inner.raw).await;
            let Ok(asked) = asked else { continue };
            let kind = worker.scratch.borrow_mut().parser.parse(&asked.response).map(|envelope| envelope.kind);
            let knows = matches!(kind, Ok(Kind::Response));
            last = Some(asked.response);
            if knows {
                break;
            }
        }
        match last {
            Some(response) => {
                answer::json(&mut self.output, 200, &response, !call.keep_alive);
                self.worker.metrics.response(200);
                self.finish(call, Outcome::Ok, 200);
            }
            None => self.answer_merged(call, None),
        }
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
