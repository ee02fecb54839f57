//! Legacy sessions: who owns which, on which child, with which stream. A bounded table, forgotten on idleness.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::handle::ToClient;
use super::seam::{ChildMessage, Gone, SessionId};

/// With the table full, another principal's session is given up only when it was unused this long.
const SPARED: Duration = Duration::from_secs(60);
/// Resources that one session may be subscribed to.
pub(super) const MAX_SUBSCRIPTIONS: usize = 256;

/// One client's session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) principal: u64,
    pub(super) instance: u64,
    pub(super) last_used: Instant,
    /// The GET stream and the serial of its call.
    pub(super) stream: Option<(u64, ToClient)>,
    pub(super) subscriptions: HashSet<String>,
}

/// The sessions of one upstream.
#[derive(Debug)]
pub(super) struct Sessions {
    table: HashMap<SessionId, Session>,
    by_stream: HashMap<u64, SessionId>,
    max: usize,
}

impl Sessions {
    pub(super) fn new(max: usize) -> Self {
        Self { table: HashMap::new(), by_stream: HashMap::new(), max }
    }

    /// Whose session must go so that `principal` can have another: `Ok(None)` when there is room, `Err` when nobody's can be taken.
    pub(super) fn make_room(&self, principal: u64, now: Instant) -> Result<Option<SessionId>, ()> {
        if self.table.len() < self.max {
            return Ok(None);
        }
        let oldest = |own: bool| {
            self.table
                .iter()
                .filter(|(_, session)| (session.principal == principal) == own)
                .min_by_key(|(_, session)| session.last_used)
        };
        // Whoever fills the table pays for it; only then is a stranger's idle session taken.
        oldest(true)
            .or_else(|| {
                oldest(false)
                    .filter(|(_, session)| session.stream.is_none() && now.duration_since(session.last_used) >= SPARED)
            })
            .map(|(id, _)| Some(*id))
            .ok_or(())
    }

    /// Opens a session under a fresh random id. `None` when the system has no randomness or the table is full.
    pub(super) fn open(&mut self, principal: u64, instance: u64, now: Instant) -> Option<SessionId> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok()?;
        let id = SessionId(u128::from_ne_bytes(random));
        if self.table.len() >= self.max || self.table.contains_key(&id) {
            return None;
        }
        self.table
            .insert(id, Session { principal, instance, last_used: now, stream: None, subscriptions: HashSet::new() });
        Some(id)
    }

    /// The session, if it is this principal's; marks it as used.
    pub(super) fn touch(&mut self, id: SessionId, principal: u64, now: Instant) -> Option<&mut Session> {
        let session = self.table.get_mut(&id)?;
        if session.principal != principal {
            return None;
        }
        session.last_used = now;
        Some(session)
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.table.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.table.get_mut(&id)
    }

    /// Takes a GET stream; an older one is closed, for it is most likely the half-open rest of a lost connection.
    pub(super) fn attach(&mut self, id: SessionId, serial: u64, to: ToClient) {
        if let Some(session) = self.table.get_mut(&id) {
            if let Some((old, older)) = session.stream.replace((serial, to)) {
                self.by_stream.remove(&old);
                older.send(ChildMessage::Gone { reason: Gone::Closed });
            }
            self.by_stream.insert(serial, id);
        }
    }

    /// Forgets the GET stream with this serial, if it is one.
    pub(super) fn detach(&mut self, serial: u64, now: Instant) {
        if let Some(id) = self.by_stream.remove(&serial)
            && let Some(session) = self.table.get_mut(&id)
        {
            session.stream = None;
            // Until now it was in use; its idleness starts here.
            session.last_used = now;
        }
    }

    /// Sends to the session's GET stream. `false` when there is none, or it does not read: then it is cut.
    pub(super) fn send(&mut self, id: SessionId, bytes: Vec<u8>, now: Instant) -> bool {
        let Some((serial, to)) = self.table.get(&id).and_then(|session| session.stream.as_ref()) else {
            return false;
        };
        let sent = to.send(ChildMessage::Message { bytes, last: false });
        if !sent {
            let serial = *serial;
            self.detach(serial, now);
        }
        sent
    }

    /// Removes a session and closes its stream.
    pub(super) fn remove(&mut self, id: SessionId, reason: Gone) -> Option<Session> {
        let mut session = self.table.remove(&id)?;
        if let Some((serial, to)) = session.stream.take() {
            self.by_stream.remove(&serial);
            to.send(ChildMessage::Gone { reason });
        }
        Some(session)
    }

    /// Sessions that were not used for `idle` and have no stream open.
    pub(super) fn expired(&self, idle: Duration, now: Instant) -> Vec<SessionId> {
        self.table
            .iter()
            .filter(|(_, session)| session.stream.is_none() && now.duration_since(session.last_used) >= idle)
            .map(|(id, _)| *id)
            .collect()
    }
}
