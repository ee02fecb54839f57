//! From HTTP to WebSocket: the answer 101, and the connection's move to its new door.

use std::net::SocketAddr;

use super::answer::{self, Fields};
use super::{Connection, Flow, Request};
use crate::door::peer::Arrived;
use crate::guard::{Denial, Principal};
use crate::state::lifecycle::Door;
use crate::wire::websocket::handshake::server;

impl Connection {
    /// Answers a request for an upgrade, which the gate has let through.
    pub(super) async fn upgrade(&mut self, mut request: Request) -> Flow {
        if !self.parse_head_again(&mut request) {
            return Flow::Close;
        }
        let upgrade = {
            let scratch = self.worker.scratch.borrow();
            let bytes = self.input.get(request.head.clone()).unwrap_or_default();
            server::read_upgrade(&scratch.request, bytes)
        };
        let Ok(upgrade) = upgrade else { return Flow::Close };
        let limit = self.worker.snapshot().settings.doors.bridge_max_connections.into();
        if self.entry.move_to(Door::Ws, limit).is_err() {
            let denial = Denial::DoorFull;
            self.worker.metrics.door(Door::Ws).connections_refused.inc();
            self.worker.metrics.refusals.inc(denial.rule());
            self.worker.metrics.limit(crate::observe::metrics::Limit::DoorConnections);
            self.record(self.event(denial.event()).with_rule(denial.rule()));
            answer::error(
                &mut self.output,
                503,
                &denial.text(),
                Fields { close: true, retry_after_s: Some(1), ..Fields::default() },
            );
            self.worker.metrics.response(503);
            return self.flush().await.then_close();
        }
        server::write_switch(&mut self.output, &upgrade);
        self.worker.metrics.response(101);
        match self.flush().await {
            Flow::Next => Flow::Switch,
            flow => flow,
        }
    }

    /// Hands the connection to the WebSocket door, with what has come behind the request.
    pub(super) fn switch(self, principal: Option<Principal>) {
        let worker = self.worker.clone();
        if let Some(arrived) = self.leave_http(principal) {
            crate::door::ws::arrive(&worker, arrived);
        }
    }

    /// Ends what the HTTP door holds of the connection.
    fn leave_http(self, principal: Option<Principal>) -> Option<Arrived> {
        let Self { deadline, open, stream, mut input, at, worker, peer, client, mut entry, lease, .. } = self;
        // Both let go of the socket before the new door takes hold of it.
        drop((deadline, open));
        input.drain(..at.min(input.len()));
        if input.is_empty() {
            input = Vec::new();
        }
        worker.metrics.door(Door::Http).connections_closed.inc();
        worker.metrics.door(Door::Ws).connections_accepted.inc();
        let tcp = stream.into_plain()?;
        // From here on the connection is that client's alone.
        let address = SocketAddr::new(client, peer.port());
        entry.speak_for(client);
        Some(Arrived { tcp, address, received: input, principal, lease, entry })
    }
}

#[cfg(feature = "pass-through")]
impl Connection {
    /// Path and query of a request on the pass-through route.
    pub(super) fn target_beyond(&self, request: &Request) -> String {
        let head = self.input.get(request.head.clone()).unwrap_or_default();
        let target = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        String::from_utf8_lossy(target).into_owned()
    }

    /// Hands the connection to the pass-through route.
    pub(super) fn switch_beyond(self, target: String, principal: Option<Principal>) {
        let worker = self.worker.clone();
        if let Some(arrived) = self.leave_http(principal) {
            crate::door::pass_through::arrive(&worker, arrived, &target);
        }
    }
}
