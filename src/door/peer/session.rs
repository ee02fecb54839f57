//! What a client of the session era has agreed on with its servers. It lives as long as its connection: no id is shown to the client, none is
//! taken from it.

use crate::door::session::Session;
use crate::guard::Principal;
use crate::rpc::Revision;

/// The session of one connection.
pub(super) struct PeerSession {
    /// The upstreams' own session ids, where they have any; most connections of many thousands have none.
    parts: Option<Box<Session>>,
    /// The revision that `initialize` has agreed on.
    revision: Option<Revision>,
    /// Under which servers that are shared know this client.
    tag: u64,
    /// `initialize` was sent, whatever came of it.
    pub(super) initialized: bool,
    /// The servers' own messages are being listened to.
    pub(super) listening: bool,
    lost: bool,
}

impl PeerSession {
    /// No session, of nobody: a tag of its own keeps it apart from every principal and every other connection.
    pub(super) fn new() -> Self {
        let tag = getrandom::u64().unwrap_or(0);
        Self { parts: None, revision: None, tag, initialized: false, listening: false, lost: false }
    }

    /// Who the client is. A session that was opened before keeps the tag that it was opened under.
    pub(super) fn bind(&mut self, principal: &Principal) {
        if !self.is_open() {
            self.tag = principal.short_tag();
        }
    }

    /// Whether an upstream has opened a session.
    pub(super) fn is_open(&self) -> bool {
        self.revision.is_some()
    }

    /// `initialize` has succeeded.
    pub(super) fn open(&mut self, parts: &[(u32, Vec<u8>)], revision: Revision) {
        self.parts = (!parts.is_empty()).then(|| Box::new(Session::of(parts)));
        self.revision = Some(revision);
    }

    /// An upstream does not know it any more.
    pub(super) fn lose(&mut self) {
        *self = Self { tag: self.tag, lost: true, ..Self::new() };
    }

    /// Whether there was a session that is lost, and the client has not initialized since.
    pub(super) fn is_lost(&self) -> bool {
        self.lost && !self.initialized
    }

    /// The upstreams' own ids, where there is a session.
    pub(super) fn parts(&self) -> Option<&Session> {
        self.parts.as_deref()
    }

    /// The revision that messages without a version are of: what was agreed on, else what the standard assumes.
    pub(super) fn revision(&self) -> Revision {
        self.revision.unwrap_or(Revision::V2025_03_26)
    }

    /// What goes into `MCP-Protocol-Version`.
    pub(super) fn version(&self) -> Option<&'static str> {
        self.revision.map(Revision::as_str)
    }

    /// Under which servers that are shared know this client.
    pub(super) fn tag(&self) -> u64 {
        self.tag
    }
}
