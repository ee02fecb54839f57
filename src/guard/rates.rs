//! How often something may be done: which limits are asked, in what order, and how a refusal is told.
//!
//! There are two kinds. **Traffic** is what reaches the gateway: requests of an address and of everyone, messages of a client, connections to
//! the TCP door ([`Traffic`]). It is counted whatever becomes of it, because it has cost something by then. **Actions** are tool calls, counted for
//! the agent, the tool and the number that is called ([`Action`]): only what is sent to an upstream counts. [`Charged`] is what a call was
//! counted as, to be given back when anything refuses it later.
//!
//! The order is that of the arguments: what a later limit refuses is given back to the earlier ones. An address is asked before everyone,
//! so that one address cannot use up what is everyone's.
//!
//! Pure: tables and time are arguments. Nothing is allocated for what passes.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::borrow::Cow;
use std::net::IpAddr;

use arrayvec::ArrayVec;

use crate::guard::Principal;
use crate::guard::denial::{LimitHit, Tell};
use crate::guard::jwt::is_agent_id;
use crate::guard::limits::{AgentLimits, LimitBook};
use crate::guard::permission::MAX_TOOL_NAME_BYTES;
use crate::rpc::reply::Amount;
use crate::rpc::{AgentId, Envelope, Parser};
use crate::settings::Rates;
use crate::settings::policy::Limits;
use crate::state::rates::{Admitted, Key, RateTable, Refused, Rule, Span, Usage};

/// Milliseconds of a second, a minute, an hour and a day.
const SECOND_MS: u32 = 1_000;
const MINUTE_MS: u32 = 60_000;
const HOUR_MS: u32 = 3_600_000;
const DAY_MS: u64 = 86_400_000;

/// The limits that one call is asked: three of its agent, three of its tool, two of the number it calls.
const MAX_TAKEN: usize = 8;
/// What it is counted by: agent, tool, number, number and tool.
const MAX_KEYS: usize = 4;

/// Which limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimit {
    /// HTTP requests of one address a minute.
    AddressRequests,
    /// HTTP requests of everyone a minute.
    GlobalRequests,
    /// Connections of one address to the TCP door, in the client's window.
    AddressConnections,
    /// Likewise, in a second.
    AddressConnectionBurst,
    /// Messages of one client in its window.
    ClientMessages,
    /// Messages of one client in a second.
    ClientBurst,
    /// Tool calls of one agent a minute.
    AgentMinute,
    /// Calls of one tool a minute.
    ToolMinute,
    /// Tool calls of one agent an hour.
    AgentHour,
    /// Calls of one tool an hour.
    ToolHour,
    /// Tool calls of one agent a day.
    AgentDay,
    /// Calls of one tool a day.
    ToolDay,
    /// Voice actions of one agent to one number a day.
    SameNumber,
    /// Likewise, by one tool.
    ToolSameNumber,
}

impl RateLimit {
    /// Every limit there is.
    pub const ALL: &'static [Self] = &[
        Self::AddressRequests,
        Self::GlobalRequests,
        Self::AddressConnections,
        Self::AddressConnectionBurst,
        Self::ClientMessages,
        Self::ClientBurst,
        Self::AgentMinute,
        Self::ToolMinute,
        Self::AgentHour,
        Self::ToolHour,
        Self::AgentDay,
        Self::ToolDay,
        Self::SameNumber,
        Self::ToolSameNumber,
    ];

    /// The rule's name: the `rule` of audit lines, answers and metrics.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::AddressRequests => "ip-requests",
            Self::GlobalRequests => "global-requests",
            Self::AddressConnections => "ip-connection-rate",
            Self::AddressConnectionBurst => "ip-connection-burst",
            Self::ClientMessages => "client-messages",
            Self::ClientBurst => "client-burst",
            Self::AgentMinute => "agent-per-minute",
            Self::ToolMinute => "tool-per-minute",
            Self::AgentHour => "agent-per-hour",
            Self::ToolHour => "tool-per-hour",
            Self::AgentDay => "agent-per-day",
            Self::ToolDay => "tool-per-day",
            Self::SameNumber => "agent-same-number",
            Self::ToolSameNumber => "tool-same-number",
        }
    }

    /// What callers of tools are told of it; `None`: it is about traffic.
    #[must_use]
    pub const fn limit_type(self) -> Option<&'static str> {
        match self {
            Self::AgentMinute | Self::ToolMinute => Some("per-minute"),
            Self::AgentHour | Self::ToolHour => Some("per-hour"),
            Self::AgentDay | Self::ToolDay => Some("per-day"),
            Self::SameNumber | Self::ToolSameNumber => Some("contact-frequency"),
            _ => None,
        }
    }

    /// When it is over, in words.
    const fn reset_description(self) -> &'static str {
        match self {
            Self::AgentMinute | Self::ToolMinute => "in up to 60 seconds",
            Self::AgentHour | Self::ToolHour => "in up to 60 minutes",
            _ => "at midnight UTC",
        }
    }

    /// How a refusal is told.
    #[must_use]
    pub const fn tell(self) -> Tell {
        match self {
            Self::AddressRequests | Self::GlobalRequests | Self::AddressConnections | Self::AddressConnectionBurst => {
                Tell::Http(429)
            }
            Self::ClientMessages | Self::ClientBurst => Tell::Rpc { status: 429, code: -32000 },
            _ => Tell::Call,
        }
    }

    /// Whether one address has done too much, by itself.
    #[must_use]
    pub const fn is_of_one_address(self) -> bool {
        self.limit_type().is_none() && !matches!(self, Self::GlobalRequests)
    }
}

/// A limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Which.
    pub limit: RateLimit,
    /// How much was used.
    pub current: u64,
    /// How much is allowed.
    pub max: u64,
    /// After so many milliseconds the next one is let pass, if nobody else takes its place.
    pub retry_after_ms: u64,
    /// The window's length.
    pub window_ms: u64,
}

impl Exceeded {
    /// The sentence that the client reads.
    #[must_use]
    pub fn text(&self) -> Cow<'static, str> {
        match self.limit {
            RateLimit::AddressRequests => "Too many requests".into(),
            RateLimit::GlobalRequests => "Too many requests (global limit)".into(),
            _ => self.hit().map_or("Rate limit exceeded".into(), |hit| hit.text().into()),
        }
    }

    /// What callers of tools are told; `None`: it is about traffic.
    #[must_use]
    pub fn hit(&self) -> Option<LimitHit> {
        Some(LimitHit {
            limit_type: self.limit.limit_type()?,
            current: Amount::Count(self.current),
            max: Amount::Count(self.max),
            retry_after_ms: self.retry_after_ms,
            resets: self.limit.reset_description(),
        })
    }

    /// [`Exceeded::retry_after_ms`] in seconds, rounded up: never 0.
    #[must_use]
    pub fn retry_after_s(&self) -> u64 {
        self.retry_after_ms.div_ceil(1000).max(1)
    }
}

/// What is counted: the first part of a key. The numbers stand in a file: none is used again for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Counted {
    AddressRequests = 1,
    GlobalRequests = 2,
    AddressConnections = 3,
    /// Messages of an address, of an agent, and of whoever has a door's token.
    AddressMessages = 4,
    AgentMessages = 5,
    DoorMessages = 6,
    /// Tool calls of one caller; of one tool; of one caller to one number; and by one tool.
    Calls = 7,
    ToolCalls = 8,
    SameNumber = 9,
    ToolSameNumber = 10,
}

/// What a client's messages are counted by: who it is, or its address where that is not known.
#[must_use]
pub fn client_key(table: &RateTable, principal: &Principal, ip: IpAddr) -> Key {
    match principal {
        Principal::Agent(id) => table.key(Counted::AgentMessages as u8, id.as_bytes()),
        Principal::Door => table.key(Counted::DoorMessages as u8, b""),
        Principal::Anonymous | Principal::Demo => table.key_of_ip(Counted::AddressMessages as u8, ip),
    }
}

/// The limits of what reaches the gateway, as the settings have them, for one table.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    per_address: Rule,
    global: Rule,
    global_key: Key,
    window: (Rule, RateLimit),
    /// `None`: the window is as short, and has the lower of both limits.
    burst: Option<Rule>,
}

impl Traffic {
    /// What the settings say; `None`: there are no limits.
    #[must_use]
    pub fn new(rates: &Rates, table: &RateTable) -> Option<Self> {
        let sliding = |limit, ms| Rule { limit, span: Span::Sliding(ms) };
        let window_ms = u32::try_from(rates.client_window.as_millis()).unwrap_or(u32::MAX);
        // One key and one length of time are one count: it would be charged twice.
        let is_burst = window_ms == SECOND_MS;
        let window = match is_burst && rates.client_burst < rates.client_max {
            true => (sliding(rates.client_burst, window_ms), RateLimit::ClientBurst),
            false => (sliding(rates.client_max, window_ms), RateLimit::ClientMessages),
        };
        rates.enabled.then(|| Self {
            per_address: sliding(rates.http_per_ip, MINUTE_MS),
            global: sliding(rates.http_global, MINUTE_MS),
            global_key: table.key(Counted::GlobalRequests as u8, b""),
            window,
            burst: (!is_burst).then(|| sliding(rates.client_burst, SECOND_MS)),
        })
    }

    /// A request of this address may be asked about soon.
    pub fn expect_request(&self, table: &RateTable, ip: IpAddr) {
        table.expect(table.key_of_ip(Counted::AddressRequests as u8, ip), self.per_address.span);
    }

    /// A message of this client may be asked about soon.
    pub fn expect_message(&self, table: &RateTable, client: Key) {
        table.expect(client, self.window.0.span);
        if let Some(burst) = self.burst {
            table.expect(client, burst.span);
        }
    }

    /// Lets a request over HTTP pass, or not: its address first, then everyone.
    ///
    /// # Errors
    /// [`Exceeded`]; then it is counted nowhere.
    pub fn request(&self, table: &RateTable, ip: IpAddr, now_ms: u64) -> Result<(), Exceeded> {
        let address = table.key_of_ip(Counted::AddressRequests as u8, ip);
        let admitted = take(table, RateLimit::AddressRequests, address, self.per_address, now_ms)?;
        match take(table, RateLimit::GlobalRequests, self.global_key, self.global, now_ms) {
            Ok(_) => Ok(()),
            Err(exceeded) => {
                table.give_back(address, self.per_address, admitted, now_ms);
                Err(exceeded)
            }
        }
    }

    /// Lets a message of a client pass, or not.
    ///
    /// # Errors
    /// [`Exceeded`]; then it is counted nowhere.
    pub fn message(&self, table: &RateTable, client: Key, now_ms: u64) -> Result<(), Exceeded> {
        self.client(table, client, now_ms)
    }

    /// Lets a connection to the TCP door pass, or not. An address may connect as often as a client may send messages.
    ///
    /// # Errors
    /// [`Exceeded`]; then it is counted nowhere.
    pub fn connection(&self, table: &RateTable, ip: IpAddr, now_ms: u64) -> Result<(), Exceeded> {
        let asked = self.client(table, table.key_of_ip(Counted::AddressConnections as u8, ip), now_ms);
        asked.map_err(|exceeded| {
            let limit = match exceeded.limit {
                RateLimit::ClientBurst => RateLimit::AddressConnectionBurst,
                _ => RateLimit::AddressConnections,
            };
            Exceeded { limit, ..exceeded }
        })
    }

    /// The window first, then the burst, so that of two times the longer one is told.
    fn client(&self, table: &RateTable, key: Key, now_ms: u64) -> Result<(), Exceeded> {
        let (window, limit) = self.window;
        let admitted = take(table, limit, key, window, now_ms)?;
        let Some(burst) = self.burst else { return Ok(()) };
        match take(table, RateLimit::ClientBurst, key, burst, now_ms) {
            Ok(_) => Ok(()),
            Err(exceeded) => {
                table.give_back(key, window, admitted, now_ms);
                Err(exceeded)
            }
        }
    }

    /// How much of what everyone may do is used.
    #[must_use]
    pub fn global_usage(&self, table: &RateTable, now_ms: u64) -> Used {
        let usage = table.peek(self.global_key, self.global, now_ms);
        Used { limit: RateLimit::GlobalRequests, max: self.global.limit, usage }
    }
}

fn take(table: &RateTable, limit: RateLimit, key: Key, rule: Rule, now_ms: u64) -> Result<Admitted, Exceeded> {
    table.take(key, rule, 1, now_ms).map_err(|Refused { current, max, retry_after_ms }| {
        let window_ms = match rule.span {
            Span::Sliding(ms) => ms.into(),
            Span::Day | Span::Month => DAY_MS,
        };
        Exceeded { limit, current, max: max.into(), retry_after_ms, window_ms }
    })
}

/// Whose tool calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// An agent's: by its token, or named by who holds a door's token, which is a service that acts for agents.
    Agent(&'a str),
    /// Who holds a door's token and names no agent.
    Door,
    /// Nobody that is known: whoever comes from this address.
    Address(IpAddr),
}

impl<'a> Subject<'a> {
    /// Whose call this is. `parser` is the one that made `envelope`.
    #[must_use]
    pub fn new(principal: &'a Principal, ip: IpAddr, envelope: &Envelope, parser: &'a Parser) -> Self {
        match principal {
            Principal::Agent(id) => Self::Agent(id),
            Principal::Door => match envelope.agent_id {
                AgentId::Text(text) if is_agent_id(parser.text(text)) => Self::Agent(parser.text(text)),
                _ => Self::Door,
            },
            // Who need not show who it is, could name whom it likes.
            Principal::Anonymous | Principal::Demo => Self::Address(ip),
        }
    }

    /// What it may do.
    #[must_use]
    pub fn limits(self, book: &LimitBook) -> &AgentLimits {
        match self {
            Self::Agent(id) => book.of(id),
            Self::Door | Self::Address(_) => book.default_limits(),
        }
    }

    /// What it is counted by. No agent's id has a parenthesis.
    fn bytes(self) -> ArrayVec<u8, MAX_ID_BYTES> {
        let mut bytes = ArrayVec::new();
        match self {
            Self::Agent(id) => bytes.extend(id.bytes().take(MAX_ID_BYTES)),
            Self::Door => bytes.extend(b"(door)".iter().copied()),
            Self::Address(ip) => {
                bytes.push(b'(');
                bytes.extend(address_bytes(ip));
            }
        }
        bytes
    }
}

/// What an address is counted by: of IPv6 its /64, for that is what one client has.
fn address_bytes(ip: IpAddr) -> ArrayVec<u8, 8> {
    let mut bytes = ArrayVec::new();
    match ip.to_canonical() {
        IpAddr::V4(ip) => bytes.extend(ip.octets()),
        IpAddr::V6(ip) => bytes.extend(ip.octets().into_iter().take(8)),
    }
    bytes
}

/// The longest id of an agent, see [`is_agent_id`].
const MAX_ID_BYTES: usize = 128;

/// A tool call that is to be counted.
#[derive(Clone, Copy, Debug)]
pub struct Action<'a> {
    /// Whose.
    pub subject: Subject<'a>,
    /// What that one may do.
    pub limits: &'a AgentLimits,
    /// The upstream's name.
    pub upstream: &'a str,
    /// The upstream's own name of the tool.
    pub tool: &'a str,
    /// The tool's own limits, where it has any.
    pub tool_limits: Option<&'a Limits>,
    /// The number that it calls, where it calls one.
    pub number: Option<&'a [u8]>,
}

/// The length of time that a limit of tool calls is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Every {
    Minute,
    Hour,
    Day,
}

impl Every {
    const fn rule(self, limit: u32) -> Rule {
        let span = match self {
            Self::Minute => Span::Sliding(MINUTE_MS),
            Self::Hour => Span::Sliding(HOUR_MS),
            Self::Day => Span::Day,
        };
        Rule { limit, span }
    }
}

/// What a call was counted as. It is given back whole, or stays.
#[derive(Debug, Default)]
pub struct Charged {
    keys: ArrayVec<Key, MAX_KEYS>,
    /// Which of the keys, and what was admitted.
    taken: ArrayVec<(u8, Every, Admitted), MAX_TAKEN>,
}

impl Charged {
    /// Counts the call by one more key; a refusal gives back everything. `limits` is how long, how much, and what that is called.
    fn take(
        &mut self,
        table: &RateTable,
        key: Key,
        limits: impl IntoIterator<Item = (Every, Option<u32>, RateLimit)>,
        now_ms: u64,
    ) -> Result<(), Exceeded> {
        let place = self.keys.iter().position(|known| *known == key).unwrap_or(self.keys.len());
        if place == self.keys.len() {
            // There is room for every key and, below, for every limit that there is.
            let _ = self.keys.try_push(key);
        }
        let place = u8::try_from(place).unwrap_or(u8::MAX);
        for (every, max, limit) in limits {
            let Some(max) = max else { continue };
            match take(table, limit, key, every.rule(max), now_ms) {
                Ok(admitted) => _ = self.taken.try_push((place, every, admitted)),
                Err(exceeded) => {
                    self.give_back(table, now_ms);
                    return Err(exceeded);
                }
            }
        }
        Ok(())
    }

    /// The call was not made: it is counted as none. A second time does nothing.
    pub fn give_back(&mut self, table: &RateTable, now_ms: u64) {
        for (place, every, admitted) in self.taken.drain(..) {
            if let Some(key) = self.keys.get(usize::from(place)) {
                table.give_back(*key, every.rule(0), admitted, now_ms);
            }
        }
    }
}

impl Action<'_> {
    /// Counts the call by the minute, the hour and the day: the agent's, and the tool's own.
    ///
    /// # Errors
    /// [`Exceeded`]; then it is counted nowhere.
    pub fn charge_calls(&self, table: &RateTable, now_ms: u64) -> Result<Charged, Exceeded> {
        let mut charged = Charged::default();
        let calls = table.key(Counted::Calls as u8, &self.subject.bytes());
        let AgentLimits { per_minute, per_hour, per_day, .. } = *self.limits;
        let agents = [
            (Every::Minute, Some(per_minute), RateLimit::AgentMinute),
            (Every::Hour, Some(per_hour), RateLimit::AgentHour),
            (Every::Day, Some(per_day), RateLimit::AgentDay),
        ];
        let every = [Every::Minute, Every::Hour, Every::Day];
        every.iter().for_each(|every| table.expect(calls, every.rule(0).span));
        let Some(Limits { per_minute, per_hour, per_day, .. }) = self.tool_limits else {
            charged.take(table, calls, agents, now_ms)?;
            return Ok(charged);
        };
        let tool_calls = table.key(Counted::ToolCalls as u8, &tool_bytes(self.upstream, self.tool));
        every.iter().for_each(|every| table.expect(tool_calls, every.rule(0).span));
        let tools = [
            (Every::Minute, *per_minute, RateLimit::ToolMinute),
            (Every::Hour, *per_hour, RateLimit::ToolHour),
            (Every::Day, *per_day, RateLimit::ToolDay),
        ];
        // The agent's minute, the tool's minute, the agent's hour, …
        for (agents, tools) in agents.into_iter().zip(tools) {
            charged.take(table, calls, [agents], now_ms)?;
            charged.take(table, tool_calls, [tools], now_ms)?;
        }
        Ok(charged)
    }

    /// Counts a voice action by the number that it calls: the agent's limit, and the tool's own. It is the last that is asked.
    ///
    /// # Errors
    /// [`Exceeded`]; then everything that was charged is given back.
    pub fn charge_number(&self, table: &RateTable, charged: &mut Charged, now_ms: u64) -> Result<(), Exceeded> {
        let Some(number) = self.number else { return Ok(()) };
        let mut bytes = ArrayVec::<u8, { MAX_ID_BYTES + 1 + MAX_NUMBER_BYTES + 1 + MAX_TOOL_BYTES }>::new();
        bytes.extend(self.subject.bytes());
        // Neither an id nor a number has a byte of zero.
        bytes.push(0);
        bytes.extend(number.iter().copied().take(MAX_NUMBER_BYTES));
        let key = table.key(Counted::SameNumber as u8, &bytes);
        let max = Some(self.limits.same_number_per_day);
        charged.take(table, key, [(Every::Day, max, RateLimit::SameNumber)], now_ms)?;
        if let Some(max) = self.tool_limits.and_then(|limits| limits.same_number_per_day) {
            bytes.push(0);
            bytes.extend(tool_bytes(self.upstream, self.tool));
            let key = table.key(Counted::ToolSameNumber as u8, &bytes);
            charged.take(table, key, [(Every::Day, Some(max), RateLimit::ToolSameNumber)], now_ms)?;
        }
        Ok(())
    }
}

/// Bytes of a number that are compared, see [`crate::guard::actions`].
const MAX_NUMBER_BYTES: usize = 64;
/// An upstream's name, a slash, a tool's name.
const MAX_TOOL_BYTES: usize = 64 + 1 + MAX_TOOL_NAME_BYTES;

/// What a tool is counted by: its name in any case of its letters is one.
fn tool_bytes(upstream: &str, tool: &str) -> ArrayVec<u8, MAX_TOOL_BYTES> {
    let mut bytes = ArrayVec::new();
    bytes.extend(upstream.bytes().take(64));
    bytes.push(b'/');
    bytes.extend(tool.bytes().map(|byte| byte.to_ascii_lowercase()).take(MAX_TOOL_NAME_BYTES));
    bytes
}

/// One limit, and how much of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Which.
    pub limit: RateLimit,
    /// How much is allowed.
    pub max: u32,
    /// How much is used, and when it begins anew.
    pub usage: Usage,
}

/// How much of its limits a caller has used.
#[must_use]
pub fn used_by(table: &RateTable, subject: Subject<'_>, limits: &AgentLimits, now_ms: u64) -> [Used; 3] {
    let key = table.key(Counted::Calls as u8, &subject.bytes());
    [
        (RateLimit::AgentMinute, Every::Minute, limits.per_minute),
        (RateLimit::AgentHour, Every::Hour, limits.per_hour),
        (RateLimit::AgentDay, Every::Day, limits.per_day),
    ]
    .map(|(limit, every, max)| Used { limit, max, usage: table.peek(key, every.rule(max), now_ms) })
}

/// How much of a tool's own limits is used.
#[must_use]
pub fn used_of_tool(table: &RateTable, upstream: &str, tool: &str, limits: &Limits, now_ms: u64) -> ArrayVec<Used, 3> {
    let key = table.key(Counted::ToolCalls as u8, &tool_bytes(upstream, tool));
    let limits = [
        (RateLimit::ToolMinute, Every::Minute, limits.per_minute),
        (RateLimit::ToolHour, Every::Hour, limits.per_hour),
        (RateLimit::ToolDay, Every::Day, limits.per_day),
    ];
    let used = limits.into_iter().filter_map(|(limit, every, max)| {
        let max = max?;
        Some(Used { limit, max, usage: table.peek(key, every.rule(max), now_ms) })
    });
    used.collect()
}

#[cfg(test)]
#[path = "rates_tests.rs"]
mod tests;
