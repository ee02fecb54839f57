//! What the gateway answers by itself: health, readiness, and where to get a token.

use super::answer::{self, Fields};
use super::gate::Page;
use super::{Connection, Request};
use crate::state::health;

impl Connection {
    pub(super) fn page(&mut self, page: Page, request: &Request) {
        let close = !request.keep_alive;
        let shared = &self.worker.shared;
        match page {
            Page::Health => {
                let mut body = Vec::with_capacity(256);
                health::write_health(&mut body, &shared.health, &shared.lifecycle, crate::worker::epoch_ms());
                answer::json(&mut self.output, 200, &body, close);
                self.worker.metrics.response(200);
            }
            Page::Ready => {
                let (status, text) = health::ready_answer(&shared.lifecycle);
                let fields = Fields { close, retry_after_s: (status == 503).then_some(1), ..Fields::default() };
                answer::whole(&mut self.output, status, "text/plain; charset=utf-8", text.as_bytes(), fields);
                self.worker.metrics.response(status);
            }
            Page::AuthorizationServer => {
                let snapshot = self.worker.snapshot();
                // The gate lets nobody pass where there is none.
                let document = snapshot.authorization_server.as_deref().unwrap_or("{}");
                answer::json(&mut self.output, 200, document.as_bytes(), close);
                self.worker.metrics.response(200);
            }
            Page::ProtectedResource => {
                let snapshot = self.worker.snapshot();
                answer::json(&mut self.output, 200, snapshot.protected_resource.as_bytes(), close);
                self.worker.metrics.response(200);
            }
        }
    }
}
