//! The book of sessions: which are open, in memory for workers and on disk for the next start.
//!
//! Memory decides what is counted and what is live; the store decides which refresh token is the newest, in one transaction with its replacement,
//! so that two requests with one token cannot both be granted. An end is told to workers at once, by the session's own flag, and answered when
//! it is on disk. An end that the disk did not take is tried again until it does: a session must not come back with a restart.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::Holds;
use crate::state::sessions::{Session, Sessions, Sid};
use crate::store::sessions::{Renewed, SessionRow};
use crate::store::{Store, StoreError};

/// Sessions that are open at once, all agents together: some 40 MiB.
pub(super) const MAX_OPEN: usize = 100_000;
/// Sessions of one write.
const AT_ONCE: usize = 512;

/// What sessions live by.
pub(super) struct Rules {
    /// Without use for this long a session ends.
    pub(super) idle: Duration,
    /// The life of a refresh token.
    pub(super) refresh_ttl: Duration,
    /// Of one agent at once.
    pub(super) max_sessions: usize,
    /// Whether the agent's token that a session was opened with is valid.
    pub(super) holds: Holds,
}

/// Why no session is opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotOpened {
    /// The agent has as many as it may have.
    TooMany,
    /// There are as many as there may be.
    Full,
    /// The store's.
    Store(StoreError),
}

/// What became of a refresh token that was shown.
#[derive(Debug)]
pub(super) enum Turn {
    /// Another has taken its place.
    Renewed(Arc<Session>),
    /// It was used before: the session has ended with this.
    Reused(Arc<Session>),
    /// Its session has ended.
    Ended,
}

/// A session in the book.
struct Entry {
    session: Arc<Session>,
    /// Its last use as the store knows it, milliseconds since the epoch.
    written_ms: u64,
}

#[derive(Default)]
struct Pages {
    by_agent: HashMap<Arc<str>, Vec<Entry>>,
    len: usize,
    /// Ended, and perhaps still in the store.
    unwritten_ends: HashSet<Sid>,
}

/// The book.
pub(super) struct Book {
    store: Store,
    published: Arc<ArcSwap<Sessions>>,
    rules: Rules,
    /// Held for moments, never while the store is waited for.
    pages: Mutex<Pages>,
}

impl Book {
    /// With the sessions of the store.
    pub(super) async fn open(
        store: Store,
        published: Arc<ArcSwap<Sessions>>,
        rules: Rules,
    ) -> Result<Self, StoreError> {
        let rows = store.sessions().await?;
        let mut pages = Pages::default();
        let mut sessions = Vec::with_capacity(rows.len());
        for row in rows {
            let written_ms = row.last_used_ms;
            let session = Arc::new(Session::new(
                row.sid,
                Arc::from(row.agent),
                row.token_sha256,
                millis(rules.idle),
                row.expires_ms,
                written_ms,
            ));
            pages.enter(Entry { session: Arc::clone(&session), written_ms });
            sessions.push(session);
        }
        let book = Self { store, published, rules, pages: Mutex::new(pages) };
        book.publish(|view| view.extend(sessions));
        Ok(book)
    }

    /// Opens a session. It is on disk, and known to all workers, when this returns it.
    pub(super) async fn begin(
        &self,
        sid: Sid,
        agent: Arc<str>,
        token_sha256: [u8; 32],
        refresh_sha256: [u8; 32],
        now_ms: u64,
    ) -> Result<Arc<Session>, NotOpened> {
        let expires_ms = now_ms.saturating_add(millis(self.rules.refresh_ttl));
        let session = Arc::new(Session::new(sid, agent, token_sha256, millis(self.rules.idle), expires_ms, now_ms));
        {
            // Its place is taken before the store is waited for: who comes meanwhile finds it counted.
            let mut pages = self.pages.lock().await;
            let own = pages.by_agent.get(&session.agent).map_or(&[][..], Vec::as_slice);
            if own.iter().filter(|entry| self.is_live(&entry.session, now_ms)).count() >= self.rules.max_sessions {
                return Err(NotOpened::TooMany);
            }
            if pages.len >= MAX_OPEN {
                return Err(NotOpened::Full);
            }
            pages.enter(Entry { session: Arc::clone(&session), written_ms: now_ms });
        }
        let row = SessionRow {
            sid,
            agent: session.agent.to_string(),
            token_sha256,
            refresh_sha256,
            opened_ms: now_ms,
            last_used_ms: now_ms,
            expires_ms,
        };
        if let Err(error) = self.store.open_session(row).await {
            session.end();
            let mut pages = self.pages.lock().await;
            pages.leave(&session);
            // It may have been written all the same, with nobody left to say so.
            pages.unwritten_ends.insert(sid);
            return Err(NotOpened::Store(error));
        }
        self.publish(|view| view.extend([Arc::clone(&session)]));
        Ok(session)
    }

    /// Puts another refresh token in the place of this one.
    pub(super) async fn renew(
        &self,
        sid: &Sid,
        old_sha256: [u8; 32],
        new_sha256: [u8; 32],
        now_ms: u64,
    ) -> Result<Turn, StoreError> {
        let Some(session) = self.find(sid, now_ms) else { return Ok(Turn::Ended) };
        let expires_ms = now_ms.saturating_add(millis(self.rules.refresh_ttl));
        match self.store.renew_session(*sid, old_sha256, new_sha256, expires_ms, now_ms).await? {
            Renewed::Done => {
                session.touch(now_ms);
                session.extend(expires_ms);
                // It may have ended while the disk was waited for.
                Ok(if self.is_live(&session, now_ms) { Turn::Renewed(session) } else { Turn::Ended })
            }
            // The store has taken it out in the same transaction.
            Renewed::Reused => {
                self.forget(&[Arc::clone(&session)]).await;
                Ok(Turn::Reused(session))
            }
            Renewed::Ended => {
                self.forget(&[session]).await;
                Ok(Turn::Ended)
            }
        }
    }

    /// The session of this name, if it is live.
    pub(super) fn find(&self, sid: &Sid, now_ms: u64) -> Option<Arc<Session>> {
        self.published.load().get(sid).filter(|session| self.is_live(session, now_ms)).cloned()
    }

    /// Ends a session: for workers at once, for good when this returns. `false`: it had ended already.
    pub(super) async fn end(&self, session: &Arc<Session>) -> Result<bool, StoreError> {
        let is_first = self.forget(&[Arc::clone(session)]).await;
        self.write_ends().await?;
        Ok(is_first)
    }

    /// Takes out what has ended by itself, and tells the store.
    pub(super) async fn clean(&self, now_ms: u64) {
        let view = self.published.load_full();
        let over: Vec<_> = view.iter().filter(|session| !self.is_live(session, now_ms)).cloned().collect();
        self.forget(&over).await;
        if let Err(error) = self.write_ends().await {
            tracing::warn!(%error, "sessions that have ended cannot be taken out of the store; trying again");
        }
    }

    /// Writes down when sessions were last used, where the store does not know.
    pub(super) async fn write_uses(&self) {
        let mut uses = Vec::new();
        {
            let mut pages = self.pages.lock().await;
            for entry in pages.by_agent.values_mut().flatten() {
                let used_ms = entry.session.last_used_ms();
                if used_ms > entry.written_ms {
                    entry.written_ms = used_ms;
                    uses.push((entry.session.sid, used_ms));
                }
            }
        }
        for part in uses.chunks(AT_ONCE) {
            if let Err(error) = self.store.touch_sessions(part.to_vec()).await {
                // At the next time they are written again, if they are used again: a use that is forgotten shortens a session, no more.
                tracing::warn!(%error, "the use of sessions cannot be written down");
                return;
            }
        }
    }

    fn is_live(&self, session: &Session, now_ms: u64) -> bool {
        session.is_live(now_ms) && (self.rules.holds)(&session.token_sha256, &session.agent)
    }

    /// Ends sessions in memory and notes that the store must hear of it. Whether any of them had not ended before.
    async fn forget(&self, sessions: &[Arc<Session>]) -> bool {
        if sessions.is_empty() {
            return false;
        }
        let mut is_first = false;
        let mut pages = self.pages.lock().await;
        for session in sessions {
            is_first |= session.end();
            if pages.leave(session) {
                pages.unwritten_ends.insert(session.sid);
            }
        }
        self.publish(|view| view.remove(sessions.iter().map(|session| &session.sid)));
        is_first
    }

    /// Takes what has ended out of the store.
    async fn write_ends(&self) -> Result<(), StoreError> {
        let ends: Vec<Sid> = self.pages.lock().await.unwritten_ends.iter().copied().collect();
        for part in ends.chunks(AT_ONCE) {
            self.store.end_sessions(part.to_vec()).await?;
            let mut pages = self.pages.lock().await;
            for sid in part {
                pages.unwritten_ends.remove(sid);
            }
        }
        Ok(())
    }

    /// Only the control thread does this, and never while it waits for anything: no change is lost.
    fn publish(&self, change: impl FnOnce(&mut Sessions)) {
        let mut view = Sessions::clone(&self.published.load());
        change(&mut view);
        self.published.store(Arc::new(view));
    }
}

impl Pages {
    fn enter(&mut self, entry: Entry) {
        self.by_agent.entry(Arc::clone(&entry.session.agent)).or_default().push(entry);
        self.len += 1;
    }

    /// Takes a session out. `false`: it was not there.
    fn leave(&mut self, session: &Arc<Session>) -> bool {
        let Some(own) = self.by_agent.get_mut(&session.agent) else { return false };
        let Some(at) = own.iter().position(|entry| Arc::ptr_eq(&entry.session, session)) else { return false };
        own.swap_remove(at);
        if own.is_empty() {
            self.by_agent.remove(&session.agent);
        }
        self.len -= 1;
        true
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
