//! Who may not come in: addresses of the deny list, those that operators have blocked, and those that have blocked themselves by guessing
//! credentials or by breaking rate limits again and again.
//!
//! What is asked at every accept and request is an immutable view ([`view::View`]) behind an `arc-swap`, so a look-up takes no lock and sees
//! every change at once, on every thread. Who changes it copies the 256th of it that changes.
//!
//! ## Automatic blocks
//! - [`Blocks::failed`] counts a failed authentication. `MAX_FAILED_ATTEMPTS` of them within [`FAILURE_WINDOW_MS`], without a success between
//!   them, lock the address out for `BLOCK_DURATION`.
//! - [`Blocks::violation`] counts a request or message that a rate limit has refused. [`VIOLATIONS`] within [`VIOLATION_WINDOW_MS`] block the
//!   address for `ABUSE_BLOCK_DURATION`; of those of about a second 20 count. So a burst that runs into a limit blocks nobody, of whatever
//!   size, and who waits as it is told does not come near; who goes on without a pause is there after four or five seconds.
//!
//! An address is itself for IPv4, its /64 for IPv6, of which one client has as many addresses as it likes. A block holds from the moment
//! that the call returns; what else there is to do (writing it down, telling people, closing connections) the control thread does, which
//! `wake` calls.
//!
//! ## Addresses that stand apart
//! Loopback, `ADMIN_IP_ALLOWLIST` and trusted proxies are not one client but many, or the operator. What is done from there at the doors and what
//! is done at the control listeners is counted apart, and blocks there alone: whoever guesses at the bridge, behind a proxy on this host for
//! instance, keeps no operator out of the admin port, and whoever guesses at the admin API keeps no client out. A trusted proxy itself
//! is never blocked at the doors but by an operator: it speaks for others, and names them.
//!
//! ## Bounds
//! [`view::MAX_HOSTS`] blocks of single addresses, [`MAX_OPERATORS`] by operators among and beside them. Where there is no room for an automatic one, the automatic one that ends
//! first goes: whoever would empty the view has to lock out sixty-five thousand addresses, each with its own ten failures, and
//! an operator's block never goes. The counts stand in a table of fixed size ([`super::attempts`]).
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

#[path = "blocks/view.rs"]
pub mod view;

use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use ipnet::IpNet;

pub use self::view::{Block, BlockKind, Earned, Found, Place, View};
use super::attempts::{Attempts, Deed};
use super::networks::{FOR_EVER, Networks};

/// In which failed authentications of one address are counted: 15 minutes.
pub const FAILURE_WINDOW_MS: u64 = 15 * 60_000;
/// So many refusals by a rate limit in [`VIOLATION_WINDOW_MS`] block an address.
pub const VIOLATIONS: u32 = 100;
/// In which refusals by rate limits are counted: a minute.
pub const VIOLATION_WINDOW_MS: u64 = 60_000;
/// Blocks by operators at once.
pub const MAX_OPERATORS: usize = 10_000;

/// What the settings say of blocking.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `MAX_FAILED_ATTEMPTS`.
    pub max_failed: u32,
    /// `BLOCK_DURATION`, milliseconds.
    pub lockout_ms: u64,
    /// `ABUSE_BLOCK_DURATION`, milliseconds; `None`: `AUTO_BLOCK_ENABLED=false`.
    pub abuse_ms: Option<u64>,
    /// `ADMIN_IP_ALLOWLIST`.
    pub operators: Networks,
    /// `TRUSTED_PROXIES`.
    pub proxies: Networks,
    /// `IP_DENYLIST`.
    pub denied: Networks,
}

impl Rules {
    /// Whether the address stands apart: see the module.
    fn stands_apart(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.operators.contains(ip) || self.proxies.contains(ip)
    }
}

/// Who may not come in. Shared by all threads.
pub struct Blocks {
    view: ArcSwap<View>,
    /// See [`Blocks::generation`].
    changes: AtomicU64,
    rules: ArcSwap<Rules>,
    attempts: Attempts,
    /// See [`Blocks::failures`].
    failures: AtomicU64,
    /// Blocks that were made, by kind.
    made: [AtomicU64; BlockKind::ALL.len()],
    refused: AtomicU64,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Blocks {
    /// With what was blocked before. `wake` is called after each change, on the thread that makes it; it must not wait.
    #[must_use]
    pub fn new(rules: Rules, before: impl IntoIterator<Item = Block>, wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self {
            view: ArcSwap::from_pointee(View::new(RandomState::new(), before)),
            changes: AtomicU64::new(1),
            rules: ArcSwap::from_pointee(rules),
            attempts: Attempts::new(RandomState::new()),
            failures: AtomicU64::new(0),
            made: Default::default(),
            refused: AtomicU64::new(0),
            wake,
        }
    }

    /// Puts other settings in force. Blocks that there are stay as they are.
    pub fn set_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
        self.changed();
    }

    /// A number that changes after each change of what is blocked. Who was let in under one number, read before the look-up, need not be looked up again while it stays:
    /// a block that ends lets more in, never fewer.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// What keeps the address out of this place: the deny list, then what operators say, then what it has earned.
    #[must_use]
    pub fn find(&self, ip: IpAddr, place: Place, now_ms: u64) -> Option<Found> {
        let (ip, rules) = (ip.to_canonical(), self.rules.load());
        if rules.denied.contains(ip) {
            return Some(Found { kind: BlockKind::DenyList, earned: Earned::Anywhere, until_ms: FOR_EVER });
        }
        let found = self.view.load().find(ip, now_ms)?;
        let keeps_out = found.kind == BlockKind::Operator || found.earned.at(place) || !rules.stands_apart(ip);
        keeps_out.then_some(found)
    }

    /// Counts an authentication that failed. True: with this one the address is locked out.
    pub fn failed(&self, ip: IpAddr, place: Place, now_ms: u64) -> bool {
        let (ip, rules) = (ip.to_canonical(), self.rules.load());
        if place == Place::Doors && rules.proxies.contains(ip) {
            return false;
        }
        let (deed, earned) = self.deed(&rules, ip, place);
        let reached = self.attempts.reaches(deed, ip, rules.max_failed, FAILURE_WINDOW_MS, now_ms);
        // After it is counted: who reads the new number finds it.
        self.failures.fetch_add(1, Ordering::Release);
        if !reached {
            return false;
        }
        let reason = format!("{} failed authentications", rules.max_failed).into();
        self.block(Block::of_address(ip, BlockKind::Lockout, earned, reason, now_ms, rules.lockout_ms), now_ms);
        true
    }

    /// How many authentications have failed since the start, of all addresses. Whose failures were taken back under one number has none while it stays.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// Takes back what is counted of failed authentications of an address that has shown who it is.
    pub fn succeeded(&self, ip: IpAddr, place: Place) {
        if self.failures() == 0 {
            return;
        }
        let (ip, rules) = (ip.to_canonical(), self.rules.load());
        self.attempts.forget(self.deed(&rules, ip, place).0, ip);
    }

    /// Counts a request or message of a client's address that a rate limit has refused. True: with this one the address is blocked.
    pub fn violation(&self, ip: IpAddr, now_ms: u64) -> bool {
        let (ip, rules) = (ip.to_canonical(), self.rules.load());
        let Some(abuse_ms) = rules.abuse_ms.filter(|_| !rules.proxies.contains(ip)) else { return false };
        if !self.attempts.reaches(Deed::Violation, ip, VIOLATIONS, VIOLATION_WINDOW_MS, now_ms) {
            return false;
        }
        let reason = format!("{VIOLATIONS} refusals by rate limits within a minute").into();
        let earned = if rules.stands_apart(ip) { Earned::AtDoors } else { Earned::Anywhere };
        self.block(Block::of_address(ip, BlockKind::Abuse, earned, reason, now_ms, abuse_ms), now_ms);
        true
    }

    /// What a failure at this place is counted as, and where a lockout for it holds.
    fn deed(&self, rules: &Rules, ip: IpAddr, place: Place) -> (Deed, Earned) {
        match (rules.stands_apart(ip), place) {
            (false, _) => (Deed::Failure, Earned::Anywhere),
            (true, Place::Doors) => (Deed::Failure, Earned::AtDoors),
            (true, Place::Control) => (Deed::FailureAtControl, Earned::AtControl),
        }
    }

    /// Puts a block in force, unless an operator's stands in its place and it is none. Returns whether it is in force.
    pub fn block(&self, block: Block, now_ms: u64) -> bool {
        let block = Arc::new(block);
        let mut taken = false;
        self.view.rcu(|view| {
            let next = view.with(&block, now_ms);
            taken = next.is_some();
            next.unwrap_or_else(|| View::clone(view))
        });
        if taken {
            self.count(block.kind).fetch_add(1, Ordering::Relaxed);
            self.changed();
        }
        taken
    }

    /// Ends the block of exactly this network, and what is counted of its address. Returns what it was; `None`: there was none.
    pub fn lift(&self, network: IpNet) -> Option<Arc<Block>> {
        let before = self.view.rcu(|view| view.without(network).unwrap_or_else(|| View::clone(view)));
        let lifted = before.get(network).cloned();
        if view::is_host(network) {
            for deed in Deed::ALL {
                self.attempts.forget(*deed, network.network());
            }
        }
        if lifted.is_some() {
            self.changed();
        }
        lifted
    }

    /// Takes away what has ended. Returns whether there was any.
    pub fn clear_ended(&self, now_ms: u64) -> bool {
        if !self.view.load().iter().any(|block| block.has_ended(now_ms)) {
            return false;
        }
        self.view.rcu(|view| view.without_ended(now_ms));
        true
    }

    /// What is blocked now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Counts a connection or request of a blocked address that was refused.
    pub fn note_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections and requests of blocked addresses that were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Blocks of a kind that were made since the start.
    #[must_use]
    pub fn made(&self, kind: BlockKind) -> u64 {
        self.count(kind).load(Ordering::Relaxed)
    }

    fn count(&self, kind: BlockKind) -> &AtomicU64 {
        let [operator, lockout, abuse] = &self.made;
        match kind {
            BlockKind::DenyList | BlockKind::Operator => operator,
            BlockKind::Lockout => lockout,
            BlockKind::Abuse => abuse,
        }
    }

    /// After the view: who reads the new number finds the new view.
    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        (self.wake)();
    }
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocks").field("in_force", &self.view.load().len()).finish_non_exhaustive()
    }
}

/// Nobody is blocked.
#[cfg(test)]
pub(crate) fn none() -> Blocks {
    Blocks::new(no_rules(), [], Box::new(|| {}))
}

/// Nothing leads to a block.
#[cfg(test)]
pub(crate) fn no_rules() -> Rules {
    Rules {
        max_failed: u32::MAX,
        lockout_ms: 1,
        abuse_ms: None,
        operators: Networks::default(),
        proxies: Networks::default(),
        denied: Networks::default(),
    }
}

#[cfg(test)]
#[path = "blocks/blocks_tests.rs"]
mod tests;
