//! How often something may be done, asked by a worker: which table, which time.
//!
//! What passes costs no look at the clock: it is asked with the time that was read last, when its bytes were received or at the last tick, at
//! most some 50 ms ago. What would be refused is asked again with the time that it is, so that what is told of it is true.

use std::net::IpAddr;

use super::Worker;
use crate::guard::rates::{self, Charged, Exceeded, RateLimit};
use crate::guard::{Denial, Principal};
use crate::observe::metrics::Limit;
use crate::state::rates::{Key, RateTable};

impl Worker {
    /// Bytes of this address are about to be read: what [`admit_request`](Self::admit_request) looks at can be fetched meanwhile.
    pub(crate) fn expect_request(&self, ip: IpAddr) {
        if let Some(traffic) = self.limits.get().traffic {
            traffic.expect_request(&self.shared.traffic, ip);
        }
    }

    /// A message of this client is about to be read: likewise for [`admit_message`](Self::admit_message).
    pub(crate) fn expect_message(&self, client: Key) {
        if let Some(traffic) = self.limits.get().traffic {
            traffic.expect_message(&self.shared.traffic, client);
        }
    }

    /// Lets a request over HTTP pass, or not.
    ///
    /// # Errors
    /// [`Denial::RateLimited`].
    pub(crate) fn admit_request(&self, ip: IpAddr) -> Result<(), Denial> {
        let Some(traffic) = self.limits.get().traffic else { return Ok(()) };
        self.timely(|now_ms| traffic.request(&self.shared.traffic, ip, now_ms))
    }

    /// Lets a connection to the TCP door pass, or not.
    ///
    /// # Errors
    /// [`Denial::RateLimited`].
    pub(crate) fn admit_connection(&self, ip: IpAddr) -> Result<(), Denial> {
        let Some(traffic) = self.limits.get().traffic else { return Ok(()) };
        self.timely(|now_ms| traffic.connection(&self.shared.traffic, ip, now_ms))
    }

    /// Lets a message of a client pass, or not.
    ///
    /// # Errors
    /// [`Denial::RateLimited`].
    pub(crate) fn admit_message(&self, client: Key) -> Result<(), Denial> {
        let Some(traffic) = self.limits.get().traffic else { return Ok(()) };
        self.timely(|now_ms| traffic.message(&self.shared.traffic, client, now_ms))
    }

    /// What a client's messages are counted by.
    pub(crate) fn client_key(&self, principal: &Principal, ip: IpAddr) -> Key {
        rates::client_key(&self.shared.traffic, principal, ip)
    }

    /// Counts a tool call. `charge` is asked again with a fresh time where it refuses at first.
    ///
    /// # Errors
    /// [`Denial::RateLimited`].
    pub(crate) fn charge<T>(&self, charge: impl FnMut(&RateTable, u64) -> Result<T, Exceeded>) -> Result<T, Denial> {
        let mut charge = charge;
        self.timely(|now_ms| charge(&self.shared.actions, now_ms))
    }

    /// A call that was counted was not made.
    pub(crate) fn give_back(&self, charged: &mut Charged) {
        charged.give_back(&self.shared.actions, self.epoch_ms_at(self.recent_ns()));
    }

    /// Counts that something was refused.
    pub(crate) fn note_refusal(&self, denial: &Denial, ip: IpAddr) {
        self.metrics.refusals.inc(denial.rule());
        if let Some(exceeded) = denial.exceeded() {
            self.metrics.limit(limit_of(exceeded.limit));
            if exceeded.limit.is_of_one_address() {
                // Who keeps doing this is blocked: its connections are closed, and its next ones told why.
                self.shared.blocks.violation(ip, self.tick_epoch_ms());
            }
        }
    }

    /// Asks with the time that was read last; where the answer is no, with the time that it is.
    fn timely<T>(&self, mut ask: impl FnMut(u64) -> Result<T, Exceeded>) -> Result<T, Denial> {
        let asked = ask(self.epoch_ms_at(self.recent_ns()));
        asked.or_else(|_| ask(self.epoch_ms_at(self.now_ns()))).map_err(Denial::RateLimited)
    }
}

fn limit_of(limit: RateLimit) -> Limit {
    match limit {
        RateLimit::AddressRequests => Limit::AddressRequests,
        RateLimit::GlobalRequests => Limit::GlobalRequests,
        RateLimit::AddressConnections | RateLimit::AddressConnectionBurst => Limit::AddressConnectionRate,
        RateLimit::ClientMessages => Limit::ClientMessages,
        RateLimit::ClientBurst => Limit::ClientBurst,
        RateLimit::AgentMinute => Limit::AgentMinute,
        RateLimit::AgentHour => Limit::AgentHour,
        RateLimit::AgentDay => Limit::AgentDay,
        RateLimit::ToolMinute => Limit::ToolMinute,
        RateLimit::ToolHour => Limit::ToolHour,
        RateLimit::ToolDay => Limit::ToolDay,
        RateLimit::SameNumber | RateLimit::ToolSameNumber => Limit::SameNumber,
    }
}
