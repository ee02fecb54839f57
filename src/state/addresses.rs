//! The resolved addresses of an upstream host: written by the control plane, read by every worker.
//!
//! Workers never resolve a name. An empty list means that the name has not been resolved yet, or never could be; once
//! there is an answer, a failed look-up keeps the last one.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// Where one upstream can be reached, newest resolution. Cheap to read from any thread.
#[derive(Debug)]
pub struct Addresses {
    current: ArcSwap<Vec<SocketAddr>>,
}

impl Addresses {
    /// Starts with what is known already: literal addresses, or nothing.
    #[must_use]
    pub fn new(initial: Vec<SocketAddr>) -> Self {
        Self { current: ArcSwap::from_pointee(initial) }
    }

    /// The addresses to try, in the resolver's order. Empty: not resolved yet.
    #[must_use]
    pub fn load(&self) -> arc_swap::Guard<Arc<Vec<SocketAddr>>> {
        self.current.load()
    }

    /// The first address, which is the one a worker tries first.
    #[must_use]
    pub fn first(&self) -> Option<SocketAddr> {
        self.current.load().first().copied()
    }

    /// Publishes a new resolution. Returns whether the set changed; the order alone is no change, so that a resolver that
    /// rotates its answers does not disturb pools. An empty resolution is ignored: the last good one stays.
    pub fn publish(&self, fresh: Vec<SocketAddr>) -> bool {
        if fresh.is_empty() {
            return false;
        }
        let mut sorted = fresh.clone();
        let mut before = self.current.load().as_ref().clone();
        sorted.sort_unstable();
        before.sort_unstable();
        if sorted == before {
            return false;
        }
        self.current.store(Arc::new(fresh));
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn publishes_changes_and_keeps_the_last_good_answer() {
        let (a, b): (SocketAddr, SocketAddr) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.2:1".parse().unwrap());
        let addresses = Addresses::new(Vec::new());
        assert_eq!(addresses.first(), None);
        assert!(addresses.publish(vec![a, b]));
        assert!(!addresses.publish(vec![b, a]), "a rotated answer is no change");
        assert_eq!(addresses.first(), Some(a));
        assert!(!addresses.publish(Vec::new()), "a failed look-up changes nothing");
        assert_eq!(addresses.load().len(), 2);
        assert!(addresses.publish(vec![b]));
        assert_eq!(addresses.first(), Some(b));
    }
}
