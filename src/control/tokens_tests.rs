#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::state::events::Bell;
use crate::state::lifecycle::Lifecycle;
use crate::store::StoreThreads;

const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const NOW: u64 = 1_000_000;

fn clock() -> u64 {
    NOW
}

struct Rig {
    dir: tempfile::TempDir,
    store: Store,
    tokens: Tokens,
    view: Arc<ArcSwap<Credentials>>,
    events: Arc<EventQueue>,
    threads: StoreThreads,
}

impl Rig {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, threads) = open(&dir);
        let events = Arc::new(EventQueue::with_capacity(8, Arc::<Bell>::default()));
        let view = Arc::<ArcSwap<Credentials>>::default();
        let tokens = Tokens::new(store.clone(), Arc::clone(&view), Arc::clone(&events), clock);
        Self { dir, store, tokens, view, events, threads }
    }

    fn details(&self) -> Vec<(EventKind, String)> {
        std::iter::from_fn(|| self.events.pop()).map(|event| (event.kind, event.details.to_string())).collect()
    }
}

fn open(dir: &tempfile::TempDir) -> (Store, StoreThreads) {
    Store::open(&dir.path().join("data"), Arc::new(Lifecycle::new(1, Vec::new()))).unwrap()
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn wanted(agent: &str) -> Wanted {
    Wanted { agent: agent.to_owned(), label: "test".to_owned(), lifetime: None }
}

/// Whose token it is to a worker at `now_ms`.
fn holder(rig: &Rig, secret: &str, now_ms: u64) -> Option<String> {
    rig.view.load().token(&sha256(secret.as_bytes()), now_ms).map(|entry| entry.agent.to_string())
}

#[test]
fn what_is_given_out_is_on_disk_is_valid_at_once_and_is_recorded() {
    let rig = Rig::start();
    let fresh = run(rig.tokens.issue(wanted("alpha"), FROM)).map_err(|error| error.to_string());
    let Fresh { secret, token } = fresh.unwrap();
    assert!(secret.starts_with("rw_agent_") && secret.len() == 9 + 43, "{}", secret.len());
    assert_eq!(holder(&rig, &secret, NOW).as_deref(), Some("alpha"));
    assert_eq!(rig.details(), [(EventKind::TokenIssued, format!("token {}, from 127.0.0.1", token.id))]);
    let other = run(rig.tokens.issue(wanted("alpha"), FROM)).ok().unwrap();
    assert_ne!(*other.secret, *secret);
    // What another process finds after this one has gone.
    let Rig { dir, store, threads, tokens, .. } = rig;
    threads.stop();
    drop((store, tokens));
    let (store, _threads) = open(&dir);
    let found = load(&store, NOW).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found.token(&sha256(secret.as_bytes()), NOW).unwrap().id, token.id);
}

#[test]
fn a_rotated_token_has_its_grace_and_a_revoked_one_none() {
    let rig = Rig::start();
    run(async {
        let first = rig.tokens.issue(wanted("alpha"), FROM).await.ok().unwrap();
        let grace = Duration::from_secs(60);
        let (second, old) = rig.tokens.rotate(first.token.id, grace, None, FROM).await.ok().unwrap();
        assert_eq!((old.replaced_by, old.expires_ms), (Some(second.token.id), Some(NOW + 60_000)));
        for (at_ms, valid) in [(NOW, true), (NOW + 59_999, true), (NOW + 60_000, false)] {
            assert_eq!(holder(&rig, &first.secret, at_ms).is_some(), valid, "{at_ms}");
            assert!(holder(&rig, &second.secret, at_ms).is_some());
        }
        let again = rig.tokens.rotate(first.token.id, grace, None, FROM).await;
        assert_eq!(again.err(), Some(TokenError::Ended));
        rig.details();
        // A connection that holds it finds out, whatever view it has.
        let held = rig.view.load().get(&second.token.sha256).unwrap().clone();
        assert!(rig.tokens.revoke(second.token.id, FROM).await.unwrap().revoked_ms == Some(NOW));
        assert!(!held.is_valid(NOW) && holder(&rig, &second.secret, NOW).is_none());
        assert_eq!(rig.details(), [(EventKind::TokenRevoked, format!("token {}, from 127.0.0.1", second.token.id))]);
        rig.tokens.revoke(second.token.id, FROM).await.unwrap();
        assert_eq!(rig.details(), [], "nothing has changed");
        let unknown = TokenId::new(1, [0; 4]);
        assert_eq!(rig.tokens.revoke(unknown, FROM).await.err(), Some(TokenError::Unknown));
    });
}

#[test]
fn what_cannot_be_recorded_is_not_given_out_and_is_revoked_all_the_same() {
    let rig = Rig::start();
    run(async {
        let fresh = rig.tokens.issue(wanted("alpha"), FROM).await.ok().unwrap();
        while rig.events.push(Event::new(EventKind::Alert, NOW)).is_ok() {}
        assert_eq!(rig.tokens.issue(wanted("alpha"), FROM).await.err(), Some(TokenError::Unrecorded));
        let rotated = rig.tokens.rotate(fresh.token.id, Duration::ZERO, None, FROM).await;
        assert_eq!(rotated.err(), Some(TokenError::Unrecorded));
        assert!(holder(&rig, &fresh.secret, NOW).is_some());
        rig.tokens.revoke(fresh.token.id, FROM).await.unwrap();
        assert!(holder(&rig, &fresh.secret, NOW).is_none());
    });
}

#[test]
fn without_the_store_nothing_is_given_out_and_a_revocation_holds_for_now() {
    let rig = Rig::start();
    run(async {
        let fresh = rig.tokens.issue(wanted("alpha"), FROM).await.ok().unwrap();
        rig.threads.stop();
        let stopped = Some(TokenError::Store(StoreError::Stopped));
        assert_eq!(rig.tokens.issue(wanted("alpha"), FROM).await.err(), stopped);
        assert_eq!(rig.view.load().len(), 1);
        assert_eq!(rig.tokens.revoke(fresh.token.id, FROM).await.err(), stopped);
        assert!(rig.view.load().token(&fresh.token.sha256, NOW).is_none());
    });
}

#[test]
fn uses_are_written_down_once() {
    let rig = Rig::start();
    run(async {
        let fresh = rig.tokens.issue(wanted("alpha"), FROM).await.ok().unwrap();
        let unused = rig.tokens.issue(wanted("beta"), FROM).await.ok().unwrap();
        rig.view.load().get(&fresh.token.sha256).unwrap().note_use(NOW + 5_000);
        assert_eq!(rig.tokens.last_used_ms(&fresh.token), Some(NOW + 5_000), "before it is written down");
        assert_eq!(rig.tokens.last_used_ms(&unused.token), None);
        let before = rig.store.counts().writes.get();
        rig.tokens.write_down_last().await;
        rig.tokens.write_down_last().await;
        assert_eq!(rig.store.counts().writes.get() - before, 1);
        let stored = rig.store.token(fresh.token.id).await.unwrap().unwrap();
        assert_eq!(stored.last_used_ms, Some(NOW + 5_000));
    });
}

#[test]
fn a_change_is_brought_to_its_end_though_nobody_waits() {
    let rig = Rig::start();
    run(async {
        let fresh = rig.tokens.issue(wanted("alpha"), FROM).await.ok().unwrap();
        let mut revoking = Box::pin(rig.tokens.revoke(fresh.token.id, FROM));
        assert!(futures_util::poll!(&mut revoking).is_pending());
        drop(revoking);
        let ended = async {
            while holder(&rig, &fresh.secret, NOW).is_some() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap();
    });
}
