//! What each worker counts, and the sum of all workers as Prometheus text.
//!
//! A [`WorkerMetrics`] is written by its worker alone, with plain loads and stores (a nanosecond each), and read by the
//! control plane when someone scrapes. Label values are bounded by construction: doors, outcomes, status classes, limits, rule
//! names that are compiled in, upstreams of the policy, and the bounded table of tools (`state/tools.rs`).

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::calls::CallCounters;
use super::histogram::Histogram;
use crate::state::blocks::Blocks;
use crate::state::call_records::CallRecords;
use crate::state::events::{EventQueue, Outcome};
use crate::state::lifecycle::{Door, Lifecycle};
use crate::state::rates::RateTable;
use crate::state::tools::{Row, ToolNames};

mod encode;
mod store;

pub use self::store::{StoreMetrics, Waiting};

/// The media type of [`MetricSources::encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A number that one thread adds to and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds one. Only the owning thread may call this.
    pub fn inc(&self) {
        self.add(1);
    }

    /// The value at some recent moment.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Rule names a worker can tell apart; more count as `other`.
pub const MAX_RULES: usize = 96;

/// Counters by rule name. Names are `&'static`, so their number is bounded by the program's text; no caller can add one.
#[derive(Debug)]
pub struct RuleCounters {
    slots: Box<[(OnceLock<&'static str>, Counter)]>,
    other: Counter,
}

impl Default for RuleCounters {
    fn default() -> Self {
        Self { slots: (0..MAX_RULES).map(|_| Default::default()).collect(), other: Counter::default() }
    }
}

impl RuleCounters {
    /// Counts one refusal by `rule`. Only the owning thread may call this.
    pub fn inc(&self, rule: &'static str) {
        for (name, counter) in &self.slots {
            if *name.get_or_init(|| rule) == rule {
                counter.inc();
                return;
            }
        }
        self.other.inc();
    }

    /// All rules that were counted, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let named = self.slots.iter().map_while(|(name, counter)| Some((*name.get()?, counter.get())));
        let other = Some(("other", self.other.get())).filter(|(_, count)| *count > 0);
        named.chain(other)
    }
}

/// What is counted for each door.
#[derive(Debug, Default)]
pub struct DoorMetrics {
    /// From the first byte of a call read to the last byte of its answer written.
    pub call_duration: Histogram,
    /// Bytes received from clients.
    pub bytes_in: Counter,
    /// Bytes sent to clients.
    pub bytes_out: Counter,
    /// Connections admitted.
    pub connections_accepted: Counter,
    /// Connections refused: by address, limit or TLS.
    pub connections_refused: Counter,
    /// Connections that have ended.
    pub connections_closed: Counter,
    /// Authentications that failed.
    pub auth_failures: Counter,
}

/// A bound that something ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Connections of a door.
    DoorConnections,
    /// Connections of an address.
    AddressConnections,
    /// A request's body, `MAX_REQUEST_SIZE`.
    RequestSize,
    /// A message, `MAX_MESSAGE_SIZE`.
    MessageSize,
    /// Calls in flight at an upstream.
    UpstreamInFlight,
    /// Room in the audit queue.
    AuditQueue,
    /// HTTP requests of an address, `HTTP_RATE_LIMIT_PER_IP`.
    AddressRequests,
    /// HTTP requests of everyone, `HTTP_RATE_LIMIT_GLOBAL`.
    GlobalRequests,
    /// How often an address may connect to the TCP door.
    AddressConnectionRate,
    /// Messages of a client, `RATE_LIMIT_MAX_REQUESTS`.
    ClientMessages,
    /// Messages of a client in a second, `RATE_LIMIT_BURST_REQUESTS`.
    ClientBurst,
    /// Tool calls of an agent a minute.
    AgentMinute,
    /// Tool calls of an agent an hour.
    AgentHour,
    /// Tool calls of an agent a day.
    AgentDay,
    /// Calls of a tool a minute.
    ToolMinute,
    /// Calls of a tool an hour.
    ToolHour,
    /// Calls of a tool a day.
    ToolDay,
    /// Voice actions to one number a day.
    SameNumber,
}

impl Limit {
    /// Every limit there is.
    pub const ALL: &'static [Limit] = &[
        Limit::DoorConnections,
        Limit::AddressConnections,
        Limit::RequestSize,
        Limit::MessageSize,
        Limit::UpstreamInFlight,
        Limit::AuditQueue,
        Limit::AddressRequests,
        Limit::GlobalRequests,
        Limit::AddressConnectionRate,
        Limit::ClientMessages,
        Limit::ClientBurst,
        Limit::AgentMinute,
        Limit::AgentHour,
        Limit::AgentDay,
        Limit::ToolMinute,
        Limit::ToolHour,
        Limit::ToolDay,
        Limit::SameNumber,
    ];

    /// The name in labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Limit::DoorConnections => "door_connections",
            Limit::AddressConnections => "address_connections",
            Limit::RequestSize => "request_size",
            Limit::MessageSize => "message_size",
            Limit::UpstreamInFlight => "upstream_in_flight",
            Limit::AuditQueue => "audit_queue",
            Limit::AddressRequests => "address_requests",
            Limit::GlobalRequests => "global_requests",
            Limit::AddressConnectionRate => "address_connection_rate",
            Limit::ClientMessages => "client_messages",
            Limit::ClientBurst => "client_burst",
            Limit::AgentMinute => "agent_minute",
            Limit::AgentHour => "agent_hour",
            Limit::AgentDay => "agent_day",
            Limit::ToolMinute => "tool_minute",
            Limit::ToolHour => "tool_hour",
            Limit::ToolDay => "tool_day",
            Limit::SameNumber => "same_number",
        }
    }
}

/// What one worker counts. Written by that worker alone; see [`Counter`].
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerMetrics {
    doors: [DoorMetrics; Door::ALL.len()],
    calls: CallCounters,
    limits: [Counter; Limit::ALL.len()],
    /// Connections over HTTP that wait for a call, by upstream, as of a quarter of a second ago at most.
    pub upstream_idle: Box<[AtomicU64]>,
    /// HTTP answers by status class, 1xx to 5xx.
    responses: [Counter; 5],
    /// Refusals by rule.
    pub refusals: RuleCounters,
    /// What was found in texts that go to people, by rule, refused or let pass.
    pub content_findings: RuleCounters,
    /// What inspection has found, by its rule, refused or let pass.
    pub findings: RuleCounters,
    /// What was found in what tools answer and say of themselves, by rule, refused or let pass.
    pub result_findings: RuleCounters,
    /// Time from a whole message to the decision to forward it: parsing, guards, route. Of one message in 64.
    pub guard_duration: Histogram,
    /// From that decision to the head of the answer of an upstream over HTTP. Of one call in 64.
    pub upstream_duration: Histogram,
    /// Upstream connections opened.
    pub upstream_connects: Counter,
    /// Calls sent on a connection that was open already.
    pub upstream_reuses: Counter,
    /// Upstream connections that failed or broke.
    pub upstream_errors: Counter,
    /// Calls sent again on a fresh connection.
    pub upstream_retries: Counter,
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        Self::new(0)
    }
}

impl WorkerMetrics {
    /// All zero.
    #[must_use]
    pub fn new(upstreams: usize) -> Self {
        Self {
            doors: Default::default(),
            calls: CallCounters::new(upstreams),
            limits: Default::default(),
            upstream_idle: (0..upstreams).map(|_| AtomicU64::new(0)).collect(),
            responses: Default::default(),
            refusals: RuleCounters::default(),
            content_findings: RuleCounters::default(),
            findings: RuleCounters::default(),
            result_findings: RuleCounters::default(),
            guard_duration: Histogram::new(),
            upstream_duration: Histogram::new(),
            upstream_connects: Counter::default(),
            upstream_reuses: Counter::default(),
            upstream_errors: Counter::default(),
            upstream_retries: Counter::default(),
        }
    }

    /// Counts a call that has ended, with its time in nanoseconds.
    pub fn call(&self, row: Row, door: Door, outcome: Outcome, duration_ns: u64) {
        self.calls.count(row, door, outcome);
        self.door(door).call_duration.record(duration_ns);
    }

    /// The calls that have ended.
    #[must_use]
    pub fn calls(&self) -> &CallCounters {
        &self.calls
    }

    /// Counts that a limit was hit.
    pub fn limit(&self, limit: Limit) {
        if let Some(counter) = self.limits.get(limit as usize) {
            counter.inc();
        }
    }

    /// How often a limit was hit.
    #[must_use]
    pub fn limits(&self, limit: Limit) -> u64 {
        self.limits.get(limit as usize).map_or(0, Counter::get)
    }

    /// The counters of a door.
    #[must_use]
    pub fn door(&self, door: Door) -> &DoorMetrics {
        let [ws, tcp, http] = &self.doors;
        match door {
            Door::Ws => ws,
            Door::Tcp => tcp,
            Door::Http => http,
        }
    }

    /// Counts an HTTP answer by its status (100 to 599; others are not counted).
    pub fn response(&self, status: u16) {
        let class = usize::from(status / 100).wrapping_sub(1);
        if let Some(counter) = self.responses.get(class) {
            counter.inc();
        }
    }

    /// HTTP answers of a class (1 to 5).
    #[must_use]
    pub fn responses(&self, class: usize) -> u64 {
        self.responses.get(class.wrapping_sub(1)).map_or(0, Counter::get)
    }
}

/// What the audit writer counts; shared with it.
#[derive(Debug, Default)]
pub struct AuditMetrics {
    /// Lines on disk.
    pub written: Counter,
    /// Groups written, each with one fdatasync.
    pub groups: Counter,
    /// Writes or syncs that failed.
    pub errors: Counter,
}

/// A number that several threads add to: for what happens rarely.
#[derive(Debug, Default)]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// The value at some recent moment.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted of alerts, their webhook and the anomaly detector; shared with them.
#[derive(Debug, Default)]
pub struct AlertMetrics {
    /// Name and severity of each kind, and how many there were.
    kinds: Vec<(&'static str, &'static str, SharedCounter)>,
    /// Alerts that were raised again within their quiet time.
    pub repeated: SharedCounter,
    /// Alerts that the webhook has taken.
    pub delivered: SharedCounter,
    /// Tries that the webhook did not take.
    pub failed_tries: SharedCounter,
    /// Alerts for the webhook that were given up.
    pub undelivered: SharedCounter,
    waiting: AtomicU64,
    /// Facts about agents and addresses for which the anomaly detector had no place.
    pub overflowed: SharedCounter,
    cases: AtomicU64,
}

impl AlertMetrics {
    /// For alerts of these kinds: names and severities.
    pub fn of_kinds(kinds: impl Iterator<Item = (&'static str, &'static str)>) -> Self {
        let kinds = kinds.map(|(name, severity)| (name, severity, SharedCounter::default())).collect();
        Self { kinds, ..Self::default() }
    }

    /// Counts an alert by the place of its kind.
    pub fn raised(&self, kind: usize) {
        if let Some((_, _, counter)) = self.kinds.get(kind) {
            counter.inc();
        }
    }

    /// Alerts by kind and severity.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        self.kinds.iter().map(|(name, severity, counter)| (*name, *severity, counter.get()))
    }

    /// Notes how many alerts wait for their next try.
    pub fn set_waiting(&self, waiting: u64) {
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    /// Alerts that wait for their next try.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Notes how many cases are open.
    pub fn set_cases(&self, cases: u64) {
        self.cases.store(cases, Ordering::Relaxed);
    }

    /// Cases of unusual behaviour that go on.
    #[must_use]
    pub fn cases(&self) -> u64 {
        self.cases.load(Ordering::Relaxed)
    }
}

/// What is counted of calls that cost money; shared with the ledger.
#[derive(Debug, Default)]
pub struct SpendMetrics {
    /// Reservations that were made.
    pub reserved: SharedCounter,
    /// Those that became what was spent.
    pub settled: SharedCounter,
    /// Those that stay charged because nobody knows whether the call was carried out.
    pub unsettled: SharedCounter,
    /// Those that were given back.
    pub given_back: SharedCounter,
    /// What was spent, micro-dollars, unsettled charges among it.
    pub microusd: SharedCounter,
    /// Groups that the disk refused.
    pub failures: SharedCounter,
}

/// What the broker's thread knows of the servers that clients share.
#[derive(Clone, Debug, Default)]
pub struct BrokerCounts {
    /// Calls that its thread has not taken up yet.
    pub queued: u64,
    /// Calls that it has taken up and that have not ended.
    pub in_flight: u64,
    /// By upstream.
    pub servers: Vec<ServerCounts>,
}

/// What is known of the server of one upstream.
#[derive(Clone, Debug, Default)]
pub struct ServerCounts {
    /// The upstream's name.
    pub upstream: String,
    /// Processes or connections that there are now.
    pub instances: u64,
    /// Times that one was begun.
    pub starts: u64,
    /// Unexpected ends.
    pub crashes: u64,
    /// Messages of the server that were nobody's, or whose client did not read.
    pub dropped: u64,
    /// Lines that were no JSON-RPC or too long.
    pub bad_lines: u64,
}

/// Asks the broker's thread.
#[derive(Clone)]
pub struct BrokerSource(pub Arc<dyn Fn() -> BrokerCounts + Send + Sync>);

impl std::fmt::Debug for BrokerSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BrokerSource")
    }
}

/// What is counted of OTLP; shared with what sends it.
#[derive(Debug, Default)]
pub struct OtlpMetrics {
    /// Spans that the collector has taken.
    pub exported: SharedCounter,
    /// Requests with spans that it did not take.
    pub failures: SharedCounter,
}

/// Everything `/metrics` tells. Built once, when all workers are known.
#[derive(Debug, Clone)]
pub struct MetricSources {
    /// One a worker.
    pub workers: Vec<Arc<WorkerMetrics>>,
    /// Who may not come in.
    pub blocks: Arc<Blocks>,
    /// Where it is counted how often something was done, by name.
    pub rates: [(&'static str, Arc<RateTable>); 2],
    /// The tools that calls are counted by.
    pub tools: Arc<ToolNames>,
    /// The servers that clients share, where there are any.
    pub broker: Option<BrokerSource>,
    /// The audit queues, one a worker and one for other threads.
    pub queues: Vec<Arc<EventQueue>>,
    /// The audit writer's counts.
    pub audit: Arc<AuditMetrics>,
    /// What is counted of alerts.
    pub alerts: Arc<AlertMetrics>,
    /// What is counted of the store.
    pub store: Arc<StoreMetrics>,
    /// What is counted of calls that cost money.
    pub spend: Arc<SpendMetrics>,
    /// The process's state.
    pub lifecycle: Arc<Lifecycle>,
    /// Calls on their way to a tracing backend; `None`: OTLP is off.
    pub call_records: Option<Arc<CallRecords>>,
    /// What is counted of OTLP.
    pub otlp: Arc<OtlpMetrics>,
    /// When the process started, milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// This program's version.
    pub version: &'static str,
    /// The I/O driver in use: `io_uring` or `epoll`.
    pub driver: &'static str,
}

impl MetricSources {
    /// Encodes everything as OpenMetrics text, which Prometheus reads ([`CONTENT_TYPE`]).
    ///
    /// # Errors
    /// Only if formatting fails, which writing into a `String` does not.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        encode::encode(self)
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
