//! Sessions through their whole lives, over a real store, with a clock that the test moves.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::cell::Cell;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use serde_json::Value;
use zeroize::Zeroizing;

use super::*;
use crate::gateway::desk::{Answered, Asked, Errand, Media};
use crate::settings::secret::sha256;
use crate::state::events::{Event, EventKind, Severity};
use crate::state::lifecycle::Lifecycle;
use crate::state::queue::Bell;
use crate::store::StoreThreads;

const START_MS: u64 = 1_800_000_000_000;
const IDLE_MS: u64 = 60_000;
const REFRESH_S: u64 = 3_600;
const SECRET: &str = "b1946ac92492d2347c6235b4d2611184b1946ac92492d234";

thread_local! {
    static NOW_MS: Cell<u64> = const { Cell::new(START_MS) };
}

fn clock() -> u64 {
    NOW_MS.get()
}

fn pass(ms: u64) {
    NOW_MS.set(NOW_MS.get() + ms);
}

/// A folder and what lives in it; [`Rig::restart`] is the next process.
struct Rig {
    dir: tempfile::TempDir,
    alerts: Alerts,
    valid: Arc<AtomicBool>,
    max_sessions: u32,
    oauth: Arc<OAuth>,
    published: Arc<ArcSwap<Sessions>>,
    events: Arc<EventQueue>,
    threads: StoreThreads,
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

impl Rig {
    async fn start(max_sessions: u32) -> Self {
        NOW_MS.set(START_MS);
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        Self::on(dir, max_sessions).await
    }

    async fn on(dir: tempfile::TempDir, max_sessions: u32) -> Self {
        let (store, threads) = Store::open(dir.path(), Arc::new(Lifecycle::new(1, Vec::new()))).unwrap();
        let valid = Arc::new(AtomicBool::new(true));
        let (of, holds) = (Arc::clone(&valid), Arc::clone(&valid));
        let secret = Secret::new(SECRET);
        let config = OAuthConfig {
            own_key: Arc::new(OwnKey::new(&secret, "http://gate", "http://gate/mcp", 900).unwrap()),
            secret,
            refresh_ttl: Duration::from_secs(REFRESH_S),
            idle: Duration::from_millis(IDLE_MS),
            clean_every: Duration::from_secs(1),
            max_sessions,
            agent_of: Box::new(move |token| {
                let agent = token.strip_suffix(b"-token").filter(|_| of.load(Ordering::Relaxed))?;
                Some((Arc::from(std::str::from_utf8(agent).ok()?), sha256(token)))
            }),
            holds: Box::new(move |hash, agent| {
                holds.load(Ordering::Relaxed) && *hash == sha256(format!("{agent}-token").as_bytes())
            }),
        };
        let (published, events) = (Arc::default(), Arc::new(EventQueue::new(Arc::<Bell>::default())));
        let (alerts, _) = Alerts::new(Arc::clone(&events), Arc::default(), clock);
        let told = Told { events: Arc::clone(&events), alerts: alerts.clone(), clock };
        let oauth = OAuth::open(config, store, Arc::clone(&published), told).await.unwrap();
        Self { dir, alerts, valid, max_sessions, oauth, published, events, threads }
    }

    async fn restart(self) -> Self {
        let Self { dir, max_sessions, threads, .. } = self;
        drop(self.oauth);
        threads.stop();
        Self::on(dir, max_sessions).await
    }

    async fn ask(&self, errand: Errand, body: &str) -> Answered {
        let asked = Asked {
            errand,
            media: Media::Form,
            authorization: None,
            body: Zeroizing::new(body.as_bytes().to_vec()),
            client: IpAddr::from([192, 0, 2, 7]),
        };
        self.oauth.answer(asked).await
    }

    async fn login(&self, agent: &str) -> Result<Pair, Answered> {
        let body = format!("grant_type=client_credentials&client_id={agent}&client_secret={agent}-token");
        Pair::of(self.ask(Errand::Token, &body).await)
    }

    async fn refresh(&self, token: &str) -> Result<Pair, Answered> {
        Pair::of(self.ask(Errand::Token, &format!("grant_type=refresh_token&refresh_token={token}")).await)
    }

    async fn revoke(&self, token: &str) -> u16 {
        self.ask(Errand::Revoke, &format!("token={token}")).await.status
    }

    /// Whether a worker would let this access token in.
    fn is_live(&self, access: &str) -> bool {
        let token = self.oauth.own_key.verify(access.as_bytes(), clock()).unwrap();
        self.published.load().get(&token.sid).is_some_and(|session| session.is_live(clock()))
    }

    fn events(&self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.pop()).collect()
    }
}

#[derive(Clone, Debug)]
struct Pair {
    access: String,
    refresh: String,
}

impl Pair {
    fn of(answered: Answered) -> Result<Self, Answered> {
        if answered.status != 200 {
            return Err(answered);
        }
        let body: Value = serde_json::from_slice(&answered.body).unwrap();
        assert_eq!(
            (&body["token_type"], &body["expires_in"], &body["scope"]),
            (&"Bearer".into(), &900.into(), &"mcp".into())
        );
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        Ok(Self { access: text("access_token"), refresh: text("refresh_token") })
    }
}

fn error_of(answered: &Answered) -> (u16, String) {
    let body: Value = serde_json::from_slice(&answered.body).unwrap();
    assert!(body["error_description"].is_string());
    (answered.status, body["error"].as_str().unwrap().to_owned())
}

fn worthless(result: Result<Pair, Answered>) {
    assert_eq!(error_of(&result.unwrap_err()), (400, "invalid_grant".to_owned()));
}

#[test]
fn a_session_is_renewed_token_by_token_and_a_copy_of_an_old_one_ends_it() {
    run(async {
        let rig = Rig::start(10).await;
        let first = rig.login("alpha").await.unwrap();
        let second = rig.refresh(&first.refresh).await.unwrap();
        let third = rig.refresh(&second.refresh).await.unwrap();
        assert!(first.refresh != second.refresh && second.refresh != third.refresh);
        assert!(rig.is_live(&first.access) && rig.is_live(&third.access), "one session");
        let other = rig.login("alpha").await.unwrap();
        rig.events();
        // The very first token, two rotations old.
        worthless(rig.refresh(&first.refresh).await);
        let events = rig.events();
        let [event, alert] = &events[..] else { panic!("{events:?}") };
        assert_eq!((alert.kind, alert.severity, alert.rule), (EventKind::Alert, Severity::High, "refresh-reuse"));
        assert_eq!(rig.alerts.recent().len(), 1);
        assert_eq!((event.kind, event.severity), (EventKind::RefreshReuse, Severity::High));
        assert_eq!((event.agent.as_str(), event.ip), ("alpha", Some(IpAddr::from([192, 0, 2, 7]))));
        assert!(!rig.is_live(&third.access), "the whole family has ended");
        worthless(rig.refresh(&third.refresh).await);
        assert!(rig.events().is_empty(), "one alarm a session");
        assert!(rig.is_live(&other.access), "the agent's other session has not");
        // And it stays so.
        let rig = rig.restart().await;
        worthless(rig.refresh(&third.refresh).await);
        assert!(rig.refresh(&other.refresh).await.is_ok());
    });
}

#[test]
fn of_many_requests_with_one_refresh_token_at_most_one_is_granted() {
    run(async {
        let rig = Rig::start(10).await;
        for _ in 0..20 {
            let pair = rig.login("alpha").await.unwrap();
            let answers = join_all((0..8).map(|_| rig.refresh(&pair.refresh))).await;
            let granted: Vec<Pair> = answers.into_iter().filter_map(Result::ok).collect();
            // None where the second use was seen before the first was answered.
            assert!(granted.len() <= 1, "{}", granted.len());
            // The token was used twice, so its session has ended for the one as well.
            assert!(!rig.is_live(&pair.access));
            for won in granted {
                assert!(!rig.is_live(&won.access));
                worthless(rig.refresh(&won.refresh).await);
            }
            let alarms = rig.events().into_iter().filter(|event| event.kind == EventKind::RefreshReuse);
            assert_eq!(alarms.count(), 1);
        }
    });
}

#[test]
fn an_agent_has_as_many_sessions_as_it_may_have() {
    run(async {
        let rig = Rig::start(3).await;
        let answers = join_all((0..10).map(|_| rig.login("alpha"))).await;
        let pairs: Vec<Pair> = answers.iter().filter_map(|answer| answer.as_ref().ok()).cloned().collect();
        assert_eq!(pairs.len(), 3, "however many come at once");
        for refused in answers.into_iter().filter_map(Result::err) {
            assert_eq!(error_of(&refused), (429, "temporarily_unavailable".to_owned()));
            assert_eq!(refused.failed, None, "its credentials were right");
        }
        assert!(rig.login("beta").await.is_ok(), "each agent for itself");
        assert_eq!(rig.revoke(&pairs[0].access).await, 200);
        let again = rig.login("alpha").await.unwrap();
        assert!(rig.login("alpha").await.is_err());
        // What has been idle for too long does not count, cleared away or not.
        pass(IDLE_MS - 1);
        assert!(rig.refresh(&again.refresh).await.is_ok());
        pass(1);
        assert!(rig.login("alpha").await.is_ok() && rig.login("alpha").await.is_ok());
        assert!(rig.login("alpha").await.is_err());
        let rig = rig.restart().await;
        assert!(rig.login("alpha").await.is_err(), "counted after a restart as well");
    });
}

#[test]
fn an_idle_session_ends_and_is_cleared_away() {
    run(async {
        let rig = Rig::start(10).await;
        let (idle, used) = (rig.login("alpha").await.unwrap(), rig.login("alpha").await.unwrap());
        pass(IDLE_MS / 2);
        // A worker has let a call in.
        let sid = rig.oauth.own_key.verify(used.access.as_bytes(), clock()).unwrap().sid;
        rig.published.load().get(&sid).unwrap().touch(clock());
        pass(IDLE_MS / 2);
        assert!(!rig.is_live(&idle.access) && rig.is_live(&used.access));
        worthless(rig.refresh(&idle.refresh).await);
        assert_eq!(rig.published.load().len(), 2);
        rig.oauth.book.clean(clock()).await;
        assert_eq!(rig.published.load().len(), 1);
        // The use is known after a restart.
        rig.oauth.close().await;
        let rig = rig.restart().await;
        assert_eq!(rig.published.load().len(), 1);
        assert!(rig.is_live(&used.access));
        pass(IDLE_MS / 2 - 1);
        assert!(rig.refresh(&used.refresh).await.is_ok());
        // A refresh token has an end of its own.
        let pair = rig.login("alpha").await.unwrap();
        let sid = rig.oauth.own_key.verify(pair.access.as_bytes(), clock()).unwrap().sid;
        for _ in 0..REFRESH_S * 1000 / (IDLE_MS / 2) {
            pass(IDLE_MS / 2);
            rig.published.load().get(&sid).unwrap().touch(clock());
        }
        worthless(rig.refresh(&pair.refresh).await);
    });
}

#[test]
fn a_session_is_worth_as_much_as_the_token_it_was_opened_with() {
    run(async {
        let rig = Rig::start(10).await;
        let pair = rig.login("alpha").await.unwrap();
        rig.valid.store(false, Ordering::Relaxed);
        assert_eq!(error_of(&rig.login("alpha").await.unwrap_err()), (401, "invalid_client".to_owned()));
        worthless(rig.refresh(&pair.refresh).await);
        rig.oauth.book.clean(clock()).await;
        assert!(rig.published.load().is_empty());
        let rig = rig.restart().await;
        assert!(rig.published.load().is_empty(), "gone from the disk");
        worthless(rig.refresh(&pair.refresh).await);
    });
}

#[test]
fn a_client_ends_its_own_session_by_either_token() {
    run(async {
        let rig = Rig::start(10).await;
        let (one, two) = (rig.login("alpha").await.unwrap(), rig.login("alpha").await.unwrap());
        let foreign = format!("token={}&client_id=beta&client_secret=beta-token", one.refresh);
        assert_eq!(error_of(&rig.ask(Errand::Revoke, &foreign).await), (400, "invalid_grant".to_owned()));
        let wrong = format!("token={}&client_id=alpha&client_secret=wrong", one.refresh);
        assert_eq!(error_of(&rig.ask(Errand::Revoke, &wrong).await), (401, "invalid_client".to_owned()));
        assert!(rig.is_live(&one.access));
        rig.events();
        assert_eq!(rig.revoke(&one.refresh).await, 200);
        assert_eq!(rig.events().iter().filter(|event| event.kind == EventKind::TokenRevoked).count(), 1);
        assert!(!rig.is_live(&one.access) && rig.is_live(&two.access));
        let own =
            format!("token={}&token_type_hint=access_token&client_id=alpha&client_secret=alpha-token", two.access);
        assert_eq!(rig.ask(Errand::Revoke, &own).await.status, 200);
        assert!(!rig.is_live(&two.access));
        rig.events();
        // What is not known, or has ended, is as good as revoked.
        for token in [&one.refresh, &two.access, "rwr_nonsense", "nonsense", "alpha-token"] {
            let answered = rig.ask(Errand::Revoke, &format!("token={token}")).await;
            assert_eq!((answered.status, answered.body.len(), answered.failed), (200, 0, None), "{token}");
        }
        assert!(rig.events().is_empty());
        let other = "eyJhbGciOiJSUzI1NiJ9.e30.AAAA";
        assert_eq!(error_of(&rig.ask(Errand::Revoke, &format!("token={other}")).await).1, "unsupported_token_type");
        let rig = rig.restart().await;
        assert!(rig.published.load().is_empty());
    });
}

#[test]
fn what_is_asked_for_wrongly_is_refused_as_the_rfc_says() {
    run(async {
        let rig = Rig::start(10).await;
        let pair = rig.login("alpha").await.unwrap();
        let own = "client_id=alpha&client_secret=alpha-token";
        let refresh = format!("grant_type=refresh_token&refresh_token={}", pair.refresh);
        for (body, status, error) in [
            (own.to_owned(), 400, "invalid_request"),
            (format!("grant_type=password&{own}"), 400, "unsupported_grant_type"),
            (format!("grant_type=client_credentials&grant_type=client_credentials&{own}"), 400, "invalid_request"),
            ("grant_type=client_credentials".to_owned(), 401, "invalid_client"),
            ("grant_type=client_credentials&client_id=alpha".to_owned(), 401, "invalid_client"),
            (
                "grant_type=client_credentials&client_id=alpha&client_secret=beta-token".to_owned(),
                401,
                "invalid_client",
            ),
            ("grant_type=client_credentials&client_id=alpha&client_secret=x".to_owned(), 401, "invalid_client"),
            // A session's token opens no session.
            (
                format!("grant_type=client_credentials&client_id=alpha&client_secret={}", pair.access),
                401,
                "invalid_client",
            ),
            (
                format!("grant_type=client_credentials&client_id=alpha&client_secret={}", pair.refresh),
                401,
                "invalid_client",
            ),
            (format!("grant_type=client_credentials&{own}&scope=admin"), 400, "invalid_scope"),
            (format!("grant_type=client_credentials&{own}&scope=mcp+admin"), 400, "invalid_scope"),
            (format!("grant_type=client_credentials&{own}&resource=http%3A%2F%2Fother"), 400, "invalid_target"),
            ("grant_type=refresh_token".to_owned(), 400, "invalid_request"),
            ("grant_type=refresh_token&refresh_token=rwr_x".to_owned(), 400, "invalid_grant"),
            (format!("grant_type=refresh_token&refresh_token={}", pair.access), 400, "invalid_grant"),
            (format!("{refresh}&client_id=beta"), 400, "invalid_grant"),
            (format!("{refresh}&client_id=beta&client_secret=beta-token"), 400, "invalid_grant"),
            (format!("{refresh}&client_id=alpha&client_secret=beta-token"), 401, "invalid_client"),
        ] {
            assert_eq!(error_of(&rig.ask(Errand::Token, &body).await), (status, error.to_owned()), "{body}");
        }
        assert!(rig.is_live(&pair.access), "none of it was a use of the refresh token");
        let all = format!("{refresh}&{own}&scope=mcp&resource=http://gate/mcp");
        assert!(Pair::of(rig.ask(Errand::Token, &all).await).is_ok());
        assert_eq!(error_of(&rig.ask(Errand::Revoke, "x=1").await), (400, "invalid_request".to_owned()));
    });
}

#[test]
fn what_the_disk_does_not_take_is_not_given_out() {
    run(async {
        let rig = Rig::start(1).await;
        let Rig { oauth, published, threads, dir, .. } = rig;
        threads.stop();
        let ask = |body: &str| {
            let body = Zeroizing::new(body.as_bytes().to_vec());
            oauth.answer(Asked {
                errand: Errand::Token,
                media: Media::Form,
                authorization: None,
                body,
                client: IpAddr::from([192, 0, 2, 7]),
            })
        };
        for _ in 0..3 {
            let refused = ask("grant_type=client_credentials&client_id=alpha&client_secret=alpha-token").await;
            // 503 and not 429: what was not opened holds no place.
            assert_eq!(error_of(&refused), (503, "temporarily_unavailable".to_owned()));
            assert_eq!(refused.retry_after_s, Some(1));
        }
        assert!(published.load().is_empty());
        drop(oauth);
        let rig = Rig::on(dir, 1).await;
        assert!(rig.published.load().is_empty());
        assert!(rig.login("alpha").await.is_ok());
    });
}
