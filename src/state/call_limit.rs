//! How many calls one upstream may have in flight (`max_in_flight`): one number for the whole process, whatever they travel over.
//!
//! Every call takes a [`CallPermit`] before anything of it is sent, and whoever holds the permit gives it back by dropping it: there is no other
//! way to count one. Workers and the children thread meet here and nowhere else on a call's way, so what it costs is one compare-and-swap and
//! one subtraction, on cache lines of its own.
//!
//! Promises: never one permit more than the limit, whatever the threads do; a permit is refused only while all are held; all that were taken are
//! given back. It does not queue: who is refused is told so.

use std::ops::Deref;

use super::sync::{AtomicU64, Ordering};

/// The calls of one upstream. Alone on its cache lines (two, for the prefetcher's pairs).
#[derive(Debug)]
#[repr(align(128))]
pub struct CallLimit {
    held: AtomicU64,
    limit: u64,
}

/// One call in flight; given back on drop. `H` keeps the limit alive, and may cost nothing: a borrow, an `Rc` of what holds it, an `Arc`.
#[derive(Debug)]
pub struct CallPermit<H: Deref<Target: AsRef<CallLimit>>>(H);

impl CallLimit {
    /// At most `limit` calls at a time, none of them yet.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { held: AtomicU64::new(0), limit }
    }

    /// Takes a permit, or `None` while all are held.
    #[must_use]
    pub fn try_take<H: Deref<Target: AsRef<CallLimit>>>(holder: H) -> Option<CallPermit<H>> {
        let this: &CallLimit = (*holder).as_ref();
        // Raised only while it is below the limit: at no moment is it above, and nobody is refused for another's attempt.
        let raise = |held: u64| (held < this.limit).then(|| held + 1);
        this.held.fetch_update(Ordering::Acquire, Ordering::Relaxed, raise).ok()?;
        Some(CallPermit(holder))
    }

    /// Permits that are held now.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}

impl AsRef<CallLimit> for CallLimit {
    fn as_ref(&self) -> &CallLimit {
        self
    }
}

impl<H: Deref<Target: AsRef<CallLimit>>> Drop for CallPermit<H> {
    fn drop(&mut self) {
        let limit: &CallLimit = (*self.0).as_ref();
        limit.held.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
#[path = "call_limit_tests.rs"]
mod tests;
