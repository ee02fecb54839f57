//! Who is calling: the door's shared token, or an agent's own.
//!
//! Tokens are compared as SHA-256 hashes, in constant time. Finding the candidate among many agents uses the first eight bytes of the hash,
//! which tell an attacker nothing about a token.

use std::collections::HashMap;
use std::sync::Arc;

use crate::guard::Denial;
use crate::settings::policy::Agent;
use crate::settings::secret::{same_hash, sha256};
use crate::settings::{Auth, Secret};
use crate::state::connections::PrincipalKind;

/// Who sends a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Authentication is switched off on this door.
    Anonymous,
    /// `DEMO_MODE`.
    Demo,
    /// The holder of the door's shared token.
    Door,
    /// An agent, by its own token.
    Agent(Arc<str>),
}

impl Principal {
    /// The agent's id, where there is one.
    #[must_use]
    pub fn agent(&self) -> Option<&Arc<str>> {
        match self {
            Self::Agent(id) => Some(id),
            _ => None,
        }
    }

    /// What it is listed as.
    #[must_use]
    pub fn kind(&self) -> PrincipalKind {
        match self {
            Self::Anonymous => PrincipalKind::Anonymous,
            Self::Demo => PrincipalKind::Demo,
            Self::Door => PrincipalKind::Door,
            Self::Agent(_) => PrincipalKind::Agent,
        }
    }

    /// A value that differs between any two principals and stays the same over restarts: what sessions are bound to.
    #[must_use]
    pub fn tag(&self) -> [u8; 16] {
        let hash = match self {
            Self::Anonymous => sha256(b"anonymous"),
            Self::Demo => sha256(b"demo"),
            Self::Door => sha256(b"door"),
            Self::Agent(id) => sha256(format!("agent:{id}").as_bytes()),
        };
        let mut tag = [0; 16];
        tag.copy_from_slice(hash.split_at(16).0);
        tag
    }

    /// The first half of [`Principal::tag`].
    #[must_use]
    pub fn short_tag(&self) -> u64 {
        let mut short = [0; 8];
        short.copy_from_slice(self.tag().split_at(8).0);
        u64::from_be_bytes(short)
    }
}

struct Known {
    sha256: [u8; 32],
    id: Arc<str>,
    enabled: bool,
}

/// The tokens of one door, ready to be compared with.
pub struct Authenticator {
    mode: Mode,
    door: Option<Secret>,
    agents: HashMap<[u8; 8], Vec<Known>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Required,
    Off,
    Demo,
}

impl Authenticator {
    /// For the HTTP and WebSocket door.
    #[must_use]
    pub fn new(auth: &Auth, agents: &[Agent]) -> Self {
        let mode = match (auth.demo_mode, auth.enabled) {
            (true, _) => Mode::Demo,
            (false, true) => Mode::Required,
            (false, false) => Mode::Off,
        };
        let mut by_prefix: HashMap<[u8; 8], Vec<Known>> = HashMap::new();
        for agent in agents {
            let known = Known { sha256: agent.token_sha256, id: Arc::from(agent.id.as_str()), enabled: agent.enabled };
            by_prefix.entry(prefix(&agent.token_sha256)).or_default().push(known);
        }
        Self { mode, door: auth.door_token.clone(), agents: by_prefix }
    }

    /// Who presents this `Authorization` header.
    ///
    /// # Errors
    /// [`Denial::MissingToken`], [`Denial::MalformedAuthorization`] or [`Denial::BadToken`].
    pub fn check(&self, authorization: Option<&[u8]>) -> Result<Principal, Denial> {
        match (self.mode, authorization) {
            (Mode::Demo, _) => Ok(Principal::Demo),
            (Mode::Off, None) => Ok(Principal::Anonymous),
            (Mode::Required, None) => Err(Denial::MissingToken),
            // A token is looked at even where none is needed: an agent that shows one is that agent.
            (_, Some(value)) => self.check_token(bearer(value).ok_or(Denial::MalformedAuthorization)?),
        }
    }

    /// Who a client is that shows no token; `None` where it must show one.
    #[must_use]
    pub fn without_token(&self) -> Option<Principal> {
        match self.mode {
            Mode::Required => None,
            Mode::Off => Some(Principal::Anonymous),
            Mode::Demo => Some(Principal::Demo),
        }
    }

    /// For the TCP door: a token is needed unless none is set for it and authentication is switched off.
    #[must_use]
    pub fn for_tcp(auth: &Auth, agents: &[Agent]) -> Self {
        let door = auth.tcp_token.clone();
        let mode = match (auth.demo_mode, auth.enabled || door.is_some()) {
            (true, _) => Mode::Demo,
            (false, true) => Mode::Required,
            (false, false) => Mode::Off,
        };
        Self { mode, door, ..Self::new(auth, agents) }
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// [`Denial::BadToken`].
    pub fn check_token(&self, token: &[u8]) -> Result<Principal, Denial> {
        if self.mode == Mode::Demo {
            return Ok(Principal::Demo);
        }
        let hash = sha256(token);
        if let Some(door) = &self.door
            && same_hash(door.sha256(), &hash)
        {
            return Ok(Principal::Door);
        }
        let candidates = self.agents.get(&prefix(&hash)).map_or(&[][..], Vec::as_slice);
        match candidates.iter().find(|known| same_hash(&known.sha256, &hash)) {
            Some(known) if known.enabled => Ok(Principal::Agent(known.id.clone())),
            _ => Err(Denial::BadToken),
        }
    }
}

fn prefix(hash: &[u8; 32]) -> [u8; 8] {
    let mut prefix = [0; 8];
    prefix.copy_from_slice(hash.split_at(8).0);
    prefix
}

/// The token of `Bearer TOKEN` (RFC 6750 §2.1; the scheme's name is case-insensitive, RFC 9110 §11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return None;
    }
    let token = token.trim_ascii();
    (!token.is_empty() && token.iter().all(u8::is_ascii_graphic)).then_some(token)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn authenticator(enabled: bool, demo_mode: bool) -> Authenticator {
        let agent = |id: &str, token: &str, enabled| (Arc::from(id), sha256(token.as_bytes()), enabled);
        let mut agents: HashMap<[u8; 8], Vec<Known>> = HashMap::new();
        for (id, sha256, enabled) in [agent("alpha", "alpha-token", true), agent("beta", "beta-token", false)] {
            agents.entry(prefix(&sha256)).or_default().push(Known { sha256, id, enabled });
        }
        let mode = match (demo_mode, enabled) {
            (true, _) => Mode::Demo,
            (_, true) => Mode::Required,
            _ => Mode::Off,
        };
        Authenticator { mode, door: Some(Secret::new("door-token")), agents }
    }

    #[test]
    fn tells_principals_apart() {
        let alpha = || Ok(Principal::Agent(Arc::from("alpha")));
        for (name, header, expected) in [
            ("nothing", None, Err(Denial::MissingToken)),
            ("the door's token", Some("Bearer door-token"), Ok(Principal::Door)),
            ("an agent's", Some("Bearer alpha-token"), alpha()),
            ("scheme in another case", Some("bearer alpha-token"), alpha()),
            ("blanks around", Some("Bearer   alpha-token "), alpha()),
            ("a disabled agent's", Some("Bearer beta-token"), Err(Denial::BadToken)),
            ("an unknown one", Some("Bearer gamma-token"), Err(Denial::BadToken)),
            ("a prefix of a token", Some("Bearer alpha-toke"), Err(Denial::BadToken)),
            ("another scheme", Some("Basic YTpi"), Err(Denial::MalformedAuthorization)),
            ("no token", Some("Bearer "), Err(Denial::MalformedAuthorization)),
            ("two tokens", Some("Bearer alpha-token beta-token"), Err(Denial::MalformedAuthorization)),
            ("no scheme", Some("alpha-token"), Err(Denial::MalformedAuthorization)),
            ("empty", Some(""), Err(Denial::MalformedAuthorization)),
        ] {
            let found = authenticator(true, false).check(header.map(str::as_bytes));
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn without_authentication_a_token_still_counts() {
        let open = authenticator(false, false);
        assert_eq!(open.check(None), Ok(Principal::Anonymous));
        assert_eq!(open.check(Some(b"Bearer alpha-token")), Ok(Principal::Agent(Arc::from("alpha"))));
        assert_eq!(open.check(Some(b"Bearer wrong")), Err(Denial::BadToken));
        assert_eq!(authenticator(true, true).check(Some(b"Bearer wrong")), Ok(Principal::Demo));
    }

    #[test]
    fn tags_differ_between_principals() {
        let all = [
            Principal::Anonymous,
            Principal::Demo,
            Principal::Door,
            Principal::Agent(Arc::from("door")),
            Principal::Agent(Arc::from("alpha")),
        ];
        for (i, a) in all.iter().enumerate() {
            for (j, b) in all.iter().enumerate() {
                assert_eq!(a.tag() == b.tag(), i == j);
            }
        }
    }
}
