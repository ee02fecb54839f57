//! Blocked clients at the listeners of the control plane: refused before a byte of theirs is read, and put out where they are in already.
//!
//! Who is blocked is the doors' question as well ([`crate::state::blocks`]); what differs here is who stands apart. A refused client gets its
//! answer and is closed in good order, a few at once; in a flood the rest is closed without a word.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use super::http::problem_text;
use crate::guard::Denial;
use crate::guard::blocks::{Attempts, Repeats, denial};
use crate::guard::denial::Tell;
use crate::state::blocks::{Blocks, Place};
use crate::state::events::{Event, EventKind, EventQueue};

/// Refused connections of one listener that are being closed in good order.
const MAX_LINGERING: usize = 16;
/// The longest that takes.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of such a connection that are thrown away before it is closed.
const LINGER_BYTES: usize = 64 * 1024;

/// How a listener writes its refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `{"error": TEXT}`, as the doors do.
    Plain,
    /// Problem details (RFC 9457).
    Problem,
}

/// Who asks for one listener whether its clients are blocked.
#[derive(Clone)]
pub(crate) struct Gatekeeper {
    pub(crate) blocks: Arc<Blocks>,
    /// Marked as changed after each change of who is blocked.
    pub(crate) changed: watch::Receiver<()>,
    pub(crate) events: Arc<EventQueue>,
    pub(crate) clock: fn() -> u64,
    pub(crate) form: Form,
}

impl Gatekeeper {
    /// Why this client may not come in now.
    pub(crate) fn keeps_out(&self, client: IpAddr) -> Option<Denial> {
        let now_ms = (self.clock)();
        let found = self.blocks.find(client, Place::Control, now_ms)?;
        Some(denial(found, now_ms))
    }

    /// Waits until the client's address is blocked. Safe to drop.
    pub(crate) async fn blocked(mut self, client: IpAddr) {
        while self.keeps_out(client).is_none() {
            if self.changed.changed().await.is_err() {
                // Nobody is left who could block.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The refusals of one listener.
pub(crate) struct Refusals {
    keeper: Gatekeeper,
    repeats: Repeats,
    places: Arc<Semaphore>,
}

impl Refusals {
    pub(crate) fn new(keeper: Gatekeeper) -> Self {
        Self { keeper, repeats: Repeats::default(), places: Arc::new(Semaphore::new(MAX_LINGERING)) }
    }

    /// Why this client may not come in now.
    pub(crate) fn keeps_out(&self, client: IpAddr) -> Option<Denial> {
        self.keeper.keeps_out(client)
    }

    /// Refuses a connection of a blocked client: counted, recorded once a second at most, told where there is room for it.
    pub(crate) fn refuse(&mut self, stream: TcpStream, peer: SocketAddr, denial: &Denial) {
        let client = peer.ip().to_canonical();
        self.keeper.blocks.note_refused();
        self.record_due();
        if let Some(attempts) = self.repeats.note(client, denial.rule(), (self.keeper.clock)()) {
            self.record(attempts);
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let answer = refusal(denial, self.keeper.form);
        tokio::spawn(async move {
            let _ = tokio::time::timeout(LINGER, say(stream, &answer)).await;
            drop(place);
        });
    }

    /// Whether something is to be recorded later.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.repeats.is_empty()
    }

    /// Records attempts that are due.
    pub(crate) fn record_due(&mut self) {
        while let Some(attempts) = self.repeats.due((self.keeper.clock)()) {
            self.record(attempts);
        }
    }

    fn record(&self, attempts: Attempts) {
        let event = Event::new(EventKind::BlockedConnection, (self.keeper.clock)()).with_rule(attempts.rule);
        let event = attempts.ip.into_iter().fold(event, Event::with_ip);
        // A full queue counts what it refuses.
        let _ = self.keeper.events.push(event.with_details(format_args!("{attempts}")));
    }
}

/// Says it, ends our side and waits for the other: closing a socket that holds unread bytes would destroy what was said.
async fn say(mut stream: TcpStream, answer: &str) {
    if stream.write_all(answer.as_bytes()).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    let (mut discarded, mut buf) = (0, [0; 1024]);
    while discarded < LINGER_BYTES {
        match stream.read(&mut buf).await {
            Ok(read @ 1..) => discarded += read,
            _ => return,
        }
    }
}

/// A whole answer, without a request having been read.
fn refusal(denial: &Denial, form: Form) -> String {
    let (status, reason) = match denial.tell() {
        Tell::Http(429) => (429, "Too Many Requests"),
        _ => (403, "Forbidden"),
    };
    let (media, body) = match form {
        Form::Plain => ("application/json", format!("{{\"error\":\"{}\"}}", denial.text())),
        Form::Problem => {
            let code = if status == 429 { "locked_out" } else { "blocked" };
            ("application/problem+json", problem_text(status, code, &denial.text()))
        }
    };
    let retry = denial.retry_after_s().map_or_else(String::new, |seconds| format!("Retry-After: {seconds}\r\n"));
    let length = body.len();
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {media}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\n{retry}\
         Connection: close\r\n\r\n{body}"
    )
}
