//! The control plane's side of agents' tokens: issuing, rotating, revoking, and writing down when they were last used.
//!
//! Promises
//! - A token is given out, and a revocation confirmed, only when it is on disk. Then it holds at once, on every worker: what workers look at is
//!   changed before the answer ([`crate::state::credentials`]).
//! - Each change has its line in the audit trail: its place there is taken before anything is done.
//! - A change that was begun is brought to its end, whether or not anybody still waits for its answer.
//! - Where the store cannot write, a revocation holds all the same for as long as the process lives, and its answer says that it is not
//!   lasting.
//!
//! The token itself exists in one answer and nowhere else; what is kept is its SHA-256.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::settings::secret::sha256;
use crate::state::credentials::{Credentials, TokenEntry, TokenId};
use crate::state::events::{Event, EventKind, EventQueue, Reservation};
use crate::store::tokens::{Issued, NewToken, Replacement, Revoked, Rotated, Token};
use crate::store::{Store, StoreError};

/// What a token begins with, so that scanners for secrets recognize it.
pub const PREFIX: &str = "rw_agent_";
/// Valid tokens at once, of all agents. Some 200 bytes each in memory: 50 MB.
pub const MAX_TOKENS: usize = 250_000;
/// How often it is written down when tokens were last used.
const WRITE_DOWN_EVERY: Duration = Duration::from_secs(60);
/// Tokens of one such write: what a change that comes behind it waits for.
const WRITE_DOWN_AT_ONCE: usize = 1_000;
/// What is written down at the end may take this long.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// Why there is no token, or no change of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The store says no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There are as many as there may be.
    #[error("there are as many valid tokens as there may be")]
    TooMany,
    /// There is none of this name.
    #[error("there is no such token")]
    Unknown,
    /// It is not valid any more, or was rotated before.
    #[error("the token has ended, or was rotated before")]
    Ended,
    /// The audit trail has no room.
    #[error("the audit trail has no room")]
    Unrecorded,
    /// The system gives no random bytes.
    #[error("no random bytes from the system")]
    NoRandomness,
}

/// A token that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// For this agent.
    pub agent: String,
    /// What it is for, in an operator's words.
    pub label: String,
    /// How long it is valid; `None`: until it is revoked.
    pub lifetime: Option<Duration>,
}

/// A token that was just made: the only time that it can be seen.
pub struct Fresh {
    /// What the agent is to show.
    pub secret: Zeroizing<String>,
    /// What is known of it.
    pub token: Token,
}

/// All that changes tokens. Cheap to clone.
#[derive(Clone)]
pub struct Tokens {
    store: Store,
    view: Arc<ArcSwap<Credentials>>,
    events: Arc<EventQueue>,
    clock: fn() -> u64,
}

/// The tokens that are valid, for the start. Blocks the thread.
///
/// # Errors
/// The store's.
pub fn load(store: &Store, now_ms: u64) -> Result<Credentials, StoreError> {
    // Tokens of one agent share its name.
    let mut agents: HashSet<Arc<str>> = HashSet::new();
    store.fold_valid_tokens(now_ms, Credentials::default(), move |all, token| {
        let agent = agents.get(token.agent).cloned().unwrap_or_else(|| {
            let agent: Arc<str> = token.agent.into();
            agents.insert(Arc::clone(&agent));
            agent
        });
        let end_ms = token.expires_ms.unwrap_or(u64::MAX);
        let entry = TokenEntry::new(token.id, agent, end_ms, token.last_used_ms.unwrap_or(0));
        all.insert(token.sha256, Arc::new(entry));
    })
}

impl Tokens {
    /// `view` is what workers look at; `clock` is in milliseconds since the Unix epoch.
    #[must_use]
    pub fn new(store: Store, view: Arc<ArcSwap<Credentials>>, events: Arc<EventQueue>, clock: fn() -> u64) -> Self {
        Self { store, view, events, clock }
    }

    /// Makes a token. `from` is the operator's address.
    ///
    /// # Errors
    /// [`TokenError`]; then there is none.
    pub async fn issue(&self, wanted: Wanted, from: IpAddr) -> Result<Fresh, TokenError> {
        let place = self.place()?;
        if self.view.load().len() >= MAX_TOKENS {
            return Err(TokenError::TooMany);
        }
        let (now_ms, secret) = ((self.clock)(), secret()?);
        let Wanted { agent, label, lifetime } = wanted;
        let (id, hash) = (new_id(now_ms)?, sha256(secret.as_bytes()));
        let expires_ms = lifetime.map(|lifetime| now_ms.saturating_add(millis(lifetime)));
        let new = NewToken { id, sha256: hash, agent, label, issued_ms: now_ms, expires_ms };
        let this = self.clone();
        to_the_end(async move {
            match this.store.issue_token(new.clone()).await? {
                Issued::TooMany => return Err(TokenError::TooMany),
                Issued::Done => {}
            }
            let NewToken { id, sha256, agent, label, issued_ms, expires_ms } = new;
            let (revoked_ms, last_used_ms, replaced_by) = (None, None, None);
            let token =
                Token { id, sha256, agent, label, issued_ms, expires_ms, revoked_ms, last_used_ms, replaced_by };
            this.publish(&token);
            let event = Event::new(EventKind::TokenIssued, now_ms).with_agent(&token.agent).with_rule("operator");
            place.commit(event.with_details(format_args!("token {id}, from {from}")));
            Ok(Fresh { secret, token })
        })
        .await
    }

    /// Makes a token that takes another's place; that one stays valid for `grace`, unless it ends before. The new one's life is the old one's
    /// as it was meant, unless `lifetime` says otherwise.
    ///
    /// # Errors
    /// [`TokenError`]; then all is as it was.
    pub async fn rotate(
        &self,
        id: TokenId,
        grace: Duration,
        lifetime: Option<Duration>,
        from: IpAddr,
    ) -> Result<(Fresh, Token), TokenError> {
        let place = self.place()?;
        let (now_ms, secret) = ((self.clock)(), secret()?);
        let by = Replacement {
            id: new_id(now_ms)?,
            sha256: sha256(secret.as_bytes()),
            issued_ms: now_ms,
            lifetime_ms: lifetime.map(millis),
            grace_until_ms: now_ms.saturating_add(millis(grace)),
        };
        let this = self.clone();
        to_the_end(async move {
            let (old, token) = match this.store.rotate_token(id, by).await? {
                Rotated::Done(both) => *both,
                Rotated::Unknown => return Err(TokenError::Unknown),
                Rotated::Ended => return Err(TokenError::Ended),
            };
            this.publish(&token);
            if let (Some(entry), Some(end_ms)) = (this.view.load().get(&old.sha256), old.expires_ms) {
                entry.end_at(end_ms);
            }
            let event = Event::new(EventKind::TokenIssued, now_ms).with_agent(&token.agent).with_rule("operator");
            place.commit(event.with_details(format_args!("token {}, in place of {id}, from {from}", token.id)));
            Ok((Fresh { secret, token }, old))
        })
        .await
    }

    /// Revokes a token. A second time changes nothing.
    ///
    /// # Errors
    /// [`TokenError`]. With [`TokenError::Store`] it is refused from now on, and not lastingly so.
    pub async fn revoke(&self, id: TokenId, from: IpAddr) -> Result<Token, TokenError> {
        let place = self.place();
        let (this, now_ms) = (self.clone(), (self.clock)());
        to_the_end(async move {
            let revoked = this.store.revoke_token(id, now_ms).await;
            let Revoked { token, first } = match revoked {
                Ok(revoked) => revoked.ok_or(TokenError::Unknown)?,
                Err(error) => {
                    // Refusing it in memory needs no disk. There is no index by name: this is rare.
                    this.view.load().iter().filter(|(_, entry)| entry.id == id).for_each(|(_, entry)| entry.end_at(0));
                    return Err(error.into());
                }
            };
            if let Some(entry) = this.view.load().get(&token.sha256) {
                entry.end_at(0);
            }
            let event = Event::new(EventKind::TokenRevoked, now_ms).with_agent(&token.agent).with_rule("operator");
            let event = event.with_details(format_args!("token {id}, from {from}"));
            match place {
                Ok(place) if first => place.commit(event),
                // A revocation is not put off until the trail has room; that it is missing there, the queue counts.
                Err(_) if first => drop(this.events.push(event)),
                _ => {}
            }
            Ok(token)
        })
        .await
    }

    /// When a token was last used: what was written down, or what workers know.
    #[must_use]
    pub fn last_used_ms(&self, token: &Token) -> Option<u64> {
        let known = self.view.load().get(&token.sha256).map(|entry| entry.last_used_ms()).filter(|at_ms| *at_ms > 0);
        known.max(token.last_used_ms)
    }

    /// Whether this is the hash of an agent's token that is valid.
    #[must_use]
    pub fn is_agents(&self, sha256: &[u8; 32]) -> bool {
        self.view.load().token(sha256, (self.clock)()).is_some()
    }

    /// Writes down what workers have noted, and clears away what has ended; for ever.
    pub(super) async fn keep(self) {
        loop {
            tokio::time::sleep(WRITE_DOWN_EVERY).await;
            self.write_down_uses().await;
            let now_ms = (self.clock)();
            self.view.rcu(|view| view.without_ended(now_ms));
            if let Err(error) = self.store.forget_tokens(now_ms).await {
                tracing::debug!(%error, "tokens that ended long ago are cleared away later");
            }
        }
    }

    /// [`Tokens::write_down_uses`] for the end of the process.
    pub(super) async fn write_down_last(&self) {
        if tokio::time::timeout(LAST_WRITE, self.write_down_uses()).await.is_err() {
            tracing::warn!("when tokens were last used could not be written down");
        }
    }

    /// Writes down when tokens were last used. What cannot be written is tried the next time.
    async fn write_down_uses(&self) {
        let view = self.view.load_full();
        let used: Vec<_> = view.iter().filter_map(|(_, entry)| Some((entry, entry.unstored_use()?))).collect();
        for part in used.chunks(WRITE_DOWN_AT_ONCE) {
            let rows = part.iter().map(|(entry, at_ms)| (entry.id, *at_ms)).collect();
            if let Err(error) = self.store.note_tokens_used(rows).await {
                return tracing::debug!(%error, "when tokens were last used is written down later");
            }
            part.iter().for_each(|(entry, at_ms)| entry.note_stored(*at_ms));
        }
    }

    fn publish(&self, token: &Token) {
        let end_ms = token.expires_ms.unwrap_or(u64::MAX);
        let entry = Arc::new(TokenEntry::new(token.id, token.agent.as_str().into(), end_ms, 0));
        self.view.rcu(|view| view.with(token.sha256, Arc::clone(&entry)));
    }

    fn place(&self) -> Result<Reservation, TokenError> {
        self.events.reserve().map_err(|_| TokenError::Unrecorded)
    }
}

/// Runs a change in a task of its own: who has asked may go away in the middle of it.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, TokenError>> + Send + 'static,
) -> Result<T, TokenError> {
    tokio::spawn(change).await.unwrap_or(Err(TokenError::Store(StoreError::Stopped)))
}

/// 32 random bytes as an agent shows them.
fn secret() -> Result<Zeroizing<String>, TokenError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut bytes[..]).map_err(|_| TokenError::NoRandomness)?;
    // Room for all of it, so that it is never moved and left behind.
    let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 48));
    text.push_str(PREFIX);
    URL_SAFE_NO_PAD.encode_string(&bytes[..], &mut text);
    Ok(text)
}

fn new_id(now_ms: u64) -> Result<TokenId, TokenError> {
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|_| TokenError::NoRandomness)?;
    Ok(TokenId::new(now_ms, random))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
