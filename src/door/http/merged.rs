//! Streams of several upstreams passed on as one event stream; [`crate::door::pump`] brings their events.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::sync::mpsc;

use super::plan::Call;
use super::{Connection, Flow};
use crate::bounds;
use crate::door::pump::{Merging, Piece};
use crate::rpc::Method;
use crate::state::events::Outcome;
use crate::wire::http1::write;
use crate::worker::timers::OnExpiry;

impl Connection {
    /// Passes on what the pumps bring until they end, the client goes, or the process drains.
    pub(super) async fn pass_merged(&mut self, mut call: Call, mut receiver: mpsc::Receiver<Piece>) -> Flow {
        // The first of them decides whether there is a stream at all.
        let mut next = loop {
            match self.wait_for_piece(&mut receiver).await {
                Wait::Piece(Some(piece)) => break piece,
                Wait::Piece(None) => return self.answer_no_stream(&call).await,
                Wait::Silent => {}
                Wait::Gone => return Flow::Cut,
                Wait::Drain => return Flow::Close,
            }
        };
        write::status_line(&mut self.output, 200);
        super::answer::date(&mut self.output);
        write::field(&mut self.output, "Content-Type", b"text/event-stream");
        write::field(&mut self.output, "Cache-Control", b"no-cache, no-transform");
        if !call.keep_alive {
            write::field(&mut self.output, "Connection", b"close");
        }
        self.begin_events(&mut call);
        self.worker.metrics.response(200);
        let mut merging = Merging::default();
        let flow = loop {
            if let Some(bytes) = merging.passes(call.method, next) {
                self.put_event(&call, &bytes);
            }
            let flow = self.flush().await;
            if flow != Flow::Next {
                break flow;
            }
            next = match self.wait_for_piece(&mut receiver).await {
                Wait::Piece(Some(piece)) => piece,
                Wait::Silent => {
                    self.put_event(&call, b": keep-alive\n\n");
                    Piece::Opened
                }
                Wait::Piece(None) | Wait::Drain => {
                    if let Some(bytes) = &merging.last_response {
                        self.put_event(&call, bytes);
                    }
                    break self.end_events(&call).await;
                }
                Wait::Gone => break Flow::Cut,
            };
        };
        self.finish(&mut call, Outcome::Ok, 200);
        if call.keep_alive { flow } else { flow.then_close() }
    }

    /// No upstream has a stream to offer.
    async fn answer_no_stream(&mut self, call: &Call) -> Flow {
        if call.method == Method::SubscriptionsListen {
            self.answer_rpc(call, 502, -32001, "Upstream error: no upstream has opened a stream");
        } else {
            let fields =
                super::answer::Fields { close: !call.keep_alive, allow: Some("POST, DELETE"), ..Default::default() };
            super::answer::error(&mut self.output, 405, "Method not allowed: no upstream has a stream", fields);
            self.worker.metrics.response(405);
        }
        self.flush().await
    }

    async fn wait_for_piece(&mut self, receiver: &mut mpsc::Receiver<Piece>) -> Wait {
        self.deadline.set(bounds::SSE_KEEP_ALIVE_MS, OnExpiry::Wake);
        let mut receive = pin!(receiver.recv());
        let mut hung_up = pin!(super::relay::hung_up(&self.stream, &mut self.input));
        let mut silent = pin!(self.deadline.expired());
        let mut draining = pin!(self.open.draining());
        poll_fn(|cx| {
            if let Poll::Ready(piece) = receive.as_mut().poll(cx) {
                return Poll::Ready(Wait::Piece(piece));
            }
            if hung_up.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Wait::Gone);
            }
            if draining.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Wait::Drain);
            }
            silent.as_mut().poll(cx).map(|()| Wait::Silent)
        })
        .await
    }
}

enum Wait {
    Piece(Option<Piece>),
    Gone,
    Silent,
    Drain,
}
