//! The sessions of agents: what workers ask of a session token, and what they note of its use.
//!
//! A [`Session`] is shared by whoever holds it: the control thread, which opens and ends it, and workers, which remember the tokens they have
//! verified. That it has ended is a flag in it, so it ends everywhere at once, whatever is remembered. The view of all of them
//! ([`Sessions`]) is immutable; the control thread publishes a new one for each change ([`super::shards`]).
//!
//! A session is idle when it has not been used for its timeout; whoever looks finds it ended then, whether it was cleared away or not. Two
//! clocks meet here, a tick apart: a use is noted in the worker's time of its last tick.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::shards::{ShardKey, Shards};

/// A session's name: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Sid([u8; 16]);

impl Sid {
    /// From its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// As it stands in tokens: base64url.
    #[must_use]
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// From how it stands in tokens.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        let len = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (len == bytes.len()).then_some(Self(bytes))
    }
}

/// The text is no [`Sid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session's name is 22 characters of base64url")]
pub struct NotASid;

impl std::str::FromStr for Sid {
    type Err = NotASid;

    fn from_str(text: &str) -> Result<Self, NotASid> {
        Self::decode(text).ok_or(NotASid)
    }
}

/// A session.
#[derive(Debug)]
pub struct Session {
    /// Its name.
    pub sid: Sid,
    /// Whose it is.
    pub agent: Arc<str>,
    /// The SHA-256 of the agent's token that it was opened with: it is worth as much as that.
    pub token_sha256: [u8; 32],
    /// Milliseconds without use after which it ends.
    idle_ms: u64,
    /// Until when its refresh token is good, milliseconds since the epoch: it ends then.
    expires_ms: AtomicU64,
    last_used_ms: AtomicU64,
    ended: AtomicBool,
}

impl Session {
    /// A session that was last used at `last_used_ms`.
    #[must_use]
    pub fn new(
        sid: Sid,
        agent: Arc<str>,
        token_sha256: [u8; 32],
        idle_ms: u64,
        expires_ms: u64,
        last_used_ms: u64,
    ) -> Self {
        Self {
            sid,
            agent,
            token_sha256,
            idle_ms,
            expires_ms: AtomicU64::new(expires_ms),
            last_used_ms: AtomicU64::new(last_used_ms),
            ended: AtomicBool::new(false),
        }
    }

    /// Whether it still is.
    #[must_use]
    pub fn is_live(&self, now_ms: u64) -> bool {
        let idle_since = self.last_used_ms.load(Ordering::Relaxed);
        !self.ended.load(Ordering::Acquire)
            && now_ms.saturating_sub(idle_since) < self.idle_ms
            && now_ms < self.expires_ms.load(Ordering::Relaxed)
    }

    /// Notes a use of a session that is live.
    pub fn touch(&self, now_ms: u64) {
        // Several workers may do so at once; the latest wins, a tick more or less.
        if self.last_used_ms.load(Ordering::Relaxed) < now_ms {
            self.last_used_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// When it was last used, milliseconds since the epoch.
    #[must_use]
    pub fn last_used_ms(&self) -> u64 {
        self.last_used_ms.load(Ordering::Relaxed)
    }

    /// When it ends at the latest, milliseconds since the epoch.
    #[must_use]
    pub fn expires_ms(&self) -> u64 {
        self.expires_ms.load(Ordering::Relaxed)
    }

    /// Its refresh token was renewed.
    pub fn extend(&self, expires_ms: u64) {
        self.expires_ms.store(expires_ms, Ordering::Relaxed);
    }

    /// Ends it, for everyone who holds it. `false`: it had ended already.
    pub fn end(&self) -> bool {
        !self.ended.swap(true, Ordering::AcqRel)
    }
}

impl ShardKey for Sid {
    fn shard(&self) -> u8 {
        self.0[0]
    }
}

/// All sessions at one moment.
#[derive(Clone, Debug, Default)]
pub struct Sessions(Shards<Sid, Arc<Session>>);

impl Sessions {
    /// The session of this name.
    #[must_use]
    pub fn get(&self, sid: &Sid) -> Option<&Arc<Session>> {
        self.0.get(sid)
    }

    /// How many there are, ended ones that were not cleared away among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.0.iter().map(|(_, session)| session)
    }

    /// Takes sessions in.
    pub fn extend(&mut self, sessions: impl IntoIterator<Item = Arc<Session>>) {
        self.0.extend(sessions.into_iter().map(|session| (session.sid, session)));
    }

    /// Takes sessions out.
    pub fn remove<'s>(&mut self, sids: impl IntoIterator<Item = &'s Sid>) {
        for sid in sids {
            self.0.remove(sid);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn session(n: u8) -> Arc<Session> {
        Arc::new(Session::new(Sid::from_bytes([n; 16]), Arc::from("alpha"), [n; 32], 100, 10_000, 1_000))
    }

    #[test]
    fn names_survive_their_spelling_and_nothing_else_is_one() {
        let sid = Sid::from_bytes([0xfb; 16]);
        assert_eq!(Sid::decode(&sid.encode()), Some(sid));
        for text in
            ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAAB", "AAAAAAAAAAAAAAAAAAAAAA==", "AAAAAAAAAAAAAAAAAAAAAAAA", "....", "é"]
        {
            assert_eq!(Sid::decode(text), None, "{text}");
        }
    }

    #[test]
    fn a_session_ends_by_idleness_by_its_time_and_by_word() {
        let session = session(1);
        assert!(session.is_live(1_099));
        assert!(!session.is_live(1_100), "idle");
        session.touch(1_090);
        assert!(session.is_live(1_189));
        session.touch(900);
        assert!(session.is_live(1_189), "an older note undoes no newer one");
        session.touch(9_999);
        assert!(session.is_live(9_999));
        assert!(!session.is_live(10_000), "its refresh token is over");
        session.extend(20_000);
        assert!(session.is_live(10_000));
        assert!(session.end());
        assert!(!session.end(), "once");
        assert!(!session.is_live(10_000));
    }

    #[test]
    fn a_change_leaves_older_views_as_they_were() {
        let mut first = Sessions::default();
        first.extend((0..200).map(session));
        let mut second = first.clone();
        second.remove([&Sid::from_bytes([7; 16]), &Sid::from_bytes([7; 16]), &Sid::from_bytes([250; 16])]);
        second.extend([session(201), session(8)]);
        assert_eq!((first.len(), second.len()), (200, 200));
        assert!(first.get(&Sid::from_bytes([7; 16])).is_some() && second.get(&Sid::from_bytes([7; 16])).is_none());
        assert!(first.get(&Sid::from_bytes([201; 16])).is_none() && second.get(&Sid::from_bytes([201; 16])).is_some());
        assert_eq!(second.iter().count(), 200);
        // Both hold the same session: what ends in one ends in the other.
        second.get(&Sid::from_bytes([9; 16])).unwrap().end();
        assert!(!first.get(&Sid::from_bytes([9; 16])).unwrap().is_live(1_000));
    }
}
