//! What a blocked client is told, and how much of its attempts the audit trail hears.
//!
//! Who is blocked is [`crate::state::blocks`]'s business. A blocked client may come back ten thousand times a second, and a line for each would
//! be a way to fill the disk: so [`Repeats`] tells of the first attempt of an address at once, and then, once a second, how many more there
//! were. Of addresses that come at the same time [`TOLD_APART`] are told apart; the rest share one line a second. So each listener of each
//! thread leaves at most twice [`TOLD_APART`] and one line a second, and no attempt goes uncounted.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

use std::net::IpAddr;

use arrayvec::ArrayVec;

use super::Denial;
use crate::state::blocks::view::address_key;
use crate::state::blocks::{BlockKind, Found};

/// Addresses of which attempts are told apart within a second.
pub const TOLD_APART: usize = 64;
/// From one line about an address to the next, milliseconds.
pub const QUIET_MS: u64 = 1_000;

/// How a client is refused whose address is blocked.
#[must_use]
pub fn denial(found: Found, now_ms: u64) -> Denial {
    match found.kind {
        BlockKind::DenyList => Denial::AddressDenied,
        BlockKind::Operator | BlockKind::Abuse => Denial::AddressBlocked,
        BlockKind::Lockout => Denial::LockedOut { retry_after_ms: found.until_ms.saturating_sub(now_ms) },
    }
}

/// Attempts of blocked addresses that a line in the audit trail is due for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts {
    /// Whose; `None`: of many.
    pub ip: Option<IpAddr>,
    /// The rule that refused them.
    pub rule: &'static str,
    /// How many.
    pub count: u64,
}

/// Attempts of late, of one listener.
#[derive(Debug, Default)]
pub struct Repeats {
    known: ArrayVec<Known, TOLD_APART>,
    /// Of addresses that found no place.
    others: u64,
    others_since_ms: u64,
}

#[derive(Debug)]
struct Known {
    key: u128,
    ip: IpAddr,
    rule: &'static str,
    told_ms: u64,
    /// Since then.
    more: u64,
}

impl Repeats {
    /// Notes an attempt. What comes back is to be told now.
    pub fn note(&mut self, ip: IpAddr, rule: &'static str, now_ms: u64) -> Option<Attempts> {
        let key = address_key(ip);
        if let Some(known) = self.known.iter_mut().find(|known| known.key == key && known.rule == rule) {
            known.more = known.more.saturating_add(1);
            return None;
        }
        let known = Known { key, ip, rule, told_ms: now_ms, more: 0 };
        if self.known.try_push(known).is_err() {
            if self.others == 0 {
                self.others_since_ms = now_ms;
            }
            self.others = self.others.saturating_add(1);
            return None;
        }
        Some(Attempts { ip: Some(ip), rule, count: 1 })
    }

    /// What is due to be told at `now_ms`; to be asked until there is nothing. A clock that was set back makes all of it due.
    pub fn due(&mut self, now_ms: u64) -> Option<Attempts> {
        let is_due = |since_ms: u64| now_ms < since_ms || now_ms - since_ms >= QUIET_MS;
        while let Some(at) = self.known.iter().position(|known| is_due(known.told_ms)) {
            let known = self.known.get_mut(at)?;
            if known.more > 0 {
                known.told_ms = now_ms;
                let count = std::mem::take(&mut known.more);
                return Some(Attempts { ip: Some(known.ip), rule: known.rule, count });
            }
            self.known.swap_remove(at);
        }
        let many = self.others > 0 && is_due(self.others_since_ms);
        many.then(|| Attempts { ip: None, rule: "ip-block", count: std::mem::take(&mut self.others) })
    }

    /// Everything that is not told yet, for the end.
    pub fn rest(&mut self) -> impl Iterator<Item = Attempts> + '_ {
        let others = std::mem::take(&mut self.others);
        let many = (others > 0).then_some(Attempts { ip: None, rule: "ip-block", count: others });
        let known = self.known.drain(..).filter(|known| known.more > 0);
        known.map(|known| Attempts { ip: Some(known.ip), rule: known.rule, count: known.more }).chain(many)
    }

    /// Whether nothing was noted of late.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && self.others == 0
    }
}

impl std::fmt::Display for Attempts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.ip, self.count) {
            (Some(_), 1) => f.write_str("BLOCKED"),
            (Some(_), count) => write!(f, "BLOCKED, {count} attempts"),
            (None, count) => write!(f, "BLOCKED, {count} attempts of more addresses than are told apart"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::state::blocks::Earned;

    fn ip(n: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + n).into())
    }

    #[test]
    fn each_kind_is_told_as_the_contract_says() {
        let found = |kind| Found { kind, earned: Earned::Anywhere, until_ms: 5_000 };
        assert_eq!(denial(found(BlockKind::DenyList), 1), Denial::AddressDenied);
        assert_eq!(denial(found(BlockKind::Operator), 1), Denial::AddressBlocked);
        assert_eq!(denial(found(BlockKind::Abuse), 1), Denial::AddressBlocked);
        assert_eq!(denial(found(BlockKind::Lockout), 1), Denial::LockedOut { retry_after_ms: 4_999 });
    }

    #[test]
    fn one_address_leaves_a_line_at_once_and_then_one_a_second() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.note(ip(1), "ip-block", 1_000).unwrap().to_string(), "BLOCKED");
        let (mut lines, mut told) = (1, 1);
        for n in 1..=10_000 {
            let now_ms = 1_000 + n;
            lines += u64::from(repeats.note(ip(1), "ip-block", now_ms).is_some());
            while let Some(due) = repeats.due(now_ms) {
                lines += 1;
                told += due.count;
                assert!(due.to_string().starts_with("BLOCKED, "));
            }
        }
        assert_eq!(lines, 11);
        told += repeats.rest().map(|rest| rest.count).sum::<u64>();
        assert_eq!(told, 10_001);
        assert!(repeats.is_empty());
    }

    #[test]
    fn a_flood_of_addresses_is_counted_and_bounded() {
        let mut repeats = Repeats::default();
        let (mut lines, mut told) = (0, 0);
        for n in 0..300_000_u32 {
            let now_ms = u64::from(n / 100);
            let now = repeats.note(ip(n), "ip-denylist", now_ms);
            let due = std::iter::from_fn(|| repeats.due(now_ms)).collect::<Vec<_>>();
            for attempts in now.into_iter().chain(due) {
                lines += 1;
                told += attempts.count;
            }
        }
        told += repeats.rest().map(|rest| rest.count).sum::<u64>();
        assert_eq!(told, 300_000);
        assert!(lines <= 4 * (2 * TOLD_APART as u64 + 1), "{lines} in three seconds");
    }

    #[test]
    fn who_went_away_makes_room() {
        let mut repeats = Repeats::default();
        assert!((0..64).all(|n| repeats.note(ip(n), "ip-block", 0).is_some()));
        assert_eq!(repeats.note(ip(64), "ip-block", 1), None);
        assert_eq!(repeats.note(ip(0), "ip-block", 1), None);
        assert_eq!(repeats.due(999), None);
        let due: Vec<_> = std::iter::from_fn(|| repeats.due(1_001)).collect();
        assert_eq!(due.iter().map(|due| (due.ip, due.count)).collect::<Vec<_>>(), [(Some(ip(0)), 1), (None, 1)]);
        assert!(repeats.note(ip(64), "ip-block", 1_002).is_some());
        // The clock was set back.
        assert_eq!(repeats.note(ip(64), "ip-block", 5), None);
        assert!(std::iter::from_fn(|| repeats.due(5)).any(|due| due.ip == Some(ip(64))));
    }
}
