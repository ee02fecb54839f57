//! What a principal is shown of a server's answer: of a list of tools, those that it may use ([`crate::guard::permission`]) and whose descriptions
//! are the accepted ones ([`crate::state::pins`]); of a result, what the policy lets pass ([`crate::guard::results`]).
//!
//! An answer is looked at wherever it may come: as the answer to the call, and on a session's own stream, where servers answer a call
//! whose stream has broken. What a server tells in any other way is the server's own word.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::guard::results::{ResultFault, tool_hash};
use crate::guard::{Access, Denial, Principal};
use crate::rpc::cut::{self, Cut, Unclear};
use crate::rpc::list::{self, ListKind};
use crate::rpc::reply::{self, EchoId};
use crate::rpc::{Envelope, Era, Kind, Method, Parser, splice};
use crate::settings::DenialStyle;
use crate::settings::policy::FlagMode;
use crate::state::events::{Event, Severity};
use crate::state::pins::{Sight, ToolHash};
use crate::wire::sse::read_event;
use crate::worker::{LocalSnapshot, Worker};

/// Whether what comes back for such a message may be a list of tools.
fn may_list_tools(kind: Kind, method: Method) -> bool {
    kind != Kind::Request || method == Method::ToolsList
}

/// Whether what comes back for such a message may be the result of a tool, or what a tool has made.
pub(crate) fn may_be_result(kind: Kind, method: Method) -> bool {
    use Method::{ResourcesRead, TasksGet, TasksResult, ToolsCall};
    kind != Kind::Request || matches!(method, ToolsCall | ResourcesRead | TasksGet | TasksResult)
}

/// Who is shown something, and what for.
pub(crate) struct Viewer<'a> {
    pub(crate) principal: &'a Principal,
    pub(crate) client: IpAddr,
    pub(crate) kind: Kind,
    pub(crate) method: Method,
    pub(crate) era: Era,
    /// The name or URI that its message acts on.
    pub(crate) name: &'a [u8],
}

/// What is to be looked for in what comes back for a message.
pub(crate) struct View {
    snapshot: LocalSnapshot,
    access: Option<Arc<Access>>,
    pins: FlagMode,
    results: bool,
    /// Who refuses says so in a tool result.
    is_call: bool,
    modern: bool,
    agent: Option<Arc<str>>,
    client: IpAddr,
    name: Box<[u8]>,
}

/// How a message is shown.
pub(crate) enum Shown {
    /// As it is.
    AsItIs,
    /// With these edits.
    Cut(Vec<Cut>),
    /// As these bytes, of which there are as many.
    Masked(Vec<u8>),
    /// Not at all: this is said in its place.
    Withheld(Vec<u8>),
}

impl Shown {
    pub(crate) fn is_withheld(&self) -> bool {
        matches!(self, Self::Withheld(_))
    }

    /// The bytes that take the place of `raw`; `None`: it stays.
    ///
    /// # Errors
    /// [`Unclear`]: the edits do not fit.
    pub(crate) fn bytes(self, raw: &[u8]) -> Result<Option<Vec<u8>>, Unclear> {
        match self {
            Self::AsItIs => Ok(None),
            Self::Masked(bytes) | Self::Withheld(bytes) => Ok(Some(bytes)),
            Self::Cut(edits) => {
                let mut shown = Vec::with_capacity(raw.len());
                splice::splice(raw, &edits, &mut shown).map_err(|_| Unclear)?;
                Ok(Some(shown))
            }
        }
    }
}

impl View {
    /// What is to be looked for; `None`: nothing. Where the policy asks for nothing that is one look.
    pub(crate) fn of(worker: &Worker, viewer: &Viewer<'_>) -> Option<Self> {
        let limits = worker.limits.get();
        let lists = may_list_tools(viewer.kind, viewer.method);
        let results = limits.looks_at_results && may_be_result(viewer.kind, viewer.method);
        if !lists && !results {
            return None;
        }
        let access = if lists { worker.access(viewer.principal) } else { None };
        let pins = if lists { limits.pins } else { FlagMode::Off };
        if !results && access.is_none() && pins == FlagMode::Off {
            return None;
        }
        Some(Self { access, pins, results, ..Self::of_size(worker, viewer) })
    }

    /// By whom it is said that a result is too long.
    pub(crate) fn of_size(worker: &Worker, viewer: &Viewer<'_>) -> Self {
        Self {
            snapshot: worker.snapshot(),
            access: None,
            pins: FlagMode::Off,
            results: true,
            is_call: viewer.kind != Kind::Request || viewer.method == Method::ToolsCall,
            modern: viewer.era == Era::Modern,
            agent: viewer.principal.agent().cloned(),
            client: viewer.client,
            name: viewer.name.into(),
        }
    }

    /// Whether results are looked at, and not lists alone.
    pub(crate) fn looks_at_results(&self) -> bool {
        self.results
    }

    /// How much of an answer must be held, so that all of it can be looked at or be known to be too long.
    pub(crate) fn hold_bytes(&self, max_held_bytes: usize) -> usize {
        if self.results {
            self.snapshot.results.max_bytes().saturating_add(1).min(max_held_bytes)
        } else {
            max_held_bytes
        }
    }

    /// A checked message of the upstream with this number, as it is shown. `id` is the client's.
    ///
    /// # Errors
    /// [`Unclear`]: it is shown to nobody.
    pub(crate) fn checked(
        &self,
        worker: &Worker,
        index: usize,
        envelope: &Envelope,
        raw: &[u8],
        id: EchoId<'_>,
    ) -> Result<Shown, Unclear> {
        if !matches!(envelope.kind, Kind::Response | Kind::ErrorResponse) {
            return Ok(Shown::AsItIs);
        }
        if self.results {
            let shown = self.result(worker, envelope, raw, id);
            if !matches!(shown, Shown::AsItIs) {
                return Ok(shown);
            }
        }
        let upstream = worker.upstreams.get(index).map_or("", |upstream| &upstream.name);
        let changed = self.changed_tools(worker, upstream, envelope, raw);
        if self.access.is_none() && self.pins != FlagMode::Block {
            return Ok(Shown::AsItIs);
        }
        let (mut edits, mut kept_all) = (Vec::new(), true);
        let keep = |tool: &str, _: &[u8]| {
            let keeps = self.allows(upstream, tool) && !changed.contains(tool);
            kept_all &= keeps;
            keeps
        };
        cut::keep_tools(envelope, raw, keep, &mut edits)?;
        // Who may see all is shown the list as it is while all of it is accepted; a member without a name is cut all the same.
        let only_private = edits.iter().all(|(_, with)| !with.is_empty());
        if edits.is_empty() || (self.access.is_none() && kept_all && only_private) {
            return Ok(Shown::AsItIs);
        }
        Ok(Shown::Cut(edits))
    }

    /// Likewise, of a message that was not parsed yet. What is no message is [`Unclear`].
    ///
    /// # Errors
    /// [`Unclear`].
    pub(crate) fn message(
        &self,
        worker: &Worker,
        parser: &mut Parser,
        index: usize,
        raw: &[u8],
    ) -> Result<Shown, Unclear> {
        let envelope = parser.parse(raw).map_err(|_| Unclear)?;
        let id = envelope.id_bytes(raw).map_or(EchoId::Absent, EchoId::Raw);
        self.checked(worker, index, &envelope, raw, id)
    }

    /// Likewise, of an event. Its other fields stay. Whether it was withheld, and its bytes where they are others.
    ///
    /// # Errors
    /// [`Unclear`].
    pub(crate) fn event(
        &self,
        worker: &Worker,
        parser: &mut Parser,
        index: usize,
        event: &[u8],
    ) -> Result<(bool, Option<Vec<u8>>), Unclear> {
        let mut joined = Vec::new();
        let data = read_event(event, &mut joined).data.filter(|data| !data.is_empty());
        let Some(data) = data else { return Ok((false, None)) };
        let shown = self.message(worker, parser, index, data)?;
        let withheld = shown.is_withheld();
        Ok((withheld, shown.bytes(data)?.map(|shown| with_data(event, &shown))))
    }

    /// What is said in place of an answer that is longer than may be held.
    pub(crate) fn too_long(&self, worker: &Worker, id: EchoId<'_>) -> Vec<u8> {
        let max = u32::try_from(self.snapshot.results.max_bytes()).unwrap_or(u32::MAX);
        self.withhold(worker, ResultFault::Size { max }, 0, id)
    }

    /// Whether the policy lets the viewer use a tool.
    pub(crate) fn allows(&self, upstream: &str, tool: &str) -> bool {
        self.access.as_ref().is_none_or(|access| access.allows(upstream, tool))
    }

    /// Whether the viewer may use some tools only, or tools may be left out for what they say of themselves.
    pub(crate) fn restricts(&self) -> bool {
        self.access.is_some() || self.pins == FlagMode::Block
    }

    /// Looks at what the tools of a list say of themselves. The names of those that are to be left out.
    pub(crate) fn changed_tools(
        &self,
        worker: &Worker,
        upstream: &str,
        envelope: &Envelope,
        raw: &[u8],
    ) -> HashSet<Box<str>> {
        let (mut items, mut out) = (Vec::new(), HashSet::new());
        if self.pins == FlagMode::Off || list::split(envelope, raw, ListKind::Tools, &mut items).is_none() {
            return out;
        }
        let mut listed: Vec<(Box<str>, ToolHash)> = Vec::with_capacity(items.len());
        for item in &items {
            let name: Box<str> = item.key.decode(raw).into();
            match tool_hash::of(item.span.of(raw)) {
                Some(hash) => listed.push((name, hash)),
                None => drop(out.insert(name)),
            }
        }
        let sights = worker.shared.pins.see(upstream, &listed, worker.tick_epoch_ms());
        for ((name, _), sight) in listed.into_iter().zip(sights) {
            match sight {
                Sight::Accepted => continue,
                Sight::Changed { new } if new => self.note_changed(worker, &name),
                Sight::Changed { .. } | Sight::NoRoom => {}
            }
            out.insert(name);
        }
        if self.pins != FlagMode::Block {
            out.clear();
        }
        out
    }

    fn note_changed(&self, worker: &Worker, name: &str) {
        let denial = Denial::ToolChanged;
        worker.metrics.result_findings.inc(denial.rule());
        let event = Event::new(denial.event(), worker.tick_epoch_ms()).with_severity(Severity::Medium);
        let event = self.named(event.with_rule(denial.rule()).with_tool(name.as_bytes()));
        let passes = if self.pins == FlagMode::Block { "left out" } else { "let pass" };
        worker.record(event.with_details(format_args!("{passes}: the tool's description is not the accepted one")));
    }

    /// Looks into a result.
    fn result(&self, worker: &Worker, envelope: &Envelope, raw: &[u8], id: EchoId<'_>) -> Shown {
        let look = self.snapshot.results.look(&mut worker.content.borrow_mut(), envelope, raw);
        if let Some(finding) = look.withheld {
            return Shown::Withheld(self.withhold(worker, finding.fault, finding.at, id));
        }
        if let Some(finding) = look.flagged {
            let what = format_args!("let pass: instructions aimed at the model, byte {}", finding.at);
            self.note(worker, finding.fault, Severity::Low, id, what);
        }
        match look.masked {
            None => Shown::AsItIs,
            Some((bytes, finding, count)) => {
                let what = format_args!("masked: {count} in the result, the first at byte {}", finding.at);
                self.note(worker, finding.fault, Severity::Low, id, what);
                Shown::Masked(bytes)
            }
        }
    }

    fn withhold(&self, worker: &Worker, fault: ResultFault, at: usize, id: EchoId<'_>) -> Vec<u8> {
        let denial = Denial::ResultWithheld(fault);
        worker.metrics.refusals.inc(denial.rule());
        let text = denial.text();
        self.note(worker, fault, Severity::Medium, id, format_args!("{text}, byte {at}"));
        let mut answer = Vec::with_capacity(512);
        let style = self.snapshot.settings.doors.denial_style;
        if self.is_call && style == DenialStyle::ToolResult {
            reply::tool_refusal(&mut answer, id, &denial.refusal(&text), self.modern);
        } else {
            let mut data = Vec::with_capacity(64);
            reply::refusal_data(&mut data, &denial.refusal(&text));
            reply::error(&mut answer, id, -32001, &text, Some(&data));
        }
        answer
    }

    fn note(
        &self,
        worker: &Worker,
        fault: ResultFault,
        severity: Severity,
        id: EchoId<'_>,
        details: std::fmt::Arguments<'_>,
    ) {
        let denial = Denial::ResultWithheld(fault);
        worker.metrics.result_findings.inc(denial.rule());
        let event = Event::new(denial.event(), worker.tick_epoch_ms()).with_severity(severity);
        let mut event = self.named(event.with_rule(denial.rule()).with_tool(&self.name));
        if let EchoId::Raw(id) = id {
            event = event.with_request_id(id);
        }
        worker.record(event.with_details(details));
    }

    fn named(&self, event: Event) -> Event {
        let event = event.with_ip(self.client);
        match &self.agent {
            Some(agent) => event.with_agent(agent),
            None => event,
        }
    }
}

/// An event with other data; its other fields stay.
fn with_data(event: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(event.len());
    let is_end = |byte: &u8| matches!(*byte, b'\n' | b'\r');
    let is_data = |line: &[u8]| line == b"data" || line.starts_with(b"data:");
    for line in event.split(is_end).filter(|line| !line.is_empty() && !is_data(line)) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    for line in data.split(|byte| *byte == b'\n') {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_keeps_its_fields_and_its_lines() {
        let with = |event: &str, data: &str| {
            String::from_utf8_lossy(&with_data(event.as_bytes(), data.as_bytes())).into_owned()
        };
        assert_eq!(
            with(": hello\nevent: message\nid: 7\nretry: 5\ndata: {\"a\":1}\n\n", "{}"),
            ": hello\nevent: message\nid: 7\nretry: 5\ndata: {}\n\n"
        );
        assert_eq!(with("data: {\r\ndata:}\r\nid: 8\r\n\r\n", "{\n}"), "id: 8\ndata: {\ndata: }\n\n");
    }
}
