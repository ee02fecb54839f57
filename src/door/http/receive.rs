//! Receiving one request: head, gate, body.

use std::ops::Range;

use super::answer::{self, Fields};
use super::gate::{Early, Route};
use super::{Connection, Flow, Request};
use crate::bounds;
use crate::state::events::EventKind;
use crate::state::lifecycle::Door;
use crate::wire::http1::body::{BodyDecoder, Framing};
use crate::wire::http1::request::{Body, Method, RequestHead, parse_request};
use crate::wire::http1::{Progress, Reject, Version};
use crate::worker::timers::OnExpiry;

/// What the head says that outlives it.
struct Opening {
    head: Range<usize>,
    body: Body,
    keep_alive: bool,
    expect_continue: bool,
    version: Version,
    is_head: bool,
}

impl Connection {
    /// Receives the next request whole. `Err` says how the connection ends; whatever had to be answered has been.
    pub(super) async fn receive(&mut self) -> Result<Request, Flow> {
        loop {
            let opening = self.receive_head().await?;
            let started_ns = self.worker.now_ns();
            let admitted = {
                let worker = self.worker.clone();
                let scratch = worker.scratch.borrow();
                self.gate(&scratch.request, opening.head.clone())
            };
            let (route, principal) = match admitted {
                Ok(admitted) => admitted,
                Err(early) => {
                    self.refuse_early(&opening, &early).await?;
                    continue;
                }
            };
            let is_call = matches!(route, Route::Post | Route::Message | Route::OAuth(_));
            let in_flight = is_call.then(|| self.worker.shared.lifecycle.begin_call(self.worker.index));
            let max_bytes = self.worker.limits.get().max_request_bytes;
            let max_bytes = match route {
                Route::OAuth(_) => max_bytes.min(crate::gateway::desk::MAX_BODY_BYTES),
                _ => max_bytes,
            };
            let placed = match self.receive_body(&opening, max_bytes).await {
                Ok(placed) => placed,
                Err(BodyEnd::Reject(reject)) => return Err(self.reject(reject, opening.is_head).await),
                Err(BodyEnd::Flow(flow)) => return Err(flow),
            };
            // The client has done its part; what follows takes its own time.
            self.deadline.clear();
            return Ok(Request {
                head: placed.head,
                body: placed.body,
                end: placed.end,
                route,
                principal,
                keep_alive: opening.keep_alive && !self.is_ending(),
                _in_flight: in_flight,
                version: opening.version,
                is_head: opening.is_head,
                head_is_parsed: !placed.waited,
                started_ns,
            });
        }
    }

    async fn receive_head(&mut self) -> Result<Opening, Flow> {
        let limits = self.worker.limits.get();
        self.client = self.peer.ip();
        let mut seen = 0;
        let mut begun = false;
        loop {
            match self.parse_head(&mut seen) {
                Ok(Some(opening)) => {
                    self.open.set_idle(false);
                    return Ok(opening);
                }
                Ok(None) => {}
                Err(reject) => return Err(self.reject(reject, false).await),
            }
            if seen == 0 {
                if self.is_ending() {
                    return Err(Flow::Close);
                }
                self.open.set_idle(true);
                // What a long answer took is given back; an idle connection keeps one small buffer.
                if self.output.capacity() > bounds::READ_BUFFER_BYTES {
                    self.output = Vec::new();
                }
                if self.input.capacity() > bounds::READ_BUFFER_BYTES {
                    self.input = Vec::new();
                }
            } else if !begun {
                begun = true;
                self.open.set_idle(false);
                self.deadline.set(limits.header_timeout_ms, OnExpiry::EndReading);
            }
            self.compact();
            let read = if seen == 0 { self.read_first(limits.idle_timeout_ms).await } else { self.read_more().await };
            match read {
                Some(0) | None if self.deadline.has_expired() => return Err(self.too_slow(seen > 0, false).await),
                Some(0) | None => return Err(Flow::Cut),
                Some(_) => {}
            }
        }
    }

    /// Looks for a head in what has arrived. `seen` is how much of it was looked at before.
    fn parse_head(&self, seen: &mut usize) -> Result<Option<Opening>, Reject> {
        let unread = self.input.get(self.at..).unwrap_or_default();
        if unread.len() <= *seen {
            return Ok(None);
        }
        self.worker.expect_request(self.client);
        let mut scratch = self.worker.scratch.borrow_mut();
        match parse_request(unread, *seen, &mut scratch.request)? {
            Progress::Complete => Ok(Some(self.opening(&scratch.request))),
            Progress::Partial => {
                *seen = unread.len();
                Ok(None)
            }
        }
    }

    fn opening(&self, head: &RequestHead) -> Opening {
        Opening {
            head: self.at..self.at + head.len as usize,
            body: head.body,
            keep_alive: head.keep_alive,
            expect_continue: head.expect_continue,
            version: head.version,
            is_head: head.method == Method::Head,
        }
    }

    /// Drops what lies before the request in hand. Returns by how much everything moved down.
    fn compact(&mut self) -> usize {
        let by = self.at.min(self.input.len());
        self.input.drain(..by);
        self.at = 0;
        by
    }

    /// Waits for the first bytes of a request, at most `idle_ms`. A connection that stays quiet waits for them without its buffer.
    async fn read_first(&mut self, idle_ms: u64) -> Option<usize> {
        let quiet_ms = idle_ms.min(bounds::QUIET_MS);
        self.deadline.set(quiet_ms, OnExpiry::Wake);
        let mut input = std::mem::take(&mut self.input);
        input.reserve(bounds::READ_BUFFER_BYTES);
        let (result, input) = self.stream.read_until(input, self.deadline.expired()).await;
        let result = match result {
            Some(result) => {
                self.input = input;
                result
            }
            None => {
                drop(input);
                self.output = Vec::new();
                self.remembered = None;
                self.deadline.set(idle_ms.saturating_sub(quiet_ms), OnExpiry::EndReading);
                let (result, input) = self.stream.read(Vec::with_capacity(bounds::PROBE_BYTES)).await;
                self.input = input;
                self.input.reserve(bounds::READ_BUFFER_BYTES);
                result
            }
        };
        let n = result.ok()?;
        self.note_received(n);
        Some(n)
    }

    /// Reads once. `None` is an error of the transport.
    async fn read_more(&mut self) -> Option<usize> {
        let mut input = std::mem::take(&mut self.input);
        if input.capacity() - input.len() < bounds::READ_BUFFER_BYTES / 4 {
            let more = input.len().clamp(bounds::READ_BUFFER_BYTES, 1 << 20);
            input.reserve(more);
        }
        let (result, input) = self.stream.read(input).await;
        self.input = input;
        let n = result.ok()?;
        self.note_received(n);
        Some(n)
    }

    fn note_received(&self, n: usize) {
        self.worker.metrics.door(Door::Http).bytes_in.add(n as u64);
        self.entry.received(0, n as u64);
        self.entry.touch(self.worker.tick_epoch_ms());
    }

    async fn receive_body(&mut self, opening: &Opening, max_bytes: u64) -> Result<Placed, BodyEnd> {
        let mut head = opening.head.clone();
        let limits = self.worker.limits.get();
        let framing = match opening.body {
            Body::None | Body::Length(0) => {
                return Ok(Placed { body: head.end..head.end, end: head.end, head, waited: false });
            }
            Body::Length(n) => Framing::Length(n),
            Body::Chunked => Framing::Chunked,
        };
        let mut decoder = BodyDecoder::new(framing, max_bytes).map_err(reject)?;
        // Decoded bytes are moved down to follow the head without a gap, up to `end`; `raw` is what is not decoded yet.
        let (mut end, mut raw) = (head.end, head.end);
        let mut waited = false;
        loop {
            while !decoder.is_done() {
                let step = decoder.decode(self.input.get(raw..).unwrap_or_default()).map_err(reject)?;
                let data = raw + step.data.start as usize..raw + step.data.end as usize;
                let len = data.len();
                if data.start != end && len > 0 {
                    self.input.copy_within(data, end);
                }
                end += len;
                raw += step.consumed;
                if step.consumed == 0 {
                    break;
                }
            }
            if decoder.is_done() {
                return Ok(Placed { body: head.end..end, end: raw, head, waited });
            }
            if !waited {
                waited = true;
                let moved = self.compact();
                head = head.start - moved..head.end - moved;
                (end, raw) = (end - moved, raw - moved);
                if opening.expect_continue {
                    self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    if self.flush().await != Flow::Next {
                        return Err(BodyEnd::Flow(Flow::Cut));
                    }
                }
                self.deadline.set(limits.body_timeout_ms, OnExpiry::EndReading);
            }
            // What the chunks' framing took is given back, so that the buffer holds the body and no more.
            self.input.drain(end..raw);
            raw = end;
            match self.read_more().await {
                Some(0) | None if self.deadline.has_expired() => {
                    return Err(BodyEnd::Flow(self.too_slow(true, opening.is_head).await));
                }
                Some(0) | None => return Err(BodyEnd::Flow(Flow::Cut)),
                Some(_) => {}
            }
        }
    }

    /// Answers a request that breaks HTTP, after which nothing on this connection can be trusted.
    async fn reject(&mut self, reject: Reject, is_head: bool) -> Flow {
        self.worker.metrics.refusals.inc("http");
        if reject.status == 413 {
            self.worker.metrics.limit(crate::observe::metrics::Limit::RequestSize);
        }
        let event = self.event(EventKind::InvalidInput).with_rule("http");
        self.record(event.with_details(format_args!("{}", reject.reason)));
        answer::error(&mut self.output, reject.status, reject.reason, Fields { close: true, ..Fields::default() });
        if is_head {
            answer::cut_body(&mut self.output);
        }
        self.worker.metrics.response(reject.status);
        self.flush().await.then_close()
    }

    /// Answers what the gate refused. The connection survives if the body is here already and can be skipped.
    async fn refuse_early(&mut self, opening: &Opening, early: &Early) -> Result<(), Flow> {
        let body_len = match opening.body {
            Body::None => Some(0),
            Body::Length(n) => usize::try_from(n).ok(),
            Body::Chunked => None,
        };
        let end = body_len.and_then(|n| opening.head.end.checked_add(n)).filter(|end| *end <= self.input.len());
        // Over a proxy's connection others come as well.
        let is_blocked = early.is_of_address() && self.client == self.peer.ip();
        let close = end.is_none() || !opening.keep_alive || is_blocked;
        self.write_early(early, close);
        if opening.is_head {
            answer::cut_body(&mut self.output);
        }
        match (self.flush().await, end) {
            (Flow::Next, Some(end)) if !close => {
                self.at = end;
                Ok(())
            }
            (Flow::Next, _) => Err(Flow::Close),
            (flow, _) => Err(flow),
        }
    }

    /// A client that did not send in time. Between requests it is only idle; inside one it is told.
    async fn too_slow(&mut self, inside: bool, is_head: bool) -> Flow {
        let event = self.event(EventKind::ConnectionTimeout);
        if !inside {
            self.record(event.with_details(format_args!("idle")));
            return Flow::Close;
        }
        self.record(event.with_details(format_args!("the request did not come in time")));
        let fields = Fields { close: true, ..Fields::default() };
        answer::error(&mut self.output, 408, "Request timeout: send the whole request at once", fields);
        if is_head {
            answer::cut_body(&mut self.output);
        }
        self.worker.metrics.response(408);
        self.flush().await.then_close()
    }
}

/// Where a received request stands in the input.
struct Placed {
    head: Range<usize>,
    body: Range<usize>,
    end: usize,
    waited: bool,
}

enum BodyEnd {
    Reject(Reject),
    Flow(Flow),
}

fn reject(error: crate::wire::http1::body::BodyError) -> BodyEnd {
    BodyEnd::Reject(error.into())
}
