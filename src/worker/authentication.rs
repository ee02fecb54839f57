//! Who presents a credential, on every door, and how long a connection may stay that was opened with it.
//!
//! A connection that was opened with a token that can end holds a [`Lease`]: it may stay while the token is valid. The worker looks five times
//! a second, and asks a connection whose lease has lapsed to close, which its door does in its own way.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::Worker;
use crate::guard::{Authenticator, Denial, Issued, Principal, Shown};
use crate::state::connections::{CloseReason, ConnectionId};
use crate::state::credentials::TokenEntry;

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
}

impl Lease {
    fn is_same(&self, other: &Self) -> bool {
        let (Self::Token(one), Self::Token(other)) = (self, other);
        Arc::ptr_eq(one, other)
    }

    /// Notes that it is in use.
    fn touch(&self, now_ms: u64) {
        let Self::Token(token) = self;
        token.note_use(now_ms);
    }

    /// Whether a connection may stay.
    fn holds(&self, now_ms: u64) -> bool {
        let Self::Token(token) = self;
        token.is_valid(now_ms)
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
        authenticator.check_token(token, issued).map(|shown| self.admitted(shown))
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
        let now_ms = self.tick_epoch_ms();
        for id in self.leases.lapsed(|lease| lease.holds(now_ms)) {
            // It may be gone by itself. Asked a second time, it has been asked.
            let _ = self.shared.connections.request_close(id, CloseReason::Revoked);
        }
    }
}
