//! What workers and the control thread share of sessions: the way of a token request to the control thread, the sessions that are open, and
//! the keys of an outside issuer.
//!
//! A worker never waits for the disk, and a token is given out only once it is on disk. So `/oauth/token` and `/oauth/revoke` are answered by
//! the control thread: the worker hands the request over as it came, and waits for the answer as it waits for an upstream's. The queue is
//! bounded, and so is every request in it; who finds it full is told to come again.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, oneshot};
use zeroize::Zeroizing;

use crate::guard::jwt::issuer::IssuerKeys;
use crate::state::sessions::Sessions;

/// Requests that wait for the control thread, all workers together. With [`MAX_BODY_BYTES`] and a head's bound they hold 2 MiB at most.
const CAPACITY: usize = 64;

/// The longest body of such a request: a JWT of 8 KiB, spelled in percents where a client does that.
pub(crate) const MAX_BODY_BYTES: u64 = 16 * 1024;

/// How long the answer may take. The store syncs a group in milliseconds; a disk that hangs is noticed after five seconds.
pub(crate) const ANSWER_MS: u64 = 10_000;

/// What a token request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// `POST /oauth/token`.
    Token,
    /// `POST /oauth/revoke`.
    Revoke,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `application/json`.
    Json,
}

/// A request as it came.
pub(crate) struct Asked {
    pub(crate) errand: Errand,
    pub(crate) media: Media,
    /// `Authorization`.
    pub(crate) authorization: Option<Zeroizing<Vec<u8>>>,
    pub(crate) body: Zeroizing<Vec<u8>>,
    /// Whose request it is.
    pub(crate) client: IpAddr,
}

/// The answer to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// JSON, or empty.
    pub(crate) body: Zeroizing<Vec<u8>>,
    /// Seconds after which to come again.
    pub(crate) retry_after_s: Option<u64>,
    /// A credential was wrong: why, for the audit trail.
    pub(crate) failed: Option<&'static str>,
}

/// A request on its way, with the place for its answer.
pub(crate) struct Visit {
    pub(crate) asked: Asked,
    pub(crate) answer: oneshot::Sender<Answered>,
}

/// The control thread's end of the queue.
pub(crate) type Visits = mpsc::Receiver<Visit>;

/// As many wait as may wait, or nobody is there to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crowded;

/// The workers' side.
pub(crate) struct Desk {
    visits: mpsc::Sender<Visit>,
    /// The sessions that are open. The control thread publishes.
    pub(crate) sessions: Arc<ArcSwap<Sessions>>,
    /// The outside issuer's keys. The control thread publishes.
    pub(crate) issuer_keys: Arc<ArcSwap<IssuerKeys>>,
    /// Tells the control thread that a token has named a key that is not known.
    pub(crate) keys_wanted: Arc<Notify>,
}

impl Desk {
    pub(crate) fn new() -> (Self, Visits) {
        let (visits, receiver) = mpsc::channel(CAPACITY);
        let desk = Self { visits, sessions: Arc::default(), issuer_keys: Arc::default(), keys_wanted: Arc::default() };
        (desk, receiver)
    }

    /// Hands a request over. The receiver may be dropped; what was asked for is done all the same.
    ///
    /// # Errors
    /// [`Crowded`].
    pub(crate) fn visit(&self, asked: Asked) -> Result<oneshot::Receiver<Answered>, Crowded> {
        let (answer, receiver) = oneshot::channel();
        self.visits.try_send(Visit { asked, answer }).map_err(|_| Crowded)?;
        Ok(receiver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        Asked {
            errand: Errand::Token,
            media: Media::Form,
            authorization: None,
            body: Zeroizing::default(),
            client: IpAddr::from([127, 0, 0, 1]),
        }
    }

    #[test]
    fn who_finds_the_queue_full_is_told_at_once() {
        let (desk, mut visits) = Desk::new();
        let waiting: Vec<_> = (0..CAPACITY).map(|_| desk.visit(asked()).ok()).collect();
        assert!(waiting.iter().all(Option::is_some));
        assert_eq!(desk.visit(asked()).err(), Some(Crowded));
        assert!(visits.try_recv().is_ok());
        assert!(desk.visit(asked()).is_ok(), "there is room again");
        drop(visits);
        assert_eq!(desk.visit(asked()).err(), Some(Crowded), "nobody is there");
    }
}
