//! One server's part of a session with several, opened anew: the server has forgotten it, or was down when the client initialized.
//!
//! The gateway says again what the client said in its `initialize`, in the client's stead, and confirms it as the client did; the client notices
//! nothing, and the other servers are not asked. What the client had set at the forgetful server (subscriptions, its log level) is gone there.
//!
//! At most one attempt for each upstream is under way, whoever asks: all wait for its outcome. It runs in a task of its own, so a client that
//! gives its call up breaks no handshake off. Where it fails, what asked for it fails; the session goes on without that server, and the next
//! message for it tries again.

use std::pin::Pin;
use std::rc::Rc;

use tokio::sync::watch;

use super::Peer;
use super::carry::agreed;
use crate::door::spread::{Reopen, Reopened, SpreadInner};
use crate::rpc::Kind;
use crate::upstream::http::Failure;

/// An attempt that is under way, and by which upstream.
pub(super) type Attempt = (usize, watch::Receiver<Option<Reopened>>);

impl Peer {
    /// The part of the session at an upstream, opened anew where it is still the one that was `lost`, or where there is none.
    pub(super) async fn reopen_at(self: &Rc<Self>, index: usize, lost: Option<&[u8]>) -> Reopened {
        let opening = {
            let session = self.session.borrow();
            let Some(upstream) = self.worker.upstreams.get(index) else { return Reopened::Unknown };
            match session.parts().and_then(|parts| parts.part(upstream.tag)) {
                Some(part) if lost != Some(part) => return Reopened::Part(part.to_vec()),
                _ => {}
            }
            // Sessions with one upstream, and those whose `initialize` was too long to be kept.
            let Some(opening) = session.opening.clone() else { return Reopened::Unknown };
            opening
        };
        let under_way = self.reopening.borrow().iter().find(|(of, _)| *of == index).map(|(_, outcome)| outcome.clone());
        let mut outcome = under_way.unwrap_or_else(|| self.begin_reopening(index, opening));
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Reopened::Unknown),
            // The task has ended without a word: the worker is at its end.
            Err(_) => Reopened::Failed(Failure::ClientGone),
        }
    }

    fn begin_reopening(self: &Rc<Self>, index: usize, opening: Rc<SpreadInner>) -> watch::Receiver<Option<Reopened>> {
        let (say, outcome) = watch::channel(None);
        self.reopening.borrow_mut().push((index, outcome.clone()));
        let peer = self.clone();
        monoio::spawn(async move {
            let reopened = match peer.open_at(index, &opening).await {
                Ok(part) => {
                    peer.join(index, &part);
                    Reopened::Part(part)
                }
                Err(failure) => Reopened::Failed(failure),
            };
            peer.reopening.borrow_mut().retain(|(of, _)| *of != index);
            // Nobody may be waiting any more.
            let _ = say.send(Some(reopened));
        });
        outcome
    }

    /// The handshake with one server. Returns its own session id, empty where it has none.
    async fn open_at(&self, index: usize, opening: &SpreadInner) -> Result<Vec<u8>, Failure> {
        let worker = &self.worker;
        let timeout_ms = worker.upstreams.get(index).map_or(0, |upstream| upstream.call_timeout_ms);
        let asked = opening.ask_once(worker, index, None, &opening.raw, timeout_ms).await?;
        let is_result = {
            let mut scratch = worker.scratch.borrow_mut();
            let parsed = scratch.parser.parse(&asked.response);
            parsed.is_ok_and(|envelope| envelope.kind == Kind::Response && agreed(&envelope, &asked.response).is_some())
        };
        if !is_result {
            return Err(Failure::NoSession);
        }
        let part = asked.session.unwrap_or_default();
        let (version, is_confirmed) = {
            let session = self.session.borrow();
            (session.version(), session.listening)
        };
        if is_confirmed {
            let confirmation = opening.confirmation(version);
            confirmation.ask_once(worker, index, Some(&part), &confirmation.raw, timeout_ms).await?;
        }
        Ok(part)
    }

    /// Makes a server that has opened its part anew a part of the session.
    fn join(self: &Rc<Self>, index: usize, part: &[u8]) {
        let Some(upstream) = self.worker.upstreams.get(index) else { return };
        // The client has given the session up, or begun another, while the handshake was out.
        let is_open = self.session.borrow_mut().join(upstream.tag, part);
        if !is_open {
            return;
        }
        if self.gone.get() {
            self.end_session_at(index);
        } else if self.session.borrow().listening {
            self.listen_to(index);
        }
    }
}

impl Reopen for Peer {
    fn reopen(self: Rc<Self>, index: usize, lost: Option<Vec<u8>>) -> Pin<Box<dyn Future<Output = Reopened>>> {
        Box::pin(async move { self.reopen_at(index, lost.as_deref()).await })
    }
}
