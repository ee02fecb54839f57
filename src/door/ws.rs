//! The WebSocket door: one JSON-RPC message a text frame (RFC 6455), on the bridge port.
//!
//! A connection arrives here once its upgrade has been answered. Who it is may be known from the upgrade's `Authorization` or subprotocol; else
//! its first message says so, as on the TCP door. Fragments, control frames, UTF-8 and sizes are the codec's (`wire::websocket`); what is said
//! at the end, and how many control frames are borne, is decided here.

use std::borrow::Cow;
use std::rc::Rc;

use super::peer::{Arrived, End, Next, Peer, Wire, serve};
use crate::bounds;
use crate::state::lifecycle::Door;
use crate::wire::websocket::{CloseCode, Decoder, Event, Role, write};
use crate::worker::Worker;
use crate::worker::framing::Framing;

/// Serves one client whose upgrade was answered.
pub(super) fn arrive(worker: &Rc<Worker>, arrived: Arrived) {
    serve_frames(worker, JsonRpc, arrived);
}

/// Serves one client whose messages `taker` takes up.
pub(super) fn serve_frames<T: Taker + 'static>(worker: &Rc<Worker>, taker: T, arrived: Arrived) {
    let max_message_bytes = worker.limits.get().max_message_bytes;
    let frames = Frames {
        taker,
        decoder: Decoder::new(Role::Server, max_message_bytes),
        last: None,
        control: Control { since_ms: 0, frames: 0 },
    };
    serve(worker.clone(), Door::Ws, Framing::WebSocketServer, frames, arrived);
}

/// What becomes of a client's messages.
pub(super) trait Taker {
    /// The client's connection stands; called whenever bytes may have come.
    fn look(&mut self, _peer: &Rc<Peer>) {}

    /// Takes up a text message.
    async fn text(&mut self, peer: &Rc<Peer>, message: &[u8], now_ns: u64) -> Next;

    /// Takes up a binary message. `false`: there are none here.
    async fn binary(&mut self, _peer: &Rc<Peer>, _message: &[u8]) -> bool {
        false
    }

    /// The client has closed, or is to be closed, with this code; waits for what is to be said before. `false`: our Close is out already.
    async fn last(&mut self, _code: Option<CloseCode>) -> bool {
        true
    }
}

/// The door's own: a text message is a JSON-RPC message.
struct JsonRpc;

impl Taker for JsonRpc {
    async fn text(&mut self, peer: &Rc<Peer>, message: &[u8], now_ns: u64) -> Next {
        peer.handle(message, now_ns).await
    }
}

/// Messages as frames.
struct Frames<T> {
    taker: T,
    decoder: Decoder,
    /// The Close frame to be sent, where the frames themselves decide it.
    last: Option<Box<Last>>,
    control: Control,
}

/// The code and the reason of a Close frame.
type Last = (Option<CloseCode>, Cow<'static, str>);

/// How many control frames have come of late.
struct Control {
    since_ms: u64,
    frames: u32,
}

impl Control {
    /// Counts one. `false` when there are too many: a client that pings without end costs an answer each and says nothing.
    fn bear(&mut self, now_ms: u64) -> bool {
        if now_ms.saturating_sub(self.since_ms) >= 1_000 {
            *self = Self { since_ms: now_ms, frames: 0 };
        }
        self.frames = self.frames.saturating_add(1);
        self.frames <= bounds::MAX_CONTROL_FRAMES_PER_SECOND
    }
}

impl<T: Taker> Frames<T> {
    fn close(&mut self, code: CloseCode, reason: &'static str) -> End {
        self.last = Some(Box::new((Some(code), reason.into())));
        End::Close
    }

    fn refuse(&mut self, peer: &Peer, code: CloseCode, rule: &'static str, reason: &'static str) -> End {
        peer.note_invalid(rule, format_args!("{reason}"));
        self.close(code, reason)
    }

    /// Takes up every event that is whole.
    async fn take_events(&mut self, peer: &Rc<Peer>, buf: &mut Vec<u8>, now_ns: u64) -> Result<(), End> {
        loop {
            match self.decoder.next_event(buf) {
                Ok(None) => return Ok(()),
                Ok(Some(Event::Text(span))) => match self.taker.text(peer, span.of(buf), now_ns).await {
                    Next::More => {}
                    Next::Close => {
                        return Err(self.close(CloseCode::POLICY_VIOLATION, "Authentication failed"));
                    }
                    Next::TooMany => return Err(self.close(CloseCode::POLICY_VIOLATION, "Rate limit exceeded")),
                },
                Ok(Some(Event::Binary(span))) => {
                    if self.taker.binary(peer, span.of(buf)).await {
                        peer.ready_for_more().await;
                        continue;
                    }
                    let reason = "Binary messages are not supported";
                    return Err(self.refuse(peer, CloseCode::UNSUPPORTED_DATA, "websocket", reason));
                }
                Ok(Some(Event::Ping(span))) => {
                    if !self.control.bear(peer.now_ms()) {
                        let reason = "Too many control frames";
                        return Err(self.refuse(peer, CloseCode::POLICY_VIOLATION, "websocket", reason));
                    }
                    let mut frame = Vec::with_capacity(span.len() as usize + 2);
                    write::pong(&mut frame, span.of(buf), None);
                    peer.outbox().raw(&frame);
                }
                Ok(Some(Event::Pong(_))) => {
                    if !self.control.bear(peer.now_ms()) {
                        let reason = "Too many control frames";
                        return Err(self.refuse(peer, CloseCode::POLICY_VIOLATION, "websocket", reason));
                    }
                }
                Ok(Some(Event::Close { code, .. })) => {
                    // The closing handshake (RFC 6455 §5.5.1): its own code back.
                    self.last = Some(Box::new((code, "".into())));
                    return Err(End::Close);
                }
                Err(fault) => {
                    peer.note_invalid("websocket", format_args!("{fault}"));
                    self.last = Some(Box::new((Some(fault.close_code()), fault.to_string().into())));
                    return Err(End::Close);
                }
            }
            peer.ready_for_more().await;
        }
    }
}

impl<T: Taker> Wire for Frames<T> {
    // An end without a Close frame is an abnormal closure (RFC 6455 §7.1.5).
    const MAY_READ_ON: bool = false;

    async fn take(&mut self, peer: &Rc<Peer>, buf: &mut Vec<u8>, now_ns: u64) -> Result<(), End> {
        self.taker.look(peer);
        let end = self.take_events(peer, buf, now_ns).await;
        if end.is_err()
            && let Some(code) = self.last.as_ref().map(|last| last.0)
            && !self.taker.last(code).await
        {
            self.last = None;
        }
        end
    }

    fn is_inside_message(&self, buf: &[u8]) -> bool {
        self.decoder.in_message() || !buf.is_empty()
    }

    fn goodbye(&mut self, end: End) -> Vec<u8> {
        let (code, reason) = match (end, self.last.take().map(|last| *last)) {
            (_, Some(last)) => last,
            (End::Idle, None) => (Some(CloseCode::GOING_AWAY), "Connection timeout".into()),
            (End::Asked, None) => (Some(CloseCode::POLICY_VIOLATION), "Closed by the gateway".into()),
            (End::Drain, None) => (Some(CloseCode::GOING_AWAY), "Server shutting down".into()),
            (End::Unauthenticated, None) => (Some(CloseCode::POLICY_VIOLATION), "Authentication timeout".into()),
            (End::Slow, None) => (Some(CloseCode::POLICY_VIOLATION), "Message timeout".into()),
            // It has gone without a word.
            (End::Client | End::Close, None) => return Vec::new(),
        };
        let mut frame = Vec::with_capacity(64);
        write::close(&mut frame, code, &reason, None);
        frame
    }

    fn idle_timeout_ms(&self, worker: &Worker) -> u64 {
        worker.limits.get().idle_timeout_ms
    }
}
