//! Sessions of agents: the token endpoint (RFC 6749), the end of a token (RFC 7009), and an outside issuer's keys.
//!
//! An agent shows its id and its own token (`client_credentials`) and gets an access token, a JWT of minutes, and a refresh token, good for one
//! use. So what agents carry through the day is worth little, and their own token can stay where it is kept. A session is worth as much
//! as the agent's token it was opened with: when that is not valid any more, the session has ended.
//!
//! | file | |
//! |---|---|
//! | [`form`] | what a request says |
//! | [`token`] | what it is granted |
//! | [`book`] | the sessions: opened, renewed, ended; published to workers, written to the store |
//! | [`refresh`] | refresh tokens |
//! | [`jwks`] | the keys of an outside issuer |
//! | [`answer`] | what is answered |
//!
//! Promises
//! - What is answered with 200 is on disk: a session that was opened, a refresh token that took another's place, an end; and its line in the audit
//!   trail with it, where the disk takes it.
//! - What is done has its line in the audit trail: room for it is taken before.
//! - Of two requests with one refresh token at most one is granted. The other, and every later one, ends the session: who has a token that
//!   was used before has a copy of it.
//! - Requests are served beside one another, at most [`AT_ONCE`]; others wait in a bounded queue ([`crate::gateway::desk`]).

mod answer;
mod book;
mod form;
pub mod jwks;
mod refresh;
mod token;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

use self::book::{Book, Rules};
use self::refresh::RefreshKey;
use crate::control::alerts::Alerts;
use crate::control::audit::AuditSignals;
use crate::gateway::desk::{Visit, Visits};
use crate::guard::jwt::own::OwnKey;
use crate::settings::Secret;
use crate::state::events::{Event, EventKind, EventQueue};
use crate::state::sessions::{Session, Sessions, Sid};
use crate::store::{Store, StoreError};

/// Requests that are served at once: each waits for the disk, and those that wait together share a sync.
const AT_ONCE: usize = 256;
/// Uses of sessions are written down at least this often, and four times in what a session may be idle.
const WRITE_USES_EVERY: Duration = Duration::from_secs(60);

/// Neither is done more often than this, whatever the settings say: each looks at all sessions.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
/// What is written down at the end may take this long.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// Asks whose agent's token this is: the agent and the token's SHA-256.
pub(crate) type AgentOf = Box<dyn Fn(&[u8]) -> Option<(Arc<str>, [u8; 32])> + Send + Sync>;
/// Asks whether the token with this hash is this agent's now.
pub(crate) type Holds = Box<dyn Fn(&[u8; 32], &str) -> bool + Send + Sync>;

/// What sessions are made of.
pub(crate) struct OAuthConfig {
    /// Signs access tokens.
    pub(crate) own_key: Arc<OwnKey>,
    /// `JWT_SECRET`.
    pub(crate) secret: Secret,
    /// `JWT_REFRESH_TTL`.
    pub(crate) refresh_ttl: Duration,
    /// `SESSION_TIMEOUT`.
    pub(crate) idle: Duration,
    /// `SESSION_CLEANUP_INTERVAL`.
    pub(crate) clean_every: Duration,
    /// `MAX_CONCURRENT_SESSIONS`.
    pub(crate) max_sessions: u32,
    /// Whose an agent's token is.
    pub(crate) agent_of: AgentOf,
    /// Whether an agent's token is valid.
    pub(crate) holds: Holds,
}

/// Sessions, and the queue in which they are asked for.
pub struct SessionsConfig {
    /// What they are made of.
    pub(crate) rules: OAuthConfig,
    /// Where requests come from.
    pub(crate) visits: Visits,
    /// Where workers find them.
    pub(crate) published: Arc<ArcSwap<Sessions>>,
}

/// Who is told what happens, and when that is.
pub(crate) struct Told {
    /// The audit trail.
    pub(crate) events: Arc<EventQueue>,
    /// People.
    pub(crate) alerts: Alerts,
    /// Milliseconds since the Unix epoch.
    pub(crate) clock: fn() -> u64,
}

/// The sessions, and all that is needed to answer requests.
pub(crate) struct OAuth {
    own_key: Arc<OwnKey>,
    refresh_key: RefreshKey,
    agent_of: AgentOf,
    book: Book,
    told: Told,
    clean_every: Duration,
    write_uses_every: Duration,
}

/// Why an operator's wish to end a session was not fulfilled, or not to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotEnded {
    /// The audit trail has no room; nothing was done.
    Unrecorded,
    /// It has ended, and the disk does not know.
    NotLasting,
}

/// Why sessions cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OAuthError {
    /// The store does not give them.
    #[error("the sessions cannot be read: {0}")]
    Store(#[from] StoreError),
    /// The secret is no key.
    #[error("JWT_SECRET cannot be used as a key")]
    Secret,
}

impl OAuth {
    /// Reads the sessions that were open, and publishes them.
    pub(crate) async fn open(
        config: OAuthConfig,
        store: Store,
        published: Arc<ArcSwap<Sessions>>,
        told: Told,
    ) -> Result<Arc<Self>, OAuthError> {
        let OAuthConfig { own_key, secret, refresh_ttl, idle, clean_every, max_sessions, agent_of, holds } = config;
        let refresh_key = RefreshKey::new(&secret).ok_or(OAuthError::Secret)?;
        let rules = Rules { idle, refresh_ttl, max_sessions: max_sessions as usize, holds };
        let book = Book::open(store, published, rules).await?;
        let write_uses_every = WRITE_USES_EVERY.min(idle / 4).max(LEAST_PAUSE);
        Ok(Arc::new(Self { own_key, refresh_key, agent_of, book, told, clean_every, write_uses_every }))
    }

    /// Answers requests for as long as they come.
    pub(crate) async fn serve(self: Arc<Self>, mut visits: Visits, audit: AuditSignals) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        while let Some(Visit { asked, answer }) = visits.recv().await {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (oauth, audit) = (Arc::clone(&self), audit.clone());
            tokio::spawn(async move {
                let answered = oauth.answer(asked).await;
                if answered.status == 200 {
                    // Where the disk refuses, the line waits in memory, and what was granted holds all the same.
                    audit.on_disk().await;
                }
                // Who does not wait any more needs no answer.
                let _ = answer.send(answered);
                drop(place);
            });
        }
    }

    /// Clears away what has ended, and writes down what is in use, for ever.
    pub(crate) async fn keep_house(self: Arc<Self>) {
        let mut clean = tokio::time::interval(self.clean_every.max(LEAST_PAUSE));
        let mut write_uses = tokio::time::interval(self.write_uses_every);
        // What took long is not made up for.
        clean.set_missed_tick_behavior(MissedTickBehavior::Delay);
        write_uses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = clean.tick() => self.book.clean((self.told.clock)()).await,
                _ = write_uses.tick() => self.book.write_uses().await,
            }
        }
    }

    /// The session of this name, if it is open.
    pub(crate) fn live(&self, sid: &Sid) -> Option<Arc<Session>> {
        self.book.find(sid, (self.told.clock)())
    }

    /// Ends a session because an operator at this address says so. `None`: it was not open.
    pub(crate) async fn end_by_operator(&self, sid: &Sid, from: IpAddr) -> Result<Option<Arc<Session>>, NotEnded> {
        let Some(session) = self.live(sid) else { return Ok(None) };
        let place = self.told.events.reserve().map_err(|_| NotEnded::Unrecorded)?;
        let ended = self.book.end(&session).await;
        // Whoever was faster has recorded it. What was not written is ended all the same.
        if !matches!(ended, Ok(false)) {
            let event = Event::new(EventKind::TokenRevoked, (self.told.clock)()).with_ip(from);
            let event = event.with_agent(&session.agent).with_rule("operator");
            place.commit(event.with_details(format_args!("session ended by an operator: {}", sid.encode())));
        }
        ended.map(|_| Some(session)).map_err(|error| {
            tracing::warn!(%error, "the end of a session cannot be written down yet");
            NotEnded::NotLasting
        })
    }

    /// Writes down what a restart should know. A disk that hangs does not hold the end up.
    pub(crate) async fn close(&self) {
        if tokio::time::timeout(LAST_WRITE, self.book.write_uses()).await.is_err() {
            tracing::warn!("when sessions were last used could not be written down in time");
        }
    }
}

#[cfg(test)]
#[path = "oauth_tests.rs"]
mod tests;
