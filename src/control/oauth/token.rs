//! What a token request is granted.

use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use zeroize::Zeroizing;

use super::OAuth;
use super::answer::{Fault, granted};
use super::book::{NotOpened, Turn};
use super::form::{Client, Name, Params};
use super::refresh::Minted;
use crate::control::alerts::{AlertKind, NewAlert, Subject};
use crate::gateway::desk::{Answered, Asked, Errand};
use crate::guard::jwt::{self, own::SCOPE};
use crate::state::events::{Event, EventKind, Reservation};
use crate::state::sessions::{Session, Sid};
use crate::store::StoreError;

/// An agent that has shown who it is.
struct Known {
    agent: Arc<str>,
    token_sha256: [u8; 32],
}

impl OAuth {
    /// Answers one request.
    pub(super) async fn answer(&self, asked: Asked) -> Answered {
        let Asked { errand, media, authorization, body, client: ip } = asked;
        let grant = async {
            let params = Params::read(media, &body)?;
            let client = params.client(authorization.as_deref().map(Vec::as_slice))?;
            match errand {
                Errand::Token => self.token(&params, client.as_ref(), ip).await,
                Errand::Revoke => self.revoke(&params, client.as_ref(), ip).await,
            }
        };
        match grant.await {
            Ok(body) => granted(body),
            Err(fault) => fault.answered(),
        }
    }

    /// `POST /oauth/token`.
    async fn token(&self, params: &Params, client: Option<&Client>, ip: IpAddr) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let grant_type = params.need(Name::GrantType, "grant_type is missing")?;
        if params.get(Name::Scope).is_some_and(|scopes| scopes.split(' ').any(|scope| scope != SCOPE)) {
            return Err(Fault::Scope);
        }
        let own = |resource: &str| resource == self.own_key.audience() || resource == self.own_key.issuer();
        if params.get(Name::Resource).is_some_and(|resource| !own(resource)) {
            return Err(Fault::Resource);
        }
        match grant_type {
            "client_credentials" => {
                let client =
                    client.ok_or(Fault::Client("Show the agent's id and token as client_id and client_secret"))?;
                self.begin(self.identify(client)?, ip).await
            }
            "refresh_token" => {
                let shown = params.need(Name::RefreshToken, "refresh_token is missing")?;
                let agent = client.map(|client| self.identify(client)).transpose()?.map(|known| known.agent);
                self.renew(shown, agent.as_deref().or(params.get(Name::ClientId)), ip).await
            }
            _ => Err(Fault::GrantType),
        }
    }

    /// Who a client is that says who it is.
    fn identify(&self, client: &Client) -> Result<Known, Fault> {
        let wrong = Fault::Client("The agent's id and token do not belong together, or are not valid");
        let (agent, token_sha256) = (self.agent_of)(client.secret.as_bytes()).ok_or(wrong)?;
        if *agent != *client.id { Err(wrong) } else { Ok(Known { agent, token_sha256 }) }
    }

    async fn begin(&self, known: Known, ip: IpAddr) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let now_ms = (self.told.clock)();
        let sid = random().map(Sid::from_bytes)?;
        let minted = self.refresh_key.mint(&sid).ok_or_else(no_random)?;
        let access = self.access(&known.agent, &sid, now_ms)?;
        let place = self.place()?;
        let begun = self.book.begin(sid, known.agent, known.token_sha256, minted.sha256, now_ms).await;
        let session = begun.map_err(|error| match error {
            NotOpened::TooMany => Fault::TooMany,
            NotOpened::Full => {
                tracing::warn!("there are as many sessions as there may be; a new one is refused");
                Fault::Unavailable
            }
            NotOpened::Store(error) => unwritten(&error),
        })?;
        place.commit(self.event(EventKind::TokenIssued, &session, ip, "session opened"));
        Ok(self.pair(&access, &minted))
    }

    async fn renew(&self, shown: &str, agent: Option<&str>, ip: IpAddr) -> Result<Zeroizing<Vec<u8>>, Fault> {
        const WORTHLESS: Fault = Fault::Grant("The refresh token is not valid, or its session has ended");
        let now_ms = (self.told.clock)();
        let read = self.refresh_key.read(shown).ok_or(WORTHLESS)?;
        let session = self.book.find(&read.sid, now_ms).ok_or(WORTHLESS)?;
        if agent.is_some_and(|agent| agent != &*session.agent) {
            return Err(WORTHLESS);
        }
        let minted = self.refresh_key.mint(&read.sid).ok_or_else(no_random)?;
        let access = self.access(&session.agent, &read.sid, now_ms)?;
        let place = self.place()?;
        match self.book.renew(&read.sid, read.sha256, minted.sha256, now_ms).await {
            Ok(Turn::Renewed(session)) => {
                // No token that could pile up: it has taken another's place.
                place.commit(self.event(EventKind::AuthSuccess, &session, ip, "session renewed"));
                Ok(self.pair(&access, &minted))
            }
            Ok(Turn::Reused(session)) => {
                let what = "a refresh token was used twice; the session has ended";
                place.commit(self.event(EventKind::RefreshReuse, &session, ip, what));
                self.told.alerts.raise(NewAlert {
                    kind: AlertKind::RefreshReuse,
                    subject: Subject::Agent(session.agent.to_string()),
                    details: "its session has ended; whoever has the copy may have the agent's token as well"
                        .to_owned(),
                });
                Err(Fault::Grant("The refresh token was used before; its session has ended"))
            }
            Ok(Turn::Ended) => Err(WORTHLESS),
            Err(error) => Err(unwritten(&error)),
        }
    }

    /// `POST /oauth/revoke`: a token that is not known, or has ended, is as good as revoked (RFC 7009 §2.2).
    async fn revoke(&self, params: &Params, client: Option<&Client>, ip: IpAddr) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let shown = params.need(Name::Token, "token is missing")?;
        let agent = client.map(|client| self.identify(client)).transpose()?.map(|known| known.agent);
        let agent = agent.as_deref().or(params.get(Name::ClientId));
        let now_ms = (self.told.clock)();
        let sid = match self.refresh_key.read(shown) {
            Some(read) => Some(read.sid),
            None if self.own_key.is_own(shown.as_bytes()) => {
                self.own_key.verify(shown.as_bytes(), now_ms).ok().map(|token| token.sid)
            }
            None if jwt::is_meant(shown.as_bytes()) => return Err(Fault::TokenType),
            None => None,
        };
        let Some(session) = sid.and_then(|sid| self.book.find(&sid, now_ms)) else {
            return Ok(Zeroizing::default());
        };
        // A client ends its own sessions (RFC 7009 §2.1).
        if agent.is_some_and(|agent| agent != &*session.agent) {
            return Err(Fault::Grant("The token is another client's"));
        }
        let place = self.place()?;
        if self.book.end(&session).await.map_err(|error| unwritten(&error))? {
            place.commit(self.event(EventKind::TokenRevoked, &session, ip, "session ended by its client"));
        }
        Ok(Zeroizing::default())
    }

    fn access(&self, agent: &str, sid: &Sid, now_ms: u64) -> Result<Zeroizing<String>, Fault> {
        let jti = Sid::from_bytes(random()?).encode();
        let token = self.own_key.issue(agent, sid, &jti, now_ms / 1000);
        token.map(Zeroizing::new).map_err(|error| {
            tracing::error!(%error, "an access token cannot be signed");
            Fault::Unavailable
        })
    }

    fn pair(&self, access: &str, refresh: &Minted) -> Zeroizing<Vec<u8>> {
        let body = json!({
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": self.own_key.ttl_s(),
            "refresh_token": refresh.text.as_str(),
            "scope": SCOPE,
        });
        Zeroizing::new(body.to_string().into_bytes())
    }

    /// Room in the audit trail, taken before anything is done: what cannot be recorded is not done.
    fn place(&self) -> Result<Reservation, Fault> {
        self.told.events.reserve().map_err(|_| {
            tracing::warn!("the audit trail has no room; a token request is refused");
            Fault::Unavailable
        })
    }

    fn event(&self, kind: EventKind, session: &Session, ip: IpAddr, what: &str) -> Event {
        let event = Event::new(kind, (self.told.clock)()).with_ip(ip).with_agent(&session.agent).with_rule("session");
        event.with_details(format_args!("{what}: {}", session.sid.encode()))
    }
}

fn unwritten(error: &StoreError) -> Fault {
    tracing::warn!(%error, "a session cannot be written");
    Fault::Unavailable
}

fn no_random() -> Fault {
    tracing::error!("no random bytes from the system: no session can be opened");
    Fault::Unavailable
}

fn random() -> Result<[u8; 16], Fault> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| no_random())?;
    Ok(bytes)
}
