//! What a client of the session era has agreed on with its servers. It lives as long as its connection: no id is shown to the client, none is
//! taken from it.

use std::rc::Rc;

use crate::door::session::Session;
use crate::door::spread::SpreadInner;
use crate::guard::Principal;
use crate::rpc::Revision;

/// Longest `initialize` that is kept, to be said again to a server that has forgotten it. Clients' have some hundred bytes; one that is longer
/// initializes again by itself.
const MAX_OPENING_BYTES: usize = 16 * 1024;

/// The session of one connection.
pub(super) struct PeerSession {
    /// The upstreams' own session ids, where they have any; most connections of many thousands have none.
    parts: Option<Box<Session>>,
    /// The revision that `initialize` has agreed on.
    revision: Option<Revision>,
    /// Under which servers that are shared know this client.
    tag: u64,
    /// What `initialize` said, where there are several upstreams.
    pub(super) opening: Option<Rc<SpreadInner>>,
    /// Upstreams whose streams are listened to, a bit each.
    streams: u64,
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
        Self {
            parts: None,
            revision: None,
            tag,
            opening: None,
            streams: 0,
            initialized: false,
            listening: false,
            lost: false,
        }
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

    /// `initialize` has succeeded at some of several upstreams, to which this was said.
    pub(super) fn open_several(&mut self, parts: &[(u32, Vec<u8>)], revision: Revision, opening: Rc<SpreadInner>) {
        self.open(parts, revision);
        self.opening = Some(opening).filter(|opening| opening.raw.len() <= MAX_OPENING_BYTES);
    }

    /// An upstream has opened its part anew. `false` when there is no session any more.
    pub(super) fn join(&mut self, tag: u32, part: &[u8]) -> bool {
        if !self.is_open() {
            return false;
        }
        self.parts = Some(Box::new(self.parts.take().unwrap_or_default().with_part(tag, part)));
        true
    }

    /// Whether a server that does not know its part can be asked to open it anew.
    pub(super) fn can_reopen(&self) -> bool {
        self.opening.is_some()
    }

    /// Notes that an upstream's stream is listened to, or is not any more. Returns whether it was.
    pub(super) fn set_stream(&mut self, upstream: usize, is_listened_to: bool) -> bool {
        let bit = 1_u64.checked_shl(u32::try_from(upstream).unwrap_or(u32::MAX)).unwrap_or_default();
        let was = self.streams & bit != 0;
        self.streams = if is_listened_to { self.streams | bit } else { self.streams & !bit };
        was
    }

    /// An upstream does not know it any more.
    pub(super) fn lose(&mut self) {
        *self = Self { tag: self.tag, streams: self.streams, lost: true, ..Self::new() };
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
