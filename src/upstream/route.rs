//! Which upstream a message is for.
//!
//! With one upstream the answer is always the same. With several, the gateway is one server to its clients: lists are merged, a
//! tool, prompt or resource belongs to the upstream that listed it ([`Directory`]), what concerns the session goes to all,
//! and a server's request to the client carries its upstream's number in its id, so that the client's answer finds back.
//!
//! A tool whose name several upstreams have is listed as `UPSTREAM__NAME` for each of them; such a name is
//! understood at any time, listed or not, so that a call does not depend on which upstreams were up when the list was made.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::outgoing::Edits;
use super::{Message, Upstreams};
use crate::bounds;
use crate::rpc::list::ListKind;
use crate::rpc::{Era, IdKind, Kind, Method, reply};

/// Stands between an upstream's name and a tool's.
pub(crate) const SEPARATOR: &str = "__";

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// One upstream, by its number.
    One(usize),
    /// Several, and what is made of their answers.
    Many(Fan),
    /// The gateway answers an empty result by itself.
    Here,
}

/// What is made of several upstreams' answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fan {
    /// `initialize`: capabilities and instructions are joined, the sessions sealed into one id.
    Initialize,
    /// `server/discover`: likewise, without sessions.
    Discover,
    /// A list: merged.
    List(ListKind),
    /// All are told; a request is answered with an empty result.
    Tell,
    /// They are asked one after the other until one knows.
    FirstThatKnows,
    /// Their streams are passed on as one.
    Listen,
}

/// Why a message goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unroutable {
    /// There is no upstream at all.
    NoUpstream,
    /// No upstream has listed that name; the list may be worth another look.
    Unlisted(ListKind),
    /// A response to a request that none of the upstreams can have made.
    NotAsked,
}

impl Unroutable {
    pub(crate) fn status(self, era: Era) -> u16 {
        match (self, era) {
            (Self::NoUpstream, _) => 503,
            (Self::Unlisted(_), Era::Legacy(_)) => 200,
            (Self::Unlisted(_) | Self::NotAsked, _) => 400,
        }
    }

    pub(crate) fn code(self) -> i32 {
        match self {
            Self::NoUpstream => -32603,
            Self::Unlisted(_) => -32602,
            Self::NotAsked => -32600,
        }
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::NoUpstream => "No upstream is configured",
            Self::Unlisted(ListKind::Tools) => "Unknown tool",
            Self::Unlisted(ListKind::Prompts) => "Unknown prompt",
            Self::Unlisted(_) => "Unknown resource",
            Self::NotAsked => "Invalid request: no server has asked this",
        }
    }
}

/// The upstream that has a name, and what the name is there.
type Owned = (usize, Box<str>);

/// What one upstream has listed, in its order.
type OwnNames = Vec<Box<str>>;

/// Whose a listed name is.
///
/// What each upstream has listed last stays known while it is down: its calls fail then, rather than go to another upstream
/// that has a tool of the same name.
#[derive(Default)]
pub(crate) struct Directory {
    known: RefCell<HashMap<(Listed, usize), OwnNames>>,
    names: RefCell<HashMap<(Listed, Box<str>), Owned>>,
    /// When each list was last asked for because of a name that nobody had, milliseconds of the worker's clock plus one.
    looked_at_ms: [Cell<u64>; 3],
}

/// The lists whose names are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Listed {
    Tool,
    Prompt,
    Resource,
}

impl Directory {
    /// Takes note of what an upstream lists now.
    pub(crate) fn learn(&self, kind: ListKind, upstream: usize, own_names: impl Iterator<Item = String>) {
        let Some(listed) = listed(kind) else { return };
        let own_names = own_names.take(bounds::MAX_CATALOG_ENTRIES).map(String::into_boxed_str).collect();
        self.known.borrow_mut().insert((listed, upstream), own_names);
    }

    /// Decides anew under which name each known member of a list is shown, and publishes it: its own, or, where several have it or it could be
    /// taken for a prefixed one, with its upstream's name in front. A resource is its URI: the first upstream has it.
    pub(crate) fn publish(&self, kind: ListKind, upstreams: &[String]) {
        let Some(listed) = listed(kind) else { return };
        let known = self.known.borrow();
        let mut owners: HashMap<&str, usize> = HashMap::new();
        let all = || {
            (0..upstreams.len()).flat_map(|upstream| {
                let names = known.get(&(listed, upstream)).map_or(&[][..], Vec::as_slice);
                names.iter().map(move |own| (upstream, own))
            })
        };
        for (_, own) in all() {
            *owners.entry(own).or_default() += 1;
        }
        let mut names = self.names.borrow_mut();
        names.retain(|(of, _), _| *of != listed);
        for (upstream, own) in all() {
            let several = owners.get(own.as_ref()).is_some_and(|count| *count > 1);
            let shown = if listed != Listed::Resource && (several || looks_prefixed(own, upstreams)) {
                let name = upstreams.get(upstream).map_or("", String::as_str);
                format!("{name}{SEPARATOR}{own}").into_boxed_str()
            } else {
                own.clone()
            };
            names.entry((listed, shown)).or_insert_with(|| (upstream, own.clone()));
        }
    }

    /// The names under which an upstream's members are shown, by their own.
    pub(crate) fn shown(&self, kind: ListKind, upstream: usize) -> HashMap<Box<str>, Box<str>> {
        let Some(listed) = listed(kind) else { return HashMap::new() };
        let names = self.names.borrow();
        let mine = names.iter().filter(|((of, _), (owner, _))| *of == listed && *owner == upstream);
        mine.map(|((_, shown), (_, own))| (own.clone(), shown.clone())).collect()
    }

    /// Whether an unknown name is worth asking all upstreams again: not more often than [`bounds::LOOK_AGAIN_MS`], or a client that makes
    /// names up could have every upstream asked for every call.
    ///
    /// As long as nobody has listed anything of that kind, any call may ask: those that come while the first look is out must not be
    /// told that there is no such name.
    pub(crate) fn may_look_again(&self, kind: ListKind, now_ms: u64) -> bool {
        let Some(listed) = listed(kind) else { return false };
        let Some(looked_at_ms) = self.looked_at_ms.get(listed as usize) else { return false };
        let nothing_known = !self.known.borrow().keys().any(|(of, _)| *of == listed);
        let last = looked_at_ms.get();
        let may = nothing_known || last == 0 || now_ms + 1 >= last + bounds::LOOK_AGAIN_MS;
        if may {
            looked_at_ms.set(now_ms + 1);
        }
        may
    }

    fn find(&self, listed: Listed, shown: &str) -> Option<(usize, String)> {
        let names = self.names.borrow();
        let (upstream, own) = names.get(&(listed, Box::from(shown)))?;
        Some((*upstream, own.to_string()))
    }
}

/// Whether a name begins like a prefixed one.
fn looks_prefixed(name: &str, upstreams: &[String]) -> bool {
    upstreams
        .iter()
        .any(|upstream| name.strip_prefix(upstream.as_str()).is_some_and(|rest| rest.starts_with(SEPARATOR)))
}

fn listed(kind: ListKind) -> Option<Listed> {
    match kind {
        ListKind::Tools => Some(Listed::Tool),
        ListKind::Prompts => Some(Listed::Prompt),
        ListKind::Resources => Some(Listed::Resource),
        ListKind::ResourceTemplates => None,
    }
}

impl Upstreams {
    /// Decides where a message goes. `name` is what it acts on, decoded. Splices that the way makes necessary go to `edits`.
    pub(crate) fn route(&self, message: &Message<'_>, name: &str, edits: &mut Edits) -> Result<Target, Unroutable> {
        match self.all.len() {
            0 => Err(Unroutable::NoUpstream),
            1 => Ok(Target::One(0)),
            _ => self.route_among(message, name, edits),
        }
    }

    fn route_among(&self, message: &Message<'_>, name: &str, edits: &mut Edits) -> Result<Target, Unroutable> {
        let envelope = message.envelope;
        match envelope.kind {
            Kind::Notification => return Ok(Target::Many(Fan::Tell)),
            Kind::Response | Kind::ErrorResponse => return self.route_response(message, edits),
            Kind::Request => {}
        }
        let legacy = message.era != Era::Modern;
        Ok(match envelope.method {
            Method::Initialize if legacy => Target::Many(Fan::Initialize),
            Method::Ping if legacy => Target::Here,
            Method::LoggingSetLevel if legacy => Target::Many(Fan::Tell),
            Method::ServerDiscover if !legacy => Target::Many(Fan::Discover),
            Method::ToolsList => Target::Many(Fan::List(ListKind::Tools)),
            Method::PromptsList => Target::Many(Fan::List(ListKind::Prompts)),
            Method::ResourcesList => Target::Many(Fan::List(ListKind::Resources)),
            Method::ResourcesTemplatesList => Target::Many(Fan::List(ListKind::ResourceTemplates)),
            Method::SubscriptionsListen if !legacy => Target::Many(Fan::Listen),
            Method::ToolsCall => self.route_name(message, ListKind::Tools, Listed::Tool, name, edits)?,
            Method::PromptsGet => self.route_name(message, ListKind::Prompts, Listed::Prompt, name, edits)?,
            // A URI that no list has may come out of a template.
            Method::ResourcesRead | Method::ResourcesSubscribe | Method::ResourcesUnsubscribe => self
                .directory
                .find(Listed::Resource, name)
                .map_or(Target::Many(Fan::FirstThatKnows), |(upstream, _)| Target::One(upstream)),
            _ => Target::Many(Fan::FirstThatKnows),
        })
    }

    fn route_name(
        &self,
        message: &Message<'_>,
        kind: ListKind,
        listed: Listed,
        name: &str,
        edits: &mut Edits,
    ) -> Result<Target, Unroutable> {
        // A prefix always means its upstream: nobody can list a name that takes another's calls.
        let found = self.prefixed(name).or_else(|| self.directory.find(listed, name));
        let (upstream, own) = found.ok_or(Unroutable::Unlisted(kind))?;
        if own != name
            && let Some(text) = message.envelope.name
        {
            let mut spelled = Vec::with_capacity(own.len() + 2);
            reply::push_string(&mut spelled, &own);
            edits.replace(text.span, spelled);
            edits.rename(own);
        }
        Ok(Target::One(upstream))
    }

    /// `UPSTREAM__NAME` taken apart.
    fn prefixed(&self, name: &str) -> Option<(usize, String)> {
        self.iter().find_map(|(index, upstream)| {
            let own = name.strip_prefix(upstream.name.as_str())?.strip_prefix(SEPARATOR)?;
            (!own.is_empty()).then(|| (index, own.to_owned()))
        })
    }

    /// A client's answer to a server's request: its id is `"NUMBER:ID"`, see [`tag_id`].
    fn route_response(&self, message: &Message<'_>, edits: &mut Edits) -> Result<Target, Unroutable> {
        let id = message.envelope.id.filter(|id| id.kind == IdKind::String).ok_or(Unroutable::NotAsked)?;
        let text: String = serde_json::from_slice(id.span.of(message.raw)).map_err(|_| Unroutable::NotAsked)?;
        let (number, own) = text.split_once(':').ok_or(Unroutable::NotAsked)?;
        let upstream: usize = number.parse().map_err(|_| Unroutable::NotAsked)?;
        // What the id says it was must itself be an id, or it would be a way to write into the message.
        let is_id =
            matches!(serde_json::from_str(own), Ok(serde_json::Value::String(_) | serde_json::Value::Number(_)));
        if upstream >= self.all.len() || !is_id {
            return Err(Unroutable::NotAsked);
        }
        edits.replace(id.span, own.as_bytes().to_vec());
        Ok(Target::One(upstream))
    }
}

/// The id under which a client sees the request of one of several servers: `"NUMBER:ID"`, `ID` as JSON.
pub(crate) fn tag_id(upstream: usize, id: &[u8], out: &mut Vec<u8>) {
    let text = format!("{upstream}:{}", String::from_utf8_lossy(id));
    reply::push_string(out, &text);
}
