//! From HTTP to WebSocket: the answer 101, and the connection's move to its new door.

use std::net::SocketAddr;

use super::answer::{self, Fields};
use super::{Connection, Flow, Request};
use crate::guard::Denial;
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
    pub(super) fn switch(self, principal: Option<crate::guard::Principal>) {
        let Self { deadline, open, stream, mut input, at, worker, peer, client, entry, .. } = self;
        // Both let go of the socket before the new door takes hold of it.
        drop((deadline, open));
        input.drain(..at.min(input.len()));
        if input.is_empty() {
            input = Vec::new();
        }
        worker.metrics.door(Door::Http).connections_closed.inc();
        worker.metrics.door(Door::Ws).connections_accepted.inc();
        if let Some(tcp) = stream.into_plain() {
            // From here on the connection is that client's alone.
            let client = SocketAddr::new(client, peer.port());
            crate::door::ws::arrive(&worker, tcp, client, input, principal, entry);
        }
    }
}
