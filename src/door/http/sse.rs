//! `GET /sse` and `POST /messages`, the two requests of the HTTP+SSE transport of 2024-11-05: from HTTP to the [door](crate::door::sse) and
//! back.

use zeroize::Zeroizing;

use std::net::SocketAddr;

use super::answer::{self, Fields};
use super::{Connection, Flow, Request};
use crate::door::peer::Arrived;
use crate::door::sse::{self, Handed, Opening, Posted, SessionId};
use crate::guard::{Authenticator, Denial};
use crate::rpc::reply::EchoId;
use crate::state::events::EventKind;
use crate::state::lifecycle::Door;
use crate::wire::http1::query::parameter;
use crate::wire::http1::{Version, write};
use crate::worker::Worker;
use crate::worker::authentication::Admitted;

/// Who opens a stream, where its token may stand in the query (`SSE_QUERY_TOKEN`). A header goes first: the query is not looked at then.
pub(super) fn check_query_token(
    worker: &Worker,
    authenticator: &Authenticator,
    authorization: Option<&[u8]>,
    query: Option<&[u8]>,
) -> Result<Admitted, Denial> {
    if authorization.is_some() {
        return worker.check_authorization(authenticator, authorization);
    }
    match parameter(query.unwrap_or_default(), b"token").map(|token| token.map(Zeroizing::new)) {
        Ok(Some(token)) => worker.check_token(authenticator, &token),
        Ok(None) => worker.check_authorization(authenticator, None),
        Err(_) => Err(Denial::BadToken),
    }
}

impl Connection {
    /// Makes a stream of this connection: no request follows on it.
    pub(super) fn become_stream(self, request: Request) {
        let Request { principal, version, .. } = request;
        if self.principal.is_some() {
            // It has carried other requests; as a connection of requests it ends here.
            self.record(self.worker.event(EventKind::ConnectionClosed, self.peer));
        }
        let Self { deadline, open, stream, worker, peer, client, mut entry, lease, .. } = self;
        // Both must let go of the socket before another owner has it.
        drop((deadline, open));
        let Some(tcp) = stream.into_plain() else { return };
        // From here on the connection is that client's alone.
        let address = SocketAddr::new(client, peer.port());
        entry.speak_for(client);
        let chunked = version == Version::Http11;
        let mut head = Vec::with_capacity(512);
        write::status_line(&mut head, 200);
        answer::date(&mut head);
        write::field(&mut head, "Content-Type", b"text/event-stream");
        write::field(&mut head, "Cache-Control", b"no-cache, no-transform");
        write::field(&mut head, "X-Accel-Buffering", b"no");
        if chunked {
            write::field(&mut head, "Transfer-Encoding", b"chunked");
        }
        write::field(&mut head, "Connection", b"close");
        write::end_head(&mut head);
        let arrived = Arrived { tcp, address, received: Vec::new(), principal: Some(principal), lease, entry };
        if sse::open(&worker, Opening { arrived, head, chunked }) {
            worker.metrics.response(200);
        } else {
            tracing::warn!("no random bytes from the system for a session id: an SSE stream was not opened");
            worker.metrics.door(Door::Http).connections_closed.inc();
        }
    }

    /// Serves `POST /messages`: one message for a stream that is open somewhere.
    pub(super) async fn posted(&mut self, mut request: Request) -> Flow {
        if !self.parse_head_again(&mut request) {
            return Flow::Close;
        }
        let fields = Fields { close: !request.keep_alive, ..Fields::default() };
        let worker = self.worker.clone();
        let (status, text) = match self.posted_to(&request) {
            None => (400, "sessionId is missing: post to the URL that the stream's endpoint event names"),
            Some(session) => {
                if !self.is_message(&request) {
                    return self.flush().await;
                }
                let handed = match SessionId::decode(&session) {
                    None => Handed::Unknown,
                    Some(session) => {
                        let posted = Posted {
                            session,
                            principal: request.principal.tag(),
                            message: self.input.get(request.body.clone()).unwrap_or_default().to_vec(),
                            in_flight: worker.shared.lifecycle.begin_call(worker.index),
                        };
                        worker.shared.sse_inboxes.hand(posted).await
                    }
                };
                match handed {
                    Handed::Taken => {
                        worker.metrics.response(202);
                        answer::whole(&mut self.output, 202, "text/plain; charset=utf-8", b"Accepted", fields);
                        return self.flush().await;
                    }
                    Handed::Unknown => (404, "Session not found: open a stream at /sse"),
                    Handed::Full => (503, "Too many messages of this session wait: read the stream, then try again"),
                }
            }
        };
        worker.metrics.response(status);
        let fields = Fields { retry_after_s: (status == 503).then_some(1), ..fields };
        answer::error(&mut self.output, status, text, fields);
        self.flush().await
    }

    /// The session that a request names; `None` where it does not name one.
    fn posted_to(&self, request: &Request) -> Option<Vec<u8>> {
        let scratch = self.worker.scratch.borrow();
        let head = self.input.get(request.head.clone()).unwrap_or_default();
        let query = scratch.request.query.map(|span| span.of(head)).unwrap_or_default();
        parameter(query, b"sessionId").ok().flatten().filter(|session| !session.is_empty())
    }

    /// Whether the body is one JSON-RPC message; if not, the answer stands in the output.
    fn is_message(&mut self, request: &Request) -> bool {
        let input = std::mem::take(&mut self.input);
        let raw = input.get(request.body.clone()).unwrap_or_default();
        let parsed = self.worker.scratch.borrow_mut().parser.parse(raw);
        if let Err(malformed) = &parsed {
            self.answer_malformed(malformed, raw, EchoId::Null, !request.keep_alive);
        }
        self.input = input;
        parsed.is_ok()
    }
}
