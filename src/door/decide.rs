//! What becomes of a message, whichever door it came through: its sender's identity, a place in the audit trail, its route.
//!
//! One function, without an await and without a word to the client. What it refuses it refuses on all doors, for the same reason and
//! under the same rule name; each door tells it in its own way.

use std::net::IpAddr;
use std::rc::Rc;

use crate::door::spread::Spread;
use crate::guard::actions;
use crate::guard::identity::{self, AgentArgument};
use crate::guard::inspect;
use crate::guard::outbound::Found;
use crate::guard::rates::{Action, Charged, Subject};
use crate::guard::{Denial, Principal};
use crate::observe::metrics::Limit;
use crate::rpc::era::EraFault;
use crate::rpc::list::ListKind;
use crate::rpc::{Envelope, Era, Kind, Method, Parser};
use crate::settings::policy::FlagMode;
use crate::state::events::{Event, Reservation, Severity};
use crate::upstream::outgoing::Edits;
use crate::upstream::route::{Fan, Unroutable};
use crate::upstream::{Message, Target, Upstream};
use crate::worker::Worker;

use super::session::Session;
use super::shown::{View, Viewer};
use super::spend::{self, Held};

/// What is looked at beside the message itself.
pub(crate) struct Asking<'a> {
    pub(crate) principal: &'a Principal,
    /// Where it comes from, as far as that is believed.
    pub(crate) client: IpAddr,
    /// The name or URI that the message acts on, decoded.
    pub(crate) name: &'a str,
    /// The session that it belongs to.
    pub(crate) session: Option<&'a Session>,
    /// Whether the upstreams' lists have been asked for on this message's behalf.
    pub(crate) looked_again: bool,
}

/// What becomes of a message that may pass.
pub(crate) enum Decision {
    /// It goes to the upstream with this number, with these splices. Money that is held for it is to be written down before anything is sent.
    Forward(usize, Edits, Option<Box<Held>>),
    /// It concerns several upstreams.
    Fan(Fan, Spread),
    /// Nobody is known to have what it acts on: the lists are to be asked for, and the message decided again.
    LookAgain(ListKind, Spread),
    /// The gateway answers an empty result by itself.
    Empty,
}

/// Why a message does not pass.
pub(crate) enum Refused {
    /// A JSON-RPC error, and the HTTP status that goes with it.
    Rpc {
        /// The status.
        status: u16,
        /// The code.
        code: i32,
        /// What the client reads.
        text: &'static str,
    },
    /// Its era's rules.
    Era(EraFault),
    /// A guard.
    Denied(Denial),
}

impl Refused {
    /// Whether it is [`SESSION_REQUIRED`], which doors that hold their clients' sessions say in another way.
    pub(crate) fn is_session_required(&self) -> bool {
        let (Self::Rpc { text, .. }, Self::Rpc { text: required, .. }) = (self, &SESSION_REQUIRED) else {
            return false;
        };
        text == required
    }
}

/// A message of a session that names none.
pub(crate) const SESSION_REQUIRED: Refused =
    Refused::Rpc { status: 400, code: -32600, text: "Mcp-Session-Id is required: initialize first" };

/// A message that cannot be spliced as the policy asks: what would be sent is not what was checked.
pub(crate) const UNCHANGEABLE: Refused = Refused::Rpc {
    status: 500,
    code: -32603,
    text: "Internal error: the message cannot be changed as the policy asks",
};

/// A message to an upstream that is to be shown a credential, and there is none.
pub(crate) const NO_CREDENTIAL: Refused = Refused::Rpc {
    status: 503,
    code: -32001,
    text: "Upstream error: the vault has no credential for the upstream; the call was not made",
};

/// Whether the message is one at all, beyond what JSON-RPC asks.
///
/// # Errors
/// A method without an id that needs one: lenient servers would carry it out, and it would be recorded, checked and routed as nothing.
pub(crate) fn check_shape(envelope: &Envelope, parser: &Parser) -> Result<(), Refused> {
    let is_notification = |text| parser.text(text).starts_with("notifications/");
    if envelope.kind == Kind::Notification && !envelope.method_text.is_some_and(is_notification) {
        return Err(Refused::Rpc { status: 400, code: -32600, text: "Invalid request: this method needs an id" });
    }
    Ok(())
}

/// Decides about a message whose shape was checked. `parser` is the one that made its envelope. A call that will be made gets a place in
/// the audit trail, in `reservation`, and is counted, as `charged`: who does not send it gives that back.
///
/// # Errors
/// [`Refused`].
pub(crate) fn decide(
    worker: &Rc<Worker>,
    parser: &Parser,
    message: &Message<'_>,
    asking: &Asking<'_>,
    (reservation, charged): (&mut Option<Reservation>, &mut Charged),
) -> Result<Decision, Refused> {
    let envelope = message.envelope;
    let agent = identity::check(asking.principal, envelope, parser).map_err(Refused::Denied)?;
    if envelope.kind == Kind::Request && envelope.method == Method::ToolsCall {
        *reservation = reserve_record(worker).map_err(Refused::Denied)?;
    }
    let opens = matches!(envelope.method, Method::Initialize | Method::Ping);
    if worker.upstreams.are_several() && message.era != Era::Modern && asking.session.is_none() && !opens {
        return Err(SESSION_REQUIRED);
    }
    let mut edits = Edits::default();
    let target = match worker.upstreams.route(message, asking.name, &mut edits) {
        Ok(target) => target,
        Err(Unroutable::Unlisted(kind))
            if !asking.looked_again && worker.upstreams.directory.may_look_again(kind, worker.timers.now_ms()) =>
        {
            return Ok(Decision::LookAgain(kind, Spread::new(&worker.upstreams, message, asking.session)));
        }
        Err(unroutable) => {
            let (status, code) = (unroutable.status(message.era), unroutable.code());
            return Err(Refused::Rpc { status, code, text: unroutable.text() });
        }
    };
    let index = match target {
        Target::One(index) => index,
        Target::Here => {
            inspect(worker, parser, message, asking, None)?;
            return Ok(Decision::Empty);
        }
        Target::Many(fan) => {
            inspect(worker, parser, message, asking, None)?;
            let mut spread = Spread::new(&worker.upstreams, message, asking.session);
            if fan == Fan::List(ListKind::Tools) {
                let viewer = Viewer {
                    principal: asking.principal,
                    client: asking.client,
                    kind: Kind::Request,
                    method: Method::ToolsList,
                    era: message.era,
                    name: b"",
                };
                spread.view = View::of(worker, &viewer).map(Rc::new);
            }
            return Ok(Decision::Fan(fan, spread));
        }
    };
    let Some(upstream) = worker.upstreams.get(index) else {
        let unroutable = Unroutable::NoUpstream;
        return Err(Refused::Rpc { status: 503, code: unroutable.code(), text: unroutable.text() });
    };
    // Policy and schemas know the upstream's own name, however the client spelled it.
    let renamed = edits.renamed().map(str::to_owned);
    let own_name = renamed.as_deref().unwrap_or(asking.name);
    if envelope.method == Method::ToolsCall
        && let Some(access) = worker.access(asking.principal)
        && !access.allows(&upstream.name, own_name)
    {
        return Err(Refused::Denied(Denial::ToolNotPermitted));
    }
    if envelope.method == Method::ToolsCall
        && worker.limits.get().pins == FlagMode::Block
        && worker.shared.pins.is_changed(&upstream.name, own_name)
    {
        return Err(Refused::Denied(Denial::ToolChanged));
    }
    inspect(worker, parser, message, asking, Some((&upstream.name, own_name)))?;
    if envelope.method == Method::ToolsCall {
        look_at_texts(worker, parser, message, asking, (&upstream.name, own_name)).map_err(Refused::Denied)?;
    }
    if let AgentArgument::Insert(own) = agent
        && worker.snapshot().settings.policy.injects_agent_id(&upstream.name, own_name)
    {
        edits.insert_agent_id(envelope, message.raw, &own);
    }
    upstream.catalog.check(message, own_name).map_err(Refused::Era)?;
    let mut held = None;
    // What charges comes last: who is refused before has nothing to be given back.
    if envelope.kind == Kind::Request && envelope.method == Method::ToolsCall {
        held = charge(worker, parser, message, asking, (upstream, own_name), charged).map_err(Refused::Denied)?;
    }
    Ok(Decision::Forward(index, edits, held))
}

/// Looks at what the call sends to people. `callee` is the upstream and its own name of the tool.
fn look_at_texts(
    worker: &Worker,
    parser: &Parser,
    message: &Message<'_>,
    asking: &Asking<'_>,
    callee: (&str, &str),
) -> Result<(), Denial> {
    let snapshot = worker.snapshot();
    let received = (message.envelope, parser, message.raw);
    let scratch = &mut *worker.content.borrow_mut();
    let (offending, refused) = match snapshot.outbound.look(scratch, &snapshot.settings.policy, callee, received) {
        None => return Ok(()),
        Some(Found::Refuse(offending)) => (offending, true),
        Some(Found::Record(offending)) => (offending, false),
    };
    worker.metrics.content_findings.inc(offending.offence.rule());
    let denial = Denial::ContentBlocked(Box::new(offending));
    if refused {
        return Err(denial);
    }
    let event = Event::new(denial.event(), worker.tick_epoch_ms()).with_severity(Severity::Low).with_ip(asking.client);
    let mut event = event.with_rule(denial.rule()).with_tool(asking.name.as_bytes());
    if let Some(agent) = asking.principal.agent() {
        event = event.with_agent(agent);
    }
    if let Some(id) = message.envelope.id_bytes(message.raw) {
        event = event.with_request_id(id);
    }
    worker.record(event.with_details(format_args!("let pass: {}", denial.recorded())));
    Ok(())
}

/// Looks for attacks in all that the message carries. `callee` is the upstream and its own name of what the message acts on.
fn inspect(
    worker: &Worker,
    parser: &Parser,
    message: &Message<'_>,
    asking: &Asking<'_>,
    callee: Option<(&str, &str)>,
) -> Result<(), Refused> {
    let snapshot = worker.snapshot();
    let Some(params) = message.envelope.params.filter(|_| snapshot.inspection.is_on()) else { return Ok(()) };
    let is_call = message.envelope.method == Method::ToolsCall;
    let tool = || {
        let (upstream, name) = callee.filter(|_| is_call)?;
        snapshot.settings.policy.tool_index(upstream, name)
    };
    let scratch = &mut *worker.inspection.borrow_mut();
    let found = match snapshot.inspection.look(parser.decoded(params), message.raw, tool, scratch) {
        Ok(None) => return Ok(()),
        Ok(Some(found)) => found,
        // It was read once: that it cannot be read again is no reason to let it pass.
        Err(inspect::Unreadable) => return Err(UNCHANGEABLE),
    };
    worker.metrics.findings.inc(found.finding.rule.id());
    let denial = Denial::InvalidInput(Box::new(found));
    if snapshot.inspection.blocks() {
        return Err(Refused::Denied(denial));
    }
    let mut event = Event::new(denial.event(), worker.tick_epoch_ms()).with_ip(asking.client).with_rule(denial.rule());
    event = event.with_tool(asking.name.as_bytes());
    if let Some(agent) = asking.principal.agent() {
        event = event.with_agent(agent);
    }
    if let Some(id) = message.envelope.id_bytes(message.raw) {
        event = event.with_request_id(id);
    }
    worker.record(event.with_details(format_args!("let pass (SANITIZE_MODE=monitor): {}", denial.recorded())));
    Ok(())
}

/// Charges a tool call that everything else lets pass: the minute, the hour and the day, then its price, then the number that it calls. What it is
/// refused for at last is given back to those before.
fn charge(
    worker: &Rc<Worker>,
    parser: &Parser,
    message: &Message<'_>,
    asking: &Asking<'_>,
    (upstream, tool): (&Upstream, &str),
    charged: &mut Charged,
) -> Result<Option<Box<Held>>, Denial> {
    let snapshot = worker.snapshot();
    let price = || match snapshot.spend.any() {
        true => spend::reserve(worker, asking.principal, message, upstream, tool, || reserve_record(worker)),
        false => Ok(None),
    };
    if !snapshot.settings.rates.enabled {
        return price();
    }
    let said = snapshot.actions.of(&upstream.name, tool).map_err(|actions::NameTooLong| Denial::ToolNotPermitted)?;
    let number = match said.and_then(|said| said.recipient) {
        None => None,
        Some(recipient) => actions::number(recipient, message.envelope, message.raw)
            .map_err(|actions::Unclear| Denial::UnclearRecipient { argument: recipient.clone() })?,
    };
    let book = worker.shared.limit_book.load();
    let subject = Subject::new(asking.principal, asking.client, message.envelope, parser);
    let action = Action {
        subject,
        limits: subject.limits(&book),
        upstream: &upstream.name,
        tool,
        tool_limits: said.map(|said| said.limits),
        number: number.as_deref(),
    };
    *charged = worker.charge(|table, now_ms| action.charge_calls(table, now_ms))?;
    let held = price().inspect_err(|_| worker.give_back(charged))?;
    // Refused here, what is held is dropped, and so given back.
    worker.charge(|table, now_ms| action.charge_number(table, charged, now_ms))?;
    Ok(held)
}

/// Room for the audit line of a call that is about to be made; production makes no call that cannot be recorded.
fn reserve_record(worker: &Worker) -> Result<Option<Reservation>, Denial> {
    let snapshot = worker.snapshot();
    if !snapshot.settings.records.audit_enabled {
        return Ok(None);
    }
    let reservation = worker.events.reserve();
    if reservation.is_err() {
        worker.metrics.limit(Limit::AuditQueue);
    }
    let healthy = worker.shared.lifecycle.audit_healthy();
    match reservation {
        Ok(reservation) if healthy || !snapshot.is_production() => Ok(Some(reservation)),
        Err(_) if !snapshot.is_production() => Ok(None),
        _ => Err(Denial::AuditUnavailable),
    }
}
