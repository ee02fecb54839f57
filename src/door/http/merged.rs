//! Streams of several upstreams passed on as one: a session's GET stream, and `subscriptions/listen`.
//!
//! Each upstream's stream is read by a task of its own, which hands complete events over a bounded queue: a slow client stops the reading of
//! all its upstreams, and a client that has gone ends them.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use tokio::sync::mpsc;

use super::plan::Call;
use super::{Connection, Flow};
use crate::bounds;
use crate::rpc::{Kind, Method, Parser, splice};
use crate::state::events::Outcome;
use crate::upstream::http::{HttpUpstream, Limits, body_decoder};
use crate::upstream::route::tag_id;
use crate::upstream::stdio::{ChildCall, ChildMessage};
use crate::upstream::{Outgoing, UpstreamKind};
use crate::wire::http1::response::Content;
use crate::wire::http1::write;
use crate::wire::sse::Splitter;
use crate::worker::Worker;
use crate::worker::timers::OnExpiry;

/// One event on its way to the client.
pub(super) struct Piece {
    bytes: Vec<u8>,
    /// It is a `subscriptions/acknowledged`, of which the client gets one.
    acknowledges: bool,
    /// It carries the response that ends a stream.
    ends: bool,
}

/// Starts reading one upstream's stream.
pub(super) fn pump(worker: &Rc<Worker>, index: usize, outgoing: Outgoing, sender: mpsc::Sender<Piece>) {
    let worker = worker.clone();
    monoio::spawn(async move {
        let Some(upstream) = worker.upstreams.get(index) else { return };
        match (&upstream.kind, outgoing) {
            (UpstreamKind::Http(http), Outgoing::Http(bytes)) => {
                let http = Rc::clone(http);
                pump_http(&worker, index, &http, bytes, &sender).await;
            }
            (UpstreamKind::Child(child), Outgoing::Child(call)) => {
                pump_child(&worker, index, *child, call, &sender).await;
            }
            _ => {}
        }
    });
}

async fn pump_http(
    worker: &Rc<Worker>,
    index: usize,
    http: &HttpUpstream,
    bytes: Vec<u8>,
    sender: &mpsc::Sender<Piece>,
) {
    let limits = Limits { head_ms: None };
    let (answer, _) = http.exchange(worker, bytes, &limits, sender.closed(), |_, _| {}).await;
    let Ok(mut answer) = answer else { return };
    if answer.head.status != 200 || answer.head.content != Content::EventStream {
        return;
    }
    let Ok(mut decoder) = body_decoder(answer.head.framing) else { return };
    let mut splitter = Splitter::new(bounds::MAX_HELD_ANSWER_BYTES);
    let mut decoded = Vec::new();
    answer.connection.buf.drain(..answer.body_at);
    loop {
        let mut at = 0;
        while !decoder.is_done() {
            let input = answer.connection.buf.get(at..).unwrap_or_default();
            let Ok(step) = decoder.decode(input) else { return };
            decoded.extend_from_slice(step.data.of(input));
            at += step.consumed;
            if step.consumed == 0 {
                break;
            }
        }
        answer.connection.buf.drain(..at);
        loop {
            let Ok(next) = splitter.next_event(&decoded) else { return };
            let Some(span) = next else { break };
            let piece = piece(worker, index, span.of(&decoded));
            decoded.drain(..span.end as usize);
            if sender.send(piece).await.is_err() {
                return;
            }
        }
        if decoder.is_done() {
            return;
        }
        let read = answer.connection.read_watched(pin!(sender.closed())).await;
        if !matches!(read, Ok(n) if n > 0) {
            return;
        }
    }
}

async fn pump_child(worker: &Rc<Worker>, index: usize, child: usize, call: ChildCall, sender: &mpsc::Sender<Piece>) {
    let Some(children) = &worker.shared.children else { return };
    let Ok(mut handle) = children.call(child, call) else { return };
    loop {
        match crate::worker::race(handle.recv(), sender.closed()).await {
            Some(Some(ChildMessage::Message { bytes, .. })) => {
                let mut event = [&b"event: message\ndata: "[..], &bytes, b"\n\n"].concat();
                event.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b' ');
                if sender.send(piece(worker, index, &event)).await.is_err() {
                    return;
                }
            }
            Some(Some(ChildMessage::Accepted)) => {}
            _ => return,
        }
    }
}

fn piece(worker: &Worker, index: usize, event: &[u8]) -> Piece {
    let mut scratch = worker.scratch.borrow_mut();
    let mut bytes = Vec::with_capacity(event.len() + 32);
    let seen = rewrite_event(&mut scratch.parser, index, event, &mut bytes);
    Piece {
        bytes,
        acknowledges: seen == Some((Kind::Notification, Method::NotificationsSubscriptionsAcknowledged)),
        ends: matches!(seen, Some((Kind::Response | Kind::ErrorResponse, _))),
    }
}

/// Copies an event of one of several upstreams: the id of a request gets its upstream's number, and so does the event's own id. Says
/// what message it carries.
pub(super) fn rewrite_event(
    parser: &mut Parser,
    index: usize,
    event: &[u8],
    out: &mut Vec<u8>,
) -> Option<(Kind, Method)> {
    let mut seen = None;
    for line in event.split_inclusive(|b| *b == b'\n') {
        let value = |field: &[u8]| {
            let value = line.strip_prefix(field)?;
            let value = value.strip_prefix(b" ").unwrap_or(value);
            let value = value.strip_suffix(b"\n").unwrap_or(value);
            Some(value.strip_suffix(b"\r").unwrap_or(value))
        };
        if let Some(id) = value(b"id:").filter(|id| !id.is_empty()) {
            out.extend_from_slice(b"id: ");
            write::decimal(out, index as u64);
            out.push(b'/');
            out.extend_from_slice(id);
            out.push(b'\n');
            continue;
        }
        let message = value(b"data:").and_then(|data| Some((data, parser.parse(data).ok()?)));
        let Some((data, envelope)) = message else {
            out.extend_from_slice(line);
            continue;
        };
        seen = Some((envelope.kind, envelope.method));
        match (envelope.kind, envelope.id) {
            (Kind::Request, Some(id)) => {
                let mut tagged = Vec::new();
                tag_id(index, id.span.of(data), &mut tagged);
                out.extend_from_slice(b"data: ");
                let start = out.len();
                if splice::splice(data, &[(id.span, &tagged)], out).is_err() {
                    out.truncate(start);
                    out.extend_from_slice(data);
                }
                out.push(b'\n');
            }
            _ => out.extend_from_slice(line),
        }
    }
    seen
}

/// An event id that a client has seen, taken apart: the upstream's number and the id that the upstream gave.
pub(super) fn split_event_id(id: &[u8]) -> Option<(usize, &[u8])> {
    let slash = memchr::memchr(b'/', id)?;
    let (number, own) = id.split_at_checked(slash)?;
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some((number, own.get(1..)?))
}

impl Connection {
    /// Passes on what the pumps bring until they end, the client goes, or the process drains.
    pub(super) async fn pass_merged(&mut self, mut call: Call, mut receiver: mpsc::Receiver<Piece>) -> Flow {
        write::status_line(&mut self.output, 200);
        super::answer::date(&mut self.output);
        write::field(&mut self.output, "Content-Type", b"text/event-stream");
        write::field(&mut self.output, "Cache-Control", b"no-cache, no-transform");
        if !call.keep_alive {
            write::field(&mut self.output, "Connection", b"close");
        }
        self.begin_events(&mut call);
        self.worker.metrics.response(200);
        let mut acknowledged = false;
        let mut last_response = None;
        let flow = loop {
            let flow = self.flush().await;
            if flow != Flow::Next {
                break flow;
            }
            match self.wait_for_piece(&mut receiver).await {
                Wait::Piece(Some(piece)) => {
                    if piece.acknowledges && std::mem::replace(&mut acknowledged, true) {
                        continue;
                    }
                    if piece.ends && call.method == Method::SubscriptionsListen {
                        // One upstream's stream has ended; the client's ends with the last of them.
                        last_response = Some(piece.bytes);
                        continue;
                    }
                    self.put_event(&call, &piece.bytes);
                }
                Wait::Piece(None) | Wait::Drain => {
                    if let Some(bytes) = &last_response {
                        self.put_event(&call, bytes);
                    }
                    break self.end_events(&call).await;
                }
                Wait::Silent => self.put_event(&call, b": keep-alive\n\n"),
                Wait::Gone => break Flow::Cut,
            }
        };
        self.finish(&mut call, Outcome::Ok, 200);
        if call.keep_alive { flow } else { flow.then_close() }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(event: &str) -> (String, Option<(Kind, Method)>) {
        let mut out = Vec::new();
        let seen = rewrite_event(&mut Parser::new(64), 3, event.as_bytes(), &mut out);
        (String::from_utf8_lossy(&out).into_owned(), seen)
    }

    #[test]
    fn a_servers_request_is_tagged_with_its_upstream() {
        let (out, seen) = rewritten("id: a7\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"ping\"}\n\n");
        assert_eq!(out, "id: 3/a7\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"3:\\\"x\\\"\",\"method\":\"ping\"}\n\n");
        assert_eq!(seen, Some((Kind::Request, Method::Ping)));
        assert_eq!(split_event_id(b"3/a7"), Some((3, &b"a7"[..])));
        assert_eq!(split_event_id(b"a7"), None);
    }

    #[test]
    fn everything_else_passes_as_it_is() {
        for event in [
            ": comment\n\n",
            "retry: 500\n\n",
            "id:\ndata:\n\n",
            "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":1,\"progress\":1}}\r\n\r\n",
            "data: not json\n\n",
        ] {
            assert_eq!(rewritten(event).0, event);
        }
    }
}
