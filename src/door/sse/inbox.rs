//! From the worker where a message was posted to the worker that holds the stream of its session.
//!
//! A worker has one inbox, bounded, made at start. Whoever is posted to hands a message in and waits for the verdict; the worker's own
//! messages go the same way, so that there is one order of them.

use std::rc::Rc;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::session::SessionId;
use crate::state::lifecycle::CallInFlight;
use crate::worker::Worker;

/// A message that was posted for a session.
pub(crate) struct Posted {
    pub(crate) session: SessionId,
    /// [`Principal::tag`](crate::guard::Principal::tag) of who has posted it.
    pub(crate) principal: [u8; 16],
    pub(crate) message: Vec<u8>,
    /// Draining waits until it has been taken up.
    pub(crate) in_flight: CallInFlight,
}

/// What becomes of a posted message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handed {
    /// The session takes it up after those before it.
    Taken,
    /// There is no such session, or it is another's.
    Unknown,
    /// Too many wait.
    Full,
}

/// One worker's end of its inbox.
pub(crate) type Inbox = mpsc::Receiver<Handing>;

/// A message on its way between two workers.
pub(crate) struct Handing {
    posted: Posted,
    verdict: oneshot::Sender<Handed>,
}

/// The ways to all workers' inboxes.
pub(crate) struct Inboxes {
    senders: Vec<mpsc::Sender<Handing>>,
}

impl Inboxes {
    /// For so many workers, `capacity` messages each.
    pub(crate) fn new(workers: usize, capacity: usize) -> (Self, Vec<Inbox>) {
        let (senders, receivers) = (0..workers).map(|_| mpsc::channel(capacity)).unzip();
        (Self { senders }, receivers)
    }

    /// Hands a message to the worker of its session.
    pub(crate) async fn hand(&self, posted: Posted) -> Handed {
        let Some(sender) = self.senders.get(posted.session.worker()) else { return Handed::Unknown };
        let (verdict, handed) = oneshot::channel();
        match sender.try_send(Handing { posted, verdict }) {
            // A worker that ends takes its inbox with it: its sessions are over.
            Ok(()) => handed.await.unwrap_or(Handed::Unknown),
            Err(TrySendError::Full(_)) => Handed::Full,
            Err(TrySendError::Closed(_)) => Handed::Unknown,
        }
    }
}

/// Hands what comes into the inbox to the worker's sessions, for as long as the worker runs.
pub(crate) async fn deliver(worker: Rc<Worker>, mut inbox: Inbox) {
    while let Some(Handing { posted, verdict }) = inbox.recv().await {
        let (now_ns, now_ms) = (worker.now_ns(), worker.timers.now_ms());
        // The client may have gone; its message was posted all the same.
        let _ = verdict.send(worker.sse.take(posted, now_ns, now_ms));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::state::lifecycle::Lifecycle;

    fn posted(worker: u16) -> Posted {
        let lifecycle = Arc::new(Lifecycle::new(1, Vec::new()));
        Posted {
            session: SessionId::of(worker, 0, [7; 16]),
            principal: [1; 16],
            message: b"{}".to_vec(),
            in_flight: lifecycle.begin_call(0),
        }
    }

    fn poll(hand: std::pin::Pin<&mut impl Future<Output = Handed>>) -> Poll<Handed> {
        hand.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_an_inbox_cannot_hold_is_refused_and_not_waited_for() {
        let (inboxes, mut receivers) = Inboxes::new(2, 1);
        let mut first = std::pin::pin!(inboxes.hand(posted(1)));
        assert_eq!(poll(first.as_mut()), Poll::Pending);
        let mut second = std::pin::pin!(inboxes.hand(posted(1)));
        assert_eq!(poll(second.as_mut()), Poll::Ready(Handed::Full));
        let mut elsewhere = std::pin::pin!(inboxes.hand(posted(2)));
        assert_eq!(poll(elsewhere.as_mut()), Poll::Ready(Handed::Unknown), "no such worker");
        let handing = receivers.get_mut(1).unwrap().try_recv().unwrap();
        handing.verdict.send(Handed::Taken).unwrap();
        assert_eq!(poll(first.as_mut()), Poll::Ready(Handed::Taken));
        let mut last = std::pin::pin!(inboxes.hand(posted(0)));
        assert_eq!(poll(last.as_mut()), Poll::Pending);
        receivers.clear();
        assert_eq!(poll(last.as_mut()), Poll::Ready(Handed::Unknown), "the worker has ended");
    }
}
