//! Streams of several upstreams on their way into one: a session's own stream, and `subscriptions/listen`.
//!
//! Each upstream's stream is read by a task of its own, which hands complete events over a bounded queue: a slow client stops the reading of
//! all its upstreams, and a client that has gone ends them.

use std::pin::pin;
use std::rc::Rc;

use tokio::sync::mpsc;

use super::shown::View;
use crate::rpc::{Envelope, Kind, Method, Parser, splice};
use crate::upstream::brokered::{ChildCall, ChildMessage};
use crate::upstream::http::{HttpUpstream, Limits, body_decoder};
use crate::upstream::route::tag_id;
use crate::upstream::{Outgoing, UpstreamKind};
use crate::wire::http1::response::Content;
use crate::wire::http1::write;
use crate::wire::sse::{Splitter, read_event};
use crate::worker::Worker;

/// What a pump hands over.
pub(crate) enum Piece {
    /// Its upstream has opened the stream.
    Opened,
    /// An event.
    Event(EventPiece),
}

/// One event on its way to the client.
pub(crate) struct EventPiece {
    bytes: Vec<u8>,
    /// It is a `subscriptions/acknowledged`, of which the client gets one.
    acknowledges: bool,
    /// It carries the response that ends a stream.
    ends: bool,
}

/// An upstream by its number, and what the client may be shown of what it says; `None`: all.
pub(crate) type Source = (usize, Option<Rc<View>>);

/// Starts reading one upstream's stream.
pub(crate) fn pump(worker: &Rc<Worker>, source: Source, outgoing: Outgoing, sender: mpsc::Sender<Piece>) {
    let worker = worker.clone();
    monoio::spawn(async move {
        let Some(upstream) = worker.upstreams.get(source.0) else { return };
        match (&upstream.kind, outgoing) {
            (UpstreamKind::Http(http), Outgoing::Http(bytes)) => {
                let http = Rc::clone(http);
                pump_http(&worker, &source, &http, bytes, &sender).await;
            }
            (UpstreamKind::Child(child), Outgoing::Child(call)) => {
                pump_child(&worker, &source, *child, call, &sender).await;
            }
            _ => {}
        }
    });
}

async fn pump_http(
    worker: &Rc<Worker>,
    source: &Source,
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
    answer.release_in_flight();
    if sender.send(Piece::Opened).await.is_err() {
        return;
    }
    let mut splitter = Splitter::new(worker.limits.get().max_held_bytes);
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
            let piece = piece(worker, source, span.of(&decoded));
            decoded.drain(..span.end as usize);
            let Some(piece) = piece else { continue };
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

async fn pump_child(worker: &Rc<Worker>, source: &Source, child: usize, call: ChildCall, sender: &mpsc::Sender<Piece>) {
    let Some(children) = &worker.shared.children else { return };
    let Ok(mut handle) = children.call(child, call) else { return };
    loop {
        match crate::worker::race(handle.recv(), sender.closed()).await {
            Some(Some(ChildMessage::Message { bytes, .. })) => {
                let mut event = [&b"event: message\ndata: "[..], &bytes, b"\n\n"].concat();
                event.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b' ');
                let Some(piece) = piece(worker, source, &event) else { continue };
                if sender.send(piece).await.is_err() {
                    return;
                }
            }
            Some(Some(ChildMessage::Accepted)) => {
                if sender.send(Piece::Opened).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}

/// An event on its way; `None` for one of which nobody knows what the client may be shown.
fn piece(worker: &Worker, (index, view): &Source, event: &[u8]) -> Option<Piece> {
    let index = *index;
    let mut scratch = worker.scratch.borrow_mut();
    let shown = match view {
        Some(view) => view.event(worker, &mut scratch.parser, index, event).ok()?.1,
        None => None,
    };
    let event = shown.as_deref().unwrap_or(event);
    let mut bytes = Vec::with_capacity(event.len() + 32);
    let seen = rewrite_event(&mut scratch.parser, index, event, &mut bytes);
    Some(Piece::Event(EventPiece {
        bytes,
        acknowledges: seen == Some((Kind::Notification, Method::NotificationsSubscriptionsAcknowledged)),
        ends: matches!(seen, Some((Kind::Response | Kind::ErrorResponse, _))),
    }))
}

/// Copies an event of one of several upstreams: the id of a request gets its upstream's number, so does the id that a cancellation names, and so
/// does the event's own id. Says what message it carries.
///
/// The data is read as the client will read it, all its lines joined: a request that is spread over lines is a request all the same.
pub(crate) fn rewrite_event(
    parser: &mut Parser,
    index: usize,
    event: &[u8],
    out: &mut Vec<u8>,
) -> Option<(Kind, Method)> {
    let mut joined = Vec::new();
    let read = read_event(event, &mut joined);
    let message = read.data.and_then(|data| Some((data, parser.parse(data).ok()?)));
    let seen = message.as_ref().map(|(_, envelope)| (envelope.kind, envelope.method));
    let tagged = message.and_then(|(data, envelope)| tag(index, data, &envelope));
    let own_id = read.id.filter(|id| !id.is_empty());
    if tagged.is_none() && own_id.is_none() {
        out.extend_from_slice(event);
        return seen;
    }
    let mut put = |name: &[u8], value: &[u8]| {
        out.extend_from_slice(name);
        out.extend_from_slice(value);
        out.push(b'\n');
    };
    if let Some(name) = read.event {
        put(b"event: ", name);
    }
    if let Some(id) = own_id {
        let mut number = Vec::new();
        write::decimal(&mut number, index as u64);
        number.push(b'/');
        number.extend_from_slice(id);
        put(b"id: ", &number);
    }
    let is_end = |b: &u8| matches!(*b, b'\n' | b'\r');
    for line in event.split(is_end).filter(|line| line.starts_with(b"retry:")) {
        put(line, b"");
    }
    match (&tagged, read.data) {
        (Some(data), _) => put(b"data: ", data),
        (None, Some(data)) => data.split(|b| *b == b'\n').for_each(|line| put(b"data: ", line)),
        (None, None) => {}
    }
    out.push(b'\n');
    seen
}

/// A message of one of several upstreams as its client sees it: the id of a request gets the upstream's number, so does the id that a
/// cancellation names. `None` for a message that has neither.
pub(crate) fn tag(index: usize, message: &[u8], envelope: &Envelope) -> Option<Vec<u8>> {
    let span = match envelope.kind {
        Kind::Request => envelope.id?.span,
        Kind::Notification => envelope.request_id?,
        _ => return None,
    };
    let (mut id, mut out) = (Vec::new(), Vec::with_capacity(message.len() + 16));
    tag_id(index, span.of(message), &mut id);
    splice::splice(message, &[(span, &id)], &mut out).ok()?;
    // JSON may have blanks that end lines here.
    out.iter_mut().filter(|byte| matches!(**byte, b'\r' | b'\n')).for_each(|byte| *byte = b' ');
    Some(out)
}

/// An event id that a client has seen, taken apart: the upstream's number and the id that the upstream gave.
pub(crate) fn split_event_id(id: &[u8]) -> Option<(usize, &[u8])> {
    let slash = memchr::memchr(b'/', id)?;
    let (number, own) = id.split_at_checked(slash)?;
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some((number, own.get(1..)?))
}

/// What has been passed on of several streams.
#[derive(Default)]
pub(crate) struct Merging {
    acknowledged: bool,
    /// The response that ended one of them: the client's stream ends with the last.
    pub(crate) last_response: Option<Vec<u8>>,
}

impl Merging {
    /// The event to be passed on now, if there is one.
    pub(crate) fn passes(&mut self, method: Method, piece: Piece) -> Option<Vec<u8>> {
        let Piece::Event(event) = piece else { return None };
        if method != Method::SubscriptionsListen {
            return Some(event.bytes);
        }
        if event.ends {
            self.last_response = Some(event.bytes);
            return None;
        }
        if event.acknowledges && std::mem::replace(&mut self.acknowledged, true) {
            return None;
        }
        Some(event.bytes)
    }
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
    fn a_request_is_tagged_however_its_event_is_spelled() {
        let tagged = "data: {\"jsonrpc\":\"2.0\",\"id\":\"3:\\\"0:5\\\"\", \"method\":\"ping\"}\n\n";
        for event in [
            "data: {\"jsonrpc\":\"2.0\",\"id\":\"0:5\",\ndata: \"method\":\"ping\"}\n\n",
            "data: {\"jsonrpc\":\"2.0\",\"id\":\"0:5\",\rdata: \"method\":\"ping\"}\r\r",
            "data:{\"jsonrpc\":\"2.0\",\"id\":\"0:5\",\r\ndata:\"method\":\"ping\"}\r\n\r\n",
        ] {
            assert_eq!(rewritten(event).0, tagged, "{event:?}");
        }
        let cancelled = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":5}}\n\n";
        assert!(rewritten(cancelled).0.contains("\"requestId\":\"3:5\""));
    }

    #[test]
    fn everything_else_passes_as_it_is() {
        for event in [
            ": comment\n\n",
            "retry: 500\n\n",
            "id:\ndata:\n\n",
            "data: {\"jsonrpc\":\"2.0\",\"id\":4,\"result\":{}}\n\n",
            "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":1,\"progress\":1}}\r\n\r\n",
            "data: not json\n\n",
        ] {
            assert_eq!(rewritten(event).0, event);
        }
    }
}
