//! `POST /oauth/token` and `POST /oauth/revoke`, and the document that says where they are: from HTTP to the control thread and back.
//!
//! The worker reads the request, bounded in size and time, and hands it over as it is ([`crate::gateway::desk`]). What comes back is written
//! as it is. A credential that was wrong counts as a failed authentication here, where the connection is known.

use zeroize::Zeroizing;

use super::answer::{self, Fields};
use super::{Connection, Flow, Request};
use crate::gateway::desk::{self, Answered, Asked, Errand, Media};
use crate::guard::Denial;
use crate::state::blocks::Place;
use crate::state::events::EventKind;
use crate::state::lifecycle::Door;
use crate::wire::http1::request::RequestHead;

/// How a body is written; `None` where it is written in no way that is accepted.
pub(super) fn media(head: &RequestHead, buf: &[u8]) -> Option<Media> {
    let coded = head.values(buf, b"content-encoding").any(|value| !value.eq_ignore_ascii_case(b"identity"));
    let value = head.known.content_type.filter(|_| !coded)?.of(buf);
    if super::gate::is_json_in_utf8(value) {
        Some(Media::Json)
    } else {
        super::gate::is_type(value, b"application/x-www-form-urlencoded").then_some(Media::Form)
    }
}

impl Connection {
    /// Serves one request for a token, or for the end of one.
    pub(super) async fn oauth(&mut self, mut request: Request, errand: Errand) -> Flow {
        if !self.parse_head_again(&mut request) {
            return Flow::Close;
        }
        let close = !request.keep_alive;
        let worker = self.worker.clone();
        if worker.snapshot().own_key.is_none() {
            let body =
                br#"{"error":"temporarily_unavailable","error_description":"Sessions are off: JWT_SECRET is not set"}"#;
            return self.say(503, body, None, close).await;
        }
        let asked = self.asked(&request, errand);
        let Some(asked) = asked else { return Flow::Close };
        let answered = match worker.shared.desk.visit(asked) {
            Err(desk::Crowded) => None,
            Ok(answer) => {
                let patience = worker.timers.deadline(-1);
                patience.set(desk::ANSWER_MS, crate::worker::timers::OnExpiry::Wake);
                // Dropped, the answer finds nobody; what was asked for is done.
                crate::worker::race(answer, patience.expired()).await.and_then(Result::ok)
            }
        };
        let Some(Answered { status, body, retry_after_s, failed }) = answered else {
            let body = br#"{"error":"temporarily_unavailable","error_description":"Too much to do; try again"}"#;
            return self.say(503, body, Some(1), close).await;
        };
        if failed.is_none() && status == 200 && errand == Errand::Token {
            self.worker.shared.blocks.succeeded(self.client_ip(), Place::Doors);
        }
        if let Some(why) = failed {
            let denial = Denial::BadToken;
            self.worker.authentication_failed(self.client_ip());
            self.worker.metrics.door(Door::Http).auth_failures.inc();
            self.worker.metrics.refusals.inc(denial.rule());
            let event = self.event(EventKind::InvalidAuth).with_rule(denial.rule());
            self.record(event.with_details(format_args!("token request: {why}")));
        }
        self.say(status, &body, retry_after_s, close).await
    }

    fn asked(&self, request: &Request, errand: Errand) -> Option<Asked> {
        let scratch = self.worker.scratch.borrow();
        let head = self.input.get(request.head.clone()).unwrap_or_default();
        let authorization = scratch.request.known.authorization;
        Some(Asked {
            errand,
            media: media(&scratch.request, head)?,
            authorization: authorization.map(|span| Zeroizing::new(span.of(head).to_vec())),
            body: Zeroizing::new(self.input.get(request.body.clone()).unwrap_or_default().to_vec()),
            client: self.client_ip(),
        })
    }

    /// Writes an answer that no cache may keep (RFC 6749 §5.1).
    async fn say(&mut self, status: u16, body: &[u8], retry_after_s: Option<u64>, close: bool) -> Flow {
        // RFC 6749 §5.2: a client that has failed to say who it is, is told how it may.
        let challenge = (status == 401).then_some("Basic realm=\"ringwall\"");
        let fields = Fields { close, retry_after_s, challenge, no_store: true, ..Fields::default() };
        answer::whole(&mut self.output, status, "application/json", body, fields);
        self.worker.metrics.response(status);
        self.flush().await
    }
}
