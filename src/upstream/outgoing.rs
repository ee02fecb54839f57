//! The bytes that go to an upstream: the received message with what policy splices in, under a head of our own.
//!
//! The client's `Authorization`, `Host`, `Origin` and cookies never go on (`wire::http1::write` holds the list); the upstream's own
//! credential comes from the policy.

use crate::door::session::Session;
use crate::rpc::Era;
use crate::rpc::{Envelope, Kind, Method, Span, splice};
use crate::upstream::brokered::{CallKind, ChildCall, Parts, SessionId};
use crate::upstream::http::HttpUpstream;
use crate::upstream::{Bare, Carried, Message, Sender, Upstream, UpstreamKind};
use crate::wire::http1::write;

/// What goes to one upstream.
#[derive(Clone)]
pub(crate) enum Outgoing {
    /// A whole HTTP request.
    Http(Vec<u8>),
    /// A message for a child process.
    Child(ChildCall),
}

impl Outgoing {
    /// The same message within the session `part`, in place of the one that it was composed for.
    pub(crate) fn within(self, lost: Option<&[u8]>, part: &[u8]) -> Self {
        match self {
            Self::Child(call) => Self::Child(ChildCall { session: parse_session(part), ..call }),
            Self::Http(bytes) => Self::Http(put_session(&bytes, lost.unwrap_or_default(), part)),
        }
    }
}

/// An HTTP request of ours with another session's field, or with none where `part` is empty.
fn put_session(bytes: &[u8], lost: &[u8], part: &[u8]) -> Vec<u8> {
    let line = |id: &[u8]| {
        let mut line = Vec::with_capacity(64);
        if !id.is_empty() {
            write::field(&mut line, SESSION_FIELD, id);
        }
        line
    };
    let (old, new) = (line(lost), line(part));
    let head = memchr::memmem::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |end| end.saturating_add(2));
    // Where it stood; else behind the last field.
    let stood = (!old.is_empty()).then(|| memchr::memmem::find(bytes.get(..head).unwrap_or_default(), &old)).flatten();
    let at = stood.map_or(head..head, |at| at..at.saturating_add(old.len()));
    let (before, after) = (bytes.get(..at.start).unwrap_or_default(), bytes.get(at.end..).unwrap_or_default());
    [before, &new, after].concat()
}

/// The field that names a session.
const SESSION_FIELD: &str = "Mcp-Session-Id";

/// Splices to be made in a message, in order of position.
#[derive(Default)]
pub(crate) struct Edits {
    edits: Vec<(Span, Vec<u8>)>,
    /// The name that the message acts on, where it was replaced: the mirrored header must say the same.
    renamed: Option<String>,
    /// `Last-Event-ID` is written by the gateway.
    resumed: bool,
}

impl Edits {
    /// The upstream's own name of what the message acts on, where the client's differs.
    pub(crate) fn renamed(&self) -> Option<&str> {
        self.renamed.as_deref()
    }

    /// Says that the name the message acts on is now this one.
    pub(crate) fn rename(&mut self, own: String) {
        self.renamed = Some(own);
    }

    /// Replaces what stands in `span`.
    pub(crate) fn replace(&mut self, span: Span, with: Vec<u8>) {
        let at = self.edits.partition_point(|(before, _)| before.start <= span.start);
        self.edits.insert(at, (span, with));
    }

    /// Puts the agent's id into the arguments.
    pub(crate) fn insert_agent_id(&mut self, envelope: &Envelope, raw: &[u8], agent: &str) {
        let mut insert = Vec::with_capacity(agent.len() + 32);
        if let Some(place) = splice::agent_id(envelope, raw, agent, &mut insert) {
            self.replace(place, insert);
        }
    }

    /// Appends the message with all edits made.
    ///
    /// # Errors
    /// [`Unsendable::Edits`]; nothing was appended.
    pub(crate) fn apply(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), Unsendable> {
        if self.edits.is_empty() {
            out.extend_from_slice(raw);
            return Ok(());
        }
        splice::splice(raw, &self.edits, out).map_err(|_| Unsendable::Edits)
    }

    /// Likewise, with a few more that touch none of them.
    ///
    /// # Errors
    /// [`Unsendable::Edits`]; nothing was appended.
    pub(crate) fn apply_with(&self, raw: &[u8], more: &[(Span, &[u8])], out: &mut Vec<u8>) -> Result<(), Unsendable> {
        let mut all = arrayvec::ArrayVec::<(Span, &[u8]), 8>::new();
        let edits = self.edits.iter().map(|(span, with)| (*span, with.as_slice()));
        for edit in edits.chain(more.iter().copied()) {
            all.try_push(edit).map_err(|_| Unsendable::Edits)?;
        }
        splice::sort(&mut all);
        splice::splice(raw, &all, out).map_err(|_| Unsendable::Edits)
    }

    /// By how many bytes the message grows; negative where it shrinks.
    pub(super) fn growth(&self) -> i64 {
        self.edits.iter().map(|(span, with)| with.len() as i64 - i64::from(span.len())).sum()
    }
}

impl Upstream {
    /// The bytes that carry `message` to this upstream. `None` where the message needs a session that the client did not present.
    pub(crate) fn outgoing(
        &self,
        message: &Message<'_>,
        session: Option<&Session>,
        edits: &Edits,
    ) -> Result<Outgoing, Unsendable> {
        let session_id = session.and_then(|session| session.part(self.tag));
        match &self.kind {
            UpstreamKind::Http(http) => {
                let len = (message.raw.len() as i64 + edits.growth()).unsigned_abs();
                let mut out = Vec::with_capacity(message.carried.len() + len as usize + 256);
                self.put_head(&mut out, http, b"POST", session_id)?;
                self.copy_fields(&mut out, message.carried, edits);
                if matches!(message.carried, Carried::Bare(_)) {
                    self.catalog.mirror(message, edits.renamed(), &mut out);
                }
                write::field_decimal(&mut out, "Content-Length", len);
                write::end_head(&mut out);
                edits.apply(message.raw, &mut out)?;
                Ok(Outgoing::Http(out))
            }
            UpstreamKind::Child(_) => {
                let session = session_id.and_then(parse_session);
                self.child_call(message, session, edits).map(Outgoing::Child)
            }
        }
    }

    /// Likewise, for a session that this upstream is still to open: [`Outgoing::within`] puts it in.
    pub(crate) fn outgoing_unopened(&self, message: &Message<'_>, edits: &Edits) -> Result<Outgoing, Unsendable> {
        match &self.kind {
            UpstreamKind::Http(_) => self.outgoing(message, None, edits),
            UpstreamKind::Child(_) => self.child_call(message, Some(SessionId(0)), edits).map(Outgoing::Child),
        }
    }

    /// A request without a body (GET, DELETE); `last_event_id`, the upstream's own, stands in place of the client's.
    pub(crate) fn bodiless(
        &self,
        method: &[u8],
        kind: CallKind,
        carried: Carried<'_>,
        session: Option<&Session>,
        sender: Sender<'_>,
        last_event_id: Option<&[u8]>,
    ) -> Result<Outgoing, Unsendable> {
        let part = session.and_then(|session| session.part(self.tag));
        match &self.kind {
            UpstreamKind::Http(http) => {
                let mut out = Vec::with_capacity(512);
                self.put_head(&mut out, http, method, part)?;
                let mut edits = Edits::default();
                if let Some(id) = last_event_id {
                    write::field(&mut out, "Last-Event-ID", id);
                    edits.resumed = true;
                }
                self.copy_fields(&mut out, carried, &edits);
                write::end_head(&mut out);
                Ok(Outgoing::Http(out))
            }
            UpstreamKind::Child(_) => Ok(Outgoing::Child(ChildCall {
                raw: Vec::new(),
                parts: Parts::default(),
                session: Some(part.and_then(parse_session).ok_or(Unsendable::MissingSession)?),
                kind,
                principal: sender.short_tag(),
                cancel_on_drop: false,
            })),
        }
    }

    /// The request line and the fields that are the gateway's own.
    ///
    /// # Errors
    /// [`Unsendable::Credential`]: no request goes to an upstream without the credential that it is to have.
    fn put_head(
        &self,
        out: &mut Vec<u8>,
        http: &HttpUpstream,
        method: &[u8],
        session_id: Option<&[u8]>,
    ) -> Result<(), Unsendable> {
        let target = http.target();
        write::request_line(out, method, target.path_and_query.as_bytes());
        write::field(out, "Host", target.authority.as_bytes());
        out.extend_from_slice(self.extra_fields());
        http.credential().append(out).map_err(|_| Unsendable::Credential)?;
        // An upstream without sessions has an empty part in a session that it shares with others.
        if let Some(id) = session_id.filter(|id| !id.is_empty()) {
            write::field(out, SESSION_FIELD, id);
        }
        Ok(())
    }

    /// The client's fields, but for those that the policy or an edit replaces.
    pub(crate) fn copy_fields(&self, out: &mut Vec<u8>, carried: Carried<'_>, edits: &Edits) {
        let (head, head_bytes) = match carried {
            Carried::Head { head, bytes } => (head, bytes),
            Carried::Bare(bare) => return put_bare(out, bare, edits.renamed()),
        };
        if edits.resumed {
            let mut replaced = self.replaced_fields.clone();
            replaced.push("last-event-id".to_owned());
            return write::copy_request_fields(out, head, head_bytes, &replaced);
        }
        match &edits.renamed {
            None => write::copy_request_fields(out, head, head_bytes, &self.replaced_fields),
            Some(own) => {
                let mut replaced = self.replaced_fields.clone();
                replaced.push("mcp-name".to_owned());
                write::copy_request_fields(out, head, head_bytes, &replaced);
                if head.known.mcp_name.is_some() {
                    put_name(out, own);
                }
            }
        }
    }

    /// The bytes that carry a message of the gateway's own making: `fields` are header lines, `parts` where things stand in it.
    ///
    /// # Errors
    /// [`Unsendable::Credential`].
    pub(crate) fn compose(&self, own: &Own<'_>, body: &[u8], envelope: &Envelope) -> Result<Outgoing, Unsendable> {
        Ok(match &self.kind {
            UpstreamKind::Http(http) => {
                let mut out = Vec::with_capacity(own.fields.len() + body.len() + 256);
                self.put_head(&mut out, http, b"POST", own.session)?;
                // The lines were copied for all upstreams; those that this one's policy replaces do not go there.
                for line in own.fields.split_inclusive(|b| *b == b'\n') {
                    let name = line.split(|b| *b == b':').next().unwrap_or_default();
                    if !self.replaced_fields.iter().any(|stop| name.eq_ignore_ascii_case(stop.as_bytes())) {
                        out.extend_from_slice(line);
                    }
                }
                write::field_decimal(&mut out, "Content-Length", body.len() as u64);
                write::end_head(&mut out);
                out.extend_from_slice(body);
                Outgoing::Http(out)
            }
            UpstreamKind::Child(_) => {
                let range = |span: Option<Span>| span.map(|span| span.start as usize..span.end as usize);
                let legacy = matches!(own.era, Era::Legacy(_));
                Outgoing::Child(ChildCall {
                    raw: body.to_vec(),
                    parts: Parts {
                        id: range(envelope.id.map(|id| id.span)),
                        method: envelope.method_text.map_or_else(String::new, |text| text.decode(body).into_owned()),
                        progress_token: range(envelope.progress_token),
                        request_id: range(envelope.request_id),
                    },
                    session: own.session.filter(|_| legacy).and_then(parse_session),
                    kind: call_kind(envelope, legacy),
                    principal: own.principal,
                    cancel_on_drop: !legacy,
                })
            }
        })
    }

    fn child_call(
        &self,
        message: &Message<'_>,
        session: Option<SessionId>,
        edits: &Edits,
    ) -> Result<ChildCall, Unsendable> {
        let mut raw = Vec::with_capacity(message.raw.len() + 64);
        edits.apply(message.raw, &mut raw)?;
        let envelope = message.envelope;
        let legacy = matches!(message.era, Era::Legacy(_));
        let kind = call_kind(envelope, legacy);
        if legacy && kind != CallKind::Initialize && session.is_none() {
            return Err(Unsendable::MissingSession);
        }
        let shifted = |span: Option<Span>| span.map(|span| edits.shift(span)).map(|s| s.start as usize..s.end as usize);
        let parts = Parts {
            id: shifted(envelope.id.map(|id| id.span)),
            method: envelope.method_text.map_or_else(String::new, |text| text.decode(message.raw).into_owned()),
            progress_token: shifted(envelope.progress_token),
            request_id: shifted(envelope.request_id),
        };
        Ok(ChildCall {
            raw,
            parts,
            session: if legacy { session } else { None },
            kind,
            principal: message.sender.short_tag(),
            cancel_on_drop: !legacy,
        })
    }
}

/// What a message of the gateway's own making goes under.
pub(crate) struct Own<'a> {
    /// Header lines, each with its line end.
    pub(crate) fields: &'a [u8],
    /// The upstream's part of the session.
    pub(crate) session: Option<&'a [u8]>,
    pub(crate) era: Era,
    /// [`crate::guard::Principal::short_tag`].
    pub(crate) principal: u64,
}

fn call_kind(envelope: &Envelope, legacy: bool) -> CallKind {
    match envelope.kind {
        Kind::Request if envelope.method == Method::Initialize && legacy => CallKind::Initialize,
        Kind::Request => CallKind::Request,
        Kind::Notification => CallKind::Notification,
        Kind::Response | Kind::ErrorResponse => CallKind::Response,
    }
}

impl Carried<'_> {
    /// Bytes that the fields take, about.
    fn len(&self) -> usize {
        match self {
            Self::Head { head, .. } => head.len as usize,
            Self::Bare(bare) => 192 + bare.name.map_or(0, str::len),
        }
    }
}

/// The fields of a message that came without a head.
fn put_bare(out: &mut Vec<u8>, bare: Bare<'_>, renamed: Option<&str>) {
    write::field(out, "Content-Type", b"application/json");
    write::field(out, "Accept", b"application/json, text/event-stream");
    if let Some(version) = bare.version {
        write::field(out, "MCP-Protocol-Version", version.as_bytes());
    }
    if let Some(method) = bare.method {
        write::field(out, "Mcp-Method", method.as_bytes());
        if let Some(name) = renamed.or(bare.name) {
            put_name(out, name);
        }
    }
}

/// `Mcp-Name`, encoded where it is not plain visible ASCII (MCP 2026-07-28, "Value encoding").
fn put_name(out: &mut Vec<u8>, name: &str) {
    put_encoded(out, "Mcp-Name", name);
}

/// A field whose value is any text, encoded where a field could not carry it as it is.
pub(super) fn put_encoded(out: &mut Vec<u8>, field: &str, text: &str) {
    let plain =
        text.bytes().all(|b| (0x20..0x7f).contains(&b)) && text.trim() == text && !text.starts_with("=?base64?");
    if plain {
        write::field(out, field, text.as_bytes());
    } else {
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        write::field(out, field, format!("=?base64?{encoded}?=").as_bytes());
    }
}

/// Why a message cannot be sent to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsendable {
    /// The client must initialize first: its message belongs to a session that it did not name.
    MissingSession,
    /// The upstream is to be shown a credential that the vault does not have.
    Credential,
    /// The splices do not fit the message; what would be sent is not what was checked.
    Edits,
}

impl Edits {
    /// Where a span of the received message stands after the edits, which do not touch it.
    fn shift(&self, span: Span) -> Span {
        let by: i64 = self
            .edits
            .iter()
            .filter(|(edit, _)| edit.end <= span.start)
            .map(|(edit, with)| with.len() as i64 - i64::from(edit.len()))
            .sum();
        let moved = |at: u32| u32::try_from(i64::from(at) + by).unwrap_or(at);
        Span::new(moved(span.start), moved(span.end))
    }
}

/// A child's session as it stands in a sealed id: 16 bytes.
pub(crate) fn parse_session(bytes: &[u8]) -> Option<SessionId> {
    Some(SessionId(u128::from_be_bytes(bytes.try_into().ok()?)))
}
