//! Who presents a credential, on every door, and how long a connection may stay that was opened with it: a door's or an agent's token by the
//! [`Authenticator`], a JWT by [`crate::guard::jwt`].
//!
//! A JWT is verified once a worker and remembered by its hash. What can change at any moment is asked each time: whether its session still is,
//! and whether the agent's token that the session was opened with still is.
//!
//! A connection that was opened with a token that can end holds a [`Lease`]: it may stay while the token is valid, or its session lives. The
//! worker looks five times a second, and asks a connection whose lease has lapsed to close, which its door does in its own way.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::{Worker, epoch_ms};
use crate::gateway::Snapshot;
use crate::guard::authenticate::bearer;
use crate::guard::jwt::verified::{VerifiedToken, VerifiedTokens};
use crate::guard::jwt::{self, Refusal};
use crate::guard::{Authenticator, Denial, Issued, Principal, Shown};
use crate::settings::secret::sha256;
use crate::state::connections::{CloseReason, ConnectionId};
use crate::state::credentials::TokenEntry;
use crate::state::sessions::Session;

/// Ticks between two looks at the leases: 200 ms. With what closing takes ([`crate::bounds::CLOSE_MS`]) a connection is gone within a second.
pub(super) const LOOK_TICKS: u64 = 4;

/// Who has come in, and what a connection's stay hangs on.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    pub(crate) principal: Principal,
    pub(crate) lease: Option<Lease>,
}

impl From<Principal> for Admitted {
    fn from(principal: Principal) -> Self {
        Self { principal, lease: None }
    }
}

impl From<Shown> for Admitted {
    fn from(shown: Shown) -> Self {
        Self { principal: shown.principal, lease: shown.token.map(Lease::Token) }
    }
}

/// What a connection's stay hangs on.
#[derive(Clone, Debug)]
pub(crate) enum Lease {
    /// An agent's token that was issued.
    Token(Arc<TokenEntry>),
    /// A session of ours.
    Session(Arc<Session>),
    /// An outside issuer's token: milliseconds since the epoch.
    Until(u64),
}

impl Lease {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Token(one), Self::Token(other)) => Arc::ptr_eq(one, other),
            (Self::Session(one), Self::Session(other)) => Arc::ptr_eq(one, other),
            (Self::Until(one), Self::Until(other)) => one == other,
            _ => false,
        }
    }

    /// Notes that it is in use.
    fn touch(&self, now_ms: u64) {
        match self {
            Self::Token(token) => token.note_use(now_ms),
            Self::Session(session) => session.touch(now_ms),
            Self::Until(_) => {}
        }
    }

    /// Whether a connection may stay.
    fn holds(&self, authenticator: &Authenticator, issued: Issued<'_>) -> bool {
        match self {
            Self::Token(token) => token.is_valid(issued.now_ms),
            // It is worth as much as the agent's token it was opened with.
            Self::Session(session) => {
                session.is_live(issued.now_ms) && authenticator.holds(&session.token_sha256, &session.agent, issued)
            }
            Self::Until(until_ms) => issued.now_ms < *until_ms,
        }
    }
}

/// The leases of a worker's connections.
#[derive(Default)]
pub(crate) struct Leases {
    table: Rc<RefCell<HashMap<ConnectionId, Lease>>>,
}

/// A connection's lease; given back on drop.
pub(crate) struct HeldLease {
    table: Rc<RefCell<HashMap<ConnectionId, Lease>>>,
    id: ConnectionId,
    lease: Lease,
}

impl Leases {
    /// Notes what a connection's stay hangs on from now on, in place of what it held.
    pub(crate) fn hold(&self, id: ConnectionId, held: &mut Option<HeldLease>, lease: Option<Lease>) {
        match (&held, lease) {
            (None, None) => {}
            (Some(old), Some(new)) if old.lease.is_same(&new) => {}
            (_, None) => *held = None,
            (_, Some(lease)) => {
                // The old one gives its place back first.
                *held = None;
                self.table.borrow_mut().insert(id, lease.clone());
                *held = Some(HeldLease { table: self.table.clone(), id, lease });
            }
        }
    }

    fn lapsed(&self, holds: impl Fn(&Lease) -> bool) -> Vec<ConnectionId> {
        let table = self.table.borrow();
        table.iter().filter(|(_, lease)| !holds(lease)).map(|(id, _)| *id).collect()
    }
}

impl HeldLease {
    /// Whether it is an agent's token that is valid still, which is noted as in use. What needs a closer look than that is not renewed.
    pub(crate) fn renew(&self, now_ms: u64) -> bool {
        match &self.lease {
            Lease::Token(token) if token.is_valid(now_ms) => {
                token.note_use(now_ms);
                true
            }
            _ => false,
        }
    }

    /// Notes that it is in use.
    pub(crate) fn touch(&self, now_ms: u64) {
        self.lease.touch(now_ms);
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.table.borrow_mut().remove(&self.id);
    }
}

impl Worker {
    /// Who presents this `Authorization` header to a door.
    ///
    /// # Errors
    /// [`Denial`].
    pub(crate) fn check_authorization(
        &self,
        authenticator: &Authenticator,
        authorization: Option<&[u8]>,
    ) -> Result<Admitted, Denial> {
        if let Some(token) = authorization.and_then(bearer).filter(|token| jwt::is_meant(token)) {
            return self.check_token(authenticator, token);
        }
        let tokens = self.shared.credentials.load();
        let issued = Issued { tokens: &tokens, now_ms: self.tick_epoch_ms() };
        authenticator.check(authorization, issued).map(|shown| self.admitted(shown))
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// [`Denial`].
    pub(crate) fn check_token(&self, authenticator: &Authenticator, token: &[u8]) -> Result<Admitted, Denial> {
        let tokens = self.shared.credentials.load();
        let issued = Issued { tokens: &tokens, now_ms: self.tick_epoch_ms() };
        let by_hash = || authenticator.check_token(token, issued).map(|shown| self.admitted(shown));
        if authenticator.is_open() || !jwt::is_meant(token) {
            return by_hash();
        }
        let snapshot = self.snapshot.borrow();
        // What only looks like a JWT may be a door's token, which is any text.
        self.check_jwt(&snapshot, token).or_else(|refusal| by_hash().map_err(|_| Denial::BadJwt(refusal)))
    }

    fn check_jwt(&self, snapshot: &Snapshot, token: &[u8]) -> Result<Admitted, Refusal> {
        if token.len() > jwt::MAX_TOKEN_BYTES {
            return Err(Refusal::Shape);
        }
        // Not the time of the last tick: a token that has just been issued must not lie ahead.
        let now_ms = epoch_ms();
        let keys = self.shared.desk.issuer_keys.load();
        let hash = sha256(token);
        let mut verified = self.verified.borrow_mut();
        let known = match verified.get(&hash, now_ms, keys.generation()) {
            Some(known) => known,
            None => {
                let token = self.verify_jwt(snapshot, token, now_ms)?;
                verified.put(hash, token.clone());
                token
            }
        };
        let lease = match known.session {
            Some(session) => Lease::Session(session),
            None => Lease::Until(known.until_ms),
        };
        let tokens = self.shared.credentials.load();
        if !lease.holds(&snapshot.authenticator, Issued { tokens: &tokens, now_ms }) {
            return Err(Refusal::Session);
        }
        if !snapshot.authenticator.may_come(&known.agent) {
            return Err(Refusal::Agent);
        }
        lease.touch(now_ms);
        Ok(Admitted { principal: Principal::Agent(known.agent), lease: Some(lease) })
    }

    /// Verifies a token that is not remembered.
    fn verify_jwt(&self, snapshot: &Snapshot, token: &[u8], now_ms: u64) -> Result<VerifiedToken, Refusal> {
        if let Some(own) = snapshot.own_key.as_ref().filter(|own| own.is_own(token)) {
            let token = own.verify(token, now_ms)?;
            let sessions = self.shared.desk.sessions.load();
            let session = sessions.get(&token.sid).filter(|session| session.agent == token.agent);
            let session = session.ok_or(Refusal::Session)?.clone();
            return Ok(VerifiedToken { agent: token.agent, until_ms: token.until_ms, session: Some(session), keys: 0 });
        }
        let rules = snapshot.issuer_rules.as_ref().ok_or(Refusal::Algorithm)?;
        let keys = self.shared.desk.issuer_keys.load();
        let token = keys.verify(rules, token, now_ms).inspect_err(|refusal| {
            if *refusal == Refusal::UnknownKey {
                self.shared.desk.keys_wanted.notify_one();
            }
        })?;
        Ok(VerifiedToken { agent: token.agent, until_ms: token.until_ms, session: None, keys: keys.generation() })
    }

    fn admitted(&self, shown: Shown) -> Admitted {
        let admitted = Admitted::from(shown);
        if let Some(lease) = &admitted.lease {
            lease.touch(self.tick_epoch_ms());
        }
        admitted
    }

    /// Asks the connections to close whose leases have lapsed.
    pub(super) fn end_lapsed(&self) {
        let (snapshot, tokens) = (self.snapshot.borrow(), self.shared.credentials.load());
        let issued = Issued { tokens: &tokens, now_ms: self.tick_epoch_ms() };
        for id in self.leases.lapsed(|lease| lease.holds(&snapshot.authenticator, issued)) {
            // It may be gone by itself. Asked a second time, it has been asked.
            let _ = self.shared.connections.request_close(id, CloseReason::Revoked);
        }
    }
}

/// What a worker remembers of JWTs.
pub(super) type Verified = RefCell<VerifiedTokens>;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::state::credentials::TokenId;

    #[test]
    fn only_a_token_that_is_valid_speaks_for_itself() {
        let token = Arc::new(TokenEntry::new(TokenId::new(1, [0; 4]), Arc::from("alpha"), 10_000, 0));
        let (leases, mut held, id) = (Leases::default(), None, "1f00002a".parse().unwrap());
        leases.hold(id, &mut held, Some(Lease::Token(token.clone())));
        assert!(held.as_ref().unwrap().renew(9_999));
        assert_eq!(token.last_used_ms(), 9_999, "its use is noted");
        assert!(!held.as_ref().unwrap().renew(10_000), "its time is over");
        token.end_at(0);
        assert!(!held.as_ref().unwrap().renew(1), "it was revoked");
        // Whether a session still is depends on more than the lease.
        leases.hold(id, &mut held, Some(Lease::Until(10_000)));
        assert!(!held.as_ref().unwrap().renew(1));
    }
}
