//! Blocked clients, as a worker meets them: who is kept out, what that leaves in the audit trail, and what counts towards a block.

use std::net::{IpAddr, SocketAddr};

use super::{Worker, epoch_ms};
use crate::guard::{Denial, Principal, blocks};
use crate::state::blocks::Place;
use crate::state::events::{Event, EventKind};

impl Worker {
    /// Why this client's address may not come in now.
    pub(crate) fn keeps_out(&self, client: IpAddr) -> Option<Denial> {
        let now_ms = self.tick_epoch_ms();
        let found = self.shared.blocks.find(client, Place::Doors, now_ms)?;
        // Not the last tick: another worker's may have been later, and a client is not told to wait for longer than the block was meant to last.
        Some(blocks::denial(found, epoch_ms()))
    }

    /// Counts and records that a client was refused for its address. Of an address that keeps coming the trail hears once a second.
    pub(crate) fn note_blocked(&self, client: IpAddr, denial: &Denial) {
        self.shared.blocks.note_refused();
        self.metrics.refusals.inc(denial.rule());
        let told = self.blocked.borrow_mut().note(client, denial.rule(), self.tick_epoch_ms());
        if let Some(attempts) = told {
            self.record_blocked(attempts);
        }
    }

    /// Records attempts of blocked clients that are due; with `at_the_end`, all that are not recorded.
    pub(super) fn record_repeats(&self, at_the_end: bool) {
        let mut repeats = self.blocked.borrow_mut();
        if repeats.is_empty() {
            return;
        }
        while let Some(attempts) = repeats.due(self.tick_epoch_ms()) {
            self.record_blocked(attempts);
        }
        if at_the_end {
            repeats.rest().for_each(|attempts| self.record_blocked(attempts));
        }
    }

    fn record_blocked(&self, attempts: blocks::Attempts) {
        let event = match attempts.ip {
            Some(ip) => self.event(EventKind::BlockedConnection, SocketAddr::new(ip, 0)),
            None => Event::new(EventKind::BlockedConnection, self.tick_epoch_ms()),
        };
        self.record(event.with_rule(attempts.rule).with_details(format_args!("{attempts}")));
    }

    /// Counts an authentication that failed.
    pub(crate) fn authentication_failed(&self, client: IpAddr) {
        self.shared.blocks.failed(client, Place::Doors, self.tick_epoch_ms());
    }

    /// Takes back what is counted of an address from which somebody has shown who it is.
    pub(crate) fn authentication_succeeded(&self, client: IpAddr, principal: &Principal) {
        if matches!(principal, Principal::Door | Principal::Agent(_)) {
            self.shared.blocks.succeeded(client, Place::Doors);
        }
    }
}
