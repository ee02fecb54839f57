//! Who is calling: the door's shared token, or an agent's own, which the policy file names or the admin API has issued.
//!
//! Tokens are compared as SHA-256 hashes, in constant time. Finding the candidate among many uses (a part of) the hash, which tells an attacker
//! nothing about a token. An agent that the policy switches off is refused, whatever it shows.
//!
//! What a token of another kind means, such as a JWT, is not decided here; who does that asks [`Authenticator::may_come`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::guard::Denial;
use crate::settings::policy::Agent;
use crate::settings::secret::{same_hash, sha256};
use crate::settings::{Auth, Secret};
use crate::state::connections::PrincipalKind;
use crate::state::credentials::{Credentials, TokenEntry};

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

/// Who has shown what.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Who it is.
    pub principal: Principal,
    /// The token, where it can end while the process lives.
    pub token: Option<Arc<TokenEntry>>,
}

impl From<Principal> for Shown {
    fn from(principal: Principal) -> Self {
        Self { principal, token: None }
    }
}

/// The tokens that were issued, at one moment.
#[derive(Clone, Copy)]
pub struct Issued<'a> {
    /// All of them.
    pub tokens: &'a Credentials,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
}

struct Known {
    sha256: [u8; 32],
    id: Arc<str>,
}

/// The tokens of one door, ready to be compared with.
pub struct Authenticator {
    mode: Mode,
    door: Option<Secret>,
    /// Of the policy file.
    agents: HashMap<[u8; 8], Vec<Known>>,
    switched_off: HashSet<Arc<str>>,
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
        let mut switched_off = HashSet::new();
        for agent in agents {
            let id: Arc<str> = agent.id.as_str().into();
            if !agent.enabled {
                switched_off.insert(id.clone());
            }
            if let Some(sha256) = agent.token_sha256 {
                by_prefix.entry(prefix(&sha256)).or_default().push(Known { sha256, id });
            }
        }
        Self { mode, door: auth.door_token.clone(), agents: by_prefix, switched_off }
    }

    /// Who presents this `Authorization` header.
    ///
    /// # Errors
    /// [`Denial::MissingToken`], [`Denial::MalformedAuthorization`] or [`Denial::BadToken`].
    pub fn check(&self, authorization: Option<&[u8]>, issued: Issued<'_>) -> Result<Shown, Denial> {
        match (self.mode, authorization) {
            (Mode::Demo, _) => Ok(Principal::Demo.into()),
            (Mode::Off, None) => Ok(Principal::Anonymous.into()),
            (Mode::Required, None) => Err(Denial::MissingToken),
            // A token is looked at even where none is needed: an agent that shows one is that agent.
            (_, Some(value)) => self.check_token(bearer(value).ok_or(Denial::MalformedAuthorization)?, issued),
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
    pub fn check_token(&self, token: &[u8], issued: Issued<'_>) -> Result<Shown, Denial> {
        if self.mode == Mode::Demo {
            return Ok(Principal::Demo.into());
        }
        let hash = sha256(token);
        if let Some(door) = &self.door
            && same_hash(door.sha256(), &hash)
        {
            return Ok(Principal::Door.into());
        }
        let (agent, token) = self.owner(&hash, issued).ok_or(Denial::BadToken)?;
        Ok(Shown { principal: Principal::Agent(agent.clone()), token: token.cloned() })
    }

    /// The agent whose token this is, and the token's hash: what a session is opened with.
    #[must_use]
    pub fn agent_of(&self, token: &[u8], issued: Issued<'_>) -> Option<(Arc<str>, [u8; 32])> {
        let hash = sha256(token);
        self.owner(&hash, issued).map(|(agent, _)| (agent.clone(), hash))
    }

    /// Whether the token with this hash is the agent's now.
    #[must_use]
    pub fn holds(&self, sha256: &[u8; 32], agent: &str, issued: Issued<'_>) -> bool {
        self.owner(sha256, issued).is_some_and(|(owner, _)| owner.as_ref() == agent)
    }

    /// Whether an agent that somebody else vouches for may come in: not one that is switched off here.
    #[must_use]
    pub fn may_come(&self, agent: &str) -> bool {
        !self.switched_off.contains(agent)
    }

    /// Whether everyone comes in without a token that is looked at (`DEMO_MODE`).
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.mode == Mode::Demo
    }

    /// Whose token has this hash, where it may come in with it.
    fn owner<'a>(&'a self, hash: &[u8; 32], issued: Issued<'a>) -> Option<(&'a Arc<str>, Option<&'a Arc<TokenEntry>>)> {
        let candidates = self.agents.get(&prefix(hash)).map_or(&[][..], Vec::as_slice);
        let known = candidates.iter().find(|known| same_hash(&known.sha256, hash)).map(|known| (&known.id, None));
        let found =
            known.or_else(|| issued.tokens.token(hash, issued.now_ms).map(|entry| (&entry.agent, Some(entry))))?;
        self.may_come(found.0).then_some(found)
    }
}

fn prefix(hash: &[u8; 32]) -> [u8; 8] {
    let mut prefix = [0; 8];
    prefix.copy_from_slice(hash.split_at(8).0);
    prefix
}

/// The token of `Bearer TOKEN` (RFC 6750 §2.1; the scheme's name is case-insensitive, RFC 9110 §11.1).
pub(crate) fn bearer(value: &[u8]) -> Option<&[u8]> {
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
        let mut agents: HashMap<[u8; 8], Vec<Known>> = HashMap::new();
        for (id, token) in [("alpha", "alpha-token"), ("beta", "beta-token")] {
            let sha256 = sha256(token.as_bytes());
            agents.entry(prefix(&sha256)).or_default().push(Known { sha256, id: id.into() });
        }
        let mode = match (demo_mode, enabled) {
            (true, _) => Mode::Demo,
            (_, true) => Mode::Required,
            _ => Mode::Off,
        };
        let switched_off = HashSet::from([Arc::from("beta"), Arc::from("delta")]);
        Authenticator { mode, door: Some(Secret::new("door-token")), agents, switched_off }
    }

    /// At 1,000, of tokens that end then or later, or never.
    fn tokens() -> Credentials {
        [
            ("gamma", "gamma-token", u64::MAX),
            ("gamma", "gamma-old", 1_000),
            ("gamma", "gamma-grace", 1_001),
            ("delta", "delta-token", u64::MAX),
        ]
        .into_iter()
        .map(|(agent, token, end_ms)| {
            let entry = TokenEntry::new(crate::state::credentials::TokenId::new(0, [0; 4]), agent.into(), end_ms, 0);
            (sha256(token.as_bytes()), entry)
        })
        .collect()
    }

    fn check(authenticator: &Authenticator, header: Option<&str>) -> Result<Principal, Denial> {
        let tokens = tokens();
        let issued = Issued { tokens: &tokens, now_ms: 1_000 };
        authenticator.check(header.map(str::as_bytes), issued).map(|shown| shown.principal)
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
            ("an unknown one", Some("Bearer epsilon-token"), Err(Denial::BadToken)),
            ("one that was issued", Some("Bearer gamma-token"), Ok(Principal::Agent(Arc::from("gamma")))),
            ("one that has ended", Some("Bearer gamma-old"), Err(Denial::BadToken)),
            ("one in its grace", Some("Bearer gamma-grace"), Ok(Principal::Agent(Arc::from("gamma")))),
            ("issued to a disabled agent", Some("Bearer delta-token"), Err(Denial::BadToken)),
            ("a prefix of a token", Some("Bearer alpha-toke"), Err(Denial::BadToken)),
            ("another scheme", Some("Basic YTpi"), Err(Denial::MalformedAuthorization)),
            ("no token", Some("Bearer "), Err(Denial::MalformedAuthorization)),
            ("two tokens", Some("Bearer alpha-token beta-token"), Err(Denial::MalformedAuthorization)),
            ("no scheme", Some("alpha-token"), Err(Denial::MalformedAuthorization)),
            ("empty", Some(""), Err(Denial::MalformedAuthorization)),
        ] {
            assert_eq!(check(&authenticator(true, false), header), expected, "{name}");
        }
    }

    #[test]
    fn without_authentication_a_token_still_counts() {
        let open = authenticator(false, false);
        assert_eq!(check(&open, None), Ok(Principal::Anonymous));
        assert_eq!(check(&open, Some("Bearer alpha-token")), Ok(Principal::Agent(Arc::from("alpha"))));
        assert_eq!(check(&open, Some("Bearer wrong")), Err(Denial::BadToken));
        assert_eq!(check(&authenticator(true, true), Some("Bearer wrong")), Ok(Principal::Demo));
    }

    #[test]
    fn a_session_is_opened_with_a_token_that_is_the_agents_own_now() {
        let (authenticator, tokens) = (authenticator(true, false), tokens());
        let issued = Issued { tokens: &tokens, now_ms: 1_000 };
        for (token, owner) in [
            ("alpha-token", Some("alpha")),
            ("gamma-token", Some("gamma")),
            ("gamma-old", None),
            ("beta-token", None),
            ("delta-token", None),
            ("door-token", None),
        ] {
            let found = authenticator.agent_of(token.as_bytes(), issued);
            assert_eq!(found.as_ref().map(|(agent, _)| agent.as_ref()), owner, "{token}");
            let hash = sha256(token.as_bytes());
            for agent in ["alpha", "beta", "gamma", "delta"] {
                assert_eq!(authenticator.holds(&hash, agent, issued), owner == Some(agent), "{token} of {agent}");
            }
        }
        assert!(authenticator.may_come("unheard-of") && !authenticator.may_come("delta"));
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
